//! A node and what is around it: registries, the rest of the internet, a spec, and nodeprep on the node.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use rustls::sign::CertifiedKey;
use serde_json::Value;

use crate::case::Demand;
use crate::certificate::Authority;
use crate::node::Node;
use crate::responder::{self, Answer, Arrived, Ask};
use crate::tree::{self, Tree};
use crate::upstream::Upstream;
use crate::{answer, image, prepared, setting};

/// Where everything of the trial lies: memory that is gone with its namespaces, and a short path, because sockets want one.
const FOLDER: &str = "/run/node";

/// The image that every registry holds, as a user names it.
pub const IMAGE: &str = "docker.io/library/hello:1";

pub struct World {
    pub node: Node,
    pub ca: Authority,
    /// Whoever asks an upstream is noted here.
    pub upstream: Upstream,
    layout: PathBuf,
}

impl World {
    /// A node with nodeprep on it, not booted yet, and the containerd that the trial is for.
    pub fn new() -> Result<World> {
        let folder = Path::new(FOLDER);
        let mut node = Node::new(folder, &prepared())?;
        if let Some(containerd) = setting::containerd() {
            node.install(&containerd, "/usr/bin/containerd")?;
        }
        node.show(&setting::nodeprep(), "/usr/bin/nodeprep");
        node.write("/etc/resolv.conf", 0o644, "nameserver 127.0.0.1\n")?;
        let layout = folder.join("image");
        image::write(&layout)?;
        Ok(World { node, ca: Authority::new("a CA of the fleet")?, upstream: Upstream::start()?, layout })
    }

    /// A registry with a certificate of our CA that holds [`IMAGE`] in `repository`; the node knows its name, and it goes on while the node is down. To be
    /// called before containerd starts, which reads /etc/hosts anew only every few seconds.
    pub fn registry(&self, name: &str, address: &str, repository: &str) -> Result<Registry> {
        self.registry_of(name, address, &[(repository, &self.layout)])
    }

    /// The same with these images, each in a repository.
    pub fn registry_of(&self, name: &str, address: &str, held: &[(&str, &Path)]) -> Result<Registry> {
        let demand = |repository: &str| Demand { listen: address.to_owned(), holds: vec![repository.to_owned()], ..Demand::default() };
        let held: Vec<(Demand, PathBuf)> = held.iter().map(|(repository, layout)| (demand(repository), layout.to_path_buf())).collect();
        self.server(name, address, move |ask| match ask.path() {
            "/v2/" => Answer::status(200).with("Docker-Distribution-Api-Version", "registry/2.0"),
            path => {
                let found = held.iter().find_map(|(demand, layout)| answer::content(demand, None, layout, path));
                found.unwrap_or_else(|| Answer::status(404))
            }
        })
    }

    /// The same of whatever answers so.
    pub fn server(&self, name: &str, address: &str, answers: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Result<Registry> {
        let certificate = Arc::new(Mutex::new(self.ca.sign(vec![name.to_owned()])?.certified()?));
        let arrived = Arrived::default();
        let shown = certificate.clone();
        let certificates = move |_: Option<&str>, _| Some(shown.lock().expect("no thread panics while it looks").clone());
        responder::listen(address, &arrived, Arc::new(certificates), Arc::new(answers))?;
        let mut hosts = self.node.read("/etc/hosts").unwrap_or_default();
        let _ = writeln!(hosts, "{} {name}", address.split(':').next().unwrap_or_default());
        self.node.write("/etc/hosts", 0o644, hosts)?;
        Ok(Registry { name: name.to_owned(), arrived, certificate })
    }

    /// Puts the spec on the node, and CAs beside it.
    pub fn spec(&self, text: &str, cas: &[(&str, &Authority)]) -> Result<()> {
        self.node.write("/etc/nodeprep/spec.toml", 0o644, text)?;
        for (name, authority) in cas {
            self.node.write(&format!("/etc/nodeprep/{name}"), 0o644, &authority.pair.certificate)?;
        }
        Ok(())
    }

    /// Runs nodeprep on the node as somebody who is logged in there.
    pub fn nodeprep(&self, words: &[&str]) -> Result<Run> {
        let line: Vec<&str> = ["nodeprep"].iter().chain(words).chain(&["--output", "json"]).copied().collect();
        Run::of(&self.node.try_run(&line)?).with_context(|| line.join(" "))
    }

    /// The same, and it must end with exit code 0.
    pub fn done(&self, words: &[&str]) -> Result<Run> {
        let run = self.nodeprep(words)?;
        ensure!(run.code == 0, "{words:?}: {run}");
        Ok(run)
    }

    /// A folder of the trial's own, outside of the node.
    pub fn scratch() -> PathBuf {
        Path::new(FOLDER).join("scratch")
    }

    /// All files of the node that are not the doing of whatever runs there.
    pub fn files(&self) -> Result<Tree> {
        let mut files = tree::read(&self.node.root())?;
        let busy = ["var/log", "var/lib/containerd", "var/lib/kubelet", "var/lib/systemd", "var/cache/ldconfig"].map(Path::new);
        files.retain(|path, _| !busy.iter().any(|folder| path.starts_with(folder)));
        Ok(files)
    }

    /// Starts a container of containerd's that is nothing but a process: what has to outlive a restart of the daemon.
    pub fn container(&self, name: &str) -> Result<()> {
        let root = format!("/srv/{name}");
        let files = format!("mkdir {root} && cp --parents -L /usr/bin/sleep $(ldd /usr/bin/sleep | grep -o '/[^ ]*') {root}");
        // No share of the processors: not every machine has a controller for them in the unified hierarchy.
        let run = format!("ctr --namespace k8s.io run --detach --cpu-shares=0 --rootfs {root} {name} /usr/bin/sleep infinity");
        self.node.run(&["sh", "-c", &format!("{files} && {run}")]).map(drop)
    }

    /// The containers and their processes, as containerd tells them.
    pub fn containers(&self) -> Result<Vec<(String, u32)>> {
        let told = self.node.run(&["ctr", "--namespace", "k8s.io", "task", "list"])?;
        let running = told.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<&str>>());
        let running = running.filter(|words| words.get(2) == Some(&"RUNNING"));
        running.map(|words| Ok((words[0].to_owned(), words[1].parse().with_context(|| told.clone())?))).collect()
    }

