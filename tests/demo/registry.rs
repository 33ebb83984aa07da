//! A TLS registry of one image, made on the spot: private CA, server certificate for a loopback address, an access log.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use sha2::{Digest, Sha256};

/// A running registry; its threads end with the process.
pub struct Registry {
    /// Where it listens.
    pub address: SocketAddr,
    /// The CA that signed its certificate.
    pub ca_pem: String,
    /// `GET /v2/…` lines in order.
    pub log: Arc<Mutex<Vec<String>>>,
}

/// The one image: an empty layer, its configuration, its manifest.
struct Image {
    repository: String,
    tag: String,
    manifest: Vec<u8>,
    blobs: Vec<Vec<u8>>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{:x}", HexOf(&Sha256::digest(bytes)))
}

struct HexOf<'a>(&'a [u8]);

impl std::fmt::LowerHex for HexOf<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl Image {
    fn new(repository: &str, tag: &str) -> Self {
        // a tar archive without members
        let layer = vec![0; 1024];
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
            digest(&layer)
        )
        .into_bytes();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
            digest(&config),
            config.len(),
            digest(&layer),
            layer.len()
        )
        .into_bytes();
        Self { repository: repository.into(), tag: tag.into(), manifest, blobs: vec![config, layer] }
    }

    fn answer(&self, path: &str) -> Option<(&'static str, &[u8])> {
        let rest = path.strip_prefix("/v2/")?;
        if rest.is_empty() {
            return Some(("application/json", b"{}"));
        }
        let rest = rest.strip_prefix(&self.repository)?.strip_prefix('/')?;
        if let Some(reference) = rest.strip_prefix("manifests/") {
            let known = reference == self.tag || reference == digest(&self.manifest);
            return known.then_some(("application/vnd.oci.image.manifest.v1+json", &self.manifest[..]));
        }
        let wanted = rest.strip_prefix("blobs/")?;
        self.blobs.iter().find(|blob| digest(blob) == wanted).map(|blob| ("application/octet-stream", &blob[..]))
    }
}

/// Makes a CA and a server certificate for 127.0.0.1, and serves `repository:tag` until the process ends.
pub fn start(repository: &str, tag: &str) -> Result<Registry, Box<dyn std::error::Error>> {
    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::default();
    ca.distinguished_name.push(DnType::CommonName, "nodeprep demo CA");
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_pem = ca.self_signed(&ca_key)?.pem();
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate()?;
    let cert = CertificateParams::new(vec!["127.0.0.1".into()])?.signed_by(&key, &issuer)?;
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)?;

    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let log = Arc::new(Mutex::new(Vec::new()));
    let (tls, lines, image) = (Arc::new(tls), log.clone(), Image::new(repository, tag));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // one bad client must not end the registry
            let _ = serve(stream, &tls, &image, &lines);
        }
    });
    Ok(Registry { address, ca_pem, log })
}

fn serve(stream: TcpStream, tls: &Arc<ServerConfig>, image: &Image, log: &Mutex<Vec<String>>) -> Result<(), Box<dyn std::error::Error>> {
    let mut stream = BufReader::new(StreamOwned::new(ServerConnection::new(tls.clone())?, stream));
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut header = String::from("-");
    while !header.trim().is_empty() {
        header.clear();
        stream.read_line(&mut header)?;
    }
    let mut words = line.split_whitespace();
    let (method, target) = (words.next().unwrap_or("-"), words.next().unwrap_or("-"));
    if let Ok(mut log) = log.lock() {
        log.push(format!("{method} {target}"));
    }
    let path = target.split('?').next().unwrap_or(target);
    let (status, kind, body) = match image.answer(path) {
        Some((kind, body)) => ("200 OK", kind, body),
        None => ("404 Not Found", "application/json", &b"{\"errors\":[{\"code\":\"MANIFEST_UNKNOWN\"}]}"[..]),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nDocker-Content-Digest: {}\r\nConnection: close\r\n\r\n",
        body.len(),
        digest(body)
    );
    let stream = stream.get_mut();
    stream.write_all(head.as_bytes())?;
    if method != "HEAD" {
        stream.write_all(body)?;
    }
    stream.conn.send_close_notify();
    stream.flush()?;
    Ok(())
}
