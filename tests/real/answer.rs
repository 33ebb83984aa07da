//! What a registry of our own answers when it is asked for an image: what docker-registry cannot be made to say.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::case::{self, Demand};
use crate::image::{self, TAG};
use crate::responder::{Answer, Answers, Ask};

const TOKEN: &str = "a-token";

/// The answers of a registry that demands what `demand` says, from `layout` once that is there.
pub fn answers(demand: &Demand, what: case::Answer, layout: &Arc<OnceLock<PathBuf>>) -> Arc<Answers> {
    let (demand, layout) = (demand.clone(), layout.clone());
    Arc::new(move |ask| answer(&demand, what, layout.get().map(PathBuf::as_path), ask))
}

fn answer(demand: &Demand, what: case::Answer, layout: Option<&Path>, ask: &Ask) -> Answer {
    match what {
        case::Answer::Html => Answer::status(200).body("text/html", "<!DOCTYPE html><title>Sign in</title>\n"),
        case::Answer::Status(status) if ask.path().len() > "/v2/".len() => Answer::status(status),
        case::Answer::NoDigest if ask.path().contains("/manifests/") => {
            if ask.method == "HEAD" {
                Answer::status(200).with("Content-Type", image::MANIFEST)
            } else {
                Answer::status(500)
            }
        }
        case::Answer::Token if ask.path() == "/token" => {
            let paid = demand.login.as_ref().is_none_or(|login| {
                ask.header("authorization").is_some_and(|value| value == format!("Basic {}", image::base64(login.as_bytes())))
            });
            if paid { Answer::status(200).body("application/json", format!("{{\"token\": \"{TOKEN}\"}}")) } else { Answer::status(401) }
        }
        case::Answer::Token if ask.header("authorization") != Some(&format!("Bearer {TOKEN}")) => {
            let realm = format!("{}://{}/token", ask.scheme, ask.host);
            Answer::status(401).with("WWW-Authenticate", format!("Bearer realm=\"{realm}\",service=\"real\""))
        }
        case::Answer::Header if ask.path() != "/v2/" && ask.header("x-team") != Some("a") => Answer::status(403),
        _ if ask.path() == "/v2/" => Answer::status(200).with("Docker-Distribution-Api-Version", "registry/2.0"),
        _ => layout.and_then(|layout| content(demand, Some(what), layout, ask.path())).unwrap_or_else(|| Answer::status(404)),
    }
}

/// What a registry gives out that holds what `demand` says.
pub fn content(demand: &Demand, what: Option<case::Answer>, layout: &Path, path: &str) -> Option<Answer> {
    let path = path.strip_prefix("/v2/")?;
    let (repository, kind, reference) = match path.rsplit_once("/manifests/") {
        Some((repository, reference)) => (repository, "manifest", reference),
        None => path.rsplit_once("/blobs/").map(|(repository, digest)| (repository, "blob", digest))?,
    };
    if !demand.holds.iter().any(|held| held == repository) || (kind == "blob" && what == Some(case::Answer::NoBlobs)) {
        return None;
    }
    let manifest = image::digest(layout)?;
    let digest = if kind == "manifest" && reference == TAG { &manifest } else { reference };
    if kind == "manifest" && digest != manifest {
        return None;
    }
    let bytes = fs::read(layout.join("blobs/sha256").join(digest.strip_prefix("sha256:")?)).ok()?;
    let media = if kind == "manifest" { image::MANIFEST } else { "application/octet-stream" };
    Some(Answer::status(200).with("Docker-Content-Digest", digest).body(media, bytes))
}
