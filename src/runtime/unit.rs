//! systemd unit files, as far as they say how a daemon is started: `ExecStart`, `Environment`, `EnvironmentFile`, with
//! drop-ins (systemd.unit(5), systemd.service(5), systemd.syntax(7)).

use std::collections::BTreeMap;

use super::Wish;
use crate::model::path::NodePath;
use crate::model::tree::Tree;

/// Where units are looked for; the first file found is the unit, drop-ins of all count (systemd.unit(5), "Unit File Load Path").
pub(super) const FOLDERS: [&str; 5] =
    ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// How a unit starts its daemon.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// The file that defines it.
    pub file: Option<NodePath>,
    /// The command line of the last `ExecStart=`, variables replaced.
    pub exec: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
}

/// What to read for the unit `name`; asks for environment files once the unit itself is known.
#[must_use]
pub fn wishes(tree: &Tree, name: &str) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for folder in FOLDERS {
        wishes.push(Wish::path(NodePath::fixed(folder).join(name)));
        wishes.push(Wish::folder(NodePath::fixed(folder).join(&format!("{name}.d")), 1));
    }
    for (key, value) in settings(tree, name).1 {
        if key == "EnvironmentFile" && !value.contains('*') {
            wishes.extend(NodePath::new(value.trim_start_matches('-')).map(Wish::path));
        }
    }
    wishes
}

/// Reads the unit `name`; `None` when no folder has it. A unit that is masked (a link to `/dev/null`, or empty) counts as
/// not there.
#[must_use]
pub fn read(tree: &Tree, name: &str) -> Option<Unit> {
    let (file, settings) = settings(tree, name);
    let mut unit = Unit { file: Some(file?), ..Unit::default() };
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut exec = String::new();
    let mut files = Vec::new();
    for (key, value) in settings {
        match key.as_str() {
            "ExecStart" => exec = value,
            // an empty assignment resets the list
            "Environment" if value.is_empty() => env.clear(),
            "Environment" => env.extend(words(&value).iter().filter_map(|word| assignment(word))),
            "EnvironmentFile" if value.is_empty() => files.clear(),
            "EnvironmentFile" => files.push(value),
            _ => {}
        }
    }
    // files win over Environment= (systemd.exec(5))
    for file in files {
        let text = NodePath::new(file.trim_start_matches('-')).ok().and_then(|path| tree.text(&path));
        for line in text.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.starts_with(['#', ';'])) {
            env.extend(assignment(line).map(|(key, value)| (key, words(&value).join(" "))));
        }
    }
    unit.exec = expand(exec.trim_start_matches(['@', '-', ':', '+', '!']), &env);
    unit.env = env.into_iter().collect();
    Some(unit)
}

/// The unit's own file and the `[Service]` settings of it and all its drop-ins, in order.
fn settings(tree: &Tree, name: &str) -> (Option<NodePath>, Vec<(String, String)>) {
    let folders = || FOLDERS.into_iter().map(NodePath::fixed);
    let main = folders().map(|folder| folder.join(name)).find(|path| tree.exists(path));
    let main = main.filter(|path| tree.bytes(path).is_some_and(|bytes| !bytes.is_empty()));
    // drop-ins of all folders, sorted by name; a name in an earlier folder hides the same name in a later one
    let mut drop_ins: BTreeMap<String, NodePath> = BTreeMap::new();
    for folder in folders() {
        let folder = folder.join(&format!("{name}.d"));
        // systemd compares the ending byte by byte
        #[expect(clippy::case_sensitive_file_extension_comparisons, reason = "systemd.unit(5) wants \".conf\"")]
        for file in tree.names(&folder).into_iter().filter(|file| file.ends_with(".conf")) {
            drop_ins.entry(file.clone()).or_insert_with(|| folder.join(&file));
        }
    }
    let files = main.iter().chain(drop_ins.values());
    let settings = files.filter_map(|path| tree.text(path)).flat_map(|text| service_settings(&text)).collect();
    (main, settings)
}

