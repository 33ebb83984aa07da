//! What will change: Desired + Tree + Ledger → phases of steps. Pure.
//!
//! What lives here: the steps ([`Plan`]), what we own and what conflicts, the proof that the result means what the spec
//! means, diffs. What must not: effects, any runtime's knowledge.

pub mod activation;
pub mod back;
mod basis;
pub mod build;
pub mod canary;
pub mod diff;
pub mod drift;
mod give_back;
pub mod guard;
pub mod hold;
mod losses;
mod owned;
pub mod pause;
pub mod proof;
pub mod recover;
pub mod store;
#[cfg(test)]
mod tests;
pub mod turn;
pub mod whole;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::desired::Target;
use crate::ledger::{Asked, Attempt, Due, LastSpec, Owns, Prior};
use crate::model::content::Content;
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::{Entry, Meta};
use crate::spec::adopt::Adopted;

/// The phases of a run, each a list of steps in order. Nothing is visible to a runtime before `switch`; nothing that a
/// runtime may still read goes away before `retire`.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Content-addressed files: nothing names them yet. Written before anything else becomes visible.
    pub stage: Vec<Step>,
    /// The renames that make the rest visible. (Their temporary files are written in the stage phase.)
    pub switch: Vec<Step>,
    /// What makes running programs see it, and what earlier runs left of that.
    pub activate: Vec<Activation>,
    /// The units that are reloaded or restarted for `activate`, or proved to be well.
    pub turns: Vec<turn::Turn>,
    /// It is itself the way back from a run that was cut off: its units ran before that, and have to run again.
    pub returns: bool,
    /// Units whose daemon would not come up with what is there before the run, and why.
    pub dead_ends: BTreeMap<String, String>,
    /// What runtimes pull before and after, to see that they still can.
    pub canaries: Vec<canary::Canary>,
    /// What stands in for `activate` on the way back, by whom it concerns.
    pub back: Vec<Activation>,
    /// What earlier runs left to be done and this one does not do either: the ledger goes on saying so.
    pub due: Vec<Due>,
    /// Folders in which the commands write: tried before the first byte, as those of the steps are.
    pub written: BTreeSet<NodePath>,
    /// Deletions, only after activation succeeded or was not needed.
    pub retire: Vec<Step>,
    /// What the ledger owns afterwards: path → entry. `now` is filled in by the executor from what it wrote.
    pub owned: Owns,
    /// Folders that are ours afterwards, as far as they were so before; the executor adds those that it makes.
    pub dirs: BTreeSet<NodePath>,
    /// What the proof of each target rests on, by the target's name.
    pub proved: BTreeMap<String, Digest>,
    /// What the ledger says of this run until it is through.
    pub asked: Option<Asked>,
    /// What its units are turned for; no units where none is.
    pub attempt: Attempt,
    /// What the ledger says of the spec afterwards; `None` when nothing is owned then.
    pub spec: Option<LastSpec>,
    /// What is carried over, by the file in which it stood.
    pub adopted: BTreeMap<NodePath, Adopted>,
    /// Warnings and notes.
    pub notes: Vec<Problem>,
}

/// One change of one path.
#[derive(Clone, Debug)]
pub struct Step {
    /// For which target.
    pub target: Target,
    /// Which path, as the runtime names it. Links in the middle are followed inside the root; a link as last component is
    /// followed by [`Act::PutFile`] with `through_link` and replaced otherwise.
    pub path: NodePath,
    /// What stands there now; compared again just before the change.
    pub expect: Expect,
    /// The change.
    pub act: Act,
    /// Why, in the words of `plan`.
    pub why: String,
}

/// What a step expects to find.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Nothing.
    Absent,
    /// A file with this content (plain SHA-256).
    File(Digest),
    /// A symbolic link to this.
    Link(String),
    /// A folder.
    Dir,
}

impl Expect {
    /// What stands there according to the tree.
    #[must_use]
    pub fn of(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Absent => Some(Self::Absent),
            Entry::File { bytes, .. } => Some(Self::File(Digest::of(bytes))),
            Entry::Link { to, .. } => Some(Self::Link(to.clone())),
            Entry::Dir { .. } => Some(Self::Dir),
            Entry::Unreadable(_) => None,
        }
    }
}

/// A change.
#[derive(Clone, Debug)]
pub enum Act {
    /// Writes a file: temporary file, then rename.
    PutFile {
        /// Its content.
        content: Content,
        /// Owner, mode and labels that it gets. For a file that exists and stays somebody else's, the ones that it has.
        meta: Meta,
        /// Whether a symbolic link at `path` is written through (partly ours) rather than replaced.
        through_link: bool,
        /// The folder for the temporary file.
        stage: NodePath,
    },
    /// Writes a folder with all its files beside the place and renames it as a whole; exchanges it where one stands there.
    PutDir {
        /// Name → content and mode.
        files: BTreeMap<String, (Content, u32)>,
        /// The folder for the temporary folder.
        stage: NodePath,
    },
    /// Makes a symbolic link (revert only).
    PutLink {
        /// Its target.
        to: String,
        /// Its owner and labels.
        meta: Meta,
    },
    /// Removes a file or link.
    Remove,
}

/// What makes a running program see a change, or why nothing is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activation {
    /// Whom it concerns.
    pub who: Target,
    /// What is done.
    pub how: How,
    /// The paths and reasons behind it.
    pub because: Vec<String>,
}

/// How a change takes effect; later ones are stronger and win.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "how", content = "what")]
pub enum How {
    /// Read at the next pull.
    Nothing,
    /// The trust store's own command, as argument list.
    Refresh(Vec<String>),
    /// The unit is told to reload.
    Reload(String),
    /// The unit is restarted.
    Restart(String),
}

impl How {
    /// The unit that it concerns, if it concerns one.
    #[must_use]
    pub fn unit(&self) -> Option<&str> {
        match self {
            Self::Nothing | Self::Refresh(_) => None,
            Self::Reload(unit) | Self::Restart(unit) => Some(unit),
        }
    }
}

/// The state before a step, for the ledger.
#[must_use]
pub fn prior(entry: &Entry) -> Option<Prior> {
    match entry {
        Entry::Absent => Some(Prior::Absent),
        Entry::File { bytes, meta } => Some(Prior::File { blob: Digest::of(bytes), meta: meta.clone() }),
        Entry::Link { to, meta } => Some(Prior::Link { to: to.clone(), meta: meta.clone() }),
        Entry::Dir { .. } | Entry::Unreadable(_) => None,
    }
}
