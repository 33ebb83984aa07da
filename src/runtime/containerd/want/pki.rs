//! CA and client files, named by their content so that a new one never changes what a live file names.

use std::collections::BTreeMap;

use super::{PKI, STAGE};
use crate::desired::{Want, Whole};
use crate::model::cert::Cert;
use crate::model::content::Content;
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::spec::Client;

/// The files that hosts.toml files name so far.
#[derive(Default)]
pub(super) struct Pki {
    wants: BTreeMap<NodePath, Want>,
    /// Set of fingerprints → its file: most registries share one set.
    known: BTreeMap<Vec<Digest>, NodePath>,
}

impl Pki {
    /// The file with exactly these certificates; `None` for none. `.pem`, so that a fall-back to certificate scanning never
    /// takes it for the registry's own (`runtime-semantics.md` 1.9).
    pub(super) fn ca(&mut self, certs: &[Cert]) -> Option<NodePath> {
        if certs.is_empty() {
            return None;
        }
        let set: Vec<Digest> = certs.iter().map(|cert| cert.fingerprint).collect();
        if let Some(path) = self.known.get(&set) {
            return Some(path.clone());
        }
        let content = Content::public(certs.iter().map(Cert::to_pem).collect::<String>());
        let path = NodePath::fixed(PKI).join(&format!("ca-{}.pem", content.digest().short()));
        self.put(&path, content, 0o644, "the CAs that registries are checked with");
        self.known.insert(set, path.clone());
        Some(path)
    }

    /// The files with a client certificate and its key. Both are named by the certificate: a name made from the key could
    /// confirm a guess of it.
    pub(super) fn client(&mut self, client: &Client) -> (NodePath, NodePath) {
        let chain = Content::public(client.chain_pem());
        let name = format!("client-{}", chain.digest().short());
        let cert = NodePath::fixed(PKI).join(&format!("{name}.crt"));
        let key = NodePath::fixed(PKI).join(&format!("{name}.key"));
        if !self.wants.contains_key(&key) {
            self.put(&cert, chain, 0o644, "the certificate that this node shows to registries");
            let secret = Content::secret(client.key.expose(), vec![client.key.clone()]);
            self.put(&key, secret, 0o600, "the key of the certificate that this node shows to registries");
        }
        (cert, key)
    }

    fn put(&mut self, path: &NodePath, content: Content, mode: u32, why: &str) {
        let stage = NodePath::fixed(PKI).parent().unwrap_or_else(NodePath::root).join(STAGE);
        let whole = Whole { content, mode, addressed: true, unit: None, stage, why: why.to_owned() };
        self.wants.insert(path.clone(), Want::Whole(whole));
    }

    pub(super) fn into_wants(self) -> BTreeMap<NodePath, Want> {
        self.wants
    }
}
