//! A scratch root, a picture of it, and the smallest planner that uses everything the executor can do.
#![allow(dead_code, reason = "each test program uses its part")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::format_collect,
    reason = "tests look, panic and talk"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nodeprep::apply::health::Look;
use nodeprep::apply::{self, Door, Outcome, UnitError};
use nodeprep::desired::Target;
use nodeprep::ledger::{Ledger, Owned, Prior, Stamp};
use nodeprep::model::content::Content;
use nodeprep::model::cri::CriError;
use nodeprep::model::path::NodePath;
use nodeprep::model::tree::{Entry, Meta, Tree};
use nodeprep::node::command::{CommandError, Output};
use nodeprep::node::read::read;
use nodeprep::node::root::Root;
use nodeprep::node::{blobs, lock::Lock};
use nodeprep::plan::canary::Canary;
use nodeprep::plan::turn::Turn;
use nodeprep::plan::{Act, Expect, Plan, Step, prior};
use nodeprep::runtime::Wish;

pub const STATE: &str = "/var/lib/nodeprep";

pub fn path(text: &str) -> NodePath {
    NodePath::new(text).unwrap()
}

/// A folder for roots: in memory where that is possible, so that syncing costs nothing.
pub fn scratch() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let inside = if fs::metadata(memory).is_ok_and(|found| found.is_dir()) { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("nodeprep-test").tempdir_in(inside).unwrap()
}

pub fn put(root: &Path, at: &str, bytes: &str) {
    let file = root.join(at.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, bytes).unwrap();
}

pub fn link(root: &Path, at: &str, to: &str) {
    let file = root.join(at.trim_start_matches('/'));
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    symlink(to, file).unwrap();
}

