//! What a new spec may not do to a node without being asked to: take it over from another spec, or give up most of what the
//! last one said. Pure.

use std::collections::BTreeMap;

use crate::ledger::{LastSpec, Ledger};
use crate::model::host::Host;
use crate::model::problem::Problem;
use crate::model::suffix::is_below;
use crate::spec::{Fallback, Mirror, Serial, Source, Spec, Unlisted};

/// What was asked for in so many words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// The spec may say much less than the last one.
    pub shrink: bool,
    /// The spec may have another name than the last one.
    pub take_over: bool,
}

/// What the ledger says of a spec that was applied.
#[must_use]
pub fn record(spec: &Spec) -> LastSpec {
    LastSpec {
        name: spec.name.clone(),
        never: spec.fallback == Fallback::Never,
        deny: spec.unlisted == Unlisted::Deny,
        empty: spec.mirrors.is_empty() && spec.cas.is_empty() && spec.access.is_empty() && spec.pause.is_none(),
        sources: sources(spec),
        digest: None,
        serial: spec.serial,
    }
}

/// The same for a node with this ledger: a serial that was seen under this name is not forgotten by a spec that has none.
#[must_use]
pub fn record_on(spec: &Spec, ledger: &Ledger) -> LastSpec {
    let now = record(spec);
    let known = ledger.spec.as_ref().filter(|last| last.name == now.name).and_then(|last| last.serial);
    LastSpec { serial: now.serial.or(known), ..now }
}

/// Whether each source is closed; one that has mirrors for several runtimes is so when all of them are.
fn sources(spec: &Spec) -> BTreeMap<String, bool> {
    let written = |source: &Source| source.whole().map_or_else(|| source.to_string(), |host| host.as_str().to_owned());
    let closed = |mirror: &Mirror| mirror.fallback == Fallback::Never;
    let mut sources = BTreeMap::new();
    for mirror in &spec.mirrors {
        *sources.entry(written(&mirror.source)).or_insert(true) &= closed(mirror);
    }
    sources
}

/// Whether a source is for everything that another one is for, as both are written.
fn holds(wide: &str, source: &str) -> bool {
    let below = |domain: &str| {
        let host = Host::new(source.split('/').next().unwrap_or_default());
        host.is_ok_and(|host| host.port().is_none() && is_below(&host, domain))
    };
    let path = |rest: &str| rest.is_empty() || rest.starts_with('/');
    wide == "*" || source.strip_prefix(wide).is_some_and(path) || wide.strip_prefix("*.").is_some_and(below)
}

/// What stands against `spec` on a node that another, or an earlier one, owns. Nothing on first contact.
#[must_use]
pub fn against(spec: &Spec, ledger: &Ledger, allowed: Allowed) -> Vec<Problem> {
    let Some(last) = ledger.spec.as_ref() else { return Vec::new() };
    if let Some(problem) = replayed(spec, last) {
        return vec![problem];
    }
    if ledger.owned.is_empty() {
        return Vec::new();
    }
    if last.name != spec.name && !allowed.take_over {
        let what = format!("the spec {:?} owns this node, and the one given is {:?}", last.name, spec.name);
        let help = "give the spec of that name, run `nodeprep revert` first, or hand the node over with --take-over";
        return vec![Problem::error("other-spec", what, help)];
    }
    if allowed.shrink {
        return Vec::new();
    }
    lost(spec, last)
}

/// That the spec is an earlier one, or another one under the same number.
fn replayed(spec: &Spec, last: &LastSpec) -> Option<Problem> {
    let seen = last.serial.filter(|_| last.name == spec.name)?;
    let Serial { number, documents } = spec.serial?;
    let help = "sign and publish what is meant with a larger serial, also to go back to what was before";
    if number < seen.number {
        let what = format!("the spec has the serial {number}, and {} was applied on this node already", seen.number);
        return Some(Problem::error("older-serial", what, help));
    }
    (number == seen.number && documents != seen.documents).then(|| {
        let what = format!("the spec has the serial {number} as the one applied last, and says something else");
        Problem::error("same-serial", what, help)
    })
}

