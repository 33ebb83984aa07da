//! A small HTTP server beside the agent: `/healthz`, `/readyz`, `/metrics`.
//!
//! It has one thread that sleeps in `poll` until somebody comes, and keeps nothing: what the agent says of itself it reads from the agent's
//! file, and metrics come from a child process (`nodeprep status --metrics`), so that the agent holds neither ledger nor certificates. A
//! request has a deadline and a limit, and of too many at once the oldest has to give way: who is slow keeps nobody else waiting, and
//! neither does a child on a node that is.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::probe::now;
use super::read;
use super::root::Root;
use crate::agent::state::{AgentState, STATE_FILE};
use crate::model::path::NodePath;
use crate::report::health::{alive, ready};
use crate::report::metrics::CONTENT_TYPE;
use crate::runtime::Wish;

/// Where it listens unless something else is said.
const SOCKET: &str = "/run/nodeprep/health.sock";
/// As much of a request's head is read.
const MOST_HEAD: usize = 8 << 10;
/// Headers in it.
const MOST_HEADERS: usize = 32;
/// As many are served at once.
const MOST: usize = 16;
/// How long a request may take to come, and its answer to go.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the metrics may take.
const CHILD_PATIENCE: Duration = Duration::from_secs(10);
/// As long the same metrics are shown again.
const FRESH: Duration = Duration::from_secs(2);
/// As much of them.
const MOST_METRICS: usize = 4 << 20;
/// What the thread needs, with room to spare.
const STACK: usize = 256 << 10;

/// Where it listens and what it asks.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Settings {
    /// The node's root, as it was given.
    pub root: PathBuf,
    /// A unix socket, for root and its group: as it was given, and nowhere when that is empty; else the default socket of the node.
    pub socket: Option<PathBuf>,
    /// An address: anybody who can reach it may ask.
    pub address: Option<SocketAddr>,
    /// The program that is asked for metrics.
    pub program: PathBuf,
}

/// A server that runs. It ends with the process; dropped, it takes its socket away.
#[derive(Debug)]
pub struct Server {
    socket: Option<PathBuf>,
    address: Option<SocketAddr>,
}

impl Server {
    /// The address where it listens.
    #[must_use]
    pub const fn address(&self) -> Option<SocketAddr> {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(socket) = &self.socket {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// Listens, and answers from a thread of its own. Signals go to whom they went to before when they are blocked here.
///
/// # Errors
/// When it cannot listen there, or another one does.
pub fn start(settings: Settings) -> io::Result<Server> {
    let root = Root::open(&settings.root).map_err(|error| io::Error::other(error.to_string()))?;
    let socket = match &settings.socket {
        Some(given) => Some(given.clone()).filter(|path| !path.as_os_str().is_empty()),
        None => Some(on_node(&root)?),
    };
    let unix = socket.as_deref().map(listen).transpose()?;
    let tcp = settings.address.map(TcpListener::bind).transpose()?;
    let address = tcp.as_ref().map(TcpListener::local_addr).transpose()?;
    if let Some(unix) = &unix {
        unix.set_nonblocking(true)?;
    }
    if let Some(tcp) = &tcp {
        tcp.set_nonblocking(true)?;
    }
    let server = Server { socket, address };
    let mut desk = Desk { root, settings, metrics: None, asked: None };
    let work = move || serve(unix.as_ref(), tcp.as_ref(), &mut desk);
    std::thread::Builder::new().name("health".to_owned()).stack_size(STACK).spawn(work)?;
    Ok(server)
}

/// Where [`SOCKET`] is for this process: links in its folder's name lead no further than the root.
fn on_node(root: &Root) -> io::Result<PathBuf> {
    let socket = NodePath::fixed(SOCKET);
    let folder = socket.parent().map(|folder| root.folder(&folder)).transpose().map_err(|error| io::Error::other(error.to_string()))?;
    let Some(folder) = folder.flatten() else { return Err(io::Error::from(io::ErrorKind::NotFound)) };
    Ok(root.dir().join(folder.path.join(socket.name()).as_str().trim_start_matches('/')))
}

/// A socket that nobody answers at any more is that of an agent that was killed.
fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() || UnixStream::connect(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AddrInUse));
        }
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn new_unix(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Unix(stream))
    }

    fn new_tcp(stream: TcpStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self::Tcp(stream))
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Unix(stream) => stream.as_fd(),
            Self::Tcp(stream) => stream.as_fd(),
        }
    }

    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(into),
            Self::Tcp(stream) => stream.read(into),
        }
    }

    /// Nothing more is said to him.
    fn hang_up(&self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Write),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(from),
            Self::Tcp(stream) => stream.write(from),
        }
    }
}

/// Somebody who asks.
struct Guest {
    stream: Stream,
    until: Instant,
    asked: Vec<u8>,
    /// He waits for the metrics, with a body or without.
    waits: Option<bool>,
    /// What is still to be said to him, once he has asked.
    answer: Option<Vec<u8>>,
    /// All of it has been: what else he says is not heard, but taken, because what is left unread takes the answer away from him.
    told: bool,
}

