//! When endpoints are tried.

use nodeprep::agent::machine::Event;
use nodeprep::agent::probing::{Canary, ProbeEnd, ProbeTold};
use nodeprep::agent::settings::{HOUR, MINUTE, SECOND, Settings};
use nodeprep::agent::state::{Mode, Phase, ProblemView};
use nodeprep::model::digest::Digest;

use crate::world::{World, settings};

const EVERY: i64 = 15 * MINUTE;

fn of(machine: u32) -> Settings {
    Settings { probe: Some(EVERY), machine: Digest::of(&machine.to_be_bytes()), ..settings() }
}

fn told(outcome: &str, code: u8, unreachable: u32, fresh: Option<bool>) -> ProbeEnd {
    let canary = Canary { image: "docker.io/a/b:1".into(), endpoint: "https://m.example".into(), fresh };
    let problems = if code == 0 { Vec::new() } else { vec![ProblemView { what: "it is off".into(), ..ProblemView::default() }] };
    let told = ProbeTold { outcome: outcome.into(), endpoints: 3, unreachable, canaries: vec![canary], problems };
    ProbeEnd { code: Some(code), told: Some(Box::new(told)), why: String::new() }
}

/// Ten thousand nodes that are switched on at one moment ask at ten thousand times, from the first probe on.
#[test]
fn a_fleet_is_spread_from_the_first_time_on() {
    let mut at: Vec<i64> = Vec::new();
    for machine in 0..2000 {
        let mut world = World::new(Settings { reread: 24 * HOUR, ..of(machine) });
        world.pass(4 * HOUR);
        assert!(world.probes.len() >= 9, "{:?}", world.probes);
        assert!(world.probes[0] <= EVERY + SECOND, "{:?}", world.probes);
        let between = world.probes.windows(2).map(|two| two[1] - two[0] - world.probe_takes);
        assert!(between.clone().all(|time| (EVERY / 2..EVERY * 3 / 2).contains(&time)), "{:?}", world.probes);
        at.extend(world.probes);
    }
    // 2000 in the mean in each interval, so 133 in each minute; eight standard deviations
    for minute in 0..240 {
        let count = at.iter().filter(|at| **at / MINUTE == minute).count();
        assert!((40..=226).contains(&count), "{count} in minute {minute}");
    }
}

#[test]
fn it_is_off_where_it_is_switched_off_and_wakes_nobody() {
    let mut world = World::new(Settings { reread: 24 * HOUR, ..settings() });
    world.pass(20 * HOUR);
    assert!(world.probes.is_empty() && world.passes.len() == 1, "{:?}", world.passes);
    // with it, there is nothing between one probe and the next
    let mut world = World::new(Settings { reread: 24 * HOUR, ..of(1) });
    world.pass(world.probe_takes);
    let mut wakes = 0;
    while world.probes.len() < 5 {
        let next = [world.wake, world.probing, world.running.map(|(.., at)| at)].into_iter().flatten().min().unwrap();
        world.pass(next);
        wakes += 1;
    }
    assert_eq!(wakes, 5 + 4, "each begins once and ends once");
}

/// A dead endpoint, a stale mirror or a probe that crashes does not make the node anything but converged.
#[test]
fn what_is_found_decides_nothing() {
    for (end, unreachable) in [
        (told("verify-failed", 8, 3, Some(false)), 3),
        (told("invalid-spec", 3, 0, None), 0),
        (ProbeEnd { code: None, told: None, why: "signal 9 ended it".into() }, 0),
    ] {
        let mut world = World::new(of(1));
        world.probe = end.clone();
        world.pass(EVERY + MINUTE);
        let view = world.view();
        assert!(view.converged && view.failing.is_none() && view.says == "as the spec says", "{view:#?}");
        assert_eq!(view.phase, Phase::Idle);
        assert!(world.passes.iter().skip(1).all(|(_, mode, _)| *mode == Mode::Look), "{:?}", world.passes);
        let probe = view.probe.as_ref().unwrap();
        assert_eq!((probe.unreachable, probe.exit_code, probe.problems.len()), (unreachable, end.code, 1));
        assert!(view.next_probe.is_some());
    }
}

