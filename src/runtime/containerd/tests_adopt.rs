//! What is carried over: the same requests before and after, whatever somebody had written, in every class of versions.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use proptest::prelude::*;

use super::want::Known;
use super::*;
use crate::desired::{Part, Refusal, Want};
use crate::ledger::{Owned, Prior, Stamp};
use crate::model::digest::Digest;
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::resolution::{End, Resolution};
use crate::model::tree::Entry;
use crate::runtime::{FoundRuntime, Presence, Runtime};
use crate::spec::adopt::Adopted;
use crate::spec::{Access, Fallback, Spec};

const CONFIG: &str = "/etc/containerd/config.toml";

fn spec(fallback: Fallback, hosts: &[&str]) -> Spec {
    Spec {
        name: crate::spec::DEFAULT_NAME.to_owned(),
        file: "spec.toml".into(),
        digest: Digest::of(b""),
        references: Vec::new(),
        serial: None,
        fallback,
        runtimes: None,
        cas: vec![],
        access: hosts.iter().map(|host| (Host::new(host).unwrap(), Access::bare())).collect(),
        default_access: Access::bare(),
        mirrors: vec![],
        pause: None,
        unlisted: crate::spec::Unlisted::Allow,
        search: None,
        deny_domains: None,
        canaries: Vec::new(),
        passing: std::collections::BTreeSet::new(),
        exact: std::collections::BTreeSet::new(),
        names: crate::spec::Names::default(),
    }
}

fn on() -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: NodePath::fixed("/usr/bin/containerd"),
        installed: None,
        running: None,
        config: NodePath::fixed(CONFIG),
        unit: None,
        env: Vec::new(),
    }
}

fn tree(config: &str) -> Tree {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    tree.put(&NodePath::fixed(CONFIG), config.as_bytes(), 0o644);
    tree
}

fn lay(tree: &Tree, part: &Part) -> Tree {
    let mut after = tree.clone();
    for (path, want) in &part.wants {
        match want {
            Want::Whole(whole) => after.put(path, whole.content.bytes.clone(), whole.mode),
            Want::Keys(keys) => after.put(path, keys.content.bytes.clone(), keys.mode),
            Want::Gone(_) => after.remove(path),
        }
    }
    after
}

fn codes(part: &Part) -> Vec<&'static str> {
    match &part.refused {
        Some(Refusal::Cannot(problems) | Refusal::Conflict(problems)) => problems.iter().map(|problem| problem.code).collect(),
        None => Vec::new(),
    }
}

fn table(dialect: Dialect) -> &'static str {
    if dialect >= Dialect::V2_1 {
        "plugins.'io.containerd.cri.v1.images'.registry"
    } else {
        "plugins.\"io.containerd.grpc.v1.cri\".registry"
    }
}

fn version(dialect: Dialect) -> u8 {
    if dialect >= Dialect::V2_1 { 3 } else { 2 }
}

fn image(host: &str) -> ImageRef {
    ImageRef::parse(&format!("{host}/team/app:1")).unwrap()
}

/// What a later run knows.
fn known(part: &Part) -> (Adopted, Owned) {
    let keys = match &part.wants[&NodePath::fixed(CONFIG)] {
        Want::Keys(keys) => keys.edits.clone(),
        Want::Whole(_) | Want::Gone(_) => Vec::new(),
    };
    let owned = Owned {
        target: part.target.clone(),
        now: Stamp::Absent,
        origin: Prior::Absent,
        keys,
        format: Some(crate::format::KeyFormat::Toml),
        shared: false,
    };
    (part.adopted.clone(), owned)
}

const SOURCES: [&str; 6] = ["docker.io", "quay.io", "reg.example:5000", "m1.example", "*", "m2.example:5000"];
const HOSTS: [&str; 5] = ["m1.example", "m2.example:5000", "reg.example:5000", "quay.io", "registry-1.docker.io"];

