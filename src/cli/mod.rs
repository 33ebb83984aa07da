//! The command line: one file per subcommand, wiring only. Results go to standard output, everything else to standard error.

mod activate;
mod agent;
mod apply;
mod canary;
mod check;
mod explain;
mod pause;
mod pause_image;
mod plan;
mod preflight;
mod recover;
mod remembered;
mod render;
mod revert;
mod runtimes;
mod session;
mod source;
mod status;
mod trail;
mod tried;
mod verify;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use self::session::Stopped;
use crate::report::Report;
use crate::report::exit::Outcome;
use crate::report::style::Style;

/// Makes every node of a fleet pull its container images from the registries its owners trust, and nowhere else.
#[derive(Debug, Parser)]
#[command(name = "nodeprep", version, about, max_term_width = 120, after_help = exit_codes())]
pub struct Cli {
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto, env = "NODEPREP_COLOR", value_name = "WHEN")]
    color: Colour,
    /// Tell more on standard error; twice for every step.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show every problem of the spec; needs no node.
    Check(check::Check),
    /// Show what would change on the node, why, and what it disrupts; changes nothing.
    Plan(plan::PlanArgs),
    /// Make the node true to the spec.
    Apply(apply::Apply),
    /// Keep the node true to the spec: apply when the spec changes, put right what others change.
    Agent(agent::Agent),
    /// Show what each runtime asks for an image, in order.
    Explain(explain::Explain),
    /// Check what is on the node, and that its endpoints answer as each daemon asks them.
    Verify(verify::VerifyArgs),
    /// Write the files alone into a folder, as a bare node would get them: for image builds and review.
    Render(render::Render),
    /// Show how the node stands: what is managed, due, paused, changed by others, and when certificates run out; needs no spec.
    Status(status::StatusArgs),
    /// Give back what was there before nodeprep.
    Revert(revert::Revert),
    /// Leave the node, or some of its paths, alone for a while, whatever the spec says.
    Pause(pause::PauseArgs),
    /// End every pause.
    Resume(pause::ResumeArgs),
    /// Bring a run to its end that was cut off between a restart and its proof; needs no spec. After a kill the guardian does it,
    /// after a power cut `nodeprep-recover.service`.
    Recover(recover::Recover),
    /// Print the JSON Schema of the spec, for editors.
    Schema,
    /// One of the two processes between a run and the shadow of containerd that it tries (`node/shadow`).
    #[command(name = crate::node::shadow::SUBCOMMAND, hide = true)]
    ShadowStage {
        #[arg(value_parser = [crate::node::shadow::stage::OUTER, crate::node::shadow::stage::INNER])]
        stage: String,
    },
    /// What runs a tool of the node from a container (`node/enter`).
    #[command(name = crate::node::enter::SUBCOMMAND, hide = true)]
    InRoot {
        /// Change into this root; without it, the namespaces of process 1 are entered.
        #[arg(long)]
        root: Option<PathBuf>,
        /// What the tool starts lives on when the container goes.
        #[arg(long)]
        outlive: bool,
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        argv: Vec<String>,
    },
}

/// What one pass over a node needs to be told: `plan`, `apply`, and those of the agent.
#[derive(Debug, Args)]
struct PassArgs {
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    root: RootArgs,
    #[command(flatten)]
    choices: PlanChoices,
    #[command(flatten)]
    activate: activate::ActivateArgs,
    #[command(flatten)]
    probe: ProbeArgs,
}

/// The spec.
#[derive(Debug, Args)]
struct SpecArgs {
    /// The spec: a file, a folder of documents, `-` for standard input, or an https:// URL; TOML or YAML.
    #[arg(long, env = "NODEPREP_SPEC", hide_env_values = true, default_value = "/etc/nodeprep", value_name = "SPEC")]
    spec: PathBuf,
    /// Where files that the spec references are looked for [default: beside the spec].
    #[arg(long, env = "NODEPREP_MATERIAL", value_name = "DIR")]
    material: Option<PathBuf>,
    #[command(flatten)]
    source: source::SourceArgs,
}

/// The node.
#[derive(Debug, Args)]
struct RootArgs {
    /// The node's root folder.
    #[arg(long, env = "NODEPREP_ROOT", default_value = "/", value_name = "DIR")]
    root: PathBuf,
}

/// How results are shown.
#[derive(Debug, Args)]
struct OutputArgs {
    /// Text for people, or JSON.
    #[arg(long, value_enum, default_value_t = Output::Text, env = "NODEPREP_OUTPUT", value_name = "FORM")]
    output: Output,
}

/// What the planner may do.
#[derive(Debug, Args)]
struct PlanChoices {
    /// What to do with somebody else's configuration where ours belongs.
    #[arg(long, value_enum, default_value_t = ForeignChoice::Refuse, env = "NODEPREP_FOREIGN", value_name = "WHAT")]
    foreign: ForeignChoice,
    /// Accept that the spec says much less than the one applied last: no mirrors any more, more than half of the sources gone,
    /// or what was closed opened.
    #[arg(long, env = "NODEPREP_ALLOW_SHRINK")]
    allow_shrink: bool,
    /// Take the node over from a spec of another name.
    #[arg(long, env = "NODEPREP_TAKE_OVER")]
    take_over: bool,
    /// Restart again what was not well with this spec and this version of the runtime before, and was put back. It is not tried
    /// again by itself: what may pass (a time-out, a canary) for a day, the rest until the spec or the version is another one.
    #[arg(long)]
    retry: bool,
    /// Configure this runtime even where only its configuration folder is there (may be repeated).
    #[arg(long = "runtime", env = "NODEPREP_RUNTIME", value_delimiter = ',', value_name = "NAME", value_parser = runtime)]
    runtimes: Vec<crate::runtime::Runtime>,
}

