//! `[[canary]]`: images by which it is known whether a mirror is fresh.

use std::time::Duration;

use super::super::decode::{At, Raw, RawCanary, short};
use super::super::problems::Problems;
use crate::model::image::{ImageRef, is_digest};
use crate::spec::{Canary, Spec};

/// Each node asks for each of them, at each of its endpoints, again and again.
const MOST: usize = 16;
/// What a canary may be old at most, at most: a year and a day.
const OLDEST: u64 = 366 * 86_400;

/// Checks every `[[canary]]`. `spec`: all the rest.
pub fn check(raw: &Raw, spec: &Spec, problems: &mut Problems<'_>) -> Vec<Canary> {
    // what is wrong with the mirrors is told where they stand
    let judged = problems.errors() == 0;
    let mut found: Vec<Canary> = Vec::with_capacity(raw.canaries.len());
    if let Some(first) = raw.canaries.get(MOST) {
        let what = format!("there are {} [[canary]], and each node asks for each of them again and again", raw.canaries.len());
        problems.error("canary", &first.at, what, format!("name at most {MOST}: one for each mirror says enough"));
    }
    for written in &raw.canaries {
        let image = written.image.as_ref().and_then(|at| image(at, spec, judged, problems));
        let digest = digest(written, image.as_ref(), problems);
        let max_age = max_age(written, image.as_ref(), problems);
        let (Some(image), Some(at)) = (image, &written.image) else { continue };
        if let Some(first) = found.iter().find(|known| known.image.to_string() == image.to_string()) {
            let place = problems.text().seen_from(&first.at, at.span.start);
            problems.error("duplicate", &at.span, format!("canary {image} is there twice, first {place}"), "take one of them out");
            continue;
        }
        let at = problems.text().place(at.span.start);
        found.push(Canary { image, digest, max_age, at });
    }
    found
}

fn image(at: &At<String>, spec: &Spec, judged: bool, problems: &mut Problems<'_>) -> Option<ImageRef> {
    if super::name::secret(at, problems) {
        return None;
    }
    let image = match ImageRef::parse(&at.value) {
        Ok(image) => image,
        Err(error) => {
            problems.error("invalid-image", &at.span, error.to_string(), "write `registry/repository:tag`");
            return None;
        }
    };
    if image.short {
        let what = format!("canary {:?} names no registry", short(&at.value));
        problems.error("invalid-image", &at.span, what, "write the registry in front: `docker.io/library/canary:fresh`");
        return None;
    }
    if !at.value.rsplit('/').next().unwrap_or_default().contains([':', '@']) {
        let what = format!("canary {:?} has neither tag nor digest", short(&at.value));
        problems.error("invalid-image", &at.span, what, "add the tag that is renewed whenever the mirror is");
        return None;
    }
    let mirror = spec.mirror_of(&image).filter(|mirror| !mirror.is_blocked());
    if judged && mirror.is_none() {
        let why = if spec.mirror_of(&image).is_some() { "its source is blocked" } else { "no [[mirror]] is for it" };
        let what = format!("canary {image} is in no mirror: {why}");
        problems.error("canary", &at.span, what, "name an image below the `source` of a [[mirror]], as it is pulled");
        return None;
    }
    Some(image)
}

fn digest(written: &RawCanary, image: Option<&ImageRef>, problems: &mut Problems<'_>) -> Option<String> {
    let at = written.digest.as_ref()?;
    if !is_digest(&at.value) {
        let what = format!("\"{}\" is no digest of a manifest", short(&at.value));
        problems.error("bad-value", &at.span, what, "write it as registries do: `sha256:` and 64 hexadecimal digits in small letters");
        return None;
    }
    if image.is_some_and(|image| image.digest.is_some()) {
        let what = "the image of this [[canary]] names its digest itself";
        problems.error("conflicting-keys", &at.span, what, "write the tag in `image`, or take `digest` out");
        return None;
    }
    Some(at.value.clone())
}

fn max_age(written: &RawCanary, image: Option<&ImageRef>, problems: &mut Problems<'_>) -> Option<Duration> {
    let at = written.max_age.as_ref()?;
    let digits = at.value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = at.value.split_at(digits);
    let unit = match unit {
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => 0,
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|age| (60..=OLDEST).contains(age));
    if seconds.is_none() {
        let what = format!("max_age \"{}\" is no age", short(&at.value));
        problems.error("bad-value", &at.span, what, "write a number with `m`, `h` or `d`, up to 366 days, as in \"26h\"");
    }
    if image.is_some_and(|image| image.digest.is_some()) {
        let what = "an image that is named by its digest never changes, and only gets older";
        problems.error("conflicting-keys", &at.span, what, "write the tag in `image`, or take `max_age` out");
        return None;
    }
    seconds.map(Duration::from_secs)
}
