//! What is watched, by inotify(7); where the kernel gives none, by looking from time to time.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::hash::{Hash, Hasher};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};

use super::places::places;
use crate::agent::machine::Event;
use crate::agent::state::Watches;
use crate::agent::watches::{self, MOST, Names};
use crate::model::path::NodePath;
use crate::node::root::Root;

/// Between two looks at what cannot be watched.
const LOOK: Duration = Duration::from_secs(15);
/// What is temporary and ours (`plan::build`, `node/stage`).
const OURS: &str = ".nodeprep-";

/// A folder with names that count.
#[derive(Clone, Debug)]
struct Wanted {
    of: Of,
    names: Names,
    /// What is really meant is not there yet: when this name comes, everything is set anew.
    comes: bool,
}

#[derive(Clone, Debug)]
enum Of {
    Spec,
    /// The folder as the node names it.
    Node(NodePath),
}

/// What is watched.
#[derive(Debug)]
pub(super) struct Watcher {
    spec: Option<PathBuf>,
    material: Option<PathBuf>,
    references: Vec<String>,
    node: Vec<(NodePath, Names)>,
    inotify: Option<Inotify>,
    on: HashMap<WatchDescriptor, Vec<Wanted>>,
    /// What cannot be watched, with how it looked last.
    looked: Vec<(PathBuf, Wanted, u64)>,
    next_look: Instant,
    anew: bool,
}

impl Watcher {
    pub(super) fn new(root: &Root, spec: Option<PathBuf>, material: Option<PathBuf>) -> Self {
        let node = watches::node(&[], &[]);
        let mut watcher = Self {
            spec,
            material,
            references: Vec::new(),
            node,
            inotify: None,
            on: HashMap::new(),
            looked: Vec::new(),
            next_look: Instant::now() + LOOK,
            anew: false,
        };
        let _ = watcher.set(root);
        watcher
    }

    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(Inotify::as_fd)
    }

    /// When what cannot be watched is looked at next.
    pub(super) fn due(&self, origin: Instant) -> Option<i64> {
        let at = self.next_look.saturating_duration_since(origin).as_millis();
        (!self.looked.is_empty()).then(|| i64::try_from(at).unwrap_or(i64::MAX))
    }

    /// What a pass has found to depend on.
    pub(super) fn concerned(&mut self, references: Vec<String>, configs: &[String]) {
        self.node = watches::node(configs, &references);
        self.references = references;
    }

    /// Watches everything anew: what was not there yet, or is another folder by now.
    pub(super) fn set(&mut self, root: &Root) -> Watches {
        // what is exchanged just now is not there for a moment
        for _ in 0..3 {
            if let Some(watches) = self.try_set(root, false) {
                return watches;
            }
        }
        self.try_set(root, true).unwrap_or_default()
    }

    /// `None` where a folder went away meanwhile, unless that is how it `may_be`.
    fn try_set(&mut self, root: &Root, may_be: bool) -> Option<Watches> {
        self.anew = false;
        self.on.clear();
        self.looked.clear();
        let mut why = BTreeSet::new();
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        self.inotify = Inotify::init(flags).map_err(|errno| why.insert(limit(errno))).ok();
        for (folder, wanted) in self.wanted(root) {
            let full = self.on.len() >= MOST;
            let failed = match self.inotify.as_ref().filter(|_| !full).map(|inotify| inotify.add_watch(&folder, events())) {
                Some(Ok(descriptor)) => {
                    self.on.entry(descriptor).or_default().push(wanted);
                    continue;
                }
                Some(Err(Errno::ENOENT | Errno::ENOTDIR)) if !may_be => return None,
                Some(Err(errno)) => limit(errno),
                None if full => format!("more than {MOST} folders"),
                None => String::new(),
            };
            if !failed.is_empty() {
                why.insert(failed);
            }
            let seen = print(&folder, &wanted.names);
            self.looked.push((folder, wanted, seen));
        }
        self.next_look = Instant::now() + LOOK;
        let polling = if self.looked.is_empty() {
            String::new()
        } else {
            let why: Vec<String> = why.into_iter().collect();
            format!("{} are looked at every {} s ({})", self.looked.len(), LOOK.as_secs(), why.join("; "))
        };
        Some(Watches { count: u32::try_from(self.on.len()).unwrap_or(u32::MAX), polling })
    }

    /// Folders that are there, with what counts in them: where one is missing, the next one above it that is there.
    fn wanted(&self, root: &Root) -> Vec<(PathBuf, Wanted)> {
        let mut all = Vec::new();
        let spec = self.spec.as_deref().map(|spec| places(spec, self.material.as_deref(), &self.references));
        for (mut folder, mut names) in spec.into_iter().flatten() {
            let mut comes = false;
            while !folder.is_dir() {
                let Some(name) = folder.file_name().map(|name| name.to_string_lossy().into_owned()) else { break };
                names = Names::Only(BTreeSet::from([name]));
                comes = true;
                folder.pop();
            }
            all.push((folder, Wanted { of: Of::Spec, names, comes }));
        }
        let root = root.afresh();
        let mut missing: BTreeMap<PathBuf, (NodePath, BTreeSet<String>)> = BTreeMap::new();
        for (folder, names) in &self.node {
            let place = |real: &NodePath| root.dir().join(real.as_str().trim_start_matches('/'));
            let mut at = folder.clone();
            loop {
                if let Ok(Some(found)) = root.folder(&at) {
                    let place = place(&found.path);
                    if at == *folder {
                        all.push((place, Wanted { of: Of::Node(at), names: names.clone(), comes: false }));
                    } else if let Some(name) = folder.inside(&at).and_then(|rest| rest.split('/').next()) {
                        missing.entry(place).or_insert_with(|| (at, BTreeSet::new())).1.insert(name.to_owned());
                    }
                    break;
                }
                let Some(parent) = at.parent() else { break };
                at = parent;
            }
        }
        let comes = |(place, (at, names))| (place, Wanted { of: Of::Node(at), names: Names::Only(names), comes: true });
        all.extend(missing.into_iter().map(comes));
        all
    }

    /// Whether everything is to be watched anew, now that what was heard last has been told.
    pub(super) const fn is_stale(&self) -> bool {
        self.anew
    }

    /// What has happened since.
    pub(super) fn hear(&mut self) -> Vec<Event> {
        let mut heard = Heard::default();
        while let Some(Ok(events)) = self.inotify.as_ref().map(Inotify::read_events) {
            if events.is_empty() {
                break;
            }
            for event in events {
                let name = event.name.as_ref().map(|name| name.to_string_lossy().into_owned());
                if event.mask.contains(AddWatchFlags::IN_Q_OVERFLOW) {
                    heard.everything(&self.node);
                    self.anew = true;
                    continue;
                }
                let gone = event.mask.intersects(AddWatchFlags::IN_IGNORED | AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF);
                for wanted in self.on.get(&event.wd).into_iter().flatten() {
                    self.anew |= heard.of(wanted, name.as_deref(), gone);
                }
            }
        }
        if !self.looked.is_empty() && Instant::now() >= self.next_look {
            self.next_look = Instant::now() + LOOK;
            for (folder, wanted, seen) in &mut self.looked {
                let now = print(folder, &wanted.names);
                if now != *seen {
                    *seen = now;
                    self.anew |= heard.of(wanted, None, true);
                }
            }
        }
        heard.events()
    }

    /// Watches everything anew, and misses nothing meanwhile.
    pub(super) fn renew(&mut self, root: &Root) -> Vec<Event> {
        let before = self.inotify.take();
        let mut events = vec![Event::Watching(self.set(root))];
        // what came between the last reading and now; which of it counts is not worth knowing
        if before.is_some_and(|before| before.read_events().is_ok_and(|late| !late.is_empty())) {
            let mut heard = Heard::default();
            heard.everything(&self.node);
            events.extend(heard.events());
        }
        events
    }
}

