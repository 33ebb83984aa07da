//! CRI-O, which the distribution does not have: a stand-in under its name reads registries.conf with its drop-ins through skopeo, that is by
//! the library that CRI-O reads it with, when it starts and when it is told to reload. What it says, and that it refuses to start with
//! what it only logs at a reload, is `runtime-semantics.md` 2.8. That it answers to the CRI is not stood in for.

use anyhow::{Result, ensure};

use super::activation::{text, unit, was};
use super::{mirror, spec};
use crate::world::World;

const UNIT: &str = "crio.service";
const DROP_INS: &str = "/etc/containers/registries.conf.d";
const AUTO: [&str; 5] = ["apply", "--health-timeout", "20", "--probe", "off"];

/// `skopeo` loads all of registries.conf before it looks at what it is asked for: a name that is nobody's, closed by a file of its
/// own. What it says then is the library's word on the files. `/run/mute` lets it hear a reload and say nothing, as a CRI-O does that
/// hangs in one; `/run/fail` is a file of another kind that it reads first.
const SCRIPT: &str = r#"
read_all() {
  if [ -e /run/fail ]; then echo "open /etc/crio/crio.conf: it does not parse"; return 1; fi
  said=$(skopeo inspect --no-tags docker://localhost:1/a:1 2>&1)
  case $said in *"loading registries configuration"*) echo "$said"; return 1 ;; esac
  return 0
}
reload() {
  [ ! -e /run/mute ] || return
  if why=$(read_all); then
    echo 'Applied new registry configuration: &{}'; echo 'Configuration reload completed'; echo read >>/run/crio-read
  else
    echo "Unable to reload configuration: $why"
  fi
}
if ! why=$(read_all); then echo "validating root config: $why" >&2; exit 1; fi
trap reload HUP
systemd-notify --ready
while :; do sleep 0.05; done
"#;

/// A node whose CRI-O runs; what is due is due for it alone, because its containerd is stopped.
fn boot(world: &mut World) -> Result<()> {
    world.node.write("/opt/crio.sh", 0o644, SCRIPT)?;
    let service = "[Service]\nType=notify\nNotifyAccess=all\nExecStart=/usr/bin/crio /opt/crio.sh\nExecReload=/bin/kill -HUP $MAINPID\n[Install]\nWantedBy=multi-user.target\n";
    world.node.write("/etc/systemd/system/crio.service", 0o644, service)?;
    world.node.offline(&["cp", "/bin/dash", "/usr/bin/crio"])?;
    world.node.offline(&["systemctl", "enable", UNIT])?;
    world.node.offline(&["systemctl", "disable", "containerd.service"])?;
    world.node.boot()?;
    ensure!(world.node.property(UNIT, "ActiveState")? == "active", "the stand-in does not run");
    Ok(())
}

fn other(source: &str) -> String {
    spec(&["fleet"]) + &format!("\n[[mirror]]\nsource = \"{source}\"\nendpoints = [\"mirror.example:5000/{source}\"]\n")
}

/// A reload is believed by what its journal says after it was asked for, once; what it says then settles it.
pub fn believed(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    boot(world)?;
    let start = world.node.start_of(UNIT)?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "reload", "done")?;
    ensure!(world.node.start_of(UNIT)? == start, "it was restarted");
    let reads = || -> Result<usize> { Ok(world.node.run(&["cat", "/run/crio-read"])?.lines().count()) };
    ensure!(reads()? == 1, "it was not reloaded once");
    // it is known that it has read them: a second run asks for nothing
    let run = world.done(&AUTO)?;
    ensure!(run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "a second run: {:#}", run.report);
    ensure!(reads()? == 1, "a second run reloaded it");
    // the line of the last reload stands in the journal, and this one says nothing: not believed, and back
    let before = world.files()?;
    world.node.run(&["touch", "/run/mute"])?;
    world.spec(&other("quay.io"), &[])?;
    let run = world.nodeprep(&["apply", "--health-timeout", "2", "--probe", "off"])?;
    // it does not say that it has read what was put back either
    ensure!(run.code == 7, "{:#}", run.report);
    ensure!(text(&run).contains("did not say"), "{}", text(&run));
    ensure!(drop_ins(world)? == drop_ins_of(&before), "registries.conf is not as before");
    // it speaks again
    world.node.run(&["rm", "/run/mute"])?;
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "reload", "done")?;
    ensure!(world.node.start_of(UNIT)? == start, "it was restarted");
    // one that is stopped is not started, and has everything when it is
    world.node.run(&["systemctl", "stop", UNIT])?;
    world.spec(&other("ghcr.io"), &[])?;
    let run = world.done(&[&AUTO[..], &["--allow-shrink"]].concat())?;
    ensure!(!run.changed().is_empty() && run.due().is_empty() && unit(&run, UNIT).is_none(), "{:#}", run.report);
    ensure!(world.node.property(UNIT, "ActiveState")? == "inactive", "it was started");
    world.node.run(&["systemctl", "start", UNIT])?;
    Ok(())
}

