//! What every subcommand that looks at a node begins with: the spec, the root, the ledger, a snapshot.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::preflight::{self, Asks};
use super::tried::Heard;
use super::{ForeignChoice, PlanChoices, Probe, ProbeArgs, RootArgs, SpecArgs, pause_image, remembered, source};
use crate::apply::memory::Memory;
use crate::desired::{PAUSED, Target};
use crate::flow::{self, Findings, STATE, wishes};
use crate::kept::Fetched;
use crate::ledger::Ledger;
use crate::model::digest::Digest;
use crate::model::order::{self};
use crate::model::path::NodePath;
use crate::model::pause::{Stays, Who};
use crate::model::problem::{Problem, Severity};
use crate::model::secret::Secret;
use crate::model::tree::Tree;
use crate::node::error::{Class, NodeError};
use crate::node::root::Root;
use crate::node::{Snapshot, blobs, memory, net, probe, read, state, terminal};
use crate::plan::activation::cut_off;
use crate::plan::build::{Foreign, Now, overlay_plan};
use crate::plan::guard::{Allowed, against};
use crate::plan::hold::Unready;
use crate::plan::whole::Planned;
use crate::plan::{Activation, How};
use crate::report::PartReport;
use crate::report::exit::Outcome;
use crate::runtime::containerd::tokens::Answers;
use crate::runtime::{FoundRuntime, Runtime, Wish, facts, golang};
use crate::spec::Spec;
use crate::spec::load::Closed;
use crate::trust::backing;
use crate::verify::probe::{Seen, Target as Tried};
use crate::verify::{gate, tokens};

/// Why a subcommand ends before it has begun: problems to show, and the outcome.
pub(super) struct Stopped {
    pub problems: Vec<Problem>,
    pub outcome: Outcome,
}

impl From<NodeError> for Stopped {
    fn from(error: NodeError) -> Self {
        Self { outcome: outcome(error.class()), problems: vec![problem(&error)] }
    }
}

/// The outcome that a node error stands for.
pub(super) fn outcome(class: Class) -> Outcome {
    match class {
        Class::Unexpected => Outcome::Unexpected,
        Class::Node => Outcome::Cannot,
        Class::Conflict => Outcome::Conflict,
        Class::RolledBack => Outcome::RolledBack,
        Class::NotRolledBack => Outcome::NotRolledBack,
        Class::Locked => Outcome::Locked,
    }
}

/// A node error as a problem: the chain of causes once, and the remedy.
pub(super) fn problem(error: &NodeError) -> Problem {
    let mut what = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        what = format!("{what}: {error}");
        cause = error.source();
    }
    Problem::error("node", what, error.help().unwrap_or_default())
}

/// Reads and closes the spec; warnings and notes come back with it.
pub(super) fn spec(args: &SpecArgs, node: Option<&Root>) -> Result<(Spec, Vec<Problem>), Stopped> {
    sound(closed(args, node)?)
}

/// The same of one that was read already.
pub(super) fn sound(closed: Closed) -> Result<(Spec, Vec<Problem>), Stopped> {
    let unread = |name: &String| {
        Problem::error("node-file-unread", format!("{name:?} lies on the node and was not read"), "run this on the node, or give --root")
    };
    match closed.spec {
        Some(spec) if closed.unread.is_empty() => Ok((spec, closed.problems)),
        Some(_) => Err(Stopped { problems: closed.unread.iter().map(unread).collect(), outcome: Outcome::InvalidSpec }),
        None => Err(Stopped { problems: closed.problems, outcome: Outcome::InvalidSpec }),
    }
}

/// The spec with everything that is wrong with it.
pub(super) fn closed(args: &SpecArgs, node: Option<&Root>) -> Result<Closed, Stopped> {
    Ok(source::open(args, node, &node.map_or_else(Fetched::new, source::known))?.closed)
}

/// A node that was looked at.
pub(super) struct Session {
    pub root: Root,
    pub state: NodePath,
    pub ledger: Arc<Ledger>,
    /// Whether there is a ledger on the node.
    stored: bool,
    pub snapshot: Snapshot,
    pub found: Vec<FoundRuntime>,
    pub blobs: BTreeMap<Digest, Vec<u8>>,
    /// What is left alone; never everything.
    pub stays: Stays,
    /// What failed before and was put back.
    pub memory: Memory,
}

