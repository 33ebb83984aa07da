//! Checks as text.

use std::fmt::Write as _;

use super::explain::plural;
use super::problems::escape;
use super::style::Style;
use crate::model::order;
use crate::verify::probe::Stage;
use crate::verify::{Check, Outcome};

/// More endpoints than these with the same trouble are told together.
const ALIKE: usize = 3;

/// Failures one by one, with what to do; endpoints that are fine in a line each, with the time that each stage took; all the rest
/// that is fine is counted.
#[must_use]
pub fn text(checks: &[Check], style: Style) -> String {
    let mut out = String::new();
    let mut amiss: Vec<&Check> = checks.iter().filter(|check| check.result != Outcome::Ok).collect();
    // what is written comes before what is tried with it
    order::sort_by_key(&mut amiss, |check| (check.result, matches!(check.id, "endpoint" | "manifest"), check.id));
    let mut told: Vec<&Check> = Vec::new();
    for check in &amiss {
        if told.contains(check) {
            continue;
        }
        let alike: Vec<&Check> = amiss.iter().copied().filter(|other| is_alike(check, other)).collect();
        let alike = if alike.len() > ALIKE { alike } else { vec![*check] };
        told.extend(&alike);
        let sign = match check.result {
            Outcome::Failed => style.red("failed"),
            Outcome::Due => style.yellow("due"),
            Outcome::CouldNotRun | Outcome::Ok => style.yellow("could not run"),
        };
        let _ = writeln!(out, "{sign} [{}] {}", check.id, escape(&check.subject));
        let _ = writeln!(out, "       {}", escape(&check.found));
        for step in &check.steps {
            let line = format!("{}: {} ({} ms)", step.stage, step.found, step.took_ms);
            let _ = writeln!(out, "       {}", style.dim(&escape(&line)));
        }
        for other in alike.iter().filter(|other| *other != check) {
            let _ = writeln!(out, "       also {} ({})", escape(&other.subject), escape(&other.found));
        }
        let _ = writeln!(out, "       help: {}", escape(&check.help));
    }
    for check in checks.iter().filter(|check| check.result == Outcome::Ok && !check.steps.is_empty()) {
        let shown = check.steps.iter().filter(|step| (step.stage, &*step.found) != (Stage::Proxy, "none"));
        let stages: Vec<String> = shown.map(|step| format!("{} {} ms", step.stage, step.took_ms)).collect();
        let _ = writeln!(
            out,
            "{} [{}] {} {}",
            style.green("ok"),
            check.id,
            escape(&check.subject),
            style.dim(&format!("({})", stages.join(", ")))
        );
    }
    let count = |result| checks.iter().filter(|check| check.result == result).count();
    let mut summary = format!("{} ok, {} failed", plural(count(Outcome::Ok), "check"), count(Outcome::Failed));
    for (result, word) in [(Outcome::CouldNotRun, "could not run"), (Outcome::Due, "due")] {
        if count(result) > 0 {
            summary = format!("{summary}, {} {word}", count(result));
        }
    }
    let _ = writeln!(out, "{summary}");
    out
}

