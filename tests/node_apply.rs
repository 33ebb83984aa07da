//! What the executor does with a plan on a root that works, and what it refuses on one that does not.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

mod node_support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use node_support::*;
use nodeprep::apply::health::Look;
use nodeprep::apply::{self, ApplyError, Door, End, Outcome, UnitError};
use nodeprep::desired::Target;
use nodeprep::ledger::{Due, LastSpec, Ledger, Prior};
use nodeprep::model::cri::CriError;
use nodeprep::model::digest::Digest;
use nodeprep::model::time::Time;
use nodeprep::model::tree::Meta;
use nodeprep::node::command::{CommandError, Output};
use nodeprep::node::error::{Class, NodeError};
use nodeprep::node::lock::Lock;
use nodeprep::node::root::Root;
use nodeprep::plan::canary::Canary;
use nodeprep::plan::turn::Turn;
use nodeprep::plan::{Activation, Expect, How, Plan};
use nodeprep::spec::adopt::Adopted;

/// Runs a plan; gives what came of it and the commands that ran.
fn execute(dir: &Path, plan: &Plan, door: &mut impl Door) -> Outcome {
    let root = Root::open(dir).unwrap();
    let ledger = apply::load_ledger(&root, &path(STATE)).unwrap().unwrap_or_else(|| Ledger::new([7; 32]));
    apply::execute(&root, &path(STATE), plan, ledger, door, &mut |_| {})
}

fn one_file(at: &str, expect: Expect, bytes: &str) -> Plan {
    let mut plan = Plan::default();
    plan.switch.push(put_file(&path(at), expect, bytes, Meta::new(0o644), false));
    plan.owned.insert(path(at), owned(Prior::Absent).into());
    plan
}

/// Refused, with nothing changed and nothing temporary left.
fn refused(dir: &Path, plan: &Plan) -> NodeError {
    let before = picture(dir);
    let outcome = execute(dir, plan, &mut Scripted::default());
    let now = picture(dir);
    assert!(now == before, "{}", difference(&now, &before));
    assert!(!dir.join("var/lib/nodeprep/ledger.json").exists());
    match outcome.end {
        End::Refused(ApplyError::Node(error)) => {
            println!("error: {error}\nhelp: {:?}", error.help());
            error
        }
        end => panic!("{end:?}"),
    }
}

fn fresh() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = scratch();
    let root = root_of(&dir, "root");
    start(&root);
    (dir, root)
}

#[test]
fn applying_twice_writes_nothing_the_second_time_and_reverting_brings_everything_back() {
    let (_dir, root) = fresh();
    let before = picture(&root);
    let outcome = run(&root, &first());
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert_eq!(get(&root, "/srv/not/there/deep/file").as_deref(), Some("behind a dangling link"));
    assert_eq!(get(&root, "/data/config.toml").as_deref(), Some("version = 2\nours = 1\n"));
    assert!(root.join("etc/config.toml").is_symlink() && !root.join("etc/conf.d/20-link.conf").is_symlink());
    assert_eq!(fs::metadata(root.join("data/config.toml")).unwrap().mode() & 0o777, 0o640);
    let ledger = root.join("var/lib/nodeprep/ledger.json");
    let written = fs::metadata(&ledger).unwrap();
    assert!(matches!(run(&root, &first()).end, End::Unchanged));
    let now = fs::metadata(&ledger).unwrap();
    assert_eq!((written.ino(), written.ctime_nsec()), (now.ino(), now.ctime_nsec()));
    for (at, mode) in [("", 0o700), ("ledger.json", 0o600), ("blobs", 0o700)] {
        assert_eq!(fs::metadata(root.join("var/lib/nodeprep").join(at)).unwrap().mode() & 0o777, mode, "{at}");
    }
    assert!(matches!(run(&root, &second()).end, End::Applied));
    assert!(matches!(run(&root, &Want::new()).end, End::Applied));
    let now = picture(&root);
    assert!(now == before, "{}", difference(&now, &before));
    assert_eq!(fs::read_dir(root.join("var/lib/nodeprep/blobs")).unwrap().count(), 0);
}

