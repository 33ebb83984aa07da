//! containerd and its CRI plugin.
//!
//! What lives here: the version classes ([`Dialect`]), which files matter ([`wishes()`]), what is asked for an image
//! ([`View`]), what the node should hold ([`want`](fn@want)), what a change needs to take effect ([`activation()`]). What must not:
//! the grammar of the files (`format/hosts_toml`, `format/config_toml`), the meaning of a spec beyond laying it out.

mod activation;
mod adopt;
mod carry;
mod give_way;
mod hosts;
mod legacy;
pub mod log;
mod service;
pub mod shadow;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_adopt;
#[cfg(test)]
mod tests_shadow;
pub mod tokens;
mod view;
mod want;
mod wishes;

pub use activation::activation;
pub use service::{pause_image, socket, start_files};
pub use view::View;
pub use want::{Known, PKI, folder_name, want, want_knowing};
pub use wishes::wishes;

use crate::format::config_toml::{Broken, Chain};
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::model::version::Version;
use crate::runtime::FoundRuntime;

/// The first version that reads hosts.toml (`runtime-semantics.md` 1.3). Those before it know nothing of `config_path`, and ask the
/// internet without a word.
pub const FIRST: Version = Version(1, 5, 0);

/// The version that will run, where it reads no hosts.toml: the one on disk.
#[must_use]
pub fn too_old(on: &FoundRuntime) -> Option<Version> {
    on.installed.or_else(|| on.running.as_ref()?.version).filter(|version| *version < FIRST)
}

/// Versions that read their files alike (`runtime-semantics.md` 1.1–1.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// 1.5 and 1.6 before 1.6.32: configuration version 2 at most; hosts.toml without any `[host]` table is rejected; localhost
    /// and `http://` are plain HTTP, whatever else is said.
    V1_6,
    /// 1.6.32 and later 1.6: HTTPS is tried first where TLS keys stand beside `http://`, and for localhost.
    V1_6_32,
    /// 1.7.0–1.7.15: as before 1.6.32 for hosts.toml; timeouts for pulls.
    V1_7_0,
    /// 1.7.16–1.7.31: HTTPS first as in 1.6.32.
    V1_7_16,
    /// 1.7.32 and later 1.7.
    V1_7_32,
    /// 2.0.0–2.0.6: configuration version 3, go-toml v2 (standard tables only, no byte order mark).
    V2_0,
    /// 2.0.7 and later 2.0: `dial_timeout`.
    V2_0_7,
    /// 2.1: transfer service (a list in `config_path` is ignored), headers also for token requests.
    V2_1,
    /// 2.2: `referrers`; two folders as built-in default of `config_path`.
    V2_2,
    /// 2.3 and later: configuration version 4.
    V2_3,
}

impl Dialect {
    /// All classes, oldest first.
    pub const ALL: [Self; 10] = [
        Self::V1_6,
        Self::V1_6_32,
        Self::V1_7_0,
        Self::V1_7_16,
        Self::V1_7_32,
        Self::V2_0,
        Self::V2_0_7,
        Self::V2_1,
        Self::V2_2,
        Self::V2_3,
    ];

    /// The class of one version.
    #[must_use]
    pub fn of_version(version: Version) -> Self {
        match version {
            Version(1, 6, 32..) => Self::V1_6_32,
            Version(0..=1, 0..=6, _) | Version(0, ..) => Self::V1_6,
            Version(1, 7, 0..=15) => Self::V1_7_0,
            Version(1, 7, 16..=31) => Self::V1_7_16,
            Version(1, ..) => Self::V1_7_32,
            Version(2, 0, 0..=6) => Self::V2_0,
            Version(2, 0, _) => Self::V2_0_7,
            Version(2, 1, _) => Self::V2_1,
            Version(2, 2, _) => Self::V2_2,
            _ => Self::V2_3,
        }
    }

    /// Whether it belongs to containerd 2.x: another TOML reader, plugin tables merged key by key, localhost rules.
    #[must_use]
    pub fn is_v2(self) -> bool {
        self >= Self::V2_0
    }

    /// Whether it belongs to containerd 1.6 or before: configuration of later versions is taken for version 2, relative
    /// patterns in `imports` find nothing, references to IPv6 addresses cannot be read.
    #[must_use]
    pub fn is_v1_6(self) -> bool {
        self <= Self::V1_6_32
    }

    /// Whether a hosts.toml without any `[host]` table is rejected (`runtime-semantics.md` T04; containerd issue 10027).
    #[must_use]
    pub fn needs_host_table(self) -> bool {
        self <= Self::V1_7_16
    }

