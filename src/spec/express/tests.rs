//! What meets the table, and what becomes of an intent.

use std::collections::BTreeMap;

use super::*;
use crate::model::endpoint::Scheme;
use crate::model::image::ImageRef;
use crate::model::resolution::{End, Trust};
use crate::spec::intent::intent;
use crate::spec::load::Draft;

fn spec(text: &str) -> Spec {
    let text = format!("version = 1\nfallback = 'never'\n{text}");
    let closed = Draft::open("spec.toml", text.as_bytes()).unwrap().close(&BTreeMap::new(), None);
    closed.spec.unwrap_or_else(|| panic!("{:?}", closed.problems))
}

fn mirror(source: &str, endpoint: &str) -> String {
    format!("[[mirror]]\nsource = '{source}'\nendpoints = ['{endpoint}']\n")
}

fn refusals(text: &str, runtime: Runtime) -> Vec<Subject> {
    let gaps = gaps(&spec(text), runtime, &Runtime::ALL, &[]).into_iter().filter(|gap| gap.problem.severity == Severity::Error);
    gaps.map(|gap| gap.row.subject).collect()
}

#[test]
fn every_subject_has_a_row_for_each_family() {
    for row in ROWS {
        for family in [Family::Containerd, Family::Containers] {
            let same = |other: &&Row| other.subject == row.subject && other.fallback == row.fallback && other.family == family;
            assert_eq!(ROWS.iter().filter(same).count(), 1, "{:?}", row.subject);
        }
    }
    assert!(markdown().lines().count() > 10);
}

#[test]
fn refuses_what_cannot_be_said() {
    for (text, containerd, containers) in [
        (mirror("quay.io", "m.corp/quay"), vec![], vec![]),
        (mirror("quay.io/team", "m.corp/quay"), vec![Subject::SubHostSource], vec![]),
        (mirror("quay.io", "[2001:db8::1]:5000"), vec![], vec![Subject::Ipv6]),
        (mirror("[2001:db8::1]:5000", "m.corp"), vec![], vec![Subject::Ipv6Source]),
        (mirror("quay.io", "mirror"), vec![], vec![Subject::BareEndpoint]),
        (mirror("quay.io", "m.corp") + &mirror("m.corp", "x.corp"), vec![], vec![Subject::ClosedEndpoint]),
    ] {
        assert_eq!(refusals(&text, Runtime::Containerd), containerd, "{text}");
        assert_eq!(refusals(&text, Runtime::Podman), containers, "{text}");
    }
}

#[test]
fn a_block_reaches_as_far_as_its_source() {
    let open = |text: String| text + "fallback = 'upstream'\n";
    let host = mirror("quay.io", "m.corp/hub");
    for (text, blocked) in [
        (mirror("m.corp/hub", "x.corp"), true),
        (mirror("m.corp/hub/deep", "x.corp"), true),
        (mirror("m.corp/other", "x.corp"), false),
        (mirror("m.corp/hub2", "x.corp"), false),
        (open(mirror("m.corp", "x.corp")), false),
        (mirror("m.corp:443", "x.corp"), true),
        (mirror("m.corp", "x.corp") + &open(mirror("m.corp/hub", "y.corp")), false),
    ] {
        let found = refusals(&(host.clone() + &text), Runtime::Crio);
        assert_eq!(found == [Subject::ClosedEndpoint], blocked, "{text}");
    }
}

#[test]
fn one_word_for_two_meanings_becomes_two_attempts() {
    let spec = spec(&mirror("quay.io", "http://m.corp:5000"));
    let meant = intent(&spec, &ImageRef::parse("quay.io/a/b:1").unwrap());
    assert_eq!(adapt(&spec, meant.clone(), Dialect::Containerd(containerd::Dialect::V1_6)), meant);
    let asked = adapt(&spec, meant, Dialect::Containers);
    let asked: Vec<_> = asked.attempts.iter().map(|attempt| (attempt.scheme, &attempt.trust)).collect();
    assert_eq!(asked, [(Scheme::Https, &Trust::Unverified), (Scheme::Http, &Trust::Plain)]);
}

/// A source at an IPv6 address: refused where a version that must be right cannot read such references, a note where no
/// version is known, nothing else.
#[test]
fn what_depends_on_the_version() {
    use containerd::Dialect as Class;
    let spec = spec(&mirror("[2001:db8::1]:5000", "m.corp"));
    let found = |dialects: &[Class]| {
        let dialects: Vec<Dialect> = dialects.iter().copied().map(Dialect::Containerd).collect();
        let gaps = gaps(&spec, Runtime::Containerd, &[], &dialects).into_iter();
        gaps.filter(|gap| gap.row.subject == Subject::Ipv6Source).map(|gap| gap.problem.severity).collect::<Vec<_>>()
    };
    assert_eq!(found(&[Class::V1_6_32]), [Severity::Error]);
    assert_eq!(found(&[Class::V2_1, Class::V1_6]), [Severity::Error]);
    assert_eq!(found(&Class::ALL), [Severity::Error]);
    assert_eq!(found(&[Class::V1_7_0, Class::V2_3]), []);
    assert_eq!(found(&[]), [Severity::Note]);
    let meant = intent(&spec, &ImageRef::parse("[2001:db8::1]:5000/a/b:1").unwrap());
    for class in Class::ALL {
        let asked = adapted(&spec, &meant, Dialect::Containerd(class));
        assert_eq!(matches!(asked.end, End::Broken(_)), class.is_v1_6(), "{class:?}");
        assert_eq!(asked.same(&meant), !class.is_v1_6(), "{class:?}");
    }
}

#[test]
fn without_runtimes_everything_is_a_note() {
    let text = mirror("quay.io/team", "m.corp/quay");
    assert!(proof(&spec(&text)).iter().all(|problem| problem.severity == Severity::Note));
    let named = proof(&spec(&format!("runtimes = ['containerd']\n{text}")));
    assert_eq!(named.iter().map(|problem| problem.severity).collect::<Vec<_>>(), [Severity::Error]);
}
