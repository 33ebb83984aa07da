//! The gate before the first byte: what is tried of a plan, and which targets keep back what does not answer. Pure; what keeping
//! back means is [`crate::plan::hold`]'s.

use std::collections::BTreeSet;

use super::online::{Endpoint, each, endpoints_of};
use super::probe::{Seen, Stage};
use super::{Check, Outcome};
use crate::desired::Target;
use crate::model::host::Host;
use crate::model::order::Gather as _;
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
    endpoints_of(Some(spec), after, roots, found, &[], false, differs)
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
    let (mut unready, mut problems) = (Unready::new(), Vec::new());
    for target in targets(found) {
        let of_target = readers(&target, found);
        let Some(first) = of_target.first() else { continue };
        let runtimes: BTreeSet<Runtime> = of_target.iter().map(|reader| reader.runtime).gathered();
        let checks: Vec<(&Endpoint, Check)> = each(endpoints, seen)
            .filter_map(|(endpoint, seen)| Some((endpoint, endpoint.found(&(&endpoint.readers & &runtimes), seen)?)))
            .collect();
        for problem in checks.iter().filter_map(|(endpoint, check)| untold(endpoint, check)) {
            if !problems.contains(&problem) {
                problems.push(problem);
            }
        }
        let failed = checks.into_iter().filter(|(_, check)| check.result == Outcome::Failed);
        let silent: Silent = failed.map(|(endpoint, check)| (endpoint.host().clone(), (check.found, check.help))).gathered();
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

/// What could not be tried to the end. Where a login goes that is not sent from here is asked apart (`tokens`).
fn untold(endpoint: &Endpoint, check: &Check) -> Option<Problem> {
    let login = check.found.starts_with(&format!("{}:", Stage::Login));
    let what = || format!("whether {} can be used could not be told: {}", endpoint.host(), check.found);
    let told = check.result == Outcome::CouldNotRun && !login;
    told.then(|| Problem::warning("endpoint-untold", what(), check.help.clone()))
}

/// The targets that say what is pulled from where.
fn targets(found: &[FoundRuntime]) -> BTreeSet<Target> {
    let of = |reader: &FoundRuntime| match reader.runtime {
        Runtime::Containerd => Target::Containerd(reader.config.clone()),
        Runtime::Crio | Runtime::Podman => Target::Containers,
    };
    found.iter().map(of).gathered()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::NodePath;
    use crate::model::time::Time;
    use crate::runtime::{Presence, Running};
    use crate::spec::load::Draft;

    fn found(runtime: Runtime, runs: bool) -> FoundRuntime {
        let running = runs.then(|| Running { pid: 1, started: Time::from_secs(1), version: None, socket: None });
        let config = NodePath::fixed("/etc/containerd/config.toml");
        let because = NodePath::fixed("/usr/bin/x");
        FoundRuntime { runtime, presence: Presence::There, because, installed: None, running, config, unit: None, env: Vec::new() }
    }

    #[test]
    fn what_is_stopped_is_only_warned_of() {
        let containerd = Target::Containerd(NodePath::fixed("/etc/containerd/config.toml"));
        for runs in [true, false] {
            assert_eq!(keeps_back(&containerd, &[found(Runtime::Containerd, runs)]), runs);
            assert_eq!(keeps_back(&Target::Containers, &[found(Runtime::Crio, runs), found(Runtime::Podman, false)]), runs);
        }
        assert!(keeps_back(&Target::Containers, &[found(Runtime::Podman, false)]), "it reads its files at every command");
    }

    #[test]
    fn what_is_not_kept_back_is_told() {
        let text = "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"a.example\"\nendpoints = [\"m.example\", \"n.example\"]\n\
                    [[mirror]]\nsource = \"b.example\"\nendpoints = [\"m.example\"]\non_unready = \"apply\"\n\
                    [[mirror]]\nsource = \"c.example\"\nendpoints = [\"m.example\"]\n\
                    [[mirror]]\nsource = \"d.example\"\nendpoints = [\"m.example\"]\nfallback = \"upstream\"\n[[blocked]]\nsource = \"e.example\"\n";
        let spec = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&std::collections::BTreeMap::new(), None).spec.unwrap();
        let dead = |host: &str| (Host::new(host).unwrap(), ("it is off".to_owned(), "start it".to_owned()));
        let told = |hosts: &[&str], keeps| -> Vec<String> {
            let silent: Silent = hosts.iter().map(|host| dead(host)).collect();
            warnings(&spec, &silent, keeps).into_iter().map(|problem| problem.what).collect()
        };
        let none = |source: &str| format!("no endpoint of {source}.example answers, and nothing else may be asked: m.example: it is off");
        assert_eq!(told(&["m.example"], true), [none("b")]);
        assert_eq!(told(&["m.example"], false), [none("b"), none("c")]);
        assert_eq!(told(&["n.example"], true), ["n.example does not answer: it is off"]);
    }
}
