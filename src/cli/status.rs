//! `nodeprep status`: how the node stands, without a spec and without changing anything.

use clap::Args;

use super::session::{Session, Stopped, problem};
use super::trail::TAIL;
use super::{Ended, Output, OutputArgs, RootArgs};
use crate::agent::state::{AgentState, STATE_FILE};
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::node::root::Root;
use crate::node::{probe, read, state, trail};
use crate::plan::activation::due;
use crate::plan::drift::{Drift, Kind, drift};
use crate::report::expiry::expiry;
use crate::report::status::{Agent, Seen, Status, text};
use crate::report::style::Style;
use crate::report::trail::read as lines;
use crate::runtime::Wish;

/// Arguments of `status`.
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    output: OutputArgs,
    /// Tell by the exit code how the node stands, the first of: 4 the ledger or something else cannot be read, 11 paused, 10 files are
    /// not as they were left, 8 a certificate has run out, 9 something is due.
    #[arg(long)]
    exit_code: bool,
}

impl StatusArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        match self.status() {
            Ok(status) => {
                let shown = match self.output.output {
                    Output::Json => status.to_json(),
                    Output::Text => text(&status, style),
                };
                Ended { shown, outcome: status.outcome }
            }
            Err(stopped) => stopped.ended(self.output.output, style),
        }
    }

    fn status(&self) -> Result<Status, Stopped> {
        let root = Session::root(&self.root)?;
        let (session, unread) = Session::look(root, &[])?;
        let mut problems: Vec<Problem> = unread.iter().cloned().collect();
        let warn = |error| Problem { severity: Severity::Warning, ..problem(&error) };
        let now = session.snapshot.probes.now;
        let paused = match state::pauses(&session.root, &session.state) {
            Ok(pauses) => pauses.active(now).cloned().collect(),
            // whoever may not read the ledger may not read this either
            Err(_) if unread.is_some() => Vec::new(),
            Err(error) => {
                problems.push(problem(&error));
                Vec::new()
            }
        };
        let trail = match trail::tail(&session.root, &session.state, TAIL) {
            Ok(text) => lines(&text).collect(),
            Err(_) if unread.is_some() => Vec::new(),
            Err(error) => {
                problems.push(warn(error));
                Vec::new()
            }
        };
        let agent = agent(&session.root, &mut problems);
        let drift = drift(session.now());
        problems.extend(unseen(&drift));
        let tree = &session.snapshot.tree;
        let mut due = due(session.now(), &session.found);
        due.retain(|due| session.due(std::slice::from_ref(&due.what)).len() == 1);
        let seen = Seen {
            ledger: unread.is_none().then_some(&*session.ledger),
            due,
            drift,
            paused,
            trail,
            expiry: expiry(&session.ledger, tree, now),
            agent,
            problems,
            found: session.found,
        };
        Ok(Status::new(seen, now, self.exit_code))
    }
}

/// Files of ours that this user may not read are told once.
fn unseen(drift: &[Drift]) -> Option<Problem> {
    let unknown: Vec<&Drift> = drift.iter().filter(|one| matches!(one.kind, Kind::Unknown(_))).collect();
    let first = unknown.first()?;
    let what = format!("{} {}, as {} of ours", first.path, first.kind.said(), crate::report::explain::plural(unknown.len(), "file"));
    Some(Problem::error("unseen", what, "run as root, or look at what stands there"))
}

/// What the agent says of itself, where there is one.
fn agent(root: &Root, problems: &mut Vec<Problem>) -> Option<Agent> {
    let path = NodePath::fixed(STATE_FILE);
    let tree = read::read(root, |_| vec![Wish::path(path.clone())]);
    let bytes = match tree.entry(&path) {
        Some(crate::model::tree::Entry::File { bytes, .. }) => bytes,
        Some(crate::model::tree::Entry::Unreadable(why)) => {
            let what = format!("what the agent says of itself cannot be read: {path}: {why}");
            problems.push(Problem::warning("agent-unread", what, "run as root"));
            return None;
        }
        _ => return None,
    };
    match serde_json::from_slice::<AgentState>(bytes) {
        Ok(state) => Some(Agent { alive: probe::is_there(root, state.pid), state }),
        Err(error) => {
            let what = format!("what the agent says of itself in {path} is not understood: {error}");
            problems.push(Problem::warning("agent-unread", what, "let agent and `nodeprep status` be of one version"));
            None
        }
    }
}
