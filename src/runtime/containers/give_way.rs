//! What of somebody else's goes where it may be replaced, and stays away as long as what we wrote in its place is there.
//!
//! An entry before ours is replaced by ours and stays where it is. Files go where they would go on counting beside ours:
//! certificates in a registry's folder, and drop-ins behind ours that speak of nothing else; of one that does, the entries in our
//! way and a search list that would replace ours are taken out, and the rest of it stays as it is.

use std::collections::BTreeSet;

use super::conflicts::as_wanted;
use super::entries::{Entries, Replaced};
use super::files::{self, Places, load};
use super::want::{Known, certs_in, overlay};
use crate::desired::{Foreign, Keys, Part, Target, Want};
use crate::format::certs_d::{self, Certs};
use crate::format::registries_conf::{Conf, DROP_IN, Registry, is_taken, take_out, taken_prefix};
use crate::format::{KeyEdit, KeyFormat};
use crate::ledger::{Owned, Owns, Prior, Stamp};
use crate::model::content::Content;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::repo::RepoPath;
use crate::model::suffix::Suffix;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;

/// Whether the entry is for a file of somebody else's that was taken away.
fn is_gone(owned: &Owned) -> bool {
    owned.target == Target::Containers
        && owned.format.is_none()
        && owned.now == Stamp::Absent
        && matches!(owned.origin, Prior::File { .. } | Prior::Link { .. })
}

/// Whether the entry is for a drop-in of somebody else's out of which something was taken.
fn is_thinned(owned: &Owned) -> bool {
    owned.target == Target::Containers && owned.format == Some(KeyFormat::Registries) && owned.keys.iter().any(is_taken)
}

/// What was taken away earlier stays away while the spec still speaks of it.
pub(super) fn stay_gone(part: &mut Part, spec: &Spec, tree: &Tree, owned: &Owns, entries: &Entries) {
    let concerned = |path: &NodePath| {
        let folder = path.parent().unwrap_or_else(NodePath::root);
        let is_drop_in = folder.name() == "registries.conf.d" && !entries.registries.is_empty();
        is_drop_in || entries.reached.iter().any(|host| host.as_str() == folder.name())
    };
    for (path, _) in owned.iter().filter(|(path, owned)| is_gone(owned) && concerned(path)) {
        part.wants.entry(path.clone()).or_insert_with(|| Want::Gone(WHY.to_owned()));
    }
    let in_way = |edit: &&KeyEdit| match taken_prefix(edit) {
        Some(prefix) => is_meant(spec, entries, prefix),
        None => entries.search.is_some(),
    };
    for (path, owned) in owned.iter().filter(|(_, owned)| is_thinned(owned)) {
        let taken: Vec<&KeyEdit> = owned.keys.iter().filter(|edit| is_taken(edit)).filter(in_way).collect();
        if taken.is_empty() {
            continue;
        }
        let goes = |prefix: &str| taken.iter().any(|edit| taken_prefix(edit) == Some(prefix));
        let search = taken.iter().any(|edit| taken_prefix(edit).is_none());
        let want = match tree.text(path) {
            // somebody has removed it; what was in our way is not to come back by that
            None => Want::Gone(WHY.to_owned()),
            Some(text) => {
                // what is invalid by now is told where all is read
                let (after, edits) = take_out(path, &text, goes, search, WHY).unwrap_or_else(|_| (text.to_string(), Vec::new()));
                Want::Keys(thinned(path, after, edits, taken.into_iter().map(|edit| edit.key.clone()).collect()))
            }
        };
        part.wants.insert(path.clone(), want);
    }
}

/// A file out of which something was taken. `wanted`: by earlier runs.
fn thinned(path: &NodePath, after: String, edits: Vec<KeyEdit>, mut wanted: Vec<Vec<String>>) -> Keys {
    wanted.extend(edits.iter().map(|edit| edit.key.clone()).filter(|key| !wanted.contains(key)).collect::<Vec<_>>());
    let stage = super::want::stage(&path.parent().unwrap_or_else(NodePath::root));
    let why = "without what stands in the way of the spec; revert brings it back".to_owned();
    Keys { format: KeyFormat::Registries, wanted, edits, content: Content::public(after), mode: 0o644, stage, why }
}

