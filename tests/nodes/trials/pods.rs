//! Pods that run: a restart of containerd leaves them alone, or is left to somebody who knows; and their images are looked after.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};

use super::activation::{AUTO, CONFIG, REFUSES, text, unit, was};
use super::{UNIT, spec};
use crate::pods::{self, Pod, Process};
use crate::world::{APPLY, Registry, World};

const DROP_IN: &str = "/etc/systemd/system/containerd.service.d/trial.conf";
const SLEEPER: &str = "docker.io/library/sleeper:1";
const PAUSE: &str = "docker.io/library/pause:1";
const NEWER: &str = "docker.io/library/newer:1";

/// A node with pods up on which nothing has been applied yet: its images came with it.
fn fresh(world: &mut World, drop_in: &str) -> Result<(Registry, Vec<Pod>)> {
    let layouts = ["sleeper", "pause", "newer"].map(|name| pods::image(&world.node, name));
    let [sleeper, pause, newer] = layouts;
    let (sleeper, pause, newer) = (sleeper?, pause?, newer?);
    let held = [("docker.io/library/sleeper", &*sleeper), ("docker.io/library/pause", &*pause), ("docker.io/library/newer", &*newer)];
    let mirror = world.registry_of("mirror.example", "127.0.0.2:5000", &held)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    pods::furnish(&world.node, PAUSE)?;
    if !drop_in.is_empty() {
        world.node.write(DROP_IN, 0o644, drop_in)?;
    }
    world.node.boot()?;
    pods::import(&world.node, &sleeper, "docker.io/library/sleeper")?;
    pods::import(&world.node, &pause, "docker.io/library/pause")?;
    let pods = ["one", "two", "three"].map(|name| Pod::start(world, name, SLEEPER));
    let pods = pods.into_iter().collect::<Result<Vec<Pod>>>()?;
    for pod in &pods {
        let images = pod.processes(world)?.map(|process| process.image);
        ensure!(images == ["pause", "sleeper"], "{images:?}");
    }
    Ok((mirror, pods))
}

/// No process of a pod is another one than before.
fn outlived(world: &World, before: &BTreeMap<String, Process>) -> Result<()> {
    let now = pods::processes(world)?;
    ensure!(now == *before, "the processes of pods were {before:#?} and are {now:#?}");
    Ok(())
}

/// A first config_path with pods up: one restart, and each pod goes on.
pub fn config_path(world: &mut World) -> Result<()> {
    let (mirror, pods) = fresh(world, "")?;
    let (before, start) = (pods::processes(world)?, world.node.start_of(UNIT)?);
    ensure!(before.len() == 2 * pods.len(), "{before:#?}");
    let cursor = world.node.cursor()?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(!run.report.to_string().contains("shims-gone"), "{:#}", run.report);
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "containerd was not restarted");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.matches("Started").count() == 1, "not one start: {told}");
    outlived(world, &before)?;
    // containerd knows them still: one can be ended, and another begins with what the mirror has
    let mut pods = pods.into_iter();
    if let Some(pod) = pods.next() {
        pod.end(world)?;
    }
    ensure!(pods::processes(world)?.len() == before.len() - 2, "it did not end");
    mirror.asked();
    let inside = world.node.inside()?;
    inside.remove(SLEEPER)?.map_err(|said| anyhow::anyhow!("removing: {said}"))?;
    inside.pull(SLEEPER)?.map_err(|said| anyhow::anyhow!("pulling: {said}"))?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    Pod::start(world, "four", SLEEPER)?;
    println!("a first config_path with {} pods up: 1 restart, 0 pods lost their process", before.len() / 2);
    Ok(())
}

