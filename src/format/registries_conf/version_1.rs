//! registries.conf of version 1, said again in version 2 in the same place: `[registries.search]` becomes
//! `unqualified-search-registries`, each host of `[registries.insecure]` and `[registries.block]` a `[[registry]]`. Every
//! other byte of the file stays, comments inside the lists included; [`undo`] is the way back where the file has been changed
//! since.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::ops::Range;

use toml_edit::{Array, Document, Item, Table, TableLike, Value};

use super::{Conf, Registry, parse, quoted};
use crate::format::KeyEdit;
use crate::format::config_toml::{Refused, Setting, flat, remove, set};
use crate::model::order::{self, Gather as _};
use crate::model::path::NodePath;
use crate::model::place::Place;

/// A file that was of version 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The same in version 2.
    pub text: String,
    /// What was taken out and what was put in: `registries.<list>.registries`, `unqualified-search-registries`, and
    /// `registry.<host>`, whose value is the lines of the table.
    pub edits: Vec<KeyEdit>,
    /// What the file says, each entry with its place in version 1.
    pub said: Conf,
}

const LISTS: [&str; 3] = ["search", "insecure", "block"];
pub(super) const SEARCH: &str = "unqualified-search-registries";
pub(super) const REGISTRY: &str = "registry";

/// One of the three lists.
struct List<'a> {
    name: &'static str,
    array: &'a Array,
    value: Range<usize>,
    /// The table's header and the key in it, where it is written as the manual says and holds nothing else.
    standard: Option<(Range<usize>, Range<usize>)>,
}

/// Says `text`, the content of the main file `file`, in version 2. `None` where it is not of version 1, or invalid.
///
/// # Errors
/// When it is written so that it cannot be edited in place.
pub fn to_version_2(file: &NodePath, text: &str) -> Result<Option<Moved>, Refused> {
    let Ok(said) = parse(file, text, false) else { return Ok(None) };
    if !said.version_1 {
        return Ok(None);
    }
    let (mark, body) = without_mark(text);
    let shifted = |refused: Refused| Refused { offset: refused.offset + mark.len(), ..refused };
    let document = Document::parse(body)
        .map_err(|error| Refused { why: error.message().to_owned(), offset: error.span().map_or(0, |at| at.start) })?;
    let lists = lists(&document);
    let after = match in_place(body, &document, &lists, &said) {
        Some(after) => after,
        None => rewritten(body, &lists, &said).map_err(shifted)?,
    };
    if !same(file, body, &after).map_err(shifted)? {
        return Err(Refused { why: "saying it in version 2 in place would change its meaning".to_owned(), offset: mark.len() });
    }
    Ok(Some(Moved { text: format!("{mark}{after}"), edits: edits(file, text, mark.len(), &lists, &said), said }))
}

/// The tables that we put in, by prefix, from the edits that the ledger keeps.
#[must_use]
pub fn moved_entries(edits: &[KeyEdit]) -> BTreeMap<String, Registry> {
    let ours = edits.iter().filter_map(|edit| match (edit.key.as_slice(), &edit.to) {
        ([table, prefix], Some(lines)) if table == REGISTRY => Some((prefix.clone(), lines)),
        _ => None,
    });
    let read = |lines: &str| parse(&super::main_file(), &format!("[[registry]]\n{lines}\n"), true).ok();
    ours.filter_map(|(prefix, lines)| Some((prefix.clone(), read(lines)?.registries.remove(&prefix)?))).gathered()
}

pub(super) fn without_mark(text: &str) -> (&str, &str) {
    text.split_at(if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 })
}

fn lists<'a>(document: &'a Document<&str>) -> Vec<List<'a>> {
    let Some(item) = document.get("registries") else { return Vec::new() };
    let read = |name: &'static str| {
        let at = item.as_table_like()?.get(name)?;
        let table = at.as_table_like()?;
        let value = table.get("registries")?;
        let header = match at {
            Item::Table(own) if !own.is_dotted() && !own.is_implicit() && own.len() == 1 => own.span(),
            _ => None,
        };
        let standard = header.zip(table.key("registries").and_then(toml_edit::Key::span));
        Some(List { name, array: value.as_array()?, value: value.span()?, standard })
    };
    LISTS.into_iter().filter_map(read).collect()
}

