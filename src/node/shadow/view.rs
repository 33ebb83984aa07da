//! What the shadow sees of the node: everything, read-only; memory of its own where daemons write; and the files of the plan as they
//! will be. All of it is made in a mount namespace of its own and gone with it.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use super::Ask;
use crate::runtime::containerd::shadow::FOLDER;

/// Where daemons write, whatever their configuration says. (The rest cannot be written at all.)
const COVERED: [&str; 5] = ["/run", "/var/lib", "/opt", "/tmp", "/var/tmp"];
/// What is in memory there is a few files and an empty store.
const SIZE: &str = "mode=0755,size=256m";
/// A folder with more in it is not copied link by link.
const MOST_NAMES: usize = 4096;

/// Makes it; where the reduced configuration stands.
pub(super) fn prepare(ask: &Ask) -> Result<String, String> {
    if ask.root != Path::new("/") {
        nix::unistd::chroot(&ask.root).map_err(|errno| format!("{} cannot be changed into: {}", ask.root.display(), errno.desc()))?;
    }
    std::env::set_current_dir("/").map_err(|error| format!("/: {error}"))?;
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("proc"), "/proc", Some("proc"), quiet, None::<&str>).map_err(|errno| failed("/proc", errno))?;
    let program = fs::canonicalize(&ask.program).map_err(|error| format!("{}: {error}", ask.program))?;
    let is_folder = |path: &&str| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir());
    let covered: Vec<&str> = COVERED.into_iter().filter(is_folder).filter(|path| !program.starts_with(path)).collect();
    if !covered.contains(&"/run") {
        return Err("there is no /run of its own to be had".to_owned());
    }
    make_read_only(&covered)?;
    let mut view = View { own: Vec::new(), clones: 0 };
    for path in covered {
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(SIZE))
            .map_err(|errno| failed(path, errno))?;
        view.own.push((PathBuf::from(path), true));
    }
    let reduced = format!("{FOLDER}/config.toml");
    for folder in ["cni/bin", "cni/net.d"] {
        fs::create_dir_all(format!("{FOLDER}/{folder}")).map_err(|error| format!("{FOLDER}: {error}"))?;
    }
    fs::write(&reduced, &ask.reduced).map_err(|error| format!("{reduced}: {error}"))?;
    for (path, content) in &ask.laid {
        view.lay(Path::new(path), content.as_deref()).map_err(|why| format!("{path} cannot be shown as it will be: {why}"))?;
    }
    Ok(reduced)
}

fn failed(path: &str, errno: Errno) -> String {
    format!("{path} cannot be mounted: {}", errno.desc().to_lowercase())
}

/// Every mount that is not covered.
fn make_read_only(covered: &[&str]) -> Result<(), String> {
    let text = fs::read("/proc/self/mountinfo").map_err(|error| format!("/proc/self/mountinfo: {error}"))?;
    for (point, options) in text.split(|byte| *byte == b'\n').filter_map(mount_point) {
        let hidden = covered.iter().any(|path| point.starts_with(path)) || point.starts_with("/proc");
        if hidden || options.contains(MsFlags::MS_RDONLY) {
            continue;
        }
        let flags = options | MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        match mount(None::<&str>, &point, None::<&str>, flags, None::<&str>) {
            // another mount is above it, or nobody but its owner may look at it: nobody gets there
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) => {}
            Err(errno) => return Err(format!("{} cannot be made read-only: {}", point.display(), errno.desc().to_lowercase())),
        }
    }
    let sealed = statvfs("/").map_err(|errno| format!("/: {}", errno.desc()))?.flags().contains(FsFlags::ST_RDONLY);
    if sealed { Ok(()) } else { Err("the root cannot be made read-only: it is no mount of its own".to_owned()) }
}

/// A line of `/proc/self/mountinfo`: fields 5 and 6 (proc(5)).
fn mount_point(line: &[u8]) -> Option<(PathBuf, MsFlags)> {
    let mut fields = line.split(|byte| *byte == b' ').skip(4);
    let point = unescape(fields.next()?);
    let mut flags = MsFlags::empty();
    for option in fields.next()?.split(|byte| *byte == b',') {
        flags |= match option {
            b"ro" => MsFlags::MS_RDONLY,
            b"nosuid" => MsFlags::MS_NOSUID,
            b"nodev" => MsFlags::MS_NODEV,
            b"noexec" => MsFlags::MS_NOEXEC,
            b"noatime" => MsFlags::MS_NOATIME,
            b"nodiratime" => MsFlags::MS_NODIRATIME,
            b"relatime" => MsFlags::MS_RELATIME,
            _ => MsFlags::empty(),
        };
    }
    Some((PathBuf::from(std::ffi::OsString::from_vec(point)), flags))
}

