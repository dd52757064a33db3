//! Where the clients connect to: `ws://HOST[:PORT][/PATH][?QUERY]`.

use std::fmt::{self, Display};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

/// How long one address of a name may take to accept a connection, where the name has several.
const CONNECT_TIME: Duration = Duration::from_secs(3);

/// An address and what the requests say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    /// Host and port as given, for the `Host` header.
    host: String,
    /// Path and query.
    target: String,
    pub(crate) addr: SocketAddr,
}

impl Url {
    /// Looks the host up, and tries its addresses in turn where there are several; this blocks.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as a sentence for the user.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let rest = match text.split_once("://") {
            Some(("ws", rest)) => rest,
            Some(("wss", _)) => return Err("wss: the load test speaks no TLS; use ws://".into()),
            _ => return Err(format!("{text:?} is not of the form ws://HOST:PORT/PATH")),
        };
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
            return Err(format!("{odd:?} may not stand in a URL here"));
        }
        let (host, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let lookup = if has_port { host.to_owned() } else { format!("{host}:80") };
        let found = lookup.to_socket_addrs().map_err(|error| format!("{host:?}: {error}"))?;
        let addr = choose(&found.collect::<Vec<_>>()).ok_or_else(|| format!("{host:?} has no address"))?;
        Ok(Self { host: host.to_owned(), target, addr })
    }

    /// The same server at another path.
    pub(crate) fn at(addr: SocketAddr, path: &str) -> Self {
        Self { host: addr.to_string(), target: path.to_owned(), addr }
    }

    /// The same with `room=NUMBER` in its query.
    pub(crate) fn room(&self, number: usize) -> Self {
        let and = if self.target.contains('?') { '&' } else { '?' };
        Self { target: format!("{}{and}room={number}", self.target), ..self.clone() }
    }

    /// The request that begins a connection. Its key is always the same: nothing here is a secret.
    pub(crate) fn upgrade(&self) -> String {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n",
            self.target, self.host
        )
    }
}

/// The first address that accepts a connection. If none does, or there is only one, the first: clients then report why
/// they cannot connect. A single address is not tried, because a server may take the attempt for a client.
fn choose(addrs: &[SocketAddr]) -> Option<SocketAddr> {
    let accepts = |addr: &&SocketAddr| TcpStream::connect_timeout(addr, CONNECT_TIME).is_ok();
    let accepting = if addrs.len() > 1 { addrs.iter().find(accepts) } else { None };
    accepting.or(addrs.first()).copied()
}

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
/// The answer to that key.
pub(crate) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

impl Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ws://{}{}", self.host, self.target)
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn every_address_of_a_name_is_tried() {
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = |listener: &TcpListener| listener.local_addr().unwrap();
        // Bound at one time, so that their ports differ; then two of them are closed.
        let (first, second, open) = (listen(), listen(), listen());
        let (closed, open_addr) = ([addr(&first), addr(&second)], addr(&open));
        drop((first, second));
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&closed), Some(closed[0]));
        assert_eq!(choose(&closed[1..]), Some(closed[1]));
        assert_eq!(choose(&[closed[0], closed[1], open_addr]), Some(open_addr));
        assert_eq!(choose(&[open_addr, closed[0]]), Some(open_addr));
        // It is tried only where there is a choice.
        open.set_nonblocking(true).unwrap();
        while open.accept().is_ok() {}
        assert_eq!(choose(&[open_addr]), Some(open_addr));
        assert!(open.accept().is_err());
    }

    #[test]
    fn urls_are_taken_apart() {
        for (text, shown, port) in [
            ("ws://127.0.0.1:8080/ws", "ws://127.0.0.1:8080/ws", 8080),
            ("ws://127.0.0.1", "ws://127.0.0.1/", 80),
            ("ws://127.0.0.1?a=b", "ws://127.0.0.1/?a=b", 80),
            ("ws://[::1]:9/x?y=z", "ws://[::1]:9/x?y=z", 9),
            ("ws://[::1]", "ws://[::1]/", 80),
        ] {
            let url = Url::parse(text).unwrap();
            assert_eq!((url.to_string().as_str(), url.addr.port()), (shown, port));
        }
        for text in ["", "localhost", "http://127.0.0.1", "wss://127.0.0.1", "ws://", "ws://127.0.0.1:x/", "ws://1 2/"]
        {
            assert!(Url::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn rooms_go_into_the_query() {
        let room = |text: &str| Url::parse(text).unwrap().room(7).to_string();
        assert_eq!(room("ws://127.0.0.1:1/ws"), "ws://127.0.0.1:1/ws?room=7");
        assert_eq!(room("ws://127.0.0.1:1/ws?a=b"), "ws://127.0.0.1:1/ws?a=b&room=7");
    }
}
