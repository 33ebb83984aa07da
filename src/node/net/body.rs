//! The whole body of an answer, or nothing: up to a limit that is checked while it comes.

use std::io::{ErrorKind, Read};

use super::http::{Answer, more};

/// A line that says how long a chunk is, with extensions; and all trailers.
const MOST_LINE: usize = 8 << 10;

/// Why there is no body.
#[derive(Debug)]
pub(super) enum Spoilt {
    /// The connection.
    Io(std::io::Error),
    /// Its end is missing.
    Truncated {
        /// What came.
        got: usize,
        /// What was announced, where it was.
        wanted: Option<u64>,
    },
    /// More than was asked for.
    TooLarge,
    /// Where it ends cannot be told.
    Framing(&'static str),
}

/// How an answer says where its body ends.
enum End {
    Length(u64),
    Chunks,
    Closed,
}

/// Reads the body of `answer`, at most `most` bytes; `read` is what came with the head.
pub(super) fn whole(stream: &mut impl Read, answer: &Answer, read: Vec<u8>, most: usize) -> Result<Vec<u8>, Spoilt> {
    match end(answer)? {
        End::Length(length) if length > most as u64 => Err(Spoilt::TooLarge),
        End::Length(length) => exactly(stream, read, length),
        End::Chunks => chunks(stream, read, most),
        End::Closed => closed(stream, read, most),
    }
}

fn end(answer: &Answer) -> Result<End, Spoilt> {
    let codings: Vec<&str> = answer.header("transfer-encoding").collect();
    let mut lengths = answer.header("content-length").flat_map(|value| value.split(',')).map(str::trim);
    let length = lengths.next();
    if lengths.any(|other| Some(other) != length) {
        return Err(Spoilt::Framing("it has several lengths"));
    }
    match (codings.as_slice(), length) {
        ([], None) => Ok(End::Closed),
        ([], Some(length)) if length.bytes().all(|byte| byte.is_ascii_digit()) => {
            length.parse().map(End::Length).map_err(|_| Spoilt::Framing("its length is no number"))
        }
        ([], Some(_)) => Err(Spoilt::Framing("its length is no number")),
        ([one], None) if one.trim().eq_ignore_ascii_case("chunked") => Ok(End::Chunks),
        (_, None) => Err(Spoilt::Framing("it is coded in a way that was not asked for")),
        (_, Some(_)) => Err(Spoilt::Framing("it has a length and chunks")),
    }
}

/// Reads on; `false` when the other side has ended.
fn on(stream: &mut impl Read, bytes: &mut Vec<u8>) -> Result<bool, Spoilt> {
    match more(stream, bytes) {
        Ok(count) => Ok(count > 0),
        // TLS that ends without its own end
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Ok(false),
        Err(error) => Err(Spoilt::Io(error)),
    }
}

fn exactly(stream: &mut impl Read, mut bytes: Vec<u8>, length: u64) -> Result<Vec<u8>, Spoilt> {
    while (bytes.len() as u64) < length {
        if !on(stream, &mut bytes)? {
            return Err(Spoilt::Truncated { got: bytes.len(), wanted: Some(length) });
        }
    }
    bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
    Ok(bytes)
}

fn closed(stream: &mut impl Read, mut bytes: Vec<u8>, most: usize) -> Result<Vec<u8>, Spoilt> {
    loop {
        if bytes.len() > most {
            return Err(Spoilt::TooLarge);
        }
        match more(stream, &mut bytes) {
            Ok(0) => return Ok(bytes),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(Spoilt::Truncated { got: bytes.len(), wanted: None });
            }
            Err(error) => return Err(Spoilt::Io(error)),
        }
    }
}

fn chunks(stream: &mut impl Read, mut read: Vec<u8>, most: usize) -> Result<Vec<u8>, Spoilt> {
    let mut out = Vec::new();
    loop {
        let (head, length) = loop {
            match httparse::parse_chunk_size(&read) {
                Err(_) => return Err(Spoilt::Framing("the length of a chunk is no number")),
                Ok(httparse::Status::Complete(found)) => break found,
                Ok(httparse::Status::Partial) if read.len() > MOST_LINE => return Err(Spoilt::Framing("a chunk has no beginning")),
                Ok(httparse::Status::Partial) => {
                    if !on(stream, &mut read)? {
                        return Err(Spoilt::Truncated { got: out.len(), wanted: None });
                    }
                }
            }
        };
        read.drain(..head);
        if length == 0 {
            return trailers(stream, read, out.len()).map(|()| out);
        }
        let length = usize::try_from(length).ok().filter(|length| *length <= most - out.len()).ok_or(Spoilt::TooLarge)?;
        while read.len() < length + 2 {
            if !on(stream, &mut read)? {
                return Err(Spoilt::Truncated { got: out.len() + read.len().min(length), wanted: None });
            }
        }
        if read.get(length..length + 2) != Some(b"\r\n") {
            return Err(Spoilt::Framing("a chunk is longer than it says"));
        }
        out.extend(read.drain(..length));
        read.drain(..2);
    }
}

/// What stands behind the last chunk: nothing, or trailers, and an empty line.
fn trailers(stream: &mut impl Read, mut read: Vec<u8>, got: usize) -> Result<(), Spoilt> {
    loop {
        if read.starts_with(b"\r\n") || read.windows(4).any(|four| four == b"\r\n\r\n") {
            return Ok(());
        }
        if read.len() > MOST_LINE {
            return Err(Spoilt::Framing("its trailers have no end"));
        }
        if !on(stream, &mut read)? {
            return Err(Spoilt::Truncated { got, wanted: None });
        }
    }
}
