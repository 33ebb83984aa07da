//! `make demo`: nodeprep's main job on a scratch node, without root, runtime or network.
//!
//! A private CA and a TLS registry are made on the spot; then plan → apply → explain → a manifest fetched from the place
//! and with the CA that were configured → second apply → revert. Ends with an error if any of it is not as promised.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod registry;

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const IMAGE: &str = "docker.io/library/hello:1";
const STOCK_CONFIG: &str = r#"version = 2

# kept by the distribution
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    [plugins."io.containerd.grpc.v1.cri".cni]
      bin_dir = "/usr/lib/cni"
"#;

fn main() -> Result<()> {
    let binary = PathBuf::from(std::env::args().nth(1).ok_or("usage: demo PATH-OF-NODEPREP")?).canonicalize()?;
    let scratch = tempfile::tempdir()?;
    let root = scratch.path().join("node");
    stock_node(&root)?;
    let before = listing(&root)?;

    say("A private CA and a TLS registry that holds one image");
    let registry = registry::start("docker.io/library/hello", "1")?;
    let spec = scratch.path().join("spec.toml");
    std::fs::write(scratch.path().join("internal-root.pem"), &registry.ca_pem)?;
    std::fs::write(
        &spec,
        format!(
            "version  = 1\nfallback = \"never\"\n\n[[ca]]\nname = \"internal-root\"\nfile = \"internal-root.pem\"\n\n\
             [[mirror]]\nsource    = \"docker.io\"\nendpoints = [\"{address}/docker.io\"]\n\n\
             [[mirror]]\nsource    = \"registry.k8s.io\"\nendpoints = [\"{address}/registry.k8s.io\"]\n",
            address = registry.address
        ),
    )?;
    println!("{}", std::fs::read_to_string(&spec)?);

    let nodeprep = |args: &[&str]| run(&binary, scratch.path(), args);
    let spec_and_root = ["--spec", "spec.toml", "--root", "node"];
    say("What would change on the node?");
    nodeprep(&[&["plan"], &spec_and_root[..]].concat())?;
    if listing(&root)? != before {
        return Err("plan changed the node".into());
    }
    say("Make it so");
    nodeprep(&[&["apply"], &spec_and_root[..]].concat())?;

    say("What does each runtime ask now?");
    nodeprep(&["explain", "--root", "node", IMAGE, "quay.io/prometheus/prometheus:v3"])?;

    say("Fetch the manifest from the first place that containerd asks, with the CA that was configured for it");
    let explained = output(&binary, scratch.path(), &["explain", "--root", "node", "--output", "json", IMAGE])?;
    let (url, ca) = first_attempt(&explained, &root)?;
    let manifest = fetch(&url, &ca)?;
    println!("GET {url}\n{}\n", String::from_utf8_lossy(&manifest));
    let log = registry.log.lock().map_err(|_| "the registry's log is gone")?.clone();
    println!("the registry saw: {}\n", log.join(", "));
    if log != ["GET /v2/docker.io/library/hello/manifests/1"] {
        return Err("the registry did not see the request that explain promised".into());
    }

    say("A second apply changes nothing");
    let applied = listing(&root)?;
    nodeprep(&[&["apply"], &spec_and_root[..]].concat())?;
    if listing(&root)? != applied {
        return Err("the second apply changed something".into());
    }

    say("And back");
    nodeprep(&["revert", "--root", "node"])?;
    let after = listing(&root)?;
    let left: Vec<_> = after.iter().filter(|(path, _)| !path.starts_with("var/lib/nodeprep")).cloned().collect();
    if left != before {
        return Err("revert did not give the node back as it was".into());
    }
    println!("every file is byte for byte as it was before\n\ndemo: ok");
    Ok(())
}

