//! `[[mirror]]`: what is pulled from where.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

use super::super::decode::{At, Raw, RawEndpoint, RawMirror};
use super::super::problems::Problems;
use super::endpoint;
use super::name::{self, canonical};
use crate::model::endpoint::Endpoint;
use crate::model::order::Gather as _;
use crate::model::place::Place;
use crate::runtime::Runtime;
use crate::spec::{Fallback, Mirror, Source};

/// What stands for a registry of `hosts` in an endpoint.
const HOST: &str = "{host}";

/// A `[[mirror]]` that makes sense by itself.
pub struct Checked {
    /// The mirror.
    pub mirror: Mirror,
    /// Its header.
    pub at: Range<usize>,
    /// Where each endpoint is written.
    pub spans: Vec<Range<usize>>,
}

/// What was said of the endpoint with this number.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Noted,
    Wrong,
    Twice,
    /// Of the host at this place, rather.
    Port,
}

/// Checks every `[[mirror]]`; one with `hosts` is as many as it lists. `fleet`: the document's `runtimes`.
pub fn check(raw: &Raw, fleet: Option<&[Runtime]>, problems: &mut Problems<'_>) -> Vec<Checked> {
    let mut seen = Seen(HashMap::with_capacity(raw.mirrors.len()));
    let mut found = Vec::with_capacity(raw.mirrors.len());
    for written in &raw.mirrors {
        let runtimes = written.runtimes.as_ref().map(|names| super::runtimes(names, problems));
        if let (Some(only), Some(fleet), Some(names)) = (&runtimes, fleet, &written.runtimes)
            && !only.is_empty()
            && !only.iter().any(|runtime| fleet.contains(runtime))
        {
            let what = "this [[mirror]] is for none of the runtimes that the document names";
            problems.warning("bad-runtimes", &names.span, what, "name one of them, or take the [[mirror]] out");
        }
        let named = sources(written, problems);
        for (source, span) in &named {
            seen.add(source, span, runtimes.as_deref(), problems);
        }
        let widen = written.widen.as_ref().filter(|flag| flag.value);
        if let (Some(flag), Some((source, _))) = (widen, named.iter().find(|(source, _)| source.below_host().is_none())) {
            let what = format!("`widen` is for a source below host level; {source} is none");
            problems.error("bad-value", &flag.span, what, "take `widen` out");
        }
        let Some(list) = &written.endpoints else { continue };
        if list.value.is_empty() {
            let help = "name at least one place where it is kept, or take the [[mirror]] out";
            problems.error("invalid-endpoint", &list.span, "`endpoints` names none", help);
        }
        let fallback = written.fallback.or(raw.fallback.as_ref().map(|word| word.value)).unwrap_or(Fallback::Never);
        let mut told = HashSet::new();
        if named.is_empty() {
            endpoints(written, &list.value, None, &mut told, problems);
        }
        for (source, span) in named {
            let (endpoints, spans) = endpoints(written, &list.value, Some((&source, &span)), &mut told, problems);
            let at = problems.text().place(if written.hosts.is_some() { span.start } else { written.at.start });
            let nowhere = match &source {
                Source::Prefix { host, .. } => host.cannot_exist(),
                Source::Domain(domain) => domain.domain() == "invalid" || domain.domain().ends_with(".invalid"),
                Source::All => false,
            };
            if fallback == Fallback::Upstream && nowhere {
                let what = format!("source {source} cannot exist, and with `fallback = \"upstream\"` it would be asked");
                problems.error(
                    "invalid-source",
                    &span,
                    what,
                    "write `fallback = \"never\"`: nothing below `.invalid` is ever there (RFC 6761)",
                );
            }
            if fallback == Fallback::Never {
                none_left(&source, &endpoints, &list.span, problems);
            }
            let on_unready = written.on_unready;
            let mirror = Mirror { source, endpoints, fallback, widen: widen.is_some(), runtimes: runtimes.clone(), on_unready, at };
            found.push(Checked { mirror, at: written.at.clone(), spans });
        }
    }
    found
}

/// What it mirrors: its source, or each of its hosts.
fn sources(written: &RawMirror, problems: &mut Problems<'_>) -> Vec<(Source, Range<usize>)> {
    match (&written.source, &written.hosts) {
        (Some(source), None) => name::source(source, problems).map(|found| (found, source.span.clone())).into_iter().collect(),
        (Some(_), Some(hosts)) => {
            let what = "`source` and `hosts` exclude each other";
            problems.error("conflicting-keys", &hosts.span, what, "put the source into `hosts`, or into a [[mirror]] of its own");
            Vec::new()
        }
        (None, Some(hosts)) => {
            if hosts.value.is_empty() {
                let help = "name at least one registry, or take the [[mirror]] out";
                problems.error("invalid-source", &hosts.span, "`hosts` names none", help);
            }
            hosts.value.iter().filter_map(|host| Some((name::listed(host, problems)?, host.span.clone()))).collect()
        }
        (None, None) => {
            if !written.reported {
                let what = "`source` is missing in [[mirror]], and so is `hosts`";
                problems.error("missing-key", &written.at, what, "add `source = \"docker.io\"`, or `hosts` with several");
            }
            Vec::new()
        }
    }
}

