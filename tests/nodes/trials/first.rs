//! The first apply on a node whose containerd does not look into certs.d yet.

use anyhow::{Result, ensure};

use super::{UNIT, mirror, spec};
use crate::world::{APPLY, World};

/// It takes one restart, which is said until it has been done and which containers outlive, and nothing else.
pub fn config_path(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let start = world.node.start_of(UNIT)?;
    world.container("works")?;
    let containers = world.containers()?;
    ensure!(containers.len() == 1, "the container does not run: {containers:?}");
    ensure!(world.pull()?.is_err(), "there is nothing yet to pull from");
    ensure!(!world.upstream.take().is_empty(), "without a mirror the upstream is asked");

    for _ in 0..2 {
        let run = world.done(&APPLY)?;
        ensure!(run.due() == [RESTART], "after the first apply: {run}");
    }
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");

    world.node.run(&["systemctl", "restart", UNIT])?;
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "after the restart: {run}");
    let now = world.containers()?;
    ensure!(now == containers, "containers were {containers:?} and are {now:?}");
    mirror.asked();
    world.upstream.take();
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    let leaked = world.upstream.take();
    ensure!(leaked.is_empty(), "the upstream was asked: {leaked:?}");
    Ok(())
}

const RESTART: &str = "restart containerd.service";
