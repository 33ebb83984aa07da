//! nodeprep as a pod runs it: in a container with a root of its own, the node's at `/host`, and the node's processes.
//!
//! The container is made by hand, with the namespaces that a privileged pod with `hostPID` and `hostNetwork` has; its image holds nodeprep
//! and the libraries of this build, and no other program. What it is told lies in the image, as a ConfigMap does.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::activation::{text, unit, was};
use super::{UNIT, mirror, spec};
use crate::world::{Run, World};

/// The image's files on the node.
const IMAGE: &str = "/srv/pod";
const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const CONFIG: &str = "/etc/containerd/config.toml";
/// What a container has when nobody says that it is privileged.
const USUAL: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+sys_chroot,+mknod";

/// What of the node a container gets.
#[derive(Clone, Copy)]
struct Given {
    /// Its processes.
    processes: bool,
    /// Its network.
    network: bool,
    /// Its files, to write them.
    writes: bool,
    /// Which capabilities, as setpriv has it; `None`: all.
    bounding: Option<&'static str>,
}

const POD: Given = Given { processes: true, network: true, writes: true, bounding: None };

/// Lays out the image on a running node.
fn image(world: &World) -> Result<()> {
    let folders = format!("mkdir -p {IMAGE}/proc {IMAGE}/host {IMAGE}/dev {IMAGE}/spec");
    let files = format!("cp --parents -L /usr/bin/nodeprep $(ldd /usr/bin/nodeprep | grep -o '/[^ ]*') {IMAGE}");
    world.node.run(&["sh", "-c", &format!("{folders} && {files}")])?;
    // what a cluster writes into a pod: names that are not the node's
    world.node.write(&format!("{IMAGE}/etc/hosts"), 0o644, "127.0.0.1 localhost\n")?;
    world.node.write(&format!("{IMAGE}/etc/resolv.conf"), 0o644, "nameserver 127.0.0.99\n")?;
    world.node.write(&format!("{IMAGE}/spec/fleet.pem"), 0o644, &world.ca.pair.certificate)
}

/// The spec for the pod, and the same for who looks on the node.
fn tell(world: &World, text: &str) -> Result<()> {
    world.node.write(&format!("{IMAGE}/spec/spec.toml"), 0o644, text)?;
    world.spec(text, &[("fleet.pem", &world.ca)])
}

/// Runs nodeprep in a container. The old root becomes `/host` with all that is mounted there, and what is mounted later comes along.
fn run(world: &World, given: Given, words: &[&str]) -> Result<Run> {
    let mut script = format!("mount --bind {IMAGE} {IMAGE} && mount --rbind /dev {IMAGE}/dev && mount -t proc proc {IMAGE}/proc");
    let _ = write!(script, " && cd {IMAGE} && pivot_root . host && cd /");
    // what is needed until nodeprep runs comes from there, with its libraries
    let tool = "/host/usr/bin/env LD_LIBRARY_PATH=/host/usr/lib/$(/host/usr/bin/uname -m)-linux-gnu /host/usr/bin";
    if !given.writes {
        let _ = write!(script, " && {tool}/mount -o remount,bind,ro /host");
    }
    let drop = given.bounding.map(|set| format!("{tool}/setpriv --bounding-set={set} ")).unwrap_or_default();
    let _ = write!(script, " && exec {drop}/host/usr/bin/env -i NODEPREP_SPEC=/spec /usr/bin/nodeprep \"$@\" --root /host --output json");
    let mut line = vec!["unshare", "--mount", "--propagation", "slave", "--uts", "--ipc", "--cgroup"];
    if !given.processes {
        line.extend(["--pid", "--fork", "--kill-child"]);
    }
    if !given.network {
        line.push("--net");
    }
    line.extend(["sh", "-c", &script, "sh"]);
    line.extend(words);
    Run::of(&world.node.try_run(&line)?).with_context(|| words.join(" "))
}

const AUTO: [&str; 3] = ["apply", "--health-timeout", "20"];

