//! Boots, orderly and not.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{UNIT, converged, mirror, spec};
use crate::world::{APPLY, World};

const APPLY_UNIT: &str = "nodeprep-apply.service";

/// A golden image with the unit enabled: at its first boot nodeprep has made the node true to the spec before containerd starts, so that it pulls at once. Then a
/// power cut, and the node pulls again.
pub fn first(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world
        .node
        .install(&Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(APPLY_UNIT), &format!("/lib/systemd/system/{APPLY_UNIT}"))?;
    world.node.offline(&["systemctl", "enable", APPLY_UNIT])?;
    for boot in ["the first boot", "a power cut", "a shutdown"] {
        world.node.boot()?;
        ensure!(world.node.property(APPLY_UNIT, "Result")? == "success", "after {boot}: {}", world.node.console());
        let ended = moment(world, APPLY_UNIT, "ExecMainExitTimestampMonotonic")?;
        let started = moment(world, UNIT, "ExecMainStartTimestampMonotonic")?;
        ensure!(0 < ended && ended <= started, "after {boot}: nodeprep ended at {ended} µs, containerd started at {started} µs");
        world.pulls().context(boot)?;
        ensure!(!mirror.asked().is_empty(), "after {boot}: the mirror was not asked");
        let run = world.done(&APPLY)?;
        ensure!(run.changed().is_empty() && run.due().is_empty(), "after {boot}: {run}");
        match boot {
            "the first boot" => world.node.kill(),
            "a power cut" => world.node.stop()?,
            _ => {}
        }
    }
    let leaked = world.upstream.take();
    ensure!(leaked.is_empty(), "the upstream was asked: {leaked:?}");
    Ok(())
}

/// Microseconds since the machine's boot.
fn moment(world: &World, unit: &str, property: &str) -> Result<u64> {
    let text = world.node.property(unit, property)?;
    text.parse().with_context(|| format!("{property} of {unit}: {text}"))
}

/// What is due is found again after a power cut, because it is derived and not remembered: after the boot nothing is, since containerd has started anew.
pub fn due(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let run = world.done(&APPLY)?;
    ensure!(run.due() == ["restart containerd.service"], "{run}");
    let id = world.node.run(&["cat", "/proc/sys/kernel/random/boot_id"])?;
    world.node.run(&["systemd-run", "--unit=left", "sleep", "1000"])?;
    world.node.kill();
    world.node.boot()?;
    ensure!(world.node.run(&["cat", "/proc/sys/kernel/random/boot_id"])? != id, "that was no other boot");
    ensure!(world.node.property("left.service", "LoadState")? == "not-found", "something has outlived the power cut");
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "after the boot: {run}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    Ok(())
}

/// The way back: every file is as it was, and the daemon has not been touched.
pub fn revert(world: &mut World) -> Result<()> {
    mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let (start, before) = (world.node.start_of(UNIT)?, world.files()?);
    let run = world.done(&APPLY)?;
    ensure!(run.changed().len() >= 4, "{run}");
    world.done(&["revert", "--activate", "never"])?;
    let differences = crate::tree::differences(&before, &world.files()?);
    ensure!(differences.is_empty(), "after revert:\n{}", differences.join("\n"));
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    Ok(())
}

/// The same from a node that has been working with it: containerd goes on, and after a restart the upstream is asked again.
pub fn revert_used(world: &mut World) -> Result<()> {
    let mirror = converged(world)?;
    let start = world.node.start_of(UNIT)?;
    let run = world.nodeprep(&["revert", "--activate", "never"])?;
    ensure!(run.code == 0, "{run}");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    world.node.run(&["systemctl", "restart", UNIT])?;
    mirror.asked();
    ensure!(world.pull()?.is_err() && mirror.asked().is_empty(), "the mirror is still asked");
    ensure!(!world.upstream.take().is_empty(), "the upstream is not asked");
    Ok(())
}
