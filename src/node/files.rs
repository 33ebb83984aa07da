//! The changes of the disk, one function each: everything that is written, renamed, removed or brought to the disk goes
//! through here and so past a checkpoint.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat, readlinkat, renameat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, fsync, symlinkat, syncfs, unlinkat};
use rustix::fs::{RenameFlags, renameat_with};

use super::checkpoint::{self, Op, around};
use super::error::NodeError;
use super::meta;
use super::root::Folder;
use crate::ledger::Prior;
use crate::model::digest::Digest;
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::tree::Meta;

type Done = Result<(), NodeError>;

/// Larger files are not read: ledgers of ten thousand registries have a tenth of it, and others' files where ours belong are refused
/// long before.
const LARGEST: u64 = 64 << 20;

/// Creates a file that must not exist: never readable by more than its final mode allows, nor before it is complete.
pub(super) fn create(folder: &Folder, name: &str, bytes: &[u8], meta: &Meta) -> Result<File, NodeError> {
    let path = || folder.path.join(name);
    let failed = |doing| move |errno| NodeError::of(doing, path(), errno);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || openat(folder, name, flags, Mode::from_bits_truncate(0o600 & meta.mode));
    let mut file = File::from(around(|| Op::Create { path: path() }, open).map_err(failed("create"))?);
    let owner = fstat(&file).map_err(failed("look at"))?;
    if (owner.st_uid, owner.st_gid) != (meta.uid, meta.gid) {
        own(fchown(&file, Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))).map_err(failed("give away"))?;
    }
    around(
        || Op::Write { path: path(), bytes: bytes.to_vec() },
        || match checkpoint::tear(bytes.len()) {
            None => file.write_all(bytes),
            Some(middle) => {
                file.write_all(&bytes[..middle])?;
                checkpoint::point();
                file.write_all(&bytes[middle..])
            }
        },
    )
    .map_err(|error| NodeError::io("write", path(), &error))?;
    meta::set_xattrs(&file, &meta.xattrs);
    around(|| Op::Mode { path: path(), mode: meta.mode }, || fchmod(&file, Mode::from_bits_truncate(meta.mode)))
        .map_err(failed("set the mode of"))?;
    Ok(file)
}

/// Copies a program of this machine into a folder, its owner's alone; in the place of an earlier copy, which may still be running.
pub(super) fn copy_program(from: &std::path::Path, folder: &Folder, name: &str) -> Done {
    let new = format!("{name}.new");
    unlink(folder, &new)?;
    let path = || folder.path.join(&new);
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = || openat(folder, new.as_str(), flags, Mode::S_IRWXU);
    let mut file = File::from(around(|| Op::Create { path: path() }, open).map_err(|errno| NodeError::of("create", path(), errno))?);
    File::open(from).and_then(|mut from| std::io::copy(&mut from, &mut file)).map_err(|error| NodeError::io("write", path(), &error))?;
    fchmod(&file, Mode::S_IRWXU).map_err(|errno| NodeError::of("set the mode of", path(), errno))?;
    // who writes a program keeps it from being started
    drop(file);
    rename((folder, &new), (folder, name)).map_err(|errno| NodeError::of("write", folder.path.join(name), errno))
}

/// Somebody who is not root keeps what is theirs.
fn own(result: nix::Result<()>) -> nix::Result<()> {
    match result {
        Err(Errno::EPERM | Errno::EINVAL) => Ok(()),
        other => other,
    }
}

/// Makes a symbolic link under a name that must not exist.
pub(super) fn link(folder: &Folder, name: &str, to: &str, meta: &Meta) -> Done {
    let path = || folder.path.join(name);
    around(|| Op::Link { path: path(), to: to.to_owned() }, || symlinkat(to, folder, name))
        .map_err(|errno| NodeError::of("make the link", path(), errno))?;
    let made = folder.stat(name)?;
    if made.is_some_and(|made| (made.st_uid, made.st_gid) != (meta.uid, meta.gid)) {
        let owner = (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)));
        own(fchownat(folder, name, owner.0, owner.1, AtFlags::AT_SYMLINK_NOFOLLOW))
            .map_err(|errno| NodeError::of("give away", path(), errno))?;
    }
    Ok(())
}

/// Renames, whatever stands at the new place.
pub(super) fn rename(from: (&Folder, &str), to: (&Folder, &str)) -> Result<(), Errno> {
    around(|| renamed(from, to), || renameat(from.0, from.1, to.0, to.1))
}