fn service_settings(text: &str) -> Vec<(String, String)> {
    let mut settings = Vec::new();
    let mut in_service = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut line = line.trim().to_owned();
        if line.starts_with(['#', ';']) {
            continue;
        }
        while line.ends_with('\\') {
            line.pop();
            line.push(' ');
            line.push_str(lines.next().unwrap_or_default().trim());
        }
        if line.starts_with('[') {
            in_service = line == "[Service]";
        } else if in_service && let Some((key, value)) = line.split_once('=') {
            settings.push((key.trim().to_owned(), value.trim().to_owned()));
        }
    }
    settings
}

fn assignment(word: &str) -> Option<(String, String)> {
    word.split_once('=').map(|(key, value)| (key.trim().to_owned(), value.to_owned()))
}

/// Splits like systemd: white space separates, quotes hold together, a backslash takes the next character as it is.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// `${X}` and `$X` inside a word are replaced; `$X` as a word of its own is split at white space (systemd.service(5)).
fn expand(line: &str, env: &BTreeMap<String, String>) -> Vec<String> {
    let mut out = Vec::new();
    for word in words(line) {
        let whole = word.strip_prefix('$').filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        if let Some(name) = whole {
            out.extend(words(env.get(name).map_or("", String::as_str)));
            continue;
        }
        let mut text = String::new();
        let mut rest = word.as_str();
        while let Some((before, after)) = rest.split_once("${") {
            let Some((name, behind)) = after.split_once('}') else { break };
            text.push_str(before);
            text.push_str(env.get(name).map_or("", String::as_str));
            rest = behind;
        }
        text.push_str(rest);
        out.push(text);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::default();
        for folder in FOLDERS {
            tree.insert(NodePath::fixed(folder), Entry::Dir { listed: true });
        }
        for (path, text) in files {
            tree.put(&NodePath::new(path).unwrap(), text.as_bytes(), 0o644);
        }
        tree
    }

    #[test]
    fn last_exec_start_wins_and_variables_are_replaced() {
        let tree = tree(&[
            (
                "/lib/systemd/system/crio.service",
                "[Unit]\nExecStart=no\n[Service]\n# c\nEnvironment=A=1 \"B=x y\"\nEnvironmentFile=-/etc/default/crio\nExecStart=/usr/bin/crio \\\n  $OPTS --x ${B}\n",
            ),
            ("/etc/default/crio", "# comment\nOPTS=\"--config /etc/other.conf\"\nA=2\n"),
            ("/etc/systemd/system/crio.service.d/10-x.conf", "[Service]\nEnvironment=C=3\n"),
        ]);
        let unit = read(&tree, "crio.service").unwrap();
        assert_eq!(unit.exec, ["/usr/bin/crio", "--config", "/etc/other.conf", "--x", "x y"]);
        let env = |key: &str| unit.env.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
        assert_eq!((env("A"), env("B"), env("C")), (Some("2"), Some("x y"), Some("3")));
        assert!(wishes(&tree, "crio.service").contains(&Wish::path(NodePath::fixed("/etc/default/crio"))));
    }

    #[test]
    fn drop_ins_reset_and_replace() {
        let tree = tree(&[
            ("/usr/lib/systemd/system/containerd.service", "[Service]\nExecStart=/usr/bin/containerd\n"),
            ("/usr/lib/systemd/system/containerd.service.d/a.conf", "[Service]\nExecStart=/hidden\n"),
            ("/etc/systemd/system/containerd.service.d/a.conf", "[Service]\nExecStart=\nExecStart=-/usr/bin/containerd --config /x.toml\n"),
        ]);
        assert_eq!(read(&tree, "containerd.service").unwrap().exec, ["/usr/bin/containerd", "--config", "/x.toml"]);
        assert_eq!(read(&tree, "other.service"), None);
    }

    #[test]
    fn a_masked_unit_is_not_there() {
        let tree = tree(&[("/etc/systemd/system/crio.service", ""), ("/lib/systemd/system/crio.service", "[Service]\nExecStart=/x\n")]);
        assert_eq!(read(&tree, "crio.service"), None);
    }
}
