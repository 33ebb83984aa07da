//! The questions that a registry is asked: whether it is one, what login it wants, whether ours is good, and manifests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::{Timed, addresses, connect};
use super::http::{Answer, Body, Broken, Request, exchange};
use super::tls::{Noted, Terms, Tls, shake};
use crate::model::cert::base64;
use crate::model::challenge::Challenge;
use crate::model::digest::Digest;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::image::is_digest;
use crate::model::secret::Secret;
use crate::model::time::Time;
use crate::runtime::golang::Route;
use crate::verify::probe::{Ask, Held, Manifest, Seen, Stage, Step, Target, Trouble, Trusted};

/// What a registry may keep an image as.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, */*";

/// Tries one target.
pub(super) fn probe(target: &Target, patience: Duration) -> Seen {
    let mut probe = Probe { target, deadline: Instant::now() + patience, steps: Vec::new(), held: Vec::new(), challenge: None };
    let mut troubles = Vec::new();
    let reached = probe.reach();
    // containerd never asks for /v2/: a server that has none may have manifests
    let ends = |(_, trouble): &(Stage, Trouble)| !matches!(trouble, Trouble::Page | Trouble::Status(..500));
    let end = reached.as_ref().is_err_and(ends);
    troubles.extend(reached.err());
    if !end {
        let begun = Instant::now();
        if let Err(trouble) = probe.login() {
            probe.steps.push(step(Stage::Login, begun, trouble.at_once().to_owned()));
            troubles.push((Stage::Login, trouble));
        }
        for manifest in &target.manifests {
            let (begun, known) = (Instant::now(), probe.steps.len());
            if let Err(trouble) = probe.manifest(manifest) {
                if probe.steps.len() == known {
                    probe.steps.push(step(Stage::Manifest, begun, format!("{}: {}", manifest.image, trouble.at_once())));
                }
                troubles.push((Stage::Manifest, trouble));
            }
        }
    }
    Seen { steps: probe.steps, challenge: probe.challenge, held: probe.held, troubles }
}

struct Probe<'a> {
    target: &'a Target,
    deadline: Instant,
    steps: Vec<Step>,
    held: Vec<Held>,
    challenge: Option<Challenge>,
}

/// Where a request goes: the target, or where its tokens are issued.
struct Place<'a> {
    scheme: Scheme,
    host: &'a Host,
    trust: &'a Trusted,
    /// The target itself: only there is a client certificate shown.
    own: bool,
}

impl Place<'_> {
    fn port(&self) -> u16 {
        self.host.port().unwrap_or(if self.scheme == Scheme::Https { 443 } else { 80 })
    }

    fn name(&self) -> &str {
        self.host.name().trim_start_matches('[').trim_end_matches(']')
    }
}

/// A connection, with TLS or without.
enum Line {
    Plain(Timed),
    Tls(Box<Tls>, Arc<Noted>),
}

