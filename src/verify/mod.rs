//! Checks of a node, made from Resolutions. Pure.
//!
//! What lives here: what is looked at ([`images`]) and what each finding is called ([`checks`]); whether CAs arrived
//! ([`anchors`](fn@anchors::anchors)); which endpoints are tried and what came of it ([`online`]), whether a server is believed
//! ([`believe`]), whether mirrors are fresh ([`canary`]), what runtimes say of themselves ([`cri`]). What must not: effects, knowledge of a runtime or a file format: the
//! views answer.

pub mod anchors;
pub mod believe;
pub mod canary;
pub mod cri;
pub mod gate;
pub mod in_use;
pub mod online;
pub mod pause;
pub mod probe;
pub mod tokens;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::resolution::{End, Resolution, Verdict};
use crate::model::tree::Tree;
use crate::plan::proof::{asked, probe_images, stays_open};
use crate::runtime::{Dialect, FoundRuntime, Runtime, View, containerd};
use crate::spec::adopt::{Adopted, adopt};
use crate::spec::{Fallback, Spec, express, intent::intent};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Check {
    /// How it came out; failures first.
    pub result: Outcome,
    /// Which kind of check: `leak`, `meaning`, `file-broken`, `file-ignored`, `file-shadowed`, `registry`, `anchor`; online also
    /// `planned`, `activation`, `endpoint`, `manifest`, `canary`, `runtime`, `pull`.
    pub id: &'static str,
    /// What was looked at, in words.
    pub subject: String,
    /// What was found; empty when all is well.
    pub found: String,
    /// What to do; empty when all is well.
    pub help: String,
    /// The stages of a probe, where one was made.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<probe::Step>,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is not as it should be.
    Failed,
    /// It could not be looked at.
    CouldNotRun,
    /// It is not yet as it should be: only the node itself can do the rest, and it is recorded as due.
    Due,
    /// It is as it should be.
    Ok,
}

/// The images that show what a node does: those of the spec ([`probe_images`]), and one for each registry that has a file or
/// folder of its own on the node, ours or not.
#[must_use]
pub fn images(spec: Option<&Spec>, view: &View) -> Vec<ImageRef> {
    let names = view.names();
    let own = names.iter().filter_map(|name| ImageRef::parse(&format!("{name}/nodeprep/probe:1")).ok());
    let mut images: BTreeMap<String, ImageRef> = own.map(|image| (image.to_string(), image)).gathered();
    if let Some(spec) = spec {
        images.extend(probe_images(spec, &names).into_iter().map(|image| (image.to_string(), image)));
    }
    images.into_values().collect()
}

/// Every check of the files of `found`, read as each of their versions reads them: whether closed sources leak, whether what
/// is asked is what the spec means, and every file that is ignored, hidden or broken, whoever wrote it. Registries that fail
/// alike are told together, with the first as example, and so are versions for which the same is amiss.
#[must_use]
pub fn checks(spec: Option<&Spec>, tree: &Tree, found: &[FoundRuntime], adopted: &BTreeMap<NodePath, Adopted>) -> Vec<Check> {
    let mut checks = BTreeSet::new();
    for reader in found.iter().filter(|reader| reader.is_pulled_through(tree)) {
        // what was carried over counts for the one that it was found with
        let from = match reader.runtime {
            Runtime::Containerd => reader.config.clone(),
            Runtime::Crio | Runtime::Podman => crate::runtime::containers::adopted_from(),
        };
        let own = adopted.get(&from);
        let scoped = spec.map(|spec| spec.for_runtime(reader.runtime));
        let spec = scoped.as_deref();
        let whole = own.zip(spec).map(|(adopted, spec)| adopt(spec, adopted));
        let spec = whole.as_deref().or(spec);
        let dialects = reader.dialects(tree);
        let mut failed: BTreeMap<Failed, Vec<Dialect>> = BTreeMap::new();
        for &dialect in &dialects {
            let view = reader.view(tree, dialect);
            let mut used: BTreeSet<NodePath> = BTreeSet::new();
            let mut amiss: BTreeMap<NodePath, Verdict> = BTreeMap::new();
            let mut failures: BTreeMap<&'static str, Failure> = BTreeMap::new();
            for image in images(spec, &view) {
                let resolution = view.resolve(&image);
                for (id, found) in of_image(spec, dialect, &image, &resolution) {
                    match found {
                        None => drop(checks.insert(check(Outcome::Ok, id, format!("{}: {image}", reader.runtime), String::new(), ""))),
                        Some(found) => failures.entry(id).or_default().add(&image, found),
                    }
                }
                for file in resolution.files {
                    match file.verdict {
                        Verdict::Used => drop(used.insert(file.path)),
                        verdict => drop(amiss.insert(file.path, verdict)),
                    }
                }
            }
            let of_files = amiss.iter().filter(|(path, _)| !used.contains(*path));
            let of_files = of_files.filter_map(|(path, verdict)| of_file(reader, path, verdict));
            for one in failures.into_iter().map(|(id, failure)| failure.told(id)).chain(of_files) {
                failed.entry(one).or_default().push(dialect);
            }
        }
        checks.extend(failed.into_iter().map(|(failed, by)| failed.check(reader, &by, dialects.len())));
    }
    checks.into_iter().collect()
}

