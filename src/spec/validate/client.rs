//! Client certificates for mTLS.

use std::collections::HashMap;
use std::ops::Range;

use super::super::decode::{At, RawRegistry};
use super::super::problems::Problems;
use super::super::reference::Holds;
use super::{Materials, SOON_DAYS, pem};
use crate::model::cert::{KeyMatch, key_matches};
use crate::model::time::Time;
use crate::spec::Client;

/// Certificate and key files that were looked at already: many registries share them.
#[derive(Default)]
pub struct Seen(HashMap<(String, String), Option<Client>>);

/// The client certificate of a registry.
pub fn check(
    registry: &RawRegistry,
    seen: &mut Seen,
    materials: &mut Materials<'_>,
    now: Option<Time>,
    problems: &mut Problems<'_>,
) -> Option<Client> {
    let (cert, key) = match (&registry.client_cert, &registry.client_key) {
        (None, None) => return None,
        (Some(cert), Some(key)) => (cert, key),
        (Some(cert), None) => {
            problems.error(
                "client-incomplete",
                &cert.span,
                "`client_cert` without `client_key`",
                "add `client_key` with the file of its key",
            );
            return None;
        }
        (None, Some(key)) => {
            problems.error(
                "client-incomplete",
                &key.span,
                "`client_key` without `client_cert`",
                "add `client_cert` with the file of its certificate",
            );
            return None;
        }
    };
    let pair = (cert.value.clone(), key.value.clone());
    if let Some(known) = seen.0.get(&pair) {
        return known.clone();
    }
    let client = read(cert, key, materials, now, problems);
    seen.0.insert(pair, client.clone());
    client
}

fn read(
    cert: &At<String>,
    key: &At<String>,
    materials: &mut Materials<'_>,
    now: Option<Time>,
    problems: &mut Problems<'_>,
) -> Option<Client> {
    let (cert_bytes, key_bytes) = (materials.get(cert, problems), materials.get(key, problems));
    let certs = cert_bytes.and_then(|bytes| {
        let pem = pem::read(bytes, &cert.value, Holds::ClientCert, &cert.span, problems)?;
        let only_a_key = pem.certs.is_empty() && !pem.keys.is_empty();
        if only_a_key {
            let what = format!("{}: holds a private key and no certificate", cert.value);
            problems.error("pem-no-certificate", &cert.span, what, "name the certificate in `client_cert` and the key in `client_key`");
            return None;
        }
        pem::sections(&pem, &cert.value, &cert.span, problems).then_some(pem.certs)
    });
    let key_pem = key_bytes.and_then(|bytes| {
        let pem = pem::read(bytes, &key.value, Holds::ClientKey, &key.span, problems)?;
        let first = pem.keys.into_iter().next();
        if first.is_none() {
            let what = format!("{}: holds no private key", key.value);
            problems.error("client-key-unreadable", &key.span, what, "name the file with the PRIVATE KEY section");
        }
        first
    });
    let (certs, key_pem) = (certs?, key_pem?);
    if let Some(leaf) = certs.first() {
        validity(leaf, &cert.value, &cert.span, now, problems);
    }
    match key_matches(&certs, &key_pem) {
        KeyMatch::Yes => {}
        KeyMatch::No => {
            let leaf_is_later = (1..certs.len()).any(|first| key_matches(&certs[first..], &key_pem) == KeyMatch::Yes);
            let help = if leaf_is_later {
                format!("put the certificate of this key first in {}", cert.value)
            } else {
                "name the key that the certificate was made with".to_owned()
            };
            problems.error("client-key-mismatch", &key.span, format!("{} is not the key of {}", key.value, cert.value), help);
        }
        KeyMatch::Unreadable(_) => {
            let what = format!("{}: the key cannot be read; it may be encrypted", key.value);
            problems.error(
                "client-key-unreadable",
                &key.span,
                what,
                format!("write it without passphrase: openssl pkey -in {} -out plain.key", key.value),
            );
        }
        KeyMatch::Unknown(_) => {
            let what = format!("{}: a key of this kind cannot be compared with {} here", key.value, cert.value);
            problems.note("client-key-unchecked", &key.span, what, "compare the public keys: openssl x509 -pubkey, openssl pkey -pubout");
        }
    }
    Some(Client { certs, key: key_pem })
}

fn validity(leaf: &crate::model::cert::Cert, name: &str, span: &Range<usize>, now: Option<Time>, problems: &mut Problems<'_>) {
    let Some(now) = now else { return };
    if now < leaf.not_before {
        let what = format!("{name}: client certificate {} is not valid before {}", leaf.subject, leaf.not_before);
        problems.error("client-expired", span, what, "check the clock, or issue it anew");
    } else if now > leaf.not_after {
        let what = format!("{name}: client certificate {} expired on {}", leaf.subject, leaf.not_after);
        problems.error("client-expired", span, what, "issue it anew");
    } else if now.days_until(leaf.not_after) < SOON_DAYS {
        let days = now.days_until(leaf.not_after);
        let what = format!("{name}: client certificate {} expires in {days} days, on {}", leaf.subject, leaf.not_after);
        problems.warning("client-expires-soon", span, what, "issue it anew in time");
    }
}
