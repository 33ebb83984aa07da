//! A fleet of real machines (`agent::machine::step`) under one clock, and the server of their spec. Everything from a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use nodeprep::agent::machine::{Action, By, Event, Machine, Question, step};
use nodeprep::agent::pass::{PassEnd, Told, Unit};
use nodeprep::agent::random::Random;
use nodeprep::agent::settings::{DriftPolicy, MINUTE, Now, SECOND, Settings, Window};
use nodeprep::agent::state::{Due, Mode};
use nodeprep::model::digest::Digest;
use nodeprep::model::time::Time;

/// Midnight, a Friday's end; the clock on the wall when the simulation begins.
const MIDNIGHT: i64 = 1_795_132_800_000;
/// In the place of a turn: what happens to a node, and is none of its own doing.
const TOUCHED: u32 = u32::MAX;
/// How long a pass takes.
const PASS: i64 = 60;

/// What the command line has by default.
pub fn settings() -> Settings {
    Settings {
        source: "https://specs.example.com/fleet.toml".to_owned(),
        poll: Some(5 * MINUTE),
        debounce: 200,
        quiet: 5 * SECOND,
        reread: 10 * MINUTE,
        drift: DriftPolicy::Repair,
        restarts: true,
        splay: 30 * MINUTE,
        window: None,
        budget: 2,
        gate: false,
        // it asks the endpoints, and nobody for a spec
        probe: None,
        machine: Digest::of(b""),
        seed: 0,
    }
}

/// What is simulated. Times are in milliseconds since the beginning.
pub struct Fleet {
    pub nodes: u32,
    pub seed: u64,
    pub settings: Settings,
    /// All agents start within so much time; 0: in the same millisecond.
    pub start: i64,
    /// They have applied a spec before.
    pub known: bool,
    /// When the server is gone.
    pub down: Vec<(i64, i64)>,
    /// As many requests as it answers in a second; the others get 503.
    pub capacity: u32,
    /// When there is another spec, for which a daemon has to be restarted.
    pub changes: Vec<i64>,
    /// When something happens on all nodes: a package is upgraded.
    pub touched: Option<i64>,
    /// From when to when the spec is broken.
    pub broken: Option<(i64, i64)>,
    pub until: i64,
}

impl Fleet {
    pub fn new(nodes: u32, seed: u64, until: i64) -> Self {
        Self {
            nodes,
            seed,
            settings: settings(),
            start: 0,
            known: true,
            down: Vec::new(),
            capacity: u32::MAX,
            changes: Vec::new(),
            touched: None,
            broken: None,
            until,
        }
    }

    pub fn window(mut self, text: &str) -> Self {
        self.settings.window = Window::parse(text).ok();
        self
    }
}

/// What the server and the nodes have seen.
#[derive(Default)]
pub struct Seen {
    /// Requests by second.
    pub requests: Vec<u32>,
    /// Answers by second: not modified, whole, none.
    pub same: Vec<u32>,
    pub whole: Vec<u32>,
    pub none: Vec<u32>,
    /// When units were restarted, by node.
    pub restarts: Vec<(i64, u32)>,
    /// All passes.
    pub passes: u64,
    /// How many nodes are as the last spec says at the end.
    pub converged: u32,
}

/// Requests of a stretch of time.
#[derive(Clone, Copy, Debug)]
pub struct Rate {
    pub mean: f64,
    pub p99: u32,
    pub most: u32,
    /// As many as asking at times that have nothing to do with each other would hardly ever have in a second: six standard deviations
    /// of a Poisson distribution more than its mean.
    pub bound: f64,
}

impl Seen {
    fn count(list: &mut Vec<u32>, at: i64) {
        let second = usize::try_from(at / SECOND).unwrap();
        if list.len() <= second {
            list.resize(second + 1, 0);
        }
        list[second] += 1;
    }

    fn of(list: &[u32], from: i64, to: i64) -> Vec<u32> {
        let second = |at: i64| usize::try_from(at / SECOND).unwrap();
        (second(from)..second(to)).map(|second| list.get(second).copied().unwrap_or(0)).collect()
    }

