//! Units of the node: what their manager says about them, and telling it to reload or restart them.
//!
//! What lives here: the door's part for units ([`NodeDoor`]), one file for each service manager, shims. What must not: deciding
//! what is done with a unit (`plan/turn.rs`) and what a look means (`apply/health.rs`).
//!
//! A manager is asked only where the root is that of the running system: no other root's units are ever touched.

mod commands;
mod openrc;
mod shims;
mod systemd;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use super::command::{self, CommandError, Output, Tools};
use super::guardian::Guardian;
use super::root::Root;
use super::{cri, probe, read};
use crate::apply::health::{Answer, Daemon, Look};
use crate::apply::{Door, GuardError, UnitError};
use crate::model::cri::{CriError, RUNTIME_READY};
use crate::model::path::NodePath;
use crate::model::unit::{Active, Commands, Init, UnitFacts, Units};
use crate::plan::canary::Canary;
use crate::plan::turn::{Turn, Turning};
use crate::plan::{Expect, Plan};
use crate::runtime::{Wish, facts};

/// How long a manager may take to say something about a unit.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a job may take: systemd gives a unit 90 s to stop and as much to start unless it says otherwise, and units that
/// stop with it have theirs.
const JOB: Duration = Duration::from_secs(400);
/// How long one call of a daemon may take.
const CALL: Duration = Duration::from_secs(3);
/// Between two looks, at most.
const BETWEEN: Duration = Duration::from_millis(250);

/// Who manages the units of a root: sd_booted(3), and the folder in which `OpenRC` keeps its state.
#[must_use]
pub fn init(root: &Root) -> Init {
    let is_folder = |path: &'static str| matches!(root.folder(&NodePath::fixed(path)), Ok(Some(_)));
    if !root.is_live() {
        if root.is_unseen() { Init::Unseen } else { Init::Elsewhere }
    } else if is_folder("/run/systemd/system") {
        Init::Systemd
    } else if is_folder("/run/openrc") {
        Init::OpenRc
    } else {
        Init::None
    }
}

/// What their manager says about units.
#[must_use]
pub fn units(root: &Root, names: &BTreeSet<String>) -> Units {
    let init = init(root);
    let facts = |name: &String| match init {
        Init::Systemd => systemd::facts(root, name),
        Init::OpenRc => openrc::facts(root, name),
        Init::None | Init::Elsewhere | Init::Unseen => Ok(UnitFacts::default()),
    };
    let mut units = Units { init, ..Units::default() };
    for name in names {
        match facts(name) {
            Ok(facts) => drop(units.facts.insert(name.clone(), facts)),
            Err(why) => {
                tracing::warn!(name, why, "its manager says nothing about it");
                units.silent.get_or_insert(why);
            }
        }
    }
    units
}

/// The door of a node: its tools, and its units.
#[derive(Debug)]
pub struct NodeDoor<'a> {
    /// Whose.
    pub root: &'a Root,
    /// How long a tool may take.
    pub patience: Duration,
    /// How long a daemon may take until it is well, once its unit is active.
    pub health: Duration,
    /// How long a pull may take.
    pub pull: Duration,
    /// What turns units where no service manager does.
    pub commands: &'a Commands,
    /// Who brings a run to its end that is killed.
    pub guard: Guard<'a>,
}

