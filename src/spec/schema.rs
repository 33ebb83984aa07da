//! The table of keys as a JSON Schema (draft 2020-12), for editors.
//!
//! What lives here: table in, JSON out. What must not: rules that the table does not have.
//!
//! Keys of a later version are not in it: to write one is an error. What top-level keys a document needs is said by
//! `dependentRequired`, since a document of a folder may carry lists only.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use super::table::{self, Field, Kind, TableDef};

/// The schema, as text that ends with a newline.
#[must_use]
pub fn schema() -> String {
    let mut defs = Map::new();
    for def in table::TABLES.into_iter().filter(|def| !def.name.is_empty()) {
        defs.insert(def.name.to_owned(), table(def, true));
    }
    let mut root = table(&table::DOCUMENT, false);
    root["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
    root["title"] = json!("nodeprep spec");
    root["$defs"] = Value::Object(defs);
    root["dependentRequired"] = Value::Object(top_level());
    let mut text = serde_json::to_string_pretty(&root).unwrap_or_default();
    text.push('\n');
    text
}

fn table(def: &TableDef, whole: bool) -> Value {
    let keys: Map<String, Value> = def.fields.iter().map(|field| (field.name.to_owned(), key(field))).collect();
    let mut object = json!({ "type": "object", "description": def.doc, "properties": keys, "additionalProperties": false });
    let required: Vec<&str> = def.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    if whole && !required.is_empty() {
        object["required"] = json!(required);
    }
    if !def.one_of.is_empty() {
        object["oneOf"] = def.one_of.iter().map(|key| json!({ "required": [key] })).collect();
    }
    object
}

/// Whoever writes one top-level key writes the required ones.
fn top_level() -> Map<String, Value> {
    let required: Vec<&str> = table::DOCUMENT.fields.iter().filter(|field| field.required).map(|field| field.name).collect();
    let top = table::DOCUMENT.fields.iter().filter(|field| !matches!(field.kind, Kind::Tables(_)));
    top.map(|field| {
        let others: Vec<&&str> = required.iter().filter(|name| **name != field.name).collect();
        (field.name.to_owned(), json!(others))
    })
    .collect()
}

fn key(field: &Field) -> Value {
    let mut value = match &field.kind {
        Kind::Integer => json!({ "type": "integer" }),
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Word(words) => json!({ "enum": words.iter().map(|word| word.name).collect::<Vec<_>>() }),
        Kind::Texts => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::TextsOrTables(def) => {
            json!({ "type": "array", "items": { "anyOf": [{ "type": "string" }, { "$ref": format!("#/$defs/{}", def.name) }] } })
        }
        Kind::Named => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Table(def) => json!({ "$ref": format!("#/$defs/{}", def.name) }),
        Kind::Tables(def) => json!({ "type": "array", "items": { "$ref": format!("#/$defs/{}", def.name) } }),
    };
    value["description"] = json!(description(field));
    value
}

fn description(field: &Field) -> String {
    let mut text = field.doc.to_owned();
    if let Kind::Word(words) = &field.kind {
        for word in *words {
            let _ = write!(text, "\n{}: {}.", word.name, word.doc);
        }
    }
    text
}
