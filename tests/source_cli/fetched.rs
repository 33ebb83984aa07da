//! What comes over the net, and what is refused of it.

use std::net::TcpListener;
use std::thread::JoinHandle;

use nodeprep::model::digest::Digest;

use crate::node::{Node, SECRET, SPEC};
use crate::server::{Answer, Ca, Link, Odd, Server, connect};

/// A node that knows the CA.
fn node(ca: &Ca) -> Node {
    let node = Node::new();
    node.put("ca.pem", &ca.pem);
    node
}

#[test]
fn every_subcommand_reads_a_url() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    server.serves("/fleet.toml?sig=s3cret-of-the-test", SPEC);
    let url = format!("{}?sig={SECRET}", server.url("/fleet.toml"));
    let words = |words: &[&str]| node.run(&[words, &["--spec", &url, "--spec-ca", "ca.pem"]].concat());
    words(&["check"]).says(0, &["fleet.toml: valid; 1 mirrored source"]);
    words(&["plan", "--exit-code"]).says(10, &["m.example.com"]);
    words(&["explain", "--planned", "docker.io/library/x"]).says(0, &["m.example.com"]);
    words(&["render", "--to", "out", "--runtime", "containerd"]).says(0, &[]);
    assert_eq!(node.mirror(), "");
    words(&["apply"]).says(0, &[]);
    assert_eq!(node.mirror(), "m.example.com");
    words(&["verify", "--offline"]).says(0, &[]);
    // nothing of the URL but what may be seen is kept
    for name in ["last-good.json", "fetched.json", "ledger.json"] {
        let text = String::from_utf8(node.kept(name).unwrap()).unwrap();
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
    // a spec that is wrong is wrong as in a file, with its place
    server.serves("/fleet.toml", SPEC.replace("source", "sorce"));
    let run = node.run(&["check", "--spec", &server.url("/fleet.toml"), "--spec-ca", "ca.pem"]);
    run.says(3, &[&format!("{}:5:1", server.url("/fleet.toml")), "unknown key `sorce`"]);
}

#[test]
fn only_https_and_no_login() {
    let node = Node::new();
    let url = |url: &str| node.run(&["apply", "--spec", url]);
    url("http://specs.example.com/fleet.toml").says(2, &["the URL of the spec is http://", "help: serve it over https://"]);
    let run = url(&format!("https://puller:{SECRET}@specs.example.com/fleet.toml"));
    run.says(2, &["has a login in it", "--spec-token-file"]);
    assert!(!run.said.contains("puller"), "{}", run.said);
    url("https://specs.example.com/fleet.toml#part").says(2, &["holds '#'"]);
    url("https://").says(2, &["names no host"]);
    // nor is a URL in the environment shown by --help
    let node = Node::new().with("NODEPREP_SPEC", &format!("https://h/?sig={SECRET}"));
    node.run(&["apply", "--help"]).says(0, &["--spec-ca"]);
}

/// A URL with a slip in it is no name of a file: that would be shown. An agent does not begin with one.
#[test]
fn a_url_that_is_mistyped_is_not_shown() {
    let node = Node::new();
    for url in ["htps://h/x?sig=", "https:/h/x?sig=", "https:h/x?sig=", " https://h/x?sig=", "file:///x?sig=", "https://h:x/?sig="] {
        let url = format!("{url}{SECRET}");
        for command in ["check", "apply", "agent"] {
            node.run(&[command, "--spec", &url]).says(2, &["the URL of the spec ", "help: write https://HOST/PATH"]);
        }
    }
    node.run(&["agent", "--spec", "http://h/x"]).says(2, &["is http://", "help: serve it over https://"]);
    // what begins like a path is one
    node.run(&["check", "--spec", "./a://b"]).says(3, &["./a://b cannot be read"]);
}

