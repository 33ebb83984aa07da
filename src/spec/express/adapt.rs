//! The one place where an intent is bent: how it looks once a version of a runtime expresses it.
use std::borrow::Cow;

use super::Family;
use super::rows::{IPV6_REFERENCES, NO_IPV6};
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::resolution::{Attempt, End, Resolution, Trust};
use crate::runtime::{Dialect, containerd};
use crate::spec::Spec;
use crate::spec::intent::{intent, own_registry};

/// An intent as this version of a runtime can express it: where [`ROWS`](super::ROWS) says "approximated", what it will really ask.
#[must_use]
pub fn adapt(spec: &Spec, resolution: Resolution, dialect: Dialect) -> Resolution {
    match family_of(dialect) {
        Family::Containerd if unreadable(&resolution.image, dialect) => {
            let why = format!("{}: {NO_IPV6}", resolution.image);
            Resolution { attempts: Vec::new(), end: End::Broken(why), ..resolution }
        }
        // nobody may be asked what the tag is: then nobody is asked at all (vector T45)
        Family::Containerd if unresolved(&resolution) => {
            let why = format!("no endpoint may be asked for {}: all are for references by digest", resolution.image);
            Resolution { attempts: Vec::new(), end: End::Broken(why), ..resolution }
        }
        Family::Containerd if is_lenient(spec, &resolution.image.host) => {
            let own = |attempt: Attempt| if attempt.upstream { leniently(attempt, dialect) } else { vec![attempt] };
            let attempts = resolution.attempts.into_iter().flat_map(own);
            Resolution { attempts: attempts.collect(), ..resolution }
        }
        Family::Containerd => resolution,
        Family::Containers if is_searched(spec, &resolution.image) => searched(spec, resolution, dialect),
        // what registries.conf has no name for stays open
        Family::Containers
            if matches!(resolution.end, End::Blocked(_))
                && spec.mirror_of(&resolution.image).is_none()
                && stays_open(spec, &resolution.image.host) =>
        {
            let open = own_registry(&resolution.image);
            Resolution { attempts: vec![open], end: End::Exhausted, ..resolution }
        }
        Family::Containers => {
            // who is not asked for the manifest is not asked for layers either
            let asked = resolution.attempts.into_iter().filter(|attempt| attempt.ops.resolve);
            let attempts = asked.flat_map(|attempt| match attempt.trust {
                Trust::Plain | Trust::Unverified => {
                    let secure = Attempt { scheme: Scheme::Https, trust: Trust::Unverified, ..attempt.clone() };
                    vec![secure, Attempt { scheme: Scheme::Http, trust: Trust::Plain, ..attempt }]
                }
                Trust::Verified { .. } => vec![attempt],
            });
            Resolution { attempts: attempts.collect(), ..resolution }
        }
    }
}

/// Whether the spec says where an image without registry is looked for.
fn is_searched(spec: &Spec, image: &ImageRef) -> bool {
    image.short && spec.search.is_some()
}

/// The full names that a name without registry stands for.
pub fn full_names<'a>(spec: &'a Spec, image: &'a ImageRef) -> impl Iterator<Item = ImageRef> + 'a {
    spec.search.iter().flatten().filter_map(|host| ImageRef::parse(&format!("{host}/{}", image.written)).ok())
}

/// One registry after the other.
fn searched(spec: &Spec, resolution: Resolution, dialect: Dialect) -> Resolution {
    let mut whole = Resolution { attempts: Vec::new(), end: End::Broken("there are no search registries".to_owned()), ..resolution };
    for image in full_names(spec, &whole.image) {
        let one = adapt(spec, intent(spec, &image), dialect);
        whole.attempts.extend(one.attempts);
        whole.end = one.end;
    }
    if !whole.attempts.is_empty() && matches!(whole.end, End::Broken(_)) {
        whole.end = End::Exhausted;
    }
    whole
}

/// Whether containerd asks a registry on the loopback interface in its own way (`runtime-semantics.md` 1.6): one without a
/// folder of its own, for which the mirror of all registries is.
fn is_lenient(spec: &Spec, host: &Host) -> bool {
    host.is_loopback() && spec.mirrors_named(host).next().is_none() && spec.wider(host).is_some()
}

fn leniently(attempt: Attempt, dialect: Dialect) -> Vec<Attempt> {
    let tls_first = dialect.containerd().is_none_or(containerd::Dialect::tries_tls_first);
    let port = attempt.host.port();
    let unverified = Attempt { trust: Trust::Unverified, ..attempt.clone() };
    let plain = Attempt { scheme: Scheme::Http, trust: Trust::Plain, ..attempt };
    match port {
        _ if !tls_first => vec![plain],
        None | Some(443) => vec![unverified],
        Some(80) => vec![plain],
        Some(_) => vec![unverified, plain],
    }
}

/// Whether registries.conf leaves a registry open that the spec does not name: one outside the closed domains that is not
/// even another name of one that the spec does name.
fn stays_open(spec: &Spec, host: &Host) -> bool {
    let named = |host: &Host| spec.access.contains_key(host) || spec.is_source_host(host);
    !spec.closes_domain_of(host) && !named(host) && !host.aliases().iter().any(named)
}

const fn family_of(dialect: Dialect) -> Family {
    match dialect {
        Dialect::Containerd(_) => Family::Containerd,
        Dialect::Containers => Family::Containers,
    }
}

/// Whether the image is one whose reference this version cannot even read: the table says so.
#[must_use]
pub fn unreadable(image: &ImageRef, dialect: Dialect) -> bool {
    let old = |dialect: containerd::Dialect| dialect < containerd::Dialect::of_version(IPV6_REFERENCES);
    image.host.is_ipv6() && dialect.containerd().is_some_and(old)
}

/// Whether there is somebody to be asked, but nobody for the reference itself.
fn unresolved(resolution: &Resolution) -> bool {
    !resolution.attempts.is_empty() && !resolution.attempts.iter().any(|attempt| attempt.ops.resolve)
}

/// The same without a copy where there is nothing to adapt.
#[must_use]
pub fn adapted<'a>(spec: &Spec, resolution: &'a Resolution, dialect: Dialect) -> Cow<'a, Resolution> {
    let bent = |attempt: &Attempt| matches!(attempt.trust, Trust::Plain | Trust::Unverified) || !attempt.ops.resolve;
    let denied = matches!(resolution.end, End::Blocked(_));
    let adapt = match family_of(dialect) {
        Family::Containers => denied || is_searched(spec, &resolution.image) || resolution.attempts.iter().any(bent),
        Family::Containerd => {
            let image = &resolution.image;
            unreadable(image, dialect) || unresolved(resolution) || is_lenient(spec, &image.host)
        }
    };
    if adapt { Cow::Owned(self::adapt(spec, resolution.clone(), dialect)) } else { Cow::Borrowed(resolution) }
}
