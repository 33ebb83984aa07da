//! Where a value stands in a JSON text, to the byte, so that an edit leaves every other byte as it is. The text has been
//! found to be valid JSON before; on anything else the functions answer `None`.

use std::ops::Range;

/// A member of an object.
struct Member {
    /// Its key, unescaped.
    key: String,
    /// Where the key begins.
    start: usize,
    /// Its value.
    value: Range<usize>,
}

/// Where the value at `key` (from the top, one element per level) stands. Of several members with one name the last counts,
/// as in Go and `serde_json`.
pub fn value(text: &str, key: &[String]) -> Option<Range<usize>> {
    let mut at = top(text)?;
    for name in key {
        at = members(text, &at)?.into_iter().rev().find(|member| member.key == *name)?.value;
    }
    Some(at)
}

/// The text with `raw` as value at `key`: in the place of the old value, or behind the last member of its object.
pub fn put(text: &str, key: &[String], raw: &str) -> Option<String> {
    if let Some(old) = value(text, key) {
        return Some(format!("{}{raw}{}", &text[..old.start], &text[old.end..]));
    }
    let (name, above) = key.split_last()?;
    let object = value(text, above)?;
    let members = members(text, &object)?;
    let name = serde_json::to_string(name).ok()?;
    let (at, gap) = if let (Some(first), Some(last)) = (members.first(), members.last()) {
        // as the members stand to each other: what is between the brace and the first one
        (last.value.end, format!(",{}", &text[object.start + 1..first.start]))
    } else {
        let inside = &text[object.start + 1..object.end - 1];
        let deeper = |indent: &str| format!("\n{indent}{}", if indent.contains(' ') { "  " } else { "\t" });
        (object.start + 1, inside.rsplit_once('\n').map(|(_, indent)| deeper(indent)).unwrap_or_default())
    };
    Some(format!("{}{gap}{name}: {raw}{}", &text[..at], &text[at..]))
}

/// The text without the member at `key`: the reverse of [`put`] where that added it.
pub fn remove(text: &str, key: &[String]) -> Option<String> {
    let (name, above) = key.split_last()?;
    let object = value(text, above)?;
    let members = members(text, &object)?;
    let index = members.iter().rposition(|member| member.key == *name)?;
    let gone = match (index.checked_sub(1).and_then(|before| members.get(before)), members.get(index + 1)) {
        (Some(before), _) => before.value.end..members[index].value.end,
        (None, Some(after)) => members[index].start..after.start,
        (None, None) => object.start + 1..members[index].value.end,
    };
    Some(format!("{}{}", &text[..gone.start], &text[gone.end..]))
}

fn top(text: &str) -> Option<Range<usize>> {
    let start = skip_space(text, 0);
    Some(start..end_of_value(text, start)?)
}

fn skip_space(text: &str, at: usize) -> usize {
    at + text.as_bytes()[at..].iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count()
}

/// The members of the object at `at`; `None` when it is no object.
fn members(text: &str, at: &Range<usize>) -> Option<Vec<Member>> {
    let bytes = text.as_bytes();
    if bytes.get(at.start) != Some(&b'{') {
        return None;
    }
    let mut members = Vec::new();
    let mut next = skip_space(text, at.start + 1);
    while bytes.get(next) != Some(&b'}') {
        let start = next;
        let end = end_of_string(text, start)?;
        let key = serde_json::from_str(&text[start..end]).ok()?;
        let colon = skip_space(text, end);
        if bytes.get(colon) != Some(&b':') {
            return None;
        }
        let value = skip_space(text, colon + 1);
        let value = value..end_of_value(text, value)?;
        next = skip_space(text, value.end);
        members.push(Member { key, start, value });
        if bytes.get(next) == Some(&b',') {
            next = skip_space(text, next + 1);
        }
    }
    Some(members)
}

/// Behind the closing quote of the string that begins at `at`.
fn end_of_string(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    let mut at = at + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// Behind the value that begins at `at`.
fn end_of_value(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b'"' => end_of_string(text, at),
        b'{' | b'[' => {
            let mut depth = 0usize;
            let mut at = at;
            loop {
                match bytes.get(at)? {
                    b'"' => at = end_of_string(text, at)? - 1,
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth -= 1,
                    _ => {}
                }
                at += 1;
                if depth == 0 {
                    return Some(at);
                }
            }
        }
        _ => {
            let length = bytes[at..].iter().take_while(|byte| !matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r')).count();
            (length > 0).then_some(at + length)
        }
    }
}
