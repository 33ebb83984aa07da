//! What the user wrote: one document for a whole fleet.
//!
//! What lives here: the documents with the place of every value ([`documents`], [`document`], [`yaml`], [`text`]), the table that
//! decodes them ([`table`], [`decode`], [`schema`]), closing it over the files that it references ([`load`], [`mod@reference`]),
//! what is wrong with it ([`validate`], [`problems`]), its meaning ([`mod@intent`]), what of it is for one runtime ([`scope`]), what
//! a runtime can express of that ([`express`]), what a node adds to it for one target ([`mod@adopt`]).
//! What must not: effects (referenced files arrive as bytes), any runtime's or file format's words.
//!
//! A [`Spec`] is closed and resolved: every referenced file is inside, every default filled in, every value valid. What is
//! not valid never becomes a `Spec`.

pub mod adopt;
pub mod decode;
pub mod document;
pub mod documents;
pub mod domains;
pub mod express;
pub mod intent;
pub mod load;
mod masks;
mod nearest;
pub mod notation;
pub mod problems;
pub mod reference;
pub mod requires;
pub mod schema;
pub mod scope;
mod secrets;
pub mod signature;
pub mod table;
pub mod text;
pub mod validate;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::model::cert::Cert;
use crate::model::digest::{Digest, Fingerprint};
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::{self, Gather as _};
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::secret::Secret;
use crate::model::suffix::{Suffix, is_below};
use crate::runtime::Runtime;

/// The number of a spec, and what it is the number of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Serial {
    /// `serial`.
    pub number: u64,
    /// SHA-256 of its documents: of the bytes of one, else of the digests and names of all.
    pub documents: Digest,
}

/// What happens when no endpoint has the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The source is never asked.
    Never,
    /// The source is asked last.
    Upstream,
}

/// What happens to a closed source none of whose endpoints answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUnready {
    /// It is kept back: what is on the node stays.
    #[default]
    Keep,
    /// It is written anyway.
    Apply,
}

/// What happens to registries that the spec does not name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unlisted {
    /// They are left as they are.
    #[default]
    Allow,
    /// Nothing is pulled from them.
    Deny,
}

/// What a spec is called that does not say its name.
pub const DEFAULT_NAME: &str = "default";

/// A valid, closed spec.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The document as given to `--spec`.
    pub file: Arc<str>,
    /// Digest over the document and everything that it references.
    pub digest: Digest,
    /// The files that it references, as they are written there.
    pub references: Vec<String>,
    /// Which spec it is: `name`, else [`DEFAULT_NAME`].
    pub name: String,
    /// Its number, where it has one.
    pub serial: Option<Serial>,
    /// The document's `fallback`; each mirror carries its own, resolved.
    pub fallback: Fallback,
    /// What happens to registries that it does not name.
    pub unlisted: Unlisted,
    /// What the fleet runs, when the document says so.
    pub runtimes: Option<Vec<Runtime>>,
    /// Internal CAs, in the document's order.
    pub cas: Vec<Ca>,
    /// How to reach each host that appears as an endpoint, in `[[registry]]` or in `pause_image`: resolved defaults.
    pub access: BTreeMap<Host, Access>,
    /// How to reach a host that does not appear: every CA with `trust = "system"`, no login, TLS verified.
    pub default_access: Access,
    /// What is pulled from where, in the document's order.
    pub mirrors: Vec<Mirror>,
    /// The pause image of the CRI runtimes.
    pub pause: Option<Pause>,
    /// Where names without a registry are looked for, in order, by runtimes that look for them at all; `None`: as it is.
    pub search: Option<Vec<Host>>,
    /// Domains that are closed under `unlisted = "deny"` where only what is named can be closed; `None`: the shipped ones
    /// ([`domains`]).
    pub deny_domains: Option<Vec<Suffix>>,
    /// Images by which it is known whether mirrors are fresh.
    pub canaries: Vec<Canary>,
    /// Hosts that are named as endpoints only, by no `[[registry]]` and no pause image.
    pub passing: BTreeSet<Host>,
    /// Sources whose `never` is for this one name of the registry: only adopted ([`mod@adopt`]), a document cannot say it.
    pub exact: BTreeSet<Host>,
    /// Which mirrors a host name leads to; made when first asked.
    pub names: Names,
}

