//! What of a spec a runtime can express: a published table, from which `check` and the documentation are made.
//!
//! What lives here: the table, where a spec meets it, and how an intent looks once it is expressed. What must not: the file
//! formats themselves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::domains::{denied, loses_to_its_domain};
use super::scope::{self, Narrow};
use super::validate::canonical;
use super::{Fallback, Source, Spec, Unlisted};
use crate::model::endpoint::{Endpoint, Pull, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::repo::RepoPath;
use crate::model::resolution::{Attempt, End, Resolution, Trust};
use crate::model::suffix::Suffix;
use crate::model::version::Version;
use crate::runtime::{Dialect, Runtime, containerd};

/// Runtimes that read the same files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// containerd: hosts.toml.
    Containerd,
    /// containers/image: registries.conf, as CRI-O and Podman read it.
    Containers,
}

/// Something that a spec can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A source that is a whole registry.
    HostSource,
    /// A source without port.
    PortlessSource,
    /// A source below host level, without `widen`.
    SubHostSource,
    /// A source below host level, with `widen`.
    WidenedSource,
    /// One whose endpoint does not end with its path.
    WidenedEndpoint,
    /// One beside another source of the same registry, with other endpoints or another fallback.
    WidenedBeside,
    /// `*.domain`.
    DomainSource,
    /// `*.domain`, and a named registry below it whose label has one letter.
    DomainShort,
    /// `*`.
    AllSource,
    /// `*` beside `unlisted = "deny"`.
    DenyAll,
    /// A mirror for only one of two runtimes that read the same files.
    OneOfFamily,
    /// An IPv6 address as source.
    Ipv6Source,
    /// An IPv6 address as endpoint, or as host of its own.
    Ipv6,
    /// An endpoint's host without dot and port.
    BareEndpoint,
    /// An endpoint with a prefix.
    Prefix,
    /// An endpoint that is asked for references by digest only.
    PullDigest,
    /// An endpoint that is asked for references by tag only.
    PullTag,
    /// `timeout` of an endpoint.
    Timeout,
    /// `header` of an endpoint.
    Header,
    /// A `never` source on which another mirror's endpoint lies.
    ClosedEndpoint,
    /// `http://`.
    PlainHttp,
    /// `insecure = true`.
    Unverified,
    /// `client_cert`.
    ClientCertificate,
    /// `credentials`.
    Credentials,
    /// `[[blocked]]`.
    Blocked,
    /// `unlisted = "deny"`.
    Deny,
    /// `unlisted = "deny"`, and a name with a label of one letter below a domain that is closed.
    DenyShort,
}

/// One cell of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct Row {
    /// What is asked for.
    pub subject: Subject,
    /// Under which fallback; `None` for both.
    pub fallback: Option<Fallback>,
    /// By which runtimes.
    pub family: Family,
    /// Whether they can.
    pub verdict: Verdict,
    /// What shows it, below `fixtures/`: cases that real programs run, vectors that are held against them, flows.
    pub proof: &'static [&'static str],
}

impl Row {
    const fn shown_by(self, proof: &'static [&'static str]) -> Self {
        Self { proof, ..self }
    }
}

/// Whether a runtime can express something.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It can.
    Yes,
    /// It cannot.
    Refused {
        /// Why.
        reason: &'static str,
        /// What to write instead.
        instead: &'static str,
    },
    /// It can, from one version on.
    Since {
        /// The version.
        version: Version,
        /// How it is before.
        before: &'static Verdict,
    },
    /// Nearly.
    Approximated {
        /// What is different.
        note: &'static str,
    },
}

const fn yes(subject: Subject, family: Family) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Yes, proof: &[] }
}

const fn refused(subject: Subject, family: Family, reason: &'static str, instead: &'static str) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Refused { reason, instead }, proof: &[] }
}

const fn nearly(subject: Subject, family: Family, note: &'static str) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Approximated { note }, proof: &[] }
}

const fn since(subject: Subject, family: Family, version: Version, before: &'static Verdict) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Since { version, before }, proof: &[] }
}

const HTTPS_FIRST: &str = "HTTPS without verification is tried first, then plain HTTP: registries.conf has one word for both";

