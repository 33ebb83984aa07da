//! What we write is read by every version as the spec means it; what stands in the way is refused.

mod between;

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use proptest::prelude::*;

use super::*;
use crate::desired::{Part, Refusal, Want};
use crate::model::cert::{Cert, read_pem};
use crate::model::digest::Digest;
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::resolution::End;
use crate::model::secret::Secret;
use crate::model::tree::{Entry, Tree};
use crate::plan::How;
use crate::runtime::{FoundRuntime, Presence, Runtime};
use crate::spec::intent::intent;
use crate::spec::{Access, Client, Fallback, Login, Mirror, Pause, Source, Spec};

const CONFIG: &str = "/etc/containerd/config.toml";

fn path(text: &str) -> NodePath {
    NodePath::new(text).unwrap()
}

fn on() -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: path("/usr/bin/containerd"),
        installed: None,
        running: None,
        config: path(CONFIG),
        unit: Some("containerd.service".into()),
        env: vec![],
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    for (name, text) in files {
        tree.put(&path(name), text.as_bytes(), 0o644);
    }
    tree
}

fn made(name: &str) -> (Cert, Secret) {
    let params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (read_pem(pem.as_bytes()).unwrap().certs.remove(0), Secret::new(key.serialize_pem()))
}

static CERTS: LazyLock<[(Cert, Secret); 3]> = LazyLock::new(|| [made("a.example"), made("b.example"), made("c.example")]);

fn access(scheme: Scheme) -> Access {
    Access { scheme, ca: Arc::from([]), client: None, login: None, insecure: false, at: None }
}

fn spec(mirrors: Vec<Mirror>, access_of: BTreeMap<Host, Access>) -> Spec {
    Spec {
        name: crate::spec::DEFAULT_NAME.to_owned(),
        file: "spec.toml".into(),
        digest: Digest::of(b""),
        references: Vec::new(),
        serial: None,
        fallback: Fallback::Never,
        unlisted: crate::spec::Unlisted::Allow,
        runtimes: None,
        cas: vec![],
        access: access_of,
        default_access: Access { ca: Arc::from([CERTS[2].0.clone()]), ..access(Scheme::Https) },
        mirrors,
        pause: None,
        search: None,
        deny_domains: None,
        canaries: Vec::new(),
        passing: std::collections::BTreeSet::new(),
        exact: std::collections::BTreeSet::new(),
        names: crate::spec::Names::default(),
    }
}

fn mirror(source: &str, endpoints: &[(&str, &str)], fallback: Fallback) -> Mirror {
    let endpoint = |(host, prefix): &(&str, &str)| Endpoint::new(Scheme::Https, Host::new(host).unwrap(), RepoPath::new(prefix).unwrap());
    Mirror {
        source: Source::registry(Host::new(source).unwrap()),
        endpoints: endpoints.iter().map(endpoint).collect(),
        fallback,
        widen: false,
        runtimes: None,
        on_unready: crate::spec::OnUnready::Keep,
        at: Place::file("spec.toml"),
    }
}

/// One closed mirror of Docker Hub.
fn simple() -> Spec {
    let access_of = BTreeMap::from([(Host::fixed("m.corp"), access(Scheme::Https))]);
    spec(vec![mirror("docker.io", &[("m.corp", "hub")], Fallback::Never)], access_of)
}

fn overlay(tree: &Tree, part: &Part) -> Tree {
    let mut tree = tree.clone();
    for (path, want) in &part.wants {
        match want {
            Want::Whole(whole) => tree.put(path, whole.content.bytes.clone(), whole.mode),
            Want::Keys(keys) => tree.put(path, keys.content.bytes.clone(), keys.mode),
            Want::Gone(_) => tree.remove(path),
        }
    }
    tree
}

fn codes(part: &Part) -> Vec<&'static str> {
    match &part.refused {
        Some(Refusal::Cannot(problems)) => problems.iter().map(|problem| problem.code).collect(),
        _ => vec![],
    }
}

fn config_after(part: &Part) -> Option<(String, usize)> {
    match part.wants.get(&path(CONFIG)) {
        Some(Want::Keys(keys)) => Some((String::from_utf8(keys.content.bytes.clone()).unwrap(), keys.edits.len())),
        _ => None,
    }
}

