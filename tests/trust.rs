//! Golden tests of the OS trust store: each folder of `fixtures/trust` is a node root, CAs (`ca/NAME.pem`; `+registries` at
//! the end of a name: not for the system), what nodeprep does about them (`expect.txt`; `UPDATE_GOLDEN=1` rewrites it), and
//! where the rules come from that it follows there (`rules.txt`).
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests read their fixtures")]

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use nodeprep::desired::{Refusal, Want};
use nodeprep::model::cert::{fingerprints, read_pem};
use nodeprep::model::digest::Digest;
use nodeprep::model::endpoint::Scheme;
use nodeprep::model::path::NodePath;
use nodeprep::model::place::Place;
use nodeprep::model::problem::Problem;
use nodeprep::model::tree::{Entry, Tree};
use nodeprep::spec::{Access, Ca, Fallback, Scope, Spec};
use nodeprep::trust;

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/trust");
    let trial = |name: String| {
        let folder = folder.join(&name);
        Trial::test(name, move || check(&folder))
    };
    let mut trials: Vec<Trial> = names(&folder).into_iter().filter(|name| name != VECTORS).map(trial).collect();
    let vectors = folder.join(VECTORS);
    trials.push(Trial::test("every vector is held against the real tool", move || held(&vectors)));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Where each of the vectors O01–O10 is held.
const VECTORS: &str = "vectors.toml";

/// Each is named where it is said to be held.
fn held(vectors: &Path) -> Result<(), Failed> {
    let text = std::fs::read_to_string(vectors)?;
    let document: toml_edit::DocumentMut = text.parse()?;
    for number in (1..=10).map(|number| format!("O{number:02}")) {
        let places = document.get(&number).and_then(|places| places.as_array()).ok_or_else(|| format!("{number} is held nowhere"))?;
        for place in places.iter().filter_map(|place| place.as_str()) {
            let said =
                std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(place)).map_err(|error| format!("{place}: {error}"))?;
            if !said.contains(&number) {
                return Err(format!("{place} does not speak of {number}").into());
            }
        }
    }
    Ok(())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn check(folder: &Path) -> Result<(), Failed> {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    load(&mut tree, &folder.join("root"), &NodePath::root());
    let rules = std::fs::read_to_string(folder.join("rules.txt")).unwrap_or_default();
    if rules.trim().is_empty() {
        return Err("there is no rules.txt that says where the rules come from".into());
    }
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(folder.join("expect.txt"), report(&spec(&folder.join("ca")), &tree))?;
    }
    let (is, expected) = (report(&spec(&folder.join("ca")), &tree), std::fs::read_to_string(folder.join("expect.txt"))?);
    if is == expected { Ok(()) } else { Err(format!("\n--- expected\n{expected}\n--- is\n{is}").into()) }
}

fn load(tree: &mut Tree, from: &Path, to: &NodePath) {
    for name in names(from) {
        let (from, to) = (from.join(&name), to.join(&name));
        if from.is_dir() { load(tree, &from, &to) } else { tree.put(&to, std::fs::read(from).unwrap(), 0o644) }
    }
}

fn spec(folder: &Path) -> Spec {
    let ca = |file: String| {
        let name = file.strip_suffix(".pem").unwrap();
        let scope = if name.ends_with("+registries") { Scope::Registries } else { Scope::System };
        let certs = read_pem(&std::fs::read(folder.join(&file)).unwrap()).unwrap().certs;
        Ca { name: name.trim_end_matches("+registries").to_owned(), certs, scope, at: Place::file("spec.toml") }
    };
    Spec {
        file: "spec.toml".into(),
        name: nodeprep::spec::DEFAULT_NAME.to_owned(),
        digest: Digest::of(b""),
        references: Vec::new(),
        serial: None,
        fallback: Fallback::Never,
        unlisted: nodeprep::spec::Unlisted::Allow,
        runtimes: None,
        cas: names(folder).into_iter().map(ca).collect(),
        access: BTreeMap::new(),
        default_access: Access { scheme: Scheme::Https, ca: [].into(), client: None, login: None, insecure: false, at: None },
        mirrors: Vec::new(),
        pause: None,
        search: None,
        deny_domains: None,
        canaries: Vec::new(),
        passing: std::collections::BTreeSet::new(),
        exact: std::collections::BTreeSet::new(),
        names: nodeprep::spec::Names::default(),
    }
}

/// What would be written, and which CAs the bundle lacks by their fingerprints (rule 21 of 8.4).
fn report(spec: &Spec, tree: &Tree) -> String {
    let mut text = String::new();
    let family = trust::family(tree);
    let part = trust::want(spec, &family, tree);
    let problem = |text: &mut String, kind: &str, problem: &Problem| {
        writeln!(text, "{kind} {}: {}; {}", problem.code, problem.what, problem.help).unwrap();
    };
    if let Ok(family) = &family {
        writeln!(text, "family {}\nrefresh {}\nrefresh {}", family.name, family.refresh(false).join(" "), family.refresh(true).join(" "))
            .unwrap();
    }
    for (path, want) in &part.wants {
        let Want::Whole(file) = want else { panic!("{path}") };
        writeln!(text, "file {path} {:o} stage {}", file.mode, file.stage).unwrap();
        for fingerprint in fingerprints(&file.content.bytes) {
            writeln!(text, "  {}", fingerprint.short()).unwrap();
        }
    }
    match &part.refused {
        None => {}
        Some(Refusal::Cannot(problems)) => problems.iter().for_each(|one| problem(&mut text, "cannot", one)),
        Some(Refusal::Conflict(problems)) => problems.iter().for_each(|one| problem(&mut text, "conflict", one)),
    }
    part.notes.iter().for_each(|note| problem(&mut text, "note", note));
    if let Ok(family) = &family {
        for fingerprint in trust::missing(spec, family, tree) {
            writeln!(text, "missing {}", fingerprint.short()).unwrap();
        }
    }
    text
}
