//! Peers that do what no decent client would. Each is a plan that is carried out in small steps, so that a few threads
//! can act for hundreds of them. Whatever fails on this side is part of the game.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use flate2::{Compress, Compression, FlushCompress};
use rustls::StreamOwned;
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::tls::client_side;
use crate::common::{BINARY, PING, Random, TEXT, client_frame, upgrade_request};

/// FIN and RSV1.
const COMPRESSED: u8 = 0xc0;
const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate";
/// What a bomb makes of 32 KiB.
const BOMB: usize = 32 << 20;

/// Where the peers knock.
#[derive(Clone, Copy)]
pub(crate) struct Doors {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
}

#[derive(Default)]
pub(crate) enum Door {
    #[default]
    Plain,
    /// The TLS listener, without TLS.
    Secure,
    /// The TLS listener; TLS up to the answer to the first part, and from there on raw bytes.
    SecureAtFirst,
}

/// How a peer leaves.
#[derive(Clone, Copy)]
pub(crate) enum End {
    Close,
    Reset,
    /// Ends its direction first.
    Finish,
}

/// What a peer is going to do.
#[derive(Default)]
pub(crate) struct Plan {
    door: Door,
    first: Vec<u8>,
    /// Sent when an answer to the first part has come.
    then: Vec<u8>,
    /// One byte a second of the second part, or of the first if there is no second.
    drips: bool,
    /// Leaves everything that comes where it is.
    is_deaf: bool,
}

type Kind = (&'static str, fn(&mut Random) -> Plan);

/// Every way to misbehave, by name.
pub(crate) const KINDS: [Kind; 21] = [
    ("half a request", |random| {
        let request = upgrade();
        let length = random.below(request.len());
        Plan { first: request[..length].to_vec(), ..Plan::default() }
    }),
    ("a request in drips", |_| Plan { first: upgrade(), drips: true, ..Plan::default() }),
    ("garbage for a request", |random| Plan { first: noise(random, 3000), ..Plan::default() }),
    ("nothing", |_| Plan::default()),
    ("deaf in a loud room", |_| {
        let first = upgrade_request("GET /ws?room=din HTTP/1.1", &[]).into_bytes();
        Plan { first, is_deaf: true, ..Plan::default() }
    }),
    ("a deaf event stream", |_| Plan { first: stream(), is_deaf: true, ..Plan::default() }),
    ("garbage on an event stream", |random| speaking(stream(), noise(random, 100_000))),
    ("garbage for frames", |random| speaking(upgrade(), noise(random, 3000))),
    ("a frame in drips", |random| Plan { drips: true, ..speaking(upgrade(), frames(TEXT, &noise(random, 200), 1)) }),
    ("an announcement of 2^63", |random| {
        let length = (1u64 << 63) - random.below(2) as u64;
        speaking(upgrade(), [&[BINARY, 0xff], length.to_be_bytes().as_slice(), &[1; 500]].concat())
    }),
    ("a bomb", |random| {
        let first = if random.below(2) == 0 { TEXT } else { BINARY };
        speaking(deflating(), client_frame(first | COMPRESSED, bomb()))
    }),
    ("a bomb in pieces", |random| {
        let (one, other) = bomb().split_at(1 + random.below(bomb().len() - 1));
        speaking(deflating(), [client_frame(0x02 | 0x40, one), client_frame(0x80, other)].concat())
    }),
    ("half a bomb", |_| {
        let half = client_frame(BINARY | COMPRESSED, &bomb()[..1000]);
        speaking(deflating(), half[..500].to_vec())
    }),
    ("broken deflate", |random| speaking(deflating(), client_frame(TEXT | COMPRESSED, &noise(random, 2000)))),
    ("half a frame", |random| {
        let mut frame = frames(BINARY, &noise(random, 60_000), 1);
        frame.truncate(random.below(frame.len()));
        speaking(upgrade(), frame)
    }),
    ("a flood of pings", |random| Plan {
        is_deaf: random.below(2) == 0,
        ..speaking(upgrade(), frames(PING, &[0; 100], 3000))
    }),
    ("a flood of empty fragments", |_| {
        speaking(upgrade(), [client_frame(0x01, b"a"), frames(0x00, b"", 5000)].concat())
    }),
    ("rooms", |random| {
        let command = |n: usize| {
            let word = if n % 3 == 2 { "leave" } else { "join" };
            client_frame(TEXT, format!("{word} r{}", (n * 7 + random.below(5)) % 200).as_bytes())
        };
        speaking(upgrade(), (0..100usize).flat_map(command).collect())
    }),
    ("no TLS", |random| {
        let first =
            if random.below(2) == 0 { upgrade() } else { [&[0x16, 3, 1, 2, 0][..], &noise(random, 512)].concat() };
        Plan { door: Door::Secure, first, ..Plan::default() }
    }),
    ("half a TLS handshake", |random| {
        let mut hello = Vec::new();
        client_side(&["http/1.1"]).write_tls(&mut hello).unwrap();
        hello.truncate(1 + random.below(hello.len()));
        Plan { door: Door::Secure, first: hello, drips: random.below(2) == 0, ..Plan::default() }
    }),
    ("garbage for TLS records", |random| {
        let drips = random.below(2) == 0;
        let then = [&[0x17, 3, 3, 0x3f, 0][..], &noise(random, 500)].concat();
        Plan { door: Door::SecureAtFirst, drips, ..speaking(upgrade(), then) }
    }),
];

fn speaking(first: Vec<u8>, then: Vec<u8>) -> Plan {
    Plan { first, then, ..Plan::default() }
}

fn upgrade() -> Vec<u8> {
    upgrade_request("GET /ws?room=loud HTTP/1.1", &[]).into_bytes()
}

fn deflating() -> Vec<u8> {
    upgrade_request("GET /ws?room=loud HTTP/1.1", &[OFFER]).into_bytes()
}

fn stream() -> Vec<u8> {
    b"GET /events?room=din HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()
}

fn noise(random: &mut Random, most: usize) -> Vec<u8> {
    (0..=random.below(most)).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

fn frames(first: u8, payload: &[u8], count: usize) -> Vec<u8> {
    client_frame(first, payload).repeat(count)
}

fn bomb() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let mut out = Vec::with_capacity(BOMB / 500);
        Compress::new(Compression::new(6), false).compress_vec(&vec![0; BOMB], &mut out, FlushCompress::Sync).unwrap();
        out
    })
}

