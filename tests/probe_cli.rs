//! The command line against a registry that wants tokens: what is refused, what is accepted, what `verify` says; and that a login
//! is neither shown nor sent where it does not belong. Needs neither root nor a runtime.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const PASSWORD: &str = "a-secret-of-the-test";
/// `puller:a-secret-of-the-test`.
const CODED: &str = "cHVsbGVyOmEtc2VjcmV0LW9mLXRoZS10ZXN0";

/// A registry that wants tokens, and the request lines and heads that it got.
struct Registry {
    host: String,
    ca: String,
    heads: Arc<Mutex<Vec<String>>>,
}

fn registry() -> Registry {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let (noted, name) = (Arc::clone(&heads), host.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut head = String::new();
            let mut reader = BufReader::new(&mut stream);
            while let Ok(1..) = reader.read_line(&mut head) {
                if head.ends_with("\r\n\r\n") {
                    break;
                }
            }
            // who does not believe the certificate asks for nothing
            if head.is_empty() {
                continue;
            }
            noted.lock().unwrap().push(head.clone());
            let (status, more, body) = if head.starts_with("GET /token") && head.contains(CODED) {
                (200, String::new(), "{\"token\":\"t\"}")
            } else if head.contains("Bearer t") {
                (200, String::new(), "")
            } else {
                (401, format!("WWW-Authenticate: Bearer realm=\"https://{name}/token\"\r\n"), "")
            };
            let _ = write!(stream, "HTTP/1.1 {status} As Told\r\n{more}Content-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.flush();
        }
    });
    Registry { host, ca, heads }
}

struct Node {
    folder: tempfile::TempDir,
}

impl Node {
    /// containerd 1.6, and a spec that mirrors from `host` with a login.
    fn new(host: &str, ca: &str, more: &str) -> Self {
        let node = Self { folder: tempfile::tempdir().unwrap() };
        let put = |path: &str, text: &str| {
            let path = node.folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("root/usr/bin/containerd", "");
        put("root/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20\n\n");
        put("root/etc/containerd/config.toml", "version = 2\n");
        put("spec/ca.pem", ca);
        put("spec/pull-secret.json", &format!("{{\"auths\": {{\"{host}\": {{\"auth\": \"{CODED}\"}}}}}}"));
        let spec = format!(
            "version = 1\nfallback = \"never\"\n[[ca]]\nname = \"root\"\nfile = \"ca.pem\"\ntrust = \"registries\"\n[[registry]]\nhost = \"{host}\"\n\
             ca = [\"root\"]\ncredentials = \"pull-secret.json\"\n{more}\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"{host}\"]\n"
        );
        put("spec/spec.toml", &spec);
        node
    }

    /// The unit of containerd with this environment.
    fn with_environment(self, assignment: &str) -> Self {
        let unit = self.path("root/etc/systemd/system/containerd.service");
        std::fs::create_dir_all(unit.parent().unwrap()).unwrap();
        std::fs::write(unit, format!("[Service]\nEnvironment=\"{assignment}\"\nExecStart=/usr/bin/containerd\n")).unwrap();
        self
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.folder.path().join(path)
    }

    /// The exit code and everything that was said; the password is never part of it.
    fn run(&self, words: &str) -> (i32, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.args(words.split(' ')).arg("--spec").arg(self.path("spec/spec.toml")).arg("--root").arg(self.path("root"));
        let output = command.output().unwrap();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!said.contains(PASSWORD) && !said.contains(CODED), "a secret is shown: {said}");
        (output.status.code().unwrap(), said)
    }

    fn has(&self, path: &str) -> bool {
        Path::exists(&self.path(path))
    }
}

#[test]
fn a_login_that_would_get_lost_is_refused() {
    let registry = registry();
    let node = Node::new(&registry.host, &registry.ca, "");
    for words in ["plan --probe require", "apply --probe warn", "apply --probe require --output json"] {
        let (code, said) = node.run(words);
        assert!(code == 4 && said.contains("token-login") && said.contains("credentials_by"), "{words}: {code} {said}");
    }
    assert!(!node.has("root/etc/containerd/certs.d"));
    // which login is wanted is asked without it
    let heads = registry.heads.lock().unwrap();
    assert!(heads.len() == 3 && heads.iter().all(|head| head.starts_with("GET /v2/ ") && !head.contains("Authorization")), "{heads:?}");
}

