//! The process is killed at every step: each file is old or new, the next run converges, and the way back leads to where
//! everything began.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::format_collect,
    reason = "tests look, panic and talk"
)]

mod node_support;

use std::path::Path;
use std::process::Command;

use node_support::{Want, copy, difference, first, has_staging, picture, root_of, run, scratch, second, start};
use nodeprep::apply::End;

fn named(want: &str) -> Want {
    match want {
        "first" => first(),
        "second" => second(),
        _ => Want::new(),
    }
}

/// Each test starts itself again, once per point: with a root in its environment it is the run that is killed there.
fn killed_everywhere(test: &str, before: &[&str], goal: &str, exchange: bool) {
    if let Some(root) = std::env::var_os("NODEPREP_TEST_ROOT") {
        let end = run(Path::new(&root), &named(goal)).end;
        assert!(matches!(end, End::Applied), "{end:?}");
        return;
    }
    if !cfg!(debug_assertions) {
        println!("skipped: release builds have no checkpoints");
        return;
    }
    let dir = scratch();
    let origin = root_of(&dir, "origin");
    start(&origin);
    let old = dir.path().join("old");
    copy(&origin, &old);
    for want in before {
        assert!(matches!(run(&old, &named(want)).end, End::Applied));
    }
    let new = dir.path().join("new");
    copy(&old, &new);
    let end = run(&new, &named(goal)).end;
    assert!(matches!(end, End::Applied), "{end:?}");
    let (origin, was, will) = (picture(&origin), picture(&old), picture(&new));
    assert!(!has_staging(&will));
    for point in 1.. {
        let root = dir.path().join("root");
        let _ = std::fs::remove_dir_all(&root);
        copy(&old, &root);
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", test, "--test-threads=1"]).env("NODEPREP_TEST_ROOT", &root);
        child.env("NODEPREP_CHECKPOINT", point.to_string());
        if !exchange {
            child.env("NODEPREP_NO_EXCHANGE", "1");
        }
        let output = child.output().unwrap();
        let at = format!("{goal} killed at {point}");
        if output.status.success() {
            assert!(point > 50, "{at}: too few points");
            println!("{goal}: {point} points");
            return;
        }
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&output.status), Some(9), "{at}: {output:?}");
        let now = picture(&root);
        for (path, thing) in now.iter().filter(|(path, _)| !path.contains(".nodeprep-stage")) {
            assert!([was.get(path), will.get(path)].contains(&Some(thing)), "{at}: {path} is {thing:?}");
        }
        for (path, thing) in &was {
            assert!(now.contains_key(path) || will.get(path) != Some(thing) || !exchange, "{at}: {path} is gone");
        }
        // a registry's folder is as it was, as it will be, or not there: never without one of its files
        if exchange {
            for folder in ["a.example", "b.example"].map(|name| format!("/etc/certs.d/{name}/")) {
                let [now, was, will] = [&now, &was, &will]
                    .map(|picture| picture.keys().filter(|path| path.starts_with(&folder)).cloned().collect::<Vec<String>>());
                assert!(now == was || now == will, "{at}: {now:?}");
                assert!(!now.is_empty() || !root.join(folder.trim_matches('/')).exists(), "{at}: {folder} is empty");
            }
        }
        let end = run(&root, &named(goal)).end;
        assert!(matches!(end, End::Applied | End::Unchanged), "{at}: {end:?}");
        let now = picture(&root);
        assert!(now == will, "{at}: {}", difference(&now, &will));
        let end = run(&root, &named(goal)).end;
        assert!(matches!(end, End::Unchanged), "{at}: {end:?}");
        let end = run(&root, &Want::new()).end;
        assert!(matches!(end, End::Applied | End::Unchanged), "{at}: {end:?}");
        let now = picture(&root);
        assert!(now == origin, "{at}: {}", difference(&now, &origin));
    }
}

#[test]
fn first_apply() {
    killed_everywhere("first_apply", &[], "first", true);
}

#[test]
fn second_apply() {
    killed_everywhere("second_apply", &["first"], "second", true);
}

#[test]
fn revert() {
    killed_everywhere("revert", &["first"], "nothing", true);
}

#[test]
fn second_apply_where_names_cannot_be_exchanged() {
    killed_everywhere("second_apply_where_names_cannot_be_exchanged", &["first"], "second", false);
}
