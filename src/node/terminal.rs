//! Standard output and standard error: what goes where, and whether it may be coloured.

use std::collections::BTreeSet;
use std::io::{IsTerminal, Stderr, Write};
use std::sync::{Mutex, PoisonError};

use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

use crate::model::order::{self, Gather as _};
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
    let lines = tracing_subscriber::fmt().with_max_level(level).with_target(false);
    // a second call (tests) keeps the first subscriber
    let _ = if is_journal() {
        // the journal has the time and the priority of a line by itself
        lines.with_writer(Journal).with_ansi(false).without_time().with_level(false).try_init()
    } else {
        lines.with_writer(std::io::stderr).with_ansi(style.colour).try_init()
    };
}

/// Whether standard error is the journal's: systemd.exec(5), `JOURNAL_STREAM`.
fn is_journal() -> bool {
    let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    nix::sys::stat::fstat(std::io::stderr()).is_ok_and(|found| stream == format!("{}:{}", found.st_dev, found.st_ino))
}

/// Standard error with the priority of each line in front of it: sd-daemon(3).
struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = Prioritised<Stderr>;

    fn make_writer(&'a self) -> Self::Writer {
        Prioritised { out: std::io::stderr(), priority: 6 }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        Prioritised { out: std::io::stderr(), priority }
    }
}

struct Prioritised<W> {
    out: W,
    priority: u8,
}

impl<W: Write> Write for Prioritised<W> {
    /// Takes whole events: that is how they come.
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut text = Vec::with_capacity(bytes.len() + 3);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            text.extend(format!("<{}>", self.priority).into_bytes());
            text.extend(line);
        }
        self.out.write_all(&text).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.out.flush()
    }
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
pub fn tell(text: &str) {
    let mut errors = std::io::stderr();
    if errors.is_terminal() {
        let _ = writeln!(errors, "{text}");
    }
}

/// Shows on standard error which of `names` are waited for, where that is a terminal that can write a line over; nothing at all
/// in a pipe or a file.
#[must_use]
pub fn progress(names: Vec<String>) -> Progress<Stderr> {
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
    Progress::new((std::io::stderr().is_terminal() && !dumb).then(std::io::stderr), names)
}

/// One line of progress that is written over, and gone in the end.
#[derive(Debug)]
pub struct Progress<W: Write>(Option<Mutex<Line<W>>>);

#[derive(Debug)]
struct Line<W> {
    out: W,
    names: Vec<String>,
    waiting: BTreeSet<usize>,
    ended: usize,
}

impl<W: Write> Progress<W> {
    /// Writes to `out`, or nowhere.
    pub fn new(out: Option<W>, names: Vec<String>) -> Self {
        Self(out.map(|out| Mutex::new(Line { out, names, waiting: BTreeSet::new(), ended: 0 })))
    }

    /// One more is waited for.
    pub fn begin(&self, place: usize) {
        self.change(|line| {
            line.waiting.insert(place);
        });
    }

    /// One less.
    pub fn end(&self, place: usize) {
        self.change(|line| {
            line.waiting.remove(&place);
            line.ended += 1;
        });
    }

    fn change(&self, change: impl FnOnce(&mut Line<W>)) {
        let Some(line) = &self.0 else { return };
        let mut line = line.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut line);
        let text = line.text();
        line.write(&text);
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        if let Some(line) = &self.0 {
            line.lock().unwrap_or_else(PoisonError::into_inner).write("");
        }
    }
}

/// Columns that every terminal has: what wraps cannot be written over.
const COLUMNS: usize = 79;

impl<W: Write> Line<W> {
    fn text(&self) -> String {
        let waiting: BTreeSet<&str> = self.waiting.iter().filter_map(|place| self.names.get(*place)).map(String::as_str).gathered();
        let waiting: Vec<&str> = waiting.into_iter().collect();
        let mut text = format!("trying endpoints: {} of {} done", self.ended, self.names.len());
        if !waiting.is_empty() {
            text = format!("{text}, waiting for {}", waiting.join(", "));
        }
        if text.chars().count() > COLUMNS {
            text = text.chars().take(COLUMNS - 3).chain("...".chars()).collect();
        }
        text
    }

    /// A terminal that went away is no failure.
    fn write(&mut self, text: &str) {
        let _ = write!(self.out, "\r\u{1b}[K{text}").and_then(|()| self.out.flush());
    }
}

/// Names the variables that took part in a command line that is wrong: a flag nobody wrote is hard to find otherwise. Their
/// values stay unsaid.
pub fn hint_at_variables() {
    let mut names: Vec<String> = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect();
    names.retain(|name| name.starts_with("NODEPREP_"));
    order::sort(&mut names);
    if !names.is_empty() {
        let _ = writeln!(std::io::stderr(), "\nFlags are taken from these variables too: {}", names.join(", "));
    }
}

/// Writes what ended the program to standard error.
pub fn fail(text: &str) {
    // nobody is left to tell when standard error is gone too
    let _ = writeln!(std::io::stderr(), "error: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_for_the_journal_has_its_priority() {
        let mut journal = Prioritised { out: Vec::new(), priority: 4 };
        journal.write_all(b"one\n  two\n").unwrap();
        assert_eq!(journal.out, b"<4>one\n<4>  two\n");
    }

    #[test]
    fn one_line_that_is_gone_in_the_end() {
        let mut shown = Vec::new();
        let progress = Progress::new(Some(&mut shown), vec!["https://a".into(), "https://b".into(), "https://b".into()]);
        for place in [1, 0, 2] {
            progress.begin(place);
        }
        progress.end(0);
        drop(progress);
        let shown = String::from_utf8(shown).unwrap();
        let lines: Vec<&str> = shown.split("\r\u{1b}[K").collect();
        let all = "trying endpoints: 0 of 3 done, waiting for https://a, https://b";
        let last = "trying endpoints: 1 of 3 done, waiting for https://b";
        assert_eq!(lines, ["", "trying endpoints: 0 of 3 done, waiting for https://b", all, all, last, ""]);
    }

    #[test]
    fn it_never_wraps_and_nowhere_it_is_silent() {
        let mut shown = Vec::new();
        let progress = Progress::new(Some(&mut shown), vec!["https://registry.example.com:5000/".repeat(9)]);
        progress.begin(0);
        drop(progress);
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.split("\r\u{1b}[K").all(|line| line.chars().count() <= COLUMNS) && shown.contains("..."), "{shown:?}");
        Progress::new(None::<Stderr>, vec!["a".into()]).begin(0);
    }
}
