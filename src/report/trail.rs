//! The lines of the audit trail (docs/adr/0020). Pure.

use serde::{Deserialize, Serialize};

use super::ChangeKind;
use crate::ledger::{LastSpec, Ledger, Open, Prior, Stamp};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::{Entry, Tree};
use crate::plan::{Act, Expect, Plan, Step};

/// Version of a line; it grows when a field changes its meaning or goes away.
pub const VERSION: u32 = 1;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// [`VERSION`].
    pub v: u32,
    /// When it was written, in UTC.
    pub time: String,
    /// The same for all lines of one transaction: when it began, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<i64>,
    /// What it is about.
    pub event: Event,
    /// What was asked for: `apply`, `revert`, `pause`, `resume`.
    pub command: String,
    /// The spec that counted: its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<String>,
    /// Its keyed digest, as in the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec_digest: Option<Digest>,
    /// For which target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Which path (`change`), or which paths (`pause`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What is done there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<ChangeKind>,
    /// What stood there: `absent`, `link`, `sha256:…`, or `hmac-sha256:…` under the key of the ledger.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// What stands there since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// The unit or command that was run so that programs see it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<String>,
    /// Until when (`pause`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What came of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub outcome: String,
    /// The exit code (`run`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How many changes were made (`run`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<usize>,
    /// Who asked: the user who logged in, where that is known, else the one that ran it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The version of nodeprep (`run`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodeprep: Option<String>,
}

/// What a line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// One path.
    Change,
    /// A unit, or the trust store.
    Activation,
    /// A run failed and went back, or could not.
    Rollback,
    /// The end of a run.
    Run,
    /// Something is left alone from now on.
    Pause,
    /// Nothing is left alone any more.
    Resume,
}

/// What came of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was made.
    Applied,
    /// It was made, and the run was cut off before it was through.
    CutOff,
    /// It was made and taken back.
    RolledBack,
    /// The run failed, and it stands.
    Stands,
}

impl Fate {
    /// As it stands in a line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::CutOff => "cut-off",
            Self::RolledBack => "rolled-back",
            Self::Stands => "failed-and-stands",
        }
    }
}

impl Line {
    /// A line about nothing yet.
    #[must_use]
    pub fn new(time: Time, event: Event, command: &str) -> Self {
        Self {
            v: VERSION,
            time: time.to_string(),
            run: None,
            event,
            command: command.to_owned(),
            spec: None,
            spec_digest: None,
            target: None,
            path: None,
            change: None,
            before: None,
            after: None,
            activation: None,
            until: None,
            reason: String::new(),
            outcome: String::new(),
            exit_code: None,
            changes: None,
            uid: None,
            nodeprep: None,
        }
    }

    /// The same, under this spec.
    #[must_use]
    pub fn under(self, spec: Option<&LastSpec>) -> Self {
        Self { spec: spec.map(|spec| spec.name.clone()), spec_digest: spec.and_then(|spec| spec.digest), ..self }
    }

    /// As it is written, with the newline without which it does not count.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string(self).unwrap_or_default();
        text.push('\n');
        text
    }
}

/// The lines of a text that can be read; others are passed over.
pub fn read(text: &str) -> impl DoubleEndedIterator<Item = Line> {
    text.lines().filter_map(|line| serde_json::from_str(line).ok())
}

/// A line for each path that the steps of a plan change, in their order. `tree` is the node before them.
#[must_use]
pub fn changes(head: &Line, plan: &Plan, tree: &Tree, ledger: &Ledger, fate: Fate) -> Vec<Line> {
    let steps = plan.stage.iter().chain(&plan.switch).chain(&plan.retire);
    steps.flat_map(|step| of_step(head, step, plan, tree, ledger)).map(|line| Line { outcome: fate.name().to_owned(), ..line }).collect()
}

fn of_step(head: &Line, step: &Step, plan: &Plan, tree: &Tree, ledger: &Ledger) -> Vec<Line> {
    let line = |path: &NodePath, kind, after: String| Line {
        event: Event::Change,
        target: Some(step.target.to_string()),
        path: Some(path.to_string()),
        change: Some(kind),
        before: Some(before(path, tree, ledger)),
        after: Some(after),
        reason: step.why.clone(),
        ..head.clone()
    };
    // nothing but what we make ourselves is known to hold no secret
    let ours = |path: &NodePath| plan.owned.get(path).is_some_and(|owned| owned.format.is_none());
    match &step.act {
        Act::PutFile { content, meta, through_link, .. } => {
            let kind = match (&step.expect, through_link) {
                (Expect::Absent, _) => ChangeKind::Create,
                (_, true) => ChangeKind::Edit,
                (_, false) => ChangeKind::Replace,
            };
            let open = ours(&step.path) && content.secrets.is_empty() && meta.mode & 0o004 != 0;
            vec![line(&step.path, kind, digest(&content.bytes, open, ledger))]
        }
        Act::PutDir { files, .. } => {
            let one = |(name, (content, mode)): (&String, &(crate::model::content::Content, u32))| {
                let path = step.path.join(name);
                let open = ours(&path) && content.secrets.is_empty() && mode & 0o004 != 0;
                line(&path, ChangeKind::Create, digest(&content.bytes, open, ledger))
            };
            files.iter().map(one).collect()
        }
        Act::PutLink { .. } => vec![line(&step.path, ChangeKind::Restore, "link".to_owned())],
        Act::Remove => vec![line(&step.path, ChangeKind::Remove, "absent".to_owned())],
    }
}

