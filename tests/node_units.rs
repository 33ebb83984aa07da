//! What becomes of units in a run: in which order they are turned, what is put back when a daemon is not well, and what the
//! ledger says while all of that goes on. The daemon stands in for one that reads a file when it starts.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

mod node_support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use node_support::*;
use nodeprep::apply::health::{Answer, Daemon, Look, Shim};
use nodeprep::apply::{self, ApplyError, Door, End, GuardError, Outcome, Remark, UnitError};
use nodeprep::desired::Target;
use nodeprep::ledger::{Ledger, Prior};
use nodeprep::model::cri::CriError;
use nodeprep::model::digest::Digest;
use nodeprep::model::time::Time;
use nodeprep::model::tree::Meta;
use nodeprep::model::unit::Active;
use nodeprep::node::command::{CommandError, Output};
use nodeprep::node::error::Class;
use nodeprep::node::root::Root;
use nodeprep::plan::canary::Canary;
use nodeprep::plan::turn::{Proof, Turn, Turning};
use nodeprep::plan::{Act, Activation, Expect, How, Plan};

const UNIT: &str = "daemon.service";
const FILE: &str = "/etc/daemon.conf";

/// What becomes of a daemon that starts.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Serves,
    /// It runs, and does not serve.
    Mute,
    /// It does not start.
    Dies,
}

/// A daemon that reads its file when it starts.
struct StandIn {
    file: PathBuf,
    /// Whether it was alive before, and how it fared.
    now: Fate,
    pid: u32,
    /// By the file's content and how often it was started.
    fate: fn(&str, u32) -> Fate,
    starts: u32,
    /// What was done to it, with what it read.
    log: Vec<String>,
    /// The call at which this process is killed.
    killed_at: Option<usize>,
    calls: usize,
    shims: Vec<u32>,
    /// Those that are there after a start.
    survivors: Vec<u32>,
    /// How often it is looked at until somebody stops it.
    looks: Option<usize>,
    /// Whether somebody can be set to watch over a run.
    guarded: bool,
    /// What the file held when somebody was.
    guards: Vec<String>,
    /// Whether it pulls, by the file's content and how often it was asked.
    pulls: fn(&str, u32) -> bool,
    asked: u32,
}

impl StandIn {
    fn new(root: &Path, now: Fate, fate: fn(&str, u32) -> Fate) -> Self {
        let file = root.join(FILE.trim_start_matches('/'));
        Self {
            file,
            now,
            pid: 1,
            fate,
            starts: 0,
            log: Vec::new(),
            killed_at: None,
            calls: 0,
            shims: vec![7, 8],
            survivors: vec![7, 8],
            looks: None,
            guarded: true,
            guards: Vec::new(),
            pulls: |_, _| true,
            asked: 0,
        }
    }

    /// One that is always well.
    fn pulling(root: &Path, pulls: fn(&str, u32) -> bool) -> Self {
        Self { pulls, ..Self::new(root, Fate::Serves, |_, _| Fate::Serves) }
    }

    fn content(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    fn call(&mut self) {
        assert_ne!(self.killed_at, Some(self.calls), "killed");
        self.calls += 1;
    }
}

impl Door for StandIn {
    fn guard(&mut self, _: &Plan) -> Result<(), GuardError> {
        self.guards.push(self.content());
        if self.guarded { Ok(()) } else { Err(GuardError::Refused { said: "no bus".to_owned() }) }
    }

    fn run(&mut self, argv: &[String]) -> Result<Output, CommandError> {
        self.call();
        self.log.push(argv.join(" "));
        Ok(Output { status: 0, stdout: String::new(), stderr: String::new() })
    }

    fn look(&mut self, _: &Turn) -> Look {
        self.call();
        let answer = if self.now == Fate::Serves { Answer::Ready } else { Answer::NotServed("no CRI".to_owned()) };
        let process = Daemon { pid: self.pid, started: Time(i64::from(self.pid)), config: None };
        let stopped = self.looks == Some(0);
        self.looks = self.looks.map(|looks| looks.saturating_sub(1));
        Look {
            active: match self.now {
                _ if stopped => Active::Inactive,
                Fate::Dies => Active::Failed,
                Fate::Serves | Fate::Mute => Active::Active,
            },
            process: (self.now != Fate::Dies && !stopped).then_some(process),
            answer,
            shims: self.shims.iter().map(|pid| Shim { pid: *pid, ticks: 1 }).collect(),
            ..Look::default()
        }
    }

