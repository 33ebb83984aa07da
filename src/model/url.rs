//! URLs from which a spec is fetched: `https://host[:port]/path[?query]` and nothing else.

use std::fmt::{self, Write as _};

use super::host::Host;

/// Such a URL. Its query may be a login and is never shown: neither `Display` nor `Debug` has it.
#[derive(Clone, PartialEq, Eq)]
pub struct Url {
    host: Host,
    /// Begins with `/`.
    path: String,
    query: Option<String>,
}

/// Why a text is no such URL. What it holds is not told: it may be a login.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// `http://`.
    #[error("is http://, where anybody on the way can write what every node does")]
    Plain,
    /// Another scheme, or none.
    #[error("does not begin with https://")]
    Scheme,
    /// `user:password@`.
    #[error("has a login in it, which would stand in process lists and logs")]
    Login,
    /// No host that can be asked.
    #[error("names no host")]
    Host,
    /// Spaces, control characters, letters beyond ASCII, a fragment.
    #[error("holds {0:?}, which a URL does not have")]
    Character(char),
}

impl UrlError {
    /// What the user can do.
    #[must_use]
    pub const fn help(&self) -> &'static str {
        match self {
            Self::Plain => "serve it over https://, and give the CA with --spec-ca where it is an internal one",
            Self::Scheme => "write https://HOST/PATH",
            Self::Login => {
                "take the login out, and name a file with a token (--spec-token-file) or a client certificate (--spec-client-cert)"
            }
            Self::Host => "write https://HOST/PATH with the name or address of the server",
            Self::Character(_) => "write it as %XX, and take a fragment (#…) out",
        }
    }
}

/// Whether a text that names a spec is meant as a URL, also where it is none of ours: the name of a file may be shown, and a URL
/// may hold a login.
#[must_use]
pub fn is_meant(text: &str) -> bool {
    let trimmed = text.trim_start();
    let begins = |scheme: &str| trimmed.get(..scheme.len()).is_some_and(|first| first.eq_ignore_ascii_case(scheme));
    begins("https:") || begins("http:") || text.contains("://") && !text.starts_with(['/', '.'])
}

impl Url {
    /// Reads a URL.
    ///
    /// # Errors
    /// Anything that is not one of ours.
    pub fn parse(text: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = text.split_once("://").ok_or(UrlError::Scheme)?;
        match scheme.to_ascii_lowercase().as_str() {
            "https" => {}
            "http" => return Err(UrlError::Plain),
            _ => return Err(UrlError::Scheme),
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        if authority.contains('@') {
            return Err(UrlError::Login);
        }
        let host = Host::from_reference(&authority.to_ascii_lowercase()).map_err(|_| UrlError::Host)?;
        let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
        let strange = |c: &char| !c.is_ascii_graphic() || matches!(c, '#' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}');
        if let Some(strange) = path.chars().chain(query.unwrap_or_default().chars()).find(strange) {
            return Err(UrlError::Character(strange));
        }
        let path = if path.is_empty() { "/" } else { path };
        Ok(Self { host, path: path.to_owned(), query: query.map(str::to_owned) })
    }

    /// Name or address, and the port where one is written.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.host.port().unwrap_or(443)
    }

    /// Path and query, as they are asked for.
    #[must_use]
    pub fn target(&self) -> String {
        self.query.as_ref().map_or_else(|| self.path.clone(), |query| format!("{}?{query}", self.path))
    }

    /// Whether both are of one server: same name, same port.
    #[must_use]
    pub fn same_origin(&self, other: &Self) -> bool {
        self.host.name() == other.host.name() && self.port() == other.port()
    }

