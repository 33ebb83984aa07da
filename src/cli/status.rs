//! `nodeprep status`: how the node stands, without a spec and without changing anything.

use std::path::{Path, PathBuf};

use clap::Args;

use super::session::{Session, Stopped, problem};
use super::trail::TAIL;
use super::{Ended, Output, OutputArgs, RootArgs};
use crate::agent::state::{AgentState, STATE_FILE};
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::node::root::Root;
use crate::node::{clock, probe, read, state, textfile, trail};
use crate::plan::activation::due;
use crate::plan::drift::{Drift, Kind, drift};
use crate::report::exit::Outcome;
use crate::report::expiry::expiry;
use crate::report::metrics::{endpoints_of, metrics};
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
    /// Print metrics in the text format of Prometheus, with those of endpoints that `nodeprep verify` has left in /run/nodeprep.
    #[arg(long, conflicts_with = "output")]
    metrics: bool,
    /// Write these metrics to nodeprep.prom in this folder, for node_exporter's textfile collector; as a whole, or not at all.
    #[arg(long, env = "NODEPREP_TEXTFILE_DIR", value_name = "DIR")]
    textfile_dir: Option<PathBuf>,
}

impl StatusArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        match self.status() {
            Ok((status, endpoints)) => {
                let text_of = || format!("{}{endpoints}", metrics(&status));
                if let Some(folder) = &self.textfile_dir
                    && let Err(error) = textfile::write(folder, "nodeprep.prom", &text_of())
                {
                    return unwritten(folder, &error).ended(self.output.output, style);
                }
                if self.metrics {
                    return Ended { shown: text_of(), outcome: status.outcome };
                }
                let shown = match self.output.output {
                    Output::Json => status.to_json(),
                    Output::Text => text(&status, style),
                };
                Ended { shown, outcome: status.outcome }
            }
            Err(stopped) => stopped.ended(self.output.output, style),
        }
    }

    fn status(&self) -> Result<(Status, String), Stopped> {
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
        let endpoints = endpoints(&session.root);
        let drift = drift(session.now());
        problems.extend(unseen(&drift));
        let tree = &session.snapshot.tree;
        let mut due = due(session.now(), &session.found);
        due.retain(|due| session.due(std::slice::from_ref(&due.what)).len() == 1);
        let expiry = expiry(&session.ledger, tree, now);
        let clock = expiry.iter().any(|one| one.days < 0) && clock::is_unsynchronised(&session.root);
        let seen = Seen {
            ledger: unread.is_none().then_some(&*session.ledger),
            due,
            drift,
            paused,
            trail,
            expiry,
            unsynchronised: clock,
            agent,
            problems,
            found: session.found,
        };
        Ok((Status::new(seen, now, self.exit_code), endpoints))
    }
}

/// That metrics could not be written into a folder.
pub(super) fn unwritten(folder: &Path, error: &std::io::Error) -> Stopped {
    let what = format!("metrics cannot be written into {}: {error}", folder.display());
    let problem = Problem::error("textfile", what, "give the folder that node_exporter reads, and let it be writable");
    Stopped { problems: vec![problem], outcome: Outcome::Cannot }
}

/// What was found of endpoints when they were tried last.
fn endpoints(root: &Root) -> String {
    let path = NodePath::fixed(ENDPOINTS);
    let tree = read::read(root, |_| vec![Wish::path(path.clone())]);
    tree.text(&path).map(|text| endpoints_of(&text).to_owned()).unwrap_or_default()
}

/// Where the metrics of endpoints are looked for.
const ENDPOINTS: &str = "/run/nodeprep/nodeprep-endpoints.prom";

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
