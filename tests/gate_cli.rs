//! The gate before the first byte: what has no endpoint that answers is kept back as it is on the node, the rest is applied, and
//! the next run takes it up. Registries are listeners on the loopback interface. Needs neither root nor a runtime.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Answers everything with 200.
fn answers(listener: TcpListener) -> String {
    answers_with(listener, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
}

/// Answers everything with this.
fn answers_with(listener: TcpListener, answer: &'static str) -> String {
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = String::new();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    host
}

fn alive() -> String {
    answers(TcpListener::bind("127.0.0.1:0").unwrap())
}

/// A port that nobody listens on.
fn dead() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    /// containerd and Podman.
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        node.put("root/usr/bin/containerd", "");
        node.put("root/usr/bin/podman", "");
        let versions = "Package: containerd.io\nStatus: install ok installed\nVersion: 2.1.4-1\n\nPackage: podman\nStatus: install ok installed\n\
                        Version: 5.4.2-1\n\n";
        node.put("root/var/lib/dpkg/status", versions);
        node.put("root/etc/containerd/config.toml", "version = 3\n");
        node
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// The exit code and what was said, under a spec with these mirrors.
    fn run(&self, words: &str, top: &str, mirrors: &[(&str, &str, &str)]) -> (i32, String) {
        let mirror = |(source, endpoint, more): &(&str, &str, &str)| {
            format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"http://{endpoint}\"]\n{more}\n")
        };
        let mirrors: String = mirrors.iter().map(mirror).collect();
        self.put("spec.toml", &format!("version = 1\nfallback = \"never\"\n{top}\n{mirrors}"));
        self.nodeprep(&format!("{words} --spec spec.toml"))
    }

    fn nodeprep(&self, words: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        let output = command.args(words.split(' ')).args(["--root", "root"]).current_dir(self.folder.path()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    }

    /// Every file that runtimes read.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut todo = vec![self.path("root/etc")];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten() {
                if entry.path().is_dir() {
                    todo.push(entry.path());
                } else {
                    found.insert(entry.path(), std::fs::read(entry.path()).unwrap());
                }
            }
        }
        found
    }

    /// The hosts that an image is asked for, by any runtime, in the words of `explain`.
    fn asked(&self, image: &str) -> String {
        self.nodeprep(&format!("explain {image}")).1
    }

    fn folder(&self, host: &str) -> Option<Vec<u8>> {
        std::fs::read(self.path("root/etc/containerd/certs.d").join(host).join("hosts.toml")).ok()
    }
}

#[test]
fn what_does_not_answer_stays_and_the_rest_goes_on() {
    let (node, old, new, later) = (Node::new(), alive(), alive(), dead());
    let (code, said) = node.run("apply --probe require", "", &[("docker.io", &old, ""), ("quay.io", &old, ""), ("gcr.io", &old, "")]);
    assert_eq!(code, 0, "{said}");
    let docker = node.folder("docker.io").unwrap();
    let next = [("docker.io", &*later, ""), ("quay.io", &*new, ""), ("ghcr.io", &*later, ""), ("gcr.io", &*old, "")];
    let before = node.files();
    let (code, said) = node.run("plan --probe require --exit-code", "", &next);
    assert!(code == 8 && said.contains("docker.io is kept back as it was") && said.contains("connection refused"), "{code} {said}");
    assert_eq!(node.files(), before);
    for changes in [true, false] {
        let (code, said) = node.run("apply --probe require", "", &next);
        let told = ["error[kept-back]", "docker.io is kept back", "ghcr.io is kept back"].iter().all(|told| said.contains(told));
        assert!(code == 8 && told && !said.contains("quay.io is kept") && !said.contains("gcr.io is kept"), "{code} {said}");
        assert_eq!(said.contains("0 changes made"), !changes, "{said}");
        // as it was, byte by byte and name by name; nothing for the one that has no old files
        assert_eq!(node.folder("docker.io").as_ref(), Some(&docker));
        assert!(node.folder("registry-1.docker.io").is_some() && node.folder("ghcr.io").is_none());
        for image in ["docker.io/library/nginx", "registry-1.docker.io/library/nginx", "gcr.io/a/b"] {
            let asked = node.asked(image);
            assert!(asked.contains(&old) && !asked.contains(&new) && !asked.contains(&later), "{asked}");
        }
        let asked = node.asked("quay.io/a/b");
        assert!(asked.contains(&new) && !asked.contains(&old), "{asked}");
        assert!(node.asked("ghcr.io/a/b").contains("https://ghcr.io"));
    }
    // what is kept back is not as the spec says
    let (code, said) = node.run("verify", "", &next);
    assert!(code == 8 && said.contains("not as the spec says"), "{code} {said}");
    // the mirror comes up
    answers(TcpListener::bind(&later).unwrap());
    let (code, said) = node.run("apply --probe require", "", &next);
    assert!(code == 0 && !said.contains("kept-back"), "{code} {said}");
    for image in ["docker.io/library/nginx", "ghcr.io/a/b"] {
        let asked = node.asked(image);
        assert!(asked.contains(&later) && !asked.contains(&old), "{asked}");
    }
    assert!(!node.asked("ghcr.io/a/b").contains("https://ghcr.io"));
    let (code, said) = node.run("verify", "", &next);
    assert_eq!(code, 0, "{said}");
    let (code, said) = node.nodeprep("revert");
    assert!(code == 0 && node.folder("docker.io").is_none(), "{said}");
}

