//! The plan proves itself: with its files in place, every runtime must ask what the spec means. Pure.

use std::collections::BTreeSet;

use super::build::overlay;
use crate::desired::{Part, Refusal};
use crate::format::HEADER;
use crate::ledger::Ledger;
use crate::model::endpoint::Pull;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::resolution::{Attempt, Auth, End, Resolution, Trust, Verdict};
use crate::model::tree::Tree;
use crate::runtime::{Dialect, FoundRuntime};
use crate::spec::express::{adapted, full_names};
use crate::spec::intent::intent;
use crate::spec::{Source, Spec};

/// Registries that no spec names, in a domain that is closed everywhere under `unlisted = "deny"` and in one that is not.
const UNNAMED: [&str; 4] =
    ["nodeprep-probe.io", "deep.nodeprep-probe.io:8443", "registry.nodeprep-probe.example", "registry.nodeprep-probe.example:443"];
/// A registry on the node itself: it lies below a source that is for all.
const LOCAL: &str = "localhost:5000/nodeprep/probe";
/// As many domains of a document are looked at; one entry is as good as another.
const MOST_DOMAINS: usize = 50;
/// As many disagreements are told; the rest is counted.
const MOST_TOLD: usize = 5;

/// Images that together show every rule of the spec: below each source (and each of its other names where it is closed),
/// by tag and by digest, at registries below its domains and at such that it does not name, and at each host that has a
/// configuration of its own. `extra` are
/// repository names from the node's own files (foreign prefixes), below which something else may apply.
#[must_use]
pub fn probe_images(spec: &Spec, extra: &[String]) -> Vec<ImageRef> {
    probes(spec, extra).into_iter().map(|meant| meant.image).collect()
}

/// The same, each with what the spec means for it.
fn probes(spec: &Spec, extra: &[String]) -> Vec<Resolution> {
    let digest = format!("sha256:{}", "0".repeat(64));
    let mut names = BTreeSet::new();
    for mirror in &spec.mirrors {
        let (host, path) = match &mirror.source {
            Source::All => {
                names.insert(LOCAL.to_owned());
                continue;
            }
            Source::Domain(domain) => {
                let hosts = ["nodeprep-probe", "x", "deep.nodeprep-probe"].map(|name| format!("{name}.{}", domain.domain()));
                names.extend(hosts.map(|host| format!("{host}/nodeprep/probe")));
                continue;
            }
            Source::Prefix { host, path } => (host, path),
        };
        let aliases = spec.closed_names(mirror);
        for host in std::iter::once(host).chain(&aliases) {
            let base = if path.is_all() { host.to_string() } else { format!("{host}/{path}") };
            names.insert(format!("{base}/nodeprep/probe"));
            if !path.is_all() {
                names.insert(format!("{base}-sibling/probe"));
                names.insert(base);
            }
        }
    }
    names.extend(UNNAMED.map(|host| format!("{host}/nodeprep/probe")));
    for domain in spec.deny_domains.iter().flatten().take(MOST_DOMAINS) {
        names.insert(format!("nodeprep-probe.{}/nodeprep/probe", domain.domain()));
        if domain.domain().contains('.') {
            names.insert(format!("{}/nodeprep/probe", domain.domain()));
        }
    }
    names.extend(spec.own_hosts().map(|(host, _)| format!("{host}/nodeprep/probe")));
    // a prefix that names no registry is not one that an image can have
    let of_registry = |name: &&String| ImageRef::parse(&format!("{name}/nodeprep-probe:1")).is_ok_and(|image| !image.short);
    for name in extra.iter().filter(of_registry) {
        names.insert(format!("{name}/nodeprep-probe"));
        if name.contains('/') {
            names.insert(name.clone());
        }
    }
    // what the spec does not speak of is not its matter; a source that is itself a repository and an endpoint without a
    // prefix leave no name to ask for
    let askable = |meant: &Resolution| meant.attempts.iter().all(|attempt| !attempt.repo.is_all());
    let covered = |image: &ImageRef| spec.covers(image);
    let tagged = names.iter().filter_map(|name| ImageRef::parse(&format!("{name}:1")).ok()).filter(covered);
    let by_kind = spec.mirrors.iter().flat_map(|mirror| &mirror.endpoints).any(|endpoint| endpoint.pull != Pull::All);
    let mut found = Vec::with_capacity(2 * names.len());
    for by_tag in tagged.map(|image| intent(spec, &image)).filter(askable) {
        // the spec means the same for a digest, unless an endpoint is for only one of the two
        let written = format!("{}@{digest}", by_tag.image.written.strip_suffix(":1").unwrap_or_default());
        let image = ImageRef { written, tag: None, digest: Some(digest.clone()), ..by_tag.image.clone() };
        let by_digest = if by_kind { intent(spec, &image) } else { Resolution { image, ..by_tag.clone() } };
        found.extend([by_tag, by_digest]);
    }
    found
}

