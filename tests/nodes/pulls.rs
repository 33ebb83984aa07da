//! Pulls one after the other for as long as something else is going on.

use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::node::Inside;
use crate::world::IMAGE;

/// How long a pull may take; it takes a tenth of a second, and curl gives up after half of this.
const PATIENCE: Duration = Duration::from_secs(60);

/// Each pull fetches manifest and layers anew, since the image is removed before.
pub struct Pulls {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
}

#[derive(Default)]
struct Shared {
    tally: Mutex<Tally>,
    changed: Condvar,
}

#[derive(Default)]
struct Tally {
    enough: bool,
    pulls: usize,
    /// What was said of those that failed.
    lost: Vec<String>,
}

impl Pulls {
    pub fn start(node: Inside) -> Pulls {
        let shared = Arc::new(Shared::default());
        let seen = shared.clone();
        let thread = thread::spawn(move || {
            while !seen.look(|tally| tally.enough) {
                // What a lost pull has left is nobody's concern.
                let _ = node.remove(IMAGE)?;
                let outcome = node.pull(IMAGE)?;
                seen.look(|tally| {
                    tally.pulls += 1;
                    let number = tally.pulls;
                    tally.lost.extend(outcome.err().map(|said| format!("pull {number}: {said}")));
                });
                seen.changed.notify_all();
            }
            Ok(())
        });
        Pulls { shared, thread }
    }

    /// Returns when the pull that is under way has ended, and how many there were.
    pub fn one_more(&self) -> Result<usize> {
        let tally = self.shared.tally.lock().ok().context("the loop of pulls panicked")?;
        let before = tally.pulls;
        let waited = self.shared.changed.wait_timeout_while(tally, PATIENCE, |tally| tally.pulls == before && !self.thread.is_finished());
        let (tally, _) = waited.ok().context("the loop of pulls panicked")?;
        ensure!(tally.pulls > before, "the loop of pulls stands still after {before} pulls");
        Ok(tally.pulls)
    }

    /// Ends the loop after the pull that is under way; none may have been lost.
    pub fn none_lost(self) -> Result<usize> {
        self.shared.look(|tally| tally.enough = true);
        self.thread.join().ok().context("the loop of pulls panicked")??;
        self.shared.look(|tally| {
            ensure!(tally.pulls > 0, "nothing was pulled meanwhile");
            ensure!(tally.lost.is_empty(), "{} of {} pulls were lost:\n{}", tally.lost.len(), tally.pulls, tally.lost.join("\n"));
            Ok(tally.pulls)
        })
    }
}

impl Shared {
    fn look<T>(&self, look: impl FnOnce(&mut Tally) -> T) -> T {
        look(&mut self.tally.lock().expect("no thread panics while it counts"))
    }
}
