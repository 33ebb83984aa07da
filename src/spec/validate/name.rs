//! Hosts, sources and endpoints as text.

use super::super::decode::At;
use super::super::nearest::distance;
use super::super::problems::Problems;
use super::super::text::holds_login;
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::host::{HUB, HUB_API, Host, HostError};
use crate::model::repo::{RepoError, RepoPath};
use crate::model::suffix::Suffix;
use crate::spec::Source;

/// Normalised away in references (distribution/reference, `legacyDefaultDomain`).
const OLD_HUB: &str = "index.docker.io";

/// What to do about a registry that cannot exist and would be asked.
pub const NOWHERE: &str = "name a registry that is there: nothing below `.invalid` ever is (RFC 6761)";

/// One name for all names of a registry: Docker Hub is `docker.io`, `:443` is left out.
pub fn canonical(host: &Host) -> &str {
    let text = host.as_str();
    let text = text.strip_suffix(":443").unwrap_or(text);
    if text == HUB_API { HUB } else { text }
}

/// Reads a host.
pub fn host(written: &At<String>, problems: &mut Problems<'_>) -> Option<Host> {
    let text = written.value.as_str();
    if secret(written, problems) {
        return None;
    }
    match Host::new(text) {
        Ok(host) if host.name() == OLD_HUB => {
            let what = format!("{text} is an old name that every runtime turns into docker.io");
            problems.error("invalid-host", &written.span, what, "write `docker.io`");
            None
        }
        Ok(host) => Some(host),
        Err(error) => {
            let help = match &error {
                HostError::Scheme(_) => "write the host without scheme; plain HTTP is `http://` on the endpoint".to_owned(),
                HostError::Name(_) if text.contains('/') => "write the host alone, without path".to_owned(),
                error => host_help(error),
            };
            problems.error("invalid-host", &written.span, error.to_string(), help);
            None
        }
    }
}

fn host_help(error: &HostError) -> String {
    match error {
        HostError::Empty => "write `host` or `host:port`".to_owned(),
        HostError::Scheme(_) => "write it without scheme".to_owned(),
        HostError::UpperCase(host) => format!("write `{}`: runtimes compare hosts letter by letter", host.to_lowercase()),
        HostError::Port(..) => "write a port between 1 and 65535, without leading zeros".to_owned(),
        HostError::Ipv6(_) => "write an IPv6 address in brackets, as in `[2001:db8::1]:5000`".to_owned(),
        HostError::Name(_) => "write a DNS name or an address: letters, digits and inner dashes between dots".to_owned(),
    }
}

fn path_help(error: &RepoError) -> String {
    match error {
        RepoError::UpperCase(path) => format!("write `{}`: repository paths are lower case", path.to_lowercase()),
        RepoError::Component(..) => "write lower-case words separated by `/`, without tag or digest".to_owned(),
    }
}

/// A login in front of a host: reported without showing it.
pub fn secret(written: &At<String>, problems: &mut Problems<'_>) -> bool {
    let found = holds_login(&written.value);
    if found {
        let what = "a login stands in front of a host";
        let help = "put it into a dockerconfigjson file and name that file with `credentials` under [[registry]]";
        problems.error("secret-in-spec", &written.span, what, help);
    }
    found
}

/// Reads a source.
pub fn source(written: &At<String>, problems: &mut Problems<'_>) -> Option<Source> {
    let text = written.value.as_str();
    if secret(written, problems) {
        return None;
    }
    let mut wrong = |what: String, help: String| {
        problems.error("invalid-source", &written.span, what, help);
        None
    };
    if text == "*" {
        return Some(Source::All);
    }
    if let Some(domain) = text.strip_prefix("*.") {
        return match Suffix::new(domain) {
            Ok(domain) => Some(Source::Domain(domain)),
            Err(_) => wrong(format!("source {text:?} is no `*.domain`"), domain_help(domain)),
        };
    }
    if text.contains('*') {
        let what = format!("source {text:?}: `*` stands alone, or in front of a domain as `*.`");
        return wrong(what, "write `*.domain` for every registry below a domain, or `*` for all".to_owned());
    }
    if text.as_bytes().contains(&b':') && text.contains("://") {
        return wrong(
            format!("source {text:?} begins with a scheme"),
            "write it as it stands in image references, without scheme".to_owned(),
        );
    }
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let host = match Host::new(host) {
        Ok(host) => host,
        Err(error) => return wrong(format!("source: {error}"), host_help(&error)),
    };
    let path = match RepoPath::new(path) {
        Ok(path) => path,
        Err(error) => return wrong(format!("source: {error}"), path_help(&error)),
    };
    if host.name() == OLD_HUB {
        return wrong(format!("source {text:?} is an old name that every runtime turns into docker.io"), "write `docker.io`".to_owned());
    }
    if !host.is_recognised_in_references() {
        let what =
            format!("source {text:?} never matches: without dot or port, no runtime takes {host:?} in an image reference as a registry");
        return wrong(what, "write the registry's full name, or its port".to_owned());
    }
    Some(Source::Prefix { host, path })
}