#[test]
fn what_could_not_be_checked_is_a_warning_or_a_refusal() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let node = Node::new(&free, &registry().ca, "");
    for (words, code, why) in [
        ("plan --probe warn", 0, "connection refused"),
        ("plan --probe off", 0, "--probe=off"),
        ("plan", 0, "not that of the running system"),
    ] {
        let (ended, said) = node.run(words);
        assert!(ended == code && said.contains("token-login-unchecked") && said.contains(why), "{words}: {ended} {said}");
    }
    // who has to answer and does not is kept back; then nothing is to be told of the login either
    let (ended, said) = node.run("plan --probe require");
    assert!(ended == 8 && said.contains("kept-back") && !said.contains("token-login-unchecked"), "{ended} {said}");
    // written anyway, it is still not known where the login goes
    let spec = node.path("spec/spec.toml");
    let text = std::fs::read_to_string(&spec).unwrap();
    std::fs::write(&spec, format!("{text}on_unready = \"apply\"\n")).unwrap();
    let (ended, said) = node.run("plan --probe require");
    assert!(ended == 4 && said.contains("token-login-unchecked") && said.contains("connection refused"), "{ended} {said}");
}

/// Kept back is as it is now: a login stays where it stands, nothing is asked of it, and it is no reason to refuse the rest.
#[test]
fn what_is_kept_back_has_its_login_where_it_was() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let ca = registry().ca;
    for by in ["", "credentials_by = \"config\""] {
        let node = Node::new(&free, &ca, by);
        assert_eq!(node.run("apply --probe off").0, 0);
        let files = || {
            ["certs.d/docker.io/hosts.toml", "config.toml"].map(|file| std::fs::read(node.path("root/etc/containerd").join(file)).unwrap())
        };
        let before = files();
        let holds = before.iter().map(|bytes| String::from_utf8_lossy(bytes).contains(CODED)).collect::<Vec<_>>();
        assert_eq!(holds, if by.is_empty() { [true, false] } else { [false, true] });
        let spec = node.path("spec/spec.toml");
        let text = std::fs::read_to_string(&spec).unwrap().replace(&format!("[\"{free}\"]"), &format!("[\"{free}/new\"]"));
        let without = text.replace("credentials = \"pull-secret.json\"", "").replace(by, "");
        for next in [text, without] {
            std::fs::write(&spec, &next).unwrap();
            let (code, said) = node.run("apply --probe require");
            assert!(code == 8 && said.contains("docker.io is kept back") && !said.contains("error[token-login"), "{by}: {code} {said}");
            assert_eq!(said.contains("with its login, which the spec gives it no more"), !next.contains("pull-secret"), "{said}");
            assert_eq!(files(), before, "{by}: {next}\n{said}");
        }
    }
}

#[test]
fn the_way_that_wants_a_restart() {
    let registry = registry();
    let node = Node::new(&registry.host, &registry.ca, "credentials_by = \"config\"");
    let (code, said) = node.run("apply --probe require");
    assert_eq!(code, 0, "{said}");
    let config = node.path("root/etc/containerd/config.toml");
    assert!(std::fs::read_to_string(&config).unwrap().contains(CODED));
    assert_eq!(std::fs::metadata(&config).unwrap().permissions().mode() & 0o777, 0o600);
    let (code, said) = node.run("verify --output json --manifest docker.io/library/hello:1");
    assert!(code == 0 && said.contains("\"stage\": \"manifest\""), "{code} {said}");
    // somebody opens the file
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o644)).unwrap();
    assert!(node.run("plan --probe off").1.contains("login-readable"));
    let (code, said) = node.run("apply --probe off --output json");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn verify_says_that_the_login_gets_lost() {
    let registry = registry();
    let node = Node::new(&registry.host, &registry.ca, "");
    let (code, said) = node.run("verify");
    assert!(code == 8 && said.contains("failed [planned] containerd"), "{code} {said}");
    assert_eq!(node.run("apply --probe off").0, 0);
    let (code, said) = node.run("verify");
    let wanted = [format!("failed [endpoint] containerd: https://{}", registry.host), "credentials_by = \"config\"".into()];
    assert!(code == 8 && wanted.iter().all(|wanted| said.contains(wanted)) && !said.contains("[planned]"), "{code} {said}");
    assert_eq!(node.run("verify --offline").0, 0);
}

#[test]
fn a_closed_source_without_an_endpoint_that_answers_is_kept_back() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (registry, other) = (registry(), self::registry());
    for (host, ca, why) in [(&free, &registry.ca, "connection refused"), (&registry.host, &other.ca, "unknown authority")] {
        let node = Node::new(host, ca, "credentials_by = \"config\"");
        for words in ["plan --probe require", "apply --probe require"] {
            let (code, said) = node.run(words);
            assert!(code == 8 && said.contains("error[kept-back]") && said.contains(why), "{words}: {code} {said}");
        }
        assert!(!node.has("root/etc/containerd/certs.d/docker.io") && !node.has("root/etc/containerd/certs.d/registry-1.docker.io"));
        let (code, said) = node.run("apply --probe warn");
        assert!(code == 0 && said.contains("warning[endpoint-unready]") && said.contains(why), "{code} {said}");
        // what is there already is not tried again
        let (code, said) = node.run("apply --probe require");
        assert!(code == 0 && !said.contains("endpoint-unready"), "{code} {said}");
    }
}

