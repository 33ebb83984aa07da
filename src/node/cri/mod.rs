//! The Container Runtime Interface: what a running runtime is asked over its own socket.
//!
//! What lives here: the socket inside the root (`socket`), one call of gRPC over HTTP/2 (`call`), what is around a message
//! (`grpc`), the messages (`messages`). What must not: judging the answers.
//!
//! Every call ends within the patience of its client, and answers are read up to a limit. No call asks for `info`, which can
//! hold passwords, and none sends a login: what counts is how the node itself is configured.

mod call;
mod grpc;
mod messages;
mod socket;
#[cfg(test)]
mod tests;

use std::time::Duration;

use call::Line;
use messages as said;

use super::root::Root;
use crate::model::cri::{Condition, Container, CriError, Health, Program, StoredImage};
use crate::model::path::NodePath;

/// The two names of the interface: containerd 1.5 knows only the older one, and every later runtime the newer one.
const VERSIONS: [&str; 2] = ["v1", "v1alpha2"];

/// A connection to a runtime.
#[derive(Debug)]
pub struct Client {
    line: Line,
    version: &'static str,
    program: Program,
}

impl Client {
    /// Connects to the socket at `path` inside the root and asks who is there. `patience` is what this may take, and every later
    /// call that is not given a time of its own.
    ///
    /// # Errors
    /// Where nobody answers, or who answers serves no CRI.
    pub fn connect(root: &Root, path: &NodePath, patience: Duration) -> Result<Self, CriError> {
        let mut client = Self::within(root, path, patience)?;
        client.line.until = None;
        Ok(client)
    }

    /// The same for who waits no longer than `patience` for everything: connecting and all calls that are not given a time of
    /// their own.
    ///
    /// # Errors
    /// As [`Client::connect`].
    pub fn within(root: &Root, path: &NodePath, patience: Duration) -> Result<Self, CriError> {
        let mut line = Line::open(root, path, patience)?;
        let mut refused = None;
        for version in VERSIONS {
            match line.call::<said::VersionResponse>(version, "RuntimeService", "Version", &said::Nothing {}, None) {
                Ok(found) => {
                    let program = Program { name: found.runtime_name, version: found.runtime_version };
                    return Ok(Self { line, version, program });
                }
                // what is said of the newer name is what is told
                Err(CriError::Said { code: grpc::UNIMPLEMENTED, message, .. }) => refused = refused.or(Some(message)),
                Err(error) => return Err(error),
            }
        }
        Err(CriError::NotServed { path: path.clone(), message: refused.unwrap_or_default() })
    }

    /// Who answers.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// What the runtime says of its own health. It says so at any time: also while it is not ready.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn status(&mut self) -> Result<Health, CriError> {
        let answer: said::StatusResponse = self.runtime("Status")?;
        let conditions = answer.status.map(|status| status.conditions).unwrap_or_default();
        let condition = |found: said::RuntimeCondition| Condition {
            name: found.kind,
            holds: found.status,
            reason: grpc::scrubbed(&found.reason),
            message: grpc::scrubbed(&found.message),
        };
        Ok(Health(conditions.into_iter().map(condition).collect()))
    }

    /// The image in the store, if it is there.
    ///
    /// # Errors
    /// Where the runtime does not answer, or cannot read the reference.
    pub fn image_status(&mut self, image: &str) -> Result<Option<StoredImage>, CriError> {
        let answer: said::ImageStatusResponse = self.line.call(self.version, IMAGES, "ImageStatus", &request(image), None)?;
        Ok(answer.image.filter(|image| !image.id.is_empty()).map(stored))
    }

    /// Every image in the store.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    pub fn images(&mut self) -> Result<Vec<StoredImage>, CriError> {
        let answer: said::ListImagesResponse = self.line.call(self.version, IMAGES, "ListImages", &said::Nothing {}, None)?;
        Ok(answer.images.into_iter().map(stored).collect())
    }

    /// Pulls an image as the node is configured, within `patience`; how it is called afterwards.
    ///
    /// # Errors
    /// What the runtime says, or that it did not answer in time: then the pull is called off.
    pub fn pull(&mut self, image: &str, patience: Duration) -> Result<String, CriError> {
        let answer: said::PullImageResponse = self.line.call(self.version, IMAGES, "PullImage", &request(image), Some(patience))?;
        Ok(answer.image_ref)
    }

    /// The containers that run or are about to.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    pub fn containers(&mut self) -> Result<Vec<Container>, CriError> {
        let answer: said::ListContainersResponse = self.runtime("ListContainers")?;
        let alive = answer.containers.into_iter().filter(|found| said::ALIVE.contains(&found.state));
        let container = |found: said::Container| {
            let image = found.image.unwrap_or_default();
            let named = if image.user_specified_image.is_empty() { image.image } else { image.user_specified_image };
            Container { name: grpc::scrubbed(&found.metadata.unwrap_or_default().name), image: named, id: found.image_ref }
        };
        Ok(alive.map(container).collect())
    }

    /// How many pods are up: each holds the pause image in use.
    ///
    /// # Errors
    /// Where the runtime does not answer.
    pub fn pods(&mut self) -> Result<usize, CriError> {
        let answer: said::ListPodSandboxResponse = self.runtime("ListPodSandbox")?;
        Ok(answer.items.iter().filter(|pod| pod.state == said::READY).count())
    }

    fn runtime<Answer: prost::Message + Default>(&mut self, call: &'static str) -> Result<Answer, CriError> {
        self.line.call(self.version, "RuntimeService", call, &said::Nothing {}, None)
    }
}

const IMAGES: &str = "ImageService";

fn request(image: &str) -> said::ImageRequest {
    said::ImageRequest { image: Some(said::ImageSpec { image: image.to_owned(), user_specified_image: String::new() }) }
}

fn stored(image: said::Image) -> StoredImage {
    StoredImage { id: image.id, tags: image.repo_tags, digests: image.repo_digests }
}
