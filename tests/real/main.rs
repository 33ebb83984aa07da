//! Real programs: nodeprep configures a scratch node, then containerd, podman and skopeo pull through what it wrote, from real registries on loopback.
//!
//! Each folder of `fixtures/real` is a case (`case.rs` says what may stand in it); each runs in namespaces of its own (`enclose`), so that cases run side by
//! side on the same addresses, the machine is neither asked nor written to, and nothing outlives the test. `prepare` unpacks the programs beforehand; where
//! that has not been done, or without root, the cases are skipped with a line that says so, or fail if NODEPREP_REAL=required.
#![allow(clippy::disallowed_methods, reason = "a test starts programs and touches files; only the product is held to node/")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what was skipped, and what went wrong in the child, is said there")]

mod answer;
mod between;
mod case;
mod certificate;
mod closed;
mod daemon;
mod grpc;
mod image;
mod live;
mod matrix;
mod node;
mod programs;
mod promise;
mod proxy;
mod pull;
mod registry;
mod responder;
mod round;
#[path = "../secrets/mod.rs"]
mod secrets;
mod tree;
mod upstream;
mod vector;
mod vector_containers;
mod verified;
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};

use libtest_mimic::{Arguments, Failed, Trial};

use programs::Programs;

/// As many cases x version there are at least where more than one version of the programs is to be had.
const LEAST: usize = 100;

/// Cases x version that went as `explain` said, those that did not, and pulls that were held against access logs.
static HELD: AtomicUsize = AtomicUsize::new(0);
static DISAGREED: AtomicUsize = AtomicUsize::new(0);
static PULLS: AtomicUsize = AtomicUsize::new(0);

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
            Kind::Between => between::run(what, &Programs::told()),
            Kind::Daemon => daemon::run(what, &Programs::told()),
            Kind::Proxy => proxy::run(what, &Programs::told()),
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
    let mut matrix = 0;
    let required = std::env::var("NODEPREP_REAL").is_ok_and(|value| value == "required");
    for (programs, case) in Programs::all().into_iter().flat_map(|programs| all().into_iter().map(move |case| (programs.clone(), case))) {
        let concerned = match kind(&case) {
            Kind::Case => case::load(&case).map_or(true, |case| programs.concern(&case)),
            Kind::Containerd | Kind::Daemon | Kind::Proxy => !matches!(programs, Programs::Podman(_)),
            Kind::Containers => !matches!(programs, Programs::Containerd(_)),
            Kind::Matrix => true,
            Kind::Between => matches!(programs, Programs::Containerd(_)),
        };
        if !concerned {
            continue;
        }
        let name = scratch_name(&case, &programs);
        matrix += usize::from(matches!(kind(&case), Kind::Case));
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
    if missing.is_empty() && Programs::all().len() > 2 {
        let enough = move || if matrix >= LEAST { Ok(()) } else { Err(Failed::from(format!("{matrix} cases x version, not {LEAST}"))) };
        trials.push(Trial::test("the_matrix_is_large_enough", enough));
    }
    let conclusion = libtest_mimic::run(&Arguments::from_args(), trials);
    let count = |number: &AtomicUsize| number.load(Ordering::Relaxed);
    if count(&HELD) + count(&DISAGREED) > 0 {
        println!(
            "explain against access logs: {} of {matrix} cases x version, {} pulls, disagreements in {}\n",
            count(&HELD) + count(&DISAGREED),
            count(&PULLS),
            count(&DISAGREED)
        );
    }
    conclusion.exit_code()
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
        Kind::Case | Kind::Matrix | Kind::Between | Kind::Daemon | Kind::Proxy => "",
        Kind::Containerd | Kind::Containers => "vector-",
    };
    format!("{kind}{name}{}", programs.suffix())
}

/// What a folder is.
#[derive(Clone, Copy)]
enum Kind {
    Case,
    /// A vector of containerd.
    Containerd,
    /// A vector of the containers/image family.
    Containers,
    /// Certificates of every kind.
    Matrix,
    /// One version runs, another is on disk.
    Between,
    /// A daemon and a signal, a daemon and the OS trust store.
    Daemon,
    /// Ways through proxies of every kind.
    Proxy,
}

/// What stands among the folders of cases, below `tests/real`, and is none.
const OTHERS: [(&str, Kind); 4] =
    [("probe-matrix", Kind::Matrix), ("between-versions", Kind::Between), ("daemon", Kind::Daemon), ("probe-proxy", Kind::Proxy)];

fn kind(folder: &Path) -> Kind {
    if let Some((_, kind)) = OTHERS.iter().find(|(name, _)| folder.ends_with(name)) {
        return *kind;
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
    all.extend(OTHERS.map(|(name, _)| source().join("tests/real").join(name)));
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
    if matches!(kind(case), Kind::Case) {
        let outcome = if output.status.success() { &HELD } else { &DISAGREED };
        outcome.fetch_add(1, Ordering::Relaxed);
        let pulls = std::fs::read_to_string(scratch.folder.join(round::PULLS)).unwrap_or_default();
        PULLS.fetch_add(pulls.parse().unwrap_or_default(), Ordering::Relaxed);
    }
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
