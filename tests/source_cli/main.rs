//! The command line with a spec from elsewhere: fetched over TLS, signed, kept. Every server is a real one of the test; needs neither
//! root nor a runtime.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod fetched;
mod guide;
mod kept;
mod node;
mod server;
mod signed;
