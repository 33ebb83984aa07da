//! The way back: everything that the ledger owns. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::activation::{activations, cut_off, go_before, refresh_back, take_over};
use super::build::{Now, overlay_plan};
use super::give_back::give_back;
use super::turn::{Turn, Turning};
use super::whole::{Planned, PlannedPart, keep, readers};
use super::{Act, Activation, How, Plan, store};
use crate::desired::{Part, Refusal, Target};
use crate::ledger::{Ledger, Owned, Owns, Prior, Was};
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::runtime::FoundRuntime;

/// Plans to give back what was there before nodeprep. A target in which something cannot be given back is left as it is, with
/// the reason; `refresh` is the trust store's command, `orphans` what it would lose, `preflight` targets whose daemon would not come
/// up with what was there before.
#[must_use]
pub fn plan(
    now: Now<'_>,
    found: &[FoundRuntime],
    refresh: Option<&Activation>,
    orphans: &[Problem],
    preflight: &[(Target, Problem)],
) -> Planned {
    let mut whole = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
    let targets: BTreeSet<&Target> = now.ledger.owned.values().map(|owned| &owned.target).gathered();
    let mut parts = Vec::new();
    for target in targets {
        let mut steps = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
        give_back(&mut steps, now, target, |_| false);
        for step in steps.switch.iter_mut().chain(&mut steps.retire) {
            let why = if matches!(step.act, Act::Remove) { "was not there before nodeprep" } else { "as it was before nodeprep" };
            why.clone_into(&mut step.why);
        }
        let part = Part::new(target.clone());
        let orphaned = *target == Target::Trust && !orphans.is_empty();
        let fails = preflight.iter().filter(|(other, _)| other == target).map(|(_, problem)| problem.clone()).collect::<Vec<_>>();
        let refused = match refusal(&steps) {
            _ if orphaned => Some(Refusal::Conflict(orphans.to_vec())),
            None if !fails.is_empty() => Some(Refusal::Cannot(fails)),
            refused => refused,
        };
        if refused.is_some() {
            keep(&mut whole, now, |other| other == target);
            parts.push(PlannedPart { part, refused, activations: Vec::new() });
            continue;
        }
        go_before(&mut steps, &readers(target, found));
        let mut needed = activations(&part, &steps, &readers(target, found));
        let changes = !(steps.switch.is_empty() && steps.retire.is_empty());
        needed.extend(refresh.filter(|_| *target == Target::Trust && (changes || cut_off(now.ledger))).cloned());
        whole.activate.extend(needed.iter().filter(|activation| activation.how != How::Nothing).cloned());
        whole.switch.append(&mut steps.switch);
        whole.retire.append(&mut steps.retire);
        whole.owned.append(&mut steps.owned);
        parts.push(PlannedPart { part, refused: None, activations: needed });
    }
    // who goes on believing a CA that goes has to be told
    if let Ok(family) = crate::trust::family(now.tree)
        && let Some(part) = parts.iter_mut().find(|part| part.part.target == Target::Trust && part.refused.is_none() && now.live)
        && part.activations.iter().any(|activation| matches!(activation.how, How::Refresh(_)))
    {
        let after = overlay_plan(now.tree, &whole);
        let needs = store::activations(None, &after, found, &NodePath::fixed(family.bundle));
        whole.activate.extend(needs.iter().filter(|need| need.how != How::Nothing).cloned());
        part.activations.extend(needs);
    }
    take_over(&mut whole, &mut parts, now, found, Vec::new());
    whole.spec = now.ledger.spec.clone().filter(|_| !whole.owned.is_empty());
    Planned { plan: whole, parts }
}

/// The way back from a run that was cut off after it had turned units which are not well now. `None` where nothing of it can be put
/// back.
#[must_use]
pub fn interrupted(now: Now<'_>, unwell: &[Turn]) -> Option<Plan> {
    let plan = undo(now, unwell).ok()?;
    (!(plan.switch.is_empty() && plan.retire.is_empty())).then_some(plan)
}

/// The way back from a run that was cut off: all its files become as they were before it, and what it has `turned` is turned once
/// more.
///
/// # Errors
/// What cannot be put back; nothing may be done then.
pub fn undo(now: Now<'_>, turned: &[Turn]) -> Result<Plan, Vec<Problem>> {
    let Some(open) = &now.ledger.open else { return Ok(Plan::default()) };
    let mut past = Ledger { owned: Owns::new(), ..now.ledger.clone() };
    for (path, prior) in &open.before {
        if let Some(owned) = now.ledger.owned.get(path) {
            past.owned.insert(path.clone(), Owned { origin: prior.clone(), shared: false, ..Owned::clone(owned) }.into());
        }
    }
    let was = open.was.clone().unwrap_or_else(|| Was { spec: now.ledger.spec.clone(), adopted: now.ledger.adopted.clone() });
    let mut plan = Plan { dirs: now.ledger.dirs.clone(), due: now.ledger.due.clone(), ..Plan::default() };
    let targets: BTreeSet<&Target> = past.owned.values().map(|owned| &owned.target).collect();
    for target in &targets {
        give_back(&mut plan, Now { ledger: &past, ..now }, target, |_| false);
    }
    if !plan.notes.is_empty() {
        return Err(plan.notes);
    }
    for step in plan.switch.iter_mut().chain(&mut plan.retire) {
        "as before the run that was cut off".clone_into(&mut step.why);
    }
    // what that run has brought to the node is ours no more, and the rest is as it was left before
    for (path, owned) in &now.ledger.owned {
        let mut owned = Arc::clone(owned);
        if let Some(before) = past.owned.get(path) {
            if before.origin == owned.origin {
                continue;
            }
            if let Prior::File { blob, meta } = &before.origin
                && let Some(bytes) = now.blobs.get(blob)
            {
                Arc::make_mut(&mut owned).now = now.ledger.stamp(bytes, meta.mode);
            }
        }
        plan.owned.insert(path.clone(), owned);
    }
    plan.adopted = was.adopted;
    plan.spec = was.spec.filter(|_| !plan.owned.is_empty());
    if targets.contains(&Target::Trust) || cut_off(now.ledger) {
        plan.activate.extend(refresh_back(now.tree));
        plan.back.clone_from(&plan.activate);
    }
    // as on every way back: units are turned when all of it is as before
    plan.switch.append(&mut plan.retire);
    let again = |turn: &Turn| {
        let how = turn.serves.iter().map(|need| if matches!(need.how, How::Reload(_)) { Turning::Reload } else { Turning::Restart });
        Turn { turning: how.max().unwrap_or(Turning::Restart), proof: turn.proof.going_back(), ..turn.clone() }
    };
    plan.turns = turned.iter().map(again).collect();
    plan.attempt = open.attempt.clone().unwrap_or_default();
    plan.returns = true;
    Ok(plan)
}

/// What cannot be given back is somebody's later change: a conflict.
fn refusal(steps: &Plan) -> Option<Refusal> {
    let mut problems = steps.notes.clone();
    for problem in &mut problems {
        problem.severity = Severity::Error;
    }
    (!problems.is_empty()).then_some(Refusal::Conflict(problems))
}
