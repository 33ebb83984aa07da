//! Manifests as JSON values: YAML 1.1 as far as Kubernetes and Helm write it, without anchors and tags.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Value};

/// Every document that says something.
pub fn read(text: &str) -> Vec<Value> {
    let events: Vec<Event<'_>> =
        Parser::new_from_str(text).map(|event| event.unwrap_or_else(|error| panic!("{error}\n{text}")).0).collect();
    let mut events = events.into_iter();
    let mut documents = Vec::new();
    while let Some(event) = events.next() {
        if matches!(event, Event::DocumentStart(_)) {
            documents.extend(node(&mut events).filter(|document| !document.is_null()));
        }
    }
    documents
}

/// The next node; `None` where what it is in ends.
fn node<'a>(events: &mut impl Iterator<Item = Event<'a>>) -> Option<Value> {
    match events.next().expect("it ends too early") {
        Event::Scalar(text, ScalarStyle::Plain, ..) => Some(plain(&text)),
        Event::Scalar(text, ..) => Some(Value::String(text.into_owned())),
        Event::SequenceStart(..) => Some(Value::Array(std::iter::from_fn(|| node(events)).collect())),
        Event::MappingStart(..) => {
            let mut map = Map::new();
            while let Some(key) = node(events) {
                let key = key.as_str().map_or_else(|| key.to_string(), str::to_owned);
                let value = node(events).expect("a value");
                assert!(map.insert(key.clone(), value).is_none(), "{key} twice");
            }
            Some(Value::Object(map))
        }
        Event::SequenceEnd | Event::MappingEnd | Event::DocumentEnd => None,
        other => panic!("not known here: {other:?}"),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        // one notation of YAML is octal in the eyes of some readers and decimal in those of others
        text if text.len() > 1 && text.starts_with('0') && text.bytes().all(|byte| byte.is_ascii_digit()) => {
            panic!("{text}: octal to some readers, decimal to others")
        }
        text => text.parse::<i64>().map_or_else(|_| Value::String(text.to_owned()), Value::from),
    }
}

#[test]
fn scalars_are_what_kubernetes_takes_them_for() {
    let read = read("a: 1\nb: \"1\"\nc: true\nd: 10%\ne: [x, {f: }]\ng: |\n  h\n---\n---\ni: 1.30\n");
    let want = serde_json::json!({"a": 1, "b": "1", "c": true, "d": "10%", "e": ["x", {"f": null}], "g": "h\n"});
    assert_eq!(read, [want, serde_json::json!({"i": "1.30"})]);
}
