//! What is remembered of activations that failed and were put back: the next run does not try the same once more (docs/adr/0016).
//!
//! What lives here: the file's form, what is remembered of an error, and when that stands in the way. Pure; `node/memory.rs`
//! reads and writes it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ApplyError, UnitError};
use crate::ledger::Attempt;
use crate::model::digest::Digest;
use crate::model::line;
use crate::model::time::Time;
use crate::node::command::CommandError;

/// The version of the file that this nodeprep writes. Of another one nothing is taken over: it only ever spares a restart.
pub const VERSION: u32 = 1;
/// How long a cause counts that may go away by itself, in milliseconds.
const DAY: i64 = 24 * 60 * 60 * 1000;

/// The last failure of each unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// [`VERSION`].
    pub version: u32,
    /// By unit.
    pub units: BTreeMap<String, Failure>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { version: VERSION, units: BTreeMap::new() }
    }
}

/// An activation that failed and was put back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Digest of the spec that it was for.
    pub spec: Digest,
    /// Version of the runtime on disk; empty where it was not known.
    pub runtime: String,
    /// What happened.
    pub cause: Cause,
    /// When.
    pub when: Time,
    /// In the daemon's words, logins masked.
    pub said: String,
}

/// What made an activation fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    /// The unit did not start.
    Start,
    /// Its daemon ended, or runs without what it is for.
    Dead,
    /// It was not well in time, or did not confirm.
    Late,
    /// The canary was not pulled any more.
    Canary,
}

impl Cause {
    /// Whether it may be gone tomorrow without anybody having done anything.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Late | Self::Canary)
    }
}

impl Failure {
    /// When it is forgotten.
    #[must_use]
    pub const fn until(&self) -> Option<Time> {
        if self.cause.is_transient() { Some(Time(self.when.0.saturating_add(DAY))) } else { None }
    }
}

impl Memory {
    /// What is in the file; nothing where it is of another version.
    #[must_use]
    pub fn from_json(bytes: &[u8]) -> Self {
        let read = serde_json::from_slice::<Self>(bytes).ok().filter(|memory| memory.version == VERSION);
        read.unwrap_or_else(|| {
            tracing::warn!("what failed before cannot be read; it is begun anew");
            Self::default()
        })
    }

    /// The bytes to write.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        line::of(self)
    }

    /// The failure that is in the way of turning this unit for this spec and this version of its runtime.
    #[must_use]
    pub fn against(&self, unit: &str, spec: Digest, runtime: &str, now: Time) -> Option<&Failure> {
        let failure = self.units.get(unit).filter(|failure| failure.spec == spec && failure.runtime == runtime)?;
        // a clock that was set back does not make it last longer
        let counts = failure.until().is_none_or(|until| now < until && failure.when <= now);
        counts.then_some(failure)
    }

    /// Remembers what failed in an attempt that was put back: its unit, or all of them where none is to blame by name.
    pub fn learn(&mut self, attempt: &Attempt, error: &ApplyError, now: Time, said: &str) {
        let Some((unit, cause)) = cause(error) else { return };
        let Some(spec) = attempt.spec else { return };
        let concerned = attempt.units.iter().filter(|(name, _)| unit.is_none_or(|unit| unit == name.as_str()));
        for (unit, runtime) in concerned {
            let failure = Failure { spec, runtime: runtime.clone(), cause, when: now, said: said.to_owned() };
            self.units.insert(unit.clone(), failure);
        }
    }
}

