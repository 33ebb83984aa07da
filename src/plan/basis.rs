//! What a proof rests on, as one digest: while it stays the same, the proof need not be made again. Pure.
//!
//! The proof costs more than everything else in a run that changes nothing. It depends on this program, the spec, the runtimes
//! and their versions, and the files that they may read; the ledger keeps the keyed digest of all that from the last run that
//! changed something. Whatever differs, even in a file that turns out not to matter, makes the proof anew.

use crate::desired::Target;
use crate::ledger::Ledger;
use crate::model::digest::{Digest, Digester};
use crate::model::path::NodePath;
use crate::model::tree::{Entry, Tree};
use crate::runtime::{FoundRuntime, facts};
use crate::spec::Spec;
use crate::trust::family::{FAMILIES, is_rehashed};

/// The digest of everything that [`super::proof::prove`] looks at for `target`; `files` is that of the files.
#[must_use]
pub fn basis(spec: &Spec, target: &Target, files: Digest, ledger: &Ledger, readers: &[&FoundRuntime]) -> Digest {
    let mut all = format!("{} {} {target} {files}\n", env!("CARGO_PKG_VERSION"), spec.digest).into_bytes();
    for reader in readers {
        let running = reader.running.as_ref().map(|process| process.version);
        let said = format!("{:?} {:?} {running:?} {} {:?}\n", reader.runtime, reader.installed, reader.config, reader.env);
        all.extend_from_slice(said.as_bytes());
    }
    Digest::keyed(&ledger.key, &all)
}

/// The digest of all files that were read, or will be there: their names and content.
#[must_use]
pub fn files(tree: &Tree) -> Digest {
    let mut all = Digester::new();
    // the package database gives versions, which the basis has; bundles are the OS's own trust, which every attempt has anyway, and so is
    // what a refresh makes beside the anchors
    let mut left_out: Vec<NodePath> = FAMILIES.iter().map(|family| NodePath::fixed(family.bundle)).collect();
    left_out.push(NodePath::fixed(facts::DPKG_STATUS));
    let mut head = Vec::new();
    let mut entries = tree.iter().peekable();
    while let Some((path, entry)) = entries.next() {
        if left_out.contains(path) || is_rehashed(path) {
            continue;
        }
        // what is below a folder comes next, or after what only begins like it (`a`, `a-b`, `a/x`)
        let mut is_empty = || match entries.peek() {
            Some((next, _)) if next.is_below(path) => false,
            Some((next, _)) if next.as_str().starts_with(path.as_str()) => tree.below(path).next().is_none(),
            _ => true,
        };
        let (kind, content): (u8, &[u8]) = match entry {
            Entry::File { bytes, .. } => (b'f', bytes),
            Entry::Link { to, .. } => (b'l', to.as_bytes()),
            Entry::Unreadable(why) => (b'u', why.as_bytes()),
            // an empty folder already decides what is pulled (vector T23)
            Entry::Dir { .. } if is_empty() => (b'd', b""),
            Entry::Dir { .. } | Entry::Absent => continue,
        };
        head.clear();
        for piece in [&[kind], path.as_str().as_bytes(), &[0], &content.len().to_le_bytes()] {
            head.extend_from_slice(piece);
        }
        all.add(&head).add(content);
    }
    all.digest()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Presence, Runtime};

    #[test]
    fn whatever_a_proof_looks_at_makes_another_basis() {
        let document = "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n";
        let spec = |text: &str| {
            let draft = crate::spec::load::Draft::open("spec.toml", text.as_bytes()).unwrap();
            draft.close(&std::collections::BTreeMap::new(), None).spec.unwrap()
        };
        let reader = |version| FoundRuntime {
            runtime: Runtime::Containerd,
            presence: Presence::There,
            because: NodePath::root(),
            installed: Some(version),
            running: None,
            config: NodePath::fixed("/c.toml"),
            unit: None,
            env: Vec::new(),
        };
        let tree = |file: &'static str, text: &str| {
            let mut tree = Tree::default();
            tree.put(&NodePath::fixed(file), text.as_bytes(), 0o644);
            tree
        };
        let of = |spec: &Spec, tree: &Tree, key: u8, version| {
            let target = Target::Containerd(NodePath::fixed("/c.toml"));
            basis(spec, &target, files(tree), &Ledger::new([key; 32]), &[&reader(version)])
        };
        let (one, version) = (spec(document), crate::model::version::Version(1, 7, 24));
        let first = of(&one, &tree("/etc/x", "a"), 7, version);
        assert_eq!(first, of(&spec(document), &tree("/etc/x", "a"), 7, version));
        let mut empty = tree("/etc/x", "a");
        empty.insert(NodePath::fixed("/etc/empty"), Entry::Dir { listed: true });
        // one whose name begins with that of the empty one stands between them
        let mut beside = empty.clone();
        beside.put(&NodePath::fixed("/etc/empty-x"), *b"a", 0o644);
        let mut filled = beside.clone();
        filled.put(&NodePath::fixed("/etc/empty/y"), *b"a", 0o644);
        let mut put = tree("/etc/x", "a");
        put.put(&NodePath::fixed("/etc/empty-x"), *b"a", 0o644);
        put.put(&NodePath::fixed("/etc/empty/y"), *b"a", 0o644);
        assert_ne!(files(&beside), files(&filled));
        assert_eq!(files(&filled), files(&put));
        for other in [
            of(&spec(&document.replace("never", "upstream")), &tree("/etc/x", "a"), 7, version),
            of(&one, &tree("/etc/x", "b"), 7, version),
            of(&one, &tree("/etc/y", "a"), 7, version),
            of(&one, &empty, 7, version),
            of(&one, &tree("/etc/x", "a"), 8, version),
            of(&one, &tree("/etc/x", "a"), 7, crate::model::version::Version(2, 1, 9)),
        ] {
            assert_ne!(first, other);
        }
        let bundle = NodePath::fixed(FAMILIES[0].bundle);
        let mut more = tree("/etc/x", "a");
        more.put(&bundle, *b"certificates", 0o644);
        assert_eq!(first, of(&one, &more, 7, version));
        // what a refresh makes beside the anchors is not known before; a certificate there may be named by a file
        for (name, same) in
            [("0a1b2c3d.0", true), ("0a1b2c3d.12", true), ("0a1b2c3d.pem", false), ("theirs.pem", false), ("0a1b2c3.0", false)]
        {
            let mut with = tree("/etc/x", "a");
            let entry = Entry::Link { to: "one.pem".to_owned(), meta: crate::model::tree::Meta::new(0o777) };
            with.insert(NodePath::new(&format!("/etc/ssl/certs/{name}")).unwrap(), entry);
            assert_eq!(first == of(&one, &with, 7, version), same, "{name}");
        }
    }
}
