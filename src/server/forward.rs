//! Forwards plain requests to another HTTP server, so that both are reached on one port.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use super::routes::Request;
use crate::bounds::{MILLISECOND, YEAR, check_or_zero};
use crate::error::ConfigError;
use crate::guard::record;
use crate::http::{RequestHead, Response};
use crate::log_limit::LogLimit;

/// Maximum size of a forwarded answer, in bytes.
const MAX_ANSWER: u64 = 64 * 1024 * 1024;
/// Headers that belong to one connection (RFC 9110 §7.6.1), and headers that this side writes itself.
const OWN: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "expect",
];

static FAILURES: LogLimit = LogLimit::new();

/// Forwards plain requests to another HTTP server, for [`Server::fallback`](crate::Server::fallback). It is for
/// programs on a library that does not hand out its sockets, such as `tiny_http` or `rouille`. The hub's server listens
/// in front, upgrades requests for the hub, and forwards the rest.
///
/// ```no_run
/// use wshub::server::Forward;
/// use wshub::{Hub, Server};
///
/// // The program's own server, on the loopback, where no other machine reaches it.
/// let own = std::net::SocketAddr::from(([127, 0, 0, 1], 8081));
/// let forward = Forward::tcp(own)?;
/// Server::bind("0.0.0.0:8080")?
///     .websocket("/ws", &Hub::new())
///     .fallback(move |request| forward.answer(request))
///     .run()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Each request gets a connection. The client's address is added to `X-Forwarded-For`. Bodies are held in memory, the
/// request's of up to [`Server::max_body`](crate::Server::max_body) and the answer's of up to 64 MiB. A server that
/// does not answer within the timeout makes a 504, one that cannot be reached or answers nonsense a 502.
#[derive(Debug, Clone)]
pub struct Forward {
    to: Destination,
    timeout: Duration,
}

#[derive(Debug, Clone)]
enum Destination {
    Tcp(Vec<std::net::SocketAddr>),
    Unix(PathBuf),
}

/// A connection to the other server.
trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Forward {
    /// Forwards to a server on a TCP address, which is resolved once.
    ///
    /// # Errors
    ///
    /// The address cannot be resolved.
    pub fn tcp(addr: impl ToSocketAddrs) -> io::Result<Self> {
        Ok(Self::to(Destination::Tcp(addr.to_socket_addrs()?.collect())))
    }

    /// Forwards to a server on a Unix socket.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        Self::to(Destination::Unix(path.into()))
    }

    fn to(to: Destination) -> Self {
        Self { to, timeout: Duration::from_secs(30) }
    }

    /// Sets how long the other server may send nothing, or take nothing. Default: 30 s. 1 ms to 366 days; 0 or
    /// [`Duration::MAX`] = for ever.
    ///
    /// # Errors
    ///
    /// A [`ConfigError`] for a timeout outside of these bounds.
    pub fn timeout(mut self, timeout: Duration) -> Result<Self, ConfigError> {
        check_or_zero("timeout", timeout, MILLISECOND..=YEAR)?;
        self.timeout = if timeout == Duration::MAX { Duration::ZERO } else { timeout };
        Ok(self)
    }

    /// Forwards the request and waits for the answer. Blocks.
    pub fn answer(&self, request: &Request) -> Response {
        let error = match self.exchange(request) {
            Ok(response) => return response,
            Err(error) => error,
        };
        if let Some(suppressed) = FAILURES.pass() {
            record!(
                Warn,
                "wshub::server",
                "forwarding to {:?} failed: {error} ({suppressed} more not logged)",
                self.to
            );
        }
        if crate::transport::is_timeout(&error) {
            Response::text(504, "gateway timeout\n")
        } else {
            Response::text(502, "bad gateway\n")
        }
    }

    fn exchange(&self, request: &Request) -> io::Result<Response> {
        let mut stream = self.connect()?;
        stream.write_all(&to_bytes(request))?;
        let mut answer = Vec::new();
        // The other server is asked to close. If it does not, the answer's length tells where the answer ends.
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let n = stream.read(&mut chunk)?;
            answer.extend_from_slice(&chunk[..n]);
            if answer.len() as u64 > MAX_ANSWER {
                return Err(io::Error::other(format!("answer of more than {MAX_ANSWER} bytes")));
            }
            if let Some(response) =
                Response::parse(&answer, request.head().method() == "HEAD", n == 0).map_err(io::Error::other)?
            {
                return Ok(response);
            }
            if n == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let timeout = Some(self.timeout).filter(|timeout| !timeout.is_zero());
        Ok(match &self.to {
            Destination::Tcp(addrs) => {
                let stream = TcpStream::connect(&addrs[..])?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Box::new(stream)
            }
            Destination::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(timeout)?;
                stream.set_write_timeout(timeout)?;
                Box::new(stream)
            }
        })
    }
}

/// The forwarded request: with new framing and the client's address.
fn to_bytes(request: &Request) -> Vec<u8> {
    let head = request.head();
    let mut bytes = format!("{} {} HTTP/1.1\r\n", head.method(), head.target()).into_bytes();
    let mut push = |name: &str, value: &[u8]| bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    for (name, value) in head.header_lines().filter(|(name, _)| !is_own(head, name)) {
        push(name, value);
    }
    if let Some(addr) = head.remote_addr() {
        push("X-Forwarded-For", addr.ip().to_canonical().to_string().as_bytes());
    }
    if head.header("host").is_none() {
        push("Host", b"");
    }
    let has_body = !request.body().is_empty() || head.header("content-length").is_some();
    if has_body || head.header("transfer-encoding").is_some() {
        push("Content-Length", request.body().len().to_string().as_bytes());
    }
    push("Connection", b"close");
    bytes.extend(b"\r\n");
    bytes.extend(request.body());
    bytes
}

/// Whether the header belongs to this connection, by its name or because `Connection` lists it.
fn is_own(head: &RequestHead, name: &str) -> bool {
    OWN.iter().any(|own| name.eq_ignore_ascii_case(own)) || head.has_token("connection", name)
}
