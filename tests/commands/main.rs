//! Every command on README.md and the pages of docs/ is run, or `host.rs` says why it cannot be and what runs it instead.
//!
//! - `nodeprep …`: the real program, on a scratch node (`scratch.rs`). The pages of a reader's way share one node each: blocks are run from the top to
//!   the end of a page. Paths below `/etc`, `/usr`, `/var`, `/run`, `/mnt`, `/opt`, `/srv`, `/root` and `/host` are those of the node; where no
//!   `--root` is given it is the default, as `/` would be. The exit code is 0, or the one that the line's comment names (`# exit code 10`).
//! - what a shell brings (`cp`, `mkdir`, `sha256sum`, …): run as it stands, with the same paths.
//! - `make X`: the recipe exists. `kubectl apply -k|-f PATH`, `helm … PATH`: the path and each `--set` key exist.
//! - everything else has to be in a row of `host.rs`.
//!
//! Flags, variables and subcommands that the text names exist, too.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod files;
mod host;
mod kubernetes;
mod page;
mod scratch;
#[path = "../source_cli/server.rs"]
#[allow(dead_code, reason = "its other users need more of it")]
mod server;
mod text;
mod words;

use page::{Command, project};
use scratch::Scratch;

/// What runs on any machine and belongs to nobody.
const SHELL: [&str; 16] =
    ["cat", "cd", "chmod", "cp", "echo", "export", "grep", "install", "ls", "mkdir", "mv", "printf", "rm", "sha256sum", "test", "umask"];

enum Kind {
    Nodeprep,
    Shell,
    Make,
    Kubernetes,
    Elsewhere,
}

/// Who runs a single command.
fn kind(part: &str) -> Result<Kind, String> {
    let words: Vec<&str> = part.split_whitespace().skip_while(|word| is_assignment(word)).collect();
    let rest = words.join(" ");
    let first = *words.first().ok_or("nothing is run")?;
    if host::ELSEWHERE.iter().any(|row| rest.starts_with(row.begins)) {
        return Ok(Kind::Elsewhere);
    }
    match first {
        "nodeprep" | "nodeprep-bootstrap" => Ok(Kind::Nodeprep),
        "make" => Ok(Kind::Make),
        "kubectl" | "helm" if kubernetes::is_known(&words) => Ok(Kind::Kubernetes),
        first if SHELL.contains(&first) => Ok(Kind::Shell),
        _ => Err(format!("`{part}` is run by nobody: run it here, or add a row to tests/commands/host.rs that says why not")),
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_uppercase()))
}

/// The spec of the README: what a reader has at hand.
fn spec() -> String {
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap().to_owned()
}

#[test]
fn every_command_is_run() {
    let spec = spec();
    let mut wrong = Vec::new();
    let mut ran = 0;
    for (page, text) in page::all() {
        let commands = page::commands(&page, &text);
        if commands.is_empty() {
            continue;
        }
        if let Some((_, test)) = host::FOLLOWED.iter().find(|(followed, _)| *followed == page) {
            let source = std::fs::read_to_string(project(test)).unwrap();
            assert!(source.contains(&format!("/{page}\"")), "{test} does not read {page}");
            continue;
        }
        let mut scratch = Scratch::new(&spec);
        for command in &commands {
            ran += 1;
            wrong.extend(run(&mut scratch, command).err().map(|why| format!("{}\n    {}", command.place(), why.replace('\n', "\n    "))));
        }
    }
    assert!(wrong.is_empty(), "{} of {ran} commands:\n{}", wrong.len(), wrong.join("\n"));
    assert!(ran >= 20, "only {ran} commands were found");
}

