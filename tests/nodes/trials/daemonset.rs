//! The DaemonSet: the agent in a pod that containerd and runc hold, on the node that it looks after, told and ended as by kubelet (`kubelet`).
//!
//! What the namespaces alone are about, without an agent, is in `pod`; what becomes of runs that are killed, in `outlive`.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::activation::{CONFIG, fresh as node, text};
use super::agent::until;
use super::outlive::{self, GUARDIAN, is_through, runs};
use super::{UNIT, spec};
use super::{api, bootstrap};
use crate::kubelet::{self, Pod, REPOSITORY};
use crate::manifest::{self, Keys};
use crate::node::Start;
use crate::pods::{self, Process};
use crate::tree::differences;
use crate::world::{Registry, World};

const SLEEPER: &str = "docker.io/library/sleeper:1";
const PAUSE: &str = "docker.io/library/pause:1";
const KUBELET: &str = "kubelet.service";
const PODMAN: &str = "podman.service";
const SOCKET: &str = "/run/podman/podman.sock";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
/// The next version of nodeprep: another program.
const NEXT: &str = "-next";

/// What nodeprep must not touch: kubelet, and a pod of somebody's.
struct Others {
    kubelet: Start,
    sleeper: pods::Pod,
    processes: [Process; 2],
}

impl Others {
    fn outlived(&self, world: &World) -> Result<()> {
        runs(world, KUBELET)?;
        ensure!(world.node.start_of(KUBELET)? == self.kubelet, "kubelet was restarted");
        ensure!(self.sleeper.processes(world)? == self.processes, "somebody's pod is another one");
        Ok(())
    }
}

/// Images that come to the node without a registry, as layouts with their names.
fn images(world: &World) -> Result<Vec<(PathBuf, String)>> {
    let node = &world.node;
    let ours = ["", NEXT].map(|mark| Ok((kubelet::image(node, mark)?, format!("{REPOSITORY}{mark}"))));
    let others = ["pause", "sleeper"].map(|name| Ok((pods::image(node, name)?, format!("docker.io/library/{name}"))));
    ours.into_iter().chain(others).collect()
}

fn import(world: &World, layouts: &[(PathBuf, String)]) -> Result<()> {
    layouts.iter().try_for_each(|(layout, repository)| pods::import(&world.node, layout, repository))
}

/// A node of a cluster on which nothing has been applied yet, with nodeprep's image in two versions; the spec and what it references are in the cluster.
fn cluster(world: &mut World, drop_in: &str) -> Result<(Registry, Others)> {
    let layouts = images(world)?;
    pods::furnish(&world.node, PAUSE)?;
    outlive::kubelet(world)?;
    let (mirror, _) = node(world, drop_in)?;
    // the node has no spec of its own
    world.node.run(&["rm", "-r", "/etc/nodeprep"])?;
    import(world, &layouts)?;
    kubelet::keys(&world.node, Keys::Secret, &[("fleet.pem", world.ca.pair.certificate.as_bytes())])?;
    tell(world, &spec(&["fleet"]))?;
    let sleeper = pods::Pod::start(world, "sleeper", SLEEPER)?;
    let processes = sleeper.processes(world)?;
    Ok((mirror, Others { kubelet: world.node.start_of(KUBELET)?, sleeper, processes }))
}

/// Puts the spec into the ConfigMap.
fn tell(world: &World, text: &str) -> Result<()> {
    kubelet::keys(&world.node, Keys::ConfigMap, &[("spec.toml", text.as_bytes())])
}

