//! What came of endpoints in this run: nobody is asked the same twice.

use super::session::{PATIENCE, tried};
use crate::node::root::Root;
use crate::runtime::containerd::tokens::Answers;
use crate::verify::online::{Endpoint, each};
use crate::verify::probe::Seen;

/// What was asked while one plan was made, whatever becomes of that plan.
#[derive(Default)]
pub(super) struct Heard {
    /// Which logins registries want.
    pub answers: Option<Answers>,
    of: Vec<(Endpoint, Vec<Seen>)>,
}

impl Heard {
    /// What comes of the endpoints, in the order of all their ways; those that are not known yet are asked.
    pub(super) fn of(&mut self, root: &Root, endpoints: &[Endpoint]) -> Vec<Seen> {
        let new: Vec<Endpoint> = endpoints.iter().filter(|endpoint| self.known(endpoint).is_none()).cloned().collect();
        let ways: Vec<_> = new.iter().flat_map(|endpoint| endpoint.ways.iter().cloned()).collect();
        let seen = tried(root, &ways, PATIENCE);
        self.of.extend(each(&new, &seen).map(|(endpoint, seen)| (endpoint.clone(), seen.to_vec())));
        endpoints.iter().filter_map(|endpoint| self.known(endpoint)).flatten().cloned().collect()
    }

    fn known(&self, endpoint: &Endpoint) -> Option<&Vec<Seen>> {
        self.of.iter().find(|(known, _)| known.is_asked_as(endpoint)).map(|(_, seen)| seen)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::model::image::ImageRef;
    use crate::model::path::NodePath;
    use crate::model::tree::{Entry, Tree};
    use crate::runtime::{FoundRuntime, Presence, Runtime};
    use crate::verify::online::endpoints;

    #[test]
    fn nobody_is_asked_the_same_twice() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap();
        let count = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&count);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                counted.fetch_add(1, Ordering::SeqCst);
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            }
        });
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        let config = NodePath::fixed("/etc/containerd/config.toml");
        tree.put(&config, *b"version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/c\"\n", 0o644);
        let hosts = format!("server = \"http://{host}\"\n[host.\"http://{host}\"]\n");
        tree.put(&NodePath::fixed("/c/quay.io/hosts.toml"), hosts.as_bytes(), 0o644);
        let found = [FoundRuntime {
            runtime: Runtime::Containerd,
            presence: Presence::There,
            because: NodePath::fixed("/usr/bin/containerd"),
            installed: Some(crate::model::version::Version::parse("2.1.4").unwrap()),
            running: None,
            config,
            unit: None,
            env: Vec::new(),
        }];
        let of = |images: &[ImageRef]| endpoints(None, &tree, &Tree::default(), &found, images);
        let (bare, more) = (of(&[]), of(&[ImageRef::parse("quay.io/a/b:1").unwrap()]));
        assert!(!bare.is_empty() && bare.len() == more.len(), "{bare:?}");
        let root = Root::open(std::path::Path::new("/")).unwrap();
        let mut heard = Heard::default();
        let first = heard.of(&root, &bare);
        assert!(first.len() >= bare.len() && first.iter().all(|seen| seen.troubles.is_empty()), "{first:?}");
        let asked = count.load(Ordering::SeqCst);
        assert!(asked > 0);
        assert_eq!((heard.of(&root, &bare), count.load(Ordering::SeqCst)), (first, asked));
        // a manifest is another question
        heard.of(&root, &more);
        assert!(count.load(Ordering::SeqCst) > asked);
    }
}
