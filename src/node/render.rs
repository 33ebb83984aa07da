//! Files alone, below a folder that is no node: for image builds and review. No ledger, no transaction.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::NodeError;
use super::files;
use super::root::{Last, Root};
use crate::model::digest::Digest;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::tree::Meta;

/// Says in a folder what was rendered into it: a digest and a path in each line.
pub const MARKER: &str = ".nodeprep-render";

/// Path → content and mode.
pub type Files = BTreeMap<NodePath, (Arc<[u8]>, u32)>;

/// Why nothing was rendered.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The folder holds what was not rendered into it, or has been changed since.
    #[error("{} holds {what}, which was not rendered into it", dir.display())]
    NotOurs {
        /// The folder.
        dir: PathBuf,
        /// What stands there.
        what: String,
    },
    /// The folder cannot be made or read.
    #[error("{} cannot be used: {why}", dir.display())]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        why: std::io::Error,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Makes `dir` hold exactly these files, with their modes (and root's, where we may give them away), below folders that
/// everybody may search. `dir` is made if it is missing; it must be empty or hold what an earlier call left in it.
///
/// # Errors
/// When something else stands in it: then nothing is changed.
pub fn render(dir: &Path, files: &Files) -> Result<(), RenderError> {
    let failed = |why| RenderError::Folder { dir: dir.to_owned(), why };
    std::fs::create_dir_all(dir).map_err(failed)?;
    let before = ours(dir)?;
    let root = Root::open(dir)?;
    for path in &before {
        remove(&root, path)?;
    }
    let top = root.folder(&NodePath::root())?.ok_or_else(|| failed(std::io::ErrorKind::NotFound.into()))?;
    files::unlink(&top, MARKER)?;
    let list = files.iter().fold(String::new(), |mut list, (path, (bytes, _))| {
        let _ = writeln!(list, "{} {path}", Digest::of(bytes));
        list
    });
    files::create(&top, MARKER, list.as_bytes(), &Meta::new(0o644))?;
    for (path, (bytes, mode)) in files {
        let spot = root.place(path, Last::Keep, &mut Vec::new())?;
        files::create(&spot.folder, &spot.name, bytes, &Meta::new(*mode))?;
    }
    Ok(())
}

/// What an earlier call left in a folder, all of it as it was left.
fn ours(dir: &Path) -> Result<BTreeSet<NodePath>, RenderError> {
    let failed = |why| RenderError::Folder { dir: dir.to_owned(), why };
    let list = std::fs::read_to_string(dir.join(MARKER)).unwrap_or_default();
    let known: BTreeMap<&str, &str> = list.lines().filter_map(|line| line.split_once(' ')).map(|(digest, path)| (path, digest)).gathered();
    let mut found = BTreeSet::new();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            let inner = path.strip_prefix(dir).unwrap_or(&path).display().to_string();
            if inner == MARKER {
                continue;
            }
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() && !known.is_empty() {
                folders.push(path);
                continue;
            }
            let as_left = |digest: &&&str| std::fs::read(&path).is_ok_and(|bytes| Digest::of(&bytes).to_string() == ***digest);
            let node_path = NodePath::new(&format!("/{inner}")).ok();
            match (known.get(format!("/{inner}").as_str()).filter(|_| kind.is_file()).filter(as_left), node_path) {
                (Some(_), Some(path)) => found.insert(path),
                _ => return Err(RenderError::NotOurs { dir: dir.to_owned(), what: inner }),
            };
        }
    }
    Ok(found)
}

/// Removes a file and the folders that are empty without it.
fn remove(root: &Root, path: &NodePath) -> Result<(), NodeError> {
    let mut gone = path.clone();
    loop {
        let (real, folder) = root.real_parent(&gone, false)?;
        if gone == *path {
            files::unlink(&folder, real.name())?;
        } else if !files::remove_folder(&folder, real.name())? {
            return Ok(());
        } else {
            root.forget(&real);
        }
        match gone.parent().filter(|parent| *parent != NodePath::root()) {
            Some(parent) => gone = parent,
            None => return Ok(()),
        }
    }
}
