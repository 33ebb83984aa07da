//! The document's text: places and excerpts that show no secret.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::masks::secrets_in;
use super::notation::Notation;
use crate::model::order;
use crate::model::place::Place;
use crate::model::problem::{Excerpt, Problem};
use crate::model::secret::MASK;

/// Longest excerpt, in characters: enough for a line, too little for a file on one line.
const WIDEST: usize = 160;

/// The text of the documents, with an index of their lines and of the secrets in them. Several documents stand behind one
/// another: a place in bytes is one in all of them.
#[derive(Clone)]
pub struct Text {
    name: Arc<str>,
    parts: Vec<Part>,
    all: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// What is not shown: ordered, not overlapping.
    secrets: Vec<Range<usize>>,
}

/// One document.
#[derive(Clone)]
struct Part {
    file: Arc<str>,
    notation: Notation,
    start: usize,
    /// Its first line among all.
    line: usize,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({}, {} bytes)", self.name, self.all.len())
    }
}

impl Text {
    /// Takes the text of `file`.
    #[must_use]
    pub fn new(file: Arc<str>, notation: Notation, text: String) -> Self {
        Self::of_all(Arc::clone(&file), vec![(file, notation, text)])
    }

    /// Takes the documents of the folder `name`.
    #[must_use]
    pub fn of_all(name: Arc<str>, documents: Vec<(Arc<str>, Notation, String)>) -> Self {
        let mut text = Self { name, parts: Vec::new(), all: String::new(), lines: Vec::new(), secrets: Vec::new() };
        for (file, notation, document) in documents {
            // a line that ends a document without newline, and the end itself, are still in it
            if !text.parts.is_empty() {
                text.all.push('\n');
            }
            let start = text.all.len();
            text.parts.push(Part { file, notation, start, line: text.lines.len() });
            text.lines.push(start);
            let ends = document.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            text.lines.extend(ends.map(|(at, _)| start + at + 1));
            text.secrets.extend(secrets_in(&document).into_iter().map(|secret| start + secret.start..start + secret.end));
            if text.all.is_empty() { text.all = document } else { text.all.push_str(&document) }
        }
        text.secrets = merged(std::mem::take(&mut text.secrets));
        text
    }

