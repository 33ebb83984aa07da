//! What makes CRI-O and Podman see a change: the least that works (`runtime-semantics.md` 2.8, 7).

use super::files;
use crate::format::crio_conf;
use crate::model::path::NodePath;
use crate::plan::How;
use crate::runtime::{FoundRuntime, Runtime};

/// What a change of `path` needs before `on` sees it, and why.
#[must_use]
pub fn activation(path: &NodePath, on: &FoundRuntime) -> (How, &'static str) {
    let crio = on.runtime == Runtime::Crio;
    let unit = || on.unit.clone().unwrap_or_else(|| "crio.service".to_owned());
    // only of the API service a process is known
    let serving = on.unit.clone().filter(|_| on.runtime == Runtime::Podman && on.running.is_some());
    let in_folder = |name: &str| path.components().any(|part| part == name);
    let main = files::variable(on, "CONTAINER_REGISTRIES_CONF").is_some_and(|main| path.as_str() == main);
    let crio_conf = path.is_below(&crio_conf::drop_in_dir()) || crio && *path == on.config;
    match (on.runtime, path.name()) {
        (Runtime::Crio, _) if crio_conf => (How::Reload(unit()), "CRI-O reads pause_image anew at a reload"),
        (_, _) if crio_conf => (How::Nothing, "nobody else reads it"),
        (_, _) if in_folder("certs.d") => (How::Nothing, "certs.d is read at every pull"),
        (_, "registries.conf") if crio => (How::Reload(unit()), "CRI-O keeps registries.conf in memory until a reload"),
        _ if crio && main => (How::Reload(unit()), "CRI-O keeps registries.conf in memory until a reload"),
        (_, _) if crio && in_folder("registries.conf.d") => (How::Reload(unit()), "CRI-O keeps registries.conf in memory until a reload"),
        (_, name) if name == "registries.conf" || main || in_folder("registries.conf.d") => match serving {
            Some(unit) => (How::Reload(unit), "Podman's API service keeps registries.conf in memory until a reload"),
            None => (How::Nothing, "each podman command reads it anew"),
        },
        _ => (How::Nothing, "the auth file is read at every pull"),
    }
}
