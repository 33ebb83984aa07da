//! Where a debug build can be killed, and what it did until then.
//!
//! Every change of the disk goes through `around`. In debug builds the variable `NODEPREP_CHECKPOINT=<n>` makes the process
//! kill itself at the n-th point, and [`record`] lists the changes of a call. Release builds hold nothing of this.

use crate::model::path::NodePath;

/// One change of the disk, by real paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A folder was made.
    MakeFolder {
        /// Which.
        path: NodePath,
        /// Its mode.
        mode: u32,
    },
    /// An empty file was created under a new name.
    Create {
        /// Which.
        path: NodePath,
    },
    /// A file got its content.
    Write {
        /// Which.
        path: NodePath,
        /// All of it.
        bytes: Vec<u8>,
    },
    /// A file got its final mode.
    Mode {
        /// Which.
        path: NodePath,
        /// The mode.
        mode: u32,
    },
    /// A symbolic link was made.
    Link {
        /// Which.
        path: NodePath,
        /// Its target.
        to: String,
    },
    /// One name took the place of another.
    Rename {
        /// From here.
        from: NodePath,
        /// To there.
        to: NodePath,
    },
    /// Two names changed places.
    Exchange {
        /// One.
        one: NodePath,
        /// The other.
        other: NodePath,
    },
    /// A file or link was removed.
    Unlink {
        /// Which.
        path: NodePath,
    },
    /// An empty folder was removed.
    RemoveFolder {
        /// Which.
        path: NodePath,
    },
    /// A file or folder was brought to the disk.
    Sync {
        /// Which.
        path: NodePath,
    },
    /// A whole file system was brought to the disk.
    SyncAll,
}

#[cfg(debug_assertions)]
mod active {
    use std::cell::RefCell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::Op;

    thread_local!(static RECORD: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) });
    static PASSED: AtomicU64 = AtomicU64::new(0);

    fn limit() -> Option<u64> {
        static LIMIT: OnceLock<Option<u64>> = OnceLock::new();
        *LIMIT.get_or_init(|| std::env::var("NODEPREP_CHECKPOINT").ok()?.parse().ok())
    }

    /// Whether points are counted at all.
    pub fn armed() -> bool {
        limit().is_some()
    }

    /// A point at which the process may be killed.
    pub fn point() {
        if let Some(limit) = limit()
            && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == limit
        {
            let _ = nix::sys::signal::kill(nix::unistd::Pid::this(), nix::sys::signal::Signal::SIGKILL);
            // a signal to oneself is delivered before kill() returns, except to another thread
            std::thread::sleep(std::time::Duration::from_secs(60));
        }
    }

    pub fn note(op: impl FnOnce() -> Op) {
        RECORD.with_borrow_mut(|record| {
            if let Some(record) = record {
                record.push(op());
            }
        });
    }

    /// Runs `work` and lists the changes that it made from this thread. Debug builds only.
    pub fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Op>) {
        RECORD.set(Some(Vec::new()));
        let result = work();
        (result, RECORD.take().unwrap_or_default())
    }
}

#[cfg(debug_assertions)]
pub use active::record;

/// Makes one change of the disk, between two points.
#[cfg(debug_assertions)]
pub(super) fn around<T, E>(op: impl FnOnce() -> Op, change: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    active::point();
    let result = change()?;
    active::note(op);
    active::point();
    Ok(result)
}

/// Makes one change of the disk.
#[cfg(not(debug_assertions))]
#[inline]
pub(super) fn around<T, E>(_: impl FnOnce() -> Op, change: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    change()
}

/// Where a write is torn when the process is to be killed; `None` writes everything at once.
#[cfg(debug_assertions)]
pub(super) fn tear(length: usize) -> Option<usize> {
    (active::armed() && length > 1).then_some(length / 2)
}

/// Writes everything at once.
#[cfg(not(debug_assertions))]
#[inline]
pub(super) const fn tear(_: usize) -> Option<usize> {
    None
}

/// A point inside a change.
#[cfg(debug_assertions)]
pub(super) fn point() {
    active::point();
}

/// Nothing.
#[cfg(not(debug_assertions))]
#[inline]
pub(super) const fn point() {}
