//! Settings of config.toml that stand in the way of `config_path`: what of them is carried over, and whether it means the same.
//!
//! `registry.mirrors` and, on 1.x, `registry.configs.*.tls` exclude `config_path` (`runtime-semantics.md` 1.8, T58);
//! `registry.configs.*.auth` and the older `registry.auths` do not, but go along with them: a header in hosts.toml is read at every pull. Before 2.1 a
//! header does not reach the token endpoint of registries that want bearer tokens (1.7), so there the login stays in
//! config.toml as well.

use std::collections::{BTreeMap, BTreeSet};

use super::legacy::default_scheme;
use super::{Dialect, View, folder_name};
use crate::desired::Part;
use crate::format::config_toml::{Chain, HostSettings, LegacyMirror, LegacyTls, registry_key};
use crate::format::hosts_toml::Url;
use crate::model::cert::{self, KeyMatch};
use crate::model::endpoint::Pull;
use crate::model::host::{HUB, Host};
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::tree::{Found, Tree};
use crate::plan::build::overlay;
use crate::runtime::FoundRuntime;
use crate::spec::adopt::{ALL, Adopted, AdoptedEndpoint, AdoptedHost, AdoptedMirror, From, comparable};
use crate::spec::intent::intent;
use crate::spec::{Fallback, Spec, Unlisted};

/// What stands in config.toml and is carried over.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// What it means.
    pub adopted: Adopted,
    /// What is taken out, in order.
    pub cuts: Vec<Cut>,
    /// What is worth knowing.
    pub notes: Vec<Problem>,
}

/// A table that is taken out.
#[derive(Debug)]
pub(super) struct Cut {
    /// From the top of the document.
    pub key: Vec<String>,
    /// Why, in the words of `plan`.
    pub why: String,
    /// It holds a login.
    pub secret: bool,
    /// It excludes `config_path`.
    pub conflicts: bool,
}

type Problems = Vec<Problem>;

