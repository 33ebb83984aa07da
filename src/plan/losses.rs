//! What is lost where somebody else's configuration is replaced: what was asked because of it, and what will be. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::proof::{asked, probe_images};
use crate::format::HEADER;
use crate::ledger::Ledger;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;

/// One warning for each file that nodeprep did not write, that decides about an image now and no longer will, with the first such
/// image as example. `after` is the tree with the plan laid over it.
#[must_use]
pub fn losses(spec: &Spec, tree: &Tree, after: &Tree, ledger: &Ledger, readers: &[&FoundRuntime]) -> Vec<Problem> {
    let ours = |path: &NodePath| {
        let is_headed = || tree.text(path).is_some_and(|text| text.lines().next().is_some_and(|line| line.contains(HEADER)));
        ledger.owned.contains_key(path) || is_headed()
    };
    let mut lost: BTreeMap<NodePath, Lost> = BTreeMap::new();
    for reader in readers {
        let Some(dialect) = reader.dialects(tree).first().copied() else { continue };
        let (now, then) = (reader.view(tree, dialect), reader.view(after, dialect));
        for image in probe_images(spec, &now.names()) {
            let (before, after) = (now.resolve(&image), then.resolve(&image));
            if before.same(&after) || before.settled() == after.settled() {
                continue;
            }
            let deciding = before.attempts.iter().filter_map(|attempt| NodePath::new(&attempt.from.as_ref()?.file).ok());
            for file in deciding.filter(|file| !ours(file)) {
                let told = lost.entry(file).or_default();
                if told.example.is_empty() {
                    let will = if after.attempts.is_empty() { "nowhere".to_owned() } else { format!("at {}", asked(&after)) };
                    told.example = format!("{image} is now asked for at {}, and will be {will}", asked(&before));
                }
                told.hosts.insert(image.host.to_string());
            }
        }
    }
    lost.into_iter().map(|(file, lost)| lost.told(&file)).collect()
}

/// What one file decides about.
#[derive(Default)]
struct Lost {
    example: String,
    hosts: BTreeSet<String>,
}

impl Lost {
    fn told(self, file: &NodePath) -> Problem {
        const SHOWN: usize = 5;
        let mut what = format!("what {file} says is replaced: {}", self.example);
        if self.hosts.len() > 1 {
            let first: Vec<&str> = self.hosts.iter().take(SHOWN).map(String::as_str).collect();
            let more = self.hosts.len().saturating_sub(SHOWN);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let _ = write!(what, "; it decides about {}{more}", first.join(", "));
        }
        let help = "add what is still needed to the spec; `nodeprep revert` brings it back";
        Problem::warning("foreign-replaced", what, help).at(Place::file(file.as_str()))
    }
}
