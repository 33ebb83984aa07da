//! Images in use on the node that could not be pulled again. Pure: nothing is asked of a registry, only configuration counts.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::cri::{Container, StoredImage};
use crate::model::image::ImageRef;
use crate::model::order::Gather as _;
use crate::model::problem::Problem;
use crate::model::resolution::{End, Resolution};
use crate::model::tree::Tree;
use crate::runtime::{FoundRuntime, View};

/// What runs on a runtime.
#[derive(Clone, Debug, Default)]
pub struct InUse {
    /// Its containers.
    pub containers: Vec<Container>,
    /// Its store: containers may name their image by its identity alone.
    pub images: Vec<StoredImage>,
    /// How many pods are up: each needs the pause image.
    pub pods: usize,
}

/// More are counted, not named.
const SHOWN: usize = 10;

/// The images that can be pulled as `before` is and cannot be as `after` is.
#[must_use]
pub fn unpullable(reader: &FoundRuntime, used: &InUse, before: &Tree, after: &Tree) -> Vec<Problem> {
    let of = |tree: &Tree| reader.dialects(tree).first().map(|dialect| reader.view(tree, *dialect));
    let (Some(now), Some(then)) = (of(before), of(after)) else { return Vec::new() };
    let mut found = Vec::new();
    for (names, by) in wanted(reader, used, after) {
        // of several names of one image it is not known by which it came
        let reason = |view: &View| names.iter().map(|name| refused(&view.resolve(name))).collect::<Option<Vec<String>>>();
        let Some((why, name)) = reason(&then).and_then(|why| why.into_iter().next()).zip(names.first()) else { continue };
        if reason(&now).is_some() {
            continue;
        }
        let by: Vec<String> = by.into_iter().collect();
        let what = format!("{} is in use on {} ({}) and could not be pulled again: {why}", name.written, reader.runtime, by.join(", "));
        let help = format!("add a [[mirror]] or [[registry]] for {}, or keep the image in the store", name.host);
        found.push(Problem::warning("image-in-use", what, help));
    }
    if found.len() > SHOWN {
        let what = format!("{} more images in use on {} could not be pulled again", found.len() - SHOWN, reader.runtime);
        found.truncate(SHOWN);
        found.push(Problem::warning("image-in-use", what, "run `crictl images` and hold it against the spec"));
    }
    found
}

/// The names of each image in use, with who uses it.
fn wanted(reader: &FoundRuntime, used: &InUse, after: &Tree) -> BTreeMap<Vec<ImageRef>, BTreeSet<String>> {
    let mut wanted: BTreeMap<Vec<ImageRef>, BTreeSet<String>> = BTreeMap::new();
    let store: BTreeMap<&str, &StoredImage> = used.images.iter().rev().map(|image| (bare(&image.id), image)).gathered();
    for container in &used.containers {
        let called = if is_identity(&container.image) { stored(&store, &container.image) } else { vec![container.image.clone()] };
        let names: Vec<ImageRef> = called.iter().filter_map(|name| ImageRef::parse(name).ok()).collect();
        // one without a name was built or loaded here: it is pulled from nowhere
        if !names.is_empty() {
            wanted.entry(names).or_default().insert(container.name.clone());
        }
    }
    let pause = reader.pause_image(after).filter(|_| used.pods > 0).and_then(|image| ImageRef::parse(&image).ok());
    if let Some(pause) = pause {
        wanted.entry(vec![pause]).or_default().insert("the pause image of every pod".to_owned());
    }
    wanted
}

/// `sha256:…`, or its digits alone as CRI-O has them.
fn is_identity(name: &str) -> bool {
    let digits = bare(name);
    digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What an image is called in the store: by tag, else by digest.
fn stored(store: &BTreeMap<&str, &StoredImage>, identity: &str) -> Vec<String> {
    let image = store.get(bare(identity));
    image.map(|image| if image.tags.is_empty() { image.digests.clone() } else { image.tags.clone() }).unwrap_or_default()
}

/// An identity without what says of which kind it is.
fn bare(identity: &str) -> &str {
    identity.strip_prefix("sha256:").unwrap_or(identity)
}

/// Why nothing is asked for an image; `None` where something is.
fn refused(resolution: &Resolution) -> Option<String> {
    match &resolution.end {
        End::Broken(why) => Some(why.clone()),
        End::Blocked(why) if resolution.attempts.is_empty() => Some(why.clone()),
        End::Exhausted if resolution.attempts.is_empty() => Some("nobody is asked for it".to_owned()),
        End::Blocked(_) | End::Exhausted => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::path::NodePath;
    use crate::model::tree::Entry;
    use crate::runtime::{Presence, Runtime};

    #[test]
    fn what_is_denied_and_in_use_is_named() {
        let reader = FoundRuntime {
            runtime: Runtime::Podman,
            presence: Presence::There,
            because: NodePath::fixed("/usr/bin/podman"),
            installed: None,
            running: None,
            config: NodePath::fixed("/etc/containers/registries.conf"),
            unit: None,
            env: Vec::new(),
        };
        let mut before = Tree::default();
        before.insert(NodePath::root(), Entry::Dir { listed: true });
        for (_, wishes) in [(0, reader.wishes(&before)), (1, reader.wishes(&before))] {
            for wish in wishes {
                before.insert(wish.path, Entry::Absent);
            }
        }
        let mut after = before.clone();
        let text = "[[registry]]\nprefix = \"a.example\"\nlocation = \"a.example\"\nblocked = true\n";
        after.put(&reader.config, text.as_bytes(), 0o644);
        let identity = format!("sha256:{}", "1".repeat(64));
        let container = |name: &str, image: &str| Container { name: name.into(), image: image.into(), id: identity.clone() };
        let image = |tags: &[&str]| StoredImage {
            id: identity.clone(),
            tags: tags.iter().map(ToString::to_string).collect(),
            digests: vec![format!("a.example/c@{identity}")],
        };
        let told = |containers: Vec<Container>, tags: &[&str], before: &Tree| -> Vec<String> {
            let used = InUse { containers, images: vec![image(tags)], pods: 1 };
            unpullable(&reader, &used, before, &after).into_iter().map(|problem| problem.what).collect()
        };
        let web = || vec![container("web", "a.example/b:1"), container("db", "a.example/b:1"), container("ok", "b.example/b:1")];
        let found = told(web(), &[], &before);
        assert_eq!(found.len(), 1);
        assert!(found[0].starts_with("a.example/b:1 is in use on podman (db, web) and could not be pulled again: "), "{found:?}");
        // what cannot be pulled now either is no news
        assert_eq!(told(web(), &[], &after), [""; 0]);
        // by identity: the tags decide, without any the digest
        let by_identity = || vec![container("x", &identity)];
        assert_eq!(told(by_identity(), &["a.example/c:1", "b.example/c:1"], &before), [""; 0]);
        assert_eq!(told(by_identity(), &["a.example/c:1"], &before).len(), 1);
        assert!(told(by_identity(), &[], &before)[0].starts_with("a.example/c@sha256:"));
        assert_eq!(told(vec![container("x", &identity[7..])], &["a.example/c:1"], &before).len(), 1);
        let many = (0..13).map(|number| container("x", &format!("a.example/n{number}:1"))).collect();
        let found = told(many, &[], &before);
        assert_eq!((found.len(), found.last().unwrap().as_str()), (11, "3 more images in use on podman could not be pulled again"));
    }
}