/// The endpoints of one source, and where each is written. What is wrong with one whatever the source is told once: `told` are
/// those of which something was said.
fn endpoints(
    written: &RawMirror,
    list: &[RawEndpoint],
    source: Option<(&Source, &Range<usize>)>,
    told: &mut HashSet<(usize, Kind)>,
    problems: &mut Problems<'_>,
) -> (Vec<Endpoint>, Vec<Range<usize>>) {
    let mut endpoints: Vec<Endpoint> = Vec::with_capacity(list.len());
    let mut spans = Vec::with_capacity(list.len());
    let mut places = HashSet::new();
    for (index, entry) in list.iter().enumerate() {
        // what is missing is reported already
        let Some(at) = &entry.location else { continue };
        let templated = written.hosts.is_some() && at.value.contains(HOST);
        let host = source.and_then(|(source, _)| source.host());
        let filled = match (templated, host) {
            (true, Some(host)) => {
                let location = At { value: at.value.replace(HOST, host.as_str()), span: at.span.clone() };
                Cow::Owned(RawEndpoint { location: Some(location), ..entry.clone() })
            }
            (true, None) => continue,
            (false, _) => Cow::Borrowed(entry),
        };
        let mut quiet = Problems::new(problems.text());
        let read = endpoint::read(&filled, &mut quiet);
        // a port cannot stand in a path
        if read.is_none()
            && let (true, Some((source, span))) = (templated && host.is_some_and(|host| host.port().is_some()), source)
        {
            if told.insert((span.start, Kind::Port)) {
                let what = format!("{source} has a port, and `{HOST}` in the endpoint {:?} leaves no place for one", at.value);
                problems.error("invalid-endpoint", span, what, format!("write {source} as `source` of a [[mirror]] of its own"));
            }
            continue;
        }
        let kind = if quiet.errors() > 0 { Kind::Wrong } else { Kind::Noted };
        if !quiet.is_empty() && told.insert((index, kind)) {
            endpoint::read(&filled, problems);
        }
        let Some(endpoint) = read else { continue };
        // one alone cannot be there twice
        if list.len() > 1 && !places.insert((canonical(&endpoint.host).to_owned(), endpoint.prefix.clone())) {
            if told.insert((index, Kind::Twice)) {
                problems.error("duplicate", &at.span, format!("endpoint {endpoint} is there twice"), "take one of them out");
            }
            continue;
        }
        if let Some((source, _)) = source
            && let Some((host, path)) = source.prefix()
            && canonical(host) == canonical(&endpoint.host)
            && endpoint.prefix.below(path).is_some()
        {
            let what = format!("endpoint {endpoint} lies inside its own source {source}");
            problems.error("mirror-of-itself", &at.span, what, "name the place where the copies are kept, or take it out");
            continue;
        }
        endpoints.push(endpoint);
        spans.push(at.span.clone());
    }
    (endpoints, spans)
}

/// One text for all ways to write a source.
pub fn same(source: &Source) -> String {
    match source {
        Source::Prefix { host, path } => [canonical(host), "/", path.as_str()].concat(),
        Source::All | Source::Domain(_) => source.to_string(),
    }
}

/// A closed source of which some references can be pulled from nowhere.
fn none_left(source: &Source, endpoints: &[Endpoint], span: &Range<usize>, problems: &mut Problems<'_>) {
    for (by_digest, kind) in [(false, "by tag"), (true, "by digest")] {
        if !endpoints.is_empty() && !endpoints.iter().any(|endpoint| endpoint.pull.takes(by_digest)) {
            let what = format!("no endpoint of {source} takes references {kind}, and the source itself is never asked: such pulls fail");
            problems.warning("no-endpoint-left", span, what, "leave `pull` out for one of them, or write `fallback = \"upstream\"`");
        }
    }
}

/// Sources by what they really are, and for whom.
struct Seen(HashMap<String, Vec<Known>>);

struct Known {
    source: Source,
    place: Place,
    runtimes: Option<BTreeSet<Runtime>>,
}

impl Seen {
    /// Two of one source are one too many, unless no runtime sees both.
    fn add(&mut self, source: &Source, span: &Range<usize>, runtimes: Option<&[Runtime]>, problems: &mut Problems<'_>) {
        let key = same(source);
        let runtimes: Option<BTreeSet<Runtime>> = runtimes.map(|runtimes| runtimes.iter().copied().gathered());
        let meets = |known: &&Known| match (&known.runtimes, &runtimes) {
            (Some(one), Some(other)) => !one.is_disjoint(other),
            _ => true,
        };
        let all = self.0.entry(key).or_default();
        if let Some(Known { source: first, place, .. }) = all.iter().find(meets) {
            let place = problems.text().seen_from(place, span.start);
            let what = if first == source {
                format!("source {source} is mirrored twice, first {place}")
            } else {
                format!("source {source} is mirrored twice: {first} {place} is the same registry")
            };
            problems.error("duplicate", span, what, "put the endpoints of both into one [[mirror]]");
            return;
        }
        let place = problems.text().place(span.start);
        all.push(Known { source: source.clone(), place, runtimes });
    }
}