const WHY: &str = "the spec says otherwise; revert brings it back";

/// Certificates of others in the folder that counts for a host, where they are not what the spec gives. A folder in the home
/// folder stands before the usual one: ours are written there, too.
pub(super) fn certs(
    part: &mut Part,
    spec: &Spec,
    before: &Tree,
    after: &Tree,
    on: &FoundRuntime,
    reached: &BTreeSet<Host>,
    known: Known<'_>,
) {
    let home = files::home(on);
    for host in reached {
        let usual = certs_d::folder(host);
        let Some(counts) = certs_d::candidates(&home, host).into_iter().find(|folder| before.exists(folder) || after.exists(folder)) else {
            continue;
        };
        let here_already =
            known.owned.range(counts.clone()..).map(|(path, _)| path).take_while(|path| path.as_str().starts_with(counts.as_str()));
        let here_already = here_already.filter(|path| path.is_below(&counts)).count() > 0;
        let differs = !certs_d::read(after, &home, host).is_ok_and(|certs: Certs| as_wanted(spec, host, &certs));
        if !(differs && known.foreign != Foreign::Refuse || here_already && counts != usual) {
            continue;
        }
        if counts != usual {
            part.wants.extend(certs_in(spec, host, &counts));
        }
        if known.foreign == Foreign::Refuse {
            continue;
        }
        for name in before.names(&counts) {
            let path = counts.join(&name);
            let counted = [".crt", ".cert", ".key"].iter().any(|suffix| name.ends_with(suffix));
            let ours = known.owned.get(&path).is_some_and(|owned| !is_gone(owned));
            if counted && !ours && !part.wants.contains_key(&path) {
                part.wants.insert(path, Want::Gone(WHY.to_owned()));
            }
        }
    }
}

/// Prefixes for which others have entries that would go on counting, being longer than ours: below ours, and what `*.domain` or
/// `unlisted = "deny"` is for. Ours say once more what is meant there, once that was asked for as long as theirs are there.
pub(super) fn longer(spec: &Spec, found: &[&FoundRuntime], tree: &Tree, known: Known<'_>, entries: &Entries) -> Replaced {
    let without = overlay(tree, &Part::new(Target::Containers), known.owned);
    let mut all = BTreeSet::new();
    for on in found {
        let places = files::places(&without, on);
        // what goes needs no answer
        let is_ours = |prefix: &str| is_meant(spec, entries, prefix);
        let goes = |file: &NodePath, conf: &Conf| {
            let first = places.dirs.first();
            let later = *file != places.main && (file.parent().as_ref() != first || file.name() > DROP_IN);
            let can_go = || {
                speaks_only_of(conf, is_ours) || without.text(file).is_some_and(|text| take_out(file, &text, is_ours, false, WHY).is_ok())
            };
            known.foreign == Foreign::Replace && later && can_go()
        };
        let stay = load(&without, &places).layers.into_iter().map(|(file, conf)| (goes(&file, &conf), conf));
        let theirs = stay.flat_map(|(goes, conf)| conf.registries.into_keys().filter(move |prefix| !(goes && is_ours(prefix))));
        let is_longer = |prefix: &String| !entries.registries.iter().any(|ours| ours.prefix == *prefix) && is_meant(spec, entries, prefix);
        let theirs: BTreeSet<String> = theirs.filter(is_longer).gathered();
        // ours may be long, and mostly there is nothing to ask it
        if theirs.is_empty() || known.foreign == Foreign::Replace {
            all.extend(theirs);
            continue;
        }
        let there = load(tree, &files::places(tree, on)).layers;
        let there = there.into_iter().filter(|(file, _)| file.name() == DROP_IN && known.owned.contains_key(file));
        let said_before: BTreeSet<String> = there.flat_map(|(_, conf)| conf.registries.into_keys()).gathered();
        all.extend(theirs.into_iter().filter(|prefix| said_before.contains(prefix)));
    }
    let parts = |prefix: &String| {
        let (host, path) = prefix.split_once('/').unwrap_or((prefix, ""));
        Some((Host::new(host).ok()?, RepoPath::verbatim(path)))
    };
    let domain = |prefix: &String| Suffix::new(prefix.strip_prefix("*.")?).ok();
    Replaced { prefixes: all.iter().filter_map(parts).collect(), domains: all.iter().filter_map(domain).collect() }
}

