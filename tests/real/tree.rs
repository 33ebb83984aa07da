//! What lies in a root, to compare before with after.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Path → kind, mode, owner and content.
pub type Tree = BTreeMap<PathBuf, (String, Vec<u8>)>;

/// nodeprep's own ledger may stay after a revert; everything else has to be as it was.
const OWN: &str = "var/lib/nodeprep";

/// Programs are large and nobody's to change: size and time tell as much as their bytes.
const LARGE: u64 = 1 << 20;

pub fn read(root: &Path) -> Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        let full = root.join(&folder);
        for entry in std::fs::read_dir(&full).with_context(|| full.display().to_string())? {
            let entry = entry.with_context(|| full.display().to_string())?;
            let path = folder.join(entry.file_name());
            if path == Path::new(OWN) {
                continue;
            }
            let name = || entry.path().display().to_string();
            let meta = entry.metadata().with_context(name)?;
            let mut kind = format!("{:o} {}:{}", meta.permissions().mode(), meta.uid(), meta.gid());
            let mut bytes = Vec::new();
            if meta.is_symlink() {
                let _ = write!(kind, " -> {}", std::fs::read_link(entry.path()).with_context(name)?.display());
            } else if meta.is_dir() {
                open.push(path.clone());
            } else if meta.len() > LARGE {
                let _ = write!(kind, " {} {}", meta.len(), meta.mtime());
            } else {
                bytes = std::fs::read(entry.path()).with_context(name)?;
            }
            tree.insert(path, (kind, bytes));
        }
    }
    Ok(tree)
}

/// One line per difference.
pub fn differences(before: &Tree, after: &Tree) -> Vec<String> {
    let gone = before.keys().filter(|path| !after.contains_key(*path)).map(|path| format!("gone: {}", path.display()));
    let new = after.keys().filter(|path| !before.contains_key(*path)).map(|path| format!("new: {}", path.display()));
    let changed = before.iter().filter_map(|(path, was)| {
        let is = after.get(path)?;
        match (was.0 == is.0, was.1 == is.1) {
            (true, true) => None,
            (false, _) => Some(format!("changed: {}: {} became {}", path.display(), was.0, is.0)),
            (true, false) => Some(format!("changed: {}: content", path.display())),
        }
    });
    gone.chain(new).chain(changed).collect()
}
