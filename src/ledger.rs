//! What nodeprep owns on the node and what was there before: pure data, one JSON file, written ahead.
//!
//! Recovery replays nothing. While a run is open ([`Ledger::open`]) every path of it is either as `before` or as `after`:
//! both are ours; anything else is drift. The next run plans anew from what it finds and takes the open activations over.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::desired::Target;
use crate::format::{KeyEdit, KeyFormat};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::Meta;
use crate::plan::Activation;
use crate::spec::adopt::Adopted;

/// The version that this nodeprep writes. Older ones are migrated when read; newer ones are refused.
pub const VERSION: u32 = 1;

/// The ledger of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Format version.
    pub version: u32,
    /// Name of the spec that owns this node.
    #[serde(default)]
    pub spec_name: String,
    /// Key of the keyed digests ([`Stamp`]) of files that hold secrets; random, made once per node.
    pub key: [u8; 32],
    /// Each path that is ours.
    #[serde(default)]
    pub owned: BTreeMap<NodePath, Owned>,
    /// Folders that we made: removed by `revert` and when the last file of ours goes, if empty then.
    #[serde(default)]
    pub dirs: BTreeSet<NodePath>,
    /// Activations that finished runs left to be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<Due>,
    /// What was carried over from settings that we took out, by the file in which they stood.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<NodePath, Adopted>,
    /// What the proof of each target rested on when the ledger was written, by the target's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub proved: BTreeMap<String, Digest>,
    /// The run that has not been proved complete.
    #[serde(default)]
    pub open: Option<Open>,
}

/// An activation that is still to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// What.
    pub what: Activation,
    /// When the change was made: a process that started later has seen it.
    pub since: Time,
}

/// A path that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owned {
    /// For which target.
    pub target: Target,
    /// What we left there.
    pub now: Stamp,
    /// What was there at first contact; what `revert` restores. Set once.
    pub origin: Prior,
    /// Our keys, when the file is only partly ours; empty for whole files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeyEdit>,
    /// The format of `keys`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<KeyFormat>,
    /// Somebody else has changed the file between two runs of ours: `origin` is not all that there is to go back to, so the
    /// way back takes our keys out instead.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shared: bool,
}

/// What we left at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stamp {
    /// Nothing.
    #[serde(rename = "absent")]
    Absent,
    /// A file with this keyed digest and mode.
    #[serde(rename = "file")]
    File {
        /// HMAC-SHA-256 of the content under [`Ledger::key`].
        digest: Digest,
        /// Permission bits.
        mode: u32,
    },
}

/// What was at a path before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Prior {
    /// Nothing.
    Absent,
    /// A file; its content is `blobs/<sha256>`.
    File {
        /// Name of the blob: plain SHA-256 (the folder is 0700).
        blob: Digest,
        /// Owner, mode, labels.
        meta: Meta,
    },
    /// A symbolic link.
    Link {
        /// Its target, as written in it.
        to: String,
        /// Owner and labels.
        meta: Meta,
    },
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Open {
    /// What was at each path before this run; what a rollback restores.
    pub before: BTreeMap<NodePath, Prior>,
    /// What this run leaves there.
    pub after: BTreeMap<NodePath, Stamp>,
    /// Activations still to be done; taken over by the next run.
    #[serde(deserialize_with = "known_activations")]
    pub activations: Vec<Activation>,
    /// When the run began.
    #[serde(default)]
    pub began: Time,
}

/// The first ledgers had these in words, which say nothing that a run could do.
fn known_activations<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Activation>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Known(Activation),
        Words(#[allow(dead_code, reason = "only its form matters")] String),
    }
    let all = Vec::<Either>::deserialize(from)?.into_iter();
    Ok(all.filter_map(|one| if let Either::Known(activation) = one { Some(activation) } else { None }).collect())
}

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Not JSON, or not ours.
    #[error("the ledger {path} cannot be read: {why}")]
    Malformed {
        /// The file.
        path: NodePath,
        /// What is wrong.
        why: String,
    },
    /// Written by a later nodeprep.
    #[error("the ledger {path} has version {found}; this nodeprep knows versions up to {VERSION}")]
    TooNew {
        /// The file.
        path: NodePath,
        /// Its version.
        found: u64,
    },
}

