//! The documents say what is so: generated pages are regenerated and compared (`UPDATE_GOLDEN=1` rewrites them), their specs are valid
//! ones, and their links lead somewhere. Their commands are run by `tests/commands`.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs, reason = "tests have effects")]

#[path = "pages/markdown.rs"]
mod command_line;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nodeprep::report::exit::Outcome;
use nodeprep::runtime::Runtime;
use nodeprep::spec::domains::DENIED;
use nodeprep::spec::load::Draft;
use nodeprep::spec::table::{Field, Kind, TABLES, TableDef};
use nodeprep::spec::{Spec, express};
use nodeprep::trust::{family, refused_markdown};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn generated(path: &str, text: &str) {
    let file = project(path);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&file, text).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(there == text, "{path} is not up to date: UPDATE_GOLDEN=1 cargo test --test docs rewrites it");
}

fn section(table: &TableDef, out: &mut String) {
    let _ = writeln!(out, "\n## {}\n\n{}\n\n| key | kind | | example |\n|---|---|---|---|", table.header, table.doc);
    for field in table.fields {
        let _ = writeln!(
            out,
            "| `{}`{} | {} | {} | {} |",
            field.name,
            if field.required { ", required" } else { "" },
            kind(&field.kind),
            meaning(field),
            example(field)
        );
    }
}

fn kind(kind: &Kind) -> String {
    match kind {
        Kind::Word(words) => {
            let words = words.iter().map(|word| format!("`\"{}\"`", word.name));
            words.collect::<Vec<_>>().join(" or ")
        }
        other => other.name().to_owned(),
    }
}

fn meaning(field: &Field) -> String {
    let mut text = field.doc.trim_end_matches('.').to_owned();
    if let Kind::Word(words) = &field.kind {
        for word in *words {
            let _ = write!(text, "; `{}`: {}", word.name, word.doc);
        }
    }
    text.replace('|', "\\|")
}

fn example(field: &Field) -> String {
    if field.example.is_empty() { String::new() } else { format!("`{}`", field.example.replace('\n', " ").replace('|', "\\|")) }
}

const FORMS: &str = "
## Forms

- **TOML or YAML**, the same keys. This page shows TOML; in YAML `key = value` is `key: value`, and `[[mirror]]` is an entry of the list
  `mirror`:

  ```yaml
  version: 1
  fallback: never
  mirror:
  - source: docker.io
    endpoints: [registry.example.com:5000/docker.io]
  ```

  Anchors, aliases, tags, merge keys and doubled keys are errors; so are `yes`, `no`, `on` and `off` without quotation marks: write `true`
  or `false`. JSON is YAML.
- **A file**: its name says which (`.toml`, `.yaml`, `.yml`). **Standard input** (`--spec -`) and files of other names: the first line
  that is neither empty nor a comment says it: `---`, `%YAML`, `{`, `- ` or a key with `:` is YAML, everything else TOML.
- **A folder**, such as a mounted ConfigMap: its `*.toml`, `*.yaml` and `*.yml` in the order of their names are one spec. Exactly one
  carries the top-level keys, the others carry lists only (`[[mirror]]`, `[[registry]]`, …). Names that begin with a dot are passed
  over; other files are there to be referenced.
- **An `https://` URL**: [sources.md](sources.md) says who is believed, and how a spec is signed.
- 1 MiB at most, all documents together; YAML at most 16 levels deep. A referenced file has at most 1 MiB.

`nodeprep schema` prints a JSON Schema ([spec.schema.json](spec.schema.json)) for editors: `#:schema spec.schema.json` in the first line
of TOML, `# yaml-language-server: $schema=spec.schema.json` in that of YAML.

A digest beside a reference (`sha256`, `client_cert_sha256`, …) pins it: a file that is another one is an error. Certificates and keys are
PEM: several in a file, CRLF, a byte order mark and text around them are fine. Of DER, PKCS#7, PKCS#12 and Java keystores the error names
the command that converts them.

A spec that needs a certain nodeprep says `requires = \">=0.4\"`; another one then refuses it with that one reason, and changes nothing.
";

