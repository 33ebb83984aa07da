//! Others on the node: who writes the same files, another spec, people who pause and revert, and packages that change the runtime.

use std::fs;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nodeprep::agent::state::{Fault, Mode, Phase};

use crate::node::{Node, spec};

const QUICK: [&str; 2] = ["--quiet", "10ms"];
const FOLDER: &str = "node/etc/containerd/certs.d/docker.io";

fn begun(spec: &str) -> Node {
    let mut node = Node::new();
    node.put("spec/spec.toml", spec);
    node.start(&QUICK);
    at_rest(&node);
    node
}

fn at_rest(node: &Node) {
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
}

fn named(name: &str, port: u32) -> String {
    format!("name = '{name}'\n{}", spec(port))
}

/// A spec of another name is a conflict for whoever comes second; nobody writes what the other has written.
#[test]
fn two_writers_with_different_specs() {
    let node = begun(&named("fleet", 5000));
    node.put("other.toml", &named("other", 5009));
    let (code, said) = node.by_hand(&["apply", "--spec", "other.toml"]);
    assert!(code == Some(5) && said.contains("error[other-spec]"), "{said}");
    assert!(node.hosts().contains(":5000/"));
    // the same for the agent
    node.put("spec/spec.toml", &named("other", 5009));
    let state = node.until_failing(Fault::Refused, "other");
    assert!(state.says.starts_with("something is left as it is: "), "{}", state.says);
    assert!(node.hosts().contains(":5000/"));
    node.put("spec/spec.toml", &named("fleet", 5001));
    node.until_port(5001);
    at_rest(&node);
    // somebody takes it over: then it is the agent that comes second
    let repaired = node.state().drift.repaired;
    let (code, said) = node.by_hand(&["apply", "--spec", "other.toml", "--take-over"]);
    assert_eq!(code, Some(0), "{said}");
    node.until_failing(Fault::Refused, "other");
    node.signal(Signal::SIGHUP);
    let state =
        node.until("once more", |state| state.causes.contains_key(&nodeprep::agent::state::Cause::Reload) && state.failing.is_some());
    assert!(node.hosts().contains(":5009/") && state.drift.repaired == repaired, "{state:#?}");
}

/// Three repairs in ten minutes are enough; who else may have been it is said.
#[test]
fn somebody_who_keeps_writing_is_named() {
    let node = begun(&spec(5000));
    let puppet = node.path("puppet");
    fs::copy("/bin/sleep", &puppet).unwrap();
    let mut puppet = Command::new(puppet).arg("100000").stdin(Stdio::null()).spawn().unwrap();
    for times in 1..=3 {
        fs::remove_dir_all(node.path(FOLDER)).unwrap();
        node.until("repaired", |state| state.drift.repaired >= times && state.converged && state.phase == Phase::Idle);
    }
    fs::remove_dir_all(node.path(FOLDER)).unwrap();
    let state = node.until("a conflict", |state| state.drift.conflicts.iter().any(|conflict| !conflict.writer.is_empty()));
    let (pid, _) = (puppet.id(), puppet.kill());
    puppet.wait().unwrap();
    let conflict = &state.drift.conflicts[0];
    assert!(conflict.path.starts_with("/etc/containerd/certs.d/docker.io"), "{conflict:?}");
    assert!(conflict.writer.contains(&format!("puppet (process {pid})")), "{conflict:?}");
    assert!(state.says.contains("put right three times in ten minutes") && !state.converged, "{}", state.says);
    assert!(node.read("log").contains(&format!("is written by {}", conflict.writer)), "{}", node.read("log"));
    node.until_told("/metrics", "\nnodeprep_agent_drift_conflicts 1\n");
    assert_eq!(node.hosts(), "");
    // until somebody says that the other one has given way
    node.signal(Signal::SIGHUP);
    node.until_port(5000);
    node.until("converged", |state| state.converged && state.drift.conflicts.is_empty());
}