    /// Whether HTTPS is tried before plain HTTP for the registry's own host on localhost and where TLS keys stand beside an
    /// `http://` host: since 1.6.32 and 1.7.16 (1.6; seen on 1.7.24 and 2.1.9, 1.6.20 does not).
    #[must_use]
    pub fn tries_tls_first(self) -> bool {
        self == Self::V1_6_32 || self >= Self::V1_7_16
    }

    /// Whether `dial_timeout` in hosts.toml is read at all (1.3).
    #[must_use]
    pub fn knows_dial_timeout(self) -> bool {
        self >= Self::V2_0_7
    }

    /// Whether the capability `referrers` is known; unknown ones reject the file (T15).
    #[must_use]
    pub fn knows_referrers(self) -> bool {
        self >= Self::V2_2
    }

    /// Whether pulls go through the transfer service, which takes a list in `config_path` for one path (1.1, F1).
    #[must_use]
    pub fn transfers(self) -> bool {
        self >= Self::V2_1
    }

    /// The highest `version` of config.toml that it starts with (1.8).
    #[must_use]
    pub fn newest_config(self) -> i64 {
        match self {
            Self::V1_6 | Self::V1_6_32 | Self::V1_7_0 | Self::V1_7_16 | Self::V1_7_32 => 2,
            Self::V2_0 | Self::V2_0_7 | Self::V2_1 | Self::V2_2 => 3,
            Self::V2_3 => 4,
        }
    }

    /// `config_path` when no file sets it (1.8).
    #[must_use]
    pub fn default_config_path(self) -> &'static str {
        if self >= Self::V2_2 { "/etc/containerd/certs.d:/etc/docker/certs.d" } else { "" }
    }

    /// The pause image when no file sets it (1.8).
    #[must_use]
    pub fn default_pause_image(self) -> &'static str {
        match self {
            Self::V1_6 | Self::V1_6_32 => "registry.k8s.io/pause:3.6",
            Self::V1_7_0 | Self::V1_7_16 | Self::V1_7_32 => "registry.k8s.io/pause:3.8",
            Self::V2_0 | Self::V2_0_7 | Self::V2_1 => "registry.k8s.io/pause:3.10",
            Self::V2_2 => "registry.k8s.io/pause:3.10.1",
            Self::V2_3 => "registry.k8s.io/pause:3.10.2",
        }
    }

    /// Its versions, as shown to users.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::V1_6 => "containerd before 1.6.32",
            Self::V1_6_32 => "containerd 1.6.32 and later 1.6",
            Self::V1_7_0 => "containerd 1.7.0-1.7.15",
            Self::V1_7_16 => "containerd 1.7.16-1.7.31",
            Self::V1_7_32 => "containerd 1.7.32 and later 1.7",
            Self::V2_0 => "containerd 2.0.0-2.0.6",
            Self::V2_0_7 => "containerd 2.0.7 and later 2.0",
            Self::V2_1 => "containerd 2.1",
            Self::V2_2 => "containerd 2.2",
            Self::V2_3 => "containerd 2.3 and later",
        }
    }

    /// The classes of the running binary and the one on disk, the running one first; all of them when neither is known.
    #[must_use]
    pub fn of(running: Option<Version>, installed: Option<Version>) -> Vec<Self> {
        let mut known: Vec<Self> = running.into_iter().chain(installed).map(Self::of_version).collect();
        known.dedup();
        if known.is_empty() { Self::ALL.into_iter().rev().collect() } else { known }
    }

    /// What config.toml comes to for this class of versions. It is read at the next start, by the version on disk: where the file
    /// is not for the running one (an update has moved it on already), it is what the one on disk makes of it.
    ///
    /// # Errors
    /// Why containerd would not start with it.
    pub fn reads_config(self, tree: &Tree, on: &FoundRuntime) -> Result<Chain, Broken> {
        let own = Chain::read(tree, &on.config, self);
        match on.installed.map(Self::of_version) {
            Some(next) if next != self && !self.suits(tree, &on.config) => Chain::read(tree, &on.config, next).or(own),
            _ => own,
        }
    }

    /// Whether config.toml is for this class of versions. 1.6 starts with a file of a later version, but nobody writes one for it.
    #[must_use]
    pub fn suits(self, tree: &Tree, config: &NodePath) -> bool {
        let starts = |dialect: Self| Chain::read(tree, config, dialect).is_ok();
        starts(self) && (!self.is_v1_6() || starts(Self::V1_7_0))
    }

    /// Those of `dialects` that start with the configuration on the node, in their order: a file of version 3 rules 1.x out
    /// where the version of containerd is not known. All of them when none does: then the file is what is wrong.
    #[must_use]
    pub fn plausible(dialects: &[Self], tree: &Tree, config: &NodePath) -> Vec<Self> {
        let starting: Vec<Self> = dialects.iter().copied().filter(|dialect| dialect.suits(tree, config)).collect();
        if starting.is_empty() { dialects.to_vec() } else { starting }
    }
}
