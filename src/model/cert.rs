//! Certificates: the only user of the PEM and X.509 crates.

mod link;

pub use link::{Constraints, Link};

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufReader;
use std::sync::Arc;

use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::digest::{Digest, Fingerprint};
use super::secret::Secret;
use super::time::Time;
use crate::model::order::Gather as _;

/// One X.509 certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cert {
    /// Its DER form.
    pub der: Arc<[u8]>,
    /// SHA-256 of the DER form.
    pub fingerprint: Fingerprint,
    /// Subject, as text.
    pub subject: String,
    /// Valid from.
    pub not_before: Time,
    /// Valid until.
    pub not_after: Time,
    /// The CA flag of basic constraints.
    pub is_ca: bool,
    /// Subject and issuer are the same.
    pub self_issued: bool,
    /// X.509 version 1, which has no flags: `openssl x509 -req -signkey` makes such certificates.
    pub version_1: bool,
    /// DNS names and addresses in the subject alternative name.
    pub names: Vec<String>,
}

/// What stands in a PEM file.
#[derive(Clone, Debug, Default)]
pub struct Pem {
    /// Certificates in order.
    pub certs: Vec<Cert>,
    /// Private keys in order, as PEM text.
    pub keys: Vec<Secret>,
    /// Labels of other sections, which every runtime skips in silence: `TRUSTED CERTIFICATE`, …
    pub skipped: Vec<String>,
}

/// Why a file gives no certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Something that is no text of bytes.
    #[error("holds {0}; PEM is wanted")]
    Binary(Binary),
    /// Text without a section that could be read.
    #[error("holds no PEM section")]
    Empty,
    /// A section is cut off or is not base64.
    #[error("is no well-formed PEM: {0}")]
    Malformed(String),
    /// The base64 is fine but what is inside is no certificate.
    #[error("certificate {0} of the file cannot be read: {1}")]
    Certificate(usize, String),
}

/// What a file holds that is no PEM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binary {
    /// A certificate in DER.
    Certificate,
    /// A private key in DER.
    Key,
    /// PKCS#7: certificates, as Windows exports them.
    Pkcs7,
    /// PKCS#12: certificates and keys under a password.
    Pkcs12,
    /// A Java keystore.
    Keystore,
    /// Text in UTF-16.
    Utf16,
    /// Something else.
    Unknown,
}

impl fmt::Display for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Certificate => "a certificate in DER",
            Self::Key => "a private key in DER",
            Self::Pkcs7 => "PKCS#7",
            Self::Pkcs12 => "PKCS#12",
            Self::Keystore => "a Java keystore",
            Self::Utf16 => "text in UTF-16",
            Self::Unknown => "binary data",
        })
    }
}

/// What kind of binary data it is, by its first bytes: JKS and JCEKS have signs of their own (OpenJDK, `JavaKeyStore.java`,
/// `JceKeyStore.java`); the rest is a SEQUENCE of which the first element tells (RFC 7292 4, RFC 2315 7, RFC 5958 2,
/// RFC 8017 A.1.2, RFC 5915 3, RFC 5280 4.1).
fn binary(bytes: &[u8]) -> Binary {
    const SIGNED_DATA: [u8; 11] = [0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
    match bytes {
        [0xfe, 0xed, 0xfe, 0xed, ..] | [0xce, 0xce, 0xce, 0xce, ..] => return Binary::Keystore,
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => return Binary::Utf16,
        _ => {}
    }
    let first = match bytes {
        [0x30, length, rest @ ..] if *length <= 0x80 => rest,
        [0x30, length, rest @ ..] => rest.get(usize::from(length & 0x7f)..).unwrap_or_default(),
        _ => return Binary::Unknown,
    };
    match first {
        [0x02, 0x01, 0x03, ..] => Binary::Pkcs12,
        [0x02, 0x01, 0x00 | 0x01, ..] => Binary::Key,
        first if first.starts_with(&SIGNED_DATA) => Binary::Pkcs7,
        [0x30, ..] => Binary::Certificate,
        _ => Binary::Unknown,
    }
}

/// Reads a PEM file: text around the sections, CRLF and a byte order mark are allowed.
///
/// # Errors
/// When a section is broken or there is none.
pub fn read_pem(bytes: &[u8]) -> Result<Pem, PemError> {
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let is_pem = text.windows(11).any(|part| part == b"-----BEGIN ");
    if !is_pem && (text.contains(&0) || std::str::from_utf8(text).is_err() || text.first() == Some(&0x30)) {
        return Err(PemError::Binary(binary(text)));
    }
    let mut pem = Pem::default();
    for item in rustls_pemfile::read_all(&mut BufReader::new(text)) {
        if let rustls_pemfile::Item::X509Certificate(der) = item.map_err(|error| PemError::Malformed(error.to_string()))? {
            let number = pem.certs.len() + 1;
            pem.certs.push(Cert::from_der(&der).map_err(|why| PemError::Certificate(number, why))?);
        }
    }
    // rustls-pemfile skips labels that it does not know without a word, and turns keys into DER: the sections are looked at
    // once more as text
    let text = String::from_utf8_lossy(text);
    for section in sections(&text) {
        match section.label {
            "CERTIFICATE" => {}
            label if label.ends_with("PRIVATE KEY") => pem.keys.push(Secret::new(section.text.as_bytes())),
            label => pem.skipped.push(label.to_owned()),
        }
    }
    if pem.certs.is_empty() && pem.keys.is_empty() && pem.skipped.is_empty() {
        return Err(PemError::Empty);
    }
    Ok(pem)
}

struct Section<'a> {
    label: &'a str,
    text: &'a str,
}

