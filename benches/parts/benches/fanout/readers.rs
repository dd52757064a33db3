//! The clients' side: one thread that reads for all of them and tells when the last has everything.

use std::io::{ErrorKind, Read};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

/// One message at a time is under way, so what has come tells which message it is.
pub(crate) struct Readers {
    /// Bytes that every client is to have got. Raised before the send, whose bytes the thread looks for: Release and
    /// Acquire, so that who sees the bytes sees it raised.
    due: Arc<AtomicUsize>,
    complete: Receiver<Instant>,
}

impl Readers {
    pub(crate) fn new(streams: Vec<TcpStream>) -> Self {
        let (tell, complete) = channel();
        let due = Arc::new(AtomicUsize::new(0));
        let mut thread = Thread::new(streams, Arc::clone(&due), tell);
        thread::spawn(move || thread.run());
        Self { due, complete }
    }

    /// The time from the call of `send` until every client has so many bytes more.
    pub(crate) fn time(&self, bytes: usize, send: impl FnOnce()) -> Duration {
        self.due.fetch_add(bytes, Ordering::Release);
        let started = Instant::now();
        send();
        self.complete.recv_timeout(Duration::from_secs(20)).expect("not every client has everything") - started
    }

    /// What comes from now on is not looked at.
    pub(crate) fn ignore(&self) {
        self.due.store(usize::MAX, Ordering::Release);
    }
}

struct Thread {
    poll: Poll,
    /// Each with the bytes that it has got.
    clients: Vec<(mio::net::TcpStream, usize)>,
    due: Arc<AtomicUsize>,
    /// Clients that have everything.
    done: usize,
    tell: Sender<Instant>,
    buffer: Vec<u8>,
}

impl Thread {
    fn new(streams: Vec<TcpStream>, due: Arc<AtomicUsize>, tell: Sender<Instant>) -> Self {
        let poll = Poll::new().unwrap();
        let register = |(at, stream): (usize, TcpStream)| {
            stream.set_nonblocking(true).unwrap();
            let mut stream = mio::net::TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(at), Interest::READABLE).unwrap();
            (stream, 0)
        };
        let clients = streams.into_iter().enumerate().map(register).collect();
        Self { poll, clients, due, done: 0, tell, buffer: vec![0; 64 * 1024] }
    }

    /// Until the first connection ends: then the others are about to.
    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        loop {
            match self.poll.poll(&mut events, None) {
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                result => result.unwrap(),
            }
            if events.iter().any(|event| self.read(event.token().0)) {
                return;
            }
            if self.done == self.clients.len() {
                self.done = 0;
                let _ = self.tell.send(Instant::now());
            }
        }
    }

    /// Reads what there is; true at the end of the connection.
    fn read(&mut self, at: usize) -> bool {
        let (stream, got) = &mut self.clients[at];
        loop {
            match stream.read(&mut self.buffer) {
                Ok(0) => return true,
                Ok(n) => {
                    *got += n;
                    let due = self.due.load(Ordering::Acquire);
                    assert!(*got <= due, "a client has got more than was sent");
                    self.done += usize::from(*got == due);
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return true,
            }
        }
    }
}
