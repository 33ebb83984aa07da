//! A power cut at any point: the changes of a run are replayed up to there, any of those that were not brought to the disk
//! may be missing or torn, and from each such state the next run converges and the way back leads to the beginning.
//!
//! The model is POSIX's, not that of one file system: without a sync a content may be missing while its name is there, and
//! names may change in any order.
#![cfg(debug_assertions)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

mod node_support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use node_support::*;
use nodeprep::apply::{End, load_ledger};
use nodeprep::ledger::Prior;
use nodeprep::model::path::NodePath;
use nodeprep::node::blobs;
use nodeprep::node::checkpoint::{Op, record};
use nodeprep::node::root::Root;
use proptest::prelude::*;

/// Which of the operations are certain to be on the disk after all of `ops`.
fn certain(ops: &[Op]) -> Vec<bool> {
    let mut certain = vec![false; ops.len()];
    for (at, op) in ops.iter().enumerate() {
        match op {
            Op::SyncAll => certain[..at].fill(true),
            Op::Sync { path } => {
                for (before, sure) in ops[..at].iter().zip(&mut certain) {
                    *sure |= content_of(before) == Some(path) || names_of(before).iter().any(|name| name.parent().as_ref() == Some(path));
                }
            }
            _ => {}
        }
    }
    certain
}

/// The file whose content or mode changes.
fn content_of(op: &Op) -> Option<&NodePath> {
    match op {
        Op::Write { path, .. } | Op::Mode { path, .. } => Some(path),
        _ => None,
    }
}

/// The names that change.
fn names_of(op: &Op) -> Vec<&NodePath> {
    match op {
        Op::MakeFolder { path, .. } | Op::Create { path } | Op::Link { path, .. } | Op::Unlink { path } | Op::RemoveFolder { path } => {
            vec![path]
        }
        Op::Rename { from, to } => vec![from, to],
        Op::Exchange { one, other } => vec![one, other],
        Op::Write { .. } | Op::Mode { .. } | Op::Sync { .. } | Op::SyncAll => Vec::new(),
    }
}

/// A name that is on the disk leads to something, also when the name under which it was made never was; and a folder whose
/// name is gone has nothing in it any more.
fn with_what_they_need(ops: &[Op], kept: &mut [bool]) {
    for at in 0..ops.len() {
        if let (Op::RemoveFolder { path }, true) = (&ops[at], kept[at]) {
            for (before, kept) in ops[..at].iter().zip(&mut *kept) {
                *kept |= matches!(before, Op::Unlink { path: inner } | Op::RemoveFolder { path: inner } | Op::Rename { from: inner, .. } if inner.is_below(path));
            }
        }
    }
    for at in (0..ops.len()).rev().filter(|at| matches!(ops[*at], Op::Rename { .. } | Op::Exchange { .. })).collect::<Vec<_>>() {
        if !kept[at] {
            continue;
        }
        let moved: Vec<&NodePath> = match &ops[at] {
            Op::Rename { from, .. } => vec![from],
            other => names_of(other),
        };
        // where it goes is there, too
        let to = |i: &usize| matches!((&ops[at], &ops[*i]), (Op::Rename { to, .. }, Op::MakeFolder { path, .. }) if to.is_below(path));
        for maker in (0..at).filter(to).collect::<Vec<_>>() {
            kept[maker] = true;
        }
        for name in moved {
            let makes = |op: &Op| match op {
                Op::MakeFolder { path, .. } | Op::Create { path } | Op::Link { path, .. } => path == name,
                Op::Rename { to, .. } => to == name,
                _ => false,
            };
            if let Some(maker) = ops[..at].iter().rposition(makes) {
                kept[maker] = true;
            }
            let above: Vec<usize> = (0..at).filter(|i| matches!(&ops[*i], Op::MakeFolder { path, .. } if name.is_below(path))).collect();
            for maker in above {
                kept[maker] = true;
            }
        }
    }
}

/// Does an operation on another root; what cannot be done because something before it is missing is left out.
fn replay(root: &Path, op: &Op, torn: Option<usize>) {
    let at = |path: &NodePath| -> PathBuf { root.join(path.as_str().trim_start_matches('/')) };
    let _ = match op {
        Op::MakeFolder { path, mode } => {
            fs::create_dir(at(path)).and_then(|()| fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)))
        }
        Op::Create { path } => fs::OpenOptions::new().write(true).create_new(true).open(at(path)).map(drop),
        Op::Write { path, bytes } => fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(at(path))
            .and_then(|mut file| file.write_all(&bytes[..torn.unwrap_or(bytes.len()).min(bytes.len())])),
        Op::Mode { path, mode } => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode)),
        Op::Link { path, to } => symlink(to, at(path)),
        Op::Rename { from, to } => fs::rename(at(from), at(to)),
        Op::Exchange { one, other } => {
            let between = root.join("between");
            fs::rename(at(one), &between)
                .and_then(|()| fs::rename(at(other), at(one)).or_else(|_| fs::rename(&between, at(one))))
                .and_then(|()| if between.symlink_metadata().is_ok() { fs::rename(&between, at(other)) } else { Ok(()) })
        }
        Op::Unlink { path } => fs::remove_file(at(path)),
        Op::RemoveFolder { path } => fs::remove_dir(at(path)),
        Op::Sync { .. } | Op::SyncAll => Ok(()),
    };
}

