//! What others have written in the place of ours, in front of it, behind it and below it: replaced, it comes back to the last
//! byte; carried over, what they mirror is asked for as before.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use nodeprep::model::image::ImageRef;
use nodeprep::model::resolution::{Attempt, AttemptKey};
use nodeprep::runtime::facts;
use proptest::collection::btree_set;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, TestRunner};

use crate::generate::{self, Draft, What};
use crate::{lay, listing, load, material, nodeprep, snapshot};

/// Path, content (`@0`, `@1`: a CA), mode.
const THEIRS: [(&str, &str, u32); 17] = [
    ("etc/containerd/certs.d/docker.io/hosts.toml", "[host.\"https://theirs.example.org\"]\n", 0o644),
    (
        "etc/containerd/certs.d/quay.io/hosts.toml",
        "server = \"https://quay.io\"\n[host.\"https://harbor.corp.example\"]\n[host.\"https://harbor.corp.example\".header]\n\
         authorization = \"Basic dTpw\"\nX-Team = \"theirs\"\n",
        0o600,
    ),
    ("etc/containerd/certs.d/mirror.corp.example:5000/hosts.toml", "[host.\"https://theirs.example.org\"]\n", 0o644),
    ("etc/containerd/certs.d/second.corp.example_443_/theirs.crt", "@0", 0o644),
    ("etc/containerd/certs.d/_default/hosts.toml", "[host.\"https://all.example.org\"]\n", 0o640),
    (
        "etc/containers/registries.conf.d/20-foreign.conf",
        "[[registry]]\nprefix = \"docker.io\"\nlocation = \"theirs.example.org/hub\"\n\n[[registry]]\nprefix = \"quay.io/team\"\n\
         location = \"theirs.example.org/team\"\n",
        0o644,
    ),
    (
        "etc/containers/registries.conf.d/30-foreign.conf",
        "[[registry]]\nlocation = \"docker.io/library\"\n[[registry.mirror]]\nlocation = \"theirs.example.org:5000/lib\"\n",
        0o600,
    ),
    ("etc/containerd/certs.d/elsewhere.example.org/hosts.toml", "server = \"https://theirs.example.org\"\n", 0o644),
    (
        "etc/containers/registries.conf.d/40-foreign.conf",
        "[[registry]]\nprefix = \"*.example.org\"\nlocation = \"theirs.example.org\"\n\n[[registry]]\nlocation = \"nvcr.io\"\n",
        0o644,
    ),
    ("etc/containers/registries.conf.d/zzz-foreign.conf", "[[registry]]\nlocation = \"quay.io\"\ninsecure = true\n", 0o644),
    (
        "etc/containers/registries.conf.d/zzz-more.conf",
        "unqualified-search-registries = [\"theirs.example.org\"] # theirs\nshort-name-mode = \"permissive\"\n\n# hub\n[[registry]]\n\
         prefix = \"docker.io\"\nlocation = \"theirs.example.org/hub\"\n[[registry.mirror]]\nlocation = \"m.theirs.example.org\"\n\n[aliases]\n\
         \"x\" = \"theirs.example.org/x\"\n\n[[registry]]\nlocation = \"more.example.org\"\n",
        0o640,
    ),
    ("etc/docker/certs.d/harbor.corp.example/ca.crt", "@1", 0o644),
    ("etc/containers/certs.d/mirror.corp.example:5000/ca.crt", "@1", 0o640),
    ("etc/containers/certs.d/theirs.example.org/ca.crt", "@0", 0o644),
    ("root/.config/containers/certs.d/cache.corp.example:5001/ca.crt", "@0", 0o644),
    ("root/.config/containers/registries.conf", "[[registry]]\nlocation = \"ghcr.io\"\nblocked = true\n", 0o644),
    (
        "root/.config/containers/auth.json",
        "{\"auths\": {\"harbor.corp.example\": {\"auth\": \"dTpw\"}, \"theirs.example.org\": {\"auth\": \"dTpw\"}}}",
        0o600,
    ),
];

fn node() -> impl Strategy<Value = (BTreeMap<&'static str, What>, BTreeSet<&'static str>)> {
    let theirs = btree_set(select(&THEIRS[..]), 1..6);
    (generate::node(), theirs).prop_map(|(mut node, theirs)| {
        let ca = |at: &str| String::from_utf8(material()[&format!("ca-{at}.pem")].clone().expect("made")).expect("PEM");
        for (path, text, mode) in &theirs {
            // a linked certs.d and one of their own exclude each other
            if path.starts_with("etc/containers/certs.d/") {
                node.remove("etc/containers/certs.d");
            }
            let text = text.strip_prefix('@').map_or_else(|| (*text).to_owned(), ca);
            node.insert(path, What::File(text, *mode));
        }
        (node, theirs.iter().map(|(path, ..)| *path).collect())
    })
}

/// A scratch folder with the spec, what it names, and the node.
fn ground(draft: &Draft, node: &BTreeMap<&'static str, What>) -> tempfile::TempDir {
    let scratch = tempfile::tempdir().expect("scratch");
    lay(node, &scratch.path().join("node"));
    for (name, bytes) in material() {
        std::fs::write(scratch.path().join(name), bytes.as_ref().expect("made")).expect("material");
    }
    std::fs::write(scratch.path().join("spec.toml"), draft.text()).expect("spec");
    scratch
}

const PLAIN: [&str; 5] = ["apply", "--spec", "spec.toml", "--root", "node"];

