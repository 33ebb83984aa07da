//! The spec's meaning: what every runtime has to ask for an image. The oracle against which each runtime's reading of the
//! rendered files is held.

use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::{self, Gather as _};
use crate::model::repo::RepoPath;
use crate::model::resolution::{Attempt, Auth, End, Ops, Resolution, Trust};

use super::{Access, Fallback, Spec, Unlisted};
use crate::model::endpoint::{Pull, Scheme};
use crate::model::secret::Secret;

/// The ordered requests that the spec wants for `image`: the endpoints of its source, then the image's own registry unless
/// that is closed. An image that no source covers is asked for at its own registry: with the spec's CAs where the spec names
/// that registry (also as host of a sub-host source), as the OS does it where it does not; under `unlisted = "deny"` nowhere.
#[must_use]
pub fn intent(spec: &Spec, image: &ImageRef) -> Resolution {
    let mut attempts = Vec::new();
    let mirror = spec.mirror_of(image);
    let below = mirror.and_then(|mirror| mirror.source.rest(&image.repo)).unwrap_or_else(|| image.repo.clone());
    for endpoint in mirror.iter().flat_map(|mirror| &mirror.endpoints) {
        let at_mirror = attempt(endpoint.host.clone(), endpoint.prefix.join(&below), spec.access(&endpoint.host), false);
        let api_root = if endpoint.verbatim { String::new() } else { at_mirror.api_root.clone() };
        let ops = match (endpoint.pull, image.digest.is_some()) {
            (Pull::Tag, true) => continue,
            // what a tag leads to is named by its digest
            (Pull::Digest, false) => Ops { resolve: false, ..Ops::PULL },
            _ => Ops::PULL,
        };
        let mut header: Vec<(String, Secret)> =
            endpoint.header.iter().map(|(name, value)| (name.clone(), Secret::new(value.as_str()))).collect();
        order::sort(&mut header);
        attempts.push(Attempt { api_root, ops, header, timeout: endpoint.timeout, ..at_mirror });
    }
    if mirror.is_none() && spec.unlisted == Unlisted::Deny && !spec.access.contains_key(&image.host) {
        let end = End::Blocked("the spec denies registries that it does not name".to_owned());
        return Resolution { image: image.clone(), attempts, end, files: Vec::new() };
    }
    if let Some(blocked) = mirror.filter(|mirror| mirror.is_blocked()) {
        let end = End::Blocked(format!("the spec blocks {}", blocked.source));
        return Resolution { image: image.clone(), attempts, end, files: Vec::new() };
    }
    if mirror.is_none_or(|mirror| mirror.fallback != Fallback::Never) {
        let named = spec.access.contains_key(&image.host) || spec.is_source_host(&image.host);
        let access = if named { spec.access(&image.host) } else { &Access::bare() };
        attempts.push(attempt(image.host.api(), image.repo.clone(), access, true));
    }
    Resolution { image: image.clone(), attempts, end: End::Exhausted, files: Vec::new() }
}

/// An image's own registry, asked as the OS does it.
#[must_use]
pub fn own_registry(image: &ImageRef) -> Attempt {
    attempt(image.host.api(), image.repo.clone(), &Access::bare(), true)
}

fn attempt(host: Host, repo: RepoPath, access: &Access, upstream: bool) -> Attempt {
    Attempt {
        scheme: access.scheme,
        host,
        api_root: "/v2".to_owned(),
        repo,
        ops: Ops::PULL,
        upstream,
        trust: trust(access),
        client: access.client.as_ref().and_then(super::Client::fingerprint),
        header: Vec::new(),
        timeout: None,
        auth: access.login.as_ref().map_or(Auth::None, |login| Auth::Basic(login.basic.clone())),
        from: access.at.clone(),
    }
}

fn trust(access: &Access) -> Trust {
    match (access.scheme, access.insecure) {
        (Scheme::Http, _) => Trust::Plain,
        (Scheme::Https, true) => Trust::Unverified,
        (Scheme::Https, false) => Trust::Verified { extra: access.ca.iter().map(|cert| cert.fingerprint).gathered() },
    }
}
