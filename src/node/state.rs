//! Small files of our own in the state folder, and who may write them.
//!
//! The lock of runs ([`super::lock`]) is held as long as a run takes. These files are written by whoever has something to say, at
//! once, under a lock of the folder that is held as long as a write takes.

use std::fs::File;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::blobs;
use super::error::NodeError;
use super::files::{self, Seen};
use super::root::{Folder, Last, Root, make_folder_as};
use crate::model::line;
use crate::model::path::NodePath;
use crate::model::pause::{Pauses, VERSION};

/// What is left alone for a while.
const PAUSES: &str = "pause.json";
/// The next one, until it is whole.
const NEW_PAUSES: &str = "pause.json.new";

/// The state folder while it is written: dropped, others may.
pub(super) struct Held {
    pub folder: std::sync::Arc<Folder>,
    _lock: Flock<File>,
}

/// Opens the state folder for writing, made when missing, and waits until nobody else writes.
pub(super) fn hold(root: &Root, state: &NodePath) -> Result<Held, NodeError> {
    let spot = root.place(state, Last::Follow, &mut Vec::new())?;
    if spot.folder.stat(&spot.name)?.is_none() {
        make_folder_as(&spot.folder, &spot.name, 0o700)?;
    }
    let folder = root.folder(state)?.ok_or_else(|| NodeError::of("open", state.clone(), Errno::ENOENT))?;
    let lock = Flock::lock(File::from(folder.readable()?), FlockArg::LockExclusive)
        .map_err(|(_, errno)| NodeError::of("lock", state.clone(), errno))?;
    Ok(Held { folder, _lock: lock })
}

/// What is to be left alone for a while.
///
/// # Errors
/// When the file cannot be read, or says what this nodeprep does not know.
pub fn pauses(root: &Root, state: &NodePath) -> Result<Pauses, NodeError> {
    root.folder(state)?.map_or_else(|| Ok(Pauses::default()), |folder| read(&folder))
}

fn read(folder: &Folder) -> Result<Pauses, NodeError> {
    let wrong = |why: String| NodeError::State { path: folder.path.join(PAUSES), why };
    match files::look(folder, PAUSES)? {
        Seen::Absent => Ok(Pauses::default()),
        Seen::File(bytes, _) => {
            let pauses: Pauses = serde_json::from_slice(&bytes).map_err(|error| wrong(error.to_string()))?;
            if pauses.version > VERSION {
                return Err(wrong(format!("it has version {}; this nodeprep knows versions up to {VERSION}", pauses.version)));
            }
            Ok(pauses)
        }
        other => Err(wrong(format!("{} stands there", other.describe()))),
    }
}

/// Changes what is left alone. `change` gets what cannot be read as nothing where `anyway`.
///
/// # Errors
/// When it cannot be read or written; then it is as it was.
pub fn change_pauses(root: &Root, state: &NodePath, anyway: bool, change: impl FnOnce(&mut Pauses)) -> Result<Pauses, NodeError> {
    let held = hold(root, state)?;
    let folder = &held.folder;
    let mut pauses = match read(folder) {
        Ok(pauses) => pauses,
        Err(NodeError::State { .. }) if anyway => Pauses::default(),
        Err(error) => return Err(error),
    };
    change(&mut pauses);
    if pauses.pauses.is_empty() {
        files::unlink(folder, PAUSES)?;
    } else {
        files::unlink(folder, NEW_PAUSES)?;
        let file = match files::create(folder, NEW_PAUSES, &line::of(&pauses), &blobs::private()) {
            Ok(file) => file,
            Err(error) => {
                // what could not be written whole is in nobody's way
                let _ = files::unlink(folder, NEW_PAUSES);
                return Err(error);
            }
        };
        files::sync_file(&folder.path.join(NEW_PAUSES), &file)?;
        files::rename((folder, NEW_PAUSES), (folder, PAUSES)).map_err(|errno| NodeError::of("write", folder.path.join(PAUSES), errno))?;
    }
    files::sync_folder(folder)?;
    Ok(pauses)
}
