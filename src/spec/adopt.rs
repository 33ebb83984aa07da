//! What was on a node before nodeprep and is carried over: mirrors, CAs, logins of one target, and how they join a spec.
//!
//! The ledger keeps them, because the settings that they come from are removed; the spec stays the user's. [`adopt`] lays a
//! spec over them: a source that the spec names replaces the adopted one (its `*` names them all), its hosts are reached as it
//! says, and its `never` closes adopted sources too.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::intent::intent;
use super::{Access, Client, Fallback, Login, LoginBy, Mirror, Names, OnUnready, Source, Spec, Unlisted};
use crate::model::cert::{self, Cert, base64, base64_decode};
use crate::model::endpoint::{Endpoint, Pull, Scheme};
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::resolution::{Attempt, AttemptKey, End, Resolution};
use crate::model::secret::Secret;

/// The source that stands for every registry.
pub const ALL: &str = "*";

/// What is carried over for one target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Registry, `registry/repository`, or [`ALL`] → its mirrors.
    #[serde(default)]
    pub mirrors: BTreeMap<String, AdoptedMirror>,
    /// Host → how it is reached.
    #[serde(default)]
    pub hosts: BTreeMap<String, AdoptedHost>,
    /// Registry, or [`ALL`] → endpoint's host → what is sent along there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, BTreeMap<String, AdoptedHeaders>>,
}

/// Headers of an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedHeaders {
    /// Names and values.
    pub all: Vec<AdoptedHeader>,
    /// Where they were written.
    pub from: From,
}

/// One header.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AdoptedHeader {
    /// Its name.
    pub name: String,
    /// Its value, which may be secret; always there.
    #[serde(serialize_with = "coded", deserialize_with = "decoded")]
    pub value: Option<Secret>,
}

/// Mirrors of a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedMirror {
    /// In the order in which they are tried; none where the registry is asked directly whatever is said for all.
    pub endpoints: Vec<AdoptedEndpoint>,
    /// The registry itself is not asked after them: it is one of them.
    #[serde(default)]
    pub closed: bool,
    /// The registry itself is asked by plain HTTP.
    #[serde(default)]
    pub http: bool,
    /// Where it was written.
    pub from: From,
}

/// One endpoint: its URL in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedEndpoint {
    /// Plain HTTP.
    #[serde(default)]
    pub http: bool,
    /// `host[:port]`.
    pub host: String,
    /// Path of the API: `/v2`, `/v2/hub`, `/hub`, or empty.
    pub api_root: String,
    /// What it is asked for.
    #[serde(default, skip_serializing_if = "Pull::is_all")]
    pub pull: Pull,
}

/// How a host is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedHost {
    /// TLS without verification.
    #[serde(default)]
    pub insecure: bool,
    /// CAs, as PEM.
    #[serde(default)]
    pub ca: String,
    /// The client certificate's chain, as PEM.
    #[serde(default)]
    pub client: String,
    /// Its key, as PEM.
    #[serde(default, serialize_with = "coded", deserialize_with = "decoded", skip_serializing_if = "Option::is_none")]
    pub key: Option<Secret>,
    /// `user:password`.
    #[serde(default, serialize_with = "coded", deserialize_with = "decoded", skip_serializing_if = "Option::is_none")]
    pub login: Option<Secret>,
    /// Where it was written.
    pub from: From,
}

/// Where something was written before it was carried over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct From {
    /// The key: `registry.mirrors."docker.io"`.
    pub key: String,
    /// The file.
    pub file: String,
    /// Its line.
    pub line: u32,
}

impl std::fmt::Display for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} in {}", self.key, self.file)?;
        if self.line > 0 { write!(f, ":{}", self.line) } else { Ok(()) }
    }
}

impl From {
    fn place(&self) -> Place {
        Place { file: Arc::from(self.file.as_str()), line: self.line, column: 0 }
    }
}

/// The ledger is for root only; it is base64 so that odd bytes survive, not to hide anything.
#[allow(clippy::ref_option, reason = "serde calls it so")]
fn coded<S: Serializer>(secret: &Option<Secret>, to: S) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|secret| base64(secret.expose())).serialize(to)
}

fn decoded<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Secret>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    let bytes = text.map(|text| base64_decode(&text).ok_or_else(|| serde::de::Error::custom("a secret is not base64")));
    Ok(bytes.transpose()?.map(Secret::new))
}