const NO_IPV6: &str = "references to IPv6 addresses cannot be parsed";
const DNS_NAME: &str = "give the registry a DNS name and write that";

/// Since when containerd reads references to IPv6 addresses (`reference/docker/reference.go`; seen on 1.7.24 and 2.1.9; 1.6.20
/// does not).
const IPV6_REFERENCES: Version = Version(1, 7, 0);
/// Since when containerd 2.0 reads `dial_timeout` (`runtime-semantics.md` 1.3).
const DIAL_TIMEOUT: Version = Version(2, 0, 7);

/// The table.
pub const ROWS: &[Row] = &[
    Row { fallback: Some(Fallback::Never), ..yes(Subject::HostSource, Family::Containerd) }.shown_by(&["real/plain", "real/names"]),
    Row { fallback: Some(Fallback::Never), ..yes(Subject::HostSource, Family::Containers) }.shown_by(&["real/plain", "real/names"]),
    Row { fallback: Some(Fallback::Upstream), ..yes(Subject::HostSource, Family::Containerd) }.shown_by(&["real/upstream"]),
    Row { fallback: Some(Fallback::Upstream), ..yes(Subject::HostSource, Family::Containers) }.shown_by(&["real/upstream"]),
    yes(Subject::PortlessSource, Family::Containerd).shown_by(&["vectors/containerd/T22"]),
    nearly(
        Subject::PortlessSource,
        Family::Containers,
        "it covers references with a port too: registries.conf takes `host` as prefix of `host:5000/…`",
    )
    .shown_by(&["vectors/containers/R07"]),
    refused(
        Subject::SubHostSource,
        Family::Containerd,
        "hosts.toml speaks for whole registries only",
        "add `widen = true` to take the whole registry there, write the registry itself as source, or leave containerd out of its `runtimes`",
    )
    .shown_by(&["vectors/containerd/T22", "flow/sources-refused"]),
    yes(Subject::SubHostSource, Family::Containers).shown_by(&["real/s2-opensuse", "vectors/containers/R02"]),
    nearly(
        Subject::WidenedSource,
        Family::Containerd,
        "the whole registry goes to its endpoints, less the source's path: what lies beside that path is asked for there, too",
    )
    .shown_by(&["real/widen"]),
    yes(Subject::WidenedSource, Family::Containers).shown_by(&["real/widen"]),
    refused(
        Subject::WidenedEndpoint,
        Family::Containerd,
        "the endpoint does not end with the source's path, so that the rest of the registry has no place there",
        "write an endpoint that ends with that path, as in source `quay.io/team` with endpoint `mirror.example.com/quay/team`",
    )
    .shown_by(&["flow/sources-refused"]),
    yes(Subject::WidenedEndpoint, Family::Containers).shown_by(&["vectors/containers/R03"]),
    refused(
        Subject::WidenedBeside,
        Family::Containerd,
        "as whole registries both are the same one, and they differ in endpoints or fallback",
        "give them the same endpoints (each with its own path at the end) and the same fallback, or take `widen` out of one",
    )
    .shown_by(&["flow/sources-refused"]),
    yes(Subject::WidenedBeside, Family::Containers).shown_by(&["vectors/containers/R02"]),
    refused(
        Subject::DomainSource,
        Family::Containerd,
        "hosts.toml knows registries by their full names only",
        "list the registries in `hosts`, where `{host}` may stand in endpoints, or leave containerd out of its `runtimes`",
    )
    .shown_by(&["flow/sources-refused", "vectors/containerd/S1.1-wildcard"]),
    nearly(
        Subject::DomainSource,
        Family::Containers,
        "the endpoint gets the path alone, the same for each registry below the domain; a name with a port below it is no such registry: it is \
         rewritten with its port, and the pull fails or ends at that port of the endpoint",
    )
    .shown_by(&["real/domain", "real/domain-never", "vectors/containers/R04", "vectors/containers/R05"]),
    yes(Subject::DomainShort, Family::Containerd).shown_by(&["vectors/containerd/S1.1-wildcard"]),
    refused(
        Subject::DomainShort,
        Family::Containers,
        "registries.conf prefers the entry for the whole domain, because both are of one length",
        "name it with its port, or use a longer name",
    )
    .shown_by(&["vectors/containers/R06"]),
    nearly(
        Subject::AllSource,
        Family::Containerd,
        "the endpoints are told the registry in the query only (`?ns=`), which fits registries that understand it; `hosts` with `{host}` in the \
         endpoints puts its name into the path. Registries on the loopback interface are meant, too, unless [[registry]] names them",
    )
    .shown_by(&["real/star", "real/star-never", "vectors/containerd/T17", "vectors/containerd/T19"]),
    refused(
        Subject::AllSource,
        Family::Containers,
        "registries.conf has no entry for all registries",
        "list them in `hosts`, write `*.domain` for whole domains, or leave CRI-O and Podman out of its `runtimes`",
    )
    .shown_by(&["vectors/containers/2.3-star", "flow/sources-refused"]),
    Row {
        fallback: Some(Fallback::Never),
        ..nearly(
            Subject::DenyAll,
            Family::Containerd,
            "`*` names every registry, so that nothing is left to deny: all of them are asked for at its endpoints",
        )
    }
    .shown_by(&["real/star-never"]),
    Row { fallback: Some(Fallback::Never), ..yes(Subject::DenyAll, Family::Containers) }.shown_by(&["real/deny", "flow/sources-scoped"]),
    Row {
        fallback: Some(Fallback::Upstream),
        ..refused(
            Subject::DenyAll,
            Family::Containerd,
            "one says that other registries are asked themselves, and the other that they are not",
            "write `fallback = \"never\"` for `*`, or take `unlisted` out",
        )
    }
    .shown_by(&["flow/source-star-deny"]),
    Row { fallback: Some(Fallback::Upstream), ..yes(Subject::DenyAll, Family::Containers) }.shown_by(&["real/deny"]),
    yes(Subject::OneOfFamily, Family::Containerd).shown_by(&["flow/sources-scoped"]),
    refused(
        Subject::OneOfFamily,
        Family::Containers,
        "CRI-O and Podman read the same registries.conf, so that it counts for both",
        "name both in the `runtimes` of this [[mirror]], or neither",
    )
    .shown_by(&["flow/sources-one-of-family"]),
    since(
        Subject::Ipv6Source,
        Family::Containerd,
        IPV6_REFERENCES,
        &Verdict::Refused { reason: NO_IPV6, instead: DNS_NAME },
    )
    .shown_by(&["vectors/containerd/T32", "vectors/containerd/T33", "flow/containerd-1.6-ipv6"]),
    refused(Subject::Ipv6Source, Family::Containers, NO_IPV6, DNS_NAME).shown_by(&["vectors/containers/R28"]),
    since(
        Subject::Ipv6,
        Family::Containerd,
        IPV6_REFERENCES,
        &Verdict::Approximated {
            note: "it is used as an endpoint, but references to it cannot be parsed: no image is pulled from there by that name",
        },
    )
    .shown_by(&["real/ipv6", "flow/containerd-1.6-ipv6-endpoint"]),
    refused(Subject::Ipv6, Family::Containers, NO_IPV6, DNS_NAME).shown_by(&["vectors/containers/R28"]),
    yes(Subject::BareEndpoint, Family::Containerd).shown_by(&["vectors/containerd/T35"]),
    refused(
        Subject::BareEndpoint,
        Family::Containers,
        "without dot or port it is not taken as a registry, and every pull of the source fails",
        "write its full name, or its port",
    )
    .shown_by(&["vectors/containers/R21a"]),
    yes(Subject::Prefix, Family::Containerd).shown_by(&["real/prefix"]),
    yes(Subject::Prefix, Family::Containers).shown_by(&["real/prefix"]),
    nearly(
        Subject::PullDigest,
        Family::Containerd,
        "what a tag that was found elsewhere leads to is fetched from there too, by its digest",
    )
    .shown_by(&["real/pull-digest", "vectors/containerd/T44"]),
    yes(Subject::PullDigest, Family::Containers).shown_by(&["real/pull-digest", "vectors/containers/R11"]),
    refused(
        Subject::PullTag,
        Family::Containerd,
        "whoever resolves tags is also asked for digests",
        "leave `pull` out, or write \"digest\" for another endpoint that is to come first for digests",
    )
    .shown_by(&["flow/endpoint-refused"]),
    yes(Subject::PullTag, Family::Containers).shown_by(&["real/pull-tag", "vectors/containers/R10"]),
    since(
        Subject::Timeout,
        Family::Containerd,
        DIAL_TIMEOUT,
        &Verdict::Approximated { note: "the key is passed over: a connection is given up after 30 seconds" },
    )
    .shown_by(&["real/options", "vectors/containerd/T54"]),
    nearly(Subject::Timeout, Family::Containers, "registries.conf has no such key: a connection is given up after 30 seconds")
        .shown_by(&["flow/endpoint-options"]),
    yes(Subject::Header, Family::Containerd).shown_by(&["real/options"]),
    refused(
        Subject::Header,
        Family::Containers,
        "registries.conf has no such key",
        "let the registry do without the header, or limit `runtimes` of the mirror to containerd",
    )
    .shown_by(&["flow/endpoint-refused"]),
    Row { fallback: Some(Fallback::Never), ..yes(Subject::ClosedEndpoint, Family::Containerd) }.shown_by(&["vectors/containerd/T19"]),
    Row {
        fallback: Some(Fallback::Never),
        ..refused(
            Subject::ClosedEndpoint,
            Family::Containers,
            "what closes the source blocks the endpoint too",
            "keep the copies under another host, or let that source fall back to its upstream",
        )
    }
    .shown_by(&["vectors/containers/R19-mirror"]),
    yes(Subject::PlainHttp, Family::Containerd).shown_by(&["real/http"]),
    nearly(Subject::PlainHttp, Family::Containers, HTTPS_FIRST).shown_by(&["real/http"]),
    yes(Subject::Unverified, Family::Containerd).shown_by(&["real/insecure"]),
    nearly(Subject::Unverified, Family::Containers, HTTPS_FIRST).shown_by(&["real/insecure"]),
    yes(Subject::ClientCertificate, Family::Containerd).shown_by(&["real/mtls"]),
    yes(Subject::ClientCertificate, Family::Containers).shown_by(&["real/mtls"]),
    nearly(
        Subject::Credentials,
        Family::Containerd,
        "they are sent as a header with every request; before 2.1 that does not reach the token endpoint of registries that want bearer tokens",
    )
    .shown_by(&["real/basic-auth", "real/token-login"]),
    yes(Subject::Credentials, Family::Containers).shown_by(&["real/basic-auth", "real/token-login"]),
    yes(Subject::Blocked, Family::Containerd).shown_by(&["real/blocked"]),
    yes(Subject::Blocked, Family::Containers).shown_by(&["real/blocked", "real/blocked-below"]),
    nearly(
        Subject::Deny,
        Family::Containerd,
        "registries on the loopback interface are closed too, unless [[registry]] names them: `_default` speaks for them as well",
    )
    .shown_by(&["real/deny"]),
    nearly(
        Subject::Deny,
        Family::Containers,
        "what can be named is closed: the top-level domains of public registries; addresses, names without a dot and other domains stay open",
    )
    .shown_by(&["real/deny"]),
    yes(Subject::DenyShort, Family::Containerd).shown_by(&["real/deny"]),
    refused(
        Subject::DenyShort,
        Family::Containers,
        "registries.conf prefers the entry that closes its whole domain, because both are of one length",
        "name it with its port, or use a longer name",
    )
    .shown_by(&["vectors/containers/R06"]),
];

