//! Probes against servers made on the spot.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};

use super::probe;
use crate::model::cert::base64;
use crate::model::challenge::Challenge;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::secret::Secret;
use crate::node::root::Root;
use crate::runtime::golang::Route;
use crate::verify::Outcome;
use crate::verify::believe::Pool;
use crate::verify::probe::{Ask, Identity, Manifest, Seen, Stage, Target, Trouble, Trusted};

fn own() -> Root {
    Root::open(std::path::Path::new("/")).unwrap()
}

const LONG: Duration = Duration::from_secs(30);
const LOGIN: &str = "user:hunter2-secret";

struct Ca {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn ca() -> Ca {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    Ca { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
}

impl Ca {
    fn signs(&self) -> (Vec<u8>, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().der().to_vec(), key)
    }

    fn pool(&self) -> Trusted {
        Trusted::By(Arc::new(Pool::of([self.der.as_slice()])))
    }

    fn server(&self, clients: Option<&Ca>) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(CertificateDer::from(ca.der.clone())).unwrap();
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap())
            }
        };
        let (der, key) = self.signs();
        Arc::new(builder.with_single_cert(vec![CertificateDer::from(der)], PrivateKeyDer::try_from(key.serialize_der()).unwrap()).unwrap())
    }
}

/// Requests as they arrived: the first line, and the rest of the head.
type Arrived = Arc<Mutex<Vec<(String, String)>>>;

/// Listens on loopback, with TLS or without; answers as told, by request line and head.
fn serve(tls: Option<Arc<ServerConfig>>, answer: impl Fn(&str, &str) -> String + Send + Sync + 'static) -> (Host, Arrived) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Host::new(&listener.local_addr().unwrap().to_string()).unwrap();
    let arrived = Arrived::default();
    let (noted, answer) = (Arc::clone(&arrived), Arc::new(answer));
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (tls, noted, answer) = (tls.clone(), Arc::clone(&noted), Arc::clone(&answer));
            thread::spawn(move || match tls {
                None => converse(stream, &noted, &*answer),
                Some(config) => {
                    let mut connection = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                    converse(&mut connection, &noted, &*answer);
                    connection.conn.send_close_notify();
                    let _ = connection.flush();
                }
            });
        }
    });
    (host, arrived)
}

fn converse(stream: impl Read + Write, noted: &Arrived, answer: &dyn Fn(&str, &str) -> String) {
    let mut stream = BufReader::new(stream);
    let (mut first, mut head) = (String::new(), String::new());
    if stream.read_line(&mut first).unwrap_or(0) == 0 {
        return;
    }
    while let Ok(1..) = stream.read_line(&mut head) {
        if head.ends_with("\r\n\r\n") || head == "\r\n" {
            break;
        }
    }
    noted.lock().unwrap().push((first.trim_end().to_owned(), head.clone()));
    let _ = stream.get_mut().write_all(answer(first.trim_end(), &head).as_bytes());
    let _ = stream.get_mut().flush();
}

fn said(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} As Told\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
}

fn target(scheme: Scheme, host: &Host, trust: Trusted) -> Target {
    Target {
        scheme,
        host: host.clone(),
        trust,
        client: None,
        login: None,
        header: Vec::new(),
        more: false,
        route: Route::Direct,
        manifests: Vec::new(),
    }
}

fn one(target: Target) -> Seen {
    probe(&own(), &[target], LONG, |_| {}).remove(0)
}

fn lines(arrived: &Arrived) -> Vec<String> {
    arrived.lock().unwrap().iter().map(|(line, _)| line.clone()).collect()
}

fn stages(seen: &Seen) -> Vec<Stage> {
    seen.steps.iter().map(|step| step.stage).collect()
}

fn coded() -> String {
    format!("Authorization: Basic {}", base64(LOGIN.as_bytes()))
}

