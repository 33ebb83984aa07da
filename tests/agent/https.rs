//! The agent with a spec from a server that really speaks TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nodeprep::agent::state::{Cause, Fault, Phase};

use crate::node::{Node, spec, wait};
use crate::server::{Answer, Ca, Link, Odd, Server, gateway};

pub const SECRET: &str = "s3cret-of-the-test";

/// Starts an agent that asks often.
pub fn start(node: &mut Node, ca: &Ca, url: &str, more: &[&str]) {
    node.put("ca.pem", &ca.pem);
    let words = [&["--spec-ca", "ca.pem", "--poll", "1s", "--quiet", "10ms"], more].concat();
    let command = node.command_for(url, &words);
    node.run(command);
}

fn fixture(name: &str) -> Vec<u8> {
    fs::read(format!("{}/fixtures/signed/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn secret(node: &Node, name: &str, text: &str) {
    node.put(name, text);
    fs::set_permissions(node.path(name), fs::Permissions::from_mode(0o600)).unwrap();
}

/// It is fetched once; from then on it is asked whether it has changed, and what has changed is in effect.
#[test]
fn a_spec_from_a_url() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    server.says("/fleet.toml?sig=s3cret-of-the-test", Answer::Tagged("\"one\"", spec(5000).into()));
    start(&mut node, &ca, &format!("{}?sig={SECRET}", server.url("/fleet.toml")), &[]);
    node.until_port(5000);
    let (mut heads, mut statuses) = (Vec::new(), Vec::new());
    let mut ask_until = |tag: &str| {
        let wanted = format!("If-None-Match: {tag}\r\n");
        wait(|| {
            heads.extend(server.heads());
            statuses.extend(server.statuses());
            heads.last().is_some_and(|head: &String| head.contains(&wanted)) && statuses.last() == Some(&304)
        })
        .unwrap_or_else(|()| panic!("{statuses:?} {heads:?}\n{}", node.read("log")));
        (heads.clone(), statuses.clone())
    };
    let (heads, statuses) = ask_until("\"one\"");
    assert!(!heads[0].contains("If-None-Match") && heads[1..].iter().all(|head| head.contains("If-None-Match: \"one\"\r\n")), "{heads:?}");
    assert!(statuses[0] == 200 && statuses[1..].iter().all(|status| *status == 304), "{statuses:?}");
    server.says("/fleet.toml?sig=s3cret-of-the-test", Answer::Tagged("\"two\"", spec(5001).into()));
    node.until_port(5001);
    let (_, statuses) = ask_until("\"two\"");
    // by the poll that has seen it, and by the pass that applies it
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 3, "{statuses:?}");
    let state = node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    assert_eq!(state.spec.source, server.url("/fleet.toml"));
    assert!(state.causes.contains_key(&Cause::Poll) && state.watches.polling.is_empty(), "{state:#?}");
    node.until_told("/metrics", "\nnodeprep_converged 1\n");
    for said in [node.read("log"), node.read("node/run/nodeprep/agent.json"), node.ask("/metrics")] {
        assert!(!said.contains(SECRET), "{said}");
    }
}

