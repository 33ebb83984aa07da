//! How a node stands, as metrics in the text format of Prometheus (version 0.0.4, which node_exporter's textfile collector reads). Pure.
//!
//! Times are times, not ages: what is shown stays true until something happens, so a file that is written once is as good as a question. Every
//! metric stands in [`METRICS`]; `docs/metrics.md` and the rules in `packaging/monitoring` are held against it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::expiry::Expiry;
use super::status::Status;
use super::trail::Event;
use crate::agent::probing::MOST_CANARIES;
use crate::model::order;
use crate::model::pause::By;
use crate::model::time::Time;
use crate::plan::How;
use crate::verify::canary::Found as Canary;

/// The content type of the text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Kinds of metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Goes up and down.
    Gauge,
    /// Goes up only, and begins anew with the agent.
    Counter,
}

impl Kind {
    /// As it stands in `# TYPE`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says.
    pub help: &'static str,
}

macro_rules! metrics {
    ($($ident:ident $kind:ident $name:literal [$($label:literal),*] $help:literal;)+) => {
        $(const $ident: Metric = Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)+
        /// All of them, in the order in which they are written.
        pub const METRICS: &[Metric] = &[$($ident),+];
    };
}

metrics! {
    BUILD Gauge "nodeprep_build_info" ["version"] "1, with the version of nodeprep that answers.";
    READABLE Gauge "nodeprep_ledger_readable" [] "Whether the ledger could be read. Where it could not, most of the rest is missing.";
    CONVERGED Gauge "nodeprep_converged" [] "Whether the node is as the spec says, as far as is known: the agent found it so, or without one the last run did; no drift, nothing due, nothing cut off, not paused.";
    SPEC Gauge "nodeprep_spec_info" ["name", "digest"] "1, with the name and the keyed digest of the spec that was applied last. The digest is another one on every node.";
    SERIAL Gauge "nodeprep_spec_serial" [] "The serial of the spec that was applied last, where it has one.";
    APPLIED Gauge "nodeprep_spec_applied_timestamp_seconds" [] "Since when this very spec is applied, as far as the audit trail goes back.";
    ROLLED_BACK Gauge "nodeprep_spec_rolled_back" [] "1 while the last run failed and was taken back, or could not be: stop the roll-out of the spec.";
    FILES Gauge "nodeprep_managed_files" ["target"] "Whole files of nodeprep's.";
    SHARED Gauge "nodeprep_shared_files" ["target"] "Files of others that hold keys of nodeprep's.";
    DRIFT Gauge "nodeprep_drift_files" ["target"] "Files that are not as the last run left them.";
    DUE Gauge "nodeprep_due" ["how"] "Activations (refresh, reload, restart) without which running programs do not see a change.";
    DUE_SINCE Gauge "nodeprep_due_since_timestamp_seconds" [] "Since when the oldest of them is due.";
    CUT_OFF Gauge "nodeprep_cut_off" [] "1 while a run that did not come to its end has not been finished by another one.";
    PAUSED Gauge "nodeprep_paused" ["scope"] "1 while the node, some of its paths, or what acts by itself (after a revert) is paused: scope node, paths, unattended.";
    PAUSED_UNTIL Gauge "nodeprep_paused_until_timestamp_seconds" ["scope"] "When the last of these pauses ends by itself.";
    RUN_CODE Gauge "nodeprep_last_run_exit_code" [] "The exit code of the last run that changed something or ended otherwise than the one before.";
    RUN_TIME Gauge "nodeprep_last_run_timestamp_seconds" [] "When that run ended.";
    EXPIRY Gauge "nodeprep_certificate_expiry_timestamp_seconds" ["role", "subject", "fingerprint"] "When a CA (role ca) or a client certificate (role client) that nodeprep left on the node runs out.";
    REACHABLE Gauge "nodeprep_endpoint_reachable" ["scheme", "host"] "Whether the endpoint answered in the way in which the node's daemons ask it, when it was tried last.";
    LATENCY Gauge "nodeprep_endpoint_latency_seconds" ["scheme", "host"] "How long that took: name, connection, handshake, /v2/ and login together.";
    ENDPOINTS Gauge "nodeprep_endpoints" ["state"] "Endpoints that were tried last: state reachable or unreachable. Of more than 200, those that do not answer have the metrics above, then the first of the others.";
    FRESH Gauge "nodeprep_mirror_fresh" ["image", "scheme", "host"] "Whether the mirror had what it should have of a canary of the spec when it was asked last; missing where that could not be told.";
    CREATED Gauge "nodeprep_mirror_canary_created_timestamp_seconds" ["image", "scheme", "host"] "When the canary that the mirror has was made, where the spec says how old it may be.";
    FRESH_AT Gauge "nodeprep_mirror_fresh_timestamp_seconds" ["image", "scheme", "host"] "When the agent has found the mirror fresh last, since the boot.";
    PROBED Gauge "nodeprep_endpoint_probed_timestamp_seconds" [] "When the endpoints were tried last.";
    AGENT Gauge "nodeprep_agent_up" [] "Whether the agent's process is there; missing where there is none since the boot, or it cannot be told.";
    AGENT_FAILING Gauge "nodeprep_agent_failing_since_timestamp_seconds" [] "Since when all passes of the agent fail for one reason; missing where they do not.";
    AGENT_PASS Gauge "nodeprep_agent_last_pass_timestamp_seconds" [] "When the agent's last pass ended.";
    AGENT_PROBE Gauge "nodeprep_agent_last_probe_timestamp_seconds" [] "When the agent has tried the endpoints last, whatever came of it.";
    PASSES Counter "nodeprep_agent_passes_total" ["outcome"] "Passes of the agent, by outcome.";
    ACTIVATIONS Counter "nodeprep_agent_activations_total" ["kind", "result"] "Units that the agent's passes turned: kind reload or restart, result done, failed or left.";
    ROLLBACKS Counter "nodeprep_agent_rollbacks_total" [] "Passes of the agent that failed and put everything back.";
    FOUND Counter "nodeprep_agent_drift_found_total" [] "Paths that the agent found changed by somebody else.";
    REPAIRED Counter "nodeprep_agent_drift_repaired_total" [] "Paths that the agent put right.";
    CONFLICTS Gauge "nodeprep_agent_drift_conflicts" [] "Paths that somebody else writes again and again, so that the agent leaves them.";
    WAITING Gauge "nodeprep_agent_restarts_waiting" [] "Units whose restart waits for its time.";
}