/// A node as a distribution leaves it: containerd and Podman are there.
fn stock_node(root: &Path) -> Result<()> {
    for (path, text) in [
        ("etc/os-release", "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\n"),
        ("etc/containerd/config.toml", STOCK_CONFIG),
        ("etc/containers/registries.conf", "unqualified-search-registries = [\"docker.io\"]\n"),
        ("etc/ssl/certs/ca-certificates.crt", ""),
        ("usr/bin/containerd", ""),
        ("usr/bin/podman", ""),
        ("usr/sbin/update-ca-certificates", ""),
        (
            "var/lib/dpkg/status",
            "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u1\n\nPackage: podman\nStatus: install ok installed\nVersion: 4.3.1+ds1-8+deb12u1\n\n",
        ),
    ] {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        std::fs::write(path, text)?;
    }
    std::fs::create_dir_all(root.join("usr/local/share/ca-certificates"))?;
    Ok(())
}

/// Every file and folder below `root` with its content.
fn listing(root: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            let name = path.strip_prefix(root)?.display().to_string();
            if path.is_dir() {
                found.push((name, b"folder".to_vec()));
                todo.push(path);
            } else {
                found.push((name, std::fs::read(&path)?));
            }
        }
    }
    // who holds the lock changes with every run
    found.retain(|(name, _)| name != "var/lib/nodeprep" && name != "var/lib/nodeprep/lock");
    found.sort();
    Ok(found)
}

fn say(text: &str) {
    println!("━━ {text}\n");
}

fn run(binary: &Path, folder: &Path, args: &[&str]) -> Result<()> {
    println!("$ nodeprep {}", args.join(" "));
    std::io::stdout().flush()?;
    let status = Command::new(binary).args(args).current_dir(folder).status()?;
    println!();
    if status.success() { Ok(()) } else { Err(format!("nodeprep {} ended with {status}", args.join(" ")).into()) }
}

fn output(binary: &Path, folder: &Path, args: &[&str]) -> Result<String> {
    let output = Command::new(binary).args(args).current_dir(folder).output()?;
    if !output.status.success() {
        return Err(format!("nodeprep {} ended with {}", args.join(" "), output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The first URL that containerd asks, and the CA file that stands behind it in the scratch node.
fn first_attempt(json: &str, root: &Path) -> Result<(String, Vec<u8>)> {
    let report: serde_json::Value = serde_json::from_str(json)?;
    let answers = report["resolutions"].as_array().ok_or("no resolutions")?;
    let answer = answers.iter().find(|answer| answer["runtime"] == "containerd").ok_or("containerd was not found")?;
    let url = answer["attempts"][0]["url"].as_str().ok_or("containerd asks nobody")?;
    let hosts = std::fs::read_to_string(root.join("etc/containerd/certs.d/docker.io/hosts.toml"))?;
    let hosts: toml_edit::DocumentMut = hosts.parse()?;
    let ca = match &hosts["ca"] {
        toml_edit::Item::Value(toml_edit::Value::Array(list)) => list.get(0).and_then(toml_edit::Value::as_str),
        one => one.as_str(),
    };
    let ca = ca.ok_or("hosts.toml names no CA")?;
    Ok((url.to_owned(), std::fs::read(root.join(ca.trim_start_matches('/')))?))
}

/// `GET url` over TLS, trusting `ca` alone.
fn fetch(url: &str, ca: &[u8]) -> Result<Vec<u8>> {
    let rest = url.strip_prefix("https://").ok_or("not https")?;
    let (address, path) = rest.split_once('/').ok_or("no path")?;
    let mut roots = RootCertStore::empty();
    for cert in rustls_pemfile::certs(&mut &ca[..]) {
        roots.add(cert?)?;
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = address.split(':').next().unwrap_or(address).to_owned();
    let connection = ClientConnection::new(Arc::new(tls), ServerName::try_from(name)?)?;
    let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
    write!(stream, "GET /{path} HTTP/1.1\r\nHost: {address}\r\nAccept: */*\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|part| part == b"\r\n\r\n").ok_or("no answer")?;
    if !answer.starts_with(b"HTTP/1.1 200") {
        return Err(String::from_utf8_lossy(&answer[..end]).into());
    }
    Ok(answer.split_off(end + 4))
}
