//! What is done when: [`step`] takes what has happened and says what is to be done. Pure; the clock comes with each event.
//!
//! Lives in here: what is heard, which pass is next. What an ended pass means is in `outcome`, when units may be restarted in `restart`,
//! what is shown in `show`.

use std::collections::BTreeMap;

use super::outcome::Repair;
use super::pass::{PassEnd, Told};
use super::probing::{ProbeEnd, Probes};
use super::random::Random;
use super::restart::{Restarts, Waiting};
use super::settings::{DriftPolicy, HOUR, Now, SECOND, Settings};
use super::state::{AgentState, Cause, Fault, Mode, Phase, Watches};
use crate::model::digest::Digest;
use crate::model::problem::Severity;

/// A pass may take as long as a probe, a tool and a daemon's health may take together, and this is well above it.
const LONGEST_PASS: i64 = HOUR;
/// As many paths as are remembered of what is touched while a pass runs.
const MOST_TOUCHED: usize = 256;
/// How much longer than its quiet time something may go on changing before it is looked at all the same.
const UNREST: i64 = 12;

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The agent has started.
    Started,
    /// The spec, or what it references, may have changed.
    SpecChanged,
    /// These paths on the node may have changed.
    NodeChanged(Vec<String>),
    /// Time has passed.
    Tick,
    /// A pass has ended.
    PassEnded(PassEnd),
    /// The endpoints have been tried.
    ProbeEnded(ProbeEnd),
    /// Whether a package manager is at work: which.
    PackageManager(Option<String>),
    /// Whether the gate is open; why not.
    Gate(Result<(), String>),
    /// Who else writes a path, as far as it can be known.
    Writer(String, String),
    /// What is watched now.
    Watching(Watches),
    /// SIGHUP.
    Reload,
    /// It is told to end.
    Stop,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A pass is started; its end is an event.
    StartPass(Mode, Cause, By),
    /// The pass that runs takes too long to be true: it is killed, which is an end like any other.
    KillPass,
    /// The endpoints are tried, in a process of its own beside nothing else; its end is an event.
    StartProbe,
    /// That process is ended: it has changed nothing.
    EndProbe,
    /// Something is to be found out; the answer is an event.
    Ask(Question),
    /// These are to be watched, beside what always is.
    Watch(Concerned),
    /// Systemd hears that the agent is ready, also after a reload.
    Ready,
    /// Systemd hears that it reads everything again.
    Reloading,
    /// Systemd hears how it is.
    Say(String),
    /// A line for the journal.
    Tell(Severity, String),
    /// The next event that is due by itself, in milliseconds of [`Now::mono`].
    WakeAt(i64),
    /// The agent ends.
    Exit,
}

/// Which spec a pass goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The one that its source has now.
    Source,
    /// What was fetched from its server for the last `apply`: the server is asked only where nothing was.
    Kept,
}

/// What is to be found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// Whether a package manager holds its lock.
    PackageManager,
    /// Whether these units may be restarted now.
    Gate(Vec<String>),
    /// Nobody answers: the gate is told that these units were restarted.
    GateDone(Vec<String>),
    /// Who writes this path.
    Writer(String),
}

/// What a pass has been found to depend on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Concerned {
    /// Files that the spec references, as written there.
    pub references: Vec<String>,
    /// Configuration files of the runtimes.
    pub configs: Vec<String>,
}

/// All that the agent knows.
#[derive(Clone, Debug)]
pub struct Machine {
    pub(super) settings: Settings,
    pub(super) view: AgentState,
    pub(super) random: Random,
    pub(super) faults: BTreeMap<Fault, u32>,
    pub(super) running: Option<Running>,
    pub(super) asking: bool,
    start: bool,
    pub(super) reload: bool,
    ready_owed: bool,
    pub(super) spec: Option<Unrest>,
    pub(super) node: Option<Unrest>,
    pub(super) retry: Option<Retry>,
    pub(super) repair: Option<Repair>,
    reread_at: i64,
    poll_at: Option<i64>,
    pub(super) probes: Probes,
    pub(super) waiting: Option<Waiting>,
    pub(super) restarts: Restarts,
    /// A spec that was taken back.
    pub(super) held: Option<Digest>,
    /// The last pass that applied left nothing open: what differs since is somebody else's doing.
    pub(super) clean: bool,
    /// The runtimes that were there then.
    pub(super) runtimes: Option<Digest>,
    pub(super) repaired: BTreeMap<String, Vec<i64>>,
    pub(super) concerned: Concerned,
    pub(super) told: String,
    pub(super) said: String,
}

