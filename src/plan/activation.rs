//! What makes running programs see a change: the least that works (design section 6). Pure; the knowledge is in each
//! runtime's room, this only gathers it.

use std::collections::BTreeMap;

use super::build::Now;
use super::whole::{PlannedPart, readers};
use super::{Activation, Expect, How, Plan, Step};
use crate::desired::{Part, Target};
use crate::ledger::{Due, Ledger};
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::{Found, Tree};
use crate::runtime::{FoundRuntime, Running};
use crate::spec::Spec;
use crate::trust;

/// The paths that a plan's steps touch.
#[must_use]
pub fn touched(plan: &Plan) -> Vec<NodePath> {
    let steps = plan.stage.iter().chain(&plan.switch).chain(&plan.retire);
    steps.map(|step| step.path.clone()).collect()
}

/// The trust store's own command, when anchors change or the bundle does not hold those that are there: derived from the
/// bundle, so that a refresh that was cut off is found again. What such a run has taken away is not seen there (`cut_off`).
#[must_use]
pub fn refresh(spec: &Spec, tree: &Tree, steps: &Plan, cut_off: bool) -> Option<Activation> {
    let family = trust::family(tree).ok()?;
    let replaced = |step: &Step| !matches!(step.expect, Expect::Absent);
    let removed = cut_off || steps.switch.iter().chain(&steps.retire).any(replaced);
    let missing = trust::missing(spec, family, tree).len();
    let mut because = Vec::new();
    if !(steps.switch.is_empty() && steps.retire.is_empty()) {
        because.push(format!("anchors in {} change", family.anchor_dir));
    }
    if missing > 0 {
        because.push(format!("{missing} of the spec's CAs are not yet in {}", family.bundle));
    }
    if cut_off {
        because.push("an earlier run changed anchors and did not come to refresh the store".to_owned());
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

/// Whether an earlier run left the refresh of the trust store to be done.
#[must_use]
pub fn cut_off(ledger: &Ledger) -> bool {
    ledger.left().iter().any(|due| matches!(due.what.how, How::Refresh(_)))
}

/// Adds what earlier runs left to be done (docs/adr/0006). On the running system it is due until the process has started after
/// the change; elsewhere it was told when the change was made, and the ledger keeps it for a run on the running system. `late`:
/// what is seen to be due though no ledger says so.
pub fn take_over(plan: &mut Plan, parts: &mut [PlannedPart], now: Now<'_>, found: &[FoundRuntime], late: Vec<Due>) {
    let mut left = now.ledger.left();
    left.extend(late);
    left.extend(seen_late(now, found).into_iter().filter(|_| now.live));
    for due in left {
        if let How::Refresh(_) = due.what.how {
            // a part that could be planned has taken it over; one that is refused keeps it
            let refused = parts.iter().any(|part| part.part.target == due.what.who && part.refused.is_some());
            let told = plan.activate.iter().any(|activation| activation.who == due.what.who);
            if !refused && !told {
                plan.activate.extend(refresh_back(now.tree));
            }
            let known = plan.due.iter().any(|kept| kept.what.who == due.what.who);
            if !known && (refused || now.ledger.due.contains(&due)) {
                plan.due.push(due);
            }
            continue;
        }
        if let Some(same) = plan.activate.iter_mut().find(|activation| is_of_same(activation, &due.what)) {
            // told anew, and not less
            same.how = same.how.clone().max(due.what.how);
            continue;
        }
        let mut kept = plan.due.iter_mut();
        if let Some(same) = kept.find(|kept| is_of_same(&kept.what, &due.what)) {
            same.what.how = same.what.how.clone().max(due.what.how);
            same.since = same.since.max(due.since);
        } else if !now.live || waits(&due, now.ledger, found) {
            plan.due.push(due);
        }
    }
    let told = plan.due.iter().filter(|due| now.live && !matches!(due.what.how, How::Refresh(_)));
    let told: Vec<Activation> = told.map(|due| due.what.clone()).collect();
    for activation in told {
        if let Some(part) = parts.iter_mut().find(|part| part.part.target == activation.who) {
            part.activations.push(activation.clone());
        }
        plan.activate.push(activation);
    }
    plan.back.extend(plan.activate.iter().filter(|one| matches!(one.how, How::Refresh(_))).filter_map(|_| refresh_back(now.tree)));
}

/// Whether two concern the same daemon: of one set of files there may be several (CRI-O, Podman's API service).
fn is_of_same(one: &Activation, other: &Activation) -> bool {
    one.who == other.who && (one.how.unit() == other.how.unit() || one.how.unit().is_none() || other.how.unit().is_none())
}

/// What is due without a spec to tell: what runs have left, and what is seen to be later than the process that should have read it.
#[must_use]
pub fn due(now: Now<'_>, found: &[FoundRuntime]) -> Vec<Due> {
    let seen = seen_late(now, found).into_iter().filter(|_| now.live);
    let mut all: Vec<Due> = Vec::new();
    for due in now.ledger.left().into_iter().chain(seen) {
        let is_command = matches!(due.what.how, How::Refresh(_));
        if !is_command && now.live && !waits(&due, now.ledger, found) {
            continue;
        }
        match all.iter_mut().find(|known| is_of_same(&known.what, &due.what) && matches!(known.what.how, How::Refresh(_)) == is_command) {
            Some(known) => {
                known.what.how = known.what.how.clone().max(due.what.how);
                known.since = known.since.max(due.since);
            }
            None => all.push(due),
        }
    }
    all
}

/// Whether the process that it concerns has not read its files anew since. One that does not run sees everything when it starts.
fn waits(due: &Due, ledger: &Ledger, found: &[FoundRuntime]) -> bool {
    let daemons = readers(&due.what.who, found).into_iter().filter(|reader| reader.unit_name().as_deref() == due.what.how.unit());
    daemons.filter_map(|daemon| daemon.running.as_ref()).any(|process| has_read(process, &due.what.how, ledger) <= due.since)
}

/// When a process has read last what `how` makes it read: when it started, or was told to reload by us and said that it had.
fn has_read(process: &Running, how: &How, ledger: &Ledger) -> Time {
    let reloaded = if let How::Reload(unit) = how { ledger.reloaded.get(unit) } else { None };
    reloaded.map_or(process.started, |at| process.started.max(*at))
}

/// Files of ours that were written after the process that keeps them in memory has started.
fn seen_late(now: Now<'_>, found: &[FoundRuntime]) -> Vec<Due> {
    let mut late: Vec<Due> = Vec::new();
    for (path, owned) in &now.ledger.owned {
        for reader in readers(&owned.target, found) {
            let Some(process) = &reader.running else { continue };
            let Found::File(_, meta) = now.tree.find(path) else { continue };
            let (how, because) = reader.activation(path);
            if how != How::Nothing && meta.mtime > has_read(process, &how, now.ledger) {
                late.push(Due { what: Activation { who: owned.target.clone(), how, because: vec![because] }, since: meta.mtime });
            }
        }
    }
    late
}

/// The paths that steps change and that a daemon reads only when it starts or reloads.
pub fn read_late(steps: &Plan, readers: &[&FoundRuntime]) -> Vec<NodePath> {
    let is_kept = |path: &NodePath| readers.iter().any(|reader| reader.activation(path).0 != How::Nothing);
    touched(steps).into_iter().filter(is_kept).collect()
}

/// Lets what goes go before a daemon is turned for it, where that reads it only then: else it would read it once more. What is read at
/// every pull goes last.
pub fn go_before(steps: &mut Plan, readers: &[&FoundRuntime]) {
    let is_kept = |step: &Step| readers.iter().any(|reader| reader.activation(&step.path).0 != How::Nothing);
    let (early, late) = std::mem::take(&mut steps.retire).into_iter().partition(is_kept);
    let early: Vec<Step> = early;
    steps.switch.extend(early);
    steps.retire = late;
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
