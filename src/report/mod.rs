//! What a run has to say: one versioned structure, shown as text or JSON. Pure.

pub mod adopted;
pub mod exit;
pub mod expiry;
pub mod explain;
pub mod health;
pub mod metrics;
pub mod plan;
pub mod problems;
pub mod status;
pub mod style;
pub mod trail;
pub mod verify;

use serde::Serialize;

use crate::desired::Target;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::plan::Activation;
use crate::plan::turn::Turning;
use crate::runtime::FoundRuntime;

/// Version of the JSON form; it grows when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// The result of `check`, `plan`, `apply`, `revert` or `explain`.
#[derive(Debug, Serialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// How it ended.
    pub outcome: exit::Outcome,
    /// The exit code that goes with it.
    pub exit_code: u8,
    /// The spec that it was made with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spec: Option<SpecReport>,
    /// What was found on the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub runtimes: Vec<FoundRuntime>,
    /// One per target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartReport>,
    /// What still has to happen for running programs to see the change.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<Activation>,
    /// What happens, or happened, to units of the service manager.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub units: Vec<UnitReport>,
    /// Errors, warnings and notes that belong to no target.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// What `verify` looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<crate::verify::Check>,
    /// What became of the canaries of the spec (`verify`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<crate::verify::canary::Found>,
    /// What runtimes ask for images (`explain`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resolutions: Vec<explain::Answer>,
}

/// Which spec a run was made with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpecReport {
    /// Digest of its documents and of everything that they reference.
    pub digest: crate::model::digest::Digest,
    /// The files that it references, as they are written there.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub references: Vec<String>,
}

/// What happens, or happened, to one target.
#[derive(Debug, Serialize)]
pub struct PartReport {
    /// Which.
    #[serde(serialize_with = "as_text")]
    pub target: Target,
    /// Converged, changed, or left untouched.
    pub state: PartState,
    /// Its changes.
    pub changes: Vec<Change>,
    /// What makes running programs see them, and what needs nothing.
    pub activations: Vec<Activation>,
    /// Why it was left untouched, warnings, notes.
    pub problems: Vec<Problem>,
    /// What counts there beside the spec, as lines to copy into it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub adopted: String,
}

/// What happens, or happened, to one unit.
#[derive(Clone, Debug, Serialize)]
pub struct UnitReport {
    /// Which.
    pub unit: String,
    /// What it needs.
    #[serde(rename = "needs")]
    pub turning: Turning,
    /// What becomes of that.
    pub state: UnitState,
    /// Units that stop and start with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub along: Vec<String>,
    /// Why it is left.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub why: String,
}

/// What becomes of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum UnitState {
    /// It will be done.
    Planned,
    /// It was done, and its daemon is well.
    Done,
    /// It was to be done, and was not, or its daemon is not well.
    Failed,
    /// It is left to others.
    Left,
}

/// How a target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartState {
    /// Nothing to change.
    Converged,
    /// Changes to make, or made.
    Changes,
    /// Nothing to change but what is kept back until an endpoint answers.
    KeptBack,
    /// Left as it is: the node cannot do it.
    Cannot,
    /// Left as it is: somebody else's configuration is in the way.
    Conflict,
}

/// One change of one path.
#[derive(Debug, Serialize)]
pub struct Change {
    /// Which path.
    pub path: NodePath,
    /// What is done.
    pub kind: ChangeKind,
    /// Why.
    pub why: String,
    /// Unified diff, secrets masked.
    pub diff: String,
}

/// Kinds of change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// A new file.
    Create,
    /// A file is replaced.
    Replace,
    /// Keys in somebody else's file change.
    Edit,
    /// A file goes.
    Remove,
    /// What was there before comes back.
    Restore,
}

impl ChangeKind {
    /// The sign in front of the path.
    #[must_use]
    pub const fn sign(self) -> char {
        match self {
            Self::Create => '+',
            Self::Replace | Self::Edit => '~',
            Self::Remove => '-',
            Self::Restore => '<',
        }
    }
}

impl Report {
    /// An empty report.
    #[must_use]
    pub fn new(outcome: exit::Outcome) -> Self {
        Self {
            version: VERSION,
            outcome,
            exit_code: outcome.code(),
            spec: None,
            runtimes: Vec::new(),
            parts: Vec::new(),
            due: Vec::new(),
            units: Vec::new(),
            problems: Vec::new(),
            checks: Vec::new(),
            canaries: Vec::new(),
            resolutions: Vec::new(),
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

fn as_text<T: std::fmt::Display, S: serde::Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(value)
}
