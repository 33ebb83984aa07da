//! Whether a new pause image can be had as the node will be. Pure.

use super::Outcome;
use super::online::{Endpoint, endpoints_of, of_endpoints};
use super::probe::Seen;
use crate::model::image::ImageRef;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;

/// The endpoints at which `reader` will ask for the image. `after`: the node as it will be; `roots` as for
/// [`super::online::endpoints`].
#[must_use]
pub fn endpoints(spec: &Spec, image: &ImageRef, after: &Tree, roots: &Tree, reader: &FoundRuntime) -> Vec<Endpoint> {
    let asked = [image.clone()];
    endpoints_of(Some(spec), after, roots, std::slice::from_ref(reader), &asked, false, |_, resolution| resolution.image == *image)
}

/// Whether one of them has its manifest.
///
/// # Errors
/// What was found, and what to do about it.
pub fn judge(endpoints: &[Endpoint], seen: &[Seen]) -> Result<(), (String, String)> {
    let checks = of_endpoints(endpoints, seen);
    if checks.iter().any(|check| check.id == "manifest" && check.result == Outcome::Ok) {
        return Ok(());
    }
    let bad = checks.into_iter().find(|check| check.result != Outcome::Ok);
    Err(bad.map_or_else(
        || ("nobody is asked for it".to_owned(), "add a [[mirror]] or [[registry]] for it".to_owned()),
        |check| (format!("{}: {}", check.subject, check.found), check.help),
    ))
}
