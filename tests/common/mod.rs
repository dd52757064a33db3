//! A WebSocket client of a few lines, so that tests can also say what no decent client would; and a server to say it
//! to. Every read has a deadline.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part, and a test may fail by a panic")]

pub(crate) mod broker;
#[cfg(feature = "cluster")]
pub(crate) mod bus;
pub(crate) mod limits;
mod link;
#[cfg(feature = "dashboard")]
pub(crate) mod operator;
pub(crate) mod over_tls;
pub(crate) mod proxy;
pub(crate) mod skip;
pub(crate) mod stream;
#[cfg(feature = "tls")]
pub(crate) mod tls;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use wshub::metrics::{DebugMetrics, ErrorType};
use wshub::server::Listener;
use wshub::{Client, Config, Hub, HubBuilder, Message, RequestHead, Server, ServerHandle};

#[allow(unused_imports, reason = "each test file uses a part")]
pub(crate) use link::{Link, accept};

/// The tests run on an emulated processor.
const IS_SLOW: bool = option_env!("WSHUB_TEST_SLOW").is_some();
/// No test waits longer than this for anything that is going to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(if IS_SLOW { 200 } else { 20 });
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// A server on a free port of the loopback; it is shut down when dropped. With `WSHUB_TEST_TLS` in the environment it
/// speaks TLS, and `addr` is a bridge to it for clients that do not.
pub(crate) struct TestServer {
    pub(crate) hub: Hub,
    pub(crate) addr: SocketAddr,
    pub(crate) handle: ServerHandle,
}

impl TestServer {
    /// Serves the hub at `/ws`, with probes.
    pub(crate) fn new(builder: HubBuilder) -> Self {
        Self::with(builder, |server| server)
    }

    pub(crate) fn with(builder: HubBuilder, change: impl FnOnce(Server) -> Server) -> Self {
        Self::of(builder.build().unwrap(), change)
    }

    /// Serves a hub that exists.
    pub(crate) fn of(hub: Hub, change: impl FnOnce(Server) -> Server) -> Self {
        let listener = over_tls::listener(Listener::tcp("127.0.0.1:0").unwrap());
        let handle = change(Server::on(listener).websocket("/ws", &hub).probes(&hub)).spawn().unwrap();
        let addr = over_tls::address(handle.local_addr().unwrap());
        Self { hub, addr, handle }
    }

    pub(crate) fn connect(&self) -> WsClient {
        self.connect_to("/ws")
    }

    /// Connects to a path with a query, such as `/ws?user=ann`.
    pub(crate) fn connect_to(&self, target: &str) -> WsClient {
        WsClient::connect(self.addr, target, "")
    }

    /// Whether it still accepts connections: the server, not the bridge.
    pub(crate) fn listens(&self) -> bool {
        TcpStream::connect(self.handle.local_addr().unwrap()).is_ok()
    }

    /// Connects, and finds the hub's handle of this connection.
    pub(crate) fn pair(&self) -> (WsClient, Client) {
        self.pair_to("/ws")
    }

    pub(crate) fn pair_to(&self, target: &str) -> (WsClient, Client) {
        let before = self.hub.clients();
        let socket = self.connect_to(target);
        let client = self.hub.clients().into_iter().find(|c| !before.contains(c)).unwrap();
        (socket, client)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        let _ = self.handle.shutdown(Duration::from_secs(5));
    }
}

/// One received frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    /// FIN, reserved bits and opcode, as [`TEXT`].
    pub(crate) first: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(&self) -> &str {
        assert_eq!(self.first, TEXT, "{self:?}");
        std::str::from_utf8(&self.payload).unwrap()
    }

    /// Close code and reason.
    pub(crate) fn close(&self) -> (u16, &str) {
        assert_eq!(self.first, CLOSE, "{self:?}");
        let (code, reason) = self.payload.split_at(2);
        (u16::from_be_bytes([code[0], code[1]]), std::str::from_utf8(reason).unwrap())
    }
}

/// A client connection.
pub(crate) struct WsClient {
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

impl WsClient {
    /// Connects and expects the 101. `headers` are further header lines, each with its CR LF.
    pub(crate) fn connect(addr: SocketAddr, target: &str, headers: &str) -> Self {
        let (head, client) = Self::try_connect(addr, target, headers);
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        assert!(head.contains(&format!("\r\nSec-WebSocket-Accept: {ACCEPT}\r\n")), "{head}");
        client
    }