/// A first `config_path` restarts the node's containerd once, by the node's systemd; the node's own tool brings the CA into the store;
/// a mirror change restarts nothing; and what verify finds is what it finds on the node.
pub fn on_host(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    // hooks are run by the distribution's own tool; nobody else knows of them
    let hook = "#!/bin/sh\necho run >>/var/tmp/refreshes\n";
    world.node.write("/etc/ca-certificates/update.d/told", 0o755, hook)?;
    world.node.boot()?;
    image(world)?;
    tell(world, &spec(&["fleet"]))?;
    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    let planned = run(world, POD, &["plan"])?;
    ensure!(planned.code == 0, "{:#}", planned.report);
    was(&planned, UNIT, "restart", "planned")?;
    ensure!(planned.runtime("containerd")?["running"]["pid"] == start.pid.parse::<u32>()?, "not its process: {:#}", planned.report);
    ensure!(!planned.runtime("containerd")?["running"]["version"].is_null(), "not its version: {:#}", planned.report);
    let applied = run(world, POD, &AUTO)?;
    ensure!(applied.code == 0 && applied.due().is_empty(), "{:#}", applied.report);
    was(&applied, UNIT, "restart", "done")?;
    ensure!(world.node.start_of(UNIT)?.pid != start.pid, "containerd was not restarted");
    let told = world.node.journal_of_systemd(&cursor, UNIT)?;
    ensure!(told.matches("Started").count() == 1, "not one start: {told}");
    ensure!(world.node.read(BUNDLE)?.contains(world.ca.pair.certificate.trim()), "the CA is not in {BUNDLE}");
    ensure!(world.node.read("/var/tmp/refreshes")? == "run\n", "the node's tool has not run once");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty() && world.upstream.take().is_empty(), "it was not pulled from the mirror");

    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    tell(world, &(spec(&["fleet"]) + "\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"mirror.example:5000/quay.io\"]\n"))?;
    let changed = run(world, POD, &AUTO)?;
    ensure!(changed.code == 0 && !changed.changed().is_empty() && unit(&changed, UNIT).is_none(), "{:#}", changed.report);
    ensure!(world.node.start_of(UNIT)? == start, "a mirror change touched containerd");
    ensure!(world.node.journal_of_systemd(&cursor, UNIT)?.is_empty(), "systemd did something to it");

    let seen = |run: &Run| -> Vec<(String, String, String)> {
        let words = |check: &Value| ["id", "subject", "result"].map(|key| check[key].as_str().unwrap_or_default().to_owned()).into();
        run.report["checks"].as_array().map(|all| all.iter().map(words).collect()).unwrap_or_default()
    };
    let (there, here) = (run(world, POD, &["verify"])?, world.nodeprep(&["verify"])?);
    ensure!(!seen(&here).is_empty() && seen(&there) == seen(&here), "{:#}\non the node: {:#}", there.report, here.report);
    ensure!((there.code, here.code) == (0, 0), "{:#}", there.report);

    let back = run(world, POD, &["revert", "--health-timeout", "20"])?;
    ensure!(back.code == 0, "{:#}", back.report);
    was(&back, UNIT, "restart", "done")?;
    ensure!(!world.node.read(BUNDLE)?.contains(world.ca.pair.certificate.trim()), "the CA is still in {BUNDLE}");
    Ok(())
}

