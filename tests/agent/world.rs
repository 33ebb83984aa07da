//! The machine in a world of its own: a node, a spec, a clock and everything that goes wrong, all made up from a seed.

use std::collections::BTreeSet;

use nodeprep::agent::machine::{Action, Event, Machine, Question, step};
use nodeprep::agent::pass::{PassEnd, Told, Unit};
use nodeprep::agent::probing::ProbeEnd;
use nodeprep::agent::random::Random;
use nodeprep::agent::settings::{DriftPolicy, HOUR, MINUTE, Now, SECOND, Settings};
use nodeprep::agent::state::{AgentState, Cause, Due, Mode, ProblemView, WaitsFor};
use nodeprep::model::digest::Digest;
use nodeprep::model::problem::Severity;
use nodeprep::model::time::Time;

pub const MIDNIGHT: i64 = 1_795_132_800_000;

pub fn settings() -> Settings {
    Settings {
        source: "/etc/nodeprep".to_owned(),
        poll: None,
        debounce: 200,
        quiet: 5 * SECOND,
        reread: 10 * MINUTE,
        probe: None,
        drift: DriftPolicy::Repair,
        restarts: true,
        splay: 30 * MINUTE,
        window: None,
        budget: 2,
        gate: false,
        machine: Digest::of(b"machine"),
        seed: 1,
    }
}

/// What goes wrong, and what just happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Spec,
    Drift,
    Crash,
    Network,
    ClockStep,
    DiskFull,
    Broken,
    Locked,
    Reload,
    Package,
    Unhealthy,
    Keeper,
    Gone,
    Paused,
}

pub const KINDS: [Kind; 14] = [
    Kind::Spec,
    Kind::Drift,
    Kind::Crash,
    Kind::Network,
    Kind::ClockStep,
    Kind::DiskFull,
    Kind::Broken,
    Kind::Locked,
    Kind::Reload,
    Kind::Package,
    Kind::Unhealthy,
    Kind::Keeper,
    Kind::Gone,
    Kind::Paused,
];

/// The node and all around it.
pub struct World {
    pub machine: Option<Machine>,
    pub settings: Settings,
    pub mono: i64,
    step: i64,
    pub wake: Option<i64>,
    pub running: Option<(Mode, Cause, i64)>,
    /// The spec that there is, and the one that the node is as.
    pub spec: u64,
    pub node: Option<u64>,
    /// Specs that need a restart, and what the daemon has seen.
    pub seen: Option<u64>,
    pub drifted: BTreeSet<String>,
    /// Somebody puts this back to his own as soon as it is put right.
    pub keeper: Option<String>,
    pub crash: bool,
    pub network: bool,
    pub disk_full: bool,
    pub broken: bool,
    pub locked: bool,
    pub package: bool,
    /// The spec's source cannot be reached.
    pub gone: bool,
    pub paused: bool,
    pub gate_shut: bool,
    /// The daemon does not come up with this spec.
    pub unhealthy: Option<u64>,
    /// The version of the runtime.
    pub version: u32,
    /// Whether what failed and was put back is written down, and what was.
    pub remembers: bool,
    pub failed_before: Option<u64>,
    pub passes: Vec<(i64, Mode, Cause)>,
    /// When endpoints were tried, and when the probe that runs ends.
    pub probes: Vec<i64>,
    pub probing: Option<i64>,
    /// Probes that had to give way.
    pub interrupted: u32,
    pub probe_takes: i64,
    pub probe: ProbeEnd,
    restarts: Vec<i64>,
    pub said: Vec<String>,
    /// What the journal has got.
    pub told: Vec<(Severity, String)>,
    queue: Vec<Event>,
}

