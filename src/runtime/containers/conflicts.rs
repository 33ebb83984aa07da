//! Somebody else's files that stand in the way of ours, or that ours would put out of force.
//!
//! The rules of registries.conf are checked on the *merged* result, with our drop-in laid over what is there (rule 15 of
//! `runtime-semantics.md` 8.4).

use std::collections::BTreeSet;

use super::entries::Entries;
use super::files::{self, Places, load};
use super::legacy::Legacy;
use super::want::Known;
use crate::desired::Foreign;
use crate::format::certs_d::{self, Certs};
use crate::format::registries_conf::DROP_IN;
use crate::model::digest::Fingerprint;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::{Entry, Tree};
use crate::runtime::FoundRuntime;
use crate::spec::Spec;

/// With what, and what may keep it from that.
const TAKES_OUT: &str = " (--foreign=carry or replace), which it can where each entry is a [[registry]] table of its own";

/// What stands against it, by the two ways of refusing.
#[derive(Debug, Default)]
pub struct Against {
    /// The node cannot do it (exit 4).
    pub cannot: Vec<Problem>,
    /// Somebody else's configuration is in the way (exit 5).
    pub conflict: Vec<Problem>,
}

impl Against {
    fn conflict(&mut self, problem: Problem) {
        if !self.conflict.contains(&problem) {
            self.conflict.push(problem);
        }
    }

    fn cannot(&mut self, problem: Problem) {
        if !self.cannot.contains(&problem) {
            self.cannot.push(problem);
        }
    }
}

/// Checks registries.conf: `after` is the tree with our files laid over it.
/// What has no effect any more because of ours is no conflict, whoever wrote it; `legacy` gives way to the spec.
pub fn registries(
    against: &mut Against,
    before: &Tree,
    after: &Tree,
    places: &Places,
    entries: &Entries,
    legacy: &Legacy,
    known: Known<'_>,
) {
    let refuses = known.foreign == Foreign::Refuse;
    let in_home = places.dirs.first().is_some_and(|dir| known.owned.contains_key(&dir.join(DROP_IN)));
    if places.hides_etc && refuses && !in_home {
        let what = format!("{} hides /etc/containers/registries.conf and its drop-ins from root's programs", places.main);
        let help = format!(
            "remove {}, or move what it says to /etc/containers/registries.conf; --foreign=replace puts the spec's drop-in beside it",
            places.main
        );
        against.conflict(Problem::error("registries-conf-hidden", what, help).at(Place::file(places.main.as_str())));
        return;
    }
    if let Some(dir) = places.dirs.first()
        && let Some(Entry::Link { to, .. }) = after.real_parent(dir).and_then(|real| after.entry(&real))
    {
        let what = format!("{dir} is a symbolic link to {to}, and containers/image reads nothing behind it");
        let help = format!("make {dir} a real folder");
        against.cannot(Problem::error("drop-in-folder-link", what, help).at(Place::file(dir.as_str())));
        return;
    }
    let loaded = load(after, places);
    if let Some(invalid) = &loaded.broken {
        let what = format!("registries.conf is invalid, so every pull fails already: {}", invalid.what);
        let problem = Problem::error("registries-conf-invalid", what, "correct or remove what is named here, then run again");
        against.conflict(problem.at(invalid.at.clone()));
        return;
    }
    let was = std::cell::LazyCell::new(|| load(before, places).conf);
    let mut behind_ours = false;
    for (file, conf) in &loaded.layers {
        if file.name() == DROP_IN {
            behind_ours = true;
            continue;
        }
        if let (Some(ours), Some(theirs)) = (&entries.search, &conf.search)
            && behind_ours
            && ours != theirs
        {
            let what = format!("unqualified-search-registries in {file} comes after {DROP_IN} and replaces ours");
            let help =
                format!("remove it from {file}, give the file a name that sorts before {DROP_IN}, or let nodeprep take it out{TAKES_OUT}");
            against.conflict(Problem::error("foreign-search", what, help).at(Place::file(file.as_str())));
        }
        for ours in &entries.registries {
            let Some(theirs) = conf.registries.get(&ours.prefix).filter(|theirs| !theirs.means(ours)) else { continue };
            // what version 1 said gives way to the spec
            if !behind_ours && legacy.carried(file, theirs) {
                continue;
            }
            let counts = was.registries.get(&ours.prefix).is_some_and(|entry| *entry.at.file == *file.as_str());
            if !behind_ours && (!refuses || !counts) {
                continue;
            }
            let mirrors: Vec<&str> = theirs.mirrors.iter().map(|mirror| mirror.location.as_str()).collect();
            let has = if mirrors.is_empty() { "no mirrors".to_owned() } else { format!("mirrors {}", mirrors.join(", ")) };
            let (what, help) = if behind_ours {
                let what = format!("the entry for {} ({has}) comes after {DROP_IN} and replaces ours", ours.prefix);
                let moved = format!("give the file a name that sorts before {DROP_IN}");
                (what, format!("remove the entry from {file}, {moved}, or let nodeprep take it out{TAKES_OUT}"))
            } else {
                let what = format!("an entry for {} is there already ({has}); ours would replace it", ours.prefix);
                (
                    what,
                    format!(
                        "remove the entry from {file}, say the same in the spec, or let nodeprep deal with it (--foreign=carry or replace)"
                    ),
                )
            };
            against.conflict(Problem::error("foreign-registry", what, help).at(theirs.at.clone()));
        }
    }
}

