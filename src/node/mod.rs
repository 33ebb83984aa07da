//! THE ONLY PLACE WITH EFFECTS: files, processes, units, clock, randomness. Everything else is pure.
//!
//! What lives here: reading a node into a [`Snapshot`], performing the steps of a plan, running a trust store's command.
//! What must not: decisions. What to write, in which order and what to do when it fails is decided in `plan/` and `apply/`.

#![allow(clippy::disallowed_methods, reason = "the one room with effects")]

pub use crate::model::snapshot::{Probes, Process, Snapshot};

pub mod agent;
pub mod blobs;
pub mod checkpoint;
pub mod clock;
pub mod command;
pub mod cri;
pub mod enter;
pub mod error;
mod files;
mod foreign;
pub mod guardian;
pub mod health;
pub mod kept;
pub mod lock;
pub mod material;
pub mod memory;
mod meta;
pub mod net;
pub mod probe;
pub mod read;
pub mod render;
pub mod root;
pub mod shadow;
pub mod side_by_side;
pub mod source;
mod stage;
pub mod state;
mod survey;
pub mod terminal;
pub mod textfile;
pub mod trail;
pub mod units;
pub mod write;
