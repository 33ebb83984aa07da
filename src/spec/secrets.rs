//! Secrets that stand in a document, where none belongs.
//!
//! What lives here: finding them in the tree of a document. What must not: what a key means.

use super::document::{Node, Scalar, Tree};
use super::problems::Problems;
use super::text::holds_private_key;

/// Private keys anywhere in the document.
pub(super) fn secrets(node: &Node, problems: &mut Problems<'_>) {
    match &node.value {
        Tree::Scalar(Scalar::Text(text)) if holds_private_key(text) => problems.error(
            "secret-in-spec",
            &node.span,
            "a private key stands in the document",
            "put it into a file of its own and name that file with `client_key`",
        ),
        Tree::Scalar(_) => {}
        Tree::List(nodes) => nodes.iter().for_each(|node| secrets(node, problems)),
        Tree::Table(entries) => entries.iter().for_each(|entry| secrets(&entry.node, problems)),
    }
}
