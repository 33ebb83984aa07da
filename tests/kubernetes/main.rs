//! What is shipped for Kubernetes, held against what Kubernetes knows, against the program, and against itself.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "tests have effects"
)]

mod policy;
mod tools;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tools::{Tool, kustomized, rendered};

fn project(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn packaged(path: &str) -> PathBuf {
    project("packaging/kubernetes").join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn chart() -> String {
    packaged("chart").display().to_string()
}

fn base() -> Value {
    let [daemonset] = yaml::read(&read(&packaged("base/daemonset.yaml"))).try_into().unwrap();
    daemonset
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    objects.iter().find(|object| object["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn pod(daemonset: &Value) -> &Value {
    &daemonset["spec"]["template"]["spec"]
}

fn container(daemonset: &Value) -> &Value {
    let [one] = pod(daemonset)["containers"].as_array().unwrap().as_slice() else { panic!("not one container") };
    one
}

fn variables(container: &Value) -> BTreeMap<&str, &str> {
    container["env"].as_array().unwrap().iter().map(|one| (one["name"].as_str().unwrap(), one["value"].as_str().unwrap())).collect()
}

fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

/// Values that use everything that the chart has.
fn values() -> BTreeMap<&'static str, Value> {
    let key = format!("RW{}", "A".repeat(54));
    [
        ("default", json!({})),
        (
            "all",
            json!({
                "image": {"digest": format!("sha256:{}", "0".repeat(64)), "pullPolicy": "Always"},
                "imagePullSecrets": [{"name": "pull"}],
                "spec": {"documents": {"spec.toml": "version = 1\n# \"quoted\" {{ .Values.x }}\n", "SHA256SUMS": "x", "SHA256SUMS.minisig": "y"}, "publicKeys": [key, key]},
                "material": {"files": {"internal-root.pem": "-----BEGIN CERTIFICATE-----\nx\n", "pull-secret.json": "{}"}},
                "restarts": {"enabled": true, "splay": "2h", "window": "Sat,Sun 00:00-24:00", "gate": "/run/may-restart", "budget": 1, "allow": ["kubelet.service", "docker.service"]},
                "drift": "repair-with-restart", "foreign": "carry", "probe": "warn", "canary": "registry.k8s.io/pause:3.10",
                "health": {"address": "::", "port": 9099},
                "serviceMonitor": {"enabled": true, "labels": {"release": "prometheus"}},
                "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}},
                "nodeSelector": {"pool": "a"}, "tolerations": [{"key": "x", "operator": "Exists", "effect": "NoSchedule"}],
                "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}]}}},
                "resources": {"requests": {"memory": "64Mi"}, "limits": {"memory": "1Gi"}},
                "podLabels": {"team": "platform"}, "podAnnotations": {"a": "b"}, "priorityClassName": "platform",
                "extraArgs": ["--verbose"], "extraEnv": [{"name": "NODEPREP_RUNTIME", "value": "containerd"}],
            }),
        ),
        (
            "url",
            json!({
                "spec": {"url": "https://specs.example.com/fleet.toml?v=1", "ca": "-----BEGIN CERTIFICATE-----\nx\n", "poll": "1m", "tokenKey": "token", "clientCertKey": "node.crt", "clientKeyKey": "node.key"},
            }),
        ),
        ("give-back", json!({"giveBack": true, "restarts": {"enabled": true}})),
    ]
    .into()
}

type Objects = BTreeMap<&'static str, (Vec<Value>, String)>;

fn rendered_values() -> Option<Objects> {
    static ALL: OnceLock<Option<Objects>> = OnceLock::new();
    ALL.get_or_init(render_values).clone()
}

fn render_values() -> Option<Objects> {
    let values = values();
    let all = rendered(&chart(), &values.values().cloned().collect::<Vec<_>>())?;
    Some(values.into_keys().zip(all.into_iter().map(|one| one.unwrap_or_else(|why| panic!("{why}")))).collect())
}

/// What is built and what is rendered, by name.
fn everything() -> &'static BTreeMap<String, Vec<Value>> {
    static ALL: OnceLock<BTreeMap<String, Vec<Value>>> = OnceLock::new();
    ALL.get_or_init(build_and_render)
}

fn build_and_render() -> BTreeMap<String, Vec<Value>> {
    let built = ["base", "example", "example/staged", "give-back", "policy"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), kustomized(name)?)));
    let mut all: BTreeMap<String, Vec<Value>> = built.collect();
    for (name, (objects, _)) in rendered_values().into_iter().flatten() {
        all.insert(format!("chart: {name}"), objects);
    }
    // by itself, too, where neither kustomize nor Helm is to be had
    all.insert("base/daemonset.yaml".to_owned(), vec![base()]);
    all
}

