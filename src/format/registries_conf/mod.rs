//! registries.conf, version 2, as containers/image reads it (Podman, Buildah, Skopeo, CRI-O); version 1 is understood where
//! it still is, and can be said in version 2 ([`to_version_2`]); single entries can be taken out ([`take_out`]).
//!
//! What lives here: the meaning of one file ([`parse()`]), of several laid over each other ([`Conf::merge`]), which entry is
//! responsible for a reference and what is asked for it ([`Conf::find`], [`Registry::sources`]), and the text of ours
//! ([`render`]). Facts: `runtime-semantics.md` 2.2–2.6 and `containers-registries.conf(5)`. Where the files are is the
//! runtimes' matter (`runtime::containers`).

mod matching;
mod parse;
mod taken;
mod version_1;

use std::collections::BTreeMap;

use crate::format::KeyEdit;
use crate::model::path::NodePath;
use crate::model::place::Place;

pub use matching::{Source, canonical, matched};
pub use parse::parse;
pub use taken::{is_taken, take_out, taken_prefix};
pub use version_1::{Moved, moved_entries, to_version_2};

/// What one file says, or several together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conf {
    /// `unqualified-search-registries`, where it is set.
    pub search: Option<Vec<String>>,
    /// `short-name-mode`, where it is set.
    pub short_name_mode: Option<ShortNames>,
    /// `credential-helpers`, where it is set.
    pub credential_helpers: Option<Vec<String>>,
    /// `[aliases]`: short name → full name; empty where an alias is erased.
    pub aliases: BTreeMap<String, String>,
    /// `[[registry]]` by prefix, each with the place where it is written.
    pub registries: BTreeMap<String, Registry>,
    /// The file is written in version 1.
    pub version_1: bool,
}

/// `short-name-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShortNames {
    /// Ask, or fail without a terminal, when there is more than one candidate.
    Enforcing,
    /// Ask, or try all candidates without a terminal.
    Permissive,
    /// Try all candidates.
    Disabled,
}

/// A `[[registry]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    /// Which references it is for; `location` where none is written.
    pub prefix: String,
    /// Where they really are; empty only with a `*.domain` prefix (then: where they say).
    pub location: String,
    /// HTTPS unverified, then plain HTTP.
    pub insecure: bool,
    /// References that end up here are refused.
    pub blocked: bool,
    /// `mirror-by-digest-only`.
    pub by_digest_only: bool,
    /// In the order in which they are tried.
    pub mirrors: Vec<Mirror>,
    /// Where it is written.
    pub at: Place,
}

/// A `[[registry.mirror]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// Stands in the place of the registry's prefix.
    pub location: String,
    /// HTTPS unverified, then plain HTTP.
    pub insecure: bool,
    /// `pull-from-mirror`.
    pub pull: Pull,
    /// Where it is written.
    pub at: Place,
}

/// `pull-from-mirror`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pull {
    /// Everything.
    #[default]
    All,
    /// References by digest only.
    Digest,
    /// References by tag only.
    Tag,
}

/// Why a file is invalid: then every pull fails, and CRI-O does not start (`runtime-semantics.md` 2.5).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{at}: {what}")]
pub struct Invalid {
    /// Where.
    pub at: Place,
    /// Which rule is broken: a stable word for tests and scripts.
    pub rule: &'static str,
    /// What is wrong.
    pub what: String,
}

impl Conf {
    /// Lays a later drop-in over this one: registries are replaced whole, per prefix; search registries, credential helpers
    /// and the mode are replaced where the later file sets them; aliases are merged (`runtime-semantics.md` 2.6).
    pub fn merge(&mut self, later: Self) {
        self.registries.extend(later.registries);
        self.aliases.extend(later.aliases);
        self.search = later.search.or(self.search.take());
        self.credential_helpers = later.credential_helpers.or(self.credential_helpers.take());
        self.short_name_mode = later.short_name_mode.or(self.short_name_mode);
    }
}

impl Registry {
    /// Whether both mean the same, wherever they are written.
    #[must_use]
    pub fn means(&self, other: &Self) -> bool {
        let mirror = |mirror: &Mirror| (mirror.location.clone(), mirror.insecure, mirror.pull);
        let rest = |entry: &Self| (entry.prefix.clone(), entry.location.clone(), entry.insecure, entry.blocked, entry.by_digest_only);
        rest(self) == rest(other) && self.mirrors.iter().map(mirror).eq(other.mirrors.iter().map(mirror))
    }
}

/// The text of a drop-in that is wholly ours, with only what TOML 1.0 knows: header, then one table per entry.
#[must_use]
pub fn render(search: Option<&[String]>, registries: &[Registry]) -> String {
    let mut text = format!("# {}\n", super::HEADER);
    // before the first table, which would take it for its own (R26)
    if let Some(search) = search {
        let hosts: Vec<String> = search.iter().map(|host| quoted(host)).collect();
        text.push_str("unqualified-search-registries = [");
        text.push_str(&hosts.join(", "));
        text.push_str("]\n");
    }
    for registry in registries {
        text.push_str("\n[[registry]]\n");
        let mut line = |key: &str, value: &str| {
            text.push_str(key);
            text.push_str(" = ");
            text.push_str(value);
            text.push('\n');
        };
        line("prefix", &quoted(&registry.prefix));
        // a wildcard has none
        if !registry.location.is_empty() {
            line("location", &quoted(&registry.location));
        }
        for (key, set) in
            [("insecure", registry.insecure), ("blocked", registry.blocked), ("mirror-by-digest-only", registry.by_digest_only)]
        {
            if set {
                line(key, "true");
            }
        }
        for mirror in &registry.mirrors {
            text.push_str("\n[[registry.mirror]]\nlocation = ");
            text.push_str(&quoted(&mirror.location));
            text.push('\n');
            if mirror.insecure {
                text.push_str("insecure = true\n");
            }
            match mirror.pull {
                Pull::All => {}
                Pull::Digest => text.push_str("pull-from-mirror = \"digest-only\"\n"),
                Pull::Tag => text.push_str("pull-from-mirror = \"tag-only\"\n"),
            }
        }
    }
    text
}

/// A basic string. Hosts and repository paths hold nothing that TOML wants escaped, but wrong text must not break the file.
fn quoted(text: &str) -> String {
    let clean: String = text.chars().filter(|c| !c.is_control()).collect();
    format!("\"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The way back where a file has been changed since: version 1 is put back into what was of version 1 ([`to_version_2`]), and what was
/// taken out ([`take_out`]) into any other.
///
/// # Errors
/// When the text is invalid by now, or holds something with which it cannot be mixed.
pub fn undo(text: &str, edits: &[KeyEdit]) -> Result<String, String> {
    if edits.iter().any(is_taken) { taken::put_back(text, edits) } else { version_1::undo(text, edits) }
}

/// The main file.
#[must_use]
pub fn main_file() -> NodePath {
    NodePath::fixed("/etc/containers/registries.conf")
}

/// The folder of drop-ins.
#[must_use]
pub fn drop_in_dir() -> NodePath {
    NodePath::fixed("/etc/containers/registries.conf.d")
}

/// Our drop-in's name: late in the order, for a later file replaces entries whole (`runtime-semantics.md` 2.6).
pub const DROP_IN: &str = "zz-nodeprep.conf";
