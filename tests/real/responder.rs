//! A small HTTP server with a mind of its own: it takes plain HTTP and TLS on the same port, notes every request in the order of arrival, and answers as a
//! closure says. For what docker-registry cannot be made to answer, and for listening where every host of the world is thought to be.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::Acceptor;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, ServerConfig, ServerConnection, SignatureScheme, StreamOwned};

/// A request, noted before it is answered.
#[derive(Clone, Debug)]
pub struct Ask {
    /// As docker-registry writes it, to be sorted together with its log.
    pub time: String,
    pub scheme: &'static str,
    pub method: String,
    /// The `Host` of the request.
    pub host: String,
    /// With its query.
    pub target: String,
    pub headers: Vec<(String, String)>,
    /// The client certificate that was shown, in DER.
    pub shown: Option<Vec<u8>>,
}

impl Ask {
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(status: u16) -> Answer {
        Answer { status, headers: Vec::new(), body: Vec::new() }
    }

    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Answer {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(mut self, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
        self.body = body.into();
        self.with("Content-Type", kind)
    }
}

/// The certificate for a server name (none is sent for an address) and the address that was called; `None`: TLS is not spoken.
pub type Certificates = dyn Fn(Option<&str>, IpAddr) -> Option<Arc<CertifiedKey>> + Send + Sync;
pub type Answers = dyn Fn(&Ask) -> Answer + Send + Sync;

/// What arrived, of any number of listeners.
#[derive(Clone, Default)]
pub struct Arrived(Arc<Mutex<Vec<Ask>>>);

impl Arrived {
    /// What arrived since the last call.
    pub fn take(&self) -> Vec<Ask> {
        std::mem::take(&mut *self.0.lock().expect("no thread panics while it notes"))
    }

    fn note(&self, ask: &Ask) {
        self.0.lock().expect("no thread panics while it notes").push(ask.clone());
    }
}

/// Listens on `address` for as long as the process lives.
pub fn listen(address: &str, arrived: &Arrived, certificates: Arc<Certificates>, answers: Arc<Answers>) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("listening on {address}"))?;
    let arrived = arrived.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (arrived, certificates, answers) = (arrived.clone(), certificates.clone(), answers.clone());
            // How a conversation ends is the other side's affair.
            thread::spawn(move || serve(stream, &arrived, &*certificates, &*answers));
        }
    });
    Ok(())
}

fn serve(stream: TcpStream, arrived: &Arrived, certificates: &Certificates, answers: &Answers) -> Result<()> {
    let address = stream.local_addr().context("our address")?.ip();
    let mut first = [0];
    ensure!(stream.peek(&mut first).context("the first byte")? == 1, "closed at once");
    // A TLS greeting begins with the content type "handshake".
    if first[0] != 22 {
        return converse(stream, "http", None, arrived, answers);
    }
    let mut stream = stream;
    let mut acceptor = Acceptor::default();
    let accepted = loop {
        acceptor.read_tls(&mut stream).context("TLS greeting")?;
        match acceptor.accept() {
            Ok(Some(accepted)) => break accepted,
            Ok(None) => {}
            Err((error, _)) => return Err(error.into()),
        }
    };
    let Some(certificate) = certificates(accepted.client_hello().server_name(), address) else {
        // As a server of plain HTTP does; clients know it by these words.
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n").context("refusing TLS")?;
        return Ok(());
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(Arc::new(AnyClient(provider)))
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certificate)));
    let mut connection: ServerConnection = match accepted.into_connection(Arc::new(config)) {
        Ok(connection) => connection,
        Err((error, _)) => return Err(error.into()),
    };
    while connection.is_handshaking() {
        connection.complete_io(&mut stream).context("handshake")?;
    }
    let shown = connection.peer_certificates().and_then(|chain| chain.first()).map(|leaf| leaf.to_vec());
    converse(StreamOwned::new(connection, stream), "https", shown.as_deref(), arrived, answers)
}

/// Answers request by request until the other side ends it.
pub fn converse(stream: impl Read + Write, scheme: &'static str, shown: Option<&[u8]>, arrived: &Arrived, answers: &Answers) -> Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).context("a request")? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let mut words = lines.first().context("an empty request")?.split(' ');
        let (method, target) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let headers: Vec<(String, String)> = lines[1..]
            .iter()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
            .collect();
        let mut ask = Ask { time: now(), scheme, method, host: String::new(), target, headers, shown: shown.map(<[u8]>::to_vec) };
        ask.host = ask.header("host").unwrap_or_default().to_owned();
        arrived.note(&ask);
        let length: u64 = ask.header("content-length").and_then(|length| length.parse().ok()).unwrap_or_default();
        std::io::copy(&mut stream.by_ref().take(length), &mut std::io::sink()).context("the body of a request")?;
        let answer = answers(&ask);
        let mut head = format!("HTTP/1.1 {} {}\r\n", answer.status, phrase(answer.status));
        for (name, value) in &answer.headers {
            let _ = write!(head, "{name}: {value}\r\n");
        }
        // A 304 has no body and no length.
        if answer.status != 304 {
            let _ = write!(head, "Content-Length: {}\r\n", answer.body.len());
        }
        let out = stream.get_mut();
        out.write_all(head.as_bytes()).context("answering")?;
        out.write_all(b"\r\n").context("answering")?;
        if ask.method != "HEAD" {
            out.write_all(&answer.body).context("answering")?;
        }
        out.flush().context("answering")?;
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        304 => "Not Modified",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        429 => "Too Many Requests",
        _ => "As Told",
    }
}

/// The time of day as RFC 3339 in UTC with nanoseconds, without the Z.
fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let (mut days, seconds) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let mut year = 1970;
    while days >= 365 + u64::from(leap(year)) {
        days -= 365 + u64::from(leap(year));
        year += 1;
    }
    let mut month = 0;
    for length in [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    format!(
        "{year}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}",
        month + 1,
        days + 1,
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        since.subsec_nanos()
    )
}

/// Asks for a client certificate and takes any, or none: whether one was shown is what is to be known.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
