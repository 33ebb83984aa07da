//! The vectors of `fixtures/vectors/containers` against the running skopeo and, where it costs little or skopeo has no say, podman: every name leads to a
//! listener that answers 404, so the whole chain shows; then nobody is to be believed, and at last nobody speaks TLS.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nodeprep::format::registries_conf::to_version_2;
use nodeprep::model::path::NodePath;

use crate::case::Case;
use crate::node::{self, Scratch};
use crate::programs::Programs;
use crate::pull::Puller;
use crate::responder::Answer;
use crate::world::{self, Signer, Stage, World};

/// An image and the lines below it: URLs, some of them `unverified`.
struct Expected {
    image: String,
    urls: Vec<(String, bool)>,
    broken: bool,
}

pub fn run(folder: &Path, programs: &Programs) -> Result<()> {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(100));
        eprintln!("the vector did not end in time");
        std::process::exit(1);
    });
    let text = fs::read_to_string(folder.join("expect.txt")).with_context(|| folder.display().to_string())?;
    let mut expectations: Vec<Expected> = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match (line.strip_prefix("  "), expectations.last_mut()) {
            (Some(said), Some(expected)) if said.starts_with("http") => {
                let (url, unverified) = said.strip_suffix(" unverified").map_or((said, false), |url| (url, true));
                expected.urls.push((url.to_owned(), unverified));
            }
            (Some(said), Some(expected)) => expected.broken = said.starts_with("broken"),
            _ => expectations.push(Expected { image: line.to_owned(), urls: Vec::new(), broken: false }),
        }
    }
    let scratch = Scratch::of(folder, programs);
    let case = Case { folder: folder.to_owned(), podman: true, ..Case::default() };
    scratch.furnish(&case, programs)?;
    let root = scratch.root();
    let _ = fs::remove_file(root.join("etc/containers/registries.conf"));
    node::copy_folder(&folder.join("root"), &root)?;
    let urls: Vec<String> = expectations.iter().flat_map(|expected| expected.urls.iter().map(|(url, _)| url.clone())).collect();
    let world = World::start(&urls, |ask| Answer::status(if ask.path() == "/v2/" { 200 } else { 404 }))?;
    world.system.write(&root.join("etc/ssl/certs/ca-certificates.crt"))?;

    let mut wrong = held(&expectations, &scratch, &world)?;
    // version 1, and the same said in version 2
    let main = NodePath::fixed("/etc/containers/registries.conf");
    let file = root.join(main.as_str().trim_start_matches('/'));
    let text = fs::read_to_string(&file).unwrap_or_default();
    if let Some(moved) = to_version_2(&main, &text)? {
        fs::write(&file, &moved.text)?;
        wrong.extend(held(&expectations, &scratch, &world)?.into_iter().map(|wrong| format!("in version 2: {wrong}")));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// What the programs do otherwise than expected.
fn held(expectations: &[Expected], scratch: &Scratch, world: &World) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for expected in expectations {
        // skopeo knows no short names: it takes them for Docker Hub's. And it takes no reference with both a tag and a digest.
        let first = expected.image.split('/').next().unwrap_or_default();
        let short = !expected.image.contains('/') || !(first.contains(['.', ':']) || first == "localhost");
        let both = expected.image.rsplit_once('/').and_then(|(_, name)| name.split_once('@')).is_some_and(|(name, _)| name.contains(':'));
        let puller = if short || both { Puller::Podman } else { Puller::Skopeo };
        let mut signers = BTreeMap::new();
        for (url, unverified) in &expected.urls {
            let signer = if *unverified { Signer::Nobody } else { Signer::System };
            signers.entry(world::bare(world::host(url)).to_owned()).or_insert(signer);
        }
        for stage in Stage::ALL {
            world.show(stage, &signers);
            world.arrived.take();
            let outcome = puller.pull(scratch, &expected.image)?;
            let mut got: Vec<String> = Vec::new();
            for ask in world.arrived.take().into_iter().filter(|ask| ask.path().contains("/manifests/")) {
                got.push(format!("{}://{}{}", ask.scheme, ask.host, ask.path()));
            }
            let mut want: Vec<String> = Vec::new();
            for (number, (url, unverified)) in expected.urls.iter().enumerate() {
                let (scheme, rest) = url.split_once("://").context("a URL without scheme")?;
                let second = scheme == "http" && number > 0 && expected.urls[number - 1].0 == format!("https://{rest}");
                let trust = if *unverified { "unverified" } else { "" };
                if stage.arrives(scheme, trust) && !(second && stage != Stage::Plain) {
                    want.push(url.clone());
                }
            }
            if got != want || outcome.is_ok() {
                let said = outcome.err().unwrap_or_default();
                wrong.push(format!("{puller:?} {}, {stage:?}: want {want:#?}, seen {got:#?}; {said}", expected.image));
            }
            // Without a request, all stages are alike.
            if expected.broken && expected.urls.is_empty() {
                break;
            }
        }
    }
    Ok(wrong)
}
