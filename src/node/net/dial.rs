//! Connecting: the name's addresses, a connection, all before a deadline.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::verify::probe::Trouble;

/// A connection whose every operation ends at the deadline, or before, when nothing comes or goes for too long.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TcpStream,
    deadline: Instant,
    idle: Option<Duration>,
}

impl Timed {
    /// The same, for which `idle` is too long.
    pub(super) fn idle(self, idle: Duration) -> Self {
        Self { idle: Some(idle), ..self }
    }

    fn left(&self) -> io::Result<Option<Duration>> {
        let left = left(self.deadline).ok_or(io::ErrorKind::TimedOut)?;
        Ok(Some(self.idle.map_or(left, |idle| idle.min(left))))
    }
}

impl Read for Timed {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(into)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// What is left until `deadline`; `None` when it has passed.
pub(super) fn left(deadline: Instant) -> Option<Duration> {
    deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}

/// The addresses of a name, or the address that it is. The system's resolver knows no time-out: it is left behind when it
/// takes too long.
pub(super) fn addresses(name: &str, port: u16, deadline: Instant) -> Result<Vec<SocketAddr>, Trouble> {
    if let Ok(address) = name.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let (send, receive) = channel();
    let look = move |name: &str| {
        let found = (name, port).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
        found.map_err(|error| error.to_string())
    };
    let (asked, answer) = (name.to_owned(), send.clone());
    let begun = std::thread::Builder::new().spawn(move || drop(answer.send(look(&asked))));
    if begun.is_err() {
        // where no more threads can be had, it is waited for
        let _ = send.send(look(name));
    }
    drop(send);
    match left(deadline).map(|left| receive.recv_timeout(left)) {
        Some(Ok(Ok(found))) if found.is_empty() => Err(Trouble::NoName(format!("{name} has no address"))),
        Some(Ok(Ok(found))) => Ok(found),
        Some(Ok(Err(why))) => Err(Trouble::NoName(format!("{name}: {}", why.trim_start_matches("failed to lookup address information: ")))),
        _ => Err(Trouble::Silent),
    }
}

/// Connects to the first address that answers; each gets its share of what is left.
pub(super) fn connect(addresses: &[SocketAddr], deadline: Instant) -> Result<(Timed, SocketAddr), Trouble> {
    let mut last = Trouble::Silent;
    for (place, address) in addresses.iter().enumerate() {
        let Some(left) = left(deadline) else { break };
        let share = left / u32::try_from(addresses.len() - place).unwrap_or(u32::MAX);
        match TcpStream::connect_timeout(address, share) {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok((Timed { stream, deadline, idle: None }, *address));
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = Trouble::Silent,
            Err(error) => last = Trouble::Unreachable(format!("dial tcp {address}: connect: {}", reason(&error))),
        }
    }
    Err(last)
}

/// An error without its number.
pub(super) fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_lowercase()
}

/// Whether an operation ran into the deadline.
pub(super) fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}
