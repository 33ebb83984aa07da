//! How the agent sees itself: one structure, written to [`STATE_FILE`] whenever it changes, read by `nodeprep status` and the metrics.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::time::Time;

/// Where the agent writes it, inside the root, mode 0600; memory that is gone after a boot.
pub const STATE_FILE: &str = "/run/nodeprep/agent.json";
/// Version of its form; it grows when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// The agent of a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentState {
    /// [`VERSION`].
    pub version: u32,
    /// Its process; 0 after it has ended by itself.
    pub pid: u32,
    /// When it started.
    pub started: Time,
    /// When the node was booted, by the clock as it was then, to the second: by it the times here are known after the clock has stepped.
    pub booted: Time,
    /// Its version of nodeprep.
    pub program: String,
    /// What it is doing.
    pub phase: Phase,
    /// The same for people: what systemd shows as the unit's status.
    pub says: String,
    /// The node was as the spec says when it was looked at last: nothing to change, nothing due, nothing kept back, no drift.
    pub converged: bool,
    /// When it was found so last.
    pub converged_at: Option<Time>,
    /// What it reads.
    pub spec: SpecView,
    /// The pass that ended last.
    pub last_pass: Option<PassView>,
    /// The next one that has a time.
    pub next_pass: Option<NextPass>,
    /// What came of the endpoints when they were tried last.
    pub probe: Option<ProbeView>,
    /// When they are tried next.
    pub next_probe: Option<Time>,
    /// Why passes fail; `None` after one that did not.
    pub failing: Option<Failing>,
    /// What running programs have not seen yet.
    pub due: Vec<Due>,
    /// The restarts that wait.
    pub restart: Option<Restart>,
    /// When the agent has restarted units within the last hour (milliseconds since 1970).
    pub restarts: Vec<Time>,
    /// As many passes with restarts as there may be within an hour.
    pub restart_budget: u32,
    /// What somebody else has changed.
    pub drift: Drift,
    /// Passes by outcome (`converged`, `conflict`, …; `crashed`), since the agent runs.
    pub passes: BTreeMap<String, u64>,
    /// Passes by cause.
    pub causes: BTreeMap<Cause, u64>,
    /// Units that were turned, by `reload` or `restart`, then by `done`, `failed` or `left`.
    pub activations: BTreeMap<String, BTreeMap<String, u64>>,
    /// Passes that failed and put everything back.
    pub rollbacks: u64,
    /// What is watched.
    pub watches: Watches,
}

/// What the agent is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// The first pass has not ended.
    #[default]
    Starting,
    /// Nothing is to be done before the next look.
    Idle,
    /// Something is to be done, and waits for its time.
    Waiting,
    /// A pass runs.
    Running,
    /// It was told to end.
    Stopped,
}

/// Where the spec comes from, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SpecView {
    /// As given with `--spec`; of a URL without what may be secret.
    pub source: String,
    /// Digest of the spec that was applied last.
    pub applied: Option<Digest>,
    /// Since when.
    pub applied_at: Option<Time>,
    /// Digest of the spec that was read last.
    pub seen: Option<Digest>,
}

/// Why a pass runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The agent has started.
    #[default]
    Start,
    /// The spec, or what it references, may have changed.
    Spec,
    /// A URL is asked again.
    Poll,
    /// Something on the node may have changed.
    Node,
    /// Everything is read again from time to time.
    Reread,
    /// The pass before did not succeed.
    Retry,
    /// Units are restarted that wait for it.
    Restart,
    /// It was told to read everything again (SIGHUP).
    Reload,
}

/// What a pass does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// It looks (`nodeprep plan`).
    #[default]
    Look,
    /// It applies, and reloads what can be reloaded.
    Apply,
    /// It applies, and restarts what has to be restarted.
    Restart,
}

/// A pass that has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PassView {
    /// When it began.
    pub began: Time,
    /// When it ended.
    pub ended: Time,
    /// Why it ran.
    pub cause: Cause,
    /// What it did.
    pub mode: Mode,
    /// How it ended: an outcome of the report (`converged`, `invalid-spec`, …), `crashed`, or `pending`.
    pub outcome: String,
    /// Its exit code; `None` when a signal ended it.
    pub exit_code: Option<u8>,
    /// Paths that it changed, or would change.
    pub changes: u32,
    /// The first of its errors and warnings.
    pub problems: Vec<ProblemView>,
}

