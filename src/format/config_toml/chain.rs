//! config.toml and everything that it imports, as one class of containerd versions takes it together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use toml_edit::Document;

use super::imports::{Import, imported};
use super::merged::{Node, Spot};
use super::{CRI_V2, CRI_V3};
use crate::format::hosts_toml::toml10::{newer_than_toml_1_0, unread};
use crate::model::order::Gather as _;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::secret::Secret;
use crate::model::tree::{Found, Tree};
use crate::runtime::containerd::Dialect;

/// A value and the place that sets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said<T> {
    /// The value.
    pub value: T,
    /// Where.
    pub at: Place,
}

/// `registry.mirrors.<host>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyMirror {
    /// URLs in order.
    pub endpoints: Vec<String>,
    /// Its table.
    pub at: Place,
}

/// `registry.configs.<host>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostSettings {
    /// Its `tls` table (containerd 1.x only).
    pub tls: Option<LegacyTls>,
    /// `user:password` of its `auth` table.
    pub basic: Option<Secret>,
    /// Its `auth` table holds a token.
    pub token: bool,
    /// The URLs under which `registry.auths` says the login. They go before its `auth` table.
    pub auths: Vec<String>,
    /// Its table.
    pub at: Place,
}

/// `registry.configs.<host>.tls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyTls {
    /// `insecure_skip_verify`.
    pub skip_verify: bool,
    /// `ca_file`.
    pub ca: Option<NodePath>,
    /// `cert_file` and `key_file`.
    pub client: Option<(NodePath, NodePath)>,
    /// Only one of the two is set: every pull fails.
    pub half: bool,
    /// Its table.
    pub at: Place,
}

/// Why containerd does not start, or starts without its CRI plugin.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Broken {
    /// As a fragment.
    pub why: String,
    /// Where.
    pub at: Place,
    /// Builds of the same version with another TOML reader may start with it.
    pub by_build: bool,
}

/// What the configuration comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// The files that were read, in order; the first is config.toml itself, also when it does not exist.
    pub files: Vec<NodePath>,
    /// `version` as config.toml itself says it.
    pub declared: Option<i64>,
    /// The version that decides which tables count.
    pub version: i64,
    /// `config_path` when a file sets it to something; else the built-in default holds ([`Chain::config_path`]).
    pub set_path: Option<Said<String>>,
    /// `registry.mirrors`.
    pub mirrors: BTreeMap<String, LegacyMirror>,
    /// `registry.configs`.
    pub configs: BTreeMap<String, HostSettings>,
    /// `registry.auths` is there: pulls by the old way, as with `configs`.
    pub auths: bool,
    /// A name in `registry.auths` that is no URL.
    pub no_url: Option<Said<String>>,
    /// The pause image when a file sets it.
    pub sandbox: Option<Said<String>>,
    /// `disabled_plugins` names the CRI plugin.
    pub disabled: Option<Place>,
    /// `use_local_image_pull`.
    pub local_pull: bool,
    /// Tables that are there but do not count for this class of versions.
    pub passed_over: Vec<Said<String>>,
}

struct Read<'a> {
    path: NodePath,
    text: std::borrow::Cow<'a, str>,
    version: Option<i64>,
    top: Node,
}

