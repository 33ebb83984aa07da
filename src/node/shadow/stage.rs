//! The two processes in between: `outer` makes the namespaces, `inner` is process 1 in there.
//!
//! Two, because a process is never moved into a new process namespace itself: only what it starts is in there. Both are killed when
//! the one above dies; what happens before they have said so is caught by the pipe, which ends with the process that asked.

use std::io::{BufRead, Read, Write};
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;

use super::{Answer, Ask, OWN_PROGRAM, SUBCOMMAND, view};
use crate::node::command::SEARCH_PATH;

/// The first of the two.
pub const OUTER: &str = "outer";
/// The second.
pub const INNER: &str = "inner";

/// Runs one of them; never comes back.
pub fn run(inner: bool) -> ! {
    let ended = if inner { self::inner() } else { outer() };
    if let Err(why) = ended {
        say(&Answer::Cannot(why));
    }
    std::process::exit(0)
}

fn say(answer: &Answer) {
    let text = serde_json::to_string(answer).unwrap_or_default() + "\n";
    let mut stream = std::io::stdout().lock();
    // nobody listens any more: then nobody is interested either
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

fn outer() -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("prctl: {}", errno.desc()))?;
    let own = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    unshare(own)
        .map_err(|errno| format!("namespaces of its own cannot be made ({}): it takes CAP_SYS_ADMIN", errno.desc().to_lowercase()))?;
    // what is unmounted outside goes here, too: nothing stays busy for the shadow; nothing gets out
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>)
        .map_err(|errno| format!("mounts cannot be made its own: {}", errno.desc().to_lowercase()))?;
    let mut child =
        Command::new(OWN_PROGRAM).args([SUBCOMMAND, INNER]).env_clear().spawn().map_err(|error| format!("{OWN_PROGRAM}: {error}"))?;
    say(&Answer::Inner(child.id()));
    let _ = child.wait();
    Ok(())
}

fn inner() -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|errno| format!("prctl: {}", errno.desc()))?;
    say(&Answer::Ready);
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line).map_err(|error| format!("standard input: {error}"))?;
    if read == 0 {
        return Ok(());
    }
    std::thread::spawn(|| {
        let _ = std::io::stdin().lock().read_to_end(&mut Vec::new());
        std::process::exit(0)
    });
    let ask: Ask = serde_json::from_str(&line).map_err(|error| format!("standard input: {error}"))?;
    let reduced = view::prepare(&ask)?;
    let daemon = |config: &str| {
        let mut command = Command::new(&ask.program);
        command.args(["--config", config]).env_clear().env("PATH", SEARCH_PATH).env("LANG", "C");
        command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir("/");
        command
    };
    let cannot = |error: std::io::Error| format!("{} cannot be run: {error}", ask.program);
    let full = ask.full.as_deref().unwrap_or(&reduced);
    let dump = daemon(full).args(["config", "dump"]).stderr(Stdio::piped()).output().map_err(cannot)?;
    if !dump.status.success() {
        let mut said = String::from_utf8_lossy(&dump.stderr).into_owned();
        if said.trim().is_empty() {
            said = format!("`{} config dump` ended with {}", ask.program, dump.status);
        }
        say(&Answer::Refused(said));
        return Ok(());
    }
    let mut child = daemon(&reduced).spawn().map_err(cannot)?;
    say(&Answer::Started);
    let _ = child.wait();
    Ok(())
}
