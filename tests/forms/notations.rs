//! Random specs are written in both notations: both give the same tree, and the same is said about them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use nodeprep::model::problem::Problem;
use nodeprep::spec::document::{Node, Scalar, Tree, parse_toml};
use nodeprep::spec::load::Draft;
use nodeprep::spec::yaml::parse_yaml;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// A value that both notations can write.
#[derive(Clone, Debug, PartialEq)]
enum Value {
    Text(String),
    Number(i64),
    Flag(bool),
    List(Vec<Value>),
    Table(Vec<(String, Value)>),
}

const KEYS: [&str; 22] = [
    "version",
    "fallback",
    "unlisted",
    "runtimes",
    "requires",
    "name",
    "ca",
    "registry",
    "mirror",
    "runtime",
    "file",
    "pem",
    "trust",
    "host",
    "client_cert",
    "credentials",
    "insecure",
    "source",
    "endpoints",
    "pause_image",
    "endpiont",
    "ä b",
];

fn scalar() -> impl Strategy<Value = Value> {
    let known = prop::sample::select(vec![
        "never",
        "upstream",
        "deny",
        "docker.io",
        "m.example.com:5000/x",
        "http://a.b",
        "yes",
        "no",
        "~",
        "",
        "null",
        "1",
        "1.5",
        "true",
        "0x1",
        "- a",
        "a: b",
        "a #b",
        "#a",
        "&a",
        "*a",
        "!a",
        "%a",
        "@a",
        "`a",
        "{",
        "[",
        "|",
        ">",
        "'",
        "\"",
        "\\",
        "node:/x",
        " a ",
        "a\nb",
        "\n",
        "a\tb",
        "---",
        "...",
        "<<",
        "? a",
        ": a",
        "é\u{4e00}\u{1f600}",
        "\u{85}\u{2028}",
        "=",
        "a\r\nb",
        "\u{7f}",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| Value::Text(text.to_owned())),
        2 => "[ -~]{0,12}".prop_map(Value::Text),
        1 => any::<i64>().prop_map(Value::Number),
        1 => any::<bool>().prop_map(Value::Flag),
    ]
}

fn table(value: impl Strategy<Value = Value> + 'static) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(prop::sample::select(KEYS.to_vec()), value, 0..6)
        .prop_map(|entries| Value::Table(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()))
}

fn document() -> impl Strategy<Value = Value> {
    let inner = scalar()
        .prop_recursive(3, 24, 4, |inner| prop_oneof![prop::collection::vec(inner.clone(), 0..4).prop_map(Value::List), table(inner)]);
    table(inner)
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || c == '\u{2028}' => write!(out, "\\u{:04x}", u32::from(c)).unwrap(),
            c => out.push(c),
        }
    }
    out + "\""
}

fn toml(value: &Value) -> String {
    match value {
        Value::Text(text) => quoted(text),
        Value::Number(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(values) => format!("[{}]", values.iter().map(toml).collect::<Vec<_>>().join(", ")),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{} = {}", quoted(key), toml(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
    }
}

fn toml_document(value: &Value) -> String {
    let Value::Table(entries) = value else { unreachable!() };
    entries.iter().fold(String::new(), |text, (key, value)| format!("{text}{} = {}\n", quoted(key), toml(value)))
}

/// The value with JSON's braces.
fn flow(value: &Value) -> String {
    match value {
        Value::List(values) => format!("[{}]", values.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Table(entries) => {
            let entries = entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), flow(value)));
            format!("{{{}}}", entries.collect::<Vec<_>>().join(", "))
        }
        other => toml(other),
    }
}

/// The value in lines, in several styles; `further` is the indentation of what is below.
fn block(value: &Value, indent: usize, out: &mut String) {
    let pad = " ".repeat(indent);
    match value {
        Value::List(values) if !values.is_empty() => {
            out.push('\n');
            for value in values {
                write!(out, "{pad}-").unwrap();
                block(value, indent + 2, out);
            }
        }
        Value::Table(entries) if !entries.is_empty() => {
            out.push('\n');
            for (key, value) in entries {
                let plain = key.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
                write!(out, "{pad}{}:", if plain { key.clone() } else { quoted(key) }).unwrap();
                block(value, indent + 2, out);
            }
        }
        Value::Text(text) if is_plain(text) => writeln!(out, " {text}  # c").unwrap(),
        Value::Text(text) if !text.contains('\'') && !text.chars().any(|c| c.is_control() || c == '\u{2028}') => {
            writeln!(out, " '{text}'").unwrap();
        }
        Value::Text(text) if text.len() > 1 && text.ends_with('\n') && !text.contains("\n\n") && text.trim() == text.trim_end() => {
            writeln!(out, " |").unwrap();
            text.lines().for_each(|line| writeln!(out, "{pad}{line}").unwrap());
        }
        other => writeln!(out, " {}", flow(other)).unwrap(),
    }
}

/// Texts that need no quotation marks for any reader.
fn is_plain(text: &str) -> bool {
    text.len() > 2
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && !["yes", "null", "true"].contains(&text)
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'/' | b':'))
        && !text.ends_with(':')
}

fn read(node: &Node) -> Value {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) => Value::Text(text.clone()),
        Tree::Scalar(Scalar::Integer(number)) => Value::Number(*number),
        Tree::Scalar(Scalar::Flag(flag)) => Value::Flag(*flag),
        Tree::Scalar(Scalar::Other(name)) => panic!("{name} was never written"),
        Tree::List(nodes) => Value::List(nodes.iter().map(read).collect()),
        Tree::Table(entries) => Value::Table(entries.iter().map(|entry| (entry.key.clone(), read(&entry.node))).collect()),
    }
}

