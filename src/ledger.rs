//! What nodeprep owns on the node and what was there before: pure data, one JSON file, written ahead.
//!
//! Recovery replays nothing. While a run is open ([`Ledger::open`]) every path of it is either as `before` or as `after`:
//! both are ours; anything else is drift. The next run plans anew from what it finds and takes the open activations over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize};

use crate::desired::{Foreign, Target};
use crate::format::{KeyEdit, KeyFormat};
use crate::model::digest::Digest;
use crate::model::line;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::Meta;
use crate::plan::Activation;
use crate::spec::Serial;
use crate::spec::adopt::Adopted;

/// The version that this nodeprep writes. Older ones are migrated when read; newer ones are refused.
///
/// 2 added [`Ledger::spec`]; version 1 knew the name of the spec alone.
pub const VERSION: u32 = 2;

/// The ledger of one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Format version.
    pub version: u32,
    /// What the spec that owns this node said when it was applied last; `None` when nothing is owned, or it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<LastSpec>,
    /// Key of the keyed digests ([`Stamp`]) of files that hold secrets; random, made once per node.
    pub key: [u8; 32],
    /// Each path that is ours.
    #[serde(default, deserialize_with = "in_order")]
    pub owned: Owns,
    /// Folders that we made: removed by `revert` and when the last file of ours goes, if empty then.
    #[serde(default, deserialize_with = "set_in_order")]
    pub dirs: BTreeSet<NodePath>,
    /// Activations that finished runs left to be done.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub due: Vec<Due>,
    /// When a daemon was last told to reload by us and said that it had: its start does not show that.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reloaded: BTreeMap<String, Time>,
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

/// What the spec said that was applied last, as far as the next one is held against it ([`crate::plan::guard`]).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastSpec {
    /// Its `name`.
    pub name: String,
    /// Its `fallback` was `never`.
    #[serde(default)]
    pub never: bool,
    /// Its `unlisted` was `deny`.
    #[serde(default)]
    pub deny: bool,
    /// It said nothing: no mirrors, CAs, registries or pause image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty: bool,
    /// The source of each mirror, and whether it was closed.
    #[serde(default, deserialize_with = "in_order")]
    pub sources: BTreeMap<String, bool>,
    /// Keyed digest of the document and everything that it references; `None` where an earlier nodeprep applied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its `serial`, or the last that one of this name had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
}

/// Path → what is ours there. Plans and later ledgers share the entries that stay as they are.
pub type Owns = BTreeMap<NodePath, Arc<Owned>>;

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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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

impl Prior {
    /// Whether it was a file with this content: who has put that back has added nothing that a way back would lose.
    #[must_use]
    pub fn is(&self, bytes: &[u8]) -> bool {
        matches!(self, Self::File { blob, .. } if *blob == Digest::of(bytes))
    }

    /// Whether both had the same content.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Absent, Self::Absent) => true,
            (Self::File { blob, .. }, Self::File { blob: other, .. }) => blob == other,
            (Self::Link { to, .. }, Self::Link { to: other, .. }) => to == other,
            _ => false,
        }
    }
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Open {
    /// What was at each path before this run; what a rollback restores.
    pub before: BTreeMap<NodePath, Prior>,
    /// What this run leaves there.
    pub after: BTreeMap<NodePath, Stamp>,
    /// What runs that were cut off left there before this one began: ours, and nothing to go back to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub between: BTreeMap<NodePath, BTreeSet<Stamp>>,
    /// Activations still to be done; taken over by the next run.
    pub activations: Vec<Activation>,
    /// When the run began.
    #[serde(default)]
    pub began: Time,
    /// What it was asked to do with what others have written: whoever runs the same spec again finishes that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// Which units it turns and proves; `None` where nobody was going to: what the files say is then all that there is to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<Attempt>,
    /// What else the ledger said before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub was: Option<Was>,
}

/// What a run turns units for: enough to know it again when it comes a second time.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Attempt {
    /// Digest of the spec; `None` when there is none (`revert`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<Digest>,
    /// Each unit, and the version of its runtime on disk; empty where that is not known.
    pub units: BTreeMap<String, String>,
}

/// What the ledger said before a run and cannot be told from files.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Was {
    /// [`Ledger::spec`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<LastSpec>,
    /// [`Ledger::adopted`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub adopted: BTreeMap<NodePath, Adopted>,
}

/// What a run was asked to do with what others have written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// Keyed digest of the spec's.
    pub spec: Digest,
    /// What.
    pub foreign: Foreign,
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
            spec: None,
            key,
            owned: Owns::new(),
            dirs: BTreeSet::new(),
            due: Vec::new(),
            reloaded: BTreeMap::new(),
            adopted: BTreeMap::new(),
            proved: BTreeMap::new(),
            open: None,
        }
    }

    /// Reads a ledger, of whatever version up to this one.
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
                match head.version {
                    0 => Err(LedgerError::Malformed { path: path.clone(), why: "no ledger has version 0".to_owned() }),
                    1 => other.and_then(|ledger| from_version_1(ledger, bytes)).map_err(malformed),
                    found if found > u64::from(VERSION) => Err(LedgerError::TooNew { path: path.clone(), found }),
                    _ => other.map_err(malformed),
                }
            }
        }
    }

    /// The bytes to write.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        line::of(self)
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
            .gathered()
    }
}

