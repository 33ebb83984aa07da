//! Renderer rules by number, conflicts, and the property that holds the rendered files against the meaning of the spec.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use super::*;
use crate::desired::{Part, Refusal, Target, Want};
use crate::ledger::{Owned, Owns, Prior, Stamp};
use crate::model::cert::{Cert, read_pem};
use crate::model::digest::Digest;
use crate::model::endpoint::{Endpoint, Scheme};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::model::repo::RepoPath;
use crate::model::resolution::{AttemptKey, End, Resolution, Trust};
use crate::model::secret::Secret;
use crate::model::tree::{Entry, Meta, Tree};
use crate::plan::How;
use crate::runtime::{FoundRuntime, Presence, Runtime};
use crate::spec::{Access, Client, Fallback, Login, Mirror, Pause, Source, Spec, intent::intent};

fn path(text: &str) -> NodePath {
    NodePath::new(text).unwrap()
}

pub fn made() -> &'static [(Cert, Secret)] {
    static MADE: OnceLock<Vec<(Cert, Secret)>> = OnceLock::new();
    MADE.get_or_init(|| {
        let make = |name: &str| {
            let key = rcgen::KeyPair::generate().unwrap();
            let pem = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap().pem();
            (read_pem(pem.as_bytes()).unwrap().certs.remove(0), Secret::new(key.serialize_pem()))
        };
        ["one", "two", "client"].map(make).to_vec()
    })
}

fn ca(which: &[usize]) -> Arc<[Cert]> {
    which.iter().map(|index| made()[*index].0.clone()).collect()
}

fn access() -> Access {
    Access { scheme: Scheme::Https, ca: ca(&[0]), client: None, login: None, insecure: false, at: None }
}

fn client() -> Client {
    Client { certs: vec![made()[2].0.clone()], key: made()[2].1.clone() }
}

#[expect(clippy::unnecessary_wraps, reason = "stands where an optional login is wanted")]
fn login(text: &str) -> Option<Login> {
    Some(Login { basic: Secret::new(text), by: crate::spec::LoginBy::Header })
}

fn place(text: &str) -> (Host, RepoPath) {
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    (Host::new(host).unwrap(), RepoPath::new(path).unwrap())
}

fn source(text: &str) -> Source {
    let (host, path) = place(text);
    Source::Prefix { host, path }
}

fn endpoint(text: &str) -> Endpoint {
    let (host, prefix) = place(text);
    Endpoint::new(Scheme::Https, host, prefix)
}

