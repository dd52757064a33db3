//! The limits of this process, lowered for a moment, what it uses of them, and clients that manage with little.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rlimit::Resource;
use socket2::{Domain, Socket, Type};

use super::upgrade_request;

/// A lowered soft limit, raised again when dropped.
pub(crate) struct Lowered(Resource, u64, u64);

impl Lowered {
    pub(crate) fn new(resource: Resource, limit: u64) -> Self {
        let (soft, hard) = resource.get().unwrap();
        resource.set(limit, hard).unwrap();
        Self(resource, soft, hard)
    }

    /// No more address space than what is in use, but for so many bytes.
    pub(crate) fn space(slack: u64) -> Self {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: u64 = statm.split(' ').next().unwrap().parse().unwrap();
        Self::new(Resource::AS, pages * 4096 + slack)
    }
}

impl Drop for Lowered {
    fn drop(&mut self) {
        self.0.set(self.1, self.2).unwrap();
    }
}

/// What the descriptors of this process stand for.
pub(crate) fn descriptors() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    entries.filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string())).collect()
}

/// A socket that exists before it is connected: connecting takes no further descriptor.
pub(crate) fn unconnected() -> Socket {
    Socket::new(Domain::IPV4, Type::STREAM, None).unwrap()
}

/// Asks for an upgrade of a connection that may have been refused already, and closed.
pub(crate) fn ask(stream: &mut TcpStream) {
    let _ = stream.write_all(upgrade_request("GET /ws HTTP/1.1", &[]).as_bytes());
}

/// The status of an answer that has come, or comes in this time.
pub(crate) fn status(stream: &mut TcpStream, patience: Duration) -> io::Result<u16> {
    stream.set_read_timeout(Some(patience))?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    Ok(std::str::from_utf8(&line[9..]).unwrap().parse().unwrap())
}
