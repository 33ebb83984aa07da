//! The gate before the first byte: what is tried of a plan, and which targets keep back what does not answer. Pure; what keeping
//! back means is [`crate::plan::hold`]'s.

use std::collections::BTreeSet;

use super::Outcome;
use super::online::{Endpoint, endpoints_of, of_endpoints};
use super::probe::Seen;
use crate::desired::Target;
use crate::model::host::Host;
use crate::model::problem::Problem;
use crate::model::resolution::Resolution;
use crate::model::tree::Tree;
use crate::plan::hold::{Silent, Unready, reasons, without_endpoint};
use crate::plan::whole::readers;
use crate::runtime::{FoundRuntime, Runtime, View};
use crate::spec::{OnUnready, Spec};

/// Whether a target keeps back what does not answer, when nothing is said: where its runtime runs. What is stopped may be so
/// because the node is still being made, and its network with it. Podman is no daemon: what is written counts at once.
#[must_use]
pub fn keeps_back(target: &Target, found: &[FoundRuntime]) -> bool {
    let daemons: Vec<_> = readers(target, found).into_iter().filter(|reader| reader.runtime != Runtime::Podman).collect();
    daemons.is_empty() || daemons.iter().any(|reader| reader.running.is_some())
}

/// The endpoints of everything that is asked otherwise in `after` than in `before`, those that are asked now included: what is
/// changed has to work afterwards.
#[must_use]
pub fn changed(spec: &Spec, before: &Tree, after: &Tree, roots: &Tree, found: &[FoundRuntime]) -> Vec<Endpoint> {
    let now: Vec<(&FoundRuntime, View)> =
        found.iter().filter_map(|reader| Some((reader, reader.view(before, *reader.dialects(before).first()?)))).collect();
    let differs = |reader: &FoundRuntime, then: &Resolution| {
        let view = now.iter().find(|(other, _)| std::ptr::eq(*other, reader)).map(|(_, view)| view);
        view.is_none_or(|view| !view.resolve(&then.image).same(then))
    };
    endpoints_of(Some(spec), after, roots, found, &[], differs)
}

/// What came of the endpoints, `seen` in the order of all their ways: what each target that keeps things back does so for, and
/// warnings about the rest.
#[must_use]
pub fn judge(
    spec: &Spec,
    endpoints: &[Endpoint],
    seen: &[Seen],
    found: &[FoundRuntime],
    keeps: impl Fn(&Target) -> bool,
) -> (Unready, Vec<Problem>) {
    let checks = of_endpoints(endpoints, seen);
    let failed: Vec<_> = endpoints.iter().zip(&checks).filter(|(_, check)| check.result == Outcome::Failed).collect();
    let (mut unready, mut problems) = (Unready::new(), Vec::new());
    for target in targets(found) {
        let of_target = readers(&target, found);
        let Some(first) = of_target.first() else { continue };
        let concerns = |endpoint: &Endpoint| of_target.iter().any(|reader| endpoint.readers.contains(&reader.runtime));
        let silent: Silent = failed
            .iter()
            .filter(|(endpoint, _)| concerns(endpoint))
            .map(|(endpoint, check)| (endpoint.host().clone(), (check.found.clone(), check.help.clone())))
            .collect();
        if silent.is_empty() {
            continue;
        }
        let keeps = keeps(&target);
        for problem in warnings(&spec.for_runtime(first.runtime), &silent, keeps) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        if keeps {
            unready.insert(target, silent);
        }
    }
    (unready, problems)
}

/// The targets that say what is pulled from where.
fn targets(found: &[FoundRuntime]) -> BTreeSet<Target> {
    let of = |reader: &FoundRuntime| match reader.runtime {
        Runtime::Containerd => Target::Containerd(reader.config.clone()),
        Runtime::Crio | Runtime::Podman => Target::Containers,
    };
    found.iter().map(of).collect()
}

/// What is not kept back: sources that are written anyway, and single hosts.
fn warnings(spec: &Spec, silent: &Silent, keeps: bool) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut told: BTreeSet<&Host> = BTreeSet::new();
    for mirror in without_endpoint(spec, silent) {
        told.extend(mirror.endpoints.iter().map(|endpoint| &endpoint.host));
        if !keeps || mirror.on_unready == OnUnready::Apply {
            let (why, help) = reasons(mirror, silent);
            let what = format!("no endpoint of {} answers, and nothing else may be asked: {why}", mirror.source);
            problems.push(Problem::warning("endpoint-unready", what, help).at(mirror.at.clone()));
        }
    }
    for (host, (why, help)) in silent.iter().filter(|(host, _)| !told.contains(host)) {
        problems.push(Problem::warning("endpoint-unready", format!("{host} does not answer: {why}"), help.clone()));
    }
    problems
}
