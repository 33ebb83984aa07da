//! The ledger of one run: what it says before the first change and after the last, and the copies of what was there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::{Done, Hands, LEDGER, NEW_LEDGER};
use crate::desired::Target;
use crate::format::KeyEdit;
use crate::ledger::{Due, Ledger, LedgerError, Open, Owns, Prior, Stamp, Was};
use crate::model::digest::Digest;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::node::error::NodeError;
use crate::node::files::{self, Seen};
use crate::node::root::{Folder, Last, Root, Stop};
use crate::node::{blobs, guardian, stage};
use crate::plan::turn::Turning;
use crate::plan::{Act, Activation, How, Plan};

/// Reads the ledger; `None` when there is none.
pub(crate) fn load_ledger(root: &Root, state: &NodePath) -> Result<Option<Ledger>, NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(None) };
    let path = state.join(LEDGER);
    match files::look(&folder, LEDGER)? {
        Seen::Absent => Ok(None),
        Seen::File(bytes, _) => Ok(Some(Ledger::from_json(&path, &bytes)?)),
        other => Err(LedgerError::Malformed { path, why: format!("{} stands there", other.describe()) }.into()),
    }
}

/// Removes what a killed run left behind.
pub(crate) fn tidy(root: &Root, state: &NodePath) -> Result<bool, NodeError> {
    let Some(folder) = root.folder(state)? else { return Ok(false) };
    let new = files::unlink(&folder, NEW_LEDGER)?;
    guardian::clear(root, state)?;
    let staged = stage::clear(root, &folder)?;
    if staged {
        let needed = load_ledger(root, state)?.map(|ledger| ledger.blobs()).unwrap_or_default();
        blobs::prune(&folder, &needed)?;
    }
    Ok(staged || new)
}

/// Removes the blobs that `ledger` does not name: they may hold secrets, and nothing needs them.
pub(crate) fn sweep(root: &Root, state: &NodePath, ledger: &Ledger) -> Done {
    let Some(folder) = root.folder(state)? else { return Ok(()) };
    blobs::prune(&folder, &ledger.blobs())
}