fn drop_ins(world: &World) -> Result<Vec<(String, Vec<u8>)>> {
    Ok(drop_ins_of(&world.files()?))
}

fn drop_ins_of(files: &crate::tree::Tree) -> Vec<(String, Vec<u8>)> {
    let below = files.iter().filter(|(path, _)| path.starts_with(&DROP_INS[1..]));
    below.map(|(path, (_, bytes))| (path.display().to_string(), bytes.clone())).collect()
}

/// Its line says that it could not: what was there comes back, it reads that, and the run says why.
pub fn refused(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    boot(world)?;
    world.done(&AUTO)?;
    let (start, before) = (world.node.start_of(UNIT)?, drop_ins(world)?);
    // it fails with the new files alone, as it does when another of its files was spoilt since: the first failure stops the rest
    let picky = SCRIPT.replace("[ -e /run/fail ]", "grep -qs picky.example /etc/containers/registries.conf.d/*");
    world.node.write("/opt/crio.sh", 0o644, picky)?;
    world.node.run(&["systemctl", "restart", UNIT])?;
    ensure!(world.node.start_of(UNIT)? != start, "the stand-in was not restarted");
    let (start, cursor) = (world.node.start_of(UNIT)?, world.node.cursor()?);
    world.spec(&other("picky.example"), &[])?;
    let run = world.nodeprep(&AUTO)?;
    ensure!(run.code == 6, "{:#}", run.report);
    ensure!(text(&run).contains("Unable to reload configuration: open /etc/crio/crio.conf: it does not parse"), "{}", text(&run));
    was(&run, UNIT, "reload", "failed")?;
    ensure!(run.due().is_empty() && run.changed().is_empty(), "{:#}", run.report);
    ensure!(drop_ins(world)? == before, "registries.conf is not as before");
    ensure!(world.node.start_of(UNIT)? == start, "it was restarted");
    let told = world.node.journal_since(&cursor, UNIT)?;
    ensure!(told.matches("Configuration reload completed").count() == 1, "it has not read what was put back: {told}");
    Ok(())
}

/// What somebody else's drop-in makes of the whole is seen before the first byte: a reload would only log it, and the next start of CRI-O
/// would refuse.
pub fn merged(world: &mut World) -> Result<()> {
    let _mirror = mirror(world)?;
    world.spec(&spec(&["fleet"]), &[("fleet.pem", &world.ca)])?;
    boot(world)?;
    let path = format!("{DROP_INS}/50-theirs.conf");
    for theirs in [
        "unqualified-search-registries = [\"quay.io\"\n",
        "[[registry]]\nprefix = \"a.example.com\"\nlocation = \"a.example/b\"\n[[registry.mirror]]\nlocation = \"\"\n",
        "[registries.search]\nregistries = [\"quay.io\"]\n",
    ] {
        let start = world.node.start_of(UNIT)?;
        world.node.write(&path, 0o644, theirs)?;
        let before = drop_ins(world)?;
        let run = world.nodeprep(&AUTO)?;
        ensure!(run.code == 5, "{theirs}: {:#}", run.report);
        ensure!(run.report["parts"].to_string().contains(&format!("\"file\":\"{path}\"")), "{theirs}: not told where: {:#}", run.report);
        let changed: Vec<&str> = run.changed().into_iter().filter(|path| path.starts_with("/etc/containers")).collect();
        ensure!(changed.is_empty() && unit(&run, UNIT).is_none(), "{theirs}: {:#}", run.report);
        ensure!(drop_ins(world)? == before, "{theirs}: something was changed");
        ensure!(world.node.start_of(UNIT)? == start, "{theirs}: it was touched");
        // the library agrees: with that it does not start any more
        ensure!(!world.node.try_run(&["systemctl", "restart", UNIT])?.status.success(), "{theirs}: it starts");
        world.node.run(&["rm", &path])?;
        // as often as it is started here systemd would not let it
        world.node.run(&["systemctl", "reset-failed", UNIT])?;
        world.node.run(&["systemctl", "restart", UNIT])?;
    }
    let run = world.done(&AUTO)?;
    was(&run, UNIT, "reload", "done")
}
