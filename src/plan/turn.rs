//! What is done with units: from what changes need (`activation`) to at most one reload or restart of each, or the reason why
//! it is left. Pure; what systemd says about units comes from outside.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::{Activation, Expect, How};
use crate::desired::Target;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::model::unit::{Active, Commands, Init, UnitFacts, Units, plain};
use crate::runtime::FoundRuntime;
use crate::runtime::facts::{reload_says, reload_signal};

/// What may be done so that running programs see a change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Reloads and restarts.
    Auto,
    /// Reloads.
    ReloadOnly,
    /// Nothing.
    #[default]
    Never,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// What may be done.
    pub mode: Mode,
    /// Units that may be stopped although others depend on it that they run.
    pub allowed: BTreeSet<String>,
    /// What turns units where no service manager that nodeprep knows does.
    pub commands: Commands,
}

impl Choice {
    fn allows(&self, unit: &str) -> bool {
        self.allowed.iter().any(|name| name == unit || plain(unit) == name)
    }
}

/// What is done with a unit; later ones are stronger and win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turning {
    /// Nothing: an earlier run has, and did not come to see whether it is well.
    Prove,
    /// It is told to reload.
    Reload,
    /// It is restarted.
    Restart,
}

impl Turning {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Prove => "prove",
            Self::Reload => "reload",
            Self::Restart => "restart",
        }
    }
}

impl Turning {
    /// After what a daemon is looked at.
    #[must_use]
    pub const fn after(self) -> &'static str {
        match self {
            Self::Prove => "after a run that was cut off",
            Self::Reload => "after a reload",
            Self::Restart => "after a restart",
        }
    }
}

/// One unit that is turned, for all that needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// The unit.
    pub unit: String,
    /// What is done with it.
    pub turning: Turning,
    /// What it is done for.
    pub serves: Vec<Activation>,
    /// Other units that stop and start with it.
    pub along: Vec<String>,
    /// The signal that makes its main process read its configuration anew, where its unit has no reload of its own.
    pub signal: Option<&'static str>,
    /// How it is seen that it is well afterwards.
    pub proof: Proof,
}

impl Turn {
    /// Whether something of this target is what it is for.
    #[must_use]
    pub fn serves(&self, target: &Target) -> bool {
        self.serves.iter().any(|need| need.who == *target)
    }
}

/// How it is seen that a daemon is well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// Its name in messages.
    pub runtime: String,
    /// Where it answers to CRI; `None` where it does not.
    pub socket: Option<NodePath>,
    /// The configuration file that it has to be started with.
    pub config: Option<NodePath>,
    /// What it writes into its journal after a reload that went well, and after one that did not.
    pub confirms: Option<(String, String)>,
    /// What has to stand in the files that it reads at its start.
    pub files: Vec<(NodePath, Expect)>,
}

impl Proof {
    /// The same after the way back, on which files are as they were before the plan.
    #[must_use]
    pub fn going_back(&self) -> Self {
        Self { files: Vec::new(), ..self.clone() }
    }
}

/// A unit that is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The unit.
    pub unit: String,
    /// What it needs.
    pub turning: Turning,
    /// Why it is left.
    pub why: String,
    /// What is due for it.
    pub due: Vec<Activation>,
    /// Other units that would stop and start with it.
    pub along: Vec<String>,
}

/// What is done with the units of a plan, and what is left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Turns {
    /// In this order.
    pub turns: Vec<Turn>,
    /// Left as they are.
    pub left: Vec<Left>,
    /// Needs nothing after all: the unit does not run, and reads everything when it starts.
    pub settled: Vec<Activation>,
}

/// The units that `activations` concern.
#[must_use]
pub fn concerned(activations: &[Activation]) -> BTreeSet<String> {
    activations.iter().filter_map(|one| unit(&one.how)).map(|(unit, _)| unit.to_owned()).gathered()
}

fn unit(how: &How) -> Option<(&str, Turning)> {
    match how {
        How::Nothing | How::Refresh(_) => None,
        How::Reload(unit) => Some((unit, Turning::Reload)),
        How::Restart(unit) => Some((unit, Turning::Restart)),
    }
}

