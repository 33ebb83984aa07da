//! The short way to read hosts.toml: files of the form that [`super::render()`] writes, without a TOML document in between.
//!
//! A node with a thousand registries has a thousand such files, and each is read on every run. Whatever is not exactly of
//! that form (another space, an escape, a key twice) is none of this reader's business: [`super::parse()`] reads it then. What
//! this reader does accept, it reads as that one does; a test holds the two against each other.

use std::sync::Arc;
use std::time::Duration;

use super::{Capabilities, HostConfig, HostsFile, Url};
use crate::format::HEADER;
use crate::model::path::NodePath;
use crate::model::place::Place;

/// One table of the file.
struct Part<'a> {
    /// `server`, or the name of the `[host."…"]` table.
    url: &'a str,
    config: HostConfig,
    override_path: bool,
    /// Keys that stand in it, each once.
    seen: Vec<&'a str>,
    /// Its `header` table has begun: none of its own keys can follow.
    header: bool,
}

/// Reads `text` when it is of the form that we write; `None` for every other text.
///
/// That form means the same to all classes of versions: it has a `[host]` table, standard tables in order, and no key that
/// only some of them read otherwise.
pub(super) fn read(text: &str, file: &NodePath, name: &Arc<str>) -> Option<HostsFile> {
    let body = text.strip_prefix("# ")?.strip_prefix(HEADER)?.strip_prefix('\n')?;
    if !body.ends_with('\n') || !body.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)) {
        return None;
    }
    let place = |line: u32, column: usize| Some(Place { file: Arc::clone(name), line, column: u32::try_from(column).ok()? });
    let folder = file.parent()?;
    let mut parts: Vec<Part<'_>> = Vec::with_capacity(3);
    let mut bare_host = false;
    for (line, number) in body.lines().zip(2_u32..) {
        let key = line.trim_start_matches(' ');
        let at = line.len() - key.len() + 1;
        if parts.is_empty() {
            let url = string(key.strip_prefix("server = ")?)?;
            parts.push(Part::new(url, place(number, at + "server = ".len())?));
        } else if let Some(table) = key.strip_prefix('[') {
            let table = table.strip_suffix(']')?;
            if bare_host {
                return None;
            }
            let (only_root, part) = (parts.len() == 1, parts.last_mut()?);
            if table == "host" && only_root {
                bare_host = true;
            } else if table == "header" && only_root {
                part.begin_header()?;
            } else if let Some(name) = table.strip_suffix(".header").and_then(|table| table.strip_prefix("host.")) {
                let url = string(name)?;
                (!only_root && part.url == url).then(|| part.begin_header())??;
            } else {
                let url = string(table.strip_prefix("host.")?)?;
                if parts[1..].iter().any(|part| part.url == url) {
                    return None;
                }
                parts.push(Part::new(url, place(number, at)?));
            }
        } else if !key.is_empty() {
            // behind `[host]` every line would be a host
            parts.last_mut().filter(|_| !bare_host)?.key(key, &folder)?;
        }
    }
    let mut parts = parts.into_iter().map(Part::config);
    let root = parts.next()??;
    let hosts = parts.collect::<Option<Vec<_>>>()?;
    // before 1.7.32 a file without any is rejected
    (bare_host || !hosts.is_empty()).then_some(HostsFile { hosts, root })
}

impl<'a> Part<'a> {
    fn new(url: &'a str, at: Place) -> Self {
        Self { url, config: HostConfig::bare(at), override_path: false, seen: Vec::with_capacity(6), header: false }
    }

    /// Its `header` table, once.
    fn begin_header(&mut self) -> Option<()> {
        (!std::mem::replace(&mut self.header, true)).then_some(())
    }

    fn key(&mut self, line: &'a str, folder: &NodePath) -> Option<()> {
        let (key, value) = line.split_once(" = ")?;
        if self.seen.contains(&key) {
            return None;
        }
        self.seen.push(key);
        match (key, value) {
            ("Authorization", value) if self.header => self.config.header.push((key.to_owned(), vec![string(value)?.to_owned()])),
            _ if self.header => return None,
            ("capabilities", "[\"pull\", \"resolve\"]") => {
                self.config.capabilities = Capabilities { pull: true, resolve: true, push: false };
            }
            ("dial_timeout", "\"5s\"") => self.config.dial_timeout = Some(Duration::from_secs(5)),
            ("override_path", "true") => self.override_path = true,
            ("skip_verify", "true") => self.config.skip_verify = Some(true),
            ("ca", value) => self.config.ca = Some(vec![folder.join(string(value)?)]),
            ("client", value) => {
                let (cert, key) = value.strip_prefix("[[")?.strip_suffix("]]")?.split_once(", ")?;
                let key = string(key).filter(|key| !key.is_empty())?;
                self.config.client = Some(vec![(folder.join(string(cert)?), Some(folder.join(key)))]);
            }
            _ => return None,
        }
        Some(())
    }

    fn config(mut self) -> Option<HostConfig> {
        self.config.url = Some(Url::parse(self.url, self.override_path).ok()?);
        Some(self.config)
    }
}

