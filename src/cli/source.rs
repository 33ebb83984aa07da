//! Where a spec comes from: a file, a folder, standard input or a URL, with a signature or without; and the one that was applied last.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::SpecArgs;
use super::session::{Stopped, sound};
use crate::flow::STATE;
use crate::kept::{Fetched, LastGood, Materials};
use crate::model::path::NodePath;
use crate::model::problem::{Problem, Severity};
use crate::model::url::{self, Url};
use crate::node::material::{MaterialError, documents, materials, seal};
use crate::node::net::fetch::{FetchError, Got, Way};
use crate::node::root::Root;
use crate::node::source::{Named, keys, way};
use crate::node::{kept, probe};
use crate::report::Report;
use crate::report::exit::Outcome;
use crate::spec::Spec;
use crate::spec::documents::Document;
use crate::spec::load::{Closed, Draft, LARGEST};
use crate::spec::reference::{Location, Reference};
use crate::spec::signature::{self, Keys, Seal};

/// As much as referenced files may have together that are fetched.
const MOST_FETCHED: usize = 16 << 20;

/// How a spec is fetched, and whose it has to be.
#[derive(Debug, Args)]
#[allow(clippy::struct_field_names, reason = "they are the names of the flags, which stand beside those of others")]
pub(super) struct SourceArgs {
    /// Believe the server of a spec from a URL only if one of these CAs (PEM) has issued its certificate [default: what the system
    /// trusts on which this runs].
    #[arg(long, env = "NODEPREP_SPEC_CA", value_name = "FILE")]
    spec_ca: Option<PathBuf>,
    /// Client certificate (PEM) for the server of a spec from a URL.
    #[arg(long, env = "NODEPREP_SPEC_CLIENT_CERT", value_name = "FILE", requires = "spec_client_key")]
    spec_client_cert: Option<PathBuf>,
    /// Its key (PEM).
    #[arg(long, env = "NODEPREP_SPEC_CLIENT_KEY", value_name = "FILE", requires = "spec_client_cert")]
    spec_client_key: Option<PathBuf>,
    /// File with a bearer token for the server of a spec from a URL.
    #[arg(long, env = "NODEPREP_SPEC_TOKEN_FILE", value_name = "FILE")]
    spec_token_file: Option<PathBuf>,
    /// How long fetching may take, all of it.
    #[arg(long, env = "NODEPREP_SPEC_TIMEOUT", value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    spec_timeout: u64,
    /// Take only a spec that is signed with this minisign key, given itself or as a file (may be repeated: one has to fit). The
    /// signature is SPEC.minisig; that of a folder is SHA256SUMS.minisig in it.
    #[arg(long, env = "NODEPREP_SPEC_PUBLIC_KEY", value_name = "KEY|FILE", value_delimiter = ',')]
    spec_public_key: Vec<String>,
}

/// A spec as it was found, and what is to be kept of it.
pub(super) struct Opened {
    pub closed: Closed,
    good: LastGood,
    fetched: Fetched,
}

/// Reads the spec; of what was fetched before, `known`, only what has changed since is asked for.
pub(super) fn open(args: &SpecArgs, node: Option<&Root>, known: &Fetched) -> Result<Opened, Stopped> {
    let keys = keys(&args.source.spec_public_key).map_err(usage)?;
    match args.spec.to_str().filter(|text| url::is_meant(text)) {
        None => in_place(args, node, &keys),
        Some(text) => {
            let url = Url::parse(text).map_err(|why| usage(Problem::error("source", format!("the URL of the spec {why}"), why.help())))?;
            from_url(args, &url, node, &keys, known)
        }
    }
}

fn usage(problem: Problem) -> Stopped {
    Stopped { problems: vec![problem], outcome: Outcome::Usage }
}

fn invalid(problems: Vec<Problem>) -> Stopped {
    Stopped { problems, outcome: Outcome::InvalidSpec }
}