/// Endpoints that were tried (`nodeprep verify`). It says nothing of whether the node is as the spec says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProbeView {
    /// When that began.
    pub began: Time,
    /// When it ended.
    pub ended: Time,
    /// How it ended: `converged`, `verify-failed`, …, `crashed`.
    pub outcome: String,
    /// Its exit code; `None` when a signal ended it.
    pub exit_code: Option<u8>,
    /// How many endpoints were tried.
    pub endpoints: u32,
    /// How many of them do not answer as they should.
    pub unreachable: u32,
    /// The canaries of the spec, at each of their endpoints.
    pub canaries: Vec<CanaryView>,
    /// The first of what is amiss.
    pub problems: Vec<ProblemView>,
}

/// A canary at one endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CanaryView {
    /// The image.
    pub image: String,
    /// Where it was asked for, as `scheme://host`.
    pub endpoint: String,
    /// Whether it is as the spec wants it; `None` where that could not be told.
    pub fresh: Option<bool>,
    /// When it was so last, as far as this agent and those before it since the boot have seen.
    pub fresh_at: Option<Time>,
}

/// A problem of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ProblemView {
    /// Its code.
    pub code: String,
    /// `error` or `warning`.
    pub severity: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// A pass that will run unless something happens before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NextPass {
    /// When.
    pub at: Time,
    /// Why.
    pub cause: Cause,
}

/// Passes that fail for one reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Failing {
    /// The reason.
    pub kind: Fault,
    /// Since when.
    pub since: Time,
    /// How often in a row.
    pub times: u32,
}

/// Why a pass does not succeed; each has a back-off of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// Another run has the lock.
    Locked,
    /// An endpoint or a verification fails: something is kept back.
    Unready,
    /// The spec cannot be read or is invalid: the node stays as it is.
    Spec,
    /// The source of the spec cannot be reached: the node stays as it is.
    Unavailable,
    /// The node, or a part of it, is paused.
    Paused,
    /// The node cannot do it, or something is in the way.
    Refused,
    /// It failed, and was put back or not.
    RolledBack,
    /// It failed and was put back, and is not tried again with this spec and this version of the runtime.
    FailedBefore,
    /// The pass crashed, or ended as nobody expected (a full disk, for instance).
    #[default]
    Crashed,
}

/// What a running program has not seen yet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Due {
    /// `reload`, `restart` or `refresh`.
    pub how: String,
    /// The unit, or the command.
    pub what: String,
    /// The paths and reasons behind it.
    pub because: Vec<String>,
}

/// Restarts that wait.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Restart {
    /// Which units.
    pub units: Vec<String>,
    /// Since when they wait.
    pub since: Time,
    /// Not before then, by the splay.
    pub not_before: Time,
    /// What they wait for.
    pub waits_for: WaitsFor,
    /// The same for people.
    pub why: String,
}

/// What a restart waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// Its turn within `--restart-splay`.
    #[default]
    Splay,
    /// `--restart-window`.
    Window,
    /// `--restart-budget`.
    Budget,
    /// `--restart-gate`.
    Gate,
    /// The drift that makes it needed is not repaired with a restart (`--drift`).
    Drift,
    /// It was tried, and left or taken back: the time until it is tried again.
    Retry,
    /// Somebody else: nothing is restarted here (`--activate`, or the root of another system).
    Others,
    /// Nothing: it is being done.
    Nothing,
}

/// What somebody else has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Drift {
    /// `report`, `repair` or `repair-with-restart`.
    pub policy: String,
    /// Paths that were found changed, since the agent runs.
    pub found: u64,
    /// Paths that were put right, since the agent runs.
    pub repaired: u64,
    /// What is not as it should be now.
    pub paths: Vec<String>,
    /// Why it is left so.
    pub left: String,
    /// Paths that somebody else writes again and again: they are left until one of the two gives way.
    pub conflicts: Vec<DriftConflict>,
}

/// A path that somebody else writes again and again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DriftConflict {
    /// The path.
    pub path: String,
    /// Since when it is left.
    pub since: Time,
    /// Who else writes it, as far as it can be known.
    pub writer: String,
}

/// What is watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Watches {
    /// How many folders and files are.
    pub count: u32,
    /// Why some cannot be: they are looked at from time to time instead. Empty when all are watched.
    pub polling: String,
}
