//! Why a program of another root does not run here: it is not there, what it needs is not there, or it is made for another
//! machine. Asked only after it did not run: where a machine runs programs of others (binfmt_misc), it simply does.

use std::io::Read;

use super::command::SEARCH_PATH;
use super::files::{Seen, look, open_file};
use super::root::{Last, Root};
use crate::model::path::NodePath;

/// Scripts whose interpreter is a script, and so on: as many as Linux follows.
const MOST_INTERPRETERS: usize = 5;

/// The reason in words.
pub(super) fn why(root: &Root, program: &str) -> String {
    let candidates = SEARCH_PATH.split(':').filter_map(|folder| NodePath::new(&format!("{folder}/{program}")).ok());
    let own = NodePath::new(program).ok().filter(|_| program.starts_with('/'));
    let Some((mut path, mut head)) = own.into_iter().chain(candidates).find_map(|path| head(root, &path).map(|head| (path, head))) else {
        return format!("{program} is not there");
    };
    for _ in 0..MOST_INTERPRETERS {
        if let Some(machine) = machine(&head) {
            let here = std::env::consts::ARCH;
            if machine == here || (machine.as_str(), here) == ("x86", "x86_64") {
                break;
            }
            return format!("{path} is made for {machine}, and this machine is {here}");
        }
        let Some(next) = interpreter(&head) else { break };
        match self::head(root, &next) {
            Some(bytes) => (path, head) = (next, bytes),
            None => return format!("{path} needs {next}, which is not there"),
        }
    }
    format!("{path} does not run here")
}

/// The beginning of a regular file, links followed inside the root.
fn head(root: &Root, path: &NodePath) -> Option<Vec<u8>> {
    let spot = root.walk(path, Last::Follow, &mut |_, _, _| {}).ok()?;
    if !matches!(look(&spot.folder, &spot.name), Ok(Seen::File(..))) {
        return None;
    }
    let mut head = Vec::new();
    open_file(&spot.folder, &spot.name).ok()?.take(256).read_to_end(&mut head).ok()?;
    Some(head)
}

/// The program that `#!` names.
fn interpreter(head: &[u8]) -> Option<NodePath> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = String::from_utf8_lossy(line).into_owned();
    NodePath::new(line.split_whitespace().next()?).ok()
}

/// What an ELF file is made for, in Rust's words (elf(5): `e_machine` stands at 18, in the order that byte 5 says).
fn machine(head: &[u8]) -> Option<String> {
    let order = *head.strip_prefix(b"\x7fELF")?.get(1)?;
    let bytes = [*head.get(18)?, *head.get(19)?];
    let number = if order == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    let name = match number {
        3 => "x86",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        other => return Some(format!("another kind of machine (ELF number {other})")),
    };
    Some(name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(order: u8, machine: [u8; 2]) -> Vec<u8> {
        let mut head = b"\x7fELF\x02".to_vec();
        head.push(order);
        head.resize(18, 0);
        head.extend(machine);
        head
    }

    #[test]
    fn says_what_is_in_the_way() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("usr/sbin")).unwrap();
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        let put = |path: &str, bytes: &[u8]| std::fs::write(dir.path().join(path), bytes).unwrap();
        let root = Root::open(dir.path()).unwrap();
        let said = |program: &str| why(&root, program);
        assert_eq!(said("tool"), "tool is not there");
        put("usr/sbin/tool", b"#! /bin/sh -e\n");
        assert_eq!(said("tool"), "/usr/sbin/tool needs /bin/sh, which is not there");
        put("bin/sh", &elf(1, [50, 0]));
        assert!(
            said("tool").starts_with("/bin/sh is made for another kind of machine (ELF number 50), and this machine is "),
            "{}",
            said("tool")
        );
        put("bin/sh", &elf(2, [0, 22]));
        assert!(said("/usr/sbin/tool").starts_with("/bin/sh is made for s390x") || std::env::consts::ARCH == "s390x");
        put("bin/sh", b"#!/bin/sh\n");
        assert_eq!(said("tool"), "/bin/sh does not run here");
        put("bin/sh", b"");
        assert_eq!(said("tool"), "/bin/sh does not run here");
    }
}
