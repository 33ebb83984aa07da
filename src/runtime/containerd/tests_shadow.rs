//! The reduced configuration: its forms, and that nothing by which a shadow could meet the live daemon gets into it.

use std::fmt::Write as _;

use proptest::prelude::*;

use super::Dialect;
use super::shadow::{CouldNotTry, FOLDER, reduce, shadow};
use crate::model::path::NodePath;
use crate::model::time::Time;
use crate::model::tree::{Entry, Tree};
use crate::model::version::Version;
use crate::runtime::{FoundRuntime, Presence, Running, Runtime};

const CONFIG: &str = "/etc/containerd/config.toml";

fn tree(files: &[(&str, &str)]) -> Tree {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    for (path, text) in files {
        tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
    }
    tree
}

fn reduced(text: &str, dialect: Dialect) -> Result<String, CouldNotTry> {
    reduce(&tree(&[(CONFIG, text)]), &NodePath::fixed(CONFIG), dialect)
}

/// What stands behind what every shadow has.
fn behind(text: &str) -> String {
    let (_, behind) = text.split_once("conf_dir = \"/run/nodeprep-shadow/cni/net.d\"\n").unwrap();
    behind.trim_start().to_owned()
}

fn on(installed: Option<Version>) -> FoundRuntime {
    FoundRuntime {
        runtime: Runtime::Containerd,
        presence: Presence::There,
        because: NodePath::fixed("/usr/bin/containerd"),
        installed,
        running: Some(Running { pid: 1, started: Time(0), version: None, socket: None }),
        config: NodePath::fixed(CONFIG),
        unit: None,
        env: Vec::new(),
    }
}

#[test]
fn what_a_shadow_is_started_with() {
    let live = r#"# ours
version = 2
root = "/data/containerd"
state = "/run/containerd"
oom_score = -999
required_plugins = ["io.containerd.nri.v1.nri"]
imports = ["/etc/containerd/conf.d/*.toml"]
[grpc]
  address = "/run/containerd/containerd.sock"
  tcp_address = "0.0.0.0:2375"
[ttrpc]
  address = "/run/containerd/containerd.sock.ttrpc"
[debug]
  address = "/run/containerd/debug.sock"
[metrics]
  address = "127.0.0.1:1338"
[proxy_plugins.stargz]
  type = "snapshot"
  address = "/run/containerd-stargz-grpc/containerd-stargz-grpc.sock"
[plugins."io.containerd.snapshotter.v1.overlayfs"]
  root_path = "/data/overlay"
[plugins."io.containerd.tracing.processor.v1.otlp"]
  endpoint = "http://collector:4318"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "m.example/pause:3.9"
  stream_server_port = "10010"
  max_concurrent_downloads = 5
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "stargz"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = true
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d" # here
    [plugins."io.containerd.grpc.v1.cri".registry.configs."m.example".auth]
      username = "robot"
"#;
    let own = r#"root = "/run/nodeprep-shadow/root"
state = "/run/nodeprep-shadow/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart", "io.containerd.internal.v1.tracing", "io.containerd.nri.v1.nri", "io.containerd.tracing.processor.v1.otlp", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.blockfile", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.erofs", "io.containerd.snapshotter.v1.zfs", "io.containerd.differ.v1.erofs"]

[grpc]
address = "/run/nodeprep-shadow/grpc.sock"

[ttrpc]
address = "/run/nodeprep-shadow/ttrpc.sock"

[debug]
address = "/run/nodeprep-shadow/debug.sock"
"#;
    let cri = r#"
[plugins."io.containerd.grpc.v1.cri"]
max_concurrent_downloads = 5
sandbox_image = "m.example/pause:3.9"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/run/nodeprep-shadow/cni/bin"
conf_dir = "/run/nodeprep-shadow/cni/net.d"