impl World {
    pub fn new(settings: Settings) -> Self {
        let mut world = Self {
            machine: None,
            settings,
            mono: 0,
            step: 0,
            wake: None,
            running: None,
            spec: 1,
            node: None,
            seen: None,
            drifted: BTreeSet::new(),
            keeper: None,
            crash: false,
            network: true,
            disk_full: false,
            broken: false,
            locked: false,
            package: false,
            gone: false,
            paused: false,
            gate_shut: false,
            unhealthy: None,
            version: 1,
            remembers: false,
            failed_before: None,
            passes: Vec::new(),
            probes: Vec::new(),
            probing: None,
            interrupted: 0,
            probe_takes: 2 * SECOND,
            probe: ProbeEnd { code: Some(0), told: Some(Box::default()), why: String::new() },
            restarts: Vec::new(),
            said: Vec::new(),
            told: Vec::new(),
            queue: Vec::new(),
        };
        world.start(None);
        world
    }

    pub fn start(&mut self, before: Option<AgentState>) {
        self.machine = Some(Machine::new(self.settings.clone(), self.now(), 7, before));
        self.running = None;
        self.probing = None;
        self.happen(Event::Started);
    }

    pub fn now(&self) -> Now {
        Now { mono: self.mono, wall: Time(MIDNIGHT + self.mono + self.step) }
    }

    pub fn view(&self) -> &AgentState {
        self.machine.as_ref().unwrap().view()
    }

