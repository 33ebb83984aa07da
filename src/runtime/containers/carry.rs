//! What of somebody else's configuration is carried over beside the spec (`--foreign=carry`).

use super::want::Known;
use crate::desired::Part;
use crate::model::problem::Problem;
use crate::model::tree::Tree;
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::spec::adopt::adopt;

/// The spec as it counts here: with what was carried over earlier, and with what is found now where that is asked for.
///
/// # Errors
/// What cannot be carried over with the same meaning.
pub(super) fn carried(spec: &Spec, found: &[&FoundRuntime], tree: &Tree, known: Known<'_>, part: &mut Part) -> Result<Spec, Vec<Problem>> {
    let _ = (found, tree);
    let adopted = known.adopted.cloned().unwrap_or_default();
    let whole = adopt(spec, &adopted);
    if !adopted.is_empty() {
        part.spec = Some(std::sync::Arc::new(whole.clone()));
    }
    part.adopted = adopted;
    Ok(whole)
}
