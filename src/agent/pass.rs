//! What a pass has said: its JSON report, read piece by piece, and of that only what the agent needs.

use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::state::{Due, Fault, ProblemView};
use crate::model::digest::Digest;

/// As many paths, units and the like as are kept of one report.
pub const MOST: usize = 256;
/// As many problems as are kept.
pub(super) const MOST_PROBLEMS: usize = 16;

/// The code of what failed, was put back and is not tried again.
pub const FAILED_BEFORE: &str = "failed-before";

/// How a pass has ended.
pub type PassEnd = End<Told>;

/// How a child process has ended whose report says a `T`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct End<T> {
    /// Its exit code; `None` when a signal ended it, or it could not be started.
    pub code: Option<u8>,
    /// What it has said; `None` when that is no report.
    pub told: Option<Box<T>>,
    /// Why there is no report.
    pub why: String,
}

/// What a report says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Its outcome.
    pub outcome: String,
    /// Digest of the spec; `None` where it got not that far.
    pub spec: Option<Digest>,
    /// Files that the spec references, as they are written there.
    pub references: Vec<String>,
    /// Which runtimes are there, by version and configuration; `None` where it got not that far.
    pub runtimes: Option<Digest>,
    /// The configuration files of these.
    pub configs: Vec<String>,
    /// The first paths that were changed, or would be.
    pub paths: Vec<String>,
    /// How many there are of them.
    pub changes: u32,
    /// Something is kept back until an endpoint answers.
    pub kept_back: bool,
    /// Something failed before and is not tried again, and no other target has an error of its own.
    pub failed_before: bool,
    /// What is due.
    pub due: Vec<Due>,
    /// What became of units.
    pub units: Vec<Unit>,
    /// The first errors and warnings.
    pub problems: Vec<ProblemView>,
}

/// What became of a unit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unit {
    /// Which.
    pub unit: String,
    /// `reload`, `restart` or `prove`.
    pub needs: String,
    /// `planned`, `done`, `failed` or `left`.
    pub state: String,
    /// Why it is left.
    pub why: String,
}

/// How a pass did not succeed; `None` when it did.
#[must_use]
pub fn fault(end: &PassEnd) -> Option<Fault> {
    let Some(told) = end.told.as_deref() else { return Some(Fault::Crashed) };
    match end.code {
        // what is due is no fault: it waits; what is pending was only looked at
        Some(0 | 9 | 10) if told.kept_back => Some(Fault::Unready),
        Some(0 | 9 | 10) => None,
        Some(3) => Some(Fault::Spec),
        Some(4) if told.failed_before => Some(Fault::FailedBefore),
        Some(4 | 5) => Some(Fault::Refused),
        Some(6 | 7) => Some(Fault::RolledBack),
        Some(8) => Some(Fault::Unready),
        Some(11) => Some(Fault::Paused),
        Some(69) => Some(Fault::Unavailable),
        Some(75) => Some(Fault::Locked),
        _ => Some(Fault::Crashed),
    }
}

/// Reads a report.
///
/// # Errors
/// Why it is none.
pub fn read(from: impl Read) -> Result<Told, String> {
    let report: Report = serde_json::from_reader(from).map_err(|error| format!("its report cannot be read: {error}"))?;
    let mut told = Told { outcome: report.outcome, ..Told::default() };
    if let Some(spec) = report.spec {
        told.spec = Digest::try_from(spec.digest.as_str()).ok();
        told.references = spec.references.kept;
        let known = report.runtimes.kept.iter().map(|one| format!("{} {} {:?}\n", one.name, one.config, one.installed));
        told.runtimes = Some(Digest::of(known.collect::<String>().as_bytes()));
    }
    told.configs = report.runtimes.kept.into_iter().map(|one| one.config).collect();
    let mut problems = report.problems.kept;
    for part in report.parts.kept {
        told.changes = told.changes.saturating_add(u32::try_from(part.changes.count).unwrap_or(u32::MAX));
        told.paths.extend(part.changes.kept.into_iter().map(|change| change.path));
        told.kept_back |= part.state == "kept-back";
        problems.extend(part.problems.kept);
    }
    told.paths.truncate(MOST);
    problems.retain(|problem| problem.severity != "note");
    let mut errors = problems.iter().filter(|problem| problem.severity == "error").peekable();
    told.failed_before = errors.peek().is_some() && errors.all(|problem| problem.code == FAILED_BEFORE);
    // errors first, each in its order
    problems.sort_by_key(|problem| problem.severity != "error");
    problems.truncate(MOST_PROBLEMS);
    told.problems = problems;
    let due = report.due.kept.into_iter().map(|one| Due { how: one.how.how, what: one.how.what.text(), because: one.because.kept });
    told.due = due.filter(|due| due.how != "nothing").collect();
    told.units = report.units.kept;
    Ok(told)
}

