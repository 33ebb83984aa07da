//! Bytes → closed [`Spec`]: open the document, say which files it needs, close it over their bytes. No effects: whoever
//! calls reads the files.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::decode::{Raw, decode};
use super::document::parse_toml;
use super::problems::{Problems, sort};
use super::reference::{self, Reference};
use super::text::Text;
use super::validate;
use super::{Spec, express};
use crate::model::digest::Digest;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::time::Time;

/// Larger documents are refused: 1,000 mirrors are about 150 KiB.
pub const LARGEST: usize = 1024 * 1024;

/// A document that was read, but not the files that it references.
pub struct Draft {
    text: Text,
    document: Digest,
    raw: Raw,
    problems: Vec<Problem>,
    references: Vec<Reference>,
}

/// A document with everything that it references.
#[derive(Debug)]
pub struct Closed {
    /// The spec, unless a problem is an error.
    pub spec: Option<Spec>,
    /// Everything that is wrong or worth knowing, in the document's order.
    pub problems: Vec<Problem>,
    /// References to files on the node that the caller did not look at. A spec with such ones can be checked, but must not
    /// be applied: what they hold is not in it.
    pub unread: Vec<String>,
    /// The document's text, for the excerpts of later problems ([`Text::illustrate`]).
    pub text: Text,
}

impl Closed {
    /// What the runtimes cannot do of it ([`express::proof`]), each with its line.
    #[must_use]
    pub fn proof(&self) -> Vec<Problem> {
        self.spec.iter().flat_map(express::proof).map(|problem| self.text.illustrate(problem)).collect()
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Draft({:?})", self.text)
    }
}

impl Draft {
    /// Reads the document `file`: UTF-8 TOML of at most [`LARGEST`] bytes; a byte order mark and CRLF are allowed.
    ///
    /// # Errors
    /// When it is no document at all. Everything else that is wrong is told by [`Draft::close`].
    pub fn open(file: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        let file: Arc<str> = Arc::from(file);
        let whole = |problem: Problem| vec![problem.at(Place::file(Arc::clone(&file)))];
        if bytes.len() > LARGEST {
            let what = format!("the document has {} bytes; at most {LARGEST} are read", bytes.len());
            return Err(whole(Problem::error(
                "too-large",
                what,
                "check that this is the spec, and move what is long into files of its own",
            )));
        }
        let document = Digest::of(bytes);
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => Text::new(Arc::clone(&file), text.to_owned()),
            Err(error) => {
                let readable = String::from_utf8_lossy(&bytes[..error.valid_up_to()]).into_owned();
                let end = readable.len();
                let problem = Problem::error("not-utf8", "the document is no UTF-8 text from here on", "save it as UTF-8");
                return Err(vec![Text::new(file, readable).locate(problem, &(end..end))]);
            }
        };
        let mut text = text;
        let root = match parse_toml(text.as_str()) {
            Ok(root) => root,
            Err(error) => {
                let problem = Problem::error(
                    "syntax",
                    format!("the document is no TOML: {error}"),
                    "correct the line; https://toml.io shows the notation",
                );
                return Err(vec![text.locate(problem, &error.span)]);
            }
        };
        text.hide(reference::hidden(&root));
        let mut problems = Problems::new(&text);
        let raw = decode(&root, &mut problems);
        let references = reference::all(&raw, &mut problems);
        let problems = problems.into_vec();
        Ok(Self { text, document, raw, problems, references })
    }

    /// The files that the document needs, each once.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Closes the document over the content of its references (by [`Reference::written`]; or why it could not be read).
    /// `now` decides what is expired; without it validity is not judged.
    ///
    /// A `node:` reference that is missing from `materials` was not looked at: that is a note, and what it holds is not in
    /// the spec ([`Closed::unread`]).
    #[must_use]
    pub fn close(self, materials: &BTreeMap<String, Result<Vec<u8>, String>>, now: Option<Time>) -> Closed {
        let mut problems = Problems::new(&self.text);
        let mut given = validate::Materials::new(materials, &self.references);
        let whole = validate::validate(&self.raw, &mut given, now, &mut problems);
        let unread = given.unread();
        let mut found = self.problems;
        found.extend(problems.into_vec());
        sort(&mut found);
        let sound = !found.iter().any(|problem| problem.severity == Severity::Error);
        let spec = sound.then(|| Spec { digest: digest(self.document, &self.references, materials), ..whole });
        Closed { spec, problems: found, unread, text: self.text }
    }
}

/// Over the document and everything that it references.
fn digest(document: Digest, references: &[Reference], materials: &BTreeMap<String, Result<Vec<u8>, String>>) -> Digest {
    let mut text = format!("document {document}\n");
    for reference in references {
        if let Some(Ok(bytes)) = materials.get(&reference.written) {
            let _ = writeln!(text, "{} {:?}", Digest::of(bytes), reference.written);
        }
    }
    Digest::of(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "version = 1\nfallback = 'never'\n[[ca]]\nname = 'a'\nfile = 'node:/a.pem'\n";

    fn codes(problems: &[Problem]) -> Vec<&str> {
        problems.iter().map(|problem| problem.code).collect()
    }

    #[test]
    fn large_documents_are_refused_before_they_are_read() {
        let most = vec![b'#'; LARGEST];
        assert_eq!(codes(&Draft::open("s", &most).unwrap().problems), ["missing-key", "missing-key"]);
        assert_eq!(codes(&Draft::open("s", &[&most[..], b"#"].concat()).unwrap_err()), ["too-large"]);
    }

    #[test]
    fn the_digest_covers_what_is_referenced() {
        let root = include_bytes!("../../fixtures/spec/_material/root.pem");
        let mixed = include_bytes!("../../fixtures/spec/_material/mixed.pem");
        let digest = |document: &str, bytes: &[u8]| {
            let materials = BTreeMap::from([("node:/a.pem".to_owned(), Ok(bytes.to_vec()))]);
            Draft::open("s", document.as_bytes()).unwrap().close(&materials, None).spec.unwrap().digest
        };
        assert_eq!(digest(CA, root), digest(CA, root));
        assert_ne!(digest(CA, root), digest(CA, mixed));
        assert_ne!(digest(CA, root), digest(&format!("{CA}#"), root));
    }

    #[test]
    fn files_on_the_node_may_stay_unread_for_a_check() {
        let draft = Draft::open("s", CA.as_bytes()).unwrap();
        assert_eq!(draft.references()[0].written, "node:/a.pem");
        let closed = draft.close(&BTreeMap::new(), None);
        assert_eq!((closed.unread.as_slice(), closed.spec.is_some()), (&["node:/a.pem".to_owned()][..], true));
        let missing = BTreeMap::from([("node:/a.pem".to_owned(), Err("gone".to_owned()))]);
        let closed = Draft::open("s", CA.as_bytes()).unwrap().close(&missing, None);
        assert_eq!((codes(&closed.problems).as_slice(), closed.spec.is_none()), (&["reference-unreadable"][..], true));
    }
}
