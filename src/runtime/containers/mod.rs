//! The containers/image family: CRI-O, and Podman with Buildah and Skopeo.
//!
//! What lives here: where they look ([`files`], [`logins`]), what they ask for an image ([`View`]), what they need to be true
//! to a spec ([`want()`]), what makes them see a change ([`activation()`]). What must not: what a file's text means (`format`),
//! the spec's own meaning (`spec::intent`). Facts: `runtime-semantics.md` 2 and 7.
//!
//! Both runtimes share one library, and one set of files; they differ in environment, auth file and short names.

pub mod activation;
mod carry;
pub mod conflicts;
pub mod entries;
pub mod files;
mod give_way;
pub mod legacy;
pub mod logins;
mod view;
pub mod want;

pub use activation::activation;
pub use files::{pause_image, socket, wishes};
pub use view::View;
pub use want::{Known, want, want_knowing};

/// The file under which the ledger keeps what is carried over for the family.
#[must_use]
pub fn adopted_from() -> crate::model::path::NodePath {
    crate::format::registries_conf::main_file()
}

#[cfg(test)]
mod tests;
