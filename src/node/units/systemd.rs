//! systemd, by systemctl(1) and journalctl(1).

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::{JOB, PATIENCE, answer, said, shims, verb, words};
use crate::apply::UnitError;
use crate::model::order::{self, Gather as _};
use crate::model::unit::{Active, UnitFacts};
use crate::node::command;
use crate::node::root::Root;
use crate::plan::turn::{Turn, Turning};

/// What is asked of a unit. What a version of systemd does not know it leaves out.
const STATE: &str = "LoadState,ActiveState,MainPID,CanReload,KillMode,NRestarts,ControlGroup";
/// Units that stop when this one does, and start again with it when it is restarted (systemd.unit(5), "Mapping of unit
/// properties to their inverses").
const STOPS: [&str; 5] = ["RequiredBy", "BoundBy", "ConsistsOf", "RequisiteOf", "PropagatesStopTo"];

type Properties = BTreeMap<String, String>;

/// The unit, with everything that a stop of it would stop.
pub(super) fn facts(root: &Root, name: &str) -> Result<UnitFacts, String> {
    let mut facts = state(root, name)?;
    let mut seen = BTreeSet::from([name.to_owned()]);
    let mut next = vec![name.to_owned()];
    while !next.is_empty() {
        let mut found = Vec::new();
        for properties in show(root, &format!("Id,ActiveState,{}", STOPS.join(",")), &next)? {
            let active = Active::from_word(properties.get("ActiveState").map_or("", String::as_str));
            let id = properties.get("Id").cloned().unwrap_or_default();
            // what does not run is not stopped, and takes nothing along
            if id != name && !active.is_up() {
                continue;
            }
            // targets and the like do no work of their own
            if id != name && [".service", ".socket"].iter().any(|kind| id.ends_with(kind)) {
                facts.along.push(id);
            }
            let others = STOPS.iter().filter_map(|key| properties.get(*key)).flat_map(|list| list.split_whitespace());
            found.extend(others.filter(|other| seen.insert((*other).to_owned())).map(ToOwned::to_owned).collect::<Vec<_>>());
        }
        next = found;
    }
    order::sort(&mut facts.along);
    facts.along.dedup();
    Ok(facts)
}

/// The unit alone.
pub(super) fn state(root: &Root, name: &str) -> Result<UnitFacts, String> {
    let properties = show(root, STATE, &[name.to_owned()])?.into_iter().next().unwrap_or_default();
    let mut facts = unit(&properties);
    if let Some(group) = properties.get("ControlGroup").filter(|group| facts.kills_all && group.len() > 1) {
        facts.shims = shims::inside(root, group);
    }
    Ok(facts)
}

fn show(root: &Root, properties: &str, names: &[String]) -> Result<Vec<Properties>, String> {
    let asked = ["systemctl", "show", "--no-pager", "--property", properties, "--"];
    let argv: Vec<&str> = asked.into_iter().chain(names.iter().map(String::as_str)).collect();
    let output = answer(root, &argv)?;
    if output.status == 0 { Ok(blocks(&output.stdout)) } else { Err(said(&output)) }
}

/// `KEY=VALUE` lines; an empty line stands between two units.
fn blocks(text: &str) -> Vec<Properties> {
    let block = |block: &str| {
        block.lines().filter_map(|line| line.split_once('=')).map(|(key, value)| (key.to_owned(), value.to_owned())).gathered()
    };
    text.split("\n\n").filter(|text| !text.trim().is_empty()).map(block).collect()
}

fn unit(properties: &Properties) -> UnitFacts {
    let text = |key: &str| properties.get(key).map_or("", String::as_str);
    UnitFacts {
        loaded: text("LoadState") == "loaded",
        masked: text("LoadState") == "masked",
        active: Active::from_word(text("ActiveState")),
        main_pid: text("MainPID").parse().ok().filter(|pid| *pid != 0),
        reloads: text("CanReload") == "yes",
        kills_all: matches!(text("KillMode"), "control-group" | "mixed"),
        restarts: text("NRestarts").parse().unwrap_or(0),
        shims: 0,
        along: Vec::new(),
    }
}

/// Has a job done and waits for its end; a reload that the daemon has to confirm may take `patience`. A failed unit that is restarted too often is refused by its start limit: it is forgotten
/// first, because the way back is one more restart.
pub(super) fn turn(root: &Root, turn: &Turn, back: bool, patience: Duration) -> Result<(), UnitError> {
    let run = |argv: &[&str], patience| command::run(root, &words(argv), patience);
    let journal = end_of_journal(root, &turn.unit);
    if turn.turning == Turning::Restart {
        // that there is nothing to forget is no failure
        let _ = run(&["systemctl", "reset-failed", "--", &turn.unit], PATIENCE)?;
    }
    // to the main process alone: others in its group are those of containers
    let output = match turn.signal {
        Some(signal) => run(&["systemctl", "kill", "--kill-who=main", &format!("--signal={signal}"), "--", &turn.unit], PATIENCE)?,
        None => run(&["systemctl", verb(turn.turning, back), "--", &turn.unit], JOB)?,
    };
    if output.status != 0 {
        let lines = journal.map(|place| since(root, &turn.unit, &place)).unwrap_or_default();
        let own = lines.into_iter().rfind(|line| !line.trim().is_empty());
        let said = said(&output);
        return Err(UnitError::Job { said: own.map_or_else(|| said.clone(), |own| format!("{said} It said: {own}")) });
    }
    along(root, turn)?;
    match (&turn.proof.confirms, turn.turning) {
        (Some(words), Turning::Reload) => confirmed(root, turn, words, journal.as_ref(), patience),
        _ => Ok(()),
    }
}

