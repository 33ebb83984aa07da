//! For every name that the spec means, the rendered files mean the same.

use super::*;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

const HOSTS: [&str; 11] = [
    "docker.io",
    "registry-1.docker.io",
    "quay.io",
    "quay.io:443",
    "reg.local",
    "reg.local:5000",
    "reg.local:443",
    "m.local",
    "m.local:5000",
    "10.0.0.1:5000",
    "localhost",
];
const PATHS: [&str; 5] = ["", "a", "a/b", "ab", "library"];
const REPOS: [&str; 7] = ["a/x", "a/b/x", "a/b", "ab/x", "z", "library/nginx", "library"];

#[derive(Debug, Clone)]
struct Way(bool, bool, u8, bool, bool);

fn ways() -> impl Strategy<Value = Vec<Way>> {
    let way = (prop::bool::weighted(0.2), prop::bool::weighted(0.2), 0..4u8, prop::bool::weighted(0.2), prop::bool::weighted(0.3));
    prop::collection::vec(way.prop_map(|(a, b, c, d, e)| Way(a, b, c, d, e)), HOSTS.len())
}

fn specs() -> impl Strategy<Value = Spec> {
    let place = (prop::sample::select(&HOSTS[..]), prop::sample::select(&PATHS[..])).prop_map(|(host, path)| format!("{host}/{path}"));
    let to = (prop::sample::select(&HOSTS[4..]), prop::sample::select(&PATHS[..])).prop_map(|(host, path)| format!("{host}/{path}"));
    let mirror = (place, prop::collection::vec(to, 1..4), any::<bool>());
    let own = prop::collection::vec(prop::sample::select(&HOSTS[..]), 0..3);
    (prop::collection::vec(mirror, 0..4), own, ways()).prop_map(|(mut mirrors, own, ways)| {
        let mut seen = BTreeSet::new();
        mirrors.retain(|(from, _, _)| seen.insert(from.clone()));
        let fallback = |never| if never { Fallback::Never } else { Fallback::Upstream };
        let borrowed: Vec<(String, Vec<String>, Fallback)> =
            mirrors.into_iter().map(|(from, to, never)| (from, to, fallback(never))).collect();
        let texts: Vec<Vec<&str>> = borrowed.iter().map(|(_, to, _)| to.iter().map(String::as_str).collect()).collect();
        let list: Vec<(&str, &[&str], Fallback)> =
            borrowed.iter().zip(&texts).map(|((from, _, fallback), to)| (from.as_str(), to.as_slice(), *fallback)).collect();
        let mut spec = super::spec(&list);
        for host in own {
            spec.access.insert(Host::fixed(host), access());
        }
        for (host, Way(insecure, http, cas, with_client, with_login)) in HOSTS.iter().zip(ways) {
            let Some(entry) = spec.access.get_mut(&Host::fixed(host)) else { continue };
            entry.insecure = insecure && !http;
            entry.scheme = if http { Scheme::Http } else { Scheme::Https };
            entry.ca = ca([&[][..], &[0], &[1], &[0, 1]][usize::from(cas)]);
            entry.client = (with_client && !http).then(client);
            // a login for one name of Docker Hub counts for all of them (note `hub-login`)
            entry.login = login(&format!("user:{host}")).filter(|_| with_login && !host.contains("docker.io"));
        }
        spec
    })
}

/// The spec's meaning in the words of registries.conf: `insecure` stands for both ways, one after the other.
fn expected(resolution: &Resolution) -> Vec<AttemptKey> {
    let double = |key: AttemptKey| {
        let (scheme, host, url, ops, trust, client, auth, header) = key;
        match trust {
            Trust::Verified { .. } => vec![(scheme, host, url, ops, trust, client, auth, header)],
            Trust::Unverified | Trust::Plain => vec![
                (Scheme::Https, host.clone(), url.clone(), ops, Trust::Unverified, client, auth.clone(), header.clone()),
                (Scheme::Http, host, url, ops, Trust::Plain, None, auth, header),
            ],
        }
    };
    resolution.key().0.into_iter().flat_map(double).collect()
}

/// Without the CAs of a host that has no folder of ours: there the OS trust store alone decides, which has them, too.
fn without_ca(keys: Vec<AttemptKey>) -> Vec<AttemptKey> {
    let bare = |mut key: AttemptKey| {
        if let Trust::Verified { extra } = &mut key.4 {
            extra.clear();
        }
        key
    };
    keys.into_iter().map(bare).collect()
}

/// For every name that the spec means, the rendered files mean the same; at least four of five random specs are
/// accepted, and each refusal is one of the two that the format makes necessary.
#[test]
fn the_rendered_files_mean_what_the_spec_means() {
    let (accepted, refused) = (Cell::new(0u32), Cell::new(0u32));
    let mut runner = TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() });
    let empty = tree(&[]);
    let run = |spec: Spec| {
        let (crio, podman) = (on(Runtime::Crio), on(Runtime::Podman));
        let parts = want(&spec, &[&crio, &podman], &empty);
        if let Some(refusal) = &parts[0].refused {
            let Refusal::Cannot(problems) = refusal else { panic!("{refusal:?}") };
            prop_assert!(problems.iter().all(|problem| problem.code == "endpoint-blocked"), "{problems:?}");
            refused.set(refused.get() + 1);
            return Ok(());
        }
        accepted.set(accepted.get() + 1);
        let after = lay(&empty, &parts);
        let entries = entries::entries(&spec);
        let named: BTreeSet<&Host> = spec.mirrors.iter().filter_map(|mirror| mirror.source.host()).chain(spec.access.keys()).collect();
        let views = [View::new(&after, &crio), View::new(&after, &podman)];
        for (host, repo) in HOSTS.iter().flat_map(|host| REPOS.map(|repo| (host, repo))) {
            // the one gap that is told: another port of a bare name that is mirrored or insecure
            if host.contains(':') && !host.ends_with(":443") && !named.contains(&Host::fixed(host)) {
                continue;
            }
            for suffix in [":1".to_owned(), format!("@sha256:{}", "a".repeat(64))] {
                let image = image(&format!("{host}/{repo}{suffix}"));
                let meant = intent(&spec, &image);
                // a repository right at the source, and an endpoint without a path: no reference at all
                if meant.attempts.iter().any(|attempt| attempt.repo.is_all()) {
                    continue;
                }
                let meant = expected(&meant);
                for view in &views {
                    let is = view.resolve(&image);
                    prop_assert!(!matches!(is.end, End::Broken(_)), "{image}: {:?}", is.end);
                    if entries.reached.contains(&image.host) || meant.iter().all(|key| key.1 != image.host.api()) {
                        prop_assert_eq!(&is.key().0, &meant, "{}", image);
                    } else {
                        prop_assert_eq!(without_ca(is.key().0), without_ca(meant.clone()), "{}", image);
                    }
                }
            }
        }
        let again = want(&spec, &[&crio, &podman], &after);
        prop_assert!(again[0].refused.is_none(), "{:?}", again[0].refused);
        prop_assert_eq!(lay(&after, &again), after);
        Ok(())
    };
    runner.run(&specs(), run).unwrap();
    let share = accepted.get() * 100 / (accepted.get() + refused.get());
    assert!(share >= 80, "only {share} % of the specs were accepted");
}
