//! The scratch node: a folder that looks like the root of a stock node to nodeprep, and the view of it that its runtimes get (`enclose`).

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::case::Case;
use crate::programs::Programs;
use crate::{prepared, source};

/// Where `enclose` shows the unpacked programs inside the view.
const PROGRAMS: &str = "/opt";

/// Folders of every node that a fixture cannot hold because they are empty there; `enclose` mounts over some of them.
const FOLDERS: [&str; 24] = [
    "etc/cni/net.d",
    "usr/bin",
    "usr/lib/systemd/system",
    "usr/local/share/ca-certificates",
    "usr/share/ca-certificates",
    "etc/ssl/certs",
    "etc/systemd/system",
    "etc/containers/registries.conf.d",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "opt",
    "root",
    "home",
    "srv",
    "mnt",
    "var/tmp",
    "var/cache",
    "var/log",
    "var/lib/dpkg",
    "var/lib/containerd",
    "var/lib/containers",
];

/// What the packages bring that nodeprep looks at or that the runtimes read.
const FROM_PACKAGES: [&str; 8] = [
    "usr/bin/containerd",
    "usr/bin/podman",
    "usr/bin/skopeo",
    "usr/lib/systemd/system/containerd.service",
    "lib/systemd/system/containerd.service",
    "etc/containers/registries.conf",
    "etc/containers/policy.json",
    "etc/cni/net.d/87-podman-bridge.conflist",
];

/// Where one case works.
pub struct Scratch {
    pub folder: PathBuf,
}

impl Scratch {
    /// Starts over with the folders that `enclose` needs.
    pub fn new(folder: &Path) -> Result<Scratch> {
        let scratch = Scratch::open(folder);
        scratch.remove();
        for name in FOLDERS {
            let path = scratch.root().join(name);
            fs::create_dir_all(&path).with_context(|| path.display().to_string())?;
        }
        fs::create_dir(scratch.view()).context("the view's folder")?;
        let link = scratch.root().join("var/run");
        std::os::unix::fs::symlink("/run", &link).with_context(|| link.display().to_string())?;
        // As on the machine whose libraries the view shows: links with a merged /usr, folders otherwise.
        for name in ["bin", "sbin", "lib", "lib32", "lib64"] {
            let (machine, ours) = (Path::new("/").join(name), scratch.root().join(name));
            match fs::read_link(&machine) {
                Ok(target) => std::os::unix::fs::symlink(target, &ours).with_context(|| ours.display().to_string())?,
                Err(_) if machine.is_dir() => fs::create_dir_all(&ours).with_context(|| ours.display().to_string())?,
                Err(_) => {}
            }
        }
        Ok(scratch)
    }

    /// That of a trial.
    pub fn of(what: &Path, programs: &Programs) -> Scratch {
        Scratch::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("real").join(crate::scratch_name(what, programs)))
    }

    pub fn open(folder: &Path) -> Scratch {
        Scratch { folder: folder.to_owned() }
    }

    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    pub fn view(&self) -> PathBuf {
        self.folder.join("view")
    }

    /// Nothing is mounted here outside the case's own namespace, so this cannot reach further than the folder.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }

    /// Writes what a stock node has, and what the case adds to it.
    pub fn furnish(&self, case: &Case, programs: &Programs) -> Result<()> {
        let root = self.root();
        let mut status = String::new();
        // The first that has something wins: files, and packages in the list of what is installed.
        for source in programs.folder().into_iter().chain([prepared().as_path()]) {
            for name in FROM_PACKAGES.into_iter().filter(|name| if name.contains("containerd") { case.containerd } else { case.podman }) {
                let (from, to) = (source.join("root").join(name), root.join(name));
                if from.exists() && !to.exists() {
                    put(&from, &to)?;
                }
            }
            let list = source.join("status");
            for package in fs::read_to_string(&list).with_context(|| list.display().to_string())?.split_terminator("\n\n") {
                let name = package.lines().next().unwrap_or_default();
                if !status.lines().any(|line| line == name) {
                    status += package;
                    status += "\n\n";
                }
            }
        }
        fs::write(root.join("var/lib/dpkg/status"), status).context("var/lib/dpkg/status")?;
        copy_folder(&source().join("fixtures/real/node"), &root)?;
        for name in &case.without {
            fs::remove_file(root.join(name)).with_context(|| name.clone())?;
        }
        copy_folder(&case.folder.join("node"), &root)?;
        let hosts = root.join("etc/hosts");
        let mut file = File::options().append(true).create(true).open(&hosts).with_context(|| hosts.display().to_string())?;
        for registry in &case.registries {
            if let Some(name) = &registry.name {
                writeln!(file, "{} {name}", registry.address()).context("etc/hosts")?;
            }
        }
        Ok(())
    }

    /// A command inside the view, as if started on the node: nothing of our own environment (proxies, certificate files) reaches it. It gets `seconds`.
    pub fn command(&self, seconds: u32, program: &str) -> Result<Command> {
        let mut command = Command::new("timeout");
        command
            .args(["-k", "1", &seconds.to_string(), "chroot"])
            .arg(self.view())
            .arg(program)
            .stdin(Stdio::null())
            .env_clear()
            .env("HOME", "/root");
        if let Programs::Podman(_) = Programs::told() {
            // The view's /usr is theirs.
            command.env("PATH", "/usr/sbin:/usr/bin");
            return Ok(command);
        }
        let programs = prepared().join("root").display().to_string();
        for (key, value) in environment().map_err(|error| anyhow!(error))? {
            command.env(key, value.replace(&programs, PROGRAMS));
        }
        Ok(command)
    }
}

/// PATH and LD_LIBRARY_PATH as `prepare` found them.
pub fn environment() -> Result<Vec<(String, String)>, String> {
    let path = prepared().join("env");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    Ok(pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect())
}

/// A link if it can be (programs are large), else a copy.
fn put(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    let large = fs::metadata(from).with_context(|| from.display().to_string())?.len() > 1 << 20;
    if large && fs::hard_link(from, to).is_ok() { Ok(()) } else { copy(from, to) }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    make_parent(to)?;
    fs::copy(from, to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
    Ok(())
}

/// Copies files and folders over what is there; a folder that does not exist is an empty one.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    if !from.exists() {
        return Ok(());
    }
    for entry in fs::read_dir(from).with_context(|| from.display().to_string())? {
        let entry = entry.with_context(|| from.display().to_string())?;
        let target = to.join(entry.file_name());
        if entry.path().is_dir() { copy_folder(&entry.path(), &target)? } else { copy(&entry.path(), &target)? }
    }
    Ok(())
}

fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().with_context(|| format!("{} has no parent", path.display()))?;
    fs::create_dir_all(parent).with_context(|| parent.display().to_string())
}
