//! Registries on loopback: certificates from a CA made on the spot, docker-registry as the case demands or a program of our own for what it cannot answer,
//! and the access log.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::answer;
use crate::case::{Ca, Demand};
use crate::certificate::{self, Authority};
use crate::image::TAG;
use crate::responder::{self, Arrived};
use anyhow::{Context, Result, bail, ensure};

pub struct Registry {
    pub demand: Demand,
    folder: PathBuf,
    running: Option<Running>,
    /// What arrived at a program of our own.
    arrived: Arrived,
    /// What our own program gives out, once it is filled.
    layout: Arc<OnceLock<PathBuf>>,
}

/// The program itself; it stops when this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Registry {
    /// Starts what the case demands. `beside` gets a certificate that the spec is to name, under `name`.
    pub fn start(demand: &Demand, folder: &Path, known: &Authority, unknown: &Authority, beside: &Path) -> Result<Registry> {
        let (arrived, layout) = (Arrived::default(), Arc::new(OnceLock::new()));
        let mut registry = Registry { demand: demand.clone(), folder: folder.to_owned(), running: None, arrived, layout };
        fs::create_dir_all(folder.join("data")).with_context(|| folder.display().to_string())?;
        if demand.dead {
            return Ok(registry);
        }
        let mut names = vec![demand.address().to_owned()];
        names.extend(demand.name.clone());
        let pair = match demand.ca {
            Ca::Known => known.sign(names)?,
            Ca::Unknown => unknown.sign(names)?,
            Ca::Expired => known.expired(names)?,
            Ca::CommonName => known.common_name(names.pop().unwrap_or_default())?,
            Ca::Itself { flag } => {
                let pair = certificate::itself(names, flag)?;
                fs::write(beside, &pair.certificate).with_context(|| beside.display().to_string())?;
                pair
            }
        };
        if let Some(what) = demand.answer {
            let certified = pair.certified()?;
            let tls = !demand.plain;
            let certificates = move |_: Option<&str>, _| tls.then(|| certified.clone());
            let answers = answer::answers(demand, what, &registry.layout);
            responder::listen(&demand.listen, &registry.arrived, Arc::new(certificates), answers)?;
            return Ok(registry);
        }
        let path = |name: &str| folder.join(name).display().to_string();
        let mut http = Vec::new();
        if !demand.plain {
            pair.write(&folder.join("server.crt"), &folder.join("server.key"))?;
            http.push(format!("  tls:\n    certificate: {}\n    key: {}\n", path("server.crt"), path("server.key")));
            if demand.client {
                known.write(&folder.join("clients.crt"))?;
                http.push(format!("    clientcas: [{}]\n", path("clients.crt")));
            }
        }
        if let Some(line) = &demand.htpasswd {
            fs::write(folder.join("htpasswd"), format!("{line}\n")).context("htpasswd")?;
            http.push(format!("auth:\n  htpasswd:\n    realm: real\n    path: {}\n", path("htpasswd")));
        }
        registry.running = Some(registry.serve(&demand.listen, &http.concat(), "registry")?);
        Ok(registry)
    }

    /// Puts the image in: through a second, open registry on the same data, so that it does not matter what the first one demands.
    pub fn fill(&self, layout: &Path) -> Result<()> {
        if self.demand.holds.is_empty() || self.demand.dead {
            return Ok(());
        }
        if self.demand.answer.is_some() {
            let _ = self.layout.set(layout.to_owned());
            return Ok(());
        }
        let loader = "127.0.0.250:5000";
        let _running = self.serve(loader, "", "loader")?;
        for image in &self.demand.holds {
            let output = Command::new("skopeo")
                .args(["--insecure-policy", "copy", "--preserve-digests", "--dest-tls-verify=false"])
                .arg(format!("oci:{}:{TAG}", layout.display()))
                .arg(format!("docker://{loader}/{image}:{TAG}"))
                .output()
                .context("skopeo")?;
            ensure!(output.status.success(), "pushing {image}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(())
    }

    fn serve(&self, listen: &str, http: &str, name: &str) -> Result<Running> {
        let config = self.folder.join(format!("{name}.yml"));
        // Level debug, because the line that tells when a request arrived is of that level; the access log's own line comes after the answer, too late to
        // tell which of two registries was asked first.
        let text = format!(
            "version: 0.1\nlog:\n  level: debug\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: \"{listen}\"\n{http}",
            self.folder.join("data").display()
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let log = File::options().append(true).create(true).open(self.folder.join(format!("{name}.log"))).context("the registry's log")?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("the registry's log")?)
            .stderr(log)
            .spawn()
            .context("docker-registry")?;
        let mut running = Running(child);
        let deadline = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(listen).is_err() {
            if let Some(status) = running.0.try_wait().context("docker-registry")? {
                bail!("docker-registry ended with {status}; see {}", self.folder.display());
            }
            ensure!(Instant::now() < deadline, "docker-registry does not listen on {listen}; see {}", self.folder.display());
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(running)
    }

    fn log(&self) -> String {
        fs::read(self.folder.join("registry.log")).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// A request that arrived at a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Request {
    pub time: String,
    pub host: String,
    pub path: String,
}

/// How far each log was read, and which paths the registries have been asked for up to there.
#[derive(Default)]
pub struct Mark {
    read: Vec<usize>,
    paths: BTreeSet<String>,
}

/// What arrived at any of the registries since `mark`, in the order of arrival.
pub fn requests(registries: &[Registry], mark: &mut Mark) -> Result<Vec<Request>> {
    mark.read.resize(registries.len(), 0);
    let mut found = Vec::new();
    let mut strays = Vec::new();
    for (registry, read) in registries.iter().zip(&mut mark.read) {
        let log = registry.log();
        // The last line may still be growing.
        let end = log.rfind('\n').map_or(0, |end| end + 1);
        for line in log[*read..end].lines() {
            if let Some(request) = arrival(line)? {
                found.push(request);
            } else if let Some(path) = access(line) {
                strays.push(Request { time: "~".to_owned(), host: registry.demand.listen.clone(), path });
            }
        }
        *read = end;
    }
    found.extend(registries.iter().flat_map(|registry| registry.arrived.take()).map(|ask| Request {
        path: ask.path().to_owned(),
        time: ask.time,
        host: ask.host,
    }));
    mark.paths.extend(found.iter().map(|request| request.path.clone()));
    // A path that the registry does not even route (no /v2, say) has no arrival, only its line in the access log.
    found.extend(strays.into_iter().filter(|stray| !mark.paths.contains(&stray.path)));
    found.sort();
    Ok(found)
}

/// The line that docker-registry writes when a request arrives, before it looks at credentials or answers.
pub fn arrival(line: &str) -> Result<Option<Request>> {
    if !line.contains("msg=\"authorizing request\"") {
        return Ok(None);
    }
    // Values are quoted only where they need it.
    let field = |name: &str| -> Result<&str> {
        let value = line.split_once(&format!("{name}=")).with_context(|| format!("no {name} in the registry's log: {line}"))?.1;
        let ended = match value.strip_prefix('"') {
            Some(quoted) => quoted.split('"').next(),
            None => value.split(' ').next(),
        };
        ended.with_context(|| format!("{name} has no end: {line}"))
    };
    // Trailing zeros of a second's fraction are left out; with them, text sorts as time.
    let time = format!("{:0<29}", field("time")?.trim_end_matches('Z'));
    Ok(Some(Request { time, host: field("http.request.host")?.to_owned(), path: without_query(field("http.request.uri")?) }))
}

/// The path in a line of the access log.
fn access(line: &str) -> Option<String> {
    let (method, rest) = line.split_once("] \"")?.1.split_once(' ')?;
    method.bytes().all(|byte| byte.is_ascii_uppercase()).then(|| without_query(rest.split(' ').next().unwrap_or_default()))
}

fn without_query(path: &str) -> String {
    path.split_once('?').map_or(path, |(path, _)| path).to_owned()
}
