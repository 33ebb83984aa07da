//! `status`, metrics, the audit trail and `pause`: the real binary on a scratch node.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

#[path = "../bad_input/node.rs"]
mod node;

mod monitoring;
mod pause;
mod rotation;
mod stands;
mod trail;

/// The hosts.toml of a source.
pub const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
pub const TRAIL: &str = "/var/lib/nodeprep/audit.log";