impl Adopted {
    /// Whether nothing is carried over.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mirrors.is_empty() && self.hosts.is_empty() && self.headers.is_empty()
    }

    /// What of it no output may show, beside logins.
    pub fn secrets(&self) -> impl Iterator<Item = Secret> {
        let keys = self.hosts.values().filter_map(|how| how.key.clone());
        let headers = self.headers.values().flat_map(BTreeMap::values).flat_map(|headers| &headers.all);
        keys.chain(headers.filter_map(|header| header.value.clone()))
    }

    /// With what was found later, which replaces what is known of the same registry or host where it says something else.
    #[must_use]
    pub fn with(mut self, found: Self) -> Self {
        for (source, mirror) in found.mirrors {
            let known = self.mirrors.get(&source).map(|known| AdoptedMirror { from: mirror.from.clone(), ..known.clone() });
            if known.as_ref() != Some(&mirror) {
                self.mirrors.insert(source, mirror);
            }
        }
        for (host, how) in found.hosts {
            let known = self.hosts.get(&host).map(|known| AdoptedHost { from: how.from.clone(), ..known.clone() });
            if known.as_ref() != Some(&how) {
                self.hosts.insert(host, how);
            }
        }
        for (registry, hosts) in found.headers {
            let known = self.headers.entry(registry).or_default();
            for (host, headers) in hosts {
                if known.get(&host).is_none_or(|known| known.all != headers.all) {
                    known.insert(host, headers);
                }
            }
        }
        self
    }
}

impl AdoptedHeaders {
    fn said(&self) -> Vec<(String, String)> {
        let text = |value: &Secret| String::from_utf8_lossy(value.expose()).into_owned();
        self.all.iter().filter_map(|header| Some((header.name.clone(), text(header.value.as_ref()?)))).collect()
    }
}

impl AdoptedEndpoint {
    /// The endpoint; `None` when the host is none that a configuration can name.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        let host = Host::new(&self.host).ok()?;
        let scheme = if self.http { Scheme::Http } else { Scheme::Https };
        let below_v2 = self.api_root.strip_prefix("/v2").filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let prefix = RepoPath::verbatim(below_v2.unwrap_or(&self.api_root));
        Some(Endpoint { verbatim: below_v2.is_none(), pull: self.pull, ..Endpoint::new(scheme, host, prefix) })
    }
}

impl AdoptedHost {
    fn access(&self, scheme: Scheme) -> Access {
        let certs = |pem: &str| -> Vec<Cert> { cert::read_pem(pem.as_bytes()).map(|pem| pem.certs).unwrap_or_default() };
        let client = self.key.as_ref().map(|key| Client { certs: certs(&self.client), key: key.clone() });
        Access {
            scheme,
            ca: certs(&self.ca).into(),
            client: client.filter(|client| !client.certs.is_empty()),
            login: self.login.clone().map(|basic| Login { basic, by: LoginBy::Header }),
            insecure: self.insecure,
            at: Some(self.from.place()),
        }
    }
}

/// The spec as it counts for the target that `adopted` belongs to. The spec itself when nothing is carried over.
#[must_use]
pub fn adopt<'a>(spec: &'a Spec, adopted: &Adopted) -> Cow<'a, Spec> {
    if adopted.is_empty() {
        return Cow::Borrowed(spec);
    }
    let mut whole = Spec { names: Names::default(), ..spec.clone() };
    let named: BTreeSet<Host> = spec.access.keys().cloned().gathered();
    // a registry that the spec denies is asked through its mirrors only
    let denies = spec.unlisted == Unlisted::Deny;
    let general = if denies { Fallback::Never } else { spec.fallback };
    reached(&mut whole, adopted);
    for (source, mirror) in &adopted.mirrors {
        let Ok(host) = Host::new(source) else { continue };
        // asked directly, or as the spec says
        if spec.mirrors_named(&host).next().is_some() || named.contains(&host) || spec.all().is_some() {
            continue;
        }
        let endpoints = endpoints(mirror, Some(&host), general);
        if !endpoints.is_empty() {
            let fallback = if mirror.closed { Fallback::Never } else { general };
            if general == Fallback::Upstream {
                whole.exact.insert(host.clone());
            }
            whole.mirrors.push(carried(Source::registry(host), endpoints, fallback, mirror));
        }
    }
    sent_along(&mut whole, adopted);
    parts(&mut whole, adopted, spec);
    // `deny` is for every registry that the spec does not name, `*` is not one
    let replaced = denies || spec.all().is_some();
    if let Some(all) = adopted.mirrors.get(ALL).filter(|_| !replaced) {
        rest(&mut whole, adopted, all, spec.fallback, &named);
    }
    whole.names = Names::default();
    Cow::Owned(whole)
}

