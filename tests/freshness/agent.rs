//! The agent tries endpoints and canaries from time to time.

use std::fs;
use std::process::{Child, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeprep::agent::settings::{MINUTE, splay};
use nodeprep::agent::state::{AgentState, Mode};
use nodeprep::model::digest::Digest;

use crate::node::Node;
use crate::registry::{Authority, Registry};

/// The name of a node whose place in the interval is near its beginning.
fn soon() -> String {
    let place = |id: &String| splay(Digest::of(id.as_bytes()), Some(Digest::of(b"probe")), MINUTE);
    (0..1_000_000).map(|number| format!("{number:032x}")).find(|id| place(id) < 200).unwrap()
}

struct Agent<'a> {
    node: &'a Node,
    child: Child,
}

impl<'a> Agent<'a> {
    fn start(node: &'a Node, words: &str) -> Self {
        let mut command = node.command(words);
        let log = fs::File::create(node.path("log")).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        Self { node, child }
    }

    fn until(&mut self, what: &str, is: impl Fn(&AgentState) -> bool) -> AgentState {
        loop {
            let state: AgentState = serde_json::from_str(&self.node.read("root/run/nodeprep/agent.json")).unwrap_or_default();
            if is(&state) {
                return state;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "it has ended before {what}: {}", self.node.read("log"));
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Told to end, it does.
    fn end(mut self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Agent<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn setting(registry: &Registry, authority: &Authority) -> Node {
    let node = Node::new(authority, &[registry], "[[canary]]\nimage = \"docker.io/library/canary:fresh\"\n");
    node.put("root/etc/machine-id", &format!("{}\n", soon()));
    fs::create_dir_all(node.path("textfiles")).unwrap();
    node
}

/// A mirror that is not fresh is told by the agent's state, `status`, the metrics and the textfile, and the node is as the spec says all the same.
#[test]
fn a_stale_mirror_is_told_and_changes_nothing() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = setting(&registry, &authority);
    let mut agent = Agent::start(&node, &format!("agent --probe-interval 1m --textfile-dir {}", node.path("textfiles").display()));
    let state = agent.until("a probe", |state| state.probe.is_some());
    let probe = state.probe.clone().unwrap();
    assert!(state.converged && state.failing.is_none(), "{state:#?}");
    assert_eq!((probe.outcome.as_str(), probe.exit_code, probe.endpoints, probe.unreachable), ("verify-failed", Some(8), 1, 0));
    let endpoint = format!("https://{}", registry.host);
    let canary = &probe.canaries[0];
    assert_eq!((canary.endpoint.as_str(), canary.fresh, canary.fresh_at), (endpoint.as_str(), Some(false), None));
    assert!(probe.problems.iter().any(|problem| problem.code == "canary" && problem.what.contains("manifest unknown (404)")), "{probe:#?}");
    let next = state.next_probe.unwrap().0 - probe.ended.0;
    assert!((MINUTE / 2 - 2000..=MINUTE * 3 / 2 + 2000).contains(&next), "{next}");
    node.run("status").says(0, &["endpoints: 1 endpoint tried at ", "canary:fresh is not fresh at ", "never seen fresh"]);
    let sample =
        format!("nodeprep_mirror_fresh{{image=\"docker.io/library/canary:fresh\",scheme=\"https\",host=\"{}\"}} 0\n", registry.host);
    node.run("status --metrics").says(0, &[&sample, "nodeprep_converged 1\n", "nodeprep_agent_last_probe_timestamp_seconds "]);
    agent.until("the textfile", |_| node.read("textfiles/nodeprep.prom").contains(&sample));
    assert!(node.read("textfiles/nodeprep.prom").contains("nodeprep_agent_last_probe_timestamp_seconds "));
    agent.end();
    let names: Vec<_> = fs::read_dir(node.path("textfiles")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["nodeprep.prom"]);
    // a later agent goes on with what is known
    let mut agent = Agent::start(&node, "agent --probe-interval 0");
    let state = agent.until("another agent", |state| state.last_pass.is_some() && state.pid == agent_pid(&node));
    assert!(state.probe.is_some() && state.next_probe.is_none(), "{state:#?}");
    agent.end();
}

fn agent_pid(node: &Node) -> u32 {
    let state: AgentState = serde_json::from_str(&node.read("root/run/nodeprep/agent.json")).unwrap_or_default();
    if state.pid == 0 { u32::MAX } else { state.pid }
}

/// A registry that takes connections and says nothing keeps no change of the spec waiting.
#[test]
fn a_change_does_not_wait_for_a_silent_registry() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = setting(&registry, &authority);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let spec = |port: u16, prefix: &str| {
        format!("version = 1\nfallback = 'never'\n[[mirror]]\nsource = 'docker.io'\nendpoints = ['127.0.0.1:{port}/{prefix}']\n")
    };
    node.document(&spec(port, "one"));
    let mut command = node.command("agent --probe-interval 1m --probe off");
    // far more than this takes: only giving way ends it
    command.env("NODEPREP_TIMEOUT", "600");
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(fs::File::create(node.path("log")).unwrap()).spawn().unwrap();
    let mut agent = Agent { node: &node, child };
    let (mut held, _) = silent.accept().unwrap();
    node.document(&spec(port, "two"));
    let state = agent.until("another spec", |state| {
        state.last_pass.as_ref().is_some_and(|pass| pass.mode == Mode::Apply && pass.changes > 0)
            && node.read("root/etc/containerd/certs.d/docker.io/hosts.toml").contains("/two")
    });
    assert!(state.probe.is_none(), "{state:#?}");
    // whoever asked is gone: what he sent has an end
    std::io::copy(&mut held, &mut std::io::sink()).unwrap_or_default();
    agent.end();
}
