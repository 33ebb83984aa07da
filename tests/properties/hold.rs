//! What is kept back goes on as it was, and all else means what the spec says.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use nodeprep::desired::{Refusal, Target};
use nodeprep::flow;
use nodeprep::ledger::Ledger;
use nodeprep::model::host::Host;
use nodeprep::model::image::ImageRef;
use nodeprep::model::snapshot::Snapshot;
use nodeprep::plan::build::{Foreign, overlay};
use nodeprep::plan::hold::{Silent, Unready};
use nodeprep::plan::whole::readers;
use nodeprep::runtime::{Runtime, facts};
use nodeprep::spec::{Fallback, Spec, express, intent::intent};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::{generate, lay, load, nothing, snapshot};

/// Whether the image is one of a source that is kept back.
fn held(spec: &Spec, image: &ImageRef, silent: &BTreeSet<Host>) -> bool {
    spec.mirror_of(image).is_some_and(|mirror| {
        mirror.fallback == Fallback::Never
            && !mirror.is_blocked()
            && mirror.endpoints.iter().all(|endpoint| silent.contains(&endpoint.host))
    })
}

#[test]
fn what_is_kept_back_goes_on_and_the_rest_is_as_meant() {
    let (kept, compared, stuck, runs) = (Cell::new(0u32), Cell::new(0u32), Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 256, failure_persistence: None, ..Config::default() });
    let dead = proptest::sample::subsequence(generate::MIRRORS.to_vec(), 2..=generate::MIRRORS.len());
    let strategy = (generate::draft(), generate::draft(), generate::node(), generate::images(), dead, any::<bool>());
    let outcome = runner.run(&strategy, |(first, second, node, images, dead, fresh)| {
        let (first, second) = (load(&first).expect("a spec"), load(&second).expect("a spec"));
        let scratch = tempfile::tempdir().expect("scratch");
        lay(&node, scratch.path());
        let mut snapshot = snapshot(scratch.path());
        let found = flow::configured(facts::found(&snapshot.tree, &snapshot.probes), &second, &[]);
        let ledger = Ledger::new([7; 32]);
        let prepare = |spec: &Spec, snapshot: &Snapshot, unready: &Unready| {
            let findings = flow::Findings { unready, ..nothing() };
            flow::prepare(spec, snapshot, &found, &ledger, &BTreeMap::new(), Foreign::Refuse, findings)
        };
        if !fresh {
            for part in prepare(&first, &snapshot, &Unready::new()).parts.iter().filter(|part| part.refused.is_none()) {
                snapshot.tree = overlay(&snapshot.tree, &part.part.wants);
            }
        }
        let silent: Silent = dead.iter().map(|host| (Host::new(host).expect("a host"), ("it is off".into(), "start it".into()))).collect();
        let hosts: BTreeSet<Host> = silent.keys().cloned().collect();
        let targets = found.iter().map(|on| match on.runtime {
            Runtime::Containerd => Target::Containerd(on.config.clone()),
            _ => Target::Containers,
        });
        let unready: Unready = targets.map(|target| (target, silent.clone())).collect();
        let without = prepare(&second, &snapshot, &Unready::new());
        for planned in prepare(&second, &snapshot, &unready).parts {
            let refused = |part: &nodeprep::plan::whole::PlannedPart| part.refused.is_some() && part.part.target == planned.part.target;
            if !unready.contains_key(&planned.part.target) || without.parts.iter().any(refused) {
                continue;
            }
            runs.set(runs.get() + 1);
            if let Some(refusal) = &planned.refused {
                let (Refusal::Cannot(problems) | Refusal::Conflict(problems)) = refusal;
                prop_assert!(problems.iter().all(|problem| problem.code != "proof-failed"), "{problems:#?}");
                stuck.set(stuck.get() + 1);
                continue;
            }
            let after = overlay(&snapshot.tree, &planned.part.wants);
            for reader in readers(&planned.part.target, &found) {
                let spec = second.for_runtime(reader.runtime);
                for dialect in reader.dialects(&after) {
                    let (now, then) = (reader.view(&snapshot.tree, dialect), reader.view(&after, dialect));
                    for image in images.iter().filter_map(|image| ImageRef::parse(image).ok()) {
                        let (before, after) = (now.resolve(&image), then.resolve(&image));
                        if held(&spec, &image, &hosts) {
                            // a host that answers is reached in the new way: what is asked is the same, how may be newer
                            let places = |resolution: &nodeprep::model::resolution::Resolution| {
                                let of = |attempt: &nodeprep::model::resolution::Attempt| {
                                    (attempt.host.clone(), attempt.api_root.clone(), attempt.repo.clone())
                                };
                                let mut places: Vec<_> = resolution.attempts.iter().map(of).collect();
                                places.dedup();
                                places
                            };
                            prop_assert_eq!(places(&before), places(&after), "{} {}", dialect, image);
                            prop_assert!(before.reaches_upstream() || !after.reaches_upstream());
                            kept.set(kept.get() + 1);
                        } else if spec
                            .mirror_of(&image)
                            .is_some_and(|mirror| mirror.endpoints.iter().all(|endpoint| !hosts.contains(&endpoint.host)))
                        {
                            let meant = intent(&spec, &image);
                            // a login that stands in config.toml is carried over: nothing remembers here that it was ours
                            let carried = |host: &Host| planned.part.adopted.hosts.contains_key(host.as_str());
                            let beside = |host: &Host| hosts.contains(host) || carried(host);
                            if meant.attempts.iter().any(|attempt| attempt.repo.is_all() || beside(&attempt.host)) {
                                continue;
                            }
                            prop_assert_eq!(after.key(), express::adapt(&spec, meant, dialect).key(), "{} {}", dialect, image);
                            compared.set(compared.get() + 1);
                        }
                    }
                }
            }
        }
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    println!("{} kept back, {} as meant; {} of {} targets left untouched", kept.get(), compared.get(), stuck.get(), runs.get());
    assert!(kept.get() > 100 && compared.get() > 50, "{} kept back, {} as meant", kept.get(), compared.get());
    assert!(stuck.get() * 5 <= runs.get(), "{} of {} targets were left untouched", stuck.get(), runs.get());
}
