//! One containerd runs while another is on disk, as after an update of its package: config.toml is for the one on disk, the registries' folders for both.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nodeprep::model::version::Version;
use serde_json::Value;

use crate::case;
use crate::certificate::Authority;
use crate::live::Live;
use crate::node::Scratch;
use crate::programs::Programs;
use crate::registry::{self, Mark, Registry};
use crate::round;
use crate::upstream::Upstream;
use crate::{image, prepared, source, tree};

const IMAGE: &str = "docker.io/library/hello:1";
const OF_2: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
const OF_3: &str = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
/// As a vendor's package beside the distribution's.
const UNIT: &str = "[Service]\nExecStart=/usr/local/bin/containerd\n";

/// A containerd and where it is unpacked.
struct Build {
    version: Version,
    name: String,
    file: PathBuf,
}

pub fn run(what: &Path, programs: &Programs) -> Result<()> {
    round::end_in_time();
    let builds = builds(programs)?;
    let [this, others @ ..] = builds.as_slice() else { bail!("no containerd") };
    let mut case = case::load(&source().join("fixtures/real/plain"))?;
    (case.podman, case.images) = (false, vec![IMAGE.to_owned()]);
    let scratch = Scratch::of(what, programs);
    let layout = scratch.folder.join("image");
    image::write(&layout)?;
    scratch.furnish(&case, programs)?;
    let root = scratch.root();
    let (known, unknown) = (Authority::new("real test CA")?, Authority::new("some other CA")?);
    let spec = round::write_spec(&case, &scratch, &known)?;
    // the trust store's tool is the machine's own
    let text = fs::read_to_string(&spec).context("the spec")?;
    fs::write(
        &spec,
        text.replace(
            "file = \"ca.pem\"",
            "file = \"ca.pem\"\ntrust = \"registries\"\n\n[[registry]]\nhost = \"127.0.0.2:5443\"\nca = [\"internal-root\"]",
        ),
    )
    .context("the spec")?;
    let registries = round::start_registries(&case, &scratch, &known, &unknown)?;
    registries.iter().try_for_each(|registry| registry.fill(&layout))?;
    let upstream = Upstream::start()?;
    fs::write(root.join("etc/systemd/system/containerd.service"), UNIT).context("the unit")?;
    let mut files: Vec<(&Path, &str)> = builds.iter().map(|build| (build.file.as_path(), build.name.as_str())).collect();
    let folder = spec.parent().context("the spec's folder")?;
    let ca = folder.join("ca.pem");
    files.extend([(spec.as_path(), "spec.toml"), (ca.as_path(), "ca.pem")]);
    let mut node = Node { live: Live::start(&scratch, &files)?, registries: &registries, upstream, mark: Mark::default(), root };
    for other in others {
        let (old, new) = if other.version < this.version { (other, this) } else { (this, other) };
        node.updated(old, new).with_context(|| format!("{} runs, {} is on disk", old.name, new.name))?;
        node.put_back(old, new).with_context(|| format!("{} runs, {} is on disk", new.name, old.name))?;
    }
    Ok(())
}

/// The one of this trial, then all others that are older, so that each pair is tried once.
fn builds(programs: &Programs) -> Result<Vec<Build>> {
    let mut builds = Vec::new();
    for one in Programs::all() {
        let (Some(version), folder) = (one.containerd(), one.folder().map_or_else(prepared, Path::to_owned)) else { continue };
        let Version(major, minor, patch) = version;
        let build = Build { version, name: format!("{major}.{minor}.{patch}"), file: folder.join("root/usr/bin/containerd") };
        if one.folder() == programs.folder() { builds.insert(0, build) } else { builds.push(build) }
    }
    let this = builds.first().context("no containerd")?.version;
    builds.retain(|build| build.version <= this);
    Ok(builds)
}

struct Node<'a> {
    live: Live<'a>,
    registries: &'a [Registry],
    upstream: Upstream,
    mark: Mark,
    root: PathBuf,
}

