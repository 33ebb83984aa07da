//! What the agent was told to do: intervals, how drift is dealt with, when restarts may be.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::digest::Digest;
use crate::model::time::Time;

/// A moment: milliseconds of a clock that never steps, for everything that is waited for, and the clock on the wall, for what people
/// read and for windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds since the boot, never less than before.
    pub mono: i64,
    /// What the clock shows; it may step.
    pub wall: Time,
}

/// A second in milliseconds.
pub const SECOND: i64 = 1000;
/// A minute in milliseconds.
pub const MINUTE: i64 = 60 * SECOND;
/// An hour in milliseconds.
pub const HOUR: i64 = 60 * MINUTE;

/// What the agent was told to do. Times are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// The spec's source, as it may be shown.
    pub source: String,
    /// How often a source that cannot be watched is asked.
    pub poll: Option<i64>,
    /// How long the spec has to be at rest before it is read.
    pub debounce: i64,
    /// How long the node has to be at rest before it is looked at for drift.
    pub quiet: i64,
    /// How often everything is read again.
    pub reread: i64,
    /// How often endpoints are tried, in the mean.
    pub probe: Option<i64>,
    /// What is done about drift.
    pub drift: DriftPolicy,
    /// Whether units are restarted at all.
    pub restarts: bool,
    /// Over how much time the fleet's restarts are spread.
    pub splay: i64,
    /// When restarts may begin.
    pub window: Option<Window>,
    /// As many passes with restarts as there may be within an hour.
    pub budget: u32,
    /// Whether there is a gate to ask before a restart.
    pub gate: bool,
    /// Which node it is: digest of its machine id.
    pub machine: Digest,
    /// Random, for what is to differ from run to run.
    pub seed: u64,
}

/// What is done about drift.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriftPolicy {
    /// It is said.
    Report,
    /// It is repaired where nothing has to be restarted for it.
    #[default]
    Repair,
    /// It is repaired.
    RepairWithRestart,
}

impl DriftPolicy {
    /// As on the command line.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Report => "report",
            Self::Repair => "repair",
            Self::RepairWithRestart => "repair-with-restart",
        }
    }
}

/// A time of the day, on some days of the week, in UTC. One that ends before it begins goes on over midnight and belongs to the day on
/// which it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// By day of the week, Monday first.
    days: [bool; 7],
    /// Minutes after midnight.
    from: i64,
    /// Minutes after midnight; the minute itself is outside.
    to: i64,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const DAY: i64 = 24 * HOUR;

impl Window {
    /// `[DAYS ]HH:MM-HH:MM`: `22:00-04:30`, `Sat,Sun 00:00-24:00`, `Mon-Fri 01:00-05:00`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (days, hours) = text.trim().rsplit_once(' ').map_or(("Mon-Sun", text.trim()), |(days, hours)| (days.trim(), hours));
        let (from, to) = hours.split_once('-').ok_or_else(|| format!("{hours:?} is not of the form HH:MM-HH:MM"))?;
        let window = Self { days: parse_days(days)?, from: parse_minutes(from)?, to: parse_minutes(to)? };
        if window.from == window.to || window.from == 24 * 60 {
            return Err(format!("{hours:?} is no time at all; write 00:00-24:00 for the whole day"));
        }
        Ok(window)
    }

    /// How long until it is open: 0 when it is.
    #[must_use]
    pub fn opens_in(&self, wall: Time) -> i64 {
        let today = wall.0.div_euclid(DAY);
        let spans = (today - 1..=today + 7).filter(|day| self.days[weekday(*day)]).map(|day| {
            let until = if self.to > self.from { self.to } else { self.to + 24 * 60 };
            (day * DAY + self.from * MINUTE, day * DAY + until * MINUTE)
        });
        spans.filter(|(_, end)| *end > wall.0).map(|(begin, _)| (begin - wall.0).max(0)).min().unwrap_or(0)
    }
}

/// Monday is 0; 1970-01-01 was a Thursday.
fn weekday(day: i64) -> usize {
    usize::try_from((day + 3).rem_euclid(7)).unwrap_or(0)
}

fn parse_days(text: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let known = DAYS.iter().position(|day| day.eq_ignore_ascii_case(name.trim()));
        known.ok_or_else(|| format!("{name:?} is no day of the week; they are Mon, Tue, Wed, Thu, Fri, Sat, Sun"))
    };
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        days[at] = true;
        while at != last {
            at = (at + 1) % 7;
            days[at] = true;
        }
    }
    Ok(days)
}

