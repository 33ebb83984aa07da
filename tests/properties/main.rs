//! Properties of the whole flow over random specs and nodes.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod foreign;
mod generate;
mod hold;
mod sequence;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use generate::{Draft, What};
use nodeprep::ledger::Ledger;
use nodeprep::model::image::ImageRef;
use nodeprep::model::path::NodePath;
use nodeprep::model::problem::Severity;
use nodeprep::model::snapshot::{Probes, Snapshot};
use nodeprep::model::time::Time;
use nodeprep::node::{read, root::Root};
use nodeprep::plan::build::{Foreign, overlay};
use nodeprep::plan::hold::Unready;
use nodeprep::plan::whole::readers;
use nodeprep::runtime::containerd::tokens::Answers;
use nodeprep::runtime::{FoundRuntime, Runtime, facts};
use nodeprep::spec::{Spec, express, intent::intent, load::Draft as Document};
use nodeprep::{flow, spec};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// CA, client certificate and login files that specs reference; made once.
fn material() -> &'static BTreeMap<String, Result<Vec<u8>, String>> {
    static MADE: OnceLock<BTreeMap<String, Result<Vec<u8>, String>>> = OnceLock::new();
    MADE.get_or_init(|| {
        let mut files = BTreeMap::new();
        for number in 0..2 {
            let mut params = rcgen::CertificateParams::new(Vec::new()).expect("params");
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.distinguished_name.push(rcgen::DnType::CommonName, format!("ca {number}"));
            let key = rcgen::KeyPair::generate().expect("key");
            files.insert(format!("ca-{number}.pem"), Ok(params.self_signed(&key).expect("certificate").pem().into_bytes()));
        }
        let key = rcgen::KeyPair::generate().expect("key");
        let cert = rcgen::CertificateParams::new(vec!["node".into()]).expect("params").self_signed(&key).expect("certificate");
        files.insert("client.crt".into(), Ok(cert.pem().into_bytes()));
        files.insert("client.key".into(), Ok(key.serialize_pem().into_bytes()));
        let login = |host: &&str| format!("\"{host}\": {{\"username\": \"puller\", \"password\": \"correct horse\"}}");
        let auths = generate::MIRRORS.iter().map(login).collect::<Vec<_>>().join(", ");
        files.insert("pull.json".into(), Ok(format!("{{\"auths\": {{{auths}}}}}").into_bytes()));
        files
    })
}

fn load(draft: &Draft) -> Result<Spec, Vec<String>> {
    let (name, text) = draft.document();
    let document = Document::open(name, text.as_bytes()).map_err(|problems| vec![format!("{problems:?}")])?;
    let closed = document.close(material(), Some(Time::from_secs(1_800_000_000)));
    let errors = closed.problems.iter().filter(|problem| problem.severity == Severity::Error).map(|problem| problem.code.to_owned());
    closed.spec.ok_or_else(|| errors.collect())
}

/// Writes a node below a scratch folder.
fn lay(node: &BTreeMap<&'static str, What>, root: &Path) {
    std::fs::create_dir_all(root).expect("root");
    for (path, what) in node {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("parent")).expect("folder");
        match what {
            What::File(text, mode) => {
                std::fs::write(&path, text).expect("file");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).expect("mode");
            }
            What::Link(to) => std::os::unix::fs::symlink(to, &path).expect("link"),
        }
    }
}

fn snapshot(root: &Path) -> Snapshot {
    let root = Root::open(root).expect("root");
    let probes = Probes::default();
    let ledger = Ledger::new([7; 32]);
    let tree = read::read(&root, |tree| flow::wishes(tree, &probes, &ledger, &[]));
    Snapshot { tree, probes }
}

/// Nothing was looked at but the node's files.
fn nothing() -> flow::Findings<'static> {
    static ANSWERS: OnceLock<Answers> = OnceLock::new();
    static READY: Unready = Unready::new();
    flow::Findings {
        orphans: &[],
        answers: ANSWERS.get_or_init(Answers::default),
        unready: &READY,
        preflight: &[],
        stays: &nodeprep::model::pause::Stays::Nothing,
    }
}

