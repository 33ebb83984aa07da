//! certs.d of containers/image: a folder per registry with the CAs that are trusted there beside the OS trust store
//! (`*.crt`) and client certificates (`*.cert` with `*.key`). Facts: `runtime-semantics.md` 2.7, `containers-certs.d(5)`.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cert::{Cert, KeyMatch, fingerprints, key_matches, read_pem};
use crate::model::content::Content;
use crate::model::digest::{Digest, Fingerprint};
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::secret::Secret;
use crate::model::tree::{Found, Tree};

/// The client certificate's name in each folder of ours.
const CLIENT: &str = "nodeprep-client.cert";
/// Its key's.
const KEY: &str = "nodeprep-client.key";

/// The folder that we write for a registry. `host` as it stands in references: `docker.io` for Docker Hub, the port as
/// written.
#[must_use]
pub fn folder(host: &Host) -> NodePath {
    NodePath::fixed("/etc/containers/certs.d").join(host.as_str())
}

/// The folders that are looked at for a registry, the first existing one counts; `home` is the daemon's.
#[must_use]
pub fn candidates(home: &NodePath, host: &Host) -> Vec<NodePath> {
    roots(home).into_iter().map(|root| root.join(host.as_str())).collect()
}

/// The places of such folders, in order.
#[must_use]
pub fn roots(home: &NodePath) -> Vec<NodePath> {
    vec![home.join(".config/containers/certs.d"), NodePath::fixed("/etc/containers/certs.d"), NodePath::fixed("/etc/docker/certs.d")]
}

/// The files of a registry's folder: the whole CA set in one file whose name is made from its content, and the client
/// certificate with its key (0600). Name → content and mode; empty when there is nothing to say.
#[must_use]
pub fn render(ca: &[Cert], client: Option<(&[Cert], &Secret)>) -> BTreeMap<String, (Content, u32)> {
    let mut files = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let pem: String = ca.iter().filter(|cert| seen.insert(cert.fingerprint)).map(Cert::to_pem).collect();
    if !pem.is_empty() {
        let name = format!("nodeprep-ca-{}.crt", Digest::of(pem.as_bytes()).short());
        files.insert(name, (Content::public(pem), 0o644));
    }
    if let Some((certs, key)) = client {
        let chain: String = certs.iter().map(Cert::to_pem).collect();
        files.insert(CLIENT.to_owned(), (Content::public(chain), 0o644));
        files.insert(KEY.to_owned(), (Content::secret(key.expose(), vec![key.clone()]), 0o600));
    }
    files
}

/// What a registry's folder gives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certs {
    /// The folder that counts, when one exists.
    pub folder: Option<NodePath>,
    /// Folders that exist behind it, are not looked at, and say something else: one with the same certificates is there for
    /// whoever looks only there, such as Docker.
    pub hidden: Vec<NodePath>,
    /// Fingerprints of every certificate in `*.crt`; what cannot be read is skipped in silence.
    pub ca: BTreeSet<Fingerprint>,
    /// The leaf of the first client certificate.
    pub client: Option<Fingerprint>,
}

/// Reads the folder that counts: the first that exists, also when it is empty; there is no merging.
///
/// # Errors
/// The file and what is wrong with it: a `.cert` without `.key` or the reverse, or a pair that cannot be loaded. The
/// registry is unusable then.
pub fn read(tree: &Tree, home: &NodePath, host: &Host) -> Result<Certs, (NodePath, String)> {
    let mut existing = candidates(home, host).into_iter().filter(|path| tree.exists(path));
    let Some(folder) = existing.next() else { return Ok(Certs::default()) };
    let certs = read_folder(tree, folder)?;
    let differs = |other: &NodePath| {
        !read_folder(tree, other.clone()).is_ok_and(|other| (other.ca, other.client) == (certs.ca.clone(), certs.client))
    };
    Ok(Certs { hidden: existing.filter(differs).collect(), ..certs })
}

fn read_folder(tree: &Tree, folder: NodePath) -> Result<Certs, (NodePath, String)> {
    let mut certs = Certs { folder: Some(folder.clone()), ..Certs::default() };
    if let Found::File(..) | Found::Unreadable(_) = tree.find(&folder) {
        return Err((folder, "is no folder that can be read".to_owned()));
    }
    let names = tree.names(&folder);
    for name in &names {
        let file = folder.join(name);
        // case counts here: `CA.CRT` is none
        if name.strip_suffix(".crt").is_some() {
            match tree.find(&file) {
                Found::File(bytes, _) => certs.ca.extend(fingerprints(bytes)),
                Found::Absent => {} // a dangling link is passed over
                _ => return Err((file, "cannot be read".to_owned())),
            }
        } else if let Some(base) = name.strip_suffix(".cert") {
            let key = format!("{base}.key");
            if !names.contains(&key) {
                return Err((file, format!("has no {key} beside it")));
            }
            let leaf =
                tree.bytes(&file).and_then(|bytes| read_pem(bytes).ok()).and_then(|pem| pem.certs.first().map(|cert| cert.fingerprint));
            let key_there = tree.bytes(&folder.join(&key)).is_some();
            match leaf.filter(|_| key_there) {
                Some(leaf) => certs.client = certs.client.or(Some(leaf)),
                None => return Err((file, "cannot be loaded as client certificate".to_owned())),
            }
        } else if let Some(base) = name.strip_suffix(".key")
            && !names.contains(&format!("{base}.cert"))
        {
            return Err((file, format!("has no {base}.cert beside it")));
        }
    }
    Ok(certs)
}

