//! What is kept back: closed sources none of whose endpoints answers, and what counts in their place. Pure.
//!
//! Nothing is done to files here. A source that is kept back means once more what its runtime makes of it now, read from the
//! tree whoever wrote it; the result is an ordinary [`Spec`], which is rendered, proved and held against the node like any other.
//! One file for all sources (registries.conf) and one folder for each (certs.d) are thus the same.

use std::collections::{BTreeMap, BTreeSet};

use crate::desired::Target;
use crate::format::hosts_toml::render::DIAL_TIMEOUT;
use crate::model::cert::Cert;
use crate::model::endpoint::{Endpoint, Pull, Scheme, TIMEOUTS};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::keyring::Keyring;
use crate::model::order::Gather as _;
use crate::model::problem::Problem;
use crate::model::repo::RepoPath;
use crate::model::resolution::{Attempt, Auth, End, Resolution, Trust};
use crate::model::tree::Tree;
use crate::runtime::{Dialect, FoundRuntime, View};
use crate::spec::adopt::AdoptedEndpoint;
use crate::spec::express::adapted;
use crate::spec::intent::{intent, own_registry};
use crate::spec::{Access, Client, Fallback, Login, LoginBy, Mirror, Names, OnUnready, Source, Spec, Unlisted};

/// Hosts that do not answer in the way in which they would be asked, each with what was found and what to do about it.
pub type Silent = BTreeMap<Host, (String, String)>;
/// The same for each target that keeps sources back.
pub type Unready = BTreeMap<Target, Silent>;

/// The code of the problem that names what is kept back.
pub const KEPT_BACK: &str = "kept-back";

/// The repository that stands for all below a source.
const REPO: &str = "nodeprep/probe";

/// A spec that counts because something of the one that was given is kept back.
#[derive(Clone, Debug)]
pub struct Held {
    /// What counts.
    pub spec: Spec,
    /// What is kept back and why: one [`KEPT_BACK`] for each source and host.
    pub told: Vec<Problem>,
}

/// The closed sources none of whose endpoints answers, whatever is to become of them.
pub fn without_endpoint<'a>(spec: &'a Spec, silent: &'a Silent) -> impl Iterator<Item = &'a Mirror> {
    let dead = |endpoint: &Endpoint| silent.contains_key(&endpoint.host);
    spec.mirrors
        .iter()
        .filter(move |mirror| mirror.fallback == Fallback::Never && !mirror.is_blocked() && mirror.endpoints.iter().all(dead))
}

/// Why a source has no endpoint that answers, and what to do about the first of them.
#[must_use]
pub fn reasons(mirror: &Mirror, silent: &Silent) -> (String, String) {
    let found: Vec<_> = mirror.endpoints.iter().filter_map(|endpoint| silent.get_key_value(&endpoint.host)).collect();
    let why: Vec<String> = found.iter().map(|(host, (why, _))| format!("{host}: {why}")).collect();
    (why.join("; "), found.first().map(|(_, (_, help))| help.clone()).unwrap_or_default())
}

/// What counts of `spec` for one target while `silent` hosts do not answer. `readers`: who reads the target's files. `None`
/// where nothing has to be kept back.
///
/// A closed source none of whose endpoints answers goes on as it is on the node; what was open stays open, what was closed
/// stays closed. So does a host that is asked directly and had settings of its own.
///
/// # Errors
/// Where a spec cannot say what the node does now: then the target has to be left untouched.
pub fn hold(spec: &Spec, silent: &Silent, tree: &Tree, readers: &[&FoundRuntime]) -> Result<Option<Held>, Vec<Problem>> {
    let views: Vec<(Dialect, View)> =
        readers.iter().flat_map(|reader| reader.dialects(tree).into_iter().map(|dialect| (dialect, reader.view(tree, dialect)))).collect();
    let Some((_, view)) = views.first() else { return Ok(None) };
    let past = Past { spec, view, keyring: Keyring::of(tree) };
    let mut counts = Spec { names: Names::default(), ..spec.clone() };
    let mut told = Vec::new();
    let mut cannot = Vec::new();
    let settled = past.hosts(silent, &mut counts, &mut told);
    let waiting: Vec<Mirror> = without_endpoint(spec, silent)
        .filter(|mirror| mirror.on_unready == OnUnready::Keep && past.changes(mirror, &views))
        .cloned()
        .collect();
    if waiting.is_empty() && told.is_empty() {
        return Ok(None);
    }
    counts.mirrors.retain(|mirror| !waiting.iter().any(|other| other.source == mirror.source));
    let mut asked: Vec<ImageRef> = Vec::new();
    for mirror in &waiting {
        let (why, help) = reasons(mirror, silent);
        for (source, base) in past.places(mirror) {
            let images = probes(&base);
            if let Err(why) = past.put(&mut counts, mirror, &source, &images, &settled, silent) {
                cannot.push(refused(mirror, &why));
            }
            asked.extend(images);
        }
        for name in spec.closed_names(mirror) {
            match past.shut(&mut counts, mirror, &name) {
                Ok(images) => asked.extend(images),
                Err(why) => cannot.push(refused(mirror, &why)),
            }
        }
        let what = format!("{} is kept back as it was: no endpoint answers, and nothing else may be asked: {why}", mirror.source);
        let help = format!("{help}; `on_unready = \"apply\"` or --probe=warn writes it anyway");
        told.push(Problem::error(KEPT_BACK, what, help).at(mirror.at.clone()));
    }
    past.forget(&mut counts, &waiting, silent, &settled);
    counts.names = Names::default();
    if cannot.is_empty() {
        cannot.extend(differs(&counts, &asked, &views).map(|(image, why)| {
            let mirror = spec.mirror_of(&image).or(waiting.first());
            mirror.map_or_else(|| Problem::error(KEPT_BACK, why.clone(), ""), |mirror| refused(mirror, &why))
        }));
    }
    if cannot.is_empty() { Ok(Some(Held { spec: counts, told })) } else { Err(cannot) }
}

