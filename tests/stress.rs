//! The outbox under threads that meet at its mutex: no message waits for the next send, a close frame is the last
//! frame, and everything at once for eight seconds. `WSHUB_STRESS_SECONDS` sets a longer time.
#![allow(clippy::unwrap_used, reason = "a test may fail by a panic")]

mod common;

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::{BINARY, CLOSE, Link, PATIENCE, PING, PONG, Random, TEXT, WsClient, accept, eventually};
use wshub::{Client, Config, Hub, SendError, Target};

const THREADS: usize = 4;

/// Nothing is dropped, and only what a test begins to close is closed.
fn config() -> Config {
    Config::default()
        .queue_messages(1_000_000)
        .queue_bytes(1 << 30)
        .write_timeout(PATIENCE * 10)
        .drain_timeout(PATIENCE * 10)
}

/// Each round every thread acts once or a few times, and then nobody does anything: what arrives now has not waited
/// for a later send to push it along.
#[test]
fn nothing_waits_for_the_next_send() {
    for (link, rounds) in [(Link::Unix, 2000), (Link::TinyUnix, 1000)] {
        let hub = Hub::builder().config(config()).build().unwrap();
        let (mut reader, client) = accept(&hub, link, "/");
        for round in 0..rounds {
            let begin = Barrier::new(THREADS);
            thread::scope(|scope| {
                for sender in 0..THREADS {
                    let (begin, client) = (&begin, &client);
                    let mut random = Random::new((round * THREADS + sender) as u64);
                    scope.spawn(move || {
                        begin.wait();
                        let cork = (random.below(3) == 0).then(|| client.hub().cork());
                        (0..3).for_each(|n| {
                            client.send(format!("{sender} {n} {}", "x".repeat(random.below(3000)))).unwrap();
                        });
                        drop(cork);
                    });
                }
                let mut next = [0; THREADS];
                (0..THREADS * 3).for_each(|_| expect_next(&reader.text(), &mut next));
            });
        }
    }
}

/// Ends the other threads of a test, also when it fails.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A drain looks at every outbox, which must not cost anybody a message.
#[test]
fn nothing_waits_because_a_drain_has_looked() {
    let hub = Hub::builder().config(config()).build().unwrap();
    let (mut reader, client) = accept(&hub, Link::Unix, "/");
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                hub.drain(Duration::ZERO).unwrap_err();
            }
        });
        let _ends = Ends(&is_over);
        // The reader has to get each message before the next is sent. Under a cork a send meets the mutex only once.
        for n in 0..30_000 {
            let cork = hub.cork();
            client.send(n.to_string()).unwrap();
            drop(cork);
            assert_eq!(reader.text(), n.to_string());
        }
    });
}

fn expect_next(text: &str, next: &mut [usize]) {
    let mut words = text.split(' ');
    let sender: usize = words.next().unwrap().parse().unwrap();
    assert_eq!(words.next().unwrap(), next[sender].to_string(), "of sender {sender}");
    next[sender] += 1;
}

/// What a thread has sent before it closes goes out; what others send meanwhile goes out or is refused, in order; and
/// nothing comes behind the close frame.
#[test]
fn a_close_against_sends() {
    for round in 0..200 {
        let hub = Hub::builder().config(config().close_timeout(PATIENCE)).build().unwrap();
        let link = if round % 2 == 0 { Link::Unix } else { Link::TinyUnix };
        let (mut reader, client) = accept(&hub, link, "/");
        let begin = Barrier::new(THREADS);
        thread::scope(|scope| {
            for sender in 0..THREADS {
                let (client, begin) = (&client, &begin);
                scope.spawn(move || {
                    begin.wait();
                    for n in 0..200 {
                        if let Err(error) = client.send(format!("{sender} {n} {}", "x".repeat(200))) {
                            assert!(matches!(error, SendError::Closed(_)), "{error}");
                            break;
                        }
                        if sender == 0 && n == round % 50 {
                            client.close(1000, "enough").unwrap();
                            break;
                        }
                    }
                });
            }
            let mut next = [0; THREADS];
            let close = loop {
                if round % 4 == 1 {
                    // A pong finds the close frame in the socket's way, or half written.
                    let _ = std::io::Write::write_all(&mut reader.stream, &common::client_frame(PING, b"still there?"));
                }
                let frame = reader.frame();
                match frame.first {
                    PONG => {}
                    CLOSE => break frame,
                    _ => expect_next(frame.text(), &mut next),
                }
            };
            assert_eq!(close.close(), (1000, "enough"));
            assert_eq!(next[0], round % 50 + 1, "what the closing thread had sent, round {round}");
            let _ = std::io::Write::write_all(&mut reader.stream, &common::client_frame(CLOSE, &[3, 232]));
            reader.expect_end();
        });
        eventually("it is gone", || hub.client_count() == 0);
    }
}