/// What is on the node is what was there, ours, or can be brought back.
fn origins_are_kept(dir: &Path, at: &str) {
    let root = Root::open(dir).unwrap();
    let Some(ledger) = load_ledger(&root, &path(STATE)).unwrap_or_else(|error| panic!("{at}: {error}")) else { return };
    for (owned, entry) in &ledger.owned {
        if let Prior::File { blob, .. } = &entry.origin {
            blobs::read(&root, &path(STATE), *blob, owned).unwrap_or_else(|error| panic!("{at}: {error}"));
        }
    }
}

struct Case {
    dir: tempfile::TempDir,
    origin: PathBuf,
    old: PathBuf,
    goal: Want,
    ops: Vec<Op>,
}

impl Case {
    fn new(before: &[Want], goal: Want) -> Self {
        let dir = scratch();
        let origin = root_of(&dir, "origin");
        start(&origin);
        let old = dir.path().join("old");
        copy(&origin, &old);
        for want in before {
            assert!(matches!(run(&old, want).end, End::Applied));
        }
        let new = dir.path().join("new");
        copy(&old, &new);
        let (outcome, ops) = record(|| run(&new, &goal));
        assert!(matches!(outcome.end, End::Applied | End::Unchanged), "{:?}", outcome.end);
        Self { dir, origin, old, goal, ops }
    }

    /// A power cut after `cut` operations; `lost` and `torn` decide about what was not synced.
    fn power_cut(&self, cut: usize, lost: &[bool], torn: &[Option<usize>]) {
        let root = self.dir.path().join("root");
        let _ = fs::remove_dir_all(&root);
        copy(&self.old, &root);
        let ops = &self.ops[..cut];
        let mut kept = certain(ops);
        let sure = kept.clone();
        for (kept, lost) in kept.iter_mut().zip(lost.iter().cycle()) {
            *kept |= !lost;
        }
        with_what_they_need(ops, &mut kept);
        for (i, op) in ops.iter().enumerate().filter(|(i, _)| kept[*i]) {
            replay(&root, op, if sure[i] { None } else { torn[i % torn.len()] });
        }
        let missing: BTreeSet<usize> = (0..cut).filter(|i| !kept[*i]).collect();
        let shown: Vec<String> = ops.iter().enumerate().map(|(i, op)| format!("{i} {op:?}").chars().take(150).collect()).collect();
        let at = format!("cut after {cut} of {} without {missing:?} {shown:#?}", self.ops.len());
        origins_are_kept(&root, &at);
        let end = run(&root, &self.goal).end;
        assert!(matches!(end, End::Applied | End::Unchanged), "{at}: {end:?}");
        let (now, will) = (picture(&root), picture(&self.dir.path().join("new")));
        assert!(now == will, "{at}: {}", difference(&now, &will));
        assert!(matches!(run(&root, &self.goal).end, End::Unchanged), "{at}");
        let end = run(&root, &Want::new()).end;
        assert!(matches!(end, End::Applied | End::Unchanged), "{at}: {end:?}");
        let (now, origin) = (picture(&root), picture(&self.origin));
        assert!(now == origin, "{at}: {}", difference(&now, &origin));
    }

    /// Nothing lost that need not be, and everything lost that can be, at every point.
    fn at_every_point(&self) {
        println!("{} operations", self.ops.len());
        for cut in 0..=self.ops.len() {
            self.power_cut(cut, &[true], &[Some(0)]);
            self.power_cut(cut, &[false], &[Some(1)]);
        }
    }
}

#[test]
fn first_apply_at_every_point() {
    Case::new(&[], first()).at_every_point();
}

#[test]
fn second_apply_at_every_point() {
    Case::new(&[first()], second()).at_every_point();
}

#[test]
fn revert_at_every_point() {
    Case::new(&[first()], Want::new()).at_every_point();
}

fn wants() -> impl Strategy<Value = Want> {
    let places = [
        "/etc/certs.d/a.example/hosts.toml",
        "/etc/certs.d/a.example/ca.crt",
        "/etc/certs.d/old.example/hosts.toml",
        "/etc/conf.d/20-link.conf",
        "/etc/conf.d/50-ours.conf",
        "/etc/config.toml",
        "/etc/pki/ca-addressed-1.crt",
        "/etc/away/deep/file",
    ];
    proptest::collection::btree_map(proptest::sample::select(places.to_vec()), "[a-c]{1,3}", 0..6)
        .prop_map(|want| want.into_iter().map(|(at, bytes)| (at.to_owned(), bytes)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_any_cut_any_loss(
        before in proptest::collection::vec(wants(), 0..2),
        goal in wants(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), proptest::collection::vec(any::<bool>(), 1..80),
            proptest::collection::vec(proptest::option::of(0usize..4), 1..8)), 12),
    ) {
        let before: Vec<Want> = before.into_iter().filter(|want| !want.is_empty()).collect();
        let case = Case::new(&before, goal);
        for (cut, lost, torn) in cuts {
            case.power_cut(cut.index(case.ops.len() + 1), &lost, &torn);
        }
    }
}