#[test]
fn every_object_is_one_that_kubernetes_knows() {
    let mut by_age = BTreeMap::from([("older", Vec::new()), ("newer", Vec::new())]);
    for (name, objects) in everything() {
        assert!(!objects.is_empty(), "{name}");
        for object in objects {
            let kind = object["kind"].as_str().unwrap();
            // that one is the Prometheus operator's
            if kind != "ServiceMonitor" {
                let age = if kind.starts_with("ValidatingAdmissionPolicy") { "newer" } else { "older" };
                let of_age = by_age.get_mut(age).unwrap();
                if !of_age.contains(object) {
                    of_age.push(object.clone());
                }
            }
        }
    }
    let check = |versions: &[&str], objects: &[Value]| Tool::Schemas.asked(&json!({"versions": versions, "objects": objects}));
    let Some(problems) = check(&["1.29", "1.37"], &by_age["older"]) else { return };
    assert_eq!(problems, json!([]));
    assert_eq!(check(&["1.30", "1.37"], &by_age["newer"]), Some(json!([])));
    // and it would have told: an unknown key, a wrong type, something missing
    for (pointer, value) in [
        ("/spec/template/spec/hostPid", json!(true)),
        ("/spec/template/spec/containers/0/volumeMounts/0/mountPropagatoin", json!("HostToContainer")),
        ("/spec/template/spec/hostPID", json!("true")),
        ("/spec/selector", Value::Null),
    ] {
        let mut wrong = base();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = wrong.pointer_mut(parent).unwrap().as_object_mut().unwrap();
        if value.is_null() {
            parent.remove(key)
        } else {
            parent.insert(key.to_owned(), value)
        };
        let problems = check(&["1.34"], &[wrong]).unwrap();
        assert_eq!(problems.as_array().unwrap().len(), 1, "{pointer}: {problems}");
    }
}

#[test]
fn the_service_monitor_finds_what_it_monitors() {
    let Some(all) = rendered_values() else { return };
    let (objects, _) = &all["all"];
    let (monitor, service) = (of_kind(objects, "ServiceMonitor"), of_kind(objects, "Service"));
    assert_eq!(monitor["apiVersion"], "monitoring.coreos.com/v1");
    assert_eq!(monitor["metadata"]["labels"]["release"], "prometheus");
    for (name, value) in monitor["spec"]["selector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(&service["metadata"]["labels"][name], value);
    }
    let [endpoint] = monitor["spec"]["endpoints"].as_array().unwrap().as_slice() else { panic!("not one endpoint") };
    let keys: Vec<&String> = endpoint.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["interval", "path", "port", "relabelings"]);
    assert_eq!((&endpoint["port"], &endpoint["path"]), (&service["spec"]["ports"][0]["name"], &json!("/metrics")));
    let daemonset = of_kind(objects, "DaemonSet");
    for (name, value) in service["spec"]["selector"].as_object().unwrap() {
        assert_eq!(&daemonset["spec"]["template"]["metadata"]["labels"][name], value);
    }
    assert_eq!(service["spec"]["ports"][0]["targetPort"], container(daemonset)["ports"][0]["name"]);
    assert!(all["default"].0.iter().all(|object| object["kind"] != "ServiceMonitor" && object["kind"] != "Service"));
}

