//! The last known good spec: what it is used for, and what never gets into it.

use std::os::unix::fs::PermissionsExt;

use crate::node::{Node, SECRET, SPEC, bytes};
use crate::server::{Answer, Ca, Server};

const FLAG: &str = "--last-known-good";

/// What somebody has done to what we wrote.
fn drift(node: &Node) {
    std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d")).unwrap();
    assert_eq!(node.mirror(), "");
}

#[test]
fn a_node_is_held_to_it_when_the_server_is_gone() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), Node::new());
    node.put("ca.pem", &ca.pem);
    let url = server.url("/fleet.toml");
    let apply = |more: &[&str]| node.run(&[&["apply", "--spec", &url, "--spec-ca", "ca.pem"], more].concat());
    apply(&[FLAG]).says(69, &["404", "warning[no-last-good]", "there is none"]);
    server.serves("/fleet.toml", SPEC);
    apply(&[FLAG]).says(0, &[]);
    let kept = node.path("root/var/lib/nodeprep/last-good.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o7777, 0o600);
    let before = std::fs::read(&kept).unwrap();
    let gone = Answer::Whole(503, String::new(), Vec::new());
    for (answer, code, wanted) in [
        (gone.clone(), 69, "error[spec-unavailable]"),
        (Answer::Whole(200, String::new(), b"[[mirror".to_vec()), 3, "error[syntax]"),
        (Answer::Whole(200, String::new(), SPEC.replace("fleet", "other").into_bytes()), 5, "error[other-spec]"),
        (Answer::Whole(200, String::new(), b"version = 1\nname = \"fleet\"\nfallback = \"never\"\n".to_vec()), 5, "error[shrinks]"),
    ] {
        server.says("/fleet.toml", answer);
        // without the flag nothing is changed at all
        drift(&node);
        apply(&[]).says(code, &[wanted]);
        assert_eq!(node.mirror(), "");
        apply(&[FLAG]).says(code, &[wanted, "warning[last-good]", "docker.io"]);
        assert_eq!(node.mirror(), "m.example.com");
        // nothing to repair: it says what is wrong all the same
        apply(&[FLAG, "--output", "json"]).says(code, &["\"last-good\"", &format!("\"exit_code\": {code}")]);
        assert_eq!(std::fs::read(&kept).unwrap(), before);
    }
    // a repair that does not work has its own code
    drift(&node);
    node.put("root/etc/containerd/certs.d/docker.io/hosts.toml", "server = \"https://somebody.else\"\n[host.\"https://x.example\"]\n");
    server.says("/fleet.toml", gone);
    let run = apply(&[FLAG]);
    assert!(run.said.contains("error[spec-unavailable]") && run.said.contains("warning[last-good]"), "{}", run.said);
    assert!(run.code == 5 || run.code == 69 && node.mirror() == "m.example.com", "{} {}", run.code, run.said);
    // what is broken or of a later nodeprep is told, and nothing is done by it
    for (text, wanted) in [("{", "last-good.json cannot be read"), ("{\"version\": 99}", "last-good.json has version 99")] {
        std::fs::write(&kept, text).unwrap();
        apply(&[FLAG]).says(69, &["warning[no-last-good]", wanted]);
    }
}

