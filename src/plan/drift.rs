//! What is not as the last run left it, told from the ledger and the node alone. Pure.

use serde::Serialize;

use super::build::Now;
use super::owned::{Standing, standing};
use crate::ledger::{Owned, Prior, Stamp};
use crate::model::path::NodePath;

/// A path that is not as it was left.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Drift {
    /// Which.
    pub path: NodePath,
    /// For which target.
    pub target: String,
    /// What is different.
    pub kind: Kind,
}

/// What is different at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "what", content = "more")]
pub enum Kind {
    /// A file of ours is gone.
    Gone,
    /// A file of ours has another content.
    Changed,
    /// A file of ours has another mode than this.
    Mode(u32),
    /// Something else than a file stands there.
    Replaced,
    /// A file of somebody else's that was taken away is there again.
    Back,
    /// These keys of ours in somebody else's file are not as they were left.
    Keys(Vec<String>),
    /// It cannot be looked at, for this reason.
    Unknown(String),
}

impl Kind {
    /// In words that follow the path.
    #[must_use]
    pub fn said(&self) -> String {
        match self {
            Self::Gone => "is gone".to_owned(),
            Self::Changed => "has been changed".to_owned(),
            Self::Mode(mode) => format!("has mode {mode:04o}"),
            Self::Replaced => "is no regular file any more".to_owned(),
            Self::Back => "was taken away and is there again".to_owned(),
            Self::Keys(keys) => format!("has lost or changed {}", keys.join(", ")),
            Self::Unknown(why) => format!("cannot be looked at: {why}"),
        }
    }
}

/// All of them, by path. What a run that was cut off has left on both sides is no drift: the next run finishes it.
#[must_use]
pub fn drift(now: Now<'_>) -> Vec<Drift> {
    let one = |(path, owned): (&NodePath, &std::sync::Arc<Owned>)| {
        kind(now, path, owned).map(|kind| Drift { path: path.clone(), target: owned.target.to_string(), kind })
    };
    now.ledger.owned.iter().filter_map(one).collect()
}

fn kind(now: Now<'_>, path: &NodePath, owned: &Owned) -> Option<Kind> {
    let open = now.ledger.open.as_ref();
    let may_be_absent = owned.now == Stamp::Absent
        || open.is_some_and(|open| open.before.get(path) == Some(&Prior::Absent) || open.after.get(path) == Some(&Stamp::Absent));
    match standing(now, path, owned.format.is_some()) {
        Err(problem) => Some(Kind::Unknown(problem.what)),
        Ok(Standing::Absent) if may_be_absent => None,
        Ok(Standing::Absent) => Some(Kind::Gone),
        Ok(Standing::Ours { meta, .. }) => match owned.now {
            Stamp::File { mode, .. } if mode != meta.mode && open.is_none() => Some(Kind::Mode(meta.mode)),
            _ => None,
        },
        Ok(Standing::Drifted { .. }) if owned.now == Stamp::Absent => Some(Kind::Back),
        Ok(Standing::Drifted { bytes, .. }) => match owned.format {
            None => Some(Kind::Changed),
            // the rest of the file is somebody else's, who may write what he likes
            Some(format) => {
                let text = String::from_utf8_lossy(&bytes);
                let lost = |edit: &&crate::format::KeyEdit| {
                    crate::format::undo(format, &text, std::slice::from_ref(*edit)).is_ok_and(|undone| undone == text)
                };
                let lost: Vec<String> = owned.keys.iter().filter(lost).map(|edit| edit.key.join(".")).collect();
                (!lost.is_empty()).then_some(Kind::Keys(lost))
            }
        },
        Ok(Standing::Foreign { .. }) => Some(Kind::Replaced),
    }
}
