//! What a case says. A case is a folder of `fixtures/real`:
//!
//! - `spec.toml`: the spec, as a user writes it. Beside it the test puts `ca.pem` (the CA of the registries), `node.crt` and `node.key` (a client certificate).
//! - `case.toml`: the images to pull and the registries of this little world.
//! - `node/`: files that the node has besides those of `fixtures/real/node`, if any.
//! - anything else (pull secrets) lies beside the spec.
//!
//! ```toml
//! images = ["docker.io/library/hello:1"]      # pulled in this order by each runtime; {digest} is the image's digest
//! runtimes = ["containerd"]                   # what is on the node; default: all
//! containerd = ">=2.0"                        # only these versions of containerd; also "<2.0"
//! without = ["etc/containerd/config.toml"]    # what a stock node has and this one has not
//! probe = "require"                           # as for apply; default off. A containerd that would lose a login is refused then
//! foreign = "carry"                           # as for apply: what is done with files of others that are in the way
//!
//! [[registry]]
//! listen = "127.0.0.2:5443"
//! holds  = ["docker.io/library/hello"]        # repositories where the image is found as :1; none: answers 404 always
//! name   = "mirror.example"                   # goes into /etc/hosts and the certificate
//! scheme = "http"                             # default https
//! htpasswd = "user:$2y$…"                     # demands basic authentication
//! client = true                               # demands a client certificate
//! ca = "unknown"                              # its certificate comes from a CA that is not the spec's; reached if the spec says `insecure`
//! ca = "self"                                 # its certificate is its own CA, without the CA flag; it lies beside the spec as self-1.pem (-2 …)
//! ca = "self-flagged"                         # the same with the CA flag
//! ca = "expired"                              # its certificate comes from the spec's CA, long ago
//! ca = "common-name"                          # its certificate comes from the spec's CA and has its name where nobody looks any more
//! dead = true                                 # nothing listens there
//! answer = "500"                              # a program of our own that answers so: any status, or
//!                                             #   "html"      a page, with 200
//!                                             #   "no blobs"  the manifest, but none of its blobs
//!                                             #   "no digest" that the manifest is there, but not its digest; then 500
//!                                             #   "token"     the image, for a token that it issues itself
//!                                             #   "header"    the image, to whoever sends X-Team: a; 403 to others
//! login = "user:password"                     # with "token": what the token costs; default nothing
//!
//! [says."docker.io/library/hello:1"]          # what each program says when it cannot pull this image, once the registries hold what they hold:
//! containerd = "x509: certificate …"          #   the words under which docs/troubleshooting.md is searched; skopeo, podman, and
//! verify = "x509: certificate …"              #   `nodeprep verify --manifest`, which has to name the cause
//! ```
//!
//! Registries may listen on `[::1]` too.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use toml_edit::{DocumentMut, Item, Table};

#[derive(Default)]
pub struct Case {
    pub folder: PathBuf,
    pub images: Vec<String>,
    pub registries: Vec<Demand>,
    /// What is on the node.
    pub containerd: bool,
    pub podman: bool,
    /// The versions of containerd that are concerned; empty: all.
    pub versions: String,
    /// Files of the stock node that are not there.
    pub without: Vec<String>,
    /// What `apply` is told of probing.
    pub probe: String,
    /// What it is told of files of others that are in the way.
    pub foreign: String,
    /// Image, program and the words with which it says that it cannot pull.
    pub says: Vec<(String, String, String)>,
    /// The spec says so for the whole document: then nothing may ever arrive at an upstream, whatever `explain` says.
    pub closed: bool,
}

/// A registry of the case and what it demands.
#[derive(Clone, Default)]
pub struct Demand {
    pub listen: String,
    pub name: Option<String>,
    pub plain: bool,
    pub holds: Vec<String>,
    pub htpasswd: Option<String>,
    pub client: bool,
    pub ca: Ca,
    pub answer: Option<Answer>,
    pub login: Option<String>,
    /// The spec wants no verification here.
    pub insecure: bool,
    /// The spec has a client certificate for it.
    pub shown: bool,
    /// The spec wants its login in containerd's config.toml.
    pub by_config: bool,
    pub dead: bool,
}

/// Where a registry's certificate comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ca {
    #[default]
    Known,
    Unknown,
    Expired,
    CommonName,
    /// It is its own CA, with the CA flag or without.
    Itself {
        flag: bool,
    },
}

/// What our own program answers when it is asked for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Status(u16),
    Html,
    NoBlobs,
    NoDigest,
    Token,
    Header,
}

impl Demand {
    pub fn scheme(&self) -> &'static str {
        if self.plain { "http" } else { "https" }
    }

    pub fn address(&self) -> &str {
        let address = self.listen.rsplit_once(':').map_or(self.listen.as_str(), |(address, _)| address);
        address.trim_start_matches('[').trim_end_matches(']')
    }

    /// Nothing reaches the log of a registry that is not there or that is not believed.
    pub fn reachable(&self) -> bool {
        let believed = !matches!(self.ca, Ca::Unknown | Ca::Expired | Ca::CommonName);
        !self.dead && (believed || self.insecure) && (!self.client || self.shown)
    }

    /// Does `authority` (the host and port of a URL) lead here?
    pub fn is(&self, authority: &str) -> bool {
        let port = self.listen.rsplit_once(':').map_or("443", |(_, port)| port);
        let named = |name: &String| authority == format!("{name}:{port}") || (port == "443" && authority == name);
        authority == self.listen || self.name.as_ref().is_some_and(named)
    }
}

