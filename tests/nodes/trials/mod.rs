//! The trials, and what they have in common.

mod activation;
mod agent;
mod api;
mod boots;
mod bootstrap;
mod crio;
mod cut;
mod daemonset;
mod edges;
mod facts;
mod first;
mod image;
mod least;
mod managers;
mod outlive;
mod packages;
mod pod;
mod pods;
mod units;

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use crate::world::{APPLY, IMAGE, Registry, World};

pub struct Test {
    pub name: &'static str,
    pub versions: Versions,
    pub run: fn(&mut World) -> Result<()>,
}

/// With which containerd a trial runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Versions {
    /// The node's own.
    Own,
    /// Each that is to be had.
    All,
}

pub const ALL: &[Test] = &[
    Test { name: "first-config-path", versions: Versions::All, run: first::config_path },
    Test { name: "mirror-changes", versions: Versions::All, run: least::mirrors },
    Test { name: "ca-rotation", versions: Versions::All, run: least::rotation },
    Test { name: "stopped-daemon", versions: Versions::Own, run: facts::stopped },
    Test { name: "drop-in", versions: Versions::Own, run: facts::drop_in },
    Test { name: "upgrade", versions: Versions::Own, run: facts::upgrade },
    Test { name: "first-boot", versions: Versions::Own, run: boots::first },
    Test { name: "power-cut-while-due", versions: Versions::Own, run: boots::due },
    Test { name: "killed-apply", versions: Versions::Own, run: cut::killed },
    Test { name: "power-cut-in-apply", versions: Versions::Own, run: cut::power },
    Test { name: "revert", versions: Versions::Own, run: boots::revert },
    Test { name: "revert-in-use", versions: Versions::Own, run: boots::revert_used },
    Test { name: "activation-once", versions: Versions::All, run: activation::once },
    Test { name: "activation-nothing", versions: Versions::Own, run: activation::nothing },
    Test { name: "activation-left", versions: Versions::Own, run: activation::left },
    Test { name: "activation-stopped", versions: Versions::Own, run: activation::stopped },
    Test { name: "activation-kubelet", versions: Versions::Own, run: activation::kubelet },
    Test { name: "activation-rolled-back", versions: Versions::Own, run: activation::rolled_back },
    Test { name: "activation-mute", versions: Versions::Own, run: activation::mute },
    Test { name: "activation-stuck", versions: Versions::Own, run: activation::stuck },
    Test { name: "activation-canary", versions: Versions::Own, run: activation::canary },
    Test { name: "activation-canary-restart", versions: Versions::Own, run: activation::canary_restart },
    Test { name: "activation-pulls-again", versions: Versions::Own, run: activation::pulls_again },
    Test { name: "activation-no-way-back", versions: Versions::Own, run: activation::no_way_back },
    Test { name: "activation-killed", versions: Versions::Own, run: activation::killed },
    Test { name: "outlive-dead", versions: Versions::Own, run: outlive::dead },
    Test { name: "outlive-well", versions: Versions::Own, run: outlive::well },
    Test { name: "outlive-cgroup", versions: Versions::Own, run: outlive::cgroup },
    Test { name: "outlive-stopped", versions: Versions::Own, run: outlive::stopped },
    Test { name: "outlive-power-cut", versions: Versions::All, run: outlive::power_cut },
    Test { name: "outlive-noexec", versions: Versions::Own, run: outlive::noexec },
    Test { name: "outlive-unguarded", versions: Versions::Own, run: outlive::unguarded },
    Test { name: "outlive-remembered", versions: Versions::Own, run: outlive::remembered },
    Test { name: "activation-reload", versions: Versions::Own, run: activation::reload },
    Test { name: "units-start-limit", versions: Versions::Own, run: units::limit },
    Test { name: "units-along", versions: Versions::Own, run: units::along },
    Test { name: "units-stopped-meanwhile", versions: Versions::Own, run: units::stopped },
    Test { name: "crio-believed", versions: Versions::Own, run: crio::believed },
    Test { name: "crio-refused", versions: Versions::Own, run: crio::refused },
    Test { name: "crio-merged", versions: Versions::Own, run: crio::merged },
    Test { name: "podman-api", versions: Versions::Own, run: api::service },
    Test { name: "openrc", versions: Versions::Own, run: managers::openrc },
    Test { name: "restart-command", versions: Versions::Own, run: managers::command },
    Test { name: "pod", versions: Versions::Own, run: pod::on_host },
    Test { name: "pod-lacking", versions: Versions::Own, run: pod::lacking },
    Test { name: "agent", versions: Versions::Own, run: agent::unit },
    Test { name: "daemonset", versions: Versions::Own, run: daemonset::on_node },
    Test { name: "daemonset-takes-over", versions: Versions::Own, run: daemonset::takes_over },
    Test { name: "daemonset-killed", versions: Versions::Own, run: daemonset::killed },
    Test { name: "revert-made-config", versions: Versions::Own, run: edges::made_config },
    Test { name: "revert-without-ca", versions: Versions::Own, run: edges::without_ca },
    Test { name: "revert-never", versions: Versions::Own, run: edges::never },
    Test { name: "progress-on-a-terminal", versions: Versions::Own, run: edges::progress },
    Test { name: "unit-masked", versions: Versions::Own, run: edges::masked },
    Test { name: "disk-full-or-read-only", versions: Versions::Own, run: edges::no_room },
    Test { name: "pods-image-in-use", versions: Versions::All, run: pods::in_use },
    Test { name: "pods-first-config-path", versions: Versions::All, run: pods::config_path },
    Test { name: "pods-kill-mode", versions: Versions::All, run: pods::kill_mode },
    Test { name: "pods-rolled-back", versions: Versions::Own, run: pods::rolled_back },
    Test { name: "pods-new-pause", versions: Versions::All, run: pods::new_pause },
    Test { name: "pods-pause-canary", versions: Versions::Own, run: pods::pause_canary },
    Test { name: "pods-pause-at-first", versions: Versions::All, run: pods::pause_at_first },
    Test { name: "package-deb", versions: Versions::Own, run: packages::deb },
    Test { name: "package-deb-purge", versions: Versions::Own, run: packages::deb_purge },
    Test { name: PACKAGE_RPM, versions: Versions::Own, run: packages::rpm },
    Test { name: IMAGE_TRIAL, versions: Versions::Own, run: image::image },
    Test { name: "bootstrap-stopped", versions: Versions::Own, run: bootstrap::stopped },
    Test { name: "bootstrap-running", versions: Versions::Own, run: bootstrap::running },
];

