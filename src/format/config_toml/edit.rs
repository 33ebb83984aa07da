//! Single keys of somebody else's TOML file: set and taken back by splicing bytes, so that everything else survives as it
//! is: comments, order, odd formatting, CRLF, a byte order mark.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, Table, TableLike, Value};

use super::super::KeyEdit;
use crate::model::order::{self, Gather as _};

/// A key and the value that it should have.
#[derive(Clone, Debug)]
pub struct Setting<'a> {
    /// From the top of the document, the last element is the key itself.
    pub key: Vec<&'a str>,
    /// The value as TOML.
    pub raw: String,
    /// Why, in the words of `plan`.
    pub why: String,
}

/// Why a key cannot be set in place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refused {
    /// As a fragment.
    pub why: String,
    /// Where in the text, in bytes.
    pub offset: usize,
}

pub(in crate::format) type Edited<T> = Result<T, Refused>;

pub(super) fn refused<T>(why: impl Into<String>, offset: usize) -> Edited<T> {
    Err(Refused { why: why.into(), offset })
}

/// Sets keys one after the other. A key that has the value already is left as it is and gives no edit. A table that had to
/// be added is an edit of its own, with its header as value.
///
/// # Errors
/// When the text is no TOML, something on the way to a key is no table, or it is written in a form that cannot be extended
/// in place.
pub fn set(text: &str, settings: &[Setting<'_>]) -> Edited<(String, Vec<KeyEdit>)> {
    let before = flat(text)?;
    let mut wanted = before.clone();
    let mut now = text.to_owned();
    let mut edits = Vec::new();
    for setting in settings {
        let (text, more) = set_one(&now, setting)?;
        now = text;
        edits.extend(more);
        let value: Value = setting.raw.parse().map_err(|_| Refused { why: format!("{} is no TOML value", setting.raw), offset: 0 })?;
        wanted.insert(setting.key.iter().map(ToString::to_string).collect(), meaning(&value));
    }
    // nothing but our keys may have changed its meaning
    if flat(&now)? != wanted {
        return refused("editing it in place would change the meaning of other keys", 0);
    }
    Ok((now, edits))
}

/// How a table is written.
pub(super) enum Form {
    /// The document itself.
    Top,
    /// `[header]`, at these bytes.
    Header(Range<usize>),
    /// Only as part of longer headers.
    Implied,
    /// By dotted keys.
    Dotted,
    /// `{ … }`, at these bytes.
    Inline(Range<usize>),
    /// By dotted keys inside `{ … }`.
    InlineDotted,
}

pub(super) struct Level<'a> {
    pub(super) form: Form,
    pub(super) table: &'a dyn TableLike,
    /// Its name as it is written in the file.
    name: String,
}

/// The tables on the way to a key, as far as they are there.
pub(super) fn descend<'a>(text: &str, document: &'a Document<&str>, tables: &[&str]) -> Edited<Vec<Level<'a>>> {
    let mut levels = vec![Level { form: Form::Top, table: document.as_table(), name: String::new() }];
    for part in tables {
        let table = levels.last().map_or_else(|| document.as_table() as &dyn TableLike, |level| level.table);
        let Some(item) = table.get(part) else { break };
        let span = item.span().unwrap_or_default();
        let name = table.key(part).and_then(toml_edit::Key::span).and_then(|span| text.get(span)).unwrap_or(part).to_owned();
        let level = match item {
            Item::Table(table) => {
                let form = match (table.is_dotted(), table.is_implicit()) {
                    (true, _) => Form::Dotted,
                    (_, true) => Form::Implied,
                    _ => Form::Header(span),
                };
                Level { form, table, name }
            }
            Item::Value(Value::InlineTable(table)) => {
                let form = if table.is_dotted() { Form::InlineDotted } else { Form::Inline(span) };
                Level { form, table, name }
            }
            _ => return refused(format!("{part} is no table"), span.start),
        };
        levels.push(level);
    }
    Ok(levels)
}

pub(super) fn parse(text: &str) -> Edited<Document<&str>> {
    Document::parse(text).map_err(|error| Refused {
        why: format!("TOML syntax: {}", error.message().lines().next().unwrap_or_default()),
        offset: error.span().map_or(0, |span| span.start),
    })
}

