//! Whether a Go program believes a server: crypto/x509 `Certificate.Verify` and `VerifyHostname`, as containerd, CRI-O, Podman
//! and skopeo use them. Pure.
//!
//! The order of the questions, what is asked of a root, and the words of the answers are Go's (`verify.go`, `x509.go`; Go
//! 1.19 to 1.25 agree in what stands here). Only signatures are checked by our library; what that does not know (an algorithm, the
//! length of a key) is [`Belief::Unknown`], never a refusal.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::model::cert::{Constraints, Link};
use crate::model::digest::Fingerprint;
use crate::model::time::Time;

/// As many signatures are checked for one server (`maxChainSignatureChecks`).
const MOST_CHECKS: usize = 100;
/// Bits of an RSA key that our library checks signatures with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Certificates that are trusted, whatever flags they bear.
#[derive(Debug, Default)]
pub struct Pool {
    all: BTreeSet<Fingerprint>,
    by_subject: BTreeMap<Vec<u8>, Vec<Arc<Link>>>,
}

impl Pool {
    /// Puts certificates together; what cannot be read is passed over, as Go does.
    #[must_use]
    pub fn of<'a>(ders: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut pool = Self::default();
        pool.extend(ders);
        pool
    }

    /// The same certificates and these.
    #[must_use]
    pub fn with<'a>(&self, ders: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut pool = Self { all: self.all.clone(), by_subject: self.by_subject.clone() };
        pool.extend(ders);
        pool
    }

    fn extend<'a>(&mut self, ders: impl IntoIterator<Item = &'a [u8]>) {
        for link in ders.into_iter().filter_map(|der| Link::from_der(der).ok()) {
            if self.all.insert(link.fingerprint) {
                self.by_subject.entry(link.subject.clone()).or_default().push(Arc::new(link));
            }
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }
}

/// What Go says of certificates that are not valid now.
pub const NOT_NOW: &str = "expired or is not yet valid";

/// How what is unknown begins when the clock cannot be right.
pub const CLOCK: &str = "the clock says";

/// Whether a server is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Belief {
    /// It is.
    Yes,
    /// It is not, in Go's words.
    No(String),
    /// Our library cannot tell; the runtime may.
    Unknown(String),
}

/// Whether who shows `shown` (DER, its own certificate first) is believed to be `name` (a DNS name, or an address without
/// brackets) at `now`.
#[must_use]
pub fn believe(pool: &Pool, shown: &[&[u8]], name: &str, now: Time) -> Belief {
    let mut links = Vec::new();
    for der in shown {
        match Link::from_der(der) {
            Ok(link) => links.push(Arc::new(link)),
            Err(why) => return Belief::Unknown(format!("a certificate that the server shows cannot be read: {why}")),
        }
    }
    let Some(leaf) = links.first() else { return Belief::No("tls: the server shows no certificate".into()) };
    let others = &links[1..];
    let mut search = Search { pool, shown: others, now, checks: 0, unknown: None, why: None };
    if let Err(why) = search.valid(leaf, Place::Leaf, &[]) {
        return Belief::No(why);
    }
    if let Err(why) = matches_name(leaf, name) {
        return Belief::No(why);
    }
    let found = if pool.all.contains(&leaf.fingerprint) { leaf.server != Some(false) } else { search.climb(&[Arc::clone(leaf)]) };
    match (found, search.unknown, search.why) {
        (true, ..) if !now.is_plausible() => {
            Belief::Unknown(format!("{CLOCK} {now}, which is before this nodeprep was made, so what is valid now is not known"))
        }
        (true, ..) => Belief::Yes,
        (_, Some(unknown), _) => Belief::Unknown(unknown),
        (_, _, Some(why)) => Belief::No(why),
        _ if leaf.server == Some(false) => Belief::No("x509: certificate specifies an incompatible key usage".into()),
        _ => Belief::No(format!("x509: certificate signed by unknown authority ({})", missing(pool, leaf, others))),
    }
}

