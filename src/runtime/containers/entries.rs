//! Spec → entries of registries.conf. Pure translation, without a look at the node.
//!
//! A prefix `reg.local` is also for `reg.local:5000` (R07), so each name that the spec means gets an entry of its own: the
//! longer prefix wins. What cannot be said in this format is listed, never bent in silence.

use std::collections::BTreeSet;

use crate::format::registries_conf::{Mirror as Entry, Pull, Registry, canonical};
use crate::model::endpoint::{self, Endpoint, Scheme};
use crate::model::host::{HUB, HUB_API, Host};
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::place::Place;
use crate::model::problem::Problem;
use crate::model::repo::RepoPath;
use crate::model::suffix::Suffix;
use crate::spec::{Access, Fallback, Mirror, Source, Spec, Unlisted};

/// What a spec is in registries.conf.
#[derive(Debug, Default)]
pub struct Entries {
    /// In the spec's order.
    pub registries: Vec<Registry>,
    /// `unqualified-search-registries`, where the spec has an opinion.
    pub search: Option<Vec<String>>,
    /// Hosts that are asked, as they are named in references: each has its certs.d folder and its login.
    pub reached: BTreeSet<Host>,
    /// Prefixes that have an entry only because somebody's stands below a source or host of the spec.
    pub below: BTreeSet<String>,
    /// What works, but not quite as one may think.
    pub notes: Vec<Problem>,
    /// What the format cannot express.
    pub cannot: Vec<Problem>,
}

/// Translates a spec.
#[must_use]
pub fn entries(spec: &Spec) -> Entries {
    entries_over(spec, &Replaced::default(), &[])
}

/// Longer prefixes than ours for which others have entries, to be replaced.
#[derive(Debug, Default)]
pub struct Replaced {
    /// Registries, and what is below them.
    pub prefixes: Vec<(Host, RepoPath)>,
    /// `*.domain`.
    pub domains: Vec<Suffix>,
}

/// The same with entries for further prefixes below those of the spec, which say once more what is meant there, because somebody
/// else has entries for them: `replaced` as was asked for, `below` of older settings.
#[must_use]
pub fn entries_over(spec: &Spec, replaced: &Replaced, below: &[String]) -> Entries {
    let search = spec.search.as_ref().map(|hosts| hosts.iter().map(ToString::to_string).collect());
    let mut entries = Entries { search, ..Entries::default() };
    for mirror in &spec.mirrors {
        entries.check(spec, mirror);
    }
    entries.notes.extend(other_ports(spec));
    let mut all = prefixes(spec);
    for prefix in below.iter().filter_map(|prefix| spoken_of(spec, prefix)) {
        if !all.contains(&prefix) {
            entries.below.insert(text(&prefix.0, &prefix.1));
            all.push(prefix);
        }
    }
    for prefix in &replaced.prefixes {
        if !all.contains(prefix) {
            all.push(prefix.clone());
        }
    }
    for (host, path) in all {
        entries.add(spec, &host, &path);
    }
    for mirror in &spec.mirrors {
        if let Source::Domain(domain) = &mirror.source {
            entries.domain(spec, domain, mirror);
        }
    }
    for domain in &replaced.domains {
        entries.below_domain(spec, domain);
    }
    if spec.unlisted == Unlisted::Deny {
        entries.deny(spec);
    }
    // the rest of a sub-host source's registry is asked directly, closed or not; a name that has an entry only so that a
    // source's does not cover it is not the spec's matter
    let sources: BTreeSet<&Host> = spec.mirrors.iter().filter_map(|mirror| mirror.source.host()).gathered();
    entries.reached.retain(|host| sources.contains(host) || spec.access.contains_key(host));
    let whole: BTreeSet<&Host> =
        spec.mirrors.iter().filter(|mirror| mirror.source.below_host().is_none()).filter_map(|mirror| mirror.source.host()).gathered();
    let below = spec.mirrors.iter().filter_map(|mirror| mirror.source.below_host()).filter(|(host, _)| !whole.contains(host));
    entries.reached.extend(below.map(|(host, _)| host.clone()));
    let hub = [HUB, HUB_API].map(Host::fixed);
    let logins: Vec<_> = hub.iter().map(|host| spec.access(host).login.as_ref()).collect();
    if logins.windows(2).any(|pair| pair[0] != pair[1]) {
        let what = format!("auth.json: a login for one of {HUB} and {HUB_API} is used for both, and the spec gives them different ones");
        entries.notes.push(Problem::note("hub-login", what, "give both names the same credentials"));
    }
    for (host, access) in spec.own_hosts() {
        if host.port().is_none() && is_insecure(access) {
            let what = format!("registries.conf: `insecure` of {host} also counts for its other ports, {host}:5000 and so on");
            entries
                .notes
                .push(at(Problem::note("insecure-ports", what, "name the ports that are used in [[registry]]"), access.at.as_ref()));
        }
    }
    entries
}