    /// Where each document begins.
    pub fn starts(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.start)
    }

    fn part(&self, offset: usize) -> Option<&Part> {
        let after = self.parts.partition_point(|part| part.start <= offset);
        self.parts.get(after.saturating_sub(1))
    }

    /// The file that a byte is in.
    #[must_use]
    pub fn file_at(&self, offset: usize) -> &Arc<str> {
        self.part(offset).map_or(&self.name, |part| &part.file)
    }

    /// How the document is written that a byte is in.
    #[must_use]
    pub fn notation(&self, offset: usize) -> Notation {
        self.part(offset).map_or(Notation::Toml, |part| part.notation)
    }

    /// Where something stands, said beside something at `here`: `on line 3`, or `at b.toml:3:1` when that is another document.
    #[must_use]
    pub fn seen_from(&self, first: &Place, here: usize) -> String {
        if first.file == *self.file_at(here) { format!("on line {}", first.line) } else { format!("at {first}") }
    }

    /// Takes more of it as secret.
    pub fn hide(&mut self, more: Vec<Range<usize>>) {
        let all = std::mem::take(&mut self.secrets).into_iter().chain(more).collect();
        self.secrets = merged(all);
    }

    /// The name of the file, or of the folder of several.
    #[must_use]
    pub fn file(&self) -> &Arc<str> {
        &self.name
    }

    fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    fn line(&self, number: usize) -> Range<usize> {
        let start = self.lines.get(number).copied().unwrap_or(self.all.len());
        let end = self.lines.get(number + 1).map_or(self.all.len(), |next| next - 1);
        let line = self.all.get(start..end).unwrap_or_default();
        start..start + line.strip_suffix('\r').unwrap_or(line).len()
    }

    /// The place of a byte.
    #[must_use]
    pub fn place(&self, offset: usize) -> Place {
        let offset = offset.min(self.all.len());
        let line = self.line_of(offset);
        let before = self.all.get(self.line(line).start..offset).unwrap_or_default();
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let first = self.part(offset).map_or(0, |part| part.line);
        Place { file: Arc::clone(self.file_at(offset)), line: number(line - first + 1), column: number(before.chars().count() + 1) }
    }

    /// The line in which `span` begins, secrets masked, long lines cut.
    #[must_use]
    pub fn excerpt(&self, span: &Range<usize>) -> Excerpt {
        let line = self.line(self.line_of(span.start.min(self.all.len())));
        let meant = span.start.clamp(line.start, line.end)..span.end.clamp(line.start, line.end);
        let first = self.secrets.partition_point(|secret| secret.end <= line.start);
        let mut secrets = self.secrets[first..].iter().peekable();
        let mut shown: Vec<char> = Vec::new();
        let (mut from, mut to) = (None, None);
        let mut in_secret = false;
        for (at, char) in self.all.get(line.clone()).unwrap_or_default().char_indices() {
            let at = line.start + at;
            while secrets.peek().is_some_and(|secret| secret.end <= at) {
                secrets.next();
                in_secret = false;
            }
            if at >= meant.start && from.is_none() {
                from = Some(shown.len() - if in_secret { MASK.len().min(shown.len()) } else { 0 });
            }
            if at >= meant.end && to.is_none() {
                to = Some(shown.len());
            }
            if secrets.peek().is_some_and(|secret| secret.start <= at) {
                if !in_secret {
                    shown.extend(MASK.chars());
                }
                in_secret = true;
            } else {
                shown.push(char);
            }
        }
        let from = from.unwrap_or(shown.len());
        let to = to.unwrap_or(shown.len()).max(from + 1);
        cut(&shown, from, to)
    }

    /// The same problem, at this place, with its line, and in the words of the document's notation.
    #[must_use]
    pub fn locate(&self, problem: Problem, span: &Range<usize>) -> Problem {
        let problem = Problem { at: Some(self.place(span.start)), excerpt: Some(self.excerpt(span)), ..problem };
        said(problem, self.notation(span.start))
    }

    /// Gives a problem that has a place in these documents its line, from there on, and the words of its notation.
    #[must_use]
    pub fn illustrate(&self, problem: Problem) -> Problem {
        let at = problem.at.as_ref().filter(|place| place.line > 0);
        let found = at.and_then(|place| Some((place, self.parts.iter().find(|part| part.file == place.file)?)));
        let Some((place, part)) = found else { return problem };
        let line = self.line(part.line + place.line as usize - 1);
        let text = self.all.get(line.clone()).unwrap_or_default();
        let column = (place.column as usize).saturating_sub(1);
        let start = text.char_indices().nth(column).map_or(line.end, |(at, _)| line.start + at);
        said(Problem { excerpt: Some(self.excerpt(&(start..line.end))), ..problem }, part.notation)
    }
}

fn said(problem: Problem, notation: Notation) -> Problem {
    match notation {
        Notation::Toml => problem,
        Notation::Yaml => {
            let (what, help) = (notation.said(&problem.what).into_owned(), notation.said(&problem.help).into_owned());
            Problem { what, help, ..problem }
        }
    }
}

fn cut(shown: &[char], from: usize, to: usize) -> Excerpt {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    if shown.len() <= WIDEST {
        return Excerpt { text: shown.iter().collect(), column: number(from + 1), width: number(to - from) };
    }
    let start = from.saturating_sub(WIDEST / 3);
    let end = (start + WIDEST).min(shown.len());
    let mut text = String::new();
    let mut column = from - start;
    if start > 0 {
        text.push('…');
        column += 1;
    }
    text.extend(&shown[start..end]);
    if end < shown.len() {
        text.push('…');
    }
    Excerpt { text, column: number(column + 1), width: number(to.min(end).max(from + 1) - from) }
}

fn merged(mut ranges: Vec<Range<usize>>) -> Vec<Range<usize>> {
    ranges.retain(|range| range.start < range.end);
    order::sort_by_key(&mut ranges, |range| range.start);
    let mut merged: Vec<Range<usize>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match merged.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => merged.push(range),
        }
    }
    merged
}

/// Whether a key of this name holds a secret.
#[must_use]
pub fn names_a_secret(key: &str) -> bool {
    // the keys that a document consists of; each is asked about several times
    if matches!(key, "source" | "endpoints" | "fallback" | "mirror" | "host" | "ca" | "name" | "file" | "registry" | "version") {
        return false;
    }
    let key = key.to_ascii_lowercase().replace('-', "_");
    ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey", "private_key", "authorization", "bearer", "cookie"]
        .iter()
        .any(|word| key.contains(word))
        || matches!(key.as_str(), "auth" | "auths" | "pass" | "pwd" | "basic" | "basic_auth")
}