fn sections(text: &str) -> impl Iterator<Item = Section<'_>> {
    text.match_indices("-----BEGIN ").filter_map(|(start, begin)| {
        let rest = &text[start..];
        let label = rest[begin.len()..].split_once("-----")?.0;
        let end = format!("-----END {label}-----");
        let length = rest.find(&end)? + end.len();
        Some(Section { label, text: &rest[..length] })
    })
}

impl Cert {
    /// Reads one certificate.
    ///
    /// # Errors
    /// A short text of what is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes too many behind it", rest.len()));
        }
        let is_ca = cert.basic_constraints().ok().flatten().is_some_and(|constraints| constraints.value.ca);
        let names = cert.extensions().iter().filter_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectAlternativeName(names) => Some(names),
            _ => None,
        });
        let names = names.flat_map(|names| &names.general_names).filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress(bytes) => <[u8; 4]>::try_from(*bytes)
                .map(|four| std::net::IpAddr::from(four).to_string())
                .or_else(|_| <[u8; 16]>::try_from(*bytes).map(|sixteen| std::net::IpAddr::from(sixteen).to_string()))
                .ok(),
            _ => None,
        });
        Ok(Self {
            fingerprint: Digest::of(der),
            subject: cert.subject().to_string(),
            not_before: Time::from_secs(cert.validity().not_before.timestamp()),
            not_after: Time::from_secs(cert.validity().not_after.timestamp()),
            is_ca,
            self_issued: cert.subject().as_raw() == cert.issuer().as_raw(),
            version_1: cert.version() == x509_parser::x509::X509Version::V1,
            names: names.collect(),
            der: Arc::from(der),
        })
    }

    /// Whether p11-kit takes it for a CA: by the flag, or of version 1 and its own issuer (trust/builder.c,
    /// `is_v1_x509_authority`; tests/trust_store/suse).
    #[must_use]
    pub const fn is_anchor(&self) -> bool {
        self.is_ca || self.version_1 && self.self_issued
    }

    /// Whether `now` lies in its validity.
    #[must_use]
    pub fn is_valid_at(&self, now: Time) -> bool {
        self.not_before <= now && now <= self.not_after
    }

    /// The certificate as PEM, with a newline at the end (Alpine glues files together).
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in base64(&self.der).as_bytes().chunks(64) {
            text.push_str(std::str::from_utf8(line).unwrap_or_default());
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
        text
    }
}

/// The DER form of every certificate in `bytes`, in order; sections that cannot be read are skipped ([`fingerprints`]).
#[must_use]
pub fn ders(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut reader = BufReader::new(bytes);
    let sections = rustls_pemfile::certs(&mut reader).filter_map(Result::ok).map(|der| der.to_vec());
    sections.filter(|der| X509Certificate::from_der(der).is_ok()).collect()
}

/// The private key in PEM text, for presenting a client certificate; `None` when our library does not know it.
#[must_use]
pub fn signing_key(key: &Secret) -> Option<Arc<dyn rustls::sign::SigningKey>> {
    let key = rustls_pemfile::private_key(&mut BufReader::new(key.expose())).ok()??;
    rustls::crypto::ring::sign::any_supported_type(&key).ok()
}

/// The fingerprints of every certificate in `bytes`; sections that cannot be read are skipped, as Go does
/// (crypto/x509, `AppendCertsFromPEM`).
#[must_use]
pub fn fingerprints(bytes: &[u8]) -> BTreeSet<Fingerprint> {
    rustls_pemfile::certs(&mut BufReader::new(bytes))
        .filter_map(Result::ok)
        .filter(|der| X509Certificate::from_der(der).is_ok())
        .map(|der| Digest::of(&der))
        .gathered()
}

/// Whether a private key belongs to a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyMatch {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// The key cannot be read.
    Unreadable(String),
    /// Our library does not know the algorithm; the runtimes may.
    Unknown(String),
}

