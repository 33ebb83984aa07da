//! When endpoints are tried, and what is kept of it. Pure.
//!
//! A probe tells what monitoring wants to know, and nothing else: it never decides whether the node is as the spec says, waits for every pass and
//! gives way to each. Its times differ from node to node and from one to the next by a whole interval, so that a fleet that was started
//! at one time does not ask a registry at one time.

use std::fmt;
use std::io::Read;

use serde::Deserialize;
use serde::de::{Deserializer, SeqAccess, Visitor};

use super::machine::{Action, Machine};
use super::pass::{End, Few, MOST_PROBLEMS};
use super::settings::{MINUTE, Now, SECOND, splay};
use super::state::{CanaryView, Phase, ProbeView, ProblemView};
use crate::model::digest::Digest;
use crate::model::problem::Severity;
use crate::model::time::Time;

/// Every endpoint has its own time-out, and this is well above what all of them together take.
const LONGEST_PROBE: i64 = 15 * MINUTE;
/// As many canaries are kept, each at each of its endpoints.
pub const MOST_CANARIES: usize = 256;

/// How a probe has ended.
pub type ProbeEnd = End<ProbeTold>;

/// What the report of a probe says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProbeTold {
    /// Its outcome.
    pub outcome: String,
    /// How many endpoints were tried.
    pub endpoints: u32,
    /// How many of them do not answer as they should.
    pub unreachable: u32,
    /// The first canaries.
    pub canaries: Vec<Canary>,
    /// The first of what is amiss.
    pub problems: Vec<ProblemView>,
}

/// A canary at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// The image.
    pub image: String,
    /// Where it was asked for.
    pub endpoint: String,
    /// Whether it is as the spec wants it; `None` where that could not be told.
    pub fresh: Option<bool>,
}

/// When endpoints are tried.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Probes {
    at: Option<i64>,
    /// Since when one runs.
    running: Option<Now>,
}

impl Machine {
    /// The first time, by the node's name alone.
    pub(super) fn first_probe(&mut self, now: Now) {
        let place = |interval| splay(self.settings.machine, Some(Digest::of(b"probe")), interval);
        self.probes.at = self.settings.probe.map(|interval| now.mono + place(interval));
    }

    fn next_probe(&mut self, now: Now) {
        let random = &mut self.random;
        self.probes.at = self.settings.probe.map(|interval| now.mono + interval / 2 + random.below(interval));
    }

    /// Starts one that is due; nothing else is to be done now.
    pub(super) fn probe(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(began) = self.probes.running {
            if now.mono - began.mono >= LONGEST_PROBE {
                let why = "trying the endpoints has not ended for a quarter of an hour, and is ended";
                out.push(Action::Tell(Severity::Warning, why.to_owned()));
                out.push(Action::EndProbe);
                self.probed(now, ProbeEnd { why: why.to_owned(), ..ProbeEnd::default() });
            }
            return;
        }
        if self.view.phase != Phase::Starting && self.probes.at.is_some_and(|at| at <= now.mono) {
            self.probes.running = Some(now);
            out.push(Action::StartProbe);
        }
    }

    /// When there is something to do for a probe.
    pub(super) fn probe_wakes_at(&self) -> Option<i64> {
        match self.probes.running {
            Some(began) => Some(began.mono + LONGEST_PROBE),
            None => self.probes.at.filter(|_| self.view.phase != Phase::Starting),
        }
    }

    /// Something is to be done that does not wait: what was asked is asked soon afterwards. Of a fleet that gets a new spec at once only those
    /// nodes do so that were asking just then, and not at one moment.
    pub(super) fn interrupt_probe(&mut self, now: Now, out: &mut Vec<Action>) {
        if self.probes.running.take().is_some() {
            out.push(Action::EndProbe);
            let random = &mut self.random;
            self.probes.at = self.settings.probe.map(|interval| now.mono + 5 * SECOND + random.below(interval / 10));
        }
    }

    pub(super) fn probed(&mut self, now: Now, end: ProbeEnd) {
        // the end of one that was interrupted says nothing
        let Some(began) = self.probes.running.take() else { return };
        self.next_probe(now);
        let before = self.view.probe.take().unwrap_or_default();
        let view = ProbeView { began: began.wall, ended: now.wall, exit_code: end.code, ..ProbeView::default() };
        let Some(told) = end.told else {
            let crash = ProblemView { code: "probe".into(), severity: "error".into(), what: end.why, help: String::new() };
            // what was found before is still the last that is known
            self.view.probe = Some(ProbeView { outcome: "crashed".into(), problems: vec![crash], ..view.with_findings_of(before) });
            return;
        };
        let ProbeTold { outcome, endpoints, unreachable, canaries, problems } = *told;
        let canaries = canaries.into_iter().take(MOST_CANARIES).map(|canary| seen_on(canary, &before.canaries, now.wall)).collect();
        self.view.probe = Some(ProbeView { outcome, endpoints, unreachable, canaries, problems, ..view });
    }