/// Applies with `flag`, then without: that changes nothing. The exit code.
fn settled(scratch: &Path, flag: &str) -> Result<i32, TestCaseError> {
    let root = scratch.join("node");
    let flagged: Vec<&str> = PLAIN.iter().copied().chain([flag]).collect();
    let (code, text) = nodeprep(scratch, &flagged);
    prop_assert!(matches!(code, 0 | 4 | 5), "apply {flag} ended with {code}:\n{text}");
    let once = listing(&root);
    let (again, text) = nodeprep(scratch, &flagged);
    prop_assert_eq!(again, code, "again:\n{}", text);
    prop_assert!(text.contains("0 changes made"), "again:\n{}", text);
    if code == 0 {
        let (code, text) = nodeprep(scratch, &PLAIN);
        prop_assert_eq!(code, 0, "without {}:\n{}", flag, text);
        prop_assert!(text.contains("0 changes made"), "without {}:\n{}", flag, text);
    }
    prop_assert_eq!(&listing(&root), &once, "a later apply changed something");
    Ok(code)
}

fn reverted(scratch: &Path, before: &crate::Listing) -> Result<(), TestCaseError> {
    let (code, text) = nodeprep(scratch, &["revert", "--root", "node"]);
    prop_assert_eq!(code, 0, "{}", text);
    prop_assert_eq!(&listing(&scratch.join("node")), before, "revert did not give back what was there");
    Ok(())
}

/// What is replaced comes back.
#[test]
fn replaced_comes_back() {
    let (applied, all) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 24, failure_persistence: None, max_shrink_iters: 100, ..Config::default() });
    let outcome = runner.run(&(generate::draft(), node()), |(draft, (node, _))| {
        let scratch = ground(&draft, &node);
        let before = listing(&scratch.path().join("node"));
        let code = settled(scratch.path(), "--foreign=replace")?;
        all.set(all.get() + 1);
        applied.set(applied.get() + u32::from(code == 0));
        reverted(scratch.path(), &before)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // what some runtime cannot express is refused
    assert!(applied.get() * 2 > all.get(), "only {} of {} applies succeeded", applied.get(), all.get());
}

/// What each runtime on the node asks for the images that others mirror, by the name of the runtime; under `never` without
/// the registries themselves. `folders`: containerd looks through registry folders from the beginning.
fn asked(root: &Path, never: bool, folders: bool, images: &[&str]) -> BTreeMap<String, Vec<AttemptKey>> {
    let snapshot = snapshot(root);
    let mut all = BTreeMap::new();
    for reader in facts::found(&snapshot.tree, &snapshot.probes) {
        let Some(dialect) = reader.dialects(&snapshot.tree).first().copied() else { continue };
        let view = reader.view(&snapshot.tree, dialect);
        for image in images {
            // where containerd's folder of a source is in the way, the spec says where its images come from; folders that
            // nothing read before are read once config_path is set
            if reader.runtime == nodeprep::runtime::Runtime::Containerd && !(image.starts_with("elsewhere") && folders) {
                continue;
            }
            let resolution = view.resolve(&ImageRef::parse(image).expect("image"));
            let counts = resolution.attempts.iter().filter(|attempt| !(never && attempt.upstream));
            all.insert(format!("{} {image}", reader.runtime), counts.map(Attempt::key).collect());
        }
    }
    all
}

/// What others mirror below a source of the spec, or beside it, is asked for as before.
#[test]
fn carried_over_is_asked_as_before() {
    let (compared, applied) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 40, failure_persistence: None, max_shrink_iters: 100, ..Config::default() });
    let outcome = runner.run(&(generate::draft(), node()), |(draft, (node, theirs))| {
        // `deny` is for whatever the spec does not name, and `*` names it
        let mirrors = draft.mirrors.iter().filter(|mirror| mirror.source != "*").cloned().collect();
        let draft = Draft { deny: false, mirrors, ..draft };
        let spec = load(&draft).map_err(|codes| TestCaseError::fail(format!("{codes:?}")))?;
        let scratch = ground(&draft, &node);
        let root = scratch.path().join("node");
        let before = listing(&root);
        // a source `*` speaks of whatever the spec does not name, too
        let mut images = if draft.of_others() { Vec::new() } else { vec!["elsewhere.example.org/x/y:1"] };
        let says = |source: &str| spec.mirrors.iter().any(|mirror| mirror.source.to_string().starts_with(source));
        for (file, source, image) in [
            ("etc/containers/registries.conf.d/20-foreign.conf", "quay.io/team", "quay.io/team/x:1"),
            ("etc/containers/registries.conf.d/30-foreign.conf", "docker.io/library", "docker.io/library/x:1"),
        ] {
            // one in root's home hides those in /etc: nothing is mirrored there then
            if theirs.contains(file) && !theirs.contains("root/.config/containers/registries.conf") && !says(source) {
                images.push(image);
            }
        }
        let folders = matches!(node.get("etc/containerd/config.toml"), Some(What::File(text, _)) if text.contains("config_path"));
        let was = asked(&root, draft.never, folders, &images);
        if settled(scratch.path(), "--foreign=carry")? == 0 {
            applied.set(applied.get() + 1);
            let now = asked(&root, draft.never, folders, &images);
            prop_assert_eq!(&now, &was, "{}\n{:?}", draft.text(), theirs);
            compared.set(compared.get() + u32::from(images.len() > 1));
        }
        reverted(scratch.path(), &before)
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(applied.get() > 12 && compared.get() > 1, "{} applies, {} with mirrors of others", applied.get(), compared.get());
}