/// A change of the spec does not wait for a probe: that is made another time, and says nothing of endpoints.
#[test]
fn a_probe_gives_way_to_a_pass() {
    let mut world = World::new(Settings { reread: 24 * HOUR, ..of(1) });
    world.probe_takes = 10 * MINUTE;
    while world.probing.is_none() {
        world.pass(world.mono + SECOND);
    }
    world.spec += 2;
    world.happen(Event::SpecChanged);
    let begun = world.mono;
    world.pass(begun + SECOND);
    assert_eq!((world.passes.last().unwrap().0, world.interrupted), (begun + 200, 1));
    assert!(world.view().converged && world.view().probe.is_none());
    // what comes late of it is not heard
    world.happen(Event::ProbeEnded(told("converged", 0, 0, None)));
    assert!(world.view().probe.is_none());
    world.probe_takes = SECOND;
    // and not much later
    world.pass(begun + EVERY / 10 + 7 * SECOND);
    assert!(world.view().probe.is_some(), "{:#?}", world.view());
}

#[test]
fn none_begins_while_a_pass_runs_or_before_the_first_has_ended() {
    let mut world = World::new(of(1));
    // the first pass hangs until it is ended
    world.running = None;
    world.pass(40 * MINUTE);
    assert_eq!(world.probes, Vec::<i64>::new());
    assert_eq!(world.view().phase, Phase::Starting);
    world.pass(2 * HOUR);
    assert!(!world.probes.is_empty() && world.probes[0] >= HOUR, "{:?}", world.probes);
}

#[test]
fn one_that_never_ends_is_ended() {
    let mut world = World::new(of(1));
    world.probe_takes = 48 * HOUR;
    world.pass(9 * HOUR);
    // rereads interrupt most of them; without any, it is the limit
    let mut alone = World::new(Settings { reread: 48 * HOUR, ..of(1) });
    alone.probe_takes = 48 * HOUR;
    alone.pass(3 * HOUR);
    assert!(alone.interrupted >= 4 && alone.view().converged, "{}", alone.interrupted);
    assert_eq!(alone.view().probe.as_ref().unwrap().outcome, "crashed");
    assert!(world.interrupted > 0 && world.view().converged);
}

/// Told to end, the agent leaves nothing behind that asks registries.
#[test]
fn it_ends_with_the_agent() {
    let mut world = World::new(of(1));
    world.probe_takes = 10 * MINUTE;
    while world.probing.is_none() {
        world.pass(world.mono + SECOND);
    }
    world.happen(Event::Stop);
    assert!(world.probing.is_none() && world.view().phase == Phase::Stopped);
}

/// Whoever has paused a node wants to know all the more whether its registries answer.
#[test]
fn a_paused_node_is_tried_all_the_same() {
    let mut world = World::new(of(1));
    world.paused = true;
    world.probe = told("converged", 0, 0, Some(true));
    world.pass(2 * HOUR);
    assert!(world.probes.len() >= 4 && world.view().probe.is_some());
    assert!(!world.view().converged);
}

#[test]
fn it_is_remembered_when_a_mirror_was_fresh_last() {
    let mut world = World::new(of(1));
    let next = |world: &mut World, end: ProbeEnd| {
        let count = world.probes.len();
        world.probe = end;
        while world.probes.len() == count || world.probing.is_some() {
            world.pass(world.mono + SECOND);
        }
        let canary = world.view().probe.as_ref().unwrap().canaries.first().cloned().unwrap_or_default();
        (canary.fresh, canary.fresh_at)
    };
    assert_eq!(next(&mut world, told("verify-failed", 8, 0, Some(false))), (Some(false), None));
    let (fresh, at) = next(&mut world, told("converged", 0, 0, Some(true)));
    assert!(fresh == Some(true) && at == Some(world.view().probe.as_ref().unwrap().ended));
    assert_eq!(next(&mut world, told("verify-failed", 8, 0, Some(false))), (Some(false), at));
    assert_eq!(next(&mut world, told("verify-failed", 8, 3, None)), (None, at));
    // neither a crash nor a start of the agent makes it forget
    assert_eq!(next(&mut world, ProbeEnd::default()), (None, at));
    let before = world.view().clone();
    world.start(Some(before));
    assert_eq!(world.view().probe.as_ref().unwrap().canaries[0].fresh_at, at);
    assert_eq!(next(&mut world, told("verify-failed", 8, 0, Some(false))), (Some(false), at));
    // a canary that the spec names no more is gone
    let mut gone = told("converged", 0, 0, None);
    gone.told.as_mut().unwrap().canaries.clear();
    assert_eq!(next(&mut world, gone), (None, None));
    // and there is a bound to them
    let mut many = told("converged", 0, 0, None);
    let canary = |number: u32| Canary { image: format!("docker.io/a/b:{number}"), ..Canary::default() };
    many.told.as_mut().unwrap().canaries = (0..5000).map(canary).collect();
    next(&mut world, many);
    assert_eq!(world.view().probe.as_ref().unwrap().canaries.len(), 256);
}
