//! A new pause image: which runtimes would change to it, and what is kept back while it cannot be had. Pure.
//!
//! Without its pause image a runtime starts no pod, and what is in the store is all that it has while no registry answers. So the
//! key changes only when the image is there, or is proved to be had (docs/adr/0013).

use std::collections::BTreeMap;

use super::hold::KEPT_BACK;
use super::whole::Planned;
use super::{Activation, How};
use crate::desired::Target;
use crate::model::problem::Problem;
use crate::model::tree::Tree;
use crate::runtime::{FoundRuntime, Runtime};
use crate::spec::{Pause, Spec};

/// Why a runtime keeps its pause image, and what to do about it.
pub type Held = BTreeMap<Runtime, (String, String)>;

/// The runtimes that change to the spec's pause image between `before` and `after`.
#[must_use]
pub fn changing<'a>(spec: &Spec, before: &Tree, after: &Tree, found: &'a [FoundRuntime]) -> Vec<&'a FoundRuntime> {
    let Some(pause) = &spec.pause else { return Vec::new() };
    let changes = |reader: &&FoundRuntime| {
        let then = reader.pause_image(after);
        then.as_deref().is_some_and(|image| *image == pause.image.written || *image == pause.image.to_string())
            && reader.is_pulled_through(before)
            && reader.pause_image(before) != then
    };
    found.iter().filter(changes).collect()
}

/// The spec under which these runtimes keep what they have.
#[must_use]
pub fn holding(spec: &Spec, held: Held) -> Spec {
    let pause = spec.pause.as_ref().map(|pause| Pause { held, ..pause.clone() });
    Spec { pause, ..spec.clone() }
}

/// What a runtime's part says of a pause image that it does not get yet.
#[must_use]
pub fn kept_back(pause: &Pause, runtime: Runtime) -> Option<Problem> {
    let (why, help) = pause.held.get(&runtime)?;
    let what = format!("{runtime} keeps its pause image: {why}");
    let help = format!("{help}; --probe=warn writes it anyway");
    Some(Problem::error(KEPT_BACK, what, help).at(pause.at.clone()))
}

/// Whether under `planned` the runtime reads how its registries are reached anew only when it is told to: it cannot pull by the
/// new settings before.
#[must_use]
pub fn reads_late(planned: &Planned, reader: &FoundRuntime) -> bool {
    let own = |one: &&Activation| match &one.who {
        Target::Containerd(config) => reader.runtime == Runtime::Containerd && *config == reader.config,
        Target::Containers | Target::Crio => reader.runtime == Runtime::Crio,
        Target::Trust => false,
    };
    let told = |one: &Activation| matches!(one.how, How::Reload(_) | How::Restart(_));
    planned.plan.activate.iter().filter(own).any(told)
}
