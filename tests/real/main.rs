//! Real programs: nodeprep configures a scratch node, then containerd, podman and skopeo pull through what it wrote, from real registries on loopback.
//!
//! Each folder of `fixtures/real` is a case (`case.rs` says what may stand in it); each runs in namespaces of its own (`enclose`), so that cases run side by
//! side on the same addresses, the machine is neither asked nor written to, and nothing outlives the test. `prepare` unpacks the programs beforehand; where
//! that has not been done, or without root, the cases are skipped with a line that says so, or fail if NODEPREP_REAL=required.
#![allow(clippy::disallowed_methods, reason = "a test starts programs and touches files; only the product is held to node/")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was skipped, and what went wrong in the child, is said there")]

mod answer;
mod case;
mod certificate;
mod grpc;
mod image;
mod matrix;
mod node;
mod programs;
mod promise;
mod pull;
mod registry;
mod responder;
mod round;
mod tree;
mod upstream;
mod vector;
mod vector_containers;
mod verified;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use libtest_mimic::{Arguments, Failed, Trial};

use programs::Programs;

/// In the environment of this program's own child: the case to run, inside the namespaces made for it.
const INSIDE: &str = "NODEPREP_REAL_CASE";

fn main() -> ExitCode {
    if let Some(name) = std::env::var_os(INSIDE) {
        let what = Path::new(&name);
        let outcome = match kind(what) {
            Kind::Case => round::run(what, &Programs::told()),
            Kind::Containerd => vector::run(what, &Programs::told()),
            Kind::Containers => vector_containers::run(what, &Programs::told()),
            Kind::Matrix => matrix::run(what, &Programs::told()),
        };
        return match outcome {
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
    for (programs, case) in Programs::all().into_iter().flat_map(|programs| all().into_iter().map(move |case| (programs.clone(), case))) {
        let concerned = match kind(&case) {
            Kind::Case => case::load(&case).map_or(true, |case| programs.concern(&case)),
            Kind::Containerd => !matches!(programs, Programs::Podman(_)),
            Kind::Containers => !matches!(programs, Programs::Containerd(_)),
            Kind::Matrix => true,
        };
        if !concerned {
            continue;
        }
        let name = scratch_name(&case, &programs);
        let trial = if missing.is_empty() {
            Trial::test(name, move || enclosed(&case, &programs))
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

/// What a trial and its scratch folder are called.
fn scratch_name(case: &Path, programs: &Programs) -> String {
    let name = case.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let kind = match kind(case) {
        Kind::Case | Kind::Matrix => "",
        Kind::Containerd | Kind::Containers => "vector-",
    };
    format!("{kind}{name}{}", programs.suffix())
}

/// What a folder is.
enum Kind {
    Case,
    /// A vector of containerd.
    Containerd,
    /// A vector of the containers/image family.
    Containers,
    /// Certificates of every kind.
    Matrix,
}

/// What stands for the matrix among the folders.
const MATRIX: &str = "probe-matrix";

fn kind(folder: &Path) -> Kind {
    if folder.ends_with(MATRIX) {
        return Kind::Matrix;
    }
    match folder.parent().and_then(Path::file_name).and_then(|name| name.to_str()) {
        Some("containerd") => Kind::Containerd,
        Some("containers") => Kind::Containers,
        _ => Kind::Case,
    }
}

/// Every case and every vector.
fn all() -> Vec<PathBuf> {
    let listed = |folder: &str, file: &str| {
        let folder = source().join(folder);
        let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.join(file).exists()).collect();
        found.sort();
        assert!(!found.is_empty(), "{}: nothing there", folder.display());
        found
    };
    let mut all = listed("fixtures/real", "case.toml");
    all.push(source().join("tests/real").join(MATRIX));
    all.extend(listed("fixtures/vectors/containerd", "case.toml"));
    all.extend(listed("fixtures/vectors/containers", "expect.txt"));
    all
}

/// Runs one case in namespaces of its own: everything that it starts dies with the process that is number 1 in there, and that one dies with us.
fn enclosed(case: &Path, programs: &Programs) -> Result<(), Failed> {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR")).join("real").join(scratch_name(case, programs));
    let scratch = node::Scratch::new(&scratch).map_err(|error| format!("{error:?}"))?;
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--"])
        .arg(source().join("tests/real/enclose"))
        .args([scratch.root(), scratch.view(), prepared()])
        .arg(std::env::current_exe().map_err(|error| format!("where is this program: {error}"))?)
        .env_clear()
        .envs(node::environment()?)
        .env(INSIDE, case)
        .envs(programs.tell())
        .envs(std::env::var_os(round::OTHER_BINARY).map(|binary| (round::OTHER_BINARY, binary)))
        .output()
        .map_err(|error| format!("setpriv: {error}"))?;
    if output.status.success() {
        // What was left out is said.
        let said = String::from_utf8_lossy(&output.stdout);
        if !said.is_empty() {
            println!("{}: {}", scratch_name(case, programs), said.trim_end());
        }
        scratch.remove();
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}{}\neverything is kept in {}", String::from_utf8_lossy(&output.stdout), said, scratch.folder.display()).into())
}
