//! What is done when, case by case.

use nodeprep::agent::machine::Event;
use nodeprep::agent::settings::{DriftPolicy, HOUR, MINUTE, SECOND, Settings, Window, splay};
use nodeprep::agent::state::{Cause, Fault, Mode, Phase, WaitsFor};
use nodeprep::model::digest::Digest;

use crate::world::{World, settings};

fn kinds(world: &World) -> Vec<(Mode, Cause)> {
    world.passes.iter().map(|(_, mode, cause)| (*mode, *cause)).collect()
}

/// One whose node is as the spec says, with nothing waiting.
fn converged(settings: Settings) -> World {
    let mut world = World::new(settings);
    world.pass(SECOND);
    assert!(world.view().converged, "{:#?}", world.view());
    world.passes.clear();
    world
}

fn touch(world: &mut World, path: &str) {
    world.drifted.insert(path.to_owned());
    world.happen(Event::NodeChanged(vec![path.to_owned()]));
}

const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const CONFIG: &str = "/etc/containerd/config.toml";

#[test]
fn the_first_pass_applies_and_then_it_looks_from_time_to_time() {
    let mut world = World::new(settings());
    assert_eq!(world.view().phase, Phase::Starting);
    world.pass(HOUR);
    assert_eq!(world.passes[0], (0, Mode::Apply, Cause::Start));
    assert!(world.passes[1..].iter().all(|(_, mode, cause)| (*mode, *cause) == (Mode::Look, Cause::Reread)), "{:?}", world.passes);
    let between: Vec<i64> = world.passes.windows(2).map(|two| two[1].0 - two[0].0).collect();
    assert!(between.len() >= 5 && between.iter().all(|time| (9 * MINUTE..=11 * MINUTE + 100).contains(time)), "{between:?}");
    assert_eq!(world.view().phase, Phase::Idle);
}

#[test]
fn changes_of_the_spec_are_taken_together_and_applied_at_once() {
    let mut world = converged(settings());
    let begun = world.mono;
    for _ in 0..3 {
        world.spec += 2;
        world.happen(Event::SpecChanged);
        world.pass(world.mono + 100);
    }
    world.pass(begun + SECOND);
    assert_eq!(world.passes, [(begun + 400, Mode::Apply, Cause::Spec)]);
    // one that never rests is read all the same
    for _ in 0..60 {
        world.happen(Event::SpecChanged);
        world.pass(world.mono + 100);
    }
    assert!((2..=4).contains(&world.passes.len()), "{:?}", world.passes);
}

#[test]
fn what_changes_while_a_pass_runs_is_read_by_the_next() {
    let mut world = converged(settings());
    world.spec += 2;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + 201);
    assert!(world.running.is_some());
    world.spec += 2;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + SECOND);
    assert_eq!(kinds(&world), [(Mode::Apply, Cause::Spec); 2]);
}

/// Only what a pass says that it has changed itself is passed over.
#[test]
fn its_own_changes_are_no_drift() {
    let mut world = converged(settings());
    world.spec += 2;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + 201);
    let own = format!("/etc/spec-{}", world.spec % 3);
    world.happen(Event::NodeChanged(vec![own, "/etc".to_owned()]));
    world.pass(world.mono + MINUTE);
    assert_eq!(kinds(&world), [(Mode::Apply, Cause::Spec)]);
    world.spec += 2;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + 201);
    world.happen(Event::NodeChanged(vec![HOSTS.to_owned()]));
    world.pass(world.mono + MINUTE);
    assert_eq!(kinds(&world)[1..], [(Mode::Apply, Cause::Spec), (Mode::Look, Cause::Node)]);
}

#[test]
fn drift_is_repaired_after_a_quiet_time() {
    let mut world = converged(settings());
    let begun = world.mono;
    touch(&mut world, HOSTS);
    world.pass(begun + 3 * SECOND);
    touch(&mut world, HOSTS);
    world.pass(begun + MINUTE);
    let [(look, Mode::Look, Cause::Node), (_, Mode::Apply, Cause::Node)] = world.passes[..] else { panic!("{:?}", world.passes) };
    assert_eq!(look, begun + 8 * SECOND);
    assert!(world.drifted.is_empty() && world.view().converged);
    assert_eq!((world.view().drift.found, world.view().drift.repaired), (1, 1));
}

