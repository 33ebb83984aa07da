//! What a file means: parse, render, verdict; one file per format. Text in, meaning out and back; no effects, no spec.
//!
//! Whole files that are ours begin with [`HEADER`]. Of files that are partly ours only our keys change ([`KeyEdit`]); every
//! other byte stays.

pub mod auth_json;
pub mod certs_d;
pub mod config_toml;
pub mod crio_conf;
pub mod hosts_toml;
pub mod registries_conf;

use serde::{Deserialize, Serialize};

/// First line of every file that is wholly ours, behind the comment sign of the format.
pub const HEADER: &str = "managed by nodeprep; changes made here are undone by its next run, change the spec instead";

/// The format of a file of which we own single keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyFormat {
    /// config.toml of containerd.
    Toml,
    /// auth.json.
    Json,
    /// registries.conf that was of version 1, or a drop-in from which entries were taken out.
    Registries,
}

/// One key that we set in somebody else's file; enough to undo it after others have changed the rest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyEdit {
    /// From the top of the document, one element per table or key, unquoted.
    pub key: Vec<String>,
    /// The raw value before (as it stood in the file, without comment); `None` when the key was not there.
    pub from: Option<String>,
    /// The raw value that we wrote; `None` when we removed the key.
    pub to: Option<String>,
    /// Why, in the words of `plan`.
    pub why: String,
    /// Whether the values are secret: never shown then.
    pub secret: bool,
}

impl std::fmt::Debug for KeyEdit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |value: &Option<String>| match value {
            Some(_) if self.secret => crate::model::secret::MASK.to_owned(),
            Some(value) => value.clone(),
            None => "nothing".to_owned(),
        };
        write!(f, "{}: {} -> {}", self.key.join("."), shown(&self.from), shown(&self.to))
    }
}

/// Takes our keys out of a text again, or puts back what they replaced; everything else, later edits by others included,
/// stays as it is.
///
/// # Errors
/// When the text cannot be parsed any more, or a key cannot be taken out without touching what is not ours.
pub fn undo(format: KeyFormat, text: &str, keys: &[KeyEdit]) -> Result<String, String> {
    match format {
        KeyFormat::Toml => config_toml::undo(text, keys),
        KeyFormat::Registries => registries_conf::undo(text, keys),
        KeyFormat::Json => auth_json::undo(text, keys).map_err(|error| error.to_string()),
    }
}
