//! A scratch node with an agent on it.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeprep::agent::state::{AgentState, Fault};
use tempfile::TempDir;

/// Far more than anything takes on a machine that is busy with other things; `NODEPREP_TEST_PATIENCE` (seconds) is for who looks at what
/// fails.
fn patience() -> Duration {
    let given = std::env::var("NODEPREP_TEST_PATIENCE").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(given.unwrap_or(180))
}

pub struct Node {
    scratch: TempDir,
    agent: Option<Child>,
    /// What systemd is told: taken from the socket at once, whose queue is short.
    told: Option<(UnixDatagram, Receiver<String>)>,
}

/// A spec with one mirror at this port.
pub fn spec(port: u32) -> String {
    format!("version = 1\nfallback = 'never'\n[[mirror]]\nsource = 'docker.io'\nendpoints = ['registry.example.com:{port}/docker.io']\n")
}

impl Node {
    /// A Debian with containerd 1.6, and a spec folder that is still empty.
    pub fn new() -> Self {
        let node = Self::bare();
        node.put("node/usr/bin/containerd", "");
        node
    }

    pub fn bare() -> Self {
        let node = Self { scratch: tempfile::tempdir().unwrap(), agent: None, told: None };
        node.put("node/etc/os-release", "ID=debian\n");
        node.put("node/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        node.put("node/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n\n");
        node.put("node/var/lib/dpkg/lock", "");
        fs::create_dir_all(node.path("spec")).unwrap();
        node
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.scratch.path().join(path)
    }

    pub fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// What containerd is told about docker.io.
    pub fn hosts(&self) -> String {
        self.read("node/etc/containerd/certs.d/docker.io/hosts.toml")
    }

    /// Puts files into a folder as kubelet mounts a `ConfigMap` or a `Secret`: the link `..data` is exchanged at once.
    pub fn mount(&self, folder: &str, files: &[(&str, &str)]) {
        let folder = self.path(folder);
        fs::create_dir_all(&folder).unwrap();
        let old = fs::read_link(folder.join("..data")).ok();
        let name = format!("..2026_{}", fs::read_dir(&folder).unwrap().count());
        fs::create_dir(folder.join(&name)).unwrap();
        for (file, text) in files {
            fs::write(folder.join(&name).join(file), text).unwrap();
            if !folder.join(file).is_symlink() {
                symlink(format!("..data/{file}"), folder.join(file)).unwrap();
            }
        }
        symlink(&name, folder.join("..data_tmp")).unwrap();
        fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(folder.join(old)).unwrap();
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.env_clear().arg("agent").arg("--spec").arg(self.path("spec")).arg("--root").arg(self.path("node")).args(arguments);
        command
    }

    /// An agent whose spec is somewhere else than in the folder.
    pub fn command_for(&self, spec: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.env_clear().current_dir(self.path("")).args(["agent", "--spec", spec, "--root"]).arg(self.path("node")).args(arguments);
        command
    }

    /// Starts the agent; it is heard on a notify socket.
    pub fn start(&mut self, arguments: &[&str]) {
        let command = self.command(arguments);
        self.run(command);
    }

    pub fn run(&mut self, mut command: Command) {
        let at = self.path("notify");
        let _ = fs::remove_file(&at);
        let socket = UnixDatagram::bind(&at).unwrap();
        let (tell, told) = channel();
        let reads = socket.try_clone().unwrap();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = reads.recv(&mut bytes) {
                let _ = tell.send(String::from_utf8(bytes[..length].to_vec()).unwrap());
            }
        });
        let log = fs::File::create(self.path("log")).unwrap();
        self.agent =
            Some(command.env("NOTIFY_SOCKET", at).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
        self.told = Some((socket, told));
    }

    /// What systemd is told next.
    pub fn hear(&self) -> String {
        let (_, told) = self.told.as_ref().unwrap();
        told.recv_timeout(patience()).unwrap_or_else(|error| panic!("{error}\n{}", self.read("log")))
    }

