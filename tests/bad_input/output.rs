//! Where the output goes, and in which form.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::node::{BINARY, Node};

fn command(node: &Node, words: &str) -> Command {
    let mut command = Command::new(BINARY);
    command.args(words.split_whitespace()).arg("--root").arg(&node.root);
    if words != "revert" {
        command.arg("--spec").arg(&node.spec);
    }
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
    command
}

#[test]
fn reader_that_goes_away() {
    let node = Node::new();
    for words in ["plan", "apply", "revert"] {
        let mut child = command(&node, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let output = child.wait_with_output().unwrap();
        assert_eq!((output.status.code(), output.stderr.len()), (Some(0), 0), "{words}: {output:?}");
    }
}

#[test]
fn full_disk_behind_standard_output() {
    let node = Node::new();
    let full = || fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    for words in ["plan", "apply", "revert"] {
        let output = command(&node, words).stdout(full()).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}: {said}");
        assert_eq!(said.matches("No space left").count(), 1, "{said}");
        assert!(said.contains("the report cannot be written to standard output") && said.contains("the run itself ended with 0"), "{said}");
        let output = command(&node, words).stdout(full()).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{words}");
    }
    node.clean();
    node.converges();
}

#[test]
fn variables() {
    let node = Node::new();
    let output = command(&node, "plan").env("NODEPREP_OUTPUT", "json").output().unwrap();
    assert!(serde_json::from_slice::<serde_json::Value>(&output.stdout).is_ok());
    for (name, value) in
        [("NODEPREP_OUTPUT", ""), ("NODEPREP_RUNTIME", "docker"), ("NODEPREP_FOREIGN", "foreign-s3cret"), ("NODEPREP_COLOR", "blue")]
    {
        let output = command(&node, "plan").env(name, value).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{name}: {said}");
        assert!(said.contains(&format!("variables too: {name}")), "{said}");
    }
    let output = command(&node, "plan --nonsense").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(!String::from_utf8(output.stderr).unwrap().contains("variables too"));
}

#[test]
fn colour_only_when_asked() {
    let node = Node::new();
    for words in ["plan", "apply", "explain --planned docker.io/x"] {
        let run = node.run(words);
        assert!(!run.out.contains('\u{1b}') && !run.err.contains('\u{1b}'), "{words}: not a terminal");
        let coloured = node.run(&format!("{words} --color always"));
        assert!(coloured.out.contains('\u{1b}'), "{words}");
        let json = node.run(&format!("{words} --color always --output json"));
        assert!(!json.out.contains('\u{1b}'), "{words}");
        json.json();
    }
}

/// Changes that are pending have an exit code of their own, where that is asked for; what may be done stands in every call.
#[test]
fn pending_changes_have_an_exit_code() {
    let node = Node::new();
    node.run("plan").says(0, &[]);
    node.run("plan --exit-code").says(10, &[]);
    node.run("apply --activate never --probe off").says(0, &[]);
    assert_eq!(node.run("apply --activate always").code, 2);
}

#[test]
fn json_on_every_way_out() {
    let node = Node::new();
    for words in [
        "check",
        "plan",
        "plan --exit-code",
        "apply",
        "apply",
        "revert",
        "revert",
        "explain docker.io/x",
        "explain :::",
        "explain --planned x",
        "verify --offline",
    ] {
        let run = node.run(&format!("{words} --output json"));
        assert_eq!(run.json()["exit_code"], run.code, "{words}: {}", run.out);
    }
}
