//! Metrics, what is made of them in `packaging/monitoring`, and the server that tells them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nodeprep::agent::state::{AgentState, CanaryView, Drift, Due, Failing, PassView, Phase, ProbeView, Restart};
use nodeprep::model::time::Time;
use nodeprep::node::health::{Settings, start};
use nodeprep::report::metrics::{Endpoint, METRICS, Metric, endpoints, endpoints_of, markdown};
use nodeprep::verify::canary::Found as Canary;
use saphyr_parser::{Event, Parser};

use crate::node::{BINARY, Node};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn metric(name: &str) -> Option<&'static Metric> {
    METRICS.iter().find(|metric| metric.name == name)
}

/// Each `nodeprep_…` in an expression, with the labels that are asked for in braces behind it.
fn named(expression: &str) -> Vec<(String, Vec<String>)> {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("nodeprep_") {
        let word: String = rest[at..].chars().take_while(|char| is_word(*char)).collect();
        rest = &rest[at + word.len()..];
        let braces = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map(|(inside, _)| inside).unwrap_or_default();
        let labels = braces.split(',').filter(|pair| !pair.is_empty()).map(|pair| pair.chars().take_while(|char| is_word(*char)).collect());
        found.push((word, labels.collect()));
    }
    found
}

/// The names that an expression speaks of; each is a metric, and has these labels.
fn checked(expression: &str) -> BTreeSet<String> {
    let names = named(expression);
    for (name, labels) in &names {
        let metric = metric(name).unwrap_or_else(|| panic!("{name} is no metric: {expression}"));
        for label in labels.iter().filter(|label| *label != "instance" && *label != "job") {
            assert!(metric.labels.contains(&label.as_str()), "{name} has no label {label}: {expression}");
        }
    }
    names.into_iter().map(|(name, _)| name).collect()
}

/// The scalars behind each key of a YAML document.
fn scalars(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut last = String::new();
    for event in Parser::new_from_str(text) {
        let (event, _) = event.unwrap_or_else(|error| panic!("{error}"));
        if let Event::Scalar(value, ..) = event {
            found.push((std::mem::replace(&mut last, value.to_string()), value.to_string()));
        }
    }
    found
}

#[test]
fn alert_rules_speak_of_metrics_that_there_are() {
    let text = fs::read_to_string(project("packaging/monitoring/nodeprep.rules.yaml")).unwrap();
    let all = scalars(&text);
    let of = |key: &str| all.iter().filter(|(before, _)| before == key).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let (alerts, expressions) = (of("alert"), of("expr"));
    assert!(alerts.len() > 10 && alerts.len() == expressions.len());
    assert_eq!((of("summary").len(), of("description").len(), of("severity").len()), (alerts.len(), alerts.len(), alerts.len()));
    assert_eq!(alerts.iter().collect::<BTreeSet<_>>().len(), alerts.len());
    for expression in expressions {
        assert!(!checked(&expression).is_empty(), "{expression}");
        let balance = |open: char, close: char| expression.matches(open).count() == expression.matches(close).count();
        assert!(balance('(', ')') && balance('{', '}'), "{expression}");
    }
    for severity in of("severity") {
        assert!(["info", "warning", "critical"].contains(&severity.as_str()), "{severity}");
    }
}

#[test]
fn the_dashboard_shows_every_metric() {
    let text = fs::read_to_string(project("packaging/monitoring/nodeprep-dashboard.json")).unwrap();
    let board: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in board["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_i64().unwrap()), "two panels have one id");
        for target in panel["targets"].as_array().unwrap() {
            shown.extend(checked(target["expr"].as_str().unwrap()));
        }
    }
    for variable in board["templating"]["list"].as_array().unwrap() {
        checked(variable["query"].as_str().unwrap());
    }
    let all: BTreeSet<String> = METRICS.iter().map(|metric| metric.name.to_owned()).collect();
    assert_eq!(all.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "not on the dashboard");
}

