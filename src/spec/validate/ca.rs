//! `[[ca]]`: which certificates are trusted.

use std::collections::HashMap;
use std::ops::Range;

use super::super::decode::{At, Raw, RawCa, short};
use super::super::problems::Problems;
use super::super::reference::Holds;
use super::super::text::holds_private_key;
use super::{Materials, SOON_DAYS, pem};
use crate::model::cert::Cert;
use crate::model::time::Time;
use crate::spec::{Ca, Scope};

/// The CAs of the document, and what could not become one.
pub struct Cas {
    /// In the document's order, with their currently valid certificates.
    pub list: Vec<Ca>,
    /// Name → index in `list`.
    pub by_name: HashMap<String, usize>,
    /// Beside `list`: why an entry holds nothing.
    pub state: Vec<State>,
    /// Beside `list`: where each one's name is written.
    pub spans: Vec<Range<usize>>,
}

/// What became of a `[[ca]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds a certificate that is valid.
    Valid,
    /// None of its certificates is valid now.
    Expired,
    /// Something else is wrong with it, and reported; or it was not looked at.
    Unknown,
}

/// Checks every `[[ca]]`.
pub fn check(raw: &Raw, materials: &mut Materials<'_>, now: Option<Time>, problems: &mut Problems<'_>) -> Cas {
    let mut cas = Cas { list: Vec::new(), by_name: HashMap::new(), state: Vec::new(), spans: Vec::new() };
    for written in &raw.cas {
        let Some(name) = name(written, &cas, problems) else { continue };
        let found = certs(written, &name.value, materials, problems);
        let (certs, state) = match found {
            None => (Vec::new(), State::Unknown),
            Some((certs, span)) => {
                let certs = trustworthy(certs, &name.value, &span, problems);
                let had = certs.len();
                let valid = valid(certs, &name.value, &span, now, problems);
                let state = match (had, valid.len()) {
                    (0, _) => State::Unknown,
                    (_, 0) => State::Expired,
                    _ => State::Valid,
                };
                (valid, state)
            }
        };
        let at = problems.text().place(written.at.start);
        cas.by_name.insert(name.value.clone(), cas.list.len());
        cas.list.push(Ca { name: name.value, certs, scope: written.scope.unwrap_or(Scope::System), at });
        cas.state.push(state);
        cas.spans.push(name.span);
    }
    unused(raw, &cas, problems);
    cas
}

fn name(written: &RawCa, cas: &Cas, problems: &mut Problems<'_>) -> Option<At<String>> {
    let name = written.name.as_ref()?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.value.is_empty() || name.value.len() > 100 || !name.value.chars().all(good) || name.value.starts_with(['.', '-']) {
        let what = format!("\"{}\" is no name for a [[ca]]: it becomes part of file names", short(&name.value));
        problems.error("bad-name", &name.span, what, "use letters, digits, `.`, `_` and `-`, with a letter or digit in front");
        return None;
    }
    if let Some(first) = cas.by_name.get(&name.value) {
        let first = problems.text().seen_from(&cas.list[*first].at, name.span.start);
        let what = format!("[[ca]] {} is there twice, first {first}", name.value);
        problems.error("duplicate", &name.span, what, "rename one, or put both certificates into one file");
        return None;
    }
    Some(name.clone())
}

/// The certificates of an entry and the place that names them.
fn certs(written: &RawCa, name: &str, materials: &mut Materials<'_>, problems: &mut Problems<'_>) -> Option<(Vec<Cert>, Range<usize>)> {
    let (bytes, label, span) = match (&written.file, &written.pem) {
        (Some(_), Some(inline)) => {
            let what = format!("[[ca]] {name} has both `file` and `pem`");
            problems.error("conflicting-keys", &inline.span, what, "take one of them out");
            return None;
        }
        (Some(file), None) => (materials.get(file, problems)?, file.value.as_str(), file.span.clone()),
        (None, Some(inline)) if holds_private_key(&inline.value) => return None, // reported as secret
        (None, Some(inline)) => (inline.value.as_bytes(), name, inline.span.clone()),
        (None, None) => {
            if !written.source_reported {
                let what = format!("[[ca]] {name} has neither `file` nor `pem`");
                problems.error("missing-key", &written.at, what, format!("add `file = \"{name}.pem\"`"));
            }
            return None;
        }
    };
    let pem = pem::read(bytes, label, Holds::Ca, &span, problems)?;
    if !pem::sections(&pem, label, &span, problems) {
        return None;
    }
    if !pem.keys.is_empty() {
        let what = format!("{label}: holds a private key beside its certificates");
        problems.warning("ca-with-key", &span, what, "take the key out: nodes need the certificates only");
    }
    Some((pem.certs, span))
}

/// Leaves out what cannot be an anchor.
fn trustworthy(certs: Vec<Cert>, name: &str, span: &Range<usize>, problems: &mut Problems<'_>) -> Vec<Cert> {
    let mut kept: Vec<Cert> = Vec::with_capacity(certs.len());
    for cert in certs {
        if !cert.is_ca && !cert.self_issued {
            let what = format!("[[ca]] {name}: {} is no CA: another one issued it", cert.subject);
            problems.error("ca-is-leaf", span, what, "name the file of the CA that issued it");
            continue;
        }
        if !cert.is_anchor() {
            let what = format!(
                "[[ca]] {name}: {} is self-signed and has no CA flag: p11-kit trust stores (RHEL, Fedora, SUSE) drop it",
                cert.subject
            );
            problems.warning("ca-without-flag", span, what, "make it anew with basicConstraints=CA:TRUE, or issue it from a CA");
        }
        if !kept.iter().any(|other| other.fingerprint == cert.fingerprint) {
            kept.push(cert);
        }
    }
    kept
}

fn valid(certs: Vec<Cert>, name: &str, span: &Range<usize>, now: Option<Time>, problems: &mut Problems<'_>) -> Vec<Cert> {
    let Some(now) = now else { return certs };
    let renew = "put its successor into the file";
    let valid = |cert: &Cert| {
        let subject = &cert.subject;
        if now < cert.not_before {
            let what = format!("[[ca]] {name}: {subject} is not valid before {}: it is left out", cert.not_before);
            problems.warning("ca-not-yet-valid", span, what, "check the clock, or wait until then");
        } else if now > cert.not_after {
            let what = format!("[[ca]] {name}: {subject} expired on {}: it is left out", cert.not_after);
            problems.warning("ca-expired", span, what, renew);
        } else if now.days_until(cert.not_after) < SOON_DAYS {
            let what = format!("[[ca]] {name}: {subject} expires in {} days, on {}", now.days_until(cert.not_after), cert.not_after);
            problems.warning("ca-expires-soon", span, what, format!("{renew} beside it"));
        }
        cert.is_valid_at(now)
    };
    certs.into_iter().filter(valid).collect()
}

fn unused(raw: &Raw, cas: &Cas, problems: &mut Problems<'_>) {
    let named: std::collections::HashSet<&str> = raw
        .registries
        .iter()
        .filter_map(|registry| registry.ca.as_ref())
        .flat_map(|list| &list.value)
        .map(|name| name.value.as_str())
        .collect();
    for (ca, span) in cas.list.iter().zip(&cas.spans) {
        if ca.scope == Scope::Registries && !named.contains(ca.name.as_str()) {
            let what = format!("[[ca]] {} is trusted by nobody: trust = \"registries\", and no [[registry]] names it", ca.name);
            problems.warning("ca-unused", span, what, "name it in `ca = […]` of a [[registry]], or take it out");
        }
    }
}
