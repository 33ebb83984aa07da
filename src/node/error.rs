//! What the node may refuse, in words that name the path and, where there is one, the remedy.

use nix::errno::Errno;

use crate::ledger::LedgerError;
use crate::model::digest::Digest;
use crate::model::path::NodePath;

/// What a failure means for the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Something that should not happen (1).
    Unexpected,
    /// The node cannot do it (4).
    Node,
    /// Somebody else's change is in the way (5).
    Conflict,
    /// Failed, and everything is as before (6).
    RolledBack,
    /// Failed, and some paths have to be put right by hand (7).
    NotRolledBack,
    /// Another run holds the lock (75).
    Locked,
}

impl Class {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Unexpected => 1,
            Self::Node => 4,
            Self::Conflict => 5,
            Self::RolledBack => 6,
            Self::NotRolledBack => 7,
            Self::Locked => 75,
        }
    }
}

/// Why something could not be done on the node.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// An error of the operating system without a meaning of its own.
    #[error("cannot {doing} {path}")]
    Io {
        /// What was tried: `write`, `rename`, …
        doing: &'static str,
        /// Where.
        path: NodePath,
        /// What the kernel said.
        #[source]
        errno: Errno,
    },
    /// `EROFS`.
    #[error("cannot {doing} {path}: its file system is read-only")]
    ReadOnly {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: NodePath,
    },
    /// `EACCES`.
    #[error("cannot {doing} {path}: permission denied")]
    Permission {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: NodePath,
    },
    /// `EPERM`: an immutable bit, or a security module.
    #[error("cannot {doing} {path}: the immutable attribute or a security policy forbids it")]
    Immutable {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: NodePath,
    },
    /// `ENOSPC`, `EDQUOT`.
    #[error("cannot {doing} {path}: no space left on its file system")]
    Full {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: NodePath,
    },
    /// A mount point cannot be replaced by a rename.
    #[error("{path} is a mount point of its own and cannot be replaced as a whole")]
    Mounted {
        /// Where.
        path: NodePath,
    },
    /// No folder for the temporary file on the same file system.
    #[error("{path} cannot be replaced in one step: {stage} is on another file system")]
    OtherFs {
        /// What was to be written.
        path: NodePath,
        /// Where its temporary file would stand.
        stage: NodePath,
    },
    /// `ELOOP`.
    #[error("{path}: too many levels of symbolic links")]
    Loop {
        /// The path whose resolution never ends.
        path: NodePath,
    },
    /// Something else stands where a folder is needed.
    #[error("{path} is not a folder")]
    NotFolder {
        /// Where.
        path: NodePath,
    },
    /// Something else stands where a file of our own is needed.
    #[error("{path} is not a regular file")]
    NotFile {
        /// Where.
        path: NodePath,
    },
    /// What we read as a whole has a size, and this is none of ours.
    #[error("{path} is larger than {most} bytes")]
    TooLarge {
        /// Where.
        path: NodePath,
        /// As much would be read.
        most: u64,
    },
    /// A link whose target is no UTF-8 text.
    #[error("{path} is a symbolic link whose target is not UTF-8")]
    NotText {
        /// The link.
        path: NodePath,
    },
    /// Not what the plan was made for.
    #[error("{path} has changed since the plan was made: {found} is there now")]
    Drift {
        /// Where.
        path: NodePath,
        /// What stands there.
        found: String,
    },
    /// Another run.
    #[error("another run{} holds {path}", pid.map_or_else(String::new, |pid| format!(" (process {pid})")))]
    Locked {
        /// The lock file.
        path: NodePath,
        /// Who holds it.
        pid: Option<u32>,
    },
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A file of our own state is not what we wrote.
    #[error("{path} cannot be used: {why}")]
    State {
        /// Which.
        path: NodePath,
        /// What is wrong.
        why: String,
    },
    /// What was there before is not kept any more.
    #[error("the kept copy {blob} of {path} is missing or damaged")]
    Blob {
        /// Whose.
        path: NodePath,
        /// Its name.
        blob: Digest,
    },
}

impl NodeError {
    /// The error with the meaning that `errno` has where files are read and written.
    #[must_use]
    pub fn of(doing: &'static str, path: NodePath, errno: Errno) -> Self {
        match errno {
            Errno::EROFS => Self::ReadOnly { doing, path },
            Errno::EACCES => Self::Permission { doing, path },
            Errno::EPERM => Self::Immutable { doing, path },
            Errno::ENOSPC | Errno::EDQUOT => Self::Full { doing, path },
            Errno::EBUSY => Self::Mounted { path },
            Errno::ELOOP => Self::Loop { path },
            Errno::ENOTDIR => Self::NotFolder { path },
            errno => Self::Io { doing, path, errno },
        }
    }

    /// A failure that nobody explained.
    #[must_use]
    pub fn unexplained(path: NodePath) -> Self {
        Self::of("finish in", path, Errno::EIO)
    }

    /// The same for errors of the standard library.
    #[must_use]
    pub fn io(doing: &'static str, path: NodePath, error: &std::io::Error) -> Self {
        Self::of(doing, path, Errno::from_raw(error.raw_os_error().unwrap_or(Errno::EIO as i32)))
    }

    /// The same error about another path: a temporary name means nothing to whoever reads it.
    #[must_use]
    pub(super) fn about(mut self, other: &NodePath) -> Self {
        if let Self::Io { path, .. }
        | Self::ReadOnly { path, .. }
        | Self::Permission { path, .. }
        | Self::Immutable { path, .. }
        | Self::Full { path, .. } = &mut self
        {
            *path = other.clone();
        }
        self
    }

    /// What it means for the exit code.
    #[must_use]
    pub const fn class(&self) -> Class {
        match self {
            Self::Io { .. } => Class::Unexpected,
            Self::Drift { .. } => Class::Conflict,
            Self::Locked { .. } => Class::Locked,
            _ => Class::Node,
        }
    }

    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Io { .. } => return None,
            Self::ReadOnly { path, .. } => {
                format!("remount the file system of {path} writable, or prepare the image that it comes from with --root")
            }
            Self::Permission { path, .. } => format!("run as root, or make {path} accessible to this user"),
            Self::Immutable { path, .. } => format!("look at it with `lsattr -d {path}` and take the bit off with `chattr -ia {path}`"),
            Self::Full { path, .. } => format!("make room on the file system of {path} and run again"),
            Self::Mounted { path } => format!("mount the folder that holds {path} instead of the file alone, or unmount it"),
            Self::OtherFs { path, stage } => format!("let {path} and {stage} be on one file system"),
            Self::Loop { path } | Self::NotText { path } => format!("repair the symbolic links on the way to {path}"),
            Self::NotFolder { path } | Self::NotFile { path } | Self::TooLarge { path, .. } => format!("move {path} away"),
            Self::Drift { .. } => "run again: the plan is made anew from what is there".to_owned(),
            Self::Locked { .. } => "wait until the other run is through and run again".to_owned(),
            Self::Ledger(LedgerError::TooNew { .. }) => {
                "use the nodeprep that wrote it, or a later one; nothing is changed until then".to_owned()
            }
            Self::Ledger(LedgerError::Malformed { path, .. }) => format!(
                "restore it from a backup, or move {path} away to begin anew: what nodeprep wrote stays in place, but what was there before cannot be given back"
            ),
            Self::State { path, .. } => format!("look at {path} and move it away, or run `nodeprep resume`"),
            Self::Blob { .. } => "restore the file from a backup and run again".to_owned(),
        })
    }
}
