//! What packages ship of the command line: man pages, and completions for shells.

use std::path::Path;

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use nodeprep::cli::Cli;

/// The command line, with the flags that all subcommands share in each of them.
fn command() -> Command {
    let mut command = Cli::command();
    command.build();
    command
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|one| !one.is_hide_set() && one.get_name() != "help")
}

/// `nodeprep.1`, and a page for each subcommand.
pub fn man(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let command = command();
    let page = |command: &Command, name: &str| {
        let mut text = Vec::new();
        let page = clap_mangen::Man::new(command.clone().version(env!("CARGO_PKG_VERSION")));
        page.title(name.to_uppercase()).manual("nodeprep").render(&mut text)?;
        std::fs::write(folder.join(format!("{name}.1")), text)
    };
    page(&command, "nodeprep")?;
    for one in shown(&command) {
        page(one, &format!("nodeprep-{}", one.get_name()))?;
    }
    Ok(())
}

/// One file per shell, under the name by which it is found.
pub fn completions(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    for (shell, file) in [(Shell::Bash, "nodeprep"), (Shell::Zsh, "_nodeprep"), (Shell::Fish, "nodeprep.fish")] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut visible(), "nodeprep", &mut text);
        std::fs::write(folder.join(file), text)?;
    }
    Ok(())
}

/// Without what is no affair of users: a shell would offer it all the same.
fn visible() -> Command {
    let whole = Cli::command();
    let mut command = Command::new("nodeprep").version(env!("CARGO_PKG_VERSION"));
    command = command.about(whole.get_about().cloned().unwrap_or_default()).args(whole.get_arguments().cloned());
    command.subcommands(shown(&whole).cloned().collect::<Vec<_>>())
}
