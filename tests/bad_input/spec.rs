//! What is wrong with the spec itself.

use std::fmt::Write as _;
use std::fs;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use crate::node::{Node, same};

const MATERIAL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/spec/_material");

const HEAD: &str = "version = 1\nfallback = 'never'\n";
const CA: &str = "[[ca]]\nname = 'a'\nfile = 'ca.pem'\n";
const MIRROR: &str = "[[mirror]]\nsource = 'docker.io'\nendpoints = ['m.example.com/hub']\n";
const DAY: Duration = Duration::from_secs(86_400);

/// A document that is refused, and what is said of it: place, thing, remedy.
fn refused(document: &str, wanted: &[&str]) {
    let node = Node::new();
    node.document(document);
    let run = node.run("check");
    run.says(3, wanted);
    run.says(3, &["help: "]);
    let json = node.run("check --output json").json();
    assert_eq!(json["exit_code"], 3);
    node.refused(3, wanted);
    // not even the state folder is made for it
    same(&Node::new().picture(true), &node.picture(true));
    fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/flow/mtls-and-login/spec.toml"), node.spec.join("spec.toml")).unwrap();
    node.converges();
}

#[test]
fn wrong_in_several_places() {
    let document = format!("{HEAD}{CA}[[mirror]]\nsorce = 'docker.io'\nendpoints = 'm.example.com'\n");
    refused(&document, &["spec.toml:7:1", "unknown key `sorce`", "`source`", "spec.toml:8:13"]);
}

#[test]
fn no_document_at_all() {
    refused("", &["`version` is missing", "add `version = 1`"]);
    refused("[[mirror", &["spec.toml:1:", "is no TOML"]);
}

#[test]
fn unreadable_certificate() {
    let node = Node::new();
    node.document(format!("{HEAD}{CA}{MIRROR}"));
    for (bytes, wanted) in [
        (&b"-----BEGIN CERTIFICATE-----\nMIIB\n"[..], "is no well-formed PEM"),
        (b"nothing of the kind", "holds no PEM section"),
        (b"\x30\x82\x01\x00\x00", "convert it: openssl x509 -inform der"),
    ] {
        fs::write(node.spec.join("ca.pem"), bytes).unwrap();
        node.refused(3, &["spec.toml:5:8", "ca.pem", wanted]);
    }
    fs::remove_file(node.spec.join("ca.pem")).unwrap();
    node.refused(3, &["spec.toml:5:8", "\"ca.pem\" cannot be read"]);
    fs::create_dir(node.spec.join("ca.pem")).unwrap();
    node.refused(3, &["it is a folder"]);
    fs::remove_dir(node.spec.join("ca.pem")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", node.spec.join("ca.pem")).unwrap();
    node.refused(3, &["its link ca.pem leads to /etc/passwd, out of the folder"]);
}

fn made(days: std::ops::Range<i64>, change: impl FnOnce(&mut rcgen::CertificateParams)) -> String {
    let mut params = rcgen::CertificateParams::new(vec!["ca.example.com".to_owned()]).unwrap();
    let at = |days: i64| {
        let far = DAY * u32::try_from(days.abs()).unwrap();
        if days < 0 { SystemTime::now() - far } else { SystemTime::now() + far }
    };
    params.distinguished_name.push(rcgen::DnType::CommonName, format!("of {days:?}"));
    (params.not_before, params.not_after) = (at(days.start).into(), at(days.end).into());
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    change(&mut params);
    params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
}

#[test]
fn no_currently_valid_ca() {
    let node = Node::new();
    let document = format!("{HEAD}{CA}{MIRROR}[[registry]]\nhost = 'm.example.com'\nca = ['a']\n");
    node.document(&document);
    fs::write(node.spec.join("ca.pem"), made(-20..-10, |_| {})).unwrap();
    node.refused(3, &["m.example.com is left without any CA that is valid now", "expired", "spec.toml:"]);
    fs::write(node.spec.join("ca.pem"), made(10..20, |_| {})).unwrap();
    node.refused(3, &["is not valid before", "check the clock"]);
    // one expired among valid ones is left out
    let (old, good) = (made(-20..-10, |_| {}), made(-1..400, |_| {}));
    fs::write(node.spec.join("ca.pem"), format!("{old}{good}")).unwrap();
    node.run("check").says(0, &["warning[ca-expired]", "it is left out"]);
    node.run("apply").says(0, &["warning[ca-expired]"]);
    let body = |pem: &str| pem.lines().nth(2).unwrap().to_owned();
    let anchors: Vec<String> = fs::read_dir(node.at("/usr/local/share/ca-certificates"))
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.unwrap().path()).ok())
        .collect();
    assert!(anchors.iter().any(|text| text.contains(&body(&good))));
    assert!(!anchors.iter().any(|text| text.contains(&body(&old))));
    node.run("revert").says(0, &[]);
    node.converges();
}

