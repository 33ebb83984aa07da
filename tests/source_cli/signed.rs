//! Signatures, serials, and what a signed spec has to say. Everything in `fixtures/signed` is made with minisign itself.

use crate::node::{Node, Run, SPEC, bytes, signed};
use crate::server::{Ca, Server};

/// A node that takes only what the fleet's key has signed.
fn node() -> Node {
    let node = Node::new();
    node.put("fleet.pub", bytes("fleet.pub"));
    node.put("other.pub", bytes("other.pub"));
    node
}

/// Puts a document of the fixtures there with its signature.
fn put(node: &Node, name: &str) {
    node.put("spec/fleet.toml", bytes(name));
    node.put("spec/fleet.toml.minisig", bytes(&format!("{name}.minisig")));
}

fn apply(node: &Node, more: &[&str]) -> Run {
    node.run(&[&["apply", "--spec", "spec/fleet.toml", "--spec-public-key", "fleet.pub"], more].concat())
}

#[test]
fn only_what_is_signed() {
    let node = node();
    put(&node, "serial-7.toml");
    for subcommand in
        [&["check"][..], &["plan"], &["explain", "--planned", "docker.io/library/x"], &["render", "--to", "out", "--runtime", "podman"]]
    {
        let with = |key: &str| node.run(&[subcommand, &["--spec", "spec/fleet.toml", "--spec-public-key", key]].concat());
        with("fleet.pub").says(0, &[]);
        with("other.pub")
            .says(3, &["error[bad-signature]", "spec/fleet.toml is not by whom it has to be", "the key of --spec-public-key does not fit"]);
    }
    let key = String::from_utf8(bytes("fleet.pub")).unwrap().lines().nth(1).unwrap().to_owned();
    let with = |key: &str| node.run(&["apply", "--spec", "spec/fleet.toml", "--spec-public-key", key]);
    with("other.pub").says(3, &["error[bad-signature]"]);
    assert!(node.kept("").is_none(), "nothing is made for what is refused");
    with(&key).says(0, &[]);
    assert_eq!(node.mirror(), "mirror-7.example.com");
    // the other key is being brought in
    with(&format!("other.pub,{key}")).says(0, &[]);
    with("gone.pub").says(2, &["--spec-public-key: gone.pub cannot be read"]);
    with("spec/fleet.toml").says(2, &["spec/fleet.toml holds no minisign key"]);
    // one bit of the document or of the signature
    for (path, name) in [("spec/fleet.toml", "serial-7.toml"), ("spec/fleet.toml.minisig", "serial-7.toml.minisig")] {
        put(&node, "serial-7.toml");
        let mut bytes = bytes(name);
        let place = bytes.len() - 10;
        bytes[place] ^= 1;
        node.put(path, bytes);
        apply(&node, &[]).says(3, &["error[bad-signature]", "help: sign what is published"]);
    }
    std::fs::remove_file(node.path("spec/fleet.toml.minisig")).unwrap();
    apply(&node, &[]).says(3, &["signature of the spec cannot be read: spec/fleet.toml.minisig: it does not exist", "help: sign it"]);
    node.run(&["apply", "--spec", "-", "--spec-public-key", "fleet.pub"]).says(3, &["standard input has no file beside it"]);
    assert_eq!(node.mirror(), "mirror-7.example.com");
    // who asks for no key is asked for no signature
    node.run(&["apply", "--spec", "spec/fleet.toml"]).says(0, &[]);
}

#[test]
fn a_serial_only_grows() {
    let node = node();
    put(&node, "serial-7.toml");
    apply(&node, &[]).says(0, &[]);
    put(&node, "serial-6.toml");
    for more in [&[][..], &["--allow-shrink", "--take-over"]] {
        let run = apply(&node, more);
        run.says(5, &["error[older-serial]", "has the serial 6, and 7 was applied on this node already", "with a larger serial"]);
        node.run(&["plan", "--spec", "spec/fleet.toml"]).says(5, &["error[older-serial]"]);
    }
    put(&node, "serial-7-other.toml");
    apply(&node, &[]).says(5, &["error[same-serial]", "says something else", "with a larger serial"]);
    assert_eq!(node.mirror(), "mirror-7.example.com");
    put(&node, "serial-7.toml");
    apply(&node, &[]).says(0, &[]);
    put(&node, "serial-8.toml");
    apply(&node, &[]).says(0, &[]);
    assert_eq!(node.mirror(), "mirror-8.example.com");
    put(&node, "serial-7.toml");
    apply(&node, &[]).says(5, &["error[older-serial]"]);
    // one that is not signed and has no serial is as before, and does not make the serial forgotten
    node.run(&["apply", "--spec", node.put("plain.toml", SPEC).to_str().unwrap()]).says(0, &[]);
    apply(&node, &[]).says(5, &["error[older-serial]"]);
    // giving everything back does
    node.run(&["revert"]).says(0, &[]);
    apply(&node, &[]).says(0, &[]);
}

