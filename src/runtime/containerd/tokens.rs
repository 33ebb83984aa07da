//! Logins that would get lost: before 2.1, containerd sends a header of hosts.toml to the registry, but not to where its tokens
//! are issued (`runtime-semantics.md` 1.7; seen on 1.6.20, 1.7.24 and 2.1.9). Which registries want tokens only asking tells.

use std::collections::BTreeMap;

use super::{Dialect, View};
use crate::desired::{Part, Refusal};
use crate::model::challenge::Challenge;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::problem::Problem;
use crate::model::resolution::Auth;
use crate::model::tree::Tree;
use crate::plan::build::overlay;
use crate::runtime::FoundRuntime;
use crate::spec::{LoginBy, Spec};

/// What registries said when they were asked which login they want.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// By host, as the spec names it; or why there is no answer.
    pub of: BTreeMap<Host, Result<Challenge, String>>,
    /// Why nobody was asked, where that is so.
    pub unasked: Option<&'static str>,
    /// No answer is a refusal.
    pub required: bool,
}

/// The hosts whose login this containerd gets as a header, if a version of it may lose it.
#[must_use]
pub fn concerned<'a>(spec: &'a Spec, dialects: &[Dialect]) -> Vec<&'a Host> {
    if dialects.iter().all(|dialect| dialect.transfers()) {
        return Vec::new();
    }
    let by_header = spec.access.iter().filter(|(_, access)| access.login.as_ref().is_some_and(|login| login.by == LoginBy::Header));
    by_header.map(|(host, _)| host).collect()
}

/// Refuses the part where a login would get lost, and warns where that could not be told. What is on the node already, in the
/// same place, loses nothing that is not lost now: without an answer that is no reason to refuse.
#[must_use]
pub fn judge(part: Part, spec: &Spec, found: &FoundRuntime, tree: &Tree, dialects: &[Dialect], answers: &Answers) -> Part {
    let hosts = concerned(spec, dialects);
    if hosts.is_empty() || part.refused.is_some() || part.wants.is_empty() {
        return part;
    }
    let after = overlay(tree, &part.wants);
    let views: Vec<(Dialect, View)> = dialects.iter().map(|dialect| (*dialect, View::new(&after, found, *dialect))).collect();
    let (mut lost, mut part) = (Vec::new(), part);
    for host in hosts {
        // one that stands in config.toml as well is not lost
        let Some((dialect, _)) = views.iter().find(|(_, view)| !view.reaches_tokens(&host.api())) else { continue };
        let at = spec.access(host).at.clone();
        let placed = |mut problem: Problem| {
            problem.at.clone_from(&at);
            problem
        };
        let as_now = || {
            let own = ImageRef::parse(&format!("{host}/nodeprep/probe:1")).ok();
            let basic = spec.access(host).login.as_ref().map(|login| Auth::Basic(login.basic.clone()));
            let view = View::new(tree, found, *dialect);
            let now = own.into_iter().flat_map(|image| view.resolve(&image).attempts).find(|attempt| attempt.upstream);
            now.is_some_and(|attempt| Some(attempt.auth) == basic) && !view.reaches_tokens(&host.api())
        };
        let answer = match (answers.of.get(host), answers.unasked) {
            (Some(answer), _) => answer.clone(),
            (None, Some(why)) => Err(why.to_owned()),
            // it is not the spec's: kept back with its host, or carried over, and where it was
            (None, None) if as_now() => continue,
            (None, None) => Err("it was not asked".to_owned()),
        };
        match answer {
            Ok(Challenge::Bearer { .. }) => {
                let what = format!("{host} wants tokens, and {} does not send the login to where they are issued", dialect.name());
                lost.push(placed(Problem::error("token-login", what, ACCEPT)));
            }
            Ok(Challenge::None | Challenge::Basic | Challenge::Other(_)) => {}
            Err(why) => {
                let what = format!(
                    "whether {host} wants tokens could not be checked ({why}); {} would not send the login to where they are issued",
                    dialect.name()
                );
                if answers.required && !as_now() {
                    lost.push(placed(Problem::error("token-login-unchecked", what, "let the registry answer, or give --probe=warn")));
                } else {
                    part.notes.push(placed(Problem::warning("token-login-unchecked", what, ASK)));
                }
            }
        }
    }
    if lost.is_empty() { part } else { part.refuse(Refusal::Cannot(lost)) }
}

const ACCEPT: &str = "upgrade to containerd 2.1, or accept a login in config.toml, which wants a restart: `credentials_by = \"config\"`";
const ASK: &str = "run `nodeprep verify` on the node; if it wants tokens, write `credentials_by = \"config\"` in its [[registry]]";
