//! Entries and the search list of somebody else's file, taken out of it: every other byte stays, and what went is kept as edits,
//! by which it comes back where the file has been changed since.

use std::ops::Range;

use toml_edit::{Document, Item, Table};

use super::parse;
use super::version_1::{REGISTRY, SEARCH, alike, line_end, lines, without_mark};
use crate::format::KeyEdit;
use crate::format::config_toml::{Refused, Setting, flat, remove, set, without};
use crate::model::order;
use crate::model::path::NodePath;

/// Takes the entries whose prefix `goes`, and with `search` the search list, out of `text`, the content of the drop-in `file`. Gives
/// what is left, and an edit for each that went: `registry.<prefix>` with its lines, `unqualified-search-registries`.
///
/// # Errors
/// When the file is invalid, or written so that it cannot be edited in place.
pub fn take_out(
    file: &NodePath,
    text: &str,
    goes: impl Fn(&str) -> bool,
    search: bool,
    why: &str,
) -> Result<(String, Vec<KeyEdit>), Refused> {
    let refused = |why: &str| Refused { why: why.to_owned(), offset: 0 };
    let mut said = parse(file, text, true).map_err(|invalid| refused(&invalid.what))?;
    let (mut after, mut edits) = if search { remove(text, &[SEARCH], why, false)? } else { (text.to_owned(), Vec::new()) };
    let (mark, body) = without_mark(&after);
    let document = Document::parse(body).map_err(|error| refused(error.message()))?;
    let mut cuts = Vec::new();
    for prefix in said.registries.keys().filter(|prefix| goes(prefix)) {
        let mut went = String::new();
        for table in document.get(REGISTRY).and_then(Item::as_array_of_tables).into_iter().flatten() {
            if prefix_of(table) == Some(prefix) {
                let first = cuts.len();
                blocks(body, table, &mut cuts);
                order::sort_by_key(&mut cuts[first..], |cut: &Range<usize>| cut.start);
                for cut in &cuts[first..] {
                    went.push_str(body.get(cut.clone()).unwrap_or_default());
                    if !went.ends_with('\n') {
                        went.push_str(line_end(body));
                    }
                }
            }
        }
        let key = vec![REGISTRY.to_owned(), prefix.clone()];
        edits.push(KeyEdit { key, from: Some(went), to: None, why: why.to_owned(), secret: false });
    }
    let left = without(body, cuts);
    after = format!("{mark}{left}");
    if search {
        said.search = None;
    }
    said.registries.retain(|prefix, _| !goes(prefix));
    let others = |text: &str| {
        let mut all = flat(text)?;
        all.retain(|key, _| key[0] != REGISTRY && !(search && key[0] == SEARCH));
        Ok::<_, Refused>(all)
    };
    let left = parse(file, &after, true).map_err(|invalid| refused(&invalid.what))?;
    if !alike(&said, &left) || others(text)? != others(&after)? {
        return Err(refused("taking it out in place would change the meaning of the rest"));
    }
    Ok((after, edits))
}

/// Whether an edit tells of something that was taken out.
#[must_use]
pub fn is_taken(edit: &KeyEdit) -> bool {
    edit.to.is_none() && matches!(edit.key.as_slice(), [key] if key == SEARCH)
        || edit.to.is_none() && matches!(edit.key.as_slice(), [table, _] if table == REGISTRY)
}

/// The prefix of the entry that was taken out; `None` for the search list.
#[must_use]
pub fn taken_prefix(edit: &KeyEdit) -> Option<&str> {
    edit.key.get(1).map(String::as_str)
}

/// Puts back what was taken out of a file that somebody has changed since: entries at its end, the search list at its top. What it
/// says of the same by now is left as it is.
pub(super) fn put_back(text: &str, edits: &[KeyEdit]) -> Result<String, String> {
    let file = super::main_file();
    let now = parse(&file, text, true).map_err(|invalid| invalid.to_string())?;
    let mut after = text.to_owned();
    let eol = line_end(text);
    for edit in edits.iter().filter(|edit| is_taken(edit)) {
        let Some(raw) = &edit.from else { continue };
        match taken_prefix(edit) {
            None if now.search.is_none() => {
                after =
                    set(&after, &[Setting { key: vec![SEARCH], raw: raw.clone(), why: String::new() }]).map_err(|refused| refused.why)?.0;
            }
            Some(prefix) if !now.registries.contains_key(prefix) => {
                if !after.is_empty() && !after.ends_with('\n') {
                    after.push_str(eol);
                }
                if !after.trim().is_empty() {
                    after.push_str(eol);
                }
                after.push_str(raw);
            }
            _ => {}
        }
    }
    parse(&file, &after, true).map_err(|invalid| invalid.to_string())?;
    Ok(after)
}

