//! Tools of a running system whose root is looked at from a container: they run where process 1 of the node runs, in its mount,
//! network, UTS and IPC namespaces.
//!
//! In another root they would talk to nobody, and a root that was changed into is not enough: the container's mounts are not the node's
//! (read-only where the node's are not, without what was mounted since), and names would resolve as in the container. A connection to
//! the bus of the node below the root would do for systemd, and not for a trust store's command, `OpenRC` or a daemon's `--version`.
//! The image of the container needs no program for it: this one, run again, enters and then becomes the tool.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};

use super::command::Output;

/// The hidden subcommand that enters and becomes a tool.
pub const SUBCOMMAND: &str = "in-root";
/// This very program, also when its file was replaced meanwhile.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// With what it ends when it does not become the tool, and what it says then.
const FAILED: i32 = 125;
const NOT_ENTERED: &str = "nodeprep: not entered: ";
const NOT_STARTED: &str = "nodeprep: not started: ";
/// The namespaces of process 1, the one of mounts last: with it `/proc` is another one.
const KINDS: [(&str, CloneFlags); 4] = [
    ("net", CloneFlags::CLONE_NEWNET),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("mnt", CloneFlags::CLONE_NEWNS),
];

/// The command that becomes `program` in the namespaces of process 1, or in another root; its arguments are to be added.
pub(super) fn command(program: &str, root: Option<&Path>, outlive: bool) -> Command {
    let mut command = Command::new(OWN_PROGRAM);
    command.arg(SUBCOMMAND);
    if let Some(root) = root {
        command.arg("--root").arg(root);
    }
    if outlive {
        command.arg("--outlive");
    }
    command.arg("--").arg(program);
    command
}

/// Why the tool was not reached.
pub(super) enum Unreached {
    /// Not even its root.
    Root(String),
    /// It cannot be executed.
    Program(io::Error),
}

/// Whether what was said are the words of the subcommand and not the tool's.
pub(super) fn unreached(output: &Output) -> Option<Unreached> {
    let line = output.stderr.lines().next().filter(|_| output.status == FAILED)?;
    if let Some(why) = line.strip_prefix(NOT_ENTERED) {
        return Some(Unreached::Root(why.to_owned()));
    }
    let number = line.strip_prefix(NOT_STARTED)?.parse().ok()?;
    Some(Unreached::Program(io::Error::from_raw_os_error(number)))
}

/// The subcommand: never comes back. It changes into `root`, or else enters the namespaces of process 1; with `outlive` what the tool
/// starts lives on when the container goes.
pub fn run(root: Option<&Path>, outlive: bool, argv: &[String]) -> ! {
    let why = match enter(root, outlive) {
        Ok(()) => {
            let mut argv = argv.iter();
            let error = Command::new(argv.next().map_or("", String::as_str)).args(argv).exec();
            format!("{NOT_STARTED}{}", error.raw_os_error().unwrap_or(Errno::ENOENT as i32))
        }
        Err(why) => format!("{NOT_ENTERED}{why}"),
    };
    let _ = writeln!(io::stderr(), "{why}");
    std::process::exit(FAILED)
}

fn enter(root: Option<&Path>, outlive: bool) -> Result<(), String> {
    if let Some(root) = root {
        let failed = |why: &str| format!("{} cannot be changed into: {}", root.display(), why.to_lowercase());
        nix::unistd::chroot(root).map_err(|errno| failed(errno.desc()))?;
        return std::env::set_current_dir("/").map_err(|error| failed(&error.to_string()));
    }
    join()?;
    if outlive {
        leave_cgroup();
    }
    Ok(())
}

/// Brings this thread alone to where names resolve and connections are made as for the node's own programs.
pub(super) fn join_alone() -> Result<(), String> {
    unshare(CloneFlags::CLONE_FS).map_err(|errno| errno.desc().to_lowercase())?;
    join()
}

fn join() -> Result<(), String> {
    let failed = |kind: &str, why: &str| {
        format!("the {kind} namespace of process 1 cannot be entered ({}): the container has to be privileged", why.to_lowercase())
    };
    // all of them are opened before the first is entered
    let mut found = Vec::new();
    for (kind, flag) in KINDS {
        let file = File::open(format!("/proc/1/ns/{kind}")).map_err(|error| failed(kind, &reason(&error)))?;
        found.push((kind, flag, file));
    }
    for (kind, flag, file) in found {
        setns(&file, flag).map_err(|errno| failed(kind, errno.desc()))?;
    }
    Ok(())
}

fn reason(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |number| Errno::from_raw(number).desc().to_owned())
}

/// Out of the container's control groups, with which all in them would end, into the topmost ones: best effort, because a container
/// that has none of its own is in no danger. To be called in the node's mount namespace.
fn leave_cgroup() {
    let top = PathBuf::from("/sys/fs/cgroup");
    let below = fs::read_dir(&top).into_iter().flatten().flatten().map(|entry| entry.path());
    let tops: Vec<PathBuf> = if top.join("cgroup.controllers").exists() { vec![top] } else { below.collect() };
    for top in tops {
        if let Ok(mut file) = OpenOptions::new().write(true).open(top.join("cgroup.procs")) {
            let _ = file.write_all(b"0");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_own_words_are_told_from_those_of_the_tool() {
        let said = |status, stderr: &str| Output { status, stdout: String::new(), stderr: stderr.to_owned() };
        let Some(Unreached::Root(why)) = unreached(&said(FAILED, &format!("{NOT_ENTERED}it is closed\n"))) else { panic!() };
        assert_eq!(why, "it is closed");
        let Some(Unreached::Program(error)) = unreached(&said(FAILED, &format!("{NOT_STARTED}2\n"))) else { panic!() };
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
        assert!(unreached(&said(1, &format!("{NOT_ENTERED}x\n"))).is_none() && unreached(&said(FAILED, "x\n")).is_none());
    }
}
