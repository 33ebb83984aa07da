//! The test vectors T01–T66 for containerd: one folder each under `fixtures/vectors/containerd`, walked, not listed.
//!
//! A folder holds `case.toml` and the node's files below `tree/`. Where `tree/` has no config.toml, one of version 2 with a
//! single `config_path` is put in. `[[expect]]` names an image, the versions (`all`, `<2.0`, `>=1.7.32 <2.0`) and what is
//! asked, one line per attempt: `rmb` for resolve, manifest and blob (a dash where it is not asked), the URL, the trust,
//! then `+N` extra CA certificates, `client`, `basic` or another login, `upstream`. `[[chain]]` says what config.toml comes
//! to. `tests/real` holds the same folders against the running program; `[[except]]`, with `on` or `below = "1.6.32"` and `because`, says where it does not. A file that holds just
//! `@certificate` or `@key` gets one made on the spot. What cannot be told from files stands in `elsewhere.toml` with the reason, and is printed.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libtest_mimic::{Arguments, Failed, Trial};
use nodeprep::format::config_toml::Chain;
use nodeprep::model::image::ImageRef;
use nodeprep::model::path::NodePath;
use nodeprep::model::resolution::{Attempt, Auth, End, Trust};
use nodeprep::model::tree::{Entry, Tree};
use nodeprep::model::version::Version;
use nodeprep::runtime::containerd::{Dialect, View};
use nodeprep::runtime::{FoundRuntime, Presence, Runtime};
use toml_edit::{DocumentMut, Table};

const CONFIG: &str = "/etc/containerd/config.toml";
const DEFAULT: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";

