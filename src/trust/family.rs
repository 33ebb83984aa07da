//! The table of distribution families and how a node's is told. Adding one is a row and its fixtures.

use crate::model::cert::Cert;
use crate::model::path::NodePath;
use crate::model::problem::Problem;
use crate::model::tree::Tree;

/// Distributions whose trust stores work alike (`runtime-semantics.md` 6.1).
#[derive(Debug, PartialEq, Eq)]
pub struct Family {
    /// As it is shown.
    pub name: &'static str,
    /// `ID` of os-release.
    pub ids: &'static [&'static str],
    /// Words of `ID_LIKE`, asked when the `ID` is not known.
    pub likes: &'static [&'static str],
    /// Where anchors are put.
    pub anchor_dir: &'static str,
    /// How many certificates a file there may hold.
    pub certs_per_file: CertsPerFile,
    /// The command that builds the bundle from the anchors.
    pub refresh: &'static [&'static str],
    /// What is added to it when an anchor was removed or replaced.
    pub fresh: &'static [&'static str],
    /// Where the command may be: one of them shows that it is there.
    pub tools: &'static [&'static str],
    /// The bundle file that Go programs read.
    pub bundle: &'static str,
    /// The list of shipped certificates that are taken up, and the folder that it speaks of; `None` where the command takes up
    /// what it finds.
    pub shipped: Option<(&'static str, &'static str)>,
    /// For temporary files: on the same file system, and read by nobody (rule 20).
    pub stage_dir: &'static str,
    /// Certificates without CA flag get into the bundle, too.
    pub keeps_non_ca: bool,
}

/// How many certificates an anchor file may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertsPerFile {
    /// One: `openssl rehash` skips files with more (O03).
    One,
    /// Any number.
    Many,
}

/// The families that this version knows.
pub static FAMILIES: [Family; 2] = [
    Family {
        name: "Debian",
        ids: &["debian", "ubuntu"],
        likes: &["debian", "ubuntu"],
        anchor_dir: "/usr/local/share/ca-certificates",
        certs_per_file: CertsPerFile::One,
        refresh: &["update-ca-certificates"],
        fresh: &["--fresh"],
        tools: &["/usr/sbin/update-ca-certificates", "/usr/bin/update-ca-certificates"],
        bundle: "/etc/ssl/certs/ca-certificates.crt",
        shipped: Some(("/etc/ca-certificates.conf", "/usr/share/ca-certificates")),
        stage_dir: "/usr/local/share/.nodeprep-stage",
        keeps_non_ca: true,
    },
    Family {
        name: "RHEL",
        ids: &["rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn", "openEuler", "azurelinux", "mariner"],
        likes: &["rhel", "fedora", "centos"],
        anchor_dir: "/etc/pki/ca-trust/source/anchors",
        certs_per_file: CertsPerFile::Many,
        refresh: &["update-ca-trust", "extract"],
        fresh: &[],
        tools: &["/usr/bin/update-ca-trust", "/usr/sbin/update-ca-trust"],
        bundle: "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        shipped: None,
        stage_dir: "/etc/pki/ca-trust/.nodeprep-stage",
        keeps_non_ca: false,
    },
];

/// Distributions that must not be taken for one of the families, whatever they are like: `ID`, and what to do there.
const OTHERS: [(&str, &str); 10] = [
    ("bottlerocket", "set settings.pki and settings.container-registry through Bottlerocket's API"),
    ("talos", "use TrustedRootsConfig and RegistryMirrorConfig in Talos' machine configuration"),
    ("flatcar", LATER),
    ("photon", LATER),
    ("gardenlinux", LATER),
    ("alpine", LATER),
    ("arch", LATER),
    ("sles", LATER),
    ("suse", LATER),
    ("opensuse", LATER),
];

const LATER: &str = "install the CAs with the distribution's own tools; this version of nodeprep does not know its trust store";

const ANCHORS_SUSE: &str = "/etc/pki/trust/anchors";
const ANCHORS_ARCH: &str = "/etc/ca-certificates/trust-source/anchors";
const REHASH_PHOTON: &str = "/usr/bin/rehash_ca_certificates.sh";

/// Files that tell the family, beside those of the table.
pub const MARKERS: [&str; 5] = ["/etc/os-release", "/usr/lib/os-release", ANCHORS_SUSE, ANCHORS_ARCH, REHASH_PHOTON];

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
        self.keeps_non_ca || cert.is_ca
    }
}

