//! What gRPC puts around a message (`doc/PROTOCOL-HTTP2.md` of gRPC): a prefix in front, a status behind. Pure.

use http::{HeaderMap, StatusCode};
use prost::encoding::{DecodeContext, decode_key, skip_field};
use prost::{DecodeError, Message};

/// A message, its flag and its length: no compression is offered, and there is one message each way.
pub const PREFIX: usize = 5;
/// Longer answers are not read: a node with thousands of images needs a tenth of it.
pub const LARGEST: usize = 16 << 20;
/// A list of more is not taken apart: two bytes on the wire can be a hundred in memory.
const MOST: usize = 50_000;
/// More of a runtime's words than this is not shown.
const LONGEST: usize = 2000;

/// `Unimplemented`.
pub const UNIMPLEMENTED: u32 = 12;

/// The message as it is sent.
pub fn framed(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    framed.extend(bytes);
    framed
}

/// The one message of an answer's body.
///
/// # Errors
/// What is wrong with the body.
pub fn unframed<Answer: Message + Default>(body: &[u8]) -> Result<Answer, String> {
    let (prefix, message) = body.split_first_chunk::<PREFIX>().ok_or("it ends before its message")?;
    let [flag, length @ ..] = *prefix;
    if flag != 0 {
        return Err("its message is compressed, which was not asked for".to_owned());
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(format!("its message should have {} bytes and has {}", u32::from_be_bytes(length), message.len()));
    }
    if fields(message).map_err(|error| error.to_string())? > MOST {
        return Err(format!("it lists more than {MOST} things"));
    }
    Answer::decode(message).map_err(|error| error.to_string())
}

/// How many fields a message has, before anything is made of them.
fn fields(mut message: &[u8]) -> Result<usize, DecodeError> {
    let mut count = 0;
    while !message.is_empty() {
        let (tag, kind) = decode_key(&mut message)?;
        skip_field(kind, tag, &mut message, DecodeContext::default())?;
        count += 1;
    }
    Ok(count)
}

/// A status and its message, as headers or trailers have them.
#[derive(Debug, PartialEq, Eq)]
pub struct Status {
    pub code: u32,
    pub message: String,
}

/// The status in a head or in trailers, where there is one.
///
/// # Errors
/// When it is no number.
pub fn status(fields: &HeaderMap) -> Result<Option<Status>, String> {
    let Some(code) = fields.get("grpc-status") else { return Ok(None) };
    let code = code.to_str().ok().and_then(|code| code.parse().ok()).ok_or_else(|| format!("{code:?} is no status of gRPC"))?;
    let message = fields.get("grpc-message").map(|message| scrubbed(&decoded(message.as_bytes()))).unwrap_or_default();
    Ok(Some(Status { code, message }))
}

/// Whether a head can be that of an answer at all.
///
/// # Errors
/// What it is instead.
pub fn acceptable(status: StatusCode, fields: &HeaderMap) -> Result<(), String> {
    if status != StatusCode::OK {
        return Err(format!("HTTP status {status}"));
    }
    let kind = fields.get("content-type").map_or(&b""[..], |kind| kind.as_bytes());
    if kind.starts_with(b"application/grpc") { Ok(()) } else { Err(format!("its type is {:?}", String::from_utf8_lossy(kind))) }
}

