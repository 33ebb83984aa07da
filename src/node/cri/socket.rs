//! Opening a runtime's socket inside the root.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstat};
use tokio::net::UnixStream;

use crate::model::cri::CriError;
use crate::model::path::NodePath;
use crate::node::error::NodeError;
use crate::node::root::{Last, Root, Stop};

/// The socket itself, found inside the root and not yet connected to: a descriptor that leads nowhere else, whatever is renamed
/// meanwhile.
///
/// # Errors
/// What stands in the way.
pub fn find(root: &Root, path: &NodePath) -> Result<OwnedFd, CriError> {
    let spot = root.afresh().walk(path, Last::Follow, &mut |_, _, _| {}).map_err(|stop| match stop {
        Stop::Missing { .. } => CriError::Absent { path: path.clone() },
        Stop::Failed(NodeError::Permission { path, .. }) => CriError::Permission { path },
        Stop::Failed(error) => CriError::Unreachable { path: path.clone(), why: error.to_string() },
    })?;
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let found = openat(&*spot.folder, spot.name.as_str(), flags, Mode::empty()).map_err(|errno| refused(path, errno))?;
    let kind = fstat(&found).map_err(|errno| refused(path, errno))?.st_mode & SFlag::S_IFMT.bits();
    if kind == SFlag::S_IFSOCK.bits() { Ok(found) } else { Err(CriError::NotSocket { path: path.clone() }) }
}

/// Connects, through the descriptor: an address holds 108 bytes, and what is below the root may be longer.
///
/// # Errors
/// What the kernel says.
pub async fn connect(found: &OwnedFd, path: &NodePath) -> Result<UnixStream, CriError> {
    /// How long to wait while the queue of those who want to connect is full.
    const AGAIN: Duration = Duration::from_millis(20);
    let address = format!("/proc/self/fd/{}", found.as_raw_fd());
    loop {
        match UnixStream::connect(&address).await {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => tokio::time::sleep(AGAIN).await,
            Err(error) => {
                return Err(match error.raw_os_error().map(Errno::from_raw) {
                    // the socket was found: it is the way to it that is not there
                    Some(Errno::ENOENT) => CriError::Unreachable { path: path.clone(), why: "/proc is not mounted".to_owned() },
                    Some(errno) => refused(path, errno),
                    None => CriError::Unreachable { path: path.clone(), why: error.to_string() },
                });
            }
        }
    }
}

fn refused(path: &NodePath, errno: Errno) -> CriError {
    let path = path.clone();
    match errno {
        Errno::ENOENT => CriError::Absent { path },
        Errno::EACCES | Errno::EPERM => CriError::Permission { path },
        Errno::ECONNREFUSED => CriError::Deserted { path },
        errno => CriError::Unreachable { path, why: errno.desc().to_lowercase() },
    }
}