/// The family of the node: by os-release's `ID`, then `ID_LIKE`, then by what is there (`runtime-semantics.md` 6.4).
///
/// # Errors
/// A distribution that is known not to work this way, or not known at all: it is never guessed.
pub fn family(tree: &Tree) -> Result<&'static Family, Problem> {
    let os = ["/etc/os-release", "/usr/lib/os-release"].iter().find_map(|path| tree.text(&NodePath::fixed(path))).unwrap_or_default();
    let id = value(&os, "ID");
    let like = value(&os, "ID_LIKE");
    let words = || like.split_whitespace();
    let other = |word: &str| OTHERS.iter().find(|(id, _)| word == *id || *id == "opensuse" && word.starts_with("opensuse-"));
    let cannot = |(name, help): &(&str, &str)| {
        Problem::error("trust-family", format!("the OS trust store of {name} cannot be managed by writing anchor files here"), *help)
    };
    if let Some(other) = other(&id) {
        return Err(cannot(other));
    }
    if let Some(family) = FAMILIES.iter().find(|family| family.ids.contains(&id.as_str())) {
        return Ok(family);
    }
    if let Some(other) = words().find_map(other) {
        return Err(cannot(other));
    }
    if let Some(family) = words().find_map(|word| FAMILIES.iter().find(|family| family.likes.contains(&word))) {
        return Ok(family);
    }
    by_presence(tree).ok_or_else(|| {
        let name = if id.is_empty() { "without os-release".to_owned() } else { format!("{id:?}") };
        let what = format!("the distribution ({name}) is not known, and its trust store is not told by its files");
        Problem::error("trust-family", what, LATER)
    })
}

/// Most specific first: SUSE's command has the name of Debian's, so that what is there of SUSE, Arch or Photon ends it.
fn by_presence(tree: &Tree) -> Option<&'static Family> {
    let there = |path: &'static str| tree.exists(&NodePath::fixed(path));
    let usable = |family: &&Family| there(family.anchor_dir) && family.tools.iter().any(|tool| there(tool));
    let [debian, rhel] = &FAMILIES;
    if usable(&rhel) {
        return Some(rhel);
    }
    let other = [ANCHORS_SUSE, ANCHORS_ARCH, REHASH_PHOTON].into_iter().any(there);
    (!other && usable(&debian)).then_some(debian)
}

/// A value of os-release, quotes taken off (os-release(5)).
fn value(text: &str, key: &str) -> String {
    let line = text.lines().rev().find_map(|line| line.trim().strip_prefix(key)?.strip_prefix('='));
    line.unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tree::{Entry, Meta};

    fn of(os_release: &str, files: &[&'static str]) -> Result<&'static str, &'static str> {
        let mut tree = Tree::default();
        tree.insert(NodePath::root(), Entry::Dir { meta: Meta::new(0o755), listed: true });
        if !os_release.is_empty() {
            tree.put(&NodePath::fixed("/usr/lib/os-release"), os_release.as_bytes(), 0o644);
        }
        for file in files {
            tree.put(&NodePath::fixed(file), *b"", 0o755);
        }
        family(&tree).map(|family| family.name).map_err(|problem| problem.code)
    }

    #[test]
    fn by_os_release() {
        for (text, want) in [
            ("ID=debian\n", Ok("Debian")),
            ("NAME=x\nID=\"ubuntu\"\nID_LIKE=debian\n", Ok("Debian")),
            ("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", Ok("Debian")),
            ("ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"\n", Ok("RHEL")),
            ("ID=\"amzn\"\nID_LIKE=\"centos rhel fedora\"\n", Ok("RHEL")),
            ("ID='scientific'\nID_LIKE='rhel'\n", Ok("RHEL")),
            ("ID=bottlerocket\n", Err("trust-family")),
            ("ID=talos\n", Err("trust-family")),
            ("ID=photon\nID_LIKE=fedora\n", Err("trust-family")),
            ("ID=\"opensuse-leap\"\nID_LIKE=\"suse opensuse\"\n", Err("trust-family")),
            ("ID=alpine\n", Err("trust-family")),
            ("ID=something\n", Err("trust-family")),
            ("", Err("trust-family")),
        ] {
            assert_eq!(of(text, &[]), want, "{text}");
        }
    }

    #[test]
    fn by_what_is_there() {
        let debian = ["/usr/sbin/update-ca-certificates", "/usr/local/share/ca-certificates/x"];
        assert_eq!(of("", &debian), Ok("Debian"));
        assert_eq!(of("", &[debian[0], debian[1], "/etc/pki/trust/anchors/x"]), Err("trust-family"));
        assert_eq!(of("ID=new\n", &["/usr/bin/update-ca-trust", "/etc/pki/ca-trust/source/anchors/x"]), Ok("RHEL"));
        assert_eq!(of("", &debian[..1]), Err("trust-family"));
    }

    /// Rules 20 and 21.
    #[test]
    fn rules_20_21_staging_and_fresh() {
        let [debian, rhel] = &FAMILIES;
        assert_eq!(debian.refresh(false), ["update-ca-certificates"]);
        assert_eq!(debian.refresh(true), ["update-ca-certificates", "--fresh"]);
        assert_eq!(rhel.refresh(true), ["update-ca-trust", "extract"]);
        for family in &FAMILIES {
            let (stage, scanned) = (NodePath::fixed(family.stage_dir), NodePath::fixed(family.anchor_dir));
            assert!(stage != scanned && !stage.is_below(&scanned), "{}", family.name);
            assert!(!stage.is_below(&NodePath::fixed("/etc/pki/ca-trust/source")), "{}", family.name);
        }
    }
}
