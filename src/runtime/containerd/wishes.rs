//! Which paths containerd's configuration is spread over.

use std::collections::{BTreeSet, VecDeque};

use super::Dialect;
use super::want::{DEFAULT_ROOT, PKI};
use crate::format::HEADER;
use crate::format::config_toml::{Chain, imported};
use crate::format::hosts_toml;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::tree::{Entry, Tree};
use crate::runtime::{FoundRuntime, Wish};

/// What has to be in the tree to read the configuration of `on`, as far as `tree` tells by now; called again until it says
/// nothing new: config.toml, what it imports, the hosts folders of every version that matters and the one that would be
/// ours, certificate files named in them.
#[must_use]
pub fn wishes(on: &FoundRuntime, tree: &Tree) -> Vec<Wish> {
    let folders = [Wish::folder(NodePath::fixed(DEFAULT_ROOT), 2), Wish::folder(NodePath::fixed(PKI), 1)];
    let mut found: BTreeSet<Wish> = folders.into_iter().gathered();
    found.insert(Wish::path(on.config.clone()));
    let mut todo = VecDeque::from([on.config.clone()]);
    let mut seen = BTreeSet::new();
    while let Some(file) = todo.pop_front() {
        let Some(text) = tree.text(&file).filter(|_| seen.insert(file.clone())) else { continue };
        let Ok(document) = toml_edit::Document::parse(&*text) else { continue };
        for import in imported(&document, &file) {
            found.insert(import.wish());
            todo.extend(import.files(tree));
        }
    }
    let mut roots = BTreeSet::from([NodePath::fixed(DEFAULT_ROOT)]);
    for dialect in Dialect::ALL {
        if let Ok(chain) = Chain::read(tree, &on.config, dialect) {
            // a list that is not honoured is shown with what it holds, and may be collapsed into one
            roots.extend(chain.config_path(dialect).split(':').filter(|part| !part.is_empty()).map(|part| NodePath::root().join(part)));
            found.extend(chain.configs.values().filter_map(|config| config.tls.as_ref()).flat_map(|tls| {
                let client = tls.client.iter().flat_map(|(cert, key)| [cert, key]);
                tls.ca.iter().chain(client).cloned().map(Wish::path).collect::<Vec<_>>()
            }));
        }
    }
    for root in roots {
        found.insert(Wish::folder(root.clone(), 2));
        let Some(real) = tree.real(&root) else { continue };
        for name in unlike_ours(tree, &real) {
            let file = root.join(name).join("hosts.toml");
            found.extend(tree.bytes(&file).into_iter().flat_map(|bytes| named(bytes, &file)).map(Wish::path));
        }
    }
    found.into_iter().collect()
}

/// The registries in the folder `real` whose hosts.toml is not, or may not be, one that we wrote: all that those name stands in a folder
/// that is read anyway. Nearly all are, so the tree is gone through once instead of being asked about each.
fn unlike_ours<'a>(tree: &'a Tree, real: &'a NodePath) -> impl Iterator<Item = &'a str> {
    let ours = |bytes: &[u8]| bytes.get(2..).is_some_and(|rest| rest.starts_with(HEADER.as_bytes()));
    let inside = tree.below(real).filter_map(|(path, entry)| Some((path.inside(real)?, entry)));
    inside.filter_map(move |(path, entry)| match (path.split_once('/'), entry) {
        (Some((_, "hosts.toml")), Entry::File { bytes, .. }) if ours(bytes) => None,
        (Some((name, "hosts.toml")), _) => Some(name),
        (None, Entry::Link { .. }) => Some(path),
        _ => None,
    })
}

/// The certificate and key files that some version would read for a hosts.toml.
fn named(bytes: &[u8], file: &NodePath) -> BTreeSet<NodePath> {
    let parsed = [Dialect::V1_7_32, Dialect::V2_3].into_iter().filter_map(|dialect| hosts_toml::parse(bytes, file, dialect).ok());
    let mut found = BTreeSet::new();
    for file in parsed {
        for host in file.hosts.into_iter().chain([file.root]) {
            found.extend(host.ca.unwrap_or_default());
            found.extend(host.client.unwrap_or_default().into_iter().flat_map(|(cert, key)| [Some(cert), key]).flatten());
        }
    }
    found
}
