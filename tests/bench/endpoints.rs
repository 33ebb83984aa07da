//! How long `verify` takes when some endpoints never answer.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::Result;

const ENDPOINTS: usize = 50;
/// Half of them take no connection, half take one and say nothing.
const DEAD: usize = 10;
/// In seconds, as it is when nothing is said.
const TIME_OUT: u64 = 10;
const RUNS: usize = 3;

pub fn measure(binary: &Path) -> Result<()> {
    let folder = std::env::current_dir()?.join("target");
    let scratch = tempfile::tempdir_in(&folder)?;
    let put = |path: &str, text: &str| -> Result<()> {
        let path = scratch.path().join(path);
        std::fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        Ok(std::fs::write(path, text)?)
    };
    put("node/usr/bin/containerd", "")?;
    put("node/var/lib/dpkg/status", "Package: containerd\nStatus: install ok installed\nVersion: 2.1.9-1\n\n")?;
    put("node/etc/containerd/config.toml", "version = 3\n")?;
    let mut queues = Vec::new();
    let mut spec = String::from("version = 1\nfallback = \"never\"\n");
    for number in 0..ENDPOINTS {
        let host = match number {
            _ if number < DEAD / 2 => {
                let (host, kept) = deaf_one()?;
                queues.push(kept);
                host
            }
            _ => listening(number >= DEAD)?,
        };
        writeln!(spec, "[[mirror]]\nsource = \"r{number}.example\"\nendpoints = [\"http://{host}\"]")?;
    }
    put("spec.toml", &spec)?;
    let run = |words: &[&str]| -> Result<(Duration, Option<i32>, String)> {
        let mut command = Command::new(binary);
        command.args(words).args(["--spec", "spec.toml", "--root", "node"]).current_dir(scratch.path());
        let start = Instant::now();
        let output = command.output()?;
        Ok((start.elapsed(), output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let (_, code, said) = run(&["apply", "--probe", "off"])?;
    if code != Some(0) {
        return Err(said.into());
    }
    let mut took = Vec::new();
    for _ in 0..RUNS {
        let (time, code, said) = run(&["verify", "--timeout", &TIME_OUT.to_string()])?;
        let (alive, dead) = (said.matches("ok [endpoint]").count(), said.matches("i/o timeout").count());
        if (code, alive, dead) != (Some(8), ENDPOINTS - DEAD, DEAD) {
            return Err(format!("{code:?}, {alive} alive, {dead} dead\n{said}").into());
        }
        took.push(time);
    }
    let longest = took.iter().max().ok_or("no runs")?.as_secs_f64();
    println!(
        "verify of {ENDPOINTS} endpoints, {DEAD} of them dead, time-out {TIME_OUT} s: {longest:.2} s (the longest of {RUNS} runs; {took:.2?})"
    );
    if longest > TIME_OUT as f64 + 1.0 {
        return Err(format!("that is more than the time-out and a second: {took:?}").into());
    }
    Ok(())
}

/// Takes connections until the process ends, and answers or does not.
fn listening(answers: bool) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            if !answers {
                kept.push(stream);
                continue;
            }
            let mut head = String::new();
            let Ok(copy) = stream.try_clone() else { continue };
            let mut reader = BufReader::new(copy);
            while !head.ends_with("\r\n\r\n") && reader.read_line(&mut head).is_ok_and(|length| length > 0) {}
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    Ok(address)
}

/// A host whose queue is full: what wants to connect hears nothing, as behind a firewall that drops. What has to be kept for it
/// comes along.
fn deaf_one() -> Result<(SocketAddr, (OwnedFd, Vec<TcpStream>))> {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
    bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    listen(&socket, 0)?;
    let address = SocketAddr::try_from(getsockname(&socket)?)?;
    let mut filling = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        filling.push(stream);
    }
    Ok((address, (socket, filling)))
}
