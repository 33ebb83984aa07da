//! The spec's documents and the files that they reference.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::root::{Last, Root};
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;
use crate::spec::documents::Document;
use crate::spec::load::LARGEST;
use crate::spec::notation::Notation;
use crate::spec::reference::{Location, Reference};
use crate::spec::signature::{self, LIST, Seal};

/// The documents of a spec as they were found.
#[derive(Debug)]
pub struct Documents {
    /// The file or folder, as it is named in messages.
    pub name: String,
    /// At least one, in the order of their names; at most one byte more than is allowed, so that "too large" can be told.
    pub documents: Vec<Document>,
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
        why: String,
    },
    /// One of a folder's cannot be read.
    #[error("the document {name} cannot be read: {why}")]
    InFolder {
        /// The file.
        name: String,
        /// What is in the way.
        why: String,
    },
    /// A signature is asked for, and there is none.
    #[error("the signature of the spec cannot be read: {name}: {why}")]
    Unsigned {
        /// The file that should be there.
        name: String,
        /// What is in the way.
        why: String,
    },
    /// A folder without a document.
    #[error("the spec folder {name} holds no document (*.toml, *.yaml, *.yml)")]
    Empty {
        /// The folder.
        name: String,
    },
}

impl MaterialError {
    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Unreadable { name, .. } => format!("write the spec to {name}, or name another file with --spec"),
            Self::InFolder { .. } => "put the document itself into the folder, readable for nodeprep, or take the name out".to_owned(),
            Self::Unsigned { .. } => "sign it with `minisign -S`, or do not ask for a signature (--spec-public-key)".to_owned(),
            Self::Empty { .. } => "put a document into the folder, or name another one with --spec".to_owned(),
        }
    }
}

/// Reads the documents at `spec`: a file, `-` for standard input, or a folder: its `*.toml`, `*.yaml` and `*.yml` whose names
/// do not begin with a dot, through links only where these stay in the folder (as those of a mounted `ConfigMap` do).
///
/// # Errors
/// When there is nothing to read: everything that cannot be.
pub fn documents(spec: &Path) -> Result<Documents, Vec<MaterialError>> {
    let name = spec.display().to_string();
    let unreadable = |name: &str, why: &std::io::Error| vec![MaterialError::Unreadable { name: name.to_owned(), why: why.to_string() }];
    let most = LARGEST as u64 + 1;
    let mut bytes = Vec::new();
    if name == "-" {
        std::io::stdin().take(most).read_to_end(&mut bytes).map_err(|why| unreadable("on standard input", &why))?;
        let name = "standard input".to_owned();
        return Ok(Documents { name: name.clone(), documents: vec![Document { file: name, bytes }], folder: None });
    }
    if spec.is_dir() {
        return in_folder(spec, name);
    }
    let opened = std::fs::File::open(spec).map_err(|why| unreadable(&name, &why))?;
    opened.take(most).read_to_end(&mut bytes).map_err(|why| unreadable(&name, &why))?;
    Ok(Documents { name: name.clone(), documents: vec![Document { file: name, bytes }], folder: Some(folder(spec)) })
}