#[derive(Clone, Debug)]
struct Config {
    mirrors: BTreeMap<usize, Vec<(usize, usize)>>,
    plain: Vec<bool>,
    logins: BTreeMap<usize, bool>,
    insecure: BTreeMap<usize, bool>,
    form: u8,
    contradicts: bool,
}

fn config() -> impl Strategy<Value = Config> {
    let endpoints = prop::collection::vec((0..HOSTS.len(), 0usize..6), 0..4);
    let mirrors = prop::collection::btree_map(0..SOURCES.len(), endpoints, 1..5);
    let by_host = || prop::collection::btree_map(0..HOSTS.len(), any::<bool>(), 0..4);
    (mirrors, prop::collection::vec(prop::bool::weighted(0.2), HOSTS.len()), by_host(), by_host(), 0u8..4, any::<bool>())
        .prop_map(|(mirrors, plain, logins, insecure, form, contradicts)| Config { mirrors, plain, logins, insecure, form, contradicts })
}

impl Config {
    fn text(&self, dialect: Dialect) -> String {
        let top = table(dialect);
        let mut text = format!("# ours\nversion = {}\nroot = '/srv' # where\n\n[{top}]\n", version(dialect));
        if self.contradicts {
            text.push_str("  config_path = '/etc/containerd/certs.d'\n");
        }
        let mut inline = String::new();
        let mut tables = String::new();
        for (source, endpoints) in &self.mirrors {
            let source = SOURCES[*source];
            let urls: Vec<String> = endpoints.iter().map(|(host, path)| self.url(*host, *path)).collect();
            let list = format!("{urls:?}");
            let _ = match self.form {
                0 => writeln!(inline, "  mirrors.{source:?}.endpoint = {list}"),
                1 => writeln!(inline, "  mirrors.{source:?} = {{ endpoint = {list} }} # by hand"),
                _ => writeln!(tables, "  [{top}.mirrors.{source:?}] # by hand\n    endpoint = {}\n", list.replace(", ", ",\n  ")),
            };
        }
        for host in self.logins.iter().filter(|(_, on)| **on).map(|(host, _)| host) {
            let name = HOSTS[*host];
            let _ = writeln!(tables, "  [{top}.configs.{name:?}.auth]\n    username = 'user{host}'\n    password = 'hunter{host}'");
        }
        for (host, on) in &self.insecure {
            let _ = writeln!(tables, "  [{top}.configs.{:?}.tls]\n    insecure_skip_verify = {on}", HOSTS[*host]);
        }
        format!("{text}{inline}{tables}[debug]\n  level = 'info' # end")
    }

    fn url(&self, host: usize, path: usize) -> String {
        let scheme = if self.plain[host] { "http" } else { "https" };
        format!("{scheme}://{}{}", HOSTS[host], ["", "", "/v2", "/v2/team", "/api", "/v2/a/v2"][path])
    }
}

