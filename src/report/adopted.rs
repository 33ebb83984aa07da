//! What is carried over beside the spec, as lines to copy into it.

use std::fmt::Write as _;

use crate::format::hosts_toml::render::quoted;
use crate::model::endpoint::{Endpoint, Pull};
use crate::model::host::Host;
use crate::spec::adopt::{ALL, Adopted, AdoptedEndpoint};
use crate::spec::{Fallback, Spec};

/// The lines for what counts beside `spec`; what the spec says itself is left out. Files with certificates and logins have to
/// be given by whoever copies them.
#[must_use]
pub fn lines(spec: &Spec, adopted: &Adopted) -> String {
    let mut text = String::new();
    let said: Vec<String> = spec.mirrors.iter().map(|mirror| mirror.source.to_string()).collect();
    for (source, mirror) in adopted.mirrors.iter().filter(|(source, _)| !said.contains(source)) {
        let named = Host::new(source).is_ok_and(|host| spec.access.contains_key(&host));
        if named || mirror.endpoints.is_empty() {
            continue;
        }
        let later = if source == ALL { "not available as source in this version; " } else { "" };
        let _ = writeln!(text, "\n# {later}from {}\n[[mirror]]\nsource = {}", mirror.from, quoted(source));
        let endpoints: Vec<_> = mirror.endpoints.iter().filter_map(AdoptedEndpoint::endpoint).collect();
        let said = |endpoint: &Endpoint| match endpoint.pull {
            Pull::All => quoted(&endpoint.to_string()),
            Pull::Digest => format!("{{ location = {}, pull = \"digest\" }}", quoted(&endpoint.to_string())),
            Pull::Tag => format!("{{ location = {}, pull = \"tag\" }}", quoted(&endpoint.to_string())),
        };
        let sayable = endpoints.iter().filter(|endpoint| !endpoint.verbatim).map(said);
        let _ = writeln!(text, "endpoints = [{}]", sayable.collect::<Vec<_>>().join(", "));
        for endpoint in endpoints.iter().filter(|endpoint| endpoint.verbatim) {
            let _ = writeln!(text, "# cannot be said in a spec: {endpoint}");
        }
        if mirror.closed && spec.fallback == Fallback::Upstream {
            text.push_str("fallback = \"never\"\n");
        }
    }
    for (registry, hosts) in &adopted.headers {
        let mirror = spec.mirrors.iter().find(|mirror| mirror.source.to_string() == *registry);
        for endpoint in mirror.into_iter().flat_map(|mirror| &mirror.endpoints).filter(|endpoint| endpoint.header.is_empty()) {
            let Some(headers) = hosts.get(endpoint.host.as_str()) else { continue };
            let named = headers.all.iter().map(|header| format!("{} = \"…\"", quoted(&header.name)));
            let named = named.collect::<Vec<_>>().join(", ");
            let location = quoted(&endpoint.to_string());
            let _ = writeln!(
                text,
                "\n# from {}\n# an endpoint of {registry}, with the values of that file where they are no secrets\n\
                 # {{ location = {location}, header = {{ {named} }} }}",
                headers.from
            );
        }
    }
    for (host, how) in &adopted.hosts {
        let access = Host::new(host).ok().and_then(|host| spec.access.get(&host));
        let mut keys = String::new();
        if !how.ca.is_empty() && access.is_none_or(|access| access.ca.is_empty() && !access.insecure) {
            keys.push_str("ca = [\"…\"]  # a [[ca]] with trust = \"registries\"\n");
        }
        if how.key.is_some() && access.is_none_or(|access| access.client.is_none()) {
            keys.push_str("client_cert = \"….crt\"\nclient_key = \"….key\"\n");
        }
        if how.login.is_some() && access.is_none_or(|access| access.login.is_none()) {
            keys.push_str("credentials = \"….json\"\n");
        }
        if how.insecure && access.is_none() {
            keys.push_str("insecure = true\n");
        }
        if !keys.is_empty() {
            let _ = writeln!(text, "\n# from {}\n[[registry]]\nhost = {}\n{}", how.from, quoted(host), keys.trim_end());
        }
    }
    text.trim_start().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::secret::Secret;
    use crate::spec::adopt::{AdoptedHost, AdoptedMirror, From};

    #[test]
    fn what_the_spec_lacks_can_be_copied() {
        let document = "version = 1\nfallback = \"upstream\"\n[[mirror]]\nsource = \"quay.io\"\nendpoints = [\"m.example\"]\n";
        let spec = |text: &str| {
            let draft = crate::spec::load::Draft::open("spec.toml", text.as_bytes()).unwrap();
            draft.close(&std::collections::BTreeMap::new(), None).spec.unwrap()
        };
        let from = From { key: "registry.mirrors".into(), file: "/etc/c.toml".into(), line: 3 };
        let endpoint =
            |api_root: &str| AdoptedEndpoint { http: false, host: "old.example".into(), api_root: api_root.into(), pull: Pull::All };
        let endpoints = vec![endpoint("/v2/hub"), endpoint("/odd")];
        let mirror = AdoptedMirror { endpoints, closed: true, http: false, from: from.clone() };
        let mut adopted = Adopted::default();
        for source in ["docker.io", "quay.io", "m.example"] {
            adopted.mirrors.insert(source.into(), mirror.clone());
        }
        let login = Some(Secret::new("user:foreign-s3cret"));
        adopted.hosts.insert("m.example".into(), AdoptedHost { insecure: true, login, from, ..AdoptedHost::default() });
        let lines = lines(&spec(document), &adopted);
        let want = "# from registry.mirrors in /etc/c.toml:3\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"old.example/hub\"]\n\
            # cannot be said in a spec: old.example/odd/ (without /v2)\nfallback = \"never\"\n\n\
            # from registry.mirrors in /etc/c.toml:3\n[[registry]]\nhost = \"m.example\"\ncredentials = \"….json\"\n";
        assert_eq!(lines, want);
        // what is copied is a spec
        let copied = format!("{document}\n{}", lines.replace("credentials = \"….json\"", ""));
        assert_eq!(spec(&copied).mirrors.len(), 2);
    }
}