#[test]
fn leaf_as_ca() {
    let node = Node::new();
    fs::copy(format!("{MATERIAL}/leaf.pem"), node.spec.join("ca.pem")).unwrap();
    node.refused(3, &["is no CA: another one issued it", "name the file of the CA that issued it", "spec.toml:6:8"]);
}

#[test]
fn key_of_another_certificate() {
    let node = Node::new();
    // the fixture's certificate is of version 1, which many libraries do not read
    fs::copy(format!("{MATERIAL}/other.key"), node.spec.join("node.key")).unwrap();
    node.refused(3, &["node.key is not the key of node.crt", "spec.toml:11:15"]);
    fs::copy(format!("{MATERIAL}/encrypted.key"), node.spec.join("node.key")).unwrap();
    node.refused(3, &["node.key: the key cannot be read", "openssl pkey -in node.key"]);
}

#[test]
fn endpoints() {
    for (endpoint, wanted) in [
        ("htps://m.example.com", "htps"),
        ("ftp://m.example.com", "ftp"),
        ("M.example.com", "write `m.example.com`"),
        ("m.example.com:65536", "is not between 1 and 65535"),
        ("m.example.com:0", "write a port between 1 and 65535"),
    ] {
        refused(&format!("{HEAD}{CA}[[mirror]]\nsource = 'quay.io'\nendpoints = ['{endpoint}']\n"), &["spec.toml:8:14", wanted]);
    }
}

#[test]
fn source_twice_and_mirror_of_itself() {
    refused(&format!("{HEAD}{CA}{MIRROR}{MIRROR}"), &["spec.toml:10:10", "docker.io"]);
    let itself = format!("{HEAD}{CA}[[mirror]]\nsource = 'quay.io'\nendpoints = ['quay.io']\n");
    refused(&itself, &["error[mirror-of-itself]", "quay.io"]);
}

#[test]
fn credential_in_the_spec() {
    // these secrets are among those that no output may show
    for line in [
        "password = 'foreign-s3cret'",
        "auth = 'c3BlYzpzM2NyZXQ='",
        "header = { Authorization = 'Basic c3BlYzpzM2NyZXQ=' }",
        "client_key = '''-----BEGIN PRIVATE KEY-----\nforeign-s3cret\n-----END PRIVATE KEY-----'''",
        "password = 'foreign-s3cret",
    ] {
        let document = format!("{HEAD}{CA}[[registry]]\nhost = 'm.example.com'\n{line}\n{MIRROR}");
        refused(&document, &["spec.toml:8"]);
    }
    for document in [
        format!("{HEAD}{CA}[[mirror]]\nsource = 'docker.io'\nendpoints = ['https://u:foreign-s3cret@m.example.com']\n"),
        format!("{HEAD}{CA}[[registry]]\nhost = 'u:foreign-s3cret@m.example.com'\n{MIRROR}"),
    ] {
        refused(&document, &["spec.toml:"]);
    }
}

