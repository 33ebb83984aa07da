//! Performs the actions of a transaction: what is to be done next is decided in `apply/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nix::errno::Errno;

use super::blobs;
use super::error::NodeError;
use super::files::{self, Seen};
use super::root::{Folder, Last, Root, Spot, make_folder_as};
use super::stage::{self, Staging, Temp, Unsynced};
use super::survey::{Survey, Surveyor, drift, last};
use crate::ledger::{Ledger, Open, Stamp};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::tree::Meta;
use crate::plan::{Act, Activation, How, Plan, Step};

/// The ledger in the state folder.
const LEDGER: &str = "ledger.json";
/// The next one, until it is whole and durable.
const NEW_LEDGER: &str = "ledger.json.new";

type Done = Result<(), NodeError>;

/// Reads the ledger; `None` when there is none.
pub(crate) fn load_ledger(root: &Root, state: &NodePath) -> Result<Option<Ledger>, NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(None) };
    let path = state.join(LEDGER);
    match files::look(&folder, LEDGER)? {
        Seen::Absent => Ok(None),
        Seen::File(bytes, _) => Ok(Some(Ledger::from_json(&path, &bytes)?)),
        other => Err(NodeError::Drift { path, found: other.describe() }),
    }
}

/// Removes what a killed run left behind.
pub(crate) fn tidy(root: &Root, state: &NodePath) -> Result<bool, NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(false) };
    let new = files::unlink(&folder, NEW_LEDGER)?;
    let staged = stage::clear(root, &folder)?;
    if staged {
        let needed = load_ledger(root, state)?.map(|ledger| ledger.blobs()).unwrap_or_default();
        blobs::prune(&folder, &needed)?;
    }
    Ok(staged || new)
}

/// How a change is taken back; by real paths, because an open folder for each step would be too many.
#[derive(Debug, Default)]
enum Undo {
    /// Nothing has happened.
    #[default]
    Nothing,
    /// What is there now is removed.
    Remove(NodePath),
    /// What was there stands at the temporary name.
    Back(NodePath, Temp),
    /// A folder: it goes away to the first name, what was there comes back from the second.
    Swap(NodePath, Temp, Option<Temp>),
    /// What was there is written again.
    Rewrite,
}

/// One step on its way.
#[derive(Debug)]
struct Job<'a> {
    step: &'a Step,
    survey: Survey,
    temp: Option<Temp>,
    made: Vec<NodePath>,
    undo: Undo,
    done: bool,
}

/// What performs a plan.
#[derive(Debug)]
pub struct Hands<'a> {
    root: &'a Root,
    state: &'a NodePath,
    plan: &'a Plan,
    /// The ledger before this run.
    old: Ledger,
    /// The ledger that is on the disk.
    current: Ledger,
    jobs: Vec<Job<'a>>,
    folder: Option<Arc<Folder>>,
    staging: Staging,
    unsynced: Unsynced,
    made: BTreeSet<NodePath>,
    gone: BTreeSet<NodePath>,
    recorded: bool,
    existed: bool,
    closing: bool,
    taken: usize,
}

impl<'a> Hands<'a> {
    pub(crate) fn new(root: &'a Root, state: &'a NodePath, plan: &'a Plan, ledger: Ledger) -> Self {
        Self {
            root,
            state,
            plan,
            current: ledger.clone(),
            old: ledger,
            jobs: Vec::new(),
            folder: None,
            staging: Staging::default(),
            unsynced: Unsynced::default(),
            made: BTreeSet::new(),
            gone: BTreeSet::new(),
            recorded: false,
            existed: false,
            closing: false,
            taken: 0,
        }
    }

    pub(crate) fn into_ledger(self) -> Ledger {
        self.current
    }

