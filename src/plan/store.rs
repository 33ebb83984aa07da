//! Whether a change of the OS trust store needs a restart: decided from what each daemon asks, not assumed. Pure.

use std::collections::BTreeSet;

use super::build::Now;
use super::proof::probe_images;
use super::{Activation, How};
use crate::desired::Target;
use crate::ledger::Due;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::resolution::Trust;
use crate::model::tree::{Found, Tree};
use crate::runtime::{FoundRuntime, Runtime, golang};
use crate::spec::Spec;

/// What a change of the store needs for each daemon that runs, with the reason. A Go program reads the store once, at the first
/// certificate that it verifies (crypto/x509 `root.go`; `runtime-semantics.md`, fact 10); whether it has done so yet cannot be
/// seen. `spec`: `None` after a revert; `after`: the tree as it will be; `bundle`: the store's bundle file.
#[must_use]
pub fn activations(spec: Option<&Spec>, after: &Tree, found: &[FoundRuntime], bundle: &NodePath) -> Vec<Activation> {
    found.iter().filter_map(|reader| activation(spec, after, reader, bundle)).collect()
}

fn activation(spec: Option<&Spec>, after: &Tree, reader: &FoundRuntime, bundle: &NodePath) -> Option<Activation> {
    reader.running.as_ref()?;
    let (unit, who) = (reader.unit_name()?, target(reader));
    let name = reader.runtime;
    let nothing = |why: String| Some(Activation { who: who.clone(), how: How::Nothing, because: vec![why] });
    if !golang::reads_store(&reader.env, bundle) {
        return nothing(format!("SSL_CERT_FILE and SSL_CERT_DIR of {name} name another trust store"));
    }
    let hosts = relying(spec, after, reader);
    let Some(first) = hosts.first() else {
        return nothing(format!("every registry that {name} verifies has CA files of its own, which it reads at every pull"));
    };
    let others = if hosts.len() > 1 { format!(" and {} more", hosts.len() - 1) } else { String::new() };
    let why = format!("{name} reads the OS trust store once, and has no CA file of its own for {first}{others}");
    Some(Activation { who, how: How::Restart(unit), because: vec![why] })
}

/// Restarts that a change of the store has left due, though no ledger says so: anchors of ours that are younger than a daemon
/// that relies on them.
#[must_use]
pub fn late(spec: &Spec, after: &Tree, now: Now<'_>, found: &[FoundRuntime], bundle: &NodePath) -> Vec<Due> {
    let anchors = now.ledger.owned.iter().filter(|(_, owned)| owned.target == Target::Trust);
    let written = |path: &NodePath| if let Found::File(_, meta) = now.tree.find(path) { Some(meta.mtime) } else { None };
    let Some(since) = anchors.filter_map(|(path, _)| written(path)).max() else { return Vec::new() };
    let older = found.iter().filter(|reader| reader.running.as_ref().is_some_and(|process| process.started <= since));
    let needed = older.filter_map(|reader| activation(Some(spec), after, reader, bundle));
    needed.filter(|one| one.how != How::Nothing).map(|what| Due { what, since }).collect()
}

/// The registries that a daemon verifies by the OS trust store alone, among those that the spec names and those that the node's
/// own files name.
fn relying(spec: Option<&Spec>, after: &Tree, reader: &FoundRuntime) -> Vec<Host> {
    let Some(dialect) = reader.dialects(after).first().copied().filter(|_| reader.is_pulled_through(after)) else { return Vec::new() };
    let view = reader.view(after, dialect);
    let names = view.names();
    let of_node = names.iter().filter_map(|name| ImageRef::parse(&format!("{name}/nodeprep/probe:1")).ok());
    let own_images = spec.map(|spec| {
        let own = spec.for_runtime(reader.runtime);
        // not names that only stand for all that nobody names
        let is_named = |image: &ImageRef| own.access.contains_key(&image.host) || own.mirror_of(image).is_some();
        probe_images(&own, &[]).into_iter().filter(is_named).collect::<Vec<_>>()
    });
    let mut hosts = BTreeSet::new();
    for image in of_node.chain(own_images.into_iter().flatten()) {
        for attempt in view.resolve(&image).attempts {
            let alone = matches!(&attempt.trust, Trust::Verified { extra } if extra.is_empty());
            // such a name closes a registry
            if alone && !attempt.host.cannot_exist() {
                hosts.insert(attempt.host);
            }
        }
    }
    hosts.into_iter().collect()
}