#[test]
fn spec_that_is_not_there() {
    let node = Node::new();
    let check = |words: &str, wanted: &[&str]| {
        for command in ["check", "plan", "apply"] {
            let run = node.run(&format!("{command} {words}"));
            run.says(3, wanted);
            run.says(3, &["help: "]);
            assert_eq!(node.run(&format!("{command} --output json {words}")).json()["exit_code"], 3);
        }
    };
    let folder = node.folder().to_str().unwrap().to_owned();
    check(&format!("--spec {folder}/nowhere.toml"), &["nowhere.toml cannot be read"]);
    check("--spec /dev/zero", &["at most 1048576 are read"]);
    fs::create_dir(node.folder().join("none")).unwrap();
    check(&format!("--spec {folder}/none"), &["holds no document (*.toml, *.yaml, *.yml)"]);
    fs::copy(node.spec.join("spec.toml"), node.spec.join("again.toml")).unwrap();
    check("", &["error[several-heads]", "again.toml:1:1 already", "error[duplicate]"]);
    same(&Node::new().picture(true), &node.picture(true));
    fs::remove_file(node.spec.join("again.toml")).unwrap();
    node.converges();
}

#[test]
fn references_that_are_not_there() {
    let node = Node::new();
    for folder in ["/nowhere/at/all", "/etc/passwd"] {
        node.run(&format!("check --material {folder}")).says(3, &["spec.toml:6:8", &format!("{folder} is no folder that can be opened")]);
    }
    fs::write(node.spec.join("pull-secret.json"), "{\"auths\": {\"registry.internal.example.com:5000\": {\"auth\": \"foreign-s3cret\"}}}")
        .unwrap();
    node.refused(3, &["spec.toml:12:15", "pull-secret.json", "write \"auth\" as base64 of user:password"]);
}

#[test]
fn from_standard_input() {
    let node = Node::new();
    let words = |material: bool| -> Vec<String> {
        let mut words = vec!["check".to_owned(), "--spec".to_owned(), "-".to_owned()];
        words.extend(material.then(|| ["--material".to_owned(), node.spec.to_str().unwrap().to_owned()]).into_iter().flatten());
        words
    };
    let open = || Stdio::from(fs::File::open(node.spec.join("spec.toml")).unwrap());
    node.command(&words(false), open()).says(3, &["standard input:6:8", "name one with --material"]);
    node.command(&words(true), open()).says(0, &["valid"]);
    node.command(&words(true), Stdio::null()).says(3, &["`version` is missing"]);
}

#[test]
fn what_works_but_will_hurt() {
    let node = Node::new();
    let document = format!("{HEAD}{CA}{MIRROR}[[registry]]\nhost = 'i.example.com'\ninsecure = true\n");
    node.document(&document);
    fs::write(node.spec.join("ca.pem"), made(-1..20, |_| {})).unwrap();
    for command in ["check", "plan", "apply"] {
        node.run(command).says(0, &["warning[ca-expires-soon]", "expires in 19 days", "insecure", "i.example.com"]);
    }
    node.run("revert").says(0, &[]);
    fs::write(node.spec.join("ca.pem"), made(-1..400, |params| params.is_ca = rcgen::IsCa::NoCa)).unwrap();
    for command in ["check", "plan", "apply"] {
        node.run(command).says(0, &["warning[ca-without-flag]", "drop it"]);
    }
    node.run("check").says(0, &["pull-secrets-reach-mirrors", "make sure that whoever runs the mirrors may see them"]);
}

#[test]
fn a_thousand_mirrors() {
    let node = Node::new();
    let mut document = HEAD.to_owned();
    for number in 0..1000 {
        write!(document, "[[mirror]]\nsource = 'r{number}.example.com'\nendpoints = ['m.example.com:70000']\n").unwrap();
    }
    node.document(document);
    // enough is told, and that there is more
    node.run("check").says(3, &["501 errors", "spec.toml:1502:14"]);
    let good = fs::read_to_string(node.spec.join("spec.toml")).unwrap().replace(":70000", "");
    node.document(good);
    node.run("check").says(0, &["1000 mirrored sources"]);
}