/// Reads what is to be carried over. Logins that are in nobody's way stay where they are, unless the spec names their host.
///
/// # Errors
/// What cannot be carried over with the same meaning, each with its place.
pub(super) fn found(spec: &Spec, tree: &Tree, config: &NodePath, chains: &[(Dialect, Chain)]) -> Result<Legacy, Problems> {
    let Some((_, first)) = chains.first() else { return Ok(Legacy::default()) };
    // what runs now says what is meant; 2.x has no `tls`, and is asked only where 1.x is out of the question
    let configs = chains.iter().map(|(_, chain)| chain).find(|chain| has_tls(chain)).map_or(&first.configs, |chain| &chain.configs);
    let conflicts = !first.mirrors.is_empty() || configs.values().any(|how| how.tls.is_some());
    let mut legacy = Legacy::default();
    let mut problems = Vec::new();
    if let Some((_, other)) = chains.iter().find(|(_, chain)| endpoints(chain) != endpoints(first)) {
        let at = other.mirrors.values().chain(first.mirrors.values()).next().map(|mirror| mirror.at.clone());
        let mut problem = error("registry.mirrors", "means something else for another version of containerd", "write it in one file only");
        problem.at = at;
        return Err(vec![problem]);
    }
    let places = first.mirrors.values().map(|mirror| &mirror.at).chain(configs.values().filter(|_| conflicts).map(|how| &how.at));
    if let Some(at) = places.into_iter().find(|at| *at.file != *config.as_str()) {
        let help = format!("move its registry settings to {config}, from where they are carried over");
        let what = "what is said of registries in an imported file cannot be carried over";
        return Err(vec![Problem::error("legacy-registry", what, help).at(at.clone())]);
    }
    for (source, mirror) in &first.mirrors {
        match self::mirror(source, mirror) {
            Ok(Some(adopted)) => drop(legacy.adopted.mirrors.insert(source.clone(), adopted)),
            Ok(None) => {
                legacy.notes.push(idle(&format!("registry.mirrors.{source:?}"), "no image is of a registry of that name", &mirror.at));
            }
            Err(problem) => problems.push(problem),
        }
        let denies = spec.unlisted == Unlisted::Deny;
        let open = |adopted: &&AdoptedMirror| spec.fallback == Fallback::Never && !denies && adopted.endpoints.is_empty();
        if let Some(adopted) = legacy.adopted.mirrors.get(source).filter(open) {
            let what = format!("{} names no mirror: {source} is asked itself, whatever the spec's `fallback` says", adopted.from.key);
            let help = format!("write {source} as source of a [[mirror]] to close it");
            legacy.notes.push(Problem::warning("legacy-stays-open", what, help).at(mirror.at.clone()));
        }
        let to = if source == ALL {
            "_default".to_owned()
        } else {
            Host::new(source).map_or_else(|_| "nowhere".into(), |host| folder_name(&host))
        };
        let alone = legacy.adopted.mirrors.get(source).is_none_or(|adopted| adopted.endpoints.is_empty());
        let named = |host: Host| spec.access.contains_key(&host) || spec.mirrors_named(&host).next().is_some();
        if spec.all().is_some() || Host::new(source).is_ok_and(named) {
            let what = format!("registry.mirrors.{source:?} goes: the spec says where images of {source} come from");
            legacy.notes.push(Problem::note("legacy-replaced", what, String::new()).at(mirror.at.clone()));
        } else if denies && (source == ALL || alone) {
            let what = format!("registry.mirrors.{source:?} goes: the spec denies registries that it does not name");
            legacy.notes.push(Problem::note("legacy-replaced", what, String::new()).at(mirror.at.clone()));
        }
        let why = format!("registry.mirrors.{source:?} (line {}) is now said in certs.d/{to}", mirror.at.line);
        legacy.cut(chains, &["mirrors", source], &why, false, true);
    }
    let moved = chains.iter().all(|(dialect, _)| dialect.transfers());
    for (name, how) in configs {
        let named = Host::new(name).is_ok_and(|host| spec.access.contains_key(&host));
        // what the spec wants there is no legacy
        let wanted = |(host, access): (&Host, &crate::spec::Access)| {
            host.api().as_str() == name && access.login.as_ref().is_some_and(|login| login.by == crate::spec::LoginBy::Config)
        };
        let login = (how.basic.is_some() || how.token) && (conflicts || named) && !spec.access.iter().any(wanted);
        if how.tls.is_none() && !login {
            continue;
        }
        match host(name, how, tree) {
            Ok(Some(adopted)) => drop(legacy.adopted.hosts.insert(name.clone(), adopted)),
            Ok(None) => legacy.notes.push(idle(&said(name, how), "no request goes to a host of that name", &how.at)),
            Err(problem) => problems.push(problem),
        }
        let line = how.at.line;
        if moved {
            for url in &how.auths {
                let why = format!("registry.auths.{url:?} is now said in hosts.toml");
                legacy.cut(chains, &["auths", url], &why, true, false);
            }
        }
        if moved || !login {
            let why = format!("registry.configs.{name:?} (line {line}) is now said in hosts.toml");
            legacy.cut(chains, &["configs", name], &why, login, how.tls.is_some());
        } else {
            if how.tls.is_some() {
                let why = format!("registry.configs.{name:?}.tls (line {line}) is now said in hosts.toml");
                legacy.cut(chains, &["configs", name, "tls"], &why, false, true);
            }
            let what = format!("the login of {} is carried over to hosts.toml, and stays in config.toml too", said(name, how));
            let help = "before containerd 2.1 only that reaches registries that want bearer tokens; it does not exclude config_path";
            legacy.notes.push(Problem::note("legacy-login-stays", what, help).at(how.at.clone()));
        }
    }
    problems.extend(two_schemes(&legacy.adopted));
    if problems.is_empty() { Ok(legacy) } else { Err(problems) }
}

