//! auth.json: logins by registry or repository, as `podman login` and containers/image keep them
//! (`containers-auth.json(5)`, `runtime-semantics.md` 2.7).
//!
//! We own single entries of somebody else's file: an edit changes the bytes of its entry and no other one ([`set`],
//! [`undo`]). No message of this module shows a value.

mod scan;

use std::collections::BTreeMap;

use serde_json::Value;

use super::KeyEdit;
use crate::model::cert::{base64, base64_decode};
use crate::model::host::Host;
use crate::model::order::Gather as _;
use crate::model::secret::Secret;

/// The table of logins.
const AUTHS: &str = "auths";

/// Why a file cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Not JSON: nothing that is looked up in it succeeds, every pull fails.
    #[error("is no JSON: line {line}, column {column}")]
    Json {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// JSON, but not of this form.
    #[error("{0} is no JSON object")]
    NoObject(String),
}

/// A login as it stands in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// `user:password`.
    Basic(Secret),
    /// Anything else: an identity token, a credential helper.
    Other(String),
}

/// The logins of one file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auths {
    entries: BTreeMap<String, Option<Login>>,
    helpers: BTreeMap<String, String>,
}

/// Reads a file.
///
/// # Errors
/// When it is no JSON object, or `auths` is none. An empty file counts as empty object, as upstream reads it.
pub fn parse(text: &str) -> Result<Auths, AuthError> {
    if text.trim().is_empty() {
        return Ok(Auths::default());
    }
    let top: Value = serde_json::from_str(text).map_err(|error| AuthError::Json { line: error.line(), column: error.column() })?;
    let top = top.as_object().ok_or_else(|| AuthError::NoObject("the file".into()))?;
    let table = |key: &str| match top.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_object().map(Some).ok_or_else(|| AuthError::NoObject(key.to_owned())),
    };
    let entries = table(AUTHS)?.into_iter().flatten().map(|(key, entry)| (key.clone(), login(entry))).gathered();
    let helper = |(key, name): (&String, &Value)| name.as_str().map(|name| (key.clone(), name.to_owned()));
    let helpers = table("credHelpers")?.into_iter().flatten().filter_map(helper).gathered();
    Ok(Auths { entries, helpers })
}

fn login(entry: &Value) -> Option<Login> {
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("identitytoken").is_some() {
        return Some(Login::Other("identity token".to_owned()));
    }
    let mut plain = base64_decode(text("auth")?)?;
    while plain.last() == Some(&0) {
        plain.pop();
    }
    plain.contains(&b':').then(|| Login::Basic(Secret::new(plain)))
}

impl Auths {
    /// The login for a repository: from its full name up to the host, the first entry that exists; then entries of Docker's
    /// older forms (URLs, other names of Docker Hub).
    #[must_use]
    pub fn find(&self, host: &Host, repo: &str) -> Option<Login> {
        if let Some(helper) = self.helpers.get(host.as_str()) {
            return Some(Login::Other(format!("credential helper {helper}")));
        }
        let full = if repo.is_empty() { host.as_str().to_owned() } else { format!("{host}/{repo}") };
        let mut key = full.as_str();
        loop {
            if let Some(login) = self.entries.get(key) {
                return login.clone();
            }
            match key.rsplit_once('/') {
                Some((head, _)) => key = head,
                None => break,
            }
        }
        let wanted = hub(host.as_str());
        self.entries.iter().find(|(key, _)| without_scheme(key) == wanted).and_then(|(_, login)| login.clone())
    }

    /// The entry of exactly this key: `None` when there is none.
    #[must_use]
    pub fn entry(&self, key: &str) -> Option<Option<&Login>> {
        self.entries.get(key).map(Option::as_ref)
    }
}

/// The names of Docker Hub are one.
fn hub(host: &str) -> &str {
    if matches!(host, "docker.io" | "registry-1.docker.io") { "index.docker.io" } else { host }
}

fn without_scheme(key: &str) -> &str {
    let bare = key.trim_start_matches("http://").trim_start_matches("https://");
    hub(if bare.len() == key.len() { key } else { bare.split('/').next().unwrap_or(bare) })
}

/// The raw value of an entry for `user:password`.
#[must_use]
pub fn entry_for(basic: &Secret) -> String {
    format!("{{\"auth\": \"{}\"}}", base64(basic.expose()))
}

