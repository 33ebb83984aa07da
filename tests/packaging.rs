//! What is shipped beside the binary agrees with it: the unit is one that systemd takes, and the settings are flags.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stderr, missing_docs, reason = "tests have effects")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn help() -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).args(["apply", "--help"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn each_setting_is_a_flag_and_its_value_is_taken() {
    let text = std::fs::read_to_string(project("packaging/nodeprep.default")).unwrap();
    let settings: Vec<(&str, &str)> = text.lines().filter_map(|line| line.strip_prefix('#')?.split_once('=')).collect();
    assert!(settings.len() >= 4, "{settings:?}");
    let help = help();
    for (name, value) in settings {
        assert!(['=', ']'].iter().any(|end| help.contains(&format!("[env: {name}{end}"))), "{name} is no flag of apply");
        let root = tempfile::tempdir().unwrap();
        let mut nodeprep = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        nodeprep.args(["apply", "--root"]).arg(root.path()).env("NODEPREP_SPEC", "/nonexistent").env(name, value);
        let status = nodeprep.output().unwrap().status;
        assert_eq!(status.code(), Some(3), "{name}={value} is not taken: a missing spec is all that should be wrong");
    }
}

/// The unit's program and folders stand in the place of those of the machine.
#[test]
fn systemd_takes_the_unit() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        eprintln!("skipped: there is no systemd-analyze here");
        return;
    };
    assert!(version.status.success());
    let root = tempfile::tempdir().unwrap();
    let units = root.path().join("usr/lib/systemd/system");
    std::fs::create_dir_all(&units).unwrap();
    for target in ["local-fs", "multi-user", "sysinit", "basic", "shutdown"] {
        std::fs::write(units.join(format!("{target}.target")), "[Unit]\nDescription=x\n").unwrap();
    }
    std::fs::create_dir_all(root.path().join("usr/bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_nodeprep"), root.path().join("usr/bin/nodeprep")).unwrap();
    let unit = std::fs::read_to_string(project("systemd/nodeprep-apply.service")).unwrap();
    let verify = |text: &str| {
        std::fs::write(units.join("nodeprep-apply.service"), text).unwrap();
        let mut analyze = Command::new("systemd-analyze");
        analyze.arg(format!("--root={}", root.path().display())).args(["verify", "--man=no", "nodeprep-apply.service"]);
        let output = analyze.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (taken, said) = verify(&unit);
    assert!(taken && !said.contains("nodeprep-apply"), "{said}");
    // and it would have told
    let (_, said) = verify(&unit.replace("Type=oneshot", "Type=oneshoot"));
    assert!(said.contains("nodeprep-apply"), "{said}");
}
