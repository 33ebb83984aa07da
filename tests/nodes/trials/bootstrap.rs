//! Before kubeadm: `packaging/kubeadm/nodeprep-bootstrap` on a node as an installer leaves it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{UNIT, mirror, spec};
use crate::world::World;

const SCRIPT: &str = "/usr/local/sbin/nodeprep-bootstrap";

fn installed(world: &World) -> Result<()> {
    world.node.install(&Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/kubeadm/nodeprep-bootstrap"), SCRIPT)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])
}

/// Neither started nor configured: the files are there when containerd starts, which is somebody else's doing, and it pulls at once. Then once more, with
/// containerd running, and on a node that has joined its cluster, where the spec of the bootstrap must not go before the agent's.
pub fn stopped(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    installed(world)?;
    world.node.offline(&["systemctl", "disable", UNIT])?;
    world.node.offline(&["rm", "/etc/containerd/config.toml"])?;
    world.node.boot()?;
    world.node.run(&[SCRIPT])?;
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "containerd was started");
    world.node.run(&["systemctl", "start", UNIT])?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");

    let (start, files) = (world.node.start_of(UNIT)?, world.files()?);
    world.node.run(&[SCRIPT]).context("once more")?;
    ensure!(world.files()? == files && world.node.start_of(UNIT)? == start, "the second time is not nothing");

    world.node.write("/etc/kubernetes/kubelet.conf", 0o600, "")?;
    let files = world.files()?;
    world.node.write("/etc/nodeprep/spec.toml", 0o644, spec(&["fleet"]).replace("docker.io", "quay.io"))?;
    world.node.run(&[SCRIPT]).context("on a node of a cluster")?;
    world.spec(&spec(&["fleet"]), &[])?;
    ensure!(world.files()? == files, "the bootstrap has changed a node that is part of a cluster");
    let leaked = world.upstream.take();
    ensure!(leaked.is_empty(), "the upstream was asked: {leaked:?}");
    Ok(())
}

/// Running, as a package starts it, and not configured: it is restarted where it has to be. Before the mirror is there nothing is changed, and kubeadm is told not to go on.
pub fn running(world: &mut World) -> Result<()> {
    installed(world)?;
    // Its name is known before it is there: containerd looks at this file only every few seconds.
    let hosts = world.node.read("/etc/hosts").unwrap_or_default();
    world.node.write("/etc/hosts", 0o644, format!("{hosts}127.0.0.2 mirror.example\n"))?;
    world.node.boot()?;
    let early = world.node.try_run(&["env", "NODEPREP_BOOTSTRAP_PATIENCE=0", SCRIPT])?;
    ensure!(early.status.code() == Some(8), "without a mirror: {}\n{}", early.status, String::from_utf8_lossy(&early.stdout));
    let docker = world.node.read("/etc/containerd/certs.d/docker.io/hosts.toml").unwrap_or_default();
    ensure!(!docker.contains("mirror.example"), "a mirror that is not there was configured: {docker}");
    let mirror = mirror(world)?;
    world.node.run(&[SCRIPT]).context("with a mirror")?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    let start = world.node.start_of(UNIT)?;
    world.node.run(&[SCRIPT]).context("once more")?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was restarted for nothing");
    Ok(())
}
