//! The spec's document and the files that it references.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::root::Root;
use crate::model::path::NodePath;
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;
use crate::spec::load::LARGEST;
use crate::spec::reference::{Location, Reference};

/// A document as it was found.
#[derive(Debug)]
pub struct Document {
    /// The file, as it is named in messages.
    pub name: String,
    /// Its bytes; at most one more than is allowed, so that "too large" can be told.
    pub bytes: Vec<u8>,
    /// The folder in which relative references are looked for; `None` for standard input.
    pub folder: Option<PathBuf>,
}

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum MaterialError {
    /// It cannot be read.
    #[error("the spec {name} cannot be read: {why}")]
    Unreadable {
        /// The file.
        name: String,
        /// What the system said.
        why: std::io::Error,
    },
    /// A folder without a document, or with several.
    #[error("the spec folder {name} holds {found} documents (*.toml)")]
    NotOne {
        /// The folder.
        name: String,
        /// How many.
        found: usize,
    },
}

impl MaterialError {
    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable { name, .. } => format!("write the spec to {name}, or name another file with --spec"),
            Self::NotOne { .. } => "keep exactly one document in the folder, or name the file with --spec".to_owned(),
        }
    }
}

/// Reads the document at `spec`: a file, `-` for standard input, or a folder with one `*.toml` (names that begin with a dot
/// are passed over).
///
/// # Errors
/// When there is nothing to read.
pub fn document(spec: &Path) -> Result<Document, MaterialError> {
    let name = spec.display().to_string();
    let unreadable = |name: &str, why| MaterialError::Unreadable { name: name.to_owned(), why };
    let most = LARGEST as u64 + 1;
    let mut bytes = Vec::new();
    if name == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes).map_err(|why| unreadable("on standard input", why))?;
        return Ok(Document { name: "standard input".to_owned(), bytes, folder: None });
    }
    let mut file = spec.to_owned();
    if spec.is_dir() {
        let names = std::fs::read_dir(spec).map_err(|why| unreadable(&name, why))?;
        let mut found: Vec<PathBuf> = names.flatten().map(|entry| entry.path()).collect();
        found.retain(|path| {
            let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
            !hidden && path.extension().is_some_and(|ending| ending == "toml")
        });
        match found.pop() {
            Some(only) if found.is_empty() => file = only,
            other => return Err(MaterialError::NotOne { name, found: found.len() + usize::from(other.is_some()) }),
        }
    }
    let name = file.display().to_string();
    let opened = std::fs::File::open(&file).map_err(|why| unreadable(&name, why))?;
    opened.take(most).read_to_end(&mut bytes).map_err(|why| unreadable(&name, why))?;
    let folder = file.parent().map(|folder| if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() });
    Ok(Document { name, bytes, folder })
}

/// Reads the files that a document references, by [`Reference::written`]: relative ones below `folder`, never through a link
/// that leaves it; `node:` ones inside `node`, and not at all without one.
#[must_use]
pub fn materials(folder: Option<&Path>, node: Option<&Root>, references: &[Reference]) -> BTreeMap<String, Result<Vec<u8>, String>> {
    let opened = folder.map(|folder| Root::open(folder).map_err(|_| format!("{} is no folder that can be opened", folder.display())));
    let mut materials = BTreeMap::new();
    for reference in references {
        let content = match (&reference.location, &opened, node) {
            (Location::Beside(name), Some(Ok(folder)), _) => inside(folder, &NodePath::root().join(name)),
            (Location::Beside(_), Some(Err(why)), _) => Err(why.clone()),
            (Location::Beside(_), None, _) => {
                Err("a document from standard input has no folder to look in; name one with --material".to_owned())
            }
            (Location::Node(path), _, Some(node)) => inside(node, path),
            (Location::Node(_), _, None) => continue,
        };
        materials.insert(reference.written.clone(), content);
    }
    materials
}

fn inside(root: &Root, path: &NodePath) -> Result<Vec<u8>, String> {
    let tree: Tree = super::read::read(root, |_| vec![Wish::path(path.clone())]);
    match tree.find(path) {
        Found::File(bytes, _) => Ok(bytes.to_vec()),
        Found::Absent | Found::Unread => Err("it does not exist (links that leave the folder are not followed)".to_owned()),
        Found::Dir(_) => Err("it is a folder".to_owned()),
        Found::Unreadable(why) => Err(why.to_owned()),
    }
}
