//! What is told to people and programs.
//!
//! What lives here: pure functions from results to text. What must not: effects, decisions.

pub mod problems;
