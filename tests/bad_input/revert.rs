//! The way back, in all states.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};

use crate::node::{Node, is_root, same};

const CONFIG: &str = "/etc/containerd/config.toml";
const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";
const AUTH: &str = "/root/.config/containers/auth.json";
const DROP_IN: &str = "/etc/containers/registries.conf.d/zz-nodeprep.conf";

#[test]
fn never_applied() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("revert").says(0, &["nodeprep owns nothing on this node", "check --root"]);
    same(&before, &node.picture(false));
    node.converges();
    node.run("revert").says(0, &["nodeprep owns nothing on this node"]);
}

#[test]
fn whole_file_edited() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    let ours = node.get(HOSTS);
    node.put(HOSTS, format!("{ours}# mine\n"));
    let picture = |node: &Node| {
        let mut all = node.picture(false);
        all.retain(|path, _| path.starts_with("etc/containerd") || path.starts_with("etc/nodeprep"));
        all
    };
    let edited = picture(&node);
    let run = node.run("revert");
    run.says(5, &["containerd: left untouched: conflict", HOSTS, "has been changed since", &format!("move {HOSTS} away")]);
    assert!(!run.out.contains("restart containerd"), "{}", run.out);
    // nor does anything go that the edited file refers to
    same(&edited, &picture(&node));
    assert!(!node.at(DROP_IN).exists());
    // the advice works
    fs::rename(node.at(HOSTS), node.folder().join("mine")).unwrap();
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn partly_ours_edited() {
    let node = Node::new();
    let (config, auth) = (node.get(CONFIG), node.get(AUTH));
    node.run("apply").says(0, &[]);
    node.put(CONFIG, format!("{}[debug]\n  level = \"debug\"\n", node.get(CONFIG)));
    node.put(AUTH, node.get(AUTH).replacen("\"auths\"", "\"credHelpers\": {}, \"auths\"", 1));
    node.run("revert").says(0, &[]);
    assert_eq!(node.get(CONFIG), format!("{config}[debug]\n  level = \"debug\"\n"));
    assert_eq!(node.get(AUTH), auth.replacen("\"auths\"", "\"credHelpers\": {}, \"auths\"", 1));
    node.clean();
}

#[test]
fn version_1_edited_after_it_became_version_2() {
    let main = "/etc/containers/registries.conf";
    let version_1 = "# shipped\n[registries.insecure]\nregistries = ['lab.io', 'old.io']\n";
    let node = Node::new();
    node.put(main, version_1);
    let before = node.picture(false);
    node.run("apply").says(0, &["registries.insecure (line 3) is now 2 [[registry]]"]);
    let moved = node.get(main);
    // somebody takes a host out and adds a comment: version 1 comes back, and says what the file said
    node.put(main, format!("{}# mine\n", moved.replace("[[registry]]\nlocation = \"old.io\"\ninsecure = true\n", "")));
    node.run("apply").says(0, &[]);
    node.run("revert").says(0, &[]);
    let back = node.get(main);
    assert!(back.ends_with("[registries.insecure]\nregistries = [\"lab.io\"]\n") && back.contains("# mine\n"), "{back}");
    // somebody adds what only version 2 knows: the two cannot be mixed, so nothing is touched
    node.put(main, version_1);
    node.run("apply").says(0, &[]);
    node.put(main, format!("{moved}\n[[registry]]\nlocation = \"mine.io\"\n"));
    node.run("apply").says(0, &[]);
    let edited = node.get(main);
    node.run("revert").says(5, &["containers: left untouched: conflict", main, "cannot be mixed", "is kept as /var/lib/nodeprep/blobs/"]);
    assert_eq!(node.get(main), edited);
    assert!(node.at(DROP_IN).exists());
    // the advice works
    node.put(main, moved);
    node.run("revert").says(0, &[]);
    node.put(main, version_1);
    same(&before, &node.picture(false));
}

#[test]
fn our_key_changed_by_hand() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    let theirs = node.get(CONFIG).replace("/etc/containerd/certs.d", "/srv/certs.d");
    node.put(CONFIG, &theirs);
    node.run("revert").says(0, &[]);
    assert_eq!(node.get(CONFIG), theirs);
}

#[test]
fn broken_by_hand() {
    let node = Node::new();
    let (before, config) = (node.picture(false), node.get(CONFIG));
    node.run("apply").says(0, &[]);
    node.put(CONFIG, "[[[");
    let run = node.run("revert");
    run.says(5, &[CONFIG, "cannot be taken out again", "kept as /var/lib/nodeprep/blobs/"]);
    let blob = run.out.split("/var/lib/nodeprep/blobs/").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    assert_eq!(node.get(&format!("/var/lib/nodeprep/blobs/{blob}")), config);
    node.put(CONFIG, config);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn our_file_deleted() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    for path in [HOSTS, CONFIG, DROP_IN] {
        fs::remove_file(node.at(path)).unwrap();
    }
    node.run("revert").says(0, &[]);
    // an empty folder that stayed would still decide what is pulled
    same(&before, &node.picture(false));
}

#[test]
fn put_back_by_hand() {
    let node = Node::new();
    node.put(HOSTS, "server = 'https://theirs.example.com'\n");
    let before = node.picture(false);
    node.run("apply --foreign replace").says(0, &[]);
    node.put(HOSTS, "server = 'https://theirs.example.com'\n");
    fs::set_permissions(node.at(HOSTS), fs::Permissions::from_mode(0o644)).unwrap();
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn odd_origins() {
    let node = Node::new();
    node.link(DROP_IN, "/srv/drop-in.conf");
    let config = node.put("/srv/config.toml", node.get(CONFIG));
    fs::remove_file(node.at(CONFIG)).unwrap();
    node.link(CONFIG, "../../srv/config.toml");
    if is_root() {
        chown(&config, Some(12), Some(34)).unwrap();
    }
    fs::set_permissions(&config, fs::Permissions::from_mode(0o4640)).unwrap();
    let labelled = xattr::set(&config, "user.kept", b"yes").is_ok();
    if !labelled {
        println!("skipped: extended attributes cannot be set here");
    }
    let before = node.picture(false);
    node.run("apply").says(5, &[DROP_IN, "a symbolic link that nodeprep did not write"]);
    for words in ["apply --foreign replace", "apply --foreign replace", "revert"] {
        node.run(words).says(0, &[]);
        node.clean();
        assert!(!labelled || xattr::get(&config, "user.kept").unwrap().as_deref() == Some(b"yes"), "{words}");
    }
    same(&before, &node.picture(false));
}
