//! Booted nodes: nodeprep runs on a node with its own systemd, its containerd and Podman as the distribution installs them, and real pulls.
//!
//! Each trial boots a node of its own (`node.rs`) in namespaces of its own (`enclose`), over the root that `prepare` has made. Nothing of the machine is written
//! to, and nothing outlives the trial: with the first process of its namespace all others end, the node's included. Where nodes cannot be booted a line says so
//! and there are no trials, or they fail if NODEPREP_NODES=required.
#![allow(clippy::disallowed_methods, reason = "a test starts programs and touches files; only the product is held to node/")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was skipped, and what went wrong in the child, is said there")]
#![allow(
    dead_code,
    reason = "of what is shared with tests/real not everything is used here, and the node can do more than today's trials ask for"
)]

#[path = "../real/answer.rs"]
mod answer;
mod boot;
#[path = "../real/case.rs"]
mod case;
#[path = "../real/certificate.rs"]
mod certificate;
mod cgroup;
#[path = "../real/grpc.rs"]
mod grpc;
#[path = "../real/image.rs"]
mod image;
mod kubelet;
mod manifest;
mod node;
mod packages;
#[path = "../pages/command.rs"]
mod pages;
mod pods;
mod pulls;
#[path = "../real/responder.rs"]
mod responder;
mod setting;
#[path = "../real/tree.rs"]
mod tree;
mod trials;
#[path = "../real/upstream.rs"]
mod upstream;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use trials::{Test, Versions};
use world::World;

/// Longer than any trial takes, on a machine that is busy with other things too; one that hangs ends with its node, because this process is number 1 of its namespace.
const DEADLINE: Duration = Duration::from_secs(900);

fn main() -> ExitCode {
    if let Ok(name) = setting::trial() {
        return inside(&name);
    }
    let missing = missing();
    for reason in &missing {
        println!("skipped: booted nodes: {reason}");
    }
    let required = std::env::var("NODEPREP_NODES").is_ok_and(|value| value == "required");
    let others = if missing.is_empty() { containerds() } else { Vec::new() };
    let mut trials = Vec::new();
    for test in trials::ALL {
        let lacking = trials::lacking(test.name);
        if let Some(reason) = lacking.as_ref().filter(|_| missing.is_empty()) {
            println!("skipped: {}: {reason}", test.name);
        }
        let versions = if test.versions == Versions::All { others.as_slice() } else { &[] };
        for containerd in std::iter::once(None).chain(versions.iter().map(Some)) {
            let suffix = containerd.map(|(version, _)| format!("-containerd-{version}")).unwrap_or_default();
            let name = format!("{}{suffix}", test.name);
            // what cannot be run is said, and is no trial
            if lacking.is_some() || !(missing.is_empty() || required) {
                continue;
            }
            trials.push(if missing.is_empty() {
                let program = containerd.map(|(_, program)| program.clone());
                Trial::test(name.clone(), move || enclosed(&name, program.as_deref()))
            } else {
                let why = missing.join("; ");
                Trial::test(name, move || Err(Failed::from(format!("NODEPREP_NODES=required, but {why}"))))
            });
        }
    }
    cgroup::sweep();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// Why nodes cannot be booted here; empty when they can.
fn missing() -> Vec<String> {
    let mut reasons = Vec::new();
    if !nix::unistd::geteuid().is_root() {
        reasons.push("not root: namespaces, mounts and systemd-nspawn need it".to_owned());
        return reasons;
    }
    if !prepared().join("nspawn").exists() {
        reasons.push("there is no root of a node: run tests/nodes/prepare target/nodes".to_owned());
    }
    let tried = Command::new("unshare").args(["--mount", "--net", "--pid", "--fork", "--kill-child", "true"]).output();
    match tried {
        Ok(output) if output.status.success() => {}
        Ok(output) => reasons.push(format!("no namespaces: {}", String::from_utf8_lossy(&output.stderr).trim())),
        Err(error) => reasons.push(format!("unshare: {error}")),
    }
    if let Err(error) = cgroup::Cgroups::new(std::process::id(), "try") {
        reasons.push(format!("{error:#}"));
    }
    reasons
}

/// What `prepare` made.
fn prepared() -> PathBuf {
    source().join("target/nodes")
}

fn source() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The other versions of containerd that `tests/real/prepare` has unpacked; they run on the root's C library.
fn containerds() -> Vec<(String, PathBuf)> {
    let folders = std::fs::read_dir(source().join("target/real/containerd")).into_iter().flatten().flatten();
    let program = |folder: PathBuf| folder.join("root/usr/bin/containerd");
    let named = folders.map(|folder| (folder.file_name().to_string_lossy().into_owned(), program(folder.path())));
    let mut found: Vec<(String, PathBuf)> = named.filter(|(_, program)| program.exists()).collect();
    found.sort();
    if found.is_empty() {
        println!("skipped: booted nodes with other versions of containerd: run tests/real/prepare target/real");
    }
    found
}

/// Where a trial that fails leaves what its node had to say.
fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("nodes").join(name)
}

/// Runs one trial in namespaces of its own.
fn enclosed(name: &str, containerd: Option<&Path>) -> Result<(), Failed> {
    let _ = std::fs::remove_dir_all(kept(name));
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--"])
        .arg(source().join("tests/nodes/enclose"))
        .arg(prepared().join("root"))
        .arg(std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?)
        .env_clear()
        .envs(setting::tell(name, containerd))
        .output()
        .map_err(|error| format!("setpriv: {error}"))?;
    // What the node's own end could not remove.
    cgroup::end(std::process::id(), name);
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        // Numbers.
        print!("{said}");
        return Ok(());
    }
    let kept = kept(name);
    let kept = if kept.exists() { format!("\nconsole and journal are kept in {}", kept.display()) } else { String::new() };
    Err(format!("{}{said}{}{kept}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}

/// The trial itself, as process 1 of its namespace.
fn inside(name: &str) -> ExitCode {
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        eprintln!("the trial did not end within {DEADLINE:?}");
        std::process::exit(1);
    });
    let outcome = run(name);
    if let Err(error) = &outcome {
        eprintln!("{error:?}");
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn run(name: &str) -> anyhow::Result<()> {
    let plain = name.split("-containerd-").next().unwrap_or(name);
    let test: &Test = trials::ALL.iter().find(|test| test.name == plain).ok_or_else(|| anyhow::anyhow!("there is no trial {plain}"))?;
    let mut world = World::new()?;
    let outcome = (test.run)(&mut world);
    if outcome.is_err()
        && let Err(error) = world.node.obituary(&kept(name))
    {
        eprintln!("what the node said could not be kept: {error:?}");
    }
    outcome
}
