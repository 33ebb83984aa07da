//! What a file is to hold, together with what of it must not be shown.

use std::fmt;

use super::digest::Digest;
use super::secret::{Secret, mask};

/// The bytes of a file to write, and the secrets among them: every diff and message that shows the one masks the other.
#[derive(Clone, PartialEq, Eq)]
pub struct Content {
    /// The bytes as they go to the disk.
    pub bytes: Vec<u8>,
    /// Every secret that stands in `bytes`, in each form in which it stands there.
    pub secrets: Vec<Secret>,
}

impl Content {
    /// Content without secrets.
    #[must_use]
    pub fn public(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), secrets: Vec::new() }
    }

    /// Content with secrets in it.
    #[must_use]
    pub fn secret(bytes: impl Into<Vec<u8>>, secrets: Vec<Secret>) -> Self {
        Self { bytes: bytes.into(), secrets }
    }

    /// The digest of the bytes.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// The text as it may be shown.
    #[must_use]
    pub fn masked(&self) -> String {
        mask(&String::from_utf8_lossy(&self.bytes), &self.secrets)
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}