/// Decides for each unit. `proofs` are activations that an earlier run carried out without coming to see whether the unit is
/// well; `after` is the tree as it will be.
#[must_use]
pub fn turns(
    activations: &[Activation],
    proofs: &[Activation],
    found: &[FoundRuntime],
    after: &Tree,
    units: &Units,
    choice: &Choice,
) -> Turns {
    // of one unit, because of one runtime: a second containerd that somebody started by hand has the unit of none
    let mut wanted: BTreeMap<(&str, Option<usize>), Wanted> = BTreeMap::new();
    let proofs = proofs.iter().filter_map(|one| Some((unit(&one.how)?.0, Turning::Prove, one)));
    let needed = activations.iter().filter_map(|one| unit(&one.how).map(|(unit, turning)| (unit, turning, one)));
    for (unit, turning, one) in needed.chain(proofs) {
        let entry = wanted.entry((unit, reader_of(one, unit, found))).or_insert((turning, Vec::new()));
        entry.0 = entry.0.max(turning);
        entry.1.push(one.clone());
    }
    let mut decided = Turns::default();
    for ((unit, reader), (turning, serves)) in wanted {
        let reader = reader.and_then(|at| found.get(at));
        let unknown = UnitFacts::default();
        let facts = units.facts.get(unit).unwrap_or(&unknown);
        match judge(unit, turning, reader, facts, units, choice) {
            Ok(true) => {
                let proof = reader.map(|reader| proof(reader, after)).unwrap_or_default();
                let along = if turning == Turning::Restart { facts.along.clone() } else { Vec::new() };
                let signal = reader.filter(|_| turning == Turning::Reload).and_then(|reader| signal(reader, facts, units));
                decided.turns.push(Turn { unit: unit.to_owned(), turning, serves, along, signal, proof });
            }
            Ok(false) => decided.settled.extend(serves),
            Err(_) if turning == Turning::Prove => {}
            Err(why) => {
                let along = if turning == Turning::Restart { facts.along.clone() } else { Vec::new() };
                decided.left.push(Left { unit: unit.to_owned(), turning, why, due: serves, along });
            }
        }
    }
    decided
}

/// The strongest that is needed, and for what.
type Wanted = (Turning, Vec<Activation>);

/// The runtime that an activation concerns; one that runs rather than one that does not.
fn reader_of(one: &Activation, unit: &str, found: &[FoundRuntime]) -> Option<usize> {
    let concerns = |reader: &FoundRuntime| match &one.who {
        Target::Containerd(config) => reader.config == *config,
        Target::Containers | Target::Crio | Target::Trust => true,
    };
    let of_unit = |reader: &FoundRuntime| reader.unit_name().as_deref() == Some(unit) && concerns(reader);
    let readers = found.iter().enumerate().filter(|(_, reader)| of_unit(reader));
    readers.max_by_key(|(_, reader)| reader.running.is_some()).map(|(at, _)| at)
}

