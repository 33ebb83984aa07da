//! Edits: what must survive, what must come back; chains by version.

use proptest::prelude::*;

use super::*;
use crate::model::path::NodePath;
use crate::model::tree::Tree;
use crate::runtime::containerd::Dialect;

fn setting(version: i64, raw: &str) -> Setting<'static> {
    Setting { key: config_path_key(version).to_vec(), raw: raw.to_owned(), why: "a test".to_owned() }
}

fn round(text: &str, version: i64) -> String {
    let (new, edits) = set(text, &[setting(version, "\"/c\"")]).unwrap_or_else(|refused| panic!("{refused}: {text:?}"));
    assert_eq!(undo(&new, &edits).as_deref(), Ok(text), "{new:?}");
    // again: nothing to do
    assert_eq!(set(&new, &[setting(version, "'/c'")]), Ok((new.clone(), vec![])));
    new
}

const TABLE: &str = "[plugins.\"io.containerd.grpc.v1.cri\".registry]";

/// 8.4, rule 12: patched in place, everything else byte-identical.
#[test]
fn splices_in_every_form() {
    for (before, after) in [
        ("", format!("{TABLE}\nconfig_path = \"/c\"\n")),
        ("\u{feff}", format!("\u{feff}{TABLE}\nconfig_path = \"/c\"\n")),
        ("version = 2", format!("version = 2\n\n{TABLE}\nconfig_path = \"/c\"")),
        ("version = 2\r\n", format!("version = 2\r\n\r\n{TABLE}\r\nconfig_path = \"/c\"\r\n")),
        ("\n", format!("\n\n{TABLE}\nconfig_path = \"/c\"\n")),
        (
            "[plugins.'io.containerd.grpc.v1.cri']\n  x = 1\n[z]\n",
            "[plugins.'io.containerd.grpc.v1.cri']\n  x = 1\n[z]\n\n[plugins.'io.containerd.grpc.v1.cri'.registry]\nconfig_path = \"/c\"\n"
                .into(),
        ),
        (&format!("  {TABLE} # c\n\n# d\n"), format!("  {TABLE} # c\n  config_path = \"/c\"\n\n# d\n")),
        (&format!("{TABLE}\n\ta = [\n1]  # x\n[z]"), format!("{TABLE}\n\ta = [\n1]  # x\n\tconfig_path = \"/c\"\n[z]")),
        (&format!("{TABLE}\nconfig_path   =  '' # empty\n"), format!("{TABLE}\nconfig_path   =  \"/c\" # empty\n")),
        (
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry.x = 1 # x\n",
            "[plugins.\"io.containerd.grpc.v1.cri\"]\nregistry.x = 1 # x\nregistry.config_path = \"/c\"\n".into(),
        ),
        (
            "plugins.\"io.containerd.grpc.v1.cri\" = {}\n",
            "plugins.\"io.containerd.grpc.v1.cri\" = { registry = { config_path = \"/c\" } }\n".into(),
        ),
        (
            "plugins = { \"io.containerd.grpc.v1.cri\" = { registry = { a = 1 }, b = 2 } }\n",
            "plugins = { \"io.containerd.grpc.v1.cri\" = { registry = { a = 1, config_path = \"/c\" }, b = 2 } }\n".into(),
        ),
        (
            "[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\na = 1\n",
            format!("[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\na = 1\n\n{TABLE}\nconfig_path = \"/c\"\n"),
        ),
    ] {
        assert_eq!(round(before, 2), after);
    }
}

#[test]
fn refuses_what_it_cannot_extend() {
    for text in [
        "plugins = 1\n",
        "[[plugins]]\n",
        "x = \n",
        "[plugins.\"io.containerd.grpc.v1.cri\".registry.config_path]\n",
        "plugins = { \"io.containerd.grpc.v1.cri\".registry.x = 1 }\n",
    ] {
        assert!(set(text, &[setting(2, "\"/c\"")]).is_err(), "{text}");
    }
}