/// `%` and two digits stand for a byte; what is no such thing stands for itself, and bytes that are no text are replaced.
fn decoded(message: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(message.len());
    let mut rest = message;
    while let Some((&first, more)) = rest.split_first() {
        let digit = |place: usize| more.get(place).and_then(|&digit| char::from(digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push(u8::try_from(high * 16 + low).unwrap_or_default());
            rest = &more[2..];
        } else {
            bytes.push(first);
            rest = more;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A runtime's words without what opens doors: a login in front of a host, and the parameters of an address (a registry sends
/// to storage with a signature in them) save those that say which registry or repository is meant.
///
/// Nor anything that a terminal would take as a command: where lines end is a space, as what is said is one line.
pub fn scrubbed(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    let message = message.trim().replace(char::is_control, " ");
    let mut rest = message.as_str();
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end =
            after.find(|letter: char| letter.is_whitespace() || matches!(letter, '"' | '\'' | '`' | '<' | '>')).unwrap_or(after.len());
        let (address, more) = after.split_at(end);
        out.push_str(&address_without_secrets(address));
        rest = more;
    }
    out.push_str(rest);
    match out.char_indices().nth(LONGEST) {
        None => out,
        Some((end, _)) => format!("{}…", &out[..end]),
    }
}

fn address_without_secrets(address: &str) -> String {
    let (place, query) = address.split_once('?').map_or((address, None), |(place, query)| (place, Some(query)));
    let host = place.find('/').unwrap_or(place.len());
    let place = match place[..host].rfind('@') {
        Some(at) => format!("…{}", &place[at..]),
        None => place.to_owned(),
    };
    let Some(query) = query else { return place };
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if !matches!(name, "ns" | "scope" | "service") => format!("{name}=…"),
        _ => pair.to_owned(),
    };
    let shown: Vec<String> = query.split('&').map(shown).collect();
    format!("{place}?{}", shown.join("&"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::messages::{ImageRequest, ImageSpec, ListContainersResponse, ListImagesResponse, Nothing, StatusResponse};
    use super::*;

    #[test]
    fn a_message_is_framed_and_found_again() {
        assert_eq!(framed(&Nothing {}), [0, 0, 0, 0, 0]);
        let spec = ImageSpec { image: "a/b:1".to_owned(), user_specified_image: String::new() };
        let request = ImageRequest { image: Some(spec) };
        let bytes = framed(&request);
        assert_eq!(bytes, b"\x00\x00\x00\x00\x09\x0a\x07\x0a\x05a/b:1");
        assert_eq!(unframed::<ImageRequest>(&bytes).unwrap(), request);
    }

    /// `StatusResponse` with an `info` that holds a password, as containerd 1.6 has it: field 2 is not ours.
    #[test]
    fn what_is_not_asked_for_is_not_kept() {
        let info = b"\x12\x15\x0a\x06config\x12\x0bp4ssw0rd123";
        let mut message = b"\x0a\x12\x0a\x10\x0a\x0cRuntimeReady\x10\x01".to_vec();
        message.extend_from_slice(info);
        let mut bytes = vec![0, 0, 0, 0, u8::try_from(message.len()).unwrap()];
        bytes.extend(message);
        let answer = unframed::<StatusResponse>(&bytes).unwrap();
        assert!(answer.status.as_ref().unwrap().conditions[0].status);
        assert!(!format!("{answer:?}").contains("p4ssw0rd"));
    }

    #[test]
    fn bodies_that_are_no_answer() {
        let why = |body: &[u8]| unframed::<StatusResponse>(body).unwrap_err();
        assert_eq!(why(b""), "it ends before its message");
        assert_eq!(why(b"\x01\0\0\0\0"), "its message is compressed, which was not asked for");
        assert_eq!(why(b"\0\0\0\0\x02\x0a"), "its message should have 2 bytes and has 1");
        assert_eq!(why(b"\0\0\0\0\0\0\0\0\0\0"), "its message should have 0 bytes and has 5");
        assert!(!why(b"\0\0\0\0\x02\x0a\x7f").is_empty());
        let list = |things: usize| {
            let length = u32::try_from(things * 2).unwrap().to_be_bytes();
            [&[0], &length[..], &b"\x0a\0".repeat(things)].concat()
        };
        assert_eq!(unframed::<ListContainersResponse>(&list(MOST)).unwrap().containers.len(), MOST);
        assert_eq!(unframed::<ListContainersResponse>(&list(MOST + 1)).unwrap_err(), "it lists more than 50000 things");
    }

    #[test]
    fn statuses() {
        let fields = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        assert_eq!(status(&fields(&[])), Ok(None));
        assert_eq!(status(&fields(&[("grpc-status", "0")])), Ok(Some(Status { code: 0, message: String::new() })));
        let found = status(&fields(&[("grpc-status", "2"), ("grpc-message", "50%25 of caf%C3%A9%2x %zz %")])).unwrap().unwrap();
        assert_eq!(found, Status { code: 2, message: "50% of café%2x %zz %".to_owned() });
        assert!(status(&fields(&[("grpc-status", "good")])).is_err());
        assert!(acceptable(StatusCode::OK, &fields(&[("content-type", "application/grpc+proto")])).is_ok());
        assert_eq!(acceptable(StatusCode::NOT_FOUND, &fields(&[])).unwrap_err(), "HTTP status 404 Not Found");
        assert_eq!(acceptable(StatusCode::OK, &fields(&[("content-type", "text/html")])).unwrap_err(), "its type is \"text/html\"");
    }

    #[test]
    fn no_login_and_no_signature_is_shown() {
        let said =
            "failed to do request: Get \"https://u:p4ss@cdn.example/blob?X-Sig=abc&ns=docker.io\": dial https://b.example/v2/x: refused";
        let shown = "failed to do request: Get \"https://…@cdn.example/blob?X-Sig=…&ns=docker.io\": dial https://b.example/v2/x: refused";
        assert_eq!(scrubbed(said), shown);
        assert_eq!(scrubbed("a://b@c/d@e"), "a://…@c/d@e");
        assert_eq!(scrubbed("one\ntwo\u{1b}[2J\u{9b}2J\n"), "one two [2J 2J");
        assert_eq!(scrubbed(&"é".repeat(LONGEST + 1)).chars().count(), LONGEST + 1);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..300), message in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = unframed::<StatusResponse>(&body);
            let _ = unframed::<ListImagesResponse>(&body);
            let _ = unframed::<ListContainersResponse>(&body);
            // with a prefix that fits, the decoder itself is reached
            let mut framed = vec![0];
            framed.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
            framed.extend_from_slice(&message);
            let _ = unframed::<StatusResponse>(&framed);
            let _ = unframed::<ListImagesResponse>(&framed);
            let _ = unframed::<ListContainersResponse>(&framed);
            prop_assert!(scrubbed(&decoded(&message)).chars().count() <= LONGEST + 1);
        }
    }
}
