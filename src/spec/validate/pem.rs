//! Files of certificates.

use std::ops::Range;

use super::super::problems::Problems;
use super::super::reference::Holds;
use crate::model::cert::{Binary, Pem, PemError, read_pem};
use crate::model::order;

/// Reads a PEM file; `name` is what messages call it, `holds` what is wanted of it.
pub fn read(bytes: &[u8], name: &str, holds: Holds, span: &Range<usize>, problems: &mut Problems<'_>) -> Option<Pem> {
    match read_pem(bytes) {
        Ok(pem) => Some(pem),
        Err(error @ PemError::Binary(kind)) => {
            let help = format!("convert it: {}", conversion(kind, name, holds));
            problems.error("pem-binary", span, format!("{name}: {error}"), help);
            None
        }
        Err(error @ PemError::Empty) => {
            let help = "put certificates between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----";
            problems.error("pem-no-certificate", span, format!("{name}: {error}"), help);
            None
        }
        Err(error @ (PemError::Malformed(_) | PemError::Certificate(..))) => {
            let help = format!("export it again; `openssl x509 -in {name} -noout -text` shows whether it can be read");
            problems.error("pem-malformed", span, format!("{name}: {error}"), help);
            None
        }
    }
}

/// The command that makes PEM of it.
fn conversion(kind: Binary, name: &str, holds: Holds) -> String {
    let to = with_suffix(name, "pem");
    // what to take out of a file that holds certificates and keys, and where each goes
    let (part, apart) = match holds {
        Holds::Ca => ("-cacerts -nokeys", "pem"),
        Holds::ClientCert => ("-clcerts -nokeys", "crt"),
        Holds::ClientKey | Holds::Credentials => ("-nocerts -nodes", "key"),
    };
    let apart = with_suffix(name, apart);
    match kind {
        Binary::Key => format!("openssl pkey -inform der -in {name} -out {to}"),
        Binary::Certificate | Binary::Unknown if holds == Holds::ClientKey => format!("openssl pkey -inform der -in {name} -out {to}"),
        Binary::Certificate | Binary::Unknown => format!("openssl x509 -inform der -in {name} -out {to}"),
        Binary::Pkcs7 => format!("openssl pkcs7 -inform der -in {name} -print_certs -out {to}"),
        Binary::Pkcs12 => format!("openssl pkcs12 -in {name} {part} -out {apart}"),
        Binary::Keystore if holds == Holds::Ca => format!("keytool -exportcert -rfc -keystore {name} -alias ALIAS -file {to}"),
        Binary::Keystore => {
            let p12 = with_suffix(name, "p12");
            format!(
                "keytool -importkeystore -srckeystore {name} -destkeystore {p12} -deststoretype pkcs12; openssl pkcs12 -in {p12} {part} -out {apart}"
            )
        }
        Binary::Utf16 => format!("iconv -f UTF-16 -t UTF-8 {name} > {}", with_suffix(name, "utf8.pem")),
    }
}

/// Says what of a file of certificates no runtime reads; an error when nothing else is in it.
pub fn sections(pem: &Pem, name: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> bool {
    let mut labels = pem.skipped.clone();
    labels.retain(|label| !label.ends_with("PARAMETERS"));
    order::sort(&mut labels);
    labels.dedup();
    let listed = labels.join(", ");
    let convertible = labels.iter().any(|label| label.ends_with("CERTIFICATE") || label.contains("PKCS7"));
    let help = if labels.iter().any(|label| label.contains("PKCS7")) {
        format!("convert it: openssl pkcs7 -in {name} -print_certs -out {}", with_suffix(name, "pem"))
    } else if convertible {
        format!("convert it: openssl x509 -in {name} -out {}", with_suffix(name, "plain.pem"))
    } else {
        "put certificates between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----".to_owned()
    };
    if pem.certs.is_empty() {
        let what = if labels.is_empty() {
            format!("{name}: holds no certificate")
        } else {
            format!("{name}: holds no CERTIFICATE section, only {listed}")
        };
        problems.error("pem-no-certificate", span, what, help);
        return false;
    }
    if !labels.is_empty() {
        let help = if convertible { help } else { "take them out".to_owned() };
        problems.warning("pem-section-skipped", span, format!("{name}: every runtime passes over its {listed} sections in silence"), help);
    }
    true
}

fn with_suffix(name: &str, suffix: &str) -> String {
    let stem = name.rsplit_once('.').filter(|(stem, old)| !stem.is_empty() && !old.contains('/')).map_or(name, |(stem, _)| stem);
    format!("{stem}.{suffix}")
}
