//! A scratch node and a spec that fits it, the real binary, and what must hold whatever is done to them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The main case: containerd and Podman, a CA, a client certificate, a login.
const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/flow/mtls-and-login");
pub const BINARY: &str = env!("CARGO_BIN_EXE_nodeprep");
/// What stands in the fixture's logins, and a secret for foreign files.
pub const SECRETS: [&str; 5] =
    ["cHVsbGVyOmZpeHR1cmUtcGFzc3dvcmQ=", "fixture-password", "b3RoZXI6Zml4dHVyZS1vdGhlcg==", "foreign-s3cret", "c3BlYzpzM2NyZXQ="];

/// A root folder and a spec, in a folder that goes when this does.
pub struct Node {
    dir: tempfile::TempDir,
    pub root: PathBuf,
    pub spec: PathBuf,
    /// Run through these words: `setpriv …`.
    pub through: Vec<String>,
}

/// What a run of the program gave.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    pub kind: &'static str,
    pub mode: u32,
    owner: (u32, u32),
    pub content: Vec<u8>,
}

pub type Picture = BTreeMap<PathBuf, Thing>;

impl Node {
    pub fn new() -> Self {
        let dir = tempfile::Builder::new().prefix("nodeprep-bad-input").tempdir().unwrap();
        let (root, spec) = (dir.path().join("root"), dir.path().join("spec"));
        let copied = Command::new("cp").args(["-a", &format!("{FIXTURE}/before")]).arg(&root).status().unwrap();
        assert!(copied.success());
        let auth = root.join("root/.config/containers/auth.json");
        fs::rename(root.join("root/.config/containers/auth.json.mode-0600"), &auth).unwrap();
        fs::set_permissions(&auth, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir(&spec).unwrap();
        for name in ["spec.toml", "node.key", "node.crt", "ca.pem", "pull-secret.json"] {
            fs::copy(Path::new(FIXTURE).join(name), spec.join(name)).unwrap();
        }
        Self { dir, root, spec, through: Vec::new() }
    }

    /// The folder that holds root and spec.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    /// A path of the node.
    pub fn at(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    pub fn put(&self, path: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        file
    }

    pub fn get(&self, path: &str) -> String {
        fs::read_to_string(self.at(path)).unwrap()
    }

    /// Replaces the spec's document.
    pub fn document(&self, text: impl AsRef<[u8]>) {
        fs::write(self.spec.join("spec.toml"), text).unwrap();
    }

    /// `nodeprep WORDS --root ROOT`, with the spec for those who take one.
    pub fn run(&self, words: &str) -> Run {
        let mut words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        if !["revert", "recover", "status", "pause", "resume"].contains(&words[0].as_str())
            && !words.iter().any(|word| word == "--spec")
            && (words[0] != "explain" || words.contains(&"--planned".into()))
        {
            words.extend(["--spec".to_owned(), self.spec.to_str().unwrap().to_owned()]);
        }
        if words[0] != "check" && !words.iter().any(|word| word == "--root") {
            words.extend(["--root".to_owned(), self.root.to_str().unwrap().to_owned()]);
        }
        let run = self.command(&words, Stdio::null());
        run.no_secret();
        run
    }

    pub fn command(&self, words: &[String], input: Stdio) -> Run {
        let mut all = self.through.clone();
        all.push(BINARY.to_owned());
        all.extend_from_slice(words);
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env_clear().env("PATH", std::env::var_os("PATH").unwrap()).stdin(input);
        let output = command.output().unwrap();
        Run {
            code: output.status.code().unwrap_or_else(|| panic!("{all:?} was killed: {output:?}")),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Everything in the root, the state folder only where `state`.
    pub fn picture(&self, state: bool) -> Picture {
        let mut all = Picture::new();
        look(&self.root, Path::new(""), &mut all);
        all.retain(|path, _| state || !path.starts_with("var/lib"));
        all
    }

    /// The key's lines and the logins.
    pub fn secrets() -> Vec<String> {
        let key = fs::read_to_string(Path::new(FIXTURE).join("node.key")).unwrap();
        let lines = key.lines().filter(|line| !line.contains("-----")).map(str::to_owned);
        lines.chain(SECRETS.map(str::to_owned)).collect()
    }
}

impl Run {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }

    fn no_secret(&self) {
        for secret in Node::secrets() {
            assert!(!self.out.contains(&secret), "standard output shows a secret: {}", self.out);
            assert!(!self.err.contains(&secret), "standard error shows a secret: {}", self.err);
        }
    }

    /// Ends with `code` and says all of this on standard output.
    pub fn says(&self, code: i32, wanted: &[&str]) {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        for piece in wanted {
            assert!(self.out.contains(piece), "no {piece:?} in:\n{}{}", self.out, self.err);
        }
    }
}

fn look(root: &Path, at: &Path, all: &mut Picture) {
    let Ok(entries) = fs::read_dir(root.join(at)) else { return };
    for entry in entries {
        let entry = entry.unwrap();
        let here = at.join(entry.file_name());
        let meta = entry.path().symlink_metadata().unwrap();
        let kind = meta.file_type();
        let (kind, content) = if kind.is_symlink() {
            ("link", fs::read_link(entry.path()).unwrap().as_os_str().as_bytes().to_vec())
        } else if kind.is_dir() {
            look(root, &here, all);
            ("folder", Vec::new())
        } else if kind.is_fifo() || kind.is_char_device() || kind.is_socket() || meta.len() > 1 << 24 {
            ("odd", Vec::new())
        } else {
            ("file", fs::read(entry.path()).unwrap_or_default())
        };
        all.insert(here, Thing { kind, mode: meta.mode() & 0o7777, owner: (meta.uid(), meta.gid()), content });
    }
}

/// Both pictures show the same.
pub fn same(before: &Picture, after: &Picture) {
    let paths = before.keys().chain(after.keys());
    let differ: Vec<String> = paths
        .filter(|path| before.get(*path) != after.get(*path))
        .map(|path| {
            let short = |picture: &Picture| picture.get(path).map(|thing| format!("{} {:o} {:?}", thing.kind, thing.mode, thing.owner));
            format!("{}: {:?} instead of {:?}", path.display(), short(after), short(before))
        })
        .collect();
    assert!(differ.is_empty(), "changed: {differ:#?}");
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// Runs the body of the test `name` in a mount namespace of its own, so that nothing stays mounted however it ends.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os("BAD_INPUT_ALONE").is_some() {
        return body();
    }
    let able = Command::new("unshare")
        .args(["-m", "sh", "-c", "d=$(mktemp -d) && mount -t tmpfs none $d; s=$?; umount $d; rmdir $d; exit $s"])
        .output();
    if !is_root() || !able.is_ok_and(|output| output.status.success()) {
        println!("skipped: {name} mounts file systems, which needs root and unshare(1), and is not possible here");
        return;
    }
    let mut command = Command::new("unshare");
    command.arg("-m").arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture", "--test-threads=1"]);
    let output = command.env("BAD_INPUT_ALONE", "1").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// A command that must succeed.
pub fn must(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    assert!(output.status.success(), "{words:?}: {output:?}");
}