fn more() -> String {
    spec(&["fleet"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n"
}

/// Restarts are allowed, and a trial waits for none of those of other nodes.
fn restarts(variables: &[(&str, &str)]) -> Result<manifest::Pod> {
    let all = [&[("NODEPREP_ACTIVATE", "auto"), ("NODEPREP_RESTART_SPLAY", "0")], variables].concat();
    kubelet::manifest(&all)
}

/// With the values of the manifest nothing is restarted: files, trust store and reloads come, the rest is due and said. Then the next version of nodeprep, which may
/// restart, takes over; a changed ConfigMap is in effect without either.
pub fn on_node(world: &mut World) -> Result<()> {
    // hooks are run by the distribution's own tool; nobody else knows of them
    world.node.write("/etc/ca-certificates/update.d/told", 0o755, "#!/bin/sh\necho run >>/var/tmp/refreshes\n")?;
    let lasting = "[Service]\nExecStart=\nExecStart=/usr/bin/podman $LOGGING system service --time=0\n";
    world.node.write("/etc/systemd/system/podman.service.d/trial.conf", 0o644, lasting)?;
    let (mirror, others) = cluster(world, "")?;
    world.node.run(&["systemctl", "start", "podman.socket", PODMAN])?;
    api::serves(world, SOCKET)?;
    let (start, podman, cursor) = (world.node.start_of(UNIT)?, world.node.start_of(PODMAN)?, world.node.cursor()?);
    ensure!(api::pulls(world, SOCKET, [&mirror])? == [false], "there is nothing yet to pull from");

    let shipped = kubelet::manifest(&[])?;
    let first = Pod::start(world, &shipped, &format!("{REPOSITORY}:1"), "first")?;
    let pid = first.pid(world)?;
    // the mirror's name is in the node's hosts file alone, and without an answer nothing would be written
    let seen = until(world, "left with what is due", |state| state.pid == pid && !state.due.is_empty() && state.failing.is_none());
    let seen = seen.with_context(|| first.said(world))?;
    ensure!(seen.due.iter().any(|due| due.what == UNIT && due.how == "restart") && !seen.converged, "{seen:#?}");
    ensure!(seen.activations["reload"]["done"] == 1, "{seen:#?}");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was restarted although that was not allowed");
    ensure!(world.node.journal_of_systemd(&cursor, UNIT)?.is_empty(), "systemd did something to containerd");
    ensure!(world.node.read(CONFIG)?.contains("certs.d"), "its files are not there");
    ensure!(api::pulls(world, SOCKET, [&mirror])? == [true], "Podman's service has not read its files");
    ensure!(world.node.start_of(PODMAN)? == podman, "Podman's service was restarted");
    ensure!(world.node.read(BUNDLE)?.contains(world.ca.pair.certificate.trim()), "the CA is not in {BUNDLE}");
    ensure!(world.node.read("/var/tmp/refreshes")? == "run\n", "the node's tool has not run once");
    let statuses = kubelet::probed(world, &shipped)?;
    let expected = [("liveness", "200"), ("readiness", "503")].map(|(name, status)| (name.to_owned(), status.to_owned()));
    ensure!(statuses == expected.into(), "{statuses:?}");
    others.outlived(world)?;
    first.delete(world)?;

    let pod = restarts(&[])?;
    let second = Pod::start(world, &pod, &format!("{REPOSITORY}{NEXT}:1"), "second")?;
    let pid = second.pid(world)?;
    let done = until(world, "converged", |state| state.pid == pid && state.converged).with_context(|| second.said(world))?;
    ensure!(done.restarts.len() == 1 && done.due.is_empty(), "{done:#?}");
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "containerd was not restarted");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.matches("Started").count() == 1, "not one start: {told}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was not pulled from the mirror");
    ensure!(second.pid(world)? == pid, "the agent's own pod has not outlived the restart");
    others.outlived(world)?;
    let statuses = kubelet::probed(world, &pod)?;
    ensure!(statuses.len() == 2 && statuses.values().all(|status| status == "200"), "{statuses:?}");

    let start = world.node.start_of(UNIT)?;
    tell(world, &more())?;
    let is_there = |_: &_| world.node.exists("/etc/containerd/certs.d/quay.io/hosts.toml");
    until(world, "converged with the next spec", |state| state.converged && is_there(state)).with_context(|| second.said(world))?;
    ensure!(world.node.start_of(UNIT)? == start, "a mirror change touched containerd");
    ensure!(world.node.read("/var/tmp/refreshes")? == "run\n", "the node's tool has run again");
    second.delete(world)?;
    others.outlived(world)?;
    world.pulls()
}

