//! What a node's containerd should hold for a spec: registry folders, certificate files, two keys of config.toml.
//!
//! What lives here: which folders ([`want`](fn@want)), the certificate files that they name (`pki`), the keys of config.toml
//! (`config`, `logins`). What must not: reading configuration, judging foreign files (that is the plan's).

mod config;
mod logins;
mod pki;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::{Dialect, FIRST, adopt, carry, give_way, too_old};
use crate::desired::{Part, Refusal, Target, Want, Whole};
use crate::format::HEADER;
use crate::format::hosts_toml::render::{Written, WrittenHost, check, check_default, render, render_open_default};
use crate::model::content::Content;
use crate::model::endpoint::{Endpoint, Pull, Scheme};
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::repo::RepoPath;
use crate::model::tree::{Found, Tree};
use crate::runtime::FoundRuntime;
use crate::spec::adopt::{ALL, Adopted};
use crate::spec::{Access, Fallback, LoginBy, Mirror, Spec, Unlisted};

/// Where registry folders go when nothing says otherwise.
pub(super) const DEFAULT_ROOT: &str = "/etc/containerd/certs.d";
/// Where our certificate and key files go, named by their content.
pub const PKI: &str = "/etc/nodeprep/pki";
/// A host that cannot exist (RFC 6761, 6.4), and says in the error of the pull who wants it so.
pub(super) const DENIED: &str = "denied-by-nodeprep.invalid";
/// The folder for every registry that has none of its own.
const DEFAULT: &str = "_default";
/// A folder for temporary files beside a folder that is scanned.
const STAGE: &str = ".nodeprep-stage";

/// The name of a registry's folder: the form that every version looks for first, without a colon in it
/// (`runtime-semantics.md` 1.1).
#[must_use]
pub fn folder_name(host: &Host) -> String {
    host.port().map_or_else(|| host.as_str().to_owned(), |port| format!("{}_{port}_", host.name()))
}

/// Everything that `found` needs to be true to `spec` on all of `dialects`: a folder for each source, under `never` for each
/// of its other names too, and for each host that images are pulled from directly; CA and client files, named by their
/// content; `config_path` and the pause image where they are not as they should be.
///
/// Sources that are no whole registries are passed over: that they cannot be told is said by the table
/// ([`crate::spec::express`]).
///
/// The part is refused, with what to do, when the configuration on the node does not let it be done safely.
#[must_use]
pub fn want(spec: &Spec, found: &FoundRuntime, tree: &Tree, dialects: &[Dialect]) -> Part {
    want_knowing(spec, found, tree, dialects, Known::default())
}

/// What is known of an earlier run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known<'a> {
    /// What was carried over from settings that are gone.
    pub adopted: Option<&'a Adopted>,
    /// What is ours, by path.
    pub owned: Option<&'a crate::ledger::Owns>,
    /// Folders that we made.
    pub dirs: Option<&'a BTreeSet<NodePath>>,
    /// What is done with what others have written.
    pub foreign: crate::desired::Foreign,
}

impl Known<'_> {
    pub(super) fn owns(&self, path: &NodePath) -> Option<&crate::ledger::Owned> {
        self.owned?.get(path).map(|owned| &**owned)
    }
}