impl Legacy {
    fn cut(&mut self, chains: &[(Dialect, Chain)], below: &[&str], why: &str, secret: bool, conflicts: bool) {
        // each name of the table that counts for somebody
        let names: &[i64] = match chains.first().map_or(2, |(_, chain)| chain.version) {
            ..=1 => &[1],
            2 => &[2, 3],
            _ => &[3, 2],
        };
        for name in names.iter().copied() {
            let key = registry_key(name).into_iter().chain(below.iter().copied()).map(ToOwned::to_owned).collect();
            self.cuts.push(Cut { key, why: why.to_owned(), secret, conflicts });
        }
    }
}

fn has_tls(chain: &Chain) -> bool {
    chain.configs.values().any(|how| how.tls.is_some())
}

fn endpoints(chain: &Chain) -> Vec<(&String, &Vec<String>)> {
    chain.mirrors.iter().map(|(source, mirror)| (source, &mirror.endpoints)).collect()
}

fn error(key: &str, why: &str, help: &str) -> Problem {
    Problem::error("legacy-registry", format!("{key} cannot be carried over with the same meaning: {why}"), help)
}

fn idle(key: &str, why: &str, at: &Place) -> Problem {
    Problem::note("legacy-without-effect", format!("{key} has no effect and is not carried over: {why}"), String::new()).at(at.clone())
}

fn from(key: String, at: &Place) -> From {
    From { key, file: at.file.to_string(), line: at.line }
}

/// `None` where it is for no image at all.
fn mirror(source: &str, mirror: &LegacyMirror) -> Result<Option<AdoptedMirror>, Problem> {
    let key = format!("registry.mirrors.{source:?}");
    let host = match (source, Host::new(source)) {
        (ALL, _) => None,
        (_, Ok(host)) => Some(host),
        (_, Err(_)) => return Ok(None),
    };
    let mut endpoints: Vec<AdoptedEndpoint> = Vec::new();
    for text in &mirror.endpoints {
        let endpoint = endpoint(text).map_err(|why| {
            error(&key, &format!("endpoint {text:?} {why}"), "write it as https://host[:port][/path], or remove it").at(mirror.at.clone())
        })?;
        if endpoints.last() != Some(&endpoint) {
            endpoints.push(endpoint);
        }
    }
    let (mut closed, mut http) = (false, false);
    if let Some(host) = &host {
        // where the registry is among its endpoints it is not added as the last one
        let itself = |endpoint: &AdoptedEndpoint| endpoint.host == host.as_str() && endpoint.api_root == "/v2";
        if endpoints.iter().any(|endpoint| endpoint.host == host.as_str()) {
            match endpoints.last().filter(|last| itself(last)) {
                Some(last) => {
                    http = last.http;
                    endpoints.pop();
                }
                None => closed = true,
            }
        } else if endpoints.last().is_some_and(|last| last.host == host.api().as_str() && last.api_root == "/v2" && !last.http) {
            endpoints.pop();
        }
    }
    Ok(Some(AdoptedMirror { endpoints, closed, http, from: from(key, &mirror.at) }))
}

fn endpoint(text: &str) -> Result<AdoptedEndpoint, String> {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("{}://{text}", default_scheme(text)) };
    let url = Url::parse(&with_scheme, true)?;
    let http = match url.scheme.as_str() {
        "https" => false,
        "http" => true,
        other => return Err(format!("has the scheme {other:?}")),
    };
    let host = Host::new(&url.host).map_err(|error| error.to_string())?;
    // a path counts as it is, also a lone slash; without any it is /v2
    let has_path = with_scheme.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
    let api_root = if has_path { url.api_root } else { "/v2".to_owned() };
    Ok(AdoptedEndpoint { http, host: host.to_string(), api_root, pull: Pull::All })
}

/// The key that says how a host is reached.
fn said(name: &str, how: &HostSettings) -> String {
    match how.auths.last().filter(|_| how.tls.is_none()) {
        Some(url) => format!("registry.auths.{url:?}"),
        None => format!("registry.configs.{name:?}"),
    }
}