/// Something in a spec that a runtime cannot express as it is meant.
#[derive(Clone, Debug)]
pub struct Gap {
    /// An error for a refusal, a note for an approximation.
    pub problem: Problem,
    /// The row of the table that says so.
    pub row: &'static Row,
}

impl Family {
    /// The family of a runtime.
    #[must_use]
    pub const fn of(runtime: Runtime) -> Self {
        match runtime {
            Runtime::Containerd => Self::Containerd,
            Runtime::Crio | Runtime::Podman => Self::Containers,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Containers => "CRI-O and Podman",
        }
    }
}

impl Subject {
    const fn name(self) -> &'static str {
        match self {
            Self::HostSource => "source `host[:port]`",
            Self::PortlessSource => "source without port",
            Self::SubHostSource => "source `host/repository/prefix`",
            Self::WidenedSource => "the same with `widen = true`",
            Self::WidenedEndpoint => "… and an endpoint that does not end with its path",
            Self::WidenedBeside => "… and another source of that registry that does not agree",
            Self::DomainSource => "source `*.domain`",
            Self::DomainShort => "source `*.domain` beside a name such as `x.domain`",
            Self::AllSource => "source `*`",
            Self::DenyAll => "source `*` beside `unlisted = \"deny\"`",
            Self::OneOfFamily => "`runtimes` of a mirror with only one of CRI-O and Podman, where both are",
            Self::Ipv6Source => "IPv6 address as source",
            Self::Ipv6 => "IPv6 address as endpoint or host of its own",
            Self::BareEndpoint => "endpoint host without dot and port",
            Self::Prefix => "endpoint with prefix",
            Self::PullDigest => "endpoint with `pull = \"digest\"`",
            Self::PullTag => "endpoint with `pull = \"tag\"`",
            Self::Timeout => "endpoint with `timeout`",
            Self::Header => "endpoint with `header`",
            Self::ClosedEndpoint => "source on which another mirror's endpoint lies",
            Self::PlainHttp => "`http://` endpoint",
            Self::Unverified => "`insecure`",
            Self::ClientCertificate => "`client_cert`",
            Self::Credentials => "`credentials`",
            Self::Blocked => "`[[blocked]]`, of a source that can be expressed",
            Self::Deny => "`unlisted = \"deny\"`",
            Self::DenyShort => "`unlisted = \"deny\"` beside a name such as `x.io`",
        }
    }
}