    /// Where a redirect leads.
    ///
    /// # Errors
    /// Where that is no URL of ours.
    pub fn redirected(&self, to: &str) -> Result<Self, UrlError> {
        let to = to.trim().split('#').next().unwrap_or_default();
        if let Some(rest) = to.strip_prefix("//") {
            return Self::parse(&format!("https://{rest}"));
        }
        // a scheme ends before the first slash
        if to.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
            return Self::parse(to);
        }
        let path = match to.as_bytes().first() {
            Some(b'/') => to.to_owned(),
            Some(b'?') => format!("{}{to}", self.path),
            _ => format!("{}{to}", self.folder()),
        };
        Self::parse(&format!("https://{}{path}", self.host))
    }

    /// A file beside it, by its relative name. The query is not part of that.
    #[must_use]
    pub fn beside(&self, name: &str) -> Self {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/');
        let mut path = self.folder().to_owned();
        for byte in name.bytes() {
            if plain(byte) {
                path.push(char::from(byte));
            } else {
                let _ = write!(path, "%{byte:02X}");
            }
        }
        Self { host: self.host.clone(), path, query: None }
    }

    /// Where its signature is: `.minisig` behind the path, and the same query.
    #[must_use]
    pub fn signature(&self) -> Self {
        Self { path: format!("{}.minisig", self.path), ..self.clone() }
    }

    fn folder(&self) -> &str {
        &self.path[..=self.path.rfind('/').unwrap_or_default()]
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.host, self.path)
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn reads_https_and_nothing_else() {
        assert_eq!(url("HTTPS://Specs.Example.com:8443/a/b.toml?t=1").to_string(), "https://specs.example.com:8443/a/b.toml");
        assert_eq!(url("https://h/a?sig=s3cret").target(), "/a?sig=s3cret");
        assert_eq!(format!("{:?}", url("https://h/a?sig=s3cret")), "https://h/a");
        assert_eq!(url("https://h").target(), "/");
        assert_eq!(url("https://[::1]:5/x").port(), 5);
        for (text, wrong) in [
            ("http://h/a", UrlError::Plain),
            ("HTTP://h/a", UrlError::Plain),
            ("ftp://h/a", UrlError::Scheme),
            ("h/a", UrlError::Scheme),
            ("https://me:pass@h/a", UrlError::Login),
            ("https://token@h", UrlError::Login),
            ("https:///a", UrlError::Host),
            ("https://h:x/a", UrlError::Host),
            ("https://h/a b", UrlError::Character(' ')),
            ("https://h/a#b", UrlError::Character('#')),
            ("https://h/a\r\nX: y", UrlError::Character('\r')),
            ("https://h/ä", UrlError::Character('ä')),
        ] {
            assert_eq!(Url::parse(text), Err(wrong), "{text}");
        }
        for text in ["https://h", "Http://h", " https://h", "htps://h", "https:/h", "https:h", "file:///etc/x", "h://x"] {
            assert!(is_meant(text), "{text}");
        }
        for text in ["/etc/x", "-", "", "./https://x", "/srv/a://b", "specs", "httpsé", "é"] {
            assert!(!is_meant(text), "{text}");
        }
    }

    #[test]
    fn leads_on() {
        let from = url("https://h:8443/a/b.toml?t=1");
        for (to, there) in [
            ("/x", "https://h:8443/x"),
            ("c.toml?u=2", "https://h:8443/a/c.toml"),
            ("?u=2", "https://h:8443/a/b.toml"),
            ("//h:8443/y", "https://h:8443/y"),
            ("https://other/z#f", "https://other/z"),
        ] {
            assert_eq!(from.redirected(to).unwrap().to_string(), there, "{to}");
        }
        assert_eq!(from.redirected("http://h:8443/x"), Err(UrlError::Plain));
        assert_eq!(from.redirected("https://u:p@h:8443/x"), Err(UrlError::Login));
        assert!(from.same_origin(&url("https://h:8443/")) && !from.same_origin(&url("https://h/")));
        assert!(url("https://h/").same_origin(&url("https://h:443/x")) && !url("https://h/").same_origin(&url("https://g/")));
        assert_eq!(from.beside("ca/r o.pem").to_string(), "https://h:8443/a/ca/r%20o.pem");
        assert_eq!(from.signature().target(), "/a/b.toml.minisig?t=1");
    }
}
