//! `nodeprep pause` and `resume`: break-glass.

use clap::Args;

use super::session::{Session, Stopped};
use super::{Ended, OutputArgs, RootArgs};
use crate::flow::STATE;
use crate::model::path::NodePath;
use crate::model::pause::{By, Pause, length};
use crate::model::problem::Problem;
use crate::model::time::Time;
use crate::node::error::NodeError;
use crate::node::lock::Lock;
use crate::node::root::Root;
use crate::node::{probe, state, trail};
use crate::report::exit::Outcome;
use crate::report::style::Style;
use crate::report::trail::{Event, Line};
use crate::report::{Report, problems};

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// What is left alone, with everything below: paths as they are on the node [default: all of the node].
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// After which time it ends by itself: a number and s, m, h, d or w; at most 90d.
    #[arg(long = "for", env = "NODEPREP_PAUSE", default_value = "4h", value_name = "LENGTH", value_parser = length)]
    length: i64,
    /// Why, for whoever finds the node paused.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    output: OutputArgs,
}

/// As long as a reason may be: it goes into every line and page that says that the node is paused.
const LONGEST_REASON: usize = 500;

impl PauseArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| problems::render(&report.problems, style.colour))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let wrong = |what: String, help: &str| Stopped { problems: vec![Problem::error("pause", what, help)], outcome: Outcome::Usage };
        let paths: Result<Vec<NodePath>, _> = self.paths.iter().map(|path| NodePath::new(path)).collect();
        let mut paths = paths.map_err(|error| wrong(error.to_string(), "give absolute paths, as they are inside of --root"))?;
        paths.sort();
        paths.dedup();
        if self.reason.len() > LONGEST_REASON {
            return Err(wrong(format!("the reason is longer than {LONGEST_REASON} bytes"), "say it in a sentence"));
        }
        let root = Session::root(&self.root)?;
        let now = probe::now();
        let until = Some(Time(now.0.saturating_add(self.length)));
        let pause = Pause { paths, since: now, until, reason: clean(&self.reason), by: By::Pause, uid: probe::uid() };
        let mut report = Report::new(Outcome::Converged);
        report.problems.extend(write(&root, &pause)?);
        let what = match pause.paths.as_slice() {
            [] => format!("nodeprep leaves this node alone {}", pause.said()),
            paths => {
                let paths: Vec<&str> = paths.iter().map(NodePath::as_str).collect();
                format!("nodeprep leaves {} alone {}", paths.join(", "), pause.said())
            }
        };
        report.problems.push(Problem::note("paused", what, "run `nodeprep resume` to end it"));
        if let Err(NodeError::Locked { pid, .. }) = Lock::take(&root, &NodePath::fixed(STATE)) {
            let who = pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
            let what = format!("a run that began before is still going on{who}, and is not stopped by this");
            report.problems.push(Problem::warning("run-goes-on", what, "wait until it is through"));
        }
        Ok(report)
    }
}

/// Makes a pause count, in the place of what is over, and writes it into the trail; what is to be told of that.
pub(super) fn write(root: &Root, pause: &Pause) -> Result<Option<Problem>, Stopped> {
    let at = NodePath::fixed(STATE);
    state::change_pauses(root, &at, true, |pauses| {
        // one revert is as good as two
        pauses.pauses.retain(|other| other.is_active(pause.since) && (pause.by == By::Pause || other.by != By::Revert));
        pauses.pauses.push(pause.clone());
    })?;
    let paths: Vec<&str> = pause.paths.iter().map(NodePath::as_str).collect();
    let line = Line {
        path: (!paths.is_empty()).then(|| paths.join(" ")),
        until: pause.until.map(|until| until.to_string()),
        reason: pause.reason.clone(),
        uid: pause.uid,
        ..Line::new(pause.since, Event::Pause, if pause.by == By::Revert { "revert" } else { "pause" })
    };
    Ok(trail::append(root, &at, &line.to_json()).err().map(|error| untold(&error)))
}

/// Ends pauses, of this kind or all, and writes that into the trail; how many, and what is to be told.
pub(super) fn end(root: &Root, kind: Option<By>, command: &str, anyway: bool) -> Result<(usize, Option<Problem>), Stopped> {
    let (at, now) = (NodePath::fixed(STATE), probe::now());
    let ends = |pause: &Pause| kind.is_none_or(|kind| pause.by == kind);
    let mut count = 0;
    if root.folder(&at)?.is_none() {
        return Ok((0, None));
    }
    state::change_pauses(root, &at, anyway, |pauses| {
        count = pauses.active(now).filter(|pause| ends(pause)).count();
        pauses.pauses.retain(|pause| pause.is_active(now) && !ends(pause));
    })?;
    if count == 0 {
        return Ok((0, None));
    }
    let line = Line { uid: probe::uid(), ..Line::new(now, Event::Resume, command) };
    Ok((count, trail::append(root, &at, &line.to_json()).err().map(|error| untold(&error))))
}

fn untold(error: &NodeError) -> Problem {
    let said = super::session::problem(error);
    Problem::warning("audit-failed", format!("it could not be written into the audit trail: {}", said.what), said.help)
}

/// One line without control characters.
fn clean(reason: &str) -> String {
    reason.chars().map(|char| if char.is_control() { ' ' } else { char }).collect::<String>().trim().to_owned()
}

impl ResumeArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| problems::render(&report.problems, style.colour))
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.root)?;
        let (count, untold) = end(&root, None, "resume", true)?;
        let mut report = Report::new(Outcome::Converged);
        report.problems.extend(untold);
        let what = match count {
            0 => "nothing was paused".to_owned(),
            1 => "the pause is over; the next run makes the node true to the spec".to_owned(),
            count => format!("{count} pauses are over; the next run makes the node true to the spec"),
        };
        report.problems.push(Problem::note("resumed", what, ""));
        Ok(report)
    }
}
