//! Files that are kept beside the ledger and replaced as a whole: 0600, old or new whatever happens.

use super::blobs::private;
use super::error::NodeError;
use super::files::{self, Seen};
use super::root::Root;
use crate::model::path::NodePath;

/// The last spec that was applied ([`crate::kept::LastGood`]).
pub const LAST_GOOD: &str = "last-good.json";
/// What was fetched last ([`crate::kept::Fetched`]).
pub const FETCHED: &str = "fetched.json";

/// The content of such a file in the state folder; `None` when there is none, or something else stands there.
#[must_use]
pub fn read(root: &Root, state: &NodePath, name: &str) -> Option<Vec<u8>> {
    let folder = root.folder(state).ok()??;
    match files::look(&folder, name).ok()? {
        Seen::File(bytes, _) => Some(bytes),
        _ => None,
    }
}

/// Replaces it where it is to be another one; without `bytes` it is to be gone. Call it under the lock.
///
/// # Errors
/// When it cannot be written or removed; it is as before then.
pub fn replace(root: &Root, state: &NodePath, name: &str, bytes: Option<&[u8]>) -> Result<(), NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(()) };
    let temp = format!("{name}.new");
    let Some(bytes) = bytes else {
        files::unlink(&folder, &temp)?;
        files::unlink(&folder, name)?;
        return Ok(());
    };
    // what cannot be read is no reason to keep it
    if matches!(files::look(&folder, name), Ok(Seen::File(found, meta)) if found == bytes && meta.mode == private().mode) {
        return Ok(());
    }
    files::unlink(&folder, &temp)?;
    let file = files::create(&folder, &temp, bytes, &private())?;
    files::sync_file(&state.join(&temp), &file)?;
    files::rename((&folder, &temp), (&folder, name)).map_err(|errno| NodeError::of("write", state.join(name), errno))?;
    files::sync_folder(&folder)
}