    /// Connects and gives the response head.
    pub(crate) fn try_connect(addr: SocketAddr, target: &str, headers: &str) -> (String, Self) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {addr}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{headers}\r\n"
        );
        let mut stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut client = Self::on(stream);
        let head = client.read_head();
        (head, client)
    }

    /// A client on a stream of which nothing has been read.
    pub(crate) fn on(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// Reads a response head.
    pub(crate) fn read_head(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            assert!(self.fill(deadline), "closed before the response: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    pub(crate) fn send_text(&mut self, text: &str) {
        self.send_frame(TEXT, text.as_bytes());
    }

    pub(crate) fn send_frame(&mut self, first: u8, payload: &[u8]) {
        self.stream.write_all(&client_frame(first, payload)).unwrap();
    }

    pub(crate) fn send_close(&mut self, code: u16) {
        self.send_frame(CLOSE, &code.to_be_bytes());
    }

    /// The next frame; panics at the end of the stream.
    pub(crate) fn frame(&mut self) -> Frame {
        self.next_frame().expect("the server closed the connection")
    }

    /// The next frame, or `None` at the end of the stream (also by a reset).
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some((frame, used)) = parse(&self.buffer) {
                self.buffer.drain(..used);
                // What takes a moment elsewhere may last until the server pings.
                if IS_SLOW && frame.first == PING {
                    self.send_frame(PONG, &frame.payload);
                    continue;
                }
                return Some(frame);
            }
            if !self.fill(deadline) {
                return None;
            }
        }
    }

    /// The next text message, pings aside.
    pub(crate) fn text(&mut self) -> String {
        loop {
            let frame = self.frame();
            if frame.first != PING {
                return frame.text().to_owned();
            }
        }
    }

    /// Waits until the server has handled everything sent so far.
    pub(crate) fn sync(&mut self) {
        self.send_frame(PING, b"sync");
        assert_eq!(self.frame(), Frame { first: PONG, payload: b"sync".to_vec() });
    }

    /// All texts before the next `"end"`.
    pub(crate) fn texts_until_end(&mut self) -> Vec<String> {
        std::iter::from_fn(|| Some(self.text()).filter(|text| text != "end")).collect()
    }

    /// Everything up to the end of the stream must be nothing.
    pub(crate) fn expect_end(&mut self) {
        let next = self.next_frame();
        assert_eq!(next, None);
    }

    /// Reads the close frame, answers it, and expects the end; gives code and reason.
    pub(crate) fn expect_close(&mut self) -> (u16, String) {
        let frame = self.frame();
        let (code, reason) = frame.close();
        let result = (code, reason.to_owned());
        let _ = self.stream.write_all(&client_frame(CLOSE, &code.to_be_bytes()));
        self.expect_end();
        result
    }

    /// Closes normally and waits for the end.
    pub(crate) fn close(mut self) {
        self.send_close(1000);
        while self.next_frame().is_some() {}
    }

    /// Everything up to the end of the stream, as it comes: the body of an HTTP answer.
    pub(crate) fn bytes_until_end(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.fill(deadline) {}
        std::mem::take(&mut self.buffer)
    }

    /// Waits for that long; nothing may come.
    pub(crate) fn wait_quietly(&mut self, duration: Duration) {
        self.stream.set_read_timeout(Some(duration)).unwrap();
        let result = self.stream.read(&mut [0; 1]);
        let kind = result.map_err(|e| e.kind());
        assert!(matches!(kind, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "{kind:?}");
    }

    fn fill(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        assert!(!left.is_zero(), "nothing came in {PATIENCE:?}; so far {} bytes", self.buffer.len());
        self.stream.set_read_timeout(Some(left)).unwrap();
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => {
                // As every client does; the server waits for it.
                let _ = self.stream.shutdown(Shutdown::Write);
                false
            }
            Ok(n) => {
                self.buffer.extend_from_slice(&chunk[..n]);
                true
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => false,
            // An emulated process sees more signals than it has asked for.
            Err(e) if e.kind() == ErrorKind::Interrupted => true,
            Err(e) => panic!("reading: {e}; so far {} bytes", self.buffer.len()),
        }
    }
}

/// A masked client frame.
pub(crate) fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | u8::try_from(n).unwrap()),
        n @ 126..65_536 => {
            out.push(0xfe);
            out.extend(u16::try_from(n).unwrap().to_be_bytes());
        }
        n => {
            out.push(0xff);
            out.extend((n as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(b, m)| b ^ m));
    out
}

