//! A clock that nobody has synchronised: validity could not run, and nothing is bad for it. What this machine's own clock is like plays no part.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

use crate::node::{Node, Run, ran};
use crate::registry::Authority;

/// A CA, or a client certificate with its key, that ran out in 2021.
fn past(name: &str, is_ca: bool) -> (String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if is_ca {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn with(node: &Node, words: &str, synchronised: &str) -> Run {
    let mut command = node.command(words);
    command.env("NODEPREP_CLOCK_SYNCHRONISED", synchronised);
    ran(command)
}

#[test]
fn a_certificate_that_may_have_run_out_is_not_left_out() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = Node::new(&authority, &[&registry], "");
    node.put("spec/ca.pem", &format!("{}{}", authority.pem, past("past", true).0));
    for words in ["plan --probe off", "apply --probe off"] {
        let run = with(&node, words, "no");
        run.says(
            0,
            &[
                "warning[clock]",
                "nobody has synchronised it since the boot",
                "CN=past expired on 2021-01-01",
                "help: let the clock be synchronised",
            ],
        );
        assert!(!run.said.contains("ca-expired") && !run.said.contains("left out"), "{}", run.said);
    }
    let run = with(&node, "status", "no");
    run.says(0, &["warning[clock]", "CN=past", "ran out on 2021-01-01"]);
    assert!(!run.said.contains("[expired]"), "{}", run.said);
    // the trust store of a root that does not run is due
    assert_eq!([with(&node, "status --exit-code", "yes").code, with(&node, "status --exit-code", "no").code], [8, 0]);
    // somebody vouches for it, or nobody can be asked: it goes
    for synchronised in ["yes", "", "unknown"] {
        let run = with(&node, "plan --probe off", synchronised);
        run.says(0, &["warning[ca-expired]", "it is left out"]);
        assert!(!run.said.contains("[clock]"), "{}", run.said);
    }
    with(&node, "apply --probe off", "yes").says(0, &[]);
    let run = with(&node, "status", "yes");
    assert!(!run.said.contains("CN=past"), "{}", run.said);
    // a document that is checked somewhere else is not about this clock
    let mut check = std::process::Command::new(crate::node::BINARY);
    check.arg("check").arg("--spec").arg(node.path("spec/spec.toml")).env_clear().env("NODEPREP_CLOCK_SYNCHRONISED", "no");
    ran(check).says(0, &["warning[ca-expired]"]);
}

#[test]
fn nor_is_a_spec_refused_for_it() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = Node::new(&authority, &[&registry], "");
    node.put("spec/ca.pem", &past("past", true).0);
    let all = with(&node, "plan --probe off", "yes");
    assert_eq!(all.code, 3, "{}", all.said);
    with(&node, "plan --probe off", "no").says(0, &["warning[clock]"]);
    node.put("spec/ca.pem", &authority.pem);
    let (cert, key) = past("node", false);
    node.put("spec/node.crt", &cert);
    node.put("spec/node.key", &key);
    let text = node.read("spec/spec.toml");
    node.document(&text.replacen("ca = [\"root\"]", "ca = [\"root\"]\nclient_cert = \"node.crt\"\nclient_key = \"node.key\"", 1));
    with(&node, "plan --probe off", "yes").says(3, &["error[client-expired]"]);
    with(&node, "plan --probe off", "no").says(0, &["warning[clock]", "client certificate CN=node expired on 2021-01-01"]);
    // what is wrong whatever the time is stays wrong
    node.put("spec/node.key", &past("other", false).1);
    with(&node, "plan --probe off", "no").says(3, &["error[client-key-mismatch]", "warning[clock]"]);
}

#[test]
fn a_server_that_may_have_run_out_could_not_be_judged() {
    let authority = Authority::new();
    let registry = authority.registry(2022);
    let node = Node::new(&authority, &[&registry], "");
    // one that sends its login wherever it is wanted
    node.put("root/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 2.1.4\n\n");
    // what does not answer is kept back; what could not be told is not
    with(&node, "apply --probe require", "yes").says(8, &["kept-back", "expired or is not yet valid"]);
    with(&node, "apply --probe require", "no").says(0, &["warning[endpoint-untold]", "nobody has synchronised the clock"]);
    with(&node, "verify", "yes").says(8, &["failed [endpoint]", "expired or is not yet valid", "renew the certificate that is named"]);
    with(&node, "verify", "no")
        .says(0, &["could not run [endpoint]", "by that clock, x509: certificate has expired", "let the clock be synchronised"]);
    // another CA is another CA at any time
    let other = Node::new(&Authority::new(), &[&registry], "").applied();
    with(&other, "verify", "no").says(8, &["failed [endpoint]"]);
}

#[test]
fn a_canary_that_may_be_too_old_is_not_stale() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = Node::new(&authority, &[&registry], "[[canary]]\nimage = \"docker.io/a/b:1\"\nmax_age = \"1h\"\n").applied();
    registry.holds("hub/a/b", "1", "{\"annotations\":{\"org.opencontainers.image.created\":\"2020-01-01T00:00:00Z\"}}");
    with(&node, "verify", "yes").says(8, &["failed [canary]", "it was made on 2020-01-01T00:00:00Z"]);
    with(&node, "verify", "no").says(0, &["could not run [canary]", "the clock of the node is not to be relied on"]);
    registry.put("/v2/hub/a/b/manifests/1", 404, "", "");
    with(&node, "verify", "no").says(8, &["failed [canary]", "manifest unknown"]);
}
