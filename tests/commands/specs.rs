//! Every spec that the pages show is one: nothing is wrong with it but that its files are not here. Those that are shipped: `tests/packaging.rs`.

use std::process::Command;

use crate::page::all;

/// What may be wrong with an example: what it references lies beside the reader.
const ALLOWED: [&str; 2] = ["error[reference-unreadable]", "error[pin-mismatch]"];

/// The blocks of a page in a language, without their indentation.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut inside: Option<usize> = None;
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        match (inside, line.trim().strip_prefix("```")) {
            (None, Some(info)) if info == language => {
                inside = Some(indent);
                found.push(String::new());
            }
            (Some(_), Some(_)) => inside = None,
            (Some(indent), None) => found.last_mut().unwrap().extend([line.get(indent..).unwrap_or_default(), "\n"]),
            _ => {}
        }
    }
    found
}

fn wrong(whose: &str, text: &str, ending: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let spec = folder.path().join(format!("spec.{ending}"));
    std::fs::write(&spec, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).arg("check").arg("--spec").arg(&spec).env_clear().output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error[")).collect();
    let bad = errors.iter().any(|error| !ALLOWED.iter().any(|allowed| error.starts_with(allowed)));
    (bad || (output.status.code() != Some(0) && errors.is_empty())).then(|| format!("{whose}: {said}\nof\n{text}"))
}

/// A document of what may be a part of one.
fn whole(text: &str) -> String {
    let head = if text.contains("version") { "" } else { "version = 1\nfallback = \"never\"\n" };
    format!("{head}{text}")
}

#[test]
fn each_spec_is_one() {
    let mut problems = Vec::new();
    let mut found = 0;
    for (page, text) in all() {
        for block in blocks(&text, "toml") {
            found += 1;
            problems.extend(wrong(&page, &whole(&block), "toml"));
        }
        for block in blocks(&text, "yaml").into_iter().filter(|block| !block.contains("apiVersion:")) {
            found += 1;
            problems.extend(wrong(&page, &block, "yaml"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n\n"));
    assert!(found >= 3, "{found}");
    assert!(wrong("a test", "version = 1\nfallback = \"never\"\nsuorce = 1\n", "toml").is_some(), "a key that is not there");
}
