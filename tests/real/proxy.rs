//! The way to a registry: for hosts of every kind `nodeprep verify` says whether containerd asks a proxy for them, by the environment of the daemon that is
//! running, and the proxy hears of just these from both.
//!
//! The node is the live one here: process 1 has its root in the view, nodeprep finds the daemon's environment in /proc, and both the unit and nodeprep's
//! own environment name a proxy that is not there.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::case::{Case, Demand};
use crate::node::{Scratch, environment};
use crate::programs::Programs;
use crate::pull::Puller;
use crate::responder::{self, Answer, Arrived};
use crate::{image, prepared, round};

/// Where the proxies listen: one for TLS, one for plain HTTP.
const FOR_TLS: &str = "127.0.0.1:3128";
const FOR_PLAIN: &str = "127.0.0.1:3129";
const LOGIN: &str = "daemon:a-secret-of-the-proxy";

const EXCEPT: &str = "a.example, .b.example,*.c.example,d.example:5443,e.example:9999,10.9.0.0/16,10.8.0.1,10.7.0.1:5443,10.7.0.2:1,UP.example,f.example:x,g.example:";

/// A registry, and whether it is asked for through a proxy.
const ROWS: [(&str, bool); 23] = [
    ("https://a.example:5443", false),
    ("https://sub.a.example:5443", false),
    ("https://xa.example:5443", true),
    ("https://b.example:5443", true),
    ("https://sub.b.example:5443", false),
    ("https://c.example:5443", true),
    ("https://sub.c.example:5443", false),
    ("https://d.example:5443", false),
    ("https://d.example:5444", true),
    ("https://e.example:5443", true),
    ("https://f.example:5443", true),
    ("https://g.example:5443", false),
    ("https://up.example:5443", false),
    ("https://10.9.1.1:5443", false),
    ("https://10.10.1.1:5443", true),
    ("https://10.8.0.1:5443", false),
    ("https://10.8.0.2:5443", true),
    ("https://10.7.0.1:5443", false),
    ("https://10.7.0.2:5443", true),
    ("https://127.0.0.9:5443", false),
    ("https://localhost:5443", false),
    ("http://p.example:5080", true),
    ("http://a.example:5080", false),
];

pub fn run(what: &Path, programs: &Programs) -> Result<()> {
    round::end_in_time();
    // the variables in both spellings, and a proxy for TLS only: then plain HTTP goes directly
    let all =
        vec![("HTTPS_PROXY", format!("http://{LOGIN}@{FOR_TLS}")), ("HTTP_PROXY", FOR_PLAIN.to_owned()), ("NO_PROXY", EXCEPT.to_owned())];
    let lower = vec![("https_proxy", format!("http://{LOGIN}@{FOR_TLS}/")), ("no_proxy", EXCEPT.to_owned())];
    let plain = |url: &str| url.starts_with("http://");
    let arrived = Arrived::default();
    for address in [FOR_TLS, FOR_PLAIN] {
        responder::listen(address, &arrived, Arc::new(|_, _| None), Arc::new(|_| Answer::status(403)))?;
    }
    for (environment, plain_too) in [(all, true), (lower, false)] {
        let wanted = |(url, through): &(&str, bool)| *through && (plain_too || !plain(url));
        let wanted: BTreeSet<String> = ROWS.iter().filter(|row| wanted(row)).map(|(url, _)| authority(url).to_owned()).collect();
        round(what, programs, &environment, &arrived, &wanted).with_context(|| format!("{environment:?}"))?;
    }
    Ok(())
}

fn authority(url: &str) -> &str {
    url.split_once("://").map_or(url, |(_, authority)| authority)
}

