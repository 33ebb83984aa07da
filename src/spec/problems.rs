//! Gathering what is wrong with a document: all of it, each with place and excerpt.

use std::ops::Range;
use std::sync::Arc;

use super::text::Text;
use crate::model::order;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};

/// Every code that reading a spec can give, with what it is about. Scripts rely on them: they are not renamed.
pub const CODES: &[(&str, &str)] = &[
    ("approximated", "a runtime does nearly what is meant"),
    ("bad-domain", "an entry of `deny_domains` is no domain, or there is none"),
    ("bad-name", "a [[ca]] has a name that is no file name, or the spec one that is none"),
    ("bad-runtimes", "`runtimes` is empty, names one twice, one that nodeprep does not know, or none of the document's"),
    ("bad-value", "a value is none of those that the key takes"),
    ("ca-expired", "a CA certificate is no longer valid and is left out"),
    ("ca-expires-soon", "a CA certificate expires within 30 days"),
    ("ca-is-leaf", "a certificate offered as CA was issued by another one and is no CA itself"),
    ("ca-not-yet-valid", "a CA certificate is not valid yet and is left out"),
    ("ca-unused", "a [[ca]] is trusted by no registry and not by the operating system"),
    ("ca-with-key", "a file of CA certificates holds a private key"),
    ("ca-without-flag", "a self-signed certificate has no CA flag: some trust stores drop it"),
    ("canary", "a [[canary]] is in no mirror, or there are too many of them"),
    ("client-expired", "a client certificate is not valid now"),
    ("client-expires-soon", "a client certificate expires within 30 days"),
    ("client-incomplete", "a client certificate without its key, or the reverse"),
    ("client-key-mismatch", "a client key does not belong to its certificate"),
    ("client-key-unchecked", "a client key could not be compared with its certificate"),
    ("client-key-unreadable", "a client key cannot be read"),
    ("conflicting-keys", "two keys that exclude each other"),
    ("credentials-by", "`credentials_by` without `credentials`"),
    ("credentials-no-host", "a credentials file has no login for the host"),
    ("credentials-unreadable", "a credentials file is no dockerconfigjson"),
    ("credentials-unsupported", "a login of a kind that cannot be written into a node's configuration"),
    ("deny-domains-unused", "`deny_domains` without `unlisted = \"deny\"`"),
    ("duplicate", "the same name, host, source or endpoint twice"),
    ("insecure", "a registry's certificate is not checked"),
    ("insecure-http", "`insecure` together with plain HTTP"),
    ("invalid-endpoint", "an endpoint is no `host[:port][/prefix]`"),
    ("invalid-header", "a header of an endpoint cannot be sent, or is the runtime's own"),
    ("invalid-host", "a host is no `host[:port]`"),
    ("invalid-image", "the pause image is no image reference with a registry"),
    ("invalid-source", "a source is no `host[:port][/prefix]`, `*.domain` or `*`"),
    ("invalid-timeout", "a timeout of an endpoint is no time, or too long"),
    ("leading-v2", "an endpoint has a `/v2` in front of its prefix that is taken off"),
    ("mirror-of-itself", "an endpoint lies inside its own source"),
    ("missing-key", "a required key is not there"),
    ("more-problems", "there are more than are shown"),
    ("needs-newer", "the spec needs another version of nodeprep (`requires`)"),
    ("no-head", "no document of a folder carries the top-level keys"),
    ("no-endpoint-left", "no endpoint of a closed source takes references of one kind"),
    ("no-valid-ca", "a registry is left without any CA that is valid now"),
    ("not-expressible", "a runtime cannot do what is meant"),
    ("not-utf8", "the document is no UTF-8 text"),
    ("pause-blocked", "the pause image is pulled from a blocked source"),
    ("pause-image-floats", "the pause image has neither tag nor digest"),
    ("pem-binary", "a file is DER, PKCS#12, a Java keystore or other binary data"),
    ("pem-malformed", "a PEM section cannot be read"),
    ("pem-no-certificate", "a file holds no certificate"),
    ("pem-section-skipped", "a PEM section that every runtime passes over in silence"),
    ("pin-mismatch", "a referenced file has another SHA-256 than the document says"),
    ("plaintext-credentials", "credentials would be sent over plain HTTP"),
    ("public-registries-open", "`deny_domains` leaves well-known public registries open"),
    ("pull-secrets-reach-mirrors", "containerd offers the pull secrets of an image's registry to its mirrors"),
    ("reference-not-beside", "a file reference leaves the document's folder"),
    ("reference-on-node", "a file on the node was not looked at here"),
    ("reference-unreadable", "a referenced file could not be read"),
    ("scheme-conflict", "one host both with and without TLS"),
    ("search-closed", "a search registry is closed by `unlisted = \"deny\"`"),
    ("secret-in-spec", "a secret stands in the document"),
    ("several-heads", "several documents of a folder carry top-level keys"),
    ("syntax", "the document is no TOML or YAML"),
    ("tls-over-http", "TLS settings for a host that is spoken to over plain HTTP"),
    ("too-large", "the document is larger than 1 MiB"),
    ("unknown-ca", "`ca` names a [[ca]] that is not there"),
    ("unpinned", "a file that is fetched, or that a signed spec references, has no digest"),
    ("unknown-key", "a key that the spec does not have"),
    ("unsupported-version", "a version of the spec that this nodeprep does not know"),
    ("wrong-type", "a value of another kind than the key takes"),
    ("yaml-feature", "an anchor, alias, tag, merge key or second document in YAML"),
];

