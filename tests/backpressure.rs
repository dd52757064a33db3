//! Messages for a client whose queue is full: exactly the right ones are dropped, and each drop is reported once.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, Link, PATIENCE, PING, PONG, TestServer, WsClient, accept, eventually};
use wshub::{Client, Config, DropPolicy, Hub, HubBuilder, Message, SendError, Target, metrics::DebugMetrics};

/// Messages that the queue of most tests holds.
const QUEUE: usize = 16;
/// More than the socket takes and than one batch holds: the writer thread takes nothing from the queue while it stands
/// before this message.
const PLUG: usize = 300_000;

/// A client that does not read, and what is told about it.
struct Setup {
    hub: Hub,
    client: Client,
    reader: WsClient,
    metrics: Arc<DebugMetrics>,
    dropped: Arc<Mutex<Vec<String>>>,
    timed_out: Arc<Mutex<Vec<String>>>,
}

impl Setup {
    fn new(config: Config) -> Self {
        Self::with(config, |builder| builder)
    }

    fn with(config: Config, change: impl FnOnce(HubBuilder) -> HubBuilder) -> Self {
        let metrics = Arc::new(DebugMetrics::new());
        let (dropped, timed_out) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let (on_drop, on_timeout) = (Arc::clone(&dropped), Arc::clone(&timed_out));
        let builder = Hub::builder()
            .config(config.close_timeout(PATIENCE))
            .metrics(metrics.clone())
            .on_send_dropped(move |_, message| on_drop.lock().unwrap().push(message.as_text().unwrap().to_owned()))
            .on_send_timeout(move |_, message| on_timeout.lock().unwrap().push(message.as_text().unwrap().to_owned()));
        let hub = change(builder).build().unwrap();
        let (reader, client) = accept(&hub, Link::TinyUnix, "/");
        Self { hub, client, reader, metrics, dropped, timed_out }
    }

    /// Fills the socket; nothing is queued yet.
    fn plug(&self) {
        self.client.send(vec![0; PLUG]).unwrap();
        // Queued for a moment if another thread is just writing.
        eventually("it is before the socket", || self.client.queue_depth().messages == 0);
    }

    fn expect_plug(&mut self) {
        let frame = self.reader.frame();
        assert_eq!((frame.first, frame.payload.len()), (BINARY, PLUG));
    }

    /// Sends numbered messages through the hub; gives the sums of what it says.
    fn send_numbers(&self, numbers: std::ops::Range<usize>) -> (usize, usize) {
        let target = || Target::client(self.client.id());
        let deliveries = numbers.map(|n| self.hub.send(target(), n.to_string()).unwrap());
        deliveries.fold((0, 0), |sum, d| (sum.0 + d.queued, sum.1 + d.dropped))
    }

    fn expect_numbers(&mut self, numbers: impl IntoIterator<Item = usize>) {
        numbers.into_iter().for_each(|n| assert_eq!(self.reader.text(), n.to_string()));
    }

    fn dropped(&self) -> Vec<String> {
        self.dropped.lock().unwrap().clone()
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        let _ = self.hub.shutdown(Duration::ZERO);
    }
}

fn config() -> Config {
    Config::default().queue_messages(QUEUE).write_timeout(PATIENCE * 3)
}

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

#[test]
fn drop_newest_drops_exactly_the_newest() {
    let mut setup = Setup::new(config());
    setup.plug();
    assert_eq!(setup.send_numbers(0..40), (QUEUE, 40 - QUEUE));
    assert_eq!(setup.dropped(), numbers(QUEUE..40));
    let Err(SendError::Full(message)) = setup.client.send("full") else { panic!("it is full") };
    assert_eq!(message, Message::text("full"));
    let stats = setup.metrics.stats();
    assert_eq!((stats.messages_sent, stats.messages_dropped), (1 + QUEUE as u64, 41 - QUEUE as u64));
    setup.expect_plug();
    setup.expect_numbers(0..QUEUE);
    setup.client.send("next").unwrap();
    assert_eq!(setup.reader.text(), "next");
}

