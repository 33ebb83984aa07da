//! Arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser;
use nodeprep::cli::{Cli, run};

/// That of the C library of a static build gives pages back and asks for them again all the time.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

/// More than anything that is allocated at once, but the largest of files.
#[cfg(target_env = "gnu")]
const LARGE: usize = 4 << 20;

fn main() -> ExitCode {
    if let Some(outcome) = nodeprep::cli::again() {
        return ExitCode::from(outcome.code());
    }
    // The GNU C library's allocator gives each large piece back to the kernel until it has seen a larger one go, and then pays for its
    // pages anew: a quarter of all of a run. This one is never touched, so it costs nothing.
    #[cfg(target_env = "gnu")]
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LARGE)));
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