/// What an entry without port covers beside what is meant, told once.
fn other_ports(spec: &Spec) -> Option<Problem> {
    let portless = |mirror: &Mirror| mirror.source.whole().is_some_and(|host| host.port().is_none());
    let mut bare = spec.mirrors.iter().filter(|mirror| portless(mirror));
    let first = bare.next()?;
    let host = &first.source;
    let more = match bare.count() {
        0 => String::new(),
        more => format!(" (and {more} more sources)"),
    };
    let what = format!(
        "registries.conf: the entry for {host}{more} is also for other ports of that name, {host}:8443/… for instance: such a reference is \
         rewritten with its port, and the pull fails or ends at that port of the mirror"
    );
    let help = "name the port as a source or a [[registry]] of its own where such references are in use";
    Some(Problem::note("other-ports", what, help).at(first.at.clone()))
}

/// `insecure` covers both: unverified HTTPS is tried first, then plain HTTP (`runtime-semantics.md` 2.2).
fn is_insecure(access: &Access) -> bool {
    access.insecure || access.scheme == Scheme::Http
}

fn at(problem: Problem, place: Option<&Place>) -> Problem {
    match place {
        Some(place) => problem.at(place.clone()),
        None => problem,
    }
}

/// Each name that needs an entry, in the spec's order: sources; under `never` also their other names; the other port form of
/// a name whose entry would cover it with another meaning; hosts of their own.
fn prefixes(spec: &Spec) -> Vec<(Host, RepoPath)> {
    let mut all: Vec<(Host, RepoPath)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut add = |host: &Host, path: &RepoPath| {
        let prefix = (host.clone(), path.clone());
        if !host.is_ipv6() && host.is_recognised_in_references() && seen.insert(prefix.clone()) {
            all.push(prefix);
        }
    };
    let same_name = |host: &Host| host.aliases().into_iter().filter(|alias| alias.name() == host.name()).collect::<Vec<_>>();
    for mirror in &spec.mirrors {
        let Some((host, path)) = mirror.source.prefix() else { continue };
        add(host, path);
        match mirror.fallback {
            Fallback::Never => host.aliases().iter().for_each(|alias| add(alias, path)),
            Fallback::Upstream if path.is_all() => same_name(host).iter().for_each(|alias| add(alias, path)),
            Fallback::Upstream => {}
        }
    }
    for (host, access) in spec.own_hosts() {
        add(host, &RepoPath::all());
        if is_insecure(access) || spec.unlisted == Unlisted::Deny {
            for alias in same_name(host) {
                add(&alias, &RepoPath::all());
            }
        }
    }
    // sources below a host with a port, where the bare name has an entry that would also be for the rest of that host
    for host in spec.mirrors.iter().filter_map(|mirror| mirror.source.host()).filter(|host| host.port().is_some()) {
        add(host, &RepoPath::all());
    }
    all
}

