//! `[[registry]]`: how hosts are reached.

use std::collections::HashMap;
use std::ops::Range;

use super::super::decode::{At, Raw, RawRegistry, short};
use super::super::nearest::nearest;
use super::super::problems::Problems;
use super::ca::Cas;
use super::{Materials, client, credentials, name};
use crate::model::host::Host;
use crate::model::place::Place;
use crate::model::time::Time;
use crate::spec::{Client, Login, LoginBy};

/// A `[[registry]]` that makes sense by itself.
pub struct Checked {
    /// The host.
    pub host: Host,
    /// Where it is written.
    pub at: Range<usize>,
    /// The CAs that it names, by index.
    pub ca: Option<At<Vec<usize>>>,
    /// Client certificate.
    pub client: Option<Client>,
    /// Static login.
    pub login: Option<Login>,
    /// Where `client_cert` is written.
    pub client_span: Option<Range<usize>>,
    /// Where `credentials` are written.
    pub credentials: Option<Range<usize>>,
    /// `insecure = true`, and where.
    pub insecure: Option<Range<usize>>,
    /// Credentials may go over plain HTTP.
    pub allow_plaintext_credentials: bool,
}

/// Checks every `[[registry]]`.
pub fn check(raw: &Raw, cas: &Cas, materials: &mut Materials<'_>, now: Option<Time>, problems: &mut Problems<'_>) -> Vec<Checked> {
    let (mut clients, mut logins) = (client::Seen::default(), credentials::Seen::default());
    let mut places: HashMap<Host, Place> = HashMap::new();
    let mut found = Vec::with_capacity(raw.registries.len());
    for written in &raw.registries {
        let client = client::check(written, &mut clients, materials, now, problems);
        let ca = written.ca.as_ref().map(|names| At { value: indexes(names, raw, cas, problems), span: names.span.clone() });
        let Some(host_at) = &written.host else { continue };
        let Some(host) = name::host(host_at, problems) else { continue };
        if host.cannot_exist() {
            problems.error("invalid-host", &host_at.span, format!("[[registry]] {host} cannot exist"), name::NOWHERE);
            continue;
        }
        if let Some(first) = places.get(&host) {
            let first = problems.text().seen_from(first, host_at.span.start);
            let what = format!("[[registry]] {host} is there twice, first {first}");
            problems.error("duplicate", &host_at.span, what, "put the keys of both into one");
            continue;
        }
        places.insert(host.clone(), problems.text().place(host_at.span.start));
        let login = written.credentials.as_ref().and_then(|file| credentials::check(file, &host, &mut logins, materials, problems));
        let login = by(written, login, problems);
        let insecure = written.insecure.as_ref().filter(|flag| flag.value).map(|flag| flag.span.clone());
        found.push(Checked {
            host,
            at: written.at.clone(),
            ca,
            client,
            login,
            client_span: written.client_cert.as_ref().map(|at| at.span.clone()),
            credentials: written.credentials.as_ref().map(|at| at.span.clone()),
            insecure,
            allow_plaintext_credentials: written.allow_plaintext_credentials,
        });
    }
    found
}

/// How containerd is told the login.
fn by(written: &RawRegistry, login: Option<Login>, problems: &mut Problems<'_>) -> Option<Login> {
    if let (Some(by), None) = (&written.credentials_by, &written.credentials) {
        let help = "take it out, or add `credentials = \"pull-secret.json\"`";
        problems.error("credentials-by", &by.span, "`credentials_by` without `credentials`", help);
    }
    let config = written.credentials_by.as_ref().is_some_and(|by| by.value == "config");
    login.map(|login| Login { by: if config { LoginBy::Config } else { LoginBy::Header }, ..login })
}

fn indexes(names: &At<Vec<At<String>>>, raw: &Raw, cas: &Cas, problems: &mut Problems<'_>) -> Vec<usize> {
    let mut found = Vec::with_capacity(names.value.len());
    for name in &names.value {
        if let Some(index) = cas.by_name.get(&name.value) {
            if !found.contains(index) {
                found.push(*index);
            }
            continue;
        }
        // a [[ca]] of that name may be there and be wrong, which is reported already
        if raw.cas.iter().any(|ca| ca.name.as_ref().is_some_and(|other| other.value == name.value)) {
            continue;
        }
        let what = format!("there is no [[ca]] \"{}\"", short(&name.value));
        let help = if name.value.contains("-----BEGIN ") || [".pem", ".crt", ".cer"].iter().any(|suffix| name.value.ends_with(suffix)) {
            "write a [[ca]] with that file, and its name here".to_owned()
        } else {
            nearest(&name.value, cas.list.iter().map(|ca| ca.name.as_str()))
                .map_or_else(|| "write the `name` of a [[ca]]".to_owned(), |near| format!("write \"{near}\""))
        };
        problems.error("unknown-ca", &name.span, what, help);
    }
    found
}
