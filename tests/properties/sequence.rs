//! What becomes of a node over runs that follow each other: random specs, modes, answers of units, kills and re-runs.
//!
//! The files, the ledger and the transaction are real, below a scratch root. The two daemons are a model: what they have read is what
//! stood in their files when they started (containerd) or reloaded (CRI-O). The door is scripted.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nodeprep::apply::health::{Answer, Daemon, Look, Shim};
use nodeprep::apply::{self, Door, End, Outcome, Remark, UnitError};
use nodeprep::flow;
use nodeprep::ledger::Ledger;
use nodeprep::model::cri::CriError;
use nodeprep::model::path::NodePath;
use nodeprep::model::snapshot::{Probes, Process, Snapshot};
use nodeprep::model::time::Time;
use nodeprep::model::unit::{Active, Init, UnitFacts, Units};
use nodeprep::node::command::{CommandError, Output};
use nodeprep::node::{blobs, probe, read, root::Root};
use nodeprep::plan::build::{Foreign, overlay_plan};
use nodeprep::plan::canary::Canary;
use nodeprep::plan::turn::{Choice, Mode, Turn, Turning, concerned, turns};
use nodeprep::plan::whole::Planned;
use nodeprep::plan::{Plan, back};
use nodeprep::runtime::facts;
use nodeprep::spec::Spec;
use nodeprep::spec::load::Draft as Document;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::{Listing, listing, material, nothing};

/// Always the same sequences, so that a machine that is slow or noisy sees what others have seen; `NODEPREP_SEED=N` tries others.
const SEED: u64 = 20_261_121;
/// More with `PROPTEST_CASES`.
const CASES: u32 = 64;

const CONTAINERD: &str = "containerd.service";
const CRIO: &str = "crio.service";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const ANCHORS: &str = "usr/local/share/ca-certificates";

/// What a spec of the fleet may say: each part concerns other files.
#[derive(Clone, Debug, PartialEq)]
struct Say {
    /// Which of three sources are mirrored: hosts.toml, registries.conf.
    mirrors: u8,
    /// A pause image: config.toml, crio.conf.d.
    pause: Option<u8>,
    /// A CA for the OS trust store.
    ca: Option<u8>,
    deny: bool,
}

impl Say {
    fn spec(&self) -> Spec {
        let mut text = format!("version = 1\nfallback = \"never\"\nunlisted = \"{}\"\n", if self.deny { "deny" } else { "allow" });
        for (bit, source) in ["docker.io", "quay.io", "ghcr.io"].into_iter().enumerate() {
            if self.mirrors >> bit & 1 == 1 {
                let _ = write!(text, "[[mirror]]\nsource = \"{source}\"\nendpoints = [\"harbor.corp.example/{source}\"]\n");
            }
        }
        if let Some(pause) = self.pause {
            let _ = write!(text, "[runtime]\npause_image = \"harbor.corp.example/pause:{pause}\"\n");
        }
        if let Some(ca) = self.ca {
            let _ = write!(text, "[[ca]]\nname = \"ca-{ca}\"\nfile = \"ca-{ca}.pem\"\n");
        }
        let closed =
            Document::open("spec.toml", text.as_bytes()).expect("a document").close(material(), Some(Time::from_secs(1_800_000_000)));
        closed.spec.unwrap_or_else(|| panic!("{:?}\n{text}", closed.problems))
    }
}

/// What comes of turning a unit.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Serves,
    /// It runs, and does not serve.
    Mute,
    /// The job fails; it does not run.
    Dies,
    /// The job is never done; it is being started for ever.
    Hangs,
    /// The job is done, and the daemon has ended right after.
    Ends,
    /// It serves, and a shim is gone.
    EndsShim,
}

/// What becomes of a command of the trust store.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Store {
    Runs,
    Fails,
    /// It cannot be run from here.
    Out,
}