/// What the folder that counts gives, as PEM.
#[derive(Clone, Debug, Default)]
pub struct Material {
    /// The folder.
    pub folder: Option<NodePath>,
    /// CAs.
    pub ca: String,
    /// The chain of the client certificate.
    pub client: String,
    /// Its key.
    pub key: Option<Secret>,
}

/// Reads it.
///
/// # Errors
/// As [`read`]; also where there are several client certificates, or one is not what its key is for.
pub fn material(tree: &Tree, home: &NodePath, host: &Host) -> Result<Material, (NodePath, String)> {
    let Some(folder) = read(tree, home, host)?.folder else { return Ok(Material::default()) };
    let mut material = Material { folder: Some(folder.clone()), ..Material::default() };
    let pem = |path: &NodePath| tree.bytes(path).and_then(|bytes| read_pem(bytes).ok()).unwrap_or_default();
    let chain = |certs: &[Cert]| certs.iter().map(Cert::to_pem).collect::<String>();
    for name in tree.names(&folder) {
        let file = folder.join(&name);
        if name.strip_suffix(".crt").is_some() {
            material.ca.push_str(&chain(&pem(&file).certs));
        } else if let Some(base) = name.strip_suffix(".cert") {
            if material.key.is_some() {
                return Err((file, "is a second client certificate".to_owned()));
            }
            let (certs, keys) = (pem(&file).certs, pem(&folder.join(&format!("{base}.key"))).keys);
            let Some(key) =
                keys.into_iter().next().filter(|key| !matches!(key_matches(&certs, key), KeyMatch::No | KeyMatch::Unreadable(_)))
            else {
                return Err((file, "has no key that belongs to it".to_owned()));
            };
            material.client = chain(&certs);
            material.key = Some(key);
        }
    }
    Ok(material)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    fn cert(name: &str) -> (Cert, Secret) {
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
        (read_pem(pem.as_bytes()).unwrap().certs.remove(0), Secret::new(key.serialize_pem()))
    }

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        tree
    }

    #[test]
    fn what_is_rendered_is_read_back() {
        let (one, key) = cert("a");
        let (two, _) = cert("b");
        let host = Host::fixed("reg.local:5000");
        let mut tree = tree();
        let files = render(&[one.clone(), two.clone(), one.clone()], Some((std::slice::from_ref(&one), &key)));
        assert_eq!(files["nodeprep-client.key"].1, 0o600);
        assert!(!format!("{files:?}").contains(std::str::from_utf8(key.expose()).unwrap().lines().nth(1).unwrap()));
        for (name, (content, mode)) in files {
            tree.put(&folder(&host).join(&name), content.bytes, mode);
        }
        let certs = read(&tree, &NodePath::fixed("/root"), &host).unwrap();
        assert_eq!(certs.ca, BTreeSet::from([one.fingerprint, two.fingerprint]));
        assert_eq!(certs.client, Some(one.fingerprint));
        assert_eq!(read(&tree, &NodePath::fixed("/root"), &Host::fixed("reg.local")).unwrap(), Certs::default());
    }

    #[test]
    fn an_empty_earlier_folder_hides_the_later_ones() {
        let (one, _) = cert("a");
        let host = Host::fixed("reg.local");
        let mut tree = tree();
        tree.put(&NodePath::fixed("/etc/docker/certs.d/reg.local/ca.crt"), one.to_pem().into_bytes(), 0o644);
        let root = NodePath::fixed("/root");
        assert_eq!(read(&tree, &root, &host).unwrap().ca.len(), 1);
        tree.put(&NodePath::fixed("/etc/containers/certs.d/reg.local/x"), *b"", 0o644);
        let certs = read(&tree, &root, &host).unwrap();
        assert!(certs.ca.is_empty() && certs.hidden.len() == 1);
        tree.put(&NodePath::fixed("/root/.config/containers/certs.d/reg.local/y"), *b"", 0o644);
        assert_eq!(read(&tree, &root, &host).unwrap().folder, Some(root.join(".config/containers/certs.d/reg.local")));
    }

    #[test]
    fn half_a_client_certificate_makes_the_registry_unusable() {
        let (one, key) = cert("a");
        let host = Host::fixed("reg.local");
        for (name, bytes) in [("c.cert", one.to_pem().into_bytes()), ("c.key", key.expose().to_vec())] {
            let mut tree = tree();
            tree.put(&folder(&host).join(name), bytes, 0o600);
            assert!(read(&tree, &NodePath::fixed("/root"), &host).is_err(), "{name}");
        }
    }
}
