//! What may be done so that running programs see a change, and what came of it: shared by `plan`, `apply` and `revert`.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::session::Session;
use crate::apply::{Outcome as Applied, Progress, Remark};
use crate::flow::docker;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::unit::Commands;
use crate::node::units::Guard;
use crate::node::{Probes, terminal, units};
use crate::plan::How;
use crate::plan::build::overlay_plan;
use crate::plan::turn::{Choice, Mode, Turns, concerned, turns};
use crate::plan::whole::Planned;
use crate::report::exit::Outcome;
use crate::report::{Report, UnitReport, UnitState};
use crate::runtime::facts;

/// What may be activated.
#[derive(Debug, Args)]
pub(super) struct ActivateArgs {
    /// What may be done so that running programs see the change. What `auto` and `reload-only` leave undone is due (exit code 9).
    /// The trust store is always refreshed, and what does not run is never started [default: auto on the running system, never
    /// in any other root].
    #[arg(long, value_enum, env = "NODEPREP_ACTIVATE", value_name = "WHAT")]
    activate: Option<Activate>,
    /// Allow a restart that stops this unit, too: kubelet, Docker without live-restore, or a runtime whose unit ends its pods
    /// (may be repeated).
    #[arg(long, env = "NODEPREP_ALLOW_RESTART", value_delimiter = ',', value_name = "UNIT")]
    allow_restart: Vec<String>,
    /// How long a daemon may take until it is well again, from the moment when its unit is active.
    #[arg(long, env = "NODEPREP_HEALTH_TIMEOUT", default_value = "120", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_timeout: u64,
    /// What restarts a daemon where neither systemd nor OpenRC does (may be repeated; several in the variable with `;` between them):
    /// a program and its arguments, absolute and without a shell. It has to come back once the daemon runs anew, with status 0.
    #[arg(long, env = "NODEPREP_RESTART_COMMAND", value_delimiter = ';', value_name = "UNIT=COMMAND", value_parser = Commands::parse)]
    restart_command: Vec<(String, Vec<String>)>,
    /// The same for what makes a daemon read its configuration anew.
    #[arg(long, env = "NODEPREP_RELOAD_COMMAND", value_delimiter = ';', value_name = "UNIT=COMMAND", value_parser = Commands::parse)]
    reload_command: Vec<(String, Vec<String>)>,
    /// Turn units without a guardian: a transient unit of systemd that brings the run to its end when it is killed between a
    /// restart and its proof. Where one cannot be started, nothing is changed (exit code 4) unless this is given.
    #[arg(long, env = "NODEPREP_NO_GUARDIAN")]
    no_guardian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Activate {
    /// Reload what can be reloaded, restart what has to be restarted.
    Auto,
    /// Reload only.
    ReloadOnly,
    /// Nothing: say what is due.
    Never,
}

impl ActivateArgs {
    /// What may be done; `runs`: in this root there is a running system, also one that cannot be reached from here.
    pub(super) fn mode(&self, runs: bool) -> Mode {
        match self.activate {
            Some(Activate::Auto) => Mode::Auto,
            Some(Activate::ReloadOnly) => Mode::ReloadOnly,
            None if runs => Mode::Auto,
            Some(Activate::Never) | None => Mode::Never,
        }
    }

    /// What was asked for, in this root. A system that runs in it and cannot be reached from here is a running one: what it needs
    /// is due.
    pub(super) fn choice(&self, probes: &Probes) -> Choice {
        let mode = self.mode(probes.live || probes.unseen);
        let commands =
            Commands { restart: self.restart_command.iter().cloned().collect(), reload: self.reload_command.iter().cloned().collect() };
        Choice { mode, allowed: self.allow_restart.iter().cloned().collect(), commands }
    }

    /// Who brings a run with this state folder to its end that is killed.
    pub(super) fn guard<'a>(&self, state: &'a NodePath) -> Guard<'a> {
        if self.no_guardian { Guard::Nobody } else { Guard::Wanted(state) }
    }

    pub(super) fn health(&self) -> Duration {
        Duration::from_secs(self.health_timeout)
    }
}

impl Session {
    /// Decides what is done with the units that a plan concerns, and puts it into the plan. Their manager is asked only when
    /// there are any.
    pub(super) fn decide(&self, planned: &mut Planned, choice: &Choice) -> Turns {
        let probes = &self.snapshot.probes;
        let open = self.ledger.open.iter().flat_map(|open| &open.activations).filter(|_| probes.live);
        let proofs: Vec<_> = open.filter(|one| one.how.unit().is_some()).cloned().collect();
        let names = &concerned(&planned.plan.activate) | &concerned(&proofs);
        if names.is_empty() {
            return Turns::default();
        }
        let mut units = units::units(&self.root, &names);
        if probes.live && units.facts.values().flat_map(|facts| &facts.along).any(|unit| unit == facts::DOCKER_UNIT) {
            units.docker_keeps = facts::docker_keeps(&self.look_again(|_| docker()), probes);
        }
        let after = overlay_plan(&self.snapshot.tree, &planned.plan);
        let decided = turns(&planned.plan.activate, &proofs, &self.found, &after, &units, choice);
        planned.settle(&decided.settled);
        planned.plan.turns.clone_from(&decided.turns);
        decided
    }
}