/// As many errors, and as many warnings and notes, are told at most: nobody reads more, and each costs a look at its line.
const MOST: usize = 500;

/// Problems of one document, in the order in which they are found.
#[derive(Debug)]
pub struct Problems<'a> {
    text: &'a Text,
    found: Vec<Problem>,
    errors: usize,
    others: usize,
}

impl<'a> Problems<'a> {
    /// None yet.
    #[must_use]
    pub fn new(text: &'a Text) -> Self {
        Self { text, found: Vec::new(), errors: 0, others: 0 }
    }

    fn push(&mut self, problem: Problem, span: &Range<usize>) {
        debug_assert!(CODES.iter().any(|(code, _)| *code == problem.code), "{} is not in the table of codes", problem.code);
        let count = if problem.severity == Severity::Error { &mut self.errors } else { &mut self.others };
        *count += 1;
        if *count <= MOST {
            self.found.push(self.text.locate(problem, span));
        }
    }

    /// An error at `span`.
    pub fn error(&mut self, code: &'static str, span: &Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::error(code, what, help), span);
    }

    /// A warning at `span`.
    pub fn warning(&mut self, code: &'static str, span: &Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::warning(code, what, help), span);
    }

    /// A note at `span`.
    pub fn note(&mut self, code: &'static str, span: &Range<usize>, what: impl Into<String>, help: impl Into<String>) {
        self.push(Problem::note(code, what, help), span);
    }

    /// How many of them are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Whether there is nothing to say.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.errors + self.others == 0
    }

    /// The document's text.
    #[must_use]
    pub fn text(&self) -> &'a Text {
        self.text
    }

    /// All of them; what was too much is counted in one more.
    #[must_use]
    pub fn into_vec(mut self) -> Vec<Problem> {
        let help = "correct these first";
        let file = || Place::file(Arc::clone(self.text.file()));
        if self.errors > MOST {
            self.found.push(Problem::error("more-problems", format!("{} more errors are not shown", self.errors - MOST), help).at(file()));
        }
        if self.others > MOST {
            self.found.push(Problem::note("more-problems", format!("{} more warnings are not shown", self.others - MOST), help).at(file()));
        }
        self.found
    }
}

/// Orders problems by place.
pub fn sort(problems: &mut [Problem]) {
    order::sort_by(problems, |a, b| {
        let key = |problem: &'_ Problem| problem.at.as_ref().map(|place| (Arc::clone(&place.file), place.line, place.column));
        key(a).cmp(&key(b)).then_with(|| b.severity.cmp(&a.severity))
    });
}
