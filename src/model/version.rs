//! Version numbers of programs.

use std::fmt;

use serde::{Serialize, Serializer};

/// `major.minor.patch` of a runtime, without the suffixes of distributions.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first thing in `text` that looks like a version: `1.6.20` from `containerd github.com/… 1.6.20~ds1 …`, from a
    /// package's `1.7.24~ds1-6+deb13u1`, from `v2.1.9`. A Debian epoch (`1:`) is skipped; a missing patch is 0.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        text.split(|c: char| c.is_whitespace() || c == ',').find_map(Self::parse)
    }

    /// A word that is a version; whatever follows the third number is passed over.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.split_once(':').map_or(word, |(_, rest)| rest);
        let word = word.strip_prefix('v').unwrap_or(word);
        let mut numbers = word.splitn(3, '.').map(|part| {
            let digits: &str = &part[..part.bytes().take_while(u8::is_ascii_digit).count()];
            (digits.parse::<u32>().ok(), digits.len() == part.len())
        });
        let (major, whole) = numbers.next()?;
        let (minor, _) = numbers.next()?;
        let patch = numbers.next().and_then(|(patch, _)| patch).unwrap_or(0);
        Some(Self(major?, minor.filter(|_| whole)?, patch))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Version {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_versions_as_programs_and_packages_print_them() {
        for (text, want) in [
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1", Some(Version(1, 6, 20))),
            ("containerd github.com/containerd/containerd/v2 v2.1.9 deadbeef", Some(Version(2, 1, 9))),
            ("containerd containerd.io 1.7.24 88bf19b", Some(Version(1, 7, 24))),
            ("1:4.3.1+ds1-8+deb12u1", Some(Version(4, 3, 1))),
            ("podman version 5.4.2", Some(Version(5, 4, 2))),
            ("crio version 1.30", Some(Version(1, 30, 0))),
            ("2.3.0-rc.1", Some(Version(2, 3, 0))),
            ("unknown", None),
        ] {
            assert_eq!(Version::find(text), want, "{text}");
        }
    }
}