/// One run, or what happens on the node between two.
#[derive(Clone, Debug)]
enum Step {
    Run {
        say: Say,
        mode: u8,
        /// The fates of what is turned, in order; then all serve.
        fates: Vec<Fate>,
        store: Vec<Store>,
        /// The event at which the run is killed.
        killed: Option<usize>,
        /// Restarts take kubelet along.
        along: bool,
        /// containerd would not come up with the files of before.
        dead_end: bool,
        /// Whether the canary is promised, and what comes of its pulls.
        canary: Option<(bool, Vec<bool>)>,
    },
    Revert {
        mode: u8,
        fates: Vec<Fate>,
        killed: Option<usize>,
    },
    /// Somebody stops a unit, starts it, or restarts it.
    Stop(&'static str),
    Start(&'static str),
    Restart(&'static str),
    Boot,
}

fn say() -> impl Strategy<Value = Say> {
    let pause = proptest::option::weighted(0.7, 0u8..3);
    (1u8..8, pause, proptest::option::weighted(0.4, 0u8..2), any::<bool>()).prop_map(|(mirrors, pause, ca, deny)| Say {
        mirrors,
        pause,
        ca,
        deny,
    })
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let fate = prop_oneof![
        6 => Just(Fate::Serves),
        2 => Just(Fate::Mute),
        2 => Just(Fate::Dies),
        1 => Just(Fate::Hangs),
        1 => Just(Fate::Ends),
        1 => Just(Fate::EndsShim),
    ];
    proptest::collection::vec(fate, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let unit = || select(&[CONTAINERD, CRIO][..]);
    let mode = || prop_oneof![4 => Just(0u8), 1 => Just(1), 1 => Just(2)];
    let killed = || proptest::option::weighted(0.35, 0usize..30);
    let store = proptest::collection::vec(prop_oneof![6 => Just(Store::Runs), 1 => Just(Store::Fails), 1 => Just(Store::Out)], 0..3);
    let canary = proptest::option::weighted(0.2, (any::<bool>(), proptest::collection::vec(any::<bool>(), 0..4)));
    let unlikely = || proptest::bool::weighted(0.1);
    let run = (say(), mode(), fates(), store, killed(), unlikely(), proptest::bool::weighted(0.2), canary).prop_map(
        |(say, mode, fates, store, killed, along, dead_end, canary)| Step::Run { say, mode, fates, store, killed, along, dead_end, canary },
    );
    prop_oneof![
        10 => run,
        1 => (mode(), fates(), killed()).prop_map(|(mode, fates, killed)| Step::Revert { mode, fates, killed }),
        1 => unit().prop_map(Step::Stop),
        2 => unit().prop_map(Step::Start),
        1 => unit().prop_map(Step::Restart),
        1 => Just(Step::Boot),
    ]
}

/// A step, or a run that is killed beside a daemon which is not well, and the one after it.
fn steps() -> impl Strategy<Value = Vec<Step>> {
    let cut_off = (say(), 2usize..9, fates())
        .prop_map(|(say, killed, fates)| vec![plain(say.clone(), &[Fate::Mute], Some(killed)), plain(say, &fates, None)]);
    let one = prop_oneof![7 => step().prop_map(|step| vec![step]), 1 => cut_off];
    proptest::collection::vec(one, 1..8).prop_map(|steps| steps.concat())
}

/// A daemon and its unit.
#[derive(Clone, Debug)]
struct Unit {
    active: Active,
    /// The process and when it started.
    process: Option<(u32, Time)>,
    serves: bool,
    /// What stood in its files when it read them.
    read: String,
    /// Something else has stood there since.
    passed: bool,
}

/// The node as it goes on between runs.
struct Node {
    root: PathBuf,
    units: BTreeMap<&'static str, Unit>,
    pids: u32,
    shims: BTreeSet<Shim>,
}

/// The run is killed: nothing of it goes on.
struct Killed;

impl Node {
    fn new(root: &Path) -> Self {
        let put = |at: &str, text: &str| {
            let file = root.join(at);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("folder");
            std::fs::write(file, text).expect("file");
        };
        put("etc/os-release", "ID=debian\n");
        put("usr/bin/containerd", "");
        put("usr/bin/crio", "");
        put("usr/sbin/update-ca-certificates", "");
        put("usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n");
        put("usr/lib/systemd/system/crio.service", "[Service]\nExecStart=/usr/bin/crio\n");
        put("etc/containerd/config.toml", "# theirs\nversion = 2\n");
        put("etc/containers/registries.conf", "# theirs\n");
        put("etc/crio/crio.conf", "");
        put(BUNDLE, "");
        std::fs::create_dir_all(root.join(ANCHORS)).expect("folder");
        let shims = [7, 8].map(|pid| Shim { pid, ticks: 1 }).into();
        let mut node = Self { root: root.to_owned(), units: BTreeMap::new(), pids: 100, shims };
        for unit in [CONTAINERD, CRIO] {
            let daemon = Unit { active: Active::Inactive, process: None, serves: false, read: String::new(), passed: false };
            node.units.insert(unit, daemon);
            node.start(unit, Fate::Serves);
        }
        node
    }

    /// What a daemon reads when it starts, or reloads.
    fn content(&self, unit: &str) -> String {
        let (folders, files): (&[&str], &[&str]) = match unit {
            CONTAINERD => (&[], &["etc/containerd/config.toml"]),
            _ => (&["etc/containers/registries.conf.d", "etc/crio/crio.conf.d"], &["etc/containers/registries.conf", "etc/crio/crio.conf"]),
        };
        let mut paths: Vec<PathBuf> = files.iter().map(|file| self.root.join(file)).collect();
        for folder in folders {
            paths.extend(std::fs::read_dir(self.root.join(folder)).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
        paths.sort();
        let read = |path: &PathBuf| std::fs::read_to_string(path).ok().map(|text| format!("{}:\n{text}\n", path.display()));
        paths.iter().filter_map(read).collect()
    }

    /// Waits until whatever is written next is younger than whatever was written before, by the clocks of both processes and files.
    fn pass(&self) -> Time {
        let now = probe::now();
        let file = self.root.with_file_name("clock");
        loop {
            std::fs::write(&file, "").expect("clock");
            let meta = std::fs::metadata(&file).expect("clock");
            if meta.mtime() * 1000 + meta.mtime_nsec() / 1_000_000 > now.0 + 1 {
                return probe::now();
            }
            std::thread::yield_now();
        }
    }

    fn start(&mut self, unit: &'static str, fate: Fate) {
        let (content, started) = (self.content(unit), self.pass());
        self.pass();
        self.pids += 1;
        let process = Some((self.pids, started));
        let daemon = self.units.get_mut(unit).expect("a unit");
        (daemon.read, daemon.passed, daemon.serves) = (content, false, matches!(fate, Fate::Serves | Fate::EndsShim));
        (daemon.active, daemon.process) = match fate {
            Fate::Serves | Fate::Mute | Fate::EndsShim => (Active::Active, process),
            Fate::Dies => (Active::Failed, None),
            Fate::Hangs => (Active::Activating, None),
            Fate::Ends => (Active::Inactive, None),
        };
        if fate == Fate::EndsShim {
            self.shims.pop_first();
        }
    }

    fn stop(&mut self, unit: &str) {
        let daemon = self.units.get_mut(unit).expect("a unit");
        (daemon.active, daemon.process, daemon.serves) = (Active::Inactive, None, false);
    }

    fn probes(&self) -> Probes {
        let process = |(unit, daemon): (&&'static str, &Unit)| {
            let program = unit.trim_end_matches(".service");
            let (pid, started) = daemon.process?;
            let exe = NodePath::new(&format!("/usr/bin/{program}")).expect("a path");
            Some(Process {
                pid,
                started,
                exe,
                replaced: false,
                args: vec![program.to_owned()],
                env: Vec::new(),
                unit: Some((*unit).to_owned()),
            })
        };
        let versions = [("/usr/bin/containerd", "containerd 1.7.24"), ("/usr/bin/crio", "crio version 1.30.0")];
        Probes {
            now: probe::now(),
            live: true,
            processes: self.units.iter().filter_map(process).collect(),
            versions: versions.map(|(path, said)| (NodePath::fixed(path), said.to_owned())).into(),
            ..Probes::default()
        }
    }

    fn manager(&self, along: bool) -> Units {
        let facts = |(unit, daemon): (&&'static str, &Unit)| {
            let facts = UnitFacts {
                loaded: true,
                active: daemon.active,
                main_pid: daemon.process.map(|(pid, _)| pid),
                reloads: *unit == CRIO,
                along: if along { vec!["kubelet.service".to_owned()] } else { Vec::new() },
                ..UnitFacts::default()
            };
            ((*unit).to_owned(), facts)
        };
        Units { init: Init::Systemd, facts: self.units.iter().map(facts).collect(), ..Units::default() }
    }

    /// Everything but what the trust store's own command and nodeprep itself keep.
    fn files(&self) -> Listing {
        let mut files = listing(&self.root);
        files.retain(|path, _| path != Path::new(BUNDLE));
        files
    }
}

/// The door of one run.
struct Script<'a> {
    node: &'a mut Node,
    fates: std::vec::IntoIter<Fate>,
    store: std::vec::IntoIter<Store>,
    pulls: std::vec::IntoIter<bool>,
    killed: Option<usize>,
    events: usize,
    /// Unit, on the way back, whether it was up.
    turned: Vec<(String, Turning, bool, bool)>,
}

impl Script<'_> {
    fn event(&mut self) {
        self.events += 1;
        if self.killed == Some(self.events - 1) {
            resume_unwind(Box::new(Killed));
        }
    }

    fn own(unit: &str) -> &'static str {
        if unit == CONTAINERD { CONTAINERD } else { CRIO }
    }
}

impl Door for &mut Script<'_> {
    fn run(&mut self, _: &[String]) -> Result<Output, CommandError> {
        self.event();
        let output = |status| Ok(Output { status, stdout: String::new(), stderr: "the store is not to be had".to_owned() });
        match self.store.next().unwrap_or(Store::Runs) {
            Store::Fails => return output(1),
            Store::Out => return Err(CommandError::Tools("no namespaces".to_owned())),
            Store::Runs => {}
        }
        let anchors = std::fs::read_dir(self.node.root.join(ANCHORS)).into_iter().flatten().flatten();
        let bundle: String = anchors.map(|entry| std::fs::read_to_string(entry.path()).expect("an anchor")).collect();
        std::fs::write(self.node.root.join(BUNDLE), bundle).expect("bundle");
        self.event();
        output(0)
    }

    fn look(&mut self, turn: &Turn) -> Look {
        self.event();
        let daemon = &self.node.units[Script::own(&turn.unit)];
        let process = daemon.process.map(|(pid, started)| Daemon { pid, started, config: None });
        let answer = if daemon.serves { Answer::Ready } else { Answer::NotServed("no CRI".to_owned()) };
        Look { active: daemon.active, process, answer, shims: self.node.shims.clone(), ..Look::default() }
    }

    fn turn(&mut self, turn: &Turn, back: bool) -> Result<(), UnitError> {
        self.event();
        let unit = Script::own(&turn.unit);
        let was_up = self.node.units[unit].active.is_up();
        self.turned.push((turn.unit.clone(), turn.turning, back, was_up));
        if !was_up && !back {
            return Ok(());
        }
        let fate = self.fates.next().unwrap_or(Fate::Serves);
        let failed = || Err(UnitError::Job { said: "the job failed".to_owned() });
        if turn.turning == Turning::Reload {
            let Some(process) = self.node.units[unit].process else { return failed() };
            if matches!(fate, Fate::Dies | Fate::Hangs) {
                return failed(); // it goes on with what it has read
            }
            let content = self.node.content(unit);
            let daemon = self.node.units.get_mut(unit).expect("a unit");
            (daemon.read, daemon.passed, daemon.serves) = (content, false, fate != Fate::Mute);
            daemon.process = Some(process);
        } else {
            self.node.start(unit, fate);
        }
        self.event();
        match fate {
            Fate::Dies => failed(),
            Fate::Hangs => Err(CommandError::TimedOut { program: "systemctl".to_owned(), seconds: 400 }.into()),
            _ => Ok(()),
        }
    }

    fn watch(&mut self, turn: &Turn, mut enough: impl FnMut(&Look, Duration) -> bool) -> Look {
        let look = self.look(turn);
        enough(&look, Duration::from_secs(120));
        look
    }

    fn pull(&mut self, canary: &Canary) -> Result<(), CriError> {
        self.event();
        let pulled = self.pulls.next().unwrap_or(true);
        if pulled { Ok(()) } else { Err(CriError::Absent { path: canary.socket.clone() }) }
    }
}

/// A node that was looked at, and what is to be done.
struct Looked {
    root: Root,
    ledger: Arc<Ledger>,
    snapshot: Snapshot,
    found: Vec<nodeprep::runtime::FoundRuntime>,
    blobs: BTreeMap<nodeprep::model::digest::Digest, Vec<u8>>,
}

fn state() -> NodePath {
    NodePath::fixed(flow::STATE)
}

impl Looked {
    /// As every subcommand begins.
    fn at(node: &Node) -> Self {
        let root = Root::open(&node.root).expect("root");
        apply::tidy(&root, &state()).expect("tidy");
        let stored = apply::load_ledger(&root, &state()).expect("a ledger");
        if let Some(ledger) = &stored {
            apply::sweep(&root, &state(), ledger).expect("sweep");
        }
        let ledger = stored.unwrap_or_else(|| Ledger::new([7; 32]));
        let probes = node.probes();
        let limits = read::Limits { bundles: flow::large_files(), ..read::Limits::default() };
        let tree = read::read_within(&root, &limits, |tree| flow::wishes(tree, &probes, &ledger, &[]));
        let found = facts::found(&tree, &probes);
        let mut kept = BTreeMap::new();
        for (path, prior) in ledger.priors() {
            if let nodeprep::ledger::Prior::File { blob, .. } = prior {
                kept.insert(*blob, blobs::read(&root, &state(), *blob, path).expect("what was there before is kept"));
            }
        }
        Self { root, ledger: Arc::new(ledger), snapshot: Snapshot { tree, probes }, found, blobs: kept }
    }

    fn now(&self) -> nodeprep::plan::build::Now<'_> {
        let Snapshot { tree, probes } = &self.snapshot;
        nodeprep::plan::build::Now { tree, ledger: &self.ledger, blobs: &self.blobs, foreign: Foreign::Refuse, live: probes.live }
    }

    fn plan(&self, spec: &Spec) -> Planned {
        let planned = flow::prepare(spec, &self.snapshot, &self.found, &self.ledger, &self.blobs, Foreign::Refuse, nothing());
        for part in &planned.parts {
            assert!(part.refused.is_none(), "{}: {:?}", part.part.target, part.refused);
        }
        planned
    }

    fn revert(&self) -> Planned {
        let refresh = nodeprep::plan::activation::refresh_back(&self.snapshot.tree);
        back::plan(self.now(), &self.found, refresh.as_ref(), &[], &[])
    }

    /// The units that something is to be done with, or that it would be: what was found due.
    fn decide(&self, planned: &mut Planned, units: &Units, choice: &Choice) -> (BTreeSet<String>, Vec<String>) {
        let open = self.ledger.open.iter().flat_map(|open| &open.activations);
        let proofs: Vec<_> = open.filter(|one| one.how.unit().is_some()).cloned().collect();
        let names = &concerned(&planned.plan.activate) | &concerned(&proofs);
        let after = overlay_plan(&self.snapshot.tree, &planned.plan);
        let decided = turns(&planned.plan.activate, &proofs, &self.found, &after, units, choice);
        planned.settle(&decided.settled);
        planned.plan.turns.clone_from(&decided.turns);
        (names, decided.left.into_iter().map(|left| left.unit).collect())
    }
}

/// What is asked of one run.
struct Asked<'a> {
    /// `None`: revert.
    spec: Option<&'a Spec>,
    mode: u8,
    along: bool,
    dead_end: bool,
    canary: Option<bool>,
}