/// Samples by metric.
#[derive(Debug, Default)]
struct Samples(BTreeMap<&'static str, Vec<(Vec<String>, String)>>);

impl Samples {
    #[allow(clippy::needless_pass_by_value, reason = "all of them are numbers or short texts made on the spot")]
    fn put(&mut self, metric: Metric, labels: &[&str], value: impl ToString) {
        debug_assert_eq!(metric.labels.len(), labels.len(), "{}", metric.name);
        let labels = labels.iter().map(|label| (*label).to_owned()).collect();
        self.0.entry(metric.name).or_default().push((labels, value.to_string()));
    }

    fn flag(&mut self, metric: Metric, value: bool) {
        self.put(metric, &[], u8::from(value));
    }

    fn text(&self) -> String {
        let mut out = String::new();
        for metric in METRICS {
            let Some(samples) = self.0.get(metric.name) else { continue };
            let _ = writeln!(out, "# HELP {} {}\n# TYPE {} {}", metric.name, metric.help, metric.name, metric.kind.name());
            for (labels, value) in samples {
                let pairs = metric.labels.iter().zip(labels).map(|(name, value)| format!("{name}=\"{}\"", escaped(value)));
                let pairs = pairs.collect::<Vec<_>>().join(",");
                let braces = if pairs.is_empty() { String::new() } else { format!("{{{pairs}}}") };
                let _ = writeln!(out, "{}{braces} {value}", metric.name);
            }
        }
        out
    }
}

/// A label's value: the three characters that the format wants escaped; what else is no text goes.
fn escaped(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for char in value.chars() {
        match char {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            char if char.is_control() => {}
            char => out.push(char),
        }
    }
    out
}

const fn secs(time: Time) -> i64 {
    time.0.div_euclid(1000)
}

/// The metrics of a node.
#[must_use]
pub fn metrics(status: &Status) -> String {
    let mut all = Samples::default();
    all.put(BUILD, &[status.nodeprep], 1);
    all.flag(READABLE, status.readable);
    all.flag(CONVERGED, converged(status));
    if let Some(spec) = &status.spec {
        all.put(SPEC, &[&spec.name, &spec.digest.map(|digest| digest.short()).unwrap_or_default()], 1);
        if let Some(serial) = spec.serial {
            all.put(SERIAL, &[], serial);
        }
        if let Some(since) = spec.applied {
            all.put(APPLIED, &[], secs(since));
        }
    }
    all.flag(ROLLED_BACK, status.last_run.as_ref().is_some_and(|run| matches!(run.exit_code, Some(6 | 7))));
    for managed in &status.managed {
        all.put(FILES, &[&managed.target], managed.files);
        all.put(SHARED, &[&managed.target], managed.shared);
        all.put(DRIFT, &[&managed.target], managed.drift);
    }
    for how in ["refresh", "reload", "restart"] {
        let is = |one: &How| match one {
            How::Nothing => false,
            How::Refresh(_) => how == "refresh",
            How::Reload(_) => how == "reload",
            How::Restart(_) => how == "restart",
        };
        all.put(DUE, &[how], status.due.iter().filter(|due| is(&due.what.how)).count());
    }
    if let Some(since) = status.due.iter().map(|due| due.since).min() {
        all.put(DUE_SINCE, &[], secs(since));
    }
    all.flag(CUT_OFF, status.cut_off);
    paused(status, &mut all);
    if let Some(run) = status.last_run.as_ref().filter(|run| run.event == Event::Run) {
        all.put(RUN_CODE, &[], run.exit_code.unwrap_or(1));
        if let Some(time) = Time::parse(&run.time) {
            all.put(RUN_TIME, &[], secs(time));
        }
    }
    for Expiry { role, subject, fingerprint, not_after, .. } in &status.expiry {
        all.put(EXPIRY, &[role.name(), subject, &fingerprint.short()], not_after);
    }
    agent(status, &mut all);
    all.text()
}

fn converged(status: &Status) -> bool {
    let quiet = status.readable && status.drift.is_empty() && status.due.is_empty() && !status.cut_off && status.paused.is_empty();
    let found = match status.agent.as_ref().filter(|agent| agent.alive != Some(false)) {
        Some(agent) => agent.state.converged,
        None => status.spec.is_some() && status.last_run.as_ref().is_some_and(|run| run.exit_code == Some(0) && run.command == "apply"),
    };
    quiet && found
}

fn paused(status: &Status, all: &mut Samples) {
    for scope in ["node", "paths", "unattended"] {
        let of = || {
            status.paused.iter().filter(|pause| match (pause.by, pause.paths.is_empty()) {
                (By::Revert, _) => scope == "unattended",
                (By::Pause, true) => scope == "node",
                (By::Pause, false) => scope == "paths",
            })
        };
        all.put(PAUSED, &[scope], u8::from(of().next().is_some()));
        if let Some(until) = of().filter_map(|pause| pause.until).max() {
            all.put(PAUSED_UNTIL, &[scope], secs(until));
        }
    }
}

fn agent(status: &Status, all: &mut Samples) {
    let Some(agent) = &status.agent else { return };
    if let Some(alive) = agent.alive {
        all.flag(AGENT, alive);
    }
    let state = &agent.state;
    if let Some(failing) = &state.failing {
        all.put(AGENT_FAILING, &[], secs(failing.since));
    }
    if let Some(pass) = &state.last_pass {
        all.put(AGENT_PASS, &[], secs(pass.ended));
    }
    if let Some(probe) = &state.probe {
        all.put(AGENT_PROBE, &[], secs(probe.ended));
        for canary in &probe.canaries {
            if let Some(((scheme, host), at)) = canary.endpoint.split_once("://").zip(canary.fresh_at) {
                all.put(FRESH_AT, &[&canary.image, scheme, host], secs(at));
            }
        }
    }
    for (outcome, count) in &state.passes {
        all.put(PASSES, &[outcome], count);
    }
    for (kind, results) in &state.activations {
        for (result, count) in results {
            all.put(ACTIVATIONS, &[kind, result], count);
        }
    }
    all.put(ROLLBACKS, &[], state.rollbacks);
    all.put(FOUND, &[], state.drift.found);
    all.put(REPAIRED, &[], state.drift.repaired);
    all.put(CONFLICTS, &[], state.drift.conflicts.len());
    all.put(WAITING, &[], state.restart.as_ref().map_or(0, |restart| restart.units.len()));
}

/// An endpoint that was tried.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// `https` or `http`.
    pub scheme: String,
    /// Where.
    pub host: String,
    /// Whether it answered as it should.
    pub reachable: bool,
    /// How long that took, in milliseconds.
    pub took_ms: u64,
}