/// Who brings a run to its end that is killed.
#[derive(Debug)]
pub enum Guard<'a> {
    /// Nobody: it was said that none is wanted, or this is who does so.
    Nobody,
    /// A guardian for the run with this state folder, where systemd runs; not started yet.
    Wanted(&'a NodePath),
    /// It waits.
    Waits(Guardian<'a>),
}

impl Door for NodeDoor<'_> {
    fn guard(&mut self, plan: &Plan) -> Result<(), GuardError> {
        let Guard::Wanted(state) = self.guard else { return Ok(()) };
        if init(self.root) == Init::Systemd {
            self.guard = Guard::Waits(Guardian::start(self.root, state, self.health, self.longest(plan))?);
        }
        Ok(())
    }

    fn run(&mut self, argv: &[String]) -> Result<Output, CommandError> {
        Tools { root: self.root, patience: self.patience }.run(argv)
    }

    fn look(&mut self, turn: &Turn) -> Look {
        let init = init(self.root);
        let facts = match init {
            Init::Systemd => systemd::state(self.root, &turn.unit).unwrap_or_default(),
            Init::OpenRc => openrc::state(self.root, &turn.unit).unwrap_or_default(),
            Init::None => commands::state(self.reading(turn).is_some()),
            Init::Elsewhere | Init::Unseen => UnitFacts::default(),
        };
        let process = match facts.main_pid {
            Some(pid) => probe::process(self.root, pid),
            None if matches!(init, Init::OpenRc | Init::None) => self.reading(turn),
            None => None,
        };
        let daemon = |process: super::Process| Daemon { pid: process.pid, started: process.started, config: facts::started_with(&process) };
        Look {
            active: facts.active,
            process: process.map(daemon),
            restarts: facts.restarts,
            answer: turn.proof.socket.as_ref().map_or(Answer::Unasked, |socket| self.ask(socket)),
            changed: self.changed(turn),
            shims: shims::all(),
        }
    }

    fn turn(&mut self, turn: &Turn, back: bool) -> Result<(), UnitError> {
        tracing::info!(unit = turn.unit, turning = turn.turning.word(), back, "turn");
        match init(self.root) {
            Init::Systemd => systemd::turn(self.root, turn, back, self.health),
            Init::OpenRc => openrc::turn(self.root, turn, back),
            Init::None if back || self.reading(turn).is_some() => commands::turn(self.root, turn, self.commands),
            // what has stopped meanwhile stays so
            Init::None => Ok(()),
            Init::Elsewhere | Init::Unseen => Err(UnitError::Job { said: "the running system cannot be reached from here".to_owned() }),
        }
    }

    fn watch(&mut self, turn: &Turn, mut enough: impl FnMut(&Look, Duration) -> bool) -> Look {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(20);
        loop {
            let mut look = self.look(turn);
            // that it was started does not mean that its process is there already, and no manager says that it will not come
            if look.active == Active::Inactive && init(self.root) == Init::None {
                look.active = Active::Activating;
            }
            let passed = begun.elapsed();
            tracing::debug!(unit = turn.unit, ?look, "look");
            if enough(&look, passed) || passed >= self.health {
                return look;
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(BETWEEN);
        }
    }

    fn pull(&mut self, canary: &Canary) -> Result<(), CriError> {
        tracing::info!(runtime = canary.runtime, image = canary.image, "pull the canary");
        cri::Client::connect(self.root, &canary.socket, CALL)?.pull(&canary.image, self.pull).map(drop)
    }
}

impl NodeDoor<'_> {
    /// How long a run of this plan may take with its way back, when everything in it takes as long as it may.
    fn longest(&self, plan: &Plan) -> Duration {
        let times = |many: usize| u32::try_from(many).unwrap_or(u32::MAX);
        let units = (JOB + self.health + PATIENCE * 3).saturating_mul(times(plan.turns.len()));
        let rest = self
            .patience
            .saturating_mul(times(plan.activate.len() + 1))
            .saturating_add(self.pull.saturating_mul(times(plan.canaries.len())));
        units.saturating_add(rest).saturating_mul(2)
    }

    /// The process that reads the configuration in question, where no manager names one.
    fn reading(&self, turn: &Turn) -> Option<super::Process> {
        let processes = probe::probe(self.root).processes;
        let wanted = turn.proof.config.as_ref();
        processes.into_iter().find(|process| process.exe.name() == turn.proof.runtime && facts::started_with(process).as_ref() == wanted)
    }

    fn ask(&self, socket: &NodePath) -> Answer {
        let status = cri::Client::connect(self.root, socket, CALL).and_then(|mut client| client.status());
        match status {
            Ok(health) if health.is_ready() => Answer::Ready,
            Ok(health) => Answer::NotReady(health.condition(RUNTIME_READY).map_or_else(
                || "it does not say that it is ready".to_owned(),
                |condition| format!("it says that it is not ready: {} {}", condition.reason, condition.message).trim().to_owned(),
            )),
            Err(error @ CriError::NotServed { .. }) => Answer::NotServed(error.to_string()),
            Err(error) => Answer::Silent(error.to_string()),
        }
    }

    /// The files that are not as the plan has left them.
    fn changed(&self, turn: &Turn) -> Vec<NodePath> {
        if turn.proof.files.is_empty() {
            return Vec::new();
        }
        let tree = read::read(self.root, |_| turn.proof.files.iter().map(|(path, _)| Wish::path(path.clone())).collect());
        let now = |path: &NodePath| tree.real(path).and_then(|real| tree.entry(&real).and_then(Expect::of));
        turn.proof.files.iter().filter(|(path, wanted)| now(path).as_ref() != Some(wanted)).map(|(path, _)| path.clone()).collect()
    }
}

/// The end of what a command said that failed.
fn said(output: &Output) -> String {
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    let text = text.trim().lines().next().unwrap_or_default().trim();
    if text.is_empty() { format!("status {}", output.status) } else { text.to_owned() }
}

/// What a manager's command said in the end, or why there was none.
fn answer(root: &Root, argv: &[&str]) -> Result<Output, String> {
    command::run(root, &words(argv), PATIENCE).map_err(|error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    })
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(ToString::to_string).collect()
}

/// What a job's verb is, on the way there and back.
fn verb(turning: Turning, back: bool) -> &'static str {
    match (turning, back) {
        (Turning::Reload, _) => "reload",
        (_, true) => "restart",
        (_, false) => "try-restart",
    }
}
