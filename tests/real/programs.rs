//! Which programs a trial runs: those unpacked from the machine's own release, or one of them in the version of another.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodeprep::model::version::Version;

use crate::case::Case;
use crate::prepared;
use crate::pull::Puller;

/// A folder of `prepare`, where it is not the usual one. `enclose` reads these variables too.
const CONTAINERD: &str = "NODEPREP_REAL_CONTAINERD";
const PODMAN: &str = "NODEPREP_REAL_PODMAN";

#[derive(Clone, Debug)]
pub enum Programs {
    Usual,
    /// A containerd in another version, on the machine's own libraries.
    Containerd(PathBuf),
    /// Podman and skopeo in other versions, with the libraries of their release.
    Podman(PathBuf),
}

impl Programs {
    /// The usual ones and whatever `prepare` found besides.
    pub fn all() -> Vec<Programs> {
        let found = |name: &str| {
            let entries = std::fs::read_dir(prepared().join(name)).into_iter().flatten().flatten();
            let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
            found.sort();
            found
        };
        let mut all = vec![Programs::Usual];
        all.extend(found("containerd").into_iter().map(Programs::Containerd));
        all.extend(found("podman").into_iter().map(Programs::Podman));
        all
    }

    /// What the environment of a child says.
    pub fn told() -> Programs {
        let told = |name| std::env::var_os(name).map(PathBuf::from);
        match (told(CONTAINERD), told(PODMAN)) {
            (Some(folder), _) => Programs::Containerd(folder),
            (None, Some(folder)) => Programs::Podman(folder),
            (None, None) => Programs::Usual,
        }
    }

    /// For the environment of a child.
    pub fn tell(&self) -> Option<(&'static str, OsString)> {
        match self {
            Programs::Usual => None,
            Programs::Containerd(folder) => Some((CONTAINERD, folder.into())),
            Programs::Podman(folder) => Some((PODMAN, folder.into())),
        }
    }

    /// The folder of the programs that are not the usual ones.
    pub fn folder(&self) -> Option<&Path> {
        match self {
            Programs::Usual => None,
            Programs::Containerd(folder) | Programs::Podman(folder) => Some(folder),
        }
    }

    fn version(&self) -> Option<String> {
        self.folder()?.file_name().map(|name| name.to_string_lossy().into_owned())
    }

    pub fn suffix(&self) -> String {
        let version = self.version().unwrap_or_default();
        match self {
            Programs::Usual => String::new(),
            Programs::Containerd(_) => format!("-containerd-{version}"),
            Programs::Podman(_) => format!("-podman-{version}"),
        }
    }

    /// What pulls: with other versions, only those have anything new to tell.
    pub fn pullers(&self, case: &Case) -> Vec<Puller> {
        let all: &[Puller] = match self {
            Programs::Usual => &[Puller::Containerd, Puller::Skopeo, Puller::Podman],
            Programs::Containerd(_) => &[Puller::Containerd],
            Programs::Podman(_) => &[Puller::Skopeo, Puller::Podman],
        };
        all.iter().copied().filter(|&puller| if puller == Puller::Containerd { case.containerd } else { case.podman }).collect()
    }

    /// Is there anything to pull with in this case?
    pub fn concern(&self, case: &Case) -> bool {
        !self.pullers(case).is_empty() && self.is_among(&case.versions)
    }

    /// Whether this containerd is one of `versions`: `>=2.0`, `<2.0`, or nothing for all of them.
    fn is_among(&self, versions: &str) -> bool {
        let Some(own) = self.containerd() else { return versions.is_empty() };
        let bound = |sign| versions.strip_prefix(sign).and_then(Version::find);
        bound(">=").is_none_or(|from| own >= from) && bound("<").is_none_or(|to| own < to)
    }

    /// The version of containerd, as its package says; `None` beside another Podman.
    pub fn containerd(&self) -> Option<Version> {
        let folder = match self {
            Programs::Usual => prepared(),
            Programs::Containerd(folder) => folder.clone(),
            Programs::Podman(_) => return None,
        };
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let package = status.split("\n\n").find(|package| package.lines().any(|line| line == "Package: containerd"))?;
        package.lines().find_map(|line| line.strip_prefix("Version: ")).and_then(Version::find)
    }

    /// Does a header reach the place where a registry's tokens are issued? containerd sends it there from 2.1 on; the containers/image family logs in there
    /// by itself.
    pub fn tokens(&self, puller: Puller) -> bool {
        puller != Puller::Containerd || self.version().is_some_and(|version| !version.starts_with("1.") && !version.starts_with("2.0"))
    }
}
