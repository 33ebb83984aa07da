//! `make bench`: the numbers of `docs/benchmarks.md`.
//!
//! Each figure is a ratio of medians of paired runs: nodeprep, then at once the bare program for the same bytes, on the same
//! file system. The bare programs are in here (`bare-write`, `bare-read`), so that both sides are processes.
#![allow(
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    missing_debug_implementations,
    reason = "a program of its own: it has effects, and its messages go to whoever runs it"
)]

mod endpoints;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

const REGISTRIES: usize = 1000;
const PAIRS: usize = 11;
/// Second applies after each first one: they take a fiftieth of its time.
const AGAIN: usize = 9;

fn main() -> Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["bare-write", from, to] => bare_write(Path::new(from), Path::new(to)),
        ["bare-read", list] => bare_read(Path::new(list)),
        ["peak", binary] => peak(Path::new(binary)),
        ["lay", folder] => lay(Path::new(folder)),
        ["verify", binary] => endpoints::measure(&std::fs::canonicalize(binary)?),
        [binary] => {
            let binary = std::fs::canonicalize(binary)?;
            measure(&binary)?;
            endpoints::measure(&binary)
        }
        _ => Err("usage: bench [verify] PATH-OF-NODEPREP, or bench lay FOLDER".into()),
    }
}

/// A stock node with containerd, and a spec of a thousand registries.
fn lay(folder: &Path) -> Result<()> {
    let file = |path: &str, text: &str| -> Result<()> {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        Ok(std::fs::write(path, text)?)
    };
    file("node/etc/os-release", "ID=debian\n")?;
    file("node/usr/bin/containerd", "")?;
    file("node/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 2.1.9-1\n\n")?;
    file("node/etc/ssl/certs/ca-certificates.crt", "")?;
    file("node/usr/local/share/ca-certificates/.keep", "")?;
    file(
        "node/etc/containerd/config.toml",
        "version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/containerd/certs.d\"\n",
    )?;
    let mut params = rcgen::CertificateParams::new(Vec::new())?;
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    file("ca.pem", &params.self_signed(&rcgen::KeyPair::generate()?)?.pem())?;
    let mut spec = String::from(
        "version = 1\nfallback = \"upstream\"\n\n[[ca]]\nname = \"internal\"\nfile = \"ca.pem\"\ntrust = \"registries\"\n\n[[registry]]\nhost = \"mirror.example.com\"\nca = [\"internal\"]\n",
    );
    for number in 0..REGISTRIES {
        writeln!(spec, "\n[[mirror]]\nsource = \"r{number}.example.org\"\nendpoints = [\"mirror.example.com/r{number}\"]")?;
    }
    file("spec.toml", &spec)
}

fn measure(binary: &Path) -> Result<()> {
    let own = std::env::current_exe()?;
    let folder = std::env::current_dir()?.join("target");
    let (mut first, mut second) = (Vec::new(), Vec::new());
    for _ in 0..PAIRS {
        let scratch = tempfile::tempdir_in(&folder)?;
        lay(scratch.path())?;
        let apply = || run(Command::new(binary).args(["apply", "--spec", "spec.toml", "--root", "node"]).current_dir(scratch.path()));
        let ours = apply()?;
        pack(&scratch.path().join("node"), &scratch.path().join("packed"))?;
        let bare = run(Command::new(&own).arg("bare-write").arg(scratch.path().join("packed")).arg(scratch.path().join("copy")))?;
        first.push((ours.wall, bare.wall));
        let list = files(&scratch.path().join("node"))?;
        std::fs::write(scratch.path().join("list"), list.join("\n"))?;
        for _ in 0..AGAIN {
            let again = apply()?;
            let read = run(Command::new(&own).arg("bare-read").arg(scratch.path().join("list")))?;
            second.push((again.cpu, read.cpu));
        }
    }
    println!("first apply of {REGISTRIES} registries / bare writer of the same bytes, wall time: {}", ratio(&first));
    println!("second apply / bare reader of the same files, CPU time: {}", ratio(&second));
    let scratch = tempfile::tempdir_in(&folder)?;
    lay(scratch.path())?;
    std::fs::write(
        scratch.path().join("small.toml"),
        "version = 1\nfallback = \"never\"\n[[mirror]]\nsource = \"docker.io\"\nendpoints = [\"mirror.example.com\"]\n",
    )?;
    for (what, words) in [("--version", &["--version"][..]), ("plan of a small spec", &["plan", "--spec", "small.toml", "--root", "node"])]
    {
        let mut runs = Vec::new();
        for _ in 0..41 {
            let ours = run(Command::new(binary).args(words).current_dir(scratch.path()))?;
            let bare = run(&mut Command::new("/bin/true"))?;
            runs.push((ours.wall, bare.wall));
        }
        println!("{what} / `true`, wall time: {}", ratio(&runs));
    }
    // of all children so far the largest is counted: a process that has had no other
    let output = Command::new(&own).arg("peak").arg(binary).current_dir(scratch.path()).output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    println!("peak resident memory of that plan: {} kB", String::from_utf8(output.stdout)?.trim());
    println!("release binary: {} bytes", std::fs::metadata(binary)?.len());
    Ok(())
}

