//! How each host is reached: `[[registry]]` and endpoints together, defaults filled in.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::sync::Arc;

use super::super::problems::Problems;
use super::ca::{Cas, State};
use super::mirror;
use super::registry::Checked;
use crate::model::cert::Cert;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::spec::{Access, Pause, Scope};

/// How hosts are reached.
pub struct Built {
    /// Every host that appears.
    pub by_host: BTreeMap<Host, Access>,
    /// Any other.
    pub default: Access,
    /// Those that appear as endpoints only.
    pub passing: BTreeSet<Host>,
}

/// Puts together what the document says about each host.
pub fn build(
    raw: &super::super::decode::Raw,
    cas: &Cas,
    mirrors: &[mirror::Checked],
    registries: Vec<Checked>,
    pause: Option<&Pause>,
    problems: &mut Problems<'_>,
) -> Built {
    let schemes = schemes(mirrors, problems);
    let mut sets = Sets { cas, made: HashMap::new() };
    let system: Vec<usize> = (0..cas.list.len()).filter(|index| cas.list[*index].scope == Scope::System).collect();
    if let Some(first) = system.first().filter(|_| sets.all_expired(&system)) {
        let help = "put a CA that is valid into one of the files";
        problems.error("no-valid-ca", &cas.spans[*first], "no [[ca]] with trust = \"system\" is valid now", help);
    }
    let ca = sets.of(system);
    let default = Access { scheme: Scheme::Https, ca: Arc::clone(&ca), client: None, login: None, insecure: false, at: None };
    let mut by_host: BTreeMap<Host, Access> = BTreeMap::new();
    for registry in registries {
        let scheme = schemes.get(&registry.host).map_or(Scheme::Https, |(scheme, _)| *scheme);
        judge(&registry, scheme, &sets, problems);
        let ca = registry.ca.map_or_else(|| Arc::clone(&ca), |named| sets.of(named.value));
        let at = Some(problems.text().place(registry.at.start));
        let insecure = registry.insecure.is_some();
        by_host.insert(registry.host, Access { scheme, ca, client: registry.client, login: registry.login, insecure, at });
    }
    let mut passing: BTreeSet<Host> = schemes.keys().filter(|host| !by_host.contains_key(*host)).cloned().gathered();
    for (host, (scheme, span)) in schemes {
        let text = problems.text();
        by_host.entry(host).or_insert_with(|| Access { scheme, at: Some(text.place(span.start)), ..default.clone() });
    }
    if let Some(pause) = pause {
        passing.remove(&pause.image.host);
        let at = raw.pause_image.as_ref().map(|written| problems.text().place(written.span.start));
        by_host.entry(pause.image.host.clone()).or_insert_with(|| Access { at, ..default.clone() });
    }
    Built { by_host, default, passing }
}

/// Whether each endpoint's host is spoken to with or without TLS: one answer for each host, since a runtime has one
/// configuration for it.
fn schemes(mirrors: &[mirror::Checked], problems: &mut Problems<'_>) -> BTreeMap<Host, (Scheme, Range<usize>)> {
    let mut schemes: BTreeMap<Host, (Scheme, Range<usize>)> = BTreeMap::new();
    let mut told: std::collections::BTreeSet<Host> = std::collections::BTreeSet::new();
    for checked in mirrors {
        for (endpoint, span) in checked.mirror.endpoints.iter().zip(&checked.spans) {
            match schemes.get(&endpoint.host) {
                None => {
                    schemes.insert(endpoint.host.clone(), (endpoint.scheme, span.clone()));
                }
                Some((first, _)) if *first == endpoint.scheme => {}
                Some((first, at)) => {
                    if told.insert(endpoint.host.clone()) {
                        let place = problems.text().seen_from(&problems.text().place(at.start), span.start);
                        let what = format!("{} is spoken to with {} here and with {first} {place}", endpoint.host, endpoint.scheme);
                        problems.error(
                            "scheme-conflict",
                            span,
                            what,
                            "write the same scheme everywhere, or use another port for one of them",
                        );
                    }
                }
            }
        }
    }
    schemes
}

/// What a `[[registry]]` says that does not go together, or will hurt.
fn judge(registry: &Checked, scheme: Scheme, sets: &Sets<'_>, problems: &mut Problems<'_>) {
    let host = &registry.host;
    if let Some(span) = &registry.insecure {
        if scheme == Scheme::Http {
            let what = format!("`insecure` for {host}, which is spoken to over plain HTTP");
            problems.error("insecure-http", span, what, "take `insecure` out, or `http://` from its endpoints");
        } else {
            let what = format!("the certificate of {host} is not checked: whoever answers in its place is believed");
            problems.warning("insecure", span, what, "add its CA as a [[ca]] instead");
        }
    }
    if let Some(span) = registry.credentials.as_ref().filter(|_| scheme == Scheme::Http && !registry.allow_plaintext_credentials) {
        let what = format!("the credentials for {host} would be sent over plain HTTP");
        problems.error(
            "plaintext-credentials",
            span,
            what,
            "use HTTPS, or add `allow_plaintext_credentials = true` under this [[registry]]",
        );
    }
    let tls = registry.ca.as_ref().map(|ca| (&ca.span, "ca")).or(registry.client_span.as_ref().map(|span| (span, "client_cert")));
    if let Some((span, key)) = tls.filter(|_| scheme == Scheme::Http) {
        let what = format!("`{key}` has no effect: {host} is spoken to over plain HTTP");
        problems.warning("tls-over-http", span, what, "take it out, or `http://` from its endpoints");
    }
    if let Some(named) = registry.ca.as_ref().filter(|named| scheme == Scheme::Https && sets.all_expired(&named.value)) {
        let what = format!("{host} is left without any CA that is valid now");
        problems.error("no-valid-ca", &named.span, what, "put a CA that is valid into one of the files that it names");
    }
}

/// Sets of certificates, each made once.
struct Sets<'a> {
    cas: &'a Cas,
    made: HashMap<Vec<usize>, Arc<[Cert]>>,
}

impl Sets<'_> {
    fn of(&mut self, indexes: Vec<usize>) -> Arc<[Cert]> {
        let cas = self.cas;
        let make = |indexes: &Vec<usize>| {
            let mut certs: Vec<Cert> = Vec::new();
            let mut seen = std::collections::HashSet::new();
            for cert in indexes.iter().flat_map(|index| &cas.list[*index].certs) {
                if seen.insert(cert.fingerprint) {
                    certs.push(cert.clone());
                }
            }
            Arc::from(certs)
        };
        if let Some(known) = self.made.get(&indexes) {
            return Arc::clone(known);
        }
        let set: Arc<[Cert]> = make(&indexes);
        self.made.insert(indexes, Arc::clone(&set));
        set
    }

    /// Whether nothing is left because of dates alone.
    fn all_expired(&self, indexes: &[usize]) -> bool {
        !indexes.is_empty() && indexes.iter().all(|index| self.cas.state[*index] == State::Expired)
    }
}
