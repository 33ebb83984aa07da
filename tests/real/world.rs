//! A world in which every name leads to one listener: what a runtime asks there, whoever it believes to talk to, is told in the words of the vectors.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};
use rustls::sign::CertifiedKey;

use crate::certificate::Authority;
use crate::responder::{self, Answer, Arrived, Ask};
use crate::upstream;

/// How the listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// TLS with certificates that the hosts of the vector are expected to be believed for.
    Believed,
    /// TLS with certificates that nobody vouches for.
    Strangers,
    /// No TLS.
    Plain,
}

impl Stage {
    pub const ALL: [Stage; 3] = [Stage::Believed, Stage::Strangers, Stage::Plain];

    /// Does a request in `scheme`, with this `trust` (a word of the vectors), arrive?
    pub fn arrives(self, scheme: &str, trust: &str) -> bool {
        match self {
            Stage::Believed => true,
            Stage::Strangers => scheme == "http" || trust == "unverified",
            Stage::Plain => scheme == "http",
        }
    }
}

/// In whose name the certificates of a host are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signer {
    System,
    Vector,
    Nobody,
}

pub struct World {
    /// In the trust store of the node.
    pub system: Arc<Authority>,
    /// Where a vector says `@certificate` and `@key`.
    pub vector: Arc<Authority>,
    pub arrived: Arrived,
    shown: Arc<Mutex<(Stage, BTreeMap<String, Signer>)>>,
}

impl World {
    /// Listens for all hosts of `urls` (and on the usual ports) with `answers`.
    pub fn start(urls: &[String], answers: impl Fn(&Ask) -> Answer + Send + Sync + 'static) -> Result<World> {
        let world = World {
            system: Arc::new(Authority::new("the system's CA")?),
            vector: Arc::new(Authority::new("the vector's CA")?),
            arrived: Arrived::default(),
            shown: Arc::new(Mutex::new((Stage::Believed, BTreeMap::new()))),
        };
        upstream::name_server(|_| {})?;
        let mut ports = BTreeSet::from([80, 443, 5000]);
        let mut addresses = BTreeSet::new();
        for url in urls {
            let host = host(url);
            ports.extend(host.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok()));
            if let Ok(address) = bare(host).parse::<IpAddr>()
                && !address.is_loopback()
                && addresses.insert(address)
            {
                let added = Command::new("ip").args(["addr", "add", bare(host), "dev", "lo"]).output().context("ip")?;
                anyhow::ensure!(added.status.success(), "ip addr add {host}: {}", String::from_utf8_lossy(&added.stderr));
            }
        }
        let certificates = world.certificates()?;
        let answers: Arc<responder::Answers> = Arc::new(answers);
        for port in ports {
            responder::listen(&format!("[::]:{port}"), &world.arrived, certificates.clone(), answers.clone())?;
        }
        Ok(world)
    }

    fn certificates(&self) -> Result<Arc<responder::Certificates>> {
        let shown = self.shown.clone();
        let (system, vector, nobody) = (self.system.clone(), self.vector.clone(), Arc::new(Authority::new("nobody's CA")?));
        Ok(Arc::new(move |name: Option<&str>, address: IpAddr| -> Option<Arc<CertifiedKey>> {
            let name = name.map_or_else(|| address.to_canonical().to_string(), str::to_owned);
            let (stage, signers) = shown.lock().ok()?.clone();
            let signer = match (stage, signers.get(&name)) {
                (Stage::Plain, _) => return None,
                (Stage::Strangers, _) | (_, Some(Signer::Nobody)) => &nobody,
                (_, Some(Signer::Vector)) => &vector,
                (_, Some(Signer::System) | None) => &system,
            };
            signer.sign(vec![name]).ok()?.certified().ok()
        }))
    }

    pub fn show(&self, stage: Stage, signers: &BTreeMap<String, Signer>) {
        *self.shown.lock().expect("no thread panics while it looks") = (stage, signers.clone());
    }
}

/// Host and port of a URL.
pub fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// Without port and brackets.
pub fn bare(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}