/// A container that cannot see the node's processes, or may not enter where its tools run, says what it lacks; what it cannot activate
/// is due, and the next one that can does it.
pub fn lacking(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.node.boot()?;
    image(world)?;
    tell(world, &spec(&["fleet"]))?;
    let start = world.node.start_of(UNIT)?;
    for given in [Given { processes: false, ..POD }, Given { bounding: Some(USUAL), ..POD }] {
        let planned = run(world, given, &["plan"])?;
        ensure!(text(&planned).contains("hostPID: true") && text(&planned).contains("privileged: true"), "{:#}", planned.report);
    }
    // it cannot be tried whether containerd comes up with its new file either
    let refused = run(world, Given { bounding: Some(USUAL), ..POD }, &AUTO)?;
    ensure!(refused.code == 4 && refused.to_string().contains("CAP_SYS_ADMIN"), "{:#}", refused.report);
    let written = run(world, Given { processes: false, ..POD }, &AUTO)?;
    ensure!(written.code == 9 && written.due() == ["restart containerd.service"], "{:#}", written.report);
    ensure!(written.report["due"].to_string().contains("hostPID"), "{:#}", written.report);
    ensure!(world.node.read(BUNDLE)?.contains(world.ca.pair.certificate.trim()), "the CA is not in {BUNDLE}");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    let applied = run(world, POD, &AUTO)?;
    ensure!(applied.code == 0 && applied.due().is_empty(), "{:#}", applied.report);
    was(&applied, UNIT, "restart", "done")?;
    world.pulls()
}

/// What docs/kubernetes.md says of each privilege: without three of the capabilities it does not go, the others are not missed on this node; its
/// files have to be writable; its network is the one of process 1 in any case, as far as the runtimes are concerned.
pub fn privileges(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.node.boot()?;
    image(world)?;
    tell(world, &spec(&["fleet"]))?;
    for without in ["-sys_admin", "-sys_ptrace", "-sys_chroot"] {
        let planned = run(world, Given { bounding: Some(without), ..POD }, &["plan"])?;
        ensure!(planned.report.to_string().contains("privileged"), "{without}: {:#}", planned.report);
    }
    let config = world.node.read(CONFIG)?;
    let refused = run(world, Given { writes: false, ..POD }, &AUTO)?;
    ensure!(refused.code == 4 && refused.to_string().contains("read-only"), "{:#}", refused.report);
    ensure!(world.node.read(CONFIG)? == config, "{CONFIG} was written");
    let least = Given { bounding: Some("-all,+sys_admin,+sys_ptrace,+sys_chroot"), network: false, ..POD };
    let applied = run(world, least, &AUTO)?;
    ensure!(applied.code == 0 && applied.due().is_empty(), "{:#}", applied.report);
    was(&applied, UNIT, "restart", "done")?;
    // it was tried from the node's network: the container has none
    ensure!(!mirror.asked().is_empty(), "the mirror was not tried");
    world.pulls()
}

/// The step before the DaemonSet goes (packaging/kubernetes/give-back): the pod's first container reverts, and does not end well before what is due is
/// done; after it the agent leaves the node alone.
pub fn give_back(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.node.boot()?;
    image(world)?;
    tell(world, &spec(&["fleet"]))?;
    let config = world.node.read(CONFIG)?;
    ensure!(run(world, POD, &AUTO)?.code == 0, "not applied");
    ensure!(world.node.read(CONFIG)? != config, "{CONFIG} was not changed");
    // as kubelet starts it again and again
    for _ in 0..2 {
        let reverted = run(world, POD, &["revert", "--activate", "reload-only"])?;
        ensure!(reverted.code == 9 && !reverted.due().is_empty(), "{} {:#}", reverted.code, reverted.report);
        ensure!(world.node.read(CONFIG)? == config, "{CONFIG} was not given back");
    }
    world.node.run(&["systemctl", "restart", UNIT])?;
    for _ in 0..2 {
        let reverted = run(world, POD, &["revert", "--activate", "reload-only"])?;
        ensure!(reverted.code == 0 && reverted.due().is_empty(), "{} {:#}", reverted.code, reverted.report);
    }
    let left = run(world, POD, &["apply", "--unattended"])?;
    ensure!(left.code == 11 && world.node.read(CONFIG)? == config, "{} {:#}", left.code, left.report);
    ensure!(run(world, POD, &["resume"])?.code == 0, "not resumed");
    let taken = run(world, POD, &["apply", "--unattended", "--health-timeout", "20"])?;
    ensure!(taken.code == 0 && world.node.read(CONFIG)? != config, "{} {:#}", taken.code, taken.report);
    Ok(())
}
