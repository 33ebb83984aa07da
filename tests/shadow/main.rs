//! The preflight with real containerds: what a shadow finds, and that nothing on the node is any different for it.
//!
//! Each case runs once per version that `tests/real/prepare` has unpacked, in namespaces of its own in which this machine is a node with
//! that containerd (`enclose`). Without root or the programs they are skipped with a line that says so, or fail if NODEPREP_REAL=required.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod cases;
mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};
use nodeprep::model::version::Version;

/// In the environment of this program's own child: the case, and the version that it runs with.
const CASE: &str = "NODEPREP_SHADOW_CASE";
const VERSION: &str = "NODEPREP_SHADOW_VERSION";

fn main() -> ExitCode {
    if let (Ok(name), Ok(version)) = (std::env::var(CASE), std::env::var(VERSION)) {
        let run = cases::ALL.iter().find(|(known, _)| *known == name).map(|(_, run)| run);
        let outcome = match (run, Version::find(&version)) {
            (Some(run), Some(version)) => run(version),
            _ => Err(anyhow::anyhow!("there is no case {name:?} of {version:?}")),
        };
        return match outcome {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:?}");
                ExitCode::FAILURE
            }
        };
    }
    let missing = missing();
    for reason in &missing {
        println!("skipped: shadows of real containerds: {reason}");
    }
    let required = std::env::var("NODEPREP_REAL").is_ok_and(|value| value == "required");
    let mut trials = Vec::new();
    for (name, _) in cases::ALL {
        if !missing.is_empty() {
            let why = missing.join("; ");
            let trial = move || if required { Err(Failed::from(format!("NODEPREP_REAL=required, but {why}"))) } else { Ok(()) };
            trials.push(Trial::test(*name, trial).with_ignored_flag(!required));
            continue;
        }
        for (version, program) in programs() {
            trials.push(Trial::test(format!("{name}-{version}"), move || enclosed(name, &version, &program)));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn prepared() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/real")
}

/// Why this cannot run here; empty when it can.
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

/// Every containerd that is there: its version as it says itself, and its program.
fn programs() -> Vec<(String, PathBuf)> {
    let others = fs::read_dir(prepared().join("containerd")).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<(String, PathBuf)> = std::iter::once(prepared())
        .chain(others)
        .filter_map(|folder| {
            let program = folder.join("root/usr/bin/containerd");
            let said = Command::new(&program).arg("--version").output().ok()?;
            Some((Version::find(&String::from_utf8_lossy(&said.stdout))?.to_string(), program))
        })
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no containerd below {}", prepared().display());
    found
}

/// Runs one case in namespaces of its own: everything that it starts dies with the process that is number 1 in there, and that one dies with us.
fn enclosed(case: &str, version: &str, program: &Path) -> Result<(), Failed> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("shadow").join(format!("{case}-{version}"));
    fs::create_dir_all(&scratch)?;
    let path = format!("{}:{}", prepared().join("root/sbin").display(), std::env::var("PATH").unwrap_or_default());
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--ipc", "--pid", "--fork", "--kill-child", "--"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/shadow/enclose"))
        .args([&scratch, program])
        .arg(std::env::current_exe()?)
        .env_clear()
        .envs([("PATH", path.as_str()), (CASE, case), (VERSION, version)])
        .output()?;
    let _ = fs::remove_dir(&scratch);
    if output.status.success() { Ok(()) } else { Err(node::said(&output).into()) }
}
