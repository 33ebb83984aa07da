//! The daemon itself: where it listens, and what it reads once.

use toml_edit::Document;

use super::Dialect;
use crate::format::config_toml::Chain;
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;

/// Where it listens when nobody says otherwise (containerd's `defaults_unix.go`, all versions).
const SOCKET: &str = "/run/containerd/containerd.sock";

/// `grpc.address` of config.toml and what it imports; the last file that says it wins on every version.
#[must_use]
pub fn socket(on: &FoundRuntime, tree: &Tree) -> NodePath {
    let said = |file: &NodePath| {
        let text = tree.text(file)?;
        let document = Document::parse(&*text).ok()?;
        // version 4 has it with its plugin (2.3; `runtime-semantics.md` 1.8)
        let plugin = || document.get("plugins")?.get("io.containerd.server.v1.grpc");
        let of = |table: Option<&toml_edit::Item>| Some(table?.get("address")?.as_str()?.to_owned()).filter(|said| !said.is_empty());
        let address = of(plugin()).or_else(|| of(document.get("grpc")))?;
        NodePath::new(&address).ok()
    };
    start_files(on, tree).iter().rev().find_map(said).unwrap_or_else(|| NodePath::fixed(SOCKET))
}

/// The pause image as the configuration in `tree` says, else the one that is built in. `None` where the configuration cannot be
/// read: containerd does not start with it.
#[must_use]
pub fn pause_image(on: &FoundRuntime, tree: &Tree) -> Option<String> {
    let dialect = on.dialects(tree).into_iter().find_map(crate::runtime::Dialect::containerd)?;
    let chain = Chain::read(tree, &on.config, dialect).ok()?;
    Some(chain.sandbox.map_or_else(|| dialect.default_pause_image().to_owned(), |said| said.value))
}

/// config.toml and what it imports, in order; config.toml alone where it cannot be read.
#[must_use]
pub fn start_files(on: &FoundRuntime, tree: &Tree) -> Vec<NodePath> {
    let dialect = on.dialects(tree).into_iter().find_map(crate::runtime::Dialect::containerd).unwrap_or(Dialect::V2_3);
    Chain::read(tree, &on.config, dialect).map_or_else(|_| vec![on.config.clone()], |chain| chain.files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;
    use crate::runtime::{Presence, Runtime};

    #[test]
    fn the_pause_image_in_a_file_or_built_in() {
        let config = NodePath::fixed("/etc/containerd/config.toml");
        let on = FoundRuntime {
            runtime: Runtime::Containerd,
            presence: Presence::There,
            because: config.clone(),
            installed: crate::model::version::Version::parse("1.7.24"),
            running: None,
            config: config.clone(),
            unit: None,
            env: Vec::new(),
        };
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        assert_eq!(pause_image(&on, &tree).as_deref(), Some("registry.k8s.io/pause:3.8"));
        let table = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"a.example/pause:1\"\n";
        tree.put(&config, table.as_bytes(), 0o644);
        assert_eq!(pause_image(&on, &tree).as_deref(), Some("a.example/pause:1"));
        tree.put(&config, b"version = \n".as_slice(), 0o644);
        assert_eq!(pause_image(&on, &tree), None);
    }

    #[test]
    fn the_socket_that_the_last_file_names() {
        let config = NodePath::fixed("/etc/containerd/config.toml");
        let on = FoundRuntime {
            runtime: Runtime::Containerd,
            presence: Presence::There,
            because: config.clone(),
            installed: None,
            running: None,
            config: config.clone(),
            unit: None,
            env: Vec::new(),
        };
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        assert_eq!(socket(&on, &tree).as_str(), SOCKET);
        tree.put(&config, b"version = 2\nimports = [\"/etc/own.toml\"]\n[grpc]\naddress = \"/run/one.sock\"\n".as_slice(), 0o644);
        tree.put(&NodePath::fixed("/etc/own.toml"), b"version = 2\n[grpc]\naddress = \"/run/two.sock\"\n".as_slice(), 0o644);
        assert_eq!(socket(&on, &tree).as_str(), "/run/two.sock");
        assert_eq!(start_files(&on, &tree).len(), 2);
        tree.put(&config, b"version = 4\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/four.sock\"\n".as_slice(), 0o644);
        assert_eq!(socket(&on, &tree).as_str(), "/run/four.sock");
        tree.put(&config, b"version = \n".as_slice(), 0o644);
        assert_eq!((socket(&on, &tree).as_str(), start_files(&on, &tree)), (SOCKET, vec![config]));
    }
}