/// 8.4, rule 8 and promise 4: under `never` no attempt goes upstream, under none of the source's names, on no version.
#[test]
fn closed_means_closed() {
    let spec = simple();
    for dialect in Dialect::ALL {
        let tree = overlay(&tree(&[]), &want(&spec, &on(), &tree(&[]), &[dialect]));
        for name in ["docker.io", "registry-1.docker.io", "docker.io:443", "registry-1.docker.io:443"] {
            let image = ImageRef::parse(&format!("{name}/a/b:1")).unwrap();
            let got = View::new(&tree, &on(), dialect).resolve(&image);
            assert_eq!(got.key(), intent(&spec, &image).key(), "{dialect:?} {name}");
            assert!(!got.reaches_upstream() && got.attempts.len() == 1);
            assert_eq!(got.attempts[0].manifest_url(&image), "https://m.corp/v2/hub/a/b/manifests/1");
            assert_eq!(got.attempts[0].from.as_ref().unwrap().line, 2);
        }
        // the mirror itself can be pulled from
        let own = View::new(&tree, &on(), dialect).resolve(&ImageRef::parse("m.corp/x:1").unwrap());
        assert_eq!(own.attempts[0].manifest_url(&own.image), "https://m.corp/v2/x/manifests/1");
    }
}

/// 8.4, rule 16: the source `*` is the folder of every registry that has none of its own.
#[test]
fn every_other_registry_is_the_folder_default() {
    let every = Mirror { source: Source::All, ..mirror("x", &[("m.corp", "all")], Fallback::Never) };
    let wants = want(&spec(vec![every], simple().access), &on(), &tree(&[]), &Dialect::ALL).wants;
    let Some(Want::Whole(file)) = wants.get(&path("/etc/containerd/certs.d/_default/hosts.toml")) else { panic!("{wants:?}") };
    assert!(String::from_utf8_lossy(&file.content.bytes).contains("server = \"https://m.corp/v2/all\"\n"), "{file:?}");
}

/// 8.4, rules 9 and 20: certificate files are named by content and referenced by absolute path; nothing temporary stands
/// where it is scanned.
#[test]
fn certificate_files() {
    let mut spec = simple();
    let (cert, key) = CERTS[1].clone();
    let client = Client { certs: vec![cert], key: key.clone() };
    let full = Access { ca: Arc::from([CERTS[0].0.clone(), CERTS[1].0.clone()]), client: Some(client), ..access(Scheme::Https) };
    spec.access.insert(Host::fixed("m.corp"), full);
    let part = want(&spec, &on(), &tree(&[]), &Dialect::ALL);
    let mut seen = 0;
    for (path, want) in &part.wants {
        let Want::Whole(whole) = want else { continue };
        assert!(!whole.stage.is_below(&NodePath::fixed("/etc/containerd/certs.d")) && whole.stage.as_str() != "/etc/containerd/certs.d");
        let is_key = path.as_str().strip_suffix(".key").is_some();
        assert_eq!((whole.addressed, whole.mode == 0o600), (path.as_str().starts_with("/etc/nodeprep/pki/"), is_key), "{path}");
        assert_eq!(whole.unit.is_some(), !whole.addressed);
        if is_key {
            assert_eq!(whole.content.secrets, std::slice::from_ref(&key));
            assert!(!format!("{:?}", whole.content).contains(std::str::from_utf8(key.expose()).unwrap().lines().nth(1).unwrap()));
        }
        seen += usize::from(whole.addressed);
    }
    assert_eq!(seen, 3);
    // named by what anybody may see
    let chain = Digest::of(CERTS[1].0.to_pem().as_bytes()).short();
    assert!(part.wants.contains_key(&path(&format!("/etc/nodeprep/pki/client-{chain}.key"))));
    let bundle = part.wants.iter().find(|(path, _)| path.as_str().contains("/ca-")).unwrap();
    let Want::Whole(bundle) = bundle.1 else { panic!() };
    assert_eq!(crate::model::cert::fingerprints(&bundle.content.bytes).len(), 2);
}

