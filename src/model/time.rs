//! Points in time.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// From whole seconds since 1970.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole days from `self` until `later`; negative when `later` is past.
    #[must_use]
    pub const fn days_until(self, later: Self) -> i64 {
        (later.0 - self.0).div_euclid(86_400_000)
    }
}

/// `2026-11-20T18:00:00Z`; the civil date by Howard Hinnant's `civil_from_days` algorithm.
impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.div_euclid(1000);
        let (days, rest) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let z = days + 719_468;
        let era = z.div_euclid(146_097);
        let doe = z.rem_euclid(146_097);
        let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
        let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        let mp = (5 * doy + 2) / 153;
        let day = doy - (153 * mp + 2) / 5 + 1;
        let month = if mp < 10 { mp + 3 } else { mp - 9 };
        let year = yoe + era * 400 + i64::from(month <= 2);
        write!(f, "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_dates() {
        assert_eq!(Time::from_secs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time::from_secs(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Time::from_secs(1_795_197_661).to_string(), "2026-11-20T18:01:01Z");
        assert_eq!(Time::from_secs(-1).to_string(), "1969-12-31T23:59:59Z");
        assert_eq!(Time::from_secs(0).days_until(Time::from_secs(86_400 * 3 + 5)), 3);
        assert_eq!(Time::from_secs(10).days_until(Time::from_secs(0)), -1);
    }
}
