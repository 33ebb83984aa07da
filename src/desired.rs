//! What the node should hold: one part per target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::format::{KeyEdit, KeyFormat, auth_json};
use crate::ledger::Ledger;
use crate::model::content::Content;
use crate::model::path::NodePath;
use crate::model::pause::Stays;
use crate::model::problem::{Problem, Severity};
use crate::model::secret::Secret;
use crate::model::tree::{Entry, Tree};
use crate::plan::hold::{Held, KEPT_BACK, Unready, hold};
use crate::runtime::{Dialect, FoundRuntime, Runtime, containerd, containers};
use crate::spec::Spec;
use crate::spec::adopt::Adopted;
use crate::spec::express::{Subject, gaps};
use crate::trust;

/// The unit of failure: what one target cannot do leaves that target untouched, and the others go on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    /// One containerd, by its configuration file.
    Containerd(NodePath),
    /// The containers/image family: registries.conf, certs.d, auth file, as read by CRI-O and Podman.
    Containers,
    /// CRI-O's own configuration (pause image).
    Crio,
    /// The OS trust store.
    Trust,
}

impl Target {
    /// The file under which the ledger keeps what is carried over for it.
    #[must_use]
    pub fn adopts_from(&self) -> Option<NodePath> {
        match self {
            Self::Containerd(config) => Some(config.clone()),
            Self::Containers => Some(containers::adopted_from()),
            Self::Crio | Self::Trust => None,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Containerd(config) if config.as_str() == "/etc/containerd/config.toml" => f.write_str("containerd"),
            Self::Containerd(config) => write!(f, "containerd ({config})"),
            Self::Containers => f.write_str("containers"),
            Self::Crio => f.write_str("crio"),
            Self::Trust => f.write_str("trust store"),
        }
    }
}

/// Everything that the node should hold.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// One per target on the node.
    pub parts: Vec<Part>,
}

/// What the node should hold under `spec`: a part for the trust store, and for each target of the runtimes that are to be
/// configured. What one of them cannot express is refused there, and only there; `unready` is what single targets keep back.
#[must_use]
pub fn desired(spec: &Spec, tree: &Tree, found: &[FoundRuntime], ledger: &Ledger, foreign: Foreign, unready: &Unready) -> Desired {
    let anchors = trust::want(spec, &trust::family(tree), tree);
    let concerned =
        !anchors.wants.is_empty() || anchors.refused.is_some() || ledger.owned.values().any(|owned| owned.target == Target::Trust);
    let mut parts: Vec<Part> = concerned.then_some(anchors).into_iter().collect();
    let family: Vec<&FoundRuntime> = found.iter().filter(|found| found.runtime != Runtime::Containerd).collect();
    if let Some(first) = family.first() {
        // one file for both: where they are to differ, the table says so
        let own = spec.for_runtime(first.runtime);
        let held = Holding::of(&own, &Target::Containers, tree, &family, unready);
        let own = held.counts(&own);
        let known = containers::Known { owned: &ledger.owned, adopted: ledger.adopted.get(&containers::adopted_from()), foreign };
        let more = containers::want_knowing(own, &family, tree, known);
        parts.extend(more.into_iter().map(|part| held.tell(part.counting(own, spec))));
    }
    let own = spec.for_runtime(Runtime::Containerd);
    for on in found.iter().filter(|found| found.runtime == Runtime::Containerd) {
        let dialects: Vec<_> = on.dialects(tree).into_iter().filter_map(Dialect::containerd).collect();
        let known =
            containerd::Known { adopted: ledger.adopted.get(&on.config), owned: Some(&ledger.owned), dirs: Some(&ledger.dirs), foreign };
        let held = Holding::of(&own, &Target::Containerd(on.config.clone()), tree, &[on], unready);
        let own = held.counts(&own);
        parts.push(held.tell(containerd::want_knowing(own, on, tree, &dialects, known).counting(own, spec)));
    }
    for part in &mut parts {
        express(spec, found, tree, part);
    }
    if let Some(problem) = trust::by_api(tree) {
        parts = parts.into_iter().map(|part| part.refuse(Refusal::Cannot(vec![problem.clone()]))).collect();
    }
    Desired { parts }
}

/// What one target keeps back.
struct Holding(Result<Option<Held>, Vec<Problem>>);

impl Holding {
    fn of(own: &Spec, target: &Target, tree: &Tree, readers: &[&FoundRuntime], unready: &Unready) -> Self {
        Self(unready.get(target).map_or(Ok(None), |silent| hold(own, silent, tree, readers)))
    }

