//! Checks as text.

use std::fmt::Write as _;

use super::explain::plural;
use super::problems::escape;
use super::style::Style;
use crate::verify::{Check, Outcome};

/// Failures one by one, with what to do; what is fine is counted.
#[must_use]
pub fn text(checks: &[Check], style: Style) -> String {
    let mut out = String::new();
    for check in checks.iter().filter(|check| check.result != Outcome::Ok) {
        let sign = match check.result {
            Outcome::Failed => style.red("failed"),
            Outcome::Due => style.yellow("due"),
            Outcome::CouldNotRun | Outcome::Ok => style.yellow("could not run"),
        };
        let _ = writeln!(out, "{sign} [{}] {}", check.id, escape(&check.subject));
        let _ = writeln!(out, "       {}", escape(&check.found));
        for step in &check.steps {
            let line = format!("{}: {} ({} ms)", step.stage, step.found, step.took_ms);
            let _ = writeln!(out, "       {}", style.dim(&escape(&line)));
        }
        let _ = writeln!(out, "       help: {}", escape(&check.help));
    }
    let count = |result| checks.iter().filter(|check| check.result == result).count();
    let mut summary = format!("{} ok, {} failed", plural(count(Outcome::Ok), "check"), count(Outcome::Failed));
    for (result, word) in [(Outcome::CouldNotRun, "could not run"), (Outcome::Due, "due")] {
        if count(result) > 0 {
            summary = format!("{summary}, {} {word}", count(result));
        }
    }
    let _ = writeln!(out, "{summary}");
    out
}
