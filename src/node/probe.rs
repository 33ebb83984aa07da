//! What is not in files: clock, boot, processes, versions, randomness.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::command;
use super::error::NodeError;
use super::root::Root;
use super::{Probes, Process};
use crate::model::order::{self, Gather as _};
use crate::model::path::NodePath;
use crate::model::time::Time;

/// Names of executables that are runtimes or carry one.
const RUNTIMES: [&str; 6] = ["containerd", "crio", "dockerd", "podman", "k3s", "rke2"];
/// `USER_HZ`: what `/proc/PID/stat` counts in, on every architecture that runs containers.
const TICKS_PER_SECOND: i64 = 100;
/// How long a program may think about its own version.
const PATIENCE: Duration = Duration::from_secs(10);

/// Looks at everything that is not in files.
#[must_use]
pub fn probe(root: &Root) -> Probes {
    let live = root.is_live();
    let image = !live && matches!(root.folder(&NodePath::fixed("/proc/1")), Ok(None));
    let processes = if live { processes(root) } else { Vec::new() };
    Probes { now: now(), boot_id: boot_id(), live, image, unseen: root.is_unseen(), processes, versions: BTreeMap::new() }
}

/// Asks each binary for its version, where it may be run, and what runs from a binary that is none of these, or is gone (an
/// update of the package replaces it), for its own; those that do not answer are left out.
#[must_use]
pub fn versions(root: &Root, binaries: impl IntoIterator<Item = NodePath>, processes: &[Process]) -> BTreeMap<NodePath, String> {
    if !root.is_live() {
        return BTreeMap::new();
    }
    let mut binaries: BTreeSet<NodePath> = binaries.into_iter().gathered();
    let elsewhere = processes.iter().filter(|process| process.replaced || !binaries.contains(&process.exe));
    let images: Vec<NodePath> = elsewhere.filter(|process| is_roots(process.pid)).map(Process::image).collect();
    binaries.extend(images);
    let ask = |binary: NodePath| {
        let output = command::run(root, &[binary.as_str().to_owned(), "--version".to_owned()], PATIENCE).ok()?;
        let line = output.stdout.lines().next().filter(|_| output.status == 0)?.trim().to_owned();
        Some((binary, line))
    };
    binaries.into_iter().filter_map(ask).gathered()
}

/// Whether a process and the file that it was started from are root's alone: anybody may call a program `containerd`.
fn is_roots(pid: u32) -> bool {
    let exe = Path::new("/proc").join(pid.to_string()).join("exe");
    runs_as_root(pid) && fs::metadata(exe).is_ok_and(|file| file.uid() == 0 && file.mode() & 0o022 == 0)
}

fn runs_as_root(pid: u32) -> bool {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status")).unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.is_some_and(|ids| ids.split_whitespace().all(|id| id == "0"))
}

/// The clock. Tests of wrong ones set `NODEPREP_CLOCK` to seconds since 1970; debug builds only.
#[must_use]
pub fn now() -> Time {
    if let Some(secs) = cfg!(debug_assertions).then(|| std::env::var("NODEPREP_CLOCK").ok()?.parse().ok()).flatten() {
        return Time::from_secs(secs);
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Who runs this: the user who logged in, where the kernel knows (`/proc/self/loginuid`, which survives `sudo`), else the user of the process.
#[must_use]
pub fn uid() -> Option<u32> {
    let login = fs::read_to_string("/proc/self/loginuid").ok().and_then(|text| text.trim().parse().ok());
    // all ones: nobody has logged in
    login.filter(|uid| *uid != u32::MAX).or_else(|| Some(nix::unistd::getuid().as_raw()))
}

/// Whether a process is there; `None` where that cannot be told, because the root is not that of the running system.
#[must_use]
pub fn is_there(root: &Root, pid: u32) -> Option<bool> {
    root.is_live().then(|| pid != 0 && fs::metadata(Path::new("/proc").join(pid.to_string())).is_ok())
}

/// Milliseconds since the boot; 0 where the kernel does not tell.
#[must_use]
pub fn up() -> i64 {
    fs::read_to_string("/proc/uptime").ok().and_then(|text| uptime(&text)).unwrap_or(0)
}

/// 32 random bytes.
///
/// # Errors
/// When the kernel has none.
pub fn random() -> Result<[u8; 32], NodeError> {
    let mut bytes = [0; 32];
    fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut bytes))
        .map_err(|error| NodeError::io("read", NodePath::fixed("/dev/urandom"), &error))?;
    Ok(bytes)
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|text| text.trim().to_owned()).unwrap_or_default()
}

/// The moment of the boot, in milliseconds of the clock of now.
fn booted() -> i64 {
    let uptime = fs::read_to_string("/proc/uptime").ok().and_then(|text| uptime(&text));
    uptime.map_or_else(
        || fs::read_to_string("/proc/stat").ok().and_then(|text| boot_time(&text)).unwrap_or(0) * 1000,
        |uptime| now().0 - uptime,
    )
}