/// A certificate and its key.
static MADE: LazyLock<(String, String)> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["vector.example".to_owned()]).unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
});

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/containerd");
    let mut trials = Vec::new();
    let mut numbers = BTreeSet::new();
    let mut named = String::new();
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    for case in folders.into_iter().filter(|path| path.is_dir()) {
        let number = case.file_name().unwrap().to_string_lossy().into_owned();
        let document = read(&case.join("case.toml"));
        let title = document["title"].as_str().unwrap().to_owned();
        numbers.insert(number.clone());
        trials.push(Trial::test(format!("{number} {title}"), move || run(&case, &document)));
    }
    for (number, reason) in read(&folder.join("elsewhere.toml")).iter() {
        numbers.insert(number.to_owned());
        let reason = reason.as_str().unwrap();
        println!("not told from files: {number}: {reason}");
        named += reason;
        named += " ";
    }
    trials.push(Trial::test("what holds the others is there", move || {
        let gone = gone(&named);
        if gone.is_empty() { Ok(()) } else { Err(Failed::from(format!("not there: {gone:?}"))) }
    }));
    let missing: Vec<String> = (1..=66).map(|number| format!("T{number:02}")).filter(|number| !numbers.contains(number)).collect();
    trials.push(Trial::test("every vector is here or has a reason", move || {
        if missing.is_empty() { Ok(()) } else { Err(Failed::from(format!("missing: {missing:?}"))) }
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// Paths in a text that lead nowhere.
fn gone(text: &str) -> Vec<&str> {
    let words = text.split([' ', ',', ';', ':']).filter(|word| word.starts_with("fixtures/") || word.starts_with("tests/"));
    words.filter(|word| !Path::new(env!("CARGO_MANIFEST_DIR")).join(word).exists()).collect()
}

fn read(path: &Path) -> DocumentMut {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

fn load(tree: &mut Tree, folder: &Path, at: &NodePath) {
    tree.insert(at.clone(), Entry::Dir { listed: true });
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let entry = entry.unwrap();
        let path = at.join(&entry.file_name().to_string_lossy());
        if entry.file_type().unwrap().is_dir() {
            load(tree, &entry.path(), &path);
        } else {
            let bytes = match std::fs::read(entry.path()).unwrap() {
                mark if mark == b"@certificate\n" => MADE.0.clone().into_bytes(),
                mark if mark == b"@key\n" => MADE.1.clone().into_bytes(),
                bytes => bytes,
            };
            tree.put(&path, bytes, 0o644);
        }
    }
}

fn run(case: &Path, document: &DocumentMut) -> Result<(), Failed> {
    let mut tree = Tree::default();
    load(&mut tree, &case.join("tree"), &NodePath::root());
    let config = NodePath::new(CONFIG)?;
    if !tree.exists(&config) {
        tree.put(&config, DEFAULT.as_bytes(), 0o644);
    }
    for folder in document.get("dirs").and_then(|dirs| dirs.as_array()).into_iter().flatten() {
        tree.insert(NodePath::new(folder.as_str().unwrap())?, Entry::Dir { listed: true });
    }
    let mut seen = BTreeSet::new();
    let tables = |name: &str| document.get(name).and_then(|item| item.as_array_of_tables()).into_iter().flatten();
    for expect in tables("expect") {
        let image = ImageRef::parse(expect["image"].as_str().unwrap())?;
        for dialect in dialects(expect) {
            if !seen.insert((image.to_string(), dialect)) {
                return Err(format!("{image} on {dialect:?} is expected twice").into());
            }
            resolves(&tree, &image, dialect, expect)?;
        }
    }
    for expect in tables("chain") {
        for dialect in dialects(expect) {
            seen.insert((String::new(), dialect));
            comes_to(&tree, &config, dialect, expect)?;
        }
    }
    let images: BTreeSet<&String> = seen.iter().map(|(image, _)| image).collect();
    if seen.len() == images.len() * Dialect::ALL.len() { Ok(()) } else { Err("not every version is covered".into()) }
}

fn dialects(expect: &Table) -> Vec<Dialect> {
    let on = expect["on"].as_str().unwrap();
    let fits = |dialect: &Dialect| {
        on.split(' ').all(|bound| match bound {
            "all" => true,
            bound => match bound.strip_prefix(">=") {
                Some(from) => *dialect >= Dialect::of_version(Version::find(from).unwrap()),
                None => *dialect < Dialect::of_version(Version::find(bound.strip_prefix('<').unwrap()).unwrap()),
            },
        })
    };
    Dialect::ALL.into_iter().filter(fits).collect()
}

fn on() -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: NodePath::fixed("/usr/bin/containerd"),
        installed: None,
        running: None,
        config: NodePath::fixed(CONFIG),
        unit: None,
        env: vec![],
    }
}

fn resolves(tree: &Tree, image: &ImageRef, dialect: Dialect, expect: &Table) -> Result<(), Failed> {
    let got = View::new(tree, &on(), dialect).resolve(image);
    let shown: Vec<String> = got.attempts.iter().map(|attempt| show(attempt, image)).collect();
    let wanted: Vec<&str> = expect["attempts"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let broken = expect.get("broken").and_then(toml_edit::Item::as_bool).unwrap_or(false);
    if shown == wanted && broken == matches!(got.end, End::Broken(_)) {
        return Ok(());
    }
    Err(format!("{image} on {dialect:?}\nwant {wanted:#?} broken: {broken}\ngot  {shown:#?} {:?}\n{:#?}", got.end, got.files).into())
}

fn show(attempt: &Attempt, image: &ImageRef) -> String {
    let op = |asked, letter| if asked { letter } else { '-' };
    let ops: String = [op(attempt.ops.resolve, 'r'), op(attempt.ops.manifest, 'm'), op(attempt.ops.blob, 'b')].iter().collect();
    let trust = match &attempt.trust {
        Trust::Plain => "plain".to_owned(),
        Trust::Unverified => "unverified".to_owned(),
        Trust::Verified { extra } if extra.is_empty() => "verified".to_owned(),
        Trust::Verified { extra } => format!("verified +{}", extra.len()),
    };
    let client = if attempt.client.is_some() { " client" } else { "" };
    let auth = match &attempt.auth {
        Auth::None => String::new(),
        Auth::Basic(_) => " basic".to_owned(),
        Auth::Other(what) => format!(" {what}"),
    };
    let names: Vec<&str> = attempt.header.iter().map(|(name, _)| name.as_str()).collect();
    let header = if names.is_empty() { String::new() } else { format!(" header {}", names.join(", ")) };
    let upstream = if attempt.upstream { " upstream" } else { "" };
    format!("{ops} {} {trust}{client}{auth}{header}{upstream}", attempt.manifest_url(image))
}

fn comes_to(tree: &Tree, config: &NodePath, dialect: Dialect, expect: &Table) -> Result<(), Failed> {
    let chain = Chain::read(tree, config, dialect);
    let said = |key: &str| expect.get(key).and_then(|item| item.as_str());
    let starts = expect.get("starts").and_then(toml_edit::Item::as_bool).unwrap_or(true);
    let fine = match &chain {
        Err(_) => !starts,
        Ok(chain) => {
            let sandbox = chain.sandbox.as_ref().map_or("", |said| &said.value);
            starts
                && said("sandbox").is_none_or(|want| want == sandbox)
                && said("config_path").is_none_or(|want| want == chain.config_path(dialect))
        }
    };
    if fine { Ok(()) } else { Err(format!("on {dialect:?}\nwant {expect}\ngot  {chain:#?}").into()) }
}