    fn turn(&mut self, turn: &Turn, back: bool) -> Result<(), UnitError> {
        self.call();
        let content = self.content();
        self.log.push(format!("{}{} with {content}", if back { "back: " } else { "" }, turn.turning.word()));
        self.starts += 1;
        self.pid += 1;
        self.shims.clone_from(&self.survivors);
        self.now = (self.fate)(&content, self.starts);
        if self.now == Fate::Dies { Err(UnitError::Job { said: "the control process exited".to_owned() }) } else { Ok(()) }
    }

    fn watch(&mut self, turn: &Turn, mut enough: impl FnMut(&Look, Duration) -> bool) -> Look {
        let look = self.look(turn);
        enough(&look, Duration::from_secs(120));
        look
    }

    fn pull(&mut self, canary: &Canary) -> Result<(), CriError> {
        self.call();
        let content = self.content();
        self.log.push(format!("{} pulls with {content}", canary.runtime));
        self.asked += 1;
        let said = || CriError::Said { call: "PullImage", code: 5, message: format!("there is none with {content}") };
        (self.pulls)(&content, self.asked).then_some(()).ok_or_else(said)
    }
}

fn need() -> Activation {
    Activation { who: Target::Crio, how: How::Restart(UNIT.into()), because: vec!["it reads its file when it starts".to_owned()] }
}

/// A file that changes, and a restart for it.
fn plan() -> Plan {
    let mut plan = Plan::default();
    plan.switch.push(put_file(&path(FILE), Expect::File(Digest::of(b"old")), "new", Meta::new(0o644), false));
    plan.owned.insert(path(FILE), owned(Prior::Absent).into());
    plan.activate.push(need());
    plan.turns.push(turn(Turning::Restart));
    plan
}

fn turn(turning: Turning) -> Turn {
    Turn { unit: UNIT.to_owned(), turning, serves: vec![need()], along: Vec::new(), signal: None, proof: Proof::default() }
}

fn execute(dir: &Path, plan: &Plan, door: &mut impl Door) -> Outcome {
    let root = Root::open(dir).unwrap();
    let ledger = ledger(dir).unwrap_or_else(|| Ledger::new([7; 32]));
    apply::execute(&root, &path(STATE), plan, ledger, door, &mut |_| {})
}

fn ledger(dir: &Path) -> Option<Ledger> {
    apply::load_ledger(&Root::open(dir).unwrap(), &path(STATE)).unwrap()
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let dir = scratch();
    let root = root_of(&dir, "root");
    put(&root, FILE, "old");
    (dir, root)
}

/// Content of the file, whether the ledger is open, what is due by it.
fn left(root: &Path) -> (String, bool, usize) {
    let ledger = ledger(root);
    let open = ledger.as_ref().is_some_and(|ledger| ledger.open.is_some());
    (get(root, FILE).unwrap(), open, ledger.map_or(0, |ledger| ledger.due.len()))
}

#[test]
fn a_unit_is_turned_once_and_nothing_is_due_for_it() {
    let (_dir, root) = fresh();
    let mut door = StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves);
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert_eq!((outcome.turned.as_slice(), outcome.due.len(), outcome.remarks.len()), ([UNIT.to_owned()].as_slice(), 0, 0));
    assert_eq!((&door.log[..], &door.guards[..]), (&["restart with new".to_owned()][..], &["old".to_owned()][..]));
    assert_eq!(left(&root), ("new".to_owned(), false, 0));
}

#[test]
fn without_a_guardian_nothing_is_changed_for_a_unit() {
    let (_dir, root) = fresh();
    let mut door = StandIn { guarded: false, ..StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves) };
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(&outcome.end, End::Refused(why @ ApplyError::Unguarded(_)) if why.help().is_some()), "{:?}", outcome.end);
    assert_eq!((outcome.class(), door.log.len(), left(&root).0.as_str()), (Some(Class::Node), 0, "old"));
    assert_eq!(door.guards, ["old"]);
    assert!(ledger(&root).is_none());
    // what turns nothing needs none
    let mut files = plan();
    files.turns.clear();
    files.activate.clear();
    assert!(matches!(execute(&root, &files, &mut door).end, End::Applied));
    assert_eq!(door.guards.len(), 1);
}

