//! The vectors of `fixtures/vectors/containerd` against the running program: every name leads to a listener that answers 404, so the whole chain shows;
//! then the last of the chain answers, so that layers are asked for too; then nobody is to be believed, and at last nobody speaks TLS.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nodeprep::model::version::Version;
use nodeprep::runtime::containerd::Dialect;
use toml_edit::{DocumentMut, Item, Table};

use crate::case::Case;
use crate::image;
use crate::node::{self, Scratch};
use crate::programs::Programs;
use crate::pull::{self, Puller};
use crate::responder::{Answer, Ask};
use crate::world::{self, Signer, Stage, World};

const CONFIG: &str = "etc/containerd/config.toml";

/// An expected attempt, as a vector writes it: `rmb URL trust words…`.
#[derive(Clone, Debug)]
struct Attempt {
    resolve: bool,
    manifest: bool,
    blob: bool,
    url: String,
    trust: String,
    words: String,
}

impl Attempt {
    fn parse(line: &str) -> Result<Attempt> {
        let mut parts = line.split(' ');
        let operations = parts.next().unwrap_or_default();
        let url = parts.next().with_context(|| format!("no URL: {line}"))?.to_owned();
        let trust = parts.next().unwrap_or_default().to_owned();
        let words = parts.filter(|word| !word.starts_with('+') && *word != "upstream").collect::<Vec<_>>().join(" ");
        let has = |letter| operations.contains(letter);
        Ok(Attempt { resolve: has('r'), manifest: has('m'), blob: has('b'), url, trust, words })
    }

    fn scheme(&self) -> &str {
        self.url.split("://").next().unwrap_or_default()
    }

    fn base(&self) -> &str {
        self.url.rsplit_once("/manifests/").map_or(&self.url, |(base, _)| base)
    }
}

/// Who answers in the second pull: scheme and host.
#[derive(Clone, Default)]
struct Serving {
    resolve: String,
    manifest: String,
    blob: String,
    /// A login is asked for.
    challenge: bool,
}

pub fn run(folder: &Path, programs: &Programs) -> Result<()> {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(100));
        eprintln!("the vector did not end in time");
        std::process::exit(1);
    });
    let text = std::fs::read_to_string(folder.join("case.toml")).with_context(|| folder.display().to_string())?;
    let document: DocumentMut = text.parse().context("case.toml")?;
    let scratch = Scratch::of(folder, programs);
    let case = Case { folder: folder.to_owned(), containerd: true, ..Case::default() };
    scratch.furnish(&case, programs)?;
    let layout = scratch.folder.join("image");
    let digest = image::write(&layout)?;

    let said = scratch.command(20, "containerd")?.arg("--version").output().context("containerd --version")?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let version = said.split(' ').nth(2).and_then(Version::find).with_context(|| format!("which version is {said}"))?;
    let dialect = Dialect::of_version(version);

    if let Some(except) = tables(&document, "except").find(|except| {
        let below = except.get("below").and_then(Item::as_str).and_then(Version::find);
        below.map_or_else(|| fits(except, dialect), |below| version < below)
    }) {
        println!("not held against the program: {}", except.get("because").and_then(Item::as_str).context("an exception without reason")?);
        return Ok(());
    }
    let serving = Arc::new(Mutex::new(Serving::default()));
    let urls: Vec<String> =
        tables(&document, "expect").flat_map(lines).map(|line| line.split(' ').nth(1).unwrap_or_default().to_owned()).collect();
    let (who, place, tag_digest) = (serving.clone(), layout.clone(), digest.clone());
    let world = World::start(&urls, move |ask| {
        let who = who.lock().map(|who| who.clone()).unwrap_or_default();
        answer(&who, &place, &tag_digest, ask)
    })?;
    lay(folder, &scratch, &world, &document)?;

    let mut wrong = Vec::new();
    for chain in tables(&document, "chain").filter(|expect| fits(expect, dialect)) {
        wrong.extend(comes_to(&scratch, chain)?);
    }
    let expects: Vec<&Table> = tables(&document, "expect").filter(|expect| fits(expect, dialect)).collect();
    if !expects.is_empty() {
        let broken = |expect: &&Table| expect.get("broken").and_then(Item::as_bool).unwrap_or_default();
        let all_broken = expects.iter().all(broken);
        // Where nothing can be pulled, it may be because containerd does not even start.
        match pull::start_containerd(&scratch, if all_broken { 3 } else { 20 }) {
            Err(_) if all_broken => {}
            Err(error) => return Err(error),
            Ok(_running) => {
                let pulled = Cell::new(false);
                for expect in expects {
                    let challenge = std::fs::read_to_string(scratch.root().join(CONFIG)).is_ok_and(|config| config.contains(".auth]"));
                    let vector = Vector {
                        scratch: &scratch,
                        world: &world,
                        serving: &serving,
                        layout: &layout,
                        digest: &digest,
                        challenge,
                        pulled: &pulled,
                    };
                    wrong.extend(vector.check(expect)?);
                }
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("containerd {version:?} ({dialect:?})\n{}", wrong.join("\n")) }
}

fn tables<'a>(document: &'a DocumentMut, name: &str) -> impl Iterator<Item = &'a Table> {
    document.get(name).and_then(Item::as_array_of_tables).into_iter().flatten()
}

