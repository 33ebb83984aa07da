//! Roots of images: what is due, why, and by whom; also of roots that only look like one.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::node::{Node, same};

/// A program of a machine that nobody emulates: an ELF header and nothing behind it.
const FOREIGN: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x32\0";
const WHO: &str = "the first run of nodeprep on the node itself does it";

fn due(node: &Node, words: &str) -> Vec<serde_json::Value> {
    let run = node.run(&format!("{words} --output json"));
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    run.json()["due"].as_array().cloned().unwrap_or_default()
}

fn said(due: &serde_json::Value) -> String {
    due["because"].as_array().unwrap().iter().filter_map(|one| one.as_str()).collect::<Vec<_>>().join("; ")
}

/// The tool as it is there, and what stands in its way.
fn tool(node: &Node, tool: &[u8], shell: Option<&[u8]>) {
    for (path, bytes) in [("/usr/sbin/update-ca-certificates", Some(tool)), ("/bin/sh", shell)] {
        if let Some(bytes) = bytes {
            let file = node.put(path, bytes);
            fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
        }
    }
}

#[test]
fn refresh_that_cannot_be_done_is_due_with_its_reason() {
    let root = nix::unistd::geteuid().is_root();
    for (shell, reason) in [
        (None, "/usr/sbin/update-ca-certificates needs /bin/sh, which is not there"),
        (Some(FOREIGN), "/bin/sh is made for another kind of machine (ELF number 50), and this machine is "),
    ] {
        let node = Node::new();
        tool(&node, b"#!/bin/sh\nexit 0\n", shell);
        let first = due(&node, "apply");
        assert_eq!(first.len(), 1, "{first:?}");
        assert_eq!((first[0]["who"].as_str(), first[0]["how"]["how"].as_str()), (Some("trust"), Some("refresh")));
        let reason = if root { reason } else { "only root can change into it" };
        assert!(said(&first[0]).contains(reason) && said(&first[0]).contains(WHO), "{}", said(&first[0]));
        node.clean();
        // still due, and nothing is written for that
        let before = node.picture(true);
        let run = node.run("apply");
        assert!(run.code == 0 && run.out.contains("0 changes made; 1 activation due") && run.out.contains(WHO), "{}", run.out);
        let mut after = node.picture(true);
        after.retain(|path, _| path.file_name().is_none_or(|name| name != "lock"));
        same(&before.into_iter().filter(|(path, _)| after.contains_key(path)).collect(), &after);
        assert_eq!(node.run("revert").code, 0);
    }
}

/// What is due by the node's own first run is no failure, whether endpoints are tried or not.
#[test]
fn online_and_offline_agree_on_what_is_due() {
    let node = Node::new();
    let pem = fs::read_to_string(node.spec.join("ca.pem")).unwrap();
    node.document(format!("version = 1\nfallback = \"never\"\n[[ca]]\nname = \"own\"\npem = \"\"\"\n{pem}\"\"\"\n"));
    node.run("verify --offline").says(8, &["failed [anchor]"]);
    node.run("verify").says(8, &["failed [anchor]", "failed [planned]", "failed [activation]"]);
    node.run("apply").says(0, &["1 activation due"]);
    node.run("verify --offline").says(0, &["due [anchor]"]);
    node.run("verify").says(0, &["due [anchor]", "due [activation] the trust store is refreshed by the first run on the node"]);
    // what is there without a record of it stays a failure
    fs::remove_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    node.run("verify --offline").says(8, &["failed [anchor]"]);
    node.run("verify").says(8, &["failed [activation]"]);
}

#[test]
fn restart_is_due_only_where_something_may_run() {
    let node = Node::new();
    // what a container sees of its host: processes, but another root than its own
    fs::create_dir_all(node.at("/proc/1")).unwrap();
    let hows = |due: &[serde_json::Value]| due.iter().map(|one| one["how"]["how"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert!(hows(&due(&node, "plan")).contains(&"restart".to_owned()));
    assert_eq!(hows(&due(&node, "apply")), ["restart", "refresh"]);
    assert_eq!(node.run("revert").code, 0);
    fs::remove_dir_all(node.at("/proc")).unwrap();
    assert_eq!(hows(&due(&node, "plan")), ["refresh"]);
    let run = node.run("apply");
    assert!(run.out.contains("no restart: nothing runs in this root") && !run.out.contains("due: restart"), "{}", run.out);
}

#[test]
fn nothing_is_written_where_an_api_is_the_way() {
    for (id, key) in [("bottlerocket", "settings.pki"), ("talos", "RegistryMirrorConfig")] {
        let node = Node::new();
        node.put("/etc/os-release", format!("ID={id}\n"));
        node.refused(4, &["configured through its own API only", key]);
    }
}