/// On the way back from another run a unit ran before that one, also where it has failed since: it is started, and has to be well.
#[test]
fn what_has_failed_is_started_on_the_way_back_from_another_run() {
    for (fate, well) in
        [((|text, _| if text == "new" { Fate::Serves } else { Fate::Mute }) as fn(&str, u32) -> Fate, true), (|_, _| Fate::Mute, false)]
    {
        let (_dir, root) = fresh();
        let mut door = StandIn::new(&root, Fate::Dies, fate);
        let outcome = execute(&root, &Plan { returns: true, ..plan() }, &mut door);
        assert_eq!(door.log[0], "back: restart with new");
        assert_eq!(matches!(outcome.end, End::Applied), well, "{:?}", outcome.end);
        assert_eq!(matches!(outcome.end, End::RollbackFailed { .. }), !well, "{:?}", outcome.end);
    }
}

/// Killed before the proof, and killed once more in the run that was to prove it: what was before the first is still known, and since when
/// the unit has to have started.
#[test]
fn killed_twice_it_can_still_be_taken_back() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let (_dir, root) = fresh();
    let mut first = plan();
    first.attempt.units.insert(UNIT.to_owned(), "1.6.20".to_owned());
    let killed = |plan: &Plan, at: usize| {
        let mut door = StandIn { killed_at: Some(at), ..StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves) };
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| execute(&root, plan, &mut door)));
        assert!(result.is_err(), "it was not killed");
        ledger(&root).unwrap().open.unwrap()
    };
    let open = killed(&first, 3);
    assert_eq!(open.attempt.as_ref().map(|attempt| &attempt.units), Some(&first.attempt.units));
    assert!(matches!(open.before.get(&path(FILE)), Some(Prior::File { blob, .. }) if *blob == Digest::of(b"old")), "{open:?}");
    assert_eq!((open.was.as_ref().map(|was| was.spec.is_none()), get(&root, FILE).unwrap().as_str()), (Some(true), "new"));
    let mut second = Plan { owned: first.owned.clone(), attempt: first.attempt.clone(), ..Plan::default() };
    second.turns.push(turn(Turning::Prove));
    let again = killed(&second, 2);
    assert_eq!((&again.before, &again.after, again.began), (&open.before, &open.after, open.began));
    assert_eq!((&again.was, &again.attempt), (&open.was, &open.attempt));
    std::panic::set_hook(hook);
}

#[test]
fn a_daemon_that_is_not_well_gets_its_files_back_and_is_turned_again() {
    for (fate, unit) in [
        ((|text, _| if text == "new" { Fate::Dies } else { Fate::Serves }) as fn(&str, u32) -> Fate, true),
        (|text, _| if text == "new" { Fate::Mute } else { Fate::Serves }, false),
    ] {
        let (_dir, root) = fresh();
        let mut door = StandIn::new(&root, Fate::Serves, fate);
        let outcome = execute(&root, &plan(), &mut door);
        let End::RolledBack(why) = &outcome.end else { panic!("{:?}", outcome.end) };
        assert_eq!(matches!(why, ApplyError::Unit { .. }), unit, "{why}");
        assert_eq!(matches!(why, ApplyError::Unwell { .. }), !unit, "{why}");
        assert_eq!((outcome.class(), outcome.turned.len(), outcome.due.len()), (Some(Class::RolledBack), 0, 0));
        assert_eq!(door.log, ["restart with new", "back: restart with old"]);
        assert!(door.now == Fate::Serves && ledger(&root).is_none());
        assert_eq!(left(&root), ("old".to_owned(), false, 0));
    }
}

#[test]
fn what_is_not_well_on_the_way_back_either_is_told_with_its_unit() {
    for (fate, due) in [
        ((|_, _| Fate::Dies) as fn(&str, u32) -> Fate, 1),
        (|_, _| Fate::Mute, 0),
        (|_, starts| if starts == 1 { Fate::Mute } else { Fate::Dies }, 1),
    ] {
        let (_dir, root) = fresh();
        let mut door = StandIn::new(&root, Fate::Serves, fate);
        let outcome = execute(&root, &plan(), &mut door);
        let End::RollbackFailed { by_hand, unwell, .. } = &outcome.end else { panic!("{:?}", outcome.end) };
        assert_eq!((by_hand.len(), unwell.len(), unwell[0].0.as_str()), (0, 1, UNIT), "{unwell:?}");
        assert_eq!(outcome.class(), Some(Class::NotRolledBack));
        // the files are back all the same, and nothing is changed; a job that failed may have left a process that has not read them
        assert_eq!((left(&root), outcome.changed.len()), (("old".to_owned(), false, due), 0));
    }
}

