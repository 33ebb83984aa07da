//! `render` writes what `apply` would write to a bare node, and touches nothing that it did not make.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use crate::{MATERIAL, nodeprep, says};

const SPEC: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/spec/yaml/spec.yaml");

/// Path → mode and content of every file, link and folder below a folder.
fn picture(top: &Path, folder: &Path, found: &mut BTreeMap<String, (u32, Vec<u8>)>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let kind = fs::symlink_metadata(&path).unwrap();
        let content = if kind.is_file() { fs::read(&path).unwrap() } else { format!("{:?}", kind.file_type()).into_bytes() };
        found.insert(path.strip_prefix(top).unwrap().display().to_string(), (kind.permissions().mode() & 0o7777, content));
        if kind.is_dir() {
            picture(top, &path, found);
        }
    }
}

fn files(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    picture(folder, folder, &mut found);
    found
}

fn rendered(folder: &Path) -> BTreeMap<String, (u32, Vec<u8>)> {
    let mut found = files(folder);
    assert!(found.remove(".nodeprep-render").is_some());
    found
}

#[test]
fn it_is_what_a_bare_node_gets() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    for runtimes in ["containerd", "crio", "podman", "containerd,crio,podman"] {
        let (root, to) = (format!("root-{runtimes}"), format!("to-{runtimes}"));
        fs::create_dir(here.join(&root)).unwrap();
        let words = ["--spec", SPEC, "--material", MATERIAL, "--runtime", runtimes];
        let shown = says(here, &[&["render", "--to", &to], &words[..]].concat(), "", 0, &[&format!("rendered to {to}")]);
        assert!(shown.contains("the OS trust store is not rendered: root, inline would go into it"), "{shown}");
        // the trust store of a root without a distribution is left untouched: 4
        let (code, said) = nodeprep(here, &[&["apply", "--root", &root], &words[..]].concat(), "");
        assert_eq!(code, 4, "{said}");
        let mut applied = files(&here.join(&root));
        applied
            .retain(|path, _| !["var", "var/lib", "var/lib/nodeprep"].contains(&path.as_str()) && !path.starts_with("var/lib/nodeprep/"));
        let rendered = rendered(&here.join(&to));
        assert!(rendered.len() >= 5, "{rendered:?}");
        assert_eq!(rendered, applied, "{runtimes}");
        let secret = |path: &str| path.contains("client-") && !path.contains(".crt") || path.ends_with("auth.json");
        assert!(rendered.iter().filter(|(path, _)| secret(path)).all(|(_, (mode, _))| *mode == 0o600));
        for path in rendered.keys().filter(|path| here.join(&to).join(path).is_file()) {
            assert!(shown.contains(&format!("/{path}\n")), "{path} is not in\n{shown}");
        }
        assert!(!shown.contains("fixture-password"));
    }
    // without --runtime, those of the spec
    says(here, &["render", "--to", "all", "--spec", SPEC, "--material", MATERIAL], "", 0, &[]);
    assert_eq!(rendered(&here.join("all")), rendered(&here.join("to-containerd,crio,podman")));
}

#[test]
fn its_folder_is_empty_or_its_own() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    let to = here.join("to");
    let render = |runtimes: &str, code: i32, wanted: &[&str]| {
        says(here, &["render", "--to", "to", "--spec", SPEC, "--material", MATERIAL, "--runtime", runtimes], "", code, wanted)
    };
    render("containerd,podman", 0, &[]);
    let all = files(&to);
    // again, and for less: what is not wanted any more goes, with its folders
    render("containerd,podman", 0, &[]);
    assert_eq!(files(&to), all);
    render("podman", 0, &[]);
    assert!(!to.join("etc/containerd").exists() && to.join("etc/containers").exists());
    // what somebody else put or changed there is never touched
    let before = files(&to);
    let conf = "etc/containers/registries.conf.d/zz-nodeprep.conf";
    let refused = |what: &str| {
        let now = files(&to);
        render("containerd", 4, &["error[render-to]", &format!("to holds {what}, which was not rendered into it"), "give an empty folder"]);
        assert_eq!(files(&to), now);
    };
    fs::write(to.join("etc/mine"), "mine").unwrap();
    refused("etc/mine");
    fs::remove_file(to.join("etc/mine")).unwrap();
    symlink("/etc/passwd", to.join("etc/mine")).unwrap();
    refused("etc/mine");
    fs::remove_file(to.join("etc/mine")).unwrap();
    fs::write(to.join(conf), "changed").unwrap();
    refused(conf);
    fs::remove_file(to.join(conf)).unwrap();
    render("podman", 0, &[]);
    assert_eq!(files(&to), before);
    // a folder of somebody else
    fs::remove_dir_all(&to).unwrap();
    fs::create_dir(&to).unwrap();
    fs::write(to.join("mine"), "mine").unwrap();
    refused("mine");
    fs::remove_file(to.join("mine")).unwrap();
    fs::create_dir(to.join("folder")).unwrap();
    refused("folder");
    fs::remove_dir(to.join("folder")).unwrap();
    render("podman", 0, &[]);
    fs::remove_dir_all(&to).unwrap();
    fs::write(&to, "a file").unwrap();
    render("podman", 4, &["error[render-to]", "to cannot be used"]);
}

#[test]
fn what_cannot_be_rendered_is_said() {
    let scratch = tempfile::tempdir().unwrap();
    let here = scratch.path();
    let spec = "version: 1\nfallback: never\nmirror:\n- {source: a.example.com/team, endpoints: [m.example.com]}\n";
    let render = |words: &[&str], code: i32, wanted: &[&str]| {
        says(here, &[&["render", "--to", "to", "--spec", "-"], words].concat(), spec, code, wanted)
    };
    render(&[], 2, &["nobody says which runtimes the files are for", "name them with --runtime"]);
    assert!(!here.join("to").exists());
    let on_node = format!("{spec}ca:\n- {{name: a, file: 'node:/etc/a.pem'}}\n");
    let words = ["render", "--to", "to", "--spec", "-", "--runtime", "podman"];
    says(here, &words, &on_node, 3, &["\"node:/etc/a.pem\" lies on the node", "put the file beside the spec"]);
    assert!(!here.join("to").exists());
    // one runtime cannot: the other goes on
    render(&["--runtime", "containerd,podman"], 4, &["a.example.com/team", "1 file rendered to to"]);
    let all = rendered(&here.join("to"));
    assert_eq!(all.keys().last().unwrap(), "etc/containers/registries.conf.d/zz-nodeprep.conf");
    assert!(!all.contains_key("etc/containerd"));
    let text = render(&["--runtime", "podman", "--output", "json"], 0, &[]);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&json["exit_code"], &json["parts"][0]["target"]), (&serde_json::json!(0), &serde_json::json!("containers")));
}
