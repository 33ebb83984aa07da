//! When the certificates that we left on a node run out. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::ledger::Ledger;
use crate::model::cert::{Cert, read_pem};
use crate::model::digest::Fingerprint;
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::Tree;

/// What a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Registries are believed because of it.
    Ca,
    /// The node shows it to registries.
    Client,
}

impl Role {
    /// In words.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Client => "client",
        }
    }
}

/// One certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expiry {
    /// What it is for.
    pub role: Role,
    /// Its subject.
    pub subject: String,
    /// SHA-256 of its DER form.
    pub fingerprint: Fingerprint,
    /// When it runs out: seconds since 1970, and in words.
    pub not_after: i64,
    /// The same as a date.
    pub expires: String,
    /// Whole days until then; negative when it is past.
    pub days: i64,
    /// Where it stands.
    pub paths: Vec<NodePath>,
}

/// The certificates in whole files of ours, those that run out first before the others. A client's chain counts as its leaf: it stands first.
#[must_use]
pub fn expiry(ledger: &Ledger, tree: &Tree, now: Time) -> Vec<Expiry> {
    let mut found: BTreeMap<(Role, Fingerprint), (Cert, Vec<NodePath>)> = BTreeMap::new();
    for (path, _) in ledger.owned.iter().filter(|(_, owned)| owned.format.is_none()) {
        let Some((role, bytes)) = role(path).zip(tree.bytes(path)) else { continue };
        let certs = read_pem(bytes).map(|pem| pem.certs).unwrap_or_default();
        let most = if role == Role::Client { 1 } else { certs.len() };
        for cert in certs.into_iter().take(most) {
            found.entry((role, cert.fingerprint)).or_insert_with(|| (cert, Vec::new())).1.push(path.clone());
        }
    }
    let mut all: Vec<Expiry> = found
        .into_iter()
        .map(|((role, fingerprint), (cert, paths))| Expiry {
            role,
            subject: cert.subject,
            fingerprint,
            not_after: cert.not_after.0.div_euclid(1000),
            expires: cert.not_after.to_string(),
            days: now.days_until(cert.not_after),
            paths,
        })
        .collect();
    all.sort_by_key(|one| (one.not_after, one.role, one.fingerprint));
    all
}

/// By the names that we give to files (docs/files.md): `client-….crt` and `nodeprep-….cert` are shown, other certificates believed.
fn role(path: &NodePath) -> Option<Role> {
    let name = path.name();
    let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
    match ending {
        "cert" => Some(Role::Client),
        "crt" if name.starts_with("client-") => Some(Role::Client),
        "crt" | "pem" => Some(Role::Ca),
        _ => None,
    }
}
