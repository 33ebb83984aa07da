//! Keys that a table does not have: what is likely meant, and where a key belongs.

use std::ops::Range;

use super::super::nearest::nearest;
use super::super::notation::Notation;
use super::super::problems::Problems;
use super::super::table::{self, Kind, TableDef};
use super::super::text::names_a_secret;
use super::short;

/// Reports a key that the table does not have; gives the key of this table that is likely meant.
pub(super) fn unknown(def: &'static TableDef, key: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> Option<&'static str> {
    if names_a_secret(key) {
        let what = format!("`{}` in {}: a secret does not belong in the document", short(key), def.header);
        let help = "put the login into a dockerconfigjson file and name it with `credentials` under [[registry]]";
        problems.error("secret-in-spec", span, what, help);
        return None;
    }
    let own = || def.fields.iter();
    let others = || table::TABLES.into_iter().filter(|other| other.header != def.header);
    let folded = key.to_lowercase().replace('-', "_");
    // tables come last: `ca` in a [[mirror]] is more likely a registry's `ca` than a [[ca]]
    let elsewhere = |tables: bool| others().find(|other| other.field(key).is_some_and(|field| field.kind.table().is_some() == tables));
    let known_as = own().find(|field| field.elsewhere.contains(&folded.as_str())).map(|field| field.name);
    let (meant, other) = match (known_as, elsewhere(false)) {
        (Some(name), _) => (Some(name), None),
        (None, Some(other)) => (None, Some(other)),
        (None, None) => match nearest(key, own().map(|field| field.name)) {
            Some(name) => (Some(name), None),
            None => (None, elsewhere(true)),
        },
    };
    let notation = problems.text().notation(span.start);
    let help = if let Some(other) = other {
        belongs(other, key, notation)
    } else if let Some(field) = meant.and_then(|name| def.field(name)) {
        let table = field.kind.table().filter(|_| !matches!(field.kind, Kind::TextsOrTables(_)));
        table.map_or_else(|| format!("write `{}`", field.name), |table| format!("write {}", table.header))
    } else if let Some((other, name)) =
        others().find_map(|other| nearest(key, other.fields.iter().map(|field| field.name)).map(|name| (other, name)))
    {
        belongs(other, name, notation)
    } else {
        let names: Vec<String> = own().map(|field| format!("`{}`", field.name)).collect();
        format!("use one of {}", names.join(", "))
    };
    problems.error("unknown-key", span, format!("unknown key `{}` in {}", short(key), def.header), help);
    meant
}

fn belongs(def: &TableDef, name: &str, notation: Notation) -> String {
    match def.name {
        "" if def.field(name).is_some_and(|field| field.kind.table().is_some()) => format!("write it as {}", header_of(def, name)),
        "" if notation == Notation::Yaml => format!("put `{name}` at the top of the document, without indentation"),
        "" => format!("put `{name}` at the top of the document, above the first table"),
        _ => format!("put `{name}` under {}, where it belongs", def.header),
    }
}

fn header_of(def: &TableDef, name: &str) -> &'static str {
    def.field(name).and_then(|field| field.kind.table()).map_or("a table", |table| table.header)
}
