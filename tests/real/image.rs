//! Small images, made by hand: a layer with a few files, as an OCI layout that skopeo pushes.

use std::path::Path;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

pub const TAG: &str = "1";

/// The media type of its manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// The digest of the manifest in a layout that was written here.
pub fn digest(layout: &Path) -> Option<String> {
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(layout.join("index.json")).ok()?).ok()?;
    Some(index["manifests"][0]["digest"].as_str()?.to_owned())
}

/// As in a header for basic authentication.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0, |group, &byte| group << 8 | u32::from(byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// A file of an image: its path without a slash before it, its permissions in octal, what is in it.
pub type File = (String, &'static str, Vec<u8>);

/// Writes the layout of an image with nothing to run into `folder` and returns the digest of the manifest.
pub fn write(folder: &Path) -> Result<String> {
    write_program(folder, &[("hello.txt".to_owned(), "644", b"hello\n".to_vec())], &[])
}

/// The same of an image with these files that runs `command`.
pub fn write_program(folder: &Path, files: &[File], command: &[&str]) -> Result<String> {
    let runs = if command.is_empty() { serde_json::json!({}) } else { serde_json::json!({ "Cmd": command }) };
    write_configured(folder, files, &runs)
}

/// The same of one whose `config` is this: its entry point, its environment.
pub fn write_configured(folder: &Path, files: &[File], runs: &serde_json::Value) -> Result<String> {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).with_context(|| blobs.display().to_string())?;
    let put = |bytes: &[u8]| -> Result<(String, usize)> {
        let digest = hex(bytes);
        std::fs::write(blobs.join(&digest), bytes).with_context(|| format!("blob {digest}"))?;
        Ok((format!("sha256:{digest}"), bytes.len()))
    };
    // The layer is not compressed, so its digest is also its diff id.
    let (layer, layer_size) = put(&tar(files))?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config =
        format!(r#"{{"architecture":"{architecture}","os":"linux","config":{runs},"rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#);
    let (config, config_size) = put(config.as_bytes())?;
    let kind = "application/vnd.oci.image";
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{kind}.manifest.v1+json","config":{{"mediaType":"{kind}.config.v1+json","digest":"{config}","size":{config_size}}},"layers":[{{"mediaType":"{kind}.layer.v1.tar","digest":"{layer}","size":{layer_size}}}]}}"#
    );
    let (digest, size) = put(manifest.as_bytes())?;
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{{"mediaType":"{kind}.manifest.v1+json","digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{TAG}"}}}}]}}"#
    );
    std::fs::write(folder.join("index.json"), index).context("index.json")?;
    std::fs::write(folder.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).context("oci-layout")?;
    Ok(digest)
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A ustar archive.
fn tar(files: &[File]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, mode, content) in files {
        let mut header = [0u8; 512];
        let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
        put(0, name);
        put(100, &format!("{mode:0>7}\0"));
        put(108, "0000000\0");
        put(116, "0000000\0");
        put(124, &format!("{:011o}\0", content.len()));
        put(136, "00000000000\0");
        put(148, "        ");
        put(156, "0");
        put(257, "ustar\x0000");
        let sum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        archive.extend_from_slice(&header);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}
