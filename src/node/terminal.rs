//! Standard output and standard error: what goes where, and whether it may be coloured.

use std::io::{IsTerminal, Write};

use tracing::level_filters::LevelFilter;

use crate::report::style::Style;

/// Styles of the two streams.
#[derive(Clone, Copy, Debug)]
pub struct Styles {
    /// Standard output: results.
    pub results: Style,
    /// Standard error: everything else.
    pub errors: Style,
}

/// `wanted` as given on the command line; otherwise a terminal is coloured unless `NO_COLOR` is set (no-color.org) or the
/// terminal is `dumb`.
#[must_use]
pub fn style(wanted: Option<bool>) -> Styles {
    let refused =
        std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    let colour = |terminal: bool| Style { colour: wanted.unwrap_or(terminal && !refused) };
    Styles { results: colour(std::io::stdout().is_terminal()), errors: colour(std::io::stderr().is_terminal()) }
}

/// Sends log events to standard error: warnings, with `-v` what is done, with `-vv` every step.
pub fn log(verbose: u8, style: Style) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        _ => LevelFilter::DEBUG,
    };
    // a second call (tests) keeps the first subscriber
    let _ =
        tracing_subscriber::fmt().with_max_level(level).with_writer(std::io::stderr).with_ansi(style.colour).with_target(false).try_init();
}

/// Writes a result to standard output. A reader that went away (`| head`) is no failure.
///
/// # Errors
/// Any other failure to write, a full disk behind a redirection for instance.
pub fn print(text: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Tells who waits at a terminal what takes long; nobody else.
pub fn progress(text: &str) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let _ = writeln!(errors, "{text}");
    }
}

/// Names the variables that took part in a command line that is wrong: a flag nobody wrote is hard to find otherwise. Their
/// values stay unsaid.
pub fn hint_at_variables() {
    let mut names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with("NODEPREP_"));
    names.sort();
    if !names.is_empty() {
        let _ = writeln!(std::io::stderr(), "\nFlags are taken from these variables too: {}", names.join(", "));
    }
}

/// Writes what ended the program to standard error.
pub fn fail(text: &str) {
    // nobody is left to tell when standard error is gone too
    let _ = writeln!(std::io::stderr(), "error: {text}");
}
