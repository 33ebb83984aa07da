//! Whose is what stands at a path.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Expect;
use super::build::Now;
use crate::format::HEADER;
use crate::ledger::{Owned, Prior, Stamp};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::{Entry, Meta, Tree};

/// What stands at a path that we want, and whose it is.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nothing.
    Absent,
    /// What we left there, or what a run that was cut off left there.
    Ours { expect: Expect, meta: Meta, bytes: Arc<[u8]> },
    /// Ours, but somebody has changed it since.
    Drifted { expect: Expect, meta: Meta, bytes: Arc<[u8]> },
    /// Somebody else's. `bytes` is what a reader finds there; `None` behind a dangling link.
    Foreign { expect: Expect, entry: Entry, meta: Meta, bytes: Option<Arc<[u8]>> },
}

impl Standing {
    /// What a step finds there.
    pub fn expect(&self) -> Expect {
        match self {
            Self::Absent => Expect::Absent,
            Self::Ours { expect, .. } | Self::Drifted { expect, .. } | Self::Foreign { expect, .. } => expect.clone(),
        }
    }

    /// Owner, mode and labels that stand there.
    pub fn meta(&self) -> Option<&Meta> {
        match self {
            Self::Absent => None,
            Self::Ours { meta, .. } | Self::Drifted { meta, .. } | Self::Foreign { meta, .. } => Some(meta),
        }
    }

    /// The content that stands there.
    pub fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Absent => None,
            Self::Ours { bytes, .. } | Self::Drifted { bytes, .. } => Some(bytes),
            Self::Foreign { bytes, .. } => bytes.as_deref(),
        }
    }

    /// Whether it is already a regular file with this content and mode.
    pub fn holds(&self, bytes: &[u8], mode: u32) -> bool {
        matches!(self.expect(), Expect::File(_)) && self.bytes() == Some(bytes) && self.meta().is_some_and(|meta| meta.mode == mode)
    }
}

/// Looks at `path`. `through_link`: a link as last component is followed (files that are partly ours) rather than taken for
/// the thing itself.
///
/// # Errors
/// When it is a folder, a device, or cannot be read.
pub fn standing(now: Now<'_>, path: &NodePath, through_link: bool) -> Result<Standing, Problem> {
    let tree = now.tree;
    let real = if through_link { tree.real(path) } else { tree.real_parent(path) };
    let Some(real) = real else { return Err(cannot(path, "it lies behind a loop of symbolic links")) };
    if let Some(above) = blocked(tree, &real) {
        return Err(cannot(&above, "a file stands where a folder is needed"));
    }
    let Some(entry) = tree.entry(&real) else { return Err(cannot(path, "it was not read; this is a defect of nodeprep")) };
    let (meta, bytes) = match entry {
        Entry::Absent => return Ok(Standing::Absent),
        Entry::Dir { .. } => return Err(cannot(path, "a folder stands there")),
        Entry::Unreadable(why) => return Err(cannot(path, why)),
        Entry::File { bytes, meta } => (meta.clone(), Some(bytes.clone())),
        Entry::Link { meta, .. } => (meta.clone(), tree.bytes(path).map(Arc::from)),
    };
    let Some(expect) = Expect::of(entry) else { return Err(cannot(path, "it cannot be read")) };
    let ledger = now.ledger;
    let is_file = matches!(entry, Entry::File { .. });
    if let (Some(bytes), true) = (&bytes, is_file) {
        let stamp = ledger.stamp(bytes, meta.mode);
        let same = |stamp_then: &Stamp| match (stamp_then, &stamp) {
            // a changed mode is put right without being called drift
            (Stamp::File { digest: then, .. }, Stamp::File { digest, .. }) => then == digest,
            _ => false,
        };
        let open = ledger.open.as_ref();
        let after = open.and_then(|open| open.after.get(path)).is_some_and(same);
        let before = open.and_then(|open| open.before.get(path)).is_some_and(|before| match (before, &expect) {
            (Prior::File { blob, .. }, Expect::File(digest)) => blob == digest,
            _ => false,
        });
        if let Some(owned) = ledger.owned.get(path) {
            let bytes = bytes.clone();
            let between = open.and_then(|open| open.between.get(path)).is_some_and(|stamps| stamps.iter().any(same));
            let ours = same(&owned.now) || after || before || between;
            return Ok(if ours { Standing::Ours { expect, meta, bytes } } else { Standing::Drifted { expect, meta, bytes } });
        }
        let head = bytes.get(..200.min(bytes.len())).unwrap_or_default();
        if !through_link && String::from_utf8_lossy(head).lines().next().is_some_and(|line| line.contains(HEADER)) {
            return Ok(Standing::Ours { expect, meta, bytes: bytes.clone() });
        }
    }
    Ok(Standing::Foreign { expect, entry: entry.clone(), meta, bytes })
}

/// The file that stands where a folder above `real` is needed.
fn blocked(tree: &Tree, real: &NodePath) -> Option<NodePath> {
    let mut above = real.parent()?;
    loop {
        match tree.entry(&above) {
            Some(Entry::File { .. }) => return Some(above),
            Some(Entry::Dir { .. }) => return None,
            _ => above = above.parent()?,
        }
    }
}

/// The entry of a path that a run leaves as it is. After a run that was cut off the ledger may speak of what that run never came
/// to write: the entry gets the stamp of what stands there. `None` when it is not ours, because nothing has come of it.
pub fn left_alone(now: Now<'_>, path: &NodePath, owned: &Arc<Owned>) -> Option<Arc<Owned>> {
    let Some(open) = &now.ledger.open else { return Some(Arc::clone(owned)) };
    match standing(now, path, owned.format.is_some()) {
        Ok(Standing::Absent) if owned.origin == Prior::Absent && open.before.get(path) == Some(&Prior::Absent) => None,
        Ok(Standing::Ours { bytes, .. }) if matches!(&owned.origin, Prior::File { blob, .. } if *blob == Digest::of(&bytes)) => None,
        Ok(Standing::Foreign { entry: Entry::Link { to, .. }, .. }) if matches!(&owned.origin, Prior::Link { to: then, .. } if *then == to) => {
            None
        }
        Ok(Standing::Ours { bytes, meta, .. }) => Some(Arc::new(Owned { now: now.ledger.stamp(&bytes, meta.mode), ..(**owned).clone() })),
        _ => Some(Arc::clone(owned)),
    }
}

/// The same for each of these that is ours.
pub(super) fn all_left_alone(now: Now<'_>, paths: &BTreeSet<NodePath>) -> Vec<(NodePath, Arc<Owned>)> {
    let ours = paths.iter().filter_map(|path| now.ledger.owned.get_key_value(path));
    ours.filter_map(|(path, owned)| Some((path.clone(), left_alone(now, path, owned)?))).collect()
}

pub(super) fn cannot(path: &NodePath, why: &str) -> Problem {
    Problem::error("path-unusable", format!("{path} cannot be used: {why}"), format!("look at {path} on the node and remove or repair it"))
        .at(Place::file(path.as_str()))
}
