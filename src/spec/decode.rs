//! Tree → what is written, by the table of keys: every unknown key, wrong type and missing key at once.
//!
//! What lives here: one generic walk over [`super::table`] and the plain structs that it fills. What must not: whether a
//! value makes sense (`validate`).

use std::ops::Range;

use super::Scope;
use super::document::{Node, Scalar, Tree};
use super::nearest::nearest;
use super::problems::Problems;
use super::table::{self, Field, Kind, TableDef, When};
use super::text::{holds_private_key, names_a_secret};
use crate::spec::{Fallback, Unlisted};

/// A value and where it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub span: Range<usize>,
}

/// The document as it is written. What was reported as wrong is missing.
#[derive(Clone, Debug, Default)]
pub struct Raw {
    /// `version`.
    pub version: Option<At<i64>>,
    /// `fallback`.
    pub fallback: Option<At<Fallback>>,
    /// `unlisted`.
    pub unlisted: Option<Unlisted>,
    /// `runtimes`.
    pub runtimes: Option<At<Vec<At<String>>>>,
    /// `[[ca]]`.
    pub cas: Vec<RawCa>,
    /// `[[registry]]`.
    pub registries: Vec<RawRegistry>,
    /// `[[mirror]]`.
    pub mirrors: Vec<RawMirror>,
    /// `[runtime] pause_image`.
    pub pause_image: Option<At<String>>,
}

/// A `[[ca]]`.
#[derive(Clone, Debug)]
pub struct RawCa {
    /// Its header.
    pub at: Range<usize>,
    /// `name`.
    pub name: Option<At<String>>,
    /// `file`.
    pub file: Option<At<String>>,
    /// `pem`.
    pub pem: Option<At<String>>,
    /// `trust`.
    pub scope: Option<Scope>,
    /// A key that could hold the certificates is there but wrong, and reported.
    pub source_reported: bool,
}

/// A `[[registry]]`.
#[derive(Clone, Debug)]
pub struct RawRegistry {
    /// Its header.
    pub at: Range<usize>,
    /// `host`.
    pub host: Option<At<String>>,
    /// `ca`.
    pub ca: Option<At<Vec<At<String>>>>,
    /// `client_cert`.
    pub client_cert: Option<At<String>>,
    /// `client_key`.
    pub client_key: Option<At<String>>,
    /// `credentials`.
    pub credentials: Option<At<String>>,
    /// `credentials_by`.
    pub credentials_by: Option<At<String>>,
    /// `insecure`.
    pub insecure: Option<At<bool>>,
    /// `allow_plaintext_credentials`.
    pub allow_plaintext_credentials: bool,
}

/// A `[[mirror]]`.
#[derive(Clone, Debug)]
pub struct RawMirror {
    /// Its header.
    pub at: Range<usize>,
    /// `source`.
    pub source: Option<At<String>>,
    /// `endpoints`.
    pub endpoints: Option<At<Vec<At<String>>>>,
    /// `fallback`.
    pub fallback: Option<Fallback>,
}

/// Fills the structs.
#[must_use]
pub fn decode(root: &Node, problems: &mut Problems<'_>) -> Raw {
    secrets(root, problems);
    let row = Row::read(&table::DOCUMENT, root, problems);
    let mut raw = Raw {
        version: row.integer("version"),
        unlisted: row.text("unlisted").map(|word| if word.value == "deny" { Unlisted::Deny } else { Unlisted::Allow }),
        fallback: row.text("fallback").map(|word| At { value: fallback(&word.value), span: word.span }),
        runtimes: row.texts("runtimes", problems),
        ..Raw::default()
    };
    for node in row.tables("ca") {
        let row = Row::read(&table::CA, node, problems);
        raw.cas.push(RawCa {
            at: node.span.clone(),
            name: row.text("name"),
            file: row.text("file"),
            pem: row.text("pem"),
            scope: row.text("trust").map(|word| if word.value == "registries" { Scope::Registries } else { Scope::System }),
            source_reported: row.reported,
        });
    }
    for node in row.tables("registry") {
        let row = Row::read(&table::REGISTRY, node, problems);
        raw.registries.push(RawRegistry {
            at: node.span.clone(),
            host: row.text("host"),
            ca: row.texts("ca", problems),
            client_cert: row.text("client_cert"),
            client_key: row.text("client_key"),
            credentials: row.text("credentials"),
            credentials_by: row.text("credentials_by"),
            insecure: row.flag("insecure"),
            allow_plaintext_credentials: row.flag("allow_plaintext_credentials").is_some_and(|flag| flag.value),
        });
    }
    for node in row.tables("mirror") {
        let row = Row::read(&table::MIRROR, node, problems);
        raw.mirrors.push(RawMirror {
            at: node.span.clone(),
            source: row.text("source"),
            endpoints: row.texts("endpoints", problems),
            fallback: row.text("fallback").map(|word| fallback(&word.value)),
        });
    }
    if let Some(node) = row.value("runtime") {
        let row = Row::read(&table::RUNTIME, node, problems);
        raw.pause_image = row.text("pause_image");
    }
    raw
}

