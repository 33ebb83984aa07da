//! What CRI-O or Podman asks for an image, with the files as they are (`runtime-semantics.md` 2.3, 2.4, 2.7).

use std::collections::{BTreeMap, BTreeSet};

use super::files::{self, Loaded};
use super::logins::{self, Logins};
use crate::format::auth_json::Login;
use crate::format::certs_d::{self, Certs};
use crate::format::registries_conf::{DROP_IN, ShortNames, Source};
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::resolution::{Attempt, Auth, End, FileVerdict, Ops, Resolution, Trust, Verdict};
use crate::model::tree::Tree;
use crate::model::version::Version;
use crate::runtime::{FoundRuntime, Runtime};

/// registries.conf, certs.d and auth files as one runtime reads them.
#[derive(Debug)]
pub struct View {
    loaded: Box<Loaded>,
    short_names: ShortNames,
    /// Every folder of certs.d, by the name that it has.
    certs: BTreeMap<String, Result<Certs, (NodePath, String)>>,
    logins: Logins,
}

/// One reference, answered.
struct Answer {
    attempts: Vec<Attempt>,
    end: End,
}

impl View {
    /// Reads them from the tree, once for many images.
    #[must_use]
    pub fn new(tree: &Tree, on: &FoundRuntime) -> Self {
        let home = files::home(on);
        let loaded = Box::new(files::load(tree, &files::places(tree, on)));
        let names = certs_d::roots(&home).into_iter().flat_map(|root| tree.names(&root));
        let hosts = names.filter_map(|name| Host::from_reference(&name).ok());
        let certs = hosts.map(|host| (host.to_string(), certs_d::read(tree, &home, &host))).gathered();
        let short_names = short_names(tree, on, loaded.conf.short_name_mode);
        Self { loaded, short_names, certs, logins: Logins::read(tree, &logins::consulted(tree, on)) }
    }

