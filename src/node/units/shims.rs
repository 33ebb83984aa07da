//! The processes that hold containers while their runtime is away: what a restart must not end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apply::health::Shim;
use crate::model::order::Gather as _;
use crate::node::probe::start_ticks;
use crate::node::root::Root;

/// How they are called in `/proc/PID/comm`, which holds 15 characters: containerd's, CRI-O's.
const NAMES: [&str; 3] = ["containerd-shim", "conmon", "conmonrs"];

fn processes() -> impl Iterator<Item = (u32, PathBuf)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.map(|pid: u32| (pid, Path::new("/proc").join(pid.to_string()))).filter(|(_, dir)| {
        let name = fs::read_to_string(dir.join("comm")).unwrap_or_default();
        NAMES.contains(&name.trim_end())
    })
}

/// All of them on the node.
pub(super) fn all() -> BTreeSet<Shim> {
    let shim = |(pid, dir): (u32, PathBuf)| Some(Shim { pid, ticks: start_ticks(&fs::read_to_string(dir.join("stat")).ok()?)? });
    processes().filter_map(shim).gathered()
}

/// How many are in a control group, as systemd names it.
pub(super) fn inside(root: &Root, group: &str) -> usize {
    let own = |dir: &Path| is_inside(&fs::read_to_string(dir.join("cgroup")).unwrap_or_default(), group);
    // in a container paths in /proc begin at its own group, and what the node has mounted begins at the top
    let members = if root.is_own() { None } else { members(root.dir(), group) };
    processes().filter(|(pid, dir)| members.as_ref().map_or_else(|| own(dir), |members| members.contains(pid))).count()
}

/// Where systemd's hierarchy is, by the kind of the system.
const HIERARCHIES: [&str; 3] = ["sys/fs/cgroup", "sys/fs/cgroup/unified", "sys/fs/cgroup/systemd"];

/// The processes in a group and below it, where the node's hierarchy is to be seen.
fn members(root: &Path, group: &str) -> Option<BTreeSet<u32>> {
    let folders = HIERARCHIES.into_iter().map(|hierarchy| root.join(hierarchy).join(group.trim_start_matches('/')));
    let mut found = BTreeSet::new();
    let mut next: Vec<PathBuf> = folders.filter(|folder| folder.join("cgroup.procs").exists()).collect();
    if next.is_empty() {
        return None;
    }
    while let Some(folder) = next.pop() {
        let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        found.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        next.extend(below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()));
    }
    Some(found)
}

/// cgroups(7): `hierarchy:controllers:path` lines.
fn is_inside(text: &str, group: &str) -> bool {
    let paths = text.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    paths.into_iter().any(|path| path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_counted_with_those_below() {
        let dir = tempfile::tempdir().unwrap();
        let group = dir.path().join("sys/fs/cgroup/system.slice/x.service");
        fs::create_dir_all(group.join("own")).unwrap();
        fs::write(group.join("cgroup.procs"), "7\n").unwrap();
        fs::write(group.join("own/cgroup.procs"), "8\n9\n").unwrap();
        assert_eq!(members(dir.path(), "/system.slice/x.service"), Some(BTreeSet::from([7, 8, 9])));
        assert_eq!(members(dir.path(), "/system.slice/y.service"), None);
    }

    #[test]
    fn a_control_group_holds_those_below_it() {
        let text = "3:cpu:/\n0::/system.slice/containerd.service/own\n";
        assert!(is_inside(text, "/system.slice/containerd.service") && is_inside(text, "/system.slice"));
        assert!(!is_inside(text, "/system.slice/containerd") && !is_inside("", "/x"));
    }
}
