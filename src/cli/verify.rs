//! `nodeprep verify`: what is on the node, ours and others', as each runtime and version reads it, and whether its endpoints
//! answer as each daemon asks them; whether the runtimes are healthy.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::session::{Session, Stopped, spec, tried};
use super::{Ended, OutputArgs, PlanChoices, RootArgs, SpecArgs, runtimes};
use crate::model::image::ImageRef;
use crate::model::order;
use crate::node::{probe, side_by_side, textfile};
use crate::plan::activation::cut_off;
use crate::report::exit::Outcome;
use crate::report::style::Style;
use crate::report::verify::text;
use crate::report::{Report, metrics, problems};
use crate::runtime::containerd::tokens::Answers;
use crate::spec::Spec;
use crate::verify::anchors::anchors;
use crate::verify::{Check, checks, online};

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    spec: SpecArgs,
    /// Look at the node alone, without a spec: only what is ignored, hidden or broken.
    #[arg(long)]
    without_spec: bool,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    choices: PlanChoices,
    /// From the files alone: no endpoint is tried.
    #[arg(long)]
    offline: bool,
    /// Ask for this image's manifest at each endpoint where it may be (may be repeated).
    #[arg(long, value_name = "IMAGE", conflicts_with = "offline", value_parser = image)]
    manifest: Vec<ImageRef>,
    /// Let each running runtime pull this image, as kubelet would (may be repeated). It stays in the runtime's store.
    #[arg(long, value_name = "IMAGE", conflicts_with = "offline", value_parser = image)]
    pull: Vec<ImageRef>,
    /// How long each endpoint and each runtime has to answer, in seconds; a pull has five minutes.
    #[arg(long, default_value_t = 10, env = "NODEPREP_TIMEOUT", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Write what was found of endpoints to nodeprep-endpoints.prom in this folder, as metrics; in /run/nodeprep, `nodeprep status --metrics`
    /// finds it.
    #[arg(long, env = "NODEPREP_TEXTFILE_DIR", value_name = "DIR")]
    textfile_dir: Option<PathBuf>,
    #[command(flatten)]
    output: OutputArgs,
}

impl VerifyArgs {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| {
            let checks = text(&report.checks, style);
            if report.problems.is_empty() { checks } else { problems::render(&report.problems, style.colour) + &checks }
        })
    }

    fn report(&self) -> Result<Report, Stopped> {
        let root = Session::root(&self.root)?;
        let spec = if self.without_spec { None } else { Some(spec(&self.spec, Some(&root))?) };
        let (mut session, warning) = Session::look(root, &self.choices.runtimes)?;
        if let Some((spec, _)) = &spec {
            session.configure(spec, &self.choices);
        }
        let spec = spec.as_ref().map(|(spec, _)| spec);
        let mut checks = checks(spec, &session.snapshot.tree, &session.found, &session.ledger.adopted);
        // the store of a root that is not the running system's is refreshed by the first run on the node; a ledger that cannot be
        // read does not say otherwise
        let due = !session.snapshot.probes.live && (cut_off(&session.ledger) || warning.is_some());
        checks.extend(spec.into_iter().flat_map(|spec| anchors(spec, &session.snapshot.tree, due)));
        if !self.offline {
            let (found, tried) = self.online(&session, spec, due);
            checks.extend(found);
            if let Some(folder) = &self.textfile_dir {
                let text = metrics::endpoints(&tried, probe::now());
                textfile::write(folder, "nodeprep-endpoints.prom", &text).map_err(|error| super::status::unwritten(folder, &error))?;
            }
        }
        order::sort(&mut checks);
        let failed = checks.iter().any(|check| check.result == crate::verify::Outcome::Failed);
        let outcome = if failed { Outcome::VerifyFailed } else { Outcome::Converged };
        let problems = warning.into_iter().chain(session.nothing_found()).chain(session.unseen()).collect();
        Ok(Report { runtimes: session.found, checks, problems, ..Report::new(outcome) })
    }

    /// What only asking tells.
    fn online(&self, session: &Session, spec: Option<&Spec>, due: bool) -> (Vec<Check>, Vec<metrics::Endpoint>) {
        let mut checks = Vec::new();
        if let Some(spec) = spec {
            checks.extend(online::as_planned(&session.plan(spec, &self.choices, &Answers::default()), due));
        }
        let patience = Duration::from_secs(self.timeout);
        // nobody waits for both
        let of = |whom: &Whom| match whom {
            Whom::Endpoints => {
                let endpoints = endpoints(session, spec, &self.manifest);
                let ways: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.ways.iter().cloned()).collect();
                tracing::info!(endpoints = ways.len(), "probe");
                let seen = tried(&session.root, &ways, patience);
                let found = online::each(&endpoints, &seen).filter_map(|(endpoint, seen)| online::reached(endpoint, seen)).collect();
                (online::of_endpoints(&endpoints, &seen), found)
            }
            Whom::Runtimes => (runtimes::checks(session, spec, &self.pull, patience), Vec::new()),
        };
        let mut reached = Vec::new();
        for (found, tried) in side_by_side::each(&[Whom::Endpoints, Whom::Runtimes], of) {
            checks.extend(found);
            reached.extend(tried.into_iter().map(|(scheme, host, reachable, took_ms)| metrics::Endpoint {
                scheme,
                host,
                reachable,
                took_ms,
            }));
        }
        (checks, reached)
    }
}

/// Who is asked.
enum Whom {
    Endpoints,
    Runtimes,
}

/// What is tried, with the trust stores that the daemons would read.
fn endpoints(session: &Session, spec: Option<&Spec>, asked: &[ImageRef]) -> Vec<online::Endpoint> {
    online::endpoints(spec, &session.snapshot.tree, &session.trust_stores(), &session.found, asked)
}

pub(super) fn image(text: &str) -> Result<ImageRef, String> {
    ImageRef::parse(text).map_err(|error| error.to_string())
}