fn serve(unix: Option<&UnixListener>, tcp: Option<&TcpListener>, desk: &mut Desk) {
    let mut guests: Vec<Guest> = Vec::new();
    loop {
        let until = guests.iter().map(|guest| guest.until).chain(desk.asked.as_ref().map(|asked| asked.until)).min();
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // one more, so that a deadline has passed when it is looked at
        let timeout = left.map_or(PollTimeout::NONE, |left| PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::ZERO));
        let ready: Vec<bool> = {
            let mut all: Vec<PollFd<'_>> = Vec::with_capacity(2 + guests.len());
            all.extend(unix.map(|unix| PollFd::new(unix.as_fd(), PollFlags::POLLIN)));
            all.extend(tcp.map(|tcp| PollFd::new(tcp.as_fd(), PollFlags::POLLIN)));
            all.extend(guests.iter().map(|guest| {
                let wants = match guest {
                    // that he has gone is told in any case
                    Guest { waits: Some(_), .. } => PollFlags::empty(),
                    Guest { answer: Some(_), told: false, .. } => PollFlags::POLLOUT,
                    _ => PollFlags::POLLIN,
                };
                PollFd::new(guest.stream.fd(), wants)
            }));
            all.extend(desk.asked.as_ref().map(|asked| PollFd::new(asked.out.as_fd(), PollFlags::POLLIN)));
            match poll(&mut all, timeout) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    tracing::warn!(%error, "health: nobody can be served any more");
                    return;
                }
            }
            all.iter().map(|fd| fd.any().unwrap_or(true)).collect()
        };
        let listeners = usize::from(unix.is_some()) + usize::from(tcp.is_some());
        let heard = ready.get(listeners + guests.len()).is_some_and(|ready| *ready);
        let told = desk.listen(heard);
        let now = Instant::now();
        let mut at = listeners;
        guests.retain_mut(|guest| {
            let is_ready = ready.get(at).copied().unwrap_or(false);
            at += 1;
            now < guest.until && (!is_ready || goes_on(guest, desk))
        });
        if let Some(told) = &told {
            for guest in &mut guests {
                if let Some(with_body) = guest.waits.take() {
                    guest.answer = Some(metrics_answer(told.as_ref(), with_body));
                    guest.until = Instant::now() + PATIENCE;
                }
            }
        }
        if ready[..listeners].iter().any(|ready| *ready) {
            greet(unix, tcp, &mut guests);
        }
    }
}

