//! What `status` says of a node.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::HOSTS;
use crate::node::{Node, same};

#[test]
fn of_a_bare_node() {
    let node = Node::new();
    let before = node.picture(true);
    node.run("status").says(0, &["nodeprep owns nothing on this node"]);
    let status = node.run("status --output json --exit-code").json();
    assert_eq!((&status["version"], &status["outcome"], &status["spec"]), (&Value::from(1), &Value::from("converged"), &Value::Null));
    same(&before, &node.picture(true));
}

#[test]
fn of_a_node_that_is_as_it_was_left() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    let before = node.picture(true);
    let status = node.run("status --output json");
    status.says(0, &[]);
    let status = status.json();
    assert_eq!((&status["spec"]["name"], &status["spec"]["never"]), (&Value::from("default"), &Value::Bool(true)));
    assert_eq!(status["spec"]["digest"].as_str().unwrap().len(), 64);
    let managed: Vec<_> =
        status["managed"].as_array().unwrap().iter().map(|one| (one["target"].as_str().unwrap(), &one["drift"])).collect();
    assert_eq!(managed.iter().map(|(target, _)| *target).collect::<Vec<_>>(), ["containerd", "containers", "trust store"]);
    assert!(managed.iter().all(|(_, drift)| **drift == 0), "{managed:?}");
    assert_eq!((&status["last_run"]["outcome"], &status["last_run"]["command"]), (&Value::from("converged"), &Value::from("apply")));
    let roles: Vec<_> = status["expiry"].as_array().unwrap().iter().map(|one| one["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["ca", "client"]);
    assert!(status["expiry"].as_array().unwrap().iter().all(|one| one["days"].as_i64().unwrap() > 30_000));
    // the root of an image: what starts there reads everything, but for the trust store, whose command could not be run
    let due: Vec<_> = status["due"].as_array().unwrap().iter().map(|due| due["what"]["how"]["how"].as_str().unwrap()).collect();
    assert_eq!(due, ["refresh"]);
    let text = node.run("status");
    text.says(0, &["spec: default, digest ", "containerd: ", "as they were left", "last run: apply at ", "expires: client "]);
    node.run("status --exit-code").says(9, &[]);
    same(&before, &node.picture(true));
}

#[test]
fn drift_is_what_is_not_as_it_was_left() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    // the rest of a file of which keys are ours belongs to others
    let config = "/etc/containerd/config.toml";
    node.put(config, format!("# mine\n{}", node.get(config)));
    let drift = |node: &Node| node.run("status --output json").json()["drift"].clone();
    assert_eq!(drift(&node), serde_json::json!([]));
    node.put(config, node.get(config).replace("config_path", "other_path"));
    node.put(HOSTS, "server = \"https://elsewhere.example\"\n");
    let conf = node.at("/etc/containers/registries.conf.d/zz-nodeprep.conf");
    fs::set_permissions(&conf, fs::Permissions::from_mode(0o600)).unwrap();
    let gone = "/etc/containerd/certs.d/docker.io_443_/hosts.toml";
    fs::remove_file(node.at(gone)).unwrap();
    let found: Vec<(String, String)> = drift(&node)
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["path"].as_str().unwrap().to_owned(), one["kind"]["what"].as_str().unwrap().to_owned()))
        .collect();
    let want = [(HOSTS, "changed"), (gone, "gone"), (config, "keys"), ("/etc/containers/registries.conf.d/zz-nodeprep.conf", "mode")];
    assert_eq!(found, want.map(|(path, kind)| (path.to_owned(), kind.to_owned())));
    node.run("status").says(0, &[&format!("drift: {HOSTS} has been changed"), "3 not as left", "has mode 0600", "is gone"]);
    node.run("status --exit-code").says(10, &[]);
    node.run("apply").says(0, &[]);
    assert_eq!(drift(&node), serde_json::json!([]));
}

#[test]
fn what_is_carried_over_is_shown_as_lines_of_a_spec() {
    let node = Node::new();
    let legacy =
        "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry.mirrors.'quay.io']\nendpoint = ['https://old.example/v2/quay']\n";
    node.put("/etc/containerd/config.toml", legacy);
    node.run("apply --foreign carry").says(0, &[]);
    let lines = node.run("status --output json").json()["adopted"]["/etc/containerd/config.toml"].as_str().unwrap().to_owned();
    assert!(lines.contains("source = \"quay.io\"\nendpoints = [\"old.example/quay\"]"), "{lines}");
    node.run("status").says(0, &["carried over from /etc/containerd/config.toml", "    source = \"quay.io\""]);
    // copied into the spec it is the spec's
    let spec = fs::read_to_string(node.spec.join("spec.toml")).unwrap();
    node.document(format!("{spec}\n{lines}"));
    node.run("apply").says(0, &[]);
    let adopted = node.run("status --output json").json()["adopted"].clone();
    assert_eq!(adopted, serde_json::json!({}));
}

#[test]
fn a_ledger_that_cannot_be_read_is_told() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    node.put("/var/lib/nodeprep/ledger.json", "torn");
    node.run("status").says(0, &["warning[node]", "ledger.json"]);
    node.run("status --exit-code").says(4, &[]);
}

#[test]
fn what_the_agent_says_of_itself_is_part_of_it() {
    let node = Node::new();
    let state = nodeprep::agent::state::AgentState {
        version: 1,
        pid: 4711,
        program: "0.1.0".to_owned(),
        says: "waiting for the restart window".to_owned(),
        phase: nodeprep::agent::state::Phase::Waiting,
        ..Default::default()
    };
    node.put("/run/nodeprep/agent.json", serde_json::to_vec(&state).unwrap());
    node.run("status").says(0, &["agent: nodeprep 0.1.0, waiting: waiting for the restart window"]);
    let status = node.run("status --output json").json();
    assert_eq!((&status["agent"]["alive"], &status["agent"]["pid"]), (&Value::Null, &Value::from(4711)));
    node.put("/run/nodeprep/agent.json", "{\"pid\": \"x\"}");
    node.run("status").says(0, &["warning[agent-unread]"]);
}

/// One that runs out soon is told beforehand, one that has run out ends `--exit-code` with 8.
#[test]
fn certificates_that_run_out() {
    let node = Node::new();
    let ca = |days: i64| {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "short-lived");
        let year = std::time::SystemTime::now() + std::time::Duration::from_secs(u64::try_from(days * 86_400 + 3600).unwrap());
        params.not_after = year.into();
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    fs::write(node.spec.join("ca.pem"), ca(12)).unwrap();
    node.run("apply").says(0, &[]);
    node.run("status").says(0, &["warning[expires-soon]", "short-lived", "runs out in 12 days"]);
    let status = node.run("status --output json").json();
    assert_eq!((&status["expiry"][0]["days"], &status["expiry"][0]["role"]), (&Value::from(12), &Value::from("ca")));
}
