//! Which registries.conf files a runtime reads, and what they say together (`runtime-semantics.md` 2.1, 2.6, 2.8).

use crate::format::registries_conf::{Conf, DROP_IN, Invalid, drop_in_dir, main_file, parse};
use crate::format::{certs_d, crio_conf};
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::resolution::{FileVerdict, Verdict};
use crate::model::tree::{Entry, Found, Tree};
use crate::model::version::Version;
use crate::runtime::{FoundRuntime, Runtime, Wish};

/// Where a runtime looks for registries.conf.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The main file.
    pub main: NodePath,
    /// The main file was named in the environment: it must exist then.
    pub explicit: bool,
    /// Folders of drop-ins, in order.
    pub dirs: Vec<NodePath>,
    /// The main file is the daemon's own in its home folder, and hides `/etc/containers`.
    pub hides_etc: bool,
    /// A main file of version 1 is refused: from containers/image 5.40 on, which is Podman 6 ("registries.conf must be in v2
    /// format but is in v1"). Of CRI-O no such version is known.
    pub only_2: bool,
    /// A byte order mark is a syntax error: BurntSushi/toml passes over it from 1.3 on (its pull request 381), which Podman 4.6
    /// and CRI-O 1.28 came with; Podman 4.3.1 refuses it, 5.4.2 does not.
    pub no_mark: bool,
}

/// The daemon's home folder: `HOME`, which root's daemons mostly lack; then `/root`.
#[must_use]
pub fn home(on: &FoundRuntime) -> NodePath {
    variable(on, "HOME").and_then(|home| NodePath::new(home).ok()).unwrap_or_else(|| NodePath::fixed("/root"))
}

/// A variable of the daemon's environment, when it is set to something.
#[must_use]
pub fn variable<'a>(on: &'a FoundRuntime, name: &str) -> Option<&'a str> {
    on.env.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// Where `on` looks: the environment, else the home folder, else `/etc`.
#[must_use]
pub fn places(tree: &Tree, on: &FoundRuntime) -> Places {
    let prefix = if on.runtime == Runtime::Crio { "CONTAINER" } else { "CONTAINERS" };
    let named = |suffix: &str| variable(on, &format!("{prefix}_REGISTRIES_CONF{suffix}")).and_then(|path| NodePath::new(path).ok());
    let (main, dir) = (named(""), named("_DIR"));
    let own = home(on).join(".config/containers/registries.conf");
    let own_dir = home(on).join(".config/containers/registries.conf.d");
    let hides_etc = main.is_none() && tree.exists(&own);
    let dirs = match dir {
        Some(dir) => vec![dir],
        None if hides_etc => vec![own_dir],
        None => vec![drop_in_dir(), own_dir],
    };
    let explicit = main.is_some();
    let main = main.unwrap_or_else(|| if hides_etc { own } else { main_file() });
    let only_2 = on.runtime == Runtime::Podman && on.installed.is_some_and(|version| version >= Version(6, 0, 0));
    let reading = on.running.as_ref().and_then(|running| running.version).or(on.installed);
    let marks = if on.runtime == Runtime::Crio { Version(1, 28, 0) } else { Version(4, 6, 0) };
    let no_mark = reading.is_some_and(|version| version < marks);
    Places { main, explicit, dirs, hides_etc, only_2, no_mark }
}

/// What the files say together, and what each was good for.
#[derive(Clone, Debug, Default)]
pub struct Loaded {
    /// The files that count, in order, each with what it says alone.
    pub layers: Vec<(NodePath, Conf)>,
    /// All of them, each laid over the ones before.
    pub conf: Conf,
    /// The first rule that is broken; every pull fails then.
    pub broken: Option<Invalid>,
    /// Every file that stands where such files are looked for.
    pub files: Vec<FileVerdict>,
}

