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
/// Sources that may be blocked: none of them is mirrored.
const BLOCKED: [&str; 5] = ["gcr.io", "evil.example.org:5000", "quay.io/team/evil", "blocked.example.org", "*.blocked.example.org"];
/// Registries that are mirrored together, in one list of hosts.
const TOGETHER: [&str; 3] = ["nvcr.io", "public.ecr.aws", "registry.gitlab.example"];
const PREFIXES: [&str; 5] = ["", "docker.io", "hub", "hub/proxy", "quay.io"];

/// Sources that are for more than one registry, and the runtimes that they are for.
const WIDE: [(&str, &str); 6] = [
    ("*", "containerd"),
    ("*", "containerd"),
    ("*.example.com", "podman"),
    ("*.io", "podman"),
    ("*.corp.example", "podman"),
    ("*.hub.corp.example", "podman"),
];

/// One mirror of a spec.
#[derive(Clone, Debug)]
pub struct Mirror {
    pub source: &'static str,
    pub path: &'static str,
    pub endpoints: Vec<(usize, &'static str)>,
    /// What the first endpoint has of its own.
    pub options: &'static str,
    pub fallback: Option<bool>,
    /// The runtime that it is for, where it is not for all.
    pub only: Option<&'static str>,
    /// With a path: `widen`, and the path at the end of each endpoint. Without: written as a list of hosts.
    pub other: bool,
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
    pub blocked: Vec<&'static str>,
    /// How many registries are mirrored in one list of hosts.
    pub together: usize,
    /// The document is YAML.
    pub yaml: bool,
    /// `deny_domains` and `search`.
    pub own_domains: bool,
    pub search: bool,
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
    // a header and `pull = "tag"` are each refused by one of the families
    let options = prop_oneof![
        120 => Just(""),
        16 => Just("pull = \"digest\""),
        8 => Just("timeout = \"1500ms\""),
        8 => Just("pull = \"digest\", timeout = \"1m\""),
        1 => Just("pull = \"tag\""),
        1 => Just("header = { X-Team = \"a\", X-Site = \"b\" }"),
    ];
    let only = proptest::option::weighted(0.15, select(&["containerd", "podman"][..]));
    let fallback = proptest::option::weighted(0.3, any::<bool>());
    let prefixes = vec(select(&PREFIXES[..]), 3);
    let other = proptest::bool::weighted(0.3);
    (select(&SOURCES[..]), path, endpoints, prefixes, fallback, only, other, options).prop_map(
        |(source, path, hosts, prefixes, fallback, only, other, options)| {
            let endpoints = hosts.into_iter().zip(prefixes).collect();
            Mirror { source, path, endpoints, options, fallback, only, other }
        },
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
    let blocked = (
        vec(select(&BLOCKED[..]), 0..3),
        proptest::bool::weighted(0.3),
        proptest::bool::weighted(0.3),
        0..=TOGETHER.len(),
        proptest::bool::weighted(0.3),
    );
    let switches = (any::<bool>(), any::<bool>(), any::<bool>(), proptest::bool::weighted(0.125), proptest::bool::weighted(0.3));
    // now and then one is for everybody, which somebody cannot express
    let wide = vec((mirror(), select(&WIDE[..]), proptest::bool::weighted(0.03)), 0..3);
    (vec(mirror(), 1..6), wide, vec(access, MIRRORS.len()), 0..3usize, switches, blocked).prop_map(
        |(mut mirrors, wide, access, cas, (never, narrow_ca, pause, below, deny), (mut blocked, own_domains, search, together, yaml))| {
            blocked.sort_unstable();
            blocked.dedup();
            blocked.retain(|source| below || !source.contains('/'));
            let mut seen = BTreeSet::new();
            mirrors.iter_mut().filter(|_| !below).for_each(|mirror| mirror.path = "");
            let wide = wide.into_iter().map(|(mirror, (source, only), all)| {
                // beside `deny`, all of it can only be closed
                let fallback = if source == "*" && deny { Some(true) } else { mirror.fallback };
                Mirror { source, path: "", only: (!all).then_some(only), other: false, fallback, ..mirror }
            });
            mirrors.extend(wide);
            let mirrors = mirrors.into_iter().filter(|mirror| seen.insert((mirror.source, mirror.path))).collect();
            Draft { never, mirrors, access, cas, narrow_ca, pause, deny, blocked, together, yaml, own_domains, search }
        },
    )
}

impl Draft {
    /// Whether it speaks of registries that it does not name.
    pub fn of_others(&self) -> bool {
        self.deny || self.mirrors.iter().any(|mirror| mirror.source == "*")
    }

    /// The document, and the name of its file.
    pub fn document(&self) -> (&'static str, String) {
        if !self.yaml {
            return ("spec.toml", self.text());
        }
        let document: toml_edit::DocumentMut = self.text().parse().expect("TOML");
        let mut yaml = String::new();
        for (key, item) in document.iter() {
            let _ = writeln!(yaml, "{key}: {}", flow(item));
        }
        ("spec.yaml", yaml)
    }

    /// The document in TOML.
    pub fn text(&self) -> String {
        let mut text = format!("version = 1\nfallback = \"{}\"\n", if self.never { "never" } else { "upstream" });
        if self.deny {
            text.push_str("unlisted = \"deny\"\n");
            if self.own_domains {
                text.push_str("deny_domains = [\"io\", \"corp.example\", \"example.org\"]\n");
            }
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
            let end = match (mirror.other, mirror.path) {
                (false, _) => String::new(),
                (true, "") if mirror.source.contains(':') => String::new(),
                (true, "") => "/{host}".to_owned(),
                (true, path) => format!("/{path}"),
            };
            let endpoints: Vec<String> = mirror
                .endpoints
                .iter()
                .enumerate()
                .map(|(number, (host, prefix))| {
                    let scheme = if self.access[*host] == Access::Plain { "http://" } else { "" };
                    let slash = if prefix.is_empty() { "" } else { "/" };
                    let location = format!("\"{scheme}{}{slash}{prefix}{end}\"", MIRRORS[*host]);
                    if number > 0 || mirror.options.is_empty() {
                        return location;
                    }
                    format!("{{ location = {location}, {} }}", mirror.options)
                })
                .collect();
            let source = match (mirror.other, mirror.path) {
                (true, "") => format!("hosts = [\"{}\"]", mirror.source),
                (_, path) => format!("source = \"{}{slash}{path}\"", mirror.source),
            };
            let _ = write!(text, "\n[[mirror]]\n{source}\nendpoints = [{}]\n", endpoints.join(", "));
            if mirror.other && !mirror.path.is_empty() {
                text.push_str("widen = true\n");
            }
            if let Some(only) = mirror.only {
                let _ = writeln!(text, "runtimes = [\"{only}\"]");
            }
            if let Some(never) = mirror.fallback {
                let _ = writeln!(text, "fallback = \"{}\"", if never { "never" } else { "upstream" });
            }
        }
        for source in &self.blocked {
            let _ = write!(text, "\n[[blocked]]\nsource = \"{source}\"\n");
            // which hosts.toml cannot say
            if source.starts_with('*') {
                text.push_str("runtimes = [\"podman\"]\n");
            }
        }
        if self.together > 0 {
            let hosts: Vec<String> = TOGETHER[..self.together].iter().map(|host| format!("\"{host}\"")).collect();
            let scheme = |host: usize| if self.access[host] == Access::Plain { "http://" } else { "" };
            let endpoints = format!("\"{}{}/{{host}}\", \"{}{}\"", scheme(1), MIRRORS[1], scheme(2), MIRRORS[2]);
            let _ = write!(text, "\n[[mirror]]\nhosts = [{}]\nendpoints = [{endpoints}]\n", hosts.join(", "));
        }
        // what is asked of a mirror from time to time says nothing about what is written
        if let Some(mirror) = self.mirrors.iter().find(|mirror| self.pause && !mirror.source.starts_with('*')) {
            let slash = if mirror.path.is_empty() { "" } else { "/" };
            let _ = write!(text, "\n[[canary]]\nimage = \"{}{slash}{}/nodeprep/canary:fresh\"\n", mirror.source, mirror.path);
        }
        if self.pause || self.search {
            text.push_str("\n[runtime]\n");
        }
        if self.pause {
            text.push_str("pause_image = \"harbor.corp.example/k8s/pause:3.10\"\n");
        }
        if self.search {
            text.push_str("search = [\"harbor.corp.example\", \"docker.io\"]\n");
        }
        text
    }
}

/// A value in YAML's flow style.
fn flow(item: &toml_edit::Item) -> String {
    if let Some(list) = item.as_array_of_tables() {
        let tables: Vec<String> = list.iter().map(table).collect();
        return format!("[{}]", tables.join(", "));
    }
    if let Some(list) = item.as_array() {
        let values: Vec<String> = list.iter().map(|value| flow(&toml_edit::Item::Value(value.clone()))).collect();
        return format!("[{}]", values.join(", "));
    }
    match (item.as_table_like(), item.as_str()) {
        (Some(like), _) => table(like),
        (None, Some(text)) => format!("{text:?}"),
        (None, None) => item.to_string().trim().to_owned(),
    }
}

fn table(table: &(impl toml_edit::TableLike + ?Sized)) -> String {
    let entries: Vec<String> = table.iter().map(|(key, item)| format!("{key}: {}", flow(item))).collect();
    format!("{{{}}}", entries.join(", "))
}

/// Images at sources, beside them, at mirrors, and elsewhere.
pub fn images() -> impl Strategy<Value = Vec<String>> {
    let host = prop_oneof![
        6 => select(&SOURCES[..]).prop_map(ToOwned::to_owned),
        3 => select(&MIRRORS[..]).prop_map(ToOwned::to_owned),
        1 => Just("registry-1.docker.io".to_owned()),
        1 => Just("quay.io:443".to_owned()),
        1 => Just("elsewhere.example.org".to_owned()),
        // below domains, and beside them
        2 => select(&["x.example.com", "a.b.hub.corp.example", "new.io", "hub.iodine.io", "new.io:5000", "localhost:6000", "corp.example"][..])
            .prop_map(ToOwned::to_owned),
        1 => select(&TOGETHER[..]).prop_map(ToOwned::to_owned),
        1 => select(&["x.blocked.example.org", "gcr.io", "gcr.io:443", "evil.example.org:5000", "quay.io/team/evil"][..]).prop_map(ToOwned::to_owned),
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