fn lines(expect: &Table) -> Vec<&str> {
    expect.get("attempts").and_then(Item::as_array).into_iter().flatten().filter_map(|line| line.as_str()).collect()
}

/// As in the walker of the vectors: `all`, `<2.0`, `>=1.7.32 <2.0`.
fn fits(expect: &Table, dialect: Dialect) -> bool {
    let of = |text: &str| Version::find(text).map(Dialect::of_version);
    expect.get("on").and_then(Item::as_str).unwrap_or("all").split(' ').all(|bound| match bound.strip_prefix(">=") {
        _ if bound == "all" => true,
        Some(from) => of(from).is_some_and(|from| dialect >= from),
        None => of(bound.trim_start_matches('<')).is_some_and(|to| dialect < to),
    })
}

/// The node of the vector.
fn lay(folder: &Path, scratch: &Scratch, world: &World, document: &DocumentMut) -> Result<()> {
    let root = scratch.root();
    let config = root.join(CONFIG);
    if !folder.join("tree").join(CONFIG).exists() {
        let mut text = std::fs::read_to_string(&config).context("the fixture's config.toml")?;
        text += "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
        std::fs::write(&config, text).context("config.toml")?;
    }
    node::copy_folder(&folder.join("tree"), &root)?;
    for name in document.get("dirs").and_then(Item::as_array).into_iter().flatten().filter_map(|name| name.as_str()) {
        std::fs::create_dir_all(root.join(name.trim_start_matches('/'))).context("a folder of the vector")?;
    }
    let mut open = vec![root.join("etc/containerd")];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?.flatten() {
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
                continue;
            }
            match std::fs::read(&path).unwrap_or_default().as_slice() {
                b"@certificate\n" => std::fs::write(&path, &world.vector.pair.certificate).context("@certificate")?,
                b"@key\n" => std::fs::write(&path, &world.vector.pair.key).context("@key")?,
                _ => {}
            }
        }
    }
    world.system.write(&root.join("etc/ssl/certs/ca-certificates.crt"))
}

/// 404, unless it is this host's turn.
fn answer(serving: &Serving, layout: &Path, digest: &str, ask: &Ask) -> Answer {
    let here = format!("{}://{}", ask.scheme, ask.host);
    if serving.challenge && ask.header("authorization").is_none() {
        return Answer::status(401).with("WWW-Authenticate", "Basic realm=\"vector\"");
    }
    let blob = |wanted: &str| std::fs::read(layout.join("blobs/sha256").join(wanted.trim_start_matches("sha256:"))).ok();
    let served = if let Some((_, reference)) = ask.path().rsplit_once("/manifests/") {
        let by_tag = !reference.starts_with("sha256:");
        let turn = if by_tag { here == serving.resolve } else { here == serving.manifest };
        (turn && (by_tag || reference == digest)).then(|| blob(digest)).flatten().map(|bytes| (image::MANIFEST, digest, bytes))
    } else if let Some((_, wanted)) = ask.path().rsplit_once("/blobs/") {
        (here == serving.blob).then(|| blob(wanted)).flatten().map(|bytes| ("application/octet-stream", wanted, bytes))
    } else {
        return Answer::status(200);
    };
    match served {
        Some((kind, digest, bytes)) => Answer::status(200).with("Docker-Content-Digest", digest).body(kind, bytes),
        None => Answer::status(404),
    }
}

