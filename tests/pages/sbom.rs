//! A bill of materials in CycloneDX 1.5: the crates that the program is linked from, as cargo resolves them, with the digests of `Cargo.lock`.

use std::collections::{BTreeMap, BTreeSet};

use nodeprep::model::time::Time;
use serde_json::{Value, json};

use crate::Result;

/// What is linked does not differ between the architectures; the C library is the one of a portable build.
pub const METADATA: [&str; 5] = ["metadata", "--format-version=1", "--locked", "--filter-platform", "x86_64-unknown-linux-musl"];

/// Which of these crates are linked: the metadata count what tests want of them, too.
pub const TREE: [&str; 10] =
    ["tree", "--locked", "--edges", "normal,no-proc-macro", "--target", METADATA[4], "--prefix", "none", "--format", "{p}"];

/// `metadata` and `tree` are what cargo says to [`METADATA`] and [`TREE`], `epoch` is the time of the source in seconds since 1970.
pub fn cyclonedx(metadata: &Value, tree: &str, lock: &str, epoch: Option<i64>) -> Result<String> {
    let packages: BTreeMap<&str, &Value> = list(&metadata["packages"]).iter().map(|package| (word(&package["id"]), package)).collect();
    let nodes: BTreeMap<&str, &Value> = list(&metadata["resolve"]["nodes"]).iter().map(|node| (word(&node["id"]), node)).collect();
    let root = metadata["resolve"]["root"].as_str().ok_or("no root package")?;
    let digests = digests(lock)?;
    let linked: BTreeSet<String> = tree.lines().map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" ")).collect();
    let links = |id: &str| {
        let (name, version) = (word(&packages[id]["name"]), word(&packages[id]["version"]));
        linked.contains(&format!("{name} v{version}"))
    };
    let (mut seen, mut open) = (BTreeSet::from([root]), vec![root]);
    let mut edges = BTreeMap::new();
    while let Some(id) = open.pop() {
        let deps = list(&nodes.get(id).ok_or("a crate without a node")?["deps"]).iter();
        let on: BTreeSet<&str> = deps.filter(|dep| normal(dep)).map(|dep| word(&dep["pkg"])).filter(|id| links(id)).collect();
        open.extend(on.iter().copied().filter(|id| seen.insert(*id)));
        edges.insert(id, on);
    }
    let mut components = Vec::new();
    for id in seen.iter().filter(|id| **id != root) {
        components.push(component(packages[id], &digests)?);
    }
    components.sort_by_key(|component| word(&component["bom-ref"]).to_owned());
    let mut dependencies: Vec<Value> = edges
        .iter()
        .map(|(id, linked)| {
            let mut on: Vec<String> = linked.iter().map(|id| purl(packages[id])).collect();
            on.sort();
            json!({ "ref": purl(packages[id]), "dependsOn": on })
        })
        .collect();
    dependencies.sort_by_key(|dependency| word(&dependency["ref"]).to_owned());
    let own = packages[root];
    let mut about = json!({ "component": {
        "type": "application",
        "bom-ref": purl(own),
        "name": own["name"],
        "version": own["version"],
        "description": own["description"],
        "licenses": [{ "expression": own["license"] }],
        "purl": purl(own),
    } });
    if let Some(epoch) = epoch {
        about["timestamp"] = Time::from_secs(epoch).to_string().into();
    }
    let bom = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": about,
        "components": components,
        "dependencies": dependencies,
    });
    Ok(serde_json::to_string_pretty(&bom)? + "\n")
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

/// Neither for tests nor for build scripts only.
fn normal(dep: &Value) -> bool {
    list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"].is_null())
}

fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}@{}", word(&package["name"]), word(&package["version"]))
}

fn component(package: &Value, digests: &BTreeMap<(String, String), String>) -> Result<Value> {
    let (name, version) = (word(&package["name"]), word(&package["version"]));
    let digest =
        digests.get(&(name.to_owned(), version.to_owned())).ok_or_else(|| format!("Cargo.lock has no digest of {name} {version}"))?;
    // the older way to say OR
    let license = package["license"].as_str().ok_or_else(|| format!("{name} does not name its licence"))?.replace('/', " OR ");
    Ok(json!({
        "type": "library",
        "bom-ref": purl(package),
        "name": name,
        "version": version,
        "scope": "required",
        "hashes": [{ "alg": "SHA-256", "content": digest }],
        "licenses": [{ "expression": license }],
        "purl": purl(package),
    }))
}

/// Name and version → SHA-256 of the crate.
fn digests(lock: &str) -> Result<BTreeMap<(String, String), String>> {
    let lock: toml_edit::DocumentMut = lock.parse()?;
    let packages = lock.get("package").and_then(|packages| packages.as_array_of_tables()).ok_or("Cargo.lock lists no packages")?;
    let text = |table: &toml_edit::Table, key: &str| table.get(key).and_then(|value| value.as_str()).map(ToOwned::to_owned);
    Ok(packages.iter().filter_map(|one| Some(((text(one, "name")?, text(one, "version")?), text(one, "checksum")?))).collect())
}
