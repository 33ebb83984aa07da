//! The agent's own files: its lock, and how it sees itself.

use std::fs::File;
use std::io::Read;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{getegid, geteuid};

use crate::agent::state::{AgentState, STATE_FILE};
use crate::model::path::NodePath;
use crate::model::tree::Meta;
use crate::node::error::NodeError;
use crate::node::files;
use crate::node::root::{Folder, Root, make_folder};

/// More than it ever has.
const MOST: u64 = 1 << 20;
const LOCK: &str = "agent.lock";

/// Where the agent says how it sees itself; held by one agent at a time.
#[derive(Debug)]
pub(super) struct StateFile {
    folder: std::sync::Arc<Folder>,
    name: String,
    shown: Option<AgentState>,
    failed: bool,
    _lock: Flock<File>,
}

impl StateFile {
    pub(super) fn open(root: &Root) -> Result<Self, NodeError> {
        let path = NodePath::fixed(STATE_FILE);
        let at = path.parent().unwrap_or_else(NodePath::root);
        let (_, above) = root.real_parent(&at, true)?;
        if above.stat(at.name())?.is_none() {
            make_folder(&above, at.name())?;
        }
        let folder = root.folder(&at)?.ok_or_else(|| NodeError::NotFolder { path: at.clone() })?;
        let lock = at.join(LOCK);
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let failed = |errno| NodeError::of("open", lock.clone(), errno);
        let file = openat(&*folder, LOCK, flags, Mode::from_bits_truncate(0o600)).map_err(failed)?;
        let lock = Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
            Errno::EWOULDBLOCK => NodeError::Locked { path: lock.clone(), pid: None },
            errno => failed(errno),
        })?;
        Ok(Self { folder, name: path.name().to_owned(), shown: None, failed: false, _lock: lock })
    }

    pub(super) fn read(&self) -> Option<AgentState> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let file = File::from(openat(&*self.folder, self.name.as_str(), flags, Mode::empty()).ok()?);
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).ok()?;
        serde_json::from_slice(&bytes).ok().filter(|state: &AgentState| state.version == crate::agent::state::VERSION)
    }

    /// Writes it anew as a whole, when it has changed. That nobody can read it is no reason to stop working.
    pub(super) fn write(&mut self, state: &AgentState) {
        if self.shown.as_ref() == Some(state) {
            return;
        }
        match self.put(state) {
            Ok(()) => self.failed = false,
            Err(error) if !self.failed => {
                self.failed = true;
                tracing::warn!("{error}");
            }
            Err(_) => {}
        }
        self.shown = Some(state.clone());
    }

    fn put(&self, state: &AgentState) -> Result<(), NodeError> {
        let path = NodePath::fixed(STATE_FILE);
        let new = format!("{}.new", self.name);
        let mut text = serde_json::to_string(state).unwrap_or_default();
        text.push('\n');
        files::unlink(&self.folder, &new)?;
        let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
        let meta = Meta { mode: 0o600, uid, gid, ..Meta::default() };
        drop(files::create(&self.folder, &new, text.as_bytes(), &meta)?);
        files::rename((&self.folder, &new), (&self.folder, &self.name)).map_err(|errno| NodeError::of("rename", path, errno))?;
        Ok(())
    }
}