/// An image that a pod runs and the spec would close is named, as long as the pod runs.
pub fn in_use(world: &mut World) -> Result<()> {
    let (_mirror, pods) = fresh(world, "")?;
    world.done(&AUTO)?;
    let warned = |world: &World| -> Result<Vec<String>> {
        let run = world.nodeprep(&["plan", "--allow-shrink"])?;
        let problems = run.report["problems"].as_array().cloned().unwrap_or_default();
        let warned = problems.iter().filter(|problem| problem["code"] == "image-in-use");
        let unknown = problems.iter().find(|problem| problem["code"] == "image-in-use-unknown");
        ensure!(unknown.is_none() && !run.report["parts"].to_string().is_empty(), "{:#}", run.report);
        Ok(warned.map(|problem| problem["what"].as_str().unwrap_or_default().to_owned()).collect())
    };
    ensure!(warned(world)?.is_empty(), "nothing changes");
    let nameless = Pod::start_nameless(world, "four", SLEEPER)?;
    // docker.io goes, and what is not named is denied
    let closed = spec(&["fleet"]).replace("docker.io", "quay.io").replace("fallback = ", "unlisted = \"deny\"\nfallback = ");
    world.spec(&closed, &[])?;
    let found = warned(world)?;
    let of = |image: &str, by: &str| found.iter().any(|what| what.starts_with(&format!("{image} is in use on containerd ({by})")));
    ensure!(of(SLEEPER, "four, one, three, two") && of(PAUSE, "the pause image of every pod") && found.len() == 2, "{found:#?}");
    for pod in pods.into_iter().chain([nameless]) {
        pod.end(world)?;
    }
    let found = warned(world)?;
    ensure!(found.is_empty(), "no pod is up: {found:#?}");
    Ok(())
}

/// A unit whose stop ends all that it has started: nobody restarts it by the way.
pub fn kill_mode(world: &mut World) -> Result<()> {
    let (_mirror, pods) = fresh(world, "[Service]\nKillMode=control-group\n")?;
    let (before, start) = (pods::processes(world)?, world.node.start_of(UNIT)?);
    let refused = |run: &crate::world::Run| unit(run, UNIT) == Some(("restart".to_owned(), "left".to_owned()));
    let planned = world.nodeprep(&["plan"])?;
    ensure!(refused(&planned), "{:#}", planned.report);
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 9 && refused(&run) && run.due() == ["restart containerd.service"], "{:#}", run.report);
    // what systemd has loaded counts
    for (mode, is_refused) in [("mixed", true), ("process", false), ("control-group", true)] {
        world.node.write(DROP_IN, 0o644, format!("[Service]\nKillMode={mode}\n"))?;
        world.node.run(&["systemctl", "daemon-reload"])?;
        let planned = world.nodeprep(&["plan"])?;
        ensure!(refused(&planned) == is_refused, "KillMode={mode}: {:#}", planned.report);
    }
    let due = run.report["due"].to_string();
    let why = format!("it would end {} running pod sandboxes or containers", pods.len());
    ensure!(due.contains(&why) && due.contains("--allow-restart containerd.service"), "{due}");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    outlived(world, &before)?;
    let run = world.done(&[&AUTO[..], &["--allow-restart", "containerd"]].concat())?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.due().is_empty() && text(&run).contains("3 shims of containers ended"), "{:#}", run.report);
    // and that it would have ended them was true
    let now = pods::processes(world)?;
    ensure!(now.is_empty(), "pods outlived a stop of their control group: {now:#?}");
    Ok(())
}

/// Neither the restart that fails nor the one that brings the old files back costs a pod its process.
pub fn rolled_back(world: &mut World) -> Result<()> {
    let (_mirror, pods) = fresh(world, REFUSES)?;
    let before = pods::processes(world)?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 6, "{:#}", run.report);
    was(&run, UNIT, "restart", "failed")?;
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "it does not run");
    outlived(world, &before)?;
    // containerd knows them still
    pods.into_iter().try_for_each(|pod| pod.end(world))?;
    ensure!(pods::processes(world)?.is_empty(), "they did not end");
    Ok(())
}

/// A new pause image is pulled before the restart that tells of it, or stays away; pods that are up keep theirs.
pub fn new_pause(world: &mut World) -> Result<()> {
    let (mirror, _pods) = fresh(world, "")?;
    world.done(&AUTO)?;
    let (before, start, config) = (pods::processes(world)?, world.node.start_of(UNIT)?, world.node.read(CONFIG)?);
    let with = |image: &str| spec(&["fleet"]) + &format!("[runtime]\npause_image = \"{image}\"\n");
    let missing = "docker.io/library/missing:1";
    world.spec(&with(missing), &[])?;
    let run = world.nodeprep(&[&AUTO[..], &["--probe", "require"]].concat())?;
    ensure!(run.code == 8 && run.to_string().contains("containerd keeps its pause image"), "{run}\n{:#}", run.report);
    ensure!(world.node.read(CONFIG)? == config && world.node.start_of(UNIT)? == start, "it was not kept back");

    world.spec(&with(NEWER), &[])?;
    mirror.asked();
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(world.node.read(CONFIG)?.contains(NEWER) && run.due().is_empty(), "{:#}", run.report);
    ensure!(!mirror.asked().is_empty(), "it was not pulled");
    outlived(world, &before)?;
    mirror.asked();
    let pod = Pod::start(world, "new", SLEEPER)?;
    let images = pod.processes(world)?.map(|process| process.image);
    ensure!(images == ["newer", "sleeper"], "{images:?}");
    ensure!(mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was pulled only when a pod wanted it");
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "a second run: {run}");
    outlived_all(world, &before)
}

