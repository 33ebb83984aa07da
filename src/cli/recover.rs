//! `nodeprep recover`: bring a run to its end that was cut off, from the ledger alone (docs/adr/0016).

use std::time::Duration;

use clap::Args;

use super::apply::{Activation, carry_out};
use super::preflight::{Asks, dead_ends, refusals};
use super::session::{Session, Stopped};
use super::trail::Trail;
use super::{Ended, OutputArgs, PreflightArgs, RootArgs};
use crate::apply::tidy;
use crate::ledger::Open;
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::node::guardian;
use crate::node::lock::Lock;
use crate::node::root::Root;
use crate::node::units::Guard;
use crate::plan::Plan;
use crate::plan::back::undo;
use crate::plan::recover::{forward, is_all_turned, is_as_planned, left_to_go, turned};
use crate::plan::turn::{Choice, Mode, Turn, Turns};
use crate::plan::whole::Planned;
use crate::report::exit::Outcome;
use crate::report::plan::{Tense, text};
use crate::report::problems::escape;
use crate::report::style::Style;
use crate::report::{Report, UnitState};

/// As long as a job of systemd may take that was begun for the run.
const JOB: Duration = Duration::from_secs(400);

/// Arguments of `recover`.
#[derive(Debug, Args)]
pub(super) struct Recover {
    #[command(flatten)]
    root: RootArgs,
    /// At boot, before a runtime starts: let the files decide, and turn no unit. What was not proved becomes as it was before.
    #[arg(long)]
    boot: bool,
    /// Wait until the run that holds the lock ends, and kill it when it has not done so by then.
    #[arg(long, hide = true, value_name = "SECONDS")]
    guard: Option<u64>,
    #[command(flatten)]
    preflight: PreflightArgs,
    /// How long a daemon may take until it is well, from the moment when its unit is active.
    #[arg(long, env = "NODEPREP_HEALTH_TIMEOUT", default_value = "120", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    health_timeout: u64,
    #[command(flatten)]
    output: OutputArgs,
}

impl Recover {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| shown(report, style))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.root)?;
        let state = NodePath::fixed(crate::flow::STATE);
        let _lock = match self.guard {
            Some(longest) => guardian::wait(&root, &state, Duration::from_secs(longest))?,
            None => Lock::take(&root, &state)?,
        };
        tidy(&root, &state)?;
        if let Some(open) = crate::apply::load_ledger(&root, &state)?.and_then(|ledger| ledger.open) {
            let trail = Trail::of(&root, "recover");
            let mut ended = self.bring_to_its_end(root, &open, &trail);
            trail.ended(&mut ended);
            ended
        } else {
            let mut report = Report::new(Outcome::Converged);
            report.problems.push(Problem::note("nothing-open", "no run was cut off", ""));
            Ok(report)
        }
    }

    fn bring_to_its_end(&self, root: Root, open: &Open, trail: &Trail) -> Result<Report, Stopped> {
        let turns = root.is_live() && !self.boot;
        if turns {
            let units: Vec<&String> = open.attempt.iter().flat_map(|attempt| attempt.units.keys()).collect();
            guardian::settle(&root, &units, JOB);
        }
        let session = Session::open(root, &[])?;
        trail.interrupted(&session);
        session.sweep()?;
        let now = session.now();
        let mut taken = forward(now, &session.found);
        // a restart that has not come yet does not come any more; whether a reload has come cannot be seen
        let choice = Choice { mode: Mode::ReloadOnly, ..Choice::default() };
        let decided = if turns { session.decide(&mut taken, &choice) } else { Turns::default() };
        let turned = turned(open, &decided);
        let as_planned = is_as_planned(now, open);
        let is_proved_by_now = if turns { is_all_turned(open, &turned) } else { open.attempt.is_none() };
        let decided = Turns { turns: turned.clone(), ..Turns::default() };
        let health = Duration::from_secs(self.health_timeout);
        let run = Ending { session: &session, choice: &choice, health, preflight: &self.preflight, trail };
        if as_planned && is_proved_by_now {
            taken.plan.turns = turned;
            return Ok(run.forward(open, &taken.plan, &decided, Vec::new()));
        }
        let back = match undo(now, &turned) {
            Ok(plan) => Planned { plan, parts: Vec::new() },
            Err(problems) => return Ok(stuck(problems)),
        };
        // what never worked is no state to go back to
        let mut told = Vec::new();
        let dead = refusals(&session, &back, &self.preflight, Asks::ToDo, &mut told);
        let dead: Vec<Problem> =
            dead.into_iter().map(|(_, problem)| problem).filter(|problem| problem.code == "preflight-failed").collect();
        if dead.is_empty() {
            return Ok(run.back(back.plan, &decided, told));
        }
        if as_planned {
            // tried before it was written, other than what was there before
            taken.plan.turns.clear();
            let warn = |problem| Problem { severity: Severity::Warning, ..problem };
            return Ok(run.forward(open, &taken.plan, &Turns::default(), dead.into_iter().map(warn).collect()));
        }
        Ok(stuck(dead))
    }
}

