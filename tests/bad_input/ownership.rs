//! Whose node it is: another spec, a spec that says much less, ledgers of other versions, what is kept in the state folder.

use std::fs;

use crate::node::{Node, same};

const LEDGER: &str = "/var/lib/nodeprep/ledger.json";

fn document(top: &str, sources: &[&str]) -> String {
    let mirror =
        |source: &&str| format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"registry.internal.example.com:5000/{source}\"]\n");
    format!("version = 1\n{top}\n{}", sources.iter().map(mirror).collect::<String>())
}

#[test]
fn spec_of_another_name() {
    let node = Node::new();
    let before = node.picture(false);
    node.document(document("name = \"fleet-a\"\nfallback = \"never\"", &["docker.io"]));
    node.run("apply").says(0, &[]);
    let applied = node.picture(false);
    node.document(document("name = \"fleet-b\"\nfallback = \"never\"", &["quay.io"]));
    node.refused(5, &["\"fleet-a\" owns this node", "\"fleet-b\"", "`nodeprep revert` first", "--take-over"]);
    node.run("explain --planned docker.io/x").says(5, &["\"fleet-a\" owns this node"]);
    same(&applied, &node.picture(false));
    // whoever takes over is held to the same rules
    node.run("apply --take-over").says(5, &["all mirrored sources would go: docker.io"]);
    node.run("apply --take-over --allow-shrink").says(0, &[]);
    assert!(node.at("/etc/containerd/certs.d/quay.io").exists() && !node.at("/etc/containerd/certs.d/docker.io").exists());
    node.run("apply").says(0, &["0 changes made"]);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
    // nobody's any more
    node.document(document("fallback = \"never\"", &["docker.io"]));
    node.run("apply").says(0, &[]);
}

#[test]
fn a_spec_that_says_much_less() {
    let node = Node::new();
    let all = ["docker.io", "quay.io", "ghcr.io", "registry.k8s.io"];
    node.document(document("fallback = \"never\"", &all));
    node.run("apply").says(0, &[]);
    for (top, sources, wanted) in [
        ("fallback = \"never\"", &all[..0], "the spec is empty: everything that nodeprep owns on this node would be given back"),
        ("fallback = \"never\"", &all[..1], "3 of 4 mirrored sources would go: ghcr.io, quay.io, registry.k8s.io"),
        ("fallback = \"upstream\"", &all[..], "sources that were closed would be asked themselves: docker.io, ghcr.io, quay.io"),
    ] {
        node.document(document(top, sources));
        node.refused(5, &["error[shrinks]", wanted, "--allow-shrink"]);
        assert_eq!(node.run("plan --output json").json()["exit_code"], 5);
        node.run("plan --allow-shrink").says(0, &[]);
    }
    // half of it is no more than half
    node.document(document("fallback = \"never\"", &all[..2]));
    node.run("apply").says(0, &[]);
    node.document(document("fallback = \"upstream\"", &[]));
    node.run("apply --allow-shrink").says(0, &[]);
    assert!(!node.at("/etc/containerd/certs.d/docker.io").exists());
    // nothing more can be lost
    node.run("apply").says(0, &["0 changes made"]);
    node.document(document("fallback = \"upstream\"", &all));
    node.run("apply").says(0, &[]);
}

/// A ledger of the first version is read, and written anew with the first change.
#[test]
fn ledger_of_an_earlier_version() {
    let node = Node::new();
    let before = node.picture(false);
    node.document(document("name = \"fleet-a\"\nfallback = \"never\"", &["docker.io", "quay.io"]));
    node.run("apply").says(0, &[]);
    let mut ledger: serde_json::Value = serde_json::from_str(&node.get(LEDGER)).unwrap();
    ledger["version"] = 1.into();
    ledger["spec_name"] = "fleet-a".into();
    ledger.as_object_mut().unwrap().remove("spec");
    node.put(LEDGER, ledger.to_string());
    // what the last spec said is not known, so nothing is held against this one but its name
    node.document(document("name = \"fleet-b\"\nfallback = \"never\"", &["docker.io"]));
    node.refused(5, &["\"fleet-a\" owns this node"]);
    node.document(document("name = \"fleet-a\"\nfallback = \"upstream\"", &["docker.io"]));
    node.run("apply").says(0, &[]);
    let written: serde_json::Value = serde_json::from_str(&node.get(LEDGER)).unwrap();
    assert_eq!((&written["version"], &written["spec"]["name"]), (&2.into(), &"fleet-a".into()));
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

/// What we wrote once and write no more is kept nowhere; what others had is, for the way back.
#[test]
fn superseded_secrets() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    let (old, new) = ("cHVsbGVyOmZpeHR1cmUtcGFzc3dvcmQ=", "c3BlYzpzM2NyZXQ=");
    let holds = |text: &str| {
        let state = node.picture(true).into_iter().filter(|(path, _)| path.starts_with("var/lib/nodeprep"));
        state.filter(|(_, thing)| String::from_utf8_lossy(&thing.content).contains(text)).count()
    };
    assert!(holds(old) > 0, "the entry of auth.json is ours by its value");
    let secret = fs::read_to_string(node.spec.join("pull-secret.json")).unwrap();
    assert!(secret.contains(old), "{secret}");
    fs::write(node.spec.join("pull-secret.json"), secret.replace(old, new)).unwrap();
    node.run("apply").says(0, &[]);
    assert_eq!(holds(old), 0, "the old login is still in the state folder");
    // a run that was killed right before its end left one
    let stray = node.put("/var/lib/nodeprep/blobs/00000000000000000000000000000000000000000000000000000000000000ff", old);
    node.run("apply").says(0, &["0 changes made"]);
    assert!(!stray.exists());
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

/// The state is gone and all files are there: what the next run takes for others' is kept for the way back.
#[test]
fn what_was_there_is_kept_where_only_the_ledger_is_written() {
    let node = Node::new();
    node.document(document("fallback = \"never\"", &["docker.io"]));
    node.run("apply").says(0, &[]);
    fs::remove_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    node.run("apply").says(0, &["0 changes made"]);
    let ledger: serde_json::Value = serde_json::from_str(&node.get("/var/lib/nodeprep/ledger.json")).unwrap();
    let blobs: Vec<&str> =
        ledger["owned"].as_object().unwrap().values().filter_map(|owned| owned["origin"]["file"]["blob"].as_str()).collect();
    assert!(!blobs.is_empty(), "{ledger}");
    for blob in blobs {
        assert!(node.at("/var/lib/nodeprep/blobs").join(blob).exists(), "{blob} is named and not there");
    }
    let run = node.run("revert");
    assert!(run.code == 0 && !run.out.contains("blob-missing"), "{}", run.out);
}
