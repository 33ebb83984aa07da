//! Nodes without systemd: OpenRC, and nobody but a command that somebody gave.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::activation::{AUTO, CONFIG, text, unit, was};
use super::{UNIT, mirror, spec};
use crate::prepared;
use crate::world::{Registry, Run, World};

/// The daemon's process.
const NAME: &str = "containerd";
/// Longer than anything takes that is waited for.
const LONG: Duration = Duration::from_secs(60);

/// A node whose containerd runs under another process 1, and on which nothing has been applied yet.
fn boot(world: &mut World, init: &'static str) -> Result<Registry> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.init(init);
    world.node.boot()?;
    serves(world)?;
    Ok(mirror)
}

/// Waits until containerd answers.
fn serves(world: &World) -> Result<()> {
    let begun = Instant::now();
    while !matches!(world.node.inside()?.cri("RuntimeService/Version", &[]), Ok(Ok(_))) {
        ensure!(begun.elapsed() < LONG, "containerd does not answer:\n{}", world.node.console());
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// The daemon's process, by its name; empty when it does not run.
fn pid(world: &World) -> Result<String> {
    let output = world.node.try_run(&["pidof", NAME])?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn from_mirror(world: &World, mirror: &Registry) -> Result<()> {
    mirror.asked();
    world.pulls()?;
    ensure!(!mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was not pulled from the mirror");
    Ok(())
}

/// A service script as distributions with OpenRC have them; `start_pre` is how a trial lets a start fail.
const SERVICE: &str = "#!/sbin/openrc-run\ndescription=\"a container runtime\"\nsupervisor=supervise-daemon\ncommand=/usr/bin/containerd\n\
                       output_log=/var/log/containerd.log\nerror_log=/var/log/containerd.log\n\
                       start_pre() { if grep -q certs.d /etc/containerd/config.toml && [ -e /var/tmp/picky ]; then eerror 'not to my taste'; return 1; fi; }\n";
/// One that needs it.
const KUBELET: &str = "#!/sbin/openrc-run\ncommand=/usr/bin/sleep\ncommand_args=infinity\ncommand_background=yes\npidfile=/run/kubelet.pid\n\
                       depend() { need containerd; }\n";

pub fn openrc(world: &mut World) -> Result<()> {
    let files = prepared().join("openrc");
    if !files.join("usr/sbin/rc-service").exists() {
        println!("skipped: OpenRC cannot be had here");
        return Ok(());
    }
    world.node.lay(&files)?;
    world.node.write("/etc/init.d/containerd", 0o755, SERVICE)?;
    world.node.write("/etc/init.d/kubelet", 0o755, KUBELET)?;
    world.node.offline(&["sh", "-c", "rm -rf /etc/runlevels/*/* && rc-update add containerd default && rc-update add kubelet default"])?;
    world.node.write("/var/tmp/picky", 0o644, "")?;
    let mirror = boot(world, "/sbin/openrc-init")?;
    let begun = Instant::now();
    while !world.node.try_run(&["rc-service", "kubelet", "status"])?.status.success() {
        ensure!(begun.elapsed() < LONG, "OpenRC does not come to its default runlevel:\n{}", world.node.console());
        std::thread::sleep(Duration::from_millis(50));
    }
    let first = pid(world)?;
    let before = world.node.read(CONFIG).ok();
    // a restart would take kubelet along
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 9 && run.report["due"].to_string().contains("--allow-restart kubelet"), "{:#}", run.report);
    ensure!(pid(world)? == first, "containerd was touched");
    // once allowed, it does not come up with the new file: back it goes
    let revert = world.nodeprep(&["revert", "--activate", "never"])?;
    ensure!(revert.code == 0 && world.node.read(CONFIG).ok() == before, "{:#}", revert.report);
    let allowed: Vec<&str> = AUTO.into_iter().chain(["--allow-restart", "kubelet"]).collect();
    let run = world.nodeprep(&allowed)?;
    ensure!(run.code == 6 && world.node.read(CONFIG).ok() == before, "{:#}", run.report);
    ensure!(text(&run).contains("containerd"), "{}", text(&run));
    serves(world)?;
    let second = pid(world)?;
    ensure!(second != first && !second.is_empty(), "it was not restarted on the way back");
    ensure!(world.node.try_run(&["rc-service", "kubelet", "status"])?.status.success(), "kubelet has not come back with it");
    // a run that goes through
    world.node.run(&["rm", "/var/tmp/picky"])?;
    let run = world.done(&[&allowed[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.due().is_empty() && run.report["units"][0]["along"][0] == "kubelet", "{:#}", run.report);
    let third = pid(world)?;
    ensure!(third != second && !third.is_empty(), "containerd was not restarted");
    ensure!(world.node.try_run(&["rc-service", "kubelet", "status"])?.status.success(), "kubelet has to run again");
    from_mirror(world, &mirror)?;
    settled(world, &third)?;
    // what is stopped stays so
    world.node.run(&["rc-service", "containerd", "stop"])?;
    let run = world.nodeprep(&["revert", "--health-timeout", "20"])?;
    ensure!(run.code == 0 && run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(pid(world)?.is_empty(), "it was started");
    Ok(())
}

/// Nothing more is to be done, and a mirror change restarts nothing.
fn settled(world: &World, process: &str) -> Result<()> {
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && unit(&run, UNIT).is_none(), "a second run: {:#}", run.report);
    world.spec(&(spec(&["fleet"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n"), &[])?;
    let run = world.done(&AUTO)?;
    ensure!(!run.changed().is_empty() && unit(&run, UNIT).is_none(), "a mirror change: {:#}", run.report);
    ensure!(pid(world)? == process, "containerd was touched");
    Ok(())
}

/// Process 1 starts it and takes care of what ends.
const INIT: &str = "#!/bin/sh\nmkdir -p /run/containerd\n/opt/containerd start\nwhile :; do sleep 1; done\n";
/// How somebody restarts it by hand. It writes where its caller listens: nobody else looks after that.
const SCRIPT: &str = r#"#!/bin/sh
case $1 in
start|restart)
  if [ "$1" = restart ] && grep -q certs.d /etc/containerd/config.toml && [ -e /var/tmp/picky ]; then
    echo "not to my taste" >&2; exit 3
  fi
  old=$(pidof containerd)
  if [ -n "$old" ]; then kill "$old"; while kill -0 "$old" 2>/dev/null; do sleep 0.05; done; fi
  setsid /usr/bin/containerd --log-level debug </dev/null &
  ;;
*) exit 64 ;;
esac
"#;

/// Nobody manages units: what is due says what to give, and the command that is given does it.
pub fn command(world: &mut World) -> Result<()> {
    world.node.write("/opt/init", 0o755, INIT)?;
    world.node.write("/opt/containerd", 0o755, SCRIPT)?;
    let mirror = boot(world, "/opt/init")?;
    let (first, before) = (pid(world)?, world.node.read(CONFIG).ok());
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 9 && run.due() == ["restart containerd.service"], "{:#}", run.report);
    ensure!(run.report["due"].to_string().contains("--restart-command containerd=COMMAND"), "{:#}", run.report);
    let revert = world.nodeprep(&["revert", "--activate", "never"])?;
    ensure!(revert.code == 0 && world.node.read(CONFIG).ok() == before, "{:#}", revert.report);
    // a command that fails: its words, and back
    world.node.write("/var/tmp/picky", 0o644, "")?;
    let given: Vec<&str> = AUTO.into_iter().chain(["--restart-command", "containerd=/opt/containerd restart"]).collect();
    let run = world.nodeprep(&given)?;
    ensure!(run.code == 6 && world.node.read(CONFIG).ok() == before, "{:#}", run.report);
    ensure!(text(&run).contains("status 3") && text(&run).contains("not to my taste"), "{}", text(&run));
    serves(world)?;
    let second = pid(world)?;
    ensure!(second != first && !second.is_empty(), "the way back has no restart");
    world.node.run(&["rm", "/var/tmp/picky"])?;
    let run = world.done(&[&given[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    let third = pid(world)?;
    ensure!(third != second && !third.is_empty(), "containerd was not restarted");
    from_mirror(world, &mirror)?;
    settled(world, &third)?;
    // what is stopped stays so
    world.node.run(&["sh", "-c", "kill $(pidof containerd); while pidof containerd; do sleep 0.05; done"])?;
    let revert: Vec<&str> = ["revert"].iter().chain(&given[1..]).copied().collect();
    let run: Run = world.nodeprep(&revert)?;
    ensure!(run.code == 0 && run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(pid(world)?.is_empty(), "it was started");
    Ok(())
}
