//! What the reader makes of a root: links inside, links that want to lead out, and everything that should not be opened.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

mod node_support;

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use node_support::*;
use nodeprep::model::tree::{Entry, Found, Tree};
use nodeprep::node::command::{self, CommandError};
use nodeprep::node::error::NodeError;
use nodeprep::node::read::{Limits, read, read_within};
use nodeprep::node::root::Root;
use nodeprep::node::{Probes, probe};
use nodeprep::runtime::Wish;

fn see(dir: &Path, wishes: &[Wish]) -> Tree {
    read(&Root::open(dir).unwrap(), |_| wishes.to_vec())
}

fn text(tree: &Tree, at: &str) -> Option<String> {
    tree.text(&path(at)).map(std::borrow::Cow::into_owned)
}

fn why(tree: &Tree, at: &str) -> String {
    match tree.find(&path(at)) {
        Found::Unreadable(why) => why.to_owned(),
        other => panic!("{at}: {other:?}"),
    }
}

#[test]
fn links_stay_inside_the_root() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&dir.path().join("outside"), "/secret", "outside");
    put(&root, "/srv/real/file", "inside");
    link(&root, "/etc/absolute", "/srv/real");
    link(&root, "/etc/up", "../../../../../srv/real");
    link(&root, "/etc/out", "../../outside");
    link(&root, "/etc/outright", dir.path().join("outside").to_str().unwrap());
    link(&root, "/etc/dangling", "/nowhere/at/all");
    link(&root, "/etc/one", "two");
    link(&root, "/etc/two", "one");
    link(&root, "/etc/self/self", ".");
    link(&root, "/etc/chain", "absolute/../real/./file");
    let wishes = [
        "absolute/file",
        "up/file",
        "out/secret",
        "outright/secret",
        "dangling/x",
        "one/x",
        "one",
        "chain",
        "self/self/self/self",
        "none/x",
    ];
    let wishes: Vec<Wish> = wishes.iter().map(|at| Wish::path(path(&format!("/etc/{at}")))).collect();
    let tree = see(&root, &wishes);
    assert_eq!(text(&tree, "/etc/absolute/file").as_deref(), Some("inside"));
    assert_eq!(text(&tree, "/etc/up/file").as_deref(), Some("inside"));
    assert_eq!(text(&tree, "/etc/chain").as_deref(), Some("inside"));
    for at in ["/etc/out/secret", "/etc/outright/secret", "/etc/dangling/x", "/etc/none/x"] {
        assert_eq!(tree.find(&path(at)), Found::Absent, "{at}");
    }
    assert!(why(&tree, "/etc/one").contains("too many") && why(&tree, "/etc/one/x").contains("too many"));
    assert!(matches!(tree.find(&path("/etc/self/self/self")), Found::Dir));
    // real paths only, each once
    assert!(matches!(tree.entry(&path("/etc/up")), Some(Entry::Link { .. })));
    assert!(tree.iter().all(|(at, _)| tree.real_parent(at).as_ref() == Some(at)), "{tree:?}");
}

#[test]
fn writing_follows_links_inside_too() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    fs::create_dir_all(root.join("etc")).unwrap();
    link(&root, "/etc/a", "../../../out");
    link(&root, "/etc/loop", "loop");
    let open = Root::open(&root).unwrap();
    let (real, _) = open.real_parent(&path("/etc/a/b/file"), true).unwrap();
    assert_eq!(real, path("/out/b/file"));
    assert!(root.join("out/b").is_dir() && !dir.path().join("out").exists());
    assert!(matches!(open.real_parent(&path("/etc/loop/x"), true), Err(NodeError::Loop { .. })));
    assert!(open.real_parent(&path("/not/there/x"), false).is_err() && !root.join("not").exists());
}

