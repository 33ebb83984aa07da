//! Pods that really run: asked for by CRI as kubelet does, held by containerd's shims and runc, made of images of our own.
//!
//! What differs from a cluster's node: pods have the node's network, so that no CNI is needed, and they get no share of the processors, since a machine for
//! tests seldom has a controller for them in the unified hierarchy. Their control groups are there, as runc makes them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::node::Node;
use crate::world::World;
use crate::{grpc, setting};

/// What a container of ours does.
const SLEEP: &str = "/usr/bin/sleep";
/// In the namespace of kubelet's images and containers.
const CTR: [&str; 3] = ["ctr", "--namespace", "k8s.io"];

/// An image whose container sleeps and holds its name in `/which`; as a pause image it will do as well as any.
pub fn image(node: &Node, name: &str) -> Result<PathBuf> {
    let folder = Path::new("/run/images").join(name);
    let mut files = vec![("which".to_owned(), "644", name.as_bytes().to_vec())];
    let told = node.offline(&["ldd", SLEEP])?;
    let libraries = told.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.chain([SLEEP]) {
        let path = path.trim_start_matches('/');
        let file = node.root().join(path);
        files.push((path.to_owned(), "755", fs::read(&file).with_context(|| file.display().to_string())?));
    }
    crate::image::write_program(&folder, &files, &[SLEEP, "infinity"])?;
    Ok(folder)
}

/// Prepares a node that is not booted yet for pods with this pause image: what a trial's version of containerd brings along, and the settings.
pub fn furnish(node: &Node, pause: &str) -> Result<()> {
    if let Some(containerd) = setting::containerd() {
        for name in ["containerd-shim-runc-v2", "ctr"] {
            node.install(&containerd.with_file_name(name), &format!("/usr/bin/{name}"))?;
        }
    }
    let table = "[plugins.\"io.containerd.grpc.v1.cri\"]\n";
    let config = node.read(CONFIG)?;
    ensure!(config.matches(table).count() == 1, "where are the settings of CRI?\n{config}");
    // Nobody may lower a process's score in a node, and nobody has to.
    let ours = format!("{table}sandbox_image = \"{pause}\"\nrestrict_oom_score_adj = true\n");
    node.write(CONFIG, 0o644, config.replace(table, &ours))?;
    node.write("/usr/local/sbin/runc", 0o755, RUNC)
}

/// Before the distribution's in the search path: what CRI always asks for goes, and nothing else.
const RUNC: &str = r#"#!/bin/sh
for word; do
  [ "$before" != --bundle ] || sed -i 's/"cpu":{"shares":2}/"cpu":{}/' "$word/config.json"
  before=$word
done
exec /usr/sbin/runc "$@"
"#;

const CONFIG: &str = "/etc/containerd/config.toml";

/// Brings an image into containerd's store without any registry, as a node comes with it.
pub fn import(node: &Node, layout: &Path, repository: &str) -> Result<()> {
    let tar = format!("/srv/{}.tar", layout.file_name().context("a name")?.to_string_lossy());
    let file = node.root().join(tar.trim_start_matches('/'));
    let written = Command::new("tar").arg("--create").arg("--file").arg(&file).arg("--directory").arg(layout).arg(".").status();
    ensure!(written.context("tar")?.success(), "tar");
    node.run(&[&CTR[..], &["images", "import", "--base-name", repository, &tar]].concat()).map(drop)
}

/// One pod with one container.
pub struct Pod {
    sandbox: String,
    container: String,
}

impl Pod {
    /// Starts it; its container has the pod's name. As kubelet does, the image is named by its identity in the store, and what it was called beside it.
    pub fn start(world: &World, name: &str, image: &str) -> Result<Pod> {
        let called = grpc::field(18, image.as_bytes());
        Self::start_of(world, name, &[grpc::field(1, identity(world, image)?.as_bytes()), called].concat())
    }

    /// As older kubelets do: the identity alone.
    pub fn start_nameless(world: &World, name: &str, image: &str) -> Result<Pod> {
        Self::start_of(world, name, &grpc::field(1, identity(world, image)?.as_bytes()))
    }