/// Whether the spec says something of what a prefix is for: it has an entry of ours, lies below one, or is among the registries
/// that the spec does not name and speaks of all the same.
fn is_meant(spec: &Spec, entries: &Entries, prefix: &str) -> bool {
    let ours = |entry: &Registry| prefix.strip_prefix(&entry.prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    entries.registries.iter().any(ours) || is_covered(spec, prefix)
}

/// A drop-in that says nothing but entries, for prefixes of which `known` tells.
fn speaks_only_of(conf: &Conf, known: impl Fn(&str) -> bool) -> bool {
    let Conf { search, short_name_mode, credential_helpers, aliases, registries, version_1: _ } = conf;
    let nothing_else = search.is_none() && short_name_mode.is_none() && credential_helpers.is_none() && aliases.is_empty();
    nothing_else && !registries.is_empty() && registries.keys().all(|prefix| known(prefix))
}

/// Whether the spec says something of registries that it does not name, and a prefix is for such.
fn is_covered(spec: &Spec, prefix: &str) -> bool {
    let name = prefix.strip_prefix("*.").map_or_else(|| prefix.to_owned(), |domain| format!("nodeprep-probe.{domain}"));
    ImageRef::parse(&format!("{name}/nodeprep-probe:1")).is_ok_and(|image| !image.short && spec.covers(&image))
}

/// Drop-ins behind ours: those that only speak of what ours speaks of (where they are to be replaced, of what the spec speaks of) go,
/// others lose what would replace it. One that cannot be edited stays, and is told as a conflict.
pub(super) fn behind(part: &mut Part, spec: &Spec, after: &Tree, places: &Places, entries: &Entries, known: Known<'_>) {
    let ours: BTreeSet<&str> = entries.registries.iter().map(|entry| entry.prefix.as_str()).gathered();
    let in_way = |prefix: &str| ours.contains(prefix) || known.foreign == Foreign::Replace && is_meant(spec, entries, prefix);
    let layers = load(after, places).layers;
    let later = layers.iter().skip_while(|(file, _)| file.name() != DROP_IN).skip(1);
    for (file, conf) in later {
        let earlier = match part.wants.get(file) {
            Some(Want::Keys(keys)) => Some(keys.clone()),
            _ => None,
        };
        if earlier.is_none() && speaks_only_of(conf, in_way) {
            part.wants.insert(file.clone(), Want::Gone(WHY.to_owned()));
            continue;
        }
        let search = entries.search.is_some() && conf.search.is_some() && conf.search != entries.search;
        let same =
            |prefix: &str| entries.registries.iter().any(|ours| conf.registries.get(prefix).is_some_and(|theirs| theirs.means(ours)));
        let goes = |prefix: &str| in_way(prefix) && !same(prefix);
        if !search && !conf.registries.keys().any(|prefix| goes(prefix)) {
            continue;
        }
        let Some(Ok((text, edits))) = after.text(file).map(|text| take_out(file, &text, goes, search, WHY)) else { continue };
        let (before, wanted) = earlier.map(|keys| (keys.edits, keys.wanted)).unwrap_or_default();
        part.wants.insert(file.clone(), Want::Keys(thinned(file, text, before.into_iter().chain(edits).collect(), wanted)));
    }
}