fn spec(mirrors: &[(&str, &[&str], Fallback)]) -> Spec {
    let at = |index: usize| Place { file: "spec.toml".into(), line: u32::try_from(index).unwrap() + 1, column: 1 };
    let mirror = |(index, (from, to, fallback)): (usize, &(&str, &[&str], Fallback))| Mirror {
        source: source(from),
        endpoints: to.iter().map(|to| endpoint(to)).collect(),
        fallback: *fallback,
        widen: false,
        runtimes: None,
        on_unready: crate::spec::OnUnready::Keep,
        at: at(index),
    };
    let mirrors: Vec<Mirror> = mirrors.iter().enumerate().map(mirror).collect();
    let hosts = mirrors.iter().flat_map(|mirror| &mirror.endpoints).map(|endpoint| (endpoint.host.clone(), access()));
    Spec {
        name: crate::spec::DEFAULT_NAME.to_owned(),
        file: "spec.toml".into(),
        digest: Digest::of(b""),
        references: Vec::new(),
        serial: None,
        fallback: Fallback::Never,
        unlisted: crate::spec::Unlisted::Allow,
        runtimes: None,
        cas: Vec::new(),
        access: hosts.collect(),
        default_access: access(),
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

fn on(runtime: Runtime) -> FoundRuntime {
    FoundRuntime {
        runtime,
        presence: Presence::There,
        because: path("/usr/bin/x"),
        installed: None,
        running: None,
        config: path("/etc/crio/crio.conf"),
        unit: None,
        env: Vec::new(),
    }
}

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    for (file, text) in files {
        tree.put(&path(file), text.as_bytes(), 0o644);
    }
    tree
}

fn lay(tree: &Tree, parts: &[Part]) -> Tree {
    let mut after = tree.clone();
    for (path, want) in parts.iter().flat_map(|part| &part.wants) {
        match want {
            Want::Whole(whole) => after.put(path, whole.content.bytes.clone(), whole.mode),
            Want::Keys(keys) => after.put(path, keys.content.bytes.clone(), keys.mode),
            Want::Gone(_) => after.remove(path),
        }
    }
    after
}

fn image(text: &str) -> ImageRef {
    ImageRef::parse(text).unwrap()
}

fn asked(resolution: &Resolution) -> Vec<String> {
    let line = |attempt: &crate::model::resolution::Attempt| attempt.manifest_url(&resolution.image);
    resolution.attempts.iter().map(line).collect()
}

fn ask(tree: &Tree, text: &str) -> (Vec<String>, End) {
    let resolution = View::new(tree, &on(Runtime::Crio)).resolve(&image(text));
    (asked(&resolution), resolution.end)
}

fn problems(part: &Part) -> (&'static str, Vec<&'static str>) {
    match &part.refused {
        None => ("none", Vec::new()),
        Some(Refusal::Cannot(problems)) => ("cannot", problems.iter().map(|problem| problem.code).collect()),
        Some(Refusal::Conflict(problems)) => ("conflict", problems.iter().map(|problem| problem.code).collect()),
    }
}

/// Rule 8: mirror-only is `blocked` with mirrors, location = prefix; under every name of the source.
#[test]
fn rule_08_never_closes_every_name() {
    let spec = spec(&[("docker.io", &["m.local:5000/hub"], Fallback::Never)]);
    let parts = want(&spec, &[&on(Runtime::Crio)], &tree(&[]));
    let after = lay(&tree(&[]), &parts);
    for name in ["nginx", "docker.io/library/nginx", "registry-1.docker.io/library/nginx", "docker.io:443/library/nginx"] {
        let full = if name.contains('.') { format!("{name}:1") } else { format!("docker.io/library/{name}:1") };
        let (urls, end) = ask(&after, &full);
        assert_eq!(urls, ["https://m.local:5000/v2/hub/library/nginx/manifests/1"], "{name}");
        assert!(matches!(end, End::Blocked(_)));
    }
    assert_eq!(ask(&after, "m.local:5000/own/image:1").0, ["https://m.local:5000/v2/own/image/manifests/1"]);
}

/// Rule 15: the merged result is what counts, and a bad file of somebody else stops us.
#[test]
fn rule_15_the_merged_result_is_validated() {
    let spec = spec(&[("quay.io", &["m.local"], Fallback::Upstream)]);
    let refused = |files: &[(&str, &str)]| {
        let parts = want(&spec, &[&on(Runtime::Podman)], &tree(files));
        let (kind, codes) = problems(&parts[0]);
        (kind, codes.first().copied().unwrap_or_default())
    };
    let d = "/etc/containers/registries.conf.d";
    assert_eq!(
        refused(&[(&format!("{d}/10-bad.conf"), "[[registry]]\nlocation = \"https://x\"\n")]),
        ("conflict", "registries-conf-invalid")
    );
    assert_eq!(refused(&[("/etc/containers/registries.conf", "[[registry")]), ("conflict", "registries-conf-invalid"));
    assert_eq!(refused(&[("/root/.config/containers/registries.conf", "")]), ("conflict", "registries-conf-hidden"));
    let entry = "[[registry]]\nlocation = \"quay.io\"\n";
    assert_eq!(refused(&[(&format!("{d}/zzz.conf"), entry)]), ("conflict", "foreign-registry"));
    assert_eq!(refused(&[(&format!("{d}/10-a.conf"), entry)]), ("conflict", "foreign-registry"));
    assert_eq!(refused(&[(&format!("{d}/10-a.conf"), "unqualified-search-registries = []\n"), (&format!("{d}/README"), "[[")]).0, "none");
    // the same meaning is adopted in silence
    let same = format!("{entry}[[registry.mirror]]\nlocation = \"m.local\"\n");
    assert_eq!(refused(&[(&format!("{d}/10-a.conf"), &same)]).0, "none");
    // what version 1 says of a source gives way to the spec, but for what it blocks below it
    let v1 = |table: &str| refused(&[("/etc/containers/registries.conf", &format!("[registries.{table}\"]\n"))]);
    for table in ["search]\nregistries = [\"quay.io", "block]\nregistries = [\"quay.io", "insecure]\nregistries = [\"quay.io/team"] {
        assert_eq!(v1(table), ("none", ""), "{table}");
    }
    assert_eq!(v1("block]\nregistries = [\"quay.io/team"), ("conflict", "legacy-block"));
    // a broken earlier file of our own is replaced, not complained about
    assert_eq!(refused(&[(&format!("{d}/zz-nodeprep.conf"), "[[")]).0, "none");
    let mut linked = tree(&[]);
    linked.insert(path(d), Entry::Link { to: "/data".into(), meta: Meta::default() });
    assert_eq!(problems(&want(&spec, &[&on(Runtime::Crio)], &linked)[0]), ("cannot", vec!["drop-in-folder-link"]));
}

/// Rules 16 and 17: what has no form in registries.conf never gets there: `*`, `*.domain:port` are no sources, and an
/// endpoint that cannot be written as a reference is refused.
#[test]
fn rules_16_17_what_cannot_be_expressed_is_refused() {
    assert!(["*", "*.local:5000", "*.local"].iter().all(|text| Host::new(text).is_err()));
    for bad in ["[2001:db8::1]:5000/hub", "mirror/hub", "index.docker.io/x", "docker.io/x"] {
        let spec = spec(&[("quay.io", &[bad], Fallback::Upstream)]);
        assert_eq!(problems(&want(&spec, &[&on(Runtime::Crio)], &tree(&[]))[0]), ("cannot", vec!["endpoint-unnameable"]), "{bad}");
    }
    for closed in ["m.local/hub", "m.local", "m.local/hub/deeper", "m.local:443"] {
        let spec = spec(&[("quay.io", &["m.local/hub"], Fallback::Upstream), (closed, &["other.local"], Fallback::Never)]);
        assert_eq!(problems(&want(&spec, &[&on(Runtime::Crio)], &tree(&[]))[0]), ("cannot", vec!["endpoint-blocked"]), "{closed}");
    }
    let ports = want(&spec(&[("quay.io", &["m.local"], Fallback::Never)]), &[&on(Runtime::Crio)], &tree(&[]));
    assert_eq!(ports[0].notes.iter().map(|note| note.code).collect::<Vec<_>>(), ["other-ports"]);
}

/// Rule 18: a project path is simply part of the location.
#[test]
fn rule_18_a_prefix_is_part_of_the_location() {
    let spec = spec(&[("registry.opensuse.org/kubic", &["m.local/suse/k"], Fallback::Never)]);
    let parts = want(&spec, &[&on(Runtime::Crio)], &tree(&[]));
    let Want::Whole(file) = &parts[0].wants[&path("/etc/containers/registries.conf.d/zz-nodeprep.conf")] else { panic!() };
    let text = std::str::from_utf8(&file.content.bytes).unwrap();
    assert!(text.contains("location = \"m.local/suse/k\"") && !text.contains("v2"), "{text}");
    let after = lay(&tree(&[]), &parts);
    assert_eq!(ask(&after, "registry.opensuse.org/kubic/a:1").0, ["https://m.local/v2/suse/k/a/manifests/1"]);
    assert_eq!(ask(&after, "registry.opensuse.org/other/a:1").0, ["https://registry.opensuse.org/v2/other/a/manifests/1"]);
}

/// Rule 20: nothing temporary stands in a scanned folder.
#[test]
fn rule_20_temporary_files_stand_elsewhere() {
    let mut spec = spec(&[("quay.io", &["m.local"], Fallback::Upstream)]);
    spec.access.get_mut(&Host::fixed("m.local")).unwrap().login = login("user:hunter2");
    spec.pause = Some(Pause { image: image("m.local/pause:3.10"), at: Place::file("spec.toml"), held: BTreeMap::new() });
    let parts = want(&spec, &[&on(Runtime::Crio), &on(Runtime::Podman)], &tree(&[]));
    assert_eq!(parts.iter().map(|part| part.target.clone()).collect::<Vec<_>>(), [Target::Containers, Target::Crio]);
    let mut seen = BTreeSet::new();
    for (path, want) in parts.iter().flat_map(|part| &part.wants) {
        let stage = match want {
            Want::Whole(whole) => &whole.stage,
            Want::Keys(keys) => &keys.stage,
            Want::Gone(_) => continue,
        };
        for scanned in ["registries.conf.d", "certs.d", "crio.conf.d"] {
            assert!(!stage.components().any(|part| part == scanned), "{path}: {stage}");
        }
        seen.insert(stage.to_string());
    }
    let all = ["/etc/containers/.nodeprep-stage", "/etc/crio/.nodeprep-stage", "/root/.config/containers/.nodeprep-stage"];
    assert_eq!(seen.iter().map(String::as_str).collect::<Vec<_>>(), all);
    let Want::Keys(keys) = &parts[0].wants[&path("/root/.config/containers/auth.json")] else { panic!() };
    assert_eq!((keys.mode, keys.edits.len()), (0o600, 2));
    assert!(!format!("{parts:?}").contains("hunter2") && !format!("{parts:?}").contains("dXNlcjpodW50ZXIy"));
}

#[test]
fn logins_go_where_they_are_read() {
    let mut spec = spec(&[("quay.io", &["m.local"], Fallback::Never)]);
    spec.access.get_mut(&Host::fixed("m.local")).unwrap().login = login("user:hunter2");
    let root = "/root/.config/containers/auth.json";
    let crio = ("/etc/crio/crio.conf.d/10-auth.conf", "[crio.image]\nglobal_auth_file = \"/var/lib/kubelet/config.json\"\n");
    let parts = want(&spec, &[&on(Runtime::Crio), &on(Runtime::Podman)], &tree(&[crio]));
    let keys: Vec<&str> = parts[0].wants.iter().filter(|(_, want)| matches!(want, Want::Keys(_))).map(|(path, _)| path.as_str()).collect();
    assert_eq!(keys, [root, "/var/lib/kubelet/config.json"]);
    let other = |login: &str| format!("{{\"auths\": {{\"m.local\": {{\"auth\": \"{}\"}}}}}}", crate::model::cert::base64(login.as_bytes()));
    for file in [root, "/run/containers/0/auth.json"] {
        let parts = want(&spec, &[&on(Runtime::Podman)], &tree(&[(file, &other("x:y"))]));
        assert_eq!(problems(&parts[0]), ("conflict", vec!["foreign-login"]), "{file}");
        let parts = want(&spec, &[&on(Runtime::Podman)], &tree(&[(file, &other("user:hunter2"))]));
        assert_eq!(problems(&parts[0]).0, "none", "{file}");
    }
    let broken = want(&spec, &[&on(Runtime::Podman)], &tree(&[(root, "{")]));
    assert_eq!(problems(&broken[0]).1.first(), Some(&"auth-file"));
}

/// A rotated login of ours is no conflict, and one that is no longer wanted is taken back.
#[test]
fn our_own_logins_are_told_from_foreign_ones() {
    let mut spec = spec(&[("quay.io", &["m.local"], Fallback::Never)]);
    spec.access.get_mut(&Host::fixed("m.local")).unwrap().login = login("user:old1");
    let file = path("/root/.config/containers/auth.json");
    let before = tree(&[(file.as_str(), "{\"x\": 1}")]);
    let podman = on(Runtime::Podman);
    let first = want(&spec, &[&podman], &before);
    let Want::Keys(keys) = &first[0].wants[&file] else { panic!() };
    let now = Stamp::Absent;
    let owned = Owned {
        target: Target::Containers,
        now,
        origin: Prior::Absent,
        keys: keys.edits.clone(),
        format: Some(crate::format::KeyFormat::Json),
        shared: false,
    };
    let owned = BTreeMap::from([(file.clone(), owned.into())]);
    let node = lay(&before, &first);
    spec.access.get_mut(&Host::fixed("m.local")).unwrap().login = login("user:new1");
    assert_eq!(problems(&want(&spec, &[&podman], &node)[0]).0, "conflict");
    let second = want_knowing(&spec, &[&podman], &node, known(&owned));
    let Want::Keys(keys) = &second[0].wants[&file] else { panic!("{second:?}") };
    assert_eq!(keys.edits.len(), 1);
    spec.access.get_mut(&Host::fixed("m.local")).unwrap().login = None;
    let third = want_knowing(&spec, &[&podman], &node, known(&owned));
    let Want::Keys(keys) = &third[0].wants[&file] else { panic!("{third:?}") };
    assert_eq!((keys.content.bytes.as_slice(), keys.edits.len()), (&b"{\"x\": 1}"[..], 2));
}

fn known(owned: &Owns) -> Known<'_> {
    Known { owned, adopted: None, foreign: crate::desired::Foreign::Refuse }
}

