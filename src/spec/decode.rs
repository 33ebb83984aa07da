//! Tree → what is written, by the table of keys: every unknown key, wrong type and missing key at once.
//!
//! What lives here: one generic walk over [`super::table`] and the plain structs that it fills. What must not: whether a
//! value makes sense (`validate`).

mod unknown;

use std::ops::Range;

use self::unknown::unknown;
use super::Scope;
use super::document::{NOTHING, Node, REPORTED, Scalar, Tree};
use super::nearest::nearest;
use super::notation::Notation;
use super::problems::Problems;
use super::secrets::secrets;
use super::table::{self, Field, Kind, TableDef, Word};
use crate::model::endpoint::Pull;
use crate::spec::{Fallback, OnUnready, Unlisted};

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
    /// `name`.
    pub name: Option<At<String>>,
    /// `serial`.
    pub serial: Option<At<i64>>,
    /// `requires`.
    pub requires: Option<At<String>>,
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
    /// `[[blocked]]`.
    pub blocked: Vec<RawBlocked>,
    /// `[[canary]]`.
    pub canaries: Vec<RawCanary>,
    /// `deny_domains`.
    pub deny_domains: Option<At<Vec<At<String>>>>,
    /// `[runtime] pause_image`.
    pub pause_image: Option<At<String>>,
    /// `[runtime] search`.
    pub search: Option<At<Vec<At<String>>>>,
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
    /// `sha256`.
    pub sha256: Option<At<String>>,
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
    /// `client_cert_sha256`, `client_key_sha256` and `credentials_sha256`.
    pub sha256: [Option<At<String>>; 3],
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
    /// `hosts`.
    pub hosts: Option<At<Vec<At<String>>>>,
    /// `runtimes`.
    pub runtimes: Option<At<Vec<At<String>>>>,
    /// `widen`.
    pub widen: Option<At<bool>>,
    /// Something in it was wrong and is reported: what is missing may be that.
    pub reported: bool,
    /// `endpoints`.
    pub endpoints: Option<At<Vec<RawEndpoint>>>,
    /// `fallback`.
    pub fallback: Option<Fallback>,
    /// `on_unready`.
    pub on_unready: OnUnready,
}

/// One of `endpoints`.
#[derive(Clone, Debug)]
pub struct RawEndpoint {
    /// All of it.
    pub at: Range<usize>,
    /// `location`, or the text alone.
    pub location: Option<At<String>>,
    /// `pull`.
    pub pull: Pull,
    /// `timeout`.
    pub timeout: Option<At<String>>,
    /// `header`: names and values.
    pub header: Vec<(At<String>, At<String>)>,
}

/// A `[[blocked]]`.
#[derive(Clone, Debug)]
pub struct RawBlocked {
    /// Its header.
    pub at: Range<usize>,
    /// `source`.
    pub source: Option<At<String>>,
    /// `runtimes`.
    pub runtimes: Option<At<Vec<At<String>>>>,
}

/// A `[[canary]]`.
#[derive(Clone, Debug)]
pub struct RawCanary {
    /// Its header.
    pub at: Range<usize>,
    /// `image`.
    pub image: Option<At<String>>,
    /// `digest`.
    pub digest: Option<At<String>>,
    /// `max_age`.
    pub max_age: Option<At<String>>,
}

/// Fills the structs.
#[must_use]
pub fn decode(root: &Node, problems: &mut Problems<'_>) -> Raw {
    secrets(root, problems);
    let row = Row::read(&table::DOCUMENT, root, problems);
    let mut raw = Raw {
        version: row.integer("version"),
        serial: row.integer("serial"),
        name: row.text("name"),
        requires: row.text("requires"),
        unlisted: row.text("unlisted").map(|word| if word.value == "deny" { Unlisted::Deny } else { Unlisted::Allow }),
        fallback: row.text("fallback").map(|word| At { value: fallback(&word.value), span: word.span }),
        runtimes: row.texts("runtimes", problems),
        deny_domains: row.texts("deny_domains", problems),
        ..Raw::default()
    };
    for node in row.tables("ca") {
        let row = Row::read(&table::CA, node, problems);
        raw.cas.push(RawCa {
            at: node.span.clone(),
            name: row.text("name"),
            file: row.text("file"),
            pem: row.text("pem"),
            sha256: row.text("sha256"),
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
            sha256: ["client_cert_sha256", "client_key_sha256", "credentials_sha256"].map(|name| row.text(name)),
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
            hosts: row.texts("hosts", problems),
            runtimes: row.texts("runtimes", problems),
            widen: row.flag("widen"),
            reported: row.reported,
            endpoints: row.endpoints(problems),
            fallback: row.text("fallback").map(|word| fallback(&word.value)),
            on_unready: if row.text("on_unready").is_some_and(|word| word.value == "apply") { OnUnready::Apply } else { OnUnready::Keep },
        });
    }
    for node in row.tables("blocked") {
        let row = Row::read(&table::BLOCKED, node, problems);
        raw.blocked.push(RawBlocked { at: node.span.clone(), source: row.text("source"), runtimes: row.texts("runtimes", problems) });
    }
    for node in row.tables("canary") {
        let row = Row::read(&table::CANARY, node, problems);
        let [image, digest, max_age] = ["image", "digest", "max_age"].map(|name| row.text(name));
        raw.canaries.push(RawCanary { at: node.span.clone(), image, digest, max_age });
    }
    if let Some(node) = row.value("runtime") {
        let row = Row::read(&table::RUNTIME, node, problems);
        raw.pause_image = row.text("pause_image");
        raw.search = row.texts("search", problems);
    }
    raw
}