/// What is tried before the first byte.
#[derive(Debug, Args)]
struct ProbeArgs {
    /// Whether the endpoints of what changes are tried first: a closed source none of whose endpoints answers is kept back as it
    /// is on the node while the rest goes on (exit code 8), or is a warning, or nothing is tried. The same holds for asking
    /// registries which login they want, where `require` refuses [default: require where the runtime runs, warn where it is
    /// stopped, off in the root of an image; of logins: warn].
    #[arg(long, value_enum, env = "NODEPREP_PROBE", value_name = "WHAT")]
    probe: Option<Probe>,
    #[command(flatten)]
    preflight: PreflightArgs,
}

/// What is tried on a throw-away copy of the runtime.
#[derive(Debug, Args)]
struct PreflightArgs {
    /// Do not try first, on a throw-away copy of it, whether containerd comes up with a config.toml that is to change. It is tried
    /// on the running system only, never by touching the daemon that runs there; where it does not come up, or cannot be tried, that
    /// file and all that belongs to it stay as they are (exit code 4).
    #[arg(long, env = "NODEPREP_NO_PREFLIGHT")]
    no_preflight: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Probe {
    Require,
    Warn,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ForeignChoice {
    /// Leave the target untouched and say what would be lost.
    Refuse,
    /// Replace them; revert brings them back.
    Replace,
    /// Take over what the spec leaves open, replace the rest, and refuse where something cannot be taken over.
    Carry,
}

fn runtime(name: &str) -> Result<crate::runtime::Runtime, String> {
    let known = || crate::runtime::Runtime::ALL.map(crate::runtime::Runtime::name).join(", ");
    crate::runtime::Runtime::from_name(name).ok_or_else(|| format!("the runtimes are {}", known()))
}

fn exit_codes() -> String {
    let rows = Outcome::ALL.iter().map(|outcome| format!("  {:>2}  {}", outcome.code(), outcome.meaning()));
    format!("Exit codes:\n{}", rows.collect::<Vec<_>>().join("\n"))
}

/// What a subcommand gives back: what goes to standard output, and how it ended.
struct Ended {
    shown: String,
    outcome: Outcome,
}

/// Goes on with what this process has begun before it was started anew: the loop of an agent. `None` otherwise.
#[must_use]
pub fn again() -> Option<Outcome> {
    let ended = agent::again()?;
    // nobody reads what an agent says on standard output
    let _ = crate::node::terminal::print(&ended.shown);
    Some(ended.outcome)
}

/// Runs the command line; the exit code is [`Outcome::code`].
///
/// # Errors
/// What no subcommand expected.
pub fn run(cli: Cli) -> anyhow::Result<Outcome> {
    let style = crate::node::terminal::style(match cli.color {
        Colour::Auto => None,
        Colour::Always => Some(true),
        Colour::Never => Some(false),
    });
    // what an agent does is told without being asked
    let verbose = cli.verbose.saturating_add(u8::from(matches!(cli.command, Command::Agent(_))));
    crate::node::terminal::log(verbose, style.errors);
    let ended = match cli.command {
        Command::Check(check) => check.run(style.results),
        Command::Plan(plan) => plan.run(style.results),
        Command::Apply(apply) => apply.run(style.results),
        Command::Agent(agent) => agent.run(verbose, style),
        Command::Explain(explain) => explain.run(style.results),
        Command::Verify(verify) => verify.run(style.results),
        Command::Render(render) => render.run(style.results),
        Command::Revert(revert) => revert.run(style.results),
        Command::Status(status) => status.run(style.results),
        Command::Pause(pause) => pause.run(style.results),
        Command::Resume(resume) => resume.run(style.results),
        Command::Recover(recover) => recover.run(style.results),
        Command::Schema => Ended { shown: crate::spec::schema::schema(), outcome: Outcome::Converged },
        Command::InRoot { root, outlive, argv } => crate::node::enter::run(root.as_deref(), outlive, &argv),
        Command::ShadowStage { stage } => crate::node::shadow::stage::run(stage == crate::node::shadow::stage::INNER),
    };
    crate::node::terminal::print(&ended.shown).map_err(|error| {
        let outcome = ended.outcome;
        anyhow::anyhow!(
            "the report cannot be written to standard output: {error}; the run itself ended with {}: {}",
            outcome.code(),
            outcome.meaning()
        )
    })?;
    Ok(ended.outcome)
}

impl Ended {
    /// A report in the form that was asked for; `text` says it to people. Of a run that was stopped, the problems alone.
    fn of(report: Result<Report, Stopped>, output: Output, style: Style, text: impl FnOnce(&Report) -> String) -> Self {
        match report {
            Ok(report) => {
                let shown = match output {
                    Output::Json => report.to_json(),
                    Output::Text => text(&report),
                };
                Self { shown, outcome: report.outcome }
            }
            Err(stopped) => stopped.ended(output, style),
        }
    }
}

impl Stopped {
    /// Problems that leave nothing else to show.
    fn ended(self, output: Output, style: Style) -> Ended {
        let Self { problems, outcome } = self;
        let shown = match output {
            Output::Text => crate::report::problems::render(&problems, style.colour),
            Output::Json => Report { problems, ..Report::new(outcome) }.to_json(),
        };
        Ended { shown, outcome }
    }
}
