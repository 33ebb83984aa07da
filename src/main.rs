//! Arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use nodeprep::cli::{Cli, run};

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        if error.use_stderr() {
            nodeprep::node::terminal::hint_at_variables();
        }
        std::process::exit(error.exit_code());
    });
    match run(cli) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            nodeprep::node::terminal::fail(&format!("{error:#}"));
            ExitCode::from(nodeprep::report::exit::Outcome::Unexpected.code())
        }
    }
}
