//! What the subcommands make of a runtime's answers over the CRI. The runtime is a peer made on the spot; `tests/real/cri.rs` asks
//! containerd itself. Needs neither root nor a runtime.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::Command;

use http::{HeaderMap, Response};
use prost::bytes::Bytes;

const SOCKET: &str = "root/run/containerd/containerd.sock";
const SECRET: &str = "hunter2-secret";

/// A field of a message: bytes, text or another message.
fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut encoded = vec![number << 3 | 2];
    let mut length = data.len();
    while length > 127 {
        encoded.push(u8::try_from(length & 127).unwrap() | 128);
        length >>= 7;
    }
    encoded.push(u8::try_from(length).unwrap());
    encoded.extend_from_slice(data);
    encoded
}

/// A number or a flag.
fn number(field: u8, value: u8) -> Vec<u8> {
    vec![field << 3, value]
}

fn condition(name: &str, holds: u8) -> Vec<u8> {
    let why = [field(3, b"Booting"), field(4, format!("not yet: https://u:{SECRET}@r.example/?sig={SECRET}").as_bytes())].concat();
    field(1, &[field(1, name.as_bytes()), number(2, holds), if holds == 0 { why } else { Vec::new() }].concat())
}

/// A running container of this image.
fn container(name: &str, image: &str) -> Vec<u8> {
    let spec = field(1, image.as_bytes());
    field(1, &[field(3, &field(1, name.as_bytes())), field(4, &spec), number(6, 1)].concat())
}

type Answer = Result<Vec<u8>, (&'static str, &'static str)>;

struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    /// containerd 2.1, which reads one folder of registries already.
    fn new() -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        node.put("root/usr/bin/containerd", "");
        node.put("root/var/lib/dpkg/status", "Package: containerd.io\nStatus: install ok installed\nVersion: 2.1.4-1\n\n");
        let path = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
        node.put("root/etc/containerd/config.toml", path);
        node.put("root/run/containerd/.keep", "");
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

    fn text(&self, path: &str) -> String {
        std::fs::read_to_string(self.path(path)).unwrap_or_default()
    }

    /// Lets a runtime answer as told, by call.
    fn serve(&self, answer: impl Fn(&str) -> Answer + Send + 'static) {
        let listener = UnixListener::bind(self.path(SOCKET)).unwrap();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                while let Ok((stream, _)) = listener.accept().await {
                    let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
                    while let Some(Ok((request, mut respond))) = connection.accept().await {
                        let mut head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
                        let call = request.uri().path().rsplit('/').next().unwrap_or_default();
                        match answer(call) {
                            Ok(message) => {
                                let mut stream = respond.send_response(head, false).unwrap();
                                let length = u32::try_from(message.len()).unwrap().to_be_bytes();
                                stream.send_data(Bytes::from([&[0], &length[..], &message].concat()), false).unwrap();
                                let trailers: [_; 1] = [("grpc-status".parse().unwrap(), "0".parse().unwrap())];
                                stream.send_trailers(HeaderMap::from_iter(trailers)).unwrap();
                            }
                            Err((code, message)) => {
                                head.headers_mut().insert("grpc-status", code.parse().unwrap());
                                head.headers_mut().insert("grpc-message", message.parse().unwrap());
                                respond.send_response(head, true).unwrap();
                            }
                        }
                    }
                }
            });
        });
    }

    fn nodeprep(&self, words: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        self.told(command.args(words.split(' ')).args(["--root", "root"]))
    }

    fn told(&self, command: &mut Command) -> (i32, String) {
        let output = command.current_dir(self.folder.path()).output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.code().unwrap(), said)
    }
}

fn healthy(call: &str) -> Vec<u8> {
    match call {
        "Version" => [field(2, b"containerd"), field(3, b"v2.1.4")].concat(),
        "Status" => field(1, &[condition("RuntimeReady", 1), condition("NetworkReady", 0)].concat()),
        "ListContainers" => [container("web", "quay.io/team/app:1"), container("log", "docker.io/library/log:1")].concat(),
        "ListPodSandbox" => field(1, &number(4, 0)),
        _ => Vec::new(),
    }
}