/// Labels of a chart are those of its release.
fn without_labels(mut objects: Vec<Value>) -> BTreeMap<String, Value> {
    for object in &mut objects {
        object["metadata"]["labels"] = Value::Null;
    }
    objects.into_iter().map(|object| (object["kind"].as_str().unwrap().to_owned(), object)).collect()
}

#[test]
fn the_chart_makes_the_objects_of_the_base() {
    let (Some(built), Some(mut all)) = (kustomized("base"), rendered_values()) else { return };
    let mut built = without_labels(built);
    // Helm makes the namespace, without labels
    assert!(built.remove("Namespace").is_some());
    assert_eq!(without_labels(all.remove("default").unwrap().0), built);
    let (Some(given_back), Some(back)) = (kustomized("give-back"), rendered(&chart(), &[json!({"giveBack": true})])) else { return };
    let mut given_back = without_labels(given_back);
    assert!(given_back.remove("Namespace").is_some());
    assert_eq!(without_labels(back.into_iter().next().unwrap().unwrap().0), given_back);
}

#[test]
fn the_pod_has_what_the_agent_needs_and_no_more() {
    for (name, objects) in everything() {
        let Some(daemonset) = objects.iter().find(|object| object["kind"] == "DaemonSet") else { continue };
        let (spec, container) = (pod(daemonset), container(daemonset));
        for key in ["hostPID", "hostNetwork"] {
            assert_eq!(spec[key], true, "{name}: {key}");
        }
        assert_eq!(spec["dnsPolicy"], "Default", "{name}: names are looked up as the runtime does");
        assert_eq!((&spec["automountServiceAccountToken"], &spec["hostIPC"]), (&json!(false), &Value::Null), "{name}");
        let security = json!({"privileged": true, "readOnlyRootFilesystem": true, "runAsUser": 0});
        for one in [Some(container), spec["initContainers"].get(0)].into_iter().flatten() {
            assert_eq!(one["securityContext"], security, "{name}");
            let mounts = one["volumeMounts"].as_array().unwrap();
            for mount in mounts {
                assert!(mount["subPath"].is_null() && mount["subPathExpr"].is_null(), "{name}: a subPath is never brought up to date");
                let is_host = mount["name"] == "host";
                assert_eq!(mount["readOnly"] == true, !is_host, "{name}: {mount}");
                assert_eq!(mount["mountPropagation"] == "HostToContainer", is_host, "{name}: {mount}");
            }
            assert_eq!(mounts[0]["mountPath"], variables(one)["NODEPREP_ROOT"], "{name}");
        }
        let mut volumes = BTreeSet::new();
        for volume in spec["volumes"].as_array().unwrap() {
            for kind in ["configMap", "secret"] {
                assert!(volume[kind]["optional"].is_null() && volume[kind]["items"].is_null(), "{name}: {volume}");
            }
            assert!(volume["hostPath"].is_null() || volume["hostPath"] == json!({"path": "/", "type": "Directory"}), "{name}: {volume}");
            volumes.insert(volume["name"].as_str().unwrap());
        }
        let mounted: BTreeSet<&str> =
            container["volumeMounts"].as_array().unwrap().iter().map(|mount| mount["name"].as_str().unwrap()).collect();
        assert_eq!(mounted, volumes, "{name}");
        // what is named by a variable is mounted
        let paths: BTreeSet<&str> =
            container["volumeMounts"].as_array().unwrap().iter().map(|mount| mount["mountPath"].as_str().unwrap()).collect();
        for (variable, value) in variables(container).into_iter().filter(|(_, value)| value.starts_with("/etc/nodeprep")) {
            assert!(paths.iter().any(|path| Path::new(value).starts_with(path)), "{name}: {variable}={value} is not mounted");
        }
    }
    let spec = base()["spec"].clone();
    assert_eq!(spec["template"]["spec"]["tolerations"], json!([{"operator": "Exists"}]));
    assert_eq!(spec["template"]["spec"]["priorityClassName"], "system-node-critical");
    assert_eq!(spec["updateStrategy"]["type"], "RollingUpdate");
    let [account] = yaml::read(&read(&packaged("base/serviceaccount.yaml"))).try_into().unwrap();
    assert_eq!(account["automountServiceAccountToken"], false);
    let [namespace] = yaml::read(&read(&packaged("base/namespace.yaml"))).try_into().unwrap();
    for mode in ["enforce", "audit", "warn"] {
        assert_eq!(namespace["metadata"]["labels"][format!("pod-security.kubernetes.io/{mode}")], "privileged");
    }
}

