//! Files of certificates.

use std::ops::Range;

use super::super::problems::Problems;
use crate::model::cert::{Pem, PemError, read_pem};

/// Reads a PEM file; `name` is what messages call it.
pub fn read(bytes: &[u8], name: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> Option<Pem> {
    match read_pem(bytes) {
        Ok(pem) => Some(pem),
        Err(error @ PemError::Binary) => {
            let help = format!("convert it: openssl x509 -inform der -in {name} -out {}", with_suffix(name, "pem"));
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

/// Says what of a file of certificates no runtime reads; an error when nothing else is in it.
pub fn sections(pem: &Pem, name: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> bool {
    let mut labels = pem.skipped.clone();
    labels.retain(|label| !label.ends_with("PARAMETERS"));
    labels.sort();
    labels.dedup();
    let listed = labels.join(", ");
    let convertible = labels.iter().any(|label| label.ends_with("CERTIFICATE"));
    let help = if convertible {
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
