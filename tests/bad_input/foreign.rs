//! What others have left on the node.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};

use crate::node::{Node, is_root, must, same};

const HOSTS: &str = "/etc/containerd/certs.d/docker.io/hosts.toml";

/// containerd is left untouched for this reason, the other targets go on, and all comes back.
pub fn containerd_untouched(node: &Node, code: i32, wanted: &[&str]) {
    let before = node.picture(false);
    let containerd = |node: &Node| {
        let mut all = node.picture(false);
        all.retain(|path, _| path.starts_with("etc/containerd") || path.starts_with("etc/nodeprep"));
        all
    };
    node.plan_changes_nothing();
    let was = containerd(node);
    for words in ["apply", "apply --output json"] {
        let run = node.run(words);
        run.says(code, &[]);
        let said = if words.ends_with("json") { run.spoken() } else { run.out.clone() };
        for piece in wanted {
            assert!(said.contains(piece), "no {piece:?} in:\n{said}");
        }
        if words.ends_with("json") {
            assert_eq!(run.json()["exit_code"], code);
        } else {
            run.says(code, &["containerd: left untouched", "help: ", "1 target left untouched"]);
        }
        same(&was, &containerd(node));
        node.clean();
    }
    assert!(node.at("/etc/containers/registries.conf.d/zz-nodeprep.conf").exists());
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn foreign_hosts_toml() {
    let node = Node::new();
    let file = node.put(
        HOSTS,
        "server = \"https://foreign.example.com\"\n[header]\nX-Token = \"foreign-s3cret\"\n[host.\"https://u:foreign-s3cret@h.example.com\"]\n",
    );
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    if is_root() {
        chown(&file, Some(12), Some(34)).unwrap();
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    containerd_untouched(&node, 5, &[HOSTS, "nodeprep did not write", "--foreign=replace"]);
    let before = node.picture(false);
    node.run("plan --foreign replace").says(0, &["********"]);
    node.run("plan --foreign replace --output json").says(0, &["********"]);
    node.run("apply --foreign replace -vv").says(0, &[]);
    node.clean();
    let found = fs::metadata(&file).unwrap();
    assert_eq!((found.mode() & 0o777, found.uid() == 12), (0o600, false), "a login that the former owner can read");
    node.run("explain docker.io/library/x").says(0, &[]);
    node.run("revert -vv --output json").says(0, &[]);
    same(&before, &node.picture(false));
}

#[test]
fn neither_file_nor_folder() {
    let node = Node::new();
    let folder = node.at("/etc/containerd/certs.d/docker.io");
    fs::create_dir_all(&folder).unwrap();
    let file = node.at(HOSTS);
    let name = file.to_str().unwrap();
    must(&["mkfifo", name]);
    containerd_untouched(&node, 4, &[HOSTS, "a pipe", "remove or repair"]);
    fs::remove_file(&file).unwrap();
    if is_root() && std::process::Command::new("mknod").args([name, "c", "1", "5"]).status().unwrap().success() {
        containerd_untouched(&node, 4, &[HOSTS, "a device"]);
        fs::remove_file(&file).unwrap();
    }
    fs::File::create(&file).unwrap().set_len(3 << 30).unwrap();
    containerd_untouched(&node, 4, &[HOSTS, "larger than 1048576 bytes"]);
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    containerd_untouched(&node, 4, &[HOSTS, "a folder stands there"]);
    fs::remove_dir_all(&folder).unwrap();
    node.converges();
}

#[test]
fn in_the_way_of_a_folder() {
    let node = Node::new();
    node.put("/etc/containerd/certs.d", "not a folder");
    containerd_untouched(&node, 4, &["/etc/containerd/certs.d is a file where a folder belongs", "move /etc/containerd/certs.d away"]);
    fs::remove_file(node.at("/etc/containerd/certs.d")).unwrap();
    node.link("/etc/containerd/certs.d/docker.io", "/proc/self");
    containerd_untouched(&node, 4, &["/etc/containerd/certs.d/docker.io cannot be used: it is a symbolic link that leads nowhere"]);
    fs::remove_file(node.at("/etc/containerd/certs.d/docker.io")).unwrap();
    node.converges();
}

#[test]
fn loops_and_links() {
    let node = Node::new();
    node.link("/etc/containerd/certs.d/docker.io", "docker.io");
    containerd_untouched(&node, 4, &[HOSTS, "loop of symbolic links"]);
    let node = Node::new();
    fs::remove_dir_all(node.at("/etc/containers")).ok();
    node.link("/etc/containers", "../srv/not/there/yet");
    node.converges();
    // a link out of the root leads back into it
    let node = Node::new();
    node.link("/etc/containerd/certs.d", "../../../../../../../../tmp/certs.d");
    node.run("apply").says(0, &[]);
    assert!(node.at("/tmp/certs.d/docker.io/hosts.toml").exists());
    node.run("revert").says(0, &[]);
}

#[test]
fn names_that_are_no_text() {
    let node = Node::new();
    let folder = node.at("/etc/containerd/certs.d").join(std::ffi::OsStr::from_bytes(b"\xff\xfe\x1b[31m"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("hosts.toml"), "server = 'https://x'\n").unwrap();
    node.converges();
}

#[test]
fn names_that_act_on_a_terminal() {
    let node = Node::new();
    for text in ["garbage = = \u{1b}[31m", "[[registry]]\nprefix = 'docker.io'\nlocation = \"x\\u001b[31m.example.com\"\n"] {
        node.put("/etc/containers/registries.conf.d/a\u{1b}[31m.conf", text);
        node.put("/etc/containerd/certs.d/docker.io\u{1b}[35m/hosts.toml", text);
        for words in [
            "plan",
            "plan --foreign replace",
            "apply",
            "explain docker.io/library/x",
            "explain --planned docker.io/x",
            "verify --offline",
            "revert",
        ] {
            let run = node.run(words);
            assert!(!run.out.contains('\u{1b}') && !run.err.contains('\u{1b}'), "{words}: {:?}", run.out);
        }
    }
}

#[test]
fn notations_of_config_toml() {
    const CONFIG: &str = "/etc/containerd/config.toml";
    let node = Node::new();
    let text = node.get(CONFIG);
    for form in [text.replace('\n', "\r\n"), "version = 3".to_owned(), String::new(), format!("{text}# no end of line")] {
        node.put(CONFIG, &form);
        node.converges();
        assert_eq!(node.get(CONFIG), form);
    }
    node.put(CONFIG, "[[[");
    containerd_untouched(&node, 4, &["/etc/containerd/config.toml", "containerd does not start", "repair the file"]);
    node.put(CONFIG, b"version = 3\n# \xff\n");
    containerd_untouched(&node, 4, &["/etc/containerd/config.toml is not UTF-8"]);
}

#[test]
fn foreign_prefix_in_registries_conf() {
    let node = Node::new();
    node.put("/etc/containers/registries.conf", "[[registry]]\nprefix = 'docker.io/library'\nlocation = 'other.example.com/lib'\n");
    let run = node.run("apply");
    run.says(5, &["containers: left untouched: conflict", "/etc/containers/registries.conf", "move what is needed of it into the spec"]);
    let told: Vec<&str> = run.out.lines().filter(|line| line.starts_with("error[")).collect();
    let once: std::collections::BTreeSet<&&str> = told.iter().collect();
    assert_eq!(told.len(), once.len(), "told twice: {told:#?}");
    node.run("revert").says(0, &[]);
}

#[test]
fn old_registries_conf() {
    let node = Node::new();
    node.put(
        "/etc/containers/registries.conf",
        "[registries.search]\nregistries = ['docker.io']\n[registries.insecure]\nregistries = ['x.example.com']\n",
    );
    node.converges();
}

/// A folder before a catch-all is replaced, stays so, and comes back when the spec speaks of its registry no longer.
#[test]
fn a_folder_before_the_catch_all() {
    const THEIRS: &str = "/etc/containerd/certs.d/quay.io/hosts.toml";
    const EMPTY: &str = "/etc/containerd/certs.d/empty.example.com";
    let node = Node::new();
    let text = "server = \"https://theirs.example.com\"\n[host.\"https://m.theirs.example.com\".header]\nX-Token = \"foreign-s3cret\"\n";
    fs::set_permissions(node.put(THEIRS, text), fs::Permissions::from_mode(0o600)).unwrap();
    fs::create_dir_all(node.at(EMPTY)).unwrap();
    let config = node.get("/etc/containerd/config.toml").replace("config_path = \"\"", "config_path = \"/etc/containerd/certs.d\"");
    node.put("/etc/containerd/config.toml", config);
    let before = node.picture(false);
    let spec = |unlisted: &str| {
        let mirror = "[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"m.corp.example:5000/hub\"]\n";
        format!("version = 1\nfallback = \"never\"\nunlisted = \"{unlisted}\"\n{mirror}")
    };
    let ours = |node: &Node| node.get(THEIRS).contains("denied-by-nodeprep.invalid");
    node.document(spec("deny"));
    containerd_untouched(&node, 5, &["certs.d/quay.io", "--foreign=replace"]);
    // an exception from what the spec says of all is for the spec to make
    node.run("plan --foreign carry").says(5, &["certs.d/quay.io", "--foreign=replace"]);
    node.run("plan --foreign replace").says(0, &["warning[foreign-replaced]", THEIRS, "https://theirs.example.com", EMPTY]);
    node.run("apply --foreign replace").says(0, &[]);
    assert!(ours(&node) && node.at(EMPTY).join("hosts.toml").exists());
    node.run("apply").says(0, &["0 changes made"]);
    node.run("verify --offline").says(0, &[]);
    // theirs is put back by a package: it goes again, without being asked for once more
    node.put(THEIRS, text);
    node.run("apply").says(0, &["warning[drift]", THEIRS]);
    assert!(ours(&node));
    // a new one is a new conflict
    node.put("/etc/containerd/certs.d/late.example.com/hosts.toml", "server = \"https://late.example.com\"\n");
    node.run("apply").says(5, &["certs.d/late.example.com"]);
    fs::remove_dir_all(node.at("/etc/containerd/certs.d/late.example.com")).unwrap();
    // nobody speaks of it any more
    node.document(spec("allow"));
    node.run("apply").says(5, &["error[shrinks]"]);
    node.run("apply --allow-shrink").says(0, &[]);
    assert_eq!((node.get(THEIRS).as_str(), node.at(EMPTY).join("hosts.toml").exists()), (text, false));
    node.document(spec("deny"));
    node.run("apply --foreign replace").says(0, &[]);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
    // edited since: the way back is refused, and nothing of it is lost
    node.run("apply --foreign replace").says(0, &[]);
    node.put(THEIRS, "# mine\n");
    node.run("revert").says(5, &[THEIRS, "has been changed since"]);
    assert_eq!(node.get(THEIRS), "# mine\n");
    fs::remove_file(node.at(THEIRS)).unwrap();
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

/// Headers are taken over, and nothing shows their values.
#[test]
fn headers_are_carried_over() {
    let node = Node::new();
    let registry = "registry.internal.example.com:5000";
    let theirs = format!(
        "server = \"https://registry-1.docker.io\"\n[host.\"https://{registry}\"]\n[host.\"https://{registry}\".header]\nX-Anything = \"foreign-s3cret\"\n"
    );
    fs::set_permissions(node.put(HOSTS, &theirs), fs::Permissions::from_mode(0o600)).unwrap();
    let config = node.get("/etc/containerd/config.toml").replace("config_path = \"\"", "config_path = \"/etc/containerd/certs.d\"");
    node.put("/etc/containerd/config.toml", config);
    let before = node.picture(false);
    for words in ["plan --foreign carry", "plan --foreign carry --output json", "apply --foreign carry -vv", "apply --output json"] {
        node.run(words).says(0, &[]);
    }
    assert!(node.get(HOSTS).contains("\"X-Anything\" = \"foreign-s3cret\""), "{}", node.get(HOSTS));
    assert_eq!(fs::metadata(node.at(HOSTS)).unwrap().mode() & 0o777, 0o600);
    node.run("explain docker.io/library/x").says(0, &["header X-Anything"]);
    node.run("explain docker.io/library/x --output json").says(0, &["X-Anything"]);
    node.run("apply").says(0, &["0 changes made"]);
    // the spec's own word counts, and takes it out
    let document = fs::read_to_string(node.spec.join("spec.toml")).unwrap();
    let place = "\"registry.internal.example.com:5000/docker.io\"";
    assert!(document.contains(place), "{document}");
    let said = "{ location = \"registry.internal.example.com:5000/docker.io\", header = { X-Anything = \"open\" } }";
    node.document(format!("{}\n", document.replace(place, said).replace("[[mirror]]", "[[mirror]]\nruntimes = [\"containerd\"]")));
    node.run("apply --allow-shrink").says(0, &[]);
    assert!(node.get(HOSTS).contains("\"X-Anything\" = \"open\"") && !node.get(HOSTS).contains("foreign-s3cret"), "{}", node.get(HOSTS));
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
}

/// A drop-in behind ours that says other things, too, loses only what stands in the way; `revert` gives it back to the last byte.
#[test]
fn a_drop_in_behind_ours_keeps_what_is_in_nobodys_way() {
    const THEIRS: &str = "/etc/containers/registries.conf.d/zzz-theirs.conf";
    let text = "# theirs\nunqualified-search-registries = [\"theirs.example.com\"] # list\nshort-name-mode = \"disabled\"\n\n# hub\n[[registry]]\n\
        location = \"docker.io\"\n[[registry.mirror]]\nlocation = \"theirs.example.com/hub\"\n\n[[registry]]\nlocation = \"docker.io/library\"\n\
        blocked = true\n\n[[registry]]\nlocation = \"other.example.com\"\ninsecure = true\n\n[aliases]\n\"x\" = \"theirs.example.com/x\"\n";
    let spec = |sources: &[&str], search: &str| {
        let mirror = |source: &&str| format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"m.corp.example:5000/{source}\"]\n");
        format!("version = 1\nfallback = \"never\"\nruntimes = [\"podman\"]\n{}{search}", sources.iter().map(mirror).collect::<String>())
    };
    let search = "[runtime]\nsearch = [\"docker.io\"]\n";
    let node = Node::new();
    fs::remove_file(node.at("/usr/bin/containerd")).unwrap();
    fs::set_permissions(node.put(THEIRS, text), fs::Permissions::from_mode(0o640)).unwrap();
    let before = node.picture(false);
    node.document(spec(&["docker.io"], search));
    node.run("apply").says(5, &["error[foreign-search]", "error[foreign-registry]", THEIRS, "--foreign=carry or replace"]);
    same(&before, &node.picture(false));
    node.run("plan --foreign replace").says(0, &[THEIRS, "revert brings it back"]);
    node.run("apply --foreign replace").says(0, &[]);
    node.clean();
    let thinned = "# theirs\nshort-name-mode = \"disabled\"\n\n# hub\n\n\n[[registry]]\nlocation = \"other.example.com\"\ninsecure = true\n\n[aliases]\n\
        \"x\" = \"theirs.example.com/x\"\n";
    assert_eq!(node.get(THEIRS), thinned);
    let settled = |node: &Node| {
        for words in ["apply", "apply --foreign replace"] {
            node.run(words).says(0, &["0 changes made"]);
        }
        node.run("verify --offline").says(0, &[]);
    };
    settled(&node);
    node.run("explain docker.io/library/x").says(0, &["m.corp.example:5000"]);
    // a package puts its file back: the same goes again
    node.put(THEIRS, text);
    node.run("apply").says(0, &[]);
    assert_eq!(node.get(THEIRS), thinned);
    // somebody removes it: it does not come back by that
    fs::remove_file(node.at(THEIRS)).unwrap();
    settled(&node);
    assert!(!node.at(THEIRS).exists());
    fs::set_permissions(node.put(THEIRS, thinned), fs::Permissions::from_mode(0o640)).unwrap();
    settled(&node);
    // what the spec speaks of no longer comes back, the rest stays away
    node.document(spec(&["docker.io"], ""));
    node.run("apply").says(0, &[]);
    assert!(node.get(THEIRS).contains("unqualified-search-registries = [\"theirs.example.com\"]"), "{}", node.get(THEIRS));
    assert!(!node.get(THEIRS).contains("docker.io"), "{}", node.get(THEIRS));
    settled(&node);
    node.run("revert").says(0, &[]);
    same(&before, &node.picture(false));
    // carried over: the entry below ours cannot be, and says so; without it, the rest is kept
    node.document(spec(&["docker.io"], search));
    node.run("apply --foreign carry").says(5, &["error[not-carried]", "docker.io/library"]);
    let open = text.replace("[[registry]]\nlocation = \"docker.io/library\"\nblocked = true\n\n", "");
    node.put(THEIRS, &open);
    let before = node.picture(false);
    node.run("apply --foreign carry").says(0, &["warning[foreign-replaced]"]);
    settled(&node);
    // edited since: theirs stays, ours goes, and what went is back
    node.put(THEIRS, format!("{}# mine\n", node.get(THEIRS)));
    node.run("revert").says(0, &[]);
    let back = node.get(THEIRS);
    for piece in
        ["# mine", "location = \"docker.io\"", "theirs.example.com/hub", "unqualified-search-registries = [\"theirs.example.com\"]"]
    {
        assert!(back.contains(piece), "no {piece:?} in {back}");
    }
    node.put(THEIRS, &open);
    same(&before, &node.picture(false));
    // in a form that cannot be edited it is refused with what to do
    node.put(THEIRS, "unqualified-search-registries = []\nregistry = [{ location = \"docker.io\" }]\n");
    node.run("apply --foreign replace").says(5, &["error[foreign-registry]", THEIRS, "remove the entry from"]);
}
