//! The documents of a spec → one text and one tree.
//!
//! What lives here: opening each document in its notation, and joining those of a folder: exactly one carries the top-level keys,
//! the others carry lists only. What must not: what a key means, and reading files.

use std::ops::Range;
use std::sync::Arc;

use super::document::{Entry, Node, Slip, SyntaxError, Tree, parse_toml};
use super::load::LARGEST;
use super::notation::Notation;
use super::table::{self, Kind};
use super::text::Text;
use super::yaml::parse_yaml;
use crate::model::place::Place;
use crate::model::problem::Problem;

/// A document as it was read.
#[derive(Clone, Debug)]
pub struct Document {
    /// Its file, as messages call it.
    pub file: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

/// All documents as one.
#[derive(Debug)]
pub struct Joined {
    /// Their text.
    pub text: Text,
    /// What they say together; places are those of `text`.
    pub root: Node,
    /// What is not taken of a notation.
    pub slips: Vec<Slip>,
    /// Documents that carry top-level keys although another one does.
    pub heads: Vec<Slip>,
    /// Why there is no document with the top-level keys, where there is none among several.
    pub headless: Option<Problem>,
}

/// Opens and joins documents, at least one.
///
/// # Errors
/// When one of them is too large, no text, or not well-formed: all that are.
pub fn join(name: &str, documents: &[Document]) -> Result<Joined, Vec<Problem>> {
    let size: usize = documents.iter().map(|document| document.bytes.len()).sum();
    if size > LARGEST {
        let what = match documents {
            [_] => format!("the document has {size} bytes; at most {LARGEST} are read"),
            _ => format!("the documents have {size} bytes together; at most {LARGEST} are read"),
        };
        let help = "check that this is the spec, and move what is long into files of its own";
        return Err(vec![Problem::error("too-large", what, help).at(Place::file(name))]);
    }
    let mut wrong = Vec::new();
    let (mut texts, mut trees) = (Vec::new(), Vec::new());
    for document in documents {
        match open(document) {
            Ok((text, root, slips)) => {
                texts.push(text);
                trees.push((root, slips));
            }
            Err(problem) => wrong.push(problem),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let text = Text::of_all(Arc::from(name), texts);
    let (mut roots, mut slips) = (Vec::new(), Vec::new());
    for ((root, found), start) in trees.into_iter().zip(text.starts()) {
        roots.push(root.moved(start));
        slips.extend(found.into_iter().map(|slip| Slip { span: moved(slip.span, start), ..slip }));
    }
    let (mut heads, mut headless) = (Vec::new(), None);
    let root = if roots.len() == 1 { roots.remove(0) } else { one(roots, &text, &mut heads, &mut headless) };
    Ok(Joined { text, root, slips, heads, headless })
}

fn moved(span: Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

type Opened = ((Arc<str>, Notation, String), Node, Vec<Slip>);

fn open(document: &Document) -> Result<Opened, Problem> {
    let file: Arc<str> = Arc::from(document.file.as_str());
    let bytes = document.bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&document.bytes);
    let notation = |text: &str| Notation::of_name(&file).unwrap_or_else(|| Notation::of_text(text));
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(error) => {
            let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
            let end = readable.len();
            let problem = Problem::error("not-utf8", "the document is no UTF-8 text from here on", "save it as UTF-8");
            let notation = notation(&readable);
            return Err(Text::new(file, notation, readable).locate(problem, &(end..end)));
        }
    };
    let notation = notation(&text);
    let parsed = match notation {
        Notation::Toml => parse_toml(&text).map(|root| (root, Vec::new())),
        Notation::Yaml => parse_yaml(&text),
    };
    match parsed {
        Ok((root, slips)) => Ok(((file, notation, text), root, slips)),
        Err(error) => Err(malformed(&Text::new(file, notation, text), notation, &error)),
    }
}

fn malformed(text: &Text, notation: Notation, error: &SyntaxError) -> Problem {
    let help = match notation {
        Notation::Toml => "correct the line; https://toml.io shows the notation",
        Notation::Yaml => "correct the line; https://yaml.org/spec/1.2.2 shows the notation",
    };
    let problem = Problem::error("syntax", format!("the document is no {}: {error}", notation.name()), help);
    text.locate(problem, &error.span)
}

/// Whether a key of the document is a list that every document of a folder may carry.
fn is_list(key: &str) -> bool {
    table::DOCUMENT.field(key).is_some_and(|field| matches!(field.kind, Kind::Tables(_)))
}

/// The documents of a folder as one.
fn one(roots: Vec<Node>, text: &Text, heads: &mut Vec<Slip>, headless: &mut Option<Problem>) -> Node {
    let mut all: Vec<Entry> = Vec::new();
    // the first top-level key of the document that carries them
    let mut head: Option<Range<usize>> = None;
    let mut files = Vec::new();
    for root in roots {
        files.push(root.span.start);
        let Tree::Table(entries) = root.value else { continue };
        let top = |entry: &Entry| !is_list(&entry.key) && table::DOCUMENT.field(&entry.key).is_some();
        let first = entries.iter().find(|entry| top(entry)).map(|entry| entry.key_span.clone());
        let second = match (&head, first) {
            (Some(head), Some(here)) => {
                let what = format!("top-level keys stand here and {} already", text.seen_from(&text.place(head.start), here.start));
                let lists = table::DOCUMENT.fields.iter().filter(|field| is_list(field.name));
                let lists: Vec<String> = lists.map(|field| format!("[[{}]]", field.name)).collect();
                let help = format!("let one document of the folder carry all of them, and the others only {}", lists.join(", "));
                heads.push(Slip { code: "several-heads", span: here, what, help });
                true
            }
            (None, first) => {
                head = first;
                false
            }
            (Some(_), None) => false,
        };
        for entry in entries {
            if second && top(&entry) {
                continue;
            }
            add(&mut all, entry);
        }
    }
    if head.is_none() {
        let what = format!("none of the {} documents carries the top-level keys", files.len());
        let help = "write `version = 1` and `fallback = \"never\"` into exactly one of them";
        *headless = Some(Problem::error("no-head", what, help).at(Place::file(Arc::clone(text.file()))));
        // what it would have to carry is told by this
        let start = files.first().copied().unwrap_or_default();
        return Node { span: start..start, value: Tree::Table(all) };
    }
    let start = head.as_ref().map_or(0, |head| files.iter().copied().filter(|start| *start <= head.start).max().unwrap_or_default());
    Node { span: start..start, value: Tree::Table(all) }
}

/// Lists of the same key are one list; whatever else is there twice is left to the decoder.
fn add(all: &mut Vec<Entry>, entry: Entry) {
    let same = all.iter_mut().find(|other| other.key == entry.key && is_list(&entry.key));
    match (same.map(|other| &mut other.node.value), entry) {
        (Some(Tree::List(nodes)), Entry { node: Node { value: Tree::List(more), .. }, .. }) => nodes.extend(more),
        (_, entry) => all.push(entry),
    }
}
