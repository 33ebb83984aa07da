//! Real programs: nodeprep configures a scratch node, then containerd, podman and skopeo pull through what it wrote, from real registries on loopback.
//!
//! Each folder of `fixtures/real` is a case (`case.rs` says what may stand in it); each runs in namespaces of its own (`enclose`), so that cases run side by
//! side on the same addresses, the machine is neither asked nor written to, and nothing outlives the test. `prepare` unpacks the programs beforehand; where
//! that has not been done, or without root, the cases are skipped with a line that says so, or fail if NODEPREP_REAL=required.
#![allow(clippy::disallowed_methods, reason = "a test starts programs and touches files; only the product is held to node/")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was skipped, and what went wrong in the child, is said there")]

mod case;
mod image;
mod node;
mod promise;
mod pull;
mod registry;
mod round;
mod tree;
mod upstream;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

/// In the environment of this program's own child: the case to run, inside the namespaces made for it.
const INSIDE: &str = "NODEPREP_REAL_CASE";

/// Likewise: the folder of the containerd to use instead of the usual one; `enclose` reads it too.
const CONTAINERD: &str = "NODEPREP_REAL_CONTAINERD";

fn main() -> ExitCode {
    if let Some(name) = std::env::var_os(INSIDE) {
        let containerd = std::env::var_os(CONTAINERD).map(PathBuf::from);
        return match round::run(Path::new(&name), containerd.as_deref()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::FAILURE
            }
        };
    }
    let mut trials = promise::trials();
    let missing = missing();
    for reason in &missing {
        println!("skipped: real programs: {reason}");
    }
    let required = std::env::var("NODEPREP_REAL").is_ok_and(|value| value == "required");
    let usual = std::iter::once(None);
    for (containerd, case) in
        usual.chain(others().into_iter().map(Some)).flat_map(|containerd| cases().into_iter().map(move |case| (containerd.clone(), case)))
    {
        let name = scratch_name(&case, containerd.as_deref());
        let trial = if missing.is_empty() {
            Trial::test(name, move || enclosed(&case, containerd.as_deref()))
        } else if required {
            let why = missing.join("; ");
            Trial::test(name, move || Err(Failed::from(format!("NODEPREP_REAL=required, but {why}"))))
        } else {
            Trial::test(name, || Ok(())).with_ignored_flag(true)
        };
        trials.push(trial);
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Why the real programs cannot run here; empty when they can.
fn missing() -> Vec<String> {
    let mut reasons = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        reasons.push("not root: namespaces, mounts and containerd need it".to_owned());
    }
    if !prepared().join("env").exists() {
        reasons.push("nothing is unpacked: run tests/real/prepare target/real".to_owned());
    }
    reasons
}

/// What `prepare` unpacked.
fn prepared() -> PathBuf {
    source().join("target/real")
}

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The further versions of containerd that `prepare` found.
fn others() -> Vec<PathBuf> {
    let mut others: Vec<PathBuf> =
        std::fs::read_dir(prepared().join("containerd")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    others.sort();
    others
}

/// What a trial and its scratch folder are called.
fn scratch_name(case: &Path, containerd: Option<&Path>) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    containerd.map_or_else(|| last(case), |containerd| format!("{}-containerd-{}", last(case), last(containerd)))
}

fn cases() -> Vec<PathBuf> {
    let folder = source().join("fixtures/real");
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut cases: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.join("case.toml").exists()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{}: no case", folder.display());
    cases
}

/// Runs one case in namespaces of its own: everything that it starts dies with the process that is number 1 in there, and that one dies with us.
fn enclosed(case: &Path, containerd: Option<&Path>) -> Result<(), Failed> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real").join(scratch_name(case, containerd));
    let scratch = node::Scratch::new(&scratch).map_err(|error| format!("{error:?}"))?;
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--"])
        .arg(source().join("tests/real/enclose"))
        .args([scratch.root(), scratch.view(), prepared()])
        .arg(std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?)
        .env_clear()
        .envs(node::environment()?)
        .env(INSIDE, case)
        .envs(containerd.map(|containerd| (CONTAINERD, containerd)))
        .envs(std::env::var_os(round::OTHER_BINARY).map(|binary| (round::OTHER_BINARY, binary)))
        .output()
        .map_err(|error| format!("setpriv: {error}"))?;
    if output.status.success() {
        scratch.remove();
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}{}\neverything is kept in {}", String::from_utf8_lossy(&output.stdout), said, scratch.folder.display()).into())
}
