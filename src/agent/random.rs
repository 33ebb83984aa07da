//! Chance that can be repeated: `SplitMix64` (Steele, Lea and Flood, 2014), and the back-off that uses it.

use super::settings::{HOUR, MINUTE, SECOND};
use super::state::Fault;

/// A sequence of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Random(pub u64);

impl Random {
    /// The next one.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One from 0 to `most`, `most` itself left out.
    pub fn below(&mut self, most: i64) -> i64 {
        if most <= 0 { 0 } else { i64::try_from(self.number() % most.unsigned_abs()).unwrap_or(0) }
    }

    /// `time`, up to a tenth more or less.
    pub fn about(&mut self, time: i64) -> i64 {
        time - time / 10 + self.below(time / 5 + 1)
    }
}

/// How long to wait after the `times`-th failure of one kind in a row (from 1), without jitter.
#[must_use]
pub fn backoff(fault: Fault, times: u32) -> i64 {
    let (first, most) = match fault {
        Fault::Locked => (2 * SECOND, MINUTE),
        Fault::Unready | Fault::Unavailable => (30 * SECOND, 10 * MINUTE),
        Fault::Paused => (MINUTE, 10 * MINUTE),
        Fault::Spec => (10 * SECOND, 10 * MINUTE),
        Fault::Refused => (MINUTE, 30 * MINUTE),
        // what it waits for is an event; this is for what is forgotten after a day
        Fault::FailedBefore => (10 * MINUTE, HOUR),
        Fault::RolledBack => (10 * MINUTE, 4 * HOUR),
        Fault::Crashed => (5 * SECOND, 10 * MINUTE),
    };
    most.min(first << times.saturating_sub(1).min(20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_longer_each_time_up_to_a_bound() {
        let waits = |fault| [1, 2, 3, 4, 5, 30, u32::MAX].map(|times| backoff(fault, times) / SECOND);
        assert_eq!(waits(Fault::Locked), [2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(waits(Fault::RolledBack), [600, 1200, 2400, 4800, 9600, 14400, 14400]);
        assert_eq!(waits(Fault::Crashed), [5, 10, 20, 40, 80, 600, 600]);
    }

    #[test]
    fn jitter_is_a_tenth_either_way() {
        let mut random = Random(7);
        let all: Vec<i64> = (0..10_000).map(|_| random.about(1000)).collect();
        assert_eq!((all.iter().min(), all.iter().max()), (Some(&900), Some(&1100)));
        assert_eq!((random.about(0), random.below(0)), (0, 0));
    }
}
