//! Whether the clock can be relied on.
//!
//! The kernel knows whether anybody keeps it right (`STA_UNSYNC` of adjtimex(2)), and neither nix nor rustix asks it; without unsafe code we cannot.
//! systemd does, whoever keeps the clock (timesyncd, chrony, ntpd): `timedatectl` says what the kernel says. timesyncd leaves a file when it has set the
//! clock (systemd-timesyncd.service(8)); chrony leaves nothing that would say so. It is asked only where a certificate would be called bad, so
//! that no other run pays for it, and where nobody can say it the clock counts as right.

use std::time::Duration;

use super::command;
use super::root::Root;
use crate::model::path::NodePath;

/// What timesyncd leaves when it has set the clock.
const SYNCHRONISED: (&str, &str) = ("/run/systemd/timesync", "synchronized");
/// What says what the kernel says.
const ASK: [&str; 4] = ["timedatectl", "show", "--property=NTPSynchronized", "--value"];
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Whether nobody has synchronised the clock of the running system. Of another root's nothing is known. Tests set
/// `NODEPREP_CLOCK_SYNCHRONISED` to `yes` or `no`; debug builds only.
#[must_use]
pub fn is_unsynchronised(root: &Root) -> bool {
    if let Some(said) = cfg!(debug_assertions).then(|| std::env::var("NODEPREP_CLOCK_SYNCHRONISED").ok()).flatten() {
        return is_no(0, &said);
    }
    let (folder, name) = SYNCHRONISED;
    let by_timesyncd =
        || root.afresh().folder(&NodePath::fixed(folder)).ok().flatten().is_some_and(|folder| matches!(folder.stat(name), Ok(Some(_))));
    if !root.is_live() || by_timesyncd() {
        return false;
    }
    let said = command::run(root, &ASK.map(ToOwned::to_owned), PATIENCE);
    said.is_ok_and(|said| is_no(said.status, &said.stdout))
}

fn is_no(status: i32, said: &str) -> bool {
    status == 0 && said.trim() == "no"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_no_counts() {
        assert!(is_no(0, "no\n"));
        for (status, said) in [(0, "yes\n"), (0, ""), (1, "no\n"), (0, "NTPSynchronized=no"), (127, "")] {
            assert!(!is_no(status, said), "{status} {said}");
        }
    }
}
