//! Packages of nodeprep, made as `make dist` makes them of the build under test, quickly: neither optimised nor compressed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::{pages, setting, source};

/// What both kinds of package are made of.
pub struct Stage(PathBuf);

impl Stage {
    /// Lays it out below `folder`.
    pub fn new(folder: &Path) -> Result<Stage> {
        let pages = folder.join("pages");
        pages::man(&pages.join("man")).context("man pages")?;
        pages::completions(&pages.join("completions")).context("completions")?;
        fs::write(pages.join("sbom.cdx.json"), "{}\n").context("the bill of materials")?;
        let binary = folder.join("nodeprep");
        done(Command::new("strip").arg("-o").arg(&binary).arg(setting::nodeprep()))?;
        let stage = folder.join("stage");
        done(Command::new(source().join("packaging/stage")).args([&binary, &pages, &stage]))?;
        Ok(Stage(stage))
    }

    /// The DEB of this version.
    pub fn deb(&self, version: &str, out: &Path) -> Result<PathBuf> {
        let architecture = done(Command::new("dpkg").arg("--print-architecture"))?;
        let mut build = Command::new(source().join("packaging/deb/build"));
        done(build.arg(&self.0).args([version, architecture.trim()]).arg(out).env("DEB_COMPRESSION", "none"))?;
        only(out, &format!("nodeprep_{version}-1_"))
    }

    /// The RPM of this version.
    pub fn rpm(&self, version: &str, out: &Path) -> Result<PathBuf> {
        let mut build = Command::new(source().join("packaging/rpm/build"));
        done(build.arg(&self.0).args([version, std::env::consts::ARCH]).arg(out).env("RPM_PAYLOAD", "w0.gzdio"))?;
        only(out, &format!("nodeprep-{version}-"))
    }
}

fn only(folder: &Path, start: &str) -> Result<PathBuf> {
    let names = fs::read_dir(folder).with_context(|| folder.display().to_string())?.flatten().map(|entry| entry.path());
    let mut found = names.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(start)));
    match (found.next(), found.next()) {
        (Some(path), None) => Ok(path),
        (first, _) => bail!("not one package {start}… in {}: {first:?}", folder.display()),
    }
}

/// Why there is no RPM to be tried here.
pub fn no_rpm() -> Option<String> {
    let tool = rpm_tools().join("usr/bin/rpmbuild");
    (!tool.exists()).then(|| "there is no rpmbuild: run packaging/tools/prepare target/tools rpm".to_owned())
}

/// Where rpm and what it needs was unpacked.
pub fn rpm_tools() -> PathBuf {
    source().join("target/tools/rpm/root")
}

/// `rpm` on the files of a root.
pub fn rpm(root: &Path, words: &[&str]) -> Result<std::process::Output> {
    let mut command = Command::new(source().join("target/tools/run"));
    command.args(["rpm", "rpm", "--root"]).arg(root).args(words).output().with_context(|| format!("{command:?}"))
}

fn done(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = || format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.success(), "{command:?}: {}\n{}", output.status, said());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