impl Probe<'_> {
    fn own(&self) -> Place<'_> {
        Place { scheme: self.target.scheme, host: &self.target.host, trust: &self.target.trust, own: true }
    }

    /// Every stage up to `/v2/`, without a login.
    fn reach(&mut self) -> Result<(), (Stage, Trouble)> {
        let (mut steps, mut begun) = (Vec::new(), Instant::now());
        let line = self.line(&self.own(), &mut |stage, since, found| {
            steps.push(step(stage, since, found));
            begun = Instant::now();
        });
        self.steps.append(&mut steps);
        let answer = line.and_then(|line| {
            self.send(line, &self.own(), "GET", "/v2/", Vec::new(), Body::Page).map_err(|trouble| at_tls(trouble, Stage::Api))
        });
        let answer = answer.map_err(|(stage, trouble)| {
            self.steps.push(step(stage, begun, trouble.at_once().to_owned()));
            (stage, trouble)
        })?;
        let challenge = if answer.status == 401 { Challenge::of(answer.header("www-authenticate")) } else { Challenge::None };
        self.steps.push(step(Stage::Api, begun, format!("{}, {challenge}", answer.status)));
        if !matches!(answer.status, 200..=299 | 401) {
            return Err((Stage::Api, Trouble::Status(answer.status)));
        }
        if (200..300).contains(&answer.status) && answer.is_page() {
            return Err((Stage::Api, Trouble::Page));
        }
        self.challenge = Some(challenge);
        Ok(())
    }

    /// Whether the login is good, where one is wanted and there is one.
    fn login(&mut self) -> Result<(), Trouble> {
        let Some(login) = &self.target.login else { return Ok(()) };
        let begun = Instant::now();
        match self.challenge.clone() {
            Some(Challenge::Basic) => {
                let answer = self.ask(&self.own(), "GET", "/v2/", vec![("Authorization", basic(self.may_have(login)?))], Body::Never)?;
                if !(200..300).contains(&answer.status) {
                    return Err(Trouble::LoginRefused(answer.status));
                }
            }
            Some(Challenge::Bearer { realm, service }) => drop(self.token(&realm, service.as_deref(), None, Some(login))?),
            _ => return Ok(()),
        }
        self.steps.push(step(Stage::Login, begun, "accepted".to_owned()));
        Ok(())
    }

    fn manifest(&mut self, manifest: &Manifest) -> Result<(), Trouble> {
        let begun = Instant::now();
        let mut headers = vec![("Accept", MANIFESTS.as_bytes().to_vec())];
        match (&self.challenge, &self.target.login) {
            (Some(Challenge::Basic), Some(login)) => headers.push(("Authorization", basic(self.may_have(login)?))),
            (Some(Challenge::Bearer { realm, service }), login) => {
                let token = self.token(realm, service.as_deref(), Some(&manifest.repo), login.as_ref())?;
                headers.push(("Authorization", [b"Bearer ", token.expose()].concat()));
            }
            _ => {}
        }
        let (method, body) = if manifest.ask == Ask::Age { ("GET", Body::Always) } else { ("HEAD", Body::Never) };
        let answer = self.ask(&self.own(), method, &manifest.path, headers.clone(), body)?;
        self.steps.push(step(
            Stage::Manifest,
            begun,
            if answer.is_html() {
                format!("{}: {}, text/html", manifest.image, answer.status)
            } else {
                format!("{}: {}", manifest.image, answer.status)
            },
        ));
        match answer.status {
            // taken for the manifest, and the pull ends there: nobody else is asked (T42)
            200 if answer.is_html() => Err(Trouble::NoManifest { image: manifest.image.clone() }),
            200 if manifest.ask == Ask::There => Ok(()),
            200 => {
                let held = self.held(manifest, &answer, &headers);
                self.held.push(held);
                Ok(())
            }
            status @ (401 | 403) if self.target.more || self.challenge.is_none() => {
                Err(Trouble::Closed { image: manifest.image.clone(), status })
            }
            status => Err(Trouble::Manifest { image: manifest.image.clone(), status }),
        }
    }

    /// Which manifest was answered, and when its image was made where that is to be known.
    fn held(&self, manifest: &Manifest, answer: &Answer, headers: &[(&str, Vec<u8>)]) -> Held {
        let mut digest =
            answer.header("docker-content-digest").next().map(|digest| digest.trim().to_owned()).filter(|digest| is_digest(digest));
        let mut created = None;
        if manifest.ask == Ask::Age {
            created = Some(self.created(manifest, &answer.body, headers));
            digest = digest.or_else(|| digest_of(&answer.body));
        } else if digest.is_none() {
            let answer = self.ask(&self.own(), "GET", &manifest.path, headers.to_vec(), Body::Always);
            digest = answer.ok().filter(|answer| answer.status == 200).and_then(|answer| digest_of(&answer.body));
        }
        Held { path: manifest.path.clone(), digest, created }
    }

    /// When the image of a manifest was made: what its annotations say (OCI image spec, annotations.md), else its configuration. Of an index
    /// the first manifest counts: they are made together.
    fn created(&self, manifest: &Manifest, body: &[u8], headers: &[(&str, Vec<u8>)]) -> Result<Time, String> {
        let (path, query) =
            manifest.path.split_once('?').map_or((manifest.path.as_str(), String::new()), |(path, query)| (path, format!("?{query}")));
        let repo = path.rsplit_once("/manifests/").map_or(path, |(repo, _)| repo);
        let json =
            |what: &str, body: &[u8]| serde_json::from_slice::<serde_json::Value>(body).map_err(|_| format!("its {what} cannot be read"));
        let get = |what: &str, kind: &str, digest: &serde_json::Value| {
            let digest = digest.as_str().filter(|digest| is_digest(digest)).ok_or_else(|| format!("its {what} is not named"))?;
            let answer = self.ask(&self.own(), "GET", &format!("{repo}/{kind}/{digest}{query}"), headers.to_vec(), Body::Always);
            let answer = answer.map_err(|trouble| trouble.what())?;
            match answer.status {
                200 => json(what, &answer.body),
                300..400 => Err(format!("its {what} is kept elsewhere, and redirects are not followed")),
                status => Err(format!("its {what} is answered with {status}")),
            }
        };
        let time = |said: &serde_json::Value| {
            let text = said.as_str().ok_or_else(|| "it does not say so".to_owned())?;
            Time::parse_rfc3339(text).ok_or_else(|| "its creation date is no date".to_owned())
        };
        let mut said = json("manifest", body)?;
        if said["annotations"][CREATED].is_null() && said["config"].is_null() {
            said = get("first manifest", "manifests", &said["manifests"][0]["digest"])?;
        }
        match &said["annotations"][CREATED] {
            serde_json::Value::Null => time(&get("configuration", "blobs", &said["config"]["digest"])?["created"]),
            annotation => time(annotation),
        }
    }

    /// The login, where it may be sent: over TLS.
    fn may_have<'b>(&self, login: &'b Secret) -> Result<&'b Secret, Trouble> {
        match self.target.scheme {
            Scheme::Https => Ok(login),
            Scheme::Http => Err(Trouble::LoginKept("it would go over plain HTTP".into())),
        }
    }

    /// A token for pulling from `repo`; with a login only from the registry's own host.
    fn token(&self, realm: &str, service: Option<&str>, repo: Option<&str>, login: Option<&Secret>) -> Result<Secret, Trouble> {
        let elsewhere = || Trouble::LoginKept(format!("tokens are issued by {}", realm.split('?').next().unwrap_or_default()));
        let (scheme, rest) = match realm.split_once("://").filter(|(_, rest)| rest.bytes().all(|byte| byte.is_ascii_graphic())) {
            Some(("https", rest)) => (Scheme::Https, rest),
            Some(("http", rest)) => (Scheme::Http, rest),
            _ => return Err(elsewhere()),
        };
        let cut = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(cut);
        let host = Host::from_reference(authority).map_err(|_| elsewhere())?;
        let near = host == self.target.host && scheme == self.target.scheme;
        if login.is_some() && !(near && scheme == Scheme::Https) {
            return Err(elsewhere());
        }
        let mut target = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let parameters =
            [service.map(|service| ("service", service.to_owned())), repo.map(|repo| ("scope", format!("repository:{repo}:pull")))];
        for (name, value) in parameters.into_iter().flatten() {
            let sign = if target.contains('?') { '&' } else { '?' };
            target = format!("{target}{sign}{name}={}", escaped(&value));
        }
        let headers = login.map(|login| ("Authorization", basic(login))).into_iter().collect();
        let place = Place { scheme, host: &host, trust: &self.target.trust, own: near };
        let answer = self.ask(&place, "GET", &target, headers, Body::Always);
        // which way the runtime takes to somebody else's host is not known here
        let answer = if near { answer? } else { answer.map_err(|_| elsewhere())? };
        if answer.status != 200 {
            return Err(Trouble::LoginRefused(answer.status));
        }
        let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let token = ["token", "access_token"].into_iter().find_map(|name| said.get(name)?.as_str());
        // what cannot stand in a header is no token
        let token = token.filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        token.map(Secret::new).ok_or_else(|| Trouble::NoHttp("where tokens are issued none is given out".into()))
    }

    /// A request on a connection of its own.
    fn ask(
        &self,
        place: &Place<'_>,
        method: &'static str,
        target: &str,
        headers: Vec<(&str, Vec<u8>)>,
        body: Body,
    ) -> Result<Answer, Trouble> {
        let line = self.line(place, &mut |_, _, _| {}).map_err(|(_, trouble)| trouble)?;
        self.send(line, place, method, target, headers, body)
    }

    fn send<'b>(
        &'b self,
        line: Line,
        place: &Place<'_>,
        method: &'static str,
        target: &str,
        mut headers: Vec<(&'b str, Vec<u8>)>,
        body: Body,
    ) -> Result<Answer, Trouble> {
        headers.push(("Connection", b"close".to_vec()));
        if place.own && place.scheme == Scheme::Https {
            headers.extend(
                self.target.header.iter().filter(|header| is_sound(header)).map(|(name, value)| (&**name, value.expose().to_vec())),
            );
        }
        let mut absolute = String::new();
        if let (Scheme::Http, Route::Proxy { login, .. }) = (place.scheme, self.route(place)) {
            absolute = format!("http://{}{target}", place.host);
            headers.extend(login.as_ref().map(|login| ("Proxy-Authorization", basic(login))));
        }
        let target = if absolute.is_empty() { target } else { &absolute };
        let request = Request { method, target, host: place.host.as_str(), headers };
        match line {
            Line::Plain(mut stream) => exchange(&mut stream, &request, body).map_err(|broken| trouble(broken, None)),
            Line::Tls(mut stream, noted) => exchange(&mut *stream, &request, body).map_err(|broken| trouble(broken, Some(&noted))),
        }
    }

    fn route(&self, place: &Place<'_>) -> &Route {
        // whoever issues tokens elsewhere is not asked through a way that was chosen for another host
        if place.own { &self.target.route } else { &Route::Direct }
    }

    /// A connection to a place, and what each stage found.
    fn line(&self, place: &Place<'_>, tell: &mut impl FnMut(Stage, Instant, String)) -> Result<Line, (Stage, Trouble)> {
        let route = self.route(place);
        let begun = Instant::now();
        let (name, port) = match route {
            Route::Direct => (place.name(), place.port()),
            Route::Proxy { host, port, .. } => (host.as_str(), *port),
            Route::Other(what) => return Err((Stage::Proxy, Trouble::Route(what.clone()))),
        };
        tell(Stage::Proxy, begun, if *route == Route::Direct { "none".to_owned() } else { format!("{name}:{port}") });
        let begun = Instant::now();
        let found = addresses(name, port, self.deadline).map_err(|trouble| (Stage::Dns, trouble))?;
        tell(Stage::Dns, begun, found.iter().map(|address: &SocketAddr| address.ip().to_string()).collect::<Vec<_>>().join(", "));
        let begun = Instant::now();
        let (mut stream, address) = connect(&found, self.deadline).map_err(|trouble| (Stage::Tcp, trouble))?;
        tell(Stage::Tcp, begun, address.to_string());
        if place.scheme == Scheme::Http {
            return Ok(Line::Plain(stream));
        }
        if let Route::Proxy { login, .. } = route {
            let begun = Instant::now();
            let target = format!("{}:{}", place.host.name(), place.port());
            let headers = login.as_ref().map(|login| ("Proxy-Authorization", basic(login))).into_iter().collect();
            let request = Request { method: "CONNECT", target: &target, host: &target, headers };
            let answer = exchange(&mut stream, &request, Body::Never).map_err(|broken| (Stage::Proxy, trouble(broken, None)))?;
            if !(200..300).contains(&answer.status) {
                return Err((Stage::Proxy, Trouble::ProxyRefused(answer.status)));
            }
            tell(Stage::Proxy, begun, format!("connects to {target}"));
        }
        let begun = Instant::now();
        let client = self.target.client.as_deref().filter(|_| place.own);
        let terms = Terms { name: place.name(), trust: place.trust, client };
        let (tls, noted) = shake(stream, &terms).map_err(|trouble| (Stage::Tls, trouble))?;
        tell(Stage::Tls, begun, noted.words(&tls.conn));
        Ok(Line::Tls(Box::new(tls), noted))
    }
}