/// Where the files lie that a spec in a file or folder references.
#[must_use]
pub fn folder(spec: &Path) -> PathBuf {
    match spec.parent() {
        _ if spec.is_dir() => spec.to_owned(),
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn in_folder(folder: &Path, name: String) -> Result<Documents, Vec<MaterialError>> {
    let unreadable = |name: &str, why: String| MaterialError::Unreadable { name: name.to_owned(), why };
    let names = std::fs::read_dir(folder).map_err(|why| vec![unreadable(&name, why.to_string())])?;
    let mut names: Vec<String> = names.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.retain(|name| !name.starts_with('.') && Notation::of_name(name).is_some());
    order::sort(&mut names);
    if names.is_empty() {
        return Err(vec![MaterialError::Empty { name }]);
    }
    let root = Root::open(folder).map_err(|why| vec![unreadable(&name, why.to_string())])?;
    let (mut documents, mut wrong) = (Vec::new(), Vec::new());
    for file in names {
        let shown = folder.join(&file).display().to_string();
        match beside(&root, &file) {
            Ok(bytes) => documents.push(Document { file: shown, bytes }),
            Err(why) => wrong.push(MaterialError::InFolder { name: shown, why }),
        }
    }
    if !wrong.is_empty() {
        return Err(wrong);
    }
    let name = if let [only] = documents.as_slice() { only.file.clone() } else { name };
    Ok(Documents { name, documents, folder: Some(folder.to_owned()) })
}

/// Reads the signature of the spec at `spec`, and the list of a folder that it is of.
///
/// # Errors
/// What of it is not there.
pub fn seal(spec: &Path) -> Result<Seal, MaterialError> {
    let unsigned = |name: &Path, why: String| MaterialError::Unsigned { name: name.display().to_string(), why };
    if spec == Path::new("-") {
        return Err(unsigned(spec, "standard input has no file beside it".to_owned()));
    }
    let (folder, list) = (&folder(spec), spec.is_dir().then(|| LIST.to_owned()));
    let signed = list.clone().or_else(|| Some(spec.file_name()?.to_string_lossy().into_owned())).unwrap_or_default();
    let root = Root::open(folder).map_err(|why| unsigned(folder, why.to_string()))?;
    let read = |name: &str| {
        let bytes = beside(&root, name).map_err(|why| unsigned(&folder.join(name), why))?;
        let large = || unsigned(&folder.join(name), format!("it is larger than {} bytes", signature::LARGEST));
        if bytes.len() > signature::LARGEST { Err(large()) } else { Ok(bytes) }
    };
    Ok(Seal { list: list.as_deref().map(read).transpose()?, signature: read(&format!("{signed}{}", signature::ENDING))? })
}

/// Reads the files that a document references, by [`Reference::written`]: relative ones below `folder`, never through a link
/// that leaves it; `node:` ones inside `node`, and not at all without one.
#[must_use]
pub fn materials(folder: Option<&Path>, node: Option<&Root>, references: &[Reference]) -> BTreeMap<String, Result<Vec<u8>, String>> {
    let opened = folder.map(|folder| Root::open(folder).map_err(|_| format!("{} is no folder that can be opened", folder.display())));
    let mut materials = BTreeMap::new();
    for reference in references {
        let content = match (&reference.location, &opened, node) {
            (Location::Beside(name), Some(Ok(folder)), _) => beside(folder, name),
            (Location::Beside(_), Some(Err(why)), _) => Err(why.clone()),
            (Location::Beside(_), None, _) => {
                Err("a document from standard input has no folder to look in; name one with --material".to_owned())
            }
            (Location::Url(_), _, _) => Err("the document itself is not from there".to_owned()),
            (Location::Node(path), _, Some(node)) => inside(node, path),
            (Location::Node(_), _, None) => continue,
        };
        materials.insert(reference.written.clone(), content);
    }
    materials
}

/// A file of a folder, never through a link that leaves it.
fn beside(folder: &Root, name: &str) -> Result<Vec<u8>, String> {
    let path = NodePath::root().join(name);
    let mut leaving = None;
    // where the way ends is told by `inside`
    let _ = folder.walk(&path, Last::Follow, &mut |here, name, to| {
        if leaving.is_none() && leaves(&here.path, to) {
            let link = here.path.join(name);
            leaving = Some(format!("its link {} leads to {to}, out of the folder", link.as_str().trim_start_matches('/')));
        }
    });
    leaving.map_or_else(|| inside(folder, &path), Err)
}

/// Whether a link in the folder `here` leads above the root.
fn leaves(here: &NodePath, to: &str) -> bool {
    if to.starts_with('/') {
        return true;
    }
    let mut depth = here.components().count();
    for part in to.split('/').filter(|part| !matches!(*part, "" | ".")) {
        match (part, depth) {
            ("..", 0) => return true,
            ("..", _) => depth -= 1,
            _ => depth += 1,
        }
    }
    false
}

fn inside(root: &Root, path: &NodePath) -> Result<Vec<u8>, String> {
    let tree: Tree = super::read::read(root, |_| vec![Wish::path(path.clone())]);
    match tree.find(path) {
        Found::File(bytes, _) => Ok(bytes.to_vec()),
        Found::Absent | Found::Unread => Err("it does not exist".to_owned()),
        Found::Dir => Err("it is a folder".to_owned()),
        Found::Unreadable(why) => Err(why.to_owned()),
    }
}
