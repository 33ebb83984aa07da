//! One case from start to end, inside its own namespaces.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::case::{self, Case, Demand};
use crate::certificate::Authority;
use crate::node::{self, Scratch};
use crate::programs::Programs;
use crate::promise::{self, Asker};
use crate::pull::{self, Puller};
use crate::registry::{self, Mark, Registry};
use crate::secrets::Secrets;
use crate::upstream::Upstream;
use crate::{closed, image, tree, vector, verified};

/// Longer than any case takes; a case that hangs ends with all its programs, because this process is number 1 of its namespace.
const DEADLINE: Duration = Duration::from_secs(110);

/// How often containerd asks a registry that has enough for now (429; T38): seen on 1.6.20, 1.7.24 and 2.1.9.
const TRIES: usize = 6;

/// nodeprep under test; another build of it can be named instead (a release, a static one).
pub const OTHER_BINARY: &str = "NODEPREP_REAL_BINARY";

/// How many pulls were held against the access log: a file in the scratch folder.
pub const PULLS: &str = "pulls";

/// Ends the process when the deadline has passed.
pub fn end_in_time() {
    std::thread::spawn(|| {
        std::thread::sleep(DEADLINE);
        eprintln!("the case did not end within {DEADLINE:?}");
        std::process::exit(1);
    });
}

pub fn run(folder: &Path, programs: &Programs) -> Result<()> {
    end_in_time();
    let mut case = case::load(folder)?;
    let scratch = Scratch::open(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("real").join(crate::scratch_name(folder, programs)));
    let layout = scratch.folder.join("image");
    let digest = image::write(&layout)?;
    for image in &mut case.images {
        *image = image.replace("{digest}", &digest);
    }
    scratch.furnish(&case, programs)?;
    let (known, unknown) = (Authority::new("real test CA")?, Authority::new("some other CA")?);
    let spec = write_spec(&case, &scratch, &known)?;
    let registries = start_registries(&case, &scratch, &known, &unknown)?;
    let upstream = Upstream::start()?;

    let root = scratch.root();
    let before = tree::read(&root)?;
    let mut secrets = Secrets::of(&[&scratch.folder.join("spec"), &root.join("etc"), &root.join("root")])?;
    case.registries.iter().filter_map(|registry| registry.login.as_ref()).for_each(|login| secrets.login(login));
    let held = secrets.holders(&root)?;
    let (root, spec) = (root.as_os_str(), spec.as_os_str());
    let apply = ["apply", "--activate", "never", "--probe", &case.probe, "--foreign", &case.foreign, "--spec"].map(OsStr::new);
    let apply: Vec<&OsStr> = apply.into_iter().chain([spec, "--root".as_ref(), root]).collect();
    let loses_logins = programs.pullers(&case).contains(&Puller::Containerd) && !programs.tokens(Puller::Containerd);
    if case.probe == "require" && loses_logins {
        return refused(&apply, Path::new(root), &before, &secrets);
    }
    let mut wrong = Vec::new();
    let rendered = scratch.folder.join("rendered");
    let mut outputs = |when: &str| -> Result<()> {
        if !secrets.is_empty() {
            wrong.extend(closed::in_output(&secrets, when, spec, root, &case, &rendered)?);
        }
        Ok(())
    };
    outputs("before")?;
    let applied = loud(apply)?;
    outputs("after")?;
    wrong.extend(secrets.judge("apply", &applied));
    wrong.extend(closed::on_node(&secrets, Path::new(root), &held, !secrets.is_empty())?);
    if programs.pullers(&case).contains(&Puller::Containerd) {
        dumped(programs, &scratch)?;
    }
    let mut explain: Vec<&OsStr> = ["explain".as_ref(), "--root".as_ref(), root, "--output".as_ref(), "json".as_ref()].to_vec();
    explain.extend(case.images.iter().map(OsStr::new));
    let explained = nodeprep(explain)?;
    fs::write(scratch.folder.join("explain.json"), &explained).context("explain.json")?;
    let explained: Value = serde_json::from_str(&explained).context("explain --output json is not JSON")?;

    let _containerd =
        if programs.pullers(&case).contains(&Puller::Containerd) { Some(pull::start_containerd(&scratch, 20)?) } else { None };
    let mut world =
        World { programs, case: &case, scratch: &scratch, registries: &registries, upstream, mark: Mark::default(), pulls: 0, wrong };
    world.leaked("while the runtimes start", false);
    // First with nothing in the registries: every attempt is made and answered 404, so the whole chain shows. Then as the case has it.
    world.round(&explained, false)?;
    for registry in &registries {
        registry.fill(&layout)?;
    }
    world.round(&explained, true)?;

    fs::write(scratch.folder.join(PULLS), world.pulls.to_string()).context("how many pulls")?;
    let mut wrong = world.wrong;
    wrong.extend(verified::verify(&case, programs, &scratch, Path::new(spec), &secrets)?);
    wrong.extend(secrets.judge("revert", &loud(["revert".as_ref(), "--root".as_ref(), root])?));
    wrong.extend(tree::differences(&before, &tree::read(Path::new(root))?).into_iter().map(|line| format!("after revert: {line}")));
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// The registry wants tokens, which this containerd would never get: it is told before anything is written.
fn refused(apply: &[&OsStr], root: &Path, before: &tree::Tree, secrets: &Secrets) -> Result<()> {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).args(apply).env("HOME", "/root").output().context("nodeprep")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let given_away = secrets.judge("apply", &format!("{said}{}", String::from_utf8_lossy(&output.stderr)));
    ensure!(given_away.is_empty(), "{given_away:?}");
    ensure!(output.status.code() == Some(4) && said.contains("error[token-login]"), "not refused: {}\n{said}", output.status);
    let written = root.join("etc/containerd/certs.d");
    ensure!(!written.exists(), "{} was written", written.display());
    nodeprep(["revert".as_ref(), "--root".as_ref(), root.as_os_str()])?;
    let differences = tree::differences(before, &tree::read(root)?);
    ensure!(differences.is_empty(), "after revert: {}", differences.join("\n"));
    Ok(())
}