#[test]
fn what_was_broken_before_is_told_and_not_blamed() {
    let (_dir, root) = fresh();
    let mut door = StandIn::new(&root, Fate::Mute, |_, _| Fate::Mute);
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert!(matches!(&outcome.remarks[..], [Remark::StillUnwell { unit, .. }] if unit == UNIT), "{:?}", outcome.remarks);
    assert_eq!(left(&root), ("new".to_owned(), false, 0));
    // but dead is worse than mute
    let (_dir, root) = fresh();
    let mut door = StandIn::new(&root, Fate::Mute, |text, _| if text == "new" { Fate::Dies } else { Fate::Mute });
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(outcome.end, End::RolledBack(_)), "{:?}", outcome.end);
    assert_eq!(left(&root), ("old".to_owned(), false, 0));
}

#[test]
fn shims_that_are_gone_after_a_restart_are_told() {
    let (_dir, root) = fresh();
    let mut door = StandIn { survivors: vec![8, 9], ..StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves) };
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(outcome.end, End::Applied));
    assert_eq!(outcome.remarks, [Remark::ShimsGone { unit: UNIT.to_owned(), count: 1 }]);
}

#[test]
fn what_is_stopped_meanwhile_stays_so_and_nothing_is_put_back_for_it() {
    let (_dir, root) = fresh();
    let mut door = StandIn { looks: Some(1), ..StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves) };
    let outcome = execute(&root, &plan(), &mut door);
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert_eq!(outcome.remarks, [Remark::Stopped { unit: UNIT.to_owned() }]);
    assert!(door.log.is_empty(), "{:?}", door.log);
    assert_eq!(left(&root), ("new".to_owned(), false, 0));
}

/// A run without changes that finds a restart due: there is nothing to go back to, and the ledger goes on saying so.
#[test]
fn without_changes_of_its_own_a_run_goes_not_back() {
    let (_dir, root) = fresh();
    let mut only = plan();
    only.switch.clear();
    only.owned.clear();
    let mut door = StandIn::new(&root, Fate::Serves, |_, _| Fate::Mute);
    let outcome = execute(&root, &only, &mut door);
    assert!(matches!(&outcome.end, End::RollbackFailed { unwell, .. } if unwell.len() == 1), "{:?}", outcome.end);
    assert_eq!((door.log.len(), left(&root)), (1, ("old".to_owned(), true, 0)));
    // proved well later on, it is settled
    let mut proof = Plan::default();
    proof.turns.push(turn(Turning::Prove));
    let mut door = StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves);
    let outcome = execute(&root, &proof, &mut door);
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert_eq!((door.log.len(), left(&root)), (0, ("old".to_owned(), false, 0)));
}

/// Killed at each call of the door: the ledger stays open with what is still to be done until a run has proved it.
#[test]
fn killed_at_any_moment_the_activation_stays_known() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let calls = 4;
    for at in 0..=calls {
        let (_dir, root) = fresh();
        let mut door = StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves);
        door.killed_at = Some(at);
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| execute(&root, &plan(), &mut door)));
        // before the first byte; before the restart; while it goes on; before it is proved
        let (content, open, _) = left(&root);
        match at {
            0 => assert_eq!((ended.is_err(), content.as_str(), open), (true, "old", false)),
            4 => assert_eq!((ended.is_err(), content.as_str(), open), (false, "new", false)),
            _ => {
                assert_eq!((ended.is_err(), content.as_str(), open), (true, "new", true), "{at}");
                assert_eq!(ledger(&root).unwrap().open.unwrap().activations, [need()], "{at}");
            }
        }
    }
    std::panic::set_hook(hook);
}

fn canary(promised: bool) -> Canary {
    Canary { runtime: "daemon".to_owned(), socket: path("/run/daemon.sock"), image: "r.example/a:1".to_owned(), promised }
}

/// The plan with a canary; with or without a restart.
fn pulling(turned: bool, promised: bool) -> Plan {
    let mut plan = plan();
    if !turned {
        plan.activate.clear();
        plan.turns.clear();
    }
    plan.canaries.push(canary(promised));
    plan
}

