//! Build script: leaves the tables for unwinding out of the release binary.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a build script asks the environment, and talks to cargo")]

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=packaging/link.rs");
    println!("cargo::rerun-if-changed=packaging/link.ld");
    let is = |name, value: &str| var(name).is_ok_and(|of| of == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let folder = var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{folder}/packaging/link.ld");
    }
}
