//! Daemons that no service manager that nodeprep knows looks after: turned by the commands that somebody gave for them
//! (`--restart-command`, `--reload-command`). Whether one runs is told by its process.

use super::{JOB, said};
use crate::apply::UnitError;
use crate::model::unit::{Active, Commands, UnitFacts};
use crate::node::command;
use crate::node::root::Root;
use crate::plan::turn::{Turn, Turning};

/// What is known of one whose process is there, or is not.
pub(super) fn state(runs: bool) -> UnitFacts {
    UnitFacts { loaded: true, active: if runs { Active::Active } else { Active::Inactive }, ..UnitFacts::default() }
}

/// Runs its command to the end; a status that is not 0 is a failure.
pub(super) fn turn(root: &Root, turn: &Turn, commands: &Commands) -> Result<(), UnitError> {
    let argv = match turn.turning {
        Turning::Prove => return Ok(()),
        Turning::Reload => commands.reload_of(&turn.unit),
        Turning::Restart => commands.restart_of(&turn.unit),
    };
    let Some(argv) = argv else { return Err(UnitError::Job { said: format!("there is no command to {} it", turn.turning.word()) }) };
    let output = command::run_starting(root, argv, JOB)?;
    if output.status == 0 {
        return Ok(());
    }
    Err(UnitError::Job { said: format!("`{}` ended with status {}: {}", argv.join(" "), output.status, said(&output)) })
}