#[test]
fn drop_oldest_drops_exactly_the_oldest() {
    let mut setup = Setup::new(config().drop_policy(DropPolicy::DropOldest));
    setup.plug();
    assert_eq!(setup.send_numbers(0..QUEUE), (QUEUE, 0));
    for n in QUEUE..40 {
        assert_eq!(setup.send_numbers(n..n + 1), (1, 1));
        assert_eq!(setup.dropped().last().unwrap(), &(n - QUEUE).to_string());
    }
    setup.client.send("40").unwrap();
    assert_eq!(setup.dropped(), numbers(0..41 - QUEUE));
    let stats = setup.metrics.stats();
    assert_eq!((stats.messages_sent, stats.messages_dropped), (42, 41 - QUEUE as u64));
    setup.expect_plug();
    setup.expect_numbers(41 - QUEUE..41);
}

#[test]
fn drops_under_a_cork_are_the_same() {
    for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest] {
        let mut setup = Setup::new(config().drop_policy(policy));
        setup.plug();
        let cork = setup.hub.cork();
        setup.send_numbers(0..40);
        drop(cork);
        let is_newest = policy == DropPolicy::DropNewest;
        assert_eq!(setup.dropped(), if is_newest { numbers(QUEUE..40) } else { numbers(0..40 - QUEUE) });
        setup.expect_plug();
        setup.expect_numbers(if is_newest { 0..QUEUE } else { 40 - QUEUE..40 });
    }
}

#[test]
fn a_cork_over_more_than_the_queue_holds_drops_nothing_while_the_socket_takes_it() {
    let is_open = Arc::new(AtomicUsize::new(0));
    let opened = Arc::clone(&is_open);
    let hub = Hub::builder().config(config()).after_connect(move |_| opened.store(1, Ordering::SeqCst));
    let hub = hub.build().unwrap();
    let (mut reader, client) = accept(&hub, Link::Unix, "/");
    eventually("nobody else is writing", || is_open.load(Ordering::SeqCst) == 1);
    let cork = hub.cork();
    (0..10 * QUEUE).for_each(|n| client.send(n.to_string()).unwrap());
    drop(cork);
    (0..10 * QUEUE).for_each(|n| assert_eq!(reader.text(), n.to_string()));
}

/// What a text of this length counts as while it waits: its frame, and what holds it together in memory.
fn cost(length: usize) -> usize {
    let mut setup = Setup::new(config());
    setup.plug();
    setup.client.send("x".repeat(length)).unwrap();
    let bytes = setup.client.queue_depth().bytes;
    setup.expect_plug();
    let frame = length + if length < 126 { 2 } else { 4 };
    let least = if usize::BITS < 64 { 40 } else { 80 };
    assert!((frame + least..frame + 250).contains(&bytes), "{length} bytes count as {bytes}");
    bytes
}

#[test]
fn the_byte_cap_counts_too() {
    let most = 10 * cost(98);
    let mut setup = Setup::new(config().queue_messages(1000).queue_bytes(most));
    setup.plug();
    // 98 bytes and a header of 2.
    let text = |n: usize| format!("{n:0>98}");
    for n in 0..10 {
        setup.client.send(text(n)).unwrap();
    }
    let depth = setup.client.queue_depth();
    assert_eq!((depth.messages, depth.bytes), (10, most));
    assert!(matches!(setup.client.send(""), Err(SendError::Full(_))));
    assert_eq!(setup.dropped(), [""]);
    setup.expect_plug();
    (0..10).for_each(|n| assert_eq!(setup.reader.text(), text(n)));
}

#[test]
fn a_large_message_evicts_as_many_as_it_needs() {
    let small = cost(98);
    let config = config().queue_messages(1000).queue_bytes(10 * small).drop_policy(DropPolicy::DropOldest);
    let mut setup = Setup::new(config);
    setup.plug();
    let text = |n: usize| format!("{n:0>98}");
    (0..10).for_each(|n| setup.client.send(text(n)).unwrap());
    // Half of the fourth must make room too. A longer message has two more bytes of header.
    let large = "x".repeat(3 * small + small / 2 - (small - 98) - 2);
    let delivery = setup.hub.send(setup.client.id(), large.as_str()).unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (1, 4));
    assert_eq!(setup.dropped(), (0..4).map(text).collect::<Vec<_>>());
    assert_eq!(setup.metrics.stats().messages_dropped, 4);
    // Over the cap by itself: everything else goes.
    let huge = "y".repeat(20 * small);
    let delivery = setup.hub.send(setup.client.id(), huge.as_str()).unwrap();
    assert_eq!((delivery.queued, delivery.dropped), (1, 7));
    setup.expect_plug();
    assert_eq!(setup.reader.text(), huge);
}