/// Each answer: what is said, with URL and remedy, exit code 69; nothing changes.
#[test]
fn answers_that_are_no_spec() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    let whole = |status: u16, headers: &str, body: &[u8]| Answer::Whole(status, headers.to_owned(), body.to_vec());
    let raw = |text: &str| Answer::Raw(text.as_bytes().to_vec());
    let page = b"\r\n <!DOCTYPE html><html><body>please log in</body></html>";
    let large = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 30);
    for (answer, wanted) in [
        (raw("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nversion = 1\n"), ["it breaks off after 12 of 500 bytes", "help: try again"]),
        (
            raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nversion = 1\n\r\n"),
            ["it breaks off after 12 bytes", "help: try again"],
        ),
        (
            whole(200, "Content-Type: text/html; charset=utf-8\r\n", SPEC.as_bytes()),
            ["a page for people (HTML)", "help: open it in a browser"],
        ),
        (whole(200, "Content-Type: text/plain\r\n", page), ["a page for people (HTML)", "help: open it in a browser"]),
        (whole(200, "", page), ["a page for people (HTML)", "help: open it in a browser"]),
        (whole(200, "Content-Type: image/png\r\n", b"x"), ["it is said to be \"image/png\"", "help: correct the URL"]),
        (whole(200, "Content-Encoding: gzip\r\n", b"x"), ["it is coded as \"gzip\"", "help: look with curl"]),
        (whole(200, "", b""), ["it is empty", "help: publish the file anew"]),
        (whole(200, "", b" \n"), ["it is empty", "help: publish the file anew"]),
        (whole(204, "", b""), ["it is answered with 204", "help: look with curl"]),
        (whole(304, "", b""), ["304 (not modified), although nothing is known of it", "help: look with curl"]),
        (whole(401, "", page), ["401 (unauthorized)", "--spec-token-file"]),
        (whole(403, "", page), ["403 (forbidden)", "help: let the server show the file"]),
        (whole(404, "", page), ["404 (not found)", "help: correct the URL"]),
        (whole(429, "", b""), ["429 (too many requests)", "help: wait"]),
        (whole(500, "", page), ["500 (the server fails)", "help: look at the server's own log"]),
        (raw(&large), ["it is larger than 1048576 bytes", "help: check that this is the file"]),
        (
            whole(302, "Location: https://elsewhere.example.com/x?s=s3cret-of-the-test\r\n", b""),
            ["to another one, https://elsewhere.example.com,", "help: give the URL"],
        ),
        (whole(302, "Location: http://127.0.0.1/x\r\n", b""), ["sends on to what is http://", "help: give the URL"]),
        (whole(301, "", b""), ["does not say where to", "help: give the URL"]),
        (whole(307, "Location: /fleet.toml\r\n", b""), ["sends on more than 5 times", "help: give the URL"]),
        (raw("SSH-2.0-OpenSSH_9.2\r\n"), ["the answer is no sound HTTP", "help: look with curl"]),
        (raw(""), ["the answer is no sound HTTP", "help: look with curl"]),
    ] {
        server.says("/fleet.toml", answer.clone());
        let url = server.url("/fleet.toml");
        let run = node.run(&["apply", "--spec", &url, "--spec-ca", "ca.pem"]);
        run.says(69, &[&format!("error[spec-unavailable]: the spec {url} cannot be fetched: "), wanted[0], wanted[1]]);
        assert!(node.kept("").is_none() && node.kept("ledger.json").is_none(), "{answer:?}");
        node.run(&["plan", "--output", "json", "--spec", &url, "--spec-ca", "ca.pem"]).says(69, &["\"exit_code\": 69"]);
    }
}

/// A gigabyte is not taken, nor waited for.
#[test]
fn an_endless_answer() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    let head = |more: &str| format!("HTTP/1.1 200 OK\r\n{more}\r\n").into_bytes();
    let megabyte = vec![b'#'; 1 << 20];
    for (head, more) in [
        (head(""), megabyte.clone()),
        (head("Transfer-Encoding: chunked\r\n"), [b"100000\r\n", megabyte.as_slice(), b"\r\n"].concat()),
        (head("Transfer-Encoding: chunked\r\n"), b"1\r\n#\r\n".repeat(10_000)),
    ] {
        server.says("/fleet.toml", Answer::Endless(head, more));
        let run = node.run(&["check", "--spec", &server.url("/fleet.toml"), "--spec-ca", "ca.pem"]);
        run.says(69, &["it is larger than 1048576 bytes"]);
    }
    // what was on the way, in sockets and in what the server was about to write
    assert!(server.written() < 256 << 20, "{} bytes were taken", server.written());
}