/// The agent's pod is killed, all of it at once, between a restart of containerd and its proof. The guardian on the node ends the run, and the next pod goes on
/// from there.
pub fn killed(world: &mut World) -> Result<()> {
    world.node.write("/usr/local/bin/start-containerd", 0o755, outlive::MUTE)?;
    let (_mirror, others) = cluster(world, outlive::STARTS_MUTE)?;
    let pod = restarts(&[("NODEPREP_HEALTH_TIMEOUT", "600")])?;
    cut_off(world, &pod, "first")?;
    world.node.run(&["touch", "/run/mended"])?;
    outlive::until("the run is brought to its end", || is_through(world))?;
    outlive::answers(world)?;
    others.outlived(world)?;

    let start = world.node.start_of(UNIT)?;
    let last = Pod::start(world, &pod, &format!("{REPOSITORY}{NEXT}:1"), "last")?;
    let pid = last.pid(world)?;
    until(world, "converged", |state| state.pid == pid && state.converged).with_context(|| last.said(world))?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was restarted once more");
    world.pulls()?;
    others.outlived(world)
}

/// What kubeadm's bootstrap has begun the agent goes on with, in the same ledger: nothing is restarted for it, another writer is refused, and what is given back is what was there before
/// the bootstrap.
pub fn takes_over(world: &mut World) -> Result<()> {
    const CA: &str = "/root/fleet.pem";
    let layouts = images(world)?;
    let mirror = super::mirror(world)?;
    let server = bootstrap::server(world, &spec(&["fleet"]))?;
    pods::furnish(&world.node, PAUSE)?;
    bootstrap::script(world)?;
    world.node.write(CA, 0o644, &world.ca.pair.certificate)?;
    world.node.offline(&["systemctl", "disable", UNIT])?;
    let before = world.node.read(CONFIG)?;
    world.node.boot()?;
    world.node.run(&[bootstrap::SCRIPT, "--spec", &server.url, "--spec-ca", CA])?;
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "containerd was started");
    world.node.run(&["systemctl", "start", UNIT])?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");

    // and the node has joined
    world.node.write("/etc/kubernetes/kubelet.conf", 0o600, "")?;
    import(world, &layouts)?;
    kubelet::keys(&world.node, Keys::Secret, &[("fleet.pem", world.ca.pair.certificate.as_bytes())])?;
    tell(world, &more())?;
    let (start, asked) = (world.node.start_of(UNIT)?, server.registry.asked().len());
    let pod = Pod::start(world, &restarts(&[])?, &format!("{REPOSITORY}:1"), "first")?;
    let done = until(world, "converged", |state| state.converged).with_context(|| pod.said(world))?;
    ensure!(world.node.exists("/etc/containerd/certs.d/quay.io/hosts.toml"), "the agent's spec is not there");
    ensure!(world.node.start_of(UNIT)? == start && done.restarts.is_empty(), "containerd was restarted for nothing");
    ensure!(asked > 0 && server.registry.asked().is_empty(), "the agent has a spec of its own");

    // neither a spec of another name in the ConfigMap, nor anybody else's on the node
    let other = more().replace("\"fleet\"\nfallback", "\"others\"\nfallback").replace("quay.io", "ghcr.io");
    let files = world.files()?;
    world.node.write("/root/others.toml", 0o644, &other)?;
    let refused = world.nodeprep(&["apply", "--spec", "/root/others.toml", "--material", "/root"])?;
    ensure!(refused.code == 5 && text(&refused).contains("--take-over"), "{:#}", refused.report);
    tell(world, &other)?;
    let refused = until(world, "told of another name", |state| state.failing.is_some())?;
    ensure!(format!("{refused:?}").contains("others"), "{refused:#?}");
    let mut after = world.files()?;
    after.retain(|path, _| files.contains_key(path));
    let differences = differences(&files, &after);
    ensure!(differences.is_empty(), "{}", differences.join("\n"));
    pod.delete(world)?;

    world.done(&["revert", "--health-timeout", "20"])?;
    ensure!(world.node.read(CONFIG)? == before, "it is not what was there before the bootstrap");
    Ok(())
}

/// A pod of the agent that has restarted a containerd which does not answer yet, and is gone then.
fn cut_off(world: &World, pod: &manifest::Pod, name: &str) -> Result<()> {
    let before = world.node.start_of(UNIT)?;
    let agent = Pod::start(world, pod, &format!("{REPOSITORY}:1"), name)?;
    let pids = agent.pids(world)?;
    outlive::until("containerd is restarted", || {
        let now = world.node.start_of(UNIT)?;
        Ok(now.pid != before.pid && now.pid != "0")
    })
    .with_context(|| agent.said(world))?;
    runs(world, GUARDIAN)?;
    kubelet::kill(world, &pids)
}
