//! What a change needs to take effect.

use crate::model::path::NodePath;
use crate::plan::How;
use crate::runtime::FoundRuntime;

/// What makes a running containerd see a change of `changed`, and why, in the words of `plan`.
///
/// hosts.toml and the files that it names are read again at every pull; config.toml and what it imports only at start:
/// containerd has no reload, SIGHUP ends it (`runtime-semantics.md` facts 6 and 7, 1.8; rule 14 of 8.4). `config_files` are
/// config.toml and its imports.
#[must_use]
pub fn activation(on: &FoundRuntime, config_files: &[NodePath], changed: &NodePath) -> (How, String) {
    if *changed != on.config && !config_files.contains(changed) {
        return (How::Nothing, "registry folders and the files that they name are read at every pull".to_owned());
    }
    let unit = on.unit.clone().unwrap_or_else(|| "containerd.service".to_owned());
    let why = format!("{changed} is read only when containerd starts; containers go on running, pulls and execs under way are cut off");
    (How::Restart(unit), why)
}
