//! `requires`: which versions of nodeprep understand a document.
//!
//! What lives here: a requirement as text, compared with a version. It is asked before anything else of the document is looked at,
//! so that an older nodeprep does not list everything that it does not know.

use super::decode::At;
use super::document::{Node, Tree};
use crate::model::version::Version;

/// A requirement: comparisons that all have to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement(Vec<(Sign, Vec<u32>)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    AtLeast,
    Above,
    AtMost,
    Below,
    Equal,
}

impl Requirement {
    /// Reads `>=0.4`, `>=0.4, <2`, `=1.2.3`: one to three numbers behind each sign.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let one = |part: &str| {
            let signs = [(">=", Sign::AtLeast), ("<=", Sign::AtMost), (">", Sign::Above), ("<", Sign::Below), ("=", Sign::Equal)];
            let (sign, rest) = signs.iter().find_map(|(sign, meaning)| Some((*meaning, part.trim().strip_prefix(sign)?)))?;
            let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
            let numbers: Vec<u32> = rest.trim().split('.').map(number).collect::<Option<_>>()?;
            (numbers.len() <= 3).then_some((sign, numbers))
        };
        Some(Self(text.split(',').map(one).collect::<Option<_>>()?))
    }

    /// Whether a version satisfies it. What is not written of a version is not compared: `=1.2` holds for 1.2.7, `>1.2` does not.
    #[must_use]
    pub fn holds(&self, version: Version) -> bool {
        let version = [version.0, version.1, version.2];
        self.0.iter().all(|(sign, numbers)| {
            let here = &version[..numbers.len()];
            match sign {
                Sign::AtLeast => here >= numbers.as_slice(),
                Sign::Above => here > numbers.as_slice(),
                Sign::AtMost => here <= numbers.as_slice(),
                Sign::Below => here < numbers.as_slice(),
                Sign::Equal => here == numbers.as_slice(),
            }
        })
    }
}

/// The `requires` of a document, if this version does not satisfy it. One that cannot be read is left to the validation.
#[must_use]
pub fn unmet(root: &Node, version: &str) -> Option<At<String>> {
    let Tree::Table(entries) = &root.value else { return None };
    let node = &entries.iter().find(|entry| entry.key == "requires")?.node;
    let wanted = node.text()?;
    let holds = Requirement::parse(wanted)?.holds(Version::parse(version)?);
    (!holds).then(|| At { value: wanted.to_owned(), span: node.span.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        for (wanted, holds) in [
            (">=0.4", true),
            (">= 0.4.2", true),
            (">=0.5", false),
            (">=0.4,<1", true),
            (">=0.4, <0.4.2", false),
            ("=0.4", true),
            ("=0.4.1", false),
            (">0.4", false),
            (">0.4.1", true),
            ("<=0.4", true),
            ("<1", true),
            (">=1", false),
        ] {
            assert_eq!(Requirement::parse(wanted).unwrap().holds(Version(0, 4, 2)), holds, "{wanted}");
        }
        for wrong in ["", "0.4", ">=", ">=a", ">=0.4.1.2", "^1", "~1", ">=0.4,", ">=+1", ">=99999999999", "latest"] {
            assert_eq!(Requirement::parse(wrong), None, "{wrong}");
        }
    }
}
