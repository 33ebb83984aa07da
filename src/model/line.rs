//! What is kept in the state folder: JSON in one line.

use serde::Serialize;

/// The bytes to write.
#[must_use]
pub fn of(what: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(what).unwrap_or_default();
    bytes.push(b'\n');
    bytes
}
