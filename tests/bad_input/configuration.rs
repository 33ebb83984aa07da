//! Configuration of the runtimes that is wrong already before nodeprep comes: said with place and remedy, nothing changed.

use std::fs;

use crate::foreign::containerd_untouched;
use crate::node::{Node, same};

const CONFIG: &str = "/etc/containerd/config.toml";

#[test]
fn config_toml_that_does_not_parse() {
    let node = Node::new();
    for (text, place) in [("version = 2\n[plugins\n", ":2:9"), ("version = 2\nversion = 3\n", ":2:1"), ("oom_score = \n", ":1:13")] {
        node.put(CONFIG, text);
        containerd_untouched(&node, 4, &[&format!("{CONFIG}{place}"), "TOML syntax", "containerd does not start", "repair the file"]);
        assert_eq!(node.get(CONFIG), text);
    }
}

/// The containerd on the node is 2.1.9.
#[test]
fn config_toml_that_its_version_rejects() {
    let node = Node::new();
    node.put(CONFIG, "# by hand\n\nversion = 4\n");
    containerd_untouched(
        &node,
        4,
        &["/etc/containerd/config.toml:3:", "version = 4 is too new for containerd 2.1", "`containerd config dump`"],
    );
    node.put(CONFIG, "version = 3\nimports = ['conf.d/*.toml']\n");
    node.put("/etc/containerd/conf.d/10-site.toml", "version = 4\n");
    containerd_untouched(&node, 4, &["/etc/containerd/conf.d/10-site.toml:1:", "version = 4 is too new for containerd 2.1"]);
    fs::remove_file(node.at("/etc/containerd/conf.d/10-site.toml")).unwrap();
    node.put(CONFIG, "version = 3\nimports = ['/etc/containerd/gone.toml']\n");
    containerd_untouched(&node, 4, &["/etc/containerd/config.toml:2:", "import /etc/containerd/gone.toml does not exist"]);
    // some builds of this version read it, others do not
    node.put(CONFIG, "version = 3\nplugins = { a = { b = 1, }, }\n");
    containerd_untouched(&node, 4, &["/etc/containerd/config.toml:2:", "may not start", "write it as TOML 1.0, which every build reads"]);
}

#[test]
fn registries_conf_that_is_invalid_already() {
    let node = Node::new();
    let (main, drop_in) = ("/etc/containers/registries.conf", "/etc/containers/registries.conf.d/50-site.conf");
    for (file, text, place, why) in [
        (main, "[[registry\n", ":1:", "every pull fails already"),
        (main, "\n[[registry]]\nlocation = 'https://a.example'\n", ":2:", "begins with a scheme"),
        (drop_in, "\n\n[[registry]]\nprefix = '*.a.example/b'\nlocation = 'm.example'\n", ":3:", "every pull fails already"),
        (drop_in, "[registries.search]\nregistries = ['docker.io']\n", ":1:", "every pull fails already"),
    ] {
        node.put(file, text);
        let before = node.picture(false);
        node.plan_changes_nothing();
        for words in ["apply", "apply --output json"] {
            let run = node.run(words);
            let said = if words.ends_with("json") { run.spoken() } else { run.out.clone() };
            assert_eq!(run.code, 5, "{said}{}", run.err);
            for wanted in [&format!("{file}{place}"), "error[registries-conf-invalid]", why, "correct or remove what is named here"] {
                assert!(said.contains(wanted), "no {wanted:?} in:\n{said}");
            }
            let family = |picture: crate::node::Picture| -> crate::node::Picture {
                picture.into_iter().filter(|(path, _)| path.starts_with("etc/containers") || path.starts_with("root")).collect()
            };
            same(&family(before.clone()), &family(node.picture(false)));
            node.clean();
        }
        // the other targets go on
        assert!(node.at("/etc/containerd/certs.d/docker.io/hosts.toml").exists());
        node.run("revert").says(0, &[]);
        same(&before, &node.picture(false));
        fs::remove_file(node.at(file)).unwrap();
    }
    node.converges();
}

#[test]
fn a_file_in_the_place_of_hosts_folders() {
    let node = Node::new();
    for name in ["/etc/containerd/certs.d", "/etc/containerd/certs.d/docker.io"] {
        let file = node.put(name, "not a folder\n");
        containerd_untouched(
            &node,
            4,
            &["error[hosts-folder]", &format!("--> {name}"), "is a file where a folder belongs", &format!("move {name} away")],
        );
        fs::remove_file(file).unwrap();
    }
}

/// `:` becomes `_` in the names of containerd's folders.
#[test]
fn names_that_collide() {
    // in the spec
    let node = Node::new();
    let mirror = |source: &str| format!("[[mirror]]\nsource = '{source}'\nendpoints = ['m.example.com']\n");
    node.document(format!("version = 1\nfallback = 'never'\n{}{}", mirror("reg.example_5000_"), mirror("reg.example:5000")));
    node.refused(3, &["spec.toml:4:10", "\"reg.example_5000_\" is no host name", "write a DNS name or an address"]);
    // on the node: a folder with the colon is of no effect any more beside ours
    let node = Node::new();
    node.put(CONFIG, "version = 3\n[plugins.'io.containerd.cri.v1.images'.registry]\nconfig_path = '/etc/containerd/certs.d'\n");
    let theirs = "/etc/containerd/certs.d/registry.internal.example.com:5000/hosts.toml";
    node.put(theirs, "server = 'https://other.example.com'\n\n[host]\n");
    containerd_untouched(&node, 5, &[theirs, "would lose its effect", "--foreign=replace"]);
    assert_eq!(node.get(theirs), "server = 'https://other.example.com'\n\n[host]\n");
}
