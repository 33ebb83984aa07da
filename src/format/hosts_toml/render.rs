//! hosts.toml as we write it: right on every version at once (`runtime-semantics.md` 8.4, rules 1–8).

use std::fmt::Write as _;
use std::time::Duration;

use super::super::HEADER;
use crate::model::cert::base64;
use crate::model::content::Content;
use crate::model::endpoint::Scheme;
use crate::model::host::Host;
use crate::model::path::NodePath;
use crate::model::repo::RepoPath;
use crate::model::secret::Secret;

/// How long a connection to a mirror may take; versions before 2.0.7 pass over the key.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(5);

/// What a registry's file is to say. Certificate files are there before it is written.
#[derive(Clone, Debug)]
pub struct Written<'a> {
    /// The hosts that are asked before the last one, in order.
    pub mirrors: Vec<WrittenHost<'a>>,
    /// The last host: the registry itself, or the last mirror where the registry is closed.
    pub server: WrittenHost<'a>,
    /// Whether `server` stands in for the registry, and gets what mirrors get.
    pub closed: bool,
}

/// One host.
#[derive(Clone, Debug)]
pub struct WrittenHost<'a> {
    /// How it is spoken to.
    pub scheme: Scheme,
    /// Which; Docker Hub's own name is replaced by its API's (rule 6).
    pub host: &'a Host,
    /// In front of the repositories.
    pub prefix: &'a RepoPath,
    /// `prefix` is the whole path of the API, without `/v2`.
    pub verbatim: bool,
    /// CA file; not written for plain HTTP and unverified hosts (rule 7).
    pub ca: Option<&'a NodePath>,
    /// Certificate and key file; not written for plain HTTP (rule 7).
    pub client: Option<(&'a NodePath, &'a NodePath)>,
    /// HTTPS without verification.
    pub skip_verify: bool,
    /// `user:password`, sent as Basic login.
    pub login: Option<&'a Secret>,
    /// It is not asked for tags.
    pub by_digest_only: bool,
    /// How long a connection may take, where it is not the usual.
    pub timeout: Option<Duration>,
    /// Other headers, name and value.
    pub header: &'a [(String, String)],
    /// Their values are not to be shown.
    pub guarded: bool,
}

/// The file. The result holds secrets, in each form in which they stand in it, when a host has a login.
#[must_use]
pub fn render(written: &Written<'_>) -> Content {
    let mut text = String::with_capacity(512);
    let mut secrets = Vec::new();
    let _ = writeln!(text, "# {HEADER}");
    text.push_str("server = ");
    url(&mut text, &written.server);
    text.push('\n');
    if written.closed {
        mirror_keys(&mut text, "", &written.server);
    }
    keys(&mut text, "", &written.server);
    header(&mut text, "", "header", &written.server, &mut secrets);
    if written.mirrors.is_empty() {
        // rule 5: required before 1.7.32, where a file without it is passed over and the pull goes to the registry
        text.push_str("\n[host]\n");
    }
    hosts(&mut text, &written.mirrors, &mut secrets);
    Content::secret(text, secrets)
}

