//! One path of the ledger → the step that undoes our part in it. Pure.

use std::sync::Arc;

use super::build::Now;
use super::owned::{Standing, standing};
use super::{Act, Expect, Plan, Step};
use crate::desired::Target;
use crate::format::KeyFormat;
use crate::ledger::{Owned, Prior};
use crate::model::content::Content;
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::{Entry, Meta};

/// Plans the way back for everything of `target` that `keep` does not hold on to: what we made goes, what was there before
/// returns. Files that someone has changed since lose only our keys, or stay with a warning. `keep` is asked in order.
pub fn give_back(plan: &mut Plan, now: Now<'_>, target: &Target, mut keep: impl FnMut(&NodePath) -> bool) {
    for (path, owned) in now.ledger.owned.iter().filter(|(path, owned)| &owned.target == target && !keep(path)) {
        match way_back(path, owned, now) {
            // what a trust store's command must not see any more goes before it runs
            Ok(Some(step)) if matches!(step.act, Act::Remove) && *target != Target::Trust => plan.retire.push(step),
            Ok(Some(step)) => plan.switch.push(step),
            Ok(None) => {}
            Err(problem) => {
                plan.notes.push(problem);
                plan.owned.insert(path.clone(), Arc::clone(owned));
            }
        }
    }
}

/// The step that undoes our part in `path`; `None` when nothing of ours is there any more.
///
/// # Errors
/// When somebody has changed a whole file of ours, or our keys cannot be told from theirs.
pub fn way_back(path: &NodePath, owned: &Owned, now: Now<'_>) -> Result<Option<Step>, Problem> {
    let through_link = owned.format.is_some();
    let place = standing(now, path, through_link)?;
    let why = "the spec no longer asks for it".to_owned();
    let step =
        |expect: Expect, act: Act| Ok(Some(Step { target: owned.target.clone(), path: path.clone(), expect, act, why: why.clone() }));
    let put = |bytes: Vec<u8>, meta: &Meta, expect: Expect| {
        let act = Act::PutFile { content: guarded(bytes), meta: meta.clone(), through_link, stage: stage_of(path) };
        step(expect, act)
    };
    match place {
        Standing::Absent => match &owned.origin {
            Prior::Absent => Ok(None),
            // somebody removed our file: what was there before it is still theirs to have back
            Prior::File { blob, meta } => put(blob_bytes(now, path, blob)?, meta, Expect::Absent),
            Prior::Link { to, meta } => step(Expect::Absent, Act::PutLink { to: to.clone(), meta: meta.clone() }),
        },
        Standing::Ours { expect, meta, bytes } if !owned.shared => match &owned.origin {
            Prior::Absent => step(expect, Act::Remove),
            Prior::File { blob, meta: before } => {
                let old = match (blob_bytes(now, path, blob), owned.format) {
                    (Ok(old), _) => old,
                    // the copy is gone, but our keys can be told from theirs
                    (Err(_), Some(format)) => without_keys(path, owned, format, &bytes)?.into_bytes(),
                    (Err(problem), None) => return Err(problem),
                };
                if bytes.as_ref() == old && meta.mode == before.mode {
                    return Ok(None);
                }
                put(old, before, expect)
            }
            Prior::Link { to, meta } => step(expect, Act::PutLink { to: to.clone(), meta: meta.clone() }),
        },
        // somebody has put back by hand what was there before
        Standing::Drifted { bytes, .. } if owned.origin.is(&bytes) => Ok(None),
        Standing::Ours { expect, meta, bytes } | Standing::Drifted { expect, meta, bytes } => match owned.format {
            Some(format) => match without_keys(path, owned, format, &bytes)? {
                undone if undone.as_bytes() == bytes.as_ref() => Ok(None),
                undone => put(undone.into_bytes(), &meta, expect),
            },
            None => Err(changed_since(path)),
        },
        // a link: it is what was there before, or somebody has put it in the place of ours
        Standing::Foreign { entry, .. } => match (&entry, &owned.origin) {
            (Entry::Link { to, .. }, Prior::Link { to: before, .. }) if to == before => Ok(None),
            _ => Err(changed_since(path)),
        },
    }
}

/// The content of a file that is partly ours, with our keys taken out.
fn without_keys(path: &NodePath, owned: &Owned, format: KeyFormat, bytes: &[u8]) -> Result<String, Problem> {
    crate::format::undo(format, &String::from_utf8_lossy(bytes), &owned.keys).map_err(|why| {
        Problem::error(
            "keys-not-undone",
            format!("our keys in {path} cannot be taken out again: {why}"),
            format!("repair {path} and run again{}", kept_copy(owned)),
        )
    })
}

/// Where what was there before can be looked up.
fn kept_copy(owned: &Owned) -> String {
    match &owned.origin {
        Prior::File { blob, .. } => format!("; what was there before nodeprep is kept as /var/lib/nodeprep/blobs/{blob}"),
        Prior::Absent | Prior::Link { .. } => String::new(),
    }
}

fn changed_since(path: &NodePath) -> Problem {
    Problem::warning(
        "changed-since",
        format!("{path} has been changed since nodeprep wrote it, so it is neither removed nor replaced"),
        format!("move {path} away, with what is needed of it, and run again"),
    )
}

fn blob_bytes(now: Now<'_>, path: &NodePath, blob: &Digest) -> Result<Vec<u8>, Problem> {
    now.blobs.get(blob).cloned().ok_or_else(|| {
        Problem::error(
            "blob-missing",
            format!("what was at {path} before nodeprep is no longer in /var/lib/nodeprep/blobs ({blob})"),
            format!("restore {path} from your own backup, or move it away, and run again"),
        )
    })
}

/// Whatever comes out of a blob or a foreign file may hold secrets that we do not know by value.
fn guarded(bytes: Vec<u8>) -> Content {
    Content::public(bytes)
}

/// Where the temporary file of a step back may stand: two folders up, which no runtime or trust tool scans for any path
/// that we own.
fn stage_of(path: &NodePath) -> NodePath {
    let folder = path.parent().unwrap_or_else(NodePath::root);
    folder.parent().filter(|above| *above != NodePath::root()).unwrap_or(folder).join(".nodeprep-stage")
}
