//! What is done with units: at most one turn of each, and the reasons why one is left.

use std::slice::from_ref;

use super::*;
use crate::model::time::Time;
use crate::model::tree::Entry;
use crate::runtime::{Presence, Running, Runtime};

const UNIT: &str = "containerd.service";

fn daemon(pid: Option<u32>) -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: NodePath::fixed("/usr/bin/containerd"),
        installed: None,
        running: pid.map(|pid| Running { pid, started: Time(1), version: None, socket: None }),
        config: NodePath::fixed("/etc/containerd/config.toml"),
        unit: Some(UNIT.to_owned()),
        env: Vec::new(),
    }
}

fn need(how: fn(String) -> How) -> Activation {
    let who = Target::Containerd(NodePath::fixed("/etc/containerd/config.toml"));
    Activation { who, how: how(UNIT.to_owned()), because: vec!["x".to_owned()] }
}

fn facts() -> UnitFacts {
    UnitFacts { loaded: true, active: Active::Active, main_pid: Some(7), reloads: true, ..UnitFacts::default() }
}

fn decide(needed: &[Activation], pid: Option<u32>, facts: UnitFacts, choice: &Choice) -> Turns {
    decide_with(needed, pid, &units(Init::Systemd, facts), choice)
}

fn units(init: Init, facts: UnitFacts) -> Units {
    Units { init, facts: [(UNIT.to_owned(), facts)].into(), ..Units::default() }
}

fn decide_with(needed: &[Activation], pid: Option<u32>, units: &Units, choice: &Choice) -> Turns {
    let mut after = Tree::default();
    after.insert(NodePath::root(), Entry::Dir { listed: true });
    after.put(&NodePath::fixed("/etc/containerd/config.toml"), b"version = 2\n".as_slice(), 0o644);
    turns(needed, &[], &[daemon(pid)], &after, units, choice)
}

fn auto(allowed: &[&str]) -> Choice {
    Choice { mode: Mode::Auto, allowed: allowed.iter().map(ToString::to_string).collect(), ..Choice::default() }
}

#[test]
fn one_turn_for_all_that_a_unit_needs_and_the_strongest_wins() {
    let decided = decide(&[need(How::Reload), need(How::Restart), need(How::Reload)], Some(7), facts(), &auto(&[]));
    let [turn] = &decided.turns[..] else { panic!("{decided:?}") };
    assert_eq!((turn.turning, turn.serves.len(), turn.unit.as_str()), (Turning::Restart, 3, UNIT));
    assert_eq!(turn.proof.socket, Some(NodePath::fixed("/run/containerd/containerd.sock")));
    assert_eq!(turn.proof.files.len(), 1);
    assert!(decided.left.is_empty() && decided.settled.is_empty());
}

#[test]
fn what_does_not_run_is_left_to_its_start() {
    for active in [Active::Inactive, Active::Failed] {
        let decided = decide(&[need(How::Restart)], None, UnitFacts { active, main_pid: None, ..facts() }, &auto(&[]));
        assert!(decided.turns.is_empty() && decided.left.is_empty() && decided.settled.len() == 1, "{decided:?}");
    }
    // between two attempts of systemd to start it there is no process, but it is wanted
    let decided = decide(&[need(How::Restart)], None, UnitFacts { active: Active::Activating, main_pid: None, ..facts() }, &auto(&[]));
    assert_eq!(decided.turns.len(), 1);
}

#[test]
fn a_second_containerd_is_not_the_one_of_the_unit() {
    let other = NodePath::fixed("/opt/other.toml");
    let by_hand = FoundRuntime { config: other.clone(), ..daemon(Some(9)) };
    let of_other = Activation { who: Target::Containerd(other), ..need(How::Restart) };
    let units = units(Init::Systemd, facts());
    let decided = turns(&[need(How::Restart), of_other.clone()], &[], &[by_hand, daemon(Some(7))], &Tree::default(), &units, &auto(&[]));
    assert_eq!((decided.turns.len(), decided.left.len()), (1, 1), "{decided:?}");
    assert_eq!((&decided.turns[0].serves, &decided.left[0].due), (&vec![need(How::Restart)], &vec![of_other]));
}

/// What an earlier run has turned is proved, also when it has failed since, and by what it has to answer.
#[test]
fn what_was_turned_and_not_proved_is_looked_at() {
    let prove = |active, pid| {
        let facts = UnitFacts { active, main_pid: pid, ..facts() };
        let units = units(Init::Systemd, facts);
        turns(&[], &[need(How::Restart)], &[daemon(None)], &Tree::default(), &units, &Choice::default())
    };
    for (active, pid) in [(Active::Failed, None), (Active::Active, Some(5)), (Active::Activating, None)] {
        let decided = prove(active, pid);
        assert_eq!(decided.turns.len(), 1, "{active:?} {decided:?}");
        assert_eq!(decided.turns[0].turning, Turning::Prove);
        assert!(decided.turns[0].proof.socket.is_some());
    }
    assert_eq!(prove(Active::Inactive, None).settled.len(), 1);
}