/// kubelet asks where the agent listens, and asks it itself: not through the runtime.
#[test]
fn probes_go_where_the_agent_listens() {
    for (name, objects) in everything() {
        let Some(daemonset) = objects.iter().find(|object| object["kind"] == "DaemonSet") else { continue };
        let container = container(daemonset);
        let address: std::net::SocketAddr = variables(container)["NODEPREP_HEALTH_ADDRESS"].parse().unwrap();
        let [port] = container["ports"].as_array().unwrap().as_slice() else { panic!("{name}: not one port") };
        assert_eq!((&port["containerPort"], &port["hostPort"]), (&json!(address.port()), &json!(address.port())), "{name}");
        assert_eq!(port["hostIP"], address.ip().to_string(), "{name}");
        let is_giving_back = !pod(daemonset)["initContainers"].is_null();
        assert_eq!(container["readinessProbe"].is_null(), is_giving_back, "{name}");
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let get = &container[probe]["httpGet"];
            if container[probe].is_null() {
                continue;
            }
            assert_eq!((&get["path"], &get["port"]), (&json!(path), &port["name"]), "{name}");
            let asked: std::net::IpAddr = get["host"].as_str().unwrap().parse().unwrap();
            assert!(
                asked == address.ip() || (address.ip().is_unspecified() && asked.is_loopback() && asked.is_ipv4() == address.is_ipv4()),
                "{name}"
            );
        }
    }
}

/// Each variable is the agent's, and the program takes it with its value and these arguments.
#[test]
fn the_program_takes_what_the_pod_says() {
    let root = tempfile::tempdir().unwrap();
    let mut tried = 0;
    for (name, objects) in everything() {
        let Some(daemonset) = objects.iter().find(|object| object["kind"] == "DaemonSet") else { continue };
        for container in [Some(container(daemonset)), pod(daemonset)["initContainers"].get(0)].into_iter().flatten() {
            let args = texts(&container["args"]);
            let help = Command::new(env!("CARGO_BIN_EXE_nodeprep")).args([args[0], "--help"]).output().unwrap();
            let help = String::from_utf8(help.stdout).unwrap();
            for variable in variables(container).keys() {
                assert!(
                    ["=", "]"].iter().any(|end| help.contains(&format!("[env: {variable}{end}"))),
                    "{name}: {variable} is none of {}",
                    args[0]
                );
            }
            // a root that is not there is all that is wrong: what comes before that is the command line
            let mut nodeprep = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
            nodeprep.args(&args).env_clear().envs(variables(container)).env("NODEPREP_ROOT", root.path().join("none"));
            let output = nodeprep.output().unwrap();
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.code(), Some(4), "{name}: {args:?}: {said}");
            assert!(said.starts_with("error[root]"), "{name}: {said}");
            tried += 1;
        }
    }
    assert!(tried > 0);
}

