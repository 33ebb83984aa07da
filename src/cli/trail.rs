//! What `apply` and `revert` write into the audit trail, and when (docs/adr/0020).

use std::cell::RefCell;
use std::sync::Arc;

use super::session::{Session, Stopped, problem};
use crate::apply::{End, Outcome as Applied};
use crate::flow::STATE;
use crate::ledger::Ledger;
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::node::error::NodeError;
use crate::node::root::Root;
use crate::node::{probe, trail};
use crate::plan::{How, Plan};
use crate::report::Report;
use crate::report::exit::Outcome;
use crate::report::trail::{Event, Fate, Line, changes, cut_off, is_news, read};

/// How much of the trail is looked at for its last lines.
pub(super) const TAIL: u64 = 64 << 10;

/// The trail of one command.
pub(super) struct Trail {
    root: Root,
    state: NodePath,
    command: &'static str,
    /// When the transaction began whose changes were written last, and how many they are.
    written: RefCell<Option<(i64, usize)>>,
    /// How many changes stand.
    changes: RefCell<usize>,
    activated: RefCell<Vec<String>>,
    /// The ledger as it is on the node, as far as this command knows: reading it again costs as much as all of its files.
    ledger: RefCell<Option<Arc<Ledger>>>,
    /// Why the first line that could not be written was not.
    failed: RefCell<Option<NodeError>>,
}

impl Trail {
    pub(super) fn of(root: &Root, command: &'static str) -> Self {
        Self {
            root: root.afresh(),
            state: NodePath::fixed(STATE),
            command,
            written: RefCell::default(),
            changes: RefCell::default(),
            activated: RefCell::default(),
            ledger: RefCell::default(),
            failed: RefCell::default(),
        }
    }

    fn head(&self, event: Event) -> Line {
        Line::new(probe::now(), event, self.command)
    }

    fn write(&self, lines: &[Line]) {
        let text: String = lines.iter().map(Line::to_json).collect();
        if let Err(error) = trail::append(&self.root, &self.state, &text) {
            tracing::warn!(%error, "the audit trail cannot be written");
            self.failed.borrow_mut().get_or_insert(error);
        }
    }

    /// What a run that was cut off has done, unless it came to write that itself, or another run has done so since.
    pub(super) fn interrupted(&self, session: &Session) {
        *self.ledger.borrow_mut() = Some(Arc::clone(&session.ledger));
        let Some(open) = &session.ledger.open else { return };
        let lines =
            cut_off(&self.head(Event::Change), open, &session.snapshot.tree, &session.ledger, |blob| session.blobs.get(blob).cloned());
        let known = trail::tail(&self.root, &self.state, u64::MAX).unwrap_or_default();
        let known: Vec<Line> = read(&known).filter(|line| line.run == Some(open.began.0)).collect();
        let is_told = |line: &Line| known.iter().any(|other| (other.event, &other.path) == (line.event, &line.path));
        let lines: Vec<Line> = lines.into_iter().filter(|line| !is_told(line)).collect();
        if !lines.is_empty() {
            self.write(&lines);
        }
    }

    /// Everything of a transaction is done and its ledger is still `open`.
    pub(super) fn closing(&self, session: &Session, plan: &Plan, open: &Ledger) {
        let Some(began) = open.open.as_ref().map(|open| open.began.0) else { return };
        let head = Line { run: Some(began), ..self.head(Event::Change).under(plan.spec.as_ref()) };
        let lines = changes(&head, plan, &session.snapshot.tree, &session.ledger, Fate::Applied);
        *self.written.borrow_mut() = Some((began, lines.len()));
        if !lines.is_empty() {
            self.write(&lines);
        }
    }

