//! The way back: everything that the ledger owns. Pure.

use std::collections::BTreeSet;

use super::activation::activations;
use super::build::{Now, give_back};
use super::whole::{Planned, PlannedPart, adopted_before, readers};
use super::{Act, Activation, How, Plan};
use crate::desired::{Part, Refusal, Target};
use crate::model::problem::Severity;
use crate::runtime::FoundRuntime;

/// Plans to give back what was there before nodeprep. A target in which something cannot be given back is left as it is, with
/// the reason; `refresh` is the trust store's command.
#[must_use]
pub fn plan(now: Now<'_>, found: &[FoundRuntime], refresh: Option<&Activation>) -> Planned {
    let mut whole = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
    let targets: BTreeSet<&Target> = now.ledger.owned.values().map(|owned| &owned.target).collect();
    let mut parts = Vec::new();
    for target in targets {
        let mut steps = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
        give_back(&mut steps, now, target, |_| false);
        for step in steps.switch.iter_mut().chain(&mut steps.retire) {
            let why = if matches!(step.act, Act::Remove) { "was not there before nodeprep" } else { "as it was before nodeprep" };
            why.clone_into(&mut step.why);
        }
        let part = Part::new(target.clone());
        if !steps.notes.is_empty() {
            // what stays may refer to what would go: a hosts.toml to its CA
            let kept = now.ledger.owned.iter().filter(|(_, owned)| &owned.target == target);
            whole.owned.extend(kept.map(|(path, owned)| (path.clone(), owned.clone())));
            whole.adopted.extend(adopted_before(target, now.ledger));
            parts.push(PlannedPart { refused: Some(refusal(&steps)), part: Part::new(target.clone()), activations: Vec::new() });
            continue;
        }
        let mut needed = activations(&part, &steps, &readers(target, found));
        let changes = !(steps.switch.is_empty() && steps.retire.is_empty());
        needed.extend(refresh.filter(|_| *target == Target::Trust && changes).cloned());
        whole.activate.extend(needed.iter().filter(|activation| activation.how != How::Nothing).cloned());
        whole.switch.append(&mut steps.switch);
        whole.retire.append(&mut steps.retire);
        whole.owned.append(&mut steps.owned);
        parts.push(PlannedPart { part, refused: None, activations: needed });
    }
    Planned { plan: whole, parts }
}

/// What cannot be given back is somebody's later change: a conflict.
fn refusal(steps: &Plan) -> Refusal {
    let mut problems = steps.notes.clone();
    for problem in &mut problems {
        problem.severity = Severity::Error;
    }
    Refusal::Conflict(problems)
}