#[test]
fn nothing_is_restarted_unless_it_is_allowed() {
    assert_eq!(variables(container(&base()))["NODEPREP_ACTIVATE"], "reload-only");
    let Some(all) = rendered_values() else { return };
    let of = |name: &str| variables(container(of_kind(&all[name].0, "DaemonSet")));
    for name in ["default", "url"] {
        assert_eq!(of(name)["NODEPREP_ACTIVATE"], "reload-only");
        assert!(of(name).keys().all(|variable| !variable.contains("RESTART")), "{name}");
    }
    assert!(all["default"].1.contains("Nothing is restarted"));
    let restarts = of("all");
    for (variable, value) in [
        ("NODEPREP_ACTIVATE", "auto"),
        ("NODEPREP_RESTART_SPLAY", "2h"),
        ("NODEPREP_RESTART_WINDOW", "Sat,Sun 00:00-24:00"),
        ("NODEPREP_RESTART_GATE", "/run/may-restart"),
        ("NODEPREP_RESTART_BUDGET", "1"),
        ("NODEPREP_ALLOW_RESTART", "kubelet.service,docker.service"),
        ("NODEPREP_DRIFT", "repair-with-restart"),
        ("NODEPREP_HEALTH_ADDRESS", "[::]:9099"),
    ] {
        assert_eq!(restarts[variable], value, "{variable}");
    }
    assert!(all["all"].1.contains("over 2h, Sat,Sun 00:00-24:00 UTC"));
}

#[test]
fn the_chart_brings_documents_and_material_as_they_are() {
    let Some(all) = rendered_values() else { return };
    let (objects, _) = &all["all"];
    assert_eq!(of_kind(objects, "ConfigMap")["data"]["spec.toml"], "version = 1\n# \"quoted\" {{ .Values.x }}\n");
    let secret = of_kind(objects, "Secret");
    // printf -- '{}' | base64
    assert_eq!(secret["data"]["pull-secret.json"], "e30=");
    let pod = pod(of_kind(objects, "DaemonSet"));
    assert_eq!(pod["volumes"][1]["configMap"]["name"], of_kind(objects, "ConfigMap")["metadata"]["name"]);
    assert_eq!(pod["volumes"][2]["secret"]["secretName"], secret["metadata"]["name"]);
    // only root of the pod reads them
    assert_eq!(pod["volumes"][2]["secret"]["defaultMode"], 0o400);
    let (objects, notes) = &all["url"];
    assert_eq!(of_kind(objects, "ConfigMap")["metadata"]["name"], "nodeprep-source");
    let variables = variables(container(of_kind(objects, "DaemonSet")));
    assert_eq!(variables["NODEPREP_SPEC"], "https://specs.example.com/fleet.toml?v=1");
    assert_eq!(variables["NODEPREP_SPEC_CA"], "/etc/nodeprep/source/ca.pem");
    assert!(notes.contains("https://specs.example.com/fleet.toml.") && !notes.contains("v=1"), "{notes}");
}

#[test]
fn values_that_make_no_sense_are_refused() {
    let wrong = [
        (json!({"retsarts": {"enabled": true}}), "retsarts"),
        (json!({"restarts": {"enable": true}}), "enable"),
        (json!({"restarts": {"enabled": "yes"}}), "enabled"),
        (json!({"restarts": {"splay": "30"}}), "splay"),
        (json!({"restarts": {"budget": 0}}), "budget"),
        (json!({"image": {"digest": "latest"}}), "digest"),
        (json!({"spec": {"url": "http://specs.example.com/x"}}), "url"),
        (json!({"spec": {"url": "https://me:secret@specs.example.com/x"}}), "url"),
        (json!({"spec": {"documents": {".hidden.toml": "x"}}}), "'.hidden.toml' does not match"),
        (json!({"spec": {"publicKeys": ["untrusted comment: x"]}}), "publicKeys"),
        (json!({"spec": {"url": "https://x/y", "documents": {"spec.toml": "x"}}}), "two specs"),
        (json!({"spec": {"ca": "-----BEGIN CERTIFICATE-----\n"}}), "spec.ca"),
        (json!({"spec": {"url": "https://x/y", "clientKeyKey": "k"}}), "belong together"),
        (json!({"drift": "repair-with-restart"}), "restarts.enabled"),
        (json!({"drift": "ignore"}), "drift"),
        (json!({"health": {"port": 0}}), "port"),
        (json!({"serviceMonitor": {"enabled": true}}), "health.address"),
        (json!({"material": {"files": {"a/b": "x"}}}), "'a/b' does not match"),
    ];
    let Some(all) = rendered(&chart(), &wrong.clone().map(|(values, _)| values)) else { return };
    for ((values, word), rendered) in wrong.into_iter().zip(all) {
        let Err(said) = rendered else { panic!("{values} is taken") };
        assert!(said.contains(word), "{values}: {said}");
    }
}

