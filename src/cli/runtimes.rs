//! Asking the runtimes of a node over their own sockets.

use std::time::Duration;

use super::session::{Session, secrets};
use crate::model::cri::CriError;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::secret::mask;
use crate::node::cri::Client;
use crate::node::side_by_side;
use crate::plan::build::overlay_plan;
use crate::plan::whole::Planned;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::verify::Check;
use crate::verify::cri;
pub(super) use crate::verify::cri::Runs;
use crate::verify::in_use::{InUse, unpullable};

/// How long a pull may take: what containerd itself waits for progress, by default.
pub(super) const PULL: Duration = Duration::from_secs(300);

/// The runtimes that kubelet can use, each with its socket.
pub(super) fn listening(session: &Session) -> Vec<(&FoundRuntime, NodePath)> {
    let tree = &session.snapshot.tree;
    let pulled_through = session.found.iter().filter(|reader| reader.is_pulled_through(tree));
    pulled_through.filter_map(|reader| Some((reader, reader.socket(tree)?))).collect()
}

/// Whether it runs, as far as processes tell.
pub(super) fn runs(session: &Session, reader: &FoundRuntime) -> Runs {
    match (session.snapshot.probes.live, &reader.running) {
        (true, Some(_)) => Runs::Yes,
        (true, None) => Runs::No,
        (false, _) => Runs::Unknown,
    }
}

/// Images in use that could not be pulled again under `planned`. Best effort: who does not answer soon is told once.
pub(super) fn in_use(session: &Session, planned: &Planned) -> Vec<Problem> {
    /// Nobody waits long for a plan because of it.
    const SOON: Duration = Duration::from_secs(3);
    if planned.is_empty() {
        return Vec::new();
    }
    let before = &session.snapshot.tree;
    let after = overlay_plan(before, &planned.plan);
    let of = |(reader, socket): &(&FoundRuntime, NodePath)| {
        let runs = runs(session, reader);
        if runs == Runs::No {
            return Vec::new();
        }
        tracing::info!(runtime = %reader.runtime, %socket, "ask for images in use");
        match Client::within(&session.root, socket, SOON).and_then(|mut client| used(&mut client)) {
            Ok(used) => unpullable(reader, &used, before, &after),
            Err(CriError::Absent { .. } | CriError::Deserted { .. }) if runs == Runs::Unknown => Vec::new(),
            Err(error) => {
                let what = format!("which images {} has in use is not known: {error}", reader.runtime);
                vec![Problem::note("image-in-use-unknown", what, error.help())]
            }
        }
    };
    side_by_side::each(&listening(session), of).concat()
}

fn used(client: &mut Client) -> Result<InUse, CriError> {
    let containers = client.containers()?;
    let images = if containers.is_empty() { Vec::new() } else { client.images()? };
    Ok(InUse { containers, images, pods: client.pods()? })
}

/// Whether the runtimes are healthy, and whether they can pull `images`; each has `patience` to answer, a pull longer. None waits
/// for another.
pub(super) fn checks(session: &Session, spec: Option<&Spec>, images: &[ImageRef], patience: Duration) -> Vec<Check> {
    let of = |(reader, socket): &(&FoundRuntime, NodePath)| of_runtime(session, reader, socket, images, patience);
    let of_each = side_by_side::each(&listening(session), of);
    let asked = of_each.iter().any(|(_, asked)| *asked);
    let mut checks: Vec<Check> = of_each.into_iter().flat_map(|(checks, _)| checks).collect();
    if !asked {
        checks.extend(images.iter().map(cri::not_pulled));
    }
    let secrets = spec.map(secrets).unwrap_or_default();
    for check in &mut checks {
        check.found = mask(&check.found, &secrets);
    }
    checks
}

/// What comes of one runtime, and whether it was asked to pull at all.
fn of_runtime(session: &Session, reader: &FoundRuntime, socket: &NodePath, images: &[ImageRef], patience: Duration) -> (Vec<Check>, bool) {
    let runs = runs(session, reader);
    if runs == Runs::No {
        return (vec![cri::stopped(reader.runtime, socket)], false);
    }
    tracing::info!(runtime = %reader.runtime, %socket, "ask");
    let mut client = Client::within(&session.root, socket, patience);
    let health = match &mut client {
        Ok(client) => client.status(),
        Err(error) => Err(error.clone()),
    };
    let Some(check) = cri::health(reader.runtime, runs, socket, health) else { return (Vec::new(), false) };
    let mut checks = vec![check];
    for image in images {
        tracing::info!(runtime = %reader.runtime, image = image.written, "pull");
        let outcome = client.as_mut().map_err(|error| error.clone()).and_then(|client| client.pull(&image.written, PULL));
        checks.push(cri::pulled(reader.runtime, image, outcome.map(drop)));
    }
    (checks, !images.is_empty())
}