/// 8.4, rule 19 and promise 8: a file with a login is for root alone, and its diff shows nothing of it.
#[test]
fn logins_are_for_root_alone() {
    let mut spec = simple();
    let login = Some(Login { basic: Secret::new("user:hunter22"), by: crate::spec::LoginBy::Header });
    spec.access.insert(Host::fixed("m.corp"), Access { login, ..access(Scheme::Https) });
    for (path, want) in want(&spec, &on(), &tree(&[]), &Dialect::ALL).wants {
        let Want::Whole(whole) = want else { continue };
        if path.name() == "hosts.toml" {
            assert_eq!((whole.mode, whole.content.secrets.len()), (0o600, 3), "{path}");
            assert!(!format!("{whole:?}").contains("hunter22"));
        }
    }
}

/// Files of version 3 rule 1.x out where the version is unknown.
#[test]
fn plausible_versions() {
    let of = |config: &str| Dialect::plausible(&Dialect::ALL, &tree(&[(CONFIG, config)]), &path(CONFIG)).len();
    assert_eq!((of("version = 2\n"), of("version = 3\n"), of("version = 4\n"), of("x = ")), (10, 5, 1, 10));
}

/// 8.4, rules 10 and 11: which value, in which table; the missing file.
#[test]
fn config_path_is_set_where_needed() {
    let text = |config: &[(&str, &str)], dialects: &[Dialect]| config_after(&want(&simple(), &on(), &tree(config), dialects));
    let fresh = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
    assert_eq!(text(&[], &Dialect::ALL), Some((fresh.to_owned(), 3)));
    let v3 = text(&[(CONFIG, "version = 3\n")], &[Dialect::V2_2]).unwrap().0;
    assert_eq!(v3, fresh.replace("version = 2", "version = 3").replace("grpc.v1.cri", "cri.v1.images"));
    // a single folder is used as it is
    let other = fresh.replace("/etc/containerd/certs.d", "/srv/certs");
    let part = want(&simple(), &on(), &tree(&[(CONFIG, &other)]), &Dialect::ALL);
    assert_eq!(config_after(&part), Some((other, 0)));
    assert!(part.wants.contains_key(&path("/srv/certs/docker.io/hosts.toml")));
    // a list stays where it is honoured, and becomes one folder where it is not
    let list = fresh.replace("certs.d", "certs.d:/etc/docker/certs.d");
    assert_eq!(text(&[(CONFIG, &list)], &[Dialect::V1_7_32]), Some((list.clone(), 0)));
    let held = [(CONFIG, &*list), ("/etc/docker/certs.d/x/ca.crt", "")];
    let part = want(&simple(), &on(), &tree(&held), &[Dialect::V2_1]);
    assert_eq!(config_after(&part), Some((fresh.to_owned(), 1)));
    assert_eq!(part.notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["config-path-collapsed"]);
}

