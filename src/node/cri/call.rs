//! One call after the other over a connection that speaks HTTP/2.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use h2::client::{self, SendRequest};
use http::{Request, Response};
use prost::Message;
use prost::bytes::Bytes;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};

use super::{grpc, socket};
use crate::model::cri::CriError;
use crate::model::path::NodePath;
use crate::node::root::Root;

/// A connection. It is worked on only while a call waits: nothing runs beside the program. Not to be used from async code: it
/// waits by itself.
pub struct Line {
    waits: Runtime,
    send: SendRequest<Bytes>,
    path: NodePath,
    patience: Duration,
    /// When everything has to be answered that has no time of its own: connecting is part of it.
    pub(super) until: Option<Instant>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("path", &self.path).field("patience", &self.patience).finish_non_exhaustive()
    }
}

impl Line {
    /// Opens the socket and says the preface; whether the other side speaks HTTP/2 shows with the first answer.
    pub fn open(root: &Root, path: &NodePath, patience: Duration) -> Result<Self, CriError> {
        let unreachable = |error: std::io::Error| CriError::Unreachable { path: path.clone(), why: error.to_string() };
        let found = socket::find(root, path)?;
        let waits = Builder::new_current_thread().enable_io().enable_time().build().map_err(unreachable)?;
        let deadline = Instant::now() + patience;
        let send = in_silence(|| {
            waits.block_on(async {
                let opened = async {
                    let stream = socket::connect(&found, path).await?;
                    let (send, connection) = client::Builder::new()
                        .enable_push(false)
                        .initial_window_size(WINDOW)
                        .initial_connection_window_size(WINDOW)
                        .max_header_list_size(HEADERS)
                        .handshake(stream)
                        .await
                        .map_err(|error| garbled(path, "connect", &error))?;
                    // what goes wrong in it is told by the call that it goes wrong for
                    drop(tokio::spawn(connection));
                    Ok(send)
                };
                in_time(deadline, opened, || late(path, "connect", patience)).await
            })
        })?;
        Ok(Self { waits, send, path: path.clone(), patience, until: Some(deadline) })
    }

    /// Asks and waits for the answer, for `patience` where that is not the connection's own.
    pub fn call<Answer: Message + Default>(
        &mut self,
        version: &str,
        service: &str,
        call: &'static str,
        request: &impl Message,
        patience: Option<Duration>,
    ) -> Result<Answer, CriError> {
        let until = self.until.filter(|_| patience.is_none());
        let patience = patience.unwrap_or(self.patience);
        let deadline = until.unwrap_or_else(|| Instant::now() + patience);
        let uri = format!("http://localhost/runtime.{version}.{service}/{call}");
        let body = Bytes::from(grpc::framed(request));
        let exchange = exchange(self.send.clone(), uri, deadline.saturating_duration_since(Instant::now()), body);
        let path = &self.path;
        let answer = in_silence(|| {
            self.waits.block_on(async {
                let told = async { exchange.await.map_err(|why| CriError::Garbled { path: path.clone(), call, why }) };
                in_time(deadline, told, || late(path, call, patience)).await
            })
        })?;
        match answer {
            Ok(body) => grpc::unframed(&body).map_err(|why| CriError::Garbled { path: path.clone(), call, why }),
            Err(grpc::Status { code, message }) => Err(CriError::Said { call, code, message }),
        }
    }
}

/// What the protocol has to tell of its own work is no part of our log.
fn in_silence<T>(work: impl FnOnce() -> T) -> T {
    tracing::subscriber::with_default(tracing::subscriber::NoSubscriber::default(), work)
}

/// As much as may arrive before it is looked at.
const WINDOW: u32 = 1 << 20;
/// Headers and trailers of an answer: a runtime's own words may be long.
const HEADERS: u32 = 1 << 18;

async fn in_time<T>(
    deadline: Instant,
    work: impl Future<Output = Result<T, CriError>>,
    late: impl FnOnce() -> CriError,
) -> Result<T, CriError> {
    // nobody is asked whose answer comes too late in any case
    if Instant::now() >= deadline {
        return Err(late());
    }
    timeout_at(deadline, work).await.unwrap_or_else(|_| Err(late()))
}

fn late(path: &NodePath, call: &'static str, patience: Duration) -> CriError {
    CriError::Late { path: path.clone(), call, patience }
}

fn garbled(path: &NodePath, call: &'static str, error: &h2::Error) -> CriError {
    CriError::Garbled { path: path.clone(), call, why: error.to_string() }
}

/// One request and its answer: the body, or the status that stands in its place. A status may come with the head, alone.
async fn exchange(send: SendRequest<Bytes>, uri: String, patience: Duration, body: Bytes) -> Result<Result<Vec<u8>, grpc::Status>, String> {
    let wrong = |error: h2::Error| error.to_string();
    let request = Request::post(uri)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        // so that it does not go on for nobody
        .header("grpc-timeout", format!("{}m", patience.as_millis().min(99_999_999)))
        .body(())
        .map_err(|error| error.to_string())?;
    let mut send = send.ready().await.map_err(wrong)?;
    let (answer, mut stream) = send.send_request(request, false).map_err(wrong)?;
    stream.send_data(body, true).map_err(wrong)?;
    let (head, mut stream) = answer.await.map(Response::into_parts).map_err(wrong)?;
    grpc::acceptable(head.status, &head.headers)?;
    if let Some(status) = grpc::status(&head.headers)?.filter(|status| status.code != 0) {
        return Ok(Err(status));
    }
    let mut body = Vec::new();
    while let Some(part) = stream.data().await {
        let part = part.map_err(wrong)?;
        if body.len() + part.len() > grpc::LARGEST {
            return Err(format!("it is longer than {} MiB", grpc::LARGEST >> 20));
        }
        body.extend_from_slice(&part);
        stream.flow_control().release_capacity(part.len()).map_err(wrong)?;
    }
    let trailers = stream.trailers().await.map_err(wrong)?.unwrap_or_default();
    match grpc::status(&trailers)? {
        Some(status) if status.code == 0 => Ok(Ok(body)),
        Some(status) => Ok(Err(status)),
        None => Err("it ends without a status".to_owned()),
    }
}