/// What is compared: without the registry itself under `never`.
fn asked(resolution: &Resolution, fallback: Fallback) -> Vec<crate::model::resolution::AttemptKey> {
    let counts = |attempt: &&crate::model::resolution::Attempt| fallback == Fallback::Upstream || !attempt.upstream;
    let mut resolution = resolution.clone();
    resolution.attempts = resolution.attempts.iter().filter(counts).cloned().collect();
    resolution.settled().0
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Either it is refused, or every image is asked for as before; the second run wants the same, and taking our keys back
    /// gives the values back.
    #[test]
    fn the_same_requests_before_and_after(config in config(), class in 0..Dialect::ALL.len(), never in any::<bool>()) {
        let dialect = Dialect::ALL[class];
        let fallback = if never { Fallback::Never } else { Fallback::Upstream };
        let text = config.text(dialect);
        let tree = tree(&text);
        let spec = spec(fallback, &[]);
        let part = want(&spec, &on(), &tree, &[dialect]);
        if part.refused.is_some() {
            // the same endpoint twice, a registry that is its own mirror in some other way
            prop_assert!(codes(&part).iter().all(|code| ["legacy-registry", "hosts-toml-rule"].contains(code)), "{:?}\n{text}", part.refused);
            return Ok(());
        }
        let after = lay(&tree, &part);
        let (before_view, after_view) = (View::new(&tree, &on(), dialect), View::new(&after, &on(), dialect));
        let names = (0..SOURCES.len()).filter(|source| SOURCES[*source] != "*").map(|source| SOURCES[source]).chain(["ghcr.io"]);
        for name in names {
            let image = image(name);
            let Some(before) = before_view.resolve_by_mirrors(&image) else { continue };
            // an endpoint by http is asked by http directly, too: told apart from a source in `*` only
            let own = !config.mirrors.contains_key(&SOURCES.iter().position(|source| *source == name).unwrap_or(9));
            if own && HOSTS.iter().position(|host| *host == name).is_some_and(|host| config.plain[host]) {
                continue;
            }
            let got = after_view.resolve(&image);
            prop_assert!(!matches!(got.end, End::Broken(_)) || asked(&before, fallback).is_empty(), "{:?}\n{text}", got.end);
            let stays_open = got.attempts.iter().all(|attempt| attempt.upstream);
            if !(never && stays_open) {
                prop_assert_eq!(asked(&before, fallback), asked(&got, fallback), "{} on {:?}\n{}", name, dialect, text);
            }
            if never && !stays_open {
                prop_assert!(!got.attempts.iter().any(|attempt| attempt.upstream && !HOSTS.contains(&attempt.host.as_str())), "{got:?}\n{text}");
            }
        }
        let (adopted, owned) = known(&part);
        let owned = BTreeMap::from([(on().config, owned.into())]);
        let again = want_knowing(&spec, &on(), &after, &[dialect], Known { adopted: Some(&adopted), owned: Some(&owned), ..Known::default() });
        prop_assert_eq!(again.wants.keys().collect::<Vec<_>>(), part.wants.keys().collect::<Vec<_>>());
        for (path, want) in &again.wants {
            match (want, &part.wants[path]) {
                (Want::Whole(now), Want::Whole(then)) => prop_assert_eq!(&now.content, &then.content),
                (Want::Keys(now), Want::Keys(then)) => {
                    prop_assert_eq!(&now.content.bytes, &then.content.bytes);
                    prop_assert!(now.edits.is_empty());
                    prop_assert!(then.edits.iter().all(|edit| now.wanted.contains(&edit.key)), "{:?} {:?}", now.wanted, then.edits);
                    // somebody adds a line; our keys come out and theirs go back in
                    let theirs = format!("{}\n# theirs\n", String::from_utf8_lossy(&then.content.bytes));
                    let undone = crate::format::config_toml::undo(&theirs, &then.edits);
                    prop_assert!(undone.is_ok(), "{undone:?}\n{theirs}");
                    let back = self::tree(&undone.unwrap_or_default());
                    let view = View::new(&back, &on(), dialect);
                    for name in ["quay.io", "docker.io", "ghcr.io"] {
                        let before = before_view.resolve_by_mirrors(&image(name)).map(|resolution| resolution.key());
                        prop_assert_eq!(before, view.resolve_by_mirrors(&image(name)).map(|resolution| resolution.key()));
                    }
                }
                _ => prop_assert!(false),
            }
        }
        // everything else of the file is still there, in order
        let Want::Keys(keys) = &part.wants[&NodePath::fixed(CONFIG)] else { return Ok(()) };
        let new = String::from_utf8_lossy(&keys.content.bytes).into_owned();
        prop_assert!(new.starts_with(&format!("# ours\nversion = {}\nroot = '/srv' # where\n", version(dialect))), "{new}");
        prop_assert!(new.contains("[debug]\n  level = 'info' # end"), "{new}");
        prop_assert!(!new.contains("mirrors."), "{new}");
        if dialect.transfers() {
            prop_assert!(!new.contains("hunter"), "{new}");
        }
    }
}