struct Vector<'a> {
    scratch: &'a Scratch,
    world: &'a World,
    serving: &'a Mutex<Serving>,
    layout: &'a Path,
    digest: &'a str,
    challenge: bool,
    pulled: &'a Cell<bool>,
}

impl Vector<'_> {
    fn check(&self, expect: &Table) -> Result<Vec<String>> {
        let image = expect.get("image").and_then(Item::as_str).context("an expectation without image")?;
        let attempts = lines(expect).into_iter().map(Attempt::parse).collect::<Result<Vec<_>>>()?;
        let mut signers = BTreeMap::new();
        for (attempt, line) in attempts.iter().zip(lines(expect)) {
            let signer = match attempt.trust.as_str() {
                "unverified" => Signer::Nobody,
                _ if line.contains(" +") => Signer::Vector,
                _ => Signer::System,
            };
            signers.entry(world::bare(world::host(&attempt.url)).to_owned()).or_insert(signer);
        }
        let mut wrong = Vec::new();
        for stage in Stage::ALL {
            self.world.show(stage, &signers);
            *self.serving.lock().expect("no thread panics") = Serving { challenge: self.challenge, ..Serving::default() };
            let asks = self.pull(image)?;
            let resolving: Vec<&Attempt> = attempts.iter().filter(|attempt| attempt.resolve).collect();
            let want: Vec<String> = chain(&resolving, stage).into_iter().map(|attempt| show(&attempt.url, &attempt.words)).collect();
            // By digest, what is no manifest may be a blob: asked for once more, in the same places.
            let got: Vec<String> = asks.iter().filter(|ask| ask.path().contains("/manifests/")).map(seen).collect();
            if got != want {
                wrong.push(format!("{image}, {stage:?}: want {want:#?}, seen {got:#?}"));
            }
        }
        let last = |has: fn(&Attempt) -> bool| attempts.iter().rev().find(|attempt| has(attempt));
        let (Some(resolve), Some(manifest), Some(blob)) =
            (last(|attempt| attempt.resolve), last(|attempt| attempt.manifest), last(|attempt| attempt.blob))
        else {
            return Ok(wrong);
        };
        // What is there once is not fetched again.
        if image.contains('@') || resolve.scheme() == "http" || self.pulled.replace(true) {
            return Ok(wrong);
        }
        self.world.show(Stage::Believed, &signers);
        let origin = |attempt: &Attempt| format!("{}://{}", attempt.scheme(), world::host(&attempt.url));
        *self.serving.lock().expect("no thread panics") =
            Serving { resolve: origin(resolve), manifest: origin(manifest), blob: origin(blob), challenge: self.challenge };
        let asks = self.pull(image)?;
        let until = |has: fn(&Attempt) -> bool, last: &Attempt| -> Vec<String> {
            let all: Vec<&Attempt> = attempts.iter().filter(|attempt| has(attempt)).collect();
            let all = chain(&all, Stage::Believed);
            let end = all.iter().position(|attempt| origin(attempt) == origin(last)).map_or(all.len(), |end| end + 1);
            all[..end].iter().map(|attempt| attempt.base().to_owned()).collect()
        };
        let bases = |part: &str| -> Vec<String> {
            asks.iter()
                .filter(|ask| ask.path().ends_with(part))
                .map(|ask| format!("{}://{}{}", ask.scheme, ask.host, ask.path().strip_suffix(part).unwrap_or_default()))
                .collect()
        };
        let mut compare = |what: &str, got: Vec<String>, want: Vec<String>| {
            if got != want {
                wrong.push(format!("{image}, {what}: want {want:#?}, seen {got:#?}"));
            }
        };
        compare("the manifest", bases(&format!("/manifests/{}", self.digest)), until(|attempt| attempt.manifest, manifest));
        for blob_digest in self.blobs()? {
            compare("a layer", bases(&format!("/blobs/{blob_digest}")), until(|attempt| attempt.blob, blob));
        }
        Ok(wrong)
    }

    /// Config and layer of the image.
    fn blobs(&self) -> Result<Vec<String>> {
        let path = self.layout.join("blobs/sha256").join(self.digest.trim_start_matches("sha256:"));
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).context("the manifest")?).context("the manifest")?;
        let digests = [&manifest["config"]["digest"], &manifest["layers"][0]["digest"]];
        digests.into_iter().map(|digest| Ok(digest.as_str().context("a digest")?.to_owned())).collect()
    }

    /// What arrives while the image is pulled; a request that was only answered with the demand for a login is left out.
    fn pull(&self, image: &str) -> Result<Vec<Ask>> {
        self.world.arrived.take();
        let _ = Puller::Containerd.pull(self.scratch, image)?;
        let asks = self.world.arrived.take();
        Ok(asks.into_iter().filter(|ask| !self.challenge || ask.header("authorization").is_some()).collect())
    }
}

