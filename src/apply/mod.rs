//! The transaction: from a plan to a changed node, or back to what was there.
//!
//! What lives here: the order of things ([`transaction`]), which is pure, and the loop that lets `node/` do them. What must
//! not: effects of its own, decisions about what the node should hold.

mod canary;
mod error;
pub mod health;
pub mod memory;
pub mod transaction;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::ledger::Ledger;
use crate::model::cri::CriError;
use crate::model::path::NodePath;
use crate::node::command::{CommandError, Output};
use crate::node::error::{Class, NodeError};
use crate::node::root::Root;
use crate::node::write::Hands;
use crate::plan::canary::Canary;
use crate::plan::turn::Turn;
use crate::plan::{Activation, How, Plan, Step};

use canary::Canaries;
pub use error::{ApplyError, GuardError, UnitError};
use health::Look;
use transaction::{Action, Event, Shape, State, Verdict, next};
use watch::Watch;

/// The door to what a test must be able to script.
pub trait Door {
    /// Sees to it that a run of this plan comes to its end when it is killed; called before the first byte of one that turns
    /// units. Nobody does so unless it says otherwise.
    ///
    /// # Errors
    /// When nobody would: then nothing is changed.
    fn guard(&mut self, _: &Plan) -> Result<(), GuardError> {
        Ok(())
    }

    /// Runs a tool of the node.
    ///
    /// # Errors
    /// When it did not run to its end.
    fn run(&mut self, argv: &[String]) -> Result<Output, CommandError>;

    /// What can be seen of the daemon of a unit now.
    fn look(&mut self, turn: &Turn) -> Look;

    /// Reloads or restarts a unit and waits for the end of that. One that does not run stays so, unless it is the way `back`:
    /// then it ran when the run began.
    ///
    /// # Errors
    /// When it did not come to its end, or ended badly.
    fn turn(&mut self, turn: &Turn, back: bool) -> Result<(), UnitError>;

    /// Looks again and again until it was `enough`, or it takes too long; gives what was seen last. `enough` hears how long it
    /// has taken so far.
    fn watch(&mut self, turn: &Turn, enough: impl FnMut(&Look, Duration) -> bool) -> Look;

    /// Lets a runtime pull the canary.
    ///
    /// # Errors
    /// What the runtime says, or that it does not answer.
    fn pull(&mut self, canary: &Canary) -> Result<(), CriError>;
}