/// How a run ended.
enum Ran {
    Killed,
    Ended { outcome: Box<Outcome>, left: Vec<String>, interrupted: bool },
}

fn choice(mode: u8) -> Choice {
    let mode = [Mode::Auto, Mode::ReloadOnly, Mode::Never][usize::from(mode)];
    Choice { mode, ..Choice::default() }
}

/// One whole run, as `apply` and `revert` do it.
fn run(script: &mut Script<'_>, asked: &Asked<'_>) -> Ran {
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let looked = Looked::at(script.node);
        let mut planned = asked.spec.map_or_else(|| looked.revert(), |spec| looked.plan(spec));
        let (_, left) = looked.decide(&mut planned, &script.node.manager(asked.along), &choice(asked.mode));
        if asked.dead_end {
            planned.plan.dead_ends.insert(CONTAINERD.to_owned(), "it would not come up".to_owned());
        }
        planned.plan.canaries.extend(asked.canary.map(|promised| Canary {
            runtime: "containerd".to_owned(),
            socket: NodePath::fixed("/run/containerd/containerd.sock"),
            image: "docker.io/library/canary:1".to_owned(),
            promised,
        }));
        let outcome = execute(script, &looked, &planned.plan, Arc::clone(&looked.ledger));
        // the way back from an earlier run that was cut off, as the command line goes it
        let unwell = match &outcome.end {
            End::RollbackFailed { by_hand, unwell, .. } if by_hand.is_empty() => unwell.clone(),
            _ => Vec::new(),
        };
        let turns: Vec<Turn> =
            planned.plan.turns.iter().filter(|turn| unwell.iter().any(|(unit, _)| *unit == turn.unit)).cloned().collect();
        let Some(plan) = back::interrupted(looked.now(), &turns).filter(|_| !turns.is_empty()) else {
            return Ran::Ended { outcome: Box::new(outcome), left, interrupted: false };
        };
        script.turned.clear();
        let mut again = execute(script, &looked, &plan, Arc::clone(&outcome.ledger));
        again.end = match (again.end, outcome.end) {
            (End::Applied, End::RollbackFailed { why, .. }) => End::RolledBack(why),
            (End::RollbackFailed { by_hand, unwell, .. }, End::RollbackFailed { why, .. }) => End::RollbackFailed { why, by_hand, unwell },
            (_, end) => end,
        };
        Ran::Ended { outcome: Box::new(again), left, interrupted: true }
    }));
    ended.unwrap_or_else(|panic| if panic.is::<Killed>() { Ran::Killed } else { resume_unwind(panic) })
}