/// A connected peer.
pub(crate) struct Peer {
    socket: TcpStream,
    first: Vec<u8>,
    then: Vec<u8>,
    sent: usize,
    drips: bool,
    is_deaf: bool,
    due: Instant,
    until: Instant,
    end: End,
}

impl Peer {
    /// Connects a peer of this kind. One in three leaves at once, the others within eight seconds, those that drip
    /// later: long enough for every deadline of the server.
    pub(crate) fn begin(kind: &Kind, doors: Doors, random: &mut Random) -> std::io::Result<Self> {
        let plan = (kind.1)(random);
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if plan.is_deaf {
            socket.set_recv_buffer_size(4096)?;
        }
        let addr = if matches!(plan.door, Door::Plain) { doors.plain } else { doors.tls };
        socket.connect(&addr.into())?;
        let (mut socket, mut first) = (TcpStream::from(socket), plan.first);
        if matches!(plan.door, Door::SecureAtFirst) {
            socket = encrypted(socket, &first)?;
            first.clear();
        }
        socket.set_nonblocking(true)?;
        let longest = if plan.drips { 14_000 } else { 8000 };
        let life = if random.below(3) == 0 { 0 } else { random.below(longest) };
        let now = Instant::now();
        let end = [End::Close, End::Reset, End::Finish][random.below(3)];
        let Plan { then, drips, is_deaf, .. } = plan;
        let until = now + Duration::from_millis(u64::try_from(life).unwrap());
        Ok(Self { socket, first, then, sent: 0, drips, is_deaf, due: now, until, end })
    }

    /// Goes on; false when the peer has left.
    pub(crate) fn step(&mut self, now: Instant) -> bool {
        let is_alive = (now < self.due || self.speak(now)) && (self.is_deaf || self.listen());
        if is_alive && now < self.until {
            return true;
        }
        match self.end {
            End::Close => {}
            End::Reset => drop(SockRef::from(&self.socket).set_linger(Some(Duration::ZERO))),
            End::Finish => drop(self.socket.shutdown(Shutdown::Write)),
        }
        false
    }

    fn speak(&mut self, now: Instant) -> bool {
        let part = if self.sent < self.first.len() {
            &self.first[self.sent..]
        } else if self.has_answer() {
            &self.then[self.sent - self.first.len()..]
        } else {
            return true;
        };
        if part.is_empty() {
            return true;
        }
        let quick = if self.then.is_empty() { 0 } else { self.first.len() };
        let is_dripping = self.drips && self.sent >= quick;
        let part = if is_dripping { &part[..1] } else { &part[..part.len().min(40_000)] };
        match self.socket.write(part) {
            Ok(n) => {
                self.sent += n;
                self.due = if is_dripping { now + Duration::from_secs(1) } else { now };
                true
            }
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        }
    }

    /// Something has come, or had come when the first part was over.
    fn has_answer(&mut self) -> bool {
        self.sent > self.first.len() || self.first.is_empty() || self.socket.peek(&mut [0]).is_ok_and(|n| n > 0)
    }

    fn listen(&mut self) -> bool {
        // The answer is left where it is until it has been seen.
        if self.sent <= self.first.len() && !self.then.is_empty() && !self.first.is_empty() {
            return !matches!(self.socket.peek(&mut [0]), Ok(0));
        }
        let mut sink = [0; 16 * 1024];
        loop {
            match self.socket.read(&mut sink) {
                Ok(0) => return false,
                Ok(_) => {}
                Err(e) => return e.kind() == ErrorKind::WouldBlock,
            }
        }
    }
}

/// The socket after a TLS handshake, an encrypted request and the first bytes of the answer.
fn encrypted(socket: TcpStream, request: &[u8]) -> std::io::Result<TcpStream> {
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut tls = StreamOwned::new(client_side(&["http/1.1"]), socket);
    tls.write_all(request)?;
    tls.read_exact(&mut [0])?;
    Ok(tls.sock)
}
