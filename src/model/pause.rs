//! Break-glass: what is left alone for a while because somebody said so (docs/adr/0020).

use serde::{Deserialize, Serialize};

use super::path::NodePath;
use super::time::Time;

/// The version of the file that this nodeprep writes.
pub const VERSION: u32 = 1;

/// All pauses of a node, those that are over included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pauses {
    /// [`VERSION`].
    pub version: u32,
    /// In the order in which they were made.
    pub pauses: Vec<Pause>,
}

impl Default for Pauses {
    fn default() -> Self {
        Self { version: VERSION, pauses: Vec::new() }
    }
}

/// One pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// What is left alone, with everything below; empty: all of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<NodePath>,
    /// When it was made.
    pub since: Time,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
    /// Why, in the words of whoever made it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What made it.
    pub by: By,
    /// Who made it: the user who logged in, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
}

/// What made a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// `nodeprep pause`: nobody changes anything.
    Pause,
    /// `nodeprep revert`: who runs by himself changes nothing.
    Revert,
}

/// Who wants to change something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Somebody who means this run.
    Person,
    /// Agent, DaemonSet, a unit at boot.
    Unattended,
}

/// What of a node is left alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stays {
    /// Nothing.
    #[default]
    Nothing,
    /// These paths, with everything below.
    Paths(Vec<NodePath>),
    /// Everything, for this reason.
    All(Pause),
}

impl Pauses {
    /// Those that are not over.
    pub fn active(&self, now: Time) -> impl Iterator<Item = &Pause> {
        self.pauses.iter().filter(move |pause| pause.is_active(now))
    }

    /// What `who` has to leave alone now. Of several pauses of everything the one that ends last is told.
    #[must_use]
    pub fn stays(&self, now: Time, who: Who) -> Stays {
        let mut active: Vec<&Pause> = self.active(now).filter(|pause| pause.by == By::Pause || who == Who::Unattended).collect();
        active.sort_by_key(|pause| (pause.until.is_none(), pause.until));
        if let Some(all) = active.iter().rev().find(|pause| pause.paths.is_empty()) {
            return Stays::All((*all).clone());
        }
        let mut paths: Vec<NodePath> = active.into_iter().flat_map(|pause| pause.paths.iter().cloned()).collect();
        paths.sort();
        paths.dedup();
        if paths.is_empty() { Stays::Nothing } else { Stays::Paths(paths) }
    }
}

impl Pause {
    /// Whether it has not ended by itself.
    #[must_use]
    pub fn is_active(&self, now: Time) -> bool {
        self.until.is_none_or(|until| now < until)
    }

    /// Until when and why, in words.
    #[must_use]
    pub fn said(&self) -> String {
        let until = self.until.map_or_else(|| "until `nodeprep resume`".to_owned(), |until| format!("until {until}"));
        let by = match self.by {
            By::Pause => "",
            By::Revert => " since `nodeprep revert`",
        };
        if self.reason.is_empty() { format!("{until}{by}") } else { format!("{until}{by} ({})", self.reason) }
    }
}

impl Stays {
    /// Whether a path is left alone.
    #[must_use]
    pub fn covers(&self, path: &NodePath) -> bool {
        match self {
            Self::Nothing => false,
            Self::Paths(paths) => paths.iter().any(|paused| path == paused || path.is_below(paused)),
            Self::All(_) => true,
        }
    }
}

/// A length of time as it is written on the command line: `90s`, `30m`, `4h`, `2d`, `1w`; in milliseconds.
///
/// # Errors
/// When it is none, or not between a second and [`LONGEST`].
pub fn length(text: &str) -> Result<i64, String> {
    let wrong = || format!("{text:?} is no length of time: write a number and s, m, h, d or w, as in 4h");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let secs = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        'w' => 7 * 86_400,
        _ => return Err(wrong()),
    };
    let digits = &text[..text.len() - 1];
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let length = digits.parse::<i64>().ok().and_then(|number| number.checked_mul(secs * 1000));
    match length {
        Some(length) if (1000..=LONGEST).contains(&length) => Ok(length),
        _ => Err(format!("{text} is not between 1s and 90d; a pause has to end by itself")),
    }
}

/// 90 days, in milliseconds.
pub const LONGEST: i64 = 90 * 86_400_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn pause(paths: &[&'static str], until: Option<i64>, by: By) -> Pause {
        let paths = paths.iter().copied().map(NodePath::fixed).collect();
        Pause { paths, since: Time(0), until: until.map(Time), reason: String::new(), by, uid: None }
    }

    #[test]
    fn lengths() {
        assert_eq!(length("90s"), Ok(90_000));
        assert_eq!(length("4h"), Ok(14_400_000));
        assert_eq!(length("90d"), Ok(LONGEST));
        for wrong in ["", "h", "4", "-4h", "+4h", "4 h", "4.5h", "0s", "91d", "99999999999999999999d", "4é", "ü"] {
            assert!(length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_pause_ends_by_itself() {
        let pauses = Pauses { pauses: vec![pause(&[], Some(10), By::Pause), pause(&["/a"], Some(20), By::Pause)], ..Pauses::default() };
        assert!(matches!(pauses.stays(Time(9), Who::Person), Stays::All(_)));
        let later = pauses.stays(Time(10), Who::Person);
        assert_eq!(later, Stays::Paths(vec![NodePath::fixed("/a")]));
        assert!(later.covers(&NodePath::fixed("/a")) && later.covers(&NodePath::fixed("/a/b")) && !later.covers(&NodePath::fixed("/ab")));
        assert_eq!(pauses.stays(Time(20), Who::Person), Stays::Nothing);
    }

    #[test]
    fn who_acts_by_himself_waits_after_a_revert() {
        let pauses = Pauses { pauses: vec![pause(&[], None, By::Revert)], ..Pauses::default() };
        assert_eq!(pauses.stays(Time(i64::MAX), Who::Person), Stays::Nothing);
        assert!(matches!(pauses.stays(Time(i64::MAX), Who::Unattended), Stays::All(_)));
    }

    /// Of two, the later end is the one that counts.
    #[test]
    fn the_longest_pause_is_told() {
        let pauses = [Some(10), None, Some(20)].map(|until| pause(&[], until, By::Pause));
        let of = |some: &[usize]| {
            let pauses = some.iter().map(|at| pauses[*at].clone()).collect();
            match (Pauses { pauses, ..Pauses::default() }).stays(Time(0), Who::Person) {
                Stays::All(pause) => pause.until,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((of(&[0, 2]), of(&[2, 0]), of(&[0, 1, 2])), (Some(Time(20)), Some(Time(20)), None));
    }
}