fn refused(mirror: &Mirror, why: &str) -> Problem {
    let what = format!("no endpoint of {} answers, and what the node does now cannot be kept beside the rest: {why}", mirror.source);
    Problem::error(KEPT_BACK, what, "start the mirror first, or write the source anyway with `on_unready = \"apply\"`")
        .at(mirror.at.clone())
}

/// By tag and by digest.
fn probes(base: &str) -> Vec<ImageRef> {
    let digest = format!("sha256:{}", "0".repeat(64));
    [format!("{base}/{REPO}:1"), format!("{base}/{REPO}@{digest}")].iter().filter_map(|name| ImageRef::parse(name).ok()).collect()
}

/// The first image for which `counts` does not mean what the node does now.
fn differs(counts: &Spec, images: &[ImageRef], views: &[(Dialect, View)]) -> Option<(ImageRef, String)> {
    images.iter().find_map(|image| {
        let meant = intent(counts, image);
        views.iter().find_map(|(dialect, view)| {
            let (now, then) = (view.resolve(image), adapted(counts, &meant, *dialect));
            let same = now.same(&then) || now.settled() == then.settled();
            let why = || format!("{image} is asked for at {}, and would be at {}", super::proof::asked(&now), super::proof::asked(&then));
            (!same).then(|| (image.clone(), why()))
        })
    })
}

/// The node as its first reader reads it now.
struct Past<'a> {
    spec: &'a Spec,
    view: &'a View,
    keyring: Keyring,
}