fn set_one(text: &str, setting: &Setting<'_>) -> Edited<(String, Vec<KeyEdit>)> {
    let document = parse(text)?;
    let Some((leaf, tables)) = setting.key.split_last() else { return refused("no key given", 0) };
    let levels = descend(text, &document, tables)?;
    let Some(last) = levels.last() else { return refused("no key given", 0) };
    let edit = |key: &[&str], from: Option<&str>, to: String| KeyEdit {
        key: key.iter().map(ToString::to_string).collect(),
        from: from.map(ToOwned::to_owned),
        to: Some(to),
        why: setting.why.clone(),
        secret: false,
    };
    if levels.len() == setting.key.len()
        && let Some(item) = last.table.get(leaf)
    {
        let span = item.span().unwrap_or_default();
        let Some(value) = item.as_value().filter(|value| !value.as_inline_table().is_some_and(toml_edit::InlineTable::is_dotted)) else {
            return refused(format!("{leaf} is a table"), span.start);
        };
        if setting.raw.parse::<Value>().is_ok_and(|wanted| meaning(&wanted) == meaning(value)) {
            return Ok((text.to_owned(), Vec::new()));
        }
        let edit = edit(&setting.key, text.get(span.clone()), setting.raw.clone());
        return Ok((splice(text, span, &setting.raw), vec![edit]));
    }
    let missing = &setting.key[levels.len() - 1..];
    let single = missing.len() == 1;
    let eol = line_end(text);
    match &last.form {
        Form::Top if single => {
            let line = format!("{leaf} = {}", setting.raw);
            let new = match own_end(document.as_table()) {
                Some((key, end)) => insert_line(text, end, &format!("{}{line}", indent(text, key))),
                None => splice(text, start(text)..start(text), &format!("{line}{eol}")),
            };
            Ok((new, vec![edit(&setting.key, None, setting.raw.clone())]))
        }
        Form::Header(header) if single => {
            let (indented_as, end) = own_end(last.table).unwrap_or((header.start, header.end));
            let line = format!("{}{} = {}", indent(text, indented_as), key_text(leaf, text), setting.raw);
            Ok((insert_line(text, end, &line), vec![edit(&setting.key, None, setting.raw.clone())]))
        }
        Form::Top | Form::Header(_) | Form::Implied => {
            let written = levels.iter().skip(1).map(|level| level.name.clone());
            let path: Vec<String> = written.chain(tables[levels.len() - 1..].iter().map(|part| key_text(part, text))).collect();
            let header = format!("[{}]", path.join("."));
            let table = format!("{header}{eol}{} = {}", key_text(leaf, text), setting.raw);
            let new = if text.len() == start(text) {
                format!("{text}{table}{eol}")
            } else if text.ends_with('\n') {
                format!("{text}{eol}{table}{eol}")
            } else {
                // no line end at the end of the file, before and after: that tells `undo` how it was
                format!("{text}{eol}{eol}{table}")
            };
            Ok((new, vec![edit(tables, None, header), edit(&setting.key, None, setting.raw.clone())]))
        }
        Form::Dotted => {
            let Some((key, end)) = own_end(last.table) else { return refused("a dotted key without a value", 0) };
            let base = levels.iter().rposition(|level| !matches!(level.form, Form::Dotted)).unwrap_or(0);
            let written = levels[base + 1..].iter().map(|level| level.name.clone());
            let path: Vec<String> = written.chain(missing.iter().map(|part| key_text(part, text))).collect();
            let line = format!("{}{} = {}", indent(text, key), path.join("."), setting.raw);
            Ok((insert_line(text, end, &line), vec![edit(&setting.key, None, setting.raw.clone())]))
        }
        Form::Inline(braces) => {
            let value = missing[1..].iter().rev().fold(setting.raw.clone(), |raw, part| format!("{{ {} = {raw} }}", key_text(part, text)));
            let entry = format!("{} = {value}", key_text(missing[0], text));
            let ends = inline_ends(last.table);
            let new = match ends {
                Some(end) if text[end..braces.end].contains([',', '#', '\n']) => {
                    return refused("an inline table over several lines cannot be extended in place", braces.start);
                }
                Some(end) => splice(text, end..end, &format!(", {entry}")),
                None => splice(text, braces.start + 1..braces.start + 1, &format!(" {entry} ")),
            };
            let key = &setting.key[..levels.len()];
            Ok((new, vec![edit(key, None, value)]))
        }
        Form::InlineDotted => refused("dotted keys inside an inline table cannot be extended in place", 0),
    }
}

