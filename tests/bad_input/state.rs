//! The state folder, the ledger and the lock.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use crate::node::{Node, same};

const LEDGER: &str = "/var/lib/nodeprep/ledger.json";

#[test]
fn ledger_that_cannot_be_read() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    let good = node.get(LEDGER);
    for bad in ["garbage", "", "{\"version\": 1}", "[]"] {
        node.put(LEDGER, bad);
        node.refused(4, &[LEDGER, "cannot be read", "restore it from a backup, or move"]);
        node.run("revert").says(4, &[LEDGER, "help: "]);
        // a question about the node is answered all the same
        node.run("explain docker.io/library/x").says(0, &["registry.internal.example.com:5000", "warning[node]", LEDGER]);
        node.run("verify --offline").says(0, &["warning[node]", LEDGER]);
        assert_eq!(node.get(LEDGER), bad);
    }
    node.put(LEDGER, good.replacen("\"version\":", "\"version\": 99, \"old\":", 1));
    node.refused(4, &[LEDGER, "has version 99", "use the nodeprep that wrote it"]);
    node.run("revert").says(4, &["has version 99"]);
    node.put(LEDGER, good);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn ledger_that_is_gone() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    fs::remove_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    let applied = node.picture(false);
    node.run("apply").says(0, &["0 changes made"]);
    same(&applied, &node.picture(false));
    // what is ours by header or by name and content goes; an empty registry folder would decide what is pulled
    node.run("revert").says(0, &[]);
    let left: Vec<_> = node.picture(false).into_keys().filter(|path| path.to_string_lossy().contains("docker.io")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!node.picture(false).keys().any(|path| path.to_string_lossy().ends_with(".key")));
}

/// The program of a guardian whose run and node are gone, by a power cut, is not left lying about.
#[test]
fn a_guardian_that_is_left_over() {
    let node = Node::new();
    for command in ["apply", "revert", "recover"] {
        let guardian = node.put("/var/lib/nodeprep/guardian", "program");
        node.run(command).says(0, &[]);
        assert!(!guardian.exists(), "{command}");
    }
}

/// What is kept of the last spec is root's alone again, also where nothing else of it changes.
#[test]
fn kept_for_others_to_read() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    let kept = node.at("/var/lib/nodeprep/last-good.json");
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o644)).unwrap();
    node.run("apply").says(0, &["0 changes made"]);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
}

/// Of a size that nothing of ours has: neither read nor gone through, and said with its name.
#[test]
fn state_that_is_far_too_large() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    let grow = |name: &str| {
        let path = format!("/var/lib/nodeprep/{name}");
        let before = fs::read(node.at(&path)).ok();
        fs::File::options().create(true).append(true).open(node.at(&path)).unwrap().set_len(200 << 20).unwrap();
        (path, before)
    };
    let back = |(path, before): (String, Option<Vec<u8>>)| match before {
        Some(bytes) => fs::write(node.at(&path), bytes).unwrap(),
        None => drop(fs::remove_file(node.at(&path))),
    };
    for (name, help) in [("ledger.json", "move /var/lib/nodeprep/ledger.json away"), ("pause.json", "nodeprep resume"), ("staging", "away")]
    {
        let grown = grow(name);
        node.run("apply").says(4, &[&grown.0, "is larger than 67108864 bytes", help]);
        back(grown);
    }
    // a pause that cannot be read is ended like any other
    grow("pause.json");
    node.run("resume").says(0, &[]);
    assert!(!node.at("/var/lib/nodeprep/pause.json").exists());
    for name in ["failed.json", "fetched.json", "last-good.json"] {
        let grown = grow(name);
        let run = node.run("apply");
        run.says(0, &[]);
        assert!(!run.out.contains("not-kept"), "{}", run.out);
        if name != "last-good.json" {
            back(grown);
            continue;
        }
        // it is another one than that of this spec, and replaced
        assert_eq!(fs::read(node.at(&grown.0)).ok(), grown.1);
    }
    // the trail is put aside, and goes on
    grow("audit.log");
    node.run("pause --for 1h").says(0, &[]);
    assert_eq!(node.get("/var/lib/nodeprep/audit.log").lines().count(), 1);
    assert_eq!(fs::metadata(node.at("/var/lib/nodeprep/audit.log.1")).unwrap().len(), 200 << 20);
}

