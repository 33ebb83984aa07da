//! The agent's effects: one thread that sleeps until a signal, a change of a watched folder, the end of a child or a time.
//!
//! What lives here: waiting ([`Door::wait`]) and doing ([`Door::perform`]). What must not: deciding what is done (`agent/machine`).

mod child;
mod files;
mod packages;
mod places;
mod systemd;
mod watcher;

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::ffi::OsString;
use std::hash::{Hash, Hasher};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use serde::{Deserialize, Serialize};

use super::error::NodeError;
use super::probe;
use super::root::Root;
use super::shadow::OWN_PROGRAM;
use crate::agent::machine::{Action, Event, Question};
use crate::agent::settings::Now;
use crate::agent::state::{AgentState, Mode};
use crate::agent::{pass, probing};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::problem::Severity;

use child::{Gate, Pass};
use files::StateFile;
use systemd::Systemd;
use watcher::Watcher;

/// What the effects need to know.
#[derive(Debug, Serialize, Deserialize)]
pub struct Setup {
    /// `--spec` as given; `None` for a URL, which cannot be watched.
    pub spec: Option<PathBuf>,
    /// `--material`.
    pub material: Option<PathBuf>,
    /// `--restart-gate`.
    pub gate: Option<String>,
    /// `--restart-gate-timeout`.
    pub gate_timeout: Duration,
    /// The command line of a pass.
    pub arguments: BTreeMap<Mode, Vec<OsString>>,
    /// That of what tries the endpoints.
    pub probe: Vec<OsString>,
    /// The folder into which metrics are written after each of both.
    pub metrics: Option<PathBuf>,
}

/// The one place where the agent meets the world.
#[derive(Debug)]
pub struct Door {
    root: Root,
    setup: Setup,
    begun: Instant,
    /// How long after the boot that was, in milliseconds.
    booted: i64,
    signals: SignalFd,
    watcher: Watcher,
    systemd: Systemd,
    file: StateFile,
    pass: Option<Pass>,
    /// What tries the endpoints, and whether its end is waited for.
    probe: Option<(Pass, bool)>,
    gate: Option<Gate>,
    /// What writes the metrics; whether they are to be written once more.
    writer: Option<Child>,
    unwritten: bool,
}

impl Door {
    /// Takes the agent's lock, blocks the signals that it listens to, and begins to watch.
    ///
    /// # Errors
    /// When another agent runs, or signals cannot be had.
    pub fn open(root: Root, setup: Setup) -> Result<Self, NodeError> {
        let file = StateFile::open(&root)?;
        let failed = |errno| NodeError::of("listen to signals for", NodePath::root(), errno);
        let mut heard = SigSet::empty();
        for signal in [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD] {
            heard.add(signal);
        }
        heard.thread_block().map_err(failed)?;
        let signals = SignalFd::with_flags(&heard, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map_err(failed)?;
        let watcher = Watcher::new(&root, setup.spec.clone(), setup.material.clone());
        Ok(Self {
            root,
            setup,
            begun: Instant::now(),
            booted: probe::up(),
            signals,
            watcher,
            systemd: Systemd::new(),
            file,
            pass: None,
            probe: None,
            gate: None,
            writer: None,
            unwritten: false,
        })
    }

    /// The clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        let passed = i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX);
        Now { mono: self.booted.saturating_add(passed), wall: probe::now() }
    }

    /// How an agent before this one saw itself, since the last boot.
    #[must_use]
    pub fn before(&self) -> Option<AgentState> {
        self.file.read()
    }

    /// Lets others read how the agent sees itself, when that has changed.
    pub fn keep(&mut self, state: &AgentState) {
        self.file.write(state);
        self.write_metrics();
    }

    /// Has the metrics written, by what is kept now; one after the other.
    fn write_metrics(&mut self) {
        if let Some(writer) = &mut self.writer {
            if matches!(writer.try_wait(), Ok(None)) {
                return;
            }
            self.writer = None;
        }
        let Some(folder) = self.setup.metrics.as_ref().filter(|_| self.unwritten) else { return };
        self.unwritten = false;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("nodeprep").args(["status", "--root"]).arg(self.root.dir()).arg("--textfile-dir").arg(folder);
        command.env_remove("NODEPREP_OUTPUT").stdin(Stdio::null()).stdout(Stdio::null());
        match command.spawn() {
            Ok(writer) => self.writer = Some(writer),
            Err(error) => tracing::warn!(%error, "metrics cannot be written"),
        }
    }

