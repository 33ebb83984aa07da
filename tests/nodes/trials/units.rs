//! What systemd does with units by itself: it counts starts, and others stop them.

use anyhow::{Result, ensure};

use super::activation::{AUTO, CONFIG, REFUSES, text, was};
use super::{UNIT, mirror, spec};
use crate::world::World;

const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/trial.conf";

/// A unit that may be started once an hour: neither its restart nor the way back is refused for it.
pub fn limit(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    let once = "[Unit]\nStartLimitIntervalSec=1h\nStartLimitBurst=1\n";
    world.node.write(DROP_IN, 0o644, format!("{once}{REFUSES}Restart=no\n"))?;
    world.node.boot()?;
    let before = world.node.read(CONFIG).ok();
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 6 && text(&run).contains("it is not to my taste"), "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "it does not run");
    world.node.write(DROP_IN, 0o644, once)?;
    world.node.run(&["systemctl", "daemon-reload"])?;
    let run = world.done(&[&AUTO[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    world.pulls()?;
    // the limit is one
    ensure!(!world.node.try_run(&["systemctl", "restart", UNIT])?.status.success(), "the limit does not bite");
    Ok(())
}

/// What a restart takes along is there again after the way back, too: systemd itself restarts only what runs.
pub fn along(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    let kubelet = "[Unit]\nBindsTo=containerd.service\nAfter=containerd.service\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    world.node.write("/etc/systemd/system/kubelet.service", 0o644, kubelet)?;
    world.node.offline(&["systemctl", "enable", "kubelet.service"])?;
    world.node.write(DROP_IN, 0o644, format!("{REFUSES}Restart=no\n"))?;
    world.node.boot()?;
    let allowed: Vec<&str> = AUTO.into_iter().chain(["--allow-restart", "kubelet"]).collect();
    let run = world.nodeprep(&allowed)?;
    ensure!(run.code == 6 && text(&run).contains("it is not to my taste"), "{:#}", run.report);
    for unit in [UNIT, "kubelet.service"] {
        ensure!(world.node.property(unit, "ActiveState")? == "active", "{unit} does not run");
    }
    // what somebody has stopped is not started for it
    world.node.run(&["systemctl", "stop", "kubelet.service"])?;
    let run = world.nodeprep(&[&AUTO[..], &["--retry"]].concat())?;
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(world.node.property("kubelet.service", "ActiveState")? == "inactive", "kubelet was started");
    Ok(())
}

/// Somebody stops it after the run has begun: it stays so, nothing is put back for it, and it has everything when it is started.
pub fn stopped(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    // the trust store is refreshed after the files have changed and before units are turned
    let hook = "#!/bin/sh\nsystemctl stop containerd.service\n";
    world.node.write("/etc/ca-certificates/update.d/stops", 0o755, hook)?;
    world.node.boot()?;
    let cursor = world.node.cursor()?;
    let run = world.done(&AUTO)?;
    ensure!(text(&run).contains("was stopped while the run went on"), "{:#}", run.report);
    ensure!(run.changed().contains(&CONFIG) && run.due().is_empty(), "{:#}", run.report);
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "it was started");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.contains("Stopped") && !told.contains("Start"), "{told}");
    world.node.run(&["systemctl", "start", UNIT])?;
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "after its start: {:#}", run.report);
    mirror.asked();
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "it was not pulled from the mirror");
    Ok(())
}