fn execute(script: &mut Script<'_>, looked: &Looked, plan: &Plan, ledger: Arc<Ledger>) -> Outcome {
    let events = std::cell::Cell::new(0);
    let limit = script.killed;
    let begun = script.events;
    let progress = |_: apply::Progress<'_>| {
        // steps count, too: between two of them nobody else is asked
        events.set(events.get() + 1);
        if limit.is_some_and(|limit| begun + events.get() > limit + 6) {
            resume_unwind(Box::new(Killed));
        }
    };
    apply::execute(&looked.root, &state(), plan, ledger, &mut &mut *script, &mut { progress })
}

/// What the property has seen, so that it is known to have come to all of it.
#[derive(Default, Debug)]
struct Seen {
    applied: u32,
    unchanged: u32,
    rolled_back: u32,
    stuck: u32,
    stayed: u32,
    refused: u32,
    killed: u32,
    interrupted: u32,
    left: u32,
    restarts: u32,
    found_again: u32,
}

/// How files were when a run began.
struct Past {
    /// Since the last one that came to its end: what a run may leave that goes back.
    before: Vec<Listing>,
    ever: Vec<Listing>,
}

/// Everything that has to be so after a run that came to its end.
fn check(
    node: &Node,
    script: &Turned,
    ran: &Ran,
    past: &Past,
    spec: Option<&Spec>,
    mode: u8,
    seen: &mut Seen,
) -> Result<(), TestCaseError> {
    // the way back from a run that was cut off has one of its own
    let most = if matches!(ran, Ran::Ended { interrupted: true, .. }) { 2 } else { 1 };
    for unit in [CONTAINERD, CRIO] {
        let of = |wanted: bool| script.iter().filter(|(name, _, back, _)| name == unit && *back == wanted).count();
        prop_assert!(of(false) <= 1 && of(true) <= most, "{unit} was turned more than once: {script:?}");
        let started = script.iter().any(|(name, _, back, was_up)| name == unit && !*back && !*was_up);
        prop_assert!(!started, "{unit} did not run, and was turned: {script:?}");
    }
    prop_assert!(mode != 2 || script.iter().all(|(_, turning, back, _)| *back || *turning == Turning::Prove), "never: {script:?}");
    seen.restarts += u32::try_from(script.len()).unwrap_or(0);
    let Ran::Ended { outcome, left, interrupted } = ran else {
        seen.killed += 1;
        return Ok(());
    };
    let files = node.files();
    let as_before = || past.before.contains(&files);
    let open = outcome.ledger.open.is_some();
    let stored = apply::load_ledger(&Root::open(&node.root).expect("root"), &state()).expect("a ledger");
    prop_assert_eq!(stored.as_ref().is_some_and(|ledger| ledger.open.is_some()), open, "what is told of the ledger is not what is there");
    seen.interrupted += u32::from(*interrupted);
    seen.left += u32::from(!left.is_empty());
    match &outcome.end {
        End::Unchanged | End::Applied => {
            *(if matches!(outcome.end, End::Applied) { &mut seen.applied } else { &mut seen.unchanged }) += 1;
            prop_assert!(!open, "applied, and the ledger is open");
            if mode == 0 {
                let due = |unit: &String| outcome.due.iter().any(|due| due.how.unit() == Some(unit));
                prop_assert!(left.iter().all(due), "{left:?} are left, and due are {:?}", outcome.due);
            }
            let looked = Looked::at(node);
            let again = spec.map_or_else(|| looked.revert(), |spec| looked.plan(spec)).plan;
            let steps: Vec<_> = again.stage.iter().chain(&again.switch).chain(&again.retire).map(|step| &step.path).collect();
            prop_assert!(steps.is_empty(), "applied, and still to be done are {steps:?}");
            let told =
                outcome.remarks.iter().filter_map(|remark| if let Remark::StillUnwell { unit, .. } = remark { Some(unit) } else { None });
            let told: Vec<&String> = told.collect();
            for (unit, turning, _, _) in script {
                let daemon = &node.units[unit.as_str()];
                let well = daemon.active == Active::Active && daemon.serves && daemon.read == node.content(unit);
                prop_assert!(well || told.contains(&unit), "applied after {} of {unit}, which is {daemon:?}", turning.word());
            }
        }
        End::Refused(why) => {
            seen.refused += 1;
            prop_assert!(as_before(), "refused ({why}), and files are not as before");
        }
        End::RolledBack(why) => {
            seen.rolled_back += 1;
            // after a run that was cut off that of the daemon which is not well goes back, and the others go on; after finished runs that
            // left a restart to be done, what the daemon had not read
            let (looked, parts) = (Looked::at(node), if *interrupted { &GROUPS[..] } else { &[] });
            let again = spec.map_or_else(|| looked.revert(), |spec| looked.plan(spec)).plan;
            let todo =
                || again.stage.iter().chain(&again.switch).chain(&again.retire).map(|step| step.path.as_str().trim_start_matches('/'));
            let settled = |group: &&[&str]| {
                let of = |files: &Listing| -> Listing {
                    files.iter().filter(|(path, _)| is_in(path, group)).map(|(path, is)| (path.clone(), is.clone())).collect()
                };
                past.ever.iter().any(|before| of(before) == of(&files)) || !todo().any(|path| is_in(Path::new(path), group))
            };
            let in_parts = !parts.is_empty() && parts.iter().all(settled);
            prop_assert!(
                as_before() || in_parts,
                "rolled back ({why}), and files are not as before:{}",
                differences(&past.before[0], &files)
            );
        }
        End::Stayed { .. } => {
            seen.stayed += 1;
            prop_assert!(open, "it stayed where it was, and the ledger says nothing of it");
        }
        End::RollbackFailed { by_hand, .. } => {
            seen.stuck += 1;
            prop_assert!(by_hand.is_empty());
            prop_assert!(open || as_before(), "not rolled back, and the ledger is closed");
        }
    }
    Ok(())
}

