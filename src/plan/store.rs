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
/// seen. `after`: the tree as it will be; `bundle`: the store's bundle file.
#[must_use]
pub fn activations(spec: &Spec, after: &Tree, found: &[FoundRuntime], bundle: &NodePath) -> Vec<Activation> {
    found.iter().filter_map(|reader| activation(spec, after, reader, bundle)).collect()
}

fn activation(spec: &Spec, after: &Tree, reader: &FoundRuntime, bundle: &NodePath) -> Option<Activation> {
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
    let needed = older.filter_map(|reader| activation(spec, after, reader, bundle));
    needed.filter(|one| one.how != How::Nothing).map(|what| Due { what, since }).collect()
}

/// The registries that a daemon verifies by the OS trust store alone, among those that the spec names and those that the node's
/// own files name.
fn relying(spec: &Spec, after: &Tree, reader: &FoundRuntime) -> Vec<Host> {
    let Some(dialect) = reader.dialects(after).first().copied().filter(|_| reader.is_pulled_through(after)) else { return Vec::new() };
    let view = reader.view(after, dialect);
    let names = view.names();
    let of_node = names.iter().filter_map(|name| ImageRef::parse(&format!("{name}/nodeprep/probe:1")).ok());
    let own = spec.for_runtime(reader.runtime);
    // not names that only stand for all that nobody names
    let named = probe_images(&own, &[]).into_iter().filter(|image| own.access.contains_key(&image.host) || own.mirror_of(image).is_some());
    let mut hosts = BTreeSet::new();
    for image in of_node.chain(named) {
        for attempt in view.resolve(&image).attempts {
            let alone = matches!(&attempt.trust, Trust::Verified { extra } if extra.is_empty());
            // a name under `.invalid` closes a registry
            if alone && !attempt.host.name().ends_with(".invalid") {
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
