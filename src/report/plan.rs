//! A plan as text, and as the parts of a [`Report`].

use std::fmt::Write as _;

use super::exit::Outcome;
use super::problems::escape;
use super::style::Style;
use super::{Change, ChangeKind, PartReport, PartState, Report, UnitReport, UnitState};
use crate::desired::{Refusal, Target};
use crate::model::problem::{Problem, Severity};
use crate::model::secret::Secret;
use crate::model::tree::Tree;
use crate::plan::diff::unified;
use crate::plan::turn::Turning;
use crate::plan::whole::{Planned, PlannedPart, problems as refusal_problems};
use crate::plan::{Act, Expect, How, Plan, Step};
use crate::spec::Spec;

/// The parts of a report, under `spec` or on the way back: what changes for each target, why, and what it takes to become effective.
#[must_use]
pub fn parts(spec: Option<&Spec>, planned: &Planned, tree: &Tree, secrets: &[Secret]) -> Vec<PartReport> {
    planned.parts.iter().map(|part| part_report(spec, part, &planned.plan, tree, secrets)).collect()
}

fn part_report(spec: Option<&Spec>, planned: &PlannedPart, plan: &Plan, tree: &Tree, secrets: &[Secret]) -> PartReport {
    let target = planned.part.target.clone();
    let mut known = secrets.to_vec();
    known.extend(planned.part.secrets.iter().cloned());
    let changes = changes(&target, plan, tree, &known);
    let mut problems = planned.refused.as_ref().map(refusal_problems).unwrap_or_default();
    problems.extend(planned.part.notes.iter().cloned());
    let state = match &planned.refused {
        Some(Refusal::Conflict(_)) => PartState::Conflict,
        Some(Refusal::Cannot(_)) => PartState::Cannot,
        None if changes.is_empty() && planned.part.keeps_back() => PartState::KeptBack,
        None if changes.is_empty() => PartState::Converged,
        None => PartState::Changes,
    };
    let counts = spec.filter(|_| planned.refused.is_none());
    let adopted = counts.map(|spec| super::adopted::lines(spec, &planned.part.adopted)).unwrap_or_default();
    PartReport { target, state, changes, activations: planned.activations.clone(), problems, adopted }
}

/// The changes of one target in the order in which they are made.
#[must_use]
pub fn changes(target: &Target, plan: &Plan, tree: &Tree, secrets: &[Secret]) -> Vec<Change> {
    let steps = plan.stage.iter().chain(&plan.switch).chain(&plan.retire);
    steps.filter(|step| &step.target == target).flat_map(|step| step_changes(step, tree, secrets)).collect()
}

fn step_changes(step: &Step, tree: &Tree, secrets: &[Secret]) -> Vec<Change> {
    let before = tree.text(&step.path).unwrap_or_default();
    let change = |path: &crate::model::path::NodePath, kind, diff| Change { path: path.clone(), kind, why: step.why.clone(), diff };
    match &step.act {
        Act::PutFile { content, through_link, .. } => {
            let mut known = secrets.to_vec();
            known.extend(content.secrets.iter().cloned());
            let after = String::from_utf8_lossy(&content.bytes);
            let kind = match (&step.expect, through_link) {
                (Expect::Absent, _) => ChangeKind::Create,
                (_, true) => ChangeKind::Edit,
                _ => ChangeKind::Replace,
            };
            vec![change(&step.path, kind, unified(&before, &after, &known, step.path.as_str()))]
        }
        Act::PutDir { files, .. } => files
            .iter()
            .map(|(name, (content, _))| {
                let path = step.path.join(name);
                let mut known = secrets.to_vec();
                known.extend(content.secrets.iter().cloned());
                let diff = unified("", &String::from_utf8_lossy(&content.bytes), &known, path.as_str());
                change(&path, ChangeKind::Create, diff)
            })
            .collect(),
        Act::PutLink { .. } => vec![change(&step.path, ChangeKind::Restore, String::new())],
        Act::Remove => vec![change(&step.path, ChangeKind::Remove, unified(&before, "", secrets, step.path.as_str()))],
    }
}

/// The words that differ between what will be and what has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tense {
    /// `plan`.
    Will,
    /// `apply`, `revert`.
    Did,
}

/// A report on a plan as text; diffs only where `diffs`.
#[must_use]
pub fn text(report: &Report, tense: Tense, diffs: bool, style: Style) -> String {
    let mut out = String::new();
    for part in &report.parts {
        part_text(part, tense, diffs, style, &mut out);
    }
    for unit in &report.units {
        let _ = writeln!(out, "{}", unit_text(unit, style));
    }
    out.push_str(&told(&report.problems, tense, style));
    for due in report.due.iter().filter(|_| tense == Tense::Did) {
        let (Some(what), because) = (how(&due.how), escape(&due.because.join("; "))) else { continue };
        let _ = writeln!(out, "{} {what}: {because}", style.yellow("due:"));
    }
    let _ = writeln!(out, "{}", summary(report, tense));
    out
}