/// What a run reports while it goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Everything can be done; it is being written where nobody looks yet.
    Staging,
    /// A step has been taken.
    Changed(&'a Step),
    /// A command is run.
    Activating(&'a Activation),
    /// A unit is reloaded or restarted.
    Turning(&'a Turn),
    /// It is waited until its daemon is well.
    Proving(&'a Turn),
    /// A runtime pulls the canary.
    Pulling(&'a Canary),
    /// Everything is done; this is the ledger that is still open and about to be closed.
    Closing(&'a Ledger),
    /// Something failed; what was changed is being put back.
    RollingBack,
}

/// Something to tell of a unit or a runtime that is no failure of the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// It was not well before, and is not now.
    StillUnwell {
        /// Which.
        unit: String,
        /// What is seen.
        why: String,
    },
    /// Shims of containers were gone after its restart.
    ShimsGone {
        /// Which unit.
        unit: String,
        /// How many.
        count: usize,
    },
    /// Somebody has stopped it since the run began.
    Stopped {
        /// Which unit.
        unit: String,
    },
    /// The canary was not pulled before, and is not now.
    CanaryFails {
        /// Which runtime.
        runtime: String,
        /// The image.
        image: String,
        /// Why now.
        why: String,
        /// Why before.
        earlier: String,
    },
    /// The canary is not pulled with the files of before either, although it was before the run.
    CanaryLost {
        /// Which runtime.
        runtime: String,
        /// The image.
        image: String,
        /// Why.
        why: String,
    },
}

/// How a run ended.
#[derive(Debug)]
pub enum End {
    /// Nothing was to be done, and nothing was written.
    Unchanged,
    /// Everything is as planned.
    Applied,
    /// Nothing was changed, for this reason.
    Refused(ApplyError),
    /// It failed and everything is as it was before the run.
    RolledBack(ApplyError),
    /// It failed, and what was changed stays: with what was there before a daemon would not come up either.
    Stayed {
        /// What failed first.
        why: ApplyError,
        /// Units that are not well, and why.
        unwell: Vec<(String, String)>,
        /// Units whose daemons would not come up, and why.
        dead_ends: BTreeMap<String, String>,
    },
    /// It failed, and so did the way back.
    RollbackFailed {
        /// What failed first.
        why: ApplyError,
        /// Paths that are not as before, with the reason.
        by_hand: Vec<(NodePath, NodeError)>,
        /// Units that are not well, and why.
        unwell: Vec<(String, String)>,
    },
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The paths that are not as before the run.
    pub changed: Vec<NodePath>,
    /// Activations that are left to whoever asked: units that are not in the plan's turns, and commands that cannot be run in
    /// this root.
    pub due: Vec<Activation>,
    /// The units that were turned and are well.
    pub turned: Vec<String>,
    /// What is to be told of units and of the canary.
    pub remarks: Vec<Remark>,
    /// The ledger as it is on the node now.
    pub ledger: Arc<Ledger>,
}

impl Outcome {
    /// What it means for the exit code; `None` when all is well.
    #[must_use]
    pub fn class(&self) -> Option<Class> {
        match &self.end {
            End::Unchanged | End::Applied => None,
            End::Refused(ApplyError::Node(error)) => Some(error.class()),
            End::Refused(_) => Some(Class::Node),
            End::RolledBack(_) => Some(Class::RolledBack),
            End::Stayed { .. } | End::RollbackFailed { .. } => Some(Class::NotRolledBack),
        }
    }
}

/// The ledger in the state folder; `None` when there is none. A run that was killed may have left temporary folders: they
/// are removed by [`tidy`], under the lock, before anything is read.
///
/// # Errors
/// When it cannot be read, is malformed or comes from a later nodeprep. Nothing may be changed on the node then.
pub fn load_ledger(root: &Root, state: &NodePath) -> Result<Option<Ledger>, NodeError> {
    crate::node::write::load_ledger(root, state)
}

/// Removes what a killed run left behind. Call it under the lock and before reading the node.
///
/// # Errors
/// When something of it cannot be removed.
pub fn tidy(root: &Root, state: &NodePath) -> Result<bool, NodeError> {
    crate::node::write::tidy(root, state)
}

/// Removes copies of what was there before that `ledger`, the one on the node, does not name any more: a run that was killed at
/// its very end leaves them, and they may hold secrets. Call it under the lock.
///
/// # Errors
/// When one of them cannot be removed.
pub fn sweep(root: &Root, state: &NodePath, ledger: &Ledger) -> Result<(), NodeError> {
    crate::node::write::sweep(root, state, ledger)
}

/// Carries a plan out. The caller holds the lock of `state`; `ledger` is what [`load_ledger`] gave, or a new one.
pub fn execute(
    root: &Root,
    state: &NodePath,
    plan: &Plan,
    ledger: impl Into<Arc<Ledger>>,
    door: &mut impl Door,
    progress: &mut impl FnMut(Progress<'_>),
) -> Outcome {
    // what is neither a command nor a turn is left to the caller
    let (commands, mut due): (Vec<Activation>, Vec<Activation>) =
        plan.activate.iter().filter(|one| one.how != How::Nothing).cloned().partition(|one| matches!(one.how, How::Refresh(_)));
    due.retain(|one| !plan.turns.iter().any(|turn| turn.serves.contains(one)));
    let mut units = Watch {
        turns: &plan.turns,
        returns: plan.returns,
        first: plan.turns.iter().map(|turn| door.look(turn)).collect(),
        ..Watch::default()
    };
    let turns_or_writes = !(plan.stage.is_empty() && plan.switch.is_empty() && plan.retire.is_empty() && plan.turns.is_empty());
    let asked: &[Canary] = if turns_or_writes { &plan.canaries } else { &[] };
    let mut canaries = Canaries::before(asked, door, progress);
    let mut hands = Hands::new(root, state, plan, ledger.into());
    let shape = Shape {
        stage: plan.stage.len(),
        switch: plan.switch.len(),
        activate: commands.len(),
        turn: plan.turns.len(),
        retire: plan.retire.len(),
        pull: asked.len(),
        no_return: plan.turns.iter().position(|turn| plan.dead_ends.contains_key(&turn.unit)),
    };
    let only_commands = Shape { activate: shape.activate, ..Shape::default() };
    if shape == only_commands && hands.ledger_is_final() {
        // nothing to write: not even the ledger. A refresh that is cut off here is found again, because it is derived
        let end = commands.iter().try_for_each(|one| {
            progress(Progress::Activating(one));
            match activate(one, door)? {
                Done::Ran => hands.ran(one),
                Done::Left(why) => due.push(left(one, &why)),
            }
            Ok(())
        });
        let end = end.and_then(|()| hands.settle().map_err(ApplyError::from));
        let end = end.map_or_else(End::Refused, |()| End::Unchanged);
        return Outcome { end, changed: Vec::new(), due, turned: Vec::new(), remarks: Vec::new(), ledger: hands.into_ledger() };
    }
    let mut why = None;
    let mut by_hand = Vec::new();
    let (mut at, mut action) = next(State::new(shape), Event::Done);
    let verdict = loop {
        tracing::debug!(?action, "apply");
        let result = match action {
            Action::Finish(verdict) => break verdict,
            Action::Idle => Ok(()),
            Action::Preflight if plan.turns.is_empty() => hands.preflight().map_err(ApplyError::from),
            Action::Preflight => hands.preflight().map_err(ApplyError::from).and_then(|()| door.guard(plan).map_err(ApplyError::Unguarded)),
            Action::Stage => {
                progress(Progress::Staging);
                hands.stage(&commands).map_err(ApplyError::from)
            }
            Action::Record => hands.record().map_err(ApplyError::from),
            Action::Change(step) => hands.change(step).map(|()| progress(Progress::Changed(hands.step(step)))).map_err(ApplyError::from),
            Action::Sync => hands.sync().map_err(ApplyError::from),
            Action::Activate(one) => {
                let forward = &commands[one];
                let other = if at.is_back() { plan.back.iter().find(|other| other.who == forward.who) } else { None };
                let command = other.unwrap_or(forward);
                progress(Progress::Activating(command));
                let result = activate(command, door);
                let undone = match &result {
                    Ok(Done::Left(why)) if !at.is_back() => Some(left(command, why)),
                    Err(_) if at.is_back() => Some(command.clone()),
                    _ => None,
                };
                if let Some(undone) = undone
                    && !due.contains(&undone)
                {
                    due.push(undone);
                    hands.leave(command);
                }
                if matches!(result, Ok(Done::Ran)) && !at.is_back() {
                    hands.ran(command);
                }
                result.map(drop)
            }
            Action::Turn(one) => {
                progress(Progress::Turning(&plan.turns[one]));
                hands.turns();
                let result = units.turn(one, at.is_back(), door);
                if result.is_err() && at.is_back() {
                    hands.lost(&plan.turns[one]);
                }
                result
            }
            Action::Prove(one) => {
                progress(Progress::Proving(&plan.turns[one]));
                let result = units.prove(one, at.is_back(), door);
                if result.is_ok() && !at.is_back() {
                    hands.turned(&plan.turns[one].unit);
                }
                result
            }
            Action::Pull(one) => canaries.pull(one, at.is_back(), door, progress),
            Action::Close => {
                progress(Progress::Closing(hands.ledger()));
                hands.close().map_err(ApplyError::from)
            }
            Action::Undo(step) => {
                let result = hands.undo(step);
                let path = &hands.step(step).path;
                result.map_err(|error| {
                    by_hand.push((path.clone(), error));
                    ApplyError::Stuck { path: path.clone() }
                })
            }
            Action::Forget => hands.forget().map_err(ApplyError::from),
            Action::Clean => hands.clean().map_err(ApplyError::from),
        };
        let event = match result {
            Ok(()) => Event::Done,
            Err(error) => {
                tracing::debug!(?action, %error, "failed");
                if why.is_none() && !matches!(action, Action::Clean) {
                    why = Some(error);
                }
                Event::Failed
            }
        };
        let was_back = at.is_back();
        (at, action) = next(at, event);
        if at.is_back() && !was_back && !at.stays() {
            progress(Progress::RollingBack);
        }
    };
    // a run that turned back has a reason
    let why = why.unwrap_or_else(|| NodeError::unexplained(state.clone()).into());
    let mut changed = Vec::new();
    let end = match verdict {
        Verdict::Applied => {
            changed = hands.changed();
            End::Applied
        }
        Verdict::Refused | Verdict::RolledBack => {
            // what would have been due is not, because nothing has changed
            due.retain(|one| matches!(one.how, How::Refresh(_)) || plan.due.iter().any(|before| before.what == *one));
            if verdict == Verdict::Refused { End::Refused(why) } else { End::RolledBack(why) }
        }
        Verdict::Stuck if at.stays() => {
            changed = hands.changed();
            End::Stayed { why, unwell: units.unwell, dead_ends: plan.dead_ends.clone() }
        }
        Verdict::Stuck => {
            changed = by_hand.iter().map(|(path, _)| path.clone()).collect();
            End::RollbackFailed { why, by_hand, unwell: units.unwell }
        }
    };
    units.remarks.append(&mut canaries.remarks);
    Outcome { end, changed, due, turned: units.well, remarks: units.remarks, ledger: hands.into_ledger() }
}

/// What became of a command.
#[derive(Debug)]
enum Done {
    /// It ran, and says that it succeeded.
    Ran,
    /// It cannot be run in this root, for this reason.
    Left(String),
}

/// What is due, with the reason and who does it.
fn left(one: &Activation, why: &str) -> Activation {
    let mut because = one.because.clone();
    because.push(format!("it cannot be done from here: {why}"));
    because.push("the first run of nodeprep on the node itself does it".to_owned());
    Activation { because, ..one.clone() }
}

/// Runs a command.
fn activate(one: &Activation, door: &mut impl Door) -> Result<Done, ApplyError> {
    let How::Refresh(argv) = &one.how else { return Ok(Done::Ran) };
    match door.run(argv) {
        Ok(output) if output.status == 0 => Ok(Done::Ran),
        Ok(output) => {
            let said = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
            let said = said.trim().lines().next_back().unwrap_or("nothing").to_owned();
            Err(ApplyError::Status { command: argv.join(" "), status: output.status, said })
        }
        Err(CommandError::Tools(why)) => {
            tracing::info!(who = %one.who, why, "left as due");
            Ok(Done::Left(why))
        }
        Err(error) => Err(ApplyError::Command { who: one.who.to_string(), error }),
    }
}