#[test]
fn who_says_so_has_it_written_anyway() {
    let (old, gone) = (alive(), dead());
    for (flags, more, code) in [
        ("--probe require", "on_unready = \"apply\"", 0),
        ("--probe warn", "", 0),
        ("--probe off", "", 0),
        ("--probe require", "on_unready = \"keep\"", 8),
    ] {
        let node = Node::new();
        assert_eq!(node.run("apply --probe off", "", &[("docker.io", &old, "")]).0, 0);
        let (ended, said) = node.run(&format!("apply {flags}"), "", &[("docker.io", &gone, more)]);
        assert!(ended == code && (said.contains("endpoint-unready") || flags.contains("off") || code == 8), "{flags}: {ended} {said}");
        assert_eq!(node.asked("docker.io/library/nginx").contains(&gone), code == 0, "{flags}");
    }
}

/// The mirror's own images come from a registry that it is to mirror: until it is there, that stays open, also under `deny`.
#[test]
fn a_mirror_does_not_lock_its_own_bootstrap() {
    let (node, later, other) = (Node::new(), dead(), alive());
    let (top, mirrors) = ("unlisted = \"deny\"", [("quay.io", &*later, ""), ("docker.io", &*other, "")]);
    let (code, said) = node.run("apply --probe require", top, &mirrors);
    assert!(code == 8 && said.contains("quay.io is kept back"), "{code} {said}");
    for image in ["quay.io/mirror/registry", "quay.io:443/mirror/registry"] {
        let asked = node.asked(image);
        assert!(asked.contains("https://quay.io") && !asked.contains(&later), "{asked}");
    }
    // all the rest is closed already
    assert!(!node.asked("docker.io/library/nginx").contains("https://registry-1.docker.io"));
    assert!(!node.asked("ghcr.io/a/b").contains("https://ghcr.io"));
    answers(TcpListener::bind(&later).unwrap());
    let (code, said) = node.run("apply --probe require", top, &mirrors);
    assert_eq!(code, 0, "{said}");
    let asked = node.asked("quay.io/mirror/registry");
    assert!(asked.contains(&later) && !asked.contains("https://quay.io"), "{asked}");
}

/// What was closed before does not open because its new mirror is not there.
#[test]
fn what_was_closed_stays_closed() {
    let (node, old, later) = (Node::new(), alive(), dead());
    let deny = "unlisted = \"deny\"";
    assert_eq!(node.run("apply --probe off", deny, &[("docker.io", &old, "")]).0, 0);
    let (code, said) = node.run("apply --probe require", deny, &[("docker.io", &later, ""), ("ghcr.io", &later, "")]);
    assert!(code == 8 && said.contains("ghcr.io is kept back"), "{code} {said}");
    let asked = node.asked("docker.io/library/nginx");
    assert!(asked.contains(&old) && !asked.contains("registry-1.docker.io"), "{asked}");
    assert!(!node.asked("ghcr.io/a/b").contains("https://ghcr.io"));
}

