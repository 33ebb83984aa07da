//! `config.toml` of containerd: what it says together with everything that it imports, and how single keys of it are edited.
//!
//! What lives here: the effective values by class of versions ([`Chain`]), edits that keep every other byte ([`set`],
//! [`mod@remove`], [`undo`]). What must not: what the values should be (that is `runtime/containerd`).
//!
//! Sources: `runtime-semantics.md` 1.8; `field-notes.md` F4, F6, F7.

pub mod chain;
pub mod edit;
pub mod imports;
pub mod merged;
pub mod remove;
#[cfg(test)]
mod tests;

pub use chain::{Broken, Chain, CriTable, HostSettings, LegacyMirror, LegacyTls, Said};
pub use edit::{Refused, Setting, set, undo};
pub use imports::imported;
pub use remove::remove;

pub(in crate::format) use edit::{flat, without};

/// The CRI plugin's table in files of version 1, which only containerd 1.x reads.
pub const CRI_V1: &str = "cri";
/// The CRI plugin's table in files of version 2 (containerd 1.x, and 2.x which migrates it).
pub const CRI_V2: &str = "io.containerd.grpc.v1.cri";
/// The table of its images part in files of version 3 and 4 (containerd 2.x).
pub const CRI_V3: &str = "io.containerd.cri.v1.images";

/// The table of registry settings' plugin in a file of that version.
fn plugin(version: i64) -> &'static str {
    match version {
        ..=1 => CRI_V1,
        2 => CRI_V2,
        _ => CRI_V3,
    }
}

/// The key of `config_path` in a file of that version.
#[must_use]
pub fn config_path_key(version: i64) -> [&'static str; 4] {
    ["plugins", plugin(version), "registry", "config_path"]
}

/// The key of the table below which the registries' settings stand in a file of that version.
#[must_use]
pub fn registry_key(version: i64) -> [&'static str; 3] {
    ["plugins", plugin(version), "registry"]
}

/// The key of the pause image in a file of that version.
#[must_use]
pub fn sandbox_key(version: i64) -> Vec<&'static str> {
    if version >= 3 { vec!["plugins", CRI_V3, "pinned_images", "sandbox"] } else { vec!["plugins", plugin(version), "sandbox_image"] }
}