#[test]
fn stage_by_stage_to_a_manifest() {
    let ca = ca();
    let (host, arrived) = serve(Some(ca.server(None)), |line, head| match (line.contains("/manifests/"), head.contains(&coded())) {
        (_, false) => said(401, "WWW-Authenticate: Basic realm=\"r\"\r\n", ""),
        (true, true) if line.contains("/gone/") => said(404, "", ""),
        (_, true) => said(200, "", ""),
    });
    let manifest =
        |repo: &str| Manifest { image: format!("{repo}:1"), path: format!("/v2/{repo}/manifests/1"), repo: repo.into(), ask: Ask::There };
    let mut target = target(Scheme::Https, &host, ca.pool());
    target.login = Some(Secret::new(LOGIN));
    target.manifests = vec![manifest("here"), manifest("gone/away")];
    let seen = one(target.clone());
    assert_eq!(
        stages(&seen),
        [Stage::Proxy, Stage::Dns, Stage::Tcp, Stage::Tls, Stage::Api, Stage::Login, Stage::Manifest, Stage::Manifest]
    );
    assert_eq!(seen.challenge, Some(Challenge::Basic));
    assert_eq!(seen.troubles, [(Stage::Manifest, Trouble::Manifest { image: "gone/away:1".into(), status: 404 })]);
    assert_eq!(lines(&arrived)[..3], ["GET /v2/ HTTP/1.1", "GET /v2/ HTTP/1.1", "HEAD /v2/here/manifests/1 HTTP/1.1"]);
    // whoever is not asked says nothing
    assert!(!arrived.lock().unwrap()[0].1.contains("Authorization"));
    assert!(!format!("{seen:?}{target:?}").contains("hunter2"));
    target.login = Some(Secret::new("user:wrong"));
    assert_eq!(one(target).troubles[0], (Stage::Login, Trouble::LoginRefused(401)));
}

#[test]
fn tokens_are_fetched_from_the_registry_s_own_host_only() {
    let ca = ca();
    let (thief, stolen) = serve(Some(ca.server(None)), |_, _| said(200, "", "{\"token\": \"t\"}"));
    let realm = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&realm);
    let (host, arrived) = serve(Some(ca.server(None)), move |line, head| match line.starts_with("GET /token") {
        true if head.contains(&coded()) => {
            // in pieces, as servers do that do not know the length beforehand
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n{\"token\"\r\nE\r\n: \"a-token-1\"}\r\n0\r\n\r\n".to_owned()
        }
        true => said(401, "", ""),
        false if head.contains("Bearer a-token-1") => said(200, "", ""),
        false => said(401, &format!("WWW-Authenticate: Bearer realm=\"{}\",service=\"s 1\"\r\n", told.lock().unwrap()), ""),
    });
    let mut target = target(Scheme::Https, &host, ca.pool());
    target.login = Some(Secret::new(LOGIN));
    target.manifests = vec![Manifest { image: "a/b:1".into(), path: "/v2/a/b/manifests/1".into(), repo: "a/b".into(), ask: Ask::There }];
    *realm.lock().unwrap() = format!("https://{host}/token");
    assert_eq!(one(target.clone()).troubles, []);
    assert!(lines(&arrived).contains(&"GET /token?service=s%201&scope=repository:a/b:pull HTTP/1.1".to_owned()));
    // elsewhere, and over plain HTTP: kept
    for other in [
        format!("https://{thief}/token"),
        format!("http://{host}/token"),
        format!("https://{host}@{thief}/token"),
        format!("https://{host}/token x"),
    ] {
        realm.lock().unwrap().clone_from(&other);
        let seen = one(target.clone());
        assert!(matches!(seen.worst(), Some((_, Trouble::LoginKept(_)))), "{other}: {seen:?}");
        assert!(seen.steps.iter().any(|step| step.stage == Stage::Login && step.found == "not tried"), "{seen:?}");
        assert_eq!(seen.worst().unwrap().1.outcome(), Outcome::CouldNotRun);
    }
    assert_eq!(lines(&stolen), [""; 0]);
    // without a login there is nothing to keep
    target.login = None;
    *realm.lock().unwrap() = format!("https://{thief}/token");
    let seen = one(target);
    assert_eq!(seen.troubles[0].1, Trouble::Manifest { image: "a/b:1".into(), status: 401 });
    assert_eq!(lines(&stolen), ["GET /token?service=s%201&scope=repository:a/b:pull HTTP/1.1"]);
}

