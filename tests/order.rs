//! One sender's messages arrive in order, complete and once, whichever thread writes them: the sender, another sender,
//! the end of a cork or the writer thread.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use common::{BINARY, Link, TEXT, TestServer, WsClient, accept, eventually};
use wshub::{Client, Config, Hub, Message, Target};

const SENDERS: usize = 8;

/// How eight threads send to one client.
#[derive(Clone)]
struct Case {
    link: Link,
    config: Config,
    /// Messages of each sender.
    messages: usize,
    /// Messages under one cork; 0 = no cork.
    cork: usize,
    /// The sender's nth message has this size at least (its label may need more); 0 = empty.
    size: fn(usize) -> usize,
    /// The reader rests after so many frames, until something has piled up or everything is sent; 0 = it never rests.
    rest_after: usize,
}

impl Case {
    fn new(link: Link) -> Self {
        let config = Config::default().queue_messages(1_000_000).queue_bytes(1 << 30);
        Self { link, config, messages: 3000, cork: 0, size: |n| 20 + n % 100, rest_after: 0 }
    }

    /// Sends and checks.
    fn run(self) {
        let hub = Hub::builder().config(self.config.clone()).build().unwrap();
        let (mut reader, client) = accept(&hub, self.link, "/");
        let (start, done) = (Barrier::new(SENDERS), AtomicUsize::new(0));
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let (case, client, start, done) = (&self, &client, &start, &done);
                scope.spawn(move || {
                    start.wait();
                    case.send(sender, client);
                    done.fetch_add(1, Ordering::SeqCst);
                });
            }
            self.check(&mut reader, &client, &done);
        });
        client.close(1000, "").unwrap();
        assert_eq!(reader.expect_close(), (1000, String::new()));
        hub.shutdown(common::PATIENCE).unwrap();
    }

    fn send(&self, sender: usize, client: &Client) {
        let numbers: Vec<usize> = (0..self.messages).collect();
        for burst in numbers.chunks(self.cork.max(1)) {
            let cork = (self.cork > 0).then(|| client.hub().cork());
            for n in burst {
                client.send(self.message(sender, *n)).unwrap();
            }
            drop(cork);
        }
    }

    fn message(&self, sender: usize, n: usize) -> Message {
        let size = (self.size)(n);
        if size == 0 {
            return Message::text("");
        }
        let text = labelled(sender, n, size);
        if n % 3 == 2 { Message::binary(text.into_bytes()) } else { Message::text(text) }
    }

    /// Reads everything and holds it against what each sender has sent.
    fn check(&self, reader: &mut WsClient, client: &Client, done: &AtomicUsize) {
        let is_empty = |n: &usize| (self.size)(*n) == 0;
        let mut empty = SENDERS * (0..self.messages).filter(is_empty).count();
        let mut expected: Vec<_> = (0..SENDERS).map(|_| (0..self.messages).filter(|n| !is_empty(n))).collect();
        let (mut left, mut frames, mut has_piled_up) = (SENDERS * self.messages, 0, false);
        while left > 0 {
            let is_piled_up = || client.queue_depth().messages > 0;
            if self.rest_after > 0 && frames % self.rest_after == 0 {
                eventually("messages pile up", || is_piled_up() || done.load(Ordering::SeqCst) == SENDERS);
                has_piled_up |= is_piled_up();
            }
            let frame = reader.frame();
            frames += 1;
            let text = String::from_utf8(frame.payload).unwrap();
            let is_joined = self.config.coalesce_writes && frame.first == TEXT;
            let messages: Vec<&str> = if is_joined { text.split('\n').collect() } else { vec![text.as_str()] };
            for message in messages {
                left -= 1;
                if message.is_empty() {
                    empty = empty.checked_sub(1).expect("an empty message too many");
                    continue;
                }
                let sender: usize = message.split(' ').next().unwrap().parse().unwrap();
                let n = expected[sender].next().expect("a message too many");
                assert_eq!(frame.first, if n % 3 == 2 { BINARY } else { TEXT }, "kind of {sender} {n}");
                let is_same = message == labelled(sender, n, (self.size)(n));
                assert!(is_same, "expected {n} of {sender}, got {:?}", &message[..message.len().min(20)]);
            }
        }
        assert_eq!(empty, 0, "empty messages are missing");
        assert!(expected.iter_mut().all(|rest| rest.next().is_none()));
        assert!(self.rest_after == 0 || has_piled_up, "the writer thread never had to take over");
    }
}