/// The file in `_default`: mirrors in front of every registry that has no folder of its own. It names no `server`: each
/// registry is asked itself last, and keys of its own would be for all of them.
#[must_use]
pub fn render_open_default(mirrors: &[WrittenHost<'_>]) -> Content {
    let mut text = format!("# {HEADER}\n");
    let mut secrets = Vec::new();
    hosts(&mut text, mirrors, &mut secrets);
    Content::secret(text, secrets)
}

fn hosts(text: &mut String, mirrors: &[WrittenHost<'_>], secrets: &mut Vec<Secret>) {
    for mirror in mirrors {
        text.push_str("\n[host.");
        let start = text.len();
        url(text, mirror);
        let key = start..text.len();
        text.push_str("]\n");
        mirror_keys(text, "  ", mirror);
        keys(text, "  ", mirror);
        if has_header(mirror) {
            let table = format!("host.{}.header", &text[key]);
            header(text, "  ", &table, mirror, secrets);
        }
    }
}

/// `"https://host/v2/prefix"`: always with scheme (rule 2), the path `/v2/…` only together with `override_path`
/// (rule 18).
fn url(text: &mut String, host: &WrittenHost<'_>) {
    let (api, prefix) = (host.host.api(), host.prefix.as_str());
    let between = match (prefix, host.verbatim) {
        ("", _) => "",
        (_, true) => "/",
        (_, false) => "/v2/",
    };
    string_of(text, [host.scheme.as_str(), "://", api.as_str(), between, prefix]);
}

/// Rules 3 and 4.
fn mirror_keys(text: &mut String, indent: &str, host: &WrittenHost<'_>) {
    let capabilities = if host.by_digest_only { "capabilities = [\"pull\"]\n" } else { "capabilities = [\"pull\", \"resolve\"]\n" };
    for piece in [indent, capabilities, indent, "dial_timeout = \""] {
        text.push_str(piece);
    }
    let limit = host.timeout.unwrap_or(DIAL_TIMEOUT);
    let _ = if limit.subsec_millis() == 0 { writeln!(text, "{}s\"", limit.as_secs()) } else { writeln!(text, "{}ms\"", limit.as_millis()) };
}

fn keys(text: &mut String, indent: &str, host: &WrittenHost<'_>) {
    if host.verbatim || !host.prefix.is_all() {
        text.push_str(indent);
        text.push_str("override_path = true\n");
    }
    if host.scheme == Scheme::Http {
        return;
    }
    if host.skip_verify {
        let _ = writeln!(text, "{indent}skip_verify = true");
    } else if let Some(ca) = host.ca {
        text.push_str(indent);
        text.push_str("ca = ");
        string(text, ca.as_str());
        text.push('\n');
    }
    if let Some((cert, key)) = host.client {
        let _ = write!(text, "{indent}client = [[");
        string(text, cert.as_str());
        text.push_str(", ");
        string(text, key.as_str());
        text.push_str("]]\n");
    }
}

/// Whether anything is sent along: headers of the endpoint's own, or a login.
fn has_header(host: &WrittenHost<'_>) -> bool {
    host.login.is_some() || !host.header.is_empty()
}

/// A table of its own, directly behind its host's (T47).
fn header(text: &mut String, indent: &str, table: &str, host: &WrittenHost<'_>, secrets: &mut Vec<Secret>) {
    if !has_header(host) {
        return;
    }
    let _ = writeln!(text, "{indent}[{table}]");
    for (name, value) in host.header {
        let _ = write!(text, "{indent}  ");
        string(text, name);
        text.push_str(" = ");
        let start = text.len() + 1;
        string(text, value);
        if host.guarded {
            // as it is and as it stands there
            secrets.extend([Secret::new(value.as_str()), Secret::new(&text[start..text.len() - 1])]);
        }
        text.push('\n');
    }
    let Some(login) = host.login else { return };
    let coded = base64(login.expose());
    let _ = writeln!(text, "{indent}  Authorization = \"Basic {coded}\"");
    secrets.push(Secret::new(coded));
    secrets.push(login.clone());
    if let Some(colon) = login.expose().iter().position(|byte| *byte == b':') {
        secrets.push(Secret::new(&login.expose()[colon + 1..]));
    }
}

/// A TOML 1.0 basic string.
fn string(text: &mut String, value: &str) {
    string_of(text, [value]);
}

/// The same of several pieces.
fn string_of<const N: usize>(text: &mut String, pieces: [&str; N]) {
    text.push('"');
    for piece in pieces {
        escaped(text, piece);
    }
    text.push('"');
}

fn escaped(text: &mut String, value: &str) {
    if value.bytes().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        text.push_str(value);
        return;
    }
    for c in value.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            '\r' => text.push_str("\\r"),
            c if c.is_control() => {
                let _ = write!(text, "\\u{:04X}", u32::from(c));
            }
            c => text.push(c),
        }
    }
}

/// A TOML 1.0 basic string with its quotes, for other files of the same family.
#[must_use]
pub fn quoted(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    string(&mut text, value);
    text
}

/// Reads our own file again with rules stricter than any containerd's (rule 1): known keys only, standard tables only, a
/// scheme on every host, `pull` and `resolve` the only capabilities.
///
/// # Errors
/// Which rule it breaks.
pub fn check(text: &str) -> Result<(), String> {
    check_as(text, false)
}

/// The same for the file in `_default`, which may do without `server`.
///
/// # Errors
/// Which rule it breaks.
pub fn check_default(text: &str) -> Result<(), String> {
    check_as(text, true)
}

fn check_as(text: &str, is_default: bool) -> Result<(), String> {
    if text.starts_with('\u{feff}') {
        return Err("begins with a byte order mark".into());
    }
    let document = toml_edit::Document::parse(text).map_err(|error| error.message().to_owned())?;
    let top = document.as_table();
    let hosts =
        top.get("host").map(|item| item.as_table().filter(|table| !table.is_dotted()).ok_or("host is no standard table")).transpose()?;
    if hosts.is_none() {
        return Err("has no [host] table".into());
    }
    let scheme = |text: &str| text.starts_with("https://") || text.starts_with("http://");
    let server = top.get("server").and_then(toml_edit::Item::as_str);
    let server = if is_default { server.unwrap_or("https://") } else { server.ok_or("has no server")? };
    if !scheme(server) {
        return Err("server has no scheme".into());
    }
    check_keys(top, server, &["server", "host"])?;
    for (key, item) in hosts.into_iter().flatten() {
        let table = item.as_table().filter(|table| !table.is_dotted() && !table.is_implicit()).ok_or("a host is no standard table")?;
        if !scheme(key) {
            return Err(format!("host {key:?} has no scheme"));
        }
        if table.get("capabilities").is_none() {
            return Err(format!("host {key:?} has no capabilities"));
        }
        check_keys(table, key, &[])?;
    }
    Ok(())
}

