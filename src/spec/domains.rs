//! The domains that `unlisted = "deny"` closes where a runtime can only close what it names: registries.conf has no entry for
//! "everything else", but `*.io` covers a whole top-level domain, sub-domains and ports included (seen on skopeo 1.9.3).
//!
//! What lives here: the list that is shipped: the generic domains in which public registries stand, and those of countries.
//! What must not: domains that are reserved for private use (`.internal`, `.local`, `.lan`, `.home.arpa`, `.test`).

use super::Spec;
use crate::model::host::Host;
use crate::model::suffix::{Suffix, is_below};

/// Top-level domains, sorted.
pub const DENIED: [&str; 141] = [
    "ae",
    "ai",
    "am",
    "app",
    "ar",
    "at",
    "au",
    "aws",
    "az",
    "azure",
    "bd",
    "be",
    "bg",
    "biz",
    "br",
    "by",
    "ca",
    "cc",
    "center",
    "ch",
    "cl",
    "cloud",
    "cn",
    "co",
    "com",
    "cr",
    "cy",
    "cz",
    "de",
    "dev",
    "digital",
    "dk",
    "dz",
    "ec",
    "edu",
    "ee",
    "eg",
    "engineering",
    "es",
    "eu",
    "fi",
    "fm",
    "fr",
    "ge",
    "gg",
    "gl",
    "goog",
    "google",
    "gov",
    "gr",
    "group",
    "hk",
    "host",
    "hosting",
    "hr",
    "hu",
    "id",
    "ie",
    "il",
    "im",
    "in",
    "info",
    "int",
    "io",
    "ir",
    "is",
    "it",
    "jp",
    "ke",
    "kr",
    "kz",
    "li",
    "link",
    "live",
    "lk",
    "lt",
    "lu",
    "lv",
    "ly",
    "ma",
    "md",
    "me",
    "microsoft",
    "mil",
    "mk",
    "mt",
    "mx",
    "my",
    "net",
    "network",
    "ng",
    "nl",
    "no",
    "np",
    "nz",
    "one",
    "online",
    "org",
    "pe",
    "ph",
    "pk",
    "pl",
    "pro",
    "pt",
    "ro",
    "rocks",
    "rs",
    "ru",
    "run",
    "sa",
    "se",
    "services",
    "sg",
    "sh",
    "si",
    "site",
    "sk",
    "software",
    "solutions",
    "space",
    "sr",
    "su",
    "systems",
    "team",
    "tech",
    "th",
    "tn",
    "to",
    "tools",
    "tr",
    "tv",
    "tw",
    "ua",
    "uk",
    "us",
    "uz",
    "ve",
    "vn",
    "works",
    "world",
    "ws",
];

impl Spec {
    /// The domains that `unlisted = "deny"` closes: those of the document take the place of the shipped ones.
    pub fn closed_domains(&self) -> impl Iterator<Item = &str> {
        let (own, shipped) = match &self.deny_domains {
            Some(own) => (own.as_slice(), &[][..]),
            None => (&[][..], &DENIED[..]),
        };
        own.iter().map(Suffix::domain).chain(shipped.iter().copied())
    }

    /// Whether a host lies in one of them. A domain that a document names is closed itself, too, where it can be a registry.
    #[must_use]
    pub fn closes_domain_of(&self, host: &Host) -> bool {
        let below = |domain: &Suffix| is_below(host, domain.domain()) || host.name() == domain.domain() && domain.domain().contains('.');
        self.deny_domains.as_ref().map_or_else(|| denied(host), |domains| domains.iter().any(below))
    }

    /// A name that the entry for its own domain wins over: with a label of one letter both prefixes are of one length, and
    /// then `*` comes first (`runtime-semantics.md` 2.3).
    #[must_use]
    pub fn loses_to_its_domain(&self, host: &Host) -> bool {
        let label = |domain: &str| host.as_str().strip_suffix(domain).and_then(|rest| rest.strip_suffix('.')).map_or(0, str::len);
        host.port().is_none() && self.closed_domains().any(|domain| label(domain) == 1)
    }
}

/// Whether a host lies in one of them in the eyes of containers/image ([`is_below`]). Addresses and names without a dot never
/// do.
#[must_use]
fn denied(host: &Host) -> bool {
    let top = host.name().rsplit_once('.').map(|(_, domain)| domain.to_ascii_lowercase());
    top.is_some_and(|domain| DENIED.binary_search(&domain.as_str()).is_ok() && is_below(host, &domain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_sorted_and_private_names_are_not_in_it() {
        assert!(DENIED.is_sorted());
        for open in [
            "registry.corp.internal",
            "nas.local",
            "10.0.0.1:5000",
            "[2001:db8::1]",
            "localhost:5000",
            "mirror",
            "a.example",
            "hub.iodine.io",
        ] {
            assert!(!denied(&Host::new(open).unwrap()), "{open}");
        }
        for closed in ["quay.io", "docker.io", "registry.k8s.io:443", "public.ecr.aws", "mcr.microsoft.com", "a.b.pkg.dev:8443"] {
            assert!(denied(&Host::new(closed).unwrap()), "{closed}");
        }
    }

    /// Domains of a document: they replace the shipped ones, and are closed themselves where they can be registries.
    #[test]
    fn domains_of_a_document() {
        let spec = |more: &str| {
            let text = format!(
                "version = 1\nfallback = 'never'\nunlisted = 'deny'\n{more}[[mirror]]\nsource = 'quay.io'\nendpoints = ['m.example']\n"
            );
            let closed =
                crate::spec::load::Draft::open("spec.toml", text.as_bytes()).unwrap().close(&std::collections::BTreeMap::new(), None);
            closed.spec.unwrap()
        };
        let (own, shipped) = (spec("deny_domains = ['io', 'corp.example']\n"), spec(""));
        for (host, by_own, by_shipped) in [
            ("ghcr.io", true, true),
            ("corp.example", true, false),
            ("corp.example:5000", true, false),
            ("a.corp.example:5000", true, false),
            ("other.example", false, false),
            ("mcr.microsoft.com", false, true),
            ("io", false, false),
            ("xcorp.example", false, false),
        ] {
            let host = Host::new(host).unwrap();
            assert_eq!((own.closes_domain_of(&host), shipped.closes_domain_of(&host)), (by_own, by_shipped), "{host}");
        }
        assert_eq!((own.closed_domains().count(), shipped.closed_domains().count()), (2, DENIED.len()));
        for (host, by_own, by_shipped) in
            [("x.io", true, true), ("xy.io", false, false), ("x.corp.example", true, false), ("x.com", false, true)]
        {
            let host = Host::fixed(host);
            assert_eq!((own.loses_to_its_domain(&host), shipped.loses_to_its_domain(&host)), (by_own, by_shipped), "{host}");
        }
    }
}