/// The attempts of which a request arrives, all being answered with 404: plain HTTP after HTTPS to the same place is tried only where TLS is not spoken.
fn chain<'a>(attempts: &[&'a Attempt], stage: Stage) -> Vec<&'a Attempt> {
    let mut chain: Vec<&Attempt> = Vec::new();
    for attempt in attempts {
        let second = chain.last().is_some_and(|last| last.trust == "unverified" && last.url[5..] == attempt.url[4..]);
        if stage.arrives(attempt.scheme(), &attempt.trust) && !second {
            chain.push(attempt);
        }
    }
    chain
}

fn show(url: &str, words: &str) -> String {
    if words.is_empty() { url.to_owned() } else { format!("{url} {words}") }
}

fn seen(ask: &Ask) -> String {
    let mut words = Vec::new();
    if ask.shown.is_some() {
        words.push("client");
    }
    match ask.header("authorization") {
        Some(value) if value.starts_with("Basic ") => words.push("basic"),
        Some(_) => words.push("Authorization header"),
        None => {}
    }
    if ask.header("x-team").is_some() {
        words.push("header X-Team");
    }
    show(&format!("{}://{}{}", ask.scheme, ask.host, ask.path()), &words.join(" "))
}

/// What config.toml and its drop-ins come to, as the program itself says.
fn comes_to(scratch: &Scratch, expect: &Table) -> Result<Vec<String>> {
    let starts = expect.get("starts").and_then(Item::as_bool).unwrap_or(true);
    let output = scratch.command(20, "containerd")?.args(["config", "dump"]).output().context("containerd config dump")?;
    if !output.status.success() {
        return Ok(if starts { vec![format!("config dump: {}", String::from_utf8_lossy(&output.stderr))] } else { Vec::new() });
    }
    if !starts {
        return Ok(if pull::start_containerd(scratch, 3).is_ok() { vec!["it starts".to_owned()] } else { Vec::new() });
    }
    let (config_path, sandbox) = effective(&output.stdout)?;
    let mut wrong = Vec::new();
    if let Some(want) = expect.get("config_path").and_then(Item::as_str)
        && want != config_path
    {
        wrong.push(format!("config_path: want {want:?}, it says {config_path:?}"));
    }
    match expect.get("sandbox").and_then(Item::as_str) {
        // Nothing is left of what the files say: the built-in default.
        Some("") if sandbox.contains("/pause:") => {}
        Some(want) if want != sandbox => wrong.push(format!("sandbox image: want {want:?}, it says {sandbox:?}")),
        _ => {}
    }
    ensure!(!sandbox.is_empty(), "no sandbox image in the dump");
    Ok(wrong)
}

/// `config_path` and the sandbox image in the output of `containerd config dump`.
pub fn effective(dump: &[u8]) -> Result<(String, String)> {
    let dump: DocumentMut = String::from_utf8_lossy(dump).parse().context("config dump")?;
    let plugin = |name: &str| dump.get("plugins").and_then(|plugins| plugins.get(name));
    let images = plugin("io.containerd.cri.v1.images");
    let cri = images.or(plugin("io.containerd.grpc.v1.cri")).context("no CRI plugin in the dump")?;
    let sandbox = match images {
        Some(images) => images.get("pinned_images").and_then(|pinned| pinned.get("sandbox")),
        None => cri.get("sandbox_image"),
    };
    let sandbox = sandbox.and_then(Item::as_str).unwrap_or_default();
    let config_path = cri.get("registry").and_then(|registry| registry.get("config_path")).and_then(Item::as_str).unwrap_or_default();
    Ok((config_path.to_owned(), sandbox.to_owned()))
}
