//! All parts together: each is planned, proved and, if need be, left untouched on its own. Pure.

use std::fmt::Write as _;

use super::basis::{basis, files};
use super::build::{FOREIGN_FILE, Foreign, Now, add_part, overlay_plan};
use super::losses::losses;
use super::owned::left_alone;
use super::proof::{lost, prove, same_meaning, shadowed};
use super::{Activation, How, Plan, store};
use crate::desired::{Desired, PAUSED, Part, Refusal, Target};
use crate::ledger::Due;
use crate::model::digest::Digest;
use crate::model::order::{self};
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::model::tree::Tree;
use crate::runtime::{FoundRuntime, Runtime};
use crate::spec::Spec;

/// A plan, and how each part stands in it.
#[derive(Debug)]
pub struct Planned {
    /// The steps of all parts that can be done.
    pub plan: Plan,
    /// Every part, with its refusal where it is left untouched.
    pub parts: Vec<PlannedPart>,
}

/// One part in a plan.
#[derive(Debug)]
pub struct PlannedPart {
    /// What it should hold.
    pub part: Part,
    /// Why it is left untouched.
    pub refused: Option<Refusal>,
    /// What makes running programs see its changes, with what needs nothing.
    pub activations: Vec<Activation>,
}

/// The runtimes that read a target's files.
#[must_use]
pub fn readers<'a>(target: &Target, found: &'a [FoundRuntime]) -> Vec<&'a FoundRuntime> {
    let reads = |runtime: &&FoundRuntime| match target {
        Target::Containerd(config) => runtime.runtime == Runtime::Containerd && &runtime.config == config,
        Target::Containers => matches!(runtime.runtime, Runtime::Crio | Runtime::Podman),
        Target::Crio => runtime.runtime == Runtime::Crio,
        Target::Trust => false,
    };
    found.iter().filter(reads).collect()
}

/// Plans every part of `desired`; a part that cannot be done is left untouched, the others go on.
#[must_use]
pub fn plan(spec: &Spec, desired: Desired, found: &[FoundRuntime], now: Now<'_>) -> Planned {
    let mut whole = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
    let mut parts = Vec::new();
    let mut unproved = Vec::new();
    let there = files(now.tree);
    let rests_on = |part: &Part, files: Digest| basis(spec, &part.target, files, now.ledger, &readers(&part.target, found));
    // what is carried over is part of the meaning, too, and what is left alone is none of the spec's: it is proved every time
    let is_whole = |part: &Part| part.adopted.is_empty() && part.left.is_empty();
    let proved = |part: &Part| {
        let before = now.ledger.proved.get(&part.target.to_string()).filter(|_| now.ledger.open.is_none() && is_whole(part));
        before.is_some_and(|before| *before == rests_on(part, there))
    };
    for part in desired.parts {
        let readers = readers(&part.target, found);
        match plan_part(spec, &part, &readers, now, proved(&part)) {
            Ok(PartPlan { mut steps, activations, known }) => {
                if known {
                    unproved.push(parts.len());
                }
                whole.late.extend(super::activation::read_late(&steps, &readers));
                whole.dirs.append(&mut steps.dirs);
                whole.stage.append(&mut steps.stage);
                whole.switch.append(&mut steps.switch);
                whole.retire.append(&mut steps.retire);
                whole.owned.append(&mut steps.owned);
                whole.notes.append(&mut steps.notes);
                whole.adopted.append(&mut steps.adopted);
                whole.activate.extend(activations.iter().filter(|activation| activation.how != How::Nothing).cloned());
                parts.push(PlannedPart { part, refused: None, activations });
            }
            Err(refusal) => {
                keep(&mut whole, now, |target| *target == part.target);
                parts.push(PlannedPart { part, refused: Some(refusal), activations: Vec::new() });
            }
        }
    }
    let changes = !(whole.stage.is_empty() && whole.switch.is_empty() && whole.retire.is_empty());
    let after = if changes { overlay_plan(now.tree, &whole) } else { now.tree.clone() };
    // another target changes files: what was proved before is proved once more with them
    for at in unproved.into_iter().filter(|_| changes) {
        let planned: &mut PlannedPart = &mut parts[at];
        let spec = planned.part.spec.as_deref().unwrap_or(spec);
        let proof = prove(spec, &planned.part, &after, now.ledger, &readers(&planned.part.target, found));
        planned.refused = proof.map_err(|refusal| left_in_the_way(&planned.part, refusal)).err();
    }
    let there = if changes { files(&after) } else { there };
    let is_proved = |target: &Target| matches!(target, Target::Containerd(_) | Target::Containers);
    let sound = parts.iter().filter(|planned| planned.refused.is_none() && is_whole(&planned.part) && is_proved(&planned.part.target));
    whole.proved = sound.map(|planned| (planned.part.target.to_string(), rests_on(&planned.part, there))).collect();
    // targets that are not on the node any more keep what they have: the ledger still knows it for revert
    let planned = |target: &Target| parts.iter().any(|planned: &PlannedPart| &planned.part.target == target);
    keep(&mut whole, now, |target| !planned(target));
    let late = store_needs(spec, &mut whole, &mut parts, &after, now, found);
    super::activation::take_over(&mut whole, &mut parts, now, found, late);
    let digest = Digest::keyed(&now.ledger.key, spec.digest.to_string().as_bytes());
    let record = super::guard::record_on(spec, now.ledger);
    whole.spec = (!whole.owned.is_empty() || record.serial.is_some()).then_some(crate::ledger::LastSpec { digest: Some(digest), ..record });
    Planned { plan: whole, parts }
}