/// Somebody else's files are old files, too.
#[test]
fn what_others_wrote_stays() {
    let (node, theirs, later, other) = (Node::new(), alive(), dead(), alive());
    let file = format!("server = \"https://quay.io\"\n[host.\"http://{theirs}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
    node.put("root/etc/containerd/certs.d/quay.io/hosts.toml", &file);
    node.put(
        "root/etc/containerd/config.toml",
        "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
    );
    let (code, said) = node.run("apply --probe require --foreign replace", "", &[("quay.io", &later, ""), ("docker.io", &other, "")]);
    assert_eq!(code, 8, "{said}");
    let asked = node.asked("quay.io/a/b");
    assert!(asked.contains(&theirs) && asked.contains("https://quay.io") && !asked.contains(&later), "{asked}\n{said}");
    assert!(node.asked("docker.io/library/nginx").contains(&other));
    assert_eq!(node.nodeprep("revert").0, 0);
    assert_eq!(String::from_utf8(node.folder("quay.io").unwrap()).unwrap(), file);
}

/// The same endpoint, reached otherwise.
#[test]
fn the_way_that_works_is_not_given_up_for_one_that_does_not() {
    let (node, registry) = (Node::new(), alive());
    let own = |more: &str| format!("[[registry]]\nhost = \"{registry}\"\n{more}");
    // plain HTTP works; TLS does not
    assert_eq!(node.run("apply --probe require", "", &[("docker.io", &registry, "")]).0, 0);
    let before = node.asked("docker.io/library/nginx");
    node.put(
        "spec.toml",
        &format!(
            "version = 1\nfallback = \"never\"\n{}\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"{registry}\"]\n",
            own("insecure = true")
        ),
    );
    let (code, said) = node.nodeprep("apply --probe require --spec spec.toml");
    assert!(code == 8 && said.contains("docker.io is kept back"), "{code} {said}");
    assert_eq!(node.asked("docker.io/library/nginx"), before);
    assert!(Path::exists(&node.path("root/etc/containerd/certs.d/docker.io/hosts.toml")));
}

/// Who logs in, in plain text, to a registry that has this host.
fn with_login(host: &str, more: &str) -> String {
    format!("[[registry]]\nhost = \"{host}\"\nallow_plaintext_credentials = true\ncredentials = \"pull-secret.json\"\n{more}")
}

/// `puller:a-secret-of-the-test`.
const CODED: &str = "cHVsbGVyOmEtc2VjcmV0LW9mLXRoZS10ZXN0";

/// Kept back is as it is now: also the login that the new spec gives the host no more, and the time-out of the endpoint.
#[test]
fn a_login_and_a_timeout_stay_with_what_is_kept_back() {
    let (node, gone, new) = (Node::new(), dead(), alive());
    node.put("pull-secret.json", &format!("{{\"auths\": {{\"{gone}\": {{\"auth\": \"{CODED}\"}}}}}}"));
    let endpoint = |path: &str, timeout: &str| format!("endpoints = [{{ location = \"http://{gone}/{path}\", timeout = \"{timeout}\" }}]");
    let spec = |registry: &str, endpoint: &str, more: &str| {
        let text = format!("version = 1\nfallback = \"never\"\n{registry}\n[[mirror]]\nsource = \"docker.io\"\n{endpoint}\n{more}");
        node.put("spec.toml", &text);
    };
    spec(&with_login(&gone, ""), &endpoint("old", "20s"), "");
    let (code, said) = node.nodeprep("apply --probe off --spec spec.toml");
    assert_eq!(code, 0, "{said}");
    let before = node.files();
    let docker = String::from_utf8(node.folder("docker.io").unwrap()).unwrap();
    assert!(docker.contains(CODED) && docker.contains("dial_timeout = \"20s\""), "{docker}");
    // no login any more, another path, another time-out; and something that goes on
    spec("", &endpoint("new", "7s"), &format!("[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"http://{new}\"]\n"));
    let (code, said) = node.nodeprep("apply --probe require --spec spec.toml");
    assert!(code == 8 && said.contains("docker.io is kept back") && !said.contains(CODED), "{code} {said}");
    assert!(said.contains(&format!("{gone} is reached as it was, with its login, which the spec gives it no more")), "{said}");
    let after = node.files();
    let changed: Vec<_> = before.iter().filter(|(path, bytes)| after.get(*path) != Some(bytes)).map(|(path, _)| path).collect();
    // the one file of containers/image is for all sources
    assert!(changed.iter().all(|path| path.to_str().unwrap().contains("registries.conf.d")), "{changed:?}");
    assert!(node.asked("quay.io/a/b").contains(&new));
    // the spec counts as soon as somebody answers: the login goes
    answers(TcpListener::bind(&gone).unwrap());
    let (code, said) = node.nodeprep("apply --probe require --spec spec.toml");
    assert_eq!(code, 0, "{said}");
    let left: Vec<_> = node.files().into_iter().filter(|(_, bytes)| String::from_utf8_lossy(bytes).contains(CODED)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(String::from_utf8(node.folder("docker.io").unwrap()).unwrap().contains("dial_timeout = \"7s\""));
}

/// What is for Podman alone is neither tried nor told for containerd, and the other way round.
#[test]
fn a_mirror_for_another_runtime_does_not_count() {
    let (node, good, gone) = (Node::new(), alive(), dead());
    for (only, other) in [("podman", "containerd"), ("containerd", "podman")] {
        let mirrors = [
            ("docker.io", &*gone, &*format!("runtimes = [\"{only}\"]")),
            ("quay.io", &*good, "runtimes = [\"podman\"]"),
            ("ghcr.io", &*good, "runtimes = [\"containerd\"]"),
        ];
        let (code, said) = node.run("plan --probe require --output json", "", &mirrors);
        let report: serde_json::Value = serde_json::from_str(&said).unwrap();
        let of = |target: &str| -> String {
            let parts = report["parts"].as_array().unwrap().iter();
            parts.filter(|part| part["target"].to_string().contains(target)).map(ToString::to_string).collect()
        };
        let (concerned, free) = if only == "podman" { ("containers", "containerd") } else { ("containerd", "containers") };
        assert!(code == 8 && of(concerned).contains("docker.io is kept back"), "{only}: {code} {said}");
        assert!(!of(free).is_empty() && !of(free).contains("kept-back"), "{other}: {said}");
    }
}

/// All endpoints are tried side by side: each answers only when all of them are being asked. So nobody waits for the dead.
#[test]
fn no_endpoint_waits_for_another() {
    const ALL: usize = 50;
    // for containers/image the same host would be two ways: TLS, then plain
    const ONE: &str = "runtimes = [\"containerd\"]";
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(ALL));
    let registries: Vec<String> = (0..ALL)
        .map(|_| {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let (host, barrier) = (listener.local_addr().unwrap().to_string(), barrier.clone());
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let mut head = String::new();
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
                    barrier.wait();
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            });
            host
        })
        .collect();
    let node = Node::new();
    let sources: Vec<String> = (0..ALL).map(|number| format!("r{number}.example")).collect();
    let mirrors: Vec<(&str, &str, &str)> = sources.iter().zip(&registries).map(|(source, host)| (&**source, &**host, ONE)).collect();
    // the gate, and verify
    let (code, said) = node.run("apply --probe require", "", &mirrors);
    assert!(code == 0 && !said.contains("endpoint-unready"), "{code} {said}");
    let (code, said) = node.run("verify", "", &mirrors);
    assert!(code == 0 && said.matches("ok [endpoint]").count() == ALL, "{code} {said}");
}

/// What our library cannot tell is no reason to keep anything back, and is not passed over in silence either.
#[test]
fn what_cannot_be_told_is_a_warning() {
    let page = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 13\r\n\r\n<html></html>";
    let portal = answers_with(TcpListener::bind("127.0.0.1:0").unwrap(), page);
    let (node, only) = (Node::new(), "runtimes = [\"containerd\"]");
    let (code, said) = node.run("apply --probe require", "", &[("docker.io", &portal, only)]);
    let wanted = ["warning[endpoint-untold]", &*format!("whether {portal} can be used could not be told"), "a page of HTML"];
    assert!(code == 0 && wanted.iter().all(|wanted| said.contains(wanted)), "{code} {said}");
    assert!(node.asked("docker.io/library/nginx").contains(&portal));
    let (code, said) = node.run("verify", "", &[("docker.io", &portal, only)]);
    assert!(code == 0 && said.contains("could not run [endpoint] containerd") && said.contains("a page of HTML"), "{code} {said}");
}

/// containerd never asks for /v2/, containers/image does so first: what is kept back for the one is written for the other.
#[test]
fn what_one_runtime_minds_is_not_held_against_another() {
    let bare = answers_with(TcpListener::bind("127.0.0.1:0").unwrap(), "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let node = Node::new();
    let mirrors = [("docker.io", &*bare, "")];
    let (code, said) = node.run("apply --probe require", "", &mirrors);
    assert!(code == 8 && said.contains("warning[endpoint-untold]") && said.matches("error[kept-back]").count() == 1, "{code} {said}");
    assert!(node.folder("docker.io").is_some());
    let asked = node.asked("docker.io/library/nginx");
    assert!(asked.contains(&bare) && asked.contains("https://registry-1.docker.io"), "{asked}");
    let (code, said) = node.run("verify", "", &mirrors);
    let wanted = [format!("could not run [endpoint] containerd: http://{bare}"), "failed [endpoint] podman: ".into()];
    assert!(code == 8 && wanted.iter().all(|wanted| said.contains(wanted)), "{code} {said}");
}

/// A host that is reached as before stays open for it under `deny`, also where the only source that names it is kept back.
#[test]
fn a_host_as_before_is_not_closed_with_its_source() {
    let node = Node::new();
    node.put("root/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20-1\n\n");
    node.put("root/etc/containerd/config.toml", "version = 2\n");
    std::fs::remove_file(node.path("root/usr/bin/podman")).unwrap();
    let spec = |insecure: u8, endpoint: u8| {
        format!(
            "version = 1\nfallback = \"never\"\nunlisted = \"deny\"\n[[registry]]\nhost = \"127.0.0.1:{insecure}\"\ninsecure = true\n\
             [[mirror]]\nsource = \"docker.io\"\nendpoints = [\"127.0.0.1:{endpoint}\"]\n"
        )
    };
    let apply = |probe: &str, spec: String| {
        node.put("spec.toml", &spec);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        let out = command.args(["apply", "--root", "root", "--spec", "spec.toml", "--probe", probe]).current_dir(node.folder.path());
        let out = out.output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout))
    };
    assert_eq!(apply("off", spec(1, 2)).0, Some(0));
    // nothing remembers that these files are ours
    std::fs::remove_dir_all(node.path("root/var/lib/nodeprep")).unwrap();
    let (code, said) = apply("require", spec(2, 1));
    assert!(code == Some(8) && said.contains("docker.io is kept back as it was") && !said.contains("proof-failed"), "{code:?}\n{said}");
}

