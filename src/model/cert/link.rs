//! One certificate as a link of a chain: everything that building a path needs to know of it.

use std::net::IpAddr;

use x509_parser::extensions::{GeneralName, NameConstraints, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::model::digest::{Digest, Fingerprint};
use crate::model::time::Time;

/// Object identifiers of extensions that Go's crypto/x509 understands, so that they may be critical (`parse.go`,
/// `processExtensions`).
const UNDERSTOOD: [&str; 13] = [
    "2.5.29.14",
    "2.5.29.15",
    "2.5.29.17",
    "2.5.29.19",
    "2.5.29.30",
    "2.5.29.31",
    "2.5.29.32",
    "2.5.29.33",
    "2.5.29.35",
    "2.5.29.36",
    "2.5.29.37",
    "2.5.29.54",
    "1.3.6.1.5.5.7.1.1",
];

/// A certificate, taken apart for building a path.
#[derive(Clone, Debug)]
pub struct Link {
    /// SHA-256 of the DER form.
    pub fingerprint: Fingerprint,
    /// Whose it is, for messages.
    pub title: String,
    /// Who signed it, for messages.
    pub signer: String,
    /// The name of whose it is, in DER.
    pub subject: Vec<u8>,
    /// The name of who signed it, in DER.
    pub issuer: Vec<u8>,
    /// 1 to 3.
    pub version: u32,
    /// Valid from.
    pub not_before: Time,
    /// Valid until.
    pub not_after: Time,
    /// Basic constraints, where it has them: the CA flag, and how many intermediates may stand below.
    pub ca: Option<(bool, Option<u32>)>,
    /// Whether its key may sign certificates, where it says for what its key may be used.
    pub cert_sign: Option<bool>,
    /// Whether it may be used for servers, where it says for what it may be used.
    pub server: Option<bool>,
    /// It has a subject alternative name, of whatever kind.
    pub has_alternative: bool,
    /// DNS names of the subject alternative name.
    pub dns: Vec<String>,
    /// Addresses of the subject alternative name.
    pub addresses: Vec<IpAddr>,
    /// The last common name of the subject.
    pub common_name: Option<String>,
    /// A critical extension that nobody understands.
    pub unhandled: Option<String>,
    /// For which names it may sign.
    pub constraints: Option<Constraints>,
    /// What is signed.
    pub signed: Vec<u8>,
    /// The content of the signature's algorithm identifier, in DER.
    pub signature_algorithm: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
    /// The content of its key's algorithm identifier, in DER.
    pub key_algorithm: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
    /// The length of an RSA key in bits.
    pub rsa_bits: Option<usize>,
}

/// For which names a CA may sign: DNS domains, and networks as address and mask.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Only these DNS domains, where there are any.
    pub dns: Vec<String>,
    /// Never these.
    pub no_dns: Vec<String>,
    /// Only these networks, where there are any.
    pub networks: Vec<Vec<u8>>,
    /// Never these.
    pub no_networks: Vec<Vec<u8>>,
}

