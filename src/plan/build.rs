//! Desired + Tree + Ledger → the steps of a [`Plan`]. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::give_back::give_back;
use super::owned::{Standing, all_left_alone, cannot as cannot_use, standing};
use super::{Act, Expect, Plan, Step, prior};
pub use crate::desired::Foreign;
use crate::desired::{Keys, Part, Refusal, Target, Want, Whole};
use crate::format::{KeyEdit, KeyFormat};
use crate::ledger::{Ledger, Owned, Prior, Stamp};
use crate::model::digest::Digest;
use crate::model::order::{self, Gather as _};
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::{Entry, Found, Meta, Tree};

/// What the planner looks at besides the desired parts.
#[derive(Clone, Copy, Debug)]
pub struct Now<'a> {
    /// The node's files.
    pub tree: &'a Tree,
    /// What is ours.
    pub ledger: &'a Ledger,
    /// Content of the ledger's blobs, for what is put back.
    pub blobs: &'a BTreeMap<Digest, Vec<u8>>,
    /// What to do with foreign files.
    pub foreign: Foreign,
    /// Whether the node is the running system: only there do processes say what they have seen.
    pub live: bool,
}

/// How much work a plan is for a runtime's configuration: content that others refer to comes first, what refers to it last.
fn rank(path: &NodePath) -> u8 {
    match path.name() {
        "config.toml" => 2,
        "zz-nodeprep.conf" => 1,
        _ => 0,
    }
}

/// Adds the steps of one part to `plan`. `same_meaning` tells whether a foreign file may be replaced in silence because it
/// says the same; it gets the path, the foreign bytes and ours.
///
/// # Errors
/// When a foreign or unreadable file is in the way: the part is then left untouched, and `plan` is as it was.
pub fn add_part(plan: &mut Plan, part: &Part, now: Now<'_>, same_meaning: impl Fn(&NodePath, &[u8], &[u8]) -> bool) -> Result<(), Refusal> {
    let mut cannot = Vec::new();
    let mut conflicts = Vec::new();
    let mut steps: Vec<(u8, Step)> = Vec::new();
    let (mut early, mut late) = (Vec::new(), Vec::new());
    let mut owned = all_left_alone(now, &part.left);
    let mut notes = Vec::new();
    let mut units: BTreeMap<NodePath, Vec<Step>> = BTreeMap::new();

    let (mut ours, mut there) = (in_order(now.ledger.owned.iter()), in_order(now.tree.iter()));
    for (path, want) in &part.wants {
        if let Some(known) = as_left(now, path, want, &part.target, (ours(path), there(path))) {
            owned.push((path.clone(), known));
            continue;
        }
        let place = match standing(now, path, matches!(want, Want::Keys(_))) {
            Ok(place) => place,
            Err(problem) => {
                if !cannot.contains(&problem) {
                    cannot.push(problem);
                }
                continue;
            }
        };
        match want {
            Want::Whole(whole) => {
                let mut before = owned_or_new(now, path, &part.target, &place);
                if !now.ledger.owned.contains_key(path) && is_left_behind(path, whole, &place) {
                    // the ledger is gone: what was there before is not known, but this came from us
                    before.origin = Prior::Absent;
                    plan.dirs.extend(whole.unit.as_ref().and_then(|unit| now.tree.real(unit)));
                }
                if place.holds(&whole.content.bytes, whole.mode) {
                    owned.push((path.clone(), Arc::new(stamped(now, before, &place))));
                    continue;
                }
                if let Standing::Foreign { bytes, .. } = &place
                    && now.foreign == Foreign::Refuse
                    && !bytes.as_deref().is_some_and(|bytes| same_meaning(path, bytes, &whole.content.bytes))
                {
                    conflicts.push(in_the_way(path, bytes.is_none()));
                    continue;
                }
                if let Some(unit) = whole.unit.as_ref().filter(|unit| is_dangling(now.tree, unit)) {
                    cannot.push(cannot_use(unit, "it is a symbolic link that leads nowhere"));
                    continue;
                }
                if let Standing::Drifted { .. } = &place {
                    notes.push(drifted(path));
                }
                let step = whole_step(&part.target, path, whole, &place);
                owned.push((path.clone(), Arc::new(before)));
                match &whole.unit {
                    _ if whole.addressed => early.push(step),
                    Some(unit) if is_absent(now.tree, unit) => units.entry(unit.clone()).or_default().push(step),
                    _ => steps.push((rank(path), step)),
                }
            }
            Want::Keys(keys) => {
                let (step, entry) = match keys_step(&part.target, path, keys, now, &place) {
                    Ok(both) => both,
                    Err(problem) => {
                        conflicts.push(problem);
                        continue;
                    }
                };
                owned.push((path.clone(), Arc::new(entry)));
                steps.extend(step.map(|step| (rank(path), step)));
            }
            Want::Gone(why) => {
                if matches!(place, Standing::Absent) {
                    owned.extend(now.ledger.owned.get(path).map(|known| (path.clone(), known.clone())));
                    continue;
                }
                if let Standing::Drifted { .. } = &place {
                    notes.push(drifted(path));
                }
                owned.push((path.clone(), owned_or_new(now, path, &part.target, &place).into()));
                late.push(Step {
                    target: part.target.clone(),
                    path: path.clone(),
                    expect: place.expect(),
                    act: Act::Remove,
                    why: why.clone(),
                });
            }
        }
    }
    if !conflicts.is_empty() {
        return Err(Refusal::Conflict(conflicts));
    }
    if !cannot.is_empty() {
        return Err(Refusal::Cannot(cannot));
    }
    steps.extend(units.into_iter().map(|(unit, files)| (0, folder_step(&part.target, unit, files))));
    order::sort_by(&mut steps, |(a, one), (b, two)| (a, &one.path).cmp(&(b, &two.path)));
    plan.stage.append(&mut early);
    plan.switch.extend(steps.into_iter().map(|(_, step)| step));
    plan.retire.append(&mut late);
    plan.owned.append(&mut owned.into_iter().collect());
    plan.notes.append(&mut notes);
    let mut wanted = in_order(part.wants.iter());
    give_back(plan, now, &part.target, |path| wanted(path).is_some() || part.left.contains(path));
    Ok(())
}

