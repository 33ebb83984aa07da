//! The pages for users, and the commands that stand on them.

use std::path::{Path, PathBuf};

/// A line that a reader would type.
#[derive(Clone, Debug)]
pub struct Command {
    /// The page, from the project's root.
    pub page: String,
    /// Its line there, from 1.
    pub number: usize,
    /// As it is typed, without its comment; what a backslash goes on with is part of it.
    pub text: String,
    /// The exit code that its comment names (`exit code 10`), else 0.
    pub code: i32,
    /// What the page shows as its output; only in `console` blocks.
    pub output: Option<String>,
}

impl Command {
    pub fn place(&self) -> String {
        format!("{}:{}: {}", self.page, self.number, self.text)
    }
}

pub fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn is_page(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "md")
}

/// README.md and every page of docs/, each with its text, in the order of their names.
pub fn all() -> Vec<(String, String)> {
    let found = std::fs::read_dir(project("docs")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = found.filter(|name| is_page(name)).map(|name| format!("docs/{name}")).collect();
    names.sort();
    names.insert(0, "README.md".to_owned());
    names.into_iter().map(|name| (name.clone(), std::fs::read_to_string(project(&name)).unwrap())).collect()
}

/// Every command of the blocks of a page. Other blocks must not look as if one could type them.
pub fn commands(page: &str, text: &str) -> Vec<Command> {
    let mut found: Vec<Command> = Vec::new();
    let mut language: Option<String> = None;
    let mut going_on = false;
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if let Some(info) = line.trim_start().strip_prefix("```") {
            language = if language.is_some() { None } else { Some(info.trim().to_owned()) };
            going_on = false;
            continue;
        }
        let Some(language) = language.as_deref() else { continue };
        let typed = match language {
            "sh" => Some(line.trim()),
            "console" => line.strip_prefix("$ "),
            "bash" | "shell" | "shell-session" | "zsh" => {
                panic!("{page}:{number}: only `sh` and `console` are looked at, not `{language}`")
            }
            _ => {
                let first = line.split_whitespace().next().unwrap_or_default();
                let hidden = page != "docs/cli.md" && ["$", "nodeprep", "kubectl", "helm", "make", "apt-get", "systemctl"].contains(&first);
                assert!(!hidden, "{page}:{number}: a command outside of a `sh` block is run by nobody: {line}");
                continue;
            }
        };
        match typed {
            Some(typed) if going_on => {
                let last = found.last_mut().unwrap();
                let (words, comment) = cut(typed);
                last.text = format!("{} {}", last.text.trim_end_matches('\\').trim_end(), words);
                last.code = code(comment).unwrap_or(last.code);
            }
            Some(typed) => {
                let (words, comment) = cut(typed);
                if words.is_empty() {
                    continue;
                }
                let output = (language == "console").then(String::new);
                found.push(Command { page: page.to_owned(), number, text: words.to_owned(), code: code(comment).unwrap_or(0), output });
            }
            None => {
                let last = found.last_mut().unwrap_or_else(|| panic!("{page}:{number}: output without a command"));
                last.output.as_mut().unwrap().extend([line, "\n"]);
            }
        }
        going_on = found.last().is_some_and(|last| last.text.ends_with('\\'));
    }
    assert!(language.is_none(), "{page}: a block is not closed");
    found
}

/// The words of a line and its comment.
fn cut(line: &str) -> (&str, &str) {
    let mut quote = None;
    let mut before = ' ';
    for (at, char) in line.char_indices() {
        match (quote, char) {
            (None, '#') if before.is_whitespace() => return (line[..at].trim(), &line[at..]),
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            _ => {}
        }
        before = char;
    }
    (line.trim(), "")
}

fn code(comment: &str) -> Option<i32> {
    let rest = comment.split("exit code ").nth(1)?;
    rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
}

/// A line's single commands: at `&&`, `|` and `;`, with their redirections.
pub fn parts(line: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quote = None;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match (quote, char) {
            (None, '&') if chars.peek() == Some(&'&') => {
                chars.next();
                parts.push(String::new());
                continue;
            }
            (None, '|' | ';') => {
                parts.push(String::new());
                continue;
            }
            (None, '\'' | '"') => quote = Some(char),
            (Some(open), _) if open == char => quote = None,
            _ => {}
        }
        parts.last_mut().unwrap().push(char);
    }
    parts.into_iter().map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The code spans of a page's text, outside of blocks, with their lines.
pub fn spans(text: &str) -> Vec<(usize, String)> {
    let mut spans = Vec::new();
    let (mut block, mut open) = (false, None::<(usize, String)>);
    for (number, line) in text.lines().enumerate().map(|(index, line)| (index + 1, line)) {
        if line.trim_start().starts_with("```") {
            block = !block;
            continue;
        }
        if block {
            continue;
        }
        // a span does not go over the end of a paragraph
        if line.trim().is_empty() {
            open = None;
        }
        for (at, piece) in line.split('`').enumerate() {
            if at > 0 {
                open = match open.take() {
                    Some(span) => {
                        spans.push(span);
                        None
                    }
                    None => Some((number, String::new())),
                };
            }
            if let Some((_, span)) = &mut open {
                if at == 0 {
                    span.push(' ');
                }
                span.push_str(piece);
            }
        }
    }
    spans
}
