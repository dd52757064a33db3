//! A connection's socket. Reads block; writes may block or not.
//!
//! `MSG_DONTWAIT` writes to a blocking socket without blocking, so one descriptor serves the reader thread, every
//! sender and the writer thread. After the upgrade, only the outbox writes and only `conn` reads.

#[cfg(wshub_internals)]
mod sink;
#[cfg(feature = "tls")]
mod tls;

use std::fmt;
use std::io::{self, IoSlice, Read};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use socket2::Socket;

use crate::config::deadline_after;

#[cfg(wshub_internals)]
use sink::SocketOrSink;
#[cfg(feature = "tls")]
pub use tls::Tls;

/// The socket itself. Only benches, compiled with `--cfg wshub_internals`, can replace it by a sink. A type alias
/// instead of a trait, so that programs pay nothing for this.
#[cfg(not(wshub_internals))]
type SocketOrSink = Socket;

/// No `SIGPIPE` when the peer is gone: the error is enough.
const SEND: i32 = libc::MSG_NOSIGNAL;

/// How long writing an HTTP answer may make no progress.
const ANSWER_TIME: Duration = Duration::from_secs(10);
/// Size of the kernel's send buffer for an answer, in bytes. The kernel may double it.
const ANSWER_BUFFER: usize = 128 * 1024;
/// Number of bytes of an answer that are passed to the kernel, or to TLS, at once.
const ANSWER_STEP: usize = 64 * 1024;
/// How long the end of an HTTP exchange waits for the peer to close. Peers close when they have read the answer.
const LINGER_TIME: Duration = Duration::from_secs(5);
/// How often a lingering connection checks whether it may still wait.
const SLICE: Duration = Duration::from_millis(250);

/// The peer's address in log records.
#[derive(Debug)]
pub(crate) struct Peer(pub(crate) Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(addr) => addr.fmt(f),
            None => f.write_str("a Unix socket"),
        }
    }
}

/// A connected stream. Converts from a [`TcpStream`] or a [`UnixStream`].
#[derive(Debug)]
pub struct Transport {
    socket: SocketOrSink,
    #[cfg(feature = "tls")]
    tls: Option<Box<tls::Session>>,
}

/// Forwards a call to the TLS session of a stream that has one.
macro_rules! through_tls {
    ($self:ident.$method:ident($($argument:expr),*)) => {
        #[cfg(feature = "tls")]
        if let Some(tls) = &$self.tls {
            return tls.$method(&$self.socket, $($argument),*);
        }
    };
}

impl From<TcpStream> for Transport {
    /// Sets the stream to blocking mode, turns Nagle's algorithm off, because the hub batches by itself, and turns TCP
    /// keep-alive on.
    fn from(stream: TcpStream) -> Self {
        // Fails only for an invalid descriptor.
        let _ = stream.set_nonblocking(false);
        Self::tcp(stream.into())
    }
}

impl From<UnixStream> for Transport {
    /// Sets the stream to blocking mode.
    fn from(stream: UnixStream) -> Self {
        let _ = stream.set_nonblocking(false);
        Self::unix(Socket::from(stream))
    }
}

impl Transport {
    pub(crate) fn tcp(socket: Socket) -> Self {
        // Fails only for a dead socket.
        let _ = socket.set_tcp_nodelay(true);
        let _ = socket.set_keepalive(true);
        Self::unix(socket)
    }

