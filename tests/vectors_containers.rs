//! Test vectors of registries.conf: each folder of `fixtures/vectors/containers` is a node root, images, and what is asked for
//! them by CRI-O and Podman (`runtime-semantics.md` 8.2; the folder's name is the vector's number). Adding one needs no code.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests read their fixtures, and say what is not run"
)]

use std::path::Path;
use std::process::ExitCode;

use libtest_mimic::{Arguments, Failed, Trial};
use nodeprep::format::registries_conf::to_version_2;
use nodeprep::model::endpoint::Scheme;
use nodeprep::model::image::ImageRef;
use nodeprep::model::path::NodePath;
use nodeprep::model::resolution::{End, Trust};
use nodeprep::model::tree::{Entry, Tree};
use nodeprep::runtime::containers::View;
use nodeprep::runtime::{FoundRuntime, Presence, Runtime};

fn main() -> ExitCode {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/vectors/containers");
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    let elsewhere = std::fs::read_to_string(folder.join("elsewhere.toml")).unwrap();
    names.retain(|name| name != "elsewhere.toml");
    names.sort();
    let trial = |name: &String| {
        let folder = folder.join(name);
        Trial::test(name.clone(), move || check(&folder))
    };
    let mut trials: Vec<Trial> = names.iter().map(trial).collect();
    // R08a is part of R08
    let is_here = |number: &String| elsewhere.contains(&format!("{number} = ")) || names.iter().any(|name| name.starts_with(number));
    let missing: Vec<String> = (1..=31).map(|number| format!("R{number:02}")).filter(|number| !is_here(number)).collect();
    for reason in elsewhere.lines() {
        println!("not told from files: {reason}");
    }
    trials.push(Trial::test("every vector is here or has a reason", move || {
        if missing.is_empty() { Ok(()) } else { Err(Failed::from(format!("missing: {missing:?}"))) }
    }));
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn check(folder: &Path) -> Result<(), Failed> {
    let mut tree = Tree::default();
    tree.insert(NodePath::root(), Entry::Dir { listed: true });
    load(&mut tree, &folder.join("root"), &NodePath::root());
    let expected = std::fs::read_to_string(folder.join("expect.txt"))?;
    let comment: Vec<&str> = expected.split_inclusive('\n').take_while(|line| line.starts_with('#')).collect();
    let images = expected.lines().filter(|line| !line.is_empty() && !line.starts_with(['#', ' ']));
    for runtime in [Runtime::Crio, Runtime::Podman] {
        let view = View::new(&tree, &found(runtime));
        let answers: String = images.clone().map(|image| answer(&view, image)).collect();
        let is = comment.concat() + &answers;
        if is != expected {
            return Err(format!("{runtime} differs\n--- expected\n{expected}\n--- is\n{is}").into());
        }
        // version 1 and the same said in version 2
        let main = NodePath::fixed("/etc/containers/registries.conf");
        let Some(moved) = to_version_2(&main, &tree.text(&main).unwrap_or_default())? else { continue };
        let mut tree = tree.clone();
        tree.put(&main, moved.text.clone().into_bytes(), 0o644);
        let view = View::new(&tree, &found(runtime));
        let answers: String = images.clone().map(|image| answer(&view, image)).collect();
        let is = comment.concat() + &answers;
        let without_places =
            |text: &str| text.lines().map(|line| line.split(" at /etc").next().unwrap_or_default()).collect::<Vec<_>>().join("\n");
        if without_places(&is) != without_places(&expected) {
            return Err(format!("{runtime} differs for\n{}\n--- expected\n{expected}\n--- is\n{is}", moved.text).into());
        }
    }
    Ok(())
}

fn load(tree: &mut Tree, from: &Path, to: &NodePath) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let path = to.join(entry.file_name().to_str().unwrap());
        if entry.file_type().unwrap().is_dir() {
            load(tree, &entry.path(), &path);
        } else {
            tree.put(&path, std::fs::read(entry.path()).unwrap(), 0o644);
        }
    }
}

fn found(runtime: Runtime) -> FoundRuntime {
    FoundRuntime {
        runtime,
        presence: Presence::There,
        because: NodePath::fixed("/usr/bin/x"),
        installed: None,
        running: None,
        config: NodePath::fixed("/etc/crio/crio.conf"),
        unit: None,
        env: Vec::new(),
    }
}

fn answer(view: &View, text: &str) -> String {
    let image = ImageRef::parse(text).unwrap();
    let resolution = view.resolve(&image);
    let mut lines = vec![String::new(), text.to_owned()];
    for attempt in &resolution.attempts {
        let unverified = if attempt.scheme == Scheme::Https && attempt.trust == Trust::Unverified { " unverified" } else { "" };
        lines.push(format!("  {}{unverified}", attempt.manifest_url(&image)));
    }
    lines.push(match resolution.end {
        End::Exhausted => "  exhausted".to_owned(),
        End::Blocked(why) => format!("  blocked: {why}"),
        End::Broken(why) => format!("  broken: {why}"),
    });
    lines.join("\n") + "\n"
}