/// The files of each target: what is read at each pull, and what is read at a start.
const GROUPS: [&[&str]; 5] =
    [&["etc/containerd/certs.d"], &["etc/containerd/config.toml"], &["etc/containers"], &["etc/crio"], &["usr/local/share"]];

fn is_in(path: &Path, group: &[&str]) -> bool {
    group.iter().any(|folder| path.starts_with(folder))
}

type Turned = Vec<(String, Turning, bool, bool)>;

fn differences(one: &Listing, other: &Listing) -> String {
    let all: BTreeSet<&PathBuf> = one.keys().chain(other.keys()).collect();
    let text = |of: &Listing, path: &PathBuf| of.get(path).map(|(mode, bytes)| format!("{mode:o} {}", String::from_utf8_lossy(bytes)));
    let differs = all.into_iter().filter(|path| one.get(*path) != other.get(*path));
    let line = |path: &PathBuf| format!("\n{}: {:?} instead of {:?}", path.display(), text(other, path), text(one, path));
    differs.map(line).collect::<Vec<_>>().concat()
}

/// A daemon that runs with something else than what stands in its files is found by whoever runs next, and one that has read
/// everything is left alone.
fn found_again(node: &Node, spec: &Spec, seen: &mut Seen) -> Result<(), TestCaseError> {
    let looked = Looked::at(node);
    let mut planned = looked.plan(spec);
    let (names, _) = looked.decide(&mut planned, &node.manager(false), &choice(0));
    let steps = planned.plan.switch.iter().chain(&planned.plan.retire).count();
    for (unit, daemon) in node.units.iter().filter(|(_, daemon)| daemon.process.is_some()) {
        let behind = daemon.read != node.content(unit);
        if behind {
            seen.found_again += 1;
            prop_assert!(names.contains(*unit), "{unit} runs with what it read before, and nobody knows");
        }
        let store = planned.plan.activate.iter().any(|one| one.because.iter().any(|why| why.contains("trust store")));
        if !behind && !daemon.passed && steps == 0 && !store && looked.ledger.open.is_none() {
            let turned = planned.plan.turns.iter().find(|turn| turn.unit == **unit);
            prop_assert!(turned.is_none(), "{unit} has read everything, and is turned once more: {turned:?}");
        }
    }
    Ok(())
}

