//! The gate before the first byte: sources that would be left without any endpoint that answers. Pure.

use std::collections::BTreeMap;

use super::online::Endpoint;
use super::probe::Seen;
use super::{Check, Outcome};
use crate::model::host::Host;
use crate::model::problem::{Problem, Severity};
use crate::spec::{Fallback, Spec};

/// The endpoints that are not asked in this way yet: those of `after` that are not among `before`.
#[must_use]
pub fn new(before: &[Endpoint], after: Vec<Endpoint>) -> Vec<Endpoint> {
    after.into_iter().filter(|endpoint| !before.iter().any(|known| known.is_reached_like(endpoint))).collect()
}

/// What would break with what was `seen` of the new endpoints: an error for each closed source none of whose endpoints answers,
/// a warning for each other endpoint that does not. `required`: else all are warnings.
#[must_use]
pub fn unready(spec: &Spec, endpoints: &[Endpoint], seen: &[Seen], required: bool) -> Vec<Problem> {
    let checks = super::online::of_endpoints(endpoints, seen);
    let failed: BTreeMap<&Host, &Check> = endpoints
        .iter()
        .zip(&checks)
        .filter(|(_, check)| check.result == Outcome::Failed)
        .map(|(endpoint, check)| (endpoint.host(), check))
        .collect();
    let mut problems = Vec::new();
    let mut told = Vec::new();
    for mirror in spec.mirrors.iter().filter(|mirror| mirror.fallback == Fallback::Never) {
        let dead: Vec<&Check> = mirror.endpoints.iter().filter_map(|endpoint| failed.get(&endpoint.host).copied()).collect();
        if dead.len() < mirror.endpoints.len() {
            continue;
        }
        told.extend(mirror.endpoints.iter().map(|endpoint| &endpoint.host));
        let why: Vec<String> =
            mirror.endpoints.iter().zip(&dead).map(|(endpoint, check)| format!("{}: {}", endpoint.host, check.found)).collect();
        let what = format!("no endpoint of {} answers, and nothing else may be asked: {}", mirror.source, why.join("; "));
        let help = dead.first().map(|check| check.help.clone()).unwrap_or_default();
        let problem =
            if required { Problem::error("endpoint-unready", what, help) } else { Problem::warning("endpoint-unready", what, help) };
        problems.push(problem.at(mirror.at.clone()));
    }
    for (host, check) in failed.iter().filter(|(host, _)| !told.contains(host)) {
        problems.push(Problem::warning("endpoint-unready", format!("{host} does not answer: {}", check.found), check.help.clone()));
    }
    problems.sort_by_key(|problem| std::cmp::Reverse(problem.severity.max(Severity::Note)));
    problems
}