    pub(crate) fn step(&self, at: usize) -> &'a Step {
        self.jobs[at].step
    }

    /// The paths of the changes that were made.
    pub(crate) fn changed(&self) -> Vec<NodePath> {
        self.jobs.iter().filter(|job| job.done).map(|job| job.step.path.clone()).collect()
    }

    /// Whether the ledger would be the same after a run without steps.
    pub(crate) fn ledger_is_final(&self) -> bool {
        self.old.open.is_none()
            && self.old.dirs == self.plan.dirs
            && self.plan.owned.len() == self.old.owned.len()
            && self.final_ledger().is_ok_and(|ledger| ledger == self.old)
    }

    pub(crate) fn preflight(&mut self) -> Done {
        let plan = self.plan;
        let mut surveyor = Surveyor::new(self.root, &self.old);
        for step in plan.stage.iter().chain(&plan.switch).chain(&plan.retire) {
            let survey = surveyor.step(step)?;
            self.jobs.push(Job { step, survey, temp: None, made: Vec::new(), undo: Undo::Nothing, done: false });
        }
        let (old, visible) = (&self.old, plan.stage.len() + plan.switch.len());
        let mut removals: Vec<_> = self.jobs[visible..].iter_mut().map(|job| (job.step, &mut job.survey)).collect();
        surveyor.whole_folders(&mut removals, |folder| old.dirs.contains(folder))
    }

    /// Everything that nobody sees: what was there before, the new files under temporary names, the ledger written ahead.
    pub(crate) fn stage(&mut self, commands: &[Activation]) -> Done {
        let folder = self.state_folder()?;
        stage::clear(self.root, &folder)?;
        files::unlink(&folder, NEW_LEDGER)?;
        self.existed = folder.stat(LEDGER)?.is_some();
        self.staging = Staging::open(&folder, self.jobs.iter().filter_map(|job| job.survey.stage.as_ref()))?;
        self.keep_blobs(&folder)?;
        for job in &mut self.jobs {
            job.temp = write_temp(job, &mut self.staging, &mut self.unsynced).map_err(|error| error.about(&job.step.path))?;
        }
        if self.jobs.is_empty() && commands.is_empty() {
            return Ok(()); // only the ledger itself changes: it is closed at once
        }
        self.current = self.ahead()?;
        self.write_ledger(&folder)?;
        self.unsynced.sync()
    }

    /// Makes the ledger that was written ahead the one that counts.
    pub(crate) fn record(&mut self) -> Done {
        let folder = self.state_folder()?;
        if self.jobs.is_empty() && folder.stat(NEW_LEDGER)?.is_none() {
            return Ok(());
        }
        self.recorded = true;
        swap_ledger(&folder)?;
        files::sync_folder(&folder)?;
        if !self.existed
            && let Some(parent) = self.state.parent().map(|parent| self.root.folder(&parent)).transpose()?.flatten()
        {
            files::sync_folder(&parent)?;
        }
        Ok(())
    }

    pub(crate) fn change(&mut self, at: usize) -> Done {
        let job = &mut self.jobs[at];
        let step = job.step;
        if job.survey.whole && self.take_folder(at)? {
            return Ok(());
        }
        let job = &mut self.jobs[at];
        let spot = if matches!(step.act, Act::Remove) {
            match self.root.walk(&step.path, Last::Keep, &mut |_, _, _| {}) {
                Ok(spot) => spot,
                Err(super::root::Stop::Missing { .. }) => {
                    // gone with its folder
                    job.done = !matches!(job.survey.seen, Seen::Absent);
                    self.taken = at + 1;
                    return Ok(());
                }
                Err(super::root::Stop::Failed(error)) => return Err(error),
            }
        } else {
            self.root.place(&step.path, last(step), &mut job.made)?
        };
        for made in &job.made {
            if let Some(parent) = made.parent()
                && let Some(parent) = self.root.folder(&parent)?
            {
                self.unsynced.folder(&parent);
            }
        }
        job.undo = take(job, &spot)?;
        job.done = !matches!(job.undo, Undo::Nothing);
        self.unsynced.folder(&spot.folder);
        match &step.act {
            Act::PutDir { .. } => {
                self.root.forget(&spot.path());
                if matches!(job.survey.seen, Seen::Absent) {
                    job.made.push(spot.path());
                }
            }
            Act::Remove => self.remove_empty(&spot.folder.path)?,
            Act::PutFile { .. } | Act::PutLink { .. } => {}
        }
        self.made.extend(self.jobs[at].made.iter().cloned());
        self.taken = at + 1;
        Ok(())
    }

    /// Takes a folder away with everything in it, which other steps of this run want removed too; whether it could, or
    /// somebody has put something there since.
    fn take_folder(&mut self, at: usize) -> Result<bool, NodeError> {
        let job = &self.jobs[at];
        let (Some(path), Some(temp)) = (job.survey.home.clone(), job.temp.clone()) else { return Ok(false) };
        let Some(home) = self.root.folder(&path)? else { return Ok(false) };
        let in_it = |other: &&Job<'_>| other.survey.home.as_ref() == Some(&path);
        let members: Vec<&Job<'_>> = self.jobs[at..].iter().filter(in_it).collect();
        for name in files::names(&home)? {
            let now = files::look(&home, &name)?;
            let known = members.iter().find(|member| member.step.path.name() == name);
            if !known.is_some_and(|member| member.survey.seen.same(&now)) {
                return Ok(false);
            }
        }
        let (_, parent) = self.root.real_parent(&path, false)?;
        let spot = Spot { folder: parent, name: path.name().to_owned() };
        files::rename((&spot.folder, &spot.name), temp.at()).map_err(|errno| NodeError::of("remove", path.clone(), errno))?;
        self.root.forget(&path);
        self.unsynced.gone(&path);
        self.unsynced.folder(&spot.folder);
        let above = spot.folder.path.clone();
        let job = &mut self.jobs[at];
        job.undo = Undo::Back(spot.path(), temp);
        job.done = true;
        self.gone.insert(path);
        self.taken = at + 1;
        self.remove_empty(&above)?;
        Ok(true)
    }

    /// Folders that we made and that are empty now go, from the inside out.
    fn remove_empty(&mut self, folder: &NodePath) -> Done {
        let mut at = folder.clone();
        while self.old.dirs.contains(&at) || self.plan.dirs.contains(&at) {
            let Some(parent) = at.parent() else { break };
            let Some(open) = self.root.folder(&parent)? else { break };
            if !files::remove_folder(&open, at.name())? {
                break;
            }
            self.root.forget(&at);
            self.unsynced.gone(&at);
            self.unsynced.folder(&open);
            self.gone.insert(at);
            at = parent;
        }
        Ok(())
    }

    /// Brings what was changed so far to the disk; with the last change also the ledger that will close the run.
    pub(crate) fn sync(&mut self) -> Done {
        if self.taken == self.jobs.len() {
            let folder = self.state_folder()?;
            let after = self.final_ledger()?;
            let open = std::mem::replace(&mut self.current, after);
            let written = self.write_ledger(&folder);
            self.current = open;
            written?;
            self.closing = true;
        }
        self.unsynced.sync()
    }

    pub(crate) fn close(&mut self) -> Done {
        let folder = self.state_folder()?;
        let after = self.final_ledger()?;
        self.drop_folders(&after)?;
        if !self.closing {
            self.current = after.clone();
            self.write_ledger(&folder)?;
            self.unsynced.sync()?;
        }
        swap_ledger(&folder)?;
        let needed = after.blobs();
        let unneeded = self.old.blobs().union(&self.seen_blobs()).any(|blob| !needed.contains(blob));
        self.current = after;
        if unneeded {
            // not before the ledger that does not name them any more is on the disk
            files::sync_folder(&folder)?;
            blobs::prune(&folder, &needed)?;
        }
        Ok(())
    }

    /// Folders that we made once and need no more go if they are empty, also where no step of this run has emptied them.
    fn drop_folders(&mut self, after: &Ledger) -> Done {
        for dir in self.old.dirs.iter().rev().filter(|dir| !after.dirs.contains(*dir) && !self.gone.contains(*dir)) {
            if let Some(parent) = dir.parent()
                && let Ok(Some(parent)) = self.root.folder(&parent)
            {
                files::remove_folder(&parent, dir.name())?;
                self.root.forget(dir);
            }
        }
        Ok(())
    }

    pub(crate) fn undo(&mut self, at: usize) -> Done {
        let job = &mut self.jobs[at];
        let undo = std::mem::take(&mut job.undo);
        let made = std::mem::take(&mut job.made);
        let path = job.step.path.clone();
        let failed = |errno| NodeError::of("put back", path.clone(), errno);
        // folders that have gone because they were empty are made again
        let again = |path: &NodePath| self.root.place(path, Last::Keep, &mut Vec::new());
        let touched = match undo {
            Undo::Nothing => None,
            Undo::Remove(path) => {
                let spot = again(&path)?;
                files::unlink(&spot.folder, &spot.name)?;
                Some(spot.folder)
            }
            Undo::Back(path, temp) => {
                self.root.forget(&path);
                let spot = again(&path)?;
                files::rename(temp.at(), (&spot.folder, &spot.name)).map_err(failed)?;
                Some(spot.folder)
            }
            Undo::Swap(path, new, old) => {
                self.root.forget(&path);
                let spot = again(&path)?;
                match old {
                    Some(old) if old.name == new.name => {
                        files::exchange(old.at(), (&spot.folder, &spot.name)).map_err(failed)?;
                    }
                    old => {
                        files::rename((&spot.folder, &spot.name), new.at()).map_err(failed)?;
                        if let Some(old) = old {
                            files::rename(old.at(), (&spot.folder, &spot.name)).map_err(failed)?;
                        }
                    }
                }
                Some(spot.folder)
            }
            Undo::Rewrite => Some(self.rewrite(at)?),
        };
        if let Some(folder) = touched {
            self.unsynced.folder(&folder);
        }
        for made in made.iter().rev() {
            self.root.forget(made);
            if let Some(parent) = made.parent()
                && let Some(parent) = self.root.folder(&parent)?
            {
                files::remove_folder(&parent, made.name())?;
                self.unsynced.gone(made);
                self.unsynced.folder(&parent);
            }
        }
        self.jobs[at].done = false;
        Ok(())
    }

    /// Writes again what was there, where it could not be kept under a temporary name.
    fn rewrite(&mut self, at: usize) -> Result<Arc<Folder>, NodeError> {
        let job = &self.jobs[at];
        let spot = self.root.place(&job.step.path, last(job.step), &mut Vec::new())?;
        let temp = job.survey.stage.as_ref().map(|stage| self.staging.next(stage)).transpose()?;
        let (folder, name) = temp.as_ref().map_or((&*spot.folder, spot.name.as_str()), Temp::at);
        match &self.jobs[at].survey.seen {
            Seen::File(bytes, meta) => self.unsynced.file(&spot.folder, spot.path(), files::create(folder, name, bytes, meta)?),
            Seen::Link(to, meta) => files::link(folder, name, to, meta)?,
            Seen::Absent | Seen::Folder | Seen::Other => {}
        }
        if let Some(temp) = &temp {
            files::rename(temp.at(), (&spot.folder, &spot.name)).map_err(|errno| NodeError::of("put back", spot.path(), errno))?;
        }
        Ok(spot.folder)
    }

    /// The ledger of before counts again.
    pub(crate) fn forget(&mut self) -> Done {
        let folder = self.state_folder()?;
        self.unsynced.folder(&folder);
        if self.recorded && self.existed {
            self.current = self.old.clone();
            files::unlink(&folder, NEW_LEDGER)?;
            self.write_ledger(&folder)?;
            self.unsynced.sync()?;
            swap_ledger(&folder)?;
        } else {
            self.unsynced.sync()?;
            files::unlink(&folder, NEW_LEDGER)?;
            if self.recorded {
                files::unlink(&folder, LEDGER)?;
            }
        }
        self.current = self.old.clone();
        files::sync_folder(&folder)
    }

    /// Removes everything temporary.
    pub(crate) fn clean(&mut self) -> Done {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        files::unlink(&folder, NEW_LEDGER)?;
        stage::clear(self.root, &folder)?;
        if !self.recorded {
            // nothing has begun, so nothing of this run has to be kept
            self.current = self.old.clone();
            blobs::prune(&folder, &self.old.blobs())?;
        }
        Ok(())
    }

    fn state_folder(&mut self) -> Result<Arc<Folder>, NodeError> {
        if let Some(folder) = &self.folder {
            return Ok(Arc::clone(folder));
        }
        let spot = self.root.place(self.state, Last::Follow, &mut Vec::new())?;
        if spot.folder.stat(&spot.name)?.is_none() {
            make_folder_as(&spot.folder, &spot.name, 0o700)?;
        }
        let folder = self.root.folder(self.state)?.ok_or_else(|| NodeError::of("open", self.state.clone(), Errno::ENOENT))?;
        self.folder = Some(Arc::clone(&folder));
        Ok(folder)
    }

    /// Keeps the content of everything that will be replaced or removed, and of every origin that is new.
    fn keep_blobs(&mut self, state: &Folder) -> Done {
        let mut keep: BTreeMap<Digest, Vec<u8>> = BTreeMap::new();
        for job in &self.jobs {
            let inside = job.survey.inside.iter().map(|(_, seen)| seen);
            for seen in std::iter::once(&job.survey.seen).chain(inside) {
                if let Seen::File(bytes, _) = seen {
                    keep.insert(Digest::of(bytes), bytes.clone());
                }
            }
        }
        let known = self.old.blobs();
        for (path, owned) in &self.plan.owned {
            let crate::ledger::Prior::File { blob, .. } = &owned.origin else { continue };
            if known.contains(blob) || keep.contains_key(blob) {
                continue;
            }
            match self.look(path, Last::Keep)? {
                Seen::File(bytes, _) if Digest::of(&bytes) == *blob => {
                    keep.insert(*blob, bytes);
                }
                _ => return Err(NodeError::Blob { path: path.clone(), blob: *blob }),
            }
        }
        if keep.is_empty() {
            return Ok(());
        }
        let blobs = Arc::new(blobs::folder(state)?);
        for (blob, bytes) in keep {
            if let Some((path, file)) = blobs::keep(&blobs, blob, &bytes)? {
                self.unsynced.file(&blobs, path, file);
            }
        }
        self.unsynced.folder(&blobs);
        Ok(())
    }

    fn look(&self, path: &NodePath, last: Last) -> Result<Seen, NodeError> {
        match self.root.walk(path, last, &mut |_, _, _| {}) {
            Ok(spot) => files::look(&spot.folder, &spot.name),
            Err(super::root::Stop::Missing { .. }) => Ok(Seen::Absent),
            Err(super::root::Stop::Failed(error)) => Err(error),
        }
    }

    fn write_ledger(&mut self, folder: &Arc<Folder>) -> Done {
        let file = files::create(folder, NEW_LEDGER, &self.current.to_json(), &blobs::private())?;
        self.unsynced.file(folder, folder.path.join(NEW_LEDGER), file);
        Ok(())
    }

    /// Folders that are ours, now or before.
    fn ours(&self) -> BTreeSet<NodePath> {
        self.old.dirs.union(&self.plan.dirs).cloned().collect()
    }

    /// What the steps leave: path → stamp.
    fn after(&self) -> BTreeMap<NodePath, Stamp> {
        let mut after = BTreeMap::new();
        let plan = self.plan;
        for step in plan.stage.iter().chain(&plan.switch).chain(&plan.retire) {
            match &step.act {
                Act::PutFile { content, meta, .. } => {
                    after.insert(step.path.clone(), self.old.stamp(&content.bytes, meta.mode));
                }
                Act::PutDir { files, .. } => {
                    for (name, (content, mode)) in files {
                        after.insert(step.path.join(name), self.old.stamp(&content.bytes, *mode));
                    }
                }
                Act::Remove => {
                    after.insert(step.path.clone(), Stamp::Absent);
                }
                Act::PutLink { .. } => {}
            }
        }
        after
    }

    /// The ledger that is written before the first change.
    fn ahead(&self) -> Result<Ledger, NodeError> {
        let mut ahead = self.final_ledger()?;
        for (path, owned) in &self.old.owned {
            ahead.owned.entry(path.clone()).or_insert_with(|| owned.clone());
        }
        ahead.dirs.extend(self.ours());
        ahead.dirs.extend(self.jobs.iter().flat_map(|job| job.survey.missing.iter().cloned()));
        let mut before = BTreeMap::new();
        let mut after = self.after();
        for job in &self.jobs {
            let path = &job.step.path;
            if let Act::PutDir { files, .. } = &job.step.act {
                before.extend(files.keys().map(|name| (path.join(name), crate::ledger::Prior::Absent)));
                for (name, seen) in &job.survey.inside {
                    before.extend(seen.prior().map(|prior| (path.join(name), prior)));
                    after.entry(path.join(name)).or_insert(Stamp::Absent);
                }
            } else {
                before.extend(job.survey.seen.prior().map(|prior| (path.clone(), prior)));
            }
        }
        let activations = self.plan.activate.iter().filter_map(in_words).collect();
        ahead.open = Some(Open { before, after, activations });
        Ok(ahead)
    }

    fn seen_blobs(&self) -> BTreeSet<Digest> {
        let seen = self.jobs.iter().flat_map(|job| std::iter::once(&job.survey.seen).chain(job.survey.inside.iter().map(|(_, seen)| seen)));
        seen.filter_map(|seen| if let Seen::File(bytes, _) = seen { Some(Digest::of(bytes)) } else { None }).collect()
    }

    /// The ledger that closes the run.
    fn final_ledger(&self) -> Result<Ledger, NodeError> {
        let after = self.after();
        let mut owned = self.plan.owned.clone();
        for (path, owned) in &mut owned {
            if let Some(stamp) = after.get(path) {
                owned.now = stamp.clone();
            } else if let Some(known) = self.old.owned.get(path) {
                if owned.now == Stamp::Absent {
                    owned.now = known.now.clone();
                }
            } else if let Seen::File(bytes, meta) = self.look(path, Last::Follow)? {
                owned.now = self.old.stamp(&bytes, meta.mode);
            }
        }
        let mut dirs: BTreeSet<NodePath> = self.plan.dirs.union(&self.made).cloned().collect();
        dirs.retain(|dir| !self.gone.contains(dir));
        Ok(Ledger { owned, dirs, open: None, ..self.old.clone() })
    }
}