/// A pass that runs.
#[derive(Clone, Debug)]
pub(super) struct Running {
    pub mode: Mode,
    pub cause: Cause,
    pub began: Now,
    /// What was touched meanwhile, by whomever; the first of it.
    pub touched: Vec<String>,
    pub touched_more: bool,
    killed: bool,
}

/// Something that has changed and may go on changing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unrest {
    first: i64,
    last: i64,
}

impl Unrest {
    fn touched(before: Option<Self>, now: i64) -> Self {
        Self { first: before.map_or(now, |before| before.first), last: now }
    }

    /// When it counts as being at rest.
    fn settled(self, quiet: i64) -> i64 {
        (self.last + quiet).min(self.first + (quiet * UNREST).max(SECOND))
    }
}

/// A pass that is made again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Retry {
    pub at: i64,
    pub mode: Mode,
    pub cause: Cause,
    /// The spec with which it did not succeed, where that is known: another one is tried without waiting.
    pub spec: Option<Digest>,
    /// The runtimes with which it did not, likewise.
    pub runtimes: Option<Digest>,
}

impl Retry {
    /// Whether what was seen may be another matter than what did not succeed.
    pub(super) fn is_of(self, told: Option<&Told>) -> bool {
        let same = |one: Option<Digest>, other: Option<Digest>| one.is_none() || other.is_none() || one == other;
        told.is_none_or(|told| same(self.spec, told.spec) && same(self.runtimes, told.runtimes))
    }
}

/// What may come next.
#[derive(Clone, Copy, Debug)]
enum Next {
    Pass(Mode, Cause),
    PackageManager,
    Restart,
}

impl Machine {
    /// One that has just started; `before` is how an earlier one saw itself last on this boot.
    #[must_use]
    pub fn new(settings: Settings, now: Now, pid: u32, before: Option<AgentState>) -> Self {
        let before = before.unwrap_or_default();
        let mut view = AgentState {
            version: super::state::VERSION,
            pid,
            started: now.wall,
            program: env!("CARGO_PKG_VERSION").to_owned(),
            restart_budget: settings.budget,
            ..AgentState::default()
        };
        view.spec.source.clone_from(&settings.source);
        view.spec.applied = before.spec.applied;
        view.spec.applied_at = before.spec.applied_at;
        view.converged_at = before.converged_at;
        view.probe = before.probe;
        settings.drift.word().clone_into(&mut view.drift.policy);
        let restarts = Restarts::restored(&before.restarts, before.booted, now);
        let waiting = before.restart.map(|restart| Waiting::restored(restart, before.spec.applied, before.booted, now, settings.splay));
        Self {
            random: Random(super::settings::number(settings.machine) ^ settings.seed),
            view,
            restarts,
            waiting,
            faults: BTreeMap::new(),
            running: None,
            asking: false,
            start: false,
            reload: false,
            ready_owed: false,
            spec: None,
            node: None,
            retry: None,
            repair: None,
            reread_at: i64::MAX,
            poll_at: None,
            probes: Probes::default(),
            held: None,
            clean: false,
            runtimes: None,
            repaired: BTreeMap::new(),
            concerned: Concerned::default(),
            told: String::new(),
            said: String::new(),
            settings,
        }
    }

    /// How it sees itself.
    #[must_use]
    pub const fn view(&self) -> &AgentState {
        &self.view
    }

    /// How much it remembers, in things: for the test that this has a bound.
    #[must_use]
    pub fn size(&self) -> usize {
        let repaired: usize = self.repaired.values().map(Vec::len).sum();
        let running = self.running.as_ref().map_or(0, |running| running.touched.len());
        let view = &self.view;
        let last = view.last_pass.as_ref().map_or(0, |pass| pass.problems.len());
        let probe = view.probe.as_ref().map_or(0, |probe| probe.canaries.len() + probe.problems.len());
        let lists = probe + view.due.len() + view.restarts.len() + view.drift.paths.len() + view.drift.conflicts.len() + last;
        let counts = view.passes.len() + view.causes.len() + view.activations.len() + self.faults.len();
        repaired + running + lists + counts + self.concerned.references.len() + self.concerned.configs.len()
    }

