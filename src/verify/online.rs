//! Checks that ask the world: which endpoints are tried and as whom, what came of it, whether the files are as planned. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::believe::Pool;
use super::probe::{Ask, Identity, Manifest, Seen, Stage, Step, Target, Trouble, Trusted};
use super::{Check, Outcome, check, images};
use crate::model::digest::Fingerprint;
use crate::model::endpoint::Scheme;
use crate::model::image::ImageRef;
use crate::model::keyring::Keyring;
use crate::model::resolution::{Attempt, Auth, Resolution, Trust};
use crate::model::secret::Secret;
use crate::model::tree::Tree;
use crate::plan::How;
use crate::plan::whole::{Planned, problems};
use crate::runtime::{FoundRuntime, Runtime, View, golang};
use crate::spec::Spec;

/// An endpoint that is tried.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// How it is reached; of several ways (TLS, then plain HTTP) the first that works counts.
    pub ways: Vec<Target>,
    /// Who reaches it so.
    pub readers: BTreeSet<Runtime>,
    /// Of those, a containerd that would not send its login to a token endpoint.
    loses_login: bool,
    key: Key,
}

/// Which trust store a daemon has, by its environment.
type Env = [(String, String)];

/// What decides that two attempts are one endpoint.
type Key = (
    Vec<(Scheme, Trust)>,
    crate::model::host::Host,
    Option<Fingerprint>,
    (Auth, Vec<(String, Secret)>),
    Vec<golang::Route>,
    Vec<String>,
    bool,
);

/// Every endpoint of every resolution, once for each way in which a daemon of the node reaches it. `roots`: a tree that holds
/// what [`golang::root_wishes`] asks for, for each of `found`. Manifests of `asked` are asked for wherever they may be, those of the spec's
/// canaries wherever copies are kept.
#[must_use]
pub fn endpoints(spec: Option<&Spec>, tree: &Tree, roots: &Tree, found: &[FoundRuntime], asked: &[ImageRef]) -> Vec<Endpoint> {
    endpoints_of(spec, tree, roots, found, asked, true, |_, _| true)
}

/// The same of the resolutions that count.
pub fn endpoints_of(
    spec: Option<&Spec>,
    tree: &Tree,
    roots: &Tree,
    found: &[FoundRuntime],
    asked: &[ImageRef],
    canaries: bool,
    counts: impl Fn(&FoundRuntime, &Resolution) -> bool,
) -> Vec<Endpoint> {
    let mut endpoints: BTreeMap<Key, Endpoint> = BTreeMap::new();
    let mut material = Material::new(tree, roots);
    for reader in found.iter().filter(|reader| reader.is_pulled_through(tree)) {
        let Some(dialect) = reader.dialects(tree).first().copied() else { continue };
        let view = reader.view(tree, dialect);
        // what is for others only is asked by nobody here
        let own = spec.map(|spec| spec.for_runtime(reader.runtime));
        let mut all: Vec<(ImageRef, Option<Ask>)> = images(own.as_deref(), &view).into_iter().map(|image| (image, None)).collect();
        all.extend(asked.iter().cloned().map(|image| (image, Some(Ask::There))));
        if let Some(own) = own.as_deref().filter(|_| canaries) {
            let here = own.canaries.iter().filter(|canary| own.mirror_of(&canary.image).is_some());
            all.extend(here.map(|canary| (canary.image.clone(), Some(if canary.max_age.is_some() { Ask::Age } else { Ask::Digest }))));
        }
        for (image, wanted) in all {
            let resolution = view.resolve(&image);
            if !counts(reader, &resolution) {
                continue;
            }
            let attempts = resolution.attempts;
            for ways in attempts.chunk_by(|one, next| one.host == next.host && one.repo == next.repo && one.api_root == next.api_root) {
                let Some(first) = ways.first() else { continue };
                let lost = first.auth != Auth::None && !view.reaches_tokens(&first.host);
                let routes = ways.iter().map(|way| golang::route(&reader.env, way.scheme, &way.host)).collect();
                let key = (
                    ways.iter().map(|way| (way.scheme, way.trust.clone())).collect(),
                    first.host.clone(),
                    first.client,
                    (first.auth.clone(), first.header.clone()),
                    routes,
                    store(&reader.env),
                    lost,
                );
                let endpoint = endpoints.entry(key.clone()).or_insert_with(|| Endpoint {
                    ways: ways.iter().map(|way| material.target(way, &reader.env)).collect(),
                    readers: BTreeSet::new(),
                    loses_login: lost,
                    key,
                });
                endpoint.readers.insert(reader.runtime);
                for (way, target) in ways.iter().zip(&mut endpoint.ways) {
                    // a canary is about copies
                    let Some(ask) = wanted.filter(|ask| *ask == Ask::There || !way.upstream) else { continue };
                    let manifest = manifest(&view, &image, way, ask);
                    if !target.manifests.contains(&manifest) {
                        target.manifests.push(manifest);
                    }
                }
            }
        }
    }
    endpoints.into_values().collect()
}

