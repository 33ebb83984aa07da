//! The audit trail on the disk: lines that are added, never changed; whole or not there (docs/adr/0020).

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::ftruncate;

use super::checkpoint;
use super::error::NodeError;
use super::files;
use super::root::{Folder, Root};
use super::state::hold;
use crate::model::path::NodePath;

/// Its name in the state folder.
pub const NAME: &str = "audit.log";
/// A longer one is put aside before the next line is written.
const LONGEST: u64 = 1 << 20;
/// Longer is nothing that a crash has torn: the lines of one run, of some hundred bytes for each change.
const MOST_TORN: u64 = 16 << 20;
/// As many of those are kept.
const KEPT: u32 = 4;

type Done = Result<(), NodeError>;

/// Adds lines; each has to end with a newline. They are on the disk when this returns.
///
/// # Errors
/// When they cannot be written: then none of them is there.
pub fn append(root: &Root, state: &NodePath, lines: &str) -> Done {
    if lines.is_empty() {
        return Ok(());
    }
    let held = hold(root, state)?;
    let folder = &*held.folder;
    let path = folder.path.join(NAME);
    let mut file = open(folder, OFlag::O_RDWR | OFlag::O_CREAT)?;
    let failed = |doing: &'static str| {
        let path = path.clone();
        move |error: std::io::Error| NodeError::io(doing, path, &error)
    };
    let whole = whole(&mut file).map_err(failed("read"))?;
    let mut end = whole.unwrap_or_default();
    if whole.is_none() || end > 0 && end + lines.len() as u64 > LONGEST {
        rotate(folder)?;
        file = open(folder, OFlag::O_RDWR | OFlag::O_CREAT)?;
        end = 0;
    }
    checkpoint::point();
    let put = || {
        cut(&file, end)?;
        match checkpoint::tear(lines.len()) {
            None => file.write_all_at(lines.as_bytes(), end),
            Some(middle) => {
                file.write_all_at(&lines.as_bytes()[..middle], end)?;
                checkpoint::point();
                file.write_all_at(&lines.as_bytes()[middle..], end + middle as u64)
            }
        }
    };
    let put = put().map_err(failed("write")).and_then(|()| files::sync_file(&path, &file));
    if put.is_err() {
        // needs no space; a reader must not meet half a line
        let _ = cut(&file, end);
    }
    put
}

/// The last `most` bytes, from the beginning of a line on, as far as lines are whole; nothing where there is no trail.
///
/// # Errors
/// When it cannot be read.
pub fn tail(root: &Root, state: &NodePath, most: u64) -> Result<String, NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(String::new()) };
    let mut file = match open(&folder, OFlag::O_RDONLY) {
        Ok(file) => file,
        Err(NodeError::Io { errno: Errno::ENOENT, .. }) => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut read = || {
        let length = file.seek(SeekFrom::End(0))?;
        file.seek(SeekFrom::Start(length.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut file).take(most).read_to_end(&mut bytes)?;
        Ok((length > most, bytes))
    };
    let (is_part, bytes) = read().map_err(|error| NodeError::io("read", folder.path.join(NAME), &error))?;
    let text = String::from_utf8_lossy(&bytes);
    let from = if is_part { text.find('\n').map_or(text.len(), |at| at + 1) } else { 0 };
    let to = text.rfind('\n').map_or(from, |at| (at + 1).max(from));
    Ok(text[from..to].to_owned())
}

fn open(folder: &Folder, flags: OFlag) -> Result<File, NodeError> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = openat(folder, NAME, flags, Mode::from_bits_truncate(0o600));
    file.map(File::from).map_err(|errno| NodeError::of("open", folder.path.join(NAME), errno))
}

/// How far it goes in whole lines: what stands behind the last newline was cut off by a crash. `None` where that is more than any
/// crash cuts off: it is nothing that we wrote, and not gone through.
fn whole(file: &mut File) -> std::io::Result<Option<u64>> {
    const PIECE: usize = 4096;
    let mut end = file.seek(SeekFrom::End(0))?;
    let least = end.saturating_sub(MOST_TORN);
    let mut piece = [0; PIECE];
    while end > 0 {
        let from = end.saturating_sub(PIECE as u64);
        let piece = &mut piece[..usize::try_from(end - from).unwrap_or(PIECE)];
        file.read_exact_at(piece, from)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(Some(from + at as u64 + 1));
        }
        if from < least {
            return Ok(None);
        }
        end = from;
    }
    Ok(Some(0))
}

fn cut(file: &File, to: u64) -> std::io::Result<()> {
    if file.metadata()?.len() == to {
        return Ok(());
    }
    ftruncate(file, i64::try_from(to).unwrap_or(i64::MAX)).map_err(std::io::Error::from)
}

/// Puts the trail aside; the oldest of those that were put aside goes.
fn rotate(folder: &Folder) -> Done {
    let name = |number: u32| if number == 0 { NAME.to_owned() } else { format!("{NAME}.{number}") };
    for number in (0..KEPT).rev() {
        let (from, to) = (name(number), name(number + 1));
        match files::rename((folder, &from), (folder, &to)) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(errno) => return Err(NodeError::of("put aside", folder.path.join(&from), errno)),
        }
    }
    Ok(())
}
