//! A node: a writable layer of its own over the root that `prepare` made, booted with the node's own systemd as often as a test wants.
//!
//! The layer lies in memory and outlives a boot, so that [`Node::kill`] followed by [`Node::boot`] is a power cut as the node's files see it (what was written
//! but not synced is not lost, though). It has the network of the test, so that registries and name server go on while the node is down.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::boot::Boot;
use crate::grpc;

/// Where containerd answers.
const SOCKET: &str = "/run/containerd/containerd.sock";

pub struct Node {
    /// Its layers and what else belongs to it.
    folder: PathBuf,
    /// Further options of systemd-nspawn.
    options: Vec<String>,
    /// What is process 1 where that is not systemd.
    init: Option<&'static str>,
    boot: Option<Boot>,
    boots: u32,
}

impl Node {
    /// A node that has never been booted; its files can be changed already. `folder` should lie in memory and have a short path.
    pub fn new(folder: &Path, prepared: &Path) -> Result<Node> {
        for name in ["upper", "work", "root", "containerd", "containers"] {
            let path = folder.join(name);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        let path = |name: &str| folder.join(name).display().to_string();
        let layers = format!("lowerdir={},upperdir={},workdir={}", prepared.join("root").display(), path("upper"), path("work"));
        done(Command::new("mount").args(["-t", "overlay", "-o", &layers, "overlay", &path("root")])).context("the node's layers")?;
        // Snapshots are layers themselves, which cannot lie on a layer. What starts containers loads filters for devices, makes key
        // rings and has networks to set up.
        let options = vec![
            "--system-call-filter=@keyring bpf".to_owned(),
            "--capability=CAP_NET_ADMIN".to_owned(),
            format!("--bind={}:/var/lib/containerd", path("containerd")),
            format!("--bind={}:/var/lib/containers", path("containers")),
        ];
        Ok(Node { folder: folder.to_owned(), options, init: None, boot: None, boots: 0 })
    }

    /// Shows a file of the machine in the node from the next boot on.
    pub fn show(&mut self, file: &Path, inside: &str) {
        self.options.push(format!("--bind-ro={}:{inside}", file.display()));
    }

    /// A program of the node that is its process 1 from the next boot on, in systemd's place.
    pub fn init(&mut self, program: &'static str) {
        self.init = Some(program);
    }

    /// The other way: a package is to bring that file.
    pub fn unshow(&mut self, inside: &str) {
        self.options.retain(|option| option.strip_prefix("--bind-ro=").is_none_or(|rest| !rest.ends_with(&format!(":{inside}"))));
    }

    /// Returns when systemd says that everything has started that is to start at boot; with another process 1, when that one runs.
    pub fn boot(&mut self) -> Result<()> {
        ensure!(self.boot.is_none(), "the node is running");
        self.boots += 1;
        self.boot = Some(Boot::start(&self.folder, self.boots, &self.options, self.init)?);
        Ok(())
    }

    /// Ends the node at once, all its processes with it: a power cut.
    pub fn kill(&mut self) {
        self.boot = None;
    }

    /// Shuts the node down as `systemctl poweroff` does.
    pub fn stop(&mut self) -> Result<()> {
        self.boot.take().context("the node is not running")?.stop()
    }

    fn running(&self) -> Result<&Boot> {
        self.boot.as_ref().context("the node is not running")
    }

    /// What stands for the node in other threads, until it goes down.
    pub fn inside(&self) -> Result<Inside> {
        Ok(Inside { leader: self.running()?.leader })
    }

    /// What the console said since the first boot.
    pub fn console(&self) -> String {
        (1..=self.boots).map(|boot| fs::read_to_string(self.folder.join(format!("console-{boot}"))).unwrap_or_default()).collect()
    }

    /// Its files but for what lies in memory (`/run`, `/tmp`), whether it runs or not.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    pub fn read(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.file(path)).with_context(|| path.to_owned())
    }

    pub fn exists(&self, path: &str) -> bool {
        self.file(path).symlink_metadata().is_ok()
    }

    /// Writes a file as an installer does: beside, then renamed over what is there.
    pub fn write(&self, path: &str, mode: u32, bytes: impl AsRef<[u8]>) -> Result<()> {
        let (file, new) = (self.file(path), self.file(&format!("{path}.new")));
        let parent = file.parent().context("a path with a folder")?;
        fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        fs::write(&new, bytes).with_context(|| path.to_owned())?;
        fs::set_permissions(&new, fs::Permissions::from_mode(mode)).with_context(|| path.to_owned())?;
        fs::rename(&new, &file).with_context(|| path.to_owned())
    }

    /// Brings a file or program of the machine onto the node.
    pub fn install(&self, file: &Path, path: &str) -> Result<()> {
        let mode = fs::metadata(file).with_context(|| file.display().to_string())?.permissions().mode();
        self.write(path, mode & 0o777, fs::read(file).with_context(|| file.display().to_string())?)
    }

