//! What a container runtime says of itself over the Container Runtime Interface (CRI), and why it does not.

use std::time::Duration;

use super::path::NodePath;

/// Which program answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// `containerd`, `cri-o`.
    pub name: String,
    /// As it writes it: `v1.7.24`, `1.36.3`.
    pub version: String,
}

/// What a runtime says of its own health. Empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health(pub Vec<Condition>);

/// One condition of a runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// `RuntimeReady`, `NetworkReady`, and what a version adds.
    pub name: String,
    /// Whether it holds.
    pub holds: bool,
    /// A word, where it does not hold.
    pub reason: String,
    /// The same as a sentence.
    pub message: String,
}

impl Health {
    /// The condition of that name.
    #[must_use]
    pub fn condition(&self, name: &str) -> Option<&Condition> {
        self.0.iter().find(|condition| condition.name == name)
    }

    /// Whether containers can be run and images pulled. `NetworkReady` is not asked for: it depends on what is pulled first.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.condition(RUNTIME_READY).is_some_and(|condition| condition.holds)
    }
}

/// The condition under which a runtime accepts containers.
pub const RUNTIME_READY: &str = "RuntimeReady";
/// The condition under which it can give them a network.
pub const NETWORK_READY: &str = "NetworkReady";

/// An image in a runtime's store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredImage {
    /// `sha256:…`.
    pub id: String,
    /// References by tag.
    pub tags: Vec<String>,
    /// References by digest.
    pub digests: Vec<String>,
}

/// A container that runs, or is about to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Its name in its pod.
    pub name: String,
    /// The image as the pod names it; where it is not known any more, the image's identity (`sha256:…`).
    pub image: String,
    /// The image's identity in the store, or a reference to it, as the version has it.
    pub id: String,
}

/// Why a runtime cannot be asked, or what it answered instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CriError {
    /// Nothing stands there.
    #[error("{path} does not exist")]
    Absent {
        /// The socket.
        path: NodePath,
    },
    /// Something else stands there.
    #[error("{path} is not a socket")]
    NotSocket {
        /// Where.
        path: NodePath,
    },
    /// `EACCES`, `EPERM`.
    #[error("cannot connect to {path}: permission denied")]
    Permission {
        /// The socket, or a folder on the way to it.
        path: NodePath,
    },
    /// A socket that nobody listens on.
    #[error("nothing listens on {path}")]
    Deserted {
        /// The socket.
        path: NodePath,
    },
    /// Any other error of the operating system.
    #[error("cannot connect to {path}: {why}")]
    Unreachable {
        /// The socket.
        path: NodePath,
        /// What the kernel said.
        why: String,
    },
    /// No answer in time.
    #[error("{path} did not answer {call} within {}", told(*patience))]
    Late {
        /// The socket.
        path: NodePath,
        /// What was asked.
        call: &'static str,
        /// How long it had.
        patience: Duration,
    },
    /// What came back is no answer.
    #[error("what {path} answers to {call} is not CRI: {why}")]
    Garbled {
        /// The socket.
        path: NodePath,
        /// What was asked.
        call: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The program is there and does not serve the CRI: in containerd, its plugin is not loaded.
    #[error("{path} is open, but serves no CRI: {message}")]
    NotServed {
        /// The socket.
        path: NodePath,
        /// In its own words.
        message: String,
    },
    /// An error in the runtime's own words.
    #[error("{call}: {message} ({})", code_name(*code))]
    Said {
        /// What was asked.
        call: &'static str,
        /// A status code of gRPC.
        code: u32,
        /// In its own words, logins and tokens in addresses taken out.
        message: String,
    },
}

impl CriError {
    /// Whether it was the runtime that spoke, rather than something on the way to it.
    #[must_use]
    pub const fn is_answer(&self) -> bool {
        matches!(self, Self::Said { .. } | Self::NotServed { .. })
    }

    /// What the user can do.
    #[must_use]
    pub fn help(&self) -> String {
        match self {
            Self::Absent { path } | Self::Deserted { path } | Self::NotSocket { path } => {
                format!("start the runtime, or look whether its configuration names another socket than {path}")
            }
            Self::Permission { .. } => "run as root".to_owned(),
            Self::Unreachable { path, .. } | Self::Late { path, .. } => {
                format!("look at the runtime's log; `crictl --runtime-endpoint unix://{path} info` asks the same")
            }
            Self::Garbled { path, .. } => format!("look which program listens on {path}"),
            Self::NotServed { .. } => {
                "look for \"failed to load plugin\" in the runtime's log: registry.mirrors beside config_path, or an \
                                       error in its configuration, keeps the CRI plugin from loading"
                    .to_owned()
            }
            Self::Said { .. } => "look at the runtime's log".to_owned(),
        }
    }
}

fn told(patience: Duration) -> String {
    if patience.subsec_millis() == 0 { format!("{} s", patience.as_secs()) } else { format!("{} ms", patience.as_millis()) }
}

/// gRPC's status codes (`doc/statuscodes.md` of gRPC).
fn code_name(code: u32) -> &'static str {
    const NAMES: [&str; 17] = [
        "ok",
        "cancelled",
        "unknown",
        "invalid argument",
        "deadline exceeded",
        "not found",
        "already exists",
        "permission denied",
        "resource exhausted",
        "failed precondition",
        "aborted",
        "out of range",
        "unimplemented",
        "internal",
        "unavailable",
        "data loss",
        "unauthenticated",
    ];
    usize::try_from(code).ok().and_then(|code| NAMES.get(code)).copied().unwrap_or("a code that gRPC does not have")
}