fn processes(root: &Root) -> Vec<Process> {
    let booted = booted();
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let mut found: Vec<Process> = pids.filter_map(|pid| runtime_process(root, pid, booted)).collect();
    order::sort_by_key(&mut found, |process| process.pid);
    found
}

/// One process of the running system, whatever it is.
pub(super) fn process(root: &Root, pid: u32) -> Option<Process> {
    any_process(root, pid, booted(), |_| true)
}

fn runtime_process(root: &Root, pid: u32, booted: i64) -> Option<Process> {
    // a user's own podman is nobody's daemon
    any_process(root, pid, booted, |exe| RUNTIMES.contains(&exe.name()) && (exe.name() != "podman" || runs_as_root(pid)))
}

fn any_process(root: &Root, pid: u32, booted: i64, counts: impl Fn(&NodePath) -> bool) -> Option<Process> {
    let dir = Path::new("/proc").join(pid.to_string());
    let exe = fs::read_link(dir.join("exe")).ok()?.into_os_string().into_string().ok()?;
    let (exe, replaced) = exe.strip_suffix(" (deleted)").map_or((exe.as_str(), false), |exe| (exe, true));
    let inside = root.dir().to_str().filter(|dir| *dir != "/").and_then(|dir| exe.strip_prefix(dir.trim_end_matches('/')));
    let exe = NodePath::new(inside.unwrap_or(exe)).ok()?;
    if !counts(&exe) || in_a_container(&dir) {
        return None;
    }
    let stat = fs::read_to_string(dir.join("stat")).ok()?;
    let ticks = start_ticks(&stat)?;
    let words = |name: &str| -> Vec<String> {
        let bytes = fs::read(dir.join(name)).unwrap_or_default();
        let words = bytes.split(|byte| *byte == 0).filter(|word| !word.is_empty());
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
    };
    let env = words("environ").into_iter();
    let env = env.filter_map(|pair| pair.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))).collect();
    let started = Time(booted + ticks * 1000 / TICKS_PER_SECOND);
    let unit = service(&fs::read_to_string(dir.join("cgroup")).unwrap_or_default());
    Some(Process { pid, started, exe, replaced, args: words("cmdline"), env, unit })
}

/// The service of `/proc/PID/cgroup` (cgroups(7): `hierarchy:controllers:path` lines), by the hierarchy that systemd uses. A service
/// of a user's own systemd is that user's.
fn service(text: &str) -> Option<String> {
    let lines = text.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let mut paths = lines.filter(|(controllers, _)| matches!(*controllers, "" | "name=systemd")).map(|(_, path)| path);
    let of = |path: &str| path.split('/').find(|part| part.ends_with(".service")).map(ToOwned::to_owned);
    paths.find_map(of).filter(|unit| !unit.starts_with("user@"))
}

/// Whether its root is another than that of process 1: it reads other files then.
fn in_a_container(dir: &Path) -> bool {
    let of = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    match (of(&dir.join("root")), of(Path::new("/proc/1/root")).or_else(|| of(Path::new("/")))) {
        (Some(own), Some(first)) => own != first,
        _ => false,
    }
}

/// `/proc/uptime` in milliseconds: finer than the boot time in whole seconds, so that a restart right after a change is seen
/// as such.
fn uptime(text: &str) -> Option<i64> {
    let (secs, hundredths) = text.split_whitespace().next()?.split_once('.')?;
    Some(secs.parse::<i64>().ok()? * 1000 + hundredths.parse::<i64>().ok()? * 10)
}

/// `btime` of `/proc/stat`.
fn boot_time(text: &str) -> Option<i64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Field 22 of `/proc/PID/stat`; the second is a name in parentheses that may hold anything, parentheses too.
pub(super) fn start_ticks(stat: &str) -> Option<i64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_start_time_behind_a_strange_name() {
        let stat = "812 (a) b (c) S 1 812 812 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 4711 1 2";
        assert_eq!(start_ticks(stat), Some(4711));
        assert_eq!(boot_time("cpu 1\nbtime 1795197661\n"), Some(1_795_197_661));
        assert_eq!(uptime("4711.07 9000.00\n"), Some(4_711_070));
    }

    #[test]
    fn the_service_of_a_process() {
        let of = |text| service(text).unwrap_or_default();
        assert_eq!(of("0::/system.slice/podman.service\n"), "podman.service");
        assert_eq!(of("4:cpu:/x.service\n1:name=systemd:/system.slice/a.service/own\n0::/\n"), "a.service");
        // from a container with a namespace of its own for them
        assert_eq!(of("0::/../../system.slice/podman.service\n"), "podman.service");
        assert_eq!(of("0::/user.slice/user-1000.slice/user@1000.service/app.slice/podman.service\n"), "");
        assert_eq!((of("0::/user.slice/user-0.slice/session-1.scope\n"), of("")), (String::new(), String::new()));
    }

    #[test]
    fn random_bytes_differ() {
        assert_ne!(random().unwrap(), random().unwrap());
    }
}