    /// The spec that counts.
    fn counts<'a>(&'a self, own: &'a Spec) -> &'a Spec {
        match &self.0 {
            Ok(Some(held)) => &held.spec,
            Ok(None) | Err(_) => own,
        }
    }

    /// Says so in the part that is concerned; where what is there cannot be kept beside the rest, all of it stays.
    fn tell(&self, mut part: Part) -> Part {
        match &self.0 {
            _ if part.target == Target::Crio || part.refused.is_some() => part,
            Ok(None) => part,
            Ok(Some(held)) => {
                part.notes.extend(held.told.iter().cloned());
                part
            }
            Err(problems) => part.refuse(Refusal::Cannot(problems.clone())),
        }
    }
}

/// Adds what the expressibility table says of a part's runtimes: refusals stop it, approximations are noted.
fn express(spec: &Spec, found: &[FoundRuntime], tree: &Tree, part: &mut Part) {
    let mut refused = Vec::new();
    let there: Vec<Runtime> = found.iter().map(|found| found.runtime).collect();
    for reader in crate::plan::whole::readers(&part.target, found) {
        // CRI-O's own configuration holds no mirrors
        if part.target == Target::Crio {
            continue;
        }
        // containers/image's room tells more of ports than the table does
        let gaps = gaps(spec, reader.runtime, &there, &reader.dialects(tree));
        for gap in gaps.into_iter().filter(|gap| gap.row.subject != Subject::PortlessSource) {
            let list = if gap.problem.severity == Severity::Error { &mut refused } else { &mut part.notes };
            if !list.contains(&gap.problem) {
                list.push(gap.problem);
            }
        }
    }
    if !refused.is_empty() && part.refused.is_none() {
        part.wants.clear();
        part.refused = Some(Refusal::Cannot(refused));
    }
}

/// What one target should hold.
#[derive(Clone, Debug)]
pub struct Part {
    /// Which.
    pub target: Target,
    /// Path → what should be there.
    pub wants: BTreeMap<NodePath, Want>,
    /// Warnings and notes that do not stop it.
    pub notes: Vec<Problem>,
    /// Why this target is left untouched.
    pub refused: Option<Refusal>,
    /// What is carried over from settings that were there before nodeprep; the ledger keeps it.
    pub adopted: Adopted,
    /// The spec as it counts here, where something is carried over or is for single runtimes; else the one that was given.
    pub spec: Option<Arc<Spec>>,
    /// The node as it would be read if its configuration did not contradict itself, where it does.
    pub was: Option<Tree>,
    /// What no diff of this part may show, beside what the spec knows.
    pub secrets: Vec<Secret>,
    /// Paths that stay as they are, because they are paused.
    pub left: BTreeSet<NodePath>,
}

impl Part {
    /// A part without wishes.
    #[must_use]
    pub fn new(target: Target) -> Self {
        Self {
            target,
            wants: BTreeMap::new(),
            notes: Vec::new(),
            refused: None,
            adopted: Adopted::default(),
            spec: None,
            was: None,
            secrets: Vec::new(),
            left: BTreeSet::new(),
        }
    }

    /// Leaves alone what is paused. The store of CAs is one bundle: where something of it is not as it should be and has to stay so, all of
    /// it stays.
    pub fn leave(&mut self, stays: &Stays, tree: &Tree, ledger: &Ledger) {
        if self.refused.is_some() || *stays == Stays::Nothing {
            return;
        }
        let owned = ledger.owned.iter().filter(|(_, owned)| owned.target == self.target).map(|(path, _)| path);
        self.left = self.wants.keys().chain(owned).filter(|path| stays.covers(path)).cloned().collect();
        let differs = |path: &&NodePath| match self.wants.get(*path) {
            Some(Want::Whole(whole)) => match tree.real_parent(path).as_ref().and_then(|real| tree.entry(real)) {
                Some(Entry::File { bytes, meta }) => **bytes != *whole.content.bytes || meta.mode != whole.mode,
                _ => true,
            },
            Some(Want::Keys(keys)) => !keys.edits.is_empty(),
            Some(Want::Gone(_)) | None => tree.exists(path),
        };
        let other: Vec<NodePath> = self.left.iter().filter(differs).cloned().collect();
        self.wants.retain(|path, _| !self.left.contains(path));
        if other.is_empty() {
            return;
        }
        let paths = listed(&other);
        if self.target == Target::Trust {
            let what = format!(
                "the trust store stays as it is, because it is one bundle and what of it is not as the spec says is paused: {paths}"
            );
            self.wants.clear();
            self.refused = Some(Refusal::Cannot(vec![Problem::error(PAUSED, what, "run `nodeprep resume` to let it go on")]));
        } else {
            let what = format!("not as the spec says, and left alone because it is paused: {paths}");
            self.notes.push(Problem::warning(PAUSED, what, "run `nodeprep resume` when it is no longer needed"));
        }
    }

