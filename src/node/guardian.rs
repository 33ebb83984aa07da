//! The guardian: this program once more, as a transient unit of systemd beside a run that turns units. It waits for the lock of the
//! run; when that is killed, with its terminal, its pod or its whole control group, the guardian brings it to its end
//! (docs/adr/0016).
//!
//! What lives here: starting and dismissing it ([`Guardian`]), and its own waiting ([`wait`]). What it does then is `recover`.

use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::command::{self, Output};
use super::error::NodeError;
use super::files;
use super::lock::Lock;
use super::root::Root;
use super::shadow::OWN_PROGRAM;
use crate::apply::GuardError;
use crate::model::path::NodePath;

/// The unit; one for the one state folder of a node.
pub const UNIT: &str = "nodeprep-guardian.service";
/// Its program, in the state folder: that of a pod may be gone when it is needed.
const PROGRAM: &str = "guardian";
/// What starts it: where a security policy lets process 1 start nothing from below /var, it lets it start this.
const LAUNCHER: &str = "/usr/bin/env";
/// How long systemd may take to start or stop it.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at the lock, and at jobs of systemd.
const AGAIN: Duration = Duration::from_millis(100);

/// A guardian that waits; dismissed when dropped. Drop it before the lock is given back.
#[derive(Debug)]
pub struct Guardian<'a> {
    root: &'a Root,
    state: &'a NodePath,
}

impl<'a> Guardian<'a> {
    /// Starts it; returns when it waits. `health`: how long a daemon may take until it is well; `longest`: how long the run may take.
    ///
    /// # Errors
    /// When it does not start.
    pub fn start(root: &'a Root, state: &'a NodePath, health: Duration, longest: Duration) -> Result<Self, GuardError> {
        let folder = root.folder(state)?.ok_or_else(|| NodeError::of("open", state.clone(), nix::errno::Errno::ENOENT))?;
        files::copy_program(Path::new(OWN_PROGRAM), &folder, PROGRAM)?;
        // from here on what has been begun is taken back with it
        let guardian = Self { root, state };
        let copy = argv(folder.path.join(PROGRAM).as_str(), health, longest);
        let Some(mut why) = begin(root, &copy)? else { return Ok(guardian) };
        tracing::debug!(why, "the guardian did not start; once more without the one of an earlier run");
        stop(root);
        // where nothing may be executed from below /var, what is installed on the node itself will do
        for argv in [Some(copy), installed(root).map(|program| argv(&program, health, longest))].into_iter().flatten() {
            why = match begin(root, &argv)? {
                None => return Ok(guardian),
                Some(why) => why,
            };
        }
        Err(GuardError::Refused { said: why })
    }
}

/// Has it started; why it did not.
fn begin(root: &Root, argv: &[String]) -> Result<Option<String>, GuardError> {
    let started = command::run(root, argv, PATIENCE)?;
    Ok((started.status != 0).then(|| said(&started)))
}

/// Where this program is installed, if process 1 finds it there, too.
fn installed(root: &Root) -> Option<String> {
    let path = fs::read_link(OWN_PROGRAM).ok().filter(|path| root.is_own() && path.exists())?;
    path.into_os_string().into_string().ok()
}

impl Drop for Guardian<'_> {
    fn drop(&mut self) {
        stop(self.root);
        if let Err(error) = clear(self.root, self.state) {
            tracing::warn!(%error, "the guardian's program stays");
        }
    }
}

/// Removes the guardian's program: nobody needs it but a unit that is to be started.
///
/// # Errors
/// When it cannot be removed.
pub fn clear(root: &Root, state: &NodePath) -> Result<(), NodeError> {
    match root.folder(state)? {
        Some(folder) => files::unlink(&folder, PROGRAM).map(drop),
        None => Ok(()),
    }
}

/// By systemd-run(1). It says itself when it waits (`Type=notify`), because an older systemd does not tell when a program cannot be
/// executed. Whether it is still known after its end is nobody's concern: its words stand in the journal.
fn argv(program: &str, health: Duration, longest: Duration) -> Vec<String> {
    let options = [
        "--quiet",
        "--collect",
        "--property=Type=notify",
        "--property=TimeoutStartSec=20",
        "--property=SuccessExitStatus=6",
        "--property=SyslogIdentifier=nodeprep",
        "--description=Brings an interrupted run of nodeprep to its end",
    ];
    let mut argv: Vec<String> = ["systemd-run"].iter().chain(&options).map(ToString::to_string).collect();
    argv.push(format!("--unit={UNIT}"));
    argv.extend(["--", LAUNCHER, program, "recover", "--guard"].map(ToOwned::to_owned));
    argv.push(longest.as_secs().to_string());
    argv.extend(["--health-timeout".to_owned(), health.as_secs().to_string()]);
    argv
}

