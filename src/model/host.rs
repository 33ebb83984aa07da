//! Registry hosts.

use std::fmt;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A registry's name as it stands in image references and file names: DNS name, IPv4 address or bracketed IPv6 address,
/// with the port if one is written. `quay.io` and `quay.io:443` are different names (runtimes compare text).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host {
    text: Arc<str>,
    /// Where in `text` the name ends and `:port` begins.
    name_end: usize,
    port: Option<u16>,
}

/// Docker Hub as it is named in references.
pub const HUB: &str = "docker.io";
/// Where Docker Hub's API really is.
pub const HUB_API: &str = "registry-1.docker.io";

/// Why a text is no host.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("no host given")]
    Empty,
    /// `https://host` where only `host` belongs.
    #[error("{0:?} begins with a scheme")]
    Scheme(String),
    /// Runtimes compare host names byte by byte.
    #[error("host {0:?} has capitals")]
    UpperCase(String),
    /// Not 1–65535.
    #[error("port {1:?} of host {0:?} is not between 1 and 65535")]
    Port(String, String),
    /// An IPv6 address needs brackets, and must be one.
    #[error("{0:?} is no IPv6 address in brackets")]
    Ipv6(String),
    /// Not letters, digits and inner dashes between dots.
    #[error("{0:?} is no host name")]
    Name(String),
}

