//! The table of distribution families. Adding one is a row and its fixtures; which one a node belongs to is told in `told`.

use std::fmt::Write as _;

use crate::model::cert::Cert;
use crate::model::path::NodePath;

/// Distributions whose trust stores work alike (`runtime-semantics.md` 6.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// As it is shown.
    pub name: &'static str,
    /// `ID` of os-release; one that ends with `-` stands for every `ID` that begins so.
    pub ids: &'static [&'static str],
    /// Words of `ID_LIKE`, asked when the `ID` is not known.
    pub likes: &'static [&'static str],
    /// What shows the family where os-release says nothing.
    pub sign: &'static str,
    /// Where anchors are put.
    pub anchor_dir: &'static str,
    /// Which files there are taken for anchors.
    pub reads: Reads,
    /// How the names of ours end.
    pub ending: &'static str,
    /// How many certificates a file there may hold.
    pub certs_per_file: CertsPerFile,
    /// The command that builds the bundle from the anchors.
    pub refresh: &'static [&'static str],
    /// What is added to it when an anchor was removed or replaced.
    pub fresh: &'static [&'static str],
    /// Where the command may be: one of them shows that it is there.
    pub tools: &'static [&'static str],
    /// The package that it comes with.
    pub package: &'static str,
    /// The bundle file that Go programs read.
    pub bundle: &'static str,
    /// What the bundle is made from, beside the anchors.
    pub source: Source,
    /// For temporary files: on the same file system, and read by nobody (rule 20).
    pub stage_dir: &'static str,
    /// Certificates without CA flag get into the bundle, too.
    pub keeps_non_ca: bool,
    /// What our tests run against.
    pub tested: Tested,
}

/// Which files of the anchor folder are taken for anchors: what is temporary must not be among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// Those with the family's ending, and in folders below (O04).
    Below,
    /// Those with the family's ending.
    Ending,
    /// Every one that does not begin with a dot, glued together as they are.
    Visible,
    /// Every one, hidden and temporary ones too (O05).
    Every,
}

impl Reads {
    const fn text(self) -> &'static str {
        match self {
            Self::Below => "by ending, also in folders below",
            Self::Ending => "by ending",
            Self::Visible => "every file that is not hidden",
            Self::Every => "every file, hidden ones too",
        }
    }
}

/// How many certificates an anchor file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertsPerFile {
    /// One: `openssl rehash` skips files with more (O03).
    One,
    /// Any number.
    Many,
}

/// Whether it is a link that `openssl rehash` makes beside the certificates (`0a1b2c3d.0`), in a folder of anchors: a command's
/// work, like the bundle, and named by nobody.
#[must_use]
pub fn is_rehashed(path: &NodePath) -> bool {
    let hash = path.name().split_once('.').is_some_and(|(hash, number)| {
        hash.len() == 8
            && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
            && !number.is_empty()
            && number.bytes().all(|byte| byte.is_ascii_digit())
    });
    hash && path.parent().is_some_and(|dir| FAMILIES.iter().any(|family| family.anchor_dir == dir.as_str()))
}

/// What a bundle is made from beside the anchors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Shipped files that a list enables: the list, and the folder that it speaks of.
    Listed(&'static str, &'static str),
    /// Nothing: shipped certificates stand in the anchor folder, too.
    Anchors,
    /// Files in several forms that the command alone understands.
    Own,
}