#[test]
fn reads_in_rounds_and_each_path_once() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&root, "/etc/main.toml", "/etc/more.d");
    put(&root, "/etc/more.d/a", "/data/last");
    put(&root, "/etc/more.d/sub/deep/file", "deep");
    put(&root, "/data/last", "end");
    let mut rounds = 0;
    let tree = read(&Root::open(&root).unwrap(), |tree| {
        rounds += 1;
        let mut wishes = vec![Wish::path(path("/etc/main.toml"))];
        if let Some(next) = tree.text(&path("/etc/main.toml")) {
            wishes.push(Wish::folder(path(&next), 1));
        }
        if let Some(next) = tree.text(&path("/etc/more.d/a")) {
            wishes.push(Wish::path(path(&next)));
            wishes.push(Wish::folder(path("/etc/more.d"), 3));
        }
        wishes
    });
    assert_eq!((rounds, text(&tree, "/data/last").as_deref()), (4, Some("end")));
    assert_eq!(text(&tree, "/etc/more.d/sub/deep/file").as_deref(), Some("deep"));
    assert_eq!(tree.names(&path("/etc/more.d")), ["a", "sub"]);
    assert_eq!(tree.find(&path("/etc/more.d/other")), Found::Absent);
    assert_eq!(tree.find(&path("/etc/other")), Found::Unread);
}

/// What is known of a folder's inside, also through a link, is not read a second time when the folder is.
#[test]
fn a_path_is_looked_at_once() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&root, "/etc/d/z/x", "first");
    put(&root, "/etc/d/z/y", "y");
    std::os::unix::fs::symlink("z", root.join("etc/d/a")).unwrap();
    for early in ["/etc/d/z/x", "/etc/d/a/x"] {
        put(&root, "/etc/d/z/x", "first");
        let mut rounds = 0;
        let tree = read(&Root::open(&root).unwrap(), |_| {
            rounds += 1;
            if rounds == 1 {
                return vec![Wish::path(path(early))];
            }
            put(&root, "/etc/d/z/x", "second");
            vec![Wish::folder(path("/etc/d"), 2)]
        });
        assert_eq!(text(&tree, "/etc/d/z/x").as_deref(), Some("first"), "{early}");
        assert_eq!(
            (tree.names(&path("/etc/d")), tree.names(&path("/etc/d/a"))),
            (["a", "z"].map(Into::into).into(), ["x", "y"].map(Into::into).into())
        );
    }
}

/// A link may lead into a folder beside it: what was read there stays known when the folder itself is listed, less deep.
#[test]
fn what_a_link_led_to_stays_known() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&root, "/etc/d/z/deep/file", "text");
    for (to, name) in [("z/deep", "a"), ("/etc/d/z/deep", "b"), ("../d/z/deep", "c")] {
        link(&root, &format!("/etc/d/{name}"), to);
        let tree = see(&root, &[Wish::folder(path("/etc/d"), 2)]);
        for folder in [format!("/etc/d/{name}"), "/etc/d/z/deep".to_owned()] {
            assert_eq!(tree.names(&path(&folder)), ["file"], "{folder} -> {to}");
            assert_eq!(tree.find(&path(&format!("{folder}/other"))), Found::Absent, "{folder} -> {to}");
        }
        assert_eq!(text(&tree, "/etc/d/z/deep/file").as_deref(), Some("text"), "{to}");
        fs::remove_file(root.join("etc/d").join(name)).unwrap();
    }
}

#[test]
fn what_cannot_be_read_says_why() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&root, "/etc/large", &"x".repeat(2000));
    put(&root, "/etc/bundles/tls", &"x".repeat(2000));
    put(&root, "/etc/file", "a file");
    assert!(std::process::Command::new("mkfifo").arg(root.join("etc/pipe")).status().unwrap().success());
    drop(std::os::unix::net::UnixListener::bind(root.join("etc/socket")).unwrap());
    fs::write(root.join("etc").join(std::ffi::OsStr::from_bytes(b"caf\xe9.crt")), "x").unwrap();
    let limits = Limits { file: 1000, bundle: 4000, bundles: vec![path("/etc/bundles")] };
    let wishes = [Wish::folder(path("/etc"), 2), Wish::path(path("/etc/file/below"))];
    let tree = read_within(&Root::open(&root).unwrap(), &limits, |_| wishes.to_vec());
    assert_eq!(why(&tree, "/etc/large"), "larger than 1000 bytes");
    assert_eq!(text(&tree, "/etc/bundles/tls").unwrap().len(), 2000);
    assert_eq!(why(&tree, "/etc/pipe"), "a pipe, not opened");
    assert_eq!(why(&tree, "/etc/socket"), "a socket, not opened");
    assert_eq!(why(&tree, "/etc/caf\u{fffd}.crt"), "its name is not UTF-8");
    assert_eq!(tree.find(&path("/etc/file/below")), Found::Absent);
}

