//! What happens next, decided without touching anything: the whole order of a run and of its way back stands here.
//!
//! ```text
//! preflight ▶ stage ▶ record ▶ change 0 … ▶ sync ▶ activate 0 … ▶ (turn ▶ prove) 0 … ▶ change (retire) … ▶ sync ▶ pull 0 … ▶ close ▶ clean ▶ finish
//!     └─────────┴────────┴───────┐   └─────────┴───────────┴─────────────┴────────────────────┴─────────┴─────────┴───────┐
//!                                ▼                                                                                        ▼
//!                    forget ▶ clean ▶ finish   undo n … 0 ▶ activate again ▶ (turn ▶ prove) again ▶ pull again ▶ forget ▶ clean ▶ finish
//! ```
//!
//! *activate* runs commands (the trust store's), *turn* reloads or restarts a unit, *prove* waits until its daemon is well, *pull*
//! lets a runtime pull the canary when everything is as it is to be and can still be taken back.
//! On the way back what was turned is turned once more, with the files of before; a daemon that is not well then either leaves
//! the run stuck. Where a daemon would not come up with what was there before, there is no way back once its unit was begun: the
//! run stays where it is, and is stuck. A run that has put nothing in place has nothing to go back to: what it turned stays as it is, and told.
//!
//! Changes are numbered through: first the content-addressed files (which nothing names yet), then what makes them visible,
//! then what goes away. Between these groups the disk is brought up to date, so that a power cut never leaves a file that
//! names one which is not there.

/// How many steps of each kind a plan has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// Content-addressed files.
    pub stage: usize,
    /// What becomes visible.
    pub switch: usize,
    /// Commands.
    pub activate: usize,
    /// Units.
    pub turn: usize,
    /// What goes away.
    pub retire: usize,
    /// Runtimes that pull the canary.
    pub pull: usize,
    /// The first unit whose daemon would not come up with what was there before.
    pub no_return: Option<usize>,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    shape: Shape,
    action: Action,
    /// Changes made and not undone.
    made: usize,
    /// Commands begun.
    activated: usize,
    /// Units begun.
    turned: usize,
    /// Pulls begun.
    pulled: usize,
    /// On the way back.
    back: bool,
    /// Something could not be undone.
    stuck: bool,
    /// A daemon is not well on the way back.
    unwell: bool,
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing has begun.
    Idle,
    /// Look whether everything can be done.
    Preflight,
    /// Write everything that nobody sees.
    Stage,
    /// Write down what is about to happen.
    Record,
    /// Make change number n.
    Change(usize),
    /// Bring the changes made so far to the disk.
    Sync,
    /// Run command number n.
    Activate(usize),
    /// Reload or restart unit number n.
    Turn(usize),
    /// Wait until the daemon of unit number n is well.
    Prove(usize),
    /// Let runtime number n pull the canary.
    Pull(usize),
    /// Write down that it has happened.
    Close,
    /// Take back change number n.
    Undo(usize),
    /// Bring back the ledger that was there before.
    Forget,
    /// Remove everything temporary.
    Clean,
    /// There is nothing more to do.
    Finish(Verdict),
}

/// What came of the last action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was done, or there was nothing to do.
    Done,
    /// It failed; what it had begun by itself it has taken back.
    Failed,
}

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is as planned.
    Applied,
    /// Nothing was changed.
    Refused,
    /// What was changed is as before again.
    RolledBack,
    /// Some of it is not.
    Stuck,
}

impl State {
    /// Before the first action.
    #[must_use]
    pub const fn new(shape: Shape) -> Self {
        Self { shape, action: Action::Idle, made: 0, activated: 0, turned: 0, pulled: 0, back: false, stuck: false, unwell: false }
    }

    /// Whether it is on the way back.
    #[must_use]
    pub const fn is_back(&self) -> bool {
        self.back
    }

    /// Whether what is there stays there, because nothing that works is behind it.
    #[must_use]
    pub const fn stays(&self) -> bool {
        matches!(self.shape.no_return, Some(unit) if self.turned > unit)
    }