/// `deny` goes with the new spec; the source stays open as it was, and so its other name, which was denied, is none of it.
#[test]
fn another_name_of_what_is_kept_back_does_not_open() {
    let (node, first, later) = (Node::new(), alive(), dead());
    let open = "fallback = \"upstream\"";
    let top = "unlisted = \"deny\"";
    assert_eq!(node.run("apply --probe off", top, &[("quay.io", &first, open), ("ghcr.io", &first, "")]).0, 0);
    let (code, said) = node.run("apply --probe require --allow-shrink", "", &[("quay.io", &later, ""), ("ghcr.io", &first, "")]);
    assert!(code == 8 && said.contains("quay.io is kept back"), "{code} {said}");
    let asked = node.asked("quay.io/a/b");
    assert!(asked.contains(&first) && asked.contains("https://quay.io"), "{asked}");
    let asked = node.asked("quay.io:443/a/b");
    assert!(!asked.contains("https://quay.io"), "{asked}");
    // what no source names is open now, as the spec says
    assert!(node.asked("registry.example/a/b").contains("https://registry.example"));
    let (code, said) = node.run("apply --probe require --allow-shrink", "", &[("quay.io", &first, ""), ("ghcr.io", &first, "")]);
    assert!(code == 0 && !node.asked("quay.io:443/a/b").contains("https://quay.io"), "{code} {said}");
}