/// A prefix in its parts, where the spec says something of what is below it.
fn spoken_of(spec: &Spec, prefix: &str) -> Option<(Host, RepoPath)> {
    let image = ImageRef::parse(&format!("{prefix}/nodeprep-probe:1")).ok()?;
    let (host, path) = prefix.split_once('/').unwrap_or((prefix, ""));
    let host = Host::from_reference(host).ok().filter(|host| *host == image.host)?;
    spec.covers(&image).then(|| (host, RepoPath::verbatim(path)))
}

/// The mirror that is responsible for everything below `host/path`; as [`Spec::mirror_of`], for a prefix instead of an image.
fn responsible<'a>(spec: &'a Spec, host: &Host, path: &RepoPath) -> Option<&'a Mirror> {
    let covering = spec.mirrors_named(host).filter(|mirror| mirror.source.rest(path).is_some());
    covering.max_by_key(|mirror| mirror.source.prefix().map_or(0, |(_, path)| path.as_str().len()))
}

/// The closed source that an endpoint stands in, or that stands below the endpoint.
fn closes<'a>(spec: &'a Spec, endpoint: &Endpoint) -> Option<&'a Source> {
    let never = |mirror: &&Mirror| mirror.fallback == Fallback::Never;
    let below = |mirror: &&Mirror| {
        let path = mirror.source.prefix().and_then(|(_, path)| path.below(&endpoint.prefix));
        path.is_some_and(|rest| !rest.is_all())
    };
    let inside = responsible(spec, &endpoint.host, &endpoint.prefix).filter(never);
    inside.or_else(|| spec.mirrors_named(&endpoint.host).filter(never).find(below)).map(|mirror| &mirror.source)
}

fn text(host: &Host, path: &RepoPath) -> String {
    if path.is_all() { host.to_string() } else { format!("{host}/{path}") }
}

/// Nothing is asked for it.
fn blocked(prefix: String, spec: &Spec) -> Registry {
    let location = if prefix.starts_with('*') { String::new() } else { prefix.clone() };
    let at = Place::file(spec.file.clone());
    Registry { prefix, location, insecure: false, blocked: true, by_digest_only: false, mirrors: Vec::new(), at }
}

impl Entries {
    fn add(&mut self, spec: &Spec, host: &Host, path: &RepoPath) {
        let mirror = responsible(spec, host, path).or_else(|| spec.wider(host));
        let access = spec.access(host);
        let (mut mirrors, mut blocked, mut place) = (Vec::new(), false, access.at.clone());
        // an entry that is there only so that a source's does not cover it
        if mirror.is_none() && spec.unlisted == Unlisted::Deny && !spec.access.contains_key(host) {
            blocked = true;
        }
        if let Some(mirror) = mirror {
            let rest = mirror.source.rest(path).unwrap_or_default();
            mirrors = mirror.endpoints.iter().map(|endpoint| self.mirror(spec, endpoint, &rest, &mirror.at)).collect();
            blocked = mirror.fallback == Fallback::Never;
            place = Some(mirror.at.clone());
        }
        if !blocked {
            self.reached.insert(host.clone());
        }
        self.registries.push(Registry {
            prefix: text(host, path),
            location: text(host, path),
            insecure: !blocked && is_insecure(access),
            blocked,
            by_digest_only: false,
            mirrors,
            at: place.unwrap_or_else(|| Place::file(spec.file.clone())),
        });
    }

    /// Every registry below a domain: the endpoints get the path alone (`runtime-semantics.md` 2.4), and the registry itself is
    /// where the reference says. A block counts for each of them.
    fn domain(&mut self, spec: &Spec, domain: &Suffix, mirror: &Mirror) {
        let mirrors = mirror.endpoints.iter().map(|endpoint| self.mirror(spec, endpoint, &RepoPath::all(), &mirror.at)).collect();
        self.registries.push(Registry {
            prefix: domain.to_string(),
            location: String::new(),
            insecure: false,
            blocked: mirror.fallback == Fallback::Never,
            by_digest_only: false,
            mirrors,
            at: mirror.at.clone(),
        });
    }

