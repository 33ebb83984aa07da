//! Version 1 → version 2 in the same file, and back.

use super::*;

const SHIPPED: &str = "# For more information on this configuration file, see containers-registries.conf(5).\n#\n\n[registries.search]\nregistries = ['docker.io', 'quay.io']\n\n# If you need to access insecure registries, add the registry's fully-qualified name.\n[registries.insecure]\nregistries = []\n\n# If you need to block pull access from a registry, uncomment the section below\n# and add the registries fully-qualified name.\n#\n[registries.block]\nregistries = []\n";

fn file() -> NodePath {
    crate::format::registries_conf::main_file()
}

fn moved(text: &str) -> Moved {
    to_version_2(&file(), text).unwrap().unwrap()
}

#[test]
fn a_file_as_shipped_keeps_every_other_line() {
    let moved = moved(SHIPPED);
    let want = SHIPPED
        .replace("[registries.search]\nregistries =", "unqualified-search-registries =")
        .replace("[registries.insecure]\nregistries = []\n", "")
        .replace("[registries.block]\nregistries = []\n", "");
    assert_eq!(moved.text, want);
    let why: Vec<&str> = moved.edits.iter().filter(|edit| edit.to.is_none()).map(|edit| edit.why.as_str()).collect();
    assert_eq!(
        why,
        [
            "registries.search (line 5) is now unqualified-search-registries",
            "registries.insecure (line 9) says nothing and goes",
            "registries.block (line 15) says nothing and goes",
        ]
    );
}

#[test]
fn comments_line_ends_and_the_mark_survive() {
    let text = "\u{feff}# top\r\n[registries.insecure] # lab\r\n# inside\r\nregistries = [ # all of them\r\n  'a.example.com/', # first\r\n  # the second\r\n  \"b.example.com:5000\",\r\n  # 'c.example.com',\r\n] # end\r\n\r\n[foreign]\r\nkey = 1 # kept\r\n[registries.search]\r\nregistries = ['q.io', # q\r\n 'r.io']\r\n[registries.block]\r\nregistries = ['b.example.com:5000', 'd.example.com', 'd.example.com/']";
    let want = "\u{feff}# top\r\nunqualified-search-registries = ['q.io', # q\r\n 'r.io']\r\n\r\n# lab\r\n# inside\r\n# end\r\n# all of them\r\n# first\r\n[[registry]]\r\nlocation = \"a.example.com\"\r\ninsecure = true\r\n\r\n# the second\r\n# 'c.example.com',\r\n[[registry]]\r\nlocation = \"b.example.com:5000\"\r\ninsecure = true\r\nblocked = true\r\n\r\n[foreign]\r\nkey = 1 # kept\r\n[[registry]]\r\nlocation = \"d.example.com\"\r\nblocked = true";
    assert_eq!(moved(text).text, want);
}

#[test]
fn other_forms_are_moved_too() {
    for text in [
        "registries.search.registries = ['q.io']\nregistries.block.registries = ['b.io']\n",
        "[registries]\nsearch.registries = ['q.io']\nblock = { registries = ['b.io'] }\n[x]\ny = 1\n",
        "registries = { search = { registries = ['q.io'] }, block = { registries = ['b.io'] } }\n",
        "[registries.search]\nregistries = ['q.io']\nmore = 1\n[registries.block]\nregistries = ['b.io']",
    ] {
        let after = moved(text).text;
        let conf = parse(&file(), &after, false).unwrap_or_else(|invalid| panic!("{after}: {invalid}"));
        assert!(!conf.version_1 && conf.search.is_some() && conf.registries["b.io"].blocked, "{after}");
    }
}

#[test]
fn only_valid_version_1_is_moved() {
    for text in ["", "[[registry]]\nlocation = 'a.io'\n", "[registries.search]\n", "[registries.search]\nregistries = ['a.io/b']\n", "x ="]
    {
        assert_eq!(to_version_2(&file(), text), Ok(None), "{text}");
    }
    // an empty list is one, too: newer releases refuse it beside version 2
    let mixed = "[[registry]]\nlocation = 'a.io'\n[registries.search]\nregistries = []\n";
    assert_eq!(parse(&file(), mixed, false).map_err(|invalid| invalid.rule), Err("v1-and-v2"));
    // keys that only Go's decoder takes for these
    assert!(to_version_2(&file(), "[Registries.search]\nregistries = ['a.io']\n").is_err());
}

#[test]
fn undone_in_a_file_that_has_changed() {
    let text = "[registries.search]\nregistries = ['q.io']\n\n[registries.insecure]\nregistries = ['a.io', # why\n 'b.io/']\n\n[registries.block]\nregistries = ['b.io']\n";
    let Moved { text: after, edits, said } = moved(text);
    let back = |text: &str| undo(text, &edits);
    // a comment more
    let commented = format!("# mine\n{after}# and mine\n");
    let undone = back(&commented).unwrap();
    assert_eq!(
        undone,
        "# mine\n\n# why\n\n\n# and mine\n\n[registries.search]\nregistries = ['q.io']\n\n[registries.insecure]\nregistries = ['a.io', # why\n 'b.io/']\n\n[registries.block]\nregistries = ['b.io']\n"
    );
    // one host taken out
    let shorter = after.replace("[[registry]]\nlocation = \"a.io\"\ninsecure = true\n", "");
    let undone = parse(&file(), &back(&shorter).unwrap(), false).unwrap();
    assert!(undone.version_1 && !undone.registries.contains_key("a.io") && undone.registries["b.io"].means(&said.registries["b.io"]));
    // the search list taken out
    let shorter = after.replace("unqualified-search-registries = ['q.io']\n", "");
    assert_eq!(parse(&file(), &back(&shorter).unwrap(), false).unwrap().search, None);
    // what cannot be mixed with version 1
    for more in ["[[registry]]\nlocation = \"c.io\"\n", "[aliases]\nx = \"c.io/x\"\n"] {
        assert!(back(&format!("{after}{more}")).unwrap_err().contains("cannot be mixed"), "{more}");
    }
    assert!(back(&after.replace("'q.io'", "'z.io'")).is_err());
    assert!(back(&after.replace("location = \"a.io\"", "location = \"a.io\" # mine")).is_err());
    // nothing of ours is left, or version 1 is back already
    for text in ["# all gone\n", "[[registry]]\nlocation = \"c.io\"\n", text] {
        assert_eq!(back(text).as_deref(), Ok(text));
    }
}

#[test]
fn entries_are_known_again() {
    let Moved { edits, said, .. } =
        moved("[registries.block]\nregistries = ['*.b.io', 'a.io/x']\n[registries.insecure]\nregistries = ['a.io/x']");
    let known = moved_entries(&edits);
    assert_eq!(known.len(), 2);
    assert!(known.values().all(|entry| entry.means(&said.registries[&entry.prefix])));
}
