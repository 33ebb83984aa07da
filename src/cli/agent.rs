//! `nodeprep agent`: the loop around `agent::machine`, and which command lines its passes have.

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgMatches, Args, Command, CommandFactory, ValueEnum};
use serde::{Deserialize, Serialize};

use super::session::{Session, Stopped};
use super::verify::image;
use super::{Cli, Ended, Output, PassArgs, RootArgs};
use crate::agent::machine::{Action, Event, Machine, step};
use crate::agent::settings::{DriftPolicy, HOUR, MINUTE, SECOND, Settings, Window};
use crate::agent::state::{Mode, STATE_FILE as AGENT_FILE};
use crate::model::image::ImageRef;
use crate::model::problem::Problem;
use crate::node::agent::{Door, Setup, arguments, handed, machine, pid, seed, start_anew};
use crate::node::health;
use crate::node::terminal::{self, Styles};
use crate::plan::turn::Mode as Activate;
use crate::report::exit::Outcome;
use crate::report::style::Style;

/// Arguments of `agent`.
#[derive(Debug, Args)]
pub(super) struct Agent {
    #[command(flatten)]
    pass: PassArgs,
    /// Let each running runtime pull this image before each change and after it, as `apply --canary` does.
    #[arg(long, env = "NODEPREP_CANARY", value_name = "IMAGE", value_parser = image)]
    canary: Option<ImageRef>,
    /// What becomes of files that others have changed.
    #[arg(long, value_enum, default_value_t = Drift::Repair, env = "NODEPREP_DRIFT", value_name = "WHAT")]
    drift: Drift,
    /// How long nothing must have changed on the node before it is looked at for drift.
    #[arg(long, env = "NODEPREP_QUIET", default_value = "5s", value_name = "TIME", value_parser = time)]
    quiet: i64,
    /// How long the spec must have been at rest before it is read.
    #[arg(long, env = "NODEPREP_DEBOUNCE", default_value = "200ms", value_name = "TIME", value_parser = time)]
    debounce: i64,
    /// How often a spec from a URL is asked for; a tenth more or less, and each node at another time.
    #[arg(long, env = "NODEPREP_POLL", default_value = "5m", value_name = "TIME", value_parser = interval)]
    poll: i64,
    /// How often everything is read again.
    #[arg(long, env = "NODEPREP_REREAD", default_value = "10m", value_name = "TIME", value_parser = interval)]
    reread: i64,
    /// How often the endpoints are tried, and the canaries of the spec asked for, as `verify` does it; each node at other times, spread
    /// over the whole of it. What comes of it is told by `status` and the metrics, and decides nothing. 0: never.
    #[arg(long, env = "NODEPREP_PROBE_INTERVAL", default_value = "15m", value_name = "TIME", value_parser = gentle)]
    probe_interval: i64,
    /// Write the metrics to nodeprep.prom in this folder after each pass and each probe, for node_exporter's textfile collector.
    #[arg(long, env = "NODEPREP_TEXTFILE_DIR", value_name = "DIR")]
    textfile_dir: Option<PathBuf>,
    /// Over how much time the restarts of a fleet are spread, from the moment when a node needs one; each node has its place in it,
    /// by its machine id and the spec. `apply` restarts at once.
    #[arg(long, env = "NODEPREP_RESTART_SPLAY", default_value = "30m", value_name = "TIME", value_parser = time)]
    restart_splay: i64,
    /// When restarts may begin, in UTC: `22:00-04:00`, `Sat,Sun 00:00-24:00`, `Mon-Fri 01:00-05:00` [default: always].
    #[arg(long, env = "NODEPREP_RESTART_WINDOW", value_name = "WINDOW", value_parser = Window::parse)]
    restart_window: Option<Window>,
    /// Restart only while this file stands on the node, or when this command ends with 0. A command is what can be executed, or has
    /// arguments; it is called with `ask` and the units, every half a minute as long as it says no, and with `done` and the units
    /// after the restart.
    #[arg(long, env = "NODEPREP_RESTART_GATE", value_name = "FILE|COMMAND")]
    restart_gate: Option<String>,
    /// How long that command may take; what takes longer is ended, and counts as a no.
    #[arg(long, env = "NODEPREP_RESTART_GATE_TIMEOUT", default_value = "60s", value_name = "TIME", value_parser = interval)]
    restart_gate_timeout: i64,
    /// As many passes with restarts as there may be within an hour.
    #[arg(long, env = "NODEPREP_RESTART_BUDGET", default_value = "2", value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=60))]
    restart_budget: u32,
    /// Where `/healthz`, `/readyz` and `/metrics` are served: a unix socket, for root and its group; empty: nowhere [default:
    /// /run/nodeprep/health.sock of the node].
    #[arg(long, env = "NODEPREP_HEALTH_SOCKET", value_name = "PATH")]
    health_socket: Option<PathBuf>,
    /// The same at an address, for whoever can reach it.
    #[arg(long, env = "NODEPREP_HEALTH_ADDRESS", value_name = "ADDRESS:PORT")]
    health_address: Option<std::net::SocketAddr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Drift {
    /// They are left and reported.
    Report,
    /// They are put right where nothing has to be restarted for it.
    Repair,
    /// They are put right; restarts wait for their time as those for a new spec do.
    RepairWithRestart,
}

impl Agent {
    /// Runs until it is told to end.
    pub(super) fn run(self, verbose: u8, styles: Styles) -> Ended {
        let keeps = self.keeps(verbose, styles.errors.colour).and_then(|keeps| {
            if let Ok(handed) = serde_json::to_string(&keeps) {
                start_anew(&handed);
            }
            keeps.keep()
        });
        ended(keeps, styles.results)
    }