/// Which mirrors there are for a host, by their place in [`Spec::mirrors`]: a fleet may mirror a thousand registries, and each
/// is looked up many times.
#[derive(Clone, Debug, Default)]
pub struct Names(OnceLock<Lookup>);

#[derive(Clone, Debug, Default)]
struct Lookup {
    /// Those of named registries.
    hosts: HashMap<Host, Vec<usize>>,
    /// Those of domains, the longest first.
    domains: Vec<usize>,
    /// That of all others.
    all: Option<usize>,
}

/// A `[[ca]]`.
#[derive(Clone, Debug)]
pub struct Ca {
    /// Its name.
    pub name: String,
    /// Its currently valid certificates (an expired one among valid ones is left out, with a warning).
    pub certs: Vec<Cert>,
    /// Whether it goes into the OS trust store.
    pub scope: Scope,
    /// Where it is written.
    pub at: Place,
}

/// `trust` of a `[[ca]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The OS trust store, and every registry that does not name its own CAs.
    System,
    /// Only the registries that name it.
    Registries,
}

/// How a host is reached.
#[derive(Clone, Debug)]
pub struct Access {
    /// TLS, or plain HTTP where an endpoint says `http://`.
    pub scheme: Scheme,
    /// Trusted in addition to the OS trust store.
    pub ca: Arc<[Cert]>,
    /// Client certificate for mTLS.
    pub client: Option<Client>,
    /// Static login.
    pub login: Option<Login>,
    /// HTTPS without verification.
    pub insecure: bool,
    /// Where it is written: `[[registry]]`, else the first endpoint.
    pub at: Option<Place>,
}

impl Access {
    /// A host of which the spec says nothing: TLS verified by the OS trust store, nothing else.
    #[must_use]
    pub fn bare() -> Self {
        Self { scheme: Scheme::Https, ca: Arc::from([]), client: None, login: None, insecure: false, at: None }
    }
}

/// A client certificate and its key.
#[derive(Clone, Debug)]
pub struct Client {
    /// The chain, leaf first.
    pub certs: Vec<Cert>,
    /// The private key as PEM text.
    pub key: Secret,
}

impl Client {
    /// The leaf's fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.certs.first().map(|cert| cert.fingerprint)
    }

    /// The chain as PEM.
    #[must_use]
    pub fn chain_pem(&self) -> String {
        self.certs.iter().map(Cert::to_pem).collect()
    }
}

/// A login from a dockerconfigjson file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// `user:password`.
    pub basic: Secret,
    /// How containerd is told.
    pub by: LoginBy,
}

/// `credentials_by` of a `[[registry]]`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginBy {
    /// A header of hosts.toml.
    #[default]
    Header,
    /// config.toml, where a header does not reach the place where tokens are issued.
    Config,
}

/// A `[[mirror]]`, or what one of its `hosts` is.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// What is mirrored.
    pub source: Source,
    /// Where it is kept, in the order in which they are tried; none for a `[[blocked]]`.
    pub endpoints: Vec<Endpoint>,
    /// Resolved: the mirror's own, else the document's.
    pub fallback: Fallback,
    /// A runtime that knows whole registries only takes the whole registry there.
    pub widen: bool,
    /// The runtimes that it is for; `None` for all.
    pub runtimes: Option<Vec<Runtime>>,
    /// What happens while none of the endpoints answers.
    pub on_unready: OnUnready,
    /// Where it is written.
    pub at: Place,
}

