//! Running a shadow of containerd: a throw-away daemon in namespaces of its own that shows whether the installed one comes up with
//! config.toml as it will be (docs/adr/0015). What is tried is worked out in `runtime/containerd/shadow`.
//!
//! Three processes: the run of nodeprep that asks; `outer`, which is this program again and makes the namespaces; and `inner`, this
//! program once more as process 1 of the new process namespace, which hides and covers what the daemon might write to (`view`) and
//! starts it. All that runs in there ends with `inner`: when the asking process closes its end of `inner`'s standard input, on
//! purpose or because it was killed, and when `outer` ends.

pub mod stage;
mod view;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::cri::Client;
use super::root::{Last, Root};
use crate::model::content::Content;
use crate::model::cri::CriError;
use crate::model::path::NodePath;
use crate::model::secret::mask;
use crate::runtime::containerd::log::{is_cri_missing, is_up, words};
use crate::runtime::containerd::shadow::{CouldNotTry, SOCKET, Shadow};

/// The hidden subcommand that `outer` and `inner` are.
pub const SUBCOMMAND: &str = "shadow-stage";
/// This very program, also when its file was replaced meanwhile.
pub const OWN_PROGRAM: &str = "/proc/self/exe";
/// As much of the daemon's words as is kept.
const MOST_LOG: usize = 256 << 10;
/// How long one question over the shadow's socket may take, and how long to wait before the next.
const ONE_CALL: Duration = Duration::from_secs(2);
const AGAIN: Duration = Duration::from_millis(10);
/// How long the end of a shadow is waited for before it is killed from outside.
const LINGER: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The daemon reads the files as they will be, and its CRI plugin answers with the reduced configuration.
    Works,
    /// It does not; in its own words, secrets masked.
    Fails(Vec<String>),
    /// It cannot be told.
    CouldNotTry(String),
    /// There is no such program: nothing can come up or fail to.
    NoProgram,
}

/// What `inner` is told.
#[derive(Debug, Serialize, Deserialize)]
struct Ask {
    /// The node's root, as the asking process sees it.
    root: PathBuf,
    /// The daemon, inside the root.
    program: String,
    /// The file whose every word is read first, nothing being started; without it the one that the daemon is started with.
    full: Option<String>,
    /// What the daemon is started with.
    reduced: String,
    /// Files as they will be.
    laid: BTreeMap<String, Option<String>>,
}

/// What `outer` and `inner` answer, a line each.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    /// The process that is `inner`, as `outer` sees it.
    Inner(u32),
    /// `inner` will not outlive us any more.
    Ready,
    /// It cannot be tried.
    Cannot(String),
    /// The daemon does not read its files; in its own words.
    Refused(String),
    /// It was started.
    Started,
}

enum Event {
    Answer(Answer),
    Log(String),
    /// One of the two streams has ended.
    Closed,
}

/// How one daemon did.
enum Once {
    Up,
    Down(Vec<String>),
    Late(Vec<String>),
    Cannot(String),
}

/// Tries it; `own` is how this program is started again ([`OWN_PROGRAM`]), `patience` what one daemon may take.
///
/// A daemon that does not come up is held against one that knows nothing of the node's configuration: where that does not come up
/// either, it is not the configuration's fault, and it could not be tried. Blocks; to be called on the thread that lives longest.
#[must_use]
pub fn try_out(root: &Root, shadow: &Shadow, own: &Path, patience: Duration) -> Tried {
    let program = root.walk(&shadow.program, Last::Follow, &mut |_, _, _| {});
    if !matches!(program.map(|spot| spot.folder.stat(&spot.name)), Ok(Ok(Some(_)))) {
        return Tried::NoProgram;
    }
    let masked = |said: Vec<String>| said.iter().map(|line| mask(line, &shadow.secrets)).collect::<Vec<_>>();
    let mut laid = BTreeMap::new();
    for (path, content) in &shadow.laid {
        let Ok(text) = content.as_ref().map(|Content { bytes, .. }| String::from_utf8(bytes.clone())).transpose() else {
            return Tried::CouldNotTry(format!("{path} is not text"));
        };
        laid.insert(path.to_string(), text);
    }
    let text = |content: &Content| String::from_utf8_lossy(&content.bytes).into_owned();
    let (reduced, untold) = match &shadow.reduced {
        Ok(content) => (text(content), None),
        Err(CouldNotTry(why)) => (shadow.control.clone(), Some(why)),
    };
    let ask = |full: Option<String>, reduced: String, laid| {
        once(&Ask { root: root.dir().to_owned(), program: shadow.program.to_string(), full, reduced, laid }, own, patience)
    };
    let failed = match ask(shadow.configured.then(|| shadow.config.to_string()), reduced, laid) {
        // the daemon reads the whole file, and that is all that is known
        Once::Up => return untold.map_or(Tried::Works, |why| Tried::CouldNotTry(mask(why, &shadow.secrets))),
        Once::Cannot(why) => return Tried::CouldNotTry(why),
        Once::Down(said) => masked(said),
        Once::Late(said) => late(patience, masked(said)),
    };
    match ask(None, shadow.control.clone(), BTreeMap::new()) {
        Once::Up => Tried::Fails(failed),
        Once::Cannot(why) => Tried::CouldNotTry(why),
        Once::Down(said) => {
            Tried::CouldNotTry(format!("{} does not come up with no configuration at all: {}", shadow.program, said.join("; ")))
        }
        Once::Late(_) => {
            Tried::CouldNotTry(format!("{} does not come up within {} s with no configuration at all", shadow.program, patience.as_secs()))
        }
    }
}

