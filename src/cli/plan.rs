//! `nodeprep plan`: what would change, why, and what it disrupts.

use clap::Args;

use super::activate::unit_reports;
use super::preflight::{Asks, dead_ends, no_way_back};
use super::session::{Session, Stopped, secrets, spec};
use super::{Ended, OutputArgs, PassArgs, runtimes};
use crate::desired::{PAUSED, Refusal};
use crate::model::problem::Problem;
use crate::plan::whole::{Planned, problems};
use crate::report::exit::Outcome;
use crate::report::plan::{Tense, parts, text};
use crate::report::style::Style;
use crate::report::{Report, SpecReport};

use crate::spec::Spec;

/// Arguments of `plan`.
#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    #[command(flatten)]
    pass: PassArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// End with exit code 10 when there are changes to make.
    #[arg(long)]
    exit_code: bool,
}

impl PlanArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| text(report, Tense::Will, true, style))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.pass.root)?;
        let (spec, problems) = spec(&self.pass.spec, Some(&root))?;
        let mut session = Session::open(root, &self.pass.choices.runtimes)?;
        session.guard(&spec, &self.pass.choices)?;
        session.configure(&spec, &self.pass.choices);
        let paused = session.heed();
        let (mut planned, unready) = session.gated(&spec, &self.pass.choices, &self.pass.probe, Asks::ToKnow);
        let choice = self.pass.activate.choice(&session.snapshot.probes);
        let decided = session.decide(&mut planned, &choice);
        let outcome = match refused(&planned) {
            Some(outcome) => outcome,
            None if planned.keeps_back() => Outcome::VerifyFailed,
            None if paused.is_some() || planned.leaves_alone() => Outcome::Paused,
            None if self.exit_code && !planned.is_empty() => Outcome::Pending,
            None => Outcome::Converged,
        };
        let ends = no_way_back(&dead_ends(&session, &planned.plan, &self.pass.probe.preflight));
        let problems = problems.into_iter().chain(paused).chain(unready).chain(ends).chain(runtimes::in_use(&session, &planned)).collect();
        let report = report(&session, &spec, &planned, problems, outcome);
        Ok(Report { units: unit_reports(&decided, &choice), ..report })
    }
}

/// The outcome of the worst refusal. That something is paused is none of the node's.
pub(super) fn refused(planned: &Planned) -> Option<Outcome> {
    planned.refusal().filter(|refusal| problems(refusal).iter().any(|problem| problem.code != PAUSED)).map(|refusal| match refusal {
        Refusal::Conflict(_) => Outcome::Conflict,
        Refusal::Cannot(_) => Outcome::Cannot,
    })
}

/// The report on a plan.
pub(super) fn report(session: &Session, spec: &Spec, planned: &Planned, mut problems: Vec<Problem>, outcome: Outcome) -> Report {
    problems.extend(session.nothing_found());
    problems.extend(session.unseen());
    problems.extend(planned.plan.notes.iter().cloned());
    Report {
        spec: Some(SpecReport { digest: spec.digest, references: spec.references.clone() }),
        runtimes: session.found.clone(),
        parts: session.awake(parts(Some(spec), planned, &session.snapshot.tree, &secrets(spec))),
        due: session.due(&planned.plan.activate),
        problems,
        ..Report::new(outcome)
    }
}
