//! The one flow behind every subcommand: what to read, and from what was read to the plan. Pure.

use std::collections::BTreeMap;

use crate::desired::{Refusal, Target, desired};
use crate::ledger::Ledger;
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::model::snapshot::{Probes, Snapshot};
use crate::model::tree::Tree;
use crate::plan::build::{Foreign, Now};
use crate::plan::whole::{Planned, plan, readers};
use crate::runtime::containerd::tokens::{self, Answers};
use crate::runtime::{Dialect, FoundRuntime, Presence, Runtime, Wish, facts};
use crate::spec::Spec;

/// Where nodeprep keeps its own state on the node.
pub const STATE: &str = "/var/lib/nodeprep";
/// Content-addressed CA and client files that hosts.toml files name.
pub const PKI: &str = "/etc/nodeprep/pki";

/// What the user chose on the command line.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Runtimes to configure although only their configuration folder is there.
    pub named: Vec<Runtime>,
    /// What to do with foreign files.
    pub foreign: Foreign,
}

/// Everything that is to be read from the node, as far as it is known from what was read already; `named` are runtimes that
/// the command line names.
#[must_use]
pub fn wishes(tree: &Tree, probes: &Probes, ledger: &Ledger, named: &[Runtime]) -> Vec<Wish> {
    let mut wishes = facts::wishes(tree, probes);
    wishes.push(Wish::folder(NodePath::fixed(PKI), 1));
    wishes.extend(crate::trust::wishes());
    for found in facts::with_named(facts::found(tree, probes), named) {
        wishes.extend(found.wishes(tree));
    }
    // once the folders that they stand in are known, most of these have been read with them
    if tree.iter().next().is_some() {
        let unread = ledger.owned.keys().filter(|path| tree.entry(path).is_none());
        wishes.extend(unread.map(|path| Wish::path(path.clone())));
    }
    wishes
}

/// Files that may be larger than configuration is: bundles of certificates, the package database.
#[must_use]
pub fn large_files() -> Vec<NodePath> {
    let bundles = crate::trust::family::FAMILIES.iter().map(|family| NodePath::fixed(family.bundle));
    bundles.chain([NodePath::fixed(facts::DPKG_STATUS)]).collect()
}

/// The runtimes that are configured: those that are there, and those that only may be but are named by the spec or on the
/// command line.
#[must_use]
pub fn configured(found: Vec<FoundRuntime>, spec: &Spec, named: &[Runtime]) -> Vec<FoundRuntime> {
    let is_named = |runtime: Runtime| named.contains(&runtime) || spec.runtimes.as_ref().is_some_and(|all| all.contains(&runtime));
    found.into_iter().filter(|found| found.presence == Presence::There || is_named(found.runtime)).collect()
}

/// What was looked at apart from the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// What a refresh of the trust store would lose, where that was looked at.
    pub orphans: &'a [Problem],
    /// Which logins registries want, where they were asked.
    pub answers: &'a Answers,
}

/// From what was read to the plan.
#[must_use]
pub fn prepare(
    spec: &Spec,
    snapshot: &Snapshot,
    found: &[FoundRuntime],
    ledger: &Ledger,
    blobs: &BTreeMap<Digest, Vec<u8>>,
    foreign: Foreign,
    findings: Findings<'_>,
) -> Planned {
    let Findings { orphans, answers } = findings;
    let mut desired = desired(spec, &snapshot.tree, found, ledger);
    for part in &mut desired.parts {
        let Some(on) = readers(&part.target, found).into_iter().find(|on| on.runtime == Runtime::Containerd) else { continue };
        let dialects: Vec<_> = on.dialects(&snapshot.tree).into_iter().filter_map(Dialect::containerd).collect();
        *part = tokens::judge(part.clone(), spec, on, &snapshot.tree, &dialects, answers);
    }
    for part in desired.parts.iter_mut().filter(|part| part.target == Target::Trust && !orphans.is_empty()) {
        match foreign {
            Foreign::Refuse => *part = part.clone().refuse(Refusal::Conflict(orphans.to_vec())),
            Foreign::Replace => {
                part.notes.extend(orphans.iter().map(|orphan| Problem { severity: Severity::Warning, ..orphan.clone() }));
            }
        }
    }
    plan(spec, desired, found, Now { tree: &snapshot.tree, ledger, blobs, foreign, live: snapshot.probes.live })
}
