//! Random specs, node roots and images. Specs are text and go through the real loader; roots are lists of files, links and
//! folders with modes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// Registries that are mirrored.
pub const SOURCES: [&str; 8] = [
    "docker.io",
    "quay.io",
    "registry.k8s.io",
    "ghcr.io",
    "reg.example.com:8443",
    "quay.example.com:443",
    "10.1.2.3:5000",
    "localhost:5000",
];
/// Paths below them; several are siblings that share a beginning.
const PATHS: [&str; 5] = ["", "library", "team", "team-b", "team/app"];
/// Hosts that mirror; none of them is a source.
pub const MIRRORS: [&str; 6] = [
    "mirror.corp.example:5000",
    "harbor.corp.example",
    "cache.corp.example:5001",
    "10.0.0.5:5000",
    "second.corp.example:443",
    "plain.corp.example:8080",
];
const PREFIXES: [&str; 5] = ["", "docker.io", "hub", "hub/proxy", "quay.io"];

/// One mirror of a spec.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub source: &'static str,
    pub path: &'static str,
    pub endpoints: Vec<(usize, &'static str)>,
    pub fallback: Option<bool>,
}

/// What a spec is made from.
#[derive(Clone, Debug)]
pub struct Draft {
    pub never: bool,
    pub mirrors: Vec<Mirror>,
    /// Per mirror host: plain HTTP, not verified, login, client certificate.
    pub access: Vec<Access>,
    pub cas: usize,
    pub narrow_ca: bool,
    pub pause: bool,
    pub deny: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Default,
    Plain,
    Insecure,
    Login,
    Client,
}

fn mirror() -> impl Strategy<Value = Mirror> {
    let endpoints = subsequence((0..MIRRORS.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle();
    let path = select(&PATHS[..]);
    (select(&SOURCES[..]), path, endpoints, vec(select(&PREFIXES[..]), 3), proptest::option::weighted(0.3, any::<bool>())).prop_map(
        |(source, path, hosts, prefixes, fallback)| Mirror { source, path, endpoints: hosts.into_iter().zip(prefixes).collect(), fallback },
    )
}

/// A spec of up to six mirrors. One in eight has sources below host level, which containerd cannot express.
pub fn draft() -> impl Strategy<Value = Draft> {
    let access = prop_oneof![
        5 => Just(Access::Default),
        1 => Just(Access::Plain),
        1 => Just(Access::Insecure),
        2 => Just(Access::Login),
        2 => Just(Access::Client),
    ];
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.125), proptest::bool::weighted(0.3));
    (vec(mirror(), 1..6), vec(access, MIRRORS.len()), 0..3usize, switches).prop_map(
        |(mut mirrors, access, cas, (never, narrow_ca, pause, below, deny))| {
            let mut seen = BTreeSet::new();
            mirrors.iter_mut().filter(|_| !below).for_each(|mirror| mirror.path = "");
            let mirrors = mirrors.into_iter().filter(|mirror| seen.insert((mirror.source, mirror.path))).collect();
            Draft { never, mirrors, access, cas, narrow_ca, pause, deny }
        },
    )
}

impl Draft {
    /// The document.
    pub fn text(&self) -> String {
        let mut text = format!("version = 1\nfallback = \"{}\"\n", if self.never { "never" } else { "upstream" });
        if self.deny {
            text.push_str("unlisted = \"deny\"\n");
        }
        for number in 0..self.cas {
            let _ = write!(text, "\n[[ca]]\nname = \"ca-{number}\"\nfile = \"ca-{number}.pem\"\n");
        }
        for (host, access) in MIRRORS.iter().zip(&self.access) {
            let own = match access {
                Access::Default | Access::Plain => continue,
                Access::Insecure => "insecure = true\n",
                Access::Login if self.narrow_ca => "credentials = \"pull.json\"\ncredentials_by = \"config\"\n",
                Access::Login => "credentials = \"pull.json\"\n",
                Access::Client => "client_cert = \"client.crt\"\nclient_key = \"client.key\"\n",
            };
            let ca = if self.narrow_ca && self.cas > 0 { "ca = [\"ca-0\"]\n" } else { "" };
            let _ = write!(text, "\n[[registry]]\nhost = \"{host}\"\n{own}{ca}");
        }
        for mirror in &self.mirrors {
            let slash = if mirror.path.is_empty() { "" } else { "/" };
            let endpoints: Vec<String> = mirror
                .endpoints
                .iter()
                .map(|(host, prefix)| {
                    let scheme = if self.access[*host] == Access::Plain { "http://" } else { "" };
                    let slash = if prefix.is_empty() { "" } else { "/" };
                    format!("\"{scheme}{}{slash}{prefix}\"", MIRRORS[*host])
                })
                .collect();
            let _ = write!(
                text,
                "\n[[mirror]]\nsource = \"{}{slash}{}\"\nendpoints = [{}]\n",
                mirror.source,
                mirror.path,
                endpoints.join(", ")
            );
            if let Some(never) = mirror.fallback {
                let _ = writeln!(text, "fallback = \"{}\"", if never { "never" } else { "upstream" });
            }
        }
        if self.pause {
            text.push_str("\n[runtime]\npause_image = \"harbor.corp.example/k8s/pause:3.10\"\n");
        }
        text
    }
}

