//! Golden flows: a node root before and a spec → plan text, node root after, explain text; then a second apply that changes
//! nothing, and revert back to the first byte. One folder below `fixtures/flow/` per case, walked here, not listed.
//!
//! | in the folder | is |
//! |---|---|
//! | `spec.toml` and what it references, or `spec/` with several documents | the spec |
//! | `before/` | the node's root; `.keep` files stand for empty folders |
//! | `images` | one image per line, for explain; may be missing |
//! | `image` | the root is that of an image: nothing runs there; else it is that of a running system, seen from elsewhere |
//! | `flags` | further flags of plan and apply; may be missing |
//! | `plan.txt` | `plan` and its exit code |
//! | `after.txt` | what differs after `apply`: path, mode, content; secrets are in fixtures on purpose here |
//! | `explain.txt` | `explain` afterwards |
//! | `verify.txt` | `verify --offline` before and after |
//! | `then/` | the documents of the same spec later on, applied over it; may be missing |
//! | `then.txt` | with `then/`: its `plan`, and what differs after its `apply` |
//! | `superseded` | with `then/`: one secret per line that stands nowhere on the node after it |
//!
//! `UPDATE_GOLDEN=1` rewrites those that end in `.txt`.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

#[path = "../secrets/mod.rs"]
mod secrets;
mod tree;

use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::{Arguments, Failed, Trial};

use secrets::Secrets;