/// For random specs, nodes and images every runtime's resolve equals the spec's intent, in every version class; or the
/// target is refused, and a row of the expressibility table says why.
#[test]
fn resolve_equals_intent_or_the_table_says_why() {
    let (accepted, generated, compared) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let strategy = (generate::draft(), generate::node(), generate::images());
    let outcome = runner.run(&strategy, |(draft, node, images)| {
        generated.set(generated.get() + 1);
        let spec = load(&draft).map_err(|codes| TestCaseError::fail(format!("the loader refuses {codes:?}:\n{}", draft.text())))?;
        let scratch = tempfile::tempdir().expect("scratch");
        lay(&node, scratch.path());
        let snapshot = snapshot(scratch.path());
        let found = flow::configured(facts::found(&snapshot.tree, &snapshot.probes), &spec, &[]);
        prop_assert_eq!(found.iter().map(|found| found.runtime).collect::<Vec<_>>(), vec![Runtime::Containerd, Runtime::Podman]);
        let planned = flow::prepare(&spec, &snapshot, &found, &Ledger::new([7; 32]), &BTreeMap::new(), Foreign::Refuse, nothing());
        let mut all = true;
        for part in &planned.parts {
            let readers = readers(&part.part.target, &found);
            if let Some(refusal) = &part.refused {
                // what others say of registries that a spec denies, or mirrors without naming them, is in its way
                if draft.of_others() && foreign(&node) && matches!(refusal, nodeprep::desired::Refusal::Conflict(_)) {
                    continue;
                }
                all = false;
                let there = [Runtime::Containerd, Runtime::Podman];
                let gaps = |reader: &&FoundRuntime| express::gaps(&spec, reader.runtime, &there, &reader.dialects(&snapshot.tree));
                let rows: Vec<_> = readers.iter().flat_map(gaps).collect();
                let confirmed = rows.iter().any(|gap| gap.problem.severity == Severity::Error);
                prop_assert!(confirmed, "{} is refused, but no row says so: {refusal:?}\n{}", part.part.target, draft.text());
                continue;
            }
            let after = overlay(&snapshot.tree, &part.part.wants);
            for reader in readers {
                let spec = spec.for_runtime(reader.runtime);
                for dialect in reader.dialects(&after) {
                    let view = reader.view(&after, dialect);
                    for image in &images {
                        let image = ImageRef::parse(image).expect("image");
                        // registries that the spec does not name are not its matter: the node may say something of them, and
                        // containerd is lenient with loopback ones
                        let named = spec.covers(&image) || spec.is_source_host(&image.host);
                        if !named
                            && spec.mirror_of(&image).is_none()
                            && (image.host.is_loopback() || image.host.as_str() == "elsewhere.example.org")
                        {
                            continue;
                        }
                        // the table says so: a name with a port below a domain that is mirrored
                        if !spec.covers(&image) && spec.beside_domain(&image.host) {
                            continue;
                        }
                        // a source that is itself a repository and an endpoint without a prefix leave no name to ask for
                        if intent(&spec, &image).attempts.iter().any(|attempt| attempt.repo.is_all()) {
                            continue;
                        }
                        let want = express::adapt(&spec, intent(&spec, &image), dialect);
                        let got = view.resolve(&image);
                        compared.set(compared.get() + 1);
                        prop_assert_eq!(got.key(), want.key(), "{} {} {}\n{}\n{:#?}", reader.runtime, dialect, image, draft.text(), got);
                        for attempt in &got.attempts {
                            if let Some(mirror) = spec.mirror_of(&image).filter(|mirror| mirror.fallback == spec::Fallback::Never) {
                                let listed = mirror.endpoints.iter().any(|endpoint| endpoint.host == attempt.host);
                                prop_assert!(listed, "{image} is closed, but {} is asked", attempt.host);
                            }
                        }
                    }
                }
            }
        }
        accepted.set(accepted.get() + u32::from(all));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(compared.get() > 2000, "only {} comparisons were made", compared.get());
    let share = accepted.get() * 100 / generated.get().max(1);
    assert!(share >= 80, "only {share} % of the generated specs were accepted by all runtimes on the node");
}

fn nodeprep(folder: &Path, words: &[&str]) -> (i32, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).args(words).current_dir(folder).env_clear().output().expect("nodeprep runs");
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}

/// What the proof rested on is what the next run finds, so that it need not be made again.
fn proof_is_remembered(root: &Path, draft: &Draft) -> Result<(), TestCaseError> {
    let node = Root::open(root).expect("root");
    let ledger = nodeprep::apply::load_ledger(&node, &NodePath::fixed(flow::STATE)).expect("a ledger").expect("a ledger");
    let spec = load(draft).expect("a spec");
    let probes = Probes::default();
    let limits = read::Limits { bundles: flow::large_files(), ..read::Limits::default() };
    let tree = read::read_within(&node, &limits, |tree| flow::wishes(tree, &probes, &ledger, &[]));
    let found = flow::configured(facts::found(&tree, &probes), &spec, &[]);
    let planned = flow::prepare(&spec, &Snapshot { tree, probes }, &found, &ledger, &BTreeMap::new(), Foreign::Refuse, nothing());
    prop_assert!(!ledger.proved.is_empty());
    prop_assert_eq!(&planned.plan.proved, &ledger.proved);
    Ok(())
}

/// Whether somebody else speaks of a registry that no spec names.
fn foreign(node: &BTreeMap<&'static str, What>) -> bool {
    node.keys().any(|path| path.contains("elsewhere") || path.contains("10-theirs"))
}

type Listing = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// Path → mode, content or link target.
fn listing(root: &Path) -> Listing {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("folder").flatten() {
            let path = entry.path();
            let name = path.strip_prefix(root).expect("below").to_owned();
            let meta = path.symlink_metadata().expect("meta");
            if ["var", "var/lib"].map(Path::new).contains(&&*name) {
                todo.push(path);
                continue;
            }
            if name == Path::new("var/lib/nodeprep") {
                continue;
            }
            let mode = meta.permissions().mode();
            if meta.is_dir() {
                found.insert(name, (mode, Vec::new()));
                todo.push(path);
            } else if meta.is_symlink() {
                found.insert(name, (mode, std::fs::read_link(&path).expect("link").into_os_string().into_encoded_bytes()));
            } else {
                found.insert(name, (mode, std::fs::read(&path).expect("file")));
            }
        }
    }
    found
}