impl Ledger {
    /// An empty ledger with a new key.
    #[must_use]
    pub fn new(key: [u8; 32]) -> Self {
        Self {
            version: VERSION,
            spec_name: String::new(),
            key,
            owned: BTreeMap::new(),
            dirs: BTreeSet::new(),
            due: Vec::new(),
            adopted: BTreeMap::new(),
            proved: BTreeMap::new(),
            open: None,
        }
    }

    /// Reads a ledger.
    ///
    /// # Errors
    /// When it is malformed or too new. Nothing may be changed on the node then: what was there before would be lost.
    pub fn from_json(path: &NodePath, bytes: &[u8]) -> Result<Self, LedgerError> {
        #[derive(Deserialize)]
        struct Head {
            version: u64,
        }
        let malformed = |error: serde_json::Error| LedgerError::Malformed { path: path.clone(), why: error.to_string() };
        match serde_json::from_slice::<Self>(bytes) {
            Ok(ledger) if ledger.version == VERSION => Ok(ledger),
            other => {
                let head: Head = serde_json::from_slice(bytes).map_err(malformed)?;
                if head.version > u64::from(VERSION) {
                    return Err(LedgerError::TooNew { path: path.clone(), found: head.version });
                }
                other.map_err(malformed)
            }
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }

    /// The stamp of a file with this content and mode.
    #[must_use]
    pub fn stamp(&self, bytes: &[u8], mode: u32) -> Stamp {
        Stamp::File { digest: Digest::keyed(&self.key, bytes), mode }
    }

    /// What earlier runs left to be done, those that were cut off included.
    #[must_use]
    pub fn left(&self) -> Vec<Due> {
        let open = self.open.iter().flat_map(|open| open.activations.iter().map(|what| Due { what: what.clone(), since: open.began }));
        self.due.iter().cloned().chain(open).collect()
    }

    /// Names of the blobs that are still needed.
    #[must_use]
    pub fn blobs(&self) -> BTreeSet<Digest> {
        let origins = self.owned.values().map(|owned| &owned.origin);
        let before = self.open.iter().flat_map(|open| open.before.values());
        origins
            .chain(before)
            .filter_map(|prior| match prior {
                Prior::File { blob, .. } => Some(*blob),
                Prior::Absent | Prior::Link { .. } => None,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> NodePath {
        NodePath::fixed("/var/lib/nodeprep/ledger.json")
    }

    /// What the first version wrote stays readable, whatever comes.
    #[test]
    fn reads_version_1() {
        let text = include_str!("../fixtures/ledger/v1/open.json");
        let ledger = Ledger::from_json(&path(), text.as_bytes()).unwrap();
        assert_eq!((ledger.owned.len(), ledger.dirs.len(), ledger.blobs().len()), (3, 2, 1));
        assert_eq!(ledger.open.as_ref().map(|open| open.before.len()), Some(1));
        let origins: Vec<&Prior> = ledger.owned.values().map(|owned| &owned.origin).collect();
        assert!(matches!(origins[..], [Prior::Absent, Prior::File { .. }, Prior::Link { .. }]));
        assert_eq!(Ledger::from_json(&path(), &ledger.to_json()).unwrap(), ledger);
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |text: &str| Ledger::from_json(&path(), text.as_bytes()).unwrap_err().to_string();
        assert!(error(r#"{"version": 2, "news": []}"#).contains("version 2"));
        assert!(error("").contains("cannot be read"));
        assert!(error(r#"{"version": 1}"#).contains("key"));
    }
}