#[test]
fn what_is_left_says_why() {
    let left = |needed: fn(String) -> How, pid, facts, choice: &Choice| {
        let decided = decide(&[need(needed)], pid, facts, choice);
        assert!(decided.turns.is_empty(), "{decided:?}");
        decided.left.into_iter().next().map(|left| left.why).unwrap_or_default()
    };
    let only = |mode| Choice { mode, ..Choice::default() };
    assert!(left(How::Restart, Some(7), facts(), &only(Mode::ReloadOnly)).contains("reload-only"));
    assert!(left(How::Reload, Some(7), facts(), &only(Mode::Never)).contains("never"));
    assert!(left(How::Restart, Some(8), facts(), &auto(&[])).contains("process 8 was not started by"));
    assert!(left(How::Restart, Some(7), UnitFacts::default(), &auto(&[])).contains("there is no unit"));
    // who runs under a unit that is masked goes on; where nothing runs nothing is due
    let masked = UnitFacts { loaded: false, masked: true, ..facts() };
    assert!(left(How::Restart, Some(7), masked.clone(), &auto(&[])).contains("systemctl unmask containerd.service"));
    let decided = decide(&[need(How::Restart)], None, UnitFacts { active: Active::Inactive, main_pid: None, ..masked }, &auto(&[]));
    assert!(decided.turns.is_empty() && decided.left.is_empty() && decided.settled.len() == 1, "{decided:?}");
    assert!(left(How::Reload, Some(7), UnitFacts { reloads: false, ..facts() }, &auto(&[])).contains("cannot be told to reload"));
    let inactive = UnitFacts { active: Active::Inactive, main_pid: None, ..facts() };
    assert!(left(How::Restart, Some(7), inactive, &auto(&[])).contains("was not started by"));
}

/// Where no manager is to be asked, what somebody has said counts, for what runs; else it is due, with what to do.
#[test]
fn where_nobody_manages_units() {
    let why = |units: &Units, needed: fn(String) -> How, choice: &Choice| {
        let decided = decide_with(&[need(needed)], Some(7), units, choice);
        decided.left.into_iter().next().map(|left| left.why)
    };
    let nobody = Units::default();
    assert!(why(&nobody, How::Restart, &auto(&[])).is_some_and(|why| why.contains("--restart-command containerd=COMMAND")));
    let restarts = Commands { restart: [("containerd".to_owned(), vec!["/bin/true".to_owned()])].into(), ..Commands::default() };
    let choice = Choice { commands: restarts, ..auto(&[]) };
    assert_eq!(why(&nobody, How::Restart, &choice), None);
    assert!(why(&nobody, How::Reload, &choice).is_some_and(|why| why.contains("--reload-command containerd=COMMAND")));
    // it is for where there is no manager, and what does not run stays so
    assert!(why(&units(Init::Systemd, UnitFacts::default()), How::Restart, &choice).is_some_and(|why| why.contains("no unit")));
    assert_eq!(decide_with(&[need(How::Restart)], None, &nobody, &choice).settled.len(), 1);
    // a manager that says nothing, and a system that is not seen
    let silent = Units { silent: Some("access denied".to_owned()), ..units(Init::Systemd, UnitFacts::default()) };
    assert!(why(&silent, How::Restart, &choice).is_some_and(|why| why.contains("access denied")));
    let unseen = Units { init: Init::Unseen, ..Units::default() };
    assert!(why(&unseen, How::Restart, &choice).is_some_and(|why| why.contains("hostPID")));
}

/// Podman's API service has no reload in its unit: a signal does it.
#[test]
fn a_signal_reloads_what_has_no_reload() {
    let unit = "podman.service".to_owned();
    let podman = FoundRuntime { runtime: Runtime::Podman, unit: Some(unit.clone()), ..daemon(Some(7)) };
    let needed = Activation { who: Target::Containers, how: How::Reload(unit.clone()), because: Vec::new() };
    for (reloads, signal) in [(false, Some("HUP")), (true, None)] {
        let facts = UnitFacts { reloads, ..facts() };
        let units = Units { init: Init::Systemd, facts: [(unit.clone(), facts)].into(), ..Units::default() };
        let decided = turns(from_ref(&needed), &[], from_ref(&podman), &Tree::default(), &units, &auto(&[]));
        assert_eq!(decided.turns.iter().map(|turn| turn.signal).collect::<Vec<_>>(), [signal], "{decided:?}");
    }
}

#[test]
fn a_restart_that_stops_what_must_go_on_has_to_be_allowed_by_name() {
    let with = |along: &[&str], choice: &Choice| {
        let along = along.iter().map(ToString::to_string).collect();
        let decided = decide(&[need(How::Restart)], Some(7), UnitFacts { along, ..facts() }, choice);
        decided.left.first().map(|left| left.why.clone())
    };
    assert_eq!(with(&["other.service"], &auto(&[])), None);
    assert!(with(&["other.service", "kubelet.service"], &auto(&[])).is_some_and(|why| why.contains("--allow-restart kubelet.service")));
    assert_eq!(with(&["kubelet.service"], &auto(&["kubelet"])), None);
    assert_eq!(with(&["kubelet.service"], &auto(&["kubelet.service"])), None);
    assert!(with(&["docker.service", "kubelet.service"], &auto(&["kubelet"])).is_some_and(|why| why.contains("docker.service")));
    let pods = UnitFacts { kills_all: true, shims: 2, ..facts() };
    let decided = decide(&[need(How::Restart)], Some(7), pods.clone(), &auto(&[]));
    assert!(decided.left[0].why.contains("2 running"), "{decided:?}");
    assert_eq!(decide(&[need(How::Restart)], Some(7), pods, &auto(&[UNIT])).turns.len(), 1);
}