/// Every value is described, every default is one, and nothing is taken that is not known.
#[test]
fn the_schema_describes_each_value() {
    fn walk(at: &str, schema: &Value, values: &Value, seen: &mut usize) {
        let Some(properties) = schema["properties"].as_object() else { return };
        assert_eq!(schema["additionalProperties"], false, "{at}");
        for (name, schema) in properties {
            let at = format!("{at}.{name}");
            assert!(schema["description"].as_str().is_some_and(|text| text.ends_with('.')), "{at} is not described");
            assert!(at == ".global" || !values[name].is_null() || at == ".imagePullSecrets", "{at} has no default in values.yaml");
            *seen += 1;
            walk(&at, schema, &values[name], seen);
        }
        for name in values.as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(properties.contains_key(name), "{at}.{name} is not in the schema");
        }
    }
    let schema: Value = serde_json::from_str(&read(&packaged("chart/values.schema.json"))).unwrap();
    let [values] = yaml::read(&read(&packaged("chart/values.yaml"))).try_into().unwrap();
    let mut seen = 0;
    walk("", &schema, &values, &mut seen);
    assert!(seen > 50, "{seen}");
    // and each is used
    let folder = std::fs::read_dir(packaged("chart/templates")).unwrap();
    let templates: String = folder.map(|file| read(&file.unwrap().path())).collect();
    for name in schema["properties"].as_object().unwrap().keys().filter(|name| *name != "global") {
        assert!(templates.contains(&format!(".Values.{name}")), "{name} is used nowhere");
    }
}

/// What is requested is no less than what was measured (docs/benchmarks.md): the agent and a pass beside it.
#[test]
fn requests_are_no_less_than_what_was_measured() {
    let page = read(&project("docs/benchmarks.md"));
    let measured = |row: &str| -> u64 {
        let line = page.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap_or_else(|| panic!("no row {row:?}"));
        let value = line.trim_end_matches(" |").rsplit("| ").next().unwrap();
        value.trim_matches('*').trim_end_matches(" kB").replace(',', "").parse().unwrap_or_else(|_| panic!("{line}"))
    };
    let needed = measured("resident memory (`VmRSS`) of the idle agent") + measured("peak resident memory of that `plan`");
    let requests = container(&base())["resources"]["requests"].clone();
    let memory: u64 = requests["memory"].as_str().unwrap().trim_end_matches("Mi").parse().unwrap();
    assert!(memory * 1024 >= needed, "{memory} Mi for {needed} kB");
    assert!(memory * 1024 <= needed * 4, "{memory} Mi for {needed} kB are a waste on each node");
}

