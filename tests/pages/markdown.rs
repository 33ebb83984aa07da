//! The command line as a page.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory};
use nodeprep::cli::Cli;

/// `docs/cli.md`.
pub fn markdown() -> String {
    let mut command = Cli::command();
    command.build();
    let mut text = String::from(
        "# The command line\n\nResults go to standard output, everything else to standard error; exit codes are in [exit-codes.md](exit-codes.md). \
         A flag has the same\nname and meaning in each subcommand, and where it says so it can be given as a variable. This page is made from the \
         program.\n\n| subcommand | |\n|---|---|\n",
    );
    for one in shown(&command) {
        let _ = writeln!(text, "| [`{0}`](#nodeprep-{0}) | {1} |", one.get_name(), about(one));
    }
    text.push_str("\n## In each of them\n");
    flags(&command, &mut text, Arg::is_global_set);
    for one in shown(&command) {
        let _ = writeln!(text, "\n## nodeprep {}\n\n{}", one.get_name(), sentence(&about(one)));
        let usage = one.clone().render_usage().to_string();
        let _ = writeln!(text, "\n```text\n{}\n```", usage.trim_start_matches("Usage: "));
        flags(one, &mut text, |arg| !arg.is_global_set());
    }
    text
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

fn about(command: &Command) -> String {
    command.get_long_about().or_else(|| command.get_about()).map(ToString::to_string).unwrap_or_default()
}

fn sentence(text: &str) -> String {
    if text.ends_with('.') { text.to_owned() } else { format!("{text}.") }
}

fn flags(command: &Command, text: &mut String, belongs: impl Fn(&Arg) -> bool) {
    let standard = ["help", "version"];
    let own = |arg: &&Arg| belongs(arg) && !arg.is_hide_set() && !standard.contains(&arg.get_id().as_str());
    let mut rows = command.get_arguments().filter(own).peekable();
    if rows.peek().is_none() {
        return;
    }
    text.push_str("\n| flag | variable | default | |\n|---|---|---|---|\n");
    for arg in rows {
        let value = arg.get_value_names().filter(|_| arg.get_action().takes_values()).map(|names| names[0].as_str()).unwrap_or_default();
        let flag = match (arg.get_short(), arg.get_long()) {
            (_, None) => format!("`{value}`"),
            (None, Some(long)) => format!("`{}`", format!("--{long} {value}").trim_end()),
            (Some(short), Some(long)) => format!("`{}`, `-{short}`", format!("--{long} {value}").trim_end()),
        };
        let variable = arg.get_env().map(|name| format!("`{}`", name.to_string_lossy())).unwrap_or_default();
        let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default =
            if defaults.is_empty() || !arg.get_action().takes_values() { String::new() } else { format!("`{}`", defaults.join(",")) };
        let meaning = arg.get_long_help().or_else(|| arg.get_help()).map(ToString::to_string).unwrap_or_default();
        let mut meaning = sentence(&meaning.replace('\n', " "));
        let values: Vec<_> = arg.get_possible_values().into_iter().filter(|_| arg.get_action().takes_values()).collect();
        let values: Vec<_> = values.iter().filter(|value| !value.is_hide_set()).collect();
        for value in &values {
            let help = value.get_help().map(|help| format!(": {}", help.to_string().trim_end_matches('.'))).unwrap_or_default();
            let _ = write!(meaning, " `{}`{help}.", value.get_name());
        }
        let _ = writeln!(text, "| {flag} | {variable} | {default} | {} |", meaning.replace('|', "\\|"));
    }
}
