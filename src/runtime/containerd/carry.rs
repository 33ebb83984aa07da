//! What of somebody else's registry folders is carried over beside the spec (`--foreign=carry`): CAs, client certificates, logins
//! and headers of hosts about which the spec says nothing of the kind. Where images come from is said by the spec for every
//! registry whose folder is in the way.

use super::view::NOBODY;
use super::want::{Known, registries};
use super::{Dialect, View};
use crate::desired::Foreign;
use crate::format::HEADER;
use crate::format::hosts_toml::HostConfig;
use crate::model::cert::{self, Cert, KeyMatch, base64_decode};
use crate::model::host::Host;
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::resolution::Verdict;
use crate::model::secret::Secret;
use crate::model::tree::{Found, Tree};
use crate::runtime::FoundRuntime;
use crate::spec::adopt::{ALL, Adopted, AdoptedHeader, AdoptedHeaders, AdoptedHost, From};
use crate::spec::{Fallback, Mirror, Spec, Unlisted};

/// What is carried over, with what earlier runs did.
#[derive(Debug, Default)]
pub(super) struct Carried {
    /// All of it.
    pub adopted: Adopted,
    /// What the spec replaces.
    pub notes: Vec<Problem>,
}

/// Looks at each registry whose folder will be ours.
///
/// # Errors
/// What has no counterpart.
pub(super) fn carried(
    spec: &Spec,
    on: &FoundRuntime,
    tree: &Tree,
    dialects: &[Dialect],
    known: Known<'_>,
) -> Result<Carried, Vec<Problem>> {
    let mut carried = Carried { adopted: known.adopted.cloned().unwrap_or_default(), notes: Vec::new() };
    let Some(dialect) = dialects.first().filter(|_| known.foreign == Foreign::Carry) else { return Ok(carried) };
    let view = View::new(tree, on, *dialect);
    let ours = |path: &NodePath| {
        known.owns(path).is_some() || tree.text(path).is_some_and(|text| text.lines().next().is_some_and(|line| line.contains(HEADER)))
    };
    let (mut found, mut problems) = (Adopted::default(), Vec::new());
    // `_default`, where the spec speaks of all
    let rest = spec.all().and_then(|all| Some((Host::from_reference(NOBODY).ok()?, Some(all))));
    for (registry, mirror) in registries(spec).into_iter().chain(rest) {
        let is_rest = registry.as_str() == NOBODY;
        let Some(located) = view.found_for(&registry) else { break };
        let Ok(Some(located)) = &*located else { continue };
        let files = || located.files.iter().filter(|file| file.verdict == Verdict::Used).map(|file| &file.path);
        let Some(file) = files().find(|path| !ours(path)) else { continue };
        let mut replaced = Vec::new();
        for config in located.hosts.iter() {
            let host = match config.url.as_ref().filter(|url| !url.host.is_empty()) {
                Some(url) => Host::from_reference(&url.host).ok(),
                None => Some(registry.api()),
            };
            let Some(host) = host else { continue };
            if is_rest && host == registry.api() {
                let says = config.has_tls() || !config.header.is_empty();
                if says && mirror.is_some_and(|mirror| mirror.fallback == Fallback::Upstream) {
                    problems.push(lost(file, "what it says of each registry itself has no counterpart"));
                }
                continue;
            }
            let wanted = mirror.is_some_and(|mirror| mirror.endpoints.iter().any(|endpoint| endpoint.host == host));
            if !wanted && host != registry.api() {
                replaced.push(host.to_string());
            }
            if !spec.access.contains_key(&host) && host != registry.api() {
                continue;
            }
            match headers(config, &host, file) {
                Err(why) => problems.push(lost(file, &format!("{host}: {why}"))),
                Ok(headers) if headers.all.is_empty() => {}
                Ok(headers) if wanted => {
                    if said(mirror, &host, &headers) {
                        let what = format!("{file} has another header for {host} than the spec, which counts");
                        carried.notes.push(warning(what, "add what is still needed to the spec", file));
                    }
                    let source = if is_rest { ALL.to_owned() } else { registry.to_string() };
                    found.headers.entry(source).or_default().insert(host.to_string(), headers);
                }
                // the registry itself is still asked, and only an endpoint of the spec can have headers
                Ok(headers) if host == registry.api() && mirror.is_none_or(|mirror| mirror.fallback == Fallback::Upstream) => {
                    let names: Vec<&str> = headers.all.iter().map(|header| header.name.as_str()).collect();
                    // what is said of everything was hardly meant for the endpoint as a registry of its own
                    if spec.all().is_some() && file.parent().is_some_and(|folder| folder.name() == "_default") {
                        let what = format!("{file} sends the header {} to {host} for its own images, too; no longer", names.join(", "));
                        carried.notes.push(warning(what, "let the registry do without it", file));
                    } else {
                        problems.push(lost(file, &format!("{host}: the header {} has no counterpart", names.join(", "))));
                    }
                }
                Ok(_) => {}
            }
            match reached(config, &host, file, tree) {
                Ok(how) if how == (AdoptedHost { from: how.from.clone(), ..AdoptedHost::default() }) => {}
                Ok(how) => {
                    told(spec, &host, &how, &mut carried.notes);
                    let before = found.hosts.insert(host.to_string(), how.clone());
                    if before.is_some_and(|before| AdoptedHost { from: how.from.clone(), ..before } != how) {
                        problems.push(lost(file, &format!("{host} is reached in another way than in another file")));
                    }
                }
                Err(why) => problems.push(lost(file, &format!("{host}: {why}"))),
            }
        }
        if !replaced.is_empty() {
            let registry = if is_rest { "all other registries" } else { registry.as_str() };
            let what = format!("{file} sends pulls of {registry} to {}; the spec says where they go now", replaced.join(", "));
            carried.notes.push(warning(what, "name them as endpoints in the spec if they are still needed", file));
        }
    }
    problems.extend(catch_all(spec, &view, &ours));
    if !problems.is_empty() {
        return Err(problems);
    }
    carried.adopted = carried.adopted.with(found);
    Ok(carried)
}

