//! Which family a node belongs to: by os-release, else by what is there; never guessed (`runtime-semantics.md` 6.4).

use std::fmt::Write as _;

use super::family::{FAMILIES, Family};
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;

const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// A distribution that must not be taken for one of the families, whatever it is like.
struct Other {
    /// `ID` of os-release.
    id: &'static str,
    /// As it is shown.
    name: &'static str,
    /// What to do there.
    help: &'static str,
    /// It is configured through an interface of its own, and files that others write do not last: nothing is written there.
    by_api: bool,
}

const OTHERS: [Other; 3] = [
    Other {
        id: "bottlerocket",
        name: "Bottlerocket",
        help: "use its API (`apiclient set`, or the instance's user data): settings.pki.NAME.data with the PEM in base64 and \
               settings.pki.NAME.trusted = true for each CA, settings.container-registry.mirrors for the mirrors and \
               settings.container-registry.credentials for the logins",
        by_api: true,
    },
    Other {
        id: "talos",
        name: "Talos",
        help: "use its machine configuration (`talosctl patch machineconfig`): a document of kind TrustedRootsConfig with `certificates` \
               for the CAs, and one of kind RegistryMirrorConfig for each source with `endpoints` and `skipFallback`",
        by_api: true,
    },
    Other {
        id: "gardenlinux",
        name: "Garden Linux",
        help: "put the CAs into the image, or give `update-ca-certificates --localcertsdir` a folder that can be written; this version \
               of nodeprep does not know its trust store",
        by_api: false,
    },
];

const UNKNOWN: &str = "install the CAs with the distribution's own tools; this version of nodeprep does not know its trust store";

/// What has to be in the tree before [`family`] can answer, as far as `tree` tells by now: first os-release, and what the
/// families leave behind only where that is not enough.
#[must_use]
pub(super) fn wishes(tree: &Tree) -> Vec<Wish> {
    let mut paths = OS_RELEASE.to_vec();
    if tree.find(&NodePath::fixed(OS_RELEASE[0])) != Found::Unread && by_name(tree).is_none() {
        for family in &FAMILIES {
            paths.extend([family.sign, family.anchor_dir]);
            paths.extend(family.tools);
        }
    }
    paths.into_iter().map(|path| Wish::path(NodePath::fixed(path))).collect()
}

/// The family of the node: by os-release's `ID`, then `ID_LIKE`, then by what is there.
///
/// # Errors
/// A distribution that is known not to work this way, or not known at all: it is never guessed.
pub fn family(tree: &Tree) -> Result<&'static Family, Problem> {
    match by_name(tree) {
        Some(Ok(family)) => Ok(family),
        Some(Err(other)) => Err(other.problem()),
        None => by_presence(tree).ok_or_else(|| {
            let id = value(&os_release(tree), "ID");
            let name = if id.is_empty() { "without os-release".to_owned() } else { format!("{id:?}") };
            let what = format!("the distribution ({name}) is not known, and its trust store is not told by its files");
            Problem::error("trust-family", what, UNKNOWN)
        }),
    }
}

/// Why nothing at all may be written on this node: its own interface writes the files anew.
#[must_use]
pub fn by_api(tree: &Tree) -> Option<Problem> {
    by_name(tree).and_then(Result::err).filter(|other| other.by_api).map(Other::problem)
}

impl Other {
    fn problem(&self) -> Problem {
        let what = if self.by_api {
            format!("{} is configured through its own API only: files that others write there do not last", self.name)
        } else {
            format!("the OS trust store of {} cannot be managed by writing anchor files here", self.name)
        };
        Problem::error("trust-family", what, self.help)
    }
}

/// What is refused, as the document shows it.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| distribution | what is left alone | instead |\n|---|---|---|\n");
    for other in &OTHERS {
        let what = if other.by_api { "every target" } else { "the trust store" };
        let _ = writeln!(text, "| {} | {what} | {} |", other.name, other.help);
    }
    text
}

fn os_release(tree: &Tree) -> String {
    OS_RELEASE.iter().find_map(|path| tree.text(&NodePath::fixed(path))).unwrap_or_default().into_owned()
}

/// What os-release says; what is immutable comes before what it is like.
fn by_name(tree: &Tree) -> Option<Result<&'static Family, &'static Other>> {
    let os = os_release(tree);
    let (id, like) = (value(&os, "ID"), value(&os, "ID_LIKE"));
    let other = |word: &str| OTHERS.iter().find(|other| other.id == word).map(Err);
    let known = |name: &&str, id: &str| if name.ends_with('-') { id.starts_with(*name) } else { *name == id };
    let own = || FAMILIES.iter().find(|family| !id.is_empty() && family.ids.iter().any(|name| known(name, &id))).map(Ok);
    let alike = |word: &str| FAMILIES.iter().find(|family| family.likes.contains(&word)).map(Ok);
    let words = || like.split_whitespace();
    other(&id).or_else(own).or_else(|| words().find_map(other)).or_else(|| words().find_map(alike))
}

/// The first family that shows decides, and only when its command is there: SUSE's has the name of Debian's, Arch's that of
/// RHEL's.
fn by_presence(tree: &Tree) -> Option<&'static Family> {
    let there = |path: &'static str| tree.exists(&NodePath::fixed(path));
    let shows = FAMILIES.iter().find(|family| there(family.sign))?;
    (there(shows.anchor_dir) && shows.tools.iter().any(|tool| there(tool))).then_some(shows)
}