/// Reads all files as the runtime does.
#[must_use]
pub fn load(tree: &Tree, places: &Places) -> Loaded {
    let mut loaded = Loaded::default();
    loaded.read(tree, places, &places.main, false, places.explicit);
    for dir in &places.dirs {
        let linked = tree.real_parent(dir).and_then(|real| tree.entry(&real).cloned());
        if matches!(linked, Some(Entry::Link { .. })) {
            loaded.verdict(dir, Verdict::Ignored("is a symbolic link, which is not followed here".to_owned()));
            continue;
        }
        if let Found::Unreadable(why) = tree.find(dir) {
            loaded.fail(dir, "unreadable", why.to_owned());
        }
        for name in tree.names(dir) {
            let file = dir.join(&name);
            if let Found::Dir = tree.find(&file) {
                loaded.verdict(&file, Verdict::Ignored("is a folder".to_owned()));
            } else if name.strip_suffix(".conf").is_some() {
                loaded.read(tree, places, &file, true, true);
            } else {
                loaded.verdict(&file, Verdict::Ignored("its name does not end in .conf".to_owned()));
            }
        }
    }
    if places.hides_etc {
        let dir = drop_in_dir();
        let mut hidden = vec![main_file()];
        hidden.extend(tree.names(&dir).iter().map(|name| dir.join(name)));
        for file in hidden.iter().filter(|file| !places.dirs.contains(&dir) && tree.exists(file)) {
            loaded.verdict(file, Verdict::Shadowed(places.main.clone()));
        }
    }
    loaded.shadowed();
    loaded
}

impl Loaded {
    /// A drop-in that says nothing that counts: each of its entries is said again in a later one, in other words. What ours
    /// replaces was told when it did.
    fn shadowed(&mut self) {
        for (file, conf) in &self.layers {
            let Conf { search, short_name_mode, credential_helpers, aliases, registries, version_1 } = conf;
            let more = search.is_some() || short_name_mode.is_some() || credential_helpers.is_some() || !aliases.is_empty();
            if more || *version_1 || registries.is_empty() {
                continue;
            }
            let counts = registries.values().filter_map(|entry| Some((entry, self.conf.registries.get(&entry.prefix)?)));
            let by: Vec<Option<&str>> = counts
                .map(|(entry, counts)| {
                    let by = (!counts.means(entry)).then_some(&*counts.at.file)?;
                    (!by.ends_with(&format!("/{DROP_IN}"))).then_some(by)
                })
                .collect();
            let Some(Some(by)) = by.first().filter(|_| by.iter().all(Option::is_some)) else { continue };
            let Ok(by) = NodePath::new(by) else { continue };
            if let Some(verdict) = self.files.iter_mut().find(|verdict| verdict.path == *file) {
                verdict.verdict = Verdict::Shadowed(by);
            }
        }
    }

    fn read(&mut self, tree: &Tree, places: &Places, file: &NodePath, drop_in: bool, must_exist: bool) {
        let bytes = match tree.find(file) {
            Found::File(bytes, _) => bytes,
            Found::Absent | Found::Unread if !must_exist => return,
            Found::Absent | Found::Unread => return self.fail(file, "missing", "does not exist".to_owned()),
            Found::Dir => return self.fail(file, "unreadable", "is a folder".to_owned()),
            Found::Unreadable(why) => return self.fail(file, "unreadable", why.to_owned()),
        };
        let Ok(text) = std::str::from_utf8(bytes) else { return self.fail(file, "syntax", "is not UTF-8".to_owned()) };
        if places.no_mark && text.starts_with('\u{feff}') {
            return self.fail(file, "syntax", "begins with a byte order mark, which this version does not read".to_owned());
        }
        match parse(file, text, drop_in) {
            Ok(conf) if conf.version_1 && places.only_2 => {
                self.fail(file, "v1", "is of version 1 ([registries.…] tables), which Podman 6 does not read any more".to_owned());
            }
            Ok(conf) => {
                self.verdict(file, Verdict::Used);
                self.conf.merge(conf.clone());
                self.layers.push((file.clone(), conf));
            }
            Err(invalid) => {
                self.verdict(file, Verdict::Broken(invalid.to_string()));
                self.broken.get_or_insert(invalid);
            }
        }
    }

    fn fail(&mut self, file: &NodePath, rule: &'static str, what: String) {
        self.verdict(file, Verdict::Broken(what.clone()));
        self.broken.get_or_insert(Invalid { at: Place::file(file.as_str()), rule, what });
    }

    fn verdict(&mut self, path: &NodePath, verdict: Verdict) {
        self.files.push(FileVerdict { path: path.clone(), verdict });
    }
}

/// What CRI-O's own files say about images: `crio.conf`, then everything below `crio.conf.d` in the order of the paths.
/// Files that cannot be read are left out: CRI-O does not start with them, which is not our matter here.
#[must_use]
pub fn crio_image(tree: &Tree, on: &FoundRuntime) -> crio_conf::Image {
    let mut image = crio_conf::Image::default();
    for (_, later) in crio_files(tree, on) {
        image.merge(later);
    }
    image
}

