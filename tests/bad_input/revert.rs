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
    // what is still ours can still be held to what was applied last
    let last_good = node.at("/var/lib/nodeprep/last-good.json");
    assert!(last_good.exists());
    // the advice works
    fs::rename(node.at(HOSTS), node.folder().join("mine")).unwrap();
    node.run("revert").says(0, &[]);
    assert!(!last_good.exists());
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

#[test]
fn edited_in_the_same_table() {
    let node = Node::new();
    let (config, auth) = (node.get(CONFIG), node.get(AUTH));
    node.run("apply").says(0, &[]);
    // right behind our key, and right beside our entry
    let ours = "config_path = \"/etc/containerd/certs.d\"\n";
    assert!(node.get(CONFIG).contains(ours), "{}", node.get(CONFIG));
    let theirs = "      # theirs\n      their_key = [\"y\"]\n";
    node.put(CONFIG, node.get(CONFIG).replace(ours, &format!("{ours}{theirs}")));
    let entry = node.get(AUTH).replacen("\"registry.internal", "\"late.example.com\": {\"auth\": \"bGF0ZTpy\"}, \"registry.internal", 1);
    node.put(AUTH, &entry);
    node.run("revert").says(0, &[]);
    let empty = "config_path = \"\"\n";
    assert!(config.contains(empty));
    assert_eq!(node.get(CONFIG), config.replace(empty, &format!("{empty}{theirs}")));
    let left: serde_json::Value = serde_json::from_str(&node.get(AUTH)).unwrap();
    let mut want: serde_json::Value = serde_json::from_str(&auth).unwrap();
    want["auths"]["late.example.com"] = serde_json::json!({"auth": "bGF0ZTpy"});
    assert_eq!(left, want);
    node.clean();
}

#[test]
fn our_login_replaced_by_hand() {
    let node = Node::new();
    let auth = node.get(AUTH);
    node.run("apply").says(0, &[]);
    // `podman login` as somebody else
    let theirs = node.get(AUTH).replace("cHVsbGVyOmZpeHR1cmUtcGFzc3dvcmQ=", "b3RoZXI6Zml4dHVyZS1vdGhlcg==");
    assert_ne!(theirs, node.get(AUTH));
    node.put(AUTH, &theirs);
    node.run("revert").says(0, &[]);
    assert_eq!(node.get(AUTH), theirs, "a login that somebody else has made is taken away");
    assert_ne!(theirs, auth);
}

#[test]
fn a_file_in_the_place_of_a_link() {
    let node = Node::new();
    node.link(DROP_IN, "/srv/drop-in.conf");
    let before = node.picture(false);
    node.run("apply --foreign replace").says(0, &[]);
    // somebody writes a file of their own there: theirs to keep
    node.put(DROP_IN, "# mine\n");
    node.run("revert").says(5, &["containers: left untouched: conflict", DROP_IN, "has been changed since"]);
    assert_eq!(node.get(DROP_IN), "# mine\n");
    fs::remove_file(node.at(DROP_IN)).unwrap();
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
    // our file becomes a link to a file of theirs
    node.run("apply --foreign replace").says(0, &[]);
    fs::remove_file(node.at(DROP_IN)).unwrap();
    node.link(DROP_IN, "/srv/mine.conf");
    node.run("revert").says(5, &[DROP_IN, "has been changed since"]);
    fs::remove_file(node.at(DROP_IN)).unwrap();
    node.link(DROP_IN, "/srv/drop-in.conf");
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn config_behind_a_link_becomes_a_file() {
    let node = Node::new();
    let text = node.get(CONFIG);
    node.put("/srv/config.toml", &text);
    fs::remove_file(node.at(CONFIG)).unwrap();
    node.link(CONFIG, "../../srv/config.toml");
    node.run("apply").says(0, &[]);
    let ours = node.get(CONFIG);
    // an editor that writes anew leaves a file where the link was
    fs::remove_file(node.at(CONFIG)).unwrap();
    node.put(CONFIG, format!("{ours}# mine\n"));
    node.run("revert").says(0, &[]);
    assert_eq!(node.get(CONFIG), format!("{text}# mine\n"));
}

#[test]
fn what_was_taken_away_and_put_there_again() {
    const LATER: &str = "/etc/containers/registries.conf.d/zzz-theirs.conf";
    let theirs = "[[registry]]\nprefix = \"docker.io\"\nlocation = \"theirs.example.com\"\n";
    let node = Node::new();
    node.put(LATER, theirs);
    let before = node.picture(false);
    node.run("apply").says(5, &[LATER, "comes after zz-nodeprep.conf"]);
    node.run("apply --foreign replace").says(0, &[]);
    assert!(!node.at(LATER).exists());
    // a package brings it back: it goes again, without being asked for once more
    node.put(LATER, theirs);
    node.run("apply").says(0, &["warning[drift]", LATER]);
    assert!(!node.at(LATER).exists());
    node.run("apply").says(0, &["0 changes made"]);
    node.put(LATER, theirs);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
    // a new one of theirs is not what was taken away
    node.run("apply --foreign replace").says(0, &[]);
    node.put(LATER, "# another\n");
    node.run("revert").says(5, &[LATER, "has been changed since"]);
    assert_eq!(node.get(LATER), "# another\n");
}

/// CRI-O's drop-in is wholly ours; what others say in crio.conf stays theirs.
#[test]
fn crio_conf_edited() {
    const OURS: &str = "/etc/crio/crio.conf.d/99-nodeprep.conf";
    let node = Node::new();
    node.put("/usr/bin/crio", "");
    node.put("/etc/crio/crio.conf", "[crio.image]\npause_image = \"registry.k8s.io/pause:3.9\"\n");
    let document = fs::read_to_string(node.spec.join("spec.toml")).unwrap();
    node.document(format!("{document}\n[runtime]\npause_image = \"registry.internal.example.com:5000/pause:3.10\"\n"));
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    assert!(node.at(OURS).exists());
    node.put("/etc/crio/crio.conf", "[crio.image]\npause_image = \"registry.k8s.io/pause:3.11\"\n");
    node.put(OURS, format!("{}# mine\n", node.get(OURS)));
    node.run("revert").says(5, &["crio: left untouched: conflict", OURS]);
    fs::remove_file(node.at(OURS)).unwrap();
    node.run("revert").says(0, &[]);
    node.put("/etc/crio/crio.conf", "[crio.image]\npause_image = \"registry.k8s.io/pause:3.9\"\n");
    same(&before, &node.picture(false));
}
