//! References of a document to files: as text, before anybody reads them.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Serialize;

use super::decode::{At, Raw};
use super::document::{Node, Scalar, Tree};
use super::problems::Problems;
use super::text::{holds_login, holds_private_key, names_a_login, names_a_secret};
use crate::model::digest::Digest;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::url::{self, Url};

/// A file that the document needs. Whoever reads it must refuse links that leave the document's folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reference {
    /// As it is written: the key of the materials.
    pub written: String,
    /// Where to look.
    pub location: Location,
    /// What it is for.
    pub holds: Holds,
    /// The SHA-256 that the document writes for it.
    #[serde(skip)]
    pub pin: Option<Digest>,
    /// Where it is written first.
    pub at: Place,
    /// The same as a part of the text.
    #[serde(skip)]
    pub span: Range<usize>,
}

/// Where a referenced file is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Location {
    /// In the document's folder or below, or in `--material DIR`: a relative path without `..`.
    Beside(String),
    /// On the node (`node:/path`).
    Node(NodePath),
    /// At the origin of a document from a URL.
    #[serde(skip)]
    Url(Url),
}

/// What a referenced file is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holds {
    /// CA certificates.
    Ca,
    /// A client certificate.
    ClientCert,
    /// A client key: secret.
    ClientKey,
    /// A dockerconfigjson: secret.
    Credentials,
}

impl Holds {
    /// Whether anybody may see it.
    #[must_use]
    pub const fn is_public(self) -> bool {
        matches!(self, Self::Ca | Self::ClientCert)
    }

    /// The key that pins it.
    #[must_use]
    pub const fn pinned_by(self) -> &'static str {
        match self {
            Self::Ca => "sha256",
            Self::ClientCert => "client_cert_sha256",
            Self::ClientKey => "client_key_sha256",
            Self::Credentials => "credentials_sha256",
        }
    }
}

/// Every reference of a document, each file once; what is wrong as text is reported and left out.
pub fn all(raw: &Raw, problems: &mut Problems<'_>) -> Vec<Reference> {
    let cas = raw.cas.iter().filter_map(|ca| Some((ca.file.as_ref()?, Holds::Ca, ca.sha256.as_ref())));
    let registries = raw.registries.iter().flat_map(|registry| {
        let [cert, key, credentials] = &registry.sha256;
        [
            (registry.client_cert.as_ref(), Holds::ClientCert, cert.as_ref()),
            (registry.client_key.as_ref(), Holds::ClientKey, key.as_ref()),
            (registry.credentials.as_ref(), Holds::Credentials, credentials.as_ref()),
        ]
    });
    let written = cas.chain(registries.filter_map(|(at, holds, pin)| Some((at?, holds, pin))));
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: Vec<Reference> = Vec::new();
    for (at, holds, pin) in written {
        let Some(location) = location(at, holds, problems) else { continue };
        // what is no digest is told by who compares it
        let pin = pin.and_then(|pin| Digest::try_from(pin.value.to_ascii_lowercase().as_str()).ok());
        if let Some(first) = seen.get(at.value.as_str()) {
            let first = &mut found[*first];
            first.pin = first.pin.or(pin);
            continue;
        }
        seen.insert(&at.value, found.len());
        let place = problems.text().place(at.span.start);
        found.push(Reference { written: at.value.clone(), location, holds, pin, at: place, span: at.span.clone() });
    }
    found.retain(|reference| {
        let Location::Url(url) = &reference.location else { return true };
        if reference.pin.is_none() {
            let help = format!("add `{} = \"…\"` with what `sha256sum` prints for the file", reference.holds.pinned_by());
            problems.error("unpinned", &reference.span, format!("{url} has no digest, and what is fetched needs one"), help);
        }
        reference.pin.is_some()
    });
    found
}

fn location(written: &At<String>, holds: Holds, problems: &mut Problems<'_>) -> Option<Location> {
    let text = written.value.as_str();
    if holds_private_key(text) {
        return None; // reported with the document's other secrets
    }
    if holds == Holds::Credentials && is_a_login(text) {
        let help = "put the login into a dockerconfigjson file and write that file's name";
        problems.error("secret-in-spec", &written.span, "a login stands in `credentials`, which names a file", help);
        return None;
    }
    if text.contains("-----BEGIN ") || text.contains('\n') {
        let help =
            if holds == Holds::Ca { "write certificates into `pem`, or name a file" } else { "put it into a file and name that file" };
        problems.error("reference-not-beside", &written.span, "the content of a file stands where its name belongs", help);
        return None;
    }
    if url::is_meant(text) {
        if !holds.is_public() {
            let what = "a key or login stands at a URL, from where it is never fetched";
            let help = "put it into the folder of --material and write its name, or write `node:/path` for a file on the node";
            problems.error("reference-not-beside", &written.span, what, help);
            return None;
        }
        return match Url::parse(text) {
            Ok(url) => Some(Location::Url(url)),
            Err(why) => {
                problems.error("reference-not-beside", &written.span, format!("the reference {why}"), why.help());
                None
            }
        };
    }
    if let Some(path) = text.strip_prefix("node:") {
        return match NodePath::new(path) {
            Ok(path) if path != NodePath::root() => Some(Location::Node(path)),
            _ => {
                let what = format!("reference {text:?} names no file on the node");
                problems.error(
                    "reference-not-beside",
                    &written.span,
                    what,
                    "write `node:` and an absolute path, as in `node:/etc/pki/ca.pem`",
                );
                None
            }
        };
    }
    let what = if text.trim().is_empty() {
        "an empty reference names no file".to_owned()
    } else if text.starts_with('/') {
        format!("reference {text:?} is absolute")
    } else if text.split('/').any(|part| part == "..") {
        format!("reference {text:?} has `..` in it, which may leave the document's folder")
    } else if text.chars().any(char::is_control) || text.ends_with('/') {
        format!("reference {text:?} names no file")
    } else {
        return Some(Location::Beside(text.to_owned()));
    };
    let help = "put the file beside the document and write its relative path, or `node:/path` for a file on the node";
    problems.error("reference-not-beside", &written.span, what, help);
    None
}

/// `user:password`, or JSON, where a file name belongs.
pub(super) fn is_a_login(text: &str) -> bool {
    text.trim_start().starts_with('{') || text.contains(':') && !text.starts_with("node:") && !text.contains("://")
}

/// The parts of a document that no excerpt shows, as far as the tree tells: values of keys that name a secret, private keys,
/// logins (a URL's own login is hidden by the text itself).
#[must_use]
pub fn hidden(root: &Node) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    hide(root, false, &mut found);
    found
}

fn hide(node: &Node, secret: bool, found: &mut Vec<Range<usize>>) {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) if secret || holds_private_key(text) || holds_login(text) && !text.contains("://") => {
            found.push(node.span.clone());
        }
        Tree::Scalar(_) if secret => found.push(node.span.clone()),
        Tree::Scalar(_) => {}
        Tree::List(nodes) => nodes.iter().for_each(|node| hide(node, secret, found)),
        Tree::Table(entries) => {
            for entry in entries {
                let login = entry.key == "credentials" && entry.node.text().is_some_and(is_a_login);
                if let (false, "header", Tree::Table(headers)) = (secret, entry.key.as_str(), &entry.node.value) {
                    for header in headers {
                        let login = names_a_login(&header.key) || header.node.text().is_some_and(super::text::is_a_login);
                        hide(&header.node, login, found);
                    }
                    continue;
                }
                hide(&entry.node, secret || login || names_a_secret(&entry.key), found);
            }
        }
    }
}