    /// Waits until something happens, at most until `wake` ([`Now::mono`]).
    pub fn wait(&mut self, wake: Option<i64>) -> Vec<Event> {
        let now = self.now().mono;
        let own = [self.systemd.due(self.begun), self.watcher.due(self.begun), self.gate.as_ref().map(|gate| gate.due(self.begun))];
        let until = own.into_iter().flatten().map(|due| due.saturating_add(self.booted)).chain(wake).min();
        let timeout = until.map_or(PollTimeout::NONE, |until| {
            // a little late is in time, a little early would be once more
            PollTimeout::try_from((until - now).clamp(0, 86_400_000)).unwrap_or(PollTimeout::ZERO)
        });
        {
            let mut waits = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
            waits.extend(self.watcher.fd().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
            match poll(&mut waits, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => tracing::warn!(%errno, "poll"),
            }
        }
        self.systemd.alive();
        let signals = self.signals();
        // what a pass has changed is heard of before its end is
        let mut events = self.watcher.hear(&self.root);
        events.extend(signals);
        if let Some(end) = self.pass.as_mut().and_then(|child| child.ended(|said| pass::read(said))) {
            self.pass = None;
            self.unwritten = true;
            // what it has changed between the last look at the watches and its end
            events.extend(self.watcher.hear(&self.root));
            events.push(Event::PassEnded(end));
        }
        if let Some(end) = self.probe.as_mut().and_then(|(child, _)| child.ended(|said| probing::read(said))) {
            let asked = self.probe.take().is_some_and(|(_, asked)| asked);
            self.unwritten |= asked;
            events.extend(asked.then_some(Event::ProbeEnded(end)));
        }
        if let Some(answer) = self.gate.as_mut().and_then(Gate::answered) {
            let asked = self.gate.take().is_some_and(|gate| gate.asks);
            events.extend(asked.then_some(Event::Gate(answer)));
        }
        if events.is_empty() {
            events.push(Event::Tick);
        }
        events
    }

    fn signals(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGHUP) => events.push(Event::Reload),
                Ok(Signal::SIGTERM | Signal::SIGINT) => events.push(Event::Stop),
                _ => {}
            }
        }
        events
    }

    /// Does what is to be done; what is known at once comes back.
    pub fn perform(&mut self, action: Action) -> Vec<Event> {
        match action {
            Action::StartPass(mode, cause) => {
                tracing::debug!(?mode, ?cause, "pass");
                match Pass::start(self.setup.arguments.get(&mode).map_or(&[], Vec::as_slice)) {
                    Ok(pass) => self.pass = Some(pass),
                    Err(end) => return vec![Event::PassEnded(end)],
                }
            }
            Action::KillPass => self.pass.iter_mut().for_each(Pass::kill),
            Action::StartProbe => {
                tracing::debug!("probe");
                // one that was ended may not be gone yet
                let started = match self.probe {
                    Some(_) => Err(probing::ProbeEnd { why: "the one before has not ended".to_owned(), ..probing::ProbeEnd::default() }),
                    None => Pass::start(&self.setup.probe),
                };
                match started {
                    Ok(child) => self.probe = Some((child, true)),
                    Err(end) => return vec![Event::ProbeEnded(end)],
                }
            }
            Action::EndProbe => {
                if let Some((child, asked)) = &mut self.probe {
                    child.kill();
                    *asked = false;
                }
            }
            Action::Ask(question) => return self.ask(question).into_iter().collect(),
            Action::Watch(concerned) => {
                self.watcher.concerned(concerned.references, &concerned.configs);
                return self.watcher.renew(&self.root);
            }
            Action::Ready => Systemd::ready(),
            Action::Reloading => Systemd::reloading(),
            Action::Say(text) => Systemd::say(&text),
            Action::Tell(severity, what) => match severity {
                Severity::Error => tracing::error!("{what}"),
                Severity::Warning => tracing::warn!("{what}"),
                Severity::Note => tracing::info!("{what}"),
            },
            Action::Exit => Systemd::stopping(),
            Action::WakeAt(_) => {}
        }
        Vec::new()
    }

    fn ask(&mut self, question: Question) -> Option<Event> {
        match question {
            Question::PackageManager => Some(Event::PackageManager(packages::at_work(&self.root))),
            Question::Writer(path) => {
                let writer = packages::writer(&self.root, &path);
                Some(Event::Writer(path, writer))
            }
            Question::Gate(units) => match self.gate("ask", &units) {
                Some(Ok(asked)) => {
                    self.gate = Some(asked);
                    None
                }
                Some(Err(answer)) => Some(Event::Gate(answer)),
                None => Some(Event::Gate(Ok(()))),
            },
            Question::GateDone(units) => {
                self.gate = self.gate("done", &units).and_then(Result::ok);
                self.gate.iter_mut().for_each(|gate| gate.asks = false);
                None
            }
        }
    }

    fn gate(&self, verb: &str, units: &[String]) -> Option<Result<Gate, Result<(), String>>> {
        self.setup.gate.as_deref().map(|gate| Gate::ask(&self.root, gate, self.setup.gate_timeout, verb, units))
    }
}

/// Which node a root is: its machine id; without one, what the kernel calls it.
#[must_use]
pub fn machine(root: &Root) -> Digest {
    let read = |path: &'static str| super::read::read(root, |_| vec![crate::runtime::Wish::path(NodePath::fixed(path))]);
    let text =
        |path: &'static str| read(path).text(&NodePath::fixed(path)).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    let id = text("/etc/machine-id").or_else(|| text("/etc/hostname"));
    Digest::of(id.unwrap_or_default().as_bytes())
}

/// Random, from run to run.
#[must_use]
pub fn seed() -> u64 {
    let mut hasher = DefaultHasher::new();
    probe::random().unwrap_or_default().hash(&mut hasher);
    (std::process::id(), probe::now()).hash(&mut hasher);
    hasher.finish()
}

/// What this process hands to itself, with its number: nobody else takes it for his.
const HANDED: &str = "NODEPREP_AGENT_LOOP";

/// Starts this program anew in this process, with the same command line, so that nothing that was needed to read that stays in memory.
/// It comes back only where that cannot be done.
pub fn start_anew(handed: &str) {
    let mut own = std::env::args_os();
    let mut command = Command::new(OWN_PROGRAM);
    command.arg0(own.next().unwrap_or_default()).args(own).env(HANDED, format!("{} {handed}", std::process::id()));
    let error = command.exec();
    tracing::debug!(%error, "exec");
}

/// What this process has handed to itself before it was started anew.
#[must_use]
pub fn handed() -> Option<String> {
    let text = std::env::var(HANDED).ok()?;
    let (pid, rest) = text.split_once(' ')?;
    (pid.parse() == Ok(std::process::id())).then(|| rest.to_owned())
}

/// The command line of this process.
pub fn arguments() -> impl Iterator<Item = OsString> {
    std::env::args_os()
}

/// This process.
#[must_use]
pub fn pid() -> u32 {
    std::process::id()
}
