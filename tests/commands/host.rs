//! Commands of the pages that cannot be run in this test: why, and what runs them instead. Whatever is in no row and is not run fails.

/// Commands that begin so.
pub struct Elsewhere {
    pub begins: &'static str,
    pub why: &'static str,
    /// A file of the project, and what of it runs this: a trial, a script.
    pub instead: &'static [(&'static str, &'static str)],
}

const TRIALS: &str = "tests/nodes/trials/mod.rs";
const PACKAGES: &[(&str, &str)] = &[("tests/nodes/trials/packages.rs", "\"--install\""), (TRIALS, "\"package-deb\"")];
const RPM: &[(&str, &str)] = &[(TRIALS, "\"package-rpm\""), ("tests/nodes/trials/packages.rs", "struct Rpm")];
const UNITS: &[(&str, &str)] = &[(TRIALS, "\"first-boot\""), (TRIALS, "\"outlive-power-cut\""), (TRIALS, "\"agent\"")];

pub const ELSEWHERE: &[Elsewhere] = &[
    Elsewhere { begins: "apt-get install ./nodeprep_", why: "installs a package: dpkg does it on a booted node", instead: PACKAGES },
    Elsewhere {
        begins: "apt-get purge nodeprep",
        why: "purges a package: dpkg does it on a booted node",
        instead: &[(TRIALS, "\"package-deb-purge\"")],
    },
    Elsewhere { begins: "dnf install ./nodeprep-", why: "installs a package: rpm does it in a root of its own", instead: RPM },
    Elsewhere { begins: "systemctl enable", why: "needs a booted systemd; that the units are shipped is looked at here", instead: UNITS },
    Elsewhere {
        begins: "ctr --namespace k8s.io images import nodeprep-",
        why: "needs a containerd and the image that `make dist` makes",
        instead: &[(TRIALS, "IMAGE_TRIAL"), ("tests/nodes/trials/image.rs", "")],
    },
    Elsewhere {
        begins: "skopeo copy oci-archive:nodeprep-",
        why: "needs a registry and the image that `make dist` makes",
        instead: &[("packaging/image", "skopeo copy oci-archive:")],
    },
    Elsewhere {
        begins: "kubeadm ",
        why: "needs a cluster",
        instead: &[(TRIALS, "\"bootstrap-stopped\""), (TRIALS, "\"bootstrap-running\"")],
    },
    Elsewhere { begins: "journalctl -u containerd", why: "needs a journal", instead: &[("tests/nodes/trials/outlive.rs", "journalctl")] },
];

/// Pages that a test of their own follows, line by line.
pub const FOLLOWED: &[(&str, &str)] = &[("docs/sources.md", "tests/source_cli/guide.rs")];

/// Words of `--flags` in the text that are other programs'.
pub const OTHERS_FLAGS: &[&str] = &[
    // update-ca-certificates of Debian
    "--fresh",
    // ctr
    "--hosts-dir",
    // k3s
    "--disable-default-registry-endpoint",
];
