//! What is due, and whose is what, after runs that were cut off or shared their files with others.

use std::collections::BTreeMap;

use super::activation::take_over;
use super::back;
use super::build::{Foreign, Now, in_order};
use super::give_back::way_back;
use super::owned::left_alone;
use super::turn::{Proof, Turn, Turning};
use super::{Act, Activation, How, Plan};
use crate::desired::Target;
use crate::format::{KeyEdit, KeyFormat};
use crate::ledger::{Due, Ledger, Open, Owned, Prior, Stamp};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::{Entry, Meta, Tree};
use crate::runtime::{FoundRuntime, Presence, Running, Runtime};

const CONFIG: &str = "/etc/containerd/config.toml";

fn path(text: &str) -> NodePath {
    NodePath::new(text).unwrap()
}

fn target() -> Target {
    Target::Containerd(path(CONFIG))
}

fn daemon(started: Option<i64>) -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: path("/usr/bin/containerd"),
        installed: None,
        running: started.map(|at| Running { pid: 7, started: Time(at), version: None, socket: None }),
        config: path(CONFIG),
        unit: Some("containerd.service".to_owned()),
        env: Vec::new(),
    }
}

fn restart() -> Activation {
    Activation { who: target(), how: How::Restart("containerd.service".to_owned()), because: vec!["config.toml".to_owned()] }
}

fn owned(now: Stamp, origin: Prior) -> Owned {
    Owned { target: target(), now, origin, keys: Vec::new(), format: None, shared: false }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    for (at, text) in files {
        tree.put(&path(at), text.as_bytes(), 0o644);
    }
    tree
}

fn see<'a>(tree: &'a Tree, ledger: &'a Ledger, blobs: &'a BTreeMap<Digest, Vec<u8>>, live: bool) -> Now<'a> {
    Now { tree, ledger, blobs, foreign: Foreign::Refuse, live }
}

/// What is told as due, and what the ledger keeps.
fn taken(ledger: &Ledger, tree: &Tree, found: &[FoundRuntime], live: bool) -> (usize, usize) {
    let mut plan = Plan::default();
    take_over(&mut plan, &mut [], see(tree, ledger, &BTreeMap::new(), live), found, Vec::new());
    (plan.activate.len(), plan.due.len())
}

#[test]
fn a_restart_is_due_until_the_process_has_started_after_the_change() {
    let nothing = tree(&[]);
    let mut closed = Ledger::new([1; 32]);
    closed.due.push(Due { what: restart(), since: Time(100) });
    let mut cut_off = Ledger::new([1; 32]);
    cut_off.open = Some(Open { activations: vec![restart()], began: Time(100), ..Open::default() });
    for ledger in [closed, cut_off] {
        assert_eq!(taken(&ledger, &nothing, &[daemon(Some(50))], true), (1, 1), "it runs since before");
        assert_eq!(taken(&ledger, &nothing, &[daemon(Some(101))], true), (0, 0), "it has started since");
        assert_eq!(taken(&ledger, &nothing, &[daemon(None)], true), (0, 0), "it will see everything when it starts");
        assert_eq!(taken(&ledger, &nothing, &[daemon(None)], false), (0, 1), "another root: told once, and kept");
        let again = Ledger::from_json(&path("/l"), &ledger.to_json()).unwrap();
        assert_eq!(again, ledger);
    }
}

#[test]
fn a_file_written_after_the_start_is_seen_without_a_note_in_the_ledger() {
    let mut tree = tree(&[]);
    let meta = Meta { mtime: Time(100), ..Meta::new(0o644) };
    tree.insert(path(CONFIG), Entry::File { bytes: b"version = 2\n".as_slice().into(), meta });
    let mut ledger = Ledger::new([1; 32]);
    ledger.owned.insert(path(CONFIG), owned(Stamp::Absent, Prior::Absent).into());
    assert_eq!(taken(&ledger, &tree, &[daemon(Some(50))], true), (1, 1));
    assert_eq!(taken(&ledger, &tree, &[daemon(Some(150))], true), (0, 0));
}