/// Whether a header of this name holds a login: more names than keys of a document have.
#[must_use]
pub fn names_a_login(header: &str) -> bool {
    let name = header.to_ascii_lowercase();
    names_a_secret(&name) || ["auth", "credential", "key", "session", "signature", "jwt", "csrf"].iter().any(|word| name.contains(word))
}

/// Whether the value of a header is a login, whatever the header is called.
#[must_use]
pub fn is_a_login(value: &str) -> bool {
    let scheme = value.trim_start().split(' ').next().unwrap_or_default();
    ["basic", "bearer", "digest", "negotiate", "token"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
        || holds_private_key(value)
        || value.contains("://") && holds_login(value)
}

/// Whether a text holds a private key.
#[must_use]
pub fn holds_private_key(text: &str) -> bool {
    // nearly no text has a dash in it, and one byte is found sooner
    text.as_bytes().contains(&b'-') && text.contains("PRIVATE KEY-----")
}

/// Whether a host, endpoint or image has a login in it: `user:password@host`. The `@` of a digest is none.
#[must_use]
pub fn holds_login(text: &str) -> bool {
    text.as_bytes().contains(&b'@')
        && text.split('@').skip(1).any(|rest| !["sha256:", "sha384:", "sha512:"].iter().any(|algorithm| rest.starts_with(algorithm)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::new("spec.toml".into(), Notation::Toml, text.to_owned())
    }

    #[test]
    fn places_count_characters() {
        let text = text("a\r\nnaïve = 1\n\n");
        assert_eq!(text.place(0).to_string(), "spec.toml:1:1");
        assert_eq!(text.place(7).to_string(), "spec.toml:2:4");
        assert_eq!(text.place(999).to_string(), "spec.toml:4:1");
        assert_eq!(text.excerpt(&(3..8)), Excerpt { text: "naïve = 1".into(), column: 1, width: 4 });
        assert_eq!(text.excerpt(&(0..0)).text, "a");
    }

    #[test]
    fn excerpts_mask_what_looks_like_a_secret() {
        for line in [
            "password = \"hunter2\"",
            "x = { registry-token = 'hunter2', y = 1 }",
            "\"auth\": \"hunter2\"",
            "endpoints = [\"https://me:hunter2@host/x\"]",
            "auth = \"\"\"\nhunter2\nhunter2\"\"\"",
            "k = '''-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----'''",
            "identitytoken = hunter2",
        ] {
            let text = text(line);
            for at in 0..line.len() {
                assert!(!text.excerpt(&(at..at + 3)).text.contains("hunter2"), "{line}");
            }
        }
        let text = text("endpoints = [\"https://me:hunter2@host/x\"]");
        assert_eq!(text.excerpt(&(13..40)), Excerpt { text: format!("endpoints = [\"https://{MASK}@host/x\"]"), column: 14, width: 25 });
    }

    #[test]
    fn long_lines_are_cut() {
        let line = format!("{}x{}", "a".repeat(5000), "b".repeat(5000));
        let excerpt = text(&line).excerpt(&(5000..5001));
        assert!(excerpt.text.chars().count() <= WIDEST + 2);
        assert_eq!(excerpt.text.chars().nth(excerpt.column as usize - 1), Some('x'));
    }

    #[test]
    fn several_documents_keep_their_places() {
        let parts = [("a.toml", Notation::Toml, "x = 1"), ("b.yaml", Notation::Yaml, "y: 1\nz: 2\n"), ("c.toml", Notation::Toml, "")];
        let text = Text::of_all("dir".into(), parts.map(|(file, notation, text)| (file.into(), notation, text.to_owned())).to_vec());
        assert_eq!(text.starts().collect::<Vec<_>>(), [0, 6, 17]);
        for (at, place) in
            [(0, "a.toml:1:1"), (5, "a.toml:1:6"), (6, "b.yaml:1:1"), (11, "b.yaml:2:1"), (16, "b.yaml:3:1"), (17, "c.toml:1:1")]
        {
            assert_eq!(text.place(at).to_string(), place);
        }
        assert_eq!(text.excerpt(&(11..12)).text, "z: 2");
        let problem = Problem::error("x", "`a = 1`", "").at(Place { file: "b.yaml".into(), line: 2, column: 4 });
        let shown = text.illustrate(problem);
        assert_eq!((shown.excerpt.unwrap().text.as_str(), shown.what.as_str()), ("z: 2", "`a: 1`"));
        assert_eq!(text.seen_from(&text.place(11), 6), "on line 2");
        assert_eq!(text.seen_from(&text.place(11), 0), "at b.yaml:2:1");
    }
}