/// Says which list of search registries counts no longer.
pub fn search(before: &Tree, places: &Places, entries: &Entries) -> Option<Problem> {
    let ours = entries.search.as_ref()?;
    let loaded = load(before, places);
    let (file, theirs) = loaded
        .layers
        .iter()
        .rev()
        .filter(|(file, _)| file.name() != DROP_IN)
        .find_map(|(file, conf)| Some((file, conf.search.as_ref()?)))?;
    let what = format!("names without a registry are looked for as the spec says, no longer at {} as {file} has it", theirs.join(", "));
    (theirs != ours).then(|| Problem::note("search-replaced", what, "add to `search` what is still needed").at(Place::file(file.as_str())))
}

/// What a registry's folder has to give according to the spec: the CAs (`None`: nobody looks at them), and the client
/// certificate.
fn wanted(spec: &Spec, host: &Host) -> (Option<BTreeSet<Fingerprint>>, Option<Fingerprint>) {
    let access = spec.access(host);
    if access.scheme == Scheme::Http {
        return (None, None);
    }
    let ca = (!access.insecure).then(|| access.ca.iter().map(|cert| cert.fingerprint).gathered());
    (ca, access.client.as_ref().and_then(crate::spec::Client::fingerprint))
}

/// Whether certificates are what the spec gives.
pub(super) fn as_wanted(spec: &Spec, host: &Host, certs: &Certs) -> bool {
    let (ca, client) = wanted(spec, host);
    ca.is_none_or(|ca| ca == certs.ca) && certs.client == client
}

/// What a folder gives, in words.
fn described(certs: &Certs) -> String {
    let cas = match certs.ca.len() {
        1 => "1 CA".to_owned(),
        more => format!("{more} CAs"),
    };
    if certs.client.is_some() { format!("{cas} and a client certificate") } else { cas }
}

/// Checks certs.d for each host that is asked.
pub fn certs(
    against: &mut Against,
    spec: &Spec,
    before: &Tree,
    after: &Tree,
    on: &FoundRuntime,
    reached: &BTreeSet<Host>,
    foreign: Foreign,
) {
    let home = files::home(on);
    for host in reached {
        let equal = |certs: &Certs| as_wanted(spec, host, certs);
        match certs_d::read(after, &home, host) {
            Err((file, why)) => {
                let what = format!("{file} {why}, so {host} is unusable for {}", on.runtime);
                against.conflict(
                    Problem::error("certs-d-unusable", what, format!("remove or complete {file}")).at(Place::file(file.as_str())),
                );
            }
            Ok(certs) if !equal(&certs) => {
                let folder = certs.folder.clone().unwrap_or_else(|| certs_d::folder(host));
                let what = format!("{folder} gives {} other certificates for {host} than the spec: {}", on.runtime, described(&certs));
                let help = format!(
                    "remove the foreign files from {folder}, name their CA in the spec, or let nodeprep deal with them (--foreign=carry or replace)"
                );
                against.conflict(Problem::error("certs-d-differs", what, help).at(Place::file(folder.as_str())));
            }
            Ok(certs) => {
                let old = certs_d::read(before, &home, host).unwrap_or_default();
                let same = certs_d::read(before, &home, host).is_ok_and(|old| old.ca == certs.ca && old.client == certs.client);
                if let Some(hidden) = newly_hidden(before, &home, host, &certs).filter(|_| !same && foreign == Foreign::Refuse) {
                    let what = format!("{hidden} is in use for {host} ({}), and a folder of ours would hide it", described(&old));
                    let help = format!(
                        "remove {hidden}, name its certificates in the spec, or let nodeprep deal with it (--foreign=carry or replace)"
                    );
                    against.conflict(Problem::error("certs-d-hidden", what, help).at(Place::file(hidden.as_str())));
                }
            }
        }
    }
}

fn newly_hidden(before: &Tree, home: &NodePath, host: &Host, after: &Certs) -> Option<NodePath> {
    let used = certs_d::candidates(home, host).into_iter().find(|folder| before.exists(folder));
    used.filter(|used| after.hidden.contains(used))
}
