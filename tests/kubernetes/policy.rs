//! The admission policy: its expressions are evaluated against requests as the API server makes them.

use serde_json::{Value, json};

use crate::tools::Tool;
use crate::{packaged, read, yaml};

const NODEPREP: &str = "nodeprep";

fn policy() -> Value {
    let [policy] = yaml::read(&read(&packaged("policy/policy.yaml"))).try_into().unwrap();
    policy
}

/// `AdmissionRequest` of admission.k8s.io/v1, as far as nobody but the policy decides: what is empty is missing.
fn request(user: &str, groups: &[&str], operation: &str, group: &str, resource: &str) -> Value {
    let (resource, sub) = resource.split_once('/').map_or((resource, None), |(resource, sub)| (resource, Some(sub)));
    let mut request = json!({
        "uid": "1", "operation": operation, "namespace": NODEPREP, "name": "x", "dryRun": false,
        "resource": {"group": group, "version": "v1", "resource": resource},
        "userInfo": {"username": user},
    });
    if !groups.is_empty() {
        request["userInfo"]["groups"] = json!(groups);
    }
    if let Some(sub) = sub {
        request["subResource"] = json!(sub);
    }
    request
}

/// Whether the policy asks to see this request at all.
fn matches(policy: &Value, request: &Value) -> bool {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let sub = text(&request["subResource"]);
    let resource = [text(&request["resource"]["resource"]), sub.clone()].join(if sub.is_empty() { "" } else { "/" });
    let has = |list: &Value, word: &str| list.as_array().unwrap().iter().any(|one| one == word);
    policy["spec"]["matchConstraints"]["resourceRules"].as_array().unwrap().iter().any(|rule| {
        has(&rule["apiGroups"], &text(&request["resource"]["group"]))
            && has(&rule["operations"], &text(&request["operation"]))
            && has(&rule["resources"], &resource)
    })
}

#[test]
fn only_those_who_are_named_write_what_the_nodes_become() {
    const CONTROLLERS: &str = "system:serviceaccount:kube-system";
    let mine = "system:serviceaccount:argocd:argocd-application-controller";
    let (admins, developers): (&[&str], &[&str]) = (&["platform-admins", "system:authenticated"], &["developers", "system:authenticated"]);
    let by = |name: &str| format!("{CONTROLLERS}:{name}");
    let mut cases = Vec::new();
    for (group, resource, operation) in [
        ("", "configmaps", "CREATE"),
        ("", "configmaps", "UPDATE"),
        ("", "configmaps", "DELETE"),
        ("", "secrets", "UPDATE"),
        ("", "serviceaccounts", "UPDATE"),
        ("apps", "daemonsets", "UPDATE"),
        ("apps", "daemonsets", "DELETE"),
        ("apps", "deployments", "CREATE"),
        ("batch", "jobs", "CREATE"),
        ("", "pods", "CREATE"),
        ("", "pods", "UPDATE"),
        ("", "pods/exec", "CONNECT"),
        ("", "pods/attach", "CONNECT"),
        ("", "pods/ephemeralcontainers", "UPDATE"),
    ] {
        for (user, groups, allowed) in [
            (mine, &[][..], true),
            ("anna", admins, true),
            ("otto", developers, false),
            ("otto", &[], false),
            ("system:serviceaccount:argocd:argocd-server", developers, false),
            ("system:node:worker-1", &["system:nodes"], false),
            (&by("job-controller"), developers, false),
        ] {
            cases.push((request(user, groups, operation, group, resource), allowed));
        }
    }
    for (group, resource, operation, controller, allowed) in [
        ("", "configmaps", "CREATE", "root-ca-cert-publisher", true),
        ("", "secrets", "CREATE", "root-ca-cert-publisher", false),
        ("", "serviceaccounts", "CREATE", "service-account-controller", true),
        ("", "pods", "CREATE", "daemon-set-controller", true),
        ("", "pods/exec", "CONNECT", "daemon-set-controller", false),
        ("", "pods", "CREATE", "replicaset-controller", false),
        ("apps", "controllerrevisions", "CREATE", "daemon-set-controller", true),
        ("apps", "daemonsets", "UPDATE", "daemon-set-controller", false),
        ("apps", "daemonsets", "DELETE", "namespace-controller", true),
        ("", "secrets", "DELETE", "namespace-controller", true),
    ] {
        cases.push((request(&by(controller), &["system:serviceaccounts"], operation, group, resource), allowed));
    }
    let policy = policy();
    for (request, _) in &cases {
        assert!(matches(&policy, request), "nobody would be asked: {request}");
    }
    // what goes on all the time is none of its business
    for (group, resource, operation) in
        [("apps", "daemonsets/status", "UPDATE"), ("", "pods/status", "UPDATE"), ("", "pods/eviction", "CREATE"), ("", "pods", "DELETE")]
    {
        assert!(!matches(&policy, &request("system:node:worker-1", &["system:nodes"], operation, group, resource)), "{resource}");
    }
    let [validation] = policy["spec"]["validations"].as_array().unwrap().as_slice() else { panic!("not one validation") };
    let requests: Vec<Value> = cases.iter().map(|(request, _)| json!({"request": request})).collect();
    let question = json!({"cases": requests, "variables": policy["spec"]["variables"], "validation": validation["expression"], "message": validation["messageExpression"]});
    let Some(answers) = Tool::Cel.asked(&question) else { return };
    for ((request, allowed), answer) in cases.iter().zip(answers.as_array().unwrap()) {
        assert_eq!(answer[0], *allowed, "{request}");
        let message = answer[1].as_str().unwrap();
        assert!(message.contains(request["userInfo"]["username"].as_str().unwrap()) && message.len() < 5 << 10, "{message}");
    }
}

#[test]
fn the_policy_is_bound_and_about_the_namespace() {
    let policy = policy();
    let [binding] = yaml::read(&read(&packaged("policy/binding.yaml"))).try_into().unwrap();
    let [namespace] = yaml::read(&read(&packaged("base/namespace.yaml"))).try_into().unwrap();
    assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
    assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    let selector = &policy["spec"]["matchConstraints"]["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"];
    assert_eq!(selector, &namespace["metadata"]["name"]);
}
