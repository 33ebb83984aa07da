//! Whatever a server says in the place of a spec: the agent says what it is, the node stays as it is, and the next good spec is applied.

use nodeprep::agent::state::{Fault, Phase};

use crate::https::start;
use crate::node::{Node, spec};
use crate::server::{Answer, Ca, Server};

/// Serves each answer to a node that has a spec, and a good one after it.
fn bear(answers: Vec<(Answer, Fault, &str)>, more: &[&str]) -> Server {
    let (ca, mut node) = (Ca::new(), Node::new());
    let server = Server::new(&ca);
    server.serves("/fleet.toml", spec(5000));
    start(&mut node, &ca, &server.url("/fleet.toml"), more);
    node.until("at rest", |state| state.converged && state.phase == Phase::Idle);
    for (answer, kind, what) in answers {
        let before = node.hosts();
        let shown = format!("{answer:?}").chars().take(100).collect::<String>();
        server.says("/fleet.toml", answer);
        let state = node.until_failing(kind, what);
        assert!(state.says.contains("the node stays as it is") && state.says.contains(what), "{shown}: {}", state.says);
        assert_eq!(node.hosts(), before, "{shown}");
        assert!(node.processes("agent").contains(&i32::try_from(node.pid()).unwrap()), "{shown}");
    }
    server.serves("/fleet.toml", spec(5001));
    node.until_port(5001);
    node.until("converged", |state| state.converged && state.failing.is_none());
    assert!(!node.state().passes.contains_key("crashed"), "{:#?}", node.state());
    server
}

fn whole(headers: &str, body: &str) -> Answer {
    Answer::Whole(200, headers.to_owned(), body.as_bytes().to_vec())
}

fn raw(text: &str) -> Answer {
    Answer::Raw(text.as_bytes().to_vec())
}

#[test]
fn what_is_no_spec() {
    let page = "<!DOCTYPE html><html><body>please log in</body></html>";
    let away = Fault::Unavailable;
    bear(
        vec![
            (raw("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\nversion = 1\n"), away, "it breaks off after 12 of 500 bytes"),
            (raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nc\r\nversion = 1\n\r\n"), away, "it breaks off after 12 bytes"),
            (whole("Content-Type: image/png\r\n", &spec(5009)), away, "it is said to be \"image/png\""),
            (whole("Content-Type: text/html\r\n", &spec(5009)), away, "a page for people (HTML)"),
            (whole("Content-Type: text/plain\r\n", page), away, "a page for people (HTML)"),
            (whole("", page), away, "a page for people (HTML)"),
            (Answer::Whole(503, String::new(), page.into()), away, "503 (the server fails)"),
            (whole("", ""), away, "it is empty"),
            (raw("SSH-2.0-OpenSSH_9.2\r\n"), away, "no sound HTTP"),
            (whole("", "version = ["), Fault::Spec, "no TOML"),
            (whole("", "version = 1\nfallback = 'never'\n[[mirorr]]\n"), Fault::Spec, "unknown key"),
        ],
        &[],
    );
}

/// A gigabyte is cut at what a spec may have, said to be so long or not, and not read.
#[test]
fn a_gigabyte() {
    let said = "it is larger than 1048576 bytes";
    let endless = |head: &str, more: Vec<u8>| Answer::Endless(format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes(), more);
    let megabyte = vec![b'#'; 1 << 20];
    let chunk = [b"100000\r\n", megabyte.as_slice(), b"\r\n"].concat();
    let server = bear(
        vec![
            (endless("Content-Length: 1073741824\r\n", megabyte.clone()), Fault::Unavailable, said),
            (endless("", megabyte), Fault::Unavailable, said),
            (endless("Transfer-Encoding: chunked\r\n", chunk), Fault::Unavailable, said),
        ],
        &[],
    );
    // what was on the way, in sockets and in what the server was about to write, for each time that it was asked
    let (asked, written) = (server.heads().len(), server.written());
    assert!(written < asked * (64 << 20), "{written} bytes were taken by {asked} requests");
}

/// Who keeps a connection open and says little is not waited for.
#[test]
fn a_server_that_says_little() {
    let silent = |text: &str| Answer::Silent(text.as_bytes().to_vec());
    let late = |answer| (answer, Fault::Unavailable, "it was not there within 1 s");
    let drops = Answer::Endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(), b"\r".to_vec());
    bear(
        vec![
            late(silent("")),
            (whole("", ""), Fault::Unavailable, "it is empty"),
            late(silent("HTTP/1.1 200 OK\r\nX: ")),
            (drops, Fault::Unavailable, "cannot be fetched"),
            late(silent("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nversion")),
        ],
        &["--spec-timeout", "1"],
    );
}