#[test]
fn a_folder_that_is_emptied() {
    let node = Node::new();
    let spec = format!(
        "{SPEC}[[ca]]\nname = \"root\"\nfile = \"root.pem\"\ntrust = \"registries\"\n[[registry]]\nhost = \"m.example.com\"\nca = [\"root\"]\ncredentials = \"login.json\"\n"
    );
    node.put("spec/fleet.toml", spec);
    node.put("spec/root.pem", bytes("root.pem"));
    node.secret("spec/login.json", &format!("{{\"auths\": {{\"m.example.com\": {{\"username\": \"u\", \"password\": \"{SECRET}\"}}}}}}"));
    let apply = |more: &[&str]| node.run(&[&["apply", "--spec", "spec"], more].concat());
    apply(&[]).says(0, &[]);
    let kept = String::from_utf8(node.kept("last-good.json").unwrap()).unwrap();
    assert!(!kept.contains(SECRET) && kept.contains("root.pem"), "{kept}");
    // the same again writes nothing
    apply(&[]).says(0, &[]);
    assert_eq!(String::from_utf8(node.kept("last-good.json").unwrap()).unwrap(), kept);
    for name in ["fleet.toml", "root.pem"] {
        std::fs::remove_file(node.path("spec").join(name)).unwrap();
    }
    drift(&node);
    apply(&[]).says(3, &["holds no document"]);
    apply(&["--last-known-good"]).says(3, &["holds no document", "warning[last-good]"]);
    assert_eq!(node.mirror(), "m.example.com");
    // the login is where it always was, or nowhere
    std::fs::remove_file(node.path("spec/login.json")).unwrap();
    drift(&node);
    apply(&["--last-known-good"]).says(3, &["warning[no-last-good]", "\"login.json\" cannot be read"]);
    assert_eq!(node.mirror(), "");
    // who gives everything back keeps nothing
    node.run(&["revert"]).says(0, &[]);
    assert!(node.kept("last-good.json").is_none() && node.kept("fetched.json").is_none());
}

#[test]
fn it_has_to_be_signed_as_the_spec_itself() {
    let node = Node::new();
    node.put("fleet.pub", bytes("fleet.pub"));
    node.put("spec/fleet.toml", bytes("serial-7.toml"));
    let apply = |more: &[&str]| node.run(&[&["apply", "--spec", "spec/fleet.toml"], more].concat());
    apply(&[]).says(0, &[]);
    let signed = ["--spec-public-key", "fleet.pub", "--last-known-good"];
    // it was applied when nobody asked for a signature
    apply(&signed).says(3, &["error[bad-signature]", "warning[no-last-good]", "has no signature"]);
    node.put("spec/fleet.toml.minisig", bytes("serial-7.toml.minisig"));
    apply(&signed).says(0, &[]);
    // an attacker's copy of an earlier one, or of none: the node stays as it was
    for (document, signature, code) in [("serial-6.toml", "serial-6.toml.minisig", 5), ("serial-8.toml", "serial-7.toml.minisig", 3)] {
        node.put("spec/fleet.toml", bytes(document));
        node.put("spec/fleet.toml.minisig", bytes(signature));
        drift(&node);
        apply(&signed).says(code, &["warning[last-good]"]);
        assert_eq!(node.mirror(), "mirror-7.example.com");
    }
    node.put(
        "root/var/lib/nodeprep/last-good.json",
        String::from_utf8(node.kept("last-good.json").unwrap()).unwrap().replace("mirror-7", "mirror-9"),
    );
    apply(&signed).says(3, &["warning[no-last-good]", "is not by whom it has to be"]);
}

/// What is kept is what is in effect: a run that fails leaves the last one.
#[test]
fn only_what_worked_is_kept() {
    let node = Node::new();
    node.put("fleet.toml", SPEC);
    let apply = |more: &[&str]| node.run(&[&["apply", "--spec", "fleet.toml"], more].concat());
    apply(&[]).says(0, &[]);
    let kept = node.kept("last-good.json").unwrap();
    // somebody else's file in the way of a new source
    node.put("root/etc/containerd/certs.d/quay.io/hosts.toml", "server = \"https://quay.io\"\n[host.\"https://theirs.example\"]\n");
    node.put("fleet.toml", format!("{SPEC}[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example.com/quay\"]\n"));
    apply(&[]).says(5, &["theirs.example"]);
    assert_eq!(node.kept("last-good.json").unwrap(), kept);
    // what was given up on purpose does not come back
    node.put("fleet.toml", "version = 1\nname = \"fleet\"\nfallback = \"never\"\n");
    std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d/quay.io")).unwrap();
    apply(&["--allow-shrink"]).says(0, &[]);
    assert!(!String::from_utf8(node.kept("last-good.json").unwrap()).unwrap().contains("docker.io"));
}