/// `None` where no request goes to it.
fn host(name: &str, how: &HostSettings, tree: &Tree) -> Result<Option<AdoptedHost>, Problem> {
    let key = said(name, how);
    let Ok(host) = Host::new(name) else { return Ok(None) };
    // Docker Hub is asked at registry-1.docker.io
    if host.as_str() == HUB {
        return Ok(None);
    }
    if how.token {
        let help =
            "log in with user name and password, or give the login in the spec (`credentials` of that [[registry]]) and remove the token";
        return Err(error(&format!("{key}.auth"), "it is an identity token, for which hosts.toml has no word", help).at(how.at.clone()));
    }
    let mut adopted = AdoptedHost { login: how.basic.clone(), from: from(key.clone(), &how.at), ..AdoptedHost::default() };
    if let Some(tls) = &how.tls {
        certificates(&mut adopted, tls, tree).map_err(|why| {
            error(&format!("{key}.tls"), &why, "repair or remove what is named here; pulls from that host fail as it is").at(tls.at.clone())
        })?;
    }
    Ok(Some(adopted))
}

fn certificates(adopted: &mut AdoptedHost, tls: &LegacyTls, tree: &Tree) -> Result<(), String> {
    let text = |path: &NodePath| match tree.find(path) {
        Found::File(bytes, _) => Ok(bytes.to_vec()),
        Found::Absent => Err(format!("{path} does not exist")),
        _ => Err(format!("{path} cannot be read")),
    };
    let read = |path: &NodePath| cert::read_pem(&text(path)?).map_err(|error| format!("{path} {error}"));
    let pem = |certs: &[cert::Cert]| certs.iter().map(cert::Cert::to_pem).collect::<String>();
    adopted.insecure = tls.skip_verify;
    if tls.half {
        return Err("of cert_file and key_file only one is set".to_owned());
    }
    if let Some(path) = &tls.ca {
        let certs = read(path)?.certs;
        if certs.is_empty() {
            return Err(format!("{path} holds no certificate"));
        }
        adopted.ca = pem(&certs);
    }
    if let Some((cert_file, key_file)) = &tls.client {
        let certs = read(cert_file)?.certs;
        let keys = read(key_file)?.keys;
        let key = keys.first().ok_or_else(|| format!("{key_file} holds no private key"))?;
        match cert::key_matches(&certs, key) {
            KeyMatch::No => return Err(format!("{key_file} is not the key of {cert_file}")),
            KeyMatch::Unreadable(why) => return Err(format!("{key_file} cannot be read: {why}")),
            KeyMatch::Yes | KeyMatch::Unknown(_) => {}
        }
        adopted.client = pem(&certs);
        adopted.key = Some(key.clone());
    }
    Ok(())
}

/// A host is reached in one way.
fn two_schemes(adopted: &Adopted) -> Option<Problem> {
    let mut schemes: BTreeMap<&str, bool> = BTreeMap::new();
    for mirror in adopted.mirrors.values() {
        for endpoint in &mirror.endpoints {
            if schemes.insert(&endpoint.host, endpoint.http).is_some_and(|before| before != endpoint.http) {
                let why = format!("{} is an endpoint both by http and by https", endpoint.host);
                let at = Place { file: mirror.from.file.as_str().into(), line: mirror.from.line, column: 0 };
                return Some(error(&mirror.from.key, &why, "write the same scheme everywhere").at(at));
            }
        }
    }
    None
}