impl Node<'_> {
    /// An update brings the program, and its config.toml in the form that only it reads.
    fn updated(&mut self, old: &Build, new: &Build) -> Result<()> {
        let only_new = new.version >= Version(2, 0, 0);
        self.start(old, OF_2, new)?;
        if only_new {
            fs::write(self.root.join("etc/containerd/config.toml"), OF_3).context("config.toml")?;
        }
        let report = self.nodeprep("apply --activate never --probe off --spec /srv/spec.toml", 0)?;
        versions(&report, old, new)?;
        let told = report.to_string().contains("config-toml-not-for-running");
        ensure!(told == only_new, "what is told of the running version: {report}");
        self.pulls("the running one")?;
        // what the files say is the same for both
        let explained = self.nodeprep(&format!("explain {IMAGE}"), 0)?;
        let resolutions = explained["resolutions"].as_array().context("no resolutions")?;
        let ours: Vec<&Value> = resolutions.iter().filter(|resolution| resolution["runtime"] == "containerd").collect();
        ensure!(!ours.is_empty(), "explain: {explained}");
        for resolution in ours {
            let urls: Vec<&str> = resolution["attempts"].as_array().into_iter().flatten().filter_map(|one| one["url"].as_str()).collect();
            ensure!(urls == ["https://127.0.0.2:5443/v2/docker.io/library/hello/manifests/1"], "explain: {resolution}");
        }
        self.live.stop_containerd()?;
        self.live.start_containerd("")?;
        self.pulls("the one on disk, started")?;
        self.live.stop_containerd()?;
        self.nodeprep("revert", 0).map(drop)
    }

    /// The old program is put back under a running new one, whose config.toml it does not read.
    fn put_back(&mut self, old: &Build, new: &Build) -> Result<()> {
        let only_new = new.version >= Version(2, 0, 0);
        self.start(new, if only_new { OF_3 } else { OF_2 }, old)?;
        let apply = "apply --activate never --probe off --spec /srv/spec.toml";
        if only_new {
            let before = tree::read(&self.root.join("etc/containerd"))?;
            let report = self.nodeprep(apply, 4)?;
            versions(&report, new, old)?;
            // 1.6 starts with it, and finds nothing of its own in it
            let why = if old.version < Version(1, 7, 0) { "config-toml-overridden" } else { "is too new for containerd 1.7" };
            ensure!(report.to_string().contains(why), "{report}");
            let differences = tree::differences(&before, &tree::read(&self.root.join("etc/containerd"))?);
            ensure!(differences.is_empty(), "refused, and written: {differences:?}");
        } else {
            let report = self.nodeprep(apply, 0)?;
            versions(&report, new, old)?;
            self.pulls("the running one")?;
        }
        self.live.stop_containerd()?;
        self.nodeprep("revert", 0).map(drop)
    }

    /// `running` is started with `config`, then its program is replaced.
    fn start(&mut self, running: &Build, config: &str, disk: &Build) -> Result<()> {
        fs::write(self.root.join("etc/containerd/config.toml"), config).context("config.toml")?;
        self.live.must(&format!("rm -rf /var/lib/containerd/*; cp /srv/{} /usr/local/bin/containerd", running.name))?;
        self.live.start_containerd("")?;
        self.live.must(&format!(
            "cp /srv/{} /usr/local/bin/containerd.new && mv /usr/local/bin/containerd.new /usr/local/bin/containerd",
            disk.name
        ))?;
        Ok(())
    }

    fn nodeprep(&mut self, words: &str, code: i32) -> Result<Value> {
        let (ended, said) = self.live.run(&format!("/srv/nodeprep {words} --root / --output json 2>/srv/stderr"))?;
        let log = self.live.run("cat /srv/stderr")?.1;
        ensure!(ended == code, "nodeprep {words} ended with {ended}: {said}{log}");
        serde_json::from_str(&said).with_context(|| format!("nodeprep {words}: {said}"))
    }

    /// From the mirror, and nowhere else.
    fn pulls(&mut self, who: &str) -> Result<()> {
        registry::requests(self.registries, &mut self.mark)?;
        let pulled = self.live.pull(IMAGE)?;
        let requests = registry::requests(self.registries, &mut self.mark)?;
        ensure!(pulled.is_ok(), "{who}: {pulled:?}");
        ensure!(requests.iter().any(|request| request.path == "/v2/docker.io/library/hello/manifests/1"), "{who}: {requests:?}");
        let contacts = self.upstream.take();
        ensure!(contacts.is_empty(), "{who}: upstream was asked: {contacts:?}");
        Ok(())
    }
}

/// What nodeprep takes the two versions for.
fn versions(report: &Value, running: &Build, installed: &Build) -> Result<()> {
    let found = report["runtimes"].as_array().into_iter().flatten().find(|found| found["runtime"] == "containerd");
    let found = found.with_context(|| format!("no containerd: {report}"))?;
    let is = |value: &Value, build: &Build| value.as_str() == Some(build.name.as_str());
    ensure!(is(&found["running"]["version"], running) && is(&found["installed"], installed), "which versions: {found}");
    Ok(())
}
