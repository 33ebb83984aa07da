//! What is tried of an endpoint, and what came of it. Pure: `node/net/` does it.

use std::sync::Arc;

use serde::Serialize;

use super::Outcome;
use super::believe::Pool;
use crate::model::challenge::Challenge;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::secret::Secret;
use crate::model::time::Time;
use crate::runtime::golang::Route;

/// One endpoint as one daemon reaches it.
#[derive(Clone, Debug)]
pub struct Target {
    /// TLS or plain.
    pub scheme: Scheme,
    /// Where.
    pub host: Host,
    /// Whom it is believed for.
    pub trust: Trusted,
    /// The client certificate that is shown when the server asks for one.
    pub client: Option<Arc<Identity>>,
    /// `user:password`.
    pub login: Option<Secret>,
    /// Sent with every request to it, over TLS.
    pub header: Vec<(String, Secret)>,
    /// More goes along than nodeprep looks into or sends: a token, a credential helper, headers over plain HTTP.
    pub more: bool,
    /// The way to it.
    pub route: Route,
    /// Manifests that are asked for.
    pub manifests: Vec<Manifest>,
}

/// How a server's certificate is checked.
#[derive(Clone, Debug)]
pub enum Trusted {
    /// Not at all: any is taken, or there is none.
    Anybody,
    /// By these.
    By(Arc<Pool>),
}

/// A client certificate with its chain, in DER, and its key, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<Vec<u8>>,
    /// The private key.
    pub key: Secret,
}

/// A manifest that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The image, for messages.
    pub image: String,
    /// Path and query of the request.
    pub path: String,
    /// The repository there, for the scope of a token.
    pub repo: String,
    /// What is to be known of it.
    pub ask: Ask,
}

/// What is to be known of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Whether it is there.
    There,
    /// Of a canary: which it is.
    Digest,
    /// Of a canary: which it is, and when its image was made.
    Age,
}

/// What is held of a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Path and query of the request.
    pub path: String,
    /// The manifest's digest; `None` where the registry does not say it, and it could not be worked out.
    pub digest: Option<String>,
    /// When the image was made, or why that is not known; `None` where it was not to be known.
    pub created: Option<Result<Time, String>>,
}

/// The stages of a probe, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// Which proxy.
    Proxy,
    /// The name's addresses.
    Dns,
    /// A connection.
    Tcp,
    /// The handshake: the server's certificate, the client's.
    Tls,
    /// `GET /v2/`.
    Api,
    /// The login, where there is one and it is asked for.
    Login,
    /// A manifest.
    Manifest,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Proxy => "proxy",
            Self::Dns => "dns",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Api => "api",
            Self::Login => "login",
            Self::Manifest => "manifest",
        })
    }
}

/// One stage that was reached, the one that failed included.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Step {
    /// Which.
    pub stage: Stage,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// What was found.
    pub found: String,
}

/// What came of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The stages that were reached.
    pub steps: Vec<Step>,
    /// What `/v2/` asks for, when it was reached.
    pub challenge: Option<Challenge>,
    /// What is held of canaries.
    pub held: Vec<Held>,
    /// What is amiss, with the stage; the first that stops the probe, or each manifest that is not there.
    pub troubles: Vec<(Stage, Trouble)>,
}

/// What can be amiss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The way there is none that we can take.
    Route(String),
    /// The name has no address.
    NoName(String),
    /// No connection.
    Unreachable(String),
    /// No answer in time.
    Silent,
    /// The proxy does not let it through.
    ProxyRefused(u16),
    /// The server is not believed, in Go's words.
    Disbelieved(String),
    /// Our library cannot tell.
    Unknown(String),
    /// No TLS is spoken there.
    NoTls,
    /// A client certificate is wanted, and there is none to show.
    ClientWanted,
    /// The client certificate that was shown is refused.
    ClientRefused(String),
    /// What is said there is not HTTP, or breaks off.
    NoHttp(String),
    /// `/v2/` is answered with this status.
    Status(u16),
    /// `/v2/` is a page for people.
    Page,
    /// A page for people stands where a manifest should.
    NoManifest {
        /// The image.
        image: String,
    },
    /// The login is not accepted.
    LoginRefused(u16),
    /// The login would have to go elsewhere, or over plain HTTP, and is not sent there.
    LoginKept(String),
    /// Who pulls with more than nodeprep sends may be let in: this status does not tell.
    Closed {
        /// The image.
        image: String,
        /// The status.
        status: u16,
    },
    /// Tokens are wanted and the runtime does not send its login to where they are issued.
    LoginLost(String),
    /// A manifest is answered with this status.
    Manifest {
        /// The image.
        image: String,
        /// The status.
        status: u16,
    },
}

