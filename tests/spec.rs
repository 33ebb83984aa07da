//! Specs, and what is said about them: one test for each folder of `fixtures/spec`, and properties over random documents.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "a test reads its fixtures")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use libtest_mimic::{Arguments, Failed, Trial};
use nodeprep::model::problem::{Problem, Severity};
use nodeprep::model::time::Time;
use nodeprep::report::problems::render;
use nodeprep::spec::Spec;
use nodeprep::spec::documents::Document;
use nodeprep::spec::load::{Draft, LARGEST};
use nodeprep::spec::problems::CODES;
use nodeprep::spec::reference::Location;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const FIXTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/spec");

fn main() {
    let mut tests: Vec<Trial> = cases().into_iter().map(|case| Trial::test(format!("fixtures::{case}"), move || golden(&case))).collect();
    tests.push(Trial::test("every_code_occurs_in_a_fixture", every_code));
    tests.push(Trial::test("any_bytes_are_survived", any_bytes));
    tests.push(Trial::test("any_toml_is_survived", any_toml));
    tests.push(Trial::test("no_excerpt_shows_a_password", no_password));
    tests.push(Trial::test("a_thousand_mirrors", a_thousand_mirrors));
    libtest_mimic::run(&Arguments::from_args(), tests).exit();
}

fn cases() -> Vec<String> {
    let folders = fs::read_dir(FIXTURES).unwrap().filter_map(Result::ok);
    let mut names: Vec<String> =
        folders.map(|entry| entry.file_name().into_string().unwrap()).filter(|name| !name.starts_with('_')).collect();
    names.sort();
    names
}

/// The documents of a case: `spec.toml`, `spec.yaml`, or all of the folder `spec`, which is then called so.
fn documents(folder: &Path) -> Vec<Document> {
    let read = |path: &str| fs::read(folder.join(path)).ok().map(|bytes| Document { file: path.to_owned(), bytes });
    if let Some(only) = read("spec.toml").or_else(|| read("spec.yaml")) {
        return vec![only];
    }
    let names = fs::read_dir(folder.join("spec")).unwrap().filter_map(Result::ok);
    let mut names: Vec<String> = names.map(|entry| format!("spec/{}", entry.file_name().into_string().unwrap())).collect();
    names.sort();
    names.iter().map(|name| read(name).unwrap()).collect()
}

fn draft(folder: &Path) -> Result<Draft, Vec<Problem>> {
    let documents = documents(folder);
    let name = if let [only] = documents.as_slice() { only.file.clone() } else { "spec".to_owned() };
    Draft::open_all(&name, &documents)
}

/// Everything that is said about a case.
fn run(case: &str) -> (Option<Spec>, Vec<Problem>) {
    let folder = Path::new(FIXTURES).join(case);
    let now = fs::read_to_string(folder.join("now")).ok().map(|secs| Time::from_secs(secs.trim().parse().unwrap()));
    let draft = match draft(&folder) {
        Ok(draft) => draft,
        Err(problems) => return (None, problems),
    };
    let mut materials = BTreeMap::new();
    for reference in draft.references() {
        let Location::Beside(path) = &reference.location else { continue };
        let read = fs::read(folder.join(path)).or_else(|_| fs::read(Path::new(FIXTURES).join("_material").join(path)));
        materials.insert(reference.written.clone(), read.map_err(|_| "no such file".to_owned()));
    }
    let closed = draft.close(&materials, now);
    let proof = closed.proof();
    let mut problems = closed.problems;
    problems.extend(proof);
    (closed.spec, problems)
}

