//! Build script: leaves the tables for unwinding out of the release binary, orders a static one and packs its relocations.
#![allow(clippy::disallowed_methods, clippy::print_stdout, reason = "a build script asks the environment, and talks to cargo")]

use std::env::var;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=packaging/link.rs");
    println!("cargo::rerun-if-changed=packaging/link.ld");
    println!("cargo::rerun-if-changed=packaging/order.ld");
    let is = |name, value: &str| var(name).is_ok_and(|of| of == value);
    if is("PROFILE", "release") && is("CARGO_CFG_TARGET_OS", "linux") {
        let folder = var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!("cargo::rustc-link-arg-bins=-T{folder}/packaging/link.ld");
        // what was tried; a program for another machine cannot be run here
        if is("CARGO_CFG_TARGET_ENV", "musl") && is("CARGO_CFG_TARGET_ARCH", "x86_64") {
            println!("cargo::rustc-link-arg-bins=-T{folder}/packaging/order.ld");
            // Each process reads its relocations before its first instruction: 8 kB instead of 180. Whoever starts the program has to know
            // the form (DT_RELR), which is the program itself: musl since 1.2.4.
            if compiler() >= MUSL_1_2_5 {
                println!("cargo::rustc-link-arg-bins=-zpack-relative-relocs");
            }
        }
    }
}

/// The compiler that brings musl 1.2.5 (1.93 does, and 1.95 was tried).
const MUSL_1_2_5: (u32, u32) = (1, 95);

/// Which compiler this is.
fn compiler() -> (u32, u32) {
    let said = Command::new(var("RUSTC").unwrap_or_default()).arg("--version").output().map(|output| output.stdout).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let mut numbers = said.split(' ').nth(1).unwrap_or_default().split('.').map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}
