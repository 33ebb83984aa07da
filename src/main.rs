//! Arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use nodeprep::cli::{Cli, run};

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(outcome) => ExitCode::from(outcome.code()),
        Err(error) => {
            nodeprep::node::terminal::fail(&format!("{error:#}"));
            ExitCode::from(nodeprep::report::exit::Outcome::Unexpected.code())
        }
    }
}
