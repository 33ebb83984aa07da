//! The agent's children: passes, and the gate's command.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufReader, Seek};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::agent::pass::End;
use crate::model::path::NodePath;
use crate::node::root::{Last, Root};
use crate::node::shadow::OWN_PROGRAM;

/// A pass that runs: this program once more, in a process group of its own, so that it goes on when the agent is told to end.
#[derive(Debug)]
pub(super) struct Pass {
    child: Child,
    /// What it says: memory that is no part of this process.
    said: File,
}

impl Pass {
    pub(super) fn start<T>(arguments: &[OsString]) -> Result<Self, End<T>> {
        let failed = |why: String| End { code: None, told: None, why: format!("it cannot be started: {why}") };
        let said = memfd_create("nodeprep-pass", MFdFlags::MFD_CLOEXEC).map(File::from).map_err(|errno| failed(errno.to_string()))?;
        let out = said.try_clone().map_err(|error| failed(error.to_string()))?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("nodeprep").args(arguments).stdin(Stdio::null()).stdout(out).process_group(0);
        // what systemd has told the agent is not for its children
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", super::HANDED] {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        Ok(Self { child, said })
    }

    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
    }

    /// What came of it, once it has ended, as `read` understands what it says.
    pub(super) fn ended<T>(&mut self, read: impl FnOnce(BufReader<&File>) -> Result<T, String>) -> Option<End<T>> {
        let status = match self.child.try_wait() {
            Ok(status) => status?,
            Err(error) => return Some(End { code: None, told: None, why: error.to_string() }),
        };
        let code = status.code().and_then(|code| u8::try_from(code).ok());
        if let Some(signal) = status.signal() {
            return Some(End { code, told: None, why: format!("signal {signal} ended it") });
        }
        let told = self.said.rewind().map_err(|error| error.to_string()).and_then(|()| read(BufReader::new(&self.said)));
        Some(match told {
            Ok(told) => End { code, told: Some(Box::new(told)), why: String::new() },
            Err(why) => End { code, told: None, why: format!("{}; {why}", exit(status)) },
        })
    }
}

fn exit(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("it ended with exit code {code}"))
}

/// A gate's command that runs.
#[derive(Debug)]
pub(super) struct Gate {
    child: Child,
    begun: Instant,
    /// How long it may think.
    patience: Duration,
    /// Whether its answer is waited for.
    pub(super) asks: bool,
}

/// A question to which nobody wants the answer any more ends, with all that it has started.
impl Drop for Gate {
    fn drop(&mut self) {
        let is_over = self.asks || self.begun.elapsed() >= self.patience;
        if is_over && matches!(self.child.try_wait(), Ok(None)) {
            let group = i32::try_from(self.child.id()).map(Pid::from_raw);
            let _ = group.map(|group| killpg(group, Signal::SIGKILL));
            let _ = self.child.wait();
        }
    }
}

impl Gate {
    /// Asks the gate: a command's exit code 0 is a yes; a file is a yes where it stands (on the node, inside its root). Of the latter,
    /// and of what cannot be run, the answer comes back at once.
    pub(super) fn ask(root: &Root, gate: &str, patience: Duration, verb: &str, units: &[String]) -> Result<Self, Result<(), String>> {
        let words: Vec<&str> = gate.split_whitespace().collect();
        let is_command =
            words.len() > 1 || std::fs::metadata(gate).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0);
        let Some((program, arguments)) = words.split_first() else { return Err(Ok(())) };
        if !is_command {
            return Err(if is_there(root, Path::new(gate)) { Ok(()) } else { Err(format!("{gate} is not there")) });
        }
        let mut command = Command::new(program);
        command.args(arguments).arg(verb).args(units).stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        command.env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC").env_remove("WATCHDOG_PID").env_remove(super::HANDED);
        match command.spawn() {
            Ok(child) => Ok(Self { child, begun: Instant::now(), patience, asks: true }),
            Err(error) => Err(Err(format!("{program} cannot be run: {error}"))),
        }
    }

    /// When it has thought for too long.
    pub(super) fn due(&self, origin: Instant) -> i64 {
        i64::try_from((self.begun + self.patience).saturating_duration_since(origin).as_millis()).unwrap_or(i64::MAX)
    }

    pub(super) fn answered(&mut self) -> Option<Result<(), String>> {
        match self.child.try_wait() {
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => Some(Err(exit(status))),
            Ok(None) if self.begun.elapsed() >= self.patience => Some(Err(format!("no answer within {:?}", self.patience))),
            Ok(None) => None,
            Err(error) => Some(Err(error.to_string())),
        }
    }
}

fn is_there(root: &Root, path: &Path) -> bool {
    let Some(path) = path.to_str().and_then(|path| NodePath::new(path).ok()) else { return false };
    let found = root.afresh().walk(&path, Last::Follow, &mut |_, _, _| {});
    found.is_ok_and(|spot| spot.folder.stat(&spot.name).is_ok_and(|found| found.is_some()))
}
