//! The gate before a restart: what it answers decides, whatever it does.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal;
use nodeprep::agent::state::{AgentState, Cause, WaitsFor};

use crate::node::{Node, spec, wait};

/// A node on which containerd would have to be restarted, and an agent that asks this before.
fn asks(gate: &str, more: &[&str]) -> Node {
    asks_on(Node::new(), gate, more)
}

fn asks_on(mut node: Node, gate: &str, more: &[&str]) -> Node {
    node.put("spec/spec.toml", &spec(5000));
    // a node that is no running one has nothing due when it is looked at once more
    let words = [&["--quiet", "1h", "--activate", "auto", "--restart-splay", "0", "--restart-gate", gate], more].concat();
    node.start(&words);
    node
}

/// A command that writes down what it is asked, and then does this.
fn command(does: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gate");
    let at = folder.path().display();
    fs::write(&path, format!("#!/bin/sh\ncd {at}\necho \"$@\" >>asked\nenv >env\necho $$ >pid\n{does}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let gate = path.display().to_string();
    (folder, gate)
}

fn shut(node: &Node, why: &str) -> AgentState {
    let is_shut =
        |state: &AgentState| state.restart.as_ref().is_some_and(|restart| restart.waits_for == WaitsFor::Gate && restart.why.contains(why));
    let state = node.until(why, is_shut);
    assert!(!state.causes.contains_key(&Cause::Restart), "{state:#?}");
    assert!(state.says.contains("a restart of containerd.service waits: the gate is shut: "), "{}", state.says);
    state
}

fn goes_on(node: &Node) {
    node.until("a pass that restarts", |state| state.causes.contains_key(&Cause::Restart));
}

#[test]
fn a_command_that_says_no() {
    let (folder, gate) = command("exit 1");
    let node = asks(&gate, &[]);
    shut(&node, "it ended with exit code 1");
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert_eq!(read("asked"), "ask containerd.service\n");
    // it is no service, and no pass
    assert!(!read("env").contains("NOTIFY_SOCKET") && !read("env").contains("NODEPREP_AGENT_LOOP"), "{}", read("env"));
    // files are in effect all the same
    node.until_port(5000);
}

/// Nothing is restarted before it has said yes; then it hears that this is done.
#[test]
fn a_command_that_says_yes() {
    let (folder, gate) = command("while [ $1 = ask ] && ! [ -e open ]; do sleep 0.01; done");
    let node = asks(&gate, &[]);
    let asked = || fs::read_to_string(folder.path().join("asked")).unwrap_or_default();
    wait(|| asked() == "ask containerd.service\n").unwrap_or_else(|()| panic!("{}", asked()));
    assert!(!node.state().causes.contains_key(&Cause::Restart));
    fs::write(folder.path().join("open"), "").unwrap();
    goes_on(&node);
    // of a node that is no running one nothing was restarted
    wait(|| asked().starts_with("ask containerd.service\ndone")).unwrap_or_else(|()| panic!("{}", asked()));
}

const HANGS: &str = "sleep 100000 & echo $! >>pid; wait";

/// The process of a command and the one that it has started.
fn both(folder: &tempfile::TempDir) -> String {
    let mut pids = String::new();
    let all = wait(|| {
        pids = fs::read_to_string(folder.path().join("pid")).unwrap_or_default();
        pids.lines().count() == 2 && pids.ends_with('\n')
    });
    all.unwrap_or_else(|()| panic!("{pids}"));
    pids
}

fn are_gone(pids: &str) {
    // of one that nobody waits for its number stays
    let is_gone = |pid: &str| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default().is_empty();
    wait(|| pids.lines().all(is_gone)).unwrap_or_else(|()| panic!("{pids} are still there"));
}

/// One that hangs is ended with what it has started, and keeps nothing from being done but the restart.
#[test]
fn a_command_that_hangs() {
    let (folder, gate) = command(HANGS);
    let node = asks(&gate, &["--restart-gate-timeout", "1s"]);
    let pids = both(&folder);
    shut(&node, "no answer within 1s");
    are_gone(&pids);
    node.put("spec/spec.toml", &spec(5001));
    node.until_port(5001);
}

/// Nor does it keep the agent from ending, or stay behind.
#[test]
fn a_command_that_hangs_when_the_agent_ends() {
    let (folder, gate) = command(HANGS);
    let mut node = asks(&gate, &[]);
    let pids = both(&folder);
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    are_gone(&pids);
}

#[test]
fn a_command_that_is_killed() {
    let (_folder, gate) = command("kill -9 $$");
    shut(&asks(&gate, &[]), "signal: 9");
}

#[test]
fn a_command_that_is_not_there() {
    shut(&asks("/nonexistent/gate now", &[]), "/nonexistent/gate cannot be run: ");
}

#[test]
fn a_file_on_the_node() {
    shut(&asks("/run/may-restart", &[]), "/run/may-restart is not there");
    let node = Node::new();
    node.put("node/run/may-restart", "");
    let node = asks_on(node, "/run/may-restart", &[]);
    goes_on(&node);
}