    const fn visible(&self) -> usize {
        self.shape.stage + self.shape.switch
    }

    const fn changes(&self) -> usize {
        self.visible() + self.shape.retire
    }

    /// The action after `made` changes, when they are not on the disk yet (`synced`: they are).
    const fn forward(&self, synced: bool) -> Action {
        let at_border = self.made > 0 && (self.made == self.shape.stage || self.made == self.visible() || self.made == self.changes());
        if at_border && !synced {
            Action::Sync
        } else if self.made == self.visible() && self.activated < self.shape.activate {
            Action::Activate(self.activated)
        } else if self.made == self.visible() && self.turned < self.shape.turn {
            Action::Turn(self.turned)
        } else if self.made < self.changes() {
            Action::Change(self.made)
        } else if self.pulled < self.shape.pull {
            Action::Pull(self.pulled)
        } else {
            Action::Close
        }
    }

    const fn verdict(&self) -> Verdict {
        match (self.back, self.stuck || self.unwell) {
            (false, _) => Verdict::Applied,
            (true, true) => Verdict::Stuck,
            (true, false) if self.made == 0 && self.activated == 0 && self.turned == 0 => Verdict::Refused,
            (true, false) => Verdict::RolledBack,
        }
    }
}

/// The next state and action after `event`.
#[must_use]
pub const fn next(state: State, event: Event) -> (State, Action) {
    let mut to = state;
    let failed = matches!(event, Event::Failed);
    to.action = match state.action {
        Action::Idle => Action::Preflight,
        Action::Preflight | Action::Stage if failed => {
            to.back = true;
            Action::Clean
        }
        Action::Preflight => Action::Stage,
        Action::Stage => Action::Record,
        Action::Record if failed => {
            to.back = true;
            Action::Forget
        }
        Action::Change(at) if failed => {
            to.back = true;
            if to.stays() { stay(&mut to) } else { Action::Undo(at) }
        }
        Action::Change(at) => {
            to.made = at + 1;
            to.forward(false)
        }
        Action::Sync | Action::Close if failed => {
            to.back = true;
            back_from(&mut to)
        }
        Action::Record | Action::Sync => to.forward(true),
        Action::Activate(at) if !state.back => {
            to.activated = at + 1;
            if failed {
                to.back = true;
                back_from(&mut to)
            } else {
                to.forward(true)
            }
        }
        Action::Turn(at) if !state.back && !failed => Action::Prove(at),
        Action::Turn(at) | Action::Prove(at) if !state.back => {
            to.turned = at + 1;
            if failed {
                to.back = true;
                // nothing was put in place, so there is nothing that could be taken back
                to.stuck = state.made == 0;
                back_from(&mut to)
            } else {
                to.forward(true)
            }
        }
        Action::Pull(at) if !state.back => {
            to.pulled = at + 1;
            if failed {
                to.back = true;
                // as with a unit: what was only turned cannot be taken back
                to.stuck = state.made == 0;
                back_from(&mut to)
            } else {
                to.forward(true)
            }
        }
        // what was activated is activated again with the files of before, while the ledger still says that something is open;
        // that it fails changes nothing any more
        Action::Activate(at) if at + 1 < state.activated => Action::Activate(at + 1),
        Action::Activate(_) => turn_back(&to),
        Action::Turn(at) if !failed => Action::Prove(at),
        Action::Turn(at) | Action::Prove(at) => {
            to.unwell = state.unwell || failed;
            if at + 1 < state.turned { Action::Turn(at + 1) } else { pull_back(&to) }
        }
        // it is only told whether it is pulled again: the files are as before, which is all that can be done for it
        Action::Pull(at) if at + 1 < state.pulled => Action::Pull(at + 1),
        Action::Pull(_) => end_of_way_back(&to),
        Action::Undo(at) => {
            to.stuck = state.stuck || failed;
            if at == 0 { after_undo(&to) } else { Action::Undo(at - 1) }
        }
        Action::Close | Action::Forget => Action::Clean,
        Action::Clean | Action::Finish(_) => Action::Finish(state.verdict()),
    };
    (to, to.action)
}

