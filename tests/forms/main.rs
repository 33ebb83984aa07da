//! The forms of a spec: TOML and YAML say the same, the schema is what the decoder takes, folders, rendering.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, missing_docs, reason = "tests have effects")]

mod notations;