/// A run without steps writes the ledger where something of it differs, and only there; what a proof rests on is no reason.
#[test]
fn the_ledger_is_closed_only_where_something_differs() {
    type Case = (&'static str, fn(&mut Ledger), fn(&mut Plan), bool);
    fn due(unit: &str) -> Due {
        let what = Activation { who: Target::Containers, how: How::Reload(unit.to_owned()), because: Vec::new() };
        Due { what, since: Time::from_secs(1) }
    }
    let (_dir, root) = fresh();
    assert!(matches!(run(&root, &first()).end, End::Applied));
    let file = root.join("var/lib/nodeprep/ledger.json");
    let load = || apply::load_ledger(&Root::open(&root).unwrap(), &path(STATE)).unwrap().unwrap();
    let first = load();
    let cases: [Case; 9] = [
        ("nothing", |_| {}, |_| {}, false),
        ("what a proof rests on", |_| {}, |plan| _ = plan.proved.insert("containers".to_owned(), Digest::of(b"x")), false),
        ("due before and now", |ledger| ledger.due.push(due("crio.service")), |_| {}, false),
        ("due no more", |ledger| ledger.due.push(due("crio.service")), |plan| plan.due.clear(), true),
        ("carried over", |_| {}, |plan| _ = plan.adopted.insert(path("/x"), Adopted::default()), true),
        ("carried over no more", |ledger| _ = ledger.adopted.insert(path("/x"), Adopted::default()), |plan| plan.adopted.clear(), true),
        ("another spec", |_| {}, |plan| plan.spec = Some(LastSpec { name: "other".to_owned(), ..LastSpec::default() }), true),
        ("shared", |_| {}, |plan| plan.owned.values_mut().for_each(|owned| std::sync::Arc::make_mut(owned).shared = true), true),
        ("a folder with nothing of ours", |ledger| _ = ledger.dirs.insert(path("/etc/not-there")), |_| {}, true),
    ];
    for (name, before, change, written) in cases {
        let mut ledger = first.clone();
        before(&mut ledger);
        fs::write(&file, ledger.to_json()).unwrap();
        let inode = fs::metadata(&file).unwrap().ino();
        let Ledger { owned, dirs, spec, due, adopted, proved, .. } = ledger.clone();
        let mut plan = Plan { owned, dirs, spec, due, adopted, proved, ..Plan::default() };
        change(&mut plan);
        let outcome = execute(&root, &plan, &mut Scripted::default());
        assert!(matches!(outcome.end, End::Unchanged | End::Applied) && outcome.changed.is_empty(), "{name}: {:?}", outcome.end);
        assert_eq!(fs::metadata(&file).unwrap().ino() != inode, written, "{name}");
        let now = load();
        let expected = if written {
            (&plan.due, &plan.adopted, &plan.spec, &plan.owned)
        } else {
            (&ledger.due, &ledger.adopted, &ledger.spec, &ledger.owned)
        };
        assert_eq!((&now.due, &now.adopted, &now.spec, &now.owned), expected, "{name}");
        assert!(now.dirs == first.dirs && now.open.is_none(), "{name}: {:?}", now.dirs);
        assert_eq!(*outcome.ledger, now, "{name}");
    }
}

#[test]
fn more_folders_than_open_files() {
    let (_dir, root) = fresh();
    let before = picture(&root);
    let registries = |content: &str, files: &[&str]| -> Want {
        let all = (0..1100).flat_map(|i| files.iter().map(move |name| format!("/etc/certs.d/r{i}.example/{name}")));
        all.map(|at| (at, content.to_owned())).collect()
    };
    for wanted in [registries("one", &["hosts.toml", "ca.crt"]), registries("two", &["hosts.toml"]), Want::new()] {
        let outcome = run(&root, &wanted);
        assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    }
    let now = picture(&root);
    assert!(now == before, "{}", difference(&now, &before));
    // single files in folders of others
    for i in 0..1100 {
        put(&root, &format!("/srv/{i}/theirs"), "theirs");
    }
    let mut plan = Plan::default();
    for i in 0..1100 {
        plan.switch.push(put_file(&path(&format!("/srv/{i}/ours")), Expect::Absent, "ours", Meta::new(0o644), false));
    }
    // and a last one that fails
    plan.switch.push(put_file(&path("/srv/0/ours/below"), Expect::Absent, "ours", Meta::new(0o644), false));
    let before = picture(&root);
    let outcome = execute(&root, &plan, &mut Scripted::default());
    assert!(matches!(outcome.end, End::RolledBack(_)), "{:?}", outcome.end);
    let now = picture(&root);
    assert!(now == before, "{}", difference(&now, &before));
}

#[test]
fn a_foreign_change_between_plan_and_switch_is_not_overwritten() {
    let (_dir, root) = fresh();
    let expect = Expect::File(Digest::of(b"what was read"));
    let error = refused(&root, &one_file("/etc/conf.d/00-foreign.conf", expect, "ours"));
    assert!(matches!(error, NodeError::Drift { .. }) && error.class() == Class::Conflict);
    let error = refused(&root, &one_file("/etc/conf.d/00-foreign.conf", Expect::Absent, "ours"));
    assert!(matches!(error, NodeError::Drift { .. }));
}

#[test]
fn a_foreign_file_in_a_folder_that_would_be_exchanged_stops_it() {
    let (_dir, root) = fresh();
    put(&root, "/etc/certs.d/old.example/client.key", "somebody's");
    let files = [("hosts.toml".to_owned(), (nodeprep::model::content::Content::public("ours"), 0o644))].into();
    let mut plan = Plan::default();
    let act = nodeprep::plan::Act::PutDir { files, stage: path("/etc") };
    plan.switch.push(step(path("/etc/certs.d/old.example"), Expect::Dir, act));
    let error = refused(&root, &plan);
    assert!(error.to_string().contains("/etc/certs.d/old.example/client.key"), "{error}");
}

/// Folders of commands are tried as those of the steps are: before the first byte.
#[test]
fn a_folder_in_which_a_command_cannot_write_stops_it() {
    let (_dir, root) = fresh();
    fs::write(root.join("bundles"), "no folder").unwrap();
    let mut plan = one_file("/etc/new", Expect::Absent, "x");
    plan.written.insert(path("/bundles/of/ours"));
    let error = refused(&root, &plan);
    assert!(matches!(&error, NodeError::NotFolder { path } if path.as_str() == "/bundles"), "{error}");
}

#[test]
fn a_failing_command_brings_everything_back_and_is_run_again() {
    let (_dir, root) = fresh();
    let before = picture(&root);
    let mut plan = one_file("/etc/pki/new.crt", Expect::Absent, "ca");
    let argv = vec!["update-ca-trust".to_owned()];
    plan.activate.push(Activation { who: Target::Trust, how: How::Refresh(argv.clone()), because: Vec::new() });
    let mut door = Scripted { status: 3, ..Scripted::default() };
    let outcome = execute(&root, &plan, &mut door);
    assert!(matches!(&outcome.end, End::RolledBack(ApplyError::Status { status: 3, .. })), "{:?}", outcome.end);
    assert_eq!((outcome.class(), door.ran), (Some(Class::RolledBack), vec![argv.clone(), argv]));
    let now = picture(&root);
    assert!(now == before, "{}", difference(&now, &before));
    assert!(!root.join("var/lib/nodeprep/ledger.json").exists());
}

#[test]
fn units_are_left_as_due() {
    let (_dir, root) = fresh();
    let mut plan = one_file("/etc/x", Expect::Absent, "x");
    let restart = Activation { who: Target::Crio, how: How::Restart("crio.service".into()), because: Vec::new() };
    plan.activate.push(restart.clone());
    let mut door = Scripted::default();
    let outcome = execute(&root, &plan, &mut door);
    assert!(matches!(outcome.end, End::Applied) && outcome.due == [restart] && door.ran.is_empty());
}

/// A root whose tools cannot be run.
struct Toolless;

impl Door for Toolless {
    fn run(&mut self, _: &[String]) -> Result<Output, CommandError> {
        Err(CommandError::Tools("it is not there".to_owned()))
    }

    fn look(&mut self, turn: &Turn) -> Look {
        Scripted::default().look(turn)
    }

    fn turn(&mut self, turn: &Turn, back: bool) -> Result<(), UnitError> {
        Scripted::default().turn(turn, back)
    }

    fn watch(&mut self, turn: &Turn, enough: impl FnMut(&Look, Duration) -> bool) -> Look {
        Scripted::default().watch(turn, enough)
    }

    fn pull(&mut self, canary: &Canary) -> Result<(), CriError> {
        Scripted::default().pull(canary)
    }
}

#[test]
fn a_command_that_cannot_run_is_due_with_the_reason_and_known_without_it() {
    let (_dir, root) = fresh();
    let mut plan = one_file("/etc/x", Expect::Absent, "x");
    let how = How::Refresh(vec!["update-ca-trust".to_owned()]);
    let refresh = Activation { who: Target::Trust, how, because: vec!["anchors change".to_owned()] };
    plan.activate.push(refresh.clone());
    let outcome = execute(&root, &plan, &mut Toolless);
    assert!(matches!(outcome.end, End::Applied));
    assert_eq!(outcome.due.len(), 1);
    assert_eq!(outcome.due[0].because[..2], ["anchors change", "it cannot be done from here: it is not there"]);
    // the reason is today's: the ledger keeps what is to be done
    assert_eq!(outcome.ledger.due.iter().map(|due| &due.what).collect::<Vec<_>>(), [&refresh]);
}

#[test]
fn a_failure_half_way_takes_back_what_was_done() {
    let (_dir, root) = fresh();
    // the second step cannot be made: the first put a file where it needs a folder
    let mut plan = one_file("/etc/new", Expect::Absent, "a file");
    plan.switch.push(put_file(&path("/etc/conf.d/00-foreign.conf"), Expect::File(Digest::of(b"foreign")), "ours", Meta::new(0o644), false));
    plan.switch.push(put_file(&path("/etc/new/below"), Expect::Absent, "x", Meta::new(0o644), false));
    let before = picture(&root);
    let outcome = execute(&root, &plan, &mut Scripted::default());
    assert!(matches!(&outcome.end, End::RolledBack(ApplyError::Node(NodeError::NotFolder { .. }))), "{:?}", outcome.end);
    let now = picture(&root);
    assert!(now == before, "{}", difference(&now, &before));
    assert!(!root.join("var/lib/nodeprep/ledger.json").exists());
}

#[test]
fn attributes_of_a_file_that_is_edited_stay() {
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(&dir, "root");
    start(&root);
    let file = root.join("data/config.toml");
    let is_root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if is_root {
        std::os::unix::fs::chown(&file, Some(1234), Some(4321)).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let labelled = xattr::set(&file, "user.label", b"kept").is_ok();
    // user::rw- user:1000:r-- group::r-- mask::r-- other::---
    let acl: Vec<u8> = [2u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [(1u16, 6u16, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)]
                .map(|(tag, perm, id)| [&tag.to_le_bytes()[..], &perm.to_le_bytes()[..], &id.to_le_bytes()[..]].concat()),
        )
        .flatten()
        .collect();
    let with_acl = xattr::set(&file, "system.posix_acl_access", &acl).is_ok();
    println!("labels: {labelled}, ACLs: {with_acl}, root: {is_root}");
    let before = fs::metadata(&file).unwrap();
    for wanted in [first(), second(), Want::new()] {
        assert!(matches!(run(&root, &wanted).end, End::Applied));
        let now = fs::metadata(&file).unwrap();
        assert_eq!((now.uid(), now.gid(), now.mode()), (before.uid(), before.gid(), before.mode()));
        if labelled {
            assert_eq!(xattr::get(&file, "user.label").unwrap().as_deref(), Some(&b"kept"[..]));
        }
        if with_acl {
            assert_eq!(xattr::get(&file, "system.posix_acl_access").unwrap(), Some(acl.clone()));
        }
    }
}

#[test]
fn new_files_get_the_label_of_their_folder() {
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(&dir, "root");
    start(&root);
    let label = b"system_u:object_r:cert_t:s0\0";
    for folder in ["etc/conf.d", "etc/certs.d"] {
        if let Err(error) = xattr::set(root.join(folder), "security.selinux", label) {
            println!("skipped: {error}");
            return;
        }
    }
    assert!(matches!(run(&root, &first()).end, End::Applied));
    for at in ["conf.d/50-ours.conf", "certs.d/a.example", "certs.d/a.example/hosts.toml"] {
        assert_eq!(xattr::get(root.join("etc").join(at), "security.selinux").unwrap().as_deref(), Some(&label[..]), "{at}");
    }
}

#[test]
fn one_run_at_a_time() {
    let (_dir, dir) = fresh();
    let root = Root::open(&dir).unwrap();
    let held = Lock::take(&root, &path(STATE)).unwrap();
    match Lock::take(&root, &path(STATE)) {
        Err(error @ NodeError::Locked { pid, .. }) => {
            assert_eq!((pid, error.class().code()), (Some(std::process::id()), 75));
        }
        other => panic!("{other:?}"),
    }
    drop(held);
    assert!(Lock::take(&root, &path(STATE)).is_ok());
}

#[test]
fn a_ledger_of_the_future_stops_everything() {
    let (_dir, dir) = fresh();
    put(&dir, "/var/lib/nodeprep/ledger.json", r#"{"version": 999}"#);
    let error = apply::load_ledger(&Root::open(&dir).unwrap(), &path(STATE)).unwrap_err();
    assert!(error.to_string().contains("version 999") && error.help().is_some(), "{error}");
}

/// What needs a mount or an attribute starts its own test again in a mount namespace: there the root stands in the environment.
fn in_a_namespace(test: &str, setup: &str) {
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(&dir, "root");
    start(&root);
    let script = format!("set -e; cd {}; {setup}; exec \"$0\" --exact {test} --nocapture", root.display());
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]).arg(std::env::current_exe().unwrap()).env("NODEPREP_TEST_ROOT", &root);
    match command.output() {
        Ok(output) if output.status.success() => passed(&output),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            let _ = Command::new("chattr").args(["-R", "-i"]).arg(&root).output();
            if ["Operation not permitted", "permission denied", "not supported"].iter().any(|why| said.contains(why))
                && !said.contains("panicked")
            {
                println!("skipped: {said}");
            } else {
                panic!("{}\n{said}", String::from_utf8_lossy(&output.stdout));
            }
        }
        Err(error) => println!("skipped: no unshare: {error}"),
    }
}