fn check_keys(table: &toml_edit::Table, url: &str, more: &[&str]) -> Result<(), String> {
    for (key, item) in table {
        let plain = url.starts_with("http://");
        let fine = match key {
            "capabilities" => item.as_array().is_some_and(|list| list.iter().all(|name| matches!(name.as_str(), Some("pull" | "resolve")))),
            "ca" => item.is_str() && !plain,
            "client" => item.is_array() && !plain,
            "skip_verify" => item.is_bool() && !plain,
            "override_path" => item.is_bool(),
            "dial_timeout" => item.is_str(),
            "header" => item.as_table().is_some_and(|table| !table.is_dotted()),
            key => more.contains(&key),
        };
        if !fine {
            return Err(format!("key {key} of {url} is unknown or wrong"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host<'a>(host: &'a Host, prefix: &'a RepoPath) -> WrittenHost<'a> {
        WrittenHost {
            scheme: Scheme::Https,
            host,
            prefix,
            verbatim: false,
            ca: None,
            client: None,
            skip_verify: false,
            login: None,
            by_digest_only: false,
            timeout: None,
            header: &[],
            guarded: false,
        }
    }

    fn text(written: &Written<'_>) -> String {
        let text = String::from_utf8(render(written).bytes).unwrap();
        check(&text).unwrap();
        text
    }

    /// 8.4, rules 2, 3, 4, 6 and 18: the whole file of an open mirror.
    #[test]
    fn mirror_then_upstream() {
        let (mirror, hub) = (Host::fixed("harbor.corp"), Host::fixed("docker.io"));
        let (prefix, all) = (RepoPath::new("dockerhub").unwrap(), RepoPath::all());
        let ca = NodePath::fixed("/etc/nodeprep/pki/ca-0.pem");
        let mirrors = vec![WrittenHost { ca: Some(&ca), ..host(&mirror, &prefix) }];
        let want = format!(
            "# {HEADER}\nserver = \"https://registry-1.docker.io\"\n\n[host.\"https://harbor.corp/v2/dockerhub\"]\n  capabilities = [\"pull\", \
             \"resolve\"]\n  dial_timeout = \"5s\"\n  override_path = true\n  ca = \"/etc/nodeprep/pki/ca-0.pem\"\n"
        );
        assert_eq!(text(&Written { mirrors, server: host(&hub, &all), closed: false }).replace("[host]\n", ""), want);
    }

    /// 8.4, rules 5 and 8: the last mirror is `server`, with its keys at the root, and `[host]` is there.
    #[test]
    fn closed_with_one_mirror() {
        let (mirror, prefix) = (Host::fixed("m:5000"), RepoPath::new("p").unwrap());
        let text = text(&Written { mirrors: vec![], server: WrittenHost { skip_verify: true, ..host(&mirror, &prefix) }, closed: true });
        let want = "server = \"https://m:5000/v2/p\"\ncapabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"5s\"\noverride_path = \
                    true\nskip_verify = true\n\n[host]\n";
        assert_eq!(text.split_once('\n').unwrap().1, want);
    }

    /// 8.4, rules 2 and 18: a path is an endpoint's own, and said only where there is one.
    #[test]
    fn scheme_and_path_are_always_ours() {
        let hub = Host::fixed("m:5000");
        for (scheme, prefix, url, own) in [
            (Scheme::Https, "", "https://m:5000", false),
            (Scheme::Http, "", "http://m:5000", false),
            (Scheme::Https, "a/b", "https://m:5000/v2/a/b", true),
        ] {
            let prefix = RepoPath::new(prefix).unwrap();
            let text = text(&Written { mirrors: vec![], server: WrittenHost { scheme, ..host(&hub, &prefix) }, closed: true });
            assert!(text.contains(&format!("server = \"{url}\"\n")), "{text}");
            assert_eq!(text.contains("override_path = true\n"), own, "{text}");
        }
    }

    /// 8.4, rule 7.
    #[test]
    fn no_tls_keys_on_http() {
        let (mirror, all, file) = (Host::fixed("m:5000"), RepoPath::all(), NodePath::fixed("/x"));
        let http =
            WrittenHost { scheme: Scheme::Http, ca: Some(&file), client: Some((&file, &file)), skip_verify: true, ..host(&mirror, &all) };
        let text = text(&Written { mirrors: vec![http.clone()], server: http, closed: true });
        assert!(!text.contains("ca =") && !text.contains("client") && !text.contains("skip_verify"), "{text}");
    }

    /// 8.4, rule 19: the header follows its host directly, and every form of the secret is known.
    #[test]
    fn logins_are_headers_and_masked() {
        let (one, two, all) = (Host::fixed("a"), Host::fixed("b"), RepoPath::all());
        let login = Secret::new("user:hunter22");
        let with = |name| WrittenHost { login: Some(&login), ..host(name, &all) };
        let content = render(&Written { mirrors: vec![with(&one), with(&two)], server: with(&one), closed: true });
        let shown = content.masked();
        let text = String::from_utf8(content.bytes).unwrap();
        check(&text).unwrap();
        assert!(text.contains("[host.\"https://b\".header]\n    Authorization = \"Basic dXNlcjpodW50ZXIyMg==\"\n"));
        assert!(!shown.contains("dXNlc") && !shown.contains("hunter22"), "{shown}");
        let order: Vec<&str> = text.lines().filter(|line| line.trim_start().starts_with('[')).map(str::trim).collect();
        let want =
            ["[header]", "[host.\"https://a\"]", "[host.\"https://a\".header]", "[host.\"https://b\"]", "[host.\"https://b\".header]"];
        assert_eq!(order, want);
    }

    /// What an endpoint may have of its own; names of headers are quoted, so that every one of them is one key.
    #[test]
    fn options_of_an_endpoint() {
        let (one, all, login) = (Host::fixed("a"), RepoPath::all(), Secret::new("u:p"));
        let header = [("X-Team".to_owned(), "a \"b\"".to_owned()), ("x.y".to_owned(), "1".to_owned())];
        let options = |millis| WrittenHost {
            by_digest_only: true,
            timeout: Some(Duration::from_millis(millis)),
            header: &header,
            login: Some(&login),
            ..host(&one, &all)
        };
        let text = text(&Written { mirrors: vec![options(1500)], server: options(20_000), closed: true });
        let names = "\"X-Team\" = \"a \\\"b\\\"\"\n{}\"x.y\" = \"1\"\n{}Authorization = \"Basic dTpw\"\n";
        let root = "capabilities = [\"pull\"]\ndial_timeout = \"20s\"\n[header]\n  ";
        assert!(text.contains(&format!("{root}{}", names.replace("{}", "  "))), "{text}");
        let below = "  capabilities = [\"pull\"]\n  dial_timeout = \"1500ms\"\n  [host.\"https://a\".header]\n    ";
        assert!(text.contains(&format!("{below}{}", names.replace("{}", "    "))), "{text}");
    }

    /// Either of the two is reason enough for the table, at the root and below a host.
    #[test]
    fn a_header_without_a_login() {
        let (one, all) = (Host::fixed("a"), RepoPath::all());
        let header = [("X-Team".to_owned(), "a".to_owned())];
        let with = || WrittenHost { header: &header, ..host(&one, &all) };
        let text = text(&Written { mirrors: vec![with()], server: with(), closed: true });
        assert!(text.contains("\n[header]\n  \"X-Team\" = \"a\"\n"), "{text}");
        assert!(text.contains("\n  [host.\"https://a\".header]\n    \"X-Team\" = \"a\"\n"), "{text}");
        assert!(!text.contains("Authorization"), "{text}");
    }

    /// 8.4, rule 1: what the strict reader does not let through.
    #[test]
    fn strict_reader() {
        for bad in [
            "\u{feff}server = \"https://m\"\n[host]\n",
            "server = \"https://m\"\n",
            "server = \"m\"\n[host]\n",
            "[host]\n",
            "server = \"https://m\"\n[host.\"m\"]\ncapabilities = [\"pull\"]\n",
            "server = \"https://m\"\n[host.\"https://m\"]\n",
            "server = \"https://m\"\n[host.\"https://m\"]\ncapabilities = [\"referrers\"]\n",
            "server = \"https://m\"\nskip_verfy = true\n[host]\n",
            "server = \"https://m\"\ndial_timeout = 1\n[host]\n",
            "server = \"http://m\"\nskip_verify = true\n[host]\n",
            "server = \"https://m\"\nhost.\"https://m\".capabilities = [\"pull\"]\n",
            "server = \"https://m\"\n[host]\n\"https://m\" = { capabilities = [\"pull\"] }\n",
        ] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn strings_are_toml_1_0() {
        let value = "a\"b\\c\u{1}\n\u{7f}é";
        let document = format!("x = {}", quoted(value)).parse::<toml_edit::DocumentMut>().unwrap();
        assert_eq!(document["x"].as_str(), Some(value));
        assert!(quoted(value).contains("\\u0001") && quoted(value).contains("\\u007F"));
    }
}
