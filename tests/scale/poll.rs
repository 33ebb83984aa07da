//! What one poll costs: a real server with TLS on loopback, and real passes.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

const POLLS: u32 = 200;
const REGISTRIES: usize = 50;

/// What the server has seen.
#[derive(Clone, Copy, Default)]
struct Cost {
    read: u64,
    written: u64,
    /// Microseconds.
    cpu: u64,
    requests: u32,
    same: u32,
}

pub fn measure(binary: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| {
        let path = scratch.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    put("node/etc/os-release", "ID=debian\n");
    put("node/usr/bin/containerd", "");
    put("node/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 2.1.9-1\n\n");
    let mirror = |number| format!("[[mirror]]\nsource = \"r{number}.example.org\"\nendpoints = [\"mirror.example.com/r{number}\"]\n");
    let spec = format!("version = 1\nfallback = \"never\"\n{}", (0..REGISTRIES).map(mirror).collect::<String>());
    put("spec.toml", &spec);
    let (url, ca, seen) = serve(spec.clone());
    put("ca.pem", &ca);
    let pass = |words: &[&str], spec: &str| {
        let mut command = Command::new(binary);
        command.args(words).args(["--spec", spec, "--root", "node", "--probe", "off", "--output", "json"]).env_clear();
        let output = command.args(["--spec-ca", "ca.pem"]).current_dir(scratch.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    };
    let children = || {
        let usage = getrusage(UsageWho::RUSAGE_CHILDREN).unwrap();
        micros(usage.user_time()) + micros(usage.system_time())
    };
    // the last one may still be counted
    let take = |requests: u32| {
        while seen.lock().unwrap().requests < requests {
            std::thread::yield_now();
        }
        std::mem::take(&mut *seen.lock().unwrap())
    };
    pass(&["apply"], &url);
    println!("a spec of {REGISTRIES} registries, {} bytes; {POLLS} passes of each kind\n", spec.len());
    let first = take(1);
    println!("| what | bytes to the server | bytes from it | CPU of the server | CPU of the node |\n|---|---|---|---|---|");
    println!("| 200 | {} | {} | {:.2} ms | |", first.read, first.written, millis(first.cpu));
    let before = children();
    (0..POLLS).for_each(|_| pass(&["plan"], &url));
    let polls = children() - before;
    let cost = take(POLLS);
    assert_eq!((cost.requests, cost.same), (POLLS, POLLS));
    let each = u64::from(POLLS);
    println!(
        "| 304 | {} | {} | {:.2} ms | {:.2} ms |",
        cost.read / each,
        cost.written / each,
        millis(cost.cpu / each),
        millis(polls / each)
    );
    let before = children();
    (0..POLLS).for_each(|_| pass(&["plan"], "spec.toml"));
    println!("| the same look with the spec in a file | | | | {:.2} ms |", millis((children() - before) / each));
}

fn millis(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64() * 1000.0
}

/// In microseconds.
fn micros(time: nix::sys::time::TimeVal) -> u64 {
    u64::try_from(time.tv_sec() * 1_000_000 + time.tv_usec()).unwrap()
}

/// A server for one document with a tag, all of it on one thread, whose CPU time is what it costs.
fn serve(document: String) -> (String, String, Arc<Mutex<Cost>>) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&key).unwrap().pem();
    let issuer = Issuer::new(params, key);
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = Arc::new(config.with_single_cert(vec![cert.der().clone()], key).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/fleet.toml", listener.local_addr().unwrap());
    let seen: Arc<Mutex<Cost>> = Arc::default();
    let shared = Arc::clone(&seen);
    std::thread::spawn(move || {
        let used = || {
            let usage = getrusage(UsageWho::RUSAGE_THREAD).unwrap();
            micros(usage.user_time()) + micros(usage.system_time())
        };
        let mut before = used();
        for stream in listener.incoming().flatten() {
            let mut cost = answer(Counted { stream, read: 0, written: 0 }, &config, &document);
            let now = used();
            cost.cpu = now - before;
            before = now;
            let mut all = shared.lock().unwrap();
            let Cost { read, written, cpu, requests, same } = *all;
            *all = Cost {
                read: read + cost.read,
                written: written + cost.written,
                cpu: cpu + cost.cpu,
                requests: requests + cost.requests,
                same: same + cost.same,
            };
        }
    });
    (url, ca, seen)
}

fn answer(stream: Counted, config: &Arc<ServerConfig>, document: &str) -> Cost {
    let mut tls = StreamOwned::new(ServerConnection::new(Arc::clone(config)).unwrap(), stream);
    let mut head = String::new();
    {
        let mut reader = BufReader::new(&mut tls);
        while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|count| count > 0) {}
    }
    let tag = "ETag: \"one\"\r\n";
    let same = head.contains("If-None-Match: \"one\"\r\n");
    let said = if same {
        format!("HTTP/1.1 304 Not Modified\r\n{tag}\r\n")
    } else {
        format!("HTTP/1.1 200 OK\r\n{tag}Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{document}", document.len())
    };
    tls.write_all(said.as_bytes()).unwrap();
    tls.conn.send_close_notify();
    let _ = tls.flush();
    // until the other side has gone: what it says last counts, too
    let _ = std::io::copy(&mut tls.sock, &mut std::io::sink());
    Cost { read: tls.sock.read, written: tls.sock.written, cpu: 0, requests: 1, same: u32::from(same) }
}

/// A connection, with what went over it.
struct Counted {
    stream: TcpStream,
    read: u64,
    written: u64,
}

impl Read for Counted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let count = self.stream.read(into)?;
        self.read += u64::try_from(count).unwrap();
        Ok(count)
    }
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.stream.write(bytes)?;
        self.written += u64::try_from(count).unwrap();
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}