fn fallback(word: &str) -> Fallback {
    if word == "upstream" { Fallback::Upstream } else { Fallback::Never }
}

/// Private keys anywhere in the document.
fn secrets(node: &Node, problems: &mut Problems<'_>) {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) if holds_private_key(text) => problems.error(
            "secret-in-spec",
            &node.span,
            "a private key stands in the document",
            "put it into a file of its own and name that file with `client_key`",
        ),
        Tree::Scalar(_) => {}
        Tree::List(nodes) => nodes.iter().for_each(|node| secrets(node, problems)),
        Tree::Table(entries) => entries.iter().for_each(|entry| secrets(&entry.node, problems)),
    }
}

/// The values of a table that are of the right kind, by the order of its fields.
struct Row<'n> {
    def: &'static TableDef,
    values: Vec<Option<&'n Node>>,
    /// Something in it was wrong.
    reported: bool,
}

impl<'n> Row<'n> {
    fn read(def: &'static TableDef, node: &'n Node, problems: &mut Problems<'_>) -> Self {
        let mut row = Self { def, values: vec![None; def.fields.len()], reported: false };
        let Tree::Table(entries) = &node.value else { return row };
        let mut seen = vec![false; def.fields.len()];
        let errors = problems.errors();
        for entry in entries {
            let Some(index) = def.fields.iter().position(|field| field.name == entry.key) else {
                // a misspelt key is not missing as well
                let meant = unknown(def, &entry.key, &entry.key_span, problems);
                if let Some(index) = meant.and_then(|name| def.fields.iter().position(|field| field.name == name)) {
                    seen[index] = true;
                }
                continue;
            };
            seen[index] = true;
            if fits(def, &def.fields[index], &entry.key_span, &entry.node, problems) {
                row.values[index] = Some(&entry.node);
            }
        }
        row.reported = problems.errors() > errors;
        for (field, seen) in def.fields.iter().zip(seen) {
            if field.required && !seen {
                let place = if def.name.is_empty() { "is missing".to_owned() } else { format!("is missing in {}", def.header) };
                problems.error("missing-key", &node.span, format!("`{}` {place}", field.name), format!("add `{}`", field.example));
            }
        }
        row
    }

    fn value(&self, name: &str) -> Option<&'n Node> {
        let index = self.def.fields.iter().position(|field| field.name == name);
        debug_assert!(index.is_some(), "{name} is not in the table of {}", self.def.header);
        self.values[index?]
    }

    fn text(&self, name: &str) -> Option<At<String>> {
        let node = self.value(name)?;
        Some(At { value: node.text()?.to_owned(), span: node.span.clone() })
    }

    fn integer(&self, name: &str) -> Option<At<i64>> {
        let node = self.value(name)?;
        let Tree::Scalar(Scalar::Integer(value)) = node.value else { return None };
        Some(At { value, span: node.span.clone() })
    }

    fn flag(&self, name: &str) -> Option<At<bool>> {
        let node = self.value(name)?;
        let Tree::Scalar(Scalar::Flag(value)) = node.value else { return None };
        Some(At { value, span: node.span.clone() })
    }

    /// The texts of a list; what is no text in it is reported here.
    fn texts(&self, name: &str, problems: &mut Problems<'_>) -> Option<At<Vec<At<String>>>> {
        let node = self.value(name)?;
        let Tree::List(nodes) = &node.value else { return None };
        let mut value = Vec::with_capacity(nodes.len());
        let mut wrong = false;
        for node in nodes {
            if let Some(text) = node.text() {
                value.push(At { value: text.to_owned(), span: node.span.clone() });
            } else {
                wrong = true;
                let what = format!("`{name}` takes a list of texts; there is {} in it", node.kind());
                problems.error("wrong-type", &node.span, what, "put each entry in quotation marks");
            }
        }
        (!wrong || !value.is_empty()).then(|| At { value, span: node.span.clone() })
    }

    fn tables(&self, name: &str) -> &'n [Node] {
        match self.value(name).map(|node| &node.value) {
            Some(Tree::List(nodes)) => nodes,
            _ => &[],
        }
    }
}