/// Everything at once: broadcasts, corks, waiting sends, pings, large and small, fast and slow readers, closes.
#[test]
fn everything_at_once() {
    let seconds = std::env::var("WSHUB_STRESS_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut seed = u64::from(std::process::id());
    while Instant::now() < end {
        seed += 1;
        episode(seed);
    }
}

const CLIENTS: usize = 6;
const MESSAGES: usize = 300;

fn episode(seed: u64) {
    let mut random = Random::new(seed);
    let config = config().eager_writers(random.below(4) == 0);
    let hub = Hub::builder().config(config).on_message(|_, _| Ok(())).build().unwrap();
    let links = [Link::Tcp, Link::Unix, Link::TinyUnix];
    let clients: Vec<(WsClient, Client)> = (0..CLIENTS).map(|n| accept(&hub, links[n % 3], "/")).collect();
    let handles: Vec<Client> = clients.iter().map(|c| c.1.clone()).collect();
    // The first client is closed in the middle; all others must get everything.
    thread::scope(|scope| {
        for (number, (reader, _)) in clients.into_iter().enumerate() {
            scope.spawn(move || read(reader, number == 0, Random::new(seed * 31 + number as u64)));
        }
        let senders: Vec<_> = (0..THREADS)
            .map(|sender| {
                let handles = &handles;
                scope.spawn(move || send(sender, handles, Random::new(seed * 17 + sender as u64)))
            })
            .collect();
        let many = random.below(MESSAGES / 2);
        handles[1].send("go").unwrap();
        for n in 0..many {
            handles[1].send(format!("noise {n}")).unwrap();
        }
        handles[0].close(1000, "").unwrap();
        senders.into_iter().for_each(|sender| sender.join().unwrap());
    });
    drop(handles);
    hub.shutdown(PATIENCE).unwrap();
}

/// The same numbers to every client, by broadcast or one by one, waiting or not, corked or not.
fn send(sender: usize, clients: &[Client], mut random: Random) {
    let hub = clients[0].hub();
    let mut n = 0;
    while n < MESSAGES {
        let burst = 1 + random.below(12);
        let cork = (random.below(2) == 0).then(|| hub.cork());
        for _ in 0..burst.min(MESSAGES - n) {
            let size = if random.below(50) == 0 { 100_000 } else { random.below(300) };
            let text = format!("{sender} {n} {}", "x".repeat(size));
            match random.below(3) {
                0 => drop(hub.send(Target::all(), text).unwrap()),
                1 => drop(hub.send_timeout(Target::all(), text.into_bytes(), PATIENCE).unwrap()),
                _ => {
                    let closed = clients.iter().filter(|client| client.send(text.as_str()).is_err());
                    assert!(closed.count() <= 1);
                }
            }
            n += 1;
        }
        drop(cork);
    }
}

/// Reads everything, now fast, now slowly, and pings; a client that is closed ends with the close frame.
fn read(mut reader: WsClient, is_closed: bool, mut random: Random) {
    let (mut next, mut pings, mut answers) = ([0; THREADS], 0, 0);
    while is_closed || next.iter().sum::<usize>() < THREADS * MESSAGES {
        match random.below(200) {
            0 => {
                pings += 1;
                let _ = std::io::Write::write_all(&mut reader.stream, &common::client_frame(PING, b"?"));
            }
            1 => thread::sleep(Duration::from_millis(1)),
            _ => {}
        }
        let frame = reader.frame();
        match frame.first {
            PONG => answers += 1,
            CLOSE => {
                assert!(is_closed);
                let _ = std::io::Write::write_all(&mut reader.stream, &common::client_frame(CLOSE, &[3, 232]));
                return reader.expect_end();
            }
            TEXT | BINARY => {
                let text = String::from_utf8(frame.payload).unwrap();
                if !text.starts_with(['g', 'n']) {
                    expect_next(&text, &mut next);
                }
            }
            other => panic!("an unexpected frame {other:#x}"),
        }
    }
    assert!(answers <= pings);
    reader.send_close(1000);
    while reader.next_frame().is_some() {}
}