    pub(crate) fn unix(socket: impl Into<SocketOrSink>) -> Self {
        Self {
            socket: socket.into(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Adds TLS to the stream. The first read performs the handshake: for a [`Server`](crate::Server), on the
    /// connection's own thread and within the handshake timeout.
    ///
    /// # Errors
    ///
    /// The error of rustls for a [`Tls`] that it cannot use.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &Tls) -> io::Result<Self> {
        // Bounds the handshake if the peer does not read this side's part.
        self.set_write_timeout(ANSWER_TIME)?;
        self.tls = Some(Box::new(tls::Session::new(tls)?));
        Ok(self)
    }

    /// The peer's address; `None` for Unix sockets.
    pub(crate) fn peer_addr(&self) -> Option<SocketAddr> {
        self.socket.peer_addr().ok()?.as_socket()
    }

    /// Blocks until bytes arrive (0 = the peer has closed) or the read timeout passes (`WouldBlock`).
    pub(crate) fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        through_tls!(self.read(buffer));
        retry(|| (&self.socket).read(buffer))
    }

    /// As [`read`](Self::read), but before TLS: for the header that a proxy sends before the client's first byte.
    pub(crate) fn read_before_tls(&self, buffer: &mut [u8]) -> io::Result<usize> {
        retry(|| (&self.socket).read(buffer))
    }

    /// Sets how long a read blocks; `None` = for ever.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        // A zero timeout would mean "for ever" to the kernel.
        self.socket.set_read_timeout(timeout.map(|t| t.max(Duration::from_millis(1))))
    }

    pub(crate) fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        self.socket.set_write_timeout(Some(timeout.max(Duration::from_millis(1))))
    }

    /// Sets how long sent bytes may stay unacknowledged before the connection breaks (RFC 5482). `None` = the system's
    /// default. Works for TCP on Linux; elsewhere it does nothing.
    pub(crate) fn set_user_timeout(&self, timeout: Option<Duration>) {
        #[cfg(target_os = "linux")]
        // Fails for Unix sockets, whose peers cannot vanish unnoticed.
        let _ = self.socket.set_tcp_user_timeout(timeout);
        #[cfg(not(target_os = "linux"))]
        let _ = timeout;
    }

    /// Writes what the socket takes now. Returns `WouldBlock` if it takes nothing.
    pub(crate) fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        through_tls!(self.try_send(&[IoSlice::new(bytes)]));
        send_now(&self.socket, bytes)
    }

    /// As [`try_send`](Self::try_send), for several buffers in one system call.
    pub(crate) fn try_send_all(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        through_tls!(self.try_send(buffers));
        match buffers {
            [one] => self.try_send(one),
            _ => retry(|| self.socket.send_vectored_with_flags(buffers, SEND | libc::MSG_DONTWAIT)),
        }
    }

    /// Blocks until the socket takes data. Returns `WouldBlock` if the write timeout passes first.
    pub(crate) fn send_all(&self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        through_tls!(self.send(buffers));
        send_blocking(&self.socket, buffers)
    }

    /// Writes a whole HTTP answer and closes in such a way that it arrives; see [`linger`](Self::linger). Gives up if
    /// the peer takes nothing for [`ANSWER_TIME`].
    #[inline(never)]
    pub(crate) fn answer(&self, mut bytes: &[u8], may_wait: impl Fn() -> bool) {
        let _ = self.set_write_timeout(ANSWER_TIME);
        if bytes.len() > ANSWER_BUFFER {
            // The kernel wakes a blocked writer only when a third of its buffer is free. With the kernel's default size
            // of megabytes, a slow reader would seem to have stopped.
            self.set_send_buffer(ANSWER_BUFFER);
        }
        while !bytes.is_empty() {
            match self.send_all(&[IoSlice::new(&bytes[..bytes.len().min(ANSWER_STEP)])]) {
                Ok(n) => bytes = &bytes[n..],
                Err(_) => return,
            }
        }
        let _ = self.finish();
        self.linger(LINGER_TIME, may_wait);
    }

    /// Asks the kernel to keep at most about this many bytes that the peer has not acknowledged.
    pub(crate) fn set_send_buffer(&self, bytes: usize) {
        // Fails only for a dead socket. The system cuts too large a value.
        let _ = self.socket.set_send_buffer_size(bytes);
    }

    /// Asks the kernel to take no more data while this many bytes are unsent. Works for TCP on Linux; elsewhere it does
    /// nothing.
    pub(crate) fn set_unsent_low_water(&self, bytes: u32) {
        #[cfg(target_os = "linux")]
        // Fails for Unix sockets.
        let _ = self.socket.set_tcp_notsent_lowat(bytes);
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
    }

    /// Sends `close_notify` over TLS (RFC 8446 §6.1), then FIN. The peer reads the data in transit and then an orderly
    /// end. Blocks until the socket takes `close_notify`, for at most the write timeout.
    ///
    /// # Errors
    ///
    /// The error that kept `close_notify` from being sent. After `WouldBlock` no FIN has been sent either.
    pub(crate) fn finish(&self) -> io::Result<()> {
        self.end_writing(self.send_close_notify(true))
    }

    /// As [`finish`](Self::finish), without blocking.
    ///
    /// # Errors
    ///
    /// As [`finish`](Self::finish); `WouldBlock` if the socket does not take `close_notify` now.
    pub(crate) fn try_finish(&self) -> io::Result<()> {
        self.end_writing(self.send_close_notify(false))
    }

    /// Sends FIN, unless `close_notify` still has to go first.
    fn end_writing(&self, said: io::Result<()>) -> io::Result<()> {
        if !said.as_ref().is_err_and(is_timeout) {
            // Fails only if the socket is no longer connected.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        said
    }

    /// Ends both directions: every blocked read or write on this socket returns.
    pub(crate) fn kill(&self) {
        // Fails only if the socket is no longer connected. Then there is nothing to end.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Sends FIN and discards input until the peer also closes, `time` has passed, `may_wait` returns false or 16 MiB
    /// have arrived. Closing a socket with unread input would send a reset, which destroys this side's last bytes in
    /// transit (RFC 9112 §9.6).
    ///
    /// Not inlined: its kilobyte of stack would become resident in every connection.
    #[inline(never)]
    pub(crate) fn linger(&self, time: Duration, may_wait: impl Fn() -> bool) {
        // Normally already sent. Sent here only if that does not block.
        let _ = self.send_close_notify(false);
        if self.socket.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = deadline_after(time);
        let mut sink = [0u8; 1024];
        for _ in 0..16 * 1024 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.set_read_timeout(Some(left.min(SLICE))).is_err() {
                return;
            }
            // Discarded undecrypted.
            match retry(|| (&self.socket).read(&mut sink)) {
                Ok(1..) => {}
                Err(error) if is_timeout(&error) && may_wait() => {}
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Sends `close_notify`, which tells the peer that the connection was not cut.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unused_self, clippy::unnecessary_wraps, reason = "without TLS there is nothing to say")
    )]
    fn send_close_notify(&self, may_block: bool) -> io::Result<()> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return if may_block { tls.finish(&self.socket) } else { tls.try_finish(&self.socket) };
        }
        let _ = may_block;
        Ok(())
    }
}

