//! What is shipped beside the binary agrees with it: the unit is one that systemd takes, and the settings are flags.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests have effects")]

#[path = "pages/command.rs"]
mod command;
#[path = "pages/sbom.rs"]
mod sbom;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The variables that a subcommand takes as flags.
fn variables(subcommand: &str) -> BTreeSet<String> {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).args([subcommand, "--help"]).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let named = help.split("[env: ").skip(1).filter_map(|rest| rest.split(['=', ']']).next());
    named.map(|name| name.trim().to_owned()).collect()
}

#[test]
fn each_setting_is_a_flag_and_its_value_is_taken() {
    let text = std::fs::read_to_string(project("packaging/nodeprep.default")).unwrap();
    let settings: Vec<(&str, &str)> = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=')).collect();
    assert!(settings.len() >= 30, "{settings:?}");
    let of = |subcommand: &str| (subcommand.to_owned(), variables(subcommand));
    let known: BTreeMap<String, BTreeSet<String>> = ["apply", "agent", "verify"].map(of).into();
    for (name, value) in &settings {
        let takers: Vec<&String> = known.iter().filter(|(_, names)| names.contains(*name)).map(|(taker, _)| taker).collect();
        assert!(!takers.is_empty(), "{name} is no flag of anything");
        for taker in takers {
            let mut nodeprep = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
            nodeprep.args([taker, "--root", "/nonexistent"]).env_clear().env("NODEPREP_SPEC", "/nonexistent").env(name, value);
            // these two go together
            if name.starts_with("NODEPREP_SPEC_CLIENT_") {
                nodeprep.env("NODEPREP_SPEC_CLIENT_CERT", value).env("NODEPREP_SPEC_CLIENT_KEY", value);
            }
            let status = nodeprep.output().unwrap().status;
            assert_eq!(status.code(), Some(4), "{taker}: {name}={value} is not taken: a missing root is all that should be wrong");
        }
    }
    // what a service can be told stands there; the rest is for one run, or said by the unit
    let written: BTreeSet<&str> = settings.iter().map(|(name, _)| *name).collect();
    let left_out = ["NODEPREP_ROOT", "NODEPREP_COLOR", "NODEPREP_OUTPUT", "NODEPREP_UNATTENDED", "NODEPREP_LAST_KNOWN_GOOD"];
    let settable = ["apply", "agent"].into_iter().flat_map(|of| &known[of]);
    let missing: Vec<&String> = settable.filter(|name| !written.contains(name.as_str()) && !left_out.contains(&name.as_str())).collect();
    assert_eq!(missing, Vec::<&String>::new(), "not in packaging/nodeprep.default");
}

/// Each unit that is shipped, by its name.
fn units() -> Vec<String> {
    let names = std::fs::read_dir(project("systemd")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.ends_with(".service")).collect();
    names.sort();
    assert!(names.iter().any(|name| name == "nodeprep-apply.service"), "{names:?}");
    names
}

/// A root with the units and the program in the place of the machine's own; `None` where there is no systemd to ask.
fn root_with_units() -> Option<tempfile::TempDir> {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("skipped: there is no systemd-analyze here");
        return None;
    };
    assert!(version.status.success());
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("usr/lib/systemd/system");
    std::fs::create_dir_all(&folder).unwrap();
    for target in ["local-fs", "multi-user", "sysinit", "basic", "shutdown", "network", "network-online", "time-sync"] {
        std::fs::write(folder.join(format!("{target}.target")), "[Unit]\nDescription=x\n").unwrap();
    }
    for unit in units() {
        std::fs::copy(project("systemd").join(&unit), folder.join(&unit)).unwrap();
    }
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_nodeprep"), root.path().join("usr/bin/nodeprep")).unwrap();
    std::fs::create_dir_all(root.path().join("bin")).unwrap();
    std::fs::copy("/bin/true", root.path().join("bin/kill")).unwrap();
    Some(root)
}