/// What to write in the place of something that is not `*.domain`.
fn domain_help(domain: &str) -> String {
    let name = domain.split(['/', ':']).next().unwrap_or_default().trim_matches('.').to_lowercase();
    match Suffix::new(&name) {
        Ok(domain) => format!("write `{domain}`: a domain is in lower case, without port, path or a dot at its end"),
        Err(_) => "write the domain behind `*.`, as in `*.example.com`".to_owned(),
    }
}

/// Reads an entry of `hosts`.
pub fn listed(written: &At<String>, problems: &mut Problems<'_>) -> Option<Source> {
    let source = source(written, problems)?;
    if source.whole().is_none() {
        let what = format!("`hosts` lists whole registries; {source} is none");
        problems.error("invalid-source", &written.span, what, "write it as `source` of a [[mirror]] of its own");
        return None;
    }
    Some(source)
}

/// Reads an endpoint.
pub fn endpoint(written: &At<String>, problems: &mut Problems<'_>) -> Option<Endpoint> {
    let text = written.value.as_str();
    if secret(written, problems) {
        return None;
    }
    if text.bytes().any(|byte| matches!(byte, b'{' | b'}')) {
        let what = format!("endpoint {text:?}: the only name in braces is `{{host}}`, beside `hosts`");
        problems.error("invalid-endpoint", &written.span, what, "write it out, or list the registries in `hosts` instead of `source`");
        return None;
    }
    let mut wrong = |what: String, help: String| {
        problems.error("invalid-endpoint", &written.span, what, help);
        None
    };
    let shape = "write `host[:port][/prefix]`, with `http://` in front for plain HTTP";
    if text.trim().is_empty() {
        return wrong("an endpoint is empty".to_owned(), shape.to_owned());
    }
    // nearly every text is plain, and bytes are looked at sooner than characters
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) && text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return wrong(format!("endpoint {text:?} has white space in it"), shape.to_owned());
    }
    let (scheme, rest) = match scheme(text) {
        Ok(split) => split,
        Err((what, help)) => return wrong(what, help),
    };
    if let Some(mark) = rest.bytes().find(|byte| matches!(byte, b'?' | b'#')) {
        return wrong(format!("endpoint {text:?} has a `{}` in it", char::from(mark)), shape.to_owned());
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let host = match Host::new(host) {
        Ok(host) => host,
        Err(error) => return wrong(format!("endpoint: {error}"), host_help(&error)),
    };
    if canonical(&host) == HUB && host.name() == HUB || host.name() == OLD_HUB {
        let what = format!("endpoint {text:?}: {host} does not serve images itself");
        return wrong(what, format!("write `{HUB_API}`"));
    }
    if host.cannot_exist() {
        return wrong(format!("endpoint {text:?}: {host} cannot exist"), NOWHERE.to_owned());
    }
    let trimmed = path.trim_matches('/');
    let bare = match trimmed.strip_prefix("v2") {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => rest,
        _ => trimmed,
    };
    let prefix = match RepoPath::new(bare) {
        Ok(prefix) => prefix,
        Err(error) => return wrong(format!("endpoint: {error}"), path_help(&error)),
    };
    let endpoint = Endpoint::new(scheme, host, prefix);
    if bare.len() < trimmed.len() {
        let what = format!("endpoint {text:?}: the `/v2` in front is part of the protocol, not of the repository; it is taken off");
        problems.note("leading-v2", &written.span, what, format!("write `{endpoint}`"));
    }
    Some(endpoint)
}

/// The scheme and what follows it; or what is wrong with it and what to do.
fn scheme(text: &str) -> Result<(Scheme, &str), (String, String)> {
    // one byte is found sooner than three
    if let Some((scheme, rest)) = text.as_bytes().contains(&b':').then(|| text.split_once("://")).flatten() {
        return match scheme {
            "https" => Ok((Scheme::Https, rest)),
            "http" => Ok((Scheme::Http, rest)),
            other => {
                let what = format!("endpoint {text:?}: there is no scheme {other:?}");
                let help = match likely(other) {
                    Some(meant) => format!("write `{meant}://{rest}`"),
                    None => "leave the scheme out for HTTPS, or write `http://` for plain HTTP".to_owned(),
                };
                Err((what, help))
            }
        };
    }
    // `https//host`, `https:/host`, `//host`
    let (word, rest) = text.split_at(text.bytes().position(|byte| matches!(byte, b':' | b'/')).unwrap_or(text.len()));
    if (rest.starts_with("//") || rest.starts_with(":/"))
        && let Some(meant) = likely(word).or_else(|| word.is_empty().then_some("https"))
    {
        let rest = rest.trim_start_matches([':', '/']);
        return Err((format!("endpoint {text:?} has a misspelt scheme"), format!("write `{meant}://{rest}`")));
    }
    Ok((Scheme::Https, text))
}

fn likely(word: &str) -> Option<&'static str> {
    let word = word.to_lowercase();
    ["https", "http"]
        .into_iter()
        .map(|known| (distance(&word, known), known))
        .filter(|(edits, _)| *edits <= 2)
        .min()
        .map(|(_, known)| known)
}