/// 8.4, rules 11, 12 and 13: what is not touched.
#[test]
fn refusals() {
    let table = "[plugins.\"io.containerd.grpc.v1.cri\".registry";
    let refused = |config: &str, dialects: &[Dialect]| {
        let part = want(
            &simple(),
            &on(),
            &tree(&[(CONFIG, config), ("/etc/containerd/d.toml", &format!("version = 2\n{table}]\nconfig_path = \"/d\"\n"))]),
            dialects,
        );
        assert!(part.refused.is_none() || part.wants.is_empty());
        codes(&part)
    };
    let (old, new) = ([Dialect::V1_7_32], [Dialect::V2_1]);
    assert_eq!(refused("version = 2\nx = ", &old), ["config-toml"]);
    for one in ["[plugins.cri.registry]\n", "version = 1\n[debug]\n"] {
        assert_eq!(refused(one, &old), [""; 0], "version 1 is read by 1.x");
        assert_eq!(refused(one, &new), ["config-toml-version"]);
        assert_eq!(refused(one, &[old[0], new[0]]), ["config-toml-version"]);
    }
    assert_eq!(refused("\u{feff}version = 2\n", &old), [""; 0]);
    assert_eq!(refused("\u{feff}version = 2\n", &new), ["config-toml"]);
    // what only one of the two can read is refused, whichever runs, and taken where the other is not there
    let lines = "version = 2\n[debug]\nx = {\n  a = 1\n}\n";
    assert_eq!(refused(lines, &old), [""; 0]);
    for both in [&new[..], &[old[0], new[0]], &[new[0], old[0]]] {
        assert_eq!(refused(lines, both), ["config-toml"]);
    }
    for newer in ["version = 2\n[debug]\nx = { a = 1, }\n", "version = 2\n[debug]\nx = \"\\e\"\n"] {
        assert_eq!((refused(newer, &old), refused(newer, &new)), (vec!["config-toml"], vec!["config-toml"]));
    }
    assert_eq!(refused("[debug]\n", &old), [""; 0]);
    let mirrors = |endpoint: &str| format!("version = 2\n{table}.mirrors.\"quay.io\"]\nendpoint = [\"{endpoint}\"]\n");
    assert_eq!(refused(&mirrors("https://m"), &new), [""; 0]);
    for bad in ["ftp://m", "https://m y", "https://"] {
        assert_eq!(refused(&mirrors(bad), &new), ["legacy-registry"], "{bad}");
    }
    let tls = format!("version = 2\n{table}.configs.\"m\".tls]\nca_file = \"/x\"\n");
    assert_eq!(refused(&tls, &old), ["legacy-registry"]);
    assert_eq!(refused(&tls, &new), [""; 0]);
    // the value of a drop-in wins: that folder is used; one that takes the pause image away cannot be won against on 1.x
    let drop_in = "version = 2\nimports = [\"d.toml\"]\n";
    assert_eq!(refused(drop_in, &old), [""; 0]);
    let mut with_pause = simple();
    with_pause.pause =
        Some(Pause { image: ImageRef::parse("m.corp/pause:3.10").unwrap(), at: Place::file("spec.toml"), held: BTreeMap::new() });
    let drop = format!("version = 2\n{table}]\nconfig_path = \"/d\"\n");
    let tree = tree(&[(CONFIG, drop_in), ("/etc/containerd/d.toml", &drop)]);
    assert_eq!(codes(&want(&with_pause, &on(), &tree, &old)), ["config-toml-overridden"]);
    assert_eq!(codes(&want(&with_pause, &on(), &tree, &new)), [""; 0]);
}

/// 8.4, rule 1: what would not be read as meant is not written.
#[test]
fn own_output_is_read_again() {
    let twice = mirror("docker.io", &[("m.corp", "hub"), ("m.corp", "hub")], Fallback::Upstream);
    let part = want(&spec(vec![twice], simple().access), &on(), &tree(&[]), &Dialect::ALL);
    assert_eq!(codes(&part), ["hosts-toml-rule"]);
}

#[test]
fn disabled_cri_is_left_alone() {
    let part = want(&simple(), &on(), &tree(&[(CONFIG, "disabled_plugins = [\"cri\"]\n")]), &Dialect::ALL);
    assert!(part.wants.is_empty() && part.refused.is_none());
    assert_eq!(part.notes[0].code, "cri-disabled");
}

#[test]
fn a_pause_image_that_is_kept_back_leaves_what_is_there() {
    let mut spec = simple();
    let held = BTreeMap::from([(Runtime::Containerd, ("it is not there".to_owned(), "push it".to_owned()))]);
    spec.pause = Some(Pause { image: ImageRef::parse("m.corp/pause:2").unwrap(), at: Place::file("spec.toml"), held });
    for there in ["", "sandbox_image = \"m.corp/pause:1\"\n"] {
        let config = format!("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\n{there}");
        let part = want(&spec, &on(), &tree(&[(CONFIG, &config)]), &[Dialect::V1_7_32]);
        let (text, _) = config_after(&part).unwrap();
        assert!(text.contains("config_path") && text.contains(there) && !text.contains("pause:2"), "{text}");
        // what an earlier run has set is not undone
        let Some(Want::Keys(keys)) = part.wants.get(&path(CONFIG)) else { panic!("{part:?}") };
        assert!(keys.wanted.iter().any(|key| key.last().is_some_and(|last| last == "sandbox_image")), "{:?}", keys.wanted);
        assert!(part.keeps_back());
    }
}

