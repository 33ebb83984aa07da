//! `nodeprep apply`: make the node true to the spec.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use super::activate::{account, progress};
use super::pause_image::{self, Settled};
use super::plan::{refused, report};
use super::preflight::{Asks, dead_ends};
use super::remembered::{attempt, remember};
use super::runtimes::PULL;
use super::session::{Session, Stopped, outcome, secrets};
use super::source::Given;
use super::trail::Trail;
use super::verify::image;
use super::{Ended, OutputArgs, PassArgs, PreflightArgs};
use crate::apply::{End, Outcome as Applied, Progress, execute, tidy};
use crate::desired::PAUSED;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::pause::{By, Pause, Stays, Who};
use crate::model::problem::Problem;
use crate::model::secret::{Secret, mask};
use crate::node::lock::Lock;
use crate::node::probe::now;
use crate::node::root::Root;
use crate::node::state::pauses;
use crate::node::units::{Guard, NodeDoor};
use crate::plan::back::interrupted as interrupted_run;
use crate::plan::turn::{Choice, Turns};
use crate::plan::{How, Plan};
use crate::report::Report;
use crate::report::exit::Outcome;
use crate::report::plan::{Tense, text};
use crate::report::style::Style;
use crate::spec::{Ca, Scope, Spec};
use crate::trust;

/// Arguments of `apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    #[command(flatten)]
    pass: PassArgs,
    /// Let each running runtime pull this image before the change and after it, as kubelet would. Where it was pulled before, or an
    /// endpoint has shown its manifest, and it is not pulled afterwards, everything is put back (exit code 6); else that is a
    /// warning. It stays in the runtime's store.
    #[arg(long, env = "NODEPREP_CANARY", value_name = "IMAGE", value_parser = image)]
    canary: Option<ImageRef>,
    /// Go on although the node, or some of its paths, are paused; the pause stays for the next run.
    #[arg(long)]
    even_paused: bool,
    /// Nobody means this very run: an agent, a DaemonSet, a unit at boot. It waits where `nodeprep revert` has given the node back.
    #[arg(long, env = "NODEPREP_UNATTENDED")]
    unattended: bool,
    /// Where the spec cannot be fetched, is broken or is refused (another name, an older serial, a loss that was not allowed), hold the
    /// node to the one that was applied last: what has drifted is put right. The exit code still says what is wrong with the spec.
    #[arg(long, env = "NODEPREP_LAST_KNOWN_GOOD")]
    last_known_good: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl Apply {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| text(report, Tense::Did, false, style))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.pass.root)?;
        let last_good =
            |root: &Root, stopped| if self.last_known_good { Given::last_good(&self.pass.spec, root, stopped) } else { Err(stopped) };
        let given = Given::named(&self.pass.spec, &root).or_else(|stopped| last_good(&root, stopped))?;
        let state = NodePath::fixed(crate::flow::STATE);
        let _lock = Lock::take(&root, &state)?;
        let trail = Trail::of(&root, "apply");
        let mut ended = self.locked(root, given, &state, &trail);
        trail.ended(&mut ended);
        ended
    }

    fn locked(&self, root: Root, mut given: Given, state: &NodePath, trail: &Trail) -> Result<Report, Stopped> {
        let who = if self.unattended { Who::Unattended } else { Who::Person };
        let stays = if self.even_paused { Stays::Nothing } else { pauses(&root, state)?.stays(now(), who) };
        if let Stays::All(pause) = &stays {
            return Ok(left_alone(pause));
        }
        tidy(&root, state)?;
        let mut session = Session::open(root, &self.pass.choices.runtimes)?;
        session.stays = stays;
        trail.interrupted(&session);
        let after_all = if self.unattended { None } else { given_back(&session)? };
        session.sweep()?;
        if let Err(stopped) = session.guard(&given.spec, &self.pass.choices) {
            if !self.last_known_good {
                return Err(stopped);
            }
            given = given.or_last_good(&self.pass.spec, &session.root, stopped)?;
            session.guard(&given.spec, &self.pass.choices)?;
        }
        let Given { spec, mut problems, mut origin } = given;
        problems.extend(after_all);
        session.configure(&spec, &self.pass.choices);
        let choice = self.pass.activate.choice(&session.snapshot.probes);
        let gated = session.gated(&spec, &self.pass.choices, &self.pass.probe, Asks::ToDo);
        let settled = match pause_image::settle(session, spec, gated, &self.pass.choices, &self.pass.probe, self.canary.as_ref(), trail)? {
            Ok(settled) => settled,
            Err(mut report) => {
                origin.tell(&mut report);
                return Ok(*report);
            }
        };
        let Settled { session, spec, mut planned, told, done: earlier } = settled;
        let kept = match () {
            () if planned.keeps_back() => Outcome::VerifyFailed,
            () if planned.leaves_alone() => Outcome::Paused,
            () => Outcome::Converged,
        };
        let decided = session.decide(&mut planned, &choice);
        planned.plan.attempt = attempt(&session, &decided, Some(spec.digest));
        planned.plan.dead_ends = dead_ends(&session, &planned.plan, &self.pass.probe.preflight);
        let unasked = session.send(self.canary.as_ref(), &spec, &mut planned, self.pass.probe.probe);
        let problems = problems.into_iter().chain(told).chain(unasked).collect();
        let mut report = report(&session, &spec, &planned, problems, refused(&planned).unwrap_or(kept));
        let activation = Activation {
            choice: &choice,
            decided: &decided,
            health: self.pass.activate.health(),
            preflight: &self.pass.probe.preflight,
            secrets: &secrets(&spec),
            trail,
            guard: self.pass.activate.guard(&session.state),
        };
        let done = carry_out(&session, &planned.plan, activation, &mut report);
        if done && planned.refreshes() && !report.due.iter().any(|due| matches!(due.how, How::Refresh(_))) {
            arrived(&session, &spec, &mut report);
        }
        Settled::tell(earlier, &mut report);
        if done {
            origin.keep(&session.root, !planned.plan.owned.is_empty(), &mut report);
        }
        origin.tell(&mut report);
        // the process ends here: taking thousands of small things apart one by one would be a tenth of its time
        std::mem::forget((session.snapshot, session.ledger, spec, planned, origin));
        Ok(report)
    }
}

