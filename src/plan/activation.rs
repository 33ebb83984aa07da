//! What makes running programs see a change: the least that works (design section 6). Pure; the knowledge is in each
//! runtime's room, this only gathers it.

use std::collections::BTreeMap;

use super::{Activation, Expect, How, Plan, Step};
use crate::desired::{Part, Target};
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::trust;

/// The paths that a plan's steps touch.
#[must_use]
pub fn touched(plan: &Plan) -> Vec<NodePath> {
    let steps = plan.stage.iter().chain(&plan.switch).chain(&plan.retire);
    steps.map(|step| step.path.clone()).collect()
}

/// The trust store's own command, when anchors change or the bundle does not hold those that are there: derived from the
/// bundle, so that a refresh that was cut off is found again.
#[must_use]
pub fn refresh(spec: &Spec, tree: &Tree, steps: &Plan) -> Option<Activation> {
    let family = trust::family(tree).ok()?;
    let replaced = |step: &Step| !matches!(step.expect, Expect::Absent);
    let removed = steps.switch.iter().chain(&steps.retire).any(replaced);
    let missing = trust::missing(spec, family, tree).len();
    let mut because = Vec::new();
    if !(steps.switch.is_empty() && steps.retire.is_empty()) {
        because.push(format!("anchors in {} change", family.anchor_dir));
    }
    if missing > 0 {
        because.push(format!("{missing} of the spec's CAs are not yet in {}", family.bundle));
    }
    (!because.is_empty()).then(|| Activation { who: Target::Trust, how: How::Refresh(family.refresh(removed)), because })
}

/// The command after everything of ours was taken out of the store.
#[must_use]
pub fn refresh_back(tree: &Tree) -> Option<Activation> {
    let family = trust::family(tree).ok()?;
    let because = vec![format!("anchors in {} go", family.anchor_dir)];
    Some(Activation { who: Target::Trust, how: How::Refresh(family.refresh(true)), because })
}

/// Activations of one part, coalesced: the strongest `how` per reader wins, and its reasons are kept.
#[must_use]
pub fn activations(part: &Part, steps: &Plan, readers: &[&FoundRuntime]) -> Vec<Activation> {
    let mut strongest: BTreeMap<String, Activation> = BTreeMap::new();
    let touched = touched(steps);
    for reader in readers {
        for path in &touched {
            let (how, because) = reader.activation(path);
            let entry = strongest.entry(reader.runtime.name().to_owned()).or_insert_with(|| Activation {
                who: part.target.clone(),
                how: How::Nothing,
                because: Vec::new(),
            });
            if how > entry.how {
                *entry = Activation { who: entry.who.clone(), how, because: vec![because] };
            } else if how == entry.how && !entry.because.contains(&because) {
                entry.because.push(because);
            }
        }
    }
    strongest.into_values().collect()
}
