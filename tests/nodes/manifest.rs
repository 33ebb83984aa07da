//! What a DaemonSet says of its pod, read from the manifest that is shipped: trials and manifest cannot say different things.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use saphyr_parser::{Event, Parser};

/// As much of a pod as its runtime is told.
#[derive(Clone, Debug)]
pub struct Pod {
    pub host_pid: bool,
    pub host_network: bool,
    pub privileged: bool,
    pub read_only_root: bool,
    /// Behind the image's entry point.
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub mounts: Vec<Mount>,
    /// What kubelet asks, by name: `liveness`, `readiness`, `startup`.
    pub probes: BTreeMap<String, String>,
}

#[derive(Clone, Debug)]
pub struct Mount {
    /// In the container.
    pub path: String,
    pub read_only: bool,
    /// What is mounted on the node later is seen, too.
    pub follows: bool,
    pub volume: Volume,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Volume {
    Host(String),
    /// A folder of keys, as kubelet writes it; whether the pod waits for it.
    Keys {
        kind: Keys,
        optional: bool,
    },
    /// Empty, and gone with the pod.
    Empty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    ConfigMap,
    Secret,
}

impl Pod {
    /// Reads the pod of the DaemonSet in a file.
    pub fn read(file: &Path) -> Result<Pod> {
        let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
        let documents = Yaml::read(&text).with_context(|| file.display().to_string())?;
        let set = documents.iter().find(|document| document.at("kind").text() == Some("DaemonSet"));
        Self::of(set.context("there is no DaemonSet")?.at("spec").at("template").at("spec")).with_context(|| file.display().to_string())
    }

    fn of(spec: &Yaml) -> Result<Pod> {
        let [container] = spec.at("containers").list() else { bail!("not one container") };
        ensure!(spec.at("initContainers").list().is_empty(), "containers that run before are not known here");
        let security = container.at("securityContext");
        let pairs = container.at("env").list().iter().map(|variable| {
            let name = variable.at("name").text().context("a variable without a name")?;
            // what kubelet fills in: all that is asked for is the node's name
            let value = variable.at("value").text().or_else(|| (!variable.at("valueFrom").is_none()).then_some("node"));
            Ok((name.to_owned(), value.unwrap_or_default().to_owned()))
        });
        let env = pairs.collect::<Result<BTreeMap<String, String>>>()?;
        let expanded = |text: &str| env.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("$({name})"), value));
        let volumes = spec.at("volumes").list();
        let mount = |mount: &Yaml| -> Result<Mount> {
            let name = mount.at("name").text().context("a mount without a name")?;
            ensure!(mount.at("subPath").is_none(), "{name}: a subPath is never brought up to date");
            let volume = volumes.iter().find(|volume| volume.at("name").text() == Some(name));
            Ok(Mount {
                path: mount.at("mountPath").text().context("a mount without a path")?.to_owned(),
                read_only: mount.at("readOnly").is_true(),
                follows: mount.at("mountPropagation").text() == Some("HostToContainer"),
                volume: Volume::of(volume.with_context(|| format!("no volume {name}"))?).with_context(|| name.to_owned())?,
            })
        };
        let probe = |name: &str| -> Option<(String, String)> {
            let get = container.at(&format!("{name}Probe")).at("httpGet");
            let (host, port, path) = (get.at("host"), get.at("port"), get.at("path"));
            let named = container.at("ports").list().iter().find(|one| one.at("name").text().is_some() && one.at("name") == port);
            let port = named.map_or(port, |one| one.at("containerPort"));
            let host = host.text().unwrap_or("127.0.0.1");
            Some((name.to_owned(), format!("http://{host}:{}{}", port.text()?, path.text()?)))
        };
        Ok(Pod {
            host_pid: spec.at("hostPID").is_true(),
            host_network: spec.at("hostNetwork").is_true(),
            privileged: security.at("privileged").is_true(),
            read_only_root: security.at("readOnlyRootFilesystem").is_true(),
            args: container.at("args").list().iter().filter_map(Yaml::text).map(expanded).collect(),
            mounts: container.at("volumeMounts").list().iter().map(mount).collect::<Result<Vec<Mount>>>()?,
            probes: ["liveness", "readiness", "startup"].into_iter().filter_map(probe).collect(),
            env,
        })
    }

    /// The mount of this kind of folder.
    pub fn keys(&self, kind: Keys) -> Result<&Mount> {
        let found = self.mounts.iter().find(|mount| matches!(mount.volume, Volume::Keys { kind: found, .. } if found == kind));
        found.with_context(|| format!("no {kind:?} is mounted"))
    }
}

impl Volume {
    fn of(volume: &Yaml) -> Result<Volume> {
        let keys = |kind, of: &Yaml| Volume::Keys { kind, optional: of.at("optional").is_true() };
        Ok(match () {
            () if !volume.at("hostPath").is_none() => {
                Volume::Host(volume.at("hostPath").at("path").text().context("a hostPath without a path")?.to_owned())
            }
            () if !volume.at("configMap").is_none() => keys(Keys::ConfigMap, volume.at("configMap")),
            () if !volume.at("secret").is_none() => keys(Keys::Secret, volume.at("secret")),
            () if !volume.at("emptyDir").is_none() => Volume::Empty,
            () => bail!("a volume of a kind that is not known here"),
        })
    }
}

/// A YAML document, as far as manifests go: no anchors, no tags.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Yaml {
    None,
    Scalar(String),
    List(Vec<Yaml>),
    Map(Vec<(String, Yaml)>),
}

impl Yaml {
    fn read(text: &str) -> Result<Vec<Yaml>> {
        let mut events = Vec::new();
        for event in Parser::new_from_str(text) {
            events.push(event.map_err(|error| anyhow::anyhow!("{error}"))?.0);
        }
        let mut events = events.into_iter();
        let mut documents = Vec::new();
        while let Some(event) = events.next() {
            if matches!(event, Event::DocumentStart(_)) {
                documents.push(Self::node(&mut events)?.unwrap_or(Yaml::None));
            }
        }
        Ok(documents)
    }

    /// The next node; `None` where what it is in ends.
    fn node<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> Result<Option<Yaml>> {
        Ok(match events.next().context("it ends too early")? {
            Event::Scalar(value, ..) => Some(Yaml::Scalar(value.into_owned())),
            Event::SequenceStart(..) => {
                let mut list = Vec::new();
                while let Some(one) = Self::node(events)? {
                    list.push(one);
                }
                Some(Yaml::List(list))
            }
            Event::MappingStart(..) => {
                let mut map = Vec::new();
                while let Some(key) = Self::node(events)? {
                    let key = key.text().context("a key that is none")?.to_owned();
                    map.push((key, Self::node(events)?.context("a key without a value")?));
                }
                Some(Yaml::Map(map))
            }
            Event::SequenceEnd | Event::MappingEnd | Event::DocumentEnd => None,
            other => bail!("not known here: {other:?}"),
        })
    }

    fn at(&self, key: &str) -> &Yaml {
        static NONE: Yaml = Yaml::None;
        let Yaml::Map(map) = self else { return &NONE };
        map.iter().find(|(name, _)| name == key).map_or(&NONE, |(_, value)| value)
    }

    fn text(&self) -> Option<&str> {
        if let Yaml::Scalar(text) = self { Some(text) } else { None }
    }

    fn list(&self) -> &[Yaml] {
        if let Yaml::List(list) = self { list } else { &[] }
    }

    fn is_true(&self) -> bool {
        self.text() == Some("true")
    }

    fn is_none(&self) -> bool {
        *self == Yaml::None
    }
}
