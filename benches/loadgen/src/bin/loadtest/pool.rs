//! All connections on one thread: opens them, reads them, and tells a [`Watcher`] what came.

use std::io::{self, ErrorKind, Read as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Socket, Type};

use super::frame::{CLOSE, PONG};
use super::inbox::{Inbox, Item};
use super::link::{Link, Phase};
use super::url::{ACCEPT, Url};

const SCRATCH: usize = 64 * 1024;
const MAX_HEAD: usize = 16 * 1024;
/// What a client that never reads lets into its kernel: the least there is, and in small segments, so that the server's
/// side is soon full as well.
const STALLED_BUFFER: usize = 1;
const STALLED_SEGMENT: u32 = 536;

/// Hears of what happens, on the thread that calls [`Pool::turn`].
pub(crate) trait Watcher {
    /// The server has agreed, this long after the connection was begun.
    fn opened(&mut self, link: &mut Link, took: Duration);
    /// A message came, at this time on the pool's clock.
    fn message(&mut self, link: &mut Link, payload: &[u8], at: u64);
    /// The connection is over; why, and whether it had been open.
    fn gone(&mut self, id: usize, was_open: bool, why: &str);
}

#[derive(Debug)]
struct Conn {
    link: Link,
    inbox: Inbox,
}

#[derive(Debug)]
pub(crate) struct Pool {
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn>>,
    /// Ids from here on are used again.
    residents: usize,
    free: Vec<usize>,
    /// What is read lands here; only what is not whole is kept with its connection.
    scratch: Vec<u8>,
    clock: Clock,
}

/// Counts nanoseconds from when its pool was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn nanos(self) -> u64 {
        self.0.elapsed().as_nanos() as u64
    }
}

impl Pool {
    /// For this many clients that stay: their ids, from 0, are never another's.
    pub(crate) fn new(residents: usize) -> io::Result<Self> {
        let (poll, events) = (Poll::new()?, Events::with_capacity(4096));
        let clock = Clock(Instant::now());
        Ok(Self { poll, events, conns: Vec::new(), residents, free: Vec::new(), scratch: vec![0; SCRATCH], clock })
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock
    }

    /// Begins a connection and gives its id: the next number, or that of a visitor who has gone. One that does not read
    /// stalls the server.
    ///
    /// # Errors
    ///
    /// Of the system, such as too few descriptors or local ports.
    pub(crate) fn open(&mut self, url: &Url, reads: bool) -> io::Result<usize> {
        let id = self.free.pop().unwrap_or(self.conns.len());
        let mut stream = connect(url.addr, id, reads)?;
        self.poll.registry().register(&mut stream, Token(id), Interest::READABLE | Interest::WRITABLE)?;
        let conn = Conn { link: Link::new(id, stream, url.upgrade(), reads), inbox: Inbox::default() };
        match self.conns.get_mut(id) {
            Some(place) => *place = Some(conn),
            None => self.conns.push(Some(conn)),
        }
        Ok(id)
    }

    pub(crate) fn link(&mut self, id: usize) -> Option<&mut Link> {
        self.conns.get_mut(id)?.as_mut().map(|conn| &mut conn.link)
    }

    /// Drops a connection without a word; the watcher does not hear of it.
    pub(crate) fn close(&mut self, id: usize) {
        if self.conns.get_mut(id).and_then(Option::take).is_some() && id >= self.residents {
            self.free.push(id);
        }
    }

    /// Waits until something happens, for `timeout` at most, and handles it.
    pub(crate) fn turn(&mut self, timeout: Duration, watcher: &mut impl Watcher) -> io::Result<()> {
        match self.poll.poll(&mut self.events, Some(timeout)) {
            // A signal: whoever called looks at what it means.
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let id = event.token().0;
            let Some(conn) = self.conns.get_mut(id).and_then(Option::as_mut) else { continue };
            let at = self.clock.nanos();
            if let Err(why) = conn.handle(event, &mut self.scratch, at, watcher) {
                let was_open = conn.link.is_open();
                self.conns[id] = None;
                self.free.extend((id >= self.residents).then_some(id));
                watcher.gone(id, was_open, &why);
            }
        }
        Ok(())
    }
}

