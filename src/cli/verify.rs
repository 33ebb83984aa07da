//! `nodeprep verify --offline`: what is on the node, ours and others', as each runtime and version reads it.

use clap::Args;

use super::session::{Session, Stopped, spec};
use super::{Ended, Output, OutputArgs, PlanChoices, RootArgs, SpecArgs, only_problems};
use crate::report::exit::Outcome;
use crate::report::style::Style;
use crate::report::verify::text;
use crate::report::{Report, problems};
use crate::verify::checks;

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Look at the node alone, without a spec: only what is ignored, hidden or broken.
    #[arg(long)]
    without_spec: bool,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    choices: PlanChoices,
    /// From the files alone. This version does nothing else.
    #[arg(long, required = true)]
    offline: bool,
    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        let report = match self.report() {
            Ok(report) => report,
            Err(stopped) => return only_problems(stopped.problems, stopped.outcome, self.output.output, style),
        };
        let shown = match self.output.output {
            Output::Json => report.to_json(),
            Output::Text if report.problems.is_empty() => text(&report.checks, style),
            Output::Text => format!("{}{}", problems::render(&report.problems, style.colour), text(&report.checks, style)),
        };
        Ended { shown, outcome: report.outcome }
    }

    fn report(&self) -> Result<Report, Stopped> {
        debug_assert!(self.offline, "clap asks for it");
        let root = Session::root(&self.root)?;
        let spec = if self.without_spec { None } else { Some(spec(&self.spec, Some(&root))?) };
        let (mut session, warning) = Session::look(root, &self.choices.runtimes)?;
        if let Some((spec, _)) = &spec {
            session.configure(spec, &self.choices);
        }
        let checks = checks(spec.as_ref().map(|(spec, _)| spec), &session.snapshot.tree, &session.found, &session.ledger.adopted);
        let failed = checks.iter().any(|check| check.result == crate::verify::Outcome::Failed);
        let outcome = if failed { Outcome::VerifyFailed } else { Outcome::Converged };
        let problems = warning.into_iter().chain(session.nothing_found()).collect();
        Ok(Report { runtimes: session.found, checks, problems, ..Report::new(outcome) })
    }
}
