//! `[[blocked]]`: what nothing is pulled from. A source without endpoints that never falls back.

use std::collections::HashMap;
use std::ops::Range;

use super::super::decode::Raw;
use super::super::problems::Problems;
use super::{mirror, name};
use crate::spec::{Fallback, Mirror, OnUnready, Pause};

/// Checks every `[[blocked]]` against each other and against what is mirrored.
pub fn check(raw: &Raw, mirrors: &[mirror::Checked], problems: &mut Problems<'_>) -> Vec<Mirror> {
    if raw.blocked.is_empty() {
        return Vec::new();
    }
    let mirrored = mirrors.iter().map(|checked| (mirror::same(&checked.mirror.source), (&checked.at, "mirrored", &checked.mirror)));
    let mirrored: HashMap<String, (&Range<usize>, &str, &Mirror)> = mirrored.collect();
    let mut lines: HashMap<String, (String, u32)> = HashMap::new();
    let mut found = Vec::with_capacity(raw.blocked.len());
    for written in &raw.blocked {
        let runtimes = written.runtimes.as_ref().map(|names| super::runtimes(names, problems));
        let Some(at) = &written.source else { continue };
        let Some(source) = name::source(at, problems) else { continue };
        let key = mirror::same(&source);
        let line = problems.text().place(at.span.start).line;
        if let Some((place, how, other)) = mirrored.get(&key) {
            let first = problems.text().place(place.start).line;
            let name = if other.source == source { String::new() } else { format!(" as {}", other.source) };
            let what = format!("source {source} is blocked here and {how}{name} on line {first}");
            let help = "take one of them out; `fallback = \"never\"` on the [[mirror]] closes the source itself";
            problems.error("duplicate", &at.span, what, help);
        } else if let Some((other, first)) = lines.get(&key) {
            let name = if *other == source.to_string() { String::new() } else { format!(": {other} is the same registry") };
            problems.error("duplicate", &at.span, format!("source {source} is blocked twice, first on line {first}{name}"), "take one out");
        } else {
            lines.insert(key, (source.to_string(), line));
            let at = problems.text().place(written.at.start);
            let on_unready = OnUnready::Apply;
            found.push(Mirror { source, endpoints: Vec::new(), fallback: Fallback::Never, widen: false, runtimes, on_unready, at });
        }
    }
    found
}

/// The pause image is pulled on every node before anything else.
pub fn pause(spec: &crate::spec::Spec, pause: Option<&Pause>, raw: &Raw, problems: &mut Problems<'_>) {
    let (Some(pause), Some(written)) = (pause, &raw.pause_image) else { return };
    if pause.image.host.cannot_exist() && spec.mirror_of(&pause.image).is_none() {
        let what = format!("the pause image is pulled from {}, which cannot exist, and no [[mirror]] is for it", pause.image.host);
        problems.error("invalid-image", &written.span, what, super::name::NOWHERE);
    }
    if let Some(blocked) = spec.mirror_of(&pause.image).filter(|mirror| mirror.is_blocked()) {
        let what =
            format!("the pause image is pulled from {}, which is blocked on line {}: no pod would start", blocked.source, blocked.at.line);
        problems.error("pause-blocked", &written.span, what, "name a pause image elsewhere, or take the [[blocked]] out");
    }
}
