//! The node's root folder, and how paths are resolved inside it.
//!
//! Every path is walked component by component from the root's descriptor without following links in the kernel: a link is
//! read and followed here, an absolute one starts again at the root, and `..` stops there. So no link on the node leads out
//! of it, whoever made it. (`openat2` would do the same, but not on the kernels of RHEL 8.)

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, fchmodat, fstat, fstatat, mkdirat, stat};

use super::checkpoint::{self, Op};
use super::error::NodeError;
use crate::model::path::NodePath;

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
/// Descriptors of folders that are kept open.
const MOST_FOLDERS: usize = 64;

/// An open folder, by its real path.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    /// Its real path.
    pub path: NodePath,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Folder {
    pub(super) const fn new(fd: OwnedFd, path: NodePath) -> Self {
        Self { fd, path }
    }

    /// What stands under `name`, links not followed; `None` when nothing does.
    pub(super) fn stat(&self, name: &str) -> Result<Option<FileStat>, NodeError> {
        match fstatat(self, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(found)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(NodeError::of("look at", self.path.join(name), errno)),
        }
    }

    /// The same folder, open for reading: for `fsync` and for its list of names.
    pub(super) fn readable(&self) -> Result<OwnedFd, NodeError> {
        openat(self, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| NodeError::of("open", self.path.clone(), errno))
    }
}

/// A name in an open folder: the real place of a path.
#[derive(Clone, Debug)]
pub struct Spot {
    /// The folder.
    pub folder: Arc<Folder>,
    /// The last component; `.` for the root itself.
    pub name: String,
}

impl Spot {
    /// Its real path.
    #[must_use]
    pub fn path(&self) -> NodePath {
        self.folder.path.join(&self.name)
    }
}

/// Why a walk ended early.
#[derive(Debug)]
pub enum Stop {
    /// A folder on the way does not exist.
    Missing {
        /// The last folder that does.
        folder: Arc<Folder>,
        /// The first that does not.
        at: NodePath,
        /// The real path that would result.
        would_be: NodePath,
    },
    /// Something on the way cannot be passed.
    Failed(NodeError),
}

impl From<NodeError> for Stop {
    fn from(error: NodeError) -> Self {
        Self::Failed(error)
    }
}

/// What happens with a link as last component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Last {
    /// It is the place that is meant.
    Keep,
    /// Its target is meant.
    Follow,
}

/// The root folder of a node.
#[derive(Debug)]
pub struct Root {
    top: Arc<Folder>,
    dir: PathBuf,
    folders: Mutex<HashMap<NodePath, Arc<Folder>>>,
}

impl Root {
    /// Opens the root folder.
    ///
    /// # Errors
    /// When `dir` is no folder or may not be searched. The path in the error is the one inside the root, `/`.
    pub fn open(dir: &Path) -> Result<Self, NodeError> {
        let fd = open(dir, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| NodeError::of("open the root", NodePath::root(), errno))?;
        let top = Arc::new(Folder { fd, path: NodePath::root() });
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        Ok(Self { top, dir, folders: Mutex::default() })
    }

    /// The same root for who looks at what comes and goes while nodeprep runs, as what a daemon has below /run: no folder is
    /// remembered from before.
    #[must_use]
    pub fn afresh(&self) -> Self {
        Self { top: Arc::clone(&self.top), dir: self.dir.clone(), folders: Mutex::default() }
    }

    fn folders(&self) -> MutexGuard<'_, HashMap<NodePath, Arc<Folder>>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is for programs outside of it, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether it is the root of the running system: that of process 1, or `/` where process 1 may not be looked at.
    #[must_use]
    pub fn is_live(&self) -> bool {
        let Ok(own) = fstat(&*self.top) else { return false };
        let same = |other: FileStat| (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino);
        stat("/proc/1/root").or_else(|_| stat("/")).is_ok_and(same)
    }

