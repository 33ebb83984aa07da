//! What apply does with units by itself: the least, once, and back when the daemon is not well afterwards.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::{UNIT, converged, mirror, spec};
use crate::node::Start;
use crate::world::{APPLY, IMAGE, Registry, Run, World};

pub const CONFIG: &str = "/etc/containerd/config.toml";
pub const AUTO: [&str; 3] = ["apply", "--health-timeout", "20"];

/// A node on which containerd runs and nothing has been applied yet.
pub fn fresh(world: &mut World, drop_in: &str) -> Result<(Registry, Start)> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    if !drop_in.is_empty() {
        world.node.write("/etc/systemd/system/containerd.service.d/trial.conf", 0o644, drop_in)?;
    }
    world.node.boot()?;
    let start = world.node.start_of(UNIT)?;
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "containerd does not run");
    Ok((mirror, start))
}

/// What the report says of a unit: what it needs, and what became of that.
pub fn unit(run: &Run, name: &str) -> Option<(String, String)> {
    let units = run.report["units"].as_array()?;
    let unit = units.iter().find(|unit| unit["unit"] == name)?;
    Some((unit["needs"].as_str()?.to_owned(), unit["state"].as_str()?.to_owned()))
}

pub fn was(run: &Run, name: &str, needs: &str, state: &str) -> Result<()> {
    ensure!(unit(run, name) == Some((needs.to_owned(), state.to_owned())), "{name}: {:#}", run.report);
    Ok(())
}

pub fn text(run: &Run) -> String {
    let words =
        |problem: &Value| format!("{} {}", problem["what"].as_str().unwrap_or_default(), problem["help"].as_str().unwrap_or_default());
    run.report["problems"].as_array().map(|all| all.iter().map(words).collect::<Vec<_>>().join("\n")).unwrap_or_default()
}

/// A first config_path: one restart, and it pulls; a second run does nothing.
pub fn once(world: &mut World) -> Result<()> {
    let (mirror, start) = fresh(world, "")?;
    let planned = world.nodeprep(&["plan"])?;
    was(&planned, UNIT, "restart", "planned")?;
    ensure!(world.node.start_of(UNIT)? == start, "plan touched containerd");
    let cursor = world.node.cursor()?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.due().is_empty(), "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "containerd was not restarted");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.matches("Started").count() == 1, "not one start: {told}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was not pulled from the mirror");
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && unit(&run, UNIT).is_none(), "a second run: {:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "a second run touched containerd");
    // and back
    let run = world.nodeprep(&["revert", "--health-timeout", "20"])?;
    ensure!(run.code == 0, "{:#}", run.report);
    was(&run, UNIT, "restart", "done")?;
    Ok(())
}

