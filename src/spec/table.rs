//! The keys of the spec: one table from which the decoder, the messages about unknown keys, the schema and the reference
//! are made.
//!
//! What lives here: constant data. What must not: anything that looks at a document.

/// A table of the document.
#[derive(Debug)]
pub struct TableDef {
    /// Its key; empty for the document itself.
    pub name: &'static str,
    /// How it is written: `[[mirror]]`; for the document `the document`.
    pub header: &'static str,
    /// What it is for, one line.
    pub doc: &'static str,
    /// Its keys, in the order in which they are shown.
    pub fields: &'static [Field],
    /// Keys of which there is exactly one.
    pub one_of: &'static [&'static str],
}

/// A key.
#[derive(Debug)]
pub struct Field {
    /// The key.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub required: bool,
    /// What it means, one line.
    pub doc: &'static str,
    /// How it is written, key included; empty for a table.
    pub example: &'static str,
    /// What the same thing is called elsewhere, for messages only.
    pub elsewhere: &'static [&'static str],
}

/// What a key takes.
#[derive(Debug)]
pub enum Kind {
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Flag,
    /// Text.
    Text,
    /// One of these words.
    Word(&'static [Word]),
    /// A list of texts.
    Texts,
    /// A list of texts, in which tables may stand instead.
    TextsOrTables(&'static TableDef),
    /// Texts by name.
    Named,
    /// A table.
    Table(&'static TableDef),
    /// Tables in order, `[[name]]`.
    Tables(&'static TableDef),
}

/// A word that a key takes.
#[derive(Debug)]
pub struct Word {
    /// The word.
    pub name: &'static str,
    /// What it means, one line.
    pub doc: &'static str,
}

impl Kind {
    /// What it is called in messages, with its article.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Integer => "a number",
            Self::Flag => "true or false",
            Self::Text | Self::Word(_) => "a text",
            Self::Texts => "a list of texts",
            Self::TextsOrTables(_) => "a list of texts or tables",
            Self::Named => "a table of texts",
            Self::Table(_) => "a table",
            Self::Tables(_) => "a list of tables",
        }
    }

    /// The table behind it.
    #[must_use]
    pub const fn table(&self) -> Option<&'static TableDef> {
        match self {
            Self::Table(table) | Self::Tables(table) | Self::TextsOrTables(table) => Some(table),
            _ => None,
        }
    }
}

impl TableDef {
    /// The key of this name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

const fn key(name: &'static str, kind: Kind, example: &'static str, doc: &'static str) -> Field {
    Field { name, kind, required: false, doc, example, elsewhere: &[] }
}

const fn word(name: &'static str, doc: &'static str) -> Word {
    Word { name, doc }
}

impl Field {
    const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    const fn elsewhere(self, names: &'static [&'static str]) -> Self {
        Self { elsewhere: names, ..self }
    }
}

const FALLBACK: Kind = Kind::Word(&[
    word("never", "the source itself is never asked: an air gap"),
    word("upstream", "the source itself is asked when no endpoint has the image"),
]);

/// The document.
pub const DOCUMENT: TableDef = TableDef {
    name: "",
    header: "the document",
    doc: "Which registries are mirrored where and which internal CAs are trusted, for a whole fleet.",
    fields: &[
        key("version", Kind::Integer, "version = 1", "Version of the spec: 1.").required(),
        key(
            "name",
            Kind::Text,
            "name = \"fleet-a\"",
            "Name of the spec (default \"default\"): a node that one spec owns is not taken over by one of another name.",
        )
        .elsewhere(&["spec_name", "metadata"]),
        key(
            "serial",
            Kind::Integer,
            "serial = 2026112101",
            "A number that grows with every change: a node takes no document of this `name` with a smaller one, nor another one with the same. \
             Required of a signed spec.",
        )
        .elsewhere(&["generation", "revision", "sequence"]),
        key("fallback", FALLBACK, "fallback = \"never\"", "What happens when no endpoint has an image; a mirror may override it.")
            .required(),
        key(
            "unlisted",
            Kind::Word(&[word("allow", "they are left as they are"), word("deny", "nothing is pulled from them")]),
            "unlisted = \"allow\"",
            "Registries that the spec does not name (default \"allow\").",
        ),
        key(
            "runtimes",
            Kind::Texts,
            "runtimes = [\"containerd\", \"podman\"]",
            "What the fleet runs, of containerd, crio and podman: `check` proves the spec against these.",
        )
        .elsewhere(&["runtime_names", "container_runtimes", "targets"]),
        key(
            "requires",
            Kind::Text,
            "requires = \">=0.1\"",
            "The nodeprep that understands the document: `>=0.4`, or several of `>=`, `>`, `<=`, `<` and `=` with commas between.",
        )
        .elsewhere(&["min_version", "minimum_version", "nodeprep_version"]),
        key(
            "deny_domains",
            Kind::Texts,
            "deny_domains = [\"com\", \"io\", \"corp.example\"]",
            "Domains that `unlisted = \"deny\"` closes in registries.conf, which has no entry for everything else; they take the place of the \
             shipped list.",
        ),
        key("ca", Kind::Tables(&CA), "", "Internal CAs.").elsewhere(&["cas", "certificate", "certificates", "trust_anchor"]),
        key("registry", Kind::Tables(&REGISTRY), "", "How to reach a host; only where it differs from the default.").elsewhere(&[
            "registries",
            "configs",
            "hosts",
        ]),
        key("mirror", Kind::Tables(&MIRROR), "", "What is pulled from where.").elsewhere(&["mirrors", "imagemirror"]),
        key("runtime", Kind::Table(&RUNTIME), "", "Settings of the runtimes themselves."),
        key("blocked", Kind::Tables(&BLOCKED), "", "Sources from which nothing is pulled.").elsewhere(&["block", "deny", "denied"]),
        key("canary", Kind::Tables(&CANARY), "", "Images by which it is known whether a mirror is fresh.").elsewhere(&["canaries"]),
    ],
    one_of: &[],
};

/// `[[ca]]`.
pub const CA: TableDef = TableDef {
    name: "ca",
    header: "[[ca]]",
    doc: "An internal CA: for the operating system's trust store and the runtimes' own CA files.",
    fields: &[
        key("name", Kind::Text, "name = \"internal-root-2026\"", "Its name, for `ca = […]` of a registry and for file names on the node.")
            .required(),
        key(
            "file",
            Kind::Text,
            "file = \"internal-root-2026.pem\"",
            "PEM file with one certificate or more, beside the document or `node:/path` on the node; with `sha256`, `https://…` at the origin \
             of a document from a URL.",
        )
        .elsewhere(&["path", "cert", "certificate", "cafile", "ca_file", "crt", "url"]),
        key("pem", Kind::Text, "pem = \"\"\"-----BEGIN CERTIFICATE-----…\"\"\"", "The certificates themselves, instead of `file`.")
            .elsewhere(&["data", "content", "inline"]),
        key(
            "trust",
            Kind::Word(&[
                word("system", "the operating system's trust store and every registry that names no CA of its own"),
                word("registries", "only the registries that name it"),
            ]),
            "trust = \"system\"",
            "Who trusts it (default \"system\").",
        )
        .elsewhere(&["scope"]),
        key("sha256", Kind::Text, "sha256 = \"e3b0c442…\"", "SHA-256 of `file` in hexadecimal: any other file is an error.").elsewhere(&[
            "digest",
            "checksum",
            "fingerprint",
        ]),
    ],
    one_of: &["file", "pem"],
};

/// `[[registry]]`.
pub const REGISTRY: TableDef = TableDef {
    name: "registry",
    header: "[[registry]]",
    doc: "How to reach a host; only where it differs from the default.",
    fields: &[
        key("host", Kind::Text, "host = \"registry.example.com:5000\"", "The host, with the port if references carry one.")
            .required()
            .elsewhere(&["location", "name", "server", "url", "address", "hosts"]),
        key(
            "ca",
            Kind::Texts,
            "ca = [\"internal-root-2026\"]",
            "Names of the [[ca]] that it is checked with (default: every [[ca]] with trust = \"system\").",
        )
        .elsewhere(&["ca_file", "cafile", "cacert", "ca_cert", "cas"]),
        key("client_cert", Kind::Text, "client_cert = \"node.crt\"", "PEM file with the client certificate for mTLS, leaf first.")
            .elsewhere(&["cert", "cert_file", "certificate", "client", "crt"]),
        key("client_key", Kind::Text, "client_key = \"node.key\"", "PEM file with the key of `client_cert`.")
            .elsewhere(&["key", "key_file"]),
        key("credentials", Kind::Text, "credentials = \"pull-secret.json\"", "A dockerconfigjson file, as in an imagePullSecret.")
            .elsewhere(&["auth_file", "authfile", "pull_secret", "pullsecret", "login", "username", "user"]),
        key("client_cert_sha256", Kind::Text, "client_cert_sha256 = \"e3b0c442…\"", "SHA-256 of the file `client_cert`."),
        key("client_key_sha256", Kind::Text, "client_key_sha256 = \"e3b0c442…\"", "SHA-256 of the file `client_key`."),
        key("credentials_sha256", Kind::Text, "credentials_sha256 = \"e3b0c442…\"", "SHA-256 of the file `credentials`."),
        key(
            "credentials_by",
            Kind::Word(&[
                word(
                    "header",
                    "a header of hosts.toml: seen at the next pull, but before containerd 2.1 not sent to where tokens are issued",
                ),
                word("config", "on containerd before 2.1, config.toml: also for registries that want tokens, but only after a restart"),
            ]),
            "credentials_by = \"config\"",
            "How containerd is told `credentials` (default \"header\").",
        ),
        key(
            "insecure",
            Kind::Flag,
            "insecure = true",
            "HTTPS without verification (default false); plain HTTP is `http://` on the endpoint.",
        )
        .elsewhere(&["skip_verify", "insecure_skip_verify", "tls_verify", "skipverify"]),
        key(
            "allow_plaintext_credentials",
            Kind::Flag,
            "allow_plaintext_credentials = true",
            "Accepts that `credentials` are sent over plain HTTP (default false).",
        ),
    ],
    one_of: &[],
};

/// `[[mirror]]`.
pub const MIRROR: TableDef = TableDef {
    name: "mirror",
    header: "[[mirror]]",
    doc: "What is pulled from where.",
    fields: &[
        key(
            "source",
            Kind::Text,
            "source = \"docker.io\"",
            "What is mirrored: `host[:port]`, `host[:port]/repository/prefix`, `*.domain` for every registry below a domain, or `*` for every \
             registry that the spec does not name; the longest counts. Either this or `hosts`.",
        )
        .elsewhere(&["prefix", "registry", "upstream", "from"]),
        key(
            "hosts",
            Kind::Texts,
            "hosts = [\"docker.io\", \"quay.io\"]",
            "Several registries instead of one `source`: as if each had a [[mirror]] of its own; `{host}` in an endpoint stands for its name.",
        )
        .elsewhere(&["sources", "registries"]),
        key(
            "endpoints",
            Kind::TextsOrTables(&ENDPOINT),
            "endpoints = [\"registry.example.com:5000/docker.io\"]",
            "Where it is kept, tried in order: `host[:port][/prefix]`, without /v2; `http://` in front for plain HTTP; with options as a table.",
        )
        .required()
        .elsewhere(&["mirrors", "location", "locations", "url", "urls", "to"]),
        key("fallback", FALLBACK, "fallback = \"upstream\"", "What happens when no endpoint has an image (default: the document's)."),
        key(
            "on_unready",
            Kind::Word(&[word("keep", "what is on the node stays for this source"), word("apply", "it is written anyway")]),
            "on_unready = \"keep\"",
            "When no endpoint answers, and the source itself may not be asked (default \"keep\").",
        ),
        key(
            "runtimes",
            Kind::Texts,
            "runtimes = [\"podman\", \"crio\"]",
            "Only for these runtimes (default: for all). CRI-O and Podman read the same files: name both or none of them where both are in use.",
        )
        .elsewhere(&["targets", "only"]),
        key(
            "widen",
            Kind::Flag,
            "widen = true",
            "On containerd, which knows whole registries only, the whole registry of a `source` with a path goes to the endpoints, less that \
             path (default false).",
        ),
    ],
    one_of: &["source", "hosts"],
};

/// An endpoint with options: a table in `endpoints`.
pub const ENDPOINT: TableDef = TableDef {
    name: "endpoints",
    header: "endpoints = [{ … }]",
    doc: "An endpoint with options of its own, in the place of its text.",
    fields: &[
        key(
            "location",
            Kind::Text,
            "location = \"registry.example.com:5000/docker.io\"",
            "Where it is kept, as it is written without options.",
        )
        .required()
        .elsewhere(&["at", "url", "endpoint", "mirror", "address", "server"]),
        key(
            "pull",
            Kind::Word(&[
                word("all", "every reference"),
                word("digest", "references by digest only (`digest-only`)"),
                word("tag", "references by tag only (`tag-only`)"),
            ]),
            "pull = \"digest\"",
            "What it is asked for, as `pull-from-mirror` in containers-registries.conf(5) (default \"all\").",
        )
        .elsewhere(&["pull_from_mirror", "capabilities", "digest_only", "mirror_by_digest_only"]),
        key("timeout", Kind::Text, "timeout = \"10s\"", "How long a connection to it may take (default: 5 seconds on containerd).")
            .elsewhere(&["dial_timeout", "connect_timeout"]),
        key("header", Kind::Named, "header = { X-Team = \"a\" }", "Headers that are sent with every request to it; never a login.")
            .elsewhere(&["headers"]),
    ],
    one_of: &[],
};

/// `[[blocked]]`.
pub const BLOCKED: TableDef = TableDef {
    name: "blocked",
    header: "[[blocked]]",
    doc: "A source from which nothing is pulled, under none of its names.",
    fields: &[
        key("source", Kind::Text, "source = \"docker.io\"", "What is blocked: as the `source` of a [[mirror]].")
            .required()
            .elsewhere(&["prefix", "registry", "location", "host"]),
        key("runtimes", Kind::Texts, "runtimes = [\"podman\", \"crio\"]", "Only for these runtimes (default: for all).")
            .elsewhere(&["targets", "only"]),
    ],
    one_of: &[],
};

/// `[[canary]]`.
pub const CANARY: TableDef = TableDef {
    name: "canary",
    header: "[[canary]]",
    doc: "An image by which it is known whether a mirror is fresh: `verify` and the agent ask for its manifest at each endpoint of its mirror, \
          never at the source itself. Without `digest` and `max_age` all of them have to have the same as the first.",
    fields: &[
        key(
            "image",
            Kind::Text,
            "image = \"docker.io/library/canary:fresh\"",
            "The image as it is pulled, below the source of a [[mirror]], with a tag that is renewed whenever the mirror is, or with a digest \
             that it must have.",
        )
        .required()
        .elsewhere(&["name", "reference", "tag", "ref"]),
        key("digest", Kind::Text, "digest = \"sha256:e3b0c442…\"", "The digest of the manifest that the tag must have.")
            .elsewhere(&["sha256", "checksum"]),
        key(
            "max_age",
            Kind::Text,
            "max_age = \"26h\"",
            "How old the image may be, by its own creation date: a number with `m`, `h` or `d`.",
        )
        .elsewhere(&["age", "maximum_age", "maxage", "older_than"]),
    ],
    one_of: &[],
};

/// `[runtime]`.
pub const RUNTIME: TableDef = TableDef {
    name: "runtime",
    header: "[runtime]",
    doc: "Settings of the runtimes themselves.",
    fields: &[
        key("pause_image", Kind::Text, "pause_image = \"registry.example.com/pause:3.10\"", "The pause image of containerd and CRI-O.")
            .elsewhere(&["sandbox_image", "sandbox", "pause", "infra_image"]),
        key(
            "search",
            Kind::Texts,
            "search = [\"docker.io\"]",
            "Registries in which CRI-O and Podman look for names without one, in order (skopeo and containerd: always docker.io).",
        )
        .elsewhere(&["unqualified_search_registries", "search_registries", "registries"]),
    ],
    one_of: &[],
};

/// Every table, the document first.
pub const TABLES: [&TableDef; 8] = [&DOCUMENT, &CA, &REGISTRY, &MIRROR, &ENDPOINT, &BLOCKED, &CANARY, &RUNTIME];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_complete() {
        for table in TABLES {
            assert!(table.doc.ends_with('.'), "{}", table.header);
            for field in table.fields {
                assert!(field.doc.ends_with('.') && !field.doc.contains('\n'), "{}", field.name);
                assert!(field.kind.table().is_some() || field.example.contains(field.name), "{}", field.name);
                assert_eq!(table.fields.iter().filter(|other| other.name == field.name).count(), 1, "{}", field.name);
                assert!(!field.elsewhere.iter().any(|name| table.field(name).is_some()), "{}", field.name);
                if let Some(inner) = field.kind.table() {
                    assert_eq!(inner.name, field.name);
                }
            }
        }
    }
}
