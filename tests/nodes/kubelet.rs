//! What a cluster does for the pod of a DaemonSet: folders of keys, the pod itself by CRI, and its end.
//!
//! The pod is a real one, held by containerd's shim and runc on the node, with what the manifest says of it (`manifest`). Two things are not as in a cluster,
//! see `pods`: no share of the processors, and its devices are those that a node of the kit may have.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use crate::grpc::field;
use crate::manifest::{self, Keys, Volume};
use crate::node::Node;
use crate::pods;
use crate::world::World;
use crate::{setting, source};

/// Where the manifest is.
const MANIFEST: &str = "packaging/kubernetes/base/daemonset.yaml";
/// What the image is called on the node.
pub const REPOSITORY: &str = "docker.io/library/nodeprep";
/// Folders of pods, as kubelet has them.
const VOLUMES: &str = "/var/lib/kubelet/pods/nodeprep/volumes";
const LOGS: &str = "/var/log/pods/nodeprep";

/// The pod as the manifest describes it, with these variables besides.
pub fn manifest(variables: &[(&str, &str)]) -> Result<manifest::Pod> {
    let mut pod = manifest::Pod::read(&source().join(MANIFEST))?;
    pod.env.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    Ok(pod)
}

/// The image of nodeprep, as the Containerfile says; `mark` makes another program of it, which does the same. A program that is not static brings its libraries.
pub fn image(node: &Node, mark: &str) -> Result<PathBuf> {
    let folder = Path::new("/run/images").join(format!("nodeprep{mark}"));
    let stripped = World::scratch().join("nodeprep");
    fs::create_dir_all(World::scratch()).context("a scratch folder")?;
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(setting::nodeprep()).status().context("strip")?;
    ensure!(strip.success(), "strip: {strip}");
    let mut program = fs::read(&stripped).context("nodeprep")?;
    program.extend_from_slice(mark.as_bytes());
    node.install(&stripped, "/srv/nodeprep")?;
    let libraries = node.offline(&["sh", "-c", "ldd /srv/nodeprep || true"])?;
    let mut files = vec![("usr/bin/nodeprep".to_owned(), "755", program)];
    for path in libraries.split_whitespace().filter(|word| word.starts_with("/lib") || word.starts_with("/usr")) {
        let path = path.trim_start_matches('/');
        files.push((path.to_owned(), "755", fs::read(node.root().join(path)).with_context(|| path.to_owned())?));
    }
    fs::remove_file(node.root().join("srv/nodeprep")).context("a copy of nodeprep")?;
    let text = fs::read_to_string(source().join("packaging/Containerfile")).context("the Containerfile")?;
    let said = |word: &str| text.lines().filter_map(move |line| line.strip_prefix(word)).collect::<Vec<&str>>();
    let [entry] = said("ENTRYPOINT ")[..] else { bail!("not one entry point") };
    let entry: serde_json::Value = serde_json::from_str(entry).context("the entry point")?;
    crate::image::write_configured(&folder, &files, &json!({ "Entrypoint": entry, "Env": said("ENV ") }))?;
    Ok(folder)
}

/// Writes the keys of a folder as kubelet does: all of them beside, then one link that leads to them.
pub fn keys(node: &Node, kind: Keys, keys: &[(&str, &[u8])]) -> Result<()> {
    let folder = node.root().join(host_folder(kind).trim_start_matches('/'));
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let data = folder.join("..data");
    let before = fs::read_link(&data).ok();
    let number = before.as_ref().and_then(|name| name.to_str()?.rsplit('.').next()?.parse::<u32>().ok()).unwrap_or(0);
    let name = format!("..2026_01_01_00_00_00.{}", number + 1);
    fs::create_dir(folder.join(&name)).with_context(|| name.clone())?;
    for (key, value) in keys {
        fs::write(folder.join(&name).join(key), value).with_context(|| (*key).to_owned())?;
        if !folder.join(key).is_symlink() {
            symlink(Path::new("..data").join(key), folder.join(key)).with_context(|| (*key).to_owned())?;
        }
    }
    let new = folder.join("..data_tmp");
    symlink(&name, &new).context("..data_tmp")?;
    fs::rename(&new, &data).context("..data")?;
    // keys that are gone
    for entry in fs::read_dir(&folder).context("keys")?.flatten() {
        let gone = entry.path().is_symlink() && !entry.path().exists();
        if gone {
            fs::remove_file(entry.path()).context("a key that is gone")?;
        }
    }
    before.map_or(Ok(()), |old| fs::remove_dir_all(folder.join(old)).context("the keys of before"))
}

fn host_folder(kind: Keys) -> String {
    match kind {
        Keys::ConfigMap => format!("{VOLUMES}/kubernetes.io~configmap/spec"),
        Keys::Secret => format!("{VOLUMES}/kubernetes.io~secret/material"),
    }
}

/// A pod that runs.
pub struct Pod {
    sandbox: String,
    container: String,
    log: String,
}