/// What stands behind a row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tested {
    /// The family's own command.
    Real(&'static str),
    /// The program that the family's command is made of, in a root that is laid out by the rules in its source.
    Inside(&'static str),
    /// Its published rules alone.
    Rules(&'static str),
}

impl Tested {
    fn text(self) -> String {
        match self {
            Self::Real(tool) => format!("real tool: {tool}"),
            Self::Inside(tool) => format!("real {tool} inside; layout and script around it by published rules"),
            Self::Rules(of) => format!("published rules: {of}"),
        }
    }
}

const UPDATE_CA_CERTIFICATES: &[&str] = &["/usr/sbin/update-ca-certificates", "/usr/bin/update-ca-certificates"];

/// The families that this version knows, the most specific first: names of commands and folders overlap
/// (`runtime-semantics.md` 6.4).
pub static FAMILIES: [Family; 7] = [
    Family {
        name: "Flatcar",
        ids: &["flatcar"],
        likes: &["flatcar"],
        sign: "/usr/share/flatcar",
        anchor_dir: "/etc/ssl/certs",
        reads: Reads::Ending,
        ending: ".pem",
        certs_per_file: CertsPerFile::One,
        // any argument but --skip-rehash makes it print how it is used, and succeed (O07)
        refresh: &["update-ca-certificates"],
        fresh: &[],
        tools: UPDATE_CA_CERTIFICATES,
        package: "app-misc/ca-certificates",
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        source: Source::Anchors,
        stage_dir: "/etc/ssl/.nodeprep-stage",
        keeps_non_ca: true,
        tested: Tested::Inside("openssl rehash"),
    },
    Family {
        name: "RHEL",
        ids: &["rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn", "openEuler", "azurelinux", "mariner", "rhcos"],
        likes: &["rhel", "fedora", "centos"],
        sign: "/etc/pki/ca-trust/source/anchors",
        anchor_dir: "/etc/pki/ca-trust/source/anchors",
        reads: Reads::Every,
        ending: ".crt",
        certs_per_file: CertsPerFile::Many,
        refresh: &["update-ca-trust", "extract"],
        fresh: &[],
        tools: &["/usr/bin/update-ca-trust", "/usr/sbin/update-ca-trust"],
        package: "ca-certificates",
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        source: Source::Own,
        stage_dir: "/etc/pki/ca-trust/.nodeprep-stage",
        keeps_non_ca: false,
        tested: Tested::Inside("p11-kit trust"),
    },
    Family {
        name: "SUSE",
        ids: &["sles", "sled", "sles_sap", "sle_hpc", "suse", "opensuse", "opensuse-", "sle-", "sl-micro", "suse-"],
        likes: &["suse", "opensuse", "sles"],
        sign: "/etc/pki/trust/anchors",
        anchor_dir: "/etc/pki/trust/anchors",
        reads: Reads::Every,
        ending: ".crt",
        certs_per_file: CertsPerFile::Many,
        refresh: &["update-ca-certificates"],
        // one option only: older ones look at the first word alone
        fresh: &["-f"],
        tools: UPDATE_CA_CERTIFICATES,
        package: "ca-certificates",
        bundle: "/var/lib/ca-certificates/ca-bundle.pem",
        source: Source::Own,
        // not below /etc/pki/trust: p11-kit reads it, and ca-certificates.path watches it
        stage_dir: "/etc/pki/.nodeprep-stage",
        keeps_non_ca: false,
        tested: Tested::Inside("p11-kit trust"),
    },
    Family {
        name: "Arch",
        ids: &["arch", "archarm", "manjaro", "endeavouros"],
        likes: &["arch", "archlinux"],
        sign: "/etc/ca-certificates/trust-source/anchors",
        anchor_dir: "/etc/ca-certificates/trust-source/anchors",
        reads: Reads::Every,
        ending: ".crt",
        certs_per_file: CertsPerFile::Many,
        refresh: &["update-ca-trust"],
        fresh: &[],
        tools: &["/usr/bin/update-ca-trust", "/usr/sbin/update-ca-trust"],
        package: "ca-certificates-utils",
        bundle: "/etc/ca-certificates/extracted/tls-ca-bundle.pem",
        source: Source::Own,
        stage_dir: "/etc/ca-certificates/.nodeprep-stage",
        keeps_non_ca: false,
        tested: Tested::Inside("p11-kit trust"),
    },
    Family {
        name: "Photon",
        ids: &["photon"],
        likes: &["photon"],
        sign: "/usr/bin/rehash_ca_certificates.sh",
        anchor_dir: "/etc/ssl/certs",
        reads: Reads::Ending,
        ending: ".pem",
        certs_per_file: CertsPerFile::One,
        refresh: &["rehash_ca_certificates.sh"],
        fresh: &[],
        tools: &["/usr/bin/rehash_ca_certificates.sh"],
        package: "openssl-c_rehash",
        bundle: "/etc/pki/tls/certs/ca-bundle.crt",
        source: Source::Anchors,
        stage_dir: "/etc/ssl/.nodeprep-stage",
        keeps_non_ca: true,
        tested: Tested::Inside("openssl rehash"),
    },
    Family {
        name: "Alpine",
        ids: &["alpine", "wolfi", "chainguard", "postmarketos"],
        likes: &["alpine", "wolfi"],
        sign: "/etc/alpine-release",
        anchor_dir: "/usr/local/share/ca-certificates",
        reads: Reads::Visible,
        ending: ".crt",
        certs_per_file: CertsPerFile::One,
        refresh: &["update-ca-certificates"],
        fresh: &[],
        tools: UPDATE_CA_CERTIFICATES,
        package: "ca-certificates",
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        source: Source::Listed("/etc/ca-certificates.conf", "/usr/share/ca-certificates"),
        stage_dir: "/usr/local/share/.nodeprep-stage",
        keeps_non_ca: true,
        tested: Tested::Rules("update-ca.c of Alpine's ca-certificates"),
    },
    Family {
        name: "Debian",
        ids: &["debian", "ubuntu"],
        likes: &["debian", "ubuntu"],
        sign: "/usr/local/share/ca-certificates",
        anchor_dir: "/usr/local/share/ca-certificates",
        reads: Reads::Below,
        ending: ".crt",
        certs_per_file: CertsPerFile::One,
        refresh: &["update-ca-certificates"],
        fresh: &["--fresh"],
        tools: UPDATE_CA_CERTIFICATES,
        package: "ca-certificates",
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        source: Source::Listed("/etc/ca-certificates.conf", "/usr/share/ca-certificates"),
        stage_dir: "/usr/local/share/.nodeprep-stage",
        keeps_non_ca: true,
        tested: Tested::Real("update-ca-certificates"),
    },
];

/// While this variable says `true`, `yes` or `1`, SUSE's command does nothing but leave a mark for the next boot (O08:
/// `update-ca-certificates` of openSUSE's ca-certificates).
pub const IN_TRANSACTION: &str = "TRANSACTIONAL_UPDATE";

impl Family {
    /// The command that makes the store see its anchors. `removed`: an anchor of ours went away or was replaced; Debian keeps
    /// stale links otherwise (rule 21; O01, O02).
    #[must_use]
    pub fn refresh(&self, removed: bool) -> Vec<String> {
        let more = if removed { self.fresh } else { &[] };
        self.refresh.iter().chain(more).map(|part| (*part).to_owned()).collect()
    }

    /// Whether the store's bundle takes the certificate up.
    #[must_use]
    pub fn exports(&self, cert: &Cert) -> bool {
        self.keeps_non_ca || cert.is_anchor()
    }

    /// Whether a file of this name in the anchor folder is taken for an anchor.
    #[must_use]
    pub fn takes(&self, name: &str) -> bool {
        match self.reads {
            Reads::Below | Reads::Ending => name.len() > self.ending.len() && name.ends_with(self.ending),
            Reads::Visible => !name.starts_with('.'),
            Reads::Every => true,
        }
    }
}

/// The table as the document shows it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from(
        "| family | `ID` or `ID_LIKE` in os-release | anchors | what is taken there | command | bundle | without CA flag | tested with |\n\
         |---|---|---|---|---|---|---|---|\n",
    );
    for family in &FAMILIES {
        let mut names: Vec<&str> = Vec::new();
        for name in family.ids.iter().chain(family.likes) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let names: Vec<String> = names.into_iter().map(|name| format!("`{name}{}`", if name.ends_with('-') { "…" } else { "" })).collect();
        let fresh = if family.fresh.is_empty() { String::new() } else { format!(", `{}` after a removal", family.fresh.join(" ")) };
        let _ = writeln!(
            text,
            "| {} | {} | `{}/nodeprep-…{}`, {} | {} | `{}`{fresh} | `{}` | {} | {} |",
            family.name,
            names.join(" "),
            family.anchor_dir,
            family.ending,
            if family.certs_per_file == CertsPerFile::One { "one certificate each" } else { "one file for each CA" },
            family.reads.text(),
            family.refresh.join(" "),
            family.bundle,
            if family.keeps_non_ca { "in the bundle" } else { "left out" },
            family.tested.text(),
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::NodePath;

    fn named(name: &str) -> &'static Family {
        FAMILIES.iter().find(|family| family.name == name).unwrap()
    }

    /// Rule 20: what is temporary stands in no folder that a store's command or unit looks at.
    #[test]
    fn rule_20_staging() {
        let looked_at = [
            "/etc/pki/ca-trust/source",
            "/usr/share/pki/ca-trust-source",
            "/etc/pki/trust",
            "/usr/share/pki/trust",
            "/etc/ca-certificates/trust-source",
            "/etc/ca-certificates/update.d",
            "/etc/ssl/certs",
            "/usr/local/share/ca-certificates",
        ];
        for family in &FAMILIES {
            let stage = NodePath::fixed(family.stage_dir);
            for folder in looked_at.iter().chain([&family.anchor_dir]) {
                assert!(stage.as_str() != *folder && !stage.is_below(&NodePath::fixed(folder)), "{}", family.name);
            }
            assert!(family.takes(&format!("nodeprep-x{}", family.ending)), "{}", family.name);
        }
    }

    /// Rule 21, O07, and SUSE's one option.
    #[test]
    fn what_a_removal_adds_to_the_command() {
        for (name, with, without) in [
            ("Debian", "update-ca-certificates --fresh", "update-ca-certificates"),
            ("SUSE", "update-ca-certificates -f", "update-ca-certificates"),
            ("RHEL", "update-ca-trust extract", "update-ca-trust extract"),
            ("Arch", "update-ca-trust", "update-ca-trust"),
            ("Alpine", "update-ca-certificates", "update-ca-certificates"),
            ("Flatcar", "update-ca-certificates", "update-ca-certificates"),
            ("Photon", "rehash_ca_certificates.sh", "rehash_ca_certificates.sh"),
        ] {
            assert_eq!(
                (named(name).refresh(true).join(" "), named(name).refresh(false).join(" ")),
                (with.into(), without.into()),
                "{name}"
            );
        }
    }

    /// O04, O05 and what Alpine's and Flatcar's commands look for.
    #[test]
    fn which_files_are_anchors() {
        for (name, file, taken) in [
            ("Debian", "a.crt", true),
            ("Debian", "a.pem", false),
            ("Debian", ".crt", false),
            ("RHEL", ".hidden.crt", true),
            ("SUSE", "t.crt.tmp", true),
            ("Arch", "noending", true),
            ("Alpine", "t.crt.tmp", true),
            ("Alpine", ".t.crt", false),
            ("Flatcar", "a.crt", false),
            ("Photon", "a.pem", true),
        ] {
            assert_eq!(named(name).takes(file), taken, "{name} {file}");
        }
    }
}
