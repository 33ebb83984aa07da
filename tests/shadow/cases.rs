//! The cases, one function each.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nodeprep::model::content::Content;
use nodeprep::model::version::Version;
use nodeprep::node::shadow::Tried;

use crate::node::{CONFIG, Live, METRICS, NODEPREP, PROGRAM, SNAPSHOTS, SOCKET, Seen};
use crate::node::{
    answers, answers_at, command, everything, live_config, mounts, nodeprep, processes, ran, run, said, to_try, tried, until,
};

/// A case: what it is called, and what it does.
type Case = (&'static str, fn(Version) -> Result<()>);

pub const ALL: &[Case] = &[
    ("beside-a-live-daemon", beside_a_live_daemon),
    ("each-alone", each_alone),
    ("what-comes-up", what_comes_up),
    ("what-does-not-come-up", what_does_not_come_up),
    ("a-refusal-changes-nothing", a_refusal_changes_nothing),
    ("a-way-back-that-never-worked", a_way_back_that_never_worked),
    ("the-node-at-host", the_node_at_host),
    ("killed-at-once", killed_at_once),
    ("without-privileges", without_privileges),
    ("a-daemon-that-hangs", a_daemon_that_hangs),
];

const LONG: Duration = Duration::from_secs(30);

/// A live daemon that has every address that there is, a folder of snapshots, and something in it.
struct Untouched {
    live: Live,
    files: BTreeMap<PathBuf, Seen>,
    mounts: String,
    processes: usize,
}

impl Untouched {
    const FOLDERS: [&str; 3] = ["/var/lib/containerd", "/run/containerd", SNAPSHOTS];

    fn start() -> Result<Self> {
        fs::write(CONFIG, live_config())?;
        let live = Live::start()?;
        ran(&mut command("/usr/local/bin/ctr", &["--address", SOCKET, "-n", "k8s.io", "snapshots", "prepare", "one"]))?;
        fs::write(format!("{SNAPSHOTS}/snapshots/1/fs/file"), "of a container")?;
        Ok(Self { live, files: everything(&Self::FOLDERS)?, mounts: mounts()?, processes: processes()?.len() })
    }

    /// Its sockets and ports answer and are the same ones, its bytes are unchanged, and nothing is left over.
    fn still_is(&mut self) -> Result<()> {
        ensure!(self.live.is_running() && answers(), "the live daemon's CRI plugin does not answer any more");
        for socket in [SOCKET.to_owned(), format!("{SOCKET}.ttrpc"), "/run/containerd/debug.sock".to_owned()] {
            ensure!(self.files.keys().any(|path| path.to_str() == Some(&socket)), "{socket} was never there");
            UnixStream::connect(&socket).context(socket)?;
        }
        TcpStream::connect(METRICS).context(METRICS)?;
        let now = everything(&Self::FOLDERS)?;
        let other: Vec<_> = self.files.iter().filter(|(path, seen)| now.get(*path) != Some(seen)).map(|(path, _)| path).collect();
        ensure!(
            other.is_empty() && now.len() == self.files.len(),
            "changed or gone: {other:?}, {} before, {} now",
            self.files.len(),
            now.len()
        );
        ensure!(mounts()? == self.mounts && processes()?.len() == self.processes, "something is left: {:?}", processes()?);
        Ok(())
    }
}

/// Nothing of the daemon that runs with the file is touched.
fn beside_a_live_daemon(_: Version) -> Result<()> {
    let mut untouched = Untouched::start()?;
    ran(&mut nodeprep(&["plan", "--exit-code"])?).err().context("plan did not see a change")?;
    ran(&mut nodeprep(&["apply", "--activate", "never"])?)?;
    ensure!(fs::read_to_string(CONFIG)?.contains("config_path"), "nothing was applied");
    untouched.still_is()?;
    // what was written is what was tried: the live daemon comes back with it
    drop(untouched);
    drop(Live::start()?);
    Ok(())
}

/// The reduced file and the namespaces each keep the live daemon as it is without the other.
fn each_alone(version: Version) -> Result<()> {
    let mut untouched = Untouched::start()?;
    let mut shadow = to_try(version, &[(CONFIG, &(live_config() + "# more\n"))])?;
    let reduced = shadow.reduced.clone()?;
    fs::create_dir("/run/nodeprep-shadow")?;
    fs::write("/run/nodeprep-shadow/config.toml", &reduced.bytes)?;
    let mut beside =
        command(PROGRAM, &["--config", "/run/nodeprep-shadow/config.toml"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    until("a daemon with the reduced file", || answers_at("/run/nodeprep-shadow/grpc.sock"))?;
    beside.kill()?;
    beside.wait()?;
    untouched.still_is()?;

    shadow.reduced = Ok(Content::public(live_config()));
    let outcome = run(&shadow, Duration::from_secs(2))?;
    ensure!(outcome != Tried::NoProgram, "{outcome:?}");
    untouched.still_is()
}

fn what_comes_up(version: Version) -> Result<()> {
    let cri = "[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = \"m.example/pause:3.9\"\n\
               [plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\
               [plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m.example\".auth]\nusername = \"robot\"\npassword = \"hunter2\"\n";
    let works = |files: &[(&str, &str)]| -> Result<()> {
        let outcome = tried(version, files, LONG)?;
        ensure!(outcome == Tried::Works, "{outcome:?} with {files:?}");
        Ok(())
    };
    works(&[(CONFIG, &(live_config() + cri))])?;
    works(&[
        (CONFIG, "version = 2\nimports = [\"more/*.toml\", \"/opt/x.toml\"]\n"),
        ("/etc/containerd/more/a.toml", "version = 2\n"),
        ("/opt/x.toml", cri),
    ])?;
    // files that are not there yet, in folders that are not there either; and one where the shadow has memory of its own
    works(&[("/etc/not/there/config.toml", "version = 2\n")])?;
    works(&[("/var/lib/x/config.toml", "version = 2\n"), ("/etc/containerd/certs.d/docker.io/hosts.toml", "")])?;
    ensure!(!fs::exists("/etc/not")? && !fs::exists("/var/lib/x")? && !fs::exists("/etc/containerd/certs.d")?, "it wrote to the node");
    if version.0 < 2 {
        works(&[(CONFIG, "[plugins.cri.registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n")])?;
    } else {
        let modern = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\
                      [plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"m.example/pause:3.9\"\n";
        works(&[(CONFIG, modern)])?;
    }
    Ok(())
}

/// All that is seen to go wrong at a start, also what `config dump` does not see.
fn what_does_not_come_up(version: Version) -> Result<()> {
    let fails = |files: &[(&str, &str)], words: &str| -> Result<()> {
        match tried(version, files, LONG)? {
            Tried::Fails(said) if said.join("; ").contains(words) => Ok(()),
            other => anyhow::bail!("{other:?} instead of {words:?} with {files:?}"),
        }
    };
    let (plugin, newest) = if version.0 < 2 { ("io.containerd.grpc.v1.cri", 2) } else { ("io.containerd.cri.v1.images", 3) };
    let both = format!(
        "version = {newest}\n[plugins.\"{plugin}\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n\
         [plugins.\"{plugin}\".registry.mirrors.\"docker.io\"]\nendpoint = [\"https://m.example\"]\n"
    );
    fs::write("/run/both.toml", &both)?;
    ran(&mut command(PROGRAM, &["--config", "/run/both.toml", "config", "dump"])).context("its words alone are no fault")?;
    let words = "`mirrors` cannot be set when `config_path` is provided";
    fails(&[(CONFIG, &both)], words)?;
    // the same in two files
    let (path, mirrors) = both.split_once("[plugins.\"io.containerd.").map(|(head, _)| (head, &both)).context("two halves")?;
    fails(&[(CONFIG, &format!("imports = [\"/etc/containerd/m.toml\"]\n{path}")), ("/etc/containerd/m.toml", mirrors)], words)?;

    let broken = "version = 2\npassword = \"hunter2\"\nx = [\n";
    let malformed = [(CONFIG, "version = 2\nimports = [\"/etc/containerd/m.toml\"]\n"), ("/etc/containerd/m.toml", broken)];
    fails(&malformed, if version.0 < 2 { "/etc/containerd/m.toml: " } else { "array is incomplete" })?;
    fails(&[(CONFIG, "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = 3\n")], "containerd: ")?;
    match (version, tried(version, &[(CONFIG, "version = 3\n")], LONG)?) {
        (Version(1, 7, _), Tried::Fails(said)) => {
            let said = said.join("; ");
            ensure!(said.contains("version `3` is not supported") && said.contains("unsupported config version"), "{said}");
        }
        // 1.6 takes it for version 2 (seen on 1.6.20), 2.x knows it
        (Version(1, 6, _) | Version(2, ..), Tried::Works) => {}
        (_, other) => anyhow::bail!("version 3: {other:?}"),
    }
    if version.0 >= 2 {
        fails(&[(CONFIG, "version = 9\n")], "expected containerd config version equal to or less than")?;
    }
    // its words quote what they are about
    let login = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"m.example\".auth]\nusername = \"robot\"\npassword = [\"hunter2\"]\n";
    match tried(version, &[(CONFIG, login)], LONG)? {
        Tried::Fails(said) => {
            let said = said.join("; ");
            ensure!(said.starts_with("containerd: ") && !said.contains("hunter2"), "{said}");
            ensure!(version.0 >= 2 || said.contains("********"), "{said}");
        }
        other => anyhow::bail!("{other:?}"),
    }
    // somebody is yet to install it
    fs::rename(PROGRAM, "/usr/local/bin/elsewhere")?;
    ensure!(tried(version, &[(CONFIG, &both)], LONG)? == Tried::NoProgram, "there is nothing to come up");
    fs::rename("/usr/local/bin/elsewhere", PROGRAM)?;
    // what the program reads and the reduction does not understand
    let cri = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.elsewhere]\nx = 1\n";
    match tried(version, &[(CONFIG, cri)], LONG)? {
        Tried::CouldNotTry(why) => ensure!(why == "registry.elsewhere of the CRI plugin is not known to nodeprep", "{why}"),
        other => anyhow::bail!("{other:?}"),
    }
    Ok(())
}

/// A file that the daemon cannot read any more, which nobody knows as long as it runs.
fn a_refusal_changes_nothing(_: Version) -> Result<()> {
    fs::write(CONFIG, live_config())?;
    let _live = Live::start()?;
    let broken = live_config() + "[plugins.\"io.containerd.grpc.v1.cri\"]\nmax_container_log_line_size = \"hunter2\"\n";
    fs::write(CONFIG, broken)?;
    let before = everything(&["/etc/containerd"])?;
    for args in [&["apply"][..], &["plan"], &["apply", "--activate", "never", "--output", "json"]] {
        let output = nodeprep(args)?.output()?;
        let text = said(&output);
        ensure!(output.status.code() == Some(4), "{args:?}: {}\n{text}", output.status);
        ensure!(
            text.contains("/usr/local/bin/containerd would not come up with /etc/containerd/config.toml as it is to be: containerd: "),
            "{text}"
        );
    }
    ensure!(everything(&["/etc/containerd"])? == before && answers(), "something was changed");
    let output = nodeprep(&["apply", "--activate", "never", "--no-preflight"])?.output()?;
    ensure!(output.status.success() && said(&output).contains("it was not tried whether"), "{}", said(&output));
    ensure!(everything(&["/etc/containerd"])? != before, "nothing was changed although it was asked for");
    Ok(())
}

/// `revert` leads to bytes with which the CRI plugin does not load: not without being told so.
fn a_way_back_that_never_worked(_: Version) -> Result<()> {
    let registry = "[plugins.\"io.containerd.grpc.v1.cri\".registry";
    let before = format!(
        "version = 2\n{registry}]\nconfig_path = \"/etc/containerd/certs.d\"\n{registry}.mirrors.\"quay.io\"]\nendpoint = [\"https://q.example\"]\n"
    );
    fs::write(CONFIG, &before)?;
    ran(&mut nodeprep(&["apply"])?)?;
    let applied = everything(&["/etc/containerd"])?;
    ensure!(fs::read_to_string(CONFIG)? != before, "nothing was applied");
    let revert = |args: &[&str]| command(NODEPREP, &[&["revert"], args].concat()).output();
    let output = revert(&[])?;
    let text = said(&output);
    ensure!(output.status.code() == Some(4) && text.contains("`mirrors` cannot be set when `config_path` is provided"), "{text}");
    ensure!(everything(&["/etc/containerd"])? == applied, "something was changed");
    let output = revert(&["--no-preflight"])?;
    ensure!(output.status.success() && fs::read_to_string(CONFIG)? == before, "{}", said(&output));
    Ok(())
}

/// In a container, with the node's root at `/host`: its containerd, its libraries and its files are meant, not those beside nodeprep.
fn the_node_at_host(_: Version) -> Result<()> {
    let pod = Path::new("/run/pod");
    fs::create_dir(pod)?;
    ran(command("mount", &["-t", "tmpfs", "none"]).arg(pod))?;
    let own = Path::new(NODEPREP).parent().and_then(|folder| folder.strip_prefix("/").ok()).context("the folder of nodeprep")?;
    for name in ["usr", "bin", "sbin", "lib", "lib32", "lib64", "proc", "dev"].map(Path::new).into_iter().chain([own]) {
        let (from, to) = (Path::new("/").join(name), pod.join(name));
        if let Ok(target) = fs::read_link(&from) {
            std::os::unix::fs::symlink(target, to)?;
        } else if from.exists() {
            fs::create_dir_all(&to)?;
            ran(command("mount", &["--rbind", "--make-rslave"]).args([&from, &to]))?;
        }
    }
    ran(command("mount", &["-t", "tmpfs", "none"]).arg(pod.join("usr/local/bin")))?;
    for name in ["run", "tmp", "host"] {
        fs::create_dir(pod.join(name))?;
    }
    ran(command("mount", &["--rbind", "--make-rslave", "/"]).arg(pod.join("host")))?;
    let at_host = |config: &str| -> Result<(Option<i32>, String)> {
        fs::write(CONFIG, config)?;
        let asked = nodeprep(&["apply", "--root", "/host"])?;
        fs::copy("/run/spec.toml", pod.join("run/spec.toml"))?;
        let output = command("chroot", &["/run/pod", NODEPREP]).args(asked.get_args()).output()?;
        Ok((output.status.code(), said(&output)))
    };
    let (code, text) = at_host("version = 2\n[plugins.\"io.containerd.grpc.v1.cri\"]\nsandbox_image = 3\n")?;
    ensure!(code == Some(4) && text.contains("/usr/local/bin/containerd would not come up with"), "{code:?} {text}");
    let (code, text) = at_host("version = 2\n")?;
    ensure!(code == Some(0) && fs::read_to_string(CONFIG)?.contains("config_path"), "{code:?} {text}");
    Ok(())
}

/// A program in the place of containerd that answers what the real one answers, except that as a daemon it waits for ever where its
/// configuration has this word.
fn hangs_with(word: &str) -> Result<()> {
    let real = "/usr/local/bin/containerd.real";
    if !fs::exists(real)? {
        fs::rename(PROGRAM, real)?;
    }
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *--version|*dump) exec {real} \"$@\";; esac\ngrep -q '{word}' \"$2\" && exec sleep 86413\nexec {real} \"$@\"\n"
    );
    fs::write(PROGRAM, script)?;
    fs::set_permissions(PROGRAM, fs::Permissions::from_mode(0o755))?;
    Ok(())
}

/// SIGKILL of nodeprep in the middle: no process, no mount, no changed file.
fn killed_at_once(_: Version) -> Result<()> {
    hangs_with("config_path")?;
    fs::write(CONFIG, "version = 2\n")?;
    let before = (everything(&["/etc/containerd", "/run", "/var/lib"])?, mounts()?, processes()?);
    let mut asking = nodeprep(&["apply"])?.stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let alive = |word: &str| processes().map_or(0, |all| all.values().filter(|words| words.contains(word)).count());
    // both of ours and the daemon itself: what is started has our own words until it has become what it will be
    until("a shadow", || alive("shadow-stage") == 2 && alive("86413") == 1)?;
    asking.kill()?;
    asking.wait()?;
    let those = |all: BTreeMap<u32, String>| all.into_values().collect::<Vec<_>>();
    let were = those(before.2);
    // all of it, by whatever name
    until("the end of the shadow", || processes().is_ok_and(|all| those(all) == were))?;
    ensure!(mounts()? == before.1, "{}", mounts()?);
    let left = everything(&["/etc/containerd", "/run", "/var/lib"])?;
    let is_state = |path: &Path| path.starts_with("/var/lib/nodeprep") || path == Path::new("/run/spec.toml");
    let new: Vec<_> = left.keys().filter(|path| !before.0.contains_key(*path) && !is_state(path)).collect();
    ensure!(new.is_empty(), "{new:?}");
    Ok(())
}

/// Root in a container, say: nothing is tried, nothing is changed, and the way out is said.
fn without_privileges(_: Version) -> Result<()> {
    fs::write(CONFIG, "version = 2\n")?;
    let before = everything(&["/etc/containerd"])?;
    let without = |args: &[&str]| -> Result<std::process::Output> {
        let whole = nodeprep(args)?;
        let words: Vec<&str> = whole.get_args().filter_map(|word| word.to_str()).collect();
        let program = whole.get_program().to_str().context("the program")?;
        let own = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", "--", program];
        Ok(command("setpriv", &[&own[..], &words].concat()).output()?)
    };
    let output = without(&["apply"])?;
    let text = said(&output);
    ensure!(output.status.code() == Some(4) && text.contains("it takes CAP_SYS_ADMIN") && text.contains("--no-preflight"), "{text}");
    ensure!(everything(&["/etc/containerd"])? == before, "something was changed");
    let output = without(&["apply", "--no-preflight"])?;
    ensure!(output.status.success(), "{}", said(&output));
    Ok(())
}

fn a_daemon_that_hangs(version: Version) -> Result<()> {
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/x\"\n";
    hangs_with("config_path")?;
    match tried(version, &[(CONFIG, config)], Duration::from_secs(3))? {
        Tried::Fails(said) => ensure!(said == ["it does not come up within 3 s"], "{said:?}"),
        other => anyhow::bail!("{other:?}"),
    }
    // whatever it is given
    hangs_with("version")?;
    match tried(version, &[(CONFIG, config)], Duration::from_secs(1))? {
        Tried::CouldNotTry(why) => ensure!(why.ends_with("does not come up within 1 s with no configuration at all"), "{why}"),
        other => anyhow::bail!("{other:?}"),
    }
    ensure!(processes()?.values().all(|words| !words.contains("86413") && !words.contains("shadow-stage")), "{:?}", processes()?);
    Ok(())
}