impl Session {
    /// Opens the node's root.
    pub(super) fn root(args: &RootArgs) -> Result<Root, Stopped> {
        Root::open(&args.root).map_err(|error| {
            let why = match &error {
                NodeError::NotFolder { .. } => "it is not a folder".to_owned(),
                NodeError::Io { errno, .. } => errno.desc().to_lowercase(),
                other => other.to_string(),
            };
            let what = format!("the node's root {} cannot be opened: {why}", args.root.display());
            Stopped {
                problems: vec![Problem::error("root", what, "give the folder that holds the node's /etc and /usr with --root")],
                outcome: Outcome::Cannot,
            }
        })
    }

    /// Looks at the node once: ledger, files, processes. `named` runtimes are taken as there.
    pub(super) fn open(root: Root, named: &[Runtime]) -> Result<Self, Stopped> {
        let stored = crate::apply::load_ledger(&root, &NodePath::fixed(STATE))?;
        Self::with(root, stored, named)
    }

    /// The same for who only asks what is there: a ledger that cannot be read is a warning.
    pub(super) fn look(root: Root, named: &[Runtime]) -> Result<(Self, Option<Problem>), Stopped> {
        let (stored, warning) = match crate::apply::load_ledger(&root, &NodePath::fixed(STATE)) {
            Ok(stored) => (stored, None),
            Err(error) => (None, Some(Problem { severity: Severity::Warning, ..problem(&error) })),
        };
        Ok((Self::with(root, stored, named)?, warning))
    }

    fn with(root: Root, stored: Option<Ledger>, named: &[Runtime]) -> Result<Self, Stopped> {
        let state = NodePath::fixed(STATE);
        let is_stored = stored.is_some();
        let ledger = match stored {
            Some(ledger) => ledger,
            None => Ledger::new(probe::random()?),
        };
        let mut probes = probe::probe(&root);
        probes.versions = probe::versions(&root, facts::programs(), &probes.processes);
        let limits = read::Limits { bundles: flow::large_files(), ..read::Limits::default() };
        let tree = read::read_within(&root, &limits, |tree| wishes(tree, &probes, &ledger, named));
        let found = facts::with_named(facts::found(&tree, &probes), named);
        let mut kept = BTreeMap::new();
        for (path, prior) in ledger.priors() {
            if let crate::ledger::Prior::File { blob, .. } = prior
                && !kept.contains_key(blob)
                // a blob that is gone is told where it is needed, with the path that needs it
                && let Ok(bytes) = blobs::read(&root, &state, *blob, path)
            {
                kept.insert(*blob, bytes);
            }
        }
        let memory = memory::load(&root, &state);
        Ok(Self {
            root,
            state,
            ledger: Arc::new(ledger),
            stored: is_stored,
            snapshot: Snapshot { tree, probes },
            found,
            blobs: kept,
            stays: Stays::Nothing,
            memory,
        })
    }

    /// Leaves alone what is paused, in what is planned; what is to be told of it. Of a node that is paused as a whole it is shown what
    /// would be done.
    pub(super) fn heed(&mut self) -> Option<Problem> {
        let told = |what: String| Some(Problem::warning(PAUSED, what, "run `nodeprep resume` to end that"));
        match state::pauses(&self.root, &self.state).map(|pauses| pauses.stays(self.snapshot.probes.now, Who::Person)) {
            Ok(Stays::All(pause)) => told(format!("`apply` changes nothing: this node is paused {}", pause.said())),
            Ok(stays) => {
                self.stays = stays;
                None
            }
            Err(error) => Some(problem(&error)),
        }
    }