impl Host {
    /// Reads `name[:port]` as the spec writes it: lower case, no scheme, no path.
    ///
    /// # Errors
    /// Anything that is not such a host.
    pub fn new(text: &str) -> Result<Self, HostError> {
        // one byte is found sooner than three
        if text.as_bytes().contains(&b':') && text.contains("://") {
            return Err(HostError::Scheme(text.to_owned()));
        }
        if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return Err(HostError::UpperCase(text.to_owned()));
        }
        Self::from_reference(text)
    }

    /// The same for the host part of an image reference, where capitals are allowed (and never match a lower-case file
    /// name).
    ///
    /// # Errors
    /// Anything that is not such a host.
    pub fn from_reference(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        let (name, port) = if text.starts_with('[') {
            let end = text.find(']').ok_or_else(|| HostError::Ipv6(text.to_owned()))? + 1;
            match &text[end..] {
                "" => (text, None),
                rest => (&text[..end], Some(rest.strip_prefix(':').ok_or_else(|| HostError::Ipv6(text.to_owned()))?)),
            }
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => return Err(HostError::Ipv6(text.to_owned())),
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            }
        };
        let port = match port {
            None => None,
            Some(digits) => {
                let number = digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse::<u16>().ok()).flatten();
                // "05000" and "5000" would be two names for one port
                let number = number.filter(|number| *number > 0 && !digits.starts_with('0'));
                Some(number.ok_or_else(|| HostError::Port(name.to_owned(), digits.to_owned()))?)
            }
        };
        if let Some(address) = name.strip_prefix('[') {
            let address = address.strip_suffix(']').unwrap_or(address);
            address.parse::<std::net::Ipv6Addr>().map_err(|_| HostError::Ipv6(text.to_owned()))?;
        } else if !is_dns_name(name) {
            return Err(HostError::Name(name.to_owned()));
        }
        Ok(Self { name_end: name.len(), text: text.into(), port })
    }

    /// The name without port; brackets of an IPv6 address stay.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.text[..self.name_end]
    }

    /// The port, if one is written.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// As text, `name[:port]`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is an IPv6 address: containers/image cannot parse references to one.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.text.starts_with('[')
    }

    /// `localhost`, 127.0.0.0/8 or `::1`: runtimes treat these more leniently.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let name = self.name().trim_start_matches('[').trim_end_matches(']');
        name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    /// Whether no such host can ever exist: what lies below `.invalid` leads nowhere (RFC 6761, 6.4).
    #[must_use]
    pub fn cannot_exist(&self) -> bool {
        self.name().ends_with(".invalid")
    }

    /// Whether the text before the first `/` of a reference is taken as a host: it has a dot, a colon or is `localhost`
    /// (distribution/reference, `splitDockerDomain`).
    #[must_use]
    pub fn is_recognised_in_references(&self) -> bool {
        self.text.bytes().any(|byte| matches!(byte, b'.' | b':')) || self.name() == "localhost"
    }

    /// Where requests for an image of this registry really go: `registry-1.docker.io` for Docker Hub, itself otherwise.
    #[must_use]
    pub fn api(&self) -> Self {
        if self.as_str() == HUB { Self::fixed(HUB_API) } else { self.clone() }
    }

    /// The other names under which the same registry is reached: with or without `:443`, and Docker Hub's API host.
    #[must_use]
    pub fn aliases(&self) -> Vec<Self> {
        let other_form = |text: &str| match text.strip_suffix(":443") {
            Some(bare) => Self::from_reference(bare),
            None => Self::from_reference(&format!("{text}:443")),
        };
        let mut names = Vec::new();
        if self.port.is_none() || self.port == Some(443) {
            names.extend(other_form(&self.text));
        }
        let hub = |name: &str| name == HUB || name == HUB_API;
        if hub(self.name()) && matches!(self.port, None | Some(443)) {
            let all = [HUB.to_owned(), HUB_API.to_owned(), format!("{HUB}:443"), format!("{HUB_API}:443")];
            names = all.iter().filter(|name| **name != *self.text).filter_map(|name| Self::from_reference(name).ok()).collect();
        }
        names
    }

    /// Whether `other` is among its [`Host::aliases`].
    #[must_use]
    pub fn is_alias(&self, other: &Self) -> bool {
        let plain = |host: &Self| matches!(host.port, None | Some(443));
        let hub = |host: &Self| matches!(host.name(), HUB | HUB_API);
        plain(self) && plain(other) && self != other && (self.name() == other.name() || hub(self) && hub(other))
    }

    /// A host that is written in this source; panics on anything else.
    #[must_use]
    pub fn fixed(text: &'static str) -> Self {
        Self::new(text).expect("hosts in the source are valid")
    }
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Host {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_addresses_and_ports() {
        for (text, name, port) in [
            ("quay.io", "quay.io", None),
            ("reg.local:5000", "reg.local", Some(5000)),
            ("10.0.0.1:80", "10.0.0.1", Some(80)),
            ("[2001:db8::1]", "[2001:db8::1]", None),
            ("[2001:db8::1]:5000", "[2001:db8::1]", Some(5000)),
            ("mirror", "mirror", None),
        ] {
            let host = Host::new(text).unwrap();
            assert_eq!((host.name(), host.port(), host.as_str()), (name, port, text));
        }
    }

    #[test]
    fn refuses_what_is_no_host() {
        assert_eq!(Host::new(""), Err(HostError::Empty));
        assert!(matches!(Host::new("https://quay.io"), Err(HostError::Scheme(_))));
        assert!(matches!(Host::new("Quay.io"), Err(HostError::UpperCase(_))));
        for port in ["quay.io:0", "quay.io:65536", "quay.io:", "quay.io:x", "quay.io:+5", "quay.io:05000"] {
            assert!(matches!(Host::new(port), Err(HostError::Port(..))), "{port}");
        }
        assert!(matches!(Host::new("2001:db8::1"), Err(HostError::Ipv6(_))));
        assert!(matches!(Host::new("[2001:db8::g]"), Err(HostError::Ipv6(_))));
        for name in ["a..b", "-a.b", "a_b.c", "a/b", "*.a", "a b"] {
            assert!(matches!(Host::new(name), Err(HostError::Name(_))), "{name}");
        }
    }

    #[test]
    fn aliases_are_the_other_names_of_the_same_place() {
        let names = |text| Host::new(text).unwrap().aliases().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("quay.io"), ["quay.io:443"]);
        assert_eq!(names("quay.io:443"), ["quay.io"]);
        assert_eq!(names("quay.io:5000"), [""; 0]);
        assert_eq!(names("docker.io"), ["registry-1.docker.io", "docker.io:443", "registry-1.docker.io:443"]);
        assert_eq!(names("[2001:db8::1]"), ["[2001:db8::1]:443"]);
        let some = ["quay.io", "docker.io", "registry-1.docker.io", "[2001:db8::1]", "quay.example"];
        let all: Vec<Host> =
            some.iter().flat_map(|name| ["", ":443", ":80"].map(|port| Host::new(&format!("{name}{port}")).unwrap())).collect();
        for (one, other) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other))) {
            assert_eq!(one.is_alias(other), one.aliases().contains(other), "{one} {other}");
        }
    }
}
