//! `nodeprep verify`: what is on the node, ours and others', as each runtime and version reads it, and whether its endpoints
//! answer as each daemon asks them; whether the runtimes are healthy.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::session::{Session, Stopped, spec, tried};
use super::{Ended, OutputArgs, PlanChoices, RootArgs, SpecArgs, runtimes, source};
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
use crate::verify::{Check, canary, checks, online};

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
    /// By the spec that was applied last, which is kept beside the ledger: where --spec is from is not asked. Without one, as --without-spec.
    #[arg(long, conflicts_with = "without_spec")]
    applied: bool,
    /// Try the endpoints, and what --manifest and the canaries of the spec ask of them, and nothing else: files and runtimes are not judged.
    #[arg(long, conflicts_with_all = ["offline", "pull"])]
    only_endpoints: bool,
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
        let (spec, told) = if self.without_spec {
            (None, None)
        } else if self.applied {
            source::applied(&self.spec, &root)
        } else {
            (Some(spec(&self.spec, Some(&root))?.0), None)
        };
        let (mut session, warning) = Session::look(root, &self.choices.runtimes)?;
        let spec = spec.as_ref();
        if let Some(spec) = spec {
            session.configure(spec, &self.choices);
        }
        let of_files = || checks(spec, &session.snapshot.tree, &session.found, &session.ledger.adopted);
        let mut checks = if self.only_endpoints { Vec::new() } else { of_files() };
        // the store of a root that is not the running system's is refreshed by the first run on the node; a ledger that cannot be
        // read does not say otherwise
        let due = !session.snapshot.probes.live && (cut_off(&session.ledger) || warning.is_some());
        if !self.only_endpoints {
            checks.extend(spec.into_iter().flat_map(|spec| anchors(spec, &session.snapshot.tree, due)));
        }
        let mut canaries = Vec::new();
        if !self.offline {
            let tried;
            (checks, tried, canaries) = self.online(&session, spec, due, checks);
            if let Some(folder) = &self.textfile_dir {
                let text = metrics::endpoints(&tried, &canaries, probe::now());
                textfile::write(folder, "nodeprep-endpoints.prom", &text).map_err(|error| super::status::unwritten(folder, &error))?;
            }
        }
        order::sort(&mut checks);
        let failed = checks.iter().any(|check| check.result == crate::verify::Outcome::Failed);
        let outcome = if failed { Outcome::VerifyFailed } else { Outcome::Converged };
        let problems = told.into_iter().chain(warning).chain(session.nothing_found()).chain(session.unseen()).collect();
        Ok(Report { runtimes: session.found, checks, canaries, problems, ..Report::new(outcome) })
    }

    /// What only asking tells, beside `checks`.
    fn online(
        &self,
        session: &Session,
        spec: Option<&Spec>,
        due: bool,
        mut checks: Vec<Check>,
    ) -> (Vec<Check>, Vec<metrics::Endpoint>, Vec<canary::Found>) {
        if let Some(spec) = spec.filter(|_| !self.only_endpoints) {
            checks.extend(online::as_planned(&session.plan(spec, &self.choices, &Answers::default()), due));
        }
        let patience = Duration::from_secs(self.timeout);
        let now = Some(probe::now()).filter(|now| now.is_plausible());
        // nobody waits for both
        let of = |whom: &Whom| match whom {
            Whom::Endpoints => {
                let endpoints = endpoints(session, spec, &self.manifest);
                let ways: Vec<_> = endpoints.iter().flat_map(|endpoint| endpoint.ways.iter().cloned()).collect();
                tracing::info!(endpoints = ways.len(), "probe");
                let seen = tried(&session.root, &ways, patience);
                let found = online::each(&endpoints, &seen).filter_map(|(endpoint, seen)| online::reached(endpoint, seen)).collect();
                let mut checks = online::of_endpoints(&endpoints, &seen);
                let (more, canaries) = spec.map(|spec| canary::judge(spec, &endpoints, &seen, now)).unwrap_or_default();
                checks.extend(more);
                (checks, found, canaries)
            }
            Whom::Runtimes => (runtimes::checks(session, spec, &self.pull, patience), Vec::new(), Vec::new()),
        };
        let (mut reached, mut canaries) = (Vec::new(), Vec::new());
        let whom: &[Whom] = if self.only_endpoints { &[Whom::Endpoints] } else { &[Whom::Endpoints, Whom::Runtimes] };
        for (found, tried, of_spec) in side_by_side::each(whom, of) {
            checks.extend(found);
            canaries.extend(of_spec);
            reached.extend(tried.into_iter().map(|(scheme, host, reachable, took_ms)| metrics::Endpoint {
                scheme,
                host,
                reachable,
                took_ms,
            }));
        }
        order::sort(&mut canaries);
        (checks, reached, canaries)
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
