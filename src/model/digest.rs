//! SHA-256 digests: of files, and of certificates as fingerprints.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};
use sha2::{Digest as _, Sha256};

/// The SHA-256 of some bytes, shown as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct Digest([u8; 32]);

/// The SHA-256 of a certificate's DER form: what `openssl x509 -fingerprint -sha256` shows.
pub type Fingerprint = Digest;

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// A keyed digest (HMAC-SHA-256), for files that hold secrets: without the key a guess cannot be confirmed.
    #[must_use]
    pub fn keyed(key: &[u8; 32], bytes: &[u8]) -> Self {
        let pad = |with: u8| -> [u8; 64] {
            let mut block = [with; 64];
            for (byte, key) in block.iter_mut().zip(key) {
                *byte ^= key;
            }
            block
        };
        let inner = Sha256::new().chain_update(pad(0x36)).chain_update(bytes).finalize();
        Self(Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().into())
    }

    /// The first twelve hexadecimal digits: enough for a file name.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

/// Makes the digest of many pieces, one after the other.
#[derive(Clone, Debug, Default)]
pub struct Digester(Sha256);

impl Digester {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// One more piece.
    pub fn add(&mut self, piece: &[u8]) -> &mut Self {
        self.0.update(piece);
        self
    }

    /// The digest of all of them.
    #[must_use]
    pub fn digest(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEX: &[u8; 16] = b"0123456789abcdef";
        let mut text = [0; 64];
        for (pair, byte) in text.chunks_exact_mut(2).zip(self.0) {
            pair[0] = HEX[usize::from(byte >> 4)];
            pair[1] = HEX[usize::from(byte & 15)];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.to_string()
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Digits;
        impl Visitor<'_> for Digits {
            type Value = Digest;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a SHA-256 digest")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<Digest, E> {
                Digest::try_from(text).map_err(E::custom)
            }
        }
        from.deserialize_str(Digits)
    }
}

/// No hexadecimal digit.
const NONE: u8 = 0x80;

impl TryFrom<&str> for Digest {
    type Error = String;
    fn try_from(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no SHA-256 digest");
        let bytes = text.as_bytes();
        if bytes.len() != 64 {
            return Err(wrong());
        }
        let digit = |c: u8| match c {
            b'0'..=b'9' => c - b'0',
            b'a'..=b'f' => c - b'a' + 10,
            b'A'..=b'F' => c - b'A' + 10,
            _ => NONE,
        };
        // a ledger holds thousands of them: looked at once in the end
        let (mut out, mut seen) = ([0; 32], 0);
        for (byte, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
            let (high, low) = (digit(pair[0]), digit(pair[1]));
            seen |= high | low;
            *byte = high << 4 | low & 0xf;
        }
        if seen & NONE != 0 {
            return Err(wrong());
        }
        Ok(Self(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(Digest::of(b"hello").to_string(), hello);
        assert_eq!(Digest::try_from(hello), Ok(Digest::of(b"hello")));
        let mut pieces = Digester::new();
        pieces.add(b"he").add(b"").add(b"llo");
        assert_eq!(pieces.digest(), Digest::of(b"hello"));
        assert!(Digest::try_from("2cf2").is_err());
        assert!(Digest::try_from(&*hello.replace('2', "g")).is_err());
    }

    /// RFC 4231, test case 1, its 20-byte key padded with zeros as HMAC does.
    #[test]
    fn hmac_known_answer() {
        let mut key = [0; 32];
        key[..20].fill(0x0b);
        let want = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7";
        assert_eq!(Digest::keyed(&key, b"Hi There").to_string(), want);
    }
}
