//! Certificates of every kind, each shown by a server of its own: `nodeprep verify` says of each whether containerd and skopeo pull from it, and they do.

use std::fmt::Write as _;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    NameConstraints, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value;

use crate::answer;
use crate::case::{Case, Demand};
use crate::node::Scratch;
use crate::programs::Programs;
use crate::pull::{self, Puller};
use crate::responder::{self, Answer, Arrived};
use crate::{image, round};

const REPOSITORY: &str = "hello";

/// A certificate and its key.
struct Made {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Made {
    fn key(&self) -> String {
        self.issuer.key().serialize_pem()
    }
}

/// By whom, with which names, changed how.
fn make(by: Option<&Made>, name: &str, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Result<Made> {
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, name);
    change(&mut params);
    let key = KeyPair::generate()?;
    let certificate = match by {
        Some(by) => params.signed_by(&key, &by.issuer)?,
        None => params.self_signed(&key)?,
    };
    Ok(Made { pem: certificate.pem(), der: certificate.der().clone(), issuer: Issuer::new(params, key) })
}

fn ca(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
}

fn plain(_: &mut CertificateParams) {}

/// A server, and how it is reached.
struct Row {
    what: &'static str,
    host: String,
    address: String,
    /// Whether pulls succeed.
    good: bool,
    /// In front the server's own.
    shown: Vec<CertificateDer<'static>>,
    key: String,
    /// For this registry alone.
    ca: Option<String>,
    /// In the node's bundle.
    system: Option<String>,
    /// Whose client certificates are taken.
    clients: Option<CertificateDer<'static>>,
    client: Option<(String, String)>,
    only_12: bool,
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    /// A server whose certificate `leaf` makes for its name; `ca` is what the node trusts for it.
    fn add(
        &mut self,
        what: &'static str,
        good: bool,
        leaf: impl FnOnce(&str) -> Result<Made>,
        chain: &[&Made],
        ca: Option<&Made>,
    ) -> Result<&mut Row> {
        let number = self.0.len() + 1;
        let (address, host) = (format!("127.0.1.{number}"), format!("r{number}.probe.example"));
        let leaf = leaf(&host)?;
        let mut shown = vec![leaf.der.clone()];
        shown.extend(chain.iter().map(|made| made.der.clone()));
        let (key, ca) = (leaf.key(), ca.map(|ca| ca.pem.clone()));
        self.0.push(Row { what, host, address, good, shown, key, ca, system: None, clients: None, client: None, only_12: false });
        self.0.last_mut().context("the row that was just added")
    }
}

fn rows() -> Result<Vec<Row>> {
    let mut rows = Rows::default();
    let root = make(None, "root", &[], ca)?;
    let other = make(None, "another root", &[], ca)?;
    let middle = make(Some(&root), "middle", &[], ca)?;
    let none: &[&Made] = &[];
    let leaf = |by: &Made, host: &str| make(Some(by), host, &[host], plain);

    rows.add("a chain of two", true, |host| leaf(&root, host), none, Some(&root))?;
    let row = rows.add("a chain of two, by the bundle", true, |host| leaf(&root, host), none, None)?;
    row.system = Some(root.pem.clone());
    rows.add("a chain of three", true, |host| leaf(&middle, host), &[&middle], Some(&root))?;
    rows.add("an intermediate is missing", false, |host| leaf(&other_middle(&other)?, host), none, Some(&other))?;
    rows.add("an intermediate is trusted", true, |host| leaf(&middle, host), none, Some(&middle))?;
    rows.add("by nobody that is trusted", false, |host| leaf(&other, host), none, Some(&middle))?;
    rows.add("nobody is trusted", false, |host| leaf(&other, host), none, None)?;
    rows.add(
        "expired",
        false,
        |host| make(Some(&root), host, &[host], |params| params.not_after = date_time_ymd(2020, 1, 1)),
        none,
        Some(&root),
    )?;
    rows.add(
        "not yet valid",
        false,
        |host| make(Some(&root), host, &[host], |params| params.not_before = date_time_ymd(2200, 1, 1)),
        none,
        Some(&root),
    )?;
    rows.add("another name", false, |_| leaf(&root, "elsewhere.example"), none, Some(&root))?;
    rows.add("its name as common name only", false, |host| make(Some(&root), host, &[], plain), none, Some(&root))?;
    rows.add("a wildcard", true, |_| leaf(&root, "*.probe.example"), none, Some(&root))?;
    for (what, flag, trusted) in [
        ("its own CA, with the flag, trusted", true, true),
        ("its own CA, with the flag, not trusted", true, false),
        ("its own CA, without the flag, trusted", false, true),
        ("its own CA, without the flag, not trusted", false, false),
    ] {
        // in the registry's own CA file, and in the trust store
        for own in [true, false] {
            let leaf = |host: &str| {
                make(None, "own", &[host], |params| {
                    if flag {
                        ca(params);
                    }
                })
            };
            let row = rows.add(what, trusted, leaf, none, None)?;
            let itself = trusted.then(|| pem(&row.shown[0]));
            *(if own { &mut row.ca } else { &mut row.system }) = itself;
        }
    }
    let clients = make(None, "clients", &[], ca)?;
    let of_client = |by: &Made| -> Result<(String, String)> {
        let made = make(Some(by), "node", &[], |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth])?;
        Ok((made.pem.clone(), made.key()))
    };
    for (what, good, client) in [
        ("a client certificate, shown", true, Some(of_client(&clients)?)),
        ("a client certificate, missing", false, None),
        ("a client certificate, of another CA", false, Some(of_client(&other)?)),
    ] {
        for only_12 in [false, true] {
            let row = rows.add(what, good, |host| leaf(&root, host), none, Some(&root))?;
            (row.clients, row.client, row.only_12) = (Some(clients.der.clone()), client.clone(), only_12);
        }
    }
    rows.add("TLS 1.2 only", true, |host| leaf(&root, host), none, Some(&root))?.only_12 = true;
    for (what, good) in [("an address as name", true), ("an address that is not its name", false)] {
        let address = format!("127.0.1.{}", rows.0.len() + 1);
        let named = if good { address.clone() } else { "somewhere.example".to_owned() };
        rows.add(what, good, |_| leaf(&root, &named), none, Some(&root))?.host = address;
    }
    let old = make(None, "old root", &[], |params| {
        ca(params);
        params.not_after = date_time_ymd(2020, 1, 1);
    })?;
    rows.add("the CA has expired", false, |host| leaf(&old, host), none, Some(&old))?;
    rows.add("a server that is a CA, too", true, |host| make(Some(&root), host, &[host], ca), none, Some(&root))?;
    let flagless = make(None, "no CA", &["no.example"], plain)?;
    rows.add("by one that is no CA", false, |host| leaf(&flagless, host), none, Some(&flagless))?;
    let mute = make(None, "mute", &[], |params| {
        ca(params);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    })?;
    rows.add("by a CA whose key may not sign", false, |host| leaf(&mute, host), none, Some(&mute))?;
    let client_only = |params: &mut CertificateParams| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    rows.add("for clients only", false, |host| make(Some(&root), host, &[host], client_only), none, Some(&root))?;
    for (what, good, domain) in [("a CA for its domain", true, "probe.example"), ("a CA for another domain", false, "corp.example")] {
        let narrow = make(None, what, &[], |params| {
            ca(params);
            let permitted_subtrees = vec![GeneralSubtree::DnsName(domain.to_owned())];
            params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees: Vec::new() });
        })?;
        rows.add(what, good, |host| leaf(&narrow, host), none, Some(&narrow))?;
    }
    let short = make(None, "short", &[], |params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)))?;
    let below = make(Some(&short), "below", &[], ca)?;
    rows.add("too many intermediates", false, |host| leaf(&below, host), &[&below], Some(&short))?;
    Ok(rows.0)
}