/// Whether an earlier nodeprep left this: our header, or our name and this very content.
fn is_left_behind(path: &NodePath, whole: &Whole, place: &Standing) -> bool {
    let is_our_name = path.name().starts_with("nodeprep-") || path.as_str().starts_with("/etc/nodeprep/pki/");
    matches!(place, Standing::Ours { .. }) || is_our_name && place.holds(&whole.content.bytes, whole.mode)
}

/// A link whose target is missing: a folder made behind it would stand there empty for a moment, which already decides.
fn is_dangling(tree: &Tree, folder: &NodePath) -> bool {
    is_absent(tree, folder) && tree.real_parent(folder).is_some_and(|real| matches!(tree.entry(&real), Some(Entry::Link { .. })))
}

fn is_absent(tree: &Tree, folder: &NodePath) -> bool {
    matches!(tree.find(folder), Found::Absent)
}

fn whole_step(target: &Target, path: &NodePath, whole: &Whole, place: &Standing) -> Step {
    let meta = match place.meta() {
        // whoever owned the file before must not come to own our secrets
        Some(meta) if !whole.content.secrets.is_empty() => Meta { mode: whole.mode, uid: 0, gid: 0, ..meta.clone() },
        Some(meta) => Meta { mode: whole.mode, ..meta.clone() },
        None => Meta::new(whole.mode),
    };
    Step {
        target: target.clone(),
        path: path.clone(),
        expect: place.expect(),
        act: Act::PutFile { content: whole.content.clone(), meta, through_link: false, stage: whole.stage.clone() },
        why: whole.why.clone(),
    }
}

/// A folder that is not there yet appears as a whole: an empty one would already shadow `_default` (vector T23).
fn folder_step(target: &Target, unit: NodePath, files: Vec<Step>) -> Step {
    let mut why = String::new();
    let mut stage = unit.clone();
    let mut content = BTreeMap::new();
    for step in files {
        if let Act::PutFile { content: bytes, meta, stage: folder, .. } = step.act {
            why = step.why;
            stage = folder;
            content.insert(step.path.name().to_owned(), (bytes, meta.mode));
        }
    }
    Step { target: target.clone(), path: unit, expect: Expect::Absent, act: Act::PutDir { files: content, stage }, why }
}

