//! What of a spec is for one runtime.
//!
//! What lives here: mirrors that are for others, and sources below host level that containerd takes as whole registries. What
//! must not: whether a runtime can express the result ([`super::express`]).

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use super::express::Family;
use super::validate::canonical;
use super::{Mirror, Names, Source, Spec};
use crate::model::endpoint::Endpoint;
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::repo::RepoPath;
use crate::runtime::Runtime;

impl Spec {
    /// The spec as it counts for one runtime: without the mirrors that are for others, and with whole registries where
    /// containerd is to take these. The spec itself when nothing in it is for single runtimes.
    #[must_use]
    pub fn for_runtime(&self, runtime: Runtime) -> Cow<'_, Self> {
        let scoped = self.scoped(runtime);
        if Family::of(runtime) != Family::Containerd || !scoped.mirrors.iter().any(|mirror| mirror.widen) {
            return scoped;
        }
        let mut spec = scoped.into_owned();
        widen(&mut spec.mirrors);
        spec.names = Names::default();
        Cow::Owned(spec)
    }

    /// The spec without the mirrors that are for other runtimes, and without the hosts that only these name.
    #[must_use]
    pub fn scoped(&self, runtime: Runtime) -> Cow<'_, Self> {
        let is_for = |mirror: &Mirror| mirror.runtimes.as_ref().is_none_or(|only| only.contains(&runtime));
        if self.mirrors.iter().all(is_for) {
            return Cow::Borrowed(self);
        }
        let mut spec = Self { names: Names::default(), ..self.clone() };
        spec.mirrors.retain(is_for);
        let used: BTreeSet<&Host> = spec.mirrors.iter().flat_map(|mirror| &mirror.endpoints).map(|endpoint| &endpoint.host).gathered();
        spec.access.retain(|host, _| !spec.passing.contains(host) || used.contains(host));
        Cow::Owned(spec)
    }
}

/// Why a source below host level cannot be taken as a whole registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Narrow {
    /// This endpoint does not end with the source's path: the rest of the registry has no place there.
    Endpoint,
    /// Another source of the same registry has other endpoints or another fallback.
    Differs,
}

/// Every source that asks to be widened and cannot, with the reason; `about` is the endpoint or the other source.
#[must_use]
pub fn narrow(mirrors: &[Mirror]) -> Vec<(&Mirror, Narrow, String)> {
    let mut found = Vec::new();
    if !mirrors.iter().any(|mirror| mirror.widen) {
        return found;
    }
    for group in groups(mirrors).into_values() {
        if !group.iter().any(|mirror| mirror.widen) {
            continue;
        }
        let mut first: Option<(&Mirror, Vec<Endpoint>)> = None;
        for mirror in group {
            match widened(mirror) {
                Err(endpoint) => found.push((mirror, Narrow::Endpoint, endpoint.to_string())),
                Ok(endpoints) => match &first {
                    None => first = Some((mirror, endpoints)),
                    Some((other, theirs)) => {
                        let same = *theirs == endpoints && other.fallback == mirror.fallback && other.source.host() == mirror.source.host();
                        if !same {
                            found.push((mirror, Narrow::Differs, format!("{} (line {})", other.source, other.at.line)));
                        }
                    }
                },
            }
        }
    }
    found
}

/// The sources of each registry that count for it as a whole: those that are, and those that are to be widened.
fn groups(mirrors: &[Mirror]) -> BTreeMap<&str, Vec<&Mirror>> {
    let mut groups: BTreeMap<&str, Vec<&Mirror>> = BTreeMap::new();
    for mirror in mirrors.iter().filter(|mirror| mirror.widen || mirror.source.whole().is_some()) {
        if let Some(host) = mirror.source.host() {
            groups.entry(canonical(host)).or_default().push(mirror);
        }
    }
    groups
}

/// The endpoints of the whole registry: those of the source, less its path.
fn widened(mirror: &Mirror) -> Result<Vec<Endpoint>, &Endpoint> {
    let path = mirror.source.prefix().map_or("", |(_, path)| path.as_str());
    let base = |endpoint: &Endpoint| {
        let before = endpoint.prefix.as_str().strip_suffix(path)?;
        let ends = path.is_empty() || before.is_empty() || before.ends_with('/');
        ends.then(|| Endpoint { prefix: RepoPath::verbatim(before), ..endpoint.clone() })
    };
    mirror.endpoints.iter().map(|endpoint| base(endpoint).ok_or(endpoint)).collect()
}