fn in_place(args: &SpecArgs, node: Option<&Root>, keys: &Keys) -> Result<Opened, Stopped> {
    let unreadable = |error: MaterialError| Problem::error("spec-unreadable", error.to_string(), error.help());
    let found = documents(&args.spec).map_err(|errors| invalid(errors.into_iter().map(unreadable).collect()))?;
    let unsigned = |error: MaterialError| invalid(vec![Problem::error("bad-signature", error.to_string(), error.help())]);
    let sealed = if keys.is_empty() { None } else { Some(seal(&args.spec).map_err(unsigned)?) };
    let folder = args.material.as_deref().or(found.folder.as_deref());
    let read = |references: &[Reference]| Ok(materials(folder, node, references));
    let (closed, good) = close(&found.name, &found.documents, sealed.as_ref(), keys, read)?;
    Ok(Opened { closed, good, fetched: Fetched::new() })
}

/// Checks the signature, reads the documents, closes them over what `read` gives for their references.
fn close(
    name: &str,
    documents: &[Document],
    sealed: Option<&Seal>,
    keys: &Keys,
    read: impl FnOnce(&[Reference]) -> Result<Materials, Stopped>,
) -> Result<(Closed, LastGood), Stopped> {
    let size: usize = documents.iter().map(|document| document.bytes.len()).sum();
    // what is too large was not read to its end
    if !keys.is_empty() && size <= LARGEST {
        let missing = || Problem::error("bad-signature", format!("the spec {name} has no signature"), "apply one that is signed");
        let sealed = sealed.ok_or_else(|| invalid(vec![missing()]))?;
        keys.check(name, documents, sealed).map_err(|problem| invalid(vec![problem]))?;
        tracing::debug!(spec = name, "signature: fits");
    }
    let mut draft = Draft::open_all(name, documents).map_err(invalid)?;
    if !keys.is_empty() {
        draft.demand_signed();
    }
    let materials = read(draft.references())?;
    let good = LastGood::of(name, documents, sealed, draft.references(), &materials);
    Ok((draft.close(&materials, Some(probe::now())), good))
}

/// What fetches, what it knows, and what it has fetched.
struct Fetcher<'a> {
    way: Way,
    url: &'a Url,
    known: &'a Fetched,
    fetched: Fetched,
    left: usize,
}

fn from_url(args: &SpecArgs, url: &Url, node: Option<&Root>, keys: &Keys, known: &Fetched) -> Result<Opened, Stopped> {
    let source = &args.source;
    let named = Named {
        ca: source.spec_ca.as_deref(),
        client: source.spec_client_cert.as_deref().zip(source.spec_client_key.as_deref()),
        token: source.spec_token_file.as_deref(),
        patience: Duration::from_secs(source.spec_timeout),
    };
    let (way, told) = way(named).map_err(usage)?;
    let mut fetcher = Fetcher { way, url, known, fetched: Fetched::new(), left: MOST_FETCHED };
    let name = url.to_string();
    let documents = [Document { file: name.clone(), bytes: fetcher.get(url, LARGEST).map_err(|error| away(&error))? }];
    let sealed = if keys.is_empty() {
        None
    } else {
        let signature = fetcher.get(&url.signature(), signature::LARGEST).map_err(|error| away(&error))?;
        Some(Seal { signature, list: None })
    };
    let (mut closed, good) = close(&name, &documents, sealed.as_ref(), keys, |references| {
        let mut found = materials(args.material.as_deref(), node, references);
        for reference in references {
            if let Some(content) = fetcher.referenced(reference, args.material.is_some(), &found)? {
                found.insert(reference.written.clone(), content);
            }
        }
        Ok(found)
    })?;
    closed.problems.extend(told);
    Ok(Opened { closed, good, fetched: fetcher.fetched })
}

fn away(error: &FetchError) -> Stopped {
    Stopped { problems: vec![Problem::error("spec-unavailable", format!("the spec {error}"), error.help())], outcome: Outcome::Unavailable }
}