#[test]
fn state_folder_of_another_kind() {
    let node = Node::new();
    fs::create_dir_all(node.at("/srv/state")).unwrap();
    node.link("/var/lib/nodeprep", "/srv/state");
    node.run("apply").says(0, &[]);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(node.at("/srv/state")).unwrap()) & 0o777, 0o700);
    node.run("revert").says(0, &[]);
    let node = Node::new();
    node.put("/var/lib/nodeprep", "a file");
    node.refused(4, &["/var/lib/nodeprep is not a folder", "move /var/lib/nodeprep away"]);
    let node = Node::new();
    node.link("/var/lib/nodeprep", "nodeprep");
    node.refused(4, &["too many levels of symbolic links", "repair the symbolic links"]);
}

#[test]
fn two_at_once() {
    let node = Node::new();
    fs::create_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    let lock = node.at("/var/lib/nodeprep/lock");
    let mut held = fs::File::create(&lock).unwrap();
    held.lock().unwrap();
    writeln!(held, "4711").unwrap();
    node.refused(75, &["another run (process 4711) holds /var/lib/nodeprep/lock", "wait until the other run is through"]);
    node.run("revert").says(75, &["another run"]);
    drop(held);
    node.converges();
}

#[test]
fn root_that_is_not_there() {
    let node = Node::new();
    for words in ["plan", "apply", "revert", "explain docker.io/x"] {
        for root in ["/nowhere/at/all", "/etc/passwd"] {
            let run = node.run(&format!("{words} --root {root}"));
            run.says(4, &[&format!("the node's root {root} cannot be opened"), "--root"]);
            assert!(!run.out.contains("ENOENT"), "{}", run.out);
            assert_eq!(node.run(&format!("{words} --root {root} --output json")).json()["exit_code"], 4);
        }
    }
}

#[test]
fn something_else_in_the_place_of_a_file() {
    for (name, wanted) in [("ledger.json", "cannot be read"), ("lock", "is not a regular file")] {
        let path = format!("/var/lib/nodeprep/{name}");
        let node = Node::new();
        fs::create_dir_all(node.at(&path)).unwrap();
        node.refused(4, &[&path, wanted, &format!("move {path} away")]);
        fs::remove_dir(node.at(&path)).unwrap();
        node.link(&path, "/etc/os-release");
        node.refused(4, &[&path, wanted, &format!("move {path} away")]);
        fs::remove_file(node.at(&path)).unwrap();
        node.converges();
    }
}

#[test]
fn copies_that_are_gone() {
    let node = Node::new();
    let file = node.put("/etc/containerd/certs.d/docker.io/hosts.toml", "server = 'https://theirs.example.com'\n");
    let before = node.picture(false);
    node.run("apply --foreign replace").says(0, &[]);
    for blob in fs::read_dir(node.at("/var/lib/nodeprep/blobs")).unwrap() {
        fs::write(blob.unwrap().path(), "damaged").unwrap();
    }
    let ours = fs::read(&file).unwrap();
    // our keys can be told from theirs without a copy; a whole file cannot be made up
    node.run("revert")
        .says(5, &["containerd: left untouched", "before nodeprep is no longer in /var/lib/nodeprep/blobs", "from your own backup"]);
    assert_eq!(fs::read(&file).unwrap(), ours);
    node.put("/etc/containerd/certs.d/docker.io/hosts.toml", "server = 'https://theirs.example.com'\n");
    node.run("revert").says(0, &[]);
    assert_eq!(
        node.get("/root/.config/containers/auth.json").as_bytes(),
        before[std::path::Path::new("root/.config/containers/auth.json")].content
    );
    node.clean();
}