    /// Pulls [`IMAGE`] by CRI and fetches all of it.
    pub fn pull(&self) -> Result<Result<(), String>> {
        let inside = self.node.inside()?;
        inside.remove(IMAGE)?.map_err(|said| anyhow::anyhow!("removing {IMAGE}: {said}"))?;
        inside.pull(IMAGE)
    }

    /// The same, and it must succeed.
    pub fn pulls(&self) -> Result<()> {
        self.pull()?.map_err(|said| anyhow::anyhow!("pulling {IMAGE}: {said}"))
    }
}

/// The arguments of an apply that restarts nothing.
pub const APPLY: [&str; 3] = ["apply", "--activate", "never"];

/// How a run of nodeprep ended.
pub struct Run {
    pub code: i32,
    pub report: Value,
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}, changed {:?}, due {:?}", self.code, self.changed(), self.due())?;
        let parts = list(&self.report["parts"]).iter().map(|part| &part["problems"]);
        for problem in parts.chain([&self.report["problems"]]).flat_map(list).filter(|problem| problem["severity"] != "note") {
            write!(f, "\n{}", problem["what"].as_str().unwrap_or_default())?;
        }
        Ok(())
    }
}

impl Run {
    pub fn of(output: &Output) -> Result<Run> {
        let said = String::from_utf8_lossy(&output.stderr);
        let code = output.status.code().with_context(|| format!("{}\n{said}", output.status))?;
        let report = serde_json::from_slice(&output.stdout).with_context(|| format!("{}\n{said}", output.status))?;
        Ok(Run { code, report })
    }

    /// What is due, as `restart containerd.service`.
    pub fn due(&self) -> Vec<String> {
        let words = |due: &Value| -> Option<String> { Some(format!("{} {}", due["how"]["how"].as_str()?, due["how"]["what"].as_str()?)) };
        list(&self.report["due"]).iter().map(|due| words(due).unwrap_or_else(|| due.to_string())).collect()
    }

    /// The paths that were changed.
    pub fn changed(&self) -> Vec<&str> {
        let parts = list(&self.report["parts"]).iter();
        parts.flat_map(|part| list(&part["changes"])).filter_map(|change| change["path"].as_str()).collect()
    }

    /// What was found of a runtime.
    pub fn runtime(&self, name: &str) -> Result<&Value> {
        let mut found = list(&self.report["runtimes"]).iter();
        found.find(|found| found["runtime"] == name).with_context(|| format!("no {name} among {:#}", self.report["runtimes"]))
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub struct Registry {
    pub name: String,
    arrived: Arrived,
    certificate: Arc<Mutex<Arc<CertifiedKey>>>,
}

impl Registry {
    /// From now on it shows a certificate of this CA.
    pub fn certify(&self, authority: &Authority) -> Result<()> {
        *self.certificate.lock().expect("no thread panics while it looks") = authority.sign(vec![self.name.clone()])?.certified()?;
        Ok(())
    }

    /// What it was asked for since the last call.
    pub fn asked(&self) -> Vec<Ask> {
        self.arrived.take()
    }
}