/// Of a node that is left alone.
fn left_alone(pause: &Pause) -> Report {
    let what = format!("nothing was changed: this node is paused {}", pause.said());
    let help = "run `nodeprep resume` to end that, or once with --even-paused";
    Report { problems: vec![Problem::warning(PAUSED, what, help)], ..Report::new(Outcome::Paused) }
}

/// Who applies by hand after a revert wants the node to be managed again.
fn given_back(session: &Session) -> Result<Option<Problem>, Stopped> {
    if !pauses(&session.root, &session.state)?.active(now()).any(|pause| pause.by == By::Revert) {
        return Ok(None);
    }
    let (_, untold) = super::pause::end(&session.root, Some(By::Revert), "apply", false)?;
    let what = "the pause since `nodeprep revert` is over: what runs by itself goes on, too";
    Ok(untold.or_else(|| Some(Problem::note("resumed", what, ""))))
}

/// Whether the anchors are in the bundle: the exit code of the store's command proves nothing.
fn arrived(session: &Session, spec: &Spec, report: &mut Report) {
    let tree = session.look_again(trust::wishes);
    let Ok(family) = trust::family(&tree) else { return };
    let missing = trust::missing(spec, family, &tree);
    if missing.is_empty() {
        return;
    }
    let lacks = |ca: &&Ca| ca.scope == Scope::System && ca.certs.iter().any(|cert| missing.contains(&cert.fingerprint));
    report.problems.extend(spec.cas.iter().filter(lacks).map(|ca| {
        let what = format!("`{}` succeeded, but {} is not in {}", family.refresh.join(" "), ca.name, family.bundle);
        let help = format!("run the command by hand and read what it says; look whether something else writes {}", family.bundle);
        Problem::error("anchor-missing", what, help).at(ca.at.clone())
    }));
    report.outcome = Outcome::VerifyFailed;
    report.exit_code = report.outcome.code();
}

/// How units are activated.
pub(super) struct Activation<'a> {
    pub choice: &'a Choice,
    pub decided: &'a Turns,
    pub health: Duration,
    /// Whether it is tried first whether a daemon comes up with what was there before.
    pub preflight: &'a PreflightArgs,
    /// What daemons say is shown without these.
    pub secrets: &'a [Secret],
    /// Where it is written down.
    pub trail: &'a Trail,
    /// Who brings it to its end when it is killed.
    pub guard: Guard<'a>,
}

