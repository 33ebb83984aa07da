//! The scratch node as a running system: a shell as process 1, whose root is the node's view. nodeprep run by it sees processes, may ask programs for their
//! version, and is told what to write by `--root /`.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::node::Scratch;
use crate::pull::{self, Puller};

/// Where the test's own files lie on the node.
pub const OURS: &str = "srv";
/// What ends the output of a command.
const END: &str = "-- ended with ";

pub struct Live<'a> {
    scratch: &'a Scratch,
    shell: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl<'a> Live<'a> {
    /// Makes the view writable, and puts `files` and nodeprep where the shell finds them.
    pub fn start(scratch: &'a Scratch, files: &[(&Path, &str)]) -> Result<Live<'a>> {
        let ours = scratch.root().join(OURS);
        for (from, name) in files.iter().copied().chain([(Path::new(env!("CARGO_BIN_EXE_nodeprep")), "nodeprep")]) {
            let to = ours.join(name);
            fs::copy(from, &to).with_context(|| format!("{} to {}", from.display(), to.display()))?;
        }
        // the machine's own programs stay hidden behind ours
        let prepare = "mount -o remount,bind,rw \"$1\" && mount -t tmpfs none \"$1/usr/local/bin\" && mount -t proc proc \"$1/proc\" && exec chroot \"$1\" /bin/sh";
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount", "--kill-child", "sh", "-c", prepare, "sh"]).arg(scratch.view());
        let mut shell = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("unshare")?;
        let (input, output) = (shell.stdin.take().context("a pipe")?, shell.stdout.take().context("a pipe")?);
        let mut live = Live { scratch, shell, input, output: BufReader::new(output) };
        let (code, said) =
            live.run("unset LD_LIBRARY_PATH; export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?;
        ensure!(code == 0, "the shell of the node: {said}");
        Ok(live)
    }

    /// Runs a line of shell; its exit code, and what it said.
    pub fn run(&mut self, line: &str) -> Result<(i32, String)> {
        writeln!(self.input, "{{ {line}\n}} 2>&1; code=$?; echo; echo \"{END}$code\"").context("the shell of the node")?;
        let mut said = String::new();
        loop {
            let mut line = String::new();
            ensure!(self.output.read_line(&mut line).context("the shell of the node")? > 0, "the shell of the node has ended: {said}");
            match line.strip_prefix(END) {
                Some(code) => return Ok((code.trim().parse().context("an exit code")?, said)),
                None => said += &line,
            }
        }
    }

    /// A line that must succeed.
    pub fn must(&mut self, line: &str) -> Result<String> {
        let (code, said) = self.run(line)?;
        ensure!(code == 0, "{line}: ended with {code}: {said}");
        Ok(said)
    }

    /// Starts the containerd that is on disk, as a unit would, with more in its environment.
    pub fn start_containerd(&mut self, environment: &str) -> Result<()> {
        // whoever started this test may ignore the signal
        let start = format!(
            "env --default-signal=HUP {environment} /usr/local/bin/containerd >>/srv/containerd.log 2>&1 & echo $! >/srv/containerd.pid"
        );
        self.must(&start)?;
        let deadline = Instant::now() + Duration::from_secs(20);
        while let Err(said) = pull::answers(self.scratch)? {
            ensure!(Instant::now() < deadline, "containerd serves no images: {said}\n{}", self.run("tail -n 5 /srv/containerd.log")?.1);
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    pub fn stop_containerd(&mut self) -> Result<()> {
        self.must("kill $(cat /srv/containerd.pid); wait $(cat /srv/containerd.pid); rm -f /run/containerd/containerd.sock*; true")
            .map(drop)
    }

    /// Pulls through whatever containerd is running.
    pub fn pull(&self, image: &str) -> Result<Result<(), String>> {
        Puller::Containerd.pull(self.scratch, image)
    }
}

impl Drop for Live<'_> {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