#[derive(Default)]
struct Heard {
    spec: bool,
    node: BTreeSet<String>,
}

impl Heard {
    /// Whether everything is to be watched anew for it. `all`: whatever the name is.
    fn of(&mut self, wanted: &Wanted, name: Option<&str>, all: bool) -> bool {
        let counts = match (&wanted.names, name) {
            (Names::All, _) | (_, None) => true,
            (Names::Only(names), Some(name)) => names.contains(name),
        };
        if !all && !counts {
            return false;
        }
        match &wanted.of {
            Of::Spec => {
                self.spec = true;
                true
            }
            Of::Node(folder) => {
                if name.is_some_and(|name| name.starts_with(OURS)) {
                    return false;
                }
                self.node.insert(name.map_or_else(|| folder.clone(), |name| folder.join(name)).as_str().to_owned());
                wanted.comes || all || name.is_some_and(is_folder_of_configuration)
            }
        }
    }

    fn everything(&mut self, node: &[(NodePath, Names)]) {
        self.spec = true;
        self.node.extend(node.iter().map(|(folder, _)| folder.as_str().to_owned()));
    }

    fn events(self) -> Vec<Event> {
        let spec = self.spec.then_some(Event::SpecChanged);
        let node = (!self.node.is_empty()).then(|| Event::NodeChanged(self.node.into_iter().collect()));
        spec.into_iter().chain(node).collect()
    }
}

/// One that is watched itself, once it is there: `certs.d`, `conf.d`.
fn is_folder_of_configuration(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "d")
}

fn events() -> AddWatchFlags {
    AddWatchFlags::IN_CLOSE_WRITE
        | AddWatchFlags::IN_MOVE
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_ONLYDIR
}

/// Why something cannot be watched: the two limits are known by name.
fn limit(errno: Errno) -> String {
    match errno {
        Errno::EMFILE => "fs.inotify.max_user_instances is reached".to_owned(),
        Errno::ENOSPC => "fs.inotify.max_user_watches is reached".to_owned(),
        other => other.desc().to_lowercase(),
    }
}

/// How the names that count look from outside.
fn print(folder: &Path, names: &Names) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut see = |path: &Path| {
        let found = fs::symlink_metadata(path).ok();
        let times = found
            .map(|found| (found.dev(), found.ino(), found.mode(), found.size(), found.mtime(), found.mtime_nsec(), found.ctime_nsec()));
        (path, times).hash(&mut hasher);
    };
    see(folder);
    match names {
        Names::Only(names) => names.iter().for_each(|name| see(&folder.join(name))),
        Names::All => {
            let mut all: Vec<PathBuf> = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
            all.sort();
            for path in &all {
                see(path);
            }
        }
    }
    hasher.finish()
}