pub fn load(folder: &Path) -> Result<Case> {
    let document = read(&folder.join("case.toml"))?;
    let spec = read(&folder.join("spec.toml"))?;
    let mut registries = match document.get("registry") {
        Some(Item::ArrayOfTables(tables)) => {
            tables.iter().map(demand).collect::<Result<Vec<_>>>().with_context(|| folder.display().to_string())?
        }
        _ => bail!("{}: no [[registry]]", folder.display()),
    };
    for access in spec.get("registry").and_then(Item::as_array_of_tables).into_iter().flatten() {
        let (host, insecure) = (access.get("host").and_then(Item::as_str), access.get("insecure").and_then(Item::as_bool));
        for registry in registries.iter_mut().filter(|registry| host.is_some_and(|host| registry.is(host))) {
            registry.insecure = insecure.unwrap_or_default();
            registry.shown = access.contains_key("client_cert");
            registry.by_config = access.get("credentials_by").and_then(Item::as_str) == Some("config");
        }
    }
    let images = strings(&document, "images")?;
    ensure!(!images.is_empty(), "{}: no images", folder.display());
    let closed = spec.get("fallback").and_then(Item::as_str) == Some("never")
        && spec
            .get("mirror")
            .and_then(Item::as_array_of_tables)
            .is_some_and(|mirrors| mirrors.iter().all(|mirror| !mirror.contains_key("fallback")));
    let runtimes = if document.contains_key("runtimes") { Some(strings(&document, "runtimes")?) } else { None };
    let there = |name: &str| runtimes.as_ref().is_none_or(|runtimes| runtimes.iter().any(|runtime| runtime == name));
    let told = |key: &str, usual: &str| document.get(key).map_or_else(|| Ok(usual.to_owned()), text);
    let versions = told("containerd", "")?;
    let without = if document.contains_key("without") { strings(&document, "without")? } else { Vec::new() };
    let (probe, foreign) = (told("probe", "off")?, told("foreign", "refuse")?);
    Ok(Case {
        folder: folder.to_owned(),
        images,
        registries,
        containerd: there("containerd"),
        podman: there("podman"),
        versions,
        without,
        probe,
        foreign,
        says: says(&document)?,
        closed,
    })
}

fn says(document: &DocumentMut) -> Result<Vec<(String, String, String)>> {
    let mut says = Vec::new();
    let images = document.get("says").and_then(Item::as_table);
    for (image, words) in images.into_iter().flat_map(Table::iter) {
        for (program, words) in words.as_table().with_context(|| format!("says.{image} is no table"))? {
            ensure!(["containerd", "skopeo", "podman", "verify"].contains(&program), "says.{image}: {program} pulls nothing");
            says.push((image.to_owned(), program.to_owned(), text(words)?));
        }
    }
    Ok(says)
}

fn read(path: &Path) -> Result<DocumentMut> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    text.parse().with_context(|| path.display().to_string())
}

fn demand(table: &Table) -> Result<Demand> {
    let mut demand = Demand::default();
    for (key, value) in table {
        match key {
            "listen" => demand.listen = text(value)?,
            "name" => demand.name = Some(text(value)?),
            "holds" => demand.holds = strings(table, "holds")?,
            "htpasswd" => demand.htpasswd = Some(text(value)?),
            "client" => demand.client = value.as_bool().context("client is not a boolean")?,
            "dead" => demand.dead = value.as_bool().context("dead is not a boolean")?,
            "scheme" => demand.plain = text(value)? == "http",
            "ca" => demand.ca = ca(&text(value)?)?,
            "answer" => demand.answer = Some(answer(&text(value)?)?),
            "login" => demand.login = Some(text(value)?),
            other => bail!("unknown key {other} in [[registry]]"),
        }
    }
    ensure!(demand.listen.contains(':'), "[[registry]] without listen = \"address:port\"");
    Ok(demand)
}

fn ca(text: &str) -> Result<Ca> {
    Ok(match text {
        "unknown" => Ca::Unknown,
        "expired" => Ca::Expired,
        "common-name" => Ca::CommonName,
        "self" => Ca::Itself { flag: false },
        "self-flagged" => Ca::Itself { flag: true },
        other => bail!("ca = {other:?}"),
    })
}

fn answer(text: &str) -> Result<Answer> {
    Ok(match text {
        "html" => Answer::Html,
        "no blobs" => Answer::NoBlobs,
        "no digest" => Answer::NoDigest,
        "token" => Answer::Token,
        "header" => Answer::Header,
        status => Answer::Status(status.parse().with_context(|| format!("answer = {status:?}"))?),
    })
}

fn text(item: &Item) -> Result<String> {
    Ok(item.as_str().with_context(|| format!("not a string: {item}"))?.to_owned())
}

fn strings(table: &Table, key: &str) -> Result<Vec<String>> {
    let array = table.get(key).and_then(Item::as_array).with_context(|| format!("{key} is not a list"))?;
    array.iter().map(|value| Ok(value.as_str().with_context(|| format!("{key}: not a string"))?.to_owned())).collect()
}