fn stop(root: &Root) {
    for verb in ["stop", "reset-failed"] {
        let argv = ["systemctl", "--quiet", verb, "--", UNIT].map(ToOwned::to_owned);
        match command::run(root, &argv, PATIENCE) {
            // that there is none any more is what is wanted
            Ok(output) => tracing::debug!(verb, status = output.status, said = said(&output), "the guardian"),
            Err(error) => tracing::warn!(%error, "the guardian was not dismissed"),
        }
    }
}

fn said(output: &Output) -> String {
    let text = if output.stderr.trim().is_empty() { &output.stdout } else { &output.stderr };
    text.trim().lines().next().unwrap_or_default().trim().to_owned()
}

/// Waits for the lock, and says so to systemd. Whoever holds it for `longest` and more has stopped working (a stopped process, a
/// frozen control group): it is killed.
///
/// # Errors
/// When there is no lock to wait for.
pub fn wait(root: &Root, state: &NodePath, longest: Duration) -> Result<Lock, NodeError> {
    let begun = Instant::now();
    let mut told = false;
    loop {
        match Lock::take(root, state) {
            Err(NodeError::Locked { path, pid }) => {
                if let Some(pid) = pid.filter(|_| begun.elapsed() > longest)
                    && holds(root, state, pid)
                {
                    tracing::warn!(pid, %path, "the run has not come to its end in time, and is killed");
                    let _ = i32::try_from(pid).map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
                }
            }
            other => return other,
        }
        if !told {
            ready();
            told = true;
        }
        std::thread::sleep(AGAIN);
    }
}

/// sd_notify(3).
fn ready() {
    let Some(socket) = std::env::var_os("NOTIFY_SOCKET") else { return };
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(&socket),
    };
    let sent = address.and_then(|address| UnixDatagram::unbound()?.send_to_addr(b"READY=1", &address));
    if let Err(error) = sent {
        tracing::warn!(%error, "systemd was not told that the guardian waits");
    }
}

/// Whether a process really holds the lock: the number in it may be of another namespace, or that of another process by now.
fn holds(root: &Root, state: &NodePath, pid: u32) -> bool {
    let lock = root.dir().join(state.join("lock").as_str().trim_start_matches('/'));
    let identity = |path: &Path| fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let Some(wanted) = identity(&lock) else { return false };
    let process = PathBuf::from(format!("/proc/{pid}"));
    let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten().filter(|fd| identity(&fd.path()) == Some(wanted));
    let locks = |fd: fs::DirEntry| fs::read_to_string(process.join("fdinfo").join(fd.file_name())).unwrap_or_default().contains("FLOCK");
    open.into_iter().any(locks)
}

/// Waits until systemd does nothing with these units any more, on behalf of a run that was killed meanwhile.
pub fn settle(root: &Root, units: &[&String], longest: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < longest && units.iter().any(|unit| has_job(root, unit)) {
        std::thread::sleep(AGAIN);
    }
}

fn has_job(root: &Root, unit: &str) -> bool {
    let argv = ["systemctl", "show", "--property=Job", "--", unit].map(ToOwned::to_owned);
    let told = command::run(root, &argv, PATIENCE).map(|output| output.stdout).unwrap_or_default();
    is_job(&told)
}