impl Hands<'_> {
    /// Keeps the content of everything that will be replaced or removed, and of every origin that is new.
    pub(super) fn keep_blobs(&mut self, state: &Folder) -> Done {
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
            let Prior::File { blob, .. } = &owned.origin else { continue };
            if known.contains(blob) || keep.contains_key(blob) {
                continue;
            }
            // a file that is partly ours may stand behind a link
            let last = if owned.format.is_some() { Last::Follow } else { Last::Keep };
            match self.look(path, last)? {
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

    pub(super) fn look(&self, path: &NodePath, last: Last) -> Result<Seen, NodeError> {
        match self.root.walk(path, last, &mut |_, _, _| {}) {
            Ok(spot) => files::look(&spot.folder, &spot.name),
            Err(Stop::Missing { .. }) => Ok(Seen::Absent),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    pub(super) fn write_ledger(&mut self, folder: &Arc<Folder>) -> Done {
        let file = files::create(folder, NEW_LEDGER, &self.current.to_json(), &blobs::private())?;
        self.unsynced.file(folder, folder.path.join(NEW_LEDGER), file);
        Ok(())
    }

    /// Folders that are ours, now or before.
    pub(super) fn ours(&self) -> BTreeSet<NodePath> {
        self.old.dirs.union(&self.plan.dirs).cloned().gathered()
    }

    /// What the steps leave: path → stamp.
    pub(super) fn after(&self) -> BTreeMap<NodePath, Stamp> {
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

    /// What stands at a path, as the ledger would say that we left it.
    fn standing(&self, seen: &Seen) -> Option<Stamp> {
        match seen {
            Seen::Absent => Some(Stamp::Absent),
            Seen::File(bytes, meta) => Some(self.old.stamp(bytes, meta.mode)),
            Seen::Link(..) | Seen::Folder | Seen::Other => None,
        }
    }

    /// The ledger that is written before the first change.
    pub(super) fn ahead(&self) -> Result<Ledger, NodeError> {
        let mut ahead = self.final_ledger()?;
        for (path, owned) in &self.old.owned {
            let entry = ahead.owned.entry(path.clone()).or_insert_with(|| Arc::clone(owned));
            // until the file is written, it holds the keys of before
            let gone = |old: &&KeyEdit| !entry.keys.iter().any(|new| new.key == old.key && new.to == old.to);
            let gone: Vec<KeyEdit> = owned.keys.iter().filter(gone).cloned().collect();
            if !gone.is_empty() {
                Arc::make_mut(entry).keys.extend(gone);
            }
        }
        ahead.dirs.extend(self.ours());
        ahead.dirs.extend(self.jobs.iter().flat_map(|job| job.survey.missing.iter().cloned()));
        let (mut before, mut standing) = (BTreeMap::new(), BTreeMap::new());
        let mut after = self.after();
        for job in &self.jobs {
            let path = &job.step.path;
            if let Act::PutDir { files, .. } = &job.step.act {
                before.extend(files.keys().map(|name| (path.join(name), Prior::Absent)));
                for (name, seen) in &job.survey.inside {
                    standing.extend(self.standing(seen).map(|stamp| (path.join(name), stamp)));
                    before.extend(seen.prior().map(|prior| (path.join(name), prior)));
                    after.entry(path.join(name)).or_insert(Stamp::Absent);
                }
            } else {
                standing.extend(self.standing(&job.survey.seen).map(|stamp| (path.clone(), stamp)));
                before.extend(job.survey.seen.prior().map(|prior| (path.clone(), prior)));
            }
        }
        let mut activations: Vec<Activation> = self.plan.activate.iter().filter(|one| one.how != How::Nothing).cloned().collect();
        // what an earlier run came to turn and not to prove stays to be proved
        for one in self.plan.turns.iter().flat_map(|turn| &turn.serves) {
            if !activations.contains(one) {
                activations.push(one.clone());
            }
        }
        ahead.due.clone_from(&self.plan.due);
        let (mut began, mut between) = (self.when, BTreeMap::<NodePath, BTreeSet<Stamp>>::new());
        let mut was = Was { spec: self.old.spec.clone(), adopted: self.old.adopted.clone() };
        if let Some(open) = &self.old.open {
            // what stands there because of a run that was cut off is no state to go back to: what was there before that one is
            for (path, prior) in &open.before {
                let Some(stamp) = standing.get(path) else { continue };
                let known = open.after.get(path) == Some(stamp) || open.between.get(path).is_some_and(|stamps| stamps.contains(stamp));
                if known || before.get(path).is_some_and(|own| own.is_same(prior)) {
                    before.insert(path.clone(), prior.clone());
                }
            }
            // and so is the rest of it, as far as this run leaves that as it is
            let left = |path: &NodePath| !before.contains_key(path) && !after.contains_key(path);
            let earlier: Vec<_> =
                open.before.iter().filter(|(path, _)| left(path)).map(|(path, prior)| (path.clone(), prior.clone())).collect();
            let stamps: Vec<_> =
                open.after.iter().filter(|(path, _)| left(path)).map(|(path, stamp)| (path.clone(), stamp.clone())).collect();
            between.clone_from(&open.between);
            for (path, stamp) in open.after.iter().filter(|(path, _)| !left(path)) {
                between.entry(path.clone()).or_default().insert(stamp.clone());
            }
            before.extend(earlier);
            after.extend(stamps);
            was = open.was.clone().unwrap_or(was);
            // what was turned since that one began has read what this one only proves
            if self.plan.turns.iter().all(|turn| turn.turning == Turning::Prove) && !self.plan.turns.is_empty() {
                began = open.began;
            }
        }
        let attempt = Some(&self.plan.attempt).filter(|attempt| !attempt.units.is_empty()).cloned();
        let mut open = Open { before, after, between, activations, began, asked: self.plan.asked.clone(), attempt, was: Some(was) };
        self.not_read(&standing, &mut open);
        ahead.open = Some(open);
        Ok(ahead)
    }

    /// Adds what the daemons that are turned have not read since finished runs changed it: what they run with is what is gone back to.
    fn not_read(&self, standing: &BTreeMap<NodePath, Stamp>, open: &mut Open) {
        let mut unread = BTreeMap::new();
        for (path, prior, owned) in self.old.unread_of(|target| self.plan.turns.iter().any(|turn| turn.serves(target))) {
            if !open.before.contains_key(path) && !open.after.contains_key(path) {
                open.after.insert(path.clone(), owned.now.clone());
            } else if standing.get(path) == Some(&owned.now) {
                // it stands there until the step is done, and is ours
                open.between.entry(path.clone()).or_default().insert(owned.now.clone());
            } else {
                continue;
            }
            unread.insert(path.clone(), prior.clone());
        }
        if let Some(was) = open.was.as_mut().filter(|_| !unread.is_empty()) {
            self.old.adopted_before(&mut was.adopted, &unread);
            open.before.append(&mut unread);
        }
    }

    /// What the daemons run with that have not come to read what was changed.
    fn unread(&self, owned: &Owns, due: &[Due]) -> BTreeMap<NodePath, Prior> {
        let waits = |target: &Target| due.iter().any(|due| due.what.who == *target && !matches!(due.what.how, How::Refresh(_)));
        let is_drifted = |path: &NodePath| {
            let job = self.jobs.iter().find(|job| job.step.path == *path);
            job.is_some_and(|job| self.standing(&job.survey.seen) != self.old.owned.get(path).map(|owned| owned.now.clone()))
        };
        let runs_with = |path: &NodePath| {
            let known = self.old.unread.get(path).filter(|_| !is_drifted(path));
            known.or_else(|| self.current.open.as_ref()?.before.get(path))
        };
        let paths = self.old.unread.keys().chain(&self.plan.late);
        let paths = paths.filter(|path| owned.get(*path).is_some_and(|owned| waits(&owned.target)));
        paths.filter_map(|path| Some((path.clone(), runs_with(path)?.clone()))).gathered()
    }

    pub(super) fn seen_blobs(&self) -> BTreeSet<Digest> {
        let seen = self.jobs.iter().flat_map(|job| std::iter::once(&job.survey.seen).chain(job.survey.inside.iter().map(|(_, seen)| seen)));
        seen.filter_map(|seen| if let Seen::File(bytes, _) = seen { Some(Digest::of(bytes)) } else { None }).gathered()
    }

    /// Whether the ledger would be the same after a run without steps.
    pub(crate) fn ledger_is_final(&self) -> bool {
        self.old.open.is_none()
            && self.old.spec == self.plan.spec
            && self.old.dirs == self.plan.dirs
            && self.plan.owned.len() == self.old.owned.len()
            // without steps, equal entries stay as they are
            && (self.without_steps() && self.plan.owned == self.old.owned || self.final_ledger().is_ok_and(|ledger| self.says_the_same(&ledger)))
    }

    /// Whether there is nothing new to write down. What a proof rests on is no reason to write: it is only remembered along.
    pub(super) fn says_the_same(&self, ledger: &Ledger) -> bool {
        let Ledger { version, spec, key, owned, dirs, due, reloaded, adopted, proved: _, unread, open } = ledger;
        let old = &self.old;
        (*version, spec, key) == (old.version, &old.spec, &old.key)
            && (owned, dirs, due, reloaded) == (&old.owned, &old.dirs, &old.due, &old.reloaded)
            && (adopted, unread, open) == (&old.adopted, &old.unread, &old.open)
    }

    /// Whether a run without steps and commands leaves the ledger as it is: the same as comparing it with the final one, which
    /// need not be made then.
    pub(super) fn stays(&self) -> bool {
        let (old, plan) = (&self.old, self.plan);
        let idle = self.without_steps() && plan.activate.is_empty() && self.ran.is_empty() && self.left.is_empty();
        idle && old.open.is_none()
            && (&old.spec, &old.dirs, &old.due, &old.adopted) == (&plan.spec, &plan.dirs, &plan.due, &plan.adopted)
            && old.owned == plan.owned
            && without_any(&old.owned, &old.dirs).is_empty()
    }

    fn without_steps(&self) -> bool {
        let Plan { stage, switch, retire, .. } = self.plan;
        stage.is_empty() && switch.is_empty() && retire.is_empty()
    }

    /// The ledger that closes the run.
    pub(super) fn final_ledger(&self) -> Result<Ledger, NodeError> {
        let after = self.after();
        let mut owned = self.plan.owned.clone();
        for (path, owned) in &mut owned {
            if let Some(stamp) = after.get(path) {
                Arc::make_mut(owned).now = stamp.clone();
            } else if let Some(known) = self.old.owned.get(path) {
                if owned.now == Stamp::Absent {
                    Arc::make_mut(owned).now = known.now.clone();
                }
            } else if let Seen::File(bytes, meta) = self.look(path, Last::Follow)? {
                Arc::make_mut(owned).now = self.old.stamp(&bytes, meta.mode);
            }
        }
        let mut dirs: BTreeSet<NodePath> = self.plan.dirs.union(&self.made).cloned().gathered();
        dirs.retain(|dir| !self.gone.contains(dir));
        let mut empty = BTreeSet::new();
        for dir in without_any(&owned, &dirs).into_iter().rev() {
            if self.is_empty(dir, &empty)? {
                empty.insert(dir.clone());
            }
        }
        dirs.retain(|dir| !empty.contains(dir));
        // units, and commands that could not be run; what was due before this run keeps its time
        let is_command = |one: &Activation| matches!(one.how, How::Refresh(_));
        let is_turned = |one: &Activation| one.how.unit().is_some_and(|unit| self.turned.contains_key(unit));
        let units = self.plan.activate.iter().filter(|one| one.how.unit().is_some() && !is_turned(one));
        let known = |one: &Activation| {
            self.plan.due.iter().any(|due| due.what == *one || due.what.who == one.who && is_command(one) && is_command(&due.what))
        };
        let new = units.chain(&self.left).filter(|one| !known(one)).map(|one| Due { what: one.clone(), since: self.when });
        let is_done = |what: &Activation| is_turned(what) || is_command(what) && self.ran.contains(&what.who);
        let kept = self.plan.due.iter().filter(|due| !is_done(&due.what));
        let due: Vec<Due> = kept.cloned().chain(new).collect();
        let reloads = self.plan.turns.iter().filter(|turn| turn.turning == Turning::Reload && self.turned.contains_key(&turn.unit));
        let reloads = reloads.filter_map(|turn| Some((turn.unit.clone(), *self.turned.get(&turn.unit)?)));
        let reloaded = self.old.reloaded.clone().into_iter().chain(reloads).filter(|_| !owned.is_empty()).collect();
        let unread = self.unread(&owned, &due);
        Ok(Ledger {
            version: self.old.version,
            spec: self.plan.spec.clone(),
            key: self.old.key,
            owned,
            dirs,
            due,
            reloaded,
            adopted: self.plan.adopted.clone(),
            proved: self.plan.proved.clone(),
            unread,
            open: None,
        })
    }

    /// Whether nothing is in a folder but `empty` ones. A folder of ours from which somebody took our file is of no use any
    /// more, and a registry's empty folder still decides what is pulled.
    fn is_empty(&self, dir: &NodePath, empty: &BTreeSet<NodePath>) -> Result<bool, NodeError> {
        match self.root.folder(dir) {
            Ok(Some(folder)) => Ok(files::names(&folder)?.iter().all(|name| empty.contains(&dir.join(name)))),
            Ok(None) => Ok(true),
            Err(_) => Ok(false),
        }
    }

    /// Folders that we made once and need no more go if they are empty, also where no step of this run has emptied them: a run
    /// that was cut off may have come as far as their last file.
    pub(super) fn drop_folders(&mut self, after: &Ledger) -> Done {
        let again = self.old.open.is_some();
        let candidates = self.old.dirs.iter().rev().filter(|dir| (again || !after.dirs.contains(*dir)) && !self.gone.contains(*dir));
        let mut gone = Vec::new();
        for dir in candidates {
            if let Some(parent) = dir.parent()
                && let Ok(Some(parent)) = self.root.folder(&parent)
                && files::remove_folder(&parent, dir.name())?
            {
                self.root.forget(dir);
                self.unsynced.gone(dir);
                gone.push(dir.clone());
            }
        }
        // the ledger that is about to count may still name them
        self.closing &= gone.iter().all(|dir| !after.dirs.contains(dir));
        self.gone.extend(gone);
        Ok(())
    }
}

/// The folders below which none of our paths lies. Both are gone through side by side.
fn without_any<'a>(owned: &Owns, dirs: &'a BTreeSet<NodePath>) -> Vec<&'a NodePath> {
    let mut paths = owned.keys().peekable();
    let holds_none = |dir: &&NodePath| {
        while paths.next_if(|path| path < dir).is_some() {}
        // what only begins like it may come first (`a`, `a-b`, `a/x`)
        !paths.clone().take_while(|path| path.as_str().starts_with(dir.as_str())).any(|path| path.is_below(dir))
    };
    dirs.iter().filter(holds_none).collect()
}

/// A name for the next ledger becomes the name of the ledger.
pub(super) fn swap_ledger(folder: &Folder) -> Done {
    files::rename((folder, NEW_LEDGER), (folder, LEDGER)).map_err(|errno| NodeError::of("write", folder.path.join(LEDGER), errno))
}