/// It counts where nothing is owned, too: what is on the node then would be the replayed spec's choice.
#[test]
fn a_serial_counts_without_anything_else() {
    let node = node();
    std::fs::remove_dir_all(node.path("root/usr")).unwrap();
    std::fs::remove_dir_all(node.path("root/etc")).unwrap();
    put(&node, "serial-7.toml");
    apply(&node, &[]).says(0, &["no container runtime was found"]);
    put(&node, "serial-6.toml");
    apply(&node, &[]).says(5, &["error[older-serial]"]);
}

#[test]
fn what_a_signed_spec_has_to_say() {
    let node = node();
    put(&node, "without-serial.toml");
    apply(&node, &[]).says(3, &["`serial` is missing", "help: add `serial = 1`"]);
    node.put("spec/root.pem", bytes("root.pem"));
    put(&node, "unpinned.toml");
    apply(&node, &[]).says(3, &["error[unpinned]", "spec/fleet.toml:8:8", "\"root.pem\" has no digest", "add `sha256 = "]);
    put(&node, "pinned.toml");
    apply(&node, &[]).says(0, &[]);
    node.put("spec/root.pem", [bytes("root.pem"), b"\n".to_vec()].concat());
    apply(&node, &[]).says(3, &["error[pin-mismatch]"]);
}

#[test]
fn a_folder_by_its_list() {
    let node = node();
    let copy = |name: &str| drop(node.put(&format!("spec/{name}"), bytes(&format!("folder/{name}"))));
    for name in ["10-top.toml", "20-mirrors.yaml", "SHA256SUMS", "SHA256SUMS.minisig"] {
        copy(name);
    }
    let apply = || node.run(&["apply", "--spec", "spec", "--spec-public-key", "fleet.pub"]);
    apply().says(0, &[]);
    assert_eq!(node.mirror(), "mirror.example.com");
    node.put("spec/30-more.toml", "[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"evil.example.com\"]\n");
    apply().says(3, &["error[bad-signature]", "SHA256SUMS of the spec spec does not name 30-more.toml", "sha256sum -- *.toml"]);
    std::fs::remove_file(node.path("spec/30-more.toml")).unwrap();
    node.put("spec/20-mirrors.yaml", "mirror: []\n");
    apply().says(3, &["says that 20-mirrors.yaml is another one"]);
    std::fs::remove_file(node.path("spec/20-mirrors.yaml")).unwrap();
    apply().says(3, &["names 20-mirrors.yaml, which is not there"]);
    copy("20-mirrors.yaml");
    apply().says(0, &[]);
    std::fs::remove_file(node.path("spec/SHA256SUMS.minisig")).unwrap();
    apply().says(3, &["spec/SHA256SUMS.minisig: it does not exist"]);
    std::fs::remove_file(node.path("spec/SHA256SUMS")).unwrap();
    apply().says(3, &["spec/SHA256SUMS: it does not exist"]);
    assert!(signed("folder").is_dir());
}

#[test]
fn a_url_has_its_signature_beside_it() {
    let (ca, node) = (Ca::new(), node());
    node.put("ca.pem", &ca.pem);
    let server = Server::new(&ca);
    let url = server.url("/fleet.toml?v=1");
    let apply = || node.run(&["apply", "--spec", &url, "--spec-ca", "ca.pem", "--spec-public-key", "fleet.pub"]);
    server.serves("/fleet.toml?v=1", bytes("serial-7.toml"));
    apply().says(69, &["/fleet.toml.minisig cannot be fetched", "404"]);
    server.serves("/fleet.toml.minisig?v=1", bytes("serial-6.toml.minisig"));
    apply().says(3, &["error[bad-signature]"]);
    assert_eq!(node.mirror(), "");
    server.serves("/fleet.toml.minisig?v=1", bytes("serial-7.toml.minisig"));
    apply().says(0, &[]);
    assert_eq!(node.mirror(), "mirror-7.example.com");
    // an earlier one is as well signed as it ever was
    server.serves("/fleet.toml?v=1", bytes("serial-6.toml"));
    server.serves("/fleet.toml.minisig?v=1", bytes("serial-6.toml.minisig"));
    apply().says(5, &["error[older-serial]"]);
    assert_eq!(node.mirror(), "mirror-7.example.com");
}
