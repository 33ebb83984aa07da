//! Temporary files: where they stand, how they become durable, how they go away again.
//!
//! They stand in folders named [`NAME`] beside what they will become part of, never in a folder that a runtime or trust tool
//! scans. Which folders ever had one stands in the state folder, so that a run that was killed leaves nothing behind that the
//! next one does not find. That list is kept: it changes only when a plan uses a folder for the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::sync::Arc;

use nix::sys::stat::fstat;

use super::blobs;
use super::error::NodeError;
use super::files::{self, Seen};
use super::root::{Folder, Root, make_folder_as};
use crate::model::order::Gather as _;
use crate::model::path::NodePath;

/// Name of a folder of temporary files.
pub(super) const NAME: &str = ".nodeprep-stage";
/// The list of the folders that hold one, in the state folder.
const LIST: &str = "staging";
/// The next list, until it is whole.
const NEW_LIST: &str = "staging.new";
/// Up to so many files are brought to the disk one by one; more of them with one call for the file system.
const FEW: usize = 32;

/// A temporary file or folder that will be renamed.
#[derive(Clone, Debug)]
pub(super) struct Temp {
    pub folder: Arc<Folder>,
    pub name: String,
}

impl Temp {
    pub(super) fn at(&self) -> (&Folder, &str) {
        (&self.folder, &self.name)
    }
}

/// The folders of temporary files of one run.
#[derive(Debug, Default)]
pub(super) struct Staging {
    folders: BTreeMap<NodePath, (Arc<Folder>, usize)>,
}

impl Staging {
    /// Makes an empty folder for temporary files in each of these.
    pub(super) fn open<'a>(state: &Folder, parents: impl Iterator<Item = &'a Arc<Folder>>) -> Result<Self, NodeError> {
        let parents: BTreeMap<NodePath, &Arc<Folder>> = parents.map(|parent| (parent.path.clone(), parent)).gathered();
        let mut staging = Self::default();
        let known = listed(state)?;
        if parents.keys().any(|path| !known.contains(path)) {
            let all: BTreeSet<&NodePath> = known.iter().chain(parents.keys()).gathered();
            let text: String = all.into_iter().flat_map(|path| [path.as_str(), "\n"]).collect();
            files::remove_all(state, NEW_LIST)?;
            let file = files::create(state, NEW_LIST, text.as_bytes(), &blobs::private())?;
            files::sync_file(&state.path.join(NEW_LIST), &file)?;
            files::rename((state, NEW_LIST), (state, LIST)).map_err(|errno| NodeError::of("write", state.path.join(LIST), errno))?;
        }
        for (path, parent) in parents {
            files::remove_all(parent, NAME)?;
            make_folder_as(parent, NAME, 0o700)?;
            staging.folders.insert(path, (Arc::new(files::open_child(parent, NAME)?), 0));
        }
        Ok(staging)
    }

    /// A name that is free, in the folder of temporary files that stands in `parent`.
    pub(super) fn next(&mut self, parent: &Folder) -> Result<Temp, NodeError> {
        let missing = || NodeError::of("write in", parent.path.join(NAME), nix::errno::Errno::ENOENT);
        let (folder, used) = self.folders.get_mut(&parent.path).ok_or_else(missing)?;
        *used += 1;
        Ok(Temp { folder: Arc::clone(folder), name: used.to_string() })
    }
}

/// The folders that had one.
fn listed(state: &Folder) -> Result<BTreeSet<NodePath>, NodeError> {
    let Seen::File(list, _) = files::look(state, LIST)? else { return Ok(BTreeSet::new()) };
    Ok(String::from_utf8_lossy(&list).lines().filter_map(|line| NodePath::new(line).ok()).gathered())
}

/// Removes the folders of temporary files; whether there were any.
pub(super) fn clear(root: &Root, state: &Folder) -> Result<bool, NodeError> {
    let mut any = files::unlink(state, NEW_LIST)?;
    for path in listed(state)? {
        root.forget(&path.join(NAME));
        match root.folder(&path) {
            Ok(Some(parent)) if parent.stat(NAME)?.is_some() => {
                files::remove_all(&parent, NAME)?;
                any = true;
            }
            Ok(_) | Err(NodeError::NotFolder { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(any)
}

/// What has to reach the disk before the next step: file by file while there are few, else one folder per file system.
#[derive(Debug, Default)]
pub(super) struct Unsynced {
    files: Vec<(NodePath, File)>,
    folders: BTreeMap<NodePath, Arc<Folder>>,
    /// Folders of the files: their file systems are meant when there are many.
    homes: BTreeMap<NodePath, Arc<Folder>>,
    /// File system → a folder on it; only when there are many.
    devices: Option<BTreeMap<u64, Arc<Folder>>>,
}

impl Unsynced {
    /// A file that was written.
    pub(super) fn file(&mut self, home: &Arc<Folder>, path: NodePath, file: File) {
        if self.devices.is_none() && self.files.len() < FEW {
            self.files.push((path, file));
            self.homes.entry(home.path.clone()).or_insert_with(|| Arc::clone(home));
        } else {
            self.many(home);
        }
    }

    /// A folder in which names have changed.
    pub(super) fn folder(&mut self, folder: &Arc<Folder>) {
        if self.devices.is_none() && (self.folders.len() < FEW || self.folders.contains_key(&folder.path)) {
            self.folders.entry(folder.path.clone()).or_insert_with(|| Arc::clone(folder));
        } else {
            self.many(folder);
        }
    }

    /// A folder that is no more.
    pub(super) fn gone(&mut self, path: &NodePath) {
        self.folders.remove(path);
    }

    fn many(&mut self, folder: &Arc<Folder>) {
        self.files.clear();
        let devices = self.devices.get_or_insert_default();
        let known = std::mem::take(&mut self.folders).into_values().chain(std::mem::take(&mut self.homes).into_values());
        for folder in known.chain([Arc::clone(folder)]) {
            if let Ok(found) = fstat(&*folder) {
                devices.entry(found.st_dev).or_insert(folder);
            }
        }
    }

    /// Brings everything to the disk: content first, then names.
    pub(super) fn sync(&mut self) -> Result<(), NodeError> {
        let Self { files, folders, devices, .. } = std::mem::take(self);
        for folder in devices.unwrap_or_default().values() {
            files::sync_all(folder)?;
        }
        for (path, file) in &files {
            files::sync_file(path, file)?;
        }
        folders.values().try_for_each(|folder| files::sync_folder(folder))
    }
}
