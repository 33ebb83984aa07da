//! Which folders of the node are watched. What happens there is a hint; what is not watched is found when everything is read again.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::path::NodePath;
use crate::runtime::facts;
use crate::trust::family;

/// As many watches as there are at most: the budget of a user is shared with kubelet.
pub const MOST: usize = 64;

/// Which names of a folder count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Names {
    /// All.
    All,
    /// These.
    Only(BTreeSet<String>),
}

/// Folders of the node with the names in them that count: those that are worth most first.
#[must_use]
pub fn node(configs: &[String], references: &[String]) -> Vec<(NodePath, Names)> {
    let mut order = Vec::new();
    let mut all: BTreeMap<NodePath, Names> = BTreeMap::new();
    let mut add = |folder: NodePath, name: Option<&str>| {
        if !all.contains_key(&folder) {
            order.push(folder.clone());
        }
        let names = all.entry(folder).or_insert_with(|| Names::Only(BTreeSet::new()));
        match (names, name) {
            (Names::Only(names), Some(name)) => {
                names.insert(name.to_owned());
            }
            (names, None) => *names = Names::All,
            (Names::All, Some(_)) => {}
        }
    };
    for config in configs.iter().filter_map(|config| NodePath::new(config).ok()) {
        if let Some(folder) = config.parent() {
            add(folder, None);
        }
    }
    for folder in facts::folders() {
        add(folder, None);
    }
    for reference in references.iter().filter_map(|written| NodePath::new(written.strip_prefix("node:")?).ok()) {
        if let Some(folder) = reference.parent() {
            add(folder, Some(reference.name()));
        }
    }
    for family in &family::FAMILIES {
        if let Ok(folder) = NodePath::new(family.anchor_dir) {
            add(folder, None);
        }
    }
    // a pause that begins or ends
    add(NodePath::fixed(crate::flow::STATE), Some("pause.json"));
    // a runtime that is installed, upgraded or taken away
    for program in facts::programs() {
        if let Some(folder) = program.parent() {
            add(folder, Some(program.name()));
        }
    }
    for (folder, unit) in facts::units() {
        add(folder, Some(unit));
    }
    order.into_iter().filter_map(|folder| all.remove_entry(&folder)).take(MOST).collect()
}
