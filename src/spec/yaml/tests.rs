//! YAML against trees, places and messages that are written out here.

use std::fmt::Write as _;

use super::super::document::parse_toml;
use super::*;

/// The tree as one line; texts in quotation marks.
fn shape(node: &Node) -> String {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) => format!("{text:?}"),
        Tree::Scalar(Scalar::Integer(number)) => number.to_string(),
        Tree::Scalar(Scalar::Flag(flag)) => flag.to_string(),
        Tree::Scalar(Scalar::Other(name)) => format!("<{name}>"),
        Tree::List(nodes) => format!("[{}]", nodes.iter().map(shape).collect::<Vec<_>>().join(" ")),
        Tree::Table(entries) => {
            format!("{{{}}}", entries.iter().map(|entry| format!("{}={}", entry.key, shape(&entry.node))).collect::<Vec<_>>().join(" "))
        }
    }
}

/// What stands at the places of keys, texts and tables.
fn places(node: &Node, text: &str, found: &mut Vec<String>) {
    match &node.value {
        Tree::Scalar(_) => found.push(text[node.span.clone()].to_owned()),
        Tree::List(nodes) => nodes.iter().for_each(|node| places(node, text, found)),
        Tree::Table(entries) => {
            for entry in entries {
                found.push(text[entry.key_span.clone()].to_owned());
                places(&entry.node, text, found);
            }
        }
    }
}

fn slips(text: &str) -> Vec<String> {
    let (_, slips) = parse_yaml(text).unwrap();
    slips.iter().map(|slip| format!("{} {}", slip.span.start, slip.what)).collect()
}

#[test]
fn every_form_gives_the_same_tree() {
    let want = "{version=1 ca=[{name=\"a\" pem=\"x\\ny\\n\"}] runtime={search=[\"b\" \"c\"] on_top=true}}";
    let toml = "version = 1\nca = [{ name = 'a', pem = \"x\\ny\\n\" }]\nruntime = { search = ['b', 'c'], on_top = true }\n";
    assert_eq!(shape(&parse_toml(toml).unwrap()), want);
    for text in [
        "version: 1\nca:\n- name: a\n  pem: |\n    x\n    y\nruntime:\n  search: [b, c]\n  on_top: true\n",
        "---\nversion: 0x1\nca:\n  - name: 'a'\n    pem: \"x\\ny\\n\"\nruntime:\n  search:\n    - b\n    - c\n  on_top: True\n...\n",
        "{\"version\": 1, \"ca\": [{\"name\": \"a\", \"pem\": \"x\\ny\\n\"}], \"runtime\": {\"search\": [\"b\", \"c\"], \"on_top\": true}}",
        "# c\r\nversion: +1 # c\r\nca:\r\n- {name: a, pem: \"x\\ny\\n\"}\r\nruntime:\r\n  search:\r\n  - b\r\n  - c\r\n  on_top: TRUE\r\n",
        "%YAML 1.2\n---\n? version\n: 1\n? ca\n: - name: a\n    pem: |\n      x\n      y\nruntime: {search: [b, c], on_top: true}",
    ] {
        let (node, slips) = parse_yaml(text).unwrap();
        assert_eq!((shape(&node).as_str(), slips.len()), (want, 0), "{text}");
    }
}

#[test]
fn scalars_are_those_of_the_core_schema() {
    for (text, want) in [
        ("1", "1"),
        ("-7", "-7"),
        ("+7", "7"),
        ("0o17", "15"),
        ("0xfF", "255"),
        ("0644", "644"),
        ("1_000", "\"1_000\""),
        ("1.5", "<a fraction>"),
        ("1.", "<a fraction>"),
        (".5", "<a fraction>"),
        ("1e3", "<a fraction>"),
        ("-.inf", "<a fraction>"),
        (".nan", "<a fraction>"),
        (".", "\".\""),
        ("-", "[<nothing>]"),
        ("99999999999999999999", "<a number that is too large>"),
        ("null", "<nothing>"),
        ("~", "<nothing>"),
        ("", "<nothing>"),
        ("yes", "<a bare yes>"),
        ("No", "<a bare no>"),
        ("ON", "<a bare on>"),
        ("off", "<a bare off>"),
        ("y", "\"y\""),
        ("'yes'", "\"yes\""),
        ("\"true\"", "\"true\""),
        ("false", "false"),
        ("tRUE", "\"tRUE\""),
        ("1.2.3", "\"1.2.3\""),
        ("10.0.0.1:5000", "\"10.0.0.1:5000\""),
        ("22:22", "\"22:22\""),
        ("2026-01-01", "\"2026-01-01\""),
        ("infinity", "\"infinity\""),
        ("a b # c", "\"a b\""),
        ("a#b", "\"a#b\""),
        ("http://a/b", "\"http://a/b\""),
    ] {
        let document = format!("a:\n  {text}\n");
        assert_eq!(shape(&parse_yaml(&document).unwrap().0), format!("{{a={want}}}"), "{text:?}");
    }
}