impl Past<'_> {
    /// Keeps how hosts are reached that do not answer in the new way and had settings of their own.
    fn hosts(&self, silent: &Silent, counts: &mut Spec, told: &mut Vec<Problem>) -> BTreeSet<Host> {
        let mut settled = BTreeSet::new();
        let anyway = without_endpoint(self.spec, silent).filter(|mirror| mirror.on_unready == OnUnready::Apply);
        let anyway: BTreeSet<&Host> = anyway.flat_map(|mirror| &mirror.endpoints).map(|endpoint| &endpoint.host).gathered();
        for (host, access) in self.spec.own_hosts().filter(|(host, _)| !anyway.contains(host)) {
            let (Some((why, help)), Some(image)) = (silent.get(&host.api()), probes(host.as_str()).into_iter().next()) else { continue };
            let now = self.view.resolve(&image);
            let Some(attempt) = now.attempts.iter().find(|attempt| attempt.upstream) else { continue };
            // what a runtime does for want of settings is nothing to keep
            let trusts = matches!(&attempt.trust, Trust::Verified { extra } if !extra.is_empty());
            let written = attempt.from.as_ref().is_some_and(|from| from.line > 0);
            let own = written || trusts || attempt.client.is_some() || attempt.auth != Auth::None;
            let Some(before) = self.access(attempt).filter(|_| own) else { continue };
            settled.insert(host.clone());
            if same_access(&before, access) {
                continue;
            }
            // who took it out of the spec has to know that it is still sent
            let gone = before.login.is_some() && access.login.is_none();
            let login = if gone { ", with its login, which the spec gives it no more" } else { "" };
            counts.access.insert(host.clone(), before);
            let what = format!("{host} is reached as it was{login}: it does not answer in the new way: {why}");
            let problem = Problem::error(KEPT_BACK, what, help.clone());
            told.push(match &access.at {
                Some(at) => problem.at(at.clone()),
                None => problem,
            });
        }
        settled
    }

    /// Whether the node does something else for a source now than the spec means.
    fn changes(&self, mirror: &Mirror, views: &[(Dialect, View)]) -> bool {
        let images: Vec<ImageRef> = self.places(mirror).iter().flat_map(|(_, base)| probes(base)).collect();
        differs(self.spec, &images, views).is_some()
    }

    /// The source itself, and what below it has settings of its own on the node that it would replace; each with a name to ask
    /// for.
    fn places(&self, mirror: &Mirror) -> Vec<(Source, String)> {
        let base = match &mirror.source {
            Source::All => "registry.nodeprep-probe.example".to_owned(),
            Source::Domain(domain) => format!("nodeprep-probe.{}", domain.domain()),
            Source::Prefix { .. } => mirror.source.to_string(),
        };
        let mut places = vec![(mirror.source.clone(), base.clone())];
        for name in self.view.names().into_iter().filter(|name| *name != base) {
            let Some(image) = probes(&name).into_iter().next() else { continue };
            let (host, path) = name.split_once('/').map_or((name.as_str(), ""), |(host, path)| (host, path));
            let Ok(host) = Host::new(host) else { continue };
            // its other names follow it
            let follows = mirror.source.host().is_some_and(|own| *own != host);
            if !follows && self.spec.mirror_of(&image).is_some_and(|covers| covers.source == mirror.source) {
                places.push((Source::Prefix { host, path: RepoPath::verbatim(path) }, name));
            }
        }
        places
    }

    /// Lets `source` mean in `counts` what the node does for `images` of it now.
    fn put(
        &self,
        counts: &mut Spec,
        held: &Mirror,
        source: &Source,
        images: &[ImageRef],
        settled: &BTreeSet<Host>,
        silent: &Silent,
    ) -> Result<(), String> {
        let all: Vec<Resolution> = images.iter().map(|image| self.view.resolve(image)).collect();
        let [by_tag, by_digest] = all.as_slice() else { return Err(format!("{source} is no name to ask for")) };
        if let End::Broken(why) = &by_tag.end {
            return Err(why.clone());
        }
        let own = by_tag.attempts.iter().find(|attempt| attempt.upstream);
        let mirror = |endpoints, fallback| Mirror {
            source: source.clone(),
            endpoints,
            fallback,
            widen: false,
            on_unready: OnUnready::Apply,
            ..held.clone()
        };
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for (first, pull) in merged(&mirrors_of(by_tag), &mirrors_of(by_digest)) {
            let access = self.access(first).ok_or_else(|| format!("what goes along to {} is not known", first.host))?;
            endpoints.push(endpoint(source, &by_tag.image, first, pull)?);
            let known = counts.access.contains_key(&first.host) && (!silent.contains_key(&first.host) || settled.contains(&first.host));
            if !known {
                counts.access.insert(first.host.clone(), access);
            }
        }
        for endpoint in &mut endpoints {
            endpoint.scheme = counts.access(&endpoint.host).scheme;
        }
        match (endpoints.is_empty(), own) {
            (false, None) => counts.mirrors.push(mirror(endpoints, Fallback::Never)),
            (false, Some(own)) => {
                counts.mirrors.push(mirror(endpoints, Fallback::Upstream));
                self.reach(counts, source, own)?;
            }
            // asked directly
            (true, Some(_)) => self.open(counts, held, source)?,
            (true, None) => {
                counts.names = Names::default();
                if !intent(counts, &by_tag.image).attempts.is_empty() {
                    counts.mirrors.push(mirror(Vec::new(), Fallback::Never));
                }
            }
        }
        Ok(())
    }

    /// Lets a source that is asked directly now be so, under all the names under which it would be closed: where nothing else of
    /// the spec speaks of a name, nothing has to be said of it.
    fn open(&self, counts: &mut Spec, held: &Mirror, source: &Source) -> Result<(), String> {
        let names: Vec<Host> = source.host().cloned().into_iter().chain(self.spec.closed_names(held)).collect();
        counts.names = Names::default();
        for host in names {
            let Some(image) = probes(&Source::registry(host.clone()).to_string()).into_iter().next() else { continue };
            let now = self.view.resolve(&image);
            let [own] = now.attempts.as_slice() else { continue };
            let bare = own.same(&own_registry(&image));
            let spoken_of = counts.access.contains_key(&host)
                || counts.unlisted == Unlisted::Deny
                || counts.wider(&host).is_some()
                || counts.beside_domain(&host);
            if own.upstream && (!bare || spoken_of) {
                self.reach(counts, &Source::registry(host), own)?;
            }
        }
        Ok(())
    }

    /// Lets another name of the source stay closed where the node asks nobody for it now: as long as the source is open it does not
    /// follow it, and what has denied it goes. Gives what is to be held against the node.
    fn shut(&self, counts: &mut Spec, held: &Mirror, name: &Host) -> Result<Vec<ImageRef>, String> {
        let Source::Prefix { path, .. } = &held.source else { return Ok(Vec::new()) };
        let source = Source::Prefix { host: name.clone(), path: path.clone() };
        let images = probes(&source.to_string());
        counts.names = Names::default();
        let now: Vec<Resolution> = images.iter().map(|image| self.view.resolve(image)).collect();
        let leaks = |now: &Resolution| now.attempts.is_empty() && !intent(counts, &now.image).attempts.is_empty();
        if !now.iter().any(leaks) {
            return Ok(Vec::new());
        }
        if counts.mirrors.iter().any(|other| other.source.host() == Some(name)) {
            return Err(format!("{name} has a source of its own, and is closed now"));
        }
        // this name alone, and not those of which it is another name in turn
        counts.exact.insert(name.clone());
        counts.mirrors.push(Mirror {
            source,
            endpoints: Vec::new(),
            fallback: Fallback::Never,
            widen: false,
            on_unready: OnUnready::Apply,
            ..held.clone()
        });
        Ok(images)
    }

    /// Lets the source's own registry be reached as it is now.
    fn reach(&self, counts: &mut Spec, source: &Source, own: &Attempt) -> Result<(), String> {
        let (Some(host), Some(access)) = (source.host(), self.access(own)) else {
            return Err(format!("how {source} itself is reached cannot be said"));
        };
        counts.access.insert(host.clone(), access);
        Ok(())
    }

    /// How the host of an attempt is reached; `None` where something goes along that nodeprep does not look into, or cannot be
    /// found.
    fn access(&self, attempt: &Attempt) -> Option<Access> {
        let new = self.spec.access.get(&attempt.host);
        let (ca, insecure): (BTreeSet<_>, bool) = match &attempt.trust {
            Trust::Plain => (BTreeSet::new(), false),
            Trust::Unverified => (BTreeSet::new(), true),
            Trust::Verified { extra } => (extra.clone(), false),
        };
        // in the order of the spec where these are its own: the same file
        let known = [new.unwrap_or(&self.spec.default_access), &self.spec.default_access]
            .into_iter()
            .find(|access| access.ca.iter().map(|cert| cert.fingerprint).gathered::<BTreeSet<_>>() == ca);
        let ca = match known {
            Some(known) => known.ca.clone(),
            None => ca.iter().map(|one| Cert::from_der(self.keyring.cert(one)?).ok()).collect::<Option<Vec<Cert>>>()?.into(),
        };
        let client = match attempt.client {
            None => None,
            Some(leaf) => {
                let (chain, key) = self.keyring.identity(leaf)?;
                let certs = chain.iter().map(|der| Cert::from_der(der).ok()).collect::<Option<Vec<Cert>>>()?;
                Some(Client { certs, key })
            }
        };
        let login = match &attempt.auth {
            Auth::None => None,
            Auth::Basic(basic) => {
                // where it stands now; what reads no config.toml has but one place for it
                let by = if self.view.is_in_config(&attempt.host, basic) { LoginBy::Config } else { LoginBy::Header };
                Some(Login { basic: basic.clone(), by })
            }
            Auth::Other(_) => return None,
        };
        Some(Access { scheme: attempt.scheme, ca, client, login, insecure, at: attempt.from.clone() })
    }

    /// Hosts that only sources named that are kept back are no registries of their own yet. Where the spec says more of one
    /// that does not answer and had no settings before, nothing is written of it either, unless it would be denied then.
    fn forget(&self, counts: &mut Spec, held: &[Mirror], silent: &Silent, settled: &BTreeSet<Host>) {
        let hosts = |mirrors: &[Mirror]| -> BTreeSet<Host> {
            mirrors.iter().flat_map(|mirror| &mirror.endpoints).map(|endpoint| endpoint.host.clone()).gathered()
        };
        let (used, waits) = (hosts(&counts.mirrors), hosts(held));
        let sources: BTreeSet<&Host> = self.spec.mirrors.iter().filter_map(|mirror| mirror.source.host()).gathered();
        let pause = self.spec.pause.as_ref().map(|pause| &pause.image.host);
        let may_wait = |host: &Host| {
            waits.contains(host)
                && silent.contains_key(host)
                && !settled.contains(host)
                && pause != Some(host)
                && self.spec.unlisted == Unlisted::Allow
        };
        // what is reached as before stays open for it, also where the source that named it is taken out
        let passes = |host: &Host| self.spec.passing.contains(host) && !settled.contains(host);
        let goes = |host: &Host| passes(host) || may_wait(host);
        counts.access.retain(|host, _| !goes(host) || used.contains(host) || sources.contains(host));
    }
}

