//! The preflight: can every step be done? Looks only; the first thing that is written is written in `stage`.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use nix::unistd::{AccessFlags, faccessat};

use super::error::NodeError;
use super::files::{self, Seen};
use super::meta;
use super::root::{Folder, Last, Root, Stop};
use crate::ledger::Ledger;
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::plan::{Act, Expect, Step};

/// What is known about a step before anything is written.
#[derive(Debug)]
pub(super) struct Survey {
    /// What stands at its place.
    pub seen: Seen,
    /// The files of a folder that is exchanged.
    pub inside: Vec<(String, Seen)>,
    /// The folder in which its staging folder stands; `None` when the step needs none.
    pub stage: Option<Arc<Folder>>,
    /// Folders that have to be made, from the outside in; also the one that a folder step makes.
    pub missing: Vec<NodePath>,
    /// The mode of the folder that is exchanged, or of a new one.
    mode: u32,
    /// The SELinux label that something new gets there.
    pub label: Option<Vec<u8>>,
    /// The real path of the folder in which it stands; `None` when that is missing.
    pub home: Option<NodePath>,
    /// The first of the removals that leave a folder of ours empty: it takes the folder away as a whole.
    pub whole: bool,
}

impl Survey {
    /// The mode of the folder that a step makes.
    pub(super) const fn folder_mode(&self) -> u32 {
        self.mode
    }

    /// Whether the folder that is to be exchanged still holds what it held.
    pub(super) fn still_inside(&self, step: &Step, folder: &Folder, name: &str) -> Result<(), NodeError> {
        let open = files::open_child(folder, name)?;
        let names = files::names(&open)?;
        for name in &names {
            let now = files::look(&open, name)?;
            if !self.inside.iter().any(|(known, seen)| known == name && seen.same(&now)) {
                return Err(NodeError::Drift { path: step.path.join(name), found: now.describe() });
            }
        }
        Ok(())
    }
}

/// What is known about a folder.
#[derive(Clone, Debug)]
struct Known {
    device: u64,
    mount: Option<u64>,
    label: Option<Vec<u8>>,
}

impl Known {
    /// Whether a rename from one to the other is possible.
    fn same_mount(&self, other: &Self) -> bool {
        (self.device, self.mount) == (other.device, other.mount)
    }
}

/// Where a path leads.
struct Nearest {
    /// Its folder, or the nearest that exists.
    folder: Arc<Folder>,
    /// Its name there; `None` when folders are missing.
    name: Option<String>,
    /// Which ones.
    missing: Vec<NodePath>,
}

/// Looks at steps; remembers what it learnt about folders.
#[derive(Debug)]
pub(super) struct Surveyor<'a> {
    root: &'a Root,
    ledger: &'a Ledger,
    /// What is known about folders that can be written.
    folders: HashMap<NodePath, Known>,
}

/// How a step treats a link as last component.
pub(super) fn last(step: &Step) -> Last {
    if matches!(step.act, Act::PutFile { through_link: true, .. }) { Last::Follow } else { Last::Keep }
}

/// Whether what stands there is what the plan was made for.
pub(super) fn fits(expect: &Expect, seen: &Seen) -> bool {
    match (expect, seen) {
        (Expect::Absent, Seen::Absent) | (Expect::Dir, Seen::Folder) => true,
        (Expect::File(digest), Seen::File(bytes, _)) => *digest == Digest::of(bytes),
        (Expect::Link(to), Seen::Link(found, _)) => to == found,
        _ => false,
    }
}

/// The error when it is not.
pub(super) fn drift(step: &Step, seen: &Seen) -> NodeError {
    NodeError::Drift { path: step.path.clone(), found: seen.describe() }
}

impl<'a> Surveyor<'a> {
    pub(super) fn new(root: &'a Root, ledger: &'a Ledger) -> Self {
        Self { root, ledger, folders: HashMap::new() }
    }

