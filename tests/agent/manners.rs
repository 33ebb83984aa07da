//! What systemd expects of a service, beside being told how it is (`process`).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::Signal;
use nodeprep::agent::state::{Cause, Phase};

use crate::node::{Node, spec, wait};

/// It says that it is alive as long as it is, and not when it hangs; systemd ends it then, and the next one goes on.
#[test]
fn the_watchdog_hears_of_it_as_long_as_it_lives() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    let begin = |node: &mut Node| {
        let mut command = node.command_for(node.path("spec").to_str().unwrap(), &[]);
        command.env("WATCHDOG_USEC", "1000000");
        node.run(command);
        node.until("at rest", |state| state.converged && state.phase == Phase::Idle && state.pid == node.pid());
    };
    begin(&mut node);
    node.hear_until("READY=1");
    for _ in 0..3 {
        node.hear_until("WATCHDOG=1");
    }
    node.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", node.pid());
    wait(|| fs::read_to_string(&stat).unwrap().contains(") T ")).unwrap();
    node.silent();
    // as systemd does when it has heard nothing
    node.signal(Signal::SIGABRT);
    node.signal(Signal::SIGCONT);
    assert_eq!(node.ended().signal(), Some(Signal::SIGABRT as i32));
    begin(&mut node);
    node.hear_until("WATCHDOG=1");
}

/// Each line has its priority in front of it, and no time: the journal has one.
#[test]
fn the_journal_gets_priorities() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.put("log", "");
    let log = fs::metadata(node.path("log")).unwrap();
    let mut command = node.command(&["--quiet", "10ms"]);
    command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    node.run(command);
    node.until_port(5000);
    node.put("spec/spec.toml", "version = [");
    node.until("failing", |state| state.failing.is_some());
    node.signal(Signal::SIGTERM);
    assert!(node.ended().success());
    let log = node.read("log");
    assert!(log.lines().all(|line| line.starts_with("<4>") || line.starts_with("<6>")), "{log}");
    assert!(log.contains("<6>the agent has started: ") && log.contains("<4>invalid-spec (exit code 3); "), "{log}");
}

/// SIGHUP reads everything again, whatever is waited for.
#[test]
fn told_to_read_everything_again_it_does() {
    let mut node = Node::new();
    node.start(&["--quiet", "10ms"]);
    node.until("failing", |state| state.failing.is_some() && state.phase == Phase::Waiting);
    node.hear_until("READY=1");
    node.signal(Signal::SIGHUP);
    node.hear_until("RELOADING=1");
    node.hear_until("READY=1");
    let state = node.until("once more", |state| state.last_pass.as_ref().is_some_and(|pass| pass.cause == Cause::Reload));
    assert_eq!(state.failing.map(|failing| failing.times), Some(1), "the back-off begins anew");
}
