//! Calls to peers made on the spot, good ones and others.

use std::io::{Read, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use prost::Message;
use prost::bytes::Bytes;
use tempfile::TempDir;

use super::Client;
use super::messages::*;
use crate::model::cri::{Container as Used, CriError, Program, RUNTIME_READY};
use crate::model::path::NodePath;
use crate::node::root::Root;

const LONG: Duration = Duration::from_secs(30);
const SOCKET: &str = "/run/x.sock";

fn path() -> NodePath {
    NodePath::fixed(SOCKET)
}

fn scratch() -> (TempDir, Root) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let root = Root::open(folder.path()).unwrap();
    (folder, root)
}

/// What a peer does with a call: the head, what the body has, the trailers.
enum Answer {
    /// A message and status 0.
    Good(Vec<u8>),
    /// A status in the trailers.
    Late(&'static str, &'static str),
    /// A status in the head, and nothing else.
    Early(&'static str, &'static str),
    /// A head, a body and no trailers.
    Plain(u16, &'static str, Vec<u8>),
}

fn good(message: &impl Message) -> Answer {
    Answer::Good(super::grpc::framed(message))
}

fn status(code: &str, message: &str) -> HeaderMap {
    HeaderMap::from_iter([
        ("grpc-status".parse().unwrap(), code.parse().unwrap()),
        ("grpc-message".parse().unwrap(), message.parse().unwrap()),
    ])
}

/// A peer that speaks HTTP/2 and answers as told, by path and body.
fn serve(folder: &Path, answer: impl Fn(&str, &[u8]) -> Answer + Send + 'static) {
    let listener = UnixListener::bind(folder.join("run/x.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut connection) = h2::server::handshake(stream).await else { continue };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let (head, mut body) = Request::into_parts(request);
                    assert_eq!((head.method.as_str(), &head.headers["te"]), ("POST", &"trailers".parse().unwrap()));
                    let mut asked = Vec::new();
                    while let Some(Ok(part)) = body.data().await {
                        asked.extend_from_slice(&part);
                    }
                    let grpc = || Response::builder().header("content-type", "application/grpc");
                    match answer(head.uri.path(), &asked) {
                        Answer::Good(message) => {
                            let mut stream = respond.send_response(grpc().body(()).unwrap(), false).unwrap();
                            stream.send_data(Bytes::from(message), false).unwrap();
                            stream.send_trailers(status("0", "")).unwrap();
                        }
                        Answer::Late(code, message) => {
                            let mut stream = respond.send_response(grpc().body(()).unwrap(), false).unwrap();
                            stream.send_trailers(status(code, message)).unwrap();
                        }
                        Answer::Early(code, message) => {
                            let mut head = grpc().body(()).unwrap();
                            head.headers_mut().extend(status(code, message));
                            respond.send_response(head, true).unwrap();
                        }
                        Answer::Plain(code, kind, body) => {
                            let head = Response::builder().status(code).header("content-type", kind).body(()).unwrap();
                            let mut stream = respond.send_response(head, false).unwrap();
                            stream.send_data(Bytes::from(body), true).unwrap();
                        }
                    }
                }
            }
        });
    });
}

fn version() -> Answer {
    good(&VersionResponse { runtime_name: "peer".to_owned(), runtime_version: "v1".to_owned() })
}

/// The error of a first call that is answered so.
fn refused(answer: impl Fn(&str, &[u8]) -> Answer + Send + 'static) -> CriError {
    let (folder, root) = scratch();
    serve(folder.path(), answer);
    Client::connect(&root, &path(), LONG).unwrap_err()
}

