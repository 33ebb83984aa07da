//! Pulls one after the other for as long as something else is going on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, ensure};

use crate::node::Inside;
use crate::world::IMAGE;

/// Each pull fetches manifest and layers anew, since the image is removed before.
pub struct Pulls {
    enough: Arc<AtomicBool>,
    thread: JoinHandle<Result<Tally>>,
}

/// What came of them.
#[derive(Debug, Default)]
pub struct Tally {
    pub pulls: usize,
    /// What was said of those that failed.
    pub lost: Vec<String>,
}

impl Pulls {
    pub fn start(node: Inside) -> Pulls {
        let enough = Arc::new(AtomicBool::new(false));
        let end = enough.clone();
        let thread = thread::spawn(move || {
            let mut tally = Tally::default();
            while !end.load(Ordering::Relaxed) {
                // Removing what is not there, after a pull that was lost, is an error nobody has to know of.
                let _ = node.remove(IMAGE)?;
                tally.pulls += 1;
                if let Err(said) = node.pull(IMAGE)? {
                    tally.lost.push(format!("pull {}: {said}", tally.pulls));
                }
            }
            Ok(tally)
        });
        Pulls { enough, thread }
    }

    /// Ends the loop after the pull that is under way; none may have been lost.
    pub fn none_lost(self) -> Result<usize> {
        self.enough.store(true, Ordering::Relaxed);
        let tally = self.thread.join().ok().context("the loop of pulls panicked")??;
        ensure!(tally.pulls > 0, "nothing was pulled meanwhile");
        ensure!(tally.lost.is_empty(), "{} of {} pulls were lost:\n{}", tally.lost.len(), tally.pulls, tally.lost.join("\n"));
        Ok(tally.pulls)
    }
}
