//! A server of specs that really speaks TLS, and says what a test wants it to say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

/// A CA, and what it issues.
pub struct Ca {
    pub pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "a CA of specs");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `name`, its key; of long ago where it has `expired`.
    fn issue(&self, name: &str, expired: bool) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        if expired {
            params.not_before = rcgen::date_time_ymd(2001, 1, 1);
            params.not_after = rcgen::date_time_ymd(2002, 1, 1);
        }
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    /// A client certificate and its key, in PEM.
    pub fn client(&self) -> (String, String) {
        let (cert, key) = self.issue("node.example", false);
        (cert.pem(), key.serialize_pem())
    }
}

/// What is said at a path.
#[derive(Clone, Debug)]
pub enum Answer {
    /// Status, headers and body, with the length that fits.
    Whole(u16, String, Vec<u8>),
    /// These bytes, and the end.
    Raw(Vec<u8>),
    /// These bytes, and then this one again and again until the client has enough.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and then nothing until the client goes.
    Silent(Vec<u8>),
    /// A tag, and 304 for who knows it.
    Tagged(&'static str, Vec<u8>),
}

#[derive(Default)]
struct Said {
    answers: BTreeMap<String, Answer>,
    heads: Vec<String>,
    statuses: Vec<u16>,
    written: usize,
    link: Link,
}

/// Whether anybody is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Link {
    #[default]
    Up,
    /// Connections are taken, and end at once.
    HangsUp,
    /// Nobody listens any more, for good.
    Gone,
}

pub struct Server {
    pub host: String,
    said: Arc<Mutex<Said>>,
}

/// How a server differs from a good one.
#[derive(Clone, Copy, Default)]
pub struct Odd<'a> {
    pub expired: bool,
    pub name: Option<&'a str>,
    pub wants_client: bool,
}

impl Server {
    pub fn new(ca: &Ca) -> Self {
        Self::odd(ca, Odd::default())
    }

    pub fn odd(ca: &Ca, odd: Odd<'_>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let config = if odd.wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(pem(&ca.pem)).unwrap();
            config.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
        } else {
            config.with_no_client_auth()
        };
        let (cert, key) = ca.issue(odd.name.unwrap_or("127.0.0.1"), odd.expired);
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = Arc::new(config.with_single_cert(vec![cert.der().clone()], key).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { host: listener.local_addr().unwrap().to_string(), said: Arc::default() };
        let said = Arc::clone(&server.said);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, said) = (Arc::clone(&config), Arc::clone(&said));
                let link = said.lock().unwrap().link;
                match link {
                    Link::Up => drop(std::thread::spawn(move || serve(stream, config, &said))),
                    Link::HangsUp => {}
                    Link::Gone => break,
                }
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.host)
    }

    pub fn says(&self, path: &str, answer: Answer) {
        self.said.lock().unwrap().answers.insert(path.to_owned(), answer);
    }

    /// A file as web servers serve it.
    pub fn serves(&self, path: &str, body: impl AsRef<[u8]>) {
        self.says(path, Answer::Whole(200, "Content-Type: text/plain\r\n".to_owned(), body.as_ref().to_vec()));
    }

    pub fn link(&self, link: Link) {
        self.said.lock().unwrap().link = link;
        if link == Link::Gone {
            // the one that waits for a connection gets its last one
            while TcpStream::connect(&self.host).is_ok() {
                std::thread::yield_now();
            }
        }
    }

    /// The heads of requests since the last time.
    pub fn heads(&self) -> Vec<String> {
        std::mem::take(&mut self.said.lock().unwrap().heads)
    }

    /// The statuses of answers since the last time.
    pub fn statuses(&self) -> Vec<u16> {
        std::mem::take(&mut self.said.lock().unwrap().statuses)
    }

    /// How many bytes of endless bodies were taken.
    pub fn written(&self) -> usize {
        self.said.lock().unwrap().written
    }
}

fn pem(text: &str) -> rustls::pki_types::CertificateDer<'static> {
    rustls_pemfile::certs(&mut text.as_bytes()).next().unwrap().unwrap()
}

fn serve(stream: TcpStream, config: Arc<ServerConfig>, said: &Mutex<Said>) {
    let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
    let Some(head) = head(&mut tls) else { return };
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let answer = {
        let mut said = said.lock().unwrap();
        said.heads.push(head.clone());
        said.answers.get(&path).cloned().unwrap_or_else(|| Answer::Whole(404, String::new(), b"nothing here".to_vec()))
    };
    let whole = |status: u16, headers: &str, body: &[u8]| {
        said.lock().unwrap().statuses.push(status);
        [format!("HTTP/1.1 {status} As Told\r\n{headers}Content-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
    };
    match answer {
        Answer::Whole(status, headers, body) => drop(tls.write_all(&whole(status, &headers, &body))),
        Answer::Tagged(etag, _) if head.contains(&format!("If-None-Match: {etag}\r\n")) => {
            said.lock().unwrap().statuses.push(304);
            let _ = tls.write_all(format!("HTTP/1.1 304 As Told\r\nETag: {etag}\r\n\r\n").as_bytes());
        }
        Answer::Tagged(etag, body) => drop(tls.write_all(&whole(200, &format!("ETag: {etag}\r\n"), &body))),
        Answer::Raw(bytes) => drop(tls.write_all(&bytes)),
        Answer::Endless(bytes, more) => {
            let mut going = tls.write_all(&bytes).and_then(|()| tls.flush());
            while going.is_ok() {
                going = tls.write_all(&more).and_then(|()| tls.flush());
                said.lock().unwrap().written += more.len();
                // drop by drop where it is one byte: the test is not to depend on how many go into a second
                if more.len() == 1 {
                    std::thread::yield_now();
                }
            }
            return;
        }
        Answer::Silent(bytes) => {
            let _ = tls.write_all(&bytes).and_then(|()| tls.flush());
            let _ = tls.read_to_end(&mut Vec::new());
            return;
        }
    }
    tls.conn.send_close_notify();
    let _ = tls.flush();
}

fn head(stream: &mut impl Read) -> Option<String> {
    let mut head = String::new();
    let mut reader = BufReader::new(stream);
    while let Ok(1..) = reader.read_line(&mut head) {
        if head.ends_with("\r\n\r\n") {
            return Some(head);
        }
    }
    None
}

/// A proxy for any name, which leads to `to`, as long as the test runs.
pub fn gateway(to: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let to = to.clone();
            std::thread::spawn(move || connect(client, "HTTP/1.1 200 Connected\r\n\r\n", Some(to)));
        }
    });
    host
}

/// What a proxy does with a connection: answers so, and leads to `to`; what it was asked.
pub fn connect(mut client: TcpStream, answer: &str, to: Option<String>) -> String {
    // byte by byte: what follows the head is not ours to take
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).is_ok_and(|count| count == 1) {
        head.push(byte[0]);
    }
    let _ = client.write_all(answer.as_bytes());
    if let Some(to) = to {
        let server = TcpStream::connect(to).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(std::net::Shutdown::Write);
        });
        let (mut from, mut to) = (server, client);
        let _ = std::io::copy(&mut from, &mut to);
        let _ = to.shutdown(std::net::Shutdown::Both);
    }
    String::from_utf8(head).unwrap()
}