    /// What a plan without a spec is made from.
    pub(super) fn now(&self) -> Now<'_> {
        let Snapshot { tree, probes } = &self.snapshot;
        Now { tree, ledger: &self.ledger, blobs: &self.blobs, foreign: Foreign::Refuse, live: probes.live }
    }

    /// Leaves only the runtimes that are configured under this spec.
    pub(super) fn configure(&mut self, spec: &Spec, choices: &PlanChoices) {
        self.found = flow::configured(std::mem::take(&mut self.found), spec, &choices.runtimes);
    }

    /// Drops copies that nothing needs any more. Where the ledger is lost they are all that there is, and stay.
    pub(super) fn sweep(&self) -> Result<(), Stopped> {
        if self.stored { Ok(crate::apply::sweep(&self.root, &self.state, &self.ledger)?) } else { Ok(()) }
    }

    /// Stops where the spec would take the node over from another one, or say much less than the last one did.
    pub(super) fn guard(&self, spec: &Spec, choices: &PlanChoices) -> Result<(), Stopped> {
        let allowed = Allowed { shrink: choices.allow_shrink, take_over: choices.take_over };
        let problems = against(spec, &self.ledger, allowed);
        if problems.is_empty() { Ok(()) } else { Err(Stopped { problems, outcome: Outcome::Conflict }) }
    }

    /// The plan under `spec`, with nothing kept back.
    pub(super) fn plan(&self, spec: &Spec, choices: &PlanChoices, answers: &Answers) -> Planned {
        self.plan_holding(spec, choices, answers, &Unready::new(), &[])
    }

    fn plan_holding(
        &self,
        spec: &Spec,
        choices: &PlanChoices,
        answers: &Answers,
        unready: &Unready,
        preflight: &[(Target, Problem)],
    ) -> Planned {
        let foreign = match choices.foreign {
            ForeignChoice::Refuse => Foreign::Refuse,
            ForeignChoice::Replace => Foreign::Replace,
            ForeignChoice::Carry => Foreign::Carry,
        };
        let prepare = |orphans: &[Problem]| {
            let findings = Findings { orphans, answers, unready, preflight, stays: &self.stays };
            flow::prepare(spec, &self.snapshot, &self.found, &self.ledger, &self.blobs, foreign, findings)
        };
        let planned = prepare(&[]);
        let orphans = self.orphans(&planned, Some(spec));
        let planned = if orphans.is_empty() { planned } else { prepare(&orphans) };
        for (part, _) in planned.plan.proved.iter().filter(|(part, basis)| self.ledger.proved.get(*part) == Some(basis)) {
            tracing::debug!(part, "proof: all that it rests on is as it was");
        }
        planned
    }

    /// The plan that may be carried out: what would change is tried first. What does not answer is kept back or told, and where a
    /// daemon would not come up, its files stay as they are.
    pub(super) fn gated(&self, spec: &Spec, choices: &PlanChoices, args: &ProbeArgs, asks: Asks) -> (Planned, Vec<Problem>) {
        let mut heard = Heard::default();
        let (mut planned, mut problems) = self.gated_without(spec, choices, args.probe, &[], &mut heard);
        let mut told = Vec::new();
        let mut refused = preflight::refusals(self, &planned, &args.preflight, asks, &mut told);
        if !refused.is_empty() {
            (planned, problems) = self.gated_without(spec, choices, args.probe, &refused, &mut heard);
        }
        // what is refused may be what another target relied on not to need that unit
        loop {
            let before = remembered::refusals(self, &planned, spec, choices.retry);
            if before.is_empty() {
                break;
            }
            refused.extend(before);
            (planned, problems) = self.gated_without(spec, choices, args.probe, &refused, &mut heard);
        }
        problems.extend(told);
        (planned, problems)
    }

    /// The same, with these targets refused.
    fn gated_without(
        &self,
        spec: &Spec,
        choices: &PlanChoices,
        probe: Option<Probe>,
        refused: &[(Target, Problem)],
        heard: &mut Heard,
    ) -> (Planned, Vec<Problem>) {
        let answers = heard.answers.get_or_insert_with(|| self.answers(spec, probe)).clone();
        // whether a login is lost is asked once it is known what stays: who does not answer cannot say which one is wanted
        let lenient = Answers { required: false, ..answers.clone() };
        let planned = self.plan_holding(spec, choices, &lenient, &Unready::new(), refused);
        let (unready, problems) = self.unready(spec, &planned, probe, heard);
        let planned =
            if unready.is_empty() && !answers.required { planned } else { self.plan_holding(spec, choices, &answers, &unready, refused) };
        let (planned, more) =
            pause_image::gated(self, spec, planned, probe, heard, |spec| self.plan_holding(spec, choices, &answers, &unready, refused));
        (planned, problems.into_iter().chain(more).collect())
    }

    /// Which logins registries want, where this decides whether a login is lost.
    pub(super) fn answers(&self, spec: &Spec, probe: Option<Probe>) -> Answers {
        let unasked = match probe {
            Some(Probe::Off) => Some("nobody is asked with --probe=off"),
            None if !self.root.is_live() => Some("the root is not that of the running system"),
            _ => None,
        };
        let mut answers = Answers { unasked, required: probe == Some(Probe::Require), ..Answers::default() };
        if unasked.is_none() && tokens::is_needed(spec, &self.snapshot.tree, &self.found) {
            let targets = tokens::targets(spec, &self.snapshot.tree, &self.trust_stores(), &self.found);
            let asked: Vec<_> = targets.values().cloned().collect();
            let seen = tried(&self.root, &asked, PATIENCE);
            answers.of = targets.into_keys().zip(seen.iter().map(tokens::answer)).collect();
        }
        answers
    }

    /// What would not work under `planned`, by trying the endpoints of what changes: what is kept back for it, and warnings.
    fn unready(&self, spec: &Spec, planned: &Planned, probe: Option<Probe>, heard: &mut Heard) -> (Unready, Vec<Problem>) {
        if probe == Some(Probe::Off) || probe.is_none() && !self.root.is_live() || planned.is_empty() {
            return (Unready::new(), Vec::new());
        }
        let after = overlay_plan(&self.snapshot.tree, &planned.plan);
        let endpoints = gate::changed(spec, &self.snapshot.tree, &after, &self.trust_stores(), &self.found);
        let keeps = |target: &Target| match probe {
            Some(Probe::Require) => true,
            Some(Probe::Warn | Probe::Off) => false,
            None => gate::keeps_back(target, &self.found),
        };
        gate::judge(spec, &endpoints, &heard.of(&self.root, &endpoints), &self.found, keeps)
    }

    /// What Go programs with the environments of the runtimes here would trust.
    pub(super) fn trust_stores(&self) -> Tree {
        let bundles = self.found.iter().flat_map(|reader| golang::root_files(&reader.env)).collect();
        let wishes = || self.found.iter().flat_map(|reader| golang::root_wishes(&reader.env)).collect::<Vec<_>>();
        read::read_within(&self.root, &read::Limits { bundles, ..read::Limits::default() }, |_| wishes())
    }

    /// What the refresh in a plan would lose. A run that was cut off has looked before it began, and may have left the bundle
    /// with certificates of anchors that it took away.
    pub(super) fn orphans(&self, planned: &Planned, spec: Option<&Spec>) -> Vec<Problem> {
        if !planned.refreshes() || cut_off(&self.ledger) {
            return Vec::new();
        }
        backing::orphans(spec, &self.look_again(backing::wishes))
    }

    /// The trust store as it is now, apart from the snapshot.
    pub(super) fn look_again(&self, wishes: impl FnMut(&Tree) -> Vec<Wish>) -> Tree {
        let limits = read::Limits { bundles: flow::large_files(), ..read::Limits::default() };
        read::read_within(&self.root, &limits, wishes)
    }

    /// What of these is due: in the root of an image nothing but the trust store, because what does not run reads everything
    /// when it starts.
    pub(super) fn due(&self, activations: &[Activation]) -> Vec<Activation> {
        activations.iter().filter(|one| !self.snapshot.probes.image || matches!(one.how, How::Refresh(_))).cloned().collect()
    }

    /// The same for what single targets say.
    pub(super) fn awake(&self, mut parts: Vec<PartReport>) -> Vec<PartReport> {
        for activation in parts.iter_mut().flat_map(|part| &mut part.activations) {
            if self.snapshot.probes.image && matches!(activation.how, How::Reload(_) | How::Restart(_)) {
                activation.how = How::Nothing;
                activation.because = vec!["nothing runs in this root; what starts there reads everything".to_owned()];
            }
        }
        parts
    }

    /// A system that runs in the root and that cannot be seen from here.
    pub(super) fn unseen(&self) -> Option<Problem> {
        self.snapshot.probes.unseen.then(|| {
            let what = "a system runs in the root, and neither its processes nor its service manager can be reached from here";
            Problem::warning("system-unseen", what, UNSEEN)
        })
    }

    /// What a plan's targets do not show: nothing to configure at all.
    pub(super) fn nothing_found(&self) -> Option<Problem> {
        self.found.is_empty().then(|| {
            Problem::warning(
                "no-runtime",
                "no container runtime was found on the node",
                "install one, name one that will be installed later with --runtime or `runtimes` in the spec, or check --root",
            )
        })
    }
}

/// What comes of each target; on a terminal one sees which of them are waited for.
pub(super) fn tried(root: &Root, targets: &[Tried], patience: std::time::Duration) -> Vec<Seen> {
    let progress = terminal::progress(targets.iter().map(|target| format!("{}://{}", target.scheme, target.host)).collect());
    net::probe(root, targets, patience, |at| match at {
        net::At::Begun(place) => progress.begin(place),
        net::At::Ended(place) => progress.end(place),
    })
}

/// What lets a container see the system that it looks after.
const UNSEEN: &str = "run it with the node's processes and privileged: `hostPID: true` and `privileged: true` for a pod, \
`--pid=host --privileged` for a container";

/// How long a registry has to say which login it wants.
pub(super) const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Secrets of a spec in every form in which they may stand in a file or message.
pub(super) fn secrets(spec: &Spec) -> Vec<Secret> {
    let mut secrets = Vec::new();
    for access in spec.access.values() {
        secrets.extend(access.client.iter().map(|client| client.key.clone()));
        secrets.extend(access.login.iter().flat_map(|login| crate::format::auth_json::forms(&login.basic)));
    }
    order::sort(&mut secrets);
    secrets.dedup();
    secrets
}