/// Takes our keys back: removes those that we added, restores the raw old value of those that we changed. A key that somebody
/// has changed since is left alone, and so is a table that holds something else by now.
///
/// # Errors
/// When the text is no TOML, or taking the keys back would change anything else.
pub fn undo(text: &str, edits: &[KeyEdit]) -> Result<String, String> {
    let mut now = text.to_owned();
    for edit in edits.iter().rev() {
        now = undo_one(&now, edit).map_err(|refused| refused.why)?;
    }
    let flat = |text: &str| flat(text).map_err(|refused| refused.why);
    let (mut before, mut after) = (flat(text)?, flat(&now)?);
    for edit in edits {
        before.retain(|key, _| !key.starts_with(&edit.key));
        after.retain(|key, _| !key.starts_with(&edit.key));
    }
    if before == after { Ok(now) } else { Err("taking keys back would change the meaning of others".to_owned()) }
}

fn undo_one(text: &str, edit: &KeyEdit) -> Edited<String> {
    let document = parse(text)?;
    let key: Vec<&str> = edit.key.iter().map(String::as_str).collect();
    let Some((leaf, tables)) = key.split_last() else { return Ok(text.to_owned()) };
    let levels = descend(text, &document, tables)?;
    let found = levels.last().filter(|_| levels.len() == key.len()).and_then(|level| level.table.get(leaf));
    let (Some(item), Some(level)) = (found, levels.last()) else {
        return match (&edit.from, &edit.to) {
            (Some(raw), None) => Ok(set_one(text, &Setting { key, raw: raw.clone(), why: String::new() })?.0),
            _ => Ok(text.to_owned()),
        };
    };
    let span = item.span().unwrap_or_default();
    if text.get(span.clone()) != edit.to.as_deref() {
        return Ok(text.to_owned());
    }
    if let Some(raw) = &edit.from {
        return Ok(splice(text, span, raw));
    }
    if let Item::Table(table) = item {
        return Ok(if own_end(table).is_none() { remove_header(text, &span) } else { text.to_owned() });
    }
    let key_start = level.table.key(leaf).and_then(toml_edit::Key::span).unwrap_or_default().start;
    Ok(match &level.form {
        Form::Inline(braces) => remove_inline(text, level.table, leaf, key_start, span.end, braces),
        _ => remove_line(text, key_start, span.end),
    })
}

pub(super) fn remove_inline(text: &str, table: &dyn TableLike, leaf: &str, from: usize, to: usize, braces: &Range<usize>) -> String {
    let ends = table.iter().filter(|(key, _)| *key != leaf).filter_map(|(_, item)| inline_end(item)).filter(|end| *end < from);
    if let Some(end) = ends.max() {
        return splice(text, end..to, "");
    }
    let starts = table.iter().filter_map(|(key, _)| table.key(key)?.span()).map(|span| span.start).filter(|start| *start > from);
    if let Some(next) = starts.min() {
        return splice(text, from..next, "");
    }
    let from = if from > braces.start + 1 && text[..from].ends_with(' ') { from - 1 } else { from };
    let to = if text[to..].starts_with(' ') { to + 1 } else { to };
    splice(text, from..to, "")
}

fn remove_line(text: &str, key: usize, value_end: usize) -> String {
    let line_start = text[..key].rfind('\n').map_or(start(text), |at| at + 1);
    let rest_end = text[value_end..].find('\n').map_or(text.len(), |at| value_end + at);
    let rest = &text[value_end..rest_end];
    if !rest.trim().is_empty() {
        // somebody's comment stays
        let comment = value_end + (rest.len() - rest.trim_start().len());
        let first = line_start + indent(text, key).len();
        return splice(text, first..comment, "");
    }
    if rest_end < text.len() {
        return splice(text, line_start..rest_end + 1, "");
    }
    let kept = without_line_end(&text[..line_start]);
    kept.to_owned()
}

/// A header that we added, and the empty line in front of it.
fn remove_header(text: &str, header: &Range<usize>) -> String {
    let line_start = text[..header.start].rfind('\n').map_or(start(text), |at| at + 1);
    let before = &text[..line_start];
    match text[header.end..].find('\n') {
        Some(at) if text[header.end..header.end + at].trim().is_empty() => {
            let shorter = without_line_end(before);
            let before = if shorter.ends_with('\n') { shorter } else { before };
            format!("{before}{}", &text[header.end + at + 1..])
        }
        None if text[header.end..].trim().is_empty() => without_line_end(without_line_end(before)).to_owned(),
        // somebody's comment stands behind it: it stays a table
        _ => text.to_owned(),
    }
}

fn without_line_end(text: &str) -> &str {
    text.strip_suffix("\r\n").or_else(|| text.strip_suffix('\n')).unwrap_or(text)
}