/// With the server gone the node is held to the last good spec; state, status, health and metrics say so.
#[test]
fn a_server_that_goes_and_comes_back() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    server.serves("/fleet.toml", spec(5000));
    start(&mut node, &ca, &server.url("/fleet.toml"), &[]);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    let before = node.hosts();
    server.link(Link::HangsUp);
    let state = node.until_failing(Fault::Unavailable, "fleet.toml cannot be fetched");
    assert!(state.says.starts_with("the spec's source cannot be reached, and the node stays as it is: "), "{}", state.says);
    assert_eq!(node.hosts(), before);
    node.until_told("/readyz", "503 Service Unavailable");
    node.until_told("/readyz", "cannot be reached, and the node stays as it is");
    node.until_told("/healthz", "200 OK");
    node.until_told("/metrics", "\nnodeprep_agent_failing_since_timestamp_seconds ");
    node.until_told("/metrics", "\nnodeprep_converged 0\n");
    let (_, status) = node.by_hand(&["status"]);
    assert!(status.contains("the spec's source cannot be reached"), "{status}");
    // drift is put right from what is kept
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    node.until_hosts("registry.example.com:5000/");
    assert_eq!(node.hosts(), before);
    server.serves("/fleet.toml", spec(5001));
    server.link(Link::Up);
    node.until_port(5001);
    node.until("at rest", |state| state.converged && state.failing.is_none() && state.phase == Phase::Idle);
    node.until_told("/readyz", "200 OK");
    server.link(Link::Gone);
    node.until_failing(Fault::Unavailable, "connection refused");
    assert!(node.hosts().contains(":5001/"));
}

/// A node that has never had a spec is none the worse for a server that comes later.
#[test]
fn a_server_that_comes_later() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    server.link(Link::HangsUp);
    start(&mut node, &ca, &server.url("/fleet.toml"), &[]);
    node.hear_until("READY=1");
    node.until_failing(Fault::Unavailable, "fleet.toml cannot be fetched");
    assert_eq!(node.hosts(), "");
    server.serves("/fleet.toml", spec(5000));
    server.link(Link::Up);
    node.until_port(5000);
}

/// Only what is signed, and nothing that is older than what was.
#[test]
fn a_signed_spec() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    fs::write(node.path("fleet.pub"), fixture("fleet.pub")).unwrap();
    let publish = |document: &str, signature: &str| {
        server.serves("/fleet.toml.minisig", fixture(signature));
        server.serves("/fleet.toml", fixture(document));
    };
    server.serves("/fleet.toml", fixture("serial-7.toml"));
    start(&mut node, &ca, &server.url("/fleet.toml"), &["--spec-public-key", "fleet.pub"]);
    node.until_failing(Fault::Unavailable, "fleet.toml.minisig cannot be fetched");
    publish("serial-7.toml", "serial-8.toml.minisig");
    let state = node.until_failing(Fault::Spec, "is not by whom it has to be");
    assert!(state.says.starts_with("the spec cannot be used, and the node stays as it is: "), "{}", state.says);
    assert_eq!(node.hosts(), "");
    publish("serial-7.toml", "serial-7.toml.minisig");
    node.until_hosts("mirror-7.example.com");
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    let before = node.hosts();
    for (document, signature, kind, what) in [
        ("serial-6.toml", "serial-6.toml.minisig", Fault::Refused, "has the serial 6, and 7 was applied"),
        ("serial-7-other.toml", "serial-7-other.toml.minisig", Fault::Refused, "says something else"),
        ("serial-8.toml", "serial-7.toml.minisig", Fault::Spec, "is not by whom it has to be"),
    ] {
        publish(document, signature);
        let state = node.until_failing(kind, what);
        assert!(state.says.contains(what), "{}", state.says);
        assert_eq!(node.hosts(), before, "{document}");
    }
    publish("serial-8.toml", "serial-8.toml.minisig");
    node.until_hosts("mirror-8.example.com");
    node.until("converged", |state| state.converged && state.failing.is_none());
    node.until_told("/metrics", "\nnodeprep_spec_serial 8\n");
}