/// The ledger's entry for a path that is ours already and holds exactly what is wanted: nothing else has to be known of it
/// then, so no digest is made. After a run that was cut off the ledger may speak of what was never written: it is looked at
/// closely then. `owned` and `entry` are what the ledger and the tree have at exactly this path.
fn as_left(
    now: Now<'_>,
    path: &NodePath,
    want: &Want,
    target: &Target,
    (owned, entry): (Option<&Arc<Owned>>, Option<&Entry>),
) -> Option<Arc<Owned>> {
    let (Want::Whole(whole), None, Some(owned)) = (want, &now.ledger.open, owned) else { return None };
    let real = now.tree.real_parent(path)?;
    let Some(Entry::File { bytes, meta }) = (if real == *path { entry } else { now.tree.entry(&real) }) else { return None };
    (meta.mode == whole.mode && bytes.as_ref() == whole.content.bytes)
        .then(|| if owned.target == *target { Arc::clone(owned) } else { Arc::new(Owned { target: target.clone(), ..(**owned).clone() }) })
}

/// Finds what there is at a path, of things in order of their paths: each path that is asked for comes after the last one. For a
/// thousand that costs a fraction of as many look-ups.
pub(super) fn in_order<'a, T>(things: impl Iterator<Item = (&'a NodePath, T)>) -> impl FnMut(&NodePath) -> Option<T> {
    let mut things = things.peekable();
    move |path| {
        while things.next_if(|(at, _)| *at < path).is_some() {}
        things.next_if(|(at, _)| *at == path).map(|(_, thing)| thing)
    }
}

/// The ledger's entry for a path: what was there at first contact is recorded once.
fn owned_or_new(now: Now<'_>, path: &NodePath, target: &Target, place: &Standing) -> Owned {
    if let Some(owned) = now.ledger.owned.get(path) {
        return Owned { target: target.clone(), ..(**owned).clone() };
    }
    let origin = match place {
        // our header, but no ledger: written by a nodeprep whose ledger is gone; what was before it is not known
        Standing::Ours { .. } | Standing::Drifted { .. } | Standing::Absent => Prior::Absent,
        Standing::Foreign { entry, .. } => prior(entry).unwrap_or(Prior::Absent),
    };
    Owned { target: target.clone(), now: Stamp::Absent, origin, keys: Vec::new(), format: None, shared: false }
}

/// The entry of a path that is as it should be. What stands there is what we left, even where the ledger says something else:
/// a run that was cut off wrote ahead what it never came to do, or somebody else has put the content there.
fn stamped(now: Now<'_>, entry: Owned, place: &Standing) -> Owned {
    let differs = now.ledger.open.is_some() || matches!(place, Standing::Drifted { .. });
    match place.bytes().zip(place.meta()) {
        Some((bytes, meta)) if differs => Owned { now: now.ledger.stamp(bytes, meta.mode), ..entry },
        _ => entry,
    }
}

fn keys_step(target: &Target, path: &NodePath, keys: &Keys, now: Now<'_>, place: &Standing) -> Result<(Option<Step>, Owned), Problem> {
    let mut entry = owned_or_new(now, path, target, place);
    if !now.ledger.owned.contains_key(path)
        && let Some((bytes, meta)) = place.bytes().zip(place.meta())
    {
        entry.origin = Prior::File { blob: Digest::of(bytes), meta: meta.clone() };
    }
    entry.shared |= matches!(place, Standing::Drifted { bytes, .. } if !entry.origin.is(bytes)) && now.ledger.owned.contains_key(path);
    // what the room has undone itself is among its edits
    let undone = |key: &Vec<String>| keys.edits.iter().any(|edit| &edit.key == key);
    let unwanted: Vec<KeyEdit> = entry.keys.iter().filter(|edit| !keys.wanted.contains(&edit.key) && !undone(&edit.key)).cloned().collect();
    let mut content = keys.content.clone();
    if !unwanted.is_empty() {
        let text = String::from_utf8_lossy(&content.bytes);
        let undone = crate::format::undo(keys.format, &text, &unwanted).map_err(|why| {
            Problem::error("keys-not-undone", format!("keys of ours in {path} cannot be taken out: {why}"), "take them out by hand")
        })?;
        content.bytes = undone.into_bytes();
    }
    merge(&mut entry.keys, &keys.edits);
    entry.keys.retain(|edit| keys.wanted.contains(&edit.key));
    entry.format = Some(keys.format);
    if keys.edits.is_empty() && (unwanted.is_empty() || place.bytes() == Some(&content.bytes)) {
        // all there already, by whoever's hand: only what we wrote is ours
        return Ok((None, stamped(now, entry, place)));
    }
    let meta = place.meta().cloned().unwrap_or_else(|| Meta::new(keys.mode));
    let meta = if content.secrets.is_empty() { meta } else { Meta { mode: meta.mode & 0o600, ..meta } };
    let act = Act::PutFile { content, meta, through_link: true, stage: keys.stage.clone() };
    let step = Step { target: target.clone(), path: path.clone(), expect: place.expect(), act, why: keys.why.clone() };
    Ok((Some(step), entry))
}