    fn start_of(world: &World, name: &str, image: &[u8]) -> Result<Pod> {
        let config = sandbox(name);
        let sandbox = id(&call(world, "RuntimeService/RunPodSandbox", &grpc::field(1, &config))?)?;
        // CreateContainerRequest: pod_sandbox_id, config, sandbox_config; ContainerConfig: metadata, image
        let container = [grpc::field(1, &grpc::field(1, name.as_bytes())), grpc::field(2, image)].concat();
        let request = [grpc::field(1, sandbox.as_bytes()), grpc::field(2, &container), grpc::field(3, &config)].concat();
        let container = id(&call(world, "RuntimeService/CreateContainer", &request)?)?;
        call(world, "RuntimeService/StartContainer", &grpc::field(1, container.as_bytes()))?;
        Ok(Pod { sandbox, container })
    }

    /// Ends it, and nothing is left of it.
    pub fn end(self, world: &World) -> Result<()> {
        let sandbox = grpc::field(1, self.sandbox.as_bytes());
        call(world, "RuntimeService/StopPodSandbox", &sandbox)?;
        call(world, "RuntimeService/RemovePodSandbox", &sandbox).map(drop)
    }

    /// Its two processes: that of the pause image and that of the container.
    pub fn processes(&self, world: &World) -> Result<[Process; 2]> {
        let all = world.containers()?;
        let of = |id: &String| {
            let found = all.iter().find(|(known, _)| known == id);
            process(world, found.with_context(|| format!("{id} does not run"))?.1)
        };
        Ok([of(&self.sandbox)?, of(&self.container)?])
    }
}

/// A process, and none that has got its number later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: u32,
    /// In clock ticks since the machine's boot.
    start: String,
    /// What its `/which` says: of which image it is.
    pub image: String,
}

/// Of all that runs, by the identity of container or sandbox.
pub fn processes(world: &World) -> Result<BTreeMap<String, Process>> {
    world.containers()?.into_iter().map(|(id, pid)| Ok((id, process(world, pid)?))).collect()
}

fn process(world: &World, pid: u32) -> Result<Process> {
    let told = world.node.run(&["cat", &format!("/proc/{pid}/stat")])?;
    // proc_pid_stat(5): field 22, the 20th behind the name
    let start = told.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().nth(19)).context("its start")?.to_owned();
    let image = world.node.run(&["cat", &format!("/proc/{pid}/root/which")])?;
    Ok(Process { pid, start, image })
}

/// What an image in the store is called by its content: `ImageStatusResponse` begins with it.
pub fn identity(world: &World, image: &str) -> Result<String> {
    let told = call(world, "ImageService/ImageStatus", &grpc::image(image))?;
    let told = String::from_utf8_lossy(&told);
    let found = told.find("sha256:").and_then(|at| told.get(at..at + "sha256:".len() + 64));
    Ok(found.with_context(|| format!("{image} is not in the store"))?.to_owned())
}

pub fn call(world: &World, method: &str, message: &[u8]) -> Result<Vec<u8>> {
    let outcome = world.node.inside()?.cri(method, message)?;
    outcome.map_err(|said| anyhow::anyhow!("{method}: {said}"))
}

/// `PodSandboxConfig`: metadata, log_directory, linux. One with the node's network: security_context, namespace_options, network = NODE.
fn sandbox(name: &str) -> Vec<u8> {
    let metadata = [grpc::field(1, name.as_bytes()), grpc::field(2, name.as_bytes()), grpc::field(3, b"trial")].concat();
    let network = grpc::field(2, &grpc::field(1, &[1 << 3, 2]));
    [grpc::field(1, &metadata), grpc::field(8, &network)].concat()
}

/// `RunPodSandboxResponse`, `CreateContainerResponse`: a field with an identity, which is 64 characters.
pub fn id(message: &[u8]) -> Result<String> {
    let id = message.strip_prefix(&[1 << 3 | 2, 64]).and_then(|id| id.get(..64)).with_context(|| format!("no identity: {message:?}"))?;
    Ok(std::str::from_utf8(id).context("an identity")?.to_owned())
}
