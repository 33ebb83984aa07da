//! Waiting for several things at the same time.

use std::panic::resume_unwind;
use std::thread::{Builder, scope};

/// Does `work` for each of `items`, each in a thread of its own; the results are in the order of the items. Where no more threads
/// can be had, one comes after the other.
pub fn each<T: Sync, A: Send>(items: &[T], work: impl Fn(&T) -> A + Sync) -> Vec<A> {
    let work = &work;
    scope(|scope| {
        let start = |item| (item, Builder::new().spawn_scoped(scope, move || work(item)));
        let begun: Vec<_> = items.iter().map(start).collect();
        let end = |(item, thread): (_, std::io::Result<std::thread::ScopedJoinHandle<'_, A>>)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
            Err(_) => work(item),
        };
        begun.into_iter().map(end).collect()
    })
}
