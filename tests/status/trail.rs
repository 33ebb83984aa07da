//! The audit trail.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nodeprep::model::digest::Digest;
use nodeprep::model::path::NodePath;
use nodeprep::node::root::Root;
use nodeprep::node::trail::{append, tail};
use serde_json::Value;

use crate::node::{BINARY, Node, SECRETS, alone, must};
use crate::{HOSTS, TRAIL};

/// All lines of a node's trail; each is JSON and ends with a newline.
pub fn lines(node: &Node) -> Vec<Value> {
    let text = fs::read_to_string(node.at(TRAIL)).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "{text}");
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn of<'a>(lines: &'a [Value], event: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["event"] == event).collect()
}

#[test]
fn each_change_has_a_line() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    let after = node.picture(false);
    let all = lines(&node);
    let changed: Vec<String> = of(&all, "change").iter().map(|line| line["path"].as_str().unwrap().to_owned()).collect();
    let files = after.iter().filter(|(path, thing)| before.get(*path) != Some(*thing) && !node.at(path.to_str().unwrap()).is_dir());
    let mut want: Vec<String> = files.map(|(path, _)| format!("/{}", path.display())).collect();
    let mut got = changed.clone();
    want.sort();
    got.sort();
    assert_eq!(got, want);
    let ledger: Value = serde_json::from_str(&node.get("/var/lib/nodeprep/ledger.json")).unwrap();
    for line in of(&all, "change") {
        assert_eq!((&line["v"], &line["command"], &line["outcome"]), (&Value::from(1), &Value::from("apply"), &Value::from("applied")));
        assert_eq!((&line["spec"], &line["spec_digest"]), (&Value::from("default"), &ledger["spec"]["digest"]));
        let reason = line["reason"].as_str().unwrap();
        assert!(!reason.is_empty() && line["time"].as_str().unwrap().ends_with('Z') && line["run"].is_i64(), "{line}");
        // what is readable for all and wholly ours has a plain digest, everything else a keyed one
        let path = line["path"].as_str().unwrap();
        let bytes = fs::read(node.at(path)).unwrap();
        let open = fs::metadata(node.at(path)).unwrap().permissions().mode() & 0o004 != 0 && !path.ends_with("config.toml");
        let plain = Value::from(format!("sha256:{}", Digest::of(&bytes)));
        assert_eq!(line["after"] == plain, open, "{line}");
        assert!(open || line["after"].as_str().unwrap().starts_with("hmac-sha256:"), "{line}");
    }
    let runs = of(&all, "run");
    assert_eq!((runs.len(), &runs[0]["outcome"], &runs[0]["changes"]), (1, &Value::from("converged"), &Value::from(changed.len())));
    assert_eq!(fs::metadata(node.at(TRAIL)).unwrap().permissions().mode() & 0o777, 0o600);
    // a run that finds the same leaves nothing
    node.run("apply").says(0, &[]);
    assert_eq!(lines(&node).len(), all.len());
    node.run("revert").says(0, &[]);
    let reverted = lines(&node).split_off(all.len());
    assert_eq!(of(&reverted, "change").len(), changed.len());
    assert_eq!((of(&reverted, "pause").len(), &of(&reverted, "run")[0]["command"]), (1, &Value::from("revert")));
}

/// Whatever a run ends with that is not what the one before ended with.
#[test]
fn a_refusal_has_one_line_however_often() {
    let node = Node::new();
    node.put(HOSTS, "server = \"https://theirs.example\"\n");
    for _ in 0..3 {
        node.run("apply").says(5, &[]);
    }
    let conflicts: Vec<Value> = lines(&node).into_iter().filter(|line| line["outcome"] == "conflict").collect();
    assert_eq!(conflicts.len(), 1);
    assert!(conflicts[0]["reason"].as_str().unwrap().contains(HOSTS) && conflicts[0]["exit_code"] == 5);
    fs::remove_dir_all(node.at("/etc/containerd/certs.d")).unwrap();
    node.run("apply").says(0, &[]);
    node.run("apply").says(0, &[]);
    assert_eq!(of(&lines(&node), "run").len(), 2);
}

#[test]
fn no_secret_is_in_it() {
    let node = Node::new();
    let config = "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry.configs.'old.example'.auth]\nusername = 'spec'\npassword = 'foreign-s3cret'\n";
    node.put("/etc/containerd/config.toml", config);
    node.run("apply --foreign replace").says(0, &[]);
    node.put(HOSTS, "[host.'https://x.example'.header]\nAuthorization = 'Basic c3BlYzpzM2NyZXQ='\n");
    node.run("apply").says(0, &[]);
    node.run("revert").says(0, &[]);
    let text = node.get(TRAIL);
    let key = fs::read_to_string(node.spec.join("node.key")).unwrap();
    let secrets = SECRETS.iter().copied().chain(key.lines().filter(|line| !line.contains("-----")));
    for secret in secrets {
        assert!(!text.contains(secret), "{secret} is in the trail");
    }
    // nor a digest by which a guess could be confirmed
    for (path, content) in [("/etc/containerd/config.toml", config.to_owned()), ("/etc/nodeprep/pki/client", key)] {
        let plain = Digest::of(content.as_bytes()).to_string();
        assert!(!text.contains(&plain) && text.contains(path), "the plain digest of {path} is in the trail");
    }
}