fn golden(case: &str) -> Result<(), Failed> {
    let (spec, problems) = run(case);
    let mut said = render(&problems, false);
    said.push_str(if spec.is_some() { "spec: yes\n" } else { "spec: no\n" });
    let file = Path::new(FIXTURES).join(case).join("want.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &said)?;
    }
    let want = fs::read_to_string(&file).unwrap_or_default();
    if said != want {
        let diff = similar::TextDiff::from_lines(&want, &said).unified_diff().header("want.txt", "said").to_string();
        return Err(format!("{diff}\nUPDATE_GOLDEN=1 writes it anew").into());
    }
    for problem in &problems {
        if problem.severity == Severity::Error && problem.help.is_empty() {
            return Err(format!("{} has no help", problem.code).into());
        }
        if problem.what.chars().next().is_some_and(char::is_uppercase) && !problem.what.starts_with("CRI-O") {
            return Err(format!("{:?} does not begin in lower case", problem.what).into());
        }
    }
    Ok(())
}

fn every_code() -> Result<(), Failed> {
    let mut found: BTreeSet<&str> = cases().iter().flat_map(|case| run(case).1).map(|problem| problem.code).collect();
    found.extend(Draft::open("spec.toml", &vec![b'#'; LARGEST + 1]).unwrap_err().iter().map(|problem| problem.code));
    let crowd = format!("version = 1\nfallback = 'never'\nruntimes = {:?}\n", ["x"; 600]);
    found.extend(
        Draft::open("spec.toml", crowd.as_bytes()).unwrap().close(&BTreeMap::new(), None).problems.iter().map(|problem| problem.code),
    );
    let missing: Vec<&str> = CODES.iter().map(|(code, _)| *code).filter(|code| !found.contains(code)).collect();
    let unknown: Vec<&&str> = found.iter().filter(|code| !CODES.iter().any(|(known, _)| known == *code)).collect();
    if missing.is_empty() && unknown.is_empty() {
        Ok(())
    } else {
        Err(format!("in no fixture: {missing:?}; in no table: {unknown:?}").into())
    }
}

fn check(bytes: &[u8]) -> Result<(), TestCaseError> {
    let problems = match Draft::open("spec.toml", bytes) {
        Ok(draft) => draft.close(&BTreeMap::new(), Some(Time::from_secs(1_795_000_000))).problems,
        Err(problems) => problems,
    };
    let text = String::from_utf8_lossy(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)).into_owned();
    let lines: Vec<&str> = text.split('\n').collect();
    for problem in &problems {
        let Some(place) = &problem.at else { continue };
        prop_assert!(place.line as usize <= lines.len(), "{problem:?}");
        if place.line > 0 {
            let width = lines[place.line as usize - 1].chars().count();
            prop_assert!(place.column as usize <= width + 1, "{problem:?}");
        }
        if let Some(excerpt) = &problem.excerpt {
            prop_assert!(
                excerpt.width > 0 && excerpt.column > 0 && excerpt.column as usize <= excerpt.text.chars().count() + 1,
                "{problem:?}"
            );
        }
        prop_assert!(CODES.iter().any(|(code, _)| *code == problem.code), "{problem:?}");
    }
    let shown = render(&problems, false);
    prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{shown:?}");
    Ok(())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

fn any_bytes() -> Result<(), Failed> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..200);
    runner(500).run(&bytes, |bytes| check(&bytes)).map_err(|error| error.to_string().into())
}

