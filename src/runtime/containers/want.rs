//! What the family needs to be true to a spec: [`Part`]s for [`Target::Containers`] and [`Target::Crio`].

use std::collections::{BTreeMap, BTreeSet};

use super::conflicts::{self, Against};
use super::entries::{Entries, entries, entries_over};
use super::{carry, files, give_way, legacy, logins};
use crate::desired::{Foreign, Keys, Part, Refusal, Target, Want, Whole};
use crate::format::registries_conf::{DROP_IN, render};
use crate::format::{KeyEdit, KeyFormat, auth_json, certs_d, crio_conf};
use crate::ledger::{Owned, Owns, Prior};
use crate::model::content::Content;
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::{Found, Tree};
use crate::plan::pause::kept_back;
use crate::runtime::{FoundRuntime, Runtime};
use crate::spec::adopt::Adopted;
use crate::spec::{Pause, Spec};

/// What the family should hold, when nothing on the node is ours yet; see [`want_knowing`].
#[must_use]
pub fn want(spec: &Spec, found: &[&FoundRuntime], tree: &Tree) -> Vec<Part> {
    want_knowing(spec, found, tree, Known { owned: &Owns::new(), adopted: None, foreign: Foreign::Refuse })
}

/// What is known of an earlier run, and what may be done with what others have written.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// What the ledger owns, by which what we wrote earlier is told from what others did.
    pub owned: &'a Owns,
    /// What was carried over then.
    pub adopted: Option<&'a Adopted>,
    /// What is done with what others have written.
    pub foreign: Foreign,
}

/// What the family should hold. `found`: the CRI-O and Podman on the node that are to be configured; none of them, no parts.
/// Entries of an auth file that we wrote earlier and that are no longer wanted are among the edits, taken back.
#[must_use]
pub fn want_knowing(spec: &Spec, found: &[&FoundRuntime], tree: &Tree, known: Known<'_>) -> Vec<Part> {
    let found: Vec<&FoundRuntime> = found.iter().copied().filter(|on| on.runtime != Runtime::Containerd).collect();
    if found.is_empty() {
        return Vec::new();
    }
    let mut parts = vec![containers(spec, &found, tree, known)];
    if let Some(pause) = &spec.pause
        && let Some(on) = found.iter().find(|on| on.runtime == Runtime::Crio)
    {
        parts.push(crio(pause, on, tree));
    }
    parts
}

fn containers(spec: &Spec, found: &[&FoundRuntime], tree: &Tree, known: Known<'_>) -> Part {
    let mut part = Part::new(Target::Containers);
    let owned = known.owned;
    let counts = match carry::carried(spec, found, tree, known, &mut part) {
        Ok(counts) => counts,
        Err(problems) => return part.refuse(Refusal::Conflict(problems)),
    };
    let spec = &counts;
    let places: Vec<_> = found.iter().map(|on| files::places(tree, on)).collect();
    let mut legacy = legacy::found(tree, &places, owned);
    let entries = entries_over(spec, &give_way::longer(spec, found, tree, known, &entries(spec)), &legacy.prefixes());
    part.notes.extend(entries.notes.iter().cloned());
    let mut against = Against { cannot: entries.cannot.clone(), ..Against::default() };
    let dirs: BTreeSet<&NodePath> = places.iter().filter_map(|places| places.dirs.first()).gathered();
    // a reader that refuses version 1 pulls nothing with it, whatever the spec says
    if !entries.registries.is_empty() || entries.search.is_some() || places.iter().any(|places| places.only_2) {
        part.notes.append(&mut legacy.notes);
        if let Some((was, note)) = legacy.unread(tree, &places) {
            part.was = Some(was);
            part.notes.push(note);
        }
        legacy.replaced(&entries, &mut part.notes);
        part.wants.extend(std::mem::take(&mut legacy.keys).into_iter().map(|(main, keys)| (main, Want::Keys(keys))));
    }
    if !entries.registries.is_empty() || entries.search.is_some() {
        for dir in dirs {
            let why = "registries.conf drop-in: what is pulled from where".to_owned();
            part.wants.insert(
                dir.join(DROP_IN),
                whole(Content::public(render(entries.search.as_deref(), &entries.registries)), 0o644, None, stage(dir), why),
            );
        }
    }
    for host in &entries.reached {
        part.wants.extend(certs(spec, host));
        if spec.access(host).client.is_some() {
            let what = format!("rootless users cannot pull from {host}: the key of its client certificate is for root only");
            let help = "give such users a client certificate of their own in ~/.config/containers/certs.d";
            part.notes.push(Problem::note("rootless-client-key", what, help));
        }
    }
    against.conflict.extend(legacy.opened(&entries));
    give_way::stay_gone(&mut part, spec, tree, owned, &entries);
    let mut after = overlay(tree, &part, owned);
    for (on, places) in found.iter().zip(&places) {
        let wanted = part.wants.len();
        give_way::certs(&mut part, spec, tree, &after, on, &entries.reached, known);
        if known.foreign != Foreign::Refuse {
            give_way::behind(&mut part, spec, &after, places, &entries, known);
        }
        if part.wants.len() != wanted {
            after = overlay(tree, &part, owned);
        }
    }
    for (on, places) in found.iter().zip(&places) {
        part.notes.extend(conflicts::search(tree, places, &entries).filter(|note| !part.notes.contains(note)));
        conflicts::registries(&mut against, tree, &after, places, &entries, &legacy, known);
        conflicts::certs(&mut against, spec, tree, &after, on, &entries.reached, known.foreign);
    }
    auth(spec, found, tree, known, &entries, &mut part, &mut against);
    for (problems, refusal) in [
        (against.cannot, Refusal::Cannot as fn(Vec<Problem>) -> Refusal),
        (against.conflict, Refusal::Conflict as fn(Vec<Problem>) -> Refusal),
    ] {
        if !problems.is_empty() {
            return part.refuse(refusal(problems));
        }
    }
    part
}

