//! File systems that refuse.

use std::fs;
use std::process::Command;

use crate::node::{Node, alone, is_root, must};

#[test]
fn read_only_root() {
    alone("disk::read_only_root", || {
        let node = Node::new();
        let root = node.root.to_str().unwrap();
        must(&["mount", "--bind", root, root]);
        must(&["mount", "-o", "remount,ro,bind", root]);
        node.refused(4, &["/var/lib/nodeprep", "read-only", "remount"]);
        node.run("revert").says(4, &["read-only"]);
        must(&["umount", root]);
        node.converges();
    });
}

#[test]
fn read_only_folders() {
    alone("disk::read_only_folders", || {
        for folder in ["etc", "usr", "etc/containers"] {
            let node = Node::new();
            fs::create_dir_all(node.at(folder)).unwrap();
            let folder = node.at(folder);
            let folder = folder.to_str().unwrap();
            must(&["mount", "--bind", folder, folder]);
            must(&["mount", "-o", "remount,ro,bind", folder]);
            node.refused(4, &["read-only", "remount"]);
            let run = node.run("apply");
            assert!(run.out.contains("nothing was changed") && !run.out.contains("due"), "{}", run.out);
            must(&["umount", folder]);
            node.converges();
        }
    });
}

#[test]
fn full_file_system() {
    alone("disk::full_file_system", || {
        let mut node = Node::new();
        let disk = node.folder().join("disk");
        fs::create_dir(&disk).unwrap();
        let (mount, from) = (disk.to_str().unwrap().to_owned(), format!("{}/.", node.root.display()));
        node.root = disk.clone();
        // room for nothing, for some of the files, for all but the ledger
        for room in [0, 1, 6, 12, 16, 20] {
            must(&["mount", "-t", "tmpfs", "-o", "size=1m", "none", &mount]);
            must(&["cp", "-a", &from, &mount]);
            let fill =
                format!("n=$(($(stat -f -c %a {mount}) - {room})); head -c $((n * $(stat -f -c %S {mount}))) /dev/zero > {mount}/filler");
            must(&["sh", "-c", &fill]);
            node.plan_changes_nothing();
            node.apply_refused(4, &["no space left", "make room"]);
            let run = node.run("apply");
            assert!(run.out.contains("nothing was changed") && !run.out.contains("due:") || room == 0, "{}", run.out);
            fs::remove_file(disk.join("filler")).unwrap();
            node.converges();
            must(&["umount", &mount]);
        }
    });
}

/// An attribute that is taken off again however the test ends.
struct Attribute(std::path::PathBuf, &'static str);

impl Attribute {
    fn set(path: std::path::PathBuf, attribute: &'static str) -> Option<Self> {
        let set = Command::new("chattr").arg(format!("+{attribute}")).arg(&path).output();
        if set.as_ref().is_ok_and(|output| output.status.success()) {
            return Some(Self(path, attribute));
        }
        println!("skipped: chattr +{attribute} is not possible here: {set:?}");
        None
    }
}

impl Drop for Attribute {
    fn drop(&mut self) {
        must(&["chattr", &format!("-{}", self.1), self.0.to_str().unwrap()]);
    }
}

#[test]
fn immutable() {
    for path in ["/etc/containerd/config.toml", "/etc/containers", "/root/.config/containers/auth.json"] {
        let node = Node::new();
        fs::create_dir_all(node.at("/etc/containers")).unwrap();
        let Some(attribute) = Attribute::set(node.at(path), "i") else { return };
        node.refused(4, &[path, "immutable", "lsattr -d", "chattr -i"]);
        drop(attribute);
        node.converges();
    }
}

#[test]
fn append_only() {
    let node = Node::new();
    let Some(attribute) = Attribute::set(node.at("/etc/containerd/config.toml"), "a") else { return };
    // the kernel says so only when the file is to be replaced: everything comes back
    node.apply_refused(6, &["/etc/containerd/config.toml", "chattr -ia"]);
    let run = node.run("apply");
    assert!(run.out.contains("everything is as it was before") && !run.out.contains("due:"), "{}", run.out);
    drop(attribute);
    node.converges();
}

#[test]
fn immutable_on_the_way_back() {
    let node = Node::new();
    let before = node.picture(false);
    node.run("apply").says(0, &[]);
    let Some(attribute) = Attribute::set(node.at("/etc/containerd/certs.d/docker.io/hosts.toml"), "i") else { return };
    let applied = node.picture(false);
    node.run("revert").says(4, &["certs.d/docker.io/hosts.toml", "chattr -i", "nothing was changed"]);
    crate::node::same(&applied, &node.picture(false));
    drop(attribute);
    node.run("revert").says(0, &[]);
    crate::node::same(&before, &node.picture(false));
}

#[test]
fn mount_points() {
    alone("disk::mount_points", || {
        let node = Node::new();
        let file = node.at("/etc/containerd/config.toml");
        let file = file.to_str().unwrap();
        must(&["mount", "--bind", file, file]);
        node.refused(4, &["/etc/containerd/config.toml is a mount point", "mount the folder that holds"]);
        must(&["umount", file]);
        node.converges();

        let folder = node.at("/etc/containerd/certs.d");
        fs::create_dir(&folder).unwrap();
        let folder = folder.to_str().unwrap();
        must(&["mount", "-t", "tmpfs", "none", folder]);
        node.refused(4, &["/etc/containerd/certs.d/docker.io", "file system"]);
        must(&["umount", folder]);
        node.converges();
    });
}

#[test]
fn missing_permission() {
    let mut node = Node::new();
    if !is_root() {
        println!("skipped: another user's files need root to be made");
        return;
    }
    must(&["chmod", "755", node.folder().to_str().unwrap()]);
    must(&["chmod", "-R", "a+rX", node.spec.to_str().unwrap()]);
    node.through = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"].map(str::to_owned).to_vec();
    if node.command(&["--version".to_owned()], std::process::Stdio::null()).code != 0 {
        println!("skipped: the program cannot be started as another user here");
        return;
    }
    node.refused(4, &["/var/lib", "permission denied", "run as root"]);
    node.run("revert").says(4, &["permission denied", "run as root"]);
    let run = node.run("explain docker.io/library/x");
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    node.through.clear();
    node.converges();
}
