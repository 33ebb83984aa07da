//! A shadow: a throw-away containerd that shows whether the installed one would come up with config.toml as it will be, without
//! anything of the live one (docs/adr/0015).
//!
//! What lives here: when there is something to try, the files as they will be, and the *reduced* configuration: what the spec can
//! change (registries and images of the CRI plugin, as merged from the imports), and nothing by which two daemons could meet. It is
//! built from a list of what is taken over, so that what nobody thought of stays out. What must not: running it (`node/shadow`).

use std::collections::{BTreeMap, BTreeSet};

use toml_edit::{DocumentMut, Item, Table, value};

use super::Dialect;
use crate::format::config_toml::merged::Node;
use crate::format::config_toml::{CRI_V2, CRI_V3, Chain, CriTable};
use crate::model::cert::base64_decode;
use crate::model::content::Content;
use crate::model::order::{self, Gather as _};
use crate::model::path::NodePath;
use crate::model::secret::Secret;
use crate::model::tree::{Entry, Found, Tree};
use crate::model::version::Version;
use crate::runtime::{FoundRuntime, Runtime, unit};

/// Everything that a shadow has is below this folder, which is memory of its own.
pub const FOLDER: &str = "/run/nodeprep-shadow";
/// The socket of its CRI plugin.
pub const SOCKET: &str = "/run/nodeprep-shadow/grpc.sock";

/// What is taken over of the CRI plugin's settings for images, as files of version 3 name it: numbers, switches and the names of
/// images. Nothing of it is opened, bound or written when the plugin loads.
const IMAGES: [&str; 6] = [
    "concurrent_layer_fetch_buffer",
    "image_pull_progress_timeout",
    "image_pull_with_sync_fs",
    "max_concurrent_downloads",
    "stats_collect_period",
    "use_local_image_pull",
];
/// All that is known below `registry` (1.6 to 2.3: `Registry` in pkg/cri/config/config.go, internal/cri/config/config.go).
const REGISTRY: [&str; 5] = ["auths", "config_path", "configs", "headers", "mirrors"];
/// Keys below `registry` whose values are secrets.
const LOGINS: [&str; 2] = ["auth", "headers"];

/// What needs devices, what is not containerd's own, and what would look beyond the shadow's folder. Nothing that the CRI plugin needs:
/// without `image-verifier.v1.bindir`, which only pulls run, it does not load (seen on 2.1.9).
const DISABLED: [&str; 12] = [
    "io.containerd.internal.v1.opt",
    "io.containerd.internal.v1.restart",
    "io.containerd.internal.v1.tracing",
    "io.containerd.nri.v1.nri",
    "io.containerd.tracing.processor.v1.otlp",
    "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.blockfile",
    "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.erofs",
    "io.containerd.snapshotter.v1.zfs",
    "io.containerd.differ.v1.erofs",
];

/// Why it cannot be told whether the daemon would come up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CouldNotTry(pub String);

/// What is tried.
#[derive(Clone, Debug)]
pub struct Shadow {
    /// The installed daemon.
    pub program: NodePath,
    /// The file that it reads.
    pub config: NodePath,
    /// Whether there will be one: without it, it starts with what is built in.
    pub configured: bool,
    /// Files (real paths) as they will be, where that is not what is there now; `None` is one that will be gone.
    pub laid: BTreeMap<NodePath, Option<Content>>,
    /// The configuration that a shadow is started with.
    pub reduced: Result<Content, CouldNotTry>,
    /// The same without anything of the node: when a daemon does not come up with this, it is not for its configuration.
    pub control: String,
    /// What must not be shown of the daemon's words.
    pub secrets: Vec<Secret>,
}

/// What is to be tried before `after` takes the place of `before`; `None` when this containerd reads nothing else than before, or
/// has no program on the node.
#[must_use]
pub fn shadow(before: &Tree, after: &Tree, on: &FoundRuntime) -> Option<Shadow> {
    let program = program(before, on).filter(|_| on.runtime == Runtime::Containerd)?;
    let dialect = dialect(on);
    let read = |tree: &Tree| read_at_start(tree, &on.config, dialect.as_ref().copied().unwrap_or(Dialect::V2_3));
    let files: BTreeSet<NodePath> = read(before).into_iter().chain(read(after)).gathered();
    if files.iter().all(|path| before.bytes(path) == after.bytes(path)) {
        return None;
    }
    let secrets = secrets(after, &files);
    let reduced = dialect.and_then(|dialect| reduce(after, &on.config, dialect));
    let reduced = reduced.map(|text| Content::secret(text, secrets.clone()));
    let control = empty(on.installed.is_some_and(|version| version.0 >= 2)).to_string();
    let configured = after.exists(&on.config);
    Some(Shadow {
        program,
        config: on.config.clone(),
        configured,
        laid: laid(before, after, &on.config, &files, &secrets),
        reduced,
        control,
        secrets,
    })
}