/// CRI-O's pause image, as its files say or its version has it built in (`runtime-semantics.md` 2.8).
#[must_use]
pub fn pause_image(on: &FoundRuntime, tree: &Tree) -> Option<String> {
    let built_in = match on.running.as_ref().and_then(|running| running.version).or(on.installed) {
        Some(version) if version < Version(1, 32, 0) => "registry.k8s.io/pause:3.9",
        Some(version) if version < Version(1, 34, 0) => "registry.k8s.io/pause:3.10",
        Some(_) | None => "registry.k8s.io/pause:3.10.1",
    };
    Some(crio_image(tree, on).pause_image.unwrap_or_else(|| built_in.to_owned()))
}

/// The same file by file.
#[must_use]
pub fn crio_files(tree: &Tree, on: &FoundRuntime) -> Vec<(NodePath, crio_conf::Image)> {
    let mut files = vec![on.config.clone()];
    walk(tree, &crio_conf::drop_in_dir(), &mut files, 0);
    let read = |file: NodePath| Some((file.clone(), crio_conf::parse(&tree.text(&file)?).ok()?));
    files.into_iter().filter_map(read).collect()
}

/// Where CRI-O listens: `listen` of `[crio.api]`, the last file wins (crio.conf(5)).
#[must_use]
pub fn socket(on: &FoundRuntime, tree: &Tree) -> NodePath {
    let mut files = vec![on.config.clone()];
    walk(tree, &crio_conf::drop_in_dir(), &mut files, 0);
    let said = |file: &NodePath| NodePath::new(&crio_conf::listen(&tree.text(file)?)?).ok();
    files.iter().rev().find_map(said).unwrap_or_else(|| NodePath::fixed(CRIO_SOCKET))
}

/// Where it listens when nobody says otherwise.
const CRIO_SOCKET: &str = "/var/run/crio/crio.sock";

fn walk(tree: &Tree, dir: &NodePath, files: &mut Vec<NodePath>, depth: u8) {
    for name in tree.names(dir) {
        let path = dir.join(&name);
        match tree.find(&path) {
            Found::Dir if depth < CRIO_DEPTH => walk(tree, &path, files, depth + 1),
            Found::Dir => {}
            _ => files.push(path),
        }
    }
}

/// As deep as anybody nests `crio.conf.d`.
const CRIO_DEPTH: u8 = 4;

/// What has to be in the tree before a [`super::View`] can be made of it. `found` may be empty: the usual places then.
#[must_use]
pub fn wishes(tree: &Tree, found: &[&FoundRuntime]) -> Vec<Wish> {
    let mut homes: Vec<NodePath> = found.iter().map(|on| home(on)).collect();
    homes.push(NodePath::fixed("/root"));
    let mut wishes = vec![Wish::path(main_file()), Wish::folder(drop_in_dir(), 1)];
    wishes.push(Wish::path(NodePath::fixed("/etc/crio/crio.conf")));
    wishes.push(Wish::folder(crio_conf::drop_in_dir(), CRIO_DEPTH));
    for home in &homes {
        wishes.push(Wish::path(home.join(".config/containers/registries.conf")));
        wishes.push(Wish::folder(home.join(".config/containers/registries.conf.d"), 1));
        wishes.extend(certs_d::roots(home).into_iter().map(|root| Wish::folder(root, 2)));
        wishes.extend(super::logins::defaults(home).into_iter().map(Wish::path));
    }
    for on in found {
        let places = places(tree, on);
        wishes.push(Wish::path(places.main));
        wishes.extend(places.dirs.into_iter().map(|dir| Wish::folder(dir, 1)));
        if on.runtime == Runtime::Crio {
            wishes.push(Wish::path(on.config.clone()));
        }
        wishes.extend(super::logins::consulted(tree, on).into_iter().map(Wish::path));
    }
    // what links in these folders point to
    let folders: Vec<NodePath> = wishes.iter().filter(|wish| wish.depth > 0).map(|wish| wish.path.clone()).collect();
    for folder in folders {
        for path in tree.names(&folder).iter().map(|name| folder.join(name)) {
            let inner = tree.names(&path).into_iter().map(|name| path.join(&name)).collect::<Vec<_>>();
            let unread = |path: &NodePath| tree.find(path) == Found::Unread;
            wishes.extend(std::iter::once(path).chain(inner).filter(unread).map(|path| Wish::folder(path, 1)));
        }
    }
    order::sort(&mut wishes);
    wishes.dedup();
    wishes
}
