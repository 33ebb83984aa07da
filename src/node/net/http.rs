//! One exchange of HTTP/1.1: a request, the head of its answer, and as much of the body as is of use.

use std::io::{Read, Write};

/// As much of an answer's head is read.
const MOST_HEAD: usize = 64 << 10;
/// And of its body.
const MOST_BODY: usize = 64 << 10;
/// Headers in it.
const MOST_HEADERS: usize = 128;

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: u16,
    /// Names in lower case.
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    /// The values of a header, by its name in lower case.
    pub(super) fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether it says that it is HTML.
    pub(super) fn is_html(&self) -> bool {
        self.header("content-type").any(|kind| kind.trim().to_ascii_lowercase().starts_with("text/html"))
    }

    /// Whether it is a page for people: some registries call everything HTML, but do not write any (quay.io answers `true`).
    pub(super) fn is_page(&self) -> bool {
        self.is_html()
            && self.header("docker-distribution-api-version").next().is_none()
            && self.body.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'<')
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Broken {
    /// The connection.
    Io(std::io::Error),
    /// What came is not HTTP.
    NoHttp(String),
}

/// A request: method, target, and headers whose values are not shown anywhere.
#[derive(Debug)]
pub(super) struct Request<'a> {
    pub method: &'static str,
    pub target: &'a str,
    pub host: &'a str,
    pub headers: Vec<(&'a str, Vec<u8>)>,
}

/// When an answer's body is of use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Never,
    /// When it may be a page for people.
    Page,
    Always,
}

/// Sends `request`; gives the head of its answer, and what was read behind that.
pub(super) fn head(stream: &mut (impl Read + Write), request: &Request<'_>) -> Result<(Answer, Vec<u8>), Broken> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: nodeprep/{}\r\n",
        request.method,
        request.target,
        request.host,
        env!("CARGO_PKG_VERSION")
    )
    .into_bytes();
    for (name, value) in &request.headers {
        head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    // who does not like our certificate says so in what can still be read
    let sent = stream.write_all(&head).and_then(|()| stream.flush());
    let mut bytes = Vec::new();
    loop {
        if let Some((answer, length)) = parse(&bytes).map_err(Broken::NoHttp)? {
            return Ok((answer, bytes.split_off(length)));
        }
        if bytes.len() > MOST_HEAD {
            return Err(Broken::NoHttp("its head has no end".into()));
        }
        match more(stream, &mut bytes) {
            Ok(0) => {
                return Err(match sent {
                    Err(error) => Broken::Io(error),
                    Ok(()) if bytes.is_empty() => Broken::Io(std::io::ErrorKind::UnexpectedEof.into()),
                    Ok(()) => Broken::NoHttp("it breaks off".into()),
                });
            }
            Ok(_) => {}
            Err(error) => return Err(Broken::Io(error)),
        }
    }
}

/// Sends `request`, whose answer's body is of use as `body` says.
pub(super) fn exchange(stream: &mut (impl Read + Write), request: &Request<'_>, body: Body) -> Result<Answer, Broken> {
    let (mut answer, mut rest) = head(stream, request)?;
    if body == Body::Always || body == Body::Page && answer.is_html() {
        let wanted = answer.header("content-length").next().and_then(|length| length.trim().parse::<usize>().ok());
        let chunked = answer.header("transfer-encoding").any(|value| value.to_ascii_lowercase().contains("chunked"));
        let whole = |rest: &[u8]| if chunked { joined(rest).1 } else { wanted.is_some_and(|wanted| rest.len() >= wanted) };
        while rest.len() <= MOST_BODY && !whole(&rest) {
            // a body that breaks off is none that can be read, which is told by who reads it
            if more(stream, &mut rest).unwrap_or(0) == 0 {
                break;
            }
        }
        answer.body = if chunked { joined(&rest).0 } else { rest };
    }
    Ok(answer)
}

pub(super) fn more(stream: &mut impl Read, bytes: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer)?;
    bytes.extend(buffer.iter().take(count));
    Ok(count)
}

/// The head and its length, once it is whole. Heads that only announce another one (1xx) are passed over.
fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut skipped = 0;
    loop {
        let mut room = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut head = httparse::Response::new(&mut room);
        match head.parse(&bytes[skipped..]) {
            Err(error) => return Err(error.to_string()),
            Ok(httparse::Status::Partial) => return Ok(None),
            Ok(httparse::Status::Complete(length)) => {
                skipped += length;
                let status = head.code.unwrap_or_default();
                if (100..200).contains(&status) && status != 101 {
                    continue;
                }
                let text =
                    |header: &httparse::Header<'_>| (header.name.to_ascii_lowercase(), String::from_utf8_lossy(header.value).into_owned());
                return Ok(Some((Answer { status, headers: head.headers.iter().map(text).collect(), body: Vec::new() }, skipped)));
            }
        }
    }
}

/// The chunks of a body put together, and whether the last one is there.
fn joined(bytes: &[u8]) -> (Vec<u8>, bool) {
    let (mut out, mut rest) = (Vec::new(), bytes);
    loop {
        let Ok(httparse::Status::Complete((head, length))) = httparse::parse_chunk_size(rest) else { return (out, false) };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length == 0 {
            return (out, true);
        }
        let Some(chunk) = rest.get(head..head.saturating_add(length)) else { return (out, false) };
        out.extend_from_slice(chunk);
        rest = rest.get(head + length + 2..).unwrap_or_default();
    }
}