/// Changes of mirrors and of CAs restart nothing.
pub fn nothing(world: &mut World) -> Result<()> {
    converged(world)?;
    let start = world.node.start_of(UNIT)?;
    let other = crate::certificate::Authority::new("the next CA")?;
    let more = spec(&["fleet", "next"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n";
    world.spec(&more, &[("fleet.pem", &world.ca), ("next.pem", &other)])?;
    let run = world.done(&AUTO)?;
    ensure!(!run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    // somebody else's registry without a CA file is verified by the OS trust store, which containerd reads once
    world.node.write("/etc/containerd/certs.d/other.example/hosts.toml", 0o644, "server = \"https://other.example\"\n\n[host]\n")?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    let left = world.nodeprep(&["apply", "--activate", "reload-only", "--allow-shrink"])?;
    ensure!(left.code == 9 && left.due() == ["restart containerd.service"], "{:#}", left.report);
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "settled: {:#}", run.report);
    Ok(())
}

/// What is left undone is due and stays so, with exit code 9 if it was asked for.
pub fn left(world: &mut World) -> Result<()> {
    let (_mirror, start) = fresh(world, "")?;
    for (how, code) in [("reload-only", 9), ("never", 0), ("reload-only", 9)] {
        let run = world.nodeprep(&["apply", "--activate", how])?;
        ensure!(run.code == code && run.due() == ["restart containerd.service"], "{how}: {:#}", run.report);
    }
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.changed().is_empty(), "{:#}", run.report);
    world.pulls()
}

/// What does not run is not started, and nothing is due for it.
pub fn stopped(world: &mut World) -> Result<()> {
    fresh(world, "")?;
    world.node.run(&["systemctl", "stop", UNIT])?;
    let run = world.done(&AUTO)?;
    ensure!(run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "it was started");
    world.node.run(&["systemctl", "start", UNIT])?;
    let run = world.done(&AUTO)?;
    ensure!(run.due().is_empty() && unit(&run, UNIT).is_none(), "after its start: {:#}", run.report);
    world.pulls()
}

/// A restart that would take kubelet along has to be allowed by name.
pub fn kubelet(world: &mut World) -> Result<()> {
    let kubelet = "[Unit]\nBindsTo=containerd.service\nAfter=containerd.service\n[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
    world.node.write("/etc/systemd/system/kubelet.service", 0o644, kubelet)?;
    world.node.offline(&["systemctl", "enable", "kubelet.service"])?;
    let (_mirror, start) = fresh(world, "")?;
    let of_kubelet = world.node.start_of("kubelet.service")?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 9 && run.due() == ["restart containerd.service"], "{:#}", run.report);
    was(&run, UNIT, "restart", "left")?;
    let due = run.report["due"].to_string();
    ensure!(due.contains("--allow-restart kubelet.service"), "{due}");
    ensure!(world.node.start_of(UNIT)? == start && world.node.start_of("kubelet.service")? == of_kubelet, "it was touched");
    let run = world.done(&[&AUTO[..], &["--allow-restart", "kubelet"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.report["units"][0]["along"][0] == "kubelet.service", "{:#}", run.report);
    ensure!(world.node.start_of("kubelet.service")?.pid != of_kubelet.pid, "kubelet should have been taken along");
    ensure!(world.node.property("kubelet.service", "ActiveState")? == "active", "kubelet has to run again");
    world.pulls()
}

/// `ExecStartPre=` that refuses a config.toml of ours.
pub const REFUSES: &str = "[Service]\nExecStartPre=/bin/sh -c 'if grep -q certs.d /etc/containerd/config.toml; then echo it is not to my taste >&2; exit 1; fi'\n";

/// A daemon that does not start with the new file: the old one comes back, and the daemon with it.
pub fn rolled_back(world: &mut World) -> Result<()> {
    let (_mirror, _) = fresh(world, REFUSES)?;
    let before = world.node.read(CONFIG).ok();
    let begun = Instant::now();
    let run = world.nodeprep(&AUTO)?;
    println!(
        "{}: from a restart that fails to a daemon that is well again: at most {} ms (the whole run)",
        super::UNIT,
        begun.elapsed().as_millis()
    );
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(text(&run).contains("it is not to my taste"), "not in its own words: {}", text(&run));
    was(&run, UNIT, "restart", "failed")?;
    ensure!(run.due().is_empty() && run.changed().is_empty(), "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "it does not run");
    // the same where an earlier run has written what it reads, and this one only restarts it
    let run = world.nodeprep(&["apply", "--activate", "never", "--retry"])?;
    ensure!(run.code == 0 && run.due() == ["restart containerd.service"], "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() != before, "config.toml was not changed");
    let run = world.nodeprep(&[&AUTO[..], &["--retry"]].concat())?;
    ensure!(run.code == 6 && text(&run).contains("it is as it was before that run"), "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "it does not run");
    world.upstream.take();
    ensure!(world.pull()?.is_err() && !world.upstream.take().is_empty(), "it does not pull as before");
    Ok(())
}

/// A daemon that starts and never answers: only its health tells.
pub fn mute(world: &mut World) -> Result<()> {
    let start = "#!/bin/sh\nif grep -q certs.d /etc/containerd/config.toml; then exec sleep infinity; fi\nexec /usr/bin/containerd\n";
    world.node.write("/usr/local/bin/start-containerd", 0o755, start)?;
    fresh(world, "[Service]\nType=simple\nExecStart=\nExecStart=/usr/local/bin/start-containerd\n")?;
    let before = world.node.read(CONFIG).ok();
    let run = world.nodeprep(&["apply", "--health-timeout", "2"])?;
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
    world.upstream.take();
    ensure!(world.pull()?.is_err() && !world.upstream.take().is_empty(), "it does not pull as before");
    Ok(())
}

const CANARY: [&str; 5] = ["apply", "--health-timeout", "20", "--canary", IMAGE];

/// The spec changes to a mirror that answers and holds another repository: what was pulled is not any more. Nothing is restarted for
/// it, and it pulls again.
pub fn canary(world: &mut World) -> Result<()> {
    world.registry("second.example", "127.0.0.3:5000", "docker.io/library/other")?;
    let first = converged(world)?;
    let start = world.node.start_of(UNIT)?;
    let before = world.files()?;
    let moved = |ca: &[&str]| spec(ca).replace("mirror.example:5000/docker.io", "second.example:5000/docker.io");
    world.spec(&moved(&["fleet"]), &[])?;
    let given = world.files()?;
    let begun = Instant::now();
    let run = world.nodeprep(&CANARY)?;
    println!("a canary that is lost by a mirror change: put back after at most {} ms (the whole run)", begun.elapsed().as_millis());
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(text(&run).contains("any more, which it pulled right before") && text(&run).contains("--manifest"), "{}", text(&run));
    ensure!(run.changed().is_empty() && run.due().is_empty(), "{:#}", run.report);
    ensure!(world.files()? == given && before != given, "the files are not as before");
    first.asked();
    world.pulls()?;
    ensure!(!first.asked().is_empty() && world.upstream.take().is_empty(), "it does not pull from the mirror as before");
    // what failed before is told, and not blamed
    world.done(&APPLY)?;
    ensure!(world.pull()?.is_err(), "the second mirror has it after all");
    let more = moved(&["fleet"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n";
    world.spec(&more, &[])?;
    let run = world.done(&CANARY)?;
    let told = |problem: &Value| problem["code"] == "canary-fails" && problem["severity"] == "warning";
    ensure!(run.report["problems"].as_array().is_some_and(|all| all.iter().any(told)), "{:#}", run.report);
    ensure!(!run.changed().is_empty(), "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    // and back to the mirror that has it
    world.spec(&spec(&["fleet"]), &[])?;
    let run = world.done(&[&CANARY[..], &["--allow-shrink"]].concat())?;
    ensure!(run.report["problems"].as_array().is_none_or(|all| !all.iter().any(told)), "{:#}", run.report);
    world.pulls()
}

/// A node that pulls by somebody else's config.toml, which is given back; our mirror holds another repository.
fn pulling(world: &mut World, drop_in: &str) -> Result<String> {
    world.registry("mirror.example", "127.0.0.2:5000", "docker.io/library/other")?;
    world.registry("own.example", "127.0.0.4:5000", "library/hello")?;
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://own.example:5000\"]\n\
                  [plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"own.example:5000\".tls]\nca_file = \"/etc/nodeprep/fleet.pem\"\n";
    world.node.write(CONFIG, 0o644, config)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    if !drop_in.is_empty() {
        world.node.write("/etc/systemd/system/containerd.service.d/trial.conf", 0o644, drop_in)?;
    }
    world.node.boot()?;
    world.pulls()?;
    Ok(config.to_owned())
}

/// The first restart takes away what was pulled without our mirror: with the way back it is restarted again.
pub fn canary_restart(world: &mut World) -> Result<()> {
    let config = pulling(world, "")?;
    let start = world.node.start_of(UNIT)?;
    let run = world.nodeprep(&[&CANARY[..], &["--foreign", "replace"]].concat())?;
    ensure!(run.code == 6 && text(&run).contains("any more, which it pulled right before"), "{:#}", run.report);
    ensure!(world.node.read(CONFIG)? == config, "config.toml is not as before");
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "it was not restarted");
    world.pulls()
}

/// A restart that fails on a node that pulls: how long it does not.
pub fn pulls_again(world: &mut World) -> Result<()> {
    let config = pulling(world, REFUSES)?;
    let run = world.nodeprep(&[&AUTO[..], &["--foreign", "replace"]].concat())?;
    world.pulls()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
    ensure!(run.code == 6 && world.node.read(CONFIG)? == config, "{:#}", run.report);
    let journal = world.node.run(&["journalctl", "--no-pager", "--unit", UNIT, "--output", "short-unix"])?;
    let at = |words: &str| journal.lines().find(|line| line.contains(words)).and_then(|line| line.split(' ').next()?.parse::<f64>().ok());
    let (Some(stopped), Some(failed)) = (at("Stopping "), at("Failed to start ")) else { bail!("no restart that failed: {journal}") };
    println!(
        "a restart that fails: {:.0} ms later it has pulled again, {:.0} ms after it was stopped",
        (now - failed) * 1000.0,
        (now - stopped) * 1000.0
    );
    Ok(())
}

/// It does not come back with the old files either: the run says so, and what to do.
pub fn stuck(world: &mut World) -> Result<()> {
    let once =
        "[Service]\nExecStartPre=/bin/sh -c 'grep -q certs.d /etc/containerd/config.toml && touch /run/broken; test ! -e /run/broken'\n";
    fresh(world, once)?;
    let before = world.node.read(CONFIG).ok();
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 7, "{:#}", run.report);
    ensure!(
        text(&run).contains("journalctl -u containerd.service") && text(&run).contains("systemctl restart containerd.service"),
        "{}",
        text(&run)
    );
    ensure!(world.node.read(CONFIG).ok() == before, "config.toml is not as before");
    Ok(())
}

/// The file of before never worked: it is not put back, before which `plan` says so; what was broken is mended by hand.
pub fn no_way_back(world: &mut World) -> Result<()> {
    fresh(world, "[Service]\nExecStartPre=/bin/sh -c 'test ! -e /run/broken'\n")?;
    // beside config_path the older mirrors keep the CRI plugin from loading; the daemon runs with what it has read before
    let spoilt = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\
                  [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"quay.io\"]\nendpoint = [\"https://mirror.example:5000\"]\n";
    world.node.write(CONFIG, 0o644, spoilt)?;
    let planned = world.nodeprep(&["plan"])?;
    ensure!(text(&planned).contains("nothing is put back for it"), "{:#}", planned.report);
    world.node.run(&["touch", "/run/broken"])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 7, "{:#}", run.report);
    ensure!(
        text(&run).contains("nothing was put back for containerd.service") && text(&run).contains("systemctl restart containerd.service"),
        "{}",
        text(&run)
    );
    ensure!(run.changed().contains(&CONFIG) && world.node.read(CONFIG)? != spoilt, "what never worked is back: {:#}", run.report);
    // nor does the next run go back to it
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 7 && world.node.read(CONFIG)? != spoilt, "{:#}", run.report);
    world.node.run(&["rm", "/run/broken"])?;
    world.node.run(&["systemctl", "restart", UNIT])?;
    world.done(&AUTO)?;
    world.pulls()
}

/// Killed after the restart and before its daemon was seen to be well, with nobody who watches: the next run looks, and goes back if it
/// is not.
pub fn killed(world: &mut World) -> Result<()> {
    let start = "#!/bin/sh\nif grep -q certs.d /etc/containerd/config.toml && [ ! -e /run/mended ]; then exec sleep infinity; fi\nexec /usr/bin/containerd\n";
    world.node.write("/usr/local/bin/start-containerd", 0o755, start)?;
    fresh(world, "[Service]\nType=simple\nExecStart=\nExecStart=/usr/local/bin/start-containerd\n")?;
    let (before, config) = (world.node.start_of(UNIT)?, world.node.read(CONFIG).ok());
    world.node.run(&["systemd-run", "--quiet", "--unit=trial", "nodeprep", "apply", "--no-guardian", "--health-timeout", "60"])?;
    for _ in 0..600 {
        if world.node.start_of(UNIT)?.pid != before.pid {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    world.node.run(&["systemctl", "kill", "--signal=KILL", "trial.service"])?;
    ensure!(world.node.start_of(UNIT)?.pid != before.pid, "it was never restarted");
    let run = world.nodeprep(&["apply", "--health-timeout", "2"])?;
    was(&run, UNIT, "prove", "failed")?;
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(world.node.read(CONFIG).ok() == config, "config.toml is not as before");
    world.upstream.take();
    ensure!(world.pull()?.is_err() && !world.upstream.take().is_empty(), "it does not pull as before");
    // what is mended on the node works with the next run
    world.node.run(&["touch", "/run/mended"])?;
    let run = world.done(&[&AUTO[..], &["--retry"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && unit(&run, UNIT).is_none(), "it should be settled: {:#}", run.report);
    world.pulls()
}

/// A reload of CRI-O is believed by its journal line. A stand-in: a shell under the name of crio, which says what CRI-O says
/// (`runtime-semantics.md` 2.8).
pub fn reload(world: &mut World) -> Result<()> {
    let script = "reads() { if grep -qs forbidden /etc/containers/registries.conf.d/*.conf; then echo 'Unable to reload configuration: forbidden'; else echo 'Configuration reload completed'; fi; }\n\
                  trap reads HUP\nwhile :; do sleep 0.05; done\n";
    world.node.write("/opt/crio.sh", 0o644, script)?;
    let unit_file =
        "[Service]\nExecStart=/usr/bin/crio /opt/crio.sh\nExecReload=/bin/kill -HUP $MAINPID\n[Install]\nWantedBy=multi-user.target\n";
    world.node.write("/etc/systemd/system/crio.service", 0o644, unit_file)?;
    world.node.offline(&["cp", "/bin/dash", "/usr/bin/crio"])?;
    world.node.offline(&["systemctl", "enable", "crio.service"])?;
    fresh(world, "")?;
    let start = world.node.start_of("crio.service")?;
    let run = world.done(&AUTO)?;
    was(&run, "crio.service", "reload", "done")?;
    ensure!(world.node.start_of("crio.service")? == start, "it was restarted");
    let run = world.done(&AUTO)?;
    ensure!(unit(&run, "crio.service").is_none() && run.due().is_empty(), "it is told once more: {:#}", run.report);
    let forbidden = spec(&["fleet"]) + "\n[[mirror]]\nsource = \"forbidden.example\"\nendpoints = [\"mirror.example:5000/x\"]\n";
    world.spec(&forbidden, &[("fleet.pem", &world.ca)])?;
    let run = world.nodeprep(&[&AUTO[..], &["--probe", "off"]].concat())?;
    ensure!(run.code == 6 && text(&run).contains("Unable to reload configuration: forbidden"), "{:#}", run.report);
    Ok(())
}
