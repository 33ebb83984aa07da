//! Tables and keys of somebody else's TOML file, taken out by cutting bytes: everything else survives as it is.

use std::ops::Range;

use toml_edit::{Item, TableLike};

use super::super::KeyEdit;
use super::edit::{Edited, Form, descend, flat, own_end, parse, refused, remove_inline, start, without};

/// Takes out what stands at `path`, a key or a table with all that is below it, however it is written. Comments inside a
/// table that goes go with it; those between tables stay. Each value that goes is an edit, so that it can be put back after
/// the file has changed otherwise. Nothing there: nothing happens.
///
/// # Errors
/// When the text is no TOML, or cutting would change the meaning of anything else.
pub fn remove(text: &str, path: &[&str], why: &str, secret: bool) -> Edited<(String, Vec<KeyEdit>)> {
    let document = parse(text)?;
    let Some((leaf, tables)) = path.split_last() else { return refused("no key given", 0) };
    let levels = descend(text, &document, tables)?;
    let Some(level) = levels.last().filter(|_| levels.len() == path.len()) else { return Ok((text.to_owned(), Vec::new())) };
    let Some(item) = level.table.get(leaf) else { return Ok((text.to_owned(), Vec::new())) };
    let mut edits = Vec::new();
    let mut key: Vec<String> = path.iter().map(ToString::to_string).collect();
    values(text, item, &mut key, &mut |key, raw| {
        edits.push(KeyEdit { key: key.to_vec(), from: Some(raw.to_owned()), to: None, why: why.to_owned(), secret });
    });
    let after = if let (Form::Inline(braces), Some(span), Some(name)) =
        (&level.form, item.span(), level.table.key(leaf).and_then(toml_edit::Key::span))
    {
        remove_inline(text, level.table, leaf, name.start, span.end, braces)
    } else {
        let mut cuts = Vec::new();
        let name = level.table.key(leaf).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
        cut(text, item, name, &mut cuts);
        without(text, cuts)
    };
    let mut wanted = flat(text)?;
    wanted.retain(|key, _| !key.iter().map(String::as_str).take(path.len()).eq(path.iter().copied()));
    if flat(&after)? != wanted {
        return refused("taking it out in place would change the meaning of other keys", item.span().map_or(0, |span| span.start));
    }
    Ok((after, edits))
}

/// Every value at or below an item, with its raw text.
fn values(text: &str, item: &Item, key: &mut Vec<String>, found: &mut impl FnMut(&[String], &str)) {
    match item {
        Item::Value(value) if !value.as_inline_table().is_some_and(toml_edit::InlineTable::is_dotted) => {
            if let Some(raw) = value.span().and_then(|span| text.get(span)) {
                found(key, raw);
            }
        }
        item => {
            for (name, item) in item.as_table_like().into_iter().flat_map(TableLike::iter) {
                key.push(name.to_owned());
                values(text, item, key, found);
                key.pop();
            }
        }
    }
}

/// The lines of an item whose key begins at `name`.
fn cut(text: &str, item: &Item, name: usize, cuts: &mut Vec<Range<usize>>) {
    match item {
        Item::Table(table) => {
            if !table.is_dotted()
                && !table.is_implicit()
                && let Some(header) = table.span()
            {
                let end = own_end(table).map_or(header.end, |(_, end)| end);
                cuts.push(lines(text, header.start, end));
            }
            for (key, item) in table {
                let own_block = !table.is_dotted() && !table.is_implicit();
                // what stands in the table's own block is cut with it
                if !own_block || has_headers(item) {
                    let name = table.key(key).and_then(toml_edit::Key::span).map_or(0, |span| span.start);
                    cut(text, item, name, cuts);
                }
            }
        }
        Item::ArrayOfTables(tables) => {
            for table in tables {
                cut(text, &Item::Table(table.clone()), name, cuts);
            }
        }
        item => {
            if let Some(span) = item.span() {
                cuts.push(lines(text, name, span.end));
            }
        }
    }
}

fn has_headers(item: &Item) -> bool {
    match item {
        Item::Table(table) => !table.is_dotted(),
        Item::ArrayOfTables(_) => true,
        _ => false,
    }
}

/// Whole lines, with the line end behind them, or at the end of a file without one the line end in front.
fn lines(text: &str, from: usize, to: usize) -> Range<usize> {
    let from = text[..from].rfind('\n').map_or(start(text), |at| at + 1);
    let to = text[to..].find('\n').map_or(text.len(), |at| to + at + 1);
    from..to
}
