//! What a node looked like at one moment: its files and what is not in files.

use std::collections::BTreeMap;

use super::path::NodePath;
use super::time::Time;
use super::tree::Tree;

/// What a node looked like at one moment; each path was read once.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Its files, as far as somebody wished to see them.
    pub tree: Tree,
    /// The rest.
    pub probes: Probes,
}

/// What is not in files.
#[derive(Clone, Debug, Default)]
pub struct Probes {
    /// The clock.
    pub now: Time,
    /// `/proc/sys/kernel/random/boot_id`; empty when it cannot be read.
    pub boot_id: String,
    /// Whether the root is that of the running system (the root of PID 1): only then do processes belong to it, and only
    /// then is anything activated.
    pub live: bool,
    /// Whether nothing runs in the root at all, as far as its own `/proc` tells: the root of an image. Neither this nor `live`
    /// is the root of a running system that is looked at from a container.
    pub image: bool,
    /// Whether a system runs in the root whose processes are not seen from here, because this is a container without the host's
    /// process namespace or without the right to look at its process 1.
    pub unseen: bool,
    /// Processes whose executable is a runtime's; empty unless `live`.
    pub processes: Vec<Process>,
    /// Binary → first line of what `--version` printed; only where it may be run (`live`). A process whose binary is not at its
    /// place any more is asked through [`Process::image`].
    pub versions: BTreeMap<NodePath, String>,
}

/// A running process.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// When it started.
    pub started: Time,
    /// Its executable inside the root; ` (deleted)` is taken off.
    pub exe: NodePath,
    /// Whether the executable has been replaced on disk since.
    pub replaced: bool,
    /// Its arguments, with the program's name.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// The systemd service whose control group it is in.
    pub unit: Option<String>,
}

impl Process {
    /// The file that it was started from, also where that has been replaced on disk since.
    #[must_use]
    pub fn image(&self) -> NodePath {
        NodePath::fixed("/proc").join(&self.pid.to_string()).join("exe")
    }
}
