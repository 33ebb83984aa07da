//! Running a tool of the node: with an empty environment, a time-out and a bounded answer.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::enter::{self, Unreached};
use super::foreign;
use super::root::Root;
use crate::trust::family::IN_TRANSACTION;

/// The search path of a tool; its environment is this and `LANG=C`.
pub(super) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// As much of each stream as is kept.
const MOST_OUTPUT: u64 = 64 << 10;
/// How long a stream may stay open after the tool itself has ended.
const LINGER: Duration = Duration::from_secs(2);

/// What a tool said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its exit status; 128 and the signal when it was killed by one.
    pub status: i32,
    /// Standard output, at most 64 KiB.
    pub stdout: String,
    /// Standard error, at most 64 KiB.
    pub stderr: String,
}

/// Why a tool did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The root is not that of the running system, and its tools cannot be run from here.
    #[error("cannot run tools of that root: {0}")]
    Tools(String),
    /// There is no such program, or it cannot be executed.
    #[error("cannot run {program}")]
    Start {
        /// Which.
        program: String,
        /// What the kernel said.
        #[source]
        error: std::io::Error,
    },
    /// It took too long; it and all its children were killed.
    #[error("{program} did not end within {seconds} s")]
    TimedOut {
        /// Which.
        program: String,
        /// How long it had.
        seconds: u64,
    },
    /// Nothing to run.
    #[error("no program to run")]
    Empty,
}

/// Runs `argv` inside the root: directly when it is the running system's, in the namespaces of process 1 when that is looked at
/// from a container (`enter`), else by `chroot` when this is root.
///
/// # Errors
/// When it cannot be started or takes longer than `patience`. A failing status is no error here.
pub fn run(root: &Root, argv: &[String], patience: Duration) -> Result<Output, CommandError> {
    run_knowing(root, argv, patience, None)
}

/// The same for what starts a daemon that lives on with the streams that it was given: where the control group is a container's it is
/// left, and whoever holds the streams when the tool has ended is not ended, but nothing that it writes is kept.
///
/// # Errors
/// When it cannot be started or takes longer than `patience`.
pub fn run_starting(root: &Root, argv: &[String], patience: Duration) -> Result<Output, CommandError> {
    let said = Memory::new().map_err(|error| CommandError::Start { program: argv.first().cloned().unwrap_or_default(), error })?;
    let mut command = inside(root, argv, None, true)?;
    let streams = said.stream().and_then(|stream| Ok((stream, said.stream()?)));
    let program = argv.first().map(String::as_str).unwrap_or_default();
    let (out, err) = streams.map_err(|error| CommandError::Start { program: program.to_owned(), error })?;
    let child = command.stdout(out).stderr(err).spawn().map_err(|error| CommandError::Start { program: program.to_owned(), error })?;
    let status = end_of(child, program, patience).map(|(status, _)| status)?;
    told(root, program, Output { status, stdout: String::new(), stderr: said.end() })
}

/// Memory that a tool writes into, and whoever it leaves behind: at its end it is sealed, so that it does not grow any more.
struct Memory(std::fs::File);

impl Memory {
    fn new() -> std::io::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC | rustix::fs::MemfdFlags::ALLOW_SEALING;
        Ok(Self(rustix::fs::memfd_create("said", flags)?.into()))
    }

    fn stream(&self) -> std::io::Result<Stdio> {
        Ok(self.0.try_clone()?.into())
    }

    fn end(self) -> String {
        // what is not sealed grows until its last holder ends
        let _ = rustix::fs::fcntl_add_seals(&self.0, rustix::fs::SealFlags::GROW);
        let length = self.0.metadata().map_or(0, |found| found.len()).min(MOST_OUTPUT);
        let mut bytes = vec![0; usize::try_from(length).unwrap_or_default()];
        // not by its position, which the holders share
        let read = self.0.read_at(&mut bytes, 0).unwrap_or_default();
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }
}

/// The same with one more variable.
fn run_knowing(root: &Root, argv: &[String], patience: Duration, variable: Option<(&str, &str)>) -> Result<Output, CommandError> {
    let program = argv.first().ok_or(CommandError::Empty)?;
    let mut command = inside(root, argv, variable, false)?;
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|error| CommandError::Start { program: program.clone(), error })?;
    let output = watch(child, program, patience)?;
    told(root, program, output)
}