#[test]
fn drift_waits_for_a_package_manager() {
    let mut world = converged(settings());
    world.package = true;
    touch(&mut world, HOSTS);
    world.pass(world.mono + 5 * MINUTE);
    assert_eq!(kinds(&world), [(Mode::Look, Cause::Node)]);
    assert!(world.view().says.contains("dpkg is at work"), "{}", world.view().says);
    world.package = false;
    world.pass(world.mono + MINUTE);
    assert!(world.drifted.is_empty() && world.view().converged, "{:#?}", world.view());
}

#[test]
fn what_is_done_about_drift_is_as_it_was_asked_for() {
    for (drift, path, repaired, restart) in [
        (DriftPolicy::Report, HOSTS, false, None),
        (DriftPolicy::Report, CONFIG, false, None),
        (DriftPolicy::Repair, HOSTS, true, None),
        (DriftPolicy::Repair, CONFIG, false, None),
        (DriftPolicy::RepairWithRestart, CONFIG, true, Some(WaitsFor::Splay)),
    ] {
        let mut world = converged(Settings { drift, ..settings() });
        // a spec for which the daemon had to be restarted
        world.spec = 2;
        world.seen = Some(2);
        world.happen(Event::SpecChanged);
        world.pass(world.mono + SECOND);
        assert!(world.view().converged);
        if path == CONFIG {
            world.seen = None;
        }
        touch(&mut world, path);
        world.pass(world.mono + MINUTE);
        assert_eq!(world.drifted.is_empty(), repaired, "{drift:?} {path}");
        assert_eq!(world.view().restart.as_ref().map(|restart| restart.waits_for), restart, "{drift:?} {path}");
        assert_eq!(world.view().drift.left.is_empty(), repaired, "{drift:?} {path}");
        if !repaired {
            // it is said, and a touched spec does not repair it in passing
            assert!(world.view().says.starts_with(&format!("drift of {path}")), "{}", world.view().says);
            world.happen(Event::SpecChanged);
            world.pass(world.mono + MINUTE);
            assert!(!world.drifted.is_empty());
            // a new one does
            world.spec = 4;
            world.happen(Event::SpecChanged);
            world.pass(world.mono + MINUTE);
            assert!(world.drifted.is_empty(), "{drift:?} {path} {:?}", world.passes);
        }
    }
}

#[test]
fn who_keeps_writing_is_left_alone_after_three_times() {
    let mut world = converged(settings());
    world.keeper = Some(HOSTS.to_owned());
    touch(&mut world, HOSTS);
    world.pass(world.mono + 5 * MINUTE);
    let applied = world.passes.iter().filter(|(_, mode, _)| *mode == Mode::Apply).count();
    assert_eq!(applied, 3, "{:?}", world.passes);
    let conflict = &world.view().drift.conflicts[0];
    assert_eq!((conflict.path.as_str(), conflict.writer.as_str()), (HOSTS, "puppet"));
    world.pass(world.mono + 3 * HOUR);
    assert_eq!(world.passes.iter().filter(|(_, mode, _)| *mode == Mode::Apply).count(), 3);
    // the other one gives way
    world.keeper = None;
    world.drifted.clear();
    world.happen(Event::NodeChanged(vec![HOSTS.to_owned()]));
    world.pass(world.mono + MINUTE);
    assert!(world.view().converged && world.view().drift.conflicts.is_empty());
    // slowly is no fight
    for _ in 0..6 {
        touch(&mut world, HOSTS);
        world.pass(world.mono + 6 * MINUTE);
        assert!(world.view().converged);
    }
}