/// Adds what a change of the trust store needs of daemons; gives what an earlier one has left due.
fn store_needs(spec: &Spec, whole: &mut Plan, parts: &mut [PlannedPart], after: &Tree, now: Now<'_>, found: &[FoundRuntime]) -> Vec<Due> {
    let Ok(family) = crate::trust::family(now.tree) else { return Vec::new() };
    let bundle = NodePath::fixed(family.bundle);
    let Some(part) = parts.iter_mut().find(|part| part.part.target == Target::Trust && part.refused.is_none() && now.live) else {
        return Vec::new();
    };
    if part.activations.iter().any(|activation| matches!(activation.how, How::Refresh(_))) {
        let needs = store::activations(Some(spec), after, found, &bundle);
        whole.activate.extend(needs.iter().filter(|need| need.how != How::Nothing).cloned());
        part.activations.extend(needs);
    }
    store::late(spec, after, now, found, &bundle)
}

/// Lets the ledger go on knowing what these targets have.
pub(super) fn keep(plan: &mut Plan, now: Now<'_>, of: impl Fn(&Target) -> bool) {
    let kept = now.ledger.owned.iter().filter(|(_, owned)| of(&owned.target));
    plan.owned.extend(kept.filter_map(|(path, owned)| Some((path.clone(), left_alone(now, path, owned)?))));
    let containers = crate::runtime::containers::adopted_from();
    let target = |file: &NodePath| if *file == containers { Target::Containers } else { Target::Containerd(file.clone()) };
    let adopted = now.ledger.adopted.iter().filter(|(file, _)| of(&target(file)));
    plan.adopted.extend(adopted.map(|(config, adopted)| (config.clone(), adopted.clone())));
}

fn plan_part(spec: &Spec, part: &Part, readers: &[&FoundRuntime], now: Now<'_>, proved: bool) -> Result<PartPlan, Refusal> {
    let spec = part.spec.as_deref().unwrap_or(spec);
    let was = part.was.as_ref().unwrap_or(now.tree);
    if let Some(refusal) = &part.refused {
        return Err(refusal.clone());
    }
    let mut steps = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
    add_part(&mut steps, part, now, |path, _, _| same_meaning(spec, part, was, readers, path))
        .map_err(|refusal| with_losses(refusal, |path| lost(spec, part, was, readers, path)))?;
    let changes = !(steps.stage.is_empty() && steps.switch.is_empty() && steps.retire.is_empty());
    let after = overlay_plan(now.tree, &steps);
    if changes && now.foreign == Foreign::Refuse {
        let lost = shadowed(spec, part, was, &after, now.ledger, readers);
        if !lost.is_empty() {
            return Err(Refusal::Conflict(lost));
        }
    }
    if changes && now.foreign == Foreign::Replace {
        steps.notes.extend(losses(spec, was, &after, now.ledger, readers));
    }
    let mut known = false;
    // a containerd without CRI is left as it is: nobody pulls through it
    let idle = matches!(part.target, Target::Containerd(_)) && part.wants.is_empty();
    // only these two kinds of target say what is pulled from where
    if matches!(part.target, Target::Containerd(_) | Target::Containers) && !idle {
        known = proved && !changes;
        if !known {
            prove(spec, part, &after, now.ledger, readers).map_err(|refusal| left_in_the_way(part, refusal))?;
        }
    }
    if let Some(file) = part.target.adopts_from().filter(|_| !part.adopted.is_empty()) {
        steps.adopted.insert(file, part.adopted.clone());
    }
    super::activation::go_before(&mut steps, readers);
    let mut activations = super::activation::activations(part, &steps, readers);
    if part.target == Target::Trust {
        activations.extend(super::activation::refresh(spec, now.tree, &steps, super::activation::cut_off(now.ledger)));
    }
    Ok(PartPlan { steps, activations, known })
}