/// Every form in which a login may stand in a file or message.
#[must_use]
pub fn forms(basic: &Secret) -> Vec<Secret> {
    let plain = basic.expose();
    let mut forms = vec![Secret::new(base64(plain)), basic.clone()];
    if let Some(colon) = plain.iter().position(|byte| *byte == b':') {
        forms.push(Secret::new(&plain[colon + 1..]));
    }
    forms
}

/// Every secret that a file holds, in each form, whoever wrote it.
#[must_use]
pub fn secrets(text: &str) -> Vec<Secret> {
    let Ok(top) = serde_json::from_str::<Value>(text) else { return Vec::new() };
    let entries = top.get(AUTHS).and_then(Value::as_object).into_iter().flatten();
    let mut all = Vec::new();
    for (_, entry) in entries {
        if let Some(Login::Basic(basic)) = login(entry) {
            all.extend(forms(&basic));
        }
        let texts = entry.as_object().into_iter().flatten().filter(|(key, _)| !matches!(key.as_str(), "email" | "username"));
        all.extend(texts.filter_map(|(_, value)| value.as_str()).map(Secret::new));
    }
    all
}

/// Sets entries (`host` → raw value) in `text` (empty when the file does not exist): the text afterwards, and the edits
/// that lead there, in order. Entries that have the value already make no edit.
///
/// # Errors
/// When the file is not of this form; nothing is known about its entries then.
pub fn set(text: &str, entries: &BTreeMap<String, String>, why: &str) -> Result<(String, Vec<KeyEdit>), AuthError> {
    parse(text)?;
    let mut text = if text.trim().is_empty() && !entries.is_empty() { "{\n}\n".to_owned() } else { text.to_owned() };
    let mut edits = Vec::new();
    let mut edit = |text: &mut String, key: Vec<String>, to: &str, secret: bool| {
        let from = scan::value(text, &key).map(|span| text[span].to_owned());
        if from.as_deref() == Some(to) {
            return;
        }
        if let Some(next) = scan::put(text, &key, to) {
            *text = next;
            edits.push(KeyEdit { key, from, to: Some(to.to_owned()), why: why.to_owned(), secret });
        }
    };
    for (host, raw) in entries {
        let auths = vec![AUTHS.to_owned()];
        if scan::value(&text, &auths).is_none_or(|span| text[span].trim() == "null") {
            edit(&mut text, auths, "{\n\t}", false);
        }
        edit(&mut text, vec![AUTHS.to_owned(), host.clone()], raw, true);
    }
    Ok((text, edits))
}

/// Takes entries out: the text afterwards, and the edits that lead there.
///
/// # Errors
/// When the file is not of this form.
pub fn take(text: &str, hosts: &[&str], why: &str) -> Result<(String, Vec<KeyEdit>), AuthError> {
    parse(text)?;
    let mut text = text.to_owned();
    let mut edits = Vec::new();
    for host in hosts {
        let key = vec![AUTHS.to_owned(), (*host).to_owned()];
        let Some(from) = scan::value(&text, &key).map(|span| text[span].to_owned()) else { continue };
        if let Some(next) = scan::remove(&text, &key) {
            text = next;
            edits.push(KeyEdit { key, from: Some(from), to: None, why: why.to_owned(), secret: true });
        }
    }
    Ok((text, edits))
}

/// Takes edits back, last first, wherever the value is still the one that we left; what others have changed since stays. A
/// table that we made stays when somebody else's entries are in it.
///
/// # Errors
/// When the file is no longer of this form.
pub fn undo(text: &str, edits: &[KeyEdit]) -> Result<String, AuthError> {
    parse(text)?;
    let mut text = text.to_owned();
    for edit in edits.iter().rev() {
        let now = scan::value(&text, &edit.key).map(|span| text[span].to_owned());
        let ours = match (&now, &edit.to) {
            (Some(now), Some(to)) => same(now, to),
            (None, None) => true,
            _ => false,
        };
        if !ours {
            continue;
        }
        let next = match &edit.from {
            Some(from) => scan::put(&text, &edit.key, from),
            None => scan::remove(&text, &edit.key),
        };
        text = next.unwrap_or(text);
    }
    Ok(text)
}

/// Equal but for white space outside of strings: a table that we made may have been formatted anew.
fn same(one: &str, other: &str) -> bool {
    let value = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || value(one).is_some_and(|one| Some(one) == value(other))
}

#[cfg(test)]
mod tests;
