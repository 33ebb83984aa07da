//! How a node stands: one versioned structure, as text and JSON. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde::Serialize;

use super::exit::Outcome;
use super::expiry::Expiry;
use super::explain::plural;
use super::problems::escape;
use super::style::Style;
use super::trail::{Event, Line};
use crate::agent::state::{AgentState, Phase, ProbeView};
use crate::ledger::{Due, LastSpec, Ledger};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::pause::Pause;
use crate::model::problem::Problem;
use crate::model::time::Time;
use crate::plan::drift::{Drift, Kind};
use crate::plan::whole::readers;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::spec::adopt::Adopted;
use crate::spec::load::Draft;

/// Version of the JSON form; it grows when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// So many days before a certificate runs out it is told as a warning.
pub const SOON: i64 = 30;

/// How a node stands.
#[derive(Debug, Serialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// How the question ended; with `--exit-code`, how the node stands.
    pub outcome: Outcome,
    /// The exit code that goes with it.
    pub exit_code: u8,
    /// The version of nodeprep that answers.
    pub nodeprep: &'static str,
    /// When it was looked, in milliseconds since 1970.
    pub now: Time,
    /// Whether the ledger could be read.
    pub readable: bool,
    /// The spec that was applied last; `null` where nothing is owned.
    pub spec: Option<SpecStatus>,
    /// One per target that nodeprep owns something of.
    pub managed: Vec<Managed>,
    /// What was found on the node.
    pub runtimes: Vec<FoundRuntime>,
    /// What running programs have not seen yet.
    pub due: Vec<Due>,
    /// A run was cut off, and the next one has not finished it.
    pub cut_off: bool,
    /// What is not as the last run left it.
    pub drift: Vec<Drift>,
    /// What is left alone for a while.
    pub paused: Vec<Pause>,
    /// The last run that changed something, or ended otherwise than the one before.
    pub last_run: Option<Line>,
    /// The last unit or command that was run so that programs see a change.
    pub last_activation: Option<Line>,
    /// Certificates that we left on the node, those that run out first before the others.
    pub expiry: Vec<Expiry>,
    /// What counts beside the spec, as lines to copy into it, by the file in which it stood.
    pub adopted: BTreeMap<NodePath, String>,
    /// How the agent sees itself, where one runs or has run since the boot.
    pub agent: Option<Agent>,
    /// Warnings and errors.
    pub problems: Vec<Problem>,
}

/// The spec that was applied last.
#[derive(Debug, Serialize)]
pub struct SpecStatus {
    /// Its name.
    pub name: String,
    /// Its serial, where it has one.
    pub serial: Option<u64>,
    /// The keyed digest of it and of what it references: the same on this node as long as nothing of it changes.
    pub digest: Option<Digest>,
    /// Since when this very spec is applied, as far as the trail goes back.
    pub applied: Option<Time>,
    /// Whether the document closes what it does not say otherwise.
    pub never: bool,
    /// Whether it denies what it does not name.
    pub deny: bool,
    /// How many sources it has.
    pub sources: usize,
}

/// What nodeprep owns of a target.
#[derive(Debug, Serialize)]
pub struct Managed {
    /// Which.
    pub target: String,
    /// Who reads it.
    pub runtimes: Vec<String>,
    /// Whole files of ours.
    pub files: usize,
    /// Files of others that hold keys of ours.
    pub shared: usize,
    /// How many of both are not as they were left.
    pub drift: usize,
}

/// The agent.
#[derive(Debug, Serialize)]
pub struct Agent {
    /// Whether its process is there; `null` where that cannot be told.
    pub alive: Option<bool>,
    /// What it says of itself.
    #[serde(flatten)]
    pub state: AgentState,
}