impl Chain {
    /// Reads config.toml at `path` and what it imports, breadth first, each file once.
    ///
    /// # Errors
    /// When this class of versions would not start with it: syntax, a version that it does not know, an import that is not
    /// there (T61, T63), a short plugin name in a file of version 2.
    pub fn read(tree: &Tree, path: &NodePath, dialect: Dialect) -> Result<Self, Broken> {
        let files = read_files(tree, path, dialect)?;
        let paths: Vec<NodePath> = if files.is_empty() { vec![path.clone()] } else { files.iter().map(|file| file.path.clone()).collect() };
        let place = |spot: Spot| match files.get(spot.file) {
            Some(file) => Place::at(file.path.as_str(), &file.text, spot.offset),
            None => Place::file(path.as_str()),
        };
        let declared = files.first().and_then(|file| file.version);
        let version = version(&files, dialect)?;
        let Laid { cri, disabled, passed_over } = lay(&files, version, dialect, &place)?;
        let said =
            |node: &Node| node.text().filter(|text| !text.is_empty()).map(|text| Said { value: text.to_owned(), at: place(node.spot()) });
        let hosts = |key: &str| cri.get(&["registry", key]).and_then(Node::entries).into_iter().flatten();
        let mut configs: BTreeMap<String, HostSettings> =
            hosts("configs").map(|(host, node)| (host.clone(), settings(node, dialect, &place))).gathered();
        let mut no_url = None;
        for (url, node) in hosts("auths") {
            let host = match auths_host(url) {
                Ok(Some(host)) => host,
                Ok(None) => continue,
                Err(()) => {
                    no_url.get_or_insert(Said { value: url.clone(), at: place(node.spot()) });
                    continue;
                }
            };
            let (basic, token) = login(node);
            let new = || HostSettings { tls: None, basic: None, token: false, auths: Vec::new(), at: place(node.spot()) };
            let known = configs.entry(host.to_owned()).or_insert_with(new);
            (known.basic, known.token) = (basic, token);
            known.auths.push(url.clone());
        }
        let mirror = |(host, node): (&String, &Node)| {
            let endpoints = node.get(&["endpoint"]).map(Node::texts).unwrap_or_default();
            (host.clone(), LegacyMirror { endpoints, at: place(node.spot()) })
        };
        Ok(Self {
            files: paths,
            declared,
            version,
            set_path: cri.get(&["registry", "config_path"]).and_then(said),
            mirrors: hosts("mirrors").map(mirror).gathered(),
            configs,
            auths: hosts("auths").next().is_some(),
            no_url,
            sandbox: cri.get(&["pinned_images", "sandbox"]).and_then(said),
            disabled,
            local_pull: cri.get(&["use_local_image_pull"]).and_then(Node::boolean).unwrap_or(false),
            passed_over,
        })
    }

    /// The effective `config_path`: what a file sets, else the built-in default, which does not hold beside mirrors (1.8).
    #[must_use]
    pub fn config_path(&self, dialect: Dialect) -> &str {
        match &self.set_path {
            Some(said) => &said.value,
            None if self.mirrors.is_empty() => dialect.default_config_path(),
            None => "",
        }
    }

    /// Whether pulls go the old way, which splits a list in `config_path` (1.1, 1.7).
    #[must_use]
    pub fn pulls_locally(&self, dialect: Dialect) -> bool {
        !dialect.transfers() || self.local_pull || self.auths || !self.mirrors.is_empty() || !self.configs.is_empty()
    }

    /// The folders that hold a folder per registry, in the order in which they are looked through; and whether the value is
    /// a list that is taken for one path.
    #[must_use]
    pub fn roots(&self, dialect: Dialect) -> (Vec<NodePath>, bool) {
        let value = self.config_path(dialect);
        if value.contains(':') && !self.pulls_locally(dialect) {
            return (Vec::new(), true);
        }
        (value.split(':').filter(|part| !part.is_empty()).map(|part| NodePath::root().join(part)).collect(), false)
    }

    /// Why the CRI plugin does not load although containerd starts (1.8, T58).
    #[must_use]
    pub fn unloadable(&self, dialect: Dialect) -> Option<Broken> {
        if let Some(Said { value, at }) = &self.no_url {
            let why = format!("the CRI plugin does not load: {value:?} in registry.auths is no URL");
            return Some(Broken { why, at: at.clone(), by_build: false });
        }
        let path = self.set_path.as_ref().filter(|_| !self.config_path(dialect).is_empty())?;
        if let Some(mirror) = self.mirrors.values().next() {
            let why = "the CRI plugin does not load: registry.mirrors and config_path are both set".to_owned();
            return Some(Broken { why, at: mirror.at.clone(), by_build: false });
        }
        let tls = self.configs.values().find_map(|config| config.tls.as_ref()).filter(|_| !dialect.is_v2())?;
        let why = format!("the CRI plugin does not load: registry.configs.*.tls and config_path ({}) are both set", path.value);
        Some(Broken { why, at: tls.at.clone(), by_build: false })
    }
}

