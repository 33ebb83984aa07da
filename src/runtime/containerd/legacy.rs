//! `registry.mirrors` of config.toml, which count where no `config_path` is set (`runtime-semantics.md` 1.8).

use crate::format::config_toml::Chain;
use crate::format::hosts_toml::{HostConfig, Url};
use crate::model::host::Host;
use crate::model::place::Place;

/// The hosts that are asked for an image of `host`: endpoints in order, then the registry itself unless an endpoint is it.
///
/// The path of an endpoint is taken as it is when there is one, so `/v2` has to be in it.
pub(super) fn hosts(chain: &Chain, host: &Host) -> Vec<HostConfig> {
    let file = chain.files.first().map_or("config.toml", |path| path.as_str());
    let mirror = chain.mirrors.get(host.as_str()).or_else(|| chain.mirrors.get("*"));
    let mut hosts = Vec::new();
    let mut named = false;
    for endpoint in mirror.into_iter().flat_map(|mirror| &mirror.endpoints) {
        let with_scheme = if endpoint.contains("://") { endpoint.clone() } else { format!("{}://{endpoint}", default_scheme(endpoint)) };
        let Ok(mut url) = Url::parse(&with_scheme, true) else { continue };
        // `https://m/` has a path, `https://m` has none
        if url.api_root.is_empty() && !with_scheme.split_once("://").is_some_and(|(_, rest)| rest.contains('/')) {
            "/v2".clone_into(&mut url.api_root);
        }
        named |= url.host == host.as_str();
        let at = mirror.map_or_else(|| Place::file(file), |mirror| mirror.at.clone());
        hosts.push(configured(chain, url, at));
    }
    if !named {
        let api = host.api();
        let url = Url { scheme: default_scheme(api.as_str()).into(), host: api.as_str().into(), api_root: "/v2".into() };
        hosts.push(configured(chain, url, Place::file(file)));
    }
    hosts
}

/// Plain HTTP for localhost, whatever the port (seen on 1.6.20 and 1.7.24).
pub(super) fn default_scheme(endpoint: &str) -> &'static str {
    let host = Host::from_reference(endpoint.split('/').next().unwrap_or_default());
    match host {
        Ok(host) if host.is_loopback() => "http",
        _ => "https",
    }
}

fn configured(chain: &Chain, url: Url, at: Place) -> HostConfig {
    let tls = chain.configs.get(&url.host).and_then(|config| config.tls.clone());
    let mut config = HostConfig { url: Some(url), ..HostConfig::bare(at) };
    // here TLS settings do not turn http into https
    if let Some(tls) = tls.filter(|_| config.url.as_ref().is_some_and(|url| url.scheme == "https")) {
        config.skip_verify = tls.skip_verify.then_some(true);
        config.ca = tls.ca.map(|ca| vec![ca]);
        config.client = tls.client.map(|(cert, key)| vec![(cert, Some(key))]);
    }
    config
}