#[test]
fn pause_image_by_file_version() {
    let mut spec = simple();
    spec.pause = Some(Pause { image: ImageRef::parse("m.corp/pause:3.10").unwrap(), at: Place::file("spec.toml"), held: BTreeMap::new() });
    for (version, dialect, line) in [
        (2, Dialect::V1_6, "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"m.corp/pause:3.10\"\n"),
        (2, Dialect::V2_3, "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"m.corp/pause:3.10\"\n"),
        (3, Dialect::V2_3, "[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"m.corp/pause:3.10\"\n"),
    ] {
        let part = want(&spec, &on(), &tree(&[(CONFIG, &format!("version = {version}\n"))]), &[dialect]);
        let (text, _) = config_after(&part).unwrap();
        assert!(text.contains(line), "{text}");
    }
}

/// 8.4, rule 14.
#[test]
fn activations() {
    let config = [path(CONFIG), path("/etc/containerd/conf.d/x.toml")];
    for quiet in ["/etc/containerd/certs.d/docker.io/hosts.toml", "/etc/nodeprep/pki/ca-0.pem"] {
        assert_eq!(activation(&on(), &config, &path(quiet)).0, How::Nothing);
    }
    for loud in &config {
        assert_eq!(activation(&on(), &config, loud).0, How::Restart("containerd.service".into()));
    }
}

#[test]
fn wishes_follow_what_is_known() {
    let ask = |tree: &Tree| wishes(&on(), tree).into_iter().map(|wish| format!("{}/{}", wish.path, wish.depth)).collect::<Vec<_>>();
    let empty = ask(&tree(&[]));
    assert!(empty.contains(&format!("{CONFIG}/0")) && empty.contains(&"/etc/containerd/certs.d/2".to_owned()));
    let config = "version = 2\nimports = [\"conf.d/*.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/a:/b\"\n";
    let hosts = "server = \"https://x\"\n[host.\"https://m\"]\nca = \"m.pem\"\nclient = [[\"/c\", \"k\"]]\n";
    let all = ask(&tree(&[(CONFIG, config), ("/b/x/hosts.toml", hosts)]));
    for wanted in ["/etc/containerd/conf.d/1", "/a/2", "/b/2", "/b/x/m.pem/0", "/c/0", "/b/x/k/0"] {
        assert!(all.contains(&wanted.to_owned()), "{wanted} in {all:?}");
    }
}

/// 1.8: without `config_path`, the endpoints of `registry.mirrors`, then the registry itself.
#[test]
fn legacy_mirrors() {
    let registry = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry";
    let config = format!(
        "{registry}.mirrors.\"*\"]\nendpoint = [\"http://m:5000\", \"https://h/v2/p\"]\n{}.mirrors.\"own.io\"]\nendpoint = [\"https://own.io\"]\n\
         {}.configs.\"h\".auth]\nusername = \"u\"\npassword = \"p\"\n",
        &registry[12..],
        &registry[12..]
    );
    let tree = tree(&[(CONFIG, &config)]);
    for dialect in Dialect::ALL {
        let urls = |image: &str| {
            let resolution = View::new(&tree, &on(), dialect).resolve(&ImageRef::parse(image).unwrap());
            resolution.attempts.iter().map(|attempt| attempt.manifest_url(&resolution.image)).collect::<Vec<_>>()
        };
        let want =
            ["http://m:5000/v2/a/b/manifests/1", "https://h/v2/p/a/b/manifests/1", "https://registry-1.docker.io/v2/a/b/manifests/1"];
        assert_eq!(urls("a/b:1"), want, "{dialect:?}");
        assert_eq!(urls("own.io/a:1"), ["https://own.io/v2/a/manifests/1"]);
    }
}

fn any_access() -> impl Strategy<Value = Access> {
    (0..4usize, 0..4usize, any::<bool>()).prop_map(|(kind, cas, login)| Access {
        scheme: if kind == 0 { Scheme::Http } else { Scheme::Https },
        ca: CERTS[..cas].iter().map(|(cert, _)| cert.clone()).collect(),
        client: (kind == 1 || kind == 2).then(|| Client { certs: vec![CERTS[1].0.clone()], key: CERTS[1].1.clone() }),
        login: login.then(|| Login { basic: Secret::new("user:pass\"word"), by: crate::spec::LoginBy::Header }),
        insecure: kind == 2,
        at: None,
    })
}