/// A text of this sender and number, of `size` bytes or a little more, without a line end.
fn labelled(sender: usize, n: usize, size: usize) -> String {
    let mut text = format!("{sender} {n} ");
    let letter = char::from(b'a' + u8::try_from((sender + n) % 26).unwrap());
    text.extend(std::iter::repeat_n(letter, size.saturating_sub(text.len())));
    text
}

#[test]
fn written_by_the_senders() {
    Case::new(Link::Tcp).run();
}

#[test]
fn written_at_the_end_of_corks() {
    Case { cork: 7, ..Case::new(Link::Tcp) }.run();
}

#[test]
fn across_the_hand_over() {
    Case { rest_after: 150, ..Case::new(Link::TinyUnix) }.run();
}

#[test]
fn across_the_hand_over_with_corks() {
    Case { rest_after: 150, cork: 11, ..Case::new(Link::TinyUnix) }.run();
}

#[test]
fn across_the_hand_over_on_tcp() {
    Case { rest_after: 100, messages: 300, ..Case::new(Link::TinyTcp) }.run();
}

#[test]
fn across_the_hand_over_on_tcp_with_corks() {
    Case { rest_after: 100, messages: 300, cork: 5, ..Case::new(Link::TinyTcp) }.run();
}

#[test]
fn with_eager_writers() {
    let case = Case::new(Link::TinyUnix);
    let config = case.config.clone().eager_writers(true);
    Case { rest_after: 150, config, ..case }.run();
}

#[test]
fn with_coalesced_writes() {
    let case = Case::new(Link::TinyUnix);
    let config = case.config.clone().coalesce_writes(true);
    let size = |n| if n % 10 == 9 { 0 } else { 20 + n % 100 };
    Case { rest_after: 20, config: config.clone(), size, ..case.clone() }.run();
    Case { rest_after: 20, config, size, cork: 9, ..case }.run();
}

#[test]
fn from_nothing_to_a_mebibyte() {
    const SIZES: [usize; 10] = [0, 1, 125, 126, 127, 65_535, 65_536, 4096, 300_000, 1 << 20];
    for (link, cork) in [(Link::Unix, 0), (Link::Tcp, 0), (Link::Tcp, 4)] {
        let config = Config::default().queue_messages(10_000).queue_bytes(1 << 30);
        Case { config, messages: 20, size: |n| SIZES[n % SIZES.len()], cork, ..Case::new(link) }.run();
    }
}

/// From sockets to sockets: every message of a read is handled under one cork.
#[test]
fn what_clients_send_in_bursts_reaches_everyone_in_order() {
    const MESSAGES: usize = 400;
    let config = Config::default().queue_messages(100_000).queue_bytes(1 << 30);
    let server = TestServer::new(Hub::builder().config(config).on_message(|client, message| {
        client.hub().send(Target::all(), message)?;
        Ok(())
    }));
    let clients: Vec<WsClient> = (0..SENDERS).map(|_| server.connect()).collect();
    eventually("all are connected", || server.hub.client_count() == SENDERS);
    thread::scope(|scope| {
        for (sender, mut client) in clients.into_iter().enumerate() {
            let mut stream = client.stream.try_clone().unwrap();
            scope.spawn(move || {
                for burst in (0..MESSAGES).collect::<Vec<_>>().chunks(1 + sender * 5) {
                    let frames = burst.iter().map(|n| common::client_frame(TEXT, labelled(sender, *n, 30).as_bytes()));
                    std::io::Write::write_all(&mut stream, &frames.collect::<Vec<_>>().concat()).unwrap();
                }
            });
            scope.spawn(move || {
                let mut next = [0; SENDERS];
                for _ in 0..SENDERS * MESSAGES {
                    let text = client.text();
                    let from: usize = text.split(' ').next().unwrap().parse().unwrap();
                    assert_eq!(text, labelled(from, next[from], 30));
                    next[from] += 1;
                }
            });
        }
    });
}
