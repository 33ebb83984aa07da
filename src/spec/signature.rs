//! Detached signatures of a spec (minisign, Ed25519): who may say what a node does.
//!
//! What lives here: bytes, keys and signatures in, a verdict out; the only user of `minisign_verify`. What must not: finding them.
//! A document or URL has its signature in `NAME.minisig`; a folder in `SHA256SUMS.minisig`, over the list `SHA256SUMS`, which names
//! exactly its documents.

use std::collections::BTreeMap;

use minisign_verify::{PublicKey, Signature};

use super::documents::Document;
use super::notation::Notation;
use crate::model::digest::Digest;
use crate::model::problem::Problem;

/// What stands behind a name for its signature.
pub const ENDING: &str = ".minisig";
/// The list of a folder's documents, as `sha256sum` prints it.
pub const LIST: &str = "SHA256SUMS";
/// Larger lists and signatures are refused.
pub const LARGEST: usize = 64 << 10;

/// What was found beside the documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seal {
    /// The signature.
    pub signature: Vec<u8>,
    /// Of a folder: the list that it is of.
    pub list: Option<Vec<u8>>,
}

/// Keys of which one has to fit.
#[derive(Clone, Debug)]
pub struct Keys(Vec<PublicKey>);

impl Keys {
    /// Reads keys, each as `minisign -G` prints it (`RW…`) or as the whole content of its `minisign.pub`.
    ///
    /// # Errors
    /// The place of the first that is none.
    pub fn read<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, usize> {
        let texts = texts.into_iter().enumerate();
        texts.map(|(at, text)| key(text).ok_or(at)).collect::<Result<_, _>>().map(Self)
    }

    /// Whether no signature is asked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `seal` is a signature by one of them over these documents of the spec `name`.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, name: &str, documents: &[Document], seal: &Seal) -> Result<(), Problem> {
        let signed = match (&seal.list, documents) {
            (Some(list), _) => list.as_slice(),
            (None, [only]) => &only.bytes,
            (None, _) => return Err(refused(format!("the spec {name} has several documents and no list of them"))),
        };
        let signature = std::str::from_utf8(&seal.signature).ok().and_then(|text| Signature::decode(text).ok());
        let Some(signature) = signature else {
            return Err(refused(format!("the signature of the spec {name} is no minisign signature")));
        };
        if !self.0.iter().any(|key| key.verify(signed, &signature, true).is_ok()) {
            let keys = if self.0.len() == 1 { "the key" } else { "none of the keys" };
            let fits = if self.0.len() == 1 { "does not fit" } else { "fits" };
            return Err(refused(format!(
                "the signature of the spec {name} is not by whom it has to be, or not of this content: {keys} of --spec-public-key {fits}"
            )));
        }
        seal.list.as_ref().map_or(Ok(()), |list| listed(name, list, documents))
    }
}

fn refused(what: String) -> Problem {
    Problem::error("bad-signature", what, "sign what is published with `minisign -S` and the secret key, and publish both together")
}

fn key(text: &str) -> Option<PublicKey> {
    let text = text.trim();
    PublicKey::from_base64(text).ok().or_else(|| PublicKey::decode(text).ok())
}