#[test]
fn what_a_runtime_says() {
    let (folder, root) = scratch();
    let spec = |image: &str, by: &str| Some(ImageSpec { image: image.to_owned(), user_specified_image: by.to_owned() });
    let container = move |name: &str, state, image| Container {
        metadata: Some(Metadata { name: name.to_owned() }),
        image,
        image_ref: "sha256:1".to_owned(),
        state,
    };
    let image = Image { id: "sha256:1".to_owned(), repo_tags: vec!["a.example/b:1".to_owned()], repo_digests: Vec::new() };
    serve(folder.path(), move |path, body| match path {
        "/runtime.v1.RuntimeService/Version" => version(),
        "/runtime.v1.RuntimeService/Status" => {
            // `verbose` would be the field of number 1
            assert_eq!(body, b"\0\0\0\0\0");
            let ready = |kind: &str, status| RuntimeCondition { kind: kind.to_owned(), status, ..RuntimeCondition::default() };
            good(&StatusResponse {
                status: Some(RuntimeStatus { conditions: vec![ready("RuntimeReady", true), ready("NetworkReady", false)] }),
            })
        }
        "/runtime.v1.RuntimeService/ListContainers" => good(&ListContainersResponse {
            containers: vec![
                container("old", 0, spec("a.example/b:1", "")),
                container("new", 1, spec("sha256:1", "a.example/b:2")),
                container("gone", 2, spec("a.example/c:1", "")),
            ],
        }),
        "/runtime.v1.RuntimeService/ListPodSandbox" => {
            good(&ListPodSandboxResponse { items: vec![PodSandbox { state: 0 }, PodSandbox { state: 1 }, PodSandbox { state: 0 }] })
        }
        "/runtime.v1.ImageService/ListImages" => good(&ListImagesResponse { images: vec![image.clone()] }),
        "/runtime.v1.ImageService/ImageStatus" => {
            good(&ImageStatusResponse { image: body.ends_with(b"a.example/b:1").then(|| image.clone()) })
        }
        "/runtime.v1.ImageService/PullImage" if body.ends_with(b"a.example/b:1") => {
            good(&PullImageResponse { image_ref: "sha256:1".to_owned() })
        }
        "/runtime.v1.ImageService/PullImage" => Answer::Late("5", "https://u:p4ss@a.example/v2/c/manifests/1: not%20found"),
        other => panic!("{other}"),
    });
    let mut client = Client::connect(&root, &path(), LONG).unwrap();
    assert_eq!(client.program(), &Program { name: "peer".to_owned(), version: "v1".to_owned() });
    let health = client.status().unwrap();
    assert!(health.is_ready() && health.condition(RUNTIME_READY).is_some());
    let used = |name: &str, image: &str| Used { name: name.to_owned(), image: image.to_owned(), id: "sha256:1".to_owned() };
    assert_eq!(client.containers().unwrap(), [used("old", "a.example/b:1"), used("new", "a.example/b:2")]);
    assert_eq!(client.pods().unwrap(), 2);
    let stored = client.image_status("a.example/b:1").unwrap().unwrap();
    assert_eq!(client.images().unwrap(), [stored]);
    assert_eq!(client.image_status("a.example/c:1").unwrap(), None);
    assert_eq!(client.pull("a.example/b:1", LONG).unwrap(), "sha256:1");
    let error = client.pull("a.example/c:1", LONG).unwrap_err();
    assert_eq!(error.to_string(), "PullImage: https://…@a.example/v2/c/manifests/1: not found (not found)");
    assert!(error.is_answer());
    // a call that fails leaves the connection as it was
    assert!(client.status().is_ok());
}

/// As containerd writes it: a value that is 0 is left out, and the time at which a pod was made stands behind its state.
#[test]
fn pods_that_are_up_are_counted_as_containerd_tells_them() {
    const MADE: [u8; 4] = [4 << 3, 0x80, 0x80, 0x04];
    let pod = |state: &[u8]| {
        let told = [&[1 << 3 | 2, 1, b'a'], state, &MADE].concat();
        [&[1 << 3 | 2, u8::try_from(told.len()).unwrap()], &*told].concat()
    };
    let message = [pod(&[]), pod(&[3 << 3, 1]), pod(&[])].concat();
    let (folder, root) = scratch();
    serve(folder.path(), move |path, _| match path {
        "/runtime.v1.RuntimeService/Version" => version(),
        _ => Answer::Good([&[0, 0, 0, 0, u8::try_from(message.len()).unwrap()], &*message].concat()),
    });
    assert_eq!(Client::connect(&root, &path(), LONG).unwrap().pods().unwrap(), 2);
}

