//! Which paths containerd's configuration is spread over.

use std::collections::{BTreeSet, VecDeque};

use super::Dialect;
use super::want::{DEFAULT_ROOT, PKI};
use crate::format::HEADER;
use crate::format::config_toml::{Chain, imported};
use crate::format::hosts_toml;
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::runtime::{FoundRuntime, Wish};

/// What has to be in the tree to read the configuration of `on`, as far as `tree` tells by now; called again until it says
/// nothing new: config.toml, what it imports, the hosts folders of every version that matters and the one that would be
/// ours, certificate files named in them.
#[must_use]
pub fn wishes(on: &FoundRuntime, tree: &Tree) -> Vec<Wish> {
    let mut found = BTreeSet::from([
        Wish::path(on.config.clone()),
        Wish::folder(NodePath::fixed(DEFAULT_ROOT), 2),
        Wish::folder(NodePath::fixed(PKI), 1),
    ]);
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
        for name in tree.names(&root) {
            let file = root.join(&name).join("hosts.toml");
            let Some(bytes) = tree.bytes(&file) else { continue };
            // all that our own files name stands in the one folder above
            if !bytes.get(2..).is_some_and(|rest| rest.starts_with(HEADER.as_bytes())) {
                found.extend(named(bytes, &file).into_iter().map(Wish::path));
            }
        }
    }
    found.into_iter().collect()
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