#[test]
fn undo_leaves_others_edits_alone() {
    let (new, edits) = set("a = 1\n", &[setting(2, "\"/c\"")]).unwrap();
    let theirs = format!("{new}b = 2\n# note\n");
    assert_eq!(undo(&theirs, &edits).unwrap(), format!("a = 1\n\n{TABLE}\nb = 2\n# note\n"));
    let changed = new.replace("\"/c\"", "\"/theirs\"");
    assert_eq!(undo(&changed, &edits).unwrap(), changed);
    let commented = new.replace("\"/c\"\n", "\"/c\" # mine\n");
    assert_eq!(undo(&commented, &edits).unwrap(), "a = 1\n# mine\n");
    assert_eq!(undo("a = 1\n", &edits).unwrap(), "a = 1\n");
    let (new, edits) = set(&format!("{TABLE}\nconfig_path = '/old'\n"), &[setting(2, "\"/c\"")]).unwrap();
    assert_eq!(undo(&format!("# top\n{new}"), &edits).unwrap(), format!("# top\n{TABLE}\nconfig_path = '/old'\n"));
    assert!(undo("a = ", &edits).is_err());
}

/// What is taken out goes with its lines, in every form; everything else stays, and comes back by its value.
#[test]
fn removes_in_every_form() {
    let key = ["plugins", CRI_V2, "registry", "mirrors", "docker.io"];
    let mirror = TABLE.replace(']', ".mirrors.\"docker.io\"]");
    for (before, after) in [
        (
            format!("a = 1\n\n{mirror} # x\n  # inside\n  endpoint = [\n   'x', # y\n  ] # z\n# behind\n[z]\n"),
            "a = 1\n\n# behind\n[z]\n".to_owned(),
        ),
        (format!("\u{feff}{mirror}\r\nendpoint = ['x']\r\n[z]\r\n"), "\u{feff}[z]\r\n".into()),
        (format!("{TABLE}\nmirrors.\"docker.io\".endpoint = ['x']\nb = 1\n"), format!("{TABLE}\nb = 1\n")),
        (
            format!("{TABLE}\n[{}.mirrors]\n'docker.io' = {{ endpoint = ['x'] }} # c\nquay = {{}}\n", &TABLE[1..TABLE.len() - 1]),
            format!("{TABLE}\n[{}.mirrors]\nquay = {{}}\n", &TABLE[1..TABLE.len() - 1]),
        ),
        (
            format!("{TABLE}\nmirrors = {{ \"docker.io\" = {{ endpoint = ['x'] }}, q = {{ endpoint = [] }} }}\n"),
            format!("{TABLE}\nmirrors = {{ q = {{ endpoint = [] }} }}\n"),
        ),
        (format!("{TABLE}\nmirrors = {{ \"docker.io\" = {{ endpoint = ['x'] }} }}\n"), format!("{TABLE}\nmirrors = {{}}\n")),
        (format!("{mirror}\n[{}.more]\nx = 1\n[z]\nendpoint = ['x']", &mirror[1..mirror.len() - 1]), "[z]\nendpoint = ['x']".into()),
        (format!("[z]\n{mirror}\nendpoint = ['x']"), "[z]\n".into()),
        ("[z]\n".into(), "[z]\n".into()),
    ] {
        let (got, edits) = remove(&before, &key, "a test", false).unwrap_or_else(|refused| panic!("{refused}: {before:?}"));
        assert_eq!(got, after, "{before:?}");
        assert!(edits.iter().all(|edit| edit.to.is_none() && edit.from.is_some() && edit.key.starts_with(&key.map(String::from))));
        let back = undo(&got, &edits).unwrap();
        let value = |text: &str| {
            text.trim_start_matches('\u{feff}').parse::<toml_edit::DocumentMut>().unwrap()["plugins"][CRI_V2]["registry"]["mirrors"]["docker.io"]["endpoint"].to_string()
        };
        if before.contains("endpoint = [") && !before.contains(".more]") && before.contains("docker.io") {
            assert_eq!(value(&back).matches('x').count(), 1, "{back:?}");
        }
    }
    assert!(remove("x = ", &key, "", false).is_err());
}