[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.grpc.v1.cri".registry.configs."m.example".auth]
username = "robot"
"#;
    for dialect in Dialect::ALL {
        assert_eq!(reduced(live, dialect).unwrap(), format!("version = 2\n{own}{cri}"), "{dialect:?}");
    }
    let modern = r#"[plugins."io.containerd.cri.v1.images"]
max_concurrent_downloads = 5

[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "m.example/pause:3.9"
"#;
    for (version, dialects) in [(3, &Dialect::ALL[5..]), (4, &Dialect::ALL[9..])] {
        let live = format!(
            "version = {version}\nroot = \"/data\"\n[plugins.\"io.containerd.server.v1.grpc\"]\naddress = \"/run/live.sock\"\n\
             [plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"stargz\"\nmax_concurrent_downloads = 5\n\
             [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"m.example/pause:3.9\"\n\
             [plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n"
        );
        for dialect in dialects {
            let text = reduced(&live, *dialect).unwrap();
            assert!(text.starts_with(&format!("version = 3\n{own}\n[plugins.\"io.containerd.cri.v1.runtime\".cni]\n")), "{text}");
            assert_eq!(behind(&text), modern, "{dialect:?}");
        }
    }
}

/// Version 1 is said as version 2; on 2.x a file without a version has no CRI settings at all (`runtime-semantics.md` 1.8, T64).
#[test]
fn files_of_version_1() {
    let live = "[plugins.cri]\nsandbox_image = \"m.example/pause:3.9\"\n[plugins.cri.registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n";
    for text in [live.to_owned(), format!("version = 1\n{live}")] {
        let registry = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n";
        for dialect in &Dialect::ALL[..5] {
            let text = reduced(&text, *dialect).unwrap();
            assert!(text.starts_with("version = 2\n") && text.contains("\nsandbox_image = \"m.example/pause:3.9\"\n"), "{text}");
            assert_eq!(behind(&text), registry, "{dialect:?}");
        }
    }
    assert!(!reduced(live, Dialect::V2_1).unwrap().contains("m.example"));
}

/// 1.x takes the whole table of the import, 2.x lays it over (T59, T60).
#[test]
fn imports_count_as_they_do_for_the_daemon() {
    let main =
        "version = 2\nimports = [\"/etc/containerd/more.toml\"]\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"main\"\n";
    let more = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/more\"\n";
    let tree = tree(&[(CONFIG, main), ("/etc/containerd/more.toml", more)]);
    for dialect in Dialect::ALL {
        let text = reduce(&tree, &NodePath::fixed(CONFIG), dialect).unwrap();
        assert!(text.contains("config_path = \"/more\"") && !text.contains("imports"), "{text}");
        assert_eq!(text.contains("sandbox_image = \"main\""), dialect.is_v2(), "{text}");
    }
}

#[test]
fn what_is_not_understood_is_not_tried() {
    let says = |text: &str| reduced(text, Dialect::V1_7_16).unwrap_err().to_string();
    assert_eq!(
        says("version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n"),
        "/etc/containerd/config.toml:2:20: disabled_plugins names the CRI plugin, so there is nothing to be seen of it"
    );
    assert!(says("disabled_plugins = [\"cri\"]\n").contains("disabled_plugins names the CRI plugin"));
    assert_eq!(
        says("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.elsewhere]\nroot = \"/x\"\n"),
        "registry.elsewhere of the CRI plugin is not known to nodeprep"
    );
    assert!(says("version = 3\n").contains("version = 3 is too new"));
    let of = |installed| {
        let before = tree(&[(CONFIG, ""), ("/usr/bin/containerd", "")]);
        let after = tree(&[(CONFIG, "version = 2\n"), ("/usr/bin/containerd", "")]);
        shadow(&before, &after, &on(installed)).unwrap().reduced.map(|_| ()).map_err(|why| why.to_string())
    };
    assert_eq!(of(None), Err("the version of the installed containerd is not known".to_owned()));
    assert_eq!(of(Some(Version(3, 0, 1))), Err("containerd 3.0.1 is not known to nodeprep".to_owned()));
    assert_eq!(of(Some(Version(1, 7, 24))), Ok(()));
}

#[test]
fn only_what_is_read_at_start_is_tried() {
    let program = ("/usr/bin/containerd", "");
    let main = (CONFIG, "version = 2\nimports = [\"/opt/x/*.toml\"]\n");
    let hosts = ("/etc/containerd/certs.d/docker.io/hosts.toml", "server = \"https://m.example\"\n");
    let before = tree(&[program, main, ("/opt/x/a.toml", "version = 2\n")]);
    let of = |after: &[(&str, &str)]| shadow(&before, &tree(after), &on(Some(Version(2, 1, 9))));
    assert!(of(&[program, main, ("/opt/x/a.toml", "version = 2\n"), hosts]).is_none(), "read at every pull");
    assert!(of(&[program, main]).is_some(), "an import that goes");
    let tried = of(&[program, main, ("/opt/x/a.toml", "version = 2\n"), ("/opt/x/b.toml", "version = 2\n"), hosts]).unwrap();
    let laid: Vec<_> = tried.laid.keys().map(NodePath::as_str).collect();
    assert_eq!(laid, [hosts.0, CONFIG, "/opt/x/a.toml", "/opt/x/b.toml"], "all that it reads, and what is new beside it");
    let without = tree(&[main, ("/opt/x/a.toml", "")]);
    assert!(shadow(&without, &tree(&[main]), &on(None)).is_none(), "there is no program to try it with");
    let missing = ("/etc/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n");
    let of_unit = FoundRuntime { unit: Some("containerd.service".into()), because: NodePath::fixed("/etc/systemd/system"), ..on(None) };
    assert!(shadow(&tree(&[missing, (CONFIG, "")]), &tree(&[missing, main]), &of_unit).is_none(), "nor is the unit's own there");
    let unit = ("/etc/systemd/system/containerd.service", "[Service]\nExecStart=/opt/bin/containerd\n");
    let before = tree(&[unit, (CONFIG, "")]);
    let mut before = before;
    // nobody has looked there
    before.insert(NodePath::root(), Entry::Dir { listed: false });
    assert_eq!(shadow(&before, &tree(&[unit, main]), &of_unit).unwrap().program.as_str(), "/opt/bin/containerd");
}

#[test]
fn logins_are_known_as_secrets() {
    let of = |text: &str| {
        let before = tree(&[(CONFIG, ""), ("/usr/bin/containerd", "")]);
        let tried = shadow(&before, &tree(&[(CONFIG, text), ("/usr/bin/containerd", "")]), &on(Some(Version(1, 6, 20)))).unwrap();
        assert!(!format!("{tried:?}").contains("hunter2"), "{tried:?}");
        let shown = "it said hunter2, cm9ib3Q6aHVudGVyMg== and robot:hunter2";
        assert_eq!(crate::model::secret::mask(shown, &tried.secrets), "it said ********, ******** and ********");
    };
    let login = "\"cm9ib3Q6aHVudGVyMg==\"";
    of(&format!(
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m.example\".auth]\nauth = {login}\npassword = \"hunter2\"\n"
    ));
    of(&format!("version = 2\nbroken = [\npassword = 'hunter2'\nauth = {login}\n"));
}

/// Keys that containerd has, and some that it may have one day.
const KEYS: [&str; 26] = [
    "root",
    "state",
    "temp",
    "plugin_dir",
    "address",
    "tcp_address",
    "tcp_tls_key",
    "path",
    "root_path",
    "pool_name",
    "socket_path",
    "plugin_path",
    "stream_server_address",
    "stream_server_port",
    "bin_dir",
    "conf_dir",
    "bin_dirs",
    "key_model",
    "snapshotter",
    "runtime_path",
    "Root",
    "BinaryName",
    "endpoint",
    "max_concurrent_downloads_from",
    "sandboxer",
    "oom_score",
];

const TABLES: [&str; 24] = [
    "",
    "grpc",
    "ttrpc",
    "debug",
    "metrics",
    "cgroup",
    "timeouts",
    "proxy_plugins.x",
    "stream_processors.y",
    "plugins.\"io.containerd.snapshotter.v1.overlayfs\"",
    "plugins.\"io.containerd.nri.v1.nri\"",
    "plugins.\"io.containerd.internal.v1.opt\"",
    "plugins.\"io.containerd.server.v1.grpc\"",
    "plugins.\"io.containerd.server.v1.metrics\"",
    "plugins.cri",
    "plugins.cri.containerd.runtimes.runc.options",
    "plugins.\"io.containerd.grpc.v1.cri\"",
    "plugins.\"io.containerd.grpc.v1.cri\".cni",
    "plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc.options",
    "plugins.\"io.containerd.cri.v1.images\"",
    "plugins.\"io.containerd.cri.v1.images\".image_decryption",
    "plugins.\"io.containerd.cri.v1.images\".runtime_platforms.x",
    "plugins.\"io.containerd.cri.v1.runtime\"",
    "plugins.\"io.containerd.cri.v1.runtime\".cni",
];

fn foreign(own: &'static str) -> impl Strategy<Value = String> {
    let value = prop_oneof![
        Just("\"LIVE/run/x.sock\"".to_owned()),
        Just("\"LIVE:1338\"".to_owned()),
        Just("[\"LIVE\"] # LIVE".to_owned()),
        Just("{ address = \"LIVE\" }".to_owned()),
        Just("[{ path = \"LIVE\" }]".to_owned()),
    ];
    let entries = prop::collection::btree_map(prop::sample::select(&KEYS[..]), value, 0..5);
    let tables = prop::collection::btree_map(prop::sample::select(&TABLES[..]), entries, 0..8);
    (prop::option::of(1..=4), tables).prop_map(move |(version, tables)| {
        let mut text = version.map_or_else(String::new, |version| format!("version = {version}\n")) + own;
        for (table, entries) in tables {
            if !table.is_empty() {
                writeln!(text, "[{table}]").unwrap();
            }
            for (key, value) in entries {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        text
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_of_the_live_daemon_survives(
        main in foreign("imports = [\"/etc/containerd/more.toml\"]\n"),
        more in foreign(""),
        dialect in prop::sample::select(&Dialect::ALL[..]),
    ) {
        let tree = tree(&[(CONFIG, &main), ("/etc/containerd/more.toml", &more)]);
        if let Ok(text) = reduce(&tree, &NodePath::fixed(CONFIG), dialect) {
            prop_assert!(!text.contains("LIVE"), "{main}\n---\n{more}\n--- {dialect:?}\n{text}");
            let read = toml_edit::Document::parse(text.as_str()).unwrap();
            let tops: Vec<_> = read.iter().map(|(key, _)| key).collect();
            prop_assert_eq!(tops, ["version", "root", "state", "disabled_plugins", "grpc", "ttrpc", "debug", "plugins"]);
            for (table, key) in [("grpc", "address"), ("ttrpc", "address"), ("debug", "address")] {
                let table = read[table].as_table().unwrap();
                prop_assert!(table.len() == 1 && table[key].as_str().unwrap().starts_with(FOLDER));
            }
            for key in ["root", "state"] {
                prop_assert!(read[key].as_str().unwrap().starts_with(FOLDER));
            }
        }
    }
}