#[test]
fn a_login_goes_neither_over_plain_http_nor_across_a_redirect() {
    let (plain, arrived) = serve(None, |_, _| said(401, "WWW-Authenticate: Basic\r\n", ""));
    let mut target = target(Scheme::Http, &plain, Trusted::Anybody);
    target.login = Some(Secret::new(LOGIN));
    assert!(matches!(one(target.clone()).troubles[..], [(Stage::Login, Trouble::LoginKept(_))]));
    assert!(arrived.lock().unwrap().iter().all(|(_, head)| !head.to_lowercase().contains("authorization")));
    let ca = ca();
    let (other, at_other) = serve(None, |_, _| said(200, "", ""));
    let (host, _) = serve(Some(ca.server(None)), move |_, head| {
        if head.contains("Authorization") {
            said(307, &format!("Location: http://{other}/v2/\r\n"), "")
        } else {
            said(401, "WWW-Authenticate: Basic\r\n", "")
        }
    });
    target = super::tests::target(Scheme::Https, &host, ca.pool());
    target.login = Some(Secret::new(LOGIN));
    assert_eq!(one(target).troubles, [(Stage::Login, Trouble::LoginRefused(307))]);
    assert_eq!(lines(&at_other), [""; 0]);
}

#[test]
fn client_certificates_wanted_refused_and_accepted() {
    let (server, clients, strangers) = (ca(), ca(), ca());
    let (host, _) = serve(Some(server.server(Some(&clients))), |_, _| said(200, "", ""));
    let shown = |by: &Ca| {
        let (der, key) = by.signs();
        Some(Arc::new(Identity { chain: vec![der], key: Secret::new(key.serialize_pem()) }))
    };
    let ask = |client| one(Target { client, ..target(Scheme::Https, &host, server.pool()) });
    let seen = ask(shown(&clients));
    assert_eq!(seen.troubles, []);
    assert!(seen.steps[3].found.contains("client certificate shown"), "{seen:?}");
    assert_eq!(ask(None).troubles, [(Stage::Tls, Trouble::ClientWanted)]);
    // both CAs bear one name here, so it is shown
    assert!(matches!(ask(shown(&strangers)).troubles[..], [(Stage::Tls, Trouble::ClientRefused(_))]));
}

#[test]
fn what_is_in_the_way_is_told_apart() {
    let ca = ca();
    let (tls, _) = serve(Some(ca.server(None)), |_, _| said(200, "", ""));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let plain = Host::new(&listener.local_addr().unwrap().to_string()).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(said(400, "", "").as_bytes());
        }
    });
    let (noise, _) = serve(None, |_, _| "SSH-2.0-OpenSSH_9.2\r\n".to_owned());
    let (endless, _) = serve(None, |_, _| format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(1 << 20)));
    let (broken, _) = serve(None, |_, _| said(503, "", ""));
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let https = |host: &Host, trust| one(target(Scheme::Https, host, trust)).troubles;
    let http = |host: &Host| one(target(Scheme::Http, host, Trusted::Anybody)).troubles;
    assert!(
        matches!(&https(&tls, Trusted::By(Arc::default()))[..], [(Stage::Tls, Trouble::Disbelieved(why))] if why.contains("unknown authority"))
    );
    assert_eq!(https(&tls, Trusted::Anybody), []);
    assert_eq!(https(&plain, ca.pool()), [(Stage::Tls, Trouble::NoTls)]);
    let seen = one(target(Scheme::Https, &plain, ca.pool()));
    assert_eq!(stages(&seen), [Stage::Proxy, Stage::Dns, Stage::Tcp, Stage::Tls]);
    assert_eq!(seen.steps.last().unwrap().found, "failed");
    assert!(matches!(http(&noise)[..], [(Stage::Api, Trouble::NoHttp(_))]));
    assert!(matches!(http(&endless)[..], [(Stage::Api, Trouble::NoHttp(_))]));
    assert_eq!(http(&broken), [(Stage::Api, Trouble::Status(503))]);
    assert!(
        matches!(&http(&Host::new(&free).unwrap())[..], [(Stage::Tcp, Trouble::Unreachable(why))] if why.contains("connection refused"))
    );
    assert!(matches!(http(&Host::fixed("nowhere.invalid"))[..], [(Stage::Dns, Trouble::NoName(_))]));
    // who takes a connection and says nothing
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = Host::new(&silent.local_addr().unwrap().to_string()).unwrap();
    for scheme in [Scheme::Http, Scheme::Https] {
        let seen = probe(&own(), &[target(scheme, &host, ca.pool())], Duration::from_millis(200), |_| {}).remove(0);
        assert!(matches!(seen.troubles[..], [(_, Trouble::Silent)]), "{seen:?}");
    }
}

