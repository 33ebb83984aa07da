//! What an ended pass means: what is retried and when, what is drift and what is done about it.

use super::machine::{Action, Concerned, Machine, Question, Retry, Running};
use super::pass::{MOST, PassEnd, Told, fault};
use super::random::backoff;
use super::settings::{DriftPolicy, MINUTE, Now, SECOND};
use super::state::{Cause, DriftConflict, Failing, Fault, Mode, PassView, ProblemView};
use crate::model::problem::Severity;

/// Within this time so many repairs of a path are enough.
const CONFLICT_WITHIN: i64 = 10 * MINUTE;
const CONFLICT_AFTER: usize = 3;

/// Something on the node that is to be put right as soon as no package manager is at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Repair {
    pub at: i64,
    pub cause: Cause,
    pub tries: u32,
}

impl Machine {
    pub(super) fn ended(&mut self, now: Now, end: &PassEnd, out: &mut Vec<Action>) {
        let Some(running) = self.running.take() else { return };
        let failed = fault(end);
        self.record(now, &running, end);
        let told = end.told.as_deref();
        let own: &[String] = told.filter(|_| running.mode != Mode::Look).map_or(&[], |told| &told.paths);
        let is_own = |path: &String| own.iter().any(|own| near(own, path));
        if running.touched_more || !running.touched.iter().all(is_own) {
            self.touch(now);
        }
        match running.mode {
            Mode::Look => self.looked(now, &running, told, failed, out),
            Mode::Apply | Mode::Restart => self.applied(now, &running, told, failed, out),
        }
        self.tell(end, failed, out);
        if let Some(told) = told.filter(|told| told.spec.is_some()) {
            let concerned = Concerned { references: told.references.clone(), configs: told.configs.clone() };
            if concerned != self.concerned {
                self.concerned = concerned.clone();
                out.push(Action::Watch(concerned));
            }
        }
        self.answered(out);
    }

    fn record(&mut self, now: Now, running: &Running, end: &PassEnd) {
        let told = end.told.as_deref();
        let outcome = told.map_or("crashed", |told| told.outcome.as_str()).to_owned();
        *self.view.passes.entry(known(&outcome)).or_default() += 1;
        let crash = ProblemView { code: "pass".into(), severity: "error".into(), what: end.why.clone(), help: String::new() };
        self.view.last_pass = Some(PassView {
            began: running.began.wall,
            ended: now.wall,
            cause: running.cause,
            mode: running.mode,
            outcome,
            exit_code: end.code,
            changes: told.map_or(0, |told| told.changes),
            problems: told.map_or_else(|| vec![crash], |told| told.problems.clone()),
        });
        let Some(told) = told else { return };
        if told.spec.is_some() {
            self.view.spec.seen = told.spec;
        }
        for unit in told.units.iter().filter(|_| running.mode != Mode::Look) {
            let kind = if unit.needs == "restart" { "restart" } else { "reload" };
            let result = match unit.state.as_str() {
                "done" => "done",
                "failed" => "failed",
                _ => "left",
            };
            // what waits for its turn was not to be turned by this pass
            if unit.needs == "prove" || kind == "restart" && running.mode == Mode::Apply {
                continue;
            }
            *self.view.activations.entry(kind.to_owned()).or_default().entry(result.to_owned()).or_default() += 1;
        }
    }

    /// Counts a fault and says when the next attempt is.
    fn failed(&mut self, now: Now, fault: Fault, told: Option<&Told>, retry: Option<Mode>) {
        let times = self.faults.get(&fault).map_or(1, |times| times.saturating_add(1));
        self.faults.insert(fault, times);
        let since = self.view.failing.filter(|failing| failing.kind == fault).map_or(now.wall, |failing| failing.since);
        self.view.failing = Some(Failing { kind: fault, since, times });
        self.view.converged = false;
        if let Some(mode) = retry {
            let wait = backoff(fault, times);
            // a server that is not there is missed by a whole fleet at the same time
            let at = now.mono + if fault == Fault::Unavailable { self.random.around(wait) } else { self.random.about(wait) };
            let (spec, runtimes) = told.map_or((None, None), |told| (told.spec, told.runtimes));
            self.retry = Some(Retry { at, mode, cause: Cause::Retry, spec, runtimes });
        }
    }

    fn succeeded(&mut self) {
        self.faults.clear();
        self.view.failing = None;
    }

