//! The agent: its machine under a fake clock (`world`, `long`, `tables`, `probing`), and the process itself on a scratch root (`process`).
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "tests have effects, and their messages go to whoever runs them"
)]

#[path = "../source_cli/server.rs"]
mod server;

mod bad;
mod gate;
mod https;
mod long;
mod manners;
mod node;
mod others;
mod probing;
mod process;
mod tables;
mod watched;
mod world;