/// The ledger has to say what has been done and is not proved.
const fn stay(state: &mut State) -> Action {
    state.stuck = true;
    Action::Clean
}

const fn back_from(state: &mut State) -> Action {
    if state.stays() {
        stay(state)
    } else if state.made == 0 {
        after_undo(state)
    } else {
        Action::Undo(state.made - 1)
    }
}

const fn after_undo(state: &State) -> Action {
    if state.activated > 0 { Action::Activate(0) } else { turn_back(state) }
}

/// Units are turned again only if files were taken back for it.
const fn turn_back(state: &State) -> Action {
    if state.turned > 0 && state.made > 0 { Action::Turn(0) } else { pull_back(state) }
}

const fn pull_back(state: &State) -> Action {
    if state.pulled > 0 && state.made > 0 { Action::Pull(0) } else { end_of_way_back(state) }
}

/// While something is not as before, the ledger has to keep saying so.
const fn end_of_way_back(state: &State) -> Action {
    if state.stuck { Action::Clean } else { Action::Forget }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs with the n-th action failing; gives the actions and the verdict.
    fn run(shape: Shape, fail: &[usize]) -> (Vec<Action>, Verdict) {
        let mut state = State::new(shape);
        let mut event = Event::Done;
        let mut actions = Vec::new();
        loop {
            let (next, action) = next(state, event);
            state = next;
            if let Action::Finish(verdict) = action {
                return (actions, verdict);
            }
            event = if fail.contains(&actions.len()) { Event::Failed } else { Event::Done };
            actions.push(action);
            assert!(actions.len() < 100, "no end: {actions:?}");
        }
    }

    const SHAPE: Shape = Shape { stage: 1, switch: 2, activate: 1, turn: 0, retire: 1, pull: 0, no_return: None };

    #[test]
    fn goes_through_all_phases() {
        use Action::{Activate, Change, Clean, Close, Preflight, Record, Stage, Sync};
        let (actions, verdict) = run(SHAPE, &[]);
        let want = [Preflight, Stage, Record, Change(0), Sync, Change(1), Change(2), Sync, Activate(0), Change(3), Sync, Close, Clean];
        assert_eq!((actions.as_slice(), verdict), (&want[..], Verdict::Applied));
    }

    #[test]
    fn any_one_failure_ends_with_nothing_changed_and_staging_removed() {
        let all = run(SHAPE, &[]).0.len();
        for fail in 0..all - 1 {
            let (actions, verdict) = run(SHAPE, &[fail]);
            let made = actions.iter().take(fail).filter(|action| matches!(action, Action::Change(_))).count();
            let undone = actions.iter().filter(|action| matches!(action, Action::Undo(_))).count();
            assert!(undone >= made, "{fail}: {actions:?}");
            assert_eq!(verdict, if made == 0 { Verdict::Refused } else { Verdict::RolledBack }, "{fail}: {actions:?}");
            assert_eq!(actions.last(), Some(&Action::Clean));
            assert_eq!(fail >= 2, actions.contains(&Action::Forget), "{fail}: {actions:?}");
        }
    }

    #[test]
    fn a_failing_way_back_goes_on_and_keeps_the_ledger_open() {
        let fails_at_second_change = 6;
        let (actions, verdict) = run(SHAPE, &[fails_at_second_change, fails_at_second_change + 1]);
        assert_eq!(verdict, Verdict::Stuck, "{actions:?}");
        assert!(actions.contains(&Action::Undo(0)) && !actions.contains(&Action::Forget), "{actions:?}");
    }

    #[test]
    fn what_was_activated_is_activated_again_on_the_way_back() {
        let (actions, verdict) = run(SHAPE, &[8]);
        assert_eq!(actions[8], Action::Activate(0));
        assert_eq!((actions.iter().filter(|action| **action == Action::Activate(0)).count(), verdict), (2, Verdict::RolledBack));
    }

    const TURNING: Shape = Shape { stage: 0, switch: 1, activate: 1, turn: 2, retire: 1, pull: 0, no_return: None };

    #[test]
    fn each_unit_is_proved_before_the_next_is_turned_and_before_anything_goes() {
        use Action::{Activate, Change, Clean, Close, Preflight, Prove, Record, Stage, Sync, Turn};
        let (actions, verdict) = run(TURNING, &[]);
        let want = [
            [Preflight, Stage, Record, Change(0), Sync, Activate(0)].as_slice(),
            &[Turn(0), Prove(0), Turn(1), Prove(1)],
            &[Change(1), Sync, Close, Clean],
        ];
        assert_eq!((actions, verdict), (want.concat(), Verdict::Applied));
    }

    #[test]
    fn a_unit_that_is_not_well_is_turned_again_after_the_files_are_back() {
        use Action::{Activate, Clean, Forget, Prove, Turn, Undo};
        // at its restart, and at its proof
        for (fail, begun) in [(6, 1), (7, 1), (8, 2), (9, 2)] {
            let (actions, verdict) = run(TURNING, &[fail]);
            let again: Vec<Action> = (0..begun).flat_map(|at| [Turn(at), Prove(at)]).collect();
            let want = [&[Undo(0), Activate(0)], &again[..], &[Forget, Clean]].concat();
            assert_eq!((&actions[fail + 1..], verdict), (&want[..], Verdict::RolledBack), "{fail}");
        }
        // something fails after all units were proved: they have read what goes
        let (actions, verdict) = run(TURNING, &[10]);
        assert_eq!(actions.iter().filter(|action| matches!(action, Turn(_))).count(), 4, "{actions:?}");
        assert_eq!(verdict, Verdict::RolledBack);
    }

    #[test]
    fn a_unit_that_is_not_well_on_the_way_back_is_told_and_the_files_are_back() {
        use Action::{Forget, Prove, Turn, Undo};
        for second in [10, 11] {
            let (actions, verdict) = run(TURNING, &[7, second]);
            assert_eq!((actions[7], actions[10], verdict), (Prove(0), Turn(0), Verdict::Stuck), "{actions:?}");
            assert!(actions.contains(&Undo(0)) && actions.contains(&Forget), "{actions:?}");
        }
        // and the others are turned back all the same
        let (actions, verdict) = run(TURNING, &[9, 12, 14]);
        assert_eq!((actions.last(), actions[14], verdict), (Some(&Action::Clean), Prove(1), Verdict::Stuck), "{actions:?}");
    }

    #[test]
    fn without_files_to_take_back_a_unit_is_turned_once_and_the_ledger_stays_open() {
        let shape = Shape { turn: 1, ..Shape::default() };
        for fail in [3, 4] {
            let (actions, verdict) = run(shape, &[fail]);
            assert_eq!(actions.iter().filter(|action| matches!(action, Action::Turn(_))).count(), 1, "{actions:?}");
            assert!(!actions.contains(&Action::Forget), "{actions:?}");
            assert_eq!(verdict, Verdict::Stuck);
        }
    }

    const PULLING: Shape = Shape { pull: 2, ..TURNING };

    #[test]
    fn the_canary_is_pulled_when_all_is_done_and_before_it_is_written_down() {
        use Action::{Change, Clean, Close, Pull, Sync};
        let (actions, verdict) = run(PULLING, &[]);
        assert_eq!((&actions[10..], verdict), (&[Change(1), Sync, Pull(0), Pull(1), Close, Clean][..], Verdict::Applied));
        // where nothing is turned, too, and where nothing but a unit is
        let (actions, _) = run(Shape { switch: 1, pull: 1, ..Shape::default() }, &[]);
        assert_eq!(actions[3..], [Change(0), Sync, Pull(0), Close, Clean]);
        let (actions, _) = run(Shape { turn: 1, pull: 1, ..Shape::default() }, &[]);
        assert_eq!(actions[3..], [Action::Turn(0), Action::Prove(0), Pull(0), Close, Clean]);
    }

    #[test]
    fn a_canary_that_is_not_pulled_leads_all_the_way_back() {
        use Action::{Activate, Clean, Forget, Prove, Pull, Turn, Undo};
        let again = [Undo(1), Undo(0), Activate(0), Turn(0), Prove(0), Turn(1), Prove(1)];
        for (fail, pulls) in [(12, &[Pull(0)][..]), (13, &[Pull(0), Pull(1)])] {
            let (actions, verdict) = run(PULLING, &[fail]);
            assert_eq!(actions[fail], pulls[pulls.len() - 1]);
            let want = [&again[..], pulls, &[Forget, Clean]].concat();
            assert_eq!((&actions[fail + 1..], verdict), (&want[..], Verdict::RolledBack), "{fail}");
            // that it is not pulled with the files of before either changes nothing; a daemon that is not well does
            let back = fail + 1 + again.len();
            assert_eq!(run(PULLING, &[fail, back]), (actions.clone(), Verdict::RolledBack));
            assert_eq!(run(PULLING, &[fail, back - 1]), (actions, Verdict::Stuck));
        }
    }

    #[test]
    fn without_files_to_take_back_the_canary_is_told() {
        let (actions, verdict) = run(Shape { turn: 1, pull: 1, ..Shape::default() }, &[5]);
        assert_eq!((&actions[5..], verdict), (&[Action::Pull(0), Action::Clean][..], Verdict::Stuck));
    }

    #[test]
    fn with_nothing_that_works_behind_it_a_run_stays_where_it_is() {
        use Action::{Clean, Forget, Turn, Undo};
        let shape = Shape { no_return: Some(1), ..PULLING };
        let all = run(shape, &[]).0;
        assert_eq!(all, run(PULLING, &[]).0);
        let begun = all.iter().position(|action| *action == Turn(1)).unwrap();
        for fail in 2..all.len() - 1 {
            let (actions, verdict) = run(shape, &[fail]);
            if fail < begun {
                // nobody has read it yet: what was there comes back, whatever it is
                assert_eq!((&actions, verdict), (&run(PULLING, &[fail]).0, run(PULLING, &[fail]).1), "{fail}");
            } else {
                assert_eq!((&actions[fail + 1..], verdict), (&[Clean][..], Verdict::Stuck), "{fail}");
                assert!(!actions.iter().any(|action| matches!(action, Undo(_) | Forget)), "{fail}");
            }
        }
    }

    /// Whatever fails, and however often: an end is reached, nothing is changed after the first failure, and whoever was turned
    /// is turned and proved again or the run says that it is stuck.
    #[test]
    fn every_order_of_failures_ends_well_or_says_so() {
        let mut pending = vec![Vec::new()];
        let mut seen = 0;
        while let Some(fails) = pending.pop() {
            let (actions, verdict) = run(PULLING, &fails);
            seen += 1;
            if let Some(first) = fails.first() {
                assert!(!actions[first + 1..].iter().any(|action| matches!(action, Action::Change(_) | Action::Close)), "{fails:?}");
                assert_ne!(verdict, Verdict::Applied);
                let begun = actions[..=*first].iter().filter(|action| matches!(action, Action::Turn(_))).count();
                let again = actions[first + 1..].iter().filter(|action| matches!(action, Action::Turn(_))).count();
                assert_eq!(begun, again, "{fails:?} {actions:?}");
            }
            let after = fails.last().map_or(0, |last| last + 1);
            if fails.len() < 3 {
                // that something temporary cannot be removed changes nothing
                let matters = |next: &usize| actions[*next] != Action::Clean;
                pending.extend((after..actions.len()).filter(matters).map(|next| [&fails[..], &[next]].concat()));
            }
        }
        assert!(seen > 150, "{seen}");
    }

    #[test]
    fn no_steps_only_close() {
        let (actions, _) = run(Shape::default(), &[]);
        assert_eq!(actions, [Action::Preflight, Action::Stage, Action::Record, Action::Close, Action::Clean]);
    }
}