#[test]
fn the_older_name_is_asked_for_where_the_newer_one_is_not_known() {
    let (folder, root) = scratch();
    serve(folder.path(), |path, _| match path {
        "/runtime.v1alpha2.RuntimeService/Version" => version(),
        "/runtime.v1alpha2.RuntimeService/Status" => good(&StatusResponse { status: None }),
        _ => Answer::Early("12", "unknown service runtime.v1.RuntimeService"),
    });
    let mut client = Client::connect(&root, &path(), LONG).unwrap();
    assert!(!client.status().unwrap().is_ready());
}

#[test]
fn errors_in_the_head_and_behind_it() {
    let error = refused(|path, _| match path {
        "/runtime.v1.RuntimeService/Version" => Answer::Early("12", "unknown service runtime.v1.RuntimeService"),
        _ => Answer::Late("12", "unknown service runtime.v1alpha2.RuntimeService"),
    });
    assert_eq!(error.to_string(), "/run/x.sock is open, but serves no CRI: unknown service runtime.v1.RuntimeService");
    let error = refused(|_, _| Answer::Late("2", "server is not initialized yet"));
    assert_eq!(error, CriError::Said { call: "Version", code: 2, message: "server is not initialized yet".to_owned() });
}

#[test]
fn answers_that_are_none() {
    let why = |answer: fn() -> Answer| match refused(move |_, _| answer()) {
        CriError::Garbled { call: "Version", why, .. } => why,
        other => panic!("{other}"),
    };
    assert_eq!(why(|| Answer::Plain(404, "text/plain", b"404 page not found".to_vec())), "HTTP status 404 Not Found");
    assert_eq!(why(|| Answer::Plain(200, "text/html", b"<html>".to_vec())), "its type is \"text/html\"");
    assert_eq!(why(|| Answer::Plain(200, "application/grpc", vec![0; 5])), "it ends without a status");
    assert_eq!(why(|| Answer::Plain(200, "application/grpc", vec![0; super::grpc::LARGEST + 1])), "it is longer than 16 MiB");
    assert_eq!(why(|| Answer::Good(vec![0, 0, 0, 0, 9])), "its message should have 9 bytes and has 0");
    assert_eq!(why(|| Answer::Late("x", "")), "\"x\" is no status of gRPC");
}

/// Takes one connection and says these bytes to it, then nothing.
fn says(folder: &Path, bytes: &'static [u8]) -> thread::JoinHandle<()> {
    let listener = UnixListener::bind(folder.join("run/x.sock")).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(bytes).unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

#[test]
fn peers_that_speak_something_else() {
    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    // a frame of 16 MiB, where 16 KiB are allowed
    const HUGE: &[u8] = b"\0\0\0\x04\0\0\0\0\0\xff\xff\xff\x00\0\0\0\0\x01";
    // headers whose first field is number 127 of a table that has 61
    const HEADERS: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x02\x01\x05\0\0\0\x01\xff\x00";
    const GOAWAY: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x0b";
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2p1\r\n", HUGE, HEADERS, GOAWAY] {
        let (folder, root) = scratch();
        let peer = says(folder.path(), bytes);
        let error = Client::connect(&root, &path(), LONG).unwrap_err();
        assert!(matches!(error, CriError::Garbled { .. }), "{error:?}");
        assert!(!error.is_answer());
        peer.join().unwrap();
    }
    // one that says nothing, one that says too little
    for bytes in [&b""[..], SETTINGS] {
        let (folder, root) = scratch();
        let peer = says(folder.path(), bytes);
        let error = Client::connect(&root, &path(), Duration::from_millis(100)).unwrap_err();
        assert_eq!(error.to_string(), "/run/x.sock did not answer Version within 100 ms");
        peer.join().unwrap();
    }
    // one that hangs up
    let (folder, root) = scratch();
    let listener = UnixListener::bind(folder.path().join("run/x.sock")).unwrap();
    let peer = thread::spawn(move || drop(listener.accept().unwrap()));
    let error = Client::connect(&root, &path(), LONG).unwrap_err();
    assert!(matches!(error, CriError::Garbled { .. }), "{error:?}");
    peer.join().unwrap();
}