/// What is compared before and after something is carried over: hosts that the spec names are reached as it says, and under
/// `never`, and where it denies the registry, the registry itself is not asked; asking the same twice in a row is asking once.
#[must_use]
pub fn comparable(resolution: &Resolution, spec: &Spec) -> Vec<Result<AttemptKey, (Host, String)>> {
    let denied = matches!(intent(spec, &resolution.image).end, End::Blocked(_));
    let open = spec.fallback == Fallback::Upstream && !denied;
    let key = |attempt: &Attempt| {
        let (_, host, path, ..) = attempt.key();
        let named = spec.access.contains_key(&host) || spec.is_source_host(&host);
        if named { Err((host, path)) } else { Ok(attempt.key()) }
    };
    let mut keys: Vec<_> = resolution.attempts.iter().filter(|attempt| open || !attempt.upstream).map(key).collect();
    keys.dedup();
    keys
}

fn carried(source: Source, endpoints: Vec<Endpoint>, fallback: Fallback, from: &AdoptedMirror) -> Mirror {
    Mirror { source, endpoints, fallback, widen: false, runtimes: None, on_unready: OnUnready::Apply, at: from.from.place() }
}

/// Mirrors of what is below a registry. The one of the spec that they are taken out of says whether the registry is asked.
fn parts(whole: &mut Spec, adopted: &Adopted, spec: &Spec) {
    for (name, mirror) in &adopted.mirrors {
        let Some((Ok(host), path)) = name.split_once('/').map(|(host, path)| (Host::new(host), RepoPath::verbatim(path))) else {
            continue;
        };
        let source = Source::Prefix { host: host.clone(), path: path.clone() };
        let prefixes = spec.mirrors_named(&host).filter_map(|above| Some((above.source.prefix()?.1, above)));
        let above = prefixes.filter(|(above, _)| path.below(above).is_some()).max_by_key(|(above, _)| above.as_str().len());
        let endpoints = endpoints(mirror, Some(&host), spec.fallback);
        if endpoints.is_empty() || above.is_some_and(|(_, above)| above.source == source) {
            continue;
        }
        let denied = spec.unlisted == Unlisted::Deny && above.is_none() && !spec.access.contains_key(&host);
        let closed = mirror.closed || denied || above.is_some_and(|(_, above)| above.fallback == Fallback::Never);
        let fallback = if closed { Fallback::Never } else { spec.fallback };
        whole.mirrors.push(carried(source, endpoints, fallback, mirror));
    }
}

/// Headers for endpoints of the spec's own mirrors, where the spec says none.
fn sent_along(whole: &mut Spec, adopted: &Adopted) {
    if adopted.headers.is_empty() {
        return;
    }
    for mirror in &mut whole.mirrors {
        let Some(hosts) = adopted.headers.get(&mirror.source.to_string()) else { continue };
        for endpoint in mirror.endpoints.iter_mut().filter(|endpoint| endpoint.header.is_empty()) {
            if let Some(headers) = hosts.get(endpoint.host.as_str()) {
                (endpoint.header, endpoint.guarded) = (headers.said(), true);
            }
        }
    }
}

/// Under `never` a registry is not its own mirror.
fn endpoints(mirror: &AdoptedMirror, source: Option<&Host>, fallback: Fallback) -> Vec<Endpoint> {
    let itself = |host: &Host| source.is_some_and(|source| *host == source.api() || host == source || source.aliases().contains(host));
    let all = mirror.endpoints.iter().filter_map(AdoptedEndpoint::endpoint);
    all.filter(|endpoint| fallback == Fallback::Upstream || !itself(&endpoint.host)).collect()
}

