//! What must hold of a node whatever is handed to nodeprep.

use std::fmt::Write as _;
use std::fs;

use crate::node::{Node, Picture, Run, same};

impl Node {
    pub fn link(&self, path: &str, to: &str) {
        let file = self.at(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(to, file).unwrap();
    }

    /// Refused: `plan` changes nothing at all, `apply` nothing that lives; both say the same in text and JSON.
    pub fn refused(&self, code: i32, wanted: &[&str]) {
        self.plan_changes_nothing();
        self.apply_refused(code, wanted);
    }

    /// `plan` in every form leaves everything as it is, the state folder included, and says what it finds in JSON.
    pub fn plan_changes_nothing(&self) {
        let before = self.picture(true);
        for words in ["plan", "plan -vv", "plan --output json", "plan --exit-code --color always", "explain --planned docker.io/library/x"]
        {
            let run = self.run(words);
            if words.contains("json") {
                run.json();
            }
        }
        same(&before, &self.picture(true));
    }

    /// `apply` ends with this code, names `wanted`, and no live path has changed.
    pub fn apply_refused(&self, code: i32, wanted: &[&str]) {
        let before = self.picture(false);
        for words in ["apply", "apply -vv", "apply --output json", "apply --color always"] {
            let run = self.run(words);
            assert_eq!(run.code, code, "{words}: {}{}", run.out, run.err);
            let said = if words.contains("json") { run.spoken() } else { run.out.clone() };
            for piece in wanted {
                assert!(said.contains(piece), "{words} does not say {piece:?}:\n{said}{}", run.err);
            }
            if words.contains("json") {
                let report = run.json();
                assert_eq!(report["exit_code"], code, "{}", run.out);
                let silent =
                    said.split("error[").skip(1).any(|error| error.contains("help: \n") && error.find("help: ") == error.find("help: \n"));
                assert!(!silent, "an error without a remedy: {said}");
            } else {
                assert!(run.out.contains("help"), "no remedy: {}", run.out);
            }
            same(&before, &self.picture(false));
            self.clean();
        }
    }

    /// Nothing temporary is left, and no secret can be read by others.
    pub fn clean(&self) {
        for (path, thing) in self.picture(true) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(!name.contains(".nodeprep-stage") && !name.ends_with("json.new"), "{} was left behind", path.display());
            if thing.kind == "file" && thing.mode & 0o077 != 0 {
                let text = String::from_utf8_lossy(&thing.content);
                for secret in Self::secrets() {
                    assert!(!text.contains(&secret), "{} with mode {:o} holds a secret", path.display(), thing.mode);
                }
            }
        }
    }

    /// The node becomes as the spec says, a second time changes nothing, and everything comes back.
    pub fn converges(&self) {
        let before = self.picture(false);
        let run = self.run("apply");
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        self.clean();
        let after = self.picture(true);
        let run = self.run("apply");
        assert!(run.code == 0 && run.out.contains("0 changes made"), "{}{}", run.out, run.err);
        // the lock holds the process id of the last run
        let without_lock = |mut picture: Picture| {
            picture.retain(|path, _| path.file_name().is_none_or(|name| name != "lock"));
            picture
        };
        same(&without_lock(after), &without_lock(self.picture(true)));
        let run = self.run("revert");
        assert_eq!(run.code, 0, "{}{}", run.out, run.err);
        same(&before, &self.picture(false));
        self.clean();
    }
}

impl Run {
    /// The problems of a JSON report in the words of the text.
    pub fn spoken(&self) -> String {
        let mut said = String::new();
        speak(&self.json(), &mut said);
        said
    }
}

fn speak(value: &serde_json::Value, said: &mut String) {
    match value {
        serde_json::Value::Object(fields) => {
            if let Some(what) = fields.get("what").and_then(serde_json::Value::as_str) {
                let text = |key: &str| fields.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
                writeln!(said, "{}[{}]: {}", text("severity"), text("code"), what).unwrap();
                if let Some(at) = fields.get("at") {
                    writeln!(said, " --> {}:{}:{}", at["file"].as_str().unwrap(), at["line"], at["column"]).unwrap();
                }
                writeln!(said, "help: {}", text("help")).unwrap();
            }
            fields.values().for_each(|field| speak(field, said));
        }
        serde_json::Value::Array(all) => all.iter().for_each(|one| speak(one, said)),
        _ => {}
    }
}