/// Lets in whoever waits; of too many the oldest has to go.
fn greet(unix: Option<&UnixListener>, tcp: Option<&TcpListener>, guests: &mut Vec<Guest>) {
    let from_unix = unix.map(|unix| unix.accept().and_then(|(stream, _)| Stream::new_unix(stream)));
    let from_tcp = tcp.map(|tcp| tcp.accept().and_then(|(stream, _)| Stream::new_tcp(stream)));
    for stream in from_unix.into_iter().chain(from_tcp) {
        match stream {
            Ok(stream) => {
                if guests.len() >= MOST {
                    guests.remove(0);
                }
                guests.push(Guest { stream, until: Instant::now() + PATIENCE, asked: Vec::new(), waits: None, answer: None, told: false });
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionAborted) => {}
            Err(error) => {
                tracing::debug!(%error, "health: nobody can be let in");
                // it would be asked again at once
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

/// Takes what has come, or gives what can go; whether there is more to do.
fn goes_on(guest: &mut Guest, desk: &mut Desk) -> bool {
    let mut piece = [0; 1024];
    if guest.told {
        return match guest.stream.read(&mut piece) {
            Ok(count) => count > 0,
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
    }
    if guest.waits.is_some() {
        return false; // nothing but his end was asked for
    }
    if guest.answer.is_none() {
        match guest.stream.read(&mut piece) {
            Ok(0) => return false,
            Ok(count) => guest.asked.extend_from_slice(&piece[..count]),
            Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
        }
        match desk.answer(&guest.asked) {
            Said::NotYet => {}
            Said::This(answer) => {
                guest.answer = Some(answer);
                guest.until = Instant::now() + PATIENCE;
            }
            Said::Metrics { with_body } => {
                guest.waits = Some(with_body);
                guest.until = Instant::now() + CHILD_PATIENCE + PATIENCE;
            }
        }
    }
    let Some(answer) = &mut guest.answer else { return true };
    match guest.stream.write(answer) {
        Ok(count) => {
            answer.drain(..count);
            guest.told = answer.is_empty();
            !guest.told || guest.stream.hang_up().is_ok()
        }
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// What becomes of a request.
enum Said {
    /// Its head is not whole.
    NotYet,
    /// It is answered.
    This(Vec<u8>),
    /// It is when the metrics are there.
    Metrics { with_body: bool },
}

/// A child that tells the metrics.
struct Asked {
    child: Child,
    out: ChildStdout,
    /// What it has said so far.
    all: Vec<u8>,
    until: Instant,
}

/// Who knows the answers.
struct Desk {
    root: Root,
    settings: Settings,
    metrics: Option<(Instant, String)>,
    asked: Option<Asked>,
}

impl Desk {
    /// The answer to a request, once its head is whole or can be none.
    fn answer(&mut self, asked: &[u8]) -> Said {
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        let (method, target) = match request.parse(asked) {
            Ok(httparse::Status::Complete(_)) => (request.method.unwrap_or_default(), request.path.unwrap_or_default()),
            Ok(httparse::Status::Partial) if asked.len() < MOST_HEAD => return Said::NotYet,
            Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                return Said::This(response(431, "text/plain", "the request is too large\n", true));
            }
            Err(_) => return Said::This(response(400, "text/plain", "this is no HTTP request\n", true)),
        };
        let with_body = method != "HEAD";
        if !matches!(method, "GET" | "HEAD") {
            return Said::This(response(405, "text/plain", "only GET and HEAD are answered\n", true));
        }
        let said = |said: Result<String, String>| {
            let (status, text) = said.map_or_else(|why| (503, why), |text| (200, text));
            response(status, "text/plain; charset=utf-8", &format!("{text}\n"), with_body)
        };
        Said::This(match target.split('?').next().unwrap_or_default() {
            "/healthz" => said(alive(self.agent().as_ref(), now())),
            "/readyz" => said(ready(self.agent().as_ref())),
            "/metrics" => match &self.metrics {
                Some((when, text)) if when.elapsed() < FRESH => metrics_answer(Ok(text), with_body),
                _ => match self.ask() {
                    Ok(()) => return Said::Metrics { with_body },
                    Err(why) => metrics_answer(Err(&why), with_body),
                },
            },
            _ => response(404, "text/plain", "there are /healthz, /readyz and /metrics\n", with_body),
        })
    }

    fn agent(&self) -> Option<AgentState> {
        let path = NodePath::fixed(STATE_FILE);
        let tree = read::read(&self.root.afresh(), |_| vec![Wish::path(path.clone())]);
        serde_json::from_slice(tree.bytes(&path)?).ok()
    }

    /// Lets a child tell the metrics, unless one does already.
    fn ask(&mut self) -> io::Result<()> {
        if self.asked.is_some() {
            return Ok(());
        }
        let mut command = Command::new(&self.settings.program);
        command.args(["status", "--metrics", "--root"]).arg(&self.settings.root);
        let mut child = command
            .env_remove("NODEPREP_OUTPUT")
            .env_remove("NODEPREP_TEXTFILE_DIR")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let Some(out) = child.stdout.take() else { return Err(io::Error::from(io::ErrorKind::BrokenPipe)) };
        self.asked = Some(Asked { child, out, all: Vec::new(), until: Instant::now() + CHILD_PATIENCE });
        Ok(())
    }

    /// Takes what the child says, where there is something to `hear`; the metrics, or why there are none, once it has ended.
    fn listen(&mut self, hear: bool) -> Option<io::Result<String>> {
        let asked = self.asked.as_mut()?;
        let said = if hear {
            let mut piece = [0; 4096];
            match asked.out.read(&mut piece) {
                Ok(0) => Some(Ok(())),
                Ok(count) => {
                    asked.all.extend_from_slice(&piece[..count]);
                    (asked.all.len() > MOST_METRICS).then(|| Err(io::Error::other("they are too long")))
                }
                Err(error) => Some(Err(error)),
            }
        } else {
            (Instant::now() >= asked.until).then(|| Err(io::Error::from(io::ErrorKind::TimedOut)))
        };
        let said = said?;
        let Asked { mut child, all, .. } = self.asked.take()?;
        if said.is_err() {
            let _ = child.kill();
        }
        let ended = child.wait();
        let text = said.and(ended).and_then(|ended| {
            let failed = || io::Error::other(format!("`nodeprep status` ended with {ended}"));
            if ended.success() { String::from_utf8(all).map_err(io::Error::other) } else { Err(failed()) }
        });
        if let Ok(text) = &text {
            self.metrics = Some((Instant::now(), text.clone()));
        }
        Some(text)
    }
}

fn metrics_answer(told: Result<&String, &io::Error>, with_body: bool) -> Vec<u8> {
    match told {
        Ok(text) => response(200, CONTENT_TYPE, text, with_body),
        Err(why) => response(500, "text/plain; charset=utf-8", &format!("the metrics cannot be told: {why}\n"), with_body),
    }
}

fn response(status: u16, kind: &str, body: &str, with_body: bool) -> Vec<u8> {
    let reason = match status {
        200 => "OK",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        _ => "Service Unavailable",
    };
    let allow = if status == 405 { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nCache-Control: no-store\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), if with_body { body.as_bytes() } else { b"" }].concat()
}