/// Executes a plan and puts into the report what came of it; whether it went through.
pub(super) fn carry_out(session: &Session, plan: &Plan, activation: Activation<'_>, report: &mut Report) -> bool {
    let (health, commands) = (activation.health, &activation.choice.commands);
    // dismissed at the end, with the lock still held
    let mut door = NodeDoor { root: &session.root, patience: PATIENCE, health, pull: PULL, commands, guard: activation.guard };
    let mut run = |plan: &Plan, ledger| {
        let mut told = |step: Progress<'_>| match step {
            Progress::Closing(ledger) => activation.trail.closing(session, plan, ledger),
            step => progress(&step),
        };
        execute(&session.root, &session.state, plan, ledger, &mut door, &mut told)
    };
    let mut applied = run(plan, Arc::clone(&session.ledger));
    let back = interrupted(session, plan, &applied);
    let ends = back.as_ref().map(|back| dead_ends(session, back, activation.preflight)).unwrap_or_default();
    // what that run has found may be what never worked
    if ends.is_empty()
        && let Some(back) = back
    {
        let again = run(&back, Arc::clone(&applied.ledger));
        applied.end = match (again.end, applied.end) {
            (End::Applied, End::RollbackFailed { why, .. }) => End::RolledBack(why),
            // with neither the files of now nor those of before
            (End::RollbackFailed { by_hand, unwell, .. }, End::RollbackFailed { why, .. }) => End::RollbackFailed { why, by_hand, unwell },
            (_, end) => end,
        };
        applied.ledger = again.ledger;
    }
    remember(session, plan, &applied, activation.secrets, report);
    report.due = session.due(&applied.due);
    let mut failed = failures(&applied);
    for problem in &mut failed {
        problem.what = mask(&problem.what, activation.secrets);
    }
    activation.trail.through(session, plan, &applied, &failed);
    report.problems.extend(failed);
    report.problems.extend(ends.iter().map(stays));
    if let Some(class) = applied.class() {
        report.outcome = outcome(class);
        // nothing was changed, or everything was put back: nothing is due for it either
        for part in &mut report.parts {
            part.changes.retain(|change| applied.changed.contains(&change.path));
            if part.changes.is_empty() {
                part.activations.clear();
            }
        }
        if applied.changed.is_empty() {
            report.due.clear();
        }
    }
    report.exit_code = report.outcome.code();
    account(report, &applied, activation.decided, activation.choice);
    // what a daemon says goes through as it is
    for problem in &mut report.problems {
        problem.what = mask(&problem.what, activation.secrets);
    }
    applied.class().is_none()
}

/// The way back from an earlier run that was cut off, where a unit that it had turned is not well and this run has nothing of its
/// own to take back for it.
fn interrupted(session: &Session, plan: &Plan, applied: &Applied) -> Option<Plan> {
    let End::RollbackFailed { by_hand, unwell, .. } = &applied.end else { return None };
    let turns: Vec<_> = plan.turns.iter().filter(|turn| unwell.iter().any(|(unit, _)| *unit == turn.unit)).cloned().collect();
    if by_hand.is_empty() { interrupted_run(session.now(), &turns) } else { None }
}

fn failures(applied: &Applied) -> Vec<Problem> {
    let told = |error: &crate::apply::ApplyError| {
        let mut what = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            what = format!("{what}: {error}");
            cause = error.source();
        }
        Problem::error("apply", what, error.help().unwrap_or_default())
    };
    match &applied.end {
        End::Unchanged | End::Applied => Vec::new(),
        End::Refused(error) | End::RolledBack(error) => vec![told(error)],
        End::Stayed { why, unwell, dead_ends } => {
            [told(why)].into_iter().chain(unwell.iter().map(not_well)).chain(dead_ends.iter().map(stays)).collect()
        }
        End::RollbackFailed { why, by_hand, unwell } => {
            let mut problems = vec![told(why)];
            problems.extend(unwell.iter().map(|(unit, why)| {
                let Problem { code, what, help, .. } = not_well(&(unit.clone(), why.clone()));
                Problem::error(code, what, format!("{help}; `nodeprep revert` gives back the files of before nodeprep"))
            }));
            problems.extend(by_hand.iter().map(|(path, error)| {
                let help = format!("restore {path} by hand; its content from before is in {}/blobs", crate::flow::STATE);
                Problem::error("not-rolled-back", format!("{path} is not as it was: {}", super::session::problem(error).what), help)
            }));
            problems
        }
    }
}

fn not_well((unit, why): &(String, String)) -> Problem {
    let help = format!("read `journalctl -u {unit}` and mend what it says, then `systemctl restart {unit}`");
    Problem::error("not-well", format!("{unit} is not well: {why}"), help)
}

/// That nothing was put back for a unit.
fn stays((unit, why): (&String, &String)) -> Problem {
    let what = format!("nothing was put back for {unit}, because before the change it would not have come up either: {why}");
    Problem::error("no-way-back", what, format!("mend what `journalctl -u {unit}` says, then `systemctl restart {unit}` and run again"))
}

/// How long a trust store's command may take: it hashes a few hundred files, on the slowest board in seconds.
const PATIENCE: Duration = Duration::from_secs(120);