    /// Nothing more is told, by one that cannot.
    pub fn silent(&self) {
        let (_, told) = self.told.as_ref().unwrap();
        // what was on the way
        while told.recv_timeout(Duration::from_millis(100)).is_ok() {}
        let heard = told.recv_timeout(Duration::from_secs(1));
        assert!(heard.is_err(), "{heard:?}");
    }

    /// Everything that systemd is told up to this.
    pub fn hear_until(&self, what: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while heard.last().is_none_or(|last: &String| !last.contains(what)) {
            heard.push(self.hear());
        }
        heard
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.agent.as_ref().unwrap().id()).unwrap()), signal).unwrap();
    }

    pub fn ended(&mut self) -> ExitStatus {
        self.agent.take().unwrap().wait().unwrap()
    }

    pub fn state(&self) -> AgentState {
        serde_json::from_str(&self.read("node/run/nodeprep/agent.json")).unwrap_or_default()
    }

    /// Waits until the agent sees itself so.
    pub fn until(&self, what: &str, is: impl Fn(&AgentState) -> bool) -> AgentState {
        let mut state = self.state();
        wait(|| {
            state = self.state();
            is(&state)
        })
        .unwrap_or_else(|()| panic!("never {what}: {state:#?}\n{}", self.read("log")));
        state
    }

    /// Waits until docker.io is looked for there.
    pub fn until_port(&self, port: u32) {
        self.until_hosts(&format!("registry.example.com:{port}/"));
    }

    pub fn until_hosts(&self, wanted: &str) {
        wait(|| self.hosts().contains(wanted)).unwrap_or_else(|()| panic!("never {wanted}: {:#?}\n{}", self.state(), self.read("log")));
    }

    /// Waits until a pass has this kind of fault and says so.
    pub fn until_failing(&self, kind: Fault, what: &str) -> AgentState {
        self.until(what, |state| {
            let said = state.last_pass.iter().flat_map(|pass| &pass.problems).any(|problem| problem.what.contains(what));
            said && state.failing.is_some_and(|failing| failing.kind == kind) && !state.converged
        })
    }

    /// What the agent answers when it is asked.
    pub fn ask(&self, path: &str) -> String {
        let mut answer = String::new();
        let Ok(mut stream) = UnixStream::connect(self.path("node/run/nodeprep/health.sock")) else { return answer };
        let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
        let _ = stream.read_to_string(&mut answer);
        answer
    }

    /// Waits until it answers so: what it says of the node is some seconds old.
    pub fn until_told(&self, path: &str, wanted: &str) {
        let mut answer = String::new();
        wait(|| {
            answer = self.ask(path);
            answer.contains(wanted)
        })
        .unwrap_or_else(|()| panic!("never {wanted:?}: {answer}\n{}", self.read("log")));
    }

    /// The agent's process.
    pub fn pid(&self) -> u32 {
        self.agent.as_ref().unwrap().id()
    }

    /// `nodeprep WORDS --root NODE`, by hand: its exit code and what it says.
    pub fn by_hand(&self, words: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        let output = command.env_clear().current_dir(self.path("")).args(words).arg("--root").arg(self.path("node")).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Processes other than this one that were started for this node.
    pub fn processes(&self, word: &str) -> Vec<i32> {
        let scratch = self.scratch.path().to_str().unwrap();
        let all = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        all.filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let words: Vec<String> = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
            words.iter().any(|part| part.starts_with(scratch)) && words.get(1).is_some_and(|first| first == word)
        })
        .collect()
    }
}

pub fn wait(mut is: impl FnMut() -> bool) -> Result<(), ()> {
    let begun = Instant::now();
    while !is() {
        if begun.elapsed() > patience() {
            return Err(());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            let _ = agent.kill();
            let _ = agent.wait();
        }
        if let Some((socket, _)) = &self.told {
            let _ = socket.shutdown(Shutdown::Both);
        }
        // a pass goes on without its agent
        let _ = wait(|| self.processes("apply").is_empty() && self.processes("plan").is_empty());
    }
}

/// A folder's names.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
