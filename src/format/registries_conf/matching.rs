//! Which entry is responsible for a reference, and what is asked for it (`runtime-semantics.md` 2.3, 2.4).

use super::{Conf, Pull, Registry};
use crate::model::image::ImageRef;
use crate::model::place::Place;

/// One reference that is tried for an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What is really asked for.
    pub image: ImageRef,
    /// HTTPS unverified, then plain HTTP.
    pub insecure: bool,
    /// A mirror rather than the registry's own location.
    pub mirror: bool,
    /// Where it is written.
    pub at: Place,
}

/// How much of `reference` a prefix covers; `None` when it is not for it. `*.domain` covers sub-domains of any depth, in the
/// host only; anything else ends at `/`, `:` or `@` (so that `reg.local` also covers `reg.local:5000`, R07).
#[must_use]
pub fn matched(reference: &str, prefix: &str) -> Option<usize> {
    let end = if let Some(domain) = prefix.strip_prefix('*').filter(|domain| domain.starts_with('.')) {
        // the first occurrence only, as upstream looks for it
        let start = reference.find(domain)?;
        if reference[..start].contains('/') {
            return None;
        }
        start + domain.len()
    } else {
        reference.strip_prefix(prefix)?;
        prefix.len()
    };
    matches!(reference.as_bytes().get(end), None | Some(b'/' | b':' | b'@')).then_some(end)
}

/// A reference that is written in full already: what containers/image takes as result of a rewriting.
///
/// # Errors
/// Why it is none; the pull fails then.
pub fn canonical(text: &str) -> Result<ImageRef, String> {
    let image = ImageRef::parse(text).map_err(|error| error.to_string())?;
    if image.host.is_ipv6() {
        return Err(format!("{text:?}: references to IPv6 addresses cannot be read"));
    }
    if image.to_string() != text {
        return Err(format!("{text:?} is no full reference (it would mean {image})"));
    }
    Ok(image)
}

impl Conf {
    /// The entry for a repository (`host/path` without tag and digest): the longest prefix; of two of the same length the
    /// lexically smaller, so that `*.example.com` beats `a.example.com`.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Registry> {
        let boundary = |c: char| matches!(c, '/' | ':' | '@');
        let ends = name.match_indices(boundary).map(|(end, _)| end).chain([name.len()]);
        let exact = ends.filter_map(|end| self.registries.get(&name[..end]));
        let host = name.split(boundary).next().unwrap_or(name);
        let domains = host.match_indices('.').filter_map(|(dot, _)| self.registries.get(&format!("*{}", &host[dot..])));
        let all = exact.chain(domains.filter(|registry| matched(name, &registry.prefix).is_some()));
        all.max_by(|one, other| one.prefix.len().cmp(&other.prefix.len()).then_with(|| other.prefix.cmp(&one.prefix)))
    }
}

impl Registry {
    /// What is tried for `image`, in order: the mirrors that want it, then its own location. With a digest the tag is left
    /// out, as CRI-O and Podman do.
    ///
    /// # Errors
    /// When one of the resulting references is invalid: then nothing is tried at all (R05, R21).
    pub fn sources(&self, image: &ImageRef) -> Result<Vec<Source>, String> {
        let digested = image.digest.is_some();
        let wanted = |pull: Pull| match pull {
            Pull::All => !self.by_digest_only || digested,
            Pull::Digest => digested,
            Pull::Tag => !digested,
        };
        let mut sources = Vec::new();
        for mirror in self.mirrors.iter().filter(|mirror| wanted(mirror.pull)) {
            let image = self.rewrite(image, &mirror.location)?;
            sources.push(Source { image, insecure: mirror.insecure, mirror: true, at: mirror.at.clone() });
        }
        let image = self.rewrite(image, &self.location)?;
        sources.push(Source { image, insecure: self.insecure, mirror: false, at: self.at.clone() });
        Ok(sources)
    }

    fn rewrite(&self, image: &ImageRef, location: &str) -> Result<ImageRef, String> {
        let reference = match &image.digest {
            Some(digest) => format!("{}@{digest}", image.name()),
            None => format!("{}:{}", image.name(), image.reference()),
        };
        if location.is_empty() {
            return canonical(&reference);
        }
        let end = matched(&reference, &self.prefix).ok_or_else(|| format!("prefix {:?} is not for {reference}", self.prefix))?;
        canonical(&format!("{location}{}", &reference[end..]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The look-up by candidates finds what a walk over all entries finds, as upstream does it.
    #[test]
    fn finds_what_a_walk_finds() {
        let prefixes = ["a.b", "a.b:5", "a.b/c", "a.b/c/d", "*.b", "*.a.b", "x.b", "aa.b", "*", "a.*.b", "a.b/c:1", "localhost"];
        let entry = |prefix: &str| format!("[[registry]]\nprefix = \"{prefix}\"\nlocation = \"l.{}\"\n", prefix.len());
        let text: String = prefixes.iter().map(|prefix| entry(prefix)).collect();
        let conf = super::super::parse(&crate::model::path::NodePath::fixed("/x"), &text, false).unwrap();
        assert_eq!(conf.registries.len(), prefixes.len());
        for name in [
            "a.b/c",
            "a.b/c/d/e",
            "a.b:5/c",
            "a.b:6/c",
            "q.a.b/c",
            "x.b/c",
            "aa.b:1/c",
            "a.b.b/c",
            "a.b.c/b",
            "z/a.b",
            "localhost/x",
            "n.o/x",
            "q.b:5/a.b",
        ] {
            let walk = conf.registries.values().filter(|registry| matched(name, &registry.prefix).is_some());
            let walk = walk.reduce(|best, next| if next.prefix.len() > best.prefix.len() { next } else { best });
            assert_eq!(conf.find(name), walk, "{name}");
        }
    }

    #[test]
    fn prefixes_end_at_boundaries() {
        for (reference, prefix, want) in [
            ("docker.io/library/nginx", "docker.io", Some(9)),
            ("docker.io/library/nginx", "docker.io/library/nginx", Some(23)),
            ("docker.io/library/nginx-extra", "docker.io/library/nginx", None),
            ("reg.local:5000/x", "reg.local", Some(9)),
            ("a.b.example.com/z", "*.example.com", Some(15)),
            ("example.com/z", "*.example.com", None),
            ("foo.example.com.evil.org/z", "*.example.com", None),
            ("other.org/x.example.com/z", "*.example.com", None),
            ("anything.org/x", "*", None),
            ("foo.example.com/x", "foo.*.com", None),
        ] {
            assert_eq!(matched(reference, prefix), want, "{reference} {prefix}");
        }
    }
}
