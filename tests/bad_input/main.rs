//! Everything that a tired user or a hostile node may hand to nodeprep, on scratch roots with the real binary: each ends with
//! an error that names the place and the remedy and with the documented exit code; no live path has changed, nothing
//! temporary is left, no secret is shown, and the next good run converges.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

mod configuration;
mod disk;
mod foreign;
mod image;
mod node;
mod output;
mod ownership;
mod refusal;
mod revert;
mod spec;
mod state;