#[test]
fn permissions_that_are_missing() {
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(&dir, "root");
    put(&root, "/etc/closed/file", "x");
    put(&root, "/etc/secret", "x");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(root.join("etc/closed"), fs::Permissions::from_mode(0o0)).unwrap();
    fs::set_permissions(root.join("etc/secret"), fs::Permissions::from_mode(0o0)).unwrap();
    if fs::read(root.join("etc/secret")).is_ok() {
        println!("skipped: root may read everything");
        return;
    }
    let tree = see(&root, &[Wish::path(path("/etc/closed/file")), Wish::path(path("/etc/secret")), Wish::folder(path("/etc/closed"), 1)]);
    assert_eq!(why(&tree, "/etc/closed/file"), "permission denied");
    assert_eq!(why(&tree, "/etc/secret"), "permission denied");
}

#[test]
fn attributes_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let root = root_of(&dir, "root");
    put(&root, "/etc/file", "x");
    fs::set_permissions(root.join("etc/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    let labelled = xattr::set(root.join("etc/file"), "user.label", b"1").is_ok();
    let tree = see(&root, &[Wish::path(path("/etc/file"))]);
    let Found::File(_, meta) = tree.find(&path("/etc/file")) else { panic!("{tree:?}") };
    assert_eq!(meta.mode, 0o4751);
    assert!(probe::now().0 - meta.mtime.0 < 3_600_000, "{:?}", meta.mtime);
    if labelled {
        assert_eq!(meta.xattrs, [("user.label".to_owned(), b"1".to_vec())]);
    }
}

#[test]
fn an_image_has_no_processes_and_no_versions() {
    let dir = scratch();
    let root = Root::open(dir.path()).unwrap();
    let Probes { now, live, processes, versions, .. } = probe::probe(&root);
    assert!(now.0 > 0 && !live && processes.is_empty() && versions.is_empty());
    assert!(probe::versions(&root, [path("/bin/sh")], &[]).is_empty());
    let live = Root::open(Path::new("/")).unwrap();
    assert!(probe::probe(&live).live || Path::new("/proc/1/root").exists());
}

fn shell(root: &Path, script: &str, patience: u64) -> Result<command::Output, CommandError> {
    let argv = ["/bin/sh", "-c", script].map(ToOwned::to_owned);
    command::run(&Root::open(root).unwrap(), &argv, Duration::from_secs(patience))
}

#[test]
fn commands_have_an_empty_environment_and_a_bounded_answer() {
    let live = Path::new("/");
    if !Root::open(live).unwrap().is_live() {
        println!("skipped: not the root of process 1");
        return;
    }
    let output = shell(live, "env | sort; cat; echo oops >&2; exit 3", 30).unwrap();
    let names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.iter().all(|name| ["LANG", "PATH", "PWD", "SHLVL", "_", "OLDPWD"].contains(name)), "{names:?}");
    assert_eq!((output.status, output.stderr.as_str()), (3, "oops\n"));
    let output = shell(live, "head -c 300000 /dev/zero | tr '\\0' x", 30).unwrap();
    assert_eq!((output.status, output.stdout.len()), (0, 64 << 10));
    let error = shell(live, "sleep 600 & sleep 600", 1).unwrap_err();
    assert!(matches!(error, CommandError::TimedOut { seconds: 1, .. }), "{error:?}");
    let error = command::run(&Root::open(live).unwrap(), &["/not/there".to_owned()], Duration::from_secs(1)).unwrap_err();
    assert!(matches!(&error, CommandError::Start { .. }), "{error:?}");
}

#[test]
fn tools_of_an_empty_root_cannot_be_run() {
    let dir = scratch();
    assert!(matches!(shell(dir.path(), "true", 30), Err(CommandError::Tools(_))));
}

#[test]
fn tools_of_another_root_run_there() {
    let dir = scratch();
    let root = root_of(&dir, "root");
    fs::create_dir_all(root.join("bin")).unwrap();
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
    let Some(busybox) = busybox else {
        println!("skipped: no static program to put there");
        return;
    };
    fs::copy(busybox, root.join("bin/sh")).unwrap();
    put(&root, "/marker", "inside");
    match shell(&root, "read line < /marker; echo $line", 30) {
        Ok(output) => assert_eq!((output.status, output.stdout.as_str()), (0, "inside\n"), "{output:?}"),
        Err(CommandError::Tools(why)) => println!("skipped: {why}"),
        Err(error) => panic!("{error}"),
    }
}