/// Byte by byte it would go on for ever.
#[test]
fn a_slow_answer() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    for answer in [
        Answer::Silent(Vec::new()),
        Answer::Silent(b"HTTP/1.1 200 OK\r\nX: ".to_vec()),
        Answer::Silent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nversion".to_vec()),
    ] {
        server.says("/fleet.toml", answer);
        let run = node.run(&["check", "--spec", &server.url("/fleet.toml"), "--spec-ca", "ca.pem", "--spec-timeout", "1"]);
        run.says(69, &["it was not there within 1 s", "help: look at the server's load", "--spec-timeout"]);
    }
    // it sends, and never comes to an end
    server.says("/fleet.toml", Answer::Endless(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(), b"HTTP/1.1 100 Continue\r\n\r\n".to_vec()));
    let run = node.run(&["check", "--spec", &server.url("/fleet.toml"), "--spec-ca", "ca.pem"]);
    run.says(69, &["its head has no end"]);
}

#[test]
fn who_is_believed() {
    let (ca, other) = (Ca::new(), Ca::new());
    let node = node(&ca);
    node.put("other.pem", &other.pem);
    node.put("none.pem", "nothing");
    let at = |server: &Server, file: &str| {
        server.serves("/fleet.toml", SPEC);
        node.run(&["check", "--spec", &server.url("/fleet.toml"), "--spec-ca", file])
    };
    at(&Server::new(&ca), "ca.pem").says(0, &[]);
    let server = Server::new(&ca);
    at(&server, "other.pem").says(69, &["tls: ", "certificate signed by unknown authority", "help: give the CA", "--spec-ca"]);
    assert!(server.heads().is_empty(), "nothing is asked of who is not believed");
    at(&Server::odd(&ca, Odd { expired: true, ..Odd::default() }), "ca.pem")
        .says(69, &["expired or is not yet valid", "correct the clock"]);
    at(&Server::odd(&ca, Odd { name: Some("127.0.0.2"), ..Odd::default() }), "ca.pem").says(69, &["is valid for 127.0.0.2, not 127.0.0.1"]);
    at(&Server::new(&ca), "none.pem").says(2, &["--spec-ca: none.pem holds no certificate"]);
    at(&Server::new(&ca), "gone.pem").says(2, &["--spec-ca: gone.pem cannot be read"]);
    // without --spec-ca it is what the system trusts, not what the node does
    let server = Server::new(&ca);
    server.serves("/fleet.toml", SPEC);
    node.run(&["check", "--spec", &server.url("/fleet.toml")]).says(69, &["unknown authority"]);
    let file = node.path("ca.pem");
    let node = Node::new().with("SSL_CERT_FILE", file.to_str().unwrap());
    node.run(&["check", "--spec", &server.url("/fleet.toml")]).says(0, &[]);
}

#[test]
fn nobody_there() {
    let ca = Ca::new();
    let (node, server) = (node(&ca), Server::new(&ca));
    let apply = || node.run(&["apply", "--spec", &server.url("/fleet.toml"), "--spec-ca", "ca.pem"]);
    server.link(Link::HangsUp);
    apply().says(69, &["cannot be fetched: tls: "]);
    server.link(Link::Gone);
    apply().says(69, &["cannot be fetched: tcp: ", "connection refused", "help: start the server"]);
    let run = node.run(&["apply", "--spec", "https://specs.invalid/fleet.toml", "--spec-ca", "ca.pem"]);
    run.says(69, &["cannot be fetched: dns: ", "specs.invalid", "help: correct the name in the URL"]);
}