/// Images at sources, beside them, at mirrors, and elsewhere.
pub fn images() -> impl Strategy<Value = Vec<String>> {
    let host = prop_oneof![
        6 => select(&SOURCES[..]).prop_map(ToOwned::to_owned),
        3 => select(&MIRRORS[..]).prop_map(ToOwned::to_owned),
        1 => Just("registry-1.docker.io".to_owned()),
        1 => Just("quay.io:443".to_owned()),
        1 => Just("elsewhere.example.org".to_owned()),
    ];
    let path = select(&["library/nginx", "team/app", "team/app/deep", "team-b/x", "x", "team", "library"][..]);
    let reference = prop_oneof![Just(":1.25".to_owned()), Just(String::new()), Just(format!("@sha256:{}", "a".repeat(64)))];
    vec((host, path, reference).prop_map(|(host, path, reference)| format!("{host}/{path}{reference}")), 8)
}

/// What stands on a node before.
#[derive(Clone, Debug)]
pub enum What {
    File(String, u32),
    Link(&'static str),
}

/// A Debian node with containerd and Podman, and with files of others: comments, foreign keys, foreign registries, links,
/// odd modes.
pub fn node() -> impl Strategy<Value = BTreeMap<&'static str, What>> {
    let version = select(&["1.6.20~ds1-1", "1.7.24~ds1-6", "2.1.9-1", "2.3.4-1", ""][..]);
    let config = select(&CONFIGS[..]);
    let extras = btree_set(select(&EXTRAS[..]), 0..5);
    (version, config, extras, any::<bool>()).prop_map(|(version, config, extras, linked)| {
        let mut node = BTreeMap::new();
        let mut file = |path, text: String, mode| node.insert(path, What::File(text, mode));
        file("etc/os-release", "ID=debian\n".into(), 0o644);
        file("usr/bin/containerd", String::new(), 0o755);
        file("usr/bin/podman", String::new(), 0o755);
        file("usr/sbin/update-ca-certificates", String::new(), 0o755);
        file("etc/ssl/certs/ca-certificates.crt", String::new(), 0o644);
        if !version.is_empty() {
            file("var/lib/dpkg/status", format!("Package: containerd\nStatus: install ok installed\nVersion: {version}\n\n"), 0o644);
        }
        if !config.is_empty() {
            file("etc/containerd/config.toml", config.to_owned(), 0o640);
        }
        for (path, text, mode) in extras {
            file(path, text.to_owned(), mode);
        }
        if linked {
            node.insert("etc/containers/certs.d", What::Link("../../srv/certs"));
        }
        node
    })
}

const CONFIGS: [&str; 4] = [
    "",
    "version = 2\n# a comment\n[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"registry.k8s.io/pause:3.8\" # theirs\n",
    "version = 2\r\n\r\n[plugins]\r\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\r\nsnapshotter = 'overlayfs'\r\n",
    "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\n[debug]\nlevel = \"info\"\n",
];

const EXTRAS: [(&str, &str, u32); 6] = [
    ("etc/containerd/certs.d/elsewhere.example.org/hosts.toml", "[host.\"https://x.example.org\"]\n", 0o600),
    ("etc/containers/registries.conf", "# theirs\nunqualified-search-registries = [\"docker.io\"]\n", 0o644),
    ("etc/containers/registries.conf.d/10-theirs.conf", "[[registry]]\nlocation = \"elsewhere.example.org\"\n", 0o644),
    ("root/.config/containers/auth.json", "{ \"auths\" : { \"elsewhere.example.org\" : {\"auth\":\"dTpw\"} },\n  \"other\": 1 }\n", 0o600),
    ("usr/local/share/ca-certificates/theirs.crt", "not ours\n", 0o644),
    ("etc/containers/certs.d.note", "x", 0o777),
];