/// The command, without its streams.
fn inside(root: &Root, argv: &[String], variable: Option<(&str, &str)>, outlive: bool) -> Result<Command, CommandError> {
    let program = argv.first().ok_or(CommandError::Empty)?;
    let mut command = if root.is_live() && root.is_own() {
        Command::new(program)
    } else if root.is_live() {
        enter::command(program, None, outlive)
    } else {
        if !nix::unistd::geteuid().is_root() {
            return Err(CommandError::Tools("only root can change into it".to_owned()));
        }
        let here = ["/usr/sbin/chroot", "/usr/bin/chroot", "/sbin/chroot", "/bin/chroot"].into_iter().find(|path| Path::new(path).exists());
        match here {
            Some(chroot) => {
                let mut command = Command::new(chroot);
                command.arg(root.dir()).arg(program);
                command
            }
            None => enter::command(program, Some(root.dir()), false),
        }
    };
    command.args(&argv[1..]).env_clear().env("PATH", SEARCH_PATH).env("LANG", "C").envs(variable);
    command.stdin(Stdio::null()).process_group(0).current_dir("/");
    tracing::debug!(program = program.as_str(), "run");
    Ok(command)
}

/// What came of it: the tool's own words, or that it was never reached.
fn told(root: &Root, program: &str, output: Output) -> Result<Output, CommandError> {
    let live = root.is_live();
    if live && root.is_own() {
        return Ok(output);
    }
    // how coreutils' chroot says that it could not change the root, find or execute the program
    if !live && matches!(output.status, 125..=127) && output.stderr.contains("chroot: ") {
        return Err(CommandError::Tools(foreign::why(root, program)));
    }
    match enter::unreached(&output) {
        Some(Unreached::Root(why)) => Err(CommandError::Tools(why)),
        Some(Unreached::Program(error)) if live => Err(CommandError::Start { program: program.to_owned(), error }),
        Some(Unreached::Program(_)) => Err(CommandError::Tools(foreign::why(root, program))),
        None => Ok(output),
    }
}

/// Tools of a root, each with the same patience.
#[derive(Debug)]
pub struct Tools<'a> {
    /// Whose tools.
    pub root: &'a Root,
    /// How long each may take.
    pub patience: Duration,
}

impl Tools<'_> {
    /// Runs one of them.
    ///
    /// # Errors
    /// When it did not run to its end.
    pub fn run(&self, argv: &[String]) -> Result<Output, CommandError> {
        let Some(transaction) = std::env::var(IN_TRANSACTION).ok().filter(|value| means_yes(value)) else {
            return run(self.root, argv, self.patience);
        };
        // the command has to know: it leaves the mark by which the next boot does it
        run_knowing(self.root, argv, self.patience, Some((IN_TRANSACTION, &transaction)))?;
        Err(CommandError::Tools("inside transactional-update the store is left for the next boot".to_owned()))
    }
}

fn means_yes(value: &str) -> bool {
    ["true", "yes", "1"].contains(&value.to_ascii_lowercase().as_str())
}

fn watch(mut child: Child, program: &str, patience: Duration) -> Result<Output, CommandError> {
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let (status, group) = end_of(child, program, patience)?;
    let text = |stream: &Receiver<Vec<u8>>| {
        // a child of the tool that lives on and holds the stream is ended with it
        let bytes = stream.recv_timeout(LINGER).unwrap_or_else(|_| {
            group.map(|group| killpg(group, Signal::SIGKILL));
            stream.recv_timeout(LINGER).unwrap_or_default()
        });
        String::from_utf8_lossy(&bytes).into_owned()
    };
    Ok(Output { status, stdout: text(&stdout), stderr: text(&stderr) })
}

/// Its status, and its process group.
fn end_of(mut child: Child, program: &str, patience: Duration) -> Result<(i32, Option<Pid>), CommandError> {
    let group = i32::try_from(child.id()).ok().map(Pid::from_raw);
    let end_all = || group.map(|group| killpg(group, Signal::SIGKILL));
    let begun = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => {
                return Ok((status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1), group));
            }
            Ok(None) if begun.elapsed() < patience => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Ok(None) => {
                end_all();
                let _ = child.wait();
                return Err(CommandError::TimedOut { program: program.to_owned(), seconds: patience.as_secs() });
            }
            Err(error) => {
                end_all();
                return Err(CommandError::Start { program: program.to_owned(), error });
            }
        }
    }
}

/// Reads a stream to its end so that the tool never blocks, and keeps its beginning.
fn drain(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut stream) = stream {
            let _ = stream.by_ref().take(MOST_OUTPUT).read_to_end(&mut kept);
            let _ = send.send(kept);
            let _ = std::io::copy(&mut stream, &mut std::io::sink());
        }
    });
    receive
}