    /// A domain below that of a source, or one that is denied as all that the spec does not name.
    fn below_domain(&mut self, spec: &Spec, domain: &Suffix) {
        let Ok(probe) = Host::new(&format!("nodeprep-probe.{}", domain.domain())) else { return };
        match spec.wider(&probe) {
            Some(mirror) => self.domain(spec, domain, mirror),
            None if spec.unlisted == Unlisted::Deny => self.registries.push(blocked(domain.to_string(), spec)),
            None => {}
        }
    }

    /// Closes what the spec does not name: the rest of each sub-host source's registry, and whole top-level domains.
    fn deny(&mut self, spec: &Spec) {
        let known: BTreeSet<String> = self.registries.iter().map(|entry| entry.prefix.clone()).gathered();
        let below = spec.mirrors.iter().filter_map(|mirror| mirror.source.below_host()).map(|(host, _)| host);
        // the rest of one that lies below the domain of a source is that source's
        let names = below.flat_map(|host| std::iter::once(host.clone()).chain(host.aliases()));
        let names = names.filter(|host| spec.wider(host).is_none()).map(|host| host.to_string());
        let hosts: BTreeSet<String> = names.filter(|host| !known.contains(host)).gathered();
        // a domain of the document may be a registry itself
        let own = spec.deny_domains.iter().flatten().map(|domain| domain.domain().to_owned());
        let own = own.filter(|domain| domain.contains('.') && !hosts.contains(domain));
        let domains = own.chain(spec.closed_domains().map(|domain| format!("*.{domain}"))).filter(|domain| !known.contains(domain));
        let domains: Vec<String> = domains.collect();
        self.registries.extend(hosts.into_iter().chain(domains).map(|prefix| blocked(prefix, spec)));
    }

    fn mirror(&mut self, spec: &Spec, endpoint: &Endpoint, rest: &RepoPath, place: &Place) -> Entry {
        self.reached.insert(endpoint.host.clone());
        Entry {
            location: text(&endpoint.host, &endpoint.prefix.join(rest)),
            insecure: is_insecure(spec.access(&endpoint.host)),
            pull: match endpoint.pull {
                endpoint::Pull::All => Pull::All,
                endpoint::Pull::Digest => Pull::Digest,
                endpoint::Pull::Tag => Pull::Tag,
            },
            at: place.clone(),
        }
    }

    fn check(&mut self, spec: &Spec, mirror: &Mirror) {
        let source = &mirror.source;
        if source.host().is_some_and(|host| host.is_ipv6() || !host.is_recognised_in_references()) {
            let what = format!("registries.conf: source {source} is no registry name that CRI-O and Podman can read in an image reference");
            self.notes.push(Problem::note("source-unreadable", what, "use a DNS name with a dot or a port").at(mirror.at.clone()));
        }
        for endpoint in &mirror.endpoints {
            let name = text(&endpoint.host, &endpoint.prefix);
            if canonical(&format!("{}:1", text(&endpoint.host, &endpoint.prefix.join(&RepoPath::verbatim("a/b"))))).is_err()
                || endpoint.host.api() != endpoint.host
            {
                let what = format!("registries.conf cannot name the endpoint {name}: every pull of {source} would fail");
                let help = "use a DNS name or IPv4 address, with a dot or a port, and registry-1.docker.io for Docker Hub";
                self.cannot.push(Problem::error("endpoint-unnameable", what, help).at(mirror.at.clone()));
            }
            if let Some(closed) = closes(spec, endpoint) {
                let what = format!(
                    "registries.conf cannot close {closed} and use {name} as endpoint of {source}: a blocked name is refused as mirror, too"
                );
                let help = format!("give the endpoint another name or prefix, or let {closed} fall back to its upstream");
                self.cannot.push(Problem::error("endpoint-blocked", what, help).at(mirror.at.clone()));
            }
        }
    }
}
