//! What the node's service manager says about a unit.

use std::collections::BTreeMap;

use serde::Serialize;

/// What starts and stops daemons on the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// `OpenRC`.
    OpenRc,
    /// Nothing that nodeprep knows, or it cannot be reached.
    #[default]
    None,
    /// The root is not that of the running system.
    Elsewhere,
}

/// What a unit is doing (systemd's `ActiveState`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Active {
    /// It runs.
    Active,
    /// It runs, and reads its configuration anew.
    Reloading,
    /// It is being started; also while systemd waits before it starts it again.
    Activating,
    /// It is being stopped.
    Deactivating,
    /// It does not run, and nobody wants it to.
    Inactive,
    /// It does not run, and it should.
    Failed,
    /// It could not be told.
    #[default]
    Unknown,
}

impl Active {
    /// The state that systemd calls so.
    #[must_use]
    pub fn from_word(word: &str) -> Self {
        match word {
            "active" => Self::Active,
            "reloading" | "refreshing" => Self::Reloading,
            "activating" => Self::Activating,
            "deactivating" => Self::Deactivating,
            "inactive" => Self::Inactive,
            "failed" => Self::Failed,
            _ => Self::Unknown,
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Reloading => "reloading",
            Self::Activating => "activating",
            Self::Deactivating => "deactivating",
            Self::Inactive => "inactive",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    /// Whether `try-restart` would do something.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Active | Self::Reloading | Self::Activating)
    }
}

/// A unit as the service manager knows it, which is not always as its file says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnitFacts {
    /// It has one of that name that can be started.
    pub loaded: bool,
    /// Nobody may start it (`systemctl mask`), though it may still run.
    pub masked: bool,
    /// What it is doing.
    pub active: Active,
    /// Its main process; `None` while it has none, and where the manager does not know.
    pub main_pid: Option<u32>,
    /// Whether it can be told to reload (`CanReload`).
    pub reloads: bool,
    /// A stop ends every process of its control group, not only the main one (`KillMode=control-group` or `mixed`).
    pub kills_all: bool,
    /// How often it was started again by itself since it was last started by somebody (`NRestarts`).
    pub restarts: u32,
    /// Shims of containers in its control group.
    pub shims: usize,
    /// The active units that a stop of it would stop, too, by name.
    pub along: Vec<String>,
}

/// The units that a plan concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Who was asked.
    pub init: Init,
    /// What it said, by the name it was asked for.
    pub facts: BTreeMap<String, UnitFacts>,
    /// dockerd keeps its containers when it is stopped (`live-restore`).
    pub docker_keeps: bool,
}