fn other_middle(by: &Made) -> Result<Made> {
    make(Some(by), "another middle", &[], ca)
}

fn pem(der: &CertificateDer<'_>) -> String {
    let coded = image::base64(der);
    let lines: Vec<&str> = coded.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

impl Row {
    fn authority(&self) -> String {
        format!("{}:5443", self.host)
    }

    /// Listens until the process ends.
    fn serve(&self, layout: &Path) -> Result<()> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[_] = if self.only_12 { &[&TLS12] } else { &[&TLS12, &TLS13] };
        let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(ca) => {
                let mut roots = RootCertStore::empty();
                roots.add(ca.clone())?;
                builder.with_client_cert_verifier(WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?)
            }
        };
        let key = KeyPair::from_pem(&self.key)?.serialize_der();
        let key = PrivateKeyDer::try_from(key).ok().context("the key that was just made")?;
        let key = rustls::crypto::ring::sign::any_supported_type(&key)?;
        let certified = rustls::sign::CertifiedKey::new(self.shown.clone(), key);
        let config = Arc::new(builder.with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified))));
        let listener = TcpListener::bind(format!("{}:5443", self.address)).with_context(|| self.address.clone())?;
        let demand = Demand { holds: vec![REPOSITORY.to_owned()], ..Demand::default() };
        let layout = layout.to_owned();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, demand, layout) = (config.clone(), demand.clone(), layout.clone());
                std::thread::spawn(move || -> Result<()> {
                    let stream = StreamOwned::new(ServerConnection::new(config)?, stream);
                    responder::converse(stream, "https", None, &Arrived::default(), &move |ask: &responder::Ask| match ask.path() {
                        "/v2/" => Answer::status(200),
                        path => answer::content(&demand, None, &layout, path).unwrap_or_else(|| Answer::status(404)),
                    })
                });
            }
        });
        Ok(())
    }

    /// What containerd and the containers/image family need to know.
    fn configure(&self, root: &Path) -> Result<()> {
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().context("a file in a folder")?).with_context(|| path.display().to_string())?;
            fs::write(&path, text).with_context(|| path.display().to_string())
        };
        let authority = self.authority();
        let folder = format!("etc/containers/certs.d/{authority}");
        let mut hosts = format!("server = \"https://{authority}\"\n");
        if let Some(ca) = &self.ca {
            put(&format!("{folder}/ca.crt"), ca)?;
            let _ = writeln!(hosts, "ca = \"/{folder}/ca.crt\"");
        }
        if let Some((certificate, key)) = &self.client {
            put(&format!("{folder}/client.cert"), certificate)?;
            put(&format!("{folder}/client.key"), key)?;
            let _ = writeln!(hosts, "client = [[\"/{folder}/client.cert\", \"/{folder}/client.key\"]]");
        }
        put(&format!("etc/containerd/certs.d/{}_5443_/hosts.toml", self.host), &format!("{hosts}[host]\n"))?;
        put(&format!("etc/containers/registries.conf.d/{}.conf", self.host), &format!("[[registry]]\nlocation = \"{authority}\"\n"))
    }
}

