//! The document's text: places and excerpts that show no secret.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::model::place::Place;
use crate::model::problem::{Excerpt, Problem};
use crate::model::secret::MASK;

/// Longest excerpt, in characters: enough for a line, too little for a file on one line.
const WIDEST: usize = 160;

/// The document's text, with an index of its lines and of the secrets in it.
#[derive(Clone)]
pub struct Text {
    file: Arc<str>,
    all: String,
    /// Where each line begins.
    lines: Vec<usize>,
    /// What is not shown: ordered, not overlapping.
    secrets: Vec<Range<usize>>,
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Text({}, {} bytes)", self.file, self.all.len())
    }
}

impl Text {
    /// Takes the text of `file`.
    #[must_use]
    pub fn new(file: Arc<str>, text: String) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let secrets = merged(secrets_in(&text));
        Self { file, all: text, lines, secrets }
    }

    /// Takes more of it as secret.
    pub fn hide(&mut self, more: Vec<Range<usize>>) {
        let all = std::mem::take(&mut self.secrets).into_iter().chain(more).collect();
        self.secrets = merged(all);
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.all
    }

    /// The name of the file.
    #[must_use]
    pub fn file(&self) -> &Arc<str> {
        &self.file
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
        Place { file: Arc::clone(&self.file), line: number(line + 1), column: number(before.chars().count() + 1) }
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

    /// The same problem, at this place and with its line.
    #[must_use]
    pub fn locate(&self, problem: Problem, span: &Range<usize>) -> Problem {
        Problem { at: Some(self.place(span.start)), excerpt: Some(self.excerpt(span)), ..problem }
    }

    /// Gives a problem that has a place in this document its line, from there on.
    #[must_use]
    pub fn illustrate(&self, problem: Problem) -> Problem {
        let Some(place) = problem.at.as_ref().filter(|place| place.file == self.file && place.line > 0) else { return problem };
        let line = self.line(place.line as usize - 1);
        let text = self.all.get(line.clone()).unwrap_or_default();
        let column = (place.column as usize).saturating_sub(1);
        let start = text.char_indices().nth(column).map_or(line.end, |(at, _)| line.start + at);
        Problem { excerpt: Some(self.excerpt(&(start..line.end))), ..problem }
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
    ranges.sort_by_key(|range| range.start);
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
    text.contains("PRIVATE KEY-----")
}

/// Whether a host, endpoint or image has a login in it: `user:password@host`. The `@` of a digest is none.
#[must_use]
pub fn holds_login(text: &str) -> bool {
    text.split('@').skip(1).any(|rest| !["sha256:", "sha384:", "sha512:"].iter().any(|algorithm| rest.starts_with(algorithm)))
}

/// What looks like a secret in a text that may not even be a document: private keys, the login in URLs, and what stands
/// behind a key that names a secret.
fn secrets_in(text: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("PRIVATE KEY-----") {
        let seen = found.last().is_some_and(|last: &Range<usize>| at < last.end);
        let begins = !seen && text[..at].rfind("-----").is_some_and(|dashes| text[dashes..at].starts_with("-----BEGIN "));
        if begins {
            let from = at + "PRIVATE KEY-----".len();
            let to = text[from..].find("-----END").map_or(text.len(), |end| from + end);
            found.push(from..to);
        }
    }
    for (at, mark) in text.match_indices("://") {
        let from = at + mark.len();
        let rest = &text[from..];
        let end = rest.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',')).unwrap_or(rest.len());
        if let Some(login) = rest[..end].rfind('@') {
            found.push(from..from + login);
        }
    }
    let mut skip_to = 0;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if start >= skip_to {
            skip_to = behind_secret_keys(text, start, line, &mut found);
        }
        start += line.len();
    }
    found
}

/// Every `key = value` of a line whose key names a secret: what stands behind it, until the end of the line or of the text
/// that begins there. Gives the place until which it has looked.
fn behind_secret_keys(text: &str, start: usize, line: &str, found: &mut Vec<Range<usize>>) -> usize {
    for (at, _) in line.match_indices(['=', ':']) {
        let before = line[..at].trim_end().trim_end_matches(['"', '\'']);
        let key = before.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next().unwrap_or_default();
        // `secret:5000` is a host
        let rest = &line[at + 1..];
        if !names_a_secret(key) || line[at..].starts_with(':') && !rest.starts_with(char::is_whitespace) {
            continue;
        }
        let value = rest.trim_start();
        let from = start + line.len() - value.len();
        let to = match value.get(..3) {
            Some(quote @ ("\"\"\"" | "'''")) => text[from + 3..].find(quote).map_or(text.len(), |end| from + 3 + end),
            _ => start + line.trim_end().len(),
        };
        found.push(from..to.max(from));
        return to;
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Text {
        Text::new("spec.toml".into(), text.to_owned())
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
}