/// Whether a list names exactly these documents, each as it is.
fn listed(name: &str, list: &[u8], documents: &[Document]) -> Result<(), Problem> {
    let wrong = |what: String| {
        let help = "write the list anew (`sha256sum -- *.toml *.yaml *.yml > SHA256SUMS`, of those that there are), and sign it";
        Err(Problem::error("bad-signature", format!("{LIST} of the spec {name} {what}"), help))
    };
    let mut there: BTreeMap<&str, &Document> =
        documents.iter().map(|document| (document.file.rsplit('/').next().unwrap_or_default(), document)).collect();
    let Ok(text) = std::str::from_utf8(list) else { return wrong("is no text".to_owned()) };
    for (number, line) in text.lines().enumerate() {
        let entry = line.split_once(' ').and_then(|(digest, file)| {
            let file = file.strip_prefix([' ', '*'])?;
            Some((Digest::try_from(digest).ok()?, file.strip_prefix("./").unwrap_or(file)))
        });
        let Some((digest, file)) = entry else { return wrong(format!("is no list of sha256sum, see its line {}", number + 1)) };
        if file.starts_with('.') || file.contains('/') || Notation::of_name(file).is_none() {
            continue; // no document; what is referenced is pinned by these
        }
        match there.remove(file) {
            Some(document) if Digest::of(&document.bytes) == digest => {}
            Some(_) => return wrong(format!("says that {file} is another one")),
            None => return wrong(format!("names {file}, which is not there")),
        }
    }
    there.keys().next().map_or(Ok(()), |file| wrong(format!("does not name {file}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = include_str!("../../fixtures/signed/fleet.pub");
    const OTHER: &str = include_str!("../../fixtures/signed/other.pub");
    const SPEC: &[u8] = include_bytes!("../../fixtures/signed/serial-7.toml");
    const SIGNATURE: &[u8] = include_bytes!("../../fixtures/signed/serial-7.toml.minisig");
    const LEGACY: &[u8] = include_bytes!("../../fixtures/signed/serial-7.toml.legacy.minisig");

    fn document(file: &str, bytes: &[u8]) -> Document {
        Document { file: file.to_owned(), bytes: bytes.to_vec() }
    }

    fn seal(signature: &[u8], list: Option<&[u8]>) -> Seal {
        Seal { signature: signature.to_vec(), list: list.map(<[u8]>::to_vec) }
    }

    fn says(keys: &[&str], documents: &[Document], seal: &Seal) -> String {
        let keys = Keys::read(keys.iter().copied()).unwrap();
        keys.check("S", documents, seal).err().map(|problem| problem.what).unwrap_or_default()
    }

    #[test]
    fn one_document() {
        let spec = [document("spec.toml", SPEC)];
        let bare = KEY.lines().nth(1).unwrap();
        for keys in [&[KEY][..], &[bare], &[OTHER, KEY]] {
            assert_eq!(says(keys, &spec, &seal(SIGNATURE, None)), "");
            assert_eq!(says(keys, &spec, &seal(LEGACY, None)), "");
        }
        assert!(says(&[OTHER], &spec, &seal(SIGNATURE, None)).contains("the key of --spec-public-key does not fit"));
        let changed = [document("spec.toml", &[SPEC, b"#"].concat())];
        assert!(says(&[KEY, OTHER], &changed, &seal(SIGNATURE, None)).contains("none of the keys of --spec-public-key fits"));
        // the trusted comment is signed, too
        let comment = String::from_utf8(SIGNATURE.to_vec()).unwrap().replace("trusted comment: ", "trusted comment: x");
        assert!(says(&[KEY], &spec, &seal(comment.as_bytes(), None)).contains("not by whom"));
        assert!(says(&[KEY], &spec, &seal(b"", None)).contains("no minisign signature"));
        assert!(says(&[KEY], &spec, &seal(b"\xff", None)).contains("no minisign signature"));
        assert_eq!(Keys::read([KEY, "RWnonsense"]).unwrap_err(), 1);
    }

    #[test]
    fn a_folder_is_as_its_list_says() {
        let list = include_bytes!("../../fixtures/signed/folder/SHA256SUMS");
        let sealed = seal(include_bytes!("../../fixtures/signed/folder/SHA256SUMS.minisig"), Some(list));
        let one = document("/x/10-top.toml", include_bytes!("../../fixtures/signed/folder/10-top.toml"));
        let two = document("/x/20-mirrors.yaml", include_bytes!("../../fixtures/signed/folder/20-mirrors.yaml"));
        let both = [one.clone(), two.clone()];
        assert_eq!(says(&[KEY], &both, &sealed), "");
        assert!(says(&[KEY], &both[..1], &sealed).contains("names 20-mirrors.yaml, which is not there"));
        let more = [one.clone(), two.clone(), document("/x/30.toml", b"")];
        assert!(says(&[KEY], &more, &sealed).contains("does not name 30.toml"));
        let changed = [one, document("/x/20-mirrors.yaml", b"mirror: []\n")];
        assert!(says(&[KEY], &changed, &sealed).contains("says that 20-mirrors.yaml is another one"));
        assert!(says(&[KEY], &both, &seal(&sealed.signature, None)).contains("several documents"));
        assert!(says(&[KEY], &both, &seal(&sealed.signature, Some(b""))).contains("not by whom"));
    }

    #[test]
    fn lists_as_sha256sum_writes_them() {
        let digest = Digest::of(b"x");
        let is =
            |list: &str| listed("S", list.as_bytes(), &[document("/x/a.toml", b"x")]).err().map(|problem| problem.what).unwrap_or_default();
        for good in
            ["{}  a.toml\n", "{} *a.toml\n", "{}  ./a.toml", "{}  a.toml\n{}  ca.pem\n{}  sub/b.toml\n", "{}  a.toml\n{}  .a.toml\n"]
        {
            assert_eq!(is(&good.replace("{}", &digest.to_string())), "", "{good}");
        }
        for bad in ["a.toml\n", "{}\n", "{} a.toml\n", "\\{}  a.toml\n", "{}  a.toml\n{}  a.toml\n", ""] {
            assert_ne!(is(&bad.replace("{}", &digest.to_string())), "", "{bad}");
        }
    }
}
