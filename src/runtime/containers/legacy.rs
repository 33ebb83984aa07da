//! A main file of version 1: said in version 2 in its place (docs/adr/0007), and how the spec is laid over it.
//!
//! containers/image takes version 1 for version 2 until 5.39, and from 5.40 on (Podman 6) refuses the file and with it every
//! pull. In its place it goes on counting below all drop-ins, as before.

use std::collections::{BTreeMap, BTreeSet};

use super::entries::Entries;
use super::files::Places;
use crate::desired::Keys;
use crate::format::KeyFormat;
use crate::format::registries_conf::{Registry, moved_entries, parse, to_version_2};
use crate::ledger::Owns;
use crate::model::content::Content;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::Tree;

/// Main files that are or were of version 1.
#[derive(Debug, Default)]
pub struct Legacy {
    /// What is to be changed in each, or is already.
    pub keys: BTreeMap<NodePath, Keys>,
    /// What is worth knowing.
    pub notes: Vec<Problem>,
    /// File → prefix → the entry that version 1 stands for.
    entries: BTreeMap<NodePath, BTreeMap<String, Registry>>,
    /// Entries that are still of version 1 on the node.
    fresh: Vec<Registry>,
}

/// Looks at the main file of each reader. `owned` tells what an earlier run has moved.
#[must_use]
pub fn found(tree: &Tree, places: &[Places], owned: &Owns) -> Legacy {
    let mut legacy = Legacy::default();
    for main in places.iter().filter(|places| !places.hides_etc).map(|places| &places.main).gathered::<BTreeSet<_>>() {
        let Some(text) = tree.text(main) else { continue };
        let known = owned.get(main).filter(|owned| owned.format == Some(KeyFormat::Registries)).map(|owned| owned.keys.as_slice());
        let (after, edits) = match to_version_2(main, &text) {
            Ok(Some(moved)) => {
                legacy.fresh.extend(moved.said.registries.into_values());
                (moved.text, moved.edits)
            }
            Ok(None) if known.is_some() => (text.to_string(), Vec::new()),
            Ok(None) => continue,
            Err(refused) => {
                let what = format!("{main} stays in version 1, which Podman 6 refuses: {}", refused.why);
                let help = "write the lists as `[registries.search]`, `[registries.insecure]` and `[registries.block]`";
                let at = Place::at(main.as_str(), &text, refused.offset);
                legacy.notes.push(Problem::warning("legacy-registries-conf", what, help).at(at));
                let said = parse(main, &text, false).map(|conf| conf.registries).unwrap_or_default();
                legacy.entries.insert(main.clone(), said);
                continue;
            }
        };
        let known = known.unwrap_or_default();
        let mut entries = moved_entries(known);
        entries.extend(moved_entries(&edits));
        legacy.entries.insert(main.clone(), entries);
        let moved = edits.iter().filter(|edit| edit.to.is_none()).map(|edit| edit.why.as_str());
        let why = if edits.is_empty() { "as it should be".to_owned() } else { moved.collect::<Vec<_>>().join("; ") };
        let keys = Keys {
            format: KeyFormat::Registries,
            wanted: known.iter().chain(&edits).map(|edit| edit.key.clone()).collect(),
            edits,
            content: Content::public(after),
            mode: 0o644,
            stage: super::want::stage(main),
            why,
        };
        legacy.keys.insert(main.clone(), keys);
    }
    legacy
}

impl Legacy {
    /// Every prefix that version 1 has an entry for.
    #[must_use]
    pub fn prefixes(&self) -> Vec<String> {
        self.entries.values().flat_map(BTreeMap::keys).cloned().collect()
    }

    /// Where a reader refuses version 1: the node as it would be read if it did not, and a word on the way back.
    #[must_use]
    pub fn unread(&self, tree: &Tree, places: &[Places]) -> Option<(Tree, Problem)> {
        let refused = |places: &&Places| places.only_2 && self.keys.get(&places.main).is_some_and(|keys| !keys.edits.is_empty());
        let main = &places.iter().find(refused)?.main;
        let what = format!("{main} does not work as it is (Podman 6 refuses version 1), and `revert` would bring that back");
        let help = "keep what is carried over, or repair the file by hand after a revert";
        let mut was = tree.clone();
        for (main, keys) in &self.keys {
            was.put(&tree.real(main).unwrap_or_else(|| main.clone()), keys.content.bytes.clone(), keys.mode);
        }
        Some((was, Problem::warning("no-working-state", what, help).at(Place::file(main.as_str()))))
    }

    /// Whether an entry of `file` is what version 1 said, and so the spec's to replace.
    #[must_use]
    pub fn carried(&self, file: &NodePath, entry: &Registry) -> bool {
        self.entries.get(file).and_then(|entries| entries.get(&entry.prefix)).is_some_and(|known| known.means(entry))
    }

    /// What version 1 blocks below a source of the spec: an entry of ours would open it, and that has to be said by somebody.
    #[must_use]
    pub fn opened(&self, ours: &Entries) -> Vec<Problem> {
        let told = |(file, entry): (&NodePath, &Registry)| {
            let at = self.fresh.iter().find(|fresh| fresh.prefix == entry.prefix).map(|fresh| fresh.at.clone());
            let what =
                format!("registries.block names {}, which lies below a source or host of the spec: it would be opened", entry.prefix);
            let help = format!("take {} out of the file if it may be pulled, or limit the spec's sources to what may be", entry.prefix);
            Problem::error("legacy-block", what, help).at(at.unwrap_or_else(|| Place::file(file.as_str())))
        };
        let all = self.entries.iter().flat_map(|(file, entries)| entries.values().map(move |entry| (file, entry)));
        all.filter(|(_, entry)| opens(ours, entry)).map(told).collect()
    }

    /// Tells which lines of version 1 have no effect beside `ours`.
    pub fn replaced(&self, ours: &Entries, notes: &mut Vec<Problem>) {
        let by_prefix: BTreeMap<&str, &Registry> = ours.registries.iter().map(|entry| (entry.prefix.as_str(), entry)).gathered();
        for entry in self.fresh.iter().filter(|entry| !opens(ours, entry)) {
            let Some(spec) = by_prefix.get(entry.prefix.as_str()).filter(|spec| !spec.means(entry)) else { continue };
            let lists = match (entry.insecure, entry.blocked) {
                (true, true) => "registries.insecure and registries.block name",
                (true, false) => "registries.insecure names",
                _ => "registries.block names",
            };
            let says = if spec.blocked && spec.mirrors.is_empty() {
                "the spec denies it"
            } else if spec.mirrors.is_empty() {
                "the spec says how it is reached"
            } else {
                "the spec says where its images come from"
            };
            let what = format!("{lists} {}, and {says}: that counts", entry.prefix);
            notes.push(Problem::note("legacy-replaced", what, String::new()).at(entry.at.clone()));
        }
    }
}

/// Whether what `entry` blocks would be pulled because of what the spec says of everything above it.
fn opens(ours: &Entries, entry: &Registry) -> bool {
    let closed = |ours: &Registry| ours.blocked && ours.mirrors.is_empty();
    let by = ours.registries.iter().find(|ours| ours.prefix == entry.prefix).filter(|_| ours.below.contains(&entry.prefix));
    entry.blocked && by.is_some_and(|ours| !closed(ours))
}
