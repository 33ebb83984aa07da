//! A scratch node with containerd, and a spec with mirrors and canaries.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use crate::registry::{Authority, CODED, PASSWORD, Registry};

pub const BINARY: &str = env!("CARGO_BIN_EXE_nodeprep");

pub struct Node {
    pub folder: tempfile::TempDir,
}

pub struct Run {
    pub code: i32,
    pub said: String,
}

impl Run {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.said).unwrap_or_else(|error| panic!("{error}: {}", self.said))
    }

    pub fn says(&self, code: i32, words: &[&str]) {
        let missing: Vec<_> = words.iter().filter(|word| !self.said.contains(**word)).collect();
        assert!(self.code == code && missing.is_empty(), "{} instead of {code}, without {missing:?}: {}", self.code, self.said);
    }
}

impl Node {
    /// docker.io is kept at each of these; `more` is the rest of the spec.
    pub fn new(authority: &Authority, registries: &[&Registry], more: &str) -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        node.put("root/usr/bin/containerd", "");
        node.put("root/etc/os-release", "ID=debian\n");
        node.put("root/etc/machine-id", "0123456789abcdef0123456789abcdef\n");
        node.put("root/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.7.24\n\n");
        node.put("root/etc/containerd/config.toml", "version = 2\n");
        node.put("spec/ca.pem", &authority.pem);
        let logins: Vec<String> = registries.iter().map(|registry| format!("{:?}: {{\"auth\": \"{CODED}\"}}", registry.host)).collect();
        node.put("spec/pull-secret.json", &format!("{{\"auths\": {{{}}}}}", logins.join(", ")));
        let access = |registry: &&Registry| {
            format!("[[registry]]\nhost = {:?}\nca = [\"root\"]\ncredentials = \"pull-secret.json\"\n", registry.host)
        };
        let access: String = registries.iter().map(access).collect();
        let endpoints: Vec<String> = registries.iter().map(|registry| format!("\"{}/hub\"", registry.host)).collect();
        node.document(&format!(
            "version = 1\nfallback = \"never\"\n[[ca]]\nname = \"root\"\nfile = \"ca.pem\"\ntrust = \"registries\"\n{access}\
             [[mirror]]\nsource = \"docker.io\"\nendpoints = [{}]\n{more}",
            endpoints.join(", ")
        ));
        node
    }

    pub fn document(&self, text: &str) {
        self.put("spec/spec.toml", text);
    }

    pub fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    pub fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub fn read(&self, path: &str) -> String {
        fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    pub fn command(&self, words: &str) -> Command {
        let mut command = Command::new(BINARY);
        command.args(words.split(' ')).arg("--root").arg(self.path("root")).env_clear();
        if !words.starts_with("status") {
            command.arg("--spec").arg(self.path("spec/spec.toml"));
        }
        command
    }

    pub fn run(&self, words: &str) -> Run {
        ran(self.command(words))
    }

    pub fn applied(self) -> Self {
        self.run("apply --probe off").says(0, &[]);
        self
    }
}

/// What a command says; the password is never part of it.
pub fn ran(mut command: Command) -> Run {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let all = format!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(!all.contains(PASSWORD) && !all.contains(CODED), "a secret is shown: {all}");
    Run { code: output.status.code().unwrap(), said }
}