#[test]
fn tokens_and_client_certificates() {
    let ca = Ca::new();
    let node = node(&ca);
    let token = node.secret("token", &format!("{SECRET}\n"));
    let server = Server::new(&ca);
    server.says("/fleet.toml", Answer::Whole(302, "Location: real/fleet.toml\r\n".to_owned(), Vec::new()));
    server.serves("/real/fleet.toml", SPEC);
    let url = server.url("/fleet.toml");
    let words = ["check", "--spec", &url, "--spec-ca", "ca.pem", "--spec-token-file", "token"];
    let run = node.run(&words);
    run.says(0, &[]);
    assert!(!run.said.contains("readable-secret"));
    let heads = server.heads();
    assert!(heads.len() == 2 && heads.iter().all(|head| head.contains(&format!("Authorization: Bearer {SECRET}\r\n"))), "{heads:?}");
    std::fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    node.run(&words).says(0, &["warning[readable-secret]: --spec-token-file: token may be read by others", "help: run `chmod 600 token`"]);
    for bad in ["", "two words", "line\nline"] {
        node.secret("token", bad);
        node.run(&words).says(2, &["--spec-token-file: token holds no token"]);
    }
    // it does not go to where a server sends on
    node.secret("token", SECRET);
    let other = Server::new(&ca);
    server.says("/fleet.toml", Answer::Whole(302, format!("Location: {}\r\n", other.url("/fleet.toml")), Vec::new()));
    node.run(&words).says(69, &["sends to another one"]);
    assert!(other.heads().is_empty());

    let server = Server::odd(&ca, Odd { wants_client: true, ..Odd::default() });
    server.serves("/fleet.toml", SPEC);
    let url = server.url("/fleet.toml");
    let (cert, key) = ca.client();
    node.put("node.crt", cert);
    node.secret("node.key", &key);
    node.secret("other.key", &ca.client().1);
    let with = |more: &[&str]| node.run(&[&["check", "--spec", &url, "--spec-ca", "ca.pem"], more].concat());
    with(&[]).says(69, &["the server wants a client certificate", "help: give --spec-client-cert"]);
    with(&["--spec-client-cert", "node.crt", "--spec-client-key", "node.key"]).says(0, &[]);
    with(&["--spec-client-cert", "node.crt", "--spec-client-key", "other.key"]).says(2, &["is not the key of that certificate"]);
    with(&["--spec-client-cert", "node.crt"]).says(2, &["--spec-client-key"]);
}

/// A proxy that answers so, once, and leads to `to`, whatever name it is asked for; and what it was asked.
fn proxy(answer: &'static str, to: Option<String>) -> (String, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = std::thread::spawn(move || connect(listener.accept().unwrap().0, answer, to));
    (host, asked)
}

#[test]
fn by_the_proxy_of_the_environment() {
    let ca = Ca::new();
    let server = Server::odd(&ca, Odd { name: Some("specs.example.com"), ..Odd::default() });
    server.serves("/fleet.toml", SPEC);
    let (host, asked) = proxy("HTTP/1.1 200 Connected\r\n\r\n", Some(server.host.clone()));
    let node = node(&ca).with("HTTPS_PROXY", &format!("http://me:{SECRET}@{host}"));
    node.run(&["check", "--spec", "https://specs.example.com/fleet.toml", "--spec-ca", "ca.pem"]).says(0, &["valid"]);
    let head = asked.join().unwrap();
    assert!(head.starts_with("CONNECT specs.example.com:443 HTTP/1.1\r\n") && head.contains("Proxy-Authorization: Basic "), "{head}");
    assert!(server.heads()[0].contains("Host: specs.example.com\r\n"));
    let (host, asked) = proxy("HTTP/1.1 403 Forbidden\r\n\r\n", None);
    let node = Node::new().with("HTTPS_PROXY", &format!("http://me:{SECRET}@{host}"));
    let run = node.run(&["check", "--spec", "https://specs.example.invalid/fleet.toml"]);
    run.says(69, &["cannot be fetched: proxy: the proxy answers 403", "NO_PROXY"]);
    asked.join().unwrap();
    let node = Node::new().with("HTTPS_PROXY", "http://127.0.0.1:1").with("NO_PROXY", ".invalid");
    node.run(&["check", "--spec", "https://specs.example.invalid/fleet.toml"]).says(69, &["cannot be fetched: dns: "]);
    let node = Node::new().with("HTTPS_PROXY", "socks5://127.0.0.1:1");
    node.run(&["check", "--spec", "https://specs.example.invalid/fleet.toml"]).says(69, &["a proxy of the kind socks5://", "HTTPS_PROXY"]);
}