/// Our key in a file that somebody has changed between two of our runs: going back takes the key out and keeps the change.
#[test]
fn the_way_back_keeps_what_others_changed_between_two_runs() {
    let (before, now) = ("version = 2\n", "version = 2\nroot = \"/data\"\nours = 1\n");
    let tree = tree(&[(CONFIG, now)]);
    let mut ledger = Ledger::new([1; 32]);
    let key = KeyEdit { key: vec!["ours".to_owned()], from: None, to: Some("1".to_owned()), why: String::new(), secret: false };
    let blob = Digest::of(before.as_bytes());
    let entry = Owned {
        keys: vec![key],
        format: Some(KeyFormat::Toml),
        shared: true,
        ..owned(ledger.stamp(now.as_bytes(), 0o644), Prior::File { blob, meta: Meta::new(0o644) })
    };
    ledger.owned.insert(path(CONFIG), entry.clone().into());
    let blobs = BTreeMap::from([(blob, before.as_bytes().to_vec())]);
    let put = |entry: &Owned| match way_back(&path(CONFIG), entry, see(&tree, &ledger, &blobs, true)).unwrap().unwrap().act {
        Act::PutFile { content, .. } => String::from_utf8(content.bytes).unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(put(&entry), "version = 2\nroot = \"/data\"\n");
    assert_eq!(put(&Owned { shared: false, ..entry }), before);
}

#[test]
fn a_link_in_the_place_of_our_file_is_told_and_stays_known() {
    let mut tree = tree(&[("/etc/x/theirs", "theirs")]);
    tree.insert(path("/etc/x/ours"), Entry::Link { to: "theirs".to_owned(), meta: Meta::default() });
    let ledger = Ledger::new([1; 32]);
    let mut entry = owned(ledger.stamp(b"ours", 0o644), Prior::Absent);
    let mut ledger = Ledger { owned: BTreeMap::from([(path("/etc/x/ours"), entry.clone().into())]), ..ledger };
    let blobs = BTreeMap::new();
    assert_eq!(way_back(&path("/etc/x/ours"), &entry, see(&tree, &ledger, &blobs, true)).unwrap_err().code, "changed-since");
    // what was there at first contact has been put back already
    entry.origin = Prior::Link { to: "theirs".to_owned(), meta: Meta::default() };
    ledger.owned.insert(path("/etc/x/ours"), entry.clone().into());
    assert!(way_back(&path("/etc/x/ours"), &entry, see(&tree, &ledger, &blobs, true)).unwrap().is_none());
}

/// A file of a target has been changed by others, or what was there before is gone: the others of that target stay, too.
#[test]
fn a_target_in_which_something_cannot_be_given_back_stays_as_it_is() {
    let tree = tree(&[("/etc/x/one", "ours"), ("/etc/x/two", "changed")]);
    let mut ledger = Ledger::new([1; 32]);
    for (name, origin) in [("one", Prior::Absent), ("two", Prior::File { blob: Digest::of(b"gone"), meta: Meta::new(0o644) })] {
        let stamp = ledger.stamp(b"ours", 0o644);
        ledger.owned.insert(path("/etc/x").join(name), owned(stamp, origin).into());
    }
    let blobs = BTreeMap::new();
    let planned = back::plan(see(&tree, &ledger, &blobs, true), &[], None, &[], &[]);
    assert!(planned.refusal().is_some() && planned.is_empty(), "{planned:?}");
    assert_eq!(planned.plan.owned, ledger.owned);
}

#[test]
fn what_a_cut_off_run_never_came_to_write_is_not_ours() {
    let tree = tree(&[("/etc/x/kept", "old"), ("/etc/x/foreign", "theirs")]);
    let mut ledger = Ledger::new([1; 32]);
    let new = ledger.stamp(b"new", 0o644);
    let file = |text: &str| Prior::File { blob: Digest::of(text.as_bytes()), meta: Meta::new(0o644) };
    let before = BTreeMap::from([
        (path("/etc/x/absent"), Prior::Absent),
        (path("/etc/x/kept"), file("old")),
        (path("/etc/x/foreign"), file("theirs")),
    ]);
    ledger.open = Some(Open { before, ..Open::default() });
    ledger.owned.insert(path("/etc/x/absent"), owned(new.clone(), Prior::Absent).into());
    ledger.owned.insert(path("/etc/x/kept"), owned(new.clone(), Prior::Absent).into());
    ledger.owned.insert(path("/etc/x/foreign"), owned(new, file("theirs")).into());
    let blobs = BTreeMap::new();
    let entry = |name: &str| {
        let at = path("/etc/x").join(name);
        left_alone(see(&tree, &ledger, &blobs, true), &at, &ledger.owned[&at])
    };
    assert_eq!((entry("absent"), entry("foreign")), (None, None));
    assert_eq!(entry("kept").map(|entry| entry.now.clone()), Some(ledger.stamp(b"old", 0o644)));
}

/// A run that was cut off has put a file there and turned a unit that is not well now.
#[test]
fn the_way_back_from_a_run_that_was_cut_off_is_what_it_found() {
    let (before, now) = ("version = 2\n", "version = 2\nours = 1\n");
    let tree = tree(&[(CONFIG, now), ("/etc/x/kept", "ours")]);
    let mut ledger = Ledger::new([1; 32]);
    let blob = Digest::of(before.as_bytes());
    let prior = Prior::File { blob, meta: Meta::new(0o644) };
    let stamp = ledger.stamp(now.as_bytes(), 0o644);
    ledger.owned.insert(path(CONFIG), owned(stamp.clone(), prior.clone()).into());
    let kept = Owned { target: Target::Trust, ..owned(ledger.stamp(b"ours", 0o644), Prior::Absent) };
    ledger.owned.insert(path("/etc/x/kept"), kept.into());
    let blobs = BTreeMap::from([(blob, before.as_bytes().to_vec())]);
    let turn = Turn {
        unit: "containerd.service".to_owned(),
        turning: Turning::Prove,
        serves: vec![restart()],
        along: Vec::new(),
        signal: None,
        proof: Proof::default(),
    };
    assert!(back::interrupted(see(&tree, &ledger, &blobs, true), std::slice::from_ref(&turn)).is_none(), "nothing was cut off");
    ledger.open = Some(Open {
        before: BTreeMap::from([(path(CONFIG), prior), (path("/etc/x/kept"), Prior::Absent)]),
        after: BTreeMap::from([(path(CONFIG), stamp)]),
        activations: vec![restart()],
        ..Open::default()
    });
    let plan = back::interrupted(see(&tree, &ledger, &blobs, true), &[turn]).unwrap();
    // of all targets; what the trust store's command must not see any more goes before it runs
    let [step, gone] = &plan.switch[..] else { panic!("{:?}", plan.switch) };
    assert!(matches!(gone.act, Act::Remove) && gone.path == path("/etc/x/kept"), "{gone:?}");
    let Act::PutFile { content, .. } = &step.act else { panic!("{step:?}") };
    assert_eq!((step.path.as_str(), content.bytes.as_slice()), (CONFIG, before.as_bytes()));
    assert!(plan.owned.is_empty() && plan.spec.is_none(), "{:?}", plan.owned);
    assert_eq!(plan.turns.iter().map(|turn| turn.turning).collect::<Vec<_>>(), [Turning::Restart]);
}

#[test]
fn things_are_found_side_by_side() {
    let there = ["/a", "/c", "/c/d", "/e"].map(path);
    for asked in [vec!["/a", "/c", "/e"], vec!["/", "/b", "/c", "/c/d", "/c/e", "/f"], vec!["/a/b", "/e", "/e/f"], vec!["/z"]] {
        let mut find = in_order(there.iter().map(|path| (path, path)));
        for one in asked.into_iter().map(path) {
            assert_eq!(find(&one), there.iter().find(|path| **path == one), "{one}");
        }
    }
}