fn round(what: &Path, programs: &Programs, environment: &[(&str, String)], arrived: &Arrived, wanted: &BTreeSet<String>) -> Result<()> {
    let scratch = Scratch::of(what, programs);
    furnish(what, programs, &scratch)?;
    // what the round before has said is not to be taken for the next one's
    let _ = fs::remove_file(scratch.view().join("tmp/verify.code"));
    let mut node = start(&scratch, environment)?;
    let verified = verified(&scratch, &mut node)?;
    let by_verify = heard(arrived)?;
    serves(&scratch, &mut node)?;
    arrived.take();
    let mut pulled = Vec::new();
    for (url, _) in ROWS {
        // nobody answers anywhere: what is to be known is who was asked
        let outcome = Puller::Containerd.pull(&scratch, &format!("{}/hello:{}", authority(url), image::TAG))?;
        pulled.push(format!("{url}: {outcome:?}"));
    }
    let by_containerd = heard(arrived)?;
    let _ = node.kill();
    let _ = node.wait();
    ensure!(by_containerd == *wanted, "containerd asks the proxy for {by_containerd:?}, wanted {wanted:?}\n{}", pulled.join("\n"));
    ensure!(by_verify == by_containerd, "verify asks the proxy for {by_verify:?}, containerd for {by_containerd:?}");
    ensure!(verified == by_containerd, "verify says {verified:?} go through the proxy, containerd asks it for {by_containerd:?}");
    Ok(())
}

/// Waits until containerd answers at all.
fn serves(scratch: &Scratch, node: &mut Child) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match Puller::Containerd.pull(scratch, &format!("127.0.0.1:1/hello:{}", image::TAG))? {
            Err(said) if said.starts_with("curl") || said.starts_with("status 12") || said.starts_with("status 14") => {
                ensure!(node.try_wait().context("the node")?.is_none() && Instant::now() < deadline, "containerd does not serve: {said}");
            }
            _ => return Ok(()),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// For whom a proxy was asked, with its login where it has one.
fn heard(arrived: &Arrived) -> Result<BTreeSet<String>> {
    let login = format!("Basic {}", image::base64(LOGIN.as_bytes()));
    let mut hosts = BTreeSet::new();
    for ask in arrived.take() {
        let tls = ask.method == "CONNECT";
        ensure!(tls == (ask.header("proxy-authorization") == Some(&login)), "the proxy's login: {ask:?}");
        hosts.insert(if tls { ask.target } else { authority(&ask.target).split('/').next().unwrap_or_default().to_owned() });
    }
    Ok(hosts)
}

fn furnish(what: &Path, programs: &Programs, scratch: &Scratch) -> Result<()> {
    let named = ROWS.iter().map(|(url, _)| Demand {
        listen: authority(url).to_owned(),
        name: authority(url).split(':').next().filter(|name| name.ends_with("example")).map(ToOwned::to_owned),
        ..Demand::default()
    });
    let registries = named.map(|demand| Demand { listen: "127.0.0.1:1".into(), ..demand }).collect();
    let case = Case {
        folder: what.to_owned(),
        images: Vec::new(),
        registries,
        containerd: true,
        podman: false,
        probe: String::new(),
        foreign: String::new(),
        says: Vec::new(),
        closed: false,
        versions: String::new(),
        without: Vec::new(),
    };
    // the first round has written it all; only what is below changes
    if !scratch.root().join("etc/systemd/system/containerd.service").exists() {
        scratch.furnish(&case, programs)?;
    }
    let put = |path: &str, text: &str| {
        let path = scratch.root().join(path);
        fs::create_dir_all(path.parent().context("a file in a folder")?).with_context(|| path.display().to_string())?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    };
    let config = "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n\
                  [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"/var/lib/containerd/opt\"\n\
                  [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"/usr/lib/cni\"\n  conf_dir = \"/etc/cni/net.d\"\n";
    put("etc/containerd/config.toml", config)?;
    put(
        "etc/systemd/system/containerd.service",
        "[Service]\nEnvironment=HTTPS_PROXY=http://127.0.0.1:1 HTTP_PROXY=http://127.0.0.1:1\nExecStart=/usr/bin/containerd\n",
    )?;
    for (url, _) in ROWS {
        let folder = authority(url).replace(':', "_");
        put(&format!("etc/containerd/certs.d/{folder}_/hosts.toml"), &format!("server = \"{url}\"\n[host]\n"))?;
    }
    Ok(())
}

/// Starts containerd and asks nodeprep, in a process namespace whose first process has its root in the view.
fn start(scratch: &Scratch, variables: &[(&str, String)]) -> Result<Child> {
    const INSIDE: &str = "env -u HTTPS_PROXY -u NO_PROXY \"$@\" containerd >/tmp/containerd.log 2>&1 &\n\
        until [ -S /run/containerd/containerd.sock ]; do sleep 0.05; done\n\
        /srv/nodeprep verify --without-spec --output json --timeout 20 >/tmp/verify.json 2>/tmp/verify.err\n\
        echo $? >/tmp/code && mv /tmp/code /tmp/verify.code\nwait";
    let view = scratch.view();
    let binary = Path::new(env!("CARGO_BIN_EXE_nodeprep"));
    let outside = "mount -t proc proc \"$1/proc\" && mount -t tmpfs none \"$1/srv\" && cp \"$2\" \"$1/srv/nodeprep\" && script=$3 && view=$1 && shift 3 \
                   && for folder in run tmp var/lib/containerd; do mount -t tmpfs none \"$view/$folder\" || exit; done \
                   && exec chroot \"$view\" /bin/sh -c \"$script\" sh \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--", "sh", "-c", outside, "sh"]).arg(&view).arg(binary).arg(INSIDE);
    command.args(variables.iter().map(|(name, value)| format!("{name}={value}")));
    command.env_clear().env("HOME", "/root").env("HTTPS_PROXY", "http://127.0.0.1:1").env("NO_PROXY", "*");
    let programs = prepared().join("root").display().to_string();
    for (key, value) in environment().map_err(|error| anyhow::anyhow!(error))? {
        // what is started outside finds the same programs by their names there
        command.env(
            &key,
            if key == "PATH" { format!("{}:{value}", value.replace(&programs, "/opt")) } else { value.replace(&programs, "/opt") },
        );
    }
    command.stdin(Stdio::null()).spawn().context("unshare")
}