fn analyze(root: &Path, words: &[&str]) -> (bool, String) {
    let mut analyze = Command::new("systemd-analyze");
    let output = analyze.arg(format!("--root={}", root.display())).args(words).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_takes_the_units() {
    let Some(root) = root_with_units() else { return };
    for unit in units() {
        let (taken, said) = analyze(root.path(), &["verify", "--man=no", &unit]);
        assert!(taken && !said.contains("nodeprep"), "{unit}: {said}");
    }
    // and it would have told
    let unit = root.path().join("usr/lib/systemd/system/nodeprep-apply.service");
    let text = std::fs::read_to_string(&unit).unwrap();
    std::fs::write(&unit, text.replace("Type=oneshot", "Type=oneshoot")).unwrap();
    let (_, said) = analyze(root.path(), &["verify", "--man=no", "nodeprep-apply.service"]);
    assert!(said.contains("nodeprep-apply"), "{said}");
}

/// What the units start is a command line that the program takes, and no unit that reads configuration starts before it.
#[test]
fn the_units_start_what_there_is() {
    for name in ["nodeprep-apply", "nodeprep-recover"] {
        let unit = std::fs::read_to_string(project("systemd").join(format!("{name}.service"))).unwrap();
        let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_else(|| panic!("{name}: {key}"));
        let root = tempfile::tempdir().unwrap();
        let mut nodeprep = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        nodeprep.args(value("ExecStart=").split(' ').skip(1)).arg("--root").arg(root.path()).env("NODEPREP_SPEC", "/nonexistent");
        // a spec that is missing, and nothing that would be open
        let code = if name == "nodeprep-apply" { 3 } else { 0 };
        assert_eq!(nodeprep.output().unwrap().status.code(), Some(code), "{name}");
        for runtime in ["containerd", "crio", "docker", "kubelet"] {
            assert!(value("Before=").contains(&format!("{runtime}.service")), "{name} is not before {runtime}");
        }
    }
    let recover = std::fs::read_to_string(project("systemd/nodeprep-recover.service")).unwrap();
    assert!(recover.contains("Before=nodeprep-apply.service"));
}

/// What `systemd-analyze security` makes of each unit is said in docs/install.md, and is no worse.
#[test]
fn units_are_as_hardened_as_the_documents_say() {
    let Some(root) = root_with_units() else { return };
    let page = std::fs::read_to_string(project("docs/install.md")).unwrap();
    for unit in units() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{unit}` |"))).unwrap_or_else(|| panic!("{unit} has no row"));
        let figure: f64 = row.trim_end_matches(" |").rsplit(" | ").next().unwrap().parse().unwrap_or_else(|_| panic!("{row}"));
        let threshold = format!("--threshold={:.0}", figure * 10.0);
        let (passed, said) = analyze(root.path(), &["security", "--offline=true", "--no-pager", &threshold, &unit]);
        assert!(passed, "{unit}: worse than {figure}: {}", said.lines().last().unwrap_or_default());
        let lower = format!("--threshold={:.0}", figure * 10.0 - 1.0);
        let (passed, _) = analyze(root.path(), &["security", "--offline=true", "--no-pager", &lower, &unit]);
        let version = analyze(root.path(), &["--version"]).1;
        assert!(!passed || !version.starts_with("systemd 252"), "{unit} is better than {figure} by now: say so in docs/install.md");
    }
}

/// The example is a spec that `check` takes as it stands, with a CA beside it.
#[test]
fn the_example_is_a_valid_spec() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(project("packaging/examples/spec.toml"), folder.path().join("spec.toml")).unwrap();
    std::fs::copy(project("fixtures/flow/deny-unlisted/ca.pem"), folder.path().join("internal-root.pem")).unwrap();
    let output =
        Command::new(env!("CARGO_BIN_EXE_nodeprep")).args(["check", "--spec"]).arg(folder.path().join("spec.toml")).output().unwrap();
    assert!(output.status.success(), "{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
}

/// So is the spec that cloud-init writes, and its script is one that a shell can read.
#[test]
fn what_cloud_init_writes_is_valid() {
    let text = std::fs::read_to_string(project("packaging/kubeadm/cloud-init.yaml")).unwrap();
    let block = |after: &str, indent: &str| -> String {
        let lines = text.split(after).nth(1).unwrap_or_else(|| panic!("no {after:?}")).lines().skip(1);
        let lines = lines.take_while(|line| line.is_empty() || line.starts_with(indent));
        lines.flat_map(|line| [line.strip_prefix(indent).unwrap_or_default(), "\n"]).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("spec.toml"), block("content: |", "    ")).unwrap();
    std::fs::copy(project("fixtures/flow/deny-unlisted/ca.pem"), folder.path().join("internal-root.pem")).unwrap();
    ran(Command::new(env!("CARGO_BIN_EXE_nodeprep")).args(["check", "--spec"]).arg(folder.path().join("spec.toml")));
    let script = folder.path().join("script");
    std::fs::write(&script, block("\n- |", "  ")).unwrap();
    assert!(std::fs::read_to_string(&script).unwrap().contains("nodeprep-bootstrap\n"));
    ran(Command::new("sh").arg("-n").arg(&script));
}

/// Every crate that cargo links into the program is in the bill of materials with the digest of Cargo.lock, and none else.
#[test]
fn the_bill_of_materials_is_what_cargo_links() {
    let cargo = |words: &[&str]| {
        let output = Command::new(env!("CARGO")).args(words).current_dir(project("")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lock = std::fs::read_to_string(project("Cargo.lock")).unwrap();
    let metadata: serde_json::Value = serde_json::from_str(&cargo(&sbom::METADATA)).unwrap();
    let tree = cargo(&sbom::TREE);
    let text = sbom::cyclonedx(&metadata, &tree, &lock, Some(951_782_400)).unwrap();
    let bom: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((bom["bomFormat"].as_str(), bom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    assert_eq!(bom["metadata"]["timestamp"], "2000-02-29T00:00:00Z");
    let mut listed = BTreeSet::new();
    for component in bom["components"].as_array().unwrap() {
        let word = |key: &str| component[key].as_str().unwrap();
        assert!(listed.insert(format!("{} v{}", word("name"), word("version"))), "{component} twice");
        let digest = component["hashes"][0]["content"].as_str().unwrap();
        let at = lock.find(&format!("name = \"{}\"\nversion = \"{}\"\n", word("name"), word("version"))).unwrap();
        assert!(lock[at..].split("\n\n").next().unwrap().contains(&format!("checksum = \"{digest}\"")), "{component}");
        assert!(!component["licenses"][0]["expression"].as_str().unwrap().is_empty());
    }
    let linked = tree.lines().skip(1).map(|line| line.trim_end_matches(" (*)").to_owned()).filter(|line| !line.is_empty()).collect();
    assert_eq!(listed, linked);
    assert!(listed.len() > 50 && !listed.iter().any(|one| one.starts_with("clap_mangen ") || one.starts_with("proptest ")), "{listed:?}");
}

/// What is laid out for all packages, of something that stands in the place of the program.
fn staged(folder: &Path) -> PathBuf {
    let pages = folder.join("pages");
    command::man(&pages.join("man")).unwrap();
    command::completions(&pages.join("completions")).unwrap();
    std::fs::write(pages.join("sbom.cdx.json"), "{}\n").unwrap();
    let program = folder.join("program");
    std::fs::write(&program, "#!/bin/sh\n").unwrap();
    let stage = folder.join("stage");
    ran(Command::new(project("packaging/stage")).args([&program, &pages, &stage]).env("SOURCE_DATE_EPOCH", "951782400"));
    stage
}

fn ran(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The package `build` makes of what was staged in a folder of its own, whose path is another one each time.
fn packed(build: &str, architecture: &str) -> (Vec<u8>, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let stage = staged(folder.path());
    let out = folder.path().join("out");
    let mut command = Command::new(project(build));
    ran(command.arg(&stage).args(["0.1.0", architecture]).arg(&out).env("SOURCE_DATE_EPOCH", "951782400"));
    let file = std::fs::read_dir(&out).unwrap().next().unwrap().unwrap().path();
    (std::fs::read(&file).unwrap(), folder, file)
}

#[test]
fn a_deb_is_the_same_wherever_it_is_made() {
    if Command::new("dpkg-deb").arg("--version").output().is_err() {
        eprintln!("skipped: there is no dpkg-deb here");
        return;
    }
    let (first, _folder, file) = packed("packaging/deb/build", "amd64");
    let (second, ..) = packed("packaging/deb/build", "amd64");
    assert!(first == second, "two builds differ");
    let list = ran(Command::new("dpkg-deb").arg("--contents").arg(&file));
    let path = |line: &str| line.split_whitespace().nth(5).unwrap().trim_start_matches('.').to_owned();
    let modes: BTreeMap<String, &str> = list.lines().map(|line| (path(line), &line[..10])).collect();
    for (file, mode) in [
        ("/usr/bin/nodeprep", "-rwxr-xr-x"),
        ("/usr/libexec/nodeprep/bootstrap", "-rwxr-xr-x"),
        ("/usr/lib/systemd/system/nodeprep-apply.service", "-rw-r--r--"),
        ("/usr/lib/tmpfiles.d/nodeprep.conf", "-rw-r--r--"),
        ("/etc/default/nodeprep", "-rw-r--r--"),
        ("/usr/share/man/man1/nodeprep.1.gz", "-rw-r--r--"),
        ("/usr/share/man/man1/nodeprep-apply.1.gz", "-rw-r--r--"),
        ("/usr/share/bash-completion/completions/nodeprep", "-rw-r--r--"),
        ("/usr/share/zsh/vendor-completions/_nodeprep", "-rw-r--r--"),
        ("/usr/share/fish/vendor_completions.d/nodeprep.fish", "-rw-r--r--"),
        ("/usr/share/doc/nodeprep/examples/spec.toml", "-rw-r--r--"),
    ] {
        assert_eq!(modes.get(file), Some(&mode), "{file} in {list}");
    }
    assert!(list.lines().all(|line| line.contains(" root/root ")), "{list}");
    let own = modes.keys().filter(|path| path.starts_with("/etc") || path.starts_with("/var")).map(String::as_str);
    assert_eq!(
        own.collect::<Vec<_>>(),
        ["/etc/", "/etc/default/", "/etc/default/nodeprep"],
        "a spec or a state would be there without anybody's doing"
    );
}

#[test]
fn an_rpm_is_the_same_wherever_it_is_made() {
    if !nix::unistd::geteuid().is_root() || !project("target/tools/rpm/root/usr/bin/rpmbuild").exists() {
        eprintln!("skipped: there is no rpmbuild that packaging/tools/prepare has unpacked, or this is not root");
        return;
    }
    let (first, ..) = packed("packaging/rpm/build", std::env::consts::ARCH);
    let (second, ..) = packed("packaging/rpm/build", std::env::consts::ARCH);
    assert!(first == second, "two builds differ");
}

/// Every subcommand has its page and can be completed; what is no affair of users has neither.
#[test]
fn pages_and_completions_are_of_all_subcommands() {
    let folder = tempfile::tempdir().unwrap();
    let stage = staged(folder.path());
    let help = String::from_utf8(Command::new(env!("CARGO_BIN_EXE_nodeprep")).arg("--help").output().unwrap().stdout).unwrap();
    let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let names: Vec<&str> = commands.lines().filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect();
    assert!(names.contains(&"apply") && names.len() >= 8, "{names:?}");
    let pages = std::fs::read_dir(stage.join("usr/share/man/man1")).unwrap().count();
    assert_eq!(pages, names.len() + 1, "a page for each subcommand, and one for all");
    for file in ["bash-completion/completions/nodeprep", "zsh/site-functions/_nodeprep", "fish/vendor_completions.d/nodeprep.fish"] {
        let text = std::fs::read_to_string(stage.join("usr/share").join(file)).unwrap();
        for name in &names {
            assert!(text.contains(name), "{file} does not know {name}");
            assert!(stage.join(format!("usr/share/man/man1/nodeprep-{name}.1.gz")).exists(), "{name} has no page");
        }
        assert!(!text.contains("shadow"), "{file} offers what is no affair of users");
    }
}

/// Each script is one that its shell can read.
#[test]
fn scripts_can_be_read() {
    for (shell, scripts) in [
        ("sh", &["packaging/deb/postinst", "packaging/deb/prerm", "packaging/deb/postrm", "packaging/kubeadm/nodeprep-bootstrap"][..]),
        ("bash", &["packaging/dist", "packaging/stage", "packaging/deb/build", "packaging/rpm/build", "packaging/tools/prepare"]),
    ] {
        for script in scripts {
            ran(Command::new(shell).arg("-n").arg(project(script)));
        }
    }
}