    /// Requests from one time to another.
    pub fn rate(&self, from: i64, to: i64) -> Rate {
        let mut all = Self::of(&self.requests, from, to);
        let mean = f64::from(all.iter().sum::<u32>()) / f64::from(u32::try_from(all.len()).unwrap());
        all.sort_unstable();
        let bound = mean + 6.0 * mean.sqrt();
        Rate { mean, bound, p99: all[(all.len() * 99).div_ceil(100) - 1], most: all.last().copied().unwrap_or(0) }
    }

    /// How many requests were answered so: 304, 200, not at all.
    pub fn answers(&self, from: i64, to: i64) -> [u32; 3] {
        [&self.same, &self.whole, &self.none].map(|list| Self::of(list, from, to).iter().sum())
    }

    /// Restarts by so much time, from one time on, up to the last.
    pub fn curve(&self, from: i64, step: i64) -> Vec<u32> {
        let mut curve = Vec::new();
        for (at, _) in self.restarts.iter().filter(|(at, _)| *at >= from) {
            let index = usize::try_from((at - from) / step).unwrap();
            if curve.len() <= index {
                curve.resize(index + 1, 0);
            }
            curve[index] += 1;
        }
        curve
    }

    /// As many restarts as one node has had at most within an hour.
    pub fn most_in_an_hour(&self) -> usize {
        let mut of: BTreeMap<u32, Vec<i64>> = BTreeMap::new();
        for (at, node) in &self.restarts {
            of.entry(*node).or_default().push(*at);
        }
        let within = |times: &[i64], from: i64| times.iter().filter(|at| (from..from + 60 * MINUTE).contains(*at)).count();
        of.values().flat_map(|times| times.iter().map(|from| within(times, *from))).max().unwrap_or(0)
    }
}

struct Node {
    machine: Option<Machine>,
    /// Which of the times at which it wanted to wake up is the last.
    turn: u32,
    running: Option<(Mode, Answer)>,
    /// What `apply` has kept of what it fetched, what the files are by, and what the daemon has seen.
    kept: Option<usize>,
    applied: Option<usize>,
    seen: Option<usize>,
}

/// What a pass has of the server.
#[derive(Clone, Copy)]
enum Answer {
    Spec(usize),
    Broken,
    Nothing,
}

/// Runs it.
pub fn run(fleet: &Fleet) -> Seen {
    let mut random = Random(fleet.seed);
    let mut seen = Seen::default();
    let mut heap: BinaryHeap<Reverse<(i64, u32, u32)>> = BinaryHeap::new();
    let mut nodes = Vec::new();
    for number in 0..fleet.nodes {
        let begins = random.below(fleet.start.max(1));
        let before = fleet.known.then_some(0);
        nodes.push(Node { machine: None, turn: 0, running: None, kept: before, applied: before, seen: before });
        heap.push(Reverse((begins, number, 0)));
        heap.extend(fleet.touched.map(|at| Reverse((at, number, TOUCHED))));
    }
    let digests: Vec<Digest> = (0..=fleet.changes.len()).map(|spec| Digest::of(format!("{} {spec}", fleet.seed).as_bytes())).collect();
    while let Some(Reverse((at, number, turn))) = heap.pop() {
        if at >= fleet.until {
            break;
        }
        let node = &mut nodes[usize::try_from(number).unwrap()];
        if node.turn != turn && turn != TOUCHED {
            continue;
        }
        let now = Now { mono: at, wall: Time(MIDNIGHT + at) };
        let mut events = vec![match (&node.machine, node.running.take()) {
            (None, _) => {
                let machine = Digest::of(format!("{} node {number}", fleet.seed).as_bytes());
                let settings = Settings { machine, seed: random.number(), ..fleet.settings.clone() };
                node.machine = Some(Machine::new(settings, now, 1, None));
                Event::Started
            }
            // what comes while a pass runs is no more than a hint
            (Some(_), Some(running)) if turn == TOUCHED => {
                node.running = Some(running);
                continue;
            }
            (Some(_), None) if turn == TOUCHED => Event::NodeChanged(vec!["/usr/bin/containerd".to_owned()]),
            (Some(_), Some((mode, answer))) => Event::PassEnded(node.end(mode, answer, &digests, || seen.restarts.push((at, number)))),
            (Some(_), None) => Event::Tick,
        }];
        // what was written beside the files that a pass names: looked at once more
        let wrote = |end: &PassEnd| end.code != Some(10) && end.told.as_ref().is_some_and(|told| told.changes > 0);
        if matches!(&events[0], Event::PassEnded(end) if wrote(end)) {
            events.push(Event::NodeChanged(vec!["/etc".to_owned()]));
        }
        node.turn += 1;
        let wake = node.happen(now, events, |node, mode, by| {
            seen.passes += 1;
            let latest = fleet.changes.iter().filter(|change| **change <= at).count();
            let answer = if let Some(kept) = node.kept.filter(|_| by == By::Kept) {
                Answer::Spec(kept)
            } else {
                Seen::count(&mut seen.requests, at);
                let this_second = seen.requests.last().copied().unwrap_or(0);
                let down = fleet.down.iter().any(|(from, to)| (*from..*to).contains(&at)) || this_second > fleet.capacity;
                let broken = fleet.broken.is_some_and(|(from, to)| (from..to).contains(&at));
                match node.kept {
                    _ if down => Seen::count(&mut seen.none, at),
                    Some(kept) if kept == latest && !broken => Seen::count(&mut seen.same, at),
                    _ => Seen::count(&mut seen.whole, at),
                }
                match (down, broken) {
                    (true, _) => Answer::Nothing,
                    (false, true) => Answer::Broken,
                    (false, false) => Answer::Spec(latest),
                }
            };
            node.running = Some((mode, answer));
        });
        let next = if node.running.is_some() { Some(at + PASS) } else { wake };
        heap.extend(next.map(|next| Reverse((next.max(at), number, node.turn))));
    }
    let last = Some(fleet.changes.len());
    seen.converged = u32::try_from(nodes.iter().filter(|node| node.applied == last && node.seen == last).count()).unwrap();
    seen
}