fn go(steps: &[Step], seen: &mut Seen) -> Result<(), TestCaseError> {
    let scratch = tempfile::Builder::new().prefix("nodeprep-sequence").tempdir_in(memory()).expect("scratch");
    let root = scratch.path().join("node");
    std::fs::create_dir_all(root.join("var/lib")).expect("root");
    let mut node = Node::new(&root);
    let first = node.files();
    let mut past = Past { before: vec![first.clone()], ever: vec![first.clone()] };
    let mut last = None;
    for (at, step) in steps.iter().enumerate() {
        match step {
            Step::Stop(unit) => node.stop(unit),
            Step::Start(unit) if node.units[unit].process.is_some() => {}
            Step::Start(unit) | Step::Restart(unit) => node.start(unit, Fate::Serves),
            Step::Boot => [CONTAINERD, CRIO].into_iter().for_each(|unit| node.start(unit, Fate::Serves)),
            Step::Run { .. } | Step::Revert { .. } => {
                let (spec, mode, fates, store, killed, along, dead_end, canary) = match step.clone() {
                    Step::Run { say, mode, fates, store, killed, along, dead_end, canary } => {
                        (Some(say.spec()), mode, fates, store, killed, along, dead_end, canary)
                    }
                    Step::Revert { mode, fates, killed } => (None, mode, fates, Vec::new(), killed, false, false, None),
                    _ => continue,
                };
                let (promised, pulls) = canary.map_or((None, Vec::new()), |(promised, pulls)| (Some(promised), pulls));
                node.pass();
                past.before.insert(0, node.files());
                past.ever.push(node.files());
                let mut script = Script {
                    node: &mut node,
                    fates: fates.into_iter(),
                    store: store.into_iter(),
                    pulls: pulls.into_iter(),
                    killed,
                    events: 0,
                    turned: Vec::new(),
                };
                let asked = Asked { spec: spec.as_ref(), mode, along, dead_end, canary: promised };
                let ran = run(&mut script, &asked);
                let turned = std::mem::take(&mut script.turned);
                let context = |error: TestCaseError| TestCaseError::fail(format!("step {at}: {error}"));
                check(&node, &turned, &ran, &past, spec.as_ref(), mode, seen).map_err(context)?;
                for unit in [CONTAINERD, CRIO] {
                    // a reload on the way back leaves no trace: it may be done once more
                    let again = turned.iter().any(|(name, turning, back, _)| name == unit && *back && *turning == Turning::Reload);
                    let passed = again || node.content(unit) != node.units[unit].read;
                    node.units.get_mut(unit).expect("a unit").passed |= passed;
                }
                if let Ran::Ended { outcome, .. } = &ran
                    && outcome.ledger.open.is_none()
                {
                    past.before.clear();
                }
                last = spec.or(last);
                if let Some(spec) = &last {
                    found_again(&node, spec, seen).map_err(context)?;
                }
            }
        }
    }
    // from wherever it has come to: everything that is asked from now on goes well
    let calm = Say { mirrors: 7, pause: Some(1), ca: Some(0), deny: true }.spec();
    for spec in [Some(&calm), None] {
        let mut ends = Vec::new();
        for round in 0..5 {
            node.pass();
            let mut script = Script {
                node: &mut node,
                fates: Vec::new().into_iter(),
                store: Vec::new().into_iter(),
                pulls: Vec::new().into_iter(),
                killed: None,
                events: 0,
                turned: Vec::new(),
            };
            let ran = run(&mut script, &Asked { spec, mode: 0, along: false, dead_end: false, canary: None });
            let turned = std::mem::take(&mut script.turned);
            let Ran::Ended { outcome, .. } = ran else { continue };
            ends.push(format!("{:?} {turned:?} {:?}", outcome.end, outcome.due));
            let settled = outcome.class().is_none() && outcome.due.is_empty() && turned.is_empty();
            if settled && matches!(outcome.end, End::Unchanged) {
                break;
            }
            prop_assert!(round < 4, "it does not settle: {ends:#?}");
        }
        for (unit, daemon) in node.units.iter().filter(|(_, daemon)| daemon.process.is_some()) {
            prop_assert_eq!(&daemon.read, &node.content(unit), "{} has not read everything", unit);
        }
    }
    let files = node.files();
    prop_assert!(files == first, "revert does not give everything back:{}", differences(&first, &files));
    Ok(())
}