#[test]
fn the_spec_reference_is_made_from_the_decoder_table() {
    let mut text = String::from(
        "# The spec\n\nOne document says, for a whole fleet, which registries are mirrored where and which internal CAs are trusted. \
         Unknown keys are errors\nthat name the nearest known one; all problems are reported at once, each with its place. This page is \
         generated from the table that decodes\nthe document.\n\nAn endpoint is *where the repository lives*: `harbor.corp/dockerhub` means \
         `harbor.corp/dockerhub/library/nginx`. Each runtime's own way of\nwriting that is worked out. Every host that appears as an \
         endpoint, in `[[registry]]` or in `pause_image` is a registry of its own: images can\nbe pulled from it directly.\n\nReferences \
         (`file`, `client_key`, …) are looked for beside the document or below `--material DIR`, never through a link that leaves\nit; \
         `node:/path` is a path on the node. Secrets never stand in the document itself.\n",
    );
    text.push_str(FORMS);
    for table in TABLES {
        section(table, &mut text);
    }
    text.push_str(
        "\n## Domains that are closed\n\nUnder `unlisted = \"deny\"` containerd asks nobody but the registries that the spec names. \
         registries.conf has no entry for everything else: it\ncloses domains, by default the ones below. `deny_domains` takes the place of \
         this list; to add to it, repeat it with what is to be closed\nbeside. A domain covers every name below it at any depth, with \
         ports; one with a dot also itself. What the spec names stays open.\n\n```toml\n",
    );
    for (number, line) in DENIED.chunks(16).enumerate() {
        let names: Vec<String> = line.iter().map(|domain| format!("\"{domain}\"")).collect();
        let start = if number == 0 { "deny_domains = [\n    " } else { "    " };
        let _ = writeln!(text, "{start}{},", names.join(", "));
    }
    text.push_str("]\n```\n\n## What a runtime can express\n\n");
    text.push_str(&express::markdown());
    text.push_str(
        "\n*refused*: the target is left as it was, with the reason. *nearly*: applied, and said by `check`, `plan` and \
         `explain`. Each cell is shown\nby a case that runs the programs themselves, by a vector that is held against them, or \
         by a flow that is refused: `ROWS` in\n`src/spec/express/rows.rs` names it.\n",
    );
    generated("docs/spec.md", &text);
}

/// Each cell of the table names what shows it, which is there; a spec of a case or flow that shows a refusal or an approximation
/// really meets it.
#[test]
fn every_cell_of_the_table_is_shown_by_something() {
    for row in express::ROWS {
        let cell = format!("{:?} of {:?} under {:?}", row.subject, row.family, row.fallback);
        assert!(!row.proof.is_empty(), "nothing shows {cell}");
        for proof in row.proof {
            let folder = project("fixtures").join(proof);
            assert!(folder.is_dir(), "{cell}: there is no fixtures/{proof}");
            let (kind, _) = proof.split_once('/').unwrap();
            assert!(["real", "vectors", "flow"].contains(&kind), "{cell}: {proof} is neither case nor vector nor flow");
            if kind != "vectors" && row.verdict != express::Verdict::Yes {
                let spec = spec(&folder);
                let met = Runtime::ALL.iter().flat_map(|runtime| express::gaps(&spec, *runtime, &Runtime::ALL, &[]));
                assert!(met.into_iter().any(|gap| gap.row == row), "{cell} is not met in fixtures/{proof}");
            }
        }
    }
}

/// The spec of a case, with some CA in the place of those that are made when it runs.
fn spec(folder: &Path) -> Spec {
    let draft = Draft::open("spec.toml", &std::fs::read(folder.join("spec.toml")).unwrap()).unwrap();
    let mut materials = BTreeMap::new();
    for reference in draft.references() {
        let some = || std::fs::read(project("fixtures/flow/deny-unlisted/ca.pem"));
        let bytes = std::fs::read(folder.join(&reference.written)).or_else(|_| some());
        materials.insert(reference.written.clone(), bytes.map_err(|error| error.to_string()));
    }
    let closed = draft.close(&materials, None);
    closed.spec.unwrap_or_else(|| panic!("{}: {:?}", folder.display(), closed.problems))
}

