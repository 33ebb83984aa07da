//! What the command line names for fetching a spec and checking its signature: certificates, a token, keys, the environment.

use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::net::fetch::Way;
use super::read;
use super::root::Root;
use crate::flow::large_files;
use crate::model::cert::{self, KeyMatch, key_matches};
use crate::model::problem::Problem;
use crate::model::secret::Secret;
use crate::runtime::golang;
use crate::spec::signature::Keys;
use crate::verify::believe::Pool;
use crate::verify::probe::{Identity, Trusted};

/// How long a server may say nothing.
const IDLE: Duration = Duration::from_secs(10);
/// As much of such a file is read.
const MOST: u64 = 1 << 20;
/// Longer tokens are none.
const MOST_TOKEN: usize = 16 << 10;

/// What the command line names.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// `--spec-ca`.
    pub ca: Option<&'a Path>,
    /// `--spec-client-cert` and `--spec-client-key`.
    pub client: Option<(&'a Path, &'a Path)>,
    /// `--spec-token-file`.
    pub token: Option<&'a Path>,
    /// `--spec-timeout`.
    pub patience: Duration,
}

/// The way to a server, and what is to be told of it.
///
/// # Errors
/// Which file is of no use, and why.
pub fn way(named: Named<'_>) -> Result<(Way, Vec<Problem>), Problem> {
    let mut told = Vec::new();
    let trust = match named.ca {
        Some(file) => given(file)?,
        None => system(),
    };
    let client = named.client.map(|(cert, key)| identity(cert, key, &mut told)).transpose()?;
    let token = named.token.map(|file| token(file, &mut told)).transpose()?;
    let env = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect();
    let now = Instant::now();
    let deadline = now.checked_add(named.patience).unwrap_or(now);
    Ok((Way { trust, client, token, env, deadline, patience: named.patience, idle: IDLE }, told))
}

/// The keys of `--spec-public-key`: each is one, or names a file with one.
///
/// # Errors
/// Which is none.
pub fn keys(written: &[String]) -> Result<Keys, Problem> {
    let mut texts = Vec::with_capacity(written.len());
    for one in written {
        if Keys::read([one.as_str()]).is_ok() {
            texts.push(one.clone());
            continue;
        }
        let bytes = content("--spec-public-key", Path::new(one))?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if Keys::read([text.as_str()]).is_err() {
            return Err(unusable(
                "--spec-public-key",
                Path::new(one),
                "holds no minisign key",
                "name the minisign.pub that `minisign -G` has written",
            ));
        }
        texts.push(text);
    }
    Keys::read(texts.iter().map(String::as_str)).map_err(|_| Problem::error("source", "a key cannot be read", "name a minisign.pub"))
}

fn unusable(flag: &str, file: &Path, why: &str, help: &str) -> Problem {
    Problem::error("source", format!("{flag}: {} {why}", file.display()), help)
}

fn content(flag: &str, file: &Path) -> Result<Vec<u8>, Problem> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(file).and_then(|opened| opened.take(MOST).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(bytes),
        Err(error) => Err(unusable(flag, file, &format!("cannot be read: {error}"), "correct the name, or make it readable for nodeprep")),
    }
}

fn given(file: &Path) -> Result<Trusted, Problem> {
    let ders = cert::ders(&content("--spec-ca", file)?);
    if ders.is_empty() {
        return Err(unusable("--spec-ca", file, "holds no certificate", "name a PEM file with the CA of the spec's server"));
    }
    Ok(Trusted::By(Arc::new(Pool::of(ders.iter().map(Vec::as_slice)))))
}

/// The trust store of the system that this runs on, as Go programs find it.
fn system() -> Trusted {
    let env: Vec<(String, String)> =
        ["SSL_CERT_FILE", "SSL_CERT_DIR"].iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    let bundles = golang::root_files(&env).into_iter().chain(large_files()).collect();
    let limits = read::Limits { bundles, ..read::Limits::default() };
    let ders = Root::open(Path::new("/"))
        .map(|root| golang::roots(&read::read_within(&root, &limits, |_| golang::root_wishes(&env)), &env))
        .unwrap_or_default();
    Trusted::By(Arc::new(Pool::of(ders.iter().map(Vec::as_slice))))
}

fn identity(cert: &Path, key: &Path, told: &mut Vec<Problem>) -> Result<Identity, Problem> {
    let chain = cert::read_pem(&content("--spec-client-cert", cert)?)
        .map_err(|why| unusable("--spec-client-cert", cert, &format!("holds no certificate: {why}"), "name a PEM file, leaf first"))?
        .certs;
    private("--spec-client-key", key, told);
    let secret = Secret::new(content("--spec-client-key", key)?);
    match key_matches(&chain, &secret) {
        KeyMatch::Yes | KeyMatch::Unknown(_) => {}
        KeyMatch::No => {
            return Err(unusable("--spec-client-key", key, "is not the key of that certificate", "name the key that belongs to it"));
        }
        KeyMatch::Unreadable(_) => {
            return Err(unusable("--spec-client-key", key, "holds no key", "name a PEM file with an unencrypted key"));
        }
    }
    if cert::signing_key(&secret).is_none() {
        return Err(unusable("--spec-client-key", key, "holds a key of a kind that is not known", "use an ECDSA, Ed25519 or RSA key"));
    }
    Ok(Identity { chain: chain.into_iter().map(|cert| cert.der.to_vec()).collect(), key: secret })
}

fn token(file: &Path, told: &mut Vec<Problem>) -> Result<Secret, Problem> {
    private("--spec-token-file", file, told);
    let bytes = content("--spec-token-file", file)?;
    let token = bytes.trim_ascii();
    if token.is_empty() || token.len() > MOST_TOKEN || !token.iter().all(u8::is_ascii_graphic) {
        return Err(unusable("--spec-token-file", file, "holds no token", "write the token alone into it, in one line"));
    }
    Ok(Secret::new(token))
}

/// Says it where others may read a secret.
fn private(flag: &str, file: &Path, told: &mut Vec<Problem>) {
    if std::fs::metadata(file).is_ok_and(|meta| meta.mode() & 0o077 != 0) {
        let what = format!("{flag}: {} may be read by others", file.display());
        told.push(Problem::warning("readable-secret", what, format!("run `chmod 600 {}`", file.display())));
    }
}