/// The same after an earlier run: what was carried over then still counts.
#[must_use]
pub fn want_knowing(spec: &Spec, found: &FoundRuntime, tree: &Tree, dialects: &[Dialect], known: Known<'_>) -> Part {
    let mut part = Part::new(Target::Containerd(found.config.clone()));
    if let Some(version) = too_old(found) {
        let what =
            format!("containerd {version} does not read hosts.toml, which began with {FIRST}: whatever is written, it asks the internet");
        return part.refuse(Refusal::Cannot(vec![Problem::error("too-old", what, "update containerd, then run this again")]));
    }
    let carried = match carry::carried(spec, found, tree, dialects, known) {
        Ok(carried) => carried,
        Err(problems) => return part.refuse(Refusal::Conflict(problems)),
    };
    part.notes.extend(carried.notes);
    let known = Known { adopted: Some(&carried.adopted), ..known };
    let prepared = match config::prepare(spec, found, tree, dialects, known, &mut part) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return part,
        Err(problems) => return part.refuse(Refusal::Cannot(problems)),
    };
    let config::Prepared { root, whole } = prepared;
    let adopted = std::mem::take(&mut part.adopted);
    let spec = &*whole;
    let mut problems = Vec::new();
    let mut pki = pki::Pki::default();
    let stage = root.parent().unwrap_or_else(NodePath::root).join(STAGE);
    let mut folders = Vec::new();
    for (host, mirror) in registries(spec) {
        let folder = root.join(&folder_name(&host));
        let (content, why) = {
            let content = match mirror.filter(|mirror| mirror.is_blocked()) {
                Some(_) => denied(),
                None => render(&written(spec, &host, mirror, &mut pki).borrow()),
            };
            (content, why(host.as_str(), mirror) + &came_from(&adopted, &host, mirror))
        };
        let file = folder.join("hosts.toml");
        // rule 1 of 8.4; what stands there already was read again when it was written
        let known = tree.bytes(&file) == Some(&*content.bytes);
        if !known && let Found::File(..) = tree.find(&folder) {
            problems.push(no_folder(&folder, &format!("every pull from {host} fails as it is")));
            continue;
        }
        if !known && let Err(broken) = check(&String::from_utf8_lossy(&content.bytes)) {
            let what = format!("the hosts.toml for {host} would not be read as meant: {broken}");
            let mut problem = Problem::error("hosts-toml-rule", what, "write each endpoint only once");
            problem.at = mirror.map(|mirror| mirror.at.clone());
            problems.push(problem);
            continue;
        }
        let mode = if content.secrets.is_empty() { 0o644 } else { 0o600 };
        let whole = Whole { content, mode, addressed: false, unit: Some(folder.clone()), stage: stage.clone(), why };
        folders.push((file, Want::Whole(whole)));
    }
    part.wants.append(&mut folders.into_iter().collect());
    if let Some(all) = spec.all() {
        let content = default_file(spec, all, &mut pki);
        if let Err(broken) = check_default(&String::from_utf8_lossy(&content.bytes)) {
            let what = format!("the hosts.toml for all other registries would not be read as meant: {broken}");
            problems.push(Problem::error("hosts-toml-rule", what, "write each endpoint only once").at(all.at.clone()));
        }
        let from = adopted.mirrors.get(ALL).map(|known| &known.from).filter(|from| *from.file == *all.at.file && from.line == all.at.line);
        let from = from.map_or_else(String::new, |from| format!(" (from {from})"));
        let why = format!("{}{from}", why("all other registries", Some(all)));
        part.wants.insert(root.join(DEFAULT).join("hosts.toml"), default_whole(&root, content, &stage, why));
    } else if spec.unlisted == Unlisted::Deny {
        let why = "registries that the spec does not name are denied".to_owned();
        part.wants.insert(root.join(DEFAULT).join("hosts.toml"), default_whole(&root, denied(), &stage, why));
    }
    for (host, folder) in give_way::folders(spec, &root, tree, known, &part.wants) {
        // word for word what `_default` says: the registry itself is asked as the OS does it
        let mirror = spec.wider(&host);
        let content = mirror.map_or_else(denied, |mirror| default_file(spec, mirror, &mut pki));
        let why = if mirror.is_some() { why(host.as_str(), mirror) } else { format!("{host} is denied: the spec does not name it") };
        let mode = if content.secrets.is_empty() { 0o644 } else { 0o600 };
        let whole = Whole { content, mode, addressed: false, unit: Some(folder.clone()), stage: stage.clone(), why };
        part.wants.insert(folder.join("hosts.toml"), Want::Whole(whole));
    }
    part.wants.extend(pki.into_wants());
    part.carries(adopted, &whole);
    if !problems.is_empty() {
        return part.refuse(Refusal::Cannot(problems));
    }
    let (conflicts, notes) = adopt::awakened(&part, &root, tree, found, dialects);
    part.notes.extend(notes);
    if conflicts.is_empty() { part } else { part.refuse(Refusal::Conflict(conflicts)) }
}

/// Every host name with a folder of its own, and the mirror that is responsible for it: as [`Spec::mirror_of`] says, of
/// several the last, but without asking each mirror about each host.
pub(super) fn registries(spec: &Spec) -> BTreeMap<Host, Option<&Mirror>> {
    let mut found: Vec<(Host, Option<&Mirror>)> = spec.own_hosts().map(|(host, _)| (host.clone(), None)).collect();
    for (host, mirror) in spec.mirrors.iter().filter_map(|mirror| Some((mirror.source.whole()?, mirror))) {
        found.push((host.clone(), Some(mirror)));
        found.extend(spec.closed_names(mirror).into_iter().map(|alias| (alias, Some(mirror))));
    }
    // of one host the last counts
    found.into_iter().collect()
}

/// The file of a registry from which nothing is pulled: its only host cannot exist.
fn denied() -> Content {
    Content::public(format!("# {HEADER}\nserver = \"https://{DENIED}\"\n\n[host]\n"))
}

fn default_whole(root: &NodePath, content: Content, stage: &NodePath, why: String) -> Want {
    let mode = if content.secrets.is_empty() { 0o644 } else { 0o600 };
    Want::Whole(Whole { content, mode, addressed: false, unit: Some(root.join(DEFAULT)), stage: stage.clone(), why })
}

fn why(host: &str, mirror: Option<&Mirror>) -> String {
    match mirror {
        Some(mirror) if mirror.is_blocked() => format!("nothing is pulled from {host}: the spec blocks it"),
        None => format!("images of {host} are pulled from there directly"),
        Some(mirror) => {
            let mut why = ["images of ", host, " come from "].concat();
            for endpoint in &mirror.endpoints {
                let _ = write!(why, "{endpoint}");
                why.push_str(", ");
            }
            why + if mirror.fallback == Fallback::Never { "nothing else" } else { "then the registry itself" }
        }
    }
}

