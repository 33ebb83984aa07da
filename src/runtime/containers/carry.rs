//! What of somebody else's configuration is carried over beside the spec (`--foreign=carry`): entries of registries.conf below
//! a source of the spec, and CAs, client certificates and logins of hosts about which the spec says nothing of the kind.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::entries::{Entries, entries};
use super::want::{Known, overlay};
use super::{files, logins};
use crate::desired::{Foreign, Part, Target};
use crate::format::auth_json::Login;
use crate::format::certs_d;
use crate::format::registries_conf::{Pull, Registry};
use crate::model::cert::fingerprints;
use crate::model::endpoint::{self, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::spec::adopt::{Adopted, AdoptedEndpoint, AdoptedHost, AdoptedMirror, From, adopt, comparable};
use crate::spec::express::adapted;
use crate::spec::intent::intent;

/// The spec as it counts here: with what was carried over earlier, and with what is found now where that is asked for.
///
/// # Errors
/// What cannot be carried over with the same meaning.
pub(super) fn carried<'a>(
    spec: &'a Spec,
    found: &[&FoundRuntime],
    tree: &Tree,
    known: Known<'_>,
    part: &mut Part,
) -> Result<Cow<'a, Spec>, Vec<Problem>> {
    let mut adopted = known.adopted.cloned().unwrap_or_default();
    let mut now = Carried::default();
    if known.foreign == Foreign::Carry {
        let without = overlay(tree, &Part::new(Target::Containers), known.owned);
        let ours = entries(spec);
        for on in found {
            now.look(spec, on, &without, known, &ours);
        }
        adopted = adopted.with(now.adopted.clone());
    }
    let counts = adopt(spec, &adopted);
    for on in found.iter().filter(|_| known.foreign == Foreign::Carry) {
        now.prove(spec, &counts, on, tree);
    }
    if !now.problems.is_empty() {
        return Err(now.problems);
    }
    part.notes.extend(now.notes);
    part.carries(adopted, &counts);
    Ok(counts)
}

/// What is found on a node.
#[derive(Default)]
struct Carried {
    adopted: Adopted,
    notes: Vec<Problem>,
    problems: Vec<Problem>,
}

impl Carried {
    /// `without`: the node without what is ours.
    fn look(&mut self, spec: &Spec, on: &FoundRuntime, without: &Tree, known: Known<'_>, ours: &Entries) {
        let loaded = files::load(without, &files::places(without, on));
        if loaded.broken.is_some() {
            return;
        }
        for (prefix, theirs) in &loaded.conf.registries {
            if let Some(entry) = ours.registries.iter().find(|entry| entry.prefix == *prefix) {
                if !entry.means(theirs) {
                    let what = format!("the entry for {prefix} is replaced: the spec says where its images come from");
                    self.note(what, &theirs.at);
                }
                continue;
            }
            let below = |entry: &Registry| prefix.strip_prefix(&entry.prefix).is_some_and(|rest| rest.starts_with('/'));
            if !ours.registries.iter().any(below) {
                continue;
            }
            match self.mirror(prefix, theirs) {
                Ok(mirror) => drop(self.adopted.mirrors.insert(prefix.clone(), mirror)),
                Err(why) => self.lost(&format!("the entry for {prefix}"), &why, &theirs.at),
            }
        }
        let endpoints: BTreeSet<Host> = self
            .adopted
            .mirrors
            .values()
            .flat_map(|mirror| &mirror.endpoints)
            .filter_map(|endpoint| Host::new(&endpoint.host).ok())
            .gathered();
        for host in ours.reached.union(&endpoints) {
            self.host(spec, on, without, known, host, !ours.reached.contains(host) && !spec.access.contains_key(host));
        }
    }

    fn mirror(&mut self, prefix: &str, theirs: &Registry) -> Result<AdoptedMirror, String> {
        let itself = theirs.location == prefix;
        if theirs.insecure && (itself && !theirs.blocked) {
            return Err("it is asked itself, without verification".to_owned());
        }
        let elsewhere = (!theirs.blocked && !itself).then_some((&theirs.location, theirs.insecure, Pull::All));
        // mirror-by-digest-only is of all mirrors, not of the registry itself
        let asked_for = |pull| if theirs.by_digest_only { Pull::Digest } else { pull };
        let mirrors = theirs.mirrors.iter().map(|mirror| (&mirror.location, mirror.insecure, asked_for(mirror.pull)));
        let mut endpoints = Vec::new();
        for (location, insecure, pull) in mirrors.chain(elsewhere) {
            let (host, path) = location.split_once('/').unwrap_or((location, ""));
            let host = Host::new(host).map_err(|error| error.to_string())?;
            if insecure {
                let from = From { key: format!("{prefix:?}"), file: theirs.at.file.to_string(), line: theirs.at.line };
                self.adopted.hosts.entry(host.to_string()).or_insert_with(|| AdoptedHost { from, ..AdoptedHost::default() }).insecure =
                    true;
            }
            let slash = if path.is_empty() { "" } else { "/" };
            endpoints.push(AdoptedEndpoint {
                http: false,
                host: host.to_string(),
                api_root: format!("/v2{slash}{path}"),
                pull: spoken(pull),
            });
        }
        if endpoints.is_empty() {
            let why = if theirs.blocked { "it is blocked" } else { "it is asked itself, and the spec has a mirror for it" };
            return Err(why.to_owned());
        }
        let from = From { key: format!("[[registry]] {prefix:?}"), file: theirs.at.file.to_string(), line: theirs.at.line };
        Ok(AdoptedMirror { endpoints, closed: theirs.blocked || !itself, http: false, from })
    }

