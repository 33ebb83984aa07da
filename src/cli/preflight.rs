//! Before the first byte: would the installed containerd come up with config.toml as it will be (docs/adr/0015)?

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use super::PreflightArgs;
use super::session::Session;
use crate::desired::Target;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::node::shadow::{OWN_PROGRAM, Tried, try_out};
use crate::plan::Plan;
use crate::plan::build::overlay_plan;
use crate::plan::turn::Turning;
use crate::plan::whole::Planned;
use crate::runtime::FoundRuntime;
use crate::runtime::containerd::shadow::{Shadow, shadow};

/// The code of what could not be tried.
const IMPOSSIBLE: &str = "preflight-impossible";
/// How long one daemon may take to come up: it takes a fraction of a second, on the slowest board a few.
const PATIENCE: Duration = Duration::from_secs(15);

/// What the answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// Somebody wants to see what would be done: that it cannot be tried from here is a warning.
    ToKnow,
    /// It is about to be done.
    ToDo,
}

/// Tries what a plan changes; the targets that may not be touched, and why. What is only to be told goes to `told`.
pub(super) fn refusals(
    session: &Session,
    planned: &Planned,
    args: &PreflightArgs,
    asks: Asks,
    told: &mut Vec<Problem>,
) -> Vec<(Target, Problem)> {
    if args.no_preflight {
        told.extend(untried(session, planned));
        return Vec::new();
    }
    let refused = |(target, shadow): (Target, Shadow)| {
        let Shadow { program, config, .. } = &shadow;
        let (code, what, help) = match try_out(&session.root, &shadow, Path::new(OWN_PROGRAM), PATIENCE) {
            Tried::Works => {
                tracing::debug!(config = config.as_str(), "preflight: containerd comes up with it");
                return None;
            }
            Tried::NoProgram => return None,
            Tried::Fails(words) => (
                "preflight-failed",
                format!("{program} would not come up with {config} as it is to be: {}", words.join("; ")),
                format!("repair {config} and what it imports; nothing was changed for this containerd"),
            ),
            Tried::CouldNotTry(why) => (
                IMPOSSIBLE,
                format!("{config} is to change, and it could not be tried whether {program} comes up with it: {why}"),
                "make the trial possible: it is not applied without one, unless with --no-preflight".to_owned(),
            ),
        };
        Some((target, Problem::error(code, what, help).at(Place::file(config.as_str()))))
    };
    let mut refusals: Vec<_> = to_try(session, planned).into_iter().filter_map(refused).collect();
    if asks == Asks::ToKnow {
        let untried = refusals.extract_if(.., |(_, problem)| problem.code == IMPOSSIBLE);
        told.extend(untried.map(|(_, problem)| Problem { severity: Severity::Warning, ..problem }));
    }
    refusals
}

/// The units that are restarted because of `plan` and whose daemon would not come up with what is there now: for them nothing is put
/// back. Of what cannot be tried that is not known, and the way back is open.
pub(super) fn dead_ends(session: &Session, plan: &Plan, args: &PreflightArgs) -> BTreeMap<String, String> {
    if args.no_preflight || !session.root.is_live() || plan.turns.is_empty() {
        return BTreeMap::new();
    }
    let before = &session.snapshot.tree;
    let after = overlay_plan(before, plan);
    let mut found = BTreeMap::new();
    for turn in plan.turns.iter().filter(|turn| turn.turning == Turning::Restart) {
        let reads = |on: &&FoundRuntime| turn.serves.iter().any(|one| one.who == Target::Containerd(on.config.clone()));
        // without a file it comes up with what is built in
        for on in session.found.iter().filter(reads).filter(|on| before.exists(&on.config)) {
            let Some(shadow) = shadow(&after, before, on) else { continue };
            if let Tried::Fails(words) = try_out(&session.root, &shadow, Path::new(OWN_PROGRAM), PATIENCE) {
                let why = format!("{} would not come up with what was in {} before: {}", shadow.program, shadow.config, words.join("; "));
                found.insert(turn.unit.clone(), why);
            }
        }
    }
    found
}

/// That there is no way back, said before it is needed.
pub(super) fn no_way_back(dead_ends: &BTreeMap<String, String>) -> Vec<Problem> {
    let told = |(unit, why): (&String, &String)| {
        let what = format!("{why}; if {unit} is not well after its restart, nothing is put back for it");
        Problem::warning("no-way-back", what, "repair the file first, or go on: with what is planned it comes up")
    };
    dead_ends.iter().map(told).collect()
}

fn untried(session: &Session, planned: &Planned) -> Vec<Problem> {
    let told = |(_, Shadow { program, config, .. }): (Target, Shadow)| {
        let what = format!("{config} is to change, and it was not tried whether {program} comes up with it (--no-preflight)");
        Problem::warning("preflight-skipped", what, format!("try it with `{program} --config {config} config dump` at least"))
    };
    to_try(session, planned).into_iter().map(told).collect()
}

fn to_try(session: &Session, planned: &Planned) -> Vec<(Target, Shadow)> {
    let probes = &session.snapshot.probes;
    if !(probes.live || probes.unseen) || planned.is_empty() {
        return Vec::new();
    }
    let before = &session.snapshot.tree;
    let after = overlay_plan(before, &planned.plan);
    let of = |on: &FoundRuntime| Some((Target::Containerd(on.config.clone()), shadow(before, &after, on)?));
    session.found.iter().filter_map(of).collect()
}
