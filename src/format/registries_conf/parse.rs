//! One registries.conf file → [`Conf`], or the rule that it breaks.

use std::collections::BTreeMap;
use std::ops::Range;

use toml_edit::{Document, Item, TableLike};

use super::{Conf, Invalid, Mirror, Pull, Registry, ShortNames};
use crate::model::host::Host;
use crate::model::image::ImageRef;
use crate::model::path::NodePath;
use crate::model::place::Place;

/// Reads one file as containers/image does: unknown keys and tables are passed over, everything that it would refuse is
/// refused (`runtime-semantics.md` 2.2, 2.5). `drop_in`: a file of a `.d` folder, where version 1 is not allowed.
///
/// # Errors
/// The first rule that the file breaks. Every pull fails then, whatever the other files say.
pub fn parse(file: &NodePath, text: &str, drop_in: bool) -> Result<Conf, Invalid> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let reader = Reader { file, text };
    let document = Document::parse(text).map_err(|error| reader.invalid(error.span(), "syntax", error.message().trim().to_owned()))?;
    let top = document.as_table();
    let one = reader.version_1(top)?;
    let conf = reader.version_2(top)?;
    let Some(one) = one else { return Ok(conf) };
    let place = || top.get_key_value("registries").and_then(|(key, _)| key.span());
    if drop_in {
        return Err(reader.invalid(place(), "v1-in-drop-in", "holds [registries.…] tables (version 1), which no drop-in may".into()));
    }
    if conf != Conf::default() || sets_registries(top) {
        return Err(reader.invalid(place(), "v1-and-v2", "mixes [registries.…] tables (version 1) with [[registry]] (version 2)".into()));
    }
    Ok(one)
}

fn sets_registries(top: &dyn TableLike) -> bool {
    get(top, "registry").is_some() || get(top, "aliases").is_some()
}

/// A key as Go's TOML decoder finds it: the exact name, else without regard to case.
fn get<'a>(table: &'a dyn TableLike, key: &str) -> Option<&'a Item> {
    table
        .get(key)
        .or_else(|| table.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, item)| item))
        .filter(|item| !item.is_none())
}

/// Tables with the place of each.
type Tables<'a> = Vec<(&'a dyn TableLike, Option<Range<usize>>)>;

/// Entries of a list with the place of each.
type Hosts = Vec<(String, Option<Range<usize>>)>;

struct Reader<'a> {
    file: &'a NodePath,
    text: &'a str,
}

