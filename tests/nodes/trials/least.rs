//! The least disruption: what a running containerd sees by itself restarts nothing and loses no pull.

use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::{UNIT, converged, spec};
use crate::certificate::{Authority, Pair};
use crate::node::{Cursor, Start};
use crate::pulls::Pulls;
use crate::setting;
use crate::world::{APPLY, World};

/// How many changes follow each other; with the other versions of containerd a few show the same.
const CHANGES: usize = 100;
const FEW: usize = 16;
/// After every so many changes it is looked at which mirror was asked; with the four turns of the endpoints it comes to each of them.
const LOOK: usize = 5;

/// Mirrors come, go and change places while images are pulled through them.
pub fn mirrors(world: &mut World) -> Result<()> {
    let second = world.registry("second.example", "127.0.0.3:5000", "docker.io/library/hello")?;
    let first = converged(world)?;
    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    let pulls = Pulls::start(world.node.inside()?);
    // What leaves a source out again is a loss that has to be allowed.
    let apply: Vec<&str> = APPLY.into_iter().chain(["--allow-shrink"]).collect();
    let changes = if setting::containerd().is_some() { FEW } else { CHANGES };
    for number in 1..=changes {
        world.spec(&changed(number), &[])?;
        let run = world.done(&apply)?;
        ensure!(!run.changed().is_empty(), "change {number} changes nothing");
        ensure!(run.due().is_empty(), "change {number}: {run}");
        // The pull that was under way may have begun before the change. The one that has begun since asks those of the new spec, in its order.
        pulls.one_more()?;
        if number % LOOK != 0 {
            continue;
        }
        first.asked();
        second.asked();
        pulls.one_more()?;
        let asked = (!first.asked().is_empty(), !second.asked().is_empty());
        let expected = if ENDPOINTS[number % 4][0] == "mirror" { (true, false) } else { (false, true) };
        ensure!(asked == expected, "after change {number} the mirrors that were asked were {asked:?}, not {expected:?}");
    }
    let pulled = pulls.none_lost()?;
    untouched(world, &start, &cursor)?;
    let leaked = world.upstream.take();
    ensure!(leaked.is_empty(), "the upstream was asked: {leaked:?}");
    println!("{changes} mirror changes: {pulled} pulls, 0 lost, 0 restarts");
    seen(world, &start, &cursor)
}

/// What was not there would have been seen: a mirror that nobody answers for loses pulls, and a restart shows.
fn seen(world: &World, start: &Start, cursor: &Cursor) -> Result<()> {
    let pulls = Pulls::start(world.node.inside()?);
    world.spec(&spec(&["fleet"]).replace("mirror.example:5000", "mirror.example:5999"), &[])?;
    let apply: Vec<&str> = APPLY.into_iter().chain(["--allow-shrink", "--probe", "off"]).collect();
    world.done(&apply)?;
    pulls.one_more()?;
    pulls.one_more()?;
    ensure!(pulls.none_lost().is_err(), "no pull is lost without a mirror");
    world.node.run(&["systemctl", "restart", UNIT])?;
    ensure!(world.node.start_of(UNIT)? != *start && untouched(world, start, cursor).is_err(), "a restart is not seen");
    ensure!(!world.node.journal_of_systemd(cursor, UNIT)?.is_empty(), "a restart is not in the journal");
    Ok(())
}

/// The endpoints of docker.io, in turn.
const ENDPOINTS: [&[&str]; 4] = [&["mirror"], &["second"], &["mirror", "second"], &["second", "mirror"]];

/// The spec of one change: it differs from the one before in docker.io's endpoints, and in other sources and what is not listed.
fn changed(number: usize) -> String {
    let mut text = spec(&["fleet"]).replace("\"mirror.example:5000/docker.io\"", &endpoints(ENDPOINTS[number % 4], "docker.io"));
    if number.is_multiple_of(3) {
        text = text.replace("fallback = \"never\"", "fallback = \"never\"\nunlisted = \"deny\"");
    }
    for (bit, source) in ["quay.io", "ghcr.io", "registry.k8s.io"].into_iter().enumerate() {
        if number >> bit & 2 == 0 {
            let _ = write!(text, "\n[[mirror]]\nsource = \"{source}\"\nendpoints = [{}]\n", endpoints(ENDPOINTS[bit], source));
        }
    }
    text
}

fn endpoints(names: &[&str], source: &str) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}.example:5000/{source}\"")).collect();
    quoted.join(", ")
}

