//! The canary of `apply`: which runtimes are asked to pull it, and what came of it.

use std::time::Duration;

use super::Probe;
use super::runtimes::{Runs, listening, runs};
use super::session::{Session, tried};
use crate::model::cri::CriError;
use crate::model::image::ImageRef;
use crate::model::problem::Problem;
use crate::node::cri::Client;
use crate::plan::build::overlay_plan;
use crate::plan::canary::Canary;
use crate::plan::whole::Planned;
use crate::spec::Spec;
use crate::verify::pause::{endpoints, judge};

/// How long an endpoint has to show the manifest, and a runtime to be there.
const PATIENCE: Duration = Duration::from_secs(10);

impl Session {
    /// Puts into the plan who pulls `image`; what is to be told of it comes back. A plan that changes nothing has no canary.
    pub(super) fn send(&self, image: Option<&ImageRef>, spec: &Spec, planned: &mut Planned, probe: Option<Probe>) -> Option<Problem> {
        let image = image?;
        if planned.is_empty() && planned.plan.turns.is_empty() {
            return None;
        }
        let after = overlay_plan(&self.snapshot.tree, &planned.plan);
        let roots = self.trust_stores();
        let is_asked = probe != Some(Probe::Off) && (probe.is_some() || self.snapshot.probes.live);
        let canaries = listening(self).into_iter().filter(|(reader, socket)| match runs(self, reader) {
            Runs::Yes => true,
            Runs::No => false,
            // where processes do not tell, the socket does
            Runs::Unknown => {
                !matches!(Client::connect(&self.root, socket, PATIENCE), Err(CriError::Absent { .. } | CriError::Deserted { .. }))
            }
        });
        planned.plan.canaries = canaries
            .map(|(reader, socket)| {
                let of = if is_asked { endpoints(spec, image, &after, &roots, reader) } else { Vec::new() };
                let ways: Vec<_> = of.iter().flat_map(|endpoint| endpoint.ways.iter().cloned()).collect();
                let promised = !ways.is_empty() && judge(&of, &tried(&self.root, &ways, PATIENCE)).is_ok();
                Canary { runtime: reader.runtime.name().to_owned(), socket, image: image.written.clone(), promised }
            })
            .collect();
        planned.plan.canaries.is_empty().then(|| {
            let what = format!("{} was pulled by nobody: no running runtime on the node pulls through the CRI", image.written);
            Problem::warning("canary-unasked", what, "start the runtime, or leave --canary out")
        })
    }
}
