//! Reading a node: each path once per run, nothing but what somebody wished for.
//!
//! The result holds real paths only. Links are recorded where they stand, also those met in the middle of a path; what is
//! missing is recorded as absent at the first folder that is; what cannot be read says why. Pipes, devices and sockets are
//! never opened. A name that is not UTF-8 cannot be a path here: it stands in its folder as [`Entry::Unreadable`] under the
//! text that a terminal would show (U+FFFD for what cannot be read), so that nobody takes the folder for empty.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use rustix::fs::{FileType, RawDir};

use super::files::kind;
use super::meta;
use super::root::{Folder, Last, Root, Stop};
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::tree::{Entry, Tree};
use crate::runtime::Wish;

/// Rounds of wishes after which nothing more is asked: imports nest, but not this deep.
const MOST_ROUNDS: usize = 32;
/// Children of one folder.
const MOST_CHILDREN: usize = 20_000;
/// Bytes of a folder's list of names that are taken at once.
const LISTED_AT_ONCE: usize = 32 << 10;

/// How large a file may be.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a file.
    pub file: u64,
    /// Bytes of a file among `bundles`.
    pub bundle: u64,
    /// Files that may be as large as a bundle of certificates, and folders of such files.
    pub bundles: Vec<NodePath>,
}

impl Limits {
    /// How large the file may be that has `size` bytes: what is small enough for every file needs no look at the list.
    fn most(&self, path: &NodePath, size: u64) -> u64 {
        let is_bundle = || self.bundles.iter().any(|bundle| path == bundle || path.is_below(bundle));
        if size > self.file && is_bundle() { self.bundle } else { self.file }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { file: 1 << 20, bundle: 16 << 20, bundles: Vec::new() }
    }
}

/// Reads what is wished for, in rounds: `wishes` sees what is there so far and names everything that it wants; it is asked
/// again until it names nothing new.
pub fn read(root: &Root, wishes: impl FnMut(&Tree) -> Vec<Wish>) -> Tree {
    read_within(root, &Limits::default(), wishes)
}

/// The same with other limits.
pub fn read_within(root: &Root, limits: &Limits, mut wishes: impl FnMut(&Tree) -> Vec<Wish>) -> Tree {
    let (names, content) = (Vec::with_capacity(LISTED_AT_ONCE), Vec::new());
    let mut reader = Reader { root, limits, tree: Tree::default(), listed: HashMap::new(), names, content, untouched: false };
    let mut granted: BTreeSet<Wish> = BTreeSet::new();
    for round in 0..MOST_ROUNDS {
        let mut new = 0;
        for wish in wishes(&reader.tree) {
            // most files are known by now with the folder that was wished for before them
            if wish.depth == 0 && reader.is_known(&wish.path) || !granted.insert(wish.clone()) {
                continue;
            }
            new += 1;
            reader.grant(&wish.path, wish.depth, 0);
        }
        if new == 0 {
            return reader.tree;
        }
        tracing::debug!(round, wishes = new, "read");
    }
    tracing::warn!(rounds = MOST_ROUNDS, "still more is wished for; left unread");
    reader.tree
}

struct Reader<'a> {
    root: &'a Root,
    limits: &'a Limits,
    tree: Tree,
    /// Listed folder → levels that were read, and the folders in it; one without any has nothing deeper.
    listed: HashMap<NodePath, (u8, Vec<(String, bool)>)>,
    /// Room for the kernel's list of names.
    names: Vec<u8>,
    /// Room for a file's content.
    content: Vec<u8>,
    /// The tree tells nothing yet of what is in the folder that is being listed. A link may lead anywhere, so this ends with one.
    untouched: bool,
}

