//! Exit codes: one table, the same in code, `--help` and the docs.

use serde::Serialize;

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The node is as the spec says, or the question was answered.
    Converged,
    /// Something that nobody thought of.
    Unexpected,
    /// Wrong command line.
    Usage,
    /// The spec is invalid; nothing was changed.
    InvalidSpec,
    /// The node cannot do what the spec says; that target was left as it was.
    Cannot,
    /// Somebody else's configuration, or another spec, is in the way, or more would be lost than was allowed; what is concerned
    /// was left as it was.
    Conflict,
    /// Failed, and everything is as it was before.
    RolledBack,
    /// Failed, and could not be undone; the report says what to do by hand.
    NotRolledBack,
    /// A verification or a probe failed.
    VerifyFailed,
    /// Applied, but an activation that was asked for is still due.
    Due,
    /// `plan --exit-code`: there are changes to make; `status --exit-code`: files are not as they were left.
    Pending,
    /// Something is left as it is because it is paused.
    Paused,
    /// The spec cannot be fetched; nothing was changed.
    Unavailable,
    /// Another run holds the lock.
    Locked,
}

impl Outcome {
    /// The process's exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        self.row().0
    }

    /// What it means, in a line.
    #[must_use]
    pub const fn meaning(self) -> &'static str {
        self.row().1
    }

    const fn row(self) -> (u8, &'static str) {
        match self {
            Self::Converged => (0, "converged, or nothing to do"),
            Self::Unexpected => (1, "unexpected failure"),
            Self::Usage => (2, "wrong command line"),
            Self::InvalidSpec => (3, "invalid spec; nothing was changed"),
            Self::Cannot => (4, "the node cannot do it; the target concerned was left as it was"),
            Self::Conflict => (
                5,
                "conflict: configuration that nodeprep did not write, another spec, or a loss that was not allowed; what is concerned was left as it was",
            ),
            Self::RolledBack => (6, "failed and rolled back"),
            Self::NotRolledBack => (7, "failed and not rolled back; the report says what to do"),
            Self::VerifyFailed => (8, "a verification or probe failed"),
            Self::Due => (9, "applied, but an activation that was asked for is still due"),
            Self::Pending => (10, "changes pending (`plan --exit-code`), or drift (`status --exit-code`)"),
            Self::Paused => (11, "paused: what is paused was left as it is (`nodeprep resume` ends that)"),
            Self::Unavailable => (69, "the spec could not be fetched; nothing was changed (with --last-known-good: but what had drifted)"),
            Self::Locked => (75, "another run holds the lock; try again"),
        }
    }

    /// All of them, in order of their codes.
    pub const ALL: [Self; 14] = [
        Self::Converged,
        Self::Unexpected,
        Self::Usage,
        Self::InvalidSpec,
        Self::Cannot,
        Self::Conflict,
        Self::RolledBack,
        Self::NotRolledBack,
        Self::VerifyFailed,
        Self::Due,
        Self::Pending,
        Self::Paused,
        Self::Unavailable,
        Self::Locked,
    ];
}