fn before(path: &NodePath, tree: &Tree, ledger: &Ledger) -> String {
    let real = tree.real_parent(path).unwrap_or_else(|| path.clone());
    match tree.entry(&real) {
        Some(Entry::File { bytes, meta }) => {
            let is_left = |owned: &std::sync::Arc<crate::ledger::Owned>| {
                owned.format.is_none() && meta.mode & 0o004 != 0 && owned.now == ledger.stamp(bytes, meta.mode)
            };
            digest(bytes, ledger.owned.get(path).is_some_and(is_left), ledger)
        }
        Some(Entry::Link { .. }) => "link".to_owned(),
        Some(Entry::Dir { .. }) => "folder".to_owned(),
        Some(Entry::Absent) | None => "absent".to_owned(),
        Some(Entry::Unreadable(_)) => "unreadable".to_owned(),
    }
}

fn digest(bytes: &[u8], open: bool, ledger: &Ledger) -> String {
    if open { format!("sha256:{}", Digest::of(bytes)) } else { format!("hmac-sha256:{}", Digest::keyed(&ledger.key, bytes)) }
}

/// What a run that was cut off has done, as it is found: a line for each path that is as that run would leave it and was not so before.
#[must_use]
pub fn cut_off(head: &Line, open: &Open, tree: &Tree, ledger: &Ledger, blob: impl Fn(&Digest) -> Option<Vec<u8>>) -> Vec<Line> {
    let head = Line { run: Some(open.began.0), ..head.clone() }.under(ledger.spec.as_ref());
    let mut lines = Vec::new();
    for (path, after) in &open.after {
        let owned = ledger.owned.get(path);
        let real = if owned.is_some_and(|owned| owned.format.is_some()) { tree.real(path) } else { tree.real_parent(path) };
        let stands = match real.as_ref().and_then(|real| tree.entry(real)) {
            Some(Entry::File { bytes, meta }) => ledger.stamp(bytes, meta.mode),
            Some(Entry::Absent) | None => Stamp::Absent,
            Some(_) => continue,
        };
        let was = match open.before.get(path) {
            Some(Prior::File { blob: name, meta }) => blob(name).map(|bytes| ledger.stamp(&bytes, meta.mode)),
            Some(Prior::Absent) => Some(Stamp::Absent),
            Some(Prior::Link { .. }) | None => None,
        };
        if stands != *after || was.as_ref() == Some(after) {
            continue;
        }
        let word = |stamp: &Stamp| match stamp {
            Stamp::Absent => "absent".to_owned(),
            Stamp::File { digest, .. } => format!("hmac-sha256:{digest}"),
        };
        let change = match (&was, after) {
            (_, Stamp::Absent) => ChangeKind::Remove,
            (Some(Stamp::Absent), _) => ChangeKind::Create,
            (_, Stamp::File { .. }) => ChangeKind::Replace,
        };
        lines.push(Line {
            event: Event::Change,
            target: owned.map(|owned| owned.target.to_string()),
            path: Some(path.to_string()),
            change: Some(change),
            before: was.as_ref().map(word),
            after: Some(word(after)),
            reason: "the run that did it was cut off".to_owned(),
            outcome: Fate::CutOff.name().to_owned(),
            ..head.clone()
        });
    }
    lines.push(Line {
        event: Event::Run,
        outcome: Fate::CutOff.name().to_owned(),
        reason: "it did not come to its end; this run finishes it".to_owned(),
        changes: Some(lines.len()),
        ..head
    });
    lines
}

/// Whether the end of a run is worth a line: something happened, or it ended in another way or under another spec than the last one.
#[must_use]
pub fn is_news(run: &Line, last: Option<&Line>) -> bool {
    run.changes.is_some_and(|changes| changes > 0)
        || run.activation.is_some()
        || last.is_none_or(|last| {
            (&last.command, &last.outcome, last.exit_code, &last.spec, last.spec_digest)
                != (&run.command, &run.outcome, run.exit_code, &run.spec, run.spec_digest)
        })
}