fn late(patience: Duration, said: Vec<String>) -> Vec<String> {
    std::iter::once(format!("it does not come up within {} s", patience.as_secs())).chain(said).collect()
}

/// A shadow that runs; ended when dropped.
struct Running {
    child: Child,
    /// Its end is the shadow's end.
    line: Option<ChildStdin>,
    events: Receiver<Event>,
    log: String,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.line.take());
        let begun = Instant::now();
        while begun.elapsed() < LINGER {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(1)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn once(ask: &Ask, own: &Path, patience: Duration) -> Once {
    let mut running = match start(own) {
        Ok(running) => running,
        Err(error) => return Once::Cannot(format!("{} cannot be started: {error}", own.display())),
    };
    let end = Instant::now() + patience;
    let (mut inner, mut open, mut started) = (None, 2, false);
    loop {
        match running.events.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(Event::Answer(Answer::Inner(pid))) => inner = Some(pid),
            Ok(Event::Answer(Answer::Ready)) => {
                let told = serde_json::to_string(ask).map(|text| text + "\n").unwrap_or_default();
                // who has gone meanwhile closes the streams, too
                let _ = running.line.as_mut().map(|line| line.write_all(told.as_bytes()));
            }
            Ok(Event::Answer(Answer::Cannot(why))) => return Once::Cannot(why),
            Ok(Event::Answer(Answer::Refused(said))) => return Once::Down(words(&said)),
            Ok(Event::Answer(Answer::Started)) => started = true,
            Ok(Event::Log(line)) => {
                running.heard(&line);
                if is_up(&line) {
                    if running.log.lines().any(is_cri_missing) {
                        return Once::Down(words(&running.log));
                    }
                    return match inner {
                        Some(pid) => answers(&mut running, pid, end),
                        None => Once::Cannot("the shadow did not say which process it is".to_owned()),
                    };
                }
            }
            Ok(Event::Closed) if open > 1 => open -= 1,
            Ok(Event::Closed) | Err(RecvTimeoutError::Disconnected) => {
                return if started {
                    Once::Down(words(&running.log))
                } else {
                    Once::Cannot("the shadow ended before it was told anything".to_owned())
                };
            }
            Err(RecvTimeoutError::Timeout) => return Once::Late(words(&running.log)),
        }
    }
}

/// Whether the CRI plugin answers over the shadow's own socket.
fn answers(running: &mut Running, inner: u32, end: Instant) -> Once {
    let root = match Root::open(Path::new(&format!("/proc/{inner}/root"))) {
        Ok(root) => root,
        Err(error) => return Once::Cannot(format!("the shadow cannot be looked into: {error}")),
    };
    loop {
        let asked = Client::connect(&root, &NodePath::fixed(SOCKET), ONE_CALL).and_then(|mut client| client.status());
        while let Ok(event) = running.events.try_recv() {
            if let Event::Log(line) = event {
                running.heard(&line);
            }
        }
        let why = match asked {
            Ok(_) => return Once::Up,
            // it has been up: what is not there now does not come
            Err(error @ CriError::NotServed { .. }) => error,
            // the plugin is there and reads what it knows first
            Err(_) if Instant::now() < end && matches!(running.child.try_wait(), Ok(None)) => {
                std::thread::sleep(AGAIN);
                continue;
            }
            Err(error) => error,
        };
        let mut said = words(&running.log);
        said.push(why.to_string());
        return Once::Down(said);
    }
}

impl Running {
    fn heard(&mut self, line: &str) {
        if self.log.len() + line.len() < MOST_LOG {
            self.log.push_str(line);
            self.log.push('\n');
        }
    }
}

fn start(own: &Path) -> std::io::Result<Running> {
    let mut command = Command::new(own);
    command.args([SUBCOMMAND, stage::OUTER]).env_clear().current_dir("/");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (send, events) = channel();
    let line = child.stdin.take();
    if let Some(stream) = child.stdout.take() {
        let say = |line: String| {
            let unknown = |_| Answer::Cannot(format!("the shadow said {line:?}"));
            Event::Answer(serde_json::from_str(&line).unwrap_or_else(unknown))
        };
        follow(stream, send.clone(), say);
    }
    if let Some(stream) = child.stderr.take() {
        follow(stream, send, Event::Log);
    }
    Ok(Running { child, line, events, log: String::new() })
}

fn follow(stream: impl std::io::Read + Send + 'static, send: Sender<Event>, event: impl Fn(String) -> Event + Send + 'static) {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut line = Vec::new();
        while matches!(stream.read_until(b'\n', &mut line), Ok(read) if read > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            if send.send(event(text)).is_err() {
                break;
            }
            line.clear();
        }
        let _ = send.send(Event::Closed);
    });
}
