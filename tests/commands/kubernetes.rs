//! Commands for a cluster, which there is none of here: that what they name exists.

use std::path::PathBuf;

use serde_json::Value;

use crate::page::project;

/// `kubectl apply -k PATH`, `kubectl apply -f PATH`, `kubectl kustomize PATH`, `helm install|upgrade|template … PATH`.
pub fn is_known(words: &[&str]) -> bool {
    match words {
        ["kubectl", "apply" | "delete", rest @ ..] => rest.iter().any(|word| ["-k", "-f"].contains(word)),
        ["kubectl", "kustomize", ..] | ["helm", "install" | "upgrade" | "template" | "lint", ..] => true,
        _ => false,
    }
}

/// That the paths and keys of such a command exist.
pub fn holds(part: &str) -> Result<(), String> {
    let words: Vec<&str> = part.split_whitespace().collect();
    let after = |flag: &str| words.windows(2).filter(|pair| pair[0] == flag).map(|pair| pair[1]).collect::<Vec<_>>();
    let there = |path: &str, file: &str| -> Result<PathBuf, String> {
        let found = project(path).join(file);
        if found.exists() { Ok(found) } else { Err(format!("there is no {}", found.display())) }
    };
    if words[0] == "helm" {
        let charts: Vec<&str> =
            words[2..].iter().copied().filter(|word| word.contains('/') && project(word).join("Chart.yaml").exists()).collect();
        let [chart] = charts[..] else { return Err("no folder of a chart is named".to_owned()) };
        let schema: Value = std::fs::read(there(chart, "values.schema.json")?)
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .ok_or("no schema")?;
        let sets = ["--set", "--set-file", "--set-string", "--set-json"].into_iter().flat_map(after);
        for key in sets.flat_map(|set| set.split(',')).map(|set| set.split('=').next().unwrap_or_default()) {
            if !is_key(&schema, &segments(key)) {
                return Err(format!("{chart} has no value {key}"));
            }
        }
        for file in after("-f").into_iter().chain(after("--values")).filter(|file| file.contains('/')) {
            there(file, "")?;
        }
        return Ok(());
    }
    let folders = after("-k").into_iter().chain((words[1] == "kustomize").then(|| words[2]));
    for folder in folders {
        there(folder, "kustomization.yaml")?;
    }
    for file in after("-f").into_iter().filter(|file| file.contains('/')) {
        there(file, "")?;
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