    /// `new`: it is asked only because of what is carried over, so it is reached as before and in no other way.
    fn host(&mut self, spec: &Spec, on: &FoundRuntime, without: &Tree, known: Known<'_>, host: &Host, new: bool) {
        let material = match certs_d::material(without, &files::home(on), host) {
            Ok(material) => material,
            Err((file, why)) => return self.lost(&format!("the certificates for {host}"), &why, &Place::file(file.as_str())),
        };
        let all = logins::Logins::read(without, &logins::consulted(without, on));
        let ours = |file: &NodePath| {
            let keys = known.owned.get(file).map(|owned| owned.keys.as_slice()).unwrap_or_default();
            keys.iter().any(|edit| edit.key.len() == 2 && edit.key.last().is_some_and(|key| key == host.as_str()))
        };
        let login = match all.find(host, "") {
            Ok(Some((file, login))) if !ours(file) => Some((file, login)),
            _ => None,
        };
        let access = spec.access.get(host);
        if let Some((file, Login::Other(what))) = login.as_ref().filter(|_| access.is_none_or(|access| access.login.is_none())) {
            return self.lost(&format!("the login for {host}"), &format!("it is of another kind ({what})"), &Place::file(file.as_str()));
        }
        let basic = login.as_ref().and_then(|(_, login)| if let Login::Basic(basic) = login { Some(basic.clone()) } else { None });
        let file = material.folder.as_ref().or(login.as_ref().map(|(file, _)| *file)).cloned();
        let at = Place::file(file.as_ref().map_or("", |file| file.as_str()));
        let mut replaced = Vec::new();
        if let Some(access) = access.filter(|access| access.scheme == Scheme::Https) {
            let theirs = fingerprints(material.ca.as_bytes());
            let trusted = |theirs| access.insecure || access.ca.is_empty() || access.ca.iter().any(|ca| ca.fingerprint == theirs);
            if !theirs.into_iter().all(trusted) {
                replaced.push("CA");
            }
            if material.key.is_some() && access.client.as_ref().is_some_and(|client| client.chain_pem() != material.client) {
                replaced.push("client certificate");
            }
        }
        if access.and_then(|access| access.login.as_ref()).is_some_and(|login| basic.as_ref().is_some_and(|basic| *basic != login.basic)) {
            replaced.push("login");
        }
        if !replaced.is_empty() {
            self.note(format!("there is another {} for {host} than in the spec, which counts", replaced.join(", ")), &at);
        }
        let known = self.adopted.hosts.get(host.as_str());
        let insecure = known.is_some_and(|known| known.insecure);
        let from = From { key: format!("what is said of {host}"), file: at.file.to_string(), line: 0 };
        let how = AdoptedHost { insecure, ca: material.ca, client: material.client, key: material.key, login: basic, from };
        let says = !how.ca.is_empty() || how.key.is_some() || how.login.is_some() || insecure;
        if says || new {
            self.adopted.hosts.insert(host.to_string(), how);
        }
    }

    /// Holds what is asked now for what is carried over against what it will mean.
    fn prove(&mut self, spec: &Spec, counts: &Spec, on: &FoundRuntime, tree: &Tree) {
        for dialect in on.dialects(tree) {
            let view = on.view(tree, dialect);
            for (prefix, mirror) in self.adopted.mirrors.clone() {
                let Ok(image) = ImageRef::parse(&format!("{prefix}/nodeprep/probe:1")) else { continue };
                let before = view.resolve(&image);
                let meant = intent(counts, &image);
                let after = adapted(counts, &meant, dialect);
                if comparable(&before, spec) != comparable(&after, spec) {
                    let words = crate::plan::proof::asked;
                    let why = format!("{image} is asked for at {}, and would be at {}", words(&before), words(&after));
                    self.lost(&mirror.from.key.clone(), &why, &Place::file(mirror.from.file.as_str()));
                }
            }
        }
    }

    fn note(&mut self, what: String, at: &Place) {
        let problem = Problem::note("foreign-replaced", what, "add what is still needed to the spec").at(at.clone());
        let problem = Problem { severity: Severity::Warning, ..problem };
        if !self.notes.contains(&problem) {
            self.notes.push(problem);
        }
    }

    fn lost(&mut self, thing: &str, why: &str, at: &Place) {
        let what = format!("{thing} cannot be carried over with the same meaning: {why}");
        let help = "say it in the spec and remove it here, or let it be replaced with --foreign=replace";
        let problem = Problem::error("not-carried", what, help).at(at.clone());
        if !self.problems.contains(&problem) {
            self.problems.push(problem);
        }
    }
}

/// In the words of the spec.
const fn spoken(pull: Pull) -> endpoint::Pull {
    match pull {
        Pull::All => endpoint::Pull::All,
        Pull::Digest => endpoint::Pull::Digest,
        Pull::Tag => endpoint::Pull::Tag,
    }
}
