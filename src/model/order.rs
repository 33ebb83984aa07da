//! Putting things into order by code that is made once.
//!
//! The standard library makes its sort anew for each type and each closure, 4 kB of program every time, and `collect` into a map or
//! set sorts first: a twentieth of the whole program. Here what is sorted are places, which are the same for everything.

use std::cmp::Ordering;

/// Sorts `items`; what is equal stays as it came.
pub fn sort<T: Ord>(items: &mut [T]) {
    sort_by(items, Ord::cmp);
}

/// Sorts `items` by what `key` makes of each; what is equal stays as it came.
pub fn sort_by_key<T, K: Ord>(items: &mut [T], mut key: impl FnMut(&T) -> K) {
    sort_by(items, |one, other| key(one).cmp(&key(other)));
}

/// Sorts `items` by `order`; what is equal stays as it came.
pub fn sort_by<T>(items: &mut [T], mut order: impl FnMut(&T, &T) -> Ordering) {
    if items.len() > 1 {
        let places = arranged(items.len(), &mut |one, other| order(&items[one], &items[other]));
        settle(places, &mut |one, other| items.swap(one, other));
    }
}

/// From where each of `length` things comes when they stand in order.
fn arranged(length: usize, order: &mut dyn FnMut(usize, usize) -> Ordering) -> Vec<usize> {
    let mut places: Vec<usize> = (0..length).collect();
    places.sort_by(|one, other| order(*one, *other));
    places
}

/// Brings each thing to its place by exchanging two at a time.
fn settle(mut places: Vec<usize>, swap: &mut dyn FnMut(usize, usize)) {
    for start in 0..places.len() {
        let mut at = start;
        loop {
            let from = std::mem::replace(&mut places[at], at);
            if from == start {
                break;
            }
            swap(at, from);
            at = from;
        }
    }
}

/// `gathered` is `collect` for sets and maps.
pub trait Gather: Iterator + Sized {
    /// All of it, put in one by one; of what is equal the last one counts in a map, as with `collect`.
    fn gathered<C: Default + Extend<Self::Item>>(self) -> C {
        let mut all = C::default();
        all.extend(self);
        all
    }
}

impl<I: Iterator> Gather for I {}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn as_the_standard_library_does(items in proptest::collection::vec((0_u8..20, any::<u16>()), 0..80)) {
            let sorted = |sort: fn(&mut [(u8, u16)])| {
                let mut items = items.clone();
                sort(&mut items);
                items
            };
            prop_assert_eq!(sorted(sort), sorted(<[_]>::sort));
            prop_assert_eq!(sorted(|all| sort_by_key(all, |item| item.0)), sorted(|all| all.sort_by_key(|item| item.0)));
            prop_assert_eq!(sorted(|all| sort_by(all, |a, b| (b.0, a.1).cmp(&(a.0, b.1)))), sorted(|all| all.sort_by(|a, b| (b.0, a.1).cmp(&(a.0, b.1)))));
            prop_assert_eq!(items.iter().gathered::<BTreeSet<_>>(), items.iter().collect::<BTreeSet<_>>());
            prop_assert_eq!(items.iter().copied().gathered::<BTreeMap<_, _>>(), items.iter().copied().collect::<BTreeMap<_, _>>());
        }
    }
}