#[test]
fn the_trust_stores_are_those_of_the_table() {
    let mut text = String::from(
        "# OS trust stores\n\nCAs of the spec (`[[ca]]`, unless `trust = \"registries\"`) become anchor files of the distribution, and its own \
         command puts them into the\nbundle that programs read. Whether they arrived is told by the fingerprints in the bundle, never by the \
         command's exit code. This page is\ngenerated from the table in `src/trust/family.rs`.\n\nThe family is told by `ID` of os-release, \
         else by `ID_LIKE`, else by what the families leave behind, the most specific first, in the order of\nthe table. A distribution that \
         is none of these is reported, never guessed: its CAs are used per registry only.\n\n",
    );
    text.push_str(&family::markdown());
    text.push_str(
        "\nA self-signed certificate without CA flag is *left out* of the bundle where p11-kit makes it (of X.509 version 1, which has no \
         flags, it is\ntaken): `check` and `plan` warn. In the CA files of single registries it works everywhere.\n\n*Tested with*: scripts \
         in `tests/trust_store/` run nodeprep on a root that is laid out so, with the real program where there is one; fixtures\nin \
         `fixtures/trust/` say in `rules.txt` where their rules come from.\n\n## Refused\n\n",
    );
    text.push_str(&refused_markdown());
    text.push_str(
        "\n## Where the command cannot run\n\n- **A running node without the command**: the trust store is left as it is (exit code 4); \
         install the package.\n- **The root of an image** (`--root`): it is run there by `chroot` if it can be. Without it, for another \
         machine, or without the right\n  to change the root, the anchors are written, the refresh is said to be due, and the exit code is 0. \
         The first run on the node finds it: in\n  the ledger, or where that was not kept, by what the bundle lacks. Restarts are not due \
         for an image: what does not run reads everything\n  when it starts.\n- **Inside `transactional-update`** (MicroOS, SL Micro): SUSE's \
         command only leaves a mark there. It is due, and done at the next boot. `/etc` and\n  `/var` can be written outside of a transaction: \
         nodeprep needs none.\n",
    );
    generated("docs/trust-stores.md", &text);
}

#[test]
fn the_schema_is_what_the_program_prints() {
    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep")).arg("schema").output().unwrap();
    assert!(output.status.success());
    generated("docs/spec.schema.json", &String::from_utf8(output.stdout).unwrap());
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    let mut text = String::from("# Exit codes\n\nThe same in every subcommand.\n\n| code | means |\n|---|---|\n");
    for outcome in Outcome::ALL {
        let _ = writeln!(text, "| {} | {} |", outcome.code(), outcome.meaning());
    }
    text.push_str(
        "\nWhere one target fails and another one succeeds, the worst counts: a conflict (5) before what the node cannot do (4).\nWhat is due \
         because nothing more was asked for (`--activate never`, the root of an image) is said in the report, with 0.\n\nAn activation that \
         failed (6) is not tried again by itself with the same spec on the same version of the runtime: that is 4 until `--retry`.\n`recover` \
         ends with 0 when the run that was cut off is taken as it is, or there was none; with 6 when it was put back; with 7 when\nneither \
         could be done.\n",
    );
    generated("docs/exit-codes.md", &text);
}

#[test]
fn the_command_line_is_that_of_the_program() {
    generated("docs/cli.md", &command_line::markdown());
}

/// Each test that the rules name is there, and says the rule's number in its name or above it.
#[test]
fn each_rule_has_a_test_that_names_it() {
    let page = std::fs::read_to_string(project("docs/rules.md")).unwrap();
    let rows = page.lines().filter_map(|line| line.trim_matches(['|', ' ']).split_once(" | "));
    let mut seen = Vec::new();
    for (number, row) in rows.filter_map(|(first, row)| Some((first.parse::<u32>().ok()?, row))) {
        seen.push(number);
        for pair in row.rsplit(" | ").next().unwrap().split(", ") {
            let (file, test) = pair.trim_matches('`').split_once("` `").unwrap();
            let source = std::fs::read_to_string(project(file)).unwrap();
            let at = source.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("rule {number}: {file} has no {test}"));
            let above: Vec<&str> = source[..at].trim_end().lines().rev().take_while(|line| !line.trim().is_empty()).collect();
            assert!(above.iter().any(|line| line.trim() == "#[test]"), "rule {number}: {test} is no test");
            let said = format!("{} {test}", above.join(" ")).to_lowercase();
            let (_, named) = said.split_once("rule").unwrap_or_else(|| panic!("{file}: {test} names no rule"));
            let numbers: Vec<u32> = named.split(|char: char| !char.is_ascii_digit()).filter_map(|word| word.parse().ok()).collect();
            assert!(numbers.contains(&number), "{file}: {test} does not name rule {number}");
        }
    }
    assert_eq!(seen, (1..=24).filter(|number| *number != 23).collect::<Vec<_>>());
}

/// The anchors of a page, as GitHub makes them from its headings.
fn anchors(text: &str) -> Vec<String> {
    let mut anchors: Vec<String> = Vec::new();
    let mut block = false;
    for line in text.lines() {
        block ^= line.trim_start().starts_with("```");
        let Some(heading) = line.strip_prefix('#').filter(|_| !block) else { continue };
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|char| char.is_alphanumeric() || [' ', '-', '_'].contains(char));
        let anchor: String = kept.map(|char| if char == ' ' { '-' } else { char }).collect();
        let same = anchors
            .iter()
            .filter(|other| **other == anchor || other.strip_prefix(&format!("{anchor}-")).is_some_and(|rest| rest.parse::<u32>().is_ok()));
        let same = same.count();
        anchors.push(if same == 0 { anchor } else { format!("{anchor}-{same}") });
    }
    anchors
}