    /// Something happens now, and all that follows at once.
    pub fn happen(&mut self, event: Event) {
        self.queue.push(event);
        while !self.queue.is_empty() {
            let event = self.queue.remove(0);
            let (machine, actions) = step(self.machine.take().unwrap(), self.now(), event);
            self.machine = Some(machine);
            self.wake = None;
            for action in actions {
                self.act(action);
            }
            let size = self.machine.as_ref().unwrap().size();
            assert!(size < 1500, "it remembers {size} things");
        }
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::StartPass(mode, cause, _) => {
                assert!(self.running.is_none(), "two passes at once");
                assert!(self.probing.is_none(), "a pass waits for nobody");
                if mode == Mode::Restart {
                    self.may_restart();
                }
                if mode == Mode::Apply && matches!(cause, Cause::Node | Cause::Reread) {
                    assert!(!self.package, "a package manager is at work");
                }
                self.passes.push((self.mono, mode, cause));
                self.running = Some((mode, cause, self.mono + 40));
            }
            Action::KillPass => self.queue.push(Event::PassEnded(PassEnd::default())),
            Action::Ask(Question::PackageManager) => self.queue.push(Event::PackageManager(self.package.then(|| "dpkg".to_owned()))),
            Action::Ask(Question::Gate(_)) => {
                let answer = if self.gate_shut { Err("shut".to_owned()) } else { Ok(()) };
                self.queue.push(Event::Gate(answer));
            }
            Action::Ask(Question::Writer(path)) => self.queue.push(Event::Writer(path, "puppet".to_owned())),
            Action::WakeAt(at) => self.wake = Some(at),
            Action::Say(text) => self.said.push(text),
            Action::Tell(severity, text) => self.told.push((severity, text)),
            Action::StartProbe => {
                assert!(self.running.is_none() && self.probing.is_none(), "beside something else");
                self.probes.push(self.mono);
                self.probing = Some(self.mono + self.probe_takes);
            }
            Action::EndProbe => {
                assert!(self.probing.take().is_some(), "there is none");
                self.interrupted += 1;
            }
            Action::Ask(Question::GateDone(_)) | Action::Watch(_) | Action::Ready | Action::Reloading | Action::Exit => {}
        }
    }

    fn may_restart(&self) {
        assert!(!self.settings.gate || !self.gate_shut, "the gate is shut");
        let window = self.settings.window.map_or(0, |window| window.opens_in(self.now().wall));
        assert_eq!(window, 0, "outside of the window");
        let recent = self.restarts.iter().filter(|at| **at > self.mono - HOUR).count();
        assert!(recent < usize::try_from(self.settings.budget).unwrap(), "{recent} restarts in an hour");
    }

    /// Lets time pass: up to `until`, one event after the other.
    pub fn pass(&mut self, until: i64) {
        loop {
            let end = self.running.map(|(.., at)| at);
            let next = [end, self.wake, self.probing].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= until) else { break };
            self.mono = self.mono.max(next);
            if end.is_some_and(|end| end <= self.mono) {
                let (mode, _, _) = self.running.take().unwrap();
                let ended = self.end(mode);
                if let Some(keeper) = self.keeper.clone().filter(|_| mode != Mode::Look && ended.code == Some(0)) {
                    self.drifted.insert(keeper.clone());
                    self.happen(Event::PassEnded(ended));
                    self.happen(Event::NodeChanged(vec![keeper]));
                } else {
                    self.happen(Event::PassEnded(ended));
                }
            } else if self.probing.is_some_and(|end| end <= self.mono) {
                self.probing = None;
                self.happen(Event::ProbeEnded(self.probe.clone()));
            } else {
                self.happen(Event::Tick);
            }
        }
        self.mono = self.mono.max(until);
    }

    /// What a real pass would say.
    fn end(&mut self, mode: Mode) -> PassEnd {
        let end = |code, told: Told| PassEnd { code: Some(code), told: Some(Box::new(told)), why: String::new() };
        if std::mem::take(&mut self.crash) {
            if mode == Mode::Restart {
                self.restarts.push(self.mono);
            }
            return PassEnd { code: None, told: None, why: "signal 9 ended it".to_owned() };
        }
        if self.locked && mode != Mode::Look {
            return end(75, Told { outcome: "locked".into(), ..Told::default() });
        }
        let problem = |what: &str| vec![ProblemView { severity: "error".into(), what: what.to_owned(), ..ProblemView::default() }];
        if self.paused && mode != Mode::Look {
            return end(11, Told { outcome: "paused".into(), problems: problem("paused"), ..Told::default() });
        }
        if self.gone && (mode == Mode::Look || self.node.is_none()) {
            return end(69, Told { outcome: "unavailable".into(), problems: problem("no route"), ..Told::default() });
        }
        if self.broken && !self.gone {
            return end(3, Told { outcome: "invalid-spec".into(), problems: problem("no TOML"), ..Told::default() });
        }
        // what counts without a source is the last one that was good
        let spec = self.node.filter(|_| self.gone).unwrap_or(self.spec);
        let mut told = Told {
            outcome: "converged".into(),
            spec: Some(Digest::of(&spec.to_be_bytes())),
            runtimes: Some(Digest::of(&self.version.to_be_bytes())),
            ..Told::default()
        };
        let unseen = spec.is_multiple_of(2) && self.seen != Some(spec) || self.drifted.contains("/etc/containerd/config.toml");
        if unseen && self.failed_before == Some(spec) {
            let problems = problem("containerd.service was not well with this spec");
            return end(4, Told { outcome: "cannot".into(), failed_before: true, problems, ..told });
        }
        let differs = self.node != Some(spec);
        if differs && !self.network {
            told.kept_back = true;
            return end(8, Told { outcome: "verify-failed".into(), ..told });
        }
        told.paths = self.drifted.iter().cloned().collect();
        if differs {
            told.paths.push(format!("/etc/spec-{}", spec % 3));
        }
        told.changes = u32::try_from(told.paths.len()).unwrap();
        if self.disk_full && mode != Mode::Look && told.changes > 0 {
            return end(1, Told { outcome: "unexpected".into(), problems: problem("disk full"), ..told });
        }
        let unit =
            |state: &str| Unit { unit: "containerd.service".into(), needs: "restart".into(), state: state.into(), why: String::new() };
        let due = || vec![Due { how: "restart".into(), what: "containerd.service".into(), because: Vec::new() }];
        if mode == Mode::Look {
            if unseen {
                told.due = due();
                told.units = vec![unit("planned")];
            }
            if self.paused {
                return end(11, Told { outcome: "paused".into(), problems: problem("paused"), ..told });
            }
            return end(if told.changes > 0 { 10 } else { 0 }, told);
        }
        if unseen && mode == Mode::Restart {
            self.restarts.push(self.mono);
            if self.unhealthy == Some(spec) {
                told.units = vec![unit("failed")];
                self.failed_before = self.remembers.then_some(spec);
                // the first one needs no restart
                self.node = Some(1);
                return end(6, Told { outcome: "rolled-back".into(), ..told });
            }
            told.units = vec![unit("done")];
            self.seen = Some(spec);
        }
        self.node = Some(spec);
        let config = self.drifted.contains("/etc/containerd/config.toml");
        self.drifted.clear();
        if unseen && mode == Mode::Apply {
            // the file was changed back after the daemon had started
            if config && spec % 2 == 1 {
                return end(0, told);
            }
            told.due = due();
            told.units = vec![unit("left")];
            return end(9, Told { outcome: "due".into(), ..told });
        }
        end(if self.gone { 69 } else { 0 }, told)
    }

    /// The clock on the wall steps.
    pub fn clock(&mut self, step: i64) {
        self.step += step;
    }

    pub fn fault(&mut self, kind: Kind, random: &mut Random) {
        match kind {
            Kind::Spec => {
                self.spec += 1 + u64::try_from(random.below(3)).unwrap();
                self.broken = false;
                self.happen(Event::SpecChanged);
            }
            Kind::Drift => {
                let path = match random.below(8) {
                    0 => "/etc/containerd/config.toml".to_owned(),
                    number => format!("/etc/containerd/certs.d/{number}/hosts.toml"),
                };
                self.drifted.insert(path.clone());
                if random.below(3) > 0 {
                    self.happen(Event::NodeChanged(vec![path]));
                }
            }
            Kind::Crash => self.crash = true,
            Kind::Network => self.network = random.below(2) == 0,
            Kind::ClockStep => self.step += random.below(4 * 24 * HOUR) - 2 * 24 * HOUR,
            Kind::DiskFull => self.disk_full = random.below(2) == 0,
            Kind::Broken => {
                self.broken = true;
                self.happen(Event::SpecChanged);
            }
            Kind::Locked => self.locked = random.below(2) == 0,
            Kind::Reload => self.happen(Event::Reload),
            Kind::Package => self.package = random.below(2) == 0,
            Kind::Unhealthy => self.unhealthy = Some(self.spec),
            Kind::Gone => self.gone = random.below(2) == 0,
            Kind::Paused => self.paused = random.below(2) == 0,
            Kind::Keeper => self.keeper = (random.below(2) == 0).then(|| "/etc/containerd/certs.d/1/hosts.toml".to_owned()),
        }
    }

    pub fn last(&self) -> &[(i64, Mode, Cause)] {
        &self.passes[self.passes.len().saturating_sub(20)..]
    }

    /// Everything outside is well; within two days the node is, but for what somebody else has to do.
    pub fn settle(&mut self) {
        (self.crash, self.network, self.disk_full, self.broken) = (false, true, false, false);
        (self.locked, self.package, self.gate_shut, self.unhealthy, self.keeper) = (false, false, false, None, None);
        (self.gone, self.paused) = (false, false);
        // somebody runs `apply --retry`
        self.failed_before = None;
        self.happen(Event::Reload);
        self.pass(self.mono + 48 * HOUR);
        if !self.drifted.is_empty() {
            let view = self.view();
            assert!(!view.converged && !view.drift.left.is_empty() && !view.drift.paths.is_empty(), "{view:#?}");
            self.drifted.clear();
            self.pass(self.mono + HOUR);
        }
        if self.view().restart.as_ref().is_some_and(|restart| restart.waits_for == WaitsFor::Drift) {
            // somebody restarts it by hand
            self.seen = Some(self.spec);
            self.pass(self.mono + HOUR);
        }
        let view = self.view();
        assert!(view.converged && view.failing.is_none() && view.restart.is_none(), "{view:#?}\n{:?}", self.last());
        assert_eq!((self.node, self.drifted.len()), (Some(self.spec), 0));
        assert!(self.spec % 2 == 1 || self.seen == Some(self.spec), "{view:#?}");
        assert_eq!(view.says, "as the spec says");
        let before = self.passes.len();
        self.pass(self.mono + 10 * HOUR);
        // looks, from time to time, and nothing else
        let every = self.settings.poll.unwrap_or(self.settings.reread);
        let most = usize::try_from(10 * HOUR / (every - every / 10) + 2).unwrap();
        let new = &self.passes[before..];
        assert!(new.len() <= most && new.iter().all(|(_, mode, _)| *mode == Mode::Look), "{new:?}");
    }
}
