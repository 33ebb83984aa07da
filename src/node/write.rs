//! Performs the actions of a transaction: what is to be done next is decided in `apply/`.

mod change;
mod record;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nix::errno::Errno;

use super::blobs;
use super::error::NodeError;
use super::files;
use super::probe::now;
use super::root::{Folder, Last, Root, make_folder_as};
use super::stage::{self, Staging, Unsynced};
use super::survey::Surveyor;
use crate::desired::Target;
use crate::ledger::{Due, Ledger};
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::plan::turn::Turn;
use crate::plan::{Activation, Plan, Step};

/// The ledger in the state folder.
const LEDGER: &str = "ledger.json";
/// The next one, until it is whole and durable.
const NEW_LEDGER: &str = "ledger.json.new";

use change::{Job, Undo, write_temp};
use record::swap_ledger;
pub(crate) use record::{load_ledger, sweep, tidy};

type Done = Result<(), NodeError>;

/// What performs a plan.
#[derive(Debug)]
pub struct Hands<'a> {
    root: &'a Root,
    state: &'a NodePath,
    plan: &'a Plan,
    /// The ledger before this run.
    old: Arc<Ledger>,
    /// The ledger that is on the disk.
    current: Arc<Ledger>,
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
    /// When the last change was made; until then, when the run began.
    when: Time,
    /// Commands that could not be run.
    left: Vec<Activation>,
    /// Whose commands were run.
    ran: BTreeSet<Target>,
    /// Units that have read everything, and since when.
    turned: BTreeMap<String, Time>,
    /// When the unit was begun that is being turned.
    begun: Time,
    /// What units did not come to read again on the way back.
    lost: Vec<Activation>,
}

impl<'a> Hands<'a> {
    pub(crate) fn new(root: &'a Root, state: &'a NodePath, plan: &'a Plan, ledger: Arc<Ledger>) -> Self {
        Self {
            root,
            state,
            plan,
            current: Arc::clone(&ledger),
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
            when: now(),
            left: Vec::new(),
            ran: BTreeSet::new(),
            turned: BTreeMap::new(),
            begun: Time::default(),
            lost: Vec::new(),
        }
    }

    pub(crate) fn into_ledger(self) -> Arc<Ledger> {
        self.current
    }

    /// The ledger that is on the disk.
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.current
    }

    pub(crate) fn step(&self, at: usize) -> &'a Step {
        self.jobs[at].step
    }

    /// The paths of the changes that were made.
    pub(crate) fn changed(&self) -> Vec<NodePath> {
        self.jobs.iter().filter(|job| job.done).map(|job| job.step.path.clone()).collect()
    }

    pub(crate) fn preflight(&mut self) -> Done {
        let plan = self.plan;
        let mut surveyor = Surveyor::new(self.root, &self.old);
        for step in plan.stage.iter().chain(&plan.switch).chain(&plan.retire) {
            let survey = surveyor.step(step)?;
            self.jobs.push(Job { step, survey, temp: None, made: Vec::new(), undo: Undo::Nothing, done: false });
        }
        for folder in &plan.written {
            surveyor.command_writes(folder)?;
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
        if self.jobs.is_empty() && commands.is_empty() && self.plan.turns.is_empty() {
            return Ok(()); // only the ledger itself changes: it is closed at once
        }
        self.current = Arc::new(self.ahead()?);
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

    /// Brings what was changed so far to the disk; with the last change also the ledger that will close the run.
    pub(crate) fn sync(&mut self) -> Done {
        if self.taken == self.jobs.len() {
            self.when = now();
            let folder = self.state_folder()?;
            let after = self.final_ledger()?;
            let open = std::mem::replace(&mut self.current, Arc::new(after));
            let written = self.write_ledger(&folder);
            self.current = open;
            written?;
            self.closing = true;
        }
        self.unsynced.sync()
    }

    /// Remembers a command that could not be run.
    pub(crate) fn leave(&mut self, one: &Activation) {
        self.left.push(one.clone());
        self.closing = false;
    }

    /// Remembers that a command was run.
    pub(crate) fn ran(&mut self, one: &Activation) {
        self.closing &= self.plan.due.iter().all(|due| due.what.who != one.who);
        self.ran.insert(one.who.clone());
    }

    /// A unit is about to read everything: what is written from now on it may not have seen.
    pub(crate) fn turns(&mut self) {
        self.begun = now();
    }

    /// Remembers that a unit has read everything: nothing is due for it any more.
    pub(crate) fn turned(&mut self, unit: &str) {
        self.turned.insert(unit.to_owned(), self.begun);
        self.closing = false;
    }

    /// Remembers that a unit could not be turned on the way back: as long as its process goes on, it goes on with what was taken back.
    pub(crate) fn lost(&mut self, turn: &Turn) {
        self.lost.extend(turn.serves.iter().cloned());
    }

    /// Writes only that what was due is due no more, where nothing else is to be written.
    pub(crate) fn settle(&mut self) -> Done {
        if self.stays() {
            return Ok(());
        }
        let after = self.final_ledger()?;
        if self.says_the_same(&after) {
            return Ok(());
        }
        let folder = self.state_folder()?;
        files::unlink(&folder, NEW_LEDGER)?;
        self.current = Arc::new(after);
        self.write_ledger(&folder)?;
        self.unsynced.sync()?;
        swap_ledger(&folder)
    }

    pub(crate) fn close(&mut self) -> Done {
        let folder = self.state_folder()?;
        self.drop_folders(&self.final_ledger()?)?;
        let after = Arc::new(self.final_ledger()?);
        if !self.closing {
            files::unlink(&folder, NEW_LEDGER)?;
            self.current = Arc::clone(&after);
            self.write_ledger(&folder)?;
            self.unsynced.sync()?;
        }
        swap_ledger(&folder)?;
        // also where nothing else was to be written: what the new ledger names has to be kept
        self.recorded = true;
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

    /// The ledger of before counts again.
    pub(crate) fn forget(&mut self) -> Done {
        let folder = self.state_folder()?;
        self.unsynced.folder(&folder);
        let before = self.before();
        if self.recorded && (self.existed || before != self.old) {
            self.current = Arc::clone(&before);
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
        self.current = before;
        files::sync_folder(&folder)
    }

    /// The ledger of before, and what is due since the way back.
    fn before(&self) -> Arc<Ledger> {
        if self.lost.is_empty() {
            return Arc::clone(&self.old);
        }
        let mut before = Ledger::clone(&self.old);
        let known: Vec<Activation> = before.due.iter().map(|due| due.what.clone()).collect();
        let new = self.lost.iter().filter(|one| !known.contains(one));
        before.due.extend(new.map(|one| Due { what: one.clone(), since: now() }));
        Arc::new(before)
    }

    /// Removes everything temporary.
    pub(crate) fn clean(&mut self) -> Done {
        let Some(folder) = self.folder.clone() else { return Ok(()) };
        files::unlink(&folder, NEW_LEDGER)?;
        stage::clear(self.root, &folder)?;
        if !self.recorded {
            // nothing has begun, so nothing of this run has to be kept
            self.current = Arc::clone(&self.old);
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
}
