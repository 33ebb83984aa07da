//! What changes in a file, as text that may be shown: secrets are masked on both sides.

use std::borrow::Cow;
use std::ops::Range;

use similar::DiffOp;
use similar::algorithms::{Capture, Compact, Replace, myers};

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
    let from = if before.is_empty() { "/dev/null" } else { name };
    let to = if after.is_empty() { "/dev/null" } else { name };
    let mut text = String::new();
    show("--- ", from, &mut text);
    show("+++ ", to, &mut text);
    let lines = |text| str::split_inclusive(text, '\n').collect::<Vec<&str>>();
    let (old, new) = (lines(&before_shown), lines(&after_shown));
    for hunk in similar::group_diff_ops(operations(&old, &new), CONTEXT) {
        let (Some(first), Some(last)) = (hunk.first(), hunk.last()) else { continue };
        let range = |first: Range<usize>, last: Range<usize>| place(first.start..last.end);
        let (from, to) = (range(first.old_range(), last.old_range()), range(first.new_range(), last.new_range()));
        show("@@ ", &format!("-{from} +{to} @@"), &mut text);
        for operation in hunk {
            let is_equal = matches!(operation, DiffOp::Equal { .. });
            for line in &old[operation.old_range()] {
                show(if is_equal { " " } else { "-" }, line, &mut text);
            }
            for line in new[operation.new_range()].iter().filter(|_| !is_equal) {
                show("+", line, &mut text);
            }
        }
    }
    text
}

/// Lines around a change.
const CONTEXT: usize = 3;

/// What leads from one to the other. (`TextDiff` does the same, but has all six algorithms made for three kinds of lines: 0.2 MB.)
fn operations(old: &[&str], new: &[&str]) -> Vec<DiffOp> {
    let mut hook = Compact::new(Replace::new(Capture::new()), old, new);
    match myers::diff(&mut hook, old, 0..old.len(), new, 0..new.len()) {
        Ok(()) => hook.into_inner().into_inner().into_ops(),
    }
}

/// Lines as the head of a hunk says them: the first one and how many; an empty range begins at the line before it.
fn place(lines: Range<usize>) -> String {
    match lines.len() {
        0 => format!("{},0", lines.start),
        1 => (lines.start + 1).to_string(),
        length => format!("{},{length}", lines.start + 1),
    }
}

/// Adds a line without what could change how a terminal shows it.
fn show(sign: &str, line: &str, text: &mut String) {
    text.push_str(sign);
    text.extend(line.chars().filter(|c| !c.is_control() || *c == '\t'));
    text.push('\n');
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
    fn hunks_say_where_they_are() {
        let lines = |range: Range<usize>| range.fold(String::new(), |text, number| text + &number.to_string() + "\n");
        let (before, after) = (lines(0..30), format!("{}new\n{}\rtwo\n{}", lines(0..5), lines(6..20), lines(20..29)));
        let want = "--- /f\n+++ /f\n@@ -3,7 +3,7 @@\n 2\n 3\n 4\n-5\n+new\n 6\n 7\n 8\n\
                    @@ -18,6 +18,7 @@\n 17\n 18\n 19\n+two\n 20\n 21\n 22\n@@ -27,4 +28,3 @@\n 26\n 27\n 28\n-29\n";
        assert_eq!(unified(&before, &after, &[], "/f"), want);
        assert_eq!(unified("", "a", &[], "/f"), "--- /dev/null\n+++ /f\n@@ -0,0 +1 @@\n+a\n");
        assert_eq!(unified("a\nb\n", "", &[], "/f"), "--- /f\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-a\n-b\n");
        assert_eq!(unified("a\r\nb", "a\r\nb\n", &[], "/f"), "--- /f\n+++ /f\n@@ -1,2 +1,2 @@\n a\n-b\n+b\n");
    }

    #[test]
    fn no_control_characters_reach_the_terminal() {
        assert!(!unified("", "x\u{1b}[31mred\n", &[], "/f").contains('\u{1b}'));
    }
}
