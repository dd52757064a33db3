//! TLS on a socket. rustls is used as a state machine without I/O, so that no lock is held while the socket blocks.
//!
//! One mutex guards the state. It is held to encrypt or decrypt bytes in memory and for non-blocking sends, never
//! during a system call that may block. So a blocked reader does not delay writers, and a blocked writer does not delay
//! the reader.
//!
//! # What a write reports
//!
//! A record is encrypted as a whole, but a socket may take only a part of it. The rest of the ciphertext is kept here,
//! and one byte of the plaintext is reported as not written. As after any partial write, the writer calls again with
//! that byte. Then the kept ciphertext is sent first, and the byte counts as written without being encrypted again.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection};

use super::{SocketOrSink, is_timeout, send_blocking, send_now};
use crate::lock::{Leaf, rank};

/// Size of one read of ciphertext, in bytes.
const READ: usize = 4 * 1024;
/// Number of plaintext bytes that are encrypted before the next write to the socket.
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
pub struct Tls(Arc<Leaf<Arc<ServerConfig>>>);

impl Tls {
    /// Reads a certificate chain, the server's own certificate first, and its private key from PEM files. TLS 1.2 and
    /// 1.3, ALPN `http/1.1`, no client certificates.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or holds no certificate or key, or a key that does not belong to the certificate.
    pub fn from_pem_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> io::Result<Self> {
        Self::from_pem(&read(chain.as_ref())?, &read(key.as_ref())?)
    }

    /// Loads another certificate and key for later connections of every listener and clone that shares this handle.
    /// Existing connections keep theirs. It is for certificates that are renewed while the server runs.
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
        // Dropped without the lock: it may hold values of the program.
        drop(old);
    }

    /// As [`from_pem_files`](Tls::from_pem_files), but from the contents of the files.
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

    /// Uses the program's own configuration: client certificates, several names, other ciphers. Its ALPN list should
    /// contain only `http/1.1`, or be empty.
    pub fn from_config(config: Arc<ServerConfig>) -> Self {
        // A leaf lock: nothing is done under it but cloning and replacing the handle.
        Self(Arc::new(Leaf::new(config)))
    }

    /// The configuration for new connections.
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
    /// Never held during a system call that may block.
    state: Leaf<State, { rank::SOCKET_STATE }>,
    /// Received ciphertext that is not decrypted yet. Only the connection's reading thread uses it.
    inbound: Leaf<Vec<u8>, { rank::INBOUND }>,
}

struct State {
    tls: ServerConnection,
    /// Ciphertext that the socket has not taken, starting at `sent`. One thread at a time writes.
    pending: Vec<u8>,
    sent: usize,
    /// One byte of plaintext is already encrypted but was reported as not written.
    owes: bool,
    /// A thread has taken `pending` out and is sending it, blocking. Nothing else may be sent in the meantime.
    is_lent: bool,
}

impl Session {
    pub(super) fn new(tls: &Tls) -> io::Result<Self> {
        let mut tls = ServerConnection::new(tls.current()).map_err(invalid)?;
        // `STEP` bounds the waiting ciphertext.
        tls.set_buffer_limit(None);
        let state = State { tls, pending: Vec::new(), sent: 0, owes: false, is_lent: false };
        Ok(Self { state: Leaf::new(state), inbound: Leaf::default() })
    }

    /// Blocks until plaintext arrives; 0 is the end. The first call performs the handshake.
    ///
    /// Reads ciphertext onto the stack, which the handshake has already made resident, so a waiting connection has no
    /// buffer. The socket's read timeout applies to plaintext: a peer that sends its records byte by byte counts as
    /// silent, so all deadlines of the callers hold.
    pub(super) fn read(&self, socket: &SocketOrSink, buffer: &mut [u8]) -> io::Result<usize> {
        let mut kept = self.inbound.lock();
        let before = std::mem::take(&mut *kept);
        let mut chunk = [0; READ];
        let mut inbound = &before[..];
        let mut begun: Option<Instant> = None;
        loop {
            if let Some(n) = self.decrypt(socket, &mut inbound, buffer)? {
                *kept = inbound.to_vec();
                return Ok(n);
            }
            // Reached only when a read has brought less than a record.
            if let Some(begun) = begun {
                if socket.read_timeout()?.is_some_and(|timeout| begun.elapsed() >= timeout) {
                    return Err(io::ErrorKind::WouldBlock.into());
                }
            }
            begun.get_or_insert_with(Instant::now);
            let n = super::retry(|| (&*socket).read(&mut chunk))?;
            if n == 0 {
                return Ok(0);
            }
            inbound = &chunk[..n];
        }
    }

