//! Commands for a cluster, which there is none of here: that what they name exists.

use std::path::PathBuf;

use serde_json::Value;

use crate::page::project;

/// The words of a command that are no flags, without the values of the flags that stand before the verb.
fn plain<'a>(words: &[&'a str]) -> Vec<&'a str> {
    let mut plain = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match *word {
            "-n" | "--namespace" | "--context" | "--kubeconfig" => drop(words.next()),
            flag if flag.starts_with('-') => {}
            word => plain.push(word),
        }
    }
    plain
}

/// What is looked at here: `kubectl apply|delete -k|-f PATH`, `kubectl kustomize PATH`, verbs of kubectl about something that has a name of ours, and `helm
/// install|upgrade|template|lint|uninstall`.
pub fn is_known(words: &[&str]) -> bool {
    let about = ["get", "logs", "rollout", "wait", "describe", "create", "label", "annotate", "exec", "delete", "edit", "patch"];
    match plain(words).as_slice() {
        ["kubectl", "apply", ..] => words.iter().any(|word| ["-k", "-f"].contains(word)),
        ["kubectl", "kustomize", ..] | ["helm", "install" | "upgrade" | "template" | "lint" | "uninstall", ..] => true,
        ["kubectl", verb, rest @ ..] => about.contains(verb) && !rest.is_empty(),
        _ => false,
    }
}

/// Where what an archive of `packaging/kubernetes/pack` holds stands in the project.
fn unpacked(path: &str) -> String {
    if path.starts_with("nodeprep-chart-") {
        return "packaging/kubernetes/chart".to_owned();
    }
    match path.strip_prefix("nodeprep-kubernetes-").and_then(|rest| rest.split_once('/')) {
        Some((_, inside)) => format!("packaging/kubernetes/{inside}"),
        None => path.to_owned(),
    }
}

/// Everything that stands in the manifests and the chart.
fn manifests() -> String {
    let mut text = String::new();
    let mut folders = vec![project("packaging/kubernetes")];
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
            if path.is_dir() {
                folders.push(path);
            } else {
                text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
            }
        }
    }
    text
}

/// That the paths, keys and names of such a command exist.
pub fn holds(part: &str) -> Result<(), String> {
    let words: Vec<&str> = part.split_whitespace().collect();
    let after = |flag: &str| words.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>();
    let there = |path: &str, file: &str| -> Result<PathBuf, String> {
        let found = project(&unpacked(path)).join(file);
        if found.exists() { Ok(found) } else { Err(format!("there is no {}", found.display())) }
    };
    let plain = plain(&words);
    if words[0] == "helm" {
        if plain[1] == "uninstall" {
            return Ok(());
        }
        let charts: Vec<String> =
            plain[2..].iter().map(|word| unpacked(word)).filter(|path| project(path).join("Chart.yaml").exists()).collect();
        let [chart] = charts.as_slice() else { return Err("no chart is named".to_owned()) };
        let schema: Value = std::fs::read(there(chart, "values.schema.json")?)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .ok_or("values.schema.json is no JSON")?;
        let sets = ["--set", "--set-file", "--set-string", "--set-json"].into_iter().flat_map(after);
        for key in sets.flat_map(|set| set.split(',')).map(|set| set.split('=').next().unwrap_or_default()) {
            if !is_key(&schema, &segments(key)) {
                return Err(format!("{chart} has no value {key}"));
            }
        }
        return Ok(());
    }
    for folder in after("-k").into_iter().chain((plain[1] == "kustomize").then(|| plain[2])) {
        there(folder, "kustomization.yaml")?;
    }
    for file in after("-f").into_iter().filter(|file| file.contains('/')) {
        there(file, "")?;
    }
    let manifests = manifests();
    for name in words.iter().flat_map(|word| word.split(['/', '=', ','])).filter(|name| name.starts_with("nodeprep")) {
        let is_archive = name.starts_with("nodeprep-kubernetes-") || name.starts_with("nodeprep-chart-");
        if !is_archive && !manifests.contains(name) && !project("packaging/kubernetes").join(name).exists() {
            return Err(format!("nothing in packaging/kubernetes is called {name}"));
        }
    }
    Ok(())
}

/// `a.b\.c[0].d` as its keys; places in lists are left out.
fn segments(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut chars = key.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => parts.last_mut().unwrap().extend(chars.next()),
            '.' => parts.push(String::new()),
            '[' => drop(chars.by_ref().find(|char| *char == ']')),
            char => parts.last_mut().unwrap().push(char),
        }
    }
    parts
}

fn is_key(schema: &Value, key: &[String]) -> bool {
    let Some((first, rest)) = key.split_first() else { return true };
    let schema = schema.get("items").unwrap_or(schema);
    let free = |more: &Value| more.as_bool() == Some(true) || more.is_object();
    match schema.get("properties").and_then(|all| all.get(first)) {
        Some(next) => is_key(next, rest),
        // a map of the user's own names
        None => schema.get("additionalProperties").is_some_and(free),
    }
}

#[test]
fn keys_are_looked_up() {
    let schema = serde_json::json!({"properties": {"a": {"properties": {"b": {"type": "boolean"}}}, "m": {"additionalProperties": {"type": "string"}}}});
    for (key, there) in [("a.b", true), ("a.c", false), ("m.x\\.y/z", true), ("n", false)] {
        assert_eq!(is_key(&schema, &segments(key)), there, "{key}");
    }
}
