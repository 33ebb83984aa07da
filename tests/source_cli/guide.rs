//! `docs/sources.md` is followed as it stands, line by line: the server is behind a proxy that knows its name, and where minisign is not
//! installed its signatures are those of the fixtures.

use std::process::Command;

use crate::node::{Node, SECRET, bytes};
use crate::server::{Ca, Odd, Server, gateway};

#[test]
fn the_page_can_be_followed() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/sources.md")).unwrap();
    let ca = Ca::new();
    let server = Server::odd(&ca, Odd { name: Some("specs.example.com"), ..Odd::default() });
    let node = Node::new().with("HTTPS_PROXY", &gateway(server.host.clone()));
    let (cert, key) = ca.client();
    node.put("ca.pem", &ca.pem);
    node.put("node.crt", cert);
    node.secret("node.key", &key);
    node.secret("token", SECRET);
    for name in ["fleet.pub", "fleet.key"] {
        node.put(name, bytes(name));
    }
    // the example of a CA is part of what is fetched
    let example = page.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let document =
        String::from_utf8(bytes("serial-7.toml")).unwrap().replace("[[mirror]]", &format!("{example}trust = \"registries\"\n[[mirror]]"));
    server.serves("/internal-root.pem", bytes("root.pem"));
    node.put("fleet.toml", bytes("serial-7.toml"));
    for name in ["10-top.toml", "20-mirrors.yaml"] {
        node.put(&format!("specs/{name}"), bytes(&format!("folder/{name}")));
    }
    server.serves("/fleet.toml", &document);
    let mut folder = node.path("");
    let mut ran = 0;
    let blocks = page.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap());
    for line in blocks.flat_map(str::lines).filter_map(|line| line.split('#').next()).map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words[0] {
            "nodeprep" => {
                // every change of what is applied would want another serial: each line is the first one of a node
                let _ = std::fs::remove_dir_all(node.path("root/var/lib/nodeprep"));
                let _ = std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d"));
                node.run(&words[1..]).says(0, &[]);
                ran += 1;
            }
            "cd" => folder = folder.join(words[1]),
            "sha256sum" => {
                assert!(Command::new("sh").args(["-c", line]).current_dir(&folder).status().unwrap().success());
                let list = std::fs::read(folder.join("SHA256SUMS")).unwrap();
                assert_eq!(list, bytes("folder/SHA256SUMS"));
                node.put("specs/SHA256SUMS.minisig", bytes("folder/SHA256SUMS.minisig"));
            }
            "minisign" => {
                let signed = words.last().unwrap();
                if *signed == "fleet.toml" {
                    node.put("fleet.toml.minisig", bytes("serial-7.toml.minisig"));
                    server.serves("/fleet.toml", bytes("serial-7.toml"));
                    server.serves("/fleet.toml.minisig", bytes("serial-7.toml.minisig"));
                } else {
                    assert!(["fleet.key", "SHA256SUMS"].contains(signed), "{line}");
                }
            }
            other => panic!("{other} is not run by this test: {line}"),
        }
    }
    assert_eq!(ran, 7, "lines of nodeprep");
    assert!(server.heads().iter().any(|head| head.starts_with("GET /internal-root.pem ")));
}