impl Fetcher<'_> {
    fn get(&mut self, url: &Url, most: usize) -> Result<Vec<u8>, FetchError> {
        let name = format!("{}{}", url.host(), url.target());
        let known = self.known.tagged(&name);
        let (bytes, etag) = match (self.way.get(url, known.as_ref().map(|(etag, _)| *etag), most)?, known) {
            (Got::New { bytes, etag }, _) => (bytes, etag),
            (Got::Same, Some((etag, bytes))) => {
                tracing::debug!(%url, "fetch: not modified");
                (bytes, Some(etag.to_owned()))
            }
            (Got::Same, None) => (Vec::new(), None),
        };
        self.fetched.keep(&name, &bytes, etag.as_deref());
        Ok(bytes)
    }

    /// What a reference of the document holds, where that is to be fetched, or why it is not. `material` is looked into first.
    fn referenced(&mut self, reference: &Reference, material: bool, found: &Materials) -> Result<Option<Result<Vec<u8>, String>>, Stopped> {
        let url = match &reference.location {
            Location::Node(_) => return Ok(None),
            Location::Beside(_) if matches!(found.get(&reference.written), Some(Ok(_))) => return Ok(None),
            Location::Beside(_) if material && !(reference.holds.is_public() && reference.pin.is_some()) => return Ok(None),
            Location::Beside(_) if !reference.holds.is_public() => {
                return Ok(Some(Err("keys and logins are never fetched: name the folder that holds it with --material".to_owned())));
            }
            Location::Beside(_) if reference.pin.is_none() => {
                return Ok(Some(Err(format!("what is fetched is pinned, and there is no `{}`", reference.holds.pinned_by()))));
            }
            Location::Beside(name) => self.url.beside(name),
            Location::Url(url) if !url.same_origin(self.url) => {
                return Ok(Some(Err(format!("it is at another server than the document, which is at https://{}", self.url.host()))));
            }
            Location::Url(url) => url.clone(),
        };
        let Some(pin) = reference.pin else { return Ok(None) };
        let name = format!("{}{}", url.host(), url.target());
        if let Some(bytes) = self.known.pinned(&name, pin) {
            self.fetched.keep(&name, &bytes, None);
            return Ok(Some(Ok(bytes)));
        }
        let bytes = self.get(&url, LARGEST.min(self.left)).map_err(|error| {
            let mut stopped = away(&error);
            stopped.problems.iter_mut().for_each(|problem| problem.at = Some(reference.at.clone()));
            stopped
        })?;
        self.left -= bytes.len();
        Ok(Some(Ok(bytes)))
    }
}

/// What `apply` has fetched before, as far as this user may read it; it is replaced as a whole, and needs no lock to be read.
pub(super) fn known(root: &Root) -> Fetched {
    kept::read(root, &NodePath::fixed(STATE), kept::FETCHED).map_or_else(Fetched::new, |bytes| Fetched::from_json(&bytes))
}

/// A sound spec, what is to be told of it, and what is to be kept.
pub(super) struct Given {
    pub spec: Spec,
    pub problems: Vec<Problem>,
    pub origin: Origin,
}

/// Where the spec of a run is from.
pub(super) struct Origin {
    good: LastGood,
    fetched: Fetched,
    /// The spec is the one applied last, because the one that was named is this.
    instead_of: Option<Stopped>,
}

impl Given {
    /// The spec that is named.
    pub(super) fn named(args: &SpecArgs, root: &Root) -> Result<Self, Stopped> {
        let Opened { closed, good, fetched } = open(args, Some(root), &known(root))?;
        let (spec, problems) = sound(closed)?;
        Ok(Self { spec, problems, origin: Origin { good, fetched, instead_of: None } })
    }

    /// The spec that was applied last, in the place of one that stopped the run.
    pub(super) fn last_good(args: &SpecArgs, root: &Root, mut stopped: Stopped) -> Result<Self, Stopped> {
        let found = kept::read(root, &NodePath::fixed(STATE), kept::LAST_GOOD);
        let closed = match found.map(|bytes| LastGood::from_json(&bytes)) {
            None => Err("there is none: nothing of a spec was applied here, or all of it was reverted".to_owned()),
            Some(Err(why)) => Err(format!("{STATE}/{} {why}", kept::LAST_GOOD)),
            Some(Ok(good)) => closed_again(args, root, &good).and_then(|(closed, good)| Ok((sound(closed)?, good))).map_err(said),
        };
        match closed {
            Ok(((spec, problems), good)) => {
                Ok(Self { spec, problems, origin: Origin { good, fetched: Fetched::new(), instead_of: Some(stopped) } })
            }
            Err(why) => {
                let what = format!("the last known good spec cannot be used either: {why}");
                stopped.problems.push(Problem::warning("no-last-good", what, "mend the spec that --spec names"));
                Err(stopped)
            }
        }
    }