#[test]
fn verify_names_the_ca_that_is_missing() {
    let (other, registry) = (registry(), self::registry());
    let node = Node::new(&registry.host, &other.ca, "credentials_by = \"config\"");
    assert_eq!(node.run("apply --probe off").0, 0);
    let (code, said) = node.run("verify");
    assert!(code == 8 && said.contains("tls: x509: certificate signed by unknown authority") && said.contains("[[ca]]"), "{code} {said}");
    assert!(registry.heads.lock().unwrap().is_empty());
}

/// What the daemon has in its environment counts, not what we have (rule 22).
#[test]
fn the_daemon_s_own_trust_store_and_proxy() {
    let (other, registry) = (registry(), self::registry());
    let node = Node::new(&registry.host, &other.ca, "credentials_by = \"config\"").with_environment("SSL_CERT_FILE=/etc/own.pem");
    std::fs::write(node.path("root/etc/own.pem"), &registry.ca).unwrap();
    assert_eq!(node.run("apply --probe require").0, 0);
    let (code, said) = node.run("verify");
    assert!(code == 0, "{code} {said}");

    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = proxy.local_addr().unwrap();
    let asked = std::thread::spawn(move || {
        let (stream, _) = proxy.accept().unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).unwrap() > 0 {}
        reader.get_mut().write_all(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").unwrap();
        head
    });
    let node = Node::new("registry.nodeprep-test.example:5000", &other.ca, "credentials_by = \"config\"")
        .with_environment(&format!("HTTPS_PROXY=http://me:{PASSWORD}@{address}"));
    assert_eq!(node.run("apply --probe off").0, 0);
    let (code, said) = node.run("verify --output json");
    assert!(code == 8 && said.contains("the proxy answers 407") && said.contains("NO_PROXY"), "{code} {said}");
    let head = asked.join().unwrap();
    assert!(head.starts_with("CONNECT registry.nodeprep-test.example:5000 ") && head.contains("Proxy-Authorization: Basic "), "{head}");
    assert!(!head.contains(CODED));
}

/// Runs nodeprep with a terminal as standard error, or without; the terminal shows what is returned last.
fn on_a_terminal(node: &Node, words: &str, term: &str, terminal: bool) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
    command.args(words.split(' ')).arg("--spec").arg(node.path("spec/spec.toml")).arg("--root").arg(node.path("root")).env("TERM", term);
    if !terminal {
        let output = command.output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        return (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr));
    }
    let pty = nix::pty::openpty(None, None).unwrap();
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::from(pty.slave)).spawn().unwrap();
    // the command holds the other end
    drop(command);
    let mut master = std::fs::File::from(pty.master);
    let shown = std::thread::spawn(move || {
        let (mut all, mut part) = (Vec::new(), [0; 4096]);
        // the end of a terminal is an error
        while let Ok(count @ 1..) = std::io::Read::read(&mut master, &mut part) {
            all.extend_from_slice(&part[..count]);
        }
        all
    });
    let output = child.wait_with_output().unwrap();
    let shown = String::from_utf8(shown.join().unwrap()).unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned(), shown)
}

/// Who looks on sees what is waited for; pipes and files get nothing of it.
#[test]
fn progress_is_for_terminals_only() {
    let registry = registry();
    for words in ["verify", "plan --probe require", "apply --probe require"] {
        let node = Node::new(&registry.host, &registry.ca, "credentials_by = \"config\"");
        if words == "verify" {
            assert_eq!(node.run("apply --probe off").0, 0);
        }
        let (_, piped, nothing) = on_a_terminal(&node, &words.replace("apply", "plan"), "xterm", false);
        assert_eq!(nothing, "", "{words}");
        assert!(!piped.is_empty());
        let (_, _, dumb) = on_a_terminal(&node, &words.replace("apply", "plan"), "dumb", true);
        assert_eq!(dumb, "", "{words}");
        let (code, said, shown) = on_a_terminal(&node, words, "xterm", true);
        assert_eq!(code, 0, "{words}: {said}");
        assert!(shown.contains(&format!("trying endpoints: 0 of 1 done, waiting for https://{}", registry.host)), "{words}: {shown:?}");
        // nothing of it is left, and results are not mixed with it
        assert!(shown.ends_with("\r\u{1b}[K") && !said.contains("trying"), "{words}: {shown:?} {said}");
    }
}