#[test]
fn a_message_over_the_byte_cap_is_queued_alone_or_not_at_all() {
    let expected = cost(2000);
    let mut setup = Setup::new(config().queue_bytes(1000));
    let huge = "y".repeat(2000);
    setup.plug();
    setup.client.send(huge.as_str()).unwrap();
    let depth = setup.client.queue_depth();
    assert_eq!((depth.messages, depth.bytes), (1, expected));
    assert!(setup.client.send("small").is_err());
    setup.expect_plug();
    assert_eq!(setup.reader.text(), huge);
    setup.plug();
    setup.client.send("small").unwrap();
    assert!(setup.client.send(huge.as_str()).is_err());
    assert_eq!(setup.dropped(), ["small", huge.as_str()]);
    setup.expect_plug();
    assert_eq!(setup.reader.text(), "small");
}

#[test]
fn the_disconnect_policy_closes_with_1013_behind_what_is_queued() {
    let mut setup = Setup::new(config().drop_policy(DropPolicy::Disconnect));
    setup.plug();
    assert_eq!(setup.send_numbers(0..QUEUE + 1), (QUEUE, 1));
    assert!(setup.client.is_closed());
    assert!(matches!(setup.client.send("more"), Err(SendError::Closed(_))));
    assert_eq!(setup.send_numbers(0..1), (0, 0), "a closed client gets nothing and loses nothing");
    assert_eq!(setup.dropped(), [QUEUE.to_string()]);
    assert_eq!(setup.metrics.stats().messages_dropped, 1);
    setup.expect_plug();
    setup.expect_numbers(0..QUEUE);
    assert_eq!(setup.reader.expect_close(), (1013, "slow consumer".to_owned()));
}

#[test]
fn so_many_drops_in_a_row_close_and_any_queued_message_starts_the_count_again() {
    let mut setup = Setup::new(config().queue_bytes(1 << 24).max_consecutive_drops(3));
    // Each of these fills a batch by itself: when the peer has read one, there is room for exactly one.
    setup.plug();
    let large = "x".repeat(100_000);
    for _ in 0..QUEUE / 2 {
        setup.client.send(large.as_str()).unwrap();
    }
    let by_send: fn(&Client) = |client| client.send("reset").unwrap();
    let by_waiting: fn(&Client) = |client| client.send_timeout("reset", PATIENCE).unwrap();
    let by_cork: fn(&Client) = |client| {
        let _cork = client.hub().cork();
        client.send("reset").unwrap();
    };
    setup.send_numbers(QUEUE / 2..QUEUE);
    setup.expect_plug();
    for reset in [by_send, by_waiting, by_cork] {
        eventually("one has left the queue", || setup.client.queue_depth().messages == QUEUE - 1);
        reset(&setup.client);
        assert_eq!(setup.send_numbers(0..2), (0, 2));
        assert!(!setup.client.is_closed());
        assert_eq!(setup.reader.text(), large);
    }
    (3..QUEUE / 2).for_each(|_| assert_eq!(setup.reader.text(), large));
    setup.expect_numbers(QUEUE / 2..QUEUE);
    (0..3).for_each(|_| assert_eq!(setup.reader.text(), "reset"));
    setup.plug();
    assert_eq!(setup.send_numbers(0..QUEUE + 2), (QUEUE, 2));
    assert!(!setup.client.is_closed());
    assert_eq!(setup.send_numbers(QUEUE + 2..QUEUE + 3), (0, 1));
    assert!(setup.client.is_closed());
    setup.expect_plug();
    setup.expect_numbers(0..QUEUE);
    assert_eq!(setup.reader.expect_close(), (1013, "slow consumer".to_owned()));
}

#[test]
fn send_timeout_gives_up_without_dropping_anything() {
    for policy in [DropPolicy::DropNewest, DropPolicy::DropOldest, DropPolicy::Disconnect] {
        let mut setup = Setup::new(config().drop_policy(policy));
        setup.plug();
        setup.send_numbers(0..QUEUE);
        let wait = Duration::from_millis(30);
        let started = Instant::now();
        let result = setup.client.send_timeout("late", wait);
        assert!(matches!(result, Err(SendError::Timeout(m)) if m == Message::text("late")));
        assert!(started.elapsed() >= wait);
        let delivery = setup.hub.send_timeout(Target::all(), "later", wait).unwrap();
        assert_eq!((delivery.queued, delivery.dropped), (0, 1));
        assert_eq!(*setup.timed_out.lock().unwrap(), ["late", "later"]);
        assert_eq!(setup.dropped(), [""; 0]);
        assert_eq!(setup.metrics.stats().messages_dropped, 2);
        assert!(!setup.client.is_closed());
        setup.expect_plug();
        setup.expect_numbers(0..QUEUE);
    }
}