/// A basic string without escapes, not empty.
fn string(value: &str) -> Option<&str> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.is_empty() && !inner.contains(['"', '\\'])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::super::parse::by_document;
    use super::super::render::{Written, WrittenHost, render};
    use super::*;
    use crate::model::endpoint::Scheme;
    use crate::model::host::Host;
    use crate::model::repo::RepoPath;
    use crate::model::secret::Secret;
    use crate::runtime::containerd::Dialect;

    const WHOLE: &str = "server = \"https://r.example.org/v2/x\"\ncapabilities = [\"pull\", \"resolve\"]\ndial_timeout = \"5s\"\noverride_path = true\nca = \"/etc/nodeprep/pki/ca-1.pem\"\nclient = [[\"/c.crt\", \"/c.key\"]]\n[header]\n  Authorization = \"Basic eDp5\"\n\n[host.\"http://m:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n  dial_timeout = \"5s\"\n  skip_verify = true\n  [host.\"http://m:5000\".header]\n    Authorization = \"Basic eDp5\"\n\n[host.\"https://n\"]\n  ca = \"relative.pem\"\n";

    fn both(body: &str) -> bool {
        let text = format!("# {HEADER}\n{body}");
        let file = NodePath::fixed("/c/r.example.org/hosts.toml");
        let name: Arc<str> = file.as_str().into();
        let Some(short) = read(&text, &file, &name) else { return false };
        for dialect in Dialect::ALL {
            assert_eq!(by_document(&text, &file, &name, dialect).as_ref(), Ok(&short), "{dialect:?}\n{text}");
        }
        true
    }

    #[test]
    fn reads_what_we_write_as_the_other_reader_does() {
        assert!(both(WHOLE));
        assert!(both("server = \"https://r\"\n\n[host]\n"));
        assert!(both("server = \"https://r\"\n[header]\nAuthorization = \"Basic x\"\n[host.\"https://r\"]\n"));
    }

    /// What [`super::super::render`] writes takes the short way, whatever a host has.
    #[test]
    fn takes_everything_that_is_rendered() {
        let (host, prefix, all) = (Host::fixed("m:5000"), RepoPath::new("a/b").unwrap(), RepoPath::all());
        let (ca, key, login) = (NodePath::fixed("/p/ca.pem"), NodePath::fixed("/p/c.key"), Secret::new("u:p"));
        let rich = WrittenHost {
            scheme: Scheme::Https,
            host: &host,
            prefix: &prefix,
            verbatim: false,
            ca: Some(&ca),
            client: Some((&ca, &key)),
            skip_verify: false,
            login: Some(&login),
            by_digest_only: false,
            timeout: None,
            header: &[],
            guarded: false,
        };
        let bare =
            WrittenHost { scheme: Scheme::Http, prefix: &all, ca: None, client: None, skip_verify: true, login: None, ..rich.clone() };
        for (mirrors, server, closed) in [(vec![rich.clone(), bare.clone()], bare.clone(), false), (Vec::new(), rich, true)] {
            let text = String::from_utf8(render(&Written { mirrors, server, closed }).bytes).unwrap();
            let body = text.split_once('\n').unwrap().1;
            assert!(both(body), "{text}");
        }
    }

    /// Every file that differs from ours in one place is read alike or left to the other reader.
    #[test]
    fn leaves_everything_else_alone() {
        for body in [
            "server = \"https://r\"\n",
            "server = \"https://r\"\n[host]\n[host]\n",
            "server = \"https://r\"\n[host]\nca = \"x\"\n",
            "server = \"https://r\"\n[host]\n[host.\"https://a\"]\n",
            "server = \"https://r\"\n[host.\"https://a\"]\n[host.\"https://a\"]\n",
            "server = \"https://r\"\n[host.\"https://a\"]\n[header]\nAuthorization = \"x\"\n",
            "server = \"https://r\"\n[host.\"https://r\".header]\nAuthorization = \"x\"\n",
            "server = \"https://r\"\nca = \"x\"\nca = \"y\"\n[host]\n",
            "server = \"https://r\"\nca = \"x\\u0041\"\n[host]\n",
            "server = \"https://r\"\nskip_verify = false\n[host]\n",
            "server = \"https://r\"\nclient = [[\"a\", \"\"]]\n[host]\n",
            "server = \"https://r:x\"\n[host]\n",
            "server = \"\"\n[host]\n",
            "server = \"https://r\"\r\n[host]\n",
            "",
        ] {
            assert!(!both(body), "{body}");
        }
        let edits = [" ", "\"", "\\", "]", "[", "#", "\n", "=", "x", ".", "'", ",", "\t", "é"];
        for at in (0..WHOLE.len()).filter(|at| WHOLE.is_char_boundary(*at)) {
            both(&format!("{}{}", &WHOLE[..at], &WHOLE[at + 1..]));
            for edit in edits {
                both(&format!("{}{edit}{}", &WHOLE[..at], &WHOLE[at..]));
                both(&format!("{}{edit}{}", &WHOLE[..at], &WHOLE[at + 1..]));
            }
        }
        let lines: Vec<&str> = WHOLE.lines().collect();
        for at in 0..lines.len() {
            for to in 0..lines.len() {
                let mut moved = lines.clone();
                let line = moved.remove(at);
                moved.insert(to, line);
                both(&format!("{}\n", moved.join("\n")));
                moved.insert(at, line);
                both(&format!("{}\n", moved.join("\n")));
            }
        }
    }
}
