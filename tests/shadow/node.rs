//! The node of a case: this machine as `enclose` shows it, with a real containerd.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nodeprep::model::path::NodePath;
use nodeprep::model::tree::{Entry, Tree};
use nodeprep::model::version::Version;
use nodeprep::node::cri::Client;
use nodeprep::node::root::Root;
use nodeprep::node::shadow::{Tried, try_out};
use nodeprep::runtime::containerd::shadow::{Shadow, shadow};
use nodeprep::runtime::{FoundRuntime, Presence, Runtime};

pub const CONFIG: &str = "/etc/containerd/config.toml";
pub const PROGRAM: &str = "/usr/local/bin/containerd";
pub const SOCKET: &str = "/run/containerd/containerd.sock";
/// Its folder of snapshots is named by itself, as somebody does who has a disk for them.
pub const SNAPSHOTS: &str = "/var/lib/snapshots";
pub const METRICS: &str = "127.0.0.1:1338";
pub const NODEPREP: &str = env!("CARGO_BIN_EXE_nodeprep");

/// What a live daemon is configured with: every address that there is, and its own folder of snapshots. It does not tidy up by itself.
pub fn live_config() -> String {
    format!(
        "version = 2\nroot = \"/var/lib/containerd\"\nstate = \"/run/containerd\"\n\
         disabled_plugins = [\"io.containerd.internal.v1.opt\", \"io.containerd.nri.v1.nri\"]\n\
         [grpc]\naddress = \"{SOCKET}\"\n[ttrpc]\naddress = \"{SOCKET}.ttrpc\"\n[debug]\naddress = \"/run/containerd/debug.sock\"\n\
         [metrics]\naddress = \"{METRICS}\"\n\
         [plugins.\"io.containerd.snapshotter.v1.overlayfs\"]\nroot_path = \"{SNAPSHOTS}\"\n\
         [plugins.\"io.containerd.gc.v1.scheduler\"]\nstartup_delay = \"24h\"\n"
    )
}

/// A command as on the node: nothing of our environment reaches it.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).env_clear().env("PATH", "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").stdin(Stdio::null());
    command
}

pub fn ran(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let text = said(&output);
    ensure!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    Ok(text)
}

pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// nodeprep on a spec that needs config.toml changed.
pub fn nodeprep(args: &[&str]) -> Result<Command> {
    let spec = "version = 1\nfallback = \"upstream\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"m.example\"]\n";
    fs::write("/run/spec.toml", spec)?;
    Ok(command(NODEPREP, &[args, &["--spec", "/run/spec.toml", "--probe", "off"]].concat()))
}

/// Polls until it holds; whoever waits for ever is ended by the test's own time limit.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    for _ in 0..1500 {
        if holds() {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("{what} did not come to be")
}

/// The node's own daemon.
pub struct Live(Child);

impl Live {
    pub fn start() -> Result<Self> {
        let log = fs::File::create("/run/live.log")?;
        let daemon = Self(command(PROGRAM, &["--config", CONFIG]).stderr(log).stdout(Stdio::null()).spawn()?);
        until("the live daemon", answers)?;
        Ok(daemon)
    }

    pub fn is_running(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether the node's CRI plugin answers.
pub fn answers() -> bool {
    answers_at(SOCKET)
}

pub fn answers_at(socket: &'static str) -> bool {
    let asked = || Client::connect(&Root::open(Path::new("/")).ok()?, &NodePath::fixed(socket), Duration::from_secs(5)).ok()?.status().ok();
    asked().is_some()
}

/// Which file it is, what it is, and what is in it.
pub type Seen = (u64, u32, Vec<u8>);

/// Every file below these folders.
pub fn everything(folders: &[&str]) -> Result<BTreeMap<PathBuf, Seen>> {
    let mut found = BTreeMap::new();
    let mut todo: Vec<PathBuf> = folders.iter().map(PathBuf::from).collect();
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).with_context(|| path.display().to_string())?;
        if meta.is_dir() {
            for entry in fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        }
        let bytes = if meta.is_file() { fs::read(&path)? } else { Vec::new() };
        found.insert(path, (meta.ino(), meta.mode(), bytes));
    }
    Ok(found)
}

/// The mounts of this case.
pub fn mounts() -> Result<String> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?)
}

/// Process → command line, of everything that runs in this case.
pub fn processes() -> Result<BTreeMap<u32, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let words = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let words = String::from_utf8_lossy(&words).replace('\0', " ").trim().to_owned();
        if !words.is_empty() {
            found.insert(pid, words);
        }
    }
    Ok(found)
}

/// What a shadow says of these files in the place of those that are there; the first is config.toml.
pub fn tried(version: Version, files: &[(&str, &str)], patience: Duration) -> Result<Tried> {
    run(&to_try(version, files)?, patience)
}

pub fn run(shadow: &Shadow, patience: Duration) -> Result<Tried> {
    Ok(try_out(&Root::open(Path::new("/"))?, shadow, Path::new(NODEPREP), patience))
}

pub fn to_try(version: Version, files: &[(&str, &str)]) -> Result<Shadow> {
    let tree = |files: &[(&str, &str)]| -> Result<Tree> {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        for (path, text) in files.iter().chain([&(PROGRAM, "")]) {
            tree.put(&NodePath::new(path)?, text.as_bytes(), 0o644);
        }
        Ok(tree)
    };
    let on = FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: NodePath::fixed(PROGRAM),
        installed: Some(version),
        running: None,
        config: NodePath::new(files[0].0)?,
        unit: None,
        env: Vec::new(),
    };
    shadow(&tree(&[])?, &tree(files)?, &on).context("nothing to try")
}