/// The example is a spec that `check` takes, with a CA beside it, and a node can be in it that was prepared before.
#[test]
fn the_example_is_a_valid_spec() {
    let ca = project("fixtures/flow/deny-unlisted/ca.pem");
    for folder in ["example/spec", "example/staged"] {
        let material = tempfile::tempdir().unwrap();
        std::fs::copy(&ca, material.path().join("internal-root.pem")).unwrap();
        let mut nodeprep = Command::new(env!("CARGO_BIN_EXE_nodeprep"));
        let output = nodeprep
            .args(["check", "--spec"])
            .arg(packaged(folder).join("spec.toml"))
            .arg("--material")
            .arg(material.path())
            .output()
            .unwrap();
        assert!(output.status.success(), "{folder}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let name = |path: &str| {
        read(&project(path))
            .lines()
            .find(|line| line.trim_start().starts_with("name "))
            .map(|line| line.split('"').nth(1).unwrap().to_owned())
    };
    assert_eq!(name("packaging/kubernetes/example/spec/spec.toml"), name("packaging/kubeadm/cloud-init.yaml"));
}

#[test]
fn versions_are_that_of_the_program() {
    let version = env!("CARGO_PKG_VERSION");
    let [chart] = yaml::read(&read(&packaged("chart/Chart.yaml"))).try_into().unwrap();
    assert_eq!((&chart["version"], &chart["appVersion"]), (&json!(version), &json!(version)));
    let image = container(&base())["image"].clone();
    let (name, tag) = image.as_str().unwrap().rsplit_once(':').unwrap();
    assert_eq!(tag, version);
    for folder in ["example", "example/staged"] {
        let [kustomization] = yaml::read(&read(&packaged(folder).join("kustomization.yaml"))).try_into().unwrap();
        assert_eq!(
            (&kustomization["images"][0]["name"], &kustomization["images"][0]["newTag"]),
            (&json!(name), &json!(version)),
            "{folder}"
        );
    }
    assert!(read(&packaged("give-back/revert.yaml")).contains(&format!("image: {name}:{version}\n")));
}

/// What `make dist` packs of a checkout: the archives, by name.
fn pack(kubernetes: &Path) -> BTreeMap<String, Vec<u8>> {
    let out = tempfile::tempdir().unwrap();
    let mut pack = Command::new(kubernetes.join("pack"));
    let output = pack.arg(out.path()).arg(env!("CARGO_PKG_VERSION")).env("SOURCE_DATE_EPOCH", "951782400").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let files = std::fs::read_dir(out.path()).unwrap().flatten();
    files.map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap())).collect()
}

#[test]
fn archives_are_the_same_wherever_they_are_made() {
    let first = pack(&packaged(""));
    // another checkout: other times, other modes
    let other = tempfile::tempdir().unwrap();
    let copy = Command::new("cp").arg("--recursive").arg(packaged("")).arg(other.path()).status().unwrap();
    assert!(copy.success());
    let other = other.path().join("kubernetes");
    assert!(Command::new("chmod").args(["--recursive", "g+w,o-r"]).arg(&other).status().unwrap().success());
    let second = pack(&other);
    assert_eq!(first.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());
    assert!(first == second, "two builds differ");
    let version = env!("CARGO_PKG_VERSION");
    let out = tempfile::tempdir().unwrap();
    let (chart, manifests) = (format!("nodeprep-chart-{version}.tgz"), format!("nodeprep-kubernetes-{version}.tar.gz"));
    for name in [&chart, &manifests] {
        std::fs::write(out.path().join(name), &first[name]).unwrap();
    }
    // as it comes out of its archive, each is what it was
    let unpacked = Command::new("tar").arg("-xzf").arg(out.path().join(&manifests)).current_dir(out.path()).status().unwrap();
    assert!(unpacked.success());
    for folder in ["base", "example", "give-back", "policy"] {
        let diff = Command::new("diff")
            .arg("-r")
            .arg(packaged(folder))
            .arg(out.path().join(format!("nodeprep-kubernetes-{version}")).join(folder))
            .output();
        let diff = diff.unwrap();
        assert!(diff.status.success(), "{}", String::from_utf8_lossy(&diff.stdout));
    }
    let Some(all) = rendered_values() else { return };
    let packed = rendered(out.path().join(chart).to_str().unwrap(), &[json!({})]).unwrap().into_iter().next().unwrap().unwrap();
    assert_eq!(packed, all["default"]);
}