impl Mirror {
    /// Whether nothing is pulled from its source at all: a `[[blocked]]`.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.endpoints.is_empty() && self.fallback == Fallback::Never
    }
}

/// What a mirror stands in for. Where several do, the longest counts: a path, then a registry, then a domain, then all.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// `*`: every registry that the spec does not name otherwise.
    All,
    /// `*.domain`: the registries below a domain that the spec does not name otherwise.
    Domain(Suffix),
    /// A registry, or the repositories below a path of it.
    Prefix {
        /// The registry.
        host: Host,
        /// Below which path; empty for all of it.
        path: RepoPath,
    },
}

impl Source {
    /// A whole registry.
    #[must_use]
    pub fn registry(host: Host) -> Self {
        Self::Prefix { host, path: RepoPath::all() }
    }

    /// The registry that is named, and the path below which it is meant.
    #[must_use]
    pub fn prefix(&self) -> Option<(&Host, &RepoPath)> {
        match self {
            Self::Prefix { host, path } => Some((host, path)),
            Self::All | Self::Domain(_) => None,
        }
    }

    /// The registry that is named.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        self.prefix().map(|(host, _)| host)
    }

    /// The registry that is named, where it is meant as a whole.
    #[must_use]
    pub fn whole(&self) -> Option<&Host> {
        self.prefix().filter(|(_, path)| path.is_all()).map(|(host, _)| host)
    }

    /// The registry of which only the repositories below a path are meant.
    #[must_use]
    pub fn below_host(&self) -> Option<(&Host, &RepoPath)> {
        self.prefix().filter(|(_, path)| !path.is_all())
    }

    /// What is put behind an endpoint for a repository of a registry that this source is for; `None` where it is not for the
    /// repository.
    #[must_use]
    pub fn rest(&self, repo: &RepoPath) -> Option<RepoPath> {
        match self {
            Self::Prefix { path, .. } => repo.below(path),
            Self::All | Self::Domain(_) => Some(repo.clone()),
        }
    }

    /// How long the path is.
    fn depth(&self) -> usize {
        self.prefix().map_or(0, |(_, path)| path.as_str().len())
    }
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => write!(f, "{domain}"),
            Self::Prefix { host, path } if path.is_all() => write!(f, "{host}"),
            Self::Prefix { host, path } => write!(f, "{host}/{path}"),
        }
    }
}

/// A `[[canary]]`.
#[derive(Clone, Debug)]
pub struct Canary {
    /// The image.
    pub image: ImageRef,
    /// The digest that its tag has to have.
    pub digest: Option<String>,
    /// How old it may be.
    pub max_age: Option<std::time::Duration>,
    /// Where it is written.
    pub at: Place,
}

/// `pause_image`.
#[derive(Clone, Debug)]
pub struct Pause {
    /// The image, as it is written into the runtimes' configuration.
    pub image: ImageRef,
    /// Where it is written.
    pub at: Place,
    /// Runtimes that keep the one that they have until this one can be had: why, and what to do.
    pub held: BTreeMap<Runtime, (String, String)>,
}

impl Spec {
    /// How to reach `host` (as named in an image reference or an endpoint).
    #[must_use]
    pub fn access(&self, host: &Host) -> &Access {
        self.access.get(host).unwrap_or(&self.default_access)
    }

    fn lookup(&self) -> &Lookup {
        self.names.0.get_or_init(|| {
            let mut lookup = Lookup { hosts: HashMap::with_capacity(self.mirrors.len()), ..Lookup::default() };
            for (at, mirror) in self.mirrors.iter().enumerate() {
                match &mirror.source {
                    Source::All => lookup.all = lookup.all.or(Some(at)),
                    Source::Domain(_) => lookup.domains.push(at),
                    Source::Prefix { host, .. } => {
                        for name in std::iter::once(host.clone()).chain(self.closed_names(mirror)) {
                            lookup.hosts.entry(name).or_default().push(at);
                        }
                    }
                }
            }
            order::sort_by_key(&mut lookup.domains, |at| std::cmp::Reverse(self.mirrors[*at].source.to_string().len()));
            lookup
        })
    }