/// The folder for temporary files beside a folder that is scanned: never in it (rule 20 of `runtime-semantics.md` 8.4).
pub(super) fn stage(scanned: &NodePath) -> NodePath {
    scanned.parent().unwrap_or_else(NodePath::root).join(".nodeprep-stage")
}

fn whole(content: Content, mode: u32, unit: Option<NodePath>, stage: NodePath, why: String) -> Want {
    Want::Whole(Whole { content, mode, addressed: false, unit, stage, why })
}

/// The folder of certs.d for a host that is asked.
fn certs(spec: &Spec, host: &Host) -> Vec<(NodePath, Want)> {
    certs_in(spec, host, &certs_d::folder(host))
}

/// The same in another folder, where that is the one that counts.
pub(super) fn certs_in(spec: &Spec, host: &Host, folder: &NodePath) -> Vec<(NodePath, Want)> {
    let access = spec.access(host);
    if access.scheme == crate::model::endpoint::Scheme::Http {
        return Vec::new();
    }
    let ca = if access.insecure { &[] } else { &*access.ca };
    let client = access.client.as_ref().map(|client| (&*client.certs, &client.key));
    let stage = folder.parent().and_then(|root| root.parent()).unwrap_or_else(NodePath::root).join(".nodeprep-stage");
    let file = |(name, (content, mode)): (String, _)| {
        let why = format!("certificates for {host}");
        (folder.join(&name), whole(content, mode, Some(folder.clone()), stage.clone(), why))
    };
    certs_d::render(ca, client).into_iter().map(file).collect()
}

/// The tree as it would be: what is ours and no longer wanted is gone, and so is a folder that holds nothing else.
pub(super) fn overlay(tree: &Tree, part: &Part, owned: &Owns) -> Tree {
    let mut after = tree.clone();
    let ours = owned
        .iter()
        .filter(|(path, owned)| owned.target == Target::Containers && owned.format.is_none() && !part.wants.contains_key(*path));
    for (path, owned) in ours {
        after.remove(path);
        let folder = path.parent().filter(|folder| owned.origin == Prior::Absent && after.names(folder).is_empty());
        if let Some(folder) = folder {
            after.remove(&folder);
        }
    }
    for (path, want) in &part.wants {
        match want {
            Want::Whole(whole) => after.put(path, whole.content.bytes.clone(), whole.mode),
            Want::Gone(_) => after.remove(path),
            Want::Keys(keys) => {
                let real = after.real(path).unwrap_or_else(|| path.clone());
                after.put(&real, keys.content.bytes.clone(), keys.mode);
            }
        }
    }
    after
}