#[test]
fn what_a_crash_has_torn_is_cut_off() {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    let whole = lines(&node).len();
    let mut file = fs::OpenOptions::new().append(true).open(node.at(TRAIL)).unwrap();
    file.write_all(b"{\"v\":1,\"time\":\"2026-").unwrap();
    // a reader counts lines with their newline
    let status = node.run("status --output json").json();
    assert_eq!(status["last_run"]["outcome"], "converged");
    node.run("pause --reason test").says(0, &[]);
    assert_eq!(lines(&node).len(), whole + 1);
}

/// However little of it is read, what is read are whole lines.
#[test]
fn its_end_is_whole_lines() {
    let node = Node::new();
    let (root, state) = (Root::open(&node.root).unwrap(), NodePath::fixed("/var/lib/nodeprep"));
    append(&root, &state, "first\nsecond\nthird\n").unwrap();
    for (most, said) in [
        (0, ""),
        (5, ""),
        (8, "third\n"),
        (13, "third\n"),
        (14, "second\nthird\n"),
        (17, "second\nthird\n"),
        (19, "first\nsecond\nthird\n"),
    ] {
        assert_eq!(tail(&root, &state, most).unwrap(), said, "{most}");
    }
}

/// A run that cannot write it goes on, and says so.
#[test]
fn no_run_fails_because_of_it() {
    let node = Node::new();
    fs::create_dir_all(node.at(TRAIL)).unwrap();
    let run = node.run("apply");
    run.says(0, &["changes made", "warning[audit-failed]", "audit.log"]);
    let report = node.run("revert --output json").json();
    assert!(report["problems"].as_array().unwrap().iter().any(|problem| problem["code"] == "audit-failed"), "{report}");
}

#[test]
fn a_full_disk_leaves_no_half_line() {
    alone("trail::a_full_disk_leaves_no_half_line", || {
        let node = Node::new();
        let state = node.at("/var/lib/nodeprep");
        fs::create_dir_all(&state).unwrap();
        must(&["mount", "-t", "tmpfs", "-o", "size=64k", "none", state.to_str().unwrap()]);
        let root = Root::open(&node.root).unwrap();
        let at = NodePath::fixed("/var/lib/nodeprep");
        append(&root, &at, "{\"first\":1}\n").unwrap();
        fs::write(state.join("fills"), vec![0; 48 << 10]).unwrap();
        let many = "{\"x\":1}\n".repeat(8 << 10);
        let error = append(&root, &at, &many).unwrap_err();
        assert!(error.to_string().contains("no space left"), "{error}");
        assert_eq!(node.get(TRAIL), "{\"first\":1}\n");
        append(&root, &at, "{\"second\":1}\n").unwrap();
        assert_eq!(node.get(TRAIL), "{\"first\":1}\n{\"second\":1}\n");
    });
}

#[test]
fn it_is_bounded() {
    let node = Node::new();
    fs::create_dir_all(node.at("/var/lib/nodeprep")).unwrap();
    let root = Root::open(&node.root).unwrap();
    let at = NodePath::fixed("/var/lib/nodeprep");
    let half = |number: u32| format!("{{\"number\":{number},\"text\":\"{}\"}}\n", "x".repeat(600 << 10));
    for number in 0..8 {
        append(&root, &at, &half(number)).unwrap();
    }
    let mut names: Vec<String> =
        fs::read_dir(node.at("/var/lib/nodeprep")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"]);
    for (number, name) in (3..8).rev().zip(names) {
        assert_eq!(node.get(&format!("/var/lib/nodeprep/{name}")), half(number));
    }
}

/// Killed at any point (each third is tried: `crash_cli` tries all of them), the next run writes what of the first was done: each path that changed has a line, and none says what was
/// not done.
#[test]
fn a_run_that_is_killed_is_made_up_for() {
    let document = "version = 1\nfallback = \"upstream\"\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n";
    let mut ended = false;
    let mut cut_off = 0;
    for point in (1..400).step_by(3) {
        let node = Node::new();
        node.document(document);
        let mut apply = Command::new(BINARY);
        apply.args(["apply", "--root"]).arg(&node.root).arg("--spec").arg(&node.spec).env_clear();
        let output = apply.env("NODEPREP_CHECKPOINT", point.to_string()).output().unwrap();
        let before = node.picture(false);
        // what the killed one came to write is whole
        let text = fs::read_to_string(node.at(TRAIL)).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |at| at + 1);
        assert!(text[..whole].lines().all(|line| serde_json::from_str::<Value>(line).is_ok()), "{point}: {text}");
        if output.status.code().is_some() {
            ended = true;
            break;
        }
        // what it has left on both sides is no drift: nobody else has changed anything
        let status = node.run("status --output json").json();
        assert_eq!(status["drift"], Value::Array(Vec::new()), "{point}");
        node.run("apply").says(0, &[]);
        let all = lines(&node);
        let changes = of(&all, "change");
        let mut paths: Vec<&str> = changes.iter().map(|line| line["path"].as_str().unwrap()).collect();
        let count = paths.len();
        paths.sort_unstable();
        paths.dedup();
        assert_eq!(paths.len(), count, "{point}: a change is told twice: {all:#?}");
        for path in ["/etc/containerd/certs.d/quay.io/hosts.toml", "/etc/containerd/config.toml"] {
            assert!(paths.contains(&path), "{point}: no line for {path}");
        }
        for line in changes.iter().filter(|line| line["outcome"] == "cut-off") {
            cut_off += 1;
            let path = line["path"].as_str().unwrap().trim_start_matches('/');
            assert!(before.contains_key(std::path::Path::new(path)), "{point}: {path} was not there");
        }
    }
    assert!(ended && cut_off > 0, "{cut_off}");
}