/// A name without registry, where the spec says where it is looked for and says something of each of these registries.
fn short_names(spec: &Spec, dialect: Dialect) -> Option<Resolution> {
    let image = ImageRef::parse("nodeprep-probe:1").ok()?;
    let known = spec.search.is_some() && full_names(spec, &image).all(|full| spec.covers(&full));
    (known && dialect == Dialect::Containers).then(|| intent(spec, &image))
}

/// Holds what each runtime of `part` would ask, with the part's files in place (`after`), against what the spec means.
///
/// # Errors
/// A conflict when somebody else's file is behind a difference, "cannot" otherwise.
pub fn prove(spec: &Spec, part: &Part, after: &Tree, ledger: &Ledger, readers: &[&FoundRuntime]) -> Result<(), Refusal> {
    let mut conflicts = Vec::new();
    let mut others = Vec::new();
    let mut untold = 0;
    // the same for every reader that has no names of its own
    let mut made: Option<(Vec<String>, Vec<Resolution>)> = None;
    for reader in readers {
        let dialects = reader.dialects(after);
        for &dialect in &dialects {
            let view = reader.view(after, dialect);
            let names = view.names();
            let meant = match made.take() {
                Some((known, meant)) if known == names => meant,
                _ => probes(spec, &names),
            };
            for meant in made.insert((names, meant)).1.iter().chain(&short_names(spec, dialect)) {
                let got = view.resolve(&meant.image);
                let want = adapted(spec, meant, dialect);
                // what stays open for want of a name may be closed where somebody's entry gives it one
                let closed = matches!(meant.end, End::Blocked(_)) && got.same(meant);
                if closed || got.same(&want) || stays_open(meant, &want, &got) || is_left_alone(part, &want, &got) {
                    continue;
                }
                if conflicts.len() + others.len() >= MOST_TOLD {
                    untold += 1;
                    continue;
                }
                let foreign = foreign_file(&got, part, after, ledger);
                let late =
                    reader.running.is_some() && dialects.first() == Some(&dialect) && agree(spec, meant, after, reader, &dialects[1..]);
                let problem = disagreement(reader, dialect, &want, &got, foreign.as_ref(), late);
                let told = if foreign.is_some() { &mut conflicts } else { &mut others };
                // versions that read alike differ alike
                if !told.contains(&problem) {
                    told.push(problem);
                }
            }
        }
    }
    if untold > 0 {
        let more = Problem::note("proof-failed", format!("{untold} more such differences are not shown"), String::new());
        if conflicts.is_empty() { others.push(more) } else { conflicts.push(more) }
    }
    match (conflicts.is_empty(), others.is_empty()) {
        (true, true) => Ok(()),
        (false, _) => {
            conflicts.append(&mut others);
            Err(Refusal::Conflict(conflicts))
        }
        (true, false) => Err(Refusal::Cannot(others)),
    }
}

/// Whether a registry that cannot be closed (`want`) is asked itself, as others have it: no entry of theirs speaks of it, but
/// certificates or a login may.
#[must_use]
pub fn stays_open(meant: &Resolution, want: &Resolution, got: &Resolution) -> bool {
    let itself = |attempt: &Attempt| attempt.upstream && attempt.from.is_none() && want.attempts.iter().any(|own| own.host == attempt.host);
    matches!(meant.end, End::Blocked(_)) && !got.attempts.is_empty() && got.attempts.iter().all(itself)
}

