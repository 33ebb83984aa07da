//! The canary: an image that a runtime pulls before and after, to see that it still can (docs/adr/0014).

use crate::model::path::NodePath;

/// One runtime that pulls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canary {
    /// Its name in messages.
    pub runtime: String,
    /// Where it answers to CRI.
    pub socket: NodePath,
    /// The image, as a user writes it.
    pub image: String,
    /// Whether an endpoint at which the runtime will ask for it has shown its manifest.
    pub promised: bool,
}
