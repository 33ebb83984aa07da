//! What `verify` says of the registries of a case, held against what the case knows of them; and that it gives no secret away.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::case::{Answer, Case, Demand};
use crate::node::Scratch;
use crate::programs::Programs;
use crate::pull::Puller;
use crate::secrets::Secrets;

/// Everything that is wrong.
pub fn verify(case: &Case, programs: &Programs, scratch: &Scratch, spec: &Path, secrets: &Secrets) -> Result<Vec<String>> {
    // nodeprep asks the machine's resolver; this process has a mount namespace of its own
    for file in ["etc/hosts", "etc/resolv.conf"] {
        let output = Command::new("mount").arg("--bind").arg(scratch.root().join(file)).arg(Path::new("/").join(file)).output()?;
        ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut wrong = Vec::new();
    for form in ["text", "json"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        command.args(["-vv", "verify", "--timeout", "5", "--output", form, "--spec"]).arg(spec).arg("--root").arg(scratch.root());
        for image in &case.images {
            command.args(["--manifest", image]);
        }
        let output = command.env("HOME", "/root").output().context("nodeprep")?;
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(matches!(output.status.code(), Some(0 | 8)), "verify: {}\n{said}", output.status);
        wrong.extend(secrets.judge(&format!("verify --output {form}"), &said));
        if form == "json" {
            std::fs::write(scratch.folder.join("verify.json"), &output.stdout)?;
            let report: Value = serde_json::from_slice(&output.stdout).context("verify --output json is not JSON")?;
            wrong.extend(checks(case, programs, &report));
            let said = report["checks"].to_string();
            let words = case.says.iter().filter(|(_, by, _)| by == "verify").map(|(_, _, words)| words);
            wrong.extend(words.filter(|words| !said.contains(*words)).map(|words| format!("verify: should say {words:?}, but {said}")));
        }
    }
    Ok(wrong)
}

fn checks(case: &Case, programs: &Programs, report: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut found = 0;
    let all = report["checks"].as_array().into_iter().flatten().filter(|check| check["id"] == "endpoint");
    for check in all {
        let subject = check["subject"].as_str().unwrap_or_default();
        let Some((scheme, authority)) = subject.split_once(": ").and_then(|(_, url)| url.split_once("://")) else { continue };
        let Some(registry) = case.registries.iter().find(|registry| registry.is(authority)) else { continue };
        found += 1;
        let containerd = subject.starts_with("containerd");
        let Some(good) = expected(registry, scheme, containerd, programs) else { continue };
        if (check["result"] == "ok") != good {
            wrong.push(format!("verify: {authority} should {}be fine: {check}", if good { "" } else { "not " }));
        }
    }
    if found == 0 {
        wrong.push("verify says nothing of any registry of the case".to_owned());
    }
    wrong
}

/// Whether an endpoint is fine; `None` where the case does not say.
fn expected(registry: &Demand, scheme: &str, containerd: bool, programs: &Programs) -> Option<bool> {
    if !registry.reachable() || registry.scheme() != scheme {
        return Some(false);
    }
    // beside another Podman stands the usual containerd
    let new = !matches!(programs, Programs::Podman(_)) && programs.tokens(Puller::Containerd);
    let tokens = !containerd || new || registry.by_config;
    match registry.answer {
        Some(Answer::Token) if registry.login.is_some() => Some(tokens),
        Some(Answer::Html) => Some(false),
        // whether the login in the spec is the right one is not known here
        _ if registry.htpasswd.is_some() => None,
        _ => Some(true),
    }
}
