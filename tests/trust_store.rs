//! nodeprep and the trust stores' real tools, each on a throw-away overlay of this machine's root in a mount namespace of its
//! own: Debian's update-ca-certificates as it is; p11-kit's `trust` laid out as on RHEL, SUSE and Arch; OpenSSL's `rehash` as on
//! Flatcar and Photon; for Alpine a stand-in that follows its rules; and the
//! root of an image that is built without tools and booted. Skipped, with the reason, where this is not possible: not
//! root, no namespaces, no overlay, tools that cannot be had.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, reason = "tests look, panic and talk")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

const CANNOT: i32 = 77;

fn steps(script: &str, more: &[&Path]) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can make a mount namespace here");
        return;
    }
    let work = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trust_store").join(script);
    let mut command = Command::new("unshare");
    command.arg("-m").arg("bash").arg(script).arg(env!("CARGO_BIN_EXE_nodeprep")).arg(work.path()).args(more);
    let Ok(output) = command.output() else {
        println!("skipped: there is no unshare here");
        return;
    };
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    println!("{said}");
    let refused = said.contains("unshare failed");
    assert!(output.status.success() || output.status.code() == Some(CANNOT) || refused, "{said}");
}

/// p11-kit from the distribution's packages, unpacked below `target/` once.
fn p11_kit() -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("p11-kit");
    let root = folder.join("root");
    if root.join("usr/bin/trust").exists() {
        return Some(root);
    }
    let script = "set -e; rm -rf \"$1\"; mkdir -p \"$1/debs\" \"$1/part\"; cd \"$1/debs\"; \
        apt-get -q download p11-kit p11-kit-modules libp11-kit0 libtasn1-6 >../log 2>&1; \
        for deb in *.deb; do dpkg-deb -x \"$deb\" ../part; done; rm -rf ../part/usr/share/p11-kit/modules; mv ../part ../root";
    let status = Command::new("sh").args(["-c", script, "sh"]).arg(&folder).status();
    status.is_ok_and(|status| status.success()).then_some(root)
}

/// Rule 21: with the real command, the fingerprints in the bundle decide.
#[test]
fn debian() {
    steps("debian", &[]);
}

fn p11_kit_steps(script: &str) {
    static UNPACKED: OnceLock<Option<PathBuf>> = OnceLock::new();
    match UNPACKED.get_or_init(p11_kit) {
        Some(root) => steps(script, &[root]),
        None => println!("skipped: p11-kit cannot be had from the distribution's packages here"),
    }
}

#[test]
fn rhel() {
    p11_kit_steps("rhel");
}

#[test]
fn suse() {
    p11_kit_steps("suse");
}

#[test]
fn arch() {
    p11_kit_steps("arch");
}

#[test]
fn flatcar() {
    steps("flatcar", &[]);
}

#[test]
fn photon() {
    steps("photon", &[]);
}

#[test]
fn alpine() {
    steps("alpine", &[]);
}

#[test]
fn image() {
    steps("image", &[]);
}