/// Puts one mirror of the whole registry in the place of those that are to be widened. What cannot be stays as it is.
fn widen(mirrors: &mut Vec<Mirror>) {
    let stuck: BTreeSet<String> =
        narrow(mirrors).iter().filter_map(|(mirror, ..)| mirror.source.host()).map(|host| canonical(host).to_owned()).gathered();
    let mut done: BTreeSet<Host> = mirrors.iter().filter_map(|mirror| mirror.source.whole()).cloned().gathered();
    mirrors.retain_mut(|mirror| {
        let host = mirror.source.host().filter(|host| mirror.widen && !stuck.contains(canonical(host))).cloned();
        let (Some(host), Ok(endpoints)) = (host, widened(mirror)) else { return true };
        mirror.endpoints = endpoints;
        mirror.source = Source::registry(host.clone());
        done.insert(host)
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::image::ImageRef;
    use crate::spec::intent::intent;
    use crate::spec::load::Draft;

    fn spec(text: &str) -> Spec {
        let text = format!("version = 1\nfallback = 'never'\n{text}");
        let closed = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None);
        closed.spec.unwrap_or_else(|| panic!("{:?}", closed.problems))
    }

    fn mirror(source: &str, endpoint: &str, more: &str) -> String {
        format!("[[mirror]]\nsource = '{source}'\nendpoints = ['{endpoint}']\n{more}\n")
    }

    fn asked(spec: &Spec, runtime: Runtime, image: &str) -> Vec<String> {
        let spec = spec.for_runtime(runtime);
        let meant = intent(&spec, &ImageRef::parse(image).unwrap());
        meant.attempts.iter().map(|attempt| format!("{}/{}", attempt.host, attempt.repo)).collect()
    }

    #[test]
    fn a_mirror_counts_for_its_runtimes_only() {
        let text = mirror("quay.io", "a.corp", "runtimes = ['containerd']") + &mirror("quay.io", "b.corp", "runtimes = ['podman']");
        let spec = spec(&text);
        assert_eq!(asked(&spec, Runtime::Containerd, "quay.io/x:1"), ["a.corp/x"]);
        assert_eq!(asked(&spec, Runtime::Podman, "quay.io/x:1"), ["b.corp/x"]);
        assert_eq!(asked(&spec, Runtime::Crio, "quay.io/x:1"), ["quay.io/x"]);
        // what only others ask has no configuration here
        assert!(!spec.for_runtime(Runtime::Podman).access.contains_key(&Host::fixed("a.corp")));
        let named = format!("[[registry]]\nhost = 'a.corp'\n{text}");
        assert!(self::spec(&named).for_runtime(Runtime::Podman).access.contains_key(&Host::fixed("a.corp")));
    }

    #[test]
    fn containerd_takes_the_whole_registry() {
        let spec = spec(&mirror("quay.io/team", "m.corp/quay/team", "widen = true"));
        for (image, containerd, podman) in [
            ("quay.io/team/x:1", "m.corp/quay/team/x", "m.corp/quay/team/x"),
            ("quay.io/other/x:1", "m.corp/quay/other/x", "quay.io/other/x"),
        ] {
            assert_eq!(asked(&spec, Runtime::Containerd, image), [containerd]);
            assert_eq!(asked(&spec, Runtime::Podman, image), [podman]);
        }
    }

    #[test]
    fn what_does_not_agree_stays_narrow() {
        let wide = |source, endpoint| mirror(source, endpoint, "widen = true");
        let two = |second: String| wide("quay.io/a", "m.corp/q/a") + &second;
        for (text, want) in [
            (wide("quay.io/a", "m.corp/a"), None),
            (wide("quay.io/a", "m.corp/q/a"), None),
            (wide("quay.io/a", "m.corp/q"), Some(Narrow::Endpoint)),
            (wide("quay.io/a", "m.corp/qa"), Some(Narrow::Endpoint)),
            (wide("quay.io/a", "m.corp"), Some(Narrow::Endpoint)),
            (two(wide("quay.io/b", "m.corp/q/b")), None),
            (two(wide("quay.io/b", "n.corp/q/b")), Some(Narrow::Differs)),
            (two(wide("quay.io:443/b", "m.corp/q/b")), Some(Narrow::Differs)),
            (two(mirror("quay.io/b", "m.corp/q/b", "widen = true\nfallback = 'upstream'")), Some(Narrow::Differs)),
            (two(mirror("quay.io", "m.corp/q", "")), None),
            (two(mirror("quay.io", "m.corp/z", "")), Some(Narrow::Differs)),
        ] {
            let spec = spec(&text);
            let found: Vec<Narrow> = narrow(&spec.mirrors).into_iter().map(|(_, why, _)| why).collect();
            assert_eq!(found, want.into_iter().collect::<Vec<_>>(), "{text}");
            let wide = spec.for_runtime(Runtime::Containerd);
            let whole = wide.mirrors.iter().all(|mirror| mirror.source.whole().is_some());
            assert_eq!(whole && wide.mirrors.len() == 1, want.is_none(), "{text}");
        }
    }
}