/// Whether a difference is that of a path that is left alone, and opens nothing: who changed it there has wanted something else than the
/// spec, but no source is asked itself that the spec closes, and nobody for what it denies.
fn is_left_alone(part: &Part, want: &Resolution, got: &Resolution) -> bool {
    let decides = |path: &NodePath| part.left.contains(path);
    let file = got.files.iter().any(|file| matches!(file.verdict, Verdict::Used | Verdict::Broken(_)) && decides(&file.path));
    let opens = |attempt: &Attempt| attempt.upstream && !want.attempts.iter().any(|own| own.upstream && own.host == attempt.host);
    file && !got.attempts.iter().any(opens) && (got.attempts.is_empty() || !want.attempts.is_empty())
}

/// The file behind a resolution that is neither wanted by this part nor marked as ours.
fn foreign_file(got: &Resolution, part: &Part, after: &Tree, ledger: &Ledger) -> Option<NodePath> {
    let ours = |path: &NodePath| is_ours(path, part, after, ledger);
    let said = got.attempts.iter().filter_map(|attempt| NodePath::new(&attempt.from.as_ref()?.file).ok());
    if let Some(path) = said.into_iter().find(|path| !ours(path)) {
        return Some(path);
    }
    let deciding = got.files.iter().filter(|file| matches!(file.verdict, Verdict::Used | Verdict::Broken(_)));
    let rest = got.files.iter().filter(|file| !matches!(file.verdict, Verdict::Used | Verdict::Broken(_)));
    deciding.chain(rest).map(|file| &file.path).find(|path| !ours(path)).cloned()
}

/// Whether these versions, of which there are some, would ask what is meant.
fn agree(spec: &Spec, meant: &Resolution, after: &Tree, reader: &FoundRuntime, dialects: &[Dialect]) -> bool {
    let agrees = |dialect: &Dialect| reader.view(after, *dialect).resolve(&meant.image).same(&adapted(spec, meant, *dialect));
    !dialects.is_empty() && dialects.iter().all(agrees)
}

/// `late`: the version that is installed would ask what is meant, and another one runs.
fn disagreement(
    reader: &FoundRuntime,
    dialect: Dialect,
    want: &Resolution,
    got: &Resolution,
    foreign: Option<&NodePath>,
    late: bool,
) -> Problem {
    let what = format!(
        "with the planned files, {} ({dialect}) would ask for {} {}, but the spec means {}",
        reader.runtime,
        got.image,
        asked(got),
        asked(want)
    );
    let problem = |help: String| Problem::error("proof-failed", what.clone(), help);
    match foreign {
        Some(path) => problem(format!(
            "look at {path}, which nodeprep did not write, and move what is needed of it into the spec, or accept its loss with \
             --foreign=replace"
        ))
        .at(crate::model::place::Place::file(path.as_str())),
        None if late => {
            let unit = reader.unit.as_deref().unwrap_or(reader.runtime.name());
            problem(format!(
                "restart {unit} first: the version that is installed reads these files as they are meant, and the one that runs does not"
            ))
        }
        None => problem(
            "report this with the spec and the output of `nodeprep explain --planned`: the rendered files do not mean what the spec says"
                .to_owned(),
        ),
    }
}

/// The attempts in words.
#[must_use]
pub fn asked(resolution: &Resolution) -> String {
    let one = |attempt: &Attempt| described(attempt, &format!("/{}", attempt.repo));
    match (&resolution.end, resolution.attempts.is_empty()) {
        (End::Broken(why), _) => format!("nothing, because {why}"),
        (_, true) => "nothing".to_owned(),
        _ => resolution.attempts.iter().map(one).collect::<Vec<_>>().join(", then "),
    }
}

/// One attempt in words, with the kinds of what goes along with it.
fn described(attempt: &Attempt, repo: &str) -> String {
    let text = format!("{}://{}{}{repo}", attempt.scheme, attempt.host, attempt.api_root);
    let mut facts = Vec::new();
    match &attempt.trust {
        Trust::Unverified => facts.push("unverified".to_owned()),
        Trust::Verified { extra } if !extra.is_empty() => facts.push(format!("{} own CAs", extra.len())),
        _ => {}
    }
    if attempt.client.is_some() {
        facts.push("client certificate".to_owned());
    }
    match &attempt.auth {
        Auth::None => {}
        Auth::Basic(_) => facts.push("login".to_owned()),
        Auth::Other(kind) => facts.push(kind.clone()),
    }
    if !attempt.header.is_empty() {
        let names: Vec<&str> = attempt.header.iter().map(|(name, _)| name.as_str()).collect();
        facts.push(format!("header {}", names.join(", ")));
    }
    if !(attempt.ops.resolve && attempt.ops.manifest && attempt.ops.blob) {
        facts.push("not for everything".to_owned());
    }
    if facts.is_empty() { text } else { format!("{text} ({})", facts.join(", ")) }
}