fn lost(spec: &Spec, last: &LastSpec) -> Vec<Problem> {
    let help = "look whether the whole spec was given; if it is meant, say so with --allow-shrink";
    let problem = |what: String| Problem::error("shrinks", what, help);
    let now = record(spec);
    if (LastSpec { digest: last.digest, ..now.clone() }) == *last {
        return Vec::new();
    }
    // a wider source holds what a narrower one held; none is as narrow as the source itself, which is nearly always still there
    let wider = |source: &str| now.sources.iter().filter(|(new, _)| holds(new, source)).max_by_key(|(new, _)| new.len());
    let holder = |source: &str| now.sources.get_key_value(source).or_else(|| wider(source));
    let gone: Vec<&str> = last.sources.keys().map(String::as_str).filter(|source| holder(source).is_none()).collect();
    let mut problems = Vec::new();
    if now.empty && !last.empty {
        problems.push(problem("the spec is empty: everything that nodeprep owns on this node would be given back".to_owned()));
    }
    if !gone.is_empty() && (now.sources.is_empty() || gone.len() * 2 > last.sources.len()) {
        let all = if gone.len() == last.sources.len() { "all".to_owned() } else { format!("{} of {}", gone.len(), last.sources.len()) };
        problems.push(problem(format!("{all} mirrored sources would go: {}", gone.join(", "))));
    }
    if last.never && !now.never {
        problems.push(problem(
            "the document's `fallback` was \"never\" and is \"upstream\" now: what it closed would be asked again".to_owned(),
        ));
    }
    let opened = |(source, closed): &(&String, &bool)| **closed && holder(source).is_some_and(|(_, closed)| !closed);
    let opened: Vec<&str> = last.sources.iter().filter(opened).map(|(source, _)| source.as_str()).collect();
    if !opened.is_empty() {
        problems.push(problem(format!("sources that were closed would be asked themselves: {}", opened.join(", "))));
    }
    if last.deny && !now.deny {
        problems.push(problem(
            "`unlisted` was \"deny\" and is \"allow\" now: registries that the spec does not name would be asked".to_owned(),
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::Target;
    use crate::ledger::{Owned, Prior, Stamp};
    use crate::model::path::NodePath;
    use crate::spec::load::Draft;

    const EVERYTHING: Allowed = Allowed { shrink: true, take_over: true };

    fn spec(top: &str, mirrors: &[(&str, &str)]) -> Spec {
        let mirror = |(source, more): &(&str, &str)| format!("[[mirror]]\nsource = \"{source}\"\nendpoints = [\"m.example\"]\n{more}\n");
        let text = format!("version = 1\n{top}\n{}", mirrors.iter().map(mirror).collect::<String>());
        let closed = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&std::collections::BTreeMap::new(), None);
        closed.spec.unwrap_or_else(|| panic!("{:?}", closed.problems))
    }

    /// The problems' messages when `now` follows `before`.
    fn told(before: &Spec, now: &Spec) -> Vec<String> {
        let mut ledger = Ledger::new([0; 32]);
        ledger.spec = Some(record(before));
        assert!(against(now, &ledger, Allowed::default()).is_empty(), "nothing is owned");
        let owned =
            Owned { target: Target::Trust, now: Stamp::Absent, origin: Prior::Absent, keys: Vec::new(), format: None, shared: false };
        ledger.owned.insert(NodePath::fixed("/etc/x"), owned.into());
        assert!(against(now, &ledger, EVERYTHING).is_empty());
        assert!(against(before, &ledger, Allowed::default()).is_empty(), "the same spec again");
        let problems = against(now, &ledger, Allowed::default());
        assert!(problems.iter().all(|problem| problem.help.contains("--allow-shrink") != problem.help.contains("--take-over")));
        problems.into_iter().map(|problem| problem.what).collect()
    }

    #[test]
    fn less_than_before() {
        let never = "fallback = \"never\"";
        let open = "fallback = \"upstream\"";
        let four = spec(never, &[("a.example", ""), ("b.example", ""), ("c.example/team", ""), ("d.example", "")]);
        let told = |now: &Spec| told(&four, now);
        assert_eq!(told(&spec(never, &[("a.example", ""), ("b.example", "")])), Vec::<String>::new());
        // a wider source is no loss
        assert_eq!(told(&spec(never, &[("a.example", ""), ("c.example", "")])), Vec::<String>::new());
        assert_eq!(told(&spec(never, &[("a.example", "")])), ["3 of 4 mirrored sources would go: b.example, c.example/team, d.example"]);
        let all = "all mirrored sources would go: a.example, b.example, c.example/team, d.example";
        assert_eq!(told(&spec(&format!("{never}\n[runtime]\npause_image = \"m.example/pause:1\""), &[])), [all]);
        let empty = "the spec is empty: everything that nodeprep owns on this node would be given back";
        assert_eq!(told(&spec(never, &[])), [empty, all]);
        let same = [("a.example", ""), ("b.example", "fallback = \"upstream\""), ("c.example/team", ""), ("d.example", "")];
        assert_eq!(told(&spec(never, &same)), ["sources that were closed would be asked themselves: b.example"]);
        // wider sources are no loss either, but they may be more open
        assert_eq!(told(&spec(never, &[("*.example", "")])), Vec::<String>::new());
        assert_eq!(told(&spec(never, &[("*", "")])), Vec::<String>::new());
        assert_eq!(told(&spec(never, &[("*", "fallback = \"upstream\""), ("*.example", "")])), Vec::<String>::new());
        let wide = told(&spec(never, &[("*", "fallback = \"upstream\""), ("a.example", "")]));
        assert_eq!(wide, ["sources that were closed would be asked themselves: b.example, c.example/team, d.example"]);
        let opened = same.map(|(source, _)| (source, "fallback = \"never\""));
        assert_eq!(told(&spec(open, &opened)).len(), 1, "what the document says counts for itself");
    }

    #[test]
    fn opened() {
        let deny = spec("fallback = \"upstream\"\nunlisted = \"deny\"", &[("a.example", "")]);
        let allow = spec("fallback = \"upstream\"", &[("a.example", "")]);
        assert_eq!(told(&deny, &allow).len(), 1);
        assert_eq!(told(&allow, &deny), Vec::<String>::new());
    }

    /// Nothing else matters for it: nothing owned, everything allowed.
    #[test]
    fn serials_only_grow() {
        let serial =
            |name: &str, number: &str, more: &str| spec(&format!("name = \"{name}\"\n{number}\nfallback = \"never\"\n{more}"), &[]);
        let mut ledger = Ledger::new([0; 32]);
        let mut told = |spec: &Spec, allowed: Allowed| {
            let codes: Vec<_> = against(spec, &ledger, allowed).into_iter().map(|problem| problem.code).collect();
            if codes.is_empty() {
                ledger.spec = Some(record_on(spec, &ledger));
            }
            codes
        };
        assert!(told(&serial("a", "serial = 7", ""), Allowed::default()).is_empty());
        assert!(told(&serial("a", "serial = 7", ""), Allowed::default()).is_empty());
        assert_eq!(told(&serial("a", "serial = 7", "# other"), EVERYTHING), ["same-serial"]);
        assert_eq!(told(&serial("a", "serial = 6", ""), EVERYTHING), ["older-serial"]);
        // one without a serial does not make it forgotten
        assert!(told(&serial("a", "", ""), Allowed::default()).is_empty());
        assert_eq!(told(&serial("a", "serial = 6", ""), EVERYTHING), ["older-serial"]);
        assert!(told(&serial("a", "serial = 8", ""), Allowed::default()).is_empty());
        assert!(told(&serial("b", "serial = 1", ""), EVERYTHING).is_empty(), "another name counts for itself");
    }

    /// A source with mirrors for several runtimes is closed when all of them are, wherever they stand.
    #[test]
    fn one_open_mirror_opens_a_source() {
        let mirror = |runtime: &str, fallback: &str| format!("runtimes = [\"{runtime}\"]\nfallback = \"{fallback}\"");
        for (first, second, closed) in [("never", "never", true), ("never", "upstream", false), ("upstream", "never", false)] {
            let (one, other) = (mirror("containerd", first), mirror("crio", second));
            let spec = spec(
                "fallback = \"never\"",
                &[("b.example", "fallback = \"never\""), ("a.example", one.as_str()), ("a.example", other.as_str())],
            );
            let all = BTreeMap::from([("a.example".to_owned(), closed), ("b.example".to_owned(), true)]);
            assert_eq!(record(&spec).sources, all);
        }
    }

    #[test]
    fn another_name() {
        let [one, two] = ["one", "two"].map(|name| spec(&format!("name = \"{name}\"\nfallback = \"never\""), &[("a.example", "")]));
        assert_eq!(told(&one, &two), ["the spec \"one\" owns this node, and the one given is \"two\""]);
    }
}
