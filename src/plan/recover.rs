//! What becomes of a run that was cut off, without the spec that it was for (docs/adr/0016). Pure.

use super::Plan;
use super::activation::take_over;
use super::build::Now;
use super::owned::{Standing, standing};
use super::turn::{Turn, Turning, Turns};
use super::whole::{Planned, keep};
use crate::ledger::{Open, Prior, Stamp};
use crate::model::path::NodePath;
use crate::runtime::FoundRuntime;

/// Whether every file of the run is as it was to become. What was to go and is still there does no harm: it goes last, when
/// everything else is as it should be.
#[must_use]
pub fn is_as_planned(now: Now<'_>, open: &Open) -> bool {
    let written = |(path, stamp): (&NodePath, &Stamp)| match stamp {
        Stamp::Absent => true,
        Stamp::File { .. } => is_there(now, path, stamp),
    };
    // of a link that `revert` puts back nothing is known but what was there before
    open.after.iter().all(written) && open.before.keys().all(|path| open.after.contains_key(path))
}

fn is_there(now: Now<'_>, path: &NodePath, stamp: &Stamp) -> bool {
    let through_link = now.ledger.owned.get(path).is_some_and(|owned| owned.format.is_some());
    match standing(now, path, through_link) {
        Ok(place @ (Standing::Ours { .. } | Standing::Drifted { .. })) => {
            place.bytes().zip(place.meta()).is_some_and(|(bytes, meta)| now.ledger.stamp(bytes, meta.mode) == *stamp)
        }
        _ => false,
    }
}

/// What was to go and is still there.
#[must_use]
pub fn left_to_go(now: Now<'_>, open: &Open) -> Vec<NodePath> {
    let gone = open.after.iter().filter(|(_, stamp)| **stamp == Stamp::Absent).map(|(path, _)| path);
    let is_there = |path: &&NodePath| {
        // of two runs that were cut off the first may have made it, so that nothing was there before
        let made = open.between.get(*path).is_some_and(|stamps| stamps.iter().any(|stamp| *stamp != Stamp::Absent));
        let was_file = made || !matches!(open.before.get(*path), None | Some(Prior::Absent));
        was_file && !matches!(standing(now, path, false), Ok(Standing::Absent))
    };
    gone.filter(is_there).cloned().collect()
}

/// The run is taken as it is: no file changes any more, the ledger is closed, and what is due stays so.
#[must_use]
pub fn forward(now: Now<'_>, found: &[FoundRuntime]) -> Planned {
    let mut plan = Plan { dirs: now.ledger.dirs.clone(), ..Plan::default() };
    keep(&mut plan, now, |_| true);
    plan.spec = now.ledger.spec.clone().filter(|_| !plan.owned.is_empty());
    let mut planned = Planned { plan, parts: Vec::new() };
    take_over(&mut planned.plan, &mut planned.parts, now, found, Vec::new());
    planned.plan.attempt = now.ledger.open.as_ref().and_then(|open| open.attempt.clone()).unwrap_or_default();
    planned
}

/// The units of the run that it has turned, or may have: a reload shows in no start time. `decided` must allow reloads.
#[must_use]
pub fn turned(open: &Open, decided: &Turns) -> Vec<Turn> {
    let is_of_run = |turn: &&Turn| open.attempt.as_ref().is_some_and(|attempt| attempt.units.contains_key(&turn.unit));
    decided.turns.iter().filter(is_of_run).cloned().collect()
}

/// Whether each unit of the run has started anew since it began, so that only its health is missing.
#[must_use]
pub fn is_all_turned(open: &Open, turned: &[Turn]) -> bool {
    let proves = |unit: &String| turned.iter().any(|turn| turn.unit == *unit && turn.turning == Turning::Prove);
    open.attempt.iter().flat_map(|attempt| attempt.units.keys()).all(proves)
}
