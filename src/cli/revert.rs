//! `nodeprep revert`: give back what was there before nodeprep.

use clap::Args;

use super::activate::ActivateArgs;
use super::apply::{Activation, carry_out};
use super::plan::refused;
use super::preflight::{Asks, dead_ends, refusals};
use super::remembered::attempt;
use super::session::{Session, Stopped};
use super::source::forget;
use super::trail::Trail;
use super::{Ended, OutputArgs, PreflightArgs, RootArgs};
use crate::apply::tidy;
use crate::flow::try_bundle;
use crate::model::path::NodePath;
use crate::model::pause::{By, Pause};
use crate::model::problem::Problem;
use crate::node::lock::Lock;
use crate::node::probe::{now, uid};
use crate::node::root::Root;
use crate::plan::activation::refresh_back;
use crate::plan::back;
use crate::report::exit::Outcome;
use crate::report::plan::{Tense, parts, text};
use crate::report::style::Style;
use crate::report::{PartState, Report};

/// Arguments of `revert`.
#[derive(Debug, Args)]
pub(super) struct Revert {
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    preflight: PreflightArgs,
    #[command(flatten)]
    activate: ActivateArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Revert {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| text(report, Tense::Did, false, style))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.root)?;
        let state = NodePath::fixed(crate::flow::STATE);
        let _lock = Lock::take(&root, &state)?;
        let trail = Trail::of(&root, "revert");
        let mut ended = self.locked(root, &state, &trail);
        trail.ended(&mut ended);
        ended
    }

    fn locked(&self, root: Root, state: &NodePath, trail: &Trail) -> Result<Report, Stopped> {
        tidy(&root, state)?;
        let session = Session::open(root, &[])?;
        trail.interrupted(&session);
        session.sweep()?;
        let refresh = refresh_back(&session.snapshot.tree);
        let plan = |orphans: &[Problem], preflight: &[_]| back::plan(session.now(), &session.found, refresh.as_ref(), orphans, preflight);
        let planned = plan(&[], &[]);
        let orphans = session.orphans(&planned, None);
        // what never worked is nothing to go back to
        let mut problems = Vec::new();
        let preflight = refusals(&session, &planned, &self.preflight, Asks::ToDo, &mut problems);
        let mut planned = if orphans.is_empty() && preflight.is_empty() { planned } else { plan(&orphans, &preflight) };
        try_bundle(&mut planned, &session.snapshot);
        let choice = self.activate.choice(&session.snapshot.probes);
        let decided = session.decide(&mut planned, &choice);
        planned.plan.attempt = attempt(&session, &decided, None);
        planned.plan.dead_ends = dead_ends(&session, &planned.plan, &self.preflight);
        let mut report = Report::new(refused(&planned).unwrap_or(Outcome::Converged));
        report.problems = problems.into_iter().chain(session.unseen()).collect();
        report.runtimes.clone_from(&session.found);
        report.parts = session.awake(parts(None, &planned, &session.snapshot.tree, &[]));
        // somebody has already taken away what we left there
        report.parts.retain(|part| part.state != PartState::Converged);
        if session.ledger.owned.is_empty() {
            let what = "nodeprep owns nothing on this node";
            report.problems.push(Problem::warning("nothing-owned", what, "check --root if this is not the node that you mean"));
        }
        let activation = Activation {
            choice: &choice,
            decided: &decided,
            health: self.activate.health(),
            preflight: &self.preflight,
            secrets: &[],
            trail,
            guard: self.activate.guard(&session.state),
        };
        // before anything is given back: who runs by himself would take it again at once
        report.problems.extend(given_back(&session));
        let done = carry_out(&session, &planned.plan, activation, &mut report);
        if done && planned.plan.owned.is_empty() {
            forget(&session.root, &mut report);
        }
        Ok(report)
    }
}

/// Lets wait who runs by himself; what is to be told of that.
fn given_back(session: &Session) -> Vec<Problem> {
    let reason = "the node was given back".to_owned();
    let pause = Pause { paths: Vec::new(), since: now(), until: None, reason, by: By::Revert, uid: uid() };
    super::pause::write(&session.root, &pause).map_or_else(
        |stopped| {
            let unpaused = |problem: Problem| {
                let what = format!("an agent or a unit at boot may take the node again, because it could not be paused: {}", problem.what);
                Problem::warning("not-paused", what, "stop and disable what runs nodeprep by itself")
            };
            stopped.problems.into_iter().map(unpaused).collect()
        },
        |untold| untold.into_iter().collect(),
    )
}
