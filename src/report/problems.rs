//! Problems as text for a terminal.

use std::fmt::Write as _;
use std::ops::RangeInclusive;

use crate::model::problem::{Excerpt, Problem, Severity};

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const GUTTER: &str = "\x1b[1;34m";

/// All problems, each with its place, its line and what to do, and a summary line behind them. Nothing in a problem can
/// reach the terminal as a control sequence.
#[must_use]
pub fn render(problems: &[Problem], colour: bool) -> String {
    let mut text = String::new();
    for problem in problems {
        one(problem, colour, &mut text);
        text.push('\n');
    }
    text.push_str(&summary(problems));
    text.push('\n');
    text
}

/// `3 errors, 1 warning`.
#[must_use]
pub fn summary(problems: &[Problem]) -> String {
    let count = |severity| problems.iter().filter(|problem| problem.severity == severity).count();
    let counts = [(count(Severity::Error), "error"), (count(Severity::Warning), "warning"), (count(Severity::Note), "note")];
    let parts: Vec<String> = counts
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
        .collect();
    if parts.is_empty() { "no problems".to_owned() } else { parts.join(", ") }
}

fn one(problem: &Problem, colour: bool, text: &mut String) {
    let paint = |style: &str, words: &str| if colour { format!("{style}{words}{RESET}") } else { words.to_owned() };
    let (word, style) = match problem.severity {
        Severity::Error => ("error", "\x1b[1;31m"),
        Severity::Warning => ("warning", "\x1b[1;33m"),
        Severity::Note => ("note", "\x1b[1;36m"),
    };
    let head = paint(style, &format!("{word}[{}]", problem.code));
    let _ = writeln!(text, "{head}: {}", paint(BOLD, &escape(&problem.what)));
    let line = problem.at.as_ref().map_or(0, |place| place.line);
    let number = if line > 0 { line.to_string() } else { String::new() };
    let pad = " ".repeat(number.len() + 2);
    if let Some(place) = &problem.at {
        let _ = writeln!(text, "{}{} {}", &pad[1..], paint(GUTTER, "-->"), escape(&place.to_string()));
    }
    if let Some(excerpt) = &problem.excerpt {
        let (shown, start, width) = laid_out(excerpt);
        let bar = paint(GUTTER, "|");
        let _ = writeln!(text, "{pad}{bar}");
        let _ = writeln!(text, " {} {bar} {shown}", paint(GUTTER, &number));
        let _ = writeln!(text, "{pad}{bar} {}{}", " ".repeat(start), paint(style, &"^".repeat(width)));
    }
    if !problem.help.is_empty() {
        let _ = writeln!(text, "{pad}{} {}", paint(BOLD, "help:"), escape(&problem.help));
    }
}

/// The line as it is shown, and where in it (in cells of the terminal) the marked part begins and how wide it is.
fn laid_out(excerpt: &Excerpt) -> (String, usize, usize) {
    let first = (excerpt.column as usize).saturating_sub(1);
    let behind = first.saturating_add(excerpt.width as usize);
    let (mut shown, mut start, mut width) = (String::new(), 0, 0);
    for (index, char) in excerpt.text.chars().enumerate() {
        let (piece, cells) = match char {
            '\t' => ("    ".to_owned(), 4),
            char if is_dangerous(char) => {
                let piece: String = char.escape_unicode().collect();
                let cells = piece.len();
                (piece, cells)
            }
            char => (char.to_string(), cells(char)),
        };
        shown.push_str(&piece);
        if index < first {
            start += cells;
        } else if index < behind {
            width += cells;
        }
    }
    (shown, start, width.max(1))
}

/// A message with nothing in it that a terminal would act on.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '\n' => safe.push_str("\\n"),
            '\t' => safe.push(' '),
            char if is_dangerous(char) => safe.extend(char.escape_unicode()),
            char => safe.push(char),
        }
    }
    safe
}