/// Waits, in the order of: the splay, the budget, the window, the gate.
#[test]
fn restarts_wait_for_their_time() {
    let place = splay(settings().machine, Some(Digest::of(&2u64.to_be_bytes())), 30 * MINUTE);
    let restart = |settings: Settings, gate_opens: Option<i64>| {
        let mut world = converged(settings);
        world.gate_shut = gate_opens.is_some();
        world.spec = 2;
        world.happen(Event::SpecChanged);
        world.pass(world.mono + SECOND);
        let from = world.passes[0].0 + 40;
        assert_eq!(kinds(&world), [(Mode::Apply, Cause::Spec)]);
        let waits = world.view().restart.as_ref().map(|restart| restart.waits_for);
        if let Some(opens) = gate_opens {
            world.pass(opens);
            assert!(world.passes.iter().all(|(_, mode, _)| *mode != Mode::Restart));
            world.gate_shut = false;
        }
        world.pass(world.mono + 30 * HOUR);
        let at = world.passes.iter().find(|(_, mode, _)| *mode == Mode::Restart).unwrap().0;
        assert!(world.view().converged && world.view().restart.is_none());
        (at - from, waits)
    };
    assert_eq!(restart(settings(), None), (place, Some(WaitsFor::Splay)));
    let window = |text| Settings { window: Some(Window::parse(text).unwrap()), ..settings() };
    let (waited, waits) = restart(window("22:00-04:00"), None);
    assert_eq!((waited, waits), (place, Some(WaitsFor::Splay)), "it is just after midnight");
    let (waited, waits) = restart(window("01:00-04:00"), None);
    // the whole fleet waits for that moment: the splay begins anew with it
    assert!(waited <= HOUR + place && waited > HOUR + place - MINUTE && waits == Some(WaitsFor::Window), "{waited} {waits:?}");
    let gate = Settings { gate: true, splay: 0, ..settings() };
    let (waited, _) = restart(gate, Some(2 * HOUR));
    assert!((2 * HOUR - MINUTE..=2 * HOUR + MINUTE).contains(&waited), "{waited}");
}

#[test]
fn there_are_as_many_restarts_in_an_hour_as_are_allowed() {
    let mut world = converged(Settings { splay: 0, budget: 2, ..settings() });
    for spec in [2, 4, 6] {
        world.spec = spec;
        world.happen(Event::SpecChanged);
        world.pass(world.mono + MINUTE);
    }
    let restarts = |world: &World| world.passes.iter().filter(|(_, mode, _)| *mode == Mode::Restart).count();
    assert_eq!(restarts(&world), 2);
    assert_eq!(world.view().restart.as_ref().map(|restart| restart.waits_for), Some(WaitsFor::Budget));
    // an agent that starts anew knows of them, whatever the clock on the wall says by then
    let before = world.view().clone();
    world.start(Some(before));
    world.pass(world.mono + 50 * MINUTE);
    assert_eq!(restarts(&world), 2);
    world.pass(world.mono + 20 * MINUTE);
    assert_eq!(restarts(&world), 3);
    assert!(world.view().converged);
}

/// A start of the agent does not move the node's place in the splay.
#[test]
fn the_splay_goes_on_over_a_start() {
    let mut world = converged(settings());
    world.spec = 2;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + SECOND);
    let at = world.view().restart.as_ref().unwrap().not_before;
    world.pass(world.mono + MINUTE);
    let before = world.view().clone();
    world.start(Some(before));
    world.pass(world.mono + SECOND);
    assert_eq!(world.view().restart.as_ref().unwrap().not_before, at);
}

#[test]
fn a_spec_that_was_taken_back_waits_longer_each_time() {
    let mut world = converged(Settings { splay: 0, budget: 60, ..settings() });
    world.spec = 2;
    world.unhealthy = Some(2);
    world.happen(Event::SpecChanged);
    world.pass(world.mono + 8 * HOUR);
    let at: Vec<i64> = world.passes.iter().filter(|(_, mode, _)| *mode == Mode::Restart).map(|(at, ..)| *at / MINUTE).collect();
    let between: Vec<i64> = at.windows(2).map(|two| two[1] - two[0]).collect();
    assert!(between.windows(2).all(|two| two[1] * 2 > two[0] * 3), "{between:?}");
    assert!((9..=11).contains(&between[0]) && at.len() <= 7, "{between:?}");
    assert_eq!(world.view().failing.map(|failing| failing.kind), Some(Fault::RolledBack));
    assert!(world.view().rollbacks >= 4);
    // another one is tried at once
    world.spec = 4;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + MINUTE);
    assert!(world.view().converged, "{:#?}", world.view());
}

