//! The programs that manifests and chart are tried with; `prepare` unpacks them below target/tools, and what cannot be had is skipped.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::{packaged, project, yaml};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    Kustomize,
    Schemas,
    Helm,
    Cel,
}

impl Tool {
    fn name(self) -> &'static str {
        match self {
            Self::Kustomize => "kustomize",
            Self::Schemas => "schemas",
            Self::Helm => "helm",
            Self::Cel => "cel",
        }
    }

    /// Where it is; `None`, said aloud, where it cannot be had.
    pub fn folder(self) -> Option<PathBuf> {
        static HAD: Mutex<BTreeMap<Tool, bool>> = Mutex::new(BTreeMap::new());
        let tools = project("target/tools/kubernetes");
        let mut had = HAD.lock().unwrap_or_else(PoisonError::into_inner);
        let is_had = *had.entry(self).or_insert_with(|| {
            let output = Command::new(project("tests/kubernetes/prepare")).arg(&tools).arg(self.name()).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            match output.status.code() {
                Some(0) => true,
                Some(77) => {
                    eprintln!("skipped: {}", said.lines().last().unwrap_or_default());
                    false
                }
                code => panic!("prepare ended with {code:?}: {said}"),
            }
        });
        is_had.then(|| tools.join(self.name()))
    }

    /// What tests/kubernetes/tool.py answers.
    pub fn asked(self, question: &Value) -> Option<Value> {
        let packages = self.folder()?.join("packages");
        // third parties' programs need nobody to talk to; without the right to a network namespace of its own it runs in this one
        let alone = ["unshare", "--net"];
        let unshares = Command::new(alone[0]).args([alone[1], "true"]).output().is_ok_and(|output| output.status.success());
        let mut command = Command::new(if unshares { alone[0] } else { "python3" });
        if unshares {
            command.args([alone[1], "python3"]);
        }
        command.arg(project("tests/kubernetes/tool.py")).arg(packages).arg(self.name());
        command.env("PYTHONDONTWRITEBYTECODE", "1").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(question.to_string().as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}: {}", self.name(), String::from_utf8_lossy(&output.stderr));
        Some(serde_json::from_slice(&output.stdout).unwrap())
    }
}

/// What kustomize makes of a folder of packaging/kubernetes.
pub fn kustomized(folder: &str) -> Option<Vec<Value>> {
    let kustomize = Tool::Kustomize.folder()?.join("root/usr/bin/kustomize");
    let output = Command::new(kustomize).arg("build").arg(packaged(folder)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{folder}: {said}");
    Some(yaml::read(&String::from_utf8(output.stdout).unwrap()))
}

const NOTES: &str = "nodeprep/templates/NOTES.txt";

/// What Helm makes of the chart with some values: objects, and the notes; or why it does not.
pub type Rendered = Result<(Vec<Value>, String), String>;

/// Renders the chart at `chart` with each of these values.
pub fn rendered(chart: &str, values: &[Value]) -> Option<Vec<Rendered>> {
    let cases: Vec<Value> = values.iter().map(|values| serde_json::json!({"name": "nodeprep", "values": values})).collect();
    let answer = Tool::Helm.asked(&serde_json::json!({"chart": chart, "cases": cases}))?;
    for message in answer["lint"].as_array().unwrap() {
        // 1 is a hint: that there is no icon
        assert!(message["severity"].as_i64() <= Some(1), "{message}");
    }
    let each = answer["cases"].as_array().unwrap().iter().map(|case| {
        let Some(manifests) = case["manifests"].as_object() else { return Err(case["error"].as_str().unwrap().to_owned()) };
        let notes = manifests[NOTES].as_str().unwrap().to_owned();
        let texts = manifests.iter().filter(|(name, _)| *name != NOTES);
        Ok((texts.flat_map(|(_, text)| yaml::read(text.as_str().unwrap())).collect(), notes))
    });
    Some(each.collect())
}
