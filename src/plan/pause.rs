//! A new pause image: which runtimes would change to it, and what is kept back while it cannot be had. Pure.
//!
//! Without its pause image a runtime starts no pod, and what is in the store is all that it has while no registry answers. So the
//! key changes only when the image is there, or is proved to be had (docs/adr/0013).

use std::collections::BTreeMap;

use super::hold::KEPT_BACK;
use super::whole::Planned;
use super::{Activation, How};
use crate::desired::Target;
use crate::model::problem::Problem;
use crate::model::tree::Tree;
use crate::runtime::{FoundRuntime, Runtime};
use crate::spec::{Pause, Spec};

/// Why a runtime keeps its pause image, and what to do about it.
pub type Held = BTreeMap<Runtime, (String, String)>;

/// The runtimes that change to the spec's pause image between `before` and `after`.
#[must_use]
pub fn changing<'a>(spec: &Spec, before: &Tree, after: &Tree, found: &'a [FoundRuntime]) -> Vec<&'a FoundRuntime> {
    let Some(pause) = &spec.pause else { return Vec::new() };
    let changes = |reader: &&FoundRuntime| {
        let then = reader.pause_image(after);
        then.as_deref().is_some_and(|image| *image == pause.image.written || *image == pause.image.to_string())
            && reader.is_pulled_through(before)
            && reader.pause_image(before) != then
    };
    found.iter().filter(changes).collect()
}

/// The spec under which these runtimes keep what they have.
#[must_use]
pub fn holding(spec: &Spec, held: Held) -> Spec {
    let pause = spec.pause.as_ref().map(|pause| Pause { held, ..pause.clone() });
    Spec { pause, ..spec.clone() }
}

/// What a runtime's part says of a pause image that it does not get yet.
#[must_use]
pub fn kept_back(pause: &Pause, runtime: Runtime) -> Option<Problem> {
    let (why, help) = pause.held.get(&runtime)?;
    let what = format!("{runtime} keeps its pause image: {why}");
    let help = format!("{help}; --probe=warn writes it anyway");
    Some(Problem::error(KEPT_BACK, what, help).at(pause.at.clone()))
}

/// Whether under `planned` the runtime reads how its registries are reached anew only when it is told to: it cannot pull by the
/// new settings before.
#[must_use]
pub fn reads_late(planned: &Planned, reader: &FoundRuntime) -> bool {
    let own = |one: &&Activation| match &one.who {
        Target::Containerd(config) => reader.runtime == Runtime::Containerd && *config == reader.config,
        Target::Containers | Target::Crio => reader.runtime == Runtime::Crio,
        Target::Trust => false,
    };
    let told = |one: &Activation| matches!(one.how, How::Reload(_) | How::Restart(_));
    planned.plan.activate.iter().filter(own).any(told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::NodePath;
    use crate::model::tree::Entry;
    use crate::plan::Plan;
    use crate::runtime::Presence;
    use crate::spec::load::Draft;

    fn on(runtime: Runtime, config: &'static str) -> FoundRuntime {
        let (presence, because) = (Presence::There, NodePath::fixed("/usr/bin/x"));
        let config = NodePath::fixed(config);
        FoundRuntime { runtime, presence, because, installed: None, running: None, config, unit: None, env: Vec::new() }
    }

    fn spec(image: &str) -> Spec {
        let text = format!("version = 1\nfallback = \"upstream\"\n[runtime]\npause_image = \"{image}\"\n");
        Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None).spec.unwrap()
    }

    fn tree(image: &str) -> Tree {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        let text = format!("version = 3\n[plugins.\"io.containerd.cri.v1.images\".pinned_images]\nsandbox = \"{image}\"\n");
        tree.put(&NodePath::fixed("/c.toml"), text.as_bytes(), 0o644);
        tree.put(&NodePath::fixed("/etc/crio/crio.conf"), format!("[crio.image]\npause_image = \"{image}\"\n").as_bytes(), 0o644);
        tree
    }

    #[test]
    fn who_changes_and_who_keeps() {
        let found = [
            on(Runtime::Containerd, "/c.toml"),
            on(Runtime::Crio, "/etc/crio/crio.conf"),
            on(Runtime::Podman, "/etc/containers/registries.conf"),
        ];
        let changes = |image: &str, before: &str, after: &str| -> Vec<Runtime> {
            changing(&spec(image), &tree(before), &tree(after), &found).into_iter().map(|reader| reader.runtime).collect()
        };
        assert_eq!(changes("a.example/p:2", "a.example/p:1", "a.example/p:2"), [Runtime::Containerd, Runtime::Crio]);
        assert_eq!(changes("a.example/p:2", "a.example/p:2", "a.example/p:2"), []);
        // somebody else's, or one that goes back to what it was, is not ours to prove
        assert_eq!(changes("a.example/p:2", "a.example/p:1", "a.example/p:3"), []);
        // nobody pulls a sandbox's image through one whose CRI is switched off
        let mut off = tree("a.example/p:1");
        let text = "version = 3\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        off.put(&NodePath::fixed("/c.toml"), text.as_bytes(), 0o644);
        let found = &found[..1];
        assert!(changing(&spec("a.example/p:2"), &off, &tree("a.example/p:2"), found).is_empty());
        let why = ("it is not there".to_owned(), "push it".to_owned());
        let held = holding(&spec("a.example/p:2"), Held::from([(Runtime::Crio, why)]));
        let pause = held.pause.as_ref().unwrap();
        assert!(kept_back(pause, Runtime::Containerd).is_none());
        let problem = kept_back(pause, Runtime::Crio).unwrap();
        assert_eq!((problem.code, problem.what.as_str()), (KEPT_BACK, "crio keeps its pause image: it is not there"));
    }

    #[test]
    fn who_is_told_first_reads_late() {
        let activation = |who: Target, how: How| Activation { who, how, because: Vec::new() };
        let containerd = || Target::Containerd(NodePath::fixed("/c.toml"));
        let restart = || How::Restart("x.service".to_owned());
        let late = |runtime, one: Activation| {
            let planned = Planned { plan: Plan { activate: vec![one], ..Plan::default() }, parts: Vec::new() };
            reads_late(&planned, &on(runtime, "/c.toml"))
        };
        assert!(late(Runtime::Containerd, activation(containerd(), restart())));
        assert!(!late(Runtime::Containerd, activation(Target::Containerd(NodePath::fixed("/d.toml")), restart())));
        assert!(!late(Runtime::Containerd, activation(containerd(), How::Nothing)));
        assert!(!late(Runtime::Containerd, activation(Target::Trust, How::Refresh(Vec::new()))));
        assert!(late(Runtime::Crio, activation(Target::Containers, How::Reload("crio.service".to_owned()))));
        assert!(!late(Runtime::Crio, activation(containerd(), restart())));
    }
}
