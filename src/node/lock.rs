//! One run at a time.

use std::fs::File;
use std::io::{Read, Write};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};

use super::error::NodeError;
use super::root::{Last, Root, make_folder_as};
use crate::model::path::NodePath;

/// Held until dropped, or until the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl Lock {
    /// Takes the lock in the state folder, which is made with mode 0700 when it is missing.
    ///
    /// # Errors
    /// [`NodeError::Locked`] with the holder's process id when another run has it; anything else when the state folder
    /// cannot be made or written.
    pub fn take(root: &Root, state: &NodePath) -> Result<Self, NodeError> {
        let path = state.join("lock");
        let mut made = Vec::new();
        let spot = root.place(state, Last::Follow, &mut made)?;
        match spot.folder.stat(&spot.name)? {
            None => make_folder_as(&spot.folder, &spot.name, 0o700)?,
            Some(found) if found.st_mode & 0o077 != 0 => {
                fchmodat(&*spot.folder, spot.name.as_str(), Mode::from_bits_truncate(0o700), FchmodatFlags::FollowSymlink)
                    .map_err(|errno| NodeError::of("set the mode of", state.clone(), errno))?;
            }
            Some(_) => {}
        }
        let failed = |doing| {
            let path = path.clone();
            move |errno| NodeError::of(doing, path, errno)
        };
        let Some(folder) = root.folder(state)? else { return Err(failed("open")(Errno::ENOENT)) };
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&*folder, "lock", flags, Mode::from_bits_truncate(0o600)).map_err(|errno| match errno {
            Errno::EISDIR | Errno::ELOOP | Errno::ENXIO => NodeError::NotFile { path: path.clone() },
            errno => failed("open")(errno),
        })?;
        match Flock::lock(File::from(file), FlockArg::LockExclusiveNonblock) {
            Ok(mut file) => {
                // for the message of whoever comes second; the lock itself needs no content
                let _ = file.set_len(0).and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
                Ok(Self { _file: file })
            }
            Err((mut file, Errno::EWOULDBLOCK)) => {
                let mut text = String::new();
                let pid = file.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                Err(NodeError::Locked { path, pid })
            }
            Err((_, errno)) => Err(failed("lock")(errno)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The number of an earlier holder, longer than ours, leaves nothing behind.
    #[test]
    fn who_comes_second_is_told_who_was_first() {
        let dir = tempfile::tempdir().unwrap();
        let (root, state) = (Root::open(dir.path()).unwrap(), NodePath::fixed("/var/lib/nodeprep"));
        drop(Lock::take(&root, &state).unwrap());
        std::fs::write(dir.path().join("var/lib/nodeprep/lock"), "123456789012\n").unwrap();
        let held = Lock::take(&root, &state).unwrap();
        let Err(NodeError::Locked { pid, .. }) = Lock::take(&root, &state) else { panic!("it was taken twice") };
        assert_eq!(pid, Some(std::process::id()));
        drop(held);
        assert!(Lock::take(&root, &state).is_ok());
    }
}
