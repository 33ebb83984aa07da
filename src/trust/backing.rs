//! Which certificates of a bundle would be lost by a refresh, because no file backs them (design section 5).
//!
//! The files are many and are asked for only when a refresh is due.

use std::collections::BTreeSet;

use super::family::Source;
use super::{Family, Reads, family, system};
use crate::model::cert::fingerprints;
use crate::model::digest::Fingerprint;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;
use crate::spec::Spec;

/// Levels of folders below the anchors' that are looked at; the command itself looks at all of them.
const LEVELS: u8 = 6;

/// What has to be in the tree before [`orphans`] can answer, as far as `tree` tells by now.
#[must_use]
pub fn wishes(tree: &Tree) -> Vec<Wish> {
    let mut wishes = super::wishes(tree);
    if let Ok(family) = family(tree)
        && let Source::Listed(list, _) = family.source
    {
        wishes.push(Wish::path(NodePath::fixed(list)));
        wishes.push(Wish::folder(NodePath::fixed(family.anchor_dir), if family.reads == Reads::Below { LEVELS } else { 1 }));
        wishes.extend(shipped(family, tree).into_iter().map(Wish::path));
    }
    wishes
}

/// The certificates of the bundle that neither a shipped and enabled file nor an anchor nor the spec backs; as problems, one
/// for each. None where that cannot be told.
#[must_use]
pub fn orphans(spec: Option<&Spec>, tree: &Tree) -> Vec<Problem> {
    let Ok(family) = family(tree) else { return Vec::new() };
    let told = match family.source {
        Source::Listed(list, _) => matches!(tree.find(&NodePath::fixed(list)), Found::File(..)),
        Source::Anchors => true,
        Source::Own => false,
    };
    let bundle = NodePath::fixed(family.bundle);
    let Some(bytes) = tree.bytes(&bundle).filter(|_| told) else { return Vec::new() };
    let mut orphans = fingerprints(bytes);
    let mut backed = |found: BTreeSet<Fingerprint>| orphans.retain(|one| !found.contains(one));
    let dir = NodePath::fixed(family.anchor_dir);
    let dir = tree.real(&dir).unwrap_or(dir);
    let local = tree.below(&dir).map(|(path, _)| path.clone()).filter(|path| family.takes(path.name()));
    for path in local.chain(shipped(family, tree)) {
        match tree.find(&path) {
            Found::File(bytes, _) => backed(fingerprints(bytes)),
            // what it holds is not known, so nothing can be said
            Found::Unread | Found::Unreadable(_) => return Vec::new(),
            Found::Absent | Found::Dir => {}
        }
    }
    backed(spec.iter().flat_map(|spec| system(spec)).flat_map(|(_, certs)| certs).map(|cert| cert.fingerprint).gathered());
    orphans.iter().map(|one| problem(&bundle, &dir, family.ending, one)).collect()
}

fn problem(bundle: &NodePath, dir: &NodePath, ending: &str, one: &Fingerprint) -> Problem {
    Problem::error(
        "bundle-orphan",
        format!("the certificate {} in {bundle} stands in no anchor file, so the next refresh of the trust store drops it", one.short()),
        format!("put it into a {ending} file in {dir} or into a [[ca]] of the spec, or accept the loss with --foreign=replace"),
    )
    .at(Place::file(bundle.as_str()))
}

/// The shipped files that are enabled: lines that do not begin with `#` or `!`.
fn shipped(family: &Family, tree: &Tree) -> Vec<NodePath> {
    let Source::Listed(list, dir) = family.source else { return Vec::new() };
    let text = tree.text(&NodePath::fixed(list)).unwrap_or_default();
    let enabled = text.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', '!']));
    enabled.filter_map(|line| NodePath::new(&format!("{dir}/{line}")).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    #[test]
    fn what_no_file_backs_would_be_lost() {
        let [first, second, third] = ["one", "two", "three"].map(|name| {
            let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
        });
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        let mut put = |path: &str, text: &str| tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
        put("/etc/os-release", "ID=debian\n");
        put("/etc/ssl/certs/ca-certificates.crt", &format!("{first}{second}{third}"));
        put("/usr/share/ca-certificates/mozilla/one.crt", &first);
        put("/usr/share/ca-certificates/mozilla/off.crt", &third);
        put("/usr/local/share/ca-certificates/deep/two.crt", &second);
        assert_eq!(orphans(None, &tree), []);
        let mut put = |path: &str, text: &str| tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
        put("/etc/ca-certificates.conf", "# shipped\nmozilla/one.crt\n!mozilla/off.crt\nmozilla/gone.crt\n");
        let lost = orphans(None, &tree);
        assert_eq!(lost.len(), 1);
        assert!(fingerprints(third.as_bytes()).iter().all(|one| lost[0].what.contains(&one.short())));
        assert!(wishes(&tree).contains(&Wish::path(NodePath::fixed("/usr/share/ca-certificates/mozilla/one.crt"))));
    }
}