/// The test that was started again is there, and ran.
fn passed(output: &std::process::Output) {
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}");
    print!("{said}");
}

fn inner_root() -> Option<std::path::PathBuf> {
    std::env::var_os("NODEPREP_TEST_ROOT").map(Into::into)
}

#[test]
fn read_only_file_system() {
    if let Some(root) = inner_root() {
        let error = refused(&root, &one_file("/data/new", Expect::Absent, "x"));
        assert!(matches!(error, NodeError::ReadOnly { .. }) && error.class() == Class::Node, "{error}");
        let error = refused(&root, &one_file("/data/f", Expect::File(Digest::of(b"x\n")), "x"));
        assert!(matches!(error, NodeError::ReadOnly { .. }), "{error}");
        return;
    }
    in_a_namespace("read_only_file_system", "mount -t tmpfs none data; echo x > data/f; mount -o remount,ro data");
}

#[test]
fn immutable_file() {
    if let Some(root) = inner_root() {
        let error = refused(&root, &one_file("/etc/conf.d/00-foreign.conf", Expect::File(Digest::of(b"foreign")), "x"));
        assert!(matches!(error, NodeError::Immutable { .. }) && error.help().unwrap().contains("chattr -i"), "{error}");
        let error = refused(&root, &one_file("/etc/certs.d/new", Expect::Absent, "x"));
        assert!(matches!(error, NodeError::Immutable { .. }), "{error}");
        return;
    }
    in_a_namespace(
        "immutable_file",
        "chattr +i etc/conf.d/00-foreign.conf; chattr +i etc/certs.d; trap 'chattr -i etc/conf.d/00-foreign.conf etc/certs.d' EXIT; \"$0\" --exact immutable_file --nocapture; exit",
    );
}