/// What [`Status::new`] is made from.
#[derive(Debug)]
pub struct Seen<'a> {
    /// The ledger; `None` where it cannot be read.
    pub ledger: Option<&'a Ledger>,
    /// The runtimes.
    pub found: Vec<FoundRuntime>,
    /// What is due.
    pub due: Vec<Due>,
    /// What has drifted.
    pub drift: Vec<Drift>,
    /// What is paused now.
    pub paused: Vec<Pause>,
    /// The end of the trail.
    pub trail: Vec<Line>,
    /// When certificates run out.
    pub expiry: Vec<Expiry>,
    /// The agent.
    pub agent: Option<Agent>,
    /// What could not be looked at.
    pub problems: Vec<Problem>,
}

impl Status {
    /// How a node stands; `judged`: the outcome tells it, too.
    #[must_use]
    pub fn new(seen: Seen<'_>, now: Time, judged: bool) -> Self {
        let Seen { ledger, found, due, drift, paused, trail, expiry, agent, mut problems } = seen;
        let unknown = ledger.is_none() || problems.iter().any(|problem| problem.severity == crate::model::problem::Severity::Error);
        problems.extend(expiry.iter().filter_map(runs_out));
        let outcome = match () {
            () if !judged => Outcome::Converged,
            () if unknown => Outcome::Cannot,
            () if !paused.is_empty() => Outcome::Paused,
            () if drift.iter().any(|one| !matches!(one.kind, Kind::Unknown(_))) => Outcome::Pending,
            () if expiry.iter().any(|one| one.days < 0) => Outcome::VerifyFailed,
            () if !due.is_empty() => Outcome::Due,
            () => Outcome::Converged,
        };
        let spec = ledger.and_then(|ledger| ledger.spec.as_ref());
        Self {
            version: VERSION,
            outcome,
            exit_code: outcome.code(),
            nodeprep: env!("CARGO_PKG_VERSION"),
            now,
            readable: ledger.is_some(),
            spec: spec.map(|spec| SpecStatus {
                name: spec.name.clone(),
                serial: spec.serial.as_ref().map(|serial| serial.number),
                digest: spec.digest,
                applied: applied(&trail, spec),
                never: spec.never,
                deny: spec.deny,
                sources: spec.sources.len(),
            }),
            managed: ledger.map(|ledger| managed(ledger, &found, &drift)).unwrap_or_default(),
            runtimes: found,
            due,
            cut_off: ledger.is_some_and(|ledger| ledger.open.is_some()),
            drift,
            paused,
            last_run: trail.iter().rev().find(|line| line.event == Event::Run).cloned(),
            last_activation: trail.iter().rev().find(|line| line.event == Event::Activation).cloned(),
            expiry,
            adopted: ledger.map(adopted).unwrap_or_default(),
            agent,
            problems,
        }
    }

