//! The runtimes: how each pulls an image on the scratch node.

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

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

    /// Pulls; the error inside is what the program said.
    pub fn pull(self, scratch: &Scratch, image: &str) -> Result<Result<(), String>> {
        let mut command = match self {
            Puller::Containerd => return grpc(scratch, "PullImage", &field(1, &field(1, image.as_bytes()))),
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
    grpc(scratch, "ListImages", &[])
}

/// One call of the CRI's image service, by curl: gRPC is a POST over HTTP/2 whose outcome stands in the trailers.
fn grpc(scratch: &Scratch, method: &str, message: &[u8]) -> Result<Result<(), String>> {
    let mut command = scratch.command(40, "curl")?;
    command
        .args(["-sS", "--max-time", "30", "--http2-prior-knowledge", "--unix-socket", "/run/containerd/containerd.sock"])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-D", "-", "-o", "/dev/null", "--data-binary", "@-"])
        .arg(format!("http://localhost/runtime.v1.ImageService/{method}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("curl")?;
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).context("a message of this size")?.to_be_bytes());
    frame.extend_from_slice(message);
    let mut stdin = child.stdin.take().context("curl's standard input")?;
    // curl gives up before it has read anything when there is no socket yet; its own message says so.
    let _ = stdin.write_all(&frame);
    drop(stdin);
    let output = child.wait_with_output().context("curl")?;
    let headers = String::from_utf8_lossy(&output.stdout);
    let field = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Ok(match field("grpc-status:") {
        Some("0") => Ok(()),
        Some(status) => Err(format!("status {status}: {}", field("grpc-message:").unwrap_or_default())),
        None => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

/// A length-delimited field of a protobuf message. References to images are short: two bytes of length are enough.
fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let [high, low] = u16::try_from(data.len()).expect("a reference to an image is short").to_be_bytes();
    let mut encoded = vec![number << 3 | 2];
    match (high << 1) | (low >> 7) {
        0 => encoded.push(low),
        more => encoded.extend([low | 0x80, more]),
    }
    encoded.extend_from_slice(data);
    encoded
}