/// Units that went along and did not come back: the restart of what they need failed first, and on the way back they are not there
/// to be restarted.
fn along(root: &Root, turn: &Turn) -> Result<(), UnitError> {
    for name in &turn.along {
        if state(root, name).is_ok_and(|facts| facts.loaded && !facts.active.is_up()) {
            let output = command::run(root, &words(&["systemctl", "start", "--", name]), JOB)?;
            if output.status != 0 {
                return Err(UnitError::Job { said: format!("{name}, which went along, does not start: {}", said(&output)) });
            }
        }
    }
    Ok(())
}

/// What the journal has of a unit: its own lines, and those of systemd about it. The same for a cursor and for what comes after
/// it: journalctl takes the first entry that matches for the one at the cursor, and passes over it.
fn matches(unit: &str) -> [String; 4] {
    [format!("_SYSTEMD_UNIT={unit}"), "+".to_owned(), "_PID=1".to_owned(), format!("UNIT={unit}")]
}

/// A place in the journal of a unit.
struct Place {
    /// Nothing stands before it otherwise.
    after: Option<String>,
}

/// Where the journal of a unit ends now; `None` where it cannot be read.
fn end_of_journal(root: &Root, unit: &str) -> Option<Place> {
    let asked = words(&["journalctl", "--no-pager", "--quiet", "--output=cat", "--lines=1", "--show-cursor"]);
    let output = command::run(root, &[&asked[..], &matches(unit)].concat(), PATIENCE).ok().filter(|output| output.status == 0)?;
    let after = output.stdout.lines().find_map(|line| line.strip_prefix("-- cursor: ")).map(|cursor| cursor.trim().to_owned());
    Some(Place { after })
}

/// What the processes of a unit have written since, systemd's own lines left out.
fn since(root: &Root, unit: &str, place: &Place) -> Vec<String> {
    let asked = words(&["journalctl", "--no-pager", "--quiet", "--output=json", "--output-fields=MESSAGE,_SYSTEMD_UNIT"]);
    let after: Vec<String> = place.after.iter().map(|cursor| format!("--after-cursor={cursor}")).collect();
    let output = command::run(root, &[&asked[..], &after, &matches(unit)].concat(), PATIENCE).ok().filter(|output| output.status == 0);
    output.map(|output| messages(&output.stdout, unit)).unwrap_or_default()
}

fn messages(json: &str, unit: &str) -> Vec<String> {
    let entries = json.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let own = entries.filter(|entry| entry.get("_SYSTEMD_UNIT").and_then(serde_json::Value::as_str) == Some(unit));
    own.filter_map(|entry| Some(entry.get("MESSAGE")?.as_str()?.to_owned())).collect()
}

/// Waits for the line by which a daemon says that it has read everything: that the signal was sent says nothing.
fn confirmed(
    root: &Root,
    turn: &Turn,
    (done, failed): &(String, String),
    place: Option<&Place>,
    patience: Duration,
) -> Result<(), UnitError> {
    let Some(place) = place else {
        return Err(UnitError::Unconfirmed { said: format!("the journal of {} cannot be read, and only there it says so", turn.unit) });
    };
    let begun = Instant::now();
    loop {
        for line in since(root, &turn.unit, place) {
            if line.contains(done.as_str()) {
                return Ok(());
            }
            if line.contains(failed.as_str()) {
                return Err(UnitError::Unconfirmed { said: line });
            }
        }
        if begun.elapsed() > patience {
            return Err(UnitError::Unconfirmed { said: format!("it did not say {done:?} within {} s", patience.as_secs()) });
        }
        std::thread::sleep(super::BETWEEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hears_only_the_daemon_in_its_journal() {
        let json = "{\"MESSAGE\":\"Reloading\",\"_SYSTEMD_UNIT\":\"init.scope\"}\n{\"MESSAGE\":\"own\",\"_SYSTEMD_UNIT\":\"x.service\"}\n\
                    {\"MESSAGE\":[1,2],\"_SYSTEMD_UNIT\":\"x.service\"}\nno json\n";
        assert_eq!(messages(json, "x.service"), ["own"]);
    }

    #[test]
    fn reads_what_systemctl_shows() {
        let shown = "MainPID=812\nLoadState=loaded\nActiveState=active\nKillMode=process\nCanReload=no\nNRestarts=2\n\nLoadState=not-found\nActiveState=inactive\nMainPID=0\n";
        let units: Vec<UnitFacts> = blocks(shown).iter().map(unit).collect();
        let one = UnitFacts { loaded: true, active: Active::Active, main_pid: Some(812), restarts: 2, ..UnitFacts::default() };
        assert_eq!(units, [one, UnitFacts { active: Active::Inactive, ..UnitFacts::default() }]);
        let all = |mode: &str| unit(&blocks(&format!("KillMode={mode}\n"))[0]).kills_all;
        assert_eq!(["control-group", "mixed", "process", "none"].map(all), [true, true, false, false]);
        assert!(blocks("").is_empty());
    }
}
