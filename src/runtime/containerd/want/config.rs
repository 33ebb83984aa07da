//! The keys of config.toml: one folder in `config_path`, and the pause image. Everything that forbids to touch it.

use std::borrow::Cow;
use std::collections::BTreeSet;

use super::super::{Dialect, adopt};
use super::{DEFAULT_ROOT, Known, STAGE, no_folder};
use crate::desired::{Keys, Part, Want};
use crate::format::KeyFormat;
use crate::format::config_toml::{Chain, Refused, Setting, config_path_key, remove, sandbox_key, set};
use crate::format::hosts_toml::render::quoted;
use crate::model::content::Content;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::{Found, Tree};
use crate::runtime::FoundRuntime;
use crate::spec::Spec;

type Problems = Vec<Problem>;

/// What [`prepare`] decides.
pub(super) struct Prepared<'a> {
    /// The folder that holds the registries' folders.
    pub root: NodePath,
    /// The spec with what is carried over.
    pub whole: Cow<'a, Spec>,
}

/// Decides where the registry folders go and wants the keys of config.toml that this needs. `None`: this containerd serves no
/// CRI, there is nothing to do.
///
/// # Errors
/// Why the target has to be left untouched.
pub(super) fn prepare<'a>(
    spec: &'a Spec,
    found: &FoundRuntime,
    tree: &Tree,
    dialects: &[Dialect],
    known: Known<'_>,
    part: &mut Part,
) -> Result<Option<Prepared<'a>>, Problems> {
    // config.toml is read at the next start, by the version on disk
    let on_disk = found.installed.map_or_else(|| dialects.to_vec(), |version| vec![Dialect::of_version(version)]);
    let chains = read_all(tree, &found.config, &on_disk)?;
    if let Some(at) = chains.iter().find_map(|(_, chain)| chain.disabled.clone()) {
        let what = "disabled_plugins names the CRI plugin: no kubelet pulls through this containerd, it is left as it is";
        part.notes
            .push(Problem::note("cri-disabled", what, "take it out of disabled_plugins if Kubernetes is to use this containerd").at(at));
        return Ok(None);
    }
    let legacy = adopt::found(spec, tree, &found.config, &chains)?;
    let adopted = known.adopted.cloned().unwrap_or_default().with(legacy.adopted.clone());
    let mut whole = crate::spec::adopt::adopt(spec, &adopted);
    let starting: Vec<Dialect> = chains.iter().map(|(dialect, _)| *dialect).collect();
    // hosts.toml is read at every pull, by the running one
    let pulling = if found.installed.is_some() { dialects } else { &starting };
    let logins = super::logins::wanted(&mut whole, pulling);
    adopt::prove(spec, &whole, &legacy, tree, found, &starting)?;
    part.notes.extend(legacy.notes.iter().cloned());
    part.notes.extend(dialects.iter().filter_map(|dialect| not_for_running(*dialect, tree, found)));
    part.adopted = adopted;
    let root = root(&chains);
    if let Found::File(..) = tree.find(&root) {
        return Err(vec![no_folder(&root, "no registry's folder can stand in it")]);
    }
    let path_ok = |chain: &Chain, dialect: Dialect| chain.roots(dialect).0.first() == Some(&root);
    let edit_path = chains.iter().any(|(dialect, chain)| !path_ok(chain, *dialect));
    if edit_path {
        part.notes.extend(dropped_roots(&chains, tree, &root));
    }
    let pause = spec.pause.as_ref().map(|pause| pause.image.written.as_str());
    let pause_ok = |chain: &Chain| pause.is_none_or(|image| chain.sandbox.as_ref().is_some_and(|said| said.value == image));
    let edit_pause = chains.iter().any(|(_, chain)| !pause_ok(chain));
    let edit_logins = chains.iter().any(|(_, chain)| !super::logins::are_in(&logins, chain));

    let bytes = match tree.find(&found.config) {
        Found::File(bytes, _) => Some(bytes),
        _ => None,
    };
    if bytes.is_none() && !edit_path && !edit_pause && !edit_logins {
        return Ok(Some(Prepared { root, whole }));
    }
    let before = std::str::from_utf8(bytes.map_or(b"", |bytes| bytes)).map_err(|_| {
        let help = "make the file valid UTF-8";
        vec![Problem::error("config-toml", format!("{} is not UTF-8", found.config), help).at(Place::file(found.config.as_str()))]
    })?;
    let declared = chains.first().and_then(|(_, chain)| chain.declared);
    let edits = edit_path || edit_pause || edit_logins || !legacy.cuts.is_empty();
    let only_1 = starting.iter().all(|dialect| !dialect.is_v2());
    let (start, version) = versioned(before, declared, &found.config, edits, only_1)?;
    let mut settings = Vec::new();
    if edit_path {
        let why = format!("containerd reads registry folders only from a single config_path; {root} becomes it");
        settings.push(Setting { key: config_path_key(version).to_vec(), raw: quoted(root.as_str()), why });
    }
    if let Some(image) = pause.filter(|_| edit_pause) {
        settings.push(Setting { key: sandbox_key(version), raw: quoted(image), why: format!("the pause image is {image}") });
    }
    let mut all = Vec::new();
    all.extend(start.map(|raw| Setting {
        key: vec!["version"],
        raw,
        why: "without a version containerd 1.x looks for other tables".into(),
    }));
    all.extend(settings);
    let unusable = |refused: Refused| {
        let at = Place::at(found.config.as_str(), before, refused.offset);
        vec![Problem::error("config-toml", refused.why.clone(), "write the table in the standard form, `[plugins.…]`").at(at)]
    };
    let (without, mut edits) = take_out(before, legacy.cuts.iter().filter(|cut| cut.conflicts)).map_err(unusable)?;
    if let Some(broken) = chains.iter().find_map(|(dialect, chain)| chain.unloadable(*dialect)) {
        let what = format!("{} does not work as it is ({}), and `revert` would bring that back", found.config, broken.why);
        let help = "keep what is carried over, or repair the file by hand after a revert";
        part.notes.push(Problem::warning("no-working-state", what, help).at(broken.at));
        // nothing is pulled as it is: what counts as before is what the file would mean without what contradicts itself
        let mut was = tree.clone();
        was.put(&tree.real(&found.config).unwrap_or_else(|| found.config.clone()), without.as_bytes(), 0o644);
        part.was = Some(was);
    }
    let (without, more) = take_out(&without, legacy.cuts.iter().filter(|cut| !cut.conflicts)).map_err(unusable)?;
    edits.extend(more);
    let (after, more) = set(&without, &all).map_err(unusable)?;
    edits.extend(more);
    // set whether they are there or not: a table that goes may hold them
    let settings = super::logins::settings(&logins, version);
    let settings: Vec<Setting<'_>> = settings.iter().map(super::logins::Login::setting).collect();
    let (after, more) = set(&after, &settings).map_err(unusable)?;
    edits.extend(more.into_iter().map(|edit| crate::format::KeyEdit { secret: true, ..edit }));
    prove(tree, found, &on_disk, &after, &root, pause)?;
    if let Found::File(_, meta) = tree.find(&found.config)
        && !logins.is_empty()
        && edits.is_empty()
        && meta.mode & 0o077 != 0
    {
        let what = format!("{} holds a login, and others than root may read it (mode {:04o})", found.config, meta.mode);
        let help = format!("run `chmod 0600 {}`", found.config);
        part.notes.push(Problem::warning("login-readable", what, help).at(Place::file(found.config.as_str())));
    }
    let why = if edits.is_empty() { "as it should be".to_owned() } else { join(&edits) };
    let stage = found.config.parent().unwrap_or_else(NodePath::root).join(STAGE);
    let mut wanted = vec![words(&["version"]), words(&config_path_key(version))];
    wanted.extend(pause.map(|_| words(&sandbox_key(version))));
    // what is carried over stays out
    let taken = known.owns(&found.config).into_iter().flat_map(|owned| &owned.keys).chain(&edits).filter(|edit| edit.to.is_none());
    wanted.extend(taken.map(|edit| edit.key.clone()).collect::<Vec<_>>());
    wanted.extend(settings.iter().flat_map(|setting| super::logins::keys(&setting.key)));
    let permissions = if logins.is_empty() { 0o644 } else { 0o600 };
    let content = Content::secret(after, super::logins::secrets(&logins));
    let keys = Keys { format: KeyFormat::Toml, wanted, edits, content, mode: permissions, stage, why };
    part.wants.insert(found.config.clone(), Want::Keys(keys));
    Ok(Some(Prepared { root, whole }))
}

