//! CRI-O's own configuration: `crio.conf` and every file below `crio.conf.d`, of which nodeprep knows `[crio.image]`. Facts:
//! `runtime-semantics.md` 2.8, `crio.conf(5)`.

use toml_edit::Document;

use crate::model::image::ImageRef;
use crate::model::path::NodePath;

/// Our drop-in's name.
pub const DROP_IN: &str = "99-nodeprep.conf";

/// The folder of drop-ins: read with everything below it, whatever the files are called.
#[must_use]
pub fn drop_in_dir() -> NodePath {
    NodePath::fixed("/etc/crio/crio.conf.d")
}

/// What `[crio.image]` says, as far as it matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// `pause_image`.
    pub pause_image: Option<String>,
    /// `global_auth_file`: the only auth file that is looked at when it is set.
    pub global_auth_file: Option<String>,
    /// `short_name_mode` (CRI-O 1.34 and later).
    pub short_name_mode: Option<String>,
}

/// Reads one file; keys that are not known are passed over.
///
/// # Errors
/// What is wrong with it as TOML, or a value of the wrong type: CRI-O does not start then.
pub fn parse(text: &str) -> Result<Image, String> {
    let document = Document::parse(text).map_err(|error| error.message().trim().to_owned())?;
    let Some(image) = document.get("crio").and_then(|crio| crio.get("image")) else { return Ok(Image::default()) };
    let string = |key: &str| match image.get(key) {
        None => Ok(None),
        Some(item) => item.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| format!("{key} is {}, not a string", item.type_name())),
    };
    Ok(Image {
        pause_image: string("pause_image")?,
        global_auth_file: string("global_auth_file")?,
        short_name_mode: string("short_name_mode")?,
    })
}

/// `listen` of `[crio.api]`, if this file says it.
#[must_use]
pub fn listen(text: &str) -> Option<String> {
    let document = Document::parse(text).ok()?;
    Some(document.get("crio")?.get("api")?.get("listen")?.as_str()?.to_owned())
}

impl Image {
    /// Lays a later file over this one, key by key.
    pub fn merge(&mut self, later: Self) {
        let lay = |old: &mut Option<String>, new: Option<String>| *old = new.or(old.take());
        lay(&mut self.pause_image, later.pause_image);
        lay(&mut self.global_auth_file, later.global_auth_file);
        lay(&mut self.short_name_mode, later.short_name_mode);
    }
}

/// The text of our drop-in.
#[must_use]
pub fn render(pause: &ImageRef) -> String {
    format!("# {}\n\n[crio.image]\npause_image = \"{pause}\"\n", super::HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_is_read_back() {
        let pause = ImageRef::parse("reg.local:5000/registry.k8s.io/pause:3.10").unwrap();
        let mut image = parse("[crio.image]\npause_image = \"x\"\nglobal_auth_file = \"/a.json\"\n").unwrap();
        image.merge(parse(&render(&pause)).unwrap());
        assert_eq!(image.pause_image, Some(pause.to_string()));
        assert_eq!(image.global_auth_file.as_deref(), Some("/a.json"));
        assert_eq!(listen("[crio.api]\nlisten = \"/run/c.sock\"\n").as_deref(), Some("/run/c.sock"));
        assert_eq!((listen(&render(&pause)), listen("[crio")), (None, None));
        assert!(parse("[crio.image]\npause_image = 3\n").is_err() && parse("[crio").is_err());
    }
}
