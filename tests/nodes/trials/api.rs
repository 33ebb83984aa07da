//! Podman's API service: the one Podman that lasts, and keeps what it has read of registries.conf.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::activation::{unit, was};
use super::{mirror, spec};
use crate::certificate::Authority;
use crate::world::{Registry, World};

const UNIT: &str = "podman.service";
const AUTO: [&str; 4] = ["apply", "--health-timeout", "20", "--allow-shrink"];
const LONG: Duration = Duration::from_secs(60);

/// Starts a unit and waits until it answers on its socket; before that the signal would end it.
pub fn serves(world: &World, socket: &str) -> Result<()> {
    let begun = Instant::now();
    while !world.node.try_run(&["curl", "--silent", "--fail", "--unix-socket", socket, "http://d/_ping"])?.status.success() {
        ensure!(begun.elapsed() < LONG, "the API service does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Pulls through it; whether these registries were asked.
pub fn pulls<const N: usize>(world: &World, socket: &str, registries: [&Registry; N]) -> Result<[bool; N]> {
    world.node.run(&["podman", "rmi", "--all", "--force"])?;
    for registry in registries {
        registry.asked();
    }
    world.upstream.take();
    let url = "http://d/v4.0.0/libpod/images/pull?quiet=true&reference=docker.io/library/hello:1";
    let said = world.node.run(&["curl", "--silent", "--unix-socket", socket, "--request", "POST", url])?;
    let asked = registries.map(|registry| !registry.asked().is_empty());
    let pulled = said.contains("\"id\"");
    ensure!(pulled == (asked.contains(&true)), "{said}: {asked:?}");
    ensure!(pulled == world.upstream.take().is_empty(), "{said}: who was asked?");
    Ok(asked)
}

/// A changed registries.conf is read after a signal, without a new process; a changed trust store takes one, where something relies on
/// it; and where no API service runs nothing is done.
pub fn service(world: &mut World) -> Result<()> {
    const SOCKET: &str = "/run/podman/podman.sock";
    let second = world.registry("second.example", "127.0.0.3:5000", "docker.io/library/hello")?;
    let first = mirror(world)?;
    let to_second = spec(&["fleet"]).replace("mirror.example:5000/docker.io", "second.example:5000/docker.io");
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.offline(&["systemctl", "disable", "containerd.service"])?;
    // the distribution's unit, which does not go when nobody has asked for a while
    let lasting = "[Service]\nExecStart=\nExecStart=/usr/bin/podman $LOGGING system service --time=0\n";
    world.node.write("/etc/systemd/system/podman.service.d/trial.conf", 0o644, lasting)?;
    world.node.boot()?;
    world.node.run(&["systemctl", "start", "podman.socket", UNIT])?;
    serves(world, SOCKET)?;
    let start = world.node.start_of(UNIT)?;
    ensure!(pulls(world, SOCKET, [&first, &second])? == [false, false], "there is nothing yet to pull from");

    let run = world.done(&["apply", "--activate", "never"])?;
    ensure!(run.due() == ["reload podman.service"], "{:#}", run.report);
    ensure!(pulls(world, SOCKET, [&first, &second])? == [false, false], "it should not know of the new files");
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "reload", "done")?;
    ensure!(pulls(world, SOCKET, [&first, &second])? == [true, false], "it has not read them");
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "a second run: {:#}", run.report);
    // another one, under a unit of somebody's own
    world.node.run(&["systemd-run", "--quiet", "--unit=trial", "podman", "system", "service", "--time=0", "unix:///run/trial.sock"])?;
    world.node.run(&["systemctl", "stop", UNIT, "podman.socket"])?;
    serves(world, "/run/trial.sock")?;
    world.spec(&to_second, &[])?;
    let run = world.done(&AUTO)?;
    was(&run, "trial.service", "reload", "done")?;
    ensure!(unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(pulls(world, "/run/trial.sock", [&first, &second])? == [false, true], "it has not read them");
    world.node.run(&["systemctl", "stop", "trial.service"])?;
    world.node.run(&["systemctl", "start", "podman.socket", UNIT])?;
    serves(world, SOCKET)?;
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "it was never stopped");

    // somebody's registry without a CA file of its own is verified by the trust store, which a process reads once
    let start = world.node.start_of(UNIT)?;
    let theirs = "[[registry]]\nprefix = \"other.example\"\nlocation = \"other.example\"\n";
    world.node.write("/etc/containers/registries.conf.d/50-theirs.conf", 0o644, theirs)?;
    let next = Authority::new("the next CA")?;
    let two = to_second.replace("\n[[mirror]]", "\n[[ca]]\nname = \"next\"\nfile = \"next.pem\"\n\n[[mirror]]");
    world.spec(&two, &[("next.pem", &next)])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "it was not restarted");
    // each command is a new process
    world.node.run(&["systemctl", "stop", "podman.socket", UNIT])?;
    world.spec(&spec(&["fleet", "next"]), &[])?;
    let run = world.done(&AUTO)?;
    ensure!(!run.changed().is_empty() && run.due().is_empty(), "{:#}", run.report);
    ensure!(run.report["units"].as_array().is_none_or(Vec::is_empty), "{:#}", run.report);
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "it was started");
    Ok(())
}
