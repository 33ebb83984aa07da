//! When units may be restarted: the node's place in the splay, the window, the budget, the gate. Pure.

use super::machine::{Action, Machine, Question};
use super::pass::Told;
use super::random::backoff;
use super::settings::{DriftPolicy, HOUR, Now, SECOND, splay};
use super::state::{Cause, Fault, Mode, Restart, WaitsFor};
use crate::model::digest::Digest;
use crate::model::time::Time;

/// Between two questions to a gate that is shut.
const GATE_AGAIN: i64 = 30 * SECOND;

/// Restarts that wait.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    pub units: Vec<String>,
    spec: Option<Digest>,
    since: i64,
    not_before: i64,
    /// Drift alone makes them needed.
    of_drift: bool,
    /// How often they were tried in vain.
    tries: u32,
    again: i64,
    gate_again: i64,
    /// Why they are not done yet, beside the time.
    why: String,
}

impl Waiting {
    /// What an earlier agent was waiting for: its place in the splay is kept.
    pub(super) fn restored(before: Restart, spec: Option<Digest>, booted: Time, now: Now, splay: i64) -> Self {
        Self {
            units: before.units,
            spec,
            since: (before.since.0 - booted.0).min(now.mono),
            not_before: (before.not_before.0 - booted.0).min(now.mono + splay.max(0)),
            of_drift: before.waits_for == WaitsFor::Drift,
            tries: 0,
            again: i64::MIN,
            gate_again: i64::MIN,
            why: String::new(),
        }
    }
}

impl Waiting {
    /// Whoever opens the gate, or mends what a restart has failed of, need not wait until the next question.
    pub(super) fn ask_anew(&mut self) {
        (self.again, self.gate_again) = (i64::MIN, i64::MIN);
    }
}

/// When there were restarts, within the last hour.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts(Vec<i64>);

impl Restarts {
    /// Those that an earlier agent has recorded on this boot by the clock on the wall, which may have stepped since.
    pub(super) fn restored(before: &[Time], booted: Time, now: Now) -> Self {
        let mut all: Vec<i64> = before.iter().map(|at| (at.0 - booted.0).min(now.mono)).collect();
        all.sort_unstable();
        Self(all)
    }

    pub(super) fn add(&mut self, now: Now) {
        self.prune(now);
        self.0.push(now.mono);
    }

    pub(super) fn prune(&mut self, now: Now) {
        self.0.retain(|at| *at > now.mono - HOUR);
    }

    /// From when on there may be one more.
    fn free_at(&self, budget: u32, now: Now) -> i64 {
        let recent: Vec<i64> = self.0.iter().copied().filter(|at| *at > now.mono - HOUR).collect();
        let budget = usize::try_from(budget.max(1)).unwrap_or(usize::MAX);
        if recent.len() < budget { i64::MIN } else { recent[recent.len() - budget] + HOUR }
    }

    pub(super) fn shown(&self, now: Now) -> Vec<Time> {
        self.0.iter().map(|at| Time(now.wall.0 - (now.mono - at))).collect()
    }
}

impl Machine {
    /// From when on the restarts that wait may be done, and what that waits for. `None` while nothing makes it come.
    fn restart_when(&self, now: Now) -> Option<(Option<i64>, WaitsFor)> {
        let waiting = self.waiting.as_ref()?;
        if !self.settings.restarts {
            return Some((None, WaitsFor::Others));
        }
        if waiting.of_drift && self.settings.drift != DriftPolicy::RepairWithRestart {
            return Some((None, WaitsFor::Drift));
        }
        let mut at = waiting.not_before;
        let mut waits_for = WaitsFor::Splay;
        let budget = self.restarts.free_at(self.settings.budget, now);
        for (other, what) in [(waiting.again, WaitsFor::Retry), (budget, WaitsFor::Budget), (waiting.gate_again, WaitsFor::Gate)] {
            if other > at {
                (at, waits_for) = (other, what);
            }
        }
        let from = at.max(now.mono);
        let opens = self.settings.window.map_or(0, |window| window.opens_in(Time(now.wall.0 + (from - now.mono))));
        if opens > 0 {
            (at, waits_for) = (from + opens, WaitsFor::Window);
        }
        if at <= now.mono {
            waits_for = WaitsFor::Nothing;
        }
        Some((Some(at), waits_for))
    }

    pub(super) fn restart_at(&self, now: Now) -> Option<i64> {
        self.restart_when(now)?.0
    }

