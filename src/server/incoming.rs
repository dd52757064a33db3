//! Reads the first request of a connection, within its limits.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Running;
use super::proxy_protocol::{self, Header, Source};
use crate::config::deadline_after;
use crate::guard::record;
use crate::http::{ChunkError, ChunkedDecoder, Framing, HeadError, RequestHead, Response, unavailable};
use crate::log_limit::LogLimit;
use crate::metrics::ErrorType;
use crate::transport::{Peer, Transport, is_timeout};

/// How often a read wakes up to check whether the server stops.
const SLICE: Duration = Duration::from_millis(250);
/// How long the end of a failed TLS handshake waits for the peer to close.
const LINGER: Duration = Duration::from_secs(1);
/// Size of one read, in bytes. Larger than the blocks that glibc's allocator keeps for each thread, so that the memory
/// is shared after the handshake.
const CHUNK: usize = 2048;
/// A body may take this many timeouts, plus one second per [`BYTES_A_SECOND`] received.
const PATIENCE: u32 = 6;
const BYTES_A_SECOND: u64 = 1024;

static FAILURES: LogLimit = LogLimit::new();

/// Why there is no complete request.
#[derive(Debug)]
pub(super) enum Broken {
    /// The peer has disconnected.
    Gone,
    /// Not HTTP, so there is no HTTP answer. Holds the reason.
    Nonsense(&'static str),
    /// The answer to send.
    Answer(Response),
}

impl From<HeadError> for Broken {
    fn from(error: HeadError) -> Self {
        Self::answer(error.status(), error.reason())
    }
}

impl From<ChunkError> for Broken {
    fn from(error: ChunkError) -> Self {
        match error {
            ChunkError::TooLarge => Self::answer(413, "body too large"),
            ChunkError::Malformed(reason) => Self::answer(400, reason),
        }
    }
}

impl Broken {
    fn answer(status: u16, reason: &str) -> Self {
        Self::Answer(Response::text(status, format!("{reason}\n")))
    }
}

/// A connection whose request is being read.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    pub(super) shared: &'a Running,
    pub(super) transport: &'a Transport,
    /// The peer's address, for the log.
    pub(super) peer: Option<SocketAddr>,
}

/// How bytes are read: through TLS, or before it.
type Read = fn(&Transport, &mut [u8]) -> io::Result<usize>;

/// Two deadlines of a read. Both move as bytes of a body arrive.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// How long the peer may pause.
    pause: Duration,
    /// When the current pause becomes too long.
    pause_ends: Instant,
    /// When the whole must have arrived.
    ends: Instant,
}

impl Clock {
    /// Creates the deadlines of a head, which must be complete within `timeout`.
    pub(super) fn of_head(timeout: Duration) -> Self {
        let ends = deadline_after(timeout);
        Self { pause: timeout, pause_ends: ends, ends }
    }

    /// Creates the deadlines of a body, which must make progress.
    fn of_body(timeout: Duration) -> Self {
        let ends = deadline_after(timeout.saturating_mul(PATIENCE));
        Self { pause: timeout, pause_ends: deadline_after(timeout), ends }
    }

    /// Moves the deadlines, because bytes of a body have arrived.
    fn arrived(&mut self, bytes: usize) {
        self.pause_ends = deadline_after(self.pause);
        self.ends += Duration::from_millis(bytes as u64 * 1000 / BYTES_A_SECOND);
    }

    fn left(&self) -> Duration {
        self.pause_ends.min(self.ends).saturating_duration_since(Instant::now())
    }
}