fn fallback(word: &str) -> Fallback {
    if word == "upstream" { Fallback::Upstream } else { Fallback::Never }
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
        // what a merge key would have brought is not missing
        let mut all_known = true;
        for entry in entries {
            if entry.is_merged() {
                all_known = false;
                continue;
            }
            let Some(index) = def.fields.iter().position(|field| field.name == entry.key) else {
                // a misspelt key is not missing as well
                let meant = unknown(def, &entry.key, &entry.key_span, problems);
                if let Some(index) = meant.and_then(|name| def.fields.iter().position(|field| field.name == name)) {
                    seen[index] = true;
                }
                continue;
            };
            seen[index] = true;
            if fits(&def.fields[index], &entry.key_span, &entry.node, problems) {
                row.values[index] = Some(&entry.node);
            }
        }
        row.reported = problems.errors() > errors || !all_known;
        for (field, seen) in def.fields.iter().zip(seen) {
            if field.required && !seen && all_known {
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
                if node.value == Tree::Scalar(Scalar::Other(REPORTED)) {
                    continue;
                }
                let what = format!("`{name}` takes a list of texts; there is {} in it", node.kind());
                problems.error("wrong-type", &node.span, what, "put each entry in quotation marks");
            }
        }
        (!wrong || !value.is_empty()).then(|| At { value, span: node.span.clone() })
    }

    /// `endpoints`: texts, and tables where they have options; what is neither is reported here.
    fn endpoints(&self, problems: &mut Problems<'_>) -> Option<At<Vec<RawEndpoint>>> {
        let node = self.value("endpoints")?;
        let Tree::List(nodes) = &node.value else { return None };
        let mut value = Vec::with_capacity(nodes.len());
        let mut wrong = false;
        for node in nodes {
            let at = node.span.clone();
            match &node.value {
                Tree::Scalar(Scalar::Text(text)) => {
                    let location = Some(At { value: text.clone(), span: at.clone() });
                    value.push(RawEndpoint { at, location, pull: Pull::All, timeout: None, header: Vec::new() });
                }
                Tree::Table(_) => {
                    let row = Row::read(&table::ENDPOINT, node, problems);
                    let pull = match row.text("pull").as_ref().map(|word| word.value.as_str()) {
                        Some("digest") => Pull::Digest,
                        Some("tag") => Pull::Tag,
                        _ => Pull::All,
                    };
                    wrong |= row.reported;
                    let header = row.named("header", problems);
                    value.push(RawEndpoint { at, location: row.text("location"), pull, timeout: row.text("timeout"), header });
                }
                Tree::Scalar(Scalar::Other(REPORTED)) => wrong = true,
                Tree::Scalar(_) | Tree::List(_) => {
                    wrong = true;
                    let what = format!("`endpoints` takes texts or tables; there is {} in it", node.kind());
                    problems.error("wrong-type", &node.span, what, "put each entry in quotation marks, or write `{ location = \"…\" }`");
                }
            }
        }
        (!wrong || !value.is_empty()).then(|| At { value, span: node.span.clone() })
    }

    /// Texts by name; what is no text in it is reported here.
    fn named(&self, name: &str, problems: &mut Problems<'_>) -> Vec<(At<String>, At<String>)> {
        let Some(Tree::Table(entries)) = self.value(name).map(|node| &node.value) else { return Vec::new() };
        let mut found = Vec::with_capacity(entries.len());
        for entry in entries {
            if let Some(text) = entry.node.text() {
                let key = At { value: entry.key.clone(), span: entry.key_span.clone() };
                found.push((key, At { value: text.to_owned(), span: entry.node.span.clone() }));
            } else if entry.node.value != Tree::Scalar(Scalar::Other(REPORTED)) {
                let what = format!("`{name}` takes texts; `{}` is {}", short(&entry.key), entry.node.kind());
                problems.error("wrong-type", &entry.key_span, what, "put the value in quotation marks");
            }
        }
        found
    }

    fn tables(&self, name: &str) -> &'n [Node] {
        match self.value(name).map(|node| &node.value) {
            Some(Tree::List(nodes)) => nodes,
            _ => &[],
        }
    }
}

