//! What a node's containerd should hold for a spec: registry folders, certificate files, two keys of config.toml.
//!
//! What lives here: which folders ([`want`](fn@want)), the certificate files that they name (`pki`), the keys of config.toml
//! (`config`). What must not: reading configuration, judging foreign files (that is the plan's).

mod config;
mod pki;

use std::collections::BTreeMap;

use super::Dialect;
use crate::desired::{Part, Refusal, Target, Want, Whole};
use crate::format::HEADER;
use crate::format::hosts_toml::render::{Written, WrittenHost, check, render};
use crate::model::content::Content;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::repo::RepoPath;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::{Access, Fallback, Mirror, Spec, Unlisted};

/// Where registry folders go when nothing says otherwise.
pub(super) const DEFAULT_ROOT: &str = "/etc/containerd/certs.d";
/// Where our certificate and key files go.
pub(super) const PKI: &str = "/etc/nodeprep/pki";
/// A host that cannot exist (RFC 6761, 6.4), and says in the error of the pull who wants it so.
pub(super) const DENIED: &str = "denied-by-nodeprep.invalid";
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
/// The part is refused, with what to do, when the configuration on the node does not let it be done safely.
#[must_use]
pub fn want(spec: &Spec, found: &FoundRuntime, tree: &Tree, dialects: &[Dialect]) -> Part {
    let mut part = Part::new(Target::Containerd(found.config.clone()));
    let root = match config::prepare(spec, found, tree, dialects, &mut part) {
        Ok(Some(root)) => root,
        Ok(None) => return part,
        Err(problems) => return part.refuse(Refusal::Cannot(problems)),
    };
    let mut problems = Vec::new();
    for mirror in spec.mirrors.iter().filter(|mirror| !mirror.source.path.is_all()) {
        let what = format!("containerd cannot mirror {}: it knows whole registries only", mirror.source);
        problems.push(
            Problem::error("subhost-source", what, "mirror the whole registry, or limit `runtimes` to those that can")
                .at(mirror.at.clone()),
        );
    }
    let mut pki = pki::Pki::default();
    let stage = root.parent().unwrap_or_else(NodePath::root).join(STAGE);
    for (host, mirror) in registries(spec) {
        let folder = root.join(&folder_name(&host));
        let (content, why) = {
            let written = written(spec, &host, mirror, &mut pki);
            let content = render(&written.borrow());
            (content, why(&host, mirror))
        };
        let file = folder.join("hosts.toml");
        // rule 1 of 8.4; what stands there already was read again when it was written
        let known = tree.bytes(&file) == Some(&*content.bytes);
        if !known && let Err(broken) = check(&String::from_utf8_lossy(&content.bytes)) {
            let what = format!("the hosts.toml for {host} would not be read as meant: {broken}");
            let mut problem = Problem::error("hosts-toml-rule", what, "write each endpoint only once");
            problem.at = mirror.map(|mirror| mirror.at.clone());
            problems.push(problem);
            continue;
        }
        let mode = if content.secrets.is_empty() { 0o644 } else { 0o600 };
        let whole = Whole { content, mode, addressed: false, unit: Some(folder.clone()), stage: stage.clone(), why };
        part.wants.insert(file, Want::Whole(whole));
    }
    if spec.unlisted == Unlisted::Deny {
        let folder = root.join("_default");
        let why = "registries that the spec does not name are denied".to_owned();
        let content = Content::public(format!("# {HEADER}\nserver = \"https://{DENIED}\"\n\n[host]\n"));
        let whole = Whole { content, mode: 0o644, addressed: false, unit: Some(folder.clone()), stage, why };
        part.wants.insert(folder.join("hosts.toml"), Want::Whole(whole));
    }
    part.wants.extend(pki.into_wants());
    if problems.is_empty() { part } else { part.refuse(Refusal::Cannot(problems)) }
}

/// Every host name with a folder of its own, and the mirror that is responsible for it: as [`Spec::mirror_of`] says, of
/// several the last, but without asking each mirror about each host.
fn registries(spec: &Spec) -> BTreeMap<Host, Option<&Mirror>> {
    let mut found: BTreeMap<Host, Option<&Mirror>> = spec.own_hosts().map(|(host, _)| (host.clone(), None)).collect();
    for mirror in spec.mirrors.iter().filter(|mirror| mirror.source.path.is_all()) {
        found.insert(mirror.source.host.clone(), Some(mirror));
        if mirror.fallback == Fallback::Never {
            found.extend(mirror.source.host.aliases().into_iter().map(|alias| (alias, Some(mirror))));
        }
    }
    found
}

fn why(host: &Host, mirror: Option<&Mirror>) -> String {
    match mirror {
        None => format!("images of {host} are pulled from there directly"),
        Some(mirror) => {
            let endpoints: Vec<String> = mirror.endpoints.iter().map(ToString::to_string).collect();
            let then = if mirror.fallback == Fallback::Never { "nothing else" } else { "then the registry itself" };
            format!("images of {host} come from {}, {then}", endpoints.join(", "))
        }
    }
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
    access: &'a Access,
    ca: Option<NodePath>,
    client: Option<(NodePath, NodePath)>,
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
            ca: self.ca.as_ref(),
            client: self.client.as_ref().map(|(cert, key)| (cert, key)),
            skip_verify: self.access.insecure,
            login: self.access.login.as_ref().map(|login| &login.basic),
        }
    }
}

fn written<'a>(spec: &'a Spec, host: &Host, mirror: Option<&Mirror>, pki: &mut pki::Pki) -> Owned<'a> {
    let mut owned = |host: &Host, named: &Host, prefix: &RepoPath| {
        let access = spec.access(named);
        let plain = access.scheme == Scheme::Http;
        let ca = if plain || access.insecure { None } else { pki.ca(&access.ca) };
        let client = access.client.as_ref().filter(|_| !plain).map(|client| pki.client(client));
        OwnedHost { host: host.clone(), prefix: prefix.clone(), access, ca, client }
    };
    let endpoints = mirror.iter().flat_map(|mirror| &mirror.endpoints);
    let mut mirrors: Vec<OwnedHost<'_>> = endpoints.map(|endpoint| owned(&endpoint.host, &endpoint.host, &endpoint.prefix)).collect();
    if mirror.is_some_and(|mirror| mirror.fallback == Fallback::Never)
        && let Some(server) = mirrors.pop()
    {
        return Owned { mirrors, server, closed: true };
    }
    Owned { mirrors, server: owned(&host.api(), host, &RepoPath::all()), closed: false }
}
