//! Chains made on the spot.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, date_time_ymd,
};

use super::{Belief, Pool, believe, is_below, is_for, is_inside};
use crate::model::time::Time;

/// 2026-11-20.
const NOW: Time = Time::from_secs(1_795_132_800);

fn params(name: &str, names: &[&str], ca: Option<BasicConstraints>) -> CertificateParams {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name.push(DnType::CommonName, name);
    if let Some(constraints) = ca {
        params.is_ca = IsCa::Ca(constraints);
    }
    params
}

struct Made {
    der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

fn itself(params: CertificateParams) -> Made {
    let key = KeyPair::generate().unwrap();
    Made { der: params.self_signed(&key).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
}

fn signed(params: CertificateParams, by: &Made) -> Made {
    let key = KeyPair::generate().unwrap();
    Made { der: params.signed_by(&key, &by.issuer).unwrap().der().to_vec(), issuer: Issuer::new(params, key) }
}

fn ask(roots: &[&Made], shown: &[&Made], name: &str) -> Belief {
    let pool = Pool::of(roots.iter().map(|made| made.der.as_slice()));
    believe(&pool, &shown.iter().map(|made| made.der.as_slice()).collect::<Vec<_>>(), name, NOW)
}

fn why(belief: Belief) -> String {
    match belief {
        Belief::No(why) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn chains_as_go_builds_them() {
    let root = itself(params("root", &[], Some(BasicConstraints::Unconstrained)));
    let middle = signed(params("middle", &[], Some(BasicConstraints::Unconstrained)), &root);
    let leaf = signed(params("leaf", &["a.example", "10.0.0.1"], None), &middle);
    assert_eq!(ask(&[&root], &[&leaf, &middle], "a.example"), Belief::Yes);
    assert_eq!(ask(&[&root], &[&leaf, &middle], "A.Example"), Belief::Yes);
    assert_eq!(ask(&[&root], &[&leaf, &middle], "10.0.0.1"), Belief::Yes);
    // an intermediate that is trusted is an end of the way
    assert_eq!(ask(&[&middle], &[&leaf], "a.example"), Belief::Yes);
    let unknown = |more: &str| format!("x509: certificate signed by unknown authority ({more})");
    let nobody = |what: &str| unknown(&format!("{what}, which is neither trusted nor sent by the server"));
    assert_eq!(why(ask(&[&root], &[&leaf], "a.example")), nobody("CN=leaf is signed by CN=middle"));
    assert_eq!(why(ask(&[], &[&leaf, &middle], "a.example")), nobody("CN=middle is signed by CN=root"));
    assert_eq!(why(ask(&[], &[&leaf, &middle, &root], "a.example")), unknown("the chain ends with CN=root, which is not trusted"));
    assert_eq!(why(ask(&[&root], &[&leaf, &middle], "b.example")), "x509: certificate is valid for a.example, not b.example");
    assert_eq!(why(ask(&[&root], &[&leaf, &middle], "10.0.0.2")), "x509: certificate is valid for 10.0.0.1, not 10.0.0.2");
    // another root of the same name has not signed it
    let twin = itself(params("root", &[], Some(BasicConstraints::Unconstrained)));
    let other = "CN=middle is signed by CN=root; one of that name is trusted, but it did not sign this";
    assert_eq!(why(ask(&[&twin], &[&leaf, &middle], "a.example")), unknown(other));
    assert_eq!(ask(&[&twin, &root], &[&leaf, &middle], "a.example"), Belief::Yes);
}

#[test]
fn a_server_s_own_certificate_is_believed_when_it_is_trusted() {
    for flag in [None, Some(BasicConstraints::Unconstrained)] {
        let own = itself(params("own", &["a.example"], flag));
        assert_eq!(ask(&[&own], &[&own], "a.example"), Belief::Yes);
        assert!(why(ask(&[], &[&own], "a.example")).contains("unknown authority (CN=own signs itself and is not trusted)"));
        assert!(why(ask(&[&own], &[&own], "b.example")).contains("not b.example"));
    }
    // without the flag it signs for nobody else
    let own = itself(params("own", &["a.example"], None));
    let other = signed(params("other", &["b.example"], None), &own);
    assert!(why(ask(&[&own], &[&other], "b.example")).contains("unknown authority"));
    // with it, it does; a server may bear the flag, too
    let own = itself(params("own", &["a.example"], Some(BasicConstraints::Unconstrained)));
    let other = signed(params("other", &["b.example"], Some(BasicConstraints::Unconstrained)), &own);
    assert_eq!(ask(&[&own], &[&other], "b.example"), Belief::Yes);
}

#[test]
fn dates_count_for_every_link() {
    let late = |mut params: CertificateParams| {
        params.not_before = date_time_ymd(2027, 1, 1);
        params
    };
    let old = |mut params: CertificateParams| {
        params.not_after = date_time_ymd(2026, 1, 1);
        params
    };
    let ca = || params("root", &[], Some(BasicConstraints::Unconstrained));
    let root = itself(ca());
    for (leaf, word) in
        [(late(params("leaf", &["a.example"], None)), "before 2027"), (old(params("leaf", &["a.example"], None)), "after 2026")]
    {
        let leaf = signed(leaf, &root);
        let why = why(ask(&[&root], &[&leaf], "a.example"));
        assert!(why.contains("has expired or is not yet valid") && why.contains(word), "{why}");
        assert!(matches!(ask(&[&leaf], &[&leaf], "a.example"), Belief::No(_)));
    }
    let root = itself(old(ca()));
    let leaf = signed(params("leaf", &["a.example"], None), &root);
    assert!(why(ask(&[&root], &[&leaf], "a.example")).contains("has expired"));
}

#[test]
fn names_as_go_reads_them() {
    let root = itself(params("root", &[], Some(BasicConstraints::Unconstrained)));
    let common = signed(params("a.example", &[], None), &root);
    assert!(why(ask(&[&root], &[&common], "a.example")).contains("legacy Common Name"));
    assert!(why(ask(&[&root], &[&common], "b.example")).contains("not valid for any names"));
    assert!(why(ask(&[&root], &[&common], "10.0.0.1")).contains("doesn't contain any IP SANs"));
    assert!(
        is_for("*.example", "a.example") && !is_for("*.example", "a.b.example") && !is_for("*", "") && !is_for("a*.example", "ab.example")
    );
    assert!(is_for("a.example.", "a.example") && !is_for("", ""));
    assert!(
        is_below("example", "a.example")
            && is_below("example", "example")
            && !is_below(".example", "example")
            && !is_below("ample", "a.example")
    );
    assert!(
        is_inside(&[10, 0, 0, 0, 255, 0, 0, 0], "10.9.9.9".parse().unwrap())
            && !is_inside(&[10, 0, 0, 0, 255, 0, 0, 0], "11.0.0.1".parse().unwrap())
    );
}

#[test]
fn what_a_ca_may_do() {
    let ca = |name: &str| params(name, &[], Some(BasicConstraints::Unconstrained));
    let leaf = || params("leaf", &["a.example"], None);
    let root = itself(params("root", &[], Some(BasicConstraints::Constrained(0))));
    let middle = signed(ca("middle"), &root);
    let deep = signed(leaf(), &middle);
    assert!(why(ask(&[&root], &[&deep, &middle], "a.example")).contains("too many intermediates"));
    assert_eq!(ask(&[&root], &[&signed(leaf(), &root)], "a.example"), Belief::Yes);
    // a CA whose key may not sign
    let mut mute = ca("mute");
    mute.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let mute = itself(mute);
    assert!(why(ask(&[&mute], &[&signed(leaf(), &mute)], "a.example")).contains("unknown authority"));
    // an intermediate that is none
    let root = itself(ca("root"));
    let plain = signed(params("plain", &["p.example"], None), &root);
    assert!(matches!(ask(&[&root], &[&signed(leaf(), &plain), &plain], "a.example"), Belief::No(_)));
    // for clients only
    let mut client = leaf();
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = signed(client, &root);
    for pool in [&root, &client] {
        assert!(why(ask(&[pool], &[&client], "a.example")).contains("incompatible key usage"));
    }
    // only for some names
    let mut narrow = ca("narrow");
    narrow.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![GeneralSubtree::DnsName("corp.example".into())], excluded_subtrees: Vec::new() });
    let narrow = itself(narrow);
    assert!(why(ask(&[&narrow], &[&signed(leaf(), &narrow)], "a.example")).contains("not permitted"));
    let inside = signed(params("leaf", &["a.corp.example"], None), &narrow);
    assert_eq!(ask(&[&narrow], &[&inside], "a.corp.example"), Belief::Yes);
}

/// What only our library does not know is no refusal.
#[test]
fn an_algorithm_that_is_not_known_is_not_refused() {
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    let ca = params("root", &[], Some(BasicConstraints::Unconstrained));
    let mut root = ca.self_signed(&key).unwrap().der().to_vec();
    let root_made = Made { der: root.clone(), issuer: Issuer::new(ca, key) };
    let mut leaf = signed(params("leaf", &["a.example"], None), &root_made);
    assert_eq!(ask(&[&root_made], &[&leaf], "a.example"), Belief::Yes);
    // id-Ed25519 becomes id-Ed448: a curve that neither we nor our library know
    for der in [&mut root, &mut leaf.der] {
        let places: Vec<usize> =
            der.windows(3).enumerate().filter(|(_, part)| *part == [0x2b, 0x65, 0x70]).map(|(place, _)| place).collect();
        for place in places {
            der[place + 2] = 0x71;
        }
    }
    let pool = Pool::of([root.as_slice()]);
    assert!(matches!(believe(&pool, &[&leaf.der], "a.example", NOW), Belief::Unknown(_)));
}

/// A clock that cannot be right makes nothing bad, and nothing good either; what is wrong whatever the time is stays so.
#[test]
fn a_wrong_clock_tells_nothing() {
    let root = itself(params("root", &[], Some(BasicConstraints::Unconstrained)));
    let mut short = params("leaf", &["a.example"], None);
    (short.not_before, short.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2020, 2, 1));
    let leaf = signed(short, &root);
    let at = |roots: &[&Made], now: Time| believe(&Pool::of(roots.iter().map(|made| made.der.as_slice())), &[&leaf.der], "a.example", now);
    assert!(why(at(&[&root], NOW)).contains("has expired"));
    assert!(matches!(at(&[&root], Time(0)), Belief::Unknown(why) if why.contains("1970-01-01")));
    assert!(why(at(&[], Time(0))).contains("unknown authority"));
}