impl Reader<'_> {
    /// Follows a path from the root; `links` counts those that led here.
    fn grant(&mut self, path: &NodePath, depth: u8, links: usize) {
        if links > 40 || depth == 0 && self.is_known(path) {
            return;
        }
        if *path == NodePath::root() {
            if let Ok(Some(top)) = self.root.folder(path) {
                self.folder(&top, depth);
            }
            return;
        }
        let tree = &mut self.tree;
        let spot = self.root.walk(path, Last::Keep, &mut |folder, name, to| record_link(tree, folder, name, to));
        match spot {
            Ok(spot) => self.entry(&spot.folder, &spot.name, FileType::Unknown, depth, links),
            Err(Stop::Missing { at, .. }) => self.put(at, Entry::Absent),
            Err(Stop::Failed(error)) => {
                let why = reason(&error);
                // where the way ended, if that is known to be something else than the path itself
                match error {
                    super::error::NodeError::NotFolder { path: at } => {
                        if let Ok((_, folder)) = self.root.real_parent(&at, false) {
                            self.entry(&folder, at.name(), FileType::Unknown, 0, links);
                        }
                    }
                    super::error::NodeError::Permission { path: at, .. } | super::error::NodeError::Io { path: at, .. } => {
                        self.put(at, Entry::Unreadable(why.clone()));
                        self.unreadable_end(path, why);
                    }
                    _ => self.unreadable_end(path, why),
                }
            }
        }
    }

    /// Whether the tree tells already what stands there: no need to walk.
    fn is_known(&self, path: &NodePath) -> bool {
        self.tree.entry(path).is_some_and(|entry| matches!(entry, Entry::File { .. } | Entry::Absent))
    }

    /// The wished path itself, as far as its links are known.
    fn unreadable_end(&mut self, path: &NodePath, why: String) {
        let real = self.tree.real_parent(path).unwrap_or_else(|| path.clone());
        // a loop needs no entry: whoever looks goes round it too
        if self.tree.real(path).is_some() && self.tree.entry(&real).is_none() {
            self.put(real, Entry::Unreadable(why));
        }
    }

    fn put(&mut self, path: NodePath, entry: Entry) {
        self.tree.insert(path, entry);
    }

    /// What was recorded there: with a thousand folders, most look-ups would be for what cannot be there yet.
    fn known(&self, path: &NodePath) -> Option<&Entry> {
        if self.untouched { None } else { self.tree.recorded(path) }
    }

    /// One name in an open folder; `hint` is what the folder's list said about it.
    fn entry(&mut self, folder: &Folder, name: &str, hint: FileType, depth: u8, links: usize) {
        let path = folder.path.join(name);
        let (is_folder, is_listed) = match self.known(&path) {
            Some(Entry::Link { .. }) => return self.grant_target(&path, depth, links),
            Some(Entry::Dir { listed }) => (true, *listed),
            Some(_) => return,
            None => (false, false),
        };
        match hint {
            FileType::RegularFile => return self.file(folder, name, path),
            FileType::Directory if depth > 0 => return self.subfolder(folder, name, path, is_listed, depth),
            FileType::Directory if is_folder => return,
            FileType::Directory => return self.put(path, Entry::Dir { listed: false }),
            _ => {}
        }
        let found = match folder.stat(name) {
            Ok(Some(found)) => found,
            Ok(None) => return self.put(path, Entry::Absent),
            Err(error) => return self.put(path, Entry::Unreadable(reason(&error))),
        };
        match kind(found.st_mode) {
            SFlag::S_IFREG => self.file(folder, name, path),
            SFlag::S_IFDIR if depth > 0 => self.subfolder(folder, name, path, is_listed, depth),
            SFlag::S_IFDIR if is_folder => {}
            SFlag::S_IFDIR => self.put(path, Entry::Dir { listed: false }),
            SFlag::S_IFLNK => {
                match readlinkat(folder, name).map(std::ffi::OsString::into_string) {
                    Ok(Ok(to)) => self.put(path.clone(), Entry::Link { to, meta: meta::of(&found, Vec::new()) }),
                    Ok(Err(_)) => return self.put(path, Entry::Unreadable("a symbolic link whose target is not UTF-8".to_owned())),
                    Err(errno) => return self.put(path, Entry::Unreadable(errno.desc().to_owned())),
                }
                self.grant_target(&path, depth, links);
            }
            other => self.put(path, Entry::Unreadable(format!("{}, not opened", special(other)))),
        }
    }

    /// What a link leads to is wished for as much as the link.
    fn grant_target(&mut self, link: &NodePath, depth: u8, links: usize) {
        self.untouched = false;
        let Some(Entry::Link { to, .. }) = self.tree.entry(link) else { return };
        // `..` counts from the real folder, which the walk knows and text does not: only plain targets are joined
        let target = match (to.starts_with('/'), link.parent()) {
            (false, Some(folder)) => folder.join(to),
            _ => NodePath::root().join(to),
        };
        if to.split('/').any(|part| part == "..") {
            return self.grant_climbing(link, depth, links);
        }
        self.grant(&target, depth, links + 1);
    }

    fn grant_climbing(&mut self, link: &NodePath, depth: u8, links: usize) {
        let tree = &mut self.tree;
        match self.root.walk(link, Last::Follow, &mut |folder, name, to| record_link(tree, folder, name, to)) {
            Ok(spot) if spot.name != "." => self.entry(&spot.folder, &spot.name, FileType::Unknown, depth, links + 1),
            Ok(_) => self.grant(&NodePath::root(), depth, links + 1),
            Err(Stop::Missing { at, .. }) => self.put(at, Entry::Absent),
            Err(Stop::Failed(error)) => tracing::debug!(path = %link, %error, "link leads nowhere"),
        }
    }

    fn subfolder(&mut self, folder: &Folder, name: &str, path: NodePath, is_listed: bool, depth: u8) {
        if is_listed && self.listed.get(&path).is_none_or(|(levels, _)| *levels >= depth) {
            return;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        match openat(folder, name, flags, Mode::empty()) {
            // (Opening it again for its names would cost as much as reading a file.)
            Ok(fd) if !is_listed => {
                let folder = Folder::new(fd, path);
                let children = self.children(folder.as_fd());
                self.listing(&folder, children, depth);
            }
            Ok(fd) => self.folder(&Folder::new(fd, path), depth),
            Err(errno) => self.put(path, Entry::Unreadable(errno.desc().to_lowercase())),
        }
    }

    /// A folder and `depth` levels below it.
    fn folder(&mut self, folder: &Folder, depth: u8) {
        let path = &folder.path;
        if depth == 0 {
            if self.tree.recorded(path).is_none() {
                self.put(path.clone(), Entry::Dir { listed: false });
            }
            return;
        }
        if let Some((levels, folders)) = self.listed.get_mut(path) {
            // its files are known: only deeper into its folders
            if *levels < depth {
                *levels = depth;
                for (name, is_link) in folders.clone() {
                    let hint = if is_link { FileType::Unknown } else { FileType::Directory };
                    self.entry(folder, &name, hint, depth - 1, 0);
                }
            }
            return;
        }
        if matches!(self.tree.recorded(path), Some(Entry::Dir { listed: true })) {
            return;
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let children = openat(folder.as_fd(), ".", flags, Mode::empty()).and_then(|fd| self.children(fd.as_fd()));
        self.listing(folder, children, depth);
    }

    /// A folder whose names are known.
    fn listing(&mut self, folder: &Folder, children: Result<Option<Vec<Child>>, Errno>, depth: u8) {
        let path = &folder.path;
        let children = match children {
            Ok(Some(children)) => children,
            Ok(None) => return self.put(path.clone(), Entry::Unreadable(format!("more than {MOST_CHILDREN} names"))),
            Err(errno) => return self.put(path.clone(), Entry::Unreadable(errno.desc().to_lowercase())),
        };
        self.put(path.clone(), Entry::Dir { listed: true });
        let deeper: Vec<_> = children
            .iter()
            .filter_map(|(name, hint)| match hint {
                FileType::RegularFile => None,
                hint => Some((name.clone().ok()?, *hint != FileType::Directory)),
            })
            .collect();
        if !deeper.is_empty() {
            self.listed.insert(path.clone(), (depth, deeper));
        }
        let outermost = !self.untouched;
        if outermost {
            self.untouched = self.tree.below(path).next().is_none();
        }
        for (name, hint) in children {
            match name {
                Ok(name) => self.entry(folder, &name, hint, depth - 1, 0),
                Err(shown) => self.put(path.join(&shown), Entry::Unreadable("its name is not UTF-8".to_owned())),
            }
        }
        if outermost {
            self.untouched = false;
        }
    }

    /// The names in a folder, sorted; `None` when there are too many. (Without the C library's `fdopendir`, which asks five
    /// things more of the kernel for each folder.)
    fn children(&mut self, folder: BorrowedFd<'_>) -> Result<Option<Vec<Child>>, Errno> {
        let mut names = Vec::new();
        let mut list = RawDir::new(folder, self.names.spare_capacity_mut());
        while let Some(entry) = list.next() {
            let entry = entry.map_err(|errno| Errno::from_raw(errno.raw_os_error()))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            if names.len() == MOST_CHILDREN {
                return Ok(None);
            }
            let name = name.to_str().map(ToOwned::to_owned).map_err(|_| name.to_string_lossy().into_owned());
            names.push((name, entry.file_type()));
        }
        order::sort_by(&mut names, |(one, _), (other, _)| one.cmp(other));
        Ok(Some(names))
    }

    fn file(&mut self, folder: &Folder, name: &str, path: NodePath) {
        let entry = content(folder, name, |size| self.limits.most(&path, size), &mut self.content).unwrap_or_else(|why| match why {
            Errno::ENOENT => Entry::Absent,
            errno => Entry::Unreadable(errno.desc().to_lowercase()),
        });
        self.put(path, entry);
    }
}

/// Open, look, read, close: relative to its folder, and without a second read where the first came out as long as promised.
fn content(folder: &Folder, name: &str, most: impl Fn(u64) -> u64, bytes: &mut Vec<u8>) -> Result<Entry, Errno> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let mut file = std::fs::File::from(openat(folder, name, flags, Mode::empty())?);
    let found: FileStat = fstat(&file)?;
    if kind(found.st_mode) != SFlag::S_IFREG {
        return Ok(Entry::Unreadable("replaced while it was read".to_owned()));
    }
    let size = u64::try_from(found.st_size).unwrap_or(0);
    let too_large = |size| Some(most(size)).filter(|most| size > *most).map(|most| Entry::Unreadable(format!("larger than {most} bytes")));
    if let Some(refused) = too_large(size) {
        return Ok(refused);
    }
    let xattrs = meta::xattrs(&file);
    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32));
    let room = usize::try_from(size).unwrap_or(0) + 1;
    if bytes.len() < room {
        bytes.resize(room, 0);
    }
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(0) => break,
            Ok(got) => filled += got,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(errno(error)),
        }
        if filled + 1 == room && size > 0 {
            break;
        }
        if filled == bytes.len() {
            // it grew, or lies about its size as files in /proc do
            if let Some(refused) = too_large(filled as u64) {
                return Ok(refused);
            }
            bytes.resize(filled * 2 + 4096, 0);
        }
    }
    if let Some(refused) = too_large(filled as u64) {
        return Ok(refused);
    }
    Ok(Entry::File { bytes: Arc::from(&bytes[..filled]), meta: meta::of(&found, xattrs) })
}

/// A name, or what a terminal would show of it; and what kind of thing the folder's list says it is.
type Child = (Result<String, String>, FileType);

fn record_link(tree: &mut Tree, folder: &Folder, name: &str, to: &str) {
    let path = folder.path.join(name);
    if !matches!(tree.entry(&path), Some(Entry::Link { .. })) {
        let meta = folder.stat(name).ok().flatten().map(|found| meta::of(&found, Vec::new())).unwrap_or_default();
        tree.insert(path, Entry::Link { to: to.to_owned(), meta });
    }
}

fn special(kind: SFlag) -> &'static str {
    match kind {
        SFlag::S_IFIFO => "a pipe",
        SFlag::S_IFSOCK => "a socket",
        SFlag::S_IFBLK | SFlag::S_IFCHR => "a device",
        _ => "neither file nor folder",
    }
}

/// The short form of an error: the path stands beside it in the tree.
fn reason(error: &super::error::NodeError) -> String {
    use super::error::NodeError;
    match error {
        NodeError::Permission { .. } => "permission denied".to_owned(),
        NodeError::Loop { .. } => "too many levels of symbolic links".to_owned(),
        NodeError::Io { errno, .. } => errno.desc().to_lowercase(),
        other => other.to_string(),
    }
}