/// Where what is carried over was written.
fn came_from(adopted: &Adopted, host: &Host, mirror: Option<&Mirror>) -> String {
    if adopted.is_empty() {
        return String::new();
    }
    let mut origins = Vec::new();
    if let Some(mirror) = mirror {
        let known = [mirror.source.to_string().as_str(), ALL].into_iter().find_map(|source| adopted.mirrors.get(source));
        origins.extend(known.map(|known| &known.from).filter(|from| *from.file == *mirror.at.file && from.line == mirror.at.line));
    }
    origins
        .extend(adopted.mirrors.get(host.as_str()).filter(|known| mirror.is_none() && known.endpoints.is_empty()).map(|known| &known.from));
    origins.extend(adopted.hosts.get(host.api().as_str()).map(|how| &how.from));
    let all: Vec<String> = origins.iter().map(ToString::to_string).collect();
    if all.is_empty() { String::new() } else { format!(" (from {})", all.join(", ")) }
}

/// The file for registries without a folder of their own.
fn default_file(spec: &Spec, all: &Mirror, pki: &mut pki::Pki) -> Content {
    if all.is_blocked() {
        return denied();
    }
    let mut mirrors: Vec<OwnedHost<'_>> = all.endpoints.iter().map(|endpoint| at_endpoint(spec, endpoint, pki)).collect();
    match all.fallback {
        Fallback::Never if !mirrors.is_empty() => {
            let server = mirrors.remove(mirrors.len() - 1);
            render(&Owned { mirrors, server, closed: true }.borrow())
        }
        _ => render_open_default(&mirrors.iter().map(OwnedHost::borrow).collect::<Vec<_>>()),
    }
}

/// A file where a folder belongs (T25).
pub(super) fn no_folder(path: &NodePath, why: &str) -> Problem {
    let what = format!("{path} is a file where a folder belongs: {why}");
    Problem::error("hosts-folder", what, format!("move {path} away")).at(Place::file(path.as_str()))
}

/// What [`Written`] borrows from.
struct Owned<'a> {
    mirrors: Vec<OwnedHost<'a>>,
    server: OwnedHost<'a>,
    closed: bool,
}

struct OwnedHost<'a> {
    host: Host,
    prefix: RepoPath,
    verbatim: bool,
    access: &'a Access,
    ca: Option<NodePath>,
    client: Option<(NodePath, NodePath)>,
    /// The endpoint, where it is one: it may have options.
    endpoint: Option<&'a Endpoint>,
}

impl Owned<'_> {
    fn borrow(&self) -> Written<'_> {
        Written { mirrors: self.mirrors.iter().map(OwnedHost::borrow).collect(), server: self.server.borrow(), closed: self.closed }
    }
}

impl OwnedHost<'_> {
    fn borrow(&self) -> WrittenHost<'_> {
        WrittenHost {
            scheme: self.access.scheme,
            host: &self.host,
            prefix: &self.prefix,
            verbatim: self.verbatim,
            ca: self.ca.as_ref(),
            client: self.client.as_ref().map(|(cert, key)| (cert, key)),
            skip_verify: self.access.insecure,
            login: self.access.login.as_ref().filter(|login| login.by == LoginBy::Header).map(|login| &login.basic),
            by_digest_only: self.endpoint.is_some_and(|endpoint| endpoint.pull == Pull::Digest),
            timeout: self.endpoint.and_then(|endpoint| endpoint.timeout),
            header: self.endpoint.map(|endpoint| endpoint.header.as_slice()).unwrap_or_default(),
            guarded: self.endpoint.is_some_and(|endpoint| endpoint.guarded),
        }
    }
}

fn at_endpoint<'a>(spec: &'a Spec, endpoint: &'a Endpoint, pki: &mut pki::Pki) -> OwnedHost<'a> {
    let host = reached(spec, &endpoint.host, &endpoint.host, pki);
    OwnedHost { prefix: endpoint.prefix.clone(), verbatim: endpoint.verbatim, endpoint: Some(endpoint), ..host }
}

fn reached<'a>(spec: &'a Spec, host: &Host, named: &Host, pki: &mut pki::Pki) -> OwnedHost<'a> {
    let access = spec.access(named);
    let plain = access.scheme == Scheme::Http;
    let ca = if plain || access.insecure { None } else { pki.ca(&access.ca) };
    let client = access.client.as_ref().filter(|_| !plain).map(|client| pki.client(client));
    OwnedHost { host: host.clone(), prefix: RepoPath::all(), verbatim: false, access, ca, client, endpoint: None }
}

fn written<'a>(spec: &'a Spec, host: &Host, mirror: Option<&'a Mirror>, pki: &mut pki::Pki) -> Owned<'a> {
    let endpoints = mirror.iter().flat_map(|mirror| &mirror.endpoints);
    let mut mirrors: Vec<OwnedHost<'_>> = endpoints.map(|endpoint| at_endpoint(spec, endpoint, pki)).collect();
    if mirror.is_some_and(|mirror| mirror.fallback == Fallback::Never)
        && let Some(server) = mirrors.pop()
    {
        return Owned { mirrors, server, closed: true };
    }
    Owned { mirrors, server: reached(spec, &host.api(), host, pki), closed: false }
}