impl Pod {
    /// Starts one. What stands in its resolv.conf and hosts are not the node's.
    pub fn start(world: &World, pod: &manifest::Pod, image: &str, name: &str) -> Result<Pod> {
        ensure!(pod.host_pid && pod.host_network && pod.privileged, "a pod without the node's processes, network or rights: {pod:?}");
        let metadata = [field(1, name.as_bytes()), field(2, name.as_bytes()), field(3, b"nodeprep")].concat();
        // NamespaceOption: network and pid are the node's
        let namespaces = [number(1, 2), number(2, 2)].concat();
        // LinuxPodSandboxConfig.security_context: namespace_options, privileged
        let linux = field(2, &[field(1, &namespaces), number(6, 1)].concat());
        let nowhere = field(1, b"127.0.0.99");
        let sandbox_config = [field(1, &metadata), field(3, LOGS.as_bytes()), field(4, &nowhere), field(8, &linux)].concat();
        let sandbox = pods::id(&pods::call(world, "RuntimeService/RunPodSandbox", &field(1, &sandbox_config))?)?;

        let log = format!("{name}.log");
        let mut config = vec![field(1, &field(1, b"nodeprep"))];
        config.push(field(2, &field(1, pods::identity(world, image)?.as_bytes())));
        config.extend(pod.args.iter().map(|word| field(4, word.as_bytes())));
        config.extend(pod.env.iter().map(|(name, value)| field(6, &[field(1, name.as_bytes()), field(2, value.as_bytes())].concat())));
        for one in &pod.mounts {
            config.push(mount(world, one, name)?);
        }
        // kubelet's own of a pod
        let hosts = format!("{VOLUMES}/../etc-hosts");
        world.node.write(&hosts, 0o644, "127.0.0.1 localhost\n")?;
        config.push(field(7, &[field(1, b"/etc/hosts"), field(2, hosts.as_bytes())].concat()));
        config.push(field(11, log.as_bytes()));
        // LinuxContainerSecurityContext: privileged, namespace_options, readonly_rootfs
        let security = [number(2, 1), field(3, &namespaces), number(7, u8::from(pod.read_only_root))].concat();
        config.push(field(15, &field(2, &security)));
        let request = [field(1, sandbox.as_bytes()), field(2, &config.concat()), field(3, &sandbox_config)].concat();
        let container = pods::id(&pods::call(world, "RuntimeService/CreateContainer", &request)?)?;
        pods::call(world, "RuntimeService/StartContainer", &field(1, container.as_bytes()))?;
        Ok(Pod { sandbox, container, log: format!("{LOGS}/{log}") })
    }

    /// The container's process, as the node counts.
    pub fn pid(&self, world: &World) -> Result<u32> {
        let found = world.containers()?.into_iter().find(|(id, _)| *id == self.container);
        Ok(found.with_context(|| format!("it does not run:\n{}", self.said(world)))?.1)
    }

    /// Its process and that of the pod's pause image.
    pub fn pids(&self, world: &World) -> Result<Vec<u32>> {
        let all = world.containers()?;
        let ours = all.iter().filter(|(id, _)| [&self.container, &self.sandbox].contains(&id));
        let pids: Vec<u32> = ours.map(|(_, pid)| *pid).collect();
        ensure!(pids.len() == 2, "it does not run:\n{}", self.said(world));
        Ok(pids)
    }

    /// What the container has said.
    pub fn said(&self, world: &World) -> String {
        world.node.read(&self.log).unwrap_or_default()
    }

    /// Deletes it as kubelet does: told to end, and killed when the time is over; then nothing is left of it.
    pub fn delete(self, world: &World) -> Result<()> {
        let container = field(1, self.container.as_bytes());
        pods::call(world, "RuntimeService/StopContainer", &[container.clone(), number(2, 10)].concat())?;
        pods::call(world, "RuntimeService/RemoveContainer", &container)?;
        let sandbox = field(1, self.sandbox.as_bytes());
        pods::call(world, "RuntimeService/StopPodSandbox", &sandbox)?;
        pods::call(world, "RuntimeService/RemovePodSandbox", &sandbox).map(drop)
    }
}

/// Ends the control groups of these processes, with all that is in them, at once: no daemon is needed for it.
pub fn kill(world: &World, pids: &[u32]) -> Result<()> {
    for pid in pids {
        let script = format!("echo 1 >/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/{pid}/cgroup)/cgroup.kill");
        world.node.run(&["sh", "-c", &script])?;
    }
    Ok(())
}

/// `Mount`: container_path, host_path, readonly, propagation.
fn mount(world: &World, mount: &manifest::Mount, name: &str) -> Result<Vec<u8>> {
    let from = match &mount.volume {
        Volume::Host(path) => path.clone(),
        Volume::Keys { kind, optional } => {
            let folder = host_folder(*kind);
            ensure!(*optional || world.node.exists(&folder), "{kind:?} is not there, and the pod waits for it");
            world.node.run(&["mkdir", "-p", &folder])?;
            folder
        }
        Volume::Empty => {
            let folder = format!("{VOLUMES}/kubernetes.io~empty-dir/{name}{}", mount.path.replace('/', "-"));
            world.node.run(&["mkdir", "-p", "-m", "777", &folder])?;
            folder
        }
    };
    let mut words = vec![field(1, mount.path.as_bytes()), field(2, from.as_bytes())];
    // kubelet mounts keys read-only whatever the manifest says
    let read_only = mount.read_only || matches!(mount.volume, Volume::Keys { .. });
    words.push(number(3, u8::from(read_only)));
    words.push(number(5, u8::from(mount.follows)));
    Ok(field(7, &words.concat()))
}

/// A field that is a small number.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

/// What kubelet's probes say, by name: the status.
pub fn probed(world: &World, pod: &manifest::Pod) -> Result<BTreeMap<String, String>> {
    let ask = |(name, url): (&String, &String)| -> Result<(String, String)> {
        let output = world.node.try_run(&["curl", "--silent", "--output", "/dev/null", "--write-out", "%{http_code}", url])?;
        Ok((name.clone(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    pod.probes.iter().map(ask).collect()
}