    /// What came of a transaction beside its changes.
    pub(super) fn through(&self, session: &Session, plan: &Plan, applied: &Applied, why: &[Problem]) {
        if !matches!(applied.end, End::Unchanged) {
            self.ledger.borrow_mut().take();
        }
        let written = self.written.borrow_mut().take();
        let run = written.map(|(began, _)| began).or_else(|| applied.ledger.open.as_ref().map(|open| open.began.0));
        let head = Line { run, ..self.head(Event::Activation).under(plan.spec.as_ref()) };
        let reason = why.iter().map(|problem| problem.what.clone()).collect::<Vec<_>>().join("; ");
        let mut lines = Vec::new();
        let fate = match &applied.end {
            End::Unchanged | End::Applied | End::Refused(_) => None,
            End::RolledBack(_) => Some(Fate::RolledBack),
            End::Stayed { .. } | End::RollbackFailed { .. } => Some(Fate::Stands),
        };
        if let Some(fate) = fate {
            for line in changes(&head, plan, &session.snapshot.tree, &session.ledger, fate) {
                let stands = applied.changed.iter().any(|path| line.path.as_deref() == Some(path.as_str()));
                let outcome = if stands { Fate::Stands } else { Fate::RolledBack };
                lines.push(Line { outcome: outcome.name().to_owned(), ..line });
            }
            lines.push(Line { event: Event::Rollback, reason: reason.clone(), outcome: fate.name().to_owned(), ..head.clone() });
        }
        for turn in &plan.turns {
            let well = applied.turned.contains(&turn.unit);
            let begun = well || fate.is_some();
            let because: Vec<String> = turn.serves.iter().flat_map(|one| one.because.clone()).collect();
            if begun {
                lines.push(Line {
                    activation: Some(format!("{} {}", turn.turning.word(), turn.unit)),
                    reason: because.join("; "),
                    outcome: if well { "done" } else { "failed" }.to_owned(),
                    ..head.clone()
                });
            }
        }
        if fate.is_none() && !matches!(applied.end, End::Refused(_)) {
            for one in plan.activate.iter().filter(|one| matches!(one.how, How::Refresh(_))) {
                let left = applied.due.iter().any(|due| due.who == one.who && matches!(due.how, How::Refresh(_)));
                if let (How::Refresh(argv), false) = (&one.how, left) {
                    lines.push(Line {
                        target: Some(one.who.to_string()),
                        activation: Some(argv.join(" ")),
                        reason: one.because.join("; "),
                        outcome: "done".to_owned(),
                        ..head.clone()
                    });
                }
            }
        }
        let stands = lines.iter().filter(|line| line.outcome == Fate::Stands.name() && line.event == Event::Change).count();
        *self.changes.borrow_mut() += if matches!(applied.end, End::Applied) { written.map_or(0, |(_, count)| count) } else { stands };
        self.activated.borrow_mut().extend(lines.iter().filter_map(|line| line.activation.clone()));
        if !lines.is_empty() {
            self.write(&lines);
        }
    }

    /// The end of the command, and what could not be written of it.
    pub(super) fn ended(&self, ended: &mut Result<Report, Stopped>) {
        let (outcome, problems) = match &*ended {
            Ok(report) => (report.outcome, &report.problems),
            Err(stopped) => (stopped.outcome, &stopped.problems),
        };
        if outcome == Outcome::Locked {
            return;
        }
        let parts = ended.as_ref().map(|report| report.parts.as_slice()).unwrap_or_default();
        let told =
            problems.iter().chain(parts.iter().flat_map(|part| &part.problems)).filter(|problem| problem.severity == Severity::Error);
        let activated = self.activated.borrow();
        let run = Line {
            outcome: word(outcome),
            exit_code: Some(outcome.code()),
            changes: Some(*self.changes.borrow()),
            activation: (!activated.is_empty()).then(|| activated.join(", ")),
            reason: told.map(|problem| problem.what.clone()).collect::<Vec<_>>().join("; "),
            uid: probe::uid(),
            nodeprep: Some(env!("CARGO_PKG_VERSION").to_owned()),
            ..self.head(Event::Run)
        };
        let ledger = self.ledger.borrow_mut().take();
        let ledger = ledger.or_else(|| crate::apply::load_ledger(&self.root, &self.state).ok().flatten().map(Arc::new));
        let run = run.under(ledger.as_ref().and_then(|ledger| ledger.spec.as_ref()));
        let known = trail::tail(&self.root, &self.state, TAIL).unwrap_or_default();
        let last = read(&known).rev().find(|line| line.event == Event::Run);
        if is_news(&run, last.as_ref()) {
            self.write(&[run]);
        }
        if let (Some(error), Ok(report)) = (self.failed.borrow_mut().take(), ended) {
            let said = problem(&error);
            let what = format!("the audit trail of this run is not complete: {}", said.what);
            let help = if said.help.is_empty() { "look at the state folder of nodeprep".to_owned() } else { said.help };
            report.problems.push(Problem::warning("audit-failed", what, help));
        }
    }
}

/// An outcome as it stands in a line: the word of the JSON report.
fn word(outcome: Outcome) -> String {
    serde_json::to_value(outcome).ok().and_then(|value| value.as_str().map(ToOwned::to_owned)).unwrap_or_default()
}
