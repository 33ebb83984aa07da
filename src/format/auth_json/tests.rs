//! Edits in place, look-ups, and the property that an undone edit leaves no trace.

use super::*;
use proptest::prelude::*;

const FOREIGN: &str =
    "{ \"auths\": {\n  \"quay.io\" : { \"auth\": \"YTpi\" } , \"x\":{} },\r\n\t\"other\": [1, {\"auths\": \"}\\\"\"}] }\n";

fn entries(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(host, login)| ((*host).to_owned(), entry_for(&Secret::new(*login)))).collect()
}

#[test]
fn edits_leave_every_other_byte() {
    let (text, edits) = set(FOREIGN, &entries(&[("reg.local:5000", "user:hunter2")]), "why").unwrap();
    let added = ",\n  \"reg.local:5000\": {\"auth\": \"dXNlcjpodW50ZXIy\"}";
    assert_eq!(text.replace(added, ""), FOREIGN);
    assert_eq!(undo(&text, &edits).unwrap(), FOREIGN);
    assert!(edits.iter().all(|edit| edit.secret) && !format!("{edits:?}").contains("dXNlcjpodW50ZXIy"));
    let (again, none) = set(&text, &entries(&[("reg.local:5000", "user:hunter2")]), "why").unwrap();
    assert_eq!((again.as_str(), none.len()), (text.as_str(), 0));
}

#[test]
fn makes_a_file() {
    let (text, edits) = set("", &entries(&[("a.b", "u:p"), ("c.d", "u:p")]), "why").unwrap();
    assert_eq!(text, "{\n\t\"auths\": {\n\t\t\"a.b\": {\"auth\": \"dTpw\"},\n\t\t\"c.d\": {\"auth\": \"dTpw\"}\n\t}\n}\n");
    assert_eq!(undo(&text, &edits).unwrap(), "{\n}\n");
    // what somebody else put into our table stays
    let (text, _) = set(&text, &entries(&[("e.f", "x:y")]), "").unwrap();
    assert_eq!(undo(&text, &edits).unwrap(), "{\n\t\"auths\": {\n\t\t\"e.f\": {\"auth\": \"eDp5\"}\n\t}\n}\n");
}

#[test]
fn what_others_changed_since_stays() {
    let (text, edits) = set(FOREIGN, &entries(&[("reg.local", "u:p")]), "why").unwrap();
    let changed = text.replace("dTpw", "eDp5");
    assert_eq!(undo(&changed, &edits).unwrap(), changed);
}

#[test]
fn finds_the_longest_name_first() {
    let text = r#"{"auths": {"reg.local/a/b": {"auth": "MTox"}, "reg.local/a": {"auth": "Mjoy"}, "reg.local": {"auth": "Mzoz"},
        "https://index.docker.io/v1/": {"auth": "NDo0"}, "tok.local": {"identitytoken": "abc"}, "empty.local": {}},
        "credHelpers": {"h.local": "pass"}}"#;
    let auths = parse(text).unwrap();
    let find = |host: &'static str, repo: &str| auths.find(&Host::fixed(host), repo);
    let basic = |text: &str| Some(Login::Basic(Secret::new(text)));
    assert_eq!(find("reg.local", "a/b/c"), basic("1:1"));
    assert_eq!(find("reg.local", "a/bc"), basic("2:2"));
    assert_eq!(find("reg.local", "x"), basic("3:3"));
    assert_eq!(find("docker.io", "library/nginx"), basic("4:4"));
    assert_eq!(find("reg.local:5000", "x"), None);
    assert_eq!(find("empty.local", "x"), None);
    assert!(matches!(find("tok.local", "x"), Some(Login::Other(_))));
    assert!(matches!(find("h.local", "x"), Some(Login::Other(_))));
}

#[test]
fn says_what_is_wrong_without_values() {
    assert!(matches!(parse("{\"auths\": {\"x\": \"secret"), Err(AuthError::Json { .. })));
    assert!(matches!(parse("[1]"), Err(AuthError::NoObject(_))));
    assert!(matches!(set("{\"auths\": [1]}", &entries(&[("a", "b:c")]), ""), Err(AuthError::NoObject(_))));
    assert_eq!(parse(" \n").unwrap(), Auths::default());
}

#[test]
fn knows_every_secret_of_a_file() {
    let text = r#"{"auths": {"a": {"auth": "dXNlcjpodW50ZXIy", "identitytoken": ""}, "b": {"identitytoken": "tokentoken"}}}"#;
    let shown = crate::model::secret::mask(&format!("{text} hunter2 user:hunter2"), &secrets(text));
    assert!(!shown.contains("hunter2") && !shown.contains("dXNl") && !shown.contains("tokentoken"), "{shown}");
}

fn space() -> impl Strategy<Value = String> {
    "[ \t\n]{0,3}"
}

/// Random JSON objects with random white space and awkward strings, `auths` among them or not.
fn document() -> impl Strategy<Value = String> {
    let leaf =
        prop_oneof![Just("1".to_owned()), Just("null".to_owned()), Just(r#""a\"}\\""#.to_owned()), Just(r#"[1, {"x":"]"}]"#.to_owned())];
    let member = (space(), "[a-d]{1,2}", space(), space(), leaf, space())
        .prop_map(|(a, key, b, c, value, d)| format!("{a}\"{key}\"{b}:{c}{value}{d}"))
        .boxed();
    let object = (prop::collection::vec(member.clone(), 0..4), space())
        .prop_map(|(members, empty)| if members.is_empty() { format!("{{{empty}}}") } else { format!("{{{}}}", members.join(",")) });
    let auths = (space(), object, space()).prop_map(|(a, object, b)| format!("{a}\"auths\" :{object}{b}"));
    (prop::collection::vec(member, 0..3), prop::option::of(auths), prop::collection::vec("[a-d]", 0..1), space(), space()).prop_map(
        |(mut members, auths, _, before, after)| {
            members.extend(auths);
            if members.is_empty() { format!("{before}{{{after}}}{before}") } else { format!("{before}{{{}}}{after}", members.join(",")) }
        },
    )
}

proptest! {
    #[test]
    fn undo_is_the_reverse_of_set(text in document(), hosts in prop::collection::btree_set("[a-f]{1,2}", 0..4)) {
        let wanted: BTreeMap<String, String> = hosts.into_iter().map(|host| (host, entry_for(&Secret::new("u:p")))).collect();
        let (after, edits) = set(&text, &wanted, "why").unwrap();
        let value: Value = serde_json::from_str(&after).unwrap();
        for (host, raw) in &wanted {
            prop_assert_eq!(value["auths"][host].clone(), serde_json::from_str::<Value>(raw).unwrap());
        }
        prop_assert_eq!(undo(&after, &edits).unwrap(), text);
        prop_assert_eq!(set(&after, &wanted, "why").unwrap().1.len(), 0);
    }
}