#[test]
fn bind_mounted_file() {
    if let Some(root) = inner_root() {
        let error = refused(&root, &one_file("/etc/conf.d/00-foreign.conf", Expect::File(Digest::of(b"node\n")), "x"));
        assert!(matches!(error, NodeError::Mounted { .. }), "{error}");
        // no folder for temporary files on the same mount
        let error = refused(&root, &one_file("/opt/b/x", Expect::Absent, "x"));
        assert!(matches!(error, NodeError::OtherFs { .. }), "{error}");
        return;
    }
    in_a_namespace(
        "bind_mounted_file",
        "mount --bind etc/hostname etc/conf.d/00-foreign.conf; mkdir -p opt/a opt/b; mount --bind opt/a opt/b",
    );
}

#[test]
fn full_disk() {
    if let Some(root) = inner_root() {
        fs::create_dir(root.join("data/conf")).unwrap();
        fs::create_dir(root.join("data/conf/d")).unwrap();
        let mut plan = one_file("/etc/first", Expect::Absent, "x");
        plan.switch.push(put_file(&path("/data/conf/d/x"), Expect::Absent, &"x".repeat(100_000), Meta::new(0o644), false));
        let error = refused(&root, &plan);
        assert!(matches!(&error, NodeError::Full { path, .. } if path.as_str() == "/data/conf/d/x"), "{error}");
        assert_eq!(fs::read_dir(root.join("data/conf")).unwrap().count(), 1);
        return;
    }
    in_a_namespace("full_disk", "mount -t tmpfs -o size=64k none data");
}

