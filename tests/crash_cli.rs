//! The program itself is killed at every step of `apply` and `revert` on a Debian node with containerd and Podman: each file
//! is as before or as after, nothing temporary stands where something scans, the next run ends where an undisturbed one
//! ends, and the way back leads to where everything began.
//!
//! Every point kills a process. What follows a kill (next apply, plan, revert) is tried at each point at which the node looks
//! different from the point before, and at every nineteenth of the others: between them only something temporary has changed.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::format_collect,
    reason = "tests look, panic and talk"
)]

mod node_support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use node_support::{Thing, copy, difference, picture, put, scratch};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair};

type Picture = BTreeMap<String, Thing>;

const CONFIG: &str = r#"# kept by the distribution
version = 2

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "registry.k8s.io/pause:3.6" # theirs
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"#;

const STATUS: &str = "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u1\n\n\
    Package: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8+deb12u1\n\n";

/// What Debian's tool does to the bundle and, without `--fresh`, does not do to its links, in the shell's own words alone.
const REFRESH: &str = r#"#!/bin/sh
set -eu
emit() { while IFS= read -r line; do echo "$line"; done <"$1"; }
names() { for file in /usr/local/share/ca-certificates/*.crt; do [ ! -f "$file" ] || echo "$file"; done; }
links=/etc/ssl/certs/links
all=$({ [ "${1-}" = --fresh ] || emit $links; names; })
new=$(emit /usr/share/ca-certificates/base.crt; names | while read -r file; do emit "$file"; done)
echo "$new" >/etc/ssl/certs/ca-certificates.crt
seen=
for name in $all; do case " $seen " in *" $name "*) ;; *) seen="$seen $name" ;; esac; done
for name in $seen; do echo "$name"; done >$links
"#;

/// Made once per test: a node, and specs with what they name.
struct Ground {
    dir: tempfile::TempDir,
    /// Whether the node's trust store can be refreshed here.
    refreshes: bool,
    /// Further flags of every plan and apply.
    flags: &'static [&'static str],
}

fn certificate(name: &str, ca: bool) -> (String, String) {
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = if ca { IsCa::Ca(BasicConstraints::Unconstrained) } else { IsCa::NoCa };
    let key = KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn login(user: &str) -> String {
    let text = format!("{user}:secret");
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let sextet = |chunk: &[u8], at: usize| {
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        if at <= chunk.len() { char::from(alphabet[(bits >> (18 - 6 * at)) as usize & 63]) } else { '=' }
    };
    let coded: String = text.as_bytes().chunks(3).flat_map(|chunk| (0..4).map(move |at| sextet(chunk, at))).collect();
    format!(r#"{{"auths": {{"reg.example:5000": {{"auth": "{coded}"}}}}}}"#)
}

impl Ground {
    fn new() -> Self {
        let dir = scratch();
        let specs = dir.path().join("specs");
        fs::create_dir(&specs).unwrap();
        let (cert, key) = certificate("node", false);
        for (name, text) in [
            ("one.pem", certificate("one", true).0),
            ("two.pem", certificate("two", true).0),
            ("node.crt", cert),
            ("node.key", key),
            ("one.json", login("one")),
            ("two.json", login("two")),
        ] {
            fs::write(specs.join(name), text).unwrap();
        }
        let access = |login: &str| {
            format!(
                "[[registry]]\nhost = \"reg.example:5000\"\nclient_cert = \"node.crt\"\nclient_key = \"node.key\"\n\
                 credentials = \"{login}.json\"\n\n"
            )
        };
        let mirror = |source: &str| format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"reg.example:5000/{source}\"]\n\n");
        let ca = |name: &str| format!("version = 1\nfallback = \"never\"\n\n[[ca]]\nname = \"{name}\"\nfile = \"{name}.pem\"\n\n");
        let pause = "[runtime]\npause_image = \"reg.example:5000/pause:3.9\"\n";
        let first = ca("one") + &access("one") + &mirror("docker.io") + &mirror("quay.io") + pause;
        let second = ca("two") + &access("two") + &mirror("docker.io") + &mirror("ghcr.io");
        let third = ca("one") + &mirror("quay.io") + &mirror("ghcr.io") + pause;
        for (name, text) in [("first", first), ("second", second), ("third", third)] {
            fs::write(specs.join(format!("{name}.toml")), text).unwrap();
        }
        let mut ground = Self { dir, refreshes: false, flags: &[] };
        ground.refreshes = ground.node();
        ground
    }

    /// The same with settings of others, which are carried over: in config.toml, registries.conf, certs.d, a hosts.toml, a login.
    fn carrying() -> Self {
        let mut ground = Self::new();
        ground.flags = &["--foreign=carry"];
        let root = ground.at("origin");
        let theirs = certificate("theirs", true).0;
        let mirrors = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"gcr.io\"]\nendpoint = [\"https://old.example\"]\n";
        let configs = "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"old.example\".auth]\nusername = \"u\"\npassword = \"p\"\n";
        let entry = |prefix: &str, location: &str| format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"{location}\"\n");
        for (path, text) in [
            ("/etc/containerd/config.toml", format!("{CONFIG}{mirrors}{configs}")),
            ("/etc/containerd/certs.d/docker.io/hosts.toml", "[host.\"https://theirs.example\"]\n".to_owned()),
            ("/etc/containers/registries.conf.d/10-theirs.conf", entry("docker.io/library", "theirs.example/lib")),
            ("/etc/containers/registries.conf.d/zzz.conf", entry("quay.io", "theirs.example/quay")),
            ("/etc/containers/certs.d/theirs.example/ca.crt", theirs.clone()),
            ("/etc/containers/certs.d/reg.example:5000/ca.crt", theirs),
        ] {
            put(&root, path, &text);
        }
        let logins = login("theirs").replace("reg.example:5000", "theirs.example");
        fs::write(root.join("root/.config/containers/auth.json"), logins).unwrap();
        ground
    }

    /// A node as a distribution leaves it. Whether its tools can be run here.
    fn node(&self) -> bool {
        let root = self.at("origin");
        let base = certificate("base", true).0;
        for (path, text) in [
            ("/etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n"),
            ("/etc/containerd/config.toml", CONFIG),
            ("/etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n"),
            ("/etc/ca-certificates.conf", "base.crt\n"),
            ("/etc/ssl/certs/ca-certificates.crt", &base),
            ("/etc/ssl/certs/links", ""),
            ("/usr/share/ca-certificates/base.crt", &base),
            ("/usr/bin/containerd", ""),
            ("/usr/bin/podman", ""),
            ("/usr/sbin/update-ca-certificates", REFRESH),
            ("/var/lib/dpkg/status", STATUS),
            ("/root/.config/containers/auth.json", "{\n  \"auths\": {\"other.example\": {\"auth\": \"YTpi\"}}\n}\n"),
        ] {
            put(&root, path, text);
        }
        fs::create_dir_all(root.join("usr/local/share/ca-certificates")).unwrap();
        fs::create_dir_all(root.join("etc/containers/registries.conf.d")).unwrap();
        let mode = |path: &str, mode| fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
        mode("usr/sbin/update-ca-certificates", 0o755);
        mode("root/.config/containers/auth.json", 0o600);
        mode("etc/containerd/config.toml", 0o640);
        Self::shell(&root)
    }

    /// Puts the machine's shell and its libraries into the root.
    fn shell(root: &Path) -> bool {
        let Ok(listed) = Command::new("ldd").arg("/bin/sh").output() else { return false };
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain(["/bin/sh"]) {
            let to = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            if fs::copy(file, &to).is_err() {
                return false;
            }
        }
        let mut run = Command::new("chroot");
        run.arg(root).args(["/bin/sh", "-c", "exit 0"]);
        let works = run.output().is_ok_and(|output| output.status.success());
        if !works {
            println!("the trust store is not refreshed here: chroot needs root");
        }
        works
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fresh copy of one root under another name.
    fn fresh(&self, from: &str, to: &str) -> PathBuf {
        let root = self.at(to);
        let _ = fs::remove_dir_all(&root);
        copy(&self.at(from), &root);
        root
    }

    /// Runs nodeprep; its exit code, 9 + 128 when it was killed, and what it said.
    fn run(&self, root: &Path, goal: &str, extra: &[&str], checkpoint: Option<usize>) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if ["revert", "recover"].contains(&goal) {
            command.arg(goal);
        } else {
            let verb = if extra.contains(&"--exit-code") { "plan" } else { "apply" };
            command.arg(verb).arg("--spec").arg(self.at("specs").join(format!("{goal}.toml")));
            // what is said anew counts
            if !extra.iter().any(|word| word.starts_with("--foreign")) {
                command.args(self.flags);
            }
        }
        command.arg("--root").arg(root).args(extra);
        if let Some(checkpoint) = checkpoint {
            command.env("NODEPREP_CHECKPOINT", checkpoint.to_string());
        }
        let output = command.output().unwrap();
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().or_else(|| output.status.signal().map(|signal| 128 + signal)).unwrap_or(-1), text)
    }

    fn run_well(&self, at: &str, root: &Path, goal: &str) {
        let (code, text) = self.run(root, goal, &[], None);
        assert_eq!(code, 0, "{at}: {goal} ended with {code}:\n{text}");
    }

    /// The root that undisturbed runs lead to.
    fn undisturbed(&self, name: &str, goals: &[&str]) -> Picture {
        let root = self.fresh("origin", name);
        for goal in goals {
            self.run_well(name, &root, goal);
        }
        seen(&root)
    }

    fn nothing_to_do(&self, at: &str, root: &Path, goal: &str) {
        if goal != "revert" {
            let (code, text) = self.run(root, goal, &["--exit-code"], None);
            assert!(code == 0 || !self.refreshes && text.contains("refresh"), "{at}: plan ended with {code}:\n{text}");
        }
    }

    fn is(at: &str, root: &Path, want: &Picture) {
        let now = seen(root);
        assert!(now == *want, "{at}: {}", difference(&now, want));
    }
}

/// Everything but nodeprep's own state and what only the tests brought.
fn seen(root: &Path) -> Picture {
    let mut all = picture(root);
    all.retain(|path, _| !["/lib", "/lib64", "/bin"].iter().any(|folder| path == folder || path.starts_with(&format!("{folder}/"))));
    all.retain(|path, _| path != "/var/lib/nodeprep");
    all
}

/// Folders that a runtime or trust tool scans.
const SCANNED: [&str; 7] = [
    "/etc/containerd/certs.d/",
    "/etc/containers/registries.conf.d/",
    "/etc/containers/certs.d/",
    "/etc/docker/certs.d/",
    "/etc/ssl/certs/",
    "/usr/local/share/ca-certificates/",
    "/etc/nodeprep/pki/",
];

fn whole(at: &str, root: &Path, was: &Picture, will: &Picture) {
    let now = seen(root);
    for (path, thing) in &now {
        let staged = path.contains(".nodeprep-stage");
        assert!(!staged || !SCANNED.iter().any(|folder| path.starts_with(folder)), "{at}: {path} stands where something scans");
        // the tool writes these itself, and they change with the anchors
        let made = path.starts_with("/etc/ssl/certs/");
        assert!(staged || made || [was.get(path), will.get(path)].contains(&Some(thing)), "{at}: {path} is {thing:?}");
    }
    // rule 9: what a hosts.toml refers to is there before it, and goes after it
    for (path, thing) in now.iter().filter(|(path, _)| path.ends_with("/hosts.toml") && !path.contains(".nodeprep-stage")) {
        let Thing::File(text, ..) = thing else { continue };
        for named in text.split('"').filter(|part| part.starts_with("/etc/nodeprep/pki/")) {
            assert!(now.contains_key(named), "{at}: {path} refers to {named}, which is not there");
        }
    }
    for (path, thing) in was {
        assert!(now.contains_key(path) || will.get(path) != Some(thing), "{at}: {path} is gone");
    }
    for folder in ["docker.io", "quay.io", "ghcr.io", "reg.example:5000", "reg.example_5000_"] {
        let folder = format!("/etc/containerd/certs.d/{folder}");
        let inside = now.keys().any(|path| path.starts_with(&format!("{folder}/")));
        assert!(inside || !now.contains_key(&folder), "{at}: {folder} is empty");
    }
}

/// Whatever holds a secret, temporary files and what is kept for the way back included, is its owner's alone from its creation on.
fn closed(at: &str, ground: &Ground, root: &Path) -> usize {
    let read = |name: &str| fs::read_to_string(ground.at("specs").join(name)).unwrap();
    let key = read("node.key");
    let mut secrets: Vec<String> = key.lines().filter(|line| !line.starts_with("-----")).map(ToOwned::to_owned).collect();
    for name in ["one", "two"] {
        secrets.push(format!("{name}:secret"));
        secrets.extend(read(&format!("{name}.json")).split('"').nth_back(1).map(ToOwned::to_owned));
    }
    let mut open = vec![root.to_owned()];
    let mut holders = 0;
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap().flatten() {
            let (path, kind) = (entry.path(), entry.file_type().unwrap());
            if kind.is_dir() {
                open.push(path);
                continue;
            }
            if !kind.is_file() || path.starts_with(root.join("lib")) || path.starts_with(root.join("lib64")) {
                continue;
            }
            let text = fs::read(&path).unwrap();
            let text = String::from_utf8_lossy(&text);
            if secrets.iter().any(|secret| text.contains(secret)) {
                holders += 1;
                let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
                assert_eq!(mode, 0o600, "{at}: {} holds a secret with mode {mode:o}", path.display());
            }
        }
    }
    holders
}

/// What tells one moment from the next: the node, and the names in nodeprep's state folder.
fn moment(root: &Path) -> (Picture, bool) {
    let mut all = seen(root);
    all.retain(|path, _| !path.contains(".nodeprep-stage"));
    let ledger = fs::read_to_string(root.join("var/lib/nodeprep/ledger.json")).unwrap_or_default();
    (all, ledger.contains("\"open\":{"))
}

fn killed_everywhere(before: &[&str], goal: &str) {
    if !cfg!(debug_assertions) {
        println!("skipped: release builds have no checkpoints");
        return;
    }
    let ground = Ground::new();
    let origin = seen(&ground.at("origin"));
    let was = ground.undisturbed("before", before);
    let goals: Vec<&str> = before.iter().copied().chain([goal]).collect();
    let will = ground.undisturbed("after", &goals);
    let mut last = None;
    let mut tried = 0;
    for point in 1.. {
        let at = format!("{goal} killed at {point}");
        let root = ground.fresh("before", "root");
        let (code, text) = ground.run(&root, goal, &[], Some(point));
        if code == 0 {
            assert!(point > 40, "{at}: too few points");
            assert!(goal == "revert" || closed(&at, &ground, &root) > 0, "{at}: a secret is written");
            println!("{goal}: {point} points, {tried} tried to the end");
            return;
        }
        assert_eq!(code, 137, "{at}: {text}");
        whole(&at, &root, &was, &will);
        closed(&at, &ground, &root);
        let now = moment(&root);
        if last.as_ref() == Some(&now) && point % 19 != 0 {
            continue;
        }
        last = Some(now);
        tried += 1;
        ground.run_well(&at, &root, goal);
        Ground::is(&at, &root, &will);
        if tried % 2 == 0 {
            ground.nothing_to_do(&at, &root, goal);
        } else if goal != "revert" {
            ground.run_well(&at, &root, "revert");
            Ground::is(&format!("{at}, reverted"), &root, &origin);
        }
    }
}

/// Rule 9: at each point, certificate files stand before what refers to them.
#[test]
fn first_contact() {
    killed_everywhere(&[], "first");
}

#[test]
fn another_spec() {
    killed_everywhere(&["first"], "second");
}

#[test]
fn revert() {
    killed_everywhere(&["first"], "revert");
}

/// Kills `goal` at sampled points; `then` sees the root.
fn killed_somewhere(ground: &Ground, from: &str, goal: &str, step: usize, then: impl Fn(&str, &Path, usize)) {
    if !cfg!(debug_assertions) {
        println!("skipped: release builds have no checkpoints");
        return;
    }
    for point in (1..).step_by(step) {
        let at = format!("{goal} killed at {point}");
        let root = ground.fresh(from, "root");
        let (code, text) = ground.run(&root, goal, &[], Some(point));
        if code == 0 {
            assert!(point > 40, "{at}: too few points");
            return;
        }
        assert_eq!(code, 137, "{at}: {text}");
        closed(&at, ground, &root);
        then(&at, &root, point);
    }
}

#[test]
fn killed_apply_then_revert() {
    let ground = Ground::new();
    let origin = seen(&ground.at("origin"));
    ground.undisturbed("before", &["first"]);
    for (from, goal) in [("origin", "first"), ("before", "second")] {
        killed_somewhere(&ground, from, goal, 23, |at, root, _| {
            ground.run_well(at, root, "revert");
            Ground::is(&format!("{at}, reverted"), root, &origin);
            let (_, text) = ground.run(root, "revert", &[], None);
            assert!(text.contains("0 changes made"), "{at}: {text}");
        });
    }
}

/// Without the spec, from the ledger alone: what is whole stays, everything else is as before, byte for byte; and killed in that it is
/// done by the next.
#[test]
fn killed_run_then_recover() {
    let ground = Ground::new();
    let origin = seen(&ground.at("origin"));
    let first = ground.undisturbed("before", &["first"]);
    let second = ground.undisturbed("second", &["first", "second"]);
    let (kept, back) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
    for (from, was, goal, will, step) in
        [("origin", &origin, "first", &first, 17), ("before", &first, "second", &second, 19), ("before", &first, "revert", &origin, 23)]
    {
        killed_somewhere(&ground, from, goal, step, |at, root, point| {
            if point % 3 == 0 {
                let again = 1 + point * 5 % 60;
                let (code, text) = ground.run(root, "recover", &[], Some(again));
                assert!([0, 6, 137].contains(&code), "{at}, recover killed at {again}: {text}");
                closed(at, &ground, root);
            }
            let (code, text) = ground.run(root, "recover", &[], None);
            match code {
                6 => {
                    back.set(back.get() + 1);
                    Ground::is(&format!("{at}, put back"), root, was);
                }
                0 => kept.set(kept.get() + usize::from(text.contains("taken as it is"))),
                code => panic!("{at}: recover ended with {code}: {text}"),
            }
            let (code, text) = ground.run(root, "recover", &[], None);
            assert!(code == 0 && text.contains("no run was cut off"), "{at}: {text}");
            ground.run_well(at, root, goal);
            Ground::is(at, root, will);
            ground.nothing_to_do(at, root, goal);
            ground.run_well(at, root, "revert");
            Ground::is(&format!("{at}, reverted"), root, &origin);
        });
    }
    assert!(!cfg!(debug_assertions) || kept.get() > 1 && back.get() > 3, "{} kept, {} put back", kept.get(), back.get());
}

/// What a run that is taken as it is has left to the next one is named, whoever of two killed runs has put it there.
#[test]
fn killed_twice_then_recover_names_what_is_still_to_go() {
    let ground = Ground::new();
    ground.undisturbed("before", &["first"]);
    let named = std::cell::Cell::new(0);
    for (from, earlier) in [("origin", "first"), ("before", "second")] {
        killed_somewhere(&ground, from, earlier, 62, |at, root, _| {
            let between = ground.at("between");
            let _ = fs::remove_dir_all(&between);
            copy(root, &between);
            for again in (30..).step_by(12) {
                let root = ground.fresh("between", "root");
                let (code, text) = ground.run(&root, "third", &[], Some(again));
                if code == 0 {
                    break;
                }
                let at = format!("{at}, third killed at {again}");
                assert_eq!(code, 137, "{at}: {text}");
                let ledger: Option<serde_json::Value> =
                    fs::read(root.join("var/lib/nodeprep/ledger.json")).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
                let after = ledger.and_then(|ledger| ledger["open"]["after"].as_object().cloned()).unwrap_or_default();
                let (code, text) = ground.run(&root, "recover", &[], None);
                if code != 0 || !text.contains("taken as it is") {
                    continue;
                }
                let now = seen(&root);
                for (path, _) in after.iter().filter(|(path, stamp)| *stamp == "absent" && now.contains_key(*path)) {
                    assert!(text.contains(&format!("{path} was to go last, and is still there")), "{at}: nothing of {path} in:\n{text}");
                    named.set(named.get() + 1);
                }
            }
        });
    }
    assert!(!cfg!(debug_assertions) || named.get() > 5, "only {} were still to go", named.get());
}

/// What cannot be put back is left as it is, with what to do, and the next apply goes on from there.
#[test]
fn killed_run_then_recover_without_the_copies() {
    let ground = Ground::new();
    ground.undisturbed("before", &["first"]);
    let second = ground.undisturbed("second", &["first", "second"]);
    let stuck = std::cell::Cell::new(0);
    killed_somewhere(&ground, "before", "second", 13, |at, root, _| {
        let state = root.join("var/lib/nodeprep");
        fs::remove_dir_all(state.join("blobs")).unwrap();
        // what was temporary goes in any case
        let lasting = |root: &Path| -> Picture { seen(root).into_iter().filter(|(path, _)| !path.contains(".nodeprep-stage")).collect() };
        let killed = lasting(root);
        let (code, text) = ground.run(root, "recover", &[], None);
        if code == 7 {
            stuck.set(stuck.get() + 1);
            assert!(text.contains("run `nodeprep apply`"), "{at}: {text}");
            assert!(lasting(root) == killed, "{at}: {}", difference(&lasting(root), &killed));
            ground.run_well(at, root, "second");
            Ground::is(at, root, &second);
        } else {
            assert!([0, 6].contains(&code), "{at}: recover ended with {code}: {text}");
        }
    });
    assert!(!cfg!(debug_assertions) || stuck.get() > 1, "only {} could not be put back", stuck.get());
}

#[test]
fn killed_apply_then_another_spec() {
    let ground = Ground::new();
    let origin = seen(&ground.at("origin"));
    let first = ground.undisturbed("before", &["first"]);
    let third = ground.undisturbed("third", &["third"]);
    killed_somewhere(&ground, "before", "second", 19, |at, root, point| {
        let (goal, want) = if point % 2 == 0 { ("first", &first) } else { ("third", &third) };
        ground.run_well(at, root, goal);
        Ground::is(&format!("{at}, then {goal}"), root, want);
        ground.nothing_to_do(at, root, goal);
        let (_, text) = ground.run(root, goal, &[], None);
        assert!(text.contains("0 changes made") && !text.contains("drift"), "{at}: {text}");
        ground.run_well(at, root, "revert");
        Ground::is(&format!("{at}, then {goal}, reverted"), root, &origin);
    });
}

#[test]
fn what_is_carried_over_survives_a_kill() {
    let ground = Ground::carrying();
    let origin = seen(&ground.at("origin"));
    let first = ground.undisturbed("before", &["first"]);
    let second = ground.undisturbed("second", &["first", "second"]);
    let ledger = |root: &Path| -> serde_json::Value {
        serde_json::from_slice(&fs::read(root.join("var/lib/nodeprep/ledger.json")).unwrap()).unwrap()
    };
    let adopted = ledger(&ground.at("before"))["adopted"].clone();
    assert!(adopted["/etc/containerd/config.toml"]["mirrors"]["gcr.io"].is_object(), "{adopted}");
    assert!(adopted["/etc/containers/registries.conf"]["mirrors"]["docker.io/library"].is_object(), "{adopted}");
    assert!(!first.contains_key("/etc/containers/registries.conf.d/zzz.conf"));
    let plainly = std::cell::Cell::new(0);
    for (from, goal, want, step) in [("origin", "first", &first, 5), ("before", "second", &second, 13)] {
        killed_somewhere(&ground, from, goal, step, |at, root, point| {
            if point % 2 == 0 {
                // a run that had begun is finished as it was begun, also without being asked for that once more
                let begun = moment(root).1 && from == "origin";
                plainly.set(plainly.get() + u32::from(begun));
                let (code, text) = ground.run(root, goal, if begun { &["--foreign=refuse"] } else { &[] }, None);
                assert_eq!(code, 0, "{at}: {text}");
                Ground::is(at, root, want);
                // what the killed run took over from settings that it took out is not lost
                assert_eq!(ledger(root)["adopted"], adopted, "{at}");
                ground.nothing_to_do(at, root, goal);
            }
            ground.run_well(at, root, "revert");
            Ground::is(&format!("{at}, reverted"), root, &origin);
        });
    }
    assert!(plainly.get() > 3 || !cfg!(debug_assertions), "only {} runs were cut off after they had begun", plainly.get());
    killed_somewhere(&ground, "before", "revert", 13, |at, root, _| {
        ground.run_well(at, root, "revert");
        Ground::is(at, root, &origin);
    });
}

#[test]
fn killed_twice() {
    let ground = Ground::new();
    let origin = seen(&ground.at("origin"));
    ground.undisturbed("before", &["first"]);
    let second = ground.undisturbed("second", &["first", "second"]);
    killed_somewhere(&ground, "before", "second", 29, |at, root, point| {
        // where the second run is killed walks through all of its steps as the first one does, at another pace
        let again = 1 + point * 7 % 90;
        let goal = if point % 3 == 0 { "third" } else { "second" };
        let (code, text) = ground.run(root, goal, &[], Some(again));
        assert!(code == 0 || code == 137, "{at}, {goal} killed at {again}: {text}");
        let at = format!("{at}, {goal} killed at {again}");
        ground.run_well(&at, root, "second");
        Ground::is(&at, root, &second);
        ground.nothing_to_do(&at, root, "second");
        ground.run_well(&at, root, "revert");
        Ground::is(&format!("{at}, reverted"), root, &origin);
    });
}