/// The server frame at the front of `bytes`, and its length.
fn parse(bytes: &[u8]) -> Option<(Frame, usize)> {
    let (head, len) = match bytes.get(1)? {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).unwrap()),
        n @ 0..126 => (2, usize::from(*n)),
        _ => panic!("a masked server frame"),
    };
    let payload = bytes.get(head..head + len)?.to_vec();
    Some((Frame { first: bytes[0], payload }, head + len))
}

/// Sends raw bytes, ends the writing direction, and reads all that comes back.
pub(crate) fn exchange(addr: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(addr).unwrap();
    // The server may answer and close before it has all: then writing fails, and the answer still counts.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(Shutdown::Write);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut chunk) {
        answer.extend_from_slice(&chunk[..n]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// The head of an upgrade request, for programs that read requests themselves.
pub(crate) fn upgrade_head(path: &str) -> RequestHead {
    let headers = [
        ("Host", "x"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", KEY),
        ("Sec-WebSocket-Version", "13"),
    ];
    RequestHead::from_parts("GET", path, headers).unwrap()
}

/// A request with the five headers of an upgrade, changed: `Name: value` replaces the header of that name or adds it,
/// `+Name: value` adds it in any case, `-Name` leaves it out.
pub(crate) fn upgrade_request(line: &str, changes: &[&str]) -> String {
    let mut headers: Vec<String> =
        ["Host: a", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"].map(str::to_owned).into();
    headers.push(format!("Sec-WebSocket-Key: {KEY}"));
    for change in changes {
        let added = change.trim_start_matches(['+', '-']);
        let name = format!("{}:", added.split(':').next().unwrap());
        if !change.starts_with('+') {
            headers.retain(|h| !h.starts_with(&name));
        }
        if !change.starts_with('-') {
            headers.push(added.to_owned());
        }
    }
    format!("{line}\r\n{}\r\n\r\n", headers.join("\r\n"))
}

/// The status of the only response in `answer`; 0 if there is none.
pub(crate) fn status(answer: &str) -> u16 {
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "more than one response: {answer}");
    answer.strip_prefix("HTTP/1.1 ").map_or(0, |rest| rest[..3].parse().unwrap())
}

/// The hub's metrics, and the builder that uses them.
pub(crate) fn counted(builder: HubBuilder) -> (Arc<DebugMetrics>, HubBuilder) {
    let metrics = Arc::new(DebugMetrics::new());
    (Arc::clone(&metrics), builder.metrics(metrics))
}

/// How often an error has been counted.
pub(crate) fn errors(metrics: &DebugMetrics, error: ErrorType) -> u64 {
    metrics.stats().errors.get(&error).copied().unwrap_or(0)
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "not in {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What has happened, in order, told from any thread.
#[derive(Debug, Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    pub(crate) fn add(&self, entry: impl Into<String>) {
        self.0.lock().unwrap().push(entry.into());
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    /// Gives all entries and forgets them.
    pub(crate) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    pub(crate) fn has(&self, entry: &str) -> bool {
        self.all().iter().any(|e| e == entry)
    }

    /// Waits until the entry is there.
    pub(crate) fn wait(&self, entry: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.has(entry) {
            assert!(Instant::now() < deadline, "{entry:?} did not come in {PATIENCE:?}: {:?}", self.all());
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// For [`stall`]: a queue that holds more than the sockets do.
pub(crate) fn deep_queue(config: Config) -> Config {
    config.queue_messages(256).queue_bytes(128 * 1024 * 1024)
}

/// Fills the queue of a client that does not read, with large binary messages; says how many. The queue is a
/// [`deep_queue`], so the kernel's buffers cannot swallow it.
pub(crate) fn stall(client: &Client) -> usize {
    let large = Message::binary(vec![0; 256 * 1024]);
    std::iter::repeat_with(|| client.send(large.clone())).take_while(Result::is_ok).count()
}

/// `GET`s a path; gives status and body.
pub(crate) fn get(addr: SocketAddr, path: &str) -> (u16, String) {
    let answer = exchange(addr, format!("GET {path} HTTP/1.1\r\nHost: {addr}\r\n\r\n").as_bytes());
    split_answer(&answer)
}

/// Status and body of an HTTP answer.
pub(crate) fn split_answer(answer: &str) -> (u16, String) {
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).and_then(|digits| digits.parse().ok());
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer:?}"));
    (status.unwrap_or_else(|| panic!("no status: {answer:?}")), body.to_owned())
}

/// Threads of this process that belong to the crate.
pub(crate) fn crate_threads() -> Vec<String> {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("wshub-")).collect()
}

/// A small generator, so that a run can vary without a dependency (xorshift).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % end
    }
}