#[test]
fn what_it_references_is_at_the_same_server_and_pinned() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    let root = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/spec/_material/root.pem")).unwrap();
    let pin = Digest::of(&root).to_string();
    server.serves("/specs/ca/root.pem", &root);
    server.serves("/root.pem", &root);
    let url = server.url("/specs/fleet.toml");
    let with = |reference: &str, more: &[&str]| {
        server.serves("/specs/fleet.toml", format!("{SPEC}[[ca]]\nname = \"root\"\ntrust = \"registries\"\n{reference}\n[[registry]]\nhost = \"m.example.com\"\nca = [\"root\"]\n"));
        node.run(&[&["apply", "--spec", &url, "--spec-ca", "ca.pem"], more].concat())
    };
    with(&format!("file = \"{}\"\nsha256 = \"{pin}\"", server.url("/root.pem")), &[]).says(0, &[]);
    assert_eq!(server.heads().len(), 2);
    // what is pinned and known is not asked for again
    with(&format!("file = \"{}\"\nsha256 = \"{pin}\"", server.url("/root.pem")), &[]).says(0, &[]);
    assert_eq!(server.heads().len(), 1);
    with(&format!("file = \"ca/root.pem\"\nsha256 = \"{pin}\""), &[]).says(0, &[]);
    assert!(server.heads().iter().any(|head| head.starts_with("GET /specs/ca/root.pem ")));
    with("file = \"ca/root.pem\"", &[]).says(3, &["what is fetched is pinned, and there is no `sha256`"]);
    with(&format!("file = \"{}\"", server.url("/root.pem")), &[]).says(3, &["error[unpinned]", "/root.pem has no digest"]);
    with(&format!("file = \"{}\"\nsha256 = \"{}\"", server.url("/root.pem"), "ab".repeat(32)), &[]).says(3, &["error[pin-mismatch]"]);
    with(&format!("file = \"https://elsewhere.example.com/root.pem\"\nsha256 = \"{pin}\""), &[])
        .says(3, &["it is at another server than the document"]);
    with(&format!("file = \"{}\"\nsha256 = \"{pin}\"", server.url("/gone.pem")), &[]).says(69, &["/gone.pem cannot be fetched", "404"]);
    // the folder of --material comes first
    node.put("material/mine.pem", &root);
    server.heads();
    with("file = \"mine.pem\"", &["--material", "material"]).says(0, &[]);
    assert_eq!(server.heads().len(), 1);
    // a key is never fetched
    let secret = "pem = ''\n[[registry]]\nhost = \"x.example\"\ncredentials = \"pull-secret.json\"\n";
    server.serves("/specs/pull-secret.json", SECRET);
    with(secret, &[]).says(3, &["keys and logins are never fetched", "--material"]);
    assert!(server.heads().iter().all(|head| !head.contains("pull-secret")));
    // and a spec in a file has nothing to fetch
    node.put("fleet.toml", format!("{SPEC}[[ca]]\nname = \"root\"\nfile = \"{}\"\nsha256 = \"{pin}\"\n", server.url("/root.pem")));
    node.run(&["apply", "--spec", "fleet.toml", "--spec-ca", "ca.pem"]).says(3, &["the document itself is not from there"]);
    assert!(server.heads().is_empty());
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    let url = server.url("/fleet.toml");
    let apply = || node.run(&["apply", "--spec", &url, "--spec-ca", "ca.pem"]);
    server.says("/fleet.toml", Answer::Tagged("\"one\"", SPEC.into()));
    apply().says(0, &[]);
    apply().says(0, &[]);
    assert_eq!((server.statuses(), node.mirror().as_str()), (vec![200, 304], "m.example.com"));
    server.says("/fleet.toml", Answer::Tagged("\"two\"", SPEC.replace("m.example", "n.example").into()));
    apply().says(0, &[]);
    assert_eq!((server.statuses(), node.mirror().as_str()), (vec![200], "n.example.com"));
    // what is kept is no more than a help
    for broken in ["", "{}", "\u{0}"] {
        node.put("root/var/lib/nodeprep/fetched.json", broken);
        apply().says(0, &[]);
        assert_eq!(server.statuses(), [200], "{broken:?}");
    }
    let kept = node.kept("fetched.json").unwrap();
    apply().says(0, &[]);
    assert_eq!(node.kept("fetched.json").unwrap(), kept);
    // drift is put right from what is known
    std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d")).unwrap();
    apply().says(0, &[]);
    assert_eq!((server.statuses(), node.mirror().as_str()), (vec![304, 304], "n.example.com"));
    // who only looks, as an agent that polls, asks so too; what is new it does not keep: that is for who applies it
    let plan = |more: &[&str]| node.run(&[&["plan", "--spec", &url, "--spec-ca", "ca.pem"], more].concat());
    plan(&[]).says(0, &[]);
    assert_eq!(server.statuses(), [304]);
    server.says("/fleet.toml", Answer::Tagged("\"three\"", SPEC.replace("m.example", "o.example").into()));
    for _ in 0..2 {
        plan(&["--exit-code"]).says(10, &["o.example.com"]);
        assert_eq!((server.statuses(), node.kept("fetched.json").unwrap()), (vec![200], kept.clone()));
    }
    // who looks at no node asks for all of it
    node.run(&["check", "--spec", &url, "--spec-ca", "ca.pem"]).says(0, &[]);
    assert_eq!(server.statuses(), [200]);
    // or asks nobody, and goes by what was applied
    server.heads();
    plan(&["--spec-kept", "--exit-code"]).says(0, &[]);
    std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d")).unwrap();
    let apply_kept = || node.run(&["apply", "--spec", &url, "--spec-ca", "ca.pem", "--spec-kept"]);
    apply_kept().says(0, &[]);
    assert_eq!((server.heads().len(), node.mirror().as_str()), (0, "n.example.com"));
    assert_eq!(node.kept("fetched.json").unwrap(), kept);
    // which of another URL is nothing
    let other = server.url("/other.toml");
    node.run(&["apply", "--spec", &other, "--spec-ca", "ca.pem", "--spec-kept"]).says(69, &["404"]);
    server.heads();
    // and where nothing was, it asks
    std::fs::remove_file(node.path("root/var/lib/nodeprep/fetched.json")).unwrap();
    apply_kept().says(0, &[]);
    assert_eq!((server.heads().len(), node.mirror().as_str()), (1, "o.example.com"));
}

