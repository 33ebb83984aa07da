//! One boot of a node under systemd-nspawn, from the first process to the last.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroups;
use crate::{prepared, setting};

/// How long a boot or a shutdown may take; they take a second or two.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running node; when this is dropped, it is no more.
pub struct Boot {
    /// The node's systemd, as a process of ours.
    pub leader: u32,
    nspawn: Child,
    _cgroups: Cgroups,
}

impl Boot {
    /// Boots what lies in `folder`; returns when the node's systemd reports that it has started everything. With another `init` as
    /// process 1, as soon as that one runs.
    pub fn start(folder: &Path, number: u32, options: &[String], init: Option<&str>) -> Result<Boot> {
        let notify = folder.join("notify");
        let _ = fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).with_context(|| notify.display().to_string())?;
        socket.set_read_timeout(Some(Duration::from_millis(200))).context("the socket for notifications")?;
        let cgroups = Cgroups::new(setting::suite()?, &format!("{}-{number}", setting::trial()?))?;
        let path = folder.join(format!("console-{number}"));
        let console = File::create(&path).with_context(|| path.display().to_string())?;
        // nspawn works below the group that it is in, so that it has to be there from the start.
        let enter = r#"while [ "$1" != -- ]; do echo $$ >"$1/cgroup.procs" || exit; shift; done; shift; exec "$@""#;
        let mut command = Command::new("setsid");
        command.args(["sh", "-c", enter, "sh"]).args(cgroups.folders()).arg("--").arg(prepared().join("nspawn"));
        command.args(["--quiet", "--machine=node", "--register=no", "--keep-unit", "--console=read-only"]);
        command.args(if init.is_none() { &["--boot", "--notify-ready=yes"][..] } else { &["--notify-ready=no"] });
        command
            .args(["--resolv-conf=off", "--timezone=off", "--link-journal=no"])
            .args(options)
            .arg("--directory")
            .arg(folder.join("root"))
            .args(init);
        command.stdin(Stdio::null()).stdout(console.try_clone().context("the console")?).stderr(console);
        command.env("NOTIFY_SOCKET", &notify).env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1");
        let nspawn = command.spawn().context("systemd-nspawn")?;
        let mut boot = Boot { leader: 0, nspawn, _cgroups: cgroups };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut message = [0; 4096];
            let said = match socket.recv(&mut message) {
                Ok(length) => String::from_utf8_lossy(&message[..length]).into_owned(),
                Err(_) => String::new(),
            };
            for line in said.lines() {
                if let Some(leader) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    boot.leader = leader.parse().with_context(|| line.to_owned())?;
                }
            }
            if said.lines().any(|line| line == "READY=1") {
                ensure!(boot.leader != 0, "systemd-nspawn did not say which process is the node's systemd");
                return Ok(boot);
            }
            let ended = boot.nspawn.try_wait().context("systemd-nspawn")?;
            if ended.is_some() || Instant::now() > deadline {
                let why = ended.map_or_else(|| format!("it has not booted within {PATIENCE:?}"), |status| status.to_string());
                bail!("the node did not start: {why}\n{}", fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }

    /// An orderly shutdown.
    pub fn stop(mut self) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.nspawn.id())?), Signal::SIGTERM).context("systemd-nspawn")?;
        let deadline = Instant::now() + PATIENCE;
        while self.nspawn.try_wait().context("systemd-nspawn")?.is_none() {
            ensure!(Instant::now() < deadline, "the node has not shut down within {PATIENCE:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

impl Drop for Boot {
    fn drop(&mut self) {
        // With the first process of a namespace the kernel ends all others in it. It is not the leader's own number that is killed when nspawn has ended
        // before: then it may be somebody else's.
        if let Ok(None) = self.nspawn.try_wait() {
            if let Some(leader) = i32::try_from(self.leader).ok().filter(|leader| *leader > 0) {
                let _ = kill(Pid::from_raw(leader), Signal::SIGKILL);
            } else {
                let _ = self.nspawn.kill();
            }
            let _ = self.nspawn.wait();
        }
    }
}
