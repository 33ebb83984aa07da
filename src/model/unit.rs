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
    /// Nothing that nodeprep knows: units are turned by the commands that somebody gave, if any ([`Commands`]).
    #[default]
    None,
    /// The root is not that of the running system.
    Elsewhere,
    /// A system runs in the root, and from here neither its processes nor its service manager can be reached.
    Unseen,
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

/// What restarts and reloads daemons where no service manager that nodeprep knows does: argument lists by unit. No shell is
/// involved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commands {
    /// What restarts them.
    pub restart: BTreeMap<String, Vec<String>>,
    /// What makes them read their configuration anew.
    pub reload: BTreeMap<String, Vec<String>>,
}

impl Commands {
    /// Adds `UNIT=COMMAND`, the command in words with spaces between them.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<(String, Vec<String>), String> {
        let said = "say it as UNIT=COMMAND, as in containerd=/etc/init.d/containerd restart";
        let (unit, command) = text.split_once('=').ok_or(said)?;
        let words: Vec<String> = command.split_whitespace().map(ToOwned::to_owned).collect();
        let Some(program) = words.first() else { return Err(said.to_owned()) };
        if unit.trim().is_empty() || !program.starts_with('/') {
            return Err(format!("{said}; the program has to be an absolute path"));
        }
        Ok((plain(unit.trim()).to_owned(), words))
    }

    /// What restarts a unit.
    #[must_use]
    pub fn restart_of(&self, unit: &str) -> Option<&[String]> {
        self.restart.get(plain(unit)).map(Vec::as_slice)
    }

    /// What makes a unit read its configuration anew.
    #[must_use]
    pub fn reload_of(&self, unit: &str) -> Option<&[String]> {
        self.reload.get(plain(unit)).map(Vec::as_slice)
    }
}

/// A unit's name without the ending that only systemd has.
#[must_use]
pub fn plain(unit: &str) -> &str {
    unit.strip_suffix(".service").unwrap_or(unit)
}

/// The units that a plan concerns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Who was asked.
    pub init: Init,
    /// What it said, by the name it was asked for.
    pub facts: BTreeMap<String, UnitFacts>,
    /// Why it says nothing, where it does not answer.
    pub silent: Option<String>,
    /// dockerd keeps its containers when it is stopped (`live-restore`).
    pub docker_keeps: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_words_for_a_unit() {
        let words = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let parsed = Commands::parse("containerd.service=/usr/bin/sv  restart containerd").unwrap();
        assert_eq!(parsed, ("containerd".to_owned(), words(&["/usr/bin/sv", "restart", "containerd"])));
        // no shell: what would be its signs are words
        assert_eq!(Commands::parse("x=/bin/a b=c;d").unwrap().1, words(&["/bin/a", "b=c;d"]));
        for wrong in ["", "containerd", "containerd=", "=/bin/true", "containerd=sv restart containerd"] {
            assert!(Commands::parse(wrong).is_err_and(|why| why.contains("UNIT=COMMAND")), "{wrong}");
        }
        let commands = Commands { restart: [parsed].into(), ..Commands::default() };
        assert!(commands.restart_of("containerd").is_some() && commands.restart_of("containerd.service").is_some());
        assert!(commands.reload_of("containerd").is_none() && commands.restart_of("crio.service").is_none());
    }
}