/// The variables that say which trust store a Go program has.
fn store(env: &Env) -> Vec<String> {
    let says = |name: &str| env.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone()).unwrap_or_default();
    vec![says("SSL_CERT_FILE"), says("SSL_CERT_DIR")]
}

fn manifest(view: &View, image: &ImageRef, way: &Attempt, ask: Ask) -> Manifest {
    let repo = format!("{}/{}", way.api_root.strip_prefix("/v2").unwrap_or(&way.api_root), way.repo).trim_start_matches('/').to_owned();
    let mut path = format!("{}/{}/manifests/{}", way.api_root, way.repo, image.reference());
    // containerd says whose image it is where it asks elsewhere (`runtime-semantics.md` 1.5)
    if matches!(view, View::Containerd(_)) && way.host != image.host && way.host != image.host.api() {
        path = format!("{path}?ns={}", image.host.as_str().replace(':', "%3A"));
    }
    Manifest { image: image.to_string(), path, repo, ask }
}

/// What a target is made of.
struct Material<'a> {
    roots: &'a Tree,
    keyring: Keyring,
    stores: BTreeMap<Vec<String>, Arc<Pool>>,
    pools: BTreeMap<(Vec<String>, BTreeSet<Fingerprint>), Arc<Pool>>,
}

impl<'a> Material<'a> {
    fn new(tree: &Tree, roots: &'a Tree) -> Self {
        Self { roots, keyring: Keyring::of(tree), stores: BTreeMap::new(), pools: BTreeMap::new() }
    }

    fn target(&mut self, way: &Attempt, env: &Env) -> Target {
        let trust = match &way.trust {
            Trust::Plain | Trust::Unverified => Trusted::Anybody,
            Trust::Verified { extra } => Trusted::By(self.pool(extra, env)),
        };
        let login = match &way.auth {
            Auth::Basic(login) => Some(login.clone()),
            Auth::None | Auth::Other(_) => None,
        };
        Target {
            scheme: way.scheme,
            host: way.host.clone(),
            trust,
            client: way.client.and_then(|leaf| self.keyring.identity(leaf)).map(|(chain, key)| Arc::new(Identity { chain, key })),
            login,
            header: if way.scheme == Scheme::Https { way.header.clone() } else { Vec::new() },
            more: matches!(way.auth, Auth::Other(_)) || (way.scheme == Scheme::Http && !way.header.is_empty()),
            route: golang::route(env, way.scheme, &way.host),
            manifests: Vec::new(),
        }
    }

    fn pool(&mut self, extra: &BTreeSet<Fingerprint>, env: &Env) -> Arc<Pool> {
        let name = store(env);
        let roots = self.roots;
        let base =
            self.stores.entry(name.clone()).or_insert_with(|| Arc::new(Pool::of(golang::roots(roots, env).iter().map(Vec::as_slice))));
        let keyring = &self.keyring;
        let added = || extra.iter().filter_map(|one| keyring.cert(one));
        let pool = self
            .pools
            .entry((name, extra.clone()))
            .or_insert_with(|| if extra.is_empty() { Arc::clone(base) } else { Arc::new(base.with(added())) });
        Arc::clone(pool)
    }
}

/// What came of the endpoints, `seen` in the order of all their ways.
#[must_use]
pub fn of_endpoints(endpoints: &[Endpoint], seen: &[Seen]) -> Vec<Check> {
    let mut checks = Vec::new();
    for (endpoint, seen) in each(endpoints, seen) {
        // what the one minds need not trouble the other
        let (one, others): (BTreeSet<_>, BTreeSet<_>) = endpoint.readers.iter().partition(|reader| **reader == Runtime::Containerd);
        let apart = [endpoint.found(&one, seen), endpoint.found(&others, seen)];
        match apart {
            [Some(one), Some(others)] if one.result != others.result => checks.extend([one, others]),
            _ => checks.extend(endpoint.found(&endpoint.readers, seen)),
        }
        checks.extend(endpoint.manifests(seen));
    }
    checks
}