/// What a plan does with units, for its report.
pub(super) fn unit_reports(decided: &Turns, choice: &Choice) -> Vec<UnitReport> {
    let turned = decided.turns.iter().map(|turn| UnitReport {
        unit: turn.unit.clone(),
        turning: turn.turning,
        state: UnitState::Planned,
        along: turn.along.clone(),
        why: String::new(),
    });
    // what was not asked for needs no reason
    let left = decided.left.iter().filter(|_| choice.mode != Mode::Never).map(|left| UnitReport {
        unit: left.unit.clone(),
        turning: left.turning,
        state: UnitState::Left,
        along: left.along.clone(),
        why: left.why.clone(),
    });
    turned.chain(left).collect()
}

/// Puts into a report what became of units: what is due although it was asked for decides how the run ended.
pub(super) fn account(report: &mut Report, applied: &Applied, decided: &Turns, choice: &Choice) {
    report.units = unit_reports(decided, choice);
    for unit in &mut report.units {
        if applied.turned.contains(&unit.unit) {
            unit.state = UnitState::Done;
        } else if unit.state == UnitState::Planned {
            unit.state = UnitState::Failed;
        }
    }
    for remark in &applied.remarks {
        report.problems.push(told(remark));
        if let Remark::StillUnwell { unit, .. } = remark
            && applied.class().is_none()
        {
            report.units.iter_mut().filter(|one| one.unit == *unit).for_each(|one| one.state = UnitState::Done);
        }
    }
    if choice.mode == Mode::Never {
        return;
    }
    for due in &mut report.due {
        let left = decided.left.iter().find(|left| due.how.unit() == Some(&left.unit));
        due.because.extend(left.map(|left| left.why.clone()));
    }
    if report.outcome == Outcome::Converged && report.due.iter().any(|due| matches!(due.how, How::Reload(_) | How::Restart(_))) {
        report.outcome = Outcome::Due;
        report.exit_code = report.outcome.code();
    }
}

fn told(remark: &Remark) -> Problem {
    match remark {
        Remark::StillUnwell { unit, why } => Problem::warning(
            "not-well-before",
            format!("{unit} was not well before, and is not now: {why}"),
            format!("look why with `journalctl -u {unit}`"),
        ),
        Remark::ShimsGone { unit, count } => Problem::warning(
            "shims-gone",
            format!("{} of containers ended while {unit} was restarted", crate::report::explain::plural(*count, "shim")),
            "look whether these containers ended by themselves; a unit with KillMode=process ends none",
        ),
        Remark::Stopped { unit } => Problem::note(
            "stopped-meanwhile",
            format!("{unit} was stopped while the run went on, and stays so; it reads everything when it starts"),
            "start it when it is wanted",
        ),
        Remark::CanaryFails { runtime, image, why, earlier } => {
            let before = if why == earlier { "as before".to_owned() } else { format!("before: {earlier}") };
            Problem::warning(
                "canary-fails",
                format!("{runtime} does not pull {image}, and did not before the change: {why} ({before})"),
                format!("look at what the endpoints of the spec hold: `nodeprep verify --manifest {image}`"),
            )
        }
        Remark::CanaryLost { runtime, image, why } => Problem::warning(
            "canary-lost",
            format!("{runtime} does not pull {image} with the files of before either, although it did: {why}"),
            "look at the registry: what changed meanwhile is not on this node",
        ),
    }
}

/// What takes long, for who waits at a terminal.
pub(super) fn progress(step: &Progress<'_>) {
    match step {
        Progress::Activating(one) => terminal::tell(&format!("refreshing the {} …", one.who)),
        Progress::Turning(turn) => terminal::tell(&format!("{} of {} …", turn.turning.word(), turn.unit)),
        Progress::Proving(turn) => terminal::tell(&format!("waiting until {} is well …", turn.unit)),
        Progress::Pulling(canary) => terminal::tell(&format!("{} pulls {} …", canary.runtime, canary.image)),
        Progress::RollingBack => terminal::tell("failed; putting back what was there …"),
        Progress::Staging | Progress::Changed(_) | Progress::Closing(_) => {}
    }
}
