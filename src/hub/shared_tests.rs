//! Broadcasts that helpers take part in: more of them than there are cores.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::config::{Config, DropPolicy};
use crate::http::RequestHead;
use crate::hub::{Delivery, Hub, Target};
use crate::message::Message;

const CLIENTS: usize = 300;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn config(helpers: usize) -> Config {
    Config::default().fanout_threads(helpers).pong_timeout(Duration::ZERO)
}

/// A hub with so many clients, and their ends of the sockets.
fn hub(config: Config, clients: usize) -> (Hub, Vec<UnixStream>) {
    let hub = Hub::builder().config(config).build().expect("valid");
    let far = (0..clients).map(|_| {
        let (near, mut far) = UnixStream::pair().expect("a pair");
        far.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let (head, _) = RequestHead::parse(REQUEST).expect("valid").expect("whole");
        hub.accept(near, head, &[]).detach().expect("a thread");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            far.read_exact(&mut byte).expect("the answer");
            answer.push(byte[0]);
        }
        far
    });
    let far = far.collect();
    (hub, far)
}

/// The next short message.
fn read(far: &mut UnixStream) -> String {
    let mut head = [0; 2];
    far.read_exact(&mut head).expect("a message");
    assert!(head[0] == 0x81 && head[1] < 126, "{head:?}");
    let mut text = vec![0; usize::from(head[1])];
    far.read_exact(&mut text).expect("its payload");
    String::from_utf8(text).expect("text")
}

fn end(hub: &Hub, far: Vec<UnixStream>) {
    drop(far);
    hub.shutdown(Duration::from_secs(60)).expect("all gone");
    assert_eq!(hub.group().helpers().count(), 0, "no thread is left");
}

#[test]
fn each_client_gets_each_threads_messages_in_order_and_once() {
    const SENDERS: usize = 3;
    const ROUNDS: usize = 20;
    for helpers in [0, 1, 16] {
        let (hub, mut far) = hub(config(helpers), CLIENTS);
        thread::scope(|scope| {
            for sender in 0..SENDERS {
                let hub = &hub;
                scope.spawn(move || send_all(hub, sender, ROUNDS));
            }
        });
        for far in &mut far {
            let mut next = [0; SENDERS];
            for _ in 0..SENDERS * ROUNDS * 4 {
                let text = read(far);
                let (sender, number) = text.split_once(' ').expect("two numbers");
                let sender: usize = sender.parse().expect("a number");
                assert_eq!(number, next[sender].to_string(), "{helpers} helpers, sender {sender}");
                next[sender] += 1;
            }
        }
        assert_eq!(hub.group().helpers().count() > 0, helpers > 0, "it has been shared");
        end(&hub, far);
    }
}

/// Sends four messages to all a round: alone, one by one to every client, and two under a cork.
fn send_all(hub: &Hub, sender: usize, rounds: usize) {
    let text = |number: usize| format!("{sender} {number}");
    let expected = Delivery { queued: CLIENTS, ..Delivery::default() };
    for round in 0..rounds {
        assert_eq!(hub.send(Target::all(), text(4 * round)).expect("a hub"), expected);
        for client in hub.clients() {
            client.send(text(4 * round + 1)).expect("open");
        }
        let _cork = hub.cork();
        for number in 2..4 {
            assert_eq!(hub.send(Target::all(), text(4 * round + number)).expect("a hub"), expected);
        }
    }
}

#[test]
fn a_delivery_counts_exactly_what_slow_clients_lose() {
    for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest] {
        let config = config(4).drop_policy(policy).queue_messages(8).send_buffer(4096).write_timeout(Duration::MAX);
        let (hub, mut far) = hub(config, CLIENTS);
        let (mut queued, mut dropped) = (0, 0);
        // Nobody reads: sockets and queues fill up.
        for number in 0..60 {
            let text = format!("{number:0>1000}");
            let delivery = hub.send(Target::all(), text).expect("a hub");
            queued += delivery.queued;
            dropped += delivery.dropped;
        }
        assert!(dropped > CLIENTS, "{policy:?}: {dropped}");
        let lost: u64 = hub.clients().iter().map(|client| client.outbox().expect("open").lost().0).sum();
        assert_eq!(lost, dropped as u64, "{policy:?}");
        let kept = if policy == DropPolicy::DropNewest { queued } else { queued - dropped };
        hub.close(Target::all(), 1000, "").expect("a valid code");
        let got: usize = far.iter_mut().map(count_numbers).sum();
        assert_eq!(got, kept, "{policy:?}");
        end(&hub, far);
    }
}

