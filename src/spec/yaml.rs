//! YAML → the tree of [`super::document`].
//!
//! Of YAML 1.2 with its core schema everything is taken that gives such a tree and that two readers cannot read differently.
//! Anchors, aliases, tags, merge keys and doubled keys are problems that say so, all of them at once; the words of YAML 1.1
//! for true and false are no booleans. The events of the parser are turned into the tree without recursion, and no deeper
//! than [`DEEPEST`].

use std::collections::HashMap;
use std::ops::Range;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span};

use super::document::{Entry, MERGED, NOTHING, Node, REPORTED, Scalar, Slip, SyntaxError, Tree};

/// Levels of lists and tables: the spec has four.
pub const DEEPEST: usize = 16;
/// More slips of notation are not gathered: more than are told of all problems together.
const MOST: usize = 1000;

/// A list or table that is being filled.
struct Open {
    node: Node,
    /// Of a table: the key that waits for its value.
    key: Option<Key>,
    /// Of a table: where each key stands first.
    seen: HashMap<String, usize>,
    /// It stands where a key belongs, and is left out.
    as_key: bool,
}

/// A key that waits for its value.
struct Key {
    name: String,
    span: Range<usize>,
    /// It is left out with its value: something is wrong with it, and reported.
    dropped: bool,
}

struct Builder<'t> {
    text: &'t str,
    /// Character → byte; empty when each character is one byte.
    bytes: Vec<usize>,
    open: Vec<Open>,
    root: Option<Node>,
    documents: usize,
    slips: Vec<Slip>,
}

/// Reads YAML.
///
/// # Errors
/// The first syntax error. What is YAML but not taken comes as slips beside the tree.
pub fn parse_yaml(text: &str) -> Result<(Node, Vec<Slip>), SyntaxError> {
    let bytes = if text.is_ascii() { Vec::new() } else { text.char_indices().map(|(at, _)| at).collect() };
    let mut builder = Builder { text, bytes, open: Vec::new(), root: None, documents: 0, slips: Vec::new() };
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| builder.syntax(error.info(), *error.marker()))?;
        let span = builder.span(&span);
        builder.take(event, span)?;
        if builder.documents > 1 {
            break;
        }
    }
    let root = builder.root.take().unwrap_or(Node { span: 0..0, value: Tree::Table(Vec::new()) });
    let value = match root.value {
        Tree::Table(entries) => Tree::Table(entries),
        Tree::Scalar(Scalar::Other(NOTHING)) => Tree::Table(Vec::new()),
        _ => {
            builder.slip(
                "wrong-type",
                root.span.clone(),
                format!("the document is {}, not keys with values", root.kind()),
                "begin it with `version: 1`",
            );
            Tree::Table(vec![unknown(root.span)])
        }
    };
    // as in TOML: the document itself is nowhere
    Ok((Node { span: 0..0, value }, builder.slips))
}