/// What of `spec` this runtime cannot express as it is meant. `there`: the runtimes beside which it is. Where something depends
/// on the version, it is refused when one of `dialects`, of which the files must be right for each, cannot; without any it is
/// a note, for a fleet may have either.
#[must_use]
pub fn gaps(spec: &Spec, runtime: Runtime, there: &[Runtime], dialects: &[Dialect]) -> Vec<Gap> {
    let family = Family::of(runtime);
    let spec = &*spec.scoped(runtime);
    let mut gaps = Vec::new();
    for row in ROWS.iter().filter(|row| row.family == family) {
        let (verdict, since) = match &row.verdict {
            Verdict::Since { version, before } => {
                let class = containerd::Dialect::of_version(*version);
                let can = |dialect: &Dialect| dialect.containerd().is_none_or(|dialect| dialect >= class);
                if !dialects.is_empty() && dialects.iter().all(can) {
                    continue;
                }
                (*before, Some(version))
            }
            verdict => (verdict, None),
        };
        let (severity, code, why, help) = match verdict {
            Verdict::Yes | Verdict::Since { .. } => continue,
            Verdict::Refused { reason, .. } if since.is_some() && dialects.is_empty() => (Severity::Note, "approximated", reason, ""),
            Verdict::Refused { reason, instead } => (Severity::Error, "not-expressible", reason, *instead),
            Verdict::Approximated { note } => (Severity::Note, "approximated", note, ""),
        };
        let why = since.map_or_else(|| (*why).to_owned(), |version| format!("before {} {why}", short(*version)));
        for (thing, at) in occurrences(spec, row, there) {
            let what = format!("{thing} on {}: {why}", family.name());
            gaps.push(Gap { problem: Problem { severity, at, ..Problem::note(code, what, help) }, row });
        }
    }
    gaps
}

