//! The one flow behind every subcommand: what to read, and from what was read to the plan. Pure.

use std::collections::BTreeMap;

use crate::desired::{Part, Refusal, Target, desired};
use crate::ledger::{Asked, Ledger};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::pause::Stays;
use crate::model::problem::{Problem, Severity};
use crate::model::snapshot::{Probes, Snapshot};
use crate::model::tree::{Entry, Tree};
use crate::plan::build::{Foreign, Now};
use crate::plan::hold::Unready;
use crate::plan::whole::{Planned, plan, readers};
use crate::runtime::containerd::tokens::{self, Answers};
use crate::runtime::{Dialect, FoundRuntime, Presence, Runtime, Wish, containerd, facts};
use crate::spec::Spec;

/// Where nodeprep keeps its own state on the node.
pub const STATE: &str = "/var/lib/nodeprep";

/// Everything that is to be read from the node, as far as it is known from what was read already; `named` are runtimes that
/// the command line names.
#[must_use]
pub fn wishes(tree: &Tree, probes: &Probes, ledger: &Ledger, named: &[Runtime]) -> Vec<Wish> {
    let mut wishes = facts::wishes(tree, probes);
    wishes.push(Wish::folder(NodePath::fixed(containerd::PKI), 1));
    wishes.extend(crate::trust::wishes(tree));
    for found in facts::with_named(facts::found(tree, probes), named) {
        wishes.extend(found.wishes(tree));
    }
    // once the folders that they stand in are known, most of these have been read with them
    if tree.iter().next().is_some() {
        wishes.extend(tree.unknown(ledger.owned.keys()).map(|path| Wish::path(path.clone())));
    }
    wishes
}

/// What tells whether Docker's containers live on while it is stopped.
#[must_use]
pub fn docker() -> Vec<Wish> {
    vec![Wish::path(NodePath::fixed(facts::DOCKER))]
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

/// What would be read from a node on which there is nothing at all.
#[must_use]
pub fn bare() -> Snapshot {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    Snapshot { tree, probes: Probes::default() }
}

/// What was looked at apart from the snapshot.
#[derive(Clone, Copy, Debug)]
pub struct Findings<'a> {
    /// What a refresh of the trust store would lose, where that was looked at.
    pub orphans: &'a [Problem],
    /// Which logins registries want, where they were asked.
    pub answers: &'a Answers,
    /// Hosts that do not answer, where sources are kept back for it.
    pub unready: &'a Unready,
    /// Targets whose daemon would not come up.
    pub preflight: &'a [(Target, Problem)],
    /// What is paused.
    pub stays: &'a Stays,
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
    let Findings { orphans, answers, unready, preflight, stays } = findings;
    // a run that was cut off is finished as it was begun, as long as the spec is the same
    let spec_digest = Digest::keyed(&ledger.key, spec.digest.to_string().as_bytes());
    let begun = ledger.open.as_ref().and_then(|open| open.asked.as_ref()).filter(|asked| asked.spec == spec_digest);
    let foreign = match (foreign, begun) {
        (Foreign::Refuse, Some(asked)) => asked.foreign,
        _ => foreign,
    };
    let mut desired = desired(spec, &snapshot.tree, found, ledger, foreign, unready);
    for part in &mut desired.parts {
        let Some(on) = readers(&part.target, found).into_iter().find(|on| on.runtime == Runtime::Containerd) else { continue };
        let dialects: Vec<_> = on.dialects(&snapshot.tree).into_iter().filter_map(Dialect::containerd).collect();
        let own = part.spec.clone();
        let judged = std::mem::replace(part, Part::new(part.target.clone()));
        *part = tokens::judge(judged, own.as_deref().unwrap_or(spec), on, &snapshot.tree, &dialects, answers);
    }
    for (target, problem) in preflight {
        for part in desired.parts.iter_mut().filter(|part| part.target == *target) {
            *part = part.clone().refuse(Refusal::Cannot(vec![problem.clone()]));
        }
    }
    for part in desired.parts.iter_mut().filter(|part| part.target == Target::Trust && !orphans.is_empty()) {
        match foreign {
            Foreign::Refuse => *part = part.clone().refuse(Refusal::Conflict(orphans.to_vec())),
            Foreign::Replace | Foreign::Carry => {
                part.notes.extend(orphans.iter().map(|orphan| Problem { severity: Severity::Warning, ..orphan.clone() }));
            }
        }
    }
    // an image's own first boot can do it later; a running system cannot
    if let Some(problem) = crate::trust::lacks_tool(&snapshot.tree).filter(|_| snapshot.probes.live) {
        let ours = || ledger.owned.iter().filter(|(_, owned)| owned.target == Target::Trust).map(|(path, _)| path);
        for part in desired.parts.iter_mut().filter(|part| part.target == Target::Trust && part.refused.is_none()) {
            if crate::trust::needs_refresh(spec, part, ours(), &snapshot.tree) {
                part.notes.retain(|note| note.code != problem.code);
                *part = part.clone().refuse(Refusal::Cannot(vec![problem.clone()]));
            }
        }
    }
    for part in &mut desired.parts {
        part.leave(stays, &snapshot.tree, ledger);
    }
    let mut planned = plan(spec, desired, found, Now { tree: &snapshot.tree, ledger, blobs, foreign, live: snapshot.probes.live });
    try_bundle(&mut planned, snapshot);
    planned.plan.asked = (foreign != Foreign::Refuse).then_some(Asked { spec: spec_digest, foreign });
    planned
}

