//! Where a spec comes from: a folder as kubelet mounts it, one file in either notation, standard input.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use nodeprep::model::digest::Digest;

use crate::{MATERIAL, says};

const HEAD: &str = "version = 1\nfallback = 'never'\n[[ca]]\nname = 'root'\nfile = 'root.pem'\n";
const TEAM: &str = "mirror:\n- source: quay.io\n  endpoints: [m.example.com/quay.io]\n";

fn write(folder: &Path, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

/// A mounted `ConfigMap`: each name is a link into `..data`, which is a link to a folder with a time in its name.
fn mounted(folder: &Path, files: &[(&str, &[u8])]) {
    let data = folder.join("..2026_11_20_21_00_00.1234567890");
    fs::create_dir(&data).unwrap();
    for (name, bytes) in files {
        fs::write(data.join(name), bytes).unwrap();
        symlink(format!("..data/{name}"), folder.join(name)).unwrap();
    }
    symlink("..2026_11_20_21_00_00.1234567890", folder.join("..data")).unwrap();
}

#[test]
fn as_kubelet_mounts_it() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let root = fs::read(format!("{MATERIAL}/root.pem")).unwrap();
    let files: [(&str, &[u8]); 5] = [
        ("spec.toml", HEAD.as_bytes()),
        ("team.yaml", TEAM.as_bytes()),
        ("more.yml", b"mirror:\n- {source: ghcr.io, endpoints: [m.example.com/ghcr.io]}\n"),
        ("root.pem", &root),
        ("notes.txt", b"version: not a document"),
    ];
    mounted(folder, &files);
    says(folder, &["check", "--spec", "."], "", 0, &[".: valid; 2 mirrored sources, 1 CA"]);
    // hidden names, folders and other files are no documents
    write(folder, ".hidden.toml", "nonsense [");
    write(folder, "spec.toml~", "nonsense [");
    fs::create_dir(folder.join("pki")).unwrap();
    says(folder, &["check", "--spec", "."], "", 0, &["valid"]);
    // each problem is in its own file
    let data = folder.join("..data");
    write(&data, "team.yaml", "mirror:\n- sorce: quay.io\n  endpoints: [m.example.com/quay.io]\n");
    write(&data, "more.yml", &format!("{TEAM}registry:\n- host: M.example.com\n"));
    says(folder, &["check", "--spec", "."], "", 3, &["./more.yml:5:9", "./team.yaml:2:3", "unknown key `sorce` in `mirror`"]);
}

#[test]
fn nothing_leaves_the_folder() {
    let scratch = tempfile::tempdir().unwrap();
    let outside = scratch.path().join("outside");
    let folder = scratch.path().join("spec");
    fs::create_dir(&outside).unwrap();
    fs::create_dir(&folder).unwrap();
    write(&outside, "team.yaml", TEAM);
    fs::copy(format!("{MATERIAL}/root.pem"), outside.join("root.pem")).unwrap();
    write(&folder, "spec.toml", HEAD);
    let check = |wanted: &[&str]| says(&folder, &["check", "--spec", "."], "", 3, wanted);
    let again = |name: &str, to: &str| {
        let _ = fs::remove_file(folder.join(name));
        symlink(to, folder.join(name)).unwrap();
    };
    let absolute = outside.join("root.pem").display().to_string();
    again("root.pem", &absolute);
    check(&["error[reference-unreadable]", &format!("its link root.pem leads to {absolute}, out of the folder")]);
    again("root.pem", "../outside/root.pem");
    check(&["its link root.pem leads to ../outside/root.pem, out of the folder"]);
    // in several steps
    again("root.pem", "a/root.pem");
    again("a", "b/../..");
    check(&["its link a leads to b/../.., out of the folder"]);
    again("root.pem", "root.pem");
    check(&["\"root.pem\" cannot be read"]);
    again("root.pem", "gone.pem");
    check(&["\"root.pem\" cannot be read: it does not exist"]);
    // a document is no exception, and all are told
    again("team.yaml", "../outside/team.yaml");
    fs::create_dir(folder.join("x.toml")).unwrap();
    check(&["./team.yaml cannot be read: its link team.yaml leads to ../outside/team.yaml", "./x.toml cannot be read: it is a folder"]);
    // links inside of it are followed
    fs::remove_dir(folder.join("x.toml")).unwrap();
    fs::create_dir(folder.join("in")).unwrap();
    fs::copy(outside.join("root.pem"), folder.join("in/real.pem")).unwrap();
    again("root.pem", "in/../in/real.pem");
    write(&folder.join("in"), "team", TEAM);
    again("team.yaml", "in/team");
    says(&folder, &["check", "--spec", "."], "", 0, &["1 mirrored source, 1 CA"]);
}

