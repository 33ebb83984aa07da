//! What is written → [`Spec`], with everything that is wrong with it.
//!
//! What lives here: one file per concern. What must not: the notation (`document`), what a runtime can do (`express`).

mod access;
mod blocked;
mod ca;
mod canary;
mod client;
mod closing;
mod credentials;
mod endpoint;
mod mirror;
mod name;
mod pem;
mod pin;
mod registry;

use std::collections::{BTreeMap, BTreeSet};

use super::decode::{At, Raw};
use super::nearest::nearest;
use super::problems::Problems;
use super::reference::{Location, Reference};
use super::requires::Requirement;
use super::{DEFAULT_NAME, Fallback, Pause, Serial, Spec};
use crate::model::digest::Digest;
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::time::Time;
use crate::runtime::Runtime;

pub(super) use name::canonical;

/// What is checked for as "soon".
const SOON_DAYS: i64 = 30;

/// The content of referenced files.
pub struct Materials<'a> {
    given: &'a BTreeMap<String, Result<Vec<u8>, String>>,
    accepted: BTreeMap<&'a str, &'a Location>,
    told: BTreeSet<String>,
    unread: BTreeSet<String>,
}

impl std::fmt::Debug for Materials<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.given.keys()).finish()
    }
}

impl<'a> Materials<'a> {
    /// What was read for these references.
    #[must_use]
    pub fn new(given: &'a BTreeMap<String, Result<Vec<u8>, String>>, references: &'a [Reference]) -> Self {
        let accepted = references.iter().map(|reference| (reference.written.as_str(), &reference.location)).gathered();
        Self { given, accepted, told: BTreeSet::new(), unread: BTreeSet::new() }
    }

    /// The references on the node that nobody looked at.
    #[must_use]
    pub fn unread(&self) -> Vec<String> {
        self.unread.iter().cloned().collect()
    }

