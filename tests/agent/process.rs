//! The process itself, on a scratch root: what it does with files, signals and the notify socket.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use nodeprep::agent::state::{Cause, Fault, Mode, Phase};

use crate::node::{Node, names, spec, wait};

/// The quiet time is for people who edit.
const QUICK: [&str; 2] = ["--quiet", "10ms"];

#[test]
fn a_changed_file_is_in_effect() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    let file = node.path("spec/spec.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    command.env_clear().env("NODEPREP_SPEC", file).env("NODEPREP_ROOT", node.path("node")).arg("agent");
    node.run(command);
    node.until_port(5000);
    // written over
    node.put("spec/spec.toml", &spec(5001));
    node.until_port(5001);
    // as editors do it
    node.put("spec/.spec.toml.swp", &spec(5002));
    fs::rename(node.path("spec/.spec.toml.swp"), node.path("spec/spec.toml")).unwrap();
    node.until_port(5002);
    let state = node.until("converged", |state| state.converged && state.phase == Phase::Idle);
    assert!(state.causes.get(&Cause::Spec).is_some_and(|count| *count >= 2), "{state:#?}");
    let mode = fs::metadata(node.path("node/run/nodeprep/agent.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(&node.path("node/run/nodeprep")), ["agent.json", "agent.lock", "health.sock"]);
}

#[test]
fn a_mounted_config_map_and_a_secret_beside_it() {
    let certificate = || {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        ca.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    let with_ca = |port| format!("{}[[ca]]\nname = 'root'\nfile = 'root.pem'\n", spec(port));
    let (old, new) = (certificate(), certificate());
    let mut node = Node::new();
    node.mount("spec", &[("spec.toml", &with_ca(5000))]);
    node.mount("secret", &[("root.pem", &old)]);
    let secret = node.path("secret").display().to_string();
    node.start(&["--material", &secret]);
    node.until_port(5000);
    node.mount("spec", &[("spec.toml", &with_ca(5001))]);
    node.until_port(5001);
    // the trust store's command is not there: its refresh stays due
    let first = node.until("at rest", |state| state.spec.applied.is_some() && state.phase == Phase::Idle).spec.applied;
    node.mount("secret", &[("root.pem", &new)]);
    let state = node.until("another spec", |state| state.spec.applied.is_some() && state.spec.applied != first);
    assert_eq!(state.last_pass.unwrap().cause, Cause::Spec);
    let anchors = node.path("node/usr/local/share/ca-certificates");
    let there: Vec<String> = names(&anchors).iter().map(|name| fs::read_to_string(anchors.join(name)).unwrap().trim().to_owned()).collect();
    assert_eq!(there, [new.trim()]);
}

/// A folder that is emptied or goes away, and a spec that is broken: the node stays as it is, which is said.
#[test]
fn without_a_spec_the_node_stays_as_it_is() {
    type Break = fn(&Node);
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    node.until_port(5000);
    let before = node.hosts();
    let breaks: [(&str, Break); 4] = [
        ("no TOML", |node| node.put("spec/spec.toml", "version = [")),
        ("holds no document", |node| fs::remove_file(node.path("spec/spec.toml")).unwrap()),
        ("cannot be read", |node| fs::remove_dir_all(node.path("spec")).unwrap()),
        ("fallback", |node| node.put("spec/spec.toml", "version = 1\n")),
    ];
    for (what, begin) in breaks {
        begin(&node);
        let state = node.until(what, |state| {
            let said = state.last_pass.as_ref().and_then(|pass| pass.problems.first()).is_some_and(|problem| problem.what.contains(what));
            said && state.failing.is_some_and(|failing| failing.kind == Fault::Spec)
        });
        assert!(state.says.contains("the node stays as it is") && !state.converged, "{state:#?}");
        assert_eq!(node.hosts(), before, "{what}");
    }
    node.put("spec/spec.toml", &spec(5001));
    node.until_port(5001);
    node.until("converged", |state| state.converged && state.failing.is_none());
}

/// Ready is not said before the node is as the spec says; a reload is said, and that it is over; and what is told in between is true.
#[test]
fn systemd_hears_how_it_is() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    let heard = node.hear_until("READY=1");
    assert!(heard.iter().any(|line| line == "STATUS=the first pass runs\n" || line == "STATUS=the first pass runs"), "{heard:?}");
    assert!(node.hosts().contains(":5000/"));
    let heard = node.hear_until("STATUS=");
    assert!(heard.last().unwrap().starts_with("STATUS=as the spec says"), "{heard:?}");
    node.signal(Signal::SIGHUP);
    let heard = node.hear_until("READY=1");
    let reloading = heard.iter().find(|line| line.contains("RELOADING=1")).unwrap();
    assert!(reloading.contains("MONOTONIC_USEC="), "{heard:?}");
    node.put("spec/spec.toml", "version = [");
    let heard = node.hear_until("the spec cannot be used");
    assert!(heard.last().unwrap().contains("the node stays as it is"), "{heard:?}");
    node.signal(Signal::SIGTERM);
    node.hear_until("STOPPING=1");
    assert!(node.ended().success());
    let state = node.state();
    assert_eq!((state.phase, state.pid), (Phase::Stopped, 0));
}

/// A spec that is broken from the beginning is no reason not to be ready.
#[test]
fn a_broken_spec_does_not_keep_it_from_being_ready() {
    let mut node = Node::new();
    node.start(&[]);
    node.hear_until("READY=1");
    let state = node.until("failing", |state| state.failing.is_some());
    assert!(state.says.contains("holds no document"), "{state:#?}");
}

#[test]
fn what_others_change_is_put_right() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    node.until_port(5000);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    let before = node.hosts();
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    let state = node.until("repaired", |state| state.converged && state.drift.repaired > 0);
    assert_eq!((node.hosts(), state.drift.conflicts.len()), (before, 0));
    assert!(state.drift.found > 0 && state.drift.paths.is_empty(), "{state:#?}");
}

#[test]
fn what_others_change_is_left_while_a_package_manager_is_at_work() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    // as dpkg locks it; of this process, which is another one than the agent
    let lock = fs::File::options().write(true).open(node.path("node/var/lib/dpkg/lock")).unwrap();
    let (kind, whence) = (i16::try_from(nix::libc::F_WRLCK).unwrap(), i16::try_from(nix::libc::SEEK_SET).unwrap());
    let record = nix::libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
    nix::fcntl::fcntl(&lock, nix::fcntl::FcntlArg::F_SETLK(&record)).unwrap();
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    let state = node.until("waiting", |state| state.drift.left.contains("at work"));
    assert!(state.drift.left.contains(&format!("dpkg (process {})", std::process::id())), "{state:#?}");
    assert_eq!(node.hosts(), "");
    drop(lock);
    node.until("repaired", |state| state.converged && state.drift.repaired > 0);
    assert!(node.hosts().contains(":5000/"));
}

