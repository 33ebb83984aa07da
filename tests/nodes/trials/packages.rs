//! Packages from their first installation to the last trace of them.

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};

use super::{UNIT, mirror, spec};
use crate::packages::Stage;
use crate::tree::{self, Tree};
use crate::world::{APPLY, World};

const STATE: &str = "/var/lib/nodeprep";
const LEDGER: &str = "/var/lib/nodeprep/ledger.json";
/// The program that a removal leaves.
const LEFT: &str = "/var/lib/nodeprep/nodeprep";
const APPLY_UNIT: &str = "nodeprep-apply.service";

fn said(output: &Output) -> String {
    format!("{}\n{}{}", output.status, String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What is in use on the node: all files but those of packages themselves and of those who install them.
fn in_use(world: &World) -> Result<Tree> {
    let mut files = world.files()?;
    let packages =
        ["usr", "var/lib/dpkg", "var/lib/rpm", "var/cache", "var/log", "var/tmp", ".rpmdb", "etc/default", "etc/nodeprep"].map(Path::new);
    files.retain(|path, _| !packages.iter().any(|folder| path.starts_with(folder)));
    Ok(files)
}

fn same(what: &str, before: &Tree, after: &Tree) -> Result<()> {
    let differences = tree::differences(before, after);
    ensure!(differences.is_empty(), "{what}: {differences:#?}");
    Ok(())
}

fn dpkg(world: &World, words: &[&str]) -> Result<Output> {
    let line: Vec<&str> = ["env", "DEBIAN_FRONTEND=noninteractive", "dpkg"].iter().chain(words).copied().collect();
    world.node.try_run(&line)
}

fn dpkg_done(world: &World, words: &[&str]) -> Result<String> {
    let output = dpkg(world, words)?;
    ensure!(output.status.success(), "dpkg {words:?}: {}", said(&output));
    Ok(said(&output))
}

/// Both versions on the node.
fn debs(world: &World) -> Result<(String, String)> {
    let folder = World::scratch();
    let stage = Stage::new(&folder)?;
    let mut inside = Vec::new();
    for version in ["0.1.0", "0.2.0"] {
        let deb = stage.deb(version, &folder)?;
        let path = format!("/srv/nodeprep-{version}.deb");
        world.node.install(&deb, &path)?;
        inside.push(path);
    }
    Ok((inside.remove(0), inside.remove(0)))
}

/// A node that the installed package has made true to its spec, by its unit, and that pulls.
/// What was given back by hand is not taken again by a unit until somebody says so.
fn resumed(world: &World) -> Result<()> {
    let before = in_use(world)?;
    world.node.run(&["systemctl", "start", APPLY_UNIT])?;
    same("the unit on a node that was given back", &before, &in_use(world)?)?;
    world.node.run(&["systemctl", "stop", APPLY_UNIT])?;
    world.node.run(&["nodeprep", "resume"])?;
    Ok(())
}

fn put_to_use(world: &World) -> Result<()> {
    world.node.run(&["systemctl", "enable", "--now", APPLY_UNIT])?;
    ensure!(world.node.property(APPLY_UNIT, "Result")? == "success", "{APPLY_UNIT} failed");
    world.node.run(&["systemctl", "restart", UNIT])?;
    world.pulls()
}

/// Installing changes nothing but adds files; an upgrade keeps the ledger, the settings and what is enabled; a removal leaves the node working, over a reboot too,
/// with the way back beside its ledger.
pub fn deb(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.node.unshow("/usr/bin/nodeprep");
    let (old, new) = debs(world)?;
    world.node.boot()?;
    let (before, start) = (in_use(world)?, world.node.start_of(UNIT)?);
    dpkg_done(world, &["--install", &old])?;
    same("installing", &before, &in_use(world)?)?;
    let enabled = world.node.try_run(&["systemctl", "is-enabled", APPLY_UNIT])?;
    ensure!(String::from_utf8_lossy(&enabled.stdout).trim() == "disabled", "{}", said(&enabled));
    // Without a spec the unit does nothing, whoever starts it.
    world.node.run(&["systemctl", "start", APPLY_UNIT])?;
    ensure!(world.node.property(APPLY_UNIT, "ConditionResult")? == "no", "{APPLY_UNIT} ran without a spec");
    ensure!(!world.node.exists(LEDGER), "there is a ledger without a spec");
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");

    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    put_to_use(world)?;
    mirror.asked();
    let settings = "# the administrator's\nNODEPREP_PROBE=warn\n";
    world.node.write("/etc/default/nodeprep", 0o644, settings)?;
    let (ledger, used, start) = (world.node.read(LEDGER)?, in_use(world)?, world.node.start_of(UNIT)?);
    let said = dpkg_done(world, &["--install", &new])?;
    ensure!(world.node.run(&["dpkg-query", "-W", "-f", "${Version}", "nodeprep"])? == "0.2.0-1", "{said}");
    same("an upgrade", &used, &in_use(world)?)?;
    ensure!(world.node.read(LEDGER)? == ledger, "the upgrade changed the ledger");
    ensure!(world.node.read("/etc/default/nodeprep")? == settings, "the upgrade changed the settings");
    world.node.run(&["systemctl", "is-enabled", APPLY_UNIT])?;
    let run = world.done(&APPLY)?;
    ensure!(run.changed().is_empty() && run.due().is_empty(), "after the upgrade: {run}");
    let ledger = world.node.read(LEDGER)?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");

    let said = dpkg_done(world, &["--remove", "nodeprep"])?;
    ensure!(said.contains(&format!("{LEFT} revert")), "a removal does not say how to give the node back: {said}");
    same("a removal", &used, &in_use(world)?)?;
    ensure!(
        world.node.read(LEDGER)? == ledger && world.node.exists(LEFT) && !world.node.exists("/usr/bin/nodeprep"),
        "a removal lost the way back"
    );
    world.node.stop()?;
    world.node.boot()?;
    world.pulls().context("after the removal and a reboot")?;
    ensure!(!mirror.asked().is_empty(), "after the removal the mirror was not asked");
    let failed = world.node.run(&["systemctl", "--failed", "--no-legend", "--plain"])?;
    ensure!(!failed.contains("nodeprep"), "{failed}");
    dpkg_done(world, &["--install", &new])?;
    ensure!(!world.node.exists(LEFT), "the program that was left is still there");
    Ok(())
}

/// A purge that was not told to give the node back leaves it working and says so; one that was told gives it back byte for byte, or fails and forgets nothing.
pub fn deb_purge(world: &mut World) -> Result<()> {
    mirror(world)?;
    world.node.unshow("/usr/bin/nodeprep");
    let (old, _) = debs(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    world.node.boot()?;
    let before = in_use(world)?;
    dpkg_done(world, &["--install", &old])?;
    put_to_use(world)?;
    let used = in_use(world)?;
    let said = dpkg_done(world, &["--purge", "nodeprep"])?;
    ensure!(said.contains("stays in use") && said.contains(&format!("{LEFT} revert")), "a purge does not say what it leaves: {said}");
    let mut without_unit = used.clone();
    without_unit.retain(|path, _| !path.ends_with(APPLY_UNIT));
    ensure!(without_unit.len() + 1 == used.len(), "the unit was enabled by one link");
    same("a purge", &without_unit, &in_use(world)?)?;
    world.pulls().context("after a purge")?;
    world.node.run(&[LEFT, "revert"])?;
    same("the way back after a purge", &before, &in_use(world)?)?;

    // Packages are installed again over what a purge has left.
    dpkg_done(world, &["--install", &old])?;
    resumed(world)?;
    put_to_use(world)?;
    world.node.run(&["sh", "-c", "echo nodeprep nodeprep/revert boolean true | debconf-set-selections"])?;
    dpkg_done(world, &["--remove", "nodeprep"])?;
    held(world, || {
        let output = dpkg(world, &["--purge", "nodeprep"])?;
        let told = self::said(&output);
        ensure!(!output.status.success() && told.contains("nothing is forgotten"), "a purge whose revert fails: {told}");
        ensure!(world.node.exists(LEDGER) && world.node.exists(LEFT), "a purge whose revert failed lost the way back");
        world.pulls().context("after a purge that failed")
    })?;
    let said = dpkg_done(world, &["--purge", "nodeprep"])?;
    same(&format!("a purge that gives back ({said})"), &before, &in_use(world)?)?;
    ensure!(!world.node.exists(STATE), "{STATE} is still there");
    ensure!(world.node.exists("/etc/nodeprep/spec.toml"), "the spec is the administrator's");
    Ok(())
}

/// While another run holds the lock.
fn held(world: &World, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    world.node.run(&["systemd-run", "--unit=holder", "flock", "/var/lib/nodeprep/lock", "sleep", "infinity"])?;
    while world.node.try_run(&["flock", "--nonblock", "/var/lib/nodeprep/lock", "true"])?.status.success() {
        ensure!(world.node.property("holder.service", "ActiveState")? == "active", "nobody takes the lock");
    }
    let outcome = meanwhile();
    world.node.run(&["systemctl", "stop", "holder"])?;
    outcome
}

/// The same with RPM: installed into a root that is not running, as images are built; the rest of its life on the running node.
pub fn rpm(world: &mut World) -> Result<()> {
    let mirror = mirror(world)?;
    world.node.unshow("/usr/bin/nodeprep");
    let folder = World::scratch();
    let stage = Stage::new(&folder)?;
    let old = stage.rpm("0.1.0", &folder)?;
    world.node.install(&stage.rpm("0.2.0", &folder)?, NEW_RPM)?;
    let rpm = Rpm::new(world)?;
    let before = in_use(world)?;
    Rpm::outside(world, &["--initdb"])?;
    // The shell of this root is in the other package manager's records.
    Rpm::outside(world, &["--install", "--nodeps", &old.display().to_string()])?;
    same("installing", &before, &in_use(world)?)?;

    world.node.boot()?;
    let before = in_use(world)?;
    let enabled = world.node.try_run(&["systemctl", "is-enabled", APPLY_UNIT])?;
    ensure!(String::from_utf8_lossy(&enabled.stdout).trim() == "disabled", "{}", said(&enabled));
    let wrong = rpm.done(world, &["--verify", "--nodeps", "nodeprep"])?;
    ensure!(!wrong.contains('/'), "installed otherwise than packed: {wrong}");
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    put_to_use(world)?;
    let settings = "# the administrator's\nNODEPREP_PROBE=warn\n";
    world.node.write("/etc/default/nodeprep", 0o644, settings)?;
    let (ledger, used, start) = (world.node.read(LEDGER)?, in_use(world)?, world.node.start_of(UNIT)?);
    rpm.done(world, &["--upgrade", "--nodeps", NEW_RPM])?;
    ensure!(rpm.done(world, &["--query", "nodeprep"])?.contains("nodeprep-0.2.0-1"), "the upgrade did not happen");
    same("an upgrade", &used, &in_use(world)?)?;
    ensure!(world.node.read(LEDGER)? == ledger, "the upgrade changed the ledger");
    ensure!(world.node.read("/etc/default/nodeprep")? == settings, "the upgrade changed the settings");
    world.node.run(&["systemctl", "is-enabled", APPLY_UNIT])?;
    ensure!(world.node.start_of(UNIT)? == start, "containerd was touched");

    let told = rpm.done(world, &["--erase", "nodeprep"])?;
    ensure!(told.contains(&format!("{LEFT} revert")), "erasing does not say how to give the node back: {told}");
    let mut without_unit = used.clone();
    without_unit.retain(|path, _| !path.ends_with(APPLY_UNIT));
    same("erasing", &without_unit, &in_use(world)?)?;
    ensure!(world.node.read(LEDGER)? == ledger && !world.node.exists("/usr/bin/nodeprep"), "erasing lost the way back");
    mirror.asked();
    world.pulls().context("after erasing")?;
    ensure!(!mirror.asked().is_empty(), "after erasing the mirror was not asked");
    world.node.run(&[LEFT, "revert"])?;
    same("the way back after erasing", &before, &in_use(world)?)?;

    rpm.done(world, &["--install", "--nodeps", NEW_RPM])?;
    ensure!(!world.node.exists(LEFT), "the program that was left is still there");
    resumed(world)?;
    put_to_use(world)?;
    // A ledger that this nodeprep does not understand: it cannot give anything back.
    let ledger = world.node.read(LEDGER)?;
    let newer = ledger.replacen("\"version\": 2", "\"version\": 99", 1).replacen("\"version\":2", "\"version\":99", 1);
    ensure!(newer != ledger, "the ledger has no version: {ledger}");
    world.node.write(LEDGER, 0o600, newer)?;
    let output = rpm.run(world, &["NODEPREP_ERASE=revert"], &["--erase", "nodeprep"])?;
    ensure!(!output.status.success() && world.node.exists("/usr/bin/nodeprep"), "a revert that fails: {}", said(&output));
    world.pulls().context("after an erasing that failed")?;
    world.node.write(LEDGER, 0o600, ledger)?;
    let output = rpm.run(world, &["NODEPREP_ERASE=revert"], &["--erase", "nodeprep"])?;
    ensure!(output.status.success(), "erasing that gives back: {}", said(&output));
    same("erasing that gives back", &before, &in_use(world)?)?;
    ensure!(!world.node.exists(STATE) && !world.node.exists("/usr/bin/nodeprep"), "something is left");
    Ok(())
}

const NEW_RPM: &str = "/srv/nodeprep-0.2.0.rpm";

/// The rpm that `packaging/tools/prepare` has unpacked, on its own libraries, which are shown in the node.
struct Rpm {
    line: Vec<String>,
}

impl Rpm {
    /// To be called before the node boots.
    fn new(world: &mut World) -> Result<Rpm> {
        let root = crate::packages::rpm_tools();
        world.node.show(&root, "/opt/rpm");
        let loader = only_file(&root.join("usr/lib"), "ld-linux").or_else(|_| only_file(&root.join("usr/lib64"), "ld-linux"))?;
        let libraries = only_file(&root.join("usr/lib"), "librpm.so")?;
        let inside = |path: &Path| Ok::<_, anyhow::Error>(Path::new("/opt/rpm").join(path.strip_prefix(&root)?).display().to_string());
        let folder = libraries.parent().context("a folder of libraries")?;
        let line = [
            "RPM_CONFIGDIR=/opt/rpm/usr/lib/rpm",
            &inside(&loader)?,
            "--library-path",
            &inside(folder)?,
            "/opt/rpm/usr/bin/rpm",
            "--dbpath",
            "/var/lib/rpm",
        ];
        Ok(Rpm { line: line.iter().map(|word| (*word).to_owned()).collect() })
    }

    /// On the files of the node, which does not run.
    fn outside(world: &World, words: &[&str]) -> Result<()> {
        let words = [&["--dbpath", "/var/lib/rpm"], words].concat();
        let output = crate::packages::rpm(&world.node.root(), &words)?;
        ensure!(output.status.success(), "rpm {words:?}: {}", said(&output));
        Ok(())
    }

    fn run(&self, world: &World, environment: &[&str], words: &[&str]) -> Result<Output> {
        let line =
            ["env"].into_iter().chain(environment.iter().copied()).chain(self.line.iter().map(String::as_str)).chain(words.iter().copied());
        world.node.try_run(&line.collect::<Vec<_>>())
    }

    fn done(&self, world: &World, words: &[&str]) -> Result<String> {
        let output = self.run(world, &[], words)?;
        ensure!(output.status.success(), "rpm {words:?}: {}", said(&output));
        Ok(said(&output))
    }
}

/// A file whose name begins so, at any depth.
fn only_file(folder: &Path, start: &str) -> Result<PathBuf> {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                open.push(path);
            } else if entry.file_name().to_string_lossy().starts_with(start) {
                return Ok(path);
            }
        }
    }
    anyhow::bail!("there is no {start}… below {}", folder.display())
}