fn unit_text(unit: &UnitReport, style: Style) -> String {
    let state = match (unit.state, unit.turning) {
        (UnitState::Planned, Turning::Prove) => style.yellow("is looked at: an earlier run did not come to see whether it is well"),
        (UnitState::Planned, Turning::Reload) => style.yellow("one reload"),
        (UnitState::Planned, Turning::Restart) => style.yellow("one restart"),
        (UnitState::Done, Turning::Prove) => style.green("is well"),
        (UnitState::Done, Turning::Reload) => style.green("reloaded"),
        (UnitState::Done, Turning::Restart) => style.green("restarted"),
        (UnitState::Failed, turning) => style.red(&format!("{} failed", turning.word())),
        (UnitState::Left, turning) => style.yellow(&format!("{} left: {}", turning.word(), escape(&unit.why))),
    };
    let along = if unit.along.is_empty() { String::new() } else { format!("; takes along {}", escape(&unit.along.join(", "))) };
    format!("{}: {state}{along}", style.bold(&escape(&unit.unit)))
}

fn part_text(part: &PartReport, tense: Tense, diffs: bool, style: Style, out: &mut String) {
    let state = match part.state {
        PartState::Converged => style.green("as the spec says"),
        PartState::KeptBack => style.yellow("as the spec says but for what is kept back"),
        PartState::Changes if tense == Tense::Will => style.yellow(&count(part, "to make")),
        PartState::Changes => style.green(&count(part, "made")),
        PartState::Cannot => style.red("left untouched: the node cannot do it"),
        PartState::Conflict => style.red("left untouched: conflict"),
    };
    let _ = writeln!(out, "{}: {state}", style.bold(&part.target.to_string()));
    for change in &part.changes {
        let sign = change.kind.sign().to_string();
        let sign = match change.kind {
            ChangeKind::Create => style.green(&sign),
            ChangeKind::Remove => style.red(&sign),
            _ => style.yellow(&sign),
        };
        let _ = writeln!(out, "  {sign} {}  {}", escape(change.path.as_str()), style.dim(&escape(&change.why)));
        if diffs {
            out.push_str(&style.diff(&change.diff));
        }
    }
    // what is still to be done is told as due
    let known = |activation: &&crate::plan::Activation| tense == Tense::Will || matches!(activation.how, How::Nothing);
    for activation in part.activations.iter().filter(known) {
        let because = escape(&activation.because.join("; "));
        let line = match how(&activation.how) {
            Some(what) => style.yellow(&format!("  {what}: {because}")),
            None => style.dim(&format!("  no restart: {because}")),
        };
        let _ = writeln!(out, "{line}");
    }
    if !part.adopted.is_empty() && (tense == Tense::Will || !part.changes.is_empty()) {
        let _ = writeln!(out, "  {}", style.bold("carried over from this node; to keep it in the spec, add:"));
        for line in part.adopted.lines() {
            let line = escape(line);
            let _ = writeln!(out, "{}", if line.is_empty() { line } else { format!("    {line}") });
        }
    }
    out.push_str(&told(&part.problems, tense, style));
}

/// Problems as text; notes are for who plans, not for who applies.
fn told(problems: &[Problem], tense: Tense, style: Style) -> String {
    let shown: Vec<Problem> =
        problems.iter().filter(|problem| tense == Tense::Will || problem.severity > Severity::Note).cloned().collect();
    if shown.is_empty() { String::new() } else { super::problems::render(&shown, style.colour) }
}

fn count(part: &PartReport, word: &str) -> String {
    format!("{} {word}", super::explain::plural(part.changes.len(), "change"))
}

/// An activation in words; `None` when nothing has to happen.
pub(super) fn how(how: &How) -> Option<String> {
    match how {
        How::Nothing => None,
        How::Refresh(argv) => Some(format!("refresh the trust store with `{}`", argv.join(" "))),
        How::Reload(unit) => Some(format!("reload {unit}")),
        How::Restart(unit) => Some(format!("restart {unit}")),
    }
}

fn summary(report: &Report, tense: Tense) -> String {
    let changes: usize = report.parts.iter().map(|part| part.changes.len()).sum();
    let left = report.parts.iter().filter(|part| matches!(part.state, PartState::Cannot | PartState::Conflict)).count();
    let none = changes == 0;
    let changes = super::explain::plural(changes, "change");
    let mut text = match (tense, report.outcome) {
        (_, Outcome::RolledBack) => "failed; everything is as it was before".to_owned(),
        (Tense::Did, Outcome::Unexpected | Outcome::Cannot | Outcome::Conflict) if none && left == 0 => "nothing was changed".to_owned(),
        (_, Outcome::NotRolledBack) => "failed, and could not be undone; see above for what to do".to_owned(),
        (Tense::Will, _) => format!("{changes} to make"),
        (Tense::Did, _) => format!("{changes} made"),
    };
    if left > 0 {
        let _ = write!(text, "; {} left untouched", super::explain::plural(left, "target"));
    }
    if !report.due.is_empty() {
        let _ = write!(text, "; {} due", super::explain::plural(report.due.len(), "activation"));
    }
    text
}

/// Problems with the words of the plan's own notes.
#[must_use]
pub fn notes(plan: &Plan) -> Vec<Problem> {
    plan.notes.clone()
}
