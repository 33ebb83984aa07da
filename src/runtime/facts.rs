//! Which runtimes are on the node, in which versions, and which configuration file each really reads. Pure.

use super::{FoundRuntime, Presence, Running, Runtime, Wish, unit};
use crate::model::path::NodePath;
use crate::model::snapshot::{Probes, Process};
use crate::model::tree::Tree;
use crate::model::version::Version;

/// What shows that a runtime is there, and its defaults.
struct Signs {
    runtime: Runtime,
    /// Program names; the folders are [`BIN_FOLDERS`].
    programs: &'static [&'static str],
    unit: Option<&'static str>,
    /// Folder that alone makes it a "maybe".
    folder: &'static str,
    /// Folders with configuration in it.
    inner: &'static [&'static str],
    config: &'static str,
    /// Flags of the daemon that name another configuration file.
    flags: &'static [&'static str],
    /// Flags of the daemon that name another socket.
    sockets: &'static [&'static str],
    /// Debian's and the vendor's names of the package.
    packages: &'static [&'static str],
}

const SIGNS: [Signs; 3] = [
    Signs {
        runtime: Runtime::Containerd,
        programs: &["containerd"],
        unit: Some("containerd.service"),
        folder: "/etc/containerd",
        inner: &["/etc/containerd/certs.d", "/etc/containerd/conf.d"],
        config: "/etc/containerd/config.toml",
        flags: &["--config", "-config", "-c"],
        sockets: &["--address", "-address", "-a"],
        packages: &["containerd", "containerd.io"],
    },
    Signs {
        runtime: Runtime::Crio,
        programs: &["crio"],
        unit: Some("crio.service"),
        folder: "/etc/crio",
        inner: &["/etc/crio/crio.conf.d"],
        config: "/etc/crio/crio.conf",
        flags: &["--config", "-c"],
        sockets: &["--listen"],
        packages: &["cri-o"],
    },
    Signs {
        runtime: Runtime::Podman,
        programs: &["podman", "buildah", "skopeo"],
        unit: None,
        folder: "/etc/containers",
        inner: &["/etc/containers/registries.conf.d", "/etc/containers/certs.d"],
        config: "/etc/containers/registries.conf",
        flags: &[],
        sockets: &[],
        packages: &["podman"],
    },
];

const BIN_FOLDERS: [&str; 4] = ["/usr/bin", "/usr/local/bin", "/usr/sbin", "/usr/local/sbin"];
/// The package database of Debian and its kin.
pub const DPKG_STATUS: &str = "/var/lib/dpkg/status";

/// Environment variables that change what a runtime asks; no others are kept.
fn matters(name: &str) -> bool {
    let upper = name.to_ascii_uppercase();
    upper.starts_with("SSL_CERT_")
        || upper.ends_with("_PROXY")
        || upper.contains("CONTAINER") && upper.contains("REGISTR")
        || matches!(name, "HOME" | "XDG_CONFIG_HOME" | "XDG_RUNTIME_DIR" | "REGISTRY_AUTH_FILE" | "DOCKER_CONFIG")
}

/// Configuration that another program generates at each start is not ours to edit.
fn is_generated(config: &NodePath) -> bool {
    ["/run", "/var/run", "/var/lib/rancher", "/var/snap"].into_iter().any(|folder| config.is_below(&NodePath::fixed(folder)))
}

/// What to read to know the runtimes. Package versions are asked for only where programs may not be run.
#[must_use]
pub fn wishes(tree: &Tree, probes: &Probes) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for signs in &SIGNS {
        wishes.extend(candidates(signs).map(Wish::path));
        wishes.push(Wish::path(NodePath::fixed(signs.folder)));
        wishes.extend(signs.unit.iter().flat_map(|name| unit::wishes(tree, name)));
        let unit = signs.unit.and_then(|name| unit::read(tree, name));
        wishes.extend(unit.and_then(|unit| started_by(&unit.exec, signs)).map(Wish::path));
    }
    if !probes.live {
        wishes.push(Wish::path(NodePath::fixed(DPKG_STATUS)));
    }
    wishes
}

/// Programs whose version is worth asking for.
#[must_use]
pub fn programs() -> Vec<NodePath> {
    SIGNS.iter().flat_map(candidates).collect()
}