/// A value of os-release, quotes taken off (os-release(5)).
fn value(text: &str, key: &str) -> String {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::Entry;

    fn tree(os_release: &str, files: &[&'static str]) -> Tree {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { listed: true });
        if !os_release.is_empty() {
            tree.put(&NodePath::fixed("/usr/lib/os-release"), os_release.as_bytes(), 0o644);
        }
        for file in files {
            tree.put(&NodePath::fixed(file), *b"", 0o755);
        }
        tree
    }

    fn of(os_release: &str, files: &[&'static str]) -> Result<&'static str, &'static str> {
        family(&tree(os_release, files)).map(|family| family.name).map_err(|problem| problem.code)
    }

    #[test]
    fn by_os_release() {
        for (text, want) in [
            ("ID=debian\n", Ok("Debian")),
            ("NAME=x\nID=\"ubuntu\"\nID_LIKE=debian\n", Ok("Debian")),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Ok("Debian")),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Ok("RHEL")),
            ("ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\n", Ok("RHEL")),
            ("ID=\"amzn\"\nID_LIKE=\"fedora\"\n", Ok("RHEL")),
            ("ID=azurelinux\n", Ok("RHEL")),
            ("ID=mariner\n", Ok("RHEL")),
            ("ID=fedora\nVARIANT_ID=coreos\n", Ok("RHEL")),
            ("ID='scientific'\nID_LIKE='rhel'\n", Ok("RHEL")),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Ok("SUSE")),
            ("ID=\"opensuse-microos\"\nID_LIKE=\"suse opensuse opensuse-tumbleweed\"\n", Ok("SUSE")),
            ("ID=\"sles\"\nID_LIKE=\"suse\"\n", Ok("SUSE")),
            ("ID=\"sl-micro\"\nID_LIKE=\"suse\"\n", Ok("SUSE")),
            ("ID=\"sle-micro\"\n", Ok("SUSE")),
            ("ID=alpine\n", Ok("Alpine")),
            ("ID=wolfi\n", Ok("Alpine")),
            ("ID=arch\n", Ok("Arch")),
            ("ID=archarm\nID_LIKE=arch\n", Ok("Arch")),
            ("ID=flatcar\nID_LIKE=coreos\n", Ok("Flatcar")),
            ("ID=photon\nID_LIKE=fedora\n", Ok("Photon")),
            ("ID=bottlerocket\n", Err("trust-family")),
            ("ID=talos\n", Err("trust-family")),
            // what is immutable comes before what it is like
            ("ID=mine\nID_LIKE=\"debian bottlerocket\"\n", Err("trust-family")),
            ("ID=gardenlinux\nID_LIKE=debian\n", Err("trust-family")),
            ("ID=something\n", Err("trust-family")),
            ("ID=opensuse\nID=something\n", Err("trust-family")),
            ("ID=\nID_LIKE=\n", Err("trust-family")),
            ("", Err("trust-family")),
        ] {
            assert_eq!(of(text, &[]), want, "{text}");
        }
    }

    #[test]
    fn by_what_is_there() {
        const TOOL: &str = "/usr/sbin/update-ca-certificates";
        const LOCAL: &str = "/usr/local/share/ca-certificates/x";
        assert_eq!(of("", &[TOOL, LOCAL]), Ok("Debian"));
        assert_eq!(of("", &[TOOL, LOCAL, "/etc/alpine-release"]), Ok("Alpine"));
        // SUSE's command has the name of Debian's
        assert_eq!(of("", &[TOOL, LOCAL, "/etc/pki/trust/anchors/x"]), Ok("SUSE"));
        assert_eq!(of("", &[TOOL, "/etc/ssl/certs/x", "/usr/share/flatcar/release"]), Ok("Flatcar"));
        // Arch's has the name of RHEL's
        assert_eq!(of("", &["/usr/bin/update-ca-trust", "/etc/ca-certificates/trust-source/anchors/x"]), Ok("Arch"));
        assert_eq!(of("ID=new\n", &["/usr/bin/update-ca-trust", "/etc/pki/ca-trust/source/anchors/x"]), Ok("RHEL"));
        assert_eq!(of("", &["/usr/bin/rehash_ca_certificates.sh", "/etc/ssl/certs/x"]), Ok("Photon"));
        // what shows and cannot be worked with is no reason to take another one's way
        assert_eq!(of("", &[TOOL, LOCAL, "/etc/ca-certificates/trust-source/anchors/x"]), Err("trust-family"));
        assert_eq!(of("", &[TOOL]), Err("trust-family"));
        assert_eq!(of("", &["/etc/pki/ca-trust/source/anchors/x"]), Err("trust-family"));
    }

    /// Rule 24: Bottlerocket and Talos are left to their own settings.
    #[test]
    fn nothing_is_written_where_an_api_is_the_way() {
        for (id, key) in [("bottlerocket", "settings.pki.NAME.trusted"), ("talos", "TrustedRootsConfig")] {
            let problem = by_api(&tree(&format!("ID={id}\n"), &[])).unwrap();
            assert!(problem.help.contains(key) && problem.help.contains("irror"), "{problem:?}");
        }
        for id in ["gardenlinux", "debian", "unknown"] {
            assert!(by_api(&tree(&format!("ID={id}\n"), &[])).is_none(), "{id}");
        }
    }

    #[test]
    fn files_are_asked_for_only_where_the_name_says_nothing() {
        let asked = |os_release: &str| wishes(&tree(os_release, &["/etc/x"])).len();
        assert_eq!((asked("ID=debian\n"), asked("ID=talos\n")), (2, 2));
        assert!(asked("ID=new\n") > 10 && asked("") > 10);
        assert_eq!(wishes(&Tree::default()).len(), 2);
    }
}
