//! nodeprep makes each node of a fleet pull its container images from the registries its owners trust, and nowhere else.
//!
//! One direction of flow; everything between `read` and the plan is pure:
//!
//! ```text
//!  spec ──load──▶ Spec (closed) ─┐
//!                                ├─desired──▶ Desired ─plan─▶ Plan ─▶ stage ▶ switch ▶ activate ▶ retire ─▶ Report
//!  node ──read──▶ Snapshot ──────┤   (pure)            (pure)        └──────── or: roll back ────────┘
//!                 Ledger ────────┘
//! ```
//!
//! Effects live in [`node`] only. What a runtime asks for an image is computed from the files on the node by
//! [`runtime::View::resolve`], the spec's own meaning by [`spec::intent::intent`]; a plan is refused before its first byte
//! unless the two agree.

#![forbid(unsafe_code)]

pub mod agent;
pub mod apply;
pub mod cli;
pub mod desired;
pub mod flow;
pub mod format;
pub mod kept;
pub mod ledger;
pub mod model;
pub mod node;
pub mod plan;
pub mod report;
pub mod runtime;
pub mod spec;
pub mod trust;
pub mod verify;
