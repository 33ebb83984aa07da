//! What nodeprep knows about a node with units and processes.

use anyhow::{Result, ensure};

use super::{UNIT, mirror, spec};
use crate::world::{APPLY, World};

/// A daemon that somebody has stopped is due nothing, stays stopped, and has everything when it is started.
pub fn stopped(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    world.node.run(&["systemctl", "stop", UNIT])?;
    let cursor = world.node.cursor()?;
    let run = world.done(&APPLY)?;
    ensure!(run.changed().contains(&"/etc/containerd/config.toml"), "{run}");
    ensure!(run.due().is_empty(), "something is due to a daemon that is stopped, already when its file changes: {run}");
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "something is due to a daemon that is stopped: {run}");
    let found = run.runtime("containerd")?;
    ensure!(found["running"].is_null() && found["installed"].is_string(), "{found:#}");
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "it was started");
    let journal = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(journal.is_empty(), "systemd did something to {UNIT}:\n{journal}");

    world.node.run(&["systemctl", "start", UNIT])?;
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "after the start: {run}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    Ok(())
}

/// Where a drop-in of the unit names another configuration file, that one is edited, and the default stays as it is.
pub fn drop_in(world: &mut World) -> Result<()> {
    const CONFIG: &str = "/etc/containerd/fleet.toml";
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    let default = world.node.read("/etc/containerd/config.toml")?;
    world.node.write(CONFIG, 0o644, &default)?;
    let exec = format!("[Service]\nExecStart=\nExecStart=/usr/bin/containerd --log-level debug --config {CONFIG}\n");
    world.node.write("/etc/systemd/system/containerd.service.d/10-fleet.conf", 0o644, exec)?;
    world.node.boot()?;
    // From the process, and from the unit when there is none.
    for command in ["start", "stop"] {
        world.node.run(&["systemctl", command, UNIT])?;
        let run = world.nodeprep(&["plan"])?;
        let found = run.runtime("containerd")?;
        ensure!(found["config"] == CONFIG && found["running"].is_null() == (command == "stop"), "after {command}: {found:#}");
    }
    let run = world.done(&APPLY)?;
    ensure!(run.changed().contains(&CONFIG), "{run}");
    ensure!(world.node.read("/etc/containerd/config.toml")? == default, "the default file was edited");
    world.node.run(&["systemctl", "start", UNIT])?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    Ok(())
}

/// A package was upgraded and the daemon not restarted: what is on disk is not taken for what runs.
pub fn upgrade(world: &mut World) -> Result<()> {
    let Some((version, program)) = crate::containerds().into_iter().next() else { return Ok(()) };
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    mirror(world)?;
    world.node.boot()?;
    let before = world.nodeprep(&["plan"])?;
    let found = before.runtime("containerd")?;
    ensure!(found["running"]["version"] == found["installed"], "{found:#}");
    ensure!(found["running"]["pid"] == world.node.start_of(UNIT)?.pid.parse::<u32>()?, "{found:#}");
    ensure!(found["unit"] == UNIT, "{found:#}");
    let old = found["installed"].clone();

    world.node.install(&program, "/usr/bin/containerd")?;
    let run = world.nodeprep(&["plan"])?;
    let found = run.runtime("containerd")?;
    ensure!(found["installed"] == version.as_str(), "{found:#}");
    ensure!(!found["running"].is_null(), "the daemon was lost sight of: {found:#}");
    let running = &found["running"]["version"];
    ensure!(running.is_null() || *running == old, "{version} is on disk, but it is not what runs: {found:#}");

    world.node.run(&["systemctl", "restart", UNIT])?;
    let run = world.nodeprep(&["plan"])?;
    let found = run.runtime("containerd")?;
    ensure!(found["running"]["version"] == version.as_str(), "{found:#}");
    Ok(())
}