impl Builder<'_> {
    fn byte(&self, marker: Marker) -> usize {
        if self.bytes.is_empty() {
            marker.index().min(self.text.len())
        } else {
            self.bytes.get(marker.index()).copied().unwrap_or(self.text.len())
        }
    }

    fn span(&self, span: &Span) -> Range<usize> {
        let start = self.byte(span.start);
        start..self.byte(span.end).max(start)
    }

    fn syntax(&self, info: &str, marker: Marker) -> SyntaxError {
        let mut at = self.byte(marker);
        let keyless = info.contains("simple key expect");
        if keyless {
            // noticed on a later line
            let told = self.text[..at].trim_end();
            let line = told.rfind('\n').map_or(0, |end| end + 1);
            at = line + told[line..].len() - told[line..].trim_start().len();
        }
        let line = self.text[..at].rfind('\n').map_or(0, |end| end + 1);
        let indent = self.text[line..].len() - self.text[line..].trim_start_matches([' ', '\t']).len();
        let message = if info.contains("unknown anchor") {
            "aliases (`*name`) are not taken; write the value again".to_owned()
        } else if keyless {
            "a line without `:` stands where a key and its value belong".to_owned()
        } else if info.contains("<document start>") {
            "what stands here does not belong to what is above it; check the indentation".to_owned()
        } else if info.contains("recursion limit") {
            format!("more than {DEEPEST} levels of lists and mappings")
        } else if self.text[line..line + indent].contains('\t') {
            "a tab stands in the indentation; YAML indents with spaces only".to_owned()
        } else {
            info.replace('\n', ", ")
        };
        SyntaxError { message, span: at..at }
    }

    fn slip(&mut self, code: &'static str, span: Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        if self.slips.len() < MOST {
            self.slips.push(Slip { code, span, what: what.into(), help: help.into() });
        }
    }

    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), SyntaxError> {
        let tagged = match &event {
            Event::Scalar(_, _, anchor, tag) | Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => Some((
                *anchor > 0,
                tag.as_ref().map(|tag| if tag.is_yaml_core_schema() { format!("!!{}", tag.suffix) } else { tag.to_string() }),
            )),
            _ => None,
        };
        if let Some((anchor, tag)) = tagged {
            if anchor {
                self.slip(
                    "yaml-feature",
                    span.clone(),
                    "anchors (`&name`) are not taken",
                    "take the anchor out, and write the value wherever it is meant",
                );
            }
            if let Some(tag) = tag {
                let what = format!("tags are not taken; there is `{}`", super::decode::short(&tag));
                self.slip(
                    "yaml-feature",
                    span.clone(),
                    what,
                    "take the tag out, and put a text that looks like something else in quotation marks",
                );
            }
        }
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    if let Some(Node { value: Tree::Table(entries), .. }) = &mut self.root {
                        entries.push(unknown(span.clone()));
                    }
                    self.slip("yaml-feature", span, "a second document begins here", "write one document in each file");
                }
            }
            Event::Alias(_) => {
                let what = "aliases (`*name`) are not taken";
                self.slip("yaml-feature", span.clone(), what, "write the value again");
                self.value(span, Some(Tree::Scalar(Scalar::Other(REPORTED))));
            }
            Event::Scalar(text, style, _, _) => self.scalar(&text, style, span),
            Event::SequenceStart(..) => self.begin(span, Tree::List(Vec::new()))?,
            Event::MappingStart(..) => self.begin(span, Tree::Table(Vec::new()))?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let value = (!open.as_key).then_some(open.node.value);
                    self.value(open.node.span, value);
                }
            }
        }
        Ok(())
    }

    fn begin(&mut self, span: Range<usize>, value: Tree) -> Result<(), SyntaxError> {
        if self.open.len() >= DEEPEST {
            return Err(SyntaxError { message: format!("more than {DEEPEST} levels of lists and mappings"), span });
        }
        let as_key = self.wants_key();
        if as_key {
            self.slip("yaml-feature", span.clone(), "a list or mapping stands where a key belongs", "write a key, `:` and a value");
        }
        self.open.push(Open { node: Node { span, value }, key: None, seen: HashMap::new(), as_key });
        Ok(())
    }

    fn wants_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.key.is_none() && matches!(open.node.value, Tree::Table(_)))
    }

    fn scalar(&mut self, text: &str, style: ScalarStyle, span: Range<usize>) {
        let span = match style {
            // the parser counts from the first character of the text
            ScalarStyle::Literal | ScalarStyle::Folded => {
                let sign = if style == ScalarStyle::Literal { '|' } else { '>' };
                self.text[..span.start].rfind(sign).unwrap_or(span.start)..span.end
            }
            _ => span,
        };
        if self.wants_key() {
            self.key(text, style, span);
        } else {
            let scalar = if style == ScalarStyle::Plain { plain(text) } else { Scalar::Text(text.to_owned()) };
            self.value(span, Some(Tree::Scalar(scalar)));
        }
    }

    fn key(&mut self, key: &str, style: ScalarStyle, span: Range<usize>) {
        let Some(open) = self.open.last_mut() else { return };
        // a table is where its first key is
        if let Tree::Table(entries) = &open.node.value
            && entries.is_empty()
            && open.seen.is_empty()
            && !self.text[open.node.span.clone()].starts_with('{')
        {
            open.node.span = span.clone();
        }
        let first = open.seen.get(key).copied();
        open.seen.entry(key.to_owned()).or_insert(span.start);
        let merge = key == "<<" && style == ScalarStyle::Plain;
        open.key = Some(Key { name: key.to_owned(), span: span.clone(), dropped: merge || first.is_some() });
        let shown = super::decode::short(key);
        if merge {
            if let Tree::Table(entries) = &mut open.node.value {
                entries.push(unknown(span.clone()));
            }
            self.slip("yaml-feature", span, "merge keys (`<<`) are not taken", "write the keys again");
        } else if let Some(first) = first {
            let line = self.text[..first].matches('\n').count() + 1;
            self.slip("duplicate", span, format!("`{shown}` is there twice, first on line {line}"), "take one of them out");
        }
    }

    /// A value that is complete; `None` for one that is left out because something is wrong with it, and reported.
    fn value(&mut self, span: Range<usize>, value: Option<Tree>) {
        let Some(open) = self.open.last_mut() else {
            if let (None, Some(value)) = (&self.root, value) {
                self.root = Some(Node { span, value });
            }
            return;
        };
        match &mut open.node.value {
            Tree::List(nodes) => nodes.extend(value.map(|value| Node { span, value })),
            Tree::Table(entries) => match (open.key.take(), value) {
                // it stood where a key belongs
                (None, _) => {
                    entries.push(unknown(span.clone()));
                    open.key = Some(Key { name: String::new(), span, dropped: true });
                }
                (Some(key), Some(value)) if !key.dropped => {
                    let span = if span.is_empty() { key.span.clone() } else { span };
                    entries.push(Entry { key: key.name, key_span: key.span, node: Node { span, value } });
                }
                _ => {}
            },
            Tree::Scalar(_) => {}
        }
    }
}

