//! The words of the field as types that cannot hold nonsense.
//!
//! What lives here: names (hosts, repositories, images, paths on the node), certificates, secrets, the picture of a node
//! ([`tree::Tree`]) and what a runtime asks for an image ([`resolution::Resolution`]).
//! What must not: effects, knowledge of one runtime or one file format, the spec.

pub mod cert;
pub mod challenge;
pub mod content;
pub mod cri;
pub mod digest;
pub mod endpoint;
pub mod host;
pub mod image;
pub mod keyring;
pub mod line;
pub mod order;
pub mod path;
pub mod pause;
pub mod place;
pub mod problem;
pub mod repo;
pub mod resolution;
pub mod secret;
pub mod snapshot;
pub mod suffix;
pub mod time;
pub mod tree;
pub mod unit;
pub mod url;
pub mod version;