#[test]
fn the_page_is_made_from_the_table() {
    let text = format!(
        "# Metrics\n\n`nodeprep status --metrics` prints them, `--textfile-dir DIR` writes them to `nodeprep.prom` there (for node_exporter), and the \
         agent tells them\nat `/metrics`. Times are times, not ages: ages are worked out where they are looked at, as in the rules of \
         `packaging/monitoring`. Endpoints and mirrors are\nas the agent has found them when it tried them last (`--probe-interval`), or `nodeprep verify --textfile-dir \
         /run/nodeprep`; nobody asks a registry to\nanswer a question for metrics. Of more than 200 endpoints those that do not answer have metrics of \
         their own, and the first of the others.\n\nThe format is the text format 0.0.4 of Prometheus. What is not known is missing. This page is generated from the \
         table in\n`src/report/metrics.rs`.\n\n{}\n## At the agent\n\n| path | answers |\n|---|---|\n| `/healthz` | 200 while the agent does what it \
         should: it was not told to end, and its next pass is not five minutes overdue; else 503 |\n| `/readyz` | 200 while the node is as the spec \
         says, else 503 with what the agent says of it |\n| `/metrics` | the metrics above, at most two seconds old |\n\nThey are served on \
         `/run/nodeprep/health.sock` (root and its group), and on an address where one is given: whoever can reach that may ask,\nand learns names of \
         registries and subjects of certificates, but no secrets. A request has 3 s and 8 KiB; of more than 16 at once the oldest goes.\n",
        markdown()
    );
    let file = project("docs/metrics.md");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &text).unwrap();
    }
    assert_eq!(fs::read_to_string(file).unwrap_or_default(), text, "UPDATE_GOLDEN=1 cargo test --test status rewrites docs/metrics.md");
}

/// What a text says: name and labels → value. Every line is as the format wants it.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut typed = BTreeSet::new();
    assert!(text.ends_with('\n'));
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(metric(name).is_some_and(|metric| metric.kind.name() == kind) && typed.insert(name.to_owned()), "{line}");
        } else if !line.starts_with("# HELP ") {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            let name = sample.split('{').next().unwrap();
            assert!(typed.contains(name), "{line}");
            assert!(found.insert(sample.to_owned(), value.parse().unwrap()).is_none(), "{line} stands there twice");
        }
    }
    found
}

fn canary(fresh: Option<bool>) -> Canary {
    let (image, endpoint) = ("docker.io/library/canary:1".to_owned(), "https://one.example".to_owned());
    Canary { image, endpoint, fresh, digest: None, created: Some(Time(40_000)) }
}

/// A node of which there is everything to say.
fn eventful() -> Node {
    let node = Node::new();
    node.run("apply").says(0, &[]);
    node.run("pause /etc/a").says(0, &[]);
    let state = AgentState {
        version: 1,
        phase: Phase::Idle,
        converged: true,
        last_pass: Some(PassView { ended: Time(5000), ..PassView::default() }),
        probe: Some(ProbeView {
            ended: Time(43_000),
            endpoints: 2,
            unreachable: 1,
            canaries: vec![CanaryView {
                image: "docker.io/library/canary:1".into(),
                endpoint: "https://one.example".into(),
                fresh: Some(false),
                fresh_at: Some(Time(41_000)),
            }],
            ..ProbeView::default()
        }),
        failing: Some(Failing { since: Time(7000), ..Failing::default() }),
        passes: BTreeMap::from([("converged".to_owned(), 3)]),
        activations: BTreeMap::from([("restart".to_owned(), BTreeMap::from([("done".to_owned(), 2)]))]),
        rollbacks: 1,
        drift: Drift { found: 4, repaired: 3, ..Drift::default() },
        restart: Some(Restart { units: vec!["containerd.service".to_owned()], ..Restart::default() }),
        due: vec![Due::default()],
        ..AgentState::default()
    };
    node.put("/run/nodeprep/agent.json", serde_json::to_vec(&state).unwrap());
    let tried = [("one.example", true, 1234), ("one.example", true, 12), ("two.example:5000", false, 9)];
    let tried = tried.map(|(host, reachable, took_ms)| Endpoint { scheme: "https".into(), host: host.into(), reachable, took_ms });
    node.put("/run/nodeprep/nodeprep-endpoints.prom", endpoints(&tried, &[canary(Some(true)), canary(Some(false))], Time(42_000)));
    node
}

