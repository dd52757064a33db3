//! The sending half of one connection, which never waits.

use std::io::{ErrorKind, Write as _};
use std::time::Instant;

use mio::net::TcpStream;

use super::frame;

/// How far a connection has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Not connected yet; what to ask for then.
    Connecting(String),
    /// Waits for the answer to its request; what came of it.
    Asking(Vec<u8>),
    Open,
}

/// One connection, as its owner sees it.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) id: usize,
    /// Whether messages are read.
    pub(crate) reads: bool,
    pub(crate) phase: Phase,
    pub(crate) stream: TcpStream,
    /// Since when.
    pub(crate) started: Instant,
    /// What the socket has not taken yet.
    waiting: Vec<u8>,
}

impl Link {
    pub(crate) fn new(id: usize, stream: TcpStream, request: String, reads: bool) -> Self {
        Self { id, reads, phase: Phase::Connecting(request), stream, started: Instant::now(), waiting: Vec::new() }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Sends whole frames; what the socket does not take waits. An error shows when the connection is next read.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        let taken = if self.waiting.is_empty() { self.write(bytes) } else { 0 };
        self.waiting.extend(&bytes[taken..]);
    }

    pub(crate) fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        let mut bytes = Vec::new();
        frame::put(opcode, payload, &mut bytes);
        self.send(&bytes);
    }

    /// Bytes that wait for the socket.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The socket takes bytes again.
    pub(crate) fn flush(&mut self) {
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            let taken = self.write(&waiting);
            self.waiting = waiting;
            self.waiting.drain(..taken);
        }
    }

    /// How much the socket takes. All of it, when the connection is broken: the reading side tells.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() {
            match self.stream.write(&bytes[taken..]) {
                Ok(count) => taken += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return bytes.len(),
            }
        }
        taken
    }
}
