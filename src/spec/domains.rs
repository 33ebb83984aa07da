//! The domains that `unlisted = "deny"` closes where a runtime can only close what it names: registries.conf has no entry for
//! "everything else", but `*.io` covers a whole top-level domain, sub-domains and ports included (seen on skopeo 1.9.3).
//!
//! What lives here: the list that is shipped: the generic domains in which public registries stand, and those of countries.
//! What must not: domains that are reserved for private use (`.internal`, `.local`, `.lan`, `.home.arpa`, `.test`).

use crate::model::host::Host;
use crate::model::suffix::is_below;

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

/// Whether a host lies in one of them in the eyes of containers/image ([`is_below`]). Addresses and names without a dot never
/// do.
#[must_use]
pub fn denied(host: &Host) -> bool {
    let top = host.name().rsplit_once('.').map(|(_, domain)| domain.to_ascii_lowercase());
    top.is_some_and(|domain| DENIED.binary_search(&domain.as_str()).is_ok() && is_below(host, &domain))
}

/// A name that the entry for its own domain wins over: with a label of one letter both prefixes are of one length, and then
/// `*` comes first (`runtime-semantics.md` 2.3).
#[must_use]
pub fn loses_to_its_domain(host: &Host) -> bool {
    let label = host.as_str().rsplit_once('.').map_or("", |(label, _)| label);
    denied(host) && host.port().is_none() && label.len() == 1
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
        assert!(loses_to_its_domain(&Host::fixed("x.io")) && !loses_to_its_domain(&Host::fixed("xy.io")));
    }
}
