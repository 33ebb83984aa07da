//! What runtimes ask for an image, for people and scripts.

use std::fmt::Write as _;

use serde::Serialize;

use super::problems::escape;
use super::style::Style;
use crate::model::digest::Digest;
use crate::model::host::{HUB, HUB_API};
use crate::model::image::ImageRef;
use crate::model::place::Place;
use crate::model::resolution::{Attempt, Auth, End, FileVerdict, Resolution, Trust, Verdict};
use crate::runtime::{Dialect, FoundRuntime, Runtime};

/// What one runtime asks for one image.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Which runtime.
    pub runtime: Runtime,
    /// How its files were read: the version that runs or is installed, or the versions that read them alike.
    pub reads: String,
    /// The image, normalised.
    pub image: ImageRef,
    /// In the order in which they are made.
    pub attempts: Vec<AnswerAttempt>,
    /// What comes after the last.
    pub end: End,
    /// Whether a pull may end at the image's own registry.
    pub reaches_upstream: bool,
    /// The files that were looked at.
    pub files: Vec<FileVerdict>,
}

/// One attempt, with the URL of its first request.
#[derive(Debug, Serialize)]
pub struct AnswerAttempt {
    /// Where the manifest is asked for.
    pub url: String,
    /// The image's own registry rather than a mirror.
    pub upstream: bool,
    /// Asked for tags and manifests; without it only for layers.
    pub resolves: bool,
    /// How the certificate is checked.
    pub trust: Trust,
    /// Fingerprint of the client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// `none`, `basic`, or what else.
    pub auth: Auth,
    /// Names of other headers that are sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub header: Vec<String>,
    /// The line that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Place>,
}

impl Answer {
    /// From a resolution.
    #[must_use]
    pub fn new(reader: &FoundRuntime, reads: String, resolution: &Resolution) -> Self {
        Self {
            runtime: reader.runtime,
            reads,
            image: resolution.image.clone(),
            attempts: resolution.attempts.iter().map(|attempt| AnswerAttempt::new(attempt, &resolution.image)).collect(),
            end: resolution.end.clone(),
            reaches_upstream: resolution.reaches_upstream(),
            files: resolution.files.clone(),
        }
    }
}

impl AnswerAttempt {
    fn new(attempt: &Attempt, image: &ImageRef) -> Self {
        Self {
            url: attempt.manifest_url(image),
            upstream: attempt.upstream,
            resolves: attempt.ops.resolve,
            trust: attempt.trust.clone(),
            client: attempt.client.map(|fingerprint| fingerprint.to_string()),
            auth: attempt.auth.clone(),
            header: attempt.header.iter().map(|(name, _)| name.clone()).collect(),
            from: attempt.from.clone(),
        }
    }
}

/// How a runtime's files are read, in words.
#[must_use]
pub fn reads(reader: &FoundRuntime, dialect: Dialect) -> String {
    let running = reader.running.as_ref().and_then(|process| process.version);
    match (running, reader.installed, dialect) {
        (Some(version), _, _) | (None, Some(version), _) => version.to_string(),
        (None, None, dialect) => dialect.to_string(),
    }
}

/// The answers as text, grouped by image; runtimes that ask the same are shown together.
#[must_use]
pub fn text(answers: &[Answer], style: Style) -> String {
    let mut out = String::new();
    let mut shown: Option<&ImageRef> = None;
    for answer in answers {
        if shown != Some(&answer.image) {
            if shown.is_some() {
                out.push('\n');
            }
            let _ = writeln!(out, "{}", style.bold(&answer.image.to_string()));
            shown = Some(&answer.image);
        }
        let _ = writeln!(out, "  {} {}", style.bold(answer.runtime.name()), answer.reads);
        for (number, attempt) in answer.attempts.iter().enumerate() {
            let _ = writeln!(out, "    {}. {}", number + 1, escape(&attempt.url));
            let _ = writeln!(out, "       {}", style.dim(&escape(&facts(attempt))));
        }
        let _ = writeln!(out, "    {}", ending(answer, style));
        for file in &answer.files {
            if let Some(line) = verdict(file) {
                let _ = writeln!(out, "    {}", style.yellow(&escape(&line)));
            }
        }
    }
    out
}

fn facts(attempt: &AnswerAttempt) -> String {
    let mut facts = vec![match &attempt.trust {
        Trust::Plain => "plain HTTP".to_owned(),
        Trust::Unverified => "TLS, certificate not verified".to_owned(),
        Trust::Verified { extra } if extra.is_empty() => "TLS verified by the OS trust store".to_owned(),
        Trust::Verified { extra } => {
            let names: Vec<String> = extra.iter().map(Digest::short).collect();
            format!("TLS verified by the OS trust store and {} ({})", plural(extra.len(), "own CA"), names.join(", "))
        }
    }];
    if let Some(client) = &attempt.client {
        facts.push(format!("client certificate {}", client.get(..12).unwrap_or(client)));
    }
    match &attempt.auth {
        Auth::None => {}
        Auth::Basic(_) => facts.push("login: basic".to_owned()),
        Auth::Other(what) => facts.push(format!("login: {what}")),
    }
    if !attempt.header.is_empty() {
        facts.push(format!("header {}", attempt.header.join(", ")));
    }
    if !attempt.resolves {
        facts.push("not asked for tags".to_owned());
    }
    match &attempt.from {
        Some(place) => facts.push(place.to_string()),
        None => facts.push("built-in default".to_owned()),
    }
    facts.join("; ")
}

fn host(attempt: &AnswerAttempt) -> Option<&str> {
    attempt.url.split('/').nth(2).map(|host| if host == HUB_API { HUB } else { host })
}

fn ending(answer: &Answer, style: Style) -> String {
    // a name without registry may be looked for in several
    let asked = answer.attempts.iter().filter(|attempt| attempt.upstream && answer.image.short).filter_map(host);
    let asked: Vec<&str> = asked.collect();
    let own = if asked.is_empty() { answer.image.host.to_string() } else { asked.join(", ") };
    match &answer.end {
        End::Broken(why) => style.red(&escape(&format!("nothing can be pulled: {why}"))),
        End::Blocked(why) if answer.attempts.is_empty() => style.green(&escape(&format!("nothing is asked: {why}"))),
        _ if answer.attempts.iter().all(|attempt| attempt.upstream) => style.dim(&format!("{own} itself; no mirror")),
        _ if answer.reaches_upstream => style.yellow(&format!("falls through to {own} when no mirror answers")),
        End::Blocked(why) => style.green(&escape(&format!("never asks {own}: {why}"))),
        End::Exhausted => style.green(&format!("never asks {own}")),
    }
}

fn verdict(file: &FileVerdict) -> Option<String> {
    match &file.verdict {
        Verdict::Used => None,
        Verdict::Shadowed(by) => Some(format!("{} has no effect: {by} stands in front of it", file.path)),
        Verdict::Ignored(why) => Some(format!("{} is ignored: {why}", file.path)),
        Verdict::Broken(why) => Some(format!("{} breaks every such pull: {why}", file.path)),
    }
}

/// `1 own CA`, `2 own CAs`.
#[must_use]
pub fn plural(count: usize, noun: &str) -> String {
    if count == 1 { format!("1 {noun}") } else { format!("{count} {noun}s") }
}