/// Begins to connect. On the loopback the sources are 127.0.0.1 to 127.0.0.4 in turn: one address has some 28,000
/// ports.
fn connect(addr: SocketAddr, id: usize, reads: bool) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    if !reads {
        // Before connecting: they bound the window and the segments.
        socket.set_recv_buffer_size(STALLED_BUFFER)?;
        socket.set_tcp_mss(STALLED_SEGMENT)?;
    }
    if addr.ip() == IpAddr::V4(Ipv4Addr::LOCALHOST) {
        let source = Ipv4Addr::new(127, 0, 0, 1 + (id % 4) as u8);
        match socket.bind(&SocketAddr::from((source, 0)).into()) {
            // Not every system has more than the first of them.
            Err(error) if error.kind() != ErrorKind::AddrNotAvailable => return Err(error),
            _ => {}
        }
    }
    match socket.connect(&addr.into()) {
        Err(error) if error.kind() != ErrorKind::WouldBlock && error.raw_os_error() != Some(libc::EINPROGRESS) => {
            Err(error)
        }
        _ => Ok(TcpStream::from_std(socket.into())),
    }
}

impl Conn {
    /// An error is the reason why the connection is over.
    fn handle(&mut self, event: &Event, scratch: &mut [u8], at: u64, watcher: &mut impl Watcher) -> Result<(), String> {
        if let Phase::Connecting(_) = self.link.phase {
            self.ask()?;
        } else if event.is_writable() {
            self.link.flush();
        }
        if event.is_readable() && !matches!(self.link.phase, Phase::Connecting(_)) {
            // The end of the stream is told once: with it, read on to the end.
            self.read(event.is_read_closed(), scratch, at, watcher)?;
        }
        Ok(())
    }

    /// Sends the request once there is a connection.
    fn ask(&mut self) -> Result<(), String> {
        if let Some(error) = self.link.stream.take_error().map_err(|error| error.to_string())? {
            return Err(error.to_string());
        }
        if self.link.stream.peer_addr().is_err() {
            return Ok(());
        }
        let phase = std::mem::replace(&mut self.link.phase, Phase::Asking(Vec::new()));
        if let Phase::Connecting(request) = phase {
            self.link.send(request.as_bytes());
        }
        Ok(())
    }

    fn read(&mut self, to_end: bool, scratch: &mut [u8], at: u64, watcher: &mut impl Watcher) -> Result<(), String> {
        while self.link.reads || !self.link.is_open() {
            let count = match self.link.stream.read(scratch) {
                Ok(0) => return Err("the server closed the connection".into()),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.to_string()),
            };
            self.take(&scratch[..count], at, watcher)?;
            // The socket is empty; what comes now is a new event.
            if count < scratch.len() && !to_end {
                return Ok(());
            }
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8], at: u64, watcher: &mut impl Watcher) -> Result<(), String> {
        let Phase::Asking(head) = &mut self.link.phase else { return self.messages(bytes, at, watcher) };
        head.extend(bytes);
        let Some(end) = head.windows(4).position(|w| w == b"\r\n\r\n") else {
            return if head.len() > MAX_HEAD { Err("no end to its answer".into()) } else { Ok(()) };
        };
        let rest = head.split_off(end + 4);
        agreed(&String::from_utf8_lossy(head))?;
        self.link.phase = Phase::Open;
        let took = self.link.started.elapsed();
        watcher.opened(&mut self.link, took);
        if self.link.reads { self.messages(&rest, at, watcher) } else { Ok(()) }
    }

    fn messages(&mut self, bytes: &[u8], at: u64, watcher: &mut impl Watcher) -> Result<(), String> {
        let (link, mut closed) = (&mut self.link, None);
        self.inbox.feed(bytes, |item| match item {
            Item::Message(payload) => watcher.message(link, payload, at),
            Item::Ping(payload) => link.send_frame(PONG, payload),
            Item::Close(code) => closed = Some(code),
        })?;
        let Some(code) = closed else { return Ok(()) };
        self.link.send_frame(CLOSE, &[]);
        Err(format!("the server closed with code {code}"))
    }
}

/// Whether the answer to the upgrade is a yes; otherwise, what it is.
fn agreed(head: &str) -> Result<(), String> {
    let status = head.lines().next().unwrap_or_default();
    if !status.starts_with("HTTP/1.1 101") {
        return Err(format!("the server refused: {:?}", status.chars().take(80).collect::<String>()));
    }
    let is_accept = |line: &str| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim() == ACCEPT)
    };
    match head.lines().find_map(is_accept) {
        Some(true) => Ok(()),
        _ => Err("the server's answer has no good Sec-WebSocket-Accept".into()),
    }
}
