//! Runs that are cut off: the program is killed in the middle of an apply, and then the whole node.

use std::os::unix::process::ExitStatusExt as _;

use anyhow::{Context, Result, ensure};

use super::{UNIT, converged, spec};
use crate::pulls::Pulls;
use crate::setting;
use crate::world::{APPLY, Registry, World};

/// Not every point at which the program can be killed is tried, some two hundred: `make unit` does that (tests/crash_cli.rs). Here it counts what the daemon
/// makes of it.
const KILLS: usize = 17;
/// A boot costs more than a run.
const CUTS: usize = 43;

/// Whatever point of a mirror change a run has come to when it is killed, images go on being pulled, and the next run makes the node true to the spec.
pub fn killed(world: &mut World) -> Result<()> {
    let Some(pair) = Pair::start(world)? else { return Ok(()) };
    let start = world.node.start_of(UNIT)?;
    let pulls = Pulls::start(world.node.inside()?);
    let mut kills = 0;
    for number in 0.. {
        pair.change(world, number)?;
        if !interrupted(world, 1 + number * KILLS)? {
            break;
        }
        kills += 1;
        pulls.one_more()?;
        pulls.one_more()?;
        let run = world.done(&APPLY)?;
        ensure!(run.due().is_empty(), "after being killed at point {}: {run}", 1 + number * KILLS);
    }
    let pulled = pulls.none_lost()?;
    ensure!(kills > 2, "only {kills} runs were killed");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");
    println!("{kills} runs killed: {pulled} pulls, 0 lost");
    Ok(())
}

/// The power fails in the middle of a mirror change: the node boots and pulls with what is there, and the next run makes it true to the spec.
pub fn power(world: &mut World) -> Result<()> {
    let Some(pair) = Pair::start(world)? else { return Ok(()) };
    let mut cuts = 0;
    for number in 0.. {
        pair.change(world, number)?;
        let point = 2 + number * CUTS;
        if !interrupted(world, point)? {
            break;
        }
        cuts += 1;
        world.node.kill();
        world.node.boot()?;
        world.pulls().with_context(|| format!("after a power cut at point {point}"))?;
        world.upstream.take();
        let run = world.done(&APPLY)?;
        ensure!(run.due().is_empty(), "after a power cut at point {point}: {run}");
        pair.asked(world, number)?;
    }
    ensure!(cuts > 1, "only {cuts} runs were cut off");
    Ok(())
}

/// Two mirrors of docker.io, between which a spec can change.
struct Pair(Registry, Registry);

impl Pair {
    /// A node that is true to the spec with the first; `None` when the program under test cannot be killed at a point.
    fn start(world: &mut World) -> Result<Option<Pair>> {
        if setting::other_binary() {
            println!("skipped: killing at a point is for debug builds");
            return Ok(None);
        }
        let second = world.registry("second.example", "127.0.0.3:5000", "docker.io/library/hello")?;
        Ok(Some(Pair(converged(world)?, second)))
    }

    /// The spec that names the second mirror for even numbers, and the first for odd ones.
    fn change(&self, world: &World, number: usize) -> Result<()> {
        world.spec(&spec(&["fleet"]).replace("mirror.example", &self.one(number).name), &[])
    }

    fn one(&self, number: usize) -> &Registry {
        if number.is_multiple_of(2) { &self.1 } else { &self.0 }
    }

    /// A pull asks that one, and nobody else.
    fn asked(&self, world: &World, number: usize) -> Result<()> {
        self.0.asked();
        self.1.asked();
        world.pulls()?;
        ensure!(
            !self.one(number).asked().is_empty() && self.one(number + 1).asked().is_empty(),
            "not only {} was asked",
            self.one(number).name
        );
        let leaked = world.upstream.take();
        ensure!(leaked.is_empty(), "the upstream was asked: {leaked:?}");
        Ok(())
    }
}

/// Runs an apply that is killed at its `point`-th change of the disk; whether it has come to that.
fn interrupted(world: &World, point: usize) -> Result<bool> {
    let variable = format!("NODEPREP_CHECKPOINT={point}");
    let line: Vec<&str> = ["env", &variable, "nodeprep"].into_iter().chain(APPLY).collect();
    let output = world.node.try_run(&line)?;
    let status = output.status;
    ensure!(
        status.success() || status.signal() == Some(9) || status.code() == Some(137),
        "{status}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(!status.success())
}
