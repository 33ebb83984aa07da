//! What is kept beside the ledger: the last spec that was applied, and what was fetched last. Pure; both hold nothing secret.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::model::cert::{base64, base64_decode};
use crate::model::digest::Digest;
use crate::model::line;
use crate::spec::documents::Document;
use crate::spec::reference::{Holds, Reference};
use crate::spec::signature::Seal;

/// The version that this nodeprep writes of both.
const VERSION: u32 = 1;

/// What referenced files hold, by [`Reference::written`], or why they could not be read.
pub type Materials = BTreeMap<String, Result<Vec<u8>, String>>;

/// The last spec that was applied and is in effect: what is needed to apply it again without whoever gave it. Keys and logins
/// are not in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    version: u32,
    /// What messages called it.
    pub name: String,
    documents: Vec<Kept>,
    /// Public files, in base64.
    materials: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    signature: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    list: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    file: String,
    text: String,
}

/// Why what was kept is of no use.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeptError {
    /// Not JSON, or not ours.
    #[error("cannot be read: {0}")]
    Malformed(String),
    /// Written by a later nodeprep.
    #[error("has version {0}; this nodeprep knows version {VERSION}")]
    TooNew(u32),
}

impl LastGood {
    /// What is to be kept of a spec.
    #[must_use]
    pub fn of(name: &str, documents: &[Document], seal: Option<&Seal>, references: &[Reference], materials: &Materials) -> Self {
        // what was applied was text
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let public = references.iter().filter(|reference| reference.holds.is_public());
        let kept = public.filter_map(|reference| {
            let bytes = materials.get(&reference.written)?.as_ref().ok()?;
            Some((reference.written.clone(), base64(bytes)))
        });
        Self {
            version: VERSION,
            name: name.to_owned(),
            documents: documents.iter().map(|one| Kept { file: one.file.clone(), text: text(&one.bytes) }).collect(),
            materials: kept.collect(),
            signature: seal.map(|seal| text(&seal.signature)),
            list: seal.and_then(|seal| seal.list.as_deref()).map(text),
        }
    }

    /// Reads what [`LastGood::to_json`] has written.
    ///
    /// # Errors
    /// When it is malformed or too new.
    pub fn from_json(bytes: &[u8]) -> Result<Self, KeptError> {
        #[derive(Deserialize)]
        struct Head {
            version: u32,
        }
        let malformed = |error: serde_json::Error| KeptError::Malformed(error.to_string());
        let Head { version } = serde_json::from_slice(bytes).map_err(malformed)?;
        if version > VERSION {
            return Err(KeptError::TooNew(version));
        }
        serde_json::from_slice(bytes).map_err(malformed)
    }

    /// The bytes to write.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        line::of(self)
    }

    /// Its documents.
    #[must_use]
    pub fn documents(&self) -> Vec<Document> {
        self.documents.iter().map(|kept| Document { file: kept.file.clone(), bytes: kept.text.clone().into_bytes() }).collect()
    }

    /// Its signature, where it had one.
    #[must_use]
    pub fn seal(&self) -> Option<Seal> {
        let list = self.list.as_ref().map(|list| list.clone().into_bytes());
        Some(Seal { signature: self.signature.clone()?.into_bytes(), list })
    }

    /// What its references hold: CAs as they were. A client certificate has to fit its key, which is where it always was: it is the one
    /// that is `found` there, and else the one that was kept.
    #[must_use]
    pub fn materials(&self, references: &[Reference], mut found: Materials) -> Materials {
        for reference in references.iter().filter(|reference| reference.holds.is_public()) {
            let gone = !matches!(found.get(&reference.written), Some(Ok(_)));
            if (reference.holds == Holds::Ca || gone)
                && let Some(bytes) = self.materials.get(&reference.written).and_then(|text| base64_decode(text))
            {
                found.insert(reference.written.clone(), Ok(bytes));
            }
        }
        found
    }
}

/// Files that were fetched, by the digest of their URL, which may hold a login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    version: u32,
    files: BTreeMap<Digest, File>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct File {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    etag: Option<String>,
    /// In base64.
    content: String,
}

impl Default for Fetched {
    fn default() -> Self {
        Self::new()
    }
}

impl Fetched {
    /// Nothing.
    #[must_use]
    pub fn new() -> Self {
        Self { version: VERSION, files: BTreeMap::new() }
    }