/// A map with many entries, which are written in order: as a whole it is made from them without looking for the place of each.
fn in_order<'de, D, K, V>(from: D) -> Result<BTreeMap<K, V>, D::Error>
where
    D: Deserializer<'de>,
    K: Deserialize<'de> + Ord,
    V: Deserialize<'de>,
{
    struct Entries<K, V>(PhantomData<(K, V)>);
    impl<'de, K: Deserialize<'de> + Ord, V: Deserialize<'de>> Visitor<'de> for Entries<K, V> {
        type Value = BTreeMap<K, V>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut entries = Vec::new();
            while let Some(entry) = map.next_entry()? {
                entries.push(entry);
            }
            Ok(entries.into_iter().collect())
        }
    }
    from.deserialize_map(Entries(PhantomData))
}

/// The same for a set.
fn set_in_order<'de, D: Deserializer<'de>, T: Deserialize<'de> + Ord>(from: D) -> Result<BTreeSet<T>, D::Error> {
    Ok(Vec::deserialize(from)?.into_iter().collect())
}

/// Version 1 is this one but for what it knew of the spec: its name, empty when it had none.
fn from_version_1(ledger: Ledger, bytes: &[u8]) -> serde_json::Result<Ledger> {
    #[derive(Deserialize)]
    struct First {
        #[serde(default)]
        spec_name: String,
    }
    let First { spec_name: name } = serde_json::from_slice(bytes)?;
    let spec = (!name.is_empty()).then(|| LastSpec { name, ..LastSpec::default() });
    Ok(Ledger { version: VERSION, spec, ..ledger })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> NodePath {
        NodePath::fixed("/var/lib/nodeprep/ledger.json")
    }

    /// What an earlier version wrote stays readable, whatever comes.
    #[test]
    fn reads_every_version() {
        let first = include_str!("../fixtures/ledger/v1/open.json");
        let second = include_str!("../fixtures/ledger/v2/open.json");
        let [from_first, from_second] = [first, second].map(|text| Ledger::from_json(&path(), text.as_bytes()).unwrap());
        assert_eq!(from_first.spec, Some(LastSpec { name: "fleet".to_owned(), ..LastSpec::default() }));
        let sources = BTreeMap::from([("docker.io".to_owned(), true), ("quay.io".to_owned(), false)]);
        assert_eq!(from_second.spec, Some(LastSpec { name: "fleet".to_owned(), sources, ..LastSpec::default() }));
        // the rest is the same in both
        assert_eq!(Ledger { spec: from_second.spec.clone(), ..from_first.clone() }, from_second);
        for ledger in [from_first, from_second] {
            assert_eq!((ledger.owned.len(), ledger.dirs.len(), ledger.blobs().len()), (3, 2, 1));
            assert_eq!(ledger.open.as_ref().map(|open| (open.before.len(), open.activations.len())), Some((1, 1)));
            let origins: Vec<&Prior> = ledger.owned.values().map(|owned| &owned.origin).collect();
            assert!(matches!(origins[..], [Prior::Absent, Prior::File { .. }, Prior::Link { .. }]));
            assert_eq!(Ledger::from_json(&path(), &ledger.to_json()).unwrap(), ledger);
            assert!(String::from_utf8(ledger.to_json()).unwrap().starts_with("{\"version\":2,"));
        }
        let unnamed = first.replacen("\"fleet\"", "\"\"", 1);
        assert_eq!(Ledger::from_json(&path(), unnamed.as_bytes()).unwrap().spec, None);
    }

    /// What an open run was for came later: an earlier ledger has nothing of it.
    #[test]
    fn an_open_run_says_what_it_was_for() {
        let mut ledger = Ledger::from_json(&path(), include_bytes!("../fixtures/ledger/v2/open.json")).unwrap();
        let open = ledger.open.as_mut().unwrap();
        assert_eq!((&open.attempt, &open.was), (&None, &None));
        let units = BTreeMap::from([("containerd.service".to_owned(), "1.6.20".to_owned())]);
        open.attempt = Some(Attempt { spec: Some(Digest::of(b"spec")), units });
        open.was = Some(Was { spec: ledger.spec.clone(), adopted: BTreeMap::new() });
        assert_eq!(Ledger::from_json(&path(), &ledger.to_json()).unwrap(), ledger);
    }

    /// They are written in order, but somebody may have put the file through another program.
    #[test]
    fn reads_entries_in_any_order() {
        let map = |text: &str| in_order::<_, NodePath, u8>(&mut serde_json::Deserializer::from_str(text)).unwrap();
        let (a, b) = (NodePath::fixed("/a"), NodePath::fixed("/b"));
        for text in [r#"{"/a":1,"/b":2}"#, r#"{"/b":2,"/a":1}"#, r#"{"/b":3,"/a":1,"/b":2}"#] {
            assert_eq!(map(text), BTreeMap::from([(a.clone(), 1), (b.clone(), 2)]), "{text}");
        }
        let set = |text: &str| set_in_order::<_, NodePath>(&mut serde_json::Deserializer::from_str(text)).unwrap();
        assert_eq!(set(r#"["/b","/a","/b"]"#), BTreeSet::from([a, b]));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let error = |text: &str| Ledger::from_json(&path(), text.as_bytes()).unwrap_err().to_string();
        assert!(error(r#"{"version": 3, "news": []}"#).contains("version 3"));
        assert!(error("").contains("cannot be read"));
        assert!(error(r#"{"version": 0}"#).contains("version 0"));
        assert!(error(r#"{"version": 1}"#).contains("key"));
        assert!(error(r#"{"version": 2}"#).contains("key"));
    }
}
