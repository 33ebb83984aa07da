//! A new pause image is in the store, or is pulled, before its key changes.

use std::time::Duration;

use super::apply::{Activation, carry_out};
use super::plan::report;
use super::preflight::Asks;
use super::runtimes::{PULL, Runs, runs};
use super::session::{Session, Stopped, secrets};
use super::trail::Trail;
use super::tried::Heard;
use super::{PlanChoices, Probe, ProbeArgs};
use crate::model::cri::CriError;
use crate::model::image::ImageRef;
use crate::model::problem::Problem;
use crate::model::secret::mask;
use crate::node::cri::Client;
use crate::node::units::Guard;
use crate::plan::build::overlay_plan;
use crate::plan::pause::{Held, changing, holding, reads_late};
use crate::plan::turn::{Choice, Mode, Turns};
use crate::plan::whole::Planned;
use crate::report::exit::Outcome;
use crate::report::{PartState, Report};
use crate::runtime::FoundRuntime;
use crate::spec::Spec;
use crate::verify::pause::{endpoints, judge};

/// The code of the note that says that a pause image is to be pulled before its key changes.
const PULLED_FIRST: &str = "pause-image-pull";
/// The code of the warning that a pause image changes to one that cannot be had.
const MISSING: &str = "pause-image-missing";
/// The code of the note that nobody has asked whether a pause image can be had.
const UNTRIED: &str = "pause-image-untried";
/// How long a runtime has to say what is in its store.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is planned once more, with the pause image kept back where it can neither be had from the store nor be pulled as the
/// node will be. `again` plans for another spec.
pub(super) fn gated(
    session: &Session,
    spec: &Spec,
    planned: Planned,
    probe: Option<Probe>,
    heard: &mut Heard,
    again: impl Fn(&Spec) -> Planned,
) -> (Planned, Vec<Problem>) {
    let before = &session.snapshot.tree;
    let (Some(pause), false) = (&spec.pause, planned.is_empty()) else { return (planned, Vec::new()) };
    let after = overlay_plan(before, &planned.plan);
    let image = pause.image.written.as_str();
    let (mut waits, mut problems) = (Held::new(), Vec::new());
    for reader in changing(spec, before, &after, &session.found) {
        if probe == Some(Probe::Off) {
            if runs(session, reader) != Runs::No {
                let what = format!(
                    "the pause image of {} changes to {image}, and whether it can be had was not asked (--probe=off)",
                    reader.runtime
                );
                problems.push(Problem::note(UNTRIED, what, format!("look with `crictl inspecti {image}`")).at(pause.at.clone()));
            }
            continue;
        }
        let (why, help) = match stored(session, reader, image) {
            Stored::Yes => continue,
            Stored::Unknown(error) => (format!("whether {image} is in its store is not known: {error}"), error.help()),
            Stored::No => {
                let of = endpoints(spec, &pause.image, &after, &session.trust_stores(), reader);
                match judge(&of, &heard.of(&session.root, &of)) {
                    Ok(()) => {
                        let waiting = |reason: &str| Held::from([(reader.runtime, (reason.to_owned(), String::new()))]);
                        let late = reads_late(&again(&holding(spec, waiting("it is not in its store"))), reader);
                        problems.push(to_pull(reader, image, late).at(pause.at.clone()));
                        continue;
                    }
                    Err((why, help)) => (format!("{image} is not in its store, and cannot be pulled: {why}"), help),
                }
            }
        };
        if probe == Some(Probe::Warn) {
            let what = format!("the pause image of {} changes, but {why}", reader.runtime);
            problems.push(Problem::warning(MISSING, what, help).at(pause.at.clone()));
        } else {
            waits.insert(reader.runtime, (why, help));
        }
    }
    if waits.is_empty() { (planned, problems) } else { (again(&holding(spec, waits)), problems) }
}

/// How the image is to be had: a runtime that sees its registries' new settings at once pulls it before the key changes; one
/// that has to be restarted for them sees the key no earlier than these.
fn to_pull(reader: &FoundRuntime, image: &str, late: bool) -> Problem {
    let runtime = reader.runtime;
    if late {
        let what = format!("{image} is not in the store of {runtime} yet; its manifest was found, and it is pulled after the restart");
        Problem::note("pause-image-later", what, format!("pull it when {runtime} has been told: `crictl pull {image}`"))
    } else {
        let what = format!("{image} is not in the store of {runtime} yet: it is pulled before the key changes");
        Problem::note(PULLED_FIRST, what, "")
    }
}

enum Stored {
    /// It is, or nothing runs that could miss it.
    Yes,
    No,
    Unknown(CriError),
}

fn stored(session: &Session, reader: &FoundRuntime, image: &str) -> Stored {
    let runs = runs(session, reader);
    let Some(socket) = reader.socket(&session.snapshot.tree).filter(|_| runs != Runs::No) else { return Stored::Yes };
    match Client::within(&session.root, &socket, PATIENCE).and_then(|mut client| client.image_status(image)) {
        // where the plugin is not loaded, no pod is started as it is
        Ok(Some(_)) | Err(CriError::NotServed { .. }) => Stored::Yes,
        Ok(None) => Stored::No,
        Err(CriError::Absent { .. } | CriError::Deserted { .. }) if runs == Runs::Unknown => Stored::Yes,
        Err(error) => Stored::Unknown(error),
    }
}

