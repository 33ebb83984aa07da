//! The agent: the same flow in a loop, decided by a pure state machine (docs/adr/0018). Pure.
//!
//! What lives here: what is done when (`machine` and what it is made of), and how the agent sees itself ([`state::AgentState`]). What
//! must not: effects (`node/`), what a pass does (`apply` and `plan`, as child processes).

pub mod machine;
mod outcome;
pub mod pass;
pub mod probing;
pub mod random;
mod restart;
pub mod settings;
mod show;
pub mod state;
pub mod watches;
