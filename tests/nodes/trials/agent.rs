//! The agent as systemd runs it, with the unit that is shipped.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nodeprep::agent::state::AgentState;

use super::{UNIT, mirror, spec};
use crate::world::World;

const AGENT: &str = "nodeprep.service";
const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";

fn state(world: &World) -> Result<AgentState> {
    let text = fs::read_to_string(world.node.inside()?.file(nodeprep::agent::state::STATE_FILE))?;
    serde_json::from_str(&text).context(text)
}

/// Waits until the agent sees itself so.
pub fn until(world: &World, what: &str, is: impl Fn(&AgentState) -> bool) -> Result<AgentState> {
    let begun = Instant::now();
    loop {
        let now = state(world);
        if let Ok(now) = now.as_ref()
            && is(now)
        {
            return Ok(now.clone());
        }
        ensure!(begun.elapsed() < Duration::from_secs(240), "never {what}: {now:#?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// It is ready after its first pass, restarts containerd once when that has its time, puts right what is changed, reloads, and ends
/// without being killed.
pub fn unit(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    let unit = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(AGENT))?;
    world.node.write(&format!("/etc/systemd/system/{AGENT}"), 0o644, unit)?;
    world.node.write("/etc/default/nodeprep", 0o644, "NODEPREP_RESTART_GATE=/run/go\nNODEPREP_RESTART_SPLAY=0\nNODEPREP_QUIET=100ms\n")?;
    world.node.boot()?;
    let start = world.node.start_of(UNIT)?;
    let cursor = world.node.cursor()?;

    world.node.run(&["systemctl", "start", AGENT])?;
    ensure!(world.node.read(HOSTS)?.contains("mirror.example:5000"), "it was ready before its first pass had ended");
    let waits = until(world, "waiting for the gate", |state| state.restart.is_some())?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was restarted although the gate is shut: {waits:#?}");
    until(world, "told that the gate is shut", |state| state.says.contains("the gate is shut"))?;
    let said = world.node.property(AGENT, "StatusText")?;
    ensure!(said.contains("the gate is shut"), "{said}");

    world.node.run(&["touch", "/run/go"])?;
    let done = until(world, "converged", |state| state.converged)?;
    ensure!(done.activations["restart"]["done"] == 1 && done.restarts.len() == 1, "{done:#?}");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.matches("Started").count() == 1, "not one start: {told}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was not pulled from the mirror");

    world.node.run(&["rm", "-r", "/etc/containerd/certs.d/docker.io"])?;
    until(world, "repaired", |state| state.converged && state.drift.repaired > 0)?;
    ensure!(world.node.read(HOSTS)?.contains("mirror.example:5000"), "it was not put right");

    world.node.run(&["systemctl", "reload", AGENT])?;
    world.node.write("/etc/nodeprep/spec.toml", 0o644, "version = [")?;
    until(world, "told of the spec", |state| state.failing.is_some())?;
    ensure!(world.node.property(AGENT, "StatusText")?.contains("the node stays as it is"), "systemd was not told");
    let warned = world.node.run(&["journalctl", "--quiet", "--output=cat", "--priority=warning", "--unit", AGENT])?;
    ensure!(warned.contains("invalid-spec") && !warned.contains("<4>"), "the journal has no priorities: {warned}");

    world.node.run(&["systemctl", "stop", AGENT])?;
    ensure!(world.node.property(AGENT, "Result")? == "success", "it did not end by itself");
    ensure!(world.node.property(AGENT, "NRestarts")? == "0", "it was started again");
    Ok(())
}
