//! Absolute paths as seen from the node's root.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, Error, Visitor};

/// An absolute, normalised path inside the node's root: `/etc/containerd/config.toml` whatever `--root` says.
///
/// No empty component, no `.` or `..`, no trailing slash (except the root itself, `/`). Always UTF-8: everything that
/// nodeprep writes is, and names that are not are reported by the reader and left alone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(into = "String")]
pub struct NodePath(Arc<str>);

/// Why a text is no path on the node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Relative paths mean nothing on a node.
    #[error("path {0:?} is not absolute")]
    NotAbsolute(String),
    /// A NUL byte cannot be part of a file name.
    #[error("path {0:?} holds a NUL byte")]
    Nul(String),
}

impl NodePath {
    /// The node's root folder, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self(Arc::from("/"))
    }

    /// Normalises `text`: doubled slashes, `.` and `..` are resolved as text, as `path.Clean` does in Go (`..` above the
    /// root stays at the root).
    ///
    /// # Errors
    /// When `text` is not absolute or holds a NUL byte.
    pub fn new(text: &str) -> Result<Self, PathError> {
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute(text.to_owned()));
        }
        if is_clean(text) {
            return Ok(Self(text.into()));
        }
        if text.contains('\0') {
            return Err(PathError::Nul(text.to_owned()));
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                name => parts.push(name),
            }
        }
        let mut clean = String::with_capacity(text.len());
        for part in &parts {
            clean.push('/');
            clean.push_str(part);
        }
        if clean.is_empty() {
            clean.push('/');
        }
        Ok(Self(clean.into()))
    }

    /// A path that is written in this source; panics on a relative one.
    #[must_use]
    pub fn fixed(text: &'static str) -> Self {
        Self::new(text).expect("paths in the source are absolute")
    }

    /// This path and one more component or relative path; an absolute `name` replaces it, as `filepath.Join` does not
    /// but every reader of `ca = "…"` does.
    #[must_use]
    pub fn join(&self, name: &str) -> Self {
        if is_plain(name) {
            // by far the most frequent: a name in a folder
            let folder = if &*self.0 == "/" { "" } else { &*self.0 };
            let mut text = String::with_capacity(folder.len() + 1 + name.len());
            text.push_str(folder);
            text.push('/');
            text.push_str(name);
            return Self(text.into());
        }
        let text = if name.starts_with('/') { name.to_owned() } else { format!("{}/{name}", self.0) };
        Self::new(&text.replace('\0', "")).unwrap_or_else(|_| Self::root())
    }

    /// The folder that holds it; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let end = self.0.bytes().rposition(|byte| byte == b'/').filter(|_| &*self.0 != "/")?;
        Some(if end == 0 { Self::root() } else { Self(self.0[..end].into()) })
    }

    /// The folders above it and then itself, from the top on, as text; the root itself is left out.
    pub fn ancestry(&self) -> impl Iterator<Item = &str> {
        let inner = self.0.match_indices('/').skip(1).map(|(at, _)| &self.0[..at]);
        inner.chain(std::iter::once(&*self.0).filter(|all| *all != "/"))
    }

    /// The last component; empty for the root.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.bytes().rposition(|byte| byte == b'/').map_or("", |end| &self.0[end + 1..])
    }

    /// The components from the root on.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }

    /// Whether it lies below `folder` (not `folder` itself).
    #[must_use]
    pub fn is_below(&self, folder: &Self) -> bool {
        if &*folder.0 == "/" {
            return &*self.0 != "/";
        }
        self.0.strip_prefix(&*folder.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// What of it lies below `folder`: `b/c` of `/a/b/c` below `/a`.
    #[must_use]
    pub fn inside(&self, folder: &Self) -> Option<&str> {
        self.0.strip_prefix(folder.0.trim_end_matches('/'))?.strip_prefix('/').filter(|rest| !rest.is_empty())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether normalising would change nothing, and nothing is wrong with it. One look at each byte: a ledger holds thousands of paths.
fn is_clean(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('/') else { return false };
    // of the component so far: its bytes, and those of them that are dots
    let (mut length, mut dots) = (0_usize, 0_usize);
    for byte in inside.bytes() {
        match byte {
            b'/' if length == dots && dots <= 2 => return false,
            b'/' => (length, dots) = (0, 0),
            0 => return false,
            byte => (length, dots) = (length + 1, dots + usize::from(byte == b'.')),
        }
    }
    inside.is_empty() || length != dots || dots > 2
}

/// Whether it is one component as it may stand in a path.
fn is_plain(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.bytes().any(|byte| matches!(byte, b'/' | 0))
}

impl<'de> Deserialize<'de> for NodePath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = NodePath;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an absolute path")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<NodePath, E> {
                NodePath::new(text).map_err(E::custom)
            }
        }
        // without a text of its own for each: a ledger has thousands
        from.deserialize_str(Text)
    }
}

impl From<NodePath> for String {
    fn from(path: NodePath) -> Self {
        path.0.as_ref().to_owned()
    }
}

impl Borrow<str> for NodePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NodePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_like_a_shell_would() {
        for (text, want) in [
            ("/", "/"),
            ("//a//b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/a/..", "/"),
            ("/a/.", "/a"),
            ("/a/..b/.c/d..", "/a/..b/.c/d.."),
            ("/a/.../....", "/a/.../...."),
            ("/a/../b/..", "/"),
            ("/./a", "/a"),
        ] {
            assert_eq!(NodePath::new(text).unwrap().as_str(), want, "{text}");
        }
        assert_eq!(NodePath::new("a/b"), Err(PathError::NotAbsolute("a/b".into())));
        assert_eq!(NodePath::new("/a\0b"), Err(PathError::Nul("/a\0b".into())));
    }

    #[test]
    fn parents_and_children() {
        let path = NodePath::fixed("/etc/containerd");
        assert_eq!(path.join("certs.d/x").as_str(), "/etc/containerd/certs.d/x");
        assert_eq!(path.join("/ca.pem").as_str(), "/ca.pem");
        assert_eq!(path.parent().unwrap().as_str(), "/etc");
        assert_eq!(path.parent().unwrap().parent(), Some(NodePath::root()));
        assert_eq!(NodePath::root().parent(), None);
        assert!(path.is_below(&NodePath::root()) && !path.is_below(&path));
        assert!(!NodePath::fixed("/etc/containerdx").is_below(&path));
        assert_eq!(path.name(), "containerd");
        assert_eq!((path.inside(&NodePath::root()), path.inside(&path)), (Some("etc/containerd"), None));
        assert_eq!(NodePath::fixed("/etc/containerdx/y").inside(&path), None);
        assert_eq!(NodePath::root().join("etc"), NodePath::fixed("/etc"));
        assert_eq!(path.join("a\0b").as_str(), "/etc/containerd/ab");
        for (name, want) in [("..", "/etc"), (".", "/etc/containerd"), ("", "/etc/containerd"), ("...", "/etc/containerd/...")] {
            assert_eq!(path.join(name).as_str(), want, "{name:?}");
        }
        assert_eq!(path.ancestry().collect::<Vec<_>>(), ["/etc", "/etc/containerd"]);
        assert_eq!(NodePath::root().ancestry().count(), 0);
    }
}
