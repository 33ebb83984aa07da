//! TOML values of several files laid over each other, each knowing where it came from.

use std::collections::BTreeMap;

use crate::model::order::Gather as _;
use toml_edit::{Array, InlineTable, Item, Table, TableLike, Value};

/// Where a value is written: number of the file in its chain, offset in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spot {
    /// Number of the file, in the order of reading.
    pub file: usize,
    /// Offset in it.
    pub offset: usize,
}

/// A table or a value.
#[derive(Clone, Debug)]
pub enum Node {
    /// A table, however it is written.
    Table(Spot, BTreeMap<String, Node>),
    /// Anything else.
    Leaf(Spot, Value),
}

impl Node {
    /// Reads an item of file number `file`; tables of arrays are taken for values nobody asks for.
    #[must_use]
    pub fn read(item: &Item, file: usize) -> Option<Self> {
        let spot = Spot { file, offset: item.span().map_or(0, |span| span.start) };
        match item {
            Item::Value(value) if !value.is_inline_table() => Some(Self::Leaf(spot, value.clone())),
            item => item.as_table_like().map(|table| Self::table(table, file, spot)),
        }
    }

    /// Reads a table.
    #[must_use]
    pub fn table(table: &dyn TableLike, file: usize, spot: Spot) -> Self {
        let entries = table.iter().filter_map(|(key, item)| Some((key.to_owned(), Self::read(item, file)?)));
        Self::Table(spot, entries.gathered())
    }

    /// Lays `over` on top: tables key by key, everything else is replaced (containerd 2.x, T60).
    pub fn lay(&mut self, over: Self) {
        match (self, over) {
            (Self::Table(_, below), Self::Table(_, above)) => {
                for (key, node) in above {
                    match below.get_mut(&key) {
                        Some(under) => under.lay(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (below, above) => *below = above,
        }
    }

    /// What stands at `key`, one element per table or key.
    #[must_use]
    pub fn get(&self, key: &[&str]) -> Option<&Self> {
        key.iter().try_fold(self, |node, part| node.entries()?.get(*part))
    }

    /// The entries of a table.
    #[must_use]
    pub fn entries(&self) -> Option<&BTreeMap<String, Self>> {
        match self {
            Self::Table(_, entries) => Some(entries),
            Self::Leaf(..) => None,
        }
    }

    /// A string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Leaf(_, value) => value.as_str(),
            Self::Table(..) => None,
        }
    }

    /// A boolean.
    #[must_use]
    pub fn boolean(&self) -> Option<bool> {
        match self {
            Self::Leaf(_, value) => value.as_bool(),
            Self::Table(..) => None,
        }
    }

    /// The strings of an array.
    #[must_use]
    pub fn texts(&self) -> Vec<String> {
        let array = match self {
            Self::Leaf(_, value) => value.as_array(),
            Self::Table(..) => None,
        };
        array.into_iter().flat_map(toml_edit::Array::iter).filter_map(Value::as_str).map(ToOwned::to_owned).collect()
    }

    /// The same to write it anew: without the comments and spaces that stood around it.
    #[must_use]
    pub fn item(&self) -> Item {
        match self {
            Self::Table(_, entries) => {
                let mut table: Table = entries.iter().map(|(key, node)| (key.as_str(), node.item())).collect();
                table.set_implicit(!entries.is_empty() && entries.values().all(|node| matches!(node, Self::Table(..))));
                Item::Table(table)
            }
            Self::Leaf(_, value) => Item::Value(bare(value)),
        }
    }

    /// Every string in it, in arrays and inline tables too.
    #[must_use]
    pub fn all_texts(&self) -> Vec<String> {
        let mut found = Vec::new();
        match self {
            Self::Table(_, entries) => found.extend(entries.values().flat_map(Self::all_texts)),
            Self::Leaf(_, value) => gather(value, &mut found),
        }
        found
    }

    /// Where it is written.
    #[must_use]
    pub fn spot(&self) -> Spot {
        match self {
            Self::Table(spot, _) | Self::Leaf(spot, _) => *spot,
        }
    }
}

fn bare(value: &Value) -> Value {
    match value {
        Value::Array(array) => Value::Array(array.iter().map(bare).collect::<Array>()),
        Value::InlineTable(table) => Value::InlineTable(table.iter().map(|(key, value)| (key, bare(value))).collect::<InlineTable>()),
        plain => {
            let mut plain = plain.clone();
            plain.decor_mut().clear();
            plain
        }
    }
}

fn gather(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) => found.push(text.value().clone()),
        Value::Array(array) => array.iter().for_each(|value| gather(value, found)),
        Value::InlineTable(table) => table.iter().for_each(|(_, value)| gather(value, found)),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) | Value::Datetime(_) => {}
    }
}
