//! Digests of referenced files that the document names: a file that is another one is an error.

use super::super::decode::{At, Raw, short};
use super::super::problems::Problems;
use super::super::reference::Holds;
use super::Materials;
use crate::model::digest::Digest;

/// A reference, what it is for, and its digest.
struct Pin<'r> {
    /// The key of the reference, and of its digest.
    keys: (&'static str, &'static str),
    reference: Option<&'r At<String>>,
    holds: Holds,
    written: &'r At<String>,
}

/// Compares every digest that is written.
pub fn check(raw: &Raw, materials: &mut Materials<'_>, problems: &mut Problems<'_>) {
    let cas = raw.cas.iter().filter(|ca| ca.file.is_some() || !ca.source_reported).filter_map(|ca| {
        Some(Pin { keys: ("file", "sha256"), reference: ca.file.as_ref(), holds: Holds::Ca, written: ca.sha256.as_ref()? })
    });
    let registries = raw.registries.iter().flat_map(|registry| {
        let [cert, key, credentials] = &registry.sha256;
        let pin = |keys, reference, holds, written| Some(Pin { keys, reference, holds, written });
        [
            cert.as_ref()
                .and_then(|written| pin(("client_cert", "client_cert_sha256"), registry.client_cert.as_ref(), Holds::ClientCert, written)),
            key.as_ref()
                .and_then(|written| pin(("client_key", "client_key_sha256"), registry.client_key.as_ref(), Holds::ClientKey, written)),
            credentials
                .as_ref()
                .and_then(|written| pin(("credentials", "credentials_sha256"), registry.credentials.as_ref(), Holds::Credentials, written)),
        ]
    });
    for pin in cas.chain(registries.flatten()) {
        compare(&pin, materials, problems);
    }
}

fn compare(pin: &Pin<'_>, materials: &mut Materials<'_>, problems: &mut Problems<'_>) {
    let (of, key) = pin.keys;
    let span = &pin.written.span;
    let Ok(wanted) = Digest::try_from(pin.written.value.to_ascii_lowercase().as_str()) else {
        let what = format!("\"{}\" is no SHA-256 in hexadecimal", short(&pin.written.value));
        problems.error("bad-value", span, what, "write the 64 digits that sha256sum prints for the file");
        return;
    };
    let Some(reference) = pin.reference else {
        let what = format!("`{key}` without `{of}`: there is no file that it could be of");
        problems.error("conflicting-keys", span, what, "take it out, or name the file");
        return;
    };
    let Some(bytes) = materials.get(reference, problems) else { return };
    let found = Digest::of(bytes);
    if found == wanted {
        return;
    }
    let name = &reference.value;
    let help = "put the file there that is meant, or write its digest anew if it was changed on purpose";
    let what = match pin.holds {
        Holds::Ca | Holds::ClientCert => format!("{name} has the SHA-256 {found}, not {wanted}"),
        // a digest would let a guess of the content be confirmed
        Holds::ClientKey | Holds::Credentials => format!("{name} is not the file whose SHA-256 is written here"),
    };
    problems.error("pin-mismatch", span, what, help);
}
