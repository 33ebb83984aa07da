//! The transaction: from a plan to a changed node, or back to what was there.
//!
//! What lives here: the order of things ([`transaction`]), which is pure, and the loop that lets `node/` do them. What must
//! not: effects of its own, decisions about what the node should hold.

pub mod transaction;

use std::sync::Arc;

use crate::ledger::Ledger;
use crate::model::path::NodePath;
use crate::node::command::{CommandError, Output};
use crate::node::error::{Class, NodeError};
use crate::node::root::Root;
use crate::node::write::Hands;
use crate::plan::{Activation, How, Plan, Step};

use transaction::{Action, Event, Shape, State, Verdict, next};

/// The door to what a test must be able to script.
pub trait Door {
    /// Runs a tool of the node.
    ///
    /// # Errors
    /// When it did not run to its end.
    fn run(&mut self, argv: &[String]) -> Result<Output, CommandError>;
}

/// What a run reports while it goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// Everything can be done; it is being written where nobody looks yet.
    Staging,
    /// A step has been taken.
    Changed(&'a Step),
    /// Something is told to look again.
    Activating(&'a Activation),
    /// Something failed; what was changed is being put back.
    RollingBack,
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The node refused.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A path could not be put back.
    #[error("{path} could not be put back")]
    Stuck {
        /// Which.
        path: NodePath,
    },
    /// A command did not run to its end.
    #[error("the {who} could not be refreshed")]
    Command {
        /// What it was for.
        who: String,
        /// What happened.
        #[source]
        error: CommandError,
    },
    /// A command failed.
    #[error("`{command}` failed with status {status}: {said}")]
    Status {
        /// The command.
        command: String,
        /// Its status.
        status: i32,
        /// The end of what it said.
        said: String,
    },
}

impl ApplyError {
    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Node(error) => error.help(),
            Self::Stuck { path } => Some(format!("restore {path} by hand from the copies in the state folder")),
            Self::Command { .. } | Self::Status { .. } => Some("run the command by hand to see what it needs, then run again".to_owned()),
        }
    }
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
    /// It failed, and so did the way back.
    RollbackFailed {
        /// What failed first.
        why: ApplyError,
        /// Paths that are not as before, with the reason.
        by_hand: Vec<(NodePath, NodeError)>,
    },
}

/// What came of a run.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// The paths that are not as before the run.
    pub changed: Vec<NodePath>,
    /// Activations that are left to whoever asked: units, and commands that cannot be run in this root.
    pub due: Vec<Activation>,
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
            End::RollbackFailed { .. } => Some(Class::NotRolledBack),
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
    // what is not a command is left to the caller
    let (commands, mut due): (Vec<Activation>, Vec<Activation>) =
        plan.activate.iter().filter(|one| one.how != How::Nothing).cloned().partition(|one| matches!(one.how, How::Refresh(_)));
    let mut hands = Hands::new(root, state, plan, ledger.into());
    let shape = Shape { stage: plan.stage.len(), switch: plan.switch.len(), activate: commands.len(), retire: plan.retire.len() };
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
        return Outcome { end, changed: Vec::new(), due, ledger: hands.into_ledger() };
    }
    let mut why = None;
    let mut by_hand = Vec::new();
    let (mut at, mut action) = next(State::new(shape), Event::Done);
    let verdict = loop {
        tracing::debug!(?action, "apply");
        let result = match action {
            Action::Finish(verdict) => break verdict,
            Action::Idle => Ok(()),
            Action::Preflight => hands.preflight().map_err(ApplyError::from),
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
            Action::Close => hands.close().map_err(ApplyError::from),
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
                    progress(Progress::RollingBack);
                    why = Some(error);
                }
                Event::Failed
            }
        };
        (at, action) = next(at, event);
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
        Verdict::Stuck => {
            changed = by_hand.iter().map(|(path, _)| path.clone()).collect();
            End::RollbackFailed { why, by_hand }
        }
    };
    Outcome { end, changed, due, ledger: hands.into_ledger() }
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