#[test]
fn places_are_where_things_are_written() {
    let text = "naïve: é\nca:\n  - name: 'ü'\n    pem: |\n      x\nempty:\nlist: [a, \"b\"]\n";
    let (node, _) = parse_yaml(text).unwrap();
    let mut found = Vec::new();
    places(&node, text, &mut found);
    assert_eq!(found, ["naïve", "é", "ca", "name", "'ü'", "pem", "|\n      x\n", "empty", "empty", "list", "a", "\"b\""]);
    // a table is where its first key is, in braces where they are
    let text = "ca:\n- name: a\n- {}\n";
    let Tree::Table(entries) = parse_yaml(text).unwrap().0.value else { panic!() };
    let Tree::List(nodes) = &entries[0].node.value else { panic!() };
    assert_eq!((&text[nodes[0].span.clone()], &text[nodes[1].span.clone()]), ("name", "{"));
}

#[test]
fn what_is_not_taken_is_said_all_at_once() {
    let text = "a: &x 1\nb: !!str 2\nc: !own {d: *x}\n<<: {e: 1}\na: 3\n? [f]\n: g\n";
    assert_eq!(
        slips(text),
        [
            "3 anchors (`&name`) are not taken",
            "11 tags are not taken; there is `!!str`",
            "22 tags are not taken; there is `!own`",
            "31 aliases (`*name`) are not taken",
            "35 merge keys (`<<`) are not taken",
            "46 `a` is there twice, first on line 1",
            "53 a list or mapping stands where a key belongs",
        ]
    );
    assert_eq!(
        shape(&parse_yaml(text).unwrap().0),
        "{a=1 b=2 c={d=<something that is not taken>} <<=<something that is not taken> <<=<something that is not taken>}"
    );
    assert_eq!(slips("a: 1\n---\nb: 1\n---\nc: 1\n"), ["5 a second document begins here"]);
    assert_eq!(slips("- a\n"), ["0 the document is a list, not keys with values"]);
    assert_eq!(slips("just words\n"), ["0 the document is a text, not keys with values"]);
    for empty in ["", "\n \n", "---\n", "# only this\n", "null\n"] {
        assert_eq!((shape(&parse_yaml(empty).unwrap().0).as_str(), slips(empty).len()), ("{}", 0), "{empty:?}");
    }
}

#[test]
fn syntax_errors_say_where_and_why() {
    for (text, start, message) in [
        ("a:\n\tb: 1\n", 4, "a tab stands in the indentation; YAML indents with spaces only"),
        ("[a]\nb: 1\n", 4, "what stands here does not belong to what is above it; check the indentation"),
        ("a: *x\n", 3, "aliases (`*name`) are not taken; write the value again"),
        ("a: 1\nbé = 2\n\n", 5, "a line without `:` stands where a key and its value belong"),
        ("a: b: c\n", 4, "mapping values are not allowed in this context"),
        ("é: [1,\n", 8, "while parsing a node, did not find expected node content"),
    ] {
        let error = parse_yaml(text).unwrap_err();
        assert!(error.span.start == start && error.message.starts_with(message), "{text:?}: {error:?}");
    }
}

#[test]
fn depth_and_repetition_are_bounded() {
    let deepest = DEEPEST - 1;
    for (open, close) in [("[", "]"), ("{a: ", "}")] {
        let nested = |levels: usize| format!("a: {}1{}", open.repeat(levels), close.repeat(levels));
        assert!(parse_yaml(&nested(deepest)).is_ok());
        for levels in [deepest + 1, 300, 300_000] {
            let error = parse_yaml(&nested(levels)).unwrap_err();
            assert!(error.message.contains("levels"), "{levels}: {error:?}");
        }
    }
    assert!(parse_yaml(&"- ".repeat(300_000)).unwrap_err().message.contains("levels"));
    let mut bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 'b'..'z' {
        let of = char::from(level as u8 - 1);
        writeln!(bomb, "{level}: &{level} [*{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}, *{of}]").unwrap();
    }
    let (_, slips) = parse_yaml(&bomb).unwrap();
    assert_eq!(slips.len(), 25 + 24 * 8);
    let (_, slips) = parse_yaml(&format!("a: &a 1\nb: [{}]\n", "*a, ".repeat(5000))).unwrap();
    assert_eq!(slips.len(), MOST);
    // one table with a great many keys
    let mut many = String::new();
    (0..100_000).for_each(|number| writeln!(many, "k{number}: 1").unwrap());
    let Tree::Table(entries) = parse_yaml(&many).unwrap().0.value else { panic!() };
    assert_eq!(entries.len(), 100_000);
}