#[test]
fn without_root() {
    if let Some(root) = inner_root() {
        fs::create_dir(&root).unwrap();
        start(&root);
        let before = picture(&root);
        for wanted in [first(), second(), Want::new()] {
            let outcome = run(&root, &wanted);
            assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
        }
        let now = picture(&root);
        assert!(now == before, "{}", difference(&now, &before));
        fs::set_permissions(root.join("etc/conf.d"), fs::Permissions::from_mode(0o555)).unwrap();
        let _ = fs::remove_dir_all(root.join("var/lib/nodeprep"));
        let error = refused(&root, &one_file("/etc/conf.d/x", Expect::Absent, "x"));
        assert!(matches!(error, NodeError::Permission { .. }), "{error}");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let root = dir.path().join("root");
    let inside = "exec \"$0\" --exact without_root --nocapture";
    // the test program itself may stand in a folder that nobody else may search
    let program = dir.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", inside]).arg(&program);
    match command.env("NODEPREP_TEST_ROOT", &root).current_dir(dir.path()).output() {
        Ok(output) if output.status.success() => passed(&output),
        Ok(output) if String::from_utf8_lossy(&output.stderr).starts_with("setpriv:") => println!("skipped: not root"),
        Ok(output) => panic!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)),
        Err(error) => println!("skipped: no setpriv: {error}"),
    }
}
