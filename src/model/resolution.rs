//! What a runtime asks for an image: the one form in which the spec's meaning, each runtime's reading of the files on the
//! node, the tests' access logs and the proof before the first byte are compared.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Serialize, Serializer};

use super::digest::Fingerprint;
use super::endpoint::Scheme;
use super::host::Host;
use super::image::ImageRef;
use super::path::NodePath;
use super::place::Place;
use super::repo::RepoPath;
use super::secret::Secret;

/// The ordered requests that a runtime makes for an image until one succeeds, and what happens after the last.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Resolution {
    /// The image asked for, normalised.
    pub image: ImageRef,
    /// In the order in which they are made.
    pub attempts: Vec<Attempt>,
    /// After the last attempt.
    pub end: End,
    /// The files that were looked at for it, and what each was good for.
    pub files: Vec<FileVerdict>,
}

/// A file and its part in a resolution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileVerdict {
    /// The file or folder.
    pub path: NodePath,
    /// Used, or why not.
    #[serde(flatten)]
    pub verdict: Verdict,
}

/// One host that is asked, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attempt {
    /// TLS or plain.
    pub scheme: Scheme,
    /// The host that the connection goes to.
    pub host: Host,
    /// What stands in the URL between host and repository: `/v2`, `/v2/hub`; begins with a slash, or is empty.
    pub api_root: String,
    /// The repository in the URL.
    pub repo: RepoPath,
    /// What it is asked for.
    pub ops: Ops,
    /// The image's own registry rather than a mirror.
    pub upstream: bool,
    /// How its certificate is checked.
    pub trust: Trust,
    /// The client certificate that is presented: fingerprint of the leaf.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<Fingerprint>,
    /// What static login is sent when the host asks for one (or always, as a header).
    pub auth: Auth,
    /// Other headers that are sent with every request; only their names are shown.
    #[serde(serialize_with = "names", skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<(String, Secret)>,
    /// How long a connection may take, where a file says so; no part of the meaning in which runtimes must agree.
    #[serde(skip)]
    pub timeout: Option<Duration>,
    /// The file and line that say so; the runtime's built-in default where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Place>,
}

/// What a host is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Ops {
    /// Turning a tag into a digest.
    pub resolve: bool,
    /// Manifests by digest.
    pub manifest: bool,
    /// Layers.
    pub blob: bool,
}

impl Ops {
    /// Everything that a pull needs.
    pub const PULL: Self = Self { resolve: true, manifest: true, blob: true };
}

/// How a host's identity is checked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Trust {
    /// Plain HTTP: not at all.
    Plain,
    /// TLS, any certificate.
    Unverified,
    /// TLS; the OS trust store and these certificates beside it.
    Verified {
        /// Trusted for this registry only, in addition to the OS trust store.
        extra: BTreeSet<Fingerprint>,
    },
}

/// A static login.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auth {
    /// None configured on the node; what kubelet passes along with a pull is another matter.
    None,
    /// `user:password`.
    Basic(Secret),
    /// Something that nodeprep does not look into: a credential helper, a token, another header.
    Other(String),
}

impl Serialize for Auth {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => to.serialize_str("none"),
            Self::Basic(_) => to.serialize_str("basic"),
            Self::Other(what) => to.serialize_str(what),
        }
    }
}

/// What happens when no attempt succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "why")]
pub enum End {
    /// The pull fails with the last (or first) host's error.
    Exhausted,
    /// The configuration refuses the image's own registry, for this reason.
    Blocked(String),
    /// The configuration is unusable: nothing is asked, every such pull fails, for this reason.
    Broken(String),
}

/// What a file was good for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict", content = "why")]
pub enum Verdict {
    /// It decides.
    Used,
    /// Another file stands in front of it.
    Shadowed(NodePath),
    /// The runtime passes over it, mostly in silence.
    Ignored(String),
    /// The runtime fails because of it.
    Broken(String),
}

/// The part of an [`Attempt`] in which all runtimes must agree.
pub type AttemptKey = (Scheme, Host, String, Ops, Trust, Option<Fingerprint>, Auth, Vec<(String, Secret)>);

fn names<S: Serializer>(header: &[(String, Secret)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(header.iter().map(|(name, _)| name))
}

impl Attempt {
    /// The URL of the request that decides: the manifest of `image`.
    #[must_use]
    pub fn manifest_url(&self, image: &ImageRef) -> String {
        format!("{}://{}{}/{}/manifests/{}", self.scheme, self.host, self.api_root, self.repo, image.reference())
    }

    /// What must be equal in all runtimes: not which file it comes from, nor where the URL is cut between API root and
    /// repository.
    #[must_use]
    pub fn key(&self) -> AttemptKey {
        let path = format!("{}/{}", self.api_root, self.repo);
        (self.scheme, self.host.clone(), path, self.ops, self.trust.clone(), self.client, self.auth.clone(), self.header.clone())
    }

    /// Whether the keys are equal, without making them.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        let path = |one: &Self| one.api_root.len() + 1 + one.repo.as_str().len();
        let bytes = |one: &'_ Self| one.api_root.bytes().chain(*b"/").chain(one.repo.as_str().bytes()).collect::<Vec<u8>>();
        (self.scheme, self.ops, self.client) == (other.scheme, other.ops, other.client)
            && self.host == other.host
            && path(self) == path(other)
            && ((self.api_root == other.api_root && self.repo == other.repo) || bytes(self) == bytes(other))
            && self.trust == other.trust
            && self.auth == other.auth
            && self.header == other.header
    }
}

impl Resolution {
    /// What must be equal in all runtimes: the attempts' keys in order, and whether anything is asked at all.
    #[must_use]
    pub fn key(&self) -> (Vec<AttemptKey>, bool) {
        (self.attempts.iter().map(Attempt::key).collect(), matches!(self.end, End::Broken(_)))
    }

    /// The same where asking again in a row is asking once: a hosts.toml may name its server as host, too, mostly with the
    /// CAs only there. Whoever is not believed with more CAs is not with fewer.
    #[must_use]
    pub fn settled(&self) -> (Vec<AttemptKey>, bool) {
        let (mut attempts, broken) = self.key();
        let believed_less = |again: &Trust, before: &Trust| match (again, before) {
            (Trust::Verified { extra: again }, Trust::Verified { extra: before }) => again.is_subset(before),
            (again, before) => again == before,
        };
        attempts.dedup_by(|again, before| {
            let rest = |key: &AttemptKey| (key.0, key.1.clone(), key.2.clone(), key.3, key.5, key.6.clone(), key.7.clone());
            rest(again) == rest(before) && believed_less(&again.4, &before.4)
        });
        (attempts, broken)
    }

    /// Whether the keys are equal, without making them.
    #[must_use]
    pub fn same(&self, other: &Self) -> bool {
        matches!(self.end, End::Broken(_)) == matches!(other.end, End::Broken(_))
            && self.attempts.len() == other.attempts.len()
            && self.attempts.iter().zip(&other.attempts).all(|(one, other)| one.same(other))
    }

    /// Whether a pull may end at the image's own registry.
    #[must_use]
    pub fn reaches_upstream(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.upstream)
    }
}