    fn looked(&mut self, now: Now, running: &Running, told: Option<&Told>, failed: Option<Fault>, out: &mut Vec<Action>) {
        // that a spec can be had again, or nobody wants it to wait any more, is seen by a look as well
        let was_kept = |failing: Failing| matches!(failing.kind, Fault::Unavailable | Fault::Spec | Fault::Paused);
        if failed.is_none() && self.view.failing.is_some_and(was_kept) && told.is_some_and(|told| told.spec.is_some()) {
            self.retry = None;
        }
        // an attempt that has its time is not made sooner for what is only seen
        let waits = self.retry.is_some_and(|retry| retry.mode != Mode::Look && retry.is_of(told));
        let Some(told) = told.filter(|told| told.spec.is_some()) else {
            if failed == Some(Fault::Unavailable) && self.may_repair_unseen() {
                self.repair = Some(Repair { at: now.mono, cause: running.cause, tries: 0 });
            }
            self.failed(now, failed.unwrap_or(Fault::Crashed), None, (!waits).then_some(Mode::Look));
            return;
        };
        if waits {
            self.view.converged = false;
            return;
        }
        if told.spec != self.view.spec.applied {
            // a spec that was taken back waits for its retry, and there is none any more only after a reload
            self.retry = Some(Retry { at: now.mono, mode: Mode::Apply, cause: Cause::Spec, spec: told.spec, runtimes: told.runtimes });
            return;
        }
        if told.changes == 0 {
            self.view.drift.paths.clear();
            self.view.drift.conflicts.clear();
            self.view.drift.left.clear();
            self.repair = None;
            self.view.due.clone_from(&told.due);
            self.wait_for(now, told, true);
            if let Some(fault) = failed {
                self.failed(now, fault, Some(told), (!is_soft(fault)).then_some(Mode::Look));
            } else {
                self.succeeded();
                self.converged(now);
            }
            return;
        }
        self.view.converged = false;
        if !self.clean || told.runtimes != self.runtimes {
            // unfinished work, or a runtime that has come or changed
            self.repair = Some(Repair { at: now.mono, cause: running.cause, tries: 0 });
        } else {
            self.drifted(now, running.cause, told, out);
        }
    }

    fn converged(&mut self, now: Now) {
        self.view.converged = self.view.due.is_empty();
        if self.view.converged {
            self.view.converged_at = Some(now.wall);
        }
    }

    fn drifted(&mut self, now: Now, cause: Cause, told: &Told, out: &mut Vec<Action>) {
        let drift = &mut self.view.drift;
        let new = told.paths.iter().filter(|path| !drift.paths.contains(path)).count();
        drift.found = drift.found.saturating_add(u64::try_from(new).unwrap_or_default());
        drift.paths.clone_from(&told.paths);
        drift.conflicts.retain(|conflict| told.paths.contains(&conflict.path));
        for path in &told.paths {
            let times = self.repaired.get(path).map_or(0, |times| times.iter().filter(|at| **at > now.mono - CONFLICT_WITHIN).count());
            if times >= CONFLICT_AFTER && !drift.conflicts.iter().any(|conflict| conflict.path == *path) {
                drift.conflicts.push(DriftConflict { path: path.clone(), since: now.wall, writer: String::new() });
                out.push(Action::Ask(Question::Writer(path.clone())));
            }
        }
        let needs: Vec<String> =
            told.due.iter().filter(|due| due.how == "restart" && !self.waits_anyway(&due.what)).map(|due| due.what.clone()).collect();
        let drift = &mut self.view.drift;
        let left = match (&drift.conflicts[..], self.settings.drift) {
            ([first, ..], _) => {
                let what = format!("{} was put right three times in ten minutes, and somebody else writes it again", first.path);
                format!("{what}; it is left until one of the two gives way")
            }
            (_, DriftPolicy::Report) => "it is only reported (--drift report)".to_owned(),
            (_, DriftPolicy::Repair) if !needs.is_empty() => {
                format!("putting it right would need a restart of {} (--drift repair-with-restart)", needs.join(", "))
            }
            (_, DriftPolicy::Repair | DriftPolicy::RepairWithRestart) => String::new(),
        };
        if left.is_empty() {
            self.repair = Some(Repair { at: now.mono, cause, tries: 0 });
        } else if left != drift.left {
            let first: Vec<&str> = drift.paths.iter().take(3).map(String::as_str).collect();
            out.push(Action::Tell(Severity::Warning, format!("drift: {} is not as the spec says: {left}", first.join(", "))));
        }
        drift.left = left;
    }

    pub(super) fn package_manager(&mut self, now: Now, holder: Option<String>, out: &mut Vec<Action>) {
        let Some(repair) = &mut self.repair else { return };
        let Some(holder) = holder else {
            let cause = repair.cause;
            self.begin(now, Mode::Apply, cause, out);
            return;
        };
        repair.tries = repair.tries.saturating_add(1);
        repair.at = now.mono + self.random.about((SECOND << repair.tries.min(5)).min(30 * SECOND));
        self.view.drift.left = format!("{holder} is at work");
    }

