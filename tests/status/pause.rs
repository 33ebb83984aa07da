//! Break-glass.

use std::fs;

use crate::node::{Node, same};
use crate::trail::lines;
use crate::{HOSTS, TRAIL};

const PAUSES: &str = "/var/lib/nodeprep/pause.json";
/// A mirror that may be asked, and another one that is closed.
const TWO: &str = "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"one.example\"]\n\
    [[mirror]]\nsource = \"quay.io\"\nendpoints = [\"one.example/quay\"]\nfallback = \"upstream\"\n";
const QUAY: &str = "/etc/containerd/certs.d/quay.io/hosts.toml";

#[test]
fn a_paused_node_is_left_alone() {
    let node = Node::new();
    node.run("pause --for 1d --reason upgrade").says(0, &["nodeprep leaves this node alone until ", "(upgrade)"]);
    let before = node.picture(false);
    for words in ["apply", "apply --unattended", "apply --output json"] {
        let run = node.run(words);
        assert_eq!(run.code, 11, "{}{}", run.out, run.err);
        assert!(run.out.contains("this node is paused until") && run.out.contains("upgrade"), "{}", run.out);
    }
    same(&before, &node.picture(false));
    node.run("plan").says(11, &["changes to make", "`apply` changes nothing"]);
    node.run("status --exit-code").says(11, &["paused: all of the node until ", "upgrade"]);
    assert_eq!(node.run("status --output json").json()["paused"][0]["reason"], "upgrade");
    // once all the same, and still paused afterwards
    node.run("apply --even-paused").says(0, &["changes made"]);
    node.run("apply").says(11, &[]);
    node.run("resume").says(0, &["the pause is over"]);
    node.run("apply").says(0, &["0 changes made"]);
    node.run("resume").says(0, &["nothing was paused"]);
    let events: Vec<String> = lines(&node).iter().map(|line| line["event"].as_str().unwrap().to_owned()).collect();
    let count = |event: &str| events.iter().filter(|one| *one == event).count();
    assert_eq!((count("pause"), count("resume")), (1, 1));
    assert!(!node.at(PAUSES).exists());
}

#[test]
fn a_pause_ends_by_itself() {
    let node = Node::new();
    node.run("pause --for 1h").says(0, &[]);
    node.run("apply").says(11, &[]);
    let mut pauses: serde_json::Value = serde_json::from_str(&node.get(PAUSES)).unwrap();
    pauses["pauses"][0]["until"] = 1000.into();
    node.put(PAUSES, pauses.to_string());
    node.run("apply").says(0, &["changes made"]);
    assert_eq!(node.run("status --output json").json()["paused"], serde_json::json!([]));
}