#[test]
fn sizes_are_bounded() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    write(folder, "a.toml", HEAD);
    fs::copy(format!("{MATERIAL}/root.pem"), folder.join("root.pem")).unwrap();
    write(folder, "b.yaml", &"# long\n".repeat(80_000));
    says(folder, &["check", "--spec", "."], "", 0, &["valid"]);
    write(folder, "c.yaml", &"# long\n".repeat(80_000));
    says(folder, &["check", "--spec", "."], "", 3, &["error[too-large]", "bytes together; at most 1048576 are read"]);
    write(folder, "c.yaml", &"# long\n".repeat(800_000));
    says(folder, &["check", "--spec", "."], "", 3, &["./c.yaml cannot be read", "larger"]);
    fs::remove_file(folder.join("c.yaml")).unwrap();
    write(folder, "root.pem", &"long\n".repeat(800_000));
    says(folder, &["check", "--spec", "."], "", 3, &["\"root.pem\" cannot be read", "larger"]);
}

#[test]
fn standard_input_in_both_notations() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let words = ["check", "--spec", "-", "--material", MATERIAL];
    says(folder, &words, HEAD, 0, &["standard input: valid; 0 mirrored sources, 1 CA"]);
    let yaml = format!("# a comment\nversion: 1\nfallback: never\n{TEAM}");
    says(folder, &words, &yaml, 0, &["standard input: valid; 1 mirrored source"]);
    says(folder, &words, "{\"version\": 1, \"fallback\": \"never\"}", 0, &["valid"]);
    says(folder, &words, "version: 1\nfallback = 2\n", 3, &["the document is no YAML", "standard input:2:"]);
    says(folder, &words, "version = 1\nfallback: never\n", 3, &["the document is no TOML", "standard input:2:"]);
    // a name that says nothing is decided in the same way, one that does is believed
    write(folder, "spec", &yaml);
    says(folder, &["check", "--spec", "spec"], "", 0, &["valid"]);
    write(folder, "spec.toml", &yaml);
    says(folder, &["check", "--spec", "spec.toml"], "", 3, &["the document is no TOML"]);
    write(folder, "spec.yml", HEAD);
    says(folder, &["check", "--spec", "spec.yml"], "", 3, &["the document is a text, not keys with values"]);
}

#[test]
fn a_spec_for_a_newer_version_says_only_that() {
    let scratch = tempfile::tempdir().unwrap();
    let text = "version: 2\nrequires: '>=99.4'\nwormhole: 1\nfallback: sideways\n";
    let shown = says(scratch.path(), &["check", "--spec", "-"], text, 3, &[]);
    let version = env!("CARGO_PKG_VERSION");
    assert!(shown.contains(&format!("this spec needs nodeprep >=99.4, this is {version}")), "{shown}");
    assert!(shown.contains("1 error\n") && !shown.contains("wormhole"), "{shown}");
}

#[test]
fn digests_pin_files_on_the_node_too() {
    let scratch = tempfile::tempdir().unwrap();
    let folder = scratch.path();
    let pki = folder.join("root/etc/pki");
    fs::create_dir_all(&pki).unwrap();
    for name in ["root.pem", "client.crt", "client.key"] {
        fs::copy(format!("{MATERIAL}/{name}"), pki.join(name)).unwrap();
    }
    let digest = |name: &str| Digest::of(&fs::read(pki.join(name)).unwrap()).to_string();
    let spec = |root: &str, key: &str| {
        format!(
            "version: 1\nfallback: never\nca:\n- {{name: root, file: 'node:/etc/pki/root.pem', sha256: {root}}}\n\
             registry:\n- host: m.example.com\n  client_cert: node:/etc/pki/client.crt\n  client_key: node:/etc/pki/client.key\n  client_key_sha256: {key}\n"
        )
    };
    let words = ["plan", "--spec", "-", "--root", "root", "--runtime", "podman"];
    let (root, key, wrong) = (digest("root.pem"), digest("client.key"), "ab".repeat(32));
    says(folder, &words, &spec(&root, &key), 4, &["/etc/containers/certs.d/m.example.com"]);
    let shown = says(
        folder,
        &words,
        &spec(&wrong, &wrong),
        3,
        &[&format!("node:/etc/pki/root.pem has the SHA-256 {root}, not {wrong}"), "node:/etc/pki/client.key is not the file whose SHA-256"],
    );
    assert!(!shown.contains(&key), "{shown}");
    // what nobody looks at is not compared, and said
    says(folder, &["check", "--spec", "-"], &spec(&wrong, &wrong), 0, &["note[reference-on-node]", "valid"]);
}