impl Incoming<'_> {
    /// Reads the header of the PROXY protocol.
    pub(super) fn proxy_header(&self, clock: &Clock) -> Result<Source, Broken> {
        let mut bytes = Vec::new();
        loop {
            match proxy_protocol::parse(&bytes).map_err(Broken::Nonsense)? {
                Header::Whole(source) => return Ok(source),
                // Reads no byte beyond the header: TLS or HTTP follows.
                Header::More(n) => self.read(&mut bytes, n, clock, Transport::read_before_tls)?,
            };
        }
    }

    /// Reads the head. Also returns the bytes that arrived after it.
    pub(super) fn head(&self, clock: &Clock) -> Result<(RequestHead, Vec<u8>), Broken> {
        let mut bytes = Vec::with_capacity(CHUNK);
        loop {
            self.read(&mut bytes, CHUNK, clock, Transport::read)?;
            if let Some((head, length)) = RequestHead::parse(&bytes)? {
                return Ok((head, bytes.split_off(length)));
            }
        }
    }

    /// Reads the body, of which `early` has already arrived. Bytes after the body would be a second request and are
    /// ignored, because every answer closes the connection.
    pub(super) fn body(&self, head: &RequestHead, early: Vec<u8>) -> Result<Vec<u8>, Broken> {
        match head.framing()? {
            Framing::Length(length) => self.body_of_length(head, length, early),
            Framing::Chunked => self.chunked_body(head, early),
            Framing::Unknown => Err(Broken::answer(501, "transfer coding not supported")),
        }
    }

    fn body_of_length(&self, head: &RequestHead, length: u64, mut bytes: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > self.shared.max_body {
            return Err(Broken::answer(413, "body too large"));
        }
        if bytes.len() < length {
            self.ask_for_body(head);
        }
        let mut clock = Clock::of_body(self.shared.handshake_timeout);
        while bytes.len() < length {
            // Allocates only for what arrives.
            let step = (length - bytes.len()).min(8 * CHUNK);
            let n = self.read(&mut bytes, step, &clock, Transport::read)?;
            clock.arrived(n);
        }
        bytes.truncate(length);
        Ok(bytes)
    }

    fn chunked_body(&self, head: &RequestHead, early: Vec<u8>) -> Result<Vec<u8>, Broken> {
        let mut decoder = ChunkedDecoder::new(self.shared.max_body);
        let mut bytes = early;
        if !decoder.push(&bytes)? {
            self.ask_for_body(head);
            let mut clock = Clock::of_body(self.shared.handshake_timeout);
            loop {
                bytes.clear();
                let n = self.read(&mut bytes, 8 * CHUNK, &clock, Transport::read)?;
                clock.arrived(n);
                if decoder.push(&bytes)? {
                    break;
                }
            }
        }
        Ok(decoder.into_body())
    }

    /// RFC 9110 §10.1.1.
    fn ask_for_body(&self, head: &RequestHead) {
        if head.expects_continue() {
            let _ = self.transport.try_send(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
    }

    /// Appends at least one byte and at most `most`. Returns how many.
    fn read(&self, bytes: &mut Vec<u8>, most: usize, clock: &Clock, source: Read) -> Result<usize, Broken> {
        let start = bytes.len();
        bytes.resize(start + most, 0);
        let n = self.read_some(&mut bytes[start..], clock, source);
        bytes.truncate(start + n.as_ref().unwrap_or(&0));
        n
    }

    fn read_some(&self, buffer: &mut [u8], clock: &Clock, source: Read) -> Result<usize, Broken> {
        loop {
            let left = clock.left();
            if left.is_zero() {
                return Err(Broken::answer(408, "request timed out"));
            }
            if self.shared.is_stopping() {
                return Err(Broken::Answer(unavailable("shutting down")));
            }
            let timed = self.transport.set_read_timeout(Some(left.min(SLICE)));
            match timed.and_then(|()| source(self.transport, buffer)) {
                Ok(0) => return Err(Broken::Gone),
                Ok(n) => return Ok(n),
                Err(e) if is_timeout(&e) => {}
                Err(e) => {
                    if e.kind() == io::ErrorKind::InvalidData {
                        self.report_tls(&e);
                        // The alert must arrive, whatever the peer still sends.
                        self.transport.linger(LINGER, || !self.shared.is_stopping());
                    }
                    return Err(Broken::Gone);
                }
            }
        }
    }

    /// Counts and logs a failed TLS handshake. TLS has alerted the peer itself.
    fn report_tls(&self, error: &io::Error) {
        self.shared.count_error(ErrorType::UpgradeFailed);
        if let Some(suppressed) = FAILURES.pass() {
            let peer = Peer(self.peer);
            record!(Info, "wshub::server", "TLS handshake with {peer} failed: {error} ({suppressed} more not logged)");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_must_get_on_and_come_to_an_end() {
        let pause = Duration::from_secs(10);
        let mut clock = Clock::of_body(pause);
        assert!(clock.left() <= pause);
        clock.pause_ends -= pause;
        assert_eq!(clock.left(), Duration::ZERO, "a pause that is too long");
        clock.arrived(1);
        assert!(clock.left() > pause / 2);
        // Dripping bytes extend the deadline only by the time that they earn.
        let before = clock.ends;
        (0..100).for_each(|_| clock.arrived(1));
        assert!(clock.ends - before <= Duration::from_secs(1));
        clock.arrived(10 * 1024);
        assert!(clock.ends - before >= Duration::from_secs(10));
        let mut endless = Clock::of_body(Duration::MAX);
        endless.arrived(usize::MAX / 2000);
        assert!(endless.left() > pause);
    }
}