impl Reader<'_> {
    fn place(&self, span: Option<Range<usize>>) -> Place {
        match span {
            Some(span) => Place::at(self.file.as_str(), self.text, span.start),
            None => Place::file(self.file.as_str()),
        }
    }

    fn invalid(&self, span: Option<Range<usize>>, rule: &'static str, what: String) -> Invalid {
        Invalid { at: self.place(span), rule, what }
    }

    fn wrong_type(&self, item: &Item, key: &str, wanted: &str) -> Invalid {
        self.invalid(item.span(), "type", format!("{key} is {}, not {wanted}", item.type_name()))
    }

    fn string(&self, table: &dyn TableLike, key: &str) -> Result<Option<String>, Invalid> {
        let Some(item) = get(table, key) else { return Ok(None) };
        item.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| self.wrong_type(item, key, "a string"))
    }

    fn flag(&self, table: &dyn TableLike, key: &str) -> Result<bool, Invalid> {
        let Some(item) = get(table, key) else { return Ok(false) };
        item.as_bool().ok_or_else(|| self.wrong_type(item, key, "true or false"))
    }

    fn strings(&self, table: &dyn TableLike, key: &str) -> Result<Option<Vec<String>>, Invalid> {
        let Some(item) = get(table, key) else { return Ok(None) };
        let array = item.as_array().ok_or_else(|| self.wrong_type(item, key, "a list of strings"))?;
        let text = |value: &toml_edit::Value| value.as_str().map(ToOwned::to_owned);
        let texts = array.iter().map(text).collect::<Option<_>>();
        texts.map(Some).ok_or_else(|| self.wrong_type(item, key, "a list of strings"))
    }

    /// Tables of `[[key]]`, or of an inline list of tables.
    fn tables<'t>(&self, table: &'t dyn TableLike, key: &str) -> Result<Tables<'t>, Invalid> {
        let Some(item) = get(table, key) else { return Ok(Vec::new()) };
        match item {
            Item::ArrayOfTables(tables) => Ok(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect()),
            Item::Value(toml_edit::Value::Array(array)) => array
                .iter()
                .map(|value| value.as_inline_table().map(|table| (table as &dyn TableLike, value.span())))
                .collect::<Option<_>>()
                .ok_or_else(|| self.wrong_type(item, key, "a list of tables")),
            _ => Err(self.wrong_type(item, key, "a list of tables")),
        }
    }

    /// A location, prefix or search entry: slashes at the end are dropped, a scheme is refused. (Older releases, skopeo 1.9.3
    /// among them, keep the slash of a *mirror*, and every pull fails; ours never has one.)
    fn location(&self, text: Option<String>, span: Option<Range<usize>>) -> Result<String, Invalid> {
        let text = text.unwrap_or_default();
        if text.starts_with("http://") || text.starts_with("https://") {
            return Err(self.invalid(span, "scheme", format!("{text:?} begins with a scheme")));
        }
        Ok(text.trim_end_matches('/').to_owned())
    }

    fn version_2(&self, top: &dyn TableLike) -> Result<Conf, Invalid> {
        let mut conf = Conf {
            search: self.strings(top, "unqualified-search-registries")?,
            credential_helpers: self.strings(top, "credential-helpers")?,
            ..Conf::default()
        };
        let mut all = Vec::new();
        for (table, span) in self.tables(top, "registry")? {
            all.push((self.registry(table, span.clone())?, span));
        }
        self.contradictions(&all)?;
        let span = get(top, "unqualified-search-registries").and_then(Item::span);
        for host in conf.search.iter_mut().flatten() {
            *host = self.search(host, span.clone())?;
        }
        if let Some(mode) = self.string(top, "short-name-mode")?.filter(|mode| !mode.is_empty()) {
            conf.short_name_mode = Some(match mode.as_str() {
                "enforcing" => ShortNames::Enforcing,
                "permissive" => ShortNames::Permissive,
                "disabled" => ShortNames::Disabled,
                other => {
                    let span = get(top, "short-name-mode").and_then(Item::span);
                    let what = format!("short-name-mode is {other:?}, not enforcing, permissive or disabled");
                    return Err(self.invalid(span, "short-name-mode", what));
                }
            });
        }
        conf.aliases = self.aliases(top)?;
        // of several entries for one prefix in one file the first counts, in silence (R12)
        for (registry, _) in all {
            conf.registries.entry(registry.prefix.clone()).or_insert(registry);
        }
        Ok(conf)
    }

    fn registry(&self, table: &dyn TableLike, span: Option<Range<usize>>) -> Result<Registry, Invalid> {
        let location = self.location(self.string(table, "location")?, span.clone())?;
        let written = self.string(table, "prefix")?.unwrap_or_default();
        let prefix = if written.is_empty() { location.clone() } else { self.location(Some(written), span.clone())? };
        self.named(&prefix, &location, span.clone())?;
        if self.string(table, "pull-from-mirror")?.is_some_and(|pull| !pull.is_empty()) {
            return Err(self.invalid(
                span,
                "pull-from-mirror",
                format!("pull-from-mirror belongs to the mirrors of {prefix:?}, not to the registry"),
            ));
        }
        let by_digest_only = self.flag(table, "mirror-by-digest-only")?;
        let mut mirrors = Vec::new();
        for (mirror, at) in self.tables(table, "mirror")? {
            mirrors.push(self.mirror(mirror, at, &prefix, by_digest_only)?);
        }
        let (insecure, blocked) = (self.flag(table, "insecure")?, self.flag(table, "blocked")?);
        Ok(Registry { prefix, location, insecure, blocked, by_digest_only, mirrors, at: self.place(span) })
    }

    /// What an entry is for and where that is.
    fn named(&self, prefix: &str, location: &str, span: Option<Range<usize>>) -> Result<(), Invalid> {
        let wildcard = prefix.starts_with("*.");
        if prefix.is_empty() {
            return Err(self.invalid(span, "no-location", "[[registry]] has neither prefix nor location".into()));
        }
        if location.is_empty() && !wildcard {
            return Err(self.invalid(span, "no-location", format!("[[registry]] with prefix {prefix:?} has no location")));
        }
        if wildcard && prefix.contains(['/', '@', ':']) {
            let what = format!("prefix {prefix:?}: a wildcard is for host names only, without port and path");
            return Err(self.invalid(span, "wildcard", what));
        }
        Ok(())
    }

    /// An entry of the search list.
    fn search(&self, host: &str, span: Option<Range<usize>>) -> Result<String, Invalid> {
        let host = self.location(Some(host.to_owned()), span.clone())?;
        if host.starts_with('[') || Host::from_reference(&host).is_err() {
            return Err(self.invalid(span, "search", format!("unqualified-search-registries: {host:?} is no host[:port]")));
        }
        Ok(host)
    }

    fn mirror(&self, table: &dyn TableLike, span: Option<Range<usize>>, of: &str, by_digest_only: bool) -> Result<Mirror, Invalid> {
        let location = self.location(self.string(table, "location")?, span.clone())?;
        if location.is_empty() {
            return Err(self.invalid(span, "no-location", format!("a mirror of {of:?} has no location")));
        }
        let pull = self.string(table, "pull-from-mirror")?.unwrap_or_default();
        if by_digest_only && !pull.is_empty() {
            let what = format!("{of:?} has mirror-by-digest-only and its mirror {location:?} pull-from-mirror");
            return Err(self.invalid(span, "pull-from-mirror", what));
        }
        let pull = match pull.as_str() {
            "" | "all" => Pull::All,
            "digest-only" => Pull::Digest,
            "tag-only" => Pull::Tag,
            other => {
                let what = format!("pull-from-mirror of {location:?} is {other:?}, not all, digest-only or tag-only");
                return Err(self.invalid(span, "pull-from-mirror", what));
            }
        };
        Ok(Mirror { location, insecure: self.flag(table, "insecure")?, pull, at: self.place(span) })
    }

    /// The same location twice in one file with another `insecure` or `blocked` (R13).
    fn contradictions(&self, all: &[(Registry, Option<Range<usize>>)]) -> Result<(), Invalid> {
        let mut seen: BTreeMap<&str, &Registry> = BTreeMap::new();
        for (registry, span) in all {
            let place = if registry.location.is_empty() { &registry.prefix } else { &registry.location };
            let first = seen.entry(place).or_insert(registry);
            for (key, differs) in [("insecure", first.insecure != registry.insecure), ("blocked", first.blocked != registry.blocked)] {
                if differs {
                    let what = format!("location {place:?} stands in this file twice, with different {key}");
                    return Err(self.invalid(span.clone(), "contradiction", what));
                }
            }
        }
        Ok(())
    }

    fn aliases(&self, top: &dyn TableLike) -> Result<BTreeMap<String, String>, Invalid> {
        let mut aliases = BTreeMap::new();
        let Some(item) = get(top, "aliases") else { return Ok(aliases) };
        let table = item.as_table_like().ok_or_else(|| self.wrong_type(item, "aliases", "a table"))?;
        let bare = |text: &str| !text.contains('@') && !text.rsplit('/').next().is_some_and(|name| name.contains(':'));
        for (short, item) in table.iter() {
            let full = item.as_str().ok_or_else(|| self.wrong_type(item, short, "a string"))?;
            if !bare(short) || !ImageRef::parse(short).is_ok_and(|image| image.short) {
                return Err(self.invalid(item.span(), "alias", format!("alias {short:?} is no short name without tag and digest")));
            }
            let names_all = bare(full) && ImageRef::parse(full).is_ok_and(|image| !image.short);
            if !full.is_empty() && !names_all {
                return Err(self.invalid(
                    item.span(),
                    "alias",
                    format!("alias {short:?}: {full:?} is no full name without tag and digest"),
                ));
            }
            aliases.insert(short.to_owned(), full.to_owned());
        }
        Ok(aliases)
    }

    /// `[registries.search]`, `[registries.insecure]`, `[registries.block]`; `None` when none of them is there. As
    /// containers/image, they are read as if version 2 said the same (`ConvertToV2`, sysregistriesv2/system_registries_v2.go):
    /// the same rules, and one entry for what stands in both lists or twice. An empty list counts beside version 2 as well: skopeo
    /// 1.18 refuses such a file, 1.9.3 still passes over the list.
    fn version_1(&self, top: &dyn TableLike) -> Result<Option<Conf>, Invalid> {
        let Some(item) = get(top, "registries") else { return Ok(None) };
        let table = item.as_table_like().ok_or_else(|| self.wrong_type(item, "registries", "a table"))?;
        let list = |name: &str| -> Result<Option<Hosts>, Invalid> {
            let Some(item) = get(table, name) else { return Ok(None) };
            let table = item.as_table_like().ok_or_else(|| self.wrong_type(item, name, "a table"))?;
            let Some(texts) = self.strings(table, "registries")? else { return Ok(None) };
            let array = get(table, "registries").and_then(Item::as_array);
            let spans = array.into_iter().flat_map(toml_edit::Array::iter).map(toml_edit::Value::span);
            Ok(Some(texts.into_iter().zip(spans).collect()))
        };
        let (search, insecure, block) = (list("search")?, list("insecure")?, list("block")?);
        if search.is_none() && insecure.is_none() && block.is_none() {
            return Ok(None);
        }
        let mut conf = Conf { version_1: true, ..Conf::default() };
        for (hosts, blocks) in [(block, true), (insecure, false)] {
            for (host, span) in hosts.unwrap_or_default() {
                let prefix = self.location(Some(host), span.clone())?;
                self.named(&prefix, &prefix, span.clone())?;
                let new = || Registry {
                    prefix: prefix.clone(),
                    location: prefix.clone(),
                    insecure: false,
                    blocked: false,
                    by_digest_only: false,
                    mirrors: Vec::new(),
                    at: self.place(span),
                };
                let entry = conf.registries.entry(prefix.clone()).or_insert_with(new);
                if blocks {
                    entry.blocked = true;
                } else {
                    entry.insecure = true;
                }
            }
        }
        let hosts = search.map(|hosts| hosts.iter().map(|(host, span)| self.search(host, span.clone())).collect());
        conf.search = hosts.transpose()?;
        Ok(Some(conf))
    }
}
