//! What was there before, by content: `blobs/<sha256>` in the state folder, 0600 in 0700.

use std::collections::BTreeSet;

use nix::sys::stat::Mode;

use super::error::NodeError;
use super::files::{self, Seen};
use super::root::{Folder, Root, make_folder_as};
use crate::model::digest::Digest;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::tree::Meta;

/// The folder of blobs in the state folder.
pub(super) const FOLDER: &str = "blobs";

/// Reads a blob; `path` is the one whose content it was, for the message.
///
/// # Errors
/// [`NodeError::Blob`] when it is missing or its content is not what its name says.
pub fn read(root: &Root, state: &NodePath, blob: Digest, path: &NodePath) -> Result<Vec<u8>, NodeError> {
    let lost = || NodeError::Blob { path: path.clone(), blob };
    let folder = root.folder(&state.join(FOLDER))?.ok_or_else(lost)?;
    match files::look(&folder, &blob.to_string())? {
        Seen::File(bytes, _) if Digest::of(&bytes) == blob => Ok(bytes),
        _ => Err(lost()),
    }
}

/// Keeps `bytes`; gives what was written, if anything: one that is there already and whole is left alone.
pub(super) fn keep(blobs: &Folder, blob: Digest, bytes: &[u8]) -> Result<Option<(NodePath, std::fs::File)>, NodeError> {
    let name = blob.to_string();
    if let Seen::File(found, _) = files::look(blobs, &name)?
        && found == bytes
    {
        return Ok(None);
    }
    let temp = format!(".{name}");
    files::remove_all(blobs, &temp)?;
    let file = files::create(blobs, &temp, bytes, &private())?;
    files::rename((blobs, &temp), (blobs, &name)).map_err(|errno| NodeError::of("write", blobs.path.join(&name), errno))?;
    Ok(Some((blobs.path.join(&temp), file)))
}

/// Opens the folder of blobs, made when missing.
pub(super) fn folder(state: &Folder) -> Result<Folder, NodeError> {
    if state.stat(FOLDER)?.is_none() {
        make_folder_as(state, FOLDER, 0o700)?;
    }
    files::open_child(state, FOLDER)
}

/// Removes the blobs that nobody needs.
pub(super) fn prune(state: &Folder, needed: &BTreeSet<Digest>) -> Result<(), NodeError> {
    if state.stat(FOLDER)?.is_none() {
        return Ok(());
    }
    let blobs = files::open_child(state, FOLDER)?;
    let needed: BTreeSet<String> = needed.iter().map(Digest::to_string).gathered();
    for name in files::names(&blobs)?.iter().filter(|name| !needed.contains(*name)) {
        files::unlink(&blobs, name)?;
    }
    Ok(())
}

/// The files of the state folder belong to whoever runs this.
pub(super) fn private() -> Meta {
    let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    Meta { mode: (Mode::S_IRUSR | Mode::S_IWUSR).bits(), uid, gid, ..Meta::default() }
}