fn pages() -> Vec<PathBuf> {
    let mut pages = vec![project("README.md"), project("CONTRIBUTING.md"), project("CHANGELOG.md")];
    for folder in ["docs", "docs/adr"] {
        let found = std::fs::read_dir(project(folder)).unwrap().flatten().map(|entry| entry.path());
        pages.extend(found.filter(|path| path.extension().is_some_and(|ending| ending == "md")));
    }
    pages
}

#[test]
fn links_lead_somewhere() {
    assert_eq!(anchors("# A: `b`, c\n## A b c\n```\n# no\n```\n## [[ca]]"), ["a-b-c", "a-b-c-1", "ca"]);
    let mut wrong = Vec::new();
    let mut anchored = 0;
    for page in pages() {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (target, anchor) = link.split_once('#').unwrap_or((link, ""));
            if target.starts_with("http") {
                continue;
            }
            let target = if target.is_empty() { page.clone() } else { page.parent().unwrap().join(target) };
            if !target.exists() {
                wrong.push(format!("{}: {link} leads nowhere", page.display()));
            } else if !anchor.is_empty() {
                anchored += 1;
                if !anchors(&std::fs::read_to_string(&target).unwrap_or_default()).iter().any(|one| one == anchor) {
                    wrong.push(format!("{}: {link}: there is no such heading", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(anchored > 10, "only {anchored} links have an anchor");
}

/// Each page is in the index, with a line.
#[test]
fn the_index_has_every_page() {
    let index = std::fs::read_to_string(project("docs/README.md")).unwrap();
    for page in std::fs::read_dir(project("docs")).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()) {
        let listed = index.lines().any(|line| line.starts_with('|') && line.contains(&format!("({page})")));
        assert!(
            listed || Path::new(&page).extension().is_none_or(|ending| ending != "md") || page == "README.md",
            "docs/README.md has no line for {page}"
        );
    }
}

/// What the README says of the program's size is what `make size` holds it to.
#[test]
fn the_size_is_held() {
    let makefile = std::fs::read_to_string(project("Makefile")).unwrap();
    assert!(makefile.contains("test $$size -le 6000000"));
    let readme = std::fs::read_to_string(project("README.md")).unwrap();
    assert!(readme.contains("at most 6 MB (`make size` holds it there)"));
}

/// The names between the backticks of the first cells of a table.
fn first_cells(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with("| `"));
    let cells = rows.filter_map(|row| row.trim_start_matches("| ").split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect::<Vec<_>>()).collect()
}

/// The page on the audit trail has each field of a line, and each event.
#[test]
fn the_trail_is_that_of_the_program() {
    let page = std::fs::read_to_string(project("docs/audit.md")).unwrap();
    let source = std::fs::read_to_string(project("src/report/trail.rs")).unwrap();
    let body = |of: &str| source.split(of).nth(1).unwrap().split("\n}").next().unwrap().to_owned();
    let mut fields: Vec<String> = body("pub struct Line {")
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub ")?.split(':').next().map(ToOwned::to_owned))
        .collect();
    let mut told = first_cells(&page);
    fields.sort();
    told.sort();
    assert!(fields.len() > 15, "{fields:?}");
    assert_eq!(told, fields);
    let events = body("pub enum Event {");
    let events = events.lines().map(str::trim).filter(|line| line.starts_with(char::is_uppercase));
    for event in events.map(|line| line.trim_end_matches(',').to_lowercase()) {
        assert!(page.contains(&format!("`{event}`")), "docs/audit.md does not tell of {event}");
    }
}

/// The map of the house shows the rooms that there are.
#[test]
fn the_rooms_are_there() {
    let page = std::fs::read_to_string(project("docs/architecture.md")).unwrap();
    let table = page.split("\n## Rooms\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let told = first_cells(table);
    for room in &told {
        assert!(project("src").join(room).exists(), "docs/architecture.md: there is no src/{room}");
    }
    for entry in std::fs::read_dir(project("src")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let shown = told.iter().any(|room| room.trim_end_matches('/') == name) || ["main.rs", "lib.rs", "flow.rs"].contains(&name.as_str());
        assert!(shown, "docs/architecture.md does not show src/{name}");
    }
}
