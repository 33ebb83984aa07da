//! What failed before and was put back is not tried again by itself (docs/adr/0016).

use super::session::Session;
use crate::agent::pass::FAILED_BEFORE;
use crate::apply::memory::{Failure, Memory};
use crate::apply::{ApplyError, End, Outcome as Applied};
use crate::desired::Target;
use crate::ledger::Attempt;
use crate::model::digest::Digest;
use crate::model::problem::Problem;
use crate::model::secret::{Secret, mask};
use crate::node::{memory, probe};
use crate::plan::Plan;
use crate::plan::turn::{Turning, Turns};
use crate::plan::whole::Planned;
use crate::report::Report;
use crate::spec::Spec;

/// What the units of a plan are turned for.
pub(super) fn attempt(session: &Session, decided: &Turns, spec: Option<Digest>) -> Attempt {
    let units = decided.turns.iter().map(|turn| (turn.unit.clone(), version(session, &turn.unit))).collect();
    Attempt { spec, units }
}

/// The version on disk of the runtime that a unit starts: that is what a restart gives.
fn version(session: &Session, unit: &str) -> String {
    let of_unit = session.found.iter().find(|found| found.unit_name().as_deref() == Some(unit));
    of_unit.and_then(|found| found.installed).map(|version| version.to_string()).unwrap_or_default()
}

/// The targets that stay as they are, because a unit would be turned for them that was not well with the same before.
pub(super) fn refusals(session: &Session, planned: &Planned, spec: &Spec, retry: bool) -> Vec<(Target, Problem)> {
    if retry || session.memory.units.is_empty() {
        return Vec::new();
    }
    let refusal = |target: &Target, unit: &str| {
        let failure = session.memory.against(unit, spec.digest, &version(session, unit), probe::now())?;
        Some((target.clone(), problem(unit, failure)))
    };
    let parts = planned.parts.iter().filter(|part| part.refused.is_none());
    let units = parts.flat_map(|part| part.activations.iter().filter_map(move |one| Some((&part.part.target, one.how.unit()?))));
    let mut refused: Vec<(Target, Problem)> = Vec::new();
    for (target, unit) in units {
        if !refused.iter().any(|(known, _)| known == target) {
            refused.extend(refusal(target, unit));
        }
    }
    refused
}

fn problem(unit: &str, failure: &Failure) -> Problem {
    let version = if failure.runtime.is_empty() { String::new() } else { format!(" and version {}", failure.runtime) };
    let what = format!("{unit} was not well with this spec{version} on {}, and everything was put back: {}", failure.when, failure.said);
    let mend = format!("mend what `journalctl -u {unit}` says and run `nodeprep apply --retry`");
    let help = match failure.until() {
        Some(until) => format!("{mend}; it is tried again by itself after {until}, and with another spec"),
        None => format!("{mend}; it is tried again by itself with another spec or another version"),
    };
    Problem::error(FAILED_BEFORE, what, help)
}

/// Writes down what failed and was put back, and forgets what is well now.
pub(super) fn remember(session: &Session, plan: &Plan, applied: &Applied, secrets: &[Secret], report: &mut Report) {
    let mut memory = session.memory.clone();
    match &applied.end {
        End::RolledBack(error) => learn(&mut memory, session, plan, error, secrets),
        // that a unit is well with what was there before says nothing about what failed
        End::Applied if plan.returns => {}
        End::Applied => {
            memory.units.retain(|unit, _| !applied.turned.contains(unit));
            // everything was given back, and begins anew
            if applied.ledger.owned.is_empty() {
                memory.units.clear();
            }
        }
        End::Unchanged | End::Refused(_) | End::Stayed { .. } | End::RollbackFailed { .. } => {}
    }
    if memory != session.memory
        && let Err(error) = memory::store(&session.root, &session.state, &memory)
    {
        let what = format!("what failed could not be written down: {error}; the next run tries it again");
        report.problems.push(Problem::warning("not-remembered", what, error.help().unwrap_or_default()));
    }
}

fn learn(memory: &mut Memory, session: &Session, plan: &Plan, error: &ApplyError, secrets: &[Secret]) {
    // what an earlier run has turned was for that one's spec
    let earlier = session.ledger.open.as_ref().and_then(|open| open.attempt.as_ref());
    let proved = matches!(error, ApplyError::Unwell { turning: Turning::Prove, .. });
    let attempt = earlier.filter(|_| proved).unwrap_or(&plan.attempt);
    let said = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    memory.learn(attempt, error, probe::now(), &mask(&said, secrets));
}