/// Where the way from the server's certificate to a trusted one ends: what Go does not say, and has to be known to mend it.
fn missing(pool: &Pool, leaf: &Arc<Link>, shown: &[Arc<Link>]) -> String {
    let (mut last, mut seen) = (leaf, BTreeSet::from([leaf.fingerprint]));
    while let Some(next) = shown.iter().find(|link| link.subject == last.issuer && !seen.contains(&link.fingerprint)) {
        seen.insert(next.fingerprint);
        last = next;
    }
    let known = if pool.by_subject.contains_key(&last.issuer) { "; one of that name is trusted, but it did not sign this" } else { "" };
    match (last.issuer == last.subject, last.fingerprint == leaf.fingerprint) {
        (true, true) => format!("{} signs itself and is not trusted{known}", last.title),
        (true, false) => format!("the chain ends with {}, which is not trusted{known}", last.title),
        (false, _) if known.is_empty() => {
            format!("{} is signed by {}, which is neither trusted nor sent by the server", last.title, last.signer)
        }
        (false, _) => format!("{} is signed by {}{known}", last.title, last.signer),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Leaf,
    Intermediate,
    Root,
}

/// The search for a way from the server's certificate to a trusted one.
struct Search<'a> {
    pool: &'a Pool,
    shown: &'a [Arc<Link>],
    now: Time,
    checks: usize,
    /// What our library did not know.
    unknown: Option<String>,
    /// Why the last candidate was not taken.
    why: Option<String>,
}

impl Search<'_> {
    fn climb(&mut self, chain: &[Arc<Link>]) -> bool {
        let Some(last) = chain.last() else { return false };
        let roots = self.pool.by_subject.get(&last.issuer).into_iter().flatten().map(|link| (Place::Root, Arc::clone(link)));
        let shown = self.shown.iter().filter(|link| link.subject == last.issuer).map(|link| (Place::Intermediate, Arc::clone(link)));
        for (place, candidate) in roots.chain(shown).collect::<Vec<_>>() {
            let again = |known: &Arc<Link>| known.subject == candidate.subject && known.key == candidate.key && known.dns == candidate.dns;
            if chain.iter().any(again) || !self.signed(last, &candidate) {
                continue;
            }
            if let Err(why) = self.valid(&candidate, place, chain) {
                self.why = Some(why);
                continue;
            }
            let mut longer = chain.to_vec();
            longer.push(candidate);
            if place == Place::Intermediate {
                if self.climb(&longer) {
                    return true;
                }
            } else if longer.iter().all(|link| link.server != Some(false)) {
                return true;
            } else {
                self.why = Some("x509: certificate specifies an incompatible key usage".into());
            }
        }
        false
    }

    /// `Certificate.isValid`.
    fn valid(&self, link: &Link, place: Place, below: &[Arc<Link>]) -> Result<(), String> {
        if link.unhandled.is_some() {
            return Err("x509: unhandled critical extension".into());
        }
        let expired = |word: &str, end: Time| {
            format!("x509: certificate has expired or is not yet valid: current time {} is {word} {end} ({})", self.now, link.title)
        };
        let judged = self.now.is_plausible();
        if judged && self.now < link.not_before {
            return Err(expired("before", link.not_before));
        }
        if judged && self.now > link.not_after {
            return Err(expired("after", link.not_after));
        }
        if place == Place::Leaf {
            return Ok(());
        }
        if let (Some(constraints), Some(leaf)) = (&link.constraints, below.first()) {
            within(constraints, leaf)?;
        }
        if place == Place::Intermediate && link.ca.is_none_or(|(flag, _)| !flag) {
            return Err(format!("x509: certificate is not authorized to sign other certificates ({})", link.title));
        }
        // of those below, the server's own does not count
        if link.ca.and_then(|(_, most)| most).is_some_and(|most| below.len().saturating_sub(1) > most as usize) {
            return Err(format!("x509: too many intermediates for path length constraint ({})", link.title));
        }
        Ok(())
    }

    /// `Certificate.CheckSignatureFrom`.
    fn signed(&mut self, child: &Link, parent: &Link) -> bool {
        let no_ca = match parent.ca {
            Some((flag, _)) => !flag,
            None => parent.version == 3,
        };
        if no_ca || parent.cert_sign == Some(false) || self.checks >= MOST_CHECKS {
            return false;
        }
        self.checks += 1;
        match signature(parent, &child.signature_algorithm, &child.signed, &child.signature) {
            Checked::Right => true,
            Checked::Wrong => false,
            Checked::Unknown(what) => {
                self.unknown = Some(format!("our TLS library does not check {what} ({})", parent.title));
                false
            }
        }
    }
}

/// How a signature was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checked {
    /// It is by that key.
    Right,
    /// It is not.
    Wrong,
    /// Our library does not know.
    Unknown(String),
}