/// After a power cut a whole fleet starts at once, and a package may be upgraded everywhere at once: what was fetched before is enough
/// then, and is asked for in its own time.
#[test]
fn an_agent_asks_in_its_own_time_only() {
    let ca = Ca::new();
    let (server, node) = (Server::new(&ca), node(&ca));
    let url = server.url("/fleet.toml");
    server.says("/fleet.toml", Answer::Tagged("\"one\"", SPEC.into()));
    for asked in [1, 0] {
        let drifted = std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d"));
        assert_eq!(drifted.is_ok(), asked == 0);
        let mut agent = node.agent(&["--spec", &url, "--spec-ca", "ca.pem", "--poll", "168h", "--quiet", "10ms"]);
        let state = || std::fs::read_to_string(node.path("root/run/nodeprep/agent.json")).unwrap_or_default();
        let mut until = |what: &str| {
            while !state().contains(what) {
                assert!(agent.try_wait().unwrap().is_none(), "it has ended: {}", state());
                std::thread::sleep(std::time::Duration::from_millis(10));
            }
        };
        until("\"phase\":\"idle\"");
        assert_eq!(node.mirror(), "m.example.com");
        // and drift is seen and put right
        std::fs::remove_dir_all(node.path("root/etc/containerd/certs.d/docker.io")).unwrap();
        until("\"repaired\":1");
        until("\"converged\":true");
        assert_eq!((server.heads().len(), node.mirror().as_str()), (asked, "m.example.com"));
        agent.kill().unwrap();
        agent.wait().unwrap();
        std::fs::remove_file(node.path("root/run/nodeprep/agent.json")).unwrap();
    }
}