/// What is asked because of somebody else's file at `path` now, and would not be with ours in its place: endpoints, each with
/// the kinds of what goes along with it.
#[must_use]
pub fn lost(spec: &Spec, part: &Part, tree: &Tree, readers: &[&FoundRuntime], path: &NodePath) -> Vec<String> {
    let after = overlay(tree, &part.wants);
    let mut all = Vec::new();
    for reader in readers {
        let Some(dialect) = reader.dialects(tree).first().copied() else { continue };
        let (now, then) = (reader.view(tree, dialect), reader.view(&after, dialect));
        for image in probe_images(spec, &[]) {
            let before = now.resolve(&image);
            if !before.files.iter().any(|file| &file.path == path && file.verdict == Verdict::Used) {
                continue;
            }
            let after = then.resolve(&image);
            let gone = before.attempts.iter().filter(|attempt| !after.attempts.iter().any(|other| other.same(attempt)));
            for text in gone.map(|attempt| described(attempt, "")) {
                if !all.contains(&text) {
                    all.push(text);
                }
            }
        }
    }
    all
}

/// Somebody else's files that decide about an image now and would no longer do so, where that changes the meaning: the
/// `reg:5000` beside our `reg_5000_`, the `_default` that our folder switches off, the drop-in whose entry ours replaces.
#[must_use]
pub fn shadowed(spec: &Spec, part: &Part, tree: &Tree, after: &Tree, ledger: &Ledger, readers: &[&FoundRuntime]) -> Vec<Problem> {
    let mut told: BTreeSet<NodePath> = BTreeSet::new();
    let mut problems = Vec::new();
    for reader in readers {
        let Some(dialect) = reader.dialects(tree).first().copied() else { continue };
        let (now, then) = (reader.view(tree, dialect), reader.view(after, dialect));
        for image in probe_images(spec, &[]) {
            let before = now.resolve(&image);
            let deciding = before.files.iter().filter(|file| file.verdict == Verdict::Used && !is_ours(&file.path, part, tree, ledger));
            for file in deciding {
                let after = then.resolve(&image);
                let still = after.files.iter().any(|other| other.path == file.path && other.verdict == Verdict::Used);
                if still || before.same(&after) || before.settled() == after.settled() || !told.insert(file.path.clone()) {
                    continue;
                }
                problems.push(
                    Problem::error(
                        "foreign-shadowed",
                        format!(
                            "{} would lose its effect: {} is now asked for at {}, and would be at {}",
                            file.path,
                            image,
                            asked(&before),
                            asked(&after)
                        ),
                        "move what is needed of it into the spec and remove it, let nodeprep take over what it can with --foreign=carry, or accept that with \
                         --foreign=replace"
                            .to_owned(),
                    )
                    .at(crate::model::place::Place::file(file.path.as_str())),
                );
            }
        }
    }
    problems
}

/// Whether a foreign file at `path` says the same as ours would: every image that it decides about is asked for in the same
/// way with it and with ours.
#[must_use]
pub fn same_meaning(spec: &Spec, part: &Part, tree: &Tree, readers: &[&FoundRuntime], path: &NodePath) -> bool {
    let after = overlay(tree, &part.wants);
    let mut seen = false;
    for reader in readers {
        for dialect in reader.dialects(tree) {
            let (now, then) = (reader.view(tree, dialect), reader.view(&after, dialect));
            for image in probe_images(spec, &[]) {
                let after = then.resolve(&image);
                if after.files.iter().any(|file| &file.path == path) {
                    seen = true;
                    let now = now.resolve(&image);
                    if !now.same(&after) && now.settled() != after.settled() {
                        return false;
                    }
                }
            }
        }
    }
    seen
}