/// Folders in which the configuration of runtimes is by default, whether they are there or not.
pub fn folders() -> impl Iterator<Item = NodePath> {
    SIGNS.iter().flat_map(|signs| std::iter::once(signs.folder).chain(signs.inner.iter().copied())).map(NodePath::fixed)
}

/// Where units of runtimes are looked for, and their names.
pub fn units() -> impl Iterator<Item = (NodePath, &'static str)> {
    let names = || SIGNS.iter().filter_map(|signs| signs.unit);
    unit::FOLDERS.into_iter().flat_map(move |folder| names().map(move |name| (NodePath::fixed(folder), name)))
}

fn candidates(signs: &Signs) -> impl Iterator<Item = NodePath> {
    let folder = |name: &'static str| BIN_FOLDERS.into_iter().map(move |folder| NodePath::fixed(folder).join(name));
    signs.programs.iter().flat_map(move |name| folder(name))
}

/// The program that a unit starts: of several with the runtime's name, it is the one that counts.
fn started_by(exec: &[String], signs: &Signs) -> Option<NodePath> {
    NodePath::new(exec.first()?).ok().filter(|path| signs.programs.contains(&path.name()))
}

/// The runtimes on the node; a containerd with a second configuration file is a second entry.
#[must_use]
pub fn found(tree: &Tree, probes: &Probes) -> Vec<FoundRuntime> {
    let mut found = Vec::new();
    for signs in &SIGNS {
        let unit = signs.unit.and_then(|name| Some((name, unit::read(tree, name)?)));
        let mut exec = unit.as_ref().map(|(_, unit)| unit.exec.clone()).unwrap_or_default();
        let program = started_by(&exec, signs).into_iter().chain(candidates(signs)).find(|path| tree.exists(path));
        let unit_file = unit.as_ref().and_then(|(_, unit)| unit.file.clone());
        let folder = NodePath::fixed(signs.folder);
        let (because, presence) = match (program.clone().or(unit_file), tree.exists(&folder)) {
            (Some(path), _) => (path, Presence::There),
            (None, true) => (folder, Presence::Maybe),
            (None, false) => continue,
        };
        let started: Vec<&Process> = probes.processes.iter().filter(|process| process.exe.name() == signs.programs[0]).collect();
        // the unit starts something else (a wrapper): its arguments are not the daemon's
        exec.drain(..exec.len().min(1));
        let default = NodePath::fixed(signs.config);
        let base = FoundRuntime {
            runtime: signs.runtime,
            presence,
            because,
            installed: program.as_ref().and_then(|path| version(tree, probes, path, signs)),
            running: None,
            config: flag(&exec, signs.flags).unwrap_or_else(|| default.clone()),
            unit: unit.as_ref().map(|(name, _)| (*name).to_owned()),
            env: kept(unit.as_ref().map(|(_, unit)| unit.env.as_slice()).unwrap_or_default()),
        };
        let mut of_processes: Vec<FoundRuntime> = Vec::new();
        if signs.runtime == Runtime::Podman
            && let Some(process) = started.iter().find(|process| serves(process))
        {
            // its commands have no process that lasts, and read the same files in an environment of their own
            let version = probes.versions.get(&process.exe).filter(|_| !process.replaced).and_then(|text| Version::find(text));
            let running = Running { pid: process.pid, started: process.started, version, socket: None };
            let unit = process.unit.clone().or_else(|| Some("podman.service".to_owned()));
            of_processes.push(FoundRuntime { running: Some(running), unit, ..base.clone() });
        }
        for process in started {
            let config = flag(&process.args, signs.flags).unwrap_or_else(|| default.clone());
            let known = of_processes.iter().any(|found| found.config == config);
            if signs.runtime == Runtime::Podman || known || is_generated(&config) {
                continue;
            }
            let at_its_place = probes.versions.get(&process.exe).filter(|_| !process.replaced);
            let version = at_its_place.or_else(|| probes.versions.get(&process.image())).and_then(|text| Version::find(text));
            let running = Running { pid: process.pid, started: process.started, version, socket: flag(&process.args, signs.sockets) };
            of_processes.push(FoundRuntime { running: Some(running), config, env: kept(&process.env), ..base.clone() });
        }
        if of_processes.is_empty() && !is_generated(&base.config) {
            of_processes.push(base);
        }
        found.append(&mut of_processes);
    }
    found
}