/// How many messages of 1,000 bytes come before the close frame. Their numbers rise.
fn count_numbers(far: &mut UnixStream) -> usize {
    let mut numbers = Vec::new();
    loop {
        let mut head = [0; 4];
        far.read_exact(&mut head).expect("a frame");
        if head[0] == 0x88 {
            assert!(numbers.is_sorted_by(|a: &usize, b| a < b), "{numbers:?}");
            return numbers.len();
        }
        let mut text = [0; 1000];
        far.read_exact(&mut text).expect("a payload");
        numbers.push(String::from_utf8_lossy(&text).parse().expect("a number"));
    }
}

#[test]
fn a_client_that_is_left_out_gets_nothing_and_unions_count_once() {
    let (hub, mut far) = hub(config(4), CLIENTS);
    let clients = hub.clients();
    for (at, client) in clients.iter().enumerate() {
        client.join("all").expect("a room");
        if at % 2 == 0 {
            client.join("even").expect("a room");
        }
    }
    let union = Target::room("all").and(Target::room("even")).except(clients[0].id());
    let delivery = hub.send(union, "union").expect("a hub");
    assert_eq!(delivery.queued, CLIENTS - 1);
    hub.send(Target::all(), "end").expect("a hub");
    let left_out = far.iter_mut().map(read).filter(|text| text == "end").count();
    assert_eq!(left_out, 1);
    end(&hub, far);
}

/// A payload whose destructor counts and panics.
struct Owned(Arc<AtomicUsize>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        b"payload"
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
        panic!("a destructor of the application's");
    }
}

#[test]
fn a_panic_of_a_payloads_destructor_ends_no_helper() {
    let (hub, far) = hub(config(4), CLIENTS);
    let dropped = Arc::new(AtomicUsize::new(0));
    for _ in 0..20 {
        let payload = Bytes::from_owner(Owned(Arc::clone(&dropped)));
        // The last handle is this thread's or a helper's.
        let _ = catch_unwind(AssertUnwindSafe(|| hub.send(Target::all(), Message::binary(payload))));
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while dropped.load(Ordering::SeqCst) < 20 {
        assert!(Instant::now() < deadline, "a payload is left behind");
        thread::yield_now();
    }
    let threads = hub.group().helpers().count();
    assert!(threads > 0 && hub.group().helpers().are_alive());
    end(&hub, far);
}

#[test]
fn a_hub_that_is_dropped_ends_its_helpers() {
    let (hub, far) = hub(config(2), CLIENTS);
    for _ in 0..20 {
        hub.send(Target::all(), "x").expect("a hub");
    }
    let group = Arc::downgrade(hub.group());
    drop(hub);
    drop(far);
    let deadline = Instant::now() + Duration::from_secs(60);
    while group.strong_count() > 0 {
        assert!(Instant::now() < deadline, "the helpers or the connections keep the hub");
        thread::yield_now();
    }
}

#[test]
fn a_shutdown_closes_all_with_their_reason() {
    let (hub, far) = hub(config(4), CLIENTS);
    let closing = thread::spawn(move || {
        for mut far in far {
            let mut frame = [0; 24];
            far.read_exact(&mut frame).expect("a close frame");
            assert_eq!((&frame[..4], &frame[4..]), (&[0x88, 22, 3, 233][..], &b"server shutting down"[..]));
        }
    });
    hub.shutdown(Duration::from_secs(60)).expect("all gone");
    closing.join().expect("closed in order");
    assert_eq!(hub.group().helpers().count(), 0);
}
