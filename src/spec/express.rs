//! What of a spec a runtime can express: a published table, from which `check` and the documentation are made.
//!
//! What lives here: the table, where a spec meets it, and how an intent looks once it is expressed. What must not: the file
//! formats themselves.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::domains::{denied, loses_to_its_domain};
use super::validate::canonical;
use super::{Fallback, LoginBy, Spec, Unlisted};
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::place::Place;
use crate::model::problem::{Problem, Severity};
use crate::model::resolution::{Attempt, End, Resolution, Trust};
use crate::runtime::Runtime;

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
    /// A source below host level.
    SubHostSource,
    /// An IPv6 address as host.
    Ipv6,
    /// An endpoint's host without dot and port.
    BareEndpoint,
    /// An endpoint with a prefix.
    Prefix,
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
    /// Nearly.
    Approximated {
        /// What is different.
        note: &'static str,
    },
}

const fn yes(subject: Subject, family: Family) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Yes }
}

const fn refused(subject: Subject, family: Family, reason: &'static str, instead: &'static str) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Refused { reason, instead } }
}

const fn nearly(subject: Subject, family: Family, note: &'static str) -> Row {
    Row { subject, fallback: None, family, verdict: Verdict::Approximated { note } }
}

const HTTPS_FIRST: &str = "HTTPS without verification is tried first, then plain HTTP: registries.conf has one word for both";

/// The table.
pub const ROWS: &[Row] = &[
    Row { fallback: Some(Fallback::Never), ..yes(Subject::HostSource, Family::Containerd) },
    Row { fallback: Some(Fallback::Never), ..yes(Subject::HostSource, Family::Containers) },
    Row { fallback: Some(Fallback::Upstream), ..yes(Subject::HostSource, Family::Containerd) },
    Row { fallback: Some(Fallback::Upstream), ..yes(Subject::HostSource, Family::Containers) },
    yes(Subject::PortlessSource, Family::Containerd),
    nearly(
        Subject::PortlessSource,
        Family::Containers,
        "it covers references with a port too: registries.conf takes `host` as prefix of `host:5000/…`",
    ),
    refused(
        Subject::SubHostSource,
        Family::Containerd,
        "hosts.toml speaks for whole registries only",
        "write the registry itself as source, or run what needs it on CRI-O or Podman",
    ),
    yes(Subject::SubHostSource, Family::Containers),
    yes(Subject::Ipv6, Family::Containerd),
    refused(
        Subject::Ipv6,
        Family::Containers,
        "references to IPv6 addresses cannot be parsed",
        "give the registry a DNS name and write that",
    ),
    yes(Subject::BareEndpoint, Family::Containerd),
    refused(
        Subject::BareEndpoint,
        Family::Containers,
        "without dot or port it is not taken as a registry, and every pull of the source fails",
        "write its full name, or its port",
    ),
    yes(Subject::Prefix, Family::Containerd),
    yes(Subject::Prefix, Family::Containers),
    Row { fallback: Some(Fallback::Never), ..yes(Subject::ClosedEndpoint, Family::Containerd) },
    Row {
        fallback: Some(Fallback::Never),
        ..refused(
            Subject::ClosedEndpoint,
            Family::Containers,
            "what closes the source blocks the endpoint too",
            "keep the copies under another host, or let that source fall back to its upstream",
        )
    },
    yes(Subject::PlainHttp, Family::Containerd),
    nearly(Subject::PlainHttp, Family::Containers, HTTPS_FIRST),
    yes(Subject::Unverified, Family::Containerd),
    nearly(Subject::Unverified, Family::Containers, HTTPS_FIRST),
    yes(Subject::ClientCertificate, Family::Containerd),
    yes(Subject::ClientCertificate, Family::Containers),
    nearly(
        Subject::Credentials,
        Family::Containerd,
        "they are sent as a header with every request; before 2.1 that does not reach the token endpoint of registries that want bearer tokens",
    ),
    yes(Subject::Credentials, Family::Containers),
    nearly(
        Subject::Deny,
        Family::Containerd,
        "registries on the loopback interface are closed too, unless [[registry]] names them: `_default` speaks for them as well",
    ),
    nearly(
        Subject::Deny,
        Family::Containers,
        "what can be named is closed: the top-level domains of public registries; addresses, names without a dot and other domains stay open",
    ),
    yes(Subject::DenyShort, Family::Containerd),
    refused(
        Subject::DenyShort,
        Family::Containers,
        "registries.conf prefers the entry that closes its whole domain, because both are of one length",
        "name it with its port, or use a longer name",
    ),
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
            Self::Ipv6 => "IPv6 address as host",
            Self::BareEndpoint => "endpoint host without dot and port",
            Self::Prefix => "endpoint with prefix",
            Self::ClosedEndpoint => "source on which another mirror's endpoint lies",
            Self::PlainHttp => "`http://` endpoint",
            Self::Unverified => "`insecure`",
            Self::ClientCertificate => "`client_cert`",
            Self::Credentials => "`credentials`",
            Self::Deny => "`unlisted = \"deny\"`",
            Self::DenyShort => "`unlisted = \"deny\"` beside a name such as `x.io`",
        }
    }
}

