//! Which auth files a runtime consults (`runtime-semantics.md` 2.7, `containers-auth.json(5)`), and the logins in them.

use super::files::{crio_image, home, variable};
use crate::format::auth_json::{Auths, Login, parse};
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::tree::{Found, Tree};
use crate::runtime::{FoundRuntime, Runtime};

/// The files that are looked at when none is named, in order. The first lies in memory and is gone after a reboot.
#[must_use]
pub fn defaults(home: &NodePath) -> Vec<NodePath> {
    vec![NodePath::fixed("/run/containers/0/auth.json"), home.join(".config/containers/auth.json"), home.join(".docker/config.json")]
}

/// The files that `on` consults for a login, in order.
#[must_use]
pub fn consulted(tree: &Tree, on: &FoundRuntime) -> Vec<NodePath> {
    match named(tree, on) {
        Some(file) => vec![file],
        None => defaults(&home(on)),
    }
}

/// The file into which our logins go: the one that is named in `on`'s configuration, else the lasting one of the usual ones.
/// No restart is needed for either: both are consulted already.
#[must_use]
pub fn ours(tree: &Tree, on: &FoundRuntime) -> NodePath {
    named(tree, on).unwrap_or_else(|| home(on).join(".config/containers/auth.json"))
}

fn named(tree: &Tree, on: &FoundRuntime) -> Option<NodePath> {
    let path = match on.runtime {
        Runtime::Crio => crio_image(tree, on).global_auth_file,
        _ => variable(on, "REGISTRY_AUTH_FILE").map(ToOwned::to_owned),
    };
    path.and_then(|path| NodePath::new(&path).ok())
}

/// The logins of the files that a runtime consults.
#[derive(Debug, Default)]
pub struct Logins {
    files: Vec<(NodePath, Result<Auths, String>)>,
}

impl Logins {
    /// Reads them; a file that does not exist is none.
    #[must_use]
    pub fn read(tree: &Tree, files: &[NodePath]) -> Self {
        let read = |file: &NodePath| match tree.find(file) {
            Found::File(bytes, _) => {
                let auths = parse(&String::from_utf8_lossy(bytes)).map_err(|error| error.to_string());
                Some((file.clone(), auths))
            }
            Found::Unreadable(why) => Some((file.clone(), Err(why.to_owned()))),
            Found::Absent | Found::Dir | Found::Unread => None,
        };
        Self { files: files.iter().filter_map(read).collect() }
    }

    /// The login for a repository, and the file that it comes from.
    ///
    /// # Errors
    /// The first file that cannot be read and why: the request is not made then.
    pub fn find(&self, host: &Host, repo: &str) -> Result<Option<(&NodePath, Login)>, (&NodePath, &str)> {
        for (file, auths) in &self.files {
            match auths {
                Ok(auths) => {
                    if let Some(login) = auths.find(host, repo) {
                        return Ok(Some((file, login)));
                    }
                }
                Err(why) => return Err((file, why)),
            }
        }
        Ok(None)
    }
}
