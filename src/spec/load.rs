//! Bytes → closed [`Spec`]: open the document, say which files it needs, close it over their bytes. No effects: whoever
//! calls reads the files.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Arc;

use super::decode::{Raw, decode, short};
use super::documents::{self, Document};
use super::problems::{Problems, sort};
use super::reference::{self, Reference};
use super::text::Text;
use super::{Serial, Spec, express, requires, validate};
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
    /// Reads the document `file`: UTF-8 of at most [`LARGEST`] bytes; a byte order mark and CRLF are allowed. Its name says
    /// whether it is TOML or YAML, else its first line ([`super::notation`]).
    ///
    /// # Errors
    /// When it is no document at all. Everything else that is wrong is told by [`Draft::close`].
    pub fn open(file: &str, bytes: &[u8]) -> Result<Self, Vec<Problem>> {
        Self::open_all(file, &[Document { file: file.to_owned(), bytes: bytes.to_vec() }])
    }

    /// Reads the documents of the folder `name`, in this order: one of them carries the top-level keys, the others only lists.
    ///
    /// # Errors
    /// When one is no document at all, when none carries the top-level keys, or when a newer nodeprep is needed.
    pub fn open_all(name: &str, documents: &[Document]) -> Result<Self, Vec<Problem>> {
        let documents::Joined { mut text, root, slips, heads, headless } = documents::join(name, documents)?;
        text.hide(reference::hidden(&root));
        let mut problems = Problems::new(&text);
        if let Some(wanted) = requires::unmet(&root, env!("CARGO_PKG_VERSION")) {
            let what = format!("this spec needs nodeprep {}, this is {}", short(&wanted.value), env!("CARGO_PKG_VERSION"));
            problems.error(
                "needs-newer",
                &wanted.span,
                what,
                "install that nodeprep on the node, or write the spec without what only it can do",
            );
            return Err(problems.into_vec());
        }
        for slip in slips.into_iter().chain(heads) {
            problems.error(slip.code, &slip.span, slip.what, slip.help);
        }
        let raw = decode(&root, &mut problems);
        let references = reference::all(&raw, &mut problems);
        let mut problems = problems.into_vec();
        if headless.is_some() {
            // one cause, one problem: the document's own keys are missing because no document has them
            problems.retain(|problem| problem.code != "missing-key" || !problem.what.ends_with("is missing"));
        }
        problems.extend(headless);
        let document = digest_of(documents);
        Ok(Self { text, document, raw, problems, references })
    }

    /// The files that the document needs, each once.
    #[must_use]
    pub fn references(&self) -> &[Reference] {
        &self.references
    }

    /// Demands of it what a signed spec has to say: its serial, and the digest of every public file that it references. Only
    /// what is signed counts then.
    pub fn demand_signed(&mut self) {
        let mut problems = Problems::new(&self.text);
        let public = |reference: &&Reference| reference.holds.is_public() && reference.pin.is_none();
        for reference in self.references.iter().filter(public) {
            let what = format!("{:?} has no digest: a signed spec says which file it means", reference.written);
            let help = format!("add `{} = \"…\"` with what `sha256sum` prints for the file", reference.holds.pinned_by());
            problems.error("unpinned", &reference.span, what, help);
        }
        self.problems.extend(problems.into_vec());
        if self.raw.serial.is_none() {
            let what = "`serial` is missing: without it a signed spec of before could be given again";
            let place = Place::file(Arc::clone(self.text.file()));
            self.problems.push(
                Problem::error("missing-key", what, "add `serial = 1` to the top-level keys, and count on with every change").at(place),
            );
        }
    }

    /// Closes the document over the content of its references (by [`Reference::written`]; or why it could not be read).
    /// `now` decides what is expired; without it, or where it cannot be right, validity is not judged.
    ///
    /// A `node:` reference that is missing from `materials` was not looked at: that is a note, and what it holds is not in
    /// the spec ([`Closed::unread`]).
    #[must_use]
    pub fn close(self, materials: &BTreeMap<String, Result<Vec<u8>, String>>, now: Option<Time>) -> Closed {
        self.close_doubting(materials, now, || false)
    }

    /// The same where the clock may not be right: `unsynchronised` is asked where a certificate would be called bad by it, and where it says
    /// so, validity is not judged either.
    #[must_use]
    pub fn close_doubting(
        self,
        materials: &BTreeMap<String, Result<Vec<u8>, String>>,
        now: Option<Time>,
        unsynchronised: impl FnOnce() -> bool,
    ) -> Closed {
        let validated = |now: Option<Time>| {
            let mut problems = Problems::new(&self.text);
            let mut given = validate::Materials::new(materials, &self.references);
            let whole = validate::validate(&self.raw, &mut given, now, &mut problems);
            (whole, given.unread(), problems.into_vec())
        };
        let judged = now.filter(|now| now.is_plausible());
        let (mut whole, mut unread, mut problems) = validated(judged);
        let mut clock = now.filter(|now| !now.is_plausible()).map(wrong_clock);
        if let (Some(now), Some(bad)) = (judged, problems.iter().find(|problem| OF_VALIDITY.contains(&problem.code)))
            && unsynchronised()
        {
            clock = Some(doubtful_clock(now, &bad.what));
            (whole, unread, problems) = validated(None);
        }
        let mut found = self.problems;
        found.extend(clock);
        found.extend(problems);
        sort(&mut found);
        let sound = !found.iter().any(|problem| problem.severity == Severity::Error);
        let spec = sound.then(|| Spec {
            digest: digest(self.document, &self.references, materials),
            references: self.references.iter().map(|reference| reference.written.clone()).collect(),
            serial: whole.serial.map(|serial| Serial { documents: self.document, ..serial }),
            ..whole
        });
        Closed { spec, problems: found, unread, text: self.text }
    }
}

/// That nothing is known of what is valid now.
fn wrong_clock(now: Time) -> Problem {
    let what =
        format!("the clock says {now}, which is before this nodeprep was made: whether certificates are valid now could not be checked");
    Problem::warning("clock", what, "set the clock, or wait until it is synchronised, and run again")
}

/// What is said of certificates that are bad by the clock.
const OF_VALIDITY: [&str; 3] = ["ca-expired", "ca-not-yet-valid", "client-expired"];

/// The same of a clock that may be right, and that nobody vouches for.
fn doubtful_clock(now: Time, bad: &str) -> Problem {
    let what = format!(
        "the clock says {now}, and nobody has synchronised it since the boot: whether certificates are valid now could not be checked. If it is \
         right, {}",
        bad.trim_end_matches(": it is left out")
    );
    let help = "let the clock be synchronised (`timedatectl` shows whether it is); where it is right without that, renew the certificate";
    Problem::warning("clock", what, help)
}

/// Over the bytes of the documents; with their names, where there are several.
fn digest_of(documents: &[Document]) -> Digest {
    if let [only] = documents {
        return Digest::of(&only.bytes);
    }
    let mut text = String::new();
    for document in documents {
        let _ = writeln!(text, "{} {:?}", Digest::of(&document.bytes), document.file.rsplit('/').next().unwrap_or_default());
    }
    Digest::of(text.as_bytes())
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