/// What brings keys that are not known: a merge key, a key that is no text, another document. It is reported.
fn unknown(span: Range<usize>) -> Entry {
    let node = Node { span: span.clone(), value: Tree::Scalar(Scalar::Other(REPORTED)) };
    Entry { key: MERGED.to_owned(), key_span: span, node }
}

/// What a text without quotation marks is (YAML 1.2.2, 10.3.2, core schema). The words of YAML 1.1 for true and false are
/// neither boolean nor text: some readers take them for one, others for the other.
fn plain(text: &str) -> Scalar {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Other(NOTHING),
        "true" | "True" | "TRUE" => return Scalar::Flag(true),
        "false" | "False" | "FALSE" => return Scalar::Flag(false),
        "yes" | "Yes" | "YES" => return Scalar::Other("a bare yes"),
        "no" | "No" | "NO" => return Scalar::Other("a bare no"),
        "on" | "On" | "ON" => return Scalar::Other("a bare on"),
        "off" | "Off" | "OFF" => return Scalar::Other("a bare off"),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN" | ".NAN" => {
            return Scalar::Other("a fraction");
        }
        _ => {}
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let all = |digits: &str, is: fn(&u8) -> bool| !digits.is_empty() && digits.bytes().all(|byte| is(&byte));
    let number = if all(unsigned, u8::is_ascii_digit) {
        text.strip_prefix('+').unwrap_or(text).parse()
    } else if let Some(digits) = text.strip_prefix("0o").filter(|digits| all(digits, |byte| matches!(byte, b'0'..=b'7'))) {
        i64::from_str_radix(digits, 8)
    } else if let Some(digits) = text.strip_prefix("0x").filter(|digits| all(digits, u8::is_ascii_hexdigit)) {
        i64::from_str_radix(digits, 16)
    } else {
        let is_fraction = unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.')
            && unsigned.contains(|c: char| c.is_ascii_digit())
            && unsigned.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'))
            && unsigned.parse::<f64>().is_ok();
        return if is_fraction { Scalar::Other("a fraction") } else { Scalar::Text(text.to_owned()) };
    };
    number.map_or(Scalar::Other("a number that is too large"), Scalar::Integer)
}

#[cfg(test)]
mod tests;
