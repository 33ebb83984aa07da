//! The picture of a node's files that pure code sees.
//!
//! [`Tree`] holds *real* paths only: where the reader met a symbolic link, it recorded the link under its own real path and
//! went on inside the root. Look-ups by [`Tree::find`] follow links the same way, so `/etc/containerd/certs.d/x` works even
//! where `certs.d` is a link. What was never asked for is not in the tree: a look-up there answers [`Found::Unread`], which
//! is a defect of the caller's list of wishes, never taken for "absent".

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::path::NodePath;
use super::time::Time;
use crate::model::order;

/// Owner, mode and labels of a file, folder or link.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Meta {
    /// Permission bits, `0o7777` at most.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Last change of the content.
    pub mtime: Time,
    /// Extended attributes: ACLs (`system.posix_acl_access`), SELinux label, capabilities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<(String, Vec<u8>)>,
}

impl Meta {
    /// What a new file of ours gets.
    #[must_use]
    pub fn new(mode: u32) -> Self {
        Self { mode, ..Self::default() }
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file, with its whole content.
    File {
        /// The content.
        bytes: Arc<[u8]>,
        /// Owner, mode, labels.
        meta: Meta,
    },
    /// A folder. `listed`: its children are in the tree too, so a child that is not there does not exist.
    Dir {
        /// Whether its children were read.
        listed: bool,
    },
    /// A symbolic link.
    Link {
        /// Where it points, as written in it.
        to: String,
        /// Owner and labels of the link itself.
        meta: Meta,
    },
    /// There, but could not be read: no permission, too large, a device, an input/output error, a loop of links.
    Unreadable(String),
}

/// Answer of a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// Nothing there.
    Absent,
    /// A regular file's content.
    File(&'a Arc<[u8]>, &'a Meta),
    /// A folder.
    Dir,
    /// There, but unreadable, for this reason.
    Unreadable(&'a str),
    /// Nobody asked the reader for it.
    Unread,
}

/// Path → entry, absent ones included. A clone shares everything until one of the two changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tree {
    entries: Arc<BTreeMap<NodePath, Entry>>,
    links: Arc<BTreeSet<NodePath>>,
}

/// As many links as Linux follows (`MAXSYMLINKS`).
const MOST_LINKS: usize = 40;

impl Tree {
    /// Records what stands at a real path.
    pub fn insert(&mut self, path: NodePath, entry: Entry) {
        if matches!(entry, Entry::Link { .. }) {
            Arc::make_mut(&mut self.links).insert(path.clone());
        } else if self.links.contains(&path) {
            Arc::make_mut(&mut self.links).remove(&path);
        }
        Arc::make_mut(&mut self.entries).insert(path, entry);
    }

    /// The entry at exactly this real path, links not followed.
    #[must_use]
    pub fn entry(&self, path: &NodePath) -> Option<&Entry> {
        self.entries.get(path).or_else(|| self.implied(path))
    }

    /// What was recorded at exactly this path, and nothing that follows from another one.
    #[must_use]
    pub fn recorded(&self, path: &NodePath) -> Option<&Entry> {
        self.entries.get(path)
    }