/// Writes what the socket takes now.
fn send_now(socket: &SocketOrSink, bytes: &[u8]) -> io::Result<usize> {
    retry(|| socket.send_with_flags(bytes, SEND | libc::MSG_DONTWAIT))
}

/// Blocks until the socket takes data.
fn send_blocking(socket: &SocketOrSink, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
    retry(|| socket.send_vectored_with_flags(buffers, SEND))
}

/// The IP address that per-address limits count; an IPv4-mapped IPv6 address counts as its IPv4 address.
pub(crate) fn canonical_ip(addr: SocketAddr) -> IpAddr {
    addr.ip().to_canonical()
}

fn retry(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Whether a read or write ended because its timeout passed. `ETIMEDOUT` does not count: it means that the connection
/// has broken because the peer acknowledges nothing.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock
        || (error.kind() == io::ErrorKind::TimedOut && error.raw_os_error() != Some(libc::ETIMEDOUT))
}

/// Whether a read or write failed because the peer is gone. That is an ordinary departure and no error.
pub(crate) fn is_gone(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, NotConnected};
    matches!(kind, BrokenPipe | ConnectionAborted | ConnectionReset | NotConnected)
}

#[cfg(all(test, not(wshub_internals)))]
mod tests {
    use std::any::TypeId;

    use super::*;

    /// `.ci/run` and `tests/all.sh` demand that this test runs, whatever features are on.
    #[test]
    fn the_socket_under_test_is_the_one_that_users_get() {
        assert_eq!(TypeId::of::<SocketOrSink>(), TypeId::of::<Socket>());
    }
}