impl Node {
    /// Events, and all that follows at once; when it wants to wake up.
    fn happen(&mut self, now: Now, mut events: Vec<Event>, mut start: impl FnMut(&mut Self, Mode, By)) -> Option<i64> {
        let mut wake = None;
        events.reverse();
        while let Some(event) = events.pop() {
            let (machine, actions) = step(self.machine.take().unwrap(), now, event);
            self.machine = Some(machine);
            wake = None;
            for action in actions {
                match action {
                    Action::StartPass(mode, _, by) => start(self, mode, by),
                    Action::WakeAt(at) => wake = Some(at),
                    Action::Ask(Question::PackageManager) => events.push(Event::PackageManager(None)),
                    _ => {}
                }
            }
        }
        wake
    }

    /// What a pass says at its end.
    fn end(&mut self, mode: Mode, answer: Answer, digests: &[Digest], restarted: impl FnOnce()) -> PassEnd {
        let end = |code, told: Told| PassEnd { code: Some(code), told: Some(Box::new(told)), why: String::new() };
        let told = |outcome: &str, spec: Option<usize>| Told {
            outcome: outcome.to_owned(),
            spec: spec.map(|spec| digests[spec]),
            runtimes: Some(digests[0]),
            ..Told::default()
        };
        let (code, outcome) = match answer {
            Answer::Nothing => (69, "unavailable"),
            Answer::Broken => (3, "invalid-spec"),
            Answer::Spec(spec) => {
                let mut told = told("converged", Some(spec));
                let unseen = self.seen != Some(spec) && spec > 0;
                let unit = |state: &str| Unit {
                    unit: "containerd.service".to_owned(),
                    needs: "restart".to_owned(),
                    state: state.to_owned(),
                    why: String::new(),
                };
                let due = Due { how: "restart".to_owned(), what: "containerd.service".to_owned(), because: Vec::new() };
                told.changes = u32::from(self.applied != Some(spec));
                if mode == Mode::Look {
                    if unseen {
                        (told.due, told.units) = (vec![due], vec![unit("planned")]);
                    }
                    return end(if told.changes > 0 { 10 } else { 0 }, told);
                }
                (self.kept, self.applied) = (Some(spec), Some(spec));
                if unseen && mode == Mode::Apply {
                    (told.due, told.units) = (vec![due], vec![unit("left")]);
                    return end(9, told);
                }
                if unseen {
                    told.units = vec![unit("done")];
                    restarted();
                }
                self.seen = Some(spec);
                return end(0, told);
            }
        };
        // without a spec the last good one counts, where there is one and it is applied
        end(code, told(outcome, self.applied.filter(|_| mode != Mode::Look)))
    }
}
