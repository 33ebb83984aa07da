//! What the text of the pages names of the program exists: subcommands, flags, variables, units.

use clap::CommandFactory;
use nodeprep::cli::Cli;

use crate::host::OTHERS_FLAGS;
use crate::page::{all, project, spans};

/// `--flag` of a word like `[--flag=VALUE]`.
fn flag(word: &str) -> Option<&str> {
    let word = word.trim_start_matches(['[', '(']);
    let end = word.find(|char: char| char != '-' && !char.is_ascii_alphanumeric()).unwrap_or(word.len());
    let flag = &word[..end];
    (flag.len() > 3 && flag.starts_with("--") && !flag.starts_with("---")).then_some(flag)
}

#[test]
fn what_the_text_names_exists() {
    let mut command = Cli::command();
    command.build();
    let long = |command: &clap::Command, flag: &str| {
        let flag = flag.trim_start_matches("--");
        flag == "help" || flag == "version" || command.get_arguments().any(|argument| argument.get_long() == Some(flag))
    };
    let mut wrong = Vec::new();
    for (page, text) in all() {
        for (number, span) in spans(&text) {
            let words: Vec<&str> = span.split_whitespace().collect();
            let words = words.strip_prefix(&["nodeprep"][..]).unwrap_or(&words);
            let subcommand = words.first().and_then(|name| command.find_subcommand(name));
            if span.starts_with("nodeprep ") && subcommand.is_none() && !words[0].starts_with(['-', '…', '<']) {
                wrong.push(format!("{page}:{number}: `{span}`: there is no such subcommand"));
                continue;
            }
            let foreign = subcommand.is_none() && words.first().is_none_or(|word| flag(word).is_none());
            for flag in words.iter().filter_map(|word| flag(word)) {
                let known = match subcommand {
                    Some(one) => long(one, flag),
                    None => long(&command, flag) || command.get_subcommands().any(|one| long(one, flag)) || OTHERS_FLAGS.contains(&flag),
                };
                // another program's line has its own flags: commands are looked at in blocks
                if !known && !foreign {
                    wrong.push(format!("{page}:{number}: `{span}`: there is no {flag}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Every `NODEPREP_…` that the pages name is a variable of the program or of a script of ours.
#[test]
fn variables_exist() {
    let mut known = String::new();
    let mut folders = vec![project("src"), project("packaging"), project("tests"), project("systemd")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                known.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    let mut wrong = Vec::new();
    for (page, text) in all() {
        for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
            for rest in line.split("NODEPREP_").skip(1) {
                let name: String = rest.chars().take_while(|char| *char == '_' || char.is_ascii_uppercase()).collect();
                if !name.is_empty() && !known.contains(&format!("NODEPREP_{name}")) {
                    wrong.push(format!("{page}:{number}: NODEPREP_{name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