    pub(super) fn step(&mut self, step: &Step) -> Result<Survey, NodeError> {
        let Nearest { folder: near, name, mut missing } = self.nearest(&step.path, last(step))?;
        let seen = name.as_deref().map_or(Ok(Seen::Absent), |name| files::look(&near, name))?;
        // a link that is written through is expected as the link or as what it leads to
        let as_planned = match (&step.expect, last(step)) {
            (Expect::Link(_), Last::Follow) => {
                let link = self.nearest(&step.path, Last::Keep)?;
                let link = link.name.map_or(Ok(Seen::Absent), |name| files::look(&link.folder, &name))?;
                fits(&step.expect, &link)
            }
            // a file that is to go and has gone is as wanted
            (Expect::File(_) | Expect::Link(_), _) if matches!((&step.act, &seen), (Act::Remove, Seen::Absent)) => true,
            _ => fits(&step.expect, &seen),
        };
        if !as_planned {
            return Err(drift(step, &seen));
        }
        let Known { device, mount, label } = self.writable(&near)?;
        let mut mode = 0o755;
        if let Some(name) = name.as_deref().filter(|_| !matches!(seen, Seen::Absent)) {
            replaceable(&near, name, device, mount)?;
            if matches!(seen, Seen::Folder) {
                mode = near.stat(name)?.map_or(mode, |found| found.st_mode & 0o7777);
            }
        }
        let inside = match (&step.act, &seen, name.as_deref()) {
            (Act::PutDir { .. }, Seen::Folder, Some(name)) => self.inside(step, &near, name)?,
            _ => Vec::new(),
        };
        if matches!(step.act, Act::PutDir { .. }) && matches!(seen, Seen::Absent) {
            missing.extend(self.would_be(&step.path)?);
        }
        let stage = match &step.act {
            Act::PutFile { stage, through_link, .. } => Some(self.stage(stage, *through_link, &near, &step.path)?),
            Act::PutDir { stage, .. } => Some(self.stage(stage, false, &near, &step.path)?),
            Act::PutLink { .. } if !matches!(seen, Seen::Absent) => {
                let above = near.path.parent().unwrap_or_else(NodePath::root);
                Some(self.stage(&above, true, &near, &step.path)?)
            }
            Act::PutLink { .. } | Act::Remove => None,
        };
        let home = name.map(|_| near.path.clone());
        Ok(Survey { seen, inside, stage, missing, mode, label, home, whole: false })
    }

    /// Finds the folders of ours that will be empty, so that each can go in one step: a registry's folder that has lost some
    /// of its files already means something else than no folder.
    pub(super) fn whole_folders(
        &mut self,
        removals: &mut [(&Step, &mut Survey)],
        ours: impl Fn(&NodePath) -> bool,
    ) -> Result<(), NodeError> {
        let mut by_folder: BTreeMap<NodePath, Vec<usize>> = BTreeMap::new();
        for (at, (step, survey)) in removals.iter().enumerate() {
            if let (Some(home), Act::Remove, Seen::File(..) | Seen::Link(..)) = (&survey.home, &step.act, &survey.seen)
                && ours(home)
            {
                by_folder.entry(home.clone()).or_default().push(at);
            }
        }
        for (path, members) in by_folder {
            let leader = members[0];
            let Some(home) = self.root.folder(&path)? else { continue };
            let going: Vec<&str> = members.iter().map(|at| removals[*at].0.path.name()).collect();
            let all = files::names(&home)?.iter().all(|name| going.contains(&name.as_str()));
            let Some(above) = path.parent().filter(|_| all) else { continue };
            let Some(parent) = self.root.folder(&above)? else { continue };
            // not in a folder that will go, too
            let mut stage = above.parent().unwrap_or_else(NodePath::root);
            while ours(&stage) {
                stage = stage.parent().unwrap_or_else(NodePath::root);
            }
            if let Ok(stage) = self.stage(&stage, false, &parent, &path) {
                let survey = &mut *removals[leader].1;
                survey.stage = Some(stage);
                survey.whole = true;
            }
        }
        Ok(())
    }