pub fn run(what: &Path, programs: &Programs) -> Result<()> {
    round::end_in_time();
    let scratch = Scratch::of(what, programs);
    let layout = scratch.folder.join("image");
    image::write(&layout)?;
    let rows = rows()?;
    let named = |row: &Row| Demand { listen: format!("{}:5443", row.address), name: Some(row.host.clone()), ..Demand::default() };
    let registries = rows.iter().filter(|row| row.host != row.address).map(named).collect();
    let case = Case { folder: what.to_owned(), images: Vec::new(), registries, containerd: true, podman: true, ..Case::default() };
    scratch.furnish(&case, programs)?;
    let root = scratch.root();
    let config = root.join("etc/containerd/config.toml");
    let text = fs::read_to_string(&config)?.replace(
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n",
        "[plugins.\"io.containerd.grpc.v1.cri\"]\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"/etc/containerd/certs.d\"\n",
    );
    fs::write(&config, text)?;
    fs::write(root.join("etc/ssl/certs/ca-certificates.crt"), rows.iter().filter_map(|row| row.system.clone()).collect::<String>())?;
    for row in &rows {
        row.configure(&root)?;
        row.serve(&layout)?;
    }
    // nodeprep asks the machine's resolver; this process has a mount namespace of its own
    let output = Command::new("mount").args(["--bind".as_ref(), root.join("etc/hosts").as_os_str(), "/etc/hosts".as_ref()]).output()?;
    ensure!(output.status.success(), "mount: {}", String::from_utf8_lossy(&output.stderr));

    let output = Command::new(env!("CARGO_BIN_EXE_nodeprep"))
        .args(["verify", "--without-spec", "--output", "json", "--timeout", "20", "--root"])
        .arg(&root)
        .env("HOME", "/root")
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    fs::write(scratch.folder.join("verify.json"), said.as_bytes())?;
    ensure!(output.status.code() == Some(8), "verify: {}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_str(&said).context("verify --output json is not JSON")?;
    let pullers = programs.pullers(&case);
    let _containerd = if pullers.contains(&Puller::Containerd) { Some(pull::start_containerd(&scratch, 20)?) } else { None };
    let mut wrong = Vec::new();
    for row in &rows {
        for puller in pullers.iter().filter(|puller| **puller != Puller::Podman) {
            let pulled = puller.pull(&scratch, &format!("{}/{REPOSITORY}:{}", row.authority(), image::TAG))?;
            let (result, found) = verdict(&report, puller.runtime(), &row.authority())?;
            let outcome = if pulled.is_ok() { "ok" } else { "failed" };
            if result != outcome || pulled.is_ok() != row.good {
                wrong.push(format!("{puller:?}: {}: verify says {result} ({found}), the program: {pulled:?}", row.what));
            }
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

/// What `verify` says of an endpoint as this runtime reaches it.
fn verdict(report: &Value, runtime: &str, authority: &str) -> Result<(String, String)> {
    let text = |check: &Value, key: &str| check[key].as_str().unwrap_or_default().to_owned();
    let concerns = |check: &&Value| {
        let subject = text(check, "subject");
        let (readers, url) = subject.split_once(": ").unwrap_or_default();
        check["id"] == "endpoint" && url == format!("https://{authority}") && readers.split(", ").any(|reader| reader == runtime)
    };
    let check = report["checks"].as_array().into_iter().flatten().find(concerns);
    let check = check.with_context(|| format!("verify says nothing of {authority} for {runtime}"))?;
    Ok((text(check, "result"), text(check, "found")))
}