/// Holds what was asked because of `registry.mirrors` against what the spec with all that is carried over means: the same,
/// but for what the spec says itself, and under `never` or `deny` without the registries themselves.
///
/// # Errors
/// Every difference.
pub(super) fn prove(
    spec: &Spec,
    whole: &Spec,
    legacy: &Legacy,
    tree: &Tree,
    on: &FoundRuntime,
    dialects: &[Dialect],
) -> Result<(), Problems> {
    let mut problems = Vec::new();
    let mut told = BTreeSet::new();
    // 2.x has no `tls`: where 1.x speaks, it says what is meant
    let reads_tls = |dialect: &Dialect| Chain::read(tree, &on.config, *dialect).is_ok_and(|chain| has_tls(&chain));
    let with_tls: Vec<Dialect> = dialects.iter().copied().filter(reads_tls).collect();
    for dialect in if with_tls.is_empty() { dialects } else { &with_tls } {
        let view = View::new(tree, on, *dialect);
        for (source, mirror) in &legacy.adopted.mirrors {
            let host = if source == ALL { "registry.nodeprep.invalid" } else { source };
            let Ok(image) = ImageRef::parse(&format!("{host}/nodeprep/probe:1")) else { continue };
            let denied = spec.unlisted == Unlisted::Deny && (source == ALL || mirror.endpoints.is_empty());
            if denied || spec.all().is_some() || spec.access.contains_key(&image.host) || spec.mirrors_named(&image.host).next().is_some() {
                continue;
            }
            let Some(before) = view.resolve_by_mirrors(&image) else { continue };
            let after = intent(whole, &image);
            if comparable(&before, spec) != comparable(&after, spec) && told.insert(source) {
                let words = |resolution| crate::plan::proof::asked(resolution);
                let why = format!("{host} is asked for at {}, and would be at {}", words(&before), words(&after));
                let at = Place { file: mirror.from.file.as_str().into(), line: mirror.from.line, column: 0 };
                problems.push(error(&mirror.from.key, &why, "write this source as a [[mirror]] in the spec").at(at));
            }
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// Somebody's folders in `root` that nothing reads until `config_path` is set, and that say something else than what is asked
/// now: in the way where mirrors are carried over, worth knowing elsewhere. `part` holds what is wanted.
pub(super) fn awakened(part: &Part, root: &NodePath, tree: &Tree, on: &FoundRuntime, dialects: &[Dialect]) -> (Problems, Problems) {
    let asleep = |dialect: &&Dialect| {
        Chain::read(tree, &on.config, **dialect).is_ok_and(|chain| chain.config_path(**dialect).is_empty() && chain.disabled.is_none())
    };
    let Some(dialect) = dialects.iter().find(asleep) else { return (Vec::new(), Vec::new()) };
    let foreign = |name: &String| {
        let folder = root.join(name);
        matches!(tree.find(&folder), Found::Dir) && !part.wants.contains_key(&folder.join("hosts.toml"))
    };
    let names: Vec<String> = tree.names(root).into_iter().filter(foreign).collect();
    if names.is_empty() {
        return (Vec::new(), Vec::new());
    }
    let (mut conflicts, mut notes) = (Vec::new(), Vec::new());
    let (now, then) = (View::new(tree, on, *dialect), View::new(&overlay(tree, &part.wants), on, *dialect));
    for name in names {
        let folder = root.join(&name);
        let host = match name.strip_suffix('_').and_then(|name| name.rsplit_once('_')) {
            Some((registry, digits)) => format!("{registry}:{digits}"),
            None if name == "_default" => "registry.nodeprep.invalid".to_owned(),
            None => name,
        };
        let Ok(image) = ImageRef::parse(&format!("{host}/nodeprep/probe:1")) else { continue };
        let (before, after) = (now.resolve(&image), then.resolve(&image));
        if before.settled() == after.settled() || !after.files.iter().any(|file| file.path.is_below(&folder)) {
            continue;
        }
        let words = crate::plan::proof::asked;
        let (before, after) = (words(&before), words(&after));
        let what = format!("{folder} is read once config_path is set: {host} is asked for at {before}, and would be at {after}");
        let help = format!("remove {folder}, or move what is needed of it into the spec");
        let problem = Problem::note("foreign-awakened", what, help).at(Place::file(folder.as_str()));
        if now.resolve_by_mirrors(&image).is_some() {
            conflicts.push(Problem { severity: Severity::Error, ..problem });
        } else {
            notes.push(problem);
        }
    }
    (conflicts, notes)
}