    /// Whether a system runs in it that is not seen from here: its own `/proc` shows a process 1 whose root it is, and that is not
    /// our process 1; or whose it is may not be looked at. In the root of an image whose `/proc` is bound from elsewhere, process 1 has
    /// another root.
    #[must_use]
    pub fn is_unseen(&self) -> bool {
        if self.is_live() {
            return false;
        }
        let Ok(own) = fstat(&*self.top) else { return false };
        match fstatat(&*self.top, "proc/1/root", AtFlags::empty()) {
            Ok(other) => (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino),
            // whoever starts systemd says so there (sd_booted(3))
            Err(Errno::EACCES | Errno::EPERM) => fstatat(&*self.top, "run/systemd/system", AtFlags::empty()).is_ok(),
            Err(_) => false,
        }
    }

    /// Whether it is the root of this process, too: not when the root of the running system is looked at from a container.
    #[must_use]
    pub fn is_own(&self) -> bool {
        let Ok(own) = fstat(&*self.top) else { return false };
        stat("/").is_ok_and(|other| (own.st_dev, own.st_ino) == (other.st_dev, other.st_ino))
    }

    /// Resolves `path`, links in the middle always and one at the end as `last` says. What stands at the end is not looked
    /// at further and need not exist. `on_link` hears of each link that was followed.
    ///
    /// # Errors
    /// [`Stop`] says where the way ends.
    pub fn walk(&self, path: &NodePath, last: Last, on_link: &mut impl FnMut(&Folder, &str, &str)) -> Result<Spot, Stop> {
        self.steps(path, last, None, on_link)
    }

    /// The real place of `path` for writing: folders that are missing on the way are made (also behind a dangling link:
    /// inside the root) and recorded in `made`.
    ///
    /// # Errors
    /// When the way cannot be walked or made.
    pub fn place(&self, path: &NodePath, last: Last, made: &mut Vec<NodePath>) -> Result<Spot, NodeError> {
        self.steps(path, last, Some(made), &mut |_, _, _| {}).map_err(|stop| match stop {
            Stop::Failed(error) => error,
            Stop::Missing { at, .. } => NodeError::of("make", at, Errno::ENOENT),
        })
    }

    /// The real path of `path`, its last component left as it is, and its folder; missing folders are made on request.
    ///
    /// # Errors
    /// When a folder is missing and `create` is not set, or the way cannot be walked.
    pub fn real_parent(&self, path: &NodePath, create: bool) -> Result<(NodePath, Arc<Folder>), NodeError> {
        let spot = if create {
            self.place(path, Last::Keep, &mut Vec::new())?
        } else {
            self.walk(path, Last::Keep, &mut |_, _, _| {}).map_err(|stop| match stop {
                Stop::Failed(error) => error,
                Stop::Missing { at, .. } => NodeError::of("open", at, Errno::ENOENT),
            })?
        };
        Ok((spot.path(), spot.folder))
    }

