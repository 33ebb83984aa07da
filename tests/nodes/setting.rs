//! What a trial is told by the suite that starts it in namespaces of its own.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// In the environment of this program's own child: the trial to run, the process of the suite, and the containerd to install where it is not the root's own.
pub const TRIAL: &str = "NODEPREP_NODES_TRIAL";
const SUITE: &str = "NODEPREP_NODES_SUITE";
const CONTAINERD: &str = "NODEPREP_NODES_CONTAINERD";
/// nodeprep under test; another build of it can be named instead (a release, a static one).
const BINARY: &str = "NODEPREP_NODES_BINARY";

pub fn trial() -> Result<String> {
    std::env::var(TRIAL).context(TRIAL)
}

pub fn suite() -> Result<u32> {
    std::env::var(SUITE).context(SUITE)?.parse().context(SUITE)
}

/// A program; `None`: the root's own.
pub fn containerd() -> Option<PathBuf> {
    std::env::var_os(CONTAINERD).map(PathBuf::from)
}

pub fn nodeprep() -> PathBuf {
    std::env::var_os(BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_nodeprep").into()).into()
}

/// Whether another build than the debug one is under test.
pub fn other_binary() -> bool {
    std::env::var_os(BINARY).is_some()
}

/// For the environment of a child.
pub fn tell(trial: &str, containerd: Option<&Path>) -> Vec<(&'static str, OsString)> {
    let mut told = vec![(TRIAL, trial.into()), (SUITE, std::process::id().to_string().into())];
    told.extend(containerd.map(|path| (CONTAINERD, path.into())));
    told.extend(std::env::var_os(BINARY).map(|path| (BINARY, path)));
    told.extend(std::env::var_os("PATH").map(|path| ("PATH", path)));
    told
}
