//! Canaries: what a mirror has of them, and what is said of it.

use serde_json::Value;

use crate::node::{Node, ran};
use crate::registry::{Authority, digest};

const IMAGE: &str = "docker.io/library/canary:fresh";
const REPO: &str = "hub/library/canary";

fn canary(more: &str) -> String {
    format!("[[canary]]\nimage = \"{IMAGE}\"\n{more}\n")
}

/// What became of the canaries: at the endpoints in the order of their names.
fn fresh(node: &Node) -> Vec<Value> {
    let json = node.run("verify --output json").json();
    json["canaries"].as_array().cloned().unwrap_or_default().into_iter().map(|found| found["fresh"].clone()).collect()
}

#[test]
fn the_digest_that_the_spec_names() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let wanted = digest("{\"new\":1}");
    let node = Node::new(&authority, &[&registry], &canary(&format!("digest = \"{wanted}\""))).applied();
    registry.holds(REPO, "fresh", "{\"old\":1}");
    registry.asked();
    let run = node.run("verify");
    run.says(
        8,
        &["failed [canary] containerd: https://", IMAGE, &format!("it is {} there, and the spec says {wanted}", digest("{\"old\":1}"))],
    );
    assert!(run.said.contains("help: look at what fills the mirror"), "{}", run.said);
    // the head of the manifest is enough, as whom and by whom a daemon would ask it
    let asked = registry.asked();
    assert!(asked.iter().any(|one| one.starts_with(&format!("HEAD /v2/{REPO}/manifests/fresh?ns=docker.io"))), "{asked:?}");
    assert!(asked.iter().all(|one| !one.starts_with("GET /v2/hub")), "{asked:?}");
    registry.holds(REPO, "fresh", "{\"new\":1}");
    node.run("verify").says(0, &["ok [canary]"]);
    assert_eq!(fresh(&node), [true]);
    // it is gone
    registry.put(&format!("/v2/{REPO}/manifests/fresh"), 404, "", "");
    node.run("verify").says(8, &["failed [canary]", "manifest unknown (404)"]);
    assert_eq!(fresh(&node), [false]);
    // one that cannot tell is asked for all of it, and it is worked out
    registry.put(&format!("/v2/{REPO}/manifests/fresh"), 200, "", "{\"new\":1}");
    assert_eq!(fresh(&node), [true]);
    registry.put(&format!("/v2/{REPO}/manifests/fresh"), 200, "", "{\"torn\":");
    node.run("verify").says(0, &["could not run [canary]", "does not say its digest"]);
    assert_eq!(fresh(&node), [Value::Null]);
    registry.put(&format!("/v2/{REPO}/manifests/fresh"), 429, "", "");
    assert_eq!(fresh(&node), [Value::Null]);
    // neither what is applied nor whether anything is kept back depends on it
    registry.holds(REPO, "fresh", "{\"old\":1}");
    registry.asked();
    node.run("apply --probe require").says(0, &[]);
    assert!(registry.asked().iter().all(|one| !one.contains("/manifests/")));
}

#[test]
fn all_endpoints_have_the_same_as_the_first() {
    let authority = Authority::new();
    let (first, second) = (authority.registry(2090), authority.registry(2090));
    let node = Node::new(&authority, &[&first, &second], &canary("")).applied();
    first.holds(REPO, "fresh", "{\"new\":1}");
    second.holds(REPO, "fresh", "{\"new\":1}");
    node.run("verify").says(0, &["ok [canary]"]);
    second.holds(REPO, "fresh", "{\"old\":1}");
    let run = node.run("verify");
    let why = format!("it is {} there, and {} at {}, which is asked first", digest("{\"old\":1}"), digest("{\"new\":1}"), first.host);
    run.says(8, &[&format!("failed [canary] containerd: https://{}", second.host), &why]);
    assert_eq!(run.said.matches("failed [canary]").count(), 1, "{}", run.said);
    // where the first cannot be asked, the second says nothing wrong
    first.put(&format!("/v2/{REPO}/manifests/fresh"), 503, "", "");
    let run = node.run("verify");
    run.says(8, &[&format!("failed [canary] containerd: https://{}", first.host), "unexpected status 503"]);
    assert_eq!(run.said.matches("failed [canary]").count(), 1, "{}", run.said);
}

/// 2026-11-21T00:00:00Z.
const NOW: i64 = 1_795_219_200;

fn aged(node: &Node, now: i64) -> crate::node::Run {
    let mut command = node.command("verify --output json");
    command.env("NODEPREP_CLOCK", now.to_string());
    ran(command)
}

fn verdict(run: &crate::node::Run) -> (Value, String) {
    let json = run.json();
    let check = json["checks"].as_array().unwrap().iter().find(|check| check["id"] == "canary").cloned().unwrap_or_default();
    (json["canaries"][0]["fresh"].clone(), check["found"].as_str().unwrap_or_default().to_owned())
}