#[derive(Debug, Deserialize)]
struct Report {
    outcome: String,
    #[serde(default)]
    spec: Option<Spec>,
    #[serde(default)]
    runtimes: Few<Runtime>,
    #[serde(default)]
    parts: Few<Part>,
    #[serde(default)]
    due: Few<Activation>,
    #[serde(default)]
    units: Few<Unit>,
    #[serde(default)]
    problems: Few<ProblemView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Spec {
    digest: String,
    references: Few<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Runtime {
    #[serde(rename = "runtime")]
    name: String,
    config: String,
    installed: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Part {
    state: String,
    changes: Few<Change>,
    problems: Few<ProblemView>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Change {
    path: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Activation {
    how: How,
    because: Few<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct How {
    how: String,
    what: What,
}

/// A unit, or a command.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum What {
    Unit(String),
    Command(Vec<String>),
}

impl Default for What {
    fn default() -> Self {
        Self::Unit(String::new())
    }
}

impl What {
    fn text(self) -> String {
        match self {
            Self::Unit(unit) => unit,
            Self::Command(words) => words.join(" "),
        }
    }
}

/// The first of a list, and how many there are: a report of a thousand registries passes by without being held.
#[derive(Debug)]
pub(super) struct Few<T> {
    pub kept: Vec<T>,
    count: usize,
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self { kept: Vec::new(), count: 0 }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct List<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for List<T> {
            type Value = Few<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Few<T>, A::Error> {
                let mut few = Few::default();
                while few.kept.len() < MOST {
                    let Some(one) = seq.next_element()? else { return Ok(few) };
                    few.kept.push(one);
                    few.count += 1;
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    few.count += 1;
                }
                Ok(few)
            }
        }
        from.deserialize_seq(List(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Target;
    use crate::model::path::NodePath;
    use crate::model::problem::Problem;
    use crate::plan::{Activation, How};
    use crate::report::exit::Outcome;
    use crate::report::{Change, ChangeKind, PartReport, PartState, Report, SpecReport};

    fn part(state: PartState, paths: usize) -> PartReport {
        let path = |number: usize| NodePath::root().join(&format!("etc/{number}"));
        let change = |number| Change { path: path(number), kind: ChangeKind::Create, why: String::new(), diff: "+x\n".repeat(9) };
        let problems = vec![Problem::note("n", "n", "n"), Problem::warning("w", "w", "w")];
        PartReport {
            target: Target::Containers,
            state,
            changes: (0..paths).map(change).collect(),
            activations: Vec::new(),
            problems,
            adopted: String::new(),
        }
    }

    #[test]
    fn reads_what_a_report_says() {
        let digest = Digest::of(b"spec");
        let due = |how| Activation { who: Target::Trust, how, because: vec!["x".to_owned()] };
        let report = Report {
            spec: Some(SpecReport { digest, references: vec!["ca.pem".to_owned()] }),
            parts: vec![part(PartState::Changes, 300), part(PartState::KeptBack, 0)],
            due: vec![
                due(How::Restart("a.service".to_owned())),
                due(How::Nothing),
                due(How::Refresh(vec!["update".to_owned(), "-f".to_owned()])),
            ],
            problems: vec![Problem::error("e", "e", "e")],
            ..Report::new(Outcome::VerifyFailed)
        };
        let told = read(report.to_json().as_bytes()).unwrap();
        assert_eq!((told.outcome.as_str(), told.spec, told.references.len()), ("verify-failed", Some(digest), 1));
        assert_eq!((told.changes, told.paths.len(), told.kept_back), (300, MOST, true));
        let codes: Vec<&str> = told.problems.iter().map(|problem| problem.code.as_str()).collect();
        assert_eq!(codes, ["e", "w", "w"]);
        let due: Vec<(&str, &str)> = told.due.iter().map(|due| (due.how.as_str(), due.what.as_str())).collect();
        assert_eq!(due, [("restart", "a.service"), ("refresh", "update -f")]);
        assert!(told.runtimes.is_some() && !told.failed_before);
    }

    /// What failed before is all that is wrong, or it does not count: the worst decides.
    #[test]
    fn tells_what_failed_before_from_other_errors() {
        let read = |codes: &[&'static str]| {
            let mut of = part(PartState::Cannot, 0);
            of.problems.extend(codes.iter().map(|code| Problem::error(code, "e", "e")));
            read(Report { parts: vec![of], ..Report::new(Outcome::Cannot) }.to_json().as_bytes()).unwrap()
        };
        let of = |codes: &[&'static str]| fault(&PassEnd { code: Some(4), told: Some(Box::new(read(codes))), why: String::new() });
        assert_eq!(of(&[FAILED_BEFORE]), Some(Fault::FailedBefore));
        assert_eq!(of(&[FAILED_BEFORE, FAILED_BEFORE]), Some(Fault::FailedBefore));
        assert_eq!(of(&[FAILED_BEFORE, "no-way"]), Some(Fault::Refused));
        assert_eq!((of(&["no-way"]), of(&[])), (Some(Fault::Refused), Some(Fault::Refused)));
    }

    #[test]
    fn what_is_no_report_is_told() {
        for text in ["", "{", "[]", "{\"outcome\": 3}", "nodeprep: killed"] {
            assert!(read(text.as_bytes()).unwrap_err().contains("cannot be read"), "{text}");
        }
    }

    /// Each exit code of the table is one fault or none; what nobody knows counts as a crash.
    #[test]
    fn each_exit_code_means_something() {
        let of = |code| fault(&PassEnd { code, told: Some(Box::default()), why: String::new() });
        let (crash, refused, back) = (Some(Fault::Crashed), Some(Fault::Refused), Some(Fault::RolledBack));
        let want = [
            (0, None),
            (1, crash),
            (2, crash),
            (3, Some(Fault::Spec)),
            (4, refused),
            (5, refused),
            (6, back),
            (7, back),
            (8, Some(Fault::Unready)),
            (9, None),
            (10, None),
            (11, Some(Fault::Paused)),
            (69, Some(Fault::Unavailable)),
            (75, Some(Fault::Locked)),
        ];
        for (code, fault) in want {
            assert_eq!(of(Some(code)), fault, "{code}");
        }
        assert!(Outcome::ALL.iter().all(|outcome| want.iter().any(|(code, _)| *code == outcome.code())));
        assert_eq!((of(None), of(Some(77))), (crash, crash));
        assert_eq!(fault(&PassEnd { code: Some(0), told: None, why: String::new() }), crash);
    }
}