fn chain(files: &[(&'static str, &str)], dialect: Dialect) -> Result<Chain, Broken> {
    let mut tree = Tree::default();
    tree.put(&NodePath::fixed("/etc/containerd/other"), *b"", 0o644);
    for (path, text) in files {
        tree.put(&NodePath::fixed(path), text.as_bytes(), 0o644);
    }
    Chain::read(&tree, &NodePath::fixed("/etc/containerd/config.toml"), dialect)
}

const MAIN: &str = "/etc/containerd/config.toml";
const DROP: &str = "/etc/containerd/conf.d/10.toml";
const IMPORTS: &str = "imports = [\"conf.d/*.toml\"]\n";

fn v2(rest: &str) -> String {
    format!("version = 2\n{IMPORTS}[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"p\"\n{rest}")
}

fn path_of(chain: &Chain) -> Option<&str> {
    chain.set_path.as_ref().map(|said| said.value.as_str())
}

/// T59, T60, T65.
#[test]
fn drop_ins_replace_or_merge() {
    let drop = format!("version = 2\n{TABLE}\nconfig_path = \"/d\"\n");
    let files = [(MAIN, &*v2("")), (DROP, &*drop), ("/etc/containerd/conf.d/20.toml", &*drop.replace("/d", "/e"))];
    for dialect in Dialect::ALL {
        let chain = chain(&files, dialect).unwrap();
        if dialect.is_v1_6() {
            // relative patterns are not found
            assert_eq!((path_of(&chain), chain.sandbox.is_some()), (None, true));
            continue;
        }
        assert_eq!(path_of(&chain), Some("/e"), "{dialect:?}");
        assert_eq!(chain.set_path.as_ref().unwrap().at.to_string(), "/etc/containerd/conf.d/20.toml:3:15");
        assert_eq!(chain.sandbox.is_some(), dialect.is_v2(), "{dialect:?}");
    }
}

/// T61: a drop-in of a higher version.
#[test]
fn mixed_versions() {
    let drop = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/d\"\n";
    for dialect in Dialect::ALL {
        let chain = chain(&[(MAIN, &v2("")), (DROP, drop)], dialect);
        match dialect {
            Dialect::V1_6 | Dialect::V1_6_32 => assert_eq!(path_of(&chain.unwrap()), None),
            Dialect::V1_7_0 | Dialect::V1_7_16 | Dialect::V1_7_32 | Dialect::V2_3 => assert!(chain.is_err(), "{dialect:?}"),
            _ => {
                let chain = chain.unwrap();
                assert_eq!((path_of(&chain), chain.sandbox.is_some(), chain.passed_over.len()), (Some("/d"), false, 1), "{dialect:?}");
            }
        }
    }
}

/// T62, T63.
#[test]
fn only_written_imports_are_followed() {
    let files = [(MAIN, "version = 2\n"), (DROP, "version = 2\nx = ")];
    assert!(Dialect::ALL.iter().all(|dialect| chain(&files, *dialect).is_ok()));
    let missing = [(MAIN, "version = 2\nimports = [\"none.toml\"]\n")];
    assert!(Dialect::ALL.iter().all(|dialect| chain(&missing, *dialect).is_err()));
    let pattern = [(MAIN, "version = 2\nimports = [\"/none/*.toml\"]\n")];
    assert!(Dialect::ALL.iter().all(|dialect| chain(&pattern, *dialect).is_ok()));
    let cycle = [(MAIN, "version = 2\nimports = [\"config.toml\"]\n")];
    assert!(Dialect::ALL.iter().all(|dialect| chain(&cycle, *dialect).is_ok()));
}

/// T64, and the table of 1.8: which table counts in which file for whom.
#[test]
fn tables_by_version() {
    let long = format!("{TABLE}\nconfig_path = \"/l\"\n");
    let new = "[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = \"/n\"\n";
    let short = "[plugins.cri.registry]\nconfig_path = \"/s\"\n";
    for dialect in Dialect::ALL {
        let of = |text: &str| chain(&[(MAIN, text)], dialect).map(|chain| path_of(&chain).map(ToOwned::to_owned));
        let (v2, v2_3) = (dialect.is_v2(), dialect == Dialect::V2_3);
        let some = |text: &str, when: bool| Ok(when.then(|| text.to_owned()));
        assert_eq!(of(&long), some("/l", v2_3), "{dialect:?}");
        assert_eq!(of(&format!("version = 2\n{long}")), some("/l", true), "{dialect:?}");
        assert_eq!(of(&format!("version = 2\n{new}")), some("/n", v2), "{dialect:?}");
        assert_eq!(of(short), some("/s", !v2), "{dialect:?}");
        if v2 {
            assert_eq!(of(&format!("version = 3\n{new}")), some("/n", true), "{dialect:?}");
            assert_eq!(of(&format!("version = 3\n{long}")), some("/l", v2_3), "{dialect:?}");
        } else {
            let v1_6 = dialect.is_v1_6();
            assert_eq!(of(&format!("version = 3\n{long}")).is_ok_and(|path| path.as_deref() == Some("/l")), v1_6);
            assert!(of(&format!("version = 2\n{short}")).is_err());
        }
        assert_eq!(of("version = 4\n").is_ok(), v2_3 || dialect.is_v1_6());
        assert!(of("version = \n").is_err());
    }
}

/// T58 and 1.8: combinations with which the CRI plugin does not load; defaults; lists.
#[test]
fn combinations_defaults_and_lists() {
    let mirrors = "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m\"]\n";
    let tls = "[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m\".tls]\nca_file = \"/x\"\n";
    for dialect in Dialect::ALL {
        let of = |rest: &str| chain(&[(MAIN, &v2(rest))], dialect).unwrap();
        let set = format!("{TABLE}\nconfig_path = \"/a:/b\"\n");
        assert!(of(&format!("{set}{mirrors}")).unloadable(dialect).is_some());
        assert_eq!(of(&format!("{set}{tls}")).unloadable(dialect).is_some(), !dialect.is_v2());
        assert!(of(&set).unloadable(dialect).is_none() && of(mirrors).unloadable(dialect).is_none());
        assert_eq!(of("").config_path(dialect).is_empty(), dialect < Dialect::V2_2);
        assert_eq!(of(mirrors).config_path(dialect), "");
        assert_eq!(of(&set).roots(dialect).1, dialect >= Dialect::V2_1, "{dialect:?}");
        let disabled = chain(&[(MAIN, "disabled_plugins = [\"cri\"]\n")], dialect).unwrap();
        assert_eq!(disabled.disabled.map(|at| at.line), Some(1));
    }
}

/// TOML as people have it, put together from pieces; some of it breaks off in the middle of a line.
fn foreign() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("# a comment\n".to_owned()),
        Just("\n".to_owned()),
        Just("version = 2\n".to_owned()),
        Just("  root =   '/var/lib' # where\n".to_owned()),
        Just("[debug]\n\tlevel = \"info\"\n".to_owned()),
        Just("[plugins]\n".to_owned()),
        Just("[ plugins . 'io.containerd.grpc.v1.cri' ]\nsandbox_image = \"\"\"\\\n  p\"\"\"\n".to_owned()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".containerd]\nruntimes.runc.x = { a = 1, b = [ 1,\n 2 ] } # c\n".to_owned()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".registry]\n".to_owned()),
        Just("  config_path = '/x:/y'   # list\n".to_owned()),
        Just("[plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\nUser-Agent = [\"x\"]\n".to_owned()),
        Just("registry = { headers = {} }\n".to_owned()),
        Just("registry.headers.x = [\"é\"]\n".to_owned()),
        Just("[[stream]]\nname = \"ä\"\n".to_owned()),
        "[a-z]{1,6} = [0-9]{1,3}\n",
        "# [ -~]{0,20}\n",
    ];
    (prop::collection::vec(piece, 0..9), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(pieces, crlf, bom, cut)| {
        let mut text = pieces.concat();
        if cut {
            text = text.trim_end_matches('\n').to_owned();
        }
        if crlf {
            text = text.replace('\n', "\r\n");
        }
        if bom { format!("\u{feff}{text}") } else { text }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    /// 8.4, rule 12, and: set, then undo, is the identity; outside our lines every byte survives.
    #[test]
    fn foreign_toml_survives(text in foreign()) {
        prop_assume!(toml_edit::Document::parse(text.as_str()).is_ok());
        let pause = Setting { key: sandbox_key(2), raw: "\"pause:1\"".into(), why: String::new() };
        let result = set(&text, &[setting(2, "\"/etc/containerd/certs.d\""), pause]);
        prop_assume!(result.is_ok());
        let (new, edits) = result.unwrap();
        prop_assert_eq!(undo(&new, &edits).unwrap(), text.clone(), "{}", new);
        // what was there is still there, in order
        let mut rest = new.as_str();
        for line in text.split_inclusive('\n') {
            let line = line.trim_end_matches(['\n', '\r']);
            if line.contains("config_path") || line.contains("sandbox_image") || line.contains("p\"\"\"") || line.contains("registry = {") {
                continue;
            }
            let at = rest.find(line);
            prop_assert!(at.is_some(), "{line:?} is gone from {new:?}");
            rest = &rest[at.unwrap_or(0) + line.len()..];
        }
        if text.contains("\r\n") {
            prop_assert!(!new.replace("\r\n", "").contains('\n'));
        }
    }
}