/// Where nothing else stands in the tables, each is replaced where it stands.
fn in_place(body: &str, document: &Document<&str>, lists: &[List<'_>], said: &Conf) -> Option<String> {
    let eol = line_end(body);
    let first = first_header(document.as_table())?;
    let mut changes: Vec<(Range<usize>, String)> = Vec::new();
    let mut done = BTreeSet::new();
    let mut all: Vec<&List<'_>> = lists.iter().collect();
    order::sort_by_key(&mut all, |list| list.value.start);
    for list in all {
        let (header, key) = list.standard.clone()?;
        let kept = rest_of_line(body, header.end).trim();
        let indent = &body[line_start(body, header.start)..header.start];
        let comment = if kept.is_empty() { String::new() } else { format!("{indent}{kept}{eol}") };
        changes.push((lines(body, &header), comment));
        let whole = lines(body, &(key.start..list.value.end));
        let behind = rest_of_line(body, list.value.end).trim();
        if list.name != "search" {
            changes.push((whole, tables(body, list, behind, said, &mut done, eol)));
        } else if header.start == first {
            // nothing may come between a key of the top and the top
            changes.push((key, SEARCH.to_owned()));
        } else {
            let at = line_start(body, first);
            let value = &body[list.value.clone()];
            let behind = if behind.is_empty() { String::new() } else { format!(" {behind}") };
            changes.push((at..at, format!("{SEARCH} = {value}{behind}{eol}{eol}")));
            changes.push((whole, String::new()));
        }
    }
    order::sort_by_key(&mut changes, |(at, _)| (at.start, at.end));
    let mut after = String::with_capacity(body.len());
    let mut next = 0;
    for (at, text) in changes {
        after.push_str(body.get(next..at.start)?);
        let last = at.end == body.len() && !body.ends_with('\n');
        after.push_str(if last { text.strip_suffix(eol).unwrap_or(&text) } else { &text });
        next = at.end;
    }
    after.push_str(body.get(next..)?);
    Some(after)
}

/// Any other form: the lists are taken out, the search list becomes a key of the top, the tables come last.
fn rewritten(body: &str, lists: &[List<'_>], said: &Conf) -> Result<String, Refused> {
    let eol = line_end(body);
    let mut after = body.to_owned();
    let mut done = BTreeSet::new();
    let mut behind = String::new();
    for list in lists {
        after = remove(&after, &["registries", list.name, "registries"], "", false)?.0;
        if list.name != "search" {
            let tables = tables(body, list, "", said, &mut done, eol);
            if !tables.is_empty() {
                behind.push_str(eol);
                behind.push_str(&tables);
            }
        }
    }
    if let Some(search) = lists.iter().find(|list| list.name == "search") {
        let raw = body.get(search.value.clone()).unwrap_or_default().to_owned();
        after = set(&after, &[Setting { key: vec![SEARCH], raw, why: String::new() }])?.0;
    }
    if !behind.is_empty() && !after.is_empty() && !after.ends_with('\n') {
        after.push_str(eol);
    }
    Ok(after + &behind)
}

/// The lines of a table without its header.
fn inside(entry: &Registry) -> String {
    let mut text = format!("location = {}", quoted(&entry.location));
    for (key, set) in [("insecure", entry.insecure), ("blocked", entry.blocked)] {
        if set {
            let _ = write!(text, "\n{key} = true");
        }
    }
    text
}

/// A table for each host of a list that has none yet, each below the comments that stood with it. `behind`: the comment
/// behind the list.
fn tables(body: &str, list: &List<'_>, behind: &str, said: &Conf, done: &mut BTreeSet<String>, eol: &str) -> String {
    let spans: Vec<Range<usize>> = list.array.iter().filter_map(Value::span).collect();
    let mut comments: Vec<Vec<&str>> = vec![Vec::new(); spans.len().max(1)];
    if !behind.is_empty() {
        comments[0].push(behind);
    }
    let mut from = list.value.start + 1;
    for number in 0..=spans.len() {
        let to = spans.get(number).map_or(list.value.end, |span| span.start);
        for (line, text) in body.get(from..to).unwrap_or_default().lines().enumerate() {
            if let Some(at) = text.find('#') {
                // behind a host on its line: that host's; above one: the next one's
                let of = if line == 0 { number.saturating_sub(1) } else { number };
                comments[of.min(spans.len().saturating_sub(1))].push(text[at..].trim_end());
            }
        }
        from = spans.get(number).map_or(to, |span| span.end);
    }
    let mut text = String::new();
    let mut parted = true;
    for (number, above) in comments.iter().enumerate() {
        let prefix = list.array.get(number).and_then(Value::as_str).map(|host| host.trim_end_matches('/'));
        let entry = prefix.filter(|prefix| !done.contains(*prefix)).and_then(|prefix| said.registries.get(prefix));
        if entry.is_some() && !parted {
            text.push_str(eol);
        }
        for comment in above {
            text.push_str(comment);
            text.push_str(eol);
        }
        if let Some(entry) = entry {
            done.insert(entry.prefix.clone());
            for line in std::iter::once("[[registry]]").chain(inside(entry).lines()) {
                text.push_str(line);
                text.push_str(eol);
            }
            parted = false;
        }
    }
    text
}

fn edits(file: &NodePath, text: &str, mark: usize, lists: &[List<'_>], said: &Conf) -> Vec<KeyEdit> {
    let key = |parts: &[&str]| parts.iter().map(ToString::to_string).collect();
    let raw = |list: &List<'_>| text.get(mark + list.value.start..mark + list.value.end).map(ToOwned::to_owned);
    let mut edits = Vec::new();
    for list in lists {
        let line = Place::at(file.as_str(), text, mark + list.value.start).line;
        let to = match (list.name, list.array.len()) {
            ("search", _) => format!("is now {SEARCH}"),
            (_, 0) => "says nothing and goes".to_owned(),
            (_, 1) => "is now a [[registry]]".to_owned(),
            (_, many) => format!("is now {many} [[registry]]"),
        };
        let why = format!("registries.{} (line {line}) {to}", list.name);
        let key = key(&["registries", list.name, "registries"]);
        edits.push(KeyEdit { key, from: raw(list), to: None, why, secret: false });
    }
    if let Some(list) = lists.iter().find(|list| list.name == "search") {
        let why = "the search list, in version 2".to_owned();
        edits.push(KeyEdit { key: key(&[SEARCH]), from: None, to: raw(list), why, secret: false });
    }
    for entry in said.registries.values() {
        let why = format!("{} of {}, in version 2", entry.prefix, entry.at);
        edits.push(KeyEdit { key: key(&[REGISTRY, &entry.prefix]), from: None, to: Some(inside(entry)), why, secret: false });
    }
    edits
}

/// Whether `after` is of version 2 and says what `before` says; of keys that are not of this format, too.
fn same(file: &NodePath, before: &str, after: &str) -> Result<bool, Refused> {
    let (Ok(old), Ok(new)) = (parse(file, before, false), parse(file, after, false)) else { return Ok(false) };
    let others = |text: &str| {
        let mut all = flat(text)?;
        all.retain(|key, _| {
            let list = key.len() == 3 && key[0] == "registries" && LISTS.contains(&key[1].as_str()) && key[2] == "registries";
            !(list || key[0] == SEARCH || key[0] == REGISTRY)
        });
        Ok::<_, Refused>(all)
    };
    Ok(!new.version_1 && alike(&old, &new) && others(before)? == others(after)?)
}

pub(super) fn alike(one: &Conf, other: &Conf) -> bool {
    let entries = |conf: &Conf| conf.registries.len();
    let means = |registry: &Registry| other.registries.get(&registry.prefix).is_some_and(|there| there.means(registry));
    one.search.as_deref().unwrap_or_default() == other.search.as_deref().unwrap_or_default()
        && entries(one) == entries(other)
        && one.registries.values().all(means)
        && one.aliases == other.aliases
        && one.short_name_mode == other.short_name_mode
        && one.credential_helpers == other.credential_helpers
}

/// Puts version 1 back into a file that somebody has changed since: our tables go as far as they are as we wrote them, and the
/// three lists come back at the end, without what has been removed since. The file then says the same as before.
///
/// # Errors
/// When the file holds something of version 2 by now that is not ours: the two cannot be mixed.
pub fn undo(text: &str, edits: &[KeyEdit]) -> Result<String, String> {
    let file = super::main_file();
    let (mark, body) = without_mark(text);
    let now = parse(&file, text, false).map_err(|invalid| invalid.to_string())?;
    if now.version_1 {
        return Ok(text.to_owned());
    }
    let document = Document::parse(body).map_err(|error| error.message().to_owned())?;
    let mut cuts = Vec::new();
    let mut there: BTreeMap<&str, &str> = BTreeMap::new();
    let value = |key: &str| document.get(key).and_then(Item::span);
    let to = |key: &[&str]| edits.iter().find(|edit| edit.key == key).and_then(|edit| edit.to.as_deref());
    let search = value(SEARCH).filter(|span| body.get(span.clone()) == to(&[SEARCH]));
    if let (Some(span), Some(key)) = (&search, document.key(SEARCH).and_then(toml_edit::Key::span)) {
        cuts.push(lines(body, &(key.start..span.end)));
    }
    let tables = document.get(REGISTRY).and_then(Item::as_array_of_tables);
    for table in tables.into_iter().flat_map(toml_edit::ArrayOfTables::iter) {
        if let Some((prefix, inside, block)) = ours(body, table, to) {
            there.insert(prefix, inside);
            cuts.push(block);
        }
    }
    if cuts.is_empty() {
        return Ok(text.to_owned());
    }
    let eol = line_end(body);
    let mut after = crate::format::config_toml::without(body, cuts);
    for name in LISTS {
        let edit = edits.iter().find(|edit| edit.key == ["registries", name, "registries"]);
        let Some(raw) = edit.and_then(|edit| edit.from.as_deref()) else { continue };
        if name == "search" && search.is_none() {
            continue;
        }
        let says = if name == "insecure" { "insecure = true" } else { "blocked = true" };
        let hosts = there.iter().filter(|(_, inside)| inside.lines().any(|line| line == says)).map(|(prefix, _)| *prefix);
        let raw = if name == "search" { raw.to_owned() } else { left(raw, hosts.gathered()) };
        if !after.is_empty() && !after.ends_with('\n') {
            after.push_str(eol);
        }
        let _ = write!(after, "{eol}[registries.{name}]{eol}registries = {raw}{eol}");
    }
    match parse(&file, &after, false) {
        Ok(back) if alike(&now, &back) => Ok(format!("{mark}{after}")),
        _ => Err("it holds something of version 2 by now, with which the lists of version 1 cannot be mixed".to_owned()),
    }
}

/// A table that is as we wrote it: its prefix, what we wrote in it, and its lines.
fn ours<'a, 'e>(body: &str, table: &'a Table, to: impl Fn(&[&str]) -> Option<&'e str>) -> Option<(&'a str, &'e str, Range<usize>)> {
    let prefix = table.get("location")?.as_str()?;
    let header = table.span()?;
    let end = table.iter().filter_map(|(_, item)| item.span()).map(|span| span.end).max()?;
    let block = lines(body, &(header.start..end));
    let inside = to(&[REGISTRY, prefix])?;
    let is = body.get(block.clone())?.lines().map(str::trim);
    is.eq(std::iter::once("[[registry]]").chain(inside.lines())).then_some((prefix, inside, block))
}

/// A list with the hosts that are there now, as it was where that is the same.
fn left(raw: &str, mut there: BTreeSet<&str>) -> String {
    let Ok(Value::Array(array)) = raw.parse::<Value>() else { return raw.to_owned() };
    let hosts: Vec<&str> = array.iter().filter_map(Value::as_str).map(|host| host.trim_end_matches('/')).collect();
    let all = hosts.iter().collect::<BTreeSet<_>>().len();
    let mut kept: Vec<String> = hosts.into_iter().filter(|host| there.remove(*host)).map(quoted).collect();
    if there.is_empty() && all == kept.len() {
        return raw.to_owned();
    }
    kept.extend(there.into_iter().map(quoted));
    format!("[{}]", kept.join(", "))
}

/// Where the first `[table]` of a file begins.
fn first_header(table: &dyn TableLike) -> Option<usize> {
    let first = |item: &Item| match item {
        Item::Table(table) => {
            let own = table.span().filter(|_| !table.is_dotted() && !table.is_implicit()).map(|span| span.start);
            own.into_iter().chain(first_header(table)).min()
        }
        Item::ArrayOfTables(tables) => tables.iter().filter_map(Table::span).map(|span| span.start).min(),
        _ => None,
    };
    table.iter().filter_map(|(_, item)| first(item)).min()
}

fn line_start(body: &str, at: usize) -> usize {
    body[..at].rfind('\n').map_or(0, |end| end + 1)
}

fn rest_of_line(body: &str, at: usize) -> &str {
    body[at..].split('\n').next().unwrap_or_default()
}

/// Whole lines, with the line end behind them.
pub(super) fn lines(body: &str, span: &Range<usize>) -> Range<usize> {
    let end = body[span.end..].find('\n').map_or(body.len(), |end| span.end + end + 1);
    line_start(body, span.start)..end
}

pub(super) fn line_end(body: &str) -> &'static str {
    match body.find('\n') {
        Some(at) if body[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    }
}

#[cfg(test)]
mod tests;