    /// The same where the ledger stands against this one; what was applied last is not replaced once more.
    pub(super) fn or_last_good(self, args: &SpecArgs, root: &Root, stopped: Stopped) -> Result<Self, Stopped> {
        if self.origin.instead_of.is_some() { Err(stopped) } else { Self::last_good(args, root, stopped) }
    }
}

impl Origin {
    /// Says in the report what the spec was applied instead of. Where all went well, that is how the run has ended.
    pub(super) fn tell(&mut self, report: &mut Report) {
        let Some(Stopped { problems, outcome }) = self.instead_of.take() else { return };
        report.problems.extend(problems);
        let what = "the node was held to the spec that was applied last, and is not as the one named by --spec says";
        report.problems.push(Problem::warning("last-good", what, "mend what keeps the spec from being used"));
        if matches!(report.outcome, Outcome::Converged | Outcome::Due) {
            report.outcome = outcome;
            report.exit_code = outcome.code();
        }
    }

    /// Keeps what was applied for when it cannot be had any more; `owns` when anything on the node is by it. Call it under the
    /// lock.
    pub(super) fn keep(&self, root: &Root, owns: bool, report: &mut Report) {
        if self.instead_of.is_some() {
            return;
        }
        let state = NodePath::fixed(STATE);
        let fetched = (!self.fetched.is_empty()).then(|| self.fetched.to_json());
        let mut done = kept::replace(root, &state, kept::FETCHED, fetched.as_deref());
        if matches!(report.outcome, Outcome::Converged | Outcome::Due) {
            let good = owns.then(|| self.good.to_json());
            done = done.and(kept::replace(root, &state, kept::LAST_GOOD, good.as_deref()));
        }
        if let Err(error) = done {
            let problem = super::session::problem(&error);
            let what = format!("what was applied could not be kept for later: {}", problem.what);
            report.problems.push(Problem { severity: Severity::Warning, ..Problem::error("not-kept", what, problem.help) });
        }
    }
}

/// The spec that was applied last, as it is; nothing where there is none, or why there is none that could be used.
pub(super) fn applied(args: &SpecArgs, root: &Root) -> (Option<Spec>, Option<Problem>) {
    let Some(bytes) = kept::read(root, &NodePath::fixed(STATE), kept::LAST_GOOD) else { return (None, None) };
    let good = LastGood::from_json(&bytes).map_err(|why| format!("{STATE}/{} {why}", kept::LAST_GOOD));
    let closed = good.and_then(|good| closed_again(args, root, &good).and_then(|(closed, _)| sound(closed)).map_err(said));
    match closed {
        Ok((spec, _)) => (Some(spec), None),
        Err(why) => {
            let what = format!("the spec that was applied last cannot be used: {why}");
            (None, Some(Problem::warning("no-last-good", what, "apply the spec again")))
        }
    }
}

fn said(stopped: Stopped) -> String {
    stopped.problems.into_iter().map(|problem| problem.what).collect::<Vec<_>>().join("; ")
}

/// The spec that was applied last, with its keys and logins from where they are.
fn closed_again(args: &SpecArgs, root: &Root, good: &LastGood) -> Result<(Closed, LastGood), Stopped> {
    let keys = keys(&args.source.spec_public_key).map_err(usage)?;
    let beside = beside(&args.spec);
    let folder = args.material.as_deref().or(beside.as_deref());
    close(&good.name, &good.documents(), good.seal().as_ref(), &keys, |references| {
        Ok(good.materials(references, materials(folder, Some(root), references)))
    })
}

/// Where a spec in a file or folder has its files.
fn beside(spec: &Path) -> Option<PathBuf> {
    let text = spec.to_str().unwrap_or_default();
    if text == "-" || url::is_meant(text) {
        return None;
    }
    Some(crate::node::material::folder(spec))
}

/// Forgets what was kept: nothing is applied any more.
pub(super) fn forget(root: &Root, report: &mut Report) {
    let state = NodePath::fixed(STATE);
    for name in [kept::LAST_GOOD, kept::FETCHED] {
        if let Err(error) = kept::replace(root, &state, name, None) {
            report.problems.push(Problem { severity: Severity::Warning, ..super::session::problem(&error) });
        }
    }
}
