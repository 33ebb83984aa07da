//! Where the spec really is: every folder in which a name decides what is read, links included.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::agent::watches::Names;

/// As many links as Linux follows.
const MOST_LINKS: usize = 40;
/// As many entries of a folder as are looked at for links.
const MOST_ENTRIES: usize = 256;

/// Folders with the names in them that count.
pub(super) type Places = BTreeMap<PathBuf, Names>;

/// The places of a spec, of the folder for what it references, and of these files themselves.
///
/// A mounted `ConfigMap` is a folder whose `..data` is a link that is exchanged, and whose files are links through it: the link's name
/// in the folder is one of the places.
pub(super) fn places(spec: &Path, material: Option<&Path>, references: &[String]) -> Places {
    let mut places = Places::new();
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let spec = absolute(spec);
    let real = ways(&spec, &mut places);
    let folder = if real.is_dir() { spec.clone() } else { spec.parent().map(Path::to_owned).unwrap_or_default() };
    let material = material.map(&absolute);
    for whole in material.as_ref().into_iter().chain(real.is_dir().then_some(&spec)) {
        let real = ways(whole, &mut places);
        places.insert(real.clone(), Names::All);
        for entry in fs::read_dir(&real).into_iter().flatten().flatten().take(MOST_ENTRIES) {
            if entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
                ways(&entry.path(), &mut places);
            }
        }
    }
    for reference in references.iter().filter(|written| !written.contains(':')) {
        ways(&material.as_ref().unwrap_or(&folder).join(reference), &mut places);
    }
    places
}

/// Adds each link on the way to `path`, and its end; gives the real path, or as much of it as can be known.
fn ways(path: &Path, places: &mut Places) -> PathBuf {
    let mut todo: Vec<PathBuf> = parts(path);
    let mut here = PathBuf::from("/");
    let mut links = 0;
    while let Some(part) = todo.pop() {
        if part.as_os_str() == ".." {
            here.pop();
            continue;
        }
        let at = here.join(&part);
        match fs::read_link(&at) {
            Ok(to) if links < MOST_LINKS => {
                links += 1;
                add(&here, &part, places);
                if to.is_absolute() {
                    here = PathBuf::from("/");
                }
                todo.extend(parts(&to));
            }
            _ => {
                if todo.is_empty() {
                    add(&here, &part, places);
                }
                here = at;
            }
        }
    }
    here
}

/// The components, the last one first.
fn parts(path: &Path) -> Vec<PathBuf> {
    let plain = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        Component::CurDir | Component::RootDir | Component::Prefix(_) => None,
    });
    let mut parts: Vec<PathBuf> = plain.collect();
    parts.reverse();
    parts
}

fn add(folder: &Path, name: &Path, places: &mut Places) {
    match places.entry(folder.to_owned()).or_insert_with(|| Names::Only(BTreeSet::new())) {
        Names::All => {}
        Names::Only(names) => {
            names.insert(name.to_string_lossy().into_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn shown(places: &Places, below: &Path) -> Vec<String> {
        let inside = places.iter().filter_map(|(folder, names)| Some((folder.strip_prefix(below).ok()?, names)));
        inside
            .map(|(folder, names)| match names {
                Names::All => format!("{}: *", folder.display()),
                Names::Only(names) => format!("{}: {}", folder.display(), names.iter().cloned().collect::<Vec<_>>().join(" ")),
            })
            .collect()
    }

    /// As kubelet mounts it: `..data` leads to a folder with a time in its name, and each file through it.
    #[test]
    fn a_mounted_config_map() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        let mount = top.join("spec");
        fs::create_dir_all(mount.join("..2026_a")).unwrap();
        fs::write(mount.join("..2026_a/spec.toml"), "").unwrap();
        symlink("..2026_a", mount.join("..data")).unwrap();
        symlink("..data/spec.toml", mount.join("spec.toml")).unwrap();
        let all = shown(&places(&mount, None, &[]), &top);
        assert_eq!(all, [": spec", "spec: *", "spec/..2026_a: spec.toml"]);
        let file = shown(&places(&mount.join("spec.toml"), None, &["ca/root.pem".to_owned(), "node:/etc/x".to_owned()]), &top);
        assert_eq!(file, ["spec: ..data spec.toml", "spec/..2026_a: spec.toml", "spec/ca: root.pem"]);
    }

    #[test]
    fn what_is_not_there_yet_and_what_leads_in_a_circle() {
        let scratch = tempfile::tempdir().unwrap();
        let top = scratch.path().canonicalize().unwrap();
        assert_eq!(shown(&places(&top.join("a/spec.toml"), None, &[]), &top), ["a: spec.toml"]);
        symlink("y", top.join("x")).unwrap();
        symlink("x", top.join("y")).unwrap();
        assert_eq!(shown(&places(&top.join("x"), None, &[]), &top), [": x y"]);
        fs::create_dir(top.join("secret")).unwrap();
        symlink("secret", top.join("link")).unwrap();
        assert_eq!(shown(&places(&top.join("a"), Some(&top.join("link")), &["k.pem".to_owned()]), &top), [": a link secret", "secret: *"]);
    }
}
