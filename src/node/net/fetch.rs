//! Fetching small files over HTTPS from one server: all of a file, or the reason why not.
//!
//! What lives here: one GET with its redirects. What must not: what is in the file, and where it is kept.

use std::fmt;
use std::time::{Duration, Instant};

use super::body::{Spoilt, whole};
use super::dial::{addresses, connect, is_late, left, reason};
use super::http::{Answer, Body, Broken, Request, exchange, head};
use super::tls::{Noted, Terms, Tls, shake};
use crate::model::cert::base64;
use crate::model::endpoint::Scheme;
use crate::model::secret::Secret;
use crate::model::url::{Url, UrlError};
use crate::runtime::golang::{Route, route};
use crate::verify::probe::{Identity, Stage, Trouble, Trusted};

/// What is text without being called so: documents, certificates, signatures.
const TEXTS: [&str; 9] = [
    "application/toml",
    "application/yaml",
    "application/x-yaml",
    "application/x-pem-file",
    "application/x-x509-ca-cert",
    "application/pkix-cert",
    "application/pem-certificate-chain",
    "application/pgp-signature",
    "application/x-minisign",
];
/// How often a server may send us on.
const MOST_REDIRECTS: usize = 5;

/// Whom to believe, who to be, how to get there, and how long all of it may take.
#[derive(Clone, Debug)]
pub struct Way {
    /// Whom a server has to be certified by.
    pub trust: Trusted,
    /// Shown when the server asks for a certificate.
    pub client: Option<Identity>,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret>,
    /// Where the proxy stands.
    pub env: Vec<(String, String)>,
    /// When everything has to be there.
    pub deadline: Instant,
    /// How long all of it may take, for messages.
    pub patience: Duration,
    /// How long nothing may come.
    pub idle: Duration,
}

/// A file that was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// It is as it was when it had the tag that was sent.
    Same,
    /// It is this.
    New {
        /// All of it, not empty.
        bytes: Vec<u8>,
        /// Its tag.
        etag: Option<String>,
    },
}

/// Why a file was not fetched.
#[derive(Debug)]
pub struct FetchError {
    url: Url,
    why: Why,
}

/// What is in the way.
#[derive(Debug)]
enum Why {
    /// Of the connection, at this stage.
    Link(Stage, Trouble),
    /// A proxy that we cannot use.
    Route(String),
    /// It took too long.
    Late(Option<Stage>, Duration),
    /// Nothing came for too long.
    Idle(Duration),
    /// This status.
    Status(u16),
    /// A redirect to another server.
    Elsewhere(Url),
    /// A redirect to what is no URL of ours.
    Nowhere(Option<UrlError>),
    /// More redirects than are followed.
    Redirects,
    /// A page for people.
    Page,
    /// Something else than text.
    Kind(String),
    /// A coding that was not asked for.
    Coding(String),
    /// Nothing.
    Empty,
    /// More than so much.
    TooLarge(usize),
    /// Its end is missing.
    Truncated(usize, Option<u64>),
    /// What was said is no answer.
    Framing(String),
}

impl std::error::Error for FetchError {}

impl fmt::Display for FetchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be fetched: ", self.url)?;
        match &self.why {
            Why::Link(stage, trouble) => write!(f, "{stage}: {}", trouble.what()),
            Why::Route(what) => write!(f, "proxy: the environment names {what}, which nodeprep does not use"),
            Why::Late(stage, limit) => {
                let stage = stage.map(|stage| format!("{stage}: ")).unwrap_or_default();
                write!(f, "{stage}it was not there within {} s", limit.as_secs())
            }
            Why::Idle(limit) => write!(f, "nothing came for {} s", limit.as_secs()),
            Why::Status(status) => write!(f, "it is answered with {status}{}", meaning(*status)),
            Why::Elsewhere(to) => write!(f, "the server sends to another one, https://{}, which is not followed", to.host()),
            Why::Nowhere(None) => f.write_str("the server sends on and does not say where to"),
            Why::Nowhere(Some(why)) => write!(f, "the server sends on to what {why}"),
            Why::Redirects => write!(f, "the server sends on more than {MOST_REDIRECTS} times"),
            Why::Page => f.write_str("a page for people (HTML) came in its place, as from a login page or a portal"),
            Why::Kind(kind) => write!(f, "it is said to be {kind:?}, which is no text"),
            Why::Coding(coding) => write!(f, "it is coded as {coding:?}, which was not asked for"),
            Why::Empty => f.write_str("it is empty"),
            Why::TooLarge(most) => write!(f, "it is larger than {most} bytes"),
            Why::Truncated(got, Some(wanted)) => write!(f, "it breaks off after {got} of {wanted} bytes"),
            Why::Truncated(got, None) => write!(f, "it breaks off after {got} bytes, before its end"),
            Why::Framing(why) => write!(f, "the answer is no sound HTTP: {why}"),
        }
    }
}

