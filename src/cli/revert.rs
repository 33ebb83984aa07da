//! `nodeprep revert`: give back what was there before nodeprep.

use clap::Args;

use super::activate::ActivateArgs;
use super::apply::{Activation, carry_out};
use super::plan::refused;
use super::preflight::{Asks, dead_ends, refusals};
use super::remembered::attempt;
use super::session::{Session, Stopped};
use super::{Ended, OutputArgs, PreflightArgs, RootArgs};
use crate::apply::tidy;
use crate::flow::try_bundle;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::node::lock::Lock;
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
        tidy(&root, &state)?;
        let session = Session::open(root, &[])?;
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
        let choice = self.activate.choice(session.snapshot.probes.live);
        let decided = session.decide(&mut planned, &choice);
        planned.plan.attempt = attempt(&session, &decided, None);
        planned.plan.dead_ends = dead_ends(&session, &planned.plan, &self.preflight);
        let mut report = Report::new(refused(&planned).unwrap_or(Outcome::Converged));
        report.problems = problems;
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
            guard: self.activate.guard(&session.state),
        };
        carry_out(&session, &planned.plan, activation, &mut report);
        Ok(report)
    }
}
