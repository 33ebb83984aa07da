//! What it means that a daemon is well: judged from what was seen of it, without touching anything.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::unit::Active;
use crate::plan::turn::{Turn, Turning};

/// How often systemd starts a daemon again before it is given up.
const MOST_RESTARTS: u32 = 3;
/// How long a daemon that runs may go without the CRI: it is offered before the unit counts as active.
const WITHOUT_CRI: Duration = Duration::from_secs(3);

/// What can be seen of the daemon of a unit at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// What the unit is doing.
    pub active: Active,
    /// Its main process.
    pub process: Option<Daemon>,
    /// How often it was started again by itself since somebody started it.
    pub restarts: u32,
    /// What it answers.
    pub answer: Answer,
    /// Files that it reads at its start and that are not as they were left.
    pub changed: Vec<NodePath>,
    /// Shims of containers on the node.
    pub shims: BTreeSet<Shim>,
}

/// A daemon's process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// Its number.
    pub pid: u32,
    /// When it started.
    pub started: Time,
    /// The configuration file that it was started with, where that can be told.
    pub config: Option<NodePath>,
}

/// A process between a container and containerd: what a restart must not end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shim {
    /// Its number.
    pub pid: u32,
    /// When it started, in ticks since the boot: numbers are used again.
    pub ticks: i64,
}

/// What a runtime answers when it is asked for its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Answer {
    /// It has no CRI that could be asked.
    #[default]
    Unasked,
    /// `RuntimeReady`.
    Ready,
    /// It answers, and is not ready, for this reason.
    NotReady(String),
    /// It runs without the CRI, in its own words.
    NotServed(String),
    /// No answer, for this reason.
    Silent(String),
}

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// As it should be.
    Well,
    /// Not yet, for this reason.
    Unwell(String),
    /// It will not become well by waiting.
    Hopeless(String),
}

/// How the daemon of `turn` is. `before`: what was seen of it right before it was turned; `after`: how long ago that has ended.
#[must_use]
pub fn judge(turn: &Turn, before: &Look, now: &Look, after: Duration) -> Health {
    match now.active {
        Active::Failed => return Health::Hopeless("it has failed".to_owned()),
        Active::Inactive => return Health::Hopeless("it has stopped".to_owned()),
        _ if now.restarts >= before.restarts.saturating_add(MOST_RESTARTS) && turn.turning != Turning::Prove => {
            return Health::Hopeless(format!("it has ended and was started again {} times", now.restarts - before.restarts));
        }
        Active::Active => {}
        other => return Health::Unwell(format!("it is {}", other.word())),
    }
    if let Some(path) = now.changed.first() {
        return Health::Hopeless(format!("{path} is not as it was left: somebody else has changed it"));
    }
    let Some(process) = &now.process else { return Health::Unwell("it has no process".to_owned()) };
    if turn.turning == Turning::Restart && before.process.as_ref() == Some(process) {
        return Health::Unwell(format!("process {} is still the one from before", process.pid));
    }
    if let (Some(wanted), Some(config)) = (&turn.proof.config, &process.config)
        && wanted != config
    {
        return Health::Hopeless(format!("it was started with {config}, not with {wanted}"));
    }
    match &now.answer {
        Answer::Unasked | Answer::Ready => Health::Well,
        Answer::NotServed(why) if after >= WITHOUT_CRI => Health::Hopeless(why.clone()),
        Answer::NotReady(why) | Answer::NotServed(why) | Answer::Silent(why) => Health::Unwell(why.clone()),
    }
}

/// How well it was before: what was broken then is told, and not blamed, unless it is worse now.
#[must_use]
pub fn is_worse(before: &Look, now: &Look) -> bool {
    level(now) < level(before)
}

const fn level(look: &Look) -> u8 {
    match (look.active, &look.answer) {
        (Active::Active | Active::Reloading, Answer::Ready | Answer::Unasked) => 2,
        (Active::Active | Active::Reloading, _) => 1,
        _ => 0,
    }
}

