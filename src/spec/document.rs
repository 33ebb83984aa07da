//! The document as a tree in which every key and value knows its place.
//!
//! What lives here: the tree, and TOML text → [`Node`] (YAML: [`super::yaml`]). What must not: the spec's keys, and anything of
//! TOML behind this file: both notations give the same tree.

use std::ops::Range;

use crate::model::order;
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// A value and where it is written, in bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Of a table, its header, or the key that brings it into being.
    pub span: Range<usize>,
    /// What stands there.
    pub value: Tree,
}

/// What a [`Node`] holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Tree {
    /// One value.
    Scalar(Scalar),
    /// Values in order.
    List(Vec<Node>),
    /// Keys with values, in the document's order.
    Table(Vec<Entry>),
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, unquoted.
    pub key: String,
    /// Where the key is written.
    pub key_span: Range<usize>,
    /// Its value.
    pub node: Node,
}

impl Entry {
    /// Whether it stands for keys that are not known: something that is reported already would have brought them.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.key == MERGED && self.node.value == Tree::Scalar(Scalar::Other(REPORTED))
    }
}

/// One value.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// Text.
    Text(String),
    /// Whole number.
    Integer(i64),
    /// `true` or `false`.
    Flag(bool),
    /// Something that no key of the spec takes: its name.
    Other(&'static str),
}

/// What stands for no value at all, as [`Scalar::Other`].
pub const NOTHING: &str = "nothing";

/// What stands for a value that is reported as wrong already, as [`Scalar::Other`].
pub const REPORTED: &str = "something that is not taken";

/// The key of an entry that brings keys that are not known; its value is [`REPORTED`].
pub const MERGED: &str = "<<";

/// Something that the notation allows and the spec does not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slip {
    /// Code of the problem.
    pub code: &'static str,
    /// Where.
    pub span: Range<usize>,
    /// What is wrong, a lower-case fragment.
    pub what: String,
    /// What to do.
    pub help: String,
}

/// Why a text is no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SyntaxError {
    /// What is wrong, a lower-case fragment.
    pub message: String,
    /// Where.
    pub span: Range<usize>,
}

impl Node {
    /// What kind of value it is, with its article.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Tree::Scalar(Scalar::Text(_)) => "a text",
            Tree::Scalar(Scalar::Integer(_)) => "a number",
            Tree::Scalar(Scalar::Flag(_)) => "true or false",
            Tree::Scalar(Scalar::Other(name)) => name,
            Tree::List(nodes) if !nodes.is_empty() && nodes.iter().all(|node| matches!(node.value, Tree::Table(_))) => "a list of tables",
            Tree::List(_) => "a list",
            Tree::Table(_) => "a table",
        }
    }

    /// The same, its places moved by `by` bytes.
    #[must_use]
    pub fn moved(self, by: usize) -> Self {
        if by == 0 {
            return self;
        }
        let moved = |span: Range<usize>| span.start + by..span.end + by;
        let value = match self.value {
            Tree::Scalar(scalar) => Tree::Scalar(scalar),
            Tree::List(nodes) => Tree::List(nodes.into_iter().map(|node| node.moved(by)).collect()),
            Tree::Table(entries) => {
                let entries = entries.into_iter();
                Tree::Table(
                    entries.map(|entry| Entry { key: entry.key, key_span: moved(entry.key_span), node: entry.node.moved(by) }).collect(),
                )
            }
        };
        Self { span: moved(self.span), value }
    }

    /// The text, if it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Tree::Scalar(Scalar::Text(text)) => Some(text),
            _ => None,
        }
    }
}

/// Reads TOML (1.1).
///
/// # Errors
/// The first syntax error; a doubled key is one.
pub fn parse_toml(text: &str) -> Result<Node, SyntaxError> {
    let document = DeTable::parse(text).map_err(|error| {
        let message = error.message().trim().replace('\n', ", ");
        let span = error.span().unwrap_or(0..0);
        SyntaxError { message: lower_first(&message), span: span.start.min(text.len())..span.end.min(text.len()) }
    })?;
    Ok(Node { span: 0..0, value: table(document.into_inner())? })
}

fn lower_first(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_lowercase().chain(chars).collect())
}

fn table(table: DeTable<'_>) -> Result<Tree, SyntaxError> {
    let entry = |(key, value): (Spanned<DeString<'_>>, Spanned<DeValue<'_>>)| {
        let key_span = key.span();
        Ok(Entry { node: node(value, &key_span)?, key: key.into_inner().into_owned(), key_span })
    };
    let mut entries = table.into_iter().map(entry).collect::<Result<Vec<_>, _>>()?;
    order::sort_by_key(&mut entries, |entry| entry.key_span.start);
    Ok(Tree::Table(entries))
}

fn node(value: Spanned<DeValue<'_>>, key: &Range<usize>) -> Result<Node, SyntaxError> {
    let mut span = value.span();
    let value = match value.into_inner() {
        DeValue::String(text) => Tree::Scalar(Scalar::Text(text.into_owned())),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Tree::Scalar(Scalar::Integer(number)),
            Err(_) => return Err(SyntaxError { message: "integer number overflowed".to_owned(), span }),
        },
        DeValue::Boolean(flag) => Tree::Scalar(Scalar::Flag(flag)),
        DeValue::Float(_) => Tree::Scalar(Scalar::Other("a fraction")),
        DeValue::Datetime(_) => Tree::Scalar(Scalar::Other("a date or time")),
        DeValue::Array(values) => {
            // the first header of a list of tables begins before its key
            if span.start < key.start {
                span = key.clone();
            }
            Tree::List(values.into_iter().map(|value| node(value, &span)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(inner) => table(inner)?,
    };
    Ok(Node { span, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(node: &Node, text: &str) -> String {
        match &node.value {
            Tree::Scalar(_) => text[node.span.clone()].to_owned(),
            Tree::List(nodes) => format!("[{}]", nodes.iter().map(|node| shape(node, text)).collect::<Vec<_>>().join(" ")),
            Tree::Table(entries) => {
                let entries = entries.iter().map(|entry| format!("{}={}", &text[entry.key_span.clone()], shape(&entry.node, text)));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(" "))
            }
        }
    }

    #[test]
    fn every_form_of_a_table_gives_the_same_tree() {
        let forms = [
            "[[ca]]\nname = 'a'\n[runtime]\nsearch.x = 1\n",
            "ca = [{ name = 'a' }]\nruntime = { search = { x = 1 } }\n",
            "ca = [{ name = 'a' }]\nruntime.search.x = 1\n",
            "[[ca]]\r\nname = 'a'\r\n[runtime.search]\r\nx = 1\r\n",
        ];
        for text in forms {
            let node = parse_toml(text).unwrap();
            assert_eq!(shape(&node, text), "{ca=[{name='a'}] runtime={search={x=1}}}", "{text}");
        }
    }

    #[test]
    fn tables_are_where_their_header_is() {
        let text = "[[mirror]]\nsource = 'a'\n\n[[mirror]]\nsource = 'b'\n";
        let Tree::Table(entries) = parse_toml(text).unwrap().value else { panic!() };
        let Tree::List(nodes) = &entries[0].node.value else { panic!() };
        assert_eq!(&text[nodes[1].span.clone()][..10], "[[mirror]]");
        assert_eq!(nodes[1].span.start, 25);
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let error = parse_toml("a = 1\nb = \n").unwrap_err();
        assert_eq!(error.span.start, 10, "{error:?}");
        let error = parse_toml("a = 1\na = 2\n").unwrap_err();
        assert_eq!(error.span.start, 6, "{error:?}");
    }
}
