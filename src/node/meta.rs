//! Owner, mode and labels of files.

use std::fs::File;

use nix::sys::stat::FileStat;
use xattr::FileExt;

use super::root::Folder;
use crate::model::order;
use crate::model::time::Time;
use crate::model::tree::Meta;

/// Bound to one content of one file: the kernel makes them anew.
const NEVER_COPIED: [&str; 2] = ["security.ima", "security.evm"];

/// The SELinux label.
const LABEL: &str = "security.selinux";

/// The label of a folder: what the kernel gives to a file that is made in it, but not to one that is renamed into it.
pub(super) fn label(folder: &Folder) -> Option<Vec<u8>> {
    File::from(folder.readable().ok()?).get_xattr(LABEL).ok().flatten()
}

/// The same attributes, with this label where they have none.
pub(super) fn labelled(meta: &Meta, label: Option<&Vec<u8>>) -> Meta {
    let mut meta = meta.clone();
    if let Some(label) = label.filter(|_| meta.xattrs.iter().all(|(name, _)| name != LABEL)) {
        meta.xattrs.push((LABEL.to_owned(), label.clone()));
    }
    meta
}

/// What `stat` said.
pub(super) fn of(found: &FileStat, xattrs: Vec<(String, Vec<u8>)>) -> Meta {
    let mtime = Time(found.st_mtime.saturating_mul(1000).saturating_add(found.st_mtime_nsec / 1_000_000));
    Meta { mode: found.st_mode & 0o7777, uid: found.st_uid, gid: found.st_gid, mtime, xattrs }
}

/// The extended attributes of an open file; none where the file system has none.
pub(super) fn xattrs(file: &File) -> Vec<(String, Vec<u8>)> {
    let Ok(names) = file.list_xattr() else { return Vec::new() };
    let names = names.filter_map(|name| name.into_string().ok());
    let mut found: Vec<_> = names.filter_map(|name| file.get_xattr(&name).ok().flatten().map(|value| (name, value))).collect();
    order::sort(&mut found);
    found
}

/// Puts them on a new file. What this user or file system cannot set is left out: the file gets what a new file gets there.
pub(super) fn set_xattrs(file: &File, xattrs: &[(String, Vec<u8>)]) {
    for (name, value) in xattrs.iter().filter(|(name, _)| !NEVER_COPIED.contains(&name.as_str())) {
        if let Err(error) = file.set_xattr(name, value) {
            tracing::debug!(xattr = name.as_str(), %error, "not set");
        }
    }
}