/// As the entry is known by: its prefix, else its location.
fn prefix_of(table: &Table) -> Option<&str> {
    let text = |key: &str| table.get(key).and_then(Item::as_str).map(|text| text.trim_end_matches('/')).filter(|text| !text.is_empty());
    text("prefix").or_else(|| text("location"))
}

/// The lines of a table, and of those below it that have headers of their own.
fn blocks(text: &str, table: &Table, found: &mut Vec<Range<usize>>) {
    let Some(header) = table.span() else { return };
    let mut end = header.end;
    for (_, item) in table {
        match item {
            Item::Table(below) if !below.is_dotted() => blocks(text, below, found),
            Item::ArrayOfTables(below) => below.iter().for_each(|below| blocks(text, below, found)),
            item => end = end.max(last(item)),
        }
    }
    found.push(lines(text, &(header.start..end)));
}

/// Where the last value of an item ends.
fn last(item: &Item) -> usize {
    match item {
        Item::Table(table) => table.iter().map(|(_, item)| last(item)).max().unwrap_or_default(),
        item => item.span().map_or(0, |span| span.end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# theirs\nunqualified-search-registries = [\"a.io\"] # list\nshort-name-mode = 'disabled'\n\n# of docker.io\n[[registry]]\n\
        prefix = \"docker.io\" # hub\nlocation = \"theirs.example\"\n\n[[registry.mirror]]\nlocation = \"m.example\"\n\n[aliases]\nx = \"a.io/x\"\n\n\
        [[registry]]\nlocation = \"b.io/\"\nblocked = true\n";

    fn file() -> NodePath {
        NodePath::fixed("/etc/containers/registries.conf.d/zzz.conf")
    }

    fn out(text: &str, prefixes: &[&str], search: bool) -> Result<(String, Vec<KeyEdit>), Refused> {
        take_out(&file(), text, |prefix| prefixes.contains(&prefix), search, "why")
    }

    #[test]
    fn only_what_goes_goes() {
        for text in [TEXT.to_owned(), TEXT.replace('\n', "\r\n"), TEXT.trim_end().to_owned()] {
            let before = parse(&file(), &text, true).unwrap();
            for (prefixes, search) in [(&["docker.io"][..], false), (&["b.io"], false), (&[], true), (&["b.io", "docker.io"], true)] {
                let (after, edits) = out(&text, prefixes, search).unwrap();
                let left = parse(&file(), &after, true).unwrap();
                assert_eq!(left.search.is_some(), !search, "{after}");
                let kept: Vec<&String> = before.registries.keys().filter(|prefix| !prefixes.contains(&prefix.as_str())).collect();
                assert_eq!(left.registries.keys().collect::<Vec<_>>(), kept, "{after}");
                assert_eq!(left.aliases, before.aliases);
                assert!(after.contains("# of docker.io") && after.contains("short-name-mode = 'disabled'"), "{after}");
                assert_eq!(edits.len(), prefixes.len() + usize::from(search));
                // somebody has added something since
                let later = format!("{after}\n# more\n");
                let back = put_back(&later, &edits).unwrap();
                assert!(back.contains("# more"), "{back}");
                assert!(alike(&parse(&file(), &back, true).unwrap(), &before), "{back}");
            }
            assert_eq!(out(&text, &[], false).unwrap(), (text.clone(), Vec::new()));
        }
    }

    #[test]
    fn what_somebody_says_again_counts() {
        let (after, edits) = out(TEXT, &["docker.io", "b.io"], true).unwrap();
        let again =
            format!("{}\n[[registry]]\nlocation = \"docker.io\"\n", after.replace("# theirs", "unqualified-search-registries = []"));
        let back = parse(&file(), &put_back(&again, &edits).unwrap(), true).unwrap();
        assert_eq!((back.search.as_deref(), back.registries["docker.io"].mirrors.len()), (Some(&[][..]), 0));
        assert!(back.registries["b.io"].blocked);
        assert!(put_back("[[registry]]\n", &edits).is_err());
    }

    #[test]
    fn other_forms_are_refused() {
        for text in ["registry = [{ location = \"a.io\" }, { location = \"b.io\" }]\n", "[[registry]]\n"] {
            assert!(out(text, &["a.io"], false).is_err(), "{text}");
        }
    }
}