/// Each endpoint with what was seen of its ways.
pub fn each<'a>(endpoints: &'a [Endpoint], seen: &'a [Seen]) -> impl Iterator<Item = (&'a Endpoint, &'a [Seen])> {
    endpoints.iter().scan(seen, |rest, endpoint| {
        let (own, others) = rest.split_at(endpoint.ways.len().min(rest.len()));
        *rest = others;
        Some((endpoint, own))
    })
}

/// Whether an endpoint answers in one of its ways, with the scheme, the host, and how long that took in milliseconds; manifests are none of
/// it. `None` where it was not tried.
#[must_use]
pub fn reached(endpoint: &Endpoint, seen: &[Seen]) -> Option<(String, String, bool, u64)> {
    let tried = || endpoint.ways.iter().zip(seen);
    let works = |seen: &Seen| seen.troubles.iter().all(|(stage, _)| *stage == Stage::Manifest);
    let (way, seen) = tried().find(|(_, seen)| works(seen)).or_else(|| tried().next())?;
    let took = seen.steps.iter().filter(|step| step.stage != Stage::Manifest).map(|step| step.took_ms).sum();
    Some((way.scheme.to_string(), way.host.to_string(), works(seen), took))
}

impl Endpoint {
    /// The host.
    #[must_use]
    pub fn host(&self) -> &crate::model::host::Host {
        &self.key.1
    }

    /// Whether the other one is asked the same in the same way, whoever asks.
    #[must_use]
    pub fn is_asked_as(&self, other: &Self) -> bool {
        let manifests = |endpoint: &Self| endpoint.ways.iter().map(|way| way.manifests.clone()).collect::<Vec<_>>();
        self.key == other.key && manifests(self) == manifests(other)
    }

    /// What came of it for these of its readers; `None` where there are none.
    #[must_use]
    pub fn found(&self, readers: &BTreeSet<Runtime>, seen: &[Seen]) -> Option<Check> {
        let (target, seen) = self.best(readers, seen).filter(|_| !readers.is_empty())?;
        let subject = subject(readers, target);
        let mut made = match self.trouble(readers, seen) {
            None => check(Outcome::Ok, "endpoint", subject, String::new(), ""),
            Some((stage, trouble)) => {
                check(outcome(readers, &trouble), "endpoint", subject, format!("{stage}: {}", trouble.what()), trouble.help())
            }
        };
        made.steps = seen.steps.iter().filter(|step| step.stage != Stage::Manifest).cloned().collect();
        Some(made)
    }

    /// What came of the manifests, a check for each image.
    fn manifests(&self, seen: &[Seen]) -> Vec<Check> {
        let Some((target, seen)) = self.best(&self.readers, seen) else { return Vec::new() };
        let asked_for = target.manifests.iter().filter(|manifest| manifest.ask == Ask::There);
        let mut images: Vec<&String> = asked_for.map(|manifest| &manifest.image).collect();
        images.dedup();
        // what /v2/ is good for need not be what manifests are
        let asked = |stage: Stage| seen.steps.iter().filter(move |step| step.stage == stage);
        if asked(Stage::Manifest).next().is_none() {
            return Vec::new();
        }
        let of = |image: &String| {
            let missing = seen.troubles.iter().find(|(_, trouble)| trouble.image() == Some(image));
            let other = seen.troubles.iter().find(|(stage, trouble)| *stage == Stage::Manifest && trouble.image().is_none());
            let subject = format!("{}: {image}", subject(&self.readers, target));
            let mut made = match missing.or(other) {
                None => check(Outcome::Ok, "manifest", subject, String::new(), ""),
                Some((_, trouble)) => check(trouble.outcome(), "manifest", subject, trouble.what(), trouble.help()),
            };
            let of_image = |step: &&Step| step.found.strip_prefix(image.as_str()).is_some_and(|rest| rest.starts_with(": "));
            made.steps = asked(Stage::Manifest).filter(of_image).cloned().collect();
            made
        };
        images.into_iter().map(of).collect()
    }

