//! Where a mirror keeps repositories.

use std::fmt;

use serde::{Serialize, Serializer};

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
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
        })
    }
}

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
}

impl Endpoint {
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
        write!(f, "{}", self.host)?;
        if self.verbatim {
            return write!(f, "{}/ (without /v2)", self.api_root());
        }
        if !self.prefix.is_all() {
            write!(f, "/{}", self.prefix)?;
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
