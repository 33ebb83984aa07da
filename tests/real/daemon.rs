//! What a running containerd does with a signal and with the OS trust store: vectors T66, O09 and O10.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::case::{Case, Demand};
use crate::certificate::Authority;
use crate::image;
use crate::live::Live;
use crate::node::Scratch;
use crate::programs::Programs;
use crate::registry::Registry;
use crate::round;

const IMAGE: &str = "mirror.example:5443/docker.io/library/hello:1";
/// The registry's own folder says nothing of certificates: the OS trust store counts.
const HOSTS: &str = "server = \"https://mirror.example:5443\"\n\n[host]\n";
const CONFIG: &str = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n";
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

pub fn run(what: &Path, programs: &Programs) -> Result<()> {
    round::end_in_time();
    let scratch = Scratch::of(what, programs);
    let layout = scratch.folder.join("image");
    image::write(&layout)?;
    let demand = Demand {
        listen: "127.0.0.2:5443".to_owned(),
        name: Some("mirror.example".to_owned()),
        holds: vec!["docker.io/library/hello".to_owned()],
        ..Demand::default()
    };
    let case = Case { folder: what.to_owned(), registries: vec![demand], containerd: true, ..Case::default() };
    scratch.furnish(&case, programs)?;
    let root = scratch.root();
    let (known, unknown) = (Authority::new("real test CA")?, Authority::new("some other CA")?);
    let registry =
        Registry::start(&case.registries[0], &scratch.folder.join("registry"), &known, &unknown, &scratch.folder.join("self.pem"))?;
    registry.fill(&layout)?;
    let folder = root.join("etc/containerd/certs.d/mirror.example_5443_");
    fs::create_dir_all(&folder).context("certs.d")?;
    fs::write(folder.join("hosts.toml"), HOSTS).context("hosts.toml")?;
    fs::write(root.join("etc/containerd/config.toml"), CONFIG).context("config.toml")?;
    for name in ["srv/with", "srv/empty"] {
        fs::create_dir_all(root.join(name)).context(name)?;
    }
    known.write(&root.join("srv/with/ca.pem"))?;
    unknown.write(&root.join("srv/other.pem"))?;
    unknown.write(&root.join(BUNDLE))?;
    let build = programs.folder().map_or_else(crate::prepared, Path::to_owned).join("root/usr/bin/containerd");
    let mut live = Live::start(&scratch, &[(&build, "containerd")])?;
    live.must("cp /srv/containerd /usr/local/bin/containerd")?;

    // O09: what the bundle held at first use holds until the next start
    live.start_containerd("")?;
    believed(&mut live, false, "O09, before")?;
    known.write(&root.join(BUNDLE))?;
    believed(&mut live, false, "O09, the bundle has it, and the process is the same")?;
    live.stop_containerd()?;
    live.start_containerd("")?;
    believed(&mut live, true, "O09, started again")?;

    // T66: it has no reload; nodeprep never sends it
    live.must("kill -HUP $(cat /srv/containerd.pid)")?;
    let (code, _) = live.run("wait $(cat /srv/containerd.pid)")?;
    ensure!(code == 128 + 1, "T66: SIGHUP ends it, but it ended with {code}");
    live.must("rm -f /run/containerd/containerd.sock*")?;

    // O10, and what nodeprep makes of the same environment
    let both = "SSL_CERT_FILE=/srv/other.pem SSL_CERT_DIR=/srv/empty";
    for (bundle, env, good) in [
        (&known, "", true),
        // the bundle stands in a folder that is read, too
        (&known, "SSL_CERT_FILE=/srv/other.pem", true),
        (&known, both, false),
        (&unknown, "SSL_CERT_FILE=/srv/with/ca.pem", true),
        (&unknown, "SSL_CERT_DIR=/srv/with", true),
        (&unknown, "SSL_CERT_DIR=/srv/empty:/srv/with", true),
        (&unknown, "", false),
    ] {
        bundle.write(&root.join(BUNDLE))?;
        live.start_containerd(env)?;
        believed(&mut live, good, &format!("O10, {env}"))?;
        let verdict = verified(&mut live)?;
        ensure!(verdict == if good { "ok" } else { "failed" }, "O10, {env}: verify says {verdict}");
        live.stop_containerd()?;
    }
    Ok(())
}

/// Whether a pull succeeds, and if not, whether it is for want of the CA.
fn believed(live: &mut Live<'_>, good: bool, what: &str) -> Result<()> {
    match live.pull(IMAGE)? {
        Ok(()) if good => Ok(()),
        Err(said) if !good && said.contains("unknown authority") => Ok(()),
        outcome => bail!("{what}: {outcome:?}"),
    }
}

/// What `verify` says of the endpoint as this process would reach it.
fn verified(live: &mut Live<'_>) -> Result<String> {
    let (_, said) = live.run("/srv/nodeprep verify --without-spec --timeout 5 --root / --output json 2>/dev/null")?;
    let report: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    let ours = |check: &&Value| {
        check["id"] == "endpoint"
            && check["subject"].as_str().is_some_and(|text| text.contains("containerd") && text.contains("mirror.example:5443"))
    };
    let check = report["checks"].as_array().into_iter().flatten().find(ours).with_context(|| format!("no word of the endpoint: {said}"))?;
    Ok(check["result"].as_str().unwrap_or_default().to_owned())
}