/// Has the folder of the bundle tried before the first byte where the trust store is to be refreshed. Where the command may not be
/// run at all, it is due, and nothing is to be written there now.
pub fn try_bundle(planned: &mut Planned, snapshot: &Snapshot) {
    if snapshot.probes.live && planned.refreshes() {
        planned.plan.written.extend(crate::trust::family(&snapshot.tree).ok().and_then(|family| NodePath::fixed(family.bundle).parent()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    /// An image's first boot refreshes the store; a running node without the command never would.
    #[test]
    fn a_missing_command_stops_the_trust_store_of_a_running_node_only() {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        let document = format!(
            "version = 1\nfallback = \"never\"\n[[ca]]\nname = \"one\"\npem = \"\"\"\n{pem}\"\"\"\n\
             [[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n"
        );
        let draft = crate::spec::load::Draft::open("spec.toml", document.as_bytes()).unwrap();
        let spec = draft.close(&BTreeMap::new(), None).spec.unwrap();
        let tried = std::cell::Cell::new(0);
        let trust = |live, files: &[(&'static str, &str)]| {
            let mut tree = Tree::default();
            tree.insert(NodePath::root(), Entry::Dir { listed: true });
            for (path, text) in files {
                tree.put(&NodePath::fixed(path), text.as_bytes(), 0o644);
            }
            let snapshot = Snapshot { tree, probes: Probes { live, ..Probes::default() } };
            let answers = Answers::default();
            let findings = Findings { orphans: &[], answers: &answers, unready: &Unready::new(), preflight: &[], stays: &Stays::Nothing };
            let planned = prepare(&spec, &snapshot, &[], &Ledger::new([7; 32]), &BTreeMap::new(), Foreign::Refuse, findings);
            let written: Vec<String> = planned.plan.written.iter().map(ToString::to_string).collect();
            let part = planned.parts.into_iter().find(|part| part.part.target == Target::Trust).unwrap();
            // the folder of the bundle is tried where the command will be run, and only there
            let runs = live && part.refused.is_none() && !part.activations.is_empty();
            tried.set(tried.get() + usize::from(runs));
            assert_eq!(written, if runs { vec!["/etc/ssl/certs"] } else { vec![] });
            let told = part.part.notes.iter().any(|note| note.code == "trust-tool-missing");
            (matches!(part.refused, Some(Refusal::Cannot(problems)) if problems[0].code == "trust-tool-missing"), told)
        };
        let alpine = ("/etc/os-release", "ID=alpine\n");
        assert_eq!(trust(true, &[alpine]), (true, false));
        assert_eq!(trust(false, &[alpine]), (false, true));
        assert_eq!(trust(true, &[alpine, ("/usr/sbin/update-ca-certificates", "")]), (false, false));
        // an anchor that is still to come needs it, also when the bundle has the certificate; what is there already does not
        let bundle = ("/etc/ssl/certs/ca-certificates.crt", pem.as_str());
        assert_eq!(trust(true, &[alpine, bundle]), (true, false));
        let cert = crate::model::cert::read_pem(pem.as_bytes()).unwrap().certs.remove(0);
        let name = format!("/usr/local/share/ca-certificates/nodeprep-one-{}.crt", &Digest::of(cert.to_pem().as_bytes()).to_string()[..8]);
        let anchor: (&'static str, &str) = (Box::leak(name.into_boxed_str()), &cert.to_pem());
        assert_eq!(trust(true, &[alpine, bundle, anchor]), (false, true));
        assert_eq!(tried.get(), 1);
    }
}
