//! What somebody may have meant.

/// The candidate that is nearest to `word`: few edits, or one contains the other. `None` when nothing is near.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = fold(word);
    candidates
        .into_iter()
        .filter_map(|candidate| {
            let other = fold(candidate);
            let edits = distance(&word, &other);
            let shorter = word.len().min(other.len());
            let contained = shorter >= 4 && (word.contains(&other) || other.contains(&word));
            (edits <= 1 + word.len().max(other.len()) / 5 && edits < shorter || contained).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// Dashes, underlines and capitals make no difference to a reader.
fn fold(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_')).flat_map(char::to_lowercase).take(64).collect()
}

/// Insertions, deletions, replacements and swaps of neighbours.
pub fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_of_the_finger() {
        let keys = ["source", "endpoints", "fallback", "on_unready", "ca"];
        for (word, want) in [
            ("endpoint", Some("endpoints")),
            ("endpiont", Some("endpoints")),
            ("onUnready", Some("on_unready")),
            ("Source", Some("source")),
            ("cas", Some("ca")),
            ("falback", Some("fallback")),
            ("insecure", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, keys), want, "{word}");
        }
    }
}
