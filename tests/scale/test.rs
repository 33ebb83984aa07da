//! What a fleet does to the server of its spec, and when it restarts its daemons: no burst without a cause. No clock, no chance but
//! that of a seed; `make scale` shows the numbers (docs/scale.md).
#![allow(clippy::unwrap_used, missing_docs, missing_debug_implementations, reason = "a test")]

mod fleet;

use fleet::{Fleet, run};
use nodeprep::agent::settings::{HOUR, MINUTE, SECOND};

const NODES: u32 = 10_000;
/// As many are enough where rates are compared, and take a third of the time.
const FEWER: u32 = 3_000;
/// What the default interval asks of the server, with fewer.
const STEADY: f64 = 10.0;

/// All agents start in the same millisecond, as after a power cut: each asks in its own time, and has nothing sent to it.
#[test]
fn a_fleet_that_starts_at_once_does_not_ask_at_once() {
    let seen = run(&Fleet::new(NODES, 1, 40 * MINUTE));
    for (from, to) in [(0, MINUTE), (0, 5 * MINUTE), (5 * MINUTE, 40 * MINUTE)] {
        let rate = seen.rate(from, to);
        assert!((25.0..42.0).contains(&rate.mean) && f64::from(rate.p99) <= rate.mean + 4.0 * rate.mean.sqrt(), "{rate:?}");
        assert!(f64::from(rate.most) <= rate.bound, "{from} to {to}: {rate:?}");
    }
    let [same, whole, none] = seen.answers(0, 40 * MINUTE);
    assert_eq!((whole, none), (0, 0));
    assert!(same > 7 * NODES);
}

/// A package that is upgraded everywhere at once is looked at by each node, which asks nobody for its spec.
#[test]
fn what_happens_on_all_nodes_is_not_felt_by_the_server() {
    let at = 10 * MINUTE;
    let seen = run(&Fleet { touched: Some(at), ..Fleet::new(FEWER, 9, 15 * MINUTE) });
    let rate = seen.rate(at, at + MINUTE);
    assert!(f64::from(rate.most) <= rate.bound && rate.mean < 1.5 * STEADY, "{rate:?}");
    assert!(seen.passes > u64::from(seen.answers(0, 15 * MINUTE)[0]) + u64::from(FEWER), "nobody has looked");
}

/// A server that was away for half an hour is not overrun: nobody waits for it to come back.
#[test]
fn a_server_that_comes_back_is_asked_as_before() {
    let (gone, back) = (10 * MINUTE, 40 * MINUTE);
    let seen = run(&Fleet { down: vec![(gone, back)], ..Fleet::new(FEWER, 2, HOUR) });
    // while it is away a node that looks in vain goes by what it had, which asks once more
    let rate = seen.rate(gone + MINUTE, back);
    assert!(rate.mean < 2.2 * STEADY && f64::from(rate.most) <= 2.0 * seen.rate(0, gone).bound, "{rate:?}");
    for (from, to) in [(back, back + MINUTE), (back, HOUR)] {
        let rate = seen.rate(from, to);
        assert!(f64::from(rate.most) <= rate.bound && rate.mean < 1.25 * STEADY, "{from} to {to}: {rate:?}");
    }
    assert_eq!(seen.answers(back, HOUR)[1..], [0, 0]);
}

/// Nodes that have nothing yet ask at once, and whom the server had no time for comes again at a time of his own.
#[test]
fn new_nodes_do_not_come_again_together() {
    let capacity = 30;
    let seen = run(&Fleet { known: false, capacity, ..Fleet::new(FEWER, 3, HOUR) });
    assert!(seen.rate(0, SECOND).most >= FEWER);
    let waves = seen.rate(SECOND, 20 * MINUTE);
    assert!(waves.most <= 4 * capacity, "{waves:?}");
    let rate = seen.rate(40 * MINUTE, HOUR);
    assert!(f64::from(rate.most) <= rate.bound, "{rate:?}");
    assert_eq!((seen.answers(40 * MINUTE, HOUR)[1..].to_vec(), seen.converged), (vec![0, 0], FEWER));
}