/// Logins go into the auth file that is consulted already, entry by entry.
fn auth(spec: &Spec, found: &[&FoundRuntime], tree: &Tree, known: Known<'_>, entries: &Entries, part: &mut Part, against: &mut Against) {
    let owned = known.owned;
    let logins: BTreeMap<&Host, &crate::spec::Login> =
        entries.reached.iter().filter_map(|host| Some((host, spec.access(host).login.as_ref()?))).gathered();
    let replaces = known.foreign == Foreign::Replace;
    let mut files: BTreeSet<NodePath> = found.iter().map(|on| logins::ours(tree, on)).filter(|_| !logins.is_empty() || replaces).gathered();
    let json = |owned: &Owned| owned.target == Target::Containers && owned.format == Some(KeyFormat::Json);
    files.extend(owned.iter().filter(|(_, owned)| json(owned)).map(|(path, _)| path.clone()));
    for file in files {
        let text = match tree.find(&file) {
            Found::File(bytes, _) => String::from_utf8_lossy(bytes).into_owned(),
            Found::Absent | Found::Unread => String::new(),
            Found::Dir | Found::Unreadable(_) => {
                let what = format!("the auth file {file} cannot be read");
                against.conflict.push(Problem::error("auth-file", what, format!("make {file} a readable file or remove it")));
                continue;
            }
        };
        let wanted_here = found.iter().any(|on| logins::ours(tree, on) == file);
        let wanted = if wanted_here { logins.clone() } else { BTreeMap::new() };
        let keys = owned.get(&file).map(|owned| owned.keys.as_slice()).unwrap_or_default();
        let none = if wanted_here { entries.reached.iter().filter(|host| !logins.contains_key(host)).gathered() } else { BTreeSet::new() };
        match edit(&file, &text, &wanted, &none, keys, known.foreign) {
            Ok(keys) => {
                if !text.is_empty() || !keys.edits.is_empty() {
                    part.wants.insert(file, Want::Keys(keys));
                }
            }
            Err(problem) => against.conflict.push(*problem),
        }
    }
    shadowed(found, tree, &logins, against);
    unasked(found, tree, entries, &logins, known, against);
}

/// Logins of others for hosts that are asked, and for which the spec gives none: they would go on being sent.
fn unasked(
    found: &[&FoundRuntime],
    tree: &Tree,
    entries: &Entries,
    logins: &BTreeMap<&Host, &crate::spec::Login>,
    known: Known<'_>,
    against: &mut Against,
) {
    for on in found {
        let (ours, all) = (logins::ours(tree, on), logins::Logins::read(tree, &logins::consulted(tree, on)));
        for host in entries.reached.iter().filter(|host| !logins.contains_key(host)) {
            let Ok(Some((file, login))) = all.find(host, "") else { continue };
            let is_ours = |edit: &KeyEdit| edit.key.len() == 2 && edit.key.last().is_some_and(|key| key == host.as_str());
            let exact = auth_json::parse(&tree.text(file).unwrap_or_default()).is_ok_and(|auths| auths.entry(host.as_str()).is_some());
            let goes = *file == ours && exact && matches!(login, auth_json::Login::Basic(_));
            if known.owned.get(file).is_some_and(|owned| owned.keys.iter().any(is_ours)) || goes && known.foreign == Foreign::Replace {
                continue;
            }
            let what = format!("{file} has a login for {host}, and the spec gives none: it would go on being sent");
            let logout = format!("podman logout --authfile {file} {host}");
            let help = if goes {
                format!(
                    "give the spec that login, remove the entry ({logout}), or let nodeprep take it over (--foreign=carry) or remove it (--foreign=replace)"
                )
            } else {
                format!("give the spec that login, or remove the entry: {logout}")
            };
            let problem = Problem::error("foreign-login", what, help).at(Place::file(file.as_str()));
            if !against.conflict.contains(&problem) {
                against.conflict.push(problem);
            }
        }
    }
}

/// `none`: hosts that are asked without a login; an entry of somebody else's for one of them goes where it is to be replaced, and
/// stays away then.
fn edit(
    file: &NodePath,
    text: &str,
    wanted: &BTreeMap<&Host, &crate::spec::Login>,
    none: &BTreeSet<&Host>,
    keys: &[KeyEdit],
    foreign: Foreign,
) -> Result<Keys, Box<Problem>> {
    let place = || Place::file(file.as_str());
    let unusable = |error: auth_json::AuthError| {
        let what = format!("the auth file {file} {error}");
        Box::new(Problem::error("auth-file", what, format!("correct {file} or remove it")).at(place()))
    };
    let auths = auth_json::parse(text).map_err(unusable)?;
    let ours = |host: &str| keys.iter().find(|edit| edit.key.last().is_some_and(|key| key == host) && edit.key.len() == 2);
    let mut raw = BTreeMap::new();
    for (host, login) in wanted {
        match auths.entry(host.as_str()) {
            // the same login, however it is written
            Some(Some(auth_json::Login::Basic(there))) if *there == login.basic => {}
            Some(_) if ours(host.as_str()).is_none() && foreign == Foreign::Refuse => {
                let what = format!("{file} has another login for {host} than the spec");
                let help = format!(
                    "remove the entry (podman logout --authfile {file} {host}), give the spec the same login, or let nodeprep replace it (--foreign=replace; revert brings it back)"
                );
                return Err(Box::new(Problem::error("foreign-login", what, help).at(place())));
            }
            _ => {
                raw.insert(host.to_string(), auth_json::entry_for(&login.basic));
            }
        }
    }
    let mut secrets = auth_json::secrets(text);
    secrets.extend(wanted.values().flat_map(|login| auth_json::forms(&login.basic)));
    let taken = |edit: &KeyEdit| edit.to.is_none() && edit.key.last().is_some_and(|key| none.iter().any(|host| host.as_str() == key));
    let unwanted = |edit: &&KeyEdit| match edit.key.as_slice() {
        [_, host] => !taken(edit) && !wanted.keys().any(|wanted| wanted.as_str() == host),
        _ => wanted.is_empty(),
    };
    let mut edits = Vec::new();
    let mut without = text.to_owned();
    for edit in keys.iter().filter(unwanted).rev() {
        let next = auth_json::undo(&without, std::slice::from_ref(edit)).map_err(unusable)?;
        if next != without {
            let why = "no longer in the spec".to_owned();
            edits.push(KeyEdit { key: edit.key.clone(), from: edit.to.clone(), to: edit.from.clone(), why, secret: edit.secret });
            without = next;
        }
    }
    let (result, more) = auth_json::set(&without, &raw, "login for pulls, from the spec").map_err(unusable)?;
    let foreign_one = |host: &&&Host| ours(host.as_str()).is_none_or(taken) && foreign == Foreign::Replace;
    let unasked: Vec<&str> = none.iter().filter(foreign_one).map(|host| host.as_str()).collect();
    let (result, less) = auth_json::take(&result, &unasked, "the spec gives no login for it").map_err(unusable)?;
    let kept = keys.iter().filter(|edit| !unwanted(edit)).chain(&more).chain(&less);
    let wanted = kept.map(|edit| edit.key.clone()).collect();
    edits.extend(more);
    edits.extend(less);
    Ok(Keys {
        format: KeyFormat::Json,
        wanted,
        edits,
        content: Content::secret(result, secrets),
        mode: 0o600,
        stage: stage(file),
        why: "logins for the registries of the spec".to_owned(),
    })
}