#[test]
fn nobody_takes_the_connection() {
    let (folder, root) = scratch();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let socket = tokio::net::UnixSocket::new_stream().unwrap();
    let address = folder.path().join("run/x.sock");
    socket.bind(&address).unwrap();
    let _listener = runtime.block_on(async { socket.listen(0) }).unwrap();
    let _first = UnixStream::connect(&address).unwrap();
    let error = Client::connect(&root, &path(), Duration::from_millis(100)).unwrap_err();
    assert_eq!(error.to_string(), "/run/x.sock did not answer connect within 100 ms");
}

#[test]
fn the_socket_is_found_inside_the_root() {
    let (folder, root) = scratch();
    let at = |path: &str| Client::connect(&root, &NodePath::new(path).unwrap(), LONG);
    assert_eq!(at(SOCKET).unwrap_err(), CriError::Absent { path: path() });
    assert_eq!(at("/nowhere/x.sock").unwrap_err().to_string(), "/nowhere/x.sock does not exist");
    std::fs::write(folder.path().join("file"), "").unwrap();
    assert_eq!(at("/file").unwrap_err().to_string(), "/file is not a socket");
    assert_eq!(at("/run").unwrap_err().to_string(), "/run is not a socket");
    serve(folder.path(), |_, _| version());
    // a link that is absolute inside the root, and a way that is longer than an address may be
    std::fs::create_dir(folder.path().join("var")).unwrap();
    symlink("/run", folder.path().join("var/run")).unwrap();
    assert!(at("/var/run/x.sock").is_ok());
    // the folder is another one when the daemon has been restarted
    std::fs::rename(folder.path().join("run"), folder.path().join("old")).unwrap();
    assert_eq!(at(SOCKET).unwrap_err(), CriError::Absent { path: path() });
    std::fs::create_dir(folder.path().join("run")).unwrap();
    assert_eq!(at(SOCKET).unwrap_err(), CriError::Absent { path: path() });
    std::fs::rename(folder.path().join("old/x.sock"), folder.path().join("run/x.sock")).unwrap();
    assert!(at(SOCKET).is_ok());
    let long = "d".repeat(120);
    std::fs::create_dir(folder.path().join(&long)).unwrap();
    symlink("../run/x.sock", folder.path().join(&long).join("s".repeat(120))).unwrap();
    assert!(at(&format!("/{long}/{}", "s".repeat(120))).is_ok());
    std::fs::rename(folder.path().join("run/x.sock"), folder.path().join(&long).join(&long)).unwrap();
    assert!(at(&format!("/{long}/{long}")).is_ok());
    drop(UnixListener::bind(folder.path().join("run/x.sock")).unwrap());
    assert_eq!(at(SOCKET).unwrap_err().to_string(), "nothing listens on /run/x.sock");
}

/// Who waits for everything together is not kept longer by one answer after the other; a pull has a time of its own.
#[test]
fn one_time_for_all_calls() {
    let (folder, root) = scratch();
    serve(folder.path(), |path, _| match path {
        "/runtime.v1.ImageService/PullImage" => good(&PullImageResponse { image_ref: "sha256:1".to_owned() }),
        "/runtime.v1.RuntimeService/Status" => good(&StatusResponse { status: None }),
        _ => version(),
    });
    let spent = |mut client: Client| {
        if let Some(until) = &mut client.line.until {
            *until = tokio::time::Instant::now();
        }
        (client.status().map(drop), client.pull("a.example/b:1", LONG).map(drop))
    };
    let late = CriError::Late { path: path(), call: "Status", patience: LONG };
    assert_eq!(spent(Client::within(&root, &path(), LONG).unwrap()), (Err(late), Ok(())));
    assert_eq!(spent(Client::connect(&root, &path(), LONG).unwrap()), (Ok(()), Ok(())));
}