/// What `check` says about the runtimes: refusals are errors for those that the document names; without `runtimes` all
/// are looked at, and everything is a note.
#[must_use]
pub fn proof(spec: &Spec) -> Vec<Problem> {
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let named = spec.runtimes.as_deref();
    let there = named.unwrap_or(&Runtime::ALL);
    let all = there.iter().flat_map(|runtime| gaps(spec, *runtime, there, &[])).map(|gap| gap.problem);
    let fresh = all.filter(|problem| seen.insert(problem.what.clone()));
    fresh.map(|problem| if named.is_some() { problem } else { Problem { severity: Severity::Note, ..problem } }).collect()
}

/// Where a spec asks for something: what to call it, and its place.
fn occurrences(spec: &Spec, row: &Row, there: &[Runtime]) -> Vec<(String, Option<Place>)> {
    let sources = |wanted: &dyn Fn(&super::Mirror) -> bool| {
        let found = spec.mirrors.iter().filter(|mirror| wanted(mirror));
        found.map(|mirror| (format!("source {}", mirror.source), Some(mirror.at.clone()))).collect()
    };
    let access = |wanted: fn(&super::Access) -> bool, name: &str| {
        let found = spec.access.iter().filter(|(_, access)| wanted(access));
        found.map(|(host, access)| (format!("{name} {host}"), access.at.clone())).collect()
    };
    match row.subject {
        // nothing to say about these
        Subject::HostSource | Subject::Prefix | Subject::ClientCertificate | Subject::Blocked => Vec::new(),
        Subject::PortlessSource => {
            let portless = |mirror: &&super::Mirror| mirror.source.whole().is_some_and(|host| host.port().is_none());
            let mut sources = spec.mirrors.iter().filter(portless);
            let first = sources.next();
            let more = sources.count();
            let name = |first: &super::Mirror| match more {
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
        Subject::Credentials => access(|access| access.login.is_some(), "credentials for"),
        Subject::Deny => {
            let denied = (spec.unlisted == Unlisted::Deny && spec.all().is_none()).then(|| ("unlisted = \"deny\"".to_owned(), None));
            denied.into_iter().collect()
        }
        Subject::DenyShort => {
            let denies = spec.unlisted == Unlisted::Deny;
            let sources = spec.mirrors.iter().filter_map(|mirror| Some((mirror.source.host()?, Some(&mirror.at))));
            let hosts = spec.access.iter().map(|(host, access)| (host, access.at.as_ref()));
            let found: BTreeMap<_, _> = hosts.chain(sources).filter(|(host, _)| denies && loses_to_its_domain(host)).collect();
            found.into_iter().map(|(host, at)| (format!("{host} beside unlisted = \"deny\""), at.cloned())).collect()
        }
    }
}

/// Sources with `widen`, as far as each of the three subjects is about them.
fn widened(spec: &Spec, subject: Subject) -> Vec<(String, Option<Place>)> {
    let narrow = scope::narrow(&spec.mirrors);
    let wide = |mirror: &&super::Mirror| mirror.widen && !narrow.iter().any(|(other, ..)| std::ptr::eq(*other, *mirror));
    let named = |mirror: &super::Mirror, more: String| (format!("source {} with `widen`{more}", mirror.source), Some(mirror.at.clone()));
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
    let hosts: BTreeMap<_, _> = spec.access.iter().map(|(host, access)| (host, access.at.as_ref())).chain(sources).collect();
    let found = hosts.into_iter().filter_map(|(host, at)| Some((format!("{host} beside source {}", tied(host)?), at.cloned())));
    found.collect()
}

/// Endpoints of a kind, one for each mirror.
fn endpoints(spec: &Spec, name: &str, wanted: fn(&Endpoint) -> bool) -> Vec<(String, Option<Place>)> {
    let found = |mirror: &super::Mirror| {
        let endpoint = mirror.endpoints.iter().find(|endpoint| wanted(endpoint))?;
        Some((format!("{name} endpoint {endpoint} for {}", mirror.source), Some(mirror.at.clone())))
    };
    spec.mirrors.iter().filter_map(found).collect()
}

/// Endpoints that lie, wholly or partly, under the block of a `never` source; a longer source that is open lifts it.
fn closed_endpoints(spec: &Spec) -> Vec<(String, Option<Place>)> {
    let mut sources: BTreeMap<&str, Vec<(&RepoPath, &super::Mirror)>> = BTreeMap::new();
    for mirror in &spec.mirrors {
        if let Some((host, path)) = mirror.source.prefix() {
            sources.entry(canonical(host)).or_default().push((path, mirror));
        }
    }
    let mut found = Vec::new();
    for mirror in &spec.mirrors {
        for endpoint in &mirror.endpoints {
            let Some(there) = sources.get(canonical(&endpoint.host)) else { continue };
            let covers = |(path, _): &&(&RepoPath, &super::Mirror)| endpoint.prefix.below(path).is_some();
            let decides = there.iter().filter(covers).max_by_key(|(path, _)| path.as_str().len());
            let inside = |(path, _): &&(&RepoPath, &super::Mirror)| **path != endpoint.prefix && path.below(&endpoint.prefix).is_some();
            let mut blocks = decides.into_iter().chain(there.iter().filter(inside)).filter(|(_, other)| other.fallback == Fallback::Never);
            if let Some((_, block)) = blocks.next() {
                let thing = format!("endpoint {endpoint} of {} beside the closed source {}", mirror.source, block.source);
                found.push((thing, Some(mirror.at.clone())));
            }
        }
    }
    found
}

/// An intent as this version of a runtime can express it: where [`ROWS`] says "approximated", what it will really ask.
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
        // what registries.conf has no name for stays open
        Family::Containers
            if matches!(resolution.end, End::Blocked(_))
                && spec.mirror_of(&resolution.image).is_none()
                && stays_open(spec, &resolution.image.host) =>
        {
            let open = super::intent::own_registry(&resolution.image);
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
    !denied(host) && !named(host) && !host.aliases().iter().any(named)
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
        Family::Containers => denied || resolution.attempts.iter().any(bent),
        Family::Containerd => {
            let image = &resolution.image;
            unreadable(image, dialect) || unresolved(resolution) || is_lenient(spec, &image.host)
        }
    };
    if adapt { Cow::Owned(self::adapt(spec, resolution.clone(), dialect)) } else { Cow::Borrowed(resolution) }
}

/// The table as Markdown, for the documentation.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| asked for | fallback | containerd | CRI-O, Podman |\n|---|---|---|---|\n");
    let mut done: Vec<(Subject, Option<Fallback>)> = Vec::new();
    for row in ROWS {
        let key = (row.subject, row.fallback);
        if done.contains(&key) {
            continue;
        }
        done.push(key);
        let cell = |family| {
            ROWS.iter()
                .find(|row| row.family == family && (row.subject, row.fallback) == key)
                .map_or_else(String::new, |row| cell(&row.verdict))
        };
        let fallback = match row.fallback {
            None => "any",
            Some(Fallback::Never) => "never",
            Some(Fallback::Upstream) => "upstream",
        };
        let (one, two) = (cell(Family::Containerd), cell(Family::Containers));
        let _ = writeln!(text, "| {} | {fallback} | {one} | {two} |", row.subject.name());
    }
    text
}

