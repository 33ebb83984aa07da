//! A scratch node with containerd on it, and the program run for it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What stands in tokens, logins and queries: nothing may show it.
pub const SECRET: &str = "s3cret-of-the-test";

pub struct Node {
    folder: tempfile::TempDir,
    env: Vec<(String, String)>,
}

pub struct Run {
    pub code: i32,
    pub said: String,
}

impl Node {
    pub fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap(), env: Vec::new() };
        node.put("root/usr/bin/containerd", "");
        node.put("root/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.7.24\n\n");
        node.put(
            "root/etc/containerd/config.toml",
            "version = 2\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = '/etc/containerd/certs.d'\n",
        );
        node
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn put(&self, path: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn secret(&self, path: &str, text: &str) -> PathBuf {
        let path = self.put(path, text);
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    /// The endpoint that Docker Hub has on the node, empty when it has none.
    pub fn mirror(&self) -> String {
        let text = std::fs::read_to_string(self.path("root/etc/containerd/certs.d/docker.io/hosts.toml")).unwrap_or_default();
        text.split("server = \"https://").nth(1).and_then(|rest| rest.split(['/', '"']).next()).unwrap_or_default().to_owned()
    }

    pub fn kept(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path("root/var/lib/nodeprep").join(name)).ok()
    }

    /// An agent, until it is killed.
    pub fn agent(&self, words: &[&str]) -> std::process::Child {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.arg("agent").args(words).args(["--root", "root", "--probe", "off"]);
        command.env_clear().envs(self.env.iter().cloned()).current_dir(self.folder.path());
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
    }

    /// `nodeprep WORDS --root ROOT`; no secret is shown.
    pub fn run(&self, words: &[&str]) -> Run {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.args(words).env_clear().envs(self.env.iter().cloned()).current_dir(self.folder.path());
        if !matches!(words[0], "check" | "render") {
            command.args(["--root", "root"]);
        }
        if words[0] == "apply" || words[0] == "plan" {
            command.args(["--probe", "off"]);
        }
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains(SECRET), "a secret is shown: {said}");
        Run { code: output.status.code().unwrap_or_else(|| panic!("{words:?} was killed: {said}")), said }
    }
}

impl Run {
    #[track_caller]
    pub fn says(&self, code: i32, wanted: &[&str]) -> &Self {
        for wanted in wanted {
            assert!(self.said.contains(wanted), "{wanted:?} is not said: {}", self.said);
        }
        assert_eq!(self.code, code, "{}", self.said);
        self
    }
}

/// A fixture that minisign has signed.
pub fn signed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/signed").join(name)
}

pub fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(signed(name)).unwrap()
}

pub const SPEC: &str =
    "version = 1\nname = \"fleet\"\nfallback = \"never\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"m.example.com/hub\"]\n";
