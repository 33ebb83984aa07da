//! Which files config.toml imports.

use toml_edit::Value;

use crate::model::order;
use crate::model::path::NodePath;
use crate::model::tree::{Found, Tree};
use crate::runtime::Wish;

/// One entry of `imports`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// As an absolute path, a pattern when it holds a `*`.
    pub path: NodePath,
    /// Where the entry begins in the importing file, in bytes.
    pub offset: usize,
    /// It is written as a path relative to the importing file.
    pub relative: bool,
}

impl Import {
    /// Whether it is a pattern: only a literal `*` makes it one (`runtime-semantics.md` 1.8).
    #[must_use]
    pub fn is_pattern(&self) -> bool {
        self.path.as_str().contains('*')
    }

    /// What has to be in the tree to follow it.
    #[must_use]
    pub fn wish(&self) -> Wish {
        let parts: Vec<&str> = self.path.components().collect();
        let Some(first) = parts.iter().position(|part| part.contains('*')) else { return Wish::path(self.path.clone()) };
        let folder = parts[..first].iter().fold(NodePath::root(), |folder, part| folder.join(part));
        Wish::folder(folder, u8::try_from(parts.len() - first).unwrap_or(u8::MAX))
    }

    /// The files that it means, sorted; a plain path always means itself.
    #[must_use]
    pub fn files(&self, tree: &Tree) -> Vec<NodePath> {
        if !self.is_pattern() {
            return vec![self.path.clone()];
        }
        let mut found = vec![NodePath::root()];
        for part in self.path.components() {
            found = if part.contains(['*', '?']) {
                let inside = |folder: &NodePath| {
                    let names = tree.names(folder).into_iter().filter(|name| matches(part.as_bytes(), name.as_bytes()));
                    names.map(|name| folder.join(&name)).collect::<Vec<_>>()
                };
                found.iter().flat_map(inside).collect()
            } else {
                found.iter().map(|folder| folder.join(part)).collect()
            };
        }
        found.retain(|path| !matches!(tree.find(path), Found::Absent | Found::Unread));
        order::sort(&mut found);
        found
    }
}

/// Go's `filepath.Match` for `*` and `?`. A leading dot is no exception there.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        Some((wanted, rest)) => name.split_first().is_some_and(|(found, name)| (*wanted == b'?' || wanted == found) && matches(rest, name)),
    }
}

/// The entries of `imports` in a file, relative ones made absolute; a list of something else is empty.
#[must_use]
pub fn imported(document: &toml_edit::Document<&str>, file: &NodePath) -> Vec<Import> {
    let folder = file.parent().unwrap_or_else(NodePath::root);
    let list = document.get("imports").and_then(toml_edit::Item::as_array);
    let entry = |value: &Value| {
        let written = value.as_str()?;
        let offset = value.span().map_or(0, |span| span.start);
        Some(Import { path: folder.join(written), offset, relative: !written.starts_with('/') })
    };
    list.into_iter().flat_map(toml_edit::Array::iter).filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, want) in
            [("*.toml", "a.toml", true), ("*.toml", "a.toml.bak", false), ("a*b?", "axxbc", true), ("*", ".x", true)]
        {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn wishes_reach_the_pattern() {
        let import = |path: &'static str| Import { path: NodePath::fixed(path), offset: 0, relative: false }.wish();
        assert_eq!(import("/etc/a.toml"), Wish::path(NodePath::fixed("/etc/a.toml")));
        assert_eq!(import("/etc/conf.d/*.toml"), Wish::folder(NodePath::fixed("/etc/conf.d"), 1));
        assert_eq!(import("/etc/*/x.toml"), Wish::folder(NodePath::fixed("/etc"), 2));
    }
}