#[test]
fn a_paused_path_is_left_alone_and_the_rest_is_applied() {
    let node = Node::new();
    node.document(TWO);
    node.run("apply").says(0, &[]);
    // somebody lets a source be asked elsewhere while its mirror is down
    let by_hand = "server = \"https://quay.io\"\n[host.\"https://spare.example/v2/quay\"]\ncapabilities = [\"pull\", \"resolve\"]\noverride_path = true\n";
    node.put(QUAY, by_hand);
    node.run(&format!("pause {QUAY} --reason spare")).says(0, &[QUAY]);
    node.run("apply").says(11, &["warning[paused]", QUAY, "0 changes made"]);
    assert_eq!(node.get(QUAY), by_hand);
    // another spec: everything but this path follows it
    node.document(TWO.replace("one.example", "two.example"));
    node.run("plan").says(11, &["two.example", QUAY]);
    node.run("apply").says(11, &[QUAY]);
    assert_eq!(node.get(QUAY), by_hand);
    assert!(node.get(HOSTS).contains("two.example"));
    let before = node.picture(true);
    node.run("apply").says(11, &["0 changes made"]);
    let without = |mut picture: crate::node::Picture| {
        picture.retain(|path, _| !path.ends_with("lock"));
        picture
    };
    same(&without(before), &without(node.picture(true)));
    node.run("resume").says(0, &[]);
    node.run("apply").says(0, &["warning[drift]"]);
    assert!(node.get(QUAY).contains("two.example"));
    let before = Node::new().picture(false);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

/// What would be asked itself although the spec closes it refuses the target, and only that.
#[test]
fn a_pause_opens_nothing() {
    let node = Node::new();
    node.document(TWO);
    node.run("apply").says(0, &[]);
    let closed = node.get(QUAY);
    node.run(&format!("pause {QUAY}")).says(0, &[]);
    // quay.io was open; with the path left as it is it would stay so
    let later = TWO.replace("fallback = \"upstream\"\n", "").replace("one.example", "two.example");
    node.document(&later);
    let run = node.run("apply");
    run.says(4, &["error[proof-failed]", "error[paused]", QUAY, "containers: "]);
    assert!(node.get(QUAY) == closed && node.get(HOSTS).contains("one.example"), "containerd was touched");
    assert!(node.get("/etc/containers/registries.conf.d/zz-nodeprep.conf").contains("two.example"));
    node.run("resume").says(0, &[]);
    node.run("apply").says(0, &[]);
    // opened by hand, and paused like that: a closed source is closed
    node.put(HOSTS, "server = \"https://registry-1.docker.io\"\n[host.\"https://spare.example\"]\n");
    node.run(&format!("pause {HOSTS}")).says(0, &[]);
    node.document(later.replace("two.example", "three.example"));
    node.run("apply").says(4, &["error[proof-failed]", HOSTS]);
    assert!(node.get(QUAY).contains("two.example"));
}

/// The bundle is one file: an anchor that is not there and may not be written keeps all of the store as it is.
#[test]
fn a_paused_anchor_keeps_the_store() {
    let node = Node::new();
    node.run("pause /usr/local/share/ca-certificates").says(0, &[]);
    let run = node.run("apply");
    run.says(11, &["trust store: ", "error[paused]", "one bundle"]);
    assert!(fs::read_dir(node.at("/usr/local/share/ca-certificates")).unwrap().flatten().all(|entry| entry.file_name() == ".keep"));
    assert!(node.at(HOSTS).exists());
}

#[test]
fn a_revert_pauses_who_acts_by_himself() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    node.run("revert").says(0, &[]);
    let before = node.picture(false);
    node.run("apply --unattended").says(11, &["until `nodeprep resume` since `nodeprep revert`"]);
    same(&before, &node.picture(false));
    // who applies by hand means it, and lets the others go on, too
    node.run("apply").says(0, &["changes made"]);
    node.run("apply --unattended").says(0, &["0 changes made"]);
    node.run("revert").says(0, &[]);
    node.run("resume").says(0, &[]);
    node.run("apply --unattended").says(0, &["changes made"]);
}

#[test]
fn a_pause_that_cannot_be_read_stops_everything_but_resume() {
    let node = Node::new();
    for bad in ["", "{", "[]", "{\"version\":99,\"pauses\":[]}"] {
        node.put(PAUSES, bad);
        node.run("apply").says(4, &[PAUSES, "nodeprep resume"]);
        node.run("status").says(0, &[PAUSES]);
        assert!(!node.at("/etc/nodeprep").exists());
        node.run("resume").says(0, &[]);
        assert!(!node.at(PAUSES).exists());
    }
    node.put(PAUSES, "{");
    node.run("revert").says(0, &[]);
    node.run("apply --unattended").says(11, &[]);
}

#[test]
fn wrong_arguments() {
    let node = Node::new();
    node.run("pause --for 91d").says(2, &[]);
    node.run("pause --for never").says(2, &[]);
    node.run("pause etc/containerd").says(2, &["etc/containerd"]);
    assert!(!node.at(PAUSES).exists() && !node.at(TRAIL).exists());
}

/// It must work while a run hangs.
#[test]
fn a_pause_waits_for_no_run() {
    let node = Node::new();
    fs::create_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    let lock = fs::File::create(node.at("/var/lib/nodeprep/lock")).unwrap();
    lock.lock().unwrap();
    node.run("pause").says(0, &["warning[run-goes-on]"]);
    drop(lock);
    node.run("apply").says(11, &[]);
}
