//! URLs of registry hosts as containerd reads them (Go, `net/url`, and `parseHostConfig` in containerd's hosts.go).

use crate::model::path::NodePath;

/// The parts of a host's URL that containerd keeps; user, query and fragment are discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// As written; `https` when none was.
    pub scheme: String,
    /// `name[:port]`, unchecked; empty when the text is no URL of a host (`httpd.local:5000`).
    pub host: String,
    /// What stands between host and repository: `/v2`, `/v2/hub`, or empty.
    pub api_root: String,
}

impl Url {
    /// Reads the key of a `[host."…"]` table or the value of `server`.
    ///
    /// A text that does not begin with `http` gets `https://` in front. Without `override_path`, `/v2` is added to a path that
    /// does not end with it (`runtime-semantics.md` 1.5).
    ///
    /// # Errors
    /// What Go's `url.Parse` rejects: containerd then rejects the whole file.
    pub fn parse(text: &str, override_path: bool) -> Result<Self, String> {
        let text = if text.starts_with("http") { text.to_owned() } else { format!("https://{text}") };
        let (scheme, host, path) = split(&text)?;
        if path.is_empty() {
            // the most frequent
            return Ok(Self { scheme, host, api_root: if override_path { "" } else { "/v2" }.to_owned() });
        }
        let path = clean(&path);
        let path = if override_path || path.ends_with("/v2") { path } else { format!("{path}/v2") };
        // joining collapses doubled slashes and drops the last one
        let api_root = clean(&path);
        Ok(Self { scheme, host, api_root: if api_root == "/" { String::new() } else { api_root } })
    }

    /// The port that is written.
    #[must_use]
    pub fn port(&self) -> Option<&str> {
        let behind_name = self.host.rsplit_once(']').map_or(self.host.as_str(), |(_, rest)| rest);
        behind_name.rsplit_once(':').map(|(_, port)| port)
    }
}

/// Go's `path.Clean` for a path that begins with a slash (or is empty).
fn clean(path: &str) -> String {
    if path.starts_with('/') && path.len() > 1 && path[1..].split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0')
    {
        return path.to_owned();
    }
    NodePath::new(&format!("/{path}")).map_or_else(|_| path.to_owned(), |path| path.as_str().to_owned())
}

/// Scheme, host and path of a text, as `url.Parse` splits it.
fn split(text: &str) -> Result<(String, String, String), String> {
    if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
        return Err("URL holds a control character".to_owned());
    }
    let text = text.split('#').next().unwrap_or_default();
    let scheme_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
    let Some((scheme, rest)) = scheme_end.and_then(|end| text[end..].strip_prefix(':').map(|rest| (&text[..end], rest))) else {
        // no scheme: all of it is a path (`httpd.local`, `http/…`)
        return Ok((String::new(), String::new(), text.split('?').next().unwrap_or_default().to_owned()));
    };
    let rest = rest.split('?').next().unwrap_or_default();
    let scheme = scheme.to_ascii_lowercase();
    let Some(rest) = rest.strip_prefix("//") else {
        // `httpd.local:5000`: a scheme and something opaque
        return Ok((scheme, String::new(), if rest.starts_with('/') { rest.to_owned() } else { String::new() }));
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    check_host(host)?;
    Ok((scheme, host.to_owned(), path.to_owned()))
}

/// Go's `parseHost` and `validOptionalPort`.
fn check_host(host: &str) -> Result<(), String> {
    let behind_name = if host.starts_with('[') {
        host.find(']').map(|end| &host[end + 1..]).ok_or("missing ']' in host")?
    } else {
        host.find(':').map_or("", |start| &host[start..])
    };
    let digits = behind_name.strip_prefix(':').unwrap_or(behind_name);
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || (!behind_name.is_empty() && !behind_name.starts_with(':')) {
        return Err(format!("invalid port {behind_name:?} after host"));
    }
    match host.chars().find(|c| matches!(c, ' ' | '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' | '%')) {
        Some(bad) => Err(format!("invalid character {bad:?} in host name")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, override_path: bool) -> (String, String, String) {
        let url = Url::parse(text, override_path).unwrap();
        (url.scheme, url.host, url.api_root)
    }

    /// runtime-semantics.md 1.5, the table.
    #[test]
    fn api_roots() {
        for (text, override_path, root) in [
            ("https://m", false, "/v2"),
            ("https://m/", false, "/v2"),
            ("https://m/v2", false, "/v2"),
            ("https://m/v2/", false, "/v2"),
            ("https://m/hub", false, "/hub/v2"),
            ("https://m/v2/hub", false, "/v2/hub/v2"),
            ("https://m/v2/hub", true, "/v2/hub"),
            ("https://m", true, ""),
            ("https://m/", true, ""),
            ("https://m/x/", true, "/x"),
            ("https://u:p@m/v2?a=b#c", false, "/v2"),
        ] {
            assert_eq!(read(text, override_path), ("https".into(), "m".into(), root.into()), "{text}");
        }
    }

    /// T35, T36.
    #[test]
    fn schemes() {
        assert_eq!(read("mirror.local:5000", false), ("https".into(), "mirror.local:5000".into(), "/v2".into()));
        assert_eq!(read("httpd.local:5000", false).1, "");
        assert_eq!(read("httpd.local", false).1, "");
        assert_eq!(read("HTTP://m", false), ("https".into(), "HTTP:".into(), "/m/v2".into()));
        assert_eq!(Url::parse("http://[2001:db8::1]:80/v2", false).unwrap().port(), Some("80"));
        assert_eq!(Url::parse("http://[2001:db8::1]/v2", false).unwrap().port(), None);
        for bad in ["https://m:x", "https://m m", "https://[::1", "https://m\n", "https://m:1:2"] {
            assert!(Url::parse(bad, false).is_err(), "{bad:?}");
        }
    }
}