/// `unlisted = "deny"` needs the place of a catch-all, and has no room for its mirrors.
fn catch_all(spec: &Spec, view: &View, ours: &impl Fn(&NodePath) -> bool) -> Option<Problem> {
    let nobody = Host::from_reference(NOBODY).ok().filter(|_| spec.unlisted == Unlisted::Deny)?;
    let located = view.found_for(&nobody)?;
    let located = located.as_ref().as_ref().ok()?.as_ref()?;
    let file = located.files.iter().filter(|file| file.verdict == Verdict::Used).map(|file| &file.path).find(|path| !ours(path))?;
    let hosts: Vec<&str> = located.hosts.iter().filter_map(|config| Some(config.url.as_ref()?.host.as_str())).collect();
    Some(lost(file, &format!("it sends pulls of all other registries to {}, which `unlisted = \"deny\"` denies", hosts.join(", "))))
}

fn warning(what: String, help: &str, file: &NodePath) -> Problem {
    let problem = Problem::note("foreign-replaced", what, help).at(Place::file(file.as_str()));
    Problem { severity: Severity::Warning, ..problem }
}

fn lost(file: &NodePath, why: &str) -> Problem {
    let help = "say it in the spec and remove the file, or let it be replaced with --foreign=replace";
    Problem::error("not-carried", format!("{file} cannot be carried over with the same meaning: {why}"), help)
        .at(Place::file(file.as_str()))
}

/// What the spec says otherwise.
fn told(spec: &Spec, host: &Host, how: &AdoptedHost, notes: &mut Vec<Problem>) {
    let Some(access) = spec.access.get(host) else { return };
    let cas: std::collections::BTreeSet<_> = cert::fingerprints(how.ca.as_bytes());
    let mut all = Vec::new();
    if !cas.is_empty() && !access.ca.is_empty() && !cas.iter().all(|ca| access.ca.iter().any(|ours| ours.fingerprint == *ca)) {
        all.push("CA");
    }
    if how.key.is_some() && access.client.as_ref().is_some_and(|client| client.chain_pem() != how.client) {
        all.push("client certificate");
    }
    if how.login.is_some() && access.login.as_ref().is_some_and(|login| Some(&login.basic) != how.login.as_ref()) {
        all.push("login");
    }
    if !all.is_empty() {
        let file = NodePath::new(&how.from.file).unwrap_or_else(|_| NodePath::root());
        let what = format!("{file} has another {} for {host} than the spec, which counts", all.join(", "));
        let problem = warning(what, "add what is still needed to the spec", &file);
        if !notes.contains(&problem) {
            notes.push(problem);
        }
    }
}

