//! Certificates that are renewed: plain changes that restart nothing.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};
use serde_json::Value;

use crate::node::{BINARY, Node};

/// A CA with this name, as PEM; one that ran out in 2021 where `past`.
fn ca(name: &str, past: bool) -> String {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    if past {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    }
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

fn client(node: &Node, name: &str) -> String {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    fs::write(node.spec.join("node.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(node.spec.join("node.key"), key.serialize_pem()).unwrap();
    key.serialize_pem().lines().nth(1).unwrap().to_owned()
}

/// Applies what the spec says now: it changes something, and nothing has to be reloaded or restarted for it.
fn changes_without_restart(node: &Node) {
    let run = node.run("apply --output json");
    run.says(0, &[]);
    let report = run.json();
    let parts = report["parts"].as_array().unwrap();
    assert!(parts.iter().any(|part| part["state"] == "changes"), "{report}");
    for activation in parts.iter().flat_map(|part| part["activations"].as_array().unwrap()) {
        assert!(["nothing", "refresh"].contains(&activation["how"]["how"].as_str().unwrap()), "{activation}");
    }
    // nor is anything left for somebody else to restart
    assert!(report["units"].is_null(), "{report}");
    let due = report["due"].as_array().cloned().unwrap_or_default();
    assert!(due.iter().all(|due| ["nothing", "refresh"].contains(&due["how"]["how"].as_str().unwrap())), "{due:?}");
}

/// The subjects of what the node believes or shows.
fn subjects(node: &Node, role: &str) -> Vec<String> {
    let status = node.run("status --output json").json();
    let mut all: Vec<String> = status["expiry"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|one| one["role"] == role)
        .map(|one| one["subject"].as_str().unwrap().to_owned())
        .collect();
    all.sort();
    all
}

/// A node that runs, seen from a container.
fn node() -> Node {
    let node = Node::new();
    fs::create_dir_all(node.at("/proc/1")).unwrap();
    node
}

/// The files of the node below /etc and /usr that hold this text.
fn holding(node: &Node, text: &str) -> Vec<String> {
    let all = node.picture(false).into_iter().filter(|(_, thing)| String::from_utf8_lossy(&thing.content).contains(text));
    all.map(|(path, _)| path.display().to_string()).collect()
}

#[test]
fn a_ca_gets_a_successor_and_goes() {
    let node = node();
    let (old, new) = (ca("old", false), ca("new", false));
    let put = |pem: &str| fs::write(node.spec.join("ca.pem"), pem).unwrap();
    put(&old);
    node.run("apply").says(0, &[]);
    assert_eq!(subjects(&node, "ca"), ["CN=old"]);
    // side by side
    put(&format!("{old}{new}"));
    changes_without_restart(&node);
    assert_eq!(subjects(&node, "ca"), ["CN=new", "CN=old"]);
    let line = |pem: &str| pem.lines().nth(3).unwrap().to_owned();
    let both: Vec<String> = holding(&node, &line(&old)).into_iter().filter(|path| holding(&node, &line(&new)).contains(path)).collect();
    assert!(both.iter().any(|path| path.starts_with("etc/nodeprep/pki/ca-")), "{both:?}");
    // the old one goes by its content, whatever it is called
    put(&new);
    changes_without_restart(&node);
    assert_eq!(subjects(&node, "ca"), ["CN=new"]);
    assert_eq!(holding(&node, &line(&old)), Vec::<String>::new());
    node.run("verify --offline").says(0, &[]);
}

#[test]
fn a_client_certificate_is_renewed() {
    let node = node();
    let old = client(&node, "first");
    node.run("apply").says(0, &[]);
    assert!(!holding(&node, &old).is_empty());
    let readers = holding(&node, &old).len();
    let new = client(&node, "second");
    changes_without_restart(&node);
    assert_eq!(subjects(&node, "client"), ["CN=second"]);
    assert_eq!(holding(&node, &old), Vec::<String>::new(), "the key of before is still there");
    // each of those who read the old one reads the new one, and nobody else does
    let keys = holding(&node, &new);
    assert_eq!(keys.len(), readers, "{keys:?}");
    for key in &keys {
        let mode = fs::metadata(node.root.join(key)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{key}");
    }
    let own: Vec<&String> = keys.iter().filter(|key| key.contains("/nodeprep/")).collect();
    let hosts = fs::read_to_string(node.at(crate::HOSTS)).unwrap();
    assert!(!own.is_empty() && own.iter().any(|key| hosts.contains(&format!("/{key}"))), "{own:?}\n{hosts}");
    node.run("verify --offline").says(0, &[]);
    // the same once more is nothing to do
    let again = node.run("plan --output json").json();
    assert!(again["parts"].as_array().unwrap().iter().all(|part| part["state"] == "converged"), "{again}");
}

/// The spec with these CAs, each an entry and a file of its own.
fn with_cas(node: &Node, cas: &[(&str, &str)]) {
    let text = fs::read_to_string(node.spec.join("spec.toml")).unwrap();
    let (head, rest) = text.split_once("[[ca]]").unwrap();
    let rest = &rest[rest.find("[[registry]]").unwrap()..];
    let entry = |(name, pem): &(&str, &str)| {
        fs::write(node.spec.join(format!("{name}.pem")), pem).unwrap();
        format!("[[ca]]\nname = \"{name}\"\nfile = \"{name}.pem\"\n")
    };
    node.document(format!("{head}{}{rest}", cas.iter().map(entry).collect::<String>()));
}

/// What goes is a certificate, not a name and not a file: ours of it, once nothing in the spec has it any more.
#[test]
fn a_ca_goes_by_its_fingerprint() {
    let node = node();
    let (old, new) = (ca("old", false), ca("new", false));
    let line = |pem: &str| pem.lines().nth(3).unwrap().to_owned();
    let anchors = |pem: &str| {
        let all = holding(&node, &line(pem)).into_iter();
        all.filter(|path| path.starts_with("usr/local/share/ca-certificates/")).collect::<Vec<_>>()
    };
    // somebody has put the old one there himself
    let theirs = node.put("/usr/local/share/ca-certificates/corp-root.crt", &old);
    with_cas(&node, &[("old", &old)]);
    node.run("apply").says(0, &[]);
    assert!(anchors(&old).len() <= 2 && !anchors(&old).is_empty());
    // side by side, as entries of their own; the old one under two names
    with_cas(&node, &[("old", &old), ("new", &new), ("old-again", &old)]);
    changes_without_restart(&node);
    assert_eq!(subjects(&node, "ca"), ["CN=new", "CN=old"]);
    assert!(!anchors(&new).is_empty());
    // a name goes, the certificate stays: nothing that anybody reads is another one
    with_cas(&node, &[("new", &new), ("old-again", &old)]);
    node.run("apply").says(0, &[]);
    assert_eq!(subjects(&node, "ca"), ["CN=new", "CN=old"]);
    // the certificate goes
    with_cas(&node, &[("new", &new)]);
    changes_without_restart(&node);
    assert_eq!(subjects(&node, "ca"), ["CN=new"]);
    assert_eq!(holding(&node, &line(&old)), ["usr/local/share/ca-certificates/corp-root.crt"]);
    assert_eq!(fs::read_to_string(theirs).unwrap(), old, "what is theirs stays");
    // and does not come back when the new one gets another name
    with_cas(&node, &[("next", &new)]);
    node.run("apply").says(0, &[]);
    assert_eq!(subjects(&node, "ca"), ["CN=new"]);
    node.run("verify --offline").says(0, &[]);
}

/// One that runs out while it is on the node is left out by the next run, with a warning; what is valid beside it stays, and nothing is restarted.
#[test]
fn one_that_runs_out_on_the_node_goes() {
    let node = node();
    let soon = {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "soon");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = date_time_ymd(2027, 1, 1);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
    };
    fs::write(node.spec.join("ca.pem"), format!("{}{soon}", ca("valid", false))).unwrap();
    // 2026-11-21, and a year later
    let apply = |secs: &str, synchronised: &str| {
        let mut nodeprep = Command::new(BINARY);
        nodeprep.args(["apply", "--output", "json", "--spec"]).arg(&node.spec).arg("--root").arg(&node.root).env_clear();
        let output = nodeprep.env("NODEPREP_CLOCK", secs).env("NODEPREP_CLOCK_SYNCHRONISED", synchronised).output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let of = report["problems"].as_array().cloned().unwrap_or_default();
        let codes =
            of.iter().filter(|problem| problem["severity"] == "warning").map(|problem| problem["code"].as_str().unwrap().to_owned());
        let codes: Vec<String> = codes.filter(|code| code == "clock" || code.starts_with("ca-")).collect();
        assert!(report["units"].is_null(), "{report}");
        (output.status.code(), codes)
    };
    let (now, later) = ("1795219200", "1826755200");
    assert_eq!(apply(now, "yes"), (Some(0), Vec::new()));
    assert_eq!(subjects(&node, "ca"), ["CN=soon", "CN=valid"]);
    // nobody vouches for that clock
    assert_eq!(apply(later, "no"), (Some(0), vec!["clock".to_owned()]));
    assert_eq!(subjects(&node, "ca"), ["CN=soon", "CN=valid"]);
    assert_eq!(apply(later, "yes"), (Some(0), vec!["ca-expired".to_owned()]));
    assert_eq!(subjects(&node, "ca"), ["CN=valid"]);
}

#[test]
fn one_that_has_run_out_is_left_out_unless_the_clock_is_wrong() {
    let node = node();
    fs::write(node.spec.join("ca.pem"), format!("{}{}", ca("valid", false), ca("past", true))).unwrap();
    node.run("check").says(0, &["warning[", "CN=past", "2021-01-01"]);
    node.run("apply").says(0, &[]);
    assert_eq!(subjects(&node, "ca"), ["CN=valid"]);
    // nothing is known of what is valid now: that is told, and nothing is bad for it
    let with_clock = |secs: &str, words: &[&str]| {
        let mut nodeprep = Command::new(BINARY);
        nodeprep.args(words).args(["--output", "json", "--spec"]).arg(&node.spec).env_clear().env("NODEPREP_CLOCK", secs);
        let output = nodeprep.output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let codes = report["problems"].as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap().to_owned());
        let of_validity = |code: &String| ["clock", "ca-", "client-", "no-valid"].iter().any(|start| code.starts_with(start));
        (output.status.code(), codes.filter(of_validity).collect::<Vec<_>>())
    };
    for secs in ["0", "1700000000"] {
        assert_eq!(with_clock(secs, &["check"]), (Some(0), vec!["clock".to_owned()]));
    }
    let root = node.root.to_str().unwrap();
    let (code, codes) = with_clock("0", &["apply", "--root", root]);
    assert_eq!((code, codes), (Some(0), vec!["clock".to_owned()]));
    // a file of certificates that have all run out would be an error with the right clock
    fs::write(node.spec.join("ca.pem"), ca("past", true)).unwrap();
    assert_eq!(with_clock("1795197661", &["check"]).0, Some(3));
    assert_eq!(with_clock("0", &["check"]), (Some(0), vec!["clock".to_owned()]));
}