    /// That something is left alone, for a part that cannot be proved with it.
    #[must_use]
    pub fn in_the_way(&self) -> Option<Problem> {
        let left: Vec<NodePath> = self.left.iter().cloned().collect();
        (!left.is_empty()).then(|| {
            let what = format!("these are paused, and nothing else of it can be changed without them: {}", listed(&left));
            Problem::error(PAUSED, what, "run `nodeprep resume`, or bring them nearer to the spec by hand")
        })
    }

    /// The same part; `own` is what counts here of the spec that was given, unless the part knows better.
    fn counting(mut self, own: &Spec, given: &Spec) -> Self {
        if self.spec.is_none() && !std::ptr::eq(own, given) {
            self.spec = Some(Arc::new(own.clone()));
        }
        self
    }

    /// Takes note of what is carried over, and of the spec that counts because of it.
    pub fn carries(&mut self, adopted: Adopted, counts: &Spec) {
        let logins = adopted.hosts.values().filter_map(|how| how.login.as_ref()).flat_map(auth_json::forms);
        self.secrets = logins.chain(adopted.secrets()).collect();
        if !adopted.is_empty() {
            self.spec = Some(Arc::new(counts.clone()));
        }
        self.adopted = adopted;
    }

    /// Whether something of the spec is kept back here.
    #[must_use]
    pub fn keeps_back(&self) -> bool {
        self.notes.iter().any(|note| note.code == KEPT_BACK)
    }

    /// The same part, left untouched for this reason.
    #[must_use]
    pub fn refuse(mut self, refusal: Refusal) -> Self {
        self.wants.clear();
        self.refused = Some(refusal);
        self
    }
}

/// The code of what is left alone because it is paused.
pub const PAUSED: &str = "paused";

/// A few of them, and how many more there are.
fn listed(paths: &[NodePath]) -> String {
    const MOST: usize = 5;
    let named: Vec<&str> = paths.iter().take(MOST).map(NodePath::as_str).collect();
    let more = if paths.len() > MOST { format!(" and {} more", paths.len() - MOST) } else { String::new() };
    format!("{}{more}", named.join(", "))
}

/// Why a target is left untouched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The runtime or the node cannot do what the spec wants (exit 4).
    Cannot(Vec<Problem>),
    /// Somebody else's configuration is in the way (exit 5).
    Conflict(Vec<Problem>),
}

/// What is done with somebody else's configuration in the place of ours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Foreign {
    /// The target is refused, with a list of what would be lost.
    #[default]
    Refuse,
    /// It is replaced; the ledger keeps it.
    Replace,
    /// What the spec leaves open of it is carried over ([`Part::adopted`]), the rest is replaced; what cannot be carried over
    /// refuses the target.
    Carry,
}

/// What should stand at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Want {
    /// A file that is wholly ours.
    Whole(Whole),
    /// Single keys of somebody else's file.
    Keys(Keys),
    /// Nothing: somebody else's file there is taken away, for this reason. The ledger keeps it.
    Gone(String),
}

/// A file that is wholly ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its content.
    pub content: Content,
    /// Permission bits: 0600 wherever the content holds secrets.
    pub mode: u32,
    /// Its name is made from its content and nothing reads it before another file names it: may be written early.
    pub addressed: bool,
    /// The folder that appears as a whole with all its files (a registry's folder), when there is one.
    pub unit: Option<NodePath>,
    /// Where its temporary file may stand: a folder that no runtime or trust tool scans, preferably on the same file system.
    pub stage: NodePath,
    /// Why, in the words of `plan`.
    pub why: String,
}

/// Single keys of somebody else's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// How the file is written.
    pub format: KeyFormat,
    /// Every key that the spec asks for in this file, changed or not: one that the ledger has and this has not is undone.
    pub wanted: Vec<Vec<String>>,
    /// The keys that change, against what is on the node now; empty when all is as wanted.
    pub edits: Vec<KeyEdit>,
    /// The whole file afterwards.
    pub content: Content,
    /// Permission bits when the file does not exist yet.
    pub mode: u32,
    /// As in [`Whole`].
    pub stage: NodePath,
    /// Why, in the words of `plan`.
    pub why: String,
}
