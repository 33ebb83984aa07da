//! `docs/files.md` against what nodeprep writes: in every golden folder of `fixtures/flow`, and on a node where everything is asked for.

use std::collections::BTreeSet;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use crate::page::{all, project};
use crate::scratch::Scratch;

/// Rows of which neither a golden folder nor a scratch node has an example, and who looks at them.
const ELSEWHERE: [(&str, &str, &str); 6] = [
    ("<anchors>/nodeprep-….pem", "fixtures/trust/flatcar/expect.txt", ".pem 644"),
    ("/var/lib/nodeprep/audit.log.…", "tests/status/trail.rs", "audit.log."),
    ("/var/lib/nodeprep/failed.json", "tests/nodes/trials/outlive.rs", "failed.json"),
    ("/var/lib/nodeprep/guardian", "tests/nodes/trials/outlive.rs", "guardian"),
    ("/var/lib/nodeprep/fetched.json", "tests/source_cli/fetched.rs", "fetched.json"),
    ("/run/nodeprep-shadow", "tests/shadow/cases.rs", "shadow"),
];

struct Row {
    patterns: Vec<String>,
    modes: String,
}

fn rows() -> Vec<Row> {
    let (_, page) = all().into_iter().find(|(name, _)| name == "docs/files.md").unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    rows.map(|row| {
        let mut cells = row.trim_start_matches("| ").split(" | ");
        let (paths, modes) = (cells.next().unwrap(), cells.next().unwrap());
        let spans = paths.split('`').skip(1).step_by(2).filter(|span| span.contains('/'));
        Row { patterns: spans.map(str::to_owned).collect(), modes: modes.to_owned() }
    })
    .collect()
}

/// Whether a path is meant: `…` is any part of a name, `<x>` any name; at the beginning `<x>` is any folder.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = match pattern.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        // as many of the last parts as the pattern has
        Some((_, rest)) => {
            let count = rest.matches('/').count();
            let Some((at, _)) = path.rmatch_indices('/').nth(count - 1) else { return false };
            (rest, &path[at..])
        }
        None => (pattern, path),
    };
    let (pattern, path): (Vec<&str>, Vec<&str>) = (pattern.split('/').collect(), path.split('/').collect());
    pattern.len() == path.len() && pattern.iter().zip(path).all(|(wanted, name)| part_fits(wanted, name))
}

fn part_fits(wanted: &str, name: &str) -> bool {
    if wanted.starts_with('<') {
        return !name.is_empty();
    }
    match wanted.split_once('…') {
        Some((before, behind)) => name.len() > before.len() + behind.len() && name.starts_with(before) && name.ends_with(behind),
        None => wanted == name,
    }
}

/// Each file with its mode, by what the page says of it; and the rows that were met.
#[derive(Default)]
struct Seen {
    wrong: BTreeSet<String>,
    patterns: BTreeSet<String>,
}

impl Seen {
    fn file(&mut self, rows: &[Row], path: &str, mode: &str, whose: &str) {
        let fitting = rows.iter().filter_map(|row| Some((row, row.patterns.iter().find(|pattern| fits(pattern, path))?)));
        let mut known = false;
        for (row, pattern) in fitting {
            known |= row.modes.contains(mode) || row.modes.contains("kept");
            self.patterns.insert(pattern.clone());
        }
        if !known {
            self.wrong.insert(format!("{whose}: {path} with mode {mode} is not in docs/files.md"));
        }
    }
}

fn golden(rows: &[Row], seen: &mut Seen) {
    let mut found = 0;
    // in `links` the folders of /etc are links to elsewhere
    let folders = std::fs::read_dir(project("fixtures/flow")).unwrap().flatten().filter(|folder| folder.file_name() != "links");
    for folder in folders {
        let before = folder.path().join("before");
        let text = std::fs::read_to_string(folder.path().join("after.txt")).unwrap_or_default();
        for line in text.lines().filter_map(|line| line.strip_prefix("=== ")) {
            let Some((path, mode)) = line.rsplit_once(": file ") else { continue };
            // what of others was changed is as `--foreign` says, and they may have it anywhere
            if before.join(path.trim_start_matches('/')).exists()
                && !path.contains("nodeprep")
                && !path.ends_with("hosts.toml")
                && !path.starts_with("/etc/cont")
            {
                continue;
            }
            found += 1;
            seen.file(rows, path, mode, &folder.file_name().to_string_lossy());
        }
    }
    assert!(found > 300, "{found} files in golden folders");
}

fn walk(root: &Path, folder: &Path, see: &mut impl FnMut(String, String)) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            walk(root, &entry.path(), see);
        } else if kind.is_file() || kind.is_socket() {
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            see(format!("/{}", entry.path().strip_prefix(root).unwrap().display()), format!("{mode:04o}"));
        }
    }
}

#[test]
fn the_files_are_those_of_the_page() {
    let rows = rows();
    assert!(rows.len() > 15, "the table of docs/files.md");
    let mut seen = Seen::default();
    golden(&rows, &mut seen);
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    let mut scratch = Scratch::new(readme.split("```toml\n").nth(1).unwrap().split("```").next().unwrap());
    let lines = [
        "mkdir -p /run/nodeprep /etc/nodeprep && cp spec.toml internal-root.pem /etc/nodeprep/",
        "nodeprep apply",
        "nodeprep verify --textfile-dir /run/nodeprep",
        "nodeprep status --textfile-dir /run/nodeprep",
        "nodeprep pause --for 1h /etc/containers",
    ];
    for line in lines {
        let output = scratch.run(line);
        assert!(output.status.success(), "{line}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    }
    let root = scratch.node();
    let mut states = Vec::new();
    scratch.agent_seen("nodeprep agent", || walk(&root, &root.join("run"), &mut |path, mode| states.push((path, mode))));
    for folder in ["var/lib/nodeprep", "run", "etc/nodeprep/pki"] {
        walk(&root, &root.join(folder), &mut |path, mode| states.push((path, mode)));
    }
    assert!(states.iter().any(|(path, _)| path.ends_with("/agent.json")), "{states:?}");
    for (path, mode) in states {
        seen.file(&rows, &path, &mode, "a scratch node");
    }
    assert!(seen.wrong.is_empty(), "{}", seen.wrong.iter().cloned().collect::<Vec<_>>().join("\n"));
    for (path, file, what) in ELSEWHERE {
        assert!(std::fs::read_to_string(project(file)).unwrap().contains(what), "{path}: {file} does not look at it");
    }
    let everything = rows.iter().flat_map(|row| &row.patterns);
    let never: Vec<&String> =
        everything.filter(|one| !seen.patterns.contains(*one) && !ELSEWHERE.iter().any(|(path, ..)| path == one)).collect();
    assert!(never.is_empty(), "nothing writes what docs/files.md has: {never:?}");
}