/// A spec that says much less is refused unless that was allowed.
#[test]
fn a_spec_that_shrinks() {
    let more = "[[mirror]]\nsource = 'quay.io'\nendpoints = ['registry.example.com:5000/quay.io']\n";
    let mut node = begun(&format!("{}{more}", spec(5000)));
    let quay = node.path("node/etc/containerd/certs.d/quay.io/hosts.toml");
    assert!(quay.exists());
    node.put("spec/spec.toml", "version = 1\nfallback = 'never'\n");
    let state = node.until("refused", |state| state.failing.is_some_and(|failing| failing.kind == Fault::Refused));
    assert!(state.last_pass.unwrap().problems.iter().any(|problem| problem.help.contains("--allow-shrink")), "{}", state.says);
    assert!(quay.exists() && node.hosts().contains(":5000/"));
    node.signal(Signal::SIGTERM);
    node.ended();
    node.start(&["--quiet", "10ms", "--allow-shrink"]);
    node.until("converged", |state| state.converged && state.failing.is_none() && state.phase == Phase::Idle);
    assert!(!quay.exists() && node.hosts().is_empty());
}

/// A pause holds for the agent until somebody ends it; what comes then is put right.
#[test]
fn a_pause_is_honoured() {
    let node = begun(&spec(5000));
    assert_eq!(node.by_hand(&["pause", "--for", "4h", "--reason", "a look at the mirror"]).0, Some(0));
    fs::remove_dir_all(node.path(FOLDER)).unwrap();
    let state = node.until("paused", |state| state.failing.is_some_and(|failing| failing.kind == Fault::Paused));
    assert!(state.says.starts_with("paused: ") && state.says.contains("a look at the mirror"), "{}", state.says);
    node.put("spec/spec.toml", &spec(5001));
    node.until("a pass for it", |state| {
        state.last_pass.as_ref().is_some_and(|pass| pass.mode == Mode::Apply && pass.exit_code == Some(11))
    });
    assert_eq!(node.hosts(), "");
    assert_eq!(node.by_hand(&["resume"]).0, Some(0));
    node.until_port(5001);
    node.until("converged", |state| state.converged && state.failing.is_none());
}

/// What was given back is not written again by itself.
#[test]
fn a_revert_pauses_the_agent() {
    let node = begun(&spec(5000));
    let (code, said) = node.by_hand(&["revert"]);
    assert_eq!(code, Some(0), "{said}");
    node.until("paused", |state| state.failing.is_some_and(|failing| failing.kind == Fault::Paused));
    node.signal(Signal::SIGHUP);
    node.until("once more", |state| state.causes.contains_key(&nodeprep::agent::state::Cause::Reload) && state.phase != Phase::Running);
    assert_eq!(node.hosts(), "");
    assert_eq!(node.by_hand(&["resume"]).0, Some(0));
    node.until_port(5000);
    at_rest(&node);
}

/// A runtime that is upgraded is configured anew, and that is no drift.
#[test]
fn a_runtime_that_is_upgraded() {
    let node = begun(&spec(5000));
    let config = "node/etc/containerd/config.toml";
    assert!(node.read(config).contains("io.containerd.grpc.v1.cri"), "{}", node.read(config));
    // as dpkg does it, with a configuration file that the package brings; all of it between two looks
    node.signal(Signal::SIGSTOP);
    node.put("node/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 2.1.4-1\n\n");
    for (name, text) in [("node/usr/bin/containerd", "2"), (config, "version = 3\n")] {
        node.put(&format!("{name}.dpkg-new"), text);
        fs::rename(node.path(&format!("{name}.dpkg-new")), node.path(name)).unwrap();
    }
    node.signal(Signal::SIGCONT);
    let state = node.until("configured", |state| state.converged && node.read(config).contains("io.containerd.cri.v1.images"));
    assert_eq!((state.drift.found, state.drift.repaired), (0, 0), "{state:#?}");
}
