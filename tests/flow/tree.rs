//! A node's root as a list: path → mode, kind, content. nodeprep's own state is left out.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Path → what stands there.
pub type Listing = BTreeMap<String, (u32, What)>;

/// What stands at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A folder.
    Folder,
    /// A file.
    File(Vec<u8>),
    /// A link.
    Link(String),
}

/// Copies a fixture; `.keep` files stand for empty folders, `NAME.link` files for links to what they hold, `NAME.mode-0600`
/// for files of that mode (git keeps none of these).
pub fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    if !from.exists() {
        return Ok(());
    }
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            copy(&path, &to.join(name))?;
        } else if let Some(name) = name.strip_suffix(".link") {
            std::os::unix::fs::symlink(std::fs::read_to_string(&path)?.trim(), to.join(name))?;
        } else if let Some((name, mode)) = name.split_once(".mode-") {
            let mode = u32::from_str_radix(mode, 8).unwrap_or(0o600);
            std::fs::copy(&path, to.join(name))?;
            std::fs::set_permissions(to.join(name), std::fs::Permissions::from_mode(mode))?;
        } else if name != ".keep" {
            std::fs::copy(&path, to.join(&name))?;
            std::fs::set_permissions(to.join(&name), std::fs::Permissions::from_mode(0o644))?;
        }
    }
    Ok(())
}

/// Reads a root.
pub fn read(root: &Path) -> std::io::Result<Listing> {
    let mut listing = Listing::new();
    walk(root, root, &mut |path, name| {
        let meta = std::fs::symlink_metadata(path)?;
        let what = if meta.is_symlink() {
            What::Link(std::fs::read_link(path)?.display().to_string())
        } else if meta.is_dir() {
            What::Folder
        } else {
            What::File(std::fs::read(path)?)
        };
        listing.insert(name, (meta.permissions().mode() & 0o7777, what));
        Ok(())
    })?;
    Ok(listing)
}

/// Inode and change time of every path, nodeprep's own state included: what has been written again shows.
pub fn stamps(root: &Path) -> std::io::Result<BTreeMap<String, (u64, i64, i64)>> {
    let mut stamps = BTreeMap::new();
    let state = root.join("var/lib/nodeprep");
    let mut note = |path: &Path, name: String| {
        let meta = std::fs::symlink_metadata(path)?;
        if !meta.is_dir() && !name.ends_with("/lock") {
            stamps.insert(name, (meta.ino(), meta.ctime(), meta.ctime_nsec()));
        }
        Ok(())
    };
    walk(root, root, &mut note)?;
    if state.exists() {
        walk(&state, &state, &mut |path, name| note(path, format!("state/{name}")))?;
    }
    Ok(stamps)
}

fn walk(root: &Path, folder: &Path, see: &mut impl FnMut(&Path, String) -> std::io::Result<()>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        if name == "var/lib/nodeprep" {
            continue;
        }
        see(&path, name)?;
        if path.is_dir() && !path.is_symlink() {
            walk(root, &path, see)?;
        }
    }
    Ok(())
}

/// The files below a root that hold a text, nodeprep's own state included.
pub fn holding(root: &Path, text: &str) -> std::io::Result<Vec<String>> {
    let mut found = Vec::new();
    let state = root.join("var/lib/nodeprep");
    let mut look = |path: &Path, name: String| {
        if !path.is_symlink() && path.is_file() && String::from_utf8_lossy(&std::fs::read(path)?).contains(text) {
            found.push(name);
        }
        Ok(())
    };
    walk(root, root, &mut look)?;
    if state.exists() {
        walk(&state, &state, &mut |path, name| look(path, format!("state/{name}")))?;
    }
    Ok(found)
}

/// What is in one listing and not in the other, or differs; empty when they are the same. Folders above nodeprep's state
/// (`/var/lib`) are no difference.
pub fn difference(before: &Listing, after: &Listing) -> String {
    let mut text = String::new();
    let paths: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for path in paths {
        let (old, new) = (before.get(path), after.get(path));
        if old == new || matches!(path.as_str(), "var" | "var/lib") {
            continue;
        }
        match new {
            None => {
                let _ = writeln!(text, "=== /{path}: gone");
            }
            Some((mode, What::Folder)) => {
                let _ = writeln!(text, "=== /{path}: folder {mode:04o}");
            }
            Some((_, What::Link(to))) => {
                let _ = writeln!(text, "=== /{path}: link to {to}");
            }
            Some((mode, What::File(bytes))) => {
                let _ = writeln!(text, "=== /{path}: file {mode:04o}");
                text.push_str(&String::from_utf8_lossy(bytes));
                if !text.ends_with('\n') {
                    text.push_str("\n(no newline at the end)\n");
                }
            }
        }
    }
    text
}
