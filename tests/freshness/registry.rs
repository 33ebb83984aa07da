//! A registry that speaks TLS, wants a login, and holds what it is told to hold.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// `puller:a-secret-of-the-test`.
pub const CODED: &str = "cHVsbGVyOmEtc2VjcmV0LW9mLXRoZS10ZXN0";
pub const PASSWORD: &str = "a-secret-of-the-test";

/// What stands at a path: headers beside the length, and the body.
pub type Page = (u16, String, String);

#[derive(Clone)]
pub struct Registry {
    pub host: String,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    /// `METHOD path` of each request, in order.
    asked: Arc<Mutex<Vec<String>>>,
}

/// A CA that issues for registries.
pub struct Authority {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(DnType::CommonName, "a CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A registry whose certificate is valid up to this year.
    pub fn registry(&self, until: i32) -> Registry {
        let key = KeyPair::generate().unwrap();
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (leaf.not_before, leaf.not_after) = (rcgen::date_time_ymd(2020, 1, 1), rcgen::date_time_ymd(until, 1, 1));
        let leaf = leaf.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let registry = Registry { host: listener.local_addr().unwrap().to_string(), pages: Arc::default(), asked: Arc::default() };
        let answers = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
                answers.answer(&mut stream);
            }
        });
        registry
    }
}

impl Registry {
    fn answer(&self, stream: &mut (impl std::io::Read + Write)) {
        let mut head = String::new();
        let mut reader = BufReader::new(&mut *stream);
        while !head.ends_with("\r\n\r\n") && matches!(reader.read_line(&mut head), Ok(1..)) {}
        let mut words = head.split_whitespace();
        let (Some(method), Some(path)) = (words.next(), words.next()) else { return };
        self.asked.lock().unwrap().push(format!("{method} {path}"));
        let (status, headers, body) = if head.contains(CODED) {
            let path = path.split('?').next().unwrap_or_default();
            let none = || (404, String::new(), String::new());
            if path == "/v2/" {
                (200, String::new(), String::new())
            } else {
                self.pages.lock().unwrap().get(path).cloned().unwrap_or_else(none)
            }
        } else {
            (401, "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned(), String::new())
        };
        let shown = if method == "HEAD" { "" } else { &body };
        let _ = write!(stream, "HTTP/1.1 {status} As Told\r\n{headers}Content-Length: {}\r\n\r\n{shown}", body.len());
        let _ = stream.flush();
    }

    /// What stands at a path from now on.
    pub fn put(&self, path: &str, status: u16, headers: &str, body: &str) {
        self.pages.lock().unwrap().insert(path.to_owned(), (status, headers.to_owned(), body.to_owned()));
    }

    /// A manifest, with its digest as registries say it.
    pub fn holds(&self, repo: &str, tag: &str, body: &str) -> String {
        let digest = digest(body);
        self.put(&format!("/v2/{repo}/manifests/{tag}"), 200, &format!("Docker-Content-Digest: {digest}\r\n"), body);
        digest
    }

    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

pub fn digest(body: &str) -> String {
    format!("sha256:{}", nodeprep::model::digest::Digest::of(body.as_bytes()))
}