/// Whether a value is of the kind that its key takes; reports when it is not.
fn fits(def: &TableDef, field: &'static Field, key: &Range<usize>, node: &Node, problems: &mut Problems<'_>) -> bool {
    if field.when == When::Later {
        let what = format!("`{}` in {} is not available in this version yet", field.name, def.header);
        problems.error("not-available", key, what, "take it out, or wait for a later nodeprep");
        return false;
    }
    let right = match (&field.kind, &node.value) {
        (Kind::Integer, Tree::Scalar(Scalar::Integer(_)))
        | (Kind::Flag, Tree::Scalar(Scalar::Flag(_)))
        | (Kind::Text, Tree::Scalar(Scalar::Text(_)))
        | (Kind::Texts, Tree::List(_))
        | (Kind::Table(_), Tree::Table(_))
        | (Kind::Any, _) => true,
        (Kind::Tables(inner), Tree::List(nodes)) => {
            let wrong: Vec<&Node> = nodes.iter().filter(|node| !matches!(node.value, Tree::Table(_))).collect();
            for node in &wrong {
                let what = format!("`{}` takes tables; there is {} in it", field.name, node.kind());
                problems.error("wrong-type", &node.span, what, format!("write each one as {}", inner.header));
            }
            return wrong.is_empty();
        }
        (Kind::Word(words), Tree::Scalar(Scalar::Text(text))) => {
            return match words.iter().find(|word| word.name == text) {
                Some(word) if word.when == When::Now => true,
                Some(_) => {
                    let what = format!("`{} = \"{text}\"` is not available in this version yet", field.name);
                    problems.error("not-available", &node.span, what, "take it out, or wait for a later nodeprep");
                    false
                }
                None => {
                    let names: Vec<String> = words.iter().map(|word| format!("\"{}\"", word.name)).collect();
                    let near = nearest(text, words.iter().map(|word| word.name));
                    let help = near.map_or_else(|| format!("write {}", names.join(" or ")), |near| format!("write \"{near}\""));
                    let what = format!("`{}` takes {}; \"{}\" is neither", field.name, names.join(" or "), short(text));
                    problems.error("bad-value", &node.span, what, help);
                    false
                }
            };
        }
        _ => false,
    };
    if !right {
        let help = match (&field.kind, &node.value) {
            (Kind::Tables(inner) | Kind::Table(inner), _) => format!("write {} above its keys", inner.header),
            (Kind::Texts, Tree::Scalar(Scalar::Text(_))) => format!("put it in brackets: `{} = [\"…\"]`", field.name),
            (Kind::Flag, Tree::Scalar(Scalar::Text(_))) => format!("write it without quotation marks: `{}`", field.example),
            _ => format!("write it like `{}`", field.example),
        };
        let span = if matches!(node.value, Tree::Table(_) | Tree::List(_)) { key } else { &node.span };
        problems.error("wrong-type", span, format!("`{}` takes {}, not {}", field.name, field.kind.name(), node.kind()), help);
    }
    right
}

/// Reports a key that the table does not have; gives the key of this table that is likely meant.
fn unknown(def: &'static TableDef, key: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> Option<&'static str> {
    if names_a_secret(key) {
        let what = format!("`{}` in {}: a secret does not belong in the document", short(key), def.header);
        let help = "put the login into a dockerconfigjson file and name it with `credentials` under [[registry]]";
        problems.error("secret-in-spec", span, what, help);
        return None;
    }
    let own = || def.fields.iter().filter(|field| field.when == When::Now);
    let others = || table::TABLES.into_iter().filter(|other| other.header != def.header);
    let folded = key.to_lowercase().replace('-', "_");
    let now = |field: &&Field| field.when == When::Now;
    // tables come last: `ca` in a [[mirror]] is more likely a registry's `ca` than a [[ca]]
    let elsewhere =
        |tables: bool| others().find(|other| other.field(key).filter(now).is_some_and(|field| field.kind.table().is_some() == tables));
    let known_as = own().find(|field| field.elsewhere.contains(&folded.as_str())).map(|field| field.name);
    let (meant, other) = match (known_as, elsewhere(false)) {
        (Some(name), _) => (Some(name), None),
        (None, Some(other)) => (None, Some(other)),
        (None, None) => match nearest(key, own().map(|field| field.name)) {
            Some(name) => (Some(name), None),
            None => (None, elsewhere(true)),
        },
    };
    let help = if let Some(other) = other {
        belongs(other, key)
    } else if let Some(field) = meant.and_then(|name| def.field(name)) {
        field.kind.table().map_or_else(|| format!("write `{}`", field.name), |table| format!("write {}", table.header))
    } else if let Some((other, name)) =
        others().find_map(|other| nearest(key, other.fields.iter().map(|field| field.name)).map(|name| (other, name)))
    {
        belongs(other, name)
    } else {
        let names: Vec<String> = own().map(|field| format!("`{}`", field.name)).collect();
        format!("use one of {}", names.join(", "))
    };
    problems.error("unknown-key", span, format!("unknown key `{}` in {}", short(key), def.header), help);
    meant
}

fn belongs(def: &TableDef, name: &str) -> String {
    match def.name {
        "" if def.field(name).is_some_and(|field| field.kind.table().is_some()) => format!("write it as {}", header_of(def, name)),
        "" => format!("put `{name}` at the top of the document, above the first table"),
        _ => format!("put `{name}` under {}, where it belongs", def.header),
    }
}

fn header_of(def: &TableDef, name: &str) -> &'static str {
    def.field(name).and_then(|field| field.kind.table()).map_or("a table", |table| table.header)
}

/// A name from the document, short enough for a message.
pub fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(59).chain(['…']).collect() }
}