    /// Reads what [`Fetched::to_json`] has written; what cannot be read is fetched once more.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Self {
        serde_json::from_slice::<Self>(bytes).ok().filter(|fetched| fetched.version == VERSION).unwrap_or_default()
    }

    /// The bytes to write.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        line::of(self)
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// The file of a URL (host and target) and its tag, where it had one.
    #[must_use]
    pub fn tagged(&self, url: &str) -> Option<(&str, Vec<u8>)> {
        let file = self.files.get(&Digest::of(url.as_bytes()))?;
        Some((file.etag.as_deref()?, base64_decode(&file.content)?))
    }

    /// The file of a URL, if it is the one with this digest.
    #[must_use]
    pub fn pinned(&self, url: &str, pin: Digest) -> Option<Vec<u8>> {
        let file = self.files.get(&Digest::of(url.as_bytes()))?;
        base64_decode(&file.content).filter(|bytes| Digest::of(bytes) == pin)
    }

    /// Keeps a file.
    pub fn keep(&mut self, url: &str, bytes: &[u8], etag: Option<&str>) {
        self.files.insert(Digest::of(url.as_bytes()), File { etag: etag.map(str::to_owned), content: base64(bytes) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::Draft;

    const SPEC: &str = "version = 1\nfallback = 'never'\n[[ca]]\nname = 'a'\nfile = 'a.pem'\n[[registry]]\nhost = 'm.example'\nclient_cert = 'c.crt'\n\
                        client_key = 'c.key'\ncredentials = 'login.json'\n";

    #[test]
    fn keeps_what_anybody_may_see() {
        let documents = [Document { file: "spec.toml".into(), bytes: SPEC.into() }];
        let draft = Draft::open_all("spec.toml", &documents).unwrap();
        let found = |version: &str| -> Materials {
            ["a.pem", "c.crt", "c.key", "login.json"].map(|name| (name.to_owned(), Ok(format!("{version} {name}").into_bytes()))).into()
        };
        let seal = Seal { signature: b"s".to_vec(), list: Some(b"l".to_vec()) };
        let kept = LastGood::of("spec.toml", &documents, Some(&seal), draft.references(), &found("old"));
        let json = String::from_utf8(kept.to_json()).unwrap();
        assert!(json.contains(&base64(b"old a.pem")) && json.contains(&base64(b"old c.crt")), "{json}");
        assert!(!json.contains(&base64(b"old c.key")) && !json.contains(&base64(b"old login.json")), "{json}");
        let again = LastGood::from_json(json.as_bytes()).unwrap();
        assert_eq!((&again, again.seal(), again.documents()[0].bytes.as_slice()), (&kept, Some(seal), SPEC.as_bytes()));
        let text = |materials: &Materials, name: &str| materials[name].clone().map(|bytes| String::from_utf8(bytes).unwrap());
        let held = again.materials(draft.references(), found("new"));
        assert_eq!(text(&held, "a.pem"), Ok("old a.pem".into()));
        assert_eq!(text(&held, "c.crt"), Ok("new c.crt".into()), "it has to fit the key");
        let gone = ["a.pem", "c.crt", "c.key"].map(|name| (name.to_owned(), Err("gone".to_owned()))).into();
        let held = again.materials(draft.references(), gone);
        assert_eq!((text(&held, "c.crt"), text(&held, "c.key")), (Ok("old c.crt".into()), Err("gone".into())));
        assert_eq!(LastGood::from_json(b"{\"version\":2}"), Err(KeptError::TooNew(2)));
        assert!(matches!(LastGood::from_json(b"{\"version\":1}"), Err(KeptError::Malformed(_))));
    }

    #[test]
    fn what_was_fetched() {
        let mut fetched = Fetched::new();
        fetched.keep("h/a?sig=s3cret", b"content", Some("\"1\""));
        fetched.keep("h/b", b"other", None);
        let json = fetched.to_json();
        assert!(!String::from_utf8(json.clone()).unwrap().contains("s3cret"));
        let again = Fetched::from_json(&json);
        assert_eq!(again, fetched);
        assert_eq!(again.tagged("h/a?sig=s3cret"), Some(("\"1\"", b"content".to_vec())));
        assert_eq!(again.tagged("h/b"), None);
        assert_eq!(again.pinned("h/b", Digest::of(b"other")), Some(b"other".to_vec()));
        assert_eq!(again.pinned("h/b", Digest::of(b"another")), None);
        for bad in ["", "[]", "{\"version\":2,\"files\":{}}"] {
            assert!(Fetched::from_json(bad.as_bytes()).is_empty(), "{bad}");
        }
    }
}