    /// Those of `paths` (real ones, in order) that nothing is known about. Both are gone through side by side: for a thousand
    /// paths that costs a fraction of as many look-ups.
    pub fn unknown<'p>(&self, paths: impl Iterator<Item = &'p NodePath>) -> impl Iterator<Item = &'p NodePath> {
        let mut known = self.entries.keys().peekable();
        paths.filter(move |path| {
            while known.next_if(|at| at < path).is_some() {}
            known.peek() != Some(path) && self.implied(path).is_none()
        })
    }

    /// Absent because a folder above was listed, or is itself absent or a file.
    fn implied(&self, path: &NodePath) -> Option<&Entry> {
        let mut folder = path.as_str();
        loop {
            folder = match folder.rsplit_once('/')?.0 {
                "" if folder == "/" => return None,
                "" => "/",
                above => above,
            };
            match self.entries.get(folder) {
                Some(Entry::Dir { listed: true, .. } | Entry::Absent | Entry::File { .. }) => return Some(&Entry::Absent),
                Some(_) => return None,
                None => {}
            }
        }
    }

    /// The real path behind `path`: links in the middle and at the end are followed inside the root. `None` when there are
    /// too many.
    #[must_use]
    pub fn real(&self, path: &NodePath) -> Option<NodePath> {
        self.follow(path, true)
    }

    /// Like [`Tree::real`], but a link as last component stays: the path that a rename would replace.
    #[must_use]
    pub fn real_parent(&self, path: &NodePath) -> Option<NodePath> {
        self.follow(path, false)
    }

    fn follow(&self, path: &NodePath, last: bool) -> Option<NodePath> {
        // most nodes have a few links, and nearly every path has none of them in it
        if self.links.is_empty() || !path.ancestry().any(|part| self.links.contains(part)) {
            return Some(path.clone());
        }
        let mut todo: Vec<String> = path.components().rev().map(ToOwned::to_owned).collect();
        let mut at = NodePath::root();
        let mut met = 0;
        while let Some(name) = todo.pop() {
            let next = match name.as_str() {
                "." | "" => at.clone(),
                ".." => at.parent().unwrap_or_else(NodePath::root),
                name => at.join(name),
            };
            if (last || !todo.is_empty())
                && let Some(Entry::Link { to, .. }) = self.links.get(&next).and_then(|link| self.entries.get(link))
            {
                met += 1;
                if met > MOST_LINKS {
                    return None;
                }
                if to.starts_with('/') {
                    at = NodePath::root();
                }
                todo.extend(to.split('/').rev().filter(|part| !part.is_empty()).map(ToOwned::to_owned));
            } else {
                at = next;
            }
        }
        Some(at)
    }

    /// What a program that opens `path` finds: links followed inside the root.
    #[must_use]
    pub fn find(&self, path: &NodePath) -> Found<'_> {
        let Some(real) = self.real(path) else { return Found::Unreadable("too many levels of symbolic links") };
        match self.entry(&real) {
            None => Found::Unread,
            Some(Entry::Absent) => Found::Absent,
            Some(Entry::File { bytes, meta }) => Found::File(bytes, meta),
            Some(Entry::Dir { .. }) => Found::Dir,
            Some(Entry::Unreadable(why)) => Found::Unreadable(why),
            // follow() leaves no link at the end
            Some(Entry::Link { .. }) => Found::Unreadable("symbolic link"),
        }
    }

    /// The content of a regular file, links followed.
    #[must_use]
    pub fn bytes(&self, path: &NodePath) -> Option<&[u8]> {
        match self.find(path) {
            Found::File(bytes, _) => Some(bytes),
            _ => None,
        }
    }

    /// The content as text; invalid UTF-8 is replaced.
    #[must_use]
    pub fn text(&self, path: &NodePath) -> Option<std::borrow::Cow<'_, str>> {
        self.bytes(path).map(String::from_utf8_lossy)
    }

    /// Whether anything stands there, links followed.
    #[must_use]
    pub fn exists(&self, path: &NodePath) -> bool {
        matches!(self.find(path), Found::File(..) | Found::Dir | Found::Unreadable(_))
    }

    /// Names in a folder, sorted by bytes as Go's `os.ReadDir` does; empty when it is none or was not listed. Links in it
    /// count, also dangling ones.
    #[must_use]
    pub fn names(&self, folder: &NodePath) -> Vec<String> {
        let Some(real) = self.real(folder) else { return Vec::new() };
        let start = if real == NodePath::root() { 1 } else { real.as_str().len() + 1 };
        let inside = self.below(&real).filter(|(_, entry)| !matches!(entry, Entry::Absent));
        let names = inside.filter_map(|(path, _)| path.as_str().get(start..).filter(|name| !name.contains('/')));
        let mut names: Vec<String> = names.map(ToOwned::to_owned).collect();
        order::sort(&mut names);
        names
    }

    /// Everything recorded below a real path, in order.
    pub fn below<'a>(&'a self, folder: &'a NodePath) -> impl Iterator<Item = (&'a NodePath, &'a Entry)> {
        let from = format!("{}/", folder.as_str().trim_end_matches('/'));
        self.entries.range::<str, _>((Bound::Included(from.as_str()), Bound::Unbounded)).take_while(move |(path, _)| path.is_below(folder))
    }

    /// All entries, in order of their real paths.
    pub fn iter(&self) -> impl Iterator<Item = (&NodePath, &Entry)> {
        self.entries.iter()
    }

    /// Lays a file over the tree, as a write by nodeprep would: folders above come into being.
    pub fn put(&mut self, path: &NodePath, bytes: impl Into<Arc<[u8]>>, mode: u32) {
        let real = self.real_parent(path).unwrap_or_else(|| path.clone());
        let mut folder = real.parent();
        while let Some(at) = folder {
            if !matches!(self.entries.get(&at), Some(Entry::Dir { .. })) && at != NodePath::root() {
                self.insert(at.clone(), Entry::Dir { listed: true });
            }
            folder = at.parent();
        }
        self.insert(real, Entry::File { bytes: bytes.into(), meta: Meta::new(mode) });
    }

    /// Lays the absence of a path over the tree, as a removal by nodeprep would, with everything below it.
    pub fn remove(&mut self, path: &NodePath) {
        let real = self.real_parent(path).unwrap_or_else(|| path.clone());
        let gone: Vec<NodePath> = self.below(&real).map(|(path, _)| path.clone()).collect();
        for path in gone {
            Arc::make_mut(&mut self.entries).remove(&path);
            Arc::make_mut(&mut self.links).remove(&path);
        }
        self.insert(real, Entry::Absent);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> NodePath {
        NodePath::new(text).unwrap()
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        let dir = |listed| Entry::Dir { listed };
        let link = |to: &str| Entry::Link { to: to.into(), meta: Meta::default() };
        tree.insert(path("/etc"), dir(false));
        tree.insert(path("/etc/containers"), link("../data/c"));
        tree.insert(path("/data/c"), dir(true));
        tree.insert(path("/data/c/a.conf"), Entry::File { bytes: Arc::from(*b"x"), meta: Meta::new(0o644) });
        tree.insert(path("/data/c/b.conf"), link("/data/c/a.conf"));
        tree.insert(path("/data/c/loop"), link("loop"));
        tree
    }

    #[test]
    fn follows_links_inside_the_root() {
        let tree = tree();
        assert_eq!(tree.bytes(&path("/etc/containers/b.conf")), Some(&b"x"[..]));
        assert_eq!(tree.real_parent(&path("/etc/containers/b.conf")), Some(path("/data/c/b.conf")));
        assert_eq!(tree.names(&path("/etc/containers")), ["a.conf", "b.conf", "loop"]);
        assert!(matches!(tree.find(&path("/etc/containers/loop")), Found::Unreadable(_)));
    }

    #[test]
    fn tells_which_paths_nobody_asked_for() {
        let all = ["/data/c", "/data/c/a", "/data/c/a.conf", "/data/c/z/z", "/data/d", "/etc", "/etc/a", "/etc/containers", "/z"].map(path);
        let unknown: Vec<&str> = tree().unknown(all.iter()).map(NodePath::as_str).collect();
        assert_eq!(unknown, ["/data/d", "/etc/a", "/z"]);
        let one_by_one: Vec<&str> = all.iter().filter(|path| tree().entry(path).is_none()).map(NodePath::as_str).collect();
        assert_eq!(unknown, one_by_one);
    }

    #[test]
    fn tells_absent_from_unread() {
        let tree = tree();
        assert_eq!(tree.find(&path("/etc/containers/none/deep")), Found::Absent);
        assert_eq!(tree.find(&path("/etc/other")), Found::Unread);
    }

    #[test]
    fn overlays() {
        let mut tree = tree();
        tree.put(&path("/etc/containers/new/x"), *b"1", 0o644);
        assert_eq!(tree.bytes(&path("/data/c/new/x")), Some(&b"1"[..]));
        assert_eq!(tree.names(&path("/etc/containers/new")), ["x"]);
        tree.remove(&path("/etc/containers/new"));
        assert_eq!(tree.find(&path("/etc/containers/new/x")), Found::Absent);
        assert_eq!(tree.names(&path("/data/c")), ["a.conf", "b.conf", "loop"]);
    }
}