/// Peak memory of one plan, as the only child of this process.
fn peak(binary: &Path) -> Result<()> {
    run(Command::new(binary).args(["plan", "--spec", "small.toml", "--root", "node"]))?;
    println!("{}", children()?.1);
    Ok(())
}

/// What a run of a process cost: seconds.
struct Cost {
    wall: f64,
    cpu: f64,
}

/// Runs to the end; the CPU time is what all children have used so far, less what they had before.
fn run(command: &mut Command) -> Result<Cost> {
    let before = children()?;
    let start = std::time::Instant::now();
    let output = command.output()?;
    let wall = start.elapsed().as_secs_f64();
    let after = children()?;
    if !output.status.success() {
        return Err(format!("{command:?}: {}\n{}", output.status, String::from_utf8_lossy(&output.stdout)).into());
    }
    Ok(Cost { wall, cpu: after.0 - before.0 })
}

/// CPU seconds and peak memory of all children so far.
fn children() -> Result<(f64, u64)> {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_CHILDREN)?;
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    Ok((seconds(usage.user_time()) + seconds(usage.system_time()), u64::try_from(usage.max_rss())?))
}

fn ratio(pairs: &[(f64, f64)]) -> String {
    let median = |mut of: Vec<f64>| {
        of.sort_by(f64::total_cmp);
        of[of.len() / 2]
    };
    let ours = median(pairs.iter().map(|pair| pair.0).collect());
    let bare = median(pairs.iter().map(|pair| pair.1).collect());
    let each = median(pairs.iter().map(|pair| pair.0 / pair.1).collect());
    format!("{:.2} (median of {} pairs; {:.1} ms against {:.1} ms)", each, pairs.len(), ours * 1e3, bare * 1e3)
}

/// Every regular file below `root`.
fn files(root: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() { todo.push(path) } else { found.push(path.display().to_string()) }
        }
    }
    found.sort();
    Ok(found)
}

/// Everything that an apply left in the node, its ledger included, as one file: the bare writer has nothing else to read.
fn pack(node: &Path, into: &Path) -> Result<()> {
    let mut packed = Vec::new();
    for name in files(node)? {
        let bytes = std::fs::read(&name)?;
        let path = Path::new(&name).strip_prefix(node)?;
        packed.extend(format!("{}\n{}\n", path.display(), bytes.len()).bytes());
        packed.extend(bytes);
    }
    Ok(std::fs::write(into, packed)?)
}

/// The same bytes as temporary file and rename, with one sync before the renames and one after.
fn bare_write(packed: &Path, to: &Path) -> Result<()> {
    let packed = std::fs::read(packed)?;
    let mut rest = &packed[..];
    let mut renames: Vec<(PathBuf, PathBuf)> = Vec::new();
    std::fs::create_dir_all(to)?;
    while !rest.is_empty() {
        let mut line = || -> Result<String> {
            let end = rest.iter().position(|byte| *byte == b'\n').ok_or("cut off")?;
            let line = String::from_utf8(rest[..end].to_vec())?;
            rest = &rest[end + 1..];
            Ok(line)
        };
        let (path, length) = (line()?, line()?.parse::<usize>()?);
        let target = to.join(path);
        std::fs::create_dir_all(target.parent().ok_or("no parent")?)?;
        let temporary = to.join(format!(".bare-{}", renames.len()));
        std::fs::File::create(&temporary)?.write_all(&rest[..length])?;
        rest = &rest[length..];
        renames.push((temporary, target));
    }
    let top = std::fs::File::open(to)?;
    nix::unistd::syncfs(&top)?;
    for (temporary, target) in &renames {
        std::fs::rename(temporary, target)?;
    }
    nix::unistd::syncfs(&top)?;
    Ok(())
}

fn bare_read(list: &Path) -> Result<()> {
    let mut bytes = Vec::new();
    for name in std::fs::read_to_string(list)?.lines() {
        bytes.clear();
        std::fs::File::open(name)?.read_to_end(&mut bytes)?;
    }
    Ok(())
}
