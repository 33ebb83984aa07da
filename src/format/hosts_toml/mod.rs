//! `hosts.toml`: where containerd sends the requests for one registry.
//!
//! What lives here: the file as each class of versions reads it ([`parse()`], with a short way for files of ours in
//! `plain`), URLs as Go reads them ([`url`]), the file as we
//! write it ([`render()`]). What must not: which folder counts for an image, what is in the certificate files (that is
//! `runtime/containerd`).
//!
//! Sources: `runtime-semantics.md` 1.3–1.6; containerd, `core/remotes/docker/config/hosts.go` (2.x) and
//! `remotes/docker/config/hosts.go` (1.x).

pub mod parse;
mod plain;
pub mod render;
pub mod toml10;
pub mod url;

use std::time::Duration;

use crate::model::path::NodePath;
use crate::model::place::Place;

pub use parse::parse;
pub use render::render;
pub use url::Url;

/// A file that containerd accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostsFile {
    /// The `[host."…"]` tables in the order in which they are tried.
    pub hosts: Vec<HostConfig>,
    /// The keys at the top: the last host that is tried. Without `server` its `url` is `None` and the image's own registry is
    /// meant.
    pub root: HostConfig,
}

/// One host and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Its URL, scheme filled in; `None` for the image's own registry.
    pub url: Option<Url>,
    /// The table's header, or the line of `server`; the whole file without `server`.
    pub at: Place,
    /// What it may be asked for.
    pub capabilities: Capabilities,
    /// CA files beside the system's, absolute; `None` when the key is not there (an empty list still counts as TLS
    /// configuration).
    pub ca: Option<Vec<NodePath>>,
    /// Client certificate and key files, absolute; no key: the certificate file holds it too.
    pub client: Option<Vec<(NodePath, Option<NodePath>)>>,
    /// `skip_verify`.
    pub skip_verify: Option<bool>,
    /// `dial_timeout`, where it is a time; whether this version heeds it is another matter.
    pub dial_timeout: Option<Duration>,
    /// Sent with every request. Values may be secret.
    pub header: Vec<(String, Vec<String>)>,
}

impl HostConfig {
    /// A host without any key.
    #[must_use]
    pub fn bare(at: Place) -> Self {
        Self {
            url: None,
            at,
            capabilities: Capabilities::ALL,
            ca: None,
            client: None,
            skip_verify: None,
            dial_timeout: None,
            header: Vec::new(),
        }
    }

    /// Whether TLS is configured: containerd then tries `https` first even on an `http` host.
    #[must_use]
    pub fn has_tls(&self) -> bool {
        self.ca.is_some() || self.client.is_some() || self.skip_verify.is_some()
    }
}

/// What a host may be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Manifests and layers; only consulted for references by digest and pushes.
    pub pull: bool,
    /// Tags.
    pub resolve: bool,
    /// Uploads.
    pub push: bool,
}

impl Capabilities {
    /// No key, or an empty list.
    pub const ALL: Self = Self { pull: true, resolve: true, push: true };
    const NONE: Self = Self { pull: false, resolve: false, push: false };
}

/// Why containerd passes over a whole file and asks the image's own registry instead (it fails open).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Rejected {
    /// What it does not accept, as a fragment.
    pub why: String,
    /// Where.
    pub at: Place,
}
