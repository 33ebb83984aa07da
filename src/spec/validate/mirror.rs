//! `[[mirror]]`: what is pulled from where.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::super::decode::Raw;
use super::super::problems::Problems;
use super::name::{self, canonical};
use crate::model::endpoint::Endpoint;
use crate::model::place::Place;
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
    let mut sources: HashMap<String, (String, Place)> = HashMap::new();
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
        for at in &list.value {
            let Some(endpoint) = name::endpoint(at, problems) else { continue };
            if !places.insert((canonical(&endpoint.host).to_owned(), endpoint.prefix.clone())) {
                problems.error("duplicate", &at.span, format!("endpoint {endpoint} is there twice"), "take one of them out");
                continue;
            }
            if let Some((source, _)) = &source
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
        let Some((source, _)) = source else { continue };
        let fallback = written.fallback.or(raw.fallback.as_ref().map(|word| word.value)).unwrap_or(Fallback::Never);
        let mirror = Mirror { source, endpoints, fallback, widen: false, runtimes: None, at: problems.text().place(written.at.start) };
        found.push(Checked { mirror, at: written.at.clone(), spans });
    }
    found
}

fn twice(source: &Source, span: &Range<usize>, sources: &mut HashMap<String, (String, Place)>, problems: &mut Problems<'_>) {
    let key = match source {
        Source::Prefix { host, path } => format!("{}/{path}", canonical(host)),
        Source::All | Source::Domain(_) => source.to_string(),
    };
    if let Some((first, place)) = sources.get(&key) {
        let place = problems.text().seen_from(place, span.start);
        let what = if *first == source.to_string() {
            format!("source {source} is mirrored twice, first {place}")
        } else {
            format!("source {source} is mirrored twice: {first} {place} is the same registry")
        };
        problems.error("duplicate", span, what, "put the endpoints of both into one [[mirror]]");
        return;
    }
    sources.insert(key, (source.to_string(), problems.text().place(span.start)));
}