/// Registries that fail alike.
#[derive(Default)]
struct Failure {
    hosts: Vec<String>,
    example: String,
}

impl Failure {
    fn add(&mut self, image: &ImageRef, found: String) {
        let host = image.host.to_string();
        if self.hosts.is_empty() {
            self.example = found;
        }
        if !self.hosts.contains(&host) {
            self.hosts.push(host);
        }
    }

    fn told(self, id: &'static str) -> Failed {
        const SHOWN: usize = 3;
        let mut hosts = self.hosts[..SHOWN.min(self.hosts.len())].join(", ");
        if self.hosts.len() > SHOWN {
            hosts = format!("{hosts} and {} more", self.hosts.len() - SHOWN);
        }
        let (what, help) = match id {
            LEAK => (
                "a closed source is asked for elsewhere than at its endpoints",
                "run `nodeprep apply`; `nodeprep explain` shows which file says so",
            ),
            MEANING => ("images are not asked for as the spec says", "run `nodeprep plan` to see what differs"),
            _ => ("nothing can be pulled", "repair or remove the file that is named"),
        };
        Failed { id, what: format!("{what}: {hosts}"), found: self.example, help }
    }
}

/// What is amiss for some versions of a runtime.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Failed {
    id: &'static str,
    what: String,
    found: String,
    help: &'static str,
}

impl Failed {
    /// `by`: the versions, of as many that are looked at as `all`.
    fn check(self, reader: &FoundRuntime, by: &[Dialect], all: usize) -> Check {
        let names: Vec<&str> = by.iter().filter_map(|dialect| dialect.containerd()).map(containerd::Dialect::name).collect();
        let read = match names.as_slice() {
            [] => "any version".to_owned(),
            several if several.len() == all && all > 2 => "as any version".to_owned(),
            [first, rest @ ..] => {
                let rest = rest.iter().map(|name| format!(", {}", name.trim_start_matches("containerd ")));
                format!("as {first}{}", rest.collect::<String>())
            }
        };
        check(Outcome::Failed, self.id, format!("{} ({read}): {}", reader.runtime, self.what), self.found, self.help)
    }
}

const LEAK: &str = "leak";
const MEANING: &str = "meaning";
const REGISTRY: &str = "registry";

fn check(result: Outcome, id: &'static str, subject: String, found: String, help: &str) -> Check {
    Check { result, id, subject, found, help: help.to_owned(), steps: Vec::new() }
}

/// What there is to say about an image, `None` where all is well. What is said once is not said again in other words.
fn of_image(spec: Option<&Spec>, dialect: Dialect, image: &ImageRef, got: &Resolution) -> Vec<(&'static str, Option<String>)> {
    if let End::Broken(why) = &got.end {
        // a mirror may well be used under a name that this version cannot read in a reference
        let known = spec.is_some_and(|spec| express::unreadable(image, dialect) && spec.mirror_of(image).is_none());
        if known {
            return Vec::new();
        }
        // all endpoints are for references by digest: by tag nothing is to be had, as the spec says
        let closed = |spec: &&Spec| spec.covers(image) && !express::unreadable(image, dialect);
        let as_meant = spec.filter(closed).is_some_and(|spec| express::adapt(spec, intent(spec, image), dialect).key() == got.key());
        return if as_meant { vec![(REGISTRY, None), (MEANING, None)] } else { vec![(REGISTRY, Some(why.clone()))] };
    }
    let mut found = vec![(REGISTRY, None)];
    let Some(spec) = spec else { return found };
    if !spec.covers(image) {
        return found;
    }
    let mirror = spec.mirror_of(image);
    let asked = || format!("{image}: {}", asked(got));
    if let Some(mirror) = mirror.filter(|mirror| mirror.fallback == Fallback::Never) {
        let listed = |host: &Host| mirror.endpoints.iter().any(|endpoint| endpoint.host == *host);
        if !got.attempts.iter().all(|attempt| listed(&attempt.host)) {
            found.push((LEAK, Some(asked())));
            return found;
        }
        found.push((LEAK, None));
    }
    let meant = intent(spec, image);
    let closed = matches!(meant.end, End::Blocked(_)) && meant.key() == got.key();
    let open = stays_open(&meant, &express::adapt(spec, meant.clone(), dialect), got);
    let as_meant = closed || open || express::adapt(spec, meant, dialect).key() == got.key();
    found.push((MEANING, (!as_meant).then(asked)));
    found
}

fn of_file(reader: &FoundRuntime, path: &NodePath, verdict: &Verdict) -> Option<Failed> {
    let (id, what, found, help) = match verdict {
        Verdict::Used => return None,
        // it decides much else
        Verdict::Ignored(why) if *path == reader.config => {
            ("file-ignored", "leads to no hosts.toml", why.clone(), "set `config_path` in it to one folder, as `nodeprep apply` does")
        }
        Verdict::Shadowed(by) => ("file-shadowed", "has no effect", format!("{by} stands in front of it"), "remove one of the two"),
        Verdict::Ignored(why) => ("file-ignored", "has no effect", why.clone(), "repair it, or remove it so that nobody counts on it"),
        Verdict::Broken(why) => ("file-broken", "breaks every pull that looks at it", why.clone(), "repair or remove it"),
    };
    Some(Failed { id, what: format!("{path} {what}"), found, help })
}
