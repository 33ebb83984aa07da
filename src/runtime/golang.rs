//! What every runtime has from Go: which certificates its programs trust, and which proxy they take, by their environment.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Wish;
use crate::model::cert;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::secret::Secret;
use crate::model::tree::{Found, Tree};

/// The first of these that can be read (crypto/x509, `root_linux.go`; `runtime-semantics.md` 6.3).
const FILES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// And all files of all of these.
const FOLDERS: [&str; 2] = ["/etc/ssl/certs", "/etc/pki/tls/certs"];

type Env = [(String, String)];

fn variable<'a>(env: &'a Env, name: &str) -> Option<&'a str> {
    env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

fn files(env: &Env) -> Vec<NodePath> {
    match variable(env, "SSL_CERT_FILE") {
        Some(file) => NodePath::new(file).into_iter().collect(),
        None => FILES.map(NodePath::fixed).to_vec(),
    }
}

fn folders(env: &Env) -> Vec<NodePath> {
    match variable(env, "SSL_CERT_DIR") {
        Some(folders) => folders.split(':').filter_map(|folder| NodePath::new(folder).ok()).collect(),
        None => FOLDERS.map(NodePath::fixed).to_vec(),
    }
}

/// What has to be in the tree before [`roots`] can answer.
#[must_use]
pub fn root_wishes(env: &Env) -> Vec<Wish> {
    files(env).into_iter().map(Wish::path).chain(folders(env).into_iter().map(|folder| Wish::folder(folder, 1))).collect()
}

/// Whether a Go program with this environment reads the OS trust store of which `bundle` is the bundle file.
#[must_use]
pub fn reads_store(env: &Env, bundle: &NodePath) -> bool {
    files(env).contains(bundle) || folders(env).iter().any(|folder| bundle.is_below(folder))
}

/// The files that may be larger than configuration is.
#[must_use]
pub fn root_files(env: &Env) -> Vec<NodePath> {
    files(env)
}

/// The certificates that a Go program with this environment trusts when it starts now, in DER.
#[must_use]
pub fn roots(tree: &Tree, env: &Env) -> Vec<Vec<u8>> {
    let bytes = |path: &NodePath| match tree.find(path) {
        Found::File(bytes, _) => Some(bytes),
        _ => None,
    };
    let mut found: BTreeSet<Vec<u8>> = files(env).iter().find_map(bytes).map(|bytes| cert::ders(bytes)).into_iter().flatten().gathered();
    for folder in folders(env) {
        // links to neighbours, which Go passes over, say nothing new
        found.extend(tree.names(&folder).iter().filter_map(|name| bytes(&folder.join(name))).flat_map(|bytes| cert::ders(bytes)));
    }
    found.into_iter().collect()
}

/// How a request gets to a host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Route {
    /// Directly.
    Direct,
    /// Through an HTTP proxy.
    Proxy {
        /// Its name or address and its port.
        host: String,
        /// Its port.
        port: u16,
        /// `user:password` for the proxy.
        login: Option<Secret>,
    },
    /// Through something that we do not speak.
    Other(String),
}

