//! hosts.toml as one class of containerd versions reads it.

use std::sync::Arc;
use std::time::Duration;

use toml_edit::{Document, Item, Table, TableLike, Value};

use super::toml10::{newer_than_toml_1_0, unread};
use super::{Capabilities, HostConfig, HostsFile, Rejected, Url, plain};
use crate::model::order;
use crate::model::path::NodePath;
use crate::model::place::Place;
use crate::runtime::containerd::Dialect;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// Reads the content of `file`; relative `ca` and `client` paths are relative to its folder.
///
/// Content of zero bytes never gets here: containerd looks for certificate files then (`runtime-semantics.md` 1.2).
///
/// # Errors
/// When the class of versions rejects the file as a whole. It then goes on as if the file were not there: it fails open.
pub fn parse(bytes: &[u8], file: &NodePath, dialect: Dialect) -> Result<HostsFile, Rejected> {
    let name: Arc<str> = file.as_str().into();
    let reject = |why: &str| Rejected { why: why.to_owned(), at: Place::file(Arc::clone(&name)) };
    if bytes.starts_with(BOM) && dialect.is_v2() {
        return Err(reject("begins with a byte order mark, which containerd 2.x does not accept"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| reject("is not UTF-8"))?;
    plain::read(text, file, &name).map_or_else(|| by_document(text, file, &name, dialect), Ok)
}

/// The same by way of a TOML document, which is the one reader for everything that we did not write.
pub(super) fn by_document(text: &str, file: &NodePath, name: &Arc<str>, dialect: Dialect) -> Result<HostsFile, Rejected> {
    let document = Document::parse(text).map_err(|error| Rejected {
        why: format!("TOML syntax: {}", error.message().lines().next().unwrap_or_default()),
        at: error.span().map_or_else(|| Place::file(Arc::clone(name)), |span| Place::at(Arc::clone(name), text, span.start)),
    })?;
    if let Some((what, offset)) = newer_than_toml_1_0(&document, !dialect.is_v2()) {
        return Err(Rejected { why: format!("TOML syntax: {}", unread(what, dialect)), at: Place::at(Arc::clone(name), text, offset) });
    }
    let folder = file.parent().unwrap_or_else(NodePath::root);
    Reader { file: Arc::clone(name), text, folder, dialect }.document(document.as_table())
}

struct Reader<'a> {
    file: Arc<str>,
    text: &'a str,
    folder: NodePath,
    dialect: Dialect,
}

type Read<T> = Result<T, Rejected>;

impl Reader<'_> {
    fn at(&self, offset: Option<usize>) -> Place {
        offset.map_or_else(|| Place::file(Arc::clone(&self.file)), |offset| Place::at(Arc::clone(&self.file), self.text, offset))
    }

    fn reject<T>(&self, item: &Item, why: impl Into<String>) -> Read<T> {
        Err(Rejected { why: why.into(), at: self.at(item.span().map(|span| span.start)) })
    }

    fn document(&self, top: &Table) -> Read<HostsFile> {
        let server = match top.get("server") {
            None => "",
            Some(item) => match item.as_str() {
                Some(server) => server,
                None => return self.reject(item, "server is not a string"),
            },
        };
        let declared = match top.get("host") {
            None => None,
            Some(item) => match item.as_table_like() {
                Some(table) => Some(table),
                None => return self.reject(item, "host is not a table"),
            },
        };
        if declared.is_none() && self.dialect.needs_host_table() {
            return Err(Rejected { why: "has no [host] table, which containerd before 1.7.32 requires".into(), at: self.at(None) });
        }
        // every table is decoded, also those that 2.x then drops: one wrong type rejects the file
        let mut all = Vec::new();
        for (key, item) in declared.iter().flat_map(|table| table.iter()) {
            let Some(table) = item.as_table_like() else { return self.reject(item, format!("host {key:?} is not a table")) };
            let config = self.host(key, table, item.span().map(|span| span.start))?;
            all.push((key, config));
        }
        let hosts = if self.dialect.is_v2() {
            declared
                .map(standard_order)
                .unwrap_or_default()
                .into_iter()
                .filter_map(|(start, key)| {
                    let config = all.iter().find(|(name, _)| *name == key).map(|(_, config)| config.clone())?;
                    Some(HostConfig { at: self.at(Some(start)), ..config })
                })
                .collect()
        } else {
            // sorted by line, and an inline table has none there (go-toml 1.9, `parseInlineTable`; seen on 1.6.20 and 1.7.24)
            let inline = |key: &str| declared.and_then(|table| table.get(key)).is_some_and(Item::is_inline_table);
            order::sort_by_key(&mut all, |(key, _)| !inline(key));
            all.into_iter().map(|(_, config)| config).collect()
        };
        let start = top.get("server").and_then(Item::span).map(|span| span.start);
        Ok(HostsFile { hosts, root: self.host(server, top, start)? })
    }

    /// One set of keys; `url` is empty for the root of a file without `server`.
    fn host(&self, url: &str, table: &dyn TableLike, start: Option<usize>) -> Read<HostConfig> {
        let mut config = HostConfig::bare(self.at(start));
        let mut override_path = false;
        for (key, item) in table.iter() {
            match key {
                "capabilities" => config.capabilities = self.capabilities(item)?,
                "ca" => config.ca = Some(self.ca(item)?),
                "client" => config.client = Some(self.client(item)?),
                "skip_verify" => config.skip_verify = Some(self.boolean(key, item)?),
                "override_path" => override_path = self.boolean(key, item)?,
                "header" => config.header = self.header(item)?,
                "dial_timeout" => {
                    if self.dialect.knows_dial_timeout() {
                        self.dial_timeout(item)?;
                    }
                    config.dial_timeout = item.as_str().and_then(go_duration).and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                }
                _ => {}
            }
        }
        if !url.is_empty() {
            let url = Url::parse(url, override_path).map_err(|why| Rejected { why, at: config.at.clone() })?;
            config.url = Some(url);
        }
        Ok(config)
    }

    fn boolean(&self, key: &str, item: &Item) -> Read<bool> {
        item.as_bool().map_or_else(|| self.reject(item, format!("{key} is not true or false")), Ok)
    }

    fn strings<'i>(&self, key: &str, item: &'i Item) -> Read<Vec<&'i str>> {
        let Some(array) = item.as_array() else { return self.reject(item, format!("{key} is not a list of strings")) };
        let strings: Option<Vec<&str>> = array.iter().map(Value::as_str).collect();
        strings.map_or_else(|| self.reject(item, format!("{key} is not a list of strings")), Ok)
    }

    fn capabilities(&self, item: &Item) -> Read<Capabilities> {
        let names = self.strings("capabilities", item)?;
        if names.is_empty() {
            return Ok(Capabilities::ALL);
        }
        let mut capabilities = Capabilities::NONE;
        for name in names {
            match name.to_lowercase().as_str() {
                "pull" => capabilities.pull = true,
                "resolve" => capabilities.resolve = true,
                "push" => capabilities.push = true,
                "referrers" if self.dialect.knows_referrers() => {}
                _ => return self.reject(item, format!("unknown capability {name:?}")),
            }
        }
        Ok(capabilities)
    }

    fn ca(&self, item: &Item) -> Read<Vec<NodePath>> {
        if let Some(path) = item.as_str() {
            return Ok(vec![self.folder.join(path)]);
        }
        let paths =
            self.strings("ca", item).map_err(|rejected| Rejected { why: "ca is neither a string nor a list".into(), ..rejected })?;
        Ok(paths.into_iter().map(|path| self.folder.join(path)).collect())
    }

    fn client(&self, item: &Item) -> Read<Vec<(NodePath, Option<NodePath>)>> {
        if let Some(path) = item.as_str() {
            return Ok(vec![(self.folder.join(path), None)]);
        }
        let wrong = "client is neither a string nor a list of strings or pairs";
        let Some(array) = item.as_array() else { return self.reject(item, wrong) };
        let mut pairs = Vec::new();
        for value in array {
            if let Some(path) = value.as_str() {
                pairs.push((self.folder.join(path), None));
                continue;
            }
            let parts: Option<Vec<&str>> = value.as_array().and_then(|pair| pair.iter().map(Value::as_str).collect());
            match parts.as_deref() {
                Some([cert, key]) => {
                    pairs.push((self.folder.join(cert), (!key.is_empty()).then(|| self.folder.join(key))));
                }
                _ => return self.reject(item, wrong),
            }
        }
        Ok(pairs)
    }

    fn header(&self, item: &Item) -> Read<Vec<(String, Vec<String>)>> {
        let Some(table) = item.as_table_like() else { return self.reject(item, "header is not a table") };
        let mut header = Vec::new();
        for (name, value) in table.iter() {
            let values = match value.as_str() {
                Some(one) => vec![one],
                None => self.strings(&format!("header {name:?}"), value)?,
            };
            header.push((name.to_owned(), values.into_iter().map(ToOwned::to_owned).collect()));
        }
        Ok(header)
    }

    fn dial_timeout(&self, item: &Item) -> Read<()> {
        match item.as_str() {
            Some(text) if text.is_empty() || go_duration(text).is_some() => Ok(()),
            Some(text) => self.reject(item, format!("dial_timeout {text:?} is no duration")),
            None => self.reject(item, "dial_timeout is not a string"),
        }
    }
}

