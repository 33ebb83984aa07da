//! Endpoints, tried as a daemon would reach them: one stage after the other, each with the time that it took.
//!
//! What lives here: many probes at once ([`probe`]), connecting (`dial`), the handshake (`tls`), one exchange of HTTP (`http`),
//! the questions that a registry is asked (`ask`); by the same means, fetching a spec ([`fetch`], `body`). What must not: judging what
//! was found (`verify/`).
//!
//! Every probe has one time-out for all of its stages, answers are read up to a limit, no redirect is followed, and a login goes
//! to its own host over TLS or nowhere.

mod ask;
mod body;
mod dial;
pub mod fetch;
#[cfg(test)]
mod fetch_tests;
mod http;
#[cfg(test)]
mod tests;
mod tls;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::root::Root;
use super::{clock, enter};
use crate::verify::probe::{Seen, Target, Trouble};

/// Probes at the same time: each has a socket and while it looks for its address a thread more, and 1024 files is all that a process
/// may have open where nothing else is said. More endpoints that are silent take another time-out.
const MOST: usize = 256;
/// What a probe's thread needs, with room to spare.
const STACK: usize = 512 << 10;

/// What a probe is at; targets by their place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// This one is being tried.
    Begun(usize),
    /// This one has been.
    Ended(usize),
}

/// Tries each target, many at once, each for `patience` at most; the answers are in the order of the targets. `tell` hears of
/// each as it begins and ends, from several threads. Where the running system is looked at from a container, it is tried from where
/// its own programs are: with its hosts file, its name servers, its network.
#[must_use]
pub fn probe(root: &Root, targets: &[Target], patience: Duration, tell: impl Fn(At) + Sync) -> Vec<Seen> {
    let elsewhere = root.is_live() && !root.is_own();
    let next = AtomicUsize::new(0);
    let found: Mutex<Vec<Option<Seen>>> = Mutex::new(targets.iter().map(|_| None).collect());
    let work = || {
        while let Some((place, target)) = Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|place| Some((place, targets.get(place)?))) {
            tell(At::Begun(place));
            let seen = ask::probe(target, patience);
            tell(At::Ended(place));
            if let Some(slot) = found.lock().unwrap_or_else(PoisonError::into_inner).get_mut(place) {
                *slot = Some(seen);
            }
        }
    };
    let enter_and_work = || {
        if elsewhere && let Err(why) = enter::join_alone() {
            tracing::warn!(why, "endpoints are tried from the container");
        }
        work();
    };
    std::thread::scope(|scope| {
        // a thread that has entered does not come back, and this one is needed here
        let first = usize::from(!elsewhere);
        for _ in first..targets.len().min(MOST) {
            // where no more threads can be had, there are fewer
            let _ = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, enter_and_work);
        }
        if !elsewhere {
            work();
        }
    });
    // without a single thread
    work();
    let mut seen: Vec<Seen> = found.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect();
    let by_the_clock = seen.iter().flat_map(|seen| &seen.troubles).any(|(_, trouble)| matches!(trouble, Trouble::NotNow(_)));
    if by_the_clock && clock::is_unsynchronised(root) {
        for seen in &mut seen {
            seen.troubles = std::mem::take(&mut seen.troubles).into_iter().map(|(stage, trouble)| (stage, trouble.doubted())).collect();
        }
    }
    seen
}