const BEFORE: &str = "daemon pulls with old";
const AFTER: &str = "daemon pulls with new";

#[test]
fn a_canary_is_pulled_before_the_first_byte_and_when_all_is_done() {
    for (turned, log) in [(true, &[BEFORE, "restart with new", AFTER][..]), (false, &[BEFORE, AFTER])] {
        let (_dir, root) = fresh();
        let mut door = StandIn::pulling(&root, |_, _| true);
        let outcome = execute(&root, &pulling(turned, false), &mut door);
        assert!(matches!(outcome.end, End::Applied) && outcome.remarks.is_empty(), "{:?}", outcome.end);
        assert_eq!(door.log, log);
        assert_eq!(left(&root), ("new".to_owned(), false, 0));
    }
}

/// What goes is gone when it is pulled: the last file of a registry may be what made it work.
#[test]
fn a_canary_that_needs_what_goes_brings_it_back() {
    let (_dir, root) = fresh();
    let mut plan = Plan::default();
    plan.retire.push(step(path(FILE), Expect::File(Digest::of(b"old")), Act::Remove));
    plan.canaries.push(canary(false));
    let mut door = StandIn::pulling(&root, |content, _| content == "old");
    let outcome = execute(&root, &plan, &mut door);
    assert!(matches!(outcome.end, End::RolledBack(ApplyError::Canary { pulled: true, .. })), "{:?}", outcome.end);
    assert_eq!(door.log, [BEFORE, "daemon pulls with ", BEFORE]);
    assert_eq!(left(&root), ("old".to_owned(), false, 0));
}

#[test]
fn a_canary_that_was_pulled_before_and_is_not_afterwards_brings_everything_back() {
    let with_turn = &[BEFORE, "restart with new", AFTER, "back: restart with old", BEFORE][..];
    for (turned, log) in [(true, with_turn), (false, &[BEFORE, AFTER, BEFORE])] {
        let (_dir, root) = fresh();
        let mut door = StandIn::pulling(&root, |content, _| content == "old");
        let outcome = execute(&root, &pulling(turned, false), &mut door);
        let End::RolledBack(why) = &outcome.end else { panic!("{:?}", outcome.end) };
        let said = "daemon cannot pull r.example/a:1 any more, which it pulled right before: PullImage: there is none with new (not found)";
        assert_eq!((why.to_string().as_str(), outcome.class()), (said, Some(Class::RolledBack)));
        assert_eq!((door.log.as_slice(), outcome.remarks.len()), (&log.iter().map(ToString::to_string).collect::<Vec<_>>()[..], 0));
        assert_eq!(left(&root), ("old".to_owned(), false, 0));
        assert!(ledger(&root).is_none());
    }
}

/// The registry itself is gone meanwhile: the files are as before, and that it was not their fault is told.
#[test]
fn a_canary_that_is_lost_with_the_files_of_before_too_is_told() {
    let (_dir, root) = fresh();
    let mut door = StandIn::pulling(&root, |_, asked| asked == 1);
    let outcome = execute(&root, &pulling(true, false), &mut door);
    assert!(matches!(outcome.end, End::RolledBack(ApplyError::Canary { .. })), "{:?}", outcome.end);
    assert!(matches!(&outcome.remarks[..], [Remark::CanaryLost { image, .. }] if image == "r.example/a:1"), "{:?}", outcome.remarks);
    assert_eq!(left(&root), ("old".to_owned(), false, 0));
}

#[test]
fn a_canary_that_failed_before_is_told_and_not_blamed_unless_it_was_promised() {
    let (_dir, root) = fresh();
    let mut door = StandIn::pulling(&root, |_, _| false);
    let outcome = execute(&root, &pulling(true, false), &mut door);
    assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
    assert!(
        matches!(&outcome.remarks[..], [Remark::CanaryFails { why, earlier, .. }] if why.contains("with new") && earlier.contains("with old")),
        "{:?}",
        outcome.remarks
    );
    assert_eq!(left(&root), ("new".to_owned(), false, 0));
    // an endpoint has shown it: that the runtime does not get it is the change's fault; the way back is not asked, since it never was
    let (_dir, root) = fresh();
    let mut door = StandIn::pulling(&root, |_, _| false);
    let outcome = execute(&root, &pulling(true, true), &mut door);
    assert!(matches!(outcome.end, End::RolledBack(ApplyError::Canary { pulled: false, .. })), "{:?}", outcome.end);
    assert_eq!(door.log, [BEFORE, "restart with new", AFTER, "back: restart with old"]);
    assert_eq!(left(&root), ("old".to_owned(), false, 0));
    // what comes to work is nobody's business
    let (_dir, root) = fresh();
    let outcome = execute(&root, &pulling(true, false), &mut StandIn::pulling(&root, |content, _| content == "new"));
    assert!(matches!(outcome.end, End::Applied) && outcome.remarks.is_empty(), "{:?}", outcome.end);
}

