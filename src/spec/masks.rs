//! What looks like a secret in a text that may not even be a document: no excerpt shows it.
//!
//! What lives here: guesses over text, better too many than too few. What a tree tells stands in [`super::reference`].

use std::ops::Range;

use super::reference::is_a_login;
use super::text::{holds_login, names_a_secret};

/// Private keys, the login in URLs, and what stands behind a key that names a secret.
pub(super) fn secrets_in(text: &str) -> Vec<Range<usize>> {
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
    // most documents have no `@` at all, and one byte is found sooner than words
    if text.as_bytes().contains(&b'@') {
        logins_in_words(text, &mut found);
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

/// `https://user:password@host`, and `user:password@host` without a scheme. Each word is looked at once: a document may be one
/// single word.
fn logins_in_words(text: &str, found: &mut Vec<Range<usize>>) {
    let ends_word = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',');
    let mut start = 0;
    for word in text.split_inclusive(ends_word) {
        let scheme = word.find("://").map(|at| at + "://".len());
        let from = scheme.unwrap_or_else(|| word.len() - word.trim_start_matches(['[', '{', '(']).len());
        let rest = &word[from..];
        // the `@` of a digest is none
        let login = if scheme.is_some() || holds_login(rest) { rest.rfind('@') } else { None };
        if let Some(end) = login.filter(|end| scheme.is_some() || rest[..*end].contains(':')) {
            found.push(start + from..start + from + end);
        }
        start += word.len();
    }
}

/// Every `key = value` and `key: value` of a line whose key names a secret: what stands behind it, until the end of the line
/// or of what begins there. Gives the place until which it has looked.
fn behind_secret_keys(text: &str, start: usize, line: &str, found: &mut Vec<Range<usize>>) -> usize {
    for (at, sign) in line.bytes().enumerate().filter(|(_, byte)| matches!(byte, b'=' | b':')) {
        let unquoted = line[..at].trim_end();
        let before = unquoted.trim_end_matches(['"', '\'']);
        let key = before.rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-'))).next().unwrap_or_default();
        let rest = &line[at + 1..];
        // `secret:5000` is a host; `"secret":5000` is JSON
        let is_key = sign == b'=' || rest.is_empty() || rest.starts_with(char::is_whitespace) || before.len() < unquoted.len();
        let value = rest.trim_start();
        let is_login = key == "credentials" && is_a_login(value.trim_start_matches(['"', '\'']).trim_end());
        if !(names_a_secret(key) || is_login) || !is_key {
            continue;
        }
        let from = start + line.len() - value.len();
        let to = match value.get(..3) {
            Some(quote @ ("\"\"\"" | "'''")) => text[from + 3..].find(quote).map_or(text.len(), |end| from + 3 + end),
            _ if sign == b'=' => start + line.trim_end().len(),
            _ => end_of_yaml(text, start, line, value, before.len() - key.len()),
        };
        found.push(from..to.max(from));
        return to;
    }
    if line.trim_start().strip_prefix("? ").is_some_and(|key| names_a_secret(key.trim())) {
        let to = text[start + line.len()..].find('\n').map_or(text.len(), |end| start + line.len() + end);
        found.push(start + line.len()..to);
        return to;
    }
    0
}

/// Where a value of YAML ends that begins on this line, behind a key in this column: quoted, in braces, or in lines that are
/// further in.
fn end_of_yaml(text: &str, start: usize, line: &str, value: &str, column: usize) -> usize {
    let from = start + line.len() - value.len();
    let line_end = start + line.trim_end().len();
    if let Some(quote) = value.chars().next().filter(|first| matches!(first, '"' | '\'')) {
        return text[from + 1..].find(quote).map_or(text.len(), |end| from + 1 + end).max(line_end);
    }
    if line[..line.len() - value.len()].contains(['{', '[']) {
        return text[from..].find(['}', ']']).map_or(text.len(), |end| from + end).max(line_end);
    }
    let mut to = line_end;
    let mut next = start + line.len();
    for line in text[next..].split_inclusive('\n') {
        let inner = line.trim_start();
        let indent = line.len() - inner.len();
        let belongs = inner.is_empty() || indent > column || value.is_empty() && indent == column && inner.starts_with('-');
        if !belongs {
            break;
        }
        next += line.len();
        if !inner.is_empty() {
            to = start.max(next - (line.len() - line.trim_end().len()));
        }
    }
    to
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_secret_is_left() {
        for text in [
            "password: hunter2",
            "- x: 1\n  password: hunter2\n",
            "password: |\n  hunter2\n\n  hunter2\nafter: 1",
            "a:\n  token:\n  - hunter2\n  - hunter2\n  after: 1",
            "token:\n  hunter2\nafter: 1",
            "{password: hunter2, after: 1}",
            "{password: x\nhunter2, y: z}\nafter: 1",
            "{\"auth\":\"hunter2\"}",
            "password: \"a\nhunter2\nb\"\nafter: 1",
            "? password\n: hunter2\nafter: 1",
            "password:\n\n\n   hunter2",
            "password: 'hunter2",
        ] {
            let hidden = secrets_in(text);
            let shown: String =
                text.char_indices().filter(|(at, _)| !hidden.iter().any(|range| range.contains(at))).map(|(_, c)| c).collect();
            assert!(!shown.contains("hunter2"), "{text:?}: {shown:?}");
            assert!(!text.contains("\nafter") || shown.contains("\nafter: 1"), "{text:?}: {shown:?}");
        }
        // each piece of a document that is one long word is looked at once
        for word in ["a:@://", "a://@", "a:@", "password:", "password=", "{token: x\n", "-----BEGIN PRIVATE KEY-----"] {
            assert!(!secrets_in(&word.repeat((1 << 20) / word.len())).is_empty(), "{word}");
        }
        assert_eq!(secrets_in("host: secret:5000\nsource: token.example.com"), []);
    }
}
