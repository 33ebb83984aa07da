//! What `nodeprep explain` promised, held against what arrived: the first request for the manifest per host and path, in order.

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Failed, Trial};
use serde_json::Value;

use crate::case::{Answer, Demand};
use crate::image::TAG;
use crate::registry::{self, Request};
use crate::upstream;

/// What one runtime will ask for one image, as `explain` says, in order.
pub type Attempts = Vec<Attempt>;

/// The URL of a manifest, and whether it is asked for by the reference of the image; else what that leads to may be.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub url: String,
    pub resolves: bool,
}

/// The attempts of `runtime` for each image, in the order in which the images were asked about.
pub fn attempts(explained: &Value, runtime: &str, images: &[String]) -> Result<Vec<Attempts>> {
    let resolutions = explained["resolutions"].as_array().context("explain: no resolutions[]")?;
    let ours: Vec<&Value> = resolutions.iter().filter(|resolution| resolution["runtime"] == runtime).collect();
    ensure!(ours.len() == images.len(), "explain: {} resolutions for {runtime}, {} images were asked about", ours.len(), images.len());
    ours.iter()
        .map(|resolution| {
            let attempts = resolution["attempts"].as_array().context("explain: no attempts[]")?;
            let one = |attempt: &Value| {
                let url = attempt["url"].as_str().context("explain: an attempt without url")?.to_owned();
                Ok(Attempt { url, resolves: attempt["resolves"].as_bool().context("explain: an attempt without resolves")? })
            };
            attempts.iter().map(one).collect()
        })
        .collect()
}

/// What must be seen when the runtime keeps the promise.
#[derive(Debug, PartialEq, Eq)]
pub struct Expected {
    pub requests: Vec<String>,
    /// An upstream's turn comes.
    pub upstream: bool,
    /// A registry of the case gives the image.
    pub served: bool,
}

/// In what those who pull differ, besides what they ask.
#[derive(Clone, Copy)]
pub struct Asker {
    /// containerd looks for each layer at all endpoints, the containers/image family where the manifest came from. And a redirection that cannot be followed
    /// ends the former's search.
    pub layers_elsewhere: bool,
    /// Its credentials reach the place where tokens are issued.
    pub tokens: bool,
}

/// Walks the attempts as far as the first that answers. `filled`: the registries hold what the case says; otherwise nothing.
pub fn expect(attempts: &[Attempt], registries: &[Demand], asker: Asker, filled: bool) -> Result<Expected> {
    let mut expected = Expected { requests: Vec::new(), upstream: false, served: false };
    for (number, Attempt { url, .. }) in attempts.iter().enumerate().filter(|(_, attempt)| attempt.resolves) {
        let (scheme, authority, path) = split(url)?;
        let Some(registry) = registries.iter().find(|registry| registry.is(authority)) else {
            expected.upstream |= !upstream::nowhere(authority.split(':').next().unwrap_or_default());
            continue;
        };
        // A greeting in the wrong protocol does not reach the log either.
        if !registry.reachable() || registry.scheme() != scheme {
            continue;
        }
        let line = format!("{authority}{path}");
        if !expected.requests.contains(&line) {
            expected.requests.push(line);
        }
        let (repository, reference) = manifest(path).with_context(|| format!("explain: {url} is not the URL of a manifest"))?;
        let holds =
            filled && registry.holds.iter().any(|held| held == repository) && (reference == TAG || reference.starts_with("sha256:"));
        match registry.answer {
            Some(Answer::Html) => break,
            Some(Answer::Status(304) | Answer::NoDigest) if asker.layers_elsewhere => break,
            Some(Answer::Token) if registry.login.is_some() && !asker.tokens && !registry.by_config => {}
            Some(Answer::NoBlobs) if holds => {
                expected.served = asker.layers_elsewhere && expect(&attempts[number + 1..], registries, asker, filled)?.served;
                break;
            }
            Some(Answer::Token | Answer::Header | Answer::NoBlobs) | None if holds => {
                expected.served = true;
                break;
            }
            _ => {}
        }
    }
    Ok(expected)
}