    fn applied(&mut self, now: Now, running: &Running, told: Option<&Told>, failed: Option<Fault>, out: &mut Vec<Action>) {
        let Some(told) = told else {
            self.clean = false;
            if running.mode == Mode::Restart {
                self.restarted(now, None, out);
            }
            self.failed(now, failed.unwrap_or(Fault::Crashed), None, Some(Mode::Apply));
            return;
        };
        let before = self.view.spec.applied;
        let of_drift = told.spec == before && self.clean && told.runtimes == self.runtimes && before.is_some();
        if told.spec.is_some() && failed != Some(Fault::Crashed) && failed != Some(Fault::RolledBack) {
            if told.spec != before {
                self.view.spec.applied_at = Some(now.wall);
                self.repaired.clear();
                self.view.drift.conflicts.clear();
            }
            self.view.spec.applied = told.spec;
            self.runtimes = told.runtimes;
            self.view.due.clone_from(&told.due);
            if of_drift {
                self.repaired(now, told);
            }
            self.view.drift.paths.clear();
            self.view.drift.left.clear();
            let same_waits = self.waiting.is_some() && running.cause == Cause::Start && told.spec == before;
            self.wait_for(now, told, of_drift || same_waits);
        }
        if running.mode == Mode::Restart {
            self.restarted(now, Some(told), out);
        }
        let Some(failed) = failed else {
            self.clean = true;
            // as long as the restart that did not go well is still to come, it is not forgotten that it did not
            if self.held.is_none() || self.held != told.spec || self.waiting.is_none() {
                self.held = None;
                self.succeeded();
            }
            self.converged(now);
            return;
        };
        if told.spec.is_some() {
            self.clean = is_soft(failed);
        }
        if failed == Fault::RolledBack {
            self.view.rollbacks += 1;
            self.held = told.spec;
            self.waiting = None;
        }
        let waits_for_others = is_soft(failed) && told.spec.is_some();
        // what is not tried again is looked at: somebody may have done it by hand
        let again = if failed == Fault::FailedBefore { Mode::Look } else { Mode::Apply };
        self.failed(now, failed, Some(told), (!waits_for_others).then_some(again));
    }

    /// Without its source a look says nothing, but a pass that applies goes by the last good spec, and puts right what others have
    /// changed: not where that may only be reported, and not for ever against somebody else.
    fn may_repair_unseen(&self) -> bool {
        let fights = self.repaired.values().any(|times| times.len() >= CONFLICT_AFTER);
        self.settings.drift != DriftPolicy::Report && self.view.spec.applied.is_some() && !fights && self.repair.is_none()
    }

    fn repaired(&mut self, now: Now, told: &Told) {
        self.view.drift.repaired = self.view.drift.repaired.saturating_add(u64::from(told.changes));
        for times in self.repaired.values_mut() {
            times.retain(|at| *at > now.mono - CONFLICT_WITHIN);
        }
        self.repaired.retain(|_, times| !times.is_empty());
        for path in told.paths.iter().take(MOST) {
            if self.repaired.len() < MOST || self.repaired.contains_key(path) {
                let times = self.repaired.entry(path.clone()).or_default();
                times.push(now.mono);
                let more = times.len().saturating_sub(CONFLICT_AFTER);
                times.drain(..more);
            }
        }
    }

    /// What is new in the end of this pass, for the journal.
    fn tell(&mut self, end: &PassEnd, failed: Option<Fault>, out: &mut Vec<Action>) {
        let Some(last) = &self.view.last_pass else { return };
        if last.mode != Mode::Look && last.changes > 0 {
            let what = format!("{}: {} changed", super::machine::cause_word(last.cause), plural(last.changes, "path"));
            out.push(Action::Tell(Severity::Note, what));
        }
        let code = end.code.map_or_else(|| "no exit code".to_owned(), |code| format!("exit code {code}"));
        let mut told = failed.map(|_| format!("{} ({code})", last.outcome)).unwrap_or_default();
        for problem in last.problems.iter().filter(|problem| failed.is_some() || problem.severity == "error") {
            told = format!("{told}{}{}", if told.is_empty() { "" } else { "; " }, problem.what);
        }
        if !told.is_empty() && told != self.told {
            out.push(Action::Tell(Severity::Warning, told.clone()));
        }
        self.told = told;
    }
}

/// A fault that is not of what was done: all the rest was, and the next look finds out when it is over.
fn is_soft(fault: Fault) -> bool {
    matches!(fault, Fault::Unavailable | Fault::Paused)
}

/// Whether one of the two is the other, or lies in it.
fn near(one: &str, other: &str) -> bool {
    let below = |path: &str, folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    below(one, other) || below(other, one)
}

/// An outcome as it is counted: there are as many as the table of exit codes has, whatever a pass says.
fn known(outcome: &str) -> String {
    let plain = outcome.len() <= 20 && outcome.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    if plain { outcome.to_owned() } else { "crashed".to_owned() }
}

fn plural(count: u32, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