/// What verify says goes through a proxy, once it has said so.
fn verified(scratch: &Scratch, node: &mut Child) -> Result<BTreeSet<String>> {
    let told = scratch.view().join("tmp");
    let deadline = Instant::now() + Duration::from_secs(60);
    while !told.join("verify.code").exists() {
        if let Some(status) = node.try_wait().context("the node")? {
            bail!("the node ended with {status}: {}", fs::read_to_string(told.join("containerd.log")).unwrap_or_default());
        }
        ensure!(Instant::now() < deadline, "no verify: {}", fs::read_to_string(told.join("containerd.log")).unwrap_or_default());
        std::thread::sleep(Duration::from_millis(50));
    }
    let said = fs::read_to_string(told.join("verify.json")).context("verify.json")?;
    ensure!(!said.contains("a-secret-of-the-proxy"), "the proxy's login is shown: {said}");
    let report: Value = serde_json::from_str(&said).with_context(|| fs::read_to_string(told.join("verify.err")).unwrap_or_default())?;
    let mut through = BTreeSet::new();
    let mut known = 0;
    for check in report["checks"].as_array().into_iter().flatten().filter(|check| check["id"] == "endpoint") {
        let url = check["subject"].as_str().and_then(|subject| subject.strip_prefix("containerd: ")).context("who asks")?;
        known += 1;
        let proxy = check["steps"].as_array().and_then(|steps| steps.iter().find(|step| step["stage"] == "proxy"));
        if proxy.with_context(|| format!("no stage for the proxy: {check}"))?["found"] != "none" {
            through.insert(authority(url).to_owned());
        }
    }
    ensure!(known == ROWS.len(), "{known} endpoints: {said}");
    Ok(through)
}