/// The configuration file that a runtime's process reads, by its arguments; `None` for what is no runtime.
#[must_use]
pub fn started_with(process: &Process) -> Option<NodePath> {
    let signs = SIGNS.iter().find(|signs| signs.programs[0] == process.exe.name())?;
    Some(flag(&process.args, signs.flags).unwrap_or_else(|| NodePath::fixed(signs.config)))
}

/// What a daemon writes when it has read everything anew after a reload, and when it could not; `None` where the end of the
/// reload is all there is to see (`runtime-semantics.md` 2.8).
#[must_use]
pub const fn reload_says(runtime: Runtime) -> Option<(&'static str, &'static str)> {
    match runtime {
        Runtime::Crio => Some(("Configuration reload completed", "Unable to reload configuration")),
        Runtime::Containerd | Runtime::Podman => None,
    }
}

/// The signal that makes a daemon read its configuration anew; `None` where that is not what a signal does (containerd ends at
/// SIGHUP). Podman's API service at SIGHUP forgets what it has read of registries.conf (libpod `runtime.go`, `Reload`; seen with
/// 4.3.1), and its unit has no `ExecReload`. That it was sent is all there is to see: what it says depends on its log level.
#[must_use]
pub const fn reload_signal(runtime: Runtime) -> Option<&'static str> {
    match runtime {
        Runtime::Podman => Some("HUP"),
        Runtime::Containerd | Runtime::Crio => None,
    }
}

/// Whether a process is Podman's API service and not one of its commands, which read everything anew: flags of podman's own may
/// stand before the words.
fn serves(process: &Process) -> bool {
    process.args.windows(2).any(|words| words == ["system", "service"])
}

/// The unit of dockerd.
pub const DOCKER_UNIT: &str = "docker.service";
/// Where dockerd's configuration is, for [`docker_keeps`].
pub const DOCKER: &str = "/etc/docker/daemon.json";

/// Whether dockerd lets its containers run while it is stopped: `live-restore` in its file or on its command line.
#[must_use]
pub fn docker_keeps(tree: &Tree, probes: &Probes) -> bool {
    let file = tree.bytes(&NodePath::fixed(DOCKER)).and_then(|bytes| serde_json::from_slice::<serde_json::Value>(bytes).ok());
    let said = file.and_then(|file| file.get("live-restore")?.as_bool());
    let flags = ["--live-restore", "--live-restore=true"];
    let mut daemons = probes.processes.iter().filter(|process| process.exe.name() == "dockerd");
    said == Some(true) || daemons.any(|daemon| daemon.args.iter().any(|arg| flags.contains(&arg.as_str())))
}

/// `found`, and those of `named` that are not on the node at all, as they will be once they are installed: for images that are
/// prepared before their runtime is there.
#[must_use]
pub fn with_named(mut found: Vec<FoundRuntime>, named: &[Runtime]) -> Vec<FoundRuntime> {
    for signs in SIGNS.iter().filter(|signs| named.contains(&signs.runtime)) {
        if found.iter().all(|found| found.runtime != signs.runtime) {
            found.push(FoundRuntime {
                runtime: signs.runtime,
                presence: Presence::Maybe,
                because: NodePath::fixed(signs.folder),
                installed: None,
                running: None,
                config: NodePath::fixed(signs.config),
                unit: signs.unit.map(ToOwned::to_owned),
                env: Vec::new(),
            });
        }
    }
    found
}

fn kept(env: &[(String, String)]) -> Vec<(String, String)> {
    env.iter().filter(|(name, _)| matters(name)).cloned().collect()
}

/// The value of `--flag VALUE` or `--flag=VALUE`.
fn flag(args: &[String], names: &[&str]) -> Option<NodePath> {
    let mut args = args.iter();
    while let Some(arg) = args.next() {
        let value = match arg.split_once('=') {
            Some((name, value)) if names.contains(&name) => Some(value.to_owned()),
            _ if names.contains(&arg.as_str()) => args.next().cloned(),
            _ => None,
        };
        if let Some(value) = value {
            return NodePath::new(&value).ok();
        }
    }
    None
}

