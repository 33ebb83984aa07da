//! Values that must never be seen.

use crate::model::order;
use std::fmt;
use std::sync::Arc;

/// Bytes that no log, diff, plan, excerpt or metric may show: a password, a private key, an encoded login.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Secret(Arc<[u8]>);

/// What stands in the place of a secret wherever something is shown.
pub const MASK: &str = "********";

/// Shorter values would mask half of the output and are no secrets worth the name.
const SHORTEST: usize = 4;

impl Secret {
    /// Takes the bytes as secret.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self(Arc::from(bytes.into()))
    }

    /// The bytes, for the one place that writes or sends them.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// `text` with every occurrence of each secret replaced by [`MASK`], by value. A secret of several lines (a key) is
/// masked line by line, so that a diff that shows one line of it is covered too.
#[must_use]
pub fn mask(text: &str, secrets: &[Secret]) -> String {
    let mut needles: Vec<&str> = secrets
        .iter()
        .filter_map(|secret| std::str::from_utf8(secret.expose()).ok())
        .flat_map(|secret| std::iter::once(secret).chain(secret.lines()))
        .map(str::trim)
        .filter(|needle| needle.len() >= SHORTEST && !needle.starts_with("-----"))
        .collect();
    // longest first: a password that is part of a longer secret must not leave that one's rest readable
    order::sort_by_key(&mut needles, |needle| std::cmp::Reverse(needle.len()));
    needles.dedup();
    needles.iter().fold(text.to_owned(), |text, needle| if text.contains(needle) { text.replace(needle, MASK) } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_by_value_and_line() {
        let key = Secret::new("-----BEGIN PRIVATE KEY-----\nMIIEabcd\nqrstuv\n-----END PRIVATE KEY-----\n");
        let login = Secret::new("user:hunter2");
        let part = Secret::new("hunter2");
        let text = "a hunter2 b user:hunter2 c MIIEabcd d qrstuv -----BEGIN PRIVATE KEY-----";
        assert_eq!(mask(text, &[part, login, key]), format!("a {MASK} b {MASK} c {MASK} d {MASK} -----BEGIN PRIVATE KEY-----"));
        assert_eq!(format!("{:?}", Secret::new("hunter2")), MASK);
    }
}
