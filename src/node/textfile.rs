//! A file for node_exporter's textfile collector: outside of the node's root, where whoever runs this says.

use std::fs::{self, File, Permissions};
use std::io::{Error, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Writes a file as a whole: who reads it meanwhile sees the old one.
///
/// # Errors
/// When it cannot be written; the old one stays.
pub fn write(folder: &Path, name: &str, text: &str) -> Result<(), Error> {
    // the collector reads what ends in .prom alone
    let next = folder.join(format!(".{name}.{}", std::process::id()));
    let put = || {
        let mut file = File::options().write(true).create_new(true).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(Permissions::from_mode(0o644))?;
        fs::rename(&next, folder.join(name))
    };
    put().inspect_err(|error| {
        if error.kind() != std::io::ErrorKind::AlreadyExists {
            let _ = fs::remove_file(&next);
        }
    })
}
