//! Control groups of their own for nodes: systemd-nspawn puts the node's systemd below the group that it is started in.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// What the groups of a node begin with; behind it stands the process that runs the suite.
const NAME: &str = "nodeprep-nodes";

/// One group in each hierarchy that systemd uses: the unified one or, where the machine still has others, its named one too. They go with this value.
pub struct Cgroups(Vec<PathBuf>);

impl Cgroups {
    /// Of the suite that runs as process `suite`.
    pub fn new(suite: u32, name: &str) -> Result<Cgroups> {
        let found = hierarchies();
        ensure!(!found.is_empty(), "no control groups are mounted here");
        let mut made = Cgroups(Vec::new());
        for hierarchy in found {
            let group = hierarchy.join(format!("{NAME}-{suite}-{name}"));
            fs::create_dir(&group).with_context(|| format!("making the control group {}", group.display()))?;
            made.0.push(group);
        }
        Ok(made)
    }

    pub fn folders(&self) -> &[PathBuf] {
        &self.0
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.0.iter().for_each(|group| remove(group));
    }
}

/// Removes what a trial has left behind: its last node ends with the namespace, without anybody there to remove its groups.
pub fn end(suite: u32, trial: &str) {
    let begin = format!("{NAME}-{suite}-{trial}-");
    let number = |name: &str| name.strip_prefix(&begin).is_some_and(|rest| rest.parse::<u32>().is_ok());
    groups().filter(|(name, _)| number(name)).for_each(|(_, group)| remove(&group));
}

/// Removes what a suite has left behind that was killed; its processes are gone, so that the groups are empty.
pub fn sweep() {
    for (name, group) in groups() {
        let suite = name.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-')).and_then(|rest| rest.split('-').next());
        if suite.is_some_and(|suite| !Path::new("/proc").join(suite).exists()) {
            remove(&group);
        }
    }
}

fn groups() -> impl Iterator<Item = (String, PathBuf)> {
    let entries = hierarchies().into_iter().filter_map(|hierarchy| fs::read_dir(hierarchy).ok()).flatten().flatten();
    entries.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path()))
}

/// From the inside out: a group with groups or processes in it cannot be removed.
fn remove(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(group);
}

fn hierarchies() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let kinds = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?, words.next()?))
    });
    let used = kinds.filter(|(_, kind, options)| {
        *kind == "cgroup2" || (*kind == "cgroup" && options.split(',').any(|option| option == "name=systemd"))
    });
    used.map(|(folder, ..)| PathBuf::from(folder)).collect()
}