impl Trouble {
    /// Whether the runtime would fail as well; else it could not be told.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        match self {
            Self::Route(_)
            | Self::Unknown(_)
            | Self::LoginKept(_)
            | Self::Page
            | Self::Closed { .. }
            | Self::Status(429)
            | Self::Manifest { status: 429, .. } => Outcome::CouldNotRun,
            // containerd never asks for /v2/: what is missing there may be there below it
            Self::Status(status) if *status < 500 => Outcome::CouldNotRun,
            _ => Outcome::Failed,
        }
    }

    /// The image whose manifest it is about.
    #[must_use]
    pub const fn image(&self) -> Option<&String> {
        match self {
            Self::Manifest { image, .. } | Self::NoManifest { image } | Self::Closed { image, .. } => Some(image),
            _ => None,
        }
    }

    /// The stage where it came up, in a word: what is amiss is told elsewhere.
    #[must_use]
    pub const fn at_once(&self) -> &'static str {
        match self {
            Self::Route(_) | Self::LoginKept(_) => "not tried",
            _ => "failed",
        }
    }

    /// What is amiss, in the words in which runtimes say it.
    #[must_use]
    pub fn what(&self) -> String {
        match self {
            Self::Route(what) => format!("the daemon goes there through {what}, which nodeprep does not speak"),
            Self::NoName(why) => format!("no such host: {why}"),
            Self::Silent => "i/o timeout: no answer within the time-out".into(),
            Self::ProxyRefused(status) => format!("the proxy answers {status} and does not connect"),
            Self::Unreachable(why) | Self::Disbelieved(why) | Self::Unknown(why) | Self::LoginLost(why) => why.clone(),
            Self::NoTls => "http: server gave HTTP response to HTTPS client".into(),
            Self::ClientWanted => "remote error: tls: certificate required: the server wants a client certificate".into(),
            Self::ClientRefused(why) => format!("remote error: tls: the client certificate is refused: {why}"),
            Self::NoHttp(why) => format!("the answer is not HTTP: {why}"),
            Self::Status(status) => format!("/v2/ is answered with {status}"),
            Self::Page => "/v2/ is answered with a page of HTML: a login page, or another web server".into(),
            Self::NoManifest { image } => format!("{image}: answered with HTML where the manifest should be"),
            Self::LoginRefused(status) => format!("the login is refused ({status} unauthorized)"),
            Self::LoginKept(why) => format!("the login was not tried: {why}"),
            Self::Closed { image, status } => {
                format!("{image}: {status} without what the runtime may send along: a token, a credential helper's answer, headers")
            }
            Self::Manifest { image, status: 404 } => format!("{image}: manifest unknown (404)"),
            Self::Manifest { image, status: status @ (401 | 403) } => format!("{image}: pull access denied ({status})"),
            Self::Manifest { image, status } => format!("{image}: unexpected status {status}"),
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn help(&self) -> &'static str {
        match self {
            Self::NoName(_) => "correct the name in the spec, or the node's DNS (`getent hosts NAME` must answer)",
            Self::Unreachable(_) | Self::Silent => {
                "start the mirror, correct its port, or open the way to it; behind a proxy check NO_PROXY of the runtime's unit"
            }
            Self::ProxyRefused(_) => "add the host to NO_PROXY of the runtime's unit, or let the proxy connect to it",
            Self::Disbelieved(why) => disbelieved(why),
            Self::Unknown(_) => "try it with the runtime itself: only nodeprep's TLS library stops here",
            Self::NoTls => "write the endpoint with http://, or let the mirror speak TLS",
            Self::ClientWanted => "give `client_cert` and `client_key` in the [[registry]] of that host",
            Self::ClientRefused(_) => "give a client certificate that was issued by a CA that the server accepts, and has not expired",
            Self::Page | Self::NoManifest { .. } => {
                "open it in a browser to see who answers; correct the endpoint's host or path, or take the portal out of the way"
            }
            Self::NoHttp(_) => "look at what listens there: it is no registry",
            Self::Status(429) | Self::Manifest { status: 429, .. } => "wait until the registry takes requests again",
            Self::Status(status) if *status >= 500 => "look at the mirror's own log: it answers, but does not work",
            Self::Status(_) => "look whether a registry answers there; --manifest IMAGE shows whether images are found",
            Self::LoginRefused(_) => "give the right `credentials` for that host",
            Self::Route(_) | Self::Closed { .. } => "try it with the runtime itself, `crictl pull` or `podman pull`",
            Self::LoginKept(_) => "try it with the runtime itself; nodeprep sends a login to its own host only, and over TLS only",
            Self::LoginLost(_) => "upgrade to containerd 2.1, or write `credentials_by = \"config\"` in the [[registry]] of that host",
            Self::Manifest { status: 404, .. } => "put the image into the mirror, or correct the endpoint's prefix",
            Self::Manifest { status: 401 | 403, .. } => "give `credentials` that may pull it",
            Self::Manifest { .. } => "look at the mirror's own log",
        }
    }
}

/// Messages are keyed to what people see in the runtime's log.
fn disbelieved(why: &str) -> &'static str {
    if why.contains("expired or is not yet valid") {
        "renew the certificate that is named, or correct the clock of the node"
    } else if why.contains("legacy Common Name") || why.contains("any names") || why.contains("any IP SANs") {
        "issue the server's certificate with its name as subject alternative name"
    } else if why.contains("is valid for") {
        "write the endpoint with a name that the certificate is for, or issue one for this name"
    } else if why.contains("unknown authority") {
        "put the CA that issued the server's certificate into the spec as [[ca]]; if it is there, let the server send its intermediates"
    } else {
        "issue the server's certificate anew, as its CA's rules want it"
    }
}

impl Seen {
    /// The worst of what is amiss.
    #[must_use]
    pub fn worst(&self) -> Option<&(Stage, Trouble)> {
        self.troubles.iter().min_by_key(|(_, trouble)| trouble.outcome())
    }
}