    /// The mirrors whose source is known under this host name: its own; under `fallback = "never"` all its names
    /// ([`Host::aliases`]).
    pub fn mirrors_named(&self, host: &Host) -> impl Iterator<Item = &Mirror> {
        self.lookup().hosts.get(host).into_iter().flatten().filter_map(|at| self.mirrors.get(*at))
    }

    /// The other names under which a mirror's source is closed too.
    #[must_use]
    pub fn closed_names(&self, mirror: &Mirror) -> Vec<Host> {
        let host = mirror.source.host().filter(|host| mirror.fallback == Fallback::Never && !self.exact.contains(*host));
        host.map(Host::aliases).unwrap_or_default()
    }

    /// Whether the host is that of a source, as the spec writes it.
    #[must_use]
    pub fn is_source_host(&self, host: &Host) -> bool {
        self.mirrors_named(host).any(|mirror| mirror.source.host() == Some(host))
    }

    /// Whether the spec says anything about an image; what it does not speak of is left as it is.
    #[must_use]
    pub fn covers(&self, image: &ImageRef) -> bool {
        (self.unlisted == Unlisted::Deny && !self.beside_domain(&image.host))
            || self.access.contains_key(&image.host)
            || self.mirror_of(image).is_some()
    }

    /// Whether it is a name with a port below the domain of a source: no registry of that source, and none that could be closed
    /// or opened beside it ([`express`]).
    #[must_use]
    pub fn beside_domain(&self, host: &Host) -> bool {
        let lookup = self.lookup();
        let mut domains = lookup.domains.iter().filter_map(|at| match &self.mirrors[*at].source {
            Source::Domain(domain) => Some(domain.domain()),
            Source::All | Source::Prefix { .. } => None,
        });
        host.port().is_some() && domains.any(|domain| is_below(host, domain))
    }

    /// The mirror that is responsible for an image, longest source first.
    #[must_use]
    pub fn mirror_of(&self, image: &ImageRef) -> Option<&Mirror> {
        let covers = |mirror: &&Mirror| {
            let (rest, whole) = (mirror.source.rest(&image.repo), mirror.source.whole().is_some());
            rest.is_some_and(|rest| !rest.is_all() || !whole)
        };
        let named = self.mirrors_named(&image.host).filter(covers).max_by_key(|mirror| mirror.source.depth());
        named.or_else(|| self.wider(&image.host))
    }

    /// The mirror for what of a registry no other source is for: of the longest domain that it lies below, else of all. A host
    /// that the spec names as endpoint, in `[[registry]]` or in the pause image is a registry of its own.
    #[must_use]
    pub fn wider(&self, host: &Host) -> Option<&Mirror> {
        if self.access.contains_key(host) {
            return None;
        }
        let lookup = self.lookup();
        let below = |at: &&usize| matches!(&self.mirrors[**at].source, Source::Domain(domain) if domain.covers(host));
        let domain = lookup.domains.iter().find(below).copied();
        domain.or(lookup.all).and_then(|at| self.mirrors.get(at))
    }

    /// The mirror of all registries that have no other.
    #[must_use]
    pub fn all(&self) -> Option<&Mirror> {
        self.lookup().all.and_then(|at| self.mirrors.get(at))
    }

    /// Every host that has a configuration of its own because images are pulled from it directly: endpoints,
    /// `[[registry]]` and the pause image's, less those that are a whole source of a mirror.
    pub fn own_hosts(&self) -> impl Iterator<Item = (&Host, &Access)> {
        let sources: BTreeSet<&Host> = self.mirrors.iter().filter_map(|mirror| mirror.source.whole()).gathered();
        self.access.iter().filter(move |(host, _)| !sources.contains(host))
    }
}