fn main() {
    let arguments = Arguments::from_args();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/flow");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder).expect("fixtures/flow").map(|entry| entry.expect("entry").path()).collect();
    cases.retain(|case| case.join("spec.toml").exists() || case.join("spec").exists());
    cases.sort();
    assert!(!cases.is_empty(), "no cases below {}", folder.display());
    let trials = cases.into_iter().map(|case| {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Trial::test(name, move || run(&case))
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

fn run(case: &Path) -> Result<(), Failed> {
    let scratch = tempfile::tempdir()?;
    let node = scratch.path().join("node");
    tree::copy(&case.join("before"), &node)?;
    if !case.join("image").exists() {
        std::fs::create_dir_all(node.join("proc/1"))?;
    }
    for entry in std::fs::read_dir(case)? {
        let path = entry?.path();
        if path.is_file() {
            std::fs::copy(&path, scratch.path().join(path.file_name().unwrap_or_default()))?;
        }
    }
    let flags = std::fs::read_to_string(case.join("flags")).unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().collect();
    let spec = if case.join("spec").exists() { case.join("spec") } else { case.to_owned() };
    let secrets = Secrets::of(&[&spec, &case.join("then"), &case.join("before")]).map_err(|error| format!("{error:#}"))?;
    let nodeprep = |words: &[&str]| -> Result<(String, i32), Failed> {
        let output = Command::new(env!("CARGO_BIN_EXE_nodeprep"))
            .args(words)
            .current_dir(scratch.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let given_away = secrets.judge(&words.join(" "), &text);
        if !given_away.is_empty() {
            return Err(given_away.join("\n").into());
        }
        Ok((text, output.status.code().unwrap_or(-1)))
    };
    let several = case.join("spec").exists();
    if several {
        tree::copy(&case.join("spec"), &scratch.path().join("spec"))?;
    }
    let here = ["--spec", if several { "spec" } else { "spec.toml" }, "--root", "node"];
    let with = |words: &[&str]| -> Vec<String> { words.iter().chain(&here).chain(&flags).map(ToString::to_string).collect() };
    let with_spec = |words: &[&str]| -> Vec<String> { words.iter().chain(&here).map(ToString::to_string).collect() };
    let call = |words: Vec<String>| nodeprep(&words.iter().map(String::as_str).collect::<Vec<_>>());

    // the same in the other form and with all of the log
    let loudly = || -> Result<(), Failed> {
        for words in [
            &["-vv", "plan", "--output", "json"][..],
            &["-vv", "plan", "--foreign", "carry"],
            &["-vv", "verify", "--offline", "--output", "json"],
        ] {
            call(with_spec(words))?;
        }
        nodeprep(&["-vv", "status", "--root", "node"])?;
        nodeprep(&["-vv", "status", "--output", "json", "--root", "node"])?;
        nodeprep(&["-vv", "explain", "--output", "json", "--root", "node", "docker.io/library/x"]).map(drop)
    };
    if !secrets.is_empty() {
        loudly()?;
    }
    let readable = secrets.holders(&node).map_err(|error| format!("{error:#}"))?;
    let before = tree::read(&node)?;
    let (plan, code) = call(with(&["plan"]))?;
    same(&tree::read(&node)?, &before, "plan changed the node")?;
    golden(&case.join("plan.txt"), &format!("{plan}exit code {code}\n"))?;

    let (checked, checked_code) = call(with_spec(&["verify", "--offline"]))?;
    let (applied, apply_code) = call(with(&["apply"]))?;
    if apply_code != code {
        return Err(format!("plan ended with {code}, apply with {apply_code}:\n{applied}").into());
    }
    let after = tree::read(&node)?;
    golden(&case.join("after.txt"), &tree::difference(&before, &after))?;
    for (path, mode) in secrets.holders(&node).map_err(|error| format!("{error:#}"))? {
        // whose file it was, his the mode
        if mode != 0o600 && readable.get(&path).is_none_or(|was| mode & !was != 0) {
            return Err(format!("/{} holds a secret with mode {mode:04o}", path.display()).into());
        }
    }
    if !secrets.is_empty() {
        loudly()?;
    }
    if code == 0 {
        let (pending, code) = call(with(&["plan", "--exit-code"]))?;
        if code != 0 && !pending.contains("due") {
            return Err(format!("after apply, plan --exit-code still ends with {code}:\n{pending}").into());
        }
    }
    if let Ok(images) = std::fs::read_to_string(case.join("images")) {
        let mut words = vec!["explain", "--root", "node"];
        words.extend(images.lines());
        let (text, code) = nodeprep(&words)?;
        golden(&case.join("explain.txt"), &format!("{text}exit code {code}\n"))?;
    }
    let (again, again_code) = call(with_spec(&["verify", "--offline"]))?;
    // a mess that others made elsewhere stays theirs
    if code == 0 && again_code != 0 && !case.join("mess").exists() {
        return Err(format!("apply succeeded, but verify says:\n{again}").into());
    }
    golden(&case.join("verify.txt"), &format!("before:\n{checked}exit code {checked_code}\n\nafter:\n{again}exit code {again_code}\n"))?;
    let stamps = tree::stamps(&node)?;
    call(with(&["apply"]))?;
    same(&tree::read(&node)?, &after, "the second apply changed the node")?;
    if tree::stamps(&node)? != stamps {
        return Err("the second apply wrote files again".into());
    }
    // what was replaced or carried over once is settled
    if code == 0 && flags.iter().any(|flag| flag.starts_with("--foreign")) {
        let (text, code) = call(with_spec(&["apply"]))?;
        if code != 0 || !text.contains("0 changes made") {
            return Err(format!("without --foreign, apply ended with {code}:\n{text}").into());
        }
        same(&tree::read(&node)?, &after, "apply without --foreign changed the node")?;
    }
    if case.join("then").exists() {
        later(case, scratch.path(), &after, &flags, &nodeprep)?;
    }
    let (text, code) = nodeprep(&["revert", "--root", "node"])?;
    if code != 0 {
        return Err(format!("revert ended with {code}:\n{text}").into());
    }
    same(&tree::read(&node)?, &before, "revert did not give back what was there")?;
    let trail = std::fs::read_to_string(node.join("var/lib/nodeprep/audit.log"))?;
    let given_away = secrets.judge("the audit trail", &trail);
    if given_away.is_empty() { Ok(()) } else { Err(given_away.join("\n").into()) }
}

/// What a run of nodeprep has said, and its exit code.
type Ran = Result<(String, i32), Failed>;

/// The same spec later on: it is applied over the first, and what it supersedes is gone.
fn later(case: &Path, scratch: &Path, after: &tree::Listing, flags: &[&str], nodeprep: &dyn Fn(&[&str]) -> Ran) -> Result<(), Failed> {
    let node = scratch.join("node");
    tree::copy(&case.join("then"), &scratch.join("then"))?;
    let secrets = std::fs::read_to_string(case.join("superseded")).unwrap_or_default();
    for secret in secrets.lines() {
        if tree::holding(&node, secret)?.is_empty() {
            return Err(format!("{secret} stands nowhere on the node, so that it cannot be superseded").into());
        }
    }
    let here = ["--spec", "then", "--root", "node"];
    let run = |words: &[&str]| nodeprep(&words.iter().chain(&here).copied().collect::<Vec<_>>());
    let (plan, code) = run(&[&["plan"], flags].concat())?;
    let (applied, apply_code) = run(&[&["apply"], flags].concat())?;
    if (code, apply_code) != (0, 0) {
        return Err(format!("the later spec: plan ended with {code}, apply with {apply_code}:\n{applied}").into());
    }
    let (checked, code) = run(&["verify", "--offline"])?;
    if code != 0 {
        return Err(format!("the later spec was applied, but verify says:\n{checked}").into());
    }
    for secret in secrets.lines() {
        let held = tree::holding(&node, secret)?;
        if !held.is_empty() {
            return Err(format!("{secret} was superseded and still stands in {held:?}").into());
        }
    }
    golden(&case.join("then.txt"), &format!("{plan}\n{}", tree::difference(after, &tree::read(&node)?)))
}

fn same(one: &tree::Listing, other: &tree::Listing, what: &str) -> Result<(), Failed> {
    let difference = tree::difference(other, one);
    if difference.is_empty() { Ok(()) } else { Err(format!("{what}:\n{difference}").into()) }
}

fn golden(file: &Path, text: &str) -> Result<(), Failed> {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, text)?;
        return Ok(());
    }
    let want = std::fs::read_to_string(file).unwrap_or_default();
    if want == text {
        return Ok(());
    }
    let diff = similar::TextDiff::from_lines(want.as_str(), text);
    let diff = diff.unified_diff().header("wanted", "got").to_string();
    Err(format!("{} is not as wanted (UPDATE_GOLDEN=1 rewrites it):\n{diff}", file.display()).into())
}
