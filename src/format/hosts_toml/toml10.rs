//! What TOML 1.1 allows and the runtimes' readers, which know TOML 1.0, do not: toml_edit reads both. Distributions build containerd 2.x with whatever
//! go-toml they have: Debian's 2.1.9 takes all of it, upstream's nothing, so it cannot be told from the version and the stricter is assumed.

use toml_edit::{Document, Item, TableLike, Value};

use crate::model::order;
use crate::runtime::containerd::Dialect;

/// The first thing in a document that only TOML 1.1 allows, with its place in bytes: an inline table over several lines or
/// with a comma at its end, the escapes `\e` and `\x..` in a value.
///
/// containerd rejects a file with such a thing as a whole. `lenient`: containerd 1.x (go-toml 1.9) takes inline tables over several lines all the same.
#[must_use]
pub fn newer_than_toml_1_0(document: &Document<&str>, lenient: bool) -> Option<(&'static str, usize)> {
    table(document.as_table(), document.raw(), lenient)
}

/// Why a class of versions does not read such a thing, as a fragment: of the same version of 2.x some builds do and others do
/// not, and what only some can read is nothing to rely on.
#[must_use]
pub fn unread(what: &str, dialect: Dialect) -> String {
    if dialect.is_v2() {
        format!("{what}, which containerd 2.x reads only where it was built with a TOML reader newer than its own")
    } else {
        format!("{what}, which containerd 1.x does not read")
    }
}

fn table(entries: &dyn TableLike, text: &str, lenient: bool) -> Option<(&'static str, usize)> {
    entries.iter().find_map(|(_, entry)| item(entry, text, lenient))
}

fn item(item: &Item, text: &str, lenient: bool) -> Option<(&'static str, usize)> {
    match item {
        Item::Value(found) => value(found, text, lenient),
        Item::Table(found) => table(found, text, lenient),
        Item::ArrayOfTables(found) => found.iter().find_map(|found| table(found, text, lenient)),
        Item::None => None,
    }
}

fn value(value: &Value, text: &str, lenient: bool) -> Option<(&'static str, usize)> {
    let line_break = |gap: &str| !lenient && gap.contains(['\n', '#']);
    let span = value.span()?;
    match value {
        Value::String(_) => {
            let raw = text.get(span.clone())?;
            (raw.starts_with('"') && escapes(raw).any(|escape| matches!(escape, b'e' | b'x')))
                .then_some(("an escape of TOML 1.1", span.start))
        }
        Value::Array(array) => array.iter().find_map(|element| self::value(element, text, lenient)),
        Value::InlineTable(found) => {
            if !found.is_dotted() {
                let mut covered = Vec::new();
                entries(found, &mut covered);
                order::sort(&mut covered);
                let mut at = span.start + 1;
                for (start, end) in covered {
                    if text.get(at..start).is_some_and(line_break) {
                        return Some(("an inline table over several lines", span.start));
                    }
                    at = end;
                }
                if text.get(at..span.end).is_some_and(|gap| line_break(gap) || gap.contains(',')) {
                    return Some(("an inline table that ends with a comma or on another line", span.start));
                }
            }
            table(found, text, lenient)
        }
        _ => None,
    }
}

/// Where the keys and values of an inline table are written, dotted keys included.
fn entries(table: &toml_edit::InlineTable, covered: &mut Vec<(usize, usize)>) {
    for (name, value) in table {
        covered.extend(TableLike::key(table, name).and_then(toml_edit::Key::span).map(|span| (span.start, span.end)));
        match value {
            Value::InlineTable(inner) if inner.is_dotted() => entries(inner, covered),
            value => covered.extend(value.span().map(|span| (span.start, span.end))),
        }
    }
}

/// The characters behind backslashes.
fn escapes(raw: &str) -> impl Iterator<Item = u8> {
    let mut bytes = raw.bytes();
    std::iter::from_fn(move || {
        bytes.find(|byte| *byte == b'\\')?;
        bytes.next()
    })
}
