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

/// No clock that is right shows an earlier time: when this program was built (`SOURCE_DATE_EPOCH`, where the build was given it), else a time
/// before its release. Where it does, nothing is known of what is valid now.
pub const BUILT: Time = match option_env!("SOURCE_DATE_EPOCH") {
    Some(text) => Time::from_secs(later(seconds(text.as_bytes()), RELEASED)),
    None => Time::from_secs(RELEASED),
};

/// 2026-11-01T00:00:00Z; moved on with each release.
const RELEASED: i64 = 1_793_491_200;

const fn later(one: i64, other: i64) -> i64 {
    if one > other { one } else { other }
}

/// Decimal digits; 0 for everything else.
const fn seconds(digits: &[u8]) -> i64 {
    let (mut at, mut sum) = (0, 0_i64);
    while at < digits.len() {
        if !digits[at].is_ascii_digit() || sum > i64::MAX / 100 {
            return 0;
        }
        sum = sum * 10 + (digits[at] - b'0') as i64;
        at += 1;
    }
    sum
}

impl Time {
    /// Whether a clock that shows it can be right.
    #[must_use]
    pub const fn is_plausible(self) -> bool {
        self.0 >= BUILT.0
    }

    /// A time as RFC 3339 writes it, with fractions of a second and an offset where it has them.
    #[must_use]
    pub fn parse_rfc3339(text: &str) -> Option<Self> {
        let (seconds, rest) = text.split_at_checked(19)?;
        let rest = rest.strip_prefix('.').map_or(rest, |rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
        let offset = match rest {
            "Z" | "z" => 0,
            _ => {
                let (hours, minutes) = rest.get(1..)?.split_once(':')?;
                let number =
                    |text: &str| text.parse::<i64>().ok().filter(|_| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()));
                let minutes = number(hours)? * 60 + number(minutes)?;
                if rest.starts_with('-') { -minutes } else { rest.starts_with('+').then_some(minutes)? }
            }
        };
        let seconds = Self::parse(&format!("{}Z", seconds.to_ascii_uppercase()))?;
        Some(Self(seconds.0 - offset * 60_000))
    }

    /// What [`fmt::Display`] writes; `None` for everything else. Days from the civil date by Howard Hinnant's `days_from_civil`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let signs = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'Z')];
        if bytes.len() != 20 || signs.iter().any(|(at, sign)| bytes[*at] != *sign) {
            return None;
        }
        let number = |from: usize, to: usize| -> Option<i64> {
            let digits = &bytes[from..to];
            digits.iter().all(u8::is_ascii_digit).then(|| digits.iter().fold(0, |sum, digit| sum * 10 + i64::from(digit - b'0')))
        };
        let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
        let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
        if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        let year = year - i64::from(month <= 2);
        let era = year.div_euclid(400);
        let yoe = year - era * 400;
        let doy = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
        let days = era * 146_097 + yoe * 365 + yoe / 4 - yoe / 100 + doy - 719_468;
        Some(Self::from_secs(((days * 24 + hour) * 60 + minute) * 60 + second))
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
    fn a_clock_before_the_build_is_wrong() {
        assert_eq!(Time::from_secs(RELEASED).to_string(), "2026-11-01T00:00:00Z");
        assert!(BUILT.is_plausible() && !Time(BUILT.0 - 1).is_plausible() && !Time(0).is_plausible());
        assert_eq!((seconds(b"1795197661"), seconds(b"tomorrow"), seconds(b"99999999999999999999999")), (1_795_197_661, 0, 0));
        assert_eq!((later(1, 2), later(2, 1)), (2, 2));
    }

    #[test]
    fn shows_dates() {
        assert_eq!(Time::from_secs(0).to_string(), "1970-01-01T00:00:00Z");
        assert_eq!(Time::from_secs(951_782_400).to_string(), "2000-02-29T00:00:00Z");
        assert_eq!(Time::from_secs(1_795_197_661).to_string(), "2026-11-20T18:01:01Z");
        assert_eq!(Time::from_secs(-1).to_string(), "1969-12-31T23:59:59Z");
        for secs in [0, 951_782_400, 1_795_197_661, 4_102_444_799, 68_169_600] {
            assert_eq!(Time::parse(&Time::from_secs(secs).to_string()), Some(Time::from_secs(secs)));
        }
        for (text, secs) in [
            ("2026-11-20T18:01:01Z", 1_795_197_661),
            ("2026-11-20t18:01:01.123456789z", 1_795_197_661),
            ("2026-11-20T20:01:01+02:00", 1_795_197_661),
            ("2026-11-20T12:31:01.5-05:30", 1_795_197_661),
        ] {
            assert_eq!(Time::parse_rfc3339(text), Some(Time::from_secs(secs)), "{text}");
        }
        for wrong in ["", "2026-11-20T18:01:01", "2026-11-20T18:01:01 02:00", "2026-11-20T18:01:01+2:00", "2026-11-20T18:01:0é1Z"] {
            assert_eq!(Time::parse_rfc3339(wrong), None, "{wrong}");
        }
        for wrong in ["", "2026-11-20", "2026-11-20T18:01:01+", "2026-13-20T18:01:01Z", "2026-11-20T18:01:0xZ", "2026-11-20 18:01:01Z"] {
            assert_eq!(Time::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Time::from_secs(0).days_until(Time::from_secs(86_400 * 3 + 5)), 3);
        assert_eq!(Time::from_secs(10).days_until(Time::from_secs(0)), -1);
    }
}