/// Says that it may be for what is left alone that a part cannot be proved.
fn left_in_the_way(part: &Part, mut refusal: Refusal) -> Refusal {
    let (Refusal::Cannot(problems) | Refusal::Conflict(problems)) = &mut refusal;
    problems.extend(part.in_the_way());
    refusal
}

/// Adds to each file that is in the way what would be lost with it.
fn with_losses(refusal: Refusal, lost: impl Fn(&NodePath) -> Vec<String>) -> Refusal {
    let Refusal::Conflict(mut problems) = refusal else { return refusal };
    for problem in problems.iter_mut().filter(|problem| problem.code == FOREIGN_FILE) {
        let path = problem.at.as_ref().and_then(|at| NodePath::new(&at.file).ok());
        let lost = path.map(|path| lost(&path)).unwrap_or_default();
        if !lost.is_empty() {
            let _ = write!(problem.what, "; no longer asked would be {}", lost.join(", "));
        }
    }
    Refusal::Conflict(problems)
}

/// The steps of one part.
struct PartPlan {
    steps: Plan,
    activations: Vec<Activation>,
    /// The proof was not made, because an earlier run made it.
    known: bool,
}

impl Planned {
    /// Whether the trust store is to be refreshed.
    #[must_use]
    pub fn refreshes(&self) -> bool {
        self.plan.activate.iter().any(|activation| matches!(activation.how, How::Refresh(_)))
    }

    /// Whether nothing is to be done by this program; what is due by other hands is no change to make.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let Plan { stage, switch, retire, turns, .. } = &self.plan;
        stage.is_empty() && switch.is_empty() && retire.is_empty() && turns.is_empty() && !self.refreshes()
    }

    /// Takes out activations that turned out to need nothing, because what they concern does not run.
    pub fn settle(&mut self, settled: &[Activation]) {
        let is_settled = |one: &Activation| settled.contains(one);
        self.plan.activate.retain(|one| !is_settled(one));
        self.plan.due.retain(|due| !is_settled(&due.what));
        for activation in self.parts.iter_mut().flat_map(|part| &mut part.activations).filter(|one| is_settled(one)) {
            let unit = activation.how.unit().unwrap_or_default();
            activation.because = vec![format!("{unit} does not run; it reads everything when it starts")];
            activation.how = How::Nothing;
        }
    }

    /// Whether something of the spec is kept back.
    #[must_use]
    pub fn keeps_back(&self) -> bool {
        self.parts.iter().any(|part| part.refused.is_none() && part.part.keeps_back())
    }

    /// Whether something is not as the spec says because it is paused.
    #[must_use]
    pub fn leaves_alone(&self) -> bool {
        let told = |part: &PlannedPart| part.part.notes.iter().any(|note| note.code == PAUSED);
        let refused =
            |part: &PlannedPart| part.refused.as_ref().is_some_and(|refusal| problems(refusal).iter().any(|one| one.code == PAUSED));
        self.parts.iter().any(|part| told(part) || refused(part))
    }

    /// Whether some part was left untouched, and how badly: a conflict weighs more than what the node cannot do.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        let refusals = || self.parts.iter().filter_map(|part| part.refused.as_ref());
        refusals().find(|refusal| matches!(refusal, Refusal::Conflict(_))).or_else(|| refusals().next())
    }
}

/// The refusal's problems, errors first.
#[must_use]
pub fn problems(refusal: &Refusal) -> Vec<Problem> {
    let (Refusal::Cannot(problems) | Refusal::Conflict(problems)) = refusal;
    let mut problems = problems.clone();
    order::sort_by_key(&mut problems, |problem| std::cmp::Reverse(problem.severity.max(Severity::Note)));
    problems
}