impl Link {
    /// Takes a certificate apart.
    ///
    /// # Errors
    /// A short text of what is wrong with it.
    pub fn from_der(der: &[u8]) -> Result<Self, String> {
        let (rest, cert) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} bytes too many behind it", rest.len()));
        }
        let cut = || "its outer form is not DER".to_owned();
        let (whole, _) = element(der).ok_or_else(cut)?;
        let (signed, rest) = whole_element(whole).ok_or_else(cut)?;
        let (signature_algorithm, rest) = element(rest).ok_or_else(cut)?;
        let signature = element(rest).and_then(|(bits, _)| bits.strip_prefix(&[0])).ok_or_else(cut)?;
        let (key_info, _) = element(cert.public_key().raw).ok_or_else(cut)?;
        let (key_algorithm, rest) = element(key_info).ok_or_else(cut)?;
        let key = element(rest).and_then(|(bits, _)| bits.strip_prefix(&[0])).ok_or_else(cut)?;
        let rsa_bits = match cert.public_key().parsed() {
            Ok(x509_parser::public_key::PublicKey::RSA(rsa)) => Some(rsa.key_size()),
            _ => None,
        };
        let mut link = Self {
            fingerprint: Digest::of(der),
            title: cert.subject().to_string(),
            signer: cert.issuer().to_string(),
            subject: cert.subject().as_raw().to_vec(),
            issuer: cert.issuer().as_raw().to_vec(),
            version: cert.version().0 + 1,
            not_before: Time::from_secs(cert.validity().not_before.timestamp()),
            not_after: Time::from_secs(cert.validity().not_after.timestamp()),
            ca: None,
            cert_sign: None,
            server: None,
            has_alternative: false,
            dns: Vec::new(),
            addresses: Vec::new(),
            common_name: cert.subject().iter_common_name().last().and_then(|name| name.as_str().ok()).map(ToOwned::to_owned),
            unhandled: None,
            constraints: None,
            signed: signed.to_vec(),
            signature_algorithm: signature_algorithm.to_vec(),
            signature: signature.to_vec(),
            key_algorithm: key_algorithm.to_vec(),
            key: key.to_vec(),
            rsa_bits,
        };
        for extension in cert.extensions() {
            let oid = extension.oid.to_id_string();
            link.take(extension.parsed_extension(), extension.critical)?;
            if extension.critical && !UNDERSTOOD.contains(&oid.as_str()) {
                link.unhandled = Some(oid);
            }
        }
        Ok(link)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>, critical: bool) -> Result<(), String> {
        match extension {
            ParsedExtension::BasicConstraints(says) => self.ca = Some((says.ca, says.path_len_constraint)),
            ParsedExtension::KeyUsage(says) if says.flags != 0 => self.cert_sign = Some(says.key_cert_sign()),
            ParsedExtension::ExtendedKeyUsage(says) => self.server = Some(says.any || says.server_auth),
            ParsedExtension::SubjectAlternativeName(names) => {
                self.has_alternative = true;
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(name) => self.dns.push((*name).to_owned()),
                        GeneralName::IPAddress(bytes) => self.addresses.extend(address(bytes)),
                        _ => {}
                    }
                }
            }
            ParsedExtension::NameConstraints(says) => {
                let (constraints, all) = constraints(says);
                if critical && !all {
                    self.unhandled = Some("2.5.29.30".to_owned());
                }
                self.constraints = Some(constraints);
            }
            ParsedExtension::ParseError { error } => return Err(format!("an extension cannot be read: {error}")),
            _ => {}
        }
        Ok(())
    }
}

/// The constraints, and whether all of them are of kinds that Go understands.
fn constraints(says: &NameConstraints<'_>) -> (Constraints, bool) {
    let mut known = true;
    let mut sort = |trees: &Option<Vec<x509_parser::extensions::GeneralSubtree<'_>>>| {
        let (mut dns, mut networks) = (Vec::new(), Vec::new());
        for tree in trees.iter().flatten() {
            match &tree.base {
                GeneralName::DNSName(name) => dns.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => networks.push(bytes.to_vec()),
                // they say nothing of a server's names
                GeneralName::RFC822Name(_) | GeneralName::URI(_) => {}
                _ => known = false,
            }
        }
        (dns, networks)
    };
    let (dns, networks) = sort(&says.permitted_subtrees);
    let (no_dns, no_networks) = sort(&says.excluded_subtrees);
    (Constraints { dns, no_dns, networks, no_networks }, known)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// The content of the first DER element, and what stands behind it.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, length) = measure(bytes)?;
    Some((bytes.get(head..head + length)?, &bytes[head + length..]))
}

/// The same with its head.
fn whole_element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, length) = measure(bytes)?;
    Some((bytes.get(..head + length)?, &bytes[head + length..]))
}

/// The lengths of head and content; `None` where the element is cut off.
fn measure(bytes: &[u8]) -> Option<(usize, usize)> {
    let (head, length) = match *bytes.get(1)? {
        short @ 0..=0x7f => (2, usize::from(short)),
        long @ 0x81..=0x83 => {
            let digits = bytes.get(2..2 + usize::from(long & 0x7f))?;
            (2 + digits.len(), digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)))
        }
        _ => return None,
    };
    (bytes.len() >= head + length).then_some((head, length))
}