/// What is to be carried out, once a pause image that had to be pulled first is there.
pub(super) struct Settled {
    pub session: Session,
    pub spec: Spec,
    pub planned: Planned,
    /// What the gate has told.
    pub told: Vec<Problem>,
    /// What was changed already.
    pub done: Option<Report>,
}

/// Pulls a pause image that is not in the store before its key changes. The settings of its registries come first, in a
/// transaction of their own; then the node is looked at once more. Where the pull fails the key stays as it is.
///
/// # Errors
/// The report, where those settings could not be written; or why the node cannot be looked at again.
pub(super) fn settle(
    session: Session,
    spec: Spec,
    (planned, told): (Planned, Vec<Problem>),
    choices: &PlanChoices,
    probe: &ProbeArgs,
    canary: Option<&ImageRef>,
    trail: &Trail,
) -> Result<Result<Settled, Box<Report>>, Stopped> {
    let Some(pause) = spec.pause.clone().filter(|_| told.iter().any(|problem| problem.code == PULLED_FIRST)) else {
        return Ok(Ok(Settled { session, spec, planned, told, done: None }));
    };
    let image = pause.image.written.as_str();
    let after = overlay_plan(&session.snapshot.tree, &planned.plan);
    let changing = changing(&spec, &session.snapshot.tree, &after, &session.found).into_iter();
    let missing: Vec<FoundRuntime> = changing.filter(|reader| matches!(stored(&session, reader, image), Stored::No)).cloned().collect();
    let waiting = |reader: &FoundRuntime| (reader.runtime, (format!("{image} is not in its store yet"), String::new()));
    let without = holding(&spec, missing.iter().map(waiting).collect());
    let (mut rest, _) = session.gated(&without, choices, probe, Asks::ToDo);
    let mut done = None;
    if !rest.is_empty() {
        // who is not asked is told with the rest
        let _ = session.send(canary, &without, &mut rest, probe.probe);
        let mut report = report(&session, &without, &rest, told.clone(), Outcome::Converged);
        // units are turned once, when the key is there too
        let (choice, decided) = (Choice { mode: Mode::Never, ..Choice::default() }, Turns::default());
        let activation = Activation {
            choice: &choice,
            decided: &decided,
            health: Duration::ZERO,
            preflight: &probe.preflight,
            secrets: &secrets(&spec),
            trail,
            guard: Guard::Nobody,
        };
        if !carry_out(&session, &rest.plan, activation, &mut report) {
            return Ok(Err(Box::new(report)));
        }
        done = Some(report);
    }
    let (mut failed, mut warnings) = (Held::new(), Vec::new());
    for reader in missing.iter().filter(|reader| !reads_late(&rest, reader)) {
        let Some(socket) = reader.socket(&session.snapshot.tree) else { continue };
        tracing::info!(runtime = %reader.runtime, image, "pull");
        if let Err(error) = Client::connect(&session.root, &socket, PATIENCE).and_then(|mut client| client.pull(image, PULL)) {
            let why = mask(&format!("{image} could not be pulled: {error}"), &secrets(&spec));
            let help = format!("run `nodeprep verify --pull {image}`");
            if probe.probe == Some(Probe::Warn) {
                let what = format!("the pause image of {} changes, but {why}", reader.runtime);
                warnings.push(Problem::warning(MISSING, what, help).at(pause.at.clone()));
            } else {
                failed.insert(reader.runtime, (why, help));
            }
        }
    }
    let Session { root, found, stays, .. } = session;
    let mut session = Session::open(root, &choices.runtimes)?;
    (session.found, session.stays) = (found, stays);
    let spec = holding(&spec, failed);
    let (planned, more) = session.gated(&spec, choices, probe, Asks::ToDo);
    // what was told of the first of both holds for both
    let mut all = told;
    all.extend(warnings);
    all.extend(more.into_iter().filter(|problem| !all.contains(problem)).collect::<Vec<_>>());
    all.retain(|problem| problem.code != PULLED_FIRST);
    Ok(Ok(Settled { session, spec, planned, told: all, done }))
}

impl Settled {
    /// Adds to the report what was changed before the image was pulled.
    pub(super) fn tell(done: Option<Report>, report: &mut Report) {
        for earlier in done.into_iter().flat_map(|done| done.parts) {
            match report.parts.iter_mut().find(|part| part.target == earlier.target) {
                Some(part) if !earlier.changes.is_empty() => {
                    part.changes.splice(0..0, earlier.changes);
                    if part.state == PartState::Converged {
                        part.state = PartState::Changes;
                    }
                    let more: Vec<_> = earlier.activations.into_iter().filter(|one| !part.activations.contains(one)).collect();
                    part.activations.extend(more);
                }
                Some(_) => {}
                None => report.parts.push(earlier),
            }
        }
    }
}