/// A name for the next ledger becomes the name of the ledger.
fn swap_ledger(folder: &Folder) -> Done {
    files::rename((folder, NEW_LEDGER), (folder, LEDGER)).map_err(|errno| NodeError::of("write", folder.path.join(LEDGER), errno))
}

/// An activation as the ledger remembers it.
fn in_words(one: &Activation) -> Option<String> {
    match &one.how {
        How::Nothing => None,
        How::Refresh(argv) => Some(format!("{} refresh {}", one.who, argv.join(" "))),
        How::Reload(unit) => Some(format!("{} reload {unit}", one.who)),
        How::Restart(unit) => Some(format!("{} restart {unit}", one.who)),
    }
}

/// The new file, folder or link under a temporary name.
fn write_temp(job: &Job<'_>, staging: &mut Staging, unsynced: &mut Unsynced) -> Result<Option<Temp>, NodeError> {
    let Some(stage) = &job.survey.stage else { return Ok(None) };
    let temp = staging.next(stage)?;
    match &job.step.act {
        Act::PutFile { content, meta, .. } => {
            let file = files::create(&temp.folder, &temp.name, &content.bytes, meta)?;
            unsynced.file(&temp.folder, temp.folder.path.join(&temp.name), file);
        }
        Act::PutDir { files, .. } => {
            let mode = job.survey.folder_mode();
            make_folder_as(&temp.folder, &temp.name, mode)?;
            let inner = Arc::new(files::open_child(&temp.folder, &temp.name)?);
            for (name, (content, mode)) in files {
                let before = job.survey.inside.iter().find(|(known, _)| known == name);
                let meta = match before {
                    Some((_, Seen::File(_, meta))) => Meta { mode: *mode, ..meta.clone() },
                    _ => Meta::new(*mode),
                };
                let file = files::create(&inner, name, &content.bytes, &meta)?;
                unsynced.file(&inner, inner.path.join(name), file);
            }
            unsynced.folder(&inner);
        }
        Act::PutLink { to, meta } => files::link(&temp.folder, &temp.name, to, meta)?,
        Act::Remove => return Ok(job.survey.whole.then_some(temp)),
    }
    Ok(Some(temp))
}