const VERIFY: &str = "verify --without-spec --timeout 1";

#[test]
fn verify_says_how_a_runtime_is() {
    let subject = "[runtime] containerd: /run/containerd/containerd.sock";
    // nobody answers, and nobody can tell whether anybody should
    let node = Node::new();
    let (code, said) = node.nodeprep(VERIFY);
    assert!(code == 0 && !said.contains("[runtime]"), "{code}\n{said}");
    let node = Node::new();
    node.serve(|call| Ok(healthy(call)));
    let (code, said) = node.nodeprep(&format!("{VERIFY} --output json"));
    assert!(code == 0 && said.contains("\"id\": \"runtime\"") && said.contains("\"result\": \"ok\""), "{code}\n{said}");
    let node = Node::new();
    node.serve(|call| if call == "Status" { Ok(field(1, &condition("RuntimeReady", 0))) } else { Ok(healthy(call)) });
    let (code, said) = node.nodeprep(VERIFY);
    assert!(code == 8 && said.contains(&format!("failed {subject}")) && said.contains("RuntimeReady is false: Booting"), "{code}\n{said}");
    assert!(!said.contains(SECRET), "{said}");
    let node = Node::new();
    node.serve(|_| Err(("12", "unknown service runtime.v1.RuntimeService")));
    let (code, said) = node.nodeprep(VERIFY);
    let what = "serves no CRI: unknown service runtime.v1.RuntimeService";
    assert!(code == 8 && said.contains(what) && said.contains("help: look for \"failed to load plugin\""), "{code}\n{said}");
    // nothing is asked offline
    let (code, said) = node.nodeprep("verify --without-spec --offline");
    assert!(code == 0 && !said.contains("[runtime]"), "{code}\n{said}");
}

#[test]
fn verify_pulls_where_it_is_told() {
    let node = Node::new();
    let words = format!("{VERIFY} --pull r.example/a:1");
    let (code, said) = node.nodeprep(&words);
    assert!(code == 8 && said.contains("no running runtime on the node pulls through the CRI"), "{code}\n{said}");
    node.serve(|call| match call {
        "PullImage" => Err(("2", "failed: https://u:hunter2-secret@r.example/v2/?sig=hunter2-secret: refused")),
        call => Ok(healthy(call)),
    });
    let (code, said) = node.nodeprep(&format!("-vv {words}"));
    assert!(code == 8 && said.contains("failed [pull] containerd: r.example/a:1") && said.contains("refused (unknown)"), "{code}\n{said}");
    assert!(!said.contains(SECRET) && !said.contains("frame"), "{said}");
    let (code, said) = node.nodeprep("verify --without-spec --offline --pull r.example/a:1");
    assert!(code == 2 && said.contains("cannot be used with"), "{code}\n{said}");
}

