//! The OS trust store, by family of distributions.
//!
//! What lives here: a constant table of families ([`family::FAMILIES`]), which one a node belongs to ([`family()`]), the
//! anchor files that a spec wants ([`want`]), and what shows that they arrived ([`missing`]). What must not: effects (running
//! the command is the node's), any runtime's knowledge. Facts: `runtime-semantics.md` section 6; where each family's rules come
//! from stands in `fixtures/trust/*/rules.txt`.
//!
//! Exit codes of the stores' commands prove nothing anywhere: only fingerprints in the bundle file do.

pub mod backing;
pub mod family;
mod told;

use std::collections::BTreeSet;

pub use family::{CertsPerFile, Family, Reads};
pub use told::{by_api, family, markdown as refused_markdown};

use crate::desired::{Part, Refusal, Target, Want, Whole};
use crate::model::cert::{Cert, fingerprints};
use crate::model::content::Content;
use crate::model::digest::{Digest, Fingerprint};
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;
use crate::spec::{Ca, Scope, Spec};

/// What has to be in the tree before [`family()`], [`want`] and [`missing`] can answer, as far as `tree` tells by now.
#[must_use]
pub fn wishes(tree: &Tree) -> Vec<Wish> {
    let mut wishes = told::wishes(tree);
    if let Ok(family) = family(tree) {
        wishes.push(Wish::folder(NodePath::fixed(family.anchor_dir), 1));
        wishes.push(Wish::path(NodePath::fixed(family.bundle)));
        wishes.extend(family.tools.iter().map(|tool| Wish::path(NodePath::fixed(tool))));
    }
    wishes
}

/// The anchor files for the spec's CAs with `trust = "system"`. A node of an unknown family is left alone: the part says why.
#[must_use]
pub fn want(spec: &Spec, family: &Result<&'static Family, Problem>, tree: &Tree) -> Part {
    let mut part = Part::new(Target::Trust);
    let wanted = system(spec);
    if wanted.is_empty() {
        return part;
    }
    let family = match family {
        Ok(family) => family,
        Err(problem) => return part.refuse(Refusal::Cannot(vec![problem.clone()])),
    };
    let dir = NodePath::fixed(family.anchor_dir);
    if let Found::File(..) | Found::Unreadable(_) = tree.find(&dir) {
        let what = format!("{dir}, where {} keeps its trust anchors, is no folder that can be read", family.name);
        return part.refuse(Refusal::Cannot(vec![Problem::error("anchor-folder", what, format!("make {dir} a folder"))]));
    }
    if !has_tool(family, tree) {
        part.notes.push(Problem { severity: Severity::Warning, ..no_tool(family) });
    }
    part.notes.extend(glued(family, &dir, tree));
    for (ca, certs) in wanted {
        for cert in certs.iter().filter(|cert| !family.exports(cert)) {
            let what =
                format!("{} ({}) has no CA flag, and {} leaves such certificates out of its bundle", ca.name, cert.subject, family.name);
            let help = "use the CA that issued it where other programs need it; the spec's registries have it in CA files of their own, \
                        where it works without the flag";
            part.notes.push(Problem::warning("ca-not-exported", what, help).at(ca.at.clone()));
        }
        let files: Vec<&[&Cert]> = match family.certs_per_file {
            CertsPerFile::One => certs.chunks(1).collect(),
            CertsPerFile::Many => vec![&certs],
        };
        for file in files {
            let pem: String = file.iter().map(|cert| cert.to_pem()).collect();
            let name = format!("nodeprep-{}-{}{}", sanitized(&ca.name), &Digest::of(pem.as_bytes()).to_string()[..8], family.ending);
            let whole = Whole {
                content: Content::public(pem),
                mode: 0o644,
                // the folder is read by the refresh only, but by anybody's: it is not "named by another file"
                addressed: false,
                unit: None,
                stage: NodePath::fixed(family.stage_dir),
                why: format!("CA {} for the OS trust store", ca.name),
            };
            part.wants.insert(dir.join(&name), Want::Whole(whole));
        }
    }
    part
}