fn words(key: &[&str]) -> Vec<String> {
    key.iter().map(ToString::to_string).collect()
}

fn join(edits: &[crate::format::KeyEdit]) -> String {
    let mut reasons: Vec<&str> = edits.iter().map(|edit| edit.why.as_str()).collect();
    reasons.dedup();
    reasons.join("; ")
}

fn read_all(tree: &Tree, config: &NodePath, dialects: &[Dialect]) -> Result<Vec<(Dialect, Chain)>, Problems> {
    let read = |dialect: &Dialect| {
        Chain::read(tree, config, *dialect).map(|chain| (*dialect, chain)).map_err(|broken| {
            let help = if broken.by_build {
                "write it as TOML 1.0, which every build reads: an inline table in one line, without a comma at its end, and without \\e and \\x"
            } else {
                "repair the file; `containerd config dump` shows the same error"
            };
            vec![Problem::error("config-toml", broken.why, help).at(broken.at)]
        })
    };
    // a file of a version that only some classes know rules the others out where the version of containerd is unknown
    let (known, failed): (Vec<_>, Vec<_>) = dialects.iter().map(read).partition(Result::is_ok);
    let known: Vec<_> = known.into_iter().filter_map(Result::ok).collect();
    match failed.into_iter().find_map(Result::err) {
        Some(problems) if known.is_empty() || dialects.len() < Dialect::ALL.len() => Err(problems),
        _ => Ok(known),
    }
}