/// The annotation that says when an image was made.
const CREATED: &str = "org.opencontainers.image.created";

/// The digest of a manifest that is whole.
fn digest_of(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<serde::de::IgnoredAny>(body).ok().map(|_| format!("sha256:{}", Digest::of(body)))
}

fn step(stage: Stage, since: Instant, found: String) -> Step {
    Step { stage, took_ms: u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX), found }
}

/// With TLS 1.3 what is wrong with a client certificate is said only after the handshake.
fn at_tls(trouble: Trouble, else_at: Stage) -> (Stage, Trouble) {
    let stage = if matches!(trouble, Trouble::ClientWanted | Trouble::ClientRefused(_)) { Stage::Tls } else { else_at };
    (stage, trouble)
}

fn trouble(broken: Broken, noted: Option<&Noted>) -> Trouble {
    match (broken, noted) {
        (Broken::NoHttp(why), _) => Trouble::NoHttp(why),
        (Broken::Io(error), Some(noted)) => noted.trouble(&error),
        (Broken::Io(error), None) if super::dial::is_late(&error) => Trouble::Silent,
        (Broken::Io(error), None) => Trouble::Unreachable(super::dial::reason(&error)),
    }
}

/// What Go would send: it refuses names that are no tokens and values with control characters.
fn is_sound((name, value): &(String, Secret)) -> bool {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !name.is_empty() && name.bytes().all(token) && value.expose().iter().all(|byte| *byte == b'\t' || !byte.is_ascii_control())
}

fn basic(login: &Secret) -> Vec<u8> {
    format!("Basic {}", base64(login.expose())).into_bytes()
}

/// For the query of a URL.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b':');
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