fn same_access(one: &Access, other: &Access) -> bool {
    let prints = |access: &Access| access.ca.iter().map(|cert| cert.fingerprint).gathered::<BTreeSet<_>>();
    let client = |access: &Access| access.client.as_ref().and_then(Client::fingerprint);
    let login = |access: &Access| access.login.as_ref().map(|login| login.basic.clone());
    (one.scheme, one.insecure, prints(one), client(one), login(one))
        == (other.scheme, other.insecure, prints(other), client(other), login(other))
}

/// Each mirror that is asked, by the first of the ways in which it is.
fn mirrors_of(resolution: &Resolution) -> Vec<&Attempt> {
    let mirrors: Vec<&Attempt> = resolution.attempts.iter().filter(|attempt| !attempt.upstream).collect();
    let ways = mirrors.chunk_by(|one, next| is_same_place(one, next));
    ways.filter_map(|ways| ways.first().copied()).collect()
}

fn is_same_place(one: &Attempt, other: &Attempt) -> bool {
    one.host == other.host && one.repo == other.repo && one.api_root == other.api_root
}

/// The mirrors that are asked by tag and by digest, in an order that is right for both, and for which of them each is asked.
fn merged<'a>(by_tag: &[&'a Attempt], by_digest: &[&'a Attempt]) -> Vec<(&'a Attempt, Pull)> {
    let mut merged = Vec::new();
    let mut rest = by_digest;
    for attempt in by_tag.iter().copied() {
        let kind = |digest: bool| match (attempt.ops.resolve, digest) {
            (false, _) => Pull::Digest,
            (true, false) => Pull::Tag,
            (true, true) => Pull::All,
        };
        if let Some(at) = rest.iter().position(|other| is_same_place(attempt, other)) {
            merged.extend(rest[..at].iter().map(|other| (*other, Pull::Digest)));
            rest = &rest[at + 1..];
            merged.push((attempt, kind(true)));
        } else {
            merged.push((attempt, kind(false)));
        }
    }
    merged.extend(rest.iter().map(|other| (*other, Pull::Digest)));
    merged
}