/// A CA is rotated: the new one beside the old one, the registry's certificate, the old one away.
pub fn rotation(world: &mut World) -> Result<()> {
    let mirror = converged(world)?;
    let new = Authority::new("the next CA of the fleet")?;
    // Hooks are run by the distribution's own tool; nobody else knows of them.
    world.node.write(
        "/etc/ca-certificates/update.d/told",
        0o755,
        "#!/bin/sh\necho run >>/var/tmp/refreshes\ncat >>/var/tmp/refreshes\n",
    )?;
    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    let pulls = Pulls::start(world.node.inside()?);
    for (names, certify, refreshes) in [
        (&["fleet", "next"][..], None, 1),
        // Nothing to do on the node when the registry changes its certificate.
        (&["fleet", "next"], Some(&new), 1),
        (&["next"], None, 2),
    ] {
        world.spec(&spec(names), &[("next.pem", &new)])?;
        if let Some(authority) = certify {
            mirror.certify(authority)?;
        }
        let run = world.done(&APPLY)?;
        ensure!(run.due().is_empty(), "with {names:?}: {run}");
        for (authority, name) in [(&world.ca, "fleet"), (&new, "next")] {
            let held = holds(&world.node.read(BUNDLE)?, authority);
            ensure!(held == names.contains(&name), "with {names:?}, {name} is {} {BUNDLE}", if held { "in" } else { "not in" });
        }
        let told = world.node.read("/var/tmp/refreshes")?;
        ensure!(
            told.matches("run").count() == refreshes,
            "with {names:?}, the distribution's tool ran otherwise than {refreshes} times:\n{told}"
        );
        pulls.one_more()?;
        pulls.one_more()?;
    }
    let pulled = pulls.none_lost()?;
    untouched(world, &start, &cursor)?;
    // Podman's family reads the same files, and a program that knows only the bundle believes the registry, too.
    world.node.run(&["skopeo", "inspect", "--no-tags", "docker://docker.io/library/hello:1"])?;
    world.node.run(&["curl", "--silent", "--show-error", "--fail", "https://mirror.example:5000/v2/"])?;
    println!("CA rotation: {pulled} pulls, 0 lost, 0 restarts");
    Ok(())
}

/// A client certificate is renewed: the next pull shows the new one.
pub fn client_rotation(world: &mut World) -> Result<()> {
    let access = "\n[[registry]]\nhost = \"mirror.example:5000\"\nclient_cert = \"node.crt\"\nclient_key = \"node.key\"\n";
    let leaf = |pair: &Pair| -> Result<Vec<u8>> { Ok(pair.certified()?.cert.first().map(|der| der.to_vec()).unwrap_or_default()) };
    let put = |world: &World, pair: &Pair| -> Result<()> {
        world.node.write("/etc/nodeprep/node.crt", 0o644, &pair.certificate)?;
        world.node.write("/etc/nodeprep/node.key", 0o600, &pair.key)
    };
    let first = world.ca.sign(Vec::new())?;
    let mirror = converged(world)?;
    put(world, &first)?;
    world.spec(&format!("{}{access}", spec(&["fleet"])), &[])?;
    world.done(&APPLY)?;
    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    let (mut last, mut pulled) = (first, 0);
    for _ in 0..3 {
        mirror.asked();
        world.pulls()?;
        let asked = mirror.asked();
        let shown = leaf(&last)?;
        ensure!(!asked.is_empty() && asked.iter().all(|ask| ask.shown.as_ref() == Some(&shown)), "another client certificate was shown");
        let pulls = Pulls::start(world.node.inside()?);
        last = world.ca.sign(Vec::new())?;
        put(world, &last)?;
        let run = world.done(&APPLY)?;
        ensure!(!run.changed().is_empty() && run.due().is_empty(), "a new client certificate: {run}");
        pulls.one_more()?;
        pulls.one_more()?;
        pulled += pulls.none_lost()?;
    }
    untouched(world, &start, &cursor)?;
    println!("client certificate rotation: {pulled} pulls, 0 lost, 0 restarts");
    Ok(())
}

const BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

fn holds(bundle: &str, authority: &Authority) -> bool {
    bundle.contains(authority.pair.certificate.trim())
}

/// The daemon is the same process, and systemd has had nothing to do with it.
fn untouched(world: &World, start: &Start, cursor: &Cursor) -> Result<()> {
    let now = world.node.start_of(UNIT)?;
    ensure!(now == *start, "containerd was {start:?} and is {now:?}");
    let journal = world.node.journal_of_systemd(cursor, UNIT)?;
    ensure!(journal.is_empty(), "systemd did something to {UNIT}:\n{journal}");
    Ok(())
}