    /// The folder of a path and its name there, or the nearest folder that exists and the ones that do not.
    fn nearest(&self, path: &NodePath, last: Last) -> Result<Nearest, NodeError> {
        match self.root.walk(path, last, &mut |_, _, _| {}) {
            Ok(spot) => Ok(Nearest { folder: spot.folder, name: Some(spot.name), missing: Vec::new() }),
            Err(Stop::Missing { folder, would_be, .. }) => {
                let mut missing: Vec<NodePath> =
                    std::iter::successors(would_be.parent(), NodePath::parent).take_while(|at| at.is_below(&folder.path)).collect();
                missing.reverse();
                Ok(Nearest { folder, name: None, missing })
            }
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Whether a command can write in a folder, or make it.
    pub(super) fn command_writes(&mut self, folder: &NodePath) -> Result<(), NodeError> {
        let folder = self.nearest(&folder.join("x"), Last::Keep)?.folder;
        self.writable(&folder).map(drop)
    }

    /// The real path that a path has, or will have.
    fn would_be(&self, path: &NodePath) -> Result<Option<NodePath>, NodeError> {
        match self.root.walk(path, Last::Keep, &mut |_, _, _| {}) {
            Ok(spot) => Ok(Some(spot.path())),
            Err(Stop::Missing { would_be, .. }) => Ok(Some(would_be)),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Whether names in the folder can be changed: finds a missing permission, a read-only file system and the immutable bit.
    fn writable(&mut self, folder: &Folder) -> Result<Known, NodeError> {
        if let Some(known) = self.folders.get(&folder.path) {
            return Ok(known.clone());
        }
        let failed = |errno| NodeError::of("write in", folder.path.clone(), errno);
        faccessat(folder, ".", AccessFlags::W_OK | AccessFlags::X_OK, AtFlags::empty()).map_err(failed)?;
        let device = fstat(folder).map_err(failed)?.st_dev;
        let known = Known { device, mount: files::mount_id(folder), label: meta::label(folder) };
        self.folders.insert(folder.path.clone(), known.clone());
        Ok(known)
    }

    /// A folder for the temporary file on the same mount as the target: the one that the plan names or, while it does not
    /// exist, the nearest above; else the one above the target's, which nothing scans that scans the target's.
    fn stage(&mut self, wanted: &NodePath, own: bool, near: &Arc<Folder>, path: &NodePath) -> Result<Arc<Folder>, NodeError> {
        let here = self.writable(near)?;
        let wanted_folder = self.nearest(&wanted.join("x"), Last::Keep)?.folder;
        let above = near.path.parent().map(|above| self.nearest(&above.join("x"), Last::Keep)).transpose()?;
        let others = above.map(|above| above.folder).into_iter().chain(own.then(|| Arc::clone(near)));
        let mut refused = None;
        for folder in std::iter::once(wanted_folder).chain(others) {
            match self.writable(&folder) {
                Ok(there) if there.same_mount(&here) => return Ok(folder),
                Ok(_) => {}
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        Err(refused.unwrap_or_else(|| NodeError::OtherFs { path: path.clone(), stage: wanted.clone() }))
    }

    /// The files of a folder that is to be exchanged: all of them must be ours or be replaced.
    fn inside(&self, step: &Step, near: &Folder, name: &str) -> Result<Vec<(String, Seen)>, NodeError> {
        let Act::PutDir { files: new, .. } = &step.act else { return Ok(Vec::new()) };
        let folder = files::open_child(near, name)?;
        let mut inside = Vec::new();
        for name in files::names(&folder)? {
            let path = step.path.join(&name);
            let seen = files::look(&folder, &name)?;
            let known = new.contains_key(&name) || self.ledger.owned.contains_key(&path);
            if !known || !matches!(seen, Seen::File(..) | Seen::Link(..)) {
                return Err(NodeError::Drift { path, found: seen.describe() });
            }
            inside.push((name, seen));
        }
        Ok(inside)
    }
}

/// Whether a rename can take the place of what stands there: not when it is a mount point or immutable.
fn replaceable(folder: &Folder, name: &str, device: u64, mount: Option<u64>) -> Result<(), NodeError> {
    let path = || folder.path.join(name);
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let open = openat(folder, name, flags, Mode::empty()).map_err(|errno| NodeError::of("open", path(), errno))?;
    let found = fstat(&open).map_err(|errno| NodeError::of("look at", path(), errno))?;
    // on an overlay a file has another device than its folder without being a mount point, so the number of the mount decides
    let elsewhere = if mount.is_some() { files::mount_id(&open) != mount } else { found.st_dev != device };
    if elsewhere {
        return Err(NodeError::Mounted { path: path() });
    }
    // a file that may not be written can be replaced; one that is immutable cannot, which is told apart by EPERM
    // (not with AT_EACCESS: libraries emulate that on older kernels without asking the file system)
    let is_link = files::kind(found.st_mode) == SFlag::S_IFLNK;
    match faccessat(folder, name, AccessFlags::W_OK, AtFlags::empty()) {
        Err(errno @ (Errno::EPERM | Errno::EROFS)) if !is_link => Err(NodeError::of("replace", path(), errno)),
        _ => Ok(()),
    }
}
