//! `docs/troubleshooting.md`: every text of a runtime is one that a real program has said in a test, or names where it is known from; every code, check and
//! exit code is the program's, and none that is about a node is missing.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use nodeprep::report::exit::Outcome;

use crate::page::project;

/// Texts that a test of ours hears from a real program elsewhere than in `fixtures/real/says*`: the file that says so, and its words.
const HEARD: &[(&str, &str, &str)] = &[
    // words of a pull whose whole line the cases check in parts
    ("failed to resolve reference", "fixtures/real/says/case.toml", "containerd"),
    ("no such host", "fixtures/real/says/case.toml", "lookup denied-by-nodeprep.invalid"),
    ("is blocked in /etc/containers/registries.conf", "fixtures/real/says-podman/case.toml", "registry closed.example is blocked in"),
    (
        "mirrors cannot be set when config_path is provided",
        "tests/shadow/cases.rs",
        "`mirrors` cannot be set when `config_path` is provided",
    ),
    (
        "rpc error: code = Unimplemented desc = unknown service runtime.v1.ImageService",
        "tests/real/cri.rs",
        "unknown service runtime.v1.RuntimeService",
    ),
];

/// Texts that are known from elsewhere.
const KNOWN: &[&str] = &[
    // Go's net package
    "i/o timeout",
    // the code of the distribution API for status 429
    "toomanyrequests",
    // hosts.go
    "failed to decode hosts.toml",
    // no text: what people say
    "certs.d",
    // server/config
    "unsupported config version",
    // pkg/shortnames of containers/image
    "short-name resolution enforced but cannot prompt without a TTY",
];

fn page() -> String {
    std::fs::read_to_string(project("docs/troubleshooting.md")).unwrap()
}

fn section<'a>(page: &'a str, title: &str) -> &'a str {
    let rest = page.split(&format!("\n## {title}\n")).nth(1).unwrap_or_else(|| panic!("no section {title}"));
    rest.split("\n## ").next().unwrap()
}

#[test]
fn each_text_was_heard_or_says_where_it_is_known_from() {
    let page = page();
    let said: String = std::fs::read_dir(project("fixtures/real"))
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("says"))
        .map(|entry| std::fs::read_to_string(entry.path().join("case.toml")).unwrap())
        .collect();
    let said = said.split("\n[says.").skip(1).collect::<String>();
    let mut texts = 0;
    for entry in section(&page, "What the runtimes say").split("\n### ").skip(1) {
        let (title, body) = entry.split_once('\n').unwrap();
        let text = title.trim_start_matches('`').split('`').next().unwrap();
        texts += 1;
        let heard = HEARD.iter().find(|(words, ..)| *words == text);
        if let Some((_, file, words)) = heard {
            let source = std::fs::read_to_string(project(file)).unwrap();
            assert!(source.contains(words), "{text}: {file} does not hear {words:?}");
        }
        // the prefix that newer ones put in front belongs to the same words
        let in_case = said.contains(text.trim_start_matches("tls: failed to verify certificate: "));
        let known = KNOWN.contains(&text);
        assert!(heard.is_some() || in_case || known, "{text}: no program has said so, and nothing says where it is known from");
        let mark = if known { "- *Known:*" } else { "- *Seen:*" };
        assert!(body.contains(mark), "{text}: the page does not say `{mark}`");
    }
    assert!(texts >= 20, "{texts}");
    for text in KNOWN.iter().chain(HEARD.iter().map(|(text, ..)| text)) {
        assert!(page.contains(&format!("\n### `{text}")), "{text} is not on the page any more");
    }
}

/// The first cells of the rows of a table.
fn cells(section: &str) -> BTreeSet<String> {
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(1);
    rows.flat_map(|row| {
        row.trim_start_matches("| ").split(" | ").next().unwrap_or_default().split(", ").map(|cell| cell.trim_matches('`').to_owned())
    })
    .collect()
}

#[test]
fn the_exit_codes_are_all_there() {
    let page = page();
    let told = cells(section(&page, "What the exit codes ask for"));
    let all: BTreeSet<String> = Outcome::ALL.iter().map(|outcome| outcome.code().to_string()).filter(|code| code != "0").collect();
    assert_eq!(told, all);
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") && name != "tests.rs" {
            found.push(path);
        }
    }
}

/// A code as it stands in a call, or the constant that holds it.
fn code(text: &str, source: &str) -> Option<String> {
    let text = text.trim_start();
    if let Some(rest) = text.strip_prefix('"') {
        return rest.split('"').next().map(str::to_owned);
    }
    let name: String = text.chars().take_while(|char| *char == '_' || char.is_ascii_uppercase()).collect();
    let value = source.split(&format!("const {name}: &str = \"")).nth(1)?;
    value.split('"').next().map(str::to_owned)
}

/// Errors and warnings about a node: every code that the program tells elsewhere than of a spec.
fn codes() -> BTreeSet<String> {
    let mut found = Vec::new();
    sources(&project("src"), &mut found);
    let mut codes = BTreeSet::new();
    for path in found.iter().filter(|path| !path.starts_with(project("src/spec")) && !path.ends_with("report/problems.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split("\n#[cfg(test)]").next().unwrap();
        for call in ["Problem::error(", "Problem::warning("] {
            codes.extend(text.split(call).skip(1).filter_map(|rest| code(rest, text)));
        }
    }
    codes
}

#[test]
fn every_message_about_a_node_is_explained() {
    let page = page();
    let told = cells(section(&page, "What nodeprep says"));
    let codes = codes();
    assert!(codes.len() > 60, "{codes:?}");
    let missing: Vec<&String> = codes.difference(&told).collect();
    assert!(missing.is_empty(), "docs/troubleshooting.md does not explain {missing:?}: add a row");
    let mut all = String::new();
    let mut found = Vec::new();
    sources(&project("src"), &mut found);
    for path in &found {
        all.push_str(&std::fs::read_to_string(path).unwrap());
    }
    let gone: Vec<&String> = told.iter().filter(|code| !all.contains(&format!("\"{code}\""))).collect();
    assert!(gone.is_empty(), "no message has these codes: {gone:?}");
    let checks = page.split("has a name too: ").nth(1).unwrap();
    let checks: Vec<&str> = checks.split('`').skip(1).step_by(2).collect();
    assert!(checks.len() >= 10, "{checks:?}");
    for check in checks {
        assert!(all.contains(&format!("\"{check}\"")), "verify finds no {check}");
    }
}
