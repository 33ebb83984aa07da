//! The house rules that clippy cannot see: effects only in `node/`, files of a size that can be read, every room says what
//! lives in it.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

use std::path::{Path, PathBuf};

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("src").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn each_source(mut see: impl FnMut(&str, &str)) {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = sources(&src);
    assert!(all.len() > 30, "only {} sources were found below {}", all.len(), src.display());
    for path in all {
        let text = std::fs::read_to_string(&path).expect("a source");
        see(&path.strip_prefix(&src).expect("below src").display().to_string(), &text);
    }
}

/// The part of a source that is not its test module.
fn code(text: &str) -> &str {
    text.split("\n#[cfg(test)]").next().unwrap_or(text)
}

#[test]
fn effects_only_in_node() {
    let effects = [
        "std::fs",
        "std::process",
        "std::env",
        "std::net::Tcp",
        "std::os::unix::fs",
        "std::os::unix::net",
        "tokio::",
        "std::io::std",
        "SystemTime",
        "Instant",
        "nix::",
        "rustix::",
        "xattr::",
    ];
    let mut wrong = Vec::new();
    each_source(|name, text| {
        // the program itself ends with an exit code
        if name.starts_with("node/") || name == "main.rs" {
            return;
        }
        for (number, line) in code(text).lines().enumerate() {
            let line = line.split("//").next().unwrap_or(line);
            if let Some(effect) = effects.iter().find(|effect| line.contains(**effect)) {
                wrong.push(format!("src/{name}:{}: {effect} belongs into src/node/", number + 1));
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn one_user_of_the_pem_and_x509_crates() {
    each_source(|name, text| {
        if name != "model/cert.rs" && name != "model/cert/link.rs" {
            for banned in ["rustls_pemfile", "x509_parser"] {
                assert!(!code(text).contains(banned), "src/{name} uses {banned}: certificates are read in src/model/cert only");
            }
        }
    });
}

/// What the CRI says is known to the rest of the program by the types of `model/cri.rs` alone.
#[test]
fn one_user_of_grpc() {
    each_source(|name, text| {
        for banned in ["prost::", "h2::", "http::", "tokio::"].iter().filter(|_| !name.starts_with("node/cri/")) {
            let used = code(text).lines().any(|line| line.trim_start().trim_start_matches("use ").starts_with(banned));
            assert!(!used, "src/{name} uses {banned}: runtimes are asked in src/node/cri only");
        }
    });
}

#[test]
fn the_flow_has_one_direction() {
    // room → rooms that it must not know
    let rules: [(&str, &[&str]); 8] = [
        ("agent/", &["spec", "format", "plan", "apply", "node", "report", "cli", "ledger", "desired"]),
        ("model/", &["spec", "format", "runtime", "trust", "desired", "plan", "apply", "node", "report", "cli", "ledger"]),
        ("format/", &["spec", "plan", "apply", "node", "report", "cli", "ledger", "desired"]),
        ("spec/", &["format", "plan", "apply", "node", "report", "cli", "ledger", "desired"]),
        ("trust/", &["apply", "report", "cli", "node"]),
        ("runtime/", &["apply", "report", "cli", "node"]),
        ("plan/", &["apply", "report", "cli", "node"]),
        ("apply/", &["report", "cli", "spec", "runtime"]),
    ];
    let mut wrong = Vec::new();
    each_source(|name, text| {
        for (room, banned) in rules {
            if !name.starts_with(room) {
                continue;
            }
            for other in banned {
                if code(text).contains(&format!("crate::{other}::")) || code(text).contains(&format!("crate::{other};")) {
                    wrong.push(format!("src/{name} knows {other}"));
                }
            }
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_can_be_read_in_one_sitting() {
    let mut wrong = Vec::new();
    each_source(|name, text| {
        let lines = text.lines().count();
        if lines > 500 {
            wrong.push(format!("src/{name} has {lines} lines: look for the second concern"));
        }
        if !text.trim_start_matches("#![forbid(unsafe_code)]").trim_start().starts_with("//!") {
            wrong.push(format!("src/{name} does not say what lives in it"));
        }
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    for path in [sources(&home.join("src")), sources(&home.join("tests"))].concat() {
        let text = std::fs::read_to_string(&path).expect("a source");
        let ignored = text.lines().any(|line| line.trim_start().starts_with("#[ignore"));
        assert!(!ignored, "{} switches a test off", path.display());
    }
}