/// What config.toml and its drop-ins come to after an apply, in the daemon's own words: one folder, and that is where ours is. A list stays where it is
/// honoured (1.x); ours is in its first folder then.
fn dumped(programs: &Programs, scratch: &Scratch) -> Result<()> {
    let output = scratch.command(20, "containerd")?.args(["config", "dump"]).output().context("containerd config dump")?;
    ensure!(output.status.success(), "config dump: {}", String::from_utf8_lossy(&output.stderr));
    let (config_path, _) = vector::effective(&output.stdout)?;
    let first = config_path.split(':').next().unwrap_or_default();
    ensure!(first == config_path || !programs.tokens(Puller::Containerd), "config_path {config_path:?} is a list, which is not read");
    let folders = scratch.root().join(first.trim_start_matches('/'));
    let mut below = fs::read_dir(&folders).with_context(|| format!("config_path {config_path:?} is no folder"))?.flatten();
    let ours = below.any(|folder| fs::read_to_string(folder.path().join("hosts.toml")).is_ok_and(|text| text.contains("nodeprep")));
    ensure!(ours, "config_path {config_path:?} holds nothing of ours");
    Ok(())
}

struct World<'a> {
    programs: &'a Programs,
    case: &'a Case,
    scratch: &'a Scratch,
    registries: &'a [Registry],
    upstream: Upstream,
    mark: Mark,
    pulls: usize,
    /// All that is wrong is reported at once: one wrong URL is easier to read beside the right ones.
    wrong: Vec<String>,
}

