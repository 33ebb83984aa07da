//! A node to run commands on: a root with containerd, and a world of one web server, which is every host below `internal.example.com`.
//! Nothing is asked outside of this process: containerd's unit and the environment name a proxy of the test, whatever the name or port.

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nodeprep::model::digest::Digest;

use crate::page::project;
use crate::server::{Answer, Ca, Odd, Server, gateway};

/// Longer than anything takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// Folders of a node that stand at the beginning of paths in the pages.
const FOLDERS: [&str; 9] = ["/etc", "/usr", "/var", "/run", "/mnt", "/opt", "/srv", "/root", "/host"];

pub struct Scratch {
    folder: tempfile::TempDir,
    cwd: PathBuf,
    proxy: String,
    _server: Server,
}

impl Scratch {
    /// A node as a distribution and our package leave it, and beside the reader the spec of the README and the CA that it names.
    pub fn new(spec: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = Ca::new();
        let server = Server::odd(&ca, Odd { name: Some("*.internal.example.com"), ..Odd::default() });
        server.says("/v2/", Answer::Whole(200, "Docker-Distribution-Api-Version: registry/2.0\r\n".to_owned(), b"{}".to_vec()));
        // the same from a server: what is fetched is pinned
        let line = "file = \"internal-root.pem\"";
        let pinned = spec.replace(line, &format!("{line}\nsha256 = \"{}\"", Digest::of(ca.pem.as_bytes())));
        server.serves("/nodeprep/spec.toml", pinned);
        server.serves("/nodeprep/internal-root.pem", &ca.pem);
        let proxy = format!("http://{}", gateway(server.host.clone()));
        let scratch = Self { cwd: folder.path().to_owned(), folder, proxy, _server: server };
        scratch.put("spec.toml", spec);
        scratch.put("internal-root.pem", &ca.pem);
        for root in ["node", "node/mnt/image", "node/host"] {
            scratch.furnish(root);
        }
        let example = std::fs::read_to_string(project("packaging/examples/spec.toml")).unwrap();
        scratch.put("node/usr/share/doc/nodeprep/examples/spec.toml", &example);
        let bin = scratch.path("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(scratch.path("node/usr/local/bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_nodeprep"), bin.join("nodeprep")).unwrap();
        symlink(project("packaging/kubeadm/nodeprep-bootstrap"), bin.join("nodeprep-bootstrap")).unwrap();
        // what `make dist` makes: it is only copied
        scratch.put("nodeprep-0.1.0-linux-x86_64", "");
        for folder in ["systemd", "packaging"] {
            symlink(project(folder), scratch.path(folder)).unwrap();
        }
        scratch
    }

    fn furnish(&self, root: &str) {
        let put = |path: &str, text: &str| self.put(&format!("{root}/{path}"), text);
        put("etc/os-release", "ID=debian\n");
        put("usr/bin/containerd", "");
        put("var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1\n\n");
        put("etc/ssl/certs/ca-certificates.crt", "");
        put("usr/local/share/ca-certificates/.keep", "");
        put("etc/containerd/config.toml", "version = 2\n");
        put("etc/default/.keep", "");
        let unit = format!("[Service]\nEnvironment=\"HTTPS_PROXY={}\"\nExecStart=/usr/bin/containerd\n", self.proxy);
        put("etc/systemd/system/containerd.service", &unit);
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A line with the node's folders in the place of the machine's own.
    fn here(&self, line: &str) -> String {
        let root = self.path("node").display().to_string();
        let mut text = String::new();
        for (at, char) in line.char_indices() {
            let begins = text.chars().next_back().is_none_or(|before| " =\"':,".contains(before));
            let folder = FOLDERS.iter().find_map(|folder| line[at..].strip_prefix(folder));
            if begins && folder.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', ' '])) {
                text.push_str(&root);
            }
            text.push(char);
        }
        text
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display());
        command.env_clear().env("PATH", path).env("HOME", self.folder.path()).env("HTTPS_PROXY", &self.proxy).current_dir(&self.cwd);
        // as on a node where these are the defaults
        command.env("NODEPREP_ROOT", self.path("node")).env("NODEPREP_SPEC", self.path("node/etc/nodeprep"));
        // what does not answer is not there at all
        command.env("NODEPREP_BOOTSTRAP_PATIENCE", "0");
        command
    }

    /// Runs a line in a shell.
    pub fn run(&mut self, line: &str) -> Output {
        if let Some(folder) = line.strip_prefix("cd ") {
            let folder = self.cwd.join(self.here(folder));
            self.cwd = folder.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            return self.command("true").output().unwrap();
        }
        self.command("sh").args(["-eu", "-c", &self.here(line)]).output().unwrap()
    }

    /// The node's root.
    pub fn node(&self) -> PathBuf {
        self.path("node")
    }

    /// An agent, until it says that it is ready; then it is told to end.
    pub fn agent(&mut self, line: &str) -> Output {
        self.agent_seen(line, || ())
    }

    /// The same, with a look at it while it is ready.
    pub fn agent_seen(&mut self, line: &str, look: impl FnOnce()) -> Output {
        let at = self.path("notify");
        let _ = std::fs::remove_file(&at);
        let socket = UnixDatagram::bind(&at).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let line = format!("exec {}", self.here(line));
        let mut shell = self.command("sh");
        let shell = shell.args(["-eu", "-c", &line]).env("NOTIFY_SOCKET", &at).stdin(Stdio::null());
        let agent = shell.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut bytes = [0; 4096];
        let mut heard = String::new();
        while !heard.contains("READY=1") {
            // an agent that has ended says nothing more
            let Ok(length) = socket.recv(&mut bytes) else { break };
            heard = String::from_utf8_lossy(&bytes[..length]).into_owned();
        }
        look();
        let _ = kill(Pid::from_raw(i32::try_from(agent.id()).unwrap()), Signal::SIGTERM);
        // a pass of its own has the same outputs: they end when it has ended, too
        agent.wait_with_output().unwrap()
    }

    /// Text without what differs from run to run: digests, and where the node lies.
    pub fn shape(&self, text: &str) -> String {
        let is_digest = |word: &str| word.len() == 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        let text = text.replace(&self.path("node").display().to_string(), "");
        text.trim().split(['(', ')']).map(|part| if is_digest(part) { "…" } else { part }).collect()
    }
}