fn parse_minutes(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no time of the day from 00:00 to 24:00");
    let (hours, minutes) = text.split_once(':').ok_or_else(wrong)?;
    let number = |text: &str| text.parse::<u8>().ok().filter(|_| text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()));
    let (Some(hours), Some(minutes)) = (number(hours), number(minutes)) else { return Err(wrong()) };
    let all = i64::from(hours) * 60 + i64::from(minutes);
    if minutes < 60 && all <= 24 * 60 { Ok(all) } else { Err(wrong()) }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |minutes: i64| format!("{:02}:{:02}", minutes / 60, minutes % 60);
        if !self.days.iter().all(|day| *day) {
            let names: Vec<&str> = DAYS.iter().zip(self.days).filter(|(_, on)| *on).map(|(name, _)| *name).collect();
            write!(f, "{} ", names.join(","))?;
        }
        write!(f, "{}-{} UTC", time(self.from), time(self.to))
    }
}

/// How far into the splay the restart for a spec is on this node: the same whenever it is asked, and spread evenly over nodes.
#[must_use]
pub fn splay(machine: Digest, spec: Option<Digest>, splay: i64) -> i64 {
    if splay <= 0 {
        return 0;
    }
    let spec = spec.map(|spec| spec.to_string()).unwrap_or_default();
    i64::try_from(number(Digest::of(format!("{machine} {spec}").as_bytes())) % splay.unsigned_abs()).unwrap_or(0)
}

/// The first 64 bits of a digest.
pub(super) fn number(digest: Digest) -> u64 {
    u64::from_str_radix(&digest.to_string()[..16], 16).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21 is a Saturday.
    fn at(day: i64, hour: i64, minute: i64) -> Time {
        Time::from_secs(1_795_132_800 + (day - 20) * 86_400 + hour * 3600 + minute * 60)
    }

    #[test]
    fn the_window_opens_and_shuts() {
        assert_eq!(at(21, 5, 25).to_string(), "2026-11-21T05:25:00Z");
        for (window, now, want) in [
            ("22:00-04:00", at(21, 21, 0), HOUR),
            ("22:00-04:00", at(21, 22, 0), 0),
            ("22:00-04:00", at(21, 3, 59), 0),
            ("22:00-04:00", at(21, 4, 0), 18 * HOUR),
            ("01:00-05:00", at(21, 5, 25), 19 * HOUR + 35 * MINUTE),
            ("00:00-24:00", at(21, 5, 25), 0),
            ("Sat,Sun 00:00-24:00", at(21, 0, 0), 0),
            ("Sat,Sun 00:00-24:00", at(23, 0, 0), 5 * DAY),
            ("Mon-Fri 01:00-05:00", at(21, 2, 0), 47 * HOUR),
            ("sat 22:00-04:00", at(22, 3, 0), 0),
            ("Sat 22:00-04:00", at(21, 3, 0), 19 * HOUR),
            ("Fri-Mon 12:00-13:00", at(24, 12, 30), 3 * DAY - 30 * MINUTE),
            ("Sat 12:00-13:00", at(21, 13, 0), 7 * DAY - HOUR),
        ] {
            assert_eq!(Window::parse(window).unwrap().opens_in(now), want, "{window} at {now}");
        }
        assert_eq!(Window::parse("Sat,Sun 01:00-05:00").unwrap().to_string(), "sat,sun 01:00-05:00 UTC");
        assert_eq!(Window::parse("01:00-05:00").unwrap().to_string(), "01:00-05:00 UTC");
    }

    #[test]
    fn a_window_that_is_none_is_told() {
        for (text, why) in [
            ("", "HH:MM-HH:MM"),
            ("22:00", "HH:MM-HH:MM"),
            ("22-04", "no time of the day"),
            ("24:01-25:00", "no time of the day"),
            ("22:60-23:00", "no time of the day"),
            ("+1:00-02:00", "no time of the day"),
            ("03:00-03:00", "no time at all"),
            ("Xyz 01:00-02:00", "no day of the week"),
        ] {
            let told = Window::parse(text).unwrap_err();
            assert!(told.contains(why), "{text}: {told}");
        }
    }

    #[test]
    fn a_fleet_is_spread_and_a_node_is_steady() {
        let spec = Some(Digest::of(b"spec"));
        let place = |node: u32| splay(Digest::of(&node.to_be_bytes()), spec, 30 * MINUTE);
        assert_eq!(place(7), place(7));
        assert_ne!(place(7), splay(Digest::of(&7u32.to_be_bytes()), Some(Digest::of(b"next")), 30 * MINUTE));
        let mut minutes = [0; 30];
        for node in 0..10_000 {
            minutes[usize::try_from(place(node) / MINUTE).unwrap()] += 1;
        }
        // 333 in the mean; six standard deviations
        assert!(minutes.iter().all(|count| (225..=442).contains(count)), "{minutes:?}");
        assert_eq!(splay(Digest::of(b"x"), None, 0), 0);
    }
}