/// What of `spec` this runtime cannot express as it is meant.
#[must_use]
pub fn gaps(spec: &Spec, runtime: Runtime) -> Vec<Gap> {
    let family = Family::of(runtime);
    let mut gaps = Vec::new();
    for row in ROWS.iter().filter(|row| row.family == family) {
        let (severity, code, why, help) = match &row.verdict {
            Verdict::Yes => continue,
            Verdict::Refused { reason, instead } => (Severity::Error, "not-expressible", reason, *instead),
            Verdict::Approximated { note } => (Severity::Note, "approximated", note, ""),
        };
        for (thing, at) in occurrences(spec, row.subject) {
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
    let all = named.unwrap_or(&Runtime::ALL).iter().flat_map(|runtime| gaps(spec, *runtime)).map(|gap| gap.problem);
    let fresh = all.filter(|problem| seen.insert(problem.what.clone()));
    fresh.map(|problem| if named.is_some() { problem } else { Problem { severity: Severity::Note, ..problem } }).collect()
}

/// Where a spec asks for something: what to call it, and its place.
fn occurrences(spec: &Spec, subject: Subject) -> Vec<(String, Option<Place>)> {
    let access = |wanted: fn(&super::Access) -> bool, name: &str| {
        let found = spec.access.iter().filter(|(_, access)| wanted(access));
        found.map(|(host, access)| (format!("{name} {host}"), access.at.clone())).collect()
    };
    match subject {
        // nothing to say about these
        Subject::HostSource | Subject::Prefix | Subject::ClientCertificate => Vec::new(),
        Subject::PortlessSource => {
            let mut sources = spec.mirrors.iter().filter(|mirror| mirror.source.path.is_all() && mirror.source.host.port().is_none());
            let first = sources.next();
            let more = sources.count();
            let name = |first: &super::Mirror| match more {
                0 => format!("source {}", first.source),
                more => format!("source {} (and {more} more)", first.source),
            };
            first.map(|first| (name(first), Some(first.at.clone()))).into_iter().collect()
        }
        Subject::SubHostSource => {
            let below = spec.mirrors.iter().filter(|mirror| !mirror.source.path.is_all());
            below.map(|mirror| (format!("source {}", mirror.source), Some(mirror.at.clone()))).collect()
        }
        Subject::Ipv6 => {
            let sources = spec.mirrors.iter().map(|mirror| (&mirror.source.host, Some(&mirror.at)));
            let hosts = spec.access.iter().map(|(host, access)| (host, access.at.as_ref()));
            let found: BTreeMap<_, _> = hosts.chain(sources).filter(|(host, _)| host.is_ipv6()).collect();
            found.into_iter().map(|(host, at)| (format!("host {host}"), at.cloned())).collect()
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
        Subject::ClosedEndpoint => closed_endpoints(spec),
        Subject::PlainHttp => access(|access| access.scheme == Scheme::Http, "plain HTTP for"),
        Subject::Unverified => access(|access| access.scheme == Scheme::Https && access.insecure, "`insecure` for"),
        Subject::Credentials => access(|access| access.login.as_ref().is_some_and(|login| login.by == LoginBy::Header), "credentials for"),
        Subject::Deny => {
            let denied = (spec.unlisted == Unlisted::Deny).then(|| ("unlisted = \"deny\"".to_owned(), None));
            denied.into_iter().collect()
        }
        Subject::DenyShort => {
            let denies = spec.unlisted == Unlisted::Deny;
            let sources = spec.mirrors.iter().map(|mirror| (&mirror.source.host, Some(&mirror.at)));
            let hosts = spec.access.iter().map(|(host, access)| (host, access.at.as_ref()));
            let found: BTreeMap<_, _> = hosts.chain(sources).filter(|(host, _)| denies && loses_to_its_domain(host)).collect();
            found.into_iter().map(|(host, at)| (format!("{host} beside unlisted = \"deny\""), at.cloned())).collect()
        }
    }
}

/// Endpoints that lie, wholly or partly, under the block of a `never` source; a longer source that is open lifts it.
fn closed_endpoints(spec: &Spec) -> Vec<(String, Option<Place>)> {
    let mut sources: BTreeMap<&str, Vec<&super::Mirror>> = BTreeMap::new();
    for mirror in &spec.mirrors {
        sources.entry(canonical(&mirror.source.host)).or_default().push(mirror);
    }
    let mut found = Vec::new();
    for mirror in &spec.mirrors {
        for endpoint in &mirror.endpoints {
            let Some(there) = sources.get(canonical(&endpoint.host)) else { continue };
            let covers = |other: &&&super::Mirror| endpoint.prefix.below(&other.source.path).is_some();
            let decides = there.iter().filter(covers).max_by_key(|other| other.source.path.as_str().len());
            let inside =
                |other: &&&super::Mirror| other.source.path != endpoint.prefix && other.source.path.below(&endpoint.prefix).is_some();
            let mut blocks = decides.into_iter().chain(there.iter().filter(inside)).filter(|other| other.fallback == Fallback::Never);
            if let Some(block) = blocks.next() {
                let thing = format!("endpoint {endpoint} of {} beside the closed source {}", mirror.source, block.source);
                found.push((thing, Some(mirror.at.clone())));
            }
        }
    }
    found
}

/// An intent as this runtime can express it: where [`ROWS`] says "approximated", what it will really ask.
#[must_use]
pub fn adapt(spec: &Spec, resolution: Resolution, runtime: Runtime) -> Resolution {
    match Family::of(runtime) {
        Family::Containerd => resolution,
        // what registries.conf has no name for stays open
        Family::Containers if matches!(resolution.end, End::Blocked(_)) && stays_open(spec, &resolution.image.host) => {
            let open = super::intent::own_registry(&resolution.image);
            Resolution { attempts: vec![open], end: End::Exhausted, ..resolution }
        }
        Family::Containers => {
            let attempts = resolution.attempts.into_iter().flat_map(|attempt| match attempt.trust {
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

/// Whether registries.conf leaves a registry open that the spec does not name: one outside the closed domains that is not
/// even another name of one that the spec does name.
fn stays_open(spec: &Spec, host: &Host) -> bool {
    let named = |host: &Host| spec.access.contains_key(host) || spec.is_source_host(host);
    !denied(host) && !named(host) && !host.aliases().iter().any(named)
}

/// The same without a copy where there is nothing to adapt.
#[must_use]
pub fn adapted<'a>(spec: &Spec, resolution: &'a Resolution, runtime: Runtime) -> Cow<'a, Resolution> {
    let bent = |attempt: &Attempt| matches!(attempt.trust, Trust::Plain | Trust::Unverified);
    let denied = matches!(resolution.end, End::Blocked(_));
    match Family::of(runtime) {
        Family::Containers if denied || resolution.attempts.iter().any(bent) => Cow::Owned(adapt(spec, resolution.clone(), runtime)),
        Family::Containerd | Family::Containers => Cow::Borrowed(resolution),
    }
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
        let cell =
            |family| ROWS.iter().find(|row| row.family == family && (row.subject, row.fallback) == key).map_or_else(String::new, cell);
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

fn cell(row: &Row) -> String {
    match &row.verdict {
        Verdict::Yes => "yes".to_owned(),
        Verdict::Refused { reason, instead } => format!("**refused**: {reason}; {instead}"),
        Verdict::Approximated { note } => format!("nearly: {note}"),
    }
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

    fn mirror(source: &str, endpoint: &str) -> String {
        format!("[[mirror]]\nsource = '{source}'\nendpoints = ['{endpoint}']\n")
    }

    fn refusals(text: &str, runtime: Runtime) -> Vec<Subject> {
        let gaps = gaps(&spec(text), runtime).into_iter().filter(|gap| gap.problem.severity == Severity::Error);
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
        assert_eq!(adapt(&spec, meant.clone(), Runtime::Containerd), meant);
        let asked = adapt(&spec, meant, Runtime::Podman);
        let asked: Vec<_> = asked.attempts.iter().map(|attempt| (attempt.scheme, &attempt.trust)).collect();
        assert_eq!(asked, [(Scheme::Https, &Trust::Unverified), (Scheme::Http, &Trust::Plain)]);
    }

    #[test]
    fn without_runtimes_everything_is_a_note() {
        let text = mirror("quay.io/team", "m.corp/quay");
        assert!(proof(&spec(&text)).iter().all(|problem| problem.severity == Severity::Note));
        let named = proof(&spec(&format!("runtimes = ['containerd']\n{text}")));
        assert_eq!(named.iter().map(|problem| problem.severity).collect::<Vec<_>>(), [Severity::Error]);
    }
}
