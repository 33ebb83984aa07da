//! What changes in a file, as text that may be shown: secrets are masked on both sides.

use std::borrow::Cow;

use similar::TextDiff;

use crate::model::secret::{MASK, Secret, mask};

/// Words that make the value beside them a secret, in whatever file they stand.
const SECRET_WORDS: [&str; 7] = ["authorization", "auth", "password", "passwd", "token", "secret", "private_key"];

/// A unified diff of `before` and `after`, each masked: by value with `secrets`, and by the look of it (private keys, values
/// beside `auth`, `password`, `Authorization`, … in TOML and JSON), because what is on the node may hold secrets that the
/// spec does not know. Empty when nothing visible differs.
#[must_use]
pub fn unified(before: &str, after: &str, secrets: &[Secret], name: &str) -> String {
    let before_shown = mask(&scrub(before), secrets);
    let after_shown = mask(&scrub(after), secrets);
    if before_shown == after_shown {
        return if before == after { String::new() } else { format!("--- {name}\n+++ {name}\n  (only a secret in it changes)\n") };
    }
    let diff = TextDiff::from_lines(&before_shown, &after_shown);
    let mut text = String::new();
    let from = if before.is_empty() { "/dev/null" } else { name };
    let to = if after.is_empty() { "/dev/null" } else { name };
    let body = diff.unified_diff().context_radius(3).missing_newline_hint(false).header(from, to).to_string();
    for line in body.lines() {
        text.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
        text.push('\n');
    }
    text
}

/// `text` with everything masked that looks like a secret.
#[must_use]
pub fn scrub(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_key = false;
    for line in text.split_inclusive('\n') {
        if line.contains("-----BEGIN ") && line.contains("PRIVATE KEY-----") {
            in_key = true;
            out.push_str(line);
        } else if line.contains("-----END ") && line.contains("PRIVATE KEY-----") {
            in_key = false;
            out.push_str(line);
        } else if in_key {
            out.push_str(MASK);
            out.push('\n');
        } else {
            scrub_line(&without_userinfo(line), &mut out);
        }
    }
    out
}

/// `line` with the user and password of each URL masked: `https://user:password@host`.
fn without_userinfo(line: &str) -> Cow<'_, str> {
    if !line.contains('@') || !line.contains("://") {
        return Cow::Borrowed(line);
    }
    let mut pieces = line.split("://");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        out.push_str("://");
        let authority = piece.find(|c: char| matches!(c, '/' | '"' | '\'' | '?' | '#') || c.is_whitespace()).unwrap_or(piece.len());
        match piece[..authority].rfind('@') {
            Some(at) => {
                out.push_str(MASK);
                out.push_str(&piece[at..]);
            }
            None => out.push_str(piece),
        }
    }
    Cow::Owned(out)
}

/// Masks each quoted value that follows a key with a secret's word: `Authorization = "…"`, `"auth": "…"`, also several in
/// one line and values in a list.
fn scrub_line(line: &str, out: &mut String) {
    let lower = line.to_lowercase();
    if !SECRET_WORDS.iter().any(|word| lower.contains(word)) {
        out.push_str(line);
        return;
    }
    let mut rest = line;
    let mut armed = false;
    while let Some(open) = rest.find(['"', '\'']) {
        let quote = rest[open..].chars().next().unwrap_or('"');
        let (head, tail) = rest.split_at(open);
        armed = armed && !head.contains([',', '}']) || ends_like_a_secret_key(head) || armed && head.contains('[');
        let Some(length) = closing(&tail[1..], quote) else { break };
        let value = &tail[1..=length];
        let behind = &tail[length + 2..];
        out.push_str(head);
        let is_key = behind.trim_start().starts_with(['=', ':']);
        if armed && !is_key {
            out.push(quote);
            out.push_str(MASK);
            out.push(quote);
        } else {
            out.push_str(&tail[..length + 2]);
        }
        if is_key {
            armed = secret_word(value);
        }
        rest = behind;
    }
    out.push_str(rest);
}

/// Index of the last character before the closing quote, counted in the text behind the opening one.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quote == '"' => escaped = true,
            c if c == quote => return Some(at),
            _ => {}
        }
    }
    None
}

fn ends_like_a_secret_key(head: &str) -> bool {
    head.trim_end().trim_end_matches('[').trim_end().strip_suffix(['=', ':']).is_some_and(|key| {
        let key = key.trim_end().trim_end_matches(['"', '\'']);
        secret_word(key.rsplit(|c: char| !c.is_alphanumeric() && c != '_' && c != '-').next().unwrap_or(""))
    })
}

fn secret_word(key: &str) -> bool {
    let key = key.to_lowercase();
    SECRET_WORDS.iter().any(|word| key.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_what_looks_like_a_secret() {
        for (text, want) in [
            ("Authorization = \"Basic abc\"\n", format!("Authorization = \"{MASK}\"\n")),
            ("  Authorization = [\"Basic abc\"] # x\n", format!("  Authorization = [\"{MASK}\"] # x\n")),
            ("{\"auths\": {\"h:5\": {\"auth\": \"abc\"}}}", format!("{{\"auths\": {{\"h:5\": {{\"auth\": \"{MASK}\"}}}}}}")),
            ("{\"password\":\"a\\\"b\",\"user\":\"u\"}", format!("{{\"password\":\"{MASK}\",\"user\":\"u\"}}")),
            ("[host.\"https://u:pw@h/v2\"] # a@b\n", format!("[host.\"https://{MASK}@h/v2\"] # a@b\n")),
            ("password = 'x'\nuser = 'y'\n", format!("password = '{MASK}'\nuser = 'y'\n")),
            ("[plugins.\"x\".registry.configs.\"h\".auth]\n", "[plugins.\"x\".registry.configs.\"h\".auth]\n".to_owned()),
            (
                "-----BEGIN EC PRIVATE KEY-----\nabc\n-----END EC PRIVATE KEY-----\n",
                format!("-----BEGIN EC PRIVATE KEY-----\n{MASK}\n-----END EC PRIVATE KEY-----\n"),
            ),
        ] {
            assert_eq!(scrub(text), want);
        }
    }

    #[test]
    fn both_sides_are_masked() {
        let secrets = [Secret::new("newpass")];
        let diff = unified("a\npassword = \"oldpass\"\nx\n", "b\npassword = \"newpass\"\nx newpass\n", &secrets, "/f");
        assert!(!diff.contains("oldpass") && !diff.contains("newpass"), "{diff}");
        assert!(diff.contains("-a\n+b\n"), "{diff}");
        assert_eq!(unified("a\n", "a\n", &secrets, "/f"), "");
        assert!(unified("password = \"a\"", "password = \"b\"", &[], "/f").contains("only a secret"));
    }

    #[test]
    fn no_control_characters_reach_the_terminal() {
        assert!(!unified("", "x\u{1b}[31mred\n", &[], "/f").contains('\u{1b}'));
    }
}
