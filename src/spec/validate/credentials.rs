//! Logins from dockerconfigjson files.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::super::decode::At;
use super::super::problems::Problems;
use super::Materials;
use super::name::canonical;
use crate::model::cert::base64_decode;
use crate::model::host::{HUB, Host};
use crate::model::secret::Secret;
use crate::spec::{Login, LoginBy};

/// Files that were read already: many registries share one.
#[derive(Default)]
pub struct Seen(HashMap<String, Option<Config>>);

/// A dockerconfigjson file.
struct Config {
    auths: Map<String, Value>,
    /// Hosts whose login a helper program holds.
    helpers: Vec<String>,
    /// A helper program holds the logins that are not inside.
    store: bool,
}

/// The login for `host` in the file that `credentials` names.
pub fn check(
    written: &At<String>,
    host: &Host,
    seen: &mut Seen,
    materials: &mut Materials<'_>,
    problems: &mut Problems<'_>,
) -> Option<Login> {
    if !seen.0.contains_key(&written.value) {
        let config = materials.get(written, problems).and_then(|bytes| config(bytes, written, problems));
        seen.0.insert(written.value.clone(), config);
    }
    let config = seen.0.get(&written.value)?.as_ref()?;
    login(config, written, host, problems)
}

fn config(bytes: &[u8], written: &At<String>, problems: &mut Problems<'_>) -> Option<Config> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let help = "write it as kubectl create secret docker-registry or podman login do: {\"auths\": {\"host\": {\"auth\": …}}}";
    // the parser's own words may quote the file
    let Ok(json) = serde_json::from_slice::<Value>(bytes) else {
        problems.error("credentials-unreadable", &written.span, format!("{} is no JSON", written.value), help);
        return None;
    };
    let object = |key: &str| json.get(key).and_then(Value::as_object);
    let helpers: Vec<String> = object("credHelpers").into_iter().flat_map(|map| map.keys().cloned()).collect();
    let store = json.get("credsStore").is_some_and(|store| store.as_str().is_some_and(|store| !store.is_empty()));
    match object("auths").cloned() {
        Some(auths) => Some(Config { auths, helpers, store }),
        None if !helpers.is_empty() || store => Some(Config { auths: Map::new(), helpers, store }),
        None => {
            let what = format!("{} has no \"auths\": it is no dockerconfigjson", written.value);
            problems.error("credentials-unreadable", &written.span, what, help);
            None
        }
    }
}

fn login(config: &Config, written: &At<String>, host: &Host, problems: &mut Problems<'_>) -> Option<Login> {
    let file = &written.value;
    let mut wrong = |code, what: String, help: &str| {
        problems.error(code, &written.span, what, help);
        None
    };
    let plain = "write \"auth\" as base64 of user:password";
    let Some(entry) = config.auths.iter().find(|(key, _)| is_for(key, host)).map(|(_, entry)| entry) else {
        if config.helpers.iter().any(|key| is_for(key, host)) || config.auths.is_empty() && config.store {
            let what = format!("{file}: a credential helper holds the login for {host}");
            return wrong("credentials-unsupported", what, "log in to a file without helper, as `podman login --authfile` does");
        }
        let mut hosts: Vec<String> = config.auths.keys().take(8).map(|key| shown(key)).collect();
        if config.auths.len() > hosts.len() {
            hosts.push("…".to_owned());
        }
        let has = if hosts.is_empty() { "is empty".to_owned() } else { format!("has {}", hosts.join(", ")) };
        let what = format!("{file} has no login for {host}; it {has}");
        return wrong("credentials-no-host", what, "add the host's login to the file, or name another file");
    };
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    if text("identitytoken").is_some() || text("registrytoken").is_some() {
        let what = format!("{file}: the login for {host} is a token, which runtimes do not take from a file");
        return wrong("credentials-unsupported", what, "log in with user and password or an access key");
    }
    let basic = match (text("auth"), text("username"), text("password")) {
        (Some(coded), _, _) => {
            let Some(decoded) = base64_decode(coded.trim()).and_then(|bytes| String::from_utf8(bytes).ok()) else {
                return wrong("credentials-unreadable", format!("{file}: \"auth\" of {host} is no base64 text"), plain);
            };
            // Docker pads with NUL
            decoded.trim_end_matches('\0').to_owned()
        }
        (None, Some(user), Some(password)) => format!("{user}:{password}"),
        _ if config.store => {
            let what = format!("{file}: a credential helper holds the login for {host}");
            return wrong("credentials-unsupported", what, "log in to a file without helper, as `podman login --authfile` does");
        }
        _ => {
            return wrong(
                "credentials-unreadable",
                format!("{file}: the login for {host} has neither \"auth\" nor user and password"),
                plain,
            );
        }
    };
    let sound = basic.split_once(':').is_some_and(|(user, password)| !user.is_empty() && !password.is_empty());
    if !sound || basic.chars().any(char::is_control) {
        return wrong("credentials-unreadable", format!("{file}: \"auth\" of {host} is no user:password"), plain);
    }
    Some(Login { basic: Secret::new(basic), by: LoginBy::Header })
}

/// Whether a key of `auths` is for this host: `host`, `https://host`, `https://host/v1/`, any name of Docker Hub.
fn is_for(key: &str, host: &Host) -> bool {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let key = key.trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    if key == "index.docker.io" {
        return canonical(host) == HUB;
    }
    Host::from_reference(key).is_ok_and(|key| canonical(&key) == canonical(host))
}

/// A key of `auths` is a host; whatever else somebody put there is not shown.
fn shown(key: &str) -> String {
    let bare = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = bare.split('/').next().unwrap_or_default();
    Host::from_reference(host).map_or_else(|_| "something that is no host".to_owned(), |host| host.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_auths_have_many_forms() {
        let host = |text| Host::new(text).unwrap();
        for key in ["reg.corp:5000", "https://reg.corp:5000", "http://reg.corp:5000/", "https://reg.corp:5000/v1/", "reg.corp:5000/v2/"] {
            assert!(is_for(key, &host("reg.corp:5000")), "{key}");
        }
        for key in ["https://index.docker.io/v1/", "docker.io", "registry-1.docker.io", "docker.io:443"] {
            assert!(is_for(key, &host("docker.io")) && is_for(key, &host("registry-1.docker.io")), "{key}");
        }
        assert!(!is_for("reg.corp", &host("reg.corp:5000")));
        assert!(!is_for("reg.corp/team", &host("reg.corp")));
        assert_eq!(shown("user:pass@host"), "something that is no host");
    }
}