/// A daemon that is not well is the reason, and not what it does not pull.
#[test]
fn a_canary_is_not_asked_of_who_is_not_well() {
    let (_dir, root) = fresh();
    let mut door =
        StandIn { fate: |text, _| if text == "new" { Fate::Mute } else { Fate::Serves }, ..StandIn::pulling(&root, |_, _| true) };
    let outcome = execute(&root, &pulling(true, false), &mut door);
    assert!(matches!(outcome.end, End::RolledBack(ApplyError::Unwell { .. })), "{:?}", outcome.end);
    assert_eq!(door.log, [BEFORE, "restart with new", "back: restart with old"]);
}

/// A restart that an earlier run left: nothing of this run can be put back, and that it was the restart is told.
#[test]
fn without_changes_of_its_own_a_canary_is_told() {
    let (_dir, root) = fresh();
    let mut only = pulling(true, false);
    only.switch.clear();
    only.owned.clear();
    let mut door = StandIn::pulling(&root, |_, asked| asked == 1);
    let outcome = execute(&root, &only, &mut door);
    assert!(matches!(&outcome.end, End::RollbackFailed { why: ApplyError::Canary { .. }, .. }), "{:?}", outcome.end);
    assert_eq!((door.log.len(), outcome.class()), (3, Some(Class::NotRolledBack)));
    // and a run that does nothing asks nobody
    let (_dir, root) = fresh();
    let nothing = Plan { canaries: vec![canary(false)], ..Plan::default() };
    let mut door = StandIn::pulling(&root, |_, _| false);
    assert!(matches!(execute(&root, &nothing, &mut door).end, End::Unchanged) && door.log.is_empty());
}

/// Behind it is nothing that works: what was changed stays, and the ledger says what is not proved.
#[test]
fn what_never_worked_is_not_put_back() {
    for fate in [(|_, _| Fate::Dies) as fn(&str, u32) -> Fate, |_, _| Fate::Mute] {
        let (_dir, root) = fresh();
        let plan = Plan { dead_ends: [(UNIT.to_owned(), "it would not come up".to_owned())].into(), ..plan() };
        let mut door = StandIn::new(&root, Fate::Serves, fate);
        let outcome = execute(&root, &plan, &mut door);
        let End::Stayed { unwell, dead_ends, .. } = &outcome.end else { panic!("{:?}", outcome.end) };
        assert_eq!((unwell.len(), dead_ends.len(), outcome.class()), (1, 1, Some(Class::NotRolledBack)));
        assert_eq!((door.log.as_slice(), &outcome.changed[..]), (&["restart with new".to_owned()][..], &[path(FILE)][..]));
        assert_eq!(left(&root), ("new".to_owned(), true, 0));
        // mended by hand, the next run proves it
        let mut proof = Plan { owned: plan.owned.clone(), ..Plan::default() };
        proof.turns.push(turn(Turning::Prove));
        let outcome = execute(&root, &proof, &mut StandIn::new(&root, Fate::Serves, |_, _| Fate::Serves));
        assert!(matches!(outcome.end, End::Applied), "{:?}", outcome.end);
        assert_eq!(left(&root), ("new".to_owned(), false, 0));
    }
    // nobody has read it yet: it is put back, whatever it is
    let (_dir, root) = fresh();
    let mut plan = Plan { dead_ends: [("other.service".to_owned(), "it would not come up".to_owned())].into(), ..plan() };
    plan.turns.push(Turn { unit: "other.service".to_owned(), ..turn(Turning::Restart) });
    let mut door = StandIn::new(&root, Fate::Serves, |text, _| if text == "new" { Fate::Dies } else { Fate::Serves });
    let outcome = execute(&root, &plan, &mut door);
    assert!(matches!(outcome.end, End::RolledBack(_)), "{:?}", outcome.end);
    assert_eq!(left(&root), ("old".to_owned(), false, 0));
}
