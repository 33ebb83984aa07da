//! `pages DIR`: what packages ship beside the program and is made from the program itself: man pages, completions, and a bill of materials. The same
//! bytes each time: a date is taken from `SOURCE_DATE_EPOCH`, or left out.
#![allow(
    clippy::disallowed_methods,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects"
)]

mod command;
mod sbom;

use std::path::Path;
use std::process::{Command, ExitCode};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = words.as_slice() else {
        eprintln!("usage: pages DIR");
        return ExitCode::from(2);
    };
    match write(Path::new(folder)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pages: {error}");
            ExitCode::FAILURE
        }
    }
}

fn write(folder: &Path) -> Result<()> {
    command::man(&folder.join("man"))?;
    command::completions(&folder.join("completions"))?;
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo = |words: &[&str]| -> Result<String> {
        let output = Command::new(&program).args(words).current_dir(project).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8(output.stdout)?)
    };
    let lock = std::fs::read_to_string(project.join("Cargo.lock"))?;
    let metadata = serde_json::from_str(&cargo(&sbom::METADATA)?)?;
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    std::fs::write(folder.join("sbom.cdx.json"), sbom::cyclonedx(&metadata, &cargo(&sbom::TREE)?, &lock, epoch)?)?;
    Ok(())
}
