//! What containerd asks for an image when kubelet asks for it through CRI (`runtime-semantics.md` 1.1–1.8).

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::hosts::{Located, locate};
use super::legacy;
use super::want::DEFAULT_ROOT;
use super::{Dialect, FIRST, too_old};
use crate::format::config_toml::{Broken, Chain};
use crate::format::hosts_toml::{Capabilities, HostConfig, Url};
use crate::model::cert::{self, KeyMatch};
use crate::model::digest::Fingerprint;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::order::{self, Gather as _};
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::resolution::{Attempt, Auth, End, FileVerdict, Ops, Resolution, Trust, Verdict};
use crate::model::secret::Secret;
use crate::model::tree::{Found, Tree};
use crate::model::version::Version;
use crate::runtime::FoundRuntime;

/// A registry that has no folder of its own anywhere.
pub(super) const NOBODY: &str = "registry.nodeprep-probe.example";

/// The registry that a folder's name is for: `host_port_` is `host:port`.
pub(super) fn registry(folder: &str) -> Option<String> {
    if folder == "_default" {
        return Some(NOBODY.to_owned());
    }
    let ported = folder.strip_suffix('_').and_then(|rest| rest.rsplit_once('_')).filter(|(_, port)| port.parse::<u16>().is_ok());
    let name = ported.map_or_else(|| folder.to_owned(), |(host, port)| format!("{host}:{port}"));
    Host::from_reference(&name).ok().map(|host| host.to_string())
}

type Pair = (NodePath, Option<NodePath>);

/// containerd's configuration as one class of versions reads it. The main configuration is read once, a registry's folder
/// when an image of it is asked for, a certificate file once.
#[derive(Debug)]
pub struct View {
    tree: Tree,
    config: NodePath,
    dialect: Dialect,
    /// It reads no hosts.toml, whatever config_path says.
    too_old: Option<Version>,
    chain: Result<Box<Chain>, Broken>,
    /// [`Chain::roots`].
    roots: (Vec<NodePath>, bool),
    cas: RefCell<BTreeMap<NodePath, Result<BTreeSet<Fingerprint>, String>>>,
    clients: RefCell<BTreeMap<Pair, Result<Fingerprint, String>>>,
    /// What was found for the registry that was asked for last: images come in order of their registries.
    last: RefCell<Option<(Host, Rc<Hosts>)>>,
}

pub(super) type Hosts = Result<Option<Located>, (Vec<FileVerdict>, String)>;

impl View {
    /// Reads the main configuration from the tree.
    #[must_use]
    pub fn new(tree: &Tree, on: &FoundRuntime, dialect: Dialect) -> Self {
        let chain = dialect.reads_config(tree, on).map(Box::new);
        let roots = chain.as_ref().map(|chain| chain.roots(dialect)).unwrap_or_default();
        let (cas, clients, last) = (RefCell::default(), RefCell::default(), RefCell::default());
        Self { tree: tree.clone(), config: on.config.clone(), dialect, too_old: too_old(on), chain, roots, cas, clients, last }
    }