/// The shims that were there before and are not any more.
#[must_use]
pub fn gone(before: &Look, now: &Look) -> usize {
    before.shims.difference(&now.shims).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::turn::Proof;

    fn turn(turning: Turning) -> Turn {
        let proof = Proof { config: Some(NodePath::fixed("/etc/x.toml")), ..Proof::default() };
        Turn { unit: "x.service".to_owned(), turning, serves: Vec::new(), along: Vec::new(), signal: None, proof }
    }

    fn look(pid: u32) -> Look {
        let process = Daemon { pid, started: Time(i64::from(pid)), config: Some(NodePath::fixed("/etc/x.toml")) };
        Look { active: Active::Active, process: Some(process), answer: Answer::Ready, ..Look::default() }
    }

    fn after(now: &Look) -> Health {
        judge(&turn(Turning::Restart), &look(1), now, Duration::ZERO)
    }

    #[test]
    fn well_is_a_new_process_that_answers() {
        assert_eq!(after(&look(2)), Health::Well);
        assert!(matches!(after(&look(1)), Health::Unwell(why) if why.contains("from before")));
        assert_eq!(judge(&turn(Turning::Reload), &look(1), &look(1), Duration::ZERO), Health::Well);
        assert_eq!(judge(&turn(Turning::Prove), &look(1), &look(1), Duration::ZERO), Health::Well);
        assert!(matches!(after(&Look { process: None, ..look(2) }), Health::Unwell(_)));
        assert!(matches!(after(&Look { answer: Answer::Silent("nobody listens".into()), ..look(2) }), Health::Unwell(_)));
    }

    #[test]
    fn what_waiting_does_not_mend() {
        for active in [Active::Failed, Active::Inactive] {
            assert!(matches!(after(&Look { active, ..look(2) }), Health::Hopeless(_)));
        }
        let starting = Look { active: Active::Activating, process: None, ..look(2) };
        assert!(matches!(after(&starting), Health::Unwell(_)));
        assert!(matches!(after(&Look { restarts: 3, ..starting.clone() }), Health::Hopeless(_)));
        // that it had trouble once, before, does not count
        let before = Look { restarts: 9, ..look(1) };
        assert!(matches!(judge(&turn(Turning::Reload), &before, &Look { restarts: 9, ..look(1) }, Duration::ZERO), Health::Well));
        assert!(matches!(after(&Look { changed: vec![NodePath::fixed("/etc/x.toml")], ..look(2) }), Health::Hopeless(_)));
        let mut other = look(2);
        other.process = other.process.map(|process| Daemon { config: Some(NodePath::fixed("/etc/y.toml")), ..process });
        assert!(matches!(after(&other), Health::Hopeless(why) if why.contains("/etc/y.toml")));
        let bare = Look { answer: Answer::NotServed("unknown service".into()), ..look(2) };
        assert!(matches!(after(&bare), Health::Unwell(_)));
        assert!(matches!(judge(&turn(Turning::Restart), &look(1), &bare, WITHOUT_CRI), Health::Hopeless(_)));
    }

    #[test]
    fn what_was_broken_before_is_worse_only_if_it_is_dead() {
        let bare = Look { answer: Answer::NotServed("unknown service".into()), ..look(2) };
        let dead = Look { active: Active::Failed, ..look(2) };
        assert!(is_worse(&look(1), &bare) && is_worse(&look(1), &dead) && is_worse(&bare, &dead));
        assert!(!is_worse(&bare, &bare) && !is_worse(&bare, &look(2)) && !is_worse(&dead, &dead));
    }

    #[test]
    fn a_shim_whose_number_is_used_again_is_gone() {
        let with = |shims: &[(u32, i64)]| {
            let shims = shims.iter().map(|(pid, ticks)| Shim { pid: *pid, ticks: *ticks }).collect();
            Look { shims, ..look(1) }
        };
        assert_eq!(gone(&with(&[(5, 1), (6, 1)]), &with(&[(5, 1), (6, 2), (7, 3)])), 1);
        assert_eq!(gone(&with(&[]), &with(&[(5, 1)])), 0);
    }
}
