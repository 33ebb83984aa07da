//! What happens next, decided without touching anything: the whole order of a run and of its way back stands here.
//!
//! ```text
//! preflight ▶ stage ▶ record ▶ change 0 … ▶ sync ▶ activate 0 … ▶ change (retire) … ▶ sync ▶ close ▶ clean ▶ finish
//!     └─────────┴────────┴───────┐   └─────────┴───────────┴──────────────────┴─────────┴──────┐
//!                                ▼                                                             ▼
//!                    forget ▶ clean ▶ finish                        undo n … 0 ▶ activate again ▶ forget ▶ clean ▶ finish
//! ```
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
    /// Commands and units.
    pub activate: usize,
    /// What goes away.
    pub retire: usize,
}

/// Where a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    shape: Shape,
    action: Action,
    /// Changes made and not undone.
    made: usize,
    /// Activations begun.
    activated: usize,
    /// On the way back.
    back: bool,
    /// Something could not be undone.
    stuck: bool,
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
    /// Carry out activation number n.
    Activate(usize),
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
        Self { shape, action: Action::Idle, made: 0, activated: 0, back: false, stuck: false }
    }

    /// Whether it is on the way back.
    #[must_use]
    pub const fn is_back(&self) -> bool {
        self.back
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
        } else if self.made < self.changes() {
            Action::Change(self.made)
        } else {
            Action::Close
        }
    }

    const fn verdict(&self) -> Verdict {
        match (self.back, self.stuck) {
            (false, _) => Verdict::Applied,
            (true, true) => Verdict::Stuck,
            (true, false) if self.made == 0 && self.activated == 0 => Verdict::Refused,
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
            Action::Undo(at)
        }
        Action::Change(at) => {
            to.made = at + 1;
            to.forward(false)
        }
        Action::Sync | Action::Close if failed => {
            to.back = true;
            back_from(&to)
        }
        Action::Record | Action::Sync => to.forward(true),
        Action::Activate(at) if !state.back => {
            to.activated = at + 1;
            if failed {
                to.back = true;
                back_from(&to)
            } else {
                to.forward(true)
            }
        }
        // what was activated is activated again with the files of before, while the ledger still says that something is open;
        // that it fails changes nothing any more
        Action::Activate(at) if at + 1 < state.activated => Action::Activate(at + 1),
        Action::Activate(_) if !state.stuck => Action::Forget,
        Action::Undo(at) => {
            to.stuck = state.stuck || failed;
            if at == 0 { after_undo(&to) } else { Action::Undo(at - 1) }
        }
        Action::Activate(_) | Action::Close | Action::Forget => Action::Clean,
        Action::Clean | Action::Finish(_) => Action::Finish(state.verdict()),
    };
    (to, to.action)
}

const fn back_from(state: &State) -> Action {
    if state.made == 0 { after_undo(state) } else { Action::Undo(state.made - 1) }
}

/// While something is not as before, the ledger has to keep saying so.
const fn after_undo(state: &State) -> Action {
    if state.activated > 0 {
        Action::Activate(0)
    } else if state.stuck {
        Action::Clean
    } else {
        Action::Forget
    }
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

    const SHAPE: Shape = Shape { stage: 1, switch: 2, activate: 1, retire: 1 };

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

    #[test]
    fn no_steps_only_close() {
        let (actions, _) = run(Shape::default(), &[]);
        assert_eq!(actions, [Action::Preflight, Action::Stage, Action::Record, Action::Close, Action::Clean]);
    }
}