#[test]
fn send_timeout_waits_for_room() {
    let mut setup = Setup::new(config());
    setup.plug();
    setup.send_numbers(0..QUEUE);
    let client = setup.client.clone();
    let waiting = thread::spawn(move || client.send_timeout(QUEUE.to_string(), PATIENCE * 10));
    setup.expect_plug();
    let sent = QUEUE + 1;
    setup.expect_numbers(0..sent);
    waiting.join().unwrap().unwrap();
    assert_eq!(setup.timed_out.lock().unwrap().len() + setup.dropped().len(), 0);
}

#[test]
fn send_timeout_returns_at_once_when_the_client_closes() {
    for peer_goes in [false, true] {
        let setup = Setup::new(config());
        setup.plug();
        setup.send_numbers(0..QUEUE);
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let client = setup.client.clone();
                thread::spawn(move || client.send_timeout("never", PATIENCE * 10))
            })
            .collect();
        let started = Instant::now();
        if peer_goes {
            setup.reader.stream.shutdown(std::net::Shutdown::Both).unwrap();
        } else {
            setup.client.close(1000, "").unwrap();
        }
        for thread in waiting {
            assert!(matches!(thread.join().unwrap(), Err(SendError::Closed(_))));
        }
        assert!(started.elapsed() < PATIENCE, "they have waited for their time, not for the close");
        assert_eq!(setup.timed_out.lock().unwrap().len(), 0);
    }
}

#[test]
fn a_drop_hook_that_sends_is_not_called_for_its_own_drops() {
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let mut setup = Setup::with(config(), |builder| {
        builder.on_send_dropped(move |client, _| {
            count.fetch_add(1, Ordering::SeqCst);
            assert!(client.send("from the hook").is_err());
            let others = Target::all().except(client.id());
            client.hub().send(others, "told").unwrap();
        })
    });
    let (mut monitor, _) = accept(&setup.hub, Link::Unix, "/");
    setup.plug();
    setup.send_numbers(0..QUEUE + 5);
    assert_eq!(calls.load(Ordering::SeqCst), 5);
    assert_eq!(setup.metrics.stats().messages_dropped, 10);
    (0..5).for_each(|_| assert_eq!(monitor.text(), "told"));
    setup.expect_plug();
    setup.expect_numbers(0..QUEUE);
}

#[test]
fn a_pong_passes_a_full_queue() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let mut setup = Setup::with(config(), |builder| {
        builder.on_message(move |_, _| {
            count.fetch_add(1, Ordering::SeqCst);
            Ok(())
        })
    });
    setup.plug();
    setup.send_numbers(0..QUEUE + 1);
    // Only the latest of several pings needs an answer; the text behind it tells when they have been read.
    setup.reader.send_frame(PING, b"first");
    setup.reader.send_frame(PING, b"second");
    setup.reader.send_text("behind the pings");
    eventually("the pings are read", || seen.load(Ordering::SeqCst) == 1);
    setup.expect_plug();
    let frame = setup.reader.frame();
    assert_eq!((frame.first, frame.payload.as_slice()), (PONG, &b"second"[..]));
    setup.expect_numbers(0..QUEUE);
    assert_eq!(setup.metrics.stats().messages_dropped, 1);
}

#[test]
fn small_kernel_buffers_keep_old_messages_where_they_can_be_dropped() {
    const READINGS: usize = 3000;
    // The bridge has buffers of its own.
    if common::over_tls::is_wanted() {
        return;
    }
    let config = Config::default()
        .queue_messages(8)
        .drop_policy(DropPolicy::DropOldest)
        .send_buffer(16 * 1024)
        .unsent_low_water(16 * 1024)
        .write_timeout(PATIENCE);
    let server = TestServer::new(Hub::builder().config(config));
    let (mut socket, client) = server.pair();
    // Nobody reads. With the system's buffers all of this would be on its way, and be read first.
    for n in 0..READINGS {
        client.send(format!("{n:01024}")).unwrap();
    }
    let mut heard = 0;
    while socket.text().trim_start_matches('0') != (READINGS - 1).to_string() {
        heard += 1;
    }
    assert!(heard < READINGS / 4, "{heard} old readings");
    assert!(client.dropped().messages > READINGS as u64 / 2, "what is not sent is dropped, and counted");
}