/// The reduced configuration of containerd versions of that class, in a file of version 2 or 3.
///
/// # Errors
/// When it says something that is not understood, or switches the CRI plugin off: nothing could be seen of it then.
pub fn reduce(tree: &Tree, config: &NodePath, dialect: Dialect) -> Result<String, CouldNotTry> {
    let told = |what: String| CouldNotTry(what);
    let read = CriTable::read(tree, config, dialect).map_err(|broken| told(format!("{}: {}", broken.at, broken.why)))?;
    if let Some(at) = &read.disabled {
        return Err(told(format!("{at}: disabled_plugins names the CRI plugin, so there is nothing to be seen of it")));
    }
    // what 1.x and 2.0–2.2 take for version 1 or 3 without saying is said here; of the tables that count, both have the same
    let modern = dialect.is_v2() && read.version >= 3;
    let mut document = empty(modern);
    let mut table = Table::new();
    if let Some(registry) = read.table.get(&["registry"]) {
        let entries = registry.entries().ok_or_else(|| told("registry of the CRI plugin is no table".to_owned()))?;
        if let Some(unknown) = entries.keys().find(|key| !REGISTRY.contains(&key.as_str())) {
            return Err(told(format!("registry.{unknown} of the CRI plugin is not known to nodeprep")));
        }
        table.insert("registry", registry.item());
    }
    for key in IMAGES {
        // settings, not tables: a table here is nothing that is known
        if let Some(node @ Node::Leaf(..)) = read.table.get(&[key]) {
            table.insert(key, node.item());
        }
    }
    let pause = read.table.get(&["pinned_images", "sandbox"]).filter(|node| node.text().is_some());
    if let Some(pause) = pause {
        if modern {
            table.insert("pinned_images", Item::Table([("sandbox", pause.item())].into_iter().collect()));
        } else {
            table.insert("sandbox_image", pause.item());
        }
    }
    let plugin = if modern { CRI_V3 } else { CRI_V2 };
    let target = document["plugins"].as_table_mut().map(|plugins| plugins.entry(plugin).or_insert(Item::Table(Table::new())));
    if let Some(Item::Table(target)) = target {
        target.extend(table.iter().map(|(key, item)| (key.to_owned(), item.clone())));
    }
    Ok(document.to_string())
}

/// A configuration by which a daemon meets nobody: every folder, socket and address of its own.
fn empty(modern: bool) -> DocumentMut {
    let at = |name: &str| value(format!("{FOLDER}/{name}"));
    let mut document = DocumentMut::new();
    document["version"] = value(if modern { 3 } else { 2 });
    document["root"] = at("root");
    document["state"] = at("state");
    document["disabled_plugins"] = value(DISABLED.into_iter().collect::<toml_edit::Array>());
    let table = |entries: &[(&str, Item)]| Item::Table(entries.iter().map(|(key, item)| (*key, item.clone())).collect());
    document["grpc"] = table(&[("address", value(SOCKET))]);
    document["ttrpc"] = table(&[("address", at("ttrpc.sock"))]);
    document["debug"] = table(&[("address", at("debug.sock"))]);
    // a network plugin of the node would be run to ask how it is
    let cni = table(&[("bin_dir", at("cni/bin")), ("conf_dir", at("cni/net.d"))]);
    let mut cri = Table::new();
    cri.set_implicit(true);
    cri.insert("cni", cni);
    let mut plugins = Table::new();
    plugins.set_implicit(true);
    plugins.insert(if modern { "io.containerd.cri.v1.runtime" } else { CRI_V2 }, Item::Table(cri));
    document["plugins"] = Item::Table(plugins);
    document
}