#[test]
fn through_the_proxy_of_the_daemon() {
    let ca = ca();
    let (host, _) = serve(Some(ca.server(None)), |_, _| said(200, "", ""));
    let (refusing, asked) = serve(None, |_, _| said(403, "", ""));
    let through = |proxy: &Host, scheme, host: &Host| {
        let route = Route::Proxy { host: proxy.name().to_owned(), port: proxy.port().unwrap(), login: Some(Secret::new(LOGIN)) };
        one(Target { route, ..target(scheme, host, ca.pool()) })
    };
    let elsewhere = Host::fixed("registry.example:5000");
    assert_eq!(through(&refusing, Scheme::Https, &elsewhere).troubles, [(Stage::Proxy, Trouble::ProxyRefused(403))]);
    assert_eq!(lines(&asked), ["CONNECT registry.example:5000 HTTP/1.1"]);
    assert!(asked.lock().unwrap()[0].1.contains(&format!("Proxy-{}", coded())));
    assert_eq!(through(&refusing, Scheme::Http, &elsewhere).troubles, [(Stage::Api, Trouble::Status(403))]);
    assert_eq!(lines(&asked)[1], "GET http://registry.example:5000/v2/ HTTP/1.1");
    // one that connects
    let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = Host::new(&proxy.local_addr().unwrap().to_string()).unwrap();
    let to = host.to_string();
    thread::spawn(move || {
        let mut here = proxy.accept().unwrap().0;
        let mut byte = [0];
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && here.read(&mut byte).unwrap() == 1 {
            head.push(byte[0]);
        }
        let mut there = TcpStream::connect(to).unwrap();
        here.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").unwrap();
        let (mut from, mut back) = (here.try_clone().unwrap(), there.try_clone().unwrap());
        thread::spawn(move || std::io::copy(&mut from, &mut back));
        let _ = std::io::copy(&mut there, &mut here);
    });
    let seen = through(&at, Scheme::Https, &host);
    assert_eq!((seen.troubles.as_slice(), seen.steps[0].found.as_str()), (&[][..], at.as_str()));
}

/// No probe waits for another: each of two hundred is answered only once all two hundred are there.
#[test]
fn two_hundred_at_once() {
    const ALL: usize = 200;
    let barrier = Arc::new(Barrier::new(ALL));
    let (host, _) = serve(None, move |_, _| {
        barrier.wait();
        said(200, "", "")
    });
    let targets = vec![target(Scheme::Http, &host, Trusted::Anybody); ALL];
    let seen = probe(&own(), &targets, LONG, |_| {});
    assert_eq!(seen.len(), ALL);
    assert!(seen.iter().all(|seen| seen.troubles.is_empty()), "{seen:?}");
}