/// As the kernel does it: nix has this call with glibc alone, and a static build has another C library.
fn rename_with(from: (&Folder, &str), to: (&Folder, &str), flags: RenameFlags) -> Result<(), Errno> {
    renameat_with(from.0, from.1, to.0, to.1, flags).map_err(|error| Errno::from_raw(error.raw_os_error()))
}

fn renamed(from: (&Folder, &str), to: (&Folder, &str)) -> Op {
    Op::Rename { from: from.0.path.join(from.1), to: to.0.path.join(to.1) }
}

/// Renames to a place where nothing stands; `EEXIST` when something does.
pub(super) fn rename_new(from: (&Folder, &str), to: (&Folder, &str)) -> Result<(), Errno> {
    around(
        || renamed(from, to),
        || match rename_with(from, to, RenameFlags::NOREPLACE) {
            // file systems that cannot (9p, some overlays): look first
            Err(Errno::EINVAL | Errno::ENOSYS) => match to.0.stat(to.1) {
                Ok(None) => renameat(from.0, from.1, to.0, to.1),
                _ => Err(Errno::EEXIST),
            },
            other => other,
        },
    )
}

/// Lets two names change places; `None` when the file system cannot.
pub(super) fn exchange(one: (&Folder, &str), other: (&Folder, &str)) -> Result<Option<()>, Errno> {
    if cannot_exchange() {
        return Ok(None);
    }
    let op = || Op::Exchange { one: one.0.path.join(one.1), other: other.0.path.join(other.1) };
    match around(op, || rename_with(one, other, RenameFlags::EXCHANGE)) {
        Ok(()) => Ok(Some(())),
        Err(Errno::EINVAL | Errno::ENOSYS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Tests of the way without an exchange set `NODEPREP_NO_EXCHANGE`; debug builds only.
fn cannot_exchange() -> bool {
    cfg!(debug_assertions) && std::env::var_os("NODEPREP_NO_EXCHANGE").is_some()
}

/// Removes a file or link; whether there was one.
pub(super) fn unlink(folder: &Folder, name: &str) -> Result<bool, NodeError> {
    let path = || folder.path.join(name);
    match around(|| Op::Unlink { path: path() }, || unlinkat(folder, name, UnlinkatFlags::NoRemoveDir)) {
        Ok(()) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(NodeError::of("remove", path(), errno)),
    }
}

/// Removes a folder if it is empty; whether it is gone.
pub(super) fn remove_folder(folder: &Folder, name: &str) -> Result<bool, NodeError> {
    let path = || folder.path.join(name);
    match around(|| Op::RemoveFolder { path: path() }, || unlinkat(folder, name, UnlinkatFlags::RemoveDir)) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::ENOTEMPTY | Errno::EEXIST | Errno::ENOTDIR) => Ok(false),
        Err(errno) => Err(NodeError::of("remove", path(), errno)),
    }
}

/// Removes whatever stands under `name`, with all that is in it; links are removed, never followed.
pub(super) fn remove_all(folder: &Folder, name: &str) -> Done {
    let Some(found) = folder.stat(name)? else { return Ok(()) };
    if kind(found.st_mode) != SFlag::S_IFDIR {
        return unlink(folder, name).map(drop);
    }
    let inner = open_child(folder, name)?;
    for name in names(&inner)? {
        remove_all(&inner, &name)?;
    }
    remove_folder(folder, name).map(drop)
}

/// Opens a folder in a folder, past the cache of the root.
pub(super) fn open_child(folder: &Folder, name: &str) -> Result<Folder, NodeError> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let path = folder.path.join(name);
    match openat(folder, name, flags, Mode::empty()) {
        Ok(fd) => Ok(Folder::new(fd, path)),
        Err(errno) => Err(NodeError::of("open", path, errno)),
    }
}

/// The names in a folder, as far as they are UTF-8, sorted.
pub(super) fn names(folder: &Folder) -> Result<Vec<String>, NodeError> {
    let failed = |errno| NodeError::of("list", folder.path.clone(), errno);
    let mut open = nix::dir::Dir::from_fd(folder.readable()?).map_err(failed)?;
    let mut names = Vec::new();
    for entry in open.iter() {
        let entry = entry.map_err(failed)?;
        match entry.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    order::sort(&mut names);
    Ok(names)
}

/// The kind of file in a mode.
pub(super) fn kind(mode: nix::libc::mode_t) -> SFlag {
    SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits())
}