/// Memory where there is some: syncing costs nothing there.
fn memory() -> PathBuf {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() }
}

#[test]
fn every_sequence_ends_as_the_spec_as_before_or_says_so() {
    let seed = std::env::var("NODEPREP_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(SEED);
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(CASES);
    println!("NODEPREP_SEED={seed}");
    let config = Config { cases, failure_persistence: None, rng_seed: RngSeed::Fixed(seed), max_shrink_iters: 400, ..Config::default() };
    let counts = std::cell::RefCell::new(Seen::default());
    let outcome = TestRunner::new(config).run(&steps(), |steps| go(&steps, &mut counts.borrow_mut()));
    outcome.unwrap_or_else(|failure| panic!("NODEPREP_SEED={seed}: {failure}"));
    let counts = counts.into_inner();
    println!("{counts:?}");
    let Seen { applied, unchanged: _, rolled_back, stuck, stayed, refused: _, killed, interrupted, left, restarts, found_again } = counts;
    let all = [applied, rolled_back, stuck, stayed, killed, interrupted, left, restarts, found_again];
    assert!(cases < CASES || all.iter().all(|count| *count > 0), "not everything was come to");
}

const FIRST: Say = Say { mirrors: 1, pause: None, ca: None, deny: false };
const SECOND: Say = Say { mirrors: 3, pause: Some(1), ca: None, deny: false };

fn plain(say: Say, fates: &[Fate], killed: Option<usize>) -> Step {
    Step::Run { say, mode: 0, fates: fates.to_vec(), store: Vec::new(), killed, along: false, dead_end: false, canary: None }
}

fn gone_through(steps: &[Step]) -> Seen {
    let mut seen = Seen::default();
    go(steps, &mut seen).unwrap_or_else(|error| panic!("{error}\n{steps:#?}"));
    seen
}

/// CRI-O's start shows nothing of a reload: once it has been told it is not told again.
#[test]
fn what_was_reloaded_is_not_due() {
    let seen = gone_through(&[plain(FIRST, &[], None)]);
    // containerd once, CRI-O once; both again for what is asked at the end, and for the way back from that
    assert_eq!((seen.restarts, seen.applied, seen.found_again), (2, 1, 0), "{seen:?}");
}

/// What a daemon reads only when it is turned is gone by then: its own last file, too.
#[test]
fn what_goes_is_gone_when_a_daemon_is_turned_for_it() {
    let seen = gone_through(&[plain(SECOND, &[], None), Step::Revert { mode: 0, fates: Vec::new(), killed: None }]);
    assert_eq!((seen.applied, seen.restarts, seen.found_again), (2, 4, 0), "{seen:?}");
}

/// containerd is not well without what goes, and CRI-O was not come to: it has read what was put back, and is left alone.
#[test]
fn what_was_put_back_is_as_old_as_before() {
    let seen = gone_through(&[plain(FIRST, &[], None), Step::Revert { mode: 0, fates: vec![Fate::Mute], killed: None }]);
    assert_eq!((seen.applied, seen.rolled_back, seen.restarts), (1, 1, 4), "{seen:?}");
}

/// CRI-O has read the new files, containerd fails, and CRI-O does not read the old ones again: it is found by the next run.
#[test]
fn what_is_not_turned_on_the_way_back_is_due() {
    let fates = [Fate::Serves, Fate::Mute, Fate::Serves, Fate::Dies];
    let seen = gone_through(&[plain(FIRST, &[], None), plain(SECOND, &fates, None)]);
    assert_eq!((seen.stuck, seen.found_again), (1, 1), "{seen:?}");
}

/// Killed at any event while a daemon does not become well: the next run ends as the spec, or goes back to what there was before the
/// one that was killed.
#[test]
fn killed_at_any_event_beside_a_daemon_that_is_not_well() {
    let (mut killed, mut interrupted) = (0, 0);
    for at in 0..12 {
        let seen = gone_through(&[plain(FIRST, &[], None), plain(SECOND, &[Fate::Mute, Fate::Mute], Some(at)), plain(SECOND, &[], None)]);
        killed += seen.killed;
        interrupted += seen.interrupted;
    }
    assert!(killed > 6 && interrupted > 0, "{killed} killed, {interrupted} interrupted");
}

/// A run that may only reload writes what containerd reads at its start; the restart comes later, with nothing else to do, and fails: what
/// containerd ran with is back, at once or after the run was killed.
#[test]
fn what_was_left_to_be_read_goes_back_with_a_restart_that_fails() {
    let left = || Step::Run {
        say: SECOND,
        mode: 1,
        fates: Vec::new(),
        store: Vec::new(),
        killed: None,
        along: false,
        dead_end: false,
        canary: None,
    };
    let seen = gone_through(&[left(), plain(SECOND, &[Fate::Mute], None)]);
    assert_eq!((seen.applied, seen.rolled_back, seen.interrupted, seen.stuck), (1, 1, 1, 0), "{seen:?}");
    // another pause image in between: what it ran with is still that of the beginning
    let other = Say { pause: Some(2), ..SECOND };
    let seen = gone_through(&[left(), plain(other, &[Fate::Mute, Fate::Mute], None)]);
    assert_eq!((seen.rolled_back, seen.interrupted, seen.stuck), (1, 1, 0), "{seen:?}");
    let (mut killed, mut back) = (0, 0);
    for at in 0..8 {
        let seen = gone_through(&[left(), plain(SECOND, &[Fate::Mute, Fate::Mute], Some(at)), plain(SECOND, &[], None)]);
        (killed, back) = (killed + seen.killed, back + seen.rolled_back);
        assert_eq!(seen.stuck, 0, "{seen:?}");
    }
    assert!(killed > 2 && back > 0, "{killed} killed, {back} went back");
    // once it was read there is nothing of it to go back to
    let seen = gone_through(&[left(), Step::Boot, plain(SECOND, &[Fate::Mute], None)]);
    assert_eq!((seen.rolled_back, seen.stuck), (0, 0), "{seen:?}");
}

/// Two runs that were cut off, with one between them that went back only as far as where it began: the way back leads to where all of
/// it began, never to half of it.
#[test]
fn the_way_back_from_two_runs_that_were_cut_off_is_that_of_the_first() {
    let one = Say { mirrors: 1, pause: None, ca: Some(0), deny: false };
    let other = Say { deny: true, ..one.clone() };
    let first = [plain(one.clone(), &[Fate::Mute], Some(2)), plain(one, &[Fate::Mute, Fate::Serves, Fate::Serves], None)];
    let second = [plain(other.clone(), &[Fate::Mute], Some(6)), plain(other, &[], None)];
    let seen = gone_through(&[first, second].concat());
    assert_eq!((seen.killed, seen.rolled_back, seen.interrupted), (2, 2, 1), "{seen:?}");
}