impl World<'_> {
    fn round(&mut self, explained: &Value, filled: bool) -> Result<()> {
        let demands: Vec<Demand> = self.registries.iter().map(|registry| registry.demand.clone()).collect();
        for puller in self.programs.pullers(self.case) {
            let asker = Asker { layers_elsewhere: puller == Puller::Containerd, tokens: self.programs.tokens(puller) };
            let promised = promise::attempts(explained, puller.runtime(), &self.case.images)?;
            for (image, attempts) in self.case.images.iter().zip(&promised) {
                // skopeo takes names without a registry for docker.io's, whatever there is to search
                let first = image.split_once('/').map_or("", |(first, _)| first);
                if puller == Puller::Skopeo && !first.contains(['.', ':']) && first != "localhost" {
                    continue;
                }
                let what = format!("{puller:?} {image} ({})", if filled { "filled" } else { "every endpoint answers 404" });
                registry::requests(self.registries, &mut self.mark)?;
                let outcome = puller.pull(self.scratch, image)?;
                let requests = registry::requests(self.registries, &mut self.mark)?;
                let said = outcome.as_ref().err().map_or("it succeeded", String::as_str);
                self.pulls += 1;
                let expected = promise::expect(attempts, &demands, asker, filled).with_context(|| what.clone())?;
                match promise::seen(&requests, image, attempts) {
                    Ok(seen) if seen == expected.requests => {}
                    Ok(seen) => self.wrong.push(format!("{what}: explain promised {:#?}, seen were {seen:#?}; {said}", expected.requests)),
                    Err(error) => self.wrong.push(format!("{what}: {error}")),
                }
                for busy in demands.iter().filter(|demand| puller == Puller::Containerd && demand.answer == Some(case::Answer::Status(429)))
                {
                    let tries = requests.iter().filter(|request| busy.is(&request.host) && request.path.ends_with("/manifests/1")).count();
                    if tries != TRIES {
                        self.wrong.push(format!("{what}: {} was asked {tries} times, not {TRIES}", busy.listen));
                    }
                }
                if outcome.is_ok() != expected.served {
                    self.wrong.push(format!("{what}: should {}, but {said}", if expected.served { "succeed" } else { "fail" }));
                }
                for (_, _, words) in self.case.says.iter().filter(|(of, by, _)| filled && of == image && by == puller.name()) {
                    if outcome.is_ok() || !said.contains(words) {
                        self.wrong.push(format!("{what}: should say {words:?}, but {said}"));
                    }
                }
                self.leaked(&what, expected.upstream && !expected.served);
            }
        }
        Ok(())
    }

    /// Under `never` nothing may arrive upstream, whatever was promised; otherwise exactly when it was promised, which also shows that leaks are seen.
    fn leaked(&mut self, what: &str, promised: bool) {
        let contacts = self.upstream.take();
        if !contacts.is_empty() && (self.case.closed || !promised) {
            self.wrong.push(format!("{what}: upstream was asked: {contacts:?}"));
        }
        if promised && (self.case.closed || contacts.is_empty()) {
            self.wrong.push(format!("{what}: explain promised an upstream's turn; seen: {contacts:?}"));
        }
    }
}

/// The spec as a user has it: the document and, beside it, what it names.
pub fn write_spec(case: &Case, scratch: &Scratch, known: &Authority) -> Result<PathBuf> {
    let folder = scratch.folder.join("spec");
    node::copy_folder(&case.folder, &folder)?;
    known.write(&folder.join("ca.pem"))?;
    known.sign(Vec::new())?.write(&folder.join("node.crt"), &folder.join("node.key"))?;
    Ok(folder.join("spec.toml"))
}

pub fn start_registries(case: &Case, scratch: &Scratch, known: &Authority, unknown: &Authority) -> Result<Vec<Registry>> {
    let folder = |number: usize| scratch.folder.join(format!("registry-{number}"));
    let beside = |number: usize| scratch.folder.join(format!("spec/self-{}.pem", number + 1));
    let start = |(number, demand)| Registry::start(demand, &folder(number), known, unknown, &beside(number));
    case.registries.iter().enumerate().map(start).collect()
}

fn nodeprep<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    Ok(run_well(arguments)?.0)
}

/// With all of the log: everything that was said.
fn loud<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    let (said, log) = run_well(std::iter::once("-vv".as_ref()).chain(arguments))?;
    Ok(said + &log)
}

/// What it said on standard output and on standard error.
fn run_well<'a>(arguments: impl IntoIterator<Item = &'a OsStr>) -> Result<(String, String)> {
    let binary = std::env::var_os(OTHER_BINARY).unwrap_or_else(|| env!("CARGO_BIN_EXE_nodeprep").into());
    let arguments: Vec<&OsStr> = arguments.into_iter().collect();
    let output = Command::new(&binary).args(&arguments).env("HOME", "/root").output().with_context(|| binary.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "nodeprep {arguments:?}: {}\n{said}", output.status);
    Ok((String::from_utf8_lossy(&output.stdout).into_owned(), said))
}