/// A host that the spec names is reached as it says; its login is carried over where the spec has none.
#[test]
fn the_spec_wins_where_it_speaks() {
    let text = format!(
        "version = 2\n[{0}.mirrors.\"quay.io\"]\nendpoint = [\"https://m1.example\"]\n[{0}.mirrors.\"m1.example\"]\nendpoint = [\"https://m2.example\"]\n\
         [{0}.configs.\"m1.example\".auth]\nusername = \"u\"\npassword = \"hunter22\"\n[{0}.configs.\"m1.example\".tls]\ninsecure_skip_verify = true\n",
        table(Dialect::V1_7_32)
    );
    let mut named = spec(Fallback::Upstream, &["m1.example"]);
    let part = want(&named, &on(), &tree(&text), &[Dialect::V1_7_32]);
    assert_eq!(codes(&part), [""; 0]);
    let view = View::new(&lay(&tree(&text), &part), &on(), Dialect::V1_7_32);
    let direct = view.resolve(&image("m1.example"));
    assert_eq!(direct.attempts.len(), 1, "not by m2.example: {direct:?}");
    assert!(matches!(direct.attempts[0].auth, crate::model::resolution::Auth::Basic(_)));
    assert_eq!(direct.attempts[0].trust, crate::model::resolution::Trust::Unverified);
    // whoever says something of trust says all of it
    named.access.get_mut(&Host::fixed("m1.example")).unwrap().scheme = crate::model::endpoint::Scheme::Http;
    let part = want(&named, &on(), &tree(&text), &[Dialect::V1_7_32]);
    let view = View::new(&lay(&tree(&text), &part), &on(), Dialect::V1_7_32);
    assert_eq!(view.resolve(&image("m1.example")).attempts[0].scheme, crate::model::endpoint::Scheme::Http);
    assert!(!format!("{:?}{:?}", part.adopted, part.spec).contains("hunter22"));
    // only root may read what holds the login
    let Want::Whole(whole) = &part.wants[&NodePath::fixed("/etc/containerd/certs.d/m1.example/hosts.toml")] else { panic!() };
    assert_eq!(whole.mode, 0o600);
}

/// Logins alone are in nobody's way.
#[test]
fn what_is_in_nobodys_way_stays() {
    let login = |key: &str| {
        let top = table(Dialect::V1_7_32);
        format!("version = 2\n[{top}]\nconfig_path = \"/etc/containerd/certs.d\"\n[{top}.configs.\"m1.example\".auth]\n{key} = \"abcd\"\n")
    };
    for (key, named, adopted, refused) in [
        ("auth", false, false, false),
        ("identitytoken", false, false, false),
        ("auth", true, true, false),
        ("identitytoken", true, false, true),
    ] {
        let hosts: &[&str] = if named { &["m1.example"] } else { &[] };
        let part = want(&spec(Fallback::Never, hosts), &on(), &tree(&login(key)), &[Dialect::V1_7_32]);
        assert_eq!((!part.adopted.is_empty(), !codes(&part).is_empty()), (adopted, refused), "{key} {named}");
    }
}

/// The ledger keeps what was carried over, and an older ledger has nothing of it.
#[test]
fn adopted_is_kept_as_json() {
    let text = format!(
        "version = 2\n[{0}.mirrors.\"*\"]\nendpoint = [\"https://m1.example/x\"]\n[{0}.configs.\"m1.example\".auth]\nusername = \"u\"\npassword = \"p\"\n",
        table(Dialect::V1_7_32)
    );
    let part = want(&spec(Fallback::Never, &[]), &on(), &tree(&text), &[Dialect::V1_7_32]);
    let json = serde_json::to_string(&part.adopted).unwrap();
    assert_eq!(serde_json::from_str::<Adopted>(&json).unwrap(), part.adopted);
    assert_eq!(part.secrets.len(), crate::format::auth_json::forms(&crate::model::secret::Secret::new("u:p")).len());
}
