//! `OpenRC`, by rc-service(8).

use std::time::{Duration, Instant};

use super::{BETWEEN, JOB, answer, said, words};
use crate::apply::UnitError;
use crate::model::unit::{Active, UnitFacts, plain};
use crate::node::command;
use crate::node::root::Root;
use crate::plan::turn::{Turn, Turning};

/// How long one that goes along may be busy elsewhere before it is given up.
const COMES_BACK: Duration = Duration::from_secs(30);

/// The service, with everything that needs it and runs.
pub(super) fn facts(root: &Root, unit: &str) -> Result<UnitFacts, String> {
    let own = state(root, unit)?;
    if !own.loaded {
        return Ok(own);
    }
    let needing = answer(root, &["rc-service", plain(unit), "needsme"])?;
    let names = if needing.status == 0 { needing.stdout } else { String::new() };
    let mut along = Vec::new();
    for name in names.split_whitespace() {
        if state(root, name)?.active.is_up() {
            along.push(name.to_owned());
        }
    }
    // what a service script can be told beyond what all can (openrc-run(8), `extra_started_commands`)
    let described = answer(root, &["rc-service", plain(unit), "describe"])?;
    let reloads = [&described.stdout, &described.stderr].into_iter().any(|text| offers(text, "reload"));
    Ok(UnitFacts { reloads, along, ..own })
}

/// Whether a command is in what `describe` lists: ` * reload: what it does`.
fn offers(text: &str, command: &str) -> bool {
    text.lines().any(|line| line.trim_start_matches([' ', '*']).split(':').next() == Some(command))
}

/// The service alone.
pub(super) fn state(root: &Root, unit: &str) -> Result<UnitFacts, String> {
    if answer(root, &["rc-service", "--exists", plain(unit)])?.status != 0 {
        return Ok(UnitFacts::default());
    }
    let status = answer(root, &["rc-service", plain(unit), "status"])?.status;
    Ok(UnitFacts { loaded: true, active: active(status), ..UnitFacts::default() })
}

/// The exit status of `status` (openrc-run.sh and supervise-daemon.sh: 0 started, 3 stopped, 4 stopping, 8 starting, 16 inactive,
/// 32 crashed, 64 crashed and its supervisor gone).
fn active(status: i32) -> Active {
    match status {
        0 => Active::Active,
        3 | 16 => Active::Inactive,
        4 => Active::Deactivating,
        8 => Active::Activating,
        32 | 64 => Active::Failed,
        _ => Active::Unknown,
    }
}

/// Restarts or reloads it; one that does not run stays so unless it is the way back.
pub(super) fn turn(root: &Root, turn: &Turn, back: bool) -> Result<(), UnitError> {
    let how = if turn.turning == Turning::Reload { "reload" } else { "restart" };
    let only = if back { None } else { Some("--ifstarted") };
    let argv: Vec<&str> = ["rc-service"].into_iter().chain(only).chain([plain(&turn.unit), how]).collect();
    let output = command::run_starting(root, &words(&argv), JOB)?;
    if output.status != 0 {
        return Err(UnitError::Job { said: said(&output) });
    }
    // what needs it was stopped with it; where it did not start, they were left so, and come back with the way back
    turn.along.iter().try_for_each(|name| comes_back(root, name))
}

/// Starts a service unless it is up, or on its way: `OpenRC` starts what it has stopped in the background, and holds its lock
/// meanwhile.
fn comes_back(root: &Root, name: &str) -> Result<(), UnitError> {
    let begun = Instant::now();
    loop {
        if state(root, name).is_ok_and(|facts| facts.active.is_up()) {
            return Ok(());
        }
        let output = command::run_starting(root, &words(&["rc-service", "--ifstopped", name, "start"]), JOB)?;
        if output.status != 0 && begun.elapsed() > COMES_BACK {
            return Err(UnitError::Job { said: format!("{name}, which went along, does not start: {}", said(&output)) });
        }
        if begun.elapsed() > COMES_BACK * 2 {
            return Err(UnitError::Job { said: format!("{name}, which went along, has not come back") });
        }
        std::thread::sleep(BETWEEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_and_their_states() {
        assert_eq!((plain("containerd.service"), plain("crio")), ("containerd", "crio"));
        let states = [0, 3, 32, 64, 1].map(active);
        assert_eq!(states, [Active::Active, Active::Inactive, Active::Failed, Active::Failed, Active::Unknown]);
        let told = " * a daemon\n * reload: reads its files anew\n * reloads: another\n";
        assert!(offers(told, "reload") && !offers(told, "a daem") && !offers("", "reload"));
    }
}