#[test]
fn foreign_certificates_are_a_conflict() {
    let spec = spec(&[("quay.io", &["m.local"], Fallback::Never)]);
    let pem = |index: usize| made()[index].0.to_pem();
    let codes = |file: &str, text: &str| problems(&want(&spec, &[&on(Runtime::Podman)], &tree(&[(file, text)]))[0]);
    assert_eq!(codes("/etc/docker/certs.d/m.local/ca.crt", &pem(1)), ("conflict", vec!["certs-d-hidden"]));
    assert_eq!(codes("/etc/docker/certs.d/m.local/ca.crt", &pem(0)).0, "none");
    assert_eq!(codes("/etc/containers/certs.d/m.local/ca.crt", &pem(1)), ("conflict", vec!["certs-d-differs"]));
    assert_eq!(codes("/etc/containers/certs.d/m.local/x.cert", &pem(1)), ("conflict", vec!["certs-d-unusable"]));
    assert_eq!(codes("/root/.config/containers/certs.d/m.local/y", ""), ("conflict", vec!["certs-d-differs"]));
    // a file with our kind of name is ours only when the ledger says so
    let old = "/etc/containers/certs.d/m.local/nodeprep-ca-000000000000.crt";
    assert_eq!(codes(old, &pem(1)), ("conflict", vec!["certs-d-differs"]));
    let ours =
        Owned { target: Target::Containers, now: Stamp::Absent, origin: Prior::Absent, keys: Vec::new(), format: None, shared: false };
    let parts = want_knowing(&spec, &[&on(Runtime::Podman)], &tree(&[(old, &pem(1))]), known(&BTreeMap::from([(path(old), ours.into())])));
    assert_eq!(problems(&parts[0]).0, "none");
}

