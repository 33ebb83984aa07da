//! One version runs, another is on disk: what becomes of the files that each of them reads.

use super::*;

/// A containerd of which one version runs while another is on disk.
fn between(running: Version, installed: Version) -> FoundRuntime {
    let process = crate::runtime::Running { pid: 7, started: crate::model::time::Time(5), version: Some(running), socket: None };
    FoundRuntime { installed: Some(installed), running: Some(process), ..on() }
}

fn dialects_of(found: &FoundRuntime, tree: &Tree) -> Vec<Dialect> {
    found.dialects(tree).into_iter().filter_map(crate::runtime::Dialect::containerd).collect()
}

const OLD: Version = Version(1, 7, 24);
const NEW: Version = Version(2, 1, 9);
const OF_3: &str = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n";

/// An update has moved the file on, and containerd was not started again: the file is right for the one on disk, the registries'
/// folders for both.
#[test]
fn a_file_that_only_the_running_version_rejects() {
    // 1.6 takes a file of version 3 for one of version 2 in which there is nothing
    for running in [OLD, Version(1, 6, 20)] {
        let (found, tree) = (between(running, NEW), tree(&[(CONFIG, OF_3)]));
        let dialects = dialects_of(&found, &tree);
        assert_eq!(dialects, [running, NEW].map(Dialect::of_version));
        let part = want(&simple(), &found, &tree, &dialects);
        assert_eq!(part.refused, None);
        let told: Vec<_> = part.notes.iter().filter(|note| note.code == "config-toml-not-for-running").collect();
        assert_eq!(told.len(), 1, "{:?}", part.notes);
        assert!(told[0].what.contains("is for containerd 2.1, which is on disk, not for containerd"), "{}", told[0].what);
        assert_eq!(running == OLD, told[0].what.contains("version = 3 is too new for containerd 1.7.16-1.7.31"), "{}", told[0].what);
        assert!(!part.wants.values().any(|want| matches!(want, Want::Keys(keys) if !keys.edits.is_empty())), "nothing to set");
        let after = overlay(&tree, &part);
        for dialect in dialects {
            let image = ImageRef::parse("docker.io/library/nginx:1").unwrap();
            assert!(View::new(&after, &found, dialect).resolve(&image).same(&intent(&simple(), &image)), "{dialect:?}");
        }
    }
    // where something has to be set, it is set in the tables of the version on disk
    let (found, tree) = (between(OLD, NEW), tree(&[(CONFIG, "version = 3\n")]));
    let part = want(&simple(), &found, &tree, &dialects_of(&found, &tree));
    let Some(Want::Keys(keys)) = part.wants.get(&path(CONFIG)) else { panic!("{part:?}") };
    let text = String::from_utf8_lossy(&keys.content.bytes).into_owned();
    assert!(text.contains("io.containerd.cri.v1.images") && text.starts_with("version = 3\n"), "{text}");
}

/// The other way round it would not start again: that is refused, with the version that says so.
#[test]
fn a_file_that_only_the_version_on_disk_rejects() {
    for (installed, file) in [(OLD, OF_3), (Version(2, 2, 0), "version = 4\n")] {
        let running = if installed == OLD { NEW } else { Version(2, 3, 0) };
        let (found, tree) = (between(running, installed), tree(&[(CONFIG, file)]));
        let part = want(&simple(), &found, &tree, &dialects_of(&found, &tree));
        let Some(Refusal::Cannot(problems)) = &part.refused else { panic!("{part:?}") };
        let wanted = format!("is too new for {}, it does not start", Dialect::of_version(installed).name());
        assert!(problems[0].what.contains(&wanted), "{problems:?}");
        assert!(part.wants.is_empty());
    }
}

/// A file of version 1 stays one when the version on disk reads it, whatever runs; and it is refused when that does not.
#[test]
fn a_file_of_version_1_is_for_the_version_on_disk() {
    let files = [(CONFIG, "[plugins.cri]\nsandbox_image = 'x'\n")];
    let (found, tree) = (between(OLD, NEW), tree(&files));
    let part = want(&simple(), &found, &tree, &dialects_of(&found, &tree));
    let Some(Refusal::Cannot(problems)) = &part.refused else { panic!("{part:?}") };
    assert_eq!(problems[0].code, "config-toml-version");
    let found = between(NEW, OLD);
    let part = want(&simple(), &found, &tree, &dialects_of(&found, &tree));
    assert_eq!(part.refused, None);
    let Some(Want::Keys(keys)) = part.wants.get(&path(CONFIG)) else { panic!("{part:?}") };
    assert!(String::from_utf8_lossy(&keys.content.bytes).contains("[plugins.cri.registry]"), "{keys:?}");
}

/// A login that one of the two would not get to where tokens are issued is none that works.
#[test]
fn logins_are_for_both_versions() {
    for (running, installed, in_config) in [(OLD, NEW, true), (NEW, OLD, true), (NEW, NEW, false)] {
        let mut spec = simple();
        let by_config = Login { basic: Secret::new("user:hunter22"), by: crate::spec::LoginBy::Config };
        spec.access.get_mut(&Host::fixed("m.corp")).unwrap().login = Some(by_config);
        let (found, tree) = (between(running, installed), tree(&[(CONFIG, "version = 2\n")]));
        let part = want(&spec, &found, &tree, &dialects_of(&found, &tree));
        assert_eq!(part.refused, None);
        let Some(Want::Keys(keys)) = part.wants.get(&path(CONFIG)) else { panic!("{part:?}") };
        assert_eq!(String::from_utf8_lossy(&keys.content.bytes).contains("configs"), in_config, "{running:?} {installed:?}");
    }
}

/// Before 1.5 nobody reads hosts.toml: to write it would look like a closed node. The one on disk counts, it is the next to run.
#[test]
fn a_version_that_reads_no_hosts_toml() {
    let tree = tree(&[(CONFIG, "version = 2\n")]);
    for (installed, refused) in [(Version(1, 4, 13), true), (Version(1, 2, 6), true), (Version(1, 5, 0), false)] {
        let found = between(Version(1, 4, 13), installed);
        let part = want(&simple(), &found, &tree, &dialects_of(&found, &tree));
        let Some(Refusal::Cannot(problems)) = &part.refused else {
            assert!(!refused && part.refused.is_none(), "{part:?}");
            continue;
        };
        assert!(refused && part.wants.is_empty());
        assert_eq!(problems[0].code, "too-old");
        assert!(problems[0].what.contains(&format!("containerd {installed} does not read hosts.toml")), "{problems:?}");
    }
    // nor is what somebody else has written there taken for an answer
    let written = [(CONFIG, "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n")];
    let part = want(&simple(), &between(OLD, OLD), &super::tree(&written), &[Dialect::V1_6]);
    let closed = overlay(&super::tree(&written), &part);
    let image = ImageRef::parse("docker.io/library/nginx:1").unwrap();
    let asks = |version| View::new(&closed, &between(version, version), Dialect::V1_6).resolve(&image);
    assert!(asks(Version(1, 5, 0)).same(&intent(&simple(), &image)));
    let open = asks(Version(1, 4, 13));
    assert!(open.attempts.iter().any(|attempt| attempt.host.as_str() == "registry-1.docker.io"), "{open:?}");
    assert!(format!("{open:?}").contains("containerd 1.4.13 reads no hosts.toml"), "{open:?}");
}