/// The unit that is to blame, and what happened; `None` for what has nothing to do with units.
fn cause(error: &ApplyError) -> Option<(Option<&str>, Cause)> {
    match error {
        ApplyError::Unit { unit, error, .. } => {
            let cause = match error {
                UnitError::Job { said } if said.contains("timeout") => Cause::Late,
                UnitError::Job { .. } => Cause::Start,
                UnitError::Command(CommandError::TimedOut { .. }) | UnitError::Unconfirmed { .. } => Cause::Late,
                // that the manager cannot be asked says nothing about the daemon
                UnitError::Command(_) => return None,
            };
            Some((Some(unit), cause))
        }
        ApplyError::Unwell { unit, hopeless, .. } => Some((Some(unit), if *hopeless { Cause::Dead } else { Cause::Late })),
        ApplyError::Canary { .. } => Some((None, Cause::Canary)),
        ApplyError::Node(_)
        | ApplyError::Stuck { .. }
        | ApplyError::Command { .. }
        | ApplyError::Status { .. }
        | ApplyError::Unguarded(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::turn::Turning;

    const UNIT: &str = "containerd.service";

    fn attempt() -> Attempt {
        Attempt { spec: Some(Digest::of(b"spec")), units: [(UNIT.to_owned(), "1.6.20".to_owned())].into() }
    }

    fn unit(error: UnitError) -> ApplyError {
        ApplyError::Unit { unit: UNIT.to_owned(), turning: Turning::Restart, error }
    }

    fn unwell(hopeless: bool) -> ApplyError {
        ApplyError::Unwell { unit: UNIT.to_owned(), turning: Turning::Restart, why: "x".to_owned(), hopeless }
    }

    fn job(said: &str) -> ApplyError {
        unit(UnitError::Job { said: said.to_owned() })
    }

    fn after(error: &ApplyError) -> Memory {
        let mut memory = Memory::default();
        memory.learn(&attempt(), error, Time(1000), "its words");
        Memory::from_json(&memory.to_json())
    }

    #[test]
    fn the_same_spec_and_version_are_not_tried_again() {
        let memory = after(&job("it failed"));
        let against = |spec: &[u8], version| memory.against(UNIT, Digest::of(spec), version, Time(i64::MAX / 2)).is_some();
        assert_eq!(memory.units[UNIT].cause, Cause::Start);
        assert!(against(b"spec", "1.6.20"));
        assert!(!against(b"another", "1.6.20") && !against(b"spec", "1.7.24"));
        assert!(memory.against("crio.service", Digest::of(b"spec"), "1.6.20", Time(1000)).is_none());
    }

    #[test]
    fn what_may_pass_is_forgotten_after_a_day() {
        let canary = || ApplyError::Canary { runtime: "containerd".into(), image: "i".into(), why: "w".into(), pulled: true };
        let late = || unit(UnitError::Unconfirmed { said: "nothing".into() });
        let slow = || unit(UnitError::Command(CommandError::TimedOut { program: "systemctl".into(), seconds: 400 }));
        for (error, transient) in [
            (unwell(false), true),
            (late(), true),
            (slow(), true),
            (canary(), true),
            (job("Job for x failed because a timeout was exceeded."), true),
            (job("the control process exited"), false),
            (unwell(true), false),
        ] {
            let memory = after(&error);
            let counts = |at: i64| memory.against(UNIT, Digest::of(b"spec"), "1.6.20", Time(at)).is_some();
            assert!(counts(1000) && counts(1000 + DAY - 1), "{error}");
            assert_eq!(counts(1000 + DAY), !transient, "{error}");
            // a clock that was set back
            assert_eq!(counts(999), !transient, "{error}");
        }
    }

    #[test]
    fn what_is_not_the_units_fault_is_not_remembered() {
        let start = unit(UnitError::Command(CommandError::Empty));
        let status = ApplyError::Status { command: "update-ca-certificates".into(), status: 1, said: String::new() };
        for error in [start, status, ApplyError::Unguarded(super::super::GuardError::Refused { said: String::new() })] {
            assert!(after(&error).units.is_empty(), "{error}");
        }
        let mut memory = Memory::default();
        memory.learn(&Attempt { spec: None, ..attempt() }, &unwell(true), Time(1), "");
        assert!(memory.units.is_empty());
    }

    #[test]
    fn another_version_of_the_file_is_begun_anew() {
        for text in ["", "{}", r#"{"version": 2, "units": {}}"#, "[]"] {
            assert_eq!(Memory::from_json(text.as_bytes()), Memory::default());
        }
    }
}