/// Documents of the spec's own keys with values that fit and that do not.
fn document() -> impl Strategy<Value = String> {
    let key = prop::sample::select(vec![
        "version",
        "fallback",
        "unlisted",
        "runtimes",
        "ca",
        "name",
        "file",
        "pem",
        "trust",
        "host",
        "client_cert",
        "client_key",
        "credentials",
        "insecure",
        "source",
        "endpoints",
        "on_unready",
        "widen",
        "pause_image",
        "mirror",
        "registry",
        "runtime",
        "password",
        "endpiont",
        "\"ä b\"",
    ]);
    let value = prop_oneof![
        Just("1".to_owned()),
        Just("1.5".to_owned()),
        Just("true".to_owned()),
        Just("1979-05-27".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        Just("[{ name = 'a' }, 1]".to_owned()),
        Just("{ x.y = 1 }".to_owned()),
        prop::sample::select(vec![
            "never",
            "upstream",
            "quay.io",
            "docker.io",
            "http://a.b:5000/v2/x",
            "htps://a",
            "A.b",
            "[::1]:1",
            "a@b",
            "node:/x",
            "../x",
            "x.pem",
            "crio",
            "日本",
            "",
            "a\\u001bb",
        ])
        .prop_map(|word| format!("\"{word}\"")),
        prop::collection::vec("[a-zA-Z0-9:/.@\\[\\]*{ _-]{0,20}", 0..3).prop_map(|words| format!("{words:?}")),
        "[ -~äöü\u{4e00}]{0,20}".prop_map(|text| format!("'{}'", text.replace('\'', ""))),
    ];
    let line = prop_oneof![
        6 => (key, value).prop_map(|(key, value)| format!("{key} = {value}")),
        2 => prop::sample::select(vec!["[[ca]]", "[[registry]]", "[[mirror]]", "[runtime]", "[[runtime]]", "[mirror]", "[a.b]"]).prop_map(ToOwned::to_owned),
    ];
    prop::collection::vec(line, 0..20).prop_map(|lines| {
        // a key twice in one table is a syntax error, which would hide the rest
        let mut seen = BTreeSet::new();
        let mut text = String::new();
        for line in lines {
            if line.starts_with('[') {
                seen.clear();
            } else if !seen.insert(line.split(' ').next().unwrap_or_default().to_owned()) {
                continue;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    })
}

fn any_toml() -> Result<(), Failed> {
    runner(2000).run(&document(), |text| check(text.as_bytes())).map_err(|error| error.to_string().into())
}

fn no_password() -> Result<(), Failed> {
    let places = prop::sample::select(vec![
        "password = 'hunter2-0'\n",
        "[[registry]]\nhost = 'a.b'\nauth = { username = 'me', x = 'hunter2-0' }\n",
        "[[registry]]\nhost = 'a.b'\ncredentials = 'me:hunter2-0'\n",
        "[[registry]]\nhost = 'me:hunter2-0@a.b'\n",
        "[[mirror]]\nsource = 'a.b'\nendpoints = ['https://me:hunter2-0@a.b']\n",
        "[[mirror]]\nsource = 'a.b'\nendpoints = ['me:hunter2-0@a.b']\n",
        "[[registry]]\nhost = 'a.b'\nclient_key = '''\n-----BEGIN PRIVATE KEY-----\nhunter2-0\n-----END PRIVATE KEY-----\n'''\n",
        "[[mirror]]\nsource = 'me:hunter2-0@a.b/x'\nendpoints = ['https://me:x/hunter2-0@a.b', 'http//me:hunter2-0@a.b']\n",
        "[runtime]\npause_image = 'me:hunter2-0@a.b/pause:1'\n",
        "token = 'hunter2-0\n",
        "[runtime]\ntoken = ['hunter2-0', 1]\n",
    ]);
    runner(300)
        .run(&(document(), places), |(text, place)| {
            for text in [format!("{place}{text}"), format!("{text}{place}")] {
                let problems = match Draft::open("spec.toml", text.as_bytes()) {
                    Ok(draft) => draft.close(&BTreeMap::new(), None).problems,
                    Err(problems) => problems,
                };
                let shown = format!("{}{problems:?}", render(&problems, false));
                prop_assert!(!shown.contains("hunter2"), "{shown}");
            }
            Ok(())
        })
        .map_err(|error| error.to_string().into())
}

fn a_thousand_mirrors() -> Result<(), Failed> {
    use std::fmt::Write as _;
    let mut text = String::from("version = 1\nfallback = 'never'\n");
    for number in 0..1000 {
        let _ = writeln!(text, "[[mirror]]\nsource = 'r{number}.example.com'\nendpoints = ['m.corp/r{number}', 'n.corp/r{number}']");
    }
    let closed = Draft::open("spec.toml", text.as_bytes()).map_err(|problems| format!("{problems:?}"))?.close(&BTreeMap::new(), None);
    let spec = closed.spec.ok_or("no spec")?;
    if (spec.mirrors.len(), spec.access.len()) == (1000, 2) { Ok(()) } else { Err("not all mirrors are there".into()) }
}
