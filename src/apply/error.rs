//! Why a run fails, as errors that whoever asked for it reads.

use crate::model::path::NodePath;
use crate::node::command::CommandError;
use crate::node::error::NodeError;
use crate::plan::turn::Turning;

/// Why a unit could not be reloaded or restarted.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The service manager's command did not run to its end.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// It says that the job failed.
    #[error("{said}")]
    Job {
        /// In its own words.
        said: String,
    },
    /// The daemon itself has to say that it has read everything, and says that it has not, or nothing.
    #[error("{said}")]
    Unconfirmed {
        /// In its own words.
        said: String,
    },
}

/// Why nobody could be set to watch over a run.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// Its program could not be put beside the ledger.
    #[error(transparent)]
    Program(#[from] NodeError),
    /// The service manager's command did not run to its end.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// The service manager says that it did not start.
    #[error("{said}")]
    Refused {
        /// In its own words.
        said: String,
    },
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The node refused.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// A path could not be put back.
    #[error("{path} could not be put back")]
    Stuck {
        /// Which.
        path: NodePath,
    },
    /// A command did not run to its end.
    #[error("the {who} could not be refreshed")]
    Command {
        /// What it was for.
        who: String,
        /// What happened.
        #[source]
        error: CommandError,
    },
    /// A command failed.
    #[error("`{command}` failed with status {status}: {said}")]
    Status {
        /// The command.
        command: String,
        /// Its status.
        status: i32,
        /// The end of what it said.
        said: String,
    },
    /// A unit could not be reloaded or restarted.
    #[error("cannot {} {unit}", turning.word())]
    Unit {
        /// Which.
        unit: String,
        /// What was to be done.
        turning: Turning,
        /// Why not.
        #[source]
        error: UnitError,
    },
    /// A daemon is not well after it was reloaded or restarted.
    #[error("{unit} is not well {}: {why}", turning.after())]
    Unwell {
        /// Which.
        unit: String,
        /// What was done.
        turning: Turning,
        /// What is seen.
        why: String,
        /// It would not have become well by waiting.
        hopeless: bool,
    },
    /// Nobody would bring the run to its end if it were killed.
    #[error("nobody would bring this run to its end if it were killed between a restart and its proof: the guardian could not be started")]
    Unguarded(#[source] GuardError),
    /// The canary is not pulled any more.
    #[error(
        "{runtime} cannot pull {image} any more, {} right before: {why}",
        if *pulled { "which it pulled" } else { "whose manifest an endpoint showed" }
    )]
    Canary {
        /// Which runtime.
        runtime: String,
        /// The image.
        image: String,
        /// In its own words.
        why: String,
        /// Whether it was pulled before; else an endpoint has shown its manifest.
        pulled: bool,
    },
}

impl ApplyError {
    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Node(error) => error.help(),
            Self::Stuck { path } => Some(format!("restore {path} by hand from the copies in the state folder")),
            Self::Unit { unit, .. } | Self::Unwell { unit, .. } => Some(format!("look why with `journalctl -u {unit}`")),
            Self::Unguarded(_) => Some(format!(
                "look why with `journalctl -u {}`; nothing was changed: go without one with --no-guardian, or leave the restart to others with --activate never",
                crate::node::guardian::UNIT
            )),
            Self::Canary { image, .. } => {
                Some(format!("look at what the endpoints of the spec hold: `nodeprep verify --manifest {image}`"))
            }
            Self::Command { .. } | Self::Status { .. } => Some("run the command by hand to see what it needs, then run again".to_owned()),
        }
    }
}
