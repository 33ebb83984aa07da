//! Folders of others that stand before `_default`, where that is ours and is for their registries, too.
//!
//! A folder decides by being there, so that taking files out of it opens what it closed. It gets a hosts.toml of ours that says
//! what the spec means; its other files are read by nobody then, and `revert` gives back what was there.

use std::collections::BTreeMap;

use super::hosts::candidates;
use super::view::registry;
use super::want::Known;
use crate::desired::{Foreign, Want};
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::tree::{Found, Tree};
use crate::spec::{Spec, Unlisted};

/// The registries and their folders: once that was asked for, as long as the folders are there. `wants` is what is ours anyway.
pub(super) fn folders(
    spec: &Spec,
    root: &NodePath,
    tree: &Tree,
    known: Known<'_>,
    wants: &BTreeMap<NodePath, Want>,
) -> Vec<(Host, NodePath)> {
    if spec.all().is_none() && spec.unlisted != Unlisted::Deny {
        return Vec::new();
    }
    let is_folder = |name: &String| matches!(tree.find(&root.join(name)), Found::Dir);
    let of_registry = |name: String| {
        let folder = root.join(&name);
        // nearly all of them
        if name == "_default" || wants.contains_key(&folder.join("hosts.toml")) || !is_folder(&name) {
            return None;
        }
        let host = Host::from_reference(&registry(&name)?).ok()?;
        // only the first of a registry's names counts
        let names = candidates(host.as_str());
        let first = names.iter().find(|name| is_folder(name) || wants.contains_key(&root.join(name).join("hosts.toml")))?;
        let made = known.dirs.is_some_and(|dirs| tree.real(&folder).is_some_and(|real| dirs.contains(&real)));
        let replaced = known.owns(&folder.join("hosts.toml")).is_some() && !made;
        (*first == name && !made && (known.foreign == Foreign::Replace || replaced)).then_some((host, folder))
    };
    tree.names(root).into_iter().filter_map(of_registry).collect()
}