#[test]
fn short_names_by_runtime_and_version() {
    let two = tree(&[(
        "/etc/containers/registries.conf",
        "unqualified-search-registries = [\"docker.io\", \"quay.io\"]\n[aliases]\n\"app\" = \"r.local/x/app\"\n",
    )]);
    let with = |version: Option<crate::model::version::Version>| {
        let crio = FoundRuntime { installed: version, ..on(Runtime::Crio) };
        View::new(&two, &crio).resolve(&image("nginx:1"))
    };
    let both = ["https://registry-1.docker.io/v2/library/nginx/manifests/1", "https://quay.io/v2/nginx/manifests/1"];
    assert_eq!(asked(&with(None)), both);
    assert_eq!(asked(&with(Some(crate::model::version::Version(1, 33, 5)))), both);
    assert!(matches!(with(Some(crate::model::version::Version(1, 34, 0))).end, End::Broken(_)));
    assert_eq!(asked(&View::new(&two, &on(Runtime::Podman)).resolve(&image("nginx:1"))), both);
    assert_eq!(ask(&two, "app:2").0, ["https://r.local/v2/x/app/manifests/2"]);
    assert!(matches!(ask(&tree(&[]), "nginx").1, End::Broken(_)));
}

#[test]
fn environment_names_other_files() {
    let spec = spec(&[("quay.io", &["m.local"], Fallback::Never)]);
    let mut crio = on(Runtime::Crio);
    crio.env = vec![("CONTAINER_REGISTRIES_CONF_DIR".into(), "/opt/r.d".into())];
    let parts = want(&spec, &[&crio, &on(Runtime::Podman)], &tree(&[]));
    for dir in ["/opt/r.d", "/etc/containers/registries.conf.d"] {
        assert!(parts[0].wants.contains_key(&path(dir).join("zz-nodeprep.conf")), "{dir}");
    }
    crio.env = vec![("CONTAINER_REGISTRIES_CONF".into(), "/opt/none.conf".into())];
    assert!(matches!(View::new(&tree(&[]), &crio).resolve(&image("quay.io/x")).end, End::Broken(_)));
    let wishes = wishes(&Tree::default(), &[&crio]);
    assert!(wishes.iter().any(|wish| wish.path.as_str() == "/opt/none.conf"));
}