/// Each node asks twice for a changed spec, when it sees it and when it applies it, and once more when it restarts.
#[test]
fn a_change_is_fetched_as_nodes_come_to_ask() {
    let change = 10 * MINUTE;
    let seen = run(&Fleet { changes: vec![change], ..Fleet::new(FEWER, 4, 50 * MINUTE) });
    let rate = seen.rate(change, change + 6 * MINUTE);
    assert!(f64::from(rate.most) <= 2.0 * seen.rate(0, change).bound, "{rate:?}");
    assert_eq!((seen.answers(0, 50 * MINUTE)[1..].to_vec(), seen.converged), (vec![2 * FEWER, 0], FEWER));
}

/// A spec that nobody can use is looked at more often for a while, and not for ever.
#[test]
fn a_broken_spec_is_no_storm() {
    let (from, to) = (10 * MINUTE, 40 * MINUTE);
    let seen = run(&Fleet { broken: Some((from, to)), ..Fleet::new(FEWER, 5, 50 * MINUTE) });
    let rate = seen.rate(from, to);
    assert!(f64::from(rate.most) <= 4.0 * seen.rate(0, from).bound, "{rate:?}");
    let later = seen.rate(from + 20 * MINUTE, to);
    assert!(later.mean < 1.5 * STEADY, "{later:?}");
}

/// Restarts after a change lie evenly in the half hour that they have, wherever a node was in its interval.
#[test]
fn restarts_are_spread() {
    let change = 10 * MINUTE;
    let seen = run(&Fleet { changes: vec![change], ..Fleet::new(NODES, 6, 50 * MINUTE) });
    let curve = seen.curve(change, MINUTE);
    assert_eq!((curve.iter().sum::<u32>(), seen.converged), (NODES, NODES));
    assert!((33..=36).contains(&curve.len()), "{curve:?}");
    // 333 in the mean, six standard deviations
    assert!(curve[6..30].iter().all(|count| (225..=442).contains(count)) && curve.iter().all(|count| *count <= 442), "{curve:?}");
    let most = seen.curve(change, SECOND).into_iter().max().unwrap();
    assert!(most <= 20, "{most} within a second");
}

/// A fleet that has waited for the window does not restart as one when it opens.
#[test]
fn restarts_are_spread_over_the_window() {
    let change = 10 * MINUTE;
    let (opens, length) = (90 * MINUTE, 20 * MINUTE);
    let mut fleet = Fleet { changes: vec![change], ..Fleet::new(FEWER, 7, 2 * HOUR).window("01:30-01:50") };
    fleet.settings.poll = Some(15 * MINUTE);
    let seen = run(&fleet);
    assert_eq!((seen.restarts.len(), seen.converged), (usize::try_from(FEWER).unwrap(), FEWER));
    assert!(seen.restarts.iter().all(|(at, _)| (opens..opens + length + SECOND).contains(at)));
    // 150 in the mean, six standard deviations
    let curve = seen.curve(opens, MINUTE);
    assert!(curve[..20].iter().all(|count| (76..=224).contains(count)), "{curve:?}");
}

/// Changes that follow each other: a node restarts as often in an hour as it may, and in the end has seen the last.
#[test]
fn restarts_keep_to_the_budget() {
    let changes = vec![10 * MINUTE, 20 * MINUTE, 30 * MINUTE];
    let mut fleet = Fleet { changes, ..Fleet::new(1000, 8, 2 * HOUR) };
    fleet.settings.splay = 2 * MINUTE;
    let seen = run(&fleet);
    assert_eq!((seen.most_in_an_hour(), seen.converged, seen.restarts.len()), (2, 1000, 3000));
    // the third ones come an hour after the first, as far apart as these were
    let most = seen.curve(70 * MINUTE, MINUTE).into_iter().max().unwrap();
    assert!(most <= 2 * 1000 / 5, "{most}");
}
