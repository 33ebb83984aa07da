//! Where a mirror keeps repositories.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::host::Host;
use super::repo::RepoPath;

/// How a host is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// TLS.
    Https,
    /// Plain text.
    Http,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Scheme {
    /// As it stands in URLs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Https => "https",
            Self::Http => "http",
        }
    }
}

/// What a `timeout` may be: none at all is no limit to Go, and nobody waits longer, because kubelet gives a pull up earlier.
pub const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(300);

/// Where repositories live: `harbor.corp/dockerhub` means that `library/nginx` is `harbor.corp/dockerhub/library/nginx`. How
/// that becomes a URL is each runtime's own matter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// TLS unless `http://` was written.
    pub scheme: Scheme,
    /// Host and port.
    pub host: Host,
    /// Put in front of the repository.
    pub prefix: RepoPath,
    /// `prefix` is the whole path of the API, without `/v2` in front: found in somebody's file, never in a spec.
    pub verbatim: bool,
    /// Which references it is asked for.
    pub pull: Pull,
    /// How long a connection to it may take; the runtime's own limit where it is not said.
    pub timeout: Option<Duration>,
    /// Sent with every request, name and value; a spec has no secret there.
    pub header: Vec<(String, String)>,
    /// `header` was found in somebody's file, and may well be secret.
    pub guarded: bool,
}

/// Which references an endpoint is asked for: `pull-from-mirror` of containers-registries.conf(5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pull {
    /// `all`.
    #[default]
    All,
    /// `digest-only`.
    Digest,
    /// `tag-only`.
    Tag,
}

impl Pull {
    /// Whether there is nothing to say of it.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether references of this kind are asked for there.
    #[must_use]
    pub const fn takes(self, by_digest: bool) -> bool {
        match self {
            Self::All => true,
            Self::Digest => by_digest,
            Self::Tag => !by_digest,
        }
    }
}

impl Endpoint {
    /// A place without options.
    #[must_use]
    pub const fn new(scheme: Scheme, host: Host, prefix: RepoPath) -> Self {
        Self { scheme, host, prefix, verbatim: false, pull: Pull::All, timeout: None, header: Vec::new(), guarded: false }
    }

    /// What stands in the URL between host and repository.
    #[must_use]
    pub fn api_root(&self) -> String {
        match (self.verbatim, self.prefix.is_all()) {
            (true, true) => String::new(),
            (true, false) => format!("/{}", self.prefix),
            (false, true) => "/v2".to_owned(),
            (false, false) => format!("/v2/{}", self.prefix),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.scheme == Scheme::Http {
            f.write_str("http://")?;
        }
        f.write_str(self.host.as_str())?;
        if self.verbatim {
            return write!(f, "{}/ (without /v2)", self.api_root());
        }
        if !self.prefix.is_all() {
            f.write_str("/")?;
            f.write_str(self.prefix.as_str())?;
        }
        Ok(())
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Endpoint {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}