/// Runs a line as far as it can be run here.
fn run(scratch: &mut Scratch, command: &Command) -> Result<(), String> {
    let parts = page::parts(&command.text);
    let mut ours = Vec::new();
    for part in &parts {
        match kind(part)? {
            Kind::Nodeprep | Kind::Shell => ours.push(part.clone()),
            Kind::Make => make(part)?,
            Kind::Kubernetes => kubernetes::holds(part)?,
            Kind::Elsewhere => shipped(part)?,
        }
    }
    // a line that is all ours is run as it stands, with its pipes; of others, the parts that are ours
    let lines = if ours.len() == parts.len() { vec![command.text.clone()] } else { ours };
    for line in lines {
        let agent = line.starts_with("nodeprep agent");
        let output = if agent { scratch.agent(&line) } else { scratch.run(&line) };
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.code() != Some(command.code) {
            return Err(format!("ended with {} instead of {}:\n{said}", output.status, command.code));
        }
        if let Some(shown) = &command.output {
            let (shown, was) = (scratch.shape(shown), scratch.shape(&String::from_utf8_lossy(&output.stdout)));
            if shown != was {
                return Err(format!("the page shows\n{shown}\nand it says\n{was}"));
            }
        }
    }
    Ok(())
}

fn make(part: &str) -> Result<(), String> {
    let makefile = std::fs::read_to_string(project("Makefile")).unwrap();
    for recipe in part.split_whitespace().skip(1).filter(|word| !word.contains('=')) {
        if !makefile.contains(&format!("\n{recipe}:")) {
            return Err(format!("the Makefile has no {recipe}"));
        }
    }
    Ok(())
}

/// What a command that runs elsewhere names of ours is shipped.
fn shipped(part: &str) -> Result<(), String> {
    for unit in part.split_whitespace().filter(|word| word.starts_with("nodeprep") && word.ends_with(".service")) {
        if !project("systemd").join(unit).exists() {
            return Err(format!("there is no unit {unit}"));
        }
    }
    Ok(())
}

/// A row is about something that is there, and something on the pages is in each row.
#[test]
fn what_runs_elsewhere_is_run_there() {
    let commands: Vec<Command> = page::all().iter().flat_map(|(page, text)| page::commands(page, text)).collect();
    let parts: Vec<String> = commands.iter().flat_map(|command| page::parts(&command.text)).collect();
    for row in host::ELSEWHERE {
        assert!(!row.why.is_empty() && !row.instead.is_empty(), "{}", row.begins);
        for (file, what) in row.instead {
            let text = std::fs::read_to_string(project(file)).unwrap_or_else(|error| panic!("{}: {file}: {error}", row.begins));
            assert!(text.contains(what), "{}: {file} does not say {what}", row.begins);
        }
        let used = |part: &String| {
            part.split_whitespace().skip_while(|word| is_assignment(word)).collect::<Vec<_>>().join(" ").starts_with(row.begins)
        };
        assert!(parts.iter().any(used), "no page says `{}` any more: take the row out", row.begins);
    }
}

/// The kinds themselves: what nobody runs is not passed over.
#[test]
fn nothing_is_passed_over() {
    assert!(kind("frobnicate --now").is_err());
    assert!(kind("systemctl restart containerd").is_err());
    assert!(kind("kubectl frobnicate").is_err());
    assert!(matches!(kind("NODEPREP_PROBE=off nodeprep plan"), Ok(Kind::Nodeprep)));
    let found = page::commands(
        "x",
        "```sh\nnodeprep plan --exit-code   # exit code 10\nnodeprep a \\\n  b # c\n```\n```console\n$ ls # x\nout\n```\n",
    );
    assert_eq!(found.len(), 3);
    assert_eq!((found[0].text.as_str(), found[0].code), ("nodeprep plan --exit-code", 10));
    assert_eq!(found[1].text, "nodeprep a b");
    assert_eq!(found[2].output.as_deref(), Some("out\n"));
    assert_eq!(page::parts("a && b | c 'd; e'; f"), ["a", "b", "c 'd; e'", "f"]);
    let mut scratch = Scratch::new("version = 1\n");
    let mut at = |text: &str, code: i32| {
        let command = Command { page: "x".into(), number: 1, text: text.into(), code, output: None };
        run(&mut scratch, &command)
    };
    assert!(at("nodeprep plan --no-such-flag", 0).is_err(), "a flag that is not there");
    assert!(at("nodeprep plan --no-such-flag", 2).is_ok());
    assert!(at("make no-such-recipe", 0).is_err());
    assert!(at("systemctl enable nodeprep-nothing.service", 0).is_err());
}