/// What stands under a name, as far as a step has to know.
#[derive(Debug)]
pub(super) enum Seen {
    Absent,
    File(Vec<u8>, Meta),
    Link(String, Meta),
    Folder,
    Other,
}

impl Seen {
    /// Whether the same stands there still.
    pub(super) fn same(&self, now: &Self) -> bool {
        match (self, now) {
            (Self::Absent, Self::Absent) | (Self::Folder, Self::Folder) => true,
            (Self::File(one, _), Self::File(other, _)) => one == other,
            (Self::Link(one, _), Self::Link(other, _)) => one == other,
            _ => false,
        }
    }

    /// For the ledger.
    pub(super) fn prior(&self) -> Option<Prior> {
        match self {
            Self::Absent => Some(Prior::Absent),
            Self::File(bytes, meta) => Some(Prior::File { blob: Digest::of(bytes), meta: meta.clone() }),
            Self::Link(to, meta) => Some(Prior::Link { to: to.clone(), meta: meta.clone() }),
            Self::Folder | Self::Other => None,
        }
    }

    /// In the words of a message.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Absent => "nothing".to_owned(),
            Self::File(..) => "another file".to_owned(),
            Self::Link(to, _) => format!("a link to {to}"),
            Self::Folder => "a folder".to_owned(),
            Self::Other => "neither file nor folder".to_owned(),
        }
    }
}

/// Looks at a name without following it; devices, pipes and sockets are not opened.
pub(super) fn look(folder: &Folder, name: &str) -> Result<Seen, NodeError> {
    let Some(found) = folder.stat(name)? else { return Ok(Seen::Absent) };
    let path = || folder.path.join(name);
    Ok(match kind(found.st_mode) {
        SFlag::S_IFREG => {
            let mut file = open_file(folder, name)?;
            let mut bytes = Vec::new();
            Read::by_ref(&mut file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(|error| NodeError::io("read", path(), &error))?;
            if bytes.len() as u64 > LARGEST {
                return Err(NodeError::TooLarge { path: path(), most: LARGEST });
            }
            let meta = meta::of(&found, meta::xattrs(&file));
            Seen::File(bytes, meta)
        }
        SFlag::S_IFLNK => {
            let to = readlinkat(folder, name).map_err(|errno| NodeError::of("read the link", path(), errno))?;
            Seen::Link(to.into_string().map_err(|_| NodeError::NotText { path: path() })?, meta::of(&found, Vec::new()))
        }
        SFlag::S_IFDIR => Seen::Folder,
        _ => Seen::Other,
    })
}

/// Opens a file for reading.
pub(super) fn open_file(folder: &Folder, name: &str) -> Result<File, NodeError> {
    let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let fd = openat(folder, name, flags, Mode::empty()).map_err(|errno| NodeError::of("open", folder.path.join(name), errno))?;
    Ok(File::from(fd))
}

/// Brings a file's content to the disk.
pub(super) fn sync_file(path: &NodePath, file: &File) -> Done {
    around(|| Op::Sync { path: path.clone() }, || fsync(file)).map_err(|errno| NodeError::of("sync", path.clone(), errno))
}

/// Brings a folder's names to the disk.
pub(super) fn sync_folder(folder: &Folder) -> Done {
    let open = folder.readable()?;
    around(|| Op::Sync { path: folder.path.clone() }, || fsync(&open)).map_err(|errno| NodeError::of("sync", folder.path.clone(), errno))
}

/// Brings the file system that holds `folder` to the disk.
pub(super) fn sync_all(folder: &Folder) -> Done {
    let open = folder.readable()?;
    around(|| Op::SyncAll, || syncfs(&open)).map_err(|errno| NodeError::of("sync", folder.path.clone(), errno))
}

/// The number of the mount that a file or folder is on, or nothing where neither the kernel (5.8 and later) nor `/proc` tells.
pub(super) fn mount_id(fd: &impl AsFd) -> Option<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    use std::os::fd::AsRawFd;
    // one call in the place of five, for each folder that is written in
    if let Ok(found) = statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID)
        && StatxFlags::from_bits_retain(found.stx_mask).contains(StatxFlags::MNT_ID)
    {
        return Some(found.stx_mnt_id);
    }
    let info = format!("/proc/self/fdinfo/{}", fd.as_fd().as_raw_fd());
    let mut text = String::new();
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    File::from(openat(AT_FDCWD, info.as_str(), flags, Mode::empty()).ok()?).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}
