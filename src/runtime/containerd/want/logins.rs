//! Logins in config.toml: `registry.configs."HOST".auth`, for versions that do not send a header of hosts.toml to where tokens
//! are issued (`runtime-semantics.md` 1.7; seen on 1.6.20 and 1.7.24). It goes together with `config_path` (1.8).

use std::borrow::Cow;

use super::super::Dialect;
use crate::format::auth_json;
use crate::format::config_toml::{Chain, Setting, registry_key};
use crate::format::hosts_toml::render::quoted;
use crate::model::cert::base64;
use crate::model::host::Host;
use crate::model::order;
use crate::model::secret::Secret;
use crate::spec::{Access, LoginBy, Spec};

/// The logins that go there, by the host that is contacted. Where every version sends the header, that is what is used: it
/// needs no restart, and from 2.1 on a login in config.toml brings back the old way of pulling.
pub(super) fn wanted(spec: &mut Cow<'_, Spec>, dialects: &[Dialect]) -> Vec<(Host, Secret)> {
    let by_config = |access: &Access| access.login.as_ref().is_some_and(|login| login.by == LoginBy::Config);
    if !spec.access.values().any(by_config) {
        return Vec::new();
    }
    let needed = dialects.iter().any(|dialect| !dialect.transfers());
    let mut found = Vec::new();
    for (host, access) in &mut spec.to_mut().access {
        let Some(login) = access.login.as_mut().filter(|login| login.by == LoginBy::Config) else { continue };
        if needed {
            found.push((host.api(), login.basic.clone()));
        } else {
            login.by = LoginBy::Header;
        }
    }
    order::sort(&mut found);
    found.dedup_by(|one, other| one.0 == other.0);
    found
}

/// Whether they are there already.
pub(super) fn are_in(logins: &[(Host, Secret)], chain: &Chain) -> bool {
    let is_in = |(host, login): &(Host, Secret)| chain.configs.get(host.as_str()).is_some_and(|how| how.basic.as_ref() == Some(login));
    logins.iter().all(is_in)
}

/// Everything that must not be seen.
pub(super) fn secrets(logins: &[(Host, Secret)]) -> Vec<Secret> {
    logins.iter().flat_map(|(_, login)| auth_json::forms(login)).collect()
}

/// A key and its value.
pub(super) struct Login {
    key: Vec<String>,
    raw: String,
    why: String,
}

impl Login {
    /// As a setting of config.toml.
    pub(super) fn setting(&self) -> Setting<'_> {
        Setting { key: self.key.iter().map(String::as_str).collect(), raw: self.raw.clone(), why: self.why.clone() }
    }
}

/// The keys of a file of this version.
pub(super) fn settings(logins: &[(Host, Secret)], version: i64) -> Vec<Login> {
    let one = |(host, login): &(Host, Secret)| Login {
        key: registry_key(version).into_iter().chain(["configs", host.as_str(), "auth", "auth"]).map(ToOwned::to_owned).collect(),
        raw: quoted(&base64(login.expose())),
        why: format!("the login for {host} stands in config.toml, as the spec accepts: it wants a restart"),
    };
    logins.iter().map(one).collect()
}

/// The key, and the tables on the way to it that may have to be added.
pub(super) fn keys(key: &[&str]) -> Vec<Vec<String>> {
    let least = registry_key(2).len() + 1;
    (least..=key.len()).map(|length| key[..length].iter().map(ToString::to_string).collect()).collect()
}
