//! The forms of a spec: TOML and YAML say the same, the schema is what the decoder takes, folders, rendering.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs, reason = "tests have effects")]

mod folder;
mod notations;
mod render;
mod schema;

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Material of the fixtures.
const MATERIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/spec/_material");

/// Runs nodeprep in a folder; gives its exit code and what it printed on standard output.
fn nodeprep(folder: &Path, words: &[&str], input: &str) -> (i32, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    program.args(words).current_dir(folder).env_clear().stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = program.spawn().unwrap();
    // whoever does not read its input closes it
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), shown)
}

/// Runs it and holds exit code and fragments against what is wanted.
fn says(folder: &Path, words: &[&str], input: &str, code: i32, wanted: &[&str]) -> String {
    let (got, shown) = nodeprep(folder, words, input);
    assert_eq!(got, code, "{words:?}\n{shown}");
    for fragment in wanted {
        assert!(shown.contains(fragment), "{words:?}: {fragment:?} is not in\n{shown}");
    }
    shown
}
