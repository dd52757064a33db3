//! A substitute for the socket, for benches with more clients than a process may have sockets. It accepts every write
//! completely.
//!
//! Where it is compiled in, a send to a socket costs about eight instructions more; the time of its system call hides
//! them.

use std::io::{self, IoSlice, Read};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::Transport;

/// A socket, or the sink. Has the socket's methods that the crate uses.
#[derive(Debug)]
pub(crate) enum SocketOrSink {
    Socket(Socket),
    /// The number of bytes taken, modulo 2^32; a larger counter would not fit the outbox's cache line. Relaxed: only
    /// the thread with the right to write changes this count.
    Sink(AtomicU32),
}

impl From<Socket> for SocketOrSink {
    fn from(socket: Socket) -> Self {
        Self::Socket(socket)
    }
}

impl Transport {
    /// Takes everything and never has anything to read.
    pub(crate) fn sink() -> Self {
        Self::unix(SocketOrSink::Sink(AtomicU32::new(0)))
    }

    /// Bytes that the sink has taken, modulo 2^32; 0 for a socket.
    pub(crate) fn taken(&self) -> u32 {
        match &self.socket {
            SocketOrSink::Socket(_) => 0,
            SocketOrSink::Sink(taken) => taken.load(Ordering::Relaxed),
        }
    }
}

impl SocketOrSink {
    fn socket(&self) -> Option<&Socket> {
        match self {
            Self::Socket(socket) => Some(socket),
            Self::Sink(_) => None,
        }
    }

    pub(super) fn peer_addr(&self) -> io::Result<SockAddr> {
        self.socket().map_or_else(|| Err(io::ErrorKind::NotConnected.into()), Socket::peer_addr)
    }

    #[cfg(feature = "tls")]
    pub(super) fn read_timeout(&self) -> io::Result<Option<Duration>> {
        self.socket().map_or(Ok(None), Socket::read_timeout)
    }

    pub(super) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.set_read_timeout(timeout))
    }

    pub(super) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.set_write_timeout(timeout))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn set_tcp_user_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.set_tcp_user_timeout(timeout))
    }

    pub(super) fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.set_send_buffer_size(bytes))
    }

    #[cfg(target_os = "linux")]
    pub(super) fn set_tcp_notsent_lowat(&self, bytes: u32) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.set_tcp_notsent_lowat(bytes))
    }

    pub(super) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.socket().map_or(Ok(()), |socket| socket.shutdown(how))
    }

    #[inline]
    pub(super) fn send_with_flags(&self, bytes: &[u8], flags: i32) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.send_with_flags(bytes, flags),
            Self::Sink(taken) => Ok(take(taken, bytes.len())),
        }
    }

    #[inline]
    pub(super) fn send_vectored_with_flags(&self, buffers: &[IoSlice<'_>], flags: i32) -> io::Result<usize> {
        match self {
            Self::Socket(socket) => socket.send_vectored_with_flags(buffers, flags),
            Self::Sink(taken) => Ok(take(taken, buffers.iter().map(|buffer| buffer.len()).sum())),
        }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "modulo 2^32")]
fn take(taken: &AtomicU32, n: usize) -> usize {
    // One writer at a time: no read-modify-write is needed.
    taken.store(taken.load(Ordering::Relaxed).wrapping_add(n as u32), Ordering::Relaxed);
    n
}

impl Read for &SocketOrSink {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket().map_or(Ok(0), |mut socket| socket.read(buffer))
    }
}
