//! Whether the anchors of the spec arrived: what counts is the fingerprint in the bundle. Pure.

use std::collections::BTreeSet;

use super::{Check, Outcome, check};
use crate::model::cert::fingerprints;
use crate::model::digest::Fingerprint;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::Tree;
use crate::spec::{Ca, Scope, Spec};
use crate::trust::{self, Family};

/// Each CA for the OS trust store, held against the bundle. `due`: the store of this root is refreshed by the node's own first
/// run, and the ledger says so; what is missing until then is no failure.
///
/// A CA of which the distribution's own rules leave everything out of the bundle is not looked for: the plan has warned of it.
#[must_use]
pub fn anchors(spec: &Spec, tree: &Tree, due: bool) -> Vec<Check> {
    let wanted: Vec<&Ca> = spec.cas.iter().filter(|ca| ca.scope == Scope::System).collect();
    if wanted.is_empty() {
        return Vec::new();
    }
    let family = match trust::family(tree) {
        Ok(family) => family,
        Err(Problem { what, help, .. }) => return vec![check(Outcome::CouldNotRun, ID, "OS trust store".into(), what, &help)],
    };
    let missing = trust::missing(spec, family, tree);
    let placed = placed(family, tree);
    let of = |ca: &Ca| {
        ca.certs.iter().find(|cert| family.exports(cert))?;
        let lacking = ca.certs.iter().find(|cert| missing.contains(&cert.fingerprint));
        let subject = format!("{} in {}", ca.name, family.bundle);
        let command = family.refresh.join(" ");
        Some(match lacking {
            None => check(Outcome::Ok, ID, subject, String::new(), ""),
            Some(cert) if due && placed.contains(&cert.fingerprint) => {
                let found = format!("{} ({}) is not in it yet", cert.fingerprint.short(), cert.subject);
                let help = format!("run nodeprep on the node itself, which runs `{command}`; the ledger keeps it as due");
                check(Outcome::Due, ID, subject, found, &help)
            }
            Some(cert) => {
                let found = format!("{} ({}) is not in it", cert.fingerprint.short(), cert.subject);
                check(Outcome::Failed, ID, subject, found, &format!("run `nodeprep apply`, or `{command}` by hand and read what it says"))
            }
        })
    };
    wanted.into_iter().filter_map(of).collect()
}

const ID: &str = "anchor";

/// What the command would take into the bundle.
fn placed(family: &Family, tree: &Tree) -> BTreeSet<Fingerprint> {
    let dir = NodePath::fixed(family.anchor_dir);
    let files = tree.names(&dir).into_iter().filter(|name| family.takes(name)).map(|name| dir.join(&name));
    files.filter_map(|file| Some(fingerprints(tree.bytes(&file)?))).flatten().gathered()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;
    use crate::spec::load::Draft;

    const BUNDLE: &str = "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem";

    fn pem(ca: bool) -> String {
        let mut params = rcgen::CertificateParams::new(vec!["registry.example".to_owned()]).unwrap();
        if ca {
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        } else {
            params.is_ca = rcgen::IsCa::ExplicitNoCa;
        }
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_bundle_decides_and_only_an_anchor_in_place_can_be_due() {
        let (one, flagless) = (pem(true), pem(false));
        let ca = |name: &str, pem: &str, more: &str| format!("[[ca]]\nname = \"{name}\"\n{more}pem = \"\"\"\n{pem}\"\"\"\n");
        let cas = ca("one", &one, "") + &ca("leaf", &flagless, "") + &ca("own", &pem(true), "trust = \"registries\"\n");
        let text = format!("version = 1\nfallback = \"never\"\n{cas}[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n");
        let spec = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&std::collections::BTreeMap::default(), None).spec.unwrap();
        let said = |id: &str, due, files: &[(&'static str, &str)]| {
            let mut tree = Tree::default();
            tree.insert(NodePath::root(), Entry::Dir { listed: true });
            tree.put(&NodePath::fixed("/etc/os-release"), format!("ID={id}\n").as_bytes(), 0o644);
            for (path, text) in files {
                tree.put(&NodePath::fixed(path), text.as_bytes(), 0o644);
            }
            anchors(&spec, &tree, due).into_iter().map(|check| (check.subject, check.result)).collect::<Vec<_>>()
        };
        let anchor = ("/etc/pki/ca-trust/source/anchors/nodeprep-one.crt", one.as_str());
        let one_is = |result| vec![(format!("one in {BUNDLE}"), result)];
        // what the distribution leaves out by its own rules is not asked for, and neither is what is for registries only
        assert_eq!(said("rhel", false, &[]), one_is(Outcome::Failed));
        assert_eq!(said("rhel", false, &[anchor]), one_is(Outcome::Failed));
        assert_eq!(said("rhel", true, &[anchor]), one_is(Outcome::Due));
        assert_eq!(said("rhel", true, &[]), one_is(Outcome::Failed));
        for due in [false, true] {
            assert_eq!(said("rhel", due, &[(BUNDLE, &one)]), one_is(Outcome::Ok));
        }
        // elsewhere the one without the flag has to be there
        let both = said("debian", false, &[("/etc/ssl/certs/ca-certificates.crt", &one)]);
        assert_eq!(both.into_iter().map(|(_, result)| result).collect::<Vec<_>>(), [Outcome::Ok, Outcome::Failed]);
        assert_eq!(said("talos", false, &[]), [("OS trust store".to_owned(), Outcome::CouldNotRun)]);
    }
}