/// A file that is consulted before ours and says otherwise.
fn shadowed(found: &[&FoundRuntime], tree: &Tree, logins: &BTreeMap<&Host, &crate::spec::Login>, against: &mut Against) {
    for on in found {
        let ours = logins::ours(tree, on);
        let earlier: Vec<NodePath> = logins::consulted(tree, on).into_iter().take_while(|file| *file != ours).collect();
        let earlier = logins::Logins::read(tree, &earlier);
        for (host, login) in logins {
            match earlier.find(host, "") {
                Ok(Some((file, there))) if there != auth_json::Login::Basic(login.basic.clone()) => {
                    let what = format!("{file} is read before {ours} and has another login for {host} than the spec");
                    let help = format!("remove the entry: podman logout --authfile {file} {host}");
                    let problem = Problem::error("foreign-login", what, help).at(Place::file(file.as_str()));
                    if !against.conflict.contains(&problem) {
                        against.conflict.push(problem);
                    }
                }
                Err((file, why)) => {
                    let problem =
                        Problem::error("auth-file", format!("the auth file {file} {why}"), format!("correct {file} or remove it"));
                    if !against.conflict.contains(&problem) {
                        against.conflict.push(problem);
                    }
                }
                _ => {}
            }
        }
    }
}

/// CRI-O's own configuration: the pause image.
fn crio(pause: &Pause, on: &FoundRuntime, tree: &Tree) -> Part {
    let mut part = Part::new(Target::Crio);
    let ours = crio_conf::drop_in_dir().join(crio_conf::DROP_IN);
    if let Some(problem) = kept_back(pause, Runtime::Crio) {
        part.notes.push(problem);
        // what an earlier run has written stays
        if let Found::File(bytes, _) = tree.find(&ours) {
            let content = Content::public(bytes.to_vec());
            let stage = NodePath::fixed("/etc/crio/.nodeprep-stage");
            part.wants.insert(ours, whole(content, 0o644, None, stage, "the pause image from before".to_owned()));
        }
        return part;
    }
    let later = files::crio_files(tree, on).into_iter().skip_while(|(file, _)| *file <= ours || *file == on.config);
    let stronger: Vec<Problem> = later
        .filter(|(file, image)| *file != ours && image.pause_image.as_ref().is_some_and(|there| *there != pause.image.to_string()))
        .map(|(file, _)| {
            let what = format!("{file} is read after {ours} and sets another pause_image");
            Problem::error("foreign-pause-image", what, format!("remove pause_image from {file}")).at(Place::file(file.as_str()))
        })
        .collect();
    if !stronger.is_empty() {
        return part.refuse(Refusal::Conflict(stronger));
    }
    let content = Content::public(crio_conf::render(&pause.image));
    // every file below crio.conf.d is loaded, whatever its name (rule 20)
    part.wants
        .insert(ours, whole(content, 0o644, None, NodePath::fixed("/etc/crio/.nodeprep-stage"), "pause image from the spec".to_owned()));
    part
}