    fn keeps(self, verbose: u8, colour: bool) -> Result<Keeps, Stopped> {
        let source = self.pass.spec.spec.display().to_string();
        let is_url = source.contains("://");
        if source == "-" {
            let problem =
                Problem::error("no-source", "an agent cannot read its spec from standard input", "give a file, a folder or a URL");
            return Err(Stopped { problems: vec![problem], outcome: Outcome::Usage });
        }
        let root = Session::root(&self.pass.root)?;
        let socket = self.health_socket.unwrap_or_else(|| self.pass.root.root.join(health::SOCKET.trim_start_matches('/')));
        let health = health::Settings {
            root: self.pass.root.root.clone(),
            socket: (!socket.as_os_str().is_empty()).then_some(socket),
            address: self.health_address,
            program: crate::node::shadow::OWN_PROGRAM.into(),
        };
        let activates = self.pass.activate.mode(root.is_live() || root.is_unseen());
        let settings = Settings {
            source: if is_url { without_login(&source) } else { source },
            poll: is_url.then_some(self.poll),
            debounce: self.debounce,
            quiet: self.quiet,
            reread: self.reread,
            probe: (self.probe_interval > 0).then_some(self.probe_interval),
            drift: match self.drift {
                Drift::Report => DriftPolicy::Report,
                Drift::Repair => DriftPolicy::Repair,
                Drift::RepairWithRestart => DriftPolicy::RepairWithRestart,
            },
            restarts: activates == Activate::Auto,
            splay: self.restart_splay,
            window: self.restart_window,
            budget: self.restart_budget,
            gate: self.restart_gate.is_some(),
            machine: machine(&root),
            seed: seed(),
        };
        let setup = Setup {
            spec: (!is_url).then_some(self.pass.spec.spec),
            material: self.pass.spec.material,
            gate: self.restart_gate,
            gate_timeout: Duration::from_millis(self.restart_gate_timeout.unsigned_abs()),
            arguments: passes(activates),
            probe: probe_line(&self.pass.root.root),
            metrics: self.textfile_dir,
        };
        Ok(Keeps { root: self.pass.root.root, settings, setup, health, verbose, colour })
    }
}

fn ended(keeps: Result<(), Stopped>, style: Style) -> Ended {
    match keeps {
        Ok(()) => Ended { shown: String::new(), outcome: Outcome::Converged },
        Err(stopped) => stopped.ended(Output::Text, style),
    }
}

/// Goes on where this process has handed itself an agent's loop; `None` where it has not.
pub(super) fn again() -> Option<Ended> {
    let keeps: Keeps = serde_json::from_str(&handed()?).ok()?;
    let style = |colour| Style { colour };
    terminal::log(keeps.verbose, style(keeps.colour));
    Some(ended(keeps.keep(), style(false)))
}

/// All that the loop needs to know.
#[derive(Debug, Serialize, Deserialize)]
struct Keeps {
    root: PathBuf,
    settings: Settings,
    setup: Setup,
    health: health::Settings,
    verbose: u8,
    colour: bool,
}

impl Keeps {
    /// The loop.
    fn keep(self) -> Result<(), Stopped> {
        let Self { root, settings, setup, health, .. } = self;
        let mut door = Door::open(Session::root(&RootArgs { root })?, setup)?;
        // a node is kept true to its spec also where nobody can ask about it; signals are the door's by now
        let _server = health::start(health).inspect_err(|error| tracing::warn!(%error, "health and metrics are not served")).ok();
        let mut machine = Machine::new(settings, door.now(), pid(), door.before());
        let mut events = VecDeque::from([Event::Started]);
        let mut wake = None;
        loop {
            let Some(event) = events.pop_front() else {
                door.keep(machine.view());
                events.extend(door.wait(wake));
                continue;
            };
            let (next, actions) = step(machine, door.now(), event);
            machine = next;
            wake = None;
            for action in actions {
                let ends = action == Action::Exit;
                match action {
                    Action::WakeAt(at) => wake = Some(at),
                    action => events.extend(door.perform(action)),
                }
                if ends {
                    door.keep(machine.view());
                    return Ok(());
                }
            }
        }
    }
}

/// The command lines of passes: what was given to the agent and is a flag of theirs, too. What comes from variables they read
/// themselves.
fn passes(activates: Activate) -> BTreeMap<Mode, Vec<OsString>> {
    let (reloads, restarts) = match activates {
        Activate::Auto => ("reload-only", "auto"),
        Activate::ReloadOnly => ("reload-only", "reload-only"),
        Activate::Never => ("never", "never"),
    };
    [
        (Mode::Look, line("plan", &["--exit-code", "--output=json", "--activate", restarts])),
        (Mode::Apply, line("apply", &["--output=json", "--activate", reloads])),
        (Mode::Restart, line("apply", &["--output=json", "--activate", restarts])),
    ]
    .into()
}

/// The command line of what tries the endpoints: by the spec that was applied last, so that nobody is asked for it once more. What it
/// finds is left where the metrics are made from.
fn probe_line(root: &Path) -> Vec<OsString> {
    let mut line = line("verify", &["--output=json", "--applied", "--only-endpoints", "--textfile-dir"]);
    let folder = Path::new(AGENT_FILE.trim_start_matches('/')).parent().unwrap_or(Path::new(""));
    line.push(root.join(folder).into_os_string());
    line
}

/// The command line of a subcommand: what it shares with the one that was given, and what is its own.
fn line(name: &str, own: &[&str]) -> Vec<OsString> {
    let mut command = Cli::command();
    // flags of all subcommands are known to each of them after this
    command.build();
    let given = command.clone().try_get_matches_from(arguments()).ok();
    let given = given.as_ref().and_then(|given| given.subcommand_matches("agent"));
    let mut line = vec![OsString::from(name)];
    if let (Some(given), Some(of)) = (given, command.find_subcommand(name)) {
        line.extend(shared(given, of));
        // nobody means this very pass, and it goes by the last good spec where there is no other
        let standing = of.get_arguments().filter(|flag| ["unattended", "last_known_good"].contains(&flag.get_id().as_str()));
        line.extend(standing.filter_map(|flag| Some(OsString::from(format!("--{}", flag.get_long()?)))));
    }
    line.extend(own.iter().map(OsString::from));
    line
}

/// Flags that mean something else of another subcommand, or are given to each of them.
const NOT_SHARED: [&str; 5] = ["activate", "output", "color", "verbose", "textfile_dir"];

fn shared(given: &ArgMatches, of: &Command) -> Vec<OsString> {
    let mut line = Vec::new();
    for flag in of.get_arguments() {
        let name = flag.get_id().as_str();
        let is_given = given.try_contains_id(name).unwrap_or(false) && given.value_source(name) == Some(ValueSource::CommandLine);
        let Some(long) = flag.get_long().filter(|_| is_given && !NOT_SHARED.contains(&name)) else {
            continue;
        };
        let long = OsString::from(format!("--{long}"));
        if flag.get_action().takes_values() {
            for value in given.get_raw(name).into_iter().flatten() {
                line.extend([long.clone(), value.to_owned()]);
            }
        } else {
            line.push(long);
        }
    }
    line
}

/// A URL without what may be secret in it: a login, a query.
fn without_login(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    let Some((scheme, rest)) = plain.split_once("://") else { return String::new() };
    let (host, path) = rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")));
    format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or_default())
}

