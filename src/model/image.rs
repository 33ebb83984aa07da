//! Image references as users write them.

use std::fmt;

use serde::{Serialize, Serializer};

use super::host::{HUB, Host, HostError};
use super::repo::{RepoError, RepoPath};

/// An image reference, normalised as containerd's CRI plugin, Docker and containers/image do it
/// (distribution/reference, `ParseDockerRef`): no host means Docker Hub, one component there means `library/…`, neither tag
/// nor digest means `:latest`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// As it was written.
    pub written: String,
    /// The registry that it names, `docker.io` when it names none.
    pub host: Host,
    /// The repository on that registry, never empty.
    pub repo: RepoPath,
    /// Tag, `latest` when there is neither tag nor digest.
    pub tag: Option<String>,
    /// `sha256:…`. With a tag beside it the digest decides and the tag is only a comment.
    pub digest: Option<String>,
    /// No registry was written: `nginx`. Podman and CRI-O then ask their short-name aliases and search registries.
    pub short: bool,
}

/// Why a text is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Nothing there, or only a registry.
    #[error("image reference {0:?} names no repository")]
    NoRepository(String),
    /// The part before the first slash.
    #[error("image reference {0:?}: {1}")]
    Host(String, #[source] HostError),
    /// The part between.
    #[error("image reference {0:?}: {1}")]
    Repository(String, #[source] RepoError),
    /// `[A-Za-z0-9_][A-Za-z0-9._-]{0,127}`
    #[error("image reference {0:?}: {1:?} is no tag")]
    Tag(String, String),
    /// `algorithm:hex`
    #[error("image reference {0:?}: {1:?} is no digest")]
    Digest(String, String),
}

impl ImageRef {
    /// Reads a reference: `nginx`, `quay.io/a/b:1`, `reg:5000/x@sha256:…`.
    ///
    /// # Errors
    /// When some part of it is not as the distribution spec wants it.
    pub fn parse(text: &str) -> Result<Self, ImageError> {
        let written = text.to_owned();
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest)),
            None => (text, None),
        };
        if let Some(digest) = digest.filter(|digest| !is_digest(digest)) {
            return Err(ImageError::Digest(written, digest.to_owned()));
        }
        let (rest, tag) = match rest.rsplit_once(':') {
            Some((head, tag)) if !tag.contains('/') && !tag.contains(']') && !head.is_empty() => (head, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ImageError::Tag(written, tag.to_owned()));
        }
        let (host, repo) = match rest.split_once('/') {
            Some((host, repo)) if names_a_registry(host) => (Some(host), repo),
            _ => (None, rest),
        };
        let short = host.is_none();
        let host = match host {
            // both names normalise to docker.io (distribution/reference, legacyDefaultDomain)
            None | Some("index.docker.io") => Host::fixed(HUB),
            Some(host) => Host::from_reference(host).map_err(|error| ImageError::Host(written.clone(), error))?,
        };
        let mut repo = RepoPath::new(repo).map_err(|error| ImageError::Repository(written.clone(), error))?;
        if repo.is_all() || text.trim_end_matches('/') != text {
            return Err(ImageError::NoRepository(written));
        }
        if host.as_str() == HUB && !repo.as_str().contains('/') {
            repo = RepoPath::verbatim("library").join(&repo);
        }
        let tag = tag.map(ToOwned::to_owned).or_else(|| digest.is_none().then(|| "latest".to_owned()));
        Ok(Self { written, host, repo, tag, digest: digest.map(ToOwned::to_owned), short })
    }

    /// What is asked for at `…/manifests/`: the digest if there is one, else the tag.
    #[must_use]
    pub fn reference(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// Host and repository without tag and digest.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}/{}", self.host, self.repo)
    }
}

/// Whether what stands before the first slash is a registry (distribution/reference, `splitDockerDomain`: a dot, a colon,
/// `localhost`, or a capital).
fn names_a_registry(text: &str) -> bool {
    text.contains(['.', ':']) || text == "localhost" || text.to_lowercase() != text
}

fn is_tag(text: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let (Some(first), true) = (text.bytes().next(), text.len() <= 128) else { return false };
    word(first) && text.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

/// Whether it is `algorithm:hex`, of an algorithm that registries use.
#[must_use]
pub fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == digits && hex.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repo)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ImageRef {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalises_as_the_runtimes_do() {
        let digest = format!("sha256:{}", "a".repeat(64));
        for (text, want, short) in [
            ("nginx", "docker.io/library/nginx:latest".to_owned(), true),
            ("bitnami/redis:7", "docker.io/bitnami/redis:7".to_owned(), true),
            ("docker.io/nginx:1.25", "docker.io/library/nginx:1.25".to_owned(), false),
            ("index.docker.io/a/b", "docker.io/a/b:latest".to_owned(), false),
            ("registry-1.docker.io/library/x:1", "registry-1.docker.io/library/x:1".to_owned(), false),
            ("localhost/x", "localhost/x:latest".to_owned(), false),
            ("reg:5000/x", "reg:5000/x:latest".to_owned(), false),
            ("[2001:db8::1]:5000/a/b:1", "[2001:db8::1]:5000/a/b:1".to_owned(), false),
            ("[2001:db8::1]/a/b", "[2001:db8::1]/a/b:latest".to_owned(), false),
            ("quay.io:443/a", "quay.io:443/a:latest".to_owned(), false),
            (&format!("quay.io/a@{digest}"), format!("quay.io/a@{digest}"), false),
            (&format!("quay.io/a:1@{digest}"), format!("quay.io/a:1@{digest}"), false),
            ("Quay.io/a", "Quay.io/a:latest".to_owned(), false),
        ] {
            let image = ImageRef::parse(text).unwrap();
            assert_eq!((image.to_string(), image.short), (want, short), "{text}");
        }
    }

    #[test]
    fn refuses_what_no_runtime_takes() {
        for bad in ["", "quay.io/", "quay.io/A", "a:b:c", "a@sha256:12", "x:-1", "a//b", "reg:99999/x", "a b", "quay.io/x/"] {
            assert!(ImageRef::parse(bad).is_err(), "{bad}");
        }
    }
}
