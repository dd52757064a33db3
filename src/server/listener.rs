//! Listening sockets: TCP and Unix.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use socket2::{Domain, SockAddr, SockRef, Socket, Type};

use crate::lock::Leaf;
#[cfg(feature = "tls")]
use crate::transport::Tls;
use crate::transport::Transport;

/// Number of connections that the kernel holds until they are accepted; it may cap this (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// A listening socket. [`tcp`](Listener::tcp) and [`unix`](Listener::unix) create one; the standard library's listeners
/// convert into it, for example one inherited from systemd.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    is_tcp: bool,
    /// The socket file to remove. Taken when it is removed, because another server may use the path afterwards.
    path: Leaf<Option<PathBuf>>,
    /// Each connection begins with a header of the PROXY protocol.
    has_proxy_header: bool,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
}

impl Listener {
    /// Listens on the first address that can be bound. Port 0 takes a free port.
    ///
    /// # Errors
    ///
    /// The error of `bind`, such as an address in use.
    pub fn tcp(addr: impl ToSocketAddrs) -> io::Result<Self> {
        let mut last = io::Error::new(io::ErrorKind::InvalidInput, "no address to listen on");
        for addr in addr.to_socket_addrs()? {
            match Self::tcp_one(addr) {
                Ok(listener) => return Ok(listener),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Listens on a Unix socket. A stale socket file, on which no process listens, is replaced. The file is removed
    /// when the server ends.
    ///
    /// Connecting requires write permission on the file. The umask determines its mode, commonly 0755: then only the
    /// same user can connect. Use [`unix_with_mode`](Listener::unix_with_mode) for a proxy that runs as another user.
    ///
    /// # Errors
    ///
    /// The error of `bind`, such as a path in use.
    pub fn unix(path: impl AsRef<Path>) -> io::Result<Self> {
        Self::unix_file(path.as_ref(), None)
    }

    /// As [`unix`](Listener::unix), with this mode for the socket file, such as `0o660`. It is set before anyone can
    /// connect and does not depend on the umask.
    ///
    /// # Errors
    ///
    /// The error of `bind` or `chmod`; `InvalidInput` for a mode above `0o777`.
    pub fn unix_with_mode(path: impl AsRef<Path>, mode: u32) -> io::Result<Self> {
        if mode > 0o777 {
            let error = format!("mode {mode:o} of a Unix socket exceeds 777");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
        }
        Self::unix_file(path.as_ref(), Some(mode))
    }

    /// The TCP and Unix sockets that systemd passes to this process by socket activation (`LISTEN_FDS`), in the order
    /// of the unit file. Empty without socket activation. Call it once, early: each socket is returned once.
    ///
    /// # Errors
    ///
    /// A socket that is not a listening stream socket.
    #[cfg(feature = "systemd")]
    pub fn from_systemd() -> io::Result<Vec<Self>> {
        let mut inherited = listenfd::ListenFd::from_env();
        let mut listeners = Vec::new();
        for at in 0..inherited.len() {
            if let Ok(Some(tcp)) = inherited.take_tcp_listener(at) {
                listeners.push(tcp.into());
            } else if let Some(unix) = inherited.take_unix_listener(at)? {
                listeners.push(unix.into());
            }
        }
        Ok(listeners)
    }

    fn unix_file(path: &Path, mode: Option<u32>) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        let addr = SockAddr::unix(path)?;
        match socket.bind(&addr) {
            Err(e) if e.kind() == io::ErrorKind::AddrInUse && is_stale(path) => {
                fs::remove_file(path)?;
                socket.bind(&addr)?;
            }
            result => result?,
        }
        // From here on, dropping the listener removes the file.
        let listener = Self::new(socket, false);
        *listener.path.lock() = Some(path.to_owned());
        if let Some(mode) = mode {
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        listener.socket.listen(BACKLOG)?;
        Ok(listener)
    }

    fn new(socket: Socket, is_tcp: bool) -> Self {
        Self {
            socket,
            is_tcp,
            path: Leaf::default(),
            has_proxy_header: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    fn tcp_one(addr: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.bind(&addr.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self::new(socket, true))
    }

    /// Speaks TLS on every connection of this listener. The handshake runs on the connection's thread, within
    /// [`Server::handshake_timeout`](crate::Server::handshake_timeout).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: &Tls) -> Self {
        self.tls = Some(tls.clone());
        self
    }

    /// Expects a header of the PROXY protocol, version 1 or 2, at the start of each connection, in front of TLS. The
    /// header holds the client's address, which becomes [`RequestHead::remote_addr`](crate::RequestHead::remote_addr).
    /// A connection without a header is closed without an answer.
    ///
    /// A peer that reaches such a listener can claim any address, so make sure that only the proxy can reach it.
    pub fn proxy_protocol(mut self) -> Self {
        self.has_proxy_header = true;
        self
    }

    /// Whether its connections speak TLS, so that nothing may be sent to them in plaintext.
    #[cfg_attr(
        not(feature = "tls"),
        allow(clippy::unused_self, reason = "without the feature there is nothing to look up")
    )]
    pub(super) fn is_secure(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    /// The bound address; `None` for Unix sockets.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()?.as_socket()
    }

    /// Sets how long [`accept`](Self::accept) waits before it returns `WouldBlock`; `None` = for ever. Works on Linux;
    /// other systems may always wait for ever.
    pub(super) fn set_patience(&self, patience: Option<Duration>) {
        // Without it, a refused connection is kept for longer.
        let _ = self.socket.set_read_timeout(patience);
    }

    /// Blocks until a connection arrives or [`wake`](Self::wake) is called.
    pub(super) fn accept(&self) -> io::Result<Arrival> {
        let (socket, addr) = self.socket.accept()?;
        let transport = if self.is_tcp { Transport::tcp(socket) } else { Transport::unix(socket) };
        #[cfg(feature = "tls")]
        let transport = if let Some(tls) = &self.tls { transport.tls(tls)? } else { transport };
        Ok(Arrival { transport, peer: addr.as_socket(), has_proxy_header: self.has_proxy_header })
    }

    /// As [`accept`](Self::accept), but returns `WouldBlock` if no connection is waiting.
    pub(super) fn accept_waiting(&self) -> io::Result<Transport> {
        self.socket.set_nonblocking(true)?;
        let accepted = self.socket.accept();
        self.socket.set_nonblocking(false)?;
        let (socket, _) = accepted?;
        // On some systems an accepted socket inherits the mode.
        socket.set_nonblocking(false)?;
        // The connection will be refused, so neither the family's options nor TLS matter.
        Ok(Transport::unix(socket))
    }

    /// Removes the socket file, at most once.
    pub(super) fn remove_file(&self) {
        if let Some(path) = self.path.lock().take() {
            // Another program may have removed it.
            let _ = fs::remove_file(path);
        }
    }

    /// Ends listening: a blocked accept returns an error.
    pub(super) fn wake(&self) {
        let wakes_by_itself = cfg!(any(target_os = "linux", target_os = "android"));
        if wakes_by_itself {
            // Before listening ends, because a successor may then take over the path.
            self.remove_file();
        }
        let _ = SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both);
        // On systems where `shutdown` on a listening socket does not wake `accept`, a connection does.
        if !wakes_by_itself {
            let _ = match (&*self.path.lock(), self.local_addr()) {
                (Some(path), _) => UnixStream::connect(path).map(drop),
                (None, Some(addr)) => std::net::TcpStream::connect(addr).map(drop),
                (None, None) => Ok(()),
            };
        }
    }
}

/// An accepted connection.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) transport: Transport,
    /// From `accept`, because the system forgets the address of a peer that is gone. `None` for Unix sockets.
    pub(super) peer: Option<SocketAddr>,
    /// The connection begins with a header of the PROXY protocol.
    pub(super) has_proxy_header: bool,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_file();
    }
}

impl From<TcpListener> for Listener {
    /// Sets the listener to blocking mode.
    fn from(listener: TcpListener) -> Self {
        // Fails only for an invalid descriptor.
        let _ = listener.set_nonblocking(false);
        Self::new(listener.into(), true)
    }
}

impl From<UnixListener> for Listener {
    /// Sets the listener to blocking mode. Its socket file stays when the server ends.
    fn from(listener: UnixListener) -> Self {
        let _ = listener.set_nonblocking(false);
        Self::new(listener.into(), false)
    }
}

/// Whether the path is a socket file that refuses connections. Connecting to a file of another kind is refused as well.
fn is_stale(path: &Path) -> bool {
    let is_socket = fs::metadata(path).is_ok_and(|m| m.file_type().is_socket());
    is_socket && UnixStream::connect(path).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused)
}