/// The requests that decide where the image comes from: those for the manifest by the reference of the image, first per host and path. Whatever else was
/// asked (blobs, the manifest by its digest) has to have gone to one of the same hosts.
pub fn seen(requests: &[Request], image: &str, attempts: &[Attempt]) -> Result<Vec<String>> {
    let reference = image.split_once('@').map_or_else(|| image.rsplit_once(':').map_or(TAG, |(_, tag)| tag), |(_, digest)| digest);
    let mut seen: Vec<String> = Vec::new();
    for request in requests {
        let line = format!("{}{}", request.host, request.path);
        if manifest(&request.path).is_some_and(|(_, asked)| asked == reference) {
            if !seen.contains(&line) {
                seen.push(line);
            }
        } else {
            let allowed = attempts.iter().any(|attempt| split(&attempt.url).is_ok_and(|(_, authority, _)| authority == request.host));
            ensure!(allowed, "a request to a host that explain does not name: {line}");
        }
    }
    Ok(seen)
}

/// Scheme, authority and path; a query (containerd's `ns=`) is not part of the promise.
fn split(url: &str) -> Result<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://").with_context(|| format!("explain: {url} has no scheme"))?;
    let slash = rest.find('/').with_context(|| format!("explain: {url} has no path"))?;
    let (authority, path) = rest.split_at(slash);
    Ok((scheme, authority, path.split_once('?').map_or(path, |(path, _)| path)))
}

/// Repository and reference of a manifest's path.
fn manifest(path: &str) -> Option<(&str, &str)> {
    path.strip_prefix("/v2/")?.rsplit_once("/manifests/")
}

/// The judge is tested too: it must not find promises kept because it reads nothing.
pub fn trials() -> Vec<Trial> {
    let url = |host: &str| Attempt { url: format!("https://{host}/v2/docker.io/library/hello/manifests/1"), resolves: true };
    let demand = |listen: &str, holds: &[&str], dead: bool| Demand {
        listen: listen.to_owned(),
        holds: holds.iter().map(|&held| held.to_owned()).collect(),
        dead,
        ..Demand::default()
    };
    let asker = Asker { layers_elsewhere: true, tokens: true };
    let check = |right: bool, what: &str| if right { Ok(()) } else { Err(Failed::from(what.to_owned())) };
    let world = move || {
        [
            demand("127.0.0.2:5443", &[], false),
            demand("127.0.0.3:5443", &["docker.io/library/hello"], false),
            demand("127.0.0.4:5443", &[], true),
        ]
    };
    let chain = move || ["127.0.0.4:5443", "127.0.0.2:5443", "127.0.0.3:5443", "registry-1.docker.io"].map(url).to_vec();
    vec![
        Trial::test("judge::ends_at_the_first_that_answers", move || {
            let expected = expect(&chain(), &world(), asker, true).map_err(|error| error.to_string())?;
            check(expected.requests.len() == 2 && expected.served && !expected.upstream, &format!("{expected:?}"))
        }),
        Trial::test("judge::goes_on_to_the_end_when_none_answers", move || {
            let expected = expect(&chain(), &world(), asker, false).map_err(|error| error.to_string())?;
            check(expected.requests.len() == 2 && !expected.served && expected.upstream, &format!("{expected:?}"))
        }),
        Trial::test("judge::reads_the_log", move || {
            let line = r#"time="2026-01-02T03:04:05.5Z" level=debug msg="authorizing request" http.request.host="127.0.0.2:5443" http.request.uri="/v2/a/b/manifests/1?ns=docker.io" vars.name=a/b"#;
            let read = registry::arrival(line).map_err(|error| error.to_string())?.ok_or("the line was not understood")?;
            check(
                read.time == "2026-01-02T03:04:05.500000000" && read.host == "127.0.0.2:5443" && read.path == "/v2/a/b/manifests/1",
                &format!("{read:?}"),
            )
        }),
        Trial::test("judge::refuses_a_host_that_was_not_named", move || {
            let blob = Request { time: String::new(), host: "127.0.0.9:5443".to_owned(), path: "/v2/a/blobs/sha256:0".to_owned() };
            check(seen(&[blob], "docker.io/library/hello:1", &chain()).is_err(), "a blob from elsewhere was accepted")
        }),
    ]
}
