//! `[[mirror]]`: what is pulled from where.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::super::decode::Raw;
use super::super::problems::Problems;
use super::endpoint;
use super::name::{self, canonical};
use crate::model::endpoint::Endpoint;
use crate::spec::{Fallback, Mirror, Source};

/// A `[[mirror]]` that makes sense by itself.
pub struct Checked {
    /// The mirror.
    pub mirror: Mirror,
    /// Its header.
    pub at: Range<usize>,
    /// Where each endpoint is written.
    pub spans: Vec<Range<usize>>,
}

/// Checks every `[[mirror]]`.
pub fn check(raw: &Raw, problems: &mut Problems<'_>) -> Vec<Checked> {
    let mut sources: HashMap<String, (String, u32)> = HashMap::new();
    let mut found = Vec::with_capacity(raw.mirrors.len());
    for written in &raw.mirrors {
        let source = written.source.as_ref().and_then(|at| Some((name::source(at, problems)?, at)));
        if let Some((source, at)) = &source {
            twice(source, &at.span, &mut sources, problems);
        }
        let Some(list) = &written.endpoints else { continue };
        if list.value.is_empty() {
            let help = "name at least one place where it is kept, or take the [[mirror]] out";
            problems.error("invalid-endpoint", &list.span, "`endpoints` names none", help);
        }
        let mut endpoints: Vec<Endpoint> = Vec::with_capacity(list.value.len());
        let mut spans = Vec::with_capacity(list.value.len());
        let mut places = HashSet::new();
        for written in &list.value {
            let Some(endpoint) = endpoint::read(written, problems) else { continue };
            let at = written.location.as_ref().map_or(&written.at, |at| &at.span);
            if !places.insert((canonical(&endpoint.host).to_owned(), endpoint.prefix.clone())) {
                problems.error("duplicate", at, format!("endpoint {endpoint} is there twice"), "take one of them out");
                continue;
            }
            if let Some((source, _)) = &source
                && let Some((host, path)) = source.prefix()
                && canonical(host) == canonical(&endpoint.host)
                && endpoint.prefix.below(path).is_some()
            {
                let what = format!("endpoint {endpoint} lies inside its own source {source}");
                problems.error("mirror-of-itself", at, what, "name the place where the copies are kept, or take it out");
                continue;
            }
            endpoints.push(endpoint);
            spans.push(at.clone());
        }
        let Some((source, _)) = source else { continue };
        let fallback = written.fallback.or(raw.fallback.as_ref().map(|word| word.value)).unwrap_or(Fallback::Never);
        if fallback == Fallback::Never {
            none_left(&source, &endpoints, &list.span, problems);
        }
        let mirror = Mirror { source, endpoints, fallback, widen: false, runtimes: None, at: problems.text().place(written.at.start) };
        found.push(Checked { mirror, at: written.at.clone(), spans });
    }
    found
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

/// One text for all ways to write a source.
pub fn same(source: &Source) -> String {
    match source {
        Source::Prefix { host, path } => format!("{}/{path}", canonical(host)),
        Source::All | Source::Domain(_) => source.to_string(),
    }
}

fn twice(source: &Source, span: &Range<usize>, sources: &mut HashMap<String, (String, u32)>, problems: &mut Problems<'_>) {
    let key = same(source);
    if let Some((first, line)) = sources.get(&key) {
        let what = if *first == source.to_string() {
            format!("source {source} is mirrored twice, first on line {line}")
        } else {
            format!("source {source} is mirrored twice: {first} on line {line} is the same registry")
        };
        problems.error("duplicate", span, what, "put the endpoints of both into one [[mirror]]");
        return;
    }
    let line = problems.text().place(span.start).line;
    sources.insert(key, (source.to_string(), line));
}