/// Compares the public key of `certs[0]` with `key` (PEM text of one private key).
#[must_use]
pub fn key_matches(certs: &[Cert], key: &Secret) -> KeyMatch {
    let key = match rustls_pemfile::private_key(&mut BufReader::new(key.expose())) {
        Ok(Some(key)) => key,
        Ok(None) => return KeyMatch::Unreadable("it is encrypted or of an unknown form".into()),
        Err(error) => return KeyMatch::Unreadable(error.to_string()),
    };
    let key = match rustls::crypto::ring::sign::any_supported_type(&key) {
        Ok(key) => key,
        Err(error) => return KeyMatch::Unknown(error.to_string()),
    };
    let chain = certs.iter().map(|cert| rustls::pki_types::CertificateDer::from(cert.der.to_vec())).collect();
    // rustls reads no certificates of version 1, which `openssl x509 -req` makes where no extensions are asked for
    let public = certs.first().and_then(|cert| X509Certificate::from_der(&cert.der).ok()).map(|(_, cert)| cert);
    if let (Some(cert), Some(of_key)) = (public, key.public_key()) {
        return if cert.public_key().raw == of_key.as_ref() { KeyMatch::Yes } else { KeyMatch::No };
    }
    match rustls::sign::CertifiedKey::new(chain, key).keys_match() {
        Ok(()) => KeyMatch::Yes,
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => KeyMatch::No,
        Err(error) => KeyMatch::Unknown(error.to_string()),
    }
}

/// Standard base64 with padding.
#[must_use]
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes of standard base64; white space is not allowed, padding may be missing. `None` when it is none.
#[must_use]
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=');
    let mut bytes = Vec::with_capacity(text.len() * 3 / 4);
    let (mut bits, mut count) = (0u32, 0);
    for digit in text.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 255).ok()?);
        }
    }
    (text.len() % 4 != 1).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(ca: bool, name: &str) -> (String, String) {
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        }
        let key = rcgen::KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    }

    #[test]
    fn reads_what_people_have() {
        let (one, key) = made(true, "a.example");
        let (two, _) = made(false, "b.example");
        let file = format!("\u{feff}subject=…\r\n{}\r\n{two}{key}", one.replace('\n', "\r\n"));
        let pem = read_pem(file.as_bytes()).unwrap();
        assert_eq!((pem.certs.len(), pem.keys.len(), pem.skipped.len()), (2, 1, 0));
        assert_eq!((pem.certs[0].is_ca, pem.certs[1].is_ca), (true, false));
        assert!(pem.certs.iter().all(|cert| cert.self_issued));
        assert_eq!(pem.certs[1].names, ["b.example"]);
        assert_eq!(read_pem(pem.certs[0].to_pem().as_bytes()).unwrap().certs, pem.certs[..1]);
        assert_eq!(fingerprints(file.replace('\u{feff}', "").as_bytes()).len(), 2);
    }

    #[test]
    fn says_what_is_wrong() {
        let (one, _) = made(true, "a.example");
        let der = read_pem(one.as_bytes()).unwrap().certs[0].der.clone();
        assert_eq!(read_pem(&der).unwrap_err(), PemError::Binary(Binary::Certificate));
        assert_eq!(read_pem(b"").unwrap_err(), PemError::Empty);
        assert_eq!(read_pem(b"hello").unwrap_err(), PemError::Empty);
        assert!(matches!(read_pem(&one.as_bytes()[..200]).unwrap_err(), PemError::Malformed(_)));
        let other = "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----\n";
        assert!(matches!(read_pem(other.as_bytes()).unwrap_err(), PemError::Certificate(1, _)));
        let trusted = one.replace("CERTIFICATE", "TRUSTED CERTIFICATE");
        assert_eq!(read_pem(trusted.as_bytes()).unwrap().skipped, ["TRUSTED CERTIFICATE"]);
    }

    #[test]
    fn compares_keys() {
        let (cert, key) = made(false, "a.example");
        let (_, other) = made(false, "a.example");
        let certs = read_pem(cert.as_bytes()).unwrap().certs;
        assert_eq!(key_matches(&certs, &Secret::new(key)), KeyMatch::Yes);
        assert_eq!(key_matches(&certs, &Secret::new(other)), KeyMatch::No);
        assert!(matches!(key_matches(&certs, &Secret::new("nothing")), KeyMatch::Unreadable(_)));
    }

    #[test]
    fn base64_known_answers() {
        for (plain, coded) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(plain.as_bytes()), coded);
            assert_eq!(base64_decode(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(base64_decode("Zm9v!"), None);
        assert_eq!(base64_decode("Z"), None);
    }
}