#[test]
fn a_stronger_pause_image_is_a_conflict() {
    let mut spec = spec(&[]);
    spec.pause = Some(Pause { image: image("m.local/pause:3.10"), at: Place::file("spec.toml"), held: BTreeMap::new() });
    let pause = "[crio.image]\npause_image = \"x.local/pause:1\"\n";
    let kind = |file: &str| problems(&want(&spec, &[&on(Runtime::Crio)], &tree(&[(file, pause)]))[1]).0;
    assert_eq!(kind("/etc/crio/crio.conf"), "none");
    assert_eq!(kind("/etc/crio/crio.conf.d/10-a"), "none");
    assert_eq!(kind("/etc/crio/crio.conf.d/99-z.bak"), "conflict");
}

#[test]
fn a_pause_image_that_is_kept_back_leaves_what_is_there() {
    let mut spec = spec(&[]);
    let held = BTreeMap::from([(Runtime::Crio, ("it is not there".to_owned(), "push it".to_owned()))]);
    spec.pause = Some(Pause { image: image("m.local/pause:2"), at: Place::file("spec.toml"), held });
    let ours = "/etc/crio/crio.conf.d/99-nodeprep.conf";
    let crio = |files: &[(&str, &str)]| want(&spec, &[&on(Runtime::Crio)], &tree(files)).remove(1);
    let none = crio(&[]);
    assert!(none.wants.is_empty() && none.keeps_back(), "{none:?}");
    let before = "[crio.image]\npause_image = \"m.local/pause:1\"\n";
    let kept = crio(&[(ours, before)]);
    let Some(Want::Whole(whole)) = kept.wants.get(&path(ours)) else { panic!("{kept:?}") };
    assert_eq!((whole.content.bytes.as_slice(), kept.keeps_back()), (before.as_bytes(), true));
}