/// Why nothing can be done on a running node: the command is not there.
#[must_use]
pub fn lacks_tool(tree: &Tree) -> Option<Problem> {
    let family = family(tree).ok()?;
    (!has_tool(family, tree)).then(|| no_tool(family))
}

/// Whether a refresh will be needed: anchors come, change or go (`ours` are those that are there),
/// or the bundle lacks some.
#[must_use]
pub fn needs_refresh<'a>(spec: &Spec, part: &Part, mut ours: impl Iterator<Item = &'a NodePath>, tree: &Tree) -> bool {
    let as_wanted = |(path, want): (&NodePath, &Want)| matches!(want, Want::Whole(whole) if tree.bytes(path) == Some(&whole.content.bytes));
    let lacks = family(tree).is_ok_and(|family| !missing(spec, family, tree).is_empty());
    lacks || !part.wants.iter().all(as_wanted) || ours.any(|path| !part.wants.contains_key(path))
}

fn has_tool(family: &Family, tree: &Tree) -> bool {
    family.tools.iter().any(|tool| tree.find(&NodePath::fixed(tool)) != Found::Absent)
}

fn no_tool(family: &Family) -> Problem {
    let what = format!("{} is not installed, so new anchors do not reach {}", family.refresh[0], family.bundle);
    Problem::error("trust-tool-missing", what, format!("install the package {}", family.package))
}

/// Files of others that Alpine's command glues to the next one: without a newline at their end neither is read.
fn glued(family: &Family, dir: &NodePath, tree: &Tree) -> Vec<Problem> {
    if family.reads != Reads::Visible {
        return Vec::new();
    }
    let files = tree.names(dir).into_iter().filter(|name| family.takes(name)).map(|name| dir.join(&name));
    let open = files.filter(|path| tree.bytes(path).is_some_and(|bytes| bytes.last().is_some_and(|last| *last != b'\n')));
    open.map(|path| {
        let what =
            format!("{path} does not end with a newline, and {} puts the next file right behind it: both are lost", family.refresh[0]);
        Problem::warning("anchor-glued", what, format!("add a newline to the end of {path}")).at(Place::file(path.as_str()))
    })
    .collect()
}

/// CAs for the system, each with its certificates; one that stands in several is taken once.
pub(crate) fn system(spec: &Spec) -> Vec<(&Ca, Vec<&Cert>)> {
    let mut seen = BTreeSet::new();
    let mut new = |ca: &'_ Ca| ca.certs.iter().map(|cert| seen.insert(cert.fingerprint)).collect::<Vec<_>>();
    let cas = spec.cas.iter().filter(|ca| ca.scope == Scope::System);
    let each = cas.map(|ca| (ca, ca.certs.iter().zip(new(ca)).filter_map(|(cert, new)| new.then_some(cert)).collect::<Vec<_>>()));
    each.filter(|(_, certs)| !certs.is_empty()).collect()
}

/// Letters, digits, dashes and dots: Debian rewrites other characters in the names of its links.
fn sanitized(name: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c.to_ascii_lowercase() } else { '-' };
    let name: String = name.chars().map(clean).take(64).collect();
    name.trim_matches(['-', '.']).to_owned()
}

/// The fingerprints of the spec's system CAs that the bundle file does not hold: empty when a refresh has done its work. Those
/// that the family leaves out by its own rules are not counted; [`want`] has warned of them.
#[must_use]
pub fn missing(spec: &Spec, family: &Family, tree: &Tree) -> Vec<Fingerprint> {
    let there = tree.bytes(&NodePath::fixed(family.bundle)).map(fingerprints).unwrap_or_default();
    let wanted = system(spec).into_iter().flat_map(|(_, certs)| certs).filter(|cert| family.exports(cert));
    wanted.map(|cert| cert.fingerprint).filter(|fingerprint| !there.contains(fingerprint)).collect()
}