/// Endpoints that fail at the same stage, with the same remedy.
fn is_alike(one: &Check, other: &Check) -> bool {
    let at = |check: &Check| check.steps.last().map(|step| step.stage);
    one.id == "endpoint" && (one.result, one.id, &one.help, at(one)) == (other.result, other.id, &other.help, at(other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::probe::Step;

    fn checks() -> Vec<Check> {
        let step = |stage, took_ms, found: &str| Step { stage, took_ms, found: found.into() };
        let check = |result, id, found: &str, help: &str, steps| Check {
            result,
            id,
            subject: "containerd: https://r:5000".into(),
            found: found.into(),
            help: help.into(),
            steps,
        };
        let reached = vec![step(Stage::Dns, 2, "10.0.0.1"), step(Stage::Tcp, 10_001, "failed")];
        vec![
            check(Outcome::Failed, "endpoint", "tcp: i/o timeout", "start it", reached),
            check(Outcome::CouldNotRun, "endpoint", "api: /v2/ is answered with 429", "wait", Vec::new()),
            check(Outcome::Ok, "endpoint", "", "", vec![step(Stage::Tls, 7, "TLSv1.3"), step(Stage::Api, 12, "200, no login")]),
            check(Outcome::Ok, "meaning", "", "", Vec::new()),
        ]
    }

    #[test]
    fn every_stage_with_its_time() {
        let want = "failed [endpoint] containerd: https://r:5000\n       tcp: i/o timeout\n       dns: 10.0.0.1 (2 ms)\n       tcp: failed (10001 ms)\n       \
                    help: start it\ncould not run [endpoint] containerd: https://r:5000\n       api: /v2/ is answered with 429\n       help: wait\n\
                    ok [endpoint] containerd: https://r:5000 (tls 7 ms, api 12 ms)\n2 checks ok, 1 failed, 1 could not run\n";
        assert_eq!(text(&checks(), Style { colour: false }), want);
    }

    /// A name server that is down is one trouble, and what is written comes first.
    #[test]
    fn what_is_alike_is_told_together() {
        let check = |id, subject: &str, found: &str| Check {
            result: Outcome::Failed,
            id,
            subject: subject.into(),
            found: found.into(),
            help: if found.starts_with("dns") { "mend DNS" } else { "help" }.into(),
            steps: Vec::new(),
        };
        let hosts =
            ["a", "b", "c", "d"].map(|host| check("endpoint", &format!("crio: https://{host}"), &format!("dns: no such host: {host}")));
        let others = [check("endpoint", "crio: https://e", "tcp: refused"), check("planned", "crio: not as the spec says", "x")];
        let checks: Vec<Check> = hosts.iter().chain(&others).cloned().collect();
        let want = "failed [planned] crio: not as the spec says\n       x\n       help: help\nfailed [endpoint] crio: https://a\n       dns: no such host: a\n       \
                    also crio: https://b (dns: no such host: b)\n       also crio: https://c (dns: no such host: c)\n       \
                    also crio: https://d (dns: no such host: d)\n       help: mend DNS\nfailed [endpoint] crio: https://e\n       \
                    tcp: refused\n       help: help\n0 checks ok, 6 failed\n";
        assert_eq!(text(&checks, Style { colour: false }), want);
        // three are few enough to be told one by one
        assert!(!text(&checks[1..], Style { colour: false }).contains("also"));
    }

    /// Programs read this: keys and words stay as they are, in this order, and what is empty is there all the same.
    #[test]
    fn json_is_stable() {
        let json = serde_json::to_string(&checks()[..3]).unwrap();
        let subject = "\"subject\":\"containerd: https://r:5000\"";
        let want = [
            format!("[{{\"result\":\"failed\",\"id\":\"endpoint\",{subject},\"found\":\"tcp: i/o timeout\",\"help\":\"start it\","),
            "\"steps\":[{\"stage\":\"dns\",\"took_ms\":2,\"found\":\"10.0.0.1\"},".into(),
            "{\"stage\":\"tcp\",\"took_ms\":10001,\"found\":\"failed\"}]},".into(),
            format!("{{\"result\":\"could-not-run\",\"id\":\"endpoint\",{subject},\"found\":\"api: /v2/ is answered with 429\","),
            format!("\"help\":\"wait\"}},{{\"result\":\"ok\",\"id\":\"endpoint\",{subject},\"found\":\"\",\"help\":\"\","),
            "\"steps\":[{\"stage\":\"tls\",\"took_ms\":7,\"found\":\"TLSv1.3\"},".into(),
            "{\"stage\":\"api\",\"took_ms\":12,\"found\":\"200, no login\"}]}]".into(),
        ];
        assert_eq!(json, want.concat());
    }
}