pub fn get(root: &Path, at: &str) -> Option<String> {
    fs::read_to_string(root.join(at.trim_start_matches('/'))).ok()
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Thing {
    File(String, u32, u32),
    Link(String),
    Dir(u32),
}

/// Everything below a root but the state folder.
pub fn picture(root: &Path) -> BTreeMap<String, Thing> {
    let mut all = BTreeMap::new();
    walk(root, "", &mut all);
    all
}

fn walk(root: &Path, at: &str, all: &mut BTreeMap<String, Thing>) {
    for entry in fs::read_dir(root.join(at.trim_start_matches('/'))).unwrap() {
        let entry = entry.unwrap();
        let here = format!("{at}/{}", entry.file_name().to_str().unwrap());
        if here == STATE {
            continue;
        }
        let meta = entry.path().symlink_metadata().unwrap();
        let mode = meta.permissions().mode() & 0o7777;
        if meta.is_symlink() {
            all.insert(here, Thing::Link(fs::read_link(entry.path()).unwrap().to_str().unwrap().to_owned()));
        } else if meta.is_dir() {
            all.insert(here.clone(), Thing::Dir(mode));
            walk(root, &here, all);
        } else {
            let bytes = fs::read(entry.path()).unwrap();
            all.insert(here, Thing::File(String::from_utf8_lossy(&bytes).into_owned(), mode, meta.uid()));
        }
    }
}

/// What two pictures differ in.
pub fn difference(one: &BTreeMap<String, Thing>, other: &BTreeMap<String, Thing>) -> String {
    let all: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let differs = all.into_iter().filter(|at| one.get(*at) != other.get(*at));
    differs.map(|at| format!("\n{at}: {:?} instead of {:?}", one.get(at), other.get(at))).collect()
}

pub fn has_staging(picture: &BTreeMap<String, Thing>) -> bool {
    picture.keys().any(|at| at.contains(".nodeprep"))
}

pub fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Commands succeed and are remembered.
#[derive(Default)]
pub struct Scripted {
    pub ran: Vec<Vec<String>>,
    pub status: i32,
}

impl Door for Scripted {
    fn run(&mut self, argv: &[String]) -> Result<Output, CommandError> {
        self.ran.push(argv.to_vec());
        Ok(Output { status: self.status, stdout: String::new(), stderr: "it said no".to_owned() })
    }

    fn look(&mut self, _: &Turn) -> Look {
        Look::default()
    }

    fn turn(&mut self, turn: &Turn, _: bool) -> Result<(), UnitError> {
        Err(UnitError::Job { said: format!("there is no {}", turn.unit) })
    }

    fn watch(&mut self, turn: &Turn, mut enough: impl FnMut(&Look, Duration) -> bool) -> Look {
        let look = self.look(turn);
        enough(&look, Duration::ZERO);
        look
    }

    fn pull(&mut self, canary: &Canary) -> Result<(), CriError> {
        Err(CriError::Absent { path: canary.socket.clone() })
    }
}

/// Path → content; a path below `/etc/certs.d/X/` belongs to the folder unit `/etc/certs.d/X`; a name with `-addressed`
/// is content-addressed; `config.toml` is written through a link.
pub type Want = BTreeMap<String, String>;

fn unit(path: &NodePath) -> Option<NodePath> {
    path.parent().filter(|folder| folder.parent() == Some(self::path("/etc/certs.d")))
}

fn stage_of(path: &NodePath) -> NodePath {
    self::path(&format!("/{}", path.components().next().unwrap_or_default()))
}

fn target() -> Target {
    Target::Containers
}

pub fn step(path: NodePath, expect: Expect, act: Act) -> Step {
    Step { target: target(), path, expect, act, why: "test".to_owned() }
}

pub fn put_file(at: &NodePath, expect: Expect, bytes: &str, meta: Meta, through_link: bool) -> Step {
    let act = Act::PutFile { content: Content::public(bytes), meta, through_link, stage: stage_of(at) };
    step(at.clone(), expect, act)
}

pub fn owned(origin: Prior) -> Owned {
    Owned { target: target(), now: Stamp::Absent, origin, keys: Vec::new(), format: None, shared: false }
}

pub fn see(root: &Root, want: &Want, ledger: &Ledger) -> Tree {
    let mut wishes: Vec<Wish> = want.keys().map(|at| Wish::path(path(at))).collect();
    wishes.extend(ledger.owned.keys().cloned().map(Wish::path));
    wishes.push(Wish::folder(path("/etc/certs.d"), 2));
    read(root, |_| wishes.clone())
}

fn entry_of(tree: &Tree, at: &NodePath) -> Entry {
    let real = if at.name() == "config.toml" { tree.real(at) } else { tree.real_parent(at) };
    tree.entry(&real.unwrap()).cloned().unwrap_or(Entry::Absent)
}

/// The plan that makes the node hold what is wanted and puts back everything else that we own.
pub fn plan(root: &Root, ledger: &Ledger, want: &Want) -> Plan {
    let tree = see(root, want, ledger);
    let mut plan = Plan::default();
    let mut units: BTreeMap<NodePath, BTreeMap<String, String>> = BTreeMap::new();
    let origin = |at: &NodePath| ledger.owned.get(at).map_or_else(|| prior(&entry_of(&tree, at)).unwrap(), |owned| owned.origin.clone());
    for (at, bytes) in want {
        let at = path(at);
        plan.owned.insert(at.clone(), owned(origin(&at)).into());
        if let Some(unit) = unit(&at) {
            units.entry(unit).or_default().insert(at.name().to_owned(), bytes.clone());
            continue;
        }
        let entry = entry_of(&tree, &at);
        let through = at.name() == "config.toml";
        if let Entry::File { bytes: found, meta } = &entry
            && **found == *bytes.as_bytes()
            && (through || meta.mode == 0o644)
        {
            continue;
        }
        let meta = match &entry {
            Entry::File { meta, .. } if through => meta.clone(),
            _ => Meta::new(0o644),
        };
        let step = put_file(&at, Expect::of(&entry).unwrap(), bytes, meta, through);
        if at.name().contains("-addressed") { plan.stage.push(step) } else { plan.switch.push(step) }
    }
    let dropped: Vec<&NodePath> = ledger.owned.keys().filter(|at| !want.contains_key(at.as_str())).collect();
    for (folder, files) in units {
        let names = tree.names(&folder);
        let there = |name: &String| entry_of(&tree, &folder.join(name));
        let same = |name: &String, bytes: &String| matches!(there(name), Entry::File { bytes: found, .. } if *found == *bytes.as_bytes());
        let extra: Vec<&String> = names.iter().filter(|name| !files.contains_key(*name)).collect();
        if extra.iter().all(|name| !dropped.contains(&&folder.join(name))) && files.iter().all(|(name, bytes)| same(name, bytes)) {
            continue;
        }
        let ours = |name: &&String| ledger.owned.get(&folder.join(name)).is_some_and(|owned| owned.origin == Prior::Absent);
        if extra.iter().all(ours) {
            let expect = if matches!(entry_of(&tree, &folder), Entry::Dir { .. }) { Expect::Dir } else { Expect::Absent };
            let files = files.into_iter().map(|(name, bytes)| (name, (Content::public(bytes), 0o644))).collect();
            plan.switch.push(step(folder.clone(), expect, Act::PutDir { files, stage: path("/etc") }));
        } else {
            for (name, bytes) in files {
                let at = folder.join(&name);
                if !same(&name, &bytes) {
                    let expect = Expect::of(&there(&name)).unwrap();
                    plan.switch.push(put_file(&at, expect, &bytes, Meta::new(0o644), false));
                }
            }
        }
    }
    for at in dropped {
        let entry = entry_of(&tree, at);
        let origin = &ledger.owned[at].origin;
        let expect = Expect::of(&entry).unwrap();
        match origin {
            _ if prior(&entry).is_some_and(|now| alike(&now, origin)) => {}
            Prior::Absent => plan.retire.push(step(at.clone(), expect, Act::Remove)),
            Prior::File { blob, meta } => {
                let bytes = blobs::read(root, &path(STATE), *blob, at).unwrap();
                let bytes = String::from_utf8(bytes).unwrap();
                plan.switch.push(put_file(at, expect, &bytes, meta.clone(), at.name() == "config.toml"));
            }
            Prior::Link { to, meta } => {
                plan.switch.push(step(at.clone(), expect, Act::PutLink { to: to.clone(), meta: meta.clone() }));
            }
        }
    }
    let needed = |dir: &&NodePath| plan.owned.keys().any(|at| tree.real_parent(at).unwrap().is_below(dir));
    plan.dirs = ledger.dirs.iter().filter(needed).cloned().collect::<BTreeSet<_>>();
    plan
}

fn alike(one: &Prior, other: &Prior) -> bool {
    match (one, other) {
        (Prior::File { blob: a, meta: m }, Prior::File { blob: b, meta: n }) => a == b && m.mode == n.mode,
        (Prior::Link { to: a, .. }, Prior::Link { to: b, .. }) => a == b,
        (Prior::Absent, Prior::Absent) => true,
        _ => false,
    }
}

/// A whole run: lock, tidy, load, plan, execute.
pub fn run(dir: &Path, want: &Want) -> Outcome {
    let root = Root::open(dir).unwrap();
    let state = path(STATE);
    let _lock = Lock::take(&root, &state).unwrap();
    apply::tidy(&root, &state).unwrap();
    let ledger = apply::load_ledger(&root, &state).unwrap().unwrap_or_else(|| Ledger::new([7; 32]));
    let plan = plan(&root, &ledger, want);
    apply::execute(&root, &state, &plan, ledger, &mut Scripted::default(), &mut |_| {})
}

pub fn want(pairs: &[(&str, &str)]) -> Want {
    pairs.iter().map(|(at, bytes)| ((*at).to_owned(), (*bytes).to_owned())).collect()
}

/// A root with other people's files: a link in the middle, a link to be replaced, one to be written through, a registry
/// folder that is there already.
pub fn start(dir: &Path) {
    fs::create_dir_all(dir.join("var/lib")).unwrap();
    put(dir, "/etc/hostname", "node\n");
    put(dir, "/etc/conf.d/00-foreign.conf", "foreign");
    put(dir, "/etc/certs.d/old.example/hosts.toml", "theirs");
    put(dir, "/data/config.toml", "version = 2\n");
    put(dir, "/data/real.conf", "linked");
    link(dir, "/etc/config.toml", "../data/config.toml");
    link(dir, "/etc/conf.d/20-link.conf", "/data/real.conf");
    link(dir, "/etc/away", "/srv/not/there");
    fs::set_permissions(dir.join("data/config.toml"), fs::Permissions::from_mode(0o640)).unwrap();
}

pub fn first() -> Want {
    want(&[
        ("/etc/certs.d/a.example/hosts.toml", "server = 1"),
        ("/etc/certs.d/a.example/ca.crt", "ca"),
        ("/etc/certs.d/old.example/hosts.toml", "ours"),
        ("/etc/conf.d/20-link.conf", "whole"),
        ("/etc/conf.d/50-ours.conf", "ours too"),
        ("/etc/config.toml", "version = 2\nours = 1\n"),
        ("/etc/pki/ca-addressed-1.crt", "one"),
        ("/etc/away/deep/file", "behind a dangling link"),
    ])
}

pub fn second() -> Want {
    want(&[
        ("/etc/certs.d/a.example/hosts.toml", "server = 2"),
        ("/etc/certs.d/b.example/hosts.toml", "new"),
        ("/etc/conf.d/50-ours.conf", "ours changed"),
        ("/etc/config.toml", "version = 2\nours = 2\n"),
        ("/etc/pki/ca-addressed-2.crt", "two"),
    ])
}

pub fn root_of(dir: &tempfile::TempDir, name: &str) -> PathBuf {
    let root = dir.path().join(name);
    fs::create_dir_all(&root).unwrap();
    root
}