/// The place that an attempt shows, asked for these references.
fn endpoint(source: &Source, image: &ImageRef, attempt: &Attempt, pull: Pull) -> Result<Endpoint, String> {
    let path = format!("{}/{}", attempt.api_root, attempt.repo);
    let rest = source.rest(&image.repo).unwrap_or_else(RepoPath::all);
    let elsewhere = || format!("{} is asked below {}, which is no place for all of {source}", attempt.host, attempt.api_root);
    let api_root = path.strip_suffix(rest.as_str()).and_then(|root| root.strip_suffix('/')).ok_or_else(elsewhere)?;
    let written = AdoptedEndpoint {
        http: attempt.scheme == Scheme::Http,
        host: attempt.host.as_str().to_owned(),
        api_root: api_root.to_owned(),
        pull,
    };
    let place = written.endpoint().ok_or_else(elsewhere)?;
    let header = attempt.header.iter().map(|(name, value)| Ok((name.clone(), String::from_utf8(value.expose().to_vec())?)));
    let header = header.collect::<Result<Vec<_>, std::string::FromUtf8Error>>().map_err(|_| elsewhere())?;
    // the usual one goes without saying, and what no spec may say is left to the runtime
    let timeout =
        attempt.timeout.filter(|limit| *limit != DIAL_TIMEOUT && limit.subsec_nanos() % 1_000_000 == 0 && TIMEOUTS.contains(limit));
    Ok(Endpoint { pull, timeout, guarded: !header.is_empty(), header, ..place })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::load::Draft;

    #[test]
    fn one_endpoint_that_answers_is_enough() {
        let text = "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"a.example\", \"b.example\"]\n";
        let spec = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.unwrap();
        let dead = |hosts: &[&str]| {
            let silent = hosts.iter().map(|host| (Host::new(host).unwrap(), (String::new(), String::new()))).collect();
            without_endpoint(&spec, &silent).count()
        };
        assert_eq!((dead(&[]), dead(&["a.example"]), dead(&["b.example"]), dead(&["a.example", "b.example"])), (0, 0, 0, 1));
    }
}
