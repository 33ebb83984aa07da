//! What an endpoint may have beside its place: `pull`, `timeout`, `header`.

use std::time::Duration;

use super::super::decode::{At, RawEndpoint, short};
use super::super::problems::Problems;
use super::super::text::{is_a_login, names_a_login};
use super::name;
use crate::model::endpoint::{Endpoint, TIMEOUTS};

/// Headers that a runtime sets itself, or that change what is answered.
const RUNTIMES_OWN: [&str; 8] =
    ["accept", "host", "connection", "range", "content-length", "content-type", "transfer-encoding", "user-agent"];

/// Reads an endpoint with its options; what is wrong with them is reported, and the endpoint is there without.
pub fn read(written: &RawEndpoint, problems: &mut Problems<'_>) -> Option<Endpoint> {
    let timeout = written.timeout.as_ref().and_then(|at| timeout(at, problems));
    let header = header(written, problems);
    let endpoint = name::endpoint(written.location.as_ref()?, problems)?;
    Some(Endpoint { pull: written.pull, timeout, header, ..endpoint })
}

fn timeout(written: &At<String>, problems: &mut Problems<'_>) -> Option<Duration> {
    let text = written.value.as_str();
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: Option<u64> = text[..text.len() - unit.len()].parse().ok();
    let read = match (number, unit) {
        (Some(number), "ms") => Some(Duration::from_millis(number)),
        (Some(number), "s") => Some(Duration::from_secs(number)),
        (Some(number), "m") => number.checked_mul(60).map(Duration::from_secs),
        _ => None,
    };
    let found = read.filter(|time| TIMEOUTS.contains(time));
    if found.is_none() {
        let what = match read {
            Some(time) if time.is_zero() => "timeout \"0\" leaves no time for a connection".to_owned(),
            Some(_) => format!("timeout \"{}\" is longer than anybody waits", short(text)),
            None => format!("timeout \"{}\" is no time", short(text)),
        };
        problems.error("invalid-timeout", &written.span, what, "write a number with `ms`, `s` or `m`, up to five minutes, as in \"10s\"");
    }
    found
}

fn header(written: &RawEndpoint, problems: &mut Problems<'_>) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::with_capacity(written.header.len());
    for (name, value) in &written.header {
        let shown = short(&name.value);
        if names_a_login(&name.value) || is_a_login(&value.value) {
            let what = format!("header `{shown}`: a secret does not belong in the document");
            let help = "put the login into a dockerconfigjson file and name it with `credentials` under [[registry]]";
            problems.error("secret-in-spec", &name.span, what, help);
            continue;
        }
        let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let (what, help) = if name.value.is_empty() || !name.value.chars().all(token) {
            (format!("header `{shown}` is no name of a header"), "write letters, digits and dashes, as in `X-Team`")
        } else if RUNTIMES_OWN.contains(&name.value.to_ascii_lowercase().as_str()) {
            (format!("header `{shown}` is the runtime's own"), "take it out")
        } else if !value.value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) || value.value.trim() != value.value {
            (
                format!("the value of header `{shown}` has something in it that cannot be sent"),
                "write printable ASCII without spaces around it",
            )
        } else if found.iter().any(|(other, _)| other.eq_ignore_ascii_case(&name.value)) {
            (format!("header `{shown}` is there twice: capitals make no difference"), "take one of them out")
        } else {
            found.push((name.value.clone(), value.value.clone()));
            continue;
        };
        problems.error("invalid-header", &name.span, what, help);
    }
    found
}