/// The daemon's program: the one that the unit starts, else the one that was found; not one that is known not to be there.
fn program(tree: &Tree, on: &FoundRuntime) -> Option<NodePath> {
    let is_daemon = |path: &NodePath| path.name() == "containerd";
    let of_unit = on.unit.as_deref().and_then(|name| unit::read(tree, name)).and_then(|unit| NodePath::new(unit.exec.first()?).ok());
    let known = of_unit.into_iter().chain([on.because.clone()]);
    known.into_iter().find(|path| is_daemon(path) && !matches!(tree.find(path), Found::Absent))
}

fn dialect(on: &FoundRuntime) -> Result<Dialect, CouldNotTry> {
    match on.installed {
        None => Err(CouldNotTry("the version of the installed containerd is not known".to_owned())),
        Some(version @ Version(3.., ..)) => Err(CouldNotTry(format!("containerd {version} is not known to nodeprep"))),
        Some(version) => Ok(Dialect::of_version(version)),
    }
}

/// The files (real paths) that it reads when it starts: config.toml and its imports, as far as that can be told.
fn read_at_start(tree: &Tree, config: &NodePath, dialect: Dialect) -> Vec<NodePath> {
    let files = Chain::read(tree, config, dialect).map_or_else(|_| vec![config.clone()], |chain| chain.files);
    files.iter().filter_map(|path| tree.real(path)).collect()
}

/// What will be otherwise in the folder of config.toml and below, and all that it reads: some of that may be hidden where the shadow
/// has memory of its own.
fn laid(
    before: &Tree,
    after: &Tree,
    config: &NodePath,
    files: &BTreeSet<NodePath>,
    secrets: &[Secret],
) -> BTreeMap<NodePath, Option<Content>> {
    let folder = after.real(config).and_then(|real| real.parent()).unwrap_or_else(NodePath::root);
    let content = |tree: &Tree, path: &NodePath| match tree.recorded(path) {
        Some(Entry::File { bytes, .. }) => Some(bytes.clone()),
        _ => None,
    };
    let mut laid = BTreeMap::new();
    for path in before.iter().chain(after.iter()).map(|(path, _)| path) {
        let (was, will) = (content(before, path), content(after, path));
        let is_file = was.is_some() || will.is_some();
        if is_file && (files.contains(path) || path.is_below(&folder) && was != will) {
            laid.insert(path.clone(), will.map(|bytes| Content::secret(&*bytes, secrets.to_vec())));
        }
    }
    laid
}

/// Logins in what it reads, also where it cannot be parsed: its words may quote a line.
fn secrets(tree: &Tree, files: &BTreeSet<NodePath>) -> Vec<Secret> {
    let mut found: Vec<String> = Vec::new();
    let beside = files.iter().filter_map(NodePath::parent).gathered::<BTreeSet<_>>();
    for (path, entry) in tree.iter() {
        let Entry::File { bytes, .. } = entry else { continue };
        let is_config = files.contains(path)
            || path.name().rsplit_once('.').is_some_and(|(_, end)| end == "toml") && beside.iter().any(|folder| path.is_below(folder));
        if !is_config {
            continue;
        }
        let text = String::from_utf8_lossy(bytes);
        if let Ok(document) = toml_edit::Document::parse(&*text) {
            let spot = crate::format::config_toml::merged::Spot { file: 0, offset: 0 };
            logins(&Node::table(document.as_table(), 0, spot), false, &mut found);
        } else {
            let speaks = |line: &&str| ["auth", "password", "token", "header"].iter().any(|word| line.to_ascii_lowercase().contains(word));
            let quoted = text.lines().filter(speaks).flat_map(|line| line.split(['"', '\'']).skip(1).step_by(2));
            found.extend(quoted.map(ToOwned::to_owned));
        }
    }
    let decoded: Vec<Secret> = found.iter().filter_map(|text| base64_decode(text)).map(Secret::new).collect();
    let mut secrets: Vec<Secret> = found.into_iter().map(|text| Secret::new(text.into_bytes())).chain(decoded).collect();
    order::sort(&mut secrets);
    secrets.dedup();
    secrets
}

/// Every text at or below a key that holds logins.
fn logins(node: &Node, inside: bool, found: &mut Vec<String>) {
    if inside {
        found.extend(node.all_texts());
        return;
    }
    for (key, below) in node.entries().into_iter().flatten() {
        let key = key.to_ascii_lowercase();
        let holds =
            LOGINS.contains(&key.as_str()) || ["header", "auths", "password", "identitytoken", "authorization"].contains(&key.as_str());
        logins(below, holds, found);
    }
}