    /// Decrypts `inbound` until there is plaintext. `None` if all of it is used up.
    fn decrypt(&self, socket: &SocketOrSink, inbound: &mut &[u8], buffer: &mut [u8]) -> io::Result<Option<usize>> {
        loop {
            let mut state = self.state.lock();
            match state.tls.reader().read(buffer) {
                Ok(n) => return Ok(Some(n)),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(e) => return Err(e),
            }
            if inbound.is_empty() {
                return Ok(None);
            }
            let was_handshaking = state.tls.is_handshaking();
            state.tls.read_tls(inbound)?;
            let result = state.tls.process_new_packets();
            let result = result.map(drop).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e));
            if was_handshaking {
                drop(state);
                // No other thread writes during the handshake. This sends an alert, too, if the handshake has failed.
                let sent = self.settle(socket);
                result?;
                sent?;
            } else {
                // Sends an alert, or the answer to a key update. The next write sends what the socket does not take
                // now.
                let sent = state.send_own_records(socket);
                result?;
                if let Some(error) = sent.err().filter(|error| !is_timeout(error)) {
                    return Err(error);
                }
            }
        }
    }

    /// Writes what the socket takes now. Returns `WouldBlock` if it takes nothing.
    pub(super) fn try_send(&self, socket: &SocketOrSink, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
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

    /// Blocks until the socket has taken data. Returns `WouldBlock` if the write timeout passes first.
    pub(super) fn send(&self, socket: &SocketOrSink, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.try_send(socket, buffers) {
                Err(e) if is_timeout(&e) => self.settle(socket)?,
                result => return result,
            }
        }
    }

    /// Blocks until no ciphertext is left. Returns `WouldBlock` if the write timeout passes without progress.
    fn settle(&self, socket: &SocketOrSink) -> io::Result<()> {
        loop {
            // Taken out so that the reader can continue while this thread blocks. No other thread writes in the
            // meantime.
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

    /// Sends `close_notify`, after which nothing more is encrypted. Returns `WouldBlock` if the socket does not take it
    /// now.
    pub(super) fn try_finish(&self, socket: &SocketOrSink) -> io::Result<()> {
        let mut state = self.state.lock();
        // rustls sends it only once, and not after a fatal alert.
        state.tls.send_close_notify();
        state.send_own_records(socket)
    }

    /// As [`try_finish`](Self::try_finish), but blocks for at most the write timeout. Only the thread that may write
    /// calls it.
    pub(super) fn finish(&self, socket: &SocketOrSink) -> io::Result<()> {
        match self.try_finish(socket) {
            Err(error) if is_timeout(&error) => self.settle(socket),
            result => result,
        }
    }
}

impl State {
    /// Encrypts a chunk and sends what the socket takes. Returns the number of bytes to report as written.
    fn push(&mut self, socket: &SocketOrSink, chunk: &[u8]) -> io::Result<usize> {
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

    /// Sends the records that TLS itself has produced, without blocking. Returns `WouldBlock` if the socket is full or
    /// another thread is sending.
    fn send_own_records(&mut self, socket: &SocketOrSink) -> io::Result<()> {
        if self.is_lent {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.collect()?;
        self.flush(socket)
    }

    /// Collects the records that TLS has produced.
    fn collect(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut self.pending)?;
        }
        Ok(())
    }

    /// Sends the waiting records. Returns `WouldBlock` if some are left.
    fn flush(&mut self, socket: &SocketOrSink) -> io::Result<()> {
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