    /// Opens the folder at `path`, links followed; `None` when there is none.
    ///
    /// # Errors
    /// When something else stands there, or the way cannot be walked.
    pub fn folder(&self, path: &NodePath) -> Result<Option<Arc<Folder>>, NodeError> {
        match self.walk(&path.join("."), Last::Follow, &mut |_, _, _| {}) {
            Ok(spot) if spot.name == "." => Ok(Some(spot.folder)),
            Ok(spot) => match self.child(&spot.folder, &spot.name) {
                Ok(folder) => Ok(Some(folder)),
                Err(Errno::ENOENT) => Ok(None),
                Err(errno) => Err(NodeError::of("open", spot.path(), errno)),
            },
            Err(Stop::Missing { .. }) => Ok(None),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Forgets the open folders at and below `path`: they were renamed or removed.
    pub fn forget(&self, path: &NodePath) {
        self.folders().retain(|kept, _| kept != path && !kept.is_below(path));
    }

    /// Opens a folder in a folder; never a link.
    pub(super) fn child(&self, folder: &Folder, name: &str) -> Result<Arc<Folder>, Errno> {
        let path = folder.path.join(name);
        if let Some(found) = self.folders().get(&path) {
            return Ok(Arc::clone(found));
        }
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let found = Arc::new(Folder { fd: openat(folder, name, flags, Mode::empty())?, path: path.clone() });
        let mut folders = self.folders();
        if folders.len() >= MOST_FOLDERS {
            folders.clear();
        }
        folders.insert(path, Arc::clone(&found));
        Ok(found)
    }

    fn steps(
        &self,
        path: &NodePath,
        last: Last,
        mut made: Option<&mut Vec<NodePath>>,
        on_link: &mut impl FnMut(&Folder, &str, &str),
    ) -> Result<Spot, Stop> {
        let mut todo: Vec<String> = path.components().rev().map(ToOwned::to_owned).collect();
        let mut way = vec![Arc::clone(&self.top)];
        let mut met = 0;
        while let Some(name) = todo.pop() {
            let folder = Arc::clone(way.last().unwrap_or(&self.top));
            match name.as_str() {
                "." => continue,
                ".." => {
                    if way.len() > 1 {
                        way.pop();
                    }
                    continue;
                }
                _ => {}
            }
            let at_end = todo.is_empty();
            if at_end && last == Last::Keep {
                return Ok(Spot { folder, name });
            }
            let errno = if at_end {
                Errno::ENOTDIR
            } else {
                match self.child(&folder, &name) {
                    Ok(child) => {
                        way.push(child);
                        continue;
                    }
                    Err(errno) => errno,
                }
            };
            let here = || folder.path.join(&name);
            match errno {
                Errno::ENOENT => {
                    let Some(made) = made.as_deref_mut() else {
                        let would_be = todo.iter().rev().fold(here(), |path, part| path.join(part));
                        return Err(Stop::Missing { at: here(), folder, would_be });
                    };
                    make_folder(&folder, &name)?;
                    made.push(here());
                    way.push(self.child(&folder, &name).map_err(|errno| NodeError::of("open", here(), errno))?);
                }
                Errno::ENOTDIR | Errno::ELOOP => match readlinkat(&*folder, name.as_str()) {
                    Ok(to) => {
                        let to = to.into_string().map_err(|_| NodeError::NotText { path: here() })?;
                        on_link(&folder, &name, &to);
                        met += 1;
                        if met > MOST_LINKS {
                            return Err(NodeError::Loop { path: path.clone() }.into());
                        }
                        if to.starts_with('/') {
                            way.truncate(1);
                        }
                        todo.extend(to.split('/').rev().filter(|part| !part.is_empty()).map(ToOwned::to_owned));
                    }
                    Err(Errno::EINVAL | Errno::ENOENT) if at_end => return Ok(Spot { folder, name }),
                    Err(Errno::EINVAL) => return Err(NodeError::NotFolder { path: here() }.into()),
                    Err(errno) => return Err(NodeError::of("read the link", here(), errno).into()),
                },
                errno => return Err(NodeError::of("open", here(), errno).into()),
            }
        }
        let folder = way.pop().unwrap_or_else(|| Arc::clone(&self.top));
        match (folder.path.parent(), way.pop()) {
            (Some(_), Some(parent)) => Ok(Spot { name: folder.path.name().to_owned(), folder: parent }),
            _ => Ok(Spot { folder, name: ".".to_owned() }),
        }
    }
}

/// Makes a folder that everybody may search, whatever the umask is.
pub(super) fn make_folder(folder: &Folder, name: &str) -> Result<(), NodeError> {
    make_folder_as(folder, name, 0o755)
}

/// Makes a folder with exactly this mode.
pub(super) fn make_folder_as(folder: &Folder, name: &str, mode: u32) -> Result<(), NodeError> {
    let path = || folder.path.join(name);
    checkpoint::around(
        || Op::MakeFolder { path: path(), mode },
        || match mkdirat(folder, name, Mode::from_bits_truncate(mode)) {
            Err(Errno::EEXIST) => Ok(()),
            Ok(()) => fchmodat(folder, name, Mode::from_bits_truncate(mode), FchmodatFlags::FollowSymlink),
            other => other,
        },
    )
    .map_err(|errno| NodeError::of("make the folder", path(), errno))
}