/// Token and client certificate are shown to the server, and to nobody else.
#[test]
fn a_server_that_wants_to_know_who_asks() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let (server, other) = (Server::odd(&ca, Odd { wants_client: true, ..Odd::default() }), Server::new(&ca));
    let (cert, key) = ca.client();
    node.put("node.crt", &cert);
    secret(&node, "node.key", &key);
    secret(&node, "token", SECRET);
    server.serves("/fleet.toml", spec(5000));
    let words = ["--spec-token-file", "token", "--spec-client-cert", "node.crt", "--spec-client-key", "node.key"];
    start(&mut node, &ca, &server.url("/fleet.toml"), &words);
    node.until_port(5000);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    let heads = server.heads();
    assert!(heads.iter().all(|head| head.contains(&format!("Authorization: Bearer {SECRET}\r\n"))), "{heads:?}");
    other.serves("/fleet.toml", spec(5001));
    server.says("/fleet.toml", Answer::Whole(302, format!("Location: {}\r\n", other.url("/fleet.toml")), Vec::new()));
    node.until_failing(Fault::Unavailable, "the server sends to another one");
    assert!(other.heads().is_empty() && node.hosts().contains(":5000/"), "{}", node.hosts());
    // at the same server it is followed; and a token that was renewed is read anew
    secret(&node, "token", "the-next-token");
    wait(|| server.heads().iter().any(|head| head.contains("Bearer the-next-token\r\n"))).unwrap();
    server.serves("/real/fleet.toml", spec(5002));
    server.says("/fleet.toml", Answer::Whole(302, "Location: /real/fleet.toml\r\n".to_owned(), Vec::new()));
    node.until_port(5002);
    assert!(server.heads().iter().any(|head| head.contains("GET /real/fleet.toml") && head.contains("Bearer the-next-token\r\n")));
    let said = [node.read("log"), node.read("node/run/nodeprep/agent.json")].concat();
    assert!(!said.contains(SECRET) && !said.contains("the-next-token") && !said.contains("PRIVATE KEY"), "{said}");
    // without the certificate it is told what is missing
    fs::write(node.path("node.crt"), "").unwrap();
    let state = node.until("told", |state| state.last_pass.as_ref().is_some_and(|pass| pass.exit_code == Some(2)));
    assert!(state.says.contains("--spec-client-cert") && node.hosts().contains(":5002/"), "{state:#?}");
}

/// Whom it does not believe it asks nothing.
#[test]
fn a_server_of_another_ca() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&Ca::new());
    server.serves("/fleet.toml", spec(5000));
    start(&mut node, &ca, &server.url("/fleet.toml"), &[]);
    node.until_failing(Fault::Unavailable, "certificate signed by unknown authority");
    assert!(server.heads().is_empty() && node.hosts().is_empty());
}

#[test]
fn by_a_proxy() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::odd(&ca, Odd { name: Some("specs.example.com"), ..Odd::default() });
    server.serves("/fleet.toml", spec(5000));
    node.put("ca.pem", &ca.pem);
    let mut command = node.command_for("https://specs.example.com/fleet.toml", &["--spec-ca", "ca.pem"]);
    command.env("HTTPS_PROXY", format!("http://{}", gateway(server.host.clone())));
    node.run(command);
    node.until_port(5000);
    assert!(server.heads()[0].contains("Host: specs.example.com\r\n"));
}

/// The CAs that it references come from the same server.
#[test]
fn what_it_references_comes_along() {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    let roots = [fixture("root.pem"), ca.pem.clone().into_bytes()];
    let with = |port: u32, root: &[u8]| {
        let pin = nodeprep::model::digest::Digest::of(root);
        let more = format!("[[ca]]\nname = 'root'\nfile = 'root.pem'\nsha256 = '{pin}'\ntrust = 'registries'\n");
        format!("{}{more}[[registry]]\nhost = 'registry.example.com:{port}'\nca = ['root']\n", spec(port))
    };
    for (port, root) in [5000, 5001].into_iter().zip(&roots) {
        server.serves("/root.pem", root);
        server.serves("/fleet.toml", with(port, root));
        if port == 5000 {
            start(&mut node, &ca, &server.url("/fleet.toml"), &[]);
        }
        node.until_port(port);
    }
    // one that does not fit its pin keeps all of it from the node
    server.serves("/root.pem", &roots[0]);
    server.serves("/fleet.toml", with(5002, b"another"));
    node.until_failing(Fault::Spec, "root.pem");
    assert!(node.hosts().contains(":5001/"));
}
