//! Secrets of a test's folders: the passwords, tokens and keys in them, in every form in which they are sent or stored, whoever wrote them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use nodeprep::model::cert::{base64, base64_decode};
use serde_json::Value;
use toml_edit::{DocumentMut, Item};

/// Keys of files in which a secret stands.
const KEYS: [&str; 4] = ["password", "auth", "identitytoken", "Authorization"];

#[derive(Default)]
pub struct Secrets(BTreeSet<String>);

impl Secrets {
    /// Those of the files below `folders`. A private key counts where a document of the same folder names it: what a spec does not use is no secret of it.
    pub fn of(folders: &[&Path]) -> Result<Secrets> {
        let mut secrets = Secrets::default();
        // a key holds its public half, which stands in the certificate too
        let mut public = String::new();
        for path in folders.iter().map(|folder| files(folder)).collect::<Result<Vec<_>>>()?.into_iter().flatten() {
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let document = fs::read_to_string(path.with_file_name("spec.toml"));
            let used = document.map_or(true, |document| document.contains(name));
            if text.contains("-----BEGIN ") {
                public.extend(lines(&text, "CERTIFICATE"));
                secrets.0.extend(lines(&text, "PRIVATE KEY").filter(|_| used));
            } else if let Ok(json) = serde_json::from_str::<Value>(&text) {
                secrets.json(&json);
            } else if let Ok(document) = text.parse::<DocumentMut>()
                && name != "case.toml"
            {
                secrets.toml("", document.as_item());
            }
        }
        secrets.0.retain(|secret| !public.contains(secret.as_str()));
        Ok(secrets)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `user:password`, as it is and as it is sent.
    pub fn login(&mut self, login: &str) {
        let coded = base64(login.as_bytes());
        let url = coded.replace('+', "-").replace('/', "_");
        self.0.extend([coded.trim_end_matches('=').to_owned(), url.trim_end_matches('=').to_owned(), login.to_owned()]);
        // shorter ones are found in everything
        self.0.extend(login.split_once(':').map(|(_, password)| password.to_owned()).filter(|password| password.len() > 3));
    }

    fn value(&mut self, key: &str, value: &str) {
        if !KEYS.contains(&key) || value.is_empty() {
            return;
        }
        let coded = value.strip_prefix("Basic ").or(value.strip_prefix("Bearer ")).unwrap_or(value);
        self.0.insert(coded.trim_end_matches('=').to_owned());
        if let Some(login) = base64_decode(coded).and_then(|bytes| String::from_utf8(bytes).ok()).filter(|text| text.contains(':')) {
            self.login(&login);
        }
    }

    fn json(&mut self, value: &Value) {
        for (key, value) in value.as_object().into_iter().flatten() {
            match value.as_str() {
                Some(text) => self.value(key, text),
                None => self.json(value),
            }
        }
    }

    fn toml(&mut self, key: &str, item: &Item) {
        match item {
            Item::Value(value) => {
                let list = value.as_array().into_iter().flatten().filter_map(|value| value.as_str());
                value.as_str().into_iter().chain(list).for_each(|text| self.value(key, text));
            }
            Item::ArrayOfTables(tables) => tables.iter().flatten().for_each(|(key, item)| self.toml(key, item)),
            Item::Table(table) => {
                let text = |key: &str| table.get(key).and_then(Item::as_str);
                if let (Some(user), Some(password)) = (text("username"), text("password")) {
                    self.login(&format!("{user}:{password}"));
                }
                table.iter().for_each(|(key, item)| self.toml(key, item));
            }
            Item::None => {}
        }
    }

    fn is_in(&self, text: &str) -> bool {
        self.0.iter().any(|secret| text.contains(secret.as_str()))
    }

    /// What `what` said, held against all of them.
    pub fn judge(&self, what: &str, said: &str) -> Vec<String> {
        said.lines().filter(|line| self.is_in(line)).map(|line| format!("{what} gives a secret away: {line}")).collect()
    }

    /// The files below `root` with a secret in them, and their modes.
    pub fn holders(&self, root: &Path) -> Result<BTreeMap<PathBuf, u32>> {
        let mut found = BTreeMap::new();
        for path in files(root)? {
            // programs are large, and nobody writes a secret into them
            let meta = fs::metadata(&path).with_context(|| path.display().to_string())?;
            if meta.len() < 1 << 20 && self.is_in(&String::from_utf8_lossy(&fs::read(&path)?)) {
                found.insert(path.strip_prefix(root).unwrap_or(&path).to_owned(), meta.permissions().mode() & 0o7777);
            }
        }
        Ok(found)
    }
}

/// The full lines of the sections of a PEM file whose name ends so.
fn lines(text: &str, section: &str) -> impl Iterator<Item = String> {
    let end = format!("{section}-----\n");
    let sections = text.split("-----BEGIN ").filter_map(move |part| part.split_once(end.as_str())).map(|(_, rest)| rest);
    let lines: Vec<String> = sections.flat_map(str::lines).map(ToOwned::to_owned).collect();
    lines.into_iter().filter(|line| line.len() > 20 && !line.starts_with('-'))
}

/// All regular files below a folder; links are not followed.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let entry = entry.with_context(|| folder.display().to_string())?;
            let kind = entry.file_type().with_context(|| folder.display().to_string())?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}