    fn hear(&mut self, now: Now, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Started => {
                self.start = true;
                // a fleet that is switched on at once does not ask at once; nor do nodes that were copied with their machine id
                self.poll_at = self.settings.poll.map(|poll| now.mono + self.random.below(poll));
                self.first_probe(now);
            }
            Event::SpecChanged => self.spec = Some(Unrest::touched(self.spec, now.mono)),
            Event::NodeChanged(paths) => match &mut self.running {
                Some(running) => {
                    for path in paths {
                        if running.touched.len() >= MOST_TOUCHED {
                            running.touched_more = true;
                        } else if !running.touched.contains(&path) {
                            running.touched.push(path);
                        }
                    }
                }
                None => self.touch(now),
            },
            Event::Tick => {}
            Event::PassEnded(end) => self.ended(now, &end, out),
            Event::ProbeEnded(end) => self.probed(now, end, out),
            Event::PackageManager(holder) => {
                self.asking = false;
                self.package_manager(now, holder, out);
            }
            Event::Gate(answer) => {
                self.asking = false;
                self.gate(now, answer, out);
            }
            Event::Writer(path, writer) => {
                for conflict in self.view.drift.conflicts.iter_mut().filter(|conflict| conflict.path == path) {
                    conflict.writer.clone_from(&writer);
                    out.push(Action::Tell(Severity::Warning, format!("{path} is written by {writer}, too")));
                }
            }
            Event::Watching(watches) => {
                if watches.polling != self.view.watches.polling && !watches.polling.is_empty() {
                    out.push(Action::Tell(Severity::Warning, format!("not everything can be watched: {}", watches.polling)));
                }
                self.view.watches = watches;
            }
            Event::Reload => {
                self.reload = true;
                self.ready_owed = true;
                self.held = None;
                self.retry = None;
                self.waiting.iter_mut().for_each(Waiting::ask_anew);
                self.faults.clear();
                self.repaired.clear();
                self.view.drift.conflicts.clear();
                out.push(Action::Reloading);
            }
            Event::Stop => {
                if let Some(running) = &self.running {
                    let what = format!("a pass ({}) goes on to its end by itself", cause_word(running.cause));
                    out.push(Action::Tell(Severity::Note, what));
                }
                self.interrupt_probe(now, out);
                self.view.phase = Phase::Stopped;
                self.view.pid = 0;
                out.push(Action::Exit);
            }
        }
    }

    pub(super) fn touch(&mut self, now: Now) {
        self.node = Some(Unrest::touched(self.node, now.mono));
    }

    /// A pass for this cause looks first where applying at once could put right what is to be left.
    fn mode(&self, cause: Cause) -> Mode {
        let careful = self.settings.drift == DriftPolicy::Report || self.held.is_some() || !self.view.drift.paths.is_empty();
        match cause {
            Cause::Start | Cause::Spec | Cause::Reload if careful && self.view.spec.applied.is_some() => Mode::Look,
            Cause::Start | Cause::Spec | Cause::Reload | Cause::Retry => Mode::Apply,
            Cause::Poll | Cause::Node | Cause::Reread => Mode::Look,
            Cause::Restart => Mode::Restart,
        }
    }

    /// What may be done, and from when on; what is more urgent stands first.
    fn candidates(&self, now: Now) -> impl Iterator<Item = (i64, Next)> {
        let pass = |at: i64, cause| (at, Next::Pass(self.mode(cause), cause));
        let settings = &self.settings;
        [
            self.start.then(|| pass(now.mono, Cause::Start)),
            self.reload.then(|| pass(now.mono, Cause::Reload)),
            self.spec.map(|spec| pass(spec.settled(settings.debounce), Cause::Spec)),
            self.retry.map(|retry| (retry.at, Next::Pass(retry.mode, retry.cause))),
            self.repair.map(|repair| (repair.at, Next::PackageManager)),
            self.restart_at(now).map(|at| (at, Next::Restart)),
            self.node.map(|node| pass(node.settled(settings.quiet), Cause::Node)),
            self.poll_at.map(|at| pass(at, Cause::Poll)),
            (self.reread_at != i64::MAX).then(|| pass(self.reread_at, Cause::Reread)),
        ]
        .into_iter()
        .flatten()
    }

    fn proceed(&mut self, now: Now, out: &mut Vec<Action>) {
        if let Some(running) = &mut self.running {
            if !running.killed && now.mono - running.began.mono >= LONGEST_PASS {
                running.killed = true;
                out.push(Action::Tell(Severity::Warning, "a pass has not ended for an hour, and is ended".to_owned()));
                out.push(Action::KillPass);
            }
            return;
        }
        if self.asking || self.view.phase == Phase::Stopped {
            return;
        }
        let next = self.candidates(now).find(|(at, _)| *at <= now.mono).map(|(_, next)| next);
        match next {
            None => self.probe(now, out),
            Some(Next::Pass(mode, cause)) => self.begin(now, mode, cause, out),
            Some(Next::PackageManager) => {
                self.asking = true;
                out.push(Action::Ask(Question::PackageManager));
            }
            Some(Next::Restart) if self.settings.gate => {
                self.asking = true;
                let units = self.waiting.iter().flat_map(|waiting| waiting.units.clone()).collect();
                out.push(Action::Ask(Question::Gate(units)));
            }
            Some(Next::Restart) => self.begin(now, Mode::Restart, Cause::Restart, out),
        }
    }

    pub(super) fn begin(&mut self, now: Now, mode: Mode, cause: Cause, out: &mut Vec<Action>) {
        self.interrupt_probe(now, out);
        self.start = false;
        self.reload = false;
        // whatever a pass is for, it reads everything
        self.spec = None;
        self.node = None;
        if mode != Mode::Look || self.retry.is_some_and(|retry| retry.mode == Mode::Look) {
            self.retry = None;
        }
        if mode != Mode::Look {
            self.repair = None;
        }
        self.reread_at = now.mono + self.random.about(self.settings.reread);
        // the first one has its place already
        if self.poll_at.is_none_or(|at| at <= now.mono) {
            self.poll_at = self.settings.poll.map(|poll| now.mono + self.random.about(poll));
        }
        *self.view.causes.entry(cause).or_default() += 1;
        self.running = Some(Running { mode, cause, began: now, touched: Vec::new(), touched_more: false, killed: false });
        // What begins on many nodes at once is not to be felt by the server: power that comes back, a package that is upgraded. A new
        // spec is found by polls; what is known to be wrong with it is not forgotten in between.
        let own = self.settings.poll.is_some() && self.view.failing.is_none() && matches!(cause, Cause::Start | Cause::Node);
        out.push(Action::StartPass(mode, cause, if own { By::Kept } else { By::Source }));
    }

    /// What follows of any end: systemd hears of it.
    pub(super) fn answered(&mut self, out: &mut Vec<Action>) {
        if self.view.phase == Phase::Starting || self.ready_owed && !self.reload {
            self.ready_owed = false;
            self.view.phase = Phase::Idle;
            out.push(Action::Ready);
        }
    }

    fn wakes_at(&self, now: Now) -> Option<i64> {
        if let Some(running) = &self.running {
            return (!running.killed).then_some(running.began.mono + LONGEST_PASS);
        }
        if self.asking || self.view.phase == Phase::Stopped {
            return None;
        }
        self.candidates(now).map(|(at, _)| at).chain(self.probe_wakes_at()).min()
    }

    /// The next pass that has a time, for people.
    pub(super) fn next_pass(&self, now: Now) -> Option<(i64, Cause)> {
        let cause = |next| match next {
            Next::Pass(_, cause) => cause,
            Next::PackageManager => Cause::Node,
            Next::Restart => Cause::Restart,
        };
        self.candidates(now).min_by_key(|(at, _)| *at).map(|(at, next)| (at, cause(next)))
    }
}

/// What is to be done now that this has happened. What it returns last is when it is to be called again without an event.
#[must_use]
pub fn step(mut machine: Machine, now: Now, event: Event) -> (Machine, Vec<Action>) {
    let mut out = Vec::new();
    if machine.view.phase == Phase::Stopped {
        return (machine, out);
    }
    machine.hear(now, event, &mut out);
    machine.proceed(now, &mut out);
    machine.show(now, &mut out);
    out.extend(machine.wakes_at(now).map(Action::WakeAt));
    (machine, out)
}

/// A cause in the words of the journal.
pub(super) const fn cause_word(cause: Cause) -> &'static str {
    match cause {
        Cause::Start => "the agent has started",
        Cause::Spec => "the spec may have changed",
        Cause::Poll => "the spec's source is asked again",
        Cause::Node => "the node may have changed",
        Cause::Reread => "everything is read again from time to time",
        Cause::Retry => "the one before did not succeed",
        Cause::Restart => "units may be restarted now",
        Cause::Reload => "told to read everything again",
    }
}
