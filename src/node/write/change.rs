//! One change of one path, and the way back.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use nix::errno::Errno;

use super::{Done, Hands};
use crate::model::path::NodePath;
use crate::model::tree::Meta;
use crate::node::error::NodeError;
use crate::node::files::{self, Seen};
use crate::node::meta;
use crate::node::root::{Folder, Last, Spot, Stop, make_folder_as};
use crate::node::stage::{Staging, Temp, Unsynced};
use crate::node::survey::{Survey, drift, last};
use crate::plan::{Act, Step};

/// How a change is taken back; by real paths, because an open folder for each step would be too many.
#[derive(Debug, Default)]
pub(super) enum Undo {
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
pub(super) struct Job<'a> {
    pub step: &'a Step,
    pub survey: Survey,
    pub temp: Option<Temp>,
    pub made: Vec<NodePath>,
    pub undo: Undo,
    pub done: bool,
}

impl Hands<'_> {
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
                Err(Stop::Missing { .. }) => {
                    // gone with its folder
                    job.done = !matches!(job.survey.seen, Seen::Absent);
                    self.taken = at + 1;
                    return Ok(());
                }
                Err(Stop::Failed(error)) => return Err(error),
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
    pub(super) fn take_folder(&mut self, at: usize) -> Result<bool, NodeError> {
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
    pub(super) fn remove_empty(&mut self, folder: &NodePath) -> Done {
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
    pub(super) fn rewrite(&mut self, at: usize) -> Result<Arc<Folder>, NodeError> {
        let job = &self.jobs[at];
        let spot = self.root.place(&job.step.path, last(job.step), &mut Vec::new())?;
        let temp = job.survey.stage.as_ref().map(|stage| self.staging.next(stage)).transpose()?;
        let (folder, name) = temp.as_ref().map_or((&*spot.folder, spot.name.as_str()), Temp::at);
        match &self.jobs[at].survey.seen {
            Seen::File(bytes, meta) => {
                let file = files::create(folder, name, bytes, meta)?;
                // who has read it before has read it: a younger file would look like one that nobody has read yet
                let age = u64::try_from(meta.mtime.0).map(|millis| UNIX_EPOCH + Duration::from_millis(millis));
                let _ = age.map(|age| file.set_modified(age));
                self.unsynced.file(&spot.folder, spot.path(), file);
            }
            Seen::Link(to, meta) => files::link(folder, name, to, meta)?,
            Seen::Absent | Seen::Folder | Seen::Other => {}
        }
        if let Some(temp) = &temp {
            files::rename(temp.at(), (&spot.folder, &spot.name)).map_err(|errno| NodeError::of("put back", spot.path(), errno))?;
        }
        Ok(spot.folder)
    }
}

/// The new file, folder or link under a temporary name.
pub(super) fn write_temp(job: &Job<'_>, staging: &mut Staging, unsynced: &mut Unsynced) -> Result<Option<Temp>, NodeError> {
    let Some(stage) = &job.survey.stage else { return Ok(None) };
    let temp = staging.next(stage)?;
    match &job.step.act {
        Act::PutFile { content, meta, .. } => {
            let label = job.survey.label.as_ref().filter(|_| !matches!(job.survey.seen, Seen::File(..)));
            let file = files::create(&temp.folder, &temp.name, &content.bytes, &meta::labelled(meta, label))?;
            unsynced.file(&temp.folder, temp.folder.path.join(&temp.name), file);
        }
        Act::PutDir { files, .. } => {
            let mode = job.survey.folder_mode();
            make_folder_as(&temp.folder, &temp.name, mode)?;
            let inner = Arc::new(files::open_child(&temp.folder, &temp.name)?);
            if job.survey.label.is_some() {
                let folder = std::fs::File::from(inner.readable()?);
                meta::set_xattrs(&folder, &meta::labelled(&Meta::default(), job.survey.label.as_ref()).xattrs);
            }
            for (name, (content, mode)) in files {
                let before = job.survey.inside.iter().find(|(known, _)| known == name);
                let plain = match before {
                    Some((_, Seen::File(_, meta))) => Meta { mode: *mode, ..meta.clone() },
                    _ => Meta::new(*mode),
                };
                let meta = meta::labelled(&plain, job.survey.label.as_ref());
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