    /// The bytes of a reference. Why there are none is reported once for each file.
    fn get(&mut self, reference: &At<String>, problems: &mut Problems<'_>) -> Option<&'a [u8]> {
        let location = *self.accepted.get(reference.value.as_str())?;
        let why = match (self.given.get(&reference.value), location) {
            (Some(Ok(bytes)), _) => return Some(bytes),
            (Some(Err(why)), _) => why.as_str(),
            (None, Location::Node(path)) => {
                if self.unread.insert(reference.value.clone()) {
                    let what = format!("{path} is on the node and was not looked at here");
                    problems.note("reference-on-node", &reference.span, what, "run `nodeprep plan` on the node to check it");
                }
                return None;
            }
            (None, Location::Beside(_) | Location::Url(_)) => "it was not read",
        };
        if self.told.insert(reference.value.clone()) {
            let help = match location {
                Location::Beside(_) => "put the file beside the document, readable for nodeprep, or correct the reference",
                Location::Node(_) => "put the file on the node, or correct the reference",
                Location::Url(_) => "put the file beside the document and write its name, or serve the document from there",
            };
            problems.error("reference-unreadable", &reference.span, format!("{:?} cannot be read: {why}", reference.value), help);
        }
        None
    }
}

/// Everything that is wrong with what is written; the spec, without its digest, which means something only when no error was
/// found.
pub fn validate(raw: &Raw, materials: &mut Materials<'_>, now: Option<Time>, problems: &mut Problems<'_>) -> Spec {
    if let Some(version) = raw.version.as_ref().filter(|version| version.value != 1) {
        let what = format!("version {} of the spec is not known to this nodeprep", version.value);
        problems.error("unsupported-version", &version.span, what, "write `version = 1`");
    }
    if let Some(requires) = raw.requires.as_ref().filter(|requires| Requirement::parse(&requires.value).is_none()) {
        let what = format!("\"{}\" says no version of nodeprep", super::decode::short(&requires.value));
        problems.error("bad-value", &requires.span, what, "write `requires = \">=0.4\"`: a sign (>=, >, <=, <, =) and up to three numbers");
    }
    let spec_name = spec_name(raw, problems);
    let serial = raw.serial.as_ref().and_then(|serial| {
        let number = u64::try_from(serial.value).ok().filter(|number| *number > 0);
        if number.is_none() {
            let what = format!("`serial = {}` counts nothing", serial.value);
            problems.error("bad-value", &serial.span, what, "write a number above 0, larger than that of every earlier document");
        }
        number
    });
    let runtimes = raw.runtimes.as_ref().map(|names| runtimes(names, problems));
    let cas = ca::check(raw, materials, now, problems);
    let mirrors = mirror::check(raw, runtimes.as_deref(), problems);
    let pause = pause(raw, problems);
    let registries = registry::check(raw, &cas, materials, now, problems);
    let access = access::build(raw, &cas, &mirrors, registries, pause.as_ref(), problems);
    pin::check(raw, materials, problems);
    pull_secrets(&mirrors, runtimes.as_deref(), problems);
    let blocked = blocked::check(raw, &mirrors, problems);
    let mirrors = mirrors.into_iter().map(|checked| checked.mirror).chain(blocked).collect();
    let mut spec = Spec {
        file: problems.text().file().clone(),
        digest: Digest::of(b""),
        references: Vec::new(),
        name: spec_name,
        serial: serial.map(|number| Serial { number, documents: Digest::of(b"") }),
        fallback: raw.fallback.as_ref().map_or(Fallback::Never, |word| word.value),
        unlisted: raw.unlisted.unwrap_or_default(),
        runtimes,
        cas: cas.list,
        access: access.by_host,
        default_access: access.default,
        mirrors,
        pause,
        search: closing::search(raw, problems),
        deny_domains: closing::domains(raw, problems),
        canaries: Vec::new(),
        passing: access.passing,
        exact: BTreeSet::new(),
        names: crate::spec::Names::default(),
    };
    closing::judge(&spec, raw, problems);
    blocked::pause(&spec, spec.pause.as_ref(), raw, problems);
    spec.canaries = canary::check(raw, &spec, problems);
    spec
}

fn spec_name(raw: &Raw, problems: &mut Problems<'_>) -> String {
    let Some(name) = &raw.name else { return DEFAULT_NAME.to_owned() };
    let good = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let text = name.value.as_str();
    if text.is_empty() || text.len() > 63 || !text.bytes().all(good) || text.starts_with('-') || text.ends_with('-') {
        let what = format!("\"{}\" is no name for a spec", super::decode::short(text));
        let help = "use small letters, digits and `-`, at most 63, with a letter or digit at both ends";
        problems.error("bad-name", &name.span, what, help);
    }
    name.value.clone()
}

/// The runtimes of a list.
fn runtimes(names: &At<Vec<At<String>>>, problems: &mut Problems<'_>) -> Vec<Runtime> {
    let known = || Runtime::ALL.into_iter().map(Runtime::name);
    if names.value.is_empty() {
        problems.error("bad-runtimes", &names.span, "`runtimes` names none", "name at least one, or take the key out");
    }
    let mut found = Vec::new();
    for name in &names.value {
        match Runtime::from_name(&name.value) {
            Some(runtime) if found.contains(&runtime) => {
                problems.error("bad-runtimes", &name.span, format!("`runtimes` names {runtime} twice"), "take one of them out");
            }
            Some(runtime) => found.push(runtime),
            None => {
                let help = match name.value.to_lowercase().as_str() {
                    "cri-o" => "write \"crio\"".to_owned(),
                    "buildah" | "skopeo" => "write \"podman\": it stands for Buildah and Skopeo too".to_owned(),
                    other => nearest(other, known())
                        .map_or_else(|| format!("use {}", known().collect::<Vec<_>>().join(", ")), |near| format!("write \"{near}\"")),
                };
                let what = format!("\"{}\" is no runtime that nodeprep knows", super::decode::short(&name.value));
                problems.error("bad-runtimes", &name.span, what, help);
            }
        }
    }
    found
}

fn pause(raw: &Raw, problems: &mut Problems<'_>) -> Option<Pause> {
    let written = raw.pause_image.as_ref()?;
    if name::secret(written, problems) {
        return None;
    }
    let image = match ImageRef::parse(&written.value) {
        Ok(image) => image,
        Err(error) => {
            problems.error("invalid-image", &written.span, error.to_string(), "write `registry/repository:tag`");
            return None;
        }
    };
    if image.short {
        let what = format!("pause image {:?} names no registry", written.value);
        problems.error("invalid-image", &written.span, what, "write the registry in front, as in `registry.k8s.io/pause:3.10`");
        return None;
    }
    let host = image.host.as_str();
    if host.bytes().any(|byte| byte.is_ascii_uppercase()) {
        let help = format!("write `{}`: runtimes compare hosts letter by letter", host.to_lowercase());
        problems.error("invalid-image", &written.span, format!("pause image: host {host:?} has capitals"), help);
        return None;
    }
    let name = written.value.rsplit('/').next().unwrap_or_default();
    if !name.contains([':', '@']) {
        let what = format!("pause image {:?} has neither tag nor digest: it is whatever :latest is", written.value);
        problems.warning("pause-image-floats", &written.span, what, "add the tag that your Kubernetes release uses");
    }
    Some(Pause { image, at: problems.text().place(written.span.start), held: BTreeMap::new() })
}

/// Told once for each document.
fn pull_secrets(mirrors: &[mirror::Checked], runtimes: Option<&[Runtime]>, problems: &mut Problems<'_>) {
    let for_containerd = |checked: &&mirror::Checked| {
        let only = checked.mirror.runtimes.as_ref();
        only.is_none_or(|only| only.contains(&Runtime::Containerd))
    };
    if let Some(first) = mirrors.iter().find(for_containerd)
        && runtimes.is_none_or(|runtimes| runtimes.contains(&Runtime::Containerd))
    {
        let what = "containerd offers the pull secrets of an image's registry to its mirrors too";
        let help = "make sure that whoever runs the mirrors may see them; with `credentials` for a mirror, do not use pull secrets for its sources";
        problems.note("pull-secrets-reach-mirrors", &first.at, what, help);
    }
}
