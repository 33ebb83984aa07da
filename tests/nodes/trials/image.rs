//! The container image: what `packaging/image` makes of the program under test, imported and run on a node.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};

use super::{UNIT, mirror, spec};
use crate::world::World;
use crate::{setting, source};

const NAME: &str = "localhost/nodeprep:trial";

/// Why it cannot be tried: only a program without libraries runs in it.
pub fn missing() -> Option<String> {
    let program = std::fs::read(setting::nodeprep()).unwrap_or_default();
    // the header of a program that wants a loader
    let wants_loader = program.windows(12).take(4096).any(|bytes| bytes.starts_with(b"/lib64/ld-l") || bytes.starts_with(b"/lib/ld-lin"));
    if wants_loader {
        return Some("the program under test is not static: make dist-test tries the one that make dist has built".to_owned());
    }
    (!source().join("target/tools/image/root/usr/bin/buildah").exists())
        .then(|| "there is no buildah: run packaging/tools/prepare target/tools image".to_owned())
}

/// Runs the image with the node's root at /host, or without; unprivileged, because the node itself may not give all rights away.
fn run(world: &World, name: &str, host: bool, words: &[&str]) -> Result<Output> {
    let mut line = vec!["ctr", "--namespace", "k8s.io", "run", "--rm", "--net-host", "--cpu-shares=0"];
    if host {
        line.extend(["--mount", "type=bind,src=/,dst=/host,options=rbind:rslave"]);
    }
    line.extend([NAME, name, "/usr/bin/nodeprep"]);
    line.extend(words);
    world.node.try_run(&line)
}

fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// It holds the program and the CA roots and nothing else; it makes the node at /host true to the spec; without that mount it does nothing.
pub fn image(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    let archive = World::scratch().join("image.tar");
    std::fs::create_dir_all(World::scratch()).context("a scratch folder")?;
    let built = Command::new(source().join("packaging/image"))
        .arg(setting::nodeprep())
        .arg(&archive)
        .arg(NAME)
        .output()
        .context("packaging/image")?;
    ensure!(built.status.success(), "packaging/image: {}", said(&built));
    world.node.install(&archive, "/srv/image.tar")?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    world.node.run(&["ctr", "--namespace", "k8s.io", "images", "import", "/srv/image.tar"])?;
    world.node.run(&["ctr", "--namespace", "k8s.io", "images", "mount", NAME, "/mnt"])?;
    let files = world.node.run(&["find", "/mnt", "-type", "f"])?;
    world.node.run(&["ctr", "--namespace", "k8s.io", "images", "unmount", "/mnt"])?;
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    ensure!(files == ["/mnt/etc/ssl/certs/ca-certificates.crt", "/mnt/usr/bin/nodeprep"], "in the image there is {files:?}");

    let before = world.files()?;
    let alone = run(world, "alone", false, &["apply", "--spec", "/host/etc/nodeprep"])?;
    ensure!(!alone.status.success(), "without the node's root: {}", said(&alone));
    ensure!(world.files()? == before, "without the node's root something was changed");

    // a container like any other cannot try a config.toml, and says so
    let mut words = vec!["apply", "--spec", "/host/etc/nodeprep", "--activate", "never", "--probe", "off"];
    let untried = said(&run(world, "untried", true, &words)?);
    ensure!(untried.contains("error[preflight-impossible]") && untried.contains("CAP_SYS_ADMIN"), "{untried}");
    words.push("--no-preflight");
    let applied = run(world, "applied", true, &words)?;
    ensure!(applied.status.success(), "{}", said(&applied));
    let hosts = world.node.read("/etc/containerd/certs.d/docker.io/hosts.toml")?;
    ensure!(hosts.contains("mirror.example:5000"), "{hosts}");
    world.node.run(&["systemctl", "restart", UNIT])?;
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "the mirror was not asked");
    Ok(())
}
