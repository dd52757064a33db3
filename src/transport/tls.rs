//! TLS between the socket and everybody else: rustls as a state machine, so that no lock is held while a socket blocks.
//!
//! One mutex guards the state: it is taken to encrypt or decrypt what is in memory, never during a system call that may
//! block. So a reader that waits for its peer does not keep anybody from writing, and a writer that waits for its socket
//! does not keep anybody from reading.
//!
//! # What a write reports
//!
//! A record is encrypted as a whole, but a socket may take a part of it. What it has not taken waits here, and one byte of
//! the plaintext is reported as not written: whoever writes keeps that byte and comes back with it, as with any partial
//! write. Then the rest of the record goes out first, and the byte is done without being encrypted again.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::{Line, is_timeout, send_blocking, send_now};

/// Ciphertext of one read: a record is at most a little longer.
const READ: usize = 8 * 1024;
/// Plaintext that is encrypted before the socket is asked again.
const STEP: usize = 256 * 1024;

/// A server's certificate and key, ready for connections. A cheap handle, shared by cloning.
///
/// ```no_run
/// use wshub::{Hub, Server, server::Listener, tls::Tls};
/// let tls = Tls::from_pem_files("cert.pem", "key.pem")?;
/// Server::on(Listener::tcp("0.0.0.0:8443")?.tls(&tls)).websocket("/ws", &Hub::new()).run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Clone)]
pub struct Tls(Arc<Mutex<Arc<ServerConfig>>>);

impl Tls {
    /// Reads a certificate chain, the server's own certificate first, and its private key from PEM files. TLS 1.2 and 1.3,
    /// ALPN `http/1.1`, no client certificates.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds no certificate or key, or a key that does not belong to the certificate.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_pem(&read(chain.as_ref())?, &read(key.as_ref())?)
    }

    /// Takes another certificate and key for connections that come from now on, in every listener and clone that shares
    /// this handle. Connections that exist keep theirs. For certificates that are renewed while the server runs.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files); then nothing changes.
    pub fn reload_pem_files(&self, chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<()> {
        self.reload(Self::config_of(&read(chain.as_ref())?, &read(key.as_ref())?)?);
        Ok(())
    }

    /// As [`reload_pem_files`](Tls::reload_pem_files), with a configuration of the program's own.
    pub fn reload(&self, config: Arc<ServerConfig>) {
        let old = std::mem::replace(&mut *self.0.lock(), config);
        // Not under the lock: it may hold what is the program's own.
        drop(old);
    }

    /// As [`from_pem_files`](Tls::from_pem_files), from their contents.
    ///
    /// # Errors
    ///
    /// As [`from_pem_files`](Tls::from_pem_files).
    pub fn from_pem(chain: &[u8], key: &[u8]) -> io::Result<Self> {
        Self::config_of(chain, key).map(Self::from_config)
    }

    fn config_of(chain: &[u8], key: &[u8]) -> io::Result<Arc<ServerConfig>> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain).collect::<Result<_, _>>().map_err(invalid)?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(invalid)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.map_err(invalid)?.with_no_client_auth();
        let mut config = builder.with_single_cert(chain, key).map_err(invalid)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A configuration of the program's own: client certificates, several names, other ciphers. Its ALPN list should hold
    /// `http/1.1` and nothing else, or be empty.
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        // A leaf lock: nothing is done under it but cloning and replacing the handle.
        Self(Arc::new(Mutex::new(config)))
    }

    /// What connections that come now get.
    fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.0.lock())
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    std::fs::read(path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, error)
}

/// The TLS side of one connection.
pub(super) struct Session {
    /// A leaf lock, never held during a system call that may block.
    state: Mutex<State>,
    /// Used by the connection's reading thread alone.
    inbound: Mutex<Inbound>,
}

struct State {
    tls: ServerConnection,
    /// Ciphertext that the socket has not taken, from `sent` on. Changed by who writes, one thread at a time.
    pending: Vec<u8>,
    sent: usize,
    /// A byte of plaintext is encrypted though it has been reported as not written.
    owes: bool,
    /// A thread has taken `pending` out and blocks on it: nothing else may go into the socket meanwhile.
    is_lent: bool,
}

/// Ciphertext that has come and is not decrypted yet.
#[derive(Default)]
struct Inbound {
    buffer: Vec<u8>,
    start: usize,
    end: usize,
}

impl Session {
    pub(super) fn new(tls: &Tls) -> io::Result<Self> {
        let mut tls = ServerConnection::new(tls.current()).map_err(invalid)?;
        // What waits is bounded here, by `STEP`.
        tls.set_buffer_limit(None);
        let state = State { tls, pending: Vec::new(), sent: 0, owes: false, is_lent: false };
        Ok(Self { state: Mutex::new(state), inbound: Mutex::default() })
    }

