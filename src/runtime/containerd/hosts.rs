//! The folder that counts for an image's registry, and the hosts that it gives.

use std::rc::Rc;

use super::Dialect;
use crate::format::hosts_toml::{self, HostConfig, HostsFile};
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::resolution::{FileVerdict, Verdict};
use crate::model::tree::{Found, Tree};

/// What was found for a registry.
#[derive(Debug)]
pub(super) struct Located {
    /// Hosts in order, the last one without URL when it is the registry itself.
    pub hosts: Rc<[HostConfig]>,
    /// What each file was good for.
    pub files: Vec<FileVerdict>,
}

/// Names under which a registry's folder is looked for, in order (`runtime-semantics.md` 1.1).
pub(super) fn candidates(host: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(3);
    if let Some(colon) = host.rfind(':').filter(|at| *at > 0) {
        names.push(format!("{}_{}_", &host[..colon], &host[colon + 1..]));
    }
    names.push(host.to_owned());
    names.push("_default".to_owned());
    names
}

/// Finds and reads the folder for `host`. The first that exists counts, in the first root that has one.
///
/// # Errors
/// When containerd fails the pull: the verdicts so far and the reason.
pub(super) fn locate(
    tree: &Tree,
    roots: &[NodePath],
    host: &Host,
    dialect: Dialect,
) -> Result<Option<Located>, (Vec<FileVerdict>, String)> {
    let verdict = |path: NodePath, verdict| FileVerdict { path, verdict };
    let names = candidates(host.as_str());
    let mut chosen: Option<NodePath> = None;
    let mut shadowed = Vec::new();
    for root in roots {
        if matches!(tree.find(root), Found::File(..)) {
            let why = format!("{root} is no folder: the pull fails");
            return Err((vec![verdict(root.clone(), Verdict::Broken(why.clone()))], why));
        }
        for name in &names {
            let path = root.join(name);
            match (tree.find(&path), &chosen) {
                (Found::Absent, _) | (Found::File(..) | Found::Unreadable(_) | Found::Unread, Some(_)) => {}
                // a catch-all is there to be stood in front of
                (Found::Dir, Some(_)) if name == "_default" => {}
                (Found::Dir, Some(before)) => shadowed.push(verdict(path, Verdict::Shadowed(before.clone()))),
                (Found::Dir, None) => chosen = Some(path),
                (Found::File(..), None) => {
                    // T25
                    let why = format!("{path} is a file where a folder belongs: every pull from {host} fails");
                    return Err((vec![verdict(path, Verdict::Broken(why.clone()))], why));
                }
                (Found::Unread, None) => return Err(unread(path)),
                (Found::Unreadable(reason), None) => {
                    let why = format!("{path} cannot be read ({reason}): every pull from {host} fails");
                    return Err((vec![verdict(path, Verdict::Broken(why.clone()))], why));
                }
            }
        }
    }
    let Some(folder) = chosen else { return Ok(None) };
    let file = folder.join("hosts.toml");
    let mut files = Vec::new();
    let parsed = match tree.find(&file) {
        Found::File(bytes, _) if bytes.is_empty() => {
            files.push(verdict(file, Verdict::Ignored("is empty: the folder is searched for certificate files instead".into())));
            None
        }
        Found::File(bytes, _) => match hosts_toml::parse(bytes, &file, dialect) {
            Ok(HostsFile { hosts, root }) => {
                files.push(verdict(file, Verdict::Used));
                Some(hosts.into_iter().chain([root]).collect())
            }
            Err(rejected) => {
                let why = format!("is rejected ({}: {rejected}), and the registry itself is asked", rejected.at);
                files.push(verdict(file, Verdict::Ignored(why)));
                None
            }
        },
        Found::Absent => None,
        Found::Unread => return Err(unread(file)),
        Found::Dir | Found::Unreadable(_) => {
            let why = format!("{file} cannot be read: every pull from {host} fails");
            files.push(verdict(file, Verdict::Broken(why.clone())));
            return Err((files, why));
        }
    };
    let hosts = parsed.unwrap_or_else(|| [scan(tree, &folder, &mut files)].into());
    files.extend(shadowed);
    Ok(Some(Located { hosts, files }))
}

/// A defect of [`super::wishes`](fn@super::wishes), never taken for absence.
fn unread(path: NodePath) -> (Vec<FileVerdict>, String) {
    let why = format!("{path} was not looked at");
    (vec![FileVerdict { path, verdict: Verdict::Broken(why.clone()) }], why)
}

/// Docker's way of placing certificates, taken when there is no usable hosts.toml (1.2; hosts.go, `loadCertFiles`).
fn scan(tree: &Tree, folder: &NodePath, files: &mut Vec<FileVerdict>) -> HostConfig {
    let mut config = HostConfig::bare(Place::file(folder.as_str()));
    let mut used = |path: &NodePath| files.push(FileVerdict { path: path.clone(), verdict: Verdict::Used });
    let names = tree.names(folder);
    for name in &names {
        let path = folder.join(name);
        if matches!(tree.find(&path), Found::Dir) {
            continue;
        }
        if name.strip_suffix(".crt").is_some() {
            used(&path);
            config.ca.get_or_insert_default().push(path);
        } else if let Some(stem) = name.strip_suffix(".cert") {
            let key = folder.join(&format!("{stem}.key"));
            let key = tree.exists(&key).then_some(key);
            used(&path);
            key.iter().for_each(&mut used);
            config.client.get_or_insert_default().push((path, key));
        }
    }
    if config.ca.is_none() && config.client.is_none() {
        let why = "holds nothing that is read, but stands before _default: the registry itself is asked";
        files.push(FileVerdict { path: folder.clone(), verdict: Verdict::Ignored(why.into()) });
    }
    config
}
