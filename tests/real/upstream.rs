//! The rest of the world: every name that is not a registry of the case resolves to one address, where a listener counts who comes.
//!
//! A name server answers for all names, rather than entries for the known ones in /etc/hosts: so an upstream that nobody thought of is counted too.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::{Arc, Mutex};
use std::thread;

use anyhow::{Context, Result};

/// Where every unknown name leads.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 200);
const PORTS: [u16; 3] = [443, 80, 5000];

#[derive(Clone, Default)]
pub struct Upstream {
    contacts: Arc<Mutex<Vec<String>>>,
}

impl Upstream {
    pub fn start() -> Result<Upstream> {
        let upstream = Upstream::default();
        for port in PORTS {
            let listener = TcpListener::bind((ADDRESS, port)).with_context(|| format!("listening on {ADDRESS}:{port}"))?;
            let seen = upstream.clone();
            // A connection is counted and closed: who asks here has already done what must not happen.
            thread::spawn(move || listener.incoming().for_each(|_| seen.note(format!("connection to {ADDRESS}:{port}"))));
        }
        let seen = upstream.clone();
        name_server(move |name| seen.note(format!("question for the address of {name}")))?;
        Ok(upstream)
    }

    fn note(&self, what: String) {
        self.contacts.lock().expect("no thread panics while it notes").push(what);
    }

    /// What arrived since the last call.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.contacts.lock().expect("no thread panics while it notes"))
    }
}

/// Answers for every name there is with the one address; `asked` hears which.
pub fn name_server(asked: impl Fn(String) + Send + 'static) -> Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 53)).context("the name server's socket")?;
    thread::spawn(move || {
        let mut packet = [0u8; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut packet) {
            if let Some((name, answer)) = answer(&packet[..length]) {
                if !nowhere(&name) {
                    asked(name);
                }
                let _ = socket.send_to(&answer, peer);
            }
        }
    });
    Ok(())
}

/// Under `.invalid` there is nothing by definition (RFC 6761): who asks there asks nobody.
pub fn nowhere(name: &str) -> bool {
    name.trim_end_matches('.').rsplit('.').next() == Some("invalid")
}

/// The name asked for and the answer: our address for type A, nothing for all others.
fn answer(question: &[u8]) -> Option<(String, Vec<u8>)> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*question.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        name.push_str(&String::from_utf8_lossy(question.get(at..at + length)?));
        name.push('.');
        at += length;
    }
    let kind = question.get(at..at + 4)?;
    let address = kind == [0, 1, 0, 1] && !nowhere(&name);
    // "no such name", or no error
    let code = if nowhere(&name) { 0x83 } else { 0x80 };
    let mut answer = Vec::new();
    answer.extend_from_slice(question.get(..2)?);
    answer.extend_from_slice(&[0x85, code, 0, 1, 0, u8::from(address), 0, 0, 0, 0]);
    answer.extend_from_slice(question.get(12..at + 4)?);
    if address {
        answer.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        answer.extend_from_slice(&ADDRESS.octets());
    }
    Some((name, answer))
}
