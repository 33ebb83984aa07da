//! `OpenRC`, by rc-service(8). Its rules are those of its manual; it is not run in tests.

use super::{JOB, PATIENCE, said, words};
use crate::apply::UnitError;
use crate::model::unit::{Active, UnitFacts};
use crate::node::command::{self, Output};
use crate::node::root::Root;
use crate::plan::turn::{Turn, Turning};

/// Services have no ending.
fn service(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

fn ask(root: &Root, argv: &[&str]) -> Option<Output> {
    command::run(root, &words(argv), PATIENCE).ok()
}

/// The service, with everything that needs it and runs.
pub(super) fn facts(root: &Root, unit: &str) -> UnitFacts {
    let needing = ask(root, &["rc-service", service(unit), "needsme"]).filter(|output| output.status == 0);
    let names = needing.map(|output| output.stdout).unwrap_or_default();
    let along = names.split_whitespace().filter(|name| state(root, name).active.is_up()).map(ToOwned::to_owned).collect();
    UnitFacts { along, ..state(root, unit) }
}

/// The service alone.
pub(super) fn state(root: &Root, unit: &str) -> UnitFacts {
    let loaded = ask(root, &["rc-service", "--exists", service(unit)]).is_some_and(|output| output.status == 0);
    let status = ask(root, &["rc-service", service(unit), "status"]).map(|output| output.status);
    UnitFacts { loaded, active: active(status), reloads: true, ..UnitFacts::default() }
}

/// The exit status of `status` (openrc-run.sh: 0 started, 3 stopped, 4 stopping, 8 starting, 16 inactive, 32 crashed).
fn active(status: Option<i32>) -> Active {
    match status {
        Some(0) => Active::Active,
        Some(3 | 16) => Active::Inactive,
        Some(4) => Active::Deactivating,
        Some(8) => Active::Activating,
        Some(32) => Active::Failed,
        _ => Active::Unknown,
    }
}

/// Restarts or reloads it; one that does not run stays so unless it is the way back.
pub(super) fn turn(root: &Root, turn: &Turn, back: bool) -> Result<(), UnitError> {
    let how = if turn.turning == Turning::Reload { "reload" } else { "restart" };
    let only = if back { None } else { Some("--ifstarted") };
    let argv: Vec<&str> = ["rc-service"].into_iter().chain(only).chain([service(&turn.unit), how]).collect();
    let output = command::run(root, &words(&argv), JOB)?;
    if output.status == 0 { Ok(()) } else { Err(UnitError::Job { said: said(&output) }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_states() {
        assert_eq!((service("containerd.service"), service("crio")), ("containerd", "crio"));
        let states = [Some(0), Some(3), Some(32), Some(1), None].map(active);
        assert_eq!(states, [Active::Active, Active::Inactive, Active::Failed, Active::Unknown, Active::Unknown]);
    }
}