/// The value before the first edit of a key is the one to go back to.
fn merge(keys: &mut Vec<KeyEdit>, edits: &[KeyEdit]) {
    for edit in edits {
        match keys.iter().position(|known| known.key == edit.key) {
            Some(at) => {
                keys[at].to.clone_from(&edit.to);
                // what a run that was cut off may have left there is overwritten
                let mut index = 0;
                keys.retain(|known| {
                    index += 1;
                    index - 1 <= at || known.key != edit.key
                });
            }
            None => keys.push(edit.clone()),
        }
    }
}

/// The code of a file of somebody else's in the place of ours.
pub(super) const FOREIGN_FILE: &str = "foreign-file";

fn in_the_way(path: &NodePath, is_link: bool) -> Problem {
    let what = if is_link { "a symbolic link" } else { "a file" };
    Problem::error(
        FOREIGN_FILE,
        format!("{path} is {what} that nodeprep did not write, and it says something else than the spec"),
        "move what is needed of it into the spec and remove it, or let nodeprep take over what it can (--foreign=carry) or replace it (--foreign=replace); the ledger keeps it for revert",
    )
    .at(crate::model::place::Place::file(path.as_str()))
}

fn drifted(path: &NodePath) -> Problem {
    Problem::warning(
        "drift",
        format!("{path} has been changed by someone else since nodeprep wrote it; the spec's content is put back"),
        "change the spec instead of the file",
    )
}

/// The tree as it will be when the steps of these wants are done.
#[must_use]
pub fn overlay(tree: &Tree, wants: &BTreeMap<NodePath, Want>) -> Tree {
    let mut after = tree.clone();
    for (path, want) in wants {
        match want {
            Want::Whole(whole) => after.put(path, whole.content.bytes.as_slice(), whole.mode),
            Want::Keys(keys) => {
                let real = after.real(path).unwrap_or_else(|| path.clone());
                after.put(&real, keys.content.bytes.as_slice(), keys.mode);
            }
            Want::Gone(_) => after.remove(path),
        }
    }
    after
}

/// The tree as it will be after a plan: puts and removals.
#[must_use]
pub fn overlay_plan(tree: &Tree, plan: &Plan) -> Tree {
    let mut after = tree.clone();
    for step in plan.stage.iter().chain(&plan.switch).chain(&plan.retire) {
        match &step.act {
            Act::PutFile { content, meta, through_link, .. } => {
                let real = if *through_link { after.real(&step.path) } else { None };
                after.put(&real.unwrap_or_else(|| step.path.clone()), content.bytes.as_slice(), meta.mode);
            }
            Act::PutDir { files, .. } => {
                for (name, (content, mode)) in files {
                    after.put(&step.path.join(name), content.bytes.as_slice(), *mode);
                }
            }
            Act::PutLink { to, meta } => {
                after.remove(&step.path);
                after.insert(step.path.clone(), Entry::Link { to: to.clone(), meta: meta.clone() });
            }
            Act::Remove => after.remove(&step.path),
        }
    }
    // a registry's folder that holds nothing any more goes with its last file
    for folder in plan.retire.iter().filter_map(|step| step.path.parent()).gathered::<BTreeSet<_>>() {
        if after.names(&folder).is_empty() && plan.dirs.contains(&folder) {
            after.remove(&folder);
        }
    }
    after
}

impl KeyFormat {
    /// The name in messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "TOML",
            Self::Json => "JSON",
            Self::Registries => "registries.conf",
        }
    }
}