fn reached(config: &HostConfig, host: &Host, file: &NodePath, tree: &Tree) -> Result<AdoptedHost, String> {
    let from = From { key: format!("the settings of {host}"), file: file.to_string(), line: config.at.line };
    let mut how = AdoptedHost { insecure: config.skip_verify == Some(true), from, ..AdoptedHost::default() };
    let read = |path: &NodePath| match tree.find(path) {
        Found::File(bytes, _) => cert::read_pem(bytes).map_err(|error| format!("{path} {error}")),
        _ => Err(format!("{path} cannot be read")),
    };
    let pem = |certs: &[Cert]| certs.iter().map(Cert::to_pem).collect::<String>();
    for path in config.ca.iter().flatten() {
        how.ca.push_str(&pem(&read(path)?.certs));
    }
    let pairs = config.client.as_deref().unwrap_or_default();
    if pairs.len() > 1 {
        return Err("it has several client certificates".to_owned());
    }
    if let Some((cert_file, key_file)) = pairs.first() {
        let certs = read(cert_file)?;
        let keys = key_file.as_ref().map_or_else(|| Ok(certs.clone()), read)?.keys;
        let key = keys.first().ok_or_else(|| format!("{cert_file} has no private key"))?;
        if let KeyMatch::No | KeyMatch::Unreadable(_) = cert::key_matches(&certs.certs, key) {
            return Err(format!("{cert_file} and its key do not belong together"));
        }
        how.client = pem(&certs.certs);
        how.key = Some(key.clone());
    }
    for (name, values) in config.header.iter().filter(|(name, _)| is_login(name)) {
        let coded = values.first().filter(|_| values.len() == 1);
        let basic = coded.and_then(|value| value.strip_prefix("Basic ").or_else(|| value.strip_prefix("basic ")));
        let plain = basic.and_then(|coded| base64_decode(coded.trim()));
        how.login = Some(Secret::new(plain.ok_or_else(|| format!("the header {name} has no counterpart"))?));
    }
    Ok(how)
}

fn is_login(name: &str) -> bool {
    name.eq_ignore_ascii_case("authorization")
}

/// What else is sent along: `header` of an endpoint.
fn headers(config: &HostConfig, host: &Host, file: &NodePath) -> Result<AdoptedHeaders, String> {
    let from = From { key: format!("the header of {host}"), file: file.to_string(), line: config.at.line };
    let one = |(name, values): &(String, Vec<String>)| match values.as_slice() {
        [value] => Ok(AdoptedHeader { name: name.clone(), value: Some(Secret::new(value.as_str())) }),
        _ => Err(format!("the header {name} has {} values, for which the spec has no word", values.len())),
    };
    let mut all: Vec<AdoptedHeader> = config.header.iter().filter(|(name, _)| !is_login(name)).map(one).collect::<Result<_, _>>()?;
    order::sort(&mut all);
    Ok(AdoptedHeaders { all, from })
}

/// Whether the spec gives an endpoint other headers.
fn said(mirror: Option<&Mirror>, host: &Host, theirs: &AdoptedHeaders) -> bool {
    let endpoints = mirror.into_iter().flat_map(|mirror| &mirror.endpoints).filter(|endpoint| endpoint.host == *host);
    let same = |header: &[(String, String)]| {
        let known = |theirs: &AdoptedHeader| {
            let value = theirs.value.as_ref().map(Secret::expose);
            header.iter().any(|(name, ours)| name.eq_ignore_ascii_case(&theirs.name) && Some(ours.as_bytes()) == value)
        };
        theirs.all.iter().all(known)
    };
    endpoints.map(|endpoint| endpoint.header.as_slice()).any(|header| !header.is_empty() && !same(header))
}