    /// Every registry that has a folder where this version looks, or in the usual place. `_default` stands in as a registry
    /// that nobody names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let mut roots = self.chain.as_ref().map(|chain| chain.roots(self.dialect).0).unwrap_or_default();
        roots.push(NodePath::fixed(DEFAULT_ROOT));
        let folders: BTreeSet<String> = roots.iter().flat_map(|root| self.tree.names(root)).gathered();
        folders.iter().filter_map(|folder| registry(folder)).collect()
    }

    /// The ordered requests for `image`, or why there are none.
    #[must_use]
    pub fn resolve(&self, image: &ImageRef) -> Resolution {
        let mut resolution = Resolution { image: image.clone(), attempts: Vec::new(), end: End::Exhausted, files: Vec::new() };
        // Seen on 1.6.20: `failed to parse image reference "[::1]:5443/…": invalid reference format`. As a mirror such a host is fine.
        if self.dialect.is_v1_6() && image.host.is_ipv6() {
            resolution.end = End::Broken(format!("{image}: containerd 1.6 cannot read references to IPv6 addresses"));
            return resolution;
        }
        match self.hosts(image, &mut resolution.files).and_then(|hosts| self.attempts(image, &hosts, &mut resolution.files)) {
            Ok(attempts) => {
                let nowhere = |attempt: &Attempt| attempt.host.cannot_exist();
                if let Some(first) = attempts.iter().find(|attempt| nowhere(attempt)) {
                    resolution.end = End::Blocked(format!("{} cannot exist", first.host));
                }
                resolution.attempts = attempts.into_iter().filter(|attempt| !nowhere(attempt)).collect();
            }
            Err(why) => resolution.end = End::Broken(why),
        }
        resolution
    }

    /// Whether a login for `host` reaches the token endpoint: a header of hosts.toml does from 2.1 on, one of config.toml on all
    /// versions (`runtime-semantics.md` 1.7; seen on 1.6.20, 1.7.24 and 2.1.9).
    #[must_use]
    pub fn reaches_tokens(&self, host: &Host) -> bool {
        let in_config = || self.chain.as_ref().is_ok_and(|chain| chain.configs.get(host.as_str()).is_some_and(|how| how.basic.is_some()));
        self.dialect.transfers() || in_config()
    }

    /// Whether `login` for `host` stands in config.toml.
    #[must_use]
    pub fn is_in_config(&self, host: &Host, login: &Secret) -> bool {
        let known = |chain: &Chain| chain.configs.get(host.as_str()).is_some_and(|how| how.basic.as_ref() == Some(login));
        self.chain.as_ref().is_ok_and(|chain| known(chain))
    }

    /// The same if only `registry.mirrors` counted, whether `config_path` is set or not; `None` without any.
    pub(super) fn resolve_by_mirrors(&self, image: &ImageRef) -> Option<Resolution> {
        let chain = self.chain.as_ref().ok().filter(|chain| !chain.mirrors.is_empty())?;
        let mut resolution = Resolution { image: image.clone(), attempts: Vec::new(), end: End::Exhausted, files: Vec::new() };
        match self.attempts(image, &legacy::hosts(chain, &image.host), &mut resolution.files) {
            Ok(attempts) => resolution.attempts = attempts,
            Err(why) => resolution.end = End::Broken(why),
        }
        Some(resolution)
    }

    fn hosts(&self, image: &ImageRef, files: &mut Vec<FileVerdict>) -> Result<Rc<[HostConfig]>, String> {
        let mut verdict = |path: &NodePath, verdict| files.push(FileVerdict { path: path.clone(), verdict });
        let broken = |broken: &Broken| format!("{}: {}", broken.at, broken.why);
        let chain = self.chain.as_ref().map_err(|error| {
            verdict(&self.config, Verdict::Broken(error.why.clone()));
            broken(error)
        })?;
        if let Some(at) = &chain.disabled {
            verdict(&self.config, Verdict::Broken("disabled_plugins names the CRI plugin".into()));
            return Err(format!("{at}: the CRI plugin is disabled: kubelet cannot pull through this containerd"));
        }
        if let Some(error) = chain.unloadable(self.dialect) {
            verdict(&self.config, Verdict::Broken(error.why.clone()));
            return Err(broken(&error));
        }
        let value = chain.config_path(self.dialect);
        if let Some(version) = self.too_old {
            verdict(&self.config, Verdict::Ignored(format!("containerd {version} reads no hosts.toml, which began with {FIRST}")));
            return Ok(legacy::hosts(chain, &image.host).into());
        }
        if value.is_empty() {
            if self.tree.exists(&self.config) {
                let legacy = !chain.mirrors.is_empty() || !chain.configs.is_empty();
                let unset = || Verdict::Ignored("sets no config_path: no hosts.toml is read".into());
                verdict(&self.config, if legacy { Verdict::Used } else { unset() });
            }
            let by_endpoints = chain.pulls_locally(self.dialect);
            return Ok(if by_endpoints { legacy::hosts(chain, &image.host).into() } else { own_alone() });
        }
        let (roots, list) = &self.roots;
        if *list {
            let why = format!("config_path {value:?} is taken for one path: no hosts.toml is read");
            verdict(&self.config, Verdict::Ignored(why));
        }
        match &*self.located(roots, &image.host) {
            Ok(Some(Located { hosts, files: more })) => {
                files.extend_from_slice(more);
                Ok(Rc::clone(hosts))
            }
            Ok(None) => Ok(own_alone()),
            Err((more, why)) => {
                files.extend_from_slice(more);
                Err(why.clone())
            }
        }
    }

    /// What is found for a registry where folders are looked through, whoever wrote it.
    pub(super) fn found_for(&self, host: &Host) -> Option<Rc<Hosts>> {
        let on = self.chain.as_ref().is_ok_and(|chain| chain.disabled.is_none() && !chain.config_path(self.dialect).is_empty());
        on.then(|| self.located(&self.roots.0, host))
    }

    fn located(&self, roots: &[NodePath], host: &Host) -> Rc<Hosts> {
        let mut last = self.last.borrow_mut();
        if let Some((_, found)) = last.as_ref().filter(|(known, _)| known == host) {
            return Rc::clone(found);
        }
        let found = Rc::new(locate(&self.tree, roots, host, self.dialect));
        *last = Some((host.clone(), Rc::clone(&found)));
        found
    }

    fn attempts(&self, image: &ImageRef, hosts: &[HostConfig], files: &mut Vec<FileVerdict>) -> Result<Vec<Attempt>, String> {
        let mut attempts = Vec::new();
        let mut may_resolve = false;
        for (number, config) in hosts.iter().enumerate() {
            let last = number + 1 == hosts.len();
            let (url, config) = match &config.url {
                Some(url) if !url.host.is_empty() || !last => (Cow::Borrowed(url), Cow::Borrowed(config)),
                // without `server`, or with one that names no host (hosts.go: `host == ""`)
                _ => {
                    let mut config = config.clone();
                    (Cow::Owned(self.own(image, &mut config)), Cow::Owned(config))
                }
            };
            // a bad certificate file fails the registry as a whole, also where only a plain host names it (T26)
            let tls = self.tls(&config).map_err(|(path, why)| {
                files.push(FileVerdict { path: path.clone(), verdict: Verdict::Broken(why.clone()) });
                format!("{path} {why}: every pull from {} fails", image.host)
            })?;
            let Capabilities { pull, resolve, .. } = config.capabilities;
            let ops = Ops { resolve: pull && (resolve || image.digest.is_some()), manifest: true, blob: true };
            may_resolve |= ops.resolve;
            // T36: a malformed request, then the next host
            let Ok(host) = Host::from_reference(&url.host) else { continue };
            let upstream = host == image.host.api() || host == image.host || image.host.is_alias(&host);
            let auth = self.auth(&config, &host);
            let header = others(&config);
            let from = (!config.at.file.is_empty()).then(|| config.at.clone());
            let attempt = |scheme, trust, client| Attempt {
                scheme,
                host: host.clone(),
                api_root: url.api_root.clone(),
                repo: image.repo.clone(),
                ops,
                upstream,
                trust,
                client,
                auth: auth.clone(),
                header: header.clone(),
                timeout: config.dial_timeout,
                from: from.clone(),
            };
            let (trust, client) = tls;
            match url.scheme.as_str() {
                "https" => attempts.push(attempt(Scheme::Https, trust, client)),
                "http" => {
                    // T29; 1.6 leaves a host without port alone
                    let left_alone = !self.dialect.tries_tls_first() || self.dialect.is_v1_6() && url.port().is_none();
                    if config.has_tls() && url.port() != Some("80") && !left_alone {
                        attempts.push(attempt(Scheme::Https, trust, client));
                    }
                    attempts.push(attempt(Scheme::Http, Trust::Plain, None));
                }
                _ => {}
            }
        }
        if may_resolve { Ok(attempts) } else { Err(format!("no host may be asked for {image}: capabilities leave none")) }
    }

    /// The image's own registry (1.4, 1.6): `/v2`, all capabilities; localhost is not verified, before 1.6.32 and 1.7.16 plain
    /// on every port.
    fn own(&self, image: &ImageRef, config: &mut HostConfig) -> Url {
        config.capabilities = Capabilities::ALL;
        let host = image.host.api();
        let mut scheme = "https";
        if host.is_loopback() {
            if !self.dialect.tries_tls_first() || !matches!(host.port(), None | Some(443)) {
                scheme = "http";
            }
            // of no consequence on port 80, which is plain
            config.skip_verify = Some(true);
        }
        Url { scheme: scheme.into(), host: host.as_str().into(), api_root: "/v2".into() }
    }

    fn tls(&self, config: &HostConfig) -> Result<(Trust, Option<Fingerprint>), (NodePath, String)> {
        let mut extra = BTreeSet::new();
        for path in config.ca.iter().flatten() {
            let mut cas = self.cas.borrow_mut();
            let found = cas.entry(path.clone()).or_insert_with(|| read_ca(&self.tree, path));
            extra.extend(found.as_ref().map_err(|why| (path.clone(), why.clone()))?);
        }
        let mut leaves = Vec::new();
        for pair in config.client.iter().flatten() {
            let mut clients = self.clients.borrow_mut();
            let found = clients.entry(pair.clone()).or_insert_with(|| read_client(&self.tree, pair));
            leaves.push(found.clone().map_err(|why| (pair.0.clone(), why))?);
        }
        let trust = if config.skip_verify == Some(true) { Trust::Unverified } else { Trust::Verified { extra } };
        Ok((trust, leaves.first().copied()))
    }

    fn auth(&self, config: &HostConfig, host: &Host) -> Auth {
        let is_login = |(name, _): &&(String, Vec<String>)| name.eq_ignore_ascii_case("authorization");
        if let Some((_, values)) = config.header.iter().find(is_login) {
            let coded = values.first().and_then(|value| value.strip_prefix("Basic ").or_else(|| value.strip_prefix("basic ")));
            let plain = coded.and_then(|coded| cert::base64_decode(coded.trim()));
            return plain.map_or_else(|| Auth::Other("Authorization header".into()), |plain| Auth::Basic(Secret::new(plain)));
        }
        match self.chain.as_ref().ok().and_then(|chain| chain.configs.get(host.as_str())) {
            Some(settings) => match &settings.basic {
                Some(basic) => Auth::Basic(basic.clone()),
                None if settings.token => Auth::Other("identity token".into()),
                None => Auth::None,
            },
            None => Auth::None,
        }
    }
}

