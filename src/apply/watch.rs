//! Units of a run while they are turned: what was seen of them, and what of it the run is blamed for.

use std::collections::BTreeSet;

use super::health::{self, Health, Look};
use super::{ApplyError, Door, Remark};
use crate::model::unit::Active;
use crate::plan::turn::{Turn, Turning};

/// Units while they are turned, and what was seen of them.
#[derive(Debug, Default)]
pub(super) struct Watch<'a> {
    pub(super) turns: &'a [Turn],
    /// They are turned on the way back from another run: they ran before it.
    pub(super) returns: bool,
    /// Before the first byte.
    pub(super) first: Vec<Look>,
    /// Right before it was turned last.
    pub(super) before: Look,
    /// Turns whose unit was stopped by somebody since the run began: it stays so.
    pub(super) stopped: BTreeSet<usize>,
    pub(super) well: Vec<String>,
    pub(super) remarks: Vec<Remark>,
    pub(super) unwell: Vec<(String, String)>,
}

impl Watch<'_> {
    pub(super) fn turn(&mut self, one: usize, back: bool, door: &mut impl Door) -> Result<(), ApplyError> {
        let (turn, back) = (&self.turns[one], back || self.returns);
        self.before = door.look(turn);
        if turn.turning == Turning::Prove {
            return Ok(());
        }
        if !back && self.before.active == Active::Inactive {
            self.stopped.insert(one);
            self.remarks.push(Remark::Stopped { unit: turn.unit.clone() });
        }
        if self.stopped.contains(&one) {
            return Ok(());
        }
        door.turn(turn, back).map_err(|error| {
            let why = error.to_string();
            self.failed(turn, why);
            ApplyError::Unit { unit: turn.unit.clone(), turning: turn.turning, error }
        })
    }

    /// Waits until the daemon is well, or will not become so.
    pub(super) fn prove(&mut self, one: usize, back: bool, door: &mut impl Door) -> Result<(), ApplyError> {
        let (turn, first) = (&self.turns[one], &self.first[one]);
        if self.stopped.contains(&one) {
            self.well.push(turn.unit.clone());
            return Ok(());
        }
        // with the files of before, whatever they are
        let turn = if back { &Turn { proof: turn.proof.going_back(), ..turn.clone() } } else { turn };
        let mut health = Health::Unwell("nothing was seen of it".to_owned());
        let last = door.watch(turn, |look, after| {
            health = health::judge(turn, &self.before, look, after);
            !matches!(health, Health::Unwell(_))
        });
        let gone = health::gone(&self.before, &last);
        if turn.turning == Turning::Restart && gone > 0 {
            self.remarks.push(Remark::ShimsGone { unit: turn.unit.clone(), count: gone });
        }
        let hopeless = matches!(health, Health::Hopeless(_));
        let (Health::Unwell(why) | Health::Hopeless(why)) = health else {
            self.unwell.retain(|(unit, _)| *unit != turn.unit);
            if !back {
                self.well.push(turn.unit.clone());
            }
            return Ok(());
        };
        // what was broken before is told, and not blamed
        let was_well = matches!(first.answer, health::Answer::Ready | health::Answer::Unasked) && first.active == Active::Active;
        if !was_well && !self.returns && !health::is_worse(first, &last) && turn.turning != Turning::Prove {
            self.remarks.push(Remark::StillUnwell { unit: turn.unit.clone(), why });
            return Ok(());
        }
        self.failed(turn, why.clone());
        Err(ApplyError::Unwell { unit: turn.unit.clone(), turning: turn.turning, why, hopeless })
    }

    fn failed(&mut self, turn: &Turn, why: String) {
        self.well.retain(|unit| *unit != turn.unit);
        self.unwell.retain(|(unit, _)| *unit != turn.unit);
        self.unwell.push((turn.unit.clone(), why));
    }
}