#[test]
fn verify_without_permission_could_not_run() {
    let node = Node::new();
    node.serve(|call| Ok(healthy(call)));
    let root = nix::unistd::geteuid().is_root();
    std::fs::set_permissions(node.path(SOCKET), std::fs::Permissions::from_mode(0o600)).unwrap();
    if !root {
        std::fs::set_permissions(node.path(SOCKET), std::fs::Permissions::from_mode(0o000)).unwrap();
    }
    // root may do everything: somebody else asks then, with a copy that he can reach
    let program = node.path("nodeprep");
    // by another process: what this one has open for writing, children of other tests inherit, and it could not be started
    assert!(Command::new("cp").args([env!("CARGO_BIN_EXE_nodeprep").as_ref(), program.as_os_str()]).status().unwrap().success());
    std::fs::set_permissions(node.folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = if root { Command::new("setpriv") } else { Command::new("env") };
    if root {
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    }
    let (code, said) = node.told(command.arg(&program).args(VERIFY.split(' ')).args(["--root", "root"]));
    let what = "cannot connect to /run/containerd/containerd.sock: permission denied";
    assert!(code == 0 && said.contains("could not run [runtime]") && said.contains(what), "{code}\n{said}");
}

#[test]
fn plan_names_images_in_use_that_would_be_lost() {
    let node = Node::new();
    let text = "version = 1\nfallback = \"upstream\"\nunlisted = \"deny\"\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"http://127.0.0.1:1\"]\n";
    node.put("spec.toml", text);
    let plan = "plan --probe off --spec spec.toml";
    let (code, said) = node.nodeprep(plan);
    assert!(code == 0 && !said.contains("image-in-use"), "{code}\n{said}");
    node.serve(|call| Ok(healthy(call)));
    let (code, said) = node.nodeprep(plan);
    let log = "warning[image-in-use]: docker.io/library/log:1 is in use on containerd (log) and could not be pulled again";
    let pause = "registry.k8s.io/pause:3.10 is in use on containerd (the pause image of every pod)";
    assert!(code == 0 && said.contains(log) && said.contains(pause) && !said.contains("quay.io/team/app:1 is in use"), "{code}\n{said}");
    // nothing is said once it is so, and nothing where nothing changes
    let (code, said) = node.nodeprep("apply --probe off --spec spec.toml");
    assert!(code == 0, "{code}\n{said}");
    let (code, said) = node.nodeprep(plan);
    assert!(code == 0 && !said.contains("image-in-use"), "{code}\n{said}");
    // who does not answer is told once, and in the way of nothing
    let node = Node::new();
    node.put("spec.toml", text);
    node.serve(|_| Err(("14", "starting")));
    let (code, said) = node.nodeprep(plan);
    assert!(
        code == 0 && said.matches("note[image-in-use-unknown]").count() == 1 && said.contains("starting (unavailable)"),
        "{code}\n{said}"
    );
}

#[test]
fn a_pause_image_that_cannot_be_had_is_kept_back() {
    let node = Node::new();
    let spec = |pause: &str| format!("version = 1\nfallback = \"upstream\"\n[runtime]\npause_image = \"{pause}\"\n");
    let apply = |words: &str, pause: &str| {
        node.put("spec.toml", &spec(pause));
        node.nodeprep(&format!("apply --spec spec.toml {words}"))
    };
    let config = || node.text("root/etc/containerd/config.toml");
    // nothing runs that could miss it
    let (code, said) = apply("--probe require --allow-shrink", "127.0.0.1:1/pause:1");
    assert!(code == 0 && config().contains("127.0.0.1:1/pause:1"), "{code}\n{said}");
    node.serve(|call| Ok(healthy(call)));
    // ImageStatus is an empty answer: it is not in the store
    let (code, said) = apply("--probe require", "127.0.0.1:1/pause:2");
    let what = "error[kept-back]: containerd keeps its pause image: 127.0.0.1:1/pause:2 is not in its store, and cannot be pulled: ";
    assert!(code == 8 && said.contains(what) && config().contains("127.0.0.1:1/pause:1"), "{code}\n{said}\n{}", config());
    // without being told otherwise, too: what answers runs
    let (code, said) = apply("--activate never", "127.0.0.1:1/pause:2");
    assert!(code == 8 && config().contains("127.0.0.1:1/pause:1"), "{code}\n{said}\n{}", config());
    let (code, said) = apply("--probe warn", "127.0.0.1:1/pause:2");
    assert!(code == 0 && said.contains("warning[pause-image-missing]") && config().contains("127.0.0.1:1/pause:2"), "{code}\n{said}");
    // nobody asks then, and who plans is told once
    node.put("spec.toml", &spec("127.0.0.1:1/pause:3"));
    let untried =
        || node.nodeprep("plan --probe off --spec spec.toml").1.matches("note[pause-image-untried]: the pause image of containerd").count();
    assert_eq!(untried(), 1);
    let (code, said) = apply("--probe off", "127.0.0.1:1/pause:3");
    assert_eq!(untried(), 0);
    assert!(code == 0 && config().contains("127.0.0.1:1/pause:3"), "{code}\n{said}");
    // a runtime whose plugin is not loaded starts no pods as it is; one that does not say what it has keeps what it has
    std::fs::remove_file(node.path(SOCKET)).unwrap();
    node.serve(|_| Err(("12", "unknown service")));
    let (code, said) = apply("--probe require", "127.0.0.1:1/pause:4");
    assert!(code == 0 && config().contains("127.0.0.1:1/pause:4"), "{code}\n{said}");
    std::fs::remove_file(node.path(SOCKET)).unwrap();
    node.serve(|_| Err(("14", "starting")));
    let (code, said) = apply("--probe require", "127.0.0.1:1/pause:5");
    assert!(code == 8 && said.contains("is not known: Version: starting") && config().contains("127.0.0.1:1/pause:4"), "{code}\n{said}");
}

#[test]
fn a_canary_that_is_lost_brings_everything_back() {
    let text = "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"r.example\"\nendpoints = [\"http://127.0.0.1:1\"]\n";
    let apply = "apply --probe off --spec spec.toml --canary r.example/a:1";
    let hosts = "root/etc/containerd/certs.d/r.example/hosts.toml";
    // nobody runs who could pull it
    let node = Node::new();
    node.put("spec.toml", text);
    let (code, said) = node.nodeprep(apply);
    assert!(code == 0 && said.contains("warning[canary-unasked]: r.example/a:1 was pulled by nobody"), "{code}\n{said}");
    // and nothing is pulled for a run that changes nothing
    let (code, said) = node.nodeprep(apply);
    assert!(code == 0 && !said.contains("canary"), "{code}\n{said}");
    // it is pulled as long as our file is not there
    let node = Node::new();
    node.put("spec.toml", text);
    let file = node.path(hosts);
    node.serve(move |call| match call {
        "PullImage" if file.exists() => Err(("5", "https://u:hunter2-secret@r.example/v2/: no such manifest")),
        call => Ok(healthy(call)),
    });
    let (code, said) = node.nodeprep(apply);
    let what = "error[apply]: containerd cannot pull r.example/a:1 any more, which it pulled right before: PullImage: ";
    assert!(code == 6 && said.contains(what) && said.contains("nodeprep verify --manifest r.example/a:1"), "{code}\n{said}");
    assert!(!node.path(hosts).exists() && !said.contains("canary-lost") && !said.contains(SECRET), "{said}");
    let (code, said) = node.nodeprep("apply --probe off --spec spec.toml");
    assert!(code == 0 && node.path(hosts).exists(), "{code}\n{said}");
    // it was not pulled before: a warning
    let node = Node::new();
    node.put("spec.toml", text);
    node.serve(|call| if call == "PullImage" { Err(("5", "no such manifest")) } else { Ok(healthy(call)) });
    let (code, said) = node.nodeprep(apply);
    let what = "warning[canary-fails]: containerd does not pull r.example/a:1, and did not before the change: ";
    assert!(code == 0 && said.contains(what) && said.contains("(as before)") && node.path(hosts).exists(), "{code}\n{said}");
    let (code, said) = node.nodeprep("apply --spec spec.toml --canary r.example/Upper:1");
    assert!(code == 2 && said.contains("--canary"), "{code}\n{said}");
}

/// Set once, waited for by others.
#[derive(Default)]
struct Flag(std::sync::Mutex<bool>, std::sync::Condvar);

impl Flag {
    fn set(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }

    fn wait(&self) {
        drop(self.1.wait_while(self.0.lock().unwrap(), |set| !*set).unwrap());
    }
}

/// The runtime answers only once an endpoint has been asked, and the endpoint only once the runtime has.
#[test]
fn verify_asks_endpoints_and_runtimes_side_by_side() {
    use std::io::{Read, Write};
    let node = Node::new();
    let flags = std::sync::Arc::new((Flag::default(), Flag::default()));
    let both = std::sync::Arc::clone(&flags);
    node.serve(move |call| {
        both.0.set();
        both.1.wait();
        Ok(healthy(call))
    });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let both = std::sync::Arc::clone(&flags);
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                both.1.set();
                both.0.wait();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            });
        }
    });
    node.put("root/etc/containerd/certs.d/docker.io/hosts.toml", &format!("server = \"http://{host}\"\n[host.\"http://{host}\"]\n"));
    let (code, said) = node.nodeprep("verify --without-spec --timeout 20 --output json");
    assert!(code == 0 && said.contains("\"id\": \"runtime\"") && said.contains(&format!("http://{host}")), "{code}\n{said}");
}
