//! Who else is at work on the node: package managers, by their locks, and whoever writes a file of ours.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::node::root::{Last, Root};

/// How a lock shows that it is held.
#[derive(Clone, Copy, Debug)]
enum Held {
    /// By fcntl(2).
    Record,
    /// By flock(2).
    Whole,
    /// By being there.
    There,
    /// By a process whose number it holds.
    Pid,
}

/// Lock files: dpkg and apt (`lock-frontend` since 1.9.4), rpm (and so dnf, yum, zypper, transactional-update), zypper itself,
/// apk-tools, pacman.
const LOCKS: [(&str, &str, Held); 8] = [
    ("dpkg", "/var/lib/dpkg/lock", Held::Record),
    ("apt", "/var/lib/dpkg/lock-frontend", Held::Record),
    ("rpm", "/var/lib/rpm/.rpm.lock", Held::Record),
    ("rpm", "/usr/lib/sysimage/rpm/.rpm.lock", Held::Record),
    ("zypper", "/run/zypp.pid", Held::Pid),
    ("apk", "/lib/apk/db/lock", Held::Whole),
    ("apk", "/usr/lib/apk/db/lock", Held::Whole),
    ("pacman", "/var/lib/pacman/db.lck", Held::There),
];

/// The package manager that is at work, if one is.
pub(super) fn at_work(root: &Root) -> Option<String> {
    LOCKS.iter().find_map(|(name, path, held)| {
        let outside = outside(root, path)?;
        let pid = match held {
            Held::There => None,
            Held::Pid => Some(alive(&outside)?),
            Held::Record => Some(record(&outside).or_else(|| listed(&outside))?),
            Held::Whole => Some(listed(&outside)?),
        };
        Some(pid.map_or_else(|| format!("{name} ({path})"), |pid| format!("{name} (process {pid})")))
    })
}

/// Where a file of the node is for this process, links inside the root; `None` where there is none.
fn outside(root: &Root, path: &str) -> Option<PathBuf> {
    let path = NodePath::new(path).ok()?;
    let spot = root.afresh().walk(&path, Last::Follow, &mut |_, _, _| {}).ok()?;
    spot.folder.stat(&spot.name).ok().flatten()?;
    Some(root.dir().join(spot.path().as_str().trim_start_matches('/')))
}

/// The process that holds a record lock.
fn record(path: &Path) -> Option<u32> {
    // a lock for writing is asked for, and F_GETLK takes none
    let file = fs::File::options().read(true).write(true).open(path).ok()?;
    let whence = libc::c_short::try_from(libc::SEEK_SET).unwrap_or(0);
    let kind = libc::c_short::try_from(libc::F_WRLCK).unwrap_or(1);
    let mut lock = libc::flock { l_type: kind, l_whence: whence, l_start: 0, l_len: 0, l_pid: 0 };
    fcntl(&file, FcntlArg::F_GETLK(&mut lock)).ok()?;
    let free = libc::c_short::try_from(libc::F_UNLCK).unwrap_or(2);
    if lock.l_type == free { None } else { u32::try_from(lock.l_pid).ok() }
}

/// The process that holds a lock of either kind, as the kernel lists them.
fn listed(path: &Path) -> Option<u32> {
    let file = fs::metadata(path).ok()?;
    let (major, minor) = (nix::sys::stat::major(file.dev()), nix::sys::stat::minor(file.dev()));
    let place = format!("{major:02x}:{minor:02x}:{}", file.ino());
    holder(&fs::read_to_string("/proc/locks").ok()?, &place)
}

/// `1: FLOCK  ADVISORY  WRITE 812 08:01:131 0 EOF` (proc_locks(5)).
fn holder(locks: &str, place: &str) -> Option<u32> {
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1).skip_while(|word| *word == "->");
        let (_, _, kind, pid, at) = (words.next()?, words.next()?, words.next()?, words.next()?, words.next()?);
        (kind == "WRITE" && at == place && !line.contains("->")).then(|| pid.parse().unwrap_or(0))
    })
}

/// The living process whose number stands in a file.
fn alive(path: &Path) -> Option<u32> {
    let pid: u32 = fs::read_to_string(path).ok()?.trim().parse().ok()?;
    fs::metadata(format!("/proc/{pid}")).ok().map(|_| pid)
}

/// Programs that keep files as they want them.
const KEEPERS: [&str; 9] =
    ["puppet", "chef-client", "cinc-client", "salt-minion", "cf-agent", "cf-execd", "ansible-pull", "nodeprep", "machine-config-"];

/// Who else may write a path: whose the file is now, and who on this node is known to keep files.
pub(super) fn writer(root: &Root, path: &str) -> String {
    let file = outside(root, path).and_then(|path| fs::symlink_metadata(path).ok());
    let file = file.map_or_else(
        || "somebody who takes it away".to_owned(),
        |file| format!("somebody with user id {} (last at {})", file.uid(), Time::from_secs(file.mtime())),
    );
    let own = std::process::id();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let others: Vec<String> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim().to_owned();
            KEEPERS.iter().any(|keeper| name.starts_with(keeper)).then(|| format!("{name} (process {pid})"))
        })
        .take(4)
        .collect();
    if others.is_empty() { file } else { format!("{file}; here run {}", others.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_holder_of_a_lock() {
        let locks = "1: POSIX  ADVISORY  READ 7 08:01:131 0 EOF\n2: FLOCK  ADVISORY  WRITE 812 08:01:131 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 9 08:01:132 0 EOF\n";
        assert_eq!(holder(locks, "08:01:131"), Some(812));
        assert_eq!((holder(locks, "08:01:132"), holder("", "08:01:131"), holder("x\n", "y")), (None, None, None));
    }

    /// Each kind of lock is seen while it is held, and not before or after: in a scratch root, by another process where it has to be.
    #[test]
    fn sees_locks_of_each_kind() {
        let scratch = tempfile::tempdir().unwrap();
        let root = Root::open(scratch.path()).unwrap();
        let put = |path: &str, text: &str| {
            let path = scratch.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(at_work(&root), None);
        let apk = put("lib/apk/db/lock", "");
        assert_eq!(at_work(&root), None);
        let held = nix::fcntl::Flock::lock(fs::File::open(&apk).unwrap(), nix::fcntl::FlockArg::LockExclusiveNonblock).unwrap();
        assert_eq!(at_work(&root), Some(format!("apk (process {})", std::process::id())));
        drop(held);
        assert_eq!(at_work(&root), None);
        let pacman = put("var/lib/pacman/db.lck", "");
        assert_eq!(at_work(&root).as_deref(), Some("pacman (/var/lib/pacman/db.lck)"));
        fs::remove_file(pacman).unwrap();
        let zypper = put("run/zypp.pid", &format!("{}\n", std::process::id()));
        assert_eq!(at_work(&root), Some(format!("zypper (process {})", std::process::id())));
        fs::write(zypper, "4194305\n").unwrap();
        put("var/lib/dpkg/lock", "");
        assert_eq!(at_work(&root), None);
    }
}
