//! One call of the CRI, by curl: gRPC is a POST over HTTP/2 whose outcome stands in the trailers.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};

/// Calls `method` (`ImageService/PullImage` and its like) of the runtime that listens on `socket`; `curl` is the program as it is started where the socket is.
/// Gives the answer's message; the error inside is what the runtime, or curl, said.
pub fn call(mut curl: Command, socket: &str, method: &str, message: &[u8]) -> Result<Result<Vec<u8>, String>> {
    curl.args(["-sS", "--max-time", "30", "--http2-prior-knowledge", "--unix-socket", socket])
        .args(["-H", "content-type: application/grpc", "-H", "te: trailers", "-D", "-", "-o", "-", "--data-binary", "@-"])
        .arg(format!("http://localhost/runtime.v1.{method}"));
    let mut child = curl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().context("curl")?;
    let mut frame = vec![0];
    frame.extend_from_slice(&u32::try_from(message.len()).context("a message of this size")?.to_be_bytes());
    frame.extend_from_slice(message);
    let mut stdin = child.stdin.take().context("curl's standard input")?;
    // curl gives up before it has read anything when there is no socket yet; its own message says so.
    let _ = stdin.write_all(&frame);
    drop(stdin);
    let output = child.wait_with_output().context("curl")?;
    let (headers, answer) = taken_apart(&output.stdout);
    let field = |name: &str| headers.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    Ok(match field("grpc-status:") {
        Some("0") => Ok(answer),
        Some(status) => Err(format!("status {status}: {}", field("grpc-message:").unwrap_or_default())),
        None => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

/// Headers and trailers, and the message that curl has written between them: a flag and the length stand before it.
fn taken_apart(written: &[u8]) -> (String, Vec<u8>) {
    const END: &[u8] = b"\r\n\r\n";
    let start = written.windows(END.len()).position(|bytes| bytes == END).map_or(written.len(), |at| at + END.len());
    let (head, rest) = written.split_at(start);
    let length = rest.first_chunk::<5>().map_or(0, |[_, length @ ..]| u32::from_be_bytes(*length) as usize);
    let (frame, trailers) = rest.split_at(rest.len().min(5 + length));
    let headers = [head, trailers].map(String::from_utf8_lossy).concat();
    (headers, frame.get(5..).unwrap_or_default().to_vec())
}

/// The message that names an image, for `PullImage` and `RemoveImage`.
pub fn image(reference: &str) -> Vec<u8> {
    field(1, &field(1, reference.as_bytes()))
}

/// A length-delimited field of a protobuf message. What is sent here is short: two bytes of length are enough.
pub fn field(number: u8, data: &[u8]) -> Vec<u8> {
    let mut encoded = varint(u16::from(number) << 3 | 2);
    encoded.extend(varint(u16::try_from(data.len()).expect("a message of a few lines is short")));
    encoded.extend_from_slice(data);
    encoded
}

/// Of less than 15 bits.
fn varint(number: u16) -> Vec<u8> {
    let [high, low] = number.to_be_bytes();
    match (high << 1) | (low >> 7) {
        0 => vec![low],
        more => vec![low | 0x80, more],
    }
}
