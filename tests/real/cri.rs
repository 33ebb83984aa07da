//! What nodeprep's own client asks of containerd over the CRI, and what `verify` and `plan` make of the answers.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeprep::model::cri::CriError;
use nodeprep::model::path::NodePath;
use nodeprep::node::cri::Client;
use nodeprep::node::root::Root;
use serde_json::Value;

use crate::case::{Case, Demand};
use crate::certificate::Authority;
use crate::node::Scratch;
use crate::programs::Programs;
use crate::registry::Registry;
use crate::{image, pull, round};

const MIRROR: &str = "127.0.0.2:5443";
const IMAGE: &str = "docker.io/library/hello:1";
const MISSING: &str = "docker.io/library/other:1";
const PATIENCE: Duration = Duration::from_secs(20);

pub fn run(what: &Path, programs: &Programs) -> Result<()> {
    round::end_in_time();
    let scratch = Scratch::of(what, programs);
    let layout = scratch.folder.join("image");
    image::write(&layout)?;
    let demand = Demand {
        listen: MIRROR.to_owned(),
        plain: true,
        holds: ["docker.io/library/hello", "quay.io/team/pause"].map(Into::into).to_vec(),
        ..Demand::default()
    };
    let case = Case { folder: what.to_owned(), registries: vec![demand.clone()], containerd: true, closed: true, ..Case::default() };
    scratch.furnish(&case, programs)?;
    let (known, unknown) = (Authority::new("real test CA")?, Authority::new("some other CA")?);
    let registry = Registry::start(&demand, &scratch.folder.join("registry"), &known, &unknown, &scratch.folder.join("self.pem"))?;
    registry.fill(&layout)?;
    let spec = spec(&scratch, "")?;
    let (code, said) = nodeprep(&scratch.root(), "apply --probe off --activate never", &spec)?;
    ensure!(code == 0, "apply: {code}\n{said}");
    let daemon = pull::start_containerd(&scratch, 20)?;
    let root = Root::open(&scratch.view())?;
    // the daemon's own sockets, where nodeprep can write, too
    let (from, to) = (scratch.view().join("run"), scratch.root().join("run"));
    let output = Command::new("mount").arg("--bind").args([&from, &to]).output()?;
    ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    asked(&root, programs)?;
    verified(&scratch, &spec)?;
    new_pause(&scratch, &root)?;
    stop(daemon)?;
    not_loaded(&scratch, &root)
}

fn socket() -> NodePath {
    NodePath::fixed("/run/containerd/containerd.sock")
}

/// Every call.
fn asked(root: &Root, programs: &Programs) -> Result<()> {
    let mut client = Client::connect(root, &socket(), PATIENCE)?;
    let version = programs.folder().and_then(Path::file_name).map_or("1.6.20".into(), |name| name.to_string_lossy().into_owned());
    ensure!(client.program().name == "containerd" && client.program().version.contains(&version), "{:?}", client.program());
    let health = client.status()?;
    ensure!(health.is_ready() && health.condition("NetworkReady").is_some(), "{health:?}");
    ensure!(client.image_status(IMAGE)?.is_none() && client.images()?.is_empty(), "there are images already");
    let name = client.pull(IMAGE, PATIENCE)?;
    let stored = client.image_status(IMAGE)?.context("it was pulled and is not there")?;
    ensure!(stored.tags == [IMAGE] && name == stored.id, "{name}: {stored:?}");
    ensure!(client.images()? == [stored], "another image");
    ensure!(client.containers()?.is_empty() && client.pods()? == 0, "there are containers");
    // every endpoint answers 404, and that is how it is said
    match client.pull(MISSING, PATIENCE) {
        Err(CriError::Said { call: "PullImage", message, .. }) if message.contains("not found") => {}
        other => bail!("{MISSING}: {other:?}"),
    }
    // a reference that is none, and a time that is too short: the connection outlives both
    ensure!(matches!(client.pull("A/b:c:d", PATIENCE), Err(CriError::Said { .. })), "a bad reference");
    ensure!(matches!(client.pull(IMAGE, Duration::ZERO), Err(CriError::Late { .. } | CriError::Said { .. })), "no time");
    client.status()?;
    Ok(())
}

/// `verify` says the same.
fn verified(scratch: &Scratch, spec: &Path) -> Result<()> {
    let (code, said) = nodeprep(&scratch.root(), &format!("verify --output json --pull {IMAGE}"), spec)?;
    let report: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(code == 0, "verify: {code}\n{said}");
    ensure!(result(&report, "runtime") == ["ok"] && result(&report, "pull") == ["ok"], "{said}");
    let (code, said) = nodeprep(&scratch.root(), &format!("verify --pull {MISSING} --pull {IMAGE}"), spec)?;
    let line = format!("failed [pull] containerd: {MISSING}");
    ensure!(code == 8 && said.contains(&line) && said.contains("not found"), "verify --pull: {code}\n{said}");
    Ok(())
}

fn result<'a>(report: &'a Value, id: &str) -> Vec<&'a str> {
    let checks = report["checks"].as_array().into_iter().flatten().filter(|check| check["id"] == id);
    checks.filter_map(|check| check["result"].as_str()).collect()
}