    /// Brings all that lies in a folder of the machine onto the node.
    pub fn lay(&self, folder: &Path) -> Result<()> {
        done(Command::new("cp").arg("-a").arg(folder.join(".")).arg(self.root())).map(drop)
    }

    /// Runs a command to its end where nothing is running yet, for `systemctl enable` and its like.
    pub fn offline(&self, words: &[&str]) -> Result<String> {
        done(clean(Command::new("chroot").arg(self.root()).args(words)))
    }

    /// Runs a command to its end on the running node.
    pub fn run(&self, words: &[&str]) -> Result<String> {
        done(&mut self.inside()?.command(words))
    }

    /// The same, however it ends.
    pub fn try_run(&self, words: &[&str]) -> Result<Output> {
        self.inside()?.command(words).output().with_context(|| words.join(" "))
    }

    /// A property of a unit as `systemctl show` tells it.
    pub fn property(&self, unit: &str, name: &str) -> Result<String> {
        Ok(self.run(&["systemctl", "show", "--value", "--property", name, unit])?.trim().to_owned())
    }

    pub fn start_of(&self, unit: &str) -> Result<Start> {
        let property = |name| self.property(unit, name);
        Ok(Start { pid: property("MainPID")?, invocation: property("InvocationID")?, restarts: property("NRestarts")? })
    }

    /// Where the journal ends now.
    pub fn cursor(&self) -> Result<Cursor> {
        self.run(&["journalctl", "--sync"])?;
        let said = self.run(&["journalctl", "--quiet", "--lines=0", "--show-cursor"])?;
        Ok(Cursor(said.trim().strip_prefix("-- cursor: ").with_context(|| format!("no cursor: {said}"))?.to_owned()))
    }

    /// What the journal has of a unit since.
    pub fn journal_since(&self, cursor: &Cursor, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--sync"])?;
        self.run(&["journalctl", "--quiet", "--output=cat", "--after-cursor", &cursor.0, "--unit", unit])
    }

    /// What systemd itself has told of a unit since: starts, stops, reloads.
    pub fn journal_of_systemd(&self, cursor: &Cursor, unit: &str) -> Result<String> {
        self.run(&["journalctl", "--sync"])?;
        let told_of = format!("UNIT={unit}");
        self.run(&["journalctl", "--quiet", "--output=cat", "--after-cursor", &cursor.0, "_PID=1", &told_of])
    }

    /// All that there is to say about the node when a test failed.
    pub fn obituary(&self, folder: &Path) -> Result<()> {
        fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        fs::write(folder.join("console"), self.console()).context("the console")?;
        if self.boot.is_some() && self.init.is_none() {
            fs::write(folder.join("journal"), self.run(&["journalctl", "--no-pager"])?).context("the journal")?;
        }
        Ok(())
    }
}

/// A place in the journal.
pub struct Cursor(String);

/// One start of a unit's process: it changes when the process is another one, however that came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    pub pid: String,
    pub invocation: String,
    /// How often systemd has started it anew by itself.
    pub restarts: String,
}

/// The running node, for one boot.
#[derive(Clone)]
pub struct Inside {
    leader: u32,
}

impl Inside {
    /// A command on the node, with nothing of our own environment. It ends with the node, but is in no control group of it: what is to be in a unit's, start
    /// with `systemd-run`.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &self.leader.to_string(), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"])
            .args(words);
        clean(&mut command);
        command
    }

    /// A file of the running node, those in memory included.
    pub fn file(&self, path: &str) -> PathBuf {
        Path::new("/proc").join(self.leader.to_string()).join("root").join(path.trim_start_matches('/'))
    }

    /// Pulls by CRI, as kubelet does; the error inside is containerd's.
    pub fn pull(&self, image: &str) -> Result<Result<(), String>> {
        self.images("PullImage", image)
    }

    /// The other way, so that the next pull fetches everything again.
    pub fn remove(&self, image: &str) -> Result<Result<(), String>> {
        self.images("RemoveImage", image)
    }

    fn images(&self, method: &str, image: &str) -> Result<Result<(), String>> {
        Ok(self.cri(&format!("ImageService/{method}"), &grpc::image(image))?.map(drop))
    }

    /// One call of containerd's CRI, as `RuntimeService/RunPodSandbox`: the answer's message, or what containerd said.
    pub fn cri(&self, method: &str, message: &[u8]) -> Result<Result<Vec<u8>, String>> {
        grpc::call(self.command(&["curl"]), SOCKET, method, message)
    }
}

/// The environment of a login of root's.
fn clean(command: &mut Command) -> &mut Command {
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    command.stdin(Stdio::null()).env_clear().env("PATH", path).env("HOME", "/root").env("LC_ALL", "C")
}

/// Runs to the end and gives the standard output; an exit status that is not 0 is an error with what was said.
fn done(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?}: {}\n{}{said}", output.status, String::from_utf8_lossy(&output.stdout));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