/// Headers may hold a token, and a client certificate says who the node is: they go where the login goes.
#[test]
fn headers_and_client_certificates_go_to_their_own_host_over_tls() {
    let (server, clients) = (ca(), ca());
    let (der, key) = clients.signs();
    let with = |scheme, host: &Host| Target {
        client: Some(Arc::new(Identity { chain: vec![der.clone()], key: Secret::new(key.serialize_pem()) })),
        header: vec![
            ("X-Tenant".into(), Secret::new("t-secret")),
            ("bad name".into(), Secret::new("x")),
            ("X-Bad".into(), Secret::new("a\r\nb")),
        ],
        manifests: vec![Manifest { image: "a/b:1".into(), path: "/v2/a/b/manifests/1".into(), repo: "a/b".into(), ask: Ask::There }],
        ..target(scheme, host, server.pool())
    };
    let realm = Arc::new(Mutex::new(String::new()));
    let told = Arc::clone(&realm);
    let (host, arrived) = serve(Some(server.server(Some(&clients))), move |_, _| {
        said(401, &format!("WWW-Authenticate: Bearer realm=\"{}\"\r\n", told.lock().unwrap()), "")
    });
    // whoever issues tokens elsewhere gets neither: one takes no connection without a client certificate, the others note all
    let (strict, at_strict) = serve(Some(server.server(Some(&clients))), |_, _| said(200, "", "{\"token\": \"t\"}"));
    let (open, at_open) = serve(Some(server.server(None)), |_, _| said(200, "", "{\"token\": \"t\"}"));
    let (plain, at_plain) = serve(None, |_, _| said(200, "", "{\"token\": \"t\"}"));
    for other in [format!("https://{strict}/token"), format!("https://{open}/token"), format!("http://{plain}/token")] {
        *realm.lock().unwrap() = other;
        assert!(!one(with(Scheme::Https, &host)).troubles.is_empty());
    }
    assert_eq!(lines(&at_strict), [""; 0]);
    for (at, count) in [(&at_open, 1), (&at_plain, 1)] {
        let heads = at.lock().unwrap();
        assert!(heads.len() == count && heads.iter().all(|(_, head)| !head.contains("X-")), "{heads:?}");
    }
    let heads = arrived.lock().unwrap().clone();
    assert!(
        !heads.is_empty() && heads.iter().all(|(_, head)| head.contains("X-Tenant: t-secret\r\n") && !head.to_lowercase().contains("bad")),
        "{heads:?}"
    );
    // over plain HTTP they stay here, and so what is refused there tells nothing
    let (plain, at_plain) = serve(None, |line, _| said(if line.contains("/manifests/") { 403 } else { 200 }, "", ""));
    let seen = one(Target { more: true, ..with(Scheme::Http, &plain) });
    assert_eq!(seen.troubles, [(Stage::Manifest, Trouble::Closed { image: "a/b:1".into(), status: 403 })]);
    assert_eq!(seen.troubles[0].1.outcome(), Outcome::CouldNotRun);
    assert!(at_plain.lock().unwrap().iter().all(|(_, head)| !head.contains("X-")));
}

/// Neither where tokens are issued nor where manifests are is a redirect followed, whatever would go along.
#[test]
fn no_stage_follows_a_redirect() {
    let ca = ca();
    let (other, at_other) = serve(Some(ca.server(None)), |_, _| said(200, "", "{\"token\": \"t\"}"));
    let away = move |path: &str| said(307, &format!("Location: https://{other}{path}\r\n"), "");
    let (name, told) = (Arc::new(Mutex::new(String::new())), Arc::new(Mutex::new("")));
    let (own, at) = (Arc::clone(&name), Arc::clone(&told));
    let (host, arrived) = serve(Some(ca.server(None)), move |line, head| match (*at.lock().unwrap(), line) {
        ("api", _) => away("/v2/"),
        ("token", line) if line.starts_with("GET /token") => away("/token"),
        (_, line) if line.starts_with("GET /token") => said(200, "", "{\"token\": \"a-token\"}"),
        (_, line) if line.contains("/manifests/") && head.contains("Bearer a-token") => away("/v2/a/b/manifests/1"),
        _ => said(401, &format!("WWW-Authenticate: Bearer realm=\"https://{}/token\"\r\n", own.lock().unwrap()), ""),
    });
    *name.lock().unwrap() = host.to_string();
    let mut target = target(Scheme::Https, &host, ca.pool());
    target.login = Some(Secret::new(LOGIN));
    target.manifests = vec![Manifest { image: "a/b:1".into(), path: "/v2/a/b/manifests/1".into(), repo: "a/b".into(), ask: Ask::There }];
    for (stage, trouble) in [
        ("api", Trouble::Status(307)),
        ("token", Trouble::LoginRefused(307)),
        ("manifest", Trouble::Manifest { image: "a/b:1".into(), status: 307 }),
    ] {
        *told.lock().unwrap() = stage;
        let seen = one(target.clone());
        assert_eq!(seen.troubles[0].1, trouble, "{stage}");
    }
    assert_eq!(lines(&at_other), [""; 0]);
    // what was there to be carried along was sent to its own host
    assert!(arrived.lock().unwrap().iter().any(|(_, head)| head.contains(&coded())));
}