/// The target whose files decide what this one asks.
fn target(reader: &FoundRuntime) -> Target {
    match reader.runtime {
        Runtime::Containerd => Target::Containerd(reader.config.clone()),
        Runtime::Crio | Runtime::Podman => Target::Containers,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::ledger::{Ledger, Owned, Prior, Stamp};
    use crate::model::time::Time;
    use crate::model::tree::{Entry, Meta};
    use crate::plan::build::Foreign;
    use crate::runtime::{Presence, Running};
    use crate::spec::load::Draft;

    const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
    const CONFIG: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";

    fn spec() -> Spec {
        let text = "version = 1\nfallback = \"upstream\"\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n";
        Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.unwrap()
    }

    fn reader(env: &[(&str, &str)]) -> FoundRuntime {
        FoundRuntime {
            runtime: Runtime::Containerd,
            presence: Presence::There,
            because: NodePath::fixed("/usr/bin/containerd"),
            installed: Some(crate::model::version::Version(1, 7, 24)),
            running: Some(Running { pid: 7, started: Time(50), version: None, socket: None }),
            config: NodePath::fixed("/etc/containerd/config.toml"),
            unit: Some("containerd.service".to_owned()),
            env: env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    /// containerd with a hosts.toml for each host; `ca` where it has a CA file of its own.
    fn tree(hosts: &[(&str, bool)]) -> Tree {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        tree.put(&NodePath::fixed("/etc/containerd/config.toml"), CONFIG.as_bytes(), 0o644);
        let pem =
            rcgen::CertificateParams::new(vec!["ca".to_owned()]).unwrap().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem();
        tree.put(&NodePath::fixed("/etc/ca.pem"), pem.as_bytes(), 0o644);
        tree.insert(NodePath::fixed("/etc/containerd/certs.d"), Entry::Dir { listed: true });
        for (host, own) in hosts {
            let ca = if *own { "ca = \"/etc/ca.pem\"\n" } else { "" };
            let folder = NodePath::fixed("/etc/containerd/certs.d").join(host);
            tree.insert(folder.clone(), Entry::Dir { listed: true });
            let text = format!("server = \"https://{host}\"\n{ca}\n[host.\"https://{host}\"]\n{ca}");
            tree.put(&folder.join("hosts.toml"), text.as_bytes(), 0o644);
        }
        tree
    }

    fn need(hosts: &[(&str, bool)], env: &[(&str, &str)]) -> How {
        let needs = activations(Some(&spec()), &tree(hosts), &[reader(env)], &NodePath::fixed(BUNDLE));
        assert_eq!(needs.len(), 1);
        needs[0].how.clone()
    }

    #[test]
    fn only_a_registry_without_a_ca_of_its_own_relies_on_the_store() {
        let restart = How::Restart("containerd.service".to_owned());
        assert_eq!(need(&[("quay.io", true), ("m.example", true)], &[]), How::Nothing);
        assert_eq!(need(&[("quay.io", true), ("m.example", true), ("other.example", false)], &[]), restart);
        assert_eq!(need(&[("quay.io", false), ("m.example", true)], &[]), restart);
        // it reads another store
        let elsewhere = [("SSL_CERT_FILE", "/opt/ca.pem"), ("SSL_CERT_DIR", "/opt/certs")];
        assert_eq!(need(&[("other.example", false)], &elsewhere), How::Nothing);
        assert_eq!(need(&[("other.example", false)], &elsewhere[..1]), restart);
        // what does not run needs nothing
        let stopped = FoundRuntime { running: None, ..reader(&[]) };
        assert!(activations(Some(&spec()), &tree(&[("other.example", false)]), &[stopped], &NodePath::fixed(BUNDLE)).is_empty());
    }

    #[test]
    fn an_anchor_of_ours_that_is_younger_than_the_daemon_is_seen_without_the_ledger() {
        let mut tree = tree(&[("other.example", false)]);
        let anchor = NodePath::fixed("/usr/local/share/ca-certificates/x.crt");
        let mut ledger = Ledger::new([1; 32]);
        let owned =
            Owned { target: Target::Trust, now: Stamp::Absent, origin: Prior::Absent, keys: Vec::new(), format: None, shared: false };
        ledger.owned.insert(anchor.clone(), owned.into());
        for (written, due) in [(100, 1), (10, 0)] {
            let meta = Meta { mtime: Time(written), ..Meta::new(0o644) };
            tree.insert(anchor.clone(), Entry::File { bytes: b"x".as_slice().into(), meta });
            let blobs = BTreeMap::new();
            let now = Now { tree: &tree, ledger: &ledger, blobs: &blobs, foreign: Foreign::Refuse, live: true };
            assert_eq!(late(&spec(), &tree, now, &[reader(&[])], &NodePath::fixed(BUNDLE)).len(), due);
        }
    }
}
