//! Whether mirrors are fresh: what they have of an image that the spec names for it. Pure.
//!
//! Where the spec says the digest, it has to be that; where it says an age, the image may not be older by its own creation date; where it says
//! neither, all endpoints have to have the same as the first. Registries that are mirrored are never asked: only copies are.

use std::time::Duration;

use serde::Serialize;

use super::online::{Endpoint, each};
use super::probe::{Ask, Held, Manifest, Seen, Stage, Step, Target};
use super::{Check, Outcome, check};
use crate::model::time::Time;
use crate::spec::{Canary, Spec};

/// What came of a canary at an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Found {
    /// The image.
    pub image: String,
    /// Where it was asked for: `scheme://host`.
    pub endpoint: String,
    /// Whether it is as the spec wants it; `None` where that could not be told.
    pub fresh: Option<bool>,
    /// The digest that it has there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// When it was made, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created: Option<Time>,
}

/// One canary at one endpoint.
struct Row<'a> {
    canary: &'a Canary,
    endpoint: &'a Endpoint,
    target: &'a Target,
    manifest: &'a Manifest,
    seen: &'a Seen,
    /// Its place in the mirror's endpoints.
    place: usize,
}

impl Row<'_> {
    fn held(&self) -> Option<&Held> {
        self.seen.held.iter().find(|held| held.path == self.manifest.path)
    }

    fn digest(&self) -> Option<&str> {
        self.held()?.digest.as_deref()
    }
}

/// What came of the canaries of `spec`, `seen` in the order of all ways of the endpoints. `now`: `None` where the clock is not to be
/// relied on.
#[must_use]
pub fn judge(spec: &Spec, endpoints: &[Endpoint], seen: &[Seen], now: Option<Time>) -> (Vec<Check>, Vec<Found>) {
    let mut rows = Vec::new();
    for (endpoint, seen) in each(endpoints, seen) {
        let Some((target, seen)) = endpoint.best(&endpoint.readers, seen) else { continue };
        for manifest in target.manifests.iter().filter(|manifest| manifest.ask != Ask::There) {
            let Some(canary) = spec.canaries.iter().find(|canary| canary.image.to_string() == manifest.image) else { continue };
            let endpoints = spec.mirror_of(&canary.image).map(|mirror| mirror.endpoints.as_slice()).unwrap_or_default();
            let is_this =
                |one: &crate::model::endpoint::Endpoint| one.host == target.host && manifest.repo.starts_with(one.prefix.as_str());
            let place = endpoints.iter().position(is_this).unwrap_or(usize::MAX);
            rows.push(Row { canary, endpoint, target, manifest, seen, place });
        }
    }
    let first = |canary: &Canary| {
        let of = rows.iter().filter(|row| std::ptr::eq(row.canary, canary) && row.digest().is_some());
        of.min_by_key(|row| row.place)
    };
    let (mut checks, mut found) = (Vec::new(), Vec::new());
    for row in &rows {
        let (result, what, help) = verdict(row, first(row.canary), now);
        let image = &row.manifest.image;
        // that nobody is there is told by the endpoint itself
        if let Some(result) = result {
            let subject = format!("{}: {image}", row.endpoint.subject(row.target));
            let mut made = check(result, "canary", subject, what, help);
            let of_image = |step: &&Step| {
                step.stage == Stage::Manifest && step.found.strip_prefix(image.as_str()).is_some_and(|rest| rest.starts_with(": "))
            };
            made.steps = row.seen.steps.iter().filter(of_image).cloned().collect();
            checks.push(made);
        }
        found.push(Found {
            image: image.clone(),
            endpoint: format!("{}://{}", row.target.scheme, row.target.host),
            fresh: match result {
                Some(Outcome::Ok) => Some(true),
                Some(Outcome::Failed) => Some(false),
                Some(Outcome::CouldNotRun | Outcome::Due) | None => None,
            },
            digest: row.digest().map(ToOwned::to_owned),
            created: row.held().and_then(|held| held.created.as_ref()?.as_ref().ok().copied()),
        });
    }
    (checks, found)
}

const BEHIND: &str = "look at what fills the mirror: it has not brought this image up to date";

/// What is to be said of it; `None` where its endpoint was not reached.
fn verdict(row: &Row<'_>, first: Option<&Row<'_>>, now: Option<Time>) -> (Option<Outcome>, String, &'static str) {
    let Some(held) = row.held() else {
        let trouble = row.seen.troubles.iter().find(|(_, trouble)| trouble.image() == Some(&row.manifest.image));
        let other = row.seen.troubles.iter().find(|(stage, trouble)| *stage == Stage::Manifest && trouble.image().is_none());
        return match trouble.or(other) {
            Some((_, trouble)) => (Some(trouble.outcome()), trouble.what(), trouble.help()),
            None => (None, String::new(), ""),
        };
    };
    let unknown = |what: String, help| (Some(Outcome::CouldNotRun), what, help);
    let failed = |what: String| (Some(Outcome::Failed), what, BEHIND);
    match (&row.canary.digest, row.digest()) {
        (Some(wanted), Some(has)) if wanted != has => return failed(format!("it is {has} there, and the spec says {wanted}")),
        (Some(_), None) => return unknown("the registry does not say its digest".to_owned(), "give `max_age` instead of `digest`"),
        _ => {}
    }
    if let Some(most) = row.canary.max_age {
        match (&held.created, now) {
            (Some(Ok(created)), Some(now)) => {
                let age = Duration::from_millis(u64::try_from(now.0 - created.0).unwrap_or(0));
                if age > most {
                    return failed(format!("it was made on {created}, {} ago; the spec allows {}", span(age), span(most)));
                }
            }
            (Some(Ok(_)), None) => {
                return unknown("the clock of the node is not to be relied on".to_owned(), "let the clock be synchronised");
            }
            (Some(Err(why)), _) => {
                return unknown(format!("when it was made is not known: {why}"), "let what makes the canary write its creation date");
            }
            (None, _) => return unknown("when it was made was not asked".to_owned(), "run it again"),
        }
    }
    if let (None, Some(first), Some(has)) = (&row.canary.digest, first, row.digest())
        && let Some(wanted) = first.digest().filter(|wanted| *wanted != has)
    {
        return failed(format!("it is {has} there, and {wanted} at {}, which is asked first", first.target.host));
    }
    (Some(Outcome::Ok), String::new(), "")
}

/// A time in its largest unit that says enough.
fn span(time: Duration) -> String {
    match time.as_secs() {
        secs @ 0..7200 => format!("{} min", secs / 60),
        secs @ 7200..172_800 => format!("{} h", secs / 3600),
        secs => format!("{} days", secs / 86_400),
    }
}
