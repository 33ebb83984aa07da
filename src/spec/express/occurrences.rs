//! Where a spec asks for something that the table speaks of.
use std::collections::{BTreeMap, HashMap};

use super::{Family, Row, Subject};
use crate::model::endpoint::{Endpoint, Pull, Scheme};
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::suffix::Suffix;
use crate::runtime::Runtime;
use crate::spec::scope::{self, Narrow};
use crate::spec::validate::canonical;
use crate::spec::{Access, Fallback, LoginBy, Mirror, Source, Spec, Unlisted};

/// Where a spec asks for something: what to call it, and its place.
pub(super) fn occurrences(spec: &Spec, row: &Row, there: &[Runtime]) -> Vec<(String, Option<Place>)> {
    let sources = |wanted: &dyn Fn(&Mirror) -> bool| {
        let found = spec.mirrors.iter().filter(|mirror| wanted(mirror));
        found.map(|mirror| (format!("source {}", mirror.source), Some(mirror.at.clone()))).collect()
    };
    let access = |wanted: fn(&Access) -> bool, name: &str| {
        let found = spec.access.iter().filter(|(_, access)| wanted(access));
        found.map(|(host, access)| (format!("{name} {host}"), access.at.clone())).collect()
    };
    match row.subject {
        // nothing to say about these
        Subject::HostSource | Subject::Prefix | Subject::ClientCertificate | Subject::Blocked => Vec::new(),
        Subject::PortlessSource => {
            let portless = |mirror: &&Mirror| mirror.source.whole().is_some_and(|host| host.port().is_none());
            let mut sources = spec.mirrors.iter().filter(portless);
            let first = sources.next();
            let more = sources.count();
            let name = |first: &Mirror| match more {
                0 => format!("source {}", first.source),
                more => format!("source {} (and {more} more)", first.source),
            };
            first.map(|first| (name(first), Some(first.at.clone()))).into_iter().collect()
        }
        Subject::SubHostSource => {
            let below = spec.mirrors.iter().filter(|mirror| mirror.source.below_host().is_some() && !mirror.widen);
            below.map(|mirror| (format!("source {}", mirror.source), Some(mirror.at.clone()))).collect()
        }
        Subject::WidenedSource | Subject::WidenedEndpoint | Subject::WidenedBeside => widened(spec, row.subject),
        Subject::DomainSource => sources(&|mirror| matches!(mirror.source, Source::Domain(_))),
        Subject::DomainShort => short_below_domains(spec),
        Subject::AllSource => sources(&|mirror| mirror.source == Source::All),
        Subject::DenyAll => {
            let all = spec.all().filter(|all| spec.unlisted == Unlisted::Deny && Some(all.fallback) == row.fallback);
            all.map(|mirror| ("unlisted = \"deny\" beside source *".to_owned(), Some(mirror.at.clone()))).into_iter().collect()
        }
        Subject::OneOfFamily => {
            let both = [Runtime::Crio, Runtime::Podman].iter().all(|runtime| there.contains(runtime));
            let one = |only: &Vec<Runtime>| only.contains(&Runtime::Crio) != only.contains(&Runtime::Podman);
            sources(&|mirror| both && mirror.runtimes.as_ref().is_some_and(one))
        }
        Subject::Ipv6Source => sources(&|mirror| mirror.source.host().is_some_and(Host::is_ipv6)),
        Subject::Ipv6 => {
            let found = spec.access.iter().filter(|(host, _)| host.is_ipv6());
            found.map(|(host, access)| (format!("host {host}"), access.at.clone())).collect()
        }
        Subject::BareEndpoint => {
            let mut found = BTreeMap::new();
            for mirror in &spec.mirrors {
                for endpoint in mirror.endpoints.iter().filter(|endpoint| !endpoint.host.is_recognised_in_references()) {
                    found.entry(&endpoint.host).or_insert(&mirror.at);
                }
            }
            found.into_iter().map(|(host, at)| (format!("endpoint host {host}"), Some(at.clone()))).collect()
        }
        Subject::PullDigest => endpoints(spec, "`pull = \"digest\"` of", |endpoint| endpoint.pull == Pull::Digest),
        Subject::PullTag => endpoints(spec, "`pull = \"tag\"` of", |endpoint| endpoint.pull == Pull::Tag),
        Subject::Timeout => endpoints(spec, "`timeout` of", |endpoint| endpoint.timeout.is_some()),
        Subject::Header => endpoints(spec, "`header` of", |endpoint| !endpoint.header.is_empty()),
        Subject::ClosedEndpoint => closed_endpoints(spec),
        Subject::PlainHttp => access(|access| access.scheme == Scheme::Http, "plain HTTP for"),
        Subject::Unverified => access(|access| access.scheme == Scheme::Https && access.insecure, "`insecure` for"),
        Subject::Credentials => access(|access| access.login.as_ref().is_some_and(|login| login.by == LoginBy::Header), "credentials for"),
        Subject::Search => spec.search.iter().map(|_| ("search".to_owned(), None)).collect(),
        Subject::SearchSeveral => {
            let several = spec.search.iter().filter(|hosts| hosts.len() > 1);
            several.map(|hosts| (format!("search with {} registries", hosts.len()), None)).collect()
        }
        Subject::Deny => {
            let denied = (spec.unlisted == Unlisted::Deny && spec.all().is_none()).then(|| {
                let all: Vec<String> = spec.deny_domains.iter().flatten().map(ToString::to_string).collect();
                let closed =
                    if all.is_empty() || row.family == Family::Containerd { String::new() } else { format!(" with {}", all.join(", ")) };
                (format!("unlisted = \"deny\"{closed}"), None)
            });
            denied.into_iter().collect()
        }
        Subject::DenyShort => {
            let denies = spec.unlisted == Unlisted::Deny;
            let sources = spec.mirrors.iter().filter_map(|mirror| Some((mirror.source.host()?, Some(&mirror.at))));
            let hosts = spec.access.iter().map(|(host, access)| (host, access.at.as_ref()));
            let found: BTreeMap<_, _> = hosts.chain(sources).filter(|(host, _)| denies && spec.loses_to_its_domain(host)).gathered();
            found.into_iter().map(|(host, at)| (format!("{host} beside unlisted = \"deny\""), at.cloned())).collect()
        }
    }
}

