//! What is watched: never too much, nothing missed, and what is done where the kernel has no watches left.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use nodeprep::agent::state::Phase;

use crate::node::{Node, names, spec, wait};

const QUICK: [&str; 2] = ["--quiet", "10ms"];

/// The watches that a process holds, as the kernel counts them.
fn held(pid: u32) -> usize {
    let folder = format!("/proc/{pid}/fdinfo");
    let texts = names(folder.as_ref()).into_iter().map(|name| fs::read_to_string(format!("{folder}/{name}")).unwrap_or_default());
    texts.map(|text| text.lines().filter(|line| line.starts_with("inotify wd:")).count()).sum()
}

/// The budget of watches is kubelet's, too: 64 are enough, and what has none is looked at from time to time.
#[test]
fn at_most_64_watches() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    let state = node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    assert!(state.watches.count > 0 && state.watches.polling.is_empty(), "{state:#?}");
    assert_eq!(held(node.pid()), usize::try_from(state.watches.count).unwrap());
    // a file beside the spec is somewhere else, each in a folder of its own
    for number in 0..80 {
        node.put(&format!("certs/{number}/ca.pem"), "");
        symlink(format!("../certs/{number}/ca.pem"), node.path(&format!("spec/{number}.pem"))).unwrap();
    }
    let state = node.until("too many", |state| !state.watches.polling.is_empty() && state.converged && state.phase == Phase::Idle);
    assert!(state.watches.polling.contains("more than 64 folders") && state.watches.count == 64, "{state:#?}");
    assert_eq!(held(node.pid()), 64);
    assert!(node.read("log").contains("not everything can be watched"), "{}", node.read("log"));
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    node.until_port(5000);
    for number in 0..80 {
        fs::remove_file(node.path(&format!("spec/{number}.pem"))).unwrap();
    }
    node.until("all watched", |state| state.watches.polling.is_empty() && state.watches.count < 64);
    assert!(held(node.pid()) < 64);
}

/// Who has missed something reads everything again.
#[test]
fn a_queue_that_runs_over() {
    let most: usize = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    node.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", node.pid());
    wait(|| fs::read_to_string(&stat).unwrap().contains(") T ")).unwrap();
    // a name that does not count, in a folder of which another one does
    let other = node.path("node/usr/bin/other");
    for _ in 0..most / 2 {
        fs::write(&other, "").unwrap();
        fs::remove_file(&other).unwrap();
    }
    // nobody hears of this
    node.put("spec/spec.toml", &spec(5001));
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    node.signal(Signal::SIGCONT);
    node.until_port(5001);
}

/// What the spec references is part of it, beside it or on the node.
#[test]
fn what_is_referenced_is_watched() {
    let certificate = || {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    let [one, two, three, four] = [certificate(), certificate(), certificate(), certificate()];
    let mut node = Node::new();
    let ca = |name, file| format!("[[ca]]\nname = '{name}'\nfile = '{file}'\n");
    node.put("spec/spec.toml", &format!("{}{}{}", spec(5000), ca("beside", "certs/a.pem"), ca("node", "node:/etc/pki/site/b.pem")));
    node.put("spec/certs/a.pem", &one);
    node.put("node/etc/pki/site/b.pem", &two);
    let command = node.command_for(node.path("spec/spec.toml").to_str().unwrap(), &QUICK);
    node.run(command);
    let anchors = |wanted: [&String; 2]| {
        let folder = node.path("node/usr/local/share/ca-certificates");
        let mut there = Vec::new();
        wait(|| {
            there = names(&folder).iter().map(|name| fs::read_to_string(folder.join(name)).unwrap_or_default()).collect();
            there.len() == 2 && wanted.iter().all(|wanted| there.iter().any(|text| text.trim() == wanted.trim()))
        })
        .unwrap_or_else(|()| panic!("{there:?} {:#?}\n{}", node.state(), node.read("log")));
    };
    anchors([&one, &two]);
    node.put("spec/certs/a.pem", &three);
    anchors([&three, &two]);
    node.put("node/etc/pki/site/new.pem", &four);
    fs::rename(node.path("node/etc/pki/site/new.pem"), node.path("node/etc/pki/site/b.pem")).unwrap();
    anchors([&three, &four]);
}

/// Runs an agent for which the kernel has none of this, and changes its spec.
fn without(limit: &str, said: &str) {
    let own = format!("echo 0 > /proc/sys/user/{limit}");
    let can = Command::new("unshare").args(["--user", "--map-root-user", "sh", "-c", &own]).stderr(Stdio::null()).status();
    if !can.is_ok_and(|status| status.success()) {
        eprintln!("skipped: there are no user namespaces here");
        return;
    }
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    let agent = node.command(&[]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &format!("{own} && exec \"$0\" \"$@\"")]);
    command.arg(agent.get_program()).args(agent.get_args());
    node.run(command);
    let state = node.until("said", |state| state.converged && !state.watches.polling.is_empty());
    assert!(state.watches.polling.contains(said) && state.watches.count == 0, "{state:#?}");
    assert!(node.read("log").contains("not everything can be watched"), "{}", node.read("log"));
    node.put("spec/spec.toml", &spec(5001));
    node.until_port(5001);
}

/// Where the kernel gives no watches, the agent looks from time to time, and says so.
#[test]
fn without_an_instance_it_looks_from_time_to_time() {
    without("max_inotify_instances", "fs.inotify.max_user_instances is reached");
}

#[test]
fn without_watches_it_looks_from_time_to_time() {
    without("max_inotify_watches", "fs.inotify.max_user_watches is reached");
}