    /// What a pass has found to be due decides what waits. `of_drift`: nothing but drift makes it needed.
    pub(super) fn wait_for(&mut self, now: Now, told: &Told, of_drift: bool) {
        let of_units = told.units.iter().filter(|unit| unit.needs == "restart" && unit.state != "done").map(|unit| &unit.unit);
        let mut units: Vec<String> =
            told.due.iter().filter(|due| due.how == "restart").map(|due| &due.what).chain(of_units).cloned().collect();
        units.sort();
        units.dedup();
        if units.is_empty() {
            self.waiting = None;
            return;
        }
        match &mut self.waiting {
            Some(waiting) if waiting.spec == told.spec => {
                waiting.units = units;
                waiting.of_drift &= of_drift;
            }
            _ => {
                self.waiting = Some(Waiting {
                    units,
                    spec: told.spec,
                    since: now.mono,
                    not_before: now.mono + splay(self.settings.machine, told.spec, self.settings.splay),
                    of_drift,
                    tries: 0,
                    again: i64::MIN,
                    gate_again: i64::MIN,
                    why: String::new(),
                });
            }
        }
    }

    /// A restart that needs none of the drift that is left alone already waits for it.
    pub(super) fn waits_anyway(&self, unit: &str) -> bool {
        self.waiting.as_ref().is_some_and(|waiting| !waiting.of_drift && waiting.units.iter().any(|one| one == unit))
    }

    /// After a pass that may restart: what it left is tried again, less and less often.
    pub(super) fn restarted(&mut self, now: Now, told: Option<&Told>, out: &mut Vec<Action>) {
        let turned = told.map(|told| told.units.iter().filter(|unit| unit.needs == "restart" && unit.state != "left").count());
        // of one that crashed it is not known
        if turned != Some(0) {
            self.restarts.add(now);
        }
        if let Some(waiting) = &mut self.waiting {
            waiting.tries = waiting.tries.saturating_add(1);
            waiting.again = now.mono + self.random.about(backoff(Fault::RolledBack, waiting.tries));
            waiting.why = told
                .iter()
                .flat_map(|told| &told.units)
                .find(|unit| !unit.why.is_empty())
                .map_or_else(String::new, |unit| unit.why.clone());
        }
        if self.settings.gate {
            let units = told.iter().flat_map(|told| &told.units).filter(|unit| unit.needs == "restart").map(|unit| unit.unit.clone());
            out.push(Action::Ask(Question::GateDone(units.collect())));
        }
    }

    pub(super) fn gate(&mut self, now: Now, answer: Result<(), String>, out: &mut Vec<Action>) {
        match answer {
            // the window may have shut while it was asked
            Ok(()) if self.restart_at(now).is_some_and(|at| at <= now.mono) => self.begin(now, Mode::Restart, Cause::Restart, out),
            Ok(()) => {}
            Err(why) => {
                if let Some(waiting) = &mut self.waiting {
                    waiting.gate_again = now.mono + self.random.about(GATE_AGAIN);
                    waiting.why = why;
                }
            }
        }
    }

    pub(super) fn show_restart(&mut self, now: Now) {
        self.restarts.prune(now);
        self.view.restarts = self.restarts.shown(now);
        let Some((waiting, (at, waits_for))) = self.waiting.as_ref().zip(self.restart_when(now)) else {
            self.view.restart = None;
            return;
        };
        let wall = |mono: i64| Time(now.wall.0 - now.mono + mono);
        let until = at.map(|at| wall(at).to_string()).unwrap_or_default();
        let own = if waiting.why.is_empty() { String::new() } else { format!(": {}", waiting.why) };
        let why = match waits_for {
            WaitsFor::Splay => format!("this node's turn comes at {until}"),
            WaitsFor::Window => {
                let window = self.settings.window.map(|window| window.to_string()).unwrap_or_default();
                format!("the window {window} opens at {until}")
            }
            WaitsFor::Budget => format!("{} in an hour are enough, one more may be at {until}", self.settings.budget),
            WaitsFor::Gate => format!("the gate is shut{own}"),
            WaitsFor::Drift => {
                "drift alone makes it needed, and that is repaired with a restart only with --drift repair-with-restart".to_owned()
            }
            WaitsFor::Retry => format!("tried in vain, again at {until}{own}"),
            WaitsFor::Others => "nothing is restarted here".to_owned(),
            WaitsFor::Nothing => "now".to_owned(),
        };
        self.view.restart = Some(Restart {
            units: waiting.units.clone(),
            since: wall(waiting.since),
            not_before: wall(waiting.not_before),
            waits_for,
            why,
        });
    }
}