/// Sources with `widen`, as far as each of the three subjects is about them.
fn widened(spec: &Spec, subject: Subject) -> Vec<(String, Option<Place>)> {
    let narrow = scope::narrow(&spec.mirrors);
    let wide = |mirror: &&Mirror| mirror.widen && !narrow.iter().any(|(other, ..)| std::ptr::eq(*other, *mirror));
    let named = |mirror: &Mirror, more: String| (format!("source {} with `widen`{more}", mirror.source), Some(mirror.at.clone()));
    let because = |wanted: Narrow, words: &str| {
        let found = narrow.iter().filter(|(_, why, _)| *why == wanted);
        found.map(|(mirror, _, about)| named(mirror, format!("{words}{about}"))).collect()
    };
    match subject {
        Subject::WidenedEndpoint => because(Narrow::Endpoint, " and endpoint "),
        Subject::WidenedBeside => because(Narrow::Differs, " beside "),
        _ => spec.mirrors.iter().filter(wide).map(|mirror| named(mirror, String::new())).collect(),
    }
}

/// Named registries whose entry is as long as that for the domain of a source.
fn short_below_domains(spec: &Spec) -> Vec<(String, Option<Place>)> {
    let domains: Vec<&Suffix> = spec
        .mirrors
        .iter()
        .filter_map(|mirror| match &mirror.source {
            Source::Domain(domain) => Some(domain),
            Source::All | Source::Prefix { .. } => None,
        })
        .collect();
    let tied = |host: &Host| domains.iter().find(|domain| domain.covers(host) && host.as_str().len() == domain.domain().len() + 2);
    let sources = spec.mirrors.iter().filter_map(|mirror| Some((mirror.source.whole()?, Some(&mirror.at))));
    let hosts: BTreeMap<_, _> = spec.access.iter().map(|(host, access)| (host, access.at.as_ref())).chain(sources).gathered();
    let found = hosts.into_iter().filter_map(|(host, at)| Some((format!("{host} beside source {}", tied(host)?), at.cloned())));
    found.collect()
}

/// Endpoints of a kind, one for each mirror.
fn endpoints(spec: &Spec, name: &str, wanted: fn(&Endpoint) -> bool) -> Vec<(String, Option<Place>)> {
    let found = |mirror: &Mirror| {
        let endpoint = mirror.endpoints.iter().find(|endpoint| wanted(endpoint))?;
        Some((format!("{name} endpoint {endpoint} for {}", mirror.source), Some(mirror.at.clone())))
    };
    spec.mirrors.iter().filter_map(found).collect()
}

/// Endpoints that lie, wholly or partly, under the block of a `never` source; a longer source that is open lifts it.
fn closed_endpoints(spec: &Spec) -> Vec<(String, Option<Place>)> {
    if spec.mirrors.iter().all(|mirror| mirror.fallback != Fallback::Never) {
        return Vec::new();
    }
    let mut sources: HashMap<&str, Vec<(&RepoPath, &Mirror)>> = HashMap::with_capacity(spec.mirrors.len());
    for mirror in &spec.mirrors {
        if let Some((host, path)) = mirror.source.prefix() {
            sources.entry(canonical(host)).or_default().push((path, mirror));
        }
    }
    let mut found = Vec::new();
    for mirror in &spec.mirrors {
        for endpoint in &mirror.endpoints {
            let Some(there) = sources.get(canonical(&endpoint.host)) else { continue };
            let covers = |(path, _): &&(&RepoPath, &Mirror)| endpoint.prefix.below(path).is_some();
            let decides = there.iter().filter(covers).max_by_key(|(path, _)| path.as_str().len());
            let inside = |(path, _): &&(&RepoPath, &Mirror)| **path != endpoint.prefix && path.below(&endpoint.prefix).is_some();
            let mut blocks = decides.into_iter().chain(there.iter().filter(inside)).filter(|(_, other)| other.fallback == Fallback::Never);
            if let Some((_, block)) = blocks.next() {
                let thing = format!("endpoint {endpoint} of {} beside the closed source {}", mirror.source, block.source);
                found.push((thing, Some(mirror.at.clone())));
            }
        }
    }
    found
}