fn splice(text: &str, at: Range<usize>, with: &str) -> String {
    format!("{}{with}{}", &text[..at.start], &text[at.end..])
}

/// Puts a line behind the one in which byte `behind` stands.
fn insert_line(text: &str, behind: usize, line: &str) -> String {
    let eol = line_end(text);
    match text[behind..].find('\n') {
        Some(at) => splice(text, behind + at + 1..behind + at + 1, &format!("{line}{eol}")),
        None => format!("{text}{eol}{line}"),
    }
}

/// The text without these bytes.
pub(in crate::format) fn without(text: &str, mut cuts: Vec<Range<usize>>) -> String {
    order::sort_by_key(&mut cuts, |cut| cut.start);
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    for cut in cuts {
        kept.push_str(text.get(at..cut.start).unwrap_or_default());
        at = at.max(cut.end);
    }
    kept.push_str(text.get(at..).unwrap_or_default());
    kept
}

/// Behind the byte order mark.
pub(super) fn start(text: &str) -> usize {
    if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }
}

/// The line ends that the file uses.
fn line_end(text: &str) -> &'static str {
    match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

/// The white space in front of the line in which byte `at` stands.
fn indent(text: &str, at: usize) -> &str {
    let line_start = text[..at].rfind('\n').map_or(start(text), |at| at + 1);
    let line = &text[line_start..];
    &line[..line.len() - line.trim_start_matches([' ', '\t']).len()]
}

/// A key as it is written: bare where that is possible, else with the quotes that the file uses for plugin names.
fn key_text(key: &str, text: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if bare {
        key.to_owned()
    } else if text.contains("'io.containerd.") && !text.contains("\"io.containerd.") && !key.contains(['\'', '\n']) {
        format!("'{key}'")
    } else {
        super::super::hosts_toml::render::quoted(key)
    }
}

/// Start of the last key that is written directly in a table (also as a dotted one), and the end of its value.
pub(super) fn own_end(table: &dyn TableLike) -> Option<(usize, usize)> {
    let entry = |(key, item): (&str, &Item)| match item {
        Item::Value(value) => Some((table.key(key)?.span()?.start, value.span()?.end)),
        Item::Table(table) if table.is_dotted() => own_end(table),
        _ => None,
    };
    table.iter().filter_map(entry).max_by_key(|(_, end)| *end)
}

/// The end of the last entry between braces.
fn inline_ends(table: &dyn TableLike) -> Option<usize> {
    table.iter().filter_map(|(_, item)| inline_end(item)).max()
}

fn inline_end(item: &Item) -> Option<usize> {
    match item {
        Item::Value(Value::InlineTable(table)) if table.is_dotted() => inline_ends(table),
        item => item.span().map(|span| span.end),
    }
}

pub(in crate::format) type Flat = BTreeMap<Vec<String>, String>;

/// Every value by its key: what the file means, without how it is written.
pub(in crate::format) fn flat(text: &str) -> Edited<Flat> {
    let document = parse(text)?;
    let mut found = Flat::new();
    flatten(document.as_table(), &mut Vec::new(), &mut found);
    Ok(found)
}

fn flatten(table: &dyn TableLike, path: &mut Vec<String>, found: &mut Flat) {
    for (key, item) in table.iter() {
        path.push(key.to_owned());
        match item {
            Item::ArrayOfTables(tables) => {
                for (number, table) in tables.iter().enumerate() {
                    let table: &Table = table;
                    path.push(number.to_string());
                    flatten(table, path, found);
                    path.pop();
                }
            }
            Item::Value(value) if !value.is_inline_table() => {
                found.insert(path.clone(), meaning(value));
            }
            item => {
                if let Some(table) = item.as_table_like() {
                    flatten(table, path, found);
                }
            }
        }
        path.pop();
    }
}

/// A value without its formatting.
fn meaning(value: &Value) -> String {
    match value {
        Value::String(text) => format!("{:?}", text.value()),
        Value::Integer(number) => number.value().to_string(),
        Value::Float(number) => format!("{:?}", number.value()),
        Value::Boolean(truth) => truth.value().to_string(),
        Value::Datetime(time) => format!("@{}", time.value()),
        Value::Array(array) => format!("[{}]", array.iter().map(meaning).collect::<Vec<_>>().join(",")),
        Value::InlineTable(table) => {
            let entries: BTreeMap<&str, String> = table.iter().map(|(key, value)| (key, meaning(value))).gathered();
            format!("{entries:?}")
        }
    }
}