/// What is said, less the words that belong to a notation; the digest and places differ by nature.
fn said(name: &str, text: &str) -> Vec<(&'static str, String)> {
    let problems: Vec<Problem> = match Draft::open(name, text.as_bytes()) {
        Ok(draft) => draft.close(&BTreeMap::new(), None).problems,
        Err(problems) => problems,
    };
    let mut said: Vec<_> = problems.into_iter().map(|problem| (problem.code, problem.what)).collect();
    said.sort();
    said
}

#[test]
fn both_say_the_same() {
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    runner
        .run(&document(), |value| {
            let toml = toml_document(&value);
            let mut lines = String::new();
            block(&value, 0, &mut lines);
            let from_toml = parse_toml(&toml).map_err(|error| TestCaseError::fail(format!("{error} in {toml}")))?;
            prop_assert_eq!(&read(&from_toml), &value, "{}", toml);
            for yaml in [flow(&value), lines.clone(), lines.replace('\n', "\r\n")] {
                let (from_yaml, slips) = parse_yaml(&yaml).map_err(|error| TestCaseError::fail(format!("{error} in {yaml}")))?;
                prop_assert_eq!(&slips, &[], "{}", yaml);
                prop_assert_eq!(&read(&from_yaml), &value, "{}", yaml);
            }
            let codes = |said: Vec<(&'static str, String)>| said.into_iter().map(|(code, _)| code).collect::<Vec<_>>();
            prop_assert_eq!(codes(said("s.toml", &toml)), codes(said("s.yaml", &lines)), "{}", toml);
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_text_is_survived_as_yaml() {
    let pieces = prop::sample::select(vec![
        "a",
        ":",
        " ",
        "\n",
        "- ",
        "? ",
        "  ",
        "\t",
        "[",
        "]",
        "{",
        "}",
        ",",
        "&x ",
        "*x",
        "!t ",
        "!!str ",
        "|",
        ">",
        "-",
        "+",
        "'",
        "\"",
        "#",
        "---\n",
        "...\n",
        "%TAG ! x\n",
        "<<: ",
        "\r",
        "\u{feff}",
        "é",
        "version: 1\n",
        "ca:\n",
        "mirror:\n- ",
        "password: hunter2-0\n",
        "\\",
        "\0",
        "~",
        "1",
    ]);
    let text = prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat());
    let mut runner = TestRunner::new(Config { cases: 6000, failure_persistence: None, ..Config::default() });
    runner
        .run(&text, |text| {
            let problems = match Draft::open("s.yaml", text.as_bytes()) {
                Ok(draft) => draft.close(&BTreeMap::new(), None).problems,
                Err(problems) => problems,
            };
            let lines: Vec<&str> = text.split('\n').collect();
            for problem in &problems {
                let Some(place) = problem.at.as_ref().filter(|place| place.line > 0) else { continue };
                prop_assert!(place.line as usize <= lines.len(), "{:?}", problem);
                prop_assert!(place.column as usize <= lines[place.line as usize - 1].chars().count() + 1, "{:?}", problem);
            }
            let shown = nodeprep::report::problems::render(&problems, false);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\n'), "{:?}", shown);
            Ok(())
        })
        .unwrap();
}

#[test]
fn no_excerpt_of_yaml_shows_a_password() {
    let places = prop::sample::select(vec![
        "password: hunter2-0\n",
        "registry:\n- host: a.b\n  auth: {username: me, x: hunter2-0}\n",
        "registry:\n- host: a.b\n  credentials: me:hunter2-0\n",
        "registry:\n- host: me:hunter2-0@a.b\n",
        "mirror:\n- source: a.b\n  endpoints: ['https://me:hunter2-0@a.b']\n",
        "registry:\n- host: a.b\n  client_key: |\n    -----BEGIN PRIVATE KEY-----\n    hunter2-0\n    -----END PRIVATE KEY-----\n",
        "runtime:\n  token: [hunter2-0, 1]\n",
        "runtime:\n  token:\n  - hunter2-0\n  - 1\n",
        "password: |\n  hunter2-0\n\n  hunter2-0\n",
        "password:\n  hunter2-0\n",
        "secret: \"a\n  hunter2-0\"\n",
        "token: 'hunter2-0\n",
        "{\"auth\":\"hunter2-0\"}\n",
    ]);
    let noise = prop::sample::select(vec![
        "",
        "version: 1\n",
        "a: [\n",
        "b: &x 1\n",
        "\tc: 1\n",
        "- d\n",
        "e: *y\n",
        "name: yes\n",
        "---\n",
        "f: g: h\n",
        "'\n",
    ]);
    let mut runner = TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    runner
        .run(&(noise.clone(), places, noise), |(before, place, after)| {
            let text = format!("{before}{place}{after}");
            let shown = said("s.yaml", &text).into_iter().map(|(_, what)| what).collect::<String>();
            let problems = match Draft::open("s.yaml", text.as_bytes()) {
                Ok(draft) => draft.close(&BTreeMap::new(), None).problems,
                Err(problems) => problems,
            };
            let shown = format!("{shown}{}{problems:?}", nodeprep::report::problems::render(&problems, false));
            prop_assert!(!shown.contains("hunter2"), "{}\n{}", text, shown);
            Ok(())
        })
        .unwrap();
}