/// What the program printed, else the package's version.
fn version(tree: &Tree, probes: &Probes, program: &NodePath, signs: &Signs) -> Option<Version> {
    if let Some(text) = probes.versions.get(program) {
        return Version::find(text);
    }
    // a program outside /usr/bin or /usr/sbin does not come from the package
    if program.parent().is_none_or(|folder| !matches!(folder.as_str(), "/usr/bin" | "/usr/sbin" | "/bin" | "/sbin")) {
        return None;
    }
    let status = tree.text(&NodePath::fixed(DPKG_STATUS))?;
    let mut stanza = (false, false, None);
    for line in status.lines().chain([""]) {
        match line.split_once(": ") {
            Some(("Package", name)) => stanza.0 = signs.packages.contains(&name),
            Some(("Status", status)) => stanza.1 = status == "install ok installed",
            Some(("Version", version)) => stanza.2 = Version::find(version),
            None if line.is_empty() => {
                if let (true, true, Some(version)) = stanza {
                    return Some(version);
                }
                stanza = (false, false, None);
            }
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::Time;
    use crate::model::tree::Entry;

    fn node(files: &[(&str, &str)]) -> (Tree, Probes) {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        for (path, text) in files {
            tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
        }
        (tree, Probes::default())
    }

    fn process(pid: u32, args: &[&str]) -> Process {
        Process {
            pid,
            started: Time(5),
            exe: NodePath::fixed("/usr/bin/containerd"),
            replaced: false,
            args: args.iter().map(ToString::to_string).collect(),
            env: vec![("HTTPS_PROXY".into(), "p".into()), ("SECRET_TOKEN".into(), "x".into())],
            unit: None,
        }
    }

    #[test]
    fn a_folder_alone_is_a_maybe_and_a_package_gives_the_version() {
        let status = "Package: podman\nStatus: deinstall ok config-files\nVersion: 9.9.9\n\nPackage: containerd\nStatus: install ok installed\nVersion: 1.6.20~ds1-1+deb12u1\n\n";
        let (tree, probes) = node(&[("/usr/bin/containerd", ""), (DPKG_STATUS, status), ("/etc/containers/policy.json", "")]);
        let found = found(&tree, &probes);
        let facts: Vec<_> = found.iter().map(|found| (found.runtime, found.presence, found.installed)).collect();
        assert_eq!(facts, [(Runtime::Containerd, Presence::There, Some(Version(1, 6, 20))), (Runtime::Podman, Presence::Maybe, None)]);
    }

    #[test]
    fn the_file_that_the_daemon_really_reads() {
        let unit = ("/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/local/bin/containerd --config=/opt/c.toml\n");
        let (tree, mut probes) = node(&[unit, ("/usr/local/bin/containerd", "")]);
        assert_eq!(super::found(&tree, &probes)[0].config, NodePath::fixed("/opt/c.toml"));
        let docker = process(8, &["containerd", "--config", "/var/run/docker/containerd/containerd.toml"]);
        probes.processes = vec![process(7, &["containerd", "-c", "/run.toml"]), docker, process(9, &["containerd"])];
        let found = found(&tree, &probes);
        let configs: Vec<_> = found.iter().map(|found| found.config.as_str()).collect();
        assert_eq!(configs, ["/run.toml", "/etc/containerd/config.toml"]);
        assert_eq!(found[0].running.as_ref().unwrap().pid, 7);
        assert_eq!(found[0].env, [("HTTPS_PROXY".to_owned(), "p".to_owned())]);
    }

    #[test]
    fn podmans_api_service_runs_and_its_commands_do_not() {
        let (tree, mut probes) = node(&[("/usr/bin/podman", "")]);
        let podman = |pid, args: &[&str]| Process { exe: NodePath::fixed("/usr/bin/podman"), ..process(pid, args) };
        probes.processes = vec![podman(5, &["podman", "pull", "x"]), podman(6, &["podman", "system", "prune"])];
        assert_eq!((super::found(&tree, &probes)[0].running.as_ref(), super::found(&tree, &probes)[0].unit_name()), (None, None));
        let service = podman(7, &["/usr/bin/podman", "--log-level=info", "system", "service"]);
        probes.processes.push(Process { unit: Some("api.service".to_owned()), ..service });
        let found = super::found(&tree, &probes);
        assert_eq!((found.len(), found[0].running.as_ref().map(|process| process.pid)), (1, Some(7)));
        assert_eq!(found[0].unit_name().as_deref(), Some("api.service"));
    }

    /// An update of the package replaces the program under a running daemon; both then have a version of their own.
    #[test]
    fn the_running_version_and_the_one_on_disk() {
        let (tree, mut probes) = node(&[("/usr/bin/containerd", "")]);
        let said = |version: &str| format!("containerd containerd.io {version} 0123");
        probes.processes = vec![Process { replaced: true, ..process(7, &["containerd"]) }];
        probes.versions = [("/usr/bin/containerd", "2.1.9"), ("/proc/7/exe", "1.7.24")]
            .map(|(path, version)| (NodePath::fixed(path), said(version)))
            .into();
        let versions = |found: &FoundRuntime| (found.running.as_ref().unwrap().version, found.installed);
        assert_eq!(versions(&super::found(&tree, &probes)[0]), (Some(Version(1, 7, 24)), Some(Version(2, 1, 9))));
        // what cannot be asked any more is not taken for what lies there now
        probes.versions.remove(&NodePath::fixed("/proc/7/exe"));
        assert_eq!(versions(&super::found(&tree, &probes)[0]), (None, Some(Version(2, 1, 9))));
        // started by hand from elsewhere
        probes.processes = vec![Process { exe: NodePath::fixed("/opt/containerd"), ..process(7, &["containerd"]) }];
        probes.versions.insert(NodePath::fixed("/proc/7/exe"), said("1.6.20"));
        assert_eq!(versions(&super::found(&tree, &probes)[0]), (Some(Version(1, 6, 20)), Some(Version(2, 1, 9))));
    }

    /// Beside the distribution's program somebody unpacked another, and the unit starts that one.
    #[test]
    fn of_several_programs_the_one_that_the_unit_starts() {
        let unit = |program: &str| format!("[Service]\nExecStart={program} --log-level info\n");
        let status = "Package: containerd\nStatus: install ok installed\nVersion: 1.6.20\n";
        for (program, there, want) in [
            ("/usr/local/bin/containerd", true, Some(Version(2, 1, 9))),
            ("/usr/bin/containerd", true, Some(Version(1, 6, 20))),
            // of a program elsewhere nothing is known unless it runs; the package is of another
            ("/opt/containerd/bin/containerd", true, None),
            ("/opt/containerd/bin/containerd", false, Some(Version(1, 6, 20))),
            ("/opt/wrapper", true, Some(Version(1, 6, 20))),
        ] {
            let text = unit(program);
            let mut files = vec![("/etc/systemd/system/containerd.service", text.as_str()), (DPKG_STATUS, status)];
            files.extend(["/usr/bin/containerd", "/usr/local/bin/containerd"].map(|path| (path, "")));
            files.extend(there.then_some((program, "")));
            let (tree, mut probes) = node(&files);
            probes.versions.insert(NodePath::fixed("/usr/local/bin/containerd"), "containerd 2.1.9".to_owned());
            assert_eq!(super::found(&tree, &probes)[0].installed, want, "{program}");
            let wished = wishes(&tree, &probes).contains(&Wish::path(NodePath::new(program).unwrap()));
            assert_eq!(wished, program != "/opt/wrapper", "{program}");
        }
    }

    /// Rule 24 of `runtime-semantics.md` 8.4: what k3s, RKE2 or Docker generate at each start is theirs alone.
    #[test]
    fn rule_24_generated_configuration_is_left_alone() {
        let (tree, mut probes) = node(&[]);
        let k3s =
            ["containerd", "-c", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml", "-a", "/run/k3s/containerd/containerd.sock"];
        let rke2 = ["containerd", "-c", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"];
        let docker = ["containerd", "--config", "/run/docker/containerd/containerd.toml"];
        probes.processes = vec![process(1, &k3s), process(2, &rke2), process(3, &docker)];
        assert_eq!(super::found(&tree, &probes), []);
        let (tree, _) = node(&[("/usr/bin/containerd", "")]);
        let found = super::found(&tree, &probes);
        assert_eq!(found.iter().map(|found| found.config.as_str()).collect::<Vec<_>>(), ["/etc/containerd/config.toml"]);
    }
}