/// Whether a file, or everything in a folder, is wanted by this part, owned according to the ledger, or bears our header.
fn is_ours(path: &NodePath, part: &Part, tree: &Tree, ledger: &Ledger) -> bool {
    let one = |path: &NodePath| {
        part.wants.contains_key(path)
            || ledger.owned.contains_key(path)
            || tree.text(path).is_some_and(|text| text.lines().next().is_some_and(|line| line.contains(HEADER)))
    };
    let inside = tree.names(path);
    one(path) || !inside.is_empty() && inside.iter().all(|name| one(&path.join(name)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::desired::Target;
    use crate::model::time::Time;
    use crate::model::tree::Entry;
    use crate::model::version::Version;
    use crate::runtime::{Presence, Running, Runtime};
    use crate::spec::load::Draft;

    /// Somebody's entry for `nodots` is for no image: one that begins so is looked for in the search registries.
    #[test]
    fn a_prefix_that_names_no_registry_is_not_tried() {
        let text = "version = 1\nfallback = 'never'\nunlisted = 'deny'\n[[mirror]]\nsource = 'docker.io'\nendpoints = ['m.example/hub']\n";
        let spec = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.unwrap();
        let images = probe_images(&spec, &["nodots".to_owned(), "nodots/below".to_owned(), "theirs.io/below".to_owned()]);
        assert!(images.iter().all(|image| !image.short && !image.written.contains("nodots")));
        assert!(images.iter().any(|image| image.written == "theirs.io/below/nodeprep-probe:1"));
    }

    /// config.toml and a drop-in: 1.7 replaces the whole table by the drop-in's, and with it `config_path`; 2.1 merges both.
    #[test]
    fn a_restart_resolves_what_only_the_running_version_reads_otherwise() {
        let text = "version = 1\nfallback = 'never'\n[[mirror]]\nsource = 'quay.io'\nendpoints = ['m.example']\n";
        let spec = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.unwrap();
        let mut after = Tree::default();
        after.insert(NodePath::root(), Entry::Dir { listed: true });
        let cri = "[plugins.\"io.containerd.grpc.v1.cri\"";
        let put = |tree: &mut Tree, path: &'static str, text: &str| {
            tree.put(&NodePath::fixed(path), format!("# {HEADER}\n{text}").as_bytes(), 0o644);
        };
        let main = format!("version = 2\nimports = [\"/etc/containerd/conf.d/a.toml\"]\n{cri}.registry]\nconfig_path = \"/c\"\n");
        put(&mut after, "/etc/containerd/config.toml", &main);
        put(&mut after, "/etc/containerd/conf.d/a.toml", &format!("version = 2\n{cri}]\nsandbox_image = \"a.example/p:1\"\n"));
        let closed = "server = \"https://m.example\"\ncapabilities = [\"pull\", \"resolve\"]\n[host]\n";
        put(&mut after, "/c/quay.io/hosts.toml", closed);
        put(&mut after, "/c/quay.io_443_/hosts.toml", closed);
        let part = Part::new(Target::Containerd(NodePath::fixed("/etc/containerd/config.toml")));
        let version = |text: &str| Version::parse(text).unwrap();
        let helps = |running: &str, installed: &str| -> Vec<String> {
            let on = FoundRuntime {
                runtime: Runtime::Containerd,
                presence: Presence::There,
                because: NodePath::fixed("/usr/bin/containerd"),
                installed: Some(version(installed)),
                running: Some(Running { pid: 7, started: Time(5), version: Some(version(running)), socket: None }),
                config: NodePath::fixed("/etc/containerd/config.toml"),
                unit: Some("containerd.service".to_owned()),
                env: Vec::new(),
            };
            match prove(&spec, &part, &after, &Ledger::new([1; 32]), &[&on]) {
                Ok(()) => Vec::new(),
                Err(Refusal::Cannot(problems) | Refusal::Conflict(problems)) => problems.into_iter().map(|problem| problem.help).collect(),
            }
        };
        assert_eq!(helps("2.1.4", "2.1.4"), Vec::<String>::new());
        let (late, never) = (helps("1.7.24", "2.1.4"), helps("1.7.24", "1.7.24"));
        assert!(!late.is_empty() && late.iter().all(|help| help.starts_with("restart containerd.service first: ")), "{late:?}");
        assert!(!never.is_empty() && never.iter().all(|help| help.starts_with("report this")), "{never:?}");
        // what the installed version would read otherwise, no restart resolves
        assert!(helps("2.1.4", "1.7.24").iter().all(|help| help.starts_with("report this")));
    }
}
