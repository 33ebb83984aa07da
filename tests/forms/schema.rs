//! The schema takes what the decoder takes: every valid spec of the fixtures, and no key or kind that is none.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nodeprep::spec::document::{Node, Scalar, Tree, parse_toml};
use nodeprep::spec::load::Draft;
use nodeprep::spec::notation::Notation;
use nodeprep::spec::schema::schema;
use nodeprep::spec::table::{Kind, TABLES};
use nodeprep::spec::yaml::parse_yaml;
use serde_json::{Map, Value, json};

/// What of a value does not fit, by JSON Schema 2020-12. A keyword that is not known here is a failure, so that none is passed over.
fn misfits(schema: &Value, root: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
    let object = schema.as_object().unwrap();
    for (keyword, rule) in object {
        match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" => {}
            "$ref" => {
                let name = rule.as_str().unwrap().strip_prefix("#/$defs/").unwrap();
                misfits(&root["$defs"][name], root, value, at, found);
            }
            "type" => {
                let fits = match rule.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64(),
                    other => panic!("type {other}"),
                };
                if !fits {
                    found.push(format!("{at}: type"));
                }
            }
            "anyOf" | "oneOf" => {
                let choices = rule.as_array().unwrap().iter().filter(|choice| {
                    let mut inner = Vec::new();
                    misfits(choice, root, value, at, &mut inner);
                    inner.is_empty()
                });
                let count = choices.count();
                if count == 0 || keyword == "oneOf" && count > 1 {
                    found.push(format!("{at}: {count} of {keyword}"));
                }
            }
            "enum" => {
                if !rule.as_array().unwrap().contains(value) {
                    found.push(format!("{at}: enum"));
                }
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    misfits(rule, root, item, &format!("{at}/{number}"), found);
                }
            }
            "properties" => {
                for (key, inner) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(key) {
                        misfits(rule, root, inner, &format!("{at}/{key}"), found);
                    }
                }
            }
            "additionalProperties" => match rule {
                Value::Bool(false) => {
                    let extra = value.as_object().into_iter().flatten().filter(|(key, _)| object["properties"].get(key.as_str()).is_none());
                    found.extend(extra.map(|(key, _)| format!("{at}/{key}: unknown")));
                }
                rule => {
                    for (key, inner) in value.as_object().into_iter().flatten() {
                        misfits(rule, root, inner, &format!("{at}/{key}"), found);
                    }
                }
            },
            "required" => {
                let missing = rule.as_array().unwrap().iter().filter(|key| value.is_object() && value.get(key.as_str().unwrap()).is_none());
                found.extend(missing.map(|key| format!("{at}/{}: missing", key.as_str().unwrap())));
            }
            "dependentRequired" => {
                for (key, others) in rule.as_object().unwrap() {
                    if value.get(key).is_some() {
                        let missing = others.as_array().unwrap().iter().filter(|key| value.get(key.as_str().unwrap()).is_none());
                        found.extend(missing.map(|key| format!("{at}/{}: missing", key.as_str().unwrap())));
                    }
                }
            }
            other => panic!("keyword {other}"),
        }
    }
}

fn fits(value: &Value) -> Vec<String> {
    let root: Value = serde_json::from_str(&schema()).unwrap();
    let mut found = Vec::new();
    misfits(&root, &root, value, "", &mut found);
    found
}

fn json_of(node: &Node) -> Value {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) => json!(text),
        Tree::Scalar(Scalar::Integer(number)) => json!(number),
        Tree::Scalar(Scalar::Flag(flag)) => json!(flag),
        Tree::Scalar(Scalar::Other(_)) => Value::Null,
        Tree::List(nodes) => Value::Array(nodes.iter().map(json_of).collect()),
        Tree::Table(entries) => Value::Object(entries.iter().map(|entry| (entry.key.clone(), json_of(&entry.node))).collect::<Map<_, _>>()),
    }
}

/// Every document below a folder of fixtures.
fn documents(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        let in_folder = folder.file_name().unwrap() == "spec" && !folder.ends_with("fixtures/spec");
        if path.is_dir() {
            documents(&path, found);
        } else if ["spec.toml", "spec.yaml"].contains(&name) || in_folder && Notation::of_name(name).is_some() {
            found.push(path);
        }
    }
}