/// Space, tab, line feed and backslash are octal there.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut at = 0;
    while at < field.len() {
        let digits = field.get(at + 1..at + 4).filter(|_| field[at] == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        if let Some(byte) = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            bytes.push(byte);
            at += 4;
        } else {
            bytes.push(field[at]);
            at += 1;
        }
    }
    bytes
}

/// Where files can be laid.
struct View {
    /// Mounts that were made here, and whether they are memory; else they show the node.
    own: Vec<(PathBuf, bool)>,
    clones: usize,
}

impl View {
    /// Lets `path` be a file with this content, or nothing.
    fn lay(&mut self, path: &Path, content: Option<&str>) -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let there = fs::symlink_metadata(path);
        match (there, content) {
            (Err(error), None) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            (Ok(_), Some(text)) if !self.is_memory(path) => {
                let file = format!("{FOLDER}/file-{}", self.clones);
                self.clones += 1;
                fs::write(&file, text).map_err(told)?;
                bind(Path::new(&file), path)
            }
            (_, content) => {
                // the nearest folder that is there
                let folder = path.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("/")).to_owned();
                if !self.is_memory(&folder) {
                    self.clone(&folder)?;
                }
                if let Some(text) = content {
                    fs::create_dir_all(path.parent().unwrap_or(&folder)).map_err(told)?;
                    fs::write(path, text).map_err(told)
                } else {
                    // what stands for it in the copy
                    let _ = umount2(path, MntFlags::MNT_DETACH);
                    fs::remove_file(path).map_err(told)
                }
            }
        }
    }

    /// Whether what is written there is written to memory of the shadow.
    fn is_memory(&self, path: &Path) -> bool {
        let above = self.own.iter().filter(|(point, _)| path.starts_with(point));
        above.max_by_key(|(point, _)| point.components().count()).is_some_and(|(_, memory)| *memory)
    }

    /// Puts memory in the place of a folder, in which everything is shown that was there.
    fn clone(&mut self, folder: &Path) -> Result<(), String> {
        let told = |error: io::Error| format!("{}: {error}", folder.display());
        let copy = PathBuf::from(format!("{FOLDER}/folder-{}", self.clones));
        self.clones += 1;
        fs::create_dir(&copy).map_err(told)?;
        mount(Some("tmpfs"), &copy, Some("tmpfs"), MsFlags::MS_NOSUID | MsFlags::MS_NODEV, Some(SIZE))
            .map_err(|errno| failed(&copy.display().to_string(), errno))?;
        let entries: Vec<_> = fs::read_dir(folder).and_then(Iterator::collect).map_err(told)?;
        if entries.len() > MOST_NAMES {
            return Err(format!("{} holds {} names", folder.display(), entries.len()));
        }
        let mut shown = Vec::new();
        for entry in entries {
            let (from, to) = (entry.path(), copy.join(entry.file_name()));
            let kind = entry.file_type().map_err(told)?;
            if kind.is_symlink() {
                fs::read_link(&from).and_then(|target| std::os::unix::fs::symlink(target, &to)).map_err(told)?;
                continue;
            }
            if kind.is_dir() { fs::create_dir(&to) } else { fs::write(&to, "") }.map_err(told)?;
            bind(&from, &to)?;
            shown.push(from);
        }
        mount(Some(&copy), folder, None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .map_err(|errno| failed(&folder.display().to_string(), errno))?;
        self.own.push((folder.to_owned(), true));
        self.own.extend(shown.into_iter().map(|path| (path, false)));
        Ok(())
    }
}

fn bind(from: &Path, to: &Path) -> Result<(), String> {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND | MsFlags::MS_REC, None::<&str>)
        .map_err(|errno| failed(&to.display().to_string(), errno))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_mountinfo() {
        let line = br"36 35 98:0 /mnt1 /mnt/with\040space rw,nosuid,noatime master:1 - ext3 /dev/root rw,errors=continue";
        let (point, flags) = mount_point(line).unwrap();
        assert_eq!((point.as_path(), flags), (Path::new("/mnt/with space"), MsFlags::MS_NOSUID | MsFlags::MS_NOATIME));
        assert_eq!(unescape(br"a\134b\09"), br"a\b\09");
        assert!(mount_point(b"").is_none());
    }

    #[test]
    fn the_innermost_mount_decides() {
        let own = [("/run", true), ("/etc/containerd", true), ("/etc/containerd/certs.d", false)];
        let view = View { own: own.into_iter().map(|(path, memory)| (PathBuf::from(path), memory)).collect(), clones: 0 };
        for (path, memory) in [
            ("/run/x", true),
            ("/runner", false),
            ("/etc/containerd/config.toml", true),
            ("/etc/containerd/certs.d/docker.io/hosts.toml", false),
            ("/etc/x", false),
        ] {
            assert_eq!(view.is_memory(Path::new(path)), memory, "{path}");
        }
    }
}