/// As many endpoints have metrics of their own, those that do not answer first.
const MOST_ENDPOINTS: usize = 200;

/// The metrics of endpoints that were tried `now`, and of canaries. One that several daemons ask is reachable when it is for all of them; the
/// slowest counts, and the one that is not fresh.
#[must_use]
pub fn endpoints(tried: &[Endpoint], canaries: &[Canary], now: Time) -> String {
    let mut by: BTreeMap<(&str, &str), (bool, u64)> = BTreeMap::new();
    for Endpoint { scheme, host, reachable, took_ms } in tried {
        let known = by.entry((scheme, host)).or_insert((true, 0));
        *known = (known.0 && *reachable, known.1.max(*took_ms));
    }
    let mut all = Samples::default();
    let answer = by.values().filter(|(reachable, _)| *reachable).count();
    all.put(ENDPOINTS, &["reachable"], answer);
    all.put(ENDPOINTS, &["unreachable"], by.len() - answer);
    let mut by: Vec<_> = by.into_iter().collect();
    order::sort_by_key(&mut by, |(_, (reachable, _))| *reachable);
    for ((scheme, host), (reachable, took_ms)) in by.into_iter().take(MOST_ENDPOINTS) {
        all.put(REACHABLE, &[scheme, host], u8::from(reachable));
        if reachable {
            all.put(LATENCY, &[scheme, host], format!("{}.{:03}", took_ms / 1000, took_ms % 1000));
        }
    }
    let mut fresh: BTreeMap<[&str; 3], (Option<bool>, Option<Time>)> = BTreeMap::new();
    for canary in canaries {
        let Some((scheme, host)) = canary.endpoint.split_once("://") else { continue };
        let known = fresh.entry([&canary.image, scheme, host]).or_insert((canary.fresh, canary.created));
        known.0 = known.0.zip(canary.fresh).map(|(one, other)| one && other);
        known.1 = known.1.into_iter().chain(canary.created).min();
    }
    for (labels, (fresh, created)) in fresh.into_iter().take(MOST_CANARIES) {
        if let Some(fresh) = fresh {
            all.put(FRESH, &labels, u8::from(fresh));
        }
        if let Some(created) = created {
            all.put(CREATED, &labels, secs(created));
        }
    }
    all.put(PROBED, &[], secs(now));
    all.text()
}

/// What of a text that was written before are metrics of endpoints; nothing where something else stands there.
#[must_use]
pub fn endpoints_of(text: &str) -> &str {
    let names = [REACHABLE, LATENCY, ENDPOINTS, FRESH, CREATED, PROBED].map(|metric| metric.name);
    let is_ours = |line: &str| {
        let name = line.strip_prefix("# HELP ").or_else(|| line.strip_prefix("# TYPE ")).unwrap_or(line);
        names.iter().any(|known| name.strip_prefix(known).is_some_and(|rest| rest.starts_with([' ', '{'])))
    };
    if text.ends_with('\n') && text.lines().all(is_ours) { text } else { "" }
}

/// The table of `docs/metrics.md`.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| metric | kind | labels | says |\n|---|---|---|---|\n");
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(text, "| `{}` | {} | {} | {} |", metric.name, metric.kind.name(), labels.join(", "), metric.help);
    }
    text
}