/// The headers that are no login, by name: Go sends them under one spelling.
fn others(config: &HostConfig) -> Vec<(String, Secret)> {
    let rest = config.header.iter().filter(|(name, _)| !name.eq_ignore_ascii_case("authorization"));
    let mut header: Vec<(String, Secret)> = rest.map(|(name, values)| (name.clone(), Secret::new(values.join(", ")))).collect();
    order::sort(&mut header);
    header
}

/// Nothing but the image's own registry.
fn own_alone() -> Rc<[HostConfig]> {
    [HostConfig::bare(Place::file(""))].into()
}

fn bytes<'a>(tree: &'a Tree, path: &NodePath) -> Result<&'a [u8], String> {
    match tree.find(path) {
        Found::File(bytes, _) => Ok(bytes),
        Found::Absent => Err("does not exist".into()),
        Found::Dir => Err("is a folder".into()),
        Found::Unreadable(why) => Err(format!("cannot be read ({why})")),
        Found::Unread => Err("was not looked at".into()),
    }
}

/// T26, T27.
fn read_ca(tree: &Tree, path: &NodePath) -> Result<BTreeSet<Fingerprint>, String> {
    let found = cert::fingerprints(bytes(tree, path)?);
    if found.is_empty() { Err("holds no certificate".into()) } else { Ok(found) }
}

/// As Go's `tls.X509KeyPair`: the leaf's fingerprint, when the key belongs to it.
fn read_client(tree: &Tree, (cert, key): &Pair) -> Result<Fingerprint, String> {
    let chain = cert::read_pem(bytes(tree, cert)?).map_err(|error| error.to_string())?;
    let leaf = chain.certs.first().ok_or("holds no certificate")?;
    let keys = match key {
        Some(key) => bytes(tree, key).and_then(|bytes| cert::read_pem(bytes).map_err(|error| error.to_string())),
        None => Ok(chain.clone()),
    };
    let keys = keys.map_err(|why| format!("has no usable key: {} {why}", key.as_ref().unwrap_or(cert)))?;
    let private = keys.keys.first().ok_or("has no private key")?;
    match cert::key_matches(&chain.certs, private) {
        KeyMatch::No => Err("does not belong to its key".into()),
        KeyMatch::Unreadable(why) => Err(format!("has a key that cannot be read: {why}")),
        KeyMatch::Yes | KeyMatch::Unknown(_) => Ok(leaf.fingerprint),
    }
}