#[test]
fn activation_is_the_least_that_works() {
    let reload = How::Reload("crio.service".to_owned());
    for (file, crio, podman) in [
        ("/etc/containers/registries.conf.d/zz-nodeprep.conf", reload.clone(), How::Nothing),
        ("/etc/containers/registries.conf", reload.clone(), How::Nothing),
        ("/etc/containers/certs.d/m.local/nodeprep-ca-0.crt", How::Nothing, How::Nothing),
        ("/root/.config/containers/auth.json", How::Nothing, How::Nothing),
        ("/etc/crio/crio.conf.d/99-nodeprep.conf", reload, How::Nothing),
    ] {
        assert_eq!(activation(&path(file), &on(Runtime::Crio)).0, crio, "{file}");
        assert_eq!(activation(&path(file), &on(Runtime::Podman)).0, podman, "{file}");
    }
}

mod meaning;

/// The ledger's entry is what tells later what version 1 said from what somebody has added.
#[test]
fn what_was_version_1_gives_way_later_too() {
    let main = "/etc/containers/registries.conf";
    let v1 = "[registries.insecure]\nregistries = [\"quay.io\", \"lab.io\"]\n";
    let one = want(&spec(&[("docker.io", &["m.local"], Fallback::Never)]), &[&on(Runtime::Podman)], &tree(&[(main, v1)]));
    let Some(Want::Keys(keys)) = one[0].wants.get(&path(main)) else { panic!("{one:?}") };
    let text = String::from_utf8(keys.content.bytes.clone()).unwrap();
    let owned = Owned {
        target: Target::Containers,
        now: Stamp::Absent,
        origin: Prior::Absent,
        keys: keys.edits.clone(),
        format: Some(crate::format::KeyFormat::Registries),
        shared: false,
    };
    let later = spec(&[("quay.io", &["m.local"], Fallback::Never)]);
    let second = |text: &str, owns: &Owns| problems(&want_knowing(&later, &[&on(Runtime::Podman)], &tree(&[(main, text)]), known(owns))[0]);
    let ours = Owns::from([(path(main), owned.into())]);
    assert_eq!(second(&text, &ours), ("none", Vec::new()));
    assert_eq!(second(&text, &Owns::new()), ("conflict", vec!["foreign-registry"]));
    assert_eq!(
        second(&text.replace("[[registry]]\nlocation = \"quay.io\"", "[[registry]]\nblocked = true\nlocation = \"quay.io\""), &ours).0,
        "conflict"
    );
    // and it stays as it is
    let part = &want_knowing(&later, &[&on(Runtime::Podman)], &tree(&[(main, &text)]), known(&ours))[0];
    let Some(Want::Keys(again)) = part.wants.get(&path(main)) else { panic!("{part:?}") };
    assert!(again.edits.is_empty() && again.wanted.len() == keys.edits.len());
}
