//! `nodeprep render`: the files alone, as a bare node would get them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::session::{Stopped, secrets, spec};
use super::{Ended, Output, OutputArgs, SpecArgs, runtime};
use crate::desired::{Refusal, Target, Want};
use crate::flow;
use crate::ledger::Ledger;
use crate::model::order::Gather as _;
use crate::model::pause::Stays;
use crate::model::problem::Problem;
use crate::model::tree::Entry;
use crate::node::probe;
use crate::node::render::{Files, MARKER, RenderError, render};
use crate::plan::build::{Foreign, overlay_plan};
use crate::plan::hold::Unready;
use crate::plan::whole::Planned;
use crate::report::exit::Outcome;
use crate::report::plan::parts;
use crate::report::style::Style;
use crate::report::{Report, problems};
use crate::runtime::containerd::tokens::Answers;
use crate::runtime::{Runtime, facts};
use crate::spec::{Scope, Spec};

/// Arguments of `render`.
#[derive(Debug, Args)]
pub(super) struct Render {
    #[command(flatten)]
    spec: SpecArgs,
    /// Where the files go, as if it were the root of a node: an empty folder, or one that was rendered into before.
    #[arg(long, env = "NODEPREP_TO", value_name = "DIR")]
    to: PathBuf,
    /// For this runtime (may be repeated) [default: `runtimes` of the spec].
    #[arg(long = "runtime", env = "NODEPREP_RUNTIME", value_delimiter = ',', value_name = "NAME", value_parser = runtime)]
    runtimes: Vec<Runtime>,
    #[command(flatten)]
    output: OutputArgs,
}

impl Render {
    pub(super) fn run(self, style: Style) -> Ended {
        let (report, files) = match self.report() {
            Ok(done) => done,
            Err(stopped) => return stopped.ended(self.output.output, style),
        };
        let shown = match self.output.output {
            Output::Json => report.to_json(),
            Output::Text => {
                let mut shown = String::new();
                for (path, (_, mode)) in &files {
                    let _ = writeln!(shown, "{mode:04o} {path}");
                }
                if !report.problems.is_empty() {
                    shown.push_str(&problems::render(&report.problems, style.colour));
                }
                let count = crate::report::explain::plural(files.len(), "file");
                let _ = writeln!(shown, "{count} rendered to {}", problems::escape(&self.to.display().to_string()));
                shown
            }
        };
        Ended { shown, outcome: report.outcome }
    }

    fn report(&self) -> Result<(Report, Files), Stopped> {
        let (spec, mut problems) = spec(&self.spec, None).map_err(|mut stopped| {
            for problem in stopped.problems.iter_mut().filter(|problem| problem.code == "node-file-unread") {
                "put the file beside the spec: what is rendered is for no particular node".clone_into(&mut problem.help);
            }
            stopped
        })?;
        let named = match (&self.runtimes, &spec.runtimes) {
            (named, Some(runtimes)) if named.is_empty() => runtimes.clone(),
            (named, None) if named.is_empty() => {
                let what = "nobody says which runtimes the files are for";
                let problem = Problem::error("no-runtime", what, "name them with --runtime, or with `runtimes` in the spec");
                return Err(Stopped { problems: vec![problem], outcome: Outcome::Usage });
            }
            (named, _) => named.clone(),
        };
        let snapshot = flow::bare();
        let found = facts::with_named(Vec::new(), &named);
        let ledger = Ledger::new(probe::random()?);
        let answers = Answers { unasked: Some("nothing is asked while rendering"), ..Answers::default() };
        let unready = Unready::new();
        let findings = flow::Findings { orphans: &[], answers: &answers, unready: &unready, preflight: &[], stays: &Stays::Nothing };
        let planned = flow::prepare(&spec, &snapshot, &found, &ledger, &BTreeMap::new(), Foreign::Refuse, findings);
        let after = overlay_plan(&snapshot.tree, &planned.plan);
        let files: Files = after
            .iter()
            .filter_map(|(path, entry)| match entry {
                Entry::File { bytes, meta } => Some((path.clone(), (bytes.clone(), meta.mode))),
                _ => None,
            })
            .gathered();
        let refused = refused(&planned, &mut problems);
        problems.extend(not_rendered(&spec, &planned));
        render(&self.to, &files).map_err(|error| self.stopped(error))?;
        let outcome = if refused { Outcome::Cannot } else { Outcome::Converged };
        let mut parts = parts(Some(&spec), &planned, &snapshot.tree, &secrets(&spec));
        parts.retain(|part| part.target != Target::Trust);
        Ok((Report { runtimes: found, parts, problems, ..Report::new(outcome) }, files))
    }

    fn stopped(&self, error: RenderError) -> Stopped {
        match error {
            RenderError::Node(error) => Stopped::from(error),
            other => {
                let help = match &other {
                    RenderError::NotOurs { .. } => {
                        format!("give an empty folder with --to; {MARKER} in it would say what was rendered before, unchanged since")
                    }
                    _ => format!("make {} a folder that can be written to, or name another one with --to", self.to.display()),
                };
                Stopped { problems: vec![Problem::error("render-to", other.to_string(), help)], outcome: Outcome::Cannot }
            }
        }
    }
}

/// Whether a target could not be rendered; what is told of the targets goes to `problems`.
fn refused(planned: &Planned, problems: &mut Vec<Problem>) -> bool {
    let mut any = false;
    for part in planned.parts.iter().filter(|part| part.part.target != Target::Trust) {
        if let Some(Refusal::Cannot(why) | Refusal::Conflict(why)) = &part.refused {
            any = true;
            problems.extend(why.iter().cloned());
        }
        problems.extend(part.part.notes.iter().cloned());
    }
    any
}

/// What a node gets beside these files.
fn not_rendered(spec: &Spec, planned: &Planned) -> Vec<Problem> {
    let mut notes = Vec::new();
    let anchors: Vec<&str> = spec.cas.iter().filter(|ca| ca.scope == Scope::System).map(|ca| ca.name.as_str()).collect();
    if !anchors.is_empty() {
        let what = format!("the OS trust store is not rendered: {} would go into it, and its command would run", anchors.join(", "));
        let help = "run `nodeprep apply --root` on the image, or let the first run on the node do it";
        notes.push(Problem::note("not-rendered", what, help));
    }
    for part in planned.parts.iter().filter(|part| part.refused.is_none()) {
        for (path, want) in &part.part.wants {
            if let Want::Keys(_) = want {
                let what = format!("{path} is rendered for a node without one; where one is there already, only our keys in it change");
                notes.push(Problem::note("not-rendered", what, "run `nodeprep apply --root` on an image that has the file"));
            }
        }
    }
    notes
}
