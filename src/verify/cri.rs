//! What the runtimes say of themselves over the CRI, as checks. Pure.

use super::{Check, Outcome, check};
use crate::model::cri::{CriError, Health, RUNTIME_READY};
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::runtime::Runtime;

/// Whether a runtime runs, as far as processes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runs {
    /// Its process is there.
    Yes,
    /// There is none.
    No,
    /// The processes of this root cannot be seen: who answers runs.
    Unknown,
}

/// Whether a runtime is healthy; `None` where nothing shows that it runs at all.
#[must_use]
pub fn health(runtime: Runtime, runs: Runs, socket: &NodePath, answer: Result<Health, CriError>) -> Option<Check> {
    let subject = format!("{runtime}: {socket}");
    let bad = |result, found: String, help: &str| Some(check(result, RUNTIME, subject.clone(), found, help));
    match answer {
        Ok(health) => match health.condition(RUNTIME_READY) {
            Some(ready) if ready.holds => Some(check(Outcome::Ok, RUNTIME, subject, String::new(), "")),
            Some(ready) => {
                let why: Vec<&str> = [ready.reason.as_str(), &ready.message].into_iter().filter(|why| !why.is_empty()).collect();
                let why = if why.is_empty() { "without a reason".to_owned() } else { why.join(": ") };
                bad(Outcome::Failed, format!("{RUNTIME_READY} is false: {why}"), "look at the runtime's log")
            }
            None => bad(Outcome::CouldNotRun, format!("it says nothing of {RUNTIME_READY}"), "look at the runtime's log"),
        },
        Err(CriError::Absent { .. } | CriError::Deserted { .. }) if runs == Runs::Unknown => None,
        Err(error) => {
            let result = match &error {
                CriError::Absent { .. }
                | CriError::Deserted { .. }
                | CriError::NotSocket { .. }
                | CriError::Permission { .. }
                | CriError::Unreachable { .. } => Outcome::CouldNotRun,
                CriError::Late { .. } | CriError::Garbled { .. } | CriError::NotServed { .. } | CriError::Said { .. } => Outcome::Failed,
            };
            bad(result, error.to_string(), &error.help())
        }
    }
}

/// What is said of a runtime that is stopped: there is nobody to ask.
#[must_use]
pub fn stopped(runtime: Runtime, socket: &NodePath) -> Check {
    check(Outcome::CouldNotRun, RUNTIME, format!("{runtime}: {socket}"), "it is not running".into(), "start it, and run this again")
}

/// What came of a pull. Who asked for this proof and does not get it has to hear of it: it failed, whatever was in the way.
#[must_use]
pub fn pulled(runtime: Runtime, image: &ImageRef, outcome: Result<(), CriError>) -> Check {
    let subject = format!("{runtime}: {}", image.written);
    match outcome {
        Ok(()) => check(Outcome::Ok, PULL, subject, String::new(), ""),
        Err(error @ (CriError::Said { .. } | CriError::Late { .. })) => {
            let help = format!("run `nodeprep verify --manifest {0}`, and `nodeprep explain {0}` to see what is asked", image.written);
            check(Outcome::Failed, PULL, subject, error.to_string(), &help)
        }
        Err(error) => check(Outcome::Failed, PULL, subject, error.to_string(), &error.help()),
    }
}

/// The same where nobody on the node can be asked.
#[must_use]
pub fn not_pulled(image: &ImageRef) -> Check {
    let found = "no running runtime on the node pulls through the CRI".into();
    check(Outcome::Failed, PULL, image.written.clone(), found, "start containerd or CRI-O, or take --pull away")
}

const RUNTIME: &str = "runtime";
const PULL: &str = "pull";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cri::Condition;

    #[test]
    fn what_is_healthy() {
        let socket = NodePath::fixed("/run/x.sock");
        let of = |runs, answer| health(Runtime::Containerd, runs, &socket, answer).map(|check| (check.result, check.found));
        let ready = |holds, reason: &str, message: &str| {
            Ok(Health(vec![Condition { name: RUNTIME_READY.into(), holds, reason: reason.into(), message: message.into() }]))
        };
        assert_eq!(of(Runs::Yes, ready(true, "", "")), Some((Outcome::Ok, String::new())));
        let why = "RuntimeReady is false: Booting: not yet".to_owned();
        assert_eq!(of(Runs::Unknown, ready(false, "Booting", "not yet")), Some((Outcome::Failed, why)));
        assert_eq!(of(Runs::Yes, ready(false, "", "")).unwrap().1, "RuntimeReady is false: without a reason");
        assert_eq!(of(Runs::Yes, Ok(Health(Vec::new()))).unwrap().0, Outcome::CouldNotRun);
        let absent = || Err(CriError::Absent { path: socket.clone() });
        assert_eq!(of(Runs::Unknown, absent()), None);
        assert_eq!(of(Runs::Yes, absent()).unwrap().0, Outcome::CouldNotRun);
        assert_eq!(of(Runs::Unknown, Err(CriError::Permission { path: socket.clone() })).unwrap().0, Outcome::CouldNotRun);
        let not_served = CriError::NotServed { path: socket.clone(), message: "unknown service".into() };
        let check = health(Runtime::Containerd, Runs::Yes, &socket, Err(not_served)).unwrap();
        assert_eq!((check.result, check.help.contains("failed to load plugin")), (Outcome::Failed, true));
        assert_eq!(stopped(Runtime::Crio, &socket).result, Outcome::CouldNotRun);
    }

    #[test]
    fn a_pull_that_could_not_be_made_has_failed() {
        let image = ImageRef::parse("a.example/b:1").unwrap();
        let said = CriError::Said { call: "PullImage", code: 5, message: "not found".into() };
        assert_eq!(pulled(Runtime::Containerd, &image, Ok(())).result, Outcome::Ok);
        let check = pulled(Runtime::Containerd, &image, Err(said));
        assert_eq!((check.result, check.found.as_str()), (Outcome::Failed, "PullImage: not found (not found)"));
        assert!(check.help.contains("--manifest a.example/b:1"));
        let deserted = CriError::Deserted { path: NodePath::fixed("/run/x.sock") };
        assert_eq!(pulled(Runtime::Crio, &image, Err(deserted)).result, Outcome::Failed);
        assert_eq!(not_pulled(&image).result, Outcome::Failed);
    }
}
