//! Repository paths.

use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Serialize, Serializer};

/// A repository's path on its registry, without slashes at either end: `library/nginx`, or empty for the whole registry.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RepoPath(Arc<str>);

/// Why a text is no repository path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RepoError {
    /// The distribution spec allows lower case only; containers/image refuses the whole reference.
    #[error("repository path {0:?} has capitals")]
    UpperCase(String),
    /// Not `[a-z0-9]+` with single `.`, `_`, `__` or dashes between, components separated by `/`.
    #[error("{0:?} is no repository path: component {1:?} is not lower-case letters and digits with single '.', '_' or dashes between")]
    Component(String, String),
}

impl RepoPath {
    /// The whole registry.
    #[must_use]
    pub fn all() -> Self {
        static ALL: LazyLock<Arc<str>> = LazyLock::new(Arc::default);
        Self(Arc::clone(&ALL))
    }

    /// Reads a path; slashes at the ends are dropped.
    ///
    /// # Errors
    /// When a component is not as the OCI distribution spec (v1.1, "Pulling manifests") wants it.
    pub fn new(text: &str) -> Result<Self, RepoError> {
        let text = text.trim_matches('/');
        if text.is_empty() {
            return Ok(Self::all());
        }
        for component in text.split('/') {
            if component.bytes().any(|byte| byte.is_ascii_uppercase()) {
                return Err(RepoError::UpperCase(text.to_owned()));
            }
            if !is_component(component) {
                return Err(RepoError::Component(text.to_owned(), component.to_owned()));
            }
        }
        Ok(Self(text.into()))
    }

    /// A path as found in somebody's file, taken as it is (slashes at the ends dropped): what a runtime would send.
    #[must_use]
    pub fn verbatim(text: &str) -> Self {
        Self(text.trim_matches('/').into())
    }

    /// `self`, then `rest`.
    #[must_use]
    pub fn join(&self, rest: &Self) -> Self {
        match (self.is_all(), rest.is_all()) {
            (true, _) => rest.clone(),
            (_, true) => self.clone(),
            _ => Self(format!("{}/{}", self.0, rest.0).into()),
        }
    }

    /// What of `self` lies below `prefix`; `None` when it is elsewhere. `library/nginx` below `library` is `nginx`, below
    /// itself it is empty; `library2` is not below `library`.
    #[must_use]
    pub fn below(&self, prefix: &Self) -> Option<Self> {
        if prefix.is_all() {
            return Some(self.clone());
        }
        let rest = self.0.strip_prefix(&*prefix.0)?;
        if rest.is_empty() { Some(Self::all()) } else { rest.strip_prefix('/').map(|rest| Self(rest.into())) }
    }

    /// Whether it stands for the whole registry.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.0.is_empty()
    }

    /// As text, without slashes at the ends.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_component(text: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else { return false };
    if !alphanumeric(*first) || !alphanumeric(*last) {
        return false;
    }
    bytes.split(|byte| alphanumeric(*byte)).all(|gap| matches!(gap, b"" | b"." | b"_" | b"__") || gap.iter().all(|byte| *byte == b'-'))
}

impl fmt::Display for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RepoPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl Serialize for RepoPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_the_distribution_spec_accepts() {
        for good in ["library/nginx", "a.b_c__d-e---f/x9", "", "/x/"] {
            assert!(RepoPath::new(good).is_ok(), "{good}");
        }
        for bad in ["a//b", "-a", "a..b", "a___b", "a.", "a b", "a/_b"] {
            assert!(matches!(RepoPath::new(bad), Err(RepoError::Component(..))), "{bad}");
        }
        assert!(matches!(RepoPath::new("Hub"), Err(RepoError::UpperCase(_))));
    }

    #[test]
    fn prefixes_end_at_slashes() {
        let path = |text| RepoPath::new(text).unwrap();
        assert_eq!(path("library/nginx").below(&path("library")), Some(path("nginx")));
        assert_eq!(path("library").below(&path("library")), Some(RepoPath::all()));
        assert_eq!(path("library2/nginx").below(&path("library")), None);
        assert_eq!(path("a").below(&RepoPath::all()), Some(path("a")));
        assert_eq!(path("hub").join(&path("a/b")), path("hub/a/b"));
        assert_eq!(RepoPath::all().join(&path("a")), path("a"));
    }
}