#[test]
fn metrics_of_a_node() {
    let node = eventful();
    let run = node.run("status --metrics");
    run.says(0, &[]);
    let all = samples(&run.out);
    let names: BTreeSet<&str> = all.keys().map(|sample| sample.split('{').next().unwrap()).collect();
    // serials come with specs that have one, and of an agent in another root nobody can tell whether it is there
    let missing: Vec<&str> = METRICS.iter().map(|metric| metric.name).filter(|name| !names.contains(name)).collect();
    assert_eq!(missing, ["nodeprep_spec_serial", "nodeprep_agent_up"]);
    for (sample, value) in [
        ("nodeprep_converged", 0.0),
        ("nodeprep_ledger_readable", 1.0),
        ("nodeprep_spec_rolled_back", 0.0),
        ("nodeprep_shared_files{target=\"containerd\"}", 1.0),
        ("nodeprep_drift_files{target=\"containers\"}", 0.0),
        ("nodeprep_due{how=\"refresh\"}", 1.0),
        ("nodeprep_paused{scope=\"paths\"}", 1.0),
        ("nodeprep_paused{scope=\"node\"}", 0.0),
        ("nodeprep_endpoint_reachable{scheme=\"https\",host=\"one.example\"}", 1.0),
        ("nodeprep_endpoint_latency_seconds{scheme=\"https\",host=\"one.example\"}", 1.234),
        ("nodeprep_endpoint_reachable{scheme=\"https\",host=\"two.example:5000\"}", 0.0),
        ("nodeprep_endpoints{state=\"reachable\"}", 1.0),
        ("nodeprep_endpoints{state=\"unreachable\"}", 1.0),
        // several daemons ask there, and for one of them it is not what it should be
        ("nodeprep_mirror_fresh{image=\"docker.io/library/canary:1\",scheme=\"https\",host=\"one.example\"}", 0.0),
        (
            "nodeprep_mirror_canary_created_timestamp_seconds{image=\"docker.io/library/canary:1\",scheme=\"https\",host=\"one.example\"}",
            40.0,
        ),
        ("nodeprep_mirror_fresh_timestamp_seconds{image=\"docker.io/library/canary:1\",scheme=\"https\",host=\"one.example\"}", 41.0),
        ("nodeprep_endpoint_probed_timestamp_seconds", 42.0),
        ("nodeprep_agent_last_probe_timestamp_seconds", 43.0),
        ("nodeprep_agent_activations_total{kind=\"restart\",result=\"done\"}", 2.0),
        ("nodeprep_agent_rollbacks_total", 1.0),
        ("nodeprep_agent_drift_repaired_total", 3.0),
        ("nodeprep_agent_restarts_waiting", 1.0),
        ("nodeprep_last_run_exit_code", 0.0),
    ] {
        assert_eq!(all.get(sample), Some(&value), "{sample} in {}", run.out);
    }
    let expiry: Vec<_> = all.keys().filter(|sample| sample.starts_with("nodeprep_certificate_expiry")).collect();
    assert!(expiry.len() == 2 && expiry[0].contains("role=\"ca\"") && expiry[1].contains("role=\"client\""), "{expiry:?}");
    let text = node.run("status").out;
    for said in [
        "2 endpoints tried at 1970-01-01T00:00:43Z, 1 of them",
        "canary:1 is not fresh at https://one.example, last fresh at 1970-01-01T00:00:41Z",
    ] {
        assert!(text.contains(said), "{text}");
    }
    // what could not be told for somebody is told of nobody
    assert!(!endpoints(&[], &[canary(Some(true)), canary(None)], Time(0)).contains("nodeprep_mirror_fresh{"));
    // nobody else's lines get in among ours
    assert_eq!(endpoints_of("node_load1 1\n"), "");
    assert_eq!(endpoints_of("nodeprep_endpoint_reachable 1\nnodeprep_endpoint_reachablex 1\n"), "");
}

#[test]
fn a_textfile_is_written_as_a_whole() {
    let node = eventful();
    let folder = node.folder().join("textfiles");
    fs::create_dir(&folder).unwrap();
    let words = format!("status --textfile-dir {}", folder.display());
    node.run(&words).says(0, &["spec: default"]);
    let text = fs::read_to_string(folder.join("nodeprep.prom")).unwrap();
    assert!(samples(&text).contains_key("nodeprep_converged"));
    node.run(&words).says(0, &[]);
    let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["nodeprep.prom"]);
    node.run("status --textfile-dir /nonexistent").says(4, &["error[textfile]", "/nonexistent"]);
}

fn ask(stream: &mut (impl Read + Write), request: &str) -> (u16, String) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap_or_default().parse().unwrap_or_else(|_| panic!("{answer:?}"));
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    if !request.starts_with("HEAD") {
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{head}");
    }
    (status, body.to_owned())
}

