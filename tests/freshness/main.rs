//! Whether mirrors are fresh and endpoints answer: canaries against registries that speak TLS, the agent that tries them from time to time, and
//! clocks that nobody has set. Needs neither root nor a runtime.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "tests have effects, and their messages go to whoever runs them"
)]

mod agent;
mod canary;
mod node;
mod registry;
