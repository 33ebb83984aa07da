//! What is wrong, where, and what to do about it.

use serde::Serialize;

use super::place::Place;

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; nothing to do.
    Note,
    /// Works, but will hurt.
    Warning,
    /// Stops what was asked for.
    Error,
}

/// One thing that is wrong. `what` is a lower-case fragment that names the thing; `help` says in one imperative sentence
/// what the user can do, and may be empty only where nothing can be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Stable, for scripts: `unknown-key`, `ca-expired`, …
    pub code: &'static str,
    /// Error, warning or note.
    pub severity: Severity,
    /// Where, when there is a where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Place>,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub help: String,
    /// The line of the spec, with the columns (from 1, in characters; start and length) that are meant. Secrets in it are
    /// masked by whoever makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub excerpt: Option<Excerpt>,
}

/// A line of the spec and the part of it that is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Excerpt {
    /// The line, without its end.
    pub text: String,
    /// First column that is meant, in characters, from 1.
    pub column: u32,
    /// How many characters are meant, at least 1.
    pub width: u32,
}

impl Problem {
    /// An error.
    #[must_use]
    pub fn error(code: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { code, severity: Severity::Error, at: None, what: what.into(), help: help.into(), excerpt: None }
    }

    /// A warning.
    #[must_use]
    pub fn warning(code: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, what, help) }
    }

    /// A note.
    #[must_use]
    pub fn note(code: &'static str, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self { severity: Severity::Note, ..Self::error(code, what, help) }
    }

    /// The same problem, at this place.
    #[must_use]
    pub fn at(mut self, place: Place) -> Self {
        self.at = Some(place);
        self
    }
}
