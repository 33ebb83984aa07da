//! Domains whose sub-domains are meant.

use std::fmt;
use std::sync::Arc;

use super::host::{Host, HostError};

/// `*.example.com`: every registry below a domain, at any depth, and not the domain itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Suffix(Arc<str>);

impl Suffix {
    /// Reads the domain, without `*.` in front: a DNS name without port.
    ///
    /// # Errors
    /// Anything else; an address has no sub-domains.
    pub fn new(domain: &str) -> Result<Self, HostError> {
        let host = Host::new(domain)?;
        let top = host.name().rsplit('.').next().unwrap_or_default();
        if host.port().is_some() || host.is_ipv6() || top.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(HostError::Name(domain.to_owned()));
        }
        Ok(Self(domain.into()))
    }

    /// The domain, without `*.`.
    #[must_use]
    pub fn domain(&self) -> &str {
        &self.0
    }

    /// Whether a registry is meant: one below the domain that is written without port. A port is behind the domain, and what
    /// stands behind it cannot be told from a path (R05); so a name with a port is another registry.
    #[must_use]
    pub fn covers(&self, host: &Host) -> bool {
        host.port().is_none() && is_below(host, &self.0)
    }
}

/// Whether a name lies below a domain in the eyes of containers/image, which looks for the first place where `.domain` stands
/// and takes no other (`refMatchingSubdomainPrefix`; seen on skopeo 1.9.3): `registry.iodine.io` is not below `io`.
#[must_use]
pub fn is_below(host: &Host, domain: &str) -> bool {
    let name = host.name();
    let first = name.match_indices('.').map(|(dot, _)| &name[dot + 1..]).find(|rest| rest.starts_with(domain));
    !name.starts_with('.') && first == Some(domain)
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "*.{}", self.0)
    }
}

impl fmt::Debug for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covers_what_containers_image_takes_for_a_sub_domain() {
        let domain = Suffix::new("example.com").unwrap();
        for (host, below) in [
            ("a.example.com", true),
            ("a.b.example.com", true),
            ("example.com", false),
            ("aexample.com", false),
            ("a.example.com:5000", false),
            ("a.example.com.evil.org", false),
            ("a.example.community.example.com", false),
        ] {
            assert_eq!(domain.covers(&Host::new(host).unwrap()), below, "{host}");
        }
        assert_eq!(domain.to_string(), "*.example.com");
    }

    #[test]
    fn is_a_domain_of_names() {
        for bad in ["", "example.com:5000", "a..b", "10.0.0.1", "0.1", "[2001:db8::1]", "example.com.", "example.com/x", "*", "Example.com"]
        {
            assert!(Suffix::new(bad).is_err(), "{bad}");
        }
        assert!(Suffix::new("io").is_ok());
    }
}