/// The running version would not start with a file that is for the one on disk.
fn not_for_running(running: Dialect, tree: &Tree, found: &FoundRuntime) -> Option<Problem> {
    let on_disk = found.installed.map(Dialect::of_version).filter(|next| *next != running && !running.suits(tree, &found.config))?;
    let why = Chain::read(tree, &found.config, running).err().map_or_else(String::new, |broken| format!(" ({})", broken.why));
    let what = format!(
        "{} is for {}, which is on disk, not for {}, which is running{why}: it takes effect when containerd is started again",
        found.config,
        on_disk.name(),
        running.name()
    );
    let help = "start containerd again when it suits, so that what runs is what is on disk";
    Some(Problem::warning("config-toml-not-for-running", what, help).at(Place::file(found.config.as_str())))
}

/// 8.4, rule 13.
fn take_out<'a>(text: &str, cuts: impl Iterator<Item = &'a adopt::Cut>) -> Result<(String, Vec<crate::format::KeyEdit>), Refused> {
    let mut now = text.to_owned();
    let mut edits = Vec::new();
    for cut in cuts {
        let key: Vec<&str> = cut.key.iter().map(String::as_str).collect();
        let (next, more) = remove(&now, &key, &cut.why, cut.secret)?;
        now = next;
        edits.extend(more);
    }
    Ok((now, edits))
}

/// Where the folders go: the first entry of a value that a file sets, else the usual place.
fn root(chains: &[(Dialect, Chain)]) -> NodePath {
    let set = chains.iter().find_map(|(_, chain)| chain.set_path.as_ref());
    let first = set.and_then(|said| said.value.split(':').find(|part| !part.is_empty()));
    first.map_or_else(|| NodePath::fixed(DEFAULT_ROOT), |first| NodePath::root().join(first))
}

/// What stands in folders that are not looked through any more.
fn dropped_roots(chains: &[(Dialect, Chain)], tree: &Tree, root: &NodePath) -> Problems {
    let mut dropped = BTreeSet::new();
    for (dialect, chain) in chains {
        let value = chain.config_path(*dialect);
        dropped
            .extend(value.split(':').filter(|part| !part.is_empty()).map(|part| NodePath::root().join(part)).filter(|path| path != root));
    }
    let held = dropped.into_iter().filter_map(|path| {
        let names = tree.names(&path);
        let what = format!("{path} will not be looked through any more: config_path becomes {root} alone; it holds {}", names.join(", "));
        (!names.is_empty()).then(|| Problem::warning("config-path-collapsed", what, format!("move what is still needed to {root}")))
    });
    held.collect()
}

/// 8.4, rule 11: the `version` that has to be added to a file without one, if it can be, and the version whose tables are
/// edited. A file of version 1 stays one as long as only containerd 1.x reads it (1.8: `plugins.cri`).
fn versioned(text: &str, declared: Option<i64>, config: &NodePath, edits: bool, only_1: bool) -> Result<(Option<String>, i64), Problems> {
    if let Some(version) = declared.filter(|version| *version >= 2) {
        return Ok((None, version));
    }
    let document = toml_edit::Document::parse(text).ok();
    let says = |key: &str| document.as_ref().is_some_and(|document| document.get(key).is_some());
    if !["plugins", "disabled_plugins", "required_plugins", "version"].iter().any(|key| says(key)) {
        return Ok((edits.then(|| "2".to_owned()), 2));
    }
    if only_1 || !edits {
        return Ok((None, 1));
    }
    let what = format!("{config} is a file of version 1 with plugin settings, which mean something else in every later version");
    let help = "convert it with `containerd config migrate`, or write `version = 2` with the long plugin names";
    Err(vec![Problem::error("config-toml-version", what, help).at(Place::file(config.as_str()))])
}

/// What counts is the effective value: reads the result again as each class of versions does, drop-ins included.
fn prove(
    tree: &Tree,
    found: &FoundRuntime,
    dialects: &[Dialect],
    after: &str,
    root: &NodePath,
    pause: Option<&str>,
) -> Result<(), Problems> {
    let mut tree = tree.clone();
    let real = tree.real(&found.config).unwrap_or_else(|| found.config.clone());
    tree.put(&real, after.as_bytes(), 0o644);
    for (dialect, chain) in read_all(&tree, &found.config, dialects)? {
        let wrong = |what: &str, at: Option<Place>| {
            let mut problem = Problem::error(
                "config-toml-overridden",
                format!("{what} set in {} would not take effect on {}", found.config, dialect.name()),
                "remove it from the file that overrides it, or give that file the same `version` as config.toml",
            );
            problem.at = at.or_else(|| chain.passed_over.first().map(|said| said.at.clone()));
            Err(vec![problem])
        };
        if chain.roots(dialect).0.first() != Some(root) {
            return wrong("config_path", chain.set_path.as_ref().map(|said| said.at.clone()));
        }
        if pause.is_some_and(|image| chain.sandbox.as_ref().is_none_or(|said| said.value != image)) {
            return wrong("the pause image", chain.sandbox.as_ref().map(|said| said.at.clone()));
        }
        if let Some(broken) = chain.unloadable(dialect) {
            return Err(vec![Problem::error("config-toml", broken.why, "remove the legacy settings").at(broken.at)]);
        }
    }
    Ok(())
}