/// The CRI plugin's settings for images, as config.toml and its imports come to.
#[derive(Clone, Debug)]
pub struct CriTable {
    /// The version that decides which tables count.
    pub version: i64,
    /// The settings in the form of version 3; a table.
    pub table: Node,
    /// `disabled_plugins` names the CRI plugin.
    pub disabled: Option<Place>,
}

impl CriTable {
    /// Reads config.toml at `path` and what it imports.
    ///
    /// # Errors
    /// As [`Chain::read`].
    pub fn read(tree: &Tree, path: &NodePath, dialect: Dialect) -> Result<Self, Broken> {
        let files = read_files(tree, path, dialect)?;
        let version = version(&files, dialect)?;
        let place = |spot: Spot| match files.get(spot.file) {
            Some(file) => Place::at(file.path.as_str(), &file.text, spot.offset),
            None => Place::file(path.as_str()),
        };
        let Laid { cri, disabled, .. } = lay(&files, version, dialect, &place)?;
        Ok(Self { version, table: cri, disabled })
    }
}

/// The CRI settings of all files together.
struct Laid {
    /// In the form of version 3.
    cri: Node,
    disabled: Option<Place>,
    passed_over: Vec<Said<String>>,
}

fn lay(files: &[Read<'_>], version: i64, dialect: Dialect, place: &impl Fn(Spot) -> Place) -> Result<Laid, Broken> {
    let mut passed_over = Vec::new();
    let mut cri: Option<Node> = None;
    let mut disabled = None;
    for file in files {
        let own = if dialect == Dialect::V2_3 { file.version.unwrap_or(2) } else { version };
        for (name, node) in file.top.get(&["plugins"]).and_then(Node::entries).into_iter().flatten() {
            if !matches!(name.as_str(), "cri" | CRI_V2 | CRI_V3) {
                continue;
            }
            if name == "cri" && own >= 2 && file.version.is_some() {
                if dialect.is_v2() {
                    continue;
                }
                return Err(Broken {
                    why: "short plugin name \"cri\" in a file of version 2".into(),
                    at: place(node.spot()),
                    by_build: false,
                });
            }
            let Some(node_here) = counts(name, node, own, dialect) else {
                let why = format!("plugins.{name:?} does not count for {} in a file of version {own}", dialect.name());
                passed_over.push(Said { value: why, at: place(node.spot()) });
                continue;
            };
            match &mut cri {
                Some(below) if dialect.is_v2() => below.lay(node_here),
                // 1.x: the whole plugin table is replaced (T59)
                _ => cri = Some(node_here),
            }
        }
        let names = file.top.get(&["disabled_plugins"]);
        if let Some(names) = names.filter(|names| names.texts().iter().any(|name| matches!(name.as_str(), "cri" | CRI_V2 | CRI_V3))) {
            disabled = Some(place(names.spot()));
        }
    }
    let cri = cri.unwrap_or(Node::Table(Spot { file: 0, offset: 0 }, BTreeMap::new()));
    Ok(Laid { cri, disabled, passed_over })
}

fn read_files<'a>(tree: &'a Tree, path: &NodePath, dialect: Dialect) -> Result<Vec<Read<'a>>, Broken> {
    let mut files: Vec<Read<'_>> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut todo = VecDeque::from([(path.clone(), None::<Place>)]);
    while let Some((path, from)) = todo.pop_front() {
        if !seen.insert(path.clone()) {
            continue;
        }
        let at = from.clone().unwrap_or_else(|| Place::file(path.as_str()));
        let bytes = match tree.find(&path) {
            Found::File(bytes, _) => bytes,
            // the built-in defaults hold
            Found::Absent if from.is_none() => return Ok(files),
            Found::Absent => {
                return Err(Broken { why: format!("import {path} does not exist, containerd does not start"), at, by_build: false });
            }
            Found::Dir => return Err(Broken { why: format!("{path} is a folder"), at, by_build: false }),
            Found::Unreadable(why) => return Err(Broken { why: format!("{path} cannot be read: {why}"), at, by_build: false }),
            Found::Unread => return Err(Broken { why: format!("{path} was not looked at"), at, by_build: false }),
        };
        let text = String::from_utf8_lossy(bytes);
        if dialect.is_v2() && text.starts_with('\u{feff}') {
            let why = format!("TOML syntax: {path} begins with a byte order mark, {} does not start", dialect.name());
            return Err(Broken { why, at, by_build: false });
        }
        let number = files.len();
        let (version, top, imports) = parse(&text, &path, number, dialect)?;
        for import in imports {
            // 1.6 takes a relative pattern from its working directory, where nothing lies (seen on 1.6.20)
            if dialect.is_v1_6() && import.relative && import.is_pattern() {
                continue;
            }
            let place = Place::at(path.as_str(), &text, import.offset);
            todo.extend(import.files(tree).into_iter().map(|file| (file, Some(place.clone()))));
        }
        files.push(Read { path, text, version, top });
    }
    Ok(files)
}