/// Those that need more than a node.
const PACKAGE_RPM: &str = "package-rpm";
const IMAGE_TRIAL: &str = "container-image";

/// Why a trial cannot be run where nodes can be booted.
pub fn lacking(name: &str) -> Option<String> {
    match name {
        PACKAGE_RPM => crate::packages::no_rpm(),
        IMAGE_TRIAL => image::missing(),
        _ => None,
    }
}

/// The unit of the daemon.
pub const UNIT: &str = "containerd.service";

/// One registry that is a mirror of docker.io.
pub fn mirror(world: &World) -> Result<Registry> {
    world.registry("mirror.example", "127.0.0.2:5000", "docker.io/library/hello")
}

/// The spec for it, with the CAs of these names.
pub fn spec(cas: &[&str]) -> String {
    let mut text = "version = 1\nname = \"fleet\"\nfallback = \"never\"\n".to_owned();
    for name in cas {
        let _ = write!(text, "\n[[ca]]\nname = \"{name}\"\nfile = \"{name}.pem\"\n");
    }
    text + "\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"mirror.example:5000/docker.io\"]\n"
}

/// A running node that has been made true to a spec and pulls through the mirror.
pub fn converged(world: &mut World) -> Result<Registry> {
    let mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    world.done(&APPLY)?;
    world.node.run(&["systemctl", "restart", UNIT])?;
    let again = world.done(&APPLY)?;
    ensure!(again.changed().is_empty() && again.due().is_empty(), "a second run: {again}");
    world.pulls()?;
    ensure!(!mirror.asked().is_empty(), "{IMAGE} was pulled, but not from the mirror");
    Ok(mirror)
}