/// The way to `host` that a Go program with this environment takes (golang.org/x/net/http/httpproxy, `FromEnvironment`).
#[must_use]
pub fn route(env: &Env, scheme: Scheme, host: &Host) -> Route {
    let either = |upper: &str| variable(env, upper).or_else(|| variable(env, &upper.to_ascii_lowercase())).map(ToOwned::to_owned);
    let proxy = match scheme {
        Scheme::Https => either("HTTPS_PROXY"),
        Scheme::Http => either("HTTP_PROXY"),
    };
    let Some(proxy) = proxy else { return Route::Direct };
    let port = host.port().unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
    if is_near(host) || either("NO_PROXY").is_some_and(|list| list.split(',').any(|entry| is_excepted(entry.trim(), host, port))) {
        return Route::Direct;
    }
    let (kind, rest) = proxy.split_once("://").unwrap_or(("http", &proxy));
    if kind != "http" {
        return Route::Other(format!("a proxy of the kind {kind}://"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (login, place) = authority.rsplit_once('@').map_or((None, authority), |(login, place)| (Some(login), place));
    let unusable = || Route::Other("a proxy whose URL cannot be read".to_owned());
    let Ok(place) = Host::from_reference(place) else { return unusable() };
    let login = login.map(|login| {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        Secret::new([unescaped(user), b":".to_vec(), unescaped(password)].concat())
    });
    Route::Proxy { host: bare(&place).to_owned(), port: place.port().unwrap_or(80), login }
}

/// `localhost` and loopback addresses are never asked for through a proxy.
fn is_near(host: &Host) -> bool {
    host.is_loopback()
}

fn bare(host: &Host) -> &str {
    host.name().trim_start_matches('[').trim_end_matches(']')
}

/// One entry of `NO_PROXY`: `*`, a network, an address or a domain, with a port where one is written.
fn is_excepted(entry: &str, host: &Host, port: u16) -> bool {
    let entry = entry.to_ascii_lowercase();
    if entry.is_empty() {
        return false;
    }
    if entry == "*" {
        return true;
    }
    let name = bare(host).to_ascii_lowercase();
    let address: Option<IpAddr> = name.parse().ok();
    if let Some((network, bits)) = entry.split_once('/')
        && let (Ok(network), Ok(bits)) = (network.parse::<IpAddr>(), bits.parse::<u32>())
    {
        return address.is_some_and(|address| is_inside(network, bits, address));
    }
    // ports are compared as text
    let (wanted, only) = match entry.rsplit_once(':') {
        Some((front, digits)) if !front.contains(':') || front.ends_with(']') => (front, digits),
        _ => (entry.as_str(), ""),
    };
    if !only.is_empty() && only != port.to_string() {
        return false;
    }
    let wanted = wanted.trim_start_matches('[').trim_end_matches(']');
    if let Ok(wanted) = wanted.parse::<IpAddr>() {
        return address == Some(wanted);
    }
    let wanted = wanted.strip_prefix('*').filter(|rest| rest.starts_with('.')).unwrap_or(wanted);
    match wanted.strip_prefix('.') {
        Some(_) => name.ends_with(wanted),
        None => name == wanted || name.strip_suffix(wanted).is_some_and(|front| front.ends_with('.')),
    }
}

fn is_inside(network: IpAddr, bits: u32, address: IpAddr) -> bool {
    let shifted = |value: u128, width: u32| if bits == 0 { 0 } else { value >> (width.saturating_sub(bits)) };
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) if bits <= 32 => {
            shifted(u32::from(network).into(), 32) == shifted(u32::from(address).into(), 32)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) if bits <= 128 => shifted(network.into(), 128) == shifted(address.into(), 128),
        _ => false,
    }
}

/// `%41` is `A`.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let code = (*byte == b'%').then(|| text.get(at + 1..at + 3)).flatten().and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(*byte));
        at += if code.is_some() { 3 } else { 1 };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn made(name: &str) -> String {
        rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    }

    #[test]
    fn the_first_file_and_all_folders() {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        let count = |tree: &Tree, pairs: &[(&str, &str)]| roots(tree, &env(pairs)).len();
        assert_eq!(count(&tree, &[]), 0);
        let mut put = |path: &str, text: &str| tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
        put("/etc/pki/tls/certs/ca-bundle.crt", &format!("{}{}", made("a"), made("b")));
        put("/etc/ssl/cert.pem", &made("c"));
        put("/etc/ssl/certs/stray.pem", &format!("no certificate\n{}", made("d")));
        put("/opt/own.pem", &made("e"));
        put("/opt/certs/x", &made("f"));
        assert_eq!(count(&tree, &[]), 2 + 1);
        assert_eq!(count(&tree, &[("SSL_CERT_FILE", "/opt/own.pem")]), 1 + 2 + 1);
        assert_eq!(count(&tree, &[("SSL_CERT_DIR", "/opt/certs:/none")]), 2 + 1);
        assert_eq!(count(&tree, &[("SSL_CERT_FILE", "/gone"), ("SSL_CERT_DIR", "/opt/certs")]), 1);
    }

    #[test]
    fn the_proxy_that_go_takes() {
        let https = |pairs: &[(&str, &str)], host: &str| route(&env(pairs), Scheme::Https, &Host::from_reference(host).unwrap());
        let proxy = ("HTTPS_PROXY", "http://me:pa%40ss@proxy.corp:3128/");
        let via = Route::Proxy { host: "proxy.corp".into(), port: 3128, login: Some(Secret::new("me:pa@ss")) };
        assert_eq!(https(&[], "quay.io"), Route::Direct);
        assert_eq!(https(&[proxy], "quay.io"), via);
        assert_eq!(https(&[("HTTP_PROXY", "proxy:1")], "quay.io"), Route::Direct);
        assert_eq!(https(&[("https_proxy", "proxy:1")], "quay.io"), Route::Proxy { host: "proxy".into(), port: 1, login: None });
        for near in ["localhost:5000", "127.0.0.9:5000", "[::1]:5000"] {
            assert_eq!(https(&[proxy], near), Route::Direct);
        }
        assert!(matches!(https(&[("HTTPS_PROXY", "socks5://p:1")], "quay.io"), Route::Other(_)));
        for (list, host, direct) in [
            ("quay.io", "quay.io", true),
            ("quay.io", "cdn.quay.io", true),
            (".quay.io", "quay.io", false),
            ("*.quay.io", "cdn.quay.io", true),
            ("ay.io", "quay.io", false),
            ("a, 10.0.0.0/8", "10.1.2.3:5000", true),
            ("10.0.0.0/8", "11.1.2.3", false),
            ("10.1.2.3:5000", "10.1.2.3:5001", false),
            ("10.1.2.3", "10.1.2.3:5001", true),
            ("reg:5000", "reg:5000", true),
            ("reg:x", "reg:5000", false),
            ("reg:", "reg:5000", true),
            ("10.1.2.3/33", "10.1.2.3", false),
            ("QUAY.io", "quay.io", true),
            ("*", "quay.io", true),
            ("2001:db8::/32", "[2001:db8::1]", true),
            ("", "quay.io", false),
        ] {
            assert_eq!(https(&[proxy, ("NO_PROXY", list)], host) == Route::Direct, direct, "{list} {host}");
        }
        assert_eq!(unescaped("%C3%B6%zz%"), "ö%zz%".as_bytes());
    }
}
