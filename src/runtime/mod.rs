//! Who reads the files, and how by version: one room per runtime.
//!
//! What lives here: where a runtime and its configuration are found ([`facts`]), how it reads them ([`View`]), what it needs
//! to be true to a spec (`want`), what activates a change. What must not: effects, the spec's own meaning (`spec::intent`),
//! knowledge of one runtime in another's room.

pub mod containerd;
pub mod containers;
pub mod facts;
pub mod golang;
pub mod unit;

use serde::Serialize;

use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::resolution::Resolution;
use crate::model::time::Time;
use crate::model::tree::Tree;
use crate::model::version::Version;
use crate::plan::How;

/// The runtimes that nodeprep knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// containerd with its CRI plugin.
    Containerd,
    /// CRI-O.
    Crio,
    /// Podman, and with it Buildah and Skopeo.
    Podman,
}

impl Runtime {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 3] = [Self::Containerd, Self::Crio, Self::Podman];

    /// The name in the spec and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Containerd => "containerd",
            Self::Crio => "crio",
            Self::Podman => "podman",
        }
    }

    /// The runtime of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|runtime| runtime.name() == name)
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// How sure we are that a runtime is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Presence {
    /// Its binary or unit is there.
    There,
    /// Only a configuration folder is: configured only when the spec's `runtimes` or `--runtime` names it.
    Maybe,
}

/// A runtime on the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundRuntime {
    /// Which.
    pub runtime: Runtime,
    /// How sure.
    pub presence: Presence,
    /// What shows that it is there: a path.
    pub because: NodePath,
    /// Version of the binary on disk, when it could be told.
    pub installed: Option<Version>,
    /// The process, when it runs.
    pub running: Option<Running>,
    /// The configuration file that the daemon really reads (`--config` of the process or the unit, else the default).
    pub config: NodePath,
    /// The systemd unit, when there is one.
    pub unit: Option<String>,
    /// The daemon's environment: of the process, else of the unit. Only variables that change what it asks
    /// (`CONTAINERS_REGISTRIES_CONF…`, `SSL_CERT_…`, `…_PROXY`, `HOME`), never shown.
    #[serde(skip)]
    pub env: Vec<(String, String)>,
}

/// A running daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Running {
    /// Process.
    pub pid: u32,
    /// When it started.
    pub started: Time,
    /// Its version, when it could be told; else that of the binary is assumed.
    pub version: Option<Version>,
    /// The socket that its command line names.
    #[serde(skip)]
    pub socket: Option<NodePath>,
}

/// One way of reading the files: the version classes of a runtime that behave alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dialect {
    /// containerd, by class of versions.
    Containerd(containerd::Dialect),
    /// containers/image, as CRI-O and Podman carry it.
    Containers,
}

impl Dialect {
    /// The class of containerd versions, if it is one.
    #[must_use]
    pub const fn containerd(self) -> Option<containerd::Dialect> {
        match self {
            Self::Containerd(dialect) => Some(dialect),
            Self::Containers => None,
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Containerd(dialect) => write!(f, "as {}", dialect.name()),
            Self::Containers => f.write_str("any version"),
        }
    }
}

impl FoundRuntime {
    /// The dialects for which the files in `tree` must be right: the running binary's and the one on disk; when the version is
    /// not known, all that start with the configuration there. The first is the one that reads them now.
    #[must_use]
    pub fn dialects(&self, tree: &Tree) -> Vec<Dialect> {
        match self.runtime {
            Runtime::Containerd => {
                let running = self.running.as_ref().and_then(|process| process.version.or(self.installed));
                let classes = containerd::Dialect::of(running, self.installed);
                let known = running.or(self.installed).is_some();
                let classes = if known { classes } else { containerd::Dialect::plausible(&classes, tree, &self.config) };
                classes.into_iter().map(Dialect::Containerd).collect()
            }
            Runtime::Crio | Runtime::Podman => vec![Dialect::Containers],
        }
    }

    /// Whether anybody pulls through it: a containerd without its CRI plugin is not kubelet's.
    #[must_use]
    pub fn is_pulled_through(&self, tree: &Tree) -> bool {
        let dialects = self.dialects(tree);
        let off = |dialect: &containerd::Dialect| {
            crate::format::config_toml::Chain::read(tree, &self.config, *dialect).is_ok_and(|chain| chain.disabled.is_some())
        };
        !dialects.into_iter().filter_map(Dialect::containerd).any(|dialect| off(&dialect))
    }

    /// The image of which every pod's sandbox is made, as the configuration in `tree` says or the version has it built in; `None`
    /// where there are no pods.
    #[must_use]
    pub fn pause_image(&self, tree: &Tree) -> Option<String> {
        match self.runtime {
            Runtime::Containerd => containerd::pause_image(self, tree),
            Runtime::Crio => containers::pause_image(self, tree),
            Runtime::Podman => None,
        }
    }