/// Whether it is turned, or needs it not; else why it is left.
fn judge(
    unit: &str,
    turning: Turning,
    reader: Option<&FoundRuntime>,
    facts: &UnitFacts,
    units: &Units,
    choice: &Choice,
) -> Result<bool, String> {
    let running = reader.and_then(|reader| reader.running.as_ref());
    // one that failed after an earlier run has turned it ran before
    let failed = turning == Turning::Prove && facts.active == Active::Failed;
    let is_down = match units.init {
        Init::Systemd | Init::OpenRc => facts.active != Active::Unknown && !facts.active.is_up(),
        Init::None => true,
        Init::Elsewhere | Init::Unseen => false,
    };
    if is_down && running.is_none() {
        return Ok(failed);
    }
    match (choice.mode, turning) {
        (_, Turning::Prove) | (Mode::Auto, _) | (Mode::ReloadOnly, Turning::Reload) => {}
        (Mode::ReloadOnly, Turning::Restart) => return Err("--activate reload-only does not restart".to_owned()),
        (Mode::Never, _) => return Err("nothing is activated with --activate never".to_owned()),
    }
    match units.init {
        Init::Systemd | Init::OpenRc => {}
        Init::None => return commanded(unit, turning, choice),
        Init::Elsewhere => return Err("the root is not that of the running system".to_owned()),
        Init::Unseen => {
            return Err("the system that runs in the root cannot be reached from here; run it with hostPID and privileged".to_owned());
        }
    }
    if let Some(why) = &units.silent {
        return Err(format!("its service manager does not answer: {why}"));
    }
    if facts.masked {
        return Err(format!("{unit} is masked, and would not start again; allow it with `systemctl unmask {unit}`"));
    }
    if !facts.loaded {
        return Err(format!("there is no unit {unit}"));
    }
    if let Some(process) = running
        && (!facts.active.is_up() || units.init == Init::Systemd && facts.main_pid != Some(process.pid))
    {
        return Err(format!("process {} was not started by {unit}; start it anew as it was started", process.pid));
    }
    match turning {
        Turning::Reload if !facts.reloads && reader.and_then(|reader| signal(reader, facts, units)).is_none() => {
            return Err(format!("{unit} cannot be told to reload"));
        }
        Turning::Prove | Turning::Reload => {}
        Turning::Restart => stops(unit, facts, units, choice)?,
    }
    Ok(true)
}

/// The signal by which a daemon is reloaded whose unit does not know how.
fn signal(reader: &FoundRuntime, facts: &UnitFacts, units: &Units) -> Option<&'static str> {
    reload_signal(reader.runtime).filter(|_| units.init == Init::Systemd && !facts.reloads)
}

/// What can be done with a daemon that no service manager looks after: what somebody has said.
fn commanded(unit: &str, turning: Turning, choice: &Choice) -> Result<bool, String> {
    let (command, flag) = match turning {
        Turning::Prove => return Ok(true),
        Turning::Reload => (choice.commands.reload_of(unit), "--reload-command"),
        Turning::Restart => (choice.commands.restart_of(unit), "--restart-command"),
    };
    let name = plain(unit);
    command.map(|_| true).ok_or_else(|| {
        format!("no service manager that nodeprep knows runs here; say what {}s it with {flag} {name}=COMMAND", turning.word())
    })
}

/// Whether a restart would stop what must go on.
fn stops(unit: &str, facts: &UnitFacts, units: &Units, choice: &Choice) -> Result<(), String> {
    if facts.kills_all && facts.shims > 0 && !choice.allows(unit) {
        let many = facts.shims;
        return Err(format!(
            "it would end {many} running pod sandboxes or containers (KillMode of {unit}); set KillMode=process, or allow it with --allow-restart {unit}"
        ));
    }
    let guarded = |other: &&String| {
        let name = plain(other);
        let is_guarded =
            name == "kubelet" || name.ends_with("-kubelet") || name.ends_with(".kubelet") || name == "docker" && !units.docker_keeps;
        is_guarded && !choice.allows(other)
    };
    match facts.along.iter().find(guarded) {
        Some(other) => Err(format!("it would stop {other}, too; allow it with --allow-restart {other}")),
        None => Ok(()),
    }
}

/// How it is seen that a runtime is well with the files of `after`.
fn proof(reader: &FoundRuntime, after: &Tree) -> Proof {
    let expect = |path: NodePath| {
        let entry = after.real(&path).and_then(|real| after.entry(&real).cloned())?;
        Some((path, Expect::of(&entry)?))
    };
    Proof {
        runtime: reader.runtime.name().to_owned(),
        socket: reader.socket(after).filter(|_| reader.is_pulled_through(after)),
        config: Some(reader.config.clone()),
        confirms: reload_says(reader.runtime).map(|(done, failed)| (done.to_owned(), failed.to_owned())),
        files: reader.start_files(after).into_iter().filter_map(expect).collect(),
    }
}

#[cfg(test)]
mod tests;
