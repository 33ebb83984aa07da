//! The runtimes: how each pulls an image on the scratch node.

use std::fs::File;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::grpc;
use crate::node::Scratch;

/// What pulls, and as which runtime `explain` speaks of it. skopeo reads the same files as podman through the same library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Puller {
    Containerd,
    Skopeo,
    Podman,
}

impl Puller {
    pub fn runtime(self) -> &'static str {
        match self {
            Puller::Containerd => "containerd",
            Puller::Skopeo | Puller::Podman => "podman",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Puller::Containerd => "containerd",
            Puller::Skopeo => "skopeo",
            Puller::Podman => "podman",
        }
    }

    /// Pulls; the error inside is what the program said.
    pub fn pull(self, scratch: &Scratch, image: &str) -> Result<Result<(), String>> {
        let mut command = match self {
            Puller::Containerd => return call(scratch, "PullImage", &grpc::image(image)),
            Puller::Skopeo => {
                let mut command = scratch.command(30, "skopeo")?;
                command.args(["copy", &format!("docker://{image}"), "dir:/tmp/copy"]);
                command
            }
            Puller::Podman => {
                let mut command = scratch.command(30, "podman")?;
                // vfs, because overlay needs modules and a file system that a test machine may lack.
                command.args(["--storage-driver", "vfs", "pull", "--quiet", image]);
                command
            }
        };
        let output = command.output().with_context(|| format!("{self:?}"))?;
        Ok(if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()) })
    }
}

/// containerd on the scratch node, started as its unit does: the configuration is where nodeprep finds it.
pub fn start_containerd(scratch: &Scratch, seconds: u64) -> Result<Child> {
    let path = log(scratch);
    let mut child = spawn_containerd(scratch)?;
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let Err(said) = answers(scratch)? else { return Ok(child) };
        if let Some(status) = child.try_wait().context("containerd")? {
            bail!("containerd ended with {status}; see {}", path.display());
        }
        ensure!(Instant::now() < deadline, "containerd serves no images: {said}; see {}", path.display());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The same, without waiting for it to serve anything.
pub fn spawn_containerd(scratch: &Scratch) -> Result<Child> {
    let path = log(scratch);
    let log = File::create(&path).with_context(|| path.display().to_string())?;
    scratch.command(300, "containerd")?.stdout(log.try_clone().context("the log")?).stderr(log).spawn().context("containerd")
}

fn log(scratch: &Scratch) -> PathBuf {
    scratch.folder.join("containerd.log")
}

/// Whether containerd serves images; the error inside is why not.
pub fn answers(scratch: &Scratch) -> Result<Result<(), String>> {
    call(scratch, "ListImages", &[])
}

/// One call of the CRI's image service.
fn call(scratch: &Scratch, method: &str, message: &[u8]) -> Result<Result<(), String>> {
    let method = format!("ImageService/{method}");
    Ok(grpc::call(scratch.command(40, "curl")?, "/run/containerd/containerd.sock", &method, message)?.map(drop))
}
