//! The processes that hold containers while their runtime is away: what a restart must not end.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::apply::health::Shim;
use crate::model::order::Gather as _;
use crate::node::probe::start_ticks;

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

/// How many are in a control group.
pub(super) fn inside(group: &str) -> usize {
    processes().filter(|(_, dir)| is_inside(&fs::read_to_string(dir.join("cgroup")).unwrap_or_default(), group)).count()
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
    fn a_control_group_holds_those_below_it() {
        let text = "3:cpu:/\n0::/system.slice/containerd.service/own\n";
        assert!(is_inside(text, "/system.slice/containerd.service") && is_inside(text, "/system.slice"));
        assert!(!is_inside(text, "/system.slice/containerd") && !is_inside("", "/x"));
    }
}
