//! Whether anybody vouches for the node's clock, as systemd says it.

use anyhow::{Context, Result, ensure};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

use super::{mirror, spec};
use crate::world::World;

/// What systemd says of the clock decides whether a CA that has run out is left out. The kernel is this machine's own, so both answers are right: they only
/// have to be the same.
pub fn vouched(world: &mut World) -> Result<()> {
    mirror(world)?;
    let mut past = CertificateParams::new(Vec::new())?;
    past.distinguished_name.push(DnType::CommonName, "past");
    past.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (past.not_before, past.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    let past = past.self_signed(&KeyPair::generate()?)?.pem();
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.write("/etc/nodeprep/fleet.pem", 0o644, format!("{}{past}", world.ca.pair.certificate))?;
    world.node.boot()?;
    let ask = ["timedatectl", "show", "--property=NTPSynchronized", "--value"];
    let said = world.node.run(&ask)?.trim().to_owned();
    ensure!(["yes", "no"].contains(&said.as_str()), "{ask:?} says {said:?}");
    let codes = |words: &[&str]| -> Result<Vec<String>> {
        let run = world.done(words)?;
        let problems = run.report["problems"].as_array().context("no problems")?.iter();
        let codes = problems.filter_map(|problem| problem["code"].as_str());
        Ok(codes.filter(|code| ["clock", "ca-expired"].contains(code)).map(ToOwned::to_owned).collect())
    };
    let plan = ["plan", "--activate", "never"];
    let want = if said == "no" { "clock" } else { "ca-expired" };
    let found = codes(&plan)?;
    ensure!(found == [want], "systemd says {said}, and nodeprep {found:?}");
    // what timesyncd leaves when it has set the clock spares the question
    world.node.run(&["sh", "-c", "mkdir -p /run/systemd/timesync && touch /run/systemd/timesync/synchronized"])?;
    let found = codes(&plan)?;
    ensure!(found == ["ca-expired"], "with timesyncd's file: {found:?}");
    println!("clock: systemd says {said}");
    Ok(())
}