/// A canary beside a new pause image: where it is not pulled any more, neither the mirror nor the pause image has changed.
pub fn pause_canary(world: &mut World) -> Result<()> {
    let newer = pods::image(&world.node, "newer")?;
    world.registry_of("second.example", "127.0.0.3:5000", &[("docker.io/library/newer", &*newer)])?;
    let (mirror, _pods) = fresh(world, "")?;
    world.done(&AUTO)?;
    let (before, start, config) = (pods::processes(world)?, world.node.start_of(UNIT)?, world.node.read(CONFIG)?);
    let canary = [&AUTO[..], &["--canary", SLEEPER]].concat();
    let with = |mirror: &str| spec(&["fleet"]).replace("mirror.example", mirror) + &format!("[runtime]\npause_image = \"{NEWER}\"\n");
    // the second mirror has the pause image, and not what is pulled
    world.spec(&with("second.example"), &[])?;
    let files = world.files()?;
    let run = world.nodeprep(&canary)?;
    ensure!(run.code == 6 && text(&run).contains("any more, which it pulled right before"), "{run}\n{:#}", run.report);
    let differences = crate::tree::differences(&files, &world.files()?);
    ensure!(differences.is_empty() && world.node.read(CONFIG)? == config, "not as before:\n{}", differences.join("\n"));
    ensure!(run.changed().is_empty() && run.due().is_empty() && world.node.start_of(UNIT)? == start, "{:#}", run.report);

    world.spec(&with("mirror.example"), &[])?;
    mirror.asked();
    let run = world.done(&canary)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(world.node.read(CONFIG)?.contains(NEWER) && !mirror.asked().is_empty(), "{:#}", run.report);
    outlived(world, &before)?;
    let images = Pod::start(world, "new", SLEEPER)?.processes(world)?.map(|process| process.image);
    ensure!(images == ["newer", "sleeper"], "{images:?}");
    Ok(())
}

/// A new pause image in the same run as the first config_path, so that it can be pulled no earlier than after the restart.
pub fn pause_at_first(world: &mut World) -> Result<()> {
    let (_mirror, _pods) = fresh(world, "")?;
    let before = pods::processes(world)?;
    let with = |image: &str| spec(&["fleet"]) + &format!("[runtime]\npause_image = \"{image}\"\n");
    // what is not to be had is kept back, and the rest is not
    world.spec(&with("docker.io/library/missing:1"), &[])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 8 && run.to_string().contains("containerd keeps its pause image"), "{run}\n{:#}", run.report);
    ensure!(!world.node.read(CONFIG)?.contains("missing"), "it was not kept back");
    outlived(world, &before)?;
    world.done(&["revert", "--health-timeout", "20"])?;
    outlived(world, &before)?;

    world.spec(&with(NEWER), &[])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "restart", "done")?;
    ensure!(run.report.to_string().contains("pause-image-later"), "{:#}", run.report);
    outlived(world, &before)?;
    let images = Pod::start(world, "new", SLEEPER)?.processes(world)?.map(|process| process.image);
    ensure!(images == ["newer", "sleeper"], "{images:?}");
    ensure!(world.upstream.take().is_empty(), "the upstream was asked");
    Ok(())
}

/// Others may have come.
fn outlived_all(world: &World, before: &BTreeMap<String, Process>) -> Result<()> {
    let mut now = pods::processes(world)?;
    now.retain(|id, _| before.contains_key(id));
    ensure!(now == *before, "the processes of pods were {before:#?} and are {now:#?}");
    Ok(())
}