#[test]
fn what_others_change_is_only_reported_where_that_was_asked_for() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&["--quiet", "10ms", "--drift", "report"]);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    fs::remove_dir_all(node.path("node/etc/containerd/certs.d/docker.io")).unwrap();
    let state = node.until("reported", |state| !state.drift.left.is_empty());
    assert!(!state.converged && state.drift.paths.iter().any(|path| path.ends_with("docker.io/hosts.toml")), "{state:#?}");
    assert_eq!(node.hosts(), "");
}

/// A runtime that is installed later is configured.
#[test]
fn a_runtime_that_comes_later_is_configured() {
    let mut node = Node::bare();
    fs::remove_file(node.path("node/var/lib/dpkg/status")).unwrap();
    fs::create_dir_all(node.path("node/usr/bin")).unwrap();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&QUICK);
    node.hear_until("READY=1");
    assert_eq!(node.hosts(), "");
    node.put("node/usr/bin/containerd", "");
    node.until_port(5000);
    let state = node.until("at rest", |state| state.converged);
    assert_eq!(state.drift.found, 0, "that is no drift");
}

#[test]
fn one_agent_on_a_node() {
    let mut node = Node::new();
    node.put("spec/spec.toml", &spec(5000));
    node.start(&[]);
    node.hear_until("READY=1");
    let second = node.command(&[]).stderr(Stdio::null()).output().unwrap();
    assert_eq!(second.status.code(), Some(75), "{second:?}");
    assert!(String::from_utf8_lossy(&second.stdout).contains("agent.lock"), "{second:?}");
}

/// A pass that is waiting for an endpoint: it does not end before somebody closes that.
fn slow(node: &mut Node) -> TcpListener {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    node.put("spec/spec.toml", &spec(0).replace("registry.example.com:0", &format!("127.0.0.1:{port}")));
    let mut command = node.command(&["--probe", "require"]);
    command.process_group(0);
    node.run(command);
    silent
}

/// What a pass has begun it ends by itself: the agent does not wait for it, and does not end it.
#[test]
fn told_to_end_it_ends_and_leaves_its_pass_alone() {
    let mut node = Node::new();
    let silent = slow(&mut node);
    let (held, _) = silent.accept().unwrap();
    let passes = node.processes("apply");
    assert_eq!(passes.len(), 1);
    // all of its group, as a terminal does it
    killpg(Pid::from_raw(i32::try_from(node.pid()).unwrap()), Signal::SIGTERM).unwrap();
    assert!(node.ended().success());
    assert_eq!(node.processes("apply"), passes);
    assert!(node.read("log").contains("goes on to its end by itself"), "{}", node.read("log"));
    drop((held, silent));
    wait(|| node.processes("apply").is_empty()).unwrap();
}

/// A pass that is killed is an event like another one.
#[test]
fn a_pass_that_is_killed_is_made_again() {
    let mut node = Node::new();
    let silent = slow(&mut node);
    let (held, _) = silent.accept().unwrap();
    node.put("spec/spec.toml", &spec(5000));
    kill(Pid::from_raw(node.processes("apply")[0]), Signal::SIGKILL).unwrap();
    drop((held, silent));
    let state = node.until("a crash", |state| state.passes.contains_key("crashed"));
    assert!(state.passes["crashed"] == 1, "{state:#?}");
    node.until("another one", |state| state.last_pass.as_ref().is_some_and(|pass| pass.mode == Mode::Apply && pass.exit_code.is_some()));
}

#[test]
fn what_cannot_be_is_told() {
    let node = Node::new();
    for (arguments, code, said) in [
        (&["--spec", "-"][..], 2, "standard input"),
        (&["--restart-window", "25:00-26:00"], 2, "no time of the day"),
        (&["--quiet", "5"], 2, "a number with its unit"),
        (&["--restart-budget", "0"], 2, "1..=60"),
        (&["--root", "/nonexistent"], 4, "cannot be opened"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        let output = command.env_clear().args(["agent"]).args(arguments).current_dir(node.path("")).output().unwrap();
        let text = [&output.stdout[..], &output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.code() == Some(code) && text.contains(said), "{arguments:?}: {output:?}");
    }
}
