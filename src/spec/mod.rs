//! What the user wrote: one document for a whole fleet.
//!
//! What lives here: the document with the place of every value ([`document`], [`text`]), the table that decodes it ([`table`],
//! [`decode`]), closing it over the files that it references ([`load`], [`mod@reference`]), what is wrong with it
//! ([`validate`], [`problems`]), its meaning ([`mod@intent`]), what a runtime can express of it ([`express`]), what a node adds
//! to it for one target ([`mod@adopt`]).
//! What must not: effects (referenced files arrive as bytes), any runtime's or file format's words.
//!
//! A [`Spec`] is closed and resolved: every referenced file is inside, every default filled in, every value valid. What is
//! not valid never becomes a `Spec`.

pub mod adopt;
pub mod decode;
pub mod document;
pub mod domains;
pub mod express;
pub mod intent;
pub mod load;
mod nearest;
pub mod problems;
pub mod reference;
pub mod table;
pub mod text;
pub mod validate;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use serde::Serialize;

use crate::model::cert::Cert;
use crate::model::digest::{Digest, Fingerprint};
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::secret::Secret;
use crate::runtime::Runtime;

/// What happens when no endpoint has the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Fallback {
    /// The source is never asked.
    Never,
    /// The source is asked last.
    Upstream,
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

/// A valid, closed spec.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The document as given to `--spec`.
    pub file: Arc<str>,
    /// Digest over the document and everything that it references.
    pub digest: Digest,
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
    /// Where every registry that is not named is mirrored: only adopted ([`mod@adopt`]), a document cannot say it.
    pub rest: Option<Rest>,
    /// Sources whose `never` is for this one name of the registry: only adopted, too.
    pub exact: std::collections::BTreeSet<Host>,
    /// Which mirrors a host name leads to; made when first asked.
    pub names: Names,
}

/// Host name → mirrors, by their place in [`Spec::mirrors`]: a fleet may mirror a thousand registries, and each is looked up
/// many times.
#[derive(Clone, Debug, Default)]
pub struct Names(OnceLock<BTreeMap<Host, Vec<usize>>>);

/// A mirror for every registry that has no other.
#[derive(Clone, Debug)]
pub struct Rest {
    /// Where everything is kept.
    pub endpoints: Vec<Endpoint>,
    /// Whether the registries themselves are asked last.
    pub fallback: Fallback,
    /// Hosts that it is not for: they are asked directly.
    pub except: std::collections::BTreeSet<Host>,
    /// Where it is written.
    pub at: Place,
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

/// A `[[mirror]]`.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// What is mirrored.
    pub source: Source,
    /// Where it is kept, in the order in which they are tried; at least one.
    pub endpoints: Vec<Endpoint>,
    /// Resolved: the mirror's own, else the document's.
    pub fallback: Fallback,
    /// Where it is written.
    pub at: Place,
}

/// What a mirror stands in for: a registry, or the repositories below a path of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// The registry.
    pub host: Host,
    /// Below which path; empty for all of it.
    pub path: RepoPath,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.host)?;
        if self.path.is_all() { Ok(()) } else { write!(f, "/{}", self.path) }
    }
}

/// `pause_image`.
#[derive(Clone, Debug)]
pub struct Pause {
    /// The image, as it is written into the runtimes' configuration.
    pub image: ImageRef,
    /// Where it is written.
    pub at: Place,
}

impl Spec {
    /// How to reach `host` (as named in an image reference or an endpoint).
    #[must_use]
    pub fn access(&self, host: &Host) -> &Access {
        self.access.get(host).unwrap_or(&self.default_access)
    }

    /// The mirrors whose source is known under this host name: its own; under `fallback = "never"` all its names
    /// ([`Host::aliases`]).
    pub fn mirrors_named(&self, host: &Host) -> impl Iterator<Item = &Mirror> {
        let names = self.names.0.get_or_init(|| {
            let mut names: BTreeMap<Host, Vec<usize>> = BTreeMap::new();
            for (at, mirror) in self.mirrors.iter().enumerate() {
                for name in std::iter::once(mirror.source.host.clone()).chain(self.closed_names(mirror)) {
                    names.entry(name).or_default().push(at);
                }
            }
            names
        });
        names.get(host).into_iter().flatten().filter_map(|at| self.mirrors.get(*at))
    }

    /// The other names under which a mirror's source is closed too.
    #[must_use]
    pub fn closed_names(&self, mirror: &Mirror) -> Vec<Host> {
        let closed = mirror.fallback == Fallback::Never && !self.exact.contains(&mirror.source.host);
        if closed { mirror.source.host.aliases() } else { Vec::new() }
    }

    /// Whether the host is that of a source, as the spec writes it.
    #[must_use]
    pub fn is_source_host(&self, host: &Host) -> bool {
        self.mirrors_named(host).any(|mirror| mirror.source.host == *host)
    }

    /// Whether the spec says anything about an image; what it does not speak of is left as it is.
    #[must_use]
    pub fn covers(&self, image: &ImageRef) -> bool {
        self.unlisted == Unlisted::Deny || self.access.contains_key(&image.host) || self.mirror_of(image).is_some()
    }

    /// The mirror that is responsible for an image, longest source first.
    #[must_use]
    pub fn mirror_of(&self, image: &ImageRef) -> Option<&Mirror> {
        let covers = |mirror: &&Mirror| {
            let path = &mirror.source.path;
            image.repo.below(path).is_some_and(|rest| !rest.is_all() || !path.is_all())
        };
        self.mirrors_named(&image.host).filter(covers).max_by_key(|mirror| mirror.source.path.as_str().len())
    }

    /// The mirror of all registries, where it is for this host.
    #[must_use]
    pub fn rest_of(&self, host: &Host) -> Option<&Rest> {
        self.rest.as_ref().filter(|rest| !rest.except.contains(host) && self.mirrors_named(host).next().is_none())
    }

    /// Every host that has a configuration of its own because images are pulled from it directly: endpoints,
    /// `[[registry]]` and the pause image's, less those that are a whole source of a mirror.
    pub fn own_hosts(&self) -> impl Iterator<Item = (&Host, &Access)> {
        let sources: std::collections::BTreeSet<&Host> =
            self.mirrors.iter().filter(|mirror| mirror.source.path.is_all()).map(|mirror| &mirror.source.host).collect();
        self.access.iter().filter(move |(host, _)| !sources.contains(host))
    }
}