    /// Blocks until plaintext arrives; 0 is the end. The handshake happens in here, on first use.
    ///
    /// The socket's read timeout counts for plaintext: a peer that sends its records in drips is as silent as one that sends
    /// nothing, so that every deadline above holds.
    pub(super) fn read(&self, socket: &Line, buffer: &mut [u8]) -> io::Result<usize> {
        let mut inbound = self.inbound.lock();
        let mut begun: Option<Instant> = None;
        loop {
            if let Some(n) = self.decrypt(socket, &mut inbound, buffer)? {
                return Ok(n);
            }
            // Only looked at when a read has brought less than a record.
            if let Some(begun) = begun
                && socket.read_timeout()?.is_some_and(|timeout| begun.elapsed() >= timeout)
            {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            begun.get_or_insert_with(Instant::now);
            inbound.buffer.resize(READ, 0);
            (inbound.start, inbound.end) = (0, super::retry(|| (&*socket).read(&mut inbound.buffer))?);
            if inbound.end == 0 {
                return Ok(0);
            }
        }
    }

    /// Plaintext from what has come; `None` when more must come.
    fn decrypt(&self, socket: &Line, inbound: &mut Inbound, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let mut state = self.state.lock();
            match state.tls.reader().read(buffer) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if inbound.start == inbound.end {
                return Ok(None);
            }
            let was_handshaking = state.tls.is_handshaking();
            let mut rest = &inbound.buffer[inbound.start..inbound.end];
            inbound.start += state.tls.read_tls(&mut rest)?;
            let result = state.tls.process_new_packets();
            let result = result.map(drop).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            if was_handshaking {
                drop(state);
                // Nobody else writes before the handshake is done. An alert is sent too; then the peer may be gone.
                let told = self.settle(socket);
                result?;
                told?;
            } else {
                // An alert, or the answer to a new key. What the socket does not take now goes with the next write.
                let told = state.speak(socket);
                result?;
                if let Err(error) = told
                    && !is_timeout(&error)
                {
                    return Err(error);
                }
            }
        }
    }

    /// Writes what the socket takes now, of as many buffers as it takes; `WouldBlock` when that is nothing.
    pub(super) fn try_send(&self, socket: &Line, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        let mut written = 0;
        for chunk in buffers.iter().flat_map(|buffer| buffer.chunks(STEP)).filter(|chunk| !chunk.is_empty()) {
            match state.push(socket, chunk) {
                Ok(n) if n == chunk.len() => written += n,
                Ok(n) => return Ok(written + n),
                Err(e) if is_timeout(&e) && written > 0 => return Ok(written),
                Err(e) => return Err(e),
            }
        }
        Ok(written)
    }

    /// Blocks until the socket has taken something; `WouldBlock` when the write timeout passes first.
    pub(super) fn send(&self, socket: &Line, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.try_send(socket, buffers) {
                Err(e) if is_timeout(&e) => self.settle(socket)?,
                result => return result,
            }
        }
    }

    /// Blocks until nothing waits any more; `WouldBlock` when the write timeout passes without progress.
    fn settle(&self, socket: &Line) -> io::Result<()> {
        loop {
            // What waits is taken out, so that reading goes on while this thread blocks; nobody else writes meanwhile.
            let (pending, sent) = {
                let mut state = self.state.lock();
                match state.collect().and_then(|()| state.flush(socket)) {
                    Err(e) if is_timeout(&e) => {}
                    result => return result,
                }
                state.is_lent = true;
                (std::mem::take(&mut state.pending), state.sent)
            };
            let result = send_blocking(socket, &[IoSlice::new(&pending[sent..])]);
            let mut state = self.state.lock();
            state.is_lent = false;
            state.pending = pending;
            state.sent = sent + result?;
        }
    }

    /// Sends `close_notify`, after which nothing more is encrypted; `WouldBlock` when the socket does not take it now.
    pub(super) fn try_finish(&self, socket: &Line) -> io::Result<()> {
        let mut state = self.state.lock();
        // Only once, and not behind a fatal alert: rustls sees to both.
        state.tls.send_close_notify();
        state.speak(socket)
    }

    /// As [`try_finish`](Self::try_finish); blocks for at most the write timeout. Only for the one thread that may write.
    pub(super) fn finish(&self, socket: &Line) -> io::Result<()> {
        match self.try_finish(socket) {
            Err(error) if is_timeout(&error) => self.settle(socket),
            result => result,
        }
    }
}

impl State {
    /// Encrypts a chunk and sends what the socket takes. Gives what may be reported as written.
    fn push(&mut self, socket: &Line, chunk: &[u8]) -> io::Result<usize> {
        self.collect()?;
        self.flush(socket)?;
        let done = usize::from(std::mem::take(&mut self.owes));
        self.tls.writer().write_all(&chunk[done..])?;
        self.collect()?;
        match self.flush(socket) {
            Ok(()) => Ok(chunk.len()),
            Err(e) if is_timeout(&e) => {
                self.owes = true;
                if chunk.len() == 1 { Err(e) } else { Ok(chunk.len() - 1) }
            }
            Err(e) => Err(e),
        }
    }

    /// Sends what TLS itself has to say, without blocking; `WouldBlock` when the socket or another thread is in the way.
    fn speak(&mut self, socket: &Line) -> io::Result<()> {
        if self.is_lent {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.collect()?;
        self.flush(socket)
    }

    /// Takes the records that TLS has made.
    fn collect(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.pending)?;
        }
        Ok(())
    }

    /// Sends what waits; `WouldBlock` when something is left.
    fn flush(&mut self, socket: &Line) -> io::Result<()> {
        while self.sent < self.pending.len() {
            self.sent += send_now(socket, &self.pending[self.sent..])?;
        }
        self.sent = 0;
        self.pending.clear();
        // A large message leaves no large buffer behind.
        self.pending.shrink_to(STEP / 8);
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}