/// What failed and was put back is not tried again with the same spec: the agent says for what it waits, looks from time to time, and
/// goes on when somebody has mended it by hand, when it is forgotten, or with another spec.
#[test]
fn what_failed_before_is_waited_for() {
    let failed = || {
        let mut world = converged(Settings { splay: 0, budget: 60, ..settings() });
        (world.spec, world.unhealthy, world.remembers) = (2, Some(2), true);
        world.happen(Event::SpecChanged);
        world.pass(world.mono + 8 * HOUR);
        let count = |wanted| world.passes.iter().filter(|(_, mode, _)| *mode == wanted).count();
        // the spec, and once more: what came of that is not repeated
        assert_eq!((count(Mode::Restart), count(Mode::Apply)), (1, 2), "{:?}", world.passes);
        let view = world.view();
        assert_eq!(view.failing.map(|failing| failing.kind), Some(Fault::FailedBefore));
        assert!(
            view.says.starts_with("waiting for another spec, another version or `nodeprep apply --retry`: containerd"),
            "{}",
            view.says
        );
        // rarely more often than everything is read again
        assert!(world.passes.len() < 80, "{}", world.passes.len());
        assert!(!view.converged && view.rollbacks == 1 && view.phase == Phase::Waiting, "{view:#?}");
        world.passes.clear();
        world
    };
    let mut world = failed();
    (world.node, world.seen, world.failed_before) = (Some(2), Some(2), None);
    world.happen(Event::NodeChanged(vec![CONFIG.to_owned()]));
    world.pass(world.mono + MINUTE);
    assert!(world.view().converged && world.view().failing.is_none(), "{:#?}", world.view());
    assert!(world.passes.iter().all(|(_, mode, _)| *mode == Mode::Look), "{:?}", world.passes);
    // forgotten after a day, and well by then
    let mut world = failed();
    (world.unhealthy, world.failed_before) = (None, None);
    world.pass(world.mono + 3 * HOUR);
    assert!(world.view().converged && world.seen == Some(2), "{:#?}", world.view());
    let mut world = failed();
    world.spec = 4;
    world.happen(Event::SpecChanged);
    world.pass(world.mono + MINUTE);
    assert!(world.view().converged, "{:#?}", world.view());
}

#[test]
fn each_fault_has_its_own_back_off() {
    type Begin = fn(&mut World);
    let faults: [(Fault, Begin, usize); 4] = [
        (Fault::Spec, |world| world.broken = true, 14),
        (Fault::Unready, |world| world.network = false, 12),
        (Fault::Crashed, |world| world.disk_full = true, 14),
        (Fault::Locked, |world| world.locked = true, 70),
    ];
    for (fault, begin, most) in faults {
        let mut world = converged(settings());
        begin(&mut world);
        world.spec += 2;
        world.happen(Event::SpecChanged);
        world.pass(world.mono + HOUR);
        assert_eq!(world.view().failing.map(|failing| failing.kind), Some(fault));
        assert!(world.passes.len() <= most + 7 && world.passes.len() >= 5, "{fault:?}: {}", world.passes.len());
        assert!(!world.view().converged);
        (world.broken, world.network, world.disk_full, world.locked) = (false, true, false, false);
        world.pass(world.mono + 12 * MINUTE);
        assert!(world.view().converged && world.view().failing.is_none(), "{fault:?}: {:#?}", world.view());
    }
}

/// The source of a URL is asked in intervals that differ from node to node and from time to time.
#[test]
fn a_fleet_asks_at_different_times() {
    let first = |machine: u32| {
        let mut world = World::new(Settings { poll: Some(5 * MINUTE), machine: Digest::of(&machine.to_be_bytes()), ..settings() });
        world.pass(2 * HOUR);
        let asked: Vec<i64> = world.passes.iter().map(|(at, ..)| *at).collect();
        let between: Vec<i64> = asked[1..].windows(2).map(|two| two[1] - two[0]).collect();
        assert!(between.iter().all(|time| *time <= 331 * SECOND), "{between:?}");
        // those that were put in step by something do not stay so
        let (least, most) = (between.iter().min().unwrap(), between.iter().max().unwrap());
        assert!(most - least > 20 * SECOND, "{between:?}");
        asked[1]
    };
    let mut firsts: Vec<i64> = (0..300).map(|machine| first(machine) / MINUTE).collect();
    firsts.sort_unstable();
    let most = (0..5).map(|minute| firsts.iter().filter(|at| **at == minute).count()).max().unwrap();
    assert!((60..=90).contains(&most), "{firsts:?}");
}

#[test]
fn told_to_end_it_ends_and_a_pass_goes_on() {
    let mut world = World::new(settings());
    assert!(world.running.is_some());
    world.happen(Event::Stop);
    assert_eq!((world.view().phase, world.view().pid), (Phase::Stopped, 0));
    world.happen(Event::SpecChanged);
    world.happen(Event::Reload);
    assert_eq!(world.passes.len(), 1);
}