    /// The JSON form, with a newline at the end.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The first of the last lines in a row that speak of this very spec.
fn applied(trail: &[Line], spec: &LastSpec) -> Option<Time> {
    let of_spec = trail.iter().rev().filter(|line| line.spec_digest.is_some());
    let same = of_spec.take_while(|line| line.spec_digest == spec.digest && line.spec.as_deref() == Some(&spec.name));
    same.last().and_then(|line| Time::parse(&line.time))
}

fn runs_out(expiry: &Expiry) -> Option<Problem> {
    let Expiry { role, subject, days, expires, paths, .. } = expiry;
    if *days >= SOON {
        return None;
    }
    let of = match role {
        super::expiry::Role::Ca => "the CA",
        super::expiry::Role::Client => "the client certificate",
    };
    let where_ = paths.first().map_or("", NodePath::as_str);
    Some(if *days < 0 {
        Problem::warning(
            "expired",
            format!("{of} {subject:?} ({where_}) ran out on {expires}"),
            "put its successor into the spec and apply it",
        )
    } else {
        let what = format!("{of} {subject:?} ({where_}) runs out in {}, on {expires}", plural(usize::try_from(*days).unwrap_or(0), "day"));
        Problem::warning("expires-soon", what, "put its successor beside it into the spec in time")
    })
}

fn managed(ledger: &Ledger, found: &[FoundRuntime], drift: &[Drift]) -> Vec<Managed> {
    let targets: BTreeSet<_> = ledger.owned.values().map(|owned| &owned.target).collect();
    let one = |target: &crate::desired::Target| {
        let owned = || ledger.owned.values().filter(|owned| &owned.target == target);
        Managed {
            target: target.to_string(),
            runtimes: readers(target, found).iter().map(|reader| reader_of(reader)).collect(),
            files: owned().filter(|owned| owned.format.is_none()).count(),
            shared: owned().filter(|owned| owned.format.is_some()).count(),
            drift: drift.iter().filter(|one| one.target == target.to_string()).count(),
        }
    };
    targets.into_iter().map(one).collect()
}

fn reader_of(reader: &FoundRuntime) -> String {
    let version = reader.running.as_ref().and_then(|running| running.version).or(reader.installed);
    let runs = if reader.running.is_some() { ", runs" } else { "" };
    version.map_or_else(|| reader.runtime.to_string(), |version| format!("{} {version}{runs}", reader.runtime))
}

/// What is carried over, but for what the spec says itself as far as the ledger knows.
fn adopted(ledger: &Ledger) -> BTreeMap<NodePath, String> {
    let empty = LastSpec::default();
    let last = ledger.spec.as_ref().unwrap_or(&empty);
    let fallback = if last.never { "never" } else { "upstream" };
    let text = format!("version = 1\nfallback = \"{fallback}\"\n");
    let spec: Option<Spec> = Draft::open("status", text.as_bytes()).ok().and_then(|draft| draft.close(&BTreeMap::new(), None).spec);
    let Some(spec) = spec else { return BTreeMap::new() };
    let lines = |adopted: &Adopted| {
        let mut rest = adopted.clone();
        rest.mirrors.retain(|source, _| !last.sources.contains_key(source));
        super::adopted::lines(&spec, &rest)
    };
    let all = ledger.adopted.iter().map(|(file, adopted)| (file.clone(), lines(adopted)));
    all.filter(|(_, lines)| !lines.is_empty()).collect()
}

/// The status as text.
#[must_use]
pub fn text(status: &Status, style: Style) -> String {
    let mut out = String::new();
    let mut row = |name: &str, said: &str| {
        let _ = writeln!(out, "{} {said}", style.bold(&format!("{name}:")));
    };
    match &status.spec {
        Some(spec) => row("spec", &spec_text(spec)),
        None if status.managed.is_empty() => row("spec", "nodeprep owns nothing on this node"),
        None => row("spec", "applied by an earlier nodeprep, which did not write its name down"),
    }
    for pause in &status.paused {
        let paths: Vec<&str> = pause.paths.iter().map(NodePath::as_str).collect();
        let what = if paths.is_empty() { "all of the node".to_owned() } else { paths.join(", ") };
        row("paused", &style.yellow(&escape(&format!("{what} {}", pause.said()))));
    }
    for managed in &status.managed {
        row(&managed.target, &managed_text(managed, style));
    }
    for drift in &status.drift {
        row("drift", &style.red(&escape(&format!("{} {}", drift.path, drift.kind.said()))));
    }
    if status.cut_off {
        row("cut off", &style.yellow("an earlier run did not come to its end; the next one finishes it"));
    }
    for due in &status.due {
        if let Some(what) = super::plan::how(&due.what.how) {
            row("due", &style.yellow(&escape(&format!("{what}, since {}: {}", due.since, due.what.because.join("; ")))));
        }
    }
    if let Some(run) = &status.last_run {
        let changes = run.changes.map(|changes| format!(", {}", plural(changes, "change"))).unwrap_or_default();
        let reason = if run.reason.is_empty() { String::new() } else { format!(": {}", run.reason) };
        row("last run", &escape(&format!("{} at {}: {}{changes}{reason}", run.command, run.time, run.outcome)));
    }
    if let Some(line) = &status.last_activation {
        let what = line.activation.as_deref().unwrap_or_default();
        row("last activation", &escape(&format!("{what} at {}: {}", line.time, line.outcome)));
    }
    for one in &status.expiry {
        let said = format!("{} {}, {} in {}", one.role.name(), one.subject, one.expires, plural_days(one.days));
        row("expires", &if one.days < SOON { style.yellow(&escape(&said)) } else { escape(&said) });
    }
    for (file, lines) in &status.adopted {
        let mut said = escape(&format!("carried over from {file}; to keep it in the spec, add:"));
        for line in lines.lines().map(escape) {
            let indent = if line.is_empty() { "" } else { "    " };
            let _ = write!(said, "\n{indent}{line}");
        }
        row("adopted", &said);
    }
    if let Some(agent) = &status.agent {
        row("agent", &escape(&agent_text(agent)));
        for said in agent.state.probe.iter().flat_map(probe_text) {
            row("endpoints", &escape(&said));
        }
    }
    if !status.problems.is_empty() {
        out.push_str(&super::problems::render(&status.problems, style.colour));
    }
    out
}

fn plural_days(days: i64) -> String {
    let count = plural(usize::try_from(days.unsigned_abs()).unwrap_or(usize::MAX), "day");
    if days < 0 { format!("{count}, that is past") } else { count }
}

fn spec_text(spec: &SpecStatus) -> String {
    let serial = spec.serial.map(|serial| format!(", serial {serial}")).unwrap_or_default();
    let digest = spec.digest.map(|digest| format!(", digest {}", digest.short())).unwrap_or_default();
    let closed = if spec.never { ", closed" } else { "" };
    let deny = if spec.deny { ", denies what it does not name" } else { "" };
    escape(&format!("{}{serial}{digest}, {}{closed}{deny}", spec.name, plural(spec.sources, "source")))
}

fn managed_text(managed: &Managed, style: Style) -> String {
    let mut counts = Vec::new();
    if managed.files > 0 {
        counts.push(plural(managed.files, "file"));
    }
    if managed.shared > 0 {
        counts.push(format!("keys in {}", plural(managed.shared, "file")));
    }
    let readers = if managed.runtimes.is_empty() { String::new() } else { format!(" ({})", escape(&managed.runtimes.join(", "))) };
    let state = match managed.drift {
        0 => style.green("as they were left"),
        drift => style.red(&format!("{drift} not as left")),
    };
    format!("{}, {state}{readers}", counts.join(", "))
}

/// What came of the endpoints, and what is amiss with them or with mirrors.
fn probe_text(probe: &ProbeView) -> Vec<String> {
    let dead = if probe.unreachable == 0 {
        String::new()
    } else {
        format!(", {} of them without the answer that they should give", probe.unreachable)
    };
    let tried = plural(usize::try_from(probe.endpoints).unwrap_or(0), "endpoint");
    let stale = probe.canaries.iter().filter(|canary| canary.fresh == Some(false)).map(|canary| {
        let since = canary.fresh_at.map_or_else(|| "never seen fresh".to_owned(), |at| format!("last fresh at {at}"));
        format!("{} is not fresh at {}, {since}", canary.image, canary.endpoint)
    });
    let amiss = probe.problems.iter().map(|problem| problem.what.clone());
    let first = format!("{tried} tried at {}{dead}", probe.ended);
    std::iter::once(first).chain(amiss).chain(stale).collect()
}

fn agent_text(agent: &Agent) -> String {
    let AgentState { phase, says, program, .. } = &agent.state;
    let phase = match (agent.alive, phase) {
        (Some(false), Phase::Stopped) => "does not run".to_owned(),
        (Some(false), _) => "does not run, and did not end by itself".to_owned(),
        (_, phase) => serde_json::to_value(phase).ok().and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default(),
    };
    let says = if says.is_empty() { String::new() } else { format!(": {says}") };
    format!("nodeprep {program}, {phase}{says}")
}