/// Makes the change itself, if what is there is still what was there.
fn take(job: &Job<'_>, spot: &Spot) -> Result<Undo, NodeError> {
    let step = job.step;
    let at = (&*spot.folder, spot.name.as_str());
    let failed = |errno| match errno {
        Errno::EEXIST => NodeError::Drift { path: step.path.clone(), found: "something else".to_owned() },
        errno => NodeError::of("replace", spot.path(), errno),
    };
    let is_new = matches!(job.survey.seen, Seen::Absent);
    if !is_new {
        let now = files::look(&spot.folder, &spot.name)?;
        // gone already, with the folder that was exchanged
        if matches!((&step.act, &now), (Act::Remove, Seen::Absent)) {
            return Ok(Undo::Nothing);
        }
        if !job.survey.seen.same(&now) {
            return Err(drift(step, &now));
        }
    }
    match (&step.act, &job.temp) {
        (Act::Remove, _) => {
            files::unlink(&spot.folder, &spot.name)?;
            Ok(if is_new { Undo::Nothing } else { Undo::Rewrite })
        }
        (Act::PutLink { to, meta }, None) => {
            files::link(&spot.folder, &spot.name, to, meta)?;
            Ok(Undo::Remove(spot.path()))
        }
        (Act::PutFile { .. } | Act::PutLink { .. }, Some(temp)) if is_new => {
            files::rename_new(temp.at(), at).map_err(failed)?;
            Ok(Undo::Remove(spot.path()))
        }
        (Act::PutFile { .. } | Act::PutLink { .. }, Some(temp)) => {
            if files::exchange(temp.at(), at).map_err(failed)?.is_some() {
                return Ok(Undo::Back(spot.path(), temp.clone()));
            }
            files::rename(temp.at(), at).map_err(failed)?;
            Ok(Undo::Rewrite)
        }
        (Act::PutDir { .. }, Some(temp)) if is_new => {
            files::rename_new(temp.at(), at).map_err(failed)?;
            Ok(Undo::Swap(spot.path(), temp.clone(), None))
        }
        (Act::PutDir { .. }, Some(temp)) => {
            job.survey.still_inside(step, &spot.folder, &spot.name)?;
            if files::exchange(temp.at(), at).map_err(failed)?.is_some() {
                return Ok(Undo::Swap(spot.path(), temp.clone(), Some(temp.clone())));
            }
            let old = Temp { folder: Arc::clone(&temp.folder), name: format!("{}.old", temp.name) };
            files::rename(at, old.at()).map_err(failed)?;
            if let Err(errno) = files::rename_new(temp.at(), at) {
                files::rename(old.at(), at).map_err(failed)?;
                return Err(failed(errno));
            }
            Ok(Undo::Swap(spot.path(), temp.clone(), Some(old)))
        }
        (Act::PutFile { .. } | Act::PutDir { .. }, None) => Err(failed(Errno::ENOENT)),
    }
}
