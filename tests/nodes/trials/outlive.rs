//! Runs that are killed between a restart and its proof, with all that they have started: each ends as the spec or as before, by itself.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::activation::{AUTO, CONFIG, REFUSES, fresh, text, unit, was};
use super::{UNIT, spec};
use crate::world::{IMAGE, World};

pub const GUARDIAN: &str = "nodeprep-guardian.service";
const RECOVER: &str = "nodeprep-recover.service";
const LEDGER: &str = "/var/lib/nodeprep/ledger.json";
/// What a state is waited for, on a machine that is busy with other things too.
const PATIENCE: Duration = Duration::from_secs(180);

/// A daemon that starts with a config.toml of ours and does not answer until it is told to, or to end.
pub const MUTE: &str = "#!/bin/sh\nif grep -q certs.d /etc/containerd/config.toml; then\n  \
                    while [ ! -e /run/mended ]; do if [ -e /run/dead ]; then echo it is not my day >&2; exit 1; fi; sleep 0.05; done\nfi\n\
                    exec /usr/bin/containerd\n";
pub const STARTS_MUTE: &str = "[Service]\nType=simple\nRestart=no\nExecStart=\nExecStart=/usr/local/bin/start-containerd\n";

pub fn until(what: &str, mut is: impl FnMut() -> Result<bool>) -> Result<()> {
    let begun = Instant::now();
    while !is()? {
        ensure!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// A kubelet that needs containerd, as on a node.
pub fn kubelet(world: &World) -> Result<()> {
    let text = "[Unit]\nWants=containerd.service\nAfter=containerd.service\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    world.node.write("/etc/systemd/system/kubelet.service", 0o644, text)?;
    world.node.offline(&["systemctl", "enable", "kubelet.service"])?;
    Ok(())
}

pub fn runs(world: &World, name: &str) -> Result<()> {
    let state = world.node.property(name, "ActiveState")?;
    ensure!(state == "active", "{name} is {state}");
    Ok(())
}

/// No run is open: neither a ledger of one nor a guardian that waits, nor its program.
pub fn is_through(world: &World) -> Result<bool> {
    let ledger = world.node.read(LEDGER).unwrap_or_default();
    let open = ledger.contains("\"began\"");
    let guarded = world.node.exists("/var/lib/nodeprep/guardian");
    Ok(!open && !guarded && world.node.property(GUARDIAN, "LoadState")? == "not-found")
}

/// An apply in a unit of its own that has restarted a containerd that does not answer yet; what config.toml was.
fn begun(world: &mut World) -> Result<Option<String>> {
    world.node.write("/usr/local/bin/start-containerd", 0o755, MUTE)?;
    kubelet(world)?;
    fresh(world, STARTS_MUTE)?;
    let (before, config) = (world.node.start_of(UNIT)?, world.node.read(CONFIG).ok());
    world.node.run(&["systemd-run", "--quiet", "--unit=trial", "nodeprep", "apply", "--health-timeout", "600"])?;
    until("containerd is restarted", || {
        let now = world.node.start_of(UNIT)?;
        Ok(now.pid != before.pid && now.pid != "0")
    })?;
    runs(world, GUARDIAN)?;
    Ok(config)
}

/// Its unit is active as soon as it is started: it may take a while until it listens.
pub fn answers(world: &World) -> Result<()> {
    runs(world, UNIT)?;
    until("containerd answers", || Ok(world.node.inside()?.remove(IMAGE).is_ok()))
}

fn as_before(world: &World, config: Option<&str>) -> Result<()> {
    until("the run is brought to its end", || is_through(world))?;
    ensure!(world.node.read(CONFIG).ok().as_deref() == config, "config.toml is not as before");
    answers(world)?;
    runs(world, "kubelet.service")?;
    world.upstream.take();
    ensure!(world.pull()?.is_err() && !world.upstream.take().is_empty(), "it does not pull as before");
    Ok(())
}

/// Killed while the daemon does not answer, which then ends: it goes back without anybody asking, and is remembered.
pub fn dead(world: &mut World) -> Result<()> {
    let config = begun(world)?;
    world.node.run(&["systemctl", "kill", "--signal=KILL", "trial.service"])?;
    let killed = Instant::now();
    world.node.run(&["touch", "/run/dead"])?;
    until("the run is brought to its end", || is_through(world))?;
    println!("killed after a restart, and the daemon ends: as before after at most {} ms", killed.elapsed().as_millis());
    as_before(world, config.as_deref())?;
    let journal = world.node.run(&["journalctl", "--no-pager", "--unit", GUARDIAN])?;
    ensure!(journal.contains("is not well after a run that was cut off"), "{journal}");
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 4 && run.report["parts"].to_string().contains("failed-before"), "{:#}", run.report);
    world.node.run(&["touch", "/run/mended"])?;
    world.done(&[&AUTO[..], &["--retry"]].concat())?;
    world.pulls()
}

/// The same, but the daemon answers then: what was done stays, and the next run has nothing to do.
pub fn well(world: &mut World) -> Result<()> {
    begun(world)?;
    world.node.run(&["systemctl", "kill", "--signal=KILL", "trial.service"])?;
    world.node.run(&["touch", "/run/mended"])?;
    until("the run is brought to its end", || is_through(world))?;
    runs(world, "kubelet.service")?;
    world.pulls()?;
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "it was restarted once more");
    world.done(&["revert", "--health-timeout", "20"])?;
    Ok(())
}