    pub(super) fn show_probe(&mut self, now: Now) {
        let wall = |mono: i64| Time::from_secs((now.wall.0 - now.mono + mono).div_euclid(1000));
        self.view.next_probe = self.probes.at.filter(|_| self.probes.running.is_none()).map(wall);
    }
}

/// A canary with the last time when it was right.
fn seen_on(canary: Canary, before: &[CanaryView], now: Time) -> CanaryView {
    let Canary { image, endpoint, fresh } = canary;
    let known = before.iter().find(|known| known.image == image && known.endpoint == endpoint).and_then(|known| known.fresh_at);
    CanaryView { fresh_at: if fresh == Some(true) { Some(now) } else { known }, image, endpoint, fresh }
}

impl ProbeView {
    fn with_findings_of(self, before: Self) -> Self {
        let Self { endpoints, unreachable, canaries, .. } = before;
        Self { endpoints, unreachable, canaries, ..self }
    }
}

/// Reads the report of `nodeprep verify`.
///
/// # Errors
/// Why it is none.
pub fn read(from: impl Read) -> Result<ProbeTold, String> {
    let report: Report = serde_json::from_reader(from).map_err(|error| format!("its report cannot be read: {error}"))?;
    let Report { outcome, checks, canaries, problems } = report;
    let mut kept = problems.kept;
    kept.retain(|problem| problem.severity != "note");
    kept.extend(checks.amiss);
    kept.truncate(MOST_PROBLEMS);
    let mut canaries = canaries.kept;
    canaries.truncate(MOST_CANARIES);
    Ok(ProbeTold { outcome, endpoints: checks.endpoints, unreachable: checks.unreachable, canaries, problems: kept })
}

#[derive(Debug, Deserialize)]
struct Report {
    outcome: String,
    #[serde(default)]
    checks: Checks,
    #[serde(default)]
    canaries: Few<Canary>,
    #[serde(default)]
    problems: Few<ProblemView>,
}

/// What is to be known of checks: a thousand of them pass by without being held.
#[derive(Debug, Default)]
struct Checks {
    endpoints: u32,
    unreachable: u32,
    amiss: Vec<ProblemView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Check {
    result: String,
    id: String,
    subject: String,
    found: String,
    help: String,
}

impl Checks {
    fn add(&mut self, check: Check) {
        let failed = check.result == "failed";
        if check.id == "endpoint" {
            self.endpoints = self.endpoints.saturating_add(1);
            self.unreachable = self.unreachable.saturating_add(u32::from(failed));
        }
        if check.result != "ok" && self.amiss.len() < MOST_PROBLEMS {
            let severity = if failed { "error" } else { "warning" }.to_owned();
            let what = format!("{}: {}", check.subject, check.found);
            self.amiss.push(ProblemView { code: check.id, severity, what, help: check.help });
        }
    }
}

impl<'de> Deserialize<'de> for Checks {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Checks;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Checks, A::Error> {
                let mut checks = Checks::default();
                while let Some(check) = seq.next_element()? {
                    checks.add(check);
                }
                Ok(checks)
            }
        }
        from.deserialize_seq(List)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Report;
    use crate::report::exit::Outcome;
    use crate::verify;

    #[test]
    fn reads_what_verify_says() {
        let check = |result, id| verify::Check {
            result,
            id,
            subject: "containerd: https://r:5000".into(),
            found: "tcp: refused".into(),
            help: "start it".into(),
            steps: Vec::new(),
        };
        let mut checks = vec![check(verify::Outcome::CouldNotRun, "endpoint"), check(verify::Outcome::Failed, "canary")];
        checks.extend((0..300).map(|_| check(verify::Outcome::Failed, "endpoint")));
        checks.extend((0..10).map(|_| check(verify::Outcome::Ok, "endpoint")));
        let report = Report { checks, ..Report::new(Outcome::VerifyFailed) };
        let told = read(report.to_json().as_bytes()).unwrap();
        assert_eq!((told.outcome.as_str(), told.endpoints, told.unreachable), ("verify-failed", 311, 300));
        assert_eq!((told.problems.len(), told.problems[0].severity.as_str()), (MOST_PROBLEMS, "warning"));
        assert_eq!(told.problems[1].what, "containerd: https://r:5000: tcp: refused");
        assert!(read(&b"nodeprep: killed"[..]).is_err());
        let stopped = Report::new(Outcome::InvalidSpec);
        assert_eq!(read(stopped.to_json().as_bytes()).unwrap().endpoints, 0);
    }
}