#[test]
fn a_pass_that_never_ends_is_ended() {
    let mut world = World::new(settings());
    world.running = None;
    world.crash = true;
    assert_eq!(world.wake, Some(HOUR));
    world.pass(HOUR + MINUTE);
    assert!(world.passes.len() >= 2 && world.view().passes.contains_key("crashed"), "{:?}", world.passes);
}

/// A source that is back is seen by the next poll, however long the first attempt was to wait.
#[test]
fn a_source_that_is_back_is_not_waited_for() {
    for broken in [false, true] {
        let mut world = World::new(Settings { poll: Some(MINUTE), ..settings() });
        (world.gone, world.broken) = (!broken, broken);
        world.pass(HOUR);
        assert!(!world.view().converged && world.node.is_none());
        (world.gone, world.broken) = (false, false);
        world.pass(HOUR + 67 * SECOND);
        assert!(world.view().converged, "{:#?}", world.view());
    }
}

/// Nor is a pause that somebody has ended.
#[test]
fn a_pause_that_is_over_is_not_waited_for() {
    let mut world = converged(settings());
    world.paused = true;
    world.spec = 3;
    world.happen(Event::SpecChanged);
    touch(&mut world, HOSTS);
    world.pass(world.mono + HOUR);
    assert_eq!(world.view().failing.map(|failing| failing.kind), Some(Fault::Paused));
    world.paused = false;
    world.happen(Event::NodeChanged(vec!["/var/lib/nodeprep/pause.json".to_owned()]));
    world.pass(world.mono + 10 * SECOND);
    assert!(world.view().converged && world.node == Some(3) && world.drifted.is_empty(), "{:#?}", world.view());
}

/// What did not succeed with one version of a runtime is tried with another one at once, and with the same one it is not.
#[test]
fn another_version_is_tried_at_once() {
    for upgraded in [false, true] {
        let mut world = converged(Settings { splay: 0, budget: 60, ..settings() });
        (world.spec, world.unhealthy) = (2, Some(2));
        world.happen(Event::SpecChanged);
        world.pass(world.mono + MINUTE);
        assert_eq!(world.view().failing.map(|failing| failing.kind), Some(Fault::RolledBack));
        world.unhealthy = None;
        world.version += u32::from(upgraded);
        world.happen(Event::NodeChanged(vec!["/usr/bin/containerd".to_owned()]));
        world.pass(world.mono + MINUTE);
        assert_eq!(world.view().converged, upgraded, "{:#?}", world.view());
    }
}

/// A clock that steps moves nothing that is waited for, and makes no pass.
#[test]
fn a_clock_that_steps() {
    for step in [-400 * 24 * HOUR, -HOUR, HOUR, 400 * 24 * HOUR] {
        let mut world = converged(settings());
        world.spec = 2;
        world.happen(Event::SpecChanged);
        world.pass(world.mono + SECOND);
        let place = splay(settings().machine, Some(Digest::of(&2u64.to_be_bytes())), 30 * MINUTE);
        let from = world.passes[0].0 + 40;
        world.clock(step);
        world.happen(Event::Tick);
        world.pass(from + place + SECOND);
        let restart = world.passes.iter().find(|(_, mode, _)| *mode == Mode::Restart).map(|(at, ..)| at - from);
        assert_eq!(restart, Some(place), "{step}");
        // the budget counts what was, not what the clock says
        assert_eq!(world.view().restarts.len(), 1);
        let before = world.passes.len();
        world.clock(-step);
        world.pass(world.mono + 9 * MINUTE - SECOND - place % MINUTE);
        assert!(world.passes.len() <= before + 1, "{:?}", world.passes);
        world.pass(world.mono + HOUR);
        assert!(world.view().restarts.is_empty() && world.view().converged);
    }
}

/// Who opens a gate tells the agent to read everything again, and need not wait.
#[test]
fn a_gate_is_asked_anew_after_a_reload() {
    let mut world = converged(Settings { gate: true, splay: 0, ..settings() });
    (world.gate_shut, world.spec) = (true, 2);
    world.happen(Event::SpecChanged);
    world.pass(world.mono + SECOND);
    assert_eq!(world.view().restart.as_ref().map(|restart| restart.waits_for), Some(WaitsFor::Gate));
    world.gate_shut = false;
    world.happen(Event::Reload);
    world.pass(world.mono + SECOND);
    assert!(world.view().converged, "{:#?}", world.view());
}
