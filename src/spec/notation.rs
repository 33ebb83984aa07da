//! The notations of a document: how one is told from its name or its first line, and how messages are worded in each.
//!
//! What lives here: text in, text out. What must not: parsing (`document`, `yaml`).

use std::borrow::Cow;

use super::table;

/// How a document is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notation {
    /// TOML 1.1.
    Toml,
    /// YAML 1.2, core schema, without anchors, aliases, tags and merge keys.
    Yaml,
}

impl Notation {
    /// By the ending of the file's name; `None` when it says nothing (standard input, `spec`).
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let (_, ending) = name.rsplit('/').next()?.rsplit_once('.')?;
        match ending {
            "toml" => Some(Self::Toml),
            "yaml" | "yml" => Some(Self::Yaml),
            _ => None,
        }
    }

    /// By the first line that is neither empty nor a comment: `---`, `%YAML`, `{`, `- ` or a key with `:` is YAML, everything
    /// else is TOML.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        let Some(line) = text.lines().map(str::trim_start).find(|line| !line.is_empty() && !line.starts_with('#')) else {
            return Self::Toml;
        };
        let sign = line.starts_with("---") || line.starts_with("%YAML") || line.starts_with('{') || line.starts_with("- ");
        if sign || !line.starts_with('[') && first_separator(line) == Some(':') { Self::Yaml } else { Self::Toml }
    }

    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Toml => "TOML",
            Self::Yaml => "YAML",
        }
    }

    /// A message, which speaks TOML, in the words of this notation: `[[ca]]` is `ca`, `key = value` is `key: value`.
    #[must_use]
    pub fn said(self, message: &str) -> Cow<'_, str> {
        if self == Self::Toml || !message.contains(['[', '=', 't']) {
            return Cow::Borrowed(message);
        }
        let mut said = String::with_capacity(message.len());
        // what stands between backticks is code
        for (at, piece) in message.split('`').enumerate() {
            if at > 0 {
                said.push('`');
            }
            let piece = headers(piece, at % 2 == 1);
            if at % 2 == 1 {
                said.push_str(&assignments(&piece));
            } else {
                let words = [
                    ("a list of tables", "a list of mappings"),
                    ("a table", "a mapping"),
                    ("takes tables", "takes mappings"),
                    ("texts or tables", "texts or mappings"),
                    (" = [{ … }]", ""),
                ];
                said.push_str(&words.iter().fold(piece, |piece, (toml, yaml)| piece.replace(toml, yaml)));
            }
        }
        Cow::Owned(said)
    }
}

/// The first `=` or `:` outside of quotation marks.
fn first_separator(line: &str) -> Option<char> {
    let mut quote = None;
    for char in line.chars() {
        match (quote, char) {
            (None, '"' | '\'') => quote = Some(char),
            (Some(open), close) if open == close => quote = None,
            (None, '=' | ':') => return Some(char),
            _ => {}
        }
    }
    None
}

/// `[[name]]` and `[name]` → the bare name.
fn headers(piece: &str, code: bool) -> String {
    let tick = if code { "" } else { "`" };
    let mut out = String::with_capacity(piece.len());
    let mut rest = piece;
    while let Some(at) = rest.find('[') {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let (open, close) = if tail.starts_with("[[") { ("[[", "]]") } else { ("[", "]") };
        let inner = tail[open.len()..].split_once(close);
        let is_name = |name: &str| table::DOCUMENT.field(name).is_some();
        if let Some((name, after)) = inner.filter(|(name, _)| is_name(name)) {
            out.push_str(tick);
            out.push_str(name);
            out.push_str(tick);
            rest = after;
        } else {
            out.push_str(open);
            rest = &tail[open.len()..];
        }
    }
    out.push_str(rest);
    out
}

/// `key = value` → `key: value`.
fn assignments(code: &str) -> String {
    let said = code.replace(" = ", ": ").replace(": \"\"\"", ": | ");
    if said.contains(": | ") { said.replace("\"\"\"", "") } else { said }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell() {
        for (name, notation) in [
            ("a.toml", Some(Notation::Toml)),
            ("/x.yaml/a.yml", Some(Notation::Yaml)),
            ("a.yaml", Some(Notation::Yaml)),
            ("/x.yaml/spec", None),
            ("standard input", None),
            ("a.json", None),
        ] {
            assert_eq!(Notation::of_name(name), notation, "{name}");
        }
    }

    #[test]
    fn first_lines_tell() {
        for text in ["", "# a: b\n", "version = 1", "[[ca]]\n", "[a.\"b:1\"]", "\"a:b\" = 1", "'a:b'.c = 1\n", "x", "mirror.a = ':'"] {
            assert_eq!(Notation::of_text(text), Notation::Toml, "{text}");
        }
        for text in ["---\nversion: 1", "# c\n\nversion: 1", "{\"version\": 1}", "- a", "\"a=b\": 1", "%YAML 1.2", "mirror:\n", "a: b = c"]
        {
            assert_eq!(Notation::of_text(text), Notation::Yaml, "{text}");
        }
    }

    #[test]
    fn messages_are_said_in_its_words() {
        assert_eq!(Notation::Yaml.said("host [abc]:5000, [runtime]"), "host [abc]:5000, `runtime`");
        let said = |text: &'static str| Notation::Yaml.said(text).into_owned();
        assert_eq!(said("unknown key `x` in [[mirror]]"), "unknown key `x` in `mirror`");
        assert_eq!(said("put it in brackets: `ca = [\"…\"]`"), "put it in brackets: `ca: [\"…\"]`");
        assert_eq!(said("add `pem = \"\"\"-----BEGIN CERTIFICATE-----…\"\"\"`"), "add `pem: | -----BEGIN CERTIFICATE-----…`");
        assert_eq!(said("unknown key `x` in endpoints = [{ … }]"), "unknown key `x` in endpoints");
        assert_eq!(said("host [::1]:5000 = x"), "host [::1]:5000 = x");
        assert_eq!(said("takes a list of tables, not a table"), "takes a list of mappings, not a mapping");
        assert_eq!(Notation::Toml.said("`a = 1` in [[ca]]"), "`a = 1` in [[ca]]");
    }
}