const fn meaning(status: u16) -> &'static str {
    match status {
        304 => " (not modified), although nothing is known of it here",
        401 => " (unauthorized)",
        403 => " (forbidden)",
        404 => " (not found)",
        410 => " (gone)",
        429 => " (too many requests)",
        500.. => " (the server fails)",
        _ => "",
    }
}

impl FetchError {
    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> String {
        let fixed = match &self.why {
            Why::Link(_, trouble) => return linked(trouble),
            Why::Route(_) => "name an http:// proxy in HTTPS_PROXY, or take the host out of its way with NO_PROXY",
            Why::Late(..) => "look at the server's load and the way to it, or give it more time with --spec-timeout",
            Why::Idle(_) => "look at the server and the way to it: it takes connections and then says nothing",
            Why::Status(401) => {
                "name a file with a token the server accepts (--spec-token-file), or a client certificate (--spec-client-cert)"
            }
            Why::Status(403) => "let the server show the file to this token or client certificate",
            Why::Status(404 | 410) => "correct the URL, or put the file there",
            Why::Status(429) => "wait until the server takes requests again",
            Why::Status(500..) => "look at the server's own log: it answers, but does not work",
            Why::Status(_) | Why::Framing(_) | Why::Coding(_) => {
                "look with curl at what the server answers, and let it serve the plain file"
            }
            Why::Elsewhere(_) | Why::Nowhere(_) | Why::Redirects => "give the URL where the file really is",
            Why::Page => "open it in a browser to see who answers; correct the URL, or take the portal out of the way",
            Why::Kind(_) => "correct the URL, or let the server call it text/plain or application/toml",
            Why::Empty => "publish the file anew, and replace it as a whole",
            Why::TooLarge(_) => "check that this is the file that is meant",
            Why::Truncated(..) => "try again; if it stays so, look at the server and the proxies on the way",
        };
        fixed.to_owned()
    }
}

fn linked(trouble: &Trouble) -> String {
    match trouble {
        Trouble::NoName(_) => "correct the name in the URL, or the DNS of this machine (`getent hosts NAME` must answer)".to_owned(),
        Trouble::Unreachable(_) | Trouble::Silent => {
            "start the server, correct the port, or open the way to it; behind a proxy check HTTPS_PROXY and NO_PROXY".to_owned()
        }
        Trouble::ProxyRefused(_) | Trouble::Route(_) => {
            "let the proxy connect to it, or take the host out of its way with NO_PROXY".to_owned()
        }
        Trouble::Disbelieved(why) if why.contains("unknown authority") => {
            "give the CA that issued the server's certificate with --spec-ca; if it is given, let the server send its intermediates"
                .to_owned()
        }
        Trouble::ClientWanted => "give --spec-client-cert and --spec-client-key".to_owned(),
        Trouble::NoTls => "let the server speak TLS on that port, or correct the port".to_owned(),
        Trouble::Unknown(_) => "look with `openssl s_client` at what the server speaks".to_owned(),
        other => other.help().to_owned(),
    }
}

impl Way {
    /// Fetches a file of at most `most` bytes; `etag` is the tag that it had.
    ///
    /// # Errors
    /// Whatever keeps it from being here as a whole.
    pub fn get(&self, url: &Url, etag: Option<&str>, most: usize) -> Result<Got, FetchError> {
        let failed = |why| FetchError { url: url.clone(), why };
        let mut at = url.clone();
        for _ in 0..=MOST_REDIRECTS {
            match self.once(&at, etag, most).map_err(failed)? {
                Once::Got(got) => return Ok(got),
                Once::Sent(to) if to.same_origin(url) => at = to,
                Once::Sent(to) => return Err(failed(Why::Elsewhere(to))),
            }
        }
        Err(failed(Why::Redirects))
    }

    fn once(&self, url: &Url, etag: Option<&str>, most: usize) -> Result<Once, Why> {
        let (mut line, noted) = self.line(url)?;
        let target = url.target();
        let mut headers = vec![("Accept", b"*/*".to_vec()), ("Accept-Encoding", b"identity".to_vec()), ("Connection", b"close".to_vec())];
        headers.extend(etag.map(|etag| ("If-None-Match", etag.as_bytes().to_vec())));
        headers.extend(self.token.as_ref().map(|token| ("Authorization", [b"Bearer ", token.expose()].concat())));
        let request = Request { method: "GET", target: &target, host: url.host().as_str(), headers };
        let (answer, read) = head(&mut line, &request).map_err(|broken| self.broken(broken, Some(&noted)))?;
        match answer.status {
            200 => {}
            304 if etag.is_some() => return Ok(Once::Got(Got::Same)),
            301 | 302 | 303 | 307 | 308 => {
                let to = answer.header("location").next().ok_or(Why::Nowhere(None))?;
                return url.redirected(to).map(Once::Sent).map_err(|why| Why::Nowhere(Some(why)));
            }
            status => return Err(Why::Status(status)),
        }
        is_text(&answer)?;
        let bytes = whole(&mut line, &answer, read, most).map_err(|spoilt| match spoilt {
            Spoilt::Io(error) => self.broken(Broken::Io(error), Some(&noted)),
            Spoilt::Truncated { got, wanted } => Why::Truncated(got, wanted),
            Spoilt::TooLarge => Why::TooLarge(most),
            Spoilt::Framing(why) => Why::Framing(why.to_owned()),
        })?;
        if is_page(&bytes) {
            return Err(Why::Page);
        }
        if bytes.iter().all(u8::is_ascii_whitespace) {
            return Err(Why::Empty);
        }
        Ok(Once::Got(Got::New { bytes, etag: answer.header("etag").next().filter(|etag| is_tag(etag)).map(str::to_owned) }))
    }