/// What came of it is a note, which nobody would see otherwise.
fn shown(report: &Report, style: Style) -> String {
    let notes = report.problems.iter().filter(|problem| problem.severity == Severity::Note);
    let lines: Vec<String> = notes.map(|note| format!("{}\n", escape(&note.what))).collect();
    lines.concat() + &text(report, Tense::Did, false, style)
}

/// How a run is brought to its end.
struct Ending<'a> {
    session: &'a Session,
    choice: &'a Choice,
    health: Duration,
    preflight: &'a PreflightArgs,
    trail: &'a Trail,
}

impl Ending<'_> {
    fn carry_out(&self, plan: &Plan, decided: &Turns, report: &mut Report) -> bool {
        let Self { session, choice, health, preflight, trail } = *self;
        let activation = Activation { choice, decided, health, preflight, secrets: &[], trail, guard: Guard::Nobody };
        carry_out(session, plan, activation, report)
    }

    /// Takes it as it is, if the units that it has turned are well; else it is put back.
    fn forward(&self, open: &Open, plan: &Plan, decided: &Turns, told: Vec<Problem>) -> Report {
        let mut report = Report::new(Outcome::Converged);
        report.problems = told;
        if self.carry_out(plan, decided, &mut report) {
            let why = if decided.turns.is_empty() { "its files are as planned" } else { "its files are as planned and its units are well" };
            report.problems.push(Problem::note("recovered", format!("a run was cut off: {why}, and it is taken as it is"), ""));
            for path in left_to_go(self.session.now(), open) {
                let what = format!("{path} was to go last, and is still there");
                report.problems.push(Problem::note("left-to-go", what, "the next `nodeprep apply` removes it"));
            }
        }
        report
    }

    /// Puts it back.
    fn back(&self, mut plan: Plan, decided: &Turns, told: Vec<Problem>) -> Report {
        let mut report = Report::new(Outcome::Converged);
        report.problems = told;
        plan.dead_ends = dead_ends(self.session, &plan, self.preflight);
        let decided = Turns { turns: plan.turns.clone(), ..decided.clone() };
        let done = self.carry_out(&plan, &decided, &mut report);
        if done {
            let what = "a run was cut off before it was proved; everything is as it was before it";
            report.problems.push(Problem::warning("recovered", what, "run `nodeprep apply` again"));
            report.outcome = Outcome::RolledBack;
        } else {
            report.problems.extend(by_hand(&plan.turns));
            report.outcome = Outcome::NotRolledBack;
        }
        report.exit_code = report.outcome.code();
        for unit in report.units.iter_mut().filter(|_| done) {
            unit.state = UnitState::Done;
        }
        report
    }
}

fn by_hand(turns: &[Turn]) -> Vec<Problem> {
    let what = "a run was cut off, and could not be put back";
    let restarts: Vec<String> = turns.iter().map(|turn| format!(", `systemctl restart {}`", turn.unit)).collect();
    let help = format!(
        "mend what is said above{}, then run `nodeprep apply`, or `nodeprep revert` for the files of before nodeprep",
        restarts.concat()
    );
    vec![Problem::error("not-recovered", what, help)]
}

/// It can be neither proved nor put back.
fn stuck(mut problems: Vec<Problem>) -> Report {
    problems.extend(by_hand(&[]));
    Report { problems, ..Report::new(Outcome::NotRolledBack) }
}