/// `1.7` for 1.7.0.
fn short(version: Version) -> String {
    if version.2 == 0 { format!("{}.{}", version.0, version.1) } else { version.to_string() }
}

fn cell(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Yes => "yes".to_owned(),
        Verdict::Refused { reason, instead } => format!("**refused**: {reason}; {instead}"),
        Verdict::Since { version, before } => format!("yes, since {}; before that {}", short(*version), cell(before)),
        Verdict::Approximated { note } => format!("nearly: {note}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::intent::intent;
    use crate::spec::load::Draft;

    fn spec(text: &str) -> Spec {
        let text = format!("version = 1\nfallback = 'never'\n{text}");
        let closed = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None);
        closed.spec.unwrap_or_else(|| panic!("{:?}", closed.problems))
    }

    fn mirror(source: &str, endpoint: &str) -> String {
        format!("[[mirror]]\nsource = '{source}'\nendpoints = ['{endpoint}']\n")
    }

    fn refusals(text: &str, runtime: Runtime) -> Vec<Subject> {
        let gaps = gaps(&spec(text), runtime, &Runtime::ALL, &[]).into_iter().filter(|gap| gap.problem.severity == Severity::Error);
        gaps.map(|gap| gap.row.subject).collect()
    }

    #[test]
    fn every_subject_has_a_row_for_each_family() {
        for row in ROWS {
            for family in [Family::Containerd, Family::Containers] {
                let same = |other: &&Row| other.subject == row.subject && other.fallback == row.fallback && other.family == family;
                assert_eq!(ROWS.iter().filter(same).count(), 1, "{:?}", row.subject);
            }
        }
        assert!(markdown().lines().count() > 10);
    }

    #[test]
    fn refuses_what_cannot_be_said() {
        for (text, containerd, containers) in [
            (mirror("quay.io", "m.corp/quay"), vec![], vec![]),
            (mirror("quay.io/team", "m.corp/quay"), vec![Subject::SubHostSource], vec![]),
            (mirror("quay.io", "[2001:db8::1]:5000"), vec![], vec![Subject::Ipv6]),
            (mirror("[2001:db8::1]:5000", "m.corp"), vec![], vec![Subject::Ipv6Source]),
            (mirror("quay.io", "mirror"), vec![], vec![Subject::BareEndpoint]),
            (mirror("quay.io", "m.corp") + &mirror("m.corp", "x.corp"), vec![], vec![Subject::ClosedEndpoint]),
        ] {
            assert_eq!(refusals(&text, Runtime::Containerd), containerd, "{text}");
            assert_eq!(refusals(&text, Runtime::Podman), containers, "{text}");
        }
    }

    #[test]
    fn a_block_reaches_as_far_as_its_source() {
        let open = |text: String| text + "fallback = 'upstream'\n";
        let host = mirror("quay.io", "m.corp/hub");
        for (text, blocked) in [
            (mirror("m.corp/hub", "x.corp"), true),
            (mirror("m.corp/hub/deep", "x.corp"), true),
            (mirror("m.corp/other", "x.corp"), false),
            (mirror("m.corp/hub2", "x.corp"), false),
            (open(mirror("m.corp", "x.corp")), false),
            (mirror("m.corp:443", "x.corp"), true),
            (mirror("m.corp", "x.corp") + &open(mirror("m.corp/hub", "y.corp")), false),
        ] {
            let found = refusals(&(host.clone() + &text), Runtime::Crio);
            assert_eq!(found == [Subject::ClosedEndpoint], blocked, "{text}");
        }
    }

    #[test]
    fn one_word_for_two_meanings_becomes_two_attempts() {
        let spec = spec(&mirror("quay.io", "http://m.corp:5000"));
        let meant = intent(&spec, &ImageRef::parse("quay.io/a/b:1").unwrap());
        assert_eq!(adapt(&spec, meant.clone(), Dialect::Containerd(containerd::Dialect::V1_6)), meant);
        let asked = adapt(&spec, meant, Dialect::Containers);
        let asked: Vec<_> = asked.attempts.iter().map(|attempt| (attempt.scheme, &attempt.trust)).collect();
        assert_eq!(asked, [(Scheme::Https, &Trust::Unverified), (Scheme::Http, &Trust::Plain)]);
    }

    /// A source at an IPv6 address: refused where a version that must be right cannot read such references, a note where no
    /// version is known, nothing else.
    #[test]
    fn what_depends_on_the_version() {
        use containerd::Dialect as Class;
        let spec = spec(&mirror("[2001:db8::1]:5000", "m.corp"));
        let found = |dialects: &[Class]| {
            let dialects: Vec<Dialect> = dialects.iter().copied().map(Dialect::Containerd).collect();
            let gaps = gaps(&spec, Runtime::Containerd, &[], &dialects).into_iter();
            gaps.filter(|gap| gap.row.subject == Subject::Ipv6Source).map(|gap| gap.problem.severity).collect::<Vec<_>>()
        };
        assert_eq!(found(&[Class::V1_6_32]), [Severity::Error]);
        assert_eq!(found(&[Class::V2_1, Class::V1_6]), [Severity::Error]);
        assert_eq!(found(&Class::ALL), [Severity::Error]);
        assert_eq!(found(&[Class::V1_7_0, Class::V2_3]), []);
        assert_eq!(found(&[]), [Severity::Note]);
        let meant = intent(&spec, &ImageRef::parse("[2001:db8::1]:5000/a/b:1").unwrap());
        for class in Class::ALL {
            let asked = adapted(&spec, &meant, Dialect::Containerd(class));
            assert_eq!(matches!(asked.end, End::Broken(_)), class.is_v1_6(), "{class:?}");
            assert_eq!(asked.same(&meant), !class.is_v1_6(), "{class:?}");
        }
    }

    #[test]
    fn without_runtimes_everything_is_a_note() {
        let text = mirror("quay.io/team", "m.corp/quay");
        assert!(proof(&spec(&text)).iter().all(|problem| problem.severity == Severity::Note));
        let named = proof(&spec(&format!("runtimes = ['containerd']\n{text}")));
        assert_eq!(named.iter().map(|problem| problem.severity).collect::<Vec<_>>(), [Severity::Error]);
    }
}