/// How each host is reached: as the spec says, and where it says nothing of trust, login or client certificate, as before.
fn reached(whole: &mut Spec, adopted: &Adopted) {
    let mut schemes: BTreeMap<Host, Scheme> = BTreeMap::new();
    for endpoint in adopted.mirrors.values().flat_map(|mirror| &mirror.endpoints).filter_map(AdoptedEndpoint::endpoint) {
        schemes.insert(endpoint.host, endpoint.scheme);
    }
    let mirroring: BTreeSet<Host> = schemes.keys().cloned().gathered();
    for (source, _) in adopted.mirrors.iter().filter(|(_, mirror)| mirror.http) {
        schemes.extend(Host::new(source).ok().map(|host| (host, Scheme::Http)));
    }
    let api = |host: &Host| host.api();
    let sources: Vec<Host> = adopted.mirrors.keys().filter_map(|source| Host::new(source).ok()).collect();
    let configured: BTreeMap<Host, &AdoptedHost> =
        adopted.hosts.iter().filter_map(|(host, how)| Some((Host::new(host).ok()?, how))).gathered();
    let mut hosts: BTreeSet<Host> = sources.into_iter().chain(schemes.keys().cloned()).chain(configured.keys().cloned()).gathered();
    // the settings of an API's host are those of the registry that is asked there
    let hub = Host::fixed(crate::model::host::HUB);
    if configured.contains_key(&hub.api()) {
        hosts.insert(hub);
    }
    if whole.all().is_some() {
        // the spec speaks of all registries: what is not its own is no registry of its own now
        hosts.retain(|host| whole.access.contains_key(host));
    }
    if whole.unlisted == Unlisted::Deny {
        // asked directly only as mirror of something, or as the rest of a source that has mirrors
        let with_mirrors = |host: &Host| adopted.mirrors.get(host.as_str()).is_some_and(|mirror| !mirror.endpoints.is_empty());
        hosts.retain(|host| mirroring.contains(host) || with_mirrors(host) || whole.access.contains_key(host));
    }
    for host in hosts {
        let how = configured.get(&api(&host)).copied();
        let loopback = host.is_loopback();
        let default = if loopback && how.is_none() { Scheme::Http } else { Scheme::Https };
        let scheme = schemes.get(&host).copied().unwrap_or(default);
        let before = how.map_or_else(|| Access { scheme, ..Access::bare() }, |how| how.access(scheme));
        let is_source = whole.is_source_host(&host);
        match whole.access.get_mut(&host) {
            // a source of the spec is reached as any host of it, but for what was found
            None if is_source => {
                let ca = if before.ca.is_empty() && !before.insecure { whole.default_access.ca.clone() } else { before.ca.clone() };
                whole.access.insert(host, Access { ca, ..before });
            }
            None => {
                whole.access.insert(host, before);
            }
            Some(access) => {
                access.login = access.login.take().or(before.login);
                access.client = access.client.take().or(before.client);
                if access.ca.is_empty() && !access.insecure && access.scheme == Scheme::Https {
                    access.ca = before.ca;
                    access.insecure = before.insecure;
                }
            }
        }
    }
}

/// What was said for all registries. A host that is reached in its own way has a configuration of its own, which says it again.
fn rest(whole: &mut Spec, adopted: &Adopted, all: &AdoptedMirror, fallback: Fallback, named: &BTreeSet<Host>) {
    let endpoints_of = |host: Option<&Host>| endpoints(all, host, Fallback::Upstream);
    let everywhere = endpoints_of(None);
    if everywhere.is_empty() {
        return;
    }
    let sources: BTreeSet<Host> = adopted.mirrors.keys().filter_map(|source| Host::new(source).ok()).gathered();
    let own: Vec<Host> = whole.access.keys().filter(|host| !named.contains(*host) && !sources.contains(*host)).cloned().collect();
    whole.names = Names::default();
    for host in own.into_iter().filter(|host| whole.mirrors_named(host).next().is_none()).collect::<Vec<_>>() {
        // where the registry is one of the endpoints it is not asked again
        let itself = everywhere.iter().any(|endpoint| endpoint.host == host);
        if fallback == Fallback::Upstream {
            whole.exact.insert(host.clone());
        }
        let fallback = if itself { Fallback::Never } else { fallback };
        whole.mirrors.push(carried(Source::registry(host), everywhere.clone(), fallback, all));
    }
    // it is not for hosts that the spec or the old settings name: all of these are in `access`
    whole.mirrors.push(carried(Source::All, everywhere, fallback, all));
}
