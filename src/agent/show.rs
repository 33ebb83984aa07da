//! How the agent shows itself: the state that others read, and a line for systemd.

use super::machine::{Action, Machine};
use super::settings::Now;
use super::state::{Fault, NextPass, Phase};
use crate::model::time::Time;

impl Machine {
    pub(super) fn show(&mut self, now: Now, out: &mut Vec<Action>) {
        self.show_restart(now);
        self.show_probe(now);
        self.view.booted = Time::from_secs((now.wall.0 - now.mono).div_euclid(1000));
        if !matches!(self.view.phase, Phase::Starting | Phase::Stopped) {
            let waits =
                self.retry.is_some() || self.repair.is_some() || self.waiting.is_some() || self.spec.is_some() || self.node.is_some();
            self.view.phase = match (&self.running, waits) {
                (Some(_), _) => Phase::Running,
                (None, true) => Phase::Waiting,
                (None, false) => Phase::Idle,
            };
        }
        let next = self.next_pass(now).filter(|_| self.running.is_none() && !self.asking);
        // to the second: what nobody reads need not be written
        let wall = |mono: i64| Time::from_secs((now.wall.0 - now.mono + mono).div_euclid(1000));
        self.view.next_pass = next.map(|(at, cause)| NextPass { at: wall(at), cause });
        let says = self.says();
        if says != self.said {
            out.push(Action::Say(says.clone()));
            self.said.clone_from(&says);
        }
        self.view.says = says;
    }

    fn says(&self) -> String {
        let view = &self.view;
        let first = view.last_pass.as_ref().and_then(|pass| pass.problems.first()).map(|problem| problem.what.clone()).unwrap_or_default();
        if view.phase == Phase::Stopped {
            return "stopped".to_owned();
        }
        if view.phase == Phase::Starting {
            return "the first pass runs".to_owned();
        }
        if let Some(failing) = &view.failing {
            let why = if first.is_empty() { String::new() } else { format!(": {first}") };
            return match failing.kind {
                Fault::Locked => "another run holds the lock".to_owned(),
                Fault::Unready => format!("something is kept back{why}"),
                Fault::Spec => format!("the spec cannot be used, and the node stays as it is{why}"),
                Fault::Unavailable => format!("the spec's source cannot be reached, and the node stays as it is{why}"),
                Fault::Paused => format!("paused{why}"),
                Fault::Refused => format!("something is left as it is{why}"),
                Fault::FailedBefore => format!("waiting for another spec, another version or `nodeprep apply --retry`{why}"),
                Fault::RolledBack => format!("failed and taken back{why}"),
                Fault::Crashed => format!("the last pass did not get through{why}"),
            };
        }
        if !view.drift.left.is_empty() {
            return format!("drift of {}: {}", view.drift.paths.first().map_or("the node", String::as_str), view.drift.left);
        }
        if let Some(restart) = &view.restart {
            return format!("as the spec says; a restart of {} waits: {}", restart.units.join(", "), restart.why);
        }
        if let Some(due) = view.due.first() {
            return format!("as the spec says; due: {} {}", due.how, due.what);
        }
        if view.converged { "as the spec says".to_owned() } else { "something is to be done".to_owned() }
    }
}
