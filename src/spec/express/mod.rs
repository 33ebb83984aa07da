//! What of a spec a runtime can express: a published table, from which `check` and the documentation are made.
//!
//! What lives here: the table, where a spec meets it, and how an intent looks once it is expressed. What must not: the file
//! formats themselves.

mod adapt;
mod occurrences;
mod rows;

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::{Fallback, Spec};
use crate::model::problem::{Problem, Severity};
use crate::model::version::Version;
use crate::runtime::{Dialect, Runtime, containerd};
use occurrences::occurrences;

pub use adapt::{adapt, adapted, full_names, unreadable};
pub use rows::ROWS;

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
    /// `[runtime] search`.
    Search,
    /// The same with more than one registry.
    SearchSeveral,
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
            Self::Search => "`search`",
            Self::SearchSeveral => "`search` with more than one registry",
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
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::endpoint::Scheme;
    use crate::model::image::ImageRef;
    use crate::model::resolution::{End, Trust};
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

    /// 8.4, rules 16 and 17: `*` is for containerd alone; beside a name of the same length registries.conf would take the wrong
    /// entry; a domain has no port.
    #[test]
    fn what_is_wide_is_said_where_it_can_be() {
        let every = mirror("*", "m.corp");
        assert_eq!((refusals(&every, Runtime::Containerd), refusals(&every, Runtime::Podman)), (vec![], vec![Subject::AllSource]));
        let domain = |name: &str| mirror("*.corp.example", "m.corp") + &mirror(name, "m.corp/x");
        for (name, tied) in [("x.corp.example", true), ("xy.corp.example", false), ("x.corp.example:5000", false)] {
            let found = refusals(&domain(name), Runtime::Crio);
            assert_eq!(found.contains(&Subject::DomainShort), tied, "{name}: {found:?}");
        }
        for name in ["x.io", "m.corp"] {
            let found = refusals(&format!("unlisted = 'deny'\n{}", mirror(name, "registry.corp")), Runtime::Podman);
            assert_eq!(found.contains(&Subject::DenyShort), name == "x.io", "{name}: {found:?}");
        }
        let port = "version = 1\nfallback = 'never'\n".to_owned() + &mirror("*.corp.example:5000", "m.corp");
        assert!(Draft::open("spec.toml", port.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.is_none());
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