/// Problems of shape: what a schema can know.
const SHAPE: [&str; 7] = ["conflicting-keys", "needs-newer", "unknown-key", "wrong-type", "missing-key", "bad-value", "secret-in-spec"];

fn is_missing(told: &str) -> bool {
    told.ends_with(": missing") || told.ends_with(": 0 of oneOf")
}

#[test]
fn it_takes_what_the_decoder_takes() {
    let mut all = Vec::new();
    documents(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures")), &mut all);
    let (mut good, mut bad) = (0, 0);
    for path in &all {
        let name = path.file_name().unwrap().to_str().unwrap();
        let Ok(text) = fs::read_to_string(path) else { continue };
        let text = text.trim_start_matches('\u{feff}');
        let node = if Notation::of_name(name) == Some(Notation::Toml) {
            parse_toml(text).ok()
        } else {
            parse_yaml(text).ok().filter(|(_, slips)| slips.is_empty()).map(|(node, _)| node)
        };
        let Some(node) = node else { continue };
        let problems = match Draft::open(name, text.as_bytes()) {
            Ok(draft) => draft.close(&BTreeMap::new(), None).problems,
            Err(problems) => problems,
        };
        let told = fits(&json_of(&node));
        let shape: Vec<_> =
            problems.iter().filter(|problem| SHAPE.contains(&problem.code)).map(|problem| (problem.code, &problem.what)).collect();
        // what the document of a folder lacks is in another one; a [[ca]] without certificates is beyond a table
        let decoder = shape.iter().filter(|(code, what)| *code != "missing-key" || what.contains(" in "));
        if decoder.clone().next().is_none() {
            good += 1;
            let told: Vec<_> = told.iter().filter(|told| !is_missing(told)).collect();
            assert!(told.is_empty(), "{}: {told:?}", path.display());
        }
        let unknown = shape.iter().filter(|(code, _)| ["unknown-key", "wrong-type"].contains(code)).count();
        if unknown > 0 {
            bad += 1;
            assert!(!told.is_empty(), "{}: {shape:?}", path.display());
        }
    }
    assert!(good > 40 && bad >= 8, "{good} good and {bad} bad ones of {}", all.len());
}

#[test]
fn it_refuses_what_the_decoder_refuses() {
    let minimal = || json!({ "version": 1, "fallback": "never" });
    assert_eq!(fits(&minimal()), [""; 0]);
    assert_eq!(fits(&json!({ "mirror": [{ "source": "a.b", "endpoints": ["c.d"] }] })), [""; 0]);
    assert_eq!(fits(&json!({ "mirror": [{ "endpoints": ["c.d"] }] })), ["/mirror/0: 0 of oneOf"]);
    let both = json!({ "mirror": [{ "source": "a.b", "hosts": ["a.b"], "endpoints": ["c.d"] }], "ca": [{ "name": "a", "file": "a", "pem": "b" }] });
    assert_eq!(fits(&both), ["/ca/0: 2 of oneOf", "/mirror/0: 2 of oneOf"]);
    assert_eq!(fits(&json!({ "version": 1 })), ["/fallback: missing"]);
    assert_eq!(fits(&json!({ "unlisted": "deny" })), ["/version: missing", "/fallback: missing"]);
    let nonsense = json!({ "nonsense": { "nonsense": [null] } });
    for table in TABLES {
        // a key that is none, and each key with something that is no value of any
        let wrong = table.fields.iter().map(|field| (field, nonsense.clone()));
        let keys = wrong.map(|(field, value)| (field.name, value, true));
        for (key, value, refused) in keys.chain([("zzz", json!(1), true)]) {
            let mut document = minimal();
            if table.name.is_empty() {
                document[key] = value;
            } else {
                let inner = json!({ key: value });
                let listed = TABLES[0].field(table.name).is_some_and(|field| matches!(field.kind, Kind::Tables(_)));
                document[table.name] = if listed { json!([inner]) } else { inner };
            }
            assert_eq!(!fits(&document).iter().all(|told| is_missing(told)), refused, "{} {key}", table.header);
        }
    }
}