/// What 2.x sees: the standard tables below `host` in file order, a host again when its sub-table comes after another host's
/// (hosts.go, `getSortedHosts`).
fn standard_order(hosts: &dyn TableLike) -> Vec<(usize, &str)> {
    fn headers<'a>(item: &'a Item, key: &'a str, found: &mut Vec<(usize, &'a str)>) {
        if let Item::Table(table) = item {
            if !table.is_implicit() && !table.is_dotted() {
                found.extend(table.span().map(|span| (span.start, key)));
            }
            for (_, item) in table {
                headers(item, key, found);
            }
        }
    }
    let mut found = Vec::new();
    for (key, item) in hosts.iter() {
        headers(item, key, &mut found);
    }
    order::sort(&mut found);
    found.dedup_by(|later, earlier| later.1 == earlier.1);
    found
}

/// Go's `time.ParseDuration`, in seconds: `1.5h`, `500ms`, `1m30s`, `0`, a sign in front.
fn go_duration(text: &str) -> Option<f64> {
    let (sign, text) = (if text.starts_with('-') { -1.0 } else { 1.0 }, text.strip_prefix(['+', '-']).unwrap_or(text));
    if text == "0" {
        return Some(0.0);
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let number = &rest[..digits];
        if !number.bytes().any(|byte| byte.is_ascii_digit()) || number.matches('.').count() > 1 {
            return None;
        }
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let each = match &rest[..unit] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * each;
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(sign * seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, dialect: Dialect) -> Result<HostsFile, Rejected> {
        parse(text.as_bytes(), &NodePath::fixed("/c/docker.io/hosts.toml"), dialect)
    }

    fn hosts(text: &str, dialect: Dialect) -> Vec<String> {
        read(text, dialect).unwrap().hosts.into_iter().map(|host| host.url.unwrap().host).collect()
    }

    /// T28, T54, T55 and their like: one wrong type rejects the whole file, with the place.
    #[test]
    fn wrong_types_reject() {
        for line in [
            "ca = 3",
            "ca = [1]",
            "client = true",
            "client = [[\"a\"]]",
            "skip_verify = \"no\"",
            "override_path = \"true\"",
            "capabilities = \"pull\"",
            "capabilities = [1]",
            "header = 1",
            "header = { a = 1 }",
            "server = 1",
        ] {
            for dialect in Dialect::ALL {
                let rejected = read(&format!("{line}\n[host]\n"), dialect).unwrap_err();
                assert_eq!(rejected.at.line, 1, "{line}");
                if !line.starts_with("server") {
                    assert!(read(&format!("[host.\"https://m\"]\n{line}\n"), dialect).is_err(), "{line}");
                }
            }
        }
        for (value, ok) in [("1", false), ("\"1\"", false), ("\"2s\"", true), ("\"1m30.5s\"", true), ("\"\"", true), ("\"0\"", true)] {
            let text = format!("[host.\"https://m\"]\ndial_timeout = {value}\n");
            assert!(read(&text, Dialect::V2_0).is_ok());
            assert_eq!(read(&text, Dialect::V2_0_7).is_ok(), ok, "{value}");
        }
    }

    /// T31, T47.
    #[test]
    fn order_and_standard_tables() {
        let text = "[host.\"https://a\"]\n[host.\"https://b\"]\n[host.\"https://a\".header]\nx = \"y\"\n";
        assert_eq!(hosts(text, Dialect::V2_1), ["a", "b", "a"]);
        assert_eq!(hosts(text, Dialect::V1_7_0), ["a", "b"]);
        for text in ["host.\"https://a\".ca = \"x\"\n", "[host]\n\"https://a\" = {}\n", "host = { \"https://a\" = {} }\n"] {
            assert_eq!(hosts(text, Dialect::V2_3), [""; 0], "{text}");
            assert_eq!(hosts(text, Dialect::V1_6), ["a"], "{text}");
        }
        assert_eq!(hosts("[host.\"https://a\".header]\nx = \"y\"\n", Dialect::V2_0), ["a"]);
        assert!(read("[host]\n\"https://a\" = { ca = 3 }\n", Dialect::V2_3).is_err());
    }

    /// T14, T15, T52.
    #[test]
    fn capabilities() {
        let of = |list: &str, dialect| {
            read(&format!("[host.\"https://a\"]\ncapabilities = {list}\n"), dialect).map(|file| file.hosts[0].capabilities)
        };
        assert_eq!(of("[]", Dialect::V1_6), Ok(Capabilities::ALL));
        assert_eq!(of("[\"PULL\"]", Dialect::V1_6), Ok(Capabilities { pull: true, ..Capabilities::NONE }));
        assert!(of("[\"reslove\"]", Dialect::V2_3).is_err());
        assert!(of("[\"pull\", \"referrers\"]", Dialect::V2_1).is_err() && of("[\"pull\", \"referrers\"]", Dialect::V2_2).is_ok());
    }

    #[test]
    fn files_are_relative_to_the_folder() {
        let file =
            read("[host.\"https://a\"]\nca = [\"x.pem\", \"/y.pem\"]\nclient = [[\"c\", \"k\"], \"both\", [\"c\", \"\"]]\n", Dialect::V1_6)
                .unwrap();
        let host = &file.hosts[0];
        let path = |text: &'static str| NodePath::fixed(text);
        assert_eq!(host.ca, Some(vec![path("/c/docker.io/x.pem"), path("/y.pem")]));
        let pair = |key: Option<&'static str>| (path("/c/docker.io/c"), key.map(path));
        assert_eq!(host.client, Some(vec![pair(Some("/c/docker.io/k")), (path("/c/docker.io/both"), None), pair(None)]));
        assert_eq!((host.at.line, file.root.at.line), (1, 0));
    }

    /// T04, T48.
    #[test]
    fn needs_by_version() {
        let only_server = "server = \"https://m\"\n";
        for dialect in Dialect::ALL {
            assert_eq!(read(only_server, dialect).is_ok(), dialect >= Dialect::V1_7_32, "{dialect:?}");
            assert!(read(&format!("{only_server}[host]\n"), dialect).is_ok());
            assert_eq!(read(&format!("\u{feff}{only_server}[host]\n"), dialect).is_ok(), !dialect.is_v2());
        }
    }
}