/// Applying twice changes nothing the second time; a second spec over the first and then revert gives every byte, mode and
/// link back.
#[test]
fn apply_is_idempotent_and_revert_gives_everything_back() {
    let applied = Cell::new(0u32);
    let mut runner = TestRunner::new(Config { cases: 32, failure_persistence: None, max_shrink_iters: 200, ..Config::default() });
    let strategy = (generate::draft(), generate::draft(), generate::node());
    let outcome = runner.run(&strategy, |(first, second, node)| {
        let scratch = tempfile::tempdir().expect("scratch");
        let root = scratch.path().join("node");
        lay(&node, &root);
        for (name, bytes) in material() {
            std::fs::write(scratch.path().join(name), bytes.as_ref().expect("made")).expect("material");
        }
        let before = listing(&root);
        for draft in [&first, &second] {
            let (name, text) = draft.document();
            std::fs::write(scratch.path().join(name), text).expect("spec");
            let words = ["apply", "--spec", name, "--root", "node", "--allow-shrink"];
            let (code, text) = nodeprep(scratch.path(), &words);
            let expected = code == 0 || code == 4 || code == 5 && draft.of_others() && foreign(&node);
            prop_assert!(expected, "apply ended with {code}:\n{text}\n{}", draft.text());
            applied.set(applied.get() + u32::from(code == 0));
            if code == 0 {
                proof_is_remembered(&root, draft)?;
            }
            let once = listing(&root);
            let (again, text) = nodeprep(scratch.path(), &words);
            prop_assert_eq!(again, code, "{}", text);
            prop_assert!(text.contains("0 changes made"), "the second apply says:\n{}", text);
            prop_assert_eq!(&listing(&root), &once, "the second apply changed something");
        }
        let (code, text) = nodeprep(scratch.path(), &["revert", "--root", "node"]);
        prop_assert_eq!(code, 0, "{}", text);
        prop_assert_eq!(listing(&root), before, "revert did not give back what was there");
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(applied.get() > 15, "only {} applies succeeded", applied.get());
}