/// Control characters, and those that turn the direction of text around or hide in it.
fn is_dangerous(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{61c}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// Blocks of marks that combine with the character before them.
const COMBINING: [RangeInclusive<char>; 10] = [
    '\u{300}'..='\u{36f}',
    '\u{483}'..='\u{489}',
    '\u{591}'..='\u{5bd}',
    '\u{610}'..='\u{61a}',
    '\u{64b}'..='\u{65f}',
    '\u{1ab0}'..='\u{1aff}',
    '\u{1dc0}'..='\u{1dff}',
    '\u{20d0}'..='\u{20ff}',
    '\u{fe00}'..='\u{fe0f}',
    '\u{fe20}'..='\u{fe2f}',
];

/// Blocks of wide characters in common use (Unicode East Asian Width).
const WIDE: [RangeInclusive<char>; 13] = [
    '\u{1100}'..='\u{115f}',
    '\u{2e80}'..='\u{303e}',
    '\u{3041}'..='\u{4dbf}',
    '\u{4e00}'..='\u{9fff}',
    '\u{a000}'..='\u{a4cf}',
    '\u{ac00}'..='\u{d7a3}',
    '\u{f900}'..='\u{faff}',
    '\u{fe30}'..='\u{fe6f}',
    '\u{ff00}'..='\u{ff60}',
    '\u{ffe0}'..='\u{ffe6}',
    '\u{1f300}'..='\u{1f6ff}',
    '\u{1f900}'..='\u{1f9ff}',
    '\u{20000}'..='\u{3fffd}',
];

/// How many cells of a terminal a character takes.
fn cells(char: char) -> usize {
    let within = |blocks: &[RangeInclusive<char>]| blocks.iter().any(|block| block.contains(&char));
    if char.is_ascii() {
        1
    } else if within(&COMBINING) {
        0
    } else if within(&WIDE) {
        2
    } else {
        1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::place::Place;

    fn problem(text: &str, column: u32, width: u32) -> Problem {
        let place = Place { file: "spec.toml".into(), line: 7, column };
        let problem = Problem::error("unknown-key", "unknown key `endpoint` in [[mirror]]", "write `endpoints`");
        Problem { excerpt: Some(Excerpt { text: text.into(), column, width }), ..problem.at(place) }
    }

    #[test]
    fn looks_like_a_compilers() {
        let want = "\
error[unknown-key]: unknown key `endpoint` in [[mirror]]
  --> spec.toml:7:1
   |
 7 | endpoint = [\"…\"]
   | ^^^^^^^^
   help: write `endpoints`

1 error
";
        assert_eq!(render(&[problem("endpoint = [\"…\"]", 1, 8)], false), want);
        assert!(render(&[problem("endpoint", 1, 8)], true).contains("\x1b[1;31merror[unknown-key]\x1b[0m"));
    }

    #[test]
    fn the_mark_stands_under_what_is_meant() {
        for (line, column, width, start, cells) in [
            ("\tab = 1", 2, 2, 4, 2),
            ("\"日本\" = 1", 2, 2, 1, 4),
            ("e\u{301}x = 1", 3, 1, 1, 1),
            ("a\x1b[2Jb", 6, 1, 10, 1),
            ("abc", 4, 1, 3, 1),
        ] {
            let (_, found_start, found_cells) = laid_out(&Excerpt { text: line.into(), column, width });
            assert_eq!((found_start, found_cells), (start, cells), "{line:?}");
        }
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        let mut bad = problem("x\x1b]0;gotcha\x07\u{202e}", 1, 1);
        bad.what = "a\x1b[31m\nb\u{9b}".to_owned();
        bad.help = "\r".to_owned();
        bad.at = Some(Place { file: "a\x1bb".into(), line: 1, column: 1 });
        let text = render(&[bad], false);
        assert!(!text.contains(|c: char| c != '\n' && is_dangerous(c)), "{text:?}");
        assert_eq!(text.lines().count(), 8);
    }

    #[test]
    fn counts() {
        let (error, warning) = (problem("", 1, 1), Problem::warning("x", "x", ""));
        assert_eq!(summary(&[error.clone(), warning.clone(), error]), "2 errors, 1 warning");
        assert_eq!(summary(&[]), "no problems");
        assert_eq!(summary(&[Problem::note("x", "x", "")]), "1 note");
    }
}
