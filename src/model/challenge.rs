//! What a registry asks for before it answers: the `WWW-Authenticate` headers of its 401 (RFC 9110, 11.6.1; distribution's
//! `spec/auth/token.md`).

use serde::Serialize;

/// How a registry wants to know who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub enum Challenge {
    /// Not at all.
    None,
    /// User name and password with each request.
    Basic,
    /// A token, which is issued elsewhere.
    Bearer {
        /// The URL where it is.
        realm: String,
        /// For which service, where it is said.
        service: Option<String>,
    },
    /// Something else: the schemes that it offers.
    Other(String),
}

impl std::fmt::Display for Challenge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("no login"),
            Self::Basic => f.write_str("basic authentication"),
            Self::Bearer { realm, .. } => write!(f, "tokens from {realm}"),
            Self::Other(what) => write!(f, "authentication of the kind {what:?}"),
        }
    }
}

impl Challenge {
    /// Reads the values of all `WWW-Authenticate` headers of a 401. Where both are offered, tokens count: containerd looks for
    /// them first (`docker/authorizer.go`, `AddResponses`), and so does containers/image.
    #[must_use]
    pub fn of<'a>(headers: impl Iterator<Item = &'a str>) -> Self {
        let (mut basic, mut others) = (false, Vec::new());
        for header in headers {
            let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
            if scheme.eq_ignore_ascii_case("bearer") {
                let parameters = parameters(rest);
                let find = |name: &str| parameters.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
                if let Some(realm) = find("realm") {
                    return Self::Bearer { realm, service: find("service") };
                }
            }
            if scheme.eq_ignore_ascii_case("basic") {
                basic = true;
            } else if !scheme.is_empty() {
                others.push(scheme.to_owned());
            }
        }
        if basic { Self::Basic } else { Self::Other(others.join(", ")) }
    }
}

/// `name=value` or `name="value"`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while let Some((name, behind)) = rest.split_once('=') {
        let name = name.trim_matches([' ', ',', '\t']).to_ascii_lowercase();
        let (value, behind) = match behind.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => behind.split_once(',').unwrap_or((behind, "")),
        };
        found.push((name, value.trim().to_owned()));
        rest = behind;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_registries_say() {
        let of = |headers: &[&str]| Challenge::of(headers.iter().copied());
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer { realm: realm.into(), service: service.map(Into::into) };
        assert_eq!(of(&["Basic realm=\"Registry\""]), Challenge::Basic);
        assert_eq!(of(&["basic"]), Challenge::Basic);
        let hub = "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\"";
        assert_eq!(of(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(of(&["Basic realm=x", "bearer realm=https://a/t, scope=\"a,b\""]), bearer("https://a/t", None));
        assert_eq!(of(&["Bearer scope=x", "Negotiate"]), Challenge::Other("Bearer, Negotiate".into()));
        assert_eq!(of(&[]), Challenge::Other(String::new()));
    }
}
