//! Whatever happens, it converges: thousands of events from a seed.

use std::collections::BTreeMap;

use nodeprep::agent::random::Random;
use nodeprep::agent::settings::{DriftPolicy, HOUR, MINUTE, SECOND, Settings, Window};

use crate::world::{KINDS, Kind, World, settings};

/// Ten thousand events and more, each kind of fault at least a hundred times: whatever happened, once all is well outside the node
/// converges; what is remembered has a bound; restarts keep to window, gate and budget; and nothing is done for nothing.
/// `NODEPREP_TEST_SEED` repeats a run.
#[test]
fn it_always_converges() {
    let given = std::env::var("NODEPREP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(nodeprep::node::agent::seed);
    println!("NODEPREP_TEST_SEED={seed}");
    let mut random = Random(seed);
    let pick = |random: &mut Random, most: usize| usize::try_from(random.below(i64::try_from(most).unwrap())).unwrap();
    let mut counts: BTreeMap<Kind, u32> = BTreeMap::new();
    let mut events = 0;
    while events < 10_000 || counts.len() < KINDS.len() || counts.values().any(|count| *count < 100) {
        let mut world = World::new(Settings {
            drift: [DriftPolicy::Report, DriftPolicy::Repair, DriftPolicy::RepairWithRestart][pick(&mut random, 3)],
            window: (random.below(3) == 0).then(|| Window::parse("22:00-04:00").unwrap()),
            splay: random.below(HOUR),
            budget: u32::try_from(1 + random.below(3)).unwrap(),
            gate: random.below(2) == 0,
            poll: (random.below(2) == 0).then_some(5 * MINUTE),
            probe: (random.below(2) == 0).then_some(15 * MINUTE),
            seed: random.number(),
            ..settings()
        });
        world.remembers = random.below(2) == 0;
        for _ in 0..200 {
            let kind = KINDS[pick(&mut random, KINDS.len())];
            *counts.entry(kind).or_default() += 1;
            world.gate_shut = random.below(2) == 0;
            world.fault(kind, &mut random);
            let scale = [SECOND, MINUTE, 20 * MINUTE][pick(&mut random, 3)];
            let time = random.below(scale);
            let before = world.passes.len();
            world.pass(world.mono + time);
            let most = 12 + time / (2 * SECOND);
            assert!(i64::try_from(world.passes.len() - before).unwrap() <= most, "{:?}", world.last());
            if random.below(40) == 0 {
                let before = world.view().clone();
                world.start(Some(before));
            }
            events += 1;
        }
        world.settle();
    }
    println!("{events} events: {counts:?}");
}

/// One that lives through ten thousand events holds no more in the end than in the beginning: all that it is, and what others read of it.
#[test]
fn memory_is_flat() {
    let given = std::env::var("NODEPREP_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(nodeprep::node::agent::seed);
    println!("NODEPREP_TEST_SEED={seed}");
    let mut random = Random(seed);
    let mut world = World::new(Settings { gate: true, poll: Some(5 * MINUTE), drift: DriftPolicy::RepairWithRestart, ..settings() });
    let size = |world: &World| {
        let machine = format!("{:?}", world.machine.as_ref().unwrap()).len();
        (machine, serde_json::to_string(world.view()).unwrap().len())
    };
    let (mut at_rest, mut most) = (Vec::new(), (0, 0));
    for _ in 0..20 {
        for _ in 0..500 {
            let kind = KINDS[usize::try_from(random.below(i64::try_from(KINDS.len()).unwrap())).unwrap()];
            world.gate_shut = random.below(2) == 0;
            world.fault(kind, &mut random);
            world.pass(world.mono + random.below(MINUTE));
            let (machine, view) = size(&world);
            most = (most.0.max(machine), most.1.max(view));
        }
        world.settle();
        world.passes.clear();
        world.said.clear();
        at_rest.push(size(&world));
    }
    println!("at most {most:?} bytes, at rest {at_rest:?}");
    assert!(most.0 < 64 << 10 && most.1 < 16 << 10, "{most:?}");
    // a counter may have some digits more, a name may be another one
    let (first, last) = (at_rest[1], at_rest[19]);
    assert!(last.0 < first.0 + 256 && last.1 < first.1 + 256, "{at_rest:?}");
}
