//! Certificates and keys by fingerprint, from whatever files of a tree hold them. A [`super::resolution::Resolution`] names them by
//! fingerprint only.

use std::collections::BTreeMap;

use super::cert::{self, Cert, KeyMatch};
use super::digest::{Digest, Fingerprint};
use super::secret::Secret;
use super::tree::{Entry, Tree};

/// What the files of a tree hold.
#[derive(Debug, Default)]
pub struct Keyring {
    certs: BTreeMap<Fingerprint, Vec<Vec<u8>>>,
    keys: Vec<Secret>,
}

impl Keyring {
    /// Every certificate and key in PEM files of `tree`.
    #[must_use]
    pub fn of(tree: &Tree) -> Self {
        let (mut certs, mut keys) = (BTreeMap::new(), Vec::new());
        let files = tree.iter().filter_map(|(_, entry)| match entry {
            Entry::File { bytes, .. } => Some(bytes),
            _ => None,
        });
        for bytes in files.filter(|bytes| bytes.windows(11).any(|part| part == b"-----BEGIN ")) {
            let ders = cert::ders(bytes);
            for place in 0..ders.len() {
                // a chain begins with its leaf; alone it is there for trust
                let chain = if place == 0 { ders.clone() } else { vec![ders[place].clone()] };
                let known = certs.entry(Digest::of(&ders[place])).or_insert_with(Vec::new);
                if known.len() < chain.len() {
                    *known = chain;
                }
            }
            keys.extend(cert::read_pem(bytes).map(|pem| pem.keys).unwrap_or_default());
        }
        Self { certs, keys }
    }

    /// The certificate with this fingerprint, in DER.
    #[must_use]
    pub fn cert(&self, fingerprint: &Fingerprint) -> Option<&[u8]> {
        self.certs.get(fingerprint)?.first().map(Vec::as_slice)
    }

    /// The chain that begins with this leaf, in DER, and the key that belongs to it, in PEM.
    #[must_use]
    pub fn identity(&self, leaf: Fingerprint) -> Option<(Vec<Vec<u8>>, Secret)> {
        let chain = self.certs.get(&leaf)?.clone();
        let certs: Vec<Cert> = chain.first().and_then(|der| Cert::from_der(der).ok()).into_iter().collect();
        let key = self.keys.iter().find(|key| cert::key_matches(&certs, key) == KeyMatch::Yes)?.clone();
        Some((chain, key))
    }
}