/// The whole control group of the asking process goes at once, by the kernel.
pub fn cgroup(world: &mut World) -> Result<()> {
    let config = begun(world)?;
    let group = world.node.property("trial.service", "ControlGroup")?;
    let of_guardian = world.node.property(GUARDIAN, "ControlGroup")?;
    ensure!(!group.is_empty() && !of_guardian.is_empty() && group != of_guardian, "{group} {of_guardian}");
    world.node.run(&["sh", "-c", &format!("echo 1 >/sys/fs/cgroup{group}/cgroup.kill")])?;
    world.node.run(&["touch", "/run/dead"])?;
    as_before(world, config.as_deref())
}

/// Whoever has stopped working and keeps the lock is killed when it is time.
pub fn stopped(world: &mut World) -> Result<()> {
    let config = begun(world)?;
    world.node.run(&["systemctl", "kill", "--signal=STOP", "trial.service"])?;
    // The run's own guardian waits for as long as everything in a run may take; this is one for the impatient.
    world.node.run(&["systemd-run", "--quiet", "--unit=impatient", "nodeprep", "recover", "--guard", "1"])?;
    world.node.run(&["touch", "/run/dead"])?;
    as_before(world, config.as_deref())?;
    ensure!(world.node.property("trial.service", "Result")? == "signal", "it was not killed");
    Ok(())
}

/// The power fails before the daemon was seen to be well: at boot the files are as before it starts, and kubelet with it.
pub fn power_cut(world: &mut World) -> Result<()> {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(RECOVER);
    world.node.install(&unit, &format!("/lib/systemd/system/{RECOVER}"))?;
    world.node.offline(&["systemctl", "enable", RECOVER])?;
    let config = begun(world)?;
    ensure!(world.node.read(CONFIG).ok() != config, "config.toml was not changed yet");
    world.node.kill();
    world.node.boot()?;
    let told = world.node.run(&["journalctl", "--no-pager", "--boot", "--unit", RECOVER])?;
    ensure!(world.node.property(RECOVER, "Result")? == "success", "{told}");
    as_before(world, config.as_deref()).context(told)?;
    ensure!(is_before(world, RECOVER, UNIT)?, "containerd has not waited for it");
    // and nothing is left to be done at the next one
    world.node.stop()?;
    world.node.boot()?;
    answers(world)?;
    world.node.run(&["touch", "/run/mended"])?;
    world.done(&AUTO)?;
    world.pulls()
}

fn is_before(world: &World, one: &str, other: &str) -> Result<bool> {
    let moment = |unit: &str, property: &str| -> Result<u64> {
        let text = world.node.property(unit, property)?;
        text.parse().with_context(|| format!("{property} of {unit}: {text}"))
    };
    let ended = moment(one, "ExecMainExitTimestampMonotonic")?;
    Ok(0 < ended && ended <= moment(other, "ExecMainStartTimestampMonotonic")?)
}