    /// It, as it is named in checks.
    #[must_use]
    pub fn subject(&self, target: &Target) -> String {
        subject(&self.readers, target)
    }

    /// The first of the ways that works, else the first.
    pub(super) fn best<'a>(&'a self, readers: &BTreeSet<Runtime>, seen: &'a [Seen]) -> Option<(&'a Target, &'a Seen)> {
        let ways = || self.ways.iter().zip(seen);
        ways().find(|(_, seen)| self.trouble(readers, seen).is_none()).or_else(|| ways().next())
    }

    /// What keeps it from being reached; what is said of single manifests is told with them.
    fn trouble(&self, readers: &BTreeSet<Runtime>, seen: &Seen) -> Option<(Stage, Trouble)> {
        let own = seen.troubles.iter().filter(|(stage, _)| *stage != Stage::Manifest);
        let found = own.min_by_key(|(_, trouble)| outcome(readers, trouble)).cloned();
        let bearer = matches!(seen.challenge, Some(crate::model::challenge::Challenge::Bearer { .. }));
        if self.loses_login && bearer {
            let why =
                "the registry wants tokens, and this containerd sends the login of hosts.toml only to the registry itself (before 2.1)";
            return Some((Stage::Login, Trouble::LoginLost(why.to_owned())));
        }
        found
    }
}

fn subject(readers: &BTreeSet<Runtime>, target: &Target) -> String {
    let readers: Vec<&str> = readers.iter().map(|reader| reader.name()).collect();
    format!("{}: {}://{}", readers.join(", "), target.scheme, target.host)
}

fn outcome(readers: &BTreeSet<Runtime>, trouble: &Trouble) -> Outcome {
    match trouble {
        // containers/image asks for /v2/ before anything else, and takes 200 and 401 only
        Trouble::Status(_) if readers.iter().any(|reader| *reader != Runtime::Containerd) => Outcome::Failed,
        other => other.outcome(),
    }
}

/// Whether every target is as `planned`: no change to make, nothing due. `due`: as for the anchors, a refresh of the trust store is
/// the node's own first run's matter, and recorded.
#[must_use]
pub fn as_planned(planned: &Planned, due: bool) -> Vec<Check> {
    let mut checks = Vec::new();
    for part in &planned.parts {
        let target = &part.part.target;
        let steps = planned.plan.stage.iter().chain(&planned.plan.switch).chain(&planned.plan.retire);
        let changed: Vec<&str> = steps.filter(|step| step.target == *target).map(|step| step.path.as_str()).collect();
        checks.push(match (&part.refused, changed.first()) {
            (Some(refusal), _) => {
                let first = problems(refusal).into_iter().next();
                let (what, help) = first.map(|problem| (problem.what, problem.help)).unwrap_or_default();
                check(Outcome::Failed, "planned", format!("{target}: the spec cannot be carried out"), what, &help)
            }
            (None, Some(first)) => {
                let found = if changed.len() > 1 { format!("{first} and {} more", changed.len() - 1) } else { (*first).to_owned() };
                check(Outcome::Failed, "planned", format!("{target}: not as the spec says"), found, "run `nodeprep apply`")
            }
            (None, None) => check(Outcome::Ok, "planned", target.to_string(), String::new(), ""),
        });
    }
    for one in &planned.plan.activate {
        let (what, help) = match &one.how {
            How::Nothing => continue,
            How::Refresh(argv) if due => {
                let help = format!("run nodeprep on the node itself, which runs `{}`; the ledger keeps it as due", argv.join(" "));
                ("the trust store is refreshed by the first run on the node".to_owned(), help)
            }
            How::Refresh(argv) => ("the trust store has not been refreshed".to_owned(), format!("run `{}`", argv.join(" "))),
            How::Reload(unit) => {
                (format!("{unit} has not been reloaded since the last change"), "run `nodeprep apply`, which reloads it".to_owned())
            }
            How::Restart(unit) => {
                (format!("{unit} has not been restarted since the last change"), format!("run `systemctl restart {unit}`"))
            }
        };
        let result = if due && matches!(one.how, How::Refresh(_)) { Outcome::Due } else { Outcome::Failed };
        checks.push(check(result, "activation", what, one.because.join("; "), &help));
    }
    checks
}