    /// What has to be in the tree before a [`View`] can be made of it, as far as it is known from what was read already.
    #[must_use]
    pub fn wishes(&self, tree: &Tree) -> Vec<Wish> {
        match self.runtime {
            Runtime::Containerd => containerd::wishes(self, tree),
            Runtime::Crio | Runtime::Podman => containers::wishes(tree, &[self]),
        }
    }

    /// What a change of `path` needs before this runtime sees it, and why.
    #[must_use]
    pub fn activation(&self, path: &NodePath) -> (How, String) {
        match self.runtime {
            Runtime::Containerd => containerd::activation(self, &[], path),
            Runtime::Crio | Runtime::Podman => {
                let (how, why) = containers::activation(path, self);
                (how, why.to_owned())
            }
        }
    }

    /// The unit that starts it.
    #[must_use]
    pub fn unit_name(&self) -> Option<String> {
        let usual = match self.runtime {
            Runtime::Containerd => "containerd.service",
            Runtime::Crio => "crio.service",
            // its API service, while that runs
            Runtime::Podman => return self.unit.clone(),
        };
        Some(self.unit.clone().unwrap_or_else(|| usual.to_owned()))
    }

    /// The socket on which it answers to CRI; `None` when it never does.
    #[must_use]
    pub fn socket(&self, tree: &Tree) -> Option<NodePath> {
        let said = self.running.as_ref().and_then(|process| process.socket.clone());
        match self.runtime {
            Runtime::Containerd => said.or_else(|| Some(containerd::socket(self, tree))),
            Runtime::Crio => said.or_else(|| Some(containers::socket(self, tree))),
            Runtime::Podman => None,
        }
    }

    /// The files that it reads when it starts and never again until it is told to, as far as they are what decides where it looks
    /// for the rest.
    #[must_use]
    pub fn start_files(&self, tree: &Tree) -> Vec<NodePath> {
        match self.runtime {
            Runtime::Containerd => containerd::start_files(self, tree),
            Runtime::Crio | Runtime::Podman => Vec::new(),
        }
    }

    /// Parses what the runtime would read, once, for many images.
    #[must_use]
    pub fn view(&self, tree: &Tree, dialect: Dialect) -> View {
        match dialect {
            Dialect::Containerd(dialect) => View::Containerd(containerd::View::new(tree, self, dialect)),
            Dialect::Containers => View::Containers(containers::View::new(tree, self)),
        }
    }
}

/// A runtime's configuration as one version of it reads it, whoever wrote it.
#[derive(Debug)]
pub enum View {
    /// containerd.
    Containerd(containerd::View),
    /// CRI-O, Podman.
    Containers(containers::View),
}

impl View {
    /// Registries, or repositories below which something of its own may apply, that have a file, folder or entry on the node,
    /// whoever made it. A catch-all stands in as a registry that nobody names.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Containerd(view) => view.names(),
            Self::Containers(view) => view.names(),
        }
    }

    /// Whether a login for `host` gets to where the registry's tokens are issued, when it is there that it is wanted.
    #[must_use]
    pub fn reaches_tokens(&self, host: &crate::model::host::Host) -> bool {
        match self {
            Self::Containerd(view) => view.reaches_tokens(host),
            Self::Containers(_) => true,
        }
    }

    /// Whether `login` for `host` stands where only a restart makes it count.
    #[must_use]
    pub fn is_in_config(&self, host: &crate::model::host::Host, login: &crate::model::secret::Secret) -> bool {
        match self {
            Self::Containerd(view) => view.is_in_config(host, login),
            Self::Containers(_) => false,
        }
    }

    /// What the runtime asks for `image`, in order.
    #[must_use]
    pub fn resolve(&self, image: &ImageRef) -> Resolution {
        match self {
            Self::Containerd(view) => view.resolve(image),
            Self::Containers(view) => view.resolve(image),
        }
    }
}

/// Something that a room wants to see in the tree: a path, and how many levels of folders below it. Depth 0 is the file
/// itself (or the bare fact that it is a folder), 1 a folder with the files in it, 2 with the folders in it too.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wish {
    /// Where.
    pub path: NodePath,
    /// Levels of folders below.
    pub depth: u8,
}

impl Wish {
    /// The path alone.
    #[must_use]
    pub fn path(path: NodePath) -> Self {
        Self { path, depth: 0 }
    }

    /// A folder and `depth` levels below it.
    #[must_use]
    pub fn folder(path: NodePath, depth: u8) -> Self {
        Self { path, depth }
    }
}
