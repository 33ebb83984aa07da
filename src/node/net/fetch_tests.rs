//! What a server may say in the place of a file: each is told for what it is, and nothing waits for ever.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::body::{Spoilt, whole};
use super::fetch::{FetchError, Got, Way};
use super::http::{Request, head};
use crate::model::url::Url;
use crate::verify::probe::Trusted;

/// What is read and what is written.
struct Said<'a> {
    says: &'a [u8],
    end: std::io::ErrorKind,
}

impl Read for Said<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        // byte by byte, so that every place to break off is met
        match (self.says.split_first(), into.first_mut()) {
            (Some((byte, rest)), Some(place)) => {
                *place = *byte;
                self.says = rest;
                Ok(1)
            }
            _ if self.end == std::io::ErrorKind::Other => Ok(0),
            _ => Err(self.end.into()),
        }
    }
}

impl Write for Said<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The body of an answer that ends, with TLS's own end or without.
fn body(says: &str, whole_end: bool) -> String {
    let end = if whole_end { std::io::ErrorKind::Other } else { std::io::ErrorKind::UnexpectedEof };
    let text = format!("HTTP/1.1 200 OK\r\n{says}");
    let mut said = Said { says: text.as_bytes(), end };
    let request = Request { method: "GET", target: "/", host: "h", headers: Vec::new() };
    let (answer, read) = head(&mut said, &request).unwrap();
    match whole(&mut said, &answer, read, 8) {
        Ok(bytes) => format!("={}", String::from_utf8(bytes).unwrap()),
        Err(Spoilt::Truncated { got, wanted }) => format!("truncated {got} {wanted:?}"),
        Err(Spoilt::TooLarge) => "large".to_owned(),
        Err(Spoilt::Framing(why)) => why.to_owned(),
        Err(Spoilt::Io(error)) => error.to_string(),
    }
}

#[test]
fn a_body_is_whole_or_none() {
    for end in [true, false] {
        assert_eq!(body("Content-Length: 5\r\n\r\nhello", end), "=hello");
        assert_eq!(body("Content-Length: 5, 5\r\n\r\nhello and more", end), "=hello");
        assert_eq!(body("Content-Length: 5\r\n\r\nhell", end), "truncated 4 Some(5)");
        assert_eq!(body("Content-Length: 9\r\n\r\n", end), "large");
        assert_eq!(body("Content-Length: 99999999999999999999\r\n\r\n", end), "its length is no number");
        for bad in ["-1", "+1", "x", ""] {
            assert_eq!(body(&format!("Content-Length: {bad}\r\n\r\n"), end), "its length is no number");
        }
        assert_eq!(body("Content-Length: 1\r\nContent-Length: 2\r\n\r\nhello", end), "it has several lengths");
        assert_eq!(body("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", end), "it has a length and chunks");
        assert_eq!(body("Transfer-Encoding: gzip, chunked\r\n\r\n", end), "it is coded in a way that was not asked for");
        let chunked = |rest: &str| body(&format!("Transfer-Encoding: Chunked\r\n\r\n{rest}"), end);
        assert_eq!(chunked("3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n"), "=abcde");
        assert_eq!(chunked("1\r\na\r\n0\r\nTrailer: x\r\n\r\n"), "=a");
        for (rest, got) in
            [("", 0), ("3", 0), ("3\r\nab", 2), ("3\r\nabc", 3), ("3\r\nabc\r\n", 3), ("3\r\nabc\r\n0\r\n", 3), ("0\r\n\r", 0)]
        {
            assert_eq!(chunked(rest), format!("truncated {got} None"), "{rest:?}");
        }
        assert_eq!(chunked("5\r\nabcde\r\n4\r\n"), "large");
        assert_eq!(chunked("fffffffffffffffe\r\n"), "large");
        assert_eq!(chunked("3\r\nabcde\r\n"), "a chunk is longer than it says");
        assert_eq!(chunked("x\r\n"), "the length of a chunk is no number");
        assert_eq!(chunked(&format!("1;{}", "x".repeat(9000))), "a chunk has no beginning");
        assert_eq!(chunked(&format!("0\r\nA: {}", "x".repeat(9000))), "its trailers have no end");
        assert_eq!(body("\r\nhello wor", end), "large");
    }
    // without a length only TLS's own end says that it was all
    assert_eq!(body("\r\nhello", true), "=hello");
    assert_eq!(body("\r\nhello", false), "truncated 5 None");
}

/// A server that says `parts` of what it says one after the other, waiting for the client to hang up at the end.
fn serving(says: &'static [&'static str]) -> (Url, std::thread::JoinHandle<()>) {
    let key = KeyPair::generate().unwrap();
    let cert = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let config =
        Arc::new(config.with_single_cert(vec![cert.der().clone()], PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("https://{}/spec.toml?t=s3cret", listener.local_addr().unwrap())).unwrap();
    let serves = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
        for part in says {
            let _ = tls.write_all(part.as_bytes()).and_then(|()| tls.flush());
        }
        // until the client goes
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest);
    });
    (url, serves)
}

fn way(overall: Duration, idle: Duration) -> Way {
    let deadline = Instant::now() + overall;
    Way { trust: Trusted::Anybody, client: None, token: None, env: Vec::new(), deadline, patience: overall, idle }
}

const HOUR: Duration = Duration::from_secs(3600);
const SOON: Duration = Duration::from_millis(200);

fn fails(url: &Url, way: &Way) -> String {
    let error: FetchError = way.get(url, None, 8).unwrap_err();
    assert!(!error.help().is_empty() && !format!("{error}{error:?}").contains("s3cret"), "{error}");
    error.to_string()
}

#[test]
fn nobody_is_waited_for_for_ever() {
    for says in [&[][..], &["HTTP/1.1 200 OK\r\n"], &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel"]] {
        for (overall, idle, wanted) in [(HOUR, SOON, "nothing came for 0 s"), (SOON, HOUR, "it was not there within 0 s")] {
            let (url, serves) = serving(says);
            let said = fails(&url, &way(overall, idle));
            assert!(said.ends_with(wanted), "{said}");
            serves.join().unwrap();
        }
    }
}

#[test]
fn what_is_whole_is_taken() {
    let (url, serves) = serving(&["HTTP/1.1 200 OK\r\nETag: \"a\"\r\nContent-Le", "ngth: 5\r\n\r\nhel", "lo"]);
    let got = way(HOUR, HOUR).get(&url, None, 8).unwrap();
    assert_eq!(got, Got::New { bytes: b"hello".to_vec(), etag: Some("\"a\"".to_owned()) });
    serves.join().unwrap();
    for (etag, taken) in [("W/\"b\"", true), ("bare", false), ("\"", false), ("\"a b\"", false), ("\"ä\"", false)] {
        let says: &'static str = Box::leak(format!("HTTP/1.1 200 OK\r\nETag: {etag}\r\nContent-Length: 1\r\n\r\nx").into_boxed_str());
        let (url, serves) = serving(Box::leak(Box::new([says])));
        let Got::New { etag: tag, .. } = way(HOUR, HOUR).get(&url, None, 8).unwrap() else { panic!("nothing was known") };
        assert_eq!(tag.is_some(), taken, "{etag}");
        serves.join().unwrap();
    }
}