/// By the annotation of the manifest, by its configuration, by that of the first manifest of an index.
#[test]
fn the_age_that_the_spec_allows() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = Node::new(&authority, &[&registry], &canary("max_age = \"26h\"")).applied();
    let created = "2026-11-20T18:00:00.123456789Z";
    let config = format!("{{\"created\":\"{created}\",\"os\":\"linux\"}}");
    let of_config = format!("{{\"config\":{{\"digest\":\"{}\"}}}}", digest(&config));
    let index = format!("{{\"manifests\":[{{\"digest\":\"{}\"}}]}}", digest(&of_config));
    let annotated = format!("{{\"config\":{{}},\"annotations\":{{\"org.opencontainers.image.created\":\"{created}\"}}}}");
    registry.put(&format!("/v2/{REPO}/blobs/{}", digest(&config)), 200, "", &config);
    registry.holds(REPO, &digest(&of_config), &of_config);
    for manifest in [&annotated, &of_config, &index] {
        registry.holds(REPO, "fresh", manifest);
        assert_eq!(verdict(&aged(&node, NOW)), (true.into(), String::new()), "{manifest}");
        // 18:00 and 26 hours: to the second
        assert_eq!(verdict(&aged(&node, NOW + 20 * 3600)).0, true);
        let (fresh, found) = verdict(&aged(&node, NOW + 20 * 3600 + 1));
        assert!(fresh == false && found.contains("it was made on 2026-11-20T18:00:00Z, 26 h ago; the spec allows 26 h"), "{found}");
        // a clock that cannot be right makes nothing stale
        let (fresh, found) = verdict(&aged(&node, 1_700_000_000));
        assert!(fresh.is_null(), "{found}");
    }
    // what cannot be told is not bad
    for (manifest, why) in [
        ("{\"config\":{\"digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"}}", "answered with 404"),
        ("{\"config\":{\"digest\":\"../../elsewhere\"}}", "is not named"),
        ("{\"annotations\":{\"org.opencontainers.image.created\":\"yesterday\"}}", "no date"),
        ("<html>", "cannot be read"),
        ("{\"manifests\":[]}", "is not named"),
    ] {
        registry.holds(REPO, "fresh", manifest);
        let run = aged(&node, NOW);
        let (fresh, found) = verdict(&run);
        assert!(run.code == 0 && fresh.is_null() && found.contains(why), "{manifest}: {found}");
    }
    registry.holds(REPO, "fresh", &of_config);
    registry.put(&format!("/v2/{REPO}/blobs/{}", digest(&config)), 307, "Location: https://storage.example/x\r\n", "");
    let (fresh, found) = verdict(&aged(&node, NOW));
    assert!(fresh.is_null() && found.contains("redirects are not followed"), "{found}");
}

/// The source itself is somebody else's, and has nothing to say about copies.
#[test]
fn the_source_itself_is_never_asked() {
    let authority = Authority::new();
    let (upstream, copy) = (authority.registry(2090), authority.registry(2090));
    let access = |host: &str| format!("[[registry]]\nhost = \"{host}\"\nca = [\"root\"]\ncredentials = \"pull-secret.json\"\n");
    let node = Node::new(&authority, &[&copy], "");
    let coded = crate::registry::CODED;
    node.put(
        "spec/pull-secret.json",
        &format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{coded}\"}}, \"{}\": {{\"auth\": \"{coded}\"}}}}}}", copy.host, upstream.host),
    );
    node.document(&format!(
        "version = 1\nfallback = \"upstream\"\n[[ca]]\nname = \"root\"\nfile = \"ca.pem\"\ntrust = \"registries\"\n{}{}\
         [[mirror]]\nsource = \"{}\"\nendpoints = [\"{}/copies\"]\n[[canary]]\nimage = \"{}/a/b:1\"\n",
        access(&copy.host),
        access(&upstream.host),
        upstream.host,
        copy.host,
        upstream.host
    ));
    let node = node.applied();
    copy.holds("copies/a/b", "1", "{}");
    node.run("verify").says(0, &["ok [canary]"]);
    let asked = upstream.asked();
    assert!(!asked.is_empty() && asked.iter().all(|one| !one.contains("/manifests/")), "{asked:?}");
    assert!(copy.asked().iter().any(|one| one.starts_with("HEAD /v2/copies/a/b/manifests/1")));
}

/// What the agent runs: nobody is asked for the spec, files and runtimes are not judged, and what is found goes into the metrics.
#[test]
fn only_endpoints_by_the_spec_that_was_applied() {
    let authority = Authority::new();
    let registry = authority.registry(2090);
    let node = Node::new(&authority, &[&registry], &canary("")).applied();
    registry.holds(REPO, "fresh", "{}");
    node.document("version = [");
    std::fs::create_dir_all(node.path("root/run")).unwrap();
    let words = format!("verify --applied --only-endpoints --output json --textfile-dir {}", node.path("root/run").display());
    let run = node.run(&words);
    run.says(0, &[]);
    let json = run.json();
    let ids: Vec<&str> = json["checks"].as_array().unwrap().iter().map(|check| check["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["canary", "endpoint"], "{json}");
    let text = node.read("root/run/nodeprep-endpoints.prom");
    let sample = format!("nodeprep_mirror_fresh{{image=\"{IMAGE}\",scheme=\"https\",host=\"{}\"}} 1\n", registry.host);
    assert!(text.contains(&sample), "{text}");
    // without a spec that was applied: what stands on the node is tried all the same
    std::fs::remove_file(node.path("root/var/lib/nodeprep/last-good.json")).unwrap();
    let run = node.run(&words);
    run.says(0, &[]);
    assert_eq!(run.json()["checks"].as_array().unwrap().len(), 1, "{}", run.said);
    node.put("root/var/lib/nodeprep/last-good.json", "torn");
    node.run(&words).says(0, &["no-last-good"]);
}
