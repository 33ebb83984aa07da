//! `nodeprep explain`: what each runtime asks for an image, in order, as the node is or as it will be.

use clap::Args;

use super::session::{Session, Stopped, spec};
use super::{Ended, OutputArgs, PlanChoices, RootArgs, SpecArgs};
use crate::model::image::ImageRef;
use crate::model::problem::Problem;
use crate::plan::build::overlay_plan;
use crate::report::exit::Outcome;
use crate::report::explain::{Answer, reads, text};
use crate::report::style::Style;
use crate::report::{Report, problems};

/// Arguments of `explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The images: `nginx`, `quay.io/a/b:1`, `registry:5000/x@sha256:…`.
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    spec: SpecArgs,
    /// As it will be once the spec is applied, instead of as it is.
    #[arg(long)]
    planned: bool,
    #[command(flatten)]
    choices: PlanChoices,
    #[command(flatten)]
    output: OutputArgs,
}

impl Explain {
    pub(super) fn run(self, style: Style) -> Ended {
        Ended::of(self.report(), self.output.output, style, |report| {
            let mut shown = text(&report.resolutions, style);
            if !report.problems.is_empty() {
                shown.push_str(&problems::render(&report.problems, style.colour));
            }
            shown
        })
    }

    fn report(&self) -> Result<Report, Stopped> {
        let mut images = Vec::new();
        let mut wrong = Vec::new();
        for text in &self.images {
            match ImageRef::parse(text) {
                Ok(image) => images.push(image),
                Err(error) => wrong.push(Problem::error("image", error.to_string(), "write it as in a pod: registry/repository:tag")),
            }
        }
        if !wrong.is_empty() {
            return Err(Stopped { problems: wrong, outcome: Outcome::Usage });
        }
        let root = Session::root(&self.root)?;
        let mut problems = Vec::new();
        let (session, tree) = if self.planned {
            let (spec, said) = spec(&self.spec, Some(&root))?;
            problems.extend(said);
            let mut session = Session::open(root, &self.choices.runtimes)?;
            session.guard(&spec, &self.choices)?;
            session.configure(&spec, &self.choices);
            let planned = session.plan(&spec, &self.choices, &crate::runtime::containerd::tokens::Answers::default());
            problems.extend(planned.parts.iter().filter_map(|part| part.refused.as_ref()).flat_map(crate::plan::whole::problems));
            let tree = overlay_plan(&session.snapshot.tree, &planned.plan);
            (session, tree)
        } else {
            let (session, warning) = Session::look(root, &self.choices.runtimes)?;
            problems.extend(warning);
            let tree = session.snapshot.tree.clone();
            (session, tree)
        };
        let mut resolutions = Vec::new();
        for image in &images {
            for reader in &session.found {
                // versions that read the files alike are shown once
                let mut shown: Vec<(String, crate::model::resolution::Resolution)> = Vec::new();
                for dialect in reader.dialects(&tree) {
                    let resolution = reader.view(&tree, dialect).resolve(image);
                    match shown.iter_mut().find(|(_, other)| other.key() == resolution.key() && other.end == resolution.end) {
                        Some((reads, _)) if reader.installed.is_none() && reader.running.is_none() => {
                            *reads = format!("{reads}, {dialect}");
                        }
                        Some(_) => {}
                        None => shown.push((reads(reader, dialect), resolution)),
                    }
                }
                let only = shown.len() == 1 && reader.installed.is_none() && reader.running.is_none();
                for (reads, resolution) in &shown {
                    let reads = if only { "(version unknown: the same in every version)".to_owned() } else { reads.clone() };
                    resolutions.push(Answer::new(reader, reads, resolution));
                }
            }
        }
        problems.extend(session.nothing_found());
        Ok(Report { runtimes: session.found, resolutions, problems, ..Report::new(Outcome::Converged) })
    }
}
