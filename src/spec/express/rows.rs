//! The table itself: constant data.

use super::{Family, Row, Subject, Verdict};
use crate::model::version::Version;
use crate::spec::Fallback;

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

pub(super) const NO_IPV6: &str = "references to IPv6 addresses cannot be parsed";
const DNS_NAME: &str = "give the registry a DNS name and write that";

/// Since when containerd reads references to IPv6 addresses (`reference/docker/reference.go`; seen on 1.7.24 and 2.1.9; 1.6.20
/// does not).
pub(super) const IPV6_REFERENCES: Version = Version(1, 7, 0);
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
        Subject::Search,
        Family::Containerd,
        "it has no such list: names without a registry are those of docker.io, whatever is said",
    )
    .shown_by(&["real/search"]),
    yes(Subject::Search, Family::Containers).shown_by(&["real/search", "vectors/containers/2.6-search"]),
    yes(Subject::SearchSeveral, Family::Containerd).shown_by(&["real/search"]),
    nearly(
        Subject::SearchSeveral,
        Family::Containers,
        "where short-name-mode is \"enforcing\" (CRI-O since 1.34), a name that may be in more than one is refused; such a node is left as it is",
    )
    .shown_by(&["flow/search", "vectors/containers/2.5-mode"]),
    nearly(
        Subject::Deny,
        Family::Containerd,
        "registries on the loopback interface are closed too, unless [[registry]] names them: `_default` speaks for them as well",
    )
    .shown_by(&["real/deny"]),
    nearly(
        Subject::Deny,
        Family::Containers,
        "what can be named is closed: the top-level domains of public registries, or those of `deny_domains`; addresses, names without a dot and \
         other domains stay open",
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
