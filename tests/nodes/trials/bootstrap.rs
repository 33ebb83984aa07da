//! Before kubeadm: `packaging/kubeadm/nodeprep-bootstrap` on a node as an installer leaves it.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use super::{UNIT, mirror, spec};
use crate::responder::Answer;
use crate::world::{Registry, World};

pub const SCRIPT: &str = "/usr/local/sbin/nodeprep-bootstrap";

/// A web server that has the spec, and a certificate of our CA.
pub struct Server {
    pub url: String,
    pub registry: Registry,
}

/// Serves this spec, with the CA in it that it names; the node knows the server's name.
pub fn server(world: &World, text: &str) -> Result<Server> {
    let inline = format!("pem = \"\"\"\n{}\"\"\"", world.ca.pair.certificate);
    let text = text.replace("file = \"fleet.pem\"", &inline);
    let registry = world.server("files.example", "127.0.0.5:443", move |ask| match ask.path() {
        "/spec.toml" => Answer::status(200).body("application/toml", text.clone()),
        _ => Answer::status(404),
    })?;
    Ok(Server { url: "https://files.example/spec.toml".to_owned(), registry })
}

/// Brings the step of the bootstrap onto the node.
pub fn script(world: &World) -> Result<()> {
    world.node.install(&Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/kubeadm/nodeprep-bootstrap"), SCRIPT)
}

fn installed(world: &World) -> Result<()> {
    script(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])
}

/// Neither started nor configured, and the spec comes from a server: the files are there when containerd starts, which is somebody else's doing, and it pulls at once. Then once more, with
/// containerd running, and on a node that has joined its cluster, where the spec of the bootstrap must not go before the agent's.
pub fn stopped(world: &mut World) -> Result<()> {
    const CA: &str = "/etc/nodeprep/fleet.pem";
    let mirror = mirror(world)?;
    let server = server(world, &spec(&["fleet"]))?;
    installed(world)?;
    world.node.offline(&["systemctl", "disable", UNIT])?;
    world.node.offline(&["rm", "/etc/containerd/config.toml"])?;
    world.node.boot()?;
    world.node.run(&[SCRIPT, "--spec", &server.url, "--spec-ca", CA])?;
    ensure!(!server.registry.asked().is_empty(), "the server was not asked for the spec");
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "containerd was started");
    world.node.run(&["systemctl", "start", UNIT])?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");

    let (start, files) = (world.node.start_of(UNIT)?, world.files()?);
    world.node.run(&[SCRIPT, "--spec", &server.url, "--spec-ca", CA]).context("once more")?;
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
    world.node.write("/etc/hosts", 0o644, format!("{hosts}127.0.0.2 mirror.example\n127.0.0.5 files.example\n"))?;
    world.node.boot()?;
    let early = world.node.try_run(&["env", "NODEPREP_BOOTSTRAP_PATIENCE=0", SCRIPT])?;
    ensure!(early.status.code() == Some(8), "without a mirror: {}\n{}", early.status, String::from_utf8_lossy(&early.stdout));
    let docker = world.node.read("/etc/containerd/certs.d/docker.io/hosts.toml").unwrap_or_default();
    ensure!(!docker.contains("mirror.example"), "a mirror that is not there was configured: {docker}");
    // nor is the server of a spec, which is waited for as long
    let spec = ["--spec", "https://files.example/spec.toml", "--spec-ca", "/etc/nodeprep/fleet.pem"];
    let early = world.node.try_run(&[&["env", "NODEPREP_BOOTSTRAP_PATIENCE=0", SCRIPT], &spec[..]].concat())?;
    let said = String::from_utf8_lossy(&early.stderr);
    ensure!(early.status.code() == Some(69) && said.contains("given up after 0 seconds"), "without a server: {}\n{said}", early.status);
    let mirror = mirror(world)?;
    world.node.run(&[SCRIPT]).context("with a mirror")?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    let start = world.node.start_of(UNIT)?;
    world.node.run(&[SCRIPT]).context("once more")?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was restarted for nothing");
    Ok(())
}