    /// Every prefix of the merged configuration that names repositories, and every host with certificates. For `*.domain` stands
    /// a registry below it that nobody names; not for ours, which may be a thousand and are in the spec.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let prefixes = self.loaded.conf.registries.values().filter_map(|entry| match entry.prefix.strip_prefix("*.") {
            Some(_) if entry.at.file.ends_with(&format!("/{DROP_IN}")) => None,
            Some(domain) => Some(format!("nodeprep-probe.{domain}")),
            None => Some(entry.prefix.clone()),
        });
        prefixes.chain(self.certs.keys().cloned()).gathered::<BTreeSet<String>>().into_iter().collect()
    }

    /// What is asked for `image`, in order, and what happens after the last request. `Broken` when nothing is asked: invalid
    /// configuration, a rewriting that gives no valid reference, a short name without anywhere to look.
    #[must_use]
    pub fn resolve(&self, image: &ImageRef) -> Resolution {
        let mut files = self.loaded.files.clone();
        let answer = match &self.loaded.broken {
            Some(invalid) => Answer { attempts: Vec::new(), end: End::Broken(invalid.to_string()) },
            None => self.answer(image, &mut files),
        };
        Resolution { image: image.clone(), attempts: answer.attempts, end: answer.end, files }
    }

    fn answer(&self, image: &ImageRef, files: &mut Vec<FileVerdict>) -> Answer {
        let candidates = match self.candidates(image) {
            Ok(candidates) => candidates,
            Err(why) => return Answer { attempts: Vec::new(), end: End::Broken(why) },
        };
        let mut whole = Answer { attempts: Vec::new(), end: End::Exhausted };
        for candidate in &candidates {
            let next = self.pull(candidate, files);
            whole.attempts.extend(next.attempts);
            whole.end = next.end;
        }
        if !whole.attempts.is_empty() && matches!(whole.end, End::Broken(_)) {
            whole.end = End::Exhausted;
        }
        whole
    }

    /// The full names that a name stands for: itself, or by alias, or on each search registry.
    fn candidates(&self, image: &ImageRef) -> Result<Vec<ImageRef>, String> {
        if image.host.is_ipv6() {
            return Err(format!("{}: references to IPv6 addresses cannot be read", image.written));
        }
        if !image.short {
            return Ok(vec![image.clone()]);
        }
        let name = bare(&image.written);
        let rest = &image.written[name.len()..];
        let read = |text: String| ImageRef::parse(&text).map_err(|error| error.to_string());
        if let Some(full) = self.loaded.conf.aliases.get(name).filter(|full| !full.is_empty()) {
            return Ok(vec![read(format!("{full}{rest}"))?]);
        }
        let search = self.loaded.conf.search.as_deref().unwrap_or_default();
        match (search.len(), self.short_names) {
            (0, _) => Err(format!("short name {name:?} is no alias, and there are no unqualified-search-registries")),
            (2.., ShortNames::Enforcing) => {
                Err(format!("short name {name:?} is ambiguous: {} search registries, and short-name-mode is enforcing", search.len()))
            }
            _ => search.iter().map(|host| read(format!("{host}/{}", image.written))).collect(),
        }
    }

    fn pull(&self, image: &ImageRef, files: &mut Vec<FileVerdict>) -> Answer {
        let mut answer = Answer { attempts: Vec::new(), end: End::Exhausted };
        let entry = self.loaded.conf.find(&image.name());
        let sources = match entry.map_or_else(|| Ok(Vec::new()), |entry| entry.sources(image)) {
            Ok(sources) => sources,
            Err(why) => return Answer { end: End::Broken(format!("the reference cannot be rewritten: {why}")), ..answer },
        };
        let mut unusable = None;
        if entry.is_none() {
            self.ask(image, image, None, &mut answer, &mut unusable, files);
        }
        for source in &sources {
            // an entry that blocks counts for what is really asked, whatever name led there (R19, R20)
            match self.loaded.conf.find(&source.image.name()).filter(|entry| entry.blocked) {
                Some(entry) if source.mirror => {
                    unusable.get_or_insert(format!("mirror {} is blocked at {}", source.image.name(), entry.at));
                }
                Some(entry) => answer.end = End::Blocked(format!("{} is blocked at {}", entry.prefix, entry.at)),
                None => self.ask(image, &source.image, Some(source), &mut answer, &mut unusable, files),
            }
        }
        if answer.attempts.is_empty()
            && answer.end == End::Exhausted
            && let Some(why) = unusable
        {
            answer.end = End::Broken(why);
        }
        answer
    }

    /// The request for one physical reference; with `insecure` two of them.
    fn ask(
        &self,
        image: &ImageRef,
        physical: &ImageRef,
        source: Option<&Source>,
        answer: &mut Answer,
        unusable: &mut Option<String>,
        files: &mut Vec<FileVerdict>,
    ) {
        let none = Ok(Certs::default());
        let certs = match self.certs.get(physical.host.as_str()).unwrap_or(&none) {
            Ok(certs) => certs,
            Err((file, why)) => {
                note(files, file, Verdict::Broken(why.clone()));
                unusable.get_or_insert(format!("{file} {why}"));
                return;
            }
        };
        if let Some(folder) = &certs.folder {
            note(files, folder, Verdict::Used);
            certs.hidden.iter().for_each(|hidden| note(files, hidden, Verdict::Shadowed(folder.clone())));
        }
        let auth = match self.auth(physical, files) {
            Ok(auth) => auth,
            Err(why) => {
                unusable.get_or_insert(why);
                return;
            }
        };
        let attempt = |scheme, trust, client| Attempt {
            scheme,
            host: physical.host.api(),
            api_root: "/v2".to_owned(),
            repo: physical.repo.clone(),
            ops: Ops::PULL,
            upstream: physical.host.api() == image.host.api(),
            trust,
            client,
            auth: auth.clone(),
            header: Vec::new(),
            timeout: None,
            from: source.map(|source| source.at.clone()),
        };
        if source.is_some_and(|source| source.insecure) {
            answer.attempts.push(attempt(Scheme::Https, Trust::Unverified, certs.client));
            answer.attempts.push(attempt(Scheme::Http, Trust::Plain, None));
        } else {
            answer.attempts.push(attempt(Scheme::Https, Trust::Verified { extra: certs.ca.clone() }, certs.client));
        }
    }

    fn auth(&self, physical: &ImageRef, files: &mut Vec<FileVerdict>) -> Result<Auth, String> {
        let helpers = self.loaded.conf.credential_helpers.as_deref().unwrap_or_default();
        if let Some(helper) = helpers.first()
            && !helpers.iter().any(|helper| helper == "containers-auth.json")
        {
            return Ok(Auth::Other(format!("credential helper {helper}")));
        }
        match self.logins.find(&physical.host, physical.repo.as_str()) {
            Ok(None) => Ok(Auth::None),
            Ok(Some((file, login))) => {
                note(files, file, Verdict::Used);
                Ok(match login {
                    Login::Basic(basic) => Auth::Basic(basic),
                    Login::Other(what) => Auth::Other(what),
                })
            }
            Err((file, why)) => {
                note(files, file, Verdict::Broken(why.to_owned()));
                Err(format!("auth file {file} {why}"))
            }
        }
    }
}

fn note(files: &mut Vec<FileVerdict>, path: &NodePath, verdict: Verdict) {
    if !files.iter().any(|file| file.path == *path) {
        files.push(FileVerdict { path: path.clone(), verdict });
    }
}

/// A written name without tag and digest.
fn bare(written: &str) -> &str {
    let name = written.split('@').next().unwrap_or(written);
    match name.rsplit_once(':') {
        Some((head, tag)) if !tag.contains('/') => head,
        _ => name,
    }
}

/// CRI-O sets the mode itself, whatever registries.conf says: 1.34 and later by `short_name_mode` (default `enforcing`),
/// earlier ones always `disabled`, which is also assumed where the version is not known: it asks more hosts.
fn short_names(tree: &Tree, on: &FoundRuntime, configured: Option<ShortNames>) -> ShortNames {
    if on.runtime != Runtime::Crio {
        return configured.unwrap_or(ShortNames::Permissive);
    }
    let version = on.running.as_ref().and_then(|running| running.version).or(on.installed);
    if version.is_none_or(|version| version < Version(1, 34, 0)) {
        return ShortNames::Disabled;
    }
    match files::crio_image(tree, on).short_name_mode.as_deref() {
        Some("disabled") => ShortNames::Disabled,
        _ => ShortNames::Enforcing,
    }
}