/// Nothing may be executed from below /var: then the installed program watches.
pub fn noexec(world: &mut World) -> Result<()> {
    fresh(world, "")?;
    world.node.run(&["mkdir", "--mode=700", "/var/lib/nodeprep"])?;
    world.node.run(&["mount", "-t", "tmpfs", "-o", "noexec,mode=700", "none", "/var/lib/nodeprep"])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    let journal = world.node.run(&["journalctl", "--no-pager", "--unit", GUARDIAN])?;
    ensure!(journal.contains("Permission denied") && journal.contains("Started "), "{journal}");
    ensure!(is_through(world)?, "a guardian is left");
    world.pulls()
}

/// Where nobody would watch, nothing is changed; unless that is wanted. A guardian that nobody dismissed is no obstacle, and one is
/// never left behind.
pub fn unguarded(world: &mut World) -> Result<()> {
    let (_mirror, start) = fresh(world, "")?;
    let before = world.files()?;
    world.node.write("/usr/local/bin/systemd-run", 0o755, "#!/bin/sh\necho no bus today >&2\nexit 1\n")?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 4 && text(&run).contains("no bus today") && text(&run).contains("--no-guardian"), "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    world.node.run(&["rm", "/usr/local/bin/systemd-run"])?;
    let mut after = world.files()?;
    after.retain(|path, _| before.contains_key(path));
    let differences = crate::tree::differences(&before, &after);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    world.node.run(&["systemd-run", "--quiet", &format!("--unit={GUARDIAN}"), "sleep", "infinity"])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(is_through(world)?, "a guardian is left");
    world.done(&["revert", "--health-timeout", "20", "--no-guardian"])?;
    ensure!(is_through(world)?, "a guardian is left");
    Ok(())
}

/// What failed and was put back is not tried again by itself: not by the same spec on the same runtime.
pub fn remembered(world: &mut World) -> Result<()> {
    fresh(world, REFUSES)?;
    let before = world.node.read(CONFIG).ok();
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 6, "{:#}", run.report);
    let start = world.node.start_of(UNIT)?;
    let refused = |world: &World, words: &[&str]| -> Result<()> {
        let run = world.nodeprep(words)?;
        let said = run.report["parts"].to_string();
        ensure!(
            run.code == 4 && said.contains("failed-before") && said.contains("it is not to my taste") && said.contains("--retry"),
            "{words:?}: {:#}",
            run.report
        );
        ensure!(world.node.start_of(UNIT)? == start, "it was restarted");
        ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
        Ok(())
    };
    refused(world, &AUTO)?;
    refused(world, &["plan"])?;
    refused(world, &["apply", "--activate", "never"])?;
    // the rest of the spec is on the node, and stays so
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.changed().is_empty(), "{:#}", run.report);
    // asked for
    let run = world.nodeprep(&[&AUTO[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "failed")?;
    ensure!(run.code == 6, "{:#}", run.report);
    let start = world.node.start_of(UNIT)?;
    // a day changes nothing about a unit that does not start, but about what may pass
    let path = "/var/lib/nodeprep/failed.json";
    let mut memory: serde_json::Value = serde_json::from_str(&world.node.read(path)?)?;
    let failure = &mut memory["units"][UNIT];
    let when = failure["when"].as_i64().with_context(|| failure.to_string())?;
    ensure!(failure["cause"] == "start", "{failure}");
    failure["when"] = (when - 24 * 60 * 60 * 1000).into();
    world.node.write(path, 0o600, memory.to_string())?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 4 && world.node.start_of(UNIT)? == start, "{:#}", run.report);
    memory["units"][UNIT]["cause"] = "late".into();
    world.node.write(path, 0o600, memory.to_string())?;
    let run = world.nodeprep(&AUTO)?;
    was(&run, UNIT, "restart", "failed")?;
    ensure!(run.code == 6, "{:#}", run.report);
    // another spec
    mirror_too(world)?;
    let run = world.nodeprep(&AUTO)?;
    was(&run, UNIT, "restart", "failed")?;
    // and one that works, once somebody has mended the unit
    world.node.run(&["rm", "/etc/systemd/system/containerd.service.d/trial.conf"])?;
    world.node.run(&["systemctl", "daemon-reload"])?;
    let run = world.done(&[&AUTO[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(!world.node.exists(path), "it is still remembered");
    world.pulls()
}

fn mirror_too(world: &World) -> Result<()> {
    let more = spec(&["fleet"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n";
    world.spec(&more, &[("fleet.pem", &world.ca)])
}