/// `90s`, `30m`, `1h`, `200ms`, `0`: in milliseconds.
fn time(text: &str) -> Result<i64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let unit = match unit {
        "ms" => 1,
        "s" => SECOND,
        "m" => MINUTE,
        "h" => HOUR,
        "" if number == "0" => 1,
        _ => return Err("a time is a number with its unit: 200ms, 90s, 30m, 1h".to_owned()),
    };
    let number: i64 = number.parse().map_err(|_| "a time is a number with its unit: 200ms, 90s, 30m, 1h".to_owned())?;
    number.checked_mul(unit).filter(|time| *time <= 7 * 24 * HOUR).ok_or_else(|| "a time is at most a week (168h)".to_owned())
}

/// A time of a second or more.
fn interval(text: &str) -> Result<i64, String> {
    time(text).and_then(|time| if time >= SECOND { Ok(time) } else { Err("it is at least 1s".to_owned()) })
}

/// A time of a minute or more, or 0: registries are asked, and by a whole fleet.
fn gentle(text: &str) -> Result<i64, String> {
    let gentle = |time: &i64| *time == 0 || *time >= MINUTE;
    time(text).and_then(|time| if gentle(&time) { Ok(time) } else { Err("it is 0, which is never, or at least 1m".to_owned()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, want) in [("0", 0), ("200ms", 200), ("90s", 90_000), ("30m", 1_800_000), ("168h", 604_800_000)] {
            assert_eq!(time(text), Ok(want), "{text}");
        }
        for text in ["", "5", "m", "-1s", "1.5h", "1d", "169h", "99999999999999999999s", "٣s"] {
            assert!(time(text).is_err(), "{text}");
        }
        assert!(interval("999ms").is_err() && interval("1s") == Ok(1000));
        assert!(gentle("59s").is_err() && gentle("1m") == Ok(MINUTE) && gentle("0") == Ok(0));
    }

    #[test]
    fn a_url_is_shown_without_its_login() {
        for (url, shown) in [
            ("https://specs.example.com:8443/fleet.toml", "https://specs.example.com:8443/fleet.toml"),
            ("https://me:secret@specs.example.com/a@b/c?token=secret#secret", "https://specs.example.com/a@b/c"),
            ("https://me@x?secret", "https://x"),
        ] {
            assert_eq!(without_login(url), shown);
        }
    }

    #[test]
    fn a_pass_has_the_flags_that_it_shares_with_the_agent() {
        let line = "nodeprep -v agent --spec s --root /n --foreign=carry --allow-shrink --runtime containerd,podman --runtime crio \
                    --canary a/b:1 --restart-splay 0 --activate auto --health-timeout 7 --no-preflight";
        let mut command = Cli::command();
        command.build();
        let given = command.clone().try_get_matches_from(line.split_whitespace()).unwrap();
        let given = given.subcommand_matches("agent").unwrap();
        let shared = |name: &str| {
            let line = shared(given, command.find_subcommand(name).unwrap());
            line.iter().map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
        };
        let both = "--spec s --root /n --foreign carry --allow-shrink --runtime containerd --runtime podman --runtime crio \
                    --health-timeout 7 --no-preflight";
        assert_eq!(shared("plan"), both);
        assert_eq!(shared("apply"), format!("{both} --canary a/b:1"));
        assert!(Cli::command().try_get_matches_from(format!("nodeprep apply {}", shared("apply")).split_whitespace()).is_ok());
    }
}