/// A new pause image in a registry that the running daemon is not told of yet: it is pulled before the key changes, or the key stays.
fn new_pause(scratch: &Scratch, view: &Root) -> Result<()> {
    let config = || fs::read_to_string(scratch.root().join("etc/containerd/config.toml"));
    let with = |image: &str, source: &str| {
        let mirror = format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"http://{MIRROR}/{source}\"]\n");
        spec(scratch, &format!("{mirror}[runtime]\npause_image = \"{image}\"\n"))
    };
    let apply = |image, source, probe: &str| nodeprep(&scratch.root(), &format!("-vv apply --probe {probe}"), &with(image, source)?);
    let hosts = |source: &str| scratch.root().join(format!("etc/containerd/certs.d/{source}/hosts.toml")).exists();

    let missing = "quay.io/team/other:1";
    let (code, said) = nodeprep(&scratch.root(), "plan --probe require", &with(missing, "quay.io")?)?;
    ensure!(code == 8 && said.contains("error[kept-back]") && said.contains(missing), "plan: {code}\n{said}");
    let (code, said) = apply(missing, "quay.io", "require")?;
    ensure!(code == 8 && said.contains("containerd keeps its pause image: quay.io/team/other:1 is not in its store"), "{code}\n{said}");
    ensure!(!config()?.contains("pause") && hosts("quay.io"), "not kept back, or the rest was:\n{}", config()?);

    let image = "quay.io/team/pause:1";
    let mut client = Client::connect(view, &socket(), PATIENCE)?;
    ensure!(client.image_status(image)?.is_none(), "it is there already");
    // its registry is as unknown as at first
    let (code, said) = apply(IMAGE, "ghcr.io", "off")?;
    ensure!(code == 0 && !hosts("quay.io"), "{code}\n{said}");
    let (code, said) = nodeprep(&scratch.root(), "plan --probe require", &with(image, "quay.io")?)?;
    ensure!(code == 0 && said.contains("it is pulled before the key changes"), "plan: {code}\n{said}");
    ensure!(client.image_status(image)?.is_none(), "plan has pulled");
    let (code, said) = apply(image, "quay.io", "require")?;
    ensure!(code == 0 && said.contains("quay.io") && said.contains("config.toml") && !said.contains("frame"), "{code}\n{said}");
    ensure!(client.image_status(image)?.is_some() && config()?.contains(image) && hosts("quay.io"), "{said}\n{}", config()?);
    // what is in the store needs nobody
    let (code, said) = apply(IMAGE, "quay.io", "require")?;
    ensure!(code == 0 && config()?.contains(IMAGE), "{code}\n{said}");
    // what cannot be had stays away, and what an earlier run has set stays, until somebody insists
    let (code, said) = apply(missing, "quay.io", "require")?;
    ensure!(code == 8 && config()?.contains(IMAGE) && !config()?.contains(missing), "{code}\n{said}\n{}", config()?);
    let (code, said) = apply(missing, "quay.io", "warn")?;
    ensure!(code == 0 && said.contains("warning[pause-image-missing]") && config()?.contains(missing), "{code}\n{said}");
    Ok(())
}

/// `mirrors` beside `config_path` (T58): the daemon is up, and serves no CRI.
fn not_loaded(scratch: &Scratch, root: &Root) -> Result<()> {
    let config = scratch.root().join("etc/containerd/config.toml");
    let text = fs::read_to_string(&config)?;
    let mirrors = "\n[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"quay.io\"]\nendpoint = [\"http://127.0.0.2:5443\"]\n";
    fs::write(&config, text + mirrors)?;
    let daemon = pull::spawn_containerd(scratch)?;
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        match Client::connect(root, &socket(), PATIENCE) {
            Err(error @ CriError::NotServed { .. }) => break error,
            // it has not come up yet
            Err(CriError::Absent { .. } | CriError::Deserted { .. }) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(50));
            }
            other => bail!("not NotServed: {other:?}"),
        }
    };
    ensure!(error.to_string().contains("unknown service runtime.v1.RuntimeService"), "{error}");
    // what kubelet and crictl say of it (docs/troubleshooting.md)
    let said = loop {
        let said = pull::answers(scratch)?.err().unwrap_or_default();
        // it answers before it has read the question; curl shows that only when it has sent it by then
        if !said.starts_with("curl: ") || Instant::now() >= deadline {
            break said;
        }
    };
    ensure!(said.contains("unknown service runtime.v1.ImageService"), "{said}");
    let (code, said) = without_spec(&scratch.root(), "verify --without-spec")?;
    let line = "failed [runtime] containerd: /run/containerd/containerd.sock";
    ensure!(code == 8 && said.contains(line) && said.contains("failed to load plugin"), "verify: {code}\n{said}");
    stop(daemon)
}

fn stop(mut daemon: Child) -> Result<()> {
    kill(Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGTERM)?;
    daemon.wait()?;
    Ok(())
}

fn spec(scratch: &Scratch, more: &str) -> Result<std::path::PathBuf> {
    let path = scratch.folder.join("spec.toml");
    let text = format!(
        "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"http://{MIRROR}/docker.io\"]\n{more}"
    );
    fs::write(&path, text)?;
    Ok(path)
}

fn nodeprep(root: &Path, words: &str, spec: &Path) -> Result<(i32, String)> {
    without_spec(root, &format!("{words} --spec {}", spec.display()))
}

fn without_spec(root: &Path, words: &str) -> Result<(i32, String)> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    let output = command.args(words.split(' ')).arg("--root").arg(root).env("HOME", "/root").output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let more = String::from_utf8_lossy(&output.stderr);
    // what is read as JSON is alone on its stream
    Ok((output.status.code().unwrap_or(-1), if words.contains("json") { said } else { said + &more }))
}