const SOURCES: [&str; 9] = [
    "docker.io",
    "registry-1.docker.io",
    "quay.io",
    "quay.io:443",
    "reg.local:5000",
    "[2001:db8::1]",
    "[2001:db8::1]:5000",
    "localhost:5000",
    "ghcr.io",
];
const ENDPOINTS: [&str; 8] =
    ["m.corp", "m.corp:443", "m.corp:5000", "quay.io", "10.0.0.1:80", "[2001:db8::2]:5000", "harbor.corp", "localhost:5001"];
const PREFIXES: [&str; 4] = ["", "hub", "a/b", "v2"];

fn any_spec() -> impl Strategy<Value = Spec> {
    let endpoints = prop::collection::btree_set((0..ENDPOINTS.len(), 0..PREFIXES.len()), 1..4);
    let mirrors = prop::collection::btree_map(0..SOURCES.len(), (endpoints, any::<bool>()), 0..6);
    let extra = prop::collection::vec(0..ENDPOINTS.len(), 0..3);
    let accesses = prop::collection::vec(any_access(), ENDPOINTS.len() + SOURCES.len());
    (mirrors, extra, accesses, prop::collection::vec(any::<bool>(), SOURCES.len())).prop_map(|(chosen, extra, accesses, named)| {
        let mut access_of = BTreeMap::new();
        let mut mirrors = Vec::new();
        for (source, (endpoints, closed)) in chosen {
            let pairs: Vec<(&str, &str)> = endpoints.iter().map(|(host, prefix)| (ENDPOINTS[*host], PREFIXES[*prefix])).collect();
            for (host, _) in &endpoints {
                access_of.insert(Host::fixed(ENDPOINTS[*host]), accesses[*host].clone());
            }
            if named[source] {
                access_of.entry(Host::fixed(SOURCES[source])).or_insert_with(|| accesses[ENDPOINTS.len() + source].clone());
            }
            mirrors.push(mirror(SOURCES[source], &pairs, if closed { Fallback::Never } else { Fallback::Upstream }));
        }
        for host in extra {
            access_of.insert(Host::fixed(ENDPOINTS[host]), accesses[host].clone());
        }
        spec(mirrors, access_of)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Design, "One meaning": for each version, what is read from what we write is what the spec means; and a second look
    /// wants nothing new.
    #[test]
    fn every_version_reads_what_is_meant(spec in any_spec(), digest in any::<bool>(), config in 0..4usize) {
        let config = ["", "version = 2\n", "# mine\nversion = 2\n[plugins.'io.containerd.grpc.v1.cri']\n  registry = {}\n", "[debug]\n"][config];
        let before = if config.is_empty() { tree(&[]) } else { tree(&[(CONFIG, config)]) };
        let part = want(&spec, &on(), &before, &Dialect::ALL);
        prop_assert!(part.refused.is_none(), "{:?}", part.refused);
        let after = overlay(&before, &part);
        let again = want(&spec, &on(), &after, &Dialect::ALL);
        prop_assert_eq!(config_after(&again), config_after(&part).map(|(text, _)| (text, 0)));
        for (path, want) in again.wants.iter().filter(|(path, _)| path.as_str() != CONFIG) {
            prop_assert_eq!(Some(want), part.wants.get(path));
        }
        let mut hosts: Vec<Host> = spec.own_hosts().map(|(host, _)| host.clone()).collect();
        for mirror in &spec.mirrors {
            hosts.extend(mirror.source.host().cloned());
            hosts.extend(spec.closed_names(mirror));
        }
        let tail = if digest { format!("@sha256:{}", "a".repeat(64)) } else { ":1".to_owned() };
        for dialect in Dialect::ALL {
            let view = View::new(&after, &on(), dialect);
            for host in &hosts {
                // which 1.6 cannot read (T32)
                if dialect.is_v1_6() && host.is_ipv6() {
                    continue;
                }
                let image = ImageRef::parse(&format!("{host}/x/y{tail}")).unwrap();
                let got = view.resolve(&image);
                prop_assert_eq!(got.key(), intent(&spec, &image).key(), "{:?} {} {:?}", dialect, image, got);
                prop_assert_eq!(&got.end, &End::Exhausted);
            }
        }
    }
}