#[test]
fn the_server_answers() {
    let node = eventful();
    let socket = node.folder().join("health.sock");
    // what an agent left that was killed
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let address = Some("127.0.0.1:0".parse().unwrap());
    let settings = Settings { root: node.root.clone(), socket: Some(socket.clone()), address, program: BINARY.into() };
    let server = start(settings.clone()).unwrap();
    let unix = |request: &str| ask(&mut UnixStream::connect(&socket).unwrap(), request);
    let tcp = |request: &str| ask(&mut TcpStream::connect(server.address().unwrap()).unwrap(), request);
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(unix(&get("/healthz")), (200, "alive\n".to_owned()));
    assert_eq!(tcp(&get("/readyz?verbose")), (200, "converged\n".to_owned()));
    let (status, text) = tcp(&get("/metrics"));
    assert!(status == 200 && samples(&text).contains_key("nodeprep_converged"), "{text}");
    assert_eq!(unix("HEAD /metrics HTTP/1.0\r\n\r\n"), (200, String::new()));
    assert_eq!(unix(&get("/")).0, 404);
    assert_eq!(unix("POST /metrics HTTP/1.1\r\n\r\n").0, 405);
    assert_eq!(unix("what is this\r\n\r\n").0, 400);
    assert_eq!(unix(&format!("GET /{} HTTP/1.1\r\n", "x".repeat(8 << 10))).0, 431);
    let many = "x: y\r\n".repeat(40);
    assert_eq!(unix(&format!("GET / HTTP/1.1\r\n{many}\r\n")).0, 431);
    // who is slow keeps nobody waiting, and has to go when there are too many
    let mut slow: Vec<TcpStream> = (0..40).map(|_| TcpStream::connect(server.address().unwrap()).unwrap()).collect();
    for stream in &mut slow {
        let _ = stream.write_all(b"GET /");
    }
    assert_eq!(unix(&get("/healthz")).0, 200);
    assert_eq!(tcp(&get("/healthz")).0, 200);
    let mut rest = [0; 1];
    assert_eq!(slow[0].read(&mut rest).unwrap_or(0), 0, "the first of too many is still served");
    // what the agent says counts
    let stopped = AgentState { phase: Phase::Stopped, ..AgentState::default() };
    node.put("/run/nodeprep/agent.json", serde_json::to_vec(&stopped).unwrap());
    assert_eq!((unix(&get("/healthz")).0, unix(&get("/readyz")).0), (503, 503));
    // two agents are one too many
    assert!(start(Settings { address: None, ..settings }).is_err());
    drop(server);
    assert!(!socket.exists());
}

/// The agent serves beside its loop, and takes its socket away when it is told to end.
#[test]
fn the_agent_serves() {
    let node = Node::new();
    let socket = node.at("/run/nodeprep/health.sock");
    let mut agent = Command::new(BINARY);
    agent.args(["agent", "--root"]).arg(&node.root).arg("--spec").arg(&node.spec).env_clear().stderr(Stdio::null());
    let mut agent = agent.spawn().unwrap();
    let request = |path: &str| {
        let mut stream = UnixStream::connect(&socket).ok()?;
        Some(ask(&mut stream, &format!("GET {path} HTTP/1.1\r\n\r\n")))
    };
    let text = loop {
        assert!(agent.try_wait().unwrap().is_none(), "the agent has ended");
        match request("/metrics") {
            Some((200, text)) if text.contains("nodeprep_agent_passes_total{") => break text,
            _ => std::thread::yield_now(),
        }
    };
    assert!(samples(&text).contains_key("nodeprep_converged"));
    assert_eq!(request("/healthz").unwrap().0, 200);
    let ended = Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    assert!(ended.success() && agent.wait().unwrap().success());
    assert!(!socket.exists());
}

/// However many endpoints a spec has, there is a bound to the metrics of them, and those that do not answer are among them.
#[test]
fn there_is_a_bound_to_the_endpoints() {
    let endpoint = |number: u32| Endpoint {
        scheme: "https".into(),
        host: format!("r{number}.example"),
        reachable: !(number > 900 || number == 3),
        took_ms: 1,
    };
    let tried: Vec<Endpoint> = (0..1000).map(endpoint).collect();
    let all = samples(&endpoints(&tried, &[], Time(1)));
    let of = |name: &str, value: &str| all.iter().filter(|(sample, said)| sample.starts_with(name) && said.to_string() == value).count();
    assert_eq!((of("nodeprep_endpoint_reachable", "0"), of("nodeprep_endpoint_reachable", "1")), (100, 100));
    assert_eq!((of("nodeprep_endpoints", "900"), of("nodeprep_endpoints", "100")), (1, 1));
}
