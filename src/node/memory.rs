//! The file in which it stands what failed and was put back.

use super::error::NodeError;
use super::files::{self, Seen};
use super::root::Root;
use super::{blobs, root};
use crate::apply::memory::Memory;
use crate::model::path::NodePath;

/// In the state folder.
const FILE: &str = "failed.json";
/// The next one, until it is whole.
const NEW_FILE: &str = "failed.json.new";

/// What is remembered; nothing where it cannot be read: it only ever spares a restart.
#[must_use]
pub fn load(root: &Root, state: &NodePath) -> Memory {
    let Ok(Some(folder)) = root.folder(state) else { return Memory::default() };
    match files::look(&folder, FILE) {
        Ok(Seen::File(bytes, _)) => Memory::from_json(&bytes),
        _ => Memory::default(),
    }
}

/// Writes it; a memory of nothing is no file. Call it under the lock.
///
/// # Errors
/// When it cannot be written.
pub fn store(root: &Root, state: &NodePath, memory: &Memory) -> Result<(), NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(()) };
    let folder: &root::Folder = &folder;
    files::unlink(folder, NEW_FILE)?;
    if memory.units.is_empty() {
        return files::unlink(folder, FILE).map(drop);
    }
    let file = files::create(folder, NEW_FILE, &memory.to_json(), &blobs::private())?;
    files::sync_file(&folder.path.join(NEW_FILE), &file)?;
    files::rename((folder, NEW_FILE), (folder, FILE)).map_err(|errno| NodeError::of("write", folder.path.join(FILE), errno))
}
