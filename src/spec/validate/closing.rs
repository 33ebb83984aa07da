//! `deny_domains` and `search`: lists of names that only registries.conf has a place for.

use super::super::decode::{At, Raw};
use super::super::problems::Problems;
use super::name;
use crate::model::host::Host;
use crate::model::suffix::Suffix;
use crate::spec::{Spec, Unlisted};

/// Registries from which most public images come: told when a list of domains leaves them open.
const PUBLIC: [&str; 10] = [
    "docker.io",
    "ghcr.io",
    "quay.io",
    "gcr.io",
    "registry.k8s.io",
    "public.ecr.aws",
    "mcr.microsoft.com",
    "registry.gitlab.com",
    "registry.access.redhat.com",
    "nvcr.io",
];

/// The domains that are closed instead of the shipped ones.
pub fn domains(raw: &Raw, problems: &mut Problems<'_>) -> Option<Vec<Suffix>> {
    let list = raw.deny_domains.as_ref()?;
    if list.value.is_empty() {
        let what = "`deny_domains` names none: registries.conf would close nothing";
        problems.error("bad-domain", &list.span, what, "name the domains that are to be closed, or take the key out");
    }
    if raw.unlisted.unwrap_or_default() != Unlisted::Deny {
        let what = "`deny_domains` has no effect: registries that the spec does not name are left as they are";
        problems.warning("deny-domains-unused", &list.span, what, "write `unlisted = \"deny\"`, or take it out");
    }
    let mut found: Vec<Suffix> = Vec::with_capacity(list.value.len());
    for at in &list.value {
        let bare = at.value.strip_prefix("*.").unwrap_or(&at.value);
        match Suffix::new(bare) {
            Ok(_) if bare.len() < at.value.len() => {
                let what = format!("{:?} in `deny_domains`: every name below a domain is meant anyway", at.value);
                problems.error("bad-domain", &at.span, what, format!("write \"{bare}\""));
            }
            Ok(domain) if found.contains(&domain) => {
                problems.error("duplicate", &at.span, format!("domain {bare} is there twice"), "take one of them out");
            }
            Ok(domain) => found.push(domain),
            Err(_) => {
                let what = format!("{:?} in `deny_domains` is no domain", at.value);
                problems.error("bad-domain", &at.span, what, "write a domain alone, in lower case, as in \"io\" or \"corp.example\"");
            }
        }
    }
    Some(found)
}

/// Where names without a registry are looked for.
pub fn search(raw: &Raw, problems: &mut Problems<'_>) -> Option<Vec<Host>> {
    let list = raw.search.as_ref()?;
    let mut found: Vec<Host> = Vec::with_capacity(list.value.len());
    for at in &list.value {
        let Some(host) = name::host(at, problems) else { continue };
        if host.is_ipv6() || !host.is_recognised_in_references() {
            let what = format!("search registry {host} is none that CRI-O and Podman can read in an image reference");
            problems.error("invalid-host", &at.span, what, "use a DNS name with a dot or a port");
        } else if found.contains(&host) {
            problems.error("duplicate", &at.span, format!("search registry {host} is there twice"), "take one of them out");
        } else {
            found.push(host);
        }
    }
    Some(found)
}

/// What the lists come to beside the rest of the spec.
pub fn judge(spec: &Spec, raw: &Raw, problems: &mut Problems<'_>) {
    if spec.unlisted != Unlisted::Deny {
        return;
    }
    let named = |host: &Host| spec.access.contains_key(host) || spec.wider(host).is_some() || spec.mirrors_named(host).next().is_some();
    if let (Some(list), Some(_)) = (&raw.deny_domains, &spec.deny_domains) {
        let open: Vec<&str> =
            PUBLIC.into_iter().filter(|name| Host::new(name).is_ok_and(|host| !spec.closes_domain_of(&host) && !named(&host))).collect();
        if !open.is_empty() {
            let what = format!("`deny_domains` leaves public registries open on CRI-O and Podman: {}", open.join(", "));
            problems.warning(
                "public-registries-open",
                &list.span,
                what,
                "add their domains, or take `deny_domains` out for the shipped list",
            );
        }
    }
    for (host, at) in spec.search.iter().flatten().zip(raw.search.iter().flat_map(|list| &list.value)) {
        closed(host, at, &named, problems);
    }
}

fn closed(host: &Host, at: &At<String>, named: &dyn Fn(&Host) -> bool, problems: &mut Problems<'_>) {
    if !named(host) {
        let what = format!("names without a registry are looked for at {host}, which unlisted = \"deny\" closes");
        problems.warning("search-closed", &at.span, what, "name it as the `source` of a [[mirror]] or in [[registry]], or take it out");
    }
}
