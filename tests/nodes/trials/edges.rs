//! The way back on a node that lives, what a person at a terminal sees, and a canary beside a new pause image.

use anyhow::{Result, ensure};

use super::activation::{AUTO, CONFIG, text, unit, was};
use super::{UNIT, converged, mirror, spec};
use crate::certificate::Authority;
use crate::world::World;

const REVERT: [&str; 3] = ["revert", "--health-timeout", "20"];
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// A config.toml that was not there before goes before containerd is restarted for that: it runs without it.
pub fn made_config(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.offline(&["rm", CONFIG])?;
    world.node.boot()?;
    let before = world.files()?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(world.node.exists(CONFIG), "there is no config.toml: {:#}", run.report);
    world.pulls()?;
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&REVERT)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.due().is_empty() && world.node.start_of(UNIT)?.pid != start.pid, "{:#}", run.report);
    let differences = crate::tree::differences(&before, &world.files()?);
    ensure!(differences.is_empty(), "after revert:\n{}", differences.join("\n"));
    mirror.asked();
    world.upstream.take();
    ensure!(world.pull()?.is_err() && mirror.asked().is_empty(), "it runs with the file that is gone");
    ensure!(!world.upstream.take().is_empty(), "the upstream is not asked");
    let run = world.done(&REVERT)?;
    ensure!(run.changed().is_empty() && unit(&run, UNIT).is_none(), "a second revert: {:#}", run.report);
    Ok(())
}

/// Somebody else's registry is believed by the OS trust store alone: its CA goes from the bundle, and a daemon that has read that is
/// restarted; under `never` it is said.
pub fn without_ca(world: &mut World) -> Result<()> {
    let theirs =
        "server = \"https://mirror.example:5000\"\n[host.\"https://mirror.example:5000\"]\ncapabilities = [\"pull\", \"resolve\"]\n";
    mirror(world)?;
    // its config.toml looks into certs.d already, so that nothing but the trust store is a reason to restart it
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    world.node.write(CONFIG, 0o644, config)?;
    world.node.write("/etc/containerd/certs.d/other.example/hosts.toml", 0o644, theirs)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(holds(world, &world.ca)?, "the CA is not in the bundle");
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&[&REVERT[..], &["--activate", "never"]].concat())?;
    ensure!(!holds(world, &world.ca)?, "the CA is still in the bundle");
    ensure!(run.due() == ["restart containerd.service"], "it goes on believing the CA, and nobody says so: {:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    let run = world.done(&AUTO)?;
    ensure!(holds(world, &world.ca)? && run.due().is_empty(), "{:#}", run.report);
    let run = world.done(&REVERT)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(!holds(world, &world.ca)? && run.due().is_empty(), "{:#}", run.report);
    Ok(())
}

fn holds(world: &World, authority: &Authority) -> Result<bool> {
    Ok(world.node.read(BUNDLE)?.contains(authority.pair.certificate.trim()))
}

/// On a live node with `never`: nothing is touched, what is due is said with exit code 0, and a later run does it.
pub fn never(world: &mut World) -> Result<()> {
    converged(world)?;
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&["revert", "--activate", "never"])?;
    ensure!(run.due() == ["restart containerd.service"], "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    let run = world.done(&REVERT)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.due().is_empty() && world.node.start_of(UNIT)?.pid != start.pid, "{:#}", run.report);
    let run = world.done(&REVERT)?;
    ensure!(unit(&run, UNIT).is_none() && run.due().is_empty(), "{:#}", run.report);
    Ok(())
}

/// What takes long is said while it goes on, and only to a terminal.
pub fn progress(world: &mut World) -> Result<()> {
    mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let words = ["refreshing the ", "restart of containerd.service", "waiting until containerd.service is well"];
    let output = world.node.try_run(&["script", "--quiet", "--return", "--command", "nodeprep apply --health-timeout 20", "/dev/null"])?;
    let seen = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(output.status.success(), "{}: {seen}", output.status);
    for word in words {
        ensure!(seen.contains(word), "nothing says {word:?}:\n{seen}");
    }
    // in a pipe nobody hears of it
    world.node.run(&["nodeprep", "revert", "--health-timeout", "20"])?;
    let output = world.node.try_run(&["nodeprep", "apply", "--health-timeout", "20"])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && words.iter().all(|word| !said.contains(word)) && !said.contains('\u{1b}'), "{said}");
    Ok(())
}

/// A daemon that runs and whose unit nobody may start: it is left, and what is said is what is to be done.
pub fn masked(world: &mut World) -> Result<()> {
    mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let start = world.node.start_of(UNIT)?;
    world.node.run(&["systemctl", "mask", "--runtime", UNIT])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 9 && run.due() == ["restart containerd.service"], "{:#}", run.report);
    let due = run.report["due"].to_string();
    ensure!(due.contains("masked") && due.contains("systemctl unmask"), "{due}");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    world.node.run(&["systemctl", "unmask", "--runtime", UNIT])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")
}

/// What is read where nothing can be written, or there is no room: nothing is changed, and the message names the path.
pub fn no_room(world: &mut World) -> Result<()> {
    mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let (start, before) = (world.node.start_of(UNIT)?, world.files()?);
    world.node.run(&["mount", "--bind", "/etc/containerd", "/etc/containerd"])?;
    world.node.run(&["mount", "-o", "remount,ro,bind", "/etc/containerd"])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(
        run.code == 4 && text(&run).contains("/etc/containerd") && text(&run).to_lowercase().contains("read-only"),
        "{}: {}",
        run.code,
        text(&run)
    );
    world.node.run(&["umount", "/etc/containerd"])?;
    world.node.run(&["mkdir", "-p", "/var/lib/nodeprep"])?;
    world.node.run(&["mount", "-t", "tmpfs", "-o", "size=4k,mode=700", "tmpfs", "/var/lib/nodeprep"])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 4 && text(&run).to_lowercase().contains("no space left"), "{}: {}", run.code, text(&run));
    world.node.run(&["umount", "/var/lib/nodeprep"])?;
    let left = world.node.run(&["ls", "-A", "/var/lib/nodeprep"])?;
    ensure!(left.split_whitespace().eq(["audit.log", "lock"]), "of a run that has changed nothing is left: {left}");
    world.node.run(&["rm", "-r", "/var/lib/nodeprep"])?;
    let differences = crate::tree::differences(&before, &world.files()?);
    ensure!(differences.is_empty() && world.node.start_of(UNIT)? == start, "{}", differences.join("\n"));
    world.done(&AUTO)?;
    world.pulls()
}