fn parse(text: &str, path: &NodePath, number: usize, dialect: Dialect) -> Result<(Option<i64>, Node, Vec<Import>), Broken> {
    let document = Document::parse(text).map_err(|error| Broken {
        why: format!("TOML syntax: {}, containerd does not start", error.message().lines().next().unwrap_or_default()),
        at: Place::at(path.as_str(), text, error.span().map_or(0, |span| span.start)),
        by_build: false,
    })?;
    if let Some((what, offset)) = newer_than_toml_1_0(&document, !dialect.is_v2()) {
        let at = Place::at(path.as_str(), text, offset);
        let start = if dialect.is_v2() { "may not start" } else { "does not start" };
        return Err(Broken {
            why: format!("TOML syntax: {}: {} {start}", unread(what, dialect), dialect.name()),
            at,
            by_build: dialect.is_v2(),
        });
    }
    // 0 is "not set" when files are merged
    let version = document.get("version").and_then(toml_edit::Item::as_integer).filter(|version| *version != 0);
    let top = Node::table(document.as_table(), number, Spot { file: number, offset: 0 });
    Ok((version, top, imported(&document, path)))
}

/// The version that decides for all files together; per file from 2.3 on (F6, F7, T61, T64).
fn version(files: &[Read<'_>], dialect: Dialect) -> Result<i64, Broken> {
    let broken = |file: &Read<'_>, why: String| {
        let offset = file.top.get(&["version"]).map_or(0, |said| said.spot().offset);
        Err(Broken { why, at: Place::at(file.path.as_str(), &file.text, offset), by_build: false })
    };
    let root = files.first().and_then(|file| file.version);
    let mut last = root;
    for file in files {
        let Some(version) = file.version else { continue };
        // 1.6 takes whatever is higher for 2 (seen on 1.6.20)
        let version = if dialect.is_v1_6() { version.min(dialect.newest_config()) } else { version };
        if version > dialect.newest_config() {
            return broken(file, format!("version = {version} is too new for {}, it does not start", dialect.name()));
        }
        if dialect == Dialect::V2_3 && version > root.unwrap_or(2) {
            return broken(
                file,
                format!("version = {version} is higher than that of the importing file, {} does not start", dialect.name()),
            );
        }
        last = Some(version);
    }
    Ok(match (last, dialect) {
        (Some(version), Dialect::V2_3) => root.unwrap_or(version),
        (Some(version), _) => version,
        (None, _) if files.is_empty() => 2,
        // raised to 3 without moving anything
        (None, Dialect::V2_0 | Dialect::V2_0_7 | Dialect::V2_1 | Dialect::V2_2) => 3,
        (None, Dialect::V2_3) => 2,
        (None, _) => 1,
    })
}