/// Whether `signature` over `message` is by the key of `by`. `algorithm`: content of the algorithm identifier, in DER.
#[must_use]
pub fn signature(by: &Link, algorithm: &[u8], message: &[u8], signature: &[u8]) -> Checked {
    if let Some(unknown) = odd_key(by) {
        return unknown;
    }
    let known = rustls::crypto::ring::default_provider().signature_verification_algorithms.all;
    let fits =
        known.iter().find(|known| known.signature_alg_id().as_ref() == algorithm && known.public_key_alg_id().as_ref() == by.key_algorithm);
    match fits.map(|known| known.verify_signature(&by.key, message, signature)) {
        Some(Ok(())) => Checked::Right,
        Some(Err(_)) => Checked::Wrong,
        None => Checked::Unknown("signatures of this algorithm".into()),
    }
}

/// A key of a length with which our library checks nothing.
#[must_use]
pub fn odd_key(by: &Link) -> Option<Checked> {
    let bits = by.rsa_bits.filter(|bits| !RSA_BITS.contains(bits))?;
    Some(Checked::Unknown(format!("signatures by RSA keys of {bits} bits")))
}

/// `Certificate.VerifyHostname`.
fn matches_name(link: &Link, name: &str) -> Result<(), String> {
    if let Ok(address) = name.parse::<IpAddr>() {
        if link.addresses.contains(&address) {
            return Ok(());
        }
        return Err(match link.addresses.as_slice() {
            [] => format!("x509: cannot validate certificate for {name} because it doesn't contain any IP SANs"),
            known => format!("x509: certificate is valid for {}, not {name}", listed(known)),
        });
    }
    let name = name.to_ascii_lowercase();
    if link.dns.iter().any(|pattern| is_for(pattern, &name)) {
        return Ok(());
    }
    if !link.has_alternative && link.common_name.as_deref().is_some_and(|common| is_for(common, &name)) {
        return Err("x509: certificate relies on legacy Common Name field, use SANs instead".into());
    }
    Err(match link.dns.as_slice() {
        [] => format!("x509: certificate is not valid for any names, but wanted to match {name}"),
        known => format!("x509: certificate is valid for {}, not {name}", listed(known)),
    })
}

fn listed<T: ToString>(names: &[T]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `matchHostnames`: a lone `*` stands for one whole label, the first.
fn is_for(pattern: &str, name: &str) -> bool {
    let pattern = pattern.trim_end_matches('.').to_ascii_lowercase();
    let (patterns, labels): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), name.trim_end_matches('.').split('.').collect());
    let fits = |(place, (pattern, label)): (usize, (&&str, &&str))| place == 0 && *pattern == "*" || pattern == label;
    !pattern.is_empty() && !name.is_empty() && patterns.len() == labels.len() && patterns.iter().zip(&labels).enumerate().all(fits)
}

/// `checkNameConstraints`, for the kinds of names that servers have.
fn within(constraints: &Constraints, leaf: &Link) -> Result<(), String> {
    let refused = |name: &str, how: &str| {
        Err(format!("x509: a root or intermediate certificate is not authorized to sign for this name: \"{name}\" is {how}"))
    };
    for name in &leaf.dns {
        if constraints.no_dns.iter().any(|domain| is_below(domain, name)) {
            return refused(name, "excluded by its name constraints");
        }
        if !constraints.dns.is_empty() && !constraints.dns.iter().any(|domain| is_below(domain, name)) {
            return refused(name, "not permitted by its name constraints");
        }
    }
    for address in &leaf.addresses {
        if constraints.no_networks.iter().any(|network| is_inside(network, *address)) {
            return refused(&address.to_string(), "excluded by its name constraints");
        }
        if !constraints.networks.is_empty() && !constraints.networks.iter().any(|network| is_inside(network, *address)) {
            return refused(&address.to_string(), "not permitted by its name constraints");
        }
    }
    Ok(())
}

/// `matchDomainConstraint`: below a domain, or the domain itself unless the constraint begins with a dot.
fn is_below(domain: &str, name: &str) -> bool {
    let (domain, name) = (domain.to_ascii_lowercase(), name.to_ascii_lowercase());
    match domain.strip_prefix('.') {
        _ if domain.is_empty() => true,
        Some(_) => name.ends_with(&domain),
        None => name == domain || name.strip_suffix(&domain).is_some_and(|front| front.ends_with('.')),
    }
}

/// Address and mask, one behind the other.
fn is_inside(network: &[u8], address: IpAddr) -> bool {
    let bytes = match address {
        IpAddr::V4(four) => four.octets().to_vec(),
        IpAddr::V6(six) => six.octets().to_vec(),
    };
    let (base, mask) = network.split_at(network.len() / 2);
    base.len() == bytes.len() && base.iter().zip(mask).zip(&bytes).all(|((base, mask), byte)| base & mask == byte & mask)
}

#[cfg(test)]
mod tests;
