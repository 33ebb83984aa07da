//! What must not get out of a case: no output shows a secret of its spec or its node, and no file that others may read holds one, but those that were
//! readable before nodeprep came.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::case::Case;
use crate::secrets::Secrets;

/// The files that `docs/files.md` lists with a secret in them, by what their paths begin and end with; all 0600.
const DOCUMENTED: [(&str, &str); 8] = [
    ("etc/containerd/certs.d/", "/hosts.toml"),
    ("etc/containerd/config.toml", ""),
    ("etc/nodeprep/pki/client-", ".key"),
    ("etc/containers/certs.d/", ".key"),
    ("root/.config/containers/auth.json", ""),
    ("var/lib/nodeprep/ledger.json", ""),
    ("var/lib/nodeprep/blobs/", ""),
    ("etc/containers/auth.json", ""),
];

/// What is wrong with the files that hold a secret now; `before` are those that held one when nodeprep came. `kept`: of what it writes something has to.
pub fn on_node(secrets: &Secrets, root: &Path, before: &BTreeMap<PathBuf, u32>, kept: bool) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let now = secrets.holders(root)?;
    if kept && now.is_empty() {
        wrong.push("no file of the node holds a secret of the case: nothing is looked at".to_owned());
    }
    for (path, mode) in now {
        let name = path.to_string_lossy();
        let documented = DOCUMENTED.iter().any(|(start, end)| name.starts_with(start) && name.ends_with(end));
        // whose file it was, his the mode, if it has not become laxer
        if before.get(&path).is_some_and(|was| mode & !was == 0) {
            continue;
        }
        if !documented {
            wrong.push(format!("/{name} holds a secret, and no documentation says so"));
        }
        if mode != 0o600 {
            wrong.push(format!("/{name} holds a secret with mode {mode:04o}"));
        }
    }
    for folder in ["var/lib/nodeprep", "var/lib/nodeprep/blobs"].map(|name| root.join(name)) {
        let mode = fs::metadata(&folder).map(|meta| meta.permissions().mode() & 0o7777);
        if mode.as_ref().is_ok_and(|mode| *mode != 0o700) {
            wrong.push(format!("{} has mode {:04o}", folder.display(), mode?));
        }
    }
    Ok(wrong)
}

/// Every command that has something to say about the node and the spec, in both forms and with all of the log.
pub fn in_output(secrets: &Secrets, when: &str, spec: &OsStr, root: &OsStr, case: &Case, to: &Path) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    let first = case.images.first().map_or("docker.io/library/hello:1", String::as_str);
    let runtimes = match (case.containerd, case.podman) {
        (true, true) => "containerd,podman",
        (true, false) => "containerd",
        (false, _) => "podman",
    };
    let spec_and_root: [&OsStr; 4] = ["--spec".as_ref(), spec, "--root".as_ref(), root];
    for form in ["text", "json"] {
        for (words, more) in [
            (vec!["check"], &spec_and_root[..2]),
            (vec!["plan", "--probe", "off"], &spec_and_root[..]),
            (vec!["plan", "--probe", "off", "--foreign", "replace"], &spec_and_root[..]),
            (vec!["plan", "--probe", "off", "--foreign", "carry"], &spec_and_root[..]),
            (vec!["verify", "--offline"], &spec_and_root[..]),
            (vec!["verify", "--offline", "--without-spec"], &spec_and_root[2..]),
            (vec!["explain", first], &spec_and_root[2..]),
            (vec!["explain", "--planned", first], &spec_and_root[..]),
            (vec!["render", "--runtime", runtimes, "--to", to.to_str().context("a folder's name")?], &spec_and_root[..2]),
        ] {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
            command.arg("-vv").args(&words).args(["--output", form]).args(more).env("HOME", "/root").env("RUST_LOG", "trace");
            let output = command.output().context("nodeprep")?;
            let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            ensure!(output.status.code().is_some_and(|code| code != 1 && code != 2), "{when}: {words:?}: {}\n{said}", output.status);
            wrong.extend(secrets.judge(&format!("{when}: {words:?} as {form}"), &said));
        }
    }
    // what is rendered is closed, too
    wrong.extend(on_node(secrets, to, &BTreeMap::new(), false)?.into_iter().map(|what| format!("rendered: {what}")));
    Ok(wrong)
}