/// `Job=0`, or nothing at all, is none.
fn is_job(told: &str) -> bool {
    told.trim().strip_prefix("Job=").is_some_and(|number| !matches!(number, "" | "0"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, Command, Stdio};
    use std::thread::JoinHandle;

    use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

    use super::*;

    #[test]
    fn a_job_has_a_number() {
        assert_eq!(["Job=812\n", "Job=0\n", "Job=\n", "\n", ""].map(is_job), [true, false, false, false, false]);
    }

    #[test]
    fn only_who_holds_the_lock_is_known_as_its_holder() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let state = NodePath::fixed("/var/lib/nodeprep");
        let lock = Lock::take(&root, &state).unwrap();
        assert!(holds(&root, &state, std::process::id()));
        assert!(!holds(&root, &state, 1) && !holds(&root, &state, u32::MAX));
        drop(lock);
        let other = fs::File::open(dir.path().join("var/lib/nodeprep/lock")).unwrap();
        assert!(!holds(&root, &state, std::process::id()), "{other:?}");
    }

    #[test]
    fn waits_until_the_lock_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let state = NodePath::fixed("/var/lib/nodeprep");
        let lock = Lock::take(&root, &state).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| wait(&root, &state, Duration::MAX).map(drop));
            assert!(!waiting.is_finished());
            drop(lock);
            assert!(waiting.join().unwrap().is_ok());
        });
    }

    /// Not a test of its own: what the next one starts, in a process that holds the lock of a root and then hangs.
    #[test]
    fn holder() {
        let Some(dir) = std::env::var_os("NODEPREP_TEST_ROOT") else { return };
        let root = Root::open(Path::new(&dir)).unwrap();
        let _lock = Lock::take(&root, &NodePath::fixed("/var/lib/nodeprep")).unwrap();
        fs::write(Path::new(&dir).join("held"), "").unwrap();
        // until nobody waits for it any more
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
    }

    fn hangs(dir: &Path) -> Child {
        let mut holder = Command::new(std::env::current_exe().unwrap());
        holder.args(["--exact", "node::guardian::tests::holder"]).env("NODEPREP_TEST_ROOT", dir);
        let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        while !dir.join("held").exists() {
            assert!(holder.try_wait().unwrap().is_none());
            std::thread::yield_now();
        }
        holder
    }

    /// Waits in a thread; comes back when the lock is looked at for the second time: what was seen the first time has had its
    /// consequence by then.
    fn waits(dir: &Path, longest: Duration) -> JoinHandle<bool> {
        let (root, state) = (Root::open(dir).unwrap(), NodePath::fixed("/var/lib/nodeprep"));
        let looks = Inotify::init(InitFlags::IN_CLOEXEC).unwrap();
        looks.add_watch(&dir.join("var/lib/nodeprep/lock"), AddWatchFlags::IN_OPEN).unwrap();
        let waiting = std::thread::spawn(move || wait(&root, &state, longest).is_ok());
        let mut seen = 0;
        while seen < 2 {
            seen += looks.read_events().unwrap().len();
        }
        waiting
    }

    #[test]
    fn who_holds_the_lock_has_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = hangs(dir.path());
        let waiting = waits(dir.path(), Duration::MAX);
        assert!(holder.try_wait().unwrap().is_none());
        drop(holder.stdin.take());
        assert!(holder.wait().unwrap().success() && waiting.join().unwrap());
    }

    /// And is killed when it is over: it, and not who has its number by now.
    #[test]
    fn who_hangs_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut holder = hangs(dir.path());
        let mut bystander = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let lock = dir.path().join("var/lib/nodeprep/lock");
        fs::write(&lock, format!("{}\n", bystander.id())).unwrap();
        let waiting = waits(dir.path(), Duration::ZERO);
        assert!(holder.try_wait().unwrap().is_none() && bystander.try_wait().unwrap().is_none());
        fs::write(&lock, format!("{}\n", holder.id())).unwrap();
        // waiting for it would close its input, at which it ends by itself
        let ended = loop {
            match holder.try_wait().unwrap() {
                Some(ended) => break ended,
                None => std::thread::yield_now(),
            }
        };
        assert_eq!(ended.signal(), Some(9));
        assert!(waiting.join().unwrap());
        drop(bystander.stdin.take());
        assert!(bystander.wait().unwrap().success());
    }

    #[test]
    fn its_program_is_a_whole_one_for_its_owner() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let state = NodePath::fixed("/var/lib/nodeprep");
        let _lock = Lock::take(&root, &state).unwrap();
        let folder = root.folder(&state).unwrap().unwrap();
        let program = dir.path().join("program");
        for bytes in [b"first and longer".as_slice(), b"second"] {
            fs::write(&program, bytes).unwrap();
            files::copy_program(&program, &folder, PROGRAM).unwrap();
            let copy = dir.path().join("var/lib/nodeprep").join(PROGRAM);
            assert_eq!((fs::read(&copy).unwrap(), fs::metadata(&copy).unwrap().mode() & 0o7777), (bytes.to_vec(), 0o700));
        }
        clear(&root, &state).unwrap();
        clear(&root, &state).unwrap();
        assert_eq!(files::names(&folder).unwrap(), ["lock"]);
    }
}