/// The proxy's login goes to the proxy and the registry's to the registry, over TLS that the proxy cannot look into.
#[test]
fn a_proxy_gets_its_own_login_only() {
    let (proxy, asked) = serve(None, |_, _| said(401, "WWW-Authenticate: Basic\r\n", ""));
    let route =
        |login: Option<&str>| Route::Proxy { host: proxy.name().to_owned(), port: proxy.port().unwrap(), login: login.map(Secret::new) };
    for scheme in [Scheme::Https, Scheme::Http] {
        for own in [None, Some("proxy:its-own")] {
            let mut target = target(scheme, &Host::fixed("registry.example:5000"), Trusted::Anybody);
            (target.route, target.login) = (route(own), Some(Secret::new(LOGIN)));
            target.header = vec![("X-Tenant".into(), Secret::new("t"))];
            let _ = one(target);
        }
    }
    let heads = asked.lock().unwrap().clone();
    let coded = base64(LOGIN.as_bytes());
    assert!(heads.len() >= 4 && heads.iter().all(|(_, head)| !head.contains(&coded) && !head.contains("X-Tenant")), "{heads:?}");
    assert!(heads.iter().any(|(_, head)| head.contains(&base64(b"proxy:its-own"))));
}

/// A page for people is no registry; but what calls itself HTML without writing any may be one, and so may what has no /v2/.
#[test]
fn a_page_of_html_is_no_registry() {
    let page = "Content-Type: text/html; charset=utf-8\r\n";
    let asked = |v2: (u16, &'static str, &'static str), manifest: (u16, &'static str)| {
        let (host, _) = serve(
            None,
            move |line, _| {
                if line.contains("/manifests/") { said(manifest.0, manifest.1, "") } else { said(v2.0, v2.1, v2.2) }
            },
        );
        let manifests = vec![Manifest { image: "a/b:1".into(), path: "/v2/a/b/manifests/1".into(), repo: "a/b".into(), ask: Ask::There }];
        let seen = one(Target { manifests, ..target(Scheme::Http, &host, Trusted::Anybody) });
        assert_eq!(seen.steps.last().unwrap().stage, Stage::Manifest, "{seen:?}");
        seen.troubles.into_iter().map(|(_, trouble)| trouble).collect::<Vec<_>>()
    };
    let (good, image) = ((200, "Content-Type: application/json\r\n"), || "a/b:1".to_owned());
    assert_eq!(
        asked((200, page, "\n <!DOCTYPE html><title>Sign in</title>"), (200, page)),
        [Trouble::Page, Trouble::NoManifest { image: image() }]
    );
    assert_eq!(asked((200, page, "<html>"), good), [Trouble::Page]);
    assert_eq!(asked((200, page, "true"), good), []);
    assert_eq!(asked((200, "Content-Type: text/html\r\nDocker-Distribution-Api-Version: registry/2.0\r\n", "<x>"), good), []);
    assert_eq!(asked((404, page, "<html>"), good), [Trouble::Status(404)]);
    assert_eq!(asked((404, "", ""), (401, "")), [Trouble::Status(404), Trouble::Closed { image: image(), status: 401 }]);
    for trouble in [Trouble::Page, Trouble::Status(404), Trouble::Closed { image: image(), status: 401 }] {
        assert_eq!(trouble.outcome(), Outcome::CouldNotRun);
    }
    assert_eq!(Trouble::NoManifest { image: image() }.outcome(), Outcome::Failed);
}
