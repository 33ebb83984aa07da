//! Whom to ask which login is wanted, before there is anything on the node that says so. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::believe::Pool;
use super::probe::{Identity, Seen, Target, Trusted};
use crate::model::cert::Cert;
use crate::model::challenge::Challenge;
use crate::model::host::Host;
use crate::model::tree::Tree;
use crate::runtime::containerd::tokens::concerned;
use crate::runtime::{Dialect, FoundRuntime, golang};
use crate::spec::{Scope, Spec};

/// Whether anybody has to be asked at all.
#[must_use]
pub fn is_needed(spec: &Spec, tree: &Tree, found: &[FoundRuntime]) -> bool {
    let of = |on: &FoundRuntime| on.dialects(tree).into_iter().filter_map(Dialect::containerd).collect::<Vec<_>>();
    found.iter().map(of).any(|dialects| !dialects.is_empty() && !concerned(spec, &dialects).is_empty())
}

/// The hosts that have to be asked, as `found` would reach them once the spec is carried out; no login goes along. `roots`: a
/// tree that holds what [`golang::root_wishes`] asks for.
#[must_use]
pub fn targets(spec: &Spec, tree: &Tree, roots: &Tree, found: &[FoundRuntime]) -> BTreeMap<Host, Target> {
    let mut targets = BTreeMap::new();
    for on in found {
        let dialects: Vec<_> = on.dialects(tree).into_iter().filter_map(Dialect::containerd).collect();
        let hosts = if dialects.is_empty() { Vec::new() } else { concerned(spec, &dialects) };
        if hosts.is_empty() {
            continue;
        }
        let anchors = spec.cas.iter().filter(|ca| ca.scope == Scope::System).flat_map(|ca| &ca.certs);
        let base = Pool::of(golang::roots(roots, &on.env).iter().map(Vec::as_slice)).with(anchors.map(|cert: &Cert| &*cert.der));
        for host in hosts {
            let access = spec.access(host);
            let identity = access
                .client
                .as_ref()
                .map(|client| Identity { chain: client.certs.iter().map(|cert| cert.der.to_vec()).collect(), key: client.key.clone() });
            let own = || Trusted::By(Arc::new(base.with(access.ca.iter().map(|cert| &*cert.der))));
            targets.entry(host.clone()).or_insert_with(|| Target {
                scheme: access.scheme,
                host: host.api(),
                trust: if access.insecure { Trusted::Anybody } else { own() },
                client: identity.map(Arc::new),
                login: None,
                header: Vec::new(),
                more: false,
                route: golang::route(&on.env, access.scheme, &host.api()),
                manifests: Vec::new(),
            });
        }
    }
    targets
}

/// What a host said, or why it did not.
///
/// # Errors
/// What is amiss.
pub fn answer(seen: &Seen) -> Result<Challenge, String> {
    match (&seen.challenge, seen.worst()) {
        (Some(challenge), _) => Ok(challenge.clone()),
        (None, Some((stage, trouble))) => Err(format!("{stage}: {}", trouble.what())),
        (None, None) => Err("it did not answer".to_owned()),
    }
}