    /// A connection with TLS, by the proxy where there is one.
    fn line(&self, url: &Url) -> Result<(Tls, std::sync::Arc<Noted>), Why> {
        let bare = url.host().name().trim_start_matches('[').trim_end_matches(']');
        let route = route(&self.env, Scheme::Https, url.host());
        let (name, port) = match &route {
            Route::Direct => (bare, url.port()),
            Route::Proxy { host, port, .. } => (host.as_str(), *port),
            Route::Other(what) => return Err(Why::Route(what.clone())),
        };
        let at = |stage| move |trouble| self.linked(stage, trouble);
        let found = addresses(name, port, self.deadline).map_err(at(Stage::Dns))?;
        let (stream, _) = connect(&found, self.deadline).map_err(at(Stage::Tcp))?;
        let mut stream = stream.idle(self.idle);
        if let Route::Proxy { login, .. } = &route {
            let target = format!("{}:{}", url.host().name(), url.port());
            let basic = |login: &Secret| ("Proxy-Authorization", format!("Basic {}", base64(login.expose())).into_bytes());
            let request = Request { method: "CONNECT", target: &target, host: &target, headers: login.iter().map(basic).collect() };
            let answer = exchange(&mut stream, &request, Body::Never).map_err(|broken| self.at_proxy(broken))?;
            if !(200..300).contains(&answer.status) {
                return Err(Why::Link(Stage::Proxy, Trouble::ProxyRefused(answer.status)));
            }
        }
        shake(stream, &Terms { name: bare, trust: &self.trust, client: self.client.as_ref() }).map_err(at(Stage::Tls))
    }

    /// Which of the limits it was when something took too long.
    fn late(&self) -> Why {
        if left(self.deadline).is_none() { Why::Late(None, self.patience) } else { Why::Idle(self.idle) }
    }

    fn linked(&self, stage: Stage, trouble: Trouble) -> Why {
        match (stage, trouble) {
            (stage, Trouble::Silent) if left(self.deadline).is_none() => Why::Late(Some(stage), self.patience),
            (Stage::Tls, Trouble::Silent) => Why::Idle(self.idle),
            (stage, trouble) => Why::Link(stage, trouble),
        }
    }

    fn at_proxy(&self, broken: Broken) -> Why {
        match self.broken(broken, None) {
            Why::Framing(why) => Why::Link(Stage::Proxy, Trouble::NoHttp(why)),
            Why::Link(_, trouble) => Why::Link(Stage::Proxy, trouble),
            why => why,
        }
    }

    fn broken(&self, broken: Broken, noted: Option<&Noted>) -> Why {
        match (broken, noted) {
            (Broken::NoHttp(why), _) => Why::Framing(why),
            (Broken::Io(error), _) if is_late(&error) => self.late(),
            (Broken::Io(error), Some(noted)) => match noted.trouble(&error) {
                // before the head: the other side has hung up
                Trouble::Unreachable(why) => Why::Framing(why),
                trouble => Why::Link(Stage::Tls, trouble),
            },
            (Broken::Io(error), None) => Why::Framing(reason(&error)),
        }
    }
}

enum Once {
    Got(Got),
    Sent(Url),
}

/// An entity tag that may be sent back: quoted, visible.
fn is_tag(etag: &str) -> bool {
    let bare = etag.strip_prefix("W/").unwrap_or(etag);
    etag.len() <= 1024
        && bare.len() >= 2
        && bare.starts_with('"')
        && bare.ends_with('"')
        && bare.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether it may be text, by what is said of it.
fn is_text(answer: &Answer) -> Result<(), Why> {
    if let Some(coding) = answer.header("content-encoding").map(str::trim).find(|coding| !coding.eq_ignore_ascii_case("identity")) {
        return Err(Why::Coding(coding.chars().take(40).collect()));
    }
    let Some(kind) = answer.header("content-type").next() else { return Ok(()) };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/html" | "application/xhtml+xml" => Err(Why::Page),
        kind if kind.is_empty() || kind.ends_with("/octet-stream") || kind.starts_with("text/") || TEXTS.contains(&kind) => Ok(()),
        other => Err(Why::Kind(other.chars().take(80).collect())),
    }
}

/// Whether it is HTML, whatever it is called.
fn is_page(bytes: &[u8]) -> bool {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    [&b"<!doctype"[..], b"<html", b"<head", b"<?xml", b"<!--"]
        .iter()
        .any(|sign| bytes.get(..sign.len()).is_some_and(|start| start.eq_ignore_ascii_case(sign)))
}
