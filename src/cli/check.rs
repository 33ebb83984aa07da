//! `nodeprep check`: every problem of the spec, offline.

use std::fmt::Write as _;

use clap::Args;

use super::session::closed;
use super::{Ended, Output, OutputArgs, SpecArgs};
use crate::model::problem::Severity;
use crate::report::exit::Outcome;
use crate::report::style::Style;
use crate::report::{Report, problems};

/// Arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    output: OutputArgs,
}

impl Check {
    pub(super) fn run(self, style: Style) -> Ended {
        let output = self.output.output;
        let mut closed = match closed(&self.spec, None) {
            Ok(closed) => closed,
            Err(stopped) => return stopped.ended(output, style),
        };
        let mut found = std::mem::take(&mut closed.problems);
        found.extend(closed.proof());
        let failed = found.iter().any(|problem| problem.severity == Severity::Error);
        let outcome = if failed { Outcome::InvalidSpec } else { Outcome::Converged };
        let shown = match output {
            Output::Json => Report { problems: found, ..Report::new(outcome) }.to_json(),
            Output::Text => {
                let mut text = problems::render(&found, style.colour);
                if let Some(spec) = closed.spec.as_ref().filter(|_| !failed) {
                    let mirrors = crate::report::explain::plural(
                        spec.mirrors.iter().filter(|mirror| !mirror.is_blocked()).count(),
                        "mirrored source",
                    );
                    let cas = crate::report::explain::plural(spec.cas.len(), "CA");
                    let _ = writeln!(text, "{}: valid; {mirrors}, {cas}", problems::escape(&spec.file));
                }
                text
            }
        };
        Ended { shown, outcome }
    }
}
