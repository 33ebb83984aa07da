//! The canary of a run: who pulled it before the first byte, and what it means that it is not pulled afterwards.

use super::{ApplyError, Door, Progress, Remark};
use crate::plan::canary::Canary;

/// The canaries of a run, and what was seen of them.
#[derive(Debug)]
pub(super) struct Canaries<'a> {
    all: &'a [Canary],
    /// Before the first byte: why it was not pulled.
    before: Vec<Result<(), String>>,
    /// The one for which everything is put back.
    blamed: Option<usize>,
    /// What is to be told.
    pub(super) remarks: Vec<Remark>,
}

impl<'a> Canaries<'a> {
    /// Lets each be pulled as the node is.
    pub(super) fn before(all: &'a [Canary], door: &mut impl Door, progress: &mut impl FnMut(Progress<'_>)) -> Self {
        let pull = |canary| {
            progress(Progress::Pulling(canary));
            door.pull(canary).map_err(|error| error.to_string())
        };
        Self { all, before: all.iter().map(pull).collect(), blamed: None, remarks: Vec::new() }
    }

    /// One is pulled as the node is now. That it is not is the run's fault only if it was before, or an endpoint has promised it.
    pub(super) fn pull(
        &mut self,
        one: usize,
        back: bool,
        door: &mut impl Door,
        progress: &mut impl FnMut(Progress<'_>),
    ) -> Result<(), ApplyError> {
        let (canary, before) = (&self.all[one], &self.before[one]);
        // on the way back only what can be expected: that one is pulled again which was before
        if back && (self.blamed != Some(one) || before.is_err()) {
            return Ok(());
        }
        progress(Progress::Pulling(canary));
        let Err(error) = door.pull(canary) else { return Ok(()) };
        let (runtime, image, why) = (canary.runtime.clone(), canary.image.clone(), error.to_string());
        if back {
            self.remarks.push(Remark::CanaryLost { runtime, image, why });
            return Ok(());
        }
        match before {
            Err(earlier) if !canary.promised => {
                self.remarks.push(Remark::CanaryFails { runtime, image, why, earlier: earlier.clone() });
                Ok(())
            }
            before => {
                self.blamed = Some(one);
                Err(ApplyError::Canary { runtime, image, why, pulled: before.is_ok() })
            }
        }
    }
}