/// The CRI settings in the form of version 3, when the table counts.
fn counts(name: &str, node: &Node, version: i64, dialect: Dialect) -> Option<Node> {
    match (name, dialect.is_v2()) {
        ("cri", false) if version < 2 => Some(modern(node)),
        (CRI_V2, false) if version == 2 => Some(modern(node)),
        // 2.3 still moves the old table of a version 3 file (F6)
        (CRI_V2, true) if version <= 2 || version == 3 && dialect == Dialect::V2_3 => Some(modern(node)),
        (CRI_V3, true) => Some(node.clone()),
        _ => None,
    }
}

/// `sandbox_image` becomes `pinned_images.sandbox` (containerd 2.x, `plugins/cri/images/plugin.go`, `migrateConfig`).
fn modern(node: &Node) -> Node {
    let mut node = node.clone();
    if let Node::Table(spot, entries) = &mut node
        && let Some(image) = entries.remove("sandbox_image")
    {
        let pinned = Node::Table(*spot, BTreeMap::from([("sandbox".to_owned(), image)]));
        entries.insert("pinned_images".to_owned(), pinned);
    }
    node
}

fn settings(node: &Node, dialect: Dialect, place: &impl Fn(Spot) -> Place) -> HostSettings {
    let text = |key: &[&str]| node.get(key).and_then(Node::text).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let file = |key: &str| text(&["tls", key]).map(|path| NodePath::root().join(&path));
    let tls = node.get(&["tls"]).filter(|_| !dialect.is_v2()).map(|table| LegacyTls {
        skip_verify: table.get(&["insecure_skip_verify"]).and_then(Node::boolean).unwrap_or(false),
        ca: file("ca_file"),
        client: file("cert_file").zip(file("key_file")),
        half: file("cert_file").is_some() != file("key_file").is_some(),
        at: place(table.spot()),
    });
    let (basic, token) = node.get(&["auth"]).map(login).unwrap_or_default();
    HostSettings { tls, basic, token, auths: Vec::new(), at: place(node.spot()) }
}

/// A login as `registry.configs.*.auth` and `registry.auths.*` say it: `user:password`, and whether there is a token.
fn login(node: &Node) -> (Option<Secret>, bool) {
    let text = |key: &str| node.get(&[key]).and_then(Node::text).filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    let coded = text("auth").and_then(|coded| crate::model::cert::base64_decode(&coded));
    let plain = text("username").map(|user| format!("{user}:{}", text("password").unwrap_or_default()).into_bytes());
    (plain.or(coded).map(Secret::new), text("identitytoken").is_some())
}

/// The host that an entry of the deprecated `registry.auths` is for: that of a URL (`ValidatePluginConfig`,
/// pkg/cri/config/config.go). `None` where there is no `//`: `reg.local` and `reg.local:5000` are for nobody, as 1.6.20, 1.7.24
/// and 2.1.9 show. `Err` where Go reads no URL in it, as in `127.0.0.1:5000`: the CRI plugin does not load then.
fn auths_host(url: &str) -> Result<Option<&str>, ()> {
    let Some((scheme, rest)) = url.split_once(':').filter(|(first, _)| !first.contains(['/', '?', '#'])) else { return Ok(None) };
    let letters = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !(scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && letters(scheme)) {
        return Err(());
    }
    let authority = rest.strip_prefix("//").and_then(|rest| rest.split(['/', '?', '#']).next());
    Ok(authority.map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host)))
}