/// Whether a value is of the kind that its key takes; reports when it is not.
fn fits(field: &'static Field, key: &Range<usize>, node: &Node, problems: &mut Problems<'_>) -> bool {
    if node.value == Tree::Scalar(Scalar::Other(REPORTED)) {
        return false;
    }
    let notation = problems.text().notation(key.start);
    let right = match (&field.kind, &node.value) {
        (Kind::Integer, Tree::Scalar(Scalar::Integer(_)))
        | (Kind::Flag, Tree::Scalar(Scalar::Flag(_)))
        | (Kind::Text, Tree::Scalar(Scalar::Text(_)))
        | (Kind::Texts | Kind::TextsOrTables(_), Tree::List(_))
        | (Kind::Named | Kind::Table(_), Tree::Table(_)) => true,
        (Kind::Tables(inner), Tree::List(nodes)) => {
            let wrong: Vec<&Node> = nodes.iter().filter(|node| !matches!(node.value, Tree::Table(_))).collect();
            for node in wrong.iter().filter(|node| node.value != Tree::Scalar(Scalar::Other(REPORTED))) {
                let what = format!("`{}` takes tables; there is {} in it", field.name, node.kind());
                let help = match notation {
                    Notation::Toml => format!("write each one as {}", inner.header),
                    Notation::Yaml => "write each one as `- ` with keys and values".to_owned(),
                };
                problems.error("wrong-type", &node.span, what, help);
            }
            return wrong.is_empty();
        }
        (Kind::Word(words), Tree::Scalar(Scalar::Text(text))) => {
            if words.iter().any(|word| word.name == text) {
                return true;
            }
            let near = nearest(text, words.iter().map(|word| word.name));
            let help = near.map_or_else(|| format!("write {}", one_of(words)), |near| format!("write \"{near}\""));
            let what = format!("`{}` takes {}; \"{}\" is neither", field.name, one_of(words), short(text));
            problems.error("bad-value", &node.span, what, help);
            return false;
        }
        _ => false,
    };
    if !right {
        let help = match (&field.kind, &node.value) {
            (Kind::Tables(_), _) if notation == Notation::Yaml => {
                format!("write `{}:` and below it each one as `- ` with keys and values", field.name)
            }
            (Kind::Table(_), _) if notation == Notation::Yaml => format!("write `{}:` and its keys below it, further in", field.name),
            (Kind::Word(words), Tree::Scalar(_)) if notation == Notation::Yaml => format!("write {}", one_of(words)),
            (Kind::Text, Tree::Scalar(scalar)) if notation == Notation::Yaml && *scalar != Scalar::Other(NOTHING) => {
                "put it in quotation marks".to_owned()
            }
            (Kind::Flag, Tree::Scalar(Scalar::Other("a bare yes" | "a bare on"))) => format!("write true: `{} = true`", field.name),
            (Kind::Flag, Tree::Scalar(Scalar::Other("a bare no" | "a bare off"))) => format!("write false: `{} = false`", field.name),
            (Kind::Tables(inner) | Kind::Table(inner), _) => format!("write {} above its keys", inner.header),
            (Kind::Texts | Kind::TextsOrTables(_), Tree::Scalar(Scalar::Text(_))) => {
                format!("put it in brackets: `{} = [\"…\"]`", field.name)
            }
            (Kind::Flag, Tree::Scalar(Scalar::Text(_))) => format!("write it without quotation marks: `{}`", field.example),
            _ => format!("write it like `{}`", field.example),
        };
        let span = if matches!(node.value, Tree::Table(_) | Tree::List(_)) { key } else { &node.span };
        problems.error("wrong-type", span, format!("`{}` takes {}, not {}", field.name, field.kind.name(), node.kind()), help);
    }
    right
}

fn one_of(words: &[Word]) -> String {
    words.iter().map(|word| format!("\"{}\"", word.name)).collect::<Vec<_>>().join(" or ")
}

/// A name from the document, short enough for a message.
pub fn short(text: &str) -> String {
    if text.chars().count() <= 60 { text.to_owned() } else { text.chars().take(59).chain(['…']).collect() }
}
